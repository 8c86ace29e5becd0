// Package postal understands the webhooks of Postal, the mail server to run
// oneself. README.md has sources and quirks.
package postal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Postal.
type Adapter struct{}

// Where one word of Postal's means two things, the second is behind a dot.
var types = []esp.TypeMapping{
	{Theirs: "MessageSent", Ours: event.Delivered, Note: "the recipient's server has accepted it"},
	{Theirs: "MessageDelayed", Ours: event.Deferred, Note: "Postal will try again"},
	{Theirs: "MessageDeliveryFailed", Ours: event.Bounced, Note: "a server refused it, and Postal has given up"},
	{Theirs: "MessageDeliveryFailed.unanswered", Ours: event.Failed, Note: "output begins with no SMTP reply: no server said anything"},
	{Theirs: "MessageHeld", Ours: event.Queued, Note: "until somebody releases it"},
	{Theirs: "MessageHeld.suppressed", Ours: event.Rejected, Note: "details name the suppression list"},
	{Theirs: "MessageBounced", Ours: event.Bounced, Note: "a bounce mail came back; whether hard or soft is not said"},
	{Theirs: "MessageLoaded", Ours: event.Opened},
	{Theirs: "MessageLinkClicked", Ours: event.Clicked},
	{Theirs: "DomainDNSError", Ours: event.Unknown, Note: "about a domain, not a message"},
	{Theirs: "SendLimitApproaching", Ours: event.Unknown, Note: "about the mail server"},
	{Theirs: "SendLimitExceeded", Ours: event.Unknown, Note: "about the mail server"},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:       "postal",
		Title:      "Postal",
		DocsURL:    "https://docs.postalserver.io/developer/webhooks",
		Protection: "Every post is signed (RSA over the body) with the installation's own key. The signature says nothing of the time of the post.",
		Fields: []esp.Field{{
			Name: "public_key", Label: "Public key", Required: true,
			Help: "On the Postal server, what `postal default-dkim-record` prints, whole or only what follows p=; a public key as PEM will do as well.",
		}},
		SetUp: []esp.Step{
			{Text: "In Postal open the organization and its mail server, then Webhooks, and choose Add webhook."},
			{Text: "Enter {url}, leave it enabled for all events, and create it."},
			{Text: "Run `postal default-dkim-record` on the Postal server and copy the record into this source."},
		},
		Retry:       "Postal waits five seconds for an answer and posts again five times, after 2, 3, 6, 10 and 15 minutes.",
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

var errNoEvent = errors.New("the record names no event")

// records reads the one record of a post, which is nothing when it is about a
// mail that came in.
func records(v espkit.Value) ([]event.Event, error) {
	o := v.Object()
	payload := o.Get("payload").Object()
	e := event.Event{ESPType: o.Get("event").String(), EventID: o.Get("uuid").String()}
	if e.ESPType == "" {
		return nil, errNoEvent
	}
	mail := payload.Get("message").Object()
	if e.ESPType == "MessageBounced" {
		mail = payload.Get("original_message").Object()
	}
	if mail.Get("direction").String() == "incoming" {
		return nil, nil
	}
	e.Record = bytes.Clone(v)
	e.OccurredAt = espkit.Time(o.Get("timestamp").String())
	about(&e, mail)

	output, details := strings.TrimSpace(payload.Get("output").String()), payload.Get("details").String()
	switch e.ESPType {
	case "MessageSent", "MessageDelayed", "MessageDeliveryFailed", "MessageHeld":
		e.Diagnostic = espkit.First(output, details)
	case "MessageBounced":
		e.BounceType, e.Asynchronous = event.Undetermined, event.Bool(true)
	case "MessageLoaded", "MessageLinkClicked":
		e.IP, e.UserAgent = payload.Get("ip_address").String(), payload.Get("user_agent").String()
		e.URL = payload.Get("url").String()
	}
	switch {
	case e.ESPType == "MessageHeld" && strings.Contains(details, "suppression list"):
		e.ESPType, e.Category = "MessageHeld.suppressed", event.Suppressed
	case e.ESPType == "MessageDeliveryFailed" && beginsWithReply.MatchString(output):
		e.BounceType = event.Hard
	case e.ESPType == "MessageDeliveryFailed":
		e.ESPType = "MessageDeliveryFailed.unanswered"
	}
	e.Type = table.Of(e.ESPType)
	espkit.Finish(&e)
	return []event.Event{e}, nil
}

// beginsWithReply tells what a server answered from what Postal itself says.
var beginsWithReply = regexp.MustCompile(`^[245][0-9][0-9](?:[ -]|$)`)

// about reads what a record says about the message.
func about(e *event.Event, mail espkit.Object) {
	e.MessageID = mail.Get("id").String()
	e.Recipient = espkit.Address(mail.Get("to").String())
	e.Subject = mail.Get("subject").String()
	e.SendingDomain = espkit.Domain(espkit.Address(mail.Get("from").String()))
	e.Tags = mail.Get("tag").Strings()
	if id := strings.Trim(mail.Get("message_id").String(), "<> "); id != "" {
		e.RFCMessageID = "<" + id + ">"
	}
}

var sampleWords = map[event.Type]string{
	event.Delivered: "MessageSent", event.Deferred: "MessageDelayed", event.Bounced: "MessageDeliveryFailed", event.Failed: "MessageDeliveryFailed",
	event.Queued: "MessageHeld", event.Rejected: "MessageHeld", event.Opened: "MessageLoaded", event.Clicked: "MessageLinkClicked",
}

// Sample implements esp.Sampler. Each installation alone has the key that its
// posts are signed with; a sample is signed when the secrets hold
// esp.SampleKey.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("postal has no %s event", ev.Type)
	}
	at := seconds(espkit.SampleTime(ev, now))
	domain := espkit.First(ev.SendingDomain, "mail.example.com")
	var id any = ev.MessageID
	if n, err := strconv.ParseInt(ev.MessageID, 10, 64); err == nil {
		id = n // as Postal numbers them
	}
	message := map[string]any{
		"id": id, "token": "zw6psSlgo6ki", "direction": "outgoing", "message_id": strings.Trim(espkit.First(ev.RFCMessageID, ev.MessageID+"@rp."+domain), "<>"),
		"to": ev.Recipient, "from": "shop@" + domain, "subject": ev.Subject, "timestamp": at, "spam_status": "NotChecked", "tag": nil,
	}
	if len(ev.Tags) > 0 {
		message["tag"] = ev.Tags[0]
	}
	payload := map[string]any{"message": message}
	attempt := func(status, details, output string) {
		payload["status"], payload["details"], payload["output"] = status, details, output
		payload["sent_with_ssl"], payload["timestamp"], payload["time"] = true, at, json.Number("0.89")
	}
	switch {
	case ev.Type == event.Delivered:
		attempt("Sent", "Message for "+ev.Recipient+" accepted by mx.example.com", espkit.First(ev.Diagnostic, "250 2.0.0 OK")+"\n")
	case ev.Type == event.Deferred:
		attempt("SoftFail", "Temporary SMTP delivery error when sending to mx.example.com", espkit.First(ev.Diagnostic, "451 4.7.1 Try again later"))
	case ev.Type == event.Bounced && (ev.Asynchronous != nil && *ev.Asynchronous || ev.Diagnostic != "" && !beginsWithReply.MatchString(ev.Diagnostic)):
		word = "MessageBounced"
		payload = map[string]any{"original_message": message, "bounce": map[string]any{
			"id": 233864, "token": "zw6psSlgo6kj", "direction": "incoming", "to": "bk87jw@psrp." + domain, "from": nil,
			"subject": "Mail delivery failed: returning message to sender", "timestamp": at, "spam_status": "NotChecked", "tag": nil,
		}}
	case ev.Type == event.Bounced:
		attempt("HardFail", "Permanent SMTP delivery error when sending to mx.example.com", espkit.First(ev.Diagnostic, "550 5.1.1 User unknown"))
	case ev.Type == event.Failed:
		attempt("HardFail", "No SMTP servers were available for example.com. No hosts to try.", "")
	case ev.Type == event.Queued:
		attempt("Held", "Server is in development mode.", "")
	case ev.Type == event.Rejected:
		attempt("Held", "Recipient ("+ev.Recipient+") is on the suppression list", "")
	case ev.Type == event.Opened || ev.Type == event.Clicked:
		payload["ip_address"], payload["user_agent"] = ev.IP, ev.UserAgent
		if ev.Type == event.Clicked {
			payload["url"], payload["token"] = ev.URL, "abcdef1234567890"
		}
	}
	body, err := json.Marshal(map[string]any{
		"event": word, "timestamp": at, "payload": payload, "uuid": espkit.First(ev.EventID, "0fcc831f-92b9-4e2b-97f2-d873abc77fab"),
	})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	req, err := espkit.NewRequest(url, "application/json", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	if key := s[esp.SampleKey]; key != "" {
		if err := signSample(&req, key); err != nil {
			return esp.Request{}, err
		}
	}
	return req, nil
}

// seconds writes a time as Postal does, with a fraction and as a number.
func seconds(t time.Time) json.Number {
	return json.Number(fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000))
}
