// Package mailtrap understands the webhooks of Mailtrap's e-mail API and SMTP.
// README.md has sources and quirks.
package mailtrap

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
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

// Adapter is the esp.Adapter for Mailtrap.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "delivery", Ours: event.Delivered},
	{Theirs: "soft bounce", Ours: event.Deferred, Note: "written with a space; Mailtrap tries again, until delivery or bounce"},
	{Theirs: "soft_bounce", Ours: event.Deferred, Note: "the same, as some clients spell it"},
	{Theirs: "bounce", Ours: event.Bounced},
	{Theirs: "suspension", Ours: event.Deferred, Note: "held back (domain not verified, daily limit) and tried again, until delivery or reject"},
	{Theirs: "reject", Ours: event.Rejected},
	{Theirs: "spam", Ours: event.Complained},
	{Theirs: "unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// categories are the bounce categories whose meaning is plain. Others
// (transientfail, generalfail, verifyfail, other) leave it to the diagnostic.
var categories = map[string]event.Category{
	"greylisting":  event.Greylisted,
	"badsender":    event.SenderRejected,
	"block":        event.Blocklisted,
	"content":      event.ContentRejected,
	"dnsFail":      event.DNSFailure,
	"relayfail":    event.RelayDenied,
	"serverfail":   event.SystemError,
	"spam":         event.SpamContent,
	"spam_gmail":   event.SpamContent,
	"timeout":      event.NetworkError,
	"badrecipient": event.InvalidRecipient,
	"overquota":    event.MailboxFull,
	"serverpolicy": event.Policy,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "mailtrap",
		Title:   "Mailtrap",
		DocsURL: "https://docs.mailtrap.io/email-api-smtp/advanced/webhooks",
		Protection: "Every post is signed (HMAC-SHA256 over the body) with the webhook's signing secret. " +
			"Mailtrap posts from 45.158.83.0/24 and 5.181.200.0/24.",
		Fields: []esp.Field{{
			Name: "secret", Label: "Signing secret", Secret: true, Required: true,
			Help: "Mailtrap shows it when the webhook is created, and in the webhook's settings.",
		}},
		SetUp: []esp.Step{
			{Text: "In Mailtrap open Settings, Webhooks, and choose Create new webhook."},
			{Text: "Enter {url}. Mailtrap posts to the ports 80 and 443 only."},
			{Text: "Choose JSON or JSON Lines; both work."},
			{Text: "Choose Email Sending, the stream, the domains and the events."},
			{Text: "Run the test, save, and copy the signing secret into this source."},
		},
		Retry: "Mailtrap takes 200 only, waits 30 seconds and posts a failed batch up to 40 times, every 5 minutes. " +
			"Then it pauses the webhook and mails its owner, who resumes it by hand.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	b := espkit.Batch{Record: record}
	return b.Read(req, "events")
}

var errNoType = errors.New("the record has no event")

func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	e := event.Event{ESPType: o.Get("event").String()}
	if e.ESPType == "" {
		return e, errNoType
	}
	e.Record = bytes.Clone(v)
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("timestamp").String())
	e.Recipient = espkit.Address(o.Get("email").String())
	e.MessageID = o.Get("message_id").String()
	e.EventID = o.Get("event_id").String()
	e.Stream = o.Get("sending_stream").String()
	e.SendingDomain = strings.ToLower(o.Get("sending_domain_name").String())
	e.Tags = o.Get("category").Strings()
	e.Metadata = o.Get("custom_variables").Map()
	e.SMTPCode = espkit.ReplyCode(o.Get("response_code").String())
	e.Diagnostic = espkit.First(o.Get("response").String(), o.Get("reason").String())
	e.Category = categories[o.Get("bounce_category").String()]

	switch e.Type {
	case event.Bounced:
		// "No further attempts"; Mailtrap has no other final bounce.
		e.BounceType = event.Hard
	case event.Deferred:
		if strings.HasPrefix(e.ESPType, "soft") {
			e.BounceType = event.Soft
		}
	case event.Rejected:
		if strings.Contains(e.Diagnostic, "suppression list") {
			e.Category = event.Suppressed
		}
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP = o.Get("ip").String()
		e.UserAgent = o.Get("user_agent").String()
		e.URL = o.Get("url").String()
	}
	espkit.Finish(&e)
	return e, nil
}

// Verify implements esp.Verifier.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	posted := req.Header.Get("Mailtrap-Signature")
	if posted == "" {
		return esp.ErrUnsigned
	}
	got, err := hex.DecodeString(posted)
	if err != nil {
		return espkit.Forged("Mailtrap-Signature is not hexadecimal")
	}
	secret := v.Secrets["secret"]
	if secret == "" || !hmac.Equal(got, sign(req.Body, secret)) {
		return espkit.Forged("Mailtrap-Signature does not match the body; is the signing secret this webhook's?")
	}
	return nil
}

func sign(body []byte, secret string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return mac.Sum(nil)
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	o := map[string]any{
		"message_id": ev.MessageID, "event_id": ev.EventID, "email": ev.Recipient,
		"timestamp": espkit.SampleTime(ev, now).Unix(), "sending_stream": espkit.First(ev.Stream, "transactional"),
		"sending_domain_name": espkit.First(ev.SendingDomain, "mail.example.com"),
	}
	if len(ev.Tags) > 0 {
		o["category"] = ev.Tags[0] // a message has one category
	}
	if len(ev.Metadata) > 0 {
		o["custom_variables"] = ev.Metadata
	}
	switch ev.Type {
	case event.Delivered:
		o["event"] = "delivery"
	case event.Deferred:
		if ev.BounceType == "" && ev.SMTPCode == 0 && ev.Diagnostic == "" {
			o["event"], o["reason"] = "suspension", "Daily limit reached"
			break
		}
		o["event"], o["bounce_category"] = "soft bounce", "transientfail"
		response(o, ev)
	case event.Bounced:
		o["event"], o["bounce_category"] = "bounce", "other"
		response(o, ev)
	case event.Rejected:
		o["event"], o["reason"] = "reject", espkit.First(ev.Diagnostic, "Recipient in suppression list. Reason: hard bounce")
	case event.Complained:
		o["event"] = "spam"
	case event.Unsubscribed:
		o["event"] = "unsubscribe"
		person(o, ev)
	case event.Opened:
		o["event"] = "open"
		person(o, ev)
	case event.Clicked:
		o["event"], o["url"] = "click", ev.URL
		person(o, ev)
	default:
		return esp.Request{}, fmt.Errorf("mailtrap has no %s event", ev.Type)
	}
	body, err := json.Marshal(map[string]any{"events": []any{o}})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	req, err := espkit.NewRequest(url, "application/json", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	if secret := s["secret"]; secret != "" {
		req.Header.Set("Mailtrap-Signature", hex.EncodeToString(sign(body, secret)))
	}
	return req, nil
}

func response(o map[string]any, ev event.Event) {
	o["response"] = ev.Diagnostic
	if ev.SMTPCode != 0 {
		o["response_code"] = ev.SMTPCode
	}
}

func person(o map[string]any, ev event.Event) {
	o["ip"], o["user_agent"] = ev.IP, ev.UserAgent
}
