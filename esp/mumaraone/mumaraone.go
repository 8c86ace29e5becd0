// Package mumaraone understands the callbacks of MumaraONE. README.md has
// sources and quirks.
package mumaraone

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

// Adapter is the esp.Adapter for MumaraONE.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "relayed", Ours: event.Delivered, Note: "handed to the recipient's mail server, which took it"},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "deferred", Ours: event.Deferred},
	{Theirs: "delayed", Ours: event.Deferred},
	{Theirs: "bounced", Ours: event.Bounced},
	{Theirs: "failed", Ours: event.Bounced, Note: "the delivery failed for good; hard or soft by the class of the code"},
	{Theirs: "complaint", Ours: event.Complained},
	{Theirs: "complained", Ours: event.Complained},
	{Theirs: "feedback", Ours: event.Complained},
	{Theirs: "opened", Ours: event.Opened},
	{Theirs: "clicked", Ours: event.Clicked},
	{Theirs: "d", Ours: event.Delivered, Note: "type codes count only where there is no status"},
	{Theirs: "t", Ours: event.Deferred},
	{Theirs: "b", Ours: event.Bounced},
	{Theirs: "rb", Ours: event.Bounced, Note: "a bounce mail that came after acceptance"},
	{Theirs: "f", Ours: event.Complained},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "mumaraone",
		Title:   "MumaraONE",
		Aliases: []string{"mumara"},
		DocsURL: "https://docs.mumara.com/one/webhooks",
		Protection: "MumaraONE documents no signature that could be checked. The token in the URL keeps strangers out; " +
			"a user name and password in the URL, or the addresses your installation posts from, do more.",
		SetUp: []esp.Step{
			{Text: "In MumaraONE open the sending node's webhook settings."},
			{Text: "Enter {url} as the webhook URL and tick all delivery, bounce, complaint, open and click events."},
			{Text: "Save, and send a test mail; its first callback appears here within a minute."},
		},
		Retry:       "MumaraONE says that it posts again with growing pauses.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	b := espkit.Batch{Record: record}
	return b.Read(req, "")
}

var errNoType = errors.New("the record has neither status nor type")

func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	code := strings.ToLower(o.Get("type").String())
	e := event.Event{ESPType: espkit.First(strings.ToLower(o.Get("status").String()), code)}
	if e.ESPType == "" {
		return e, errNoType
	}
	e.Record = bytes.Clone(v)
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("time_logged").String())
	e.Recipient = espkit.Address(o.Get("to").String())
	e.ReturnPath = espkit.Address(o.Get("return_path").String())
	e.SendingDomain = espkit.Domain(e.ReturnPath)
	e.Diagnostic = o.Get("code").String()
	switch e.Type {
	case event.Bounced:
		e.SMTPCode, e.EnhancedStatus = espkit.SMTPCode(e.Diagnostic), espkit.EnhancedStatus(e.Diagnostic)
		e.BounceType = espkit.BounceByCode(e.SMTPCode, e.EnhancedStatus)
		e.Asynchronous = event.Bool(code == "rb")
	case event.Opened, event.Clicked:
		e.URL = o.Get("url").String()
		e.IP = o.Get("ip").String()
		e.UserAgent = o.Get("user_agent").String()
	}
	espkit.Finish(&e)
	return e, nil
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	at := espkit.SampleTime(ev, now)
	o := map[string]any{
		"time_logged": at.Format("2006-01-02T15:04:05-07:00"), "time_queued": at.Add(-2 * time.Second).Format("2006-01-02T15:04:05-07:00"),
		"return_path": espkit.First(ev.ReturnPath, "bounce-8812-77-4f1c@"+espkit.First(ev.SendingDomain, "bounces.mail.example.com")),
		"to":          ev.Recipient, "org_to": nil, "code": nil,
	}
	switch ev.Type {
	case event.Delivered:
		o["type"], o["status"], o["code"] = "d", "relayed", "2.0.0 (success)"
	case event.Deferred:
		o["type"], o["status"], o["code"] = "t", "deferred", espkit.First(ev.Diagnostic, "4.2.2 (mailbox full)")
	case event.Bounced:
		o["type"], o["status"], o["code"] = "b", "bounced", espkit.First(ev.Diagnostic, "5.1.1 (bad destination mailbox address)")
		if ev.Asynchronous != nil && *ev.Asynchronous {
			o["type"] = "rb"
		}
	case event.Complained:
		o["type"], o["status"] = "f", "complaint"
	case event.Opened:
		o["type"], o["status"] = "open", "opened"
	case event.Clicked:
		o["type"], o["status"], o["url"] = "click", "clicked", ev.URL
	default:
		return esp.Request{}, fmt.Errorf("mumaraone has no %s event", ev.Type)
	}
	body, err := json.Marshal(o)
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
