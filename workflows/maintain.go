package workflows

import "go.temporal.io/sdk/workflow"

// MaintainInput says what to do. Nothing said: the sweep.
type MaintainInput struct {
	Activity string `json:"activity,omitempty"`
}

// Maintain does one piece of housekeeping. Schedules start it: the sweep every
// minute, the visible backstop of what every process does by itself, and the
// watch over sources and domains every hour.
func Maintain(ctx workflow.Context, in MaintainInput) error {
	if in.Activity == "" {
		in.Activity = SweepActivity
	}
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, sqlPatient), in.Activity).Get(ctx, nil)
}
