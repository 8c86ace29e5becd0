// Package ses understands what Amazon SES publishes through Amazon SNS:
// feedback notifications and event publishing. README.md has sources and
// quirks.
package ses

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

// Adapter is the esp.Adapter for Amazon SES.
type Adapter struct{}

// amazon is SNS in all regions, China among them.
var amazon = sns.Service{
	CertificateHost:   regexp.MustCompile(`^sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`),
	CertificateFile:   regexp.MustCompile(`\.pem$`),
	ConfirmHost:       regexp.MustCompile(`^sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`),
	SampleCertificate: "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0000000000000000000000000000005a.pem",
}

// An event publishing record says eventType, a feedback notification
// notificationType; the words are the same.
var types = []esp.TypeMapping{
	{Theirs: "Send", Ours: event.Sent},
	{Theirs: "Delivery", Ours: event.Delivered},
	{Theirs: "DeliveryDelay", Ours: event.Deferred},
	{Theirs: "Bounce", Ours: event.Bounced, Note: "bounceType Permanent is hard, Transient soft: SES has given up on both; while it tries it says DeliveryDelay"},
	{Theirs: "Bounce.Suppressed", Ours: event.Rejected, Note: "not sent: the address is on the suppression list of all SES customers"},
	{Theirs: "Bounce.OnAccountSuppressionList", Ours: event.Rejected, Note: "not sent: the address is on your account's suppression list"},
	{Theirs: "Reject", Ours: event.Rejected, Note: "SES found a virus"},
	{Theirs: "Rendering Failure", Ours: event.Failed, Note: "the template and its data do not fit"},
	{Theirs: "Complaint", Ours: event.Complained},
	{Theirs: "Complaint.not-spam", Ours: event.Unknown, Note: "the opposite: somebody said that it was not spam"},
	{Theirs: "Open", Ours: event.Opened},
	{Theirs: "Click", Ours: event.Clicked},
	{Theirs: "Subscription.unsubscribeAll", Ours: event.Unsubscribed, Note: "the new preferences have unsubscribeAll"},
	{Theirs: "Subscription", Ours: event.Unknown, Note: "other changes of topic preferences"},
}

var table = espkit.NewTable(types)

// categories are the bounce subtypes and delay types whose meaning is plain.
var categories = map[string]event.Category{
	"NoEmail":                  event.InvalidRecipient,
	"Suppressed":               event.Suppressed,
	"OnAccountSuppressionList": event.Suppressed,
	"MailboxFull":              event.MailboxFull,
	"MessageTooLarge":          event.MessageTooLarge,
	"ContentRejected":          event.ContentRejected,
	"AttachmentRejected":       event.ContentRejected,
	"CustomTimeoutExceeded":    event.GaveUp,

	"SpamDetected":                   event.SpamContent,
	"RecipientServerError":           event.SystemError,
	"IPFailure":                      event.Blocklisted,
	"TransientCommunicationFailure":  event.NetworkError,
	"BYOIPHostNameLookupUnavailable": event.DNSFailure,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "ses",
		Title:   "Amazon SES",
		Aliases: []string{"amazon", "amazonses", "amazon-ses"},
		DocsURL: "https://docs.aws.amazon.com/ses/latest/dg/monitor-using-event-publishing.html",
		Protection: "Every message is signed by Amazon SNS (RSA), with a certificate that is taken from Amazon only. " +
			"Any AWS customer can have messages signed, so the topic must be yours.",
		Fields: []esp.Field{sns.TopicField},
		SetUp: []esp.Step{
			{Text: "In Amazon SNS create a standard topic, copy its ARN into this source and save."},
			{Text: "In the topic choose Create subscription, protocol HTTPS, endpoint {url}. Leave raw message delivery off: raw messages are not signed. The subscription is confirmed within seconds."},
			{Text: "In Amazon SES open your configuration set, Event destinations, Add destination; tick all events, choose Amazon SNS and the topic. Your mail must name the configuration set, or make it your identity's default."},
			{Text: "Without configuration sets, open the identity instead, Notifications, Feedback notifications, and set the topic for bounces, complaints and deliveries; include the original headers."},
		},
		Retry: "Amazon SNS follows the subscription's delivery policy: three retries, 20 seconds apart, unless you change it. " +
			"Set more retries with a longer backoff there, and a dead-letter queue if you want to lose nothing.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// validated begins the text that SES publishes when an event destination is
// created.
const validated = "Successfully validated SNS topic"

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	c, err := amazon.Open(req)
	if err != nil || c.Text == "" || strings.HasPrefix(c.Text, validated) {
		return esp.Result{Confirm: c.Confirm}, err
	}
	doc, ok := espkit.Document([]byte(c.Text))
	if !ok {
		return esp.Result{}, espkit.Unreadable("the published message is not JSON")
	}
	b := espkit.Batch{Several: func(v espkit.Value) ([]event.Event, error) { return record(v, c.MessageID) }}
	b.Add(doc)
	return b.Outcome()
}

var errNoType = errors.New("the record has neither eventType nor notificationType")

// record reads one record, which may concern several recipients.
func record(v espkit.Value, messageID string) ([]event.Event, error) {
	o := v.Object()
	word := espkit.First(o.Get("eventType").String(), o.Get("notificationType").String())
	switch word {
	case "":
		return nil, errNoType
	case "AmazonSnsSubscriptionSucceeded": // the topic was just set for feedback notifications
		return nil, nil
	}
	e := event.Event{Record: v, ESPType: word, EventID: messageID}
	mail := o.Get("mail").Object()
	about(&e, mail)
	e.OccurredAt = espkit.Time(mail.Get("timestamp").String())
	to := recipients(mail.Get("destination"))

	detail := func(name string) espkit.Object {
		d := o.Get(name).Object()
		e.OccurredAt = espkit.Time(d.Get("timestamp").String())
		if messageID == "" { // raw delivery
			e.EventID = d.Get("feedbackId").String()
		}
		return d
	}
	switch word {
	case "Bounce":
		to = bounce(&e, detail("bounce"), to)
	case "Complaint":
		d := detail("complaint")
		to = named(d.Get("complainedRecipients"), to)
		e.UserAgent = d.Get("userAgent").String()
		if d.Get("complaintFeedbackType").String() == "not-spam" {
			e.ESPType += ".not-spam"
		}
	case "Delivery":
		d := detail("delivery")
		to = named(d.Get("recipients"), to)
		e.Diagnostic = d.Get("smtpResponse").String()
	case "DeliveryDelay":
		d := detail("deliveryDelay")
		to = named(d.Get("delayedRecipients"), to)
		e.Category = categories[d.Get("delayType").String()]
	case "Reject":
		e.Diagnostic = o.Get("reject").Object().Get("reason").String()
		e.Category = event.Virus
	case "Rendering Failure":
		e.Diagnostic = o.Get("failure").Object().Get("errorMessage").String()
	case "Open", "Click":
		d := detail(strings.ToLower(word))
		e.IP, e.UserAgent, e.URL = d.Get("ipAddress").String(), d.Get("userAgent").String(), d.Get("link").String()
	case "Subscription":
		if detail("subscription").Get("newTopicPreferences").Object().Get("unsubscribeAll").String() == "true" {
			e.ESPType += ".unsubscribeAll"
		}
	}
	e.Type = table.Of(e.ESPType)
	return each(e, to), nil
}

// about reads what a record says about the message.
func about(e *event.Event, mail espkit.Object) {
	common := mail.Get("commonHeaders").Object()
	e.MessageID = mail.Get("messageId").String()
	e.Subject = common.Get("subject").String()
	for _, h := range mail.Get("headers").Elements() {
		header := h.Object()
		if strings.EqualFold(header.Get("name").String(), "Message-ID") {
			e.RFCMessageID = header.Get("value").String()
		}
	}
	if e.RFCMessageID == "" {
		// The documentation's samples have the SES id here, real records the header.
		if id := common.Get("messageId").String(); strings.Contains(id, "@") {
			e.RFCMessageID = id
		}
	}
	from := mail.Get("source").String()
	if list := common.Get("from").Strings(); len(list) > 0 {
		from = list[0]
	}
	for _, tag := range mail.Get("tags").Object() {
		name, values := string(tag.Name), tag.Value.Strings()
		if !strings.HasPrefix(name, "ses:") {
			attach(e, name, values)
			continue
		}
		if len(values) == 0 {
			continue
		}
		switch name {
		case "ses:configuration-set":
			e.Stream = values[0]
		case "ses:from-domain":
			e.SendingDomain = strings.ToLower(values[0])
		case "ses:outgoing-ip":
			e.DedicatedIP = values[0]
		}
	}
	if e.SendingDomain == "" {
		e.SendingDomain = espkit.Domain(espkit.Address(from))
	}
}

// attach takes a tag of the sender's. Its values are a list, of nearly always
// one.
func attach(e *event.Event, name string, values []string) {
	if e.Metadata == nil {
		e.Metadata = map[string]any{}
	}
	if len(values) == 1 {
		e.Metadata[name] = values[0]
		return
	}
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	e.Metadata[name] = list
}

func bounce(e *event.Event, d espkit.Object, to []recipient) []recipient {
	sub := d.Get("bounceSubType").String()
	e.Category = categories[sub]
	if sub == "Suppressed" || sub == "OnAccountSuppressionList" {
		e.ESPType += "." + sub
	} else {
		e.BounceType = event.Undetermined
		switch d.Get("bounceType").String() {
		case "Permanent":
			e.BounceType = event.Hard
		case "Transient":
			e.BounceType = event.Soft
		}
	}
	return named(d.Get("bouncedRecipients"), to)
}

// recipient is one of those a record concerns, with what was said about it.
type recipient struct{ address, status, diagnostic string }

// recipients reads a list of addresses, or of objects with an address.
func recipients(list espkit.Value) []recipient {
	var out []recipient
	for _, v := range list.Elements() {
		r := recipient{address: v.String()}
		if o := v.Object(); o != nil {
			r = recipient{o.Get("emailAddress").String(), o.Get("status").String(), o.Get("diagnosticCode").String()}
		}
		if r.address != "" {
			out = append(out, r)
		}
	}
	return out
}

// named are the recipients in list. Where it has none, the message's only one
// must be meant; of several nobody knows.
func named(list espkit.Value, all []recipient) []recipient {
	if to := recipients(list); len(to) > 0 {
		return to
	}
	if len(all) == 1 {
		return all
	}
	return nil
}

// each makes an event for every recipient; one without, when there is none.
// SES takes 50 to a message.
func each(e event.Event, to []recipient) []event.Event {
	if len(to) == 0 {
		to = []recipient{{}}
	}
	to = to[:min(len(to), 1000)]
	out := make([]event.Event, 0, len(to))
	for _, r := range to {
		one := e
		one.Recipient = espkit.Address(r.address)
		one.EnhancedStatus = espkit.Status(r.status)
		one.Diagnostic = espkit.First(r.diagnostic, e.Diagnostic)
		espkit.Finish(&one)
		out = append(out, one)
	}
	return out
}

// Verify implements esp.Verifier.
func (Adapter) Verify(ctx context.Context, req esp.Request, v esp.Verification) error {
	return amazon.Verify(ctx, req, v)
}

// Sample implements esp.Sampler. Amazon alone has the key that its posts are
// signed with; a sample is signed when the secrets hold esp.SampleKey.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	at := espkit.SampleTime(ev, now).Format("2006-01-02T15:04:05.000Z")
	o, err := sampleRecord(ev, at)
	if err != nil {
		return esp.Request{}, err
	}
	domain := espkit.First(ev.SendingDomain, "mail.example.com")
	tags := map[string]any{"ses:configuration-set": []string{espkit.First(ev.Stream, "transactional")}, "ses:from-domain": []string{domain}}
	for name, value := range ev.Metadata {
		tags[name] = []any{value}
	}
	o["mail"] = map[string]any{
		"timestamp": at, "source": "shop@" + domain, "sendingAccountId": "123456789012", "messageId": ev.MessageID,
		"destination": []string{ev.Recipient}, "headersTruncated": false,
		"headers": []any{map[string]any{"name": "Subject", "value": ev.Subject}},
		"commonHeaders": map[string]any{
			"from": []string{"shop@" + domain}, "to": []string{ev.Recipient}, "messageId": ev.MessageID, "subject": ev.Subject,
		},
		"tags": tags,
	}
	return amazon.Sample(url, "arn:aws:sns:us-east-1:123456789012:ses-events", "Amazon SES Email Event Notification", ev.EventID, o, s, now)
}

func sampleRecord(ev event.Event, at string) (map[string]any, error) {
	about := map[string]any{"emailAddress": ev.Recipient}
	if ev.EnhancedStatus != "" {
		about["status"] = ev.EnhancedStatus
	}
	if ev.Diagnostic != "" {
		about["action"], about["diagnosticCode"] = "failed", ev.Diagnostic
	}
	to := []any{about}
	person := map[string]any{"timestamp": at, "ipAddress": ev.IP, "userAgent": ev.UserAgent}
	switch ev.Type {
	case event.Sent:
		return map[string]any{"eventType": "Send", "send": map[string]any{}}, nil
	case event.Delivered:
		return map[string]any{"eventType": "Delivery", "delivery": map[string]any{
			"timestamp": at, "processingTimeMillis": 1200, "recipients": []string{ev.Recipient},
			"smtpResponse": espkit.First(ev.Diagnostic, "250 2.0.0 OK"), "reportingMTA": "mta.example.com",
		}}, nil
	case event.Deferred:
		return map[string]any{"eventType": "DeliveryDelay", "deliveryDelay": map[string]any{
			"timestamp": at, "delayType": "Undetermined", "delayedRecipients": to,
		}}, nil
	case event.Bounced:
		kind := map[event.BounceType]string{event.Hard: "Permanent", event.Soft: "Transient"}[ev.BounceType]
		return sampleBounce(espkit.First(kind, "Undetermined"), "General", to, at), nil
	case event.Rejected:
		return sampleBounce("Permanent", "OnAccountSuppressionList", to, at), nil
	case event.Failed:
		return map[string]any{"eventType": "Rendering Failure", "failure": map[string]any{
			"templateName": "invoice", "errorMessage": espkit.First(ev.Diagnostic, "Attribute 'number' is not present in the rendering data."),
		}}, nil
	case event.Complained:
		return map[string]any{"eventType": "Complaint", "complaint": map[string]any{
			"timestamp": at, "complainedRecipients": to, "complaintFeedbackType": "abuse", "feedbackId": "sample-feedback-000000",
		}}, nil
	case event.Opened:
		return map[string]any{"eventType": "Open", "open": person}, nil
	case event.Clicked:
		person["link"], person["linkTags"] = ev.URL, nil
		return map[string]any{"eventType": "Click", "click": person}, nil
	case event.Unsubscribed:
		return map[string]any{"eventType": "Subscription", "subscription": map[string]any{
			"contactList": "customers", "timestamp": at, "source": "UnsubscribeHeader",
			"newTopicPreferences": map[string]any{"unsubscribeAll": true}, "oldTopicPreferences": map[string]any{"unsubscribeAll": false},
		}}, nil
	}
	return nil, fmt.Errorf("ses has no %s event", ev.Type)
}

func sampleBounce(kind, sub string, to []any, at string) map[string]any {
	return map[string]any{"eventType": "Bounce", "bounce": map[string]any{
		"bounceType": kind, "bounceSubType": sub, "bouncedRecipients": to, "timestamp": at,
		"feedbackId": "sample-feedback-000000", "reportingMTA": "dns; mta.example.com",
	}}
}
