// Package smtpeter understands the webhooks (feedback loops) of SMTPeter, by
// Copernica. README.md has sources and quirks.
package smtpeter

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for SMTPeter.
type Adapter struct{}

// The bounce loop passes on every mail that came back to the envelope address;
// its words are the loop's name and what the mail is.
var types = []esp.TypeMapping{
	{Theirs: "delivery", Ours: event.Delivered},
	{Theirs: "failure", Ours: event.Bounced, Note: "SMTPeter has given up; state tells whether a server refused it or a bounce came later"},
	{Theirs: "bounce.failed", Ours: event.Bounced, Note: "a status notification (RFC 3464) says failed; the failures loop tells of it too"},
	{Theirs: "bounce.delayed", Ours: event.Deferred, Note: "a status notification says that another server is still trying"},
	{Theirs: "bounce.autoreply", Ours: event.Autoresponded, Note: "out of office and the like came to the envelope address"},
	{Theirs: "bounce", Ours: event.Unknown, Note: "some other mail came to the envelope address"},
	{Theirs: "abuse", Ours: event.Complained},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "smtpeter",
		Title:   "SMTPeter (Copernica)",
		Aliases: []string{"copernica"},
		DocsURL: "https://www.smtpeter.com/en/documentation/webhooks",
		Protection: "Every post is signed (RSA) with a key that SMTPeter publishes in DNS. " +
			"All its customers share that key, so the account number in the signature must be yours.",
		Fields: []esp.Field{
			{Name: "account", Label: "Account", Required: true,
				Help: `The header X-Copernica-ID of your posts: "environment-" and the number of your SMTPeter account.`},
			{Name: "validation_file", Label: "Validation file, name",
				Help: "The name of the file that SMTPeter asks you to put on the server, smtpeter-….txt. Needed until the address is validated."},
			{Name: "validation_text", Label: "Validation file, content", Help: "What is in that file."},
		},
		SetUp: []esp.Step{
			{Text: "In the SMTPeter dashboard open Webhooks and add one for each kind: failures, bounces, deliveries, opens, clicks, abuses."},
			{Text: "Enter {url}/ as address, with the slash at its end: SMTPeter looks for its validation file beside it."},
			{Text: "Copy the name and the content of the validation file into this source, save, and let SMTPeter validate the address. Each webhook has its own file; do them one after the other."},
			{Text: `Enter your account ("environment-" and its number) here, so that signatures are checked.`},
		},
		Retry:       "Not documented. A post that cannot be stored is answered 503, in the hope that it comes again.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Answer implements esp.Answerer: before it enables a webhook SMTPeter fetches
// a text file from the directory of its address.
func (Adapter) Answer(req esp.Request, s esp.Secrets) (esp.Reply, bool) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return esp.Reply{}, false
	}
	file := req.Path[strings.LastIndexByte(req.Path, '/')+1:]
	if !strings.HasPrefix(file, "smtpeter-") {
		return esp.Reply{Status: http.StatusOK}, true
	}
	if name := strings.TrimSpace(s["validation_file"]); name == "" || name != file {
		return esp.Reply{Status: http.StatusNotFound}, true
	}
	return esp.Reply{Status: http.StatusOK, ContentType: "text/plain; charset=utf-8", Body: s["validation_text"]}, true
}

// fields is what one callback says, whether it came as a form or as JSON.
type fields interface {
	text(name string) string
	list(name string) []string
}

type formFields struct{ espkit.Form }

func (f formFields) text(name string) string   { return f.Get(name) }
func (f formFields) list(name string) []string { return f.List(name) }

type jsonFields struct{ espkit.Object }

func (f jsonFields) text(name string) string   { return f.Get(name).String() }
func (f jsonFields) list(name string) []string { return f.Get(name).Strings() }

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	f, err := read(req.Body)
	if err != nil {
		return esp.Result{}, err
	}
	e := event.Event{
		Record:     bytes.Clone(req.Body),
		ESPType:    f.text("type"),
		MessageID:  f.text("id"),
		Recipient:  espkit.Address(f.text("recipient")),
		OccurredAt: espkit.Time(f.text("time")), // `timestamp` names no zone
		Tags:       f.list("tags"),
	}
	if e.ESPType == "" {
		// The oldest form has six variables and no type; only failures have a state.
		if f.text("state") == "" {
			return esp.Result{}, espkit.Unreadable("neither type nor state is given")
		}
		e.ESPType = "failure"
	}
	if e.ESPType == "bounce" {
		returned(&e, f)
	}
	e.Type = table.Of(e.ESPType)
	switch e.ESPType {
	case "failure":
		reply(&e, f)
		e.BounceType = espkit.BounceByCode(e.SMTPCode, e.EnhancedStatus)
		e.Asynchronous = event.Bool(f.text("state") == "bounce")
	case "delivery":
		reply(&e, f)
	case "abuse":
		e.Recipient = espkit.Address(f.text("emailfrom")) // "of the complaining email client"
	case "open", "click":
		e.IP, e.UserAgent = f.text("ip"), f.text("useragent")
		if e.ESPType == "click" {
			e.URL = f.text("original")
		}
	}
	espkit.Finish(&e)
	return esp.Result{Events: []event.Event{e}}, nil
}

// read takes forms, which are documented, and JSON, which the content type in
// the documentation of the signature hints at.
func read(body []byte) (fields, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, espkit.Unreadable("the body is empty")
	}
	if v, ok := espkit.Document(body); ok {
		if !v.IsObject() {
			return nil, espkit.Unreadable("the body is JSON, but no object")
		}
		return jsonFields{v.Object()}, nil
	}
	return formFields{espkit.ParseForm(body)}, nil
}

func reply(e *event.Event, f fields) {
	e.SMTPCode = espkit.ReplyCode(f.text("code"))
	e.EnhancedStatus = espkit.Status(f.text("extended"))
	e.Diagnostic = strings.TrimSpace(f.text("description"))
	if e.SMTPCode == 0 {
		e.SMTPCode = espkit.SMTPCode(e.Diagnostic)
	}
	if e.EnhancedStatus == "" {
		e.EnhancedStatus = espkit.EnhancedStatus(e.Diagnostic)
	}
}

// returned reads the mail that a bounce callback carries.
func returned(e *event.Event, f fields) {
	e.ReturnPath = espkit.Address(f.text("envelope"))
	n := espkit.ReadNotice(f.text("mime"), e.Recipient)
	e.RFCMessageID = n.MessageID
	switch {
	case n.Action == "failed":
		e.ESPType = "bounce.failed"
		e.BounceType = espkit.BounceByCode(n.SMTPCode, n.Status)
	case n.Action == "delayed":
		e.ESPType = "bounce.delayed"
	case n.AutoReply:
		e.ESPType = "bounce.autoreply"
		return
	default:
		return
	}
	e.Asynchronous = event.Bool(true)
	e.SMTPCode, e.EnhancedStatus, e.Diagnostic = n.SMTPCode, n.Status, n.Diagnostic
}

// Sample implements esp.Sampler. SMTPeter alone has the key that its posts are
// signed with; a sample is signed when the secrets hold esp.SampleKey.
func (Adapter) Sample(ev event.Event, callbackURL string, s esp.Secrets, now time.Time) (esp.Request, error) {
	at := espkit.SampleTime(ev, now)
	form := url.Values{"id": {ev.MessageID}, "recipient": {ev.Recipient}, "time": {strconv.FormatInt(at.Unix(), 10)},
		"timestamp": {at.Format(time.DateTime)}, "tags[]": ev.Tags}
	if err := fill(form, ev, at); err != nil {
		return esp.Request{}, err
	}
	req, err := espkit.NewRequest(callbackURL, "application/x-www-form-urlencoded", []byte(form.Encode()), now)
	if err != nil {
		return esp.Request{}, err
	}
	if key := s[esp.SampleKey]; key != "" {
		err = signSample(&req, s["account"], key, now)
	}
	return req, err
}

func fill(form url.Values, ev event.Event, at time.Time) error {
	async := ev.Asynchronous != nil && *ev.Asynchronous
	switch ev.Type {
	case event.Delivered:
		form.Set("type", "delivery")
		sampleReply(form, ev, "250", "2.0.0")
	case event.Bounced:
		form.Set("type", "failure")
		form.Set("action", "failed")
		form.Set("state", "rcpt")
		if async {
			form.Set("state", "bounce")
		}
		sampleReply(form, ev, "", "")
	case event.Deferred, event.Autoresponded:
		form.Set("type", "bounce")
		form.Set("envelope", "b.sample@smtpeter.example")
		form.Set("mime", sampleMail(ev, at))
	case event.Complained:
		form.Set("type", "abuse")
		form.Del("recipient")
		form.Set("emailfrom", ev.Recipient)
		form.Set("mime", "Subject: FW: complaint\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n")
		form.Del("time")
		form.Del("timestamp")
	case event.Opened, event.Clicked:
		form.Set("type", "open")
		form.Set("ip", ev.IP)
		form.Set("useragent", ev.UserAgent)
		if ev.Type == event.Clicked {
			form.Set("type", "click")
			form.Set("original", ev.URL)
		}
	default:
		return fmt.Errorf("smtpeter has no %s event", ev.Type)
	}
	return nil
}

func sampleReply(form url.Values, ev event.Event, code, extended string) {
	if ev.SMTPCode != 0 {
		code = strconv.Itoa(ev.SMTPCode)
	}
	for name, value := range map[string]string{
		"code": code, "extended": espkit.First(ev.EnhancedStatus, extended), "description": ev.Diagnostic,
	} {
		if value != "" {
			form.Set(name, value)
		}
	}
}

func sampleMail(ev event.Event, at time.Time) string {
	if ev.Type == event.Autoresponded {
		return "From: " + ev.Recipient + "\r\nSubject: Automatic reply\r\nAuto-Submitted: auto-replied\r\nDate: " + at.Format(time.RFC1123Z) +
			"\r\n\r\nI am out of the office.\r\n"
	}
	return "From: MAILER-DAEMON@mx.example.net\r\nSubject: Delayed Mail\r\nDate: " + at.Format(time.RFC1123Z) +
		"\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
		"Reporting-MTA: dns; mx.example.net\r\n\r\nFinal-Recipient: rfc822; " + ev.Recipient + "\r\nAction: delayed\r\nStatus: " +
		espkit.First(ev.EnhancedStatus, "4.4.1") + "\r\nDiagnostic-Code: smtp; " + ev.Diagnostic + "\r\n--b--\r\n"
}
