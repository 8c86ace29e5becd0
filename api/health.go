package api

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"aftersend/migrations"
	"aftersend/store"
)

// Admin serves what operators and their machines probe: /livez, /readyz and
// /metrics.
func Admin(d Deps) http.Handler {
	h := &health{d: d}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.live)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.Metrics, promhttp.HandlerOpts{}))
	return mux
}

type health struct {
	d        Deps
	schemaOK atomic.Bool // once it is, it stays: migrations only go forward
}

// live says that the process answers.
func (h *health) live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// readyTimeout bounds the look at the database.
const readyTimeout = 2 * time.Second

// ready says whether callbacks can be taken in. Postgres and its schema decide;
// with the workflow engine down callbacks are accepted and processed later, so
// that shows with ?verbose only.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	status, word := http.StatusOK, "ready"
	parts := map[string]string{"postgres": "ok", "schema": "ok"}
	if err := h.d.Store.Ping(ctx); err != nil {
		parts["postgres"], parts["schema"] = store.Class(err), "unknown"
	} else if err := h.schema(ctx); err != nil {
		parts["schema"] = err.Error()
	}
	if parts["postgres"] != "ok" || parts["schema"] != "ok" {
		status, word = http.StatusServiceUnavailable, "not ready"
		w.Header().Set("Retry-After", seconds(retryAfter))
	}
	if !r.URL.Query().Has("verbose") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(word + "\n"))
		return
	}
	degraded := false
	if h.d.Status != nil {
		others := h.d.Status()
		for _, state := range others {
			degraded = degraded || state != "ok"
		}
		maps.Copy(parts, others)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": word, "degraded": degraded, "parts": parts})
}

func (h *health) schema(ctx context.Context) error {
	if h.schemaOK.Load() {
		return nil
	}
	err := migrations.Check(ctx, h.d.Store.DB())
	h.schemaOK.Store(err == nil)
	return err
}
