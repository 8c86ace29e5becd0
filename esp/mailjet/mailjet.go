// Package mailjet understands the event callbacks of Mailjet. README.md has
// sources and quirks.
package mailjet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Mailjet.
type Adapter struct{}

// A bounce that says greylisted is another thing.
var types = []esp.TypeMapping{
	{Theirs: "sent", Ours: event.Delivered, Note: "the destination's SMTP server has accepted it"},
	{Theirs: "bounce", Ours: event.Bounced},
	{Theirs: "bounce.greylisted", Ours: event.Deferred, Note: "Mailjet tries again"},
	{Theirs: "blocked", Ours: event.Rejected},
	{Theirs: "spam", Ours: event.Complained},
	{Theirs: "unsub", Ours: event.Unsubscribed},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// categories are Mailjet's words for the cause of an error.
var categories = map[string]event.Category{
	"user unknown":               event.InvalidRecipient,
	"mailbox inactive":           event.InactiveMailbox,
	"quota exceeded":             event.MailboxFull,
	"invalid domain":             event.InvalidDomain,
	"no mail host":               event.InvalidDomain,
	"relay/access denied":        event.RelayDenied,
	"greylisted":                 event.Greylisted,
	"typofix":                    event.InvalidRecipient,
	"bad or empty template":      event.ContentRejected,
	"error in template language": event.ContentRejected,
	"sender blocked":             event.Blocklisted,
	"content blocked":            event.SpamContent,
	"policy issue":               event.Policy,
	"system issue":               event.SystemError,
	"protocol issue":             event.ProtocolError,
	"connection issue":           event.NetworkError,
	"preblocked":                 event.Suppressed,
	"duplicate in campaign":      event.Suppressed,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:       "mailjet",
		Title:      "Mailjet",
		DocsURL:    "https://dev.mailjet.com/email/guides/webhooks/",
		Protection: "Mailjet signs nothing. A user name and password in the URL is the protection it documents.",
		SetUp: []esp.Step{
			{Text: "In Mailjet open Account settings, Event notifications (webhooks)."},
			{Text: "Enter {url} for every event, with a user name and password in it, and the same in this source."},
			{Text: "Tick Group events (version 2), and save."},
		},
		Retry:       "Mailjet takes 200 only and posts again every 30 seconds for 24 hours.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	b := espkit.Batch{Record: record}
	return b.Read(req, "")
}

var errNoType = errors.New("the record has no event")

func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	e := event.Event{ESPType: o.Get("event").String()}
	if e.ESPType == "" {
		return e, errNoType
	}
	e.Record = bytes.Clone(v)
	cause := o.Get("error").String()
	if e.ESPType == "bounce" && cause == "greylisted" {
		e.ESPType += "." + cause
	}
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("time").String())
	e.Recipient = espkit.Address(o.Get("email").String())
	e.MessageID = o.Get("MessageID").String() // an integer beyond 2^53, kept as written
	e.CampaignID = o.Get("mj_campaign_id").String()
	e.BroadcastName = o.Get("customcampaign").String()
	e.Tags = o.Get("customcampaign").Strings()
	if payload, ok := espkit.Document([]byte(o.Get("Payload").String())); ok {
		e.Metadata = payload.Map()
	}
	e.Diagnostic = espkit.First(o.Get("comment").String(), o.Get("smtp_reply").String(), cause)
	switch e.Type {
	case event.Bounced:
		e.BounceType = event.Soft
		if o.Get("hard_bounce").String() == "true" {
			e.BounceType = event.Hard
		}
		e.Category = category(cause, o)
	case event.Deferred, event.Rejected:
		e.Category = category(cause, o)
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP = o.Get("ip").String()
		e.UserAgent = o.Get("agent").String()
		e.URL = o.Get("url").String()
	}
	espkit.Finish(&e)
	return e, nil
}

func category(cause string, o espkit.Object) event.Category {
	if c, ok := categories[cause]; ok {
		return c
	}
	return categories[o.Get("error_related_to").String()]
}

var sampleWords = map[event.Type]string{
	event.Delivered: "sent", event.Bounced: "bounce", event.Deferred: "bounce", event.Rejected: "blocked", event.Complained: "spam",
	event.Unsubscribed: "unsub", event.Opened: "open", event.Clicked: "click",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("mailjet has no %s event", ev.Type)
	}
	payload := ""
	if len(ev.Metadata) > 0 {
		text, err := json.Marshal(ev.Metadata)
		if err != nil {
			return esp.Request{}, fmt.Errorf("encode a sample's metadata: %w", err)
		}
		payload = string(text)
	}
	o := map[string]any{
		"event": word, "time": espkit.SampleTime(ev, now).Unix(), "MessageID": ev.MessageID, "Message_GUID": "1ab23cd4-e567-8901-2345-6789f0aa1b2c",
		"email": ev.Recipient, "mj_campaign_id": 7257, "mj_contact_id": 4, "customcampaign": espkit.First(ev.Tags...), "CustomID": "", "Payload": payload,
	}
	switch ev.Type {
	case event.Delivered:
		o["smtp_reply"] = "sent (250 2.0.0 OK)"
	case event.Bounced:
		o["blocked"], o["hard_bounce"], o["error_related_to"], o["error"], o["comment"] = false, ev.BounceType != event.Soft, "recipient", "user unknown", ev.Diagnostic
	case event.Deferred:
		o["blocked"], o["hard_bounce"], o["error_related_to"], o["error"], o["comment"] = true, false, "domain", "greylisted", ev.Diagnostic
	case event.Rejected:
		o["error_related_to"], o["error"] = "mailjet", "preblocked"
	case event.Complained:
		o["source"] = "JMRPP"
	case event.Unsubscribed, event.Opened, event.Clicked:
		o["ip"], o["geo"], o["agent"] = ev.IP, "FR", ev.UserAgent
		if ev.Type == event.Clicked {
			o["url"] = ev.URL
		}
	}
	body, err := json.Marshal([]any{o})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
