package workflows

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"aftersend/activities"
	"aftersend/id"
)

// tracked plays the activity on one cohort and writes down when it ran.
type tracked struct {
	env    *testsuite.TestWorkflowEnvironment
	in     TrackDeferralsInput
	after  []time.Duration // since ClosesAt
	lasts  []bool
	review func(n int, info activity.Info) (activities.CohortReview, error)
}

func track(t *testing.T, begins time.Duration) *tracked {
	var s testsuite.WorkflowTestSuite
	closes := time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC)
	r := &tracked{env: s.NewTestWorkflowEnvironment(), in: TrackDeferralsInput{Cohort: id.New(), ClosesAt: closes, Reviews: DeferralReviews}}
	r.env.SetStartTime(closes.Add(begins))
	r.review = func(int, activity.Info) (activities.CohortReview, error) {
		return activities.CohortReview{Open: 5}, nil
	}
	r.env.RegisterActivityWithOptions(func(ctx context.Context, in activities.CohortInput) (activities.CohortReview, error) {
		require.Equal(t, r.in.Cohort, in.Cohort)
		if !in.NextAt.IsZero() {
			require.True(t, in.NextAt.After(r.env.Now()))
		}
		review, err := r.review(len(r.after)+1, activity.GetInfo(ctx))
		if err == nil {
			r.after = append(r.after, r.env.Now().Sub(closes).Round(time.Second))
			r.lasts = append(r.lasts, in.NextAt.IsZero())
			review.Closed = review.Closed || in.NextAt.IsZero()
		}
		return review, err
	}, activity.RegisterOptions{Name: ReviewDeferralsActivity})
	return r
}

func (r *tracked) run(t *testing.T) DeferralsStatus {
	r.env.ExecuteWorkflow(TrackDeferrals, r.in)
	require.True(t, r.env.IsWorkflowCompleted())
	require.NoError(t, r.env.GetWorkflowError())
	var status DeferralsStatus
	require.NoError(t, r.env.GetWorkflowResult(&status))
	return status
}

func (r *tracked) query(t *testing.T) DeferralsStatus {
	v, err := r.env.QueryWorkflow(StatusQuery)
	require.NoError(t, err)
	var status DeferralsStatus
	require.NoError(t, v.Get(&status))
	return status
}

func TestDeferralsAreReviewedAndInTheEndGivenUp(t *testing.T) {
	r := track(t, -5*time.Minute) // as its window opens
	r.env.RegisterDelayedCallback(func() {
		s := r.query(t)
		require.Zero(t, s.Review)
		require.Equal(t, r.in.ClosesAt.Add(15*time.Minute), s.NextAt.UTC())
	}, time.Minute)
	r.env.RegisterDelayedCallback(func() {
		s := r.query(t)
		require.Equal(t, 2, s.Review)
		require.Equal(t, 5, s.Open)
		require.Equal(t, r.in.ClosesAt.Add(4*time.Hour), s.NextAt.UTC())
	}, 2*time.Hour)
	status := r.run(t)
	require.Equal(t, DeferralReviews, r.after)
	require.Equal(t, []bool{false, false, false, false, true}, r.lasts, "only the last gives up")
	require.Equal(t, 5, status.Review)
	require.True(t, status.Closed)
}

func TestTrackingEndsWhenNobodyWaits(t *testing.T) {
	r := track(t, 0)
	r.review = func(n int, _ activity.Info) (activities.CohortReview, error) {
		return activities.CohortReview{Delivered: 7, Closed: n == 2}, nil
	}
	status := r.run(t)
	require.Equal(t, DeferralReviews[:2], r.after)
	require.Equal(t, 7, status.Delivered)
	require.Contains(t, status.details(r.in.Cohort), "nobody waits any more")
}

// A run that begins late, since the one before was lost, catches up at once.
func TestTrackingThatBeginsLate(t *testing.T) {
	r := track(t, 5*time.Hour)
	r.run(t)
	require.Equal(t, []time.Duration{5 * time.Hour, 24 * time.Hour, 120 * time.Hour}, r.after)

	r = track(t, 1000*time.Hour)
	r.run(t)
	require.Equal(t, []bool{true}, r.lasts)
}

func TestAReviewThatFailsRunsPatiently(t *testing.T) {
	r := track(t, 0)
	patient := int32(0)
	r.review = func(_ int, info activity.Info) (activities.CohortReview, error) {
		if info.IsLocalActivity || info.Attempt < 4 {
			return activities.CohortReview{}, temporal.NewApplicationError("connection", "connection")
		}
		patient = info.Attempt
		return activities.CohortReview{Closed: true}, nil
	}
	r.run(t)
	require.EqualValues(t, 4, patient)
}
