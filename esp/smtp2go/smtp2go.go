// Package smtp2go understands the webhooks of SMTP2GO. README.md has sources
// and quirks.
package smtp2go

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

// Adapter is the esp.Adapter for SMTP2GO.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "processed", Ours: event.Queued},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "bounce", Ours: event.Bounced, Note: "hard or soft as the field bounce says; SMTP2GO has given up"},
	{Theirs: "reject", Ours: event.Rejected},
	{Theirs: "spam", Ours: event.Complained},
	{Theirs: "spam_complaint", Ours: event.Complained, Note: "what live posts say for spam"},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "opened", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
	{Theirs: "clicked", Ours: event.Clicked},
	{Theirs: "unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "unsubscribed", Ours: event.Unsubscribed},
	{Theirs: "resubscribe", Ours: event.Subscribed},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "smtp2go",
		Title:   "SMTP2GO",
		DocsURL: "https://developers.smtp2go.com/docs/webhooks-overview",
		Protection: "SMTP2GO signs nothing. It can send a user name and password or a bearer token, and posts from the addresses of " +
			"webhooks.smtp2go.com.",
		SetUp: []esp.Step{
			{Text: "In SMTP2GO open Settings, Webhooks, and choose Add Webhook."},
			{Text: "Enter {url}, choose JSON or form (both work), and tick every event."},
			{Text: "Choose all users or the ones you send with, add an Authorization header if you want one, and save."},
		},
		Retry:       "SMTP2GO waits 10 seconds for an answer and posts up to 35 times within 48 hours.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	var r esp.Result
	// The shape decides, not the content type.
	if v, ok := espkit.Document(req.Body); ok {
		if !v.IsObject() {
			return r, espkit.Unreadable("the body is not a JSON object")
		}
		return single(fromJSON(v.Object()), v)
	}
	form := espkit.ParseForm(req.Body)
	if !hasAny(form, "event") {
		return r, espkit.Unreadable("the body is neither JSON nor a form with the field event")
	}
	return single(fromForm(form), req.Body)
}

func hasAny(form espkit.Form, name string) bool {
	for _, f := range form {
		if strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// fields are what a post holds, under lower-case names. Live posts repeat some
// names in other case (Message-Id beside message-id); the lower-case one wins.
type fields map[string][]string

func (f fields) get(names ...string) string {
	for _, name := range names {
		for _, v := range f[name] {
			if v != "" {
				return v
			}
		}
	}
	return ""
}

func fromJSON(o espkit.Object) fields {
	f := fields{}
	exact := map[string]bool{}
	for _, m := range o {
		f.add(string(m.Name), exact, m.Value.Strings())
	}
	return f
}

func fromForm(form espkit.Form) fields {
	f := fields{}
	exact := map[string]bool{}
	for _, posted := range form {
		name := strings.TrimSuffix(posted.Name, "[]")
		value := strings.ToValidUTF8(posted.Value, "\uFFFD")
		if strings.HasSuffix(posted.Name, "[]") {
			f[strings.ToLower(name)] = append(f[strings.ToLower(name)], value)
			continue
		}
		f.add(name, exact, []string{value})
	}
	return f
}

// add takes a field. Of several spellings of a name the lower-case one wins,
// of several equal ones the first.
func (f fields) add(name string, exact map[string]bool, values []string) {
	lower := strings.ToLower(name)
	_, seen := f[lower]
	if seen && (exact[lower] || name != lower) {
		return
	}
	exact[lower] = name == lower
	f[lower] = values
}

var errNoType = errors.New("the record has no event")

// single turns the one record of a post into an event for each recipient.
func single(f fields, record []byte) (esp.Result, error) {
	word := f.get("event")
	if word == "" {
		return esp.Result{Problems: []esp.Problem{{Reason: errNoType.Error()}}}, espkit.Unreadable(errNoType.Error())
	}
	e := event.Event{ESPType: word, Type: table.Of(word), Record: bytes.Clone(record)}
	e.OccurredAt = espkit.Time(f.get("time"))
	e.MessageID = f.get("email_id")
	e.EventID = f.get("id")
	e.RFCMessageID = f.get("message-id")
	e.Subject = f.get("subject")
	e.SendingDomain = espkit.Domain(espkit.Address(f.get("from_address", "from", "sender")))
	e.ReturnPath = espkit.Address(f.get("sender"))
	e.Bridge = f.get("auth")
	e.Diagnostic = f.get("message")
	if context := f.get("context"); e.Diagnostic == "" && context != "Unavailable" {
		e.Diagnostic = context
	}
	switch e.Type {
	case event.Bounced:
		switch strings.ToLower(f.get("bounce")) {
		case "hard":
			e.BounceType = event.Hard
		case "soft":
			e.BounceType = event.Soft
		default:
			e.BounceType = event.Undetermined
		}
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP = f.get("srchost")
		e.UserAgent = f.get("user-agent")
		e.URL = f.get("click_url", "link")
	}
	espkit.Finish(&e)

	return esp.Result{Events: espkit.ForEach(e, recipients(f))}, nil
}

// recipients is rcpt, or on processed the list recipients: an array in JSON,
// separated by commas in a form.
func recipients(f fields) []string {
	if one := f.get("rcpt"); one != "" {
		return []string{one}
	}
	list := f["recipients"]
	if len(list) == 1 {
		list = strings.Split(list[0], ",")
	}
	var out []string
	for _, a := range list {
		if a = strings.TrimSpace(a); a != "" {
			out = append(out, a)
		}
	}
	return out
}

var sampleWords = map[event.Type]string{
	event.Queued: "processed", event.Delivered: "delivered", event.Bounced: "bounce", event.Rejected: "reject", event.Complained: "spam",
	event.Opened: "open", event.Clicked: "click", event.Unsubscribed: "unsubscribe", event.Subscribed: "resubscribe",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("smtp2go has no %s event", ev.Type)
	}
	at := espkit.SampleTime(ev, now)
	o := map[string]any{
		"event": word, "time": at.Format(time.RFC3339), "sendtime": at.Add(-2 * time.Second).Format("2006-01-02T15:04:05.000000-07:00"),
		"rcpt": ev.Recipient, "sender": "shop@" + espkit.First(ev.SendingDomain, "mail.example.com"), "email_id": ev.MessageID, "id": ev.EventID,
		"subject": ev.Subject, "message-id": espkit.First(ev.RFCMessageID, "<"+ev.MessageID+"@mail.example.com>"),
	}
	switch ev.Type {
	case event.Queued:
		delete(o, "rcpt")
		o["recipients"] = []string{ev.Recipient}
	case event.Delivered:
		o["message"] = "250 2.0.0 OK"
	case event.Bounced:
		o["bounce"], o["message"] = "hard", ev.Diagnostic
		if ev.BounceType == event.Soft {
			o["bounce"] = "soft"
		}
	case event.Opened, event.Clicked, event.Unsubscribed:
		o["srchost"], o["user-agent"] = ev.IP, ev.UserAgent
		if ev.Type == event.Clicked {
			o["click_url"] = ev.URL
		}
	}
	body, err := json.Marshal(o)
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
