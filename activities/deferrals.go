package activities

import (
	"context"
	"time"

	"aftersend/store"
)

// ReviewDeferrals counts how the messages of a cohort stand, closes the cohort
// when none is deferred any more, and at the last review gives up on those
// that are: their events come through groups that the sweep starts. Run again
// it finds the cohort closed and counts.
func (p *Processing) ReviewDeferrals(ctx context.Context, in CohortInput) (CohortReview, error) {
	now := time.Now().UTC()
	r, err := p.Store.ReviewCohort(ctx, store.Review{Cohort: in.Cohort, Now: now, NextAt: in.NextAt})
	if err != nil {
		return CohortReview{}, err
	}
	return CohortReview{
		At: now, Open: r.Open, Delivered: r.Delivered, Bounced: r.Bounced, Failed: r.Failed, Expired: r.Expired, Closed: r.Closed,
	}, nil
}
