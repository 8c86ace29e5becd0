package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"aftersend/config"
	"aftersend/id"
	"aftersend/store"
)

// newTestCallbacks is the callback handler of s, to be tampered with.
func newTestCallbacks(s *callbackServer) *callbacks {
	d := s.deps
	d.Metrics = prometheus.NewRegistry()
	return newCallbacks(d)
}

func serve(h *callbacks, r *http.Request) *httptest.ResponseRecorder {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Handle(r.Method, "/callbacks/:esp/:token", h.receive)
	w := httptest.NewRecorder()
	engine.ServeHTTP(w, r)
	return w
}

// BenchmarkReceive is the cost of a callback of 500 bytes without a network
// and a database: routing, look-up, recording, answering.
func BenchmarkReceive(b *testing.B) {
	h := &callbacks{
		config: config.Default().API, adapters: testAdapters, keys: noKeys{}, log: slog.New(slog.DiscardHandler),
		metrics: newCallbackMetrics(nil), logLimit: rate.NewLimiter(0, 0),
		sources: newSources(func(context.Context, []byte) (store.Source, error) { return store.Source{ID: id.New()}, nil }, time.Now),
		submit:  func(context.Context, store.Callback) (id.ID, error) { return id.Nil, nil },
	}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(recovery(h.log))
	engine.POST("/callbacks/:esp/:token", h.receive)
	body := bytes.NewReader(bytes.Repeat([]byte("x"), 500))
	r := httptest.NewRequest("POST", "/callbacks/plain/"+testToken, nil)
	r.Header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"an ESP"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}}
	r.ContentLength = 500
	w := &nullWriter{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = body.Seek(0, io.SeekStart)
		r.Body = io.NopCloser(body)
		engine.ServeHTTP(w, r)
	}
}

type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *nullWriter) WriteHeader(int)             {}
