// Package api is HTTP in: the callbacks of ESPs, /api/v1 for people and their
// programs, and what operators probe. Routes are the table in New; handlers
// are thin, and one place per half turns errors into responses (callbacks.go
// for ESPs, v1.go for /api/v1).
//
// The callback path is hot: it reads a request, asks a cache for its source,
// lets the adapter verify it, and waits for the flusher. It may import manage,
// intake and everything below.
package api

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"aftersend/config"
	"aftersend/esp"
	"aftersend/intake"
	"aftersend/manage"
	"aftersend/store"
)

// Deps is what the API works with. Extra, Keys and Status may be nil.
type Deps struct {
	Config   config.Config
	Store    *store.Store
	Flusher  *intake.Flusher
	Adapters func(name string) (esp.Adapter, bool) // by name or alias
	Manage   *manage.Manager
	Log      *slog.Logger
	Metrics  *prometheus.Registry
	Keys     esp.Keys                 // a cache: never asks the network
	Extra    map[string]http.Handler  // further pages by path prefix
	Status   func() map[string]string // state of what readiness does not depend on: "ok" or what is wrong
}

// New puts the API together. Without an admin address in the configuration it
// serves /livez, /readyz and /metrics as well.
func New(d Deps) http.Handler {
	gin.SetMode(gin.ReleaseMode) // a variable of the library: no banner, no route list
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.Use(recovery(d.Log))
	engine.NoRoute(func(c *gin.Context) { problem(c, http.StatusNotFound, "there is nothing at this address") })
	engine.NoMethod(func(c *gin.Context) {
		problem(c, http.StatusMethodNotAllowed, "this address does not take "+c.Request.Method)
	})

	callbacks := newCallbacks(d)
	for _, route := range []struct {
		methods, path string
		handle        gin.HandlerFunc
	}{
		{"POST GET HEAD", "/callbacks/:esp/:token", callbacks.receive},
		// The ESP adds to the path (SMTPeter looks for a file there).
		{"POST GET HEAD", "/callbacks/:esp/:token/*rest", callbacks.receive},
	} {
		for method := range strings.FieldsSeq(route.methods) {
			engine.Handle(method, route.path, route.handle)
		}
	}
	registerV1(engine, d)
	if d.Config.API.AdminAddr == "" {
		admin := Admin(d)
		for _, path := range []string{"/livez", "/readyz", "/metrics"} {
			engine.GET(path, gin.WrapH(admin))
			engine.HEAD(path, gin.WrapH(admin))
		}
	}
	for prefix, handler := range d.Extra {
		prefix = strings.TrimSuffix(prefix, "/")
		engine.Any(prefix, gin.WrapH(handler))
		engine.Any(prefix+"/*rest", gin.WrapH(handler))
	}
	return engine
}

// maxHeaderBytes is far above what ESPs send; net/http answers 431 above it.
const maxHeaderBytes = 64 << 10

// NewServer is an HTTP server that gives slow clients the configured time and
// no more: for the header and between requests here, for the body of a
// callback in its handler. There is no limit on the answer, since /api/v1 may
// stream.
func NewServer(c config.API, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Addr:              c.Addr,
		Handler:           h,
		ReadHeaderTimeout: c.ReadHeaderTimeout,
		IdleTimeout:       c.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // its lines name peers
	}
}

// recovery answers a panic with 500 and logs where it happened, not what was
// in hand.
func recovery(log *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // net/http knows what to do
			}
			log.Error("request panicked", "method", c.Request.Method, "route", c.FullPath(), "stack", string(debug.Stack()))
			if !c.Writer.Written() {
				problem(c, http.StatusInternalServerError, "something went wrong; the log says where")
			}
		}()
		c.Next()
	}
}

// fromLoopback says whether a request comes from a program on this machine
// that meant this machine: a loopback peer, a loopback Host (no DNS rebinding)
// and no sign of a proxy or tunnel in between.
func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); !strings.EqualFold(host, "localhost") && (err != nil || !ip.IsLoopback()) {
		return false
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || slices.Contains([]string{"Forwarded", "Via", "X-Real-Ip"}, name) {
			return false
		}
	}
	return true
}

// remoteIP is the peer, or the last address before the trusted proxies in
// X-Forwarded-For when the peer is one of them. Zero when unknown.
func remoteIP(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip := peer.Addr().Unmap()
	if len(trusted) == 0 {
		return ip
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && trusts(trusted, ip); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		ip = next.Unmap()
	}
	return ip
}

func trusts(prefixes []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// publicURL is the request's URL as its sender knows it, which some ESPs sign.
func publicURL(r *http.Request, c config.API) string {
	base := c.PublicURL
	if base == "" {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && trusts(c.TrustedProxies, peer.Addr().Unmap()) {
			if forwarded := r.Header.Get("X-Forwarded-Proto"); forwarded == "https" || forwarded == "http" {
				scheme = forwarded
			}
		}
		base = scheme + "://" + r.Host
	}
	return strings.TrimSuffix(base, "/") + r.URL.RequestURI()
}

// retryAfter is when ESPs and probes are asked to come back.
const retryAfter = 10 * time.Second
