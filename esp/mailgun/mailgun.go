// Package mailgun understands the webhooks of Mailgun, those of today and the
// forms that were posted before 2018. README.md has sources and quirks.
package mailgun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Mailgun.
type Adapter struct{}

// What a failure means is in its severity, reason and code, not in its name.
var types = []esp.TypeMapping{
	{Theirs: "accepted", Ours: event.Queued},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "failed.temporary", Ours: event.Deferred, Note: "severity temporary"},
	{Theirs: "failed.permanent", Ours: event.Bounced, Note: "severity permanent: hard"},
	{Theirs: "failed.old", Ours: event.Bounced, Note: "reason old: tried for too long; undetermined"},
	{Theirs: "failed.suppressed", Ours: event.Rejected, Note: "reason suppress-…, or code 605 to 607: not sent, the address is on a suppression list"},
	{Theirs: "failed", Ours: event.Bounced, Note: "without severity; hard or soft by its code"},
	{Theirs: "rejected", Ours: event.Rejected},
	{Theirs: "complained", Ours: event.Complained},
	{Theirs: "unsubscribed", Ours: event.Unsubscribed},
	{Theirs: "opened", Ours: event.Opened},
	{Theirs: "clicked", Ours: event.Clicked},
	{Theirs: "stored", Ours: event.Unknown, Note: "a received mail"},
	{Theirs: "bounced", Ours: event.Bounced, Note: "old form: hard"},
	{Theirs: "dropped", Ours: event.Rejected, Note: "old form"},
	{Theirs: "dropped.old", Ours: event.Bounced, Note: "old form, reason old: tried for too long; undetermined"},
}

var table = espkit.NewTable(types)

// categories are the reasons of a failure whose meaning is plain. Others
// (bounce, generic, hardfail) leave it to the diagnostic.
var categories = map[string]event.Category{
	"suppress-bounce":      event.Suppressed,
	"suppress-complaint":   event.Suppressed,
	"suppress-unsubscribe": event.Suppressed,
	"espblock":             event.Blocklisted,
	"blacklisted":          event.Blocklisted,
	"greylisted":           event.Greylisted,
	"old":                  event.GaveUp,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "mailgun",
		Title:   "Mailgun (Sinch)",
		Aliases: []string{"sinch"},
		DocsURL: "https://documentation.mailgun.com/docs/mailgun/user-manual/events/webhooks",
		Protection: "Every post carries a signature (HMAC-SHA256 over a time and a random token) made with your signing key. " +
			"It does not cover the event itself, so keep the URL secret as well.",
		Fields: []esp.Field{{
			Name: "signing_key", Label: "HTTP webhook signing key", Secret: true, Required: true,
			Help: "Mailgun shows it under API security (Account settings); subaccounts have their own.",
		}},
		SetUp: []esp.Step{
			{Text: "In Mailgun open Send, Sending, Webhooks, choose the domain and Add webhook. Accounts can have webhooks for all their domains."},
			{Text: "Add {url} for every event type: accepted, delivered, opened, clicked, unsubscribed, complained, temporary and permanent failure."},
			{Text: "Copy the HTTP webhook signing key into this source, then use Test webhook."},
		},
		Retry:       "Mailgun takes 200 for success and 406 for a refusal; after anything else it posts again after 5, 10 and 15 minutes, 1, 2 and 4 hours.",
		RetryStatus: http.StatusServiceUnavailable,
		// Without its brackets.
		MessageIDIsRFC: true,
		Types:          types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	if len(bytes.TrimSpace(req.Body)) == 0 {
		return esp.Result{}, espkit.Unreadable("the body is empty")
	}
	var e event.Event
	var err error
	if doc, ok := espkit.Document(req.Body); ok {
		e, err = current(doc)
	} else {
		e, err = legacy(espkit.ParseForm(req.Body))
	}
	if err != nil {
		return esp.Result{}, espkit.Unreadable(err.Error())
	}
	e.Record = bytes.Clone(req.Body)
	espkit.Finish(&e)
	return esp.Result{Events: []event.Event{e}}, nil
}

var (
	errNoData  = errors.New("event-data is missing")
	errNoEvent = errors.New("event-data has no event")
	errNoForm  = errors.New("the body is neither JSON nor a form with an event")
)

// current reads a webhook of today.
func current(doc espkit.Value) (event.Event, error) {
	data := doc.Object().Get("event-data").Object()
	if data == nil {
		return event.Event{}, errNoData
	}
	e := event.Event{ESPType: data.Get("event").String()}
	if e.ESPType == "" {
		return e, errNoEvent
	}
	headers := data.Get("message").Object().Get("headers").Object()
	envelope := data.Get("envelope").Object()
	status := data.Get("delivery-status").Object()
	reject := data.Get("reject").Object()

	e.OccurredAt = espkit.Time(data.Get("timestamp").String())
	e.EventID = data.Get("id").String()
	e.MessageID = headers.Get("message-id").String()
	if e.MessageID != "" {
		e.RFCMessageID = "<" + strings.Trim(e.MessageID, "<> ") + ">"
	}
	e.Subject = headers.Get("subject").String()
	e.Recipient = espkit.Address(data.Get("recipient").String())
	if e.Recipient == "" { // rejected has none
		e.Recipient = firstAddress(headers.Get("to").String())
	}
	e.Tags = data.Get("tags").Strings()
	e.Metadata = data.Get("user-variables").Map()
	e.SMTPCode = espkit.ReplyCode(status.Get("code").String())
	e.EnhancedStatus = espkit.First(espkit.Status(status.Get("enhanced-code").String()), espkit.Status(status.Get("bounce-code").String()))
	e.Diagnostic = espkit.First(status.Get("message").String(), status.Get("description").String(), reject.Get("reason").String())
	e.ReturnPath = espkit.Address(envelope.Get("sender").String())
	e.DedicatedIP = envelope.Get("sending-ip").String()
	e.SendingDomain = strings.ToLower(espkit.First(data.Get("domain").Object().Get("name").String(), espkit.Domain(e.ReturnPath),
		espkit.Domain(espkit.Address(headers.Get("from").String()))))
	if campaigns := data.Get("campaigns").Elements(); len(campaigns) > 0 {
		c := campaigns[0].Object()
		e.CampaignID, e.BroadcastName = c.Get("id").String(), c.Get("name").String()
	}

	if e.ESPType == "failed" {
		failed(&e, data, status)
	}
	e.Type = table.Of(e.ESPType)
	switch e.Type {
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP = data.Get("ip").String()
		e.UserAgent = data.Get("client-info").Object().Get("user-agent").String()
		e.URL = data.Get("url").String()
	}
	return e, nil
}

func failed(e *event.Event, data, status espkit.Object) {
	reason := data.Get("reason").String()
	e.Category = categories[reason]
	switch severity := data.Get("severity").String(); {
	case strings.HasPrefix(reason, "suppress-") || isSuppression(status.Get("code").String()):
		e.ESPType, e.Category = "failed.suppressed", event.Suppressed
	case reason == "old":
		e.ESPType, e.BounceType = "failed.old", event.Undetermined
	case severity == "temporary":
		e.ESPType = "failed.temporary"
	case severity == "permanent":
		e.ESPType, e.BounceType = "failed.permanent", event.Hard
	default:
		e.BounceType = espkit.BounceByCode(e.SMTPCode, e.EnhancedStatus)
	}
}

// isSuppression tells Mailgun's own codes for addresses on a suppression list
// from SMTP codes: bounced, unsubscribed, complained before.
func isSuppression(code string) bool { return code == "605" || code == "606" || code == "607" }

// firstAddress returns the first address of a To header.
func firstAddress(header string) string {
	header = espkit.Bound(header, 4096)
	if list, err := mail.ParseAddressList(header); err == nil && len(list) > 0 {
		return list[0].Address
	}
	first, _, _ := strings.Cut(header, ",")
	return espkit.Address(first)
}

// legacy reads a webhook of before 2018. The sender's variables stand between
// Mailgun's own fields, so that one named like a field comes second; but the
// fields of the signature, and the time, come last.
func legacy(form espkit.Form) (event.Event, error) {
	e := event.Event{ESPType: form.Get("event")}
	if e.ESPType == "" {
		return e, errNoForm
	}
	code := form.Get("code")
	e.OccurredAt = espkit.Time(last(form, "timestamp"))
	e.MessageID = espkit.First(form.Get("Message-Id"), form.Get("message-id"))
	if e.MessageID != "" {
		e.RFCMessageID = "<" + strings.Trim(e.MessageID, "<> ") + ">"
	}
	e.Recipient = espkit.Address(form.Get("recipient"))
	e.SendingDomain = strings.ToLower(form.Get("domain"))
	if e.Tags = form.List("tag"); e.Tags == nil {
		e.Tags = form.List("X-Mailgun-Tag")
	}
	e.SMTPCode, e.EnhancedStatus = espkit.ReplyCode(code), espkit.Status(code)
	e.Diagnostic = espkit.First(form.Get("error"), form.Get("description"), form.Get("notification"))
	e.CampaignID, e.BroadcastName = form.Get("campaign-id"), form.Get("campaign-name")

	switch e.ESPType {
	case "bounced":
		e.BounceType = event.Hard
	case "dropped":
		reason := form.Get("reason")
		e.Category = categories[reason]
		switch {
		case isSuppression(code):
			e.Category = event.Suppressed
		case reason == "old":
			e.ESPType, e.BounceType = "dropped.old", event.Undetermined
		}
	case "opened", "clicked", "unsubscribed":
		e.IP, e.UserAgent, e.URL = form.Get("ip"), form.Get("user-agent"), form.Get("url")
	}
	e.Type = table.Of(e.ESPType)
	return e, nil
}

// last returns the last value of a name.
func last(form espkit.Form, name string) string {
	for i := len(form) - 1; i >= 0; i-- {
		if form[i].Name == name {
			return form[i].Value
		}
	}
	return ""
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	at := espkit.SampleTime(ev, now)
	data := map[string]any{
		"id": ev.EventID, "timestamp": json.Number(fmt.Sprintf("%d.%06d", at.Unix(), at.Nanosecond()/1000)), "log-level": "info",
		"recipient": ev.Recipient, "recipient-domain": espkit.Domain(ev.Recipient),
		"message": map[string]any{
			"headers":     map[string]any{"to": ev.Recipient, "message-id": ev.MessageID, "from": "shop@" + espkit.First(ev.SendingDomain, "mail.example.com"), "subject": ev.Subject},
			"attachments": []any{}, "size": 512,
		},
		"campaigns": []any{}, "tags": append([]string{}, ev.Tags...), "user-variables": map[string]any{},
	}
	if len(ev.Metadata) > 0 {
		data["user-variables"] = ev.Metadata
	}
	if err := fill(data, ev); err != nil {
		return esp.Request{}, err
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	token := sampleToken(ev, timestamp)
	signature := map[string]any{"timestamp": timestamp, "token": token, "signature": ""}
	if key := s["signing_key"]; key != "" {
		signature["signature"] = sign(key, timestamp, token)
	}
	body, err := json.Marshal(map[string]any{"signature": signature, "event-data": data})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}

func fill(data map[string]any, ev event.Event) error {
	status := func(code int, text string) {
		if ev.SMTPCode != 0 {
			code = ev.SMTPCode
		}
		data["delivery-status"] = map[string]any{
			"attempt-no": 1, "code": code, "enhanced-code": ev.EnhancedStatus, "message": espkit.First(ev.Diagnostic, text), "description": "", "tls": true,
		}
	}
	switch ev.Type {
	case event.Queued:
		data["event"], data["method"] = "accepted", "HTTP"
	case event.Delivered:
		data["event"] = "delivered"
		status(250, "OK")
	case event.Deferred:
		data["event"], data["severity"], data["reason"] = "failed", "temporary", "generic"
		status(451, "4.7.1 Try again later")
	case event.Bounced:
		data["event"], data["severity"], data["reason"] = "failed", "permanent", "bounce"
		status(550, "5.1.1 User unknown")
		if ev.BounceType == event.Undetermined {
			data["reason"] = "old"
		}
	case event.Rejected:
		data["event"], data["severity"], data["reason"] = "failed", "permanent", "suppress-bounce"
		data["delivery-status"] = map[string]any{
			"attempt-no": 1, "code": 605, "message": "", "description": espkit.First(ev.Diagnostic, "Not delivering to previously bounced address"),
		}
	case event.Complained:
		data["event"] = "complained"
	case event.Unsubscribed, event.Opened, event.Clicked:
		data["event"], data["ip"], data["client-info"] = string(ev.Type), ev.IP, map[string]any{"user-agent": ev.UserAgent}
		if ev.Type == event.Clicked {
			data["url"] = ev.URL
		}
	default:
		return fmt.Errorf("mailgun has no %s event", ev.Type)
	}
	return nil
}
