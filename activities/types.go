// Package activities holds the verbs with dependencies: load, call a pure
// room, save. Every activity is idempotent, since any of them may run twice,
// and classifies its errors so that the workflow knows which to retry. What
// workflows and activities exchange are ids and counts.
package activities

import (
	"time"

	"aftersend/id"
)

// Types of the application errors that delivery returns to workflows.
const (
	ErrAttemptFailed  = "AttemptFailed"  // the endpoint did not accept; retried
	ErrGone           = "Gone"           // 410: not retried, paused at once
	ErrBlockedAddress = "BlockedAddress" // the URL leads to a forbidden address: not retried
	ErrStopped        = "Stopped"        // the webhook was paused or deleted meanwhile: nothing to retry
	ErrInfrastructure = "Infrastructure" // of ours (database); says nothing about the endpoint
)

// GroupInput names the group a step of ProcessCallbacks works on.
type GroupInput struct {
	Group id.ID `json:"group"`
}

// GroupResult counts what is known of a group after a step.
type GroupResult struct {
	Callbacks   int `json:"callbacks"`
	Events      int `json:"events"`
	Repeats     int `json:"repeats"`
	Quarantined int `json:"quarantined"`
	Webhooks    int `json:"webhooks"` // that got at least one event
}

// CohortInput says which cohort of deferred messages to review.
type CohortInput struct {
	Cohort id.ID `json:"cohort"`
	// NextAt is when the review after this one is due; absent: this is the
	// last, and what still waits expires.
	NextAt time.Time `json:"next_at,omitzero"`
}

// CohortReview counts the messages of a cohort by where they stand.
type CohortReview struct {
	At        time.Time `json:"at,omitzero"`
	Open      int       `json:"open"` // deferred
	Delivered int       `json:"delivered"`
	Bounced   int       `json:"bounced"`
	Failed    int       `json:"failed"` // or rejected
	Expired   int       `json:"expired"`
	Closed    bool      `json:"closed"` // nothing is left to watch
}

// WebhookInput names the webhook an activity works on.
type WebhookInput struct {
	Webhook id.ID `json:"webhook"`
}

// WebhookView is what the Webhook workflow needs to decide; read from the rows.
type WebhookView struct {
	Account       id.ID         `json:"account"`
	Exists        bool          `json:"exists"` // false: deleted, end the workflow
	Status        string        `json:"status"` // active, paused, inactive
	PausedSince   time.Time     `json:"paused_since,omitzero"`
	MaxWait       time.Duration `json:"max_wait"`
	MaxEvents     int           `json:"max_events"`
	RetryInterval time.Duration `json:"retry_interval"`
	Retries       int           `json:"retries"`
	Due           int           `json:"due"`              // events in the outbox, counted up to some hundreds
	Open          id.ID         `json:"open"`             // the batch being delivered, or nil
	Attempts      int           `json:"attempts"`         // made on it so far
	Failing       bool          `json:"failing"`          // its last attempt failed
	RetriesUsed   int           `json:"retries_used"`     // on what failed
	GiveUp        bool          `json:"give_up"`          // it failed and will not be tried again
	NextAt        time.Time     `json:"next_at,omitzero"` // when the next retry is due
	LastError     string        `json:"last_error"`       // short name: "HTTP 503", "timeout"
}

// Outcomes of DeliverBatches and DeliverBatch.
const (
	OutcomeDrained   = "drained"   // nothing is due any more
	OutcomeMore      = "more"      // time is up, there may be more
	OutcomeDelivered = "delivered" // the batch asked for
	OutcomeFailed    = "failed"    // the endpoint did not accept; the rows say what follows
	OutcomeStopped   = "stopped"   // the webhook is not active
)

// DeliverResult is what DeliverBatches or DeliverBatch did.
type DeliverResult struct {
	Outcome string `json:"outcome"`
	Batches int    `json:"batches"`
	Events  int    `json:"events"`
	Error   string `json:"error,omitempty"` // short name of the failure, never text from outside
}

// DeliverBatchInput names the batch to try again.
type DeliverBatchInput struct {
	Webhook id.ID `json:"webhook"`
	Batch   id.ID `json:"batch"`
}

// PauseResult names the notice that tells of the pause, or nil.
type PauseResult struct {
	Notice id.ID `json:"notice"`
}

// SleepResult says whether something is due after all.
type SleepResult struct {
	Due bool `json:"due"`
}

// NoticeInput names the notice to send.
type NoticeInput struct {
	Notice id.ID `json:"notice"`
}
