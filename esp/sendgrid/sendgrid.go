// Package sendgrid understands the Event Webhook of Twilio SendGrid. README.md
// has sources and quirks.
package sendgrid

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for SendGrid.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "processed", Ours: event.Queued},
	{Theirs: "dropped", Ours: event.Rejected, Note: "not sent: the address is on a suppression list, or the message is invalid"},
	{Theirs: "deferred", Ours: event.Deferred},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "bounce", Ours: event.Bounced, Note: "hard"},
	{Theirs: "bounce.blocked", Ours: event.Bounced, Note: "event bounce of type blocked, soft: SendGrid has given up on this message, but does not suppress the address"},
	{Theirs: "spamreport", Ours: event.Complained},
	{Theirs: "unsubscribe", Ours: event.Unsubscribed},
	{Theirs: "group_unsubscribe", Ours: event.Unsubscribed, Note: "from one group of mails"},
	{Theirs: "group_resubscribe", Ours: event.Subscribed},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// classifications are the bounce classifications whose meaning is plain.
// Others (Technical, Mailbox Unavailable, Unclassified) leave it to the
// diagnostic.
var classifications = map[string]event.Category{
	"Invalid Address":  event.InvalidRecipient,
	"Content":          event.ContentRejected,
	"Reputation":       event.Blocklisted,
	"Frequency/Volume": event.RateLimited,
}

// suppressing are the reasons of a drop that stand for an entry on one of
// SendGrid's suppression lists.
var suppressing = []string{"Bounced Address", "Unsubscribed Address", "Spam Reporting Address"}

// known are SendGrid's own members; all others are the sender's unique
// arguments.
var known = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Fields(`email timestamp event smtp-id sg_event_id sg_message_id sg_machine_open sg_content_type sg_template_id
		sg_template_name category response reason status type bounce_classification attempt useragent ip url url_offset asm_group_id tls
		cert_err pool post_type send_at newsletter`) {
		m[name] = true
	}
	return m
}()

var knownPrefixes = []string{"marketing_campaign_", "singlesend_", "template_"}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:       "sendgrid",
		Title:      "Twilio SendGrid",
		Aliases:    []string{"twilio"},
		DocsURL:    "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event",
		Protection: "Every post is signed (ECDSA over time and body) once Signed Event Webhook is switched on at SendGrid.",
		Fields: []esp.Field{{
			Name: "public_key", Label: "Verification key", Required: true,
			Help: "SendGrid shows it when Signed Event Webhook is enabled, and in the webhook's security features. It begins with MFkw.",
		}},
		SetUp: []esp.Step{
			{Text: "In SendGrid open Settings, Mail Settings, Event Webhooks, and choose Create new webhook."},
			{Text: "Enter {url} as Post URL and tick the deliverability and engagement events you want; tick all of them if in doubt."},
			{Text: "Under Security features enable Signed Event Webhook, save, and copy the verification key into this source."},
			{Text: "Choose Test Your Integration: example events arrive here."},
		},
		Retry:       "SendGrid posts a batch again until it gets a 2xx, at growing intervals, for up to 24 hours.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	body := bytes.TrimSpace(req.Body)
	b := espkit.Batch{Record: record}
	// AddArray looks into objects as well; a SendGrid batch is never in one.
	if bytes.HasPrefix(body, []byte("{")) || !b.AddArray(body, "") {
		return esp.Result{}, espkit.Unreadable("the body is not a JSON array")
	}
	return b.Outcome()
}

var (
	errNoObject = errors.New("the record is not an object")
	errNoType   = errors.New("the record has no event")
)

func record(v espkit.Value) (event.Event, error) {
	if !v.IsObject() {
		return event.Event{}, errNoObject
	}
	o := v.Object()
	e := event.Event{ESPType: o.Get("event").String()}
	if e.ESPType == "" {
		return e, errNoType
	}
	if kind := o.Get("type").String(); e.ESPType == "bounce" && kind == "blocked" {
		e.ESPType = "bounce.blocked"
	}
	e.Record = bytes.Clone(v)
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("timestamp").String())
	e.Recipient = espkit.Address(o.Get("email").String())
	e.RFCMessageID = o.Get("smtp-id").String()
	// A bounce that came later may lack the message id.
	e.MessageID = espkit.First(o.Get("sg_message_id").String(), e.RFCMessageID)
	e.EventID = o.Get("sg_event_id").String()
	e.Tags = o.Get("category").Strings()
	e.Metadata = arguments(v, o)
	e.Diagnostic = espkit.First(o.Get("response").String(), o.Get("reason").String())
	e.EnhancedStatus = espkit.Status(o.Get("status").String())
	e.CampaignID = espkit.First(o.Get("singlesend_id").String(), o.Get("marketing_campaign_id").String(),
		o.Get("newsletter").Object().Get("newsletter_id").String())
	e.BroadcastName = espkit.First(o.Get("singlesend_name").String(), o.Get("marketing_campaign_name").String())
	e.SendingNode = o.Get("pool").Object().Get("name").String()

	switch e.Type {
	case event.Opened, event.Clicked, event.Unsubscribed, event.Subscribed:
		e.IP = o.Get("ip").String()
		e.URL = o.Get("url").String()
	default:
		e.DedicatedIP = o.Get("ip").String() // the one it was sent from
	}
	switch e.Type {
	case event.Opened, event.Clicked, event.Unsubscribed, event.Subscribed, event.Complained:
		e.UserAgent = o.Get("useragent").String()
	case event.Bounced:
		e.BounceType = bounceType(e, o.Get("type").String())
		e.Category = classifications[o.Get("bounce_classification").String()]
	case event.Rejected:
		if slices.Contains(suppressing, e.Diagnostic) {
			e.Category = event.Suppressed
		}
	}
	espkit.Finish(&e)
	return e, nil
}

func bounceType(e event.Event, kind string) event.BounceType {
	switch kind {
	case "bounce":
		return event.Hard
	case "blocked", "expired":
		return event.Soft
	}
	return espkit.BounceByCode(espkit.SMTPCode(e.Diagnostic), espkit.First(e.EnhancedStatus, espkit.EnhancedStatus(e.Diagnostic)))
}

// arguments are the sender's unique arguments, which SendGrid puts between its
// own members.
func arguments(v espkit.Value, o espkit.Object) map[string]any {
	theirs := 0
	for _, m := range o {
		if isKnown(string(m.Name)) {
			theirs++
		}
	}
	if theirs == len(o) {
		return nil
	}
	all := v.Map()
	for name := range all {
		if isKnown(name) {
			delete(all, name)
		}
	}
	return all
}

func isKnown(name string) bool {
	if known[name] {
		return true
	}
	for _, prefix := range knownPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Sample implements esp.Sampler. SendGrid alone has the key that its posts are
// signed with; a sample is signed when the secrets hold esp.SampleKey.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	o := map[string]any{}
	for name, value := range ev.Metadata {
		if !isKnown(name) {
			o[name] = value
		}
	}
	o["email"], o["timestamp"] = ev.Recipient, espkit.SampleTime(ev, now).Unix()
	o["sg_message_id"], o["sg_event_id"] = ev.MessageID, ev.EventID
	o["smtp-id"] = "<" + ev.MessageID + "@geopod-ismtpd-1>"
	if len(ev.Tags) > 0 {
		o["category"] = ev.Tags
	}
	if err := fill(o, ev); err != nil {
		return esp.Request{}, err
	}
	list, err := json.Marshal([]any{o})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	req, err := espkit.NewRequest(url, "application/json;charset=utf-8", append(list, "\r\n"...), now)
	if err != nil {
		return esp.Request{}, err
	}
	req.Header.Set("User-Agent", "SendGrid Event API")
	if key := s[esp.SampleKey]; key != "" {
		err = signSample(&req, key, strconv.FormatInt(now.Unix(), 10))
	}
	return req, err
}

func fill(o map[string]any, ev event.Event) error {
	switch ev.Type {
	case event.Queued:
		o["event"], o["send_at"] = "processed", 0
	case event.Rejected:
		o["event"], o["reason"] = "dropped", espkit.First(ev.Diagnostic, "Bounced Address")
	case event.Deferred:
		o["event"], o["response"], o["attempt"] = "deferred", espkit.First(ev.Diagnostic, "451 4.7.1 Try again later"), "1"
	case event.Delivered:
		o["event"], o["response"], o["ip"], o["tls"] = "delivered", espkit.First(ev.Diagnostic, "250 2.0.0 OK"), "198.51.100.7", 1
	case event.Bounced:
		o["event"], o["type"], o["reason"], o["ip"], o["tls"] = "bounce", "bounce", ev.Diagnostic, "198.51.100.7", 1
		if ev.BounceType == event.Soft {
			o["type"] = "blocked"
		}
		if ev.EnhancedStatus != "" {
			o["status"] = ev.EnhancedStatus
		}
	case event.Complained:
		o["event"] = "spamreport"
	case event.Unsubscribed, event.Subscribed:
		o["event"], o["asm_group_id"] = "group_resubscribe", 10
		if ev.Type == event.Unsubscribed {
			o["event"] = "group_unsubscribe"
		}
		o["ip"], o["useragent"] = ev.IP, ev.UserAgent
	case event.Opened:
		o["event"], o["ip"], o["useragent"], o["sg_machine_open"] = "open", ev.IP, ev.UserAgent, false
	case event.Clicked:
		o["event"], o["ip"], o["useragent"], o["url"] = "click", ev.IP, ev.UserAgent, ev.URL
		o["url_offset"] = map[string]any{"index": 0, "type": "html"}
	default:
		return fmt.Errorf("sendgrid has no %s event", ev.Type)
	}
	return nil
}
