package intake_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/id"
	"aftersend/intake"
	"aftersend/store"
	"aftersend/workflows"
)

func TestSummary(t *testing.T) {
	count := func(counts ...store.ESPCount) store.Range {
		r := store.Range{NFrom: 1}
		for _, c := range counts {
			r.NTo += int64(c.N)
		}
		r.Counts = counts
		return r
	}
	for want, r := range map[string]store.Range{
		"1 callback · mandrill 1":            count(store.ESPCount{ESP: "mandrill", N: 1}),
		"12 callbacks · mandrill 9, brevo 3": count(store.ESPCount{ESP: "brevo", N: 3}, store.ESPCount{ESP: "mandrill", N: 9}),
		"7 callbacks":                        {NFrom: 4, NTo: 10},
		"7 callbacks · a 1, b 1, c 1, d 1, e 1, 2 more": count(store.ESPCount{ESP: "g", N: 1}, store.ESPCount{ESP: "f", N: 1},
			store.ESPCount{ESP: "e", N: 1}, store.ESPCount{ESP: "d", N: 1}, store.ESPCount{ESP: "c", N: 1}, store.ESPCount{ESP: "b", N: 1},
			store.ESPCount{ESP: "a", N: 1}),
	} {
		require.Equal(t, want, intake.Summary(r))
	}
}

// memory is the writers and groups tables in memory, and the engine.
type memory struct {
	mu      sync.Mutex
	through map[int64]int64
	made    []store.Group
	started []time.Time
	down    error
	finish  func(g id.ID) // called when a group is started
}

func (m *memory) MakeGroup(_ context.Context, g store.Group) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.through[g.WriterID] != g.NFrom-1 {
		return false, nil
	}
	m.through[g.WriterID] = g.NTo
	m.made = append(m.made, g)
	return true, nil
}

func (m *memory) GroupedThrough(_ context.Context, writer int64) (int64, id.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.through[writer], id.Nil, nil
}

func (m *memory) StillOpen(_ context.Context, groups []id.ID) ([]id.ID, error) { return groups, nil }

func (m *memory) StartGroup(_ context.Context, g workflows.GroupStart) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	m.started = append(m.started, time.Now())
	if m.finish != nil {
		go m.finish(g.ID)
	}
	return nil
}

func (m *memory) starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.started)
}

// offering offers callbacks of writer 1 one by one, each followed by a pause.
type offering struct {
	starter *intake.Starter
	n       int64
}

func (o *offering) callbacks(n int, pause time.Duration) {
	for range n {
		o.n++
		o.starter.Offer(store.Range{WriterID: 1, NFrom: o.n, NTo: o.n, Bytes: 750, Counts: []store.ESPCount{{ESP: "mandrill", N: 1}}})
		time.Sleep(pause)
	}
}

func runStarter(t *testing.T, m *memory, o intake.Options) *offering {
	m.through = map[int64]int64{}
	s := intake.NewStarter(m, m, o, slog.New(slog.DiscardHandler))
	if m.finish == nil {
		m.finish = s.Done
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return &offering{starter: s}
}

func TestStarterStartsAtOnceAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		o := runStarter(t, m, intake.Options{})
		for range 3 {
			time.Sleep(time.Second)
			offered := time.Now()
			o.callbacks(1, 0)
			synctest.Wait()
			require.Equal(t, offered, m.started[len(m.started)-1])
		}
		require.Equal(t, "1 callback · mandrill 1", m.made[0].Summary)
		require.Equal(t, []string{"mandrill"}, m.made[0].ESPs)
	})
}

func TestStarterBoundsTheRateOfWorkflows(t *testing.T) {
	for name, c := range map[string]struct {
		pause     time.Duration
		processes int
		want      int // workflows in ten seconds
	}{
		"50 a second":                   {20 * time.Millisecond, 1, 500},
		"1,000 a second":                {time.Millisecond, 1, 100},
		"1,000 a second, two processes": {time.Millisecond, 2, 50},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				o := runStarter(t, m, intake.Options{})
				o.starter.SetProcesses(c.processes)
				o.callbacks(int(10*time.Second/c.pause), c.pause)
				time.Sleep(time.Second)
				synctest.Wait()
				require.InDelta(t, c.want, m.starts(), float64(c.want)/10)
				require.Equal(t, o.n, m.through[1], "all are in groups")
			})
		})
	}
}

func TestStarterDoesNotWaitWithAFullGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		o := runStarter(t, m, intake.Options{GroupMaxCallbacks: 10})
		begin := time.Now()
		o.callbacks(1000, 0)
		synctest.Wait()
		require.GreaterOrEqual(t, m.starts(), 99)
		require.Zero(t, time.Since(begin))
		for _, g := range m.made {
			require.LessOrEqual(t, g.Callbacks, 10)
		}
	})
}

func TestStarterHoldsFewGroupsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open []id.ID
		m := &memory{}
		m.finish = func(g id.ID) { m.mu.Lock(); open = append(open, g); m.mu.Unlock() }
		o := runStarter(t, m, intake.Options{OpenGroups: 3})
		o.callbacks(20, 100*time.Millisecond)
		synctest.Wait()
		require.Equal(t, 3, m.starts())

		o.starter.Done(open[1])
		synctest.Wait()
		require.Equal(t, 4, m.starts(), "a finished group frees its slot at once")
		require.EqualValues(t, 20, m.through[1], "with all that waited")
	})
}

func TestStarterGoesOnWhenTheEngineIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{down: errors.New("unreachable")}
		o := runStarter(t, m, intake.Options{GroupMaxCallbacks: 100})
		o.callbacks(1000, 10*time.Millisecond)
		synctest.Wait()
		require.Len(t, m.made, 1, "it stops at one group")
		require.Zero(t, m.starts())

		m.mu.Lock()
		m.down = nil
		m.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 1000, m.through[1])
		require.Equal(t, len(m.made), m.starts())
	})
}

func TestStarterCatchesUpWithWhoeverGroupedItsCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		o := runStarter(t, m, intake.Options{GroupMaxCallbacks: 10})
		m.mu.Lock()
		m.through[1] = 25 // a sweeper elsewhere
		m.mu.Unlock()
		o.callbacks(40, 0)
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualValues(t, 40, m.through[1])
		require.EqualValues(t, 26, m.made[0].NFrom)
	})
}
