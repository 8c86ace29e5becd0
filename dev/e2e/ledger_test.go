package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/id"
)

// ledger writes down what one source was promised, and holds the product to
// it: answered 200 means one event, and that event at every matching webhook.
// All its callbacks are Mailtrap's, with one event whose event_id is the key.
// Two after another are about the same message: deferred, then delivered.
type ledger struct {
	p      *product
	source source
	serial atomic.Int64

	mu       sync.Mutex
	answered map[string]string // key -> id of the callback that was answered 200
	unclear  map[string]bool   // posted at least once without an answer: may be there or not
	odd      []string          // answers that no ESP should get
	repeats  int               // callbacks that told nothing new, once requireKept has counted them
}

func newLedger(p *product, s source) *ledger {
	return &ledger{p: p, source: s, answered: map[string]string{}, unclear: map[string]bool{}}
}

// key makes a new event key.
func (l *ledger) key() string {
	return fmt.Sprintf("%s-%d", l.source.ID[len(l.source.ID)-6:], l.serial.Add(1)-1)
}

// message is the message that an event of a ledger is about.
func message(key string) string {
	source, serial, _ := strings.Cut(key, "-")
	n, err := strconv.Atoi(serial)
	if err != nil {
		return key // not one of a ledger's own
	}
	return fmt.Sprintf("%s-m%d", source, n/2)
}

// callback tells of the event with this key.
func (l *ledger) callback(key string) callback {
	word := map[string]any{"event_id": key, "message_id": message(key), "email": message(key) + "@" + people}
	if last := key[len(key)-1]; (last-'0')%2 == 0 {
		word["event"], word["response"], word["response_code"] = "soft bounce", "451 4.7.1 try again later", 451
	}
	return mailtrapEvent(word)
}

// deliver posts a callback as ESPs do: again and again, until it is answered
// 200 or ctx ends.
func (l *ledger) deliver(ctx context.Context, key string, c callback) {
	for ctx.Err() == nil {
		a, err := post(ctx, l.source, c)
		l.mu.Lock()
		switch {
		case err != nil:
			l.unclear[key] = true
		case a.status == http.StatusOK && strings.HasPrefix(a.id, "cb_"):
			l.answered[key] = a.id
			delete(l.unclear, key)
			l.mu.Unlock()
			return
		case a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests:
			l.odd = append(l.odd, fmt.Sprintf("%s: %d %s", key, a.status, a.id))
			l.mu.Unlock()
			return
		default: // told to come back, so it must not be there; but a commit may have been unclear
			l.unclear[key] = true
			if a.retryAfter == "" {
				l.odd = append(l.odd, fmt.Sprintf("%s: %d without Retry-After", key, a.status))
			}
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// burst posts n callbacks from a few connections at once and returns when all
// are answered.
func (l *ledger) burst(ctx context.Context, n int) {
	const connections = 16
	todo := make(chan string, n)
	for range n {
		todo <- l.key()
	}
	close(todo)
	var all sync.WaitGroup
	for range min(n, connections) {
		all.Go(func() {
			for key := range todo {
				l.deliver(ctx, key, l.callback(key))
			}
		})
	}
	all.Wait()
}

// keepPosting posts small bursts until the returned function is called, which
// waits until everything posted is answered.
func (l *ledger) keepPosting(t *testing.T, n int, every time.Duration) (stop func()) {
	ctx, giveUp := context.WithCancel(context.Background())
	t.Cleanup(giveUp)
	quit := make(chan struct{})
	var bursts sync.WaitGroup
	bursts.Go(func() {
		for {
			bursts.Go(func() { l.burst(ctx, n) })
			select {
			case <-quit:
				return
			case <-time.After(every):
			}
		}
	})
	return sync.OnceFunc(func() {
		close(quit)
		late := time.AfterFunc(2*time.Minute, giveUp)
		bursts.Wait()
		if !late.Stop() {
			t.Errorf("source %s: callbacks were refused for minutes", l.source.ID)
		}
	})
}

// stored is one event as the product keeps it, in the order of the feed.
type stored struct {
	ID  string
	Key string
	raw []byte
}

func (l *ledger) events() ([]stored, error) {
	rows, err := l.p.db.Query(`
		select e.data from events e join groups g on g.id = e.group_id
		where e.source_id = $1 order by g.number, e.position`, l.sourceID())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []stored
	for rows.Next() {
		var s stored
		if err := rows.Scan(&s.raw); err != nil {
			return nil, err
		}
		var e struct {
			ID      string `json:"id"`
			EventID string `json:"event_id"`
		}
		if err := json.Unmarshal(s.raw, &e); err != nil {
			return nil, err
		}
		s.ID, s.Key = e.ID, e.EventID
		out = append(out, s)
	}
	return out, rows.Err()
}

func (l *ledger) sourceID() id.ID {
	u, err := id.Source.Parse(l.source.ID)
	if err != nil {
		panic(err)
	}
	return u
}

func (h *hook) webhookID() id.ID {
	u, err := id.Webhook.Parse(h.ID)
	if err != nil {
		panic(err)
	}
	return u
}

// progress are a webhook's conservation numbers.
type progress struct{ matched, delivered, skipped, setAside int }

func (p *product) progress(h *hook) (n progress, err error) {
	err = p.db.QueryRow(`select matched, delivered, skipped, set_aside from webhook_progress where webhook_id = $1`, h.webhookID()).
		Scan(&n.matched, &n.delivered, &n.skipped, &n.setAside)
	return n, err
}

// settled reports what is still under way: callbacks that no finished group
// holds, and events that h has not accepted.
func (l *ledger) settled(h *hook) error {
	var waiting int
	err := l.p.db.QueryRow(`
		select count(*) from callbacks c
		left join groups g on g.writer_id = c.writer_id and c.n between g.n_from and g.n_to
		where c.source_id = $1 and g.step is distinct from 'done'`, l.sourceID()).Scan(&waiting)
	if err != nil {
		return err
	}
	if waiting > 0 {
		return fmt.Errorf("source %s: %d callbacks are not processed", l.source.ID, waiting)
	}
	n, err := l.p.progress(h)
	if err != nil {
		return err
	}
	if n.matched != n.delivered {
		return fmt.Errorf("webhook %s: %d of %d matching events are delivered", h.ID, n.delivered, n.matched)
	}
	return nil
}

// requireKept waits until everything is settled and compares what was answered
// with what was processed and with what h, the one webhook of this source, got.
func (l *ledger) requireKept(t *testing.T, h *hook, deadline time.Duration) {
	t.Helper()
	eventually(t, deadline, "everything processed and delivered", func() error { return l.settled(h) })

	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.odd, "answers")

	// Answered means processed, once.
	events, err := l.events()
	require.NoError(t, err)
	times := map[string]int{}
	messages := map[string]bool{}
	for _, e := range events {
		times[e.Key]++
		messages[message(e.Key)] = true
	}
	for key, callback := range l.answered {
		require.Equal(t, 1, times[key], "events of %s, whose callback %s was answered 200", key, callback)
		delete(times, key)
	}
	for key, n := range times {
		require.True(t, l.unclear[key], "event %s was never posted", key)
		require.Equal(t, 1, n, "events of %s, which was posted without an answer", key)
	}
	l.requireStored(t)

	l.requireMessages(t, len(messages))

	// Processed means delivered, in order, as stored.
	accepted := h.requirePromises(t, h.Secret)
	require.Equal(t, len(events), len(accepted), "events accepted by the endpoint %s", h.path)
	for i, e := range events {
		require.Equal(t, e.ID, accepted[i].ID, "event %d in outbox order", i)
		require.Equal(t, string(e.raw), string(accepted[i].JSON), "the event as stored")
	}

	// The numbers add up.
	n, err := l.p.progress(h)
	require.NoError(t, err)
	require.Equal(t, progress{matched: len(events), delivered: len(events)}, n, "webhook: matched = delivered + waiting + skipped + set aside")
	var callbacks, repeats, quarantined, volume int
	require.NoError(t, l.p.db.QueryRow(`
		select (select count(*) from callbacks where source_id = $1),
		       (select coalesce(sum(k.repeats), 0) from event_keys k join events e on e.id = k.event_id where e.source_id = $1),
		       (select count(*) from quarantine where source_id = $1),
		       (select coalesce(sum(v.events), 0) from volume v where v.source_id = $1)`, l.sourceID()).
		Scan(&callbacks, &repeats, &quarantined, &volume))
	require.Zero(t, quarantined, "quarantined")
	require.Equal(t, callbacks, len(events)+repeats, "source: callbacks = events + repeats")
	require.Equal(t, len(events), volume, "volume counts every event once")
	l.repeats = repeats
	t.Logf("%s: %d callbacks with %d repeats made %d events, delivered in %d requests", l.source.Name, callbacks, repeats, len(events), len(h.all()))
}

// requireStored checks that every callback that was answered is there under
// the id it was answered with.
func (l *ledger) requireStored(t *testing.T) {
	t.Helper()
	there := map[string]bool{}
	rows, err := l.p.db.Query(`select id from callbacks where source_id = $1`, l.sourceID())
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var u id.ID
		require.NoError(t, rows.Scan(&u))
		there[id.Callback.Format(u)] = true
	}
	require.NoError(t, rows.Err())
	for key, callback := range l.answered {
		require.True(t, there[callback], "callback %s with event %s was answered 200 and is not stored", callback, key)
	}
}

// requireMessages checks that the events made the messages they tell of, each
// counted once, whatever was done twice.
func (l *ledger) requireMessages(t *testing.T, n int) {
	t.Helper()
	var messages, wrong int
	require.NoError(t, l.p.db.QueryRow(`
		select count(*), count(*) filter (where (m.status, m.deferrals, cardinality(m.timeline)) is distinct from
			(case when told.delivered > 0 then 'delivered' else 'deferred' end, told.deferred, told.events))
		from messages m
		join (select message_id, count(*) as events, count(*) filter (where type = 'deferred') as deferred,
		             count(*) filter (where type = 'delivered') as delivered
		      from events where source_id = $1 group by message_id) told on told.message_id = m.id`, l.sourceID()).Scan(&messages, &wrong))
	require.Equal(t, n, messages, "messages")
	require.Zero(t, wrong, "messages whose state is not that of their events")
}
