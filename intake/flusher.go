package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"aftersend/crash"
	"aftersend/id"
	"aftersend/store"
)

// Storage is what the flusher needs of the store.
type Storage interface {
	NewWriter(ctx context.Context, host string) (int64, error)
	RetireWriter(ctx context.Context, writer int64) error
	InsertCallbacks(ctx context.Context, writer, firstN int64, rows []store.Callback) error
}

// Flusher stores callbacks: while one INSERT and COMMIT is under way the next
// requests gather, and one goroutine writes them all with the next. Rows are
// numbered (writer, n) without gaps, so that ranges of them can be grouped
// without looking: a number is given only to what was certainly committed, and
// after any unclear failure a new writer begins.
type Flusher struct {
	storage Storage
	o       Options
	log     *slog.Logger
	metrics flusherMetrics

	inFlight atomic.Int64 // bytes
	writer   atomic.Int64 // current, for others to read

	// Of the flushing goroutine.
	current   int64         // the writer; 0 = none yet
	next      int64         // number of its next row
	gap       time.Duration // smoothed time between flushes
	lastFlush time.Time

	mu     sync.Mutex
	queue  []*batch
	closed bool
	wake   chan struct{} // something was put into an empty queue
}

// batch is what one commit stores. Its rows and results may be read by those
// who wait for it once done is closed.
type batch struct {
	rows  []store.Callback
	bytes int64
	since time.Time // arrival of the first
	done  chan struct{}
	errs  []error // of each row; nil when all are stored
}

// rowOverhead is what a callback weighs in memory besides its bytes.
const rowOverhead = 512

// New makes a flusher; it does nothing until Run.
func New(storage Storage, o Options, log *slog.Logger) *Flusher {
	f := &Flusher{storage: storage, o: o.withDefaults(), log: log, wake: make(chan struct{}, 1), gap: time.Second}
	f.metrics = newFlusherMetrics(o.Metrics, func() float64 { return float64(f.inFlight.Load()) })
	return f
}

// Writer is the current incarnation, 0 when there is none.
func (f *Flusher) Writer() int64 { return f.writer.Load() }

// Submit stores a callback and returns the id it got; nil means that it is
// committed. ErrBusy and ErrUnavailable mean that the ESP must post it again,
// ErrRefused that it would be refused again. cb.ID is ignored. Submit uses the
// slices in cb until it returns, which it therefore does not do early when ctx
// ends; it waits for FlushTimeout and MaxWait together at most.
func (f *Flusher) Submit(ctx context.Context, cb store.Callback) (id.ID, error) {
	if err := ctx.Err(); err != nil {
		return id.Nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	size := cb.Size() + rowOverhead
	defer f.inFlight.Add(-size)
	if f.inFlight.Add(size) > f.o.MaxInFlightBytes {
		return id.Nil, ErrBusy
	}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return id.Nil, fmt.Errorf("%w: shutting down", ErrUnavailable)
	}
	wasEmpty := len(f.queue) == 0
	b := f.openBatch(size)
	i := len(b.rows)
	b.rows = append(b.rows, cb)
	b.bytes += size
	f.mu.Unlock()
	if wasEmpty {
		f.signal()
	}

	<-b.done
	if b.errs != nil && b.errs[i] != nil {
		return id.Nil, b.errs[i]
	}
	return b.rows[i].ID, nil
}

// openBatch returns the last batch, or a new one when it has no room. f.mu is held.
func (f *Flusher) openBatch(size int64) *batch {
	if last := len(f.queue) - 1; last >= 0 {
		if b := f.queue[last]; len(b.rows) < f.o.MaxRows && b.bytes+size <= f.o.MaxBytes {
			return b
		}
	}
	b := &batch{done: make(chan struct{}), since: time.Now(), rows: make([]store.Callback, 0, 16)}
	f.queue = append(f.queue, b)
	return b
}

func (f *Flusher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run stores what is submitted until ctx ends, then what still waits, and
// returns. Submit fails from then on. End it only after those who submit have
// stopped.
func (f *Flusher) Run(ctx context.Context) {
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			f.drain()
			return
		}
		for f.flushNext() {
		}
	}
}

func (f *Flusher) drain() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	for f.flushNext() {
	}
	if f.current == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.o.FlushTimeout)
	defer cancel()
	f.writer.Store(0)
	if err := f.storage.RetireWriter(ctx, f.current); err != nil {
		// Its silence says the same a little later.
		f.log.Warn("writer not retired", "writer", f.current, "error", store.Class(err))
	}
}

// flushNext writes the batch at the head of the queue; false when there is none.
func (f *Flusher) flushNext() bool {
	f.gather()
	f.mu.Lock()
	if len(f.queue) == 0 {
		f.queue = nil // lets go of the array that was walked through
		f.mu.Unlock()
		return false
	}
	b := f.queue[0]
	f.queue[0] = nil
	f.queue = f.queue[1:]
	f.mu.Unlock()

	start := time.Now()
	f.gap += (min(start.Sub(f.lastFlush), time.Second) - f.gap) / 8
	f.lastFlush = start
	if start.Sub(b.since) > f.o.MaxWait {
		b.fail(0, len(b.rows), fmt.Errorf("%w: waited too long", ErrUnavailable))
	} else {
		f.flush(b)
	}
	close(b.done)
	f.metrics.rows.Observe(float64(len(b.rows)))
	f.metrics.seconds.Observe(time.Since(start).Seconds())
	return true
}

// Above some 300 commits a second a small commit waits a moment for company. At
// 1,000 callbacks/s that halves what Postgres spends on each (0.30 to 0.16 ms)
// and costs 1 ms of latency; commits that are worth their cost do not wait, so
// that it takes nothing from a busy system.
const (
	gatherBelow = 3300 * time.Microsecond // smoothed time between flushes
	gatherFor   = time.Millisecond
	gatherRows  = 8
)

func (f *Flusher) gather() {
	if f.gap >= gatherBelow {
		return
	}
	f.mu.Lock()
	few := len(f.queue) == 1 && len(f.queue[0].rows) < gatherRows
	f.mu.Unlock()
	if few {
		time.Sleep(gatherFor)
	}
}

// flush stores a batch and enters the results. The context of no single
// request matters here: the others' rows are in the same statement.
func (f *Flusher) flush(b *batch) {
	ctx, cancel := context.WithTimeout(context.Background(), f.o.FlushTimeout)
	defer cancel()
	var stored store.Range
	f.flushRows(ctx, b, 0, len(b.rows), &stored)
	if stored.WriterID != 0 {
		f.o.Committed(stored)
	}
}

// flushRows stores rows from..to of a batch. When the database refuses their
// data it halves them until the guilty row fails alone. It returns false, and
// fails all that follow, when nobody knows what was stored: what another
// writer stores is another range.
func (f *Flusher) flushRows(ctx context.Context, b *batch, from, to int, stored *store.Range) bool {
	rows := b.rows[from:to]
	err := f.write(ctx, rows)
	switch {
	case err == nil:
		r := f.rangeOf(rows)
		if stored.WriterID == 0 {
			*stored = r
		} else {
			stored.Add(r)
		}
		return true
	case !isGuilt(err):
		b.fail(from, len(b.rows), f.unclear(err))
		return false
	case len(rows) == 1:
		class := store.Class(err)
		f.metrics.failures.WithLabelValues(class).Inc()
		b.fail(from, to, fmt.Errorf("%w (%s)", ErrRefused, class))
		return true
	}
	middle := from + len(rows)/2
	return f.flushRows(ctx, b, from, middle, stored) && f.flushRows(ctx, b, middle, to, stored)
}

func (b *batch) fail(from, to int, err error) {
	if b.errs == nil {
		b.errs = make([]error, len(b.rows))
	}
	for i := from; i < to; i++ {
		b.errs[i] = err
	}
}

// write gives rows their ids and stores them as the writer's next. The numbers
// are used up only when it returns nil.
func (f *Flusher) write(ctx context.Context, rows []store.Callback) error {
	if f.current == 0 {
		writer, err := f.storage.NewWriter(ctx, f.o.Host)
		if err != nil {
			return err
		}
		f.current, f.next = writer, 1
		f.writer.Store(writer)
	}
	for i := range rows {
		rows[i].ID = id.New()
	}
	crash.Point("intake_before_insert")
	if err := f.storage.InsertCallbacks(ctx, f.current, f.next, rows); err != nil {
		return err
	}
	crash.Point("intake_after_insert")
	f.next += int64(len(rows))
	return nil
}

// rangeOf describes the rows written last.
func (f *Flusher) rangeOf(rows []store.Callback) store.Range {
	r := store.Range{
		WriterID: f.current,
		NFrom:    f.next - int64(len(rows)), NTo: f.next - 1,
		IDFrom: rows[0].ID, IDTo: rows[len(rows)-1].ID,
	}
	for i := range rows {
		r.Bytes += rows[i].Size()
		r.Count(rows[i].ESP, 1)
	}
	return r
}

// isGuilt says that the data of a row made a statement fail, and that nothing
// was stored. A duplicate id is no guilt: it means that an earlier, unclear
// statement did store the row.
func isGuilt(err error) bool { return store.IsDataError(err) && store.Code(err) != "23505" }

// unclear ends the writer, since nobody knows whether its next number is used,
// and turns the error into what callers get.
func (f *Flusher) unclear(err error) error {
	class := store.Class(err)
	if errors.Is(err, store.ErrWriterClosed) {
		class = "writer_closed"
	}
	f.metrics.failures.WithLabelValues(class).Inc()
	f.log.Error("callbacks not stored; their ESPs are told to post again", "writer", f.current, "error", class)
	f.current = 0
	f.writer.Store(0)
	return fmt.Errorf("%w (%s)", ErrUnavailable, class)
}
