package api

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"aftersend/config"
	"aftersend/esp"
	"aftersend/id"
	"aftersend/intake"
	"aftersend/manage"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
)

// plainESP has nothing but its token, and is told 429 to come back.
type plainESP struct{}

func (plainESP) Describe() esp.Description {
	return esp.Description{Name: "plain", Aliases: []string{"simple"}, RetryStatus: http.StatusTooManyRequests}
}
func (plainESP) Parse(esp.Request) (esp.Result, error) { return esp.Result{}, nil }

// signingESP verifies a header, cannot tell for some without the network, and
// has an opinion on probes: GET with a query is a callback.
type signingESP struct{}

func (signingESP) Describe() esp.Description {
	return esp.Description{Name: "signing", RetryStatus: http.StatusServiceUnavailable, Fields: []esp.Field{{Name: "secret", Required: true}}}
}
func (signingESP) Parse(esp.Request) (esp.Result, error) { return esp.Result{}, nil }
func (signingESP) Verify(ctx context.Context, req esp.Request, v esp.Verification) error {
	switch req.Header.Get("X-Signature") {
	case v.Secrets["secret"] + " " + req.URL + " " + string(req.Body):
		return nil
	case "elsewhere":
		_, err := v.Keys.TXT(ctx, "key.example.com")
		return err
	}
	return fmt.Errorf("%w: wrong signature", esp.ErrForged)
}
func (signingESP) Answer(req esp.Request, _ esp.Secrets) (esp.Reply, bool) {
	return esp.Reply{ContentType: "text/plain", Body: "hello"}, req.Method == http.MethodGet && req.RawQuery == ""
}

func testAdapters(name string) (esp.Adapter, bool) {
	a, ok := map[string]esp.Adapter{"plain": plainESP{}, "simple": plainESP{}, "signing": signingESP{}}[name]
	return a, ok
}

const testToken = "a-token-of-24-characters"

// callbackServer is the whole API over a database of its own, with one source
// per adapter.
type callbackServer struct {
	http.Handler
	deps Deps
	db   *sqlx.DB
	log  *bytes.Buffer
	stop func() // the flusher
}

func newCallbackServer(t *testing.T, change func(*Deps)) *callbackServer {
	db := storetest.New(t)
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	s := store.New(db, box)

	account := id.New()
	_, err = db.Exec(`insert into accounts (id, name) values ($1, 'test')`, account)
	require.NoError(t, err)
	for _, src := range []struct {
		esp, token string
		loopback   bool
	}{{"plain", testToken, false}, {"signing", testToken, false}, {"plain", "dev", true}} {
		u := id.New()
		_, err = db.Exec(`insert into sources (id, account_id, esp, name, token_hash, token_sealed, loopback, verification) values ($1, $2, $3, '', $4, '', $5, $6)`,
			u, account, src.esp, store.SourceTokenHash(src.esp, src.token), src.loopback,
			box.Seal([]byte(`{"secret":"s3cret"}`), "sources", "verification", u))
		require.NoError(t, err)
	}

	flusher := intake.New(s, intake.Options{Host: "test"}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { flusher.Run(ctx); close(done) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)

	var log bytes.Buffer
	d := Deps{
		Config: config.Default(), Store: s, Flusher: flusher, Adapters: testAdapters, Manage: manage.New(manage.Deps{Store: s}),
		Log: slog.New(slog.NewTextHandler(&log, nil)), Metrics: prometheus.NewRegistry(),
		Status: func() map[string]string { return map[string]string{"temporal": "unreachable"} },
	}
	d.Config.API.MaxBodyBytes = 100_000
	if change != nil {
		change(&d)
	}
	return &callbackServer{Handler: New(d), deps: d, db: db, log: &log, stop: stop}
}

func (s *callbackServer) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func (s *callbackServer) count(t *testing.T, query string, args ...any) int {
	var n int
	require.NoError(t, s.db.Get(&n, query, args...))
	return n
}

func gzipped(b []byte) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func deflated(b []byte) string {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func TestCallbackAnswers(t *testing.T) {
	s := newCallbackServer(t, nil)
	const plain, signing = "/callbacks/plain/" + testToken, "/callbacks/signing/" + testToken
	signed := func(body, url string) map[string]string {
		return map[string]string{"X-Signature": "s3cret http://example.com" + url + " " + body}
	}
	with := func(h map[string]string, name, value string) map[string]string { h[name] = value; return h }
	for _, c := range []struct {
		name, method, target, body string
		header                     map[string]string
		status                     int
		stored, rejected           bool
		unverified                 bool
	}{
		{name: "callback", method: "POST", target: plain, body: "x=1", status: 200, stored: true},
		{name: "by an alias", method: "POST", target: "/callbacks/simple/" + testToken, body: "x=1", status: 200, stored: true},
		{name: "with a query", method: "POST", target: plain + "?a=b", body: "x", status: 200, stored: true},
		{name: "bytes no text holds", method: "POST", target: plain, body: "\x00\xff\xfe", status: 200, stored: true},
		{name: "HEAD probe", method: "HEAD", target: plain, status: 200},
		{name: "GET probe", method: "GET", target: plain, status: 200},
		{name: "empty probe", method: "POST", target: plain, status: 200},
		{name: "unknown token", method: "POST", target: "/callbacks/plain/wrong", body: "x", status: 404, rejected: true},
		{name: "another ESP's token", method: "POST", target: "/callbacks/plain2/" + testToken, body: "x", status: 404, rejected: true},
		{name: "unknown ESP", method: "POST", target: "/callbacks/nobody/" + testToken, body: "x", status: 404, rejected: true},
		{name: "HEAD to nobody", method: "HEAD", target: "/callbacks/plain/wrong", status: 404, rejected: true},
		{name: "too large", method: "POST", target: plain, body: strings.Repeat("x", 100_001), status: 413, rejected: true},
		{name: "just not too large", method: "POST", target: plain, body: strings.Repeat("x", 100_000), status: 200, stored: true},
		{name: "gzip", method: "POST", target: plain, body: gzipped([]byte("x=1")), header: map[string]string{"Content-Encoding": "gzip"}, status: 200, stored: true},
		{name: "gzip bomb", method: "POST", target: plain, body: gzipped(make([]byte, 20_000_000)), header: map[string]string{"Content-Encoding": "gzip"}, status: 413, rejected: true},
		{name: "deflate bomb", method: "POST", target: plain, body: deflated(make([]byte, 20_000_000)), header: map[string]string{"Content-Encoding": "deflate"}, status: 413, rejected: true},
		{name: "damaged gzip is kept", method: "POST", target: plain, body: "no gzip", header: map[string]string{"Content-Encoding": "gzip"}, status: 200, stored: true},
		{name: "other methods", method: "PUT", target: plain, body: "x", status: 405},
		{name: "elsewhere", method: "POST", target: "/callbacks/plain", body: "x", status: 404},

		{name: "signed", method: "POST", target: signing, body: "x", header: signed("x", signing), status: 200, stored: true},
		{name: "signed with a query", method: "POST", target: signing + "?a=%20b", body: "x", header: signed("x", signing+"?a=%20b"), status: 200, stored: true},
		{name: "signed, inflated", method: "POST", target: signing, body: deflated([]byte("x")), header: with(signed("x", signing), "Content-Encoding", "deflate"), status: 200, stored: true},
		{name: "forged", method: "POST", target: signing, body: "y", header: signed("x", signing), status: 401, rejected: true},
		{name: "key not in the cache", method: "POST", target: signing, body: "x", header: map[string]string{"X-Signature": "elsewhere"}, status: 200, stored: true, unverified: true},
		{name: "its own probe", method: "GET", target: signing, status: 200},
		{name: "its callback by GET", method: "GET", target: signing + "?a=1", header: signed("", signing+"?a=1"), status: 200, stored: true},
		{name: "HEAD carries nothing", method: "HEAD", target: signing + "?a=1", status: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			callbacks, rejected := s.count(t, `select count(*) from callbacks`), s.count(t, `select count(*) from rejected_requests`)
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			w := s.do(r)
			require.Equal(t, c.status, w.Code, w.Body)
			require.Equal(t, btoi(c.stored), s.count(t, `select count(*) from callbacks`)-callbacks)
			require.Equal(t, btoi(c.rejected), s.count(t, `select count(*) from rejected_requests`)-rejected)
			switch {
			case c.stored:
				var answer struct{ Status, ID string }
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
				require.Equal(t, "accepted", answer.Status)
				cb, err := id.Callback.Parse(answer.ID)
				require.NoError(t, err)
				var body []byte
				var verified bool
				require.NoError(t, s.db.QueryRow(`select body, verified from callbacks where id = $1`, cb).Scan(&body, &verified))
				require.Equal(t, c.body, string(body), "the bytes on the wire")
				require.Equal(t, !c.unverified, verified)
			case c.status >= 400:
				require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			}
		})
	}
	require.Equal(t, 1, s.count(t, `select count(*) from rejected_requests where status_code = 401 and body = 'y'`), "a forged one keeps its body")
	require.Equal(t, "hello", s.do(httptest.NewRequest("GET", signing, nil)).Body.String())
	require.NotZero(t, testutil.CollectAndCount(s.deps.Metrics, "aftersend_callbacks_received_total"))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestCredentialsAreMaskedBeforeAnythingIsStored(t *testing.T) {
	s := newCallbackServer(t, nil)
	for _, target := range []string{"/callbacks/plain/" + testToken, "/callbacks/nobody/" + testToken, "/callbacks/signing/" + testToken} {
		r := httptest.NewRequest("POST", target, strings.NewReader("body"))
		r.Header.Set("Authorization", "Basic c2VjcmV0LXdvcmQ=")
		r.Header.Set("Proxy-Authorization", "Basic c2VjcmV0LXdvcmQ=")
		r.Header.Set("Cookie", "session=c2VjcmV0LXdvcmQ=")
		r.Header.Set("X-Original-URI", target)
		r.Header.Set("User-Agent", "kept")
		s.do(r)
	}
	for _, table := range []string{"callbacks", "rejected_requests"} {
		var rows []struct {
			Path, Headers []byte
		}
		require.NoError(t, s.db.Select(&rows, `select path, headers from `+table))
		require.NotEmpty(t, rows)
		for _, row := range rows {
			all := string(row.Path) + "\n" + string(row.Headers)
			require.NotContains(t, all, testToken)
			require.NotContains(t, all, "c2VjcmV0")
			require.Contains(t, all, "/[masked]\n")
			require.Contains(t, all, "Host: example.com\r\n")
			require.Contains(t, all, "User-Agent: kept\r\n")
			require.Contains(t, all, "Authorization: [masked]\r\n")
		}
	}
	require.NotEmpty(t, s.log.String())
	require.NotContains(t, s.log.String(), testToken)
	require.NotContains(t, s.log.String(), "192.0.2.1") // httptest's peer
	require.Contains(t, s.log.String(), "/callbacks/:esp/:token")
}

func TestTheESPIsToldToComeBackInItsOwnWay(t *testing.T) {
	s := newCallbackServer(t, nil)
	s.stop()
	w := s.do(httptest.NewRequest("POST", "/callbacks/plain/"+testToken, strings.NewReader("x")))
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}

func TestWhatTheDatabaseRefusesIsKeptElsewhere(t *testing.T) {
	s := newCallbackServer(t, nil)
	h := newTestCallbacks(s)
	h.submit = func(context.Context, store.Callback) (id.ID, error) { return id.Nil, intake.ErrRefused }
	w := serve(h, httptest.NewRequest("POST", "/callbacks/plain/"+testToken, strings.NewReader("x\x00")))
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `"kept","id":"rej_`)
	require.Equal(t, 1, s.count(t, `select count(*) from rejected_requests where status_code = 200 and body = $1`, []byte("x\x00")))

	h.reject = func(context.Context, store.Rejected) error { return errors.New("down") }
	w = serve(h, httptest.NewRequest("POST", "/callbacks/plain/"+testToken, strings.NewReader("x")))
	require.Equal(t, http.StatusTooManyRequests, w.Code, "200 is for what is kept")
}

func TestLoopbackSourcesAreForThisMachineOnly(t *testing.T) {
	s := newCallbackServer(t, nil)
	for name, c := range map[string]struct {
		peer, host string
		header     [2]string
		status     int
	}{
		"from here":           {peer: "127.0.0.1:1", host: "localhost:8080", status: 200},
		"over IPv6":           {peer: "[::1]:1", host: "[::1]:8080", status: 200},
		"from elsewhere":      {peer: "192.0.2.1:1", host: "localhost", status: 404},
		"by a rebound name":   {peer: "127.0.0.1:1", host: "evil.example", status: 404},
		"through a tunnel":    {peer: "127.0.0.1:1", host: "localhost", header: [2]string{"X-Forwarded-For", "203.0.113.1"}, status: 404},
		"through a proxy":     {peer: "127.0.0.1:1", host: "127.0.0.1", header: [2]string{"Forwarded", "for=203.0.113.1"}, status: 404},
		"through another one": {peer: "127.0.0.1:1", host: "127.0.0.1", header: [2]string{"Via", "1.1 proxy"}, status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/callbacks/plain/dev", strings.NewReader("x"))
			r.RemoteAddr, r.Host = c.peer, c.host
			if c.header[0] != "" {
				r.Header.Set(c.header[0], c.header[1])
			}
			require.Equal(t, c.status, s.do(r).Code)
		})
	}
}

func TestRemoteIP(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32")}
	for name, c := range map[string]struct {
		peer, forwarded, want string
		trusted               []netip.Prefix
	}{
		"the peer":                 {"192.0.2.1:5", "", "192.0.2.1", trusted},
		"nobody is trusted":        {"10.0.0.1:5", "203.0.113.9", "10.0.0.1", nil},
		"the peer is not trusted":  {"192.0.2.1:5", "203.0.113.9", "192.0.2.1", trusted},
		"what a proxy says":        {"10.0.0.1:5", "203.0.113.9", "203.0.113.9", trusted},
		"not what the client says": {"10.0.0.1:5", "1.1.1.1, 203.0.113.9", "203.0.113.9", trusted},
		"through two proxies":      {"127.0.0.1:5", "203.0.113.9, 10.1.1.1", "203.0.113.9", trusted},
		"nonsense ends the search": {"10.0.0.1:5", "203.0.113.9, unknown", "10.0.0.1", trusted},
		"IPv4 in IPv6":             {"[::ffff:192.0.2.1]:5", "", "192.0.2.1", trusted},
		"proxies and nothing else": {"10.0.0.1:5", "", "10.0.0.1", trusted},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		require.Equal(t, c.want, remoteIP(r, c.trusted).String(), name)
	}
}

func TestPublicURL(t *testing.T) {
	proxy := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for want, c := range map[string]config.API{
		"http://example.com/a%20b?c=d":       {},
		"https://example.com/a%20b?c=d":      {TrustedProxies: proxy},
		"https://in.example.org/a%20b?c=d":   {PublicURL: "https://in.example.org"},
		"https://in.example.org/x/a%20b?c=d": {PublicURL: "https://in.example.org/x/"},
	} {
		r := httptest.NewRequest("POST", "/a%20b?c=d", nil)
		r.RemoteAddr = "10.0.0.1:5"
		r.Header.Set("X-Forwarded-Proto", "https")
		require.Equal(t, want, publicURL(r, c))
	}
}

func TestASlowBodyIsCutOff(t *testing.T) {
	s := newCallbackServer(t, func(d *Deps) { d.Config.API.ReadTimeout = 100 * time.Millisecond })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := NewServer(s.deps.Config.API, s, s.deps.Log)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })

	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /callbacks/plain/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nslow", testToken)
	require.NoError(t, err)
	answer, err := io.ReadAll(conn) // to the end: the connection is closed
	require.NoError(t, err)
	require.Contains(t, string(answer), "408 Request Timeout")
	require.Zero(t, s.count(t, `select count(*) from callbacks`))
}

func TestHealth(t *testing.T) {
	s := newCallbackServer(t, func(d *Deps) {
		d.Extra = map[string]http.Handler{"/outbox": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })}
	})
	get := func(path string) *httptest.ResponseRecorder { return s.do(httptest.NewRequest("GET", path, nil)) }
	require.Equal(t, 200, get("/livez").Code)
	require.Equal(t, 200, get("/readyz").Code)
	require.JSONEq(t, `{"status":"ready","degraded":true,"parts":{"postgres":"ok","schema":"ok","temporal":"unreachable"}}`, get("/readyz?verbose").Body.String())
	get("/callbacks/plain/" + testToken)
	require.Contains(t, get("/metrics").Body.String(), `aftersend_callbacks_received_total{esp="plain",result="probe"} 1`)
	require.Equal(t, "/outbox/1", get("/outbox/1").Body.String())
	require.Equal(t, 404, get("/nothing").Code)

	require.NoError(t, s.db.Close())
	require.Equal(t, 503, get("/readyz").Code)
	require.Equal(t, 200, get("/livez").Code)
}

func TestAPanicIsAnAnswer(t *testing.T) {
	s := newCallbackServer(t, func(d *Deps) {
		d.Extra = map[string]http.Handler{"/boom": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret " + testToken) })}
	})
	require.Equal(t, 500, s.do(httptest.NewRequest("GET", "/boom", nil)).Code)
	require.NotContains(t, s.log.String(), testToken)
	require.Contains(t, s.log.String(), "stack=")
}

func TestSourcesAreLookedUpSeldom(t *testing.T) {
	now := time.Now()
	asked := 0
	result := error(nil)
	s := newSources(func(context.Context, []byte) (store.Source, error) { asked++; return store.Source{Name: "s"}, result },
		func() time.Time { return now })
	about := plainESP{}.Describe()
	get := func() error { _, err := s.byToken(t.Context(), &about, "t"); return err }
	for range 10 {
		require.NoError(t, get())
	}
	require.Equal(t, 1, asked)
	now = now.Add(sourceFresh)
	require.NoError(t, get())
	require.Equal(t, 2, asked)
	result = store.ErrNotFound // deleted
	now = now.Add(sourceFresh)
	for range 10 {
		require.ErrorIs(t, get(), store.ErrNotFound)
	}
	require.Equal(t, 3, asked)
	result = nil
	now = now.Add(unknownFresh)
	require.NoError(t, get())
	for i := range 3 * unknownsKept {
		result = store.ErrNotFound
		_, _ = s.byToken(t.Context(), &about, fmt.Sprint(i))
	}
	require.LessOrEqual(t, len(s.unknown), unknownsKept)
}
