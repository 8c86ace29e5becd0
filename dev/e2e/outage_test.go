package e2e

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/dev/internal/stack"
)

// TestTemporalUnreachableWhileCallbacksArrive: callbacks are accepted without
// Temporal, also by a process that starts without it, and processed once it is
// back.
func TestTemporalUnreachableWhileCallbacksArrive(t *testing.T) {
	p := calm(t)
	s := p.newSource(t, "mailtrap", "without Temporal", nil)
	h := p.newHook(t, receivers.endpoint("without-temporal"), from(s))
	l := newLedger(p, s)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	stop := l.keepPosting(t, 10, 50*time.Millisecond)
	eventually(t, time.Minute, "under load", func() error { return l.atLeast(30) })
	require.NoError(t, p.stack.Kill(stack.Temporal))
	before := l.count()
	eventually(t, time.Minute, "callbacks are answered while Temporal is gone", func() error { return l.atLeast(before + 100) })
	status, err := p.call(http.MethodGet, "/readyz", nil, nil)
	require.NoError(t, err, "intake is ready when Postgres is")
	require.Equal(t, http.StatusOK, status)

	p.restart(t, "AFTERSEND_CRASH=") // a deploy in the middle of the outage
	before = l.count()
	eventually(t, time.Minute, "a new process takes callbacks too", func() error { return l.atLeast(before + 100) })

	require.NoError(t, p.stack.Restart(ctx, stack.Temporal))
	stop()
	l.requireKept(t, h, 3*time.Minute)
	p.requireNothingStuck(t)
}

// TestPostgresRestartedInMidLoad stops Postgres at once, as a crash of its
// machine would, while callbacks arrive and are delivered: for the product and
// for Temporal, who share it.
func TestPostgresRestartedInMidLoad(t *testing.T) {
	p := calm(t)
	s := p.newSource(t, "mailtrap", "without Postgres", nil)
	h := p.newHook(t, receivers.endpoint("without-postgres"), from(s))
	l := newLedger(p, s)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	stop := l.keepPosting(t, 10, 50*time.Millisecond)
	eventually(t, time.Minute, "under load", func() error { return l.atLeast(100) })
	postmaster := p.stack.Pids()[stack.Postgres]
	require.NoError(t, syscall.Kill(postmaster, syscall.SIGQUIT), "immediate shutdown") // no checkpoint, recovery at the next start
	select {
	case <-p.stack.Exited(stack.Postgres):
	case <-ctx.Done():
		t.Fatal("Postgres does not stop")
	}

	// The process stays up, and says that it cannot take callbacks.
	var refused answer
	eventually(t, time.Minute, "an ESP is told to come back", func() (err error) {
		refused, err = post(ctx, s, delivered("nobody-stores-this"))
		return errors.Join(err, want(refused.status, http.StatusServiceUnavailable, "status"))
	})
	require.NotEmpty(t, refused.retryAfter)
	l.mu.Lock()
	l.unclear["nobody-stores-this"] = true
	l.mu.Unlock()

	require.NoError(t, p.stack.Restart(ctx, stack.Postgres))
	before := l.count()
	eventually(t, time.Minute, "callbacks are taken again", func() error { return l.atLeast(before + 100) })
	stop()
	l.requireKept(t, h, 3*time.Minute)
	p.requireNothingStuck(t)
}

// TestMachineDies kills everything at once, as a power cut does, and starts it
// all again.
func TestMachineDies(t *testing.T) {
	p := calm(t)
	s := p.newSource(t, "mailtrap", "power cut", nil)
	h := p.newHook(t, receivers.endpoint("power-cut"), from(s))
	l := newLedger(p, s)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	stop := l.keepPosting(t, 10, 50*time.Millisecond)
	for range 2 {
		before := l.count()
		eventually(t, time.Minute, "under load", func() error { return l.atLeast(before + 100) })
		for _, role := range []stack.Role{stack.Postgres, stack.Serve, stack.Temporal} {
			require.NoError(t, p.stack.Kill(role))
		}
		for _, role := range []stack.Role{stack.Postgres, stack.Temporal, stack.Serve} {
			require.NoError(t, p.stack.Restart(ctx, role))
		}
	}
	stop()
	l.requireKept(t, h, 3*time.Minute)
	p.requireNothingStuck(t)
}

// TestDrain stops the process in good order under load: what it took in is
// answered, and what it answered is kept.
func TestDrain(t *testing.T) {
	p := calm(t)
	s := p.newSource(t, "mailtrap", "draining", nil)
	h := p.newHook(t, receivers.endpoint("draining"), from(s))
	l := newLedger(p, s)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	stop := l.keepPosting(t, 10, 20*time.Millisecond)
	for range 2 {
		before := l.count()
		eventually(t, time.Minute, "under load", func() error { return l.atLeast(before + 50) })
		require.NoError(t, p.stack.Restart(ctx, stack.Serve))
	}
	stop()
	l.requireKept(t, h, 3*time.Minute)
}

var errNotYet = errors.New("not yet")

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answered)
}

func (l *ledger) atLeast(n int) error {
	if l.count() < n {
		return errNotYet
	}
	return nil
}
