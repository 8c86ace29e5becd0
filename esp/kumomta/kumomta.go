// Package kumomta understands the log records that KumoMTA's log hooks post.
// README.md has sources and quirks.
package kumomta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for KumoMTA.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "Reception", Ours: event.Queued},
	{Theirs: "Delivery", Ours: event.Delivered},
	{Theirs: "TransientFailure", Ours: event.Deferred},
	{Theirs: "Delayed", Ours: event.Deferred},
	{Theirs: "Bounce", Ours: event.Bounced, Note: "a permanent failure in the SMTP dialogue"},
	{Theirs: "Expiration", Ours: event.Bounced, Note: "given up after the queue lifetime: soft"},
	{Theirs: "OOB", Ours: event.Bounced, Note: "a bounce mail that came after acceptance"},
	{Theirs: "AdminBounce", Ours: event.Failed, Note: "an administrator dropped it; nobody refused it"},
	{Theirs: "Rejection", Ours: event.Rejected, Note: "refused at submission"},
	{Theirs: "Feedback", Ours: event.Complained},
}

var table = espkit.NewTable(types)

// categories are the bounce classes that KumoMTA's default classifier knows.
var categories = map[string]event.Category{
	"InvalidRecipient":     event.InvalidRecipient,
	"BadDomain":            event.InvalidDomain,
	"InactiveMailbox":      event.InactiveMailbox,
	"QuotaIssues":          event.MailboxFull,
	"SpamContent":          event.SpamContent,
	"SpamBlock":            event.Blocklisted,
	"ContentRelated":       event.ContentRejected,
	"ProhibitedAttachment": event.ContentRejected,
	"VirusRelated":         event.Virus,
	"AuthenticationFailed": event.AuthenticationFailure,
	"PolicyRelated":        event.Policy,
	"InvalidSender":        event.SenderRejected,
	"RelayDenied":          event.RelayDenied,
	"TooManyRecipients":    event.RateLimited,
	"DNSFailure":           event.DNSFailure,
	"RoutingErrors":        event.NetworkError,
	"BadConnection":        event.NetworkError,
	"NoAnswerFromHost":     event.NetworkError,
	"MessageExpired":       event.GaveUp,
	"ProtocolErrors":       event.ProtocolError,
	"BadConfiguration":     event.SystemError,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "kumomta",
		Title:   "KumoMTA",
		Aliases: []string{"kumo"},
		DocsURL: "https://docs.kumomta.com/userguide/operation/webhooks/",
		Protection: "KumoMTA signs nothing by itself; your policy script sets what it sends. Give it a user name and password or a " +
			"bearer token, and let only its address in.",
		SetUp: []esp.Step{
			{Text: "In init.lua define a log hook (policy-extras.log_hooks) that posts JSON to {url}, for all record types."},
			{Text: "Log the headers Subject and Message-ID, and the meta values you want to see here."},
			{Text: "Reload KumoMTA, and send a test mail."},
		},
		Retry:       "A post that is not answered 2xx stays in KumoMTA's own queue and is repeated by that queue's rules.",
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

// records makes one event for each recipient of a record.
func records(v espkit.Value) ([]event.Event, error) {
	o := v.Object()
	e := event.Event{ESPType: o.Get("type").String()}
	if e.ESPType == "" {
		return nil, errNoType
	}
	e.Type, e.Record = table.Of(e.ESPType), bytes.Clone(v)
	e.OccurredAt = espkit.Time(espkit.First(o.Get("event_time").String(), o.Get("timestamp").String()))
	e.MessageID = o.Get("id").String()
	e.ReturnPath = espkit.Address(o.Get("sender").String())
	e.SendingDomain = espkit.Domain(e.ReturnPath)
	e.SendingNode = o.Get("egress_source").String()
	e.Bridge = o.Get("egress_pool").String()
	if source := o.Get("source_address").Object(); source != nil {
		e.DedicatedIP = host(source.Get("address").String())
	}
	headers := o.Get("headers").Object()
	e.Subject = espkit.First(headers.Get("Subject").Strings()...)
	e.RFCMessageID = espkit.First(espkit.First(headers.Get("Message-ID").Strings()...), espkit.First(headers.Get("Message-Id").Strings()...))
	e.Metadata = o.Get("meta").Map()
	e.CampaignID = o.Get("campaign").String()
	recipients := o.Get("recipient").Strings()

	response := o.Get("response").Object()
	if e.Type == event.Complained {
		// The response is how the report itself was received.
		report := o.Get("feedback_report").Object()
		e.UserAgent = report.Get("user_agent").String()
		recipients = report.Get("original_rcpto_to").Strings()
	} else {
		e.SMTPCode = espkit.ReplyCode(response.Get("code").String())
		e.EnhancedStatus = enhanced(response.Get("enhanced_code"))
		e.Diagnostic = response.Get("content").String()
	}
	switch e.Type {
	case event.Bounced:
		e.Asynchronous = event.Bool(e.ESPType == "OOB")
		e.Category = categories[o.Get("bounce_classification").String()]
		switch e.ESPType {
		case "Bounce":
			e.BounceType = event.Hard
		case "Expiration":
			e.BounceType = event.Soft
			if e.Category == "" {
				e.Category = event.GaveUp
			}
		default:
			if e.BounceType = espkit.BounceByCode(0, e.EnhancedStatus); e.BounceType == event.Undetermined {
				e.BounceType = espkit.BounceByCode(e.SMTPCode, "")
			}
		}
	case event.Deferred, event.Failed, event.Rejected:
		e.Category = categories[o.Get("bounce_classification").String()]
	}
	espkit.Finish(&e)
	return espkit.ForEach(e, recipients), nil
}

// enhanced writes {"class":5,"subject":1,"detail":1} as RFC 3463 does.
func enhanced(v espkit.Value) string {
	o := v.Object()
	if o == nil {
		return ""
	}
	return espkit.Status(o.Get("class").String() + "." + o.Get("subject").String() + "." + o.Get("detail").String())
}

// host drops the port of "192.0.2.1:25" and "[2001:db8::1]:25".
func host(address string) string {
	for i := len(address) - 1; i >= 0; i-- {
		switch c := address[i]; {
		case c == ':' && i > 0 && address[i-1] == ']':
			return address[1 : i-1]
		case c == ':':
			return address[:i]
		case c < '0' || c > '9':
			return address
		}
	}
	return address
}

var sampleWords = map[event.Type]string{
	event.Queued: "Reception", event.Delivered: "Delivery", event.Deferred: "TransientFailure", event.Bounced: "Bounce", event.Failed: "AdminBounce",
	event.Rejected: "Rejection", event.Complained: "Feedback",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, _ esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("kumomta has no %s event", ev.Type)
	}
	at := espkit.SampleTime(ev, now)
	code, class, content := 250, 2, "OK"
	switch ev.Type {
	case event.Deferred:
		code, class, content = 451, 4, espkit.First(ev.Diagnostic, "greylisted")
	case event.Bounced, event.Failed, event.Rejected:
		code, class, content = 550, 5, espkit.First(ev.Diagnostic, "user unknown")
	}
	o := map[string]any{
		"type": word, "id": ev.MessageID, "sender": "b-17@" + espkit.First(ev.SendingDomain, "mail.example.com"), "recipient": ev.Recipient,
		"queue": "example.com", "site": "source1->mx.example.com", "size": 1047, "timestamp": at.Unix(),
		"event_time": at.Format(time.RFC3339Nano), "created": at.Unix() - 1, "num_attempts": 0, "bounce_classification": "Uncategorized",
		"egress_pool": "pool0", "egress_source": "source1", "meta": ev.Metadata, "headers": map[string]any{"Subject": ev.Subject},
		"response": map[string]any{"code": code, "enhanced_code": map[string]any{"class": class, "subject": 0, "detail": 0}, "content": content, "command": nil},
	}
	switch {
	case ev.Type == event.Complained:
		o["recipient"] = "fbl@mail.example.com"
		o["feedback_report"] = map[string]any{"feedback_type": "abuse", "user_agent": "Reporter/1.0", "version": 1, "original_rcpto_to": []string{"<" + ev.Recipient + ">"}}
	case ev.Type == event.Bounced && ev.Asynchronous != nil && *ev.Asynchronous:
		o["type"] = "OOB"
	case ev.Type == event.Bounced && ev.BounceType == event.Soft:
		o["type"] = "Expiration"
	}
	body, err := json.Marshal(o)
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
