// Package workflows holds the durable part of aftersend: the order of steps,
// timers, signals and updates. It only decides; activities do. Workflows carry
// ids and counts, never bodies, addresses or headers, and the rows say what is
// done: a workflow that is lost, ended or started twice does no harm.
//
// options.go declares every timeout and retry policy, names.go every name.
package workflows

import (
	"time"

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

// WebhookStatus answers the status query: what this workflow is about.
type WebhookStatus struct {
	State       string    `json:"state"` // idle, collecting, delivering, retrying, paused
	PausedSince time.Time `json:"paused_since,omitzero"`
	Batch       string    `json:"batch,omitempty"` // bat_… being retried
	Attempt     int       `json:"attempt,omitempty"`
	NextAt      time.Time `json:"next_at,omitzero"`
}
