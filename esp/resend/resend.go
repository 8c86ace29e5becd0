// Package resend understands the webhooks of Resend. README.md has sources and
// quirks.
package resend

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// Adapter is the esp.Adapter for Resend.
type Adapter struct{}

// A bounce that was never tried has its subtype behind a dot.
var types = []esp.TypeMapping{
	{Theirs: "email.scheduled", Ours: event.Queued},
	{Theirs: "email.sent", Ours: event.Sent},
	{Theirs: "email.delivered", Ours: event.Delivered},
	{Theirs: "email.delivery_delayed", Ours: event.Deferred},
	{Theirs: "email.bounced", Ours: event.Bounced},
	{Theirs: "email.bounced.suppressed", Ours: event.Rejected, Note: "subtype Suppressed or OnAccountSuppressionList: not tried"},
	{Theirs: "email.suppressed", Ours: event.Rejected},
	{Theirs: "email.failed", Ours: event.Failed},
	{Theirs: "email.complained", Ours: event.Complained},
	{Theirs: "email.opened", Ours: event.Opened},
	{Theirs: "email.clicked", Ours: event.Clicked},
}

var table = espkit.NewTable(types)

// tolerance is Svix's default for the age of a signature.
const tolerance = 5 * time.Minute

// Describe implements esp.Adapter.
func (Adapter) Describe() esp.Description {
	return esp.Description{
		Name:    "resend",
		Title:   "Resend",
		DocsURL: "https://resend.com/docs/dashboard/webhooks/introduction",
		Protection: "Every post is signed by Svix (HMAC-SHA256 over id, time and body) with the webhook's signing secret, and is refused " +
			"when it is more than five minutes old.",
		Fields: []esp.Field{{
			Name: "secret", Label: "Signing secret", Secret: true, Required: true,
			Help: "Resend shows it on the webhook's page; it begins with whsec_.",
		}},
		SetUp: []esp.Step{
			{Text: "In Resend open Webhooks and choose Add Webhook."},
			{Text: "Enter {url} and select all e-mail events."},
			{Text: "Add the webhook and copy its signing secret into this source."},
		},
		Retry:       "Resend posts again after 5 seconds, 5 and 30 minutes, 2, 5, 10 and 10 hours.",
		RetryStatus: http.StatusServiceUnavailable,
		Types:       types,
	}
}

// Parse implements esp.Adapter.
func (Adapter) Parse(req esp.Request) (esp.Result, error) {
	if req.Method == http.MethodHead {
		return esp.Result{}, nil
	}
	v, ok := espkit.Document(req.Body)
	if !ok {
		return esp.Result{}, espkit.Unreadable("the body is not JSON")
	}
	b := espkit.Batch{Several: func(v espkit.Value) ([]event.Event, error) {
		return records(v, strings.ToValidUTF8(req.Header.Get("Svix-Id"), "\uFFFD"))
	}}
	b.Add(v)
	return b.Outcome()
}

var errNoType = errors.New("the record has no type")

// records makes one event for each recipient.
func records(v espkit.Value, postID string) ([]event.Event, error) {
	o := v.Object()
	data := o.Get("data").Object()
	e := event.Event{ESPType: o.Get("type").String(), EventID: postID}
	if e.ESPType == "" {
		return nil, errNoType
	}
	e.Record = bytes.Clone(v)
	bounce := data.Get("bounce").Object()
	if e.ESPType == "email.bounced" && suppressed(bounce.Get("subType").String()) {
		e.ESPType += ".suppressed"
	}
	e.Type = table.Of(e.ESPType)
	e.OccurredAt = espkit.Time(o.Get("created_at").String())
	e.MessageID = data.Get("email_id").String()
	e.Subject = data.Get("subject").String()
	e.SendingDomain = espkit.Domain(espkit.Address(data.Get("from").String()))
	e.BroadcastName = data.Get("broadcast_id").String()
	e.CampaignID = data.Get("broadcast_id").String()
	// Resend's tags are names with values.
	e.Metadata = tags(data.Get("tags"))
	e.RFCMessageID = header(data.Get("headers"), "Message-ID")

	switch e.Type {
	case event.Bounced:
		e.BounceType = bounceTypes[bounce.Get("type").String()]
		if e.BounceType == "" {
			e.BounceType = event.Undetermined
		}
		e.Diagnostic = espkit.First(espkit.First(bounce.Get("diagnosticCode").Strings()...), bounce.Get("message").String())
	case event.Rejected:
		e.Category = event.Suppressed
		e.Diagnostic = espkit.First(espkit.First(bounce.Get("diagnosticCode").Strings()...), bounce.Get("message").String(),
			data.Get("suppressed").Object().Get("message").String())
	case event.Failed:
		e.Diagnostic = data.Get("failed").Object().Get("reason").String()
	case event.Opened:
		person(&e, data.Get("open").Object())
	case event.Clicked:
		click := data.Get("click").Object()
		person(&e, click)
		e.URL = click.Get("link").String()
		if at := espkit.Time(click.Get("timestamp").String()); !at.IsZero() {
			e.OccurredAt = at
		}
	}
	espkit.Finish(&e)
	recipients := data.Get("to").Strings()
	if len(recipients) == 0 {
		recipients = data.Get("email").Strings() // contact.* events
	}
	return espkit.ForEach(e, recipients), nil
}

func suppressed(subType string) bool {
	return subType == "Suppressed" || subType == "OnAccountSuppressionList"
}

// bounceTypes are those of Amazon SES, which Resend sends through. A bounce
// without any word about it is final.
var bounceTypes = map[string]event.BounceType{
	"Permanent": event.Hard, "Transient": event.Soft, "Undetermined": event.Undetermined, "": event.Hard,
}

func person(e *event.Event, o espkit.Object) {
	e.IP = o.Get("ipAddress").String()
	e.UserAgent = o.Get("userAgent").String()
}

// tags come as an object, or as a list of names with values.
func tags(v espkit.Value) map[string]any {
	if m := v.Map(); m != nil {
		return m
	}
	var m map[string]any
	for _, t := range v.Elements() {
		if name := t.Object().Get("name").String(); name != "" {
			if m == nil {
				m = map[string]any{}
			}
			m[name] = t.Object().Get("value").String()
		}
	}
	return m
}

func header(v espkit.Value, name string) string {
	for _, h := range v.Elements() {
		if o := h.Object(); strings.EqualFold(o.Get("name").String(), name) {
			return o.Get("value").String()
		}
	}
	return ""
}

// Verify implements esp.Verifier.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	postID, at, posted := req.Header.Get("Svix-Id"), req.Header.Get("Svix-Timestamp"), req.Header.Get("Svix-Signature")
	if postID == "" && at == "" && posted == "" {
		return esp.ErrUnsigned
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return espkit.Forged("svix-timestamp is not a number")
	}
	if age := v.Now.Sub(time.Unix(seconds, 0)); !v.Now.IsZero() && age.Abs() > tolerance {
		return espkit.Forged("svix-timestamp is more than five minutes off; is this machine's clock right?")
	}
	key, err := signingKey(v.Secrets["secret"])
	if err != nil {
		return espkit.Forged("the signing secret of this source is not one of Resend's; it begins with whsec_")
	}
	want := sign(key, postID, at, req.Body)
	for signature := range strings.FieldsSeq(posted) {
		version, encoded, _ := strings.Cut(signature, ",")
		got, err := base64.StdEncoding.DecodeString(encoded)
		if version == "v1" && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return espkit.Forged("svix-signature does not match; is the signing secret this webhook's?")
}

var errNoKey = errors.New("no signing secret")

func signingKey(secret string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err == nil && len(key) == 0 {
		err = errNoKey
	}
	return key, err
}

func sign(key []byte, postID, at string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(postID + "." + at + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

var sampleWords = map[event.Type]string{
	event.Queued: "email.scheduled", event.Sent: "email.sent", event.Delivered: "email.delivered", event.Deferred: "email.delivery_delayed",
	event.Bounced: "email.bounced", event.Rejected: "email.suppressed", event.Failed: "email.failed", event.Complained: "email.complained",
	event.Opened: "email.opened", event.Clicked: "email.clicked",
}

// Sample implements esp.Sampler.
func (Adapter) Sample(ev event.Event, url string, s esp.Secrets, now time.Time) (esp.Request, error) {
	word, ok := sampleWords[ev.Type]
	if !ok {
		return esp.Request{}, fmt.Errorf("resend has no %s event", ev.Type)
	}
	at := espkit.SampleTime(ev, now).Format("2006-01-02T15:04:05.000Z")
	data := map[string]any{
		"created_at": at, "email_id": ev.MessageID, "from": "Shop <shop@" + espkit.First(ev.SendingDomain, "mail.example.com") + ">",
		"to": []string{ev.Recipient}, "subject": ev.Subject, "tags": ev.Metadata,
	}
	switch ev.Type {
	case event.Bounced:
		kind := "Permanent"
		if ev.BounceType == event.Soft {
			kind = "Transient"
		}
		data["bounce"] = map[string]any{"type": kind, "subType": "General", "message": "The recipient's server refused the message.", "diagnosticCode": []string{"smtp; " + ev.Diagnostic}}
	case event.Rejected:
		data["suppressed"] = map[string]any{"type": "OnAccountSuppressionList", "message": "The address is on the suppression list."}
	case event.Failed:
		data["failed"] = map[string]any{"reason": "reached_daily_quota"}
	case event.Opened:
		data["open"] = map[string]any{"ipAddress": ev.IP, "timestamp": at, "userAgent": ev.UserAgent}
	case event.Clicked:
		data["click"] = map[string]any{"ipAddress": ev.IP, "link": ev.URL, "timestamp": at, "userAgent": ev.UserAgent}
	}
	body, err := json.Marshal(map[string]any{"type": word, "created_at": at, "data": data})
	if err != nil {
		return esp.Request{}, fmt.Errorf("encode a sample: %w", err)
	}
	req, err := espkit.NewRequest(url, "application/json", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	postID, posted := espkit.First(ev.EventID, "msg_sample"), strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Svix-Id", postID)
	req.Header.Set("Svix-Timestamp", posted)
	if key, err := signingKey(s["secret"]); err == nil {
		req.Header.Set("Svix-Signature", "v1,"+base64.StdEncoding.EncodeToString(sign(key, postID, posted, body)))
	}
	return req, nil
}
