package store_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
)

// told is an account with a source, and what was told of it.
type told struct {
	t               *testing.T
	db              *sqlx.DB
	store           *store.Store
	account, source id.ID
}

func newTold(t *testing.T, db *sqlx.DB, s *store.Store) *told {
	w := &told{t: t, db: db, store: s, account: id.New(), source: id.New()}
	w.exec(`insert into accounts (id, name) values ($1, 'a')`, w.account)
	w.exec(`insert into sources (id, account_id, esp, name, token_hash, token_sealed) values ($1, $2, 'mandrill', 's', $3, '')`, w.source, w.account, w.source[:])
	return w
}

func (w *told) exec(statement string, args ...any) {
	w.t.Helper()
	_, err := w.db.Exec(statement, args...)
	require.NoError(w.t, err)
}

// group is one that is ready to be routed, with n events, each of a message of its own.
func (w *told) group(n int, of event.Type) id.ID {
	group := id.New()
	w.exec(`insert into groups (id, kind, step, callbacks, events) values ($1, 'callbacks', 'route', 1, $2)`, group, n)
	for i := range n {
		e, m := id.New(), id.New()
		w.exec(`insert into events (id, account_id, source_id, callback_id, ordinal, group_id, position, message_id, type, occurred_at, data)
			values ($1, $2, $3, $4, $5, $4, $5, $6, $7, now(), $8)`, e, w.account, w.source, group, i, m, string(of), []byte(id.Event.Format(e)))
		w.exec(`insert into messages (id, account_id, source_id, recipient, status, status_at, first_event_at, state, timeline, keys)
			values ($1, $2, $3, $4, $5, now(), now(), '', array[$6::uuid], '{}')`, m, w.account, w.source, fmt.Sprintf("user%d@example.com", i%3), string(of), e)
	}
	return group
}

func (w *told) route(group id.ID, n int) error {
	_, err := w.store.RouteEvents(w.t.Context(), store.Routing{Group: group, Events: n,
		Volume: map[store.VolumeKey]int{{Source: w.source, Hour: time.Now().Truncate(time.Hour), Type: event.Sent}: n}})
	return err
}

// Whoever follows the feed while many groups are routed at once gets every
// event once, in an order that never changes.
func TestTheFeedMissesNothingWhileOthersWrite(t *testing.T) {
	t.Parallel()
	db, s, _ := intakeStore(t)
	mine, other := newTold(t, db, s), newTold(t, db, s)
	const writers, each = 8, 12
	sizes := map[id.ID]int{}
	var groups [writers][]id.ID
	total := 0
	for i := range writers {
		for range each {
			w, n := mine, 1+rand.IntN(7)
			if i%4 == 3 {
				w = other
			}
			g := w.group(n, event.Sent)
			sizes[g] = n
			groups[i] = append(groups[i], g)
			if w == mine {
				total += n
			}
		}
	}

	var routed atomic.Bool
	var work errgroup.Group
	for i := range writers {
		work.Go(func() error {
			for _, g := range groups[i] {
				time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
				if err := mine.route(g, sizes[g]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	follow := func() (seen []string, err error) {
		at := store.FeedPosition{Position: -1}
		for {
			over := routed.Load() // before the look, not after it
			events, next, err := s.Feed(t.Context(), mine.account, at, 5)
			if err != nil {
				return nil, err
			}
			for _, e := range events {
				seen = append(seen, string(e.Data))
			}
			if len(events) == 0 && over && next == at {
				return seen, nil
			}
			at = next
		}
	}
	var readers errgroup.Group
	var mu sync.Mutex
	var orders [][]string
	for range 3 {
		readers.Go(func() error {
			seen, err := follow()
			mu.Lock()
			defer mu.Unlock()
			orders = append(orders, seen)
			return err
		})
	}
	require.NoError(t, work.Wait())
	routed.Store(true)
	require.NoError(t, readers.Wait())
	later, err := follow()
	require.NoError(t, err)
	require.Len(t, later, total)
	distinct := map[string]bool{}
	for _, e := range later {
		distinct[e] = true
	}
	require.Len(t, distinct, total)
	for _, seen := range orders {
		require.Equal(t, later, seen, "as whoever comes later reads it")
	}
}

// The feed of an account goes on past any number of groups of others.
func TestTheFeedGetsPastOtherAccounts(t *testing.T) {
	t.Parallel()
	db, s, _ := intakeStore(t)
	mine, other := newTold(t, db, s), newTold(t, db, s)
	g := mine.group(1, event.Sent)
	require.NoError(t, mine.route(g, 1))
	other.exec(`insert into groups (id, kind, step, number) select gen_random_uuid(), 'callbacks', 'done', n from generate_series(2, 5000) n`)
	other.exec(`update group_sequence set number = 5000`)
	g = mine.group(2, event.Sent)
	require.NoError(t, mine.route(g, 2))
	at := store.FeedPosition{Position: -1}
	n := 0
	for range 3 {
		events, next, err := s.Feed(t.Context(), mine.account, at, 10)
		require.NoError(t, err)
		n += len(events)
		at = next
	}
	require.Equal(t, 3, n)
	require.Equal(t, store.FeedPosition{Number: 5001, Position: 1}, at)
}

// However a list is narrowed and paged, it holds what it should, once, newest
// first.
func TestListsArePagedWithoutGapsAndRepeats(t *testing.T) {
	t.Parallel()
	db, s, _ := intakeStore(t)
	mine, second, other := newTold(t, db, s), newTold(t, db, s), newTold(t, db, s)
	second.exec(`update sources set account_id = $1, esp = 'brevo' where id = $2`, mine.account, second.source)
	second.account = mine.account
	want := map[event.Type]int{event.Delivered: 9, event.Bounced: 5, event.Deferred: 3, event.Rejected: 1, event.Queued: 2}
	for of, n := range want {
		mine.group(n, of)
		second.group(1, of)
		other.group(4, of)
	}
	events := func(f store.EventFilter) (all []id.ID) {
		for p := (store.Page{Limit: 2}); ; {
			rows, err := s.Events(t.Context(), mine.account, f, p)
			require.NoError(t, err)
			for _, r := range rows {
				all = append(all, r.ID)
				p.After = r.ID
			}
			if len(rows) < p.Limit {
				return all
			}
		}
	}
	messages := func(f store.MessageFilter) (all []id.ID) {
		for p := (store.Page{Limit: 2}); ; {
			rows, err := s.Messages(t.Context(), mine.account, f, p)
			require.NoError(t, err)
			for _, r := range rows {
				all = append(all, r.ID)
				p.After = r.ID
			}
			if len(rows) < p.Limit {
				more, err := s.MoreMessages(t.Context(), mine.account, f, p)
				require.NoError(t, err)
				require.Equal(t, id.Nil, more)
				return all
			}
		}
	}
	check := func(n int, got []id.ID, name string) {
		t.Helper()
		require.Len(t, got, n, name)
		for i := 1; i < len(got); i++ {
			require.Negative(t, compare(got[i], got[i-1]), name)
		}
	}
	check(25, events(store.EventFilter{}), "all")
	check(20, events(store.EventFilter{Source: mine.source}), "of a source")
	check(5, events(store.EventFilter{ESP: "brevo"}), "of an ESP")
	check(0, events(store.EventFilter{Source: other.source}), "of another account's source")
	check(10, events(store.EventFilter{Types: []string{"bounced", "deferred"}}), "of types")
	check(1, events(store.EventFilter{Types: []string{"bounced"}, Source: second.source}), "of a type and a source")
	check(13, events(store.EventFilter{Recipient: "User0@example.com"}), "to a recipient")
	check(3, events(store.EventFilter{Recipient: "user0@example.com", Types: []string{"bounced"}}), "of a type to a recipient")

	check(25, messages(store.MessageFilter{}), "all")
	for of, n := range want {
		check(n+1, messages(store.MessageFilter{Status: string(of)}), string(of))
	}
	check(0, messages(store.MessageFilter{Status: "failed"}), "failed")
	check(13, messages(store.MessageFilter{Recipient: "user0@example.com"}), "to a recipient")
	check(3, messages(store.MessageFilter{Recipient: "user0@example.com", Status: "bounced"}), "bounced, to a recipient")
	check(4, messages(store.MessageFilter{Recipient: "user0@example.com", Status: "delivered"}), "delivered, to a recipient")
}

func compare(a, b id.ID) int {
	for i := range a {
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return 0
}

// A callback is received until its group is done, processed from then on, and
// quarantined when it could not be understood.
func TestCallbacksByState(t *testing.T) {
	t.Parallel()
	db, s, _ := intakeStore(t)
	w := newTold(t, db, s)
	writer, err := s.NewWriter(t.Context(), "test")
	require.NoError(t, err)
	rows := make([]store.Callback, 10)
	for i := range rows {
		rows[i] = store.Callback{ID: id.New(), AccountID: w.account, SourceID: w.source, ReceivedAt: time.Now(), Verified: true,
			Method: "POST", Path: []byte("/"), Query: []byte{}, Headers: []byte{}, Body: []byte("x")}
	}
	require.NoError(t, s.InsertCallbacks(t.Context(), writer, 1, rows))
	group := func(from, to int) id.ID {
		g := store.Group{ID: id.New(), Kind: "callbacks", WriterID: writer, NFrom: int64(from), NTo: int64(to), IDFrom: rows[from-1].ID, IDTo: rows[to-1].ID, Callbacks: to - from + 1}
		made, err := s.MakeGroup(t.Context(), g)
		require.NoError(t, err)
		require.True(t, made)
		return g.ID
	}
	list := func(f store.CallbackFilter) (n []int) {
		for p := (store.Page{Limit: 3}); ; {
			page, err := s.Callbacks(t.Context(), w.account, f, p)
			require.NoError(t, err)
			for _, r := range page {
				for i := range rows {
					if rows[i].ID == r.ID {
						n = append(n, i+1)
					}
				}
				require.True(t, f.State == "" || r.State == f.State)
				p.After = r.ID
			}
			if len(page) < p.Limit {
				return n
			}
		}
	}
	done := group(1, 4)
	w.exec(`update groups set step = 'done' where id = $1`, done)
	w.exec(`insert into quarantine (id, account_id, source_id, callback_id, group_id, reason) values ($1, $2, $3, $4, $5, 'not JSON')`,
		id.New(), w.account, w.source, rows[2].ID, done)
	group(5, 7) // is being worked on; 8 to 10 are in no group yet

	require.Equal(t, []int{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, list(store.CallbackFilter{}))
	require.Equal(t, []int{4, 2, 1}, list(store.CallbackFilter{State: "processed"}))
	require.Equal(t, []int{3}, list(store.CallbackFilter{State: "quarantined"}))
	require.Equal(t, []int{10, 9, 8, 7, 6, 5}, list(store.CallbackFilter{State: "received", Source: w.source}))
	require.Empty(t, list(store.CallbackFilter{State: "processed", ESP: "brevo"}))
}
