// Package workflows holds the durable part of aftersend: the order of steps,
// timers, signals and updates. It only decides; activities do. Workflows carry
// ids and counts, never bodies, addresses or headers, and the rows say what is
// done: a workflow that is lost, ended or started twice does no harm.
//
// options.go declares every timeout and retry policy, names.go every name.
package workflows

import (
	"time"

	"aftersend/activities"
	"aftersend/id"
)

// ProcessCallbacksInput names the group to process.
type ProcessCallbacksInput struct {
	Group id.ID `json:"group"`
}

// WebhookInput names the webhook; it is all the state that continue-as-new
// carries, since the rows hold the rest.
type WebhookInput struct {
	Webhook id.ID `json:"webhook"`
}

// SendNoticeInput names the notice to send.
type SendNoticeInput struct {
	Notice id.ID `json:"notice"`
}

// TrackDeferralsInput names the cohort to watch and says when. The plan comes
// with the start, so that a change of it breaks no running workflow.
type TrackDeferralsInput struct {
	Cohort   id.ID           `json:"cohort"`
	ClosesAt time.Time       `json:"closes_at"` // nobody joins the cohort after this
	Reviews  []time.Duration `json:"reviews"`   // after ClosesAt, ascending; the last one gives up
}

// DeferralsStatus answers the status query of TrackDeferrals: the last review.
type DeferralsStatus struct {
	activities.CohortReview
	Review  int       `json:"review"` // how many there were
	Reviews int       `json:"reviews"`
	NextAt  time.Time `json:"next_at,omitzero"`
}

// States of a webhook, as its workflow sees them.
const (
	StateIdle       = "idle"       // asleep until events are routed to it
	StateCollecting = "collecting" // gathering a batch
	StateDelivering = "delivering"
	StateRetrying   = "retrying" // a batch failed and waits for its next attempt
	StatePaused     = "paused"   // collecting, not delivering, until somebody resumes it
)

// WebhookStatus answers the status query: what this workflow is about.
type WebhookStatus struct {
	State       string    `json:"state"`
	PausedSince time.Time `json:"paused_since,omitzero"`
	Batch       string    `json:"batch,omitempty"`   // bat_… being retried
	Retry       int       `json:"retry,omitempty"`   // the one that is next or under way
	Retries     int       `json:"retries,omitempty"` // there will be at most
	NextAt      time.Time `json:"next_at,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
}
