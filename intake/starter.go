package intake

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"aftersend/crash"
	"aftersend/id"
	"aftersend/store"
	"aftersend/workflows"
)

// GroupEngine starts the workflow of a group; workflows.Client is one.
// Starting the same group again must be harmless.
type GroupEngine interface {
	StartGroup(ctx context.Context, g workflows.GroupStart) error
}

// Groups is what the starter needs of the store.
type Groups interface {
	MakeGroup(ctx context.Context, g store.Group) (made bool, err error)
	GroupedThrough(ctx context.Context, writer int64) (n int64, last id.ID, err error)
	StillOpen(ctx context.Context, groups []id.ID) ([]id.ID, error)
}

// How starts are spaced, times the number of processes that take callbacks in.
// A workflow costs the same whatever it carries, so a busy system starts few
// and large ones; the first after silence starts at once.
const (
	spacing     = 20 * time.Millisecond
	busySpacing = 100 * time.Millisecond
	busyRate    = 100 // callbacks a second

	startTimeout = 10 * time.Second // of one call to database or engine
	doneSoon     = time.Second      // how often to look for finished groups when their end is told (Done) …
	doneUntold   = 25 * time.Millisecond
)

// Starter turns committed callbacks into groups and starts a workflow for each,
// a few at once. With the engine down it stops at one group and goes on when
// the engine is back; nothing waits for it but the callbacks themselves.
type Starter struct {
	groups  Groups
	engine  GroupEngine
	o       Options
	log     *slog.Logger
	metrics starterMetrics
	kick    chan struct{} // something changed that next waits for

	mu        sync.Mutex
	pending   []store.Range // contiguous per writer, in order
	open      map[id.ID]bool
	told      bool // Done is called: the worker is in this process
	processes int  // that take callbacks in, this one included
	rate      float64
	rateAt    time.Time
	lastStart time.Time
}

// NewStarter makes a starter; it does nothing until Run.
func NewStarter(groups Groups, engine GroupEngine, o Options, log *slog.Logger) *Starter {
	s := &Starter{
		groups: groups, engine: engine, o: o.withDefaults(), log: log,
		kick: make(chan struct{}, 1), open: map[id.ID]bool{}, processes: 1,
	}
	s.metrics = newStarterMetrics(o.Metrics,
		func() float64 { s.mu.Lock(); defer s.mu.Unlock(); return float64(len(s.open)) },
		func() float64 { s.mu.Lock(); defer s.mu.Unlock(); return float64(s.callbacksPending()) })
	return s
}

// Offer hands over committed callbacks. It never blocks and costs the same
// however long the queue is. Ranges of one writer must come in order.
func (s *Starter) Offer(r store.Range) {
	now := time.Now()
	s.mu.Lock()
	s.rate = s.rate*math.Exp(-now.Sub(s.rateAt).Seconds()) + float64(r.Callbacks())
	s.rateAt = now
	if last := len(s.pending) - 1; last >= 0 && s.pending[last].Fits(r, s.o.GroupMaxCallbacks, s.o.GroupMaxBytes) {
		s.pending[last].Add(r)
	} else {
		s.pending = append(s.pending, r)
	}
	s.mu.Unlock()
	s.signal()
}

// Done says that a group is finished, so that the next may start at once. It
// may be called for any group.
func (s *Starter) Done(group id.ID) {
	s.mu.Lock()
	s.told = true
	_, mine := s.open[group]
	delete(s.open, group)
	s.mu.Unlock()
	if mine {
		s.signal()
	}
}

// Holds says whether callbacks of a writer wait here to be grouped.
func (s *Starter) Holds(writer int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.pending, func(r store.Range) bool { return r.WriterID == writer })
}

// SetProcesses says how many processes take callbacks in: they share the rate
// of starts.
func (s *Starter) SetProcesses(n int) {
	s.mu.Lock()
	s.processes = max(n, 1)
	s.mu.Unlock()
}

func (s *Starter) signal() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run starts groups until ctx ends. What is then left, the sweeper of another
// process or of the next start takes up.
func (s *Starter) Run(ctx context.Context) {
	for {
		r, ok := s.next(ctx)
		if !ok {
			return
		}
		s.start(ctx, r)
	}
}

// next waits for callbacks, a free slot and the time, in that order; false
// when ctx ends.
func (s *Starter) next(ctx context.Context) (store.Range, bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r, wait, blocked := s.poll(time.Now())
		if wait == 0 {
			return r, true
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return store.Range{}, false
		case <-s.kick:
		case <-timer.C:
			if blocked {
				s.lookForDone(ctx)
			}
		}
	}
}

// poll takes the next range off the queue, or says how long to wait, and
// whether for groups to finish.
func (s *Starter) poll(now time.Time) (r store.Range, wait time.Duration, blocked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.pending) == 0:
		return r, time.Hour, false
	case len(s.open) >= s.o.OpenGroups && s.told:
		return r, doneSoon, true
	case len(s.open) >= s.o.OpenGroups:
		return r, doneUntold, true
	}
	head := s.pending[0]
	// Another one behind it means that the first cannot grow.
	full := len(s.pending) > 1 || head.Callbacks() >= s.o.GroupMaxCallbacks || head.Bytes >= s.o.GroupMaxBytes
	apart := spacing
	if s.rate*math.Exp(-now.Sub(s.rateAt).Seconds()) > busyRate {
		apart = busySpacing
	}
	if wait := s.lastStart.Add(apart * time.Duration(s.processes)).Sub(now); wait > 0 && !full {
		return r, wait, false
	}
	s.lastStart = now
	s.pending[0] = store.Range{}
	if s.pending = s.pending[1:]; len(s.pending) == 0 {
		s.pending = nil
	}
	return head, 0, false
}

// lookForDone asks the rows which groups no longer count as open: a worker
// elsewhere finished them, or they fell back to patient retries.
func (s *Starter) lookForDone(ctx context.Context) {
	s.mu.Lock()
	mine := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	open, err := s.groups.StillOpen(ctx, mine)
	if err != nil {
		return // asked again soon; who cannot read will say so where it writes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range mine {
		if !slices.Contains(open, g) {
			delete(s.open, g)
		}
	}
}

// start makes a group of a range and starts its workflow, trying each until it
// succeeds or ctx ends.
func (s *Starter) start(ctx context.Context, r store.Range) {
	g := store.Group{
		ID: id.New(), WriterID: r.WriterID, NFrom: r.NFrom, NTo: r.NTo, IDFrom: r.IDFrom, IDTo: r.IDTo,
		Summary: Summary(r), Callbacks: r.Callbacks(),
	}
	for _, c := range r.Counts {
		g.ESPs = append(g.ESPs, c.ESP)
	}
	slices.Sort(g.ESPs)

	var made bool
	crash.Point("starter_before_group")
	ok := s.insist(ctx, "make group", g.ID, func(ctx context.Context) (err error) {
		made, err = s.groups.MakeGroup(ctx, g)
		return err
	})
	crash.Point("starter_after_group")
	if !ok {
		return
	}
	if !made {
		s.catchUp(ctx, r)
		return
	}

	s.mu.Lock()
	s.open[g.ID] = true
	s.mu.Unlock()
	ok = s.insist(ctx, "start group", g.ID, func(ctx context.Context) error {
		return s.engine.StartGroup(ctx, workflows.GroupStart{ID: g.ID, Summary: g.Summary, ESPs: g.ESPs})
	})
	crash.Point("starter_after_start")
	if ok {
		s.metrics.callbacks.Observe(float64(g.Callbacks))
	}
}

// insist does something until it succeeds, with growing pauses; false when
// ctx ends first.
func (s *Starter) insist(ctx context.Context, what string, group id.ID, do func(ctx context.Context) error) bool {
	for failures := 0; ; failures++ {
		try, cancel := context.WithTimeout(ctx, startTimeout)
		err := do(try)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.metrics.failures.WithLabelValues(what).Inc()
		s.log.Warn(what+" failed; callbacks are kept and it is tried again",
			"group", id.Group.Format(group), "error", store.Class(err), "failures", failures+1)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(backoff(failures)):
		}
	}
}

// catchUp is called when somebody else has grouped some of a writer's
// callbacks: what is not yet in groups goes back to the queue.
func (s *Starter) catchUp(ctx context.Context, lost store.Range) {
	var through int64
	var last id.ID
	ok := s.insist(ctx, "read writer", id.Nil, func(ctx context.Context) (err error) {
		through, last, err = s.groups.GroupedThrough(ctx, lost.WriterID)
		return err
	})
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append([]store.Range{lost}, s.pending...)
	s.pending = slices.DeleteFunc(s.pending, func(r store.Range) bool {
		return r.WriterID == lost.WriterID && r.NTo <= through
	})
	for i := range s.pending {
		if r := &s.pending[i]; r.WriterID == lost.WriterID {
			if r.NFrom != through+1 {
				// The id of the row before bounds as well; of which ESPs these are is not known.
				r.NFrom, r.IDFrom, r.Counts = through+1, last, nil
			}
			break // those behind follow on each other
		}
	}
}

// callbacksPending counts what waits for a group. s.mu is held.
func (s *Starter) callbacksPending() (n int) {
	for i := range s.pending {
		n += s.pending[i].Callbacks()
	}
	return n
}
