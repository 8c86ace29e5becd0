package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/dev/internal/stack"
	"aftersend/workflows"
)

// TestAPIAndWorkerApart runs the two roles in processes of their own: the
// worker may be gone while callbacks arrive, and the API while they are
// processed.
func TestAPIAndWorkerApart(t *testing.T) {
	t.Parallel()
	p, err := startProduct(stack.Options{DataDir: t.TempDir(), Split: true})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(func() {
		defer cancel()
		p.logFailure(t)
		p.db.Close()
		p.temporal.Close()
		require.NoError(t, p.stack.Stop(ctx))
	})
	s := p.newSource(t, "mailtrap", "apart", nil)
	h := p.newHook(t, receivers.endpoint("apart"), from(s))
	l := newLedger(p, s)

	l.burst(ctx, 20)
	l.requireKept(t, h, time.Minute)

	require.NoError(t, p.stack.Kill(stack.Worker))
	l.burst(ctx, 50)
	require.NoError(t, p.stack.Kill(stack.API))
	require.NoError(t, p.stack.Restart(ctx, stack.Worker))
	eventually(t, 2*time.Minute, "processed and delivered without an API", func() error { return l.settled(h) })
	require.NoError(t, p.stack.Restart(ctx, stack.API))
	l.burst(ctx, 20)
	l.requireKept(t, h, time.Minute)

	// What people do reaches the worker as well.
	p.must(t, http.MethodPost, "/api/v1/webhooks/"+h.ID+"/pause", map[string]any{"reason": "maintenance"}, nil)
	l.burst(ctx, 20)
	eventually(t, time.Minute, "collected", func() error {
		v, err := p.webhook(h)
		if err != nil {
			return err
		}
		return want(v.Backlog, 20, "backlog")
	})
	eventually(t, time.Minute, "the worker has stopped delivering", func() error {
		d, err := p.describe(workflows.WebhookWorkflowID(h.webhookID()))
		if err != nil {
			return err
		}
		return want(len(d.PendingActivities), 0, "pending activities")
	})
	p.must(t, http.MethodPost, "/api/v1/webhooks/"+h.ID+"/resume", map[string]any{"backlog": "deliver"}, nil)
	l.requireKept(t, h, time.Minute)
}
