package workflows

import (
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
	"aftersend/id"
)

// Webhook is the workflow that lives as long as one webhook does. It carries
// no delivery state: at every turn it reads the rows and does what they call
// for. Signals and updates only make it look again.
//
// attributes says whether the namespace has our search attributes; setting one
// that is not registered would stop the workflow. The answer is recorded with
// each run, so that a change of it breaks none.
func Webhook(attributes bool) func(workflow.Context, WebhookInput) error {
	return func(ctx workflow.Context, in WebhookInput) error {
		w := webhookRun{input: in, wake: workflow.GetSignalChannel(ctx, WakeSignal), status: WebhookStatus{State: StateIdle}}
		if err := w.listen(ctx); err != nil {
			return err
		}
		recorded := workflow.SideEffect(ctx, func(workflow.Context) any { return attributes })
		if err := recorded.Get(&w.attributes); err != nil {
			return err
		}
		return w.run(ctx)
	}
}

// webhookRun is one run of the workflow.
type webhookRun struct {
	input      WebhookInput
	attributes bool
	wake       workflow.ReceiveChannel
	view       activities.WebhookView // the rows, as last read

	changed bool // an update came: read the rows again
	pausing bool // it was a pause: stop what is under way
	flush   bool // it was a flush: wait for nothing

	status   WebhookStatus
	shown    string        // state in the search attributes
	interval time.Duration // of the retries, when the last one was planned
	troubles int           // failures of ours in a row
}

func (w *webhookRun) listen(ctx workflow.Context) error {
	note := func(what *bool) func(workflow.Context) error {
		return func(workflow.Context) error {
			w.changed, *what = true, true
			return nil
		}
	}
	return errors.Join(
		workflow.SetQueryHandler(ctx, StatusQuery, func() (WebhookStatus, error) { return w.status, nil }),
		workflow.SetUpdateHandler(ctx, PauseUpdate, note(&w.pausing)),
		workflow.SetUpdateHandler(ctx, ResumeUpdate, note(&w.changed)),
		workflow.SetUpdateHandler(ctx, FlushUpdate, note(&w.flush)),
		workflow.SetUpdateHandler(ctx, ReloadUpdate, note(&w.changed)),
	)
}

func (w *webhookRun) run(ctx workflow.Context) error {
	for {
		flush := w.flush
		w.settle()
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() && workflow.AllHandlersFinished(ctx) {
			return workflow.NewContinueAsNewError(ctx, WebhookType, w.input)
		}
		if err := w.step(ctx, LoadWebhookActivity, &w.view); err != nil {
			return err
		}
		var err error
		switch v := &w.view; {
		case !v.Exists, v.Status == "inactive":
			return nil
		case v.Status == "paused":
			w.show(ctx, WebhookStatus{State: StatePaused, PausedSince: v.PausedSince, LastError: v.LastError})
			err = workflow.Await(ctx, w.called)
		case v.GiveUp:
			err = w.giveUp(ctx)
		case v.Failing:
			err = w.retry(ctx, flush)
		case v.Open == id.Nil && v.Due == 0:
			err = w.sleep(ctx)
		default:
			err = w.collectAndDeliver(ctx, flush)
		}
		if err != nil {
			return err
		}
	}
}

// settle forgets what made the workflow look again: it is about to look.
func (w *webhookRun) settle() {
	for w.wake.ReceiveAsync(nil) {
	}
	w.changed, w.pausing, w.flush = false, false, false
}

// called reports whether there is reason to look at the rows again.
func (w *webhookRun) called() bool { return w.changed || w.wake.Len() > 0 }

// step runs a SQL activity: within the workflow task, and where that fails as
// a regular activity, visible and for as long as it takes.
func (w *webhookRun) step(ctx workflow.Context, name string, result any) error {
	in := activities.WebhookInput{Webhook: w.input.Webhook}
	local := workflow.WithLocalActivityOptions(ctx, sqlLocal)
	err := workflow.ExecuteLocalActivity(local, name, in).Get(ctx, result)
	if err == nil || temporal.IsCanceledError(err) {
		return err
	}
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, sqlPatient), name, in).Get(ctx, result)
}

// sleep waits until events are routed to the webhook, unless some are due.
func (w *webhookRun) sleep(ctx workflow.Context) error {
	var slept activities.SleepResult
	if err := w.step(ctx, FallAsleepActivity, &slept); err != nil || slept.Due {
		return err
	}
	w.show(ctx, WebhookStatus{State: StateIdle})
	return workflow.Await(ctx, w.called)
}

func (w *webhookRun) collectAndDeliver(ctx workflow.Context, flush bool) error {
	if !flush && w.view.Open == id.Nil {
		delivers, err := w.collect(ctx)
		if err != nil || !delivers {
			return err
		}
	}
	return w.deliver(ctx)
}

// collect waits until max_events are due or max_wait is over. It returns false
// when something else has to be done first.
func (w *webhookRun) collect(ctx workflow.Context) (deliver bool, err error) {
	until := workflow.Now(ctx).Add(w.view.MaxWait)
	for w.view.Due < w.view.MaxEvents {
		left := until.Sub(workflow.Now(ctx))
		if left <= 0 {
			return true, nil
		}
		w.show(ctx, WebhookStatus{State: StateCollecting})
		called, err := w.rest(ctx, left, "gathering a batch")
		if err != nil || w.changed {
			deliver = w.flush && !w.pausing
			w.flush = false // it was for what is being collected here
			return deliver, err
		}
		if called { // woken since enough is due, or by somebody who was not sure
			w.settle()
			if err := w.step(ctx, LoadWebhookActivity, &w.view); err != nil {
				return false, err
			}
			if v := &w.view; !v.Exists || v.Status != "active" || v.Open != id.Nil {
				return false, nil
			}
		}
	}
	return true, nil
}

// rest waits, at most for a while, and reports whether it was called.
func (w *webhookRun) rest(ctx workflow.Context, most time.Duration, summary string) (called bool, err error) {
	return workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: most, TimerOptions: workflow.TimerOptions{Summary: summary}}, w.called)
}

// deliver sends batch after batch until nothing is due or one fails.
func (w *webhookRun) deliver(ctx workflow.Context) error {
	w.show(ctx, WebhookStatus{State: StateDelivering})
	var done activities.DeliverResult
	err := w.activity(ctx, deliverFirst, DeliverBatchesActivity, activities.WebhookInput{Webhook: w.input.Webhook}, &done, &w.pausing)
	switch {
	case err != nil:
		return w.trouble(ctx, err)
	case done.Outcome == activities.OutcomeDrained && !w.changed:
		w.troubles = 0
		return w.sleep(ctx)
	}
	w.troubles = 0
	return nil // the rows say what follows
}

// retry brings the failed batch to its next attempts: waits until the first is
// due, then leaves the rest to the engine's retry policy, where operators see
// attempt, last failure and next time. Any update ends that, and the rows say
// how to go on.
func (w *webhookRun) retry(ctx workflow.Context, now bool) error {
	v := &w.view
	status := WebhookStatus{
		State: StateRetrying, Batch: id.Batch.Format(v.Open), Retry: v.RetriesUsed + 1, Retries: v.Retries, NextAt: v.NextAt, LastError: v.LastError,
	}
	wait := v.NextAt.Sub(workflow.Now(ctx))
	if w.interval != 0 && w.interval != v.RetryInterval { // changed since it was planned
		wait = min(wait, v.RetryInterval)
		status.NextAt = workflow.Now(ctx).Add(wait)
	}
	w.interval = v.RetryInterval
	w.show(ctx, status)
	if wait > 0 && !now {
		if called, err := w.rest(ctx, wait, fmt.Sprintf("retry %d of %d", status.Retry, status.Retries)); called || err != nil {
			return err
		}
	}
	o := retryBatch(v.RetryInterval, v.Retries-v.RetriesUsed)
	o.Summary = fmt.Sprintf("%s: retries %d to %d, every %s", status.Batch, status.Retry, status.Retries, v.RetryInterval)
	in := activities.DeliverBatchInput{Webhook: w.input.Webhook, Batch: v.Open}
	err := w.activity(ctx, o, DeliverBatchActivity, in, nil, &w.changed)
	w.interval = 0
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok && aboutTheEndpoint[application.Type()] {
		err = nil // it is in the rows
	}
	if err != nil {
		return w.trouble(ctx, err)
	}
	w.troubles = 0
	return nil
}

var aboutTheEndpoint = map[string]bool{
	activities.ErrAttemptFailed: true, activities.ErrGone: true, activities.ErrBlockedAddress: true, activities.ErrStopped: true,
}

// activity runs one until it ends. When *stop becomes true meanwhile it is
// cancelled, and brings what it has begun to an end.
func (w *webhookRun) activity(ctx workflow.Context, o workflow.ActivityOptions, name string, in, result any, stop *bool) error {
	running, cancel := workflow.WithCancel(workflow.WithActivityOptions(ctx, o))
	defer cancel()
	future := workflow.ExecuteActivity(running, name, in)
	if err := workflow.Await(ctx, func() bool { return future.IsReady() || *stop }); err != nil {
		return err
	}
	if !future.IsReady() {
		cancel()
	}
	return future.Get(ctx, result)
}

// trouble rests after a failure of ours: a lost worker, a database that does
// not answer. It says nothing about the endpoint and uses up none of its
// attempts.
func (w *webhookRun) trouble(ctx workflow.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // the workflow itself was cancelled
	}
	if w.changed {
		return nil // most likely our own cancellation
	}
	pause := min(TroubleMost, TroubleFirst<<min(w.troubles, 10))
	w.troubles++
	workflow.GetLogger(ctx).Warn("delivery did not run to its end", "webhook", id.Webhook.Format(w.input.Webhook), "error", err)
	_, err = w.rest(ctx, pause, "after a failure of ours")
	return err
}

// giveUp pauses the webhook and sees that its owner is told.
func (w *webhookRun) giveUp(ctx workflow.Context) error {
	var paused activities.PauseResult
	if err := w.step(ctx, PauseWebhookActivity, &paused); err != nil {
		return err
	}
	if paused.Notice == id.Nil { // the rows changed under it
		_, err := w.rest(ctx, TroubleFirst, "reading again")
		return err
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: NoticeWorkflowID(paused.Notice), TaskQueue: NotifyQueue,
		ParentClosePolicy:     enums.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	})
	notice := workflow.ExecuteChildWorkflow(child, SendNoticeType, SendNoticeInput{Notice: paused.Notice})
	if err := notice.GetChildWorkflowExecution().Get(ctx, nil); err != nil && !temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		// The notice is a row: the sweep starts it again.
		workflow.GetLogger(ctx).Warn("notice not started", "notice", id.Notice.Format(paused.Notice), "error", err)
	}
	return ctx.Err()
}

// show tells operators where the webhook stands: the query always, details and
// search attributes when they change.
func (w *webhookRun) show(ctx workflow.Context, s WebhookStatus) {
	w.status = s
	state, details := "active", s.State
	switch s.State {
	case StateRetrying:
		state = StateRetrying
		details = fmt.Sprintf("retry %d of %d of %s due %s, last %s", s.Retry, s.Retries, s.Batch, stamp(s.NextAt), s.LastError)
	case StatePaused:
		state = StatePaused
		details = "paused since " + stamp(s.PausedSince)
		if w.view.Failing {
			details += fmt.Sprintf(" after %d attempts, last %s", w.view.Attempts, s.LastError)
		}
		details += "; resume: POST /api/v1/webhooks/" + id.Webhook.Format(w.input.Webhook) + "/resume"
	}
	workflow.SetCurrentDetails(ctx, details)
	if !w.attributes || w.shown == state {
		return
	}
	paused := temporal.NewSearchAttributeKeyTime(AttrPausedSince)
	updates := []temporal.SearchAttributeUpdate{temporal.NewSearchAttributeKeyKeyword(AttrState).ValueSet(state)}
	if state == StatePaused {
		updates = append(updates, paused.ValueSet(s.PausedSince))
	} else if w.shown == StatePaused {
		updates = append(updates, paused.ValueUnset())
	}
	if w.shown == "" { // the first of this run
		updates = append(updates,
			temporal.NewSearchAttributeKeyKeyword(AttrWebhook).ValueSet(id.Webhook.Format(w.input.Webhook)),
			temporal.NewSearchAttributeKeyKeyword(AttrAccount).ValueSet(id.Account.Format(w.view.Account)))
	}
	w.shown = state
	if err := workflow.UpsertTypedSearchAttributes(ctx, updates...); err != nil {
		workflow.GetLogger(ctx).Warn("search attributes not set", "error", err)
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
