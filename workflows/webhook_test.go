package workflows

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
	"aftersend/id"
)

// rows plays the database and the activities on it: one webhook, its outbox,
// its open batch, and an endpoint that accepts or does not. The clock is the
// test environment's, so hours pass in no time.
type rows struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment
	now func() time.Time

	status   string
	exists   bool
	interval time.Duration
	retries  int
	maxWait  time.Duration
	due      int
	open     id.ID
	failing  bool
	used     int
	nextAt   time.Time
	final    bool
	asleep   bool

	answer   func(attempt int) error // nil = accepted
	posts    []post
	batches  []id.ID // delivered
	pauses   int
	mails    int
	loads    int
	drains   int
	sleeping func() // called between the two transactions of falling asleep
	slept    func() // called after the second
}

type post struct {
	batch id.ID
	at    time.Time
}

func newRows(t *testing.T) *rows {
	var s testsuite.WorkflowTestSuite
	env := s.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	r := &rows{
		t: t, env: env, now: env.Now, status: "active", exists: true, interval: DefaultRetryEvery, retries: DefaultRetries,
		answer: func(int) error { return nil },
	}
	env.RegisterWorkflowWithOptions(Webhook(true), workflow.RegisterOptions{Name: WebhookType})
	env.RegisterWorkflowWithOptions(SendNotice, workflow.RegisterOptions{Name: SendNoticeType})
	for name, f := range map[string]any{
		LoadWebhookActivity: r.load, DeliverBatchesActivity: r.deliverBatches, DeliverBatchActivity: r.deliverBatch,
		PauseWebhookActivity: r.pause, FallAsleepActivity: r.fallAsleep, SendMailActivity: r.mail,
	} {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	return r
}

func (r *rows) load(context.Context, activities.WebhookInput) (activities.WebhookView, error) {
	r.loads++
	r.asleep = false
	return activities.WebhookView{
		Exists: r.exists, Status: r.status, MaxWait: r.maxWait, MaxEvents: 500, RetryInterval: r.interval, Retries: r.retries,
		Due: r.due, Open: r.open, Failing: r.failing, RetriesUsed: r.used, NextAt: r.nextAt, LastError: "HTTP 503",
		GiveUp: r.failing && (r.final || r.used >= r.retries), PausedSince: r.now(), Attempts: len(r.posts),
	}, nil
}

// attempt is one POST; retry says whether it uses up a retry.
func (r *rows) attempt(retry bool) error {
	r.posts = append(r.posts, post{r.open, r.now()})
	err := r.answer(len(r.posts))
	if err == nil {
		r.batches = append(r.batches, r.open)
		r.open, r.failing, r.used, r.nextAt = id.Nil, false, 0, time.Time{}
		return nil
	}
	r.failing = true
	if retry {
		r.used++
	}
	r.nextAt = r.now().Add(r.interval)
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		r.final = application.NonRetryable()
		if delay := application.NextRetryDelay(); delay > 0 {
			r.nextAt = r.now().Add(delay)
		}
	}
	return err
}

func (r *rows) deliverBatches(context.Context, activities.WebhookInput) (activities.DeliverResult, error) {
	r.drains++
	done := activities.DeliverResult{Outcome: activities.OutcomeDrained}
	for r.status == "active" && (r.open != id.Nil || r.due > 0) {
		if r.open == id.Nil {
			r.open, r.due = id.New(), max(0, r.due-500)
		}
		if err := r.attempt(false); err != nil {
			done.Outcome = activities.OutcomeFailed
			return done, nil
		}
	}
	return done, nil
}

func (r *rows) deliverBatch(_ context.Context, in activities.DeliverBatchInput) (activities.DeliverResult, error) {
	if r.status != "active" {
		return activities.DeliverResult{}, temporal.NewNonRetryableApplicationError("not active", activities.ErrStopped, nil)
	}
	require.Equal(r.t, r.open, in.Batch)
	return activities.DeliverResult{Outcome: activities.OutcomeDelivered}, r.attempt(r.failing)
}

func (r *rows) pause(context.Context, activities.WebhookInput) (activities.PauseResult, error) {
	r.status = "paused"
	r.pauses++
	return activities.PauseResult{Notice: id.New()}, nil
}

func (r *rows) fallAsleep(context.Context, activities.WebhookInput) (activities.SleepResult, error) {
	r.asleep = true
	if r.sleeping != nil {
		r.sleeping()
	}
	due := r.due > 0 || r.open != id.Nil
	r.asleep = !due
	if r.slept != nil {
		r.slept()
	}
	return activities.SleepResult{Due: due}, nil
}

func (r *rows) mail(context.Context, activities.NoticeInput) error { r.mails++; return nil }

// at lets something happen after d, counted from the start.
func (r *rows) at(d time.Duration, what func()) { r.env.RegisterDelayedCallback(what, d) }

// route is what RouteEvents and WakeWebhooks do.
func (r *rows) route(events int) {
	r.due += events
	if r.asleep {
		r.env.SignalWorkflow(WakeSignal, nil)
	}
}

func (r *rows) update(name string) {
	r.env.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{OnAccept: func() {}, OnReject: func(err error) { r.t.Error(err) }, OnComplete: func(any, error) {}})
}

func (r *rows) resume() {
	r.status, r.failing, r.used, r.final, r.nextAt = "active", false, 0, false, time.Time{}
	r.update(ResumeUpdate)
}

func (r *rows) state() WebhookStatus {
	v, err := r.env.QueryWorkflow(StatusQuery)
	require.NoError(r.t, err)
	var s WebhookStatus
	require.NoError(r.t, v.Get(&s))
	return s
}

// run runs the workflow and deletes the webhook after d, which ends it.
func (r *rows) run(d time.Duration) {
	r.at(d, func() { r.exists = false; r.update(ReloadUpdate) })
	r.env.ExecuteWorkflow(WebhookType, WebhookInput{Webhook: id.New()})
	require.True(r.t, r.env.IsWorkflowCompleted())
	require.NoError(r.t, r.env.GetWorkflowError())
}

func refuse(int) error {
	return temporal.NewApplicationErrorWithOptions("HTTP 503", activities.ErrAttemptFailed, temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign})
}

func final(kind string) func(int) error {
	return func(int) error {
		return temporal.NewApplicationErrorWithOptions("HTTP 410", kind, temporal.ApplicationErrorOptions{NonRetryable: true})
	}
}

func TestExactlyFortyRetriesOver200MinutesThenOnePauseAndOneMail(t *testing.T) {
	r := newRows(t)
	r.due, r.answer = 3, refuse
	r.at(4*time.Hour, func() {
		require.Equal(t, StatePaused, r.state().State)
		r.due += 1000 // collecting goes on
	})
	r.run(24 * time.Hour)
	require.Len(t, r.posts, 1+40)
	require.Equal(t, 200*time.Minute, r.posts[40].at.Sub(r.posts[0].at).Round(time.Second))
	for i, p := range r.posts[1:] {
		require.InDelta(t, 5*time.Minute, p.at.Sub(r.posts[i].at), float64(time.Second), "every 5 minutes")
		require.Equal(t, r.posts[0].batch, p.batch)
	}
	require.Equal(t, 1, r.pauses)
	require.Equal(t, 1, r.mails)
	require.Equal(t, "paused", r.status)
}

func TestResumeDeliversTheSameBatchThenTheBacklog(t *testing.T) {
	r := newRows(t)
	r.due, r.answer = 3, refuse
	var failed id.ID
	r.at(5*time.Hour, func() {
		failed, r.due = r.open, 1000
		r.answer = func(int) error { return nil }
		r.resume()
	})
	r.run(6 * time.Hour)
	require.Len(t, r.batches, 3)
	require.Equal(t, failed, r.batches[0])
	require.Zero(t, r.due)
}

func TestAResumedWebhookThatFailsAgainGetsAllItsRetriesAgain(t *testing.T) {
	r := newRows(t)
	r.due, r.answer = 1, refuse
	r.at(5*time.Hour, r.resume)
	r.run(24 * time.Hour)
	require.Len(t, r.posts, 2*(1+40))
	require.Equal(t, 2, r.pauses)
	require.Equal(t, 2, r.mails)
}

func TestRecoveryDuringTheRetries(t *testing.T) {
	r := newRows(t)
	r.due = 700
	r.answer = func(attempt int) error {
		if attempt <= 4 {
			return refuse(attempt)
		}
		return nil
	}
	r.at(6*time.Minute, func() {
		s := r.state()
		require.Equal(t, StateRetrying, s.State)
		require.Equal(t, 40, s.Retries)
	})
	r.at(30*time.Minute, func() { require.True(t, r.asleep) })
	r.run(time.Hour)
	require.Len(t, r.posts, 6)
	require.Len(t, r.batches, 2)
	require.Zero(t, r.pauses)
}

func TestPauseInBackoffActsAtOnce(t *testing.T) {
	for name, when := range map[string]time.Duration{"before the first retry": 2 * time.Minute, "between retries": 12 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			r := newRows(t)
			r.due, r.answer = 1, refuse
			posts := 0
			r.at(when, func() { r.status = "paused"; posts = len(r.posts); r.update(PauseUpdate) })
			r.at(when+time.Second, func() { require.Equal(t, StatePaused, r.state().State) })
			r.run(10 * time.Hour)
			require.Len(t, r.posts, posts)
			require.Zero(t, r.mails, "paused by a person who knows")
		})
	}
}

func TestFinalAnswersPauseAtOnce(t *testing.T) {
	for _, kind := range []string{activities.ErrGone, activities.ErrBlockedAddress} {
		t.Run(kind+" on the first attempt", func(t *testing.T) {
			r := newRows(t)
			r.due, r.answer = 1, final(kind)
			r.run(time.Hour)
			require.Len(t, r.posts, 1)
			require.Equal(t, 1, r.mails)
		})
		t.Run(kind+" on a retry", func(t *testing.T) {
			r := newRows(t)
			r.due = 1
			r.answer = func(attempt int) error {
				if attempt < 3 {
					return refuse(attempt)
				}
				return final(kind)(attempt)
			}
			r.run(time.Hour)
			require.Len(t, r.posts, 3)
			require.Equal(t, 1, r.mails)
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	r := newRows(t)
	r.due = 1
	r.answer = func(attempt int) error {
		if attempt > 2 {
			return nil
		}
		return temporal.NewApplicationErrorWithOptions("HTTP 429", activities.ErrAttemptFailed, temporal.ApplicationErrorOptions{NextRetryDelay: 20 * time.Minute})
	}
	r.run(3 * time.Hour)
	require.Len(t, r.posts, 3)
	require.InDelta(t, 20*time.Minute, r.posts[1].at.Sub(r.posts[0].at), float64(time.Second))
	require.InDelta(t, 20*time.Minute, r.posts[2].at.Sub(r.posts[1].at), float64(time.Second))
}

func TestReloadKeepsTheAttemptsUsed(t *testing.T) {
	r := newRows(t)
	r.due, r.answer = 1, refuse
	r.at(22*time.Minute, func() { // 1 + 4 attempts were made
		require.Equal(t, 4, r.used)
		r.interval, r.retries = time.Minute, 10
		r.update(ReloadUpdate)
	})
	r.run(10 * time.Hour)
	require.Len(t, r.posts, 1+10)
	require.InDelta(t, time.Minute, r.posts[6].at.Sub(r.posts[5].at), float64(time.Second))
	require.Equal(t, 1, r.mails)
}

func TestFewerRetriesThanUsedGivesUpAtOnce(t *testing.T) {
	r := newRows(t)
	r.due, r.answer = 1, refuse
	r.at(22*time.Minute, func() { r.retries = 2; r.update(ReloadUpdate) })
	r.run(time.Hour)
	require.Len(t, r.posts, 5)
	require.Equal(t, 1, r.pauses)
}

func TestFlushRetriesNow(t *testing.T) {
	r := newRows(t)
	r.due = 1
	r.answer = func(attempt int) error {
		if attempt == 1 {
			return refuse(1)
		}
		return nil
	}
	r.at(time.Minute, func() { r.update(FlushUpdate) })
	r.run(time.Hour)
	require.Len(t, r.posts, 2)
	require.InDelta(t, time.Minute, r.posts[1].at.Sub(r.posts[0].at), float64(time.Second))
}

func TestSleepsAndIsWoken(t *testing.T) {
	r := newRows(t)
	r.at(time.Minute, func() {
		require.True(t, r.asleep)
		require.Equal(t, StateIdle, r.state().State)
		r.route(1)
	})
	r.at(2*time.Minute, func() { r.route(2); r.route(3) })
	r.run(time.Hour)
	require.Len(t, r.batches, 2)
	require.Zero(t, r.due)
	require.Equal(t, 2, r.drains)
}

func TestAWakeWhileFallingAsleepIsNotLost(t *testing.T) {
	for name, during := range map[string]struct{ before, after func(*rows) }{
		"routed before the second look": {before: func(r *rows) { r.due++ }},
		"woken after the second look":   {after: func(r *rows) { r.due++; r.env.SignalWorkflow(WakeSignal, nil) }},
		"both":                          {before: func(r *rows) { r.due++ }, after: func(r *rows) { r.env.SignalWorkflow(WakeSignal, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRows(t)
			once := func(f func(*rows)) func() { return sync.OnceFunc(func() { f(r) }) }
			if during.before != nil {
				r.sleeping = once(during.before)
			}
			if during.after != nil {
				r.slept = once(during.after)
			}
			r.run(time.Hour)
			require.Zero(t, r.due)
			require.Len(t, r.batches, 1)
		})
	}
}

func TestWakesAreCoalesced(t *testing.T) {
	r := newRows(t)
	r.at(time.Minute, func() {
		for range 500 {
			r.env.SignalWorkflow(WakeSignal, nil)
		}
		r.due++
	})
	r.run(time.Hour)
	require.Less(t, r.loads, 10)
	require.Len(t, r.batches, 1)
}

func TestCollecting(t *testing.T) {
	for _, tc := range []struct {
		name string
		then func(*rows)
		want time.Duration
	}{
		{"until max_wait", func(*rows) {}, 30 * time.Second},
		{"until max_events", func(r *rows) {
			r.at(70*time.Second, func() { r.due = 500; r.env.SignalWorkflow(WakeSignal, nil) })
		}, 10 * time.Second},
		{"woken with less", func(r *rows) {
			r.at(70*time.Second, func() { r.due = 400; r.env.SignalWorkflow(WakeSignal, nil) })
		}, 30 * time.Second},
		{"until flushed", func(r *rows) { r.at(65*time.Second, func() { r.update(FlushUpdate) }) }, 5 * time.Second},
		{"over a reload", func(r *rows) { r.at(65*time.Second, func() { r.maxWait = 10 * time.Second; r.update(ReloadUpdate) }) }, 15 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRows(t)
			r.maxWait = 30 * time.Second
			var began time.Time
			r.at(time.Minute, func() { began = r.now(); r.route(1) })
			r.at(61*time.Second, func() { require.Equal(t, StateCollecting, r.state().State) })
			tc.then(r)
			r.run(time.Hour)
			require.Len(t, r.posts, 1)
			require.InDelta(t, tc.want, r.posts[0].at.Sub(began), float64(time.Second))
		})
	}
	t.Run("paused meanwhile", func(t *testing.T) {
		r := newRows(t)
		r.maxWait = 30 * time.Second
		r.due = 1
		r.at(5*time.Second, func() { r.status = "paused"; r.update(PauseUpdate) })
		r.run(time.Hour)
		require.Empty(t, r.posts)
	})
}

// A worker that is lost, or a database that does not answer, is no attempt.
func TestTroubleOfOursUsesUpNoAttempts(t *testing.T) {
	t.Run("first attempts", func(t *testing.T) {
		r := newRows(t)
		r.due = 1
		lost := 0
		r.env.OnActivity(DeliverBatchesActivity, mock.Anything, mock.Anything).Return(func(ctx context.Context, in activities.WebhookInput) (activities.DeliverResult, error) {
			if lost++; lost <= 5 {
				return activities.DeliverResult{}, temporal.NewHeartbeatTimeoutError()
			}
			return r.deliverBatches(ctx, in)
		})
		r.run(time.Hour)
		require.Len(t, r.posts, 1)
		require.Zero(t, r.pauses)
	})
	t.Run("retries", func(t *testing.T) {
		r := newRows(t)
		r.due, r.answer = 1, refuse
		calls := 0
		r.env.OnActivity(DeliverBatchActivity, mock.Anything, mock.Anything).Return(func(ctx context.Context, in activities.DeliverBatchInput) (activities.DeliverResult, error) {
			if calls++; calls%3 == 0 {
				return activities.DeliverResult{}, temporal.NewApplicationErrorWithOptions("sql 57P01", activities.ErrInfrastructure, temporal.ApplicationErrorOptions{NextRetryDelay: 10 * time.Second})
			}
			return r.deliverBatch(ctx, in)
		})
		r.run(24 * time.Hour)
		require.Len(t, r.posts, 1+40)
		require.Greater(t, calls, 40)
		require.Equal(t, 1, r.mails)
	})
	t.Run("a result that was lost", func(t *testing.T) {
		r := newRows(t)
		r.due = 1
		r.answer = func(attempt int) error {
			if attempt == 1 {
				return refuse(1)
			}
			return nil
		}
		first := true
		r.env.OnActivity(DeliverBatchesActivity, mock.Anything, mock.Anything).Return(func(ctx context.Context, in activities.WebhookInput) (activities.DeliverResult, error) {
			done, err := r.deliverBatches(ctx, in)
			if first {
				first = false
				return done, errors.New("the worker went away before it could tell")
			}
			return done, err
		})
		r.run(time.Hour)
		require.Len(t, r.posts, 2)
		require.InDelta(t, 5*time.Minute, r.posts[1].at.Sub(r.posts[0].at), float64(2*time.Second), "the rows knew")
	})
}

// A step whose database is away is tried again, visibly, for as long as it takes.
func TestStepsAreRetriedPatiently(t *testing.T) {
	r := newRows(t)
	r.due = 1
	var tries atomic.Int32
	r.env.OnActivity(LoadWebhookActivity, mock.Anything, mock.Anything).Return(func(ctx context.Context, in activities.WebhookInput) (activities.WebhookView, error) {
		if tries.Add(1) <= 10 { // three of them within the workflow task
			return activities.WebhookView{}, errors.New("sql 57P03")
		}
		return r.load(ctx, in)
	})
	r.run(5 * time.Hour)
	require.Len(t, r.batches, 1)
}

func TestEndsWithItsWebhook(t *testing.T) {
	for name, change := range map[string]func(*rows){
		"deleted":  func(r *rows) { r.exists = false },
		"inactive": func(r *rows) { r.status = "inactive" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRows(t)
			r.due, r.answer = 1, refuse
			r.at(time.Minute, func() { change(r); r.update(ReloadUpdate) })
			r.env.ExecuteWorkflow(WebhookType, WebhookInput{Webhook: id.New()})
			require.True(t, r.env.IsWorkflowCompleted())
			require.NoError(t, r.env.GetWorkflowError())
			require.Len(t, r.posts, 1)
		})
	}
}

func TestContinuesAsNew(t *testing.T) {
	r := newRows(t)
	webhook := id.New()
	r.at(time.Minute, func() {
		r.env.SetContinueAsNewSuggested(true)
		r.route(1)
		r.env.SignalWorkflow(WakeSignal, nil)
	})
	r.env.ExecuteWorkflow(WebhookType, WebhookInput{Webhook: webhook})
	next, ok := errors.AsType[*workflow.ContinueAsNewError](r.env.GetWorkflowError())
	require.True(t, ok)
	require.Equal(t, WebhookType, next.WorkflowType.Name)
	require.Equal(t, 1, r.due, "left to the next run, which reads the rows")
}

// Fast settings, as `go run ./dev --fast` gives them, need nothing special.
func TestFastRetries(t *testing.T) {
	r := newRows(t)
	r.due, r.answer, r.interval, r.retries = 1, refuse, 2*time.Second, 8
	r.run(time.Hour)
	require.Len(t, r.posts, 9)
	require.Less(t, r.posts[8].at.Sub(r.posts[0].at), time.Minute)
	require.Equal(t, 1, r.mails)
}

func TestANoticeIsSentPatiently(t *testing.T) {
	r := newRows(t)
	tries := 0
	r.env.OnActivity(SendMailActivity, mock.Anything, mock.Anything).Return(func(context.Context, activities.NoticeInput) error {
		if tries++; tries < 10 {
			return errors.New("connection")
		}
		return nil
	})
	r.env.ExecuteWorkflow(SendNoticeType, SendNoticeInput{Notice: id.New()})
	require.NoError(t, r.env.GetWorkflowError())
	require.Equal(t, 10, tries)
}
