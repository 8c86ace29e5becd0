package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"aftersend/activities"
	"aftersend/esp"
	"aftersend/event"
	"aftersend/id"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
	"aftersend/webhook"
)

// fake is an ESP whose callbacks are native events, a JSON object a line.
type fake struct{}

func (fake) Describe() esp.Description {
	return esp.Description{Name: "fake", Fields: []esp.Field{{Name: "key", Required: true}}}
}

func (fake) Parse(req esp.Request) (esp.Result, error) {
	var r esp.Result
	for i, line := range strings.Split(strings.TrimSpace(string(req.Body)), "\n") {
		switch {
		case line == "panic":
			panic("somebody@example.com")
		case line == "garbage":
			return r, fmt.Errorf("%w: it is garbage", esp.ErrUnreadable)
		}
		e := event.Event{Record: []byte(line)}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.Problems = append(r.Problems, esp.Problem{Record: i, Reason: "not JSON"})
			continue
		}
		e.ESPType = string(e.Type)
		r.Events = append(r.Events, e)
	}
	return r, nil
}

func (fake) Verify(ctx context.Context, req esp.Request, v esp.Verification) error {
	if req.URL != "https://hooks.example.com/callbacks/fake/token-1?a=b" || v.Secrets["key"] != "k" || v.Now != req.ReceivedAt {
		return fmt.Errorf("%w: it was posted elsewhere", esp.ErrForged)
	}
	_, err := v.Keys.Certificate(ctx, "https://keys.example.com/1")
	return err
}

type keys struct{ err error }

func (k keys) Certificate(context.Context, string) ([]byte, error) { return nil, k.err }
func (k keys) TXT(context.Context, string) (string, error)         { return "", k.err }

type waker struct {
	mu   sync.Mutex
	woke map[id.ID]int
}

func (w *waker) Wake(_ context.Context, webhook id.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woke[webhook]++
	return nil
}

// house is a store with one account, some sources, and the activities on it.
type house struct {
	t       testing.TB
	db      *sqlx.DB
	store   *store.Store
	account id.ID
	sources []id.ID
	writer  int64
	waker   *waker
	*activities.Processing

	mu sync.Mutex
	n  int64
}

func newHouse(t testing.TB, db *sqlx.DB) *house {
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	h := &house{t: t, db: db, store: store.New(db, box), account: id.New(), waker: &waker{woke: map[id.ID]int{}}}
	_, err = db.Exec(`insert into accounts (id, name) values ($1, 'test')`, h.account)
	require.NoError(t, err)
	for range 3 {
		source := id.New()
		_, err = db.Exec(`insert into sources (id, account_id, esp, name, token_hash, token_sealed, verification) values ($1, $2, 'fake', 'f', $3, $4, $5)`,
			source, h.account, source[:], box.Seal([]byte("token-1"), "sources", "token_sealed", source), box.Seal([]byte(`{"key":"k"}`), "sources", "verification", source))
		require.NoError(t, err)
		h.sources = append(h.sources, source)
	}
	h.writer, err = h.store.NewWriter(t.Context(), "test")
	require.NoError(t, err)
	h.Processing = h.worker()
	return h
}

// worker is the activities in a process that remembers nothing.
func (h *house) worker() *activities.Processing {
	return &activities.Processing{
		Store: h.store, Waker: h.waker, Hub: new(activities.Hub), Log: slog.New(slog.DiscardHandler), Keys: keys{},
		Adapters: func(string) (esp.Adapter, bool) { return fake{}, true },
	}
}

// webhook adds one that gets these types of events, all when none is named.
func (h *house) webhook(types ...event.Type) id.ID {
	w := id.New()
	settings, err := json.Marshal(webhook.Settings{Events: types, Dialect: webhook.DialectNative})
	require.NoError(h.t, err)
	_, err = h.db.Exec(`insert into webhooks (id, account_id, name, status, settings) values ($1, $2, 'w', 'active', $3)`, w, h.account, string(settings))
	require.NoError(h.t, err)
	_, err = h.db.Exec(`insert into webhook_progress (webhook_id) values ($1)`, w)
	require.NoError(h.t, err)
	return w
}

func (h *house) callback(body string) store.Callback {
	return store.Callback{ID: id.New(), AccountID: h.account, SourceID: h.sources[0], ReceivedAt: began.Add(time.Hour), Verified: true,
		Method: "POST", Path: []byte("/"), Query: []byte{}, Headers: []byte{}, Body: []byte(body)}
}

// unverified is a callback whose verification had to wait for the network.
func (h *house) unverified(body string) store.Callback {
	c := h.callback(body)
	c.Verified, c.Path, c.Query = false, []byte("/callbacks/fake/"+store.Masked), []byte("a=b")
	c.Headers = []byte("Host: hooks.example.com\r\n")
	return c
}

// group stores callbacks and makes them a group.
func (h *house) group(callbacks ...store.Callback) id.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx := context.Background()
	first := h.n + 1
	h.n += int64(len(callbacks))
	require.NoError(h.t, h.store.InsertCallbacks(ctx, h.writer, first, callbacks))
	g := store.Group{ID: id.New(), WriterID: h.writer, NFrom: first, NTo: h.n, IDFrom: callbacks[0].ID,
		IDTo: callbacks[len(callbacks)-1].ID, Callbacks: len(callbacks)}
	made, err := h.store.MakeGroup(ctx, g)
	require.NoError(h.t, err)
	require.True(h.t, made)
	return g.ID
}

func (h *house) post(bodies ...string) id.ID {
	var callbacks []store.Callback
	for _, b := range bodies {
		callbacks = append(callbacks, h.callback(b))
	}
	return h.group(callbacks...)
}

func process(p *activities.Processing, group id.ID) (activities.GroupResult, error) {
	ctx, in := context.Background(), activities.GroupInput{Group: group}
	for _, step := range []func(context.Context, activities.GroupInput) (activities.GroupResult, error){
		p.ParseCallbacks, p.CorrelateEvents, p.RouteEvents,
	} {
		if res, err := step(ctx, in); err != nil {
			return res, err
		}
	}
	return p.WakeWebhooks(ctx, in)
}

func (h *house) process(group id.ID) activities.GroupResult {
	h.t.Helper()
	res, err := process(h.Processing, group)
	require.NoError(h.t, err)
	return res
}

func (h *house) count(query string, args ...any) int {
	h.t.Helper()
	var n int
	require.NoError(h.t, h.db.Get(&n, query, args...))
	return n
}

var began = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func line(e event.Event) string {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func said(t event.Type, message string, minute int) event.Event {
	return event.Event{Type: t, MessageID: message, Recipient: message + "@example.com", OccurredAt: began.Add(time.Duration(minute) * time.Minute),
		EventID: fmt.Sprint(t, message, minute)}
}

func TestDeferredThenDelivered(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	all, bounces := h.webhook(), h.webhook(event.Bounced)
	told := 0
	h.OnGroupDone = func(id.ID) { told++ }

	g1 := h.post(line(said(event.Deferred, "a", 1)), line(said(event.Sent, "b", 2)))
	res := h.process(g1)
	require.Equal(t, activities.GroupResult{Callbacks: 2, Events: 2, Webhooks: 1}, res)
	require.Equal(t, map[id.ID]int{all: 1}, h.waker.woke, "only who got something is woken")
	require.Positive(t, told)
	h.process(h.post(line(said(event.Delivered, "a", 5))))

	messages, err := h.store.Messages(t.Context(), h.account, store.MessageFilter{Recipient: "A@example.com"}, store.Page{Limit: 10})
	require.NoError(t, err)
	require.Len(t, messages, 1)
	m := messages[0]
	require.Equal(t, "delivered", m.Status)
	require.Equal(t, "deferred", m.PreviousStatus)
	require.Equal(t, 1, m.Deferrals)
	require.Equal(t, 2, m.Events)

	_, timeline, err := h.store.Message(t.Context(), h.account, m.ID)
	require.NoError(t, err)
	require.Len(t, timeline, 2)
	var last event.Event
	require.NoError(t, json.Unmarshal(timeline[1].Data, &last))
	require.Equal(t, id.Event.Format(timeline[1].ID), last.ID)
	require.Equal(t, "fake", last.ESP)
	require.Equal(t, id.Source.Format(h.sources[0]), last.Source)
	require.Equal(t, id.Message.Format(m.ID), last.Message.ID)
	require.Equal(t, event.Deferred, last.Message.PreviousStatus)
	require.EqualValues(t, 240, *last.Message.SecondsToFinal)

	require.Equal(t, 1, h.count(`select count(*) from deferral_cohorts`))
	require.Equal(t, 3, h.count(`select sum(events) from volume`))
	require.Equal(t, 3, h.count(`select matched from webhook_progress where webhook_id = $1`, all))
	require.Zero(t, h.count(`select matched from webhook_progress where webhook_id = $1`, bounces))
	require.Equal(t, 2, h.count(`select count(*) from outbox where webhook_id = $1`, all))
}

func TestEveryStepMayRunAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	w := h.webhook()
	g := h.post(line(said(event.Deferred, "a", 1)), "garbage", line(said(event.Delivered, "a", 2)))
	in := activities.GroupInput{Group: g}
	for _, again := range []func(*activities.Processing){
		func(p *activities.Processing) { _, err := p.ParseCallbacks(t.Context(), in); require.NoError(t, err) },
		func(p *activities.Processing) { _, err := p.CorrelateEvents(t.Context(), in); require.NoError(t, err) },
		func(p *activities.Processing) { _, err := p.RouteEvents(t.Context(), in); require.NoError(t, err) },
		func(p *activities.Processing) { _, err := p.WakeWebhooks(t.Context(), in); require.NoError(t, err) },
	} {
		again(h.worker()) // each in a process that knows nothing of the one before
		again(h.Processing)
	}
	for range 2 {
		res, err := process(h.worker(), g)
		require.NoError(t, err)
		require.Equal(t, activities.GroupResult{Callbacks: 3, Events: 2, Quarantined: 1, Webhooks: 1}, res)
	}
	require.Equal(t, 2, h.count(`select count(*) from events`))
	require.Equal(t, 1, h.count(`select count(*) from quarantine`))
	require.Equal(t, 2, h.count(`select matched from webhook_progress where webhook_id = $1`, w))
	require.Equal(t, 1, h.count(`select count(*) from outbox`))
	require.Equal(t, 1, h.count(`select number from group_sequence`))
	require.Positive(t, h.waker.woke[w])
}

func TestRepeatsAreCountedNotRepeated(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	h.webhook()
	e := line(said(event.Bounced, "a", 1))
	res := h.process(h.post(e, e, e+"\n"+e))
	require.Equal(t, activities.GroupResult{Callbacks: 3, Events: 1, Repeats: 3, Webhooks: 1}, res)
	res = h.process(h.post(e))
	require.Equal(t, activities.GroupResult{Callbacks: 1, Repeats: 1}, res)
	require.Equal(t, 1, h.count(`select count(*) from events`))
	require.Equal(t, 4, h.count(`select sum(repeats) from event_keys`))
	require.Equal(t, 1, h.count(`select number from group_sequence`), "a group without news takes no number")
}

func TestOneCallbackDoesNotStopAnother(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	w := h.webhook()
	// What Postgres would refuse of its own accord is cleaned away before; so it is told to refuse.
	_, err := h.db.Exec(`alter table events add constraint poison check (position('poison'::bytea in data) = 0)`)
	require.NoError(t, err)
	h.EventsPerTx = 700

	const n = 2000
	var callbacks []store.Callback
	for i := range n {
		callbacks = append(callbacks, h.callback(line(said(event.Delivered, fmt.Sprint("m", i), i%60))))
	}
	poisoned := said(event.Bounced, "poisoned", 1)
	poisoned.Diagnostic = "poison"
	callbacks[1234].Body = []byte(line(said(event.Sent, "before", 1)) + "\n" + line(poisoned) + "\n" + line(said(event.Sent, "after", 1)))
	callbacks[0].Body = []byte("panic")
	callbacks[1].Body = []byte("garbage")
	callbacks[2].Body = []byte(line(said(event.Sent, "beside", 1)) + "\n{")
	callbacks[3].Headers = []byte("A: \x00\xff\r\n")
	hostile := said(event.Bounced, strings.Repeat("x", 5000)+"\x00\xff", 1)
	hostile.OccurredAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	hostile.Diagnostic = strings.Repeat("\x00", 1<<20)
	callbacks[4].Body = []byte(line(hostile))

	res := h.process(h.group(callbacks...))
	require.Equal(t, activities.GroupResult{Callbacks: n, Events: n - 5 + 3 + 1 - 1 + 1, Quarantined: 4, Webhooks: 1}, res)
	require.Equal(t, 4, h.count(`select count(*) from quarantine`))
	require.Equal(t, 1, h.count(`select count(*) from quarantine where callback_id = $1 and record = 1`, callbacks[1234].ID))
	require.Equal(t, res.Events, h.count(`select count(*) from events`))
	require.Equal(t, res.Events, h.count(`select matched from webhook_progress where webhook_id = $1`, w))
	require.Equal(t, res.Events, h.count(`select sum(length(event_ids) / 16) from outbox`))
	require.Equal(t, 0, h.count(`select count(*) from quarantine where reason like '%@%'`))
}

func TestCallbacksThatWereNotVerifiedYet(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	unverified := h.unverified(line(said(event.Bounced, "a", 1)))
	g := h.group(unverified, h.callback(line(said(event.Sent, "b", 1))))

	h.Keys = keys{esp.ErrUnverified}
	_, err := process(h.Processing, g)
	require.ErrorIs(t, err, esp.ErrUnverified, "the network will come back")

	h.Keys = keys{fmt.Errorf("%w: it carries another's signature", esp.ErrForged)}
	require.Equal(t, activities.GroupResult{Callbacks: 2, Events: 1, Quarantined: 1}, h.process(g))
	var reason string
	require.NoError(t, h.db.Get(&reason, `select reason from quarantine`))
	require.Contains(t, reason, "not authentic")

	h.Keys = keys{}
	require.Equal(t, activities.GroupResult{Callbacks: 1, Events: 1}, h.process(h.group(h.unverified(line(said(event.Bounced, "c", 1))))))
}

// What was found not authentic stays so when its group is read again.
func TestARefusalStands(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	g := h.group(h.unverified(line(said(event.Bounced, "a", 1))))
	h.Keys = keys{esp.ErrForged}
	_, err := h.ParseCallbacks(t.Context(), activities.GroupInput{Group: g})
	require.NoError(t, err)
	res, err := process(h.worker(), g) // whose keys find nothing wrong
	require.NoError(t, err)
	require.Equal(t, activities.GroupResult{Callbacks: 1, Quarantined: 1}, res)
}

func TestSuppressions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	active := func(recipient string) []string {
		holds := true
		rows, err := h.store.Suppressions(t.Context(), h.account, store.SuppressionFilter{Recipient: recipient, Active: &holds}, store.Page{Limit: 10})
		require.NoError(t, err)
		var reasons []string
		for _, r := range rows {
			reasons = append(reasons, r.Reason)
		}
		slices.Sort(reasons)
		return reasons
	}
	hard := said(event.Bounced, "a", 1)
	hard.BounceType, hard.Category = event.Hard, event.InvalidRecipient
	spam := said(event.Bounced, "b", 1)
	spam.BounceType, spam.Category = event.Hard, event.SpamContent
	h.process(h.post(line(hard), line(spam), line(said(event.Unsubscribed, "a", 5)), line(said(event.Complained, "c", 1))))
	require.Equal(t, []string{"bounced", "unsubscribed"}, active("a@example.com"))
	require.Empty(t, active("b@example.com"))
	require.Equal(t, []string{"complained"}, active("c@example.com"))

	h.process(h.post(line(said(event.Subscribed, "a", 3))))
	require.Equal(t, []string{"bounced", "unsubscribed"}, active("a@example.com"), "an older resubscription lifts nothing")
	h.process(h.post(line(said(event.Subscribed, "a", 8)), line(said(event.Subscribed, "c", 8)), line(said(event.Subscribed, "d", 8))))
	require.Equal(t, []string{"bounced"}, active("a@example.com"), "a later one lifts the unsubscription only")
	require.Equal(t, []string{"complained"}, active("c@example.com"))
	h.process(h.post(line(said(event.Unsubscribed, "a", 7)), line(said(event.Unsubscribed, "d", 7))))
	require.Equal(t, []string{"bounced"}, active("a@example.com"))
	require.Empty(t, active("d@example.com"), "told in the other order")
	h.process(h.post(line(said(event.Unsubscribed, "a", 9))))
	require.Equal(t, []string{"bounced", "unsubscribed"}, active("a@example.com"))
}

// Two halves of a story told under different names become one when somebody
// knows both.
func TestMessagesThatAreOneAreMerged(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	byESP := event.Event{Type: event.Delivered, MessageID: "77", Recipient: "a@example.com", OccurredAt: began}
	elsewhere := h.callback(line(event.Event{Type: event.Bounced, RFCMessageID: "<x@y>", Recipient: "A@Example.com",
		OccurredAt: began.Add(time.Minute), Asynchronous: event.Bool(true)}))
	elsewhere.SourceID = h.sources[1]
	both := byESP
	both.Type, both.RFCMessageID, both.OccurredAt = event.Sent, "<x@y>", began.Add(-time.Minute)

	h.process(h.post(line(byESP)))
	h.process(h.group(elsewhere))
	require.Equal(t, 2, h.count(`select count(*) from messages`))
	h.process(h.post(line(both)))

	messages, err := h.store.Messages(t.Context(), h.account, store.MessageFilter{}, store.Page{Limit: 10})
	require.NoError(t, err)
	require.Len(t, messages, 1)
	require.Equal(t, "bounced", messages[0].Status)
	require.True(t, messages[0].Asynchronous)
	require.Equal(t, 3, messages[0].Events)
	require.Equal(t, 1, h.count(`select count(distinct message_id) from events`))
	require.Equal(t, 2, h.count(`select count(*) from message_keys where message_id = $1`, messages[0].ID))
	require.Equal(t, 2, h.count(`select cardinality(keys) from messages`))

	// A message deleted without its keys stops nobody.
	_, err = h.db.Exec(`delete from messages`)
	require.NoError(t, err)
	both.Type = event.Opened
	h.process(h.post(line(both)))
	require.Equal(t, 1, h.count(`select count(*) from messages m where (select count(*) from message_keys k where k.message_id = m.id) = 2`))
}

func TestEventsWithoutAMessage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	h.process(h.post(
		line(event.Event{Type: event.Bounced, Recipient: "a@example.com", OccurredAt: began}),
		line(event.Event{Type: event.Unknown, EventID: "1"}),
		line(event.Event{Type: event.Bounced, EventID: "2"}),
	))
	require.Equal(t, 3, h.count(`select count(*) from events`))
	require.Equal(t, 1, h.count(`select count(*) from messages`), "an unmatched bounce is kept and visible")
	require.Equal(t, 2, h.count(`select count(*) from events where message_id = $1`, id.Nil))
}

type facts struct {
	Recipient       string     `db:"recipient"`
	Status          string     `db:"status"`
	StatusAt        time.Time  `db:"status_at"`
	PreviousStatus  string     `db:"previous_status"`
	Asynchronous    bool       `db:"asynchronous"`
	Deferrals       int        `db:"deferrals"`
	FirstEventAt    time.Time  `db:"first_event_at"`
	FirstDeferredAt *time.Time `db:"first_deferred_at"`
	FinalAt         *time.Time `db:"final_at"`
	State           []byte     `db:"state"`
	Events          int        `db:"events"`
}

func (h *house) facts() []facts {
	var all []facts
	require.NoError(h.t, h.db.Select(&all, `
		select recipient, status, status_at, previous_status, asynchronous, deferrals, first_event_at, first_deferred_at, final_at, state,
		       cardinality(timeline) as events
		from messages order by recipient, state`))
	return all
}

// Any permutation, any repetition, any split into groups, all of them at once:
// the same final state and facts.
func TestOrderRepetitionAndGroupingDoNotMatter(t *testing.T) {
	h := newHouse(t, storetest.New(t))
	w := h.webhook()
	types := []event.Type{event.Queued, event.Sent, event.Deferred, event.Deferred, event.Delivered, event.Bounced, event.Opened, event.Unsubscribed,
		event.Subscribed, event.Expired, event.Unknown}
	reset := func() {
		_, err := h.db.Exec(`truncate events, event_keys, messages, message_keys, outbox, suppressions, deferral_cohorts, volume;
			update webhook_progress set matched = 0`)
		require.NoError(t, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Event {
			message := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "message")
			e := said(rapid.SampledFrom(types).Draw(t, "type"), message, rapid.IntRange(0, 9).Draw(t, "minute"))
			switch rapid.IntRange(0, 4).Draw(t, "names") { // which of its names an event knows
			case 0:
				e.MessageID, e.RFCMessageID = "", "<"+message+"@x>"
			case 1:
				e.MessageID, e.ReturnPath = "", "b-"+message+"1234567890@x"
			default:
				e.RFCMessageID, e.ReturnPath = "<"+message+"@x>", "b-"+message+"1234567890@x"
			}
			if e.Type == event.Bounced && rapid.Bool().Draw(t, "asynchronous") {
				e.Asynchronous = event.Bool(true)
				e.EventID += "a"
			}
			e.EventID += fmt.Sprint(e.MessageID != "", e.RFCMessageID != "") // one event, one content
			return e
		}), 1, 30).Draw(t, "events")

		reset()
		h.process(h.post(joinLines(events)...))
		want, matched := h.facts(), h.count(`select matched from webhook_progress where webhook_id = $1`, w)

		reset()
		again := rapid.SliceOfN(rapid.SampledFrom(events), 0, 10).Draw(t, "repeats")
		shuffled := rapid.Permutation(append(slices.Clone(events), again...)).Draw(t, "order")
		var work errgroup.Group
		for len(shuffled) > 0 {
			n := rapid.IntRange(1, len(shuffled)).Draw(t, "size")
			group := h.post(joinLines(shuffled[:n])...)
			shuffled = shuffled[n:]
			p := h.worker()
			p.EventsPerTx = rapid.IntRange(1, 20).Draw(t, "per transaction")
			work.Go(func() error { _, err := process(p, group); return err })
		}
		require.NoError(t, work.Wait())
		require.Equal(t, want, h.facts())
		h.requireWatched()
		require.Equal(t, matched, h.count(`select matched from webhook_progress where webhook_id = $1`, w))
		require.Equal(t, matched, h.count(`select count(*) from events`))
		require.Equal(t, matched, h.count(`select coalesce(sum(length(event_ids) / 16), 0) from outbox`))
		require.Zero(t, h.count(`select count(*) from message_keys k where not exists (select from messages m where m.id = k.message_id and k.key = any(m.keys))`))
		require.Zero(t, h.count(`select count(*) from events e where not exists (select from messages m where m.id = e.message_id and e.id = any(m.timeline))`))
	})
}

// joinLines makes callbacks of one to three events.
func joinLines(events []event.Event) []string {
	var bodies []string
	for len(events) > 0 {
		n := min(1+len(bodies)%3, len(events))
		var lines []string
		for _, e := range events[:n] {
			lines = append(lines, line(e))
		}
		bodies, events = append(bodies, strings.Join(lines, "\n")), events[n:]
	}
	return bodies
}

// Readers of the outbox and of the feed go by number: once they have seen one,
// nothing may appear below it.
func TestNumbersAppearInOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	h.webhook()
	stop := make(chan struct{})
	var watch errgroup.Group
	watch.Go(func() error {
		seen := map[int64]bool{}
		highest := int64(0)
		for {
			var numbers []int64
			if err := h.db.Select(&numbers, `select number from outbox order by number`); err != nil {
				return err
			}
			for _, n := range numbers {
				if !seen[n] && n < highest {
					return fmt.Errorf("number %d appeared after %d", n, highest)
				}
				seen[n] = true
			}
			if len(numbers) > 0 {
				highest = numbers[len(numbers)-1]
			}
			select {
			case <-stop:
				return nil
			default:
			}
		}
	})
	var work errgroup.Group
	work.SetLimit(8)
	for i := range 60 {
		group := h.post(line(said(event.Sent, fmt.Sprint("m", i), 1)), line(said(event.Opened, "shared", i)))
		work.Go(func() error { _, err := process(h.worker(), group); return err })
	}
	require.NoError(t, work.Wait())
	close(stop)
	require.NoError(t, watch.Wait())
	require.Equal(t, 60, h.count(`select count(distinct number) from groups where step = 'done'`))
}

func TestGiantCallbacksGoInSeveralTransactions(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	h.EventsPerTx = 10
	var lines []string
	for i := range 37 {
		lines = append(lines, line(said(event.Sent, fmt.Sprint("m", i), 1)))
	}
	g := h.post(line(said(event.Sent, "first", 1)), strings.Join(lines, "\n"), line(said(event.Sent, "last", 1)))

	_, err := h.ParseCallbacks(t.Context(), activities.GroupInput{Group: g})
	require.NoError(t, err)
	// The second transaction fails, and a process that knows nothing goes on from there.
	_, err = h.db.Exec(`create function fail() returns trigger language plpgsql as $$ begin
		if new.position >= 12 then raise exception 'out of order' using errcode = 'XX000'; end if; return new; end $$;
		create trigger fail before insert on events for each row execute function fail()`)
	require.NoError(t, err)
	_, err = h.CorrelateEvents(t.Context(), activities.GroupInput{Group: g})
	require.Error(t, err)
	require.Equal(t, 10, h.count(`select count(*) from events`))
	_, err = h.db.Exec(`drop trigger fail on events`)
	require.NoError(t, err)
	res, err := process(h.worker(), g)
	require.NoError(t, err)
	require.Equal(t, activities.GroupResult{Callbacks: 3, Events: 39}, res)
	require.Equal(t, 39, h.count(`select count(distinct position) from events where group_id = $1`, g))
}

func TestUnknownGroup(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	_, err := process(h.Processing, id.New())
	require.True(t, errors.Is(err, store.ErrNotFound))
}
