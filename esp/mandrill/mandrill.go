// Package mandrill understands the webhooks of Mandrill, which Mailchimp sells
// as Mailchimp Transactional. README.md has sources and quirks.
package mandrill

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

const (
	parameter = "mandrill_events"
	// probeKey signs the test post that is sent while a webhook is being
	// created, before it has a key of its own. Everybody knows it.
	probeKey = "test-webhook"
)

// Adapter is the esp.Adapter for Mandrill.
type Adapter struct{}

var types = []esp.TypeMapping{
	{Theirs: "send", Ours: event.Sent},
	{Theirs: "deferral", Ours: event.Deferred},
	{Theirs: "delivered", Ours: event.Delivered},
	{Theirs: "hard_bounce", Ours: event.Bounced},
	{Theirs: "soft_bounce", Ours: event.Bounced, Note: "Mandrill has given up; while it retries it says deferral"},
	{Theirs: "reject", Ours: event.Rejected},
	{Theirs: "spam", Ours: event.Complained},
	{Theirs: "unsub", Ours: event.Unsubscribed},
	{Theirs: "open", Ours: event.Opened},
	{Theirs: "click", Ours: event.Clicked},
	{Theirs: "inbound", Ours: event.Unknown, Note: "a received mail, not the fate of a sent one"},
	{Theirs: "blacklist.add", Ours: event.Unknown, Note: "sync events tell of list entries, not of messages"},
	{Theirs: "blacklist.change", Ours: event.Unknown},
	{Theirs: "blacklist.remove", Ours: event.Unknown},
	{Theirs: "whitelist.add", Ours: event.Unknown},
	{Theirs: "whitelist.change", Ours: event.Unknown},
	{Theirs: "whitelist.remove", Ours: event.Unknown},
}

var table = espkit.NewTable(types)

// categories are Mandrill's bounce descriptions that say more than the codes.
var categories = map[string]event.Category{
	"bad_mailbox":    event.InvalidRecipient,
	"invalid_domain": event.InvalidDomain,
	"mailbox_full":   event.MailboxFull,
}

// toolCategories are the numbers of bgtools_code, the bounce classes that
// SparkPost documents under the same numbers. The general ones (10, 20, 40,
// 50, 70) are left to the diagnostic, which says more.
var toolCategories = map[string]event.Category{
	"21": event.DNSFailure,
	"22": event.MailboxFull,
	"23": event.MessageTooLarge,
	"51": event.Blocklisted,
	"52": event.SpamContent,
	"53": event.ContentRejected,
	"54": event.RelayDenied,
}

// suppressing are the reject reasons that stand for an entry on Mandrill's
// rejection list; the others concern the sender or a rule.
var suppressing = []string{"hard-bounce", "soft-bounce", "spam", "unsub", "custom", "manual edit"}

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "mandrill",
		Title:   "Mandrill (Mailchimp Transactional)",
		Aliases: []string{"mailchimp", "mailchimp-transactional"},
		DocsURL: "https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/",
		Protection: "Every post is signed (HMAC-SHA1 over the URL and the form) with the webhook's key. " +
			"The URL must be entered at Mandrill exactly as shown here.",
		Fields: []esp.Field{{
			Name: "key", Label: "Webhook key", Secret: true, Required: true,
			Help: "Mandrill shows it under Settings, Webhooks, in the column Key; each webhook has its own.",
		}},
		SetUp: []esp.Step{
			{Text: "In Mandrill open Settings, Webhooks, and choose Add a Webhook."},
			{Text: "Tick the message events you want; tick all of them if in doubt."},
			{Text: "Enter {url} as Post To URL and create the webhook. Mandrill checks the address at once; no key is needed for that."},
			{Text: "Copy the webhook's key into this source."},
		},
		Retry:       "Mandrill posts a failed batch again; when and how often is not documented.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Answer implements esp.Answerer: Mandrill tries a new URL with HEAD.
func (Adapter) Answer(req esp.Request, _ esp.Secrets) (esp.Reply, bool) {
	return esp.Reply{Status: http.StatusOK}, req.Method == http.MethodHead || req.Method == http.MethodGet
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	form := espkit.ParseForm(req.Body)
	if !form.Has(parameter) {
		return esp.Result{}, espkit.Unreadable("the parameter " + parameter + " is missing")
	}
	b := espkit.Batch{Record: record}
	// Records are cut from this copy, not from the request's body.
	if !b.AddArray([]byte(form.Get(parameter)), "") {
		return esp.Result{}, espkit.Unreadable(parameter + " is not a JSON array")
	}
	return b.Outcome()
}

var (
	errNoObject = errors.New("the record is not an object")
	errNoType   = errors.New("the record is neither a message event nor a sync event")
)

func record(v espkit.Value) (event.Event, error) {
	if !v.IsObject() {
		return event.Event{}, errNoObject
	}
	outer := v.Object()
	e := event.Event{Record: v, OccurredAt: espkit.Time(outer.Get("ts").String())}
	if e.ESPType = outer.Get("event").String(); e.ESPType != "" {
		message(&e, outer)
	} else if !sync(&e, outer) {
		return e, errNoType
	}
	espkit.Finish(&e)
	return e, nil
}

func message(e *event.Event, outer espkit.Object) {
	msg := outer.Get("msg").Object()
	e.Type = table.Of(e.ESPType)
	e.Recipient = espkit.Address(msg.Get("email").String())
	// The outer _id repeats the message's; an event has no id of its own.
	e.MessageID = espkit.First(msg.Get("_id").String(), outer.Get("_id").String())
	e.Subject = msg.Get("subject").String()
	e.Tags = msg.Get("tags").Strings()
	e.Metadata = msg.Get("metadata").Map()
	e.SendingDomain = espkit.Domain(msg.Get("sender").String())

	attempt := lastAttempt(msg)
	description := msg.Get("bounce_description").String()
	e.Diagnostic = espkit.First(msg.Get("diag").String(), attempt.Get("diag").String(), description)
	e.DedicatedIP = attempt.Get("source_ip").String()

	switch e.Type {
	case event.Bounced:
		e.BounceType = event.Hard
		if e.ESPType == "soft_bounce" {
			e.BounceType = event.Soft
		}
		e.Category = bounceCategory(msg, description)
	case event.Deferred:
		e.Category = bounceCategory(msg, description)
	case event.Rejected:
		if slices.Contains(suppressing, msg.Get("reject").Object().Get("reason").String()) {
			e.Category = event.Suppressed
		}
	case event.Opened, event.Clicked, event.Unsubscribed:
		// Elsewhere an address would not be a person's.
		e.IP = outer.Get("ip").String()
		e.UserAgent = outer.Get("user_agent").String()
		e.URL = outer.Get("url").String()
	}
}

// lastAttempt is the newest of the SMTP attempts listed in a message.
func lastAttempt(msg espkit.Object) espkit.Object {
	attempts := msg.Get("smtp_events").Elements()
	if len(attempts) == 0 {
		return nil
	}
	return attempts[len(attempts)-1].Object()
}

func bounceCategory(msg espkit.Object, description string) event.Category {
	if c, ok := categories[description]; ok {
		return c
	}
	return toolCategories[msg.Get("bgtools_code").String()]
}

// sync reads a change of the rejection list or the allow list; false when the
// record is none.
func sync(e *event.Event, outer espkit.Object) bool {
	entry := outer.Get("reject").Object()
	if entry == nil {
		entry = outer.Get("entry").Object()
	}
	e.ESPType = outer.Get("type").String()
	if entry == nil || e.ESPType == "" {
		return false
	}
	if action := outer.Get("action").String(); action != "" {
		e.ESPType += "." + action
	}
	e.Type = table.Of(e.ESPType)
	e.Recipient = espkit.Address(entry.Get("email").String())
	e.Diagnostic = espkit.First(entry.Get("reason").String(), entry.Get("detail").String())
	return true
}

// Verify implements esp.Verifier.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	posted := req.Header.Get("X-Mandrill-Signature")
	if posted == "" {
		return esp.ErrUnsigned
	}
	got, err := base64.StdEncoding.DecodeString(posted)
	if err != nil {
		return espkit.Forged("X-Mandrill-Signature is not base64")
	}
	form := espkit.ParseForm(req.Body)
	if key := v.Secrets["key"]; key != "" && hmac.Equal(got, sign(req.URL, form, key)) {
		return nil
	}
	// The probe's key is public, so it may vouch for an empty list only.
	empty, ok := espkit.Document([]byte(form.Get(parameter)))
	if ok && empty[0] == '[' && len(empty.Elements()) == 0 && hmac.Equal(got, sign(req.URL, form, probeKey)) {
		return nil
	}
	return espkit.Forged("X-Mandrill-Signature does not match; is the URL entered at Mandrill the one shown here, and the key this webhook's?")
}

// sign is HMAC-SHA1 over the URL as entered and every parameter's name and
// value, sorted by name, with nothing between them.
func sign(url string, form espkit.Form, key string) []byte {
	sorted := slices.Clone(form)
	slices.SortStableFunc(sorted, func(a, b espkit.Field) int { return strings.Compare(a.Name, b.Name) })
	mac := hmac.New(sha1.New, []byte(key))
	mac.Write([]byte(url))
	for _, f := range sorted {
		mac.Write([]byte(f.Name))
		mac.Write([]byte(f.Value))
	}
	return mac.Sum(nil)
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, callbackURL string, s esp.Secrets, now time.Time) (esp.Request, error) {
	word, state := sampleWord(ev)
	if word == "" {
		return esp.Request{}, fmt.Errorf("mandrill has no %s event", ev.Type)
	}
	at := espkit.SampleTime(ev, now).Unix()
	tags, metadata := ev.Tags, ev.Metadata
	if tags == nil {
		tags = []string{}
	}
	if metadata == nil {
		metadata = map[string]any{}
	}
	msg := map[string]any{
		"_id": ev.MessageID, "_version": "sampleaaaaaaaaaaaaaaaa", "ts": at - 60, "email": ev.Recipient, "sender": "shop@" + espkit.First(ev.SendingDomain, "mail.example.com"),
		"subject": ev.Subject, "tags": tags, "metadata": metadata, "state": state, "opens": []any{}, "clicks": []any{},
		"subaccount": nil, "template": nil, "diag": nil, "bounce_description": nil, "smtp_events": []any{},
	}
	posted := map[string]any{"event": word, "_id": ev.MessageID, "ts": at, "msg": msg}
	switch ev.Type {
	case event.Bounced:
		msg["diag"], msg["bounce_description"] = ev.Diagnostic, "general"
	case event.Deferred:
		msg["smtp_events"] = []any{map[string]any{"ts": at, "type": "deferred", "diag": ev.Diagnostic, "source_ip": "198.51.100.7", "destination_ip": "203.0.113.25", "size": 0}}
	case event.Rejected:
		msg["reject"] = map[string]any{"reason": "hard-bounce"}
	case event.Opened, event.Clicked:
		posted["ip"], posted["user_agent"] = ev.IP, ev.UserAgent
		if ev.Type == event.Clicked {
			posted["url"] = ev.URL
		}
	}
	list, err := json.Marshal([]any{posted})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	body := []byte(parameter + "=" + url.QueryEscape(string(list)))
	req, err := espkit.NewRequest(callbackURL, "application/x-www-form-urlencoded", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	req.Header.Set("User-Agent", "Mandrill-Webhook/1.0")
	if key := s["key"]; key != "" {
		req.Header.Set("X-Mandrill-Signature", base64.StdEncoding.EncodeToString(sign(callbackURL, espkit.ParseForm(body), key)))
	}
	return req, nil
}

func sampleWord(ev event.Event) (word, state string) {
	switch ev.Type {
	case event.Sent:
		return "send", "sent"
	case event.Delivered:
		return "delivered", "sent"
	case event.Deferred:
		return "deferral", "deferred"
	case event.Bounced:
		if ev.BounceType == event.Soft {
			return "soft_bounce", "soft-bounced"
		}
		return "hard_bounce", "bounced"
	case event.Rejected:
		return "reject", "rejected"
	case event.Complained:
		return "spam", "spam"
	case event.Unsubscribed:
		return "unsub", "unsub"
	case event.Opened:
		return "open", "sent"
	case event.Clicked:
		return "click", "sent"
	}
	return "", ""
}
