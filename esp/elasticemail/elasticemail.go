// Package elasticemail understands the HTTP notifications of Elastic Email.
// README.md has sources and quirks.
package elasticemail

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Elastic Email.
type Adapter struct{}

// An Error has its category behind a dot: it decides what has happened.
var types = []esp.TypeMapping{
	{Theirs: "Sent", Ours: event.Sent, Note: "left Elastic Email"},
	{Theirs: "Opened", Ours: event.Opened},
	{Theirs: "Clicked", Ours: event.Clicked},
	{Theirs: "AbuseReport", Ours: event.Complained},
	{Theirs: "Unsubscribed", Ours: event.Unsubscribed},
	{Theirs: "Error.NoMailbox", Ours: event.Bounced},
	{Theirs: "Error.AccountProblem", Ours: event.Bounced},
	{Theirs: "Error.GreyListed", Ours: event.Deferred},
	{Theirs: "Error.Throttled", Ours: event.Deferred},
	{Theirs: "Error.Timeout", Ours: event.Deferred},
	{Theirs: "Error.ConnectionProblem", Ours: event.Deferred},
	{Theirs: "Error.ConnectionTerminated", Ours: event.Deferred},
	{Theirs: "Error.Spam", Ours: event.Bounced},
	{Theirs: "Error.BlackListed", Ours: event.Bounced},
	{Theirs: "Error.SPFProblem", Ours: event.Bounced},
	{Theirs: "Error.DNSProblem", Ours: event.Bounced},
	{Theirs: "Error.WhitelistingProblem", Ours: event.Bounced},
	{Theirs: "Error.ContentFilter", Ours: event.Bounced},
	{Theirs: "Error.NotDelivered", Ours: event.Bounced},
	{Theirs: "Error.ManualCancel", Ours: event.Rejected},
	{Theirs: "Error.Ignore", Ours: event.Rejected},
	{Theirs: "Error.CodeError", Ours: event.Failed},
	{Theirs: "Error.Unknown", Ours: event.Bounced},
}

var table = espkit.NewTable(types)

var categories = map[string]event.Category{
	"NoMailbox":            event.InvalidRecipient,
	"AccountProblem":       event.InactiveMailbox,
	"GreyListed":           event.Greylisted,
	"Throttled":            event.RateLimited,
	"Timeout":              event.NetworkError,
	"ConnectionProblem":    event.NetworkError,
	"ConnectionTerminated": event.NetworkError,
	"Spam":                 event.SpamContent,
	"BlackListed":          event.Blocklisted,
	"SPFProblem":           event.AuthenticationFailure,
	"DNSProblem":           event.DNSFailure,
	"WhitelistingProblem":  event.Policy,
	"ContentFilter":        event.ContentRejected,
	"Ignore":               event.Suppressed,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "elasticemail",
		Title:   "Elastic Email",
		DocsURL: "https://help.elasticemail.com/en/articles/2376855-how-to-manage-http-web-notifications-webhooks",
		Protection: "Elastic Email signs nothing in this form of notification. The token in the URL keeps strangers out; a user name " +
			"and password in the URL do more.",
		SetUp: []esp.Step{
			{Text: "In Elastic Email open Settings, Notifications, and choose Add webhook."},
			{Text: "Enter {url} and tick every event."},
			{Text: "Save. Elastic Email tries the address with an empty GET, which is answered 200."},
		},
		Retry:       "Elastic Email switches a notification off after 1,000 failures.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Answer implements esp.Answerer: a GET without parameters is a probe, one
// with parameters is a callback.
func (Adapter) Answer(req esp.Request, _ esp.Secrets) (esp.Reply, bool) {
	return esp.Reply{Status: http.StatusOK}, isProbe(req)
}

func isProbe(req esp.Request) bool {
	return req.Method == http.MethodHead || req.RawQuery == "" && len(req.Body) == 0
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if isProbe(req) {
		return esp.Result{}, nil
	}
	record := []byte(req.RawQuery)
	if len(record) == 0 {
		record = append(record, req.Body...)
	}
	e, err := read(espkit.ParseForm(record))
	if err != nil {
		return esp.Result{Problems: []esp.Problem{{Reason: err.Error()}}}, espkit.Unreadable(err.Error())
	}
	e.Record = record
	espkit.Finish(&e)
	return esp.Result{Events: []event.Event{e}}, nil
}

var errNoStatus = errors.New("the parameter status is missing")

func read(q espkit.Form) (event.Event, error) {
	e := event.Event{ESPType: q.Get("status")}
	if e.ESPType == "" {
		return e, errNoStatus
	}
	category := q.Get("category")
	if e.ESPType == "Error" {
		e.ESPType += "." + espkit.First(category, "Unknown")
		e.Diagnostic = category
		e.Category = categories[category]
	}
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.TimeUTC(q.Get("date"), "1/2/2006 3:04:05 PM", "1/2/2006 15:04:05", "2006-01-02T15:04:05", time.DateTime)
	e.Recipient = espkit.Address(q.Get("to"))
	e.MessageID = espkit.First(q.Get("messageid"), q.Get("transaction"))
	e.Subject = q.Get("subject")
	e.SendingDomain = espkit.Domain(espkit.Address(q.Get("from")))
	e.Bridge = q.Get("channel")
	switch e.Type {
	case event.Bounced:
		switch category {
		case "NoMailbox", "AccountProblem":
			e.BounceType = event.Hard
		case "Unknown", "":
			e.BounceType = event.Undetermined
		default:
			e.BounceType = event.Soft
		}
	case event.Clicked:
		e.URL = q.Get("target")
	}
	return e, nil
}

var sampleWords = map[event.Type]string{
	event.Sent: "Sent", event.Opened: "Opened", event.Clicked: "Clicked", event.Complained: "AbuseReport", event.Unsubscribed: "Unsubscribed",
	event.Bounced: "Error", event.Deferred: "Error", event.Rejected: "Error", event.Failed: "Error",
}

var sampleCategories = map[event.Type]string{
	event.Bounced: "NoMailbox", event.Deferred: "GreyListed", event.Rejected: "ManualCancel", event.Failed: "CodeError",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, rawURL string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("elasticemail has no %s event", ev.Type)
	}
	q := url.Values{
		"status": {word}, "category": {sampleCategories[ev.Type]}, "to": {ev.Recipient}, "from": {"shop@" + espkit.First(ev.SendingDomain, "mail.example.com")},
		"messageid": {ev.MessageID}, "transaction": {ev.MessageID}, "subject": {ev.Subject}, "channel": {"HTTP API"},
		"date": {espkit.SampleTime(ev, now).Format("1/2/2006 3:04:05 PM")},
	}
	if ev.Type == event.Bounced && ev.BounceType == event.Soft {
		q.Set("category", "Spam")
	}
	if ev.Type == event.Clicked {
		q.Set("target", ev.URL)
	}
	// The URL may have a query of its own, as any URL that is entered somewhere.
	separator := "?"
	if strings.Contains(rawURL, "?") {
		separator = "&"
	}
	req, err := espkit.NewRequest(rawURL+separator+q.Encode(), "", nil, now)
	if err != nil {
		return esp.Request{}, err
	}
	req.Header.Del("Content-Type")
	req.Method = http.MethodGet
	return req, nil
}
