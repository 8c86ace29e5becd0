// Package mailersend understands the webhooks of MailerSend. README.md has
// sources and quirks.
package mailersend

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

// Adapter is the esp.Adapter for MailerSend.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "activity.sent", Ours: event.Sent},
	{Theirs: "activity.delivered", Ours: event.Delivered},
	{Theirs: "activity.deferred", Ours: event.Deferred},
	{Theirs: "activity.soft_bounced", Ours: event.Bounced, Note: "MailerSend has given up; while it retries it says deferred"},
	{Theirs: "activity.hard_bounced", Ours: event.Bounced},
	{Theirs: "activity.opened", Ours: event.Opened},
	{Theirs: "activity.opened_unique", Ours: event.Opened},
	{Theirs: "activity.clicked", Ours: event.Clicked},
	{Theirs: "activity.clicked_unique", Ours: event.Clicked},
	{Theirs: "activity.unsubscribed", Ours: event.Unsubscribed},
	{Theirs: "activity.spam_complaint", Ours: event.Complained},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:       "mailersend",
		Title:      "MailerSend",
		DocsURL:    "https://developers.mailersend.com/api/v1/webhooks.html",
		Protection: "Every post is signed (HMAC-SHA256 over the body) with the webhook's signing secret.",
		Fields: []esp.Field{{
			Name: "secret", Label: "Signing secret", Secret: true, Required: true,
			Help: "MailerSend shows it on the webhook's page.",
		}},
		SetUp: []esp.Step{
			{Text: "In MailerSend open the domain, then Webhooks, and choose Create webhook."},
			{Text: "Enter {url}, tick every event, and save."},
			{Text: "Copy the signing secret into this source."},
		},
		Retry:       "MailerSend posts again for about three days and then pauses the webhook.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	v, ok := espkit.Document(req.Body)
	if !ok {
		return esp.Result{}, espkit.Unreadable("the body is not JSON")
	}
	b := espkit.Batch{Several: records}
	b.Add(v)
	return b.Outcome()
}

var errNoType = errors.New("the record has no type")

func records(v espkit.Value) ([]event.Event, error) {
	o := v.Object()
	data := o.Get("data").Object()
	e := event.Event{ESPType: o.Get("type").String()}
	switch e.ESPType {
	case "":
		return nil, errNoType
	case "webhook.test":
		return nil, nil
	}
	e.Record, e.Type = bytes.Clone(v), table.Of(e.ESPType)
	mail := data.Get("email").Object()
	e.OccurredAt = espkit.Time(espkit.First(data.Get("created_at").String(), o.Get("created_at").String()))
	e.Recipient = espkit.Address(mail.Get("recipient").Object().Get("email").String())
	e.MessageID = mail.Get("message").Object().Get("id").String()
	e.EventID = data.Get("id").String()
	e.Subject = mail.Get("subject").String()
	e.Tags = mail.Get("tags").Strings()
	e.SendingDomain = espkit.Domain(espkit.Address(mail.Get("from").String()))

	morph := data.Get("morph").Object()
	e.Diagnostic = espkit.First(morph.Get("readable_reason").String(), morph.Get("reason").String())
	switch e.Type {
	case event.Bounced:
		e.BounceType = event.Hard
		if e.ESPType == "activity.soft_bounced" {
			e.BounceType = event.Soft
		}
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP = morph.Get("ip").String()
		e.UserAgent = morph.Get("user_agent").String()
		e.URL = morph.Get("url").String()
	}
	espkit.Finish(&e)
	return []event.Event{e}, nil
}

// Verify implements esp.Verifier.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	posted := req.Header.Get("Signature")
	if posted == "" {
		return esp.ErrUnsigned
	}
	got, err := hex.DecodeString(posted)
	if err != nil {
		return espkit.Forged("Signature is not hexadecimal")
	}
	secret := v.Secrets["secret"]
	if secret == "" || !hmac.Equal(got, sign(req.Body, secret)) {
		return espkit.Forged("Signature does not match the body; is the signing secret this webhook's?")
	}
	return nil
}

func sign(body []byte, secret string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return mac.Sum(nil)
}

var sampleWords = map[event.Type]string{
	event.Sent: "sent", event.Delivered: "delivered", event.Deferred: "deferred", event.Bounced: "hard_bounced", event.Opened: "opened",
	event.Clicked: "clicked", event.Unsubscribed: "unsubscribed", event.Complained: "spam_complaint",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("mailersend has no %s event", ev.Type)
	}
	if ev.Type == event.Bounced && ev.BounceType == event.Soft {
		word = "soft_bounced"
	}
	at := espkit.SampleTime(ev, now).Format("2006-01-02T15:04:05.000000Z")
	var morph map[string]any
	switch ev.Type {
	case event.Bounced, event.Deferred:
		morph = map[string]any{"object": "recipient_bounce", "reason": ev.Diagnostic}
	case event.Opened, event.Clicked, event.Unsubscribed:
		morph = map[string]any{"object": word, "ip": ev.IP, "user_agent": ev.UserAgent}
		if ev.Type == event.Clicked {
			morph["url"] = ev.URL
		}
	}
	body, err := json.Marshal(map[string]any{
		"type": "activity." + word, "domain_id": "7z3m5jgrogdpyo6n", "created_at": at, "webhook_id": "7z3m5jgrogdpyo6n", "url": url,
		"data": map[string]any{
			"object": "activity", "id": ev.EventID, "type": word, "created_at": at, "morph": morph,
			"email": map[string]any{
				"object": "email", "from": "shop@" + espkit.First(ev.SendingDomain, "mail.example.com"), "subject": ev.Subject, "tags": ev.Tags,
				"message":   map[string]any{"object": "message", "id": ev.MessageID},
				"recipient": map[string]any{"object": "recipient", "email": ev.Recipient},
			},
		},
	})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	body = bytes.ReplaceAll(body, []byte("/"), []byte(`\/`)) // as MailerSend's own encoder writes
	req, err := espkit.NewRequest(url, "application/json", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	if secret := s["secret"]; secret != "" {
		req.Header.Set("Signature", strings.ToLower(hex.EncodeToString(sign(body, secret))))
	}
	return req, nil
}
