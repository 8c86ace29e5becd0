package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
	"aftersend/workflows"
)

// registry writes down what is registered. Its embedded interface is nil: what
// registers without a name panics.
type registry struct {
	sdk.Registry
	names map[string]int
}

func (r *registry) RegisterWorkflowWithOptions(_ any, o workflow.RegisterOptions) { r.names[o.Name]++ }
func (r *registry) RegisterActivityWithOptions(_ any, o activity.RegisterOptions) { r.names[o.Name]++ }

func deps() Deps {
	return Deps{Processing: &activities.Processing{}, Delivery: &activities.Delivery{}, Sweep: func(context.Context) error { return nil }, Watch: func(context.Context) error { return nil },
		Attributes: func() bool { return false }, Log: slog.New(slog.DiscardHandler)}
}

func TestEverythingIsRegisteredWhereItIsAskedFor(t *testing.T) {
	want := map[string][]string{
		workflows.CallbacksQueue: {workflows.ProcessCallbacksType, workflows.ParseCallbacksActivity, workflows.CorrelateEventsActivity,
			workflows.RouteEventsActivity, workflows.WakeWebhooksActivity},
		workflows.WebhooksQueue:    {workflows.WebhookType, workflows.LoadWebhookActivity, workflows.PauseWebhookActivity, workflows.FallAsleepActivity},
		workflows.DeliveryQueue:    {workflows.DeliverBatchesActivity, workflows.DeliverBatchActivity},
		workflows.NotifyQueue:      {workflows.SendNoticeType, workflows.SendMailActivity},
		workflows.MaintenanceQueue: {workflows.MaintainType, workflows.SweepActivity, workflows.WatchActivity, workflows.TrackDeferralsType, workflows.ReviewDeferralsActivity},
	}
	require.Len(t, queues, len(want))
	for _, q := range queues {
		r := &registry{names: map[string]int{}}
		q.register(r, deps())
		require.Len(t, r.names, len(want[q.name]), q.name)
		for _, name := range want[q.name] {
			require.Equal(t, 1, r.names[name], "%s on %s", name, q.name)
		}
		require.Positive(t, q.options.MaxConcurrentActivityExecutionSize, "%s: every limit is declared", q.name)
		require.NotNil(t, q.options.ActivityTaskPollerBehavior, q.name)
		require.True(t, q.options.DisableWorkflowWorker || q.options.WorkflowTaskPollerBehavior != nil, q.name)
	}
}

func TestAWorkerWithoutTemporalKeepsTryingAndStops(t *testing.T) {
	c, err := client.NewLazyClient(client.Options{HostPort: "127.0.0.1:1", Logger: quiet{}})
	require.NoError(t, err)
	defer c.Close()
	w := New(c, deps(), Options{StopTimeout: time.Second})
	w.Start()
	w.Stop()
	w.Stop()
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// What must never reach Temporal.
const (
	canaryAddress = "canary@example.com"
	canaryToken   = "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5"
)

type leak struct{ error }

var failures = []struct {
	name, class string
	fail        func() error
}{
	{"plain", "error (*errors.errorString)", func() error { return errors.New(canaryAddress + canaryToken) }},
	{"wrapped", "error (worker.leak)", func() error { return fmt.Errorf("deliver to %s: %w", canaryAddress, leak{nil}) }},
	{"postgres", "sql_22021", func() error {
		return fmt.Errorf("insert: %w", &pq.Error{Code: "22021", Message: canaryAddress, Detail: canaryToken, Table: "events"})
	}},
	{"timeout", "timeout", func() error { return fmt.Errorf("%s: %w", canaryAddress, context.DeadlineExceeded) }},
	{"application", "HTTP 503", func() error {
		return temporal.NewApplicationErrorWithCause("HTTP 503", "AttemptFailed", errors.New(canaryAddress), canaryToken)
	}},
	{"application, careless", "AttemptFailed", func() error {
		return temporal.NewNonRetryableApplicationError("POST https://x/?token="+canaryToken, "AttemptFailed", errors.New(canaryAddress))
	}},
	{"application, careless type", "error", func() error { return temporal.NewNonRetryableApplicationError(canaryAddress, canaryAddress, nil) }},
	{"panic", "panic (string)", func() error { panic(canaryAddress + canaryToken) }},
	{"panic with an error", "panic (*errors.errorString)", func() error { panic(errors.New(canaryAddress + canaryToken)) }},
}

// chain spells an error with all its causes.
func chain(err error) string {
	var b strings.Builder
	for ; err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(&b, "%T %v\n", err, err)
		if app, ok := err.(*temporal.ApplicationError); ok && app.HasDetails() {
			b.WriteString("details: " + canaryToken)
		}
		if p, ok := err.(*temporal.PanicError); ok {
			b.WriteString(p.StackTrace())
		}
	}
	return b.String()
}

func requireNoCanary(t *testing.T, text string) {
	t.Helper()
	require.NotContains(t, text, "canary@")
	require.NotContains(t, text, canaryToken)
}

func environment(log *slog.Logger) *testsuite.TestWorkflowEnvironment {
	var s testsuite.WorkflowTestSuite
	s.SetLogger(quiet{})
	env := s.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(sdk.Options{Interceptors: []interceptor.WorkerInterceptor{&redactor{log: log}}})
	return env
}

func TestTemporalSeesClassesOnly(t *testing.T) {
	once := &temporal.RetryPolicy{MaximumAttempts: 1}
	regular := func(ctx workflow.Context, name string) error {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, RetryPolicy: once})
		return workflow.ExecuteActivity(ctx, name).Get(ctx, nil)
	}
	local := func(ctx workflow.Context, name string) error {
		ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: time.Minute, RetryPolicy: once})
		return workflow.ExecuteLocalActivity(ctx, name).Get(ctx, nil)
	}
	for _, c := range failures {
		for how, run := range map[string]func(workflow.Context, string) error{"regular": regular, "local": local} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				var logged strings.Builder
				env := environment(slog.New(slog.NewTextHandler(&logged, nil)))
				env.RegisterActivityWithOptions(func(context.Context) error { return c.fail() }, activity.RegisterOptions{Name: "Fail"})
				env.ExecuteWorkflow(func(ctx workflow.Context) error { return run(ctx, "Fail") })
				text := chain(env.GetWorkflowError())
				requireNoCanary(t, text)
				require.Contains(t, text, c.class)
				requireNoCanary(t, logged.String())
				require.Contains(t, logged.String(), "activity=Fail", "somebody must learn of it")
			})
		}
	}
}

func TestRetryDecisionsSurvive(t *testing.T) {
	in := temporal.NewApplicationErrorWithOptions("HTTP 429", "AttemptFailed", temporal.ApplicationErrorOptions{
		NonRetryable: true, NextRetryDelay: time.Hour, Category: temporal.ApplicationErrorCategoryBenign})
	out, ok := errors.AsType[*temporal.ApplicationError](redact(fmt.Errorf("deliver: %w", in)))
	require.True(t, ok)
	require.Equal(t, "AttemptFailed", out.Type())
	require.True(t, out.NonRetryable())
	require.Equal(t, time.Hour, out.NextRetryDelay())
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, out.Category())

	require.True(t, temporal.IsCanceledError(redact(temporal.NewCanceledError(canaryAddress))))
	require.Equal(t, context.Canceled, redact(fmt.Errorf("%s: %w", canaryAddress, context.Canceled)))
}

func TestWorkflowsSayClassesOnly(t *testing.T) {
	for _, c := range failures {
		t.Run(c.name, func(t *testing.T) {
			env := environment(slog.New(slog.DiscardHandler))
			env.ExecuteWorkflow(func(workflow.Context) error { return c.fail() })
			requireNoCanary(t, chain(env.GetWorkflowError()))
		})
		t.Run(c.name+" in a coroutine", func(t *testing.T) {
			env := environment(slog.New(slog.DiscardHandler))
			env.ExecuteWorkflow(func(ctx workflow.Context) error {
				done := false
				workflow.Go(ctx, func(workflow.Context) { done = c.fail() != nil })
				return workflow.Await(ctx, func() bool { return done })
			})
			if err := env.GetWorkflowError(); err != nil {
				requireNoCanary(t, chain(err))
			}
		})
		t.Run(c.name+" in an update", func(t *testing.T) {
			if strings.HasPrefix(c.name, "panic") {
				t.Skip("fails the workflow task, as above")
			}
			env := environment(slog.New(slog.DiscardHandler))
			var got error
			env.RegisterDelayedCallback(func() {
				env.UpdateWorkflow("u", "1", &testsuite.TestUpdateCallback{OnAccept: func() {}, OnReject: func(err error) { got = err },
					OnComplete: func(_ any, err error) { got = err }})
			}, time.Second)
			env.ExecuteWorkflow(func(ctx workflow.Context) error {
				if err := workflow.SetUpdateHandler(ctx, "u", func(workflow.Context) error { return c.fail() }); err != nil {
					return err
				}
				return workflow.Sleep(ctx, time.Minute)
			})
			require.Error(t, got)
			requireNoCanary(t, chain(got))
		})
	}
}
