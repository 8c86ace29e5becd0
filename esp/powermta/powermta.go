// Package powermta understands PowerMTA's accounting records as JSON. README.md
// has sources and quirks.
package powermta

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

// Adapter is the esp.Adapter for PowerMTA.
type Adapter struct{}

// The types are those of the accounting file; a remote status (rs) has its
// DSN action behind a dot.
var types = []esp.TypeMapping{
	{Theirs: "r", Ours: event.Queued},
	{Theirs: "d", Ours: event.Delivered},
	{Theirs: "t", Ours: event.Deferred},
	{Theirs: "b", Ours: event.Bounced, Note: "in the SMTP dialogue, or given up"},
	{Theirs: "rb", Ours: event.Bounced, Note: "a bounce mail that came after acceptance"},
	{Theirs: "rs.failed", Ours: event.Bounced, Note: "a status report that came by mail"},
	{Theirs: "rs.delayed", Ours: event.Deferred},
	{Theirs: "rs.delivered", Ours: event.Delivered},
	{Theirs: "rs.relayed", Ours: event.Delivered},
	{Theirs: "rs.expanded", Ours: event.Delivered},
	{Theirs: "f", Ours: event.Complained},
}

var table = espkit.NewTable(types)

// categories are PowerMTA's bounce categories (User's Guide, 11.6).
var categories = map[string]event.Category{
	"bad-configuration":   event.SystemError,
	"bad-connection":      event.NetworkError,
	"bad-domain":          event.InvalidDomain,
	"bad-mailbox":         event.InvalidRecipient,
	"content-related":     event.ContentRejected,
	"inactive-mailbox":    event.InactiveMailbox,
	"invalid-sender":      event.SenderRejected,
	"message-expired":     event.GaveUp,
	"no-answer-from-host": event.NetworkError,
	"policy-related":      event.Policy,
	"protocol-errors":     event.ProtocolError,
	"quota-issues":        event.MailboxFull,
	"relaying-issues":     event.RelayDenied,
	"routing-errors":      event.DNSFailure,
	"spam-related":        event.SpamContent,
	"virus-related":       event.Virus,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "powermta",
		Title:   "PowerMTA",
		Aliases: []string{"pmta"},
		DocsURL: "https://bird.com/en-us/guides/powermta-user-guide",
		Protection: "PowerMTA signs nothing. It is your own server: let only its address in, and use a user name and password in the " +
			"URL.",
		SetUp: []esp.Step{
			{Text: "In PowerMTA's configuration add an acct-file that posts JSON to {url}, with the records d, b, rb, rs, t, r and f."},
			{Text: "Log at least type, timeLogged, orig, rcpt, dsnAction, dsnStatus, dsnDiag, bounceCat, vmta, jobId and envId; " +
				"add header_Message-Id if you can."},
			{Text: "Reload PowerMTA, and send a test mail."},
		},
		Retry:       "PowerMTA posts every second, or each megabyte, and repeats a post until it is answered 2xx.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	b := espkit.Batch{Several: records}
	return b.Read(req, "")
}

var errNoType = errors.New("the record has no type")

func records(v espkit.Value) ([]event.Event, error) {
	o := v.Object()
	code := o.Get("type").String()
	switch code {
	case "":
		return nil, errNoType
	case "tq":
		return nil, nil // about a queue, not about a message
	case "rs":
		code += "." + strings.ToLower(o.Get("dsnAction").String())
	}
	e := event.Event{ESPType: code, Type: table.Of(code), Record: bytes.Clone(v)}
	e.OccurredAt = occurred(o.Get("timeLogged").String())
	e.Recipient = espkit.Address(o.Get("rcpt").String())
	e.ReturnPath = espkit.Address(o.Get("orig").String())
	e.SendingDomain = espkit.Domain(e.ReturnPath)
	e.SendingNode = o.Get("vmta").String()
	e.DedicatedIP = o.Get("dlvSourceIp").String()
	e.RFCMessageID = header(o, "header_message-id")
	e.MessageID = espkit.First(o.Get("envId").String(), e.RFCMessageID)
	e.Subject = header(o, "header_subject")
	e.Tags = o.Get("jobId").Strings()
	e.CampaignID = o.Get("jobId").String()
	e.EnhancedStatus = espkit.EnhancedStatus(o.Get("dsnStatus").String())
	e.Diagnostic = espkit.First(o.Get("dsnDiag").String(), o.Get("dsnStatus").String())

	switch e.Type {
	case event.Bounced:
		e.Category = categories[o.Get("bounceCat").String()]
		if e.BounceType = espkit.BounceByCode(0, e.EnhancedStatus); e.BounceType == event.Undetermined {
			e.BounceType = espkit.BounceByCode(espkit.SMTPCode(e.Diagnostic), "")
		}
		e.Asynchronous = event.Bool(code != "b")
	case event.Deferred:
		e.Category = categories[o.Get("bounceCat").String()]
	case event.Complained:
		e.UserAgent = o.Get("userAgent").String()
	}
	if strings.HasPrefix(code, "rs.") && e.Type != event.Unknown {
		e.Asynchronous = event.Bool(true) // read out of a mail, whatever it says
	}
	espkit.Finish(&e)
	return []event.Event{e}, nil
}

// header finds a logged header, whatever its case.
func header(o espkit.Object, name string) string {
	for _, m := range o {
		if strings.EqualFold(string(m.Name), name) {
			return m.Value.String()
		}
	}
	return ""
}

// occurred reads "2019-02-08 21:54:05+0000" or unix seconds.
func occurred(s string) time.Time {
	return espkit.TimeUTC(s, "2006-01-02 15:04:05-0700")
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	at := espkit.SampleTime(ev, now).Format("2006-01-02 15:04:05-0700")
	o := map[string]any{
		"timeLogged": at, "timeQueued": at, "orig": espkit.First(ev.ReturnPath, "b-17@"+espkit.First(ev.SendingDomain, "bounces.example.com")),
		"rcpt": ev.Recipient, "vmta": espkit.First(ev.SendingNode, "vmta1"), "jobId": "job-17", "envId": ev.MessageID,
	}
	if len(ev.Tags) > 0 {
		o["jobId"] = ev.Tags[0]
	}
	said := func(kind, action, status, diagnostic, category string) {
		o["type"], o["dsnAction"], o["bounceCat"] = kind, action, category
		o["dsnStatus"] = espkit.First(ev.EnhancedStatus, status)
		o["dsnDiag"] = "smtp;" + espkit.First(ev.Diagnostic, diagnostic)
	}
	switch ev.Type {
	case event.Queued:
		o["type"] = "r"
	case event.Delivered:
		said("d", "relayed", "2.0.0 (success)", "250 2.0.0 OK", "")
	case event.Deferred:
		said("t", "delayed", "4.7.0 (other or undefined security status)", "421 4.7.0 too many errors", "policy-related")
	case event.Bounced:
		said("b", "failed", "5.1.1 (bad destination mailbox address)", "550 5.1.1 no such user", "bad-mailbox")
		if ev.Asynchronous != nil && *ev.Asynchronous {
			o["type"] = "rb"
		}
	case event.Complained:
		o["type"], o["format"] = "f", "arf"
	default:
		return esp.Request{}, fmt.Errorf("powermta has no %s event", ev.Type)
	}
	body, err := json.Marshal([]any{o})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
