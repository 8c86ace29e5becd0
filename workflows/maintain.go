package workflows

import "go.temporal.io/sdk/workflow"

// Maintain runs the sweep once. A schedule starts it every minute: the visible
// backstop of the sweep that every process does by itself.
func Maintain(ctx workflow.Context) error {
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, sqlPatient), SweepActivity).Get(ctx, nil)
}
