package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
)

// processSteps are the steps of ProcessCallbacks, in order. summary says what
// is known before the step, for operators.
var processSteps = []struct {
	name    string
	summary func(before activities.GroupResult) string
}{
	{ParseCallbacksActivity, func(activities.GroupResult) string { return "read and understand" }},
	{CorrelateEventsActivity, func(r activities.GroupResult) string {
		return fmt.Sprintf("%s from %s", count(r.Events, "event"), count(r.Callbacks, "callback"))
	}},
	{RouteEventsActivity, func(r activities.GroupResult) string {
		return fmt.Sprintf("%s, %s", count(r.Events, "new event"), count(r.Repeats, "repeat"))
	}},
	{WakeWebhooksActivity, func(r activities.GroupResult) string { return count(r.Webhooks, "webhook") }},
}

// ProcessCallbacks takes one group of callbacks from stored bytes to events in
// the outboxes of webhooks. Each step finds in the rows what is left of it, so
// that running any of this again does no harm.
func ProcessCallbacks(ctx workflow.Context, in ProcessCallbacksInput) (activities.GroupResult, error) {
	var done activities.GroupResult
	for _, step := range processSteps {
		var res activities.GroupResult
		if err := processStep(ctx, step.name, step.summary(done), activities.GroupInput{Group: in.Group}, &res); err != nil {
			return done, err
		}
		done = res
	}
	return done, nil
}

// processStep runs a step within the workflow task, which costs the engine
// nothing. Where that fails it runs as a regular activity, whose attempts,
// error and next try operators see, for as long as it takes.
func processStep(ctx workflow.Context, name, summary string, in activities.GroupInput, res *activities.GroupResult) error {
	local := sqlLocal
	local.Summary = summary
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(ctx, local), name, in).Get(ctx, res)
	if err == nil || temporal.IsCanceledError(err) || isNoGroup(err) {
		return err
	}
	patient := sqlPatient
	patient.Summary = summary
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, patient), name, in).Get(ctx, res)
}

// isNoGroup reports that there is nothing to process, now or later.
func isNoGroup(err error) bool {
	app, ok := errors.AsType[*temporal.ApplicationError](err)
	return ok && app.Type() == activities.ErrNoGroup
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
