package activities_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"github.com/wneessen/go-mail"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"aftersend/activities"
	"aftersend/id"
	"aftersend/notify"
	"aftersend/outbound"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
	"aftersend/webhook"
)

// branch is one webhook, the endpoint it posts to, and the activities that
// deliver to it, on a real database.
type branch struct {
	*activities.Delivery
	t       testing.TB
	db      *sqlx.DB
	env     *testsuite.TestActivityEnvironment
	account id.ID
	webhook id.ID
	key     []byte
	number  int
	routed  []string // event ids

	mu       sync.Mutex
	received []request
	mails    []notify.Mail
	mailing  error // what the mail server says
}

type request struct {
	header http.Header
	query  string
	body   string
}

func newBranch(t testing.TB, answer http.HandlerFunc, settings func(*webhook.Settings)) *branch {
	t.Helper()
	b := &branch{t: t, db: storetest.New(t), webhook: id.New(), key: []byte("0123456789abcdef0123456789abcdef")}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.received = append(b.received, request{r.Header, r.URL.RawQuery, string(body)})
		b.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(func() { endpoint.CloseClientConnections(); endpoint.Close() })
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	s := store.New(b.db, box)
	b.account, _, err = s.EnsureAccount(t.Context(), "test")
	require.NoError(t, err)
	client := outbound.New(outbound.Options{AllowedPrefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	t.Cleanup(client.Close)
	defaults := webhook.Defaults{Timeout: 10 * time.Second, RetryInterval: 5 * time.Minute, Retries: 40, MaxEvents: 500}
	given := defaults.Settings()
	given.URL, given.Notify = endpoint.URL+"/hook", []string{"owner@example.com"}
	if settings != nil {
		settings(&given)
	}
	normal, secrets, err := webhook.Normalize(given, webhook.Secrets{}, defaults, client.CheckURL)
	require.NoError(t, err)
	require.NoError(t, s.CreateWebhook(t.Context(), store.WebhookRow{
		ID: b.webhook, AccountID: b.account, Name: "crm", Status: "active", Area: "email_sending", Settings: normal, Secrets: secrets,
	}, b.key, store.Change{By: store.Actor{Kind: "system", Name: "test"}, Action: "webhook.created"}))
	b.Delivery = &activities.Delivery{
		Store: s, Client: client, Mailer: b, Hub: &activities.Hub{}, PublicURL: "https://hub.example.com", Log: slog.New(slog.DiscardHandler),
		Limits: activities.DeliveryLimits{DrainFor: 10 * time.Second, LingerFor: 50 * time.Millisecond, Poll: 10 * time.Millisecond, Spacing: 10 * time.Millisecond},
	}
	var suite testsuite.WorkflowTestSuite
	b.env = suite.NewTestActivityEnvironment()
	b.env.SetTestTimeout(time.Minute)
	b.env.RegisterActivity(b.Delivery)
	return b
}

// Send makes a branch the mailer of its own notices.
func (b *branch) Send(_ context.Context, m notify.Mail) error {
	if b.mailing != nil {
		return b.mailing
	}
	b.mails = append(b.mails, m)
	return nil
}

func (b *branch) route(events int) {
	b.t.Helper()
	b.number++
	var packed []byte
	tx := b.db.MustBegin()
	for range events {
		e := id.New()
		packed = append(packed, e[:]...)
		b.routed = append(b.routed, id.Event.Format(e))
		tx.MustExec(`
			insert into events (id, account_id, source_id, callback_id, ordinal, group_id, position, message_id, type, occurred_at, data)
			values ($1, $2, $2, $2, 0, $2, 0, $2, 'delivered', now(), $3)`, e, b.account, fmt.Appendf(nil, `{"id":%q}`, id.Event.Format(e)))
	}
	tx.MustExec(`insert into outbox (webhook_id, number, part, events, event_ids) values ($1, $2, 0, $3, $4)`, b.webhook, b.number, events, packed)
	tx.MustExec(`update webhook_progress set matched = matched + $2 where webhook_id = $1`, b.webhook, events)
	require.NoError(b.t, tx.Commit())
	b.Hub.Notify(b.webhook)
}

func (b *branch) drain() activities.DeliverResult {
	b.t.Helper()
	v, err := b.env.ExecuteActivity(b.DeliverBatches, activities.WebhookInput{Webhook: b.webhook})
	require.NoError(b.t, err)
	var done activities.DeliverResult
	require.NoError(b.t, v.Get(&done))
	b.balanced()
	return done
}

func (b *branch) retry() error {
	b.t.Helper()
	_, err := b.env.ExecuteActivity(b.DeliverBatch, activities.DeliverBatchInput{Webhook: b.webhook, Batch: b.view().Open})
	b.balanced()
	return err
}

func (b *branch) view() activities.WebhookView {
	b.t.Helper()
	v, err := b.LoadWebhook(b.t.Context(), activities.WebhookInput{Webhook: b.webhook})
	require.NoError(b.t, err)
	return v
}

func (b *branch) balanced() {
	b.t.Helper()
	sum, err := b.Store.WebhookBalance(b.t.Context(), b.webhook)
	require.NoError(b.t, err)
	require.Zero(b.t, sum.Lost())
}

func (b *branch) attempts() []store.AttemptRow {
	b.t.Helper()
	batches, err := b.Store.Batches(b.t.Context(), b.account, b.webhook, store.Page{Limit: 1})
	require.NoError(b.t, err)
	require.NotEmpty(b.t, batches)
	return batches[0].Attempts
}

// arrived are the ids of all events that were posted, in order.
func (b *branch) arrived() (ids []string) {
	b.t.Helper()
	for _, r := range b.received {
		var body struct{ Events []struct{ ID string } }
		require.NoError(b.t, json.Unmarshal([]byte(r.body), &body))
		for _, e := range body.Events {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestDeliversInOrderSigned(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(200), func(s *webhook.Settings) { s.Batch.MaxEvents = 4 })
	for _, n := range []int{1, 2, 3, 4} {
		b.route(n)
	}
	done := b.drain()
	require.Equal(t, activities.DeliverResult{Outcome: activities.OutcomeDrained, Batches: 3, Events: 10}, done)
	require.Equal(t, b.routed, b.arrived())
	verifier, err := standardwebhooks.NewWebhook(webhook.Secret(b.key))
	require.NoError(t, err)
	for _, r := range b.received {
		require.NoError(t, verifier.Verify([]byte(r.body), r.header))
		require.True(t, strings.HasPrefix(r.header.Get("webhook-id"), "bat_"))
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
	}
	rows := b.attempts()
	require.Len(t, rows, 1)
	require.Equal(t, "delivered", rows[0].Outcome)
	require.Positive(t, rows[0].Bytes)
	v := b.view()
	require.Zero(t, v.Due)
	require.Equal(t, id.Nil, v.Open)
}

func TestLingersForWhatComes(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(200), nil)
	b.Limits.LingerFor = 2 * time.Second
	b.Limits.Poll = b.Limits.LingerFor // only the hub tells before
	go func() {
		time.Sleep(100 * time.Millisecond)
		b.route(2)
		time.Sleep(100 * time.Millisecond)
		b.route(3)
	}()
	done := b.drain()
	require.Equal(t, 5, done.Events)
	require.Equal(t, 2, done.Batches)
}

func TestSeesWhatOtherProcessesRoute(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(200), nil)
	b.Limits.LingerFor = 500 * time.Millisecond
	b.Hub = &activities.Hub{} // nobody tells this one
	go func() { time.Sleep(50 * time.Millisecond); b.route(1) }()
	require.Equal(t, 1, b.drain().Events)
}

func TestStopsDrainingInTime(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(200), func(s *webhook.Settings) { s.Batch.MaxEvents = 1 })
	b.Limits.DrainFor = 0
	b.route(3)
	require.Equal(t, activities.OutcomeMore, b.drain().Outcome)
	require.Empty(t, b.received)
}

func TestAWebhookThatCollectsLeavesTheRest(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(200), func(s *webhook.Settings) { s.Batch = webhook.Batch{MaxEvents: 2, MaxWaitSeconds: 30} })
	require.True(t, b.view().MaxWait > 0)
	b.route(5)
	require.Equal(t, 3, b.drain().Batches)
	require.False(t, b.collecting(), "while delivering nobody needs to tell it")
	b.view()
	require.True(t, b.collecting())
}

func (b *branch) collecting() (yes bool) {
	require.NoError(b.t, b.db.Get(&yes, `select collecting from webhook_progress where webhook_id = $1`, b.webhook))
	return yes
}

func TestFailureThenTheSameBytesAgain(t *testing.T) {
	t.Parallel()
	code := 503
	b := newBranch(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = io.WriteString(w, "sorry") }, nil)
	b.route(3)
	done := b.drain()
	require.Equal(t, activities.OutcomeFailed, done.Outcome)
	require.Equal(t, "HTTP 503", done.Error)
	require.Equal(t, activities.OutcomeFailed, b.drain().Outcome, "a second run finds it in the rows")
	require.Len(t, b.received, 1, "and posts nothing")
	b.route(2)

	v := b.view()
	require.True(t, v.Failing)
	require.Zero(t, v.RetriesUsed)
	require.InDelta(t, 5*time.Minute, time.Until(v.NextAt), float64(10*time.Second))
	err := b.retry()
	application, ok := errors.AsType[*temporal.ApplicationError](err)
	require.True(t, ok)
	require.Equal(t, activities.ErrAttemptFailed, application.Type())
	require.Equal(t, "HTTP 503", application.Message())
	require.False(t, application.NonRetryable())
	require.Zero(t, application.NextRetryDelay())
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, application.Category())
	require.Equal(t, 1, b.view().RetriesUsed)

	code = 200
	require.NoError(t, b.retry())
	require.NoError(t, b.retry(), "delivered already")
	require.Len(t, b.received, 3)
	for _, r := range b.received[1:] {
		require.Equal(t, b.received[0].body, r.body)
		require.Equal(t, b.received[0].header.Get("webhook-id"), r.header.Get("webhook-id"))
	}
	require.Equal(t, 2, b.drain().Events)
	require.Equal(t, b.routed, b.arrived()[6:])
}

// An endpoint may do what it likes.
func TestWhatEndpointsDo(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 32<<20))
	_ = z.Close()
	reset := func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_ = c.Close()
	}
	for _, tc := range []struct {
		name    string
		answer  http.HandlerFunc
		outcome string
		class   string
	}{
		{"accepts", status(204), "delivered", ""},
		{"accepts with a gzip bomb", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}, "delivered", ""},
		{"accepts with broken gzip", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "?")
		}, "delivered", ""},
		{"accepts and never ends", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "delivered", ""},
		{"never answers", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "failed", "timeout"},
		{"hangs up", reset, "failed", "reset"},
		{"redirects", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://169.254.169.254/latest")
			w.WriteHeader(307)
		}, "failed", "redirect"},
		{"fails", status(500), "failed", "status"},
		{"is gone", status(410), "failed", "gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBranch(t, tc.answer, func(s *webhook.Settings) { s.Timeout = 1 })
			b.route(1)
			b.drain()
			rows := b.attempts()
			require.Len(t, rows, 1)
			require.Equal(t, tc.outcome, rows[0].Outcome)
			require.Equal(t, tc.class, rows[0].ErrorClass)
			require.NotEmpty(t, rows[0].Error)
			require.LessOrEqual(t, len(rows[0].Response), store.MaxResponse)
			require.NotNil(t, rows[0].TotalUs)
		})
	}
}

func TestWhatCannotBeMendedPausesAtOnce(t *testing.T) {
	t.Parallel()
	gone := newBranch(t, status(410), nil)
	gone.route(1)
	gone.drain()
	require.True(t, gone.view().GiveUp)

	blocked := newBranch(t, status(200), nil)
	blocked.Client = outbound.New(outbound.Options{})
	blocked.route(1)
	blocked.drain()
	v := blocked.view()
	require.True(t, v.GiveUp)
	require.Equal(t, "blocked address", v.LastError)
	require.Empty(t, blocked.received)

	later := newBranch(t, status(503), nil)
	later.route(1)
	later.drain()
	later.Client = outbound.New(outbound.Options{})
	err := later.retry()
	application, ok := errors.AsType[*temporal.ApplicationError](err)
	require.True(t, ok)
	require.Equal(t, activities.ErrBlockedAddress, application.Type())
	require.True(t, application.NonRetryable())
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	b := newBranch(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1800")
		w.WriteHeader(429)
	}, nil)
	b.route(1)
	b.drain()
	require.InDelta(t, 30*time.Minute, time.Until(b.view().NextAt), float64(10*time.Second))
	application, ok := errors.AsType[*temporal.ApplicationError](b.retry())
	require.True(t, ok)
	require.Equal(t, 30*time.Minute, application.NextRetryDelay())
}

// A kept connection that breaks is shown, tried again at once, and blamed on nobody.
func TestABrokenKeptConnectionIsNoFailure(t *testing.T) {
	t.Parallel()
	n := 0
	b := newBranch(t, func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 2 {
			c, _, _ := w.(http.Hijacker).Hijack()
			_ = c.Close()
		}
	}, nil)
	b.route(1)
	b.drain()
	b.route(1)
	require.Equal(t, activities.OutcomeDrained, b.drain().Outcome)
	rows := b.attempts()
	require.Len(t, rows, 2)
	require.Equal(t, "delivered", rows[0].Outcome)
	require.Equal(t, "reset", rows[1].ErrorClass)
	require.Len(t, b.received, 3)
	require.Equal(t, b.received[1].header.Get("webhook-id"), b.received[2].header.Get("webhook-id"))
}

func TestSettingsAreReadForEachAttempt(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(503), nil)
	b.route(1)
	b.drain()
	row, err := b.Store.Webhook(t.Context(), b.account, b.webhook)
	require.NoError(t, err)
	moved := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.received = append(b.received, request{r.Header, r.URL.RawQuery, string(body)})
	}))
	t.Cleanup(moved.Close)
	row.Settings.AuthType = webhook.AuthQuery
	row.Secrets.URL, row.Secrets.Auth = moved.URL, webhook.Auth{Type: webhook.AuthQuery, Name: "token", Token: "t0p"}
	by := store.Change{By: store.Actor{Kind: "system", Name: "test"}, Action: "webhook.updated"}
	require.NoError(t, b.Store.UpdateWebhook(t.Context(), row, by))
	require.NoError(t, b.Store.RotateSigningKey(t.Context(), b.account, b.webhook, bytes.Repeat([]byte("n"), 32), time.Hour, by))
	require.NoError(t, b.retry())
	require.Len(t, b.received, 2)
	require.Equal(t, "token=t0p", b.received[1].query)
	require.Equal(t, b.received[0].body, b.received[1].body)
	require.Len(t, strings.Fields(b.received[1].header.Get("webhook-signature")), 2)
}

func TestStopsWhenPausedOrDeleted(t *testing.T) {
	t.Parallel()
	by := store.Change{By: store.Actor{Kind: "system", Name: "test"}, Action: "webhook.paused"}
	t.Run("between batches", func(t *testing.T) {
		t.Parallel()
		var b *branch
		b = newBranch(t, func(http.ResponseWriter, *http.Request) {
			_ = b.Store.PauseWebhook(context.Background(), b.account, b.webhook, "by hand", by)
		}, func(s *webhook.Settings) { s.Batch.MaxEvents = 1 })
		b.route(3)
		done := b.drain()
		require.Equal(t, activities.OutcomeStopped, done.Outcome)
		require.Equal(t, 1, done.Events, "what was under way is brought to its end")
		require.Len(t, b.received, 1)
		require.NoError(t, b.Store.ResumeWebhook(t.Context(), b.account, b.webhook, store.BacklogDeliver, by))
	})
	t.Run("before a retry", func(t *testing.T) {
		t.Parallel()
		b := newBranch(t, status(503), nil)
		b.route(1)
		b.drain()
		open := b.view().Open
		require.NoError(t, b.Store.PauseWebhook(t.Context(), b.account, b.webhook, "by hand", by))
		_, err := b.env.ExecuteActivity(b.DeliverBatch, activities.DeliverBatchInput{Webhook: b.webhook, Batch: open})
		application, ok := errors.AsType[*temporal.ApplicationError](err)
		require.True(t, ok)
		require.Equal(t, activities.ErrStopped, application.Type())
		require.Len(t, b.received, 1)
		require.Equal(t, "paused", b.view().Status)
		require.False(t, b.view().PausedSince.IsZero())
	})
	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		b := newBranch(t, status(200), nil)
		b.route(1)
		require.NoError(t, b.Store.DeleteWebhook(t.Context(), b.account, b.webhook, by))
		require.Equal(t, activities.OutcomeStopped, b.drain().Outcome)
		require.False(t, b.view().Exists)
		none, err := b.LoadWebhook(t.Context(), activities.WebhookInput{Webhook: id.New()})
		require.NoError(t, err)
		require.False(t, none.Exists)
	})
}

func TestExhaustionPausesWithOneMail(t *testing.T) {
	t.Parallel()
	b := newBranch(t, status(503), func(s *webhook.Settings) { s.Retry.Attempts = 2 })
	b.route(2)
	b.drain()
	for range 2 {
		require.False(t, b.view().GiveUp)
		require.Error(t, b.retry())
	}
	require.True(t, b.view().GiveUp)
	application, ok := errors.AsType[*temporal.ApplicationError](b.retry())
	require.True(t, ok)
	require.Equal(t, activities.ErrStopped, application.Type())
	require.Len(t, b.received, 3, "1 + 2 attempts and no more")

	in := activities.WebhookInput{Webhook: b.webhook}
	paused, err := b.PauseWebhook(t.Context(), in)
	require.NoError(t, err)
	again, err := b.PauseWebhook(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, paused, again)
	require.Equal(t, "paused", b.view().Status)

	notice := activities.NoticeInput(paused)
	b.mailing = errors.New("the server is away")
	_, err = b.env.ExecuteActivity(b.SendMail, notice)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "away", "text from servers stays out of histories")
	b.mailing = nil
	for range 2 {
		_, err = b.env.ExecuteActivity(b.SendMail, notice)
		require.NoError(t, err)
	}
	require.Len(t, b.mails, 1)
	require.Equal(t, "owner@example.com", b.mails[0].To)
	require.Contains(t, b.mails[0].Subject, `"crm" is paused: HTTP 503`)
	require.Contains(t, b.mails[0].Text, "3 attempts failed, last: HTTP 503")
	require.Contains(t, b.mails[0].Text, "2 events")
}

func TestNoticesToSeveral(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (*branch, activities.NoticeInput) {
		b := newBranch(t, status(410), func(s *webhook.Settings) { s.Notify = []string{"a@example.com", "b@example.com"} })
		b.route(1)
		b.drain()
		paused, err := b.PauseWebhook(t.Context(), activities.WebhookInput{Webhook: b.webhook})
		require.NoError(t, err)
		return b, activities.NoticeInput(paused)
	}
	t.Run("nobody is mailed twice", func(t *testing.T) {
		t.Parallel()
		b, notice := prepare(t)
		down := true
		b.Mailer = mailerFunc(func(m notify.Mail) error {
			if m.To == "b@example.com" && down {
				return errors.New("421 shutting down")
			}
			return b.Send(context.Background(), m)
		})
		_, err := b.env.ExecuteActivity(b.SendMail, notice)
		require.Error(t, err)
		b.env.SetHeartbeatDetails(1) // as the engine hands it to the next attempt
		down = false
		_, err = b.env.ExecuteActivity(b.SendMail, notice)
		require.NoError(t, err)
		require.Len(t, b.mails, 2)
	})
	t.Run("one bad address does not keep the others from knowing", func(t *testing.T) {
		t.Parallel()
		b, notice := prepare(t)
		b.Mailer = mailerFunc(func(m notify.Mail) error {
			if m.To == "a@example.com" {
				return &mail.SendError{Reason: mail.ErrSMTPRcptTo}
			}
			return b.Send(context.Background(), m)
		})
		_, err := b.env.ExecuteActivity(b.SendMail, notice)
		require.NoError(t, err)
		require.Equal(t, "b@example.com", b.mails[0].To)
	})
	t.Run("nobody to tell", func(t *testing.T) {
		t.Parallel()
		b, notice := prepare(t)
		b.db.MustExec(`update notices set recipients = '{}'`)
		_, err := b.env.ExecuteActivity(b.SendMail, notice)
		require.Error(t, err)
		n, err := b.Store.Notice(t.Context(), notice.Notice)
		require.NoError(t, err)
		require.Nil(t, n.SentAt, "it is shown as unsent")
	})
}

type mailerFunc func(notify.Mail) error

func (f mailerFunc) Send(_ context.Context, m notify.Mail) error { return f(m) }

// What delivery costs per event: cut, load, POST, record. The goal is well
// below 40 µs of CPU in all processes.
func BenchmarkDeliverBatches(b *testing.B) {
	for _, size := range []int{1, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			br := newBranch(b, status(200), func(s *webhook.Settings) { s.Batch.MaxEvents = size })
			br.Limits.LingerFor = 0
			const batches = 20
			for b.Loop() {
				b.StopTimer()
				for range batches {
					br.route(size)
				}
				b.StartTimer()
				require.Equal(b, batches*size, br.drain().Events)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batches*size), "µs/event")
		})
	}
}
