// Package unisendergo understands the webhooks of Unisender Go. README.md has
// sources and quirks.
package unisendergo

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5" // what Unisender Go signs with
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Unisender Go.
type Adapter struct{}

// What happened to a message is told by its status; a soft bounce that is
// tried again has its delivery status behind a dot.
var types = []esp.TypeMapping{
	{Theirs: "sent", Ours: event.Sent},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "soft_bounced.err_will_retry", Ours: event.Deferred, Note: "Unisender Go will try again"},
	{Theirs: "soft_bounced", Ours: event.Bounced, Note: "with any other delivery status it has given up"},
	{Theirs: "hard_bounced", Ours: event.Bounced},
	{Theirs: "opened", Ours: event.Opened},
	{Theirs: "clicked", Ours: event.Clicked},
	{Theirs: "unsubscribed", Ours: event.Unsubscribed},
	{Theirs: "subscribed", Ours: event.Subscribed},
	{Theirs: "spam", Ours: event.Complained},
	{Theirs: "transactional_spam_block", Ours: event.Unknown, Note: "about a domain that blocks Unisender Go's servers"},
}

var table = espkit.NewTable(types)

const willRetry = "err_will_retry"

// categories are the delivery statuses whose meaning is plain.
var categories = map[string]event.Category{
	"err_user_unknown":              event.InvalidRecipient,
	"err_mailbox_discarded":         event.InvalidRecipient,
	"err_user_inactive":             event.InactiveMailbox,
	"err_mailbox_full":              event.MailboxFull,
	"err_too_large":                 event.MessageTooLarge,
	"err_spam_rejected":             event.SpamContent,
	"err_blacklisted":               event.Blocklisted,
	"err_domain_inactive":           event.InvalidDomain,
	"err_no_dns":                    event.DNSFailure,
	"err_destination_misconfigured": event.SystemError,
	"err_unsubscribed":              event.Suppressed,
}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "unisendergo",
		Title:   "Unisender Go",
		Aliases: []string{"unisender", "unione"},
		DocsURL: "https://godocs.unisender.ru/web-api-ref#callback-format",
		Protection: "Every post carries the MD5 of its body with your API key in it. MD5 is weak, and the time is not signed: " +
			"keep the URL to yourself.",
		Fields: []esp.Field{{
			Name: "api_key", Label: "API key", Secret: true, Required: true,
			Help: "In Unisender Go under Account, Security; for a webhook of a project, the project's key under Settings, Projects.",
		}},
		SetUp: []esp.Step{
			{Text: "Copy the API key into this source and save."},
			{Text: "In Unisender Go open Settings, Webhooks, and add one; or call webhook/set."},
			{Text: "Enter {url}, choose JSON, all statuses, and delivery info (delivery_info: 1): without it nobody can tell a soft bounce that is tried again from one that is not. Unisender Go tries the address with GET."},
		},
		Retry:       "Unisender Go waits three seconds for an answer and posts again every ten minutes for 24 hours; a webhook that failed all that time is stopped.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if (req.Method == http.MethodHead || req.Method == http.MethodGet) && len(req.Body) == 0 {
		return esp.Result{}, nil
	}
	b := espkit.Batch{Record: record}
	doc, ok := espkit.Document(req.Body)
	if !ok {
		if !b.AddArray(listOfDamaged(req.Body), "") {
			return esp.Result{}, espkit.Unreadable("the body is not JSON")
		}
		return b.Outcome()
	}
	users := doc.Object().Get("events_by_user")
	if !users.Present() { // one event a post
		b.Add(doc)
		return b.Outcome()
	}
	list := users.Elements()
	for _, user := range list[:min(len(list), maxUsers)] {
		if !b.AddArray(user, "events") {
			b.Add(user) // which says what is missing
		}
	}
	return b.Outcome()
}

// maxUsers bounds a list that is documented to have one element.
const maxUsers = 1000

var (
	eventList = regexp.MustCompile(`"events"\s*:\s*\[`)
	endOfList = regexp.MustCompile(`(\])\s*\}\s*\]\s*\}\s*$`)
)

// listOfDamaged returns the list of events out of a body that is not JSON, so
// that a broken record loses no other.
func listOfDamaged(body []byte) []byte {
	at := eventList.FindIndex(body)
	if at == nil {
		return nil
	}
	list := body[at[1]-1:]
	tail := list[max(0, len(list)-100):]
	if end := endOfList.FindSubmatchIndex(tail); end != nil {
		list = list[:len(list)-len(tail)+end[3]]
	}
	return list
}

var (
	errNoName   = errors.New("the record has no event_name")
	errNoStatus = errors.New("the record has no status")
)

// record reads an event: its data beside its name, or, where a webhook is set
// to one event a post, both in one object.
func record(v espkit.Value) (event.Event, error) {
	o := v.Object()
	e := event.Event{ESPType: o.Get("event_name").String()}
	if e.ESPType == "" {
		return e, errNoName
	}
	data := o
	if d := o.Get("event_data"); d.IsObject() {
		data = d.Object()
	}
	info := data.Get("delivery_info").Object()
	outcome := info.Get("delivery_status").String()
	if e.ESPType == "transactional_email_status" {
		if e.ESPType = data.Get("status").String(); e.ESPType == "" {
			return e, errNoStatus
		}
		if e.ESPType == "soft_bounced" && outcome == willRetry {
			e.ESPType += "." + willRetry
		}
	}
	e.Record, e.Type = bytes.Clone(v), table.Of(e.ESPType)
	e.OccurredAt = espkit.TimeUTC(espkit.First(data.Get("event_time").String(), data.Get("block_time").String()), time.DateTime)
	e.Recipient = espkit.Address(data.Get("email").String())
	e.MessageID = data.Get("job_id").String()
	e.Metadata = data.Get("metadata").Map()
	e.DedicatedIP = info.Get("sender_ip").String()
	e.Diagnostic = espkit.First(info.Get("destination_response").String(), data.Get("comment").String())
	switch e.Type {
	case event.Bounced:
		e.BounceType = event.Hard
		if e.ESPType == "soft_bounced" {
			e.BounceType = event.Soft
		}
		e.Category = categories[outcome]
	case event.Opened, event.Clicked, event.Unsubscribed, event.Subscribed:
		e.IP, e.UserAgent = info.Get("ip").String(), info.Get("user_agent").String()
		e.URL = data.Get("url").String()
	}
	espkit.Finish(&e)
	return e, nil
}

// Verify implements esp.Verifier: auth is the hexadecimal MD5 of the body as
// received, with the API key in the place of auth's value.
//
// The key stands near the beginning of what is hashed, and MD5 can be continued
// by whoever knows a hash and the length. The padding that would have to
// follow the first body is no JSON, so a continued body is refused.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	doc, ok := espkit.Document(req.Body)
	if !ok {
		return espkit.Forged("the body is not JSON")
	}
	posted := doc.Object().Get("auth")
	if posted.String() == "" {
		return esp.ErrUnsigned
	}
	key := v.Secrets["api_key"]
	if key == "" || !hmac.Equal([]byte(strings.ToLower(posted.String())), []byte(sign(req.Body, posted, key))) {
		return espkit.Forged("auth does not match the body; is the API key that of the account or project the webhook belongs to?")
	}
	return nil
}

// sign replaces the value where it first stands; a hash does not come twice.
func sign(body []byte, auth espkit.Value, key string) string {
	sum := md5.Sum(bytes.Replace(body, auth, []byte(`"`+key+`"`), 1))
	return hex.EncodeToString(sum[:])
}

var sampleWords = map[event.Type]string{
	event.Sent: "sent", event.Delivered: "delivered", event.Deferred: "soft_bounced", event.Bounced: "hard_bounced", event.Opened: "opened",
	event.Clicked: "clicked", event.Unsubscribed: "unsubscribed", event.Subscribed: "subscribed", event.Complained: "spam",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("unisendergo has no %s event", ev.Type)
	}
	info := map[string]any{}
	switch ev.Type {
	case event.Delivered:
		info["delivery_status"], info["destination_response"] = "ok_delivered", espkit.First(ev.Diagnostic, "250 2.0.0 OK")
	case event.Deferred:
		info["delivery_status"], info["destination_response"] = willRetry, ev.Diagnostic
	case event.Bounced:
		info["delivery_status"], info["destination_response"] = "err_user_unknown", ev.Diagnostic
		if ev.BounceType == event.Soft {
			word, info["delivery_status"] = "soft_bounced", "err_delivery_failed"
		}
	case event.Opened, event.Clicked, event.Unsubscribed, event.Subscribed:
		info["user_agent"], info["ip"] = ev.UserAgent, ev.IP
	}
	data := map[string]any{
		"job_id": ev.MessageID, "metadata": ev.Metadata, "email": ev.Recipient, "status": word,
		"event_time": espkit.SampleTime(ev, now).Format(time.DateTime), "delivery_info": info,
	}
	if ev.Type == event.Clicked {
		data["url"] = ev.URL
	}
	const place = "00000000000000000000000000000000"
	body, err := json.Marshal(map[string]any{"auth": place, "events_by_user": []any{map[string]any{
		"user_id": 111111, "project_id": "999999", "project_name": "Shop",
		"events": []any{map[string]any{"event_name": "transactional_email_status", "event_data": data}},
	}}})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	if key := s["api_key"]; key != "" {
		auth := sign(body, espkit.Value(`"`+place+`"`), key)
		body = bytes.Replace(body, []byte(place), []byte(auth), 1)
	}
	return espkit.NewRequest(url, "application/json", body, now)
}
