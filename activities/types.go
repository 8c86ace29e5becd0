// Package activities holds the verbs with dependencies: load, call a pure
// room, save. Every activity is idempotent, since any of them may run twice,
// and classifies its errors so that the workflow knows which to retry. What
// workflows and activities exchange are ids and counts.
package activities

import (
	"time"

	"aftersend/id"
)

// Types of the application errors that activities return to workflows.
const (
	ErrAttemptFailed  = "AttemptFailed"  // the endpoint did not accept; retried
	ErrGone           = "Gone"           // 410: not retried, paused at once
	ErrBlockedAddress = "BlockedAddress" // the URL leads to a forbidden address: not retried
	ErrStopped        = "Stopped"        // the webhook was paused or deleted meanwhile: nothing to retry
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

// WebhookInput names the webhook an activity works on.
type WebhookInput struct {
	Webhook id.ID `json:"webhook"`
}

// WebhookView is what the Webhook workflow needs to decide; read from the rows.
type WebhookView struct {
	Name          string        `json:"-"` // not for histories
	Account       id.ID         `json:"account"`
	Exists        bool          `json:"exists"` // false: deleted, end the workflow
	Status        string        `json:"status"` // active, paused, inactive
	PausedSince   time.Time     `json:"paused_since,omitzero"`
	PauseReason   string        `json:"pause_reason,omitempty"`
	MaxWait       time.Duration `json:"max_wait"`
	MaxEvents     int           `json:"max_events"`
	RetryInterval time.Duration `json:"retry_interval"`
	Retries       int           `json:"retries"`
	RetriesUsed   int           `json:"retries_used"` // on the open batch
	OpenBatch     id.ID         `json:"open_batch"`   // a batch that has failed and waits, or nil
	Waiting       bool          `json:"waiting"`      // the outbox holds something
	Singly        bool          `json:"singly"`       // one event per POST, or Pushover
}

// DeliverResult is what DeliverBatches did.
type DeliverResult struct {
	Outcome   string    `json:"outcome"` // drained, more, failed, stopped, gone, blocked
	Batches   int       `json:"batches"`
	Events    int       `json:"events"`
	Batch     id.ID     `json:"batch"`               // the one that failed
	Status    int       `json:"status,omitempty"`    // its last HTTP status
	Error     string    `json:"error,omitempty"`     // class, never text from outside
	NotBefore time.Time `json:"not_before,omitzero"` // Retry-After, bounded
}

// NoticeInput names the notice to send.
type NoticeInput struct {
	Notice id.ID `json:"notice"`
}
