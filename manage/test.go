package manage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"aftersend/event"
	"aftersend/id"
	"aftersend/outbound"
	"aftersend/store"
	"aftersend/webhook"
)

// Sender calls endpoints; *outbound.Client is one.
type Sender interface {
	CheckURL(u *url.URL) error
	Do(ctx context.Context, r outbound.Request) outbound.Answer
}

// TestResult is what came of a test delivery, for a person to look at.
// Credentials in the request are masked.
type TestResult struct {
	OK          bool
	StatusCode  int // 0 = no answer
	Explanation string
	URL         string // without query
	Header      http.Header
	Body        []byte
	Answer      outbound.Answer
}

// TestWebhook posts one sample event to a webhook that exists, changed by what
// is given in in.
func (m *Manager) TestWebhook(ctx context.Context, sc Scope, hook id.ID, in WebhookInput, t event.Type) (TestResult, error) {
	row, err := m.Store.Webhook(ctx, sc.Account, hook)
	if err != nil {
		return TestResult{}, err
	}
	subscription, err := m.Store.Subscription(ctx, hook)
	if err != nil {
		return TestResult{}, err
	}
	in.apply(&row)
	return m.test(ctx, row, subscription.Keys(m.Now()), t)
}

// TestUnsaved posts one sample event to a webhook that is not saved yet.
func (m *Manager) TestUnsaved(ctx context.Context, sc Scope, in WebhookInput, t event.Type) (TestResult, error) {
	key, err := webhook.NewKey(rand.Reader)
	if err != nil {
		return TestResult{}, fmt.Errorf("make signing key: %w", err)
	}
	return m.test(ctx, m.newWebhook(sc.Account, in), [][]byte{key}, t)
}

// test sends through the safe client and no workflow: nothing is retried and
// nothing recorded.
func (m *Manager) test(ctx context.Context, row store.WebhookRow, keys [][]byte, t event.Type) (TestResult, error) {
	if err := m.normalize(&row, false); err != nil {
		return TestResult{}, err
	}
	if t == "" {
		t = event.Bounced
		if len(row.Settings.Events) > 0 {
			t = row.Settings.Events[0]
		}
	}
	if !t.Known() {
		return TestResult{}, invalid("event", "want one of the event types")
	}
	now := m.Now().UTC().Truncate(time.Millisecond)
	sample := Sample(t, now)
	data, err := json.Marshal(sample)
	if err != nil {
		return TestResult{}, fmt.Errorf("encode sample event: %w", err)
	}
	sampleID := id.New()
	post, err := webhook.Encode(row.Settings.Dialect, row.Settings.Format, []webhook.Item{{ID: sampleID, Data: data}})
	if err != nil {
		return TestResult{}, fmt.Errorf("encode sample event: %w", err)
	}
	if len(post.Body) == 0 {
		return TestResult{}, invalid("event", "the dialect has no words for this event type")
	}
	req, err := webhook.NewRequest(row.Settings, row.Secrets, post, id.Batch.Format(sampleID), keys, now)
	if err != nil {
		return TestResult{}, err
	}
	timeout := time.Duration(row.Settings.Timeout) * time.Second
	answer := m.Sender.Do(ctx, outbound.Request{URL: req.URL, Header: req.Header, Body: req.Body, Timeout: timeout})
	if answer.Stale { // a kept connection had broken, which says nothing about the endpoint
		answer = m.Sender.Do(ctx, outbound.Request{URL: req.URL, Header: req.Header, Body: req.Body, Timeout: timeout})
	}
	verdict := webhook.Judge(webhook.Answer{
		Status: answer.Status, Class: string(answer.Class), Detail: answer.Detail,
		RetryAfter: answer.Header.Get("Retry-After"), Location: answer.Header.Get("Location"),
	}, row.Settings.Success, row.Settings.Retry.Interval(), m.Now())
	return TestResult{
		OK: verdict.Delivered, StatusCode: answer.Status, Explanation: verdict.Explanation,
		URL: row.Settings.URL, Header: maskCredentials(req.Header, row.Secrets.Auth), Body: req.Body, Answer: answer,
	}, nil
}

func maskCredentials(h http.Header, a webhook.Auth) http.Header {
	shown := h.Clone()
	for name := range shown {
		if strings.EqualFold(name, "Authorization") {
			shown.Set(name, filtered)
		}
		for custom := range a.Headers {
			if strings.EqualFold(name, custom) {
				shown.Set(name, filtered)
			}
		}
	}
	return shown
}

// Text makes text of what an endpoint answered, at most 4 KiB of it.
func Text(body []byte) string {
	const most = 4 << 10
	if len(body) > most {
		body = body[:most]
		for len(body) > 0 && !utf8.RuneStart(body[len(body)-1]) {
			body = body[:len(body)-1]
		}
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

// Sample is an event of a type as subscribers get it, made up, with addresses
// that exist nowhere (RFC 2606).
func Sample(t event.Type, now time.Time) event.Event {
	e := event.Event{
		ID: id.Event.Format(id.New()), Type: t, OccurredAt: now.Add(-2 * time.Second), ReceivedAt: now,
		ESP: "mandrill", Source: id.Source.Format(id.New()),
		Recipient: "ann@example.com", MessageID: "sample-7761630", RFCMessageID: "<sample-7761630@example.org>",
		Subject: "Your invoice", Tags: []string{"sample"}, Stream: "transactional", SendingDomain: "example.org",
		Message: &event.Snapshot{ID: id.Message.Format(id.New()), Status: t},
	}
	switch t {
	case event.Bounced:
		e.BounceType, e.Category, e.Asynchronous = event.Hard, event.InvalidRecipient, event.Bool(false)
		e.SMTPCode, e.EnhancedStatus, e.Diagnostic = 550, "5.1.1", "550 5.1.1 no such user here"
	case event.Deferred:
		e.BounceType, e.Category = event.Soft, event.MailboxFull
		e.SMTPCode, e.EnhancedStatus, e.Diagnostic = 452, "4.2.2", "452 4.2.2 mailbox full"
		e.Message.Deferrals, e.Message.FirstDeferredAt = 1, e.OccurredAt
	case event.Rejected:
		e.Category = event.Suppressed
	case event.Opened, event.Clicked:
		e.UserAgent, e.IP = "Mozilla/5.0 (sample)", "192.0.2.7"
		e.Message.Status = event.Delivered
		if t == event.Clicked {
			e.URL = "https://example.org/invoice"
		}
	case event.Complained, event.Unsubscribed:
		e.Message.Status = event.Delivered
	}
	return e
}
