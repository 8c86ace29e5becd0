package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"aftersend/id"
	"aftersend/intake"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
	"aftersend/workflows"
)

var silent = slog.New(slog.DiscardHandler)

func open(t *testing.T) (*sqlx.DB, *store.Store) {
	db := storetest.New(t)
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	return db, store.New(db, box)
}

// engine takes note of what it is asked to start, and finishes groups at once.
type engine struct {
	db   *sqlx.DB
	down atomic.Bool
	done func(id.ID)

	mu      sync.Mutex
	groups  map[id.ID]int
	woken   []id.ID
	notices []id.ID
	cohorts []workflows.DeferralsStart
}

func newEngine(db *sqlx.DB) *engine {
	return &engine{db: db, groups: map[id.ID]int{}, done: func(id.ID) {}}
}

func (e *engine) StartGroup(ctx context.Context, g workflows.GroupStart) error {
	if e.down.Load() {
		return errors.New("engine is down")
	}
	e.mu.Lock()
	e.groups[g.ID]++
	e.mu.Unlock()
	_, err := e.db.ExecContext(ctx, `update groups set step = 'done', finished_at = now() where id = $1`, g.ID)
	e.done(g.ID)
	return err
}

func (e *engine) Wake(_ context.Context, w id.ID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.woken = append(e.woken, w)
	return nil
}

func (e *engine) StartNotice(_ context.Context, n id.ID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notices = append(e.notices, n)
	return nil
}

func (e *engine) StartDeferrals(_ context.Context, d workflows.DeferralsStart) error {
	if e.down.Load() {
		return errors.New("engine is down")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cohorts = append(e.cohorts, d)
	return nil
}

// faulty is a store whose inserts go wrong when fault says so.
type faulty struct {
	*store.Store
	fault func() (before, after error) // before: nothing is stored; after: it is, and the answer is lost
}

func (f *faulty) InsertCallbacks(ctx context.Context, writer, first int64, rows []store.Callback) error {
	before, after := f.fault()
	if before != nil {
		return before
	}
	return errors.Join(f.Store.InsertCallbacks(ctx, writer, first, rows), after)
}

// run runs something until the test's end, or until the returned stop.
func run(t *testing.T, f func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { f(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func callback(body string) store.Callback {
	return store.Callback{
		AccountID: id.New(), SourceID: id.New(), ESP: "mandrill", ReceivedAt: time.Now(), RemoteIP: netip.MustParseAddr("192.0.2.1"),
		Verified: true, Method: "POST", Path: []byte("/callbacks/mandrill/[masked]"), Query: []byte{}, Headers: []byte{}, Body: []byte(body),
	}
}

// requireNumbered holds every writer to its promise: rows 1, 2, 3, … without
// gaps, ids ascending with them.
func requireNumbered(t *testing.T, db *sqlx.DB) {
	var bad int
	require.NoError(t, db.Get(&bad, `
		select count(*) from (
			select n, row_number() over (partition by writer_id order by n) as position,
			       id, lag(id) over (partition by writer_id order by n) as before
			from callbacks) x
		where n <> position or id <= before`))
	require.Zero(t, bad, "rows out of their writer's order")
}

// requireGroupedOnce holds that every callback is in exactly one group.
func requireGroupedOnce(t *testing.T, db *sqlx.DB) {
	var bad int
	require.NoError(t, db.Get(&bad, `
		select count(*) from (
			select c.id, count(g.id) as groups from callbacks c
			left join groups g on g.writer_id = c.writer_id and c.n between g.n_from and g.n_to and c.id between g.id_from and g.id_to
			group by c.id) x
		where groups <> 1`))
	require.Zero(t, bad, "callbacks in no group or in several")
	require.NoError(t, db.Get(&bad, `select count(*) from groups where callbacks <> n_to - n_from + 1`))
	require.Zero(t, bad, "groups that miscount")
}

func TestNothingAnsweredIsLostAndNothingIsGroupedTwice(t *testing.T) {
	db, s := open(t)
	f := &faulty{Store: s, fault: func() (error, error) {
		switch rand.IntN(20) {
		case 0:
			return errors.New("connection refused"), nil
		case 1:
			return nil, errors.New("connection lost before the answer")
		}
		return nil, nil
	}}
	e := newEngine(db)
	o := intake.Options{Host: "test", MaxRows: 20, GroupMaxCallbacks: 50, Metrics: prometheus.NewRegistry()}
	starter := intake.NewStarter(s, e, o, silent)
	e.done = starter.Done
	o.Committed = starter.Offer
	flusher := intake.New(f, o, silent)
	stopStarter := run(t, starter.Run)
	stopFlusher := run(t, flusher.Run)

	var mu sync.Mutex
	answered := map[id.ID]string{}
	var wg sync.WaitGroup
	for worker := range 40 {
		wg.Go(func() {
			for i := range 50 {
				body := fmt.Sprintf("%d-%d", worker, i)
				cb, err := flusher.Submit(context.Background(), callback(body))
				if err != nil {
					require.ErrorIs(t, err, intake.ErrUnavailable)
					continue
				}
				mu.Lock()
				answered[cb] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	stopFlusher()
	time.Sleep(50 * time.Millisecond)
	stopStarter()

	require.Greater(t, len(answered), 1000)
	for cb, body := range answered {
		var stored []byte
		require.NoError(t, db.Get(&stored, `select body from callbacks where id = $1`, cb))
		require.Equal(t, body, string(stored))
	}
	requireNumbered(t, db)

	// What writers of unclear end and the stopped starter left is swept up.
	_, err := db.Exec(`update writers set seen_at = now() - interval '1 minute'`)
	require.NoError(t, err)
	again := intake.NewStarter(s, e, intake.Options{}, silent)
	e.done = again.Done
	run(t, again.Run)
	run(t, intake.NewSweeper(s, e, again, nil, intake.Options{}, silent).Run)
	requireEventually(t, db, `select not exists (
		select from callbacks c join writers w on w.id = c.writer_id where c.n > w.grouped_through)`)
	requireGroupedOnce(t, db)
	requireEventually(t, db, `select not exists (select from groups where step <> 'done')`)
}

func requireEventually(t *testing.T, db *sqlx.DB, query string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var ok bool
		require.NoError(t, db.Get(&ok, query))
		return ok
	}, 30*time.Second, 20*time.Millisecond)
}

func TestAGuiltyRowFailsAloneAmongThousands(t *testing.T) {
	db, s := open(t)
	gate := make(chan struct{})
	f := &faulty{Store: s, fault: func() (error, error) { <-gate; return nil, nil }}
	flusher := intake.New(f, intake.Options{}, silent)
	run(t, flusher.Run)

	const many, guilty = 3000, 1234
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			cb := callback("harmless")
			if i == guilty {
				cb.Method = "PO\x00ST" // text refuses NUL
			}
			_, errs[i] = flusher.Submit(context.Background(), cb)
		})
	}
	time.Sleep(50 * time.Millisecond) // they gather behind the first flush
	close(gate)
	wg.Wait()

	for i, err := range errs {
		if i == guilty {
			require.ErrorIs(t, err, intake.ErrRefused)
			require.NotContains(t, err.Error(), "PO")
		} else {
			require.NoError(t, err)
		}
	}
	var rows, writers int
	require.NoError(t, db.QueryRow(`select count(*), count(distinct writer_id) from callbacks`).Scan(&rows, &writers))
	require.Equal(t, many-1, rows)
	require.Equal(t, 1, writers, "a clear refusal ends no writer")
	requireNumbered(t, db)
}

func TestWhatPostgresCouldRefuseIsStoredAsItCame(t *testing.T) {
	db, s := open(t)
	flusher := intake.New(s, intake.Options{}, silent)
	run(t, flusher.Run)
	cb := callback("\x00\xff\\u0000")
	cb.Headers = []byte("X: \x00\xfe\r\n")
	cb.Query = []byte("a=\x00")
	cb.RemoteIP = netip.MustParseAddr("fe80::1%eth0")
	got, err := flusher.Submit(t.Context(), cb)
	require.NoError(t, err)
	var body, headers, query []byte
	require.NoError(t, db.QueryRow(`select body, headers, query from callbacks where id = $1`, got).Scan(&body, &headers, &query))
	require.Equal(t, cb.Body, body)
	require.Equal(t, cb.Headers, headers)
	require.Equal(t, cb.Query, query)
}

func TestTwoStartersShareOneWriter(t *testing.T) {
	db, s := open(t)
	e := newEngine(db)
	var starters [2]*intake.Starter
	for i := range starters {
		starters[i] = intake.NewStarter(s, e, intake.Options{GroupMaxCallbacks: 7 + 4*i}, silent)
		run(t, starters[i].Run)
	}
	e.done = func(g id.ID) { starters[0].Done(g); starters[1].Done(g) }
	flusher := intake.New(s, intake.Options{Committed: func(r store.Range) { starters[0].Offer(r); starters[1].Offer(r) }}, silent)
	run(t, flusher.Run)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 40 {
				_, err := flusher.Submit(context.Background(), callback("x"))
				require.NoError(t, err)
			}
		})
	}
	wg.Wait()
	requireEventually(t, db, `select grouped_through = 800 from writers`)
	requireGroupedOnce(t, db)
}

func TestTheEngineDownDelaysNoAnswer(t *testing.T) {
	db, s := open(t)
	e := newEngine(db)
	e.down.Store(true)
	o := intake.Options{}
	starter := intake.NewStarter(s, e, o, silent)
	e.done = starter.Done
	o.Committed = starter.Offer
	flusher := intake.New(s, o, silent)
	run(t, starter.Run)
	run(t, flusher.Run)
	for range 100 {
		_, err := flusher.Submit(t.Context(), callback("x"))
		require.NoError(t, err)
	}
	e.down.Store(false)
	requireEventually(t, db, `select count(*) > 0 and bool_and(step = 'done') and sum(callbacks) = 100 from groups`)
	requireGroupedOnce(t, db)
}

func TestFullOrClosedTheFlusherSaysSo(t *testing.T) {
	_, s := open(t)
	gate := make(chan struct{})
	f := &faulty{Store: s, fault: func() (error, error) { <-gate; return nil, nil }}
	flusher := intake.New(f, intake.Options{MaxInFlightBytes: 100_000}, silent)
	stop := run(t, flusher.Run)

	results := make(chan error, 20)
	for range 20 {
		go func() {
			_, err := flusher.Submit(context.Background(), callback(string(bytes.Repeat([]byte("x"), 10_000))))
			results <- err
		}()
	}
	for range 11 {
		require.ErrorIs(t, <-results, intake.ErrBusy)
	}
	go func() { time.Sleep(20 * time.Millisecond); close(gate) }()
	stop() // drains
	for range 9 {
		require.NoError(t, <-results)
	}
	_, err := flusher.Submit(context.Background(), callback("late"))
	require.ErrorIs(t, err, intake.ErrUnavailable)
}

func TestAWriterDeclaredDeadLosesNothing(t *testing.T) {
	db, s := open(t)
	flusher := intake.New(s, intake.Options{}, silent)
	run(t, flusher.Run)
	_, err := flusher.Submit(t.Context(), callback("before"))
	require.NoError(t, err)
	_, err = db.Exec(`update writers set closed_at = now()`) // it was frozen for hours
	require.NoError(t, err)
	_, err = flusher.Submit(t.Context(), callback("refused"))
	require.ErrorIs(t, err, intake.ErrUnavailable)
	_, err = flusher.Submit(t.Context(), callback("after"))
	require.NoError(t, err)
	var open int
	require.NoError(t, db.Get(&open, `select count(*) from callbacks c join writers w on w.id = c.writer_id where closed_at is null`))
	require.Equal(t, 1, open)
}

// Every cohort of deferred messages gets its workflow, and another one when its
// review is long overdue.
func TestSweepersWatchOverDeferrals(t *testing.T) {
	db, s := open(t)
	e := newEngine(db)
	source := id.New()
	for _, statement := range []string{
		`insert into accounts (id, name) values ($1, 'a')`,
		`insert into sources (id, account_id, esp, name, token_hash, token_sealed) values ($1, $1, 'mandrill', 'm', '', '')`,
		`insert into deferral_cohorts (id, source_id, opens_at) values (gen_random_uuid(), $1, now() - interval '2 minutes')`,
		`insert into deferral_cohorts (id, source_id, opens_at, started_at, next_at) values (gen_random_uuid(), $1, now() - interval '1 day', now() - interval '1 day', now() - interval '1 hour')`,
		// Watched already, and closed.
		`insert into deferral_cohorts (id, source_id, opens_at, started_at) values (gen_random_uuid(), $1, now() - interval '20 minutes', now() - interval '15 minutes')`,
		`insert into deferral_cohorts (id, source_id, opens_at, started_at, next_at) values (gen_random_uuid(), $1, now() - interval '23 hours', now() - interval '23 hours', now() + interval '1 hour')`,
		`insert into deferral_cohorts (id, source_id, opens_at, closed_at) values (gen_random_uuid(), $1, now() - interval '2 days', now())`,
	} {
		_, err := db.Exec(statement, source)
		require.NoError(t, err, statement)
	}
	sweeper := intake.NewSweeper(s, e, intake.NewStarter(s, e, intake.Options{}, silent), nil, intake.Options{}, silent)
	e.down.Store(true)
	require.Error(t, sweeper.Sweep(t.Context()))
	e.down.Store(false)
	for range 2 {
		require.NoError(t, sweeper.Sweep(t.Context()))
	}
	require.Len(t, e.cohorts, 2)
	require.Equal(t, "mandrill", e.cohorts[0].ESP)
	require.Equal(t, e.cohorts[0].OpensAt.Add(store.DeferralWindow), e.cohorts[0].Closes)
}

func TestSweepersCloseEveryGap(t *testing.T) {
	db, s := open(t)
	e := newEngine(db)
	account := id.New()
	for _, statement := range []string{
		// Killed between commit and group.
		`insert into writers (host, seen_at) values ('dead', now() - interval '1 minute')`,
		`insert into callbacks select ('018f0000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 1, n, $1, $1, now(), null, true, 'POST', '', '', '', '' from generate_series(1, 5000) n`,
		// Killed between group and start, and a workflow that was lost.
		`insert into groups (id, kind, created_at) values (gen_random_uuid(), 'callbacks', now() - interval '10 seconds')`,
		`insert into groups (id, kind, created_at, started_at) values (gen_random_uuid(), 'callbacks', now() - interval '1 hour', now() - interval '1 minute')`,
		// At work: to be left alone.
		`insert into groups (id, kind, started_at, summary) values (gen_random_uuid(), 'callbacks', now(), 'at work')`,
		`insert into groups (id, kind, started_at, patient, summary) values (gen_random_uuid(), 'callbacks', now() - interval '1 minute', true, 'patient')`,
		// A notice nobody sends.
		`insert into notices (id, account_id, outage_id, kind, subject, body, recipients, created_at) values (gen_random_uuid(), $1, $1, 'k', '', '', '{}', now() - interval '1 minute')`,
		// A webhook that sleeps on a full outbox.
		`insert into accounts (id, name) values ($1, 'a')`,
		`insert into webhooks (id, account_id, name, status, settings, created_at) values ($1, $1, 'w', 'active', '{}', now() - interval '1 hour')`,
		`insert into webhook_progress (webhook_id, matched, delivered) values ($1, 5, 4)`,
	} {
		var err error
		if bytes.Contains([]byte(statement), []byte("$1")) {
			_, err = db.Exec(statement, account)
		} else {
			_, err = db.Exec(statement)
		}
		require.NoError(t, err, statement)
	}
	var starters []*intake.Starter
	for range 2 {
		starter := intake.NewStarter(s, e, intake.Options{}, silent)
		starters = append(starters, starter)
		run(t, starter.Run)
		run(t, intake.NewSweeper(s, e, starter, nil, intake.Options{}, silent).Run)
	}
	e.mu.Lock()
	e.done = func(g id.ID) { starters[0].Done(g); starters[1].Done(g) }
	e.mu.Unlock()

	requireEventually(t, db, `select grouped_through = 5000 from writers`)
	requireEventually(t, db, `select count(*) = 2 from groups where step <> 'done' and summary in ('at work', 'patient')`)
	requireEventually(t, db, `select count(*) = 2 from groups where step <> 'done'`)
	requireGroupedOnce(t, db)
	require.Eventually(t, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.notices) == 1 && len(e.woken) > 0 && e.woken[0] == account
	}, 10*time.Second, 20*time.Millisecond)
}
