// Package worker runs workflows and activities: it registers them under their
// names on the task queues, with pollers and slots for each queue, and keeps
// everything personal out of what Temporal gets to see of failures.
//
// It may import workflows, activities and what is below them.
package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
	"aftersend/workflows"
)

// Deps is what workflows and activities need.
type Deps struct {
	Processing *activities.Processing
	Delivery   *activities.Delivery
	// Sweep closes the gaps that crashes leave; the schedule's activity.
	Sweep func(context.Context) error
	// Watch looks for sources that fall silent and domains that refuse.
	Watch func(context.Context) error
	// Attributes reports whether the namespace has our search attributes.
	Attributes func() bool
	Log        *slog.Logger
}

// Options tunes a worker.
type Options struct {
	// StopTimeout is how long Stop lets activities finish; 0 =
	// workflows.WorkerStopTimeout.
	StopTimeout time.Duration
}

// restartAfter is how long a worker waits that could not start or keep going:
// Temporal is unreachable, or the namespace does not exist yet.
const restartAfter = 2 * time.Second

// Worker serves all task queues in this process.
type Worker struct {
	client client.Client
	deps   Deps
	o      Options

	running atomic.Bool
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// New makes a worker that is not running yet. With the same client as the one
// that starts ProcessCallbacks, those starts are eager: the first task of a
// workflow comes back with the start.
func New(c client.Client, deps Deps, o Options) *Worker {
	if o.StopTimeout == 0 {
		o.StopTimeout = workflows.WorkerStopTimeout
	}
	return &Worker{client: c, deps: deps, o: o, stop: make(chan struct{}), stopped: make(chan struct{})}
}

// Start begins to work and returns at once. While Temporal cannot be reached
// it keeps trying. Call it once.
func (w *Worker) Start() { go w.run() }

// Running reports whether it serves its task queues: false before it found
// Temporal and after it lost it.
func (w *Worker) Running() bool { return w.running.Load() }

// Stop takes no more work, lets activities finish within the stop timeout, and
// returns when they have. Call it after Start.
func (w *Worker) Stop() {
	w.once.Do(func() { close(w.stop) })
	<-w.stopped
}

func (w *Worker) run() {
	defer close(w.stopped)
	failing := false
	for {
		fatal := make(chan struct{})
		workers, err := w.start(sync.OnceFunc(func() { close(fatal) }))
		if err == nil {
			w.deps.Log.Info("worker runs")
			failing = false
			w.running.Store(true)
			select {
			case <-w.stop:
			case <-fatal:
				w.deps.Log.Warn("worker lost the engine; it starts again")
			}
			w.running.Store(false)
		} else if !failing {
			w.deps.Log.Warn("worker cannot start yet; it keeps trying", "error", Class(err))
			failing = true
		}
		stopAll(workers)
		select {
		case <-w.stop:
			return
		case <-time.After(restartAfter):
		}
	}
}

// start makes and starts one SDK worker per queue. An SDK worker that failed
// to start cannot be started again, so all are made anew each time.
func (w *Worker) start(fatal func()) ([]sdk.Worker, error) {
	var started []sdk.Worker
	for _, q := range queues {
		o := q.options
		o.WorkerStopTimeout = w.o.StopTimeout
		o.DisableRegistrationAliasing = true
		o.Interceptors = []interceptor.WorkerInterceptor{&redactor{log: w.deps.Log}}
		o.OnFatalError = func(error) { fatal() }
		worker := sdk.New(w.client, q.name, o)
		q.register(worker, w.deps)
		if err := worker.Start(); err != nil {
			return started, err
		}
		started = append(started, worker)
	}
	return started, nil
}

// stopAll stops workers side by side: each may wait for its activities.
func stopAll(workers []sdk.Worker) {
	var all sync.WaitGroup
	for _, worker := range workers {
		all.Go(worker.Stop)
	}
	all.Wait()
}

// queue is a task queue with its slots and what runs on it.
type queue struct {
	name     string
	options  sdk.Options
	register func(sdk.Registry, Deps)
}

// queues are all task queues. SQL steps are bounded by the connections of the
// pool, deliveries by nothing but sockets and the bodies in memory: an endpoint
// that hangs holds one slot.
var queues = []queue{
	{
		name: workflows.CallbacksQueue,
		options: sdk.Options{
			WorkflowTaskPollerBehavior:              pollers(2, 8),
			ActivityTaskPollerBehavior:              pollers(1, 2),
			MaxConcurrentWorkflowTaskExecutionSize:  16,
			MaxConcurrentLocalActivityExecutionSize: 8,
			MaxConcurrentActivityExecutionSize:      8,
		},
		register: func(r sdk.Registry, d Deps) {
			addWorkflow(r, workflows.ProcessCallbacksType, workflows.ProcessCallbacks)
			addActivity(r, workflows.ParseCallbacksActivity, d.Processing.ParseCallbacks)
			addActivity(r, workflows.CorrelateEventsActivity, d.Processing.CorrelateEvents)
			addActivity(r, workflows.RouteEventsActivity, d.Processing.RouteEvents)
			addActivity(r, workflows.WakeWebhooksActivity, d.Processing.WakeWebhooks)
		},
	},
	{
		name: workflows.WebhooksQueue,
		options: sdk.Options{
			WorkflowTaskPollerBehavior:              pollers(2, 8),
			ActivityTaskPollerBehavior:              pollers(1, 2),
			MaxConcurrentWorkflowTaskExecutionSize:  100,
			MaxConcurrentLocalActivityExecutionSize: 8,
			MaxConcurrentActivityExecutionSize:      8,
		},
		register: func(r sdk.Registry, d Deps) {
			addWorkflow(r, workflows.WebhookType, func(ctx workflow.Context, in workflows.WebhookInput) error {
				return workflows.Webhook(d.Attributes())(ctx, in)
			})
			addActivity(r, workflows.LoadWebhookActivity, d.Delivery.LoadWebhook)
			addActivity(r, workflows.PauseWebhookActivity, d.Delivery.PauseWebhook)
			addActivity(r, workflows.FallAsleepActivity, d.Delivery.FallAsleep)
		},
	},
	{
		name: workflows.DeliveryQueue,
		options: sdk.Options{
			DisableWorkflowWorker:              true,
			ActivityTaskPollerBehavior:         pollers(2, 20),
			MaxConcurrentActivityExecutionSize: 500,
		},
		register: func(r sdk.Registry, d Deps) {
			addActivity(r, workflows.DeliverBatchesActivity, d.Delivery.DeliverBatches)
			addActivity(r, workflows.DeliverBatchActivity, d.Delivery.DeliverBatch)
		},
	},
	{
		name: workflows.NotifyQueue,
		options: sdk.Options{
			WorkflowTaskPollerBehavior:         pollers(1, 2),
			ActivityTaskPollerBehavior:         pollers(1, 2),
			MaxConcurrentActivityExecutionSize: 5,
		},
		register: func(r sdk.Registry, d Deps) {
			addWorkflow(r, workflows.SendNoticeType, workflows.SendNotice)
			addActivity(r, workflows.SendMailActivity, d.Delivery.SendMail)
		},
	},
	{
		name: workflows.MaintenanceQueue,
		options: sdk.Options{
			WorkflowTaskPollerBehavior:         pollers(1, 2),
			ActivityTaskPollerBehavior:         pollers(1, 2),
			MaxConcurrentActivityExecutionSize: 2,
		},
		register: func(r sdk.Registry, d Deps) {
			addWorkflow(r, workflows.MaintainType, workflows.Maintain)
			addActivity(r, workflows.SweepActivity, d.Sweep)
			addActivity(r, workflows.WatchActivity, d.Watch)
			addWorkflow(r, workflows.TrackDeferralsType, workflows.TrackDeferrals)
			addActivity(r, workflows.ReviewDeferralsActivity, d.Processing.ReviewDeferrals)
		},
	},
}

func pollers(least, most int) sdk.PollerBehavior {
	return sdk.NewPollerBehaviorAutoscaling(sdk.PollerBehaviorAutoscalingOptions{
		InitialNumberOfPollers: least, MinimumNumberOfPollers: least, MaximumNumberOfPollers: most,
	})
}

func addWorkflow(r sdk.Registry, name string, f any) {
	r.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: name})
}

func addActivity(r sdk.Registry, name string, f any) {
	r.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
}
