package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
	"aftersend/id"
)

// TrackDeferrals watches over the messages of one source that became deferred
// in one window, however many they are. It looks at them a few times, ends when
// none is left, and in the end has those given up that never got their final
// word. The rows say what is done: a second run, or one that was lost, does no
// harm.
func TrackDeferrals(ctx workflow.Context, in TrackDeferralsInput) (DeferralsStatus, error) {
	status := DeferralsStatus{Reviews: len(in.Reviews)}
	if err := workflow.SetQueryHandler(ctx, StatusQuery, func() (DeferralsStatus, error) { return status, nil }); err != nil {
		return status, err
	}
	for i, after := range in.Reviews {
		last := i == len(in.Reviews)-1
		var next time.Time
		if !last {
			next = in.ClosesAt.Add(in.Reviews[i+1])
			if !workflow.Now(ctx).Before(next) {
				continue // this run began late: the next review says all that this one would
			}
		}
		status.NextAt = in.ClosesAt.Add(after)
		workflow.SetCurrentDetails(ctx, status.details(in.Cohort))
		if wait := status.NextAt.Sub(workflow.Now(ctx)); wait > 0 {
			timer := workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: fmt.Sprintf("review %d of %d", i+1, len(in.Reviews))})
			if err := timer.Get(ctx, nil); err != nil {
				return status, err
			}
		}
		summary := "count who still waits"
		if last {
			summary = "give up on who still waits"
		}
		var review activities.CohortReview
		if err := reviewDeferrals(ctx, summary, activities.CohortInput{Cohort: in.Cohort, NextAt: next}, &review); err != nil {
			return status, err
		}
		status.CohortReview, status.Review, status.NextAt = review, i+1, next
		if review.Closed {
			break
		}
	}
	status.NextAt = time.Time{}
	workflow.SetCurrentDetails(ctx, status.details(in.Cohort))
	return status, nil
}

// reviewDeferrals runs the activity within the workflow task, and where that
// fails as a regular one, for as long as it takes.
func reviewDeferrals(ctx workflow.Context, summary string, in activities.CohortInput, review *activities.CohortReview) error {
	local := sqlLocal
	local.Summary = summary
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(ctx, local), ReviewDeferralsActivity, in).Get(ctx, review)
	if err == nil || temporal.IsCanceledError(err) {
		return err
	}
	patient := sqlPatient
	patient.Summary = summary
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, patient), ReviewDeferralsActivity, in).Get(ctx, review)
}

// details tells operators how the cohort stands.
func (s *DeferralsStatus) details(cohort id.ID) string {
	said := id.Cohort.Format(cohort)
	if s.Review > 0 {
		said += fmt.Sprintf(": %d still deferred, %d delivered, %d bounced, %d failed, %d expired at %s",
			s.Open, s.Delivered, s.Bounced, s.Failed, s.Expired, stamp(s.At))
	}
	switch {
	case s.Closed:
		said += "; nobody waits any more"
	case !s.NextAt.IsZero():
		said += "; next review " + stamp(s.NextAt)
	}
	return said
}
