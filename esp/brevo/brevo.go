// Package brevo understands the webhooks of Brevo, formerly Sendinblue.
// README.md has sources and quirks.
package brevo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Brevo.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "request", Ours: event.Queued, Note: "accepted by Brevo, not yet by anybody else"},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "deferred", Ours: event.Deferred},
	{Theirs: "soft_bounce", Ours: event.Bounced, Note: "Brevo has given up; while it retries it says deferred"},
	{Theirs: "hard_bounce", Ours: event.Bounced},
	{Theirs: "invalid_email", Ours: event.Bounced, Note: "the address cannot exist: hard"},
	{Theirs: "blocked", Ours: event.Rejected},
	{Theirs: "error", Ours: event.Failed},
	{Theirs: "spam", Ours: event.Complained},
	{Theirs: "complaint", Ours: event.Complained},
	{Theirs: "unsubscribed", Ours: event.Unsubscribed},
	{Theirs: "unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "opened", Ours: event.Opened},
	{Theirs: "unique_opened", Ours: event.Opened},
	{Theirs: "proxy_open", Ours: event.Opened, Note: "opened by a privacy proxy"},
	{Theirs: "unique_proxy_open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
	{Theirs: "list_addition", Ours: event.Subscribed},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "brevo",
		Title:   "Brevo (Sendinblue)",
		Aliases: []string{"sendinblue"},
		DocsURL: "https://developers.brevo.com/docs/how-to-use-webhooks",
		Protection: "Brevo signs nothing. It can send a user name and password from the URL, or a bearer token, and posts from " +
			"185.107.232.0/24 and 1.179.112.0/20.",
		SetUp: []esp.Step{
			{Text: "In Brevo open Transactional, Settings, Webhook, and choose Add a new webhook."},
			{Text: "Enter {url} and tick every event."},
			{Text: "Choose an authentication (user name and password, or token) and enter the same in this source."},
			{Text: "For marketing e-mail, do the same under Contacts, Settings, Webhooks."},
		},
		Retry: "Brevo posts again after 10 minutes, 1, 2 and 8 hours, but only after 429 or no answer at all: " +
			"any other 4xx and any 5xx discard the event. We answer 429 when we cannot store.",
		RetryStatus:    http.StatusTooManyRequests,
		MessageIDIsRFC: true,
		Types:          types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	b := espkit.Batch{Several: records}
	return b.Read(req, "")
}

var errNoType = errors.New("the record has no event")

// records makes one event, or of a list addition one for each address.
func records(v espkit.Value) ([]event.Event, error) {
	o := v.Object()
	e := event.Event{ESPType: o.Get("event").String()}
	if e.ESPType == "" {
		return nil, errNoType
	}
	e.Record = bytes.Clone(v)
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = occurred(o)
	e.MessageID = o.Get("message-id").String()
	e.RFCMessageID = e.MessageID
	e.Subject = o.Get("subject").String()
	e.Tags = tags(o)
	if custom, ok := espkit.Document([]byte(o.Get("X-Mailin-custom").String())); ok {
		e.Metadata = custom.Map()
	}
	e.Diagnostic = o.Get("reason").String()
	e.CampaignID = o.Get("camp_id").String()
	e.BroadcastName = o.Get("campaign name").String()
	e.DedicatedIP = o.Get("sending_ip").String()

	switch e.Type {
	case event.Bounced:
		e.BounceType = event.Hard
		switch e.ESPType {
		case "soft_bounce":
			e.BounceType = event.Soft
		case "invalid_email":
			e.Category = event.InvalidRecipient
		}
	case event.Rejected:
		e.Category = event.Suppressed
	case event.Clicked:
		e.URL = espkit.First(o.Get("link").String(), o.Get("URL").String())
	}
	espkit.Finish(&e)
	return espkit.ForEach(e, o.Get("email").Strings()), nil
}

// occurred takes the first time that has a known zone. The member date is
// local time of the account, which no one names.
func occurred(o espkit.Object) time.Time {
	for _, name := range []string{"ts_epoch", "s_epoch", "ts_event", "ts"} {
		if t := espkit.Time(o.Get(name).String()); !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// tags come as an array, as the text of an array, or as one word.
func tags(o espkit.Object) []string {
	if list := o.Get("tags").Strings(); len(list) > 0 {
		return list
	}
	tag := o.Get("tag")
	if text := tag.String(); strings.HasPrefix(text, "[") {
		if list, ok := espkit.Document([]byte(text)); ok {
			return list.Strings()
		}
	}
	return tag.Strings()
}

var sampleWords = map[event.Type]string{
	event.Queued: "request", event.Delivered: "delivered", event.Deferred: "deferred", event.Bounced: "hard_bounce", event.Rejected: "blocked",
	event.Failed: "error", event.Complained: "spam", event.Unsubscribed: "unsubscribed", event.Opened: "opened", event.Clicked: "click",
	event.Subscribed: "list_addition",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("brevo has no %s event", ev.Type)
	}
	if ev.Type == event.Bounced && ev.BounceType == event.Soft {
		word = "soft_bounce"
	}
	at := espkit.SampleTime(ev, now)
	o := map[string]any{
		"id": 814119, "event": word, "email": ev.Recipient, "date": at.Add(time.Hour).Format(time.DateTime),
		"ts": at.Unix(), "ts_event": at.Unix(), "ts_epoch": at.UnixMilli(),
		"message-id": ev.MessageID, "subject": ev.Subject, "sending_ip": "198.51.100.20",
	}
	if len(ev.Tags) > 0 {
		text, _ := json.Marshal(ev.Tags)
		o["tags"], o["tag"] = ev.Tags, string(text)
	}
	if len(ev.Metadata) > 0 {
		text, err := json.Marshal(ev.Metadata)
		if err != nil {
			return esp.Request{}, fmt.Errorf("encode a sample's metadata: %w", err)
		}
		o["X-Mailin-custom"] = string(text)
	}
	switch ev.Type {
	case event.Bounced, event.Deferred:
		o["reason"] = ev.Diagnostic
	case event.Rejected:
		o["reason"] = espkit.First(ev.Diagnostic, "blocked : due to unsubscribed user")
	case event.Delivered:
		o["reason"] = "sent"
	case event.Clicked:
		o["link"] = ev.URL
	}
	body, err := json.Marshal(o)
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
