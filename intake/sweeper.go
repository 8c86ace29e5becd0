package intake

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"aftersend/id"
	"aftersend/store"
	"aftersend/workflows"
)

// Engine starts and wakes workflows; workflows.Client is one.
type Engine interface {
	GroupEngine
	Wake(ctx context.Context, webhook id.ID) error
	StartNotice(ctx context.Context, notice id.ID) error
	StartDeferrals(ctx context.Context, d workflows.DeferralsStart) error
}

// After how long without news something is taken to be stuck. What it is taken
// for need not be true: every remedy is harmless to what is well.
const (
	writerSilent = 8 * time.Second // its process is dead or cut off; live ones touch it every 2 s
	writerDead   = time.Hour       // nothing can come from it any more
	webhookQuiet = time.Minute
	noticeNew    = 5 * time.Second
	noticeOld    = 10 * time.Minute
	cohortOld    = 10 * time.Minute
	linkAtOnce   = 500 // bounces looked at in one pass
	sweepAtOnce  = 100 // workflows started or woken in one pass
	sweepTimeout = time.Minute
)

var groupStale = store.Staleness{NeverStarted: 3 * time.Second, Started: 30 * time.Second, Patient: 5 * time.Minute}

// Sweeper looks, every few seconds and in every process, for what a crash, a
// lost connection or a lost signal left between two steps, and takes the next
// step. Several may do so at once.
type Sweeper struct {
	store   *store.Store
	engine  Engine
	starter *Starter
	flusher *Flusher // nil in a lone worker
	o       Options
	log     *slog.Logger
	metrics sweeperMetrics

	mu       sync.Mutex
	lookedAt id.ID // the last bounce that linkBounces looked at; nil: it begins anew
}

// NewSweeper makes a sweeper; it does nothing until Run. flusher is nil in a
// process that takes no callbacks in.
func NewSweeper(s *store.Store, engine Engine, starter *Starter, flusher *Flusher, o Options, log *slog.Logger) *Sweeper {
	return &Sweeper{store: s, engine: engine, starter: starter, flusher: flusher,
		o: o.withDefaults(), log: log, metrics: newSweeperMetrics(o.Metrics)}
}

// chore is one thing to look for. run returns how much it found, and whether
// to look again at once.
type chore struct {
	name  string
	every time.Duration
	run   func(ctx context.Context) (found int, again bool, err error)
}

func (s *Sweeper) chores() []chore {
	return []chore{
		{"touch writer", 2 * time.Second, s.touchWriter},
		{"callbacks in no group", 2 * time.Second, s.groupCallbacks},
		{"groups without a workflow", 2 * time.Second, s.startGroups},
		{"notices without a workflow", 5 * time.Second, s.startNotices},
		{"deferrals that nobody watches", 5 * time.Second, s.startDeferrals},
		{"bounces without a message", time.Minute, s.linkBounces},
		{"webhooks that should be awake", webhookQuiet, s.wakeWebhooks},
		{"writers to close", 10 * time.Minute, s.closeWriters},
		{"partitions to make", time.Hour, s.makePartitions},
	}
}

// Run sweeps until ctx ends. Each chore goes at its own pace, so that none
// waits for another that is stuck.
func (s *Sweeper) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, c := range s.chores() {
		wg.Go(func() { s.repeat(ctx, c) })
	}
	wg.Wait()
}

// Sweep takes one pass of every chore: what a schedule of the engine asks for,
// as a backstop of Run. The error joins those of the chores.
func (s *Sweeper) Sweep(ctx context.Context) error {
	var errs []error
	for _, c := range s.chores() {
		found, _, err := s.sweep(ctx, c)
		s.metrics.found.WithLabelValues(c.name).Add(float64(found))
		if err != nil {
			s.metrics.failures.WithLabelValues(c.name).Inc()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// pause between two passes of a chore that found more than it could take.
const againAfter = 200 * time.Millisecond

func (s *Sweeper) repeat(ctx context.Context, c chore) {
	wait := rand.N(againAfter) // at once, but not all processes of a deploy together
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		found, again, err := s.sweep(ctx, c)
		if ctx.Err() != nil {
			return
		}
		s.metrics.found.WithLabelValues(c.name).Add(float64(found))
		if found > 0 {
			s.log.Info("swept", "chore", c.name, "found", found)
		}
		if err != nil {
			s.metrics.failures.WithLabelValues(c.name).Inc()
			if !failing {
				s.log.Warn("sweep failed; it is tried again", "chore", c.name, "error", store.Class(err))
			}
		}
		failing = err != nil
		wait = c.every/2 + rand.N(c.every)
		if again && err == nil {
			wait = againAfter
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context, c chore) (int, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return c.run(ctx)
}

// touchWriter tells the others that this process lives, and learns how many
// they are.
func (s *Sweeper) touchWriter(ctx context.Context) (int, bool, error) {
	if s.flusher == nil {
		return 0, false, nil
	}
	writer := s.flusher.Writer()
	if writer == 0 {
		return 0, false, nil
	}
	processes, err := s.store.TouchWriter(ctx, writer, writerSilent)
	if err == nil {
		s.starter.SetProcesses(processes)
	}
	if errors.Is(err, store.ErrWriterClosed) {
		err = nil // the next flush finds out, and a new writer begins
	}
	return 0, false, err
}

// groupCallbacks hands the callbacks of silent writers to the starter, whose
// rate bounds how fast they are taken up.
func (s *Sweeper) groupCallbacks(ctx context.Context) (found int, again bool, err error) {
	writers, err := s.store.SilentWriters(ctx, writerSilent)
	if err != nil {
		return 0, false, err
	}
	for _, writer := range writers {
		if s.starter.Holds(writer) {
			again = true
			continue
		}
		ranges, err := s.store.Ungrouped(ctx, writer, s.o.GroupMaxCallbacks, s.o.GroupMaxBytes)
		if err != nil {
			return found, false, err
		}
		for _, r := range ranges {
			found += r.Callbacks()
			s.starter.Offer(r)
		}
	}
	return found, again, nil
}

// startGroups starts the workflows of groups that have none or make no progress.
func (s *Sweeper) startGroups(ctx context.Context) (found int, again bool, err error) {
	groups, err := s.store.ClaimGroups(ctx, groupStale, sweepAtOnce)
	if err != nil {
		return 0, false, err
	}
	for i, g := range groups {
		err := s.engine.StartGroup(ctx, workflows.GroupStart{ID: g.ID, Summary: g.Summary, ESPs: g.ESPs})
		if err != nil {
			var left []id.ID
			for _, g := range groups[i:] {
				left = append(left, g.ID)
			}
			return i, false, errors.Join(err, s.store.ReleaseGroups(ctx, left))
		}
	}
	return len(groups), len(groups) == sweepAtOnce, nil
}

// startNotices starts the workflows of unsent notices.
func (s *Sweeper) startNotices(ctx context.Context) (found int, again bool, err error) {
	notices, err := s.store.ClaimNotices(ctx, noticeNew, noticeOld, sweepAtOnce)
	if err != nil {
		return 0, false, err
	}
	for i, n := range notices {
		if err := s.engine.StartNotice(ctx, n); err != nil {
			return i, false, errors.Join(err, s.store.ReleaseNotices(ctx, notices[i:]))
		}
	}
	return len(notices), len(notices) == sweepAtOnce, nil
}

// startDeferrals starts the workflows of cohorts that have none or whose review
// is overdue.
func (s *Sweeper) startDeferrals(ctx context.Context) (found int, again bool, err error) {
	cohorts, err := s.store.ClaimCohorts(ctx, cohortOld, sweepAtOnce)
	if err != nil {
		return 0, false, err
	}
	for i, c := range cohorts {
		err := s.engine.StartDeferrals(ctx, workflows.DeferralsStart{Cohort: c.ID, ESP: c.ESP, OpensAt: c.OpensAt, Closes: c.ClosesAt()})
		if err != nil {
			var left []id.ID
			for _, c := range cohorts[i:] {
				left = append(left, c.ID)
			}
			return i, false, errors.Join(err, s.store.ReleaseCohorts(ctx, left))
		}
	}
	return len(cohorts), len(cohorts) == sweepAtOnce, nil
}

// linkBounces looks again for the messages of asynchronous bounces that named
// none: their delivery may have been told since.
func (s *Sweeper) linkBounces(ctx context.Context) (found int, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, s.lookedAt, err = s.store.LinkBounces(ctx, time.Now(), s.lookedAt, linkAtOnce)
	return found, s.lookedAt != id.Nil, err
}

// wakeWebhooks wakes webhooks that have something to deliver and do not.
func (s *Sweeper) wakeWebhooks(ctx context.Context) (found int, again bool, err error) {
	webhooks, err := s.store.QuietWebhooks(ctx, webhookQuiet, sweepAtOnce)
	if err != nil {
		return 0, false, err
	}
	for i, w := range webhooks {
		if err := s.engine.Wake(ctx, w); err != nil {
			return i, false, err
		}
	}
	return len(webhooks), false, nil
}

func (s *Sweeper) closeWriters(ctx context.Context) (int, bool, error) {
	n, err := s.store.CloseWriters(ctx, writerDead)
	return n, false, err
}

func (s *Sweeper) makePartitions(ctx context.Context) (int, bool, error) {
	return 0, false, s.store.MakePartitions(ctx, time.Now())
}
