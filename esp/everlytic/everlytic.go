// Package everlytic understands the transactional callbacks of Everlytic.
// README.md has sources and quirks.
package everlytic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Everlytic.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "sent", Ours: event.Sent, Note: "left Everlytic; whether the receiving server took it, a bounce or a delivered event tells"},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "failed", Ours: event.Failed},
	{Theirs: "bounced", Ours: event.Bounced},
	{Theirs: "bounce", Ours: event.Bounced},
	{Theirs: "opened", Ours: event.Opened, Note: "both spellings are in Everlytic's documentation"},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "clicked", Ours: event.Clicked},
	{Theirs: "click", Ours: event.Clicked},
	{Theirs: "unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "resubscribe", Ours: event.Subscribed},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "everlytic",
		Title:   "Everlytic",
		DocsURL: "https://help.everlytic.com/knowledgebase/callbacks-transactional-only/",
		Protection: "Everlytic documents no signature. The token in the URL keeps strangers out; a user name and password in the " +
			"URL do more.",
		SetUp: []esp.Step{
			{Text: "Log into the transactional e-mail dashboard and click the Settings cog at the bottom of the navigation bar."},
			{Text: "Tick Sending callbacks; its properties open on the right."},
			{Text: "Tick Enable Callbacks and enter {url} as Post to URL."},
			{Text: "Tick every type of callback: sent, delivered, failed, bounced, opened, clicked, unsubscribe, resubscribe."},
		},
		Retry:       "Everlytic does not document what it does when an answer is missing.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	b := espkit.Batch{Record: record}
	v, ok := document(req.Body)
	if !ok {
		return esp.Result{}, espkit.Unreadable("the body is neither JSON, nor JSON without its outer braces, nor a form with the parameter event")
	}
	b.Add(v)
	return b.Outcome()
}

// document finds the JSON in a body. The samples of Everlytic's documentation
// lack the outer braces, and older accounts post a form.
func document(body []byte) (espkit.Value, bool) {
	if v, ok := espkit.Document(body); ok && v.IsObject() {
		return v, true
	}
	wrapped := make([]byte, 0, len(body)+2)
	wrapped = append(append(append(wrapped, '{'), bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))...), '}')
	if v, ok := espkit.Document(wrapped); ok {
		return v, true
	}
	if posted := espkit.ParseForm(body).Get("event"); posted != "" {
		if v, ok := espkit.Document([]byte(posted)); ok && v.IsObject() {
			return v, true
		}
	}
	return nil, false
}

var errNoType = errors.New("the record has no event_type")

func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	if inner := o.Get("event"); inner.IsObject() {
		o = inner.Object()
	}
	e := event.Event{ESPType: o.Get("event_type").String()}
	if e.ESPType == "" {
		return e, errNoType
	}
	e.Record = bytes.Clone(v)
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("event_date").String())
	e.Recipient = espkit.Address(espkit.First(o.Get("email_to").String(), o.Get("bounced_email").String()))
	e.MessageID = o.Get("trans_id").String()
	e.EventID = o.Get("event_id").String()
	e.Subject = o.Get("subject").String()
	e.Tags = o.Get("group_name").Strings()
	switch e.Type {
	case event.Bounced:
		bounce(&e, o)
	case event.Clicked:
		e.URL = o.Get("link").String()
	}
	espkit.Finish(&e)
	return e, nil
}

// bounce reads what came back after the message had been accepted: Everlytic's
// own words first, the codes from the mail it received.
func bounce(e *event.Event, o espkit.Object) {
	e.Asynchronous = event.Bool(true)
	switch strings.ToLower(o.Get("bounce_type").String()) {
	case "hard":
		e.BounceType = event.Hard
	case "soft":
		e.BounceType = event.Soft
	default:
		e.BounceType = event.Undetermined
	}
	notice := espkit.ReadNotice(o.Get("trans_bcontent_complete_mime").String(), e.Recipient)
	e.Diagnostic = espkit.First(o.Get("bounce_reason").String(), notice.Diagnostic)
	e.SMTPCode, e.EnhancedStatus = notice.SMTPCode, notice.Status
	e.RFCMessageID = notice.MessageID
}

var sampleWords = map[event.Type]string{
	event.Sent: "sent", event.Delivered: "delivered", event.Failed: "failed", event.Bounced: "bounced", event.Opened: "opened",
	event.Clicked: "clicked", event.Unsubscribed: "unsubscribe", event.Subscribed: "resubscribe",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("everlytic has no %s event", ev.Type)
	}
	at := espkit.SampleTime(ev, now)
	o := map[string]any{
		"event_id": ev.EventID, "event_date": strconv.FormatInt(at.Unix(), 10), "event_type": word, "email_to": ev.Recipient,
		"group_name": "Invoices", "custom_headers": "", "trans_id": ev.MessageID,
	}
	if len(ev.Tags) > 0 {
		o["group_name"] = ev.Tags[0]
	}
	switch ev.Type {
	case event.Sent:
		o["subject"] = ev.Subject
	case event.Clicked:
		o["link"], o["unique_open"] = ev.URL, "yes"
	case event.Bounced:
		delete(o, "email_to")
		delete(o, "group_name")
		o["bounced_email"], o["bounced_received_date"], o["group_id"] = ev.Recipient, strconv.FormatInt(at.Unix(), 10), 123
		o["bounce_type"], o["bounce_reason"] = "hard", "Mailbox unavailable"
		if ev.BounceType == event.Soft {
			o["bounce_type"], o["bounce_reason"] = "soft", "Mailbox full"
		}
		o["trans_bcontent_complete_mime"] = notice(ev)
	}
	body, err := json.Marshal(map[string]any{"event": o})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}

// notice is the bounce mail that a sample carries (RFC 3464).
func notice(ev event.Event) string {
	status := espkit.First(ev.EnhancedStatus, "5.1.1")
	return "From: MAILER-DAEMON@mx.example.net\r\nSubject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=\"b1\"\r\n\r\n" +
		"--b1\r\nContent-Type: text/plain\r\n\r\nYour message could not be delivered.\r\n\r\n" +
		"--b1\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n" +
		"Final-Recipient: rfc822; " + ev.Recipient + "\r\nAction: failed\r\nStatus: " + status + "\r\n" +
		"Diagnostic-Code: smtp; " + espkit.First(ev.Diagnostic, "550 "+status+" User unknown") + "\r\n\r\n--b1--\r\n"
}
