package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of a request to a callback address, as counted and logged.
const (
	accepted      = "accepted"       // stored
	probe         = "probe"          // answered as the ESP expects, nothing to store
	forged        = "forged"         // 401
	unknownSource = "unknown_source" // 404
	tooLarge      = "too_large"      // 413
	broken        = "broken"         // the body did not come, or not in time
	busy          = "busy"           // told to come back: too much waits to be stored
	unavailable   = "unavailable"    // told to come back: could not be stored
	refused       = "refused"        // the database refuses it; kept among the rejected requests
)

type callbackMetrics struct {
	received *prometheus.CounterVec
	seconds  prometheus.Histogram
	dropped  prometheus.Counter
}

func newCallbackMetrics(reg prometheus.Registerer) callbackMetrics {
	m := callbackMetrics{
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aftersend_callbacks_received_total", Help: "Requests to callback addresses, by ESP and what became of them.",
		}, []string{"esp", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aftersend_ingest_seconds", Help: "From the header of a callback to its answer, when it was accepted.",
			Buckets: []float64{.001, .002, .005, .01, .02, .04, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "aftersend_rejected_requests_dropped_total", Help: "Refused requests not kept for inspection, since too many came at once.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.received, m.seconds, m.dropped)
	}
	return m
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }
