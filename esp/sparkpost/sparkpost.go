// Package sparkpost understands the event webhooks of SparkPost (Bird).
// README.md has sources and quirks.
package sparkpost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for SparkPost.
type Adapter struct{}

// A bounce of a class that is none has the class behind a dot.
var types = []esp.TypeMapping{
	{Theirs: "injection", Ours: event.Queued},
	{Theirs: "delivery", Ours: event.Delivered},
	{Theirs: "delay", Ours: event.Deferred},
	{Theirs: "bounce", Ours: event.Bounced, Note: "in the SMTP dialogue, or given up; hard or soft by the class"},
	{Theirs: "out_of_band", Ours: event.Bounced, Note: "a bounce mail that came after acceptance"},
	{Theirs: "bounce.25", Ours: event.Rejected, Note: "class 25, admin failure: not tried"},
	{Theirs: "bounce.60", Ours: event.Autoresponded},
	{Theirs: "bounce.100", Ours: event.Autoresponded, Note: "class 100, challenge-response"},
	{Theirs: "bounce.80", Ours: event.Subscribed},
	{Theirs: "bounce.90", Ours: event.Unsubscribed},
	{Theirs: "policy_rejection", Ours: event.Rejected},
	{Theirs: "generation_rejection", Ours: event.Rejected},
	{Theirs: "generation_failure", Ours: event.Failed},
	{Theirs: "spam_complaint", Ours: event.Complained},
	{Theirs: "list_unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "link_unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "initial_open", Ours: event.Opened},
	{Theirs: "amp_open", Ours: event.Opened},
	{Theirs: "amp_initial_open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
	{Theirs: "amp_click", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// classes are SparkPost's bounce classification codes.
var classes = map[string]struct {
	bounce   event.BounceType
	category event.Category
}{
	"1":  {event.Undetermined, event.NoReason},
	"10": {event.Hard, event.InvalidRecipient},
	"20": {event.Soft, ""},
	"21": {event.Soft, event.DNSFailure},
	"22": {event.Soft, event.MailboxFull},
	"23": {event.Soft, event.MessageTooLarge},
	"24": {event.Soft, event.NetworkError},
	"30": {event.Hard, ""},
	"40": {event.Soft, ""},
	"50": {event.Soft, event.Policy},
	"51": {event.Soft, event.Blocklisted},
	"52": {event.Soft, event.SpamContent},
	"53": {event.Soft, event.ContentRejected},
	"54": {event.Soft, event.RelayDenied},
	"70": {event.Soft, ""},
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:       "sparkpost",
		Title:      "SparkPost (Bird)",
		Aliases:    []string{"bird"},
		DocsURL:    "https://developers.sparkpost.com/api/webhooks/",
		Protection: "SparkPost signs nothing. It can send a user name and password, an OAuth 2 token or a header of your choice.",
		SetUp: []esp.Step{
			{Text: "In SparkPost open Configuration, Webhooks, and choose Create Webhook."},
			{Text: "Enter {url} as Target URL and select all events."},
			{Text: "Choose Basic Auth, enter the same user name and password in this source, and create the webhook."},
		},
		Retry:       "SparkPost takes 200 only, waits 10 seconds for it, and posts a batch again for 8 hours.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	b := espkit.Batch{Several: records}
	return b.Read(req, "")
}

var (
	errNoEnvelope = errors.New("the record has no msys")
	errNoType     = errors.New("the record has no type")
)

// records reads {"msys":{"message_event":{…}}}. An empty msys is a ping.
func records(v espkit.Value) ([]event.Event, error) {
	msys := v.Object().Get("msys")
	if !msys.IsObject() {
		return nil, errNoEnvelope
	}
	var events []event.Event
	for _, m := range msys.Object() {
		e, err := record(v, m.Value.Object())
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

func record(v espkit.Value, o espkit.Object) (event.Event, error) {
	e := event.Event{ESPType: o.Get("type").String()}
	if e.ESPType == "" {
		return e, errNoType
	}
	e.Record = bytes.Clone(v)
	class := o.Get("bounce_class").String()
	if classified := e.ESPType + "." + class; e.ESPType == "bounce" && table[classified] != "" {
		e.ESPType = classified
	} else if e.ESPType == "out_of_band" && table["bounce."+class] != "" {
		e.ESPType = "bounce." + class
	}
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("timestamp").String())
	e.Recipient = espkit.Address(espkit.First(o.Get("raw_rcpt_to").String(), o.Get("rcpt_to").String()))
	e.MessageID = o.Get("transmission_id").String()
	e.EventID = o.Get("event_id").String()
	e.Subject = o.Get("subject").String()
	e.SendingDomain = espkit.Domain(espkit.First(o.Get("msg_from").String(), o.Get("friendly_from").String()))
	e.DedicatedIP = o.Get("sending_ip").String()
	e.SendingNode = o.Get("ip_pool").String()
	e.Bridge = o.Get("subaccount_id").String()
	e.CampaignID = o.Get("campaign_id").String()
	e.BroadcastName = e.CampaignID // SparkPost's campaign ids are names
	e.Tags = append(o.Get("campaign_id").Strings(), o.Get("rcpt_tags").Strings()...)
	e.Metadata = o.Get("rcpt_meta").Map()
	if o.Get("transactional").String() == "1" {
		e.Stream = "transactional"
	}
	e.Diagnostic = espkit.First(o.Get("raw_reason").String(), o.Get("reason").String())
	e.SMTPCode = espkit.ReplyCode(o.Get("error_code").String())
	switch e.Type {
	case event.Bounced:
		e.BounceType = event.Undetermined
		if c, ok := classes[class]; ok {
			e.BounceType, e.Category = c.bounce, c.category
		}
		e.Asynchronous = event.Bool(e.ESPType == "out_of_band")
	case event.Deferred:
		e.Category = classes[class].category
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP = o.Get("ip_address").String()
		e.UserAgent = o.Get("user_agent").String()
		e.URL = o.Get("target_link_url").String()
	case event.Complained:
		e.UserAgent = o.Get("user_str").String()
	}
	espkit.Finish(&e)
	return e, nil
}

var sampleWords = map[event.Type]struct{ class, word string }{
	event.Queued: {"message_event", "injection"}, event.Delivered: {"message_event", "delivery"}, event.Deferred: {"message_event", "delay"},
	event.Bounced: {"message_event", "bounce"}, event.Rejected: {"message_event", "policy_rejection"}, event.Failed: {"gen_event", "generation_failure"},
	event.Complained: {"message_event", "spam_complaint"}, event.Opened: {"track_event", "open"}, event.Clicked: {"track_event", "click"},
	event.Unsubscribed: {"unsubscribe_event", "list_unsubscribe"}, event.Subscribed: {"message_event", "bounce"}, event.Autoresponded: {"message_event", "bounce"},
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("sparkpost has no %s event", ev.Type)
	}
	at := espkit.SampleTime(ev, now)
	o := map[string]any{
		"type": word.word, "event_id": ev.EventID, "transmission_id": ev.MessageID, "raw_rcpt_to": ev.Recipient, "rcpt_to": ev.Recipient,
		"timestamp": strconv.FormatInt(at.Unix(), 10), "subject": ev.Subject, "rcpt_meta": ev.Metadata, "rcpt_tags": ev.Tags,
		"msg_from": "shop@" + espkit.First(ev.SendingDomain, "mail.example.com"),
	}
	switch ev.Type {
	case event.Bounced:
		o["bounce_class"] = "10"
		if ev.BounceType == event.Soft {
			o["bounce_class"] = "22"
		}
		if ev.Asynchronous != nil && *ev.Asynchronous {
			o["type"] = "out_of_band"
		}
	case event.Deferred:
		o["bounce_class"] = "20"
	case event.Subscribed:
		o["bounce_class"] = "80"
	case event.Autoresponded:
		o["bounce_class"] = "60"
	case event.Opened, event.Clicked, event.Unsubscribed:
		o["ip_address"], o["user_agent"] = ev.IP, ev.UserAgent
		if ev.Type == event.Clicked {
			o["target_link_url"] = ev.URL
		}
	}
	if ev.Diagnostic != "" {
		o["raw_reason"], o["reason"] = ev.Diagnostic, ev.Diagnostic
	}
	if ev.SMTPCode != 0 {
		o["error_code"] = strconv.Itoa(ev.SMTPCode)
	}
	body, err := json.Marshal([]any{map[string]any{"msys": map[string]any{word.class: o}}})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
