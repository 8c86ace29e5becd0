package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/id"
)

// TestGuiltyFailsAlone posts what databases choke on among thousands of good
// callbacks: only the guilty may be cleaned, quarantined or refused.
func TestGuiltyFailsAlone(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "good and guilty", nil)
	h := p.newHook(t, receivers.endpoint("guilty"), from(s))
	l := newLedger(p, s)

	long := strings.Repeat("x", 10_000)
	at := func(key string, fields map[string]any) callback {
		all := map[string]any{"event_id": key, "message_id": "m-" + key, "email": key + "@" + people}
		maps.Copy(all, fields)
		return mailtrapEvent(all)
	}
	bytes := func(key, old, new string) callback {
		c := delivered(key)
		require.Contains(t, c.Body, old)
		c.Body = strings.ReplaceAll(c.Body, old, new)
		return c
	}
	query := func(key, q string) callback {
		c := delivered(key)
		c.query = q
		return c
	}
	// What has to become of each: an event, cleaned where needed, or a callback
	// in quarantine. Both are said where both are right.
	guilty := map[string]struct {
		sent callback
		want string
	}{
		"nul-in-texts":     {at("nul-in-texts", map[string]any{"category": "a\x00b", "custom_variables": map[string]any{"k\x00": "v\x00"}, "response": "550 \x00"}), "event"},
		"nul-in-recipient": {at("nul-in-recipient", map[string]any{"email": "a\x00b@" + people}), "either"},
		"nul-in-ids":       {at("nul-in-ids", map[string]any{"message_id": "m\x00\x00"}), "event"},
		"raw-nul":          {bytes("raw-nul", "Password reset", "Password\x00reset"), "either"},
		"nul-in-query":     {query("nul-in-query", "a=%00&b=\xff"), "event"},
		"bytes-in-header":  {delivered("bytes-in-header").with("User-Agent", "caf\xe9 \xff\xfe"), "event"},
		"long-recipient":   {at("long-recipient", map[string]any{"email": long + "@" + people}), "either"},
		"long-ids":         {at("long-ids", map[string]any{"message_id": long}), "event"},
		"long-texts":       {at("long-texts", map[string]any{"category": long, "response": strings.Repeat(long, 20)}), "event"},
		"year-50000":       {at("year-50000", map[string]any{"timestamp": 1515733334400}), "event"},
		"before-christ":    {at("before-christ", map[string]any{"timestamp": -99999999999}), "event"},
		"huge-numbers":     {bytes("huge-numbers", `"1042"`, "1e9999"), "either"},
		"invalid-utf8":     {bytes("invalid-utf8", "Password", "Pa\xff\xc3word"), "event"},
		"lone-surrogate":   {bytes("lone-surrogate", "Password", `\ud800`), "event"},
		"deep":             {bytes("deep", `"1042"`, strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), "either"},
		"not-json":         {callback{Method: http.MethodPost, Headers: map[string]string{"Content-Type": "application/json"}, Body: "\x00\x01 this is not JSON"}, "quarantine"},
		"damaged-gzip":     {delivered("damaged-gzip").with("Content-Encoding", "gzip"), "either"},
	}

	const good = 3000
	var ids sync.Map // name -> cb_…
	var all sync.WaitGroup
	all.Go(func() { l.burst(t.Context(), good) })
	for name, g := range guilty {
		all.Go(func() {
			time.Sleep(time.Duration(len(name)) * 5 * time.Millisecond) // spread over the flushes
			a, err := post(t.Context(), s, g.sent)
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%s: %v %v", name, a, err)
				return
			}
			ids.Store(name, a.id)
		})
	}
	all.Wait()
	require.False(t, t.Failed())

	eventually(t, 2*time.Minute, "everything settled", func() error { return l.settled(h) })
	events := map[string]int{}
	accepted := decodeEvents(t, h.requirePromises(t, h.Secret))
	for _, e := range accepted {
		events[e.EventID]++
	}
	l.mu.Lock()
	require.Len(t, l.answered, good)
	for key := range l.answered {
		require.Equal(t, 1, events[key], key)
	}
	l.mu.Unlock()

	quarantined := map[string]string{}
	rows, err := p.db.Query(`select callback_id, reason from quarantine where source_id = $1`, l.sourceID())
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var u id.ID
		var reason string
		require.NoError(t, rows.Scan(&u, &reason))
		quarantined[id.Callback.Format(u)] = reason
	}
	require.NoError(t, rows.Err())
	for name, g := range guilty {
		cb, _ := ids.Load(name)
		reason, isolated := quarantined[cb.(string)]
		delete(quarantined, cb.(string))
		t.Logf("%-17s events %d, quarantine %q", name, events[name], reason)
		switch g.want {
		case "event":
			require.Equal(t, 1, events[name], name)
			require.False(t, isolated, "%s: %s", name, reason)
		case "quarantine":
			require.Zero(t, events[name], name)
			require.True(t, isolated, name)
		default:
			require.True(t, isolated || events[name] == 1, "%s is neither an event nor in quarantine", name)
		}
		if isolated {
			require.NotEmpty(t, reason, name)
			require.NoError(t, p.callbackState(cb.(string), "quarantined"), name)
		}
		// Whatever became of it, its bytes are there.
		var raw []byte
		p.must(t, http.MethodGet, "/api/v1/callbacks/"+cb.(string)+"/raw", nil, &raw)
		require.Equal(t, g.sent.Body, string(raw), name)
	}
	require.Empty(t, quarantined, "nobody else is in quarantine")
}

// TestRefusedByPostgres has Postgres itself refuse a row at intake and an event
// in processing, as some value nobody thought of will one day: by a constraint,
// whose violation is a data error like the others.
func TestRefusedByPostgres(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "refused", nil)
	h := p.newHook(t, receivers.endpoint("refused"), from(s))
	l := newLedger(p, s)
	p.exec(t, `
		alter table callbacks add constraint e2e_row check (position('e2e-refuse-row'::bytea in body) = 0) not valid;
		alter table events add constraint e2e_event check (position('e2e-refuse-event'::bytea in data) = 0) not valid;`)
	defer p.exec(t, `
		alter table callbacks drop constraint e2e_row;
		alter table events drop constraint e2e_event;`)

	const good, each = 1000, 3
	var all sync.WaitGroup
	var rows, events sync.Map // ids of what was answered
	all.Go(func() { l.burst(t.Context(), good) })
	for i := range each {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 40 * time.Millisecond)
			a, err := post(t.Context(), s, mailtrapEvent(map[string]any{"event_id": fmt.Sprint("row-", i), "email": "e2e-refuse-row@" + people}))
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%v %v", a, err)
			}
			rows.Store(a.id, i)
		})
		all.Go(func() {
			time.Sleep(time.Duration(i) * 40 * time.Millisecond)
			a, err := post(t.Context(), s, mailtrapEvent(map[string]any{"event_id": fmt.Sprint("event-", i), "message_id": fmt.Sprint("m-", i), "email": "e2e-refuse-event@" + people}))
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%v %v", a, err)
			}
			events.Store(a.id, i)
		})
	}
	all.Wait()
	require.False(t, t.Failed())

	eventually(t, 2*time.Minute, "everything settled", func() error { return l.settled(h) })
	require.Len(t, h.requirePromises(t, h.Secret), good)
	events.Range(func(cb, _ any) bool {
		require.NoError(t, p.callbackState(cb.(string), "quarantined"))
		return true
	})
	var quarantined int
	require.NoError(t, p.db.QueryRow(`select count(*) from quarantine where source_id = $1`, l.sourceID()).Scan(&quarantined))
	require.Equal(t, each, quarantined)
	rows.Range(func(rejected, _ any) bool {
		u, err := id.Rejected.Parse(rejected.(string))
		require.NoError(t, err, "what has no place among the callbacks is kept with the rejected")
		var body []byte
		require.NoError(t, p.db.QueryRow(`select body from rejected_requests where id = $1`, u).Scan(&body))
		require.Contains(t, string(body), "e2e-refuse-row", "this is its only copy")
		return true
	})
}

// TestNULInAHeader: HTTP has no such header, so it is refused at the door and
// never reaches a flush.
func TestNULInAHeader(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "NUL in a header", nil)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	conn, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	defer conn.Close()
	body := delivered("nul").Body
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Odd: a\x00b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", u.Path, u.Host, len(body), body)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusBadRequest, res.StatusCode)
}
