// Package scaleway understands the webhooks of Scaleway Transactional Email,
// which come through Scaleway's Topics and Events, a service like Amazon SNS.
// README.md has sources and quirks.
package scaleway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/esp/espkit/sns"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Scaleway.
type Adapter struct{}

// Certificates are in a bucket that anybody may have neighbours of, so the
// host counts in full; the region (fr-par, nl-ams) may vary.
var topics = sns.Service{
	CertificateHost:   regexp.MustCompile(`^messaging\.s3\.[a-z]{2}-[a-z]{3}\.scw\.cloud$`),
	CertificateFile:   regexp.MustCompile(`\.(pem|crt|cer)$`),
	ConfirmHost:       regexp.MustCompile(`^sns\.mnq\.[a-z]{2}-[a-z]{3}\.scaleway\.com$`),
	Trust:             issued,
	SampleCertificate: "https://messaging.s3.fr-par.scw.cloud/fr-par/sns/sns_certificate_sample.crt",
}

var types = []esp.TypeMapping{
	{Theirs: "email_queued", Ours: event.Queued},
	{Theirs: "email_delivered", Ours: event.Delivered},
	{Theirs: "email_deferred", Ours: event.Deferred},
	{Theirs: "email_dropped", Ours: event.Bounced, Note: "the recipient's server refused it for good"},
	{Theirs: "email_mailbox_not_found", Ours: event.Bounced},
	{Theirs: "email_blocklisted", Ours: event.Rejected, Note: "not sent: the recipient is on the project's blocklist"},
	{Theirs: "email_spam", Ours: event.Rejected, Note: "Scaleway's own filter took it for spam; no person complained"},
	{Theirs: "blocklist_created", Ours: event.Unknown, Note: "tells of a list entry, not of a message"},
	{Theirs: "unknown_type", Ours: event.Unknown},
}

var table = espkit.NewTable(types)

var categories = map[string]event.Category{
	"email_mailbox_not_found": event.InvalidRecipient,
	"email_blocklisted":       event.Suppressed,
	"email_spam":              event.SpamContent,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "scaleway",
		Title:   "Scaleway Transactional Email",
		Aliases: []string{"scaleway-tem", "tem"},
		DocsURL: "https://www.scaleway.com/en/docs/transactional-email/how-to/create-webhooks/",
		Protection: "Every message is signed (RSA) with a certificate that Scaleway's own authority issued. " +
			"Any Scaleway customer can have messages signed, so the topic must be yours.",
		Fields: []esp.Field{sns.TopicField, {
			Name: "trust_chain", Label: "Certificate authority",
			Help: "Only when Scaleway replaces its authority: the PEM of its new trust chain (docs, Topics and Events, Verifying webhooks). The present one is built in.",
		}},
		SetUp: []esp.Step{
			{Text: "In the Scaleway console open Topics and Events, create a topic, copy its ARN into this source and save."},
			{Text: "Create credentials that may write to the topic, and a subscription to it: protocol HTTPS, endpoint {url}. The subscription is confirmed within seconds."},
			{Text: "In Transactional Email open your domain, Webhooks, Create webhook; choose the topic by its ARN and tick all events."},
		},
		Retry:       "Topics and Events posts again until it gets a 2xx; when and how often is not documented.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	c, err := topics.Open(req)
	if err != nil || c.Text == "" {
		return esp.Result{Confirm: c.Confirm}, err
	}
	doc, ok := espkit.Document([]byte(c.Text))
	if !ok {
		return esp.Result{}, espkit.Unreadable("the published message is not JSON")
	}
	b := espkit.Batch{Record: record}
	b.Add(doc)
	return b.Outcome()
}

var errNoType = errors.New("the record has no type")

func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	e := event.Event{Record: v, ESPType: o.Get("type").String()}
	if e.ESPType == "" {
		return e, errNoType
	}
	e.Type = table.Of(e.ESPType)
	e.Category = categories[e.ESPType]
	e.OccurredAt = espkit.Time(o.Get("created_at").String())
	e.Recipient = espkit.Address(o.Get("email_to").String())
	e.MessageID = o.Get("email_id").String()
	e.EventID = o.Get("id").String()
	e.SendingDomain = strings.ToLower(o.Get("domain_name").String())
	e.Subject = header(o.Get("email_headers"), "Subject")
	e.RFCMessageID = header(o.Get("email_headers"), "Message-ID")
	e.SMTPCode = espkit.ReplyCode(o.Get("email_response_code").String())
	e.Diagnostic = espkit.First(o.Get("email_response_message").String(), o.Get("email_error").String())
	if e.Type == event.Bounced {
		// Both kinds: "the email was sent but hard-bounced by the recipient server".
		e.BounceType = event.Hard
	}
	espkit.Finish(&e)
	return e, nil
}

// header finds a header of the message in a list of keys with values. The
// form is not documented; other clients have seen this one, an object of names
// is the other one to expect.
func header(headers espkit.Value, name string) string {
	for _, member := range headers.Object() {
		if strings.EqualFold(string(member.Name), name) {
			return member.Value.String()
		}
	}
	for _, v := range headers.Elements() {
		h := v.Object()
		if strings.EqualFold(espkit.First(h.Get("key").String(), h.Get("name").String()), name) {
			return h.Get("value").String()
		}
	}
	return ""
}

// Verify implements esp.Verifier.
func (Adapter) Verify(ctx context.Context, req esp.Request, v esp.Verification) error {
	return topics.Verify(ctx, req, v)
}

// Sample implements esp.Sampler. Scaleway alone has the key that its posts are
// signed with; a sample is signed when the secrets hold esp.SampleKey.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	domain := espkit.First(ev.SendingDomain, "mail.example.com")
	at := espkit.SampleTime(ev, now)
	o := map[string]any{
		"id": ev.EventID, "organization_id": "3b1e7a6c-0000-4000-8000-000000000001", "project_id": "3b1e7a6c-0000-4000-8000-000000000002",
		"domain_id": "3b1e7a6c-0000-4000-8000-000000000003", "domain_name": domain, "created_at": at.Format(time.RFC3339Nano),
		"email_queued_at": at.Add(-time.Second).Format(time.RFC3339Nano), "email_id": ev.MessageID, "email_from": "shop@" + domain, "email_to": ev.Recipient,
		"email_headers": []any{map[string]any{"key": "Subject", "value": ev.Subject}, map[string]any{"key": "Message-Id", "value": "<" + ev.MessageID + "@" + domain + ">"}},
	}
	reply := func(code int, text string) {
		o["email_response_code"], o["email_response_message"], o["email_try_count"] = code, text, 1
		if ev.SMTPCode != 0 {
			o["email_response_code"] = ev.SMTPCode
		}
		if ev.Diagnostic != "" {
			o["email_response_message"] = ev.Diagnostic
		}
	}
	switch ev.Type {
	case event.Queued:
		o["type"] = "email_queued"
	case event.Delivered:
		o["type"] = "email_delivered"
		reply(250, "2.0.0 OK")
	case event.Deferred:
		o["type"], o["email_next_try"] = "email_deferred", at.Add(15*time.Minute).Format(time.RFC3339Nano)
		reply(451, "4.7.1 Try again later")
	case event.Bounced:
		o["type"] = "email_dropped"
		reply(550, "5.1.1 User unknown")
	case event.Rejected:
		o["type"] = "email_blocklisted"
	default:
		return esp.Request{}, fmt.Errorf("scaleway has no %s event", ev.Type)
	}
	return topics.Sample(url, "arn:scw:sns:fr-par:project-3b1e7a6c-0000-4000-8000-000000000002:tem", "", "", o, s, now)
}
