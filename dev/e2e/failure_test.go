package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"

	"aftersend/workflows"
)

// TestFailureStory watches an endpoint fail until its webhook is paused, and
// get everything in order once somebody has mended and resumed it.
func TestFailureStory(t *testing.T) {
	t.Parallel()
	p := calm(t)
	const owner = "owner-of-failure@" + people
	const interval, retries = 2, 3
	s := p.newSource(t, "mailtrap", "failing", nil)
	e := receivers.endpoint("failing")
	e.answer(http.StatusServiceUnavailable, "we are closed")
	h := p.newHook(t, e, and(and(from(s), "notify", []string{owner}), "retry", map[string]any{"interval_seconds": interval, "attempts": retries}))
	l := newLedger(p, s)
	workflowID := workflows.WebhookWorkflowID(h.webhookID())

	l.burst(t.Context(), 1)
	eventually(t, time.Minute, "the first attempt is recorded", func() error {
		var status int
		var outcome string
		err := p.db.QueryRow(`select status_code, outcome from attempts where webhook_id = $1 and number = 1`, h.webhookID()).Scan(&status, &outcome)
		if err != nil {
			return err
		}
		return want(fmt.Sprint(status, outcome), "503failed", "attempt 1")
	})

	eventually(t, time.Minute, "Temporal shows attempt, last failure and next time", func() error {
		d, err := p.describe(workflowID)
		if err != nil {
			return err
		}
		for _, a := range d.PendingActivities {
			if a.ActivityType.Name == workflows.DeliverBatchActivity && a.LastFailure != nil && a.Attempt > 1 {
				if a.LastFailure.Message == "" {
					return errors.New("the last failure says nothing")
				}
				if a.NextAttemptScheduleTime == nil && a.ScheduledTime == nil {
					return errors.New("no next time")
				}
				return nil
			}
		}
		return fmt.Errorf("pending activities: %v", d.PendingActivities)
	})
	view, err := p.webhook(h)
	require.NoError(t, err)
	require.Contains(t, []string{"retrying", "delivering", "paused"}, view.State)

	eventually(t, time.Minute, "paused", func() error {
		v, err := p.webhook(h)
		if err != nil {
			return err
		}
		if v.Status != "paused" || v.State != "paused" || v.Paused == nil || v.Paused.Reason == "" {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
	eventually(t, time.Minute, "operators can search for it", func() error {
		d, err := p.describe(workflowID)
		if err != nil {
			return err
		}
		return want(keyword(d.WorkflowExecutionInfo, workflows.AttrState), "paused", workflows.AttrState)
	})
	eventually(t, time.Minute, "its owner is told", func() error { return want(len(mails.to(owner)), 1, "mails") })

	// Events keep collecting, and nobody knocks at the closed door.
	tried := len(h.all())
	require.Equal(t, 1+retries, tried, "requests until the pause")
	l.burst(t.Context(), 5)
	eventually(t, time.Minute, "collected", func() error {
		n, err := p.progress(h)
		if err != nil {
			return err
		}
		v, err := p.webhook(h)
		return errors.Join(err, want(n, progress{matched: 6}, "progress"), want(v.Backlog, 6, "backlog"))
	})
	require.Len(t, h.all(), tried)

	e.answer(http.StatusOK, "")
	p.must(t, http.MethodPost, "/api/v1/webhooks/"+h.ID+"/resume", map[string]any{"backlog": "deliver"}, nil)
	l.requireKept(t, h, time.Minute)
	got := h.all()
	for _, d := range got[:tried+1] {
		require.Equal(t, got[0].batch, d.batch, "the batch that failed goes first, under its id")
		require.Equal(t, got[0].body, d.body, "with its bytes")
	}
	require.NotEqual(t, got[0].batch, got[tried+1].batch)

	eventually(t, time.Minute, "idle again", func() error {
		v, err := p.webhook(h)
		return errors.Join(err, want(v.Status, "active", "status"), want(v.State, "idle", "state"), want(v.Backlog, 0, "backlog"))
	})
	require.Len(t, mails.to(owner), 1, "one mail for one outage")
	p.waitAsleep(t, h)
	p.record(t, workflowID, "webhook_exhausted_paused_resumed")
}

// TestRetrySucceeds watches an endpoint come back while its batch is retried.
func TestRetrySucceeds(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "flapping", nil)
	e := receivers.endpoint("flapping")
	e.answer(http.StatusInternalServerError, "")
	h := p.newHook(t, e, and(from(s), "retry", map[string]any{"interval_seconds": 1, "attempts": 30}))
	l := newLedger(p, s)
	l.burst(t.Context(), 1)
	eventually(t, time.Minute, "a first retry", func() error {
		if n := len(h.all()); n < 3 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	l.burst(t.Context(), 3)
	e.answer(http.StatusOK, "")
	l.requireKept(t, h, time.Minute)
	p.waitAsleep(t, h)
	p.record(t, workflows.WebhookWorkflowID(h.webhookID()), "webhook_retry_success")
}

// TestOneEndpointSlowsNoOther has endpoints hang, drip, flood, hang up and send
// elsewhere, while another gets everything.
func TestOneEndpointSlowsNoOther(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "one of many", nil)
	good := p.newHook(t, receivers.endpoint("good"), from(s))
	elsewhere := receivers.endpoint("elsewhere")
	over := make(chan struct{}) // then those that keep somebody waiting hang up
	bad := map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-over:
				panic(http.ErrAbortHandler)
			}
		},
		"drips": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("."))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-over:
					panic(http.ErrAbortHandler)
				case <-time.After(100 * time.Millisecond):
				}
			}
		},
		"floods": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			for range 1000 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"sends elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.url, http.StatusTemporaryRedirect)
		},
	}
	hooks := map[string]*hook{}
	for name, act := range bad {
		e := receivers.endpoint(strings.ReplaceAll(name, " ", "-"))
		e.behave(act)
		hooks[name] = p.newHook(t, e, and(and(from(s), "timeout_seconds", 5), "retry", map[string]any{"interval_seconds": 1, "attempts": 1000}))
	}
	l := newLedger(p, s)
	for range 10 {
		l.burst(t.Context(), 50)
	}
	l.requireKept(t, good, 2*time.Minute)
	for name, h := range hooks {
		n, err := p.progress(h)
		require.NoError(t, err)
		require.Zero(t, n.delivered, name)
	}
	require.Empty(t, elsewhere.all(), "redirects are not followed")

	close(over)
	for _, h := range hooks {
		h.behave(nil)
	}
	for _, h := range hooks {
		l.requireKept(t, h, 2*time.Minute)
	}
}

// TestPatientStep breaks one step for one webhook, as a full disk would: the
// step goes on as a regular activity that operators can see, nobody else
// waits, and nothing is lost.
func TestPatientStep(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "unlucky", nil)
	h := p.newHook(t, receivers.endpoint("unlucky"), from(s))
	other := p.newSource(t, "mailtrap", "lucky", nil)
	otherHook := p.newHook(t, receivers.endpoint("lucky"), from(other))

	// 53100 is disk_full: no fault of the data, so trying again may help.
	p.exec(t, fmt.Sprintf(`
		create function e2e_disk_full() returns trigger language plpgsql as $$ begin
			raise exception 'e2e: disk full' using errcode = '53100';
		end $$;
		create trigger e2e_disk_full before insert on outbox for each row when (new.webhook_id = '%s') execute function e2e_disk_full();`, h.webhookID()))
	l := newLedger(p, s)
	l.burst(t.Context(), 1)

	var workflowID string
	eventually(t, time.Minute, "the step shows in Temporal", func() error {
		var group string
		for _, callback := range l.answered {
			var c callbackView
			if _, err := p.call(http.MethodGet, "/api/v1/callbacks/"+callback, nil, &c); err != nil {
				return err
			}
			group = c.WorkflowID
		}
		if group == "" {
			return errors.New("no workflow yet")
		}
		d, err := p.describe(group)
		if err != nil {
			return err
		}
		for _, a := range d.PendingActivities {
			if a.ActivityType.Name == workflows.RouteEventsActivity && a.Attempt > 1 && a.LastFailure != nil {
				workflowID = group
				return nil
			}
		}
		return fmt.Errorf("pending activities: %v", d.PendingActivities)
	})

	o := newLedger(p, other)
	o.burst(t.Context(), 20)
	o.requireKept(t, otherHook, time.Minute)

	p.exec(t, `drop trigger e2e_disk_full on outbox; drop function e2e_disk_full();`)
	l.requireKept(t, h, 2*time.Minute)
	eventually(t, time.Minute, "the workflow ends", func() error {
		d, err := p.describe(workflowID)
		if err != nil {
			return err
		}
		return want(d.WorkflowExecutionInfo.Status, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, workflowID)
	})
	p.record(t, workflowID, "process_callbacks_patient")
}

// keyword is the value of a workflow's search attribute, or "".
func keyword(info *workflowpb.WorkflowExecutionInfo, name string) string {
	var value string
	if payload := info.GetSearchAttributes().GetIndexedFields()[name]; payload != nil {
		_ = converter.GetDefaultDataConverter().FromPayload(payload, &value)
	}
	return value
}

// exec changes the product's database behind its back.
func (p *product) exec(t *testing.T, statements string) {
	t.Helper()
	_, err := p.db.ExecContext(context.Background(), statements)
	require.NoError(t, err)
}
