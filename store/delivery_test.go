package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"aftersend/id"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
	"aftersend/webhook"
)

// delivery is an account with one webhook, and a hand that routes events to it
// as RouteEvents does.
type delivery struct {
	*store.Store
	t       testing.TB
	db      *sqlx.DB
	account id.ID
	webhook id.ID
	number  int64
	routed  []id.ID
}

func newDelivery(t testing.TB) *delivery {
	t.Helper()
	db := storetest.New(t)
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	d := &delivery{Store: store.New(db, box), t: t, db: db, webhook: id.New()}
	d.account, _, err = d.EnsureAccount(t.Context(), "test")
	require.NoError(t, err)
	settings, secrets, err := webhook.Normalize(webhook.Settings{URL: "https://example.com/hook", Retry: webhook.Retry{Attempts: 40}}, webhook.Secrets{},
		webhook.Defaults{Timeout: 30 * time.Second, RetryInterval: 5 * time.Minute, Retries: 40, MaxEvents: 500},
		anyURL)
	require.NoError(t, err)
	key := make([]byte, 32)
	require.NoError(t, d.CreateWebhook(t.Context(), store.WebhookRow{
		ID: d.webhook, AccountID: d.account, Name: "crm", Status: "active", Area: "email_sending", Settings: settings, Secrets: secrets,
	}, key, change("webhook.created", d.webhook)))
	return d
}

func change(action string, what id.ID) store.Change {
	return store.Change{By: store.Actor{Kind: "system", Name: "test"}, Action: action, ResourceKind: "webhook", ResourceID: what}
}

// route stores events and one outbox row per part, as one group does.
func (d *delivery) route(parts ...int) {
	d.t.Helper()
	d.number++
	tx := d.db.MustBegin()
	defer func() { _ = tx.Rollback() }()
	for part, n := range parts {
		var packed []byte
		for range n {
			e := id.New()
			packed = append(packed, e[:]...)
			d.routed = append(d.routed, e)
			tx.MustExec(`
				insert into events (id, account_id, source_id, callback_id, ordinal, group_id, position, message_id, type, occurred_at, data)
				values ($1, $2, $2, $2, 0, $2, 0, $2, 'delivered', now(), $3)`, e, d.account, body(e))
		}
		tx.MustExec(`insert into outbox (webhook_id, number, part, events, event_ids) values ($1, $2, $3, $4, $5)`, d.webhook, d.number, part, n, packed)
		tx.MustExec(`update webhook_progress set matched = matched + $2 where webhook_id = $1`, d.webhook, n)
	}
	require.NoError(d.t, tx.Commit())
}

func body(e id.ID) []byte {
	return fmt.Appendf(nil, `{"id":%q,"type":"delivered","subject":"Grüße"}`, id.Event.Format(e))
}

func (d *delivery) subscription() store.Subscription {
	d.t.Helper()
	sub, err := d.Subscription(d.t.Context(), d.webhook)
	require.NoError(d.t, err)
	return sub
}

func (d *delivery) cut(maxEvents int) (*store.Batch, store.Cut) {
	d.t.Helper()
	c := d.nextCut(maxEvents)
	b, err := d.CutBatch(d.t.Context(), c)
	require.NoError(d.t, err)
	d.balanced()
	return b, c
}

func (d *delivery) nextCut(maxEvents int) store.Cut {
	return store.Cut{
		Webhook: d.webhook, Version: d.subscription().Version, Batch: id.New(), Attempt: id.New(), MaxEvents: maxEvents,
		Dialect: webhook.DialectNative, Format: webhook.FormatJSON, At: time.Now(),
	}
}

func (d *delivery) outcome(b *store.Batch, attempt id.ID, status int) store.Outcome {
	return store.Outcome{
		Attempt: attempt, Webhook: d.webhook, Batch: b.ID, At: time.Now(), Status: status, Bytes: 100,
		Connect: time.Millisecond, FirstByte: 2 * time.Millisecond, Total: 3 * time.Millisecond, Response: []byte("ok\x00"),
	}
}

func (d *delivery) delivered(b *store.Batch, attempt id.ID) {
	d.t.Helper()
	require.NoError(d.t, d.RecordDelivered(d.t.Context(), d.outcome(b, attempt, 200), len(b.Events)))
	d.balanced()
}

func (d *delivery) failed(b *store.Batch, attempt id.ID, retry bool, next time.Time) {
	d.t.Helper()
	require.NoError(d.t, d.RecordFailure(d.t.Context(), store.Failure{
		Outcome: d.outcome(b, attempt, 503), Keep: webhook.Post{ContentType: "application/json", Body: []byte("kept")},
		Retry: retry, Word: "HTTP 503", NextAt: next, GiveUp: next,
	}))
	d.balanced()
}

// retry starts another attempt on an open batch.
func (d *delivery) retry(b *store.Batch) id.ID {
	d.t.Helper()
	attempt := id.New()
	require.NoError(d.t, d.StartAttempt(d.t.Context(), store.Start{
		Attempt: attempt, Webhook: d.webhook, Version: d.subscription().Version, Batch: b.ID, Events: len(b.Events), At: time.Now(),
	}))
	return attempt
}

// balanced holds conservation, and that both ways to count agree.
func (d *delivery) balanced() store.Balance {
	d.t.Helper()
	sum, err := d.WebhookBalance(d.t.Context(), d.webhook)
	require.NoError(d.t, err)
	require.Zero(d.t, sum.Lost(), "%+v", sum)
	return sum
}

func (d *delivery) attempts(b *store.Batch) (rows []store.AttemptRow) {
	d.t.Helper()
	batches, err := d.Batches(d.t.Context(), d.account, d.webhook, store.Page{Limit: 100})
	require.NoError(d.t, err)
	for _, row := range batches {
		if row.ID == b.ID {
			return row.Attempts
		}
	}
	d.t.Fatalf("no batch %s", b.ID)
	return nil
}

func TestBatchesAreCutInOrderAndNeverTooLarge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		groups [][]int // events per outbox row
		max    int
		want   []int // events per batch
	}{
		{"nothing", nil, 500, nil},
		{"one", [][]int{{1}}, 500, []int{1}},
		{"many small rows in one batch", [][]int{{1}, {2}, {3, 4}}, 500, []int{10}},
		{"exactly full", [][]int{{500}}, 500, []int{500}},
		{"one too many", [][]int{{500, 1}}, 500, []int{500, 1}},
		{"rows larger than batches", [][]int{{7}, {5}}, 3, []int{3, 3, 3, 3}},
		{"cuts within parts", [][]int{{2, 2}, {3}}, 3, []int{3, 3, 1}},
		{"one at a time", [][]int{{2}, {1}}, 1, []int{1, 1, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := newDelivery(t)
			for _, parts := range tc.groups {
				d.route(parts...)
			}
			var sizes []int
			var got []id.ID
			for {
				b, c := d.cut(tc.max)
				if b == nil {
					break
				}
				sizes, got = append(sizes, len(b.Events)), append(got, b.Events...)
				open, err := d.OpenBatch(t.Context(), d.webhook)
				require.NoError(t, err)
				require.Equal(t, b, open)
				items, err := d.BatchItems(t.Context(), b.Events)
				require.NoError(t, err)
				require.Equal(t, b.Events[0], items[0].ID)
				require.Equal(t, string(body(b.Events[0])), string(items[0].Data))
				d.delivered(b, c.Attempt)
			}
			require.Equal(t, tc.want, sizes)
			require.Equal(t, d.routed, got)
			require.Zero(t, d.balanced().Waiting)
			var left int
			require.NoError(t, d.db.Get(&left, `select count(*) from outbox`))
			require.Zero(t, left, "outbox rows behind the cursor are removed")
		})
	}
}

func TestBatchItemsKeepTheOrderAskedFor(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.route(5)
	asked := slices.Clone(d.routed)
	slices.Reverse(asked)
	items, err := d.BatchItems(t.Context(), asked)
	require.NoError(t, err)
	for i, it := range items {
		require.Equal(t, asked[i], it.ID)
		require.Equal(t, string(body(asked[i])), string(it.Data))
	}
	_, err = d.BatchItems(t.Context(), append(asked, id.New()))
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestOneOpenBatch(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.route(3)
	first, c := d.cut(2)
	_, err := d.CutBatch(t.Context(), d.nextCut(2))
	require.ErrorIs(t, err, store.ErrConflict)
	d.balanced()
	d.delivered(first, c.Attempt)
	d.delivered(first, c.Attempt) // told twice, counted once
	require.EqualValues(t, 2, d.balanced().Delivered)

	c = d.nextCut(2)
	require.NoError(t, d.PauseWebhook(t.Context(), d.account, d.webhook, "by hand", change("webhook.paused", d.webhook)))
	_, err = d.CutBatch(t.Context(), c)
	require.ErrorIs(t, err, store.ErrConflict, "settings changed: read again")
	_, err = d.CutBatch(t.Context(), d.nextCut(2))
	require.ErrorIs(t, err, store.ErrConflict, "paused")
}

// Cutters that race never take an event twice or lose one.
func TestConcurrentCutters(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	const groups, each = 60, 7
	version := d.subscription().Version
	var (
		mu  sync.Mutex
		got []id.ID
	)
	cutAll := func() error {
		for {
			b, err := d.CutBatch(t.Context(), store.Cut{Webhook: d.webhook, Version: version, Batch: id.New(), Attempt: id.New(), MaxEvents: 10,
				Dialect: webhook.DialectNative, Format: webhook.FormatJSON, At: time.Now()})
			if err != nil && !errors.Is(err, store.ErrConflict) {
				return err
			}
			mu.Lock()
			if b != nil {
				got = append(got, b.Events...)
			}
			all := len(got) >= groups*each
			mu.Unlock()
			if b != nil {
				err = d.RecordDelivered(t.Context(), store.Outcome{Attempt: id.New(), Webhook: d.webhook, Batch: b.ID, At: time.Now()}, len(b.Events))
				if err != nil {
					return err
				}
			}
			if all {
				return nil
			}
		}
	}
	var cutters errgroup.Group
	for range 3 {
		cutters.Go(cutAll)
	}
	for range groups {
		d.route(each)
	}
	require.NoError(t, cutters.Wait())
	require.Equal(t, d.routed, got, "each once, in order")
	require.EqualValues(t, groups*each, d.balanced().Delivered)
}

func TestFailuresAreCountedAndTheBodyKept(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.route(3)
	b, c := d.cut(500)
	next := time.Now().Add(5 * time.Minute).Truncate(time.Microsecond)
	d.failed(b, c.Attempt, false, next)

	sub := d.subscription()
	require.Equal(t, b.ID, sub.Open)
	require.Zero(t, sub.Progress.AttemptsUsed, "the first attempt is no retry")
	require.True(t, next.Equal(*sub.Progress.NextAt))
	require.NotEqual(t, id.Nil, sub.Outage)
	require.NotNil(t, sub.Progress.FailingSince)

	d.failed(b, d.retry(b), true, next)
	again := d.subscription()
	require.Equal(t, 1, again.Progress.AttemptsUsed)
	require.Equal(t, sub.Outage, again.Outage)
	require.Equal(t, sub.Progress.FailingSince, again.Progress.FailingSince)
	require.Equal(t, 2, again.OpenAttempts)
	open, err := d.OpenBatch(t.Context(), d.webhook)
	require.NoError(t, err)
	require.Equal(t, webhook.Post{ContentType: "application/json", Body: []byte("kept")}, open.Kept)

	d.delivered(b, d.retry(b))
	over := d.subscription()
	require.Equal(t, id.Nil, over.Outage)
	require.Zero(t, over.Progress.AttemptsUsed)
	require.Nil(t, over.Progress.NextAt)
	require.Empty(t, over.Progress.LastError)

	rows := d.attempts(b)
	require.Len(t, rows, 3)
	require.Equal(t, []int{3, 2, 1}, []int{rows[0].Number, rows[1].Number, rows[2].Number})
	require.Equal(t, "delivered", rows[0].Outcome)
	require.Equal(t, "failed", rows[1].Outcome)
	require.Equal(t, 503, *rows[1].StatusCode)
	require.Nil(t, rows[1].DNSUs, "a part that did not happen")
	require.Equal(t, 1000, *rows[1].ConnectUs)
	require.Equal(t, "ok\x00", string(rows[1].Response))
}

// A process that was thought dead reports late.
func TestLateOutcomes(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.route(1)
	b, c := d.cut(500)
	second := d.retry(b) // another process took over
	require.Equal(t, "lost", d.attempts(b)[1].ErrorClass)
	d.failed(b, c.Attempt, false, time.Now())
	require.Nil(t, d.subscription().Progress.FailingSince, "a late failure says nothing")
	d.delivered(b, c.Attempt)
	require.Equal(t, id.Nil, d.subscription().Open, "a late success does")
	d.failed(b, second, true, time.Now())
	require.Nil(t, d.subscription().Progress.FailingSince, "the batch is delivered already")
	require.ErrorIs(t, d.StartAttempt(t.Context(), store.Start{Attempt: id.New(), Webhook: d.webhook, Version: d.subscription().Version, Batch: b.ID, At: time.Now()}), store.ErrConflict)
}

func TestEventsOfABatchOneByOne(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.route(3)
	c := d.nextCut(500)
	c.Attempt = id.Nil
	b, err := d.CutBatch(t.Context(), c)
	require.NoError(t, err)
	require.Zero(t, b.Attempts)
	for i := range b.Events {
		require.NoError(t, d.RecordDelivered(t.Context(), d.outcome(b, d.retry(b), 200), i+1))
		require.EqualValues(t, i+1, d.balanced().Delivered)
		if i == 1 {
			d.failed(b, d.retry(b), false, time.Now())
			open, err := d.OpenBatch(t.Context(), d.webhook)
			require.NoError(t, err)
			require.Equal(t, 2, open.Posted)
			require.Equal(t, "kept", string(open.Kept.Body))
		}
	}
	require.Equal(t, id.Nil, d.subscription().Open)
}

func TestGivingUpPausesAndWritesOneNotice(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.route(1)
	b, c := d.cut(500)
	d.failed(b, c.Attempt, false, time.Time{})
	sub := d.subscription()
	order := func() store.GiveUp {
		return store.GiveUp{Account: d.account, Webhook: d.webhook, Outage: sub.Outage, Reason: "41 attempts failed", Notice: store.Notice{
			ID: id.New(), Subject: "Webhook paused", Body: "…", Recipients: []string{"a@example.com", "b@example.com"},
		}}
	}
	first, err := d.GiveUp(t.Context(), order())
	require.NoError(t, err)
	second, err := d.GiveUp(t.Context(), order())
	require.NoError(t, err)
	require.NotEqual(t, id.Nil, first)
	require.Equal(t, first, second)
	n, err := d.Notice(t.Context(), first)
	require.NoError(t, err)
	require.EqualValues(t, []string{"a@example.com", "b@example.com"}, n.Recipients)
	paused := d.subscription()
	require.Equal(t, "paused", paused.Status)
	require.Equal(t, "41 attempts failed", paused.PauseReason)
	require.Greater(t, paused.Version, sub.Version)

	require.NoError(t, d.NoticeFailed(t.Context(), first, "connection"))
	require.NoError(t, d.NoticeSent(t.Context(), first))
	n, err = d.Notice(t.Context(), first)
	require.NoError(t, err)
	require.NotNil(t, n.SentAt)

	stale := order()
	stale.Outage = id.New()
	none, err := d.GiveUp(t.Context(), stale)
	require.NoError(t, err)
	require.Equal(t, id.Nil, none, "the outage it is about is over")
}

func TestNoticesWithoutRecipientsGoToTheOwners(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	d.db.MustExec(`insert into users (id, account_id, email, role) values ($1, $3, 'owner@example.com', 'owner'), ($2, $3, 'viewer@example.com', 'viewer')`, id.New(), id.New(), d.account)
	d.route(1)
	b, c := d.cut(500)
	d.failed(b, c.Attempt, false, time.Time{})
	notice, err := d.GiveUp(t.Context(), store.GiveUp{Account: d.account, Webhook: d.webhook, Outage: d.subscription().Outage, Notice: store.Notice{ID: id.New()}})
	require.NoError(t, err)
	n, err := d.Notice(t.Context(), notice)
	require.NoError(t, err)
	require.EqualValues(t, []string{"owner@example.com"}, n.Recipients)
}

func TestResume(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (*delivery, *store.Batch) {
		d := newDelivery(t)
		d.route(2, 3)
		b, c := d.cut(4) // ends within a part
		d.failed(b, c.Attempt, false, time.Now())
		require.NoError(t, d.PauseWebhook(t.Context(), d.account, d.webhook, "maintenance", change("webhook.paused", d.webhook)))
		require.NoError(t, d.PauseWebhook(t.Context(), d.account, d.webhook, "again", change("webhook.paused", d.webhook)))
		d.route(600)
		require.EqualValues(t, 605, d.balanced().Waiting)
		return d, b
	}
	t.Run("deliver", func(t *testing.T) {
		t.Parallel()
		d, b := prepare(t)
		require.NoError(t, d.ResumeWebhook(t.Context(), d.account, d.webhook, store.BacklogDeliver, change("webhook.resumed", d.webhook)))
		sub := d.subscription()
		require.Equal(t, "active", sub.Status)
		require.Nil(t, sub.Progress.FailingSince, "a new beginning")
		require.Equal(t, b.ID, sub.Open)
		open, err := d.OpenBatch(t.Context(), d.webhook)
		require.NoError(t, err)
		require.Equal(t, "kept", string(open.Kept.Body))
		d.delivered(open, d.retry(open))
		var rest []id.ID
		for b, c := d.cut(500); b != nil; b, c = d.cut(500) {
			rest = append(rest, b.Events...)
			d.delivered(b, c.Attempt)
		}
		require.Equal(t, d.routed[4:], rest)
	})
	t.Run("skip", func(t *testing.T) {
		t.Parallel()
		d, b := prepare(t)
		require.NoError(t, d.ResumeWebhook(t.Context(), d.account, d.webhook, store.BacklogSkip, change("webhook.resumed", d.webhook)))
		sum := d.balanced()
		require.EqualValues(t, 605, sum.Skipped)
		require.Zero(t, sum.Waiting)
		require.Equal(t, id.Nil, d.subscription().Open)
		batches, err := d.Batches(t.Context(), d.account, d.webhook, store.Page{Limit: 10})
		require.NoError(t, err)
		kept := 0
		for _, row := range batches {
			require.Equal(t, "skipped", row.State)
			kept += row.Events
		}
		require.Equal(t, 605, kept, "skipped events can be replayed")
		require.ErrorIs(t, d.StartAttempt(t.Context(), store.Start{Attempt: id.New(), Webhook: d.webhook, Version: d.subscription().Version, Batch: b.ID, At: time.Now()}), store.ErrConflict)
		d.route(1)
		next, _ := d.cut(500)
		require.Equal(t, d.routed[605:], next.Events, "what came after the resume is delivered")
	})
	t.Run("not paused", func(t *testing.T) {
		t.Parallel()
		d := newDelivery(t)
		require.NoError(t, d.ResumeWebhook(t.Context(), d.account, d.webhook, store.BacklogSkip, change("webhook.resumed", d.webhook)))
		d.db.MustExec(`update webhooks set status = 'inactive'`)
		require.ErrorIs(t, d.ResumeWebhook(t.Context(), d.account, d.webhook, store.BacklogDeliver, change("webhook.resumed", d.webhook)), store.ErrConflict)
		require.ErrorIs(t, d.PauseWebhook(t.Context(), d.account, d.webhook, "", change("webhook.paused", d.webhook)), store.ErrConflict)
		require.ErrorIs(t, d.PauseWebhook(t.Context(), id.New(), d.webhook, "", change("webhook.paused", d.webhook)), store.ErrNotFound)
	})
}

func TestSleepAndWaking(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	ctx := t.Context()
	require.NoError(t, d.StayAwake(ctx, d.webhook))
	require.False(t, d.subscription().Progress.Asleep)
	due, err := d.FallAsleep(ctx, d.webhook)
	require.NoError(t, err)
	require.False(t, due)
	require.True(t, d.subscription().Progress.Asleep)

	d.route(1)
	due, err = d.FallAsleep(ctx, d.webhook)
	require.NoError(t, err)
	require.True(t, due)
	require.False(t, d.subscription().Progress.Asleep)

	b, c := d.cut(500)
	due, err = d.FallAsleep(ctx, d.webhook)
	require.NoError(t, err)
	require.True(t, due, "an open batch is due")
	d.delivered(b, c.Attempt)

	d.db.MustExec(`update webhooks set settings = jsonb_set(settings, '{batch,max_wait_seconds}', '30')`)
	require.NoError(t, d.StayAwake(ctx, d.webhook))
	require.True(t, d.subscription().Progress.Collecting)
	d.route(2)
	require.Equal(t, 2, d.subscription().Due)
	require.NoError(t, d.StopCollecting(ctx, d.webhook))
	require.False(t, d.subscription().Progress.Collecting)
	d.db.MustExec(`update webhooks set status = 'inactive'`)
	require.NoError(t, d.StayAwake(ctx, d.webhook))
	require.True(t, d.subscription().Progress.Asleep)
}

// Events routed while the webhook falls asleep are either seen, or their
// router sees that it sleeps.
func TestNothingFallsBetweenRoutingAndSleep(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	for range 200 {
		require.NoError(t, d.StayAwake(t.Context(), d.webhook))
		woken := make(chan bool)
		go func() {
			d.route(1)
			var asleep bool
			_ = d.db.Get(&asleep, `select asleep from webhook_progress where webhook_id = $1`, d.webhook)
			woken <- asleep
		}()
		due, err := d.FallAsleep(t.Context(), d.webhook)
		require.NoError(t, err)
		require.True(t, <-woken || due)
		b, c := d.cut(500)
		d.delivered(b, c.Attempt)
	}
}

func TestSigningKeysDuringRotation(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	key := []byte("0123456789abcdef0123456789abcdef")
	require.NoError(t, d.RotateSigningKey(t.Context(), d.account, d.webhook, key, time.Hour, change("webhook.rotated", d.webhook)))
	sub := d.subscription()
	require.Len(t, sub.Keys(time.Now()), 2)
	require.Equal(t, key, sub.Keys(time.Now())[0])
	require.Len(t, sub.Keys(time.Now().Add(2*time.Hour)), 1)
}

func TestSubscriptionOfADeletedWebhook(t *testing.T) {
	t.Parallel()
	d := newDelivery(t)
	require.NoError(t, d.DeleteWebhook(t.Context(), d.account, d.webhook, change("webhook.deleted", d.webhook)))
	require.True(t, d.subscription().Deleted)
	_, err := d.Subscription(t.Context(), id.New())
	require.ErrorIs(t, err, store.ErrNotFound)
}

// What one batch of 500 costs in the database, without the POST: cut, load,
// record. CPU is the point, so look at it with -cpu 1 and `time`.
func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1, 20, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := newDelivery(b)
			d.t = b
			const ready = 40
			routed := 0
			for b.Loop() {
				if routed == 0 {
					b.StopTimer()
					for range ready {
						d.route(size)
					}
					routed = ready
					b.StartTimer()
				}
				routed--
				c := store.Cut{Webhook: d.webhook, Version: 1, Batch: id.New(), Attempt: id.New(), MaxEvents: size,
					Dialect: webhook.DialectNative, Format: webhook.FormatJSON, At: time.Now()}
				batch, err := d.CutBatch(b.Context(), c)
				require.NoError(b, err)
				items, err := d.BatchItems(b.Context(), batch.Events)
				require.NoError(b, err)
				_, err = webhook.Encode(batch.Dialect, batch.Format, items)
				require.NoError(b, err)
				require.NoError(b, d.RecordDelivered(b.Context(), d.outcome(batch, c.Attempt, 200), len(batch.Events)))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "µs/event")
		})
	}
}

func anyURL(*url.URL) error { return nil }
