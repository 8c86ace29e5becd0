package store_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"aftersend/correlate"
	"aftersend/event"
	"aftersend/id"
	"aftersend/migrations"
	"aftersend/pglocal"
	"aftersend/seal"
	"aftersend/store"
)

var (
	scaleRows  = flag.Int("rows", 10_000, "BenchmarkScale: how many events to fill the tables with")
	scalePlans = flag.Bool("plans", false, "BenchmarkScale: print the plan of every query")
)

// BenchmarkScale times every list, and one group of 500 events through
// correlation, on tables that hold so many events (half as many messages and
// callbacks, spread over 30 days, one large and one small account), on a
// Postgres set up as in production. Run it with two sizes and compare.
//
//	go test ./store -run '^$' -bench Scale -benchtime 20x -rows 1000000 [-plans]
func BenchmarkScale(b *testing.B) {
	ctx := context.Background()
	w := newScale(b)
	began := time.Now()
	w.fill(b, *scaleRows)
	b.Logf("filled with %d events in %v", *scaleRows, time.Since(began).Round(time.Second))

	for _, q := range w.queries(b) {
		b.Run(strings.ReplaceAll(q.name, " ", "_"), func(b *testing.B) {
			rows := 0
			for b.Loop() {
				n, err := q.run(ctx)
				require.NoError(b, err)
				rows = n
			}
			if q.rows >= 0 {
				require.Equal(b, q.rows, rows, "rows in the page")
			}
			w.explain(b, q.name, func() { _, _ = q.run(ctx) })
		})
	}
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("correlate_500_events/known_messages=%v", known), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c := w.correlation(b, 500, known)
				b.StartTimer()
				out, err := w.store.CorrelateEvents(ctx, c)
				if err != nil || !out.Done {
					b.Fatal(err, out.Done)
				}
			}
		})
	}
}

// scale is a database with much in it.
type scale struct {
	db           *sqlx.DB
	store        *store.Store
	large, small id.ID   // accounts; the small one has one event in a thousand
	sources      []id.ID // of the large one; the last is the small one's
	rows         int
	next         int // number of the next message made by correlation
	dsn          string
	box          *seal.Box
}

func newScale(t testing.TB) *scale {
	ctx := context.Background()
	dir := t.TempDir()
	server, err := pglocal.Start(ctx, pglocal.Options{DataDir: dir, Settings: pglocal.Production, Ephemeral: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop(ctx) })
	w := &scale{dsn: server.URL("postgres") + "&binary_parameters=yes"}
	w.db, err = sqlx.Connect("postgres", w.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.db.Close() })
	require.NoError(t, migrations.Up(ctx, w.db.DB))
	w.box, err = seal.New(seal.NewKey(1))
	require.NoError(t, err)
	w.store = store.New(w.db, w.box)
	return w
}

const scaleSources = 10

// uuidv7 is SQL for the id of row number n made at a time; distinct per kind.
func uuidv7(at, n, kind string) string {
	return `(lpad(to_hex((extract(epoch from ` + at + `) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex((` + n + `) & 4095), 3, '0')
		|| '8' || '` + kind + `' || lpad(to_hex(` + n + `), 14, '0'))::uuid`
}

// fill makes events, two per message: sent, then its fate. Everything is a
// function of the row's number, so that queries know what to find.
func (w *scale) fill(t testing.TB, events int) {
	w.rows = events
	w.large, w.small = id.New(), id.New()
	exec := func(statement string, args ...any) {
		_, err := w.db.Exec(statement, args...)
		require.NoError(t, err, statement)
	}
	exec(`insert into accounts (id, name) values ($1, 'large'), ($2, 'small')`, w.large, w.small)
	for i := range scaleSources + 1 {
		source, account := id.New(), w.large
		if i == scaleSources {
			account = w.small
		}
		exec(`insert into sources (id, account_id, esp, name, token_hash, token_sealed) values ($1, $2, $3, 's', $4, '')`,
			source, account, fmt.Sprintf("esp%d", i), source[:])
		w.sources = append(w.sources, source)
	}
	exec(`select make_partitions((now() at time zone 'utc')::date - 31, (now() at time zone 'utc')::date)`)
	exec(`insert into writers (id, host) overriding system value values (1000, 'scale')`)

	// n: number of the message; at: when; one in a thousand of the small account.
	exec(`create temp table m as
		select n, at, source_id, account_id, fate, recipient,
		       ` + uuidv7("at", "n", "1") + ` as message_id, ` + uuidv7("at", "n", "2") + ` as callback_id,
		       ` + uuidv7("at", "n", "3") + ` as sent_id, ` + uuidv7("at + interval '40 seconds'", "n", "4") + ` as fate_id
		from (
			select n, now() - interval '30 days' * (1 - n::float8 / ` + fmt.Sprint(events/2) + `) as at,
			       (array['` + joined(w.sources) + `']::uuid[])[case when n % 1000 = 7 then ` + fmt.Sprint(scaleSources+1) + ` else 1 + n % ` + fmt.Sprint(scaleSources) + ` end] as source_id,
			       case when n % 1000 = 7 then '` + w.small.String() + `' else '` + w.large.String() + `' end::uuid as account_id,
			       case when n % 2003 = 0 then 'rejected' when n % 50 = 3 then 'bounced' when n % 400 = 11 then 'deferred' else 'delivered' end as fate,
			       'user' || (n * 7919 % greatest(` + fmt.Sprint(events/8) + `, 1)) || '@domain' || n % 500 || '.example' as recipient
			from generate_series(1::bigint, ` + fmt.Sprint(events/2) + `) n
		) x`)
	exec(`insert into callbacks (id, writer_id, n, account_id, source_id, received_at, verified, method, path, query, headers, body)
		select callback_id, 1000, n, account_id, source_id, at, true, 'POST', '/callbacks', '', 'Content-Type: application/json', convert_to(repeat('x', 200), 'utf8') from m order by n`)
	exec(`insert into groups (id, kind, writer_id, n_from, n_to, id_from, id_to, step, number, callbacks, events, created_at)
		select ` + uuidv7("min(at)", "n / 500", "5") + `, 'callbacks', 1000, min(n), max(n), (array_agg(callback_id order by n))[1], (array_agg(callback_id order by n desc))[1],
		       'done', n / 500 + 1, count(*), 2 * count(*), min(at)
		from m group by n / 500 order by 1`)
	exec(`update group_sequence set number = (select coalesce(max(number), 0) from groups)`)
	exec(`update writers set grouped_through = (select max(n) from m), grouped_id = (select callback_id from m order by n desc limit 1) where id = 1000`)
	for i, e := range []struct{ id, kind, at string }{{"sent_id", "'sent'", "at"}, {"fate_id", "fate", "at + interval '40 seconds'"}} {
		exec(`insert into events (id, account_id, source_id, callback_id, ordinal, group_id, position, message_id, type, occurred_at, data)
			select ` + e.id + `, m.account_id, source_id, callback_id, ` + fmt.Sprint(i) + `, g.id, ` + fmt.Sprintf("%d * 500 + n %% 500", i) + `, message_id, ` + e.kind + `, ` + e.at + `,
			       convert_to('{"id":"evt_x","type":"' || ` + e.kind + ` || '","recipient":"' || recipient || '","message_id":"' || md5(n::text) || '","subject":"Your order has been shipped","diagnostic":"' || repeat('d', 150) || '"}', 'utf8')
			from m join groups g on g.number = n / 500 + 1 order by n`)
	}
	exec(`insert into messages (id, account_id, source_id, recipient, status, status_at, previous_status, first_event_at, final_at, state, timeline, keys)
		select message_id, account_id, source_id, recipient, fate, at + interval '40 seconds', 'sent', at,
		       case when fate <> 'deferred' then at + interval '40 seconds' end, $1, array[sent_id, fate_id], array[md5('k' || n)::uuid]
		from m order by n`, (&correlate.Message{}).Append(nil))
	exec(`insert into message_keys (key, kind, message_id) select md5('k' || n)::uuid, 'e', message_id from m`)
	exec(`insert into event_keys (key, event_id) select md5('s' || n)::uuid, sent_id from m union all select md5('f' || n)::uuid, fate_id from m`)
	exec(`insert into suppressions (id, account_id, recipient, reason, event_id, since, created_at)
		select ` + uuidv7("at", "n", "6") + `, account_id, recipient, 'bounced', fate_id, at, at from m where fate = 'bounced' on conflict do nothing`)
	exec(`insert into quarantine (id, account_id, source_id, callback_id, group_id, reason)
		select ` + uuidv7("at", "n", "7") + `, account_id, source_id, callback_id, callback_id, 'not JSON' from m where n % 5000 = 13`)
	exec(`drop table m`)
	exec(`analyze`)
	w.next = events
}

func joined(ids []id.ID) string {
	all := make([]string, len(ids))
	for i, u := range ids {
		all[i] = u.String()
	}
	return strings.Join(all, "','")
}

type scaleQuery struct {
	name string
	rows int // that the page must have; -1: whatever it has
	run  func(context.Context) (int, error)
}

func (w *scale) queries(t testing.TB) []scaleQuery {
	ctx := context.Background()
	page := store.Page{Limit: 51}
	events := func(name string, rows int, account id.ID, f store.EventFilter, p store.Page) scaleQuery {
		return scaleQuery{"events " + name, rows, func(ctx context.Context) (int, error) {
			got, err := w.store.Events(ctx, account, f, p)
			return len(got), err
		}}
	}
	messages := func(name string, rows int, account id.ID, f store.MessageFilter, p store.Page) scaleQuery {
		return scaleQuery{"messages " + name, rows, func(ctx context.Context) (int, error) {
			got, err := w.store.Messages(ctx, account, f, p)
			if err == nil && len(got) < p.Limit {
				_, err = w.store.MoreMessages(ctx, account, f, p)
			}
			return len(got), err
		}}
	}
	callbacks := func(name string, rows int, account id.ID, f store.CallbackFilter, p store.Page) scaleQuery {
		return scaleQuery{"callbacks " + name, rows, func(ctx context.Context) (int, error) {
			got, err := w.store.Callbacks(ctx, account, f, p)
			return len(got), err
		}}
	}
	holds := true
	suppressions := func(name string, f store.SuppressionFilter) scaleQuery {
		return scaleQuery{"suppressions " + name, -1, func(ctx context.Context) (int, error) {
			got, err := w.store.Suppressions(ctx, w.large, f, page)
			return len(got), err
		}}
	}
	feed := func(name string, rows int, account id.ID, at float64) scaleQuery {
		return scaleQuery{"feed " + name, rows, func(ctx context.Context) (int, error) {
			got, _, err := w.store.Feed(ctx, account, store.FeedPosition{Number: int64(at * float64(w.rows/1000))}, 50)
			return len(got), err
		}}
	}
	var middle id.ID
	require.NoError(t, w.db.GetContext(ctx, &middle, `select id from messages order by id offset $1 limit 1`, w.rows/4))
	deep := store.Page{Limit: 51, After: middle}
	few := min(51, w.rows/2000)
	recipient := fmt.Sprintf("user%d@domain%d.example", (w.rows/2-1)*7919%max(w.rows/8, 1), (w.rows/2-1)%500)
	return []scaleQuery{
		events("all", 51, w.large, store.EventFilter{}, page),
		events("all, deep", 51, w.large, store.EventFilter{}, deep),
		events("all, small account", min(51, 2*few), w.small, store.EventFilter{}, page),
		events("of a rare type", -1, w.large, store.EventFilter{Types: []string{"rejected"}}, page),
		events("of a type there is none of", 0, w.large, store.EventFilter{Types: []string{"complained"}}, page),
		events("of failures", -1, w.large, store.EventFilter{Types: []string{"bounced", "deferred", "rejected", "failed"}}, page),
		events("of a source, deep", 51, w.large, store.EventFilter{Source: w.sources[3]}, deep),
		events("of an ESP and type", -1, w.large, store.EventFilter{ESP: "esp3", Types: []string{"bounced"}}, page),
		events("of a recipient", -1, w.large, store.EventFilter{Recipient: recipient}, page),
		messages("all", 51, w.large, store.MessageFilter{}, page),
		messages("all, deep", 51, w.large, store.MessageFilter{}, deep),
		messages("all, small account", few, w.small, store.MessageFilter{}, page),
		messages("delivered", 51, w.large, store.MessageFilter{Status: "delivered"}, page),
		messages("bounced, deep", -1, w.large, store.MessageFilter{Status: "bounced"}, deep),
		messages("rejected", -1, w.large, store.MessageFilter{Status: "rejected"}, page),
		messages("queued, there is none", 0, w.large, store.MessageFilter{Status: "queued"}, page),
		messages("of a recipient", -1, w.large, store.MessageFilter{Recipient: recipient}, page),
		callbacks("all", 51, w.large, store.CallbackFilter{}, page),
		callbacks("all, deep", 51, w.large, store.CallbackFilter{}, deep),
		callbacks("all, small account", few, w.small, store.CallbackFilter{}, page),
		callbacks("of a source", 51, w.large, store.CallbackFilter{Source: w.sources[3]}, page),
		callbacks("processed", 51, w.large, store.CallbackFilter{State: "processed"}, page),
		callbacks("received", 0, w.large, store.CallbackFilter{State: "received"}, page),
		callbacks("quarantined", -1, w.large, store.CallbackFilter{State: "quarantined"}, page),
		suppressions("all", store.SuppressionFilter{Active: &holds}),
		suppressions("of a rare reason", store.SuppressionFilter{Active: &holds, Reason: "complained"}),
		suppressions("of a recipient", store.SuppressionFilter{Recipient: recipient}),
		suppressions("since yesterday", store.SuppressionFilter{Since: time.Now().AddDate(0, 0, -1)}),
		feed("from the start", 50, w.large, 0),
		feed("from the middle", 50, w.large, 0.5),
		feed("from the middle, small account", -1, w.small, 0.5),
		feed("at the end", 0, w.large, 2),
	}
}

// correlation is a group of n events, of new messages or of ones in the table.
func (w *scale) correlation(t testing.TB, n int, known bool) store.Correlation {
	group, now := id.New(), time.Now()
	_, err := w.db.Exec(`insert into groups (id, kind, step, callbacks) values ($1, 'callbacks', 'correlate', $2)`, group, n)
	require.NoError(t, err)
	c := store.Correlation{Group: group, To: store.Mark{N: int64(n)}, Last: true, Now: now, Events: make([]store.NewEvent, n)}
	var told []id.ID
	if known {
		require.NoError(t, w.db.Select(&told, `
			select md5('k' || n)::uuid from (
				select distinct 1 + (random() * $1::bigint)::bigint % $1::bigint as n from generate_series(1, 3 * $2::bigint)) x limit $2`, w.rows/2, n))
	}
	for i := range c.Events {
		key := id.ID(correlate.EventKey(correlate.Origin{}, &event.Event{}, group, i))
		if known {
			key = told[i]
		}
		w.next++
		e := &event.Event{Type: event.Opened, Recipient: fmt.Sprintf("new%d@example.com", w.next), ReceivedAt: now, MessageID: fmt.Sprint(w.next)}
		c.Events[i] = store.NewEvent{
			Event: e, Account: w.large, Source: w.sources[i%scaleSources], Callback: group, N: int64(i + 1), Position: i,
			Key:  correlate.EventKey(correlate.Origin{}, e, group, i),
			Keys: []correlate.MessageKey{{Kind: correlate.ByMessageID, Key: key}},
		}
	}
	return c
}

// explain prints the plans of what run asks the database.
func (w *scale) explain(t testing.TB, name string, run func()) {
	if !*scalePlans {
		return
	}
	connector, err := pq.NewConnector(w.dsn + "&options=" +
		"-c%20session_preload_libraries%3Dauto_explain%20-c%20auto_explain.log_min_duration%3D0%20-c%20auto_explain.log_analyze%3Don%20-c%20client_min_messages%3Dlog")
	require.NoError(t, err)
	plain := w.store
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(n *pq.Error) {
		if strings.Contains(n.Message, "plan:") {
			fmt.Fprintf(os.Stderr, "--- %s\n%s\n", name, n.Message)
		}
	}))
	w.store = store.New(sqlx.NewDb(db, "postgres"), w.box)
	run()
	w.store = plain
	_ = db.Close()
}
