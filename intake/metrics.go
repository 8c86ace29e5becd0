package intake

import "github.com/prometheus/client_golang/prometheus"

type flusherMetrics struct {
	rows, seconds prometheus.Histogram
	failures      *prometheus.CounterVec
}

func newFlusherMetrics(reg prometheus.Registerer, inFlight func() float64) flusherMetrics {
	m := flusherMetrics{
		rows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aftersend_intake_flush_rows", Help: "Callbacks stored by one commit.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500},
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aftersend_intake_flush_seconds", Help: "Time of one INSERT and COMMIT of callbacks.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5, 10},
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aftersend_intake_flush_failures_total", Help: "Statements that stored no callback, by class of error.",
		}, []string{"class"}),
	}
	register(reg, m.rows, m.seconds, m.failures, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "aftersend_intake_in_flight_bytes", Help: "Bytes of callbacks received and not yet stored.",
	}, inFlight))
	return m
}

type starterMetrics struct {
	callbacks prometheus.Histogram
	failures  *prometheus.CounterVec
}

func newStarterMetrics(reg prometheus.Registerer, open, waiting func() float64) starterMetrics {
	m := starterMetrics{
		callbacks: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aftersend_intake_group_callbacks", Help: "Callbacks handed to one workflow.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000},
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aftersend_intake_start_failures_total", Help: "Failed tries to hand callbacks to a workflow, by step.",
		}, []string{"step"}),
	}
	register(reg, m.callbacks, m.failures,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "aftersend_intake_groups_open", Help: "Groups started by this process and being worked on.",
		}, open),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "aftersend_intake_waiting_callbacks", Help: "Stored callbacks that this process has not yet handed to a workflow.",
		}, waiting))
	return m
}

type sweeperMetrics struct {
	found, failures *prometheus.CounterVec
}

func newSweeperMetrics(reg prometheus.Registerer) sweeperMetrics {
	m := sweeperMetrics{
		found: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aftersend_sweep_found_total", Help: "What the sweeper found left behind, by chore.",
		}, []string{"chore"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aftersend_sweep_failures_total", Help: "Passes of the sweeper that failed, by chore.",
		}, []string{"chore"}),
	}
	register(reg, m.found, m.failures)
	return m
}

func register(reg prometheus.Registerer, cs ...prometheus.Collector) {
	if reg != nil {
		reg.MustRegister(cs...)
	}
}
