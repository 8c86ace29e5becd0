// Package intake takes callbacks in and hands them to workflows, at the cost
// of one commit and a fraction of a workflow each:
//
//	Flusher  one INSERT and COMMIT for all requests that arrived while the last one was being written
//	Starter  a range of committed callbacks becomes a group, a group one ProcessCallbacks, at a bounded rate
//	Sweeper  closes every gap that a crash between two of those steps leaves
//
// What is committed is safe: the rows say what was grouped and what was done,
// every step may be repeated, and several processes may take the same step at
// once, of which one succeeds. Nothing here reads or understands a body.
//
// It may import store and workflows.
package intake

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"aftersend/store"
)

// Errors of Submit. The ESP must be told to come back on the first two.
var (
	ErrBusy        = errors.New("too many bytes wait to be stored")
	ErrUnavailable = errors.New("callback could not be stored")
	ErrRefused     = errors.New("the database refuses this callback's data")
)

// Options bounds the intake of one process. Zero values take the defaults.
type Options struct {
	Host             string        // names this process among all: host name and process id
	MaxRows          int           // callbacks in one commit; 500
	MaxBytes         int64         // bytes in one commit, but for a single callback; 8 MiB
	MaxInFlightBytes int64         // received and not yet committed; 256 MiB
	FlushTimeout     time.Duration // after which a commit counts as failed; 10 s
	MaxWait          time.Duration // after which a waiting request is sent away: its ESP has given up; 15 s

	GroupMaxCallbacks int   // in one workflow; 2,000
	GroupMaxBytes     int64 // in one workflow, but for a single callback; 8 MiB
	OpenGroups        int   // workflows at once; 4

	// Committed is told of every range of rows in the order of their commits;
	// it must not block. Starter.Offer, as a rule.
	Committed func(store.Range)
	Metrics   prometheus.Registerer // nil = not counted
}

func (o Options) withDefaults() Options {
	o.Host = cmp.Or(o.Host, "unnamed")
	o.MaxRows = cmp.Or(o.MaxRows, 500)
	o.MaxBytes = cmp.Or(o.MaxBytes, 8<<20)
	o.MaxInFlightBytes = cmp.Or(o.MaxInFlightBytes, 256<<20)
	o.FlushTimeout = cmp.Or(o.FlushTimeout, 10*time.Second)
	o.MaxWait = cmp.Or(o.MaxWait, 15*time.Second)
	o.GroupMaxCallbacks = cmp.Or(o.GroupMaxCallbacks, 2000)
	o.GroupMaxBytes = cmp.Or(o.GroupMaxBytes, 8<<20)
	o.OpenGroups = cmp.Or(o.OpenGroups, 4)
	if o.Committed == nil {
		o.Committed = func(store.Range) {}
	}
	return o
}

// summaryESPs is how many ESPs a summary names; Temporal allows 200 bytes.
const summaryESPs = 5

// Summary says in a line what a range holds, the most frequent ESP first:
// "12 callbacks · mandrill 9, brevo 3".
func Summary(r store.Range) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d callback", r.Callbacks())
	if r.Callbacks() != 1 {
		b.WriteByte('s')
	}
	counts := slices.SortedFunc(slices.Values(r.Counts), func(a, b store.ESPCount) int {
		return cmp.Or(cmp.Compare(b.N, a.N), strings.Compare(a.ESP, b.ESP))
	})
	separator := " · "
	for i, c := range counts {
		if i == summaryESPs {
			fmt.Fprintf(&b, ", %d more", len(counts)-i)
			break
		}
		fmt.Fprintf(&b, "%s%s %d", separator, c.ESP, c.N)
		separator = ", "
	}
	return b.String()
}

// backoff doubles from 100 ms to 5 s.
func backoff(failures int) time.Duration {
	return min(100*time.Millisecond<<min(failures, 6), 5*time.Second)
}
