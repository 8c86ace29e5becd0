package load

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// ledger holds what became of every request of a run, by sequence number.
type ledger struct {
	base    int64 // sequence number of the first entry
	start   time.Time
	entries []entry
	taken   atomic.Int64 // entries given out

	accepted   atomic.Int64
	here       atomic.Int64 // numbers that have arrived
	repeats    atomic.Int64 // arrivals of numbers that had arrived before
	stale      atomic.Int64 // arrivals of numbers of former runs
	deliveries atomic.Int64 // POSTs to the sink
	foreign    atomic.Int64 // POSTs without any of our numbers
}

// entry is one request; times are nanoseconds since the start of the run.
type entry struct {
	status   int32
	due      int64        // when its latency counts from
	answered int64        // when the answer was in
	arrived  atomic.Int64 // when the sink first had it; 0 = not yet
}

func newLedger(base int64, size int) *ledger {
	return &ledger{base: base, entries: make([]entry, size), start: time.Now()}
}

// answered notes the answer to a request; status 0 stands for none. An entry has one writer, and readers after the run only.
func (l *ledger) answered(place, status int, due time.Duration) {
	e := &l.entries[place]
	e.status, e.due, e.answered = int32(status), int64(due), int64(time.Since(l.start))
	if status == 200 {
		l.accepted.Add(1)
	}
}

// arrived notes an arrival at the sink.
func (l *ledger) arrived(sequence int64, at time.Duration) {
	place := sequence - l.base
	switch {
	case place < 0:
		l.stale.Add(1)
	case place >= int64(len(l.entries)):
		l.foreign.Add(1)
	case l.entries[place].arrived.CompareAndSwap(0, max(1, int64(at))):
		l.here.Add(1)
	default:
		l.repeats.Add(1)
	}
}

// drain waits until every accepted request has arrived, at most for the given time.
func (l *ledger) drain(ctx context.Context, atMost time.Duration) {
	end := time.Now().Add(atMost)
	for time.Now().Before(end) && ctx.Err() == nil {
		// Counting is cheap, looking at each is not.
		if l.here.Load() >= l.accepted.Load() && l.missing() == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// missing counts the accepted requests that have not arrived. For when all answers are in.
func (l *ledger) missing() int {
	n := 0
	for i := range l.used() {
		if e := &l.entries[i]; e.status == 200 && e.arrived.Load() == 0 {
			n++
		}
	}
	return n
}

// used is how many entries have been given out.
func (l *ledger) used() int { return min(int(l.taken.Load()), len(l.entries)) }

// Result is what came of a run. Times are milliseconds.
type Result struct {
	Seconds      float64 `json:"seconds"`       // of sending, to the last answer
	DrainSeconds float64 `json:"drain_seconds"` // from the last answer to the last arrival

	Offered  int         `json:"offered"` // requests made
	Accepted int         `json:"accepted"`
	Refused  map[int]int `json:"refused,omitempty"` // by status; 0 = no answer

	Arrived    int `json:"arrived"` // accepted requests whose event arrived
	InTime     int `json:"in_time"` // of these, while requests were being made
	Missing    int `json:"missing"` // accepted requests whose event did not arrive
	Unasked    int `json:"unasked"` // events that arrived though their request was not accepted: an answer that got lost
	Repeats    int `json:"repeats"`
	Deliveries int `json:"deliveries"`
	Foreign    int `json:"foreign"` // deliveries without any event of ours

	Ack         Quantiles `json:"ack_ms"`                   // from due to answered
	SentArrived Quantiles `json:"due_to_delivered_ms"`      // from due to arrived
	AckArrived  Quantiles `json:"accepted_to_delivered_ms"` // from answered to arrived; 0 where the sink was first
}

// AcceptedRate is requests accepted a second.
func (r Result) AcceptedRate() float64 { return float64(r.Accepted) / r.Seconds }

// DeliveredRate is events delivered a second, from the first request to the last arrival.
func (r Result) DeliveredRate() float64 { return float64(r.Arrived) / (r.Seconds + r.DrainSeconds) }

// Quantiles of a distribution.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// result closes the books. length is how long requests were to be made; what was answered later belongs to the same run.
func (l *ledger) result(sending, length time.Duration) Result {
	r := Result{
		Seconds: sending.Seconds(), Refused: map[int]int{},
		Repeats: int(l.repeats.Load()), Deliveries: int(l.deliveries.Load()), Foreign: int(l.foreign.Load()),
	}
	var ack, sentArrived, ackArrived []int64
	last := int64(0)
	for i := range l.used() {
		e := &l.entries[i]
		if e.answered == 0 {
			continue // taken when the time was over
		}
		r.Offered++
		arrived := e.arrived.Load()
		if e.status != 200 {
			r.Refused[int(e.status)]++
			if arrived != 0 {
				r.Unasked++
			}
			continue
		}
		r.Accepted++
		ack = append(ack, e.answered-e.due)
		if arrived == 0 {
			r.Missing++
			continue
		}
		r.Arrived++
		last = max(last, arrived)
		if arrived <= int64(sending) {
			r.InTime++
		}
		sentArrived = append(sentArrived, arrived-e.due)
		ackArrived = append(ackArrived, max(0, arrived-e.answered))
	}
	r.DrainSeconds = max(0, time.Duration(last)-sending).Seconds()
	r.Ack, r.SentArrived, r.AckArrived = quantiles(ack), quantiles(sentArrived), quantiles(ackArrived)
	return r
}

// quantiles sorts its argument, nanoseconds.
func quantiles(all []int64) Quantiles {
	if len(all) == 0 {
		return Quantiles{}
	}
	slices.Sort(all)
	at := func(q float64) float64 {
		return float64(all[min(len(all)-1, int(q*float64(len(all))))]) / float64(time.Millisecond)
	}
	return Quantiles{P50: at(0.50), P95: at(0.95), P99: at(0.99), Max: at(1)}
}
