// Package load makes traffic and takes it in: a generator that posts signed callbacks over keep-alive connections, a sink that
// an aftersend webhook delivers to, the ledger that compares the two number by number, and the CPU accounting of the processes
// in between. Generator and sink share one process, so that one clock measures the way from request to delivery, and speak HTTP
// over raw connections, so that they cost little of the machine they measure: some 0.01 ms of CPU a request.
//
// It imports the standard library only, and knows of aftersend what an ESP and a subscriber know.
package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Spec is one run of the generator.
type Spec struct {
	Addr        string   `json:"addr"` // host:port of the server
	Targets     []Target `json:"targets"`
	PerMessage  int      `json:"per_message"` // events of one message; 1 = every callback is about a new message
	Connections int      `json:"connections"`
	Seconds     float64  `json:"seconds"`
	// Rate is how many callbacks a second are offered, whatever the answers (open loop); 0 = every connection posts as soon as
	// it has its answer (closed loop).
	Rate float64 `json:"rate"`
	// Deliveries says that a webhook leads to the sink: the run ends when everything accepted has arrived there.
	Deliveries bool `json:"deliveries"`
	// DrainSeconds bounds the wait for that.
	DrainSeconds float64 `json:"drain_seconds"`
}

// maxRate bounds a closed loop: more than this a second is not recorded, and the run ends early.
const maxRate = 120_000

// Moment names a point in a run at which the caller looks at the CPU clocks.
type Moment string

// The moments of a run, in order.
const (
	Started Moment = "started" // before the first request
	Sent    Moment = "sent"    // the last answer is in
	Drained Moment = "drained" // everything accepted has arrived, or the wait for it is over
)

// Generator posts callbacks and knows what came of them.
type Generator struct {
	nonce string
	sink  *Sink
	next  int64 // first sequence number of the next run
}

// NewGenerator returns a generator whose deliveries come to sink. The nonce, 6 letters or digits, keeps the messages of one
// invocation apart from those of others in the same database.
func NewGenerator(nonce string, sink *Sink) *Generator { return &Generator{nonce: nonce, sink: sink} }

// Run makes the traffic of one spec and reports at each moment. It returns an error only when it could not measure; refused
// requests and missing deliveries are in the result.
func (g *Generator) Run(ctx context.Context, spec Spec, at func(Moment)) (Result, error) {
	length := time.Duration(spec.Seconds * float64(time.Second))
	r := &run{length: length}
	if spec.Rate > 0 {
		r.schedule = arrivals(spec.Rate, length)
		r.ledger = newLedger(g.next, len(r.schedule))
	} else {
		r.ledger = newLedger(g.next, int(spec.Seconds*maxRate)+spec.Connections)
	}
	g.next += int64(len(r.ledger.entries))
	g.sink.watch(r.ledger)
	defer g.sink.watch(nil)

	conns := make([]*connection, spec.Connections)
	now := time.Now()
	for i := range conns {
		templates, err := newTemplates(spec.Targets, spec.PerMessage, g.nonce, now)
		if err != nil {
			return Result{}, err
		}
		conns[i] = &connection{addr: spec.Addr, templates: templates, buffer: make([]byte, 16<<10)}
		if err := conns[i].open(ctx); err != nil {
			return Result{}, fmt.Errorf("connect: %w", err)
		}
		defer conns[i].close()
	}
	at(Started)
	r.ledger.start = time.Now()
	var all sync.WaitGroup
	for _, c := range conns {
		all.Go(func() { c.loop(ctx, r) })
	}
	all.Wait()
	sending := time.Since(r.ledger.start)
	at(Sent)
	if spec.Deliveries {
		r.ledger.drain(ctx, time.Duration(spec.DrainSeconds*float64(time.Second)))
	}
	at(Drained)
	return r.ledger.result(sending, length), ctx.Err()
}

// arrivals are the offsets at which a rate's requests are due: those of a Poisson process, since even spacing would fall into
// step with the product's own timers. The seed is fixed, so that runs are alike.
func arrivals(rate float64, length time.Duration) []time.Duration {
	random := rand.New(rand.NewPCG(1, 2))
	var due []time.Duration
	for t := 0.0; ; {
		t += random.ExpFloat64() / rate
		at := time.Duration(t * float64(time.Second))
		if at >= length {
			return due
		}
		due = append(due, at)
	}
}

// run is what the connections of one run share.
type run struct {
	ledger   *ledger
	length   time.Duration
	schedule []time.Duration // open loop: when each request is due
}

// take returns the next request's place in the ledger once it is due, and the moment its latency counts from: in the open loop
// the moment it was due, so that waiting for a free connection counts; ok is false when the run is over.
func (r *run) take(ctx context.Context) (place int, from time.Duration, ok bool) {
	place = int(r.ledger.taken.Add(1)) - 1
	if place >= len(r.ledger.entries) || ctx.Err() != nil {
		return 0, 0, false
	}
	now := time.Since(r.ledger.start)
	if r.schedule == nil {
		return place, now, now < r.length
	}
	due := r.schedule[place]
	if wait := due - now; wait > 0 {
		time.Sleep(wait)
	}
	return place, due, true
}

// pauseAfterRefusal keeps the generator from spinning on a server that refuses everything.
const pauseAfterRefusal = 50 * time.Millisecond

// connection is one keep-alive connection.
type connection struct {
	addr      string
	conn      net.Conn
	templates *templates
	buffer    []byte
}

func (c *connection) open(ctx context.Context) (err error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	c.conn, err = d.DialContext(ctx, "tcp", c.addr)
	return err
}

func (c *connection) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// loop posts until the run is over.
func (c *connection) loop(ctx context.Context, r *run) {
	for {
		place, from, ok := r.take(ctx)
		if !ok {
			return
		}
		status, err := c.post(ctx, r.ledger.base+int64(place))
		if err != nil {
			status = 0
			c.close()
			c.conn = nil
		}
		r.ledger.answered(place, status, from)
		if status != 200 {
			time.Sleep(pauseAfterRefusal)
		}
	}
}

// answerTime is how long an answer may take before the connection is given up.
const answerTime = 60 * time.Second

// post sends the callback of a sequence number and returns the status of the answer.
func (c *connection) post(ctx context.Context, sequence int64) (int, error) {
	if c.conn == nil {
		if err := c.open(ctx); err != nil {
			return 0, err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.templates.request(sequence)); err != nil {
		return 0, err
	}
	return readAnswer(c.conn, c.buffer)
}
