package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"aftersend/config"
	"aftersend/esp"
	"aftersend/id"
	"aftersend/intake"
	"aftersend/store"
)

// callbacks takes in what ESPs post.
type callbacks struct {
	config   config.API
	adapters func(name string) (esp.Adapter, bool)
	sources  *sources
	submit   func(ctx context.Context, cb store.Callback) (id.ID, error)
	reject   func(ctx context.Context, r store.Rejected) error
	keys     esp.Keys
	log      *slog.Logger
	metrics  callbackMetrics

	known sync.Map // name as in the URL -> *provider

	keepKnown, keepUnknown *rate.Limiter // rejected requests kept, of known and unknown sources
	logLimit               *rate.Limiter
	unlogged               atomic.Int64
}

func newCallbacks(d Deps) *callbacks {
	h := &callbacks{
		config: d.Config.API, adapters: d.Adapters, keys: d.Keys, log: d.Log, metrics: newCallbackMetrics(d.Metrics),
		sources: newSources(d.Store.SourceByToken, time.Now), submit: d.Flusher.Submit, reject: d.Store.InsertRejected,
		keepKnown: rate.NewLimiter(50, 100), keepUnknown: rate.NewLimiter(2, 20), logLimit: rate.NewLimiter(20, 50),
	}
	if h.keys == nil {
		h.keys = noKeys{}
	}
	return h
}

// provider is what the path needs to know of an ESP, worked out once.
type provider struct {
	about    esp.Description
	verifier esp.Verifier // nil: there is only the token
	answerer esp.Answerer // nil: the usual probes
	accepted prometheus.Counter
}

func (h *callbacks) provider(name string) (*provider, bool) {
	if p, ok := h.known.Load(name); ok {
		return p.(*provider), true
	}
	adapter, ok := h.adapters(name)
	if !ok {
		return nil, false
	}
	p := &provider{about: adapter.Describe()}
	p.verifier, _ = adapter.(esp.Verifier)
	p.answerer, _ = adapter.(esp.Answerer)
	p.accepted = h.metrics.received.WithLabelValues(p.about.Name, accepted)
	if name == strings.ToLower(name) { // a handful of names, not every spelling somebody thinks of
		h.known.Store(name, p)
	}
	return p, true
}

// request is one request on its way. Requests are pooled: the buffers live
// until the flusher has written them, which is before receive returns.
type request struct {
	start    time.Time
	provider *provider    // nil: no such ESP
	source   *knownSource // nil: no such source
	cb       store.Callback
	body     []byte // backs cb.Body
	rest     []byte // backs cb.Path, cb.Query and cb.Headers
}

// maxPooled bounds the buffers that are kept for the next request, in bytes.
const maxPooled = 64 << 10

var requests = sync.Pool{New: func() any { return new(request) }}

func (rq *request) release() {
	body, rest := rq.body[:0], rq.rest[:0]
	if cap(body) > maxPooled {
		body = nil
	}
	if cap(rest) > maxPooled {
		rest = nil
	}
	*rq = request{body: body, rest: rest}
	requests.Put(rq)
}

// verdict is how a request ends.
type verdict struct {
	result string
	status int
	reason string // for a person: what is wrong
	err    error  // what only the log says, by class
	keep   bool   // among the rejected requests
	id     id.ID  // when accepted
	reply  esp.Reply
}

// receive answers a request to a callback address. 200 with an id means that
// it is on disk.
func (h *callbacks) receive(c *gin.Context) {
	rq := requests.Get().(*request)
	defer rq.release()
	rq.start = time.Now()
	v := h.take(c, rq)
	if v.keep {
		h.keepRejected(c, rq, &v)
	}
	h.answer(c, rq, v)
}

// take carries a request to the flusher, or to where it must not go on.
func (h *callbacks) take(c *gin.Context, rq *request) verdict {
	r := c.Request
	var ok bool
	if rq.provider, ok = h.provider(c.Param("esp")); !ok {
		return verdict{result: unknownSource, status: http.StatusNotFound, reason: "no such ESP", keep: true}
	}
	source, err := h.sources.byToken(r.Context(), &rq.provider.about, c.Param("token"))
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && source.Loopback && !fromLoopback(r):
		return verdict{result: unknownSource, status: http.StatusNotFound, reason: "no such source", keep: true}
	case err != nil:
		return h.comeBack(rq, unavailable, err)
	}
	rq.source = source

	inflated, v, ok := h.read(c, rq)
	if !ok {
		return v
	}
	if reply, ok := h.probe(rq, r, inflated); ok {
		return verdict{result: probe, status: reply.Status, reply: reply}
	}
	h.record(c, rq)
	if source.common {
		if err := esp.VerifyCommon(h.seen(rq, r, inflated), source.Secrets); err != nil {
			if source.Secrets["username"] != "" {
				// Many a client sends what its URL holds only when asked.
				c.Header("WWW-Authenticate", `Basic realm="callbacks"`)
			}
			return verdict{result: forged, status: http.StatusUnauthorized, reason: err.Error(), keep: true}
		}
	}
	if rq.cb.Verified, err = h.verify(rq, r, inflated); err != nil {
		return verdict{result: forged, status: http.StatusUnauthorized, reason: err.Error(), keep: true}
	}
	rq.cb.ID, err = h.submit(r.Context(), rq.cb)
	switch {
	case err == nil:
		return verdict{result: accepted, status: http.StatusOK, id: rq.cb.ID}
	case errors.Is(err, intake.ErrRefused):
		return verdict{result: refused, status: http.StatusOK, reason: "the database refuses its data", err: err, keep: true}
	case errors.Is(err, intake.ErrBusy):
		return h.comeBack(rq, busy, err)
	}
	return h.comeBack(rq, unavailable, err)
}

// comeBack is the answer that makes this ESP post again.
func (h *callbacks) comeBack(rq *request, result string, err error) verdict {
	status := cmp.Or(rq.provider.about.RetryStatus, http.StatusServiceUnavailable)
	return verdict{result: result, status: status, reason: "it could not be stored; post it again later", err: err}
}

// read reads the body, in time and within the limit, which holds for the
// inflated bytes as well. It returns these; rq.body gets the bytes on the wire.
func (h *callbacks) read(c *gin.Context, rq *request) (inflated []byte, v verdict, ok bool) {
	r := c.Request
	limit := h.config.MaxBodyBytes
	large := verdict{result: tooLarge, status: http.StatusRequestEntityTooLarge, reason: "larger than the limit, inflated", keep: true}
	if r.ContentLength > limit {
		c.Header("Connection", "close")
		return nil, large, false
	}
	if r.ContentLength != 0 && h.config.ReadTimeout > 0 {
		// Not supported only by writers of tests. It is taken back by net/http between requests.
		_ = http.NewResponseController(c.Writer).SetReadDeadline(rq.start.Add(h.config.ReadTimeout))
	}
	var err error
	if rq.body, err = readAll(rq.body[:0], r.Body, r.ContentLength, limit); err != nil {
		c.Header("Connection", "close")
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, verdict{result: broken, status: http.StatusRequestTimeout, reason: "the body took too long"}, false
		}
		return nil, verdict{result: broken, status: http.StatusBadRequest, reason: "the body ended early"}, false
	}
	if int64(len(rq.body)) > limit {
		c.Header("Connection", "close")
		return nil, large, false
	}
	inflated, err = store.Inflate(rq.body, r.Header.Get("Content-Encoding"), limit)
	if err != nil {
		return nil, large, false
	}
	return inflated, v, true
}

// readAll appends at most limit+1 bytes to dst. The declared length is believed
// up to maxPooled only, so that memory grows with what came.
func readAll(dst []byte, r io.Reader, declared, limit int64) ([]byte, error) {
	if want := int(min(declared, maxPooled)) + 1; cap(dst) < want {
		dst = make([]byte, 0, max(want, 1024))
	}
	for int64(len(dst)) <= limit {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		room := min(int64(cap(dst)), limit+1) - int64(len(dst))
		n, err := r.Read(dst[len(dst) : len(dst)+int(room)])
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// probe answers what is no callback: a look whether we are there. The ESP's
// adapter is asked first; it may take a GET for a callback.
func (h *callbacks) probe(rq *request, r *http.Request, body []byte) (esp.Reply, bool) {
	if r.Method == http.MethodPost && len(body) > 0 {
		return esp.Reply{}, false
	}
	if rq.provider.answerer == nil {
		return esp.Reply{Status: http.StatusOK}, true
	}
	reply, ok := rq.provider.answerer.Answer(h.seen(rq, r, body), rq.source.Secrets)
	reply.Status = cmp.Or(reply.Status, http.StatusOK)
	nothing := r.Method == http.MethodHead || r.Method == http.MethodPost && r.URL.RawQuery == ""
	return reply, ok || nothing
}

// seen is the request as adapters see it.
func (h *callbacks) seen(rq *request, r *http.Request, body []byte) esp.Request {
	if r.Header["Host"] == nil {
		r.Header["Host"] = []string{r.Host} // net/http takes it out
	}
	return esp.Request{
		Method: r.Method, URL: publicURL(r, h.config), Path: r.URL.Path, RawQuery: r.URL.RawQuery, Header: r.Header, Body: body,
		RemoteIP: remoteIP(r, h.config.TrustedProxies), ReceivedAt: rq.start.UTC(),
	}
}

// record makes the row to store. The token is nowhere in it.
func (h *callbacks) record(c *gin.Context, rq *request) {
	r := c.Request
	if r.Header["Host"] == nil {
		r.Header["Host"] = []string{r.Host}
	}
	token := c.Param("token")
	b := append(rq.rest[:0], "/callbacks/"...)
	b = append(append(append(b, c.Param("esp")...), '/'), store.Masked...)
	if c.Param("rest") != "" {
		b = append(b, below(r.URL.EscapedPath())...)
	}
	path := len(b)
	b = append(b, r.URL.RawQuery...)
	query := len(b)
	b = store.AppendHeaders(b, r.Header)
	headers := b[query:]
	if len(token) >= minSecret && bytes.Contains(headers, []byte(token)) {
		// Proxies repeat the path there: X-Original-URI, Referer.
		headers = bytes.ReplaceAll(headers, []byte(token), []byte(store.Masked))
	}
	rq.rest = b
	rq.cb = store.Callback{
		ReceivedAt: rq.start.UTC(), RemoteIP: remoteIP(r, h.config.TrustedProxies),
		Method: r.Method, Path: b[:path:path], Query: b[path:query:query], Headers: headers, Body: rq.body,
	}
	if rq.source != nil {
		rq.cb.AccountID, rq.cb.SourceID, rq.cb.ESP = rq.source.AccountID, rq.source.ID, rq.provider.about.Name
	}
}

// below is what follows the token in the path of a callback, as it was posted.
func below(path string) string {
	parts := strings.SplitN(path, "/", 5) // "", "callbacks", ESP, token, the rest
	if len(parts) < 5 {
		return ""
	}
	return "/" + parts[4]
}

// minSecret is how long a token is at least that is looked for elsewhere; a
// short one ("dev") is no secret, and a word.
const minSecret = 16

// verify says whether the callback is authentic (nil) and that was certain
// (true). What needs the network is verified before it is parsed.
func (h *callbacks) verify(rq *request, r *http.Request, body []byte) (bool, error) {
	if rq.provider.verifier == nil || !rq.source.verifiable {
		return true, nil
	}
	err := rq.provider.verifier.Verify(r.Context(), h.seen(rq, r, body), esp.Verification{
		Secrets: rq.source.Secrets, Keys: h.keys, Now: rq.start.UTC(),
	})
	if errors.Is(err, esp.ErrForged) {
		return false, err
	}
	return err == nil, nil
}

// noKeys is a cache that holds nothing.
type noKeys struct{}

func (noKeys) Certificate(context.Context, string) ([]byte, error) { return nil, esp.ErrUnverified }
func (noKeys) TXT(context.Context, string) (string, error)         { return "", esp.ErrUnverified }

// maxKeptBody is the largest body kept of a forged request, in bytes.
const maxKeptBody = 1 << 20

// keepRejected keeps a request that goes no further, within limits. What the
// database refused is kept in any case: this is its only copy, and 200 is the
// answer only when it is there.
func (h *callbacks) keepRejected(c *gin.Context, rq *request, v *verdict) {
	limit := h.keepUnknown
	if rq.source != nil {
		limit = h.keepKnown
	}
	if v.result != refused && !limit.Allow() {
		h.metrics.dropped.Inc()
		return
	}
	if rq.cb.Method == "" {
		h.record(c, rq)
	}
	row := store.Rejected{
		ID: id.New(), ReceivedAt: rq.cb.ReceivedAt, RemoteIP: rq.cb.RemoteIP, Reason: v.reason, Status: v.status,
		Method: rq.cb.Method, Path: rq.cb.Path, Query: rq.cb.Query, Headers: rq.cb.Headers,
	}
	if rq.provider != nil {
		row.ESP = rq.provider.about.Name
	}
	if rq.source != nil {
		row.AccountID, row.SourceID = rq.source.AccountID, rq.source.ID
		if v.result == refused || v.result == forged && len(rq.body) <= maxKeptBody {
			row.Body = rq.body
		}
	}
	// The sender may be gone; the row is wanted all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), keepTimeout)
	defer cancel()
	err := h.reject(ctx, row)
	switch {
	case err == nil && v.result == refused:
		v.reply.Body = `{"status":"kept","id":"` + id.Rejected.Format(row.ID) + `"}`
	case err != nil && v.result == refused:
		*v = h.comeBack(rq, unavailable, err)
	case err != nil && v.err == nil:
		v.err = err
	}
}

const keepTimeout = 5 * time.Second

var (
	jsonType    = []string{"application/json"}
	nothingMore = []string{"nosniff"}
)

// answer writes the response, counts it, and logs what went wrong.
func (h *callbacks) answer(c *gin.Context, rq *request, v verdict) {
	header := c.Writer.Header()
	header["X-Content-Type-Options"] = nothingMore
	switch {
	case v.result == accepted:
		rq.provider.accepted.Inc()
		h.metrics.seconds.Observe(time.Since(rq.start).Seconds())
		header["Content-Type"] = jsonType
		_, _ = c.Writer.WriteString(`{"status":"accepted","id":"` + id.Callback.Format(v.id) + `"}`)
		return
	case v.result == probe:
		if v.reply.ContentType != "" {
			header.Set("Content-Type", v.reply.ContentType)
		}
		c.Status(v.status)
		_, _ = c.Writer.WriteString(v.reply.Body)
	case v.result == refused:
		header["Content-Type"] = jsonType
		_, _ = c.Writer.WriteString(v.reply.Body)
	default:
		if v.result == busy || v.result == unavailable {
			header.Set("Retry-After", seconds(retryAfter))
		}
		problem(c, v.status, v.reason)
	}
	name := ""
	if rq.provider != nil {
		name = rq.provider.about.Name
	}
	h.metrics.received.WithLabelValues(name, v.result).Inc()
	if v.result != probe {
		h.logFailure(c, rq, v, name)
	}
}

// logFailure writes one line, of the route and never the path, and not one for
// every request of a flood.
func (h *callbacks) logFailure(c *gin.Context, rq *request, v verdict, name string) {
	if !h.logLimit.Allow() {
		h.unlogged.Add(1)
		return
	}
	level := slog.LevelWarn
	if v.result == unavailable || v.result == refused {
		level = slog.LevelError
	}
	source := ""
	if rq.source != nil {
		source = id.Source.Format(rq.source.ID)
	}
	h.log.LogAttrs(c.Request.Context(), level, "callback not accepted",
		slog.String("route", c.FullPath()), slog.String("method", c.Request.Method), slog.String("esp", name), slog.String("source", source),
		slog.String("result", v.result), slog.Int("status", v.status), slog.String("reason", v.reason), slog.String("error", store.Class(v.err)),
		slog.Int("bytes", len(rq.body)), slog.Duration("took", time.Since(rq.start)), slog.Int64("unlogged_before", h.unlogged.Swap(0)))
}
