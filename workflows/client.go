package workflows

import (
	"context"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"aftersend/id"
)

// Client starts and nudges workflows. All ids, queues and id policies are
// here, so that nobody else needs Temporal's options. Every start may be
// repeated: a running workflow is used, a finished one is started again and
// finds in the rows that nothing is left to do.
type Client struct {
	Temporal client.Client
	// Eager starts ProcessCallbacks in this process when its worker shares
	// this very client, which saves the trip through the task queue.
	Eager bool
	// Reviews is when deferrals are reviewed; nil = DeferralReviews.
	Reviews []time.Duration
}

// GroupStart says what ProcessCallbacks needs and what operators see.
type GroupStart struct {
	ID      id.ID
	Summary string   // "12 callbacks · mandrill 9, brevo 3"; at most 200 characters, no personal data
	ESPs    []string // for the search attribute
}

// StartGroup starts ProcessCallbacks for a group.
func (c *Client) StartGroup(ctx context.Context, g GroupStart) error {
	o := client.StartWorkflowOptions{
		ID:                       GroupWorkflowID(g.ID),
		TaskQueue:                CallbacksQueue,
		EnableEagerStart:         c.Eager,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:            g.Summary,
	}
	if len(g.ESPs) > 0 {
		o.TypedSearchAttributes = temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeywordList(AttrESP).ValueSet(g.ESPs))
	}
	_, err := c.Temporal.ExecuteWorkflow(ctx, o, ProcessCallbacksType, ProcessCallbacksInput{Group: g.ID})
	if err != nil {
		return fmt.Errorf("start %s: %w", o.ID, err)
	}
	return nil
}

func webhookOptions(webhook id.ID) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID:                       WebhookWorkflowID(webhook),
		TaskQueue:                WebhooksQueue,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}
}

// Wake tells a webhook's workflow that its outbox may hold something; it
// starts the workflow when none runs. The signal carries nothing.
func (c *Client) Wake(ctx context.Context, webhook id.ID) error {
	o := webhookOptions(webhook)
	_, err := c.Temporal.SignalWithStartWorkflow(ctx, o.ID, WakeSignal, nil, o, WebhookType, WebhookInput{Webhook: webhook})
	if err != nil {
		return fmt.Errorf("wake %s: %w", o.ID, err)
	}
	return nil
}

// Nudge tells a webhook's workflow that its row was changed: update is one of
// PauseUpdate, ResumeUpdate, FlushUpdate, ReloadUpdate. It returns once the
// workflow has taken note; the row is the truth whether or not it does.
func (c *Client) Nudge(ctx context.Context, webhook id.ID, update string) error {
	o := webhookOptions(webhook)
	start := c.Temporal.NewWithStartWorkflowOperation(o, WebhookType, WebhookInput{Webhook: webhook})
	h, err := c.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			WorkflowID:   o.ID,
			UpdateName:   update,
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = h.Get(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", update, o.ID, err)
	}
	return nil
}

// StartNotice starts SendNotice for a notice.
func (c *Client) StartNotice(ctx context.Context, notice id.ID) error {
	o := client.StartWorkflowOptions{
		ID:                       NoticeWorkflowID(notice),
		TaskQueue:                NotifyQueue,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}
	if _, err := c.Temporal.ExecuteWorkflow(ctx, o, SendNoticeType, SendNoticeInput{Notice: notice}); err != nil {
		return fmt.Errorf("start %s: %w", o.ID, err)
	}
	return nil
}

// DeferralsStart says what TrackDeferrals needs and what operators see.
type DeferralsStart struct {
	Cohort  id.ID
	ESP     string
	OpensAt time.Time // the window in which its messages became deferred
	Closes  time.Time
}

// StartDeferrals starts TrackDeferrals for a cohort.
func (c *Client) StartDeferrals(ctx context.Context, d DeferralsStart) error {
	o := client.StartWorkflowOptions{
		ID:                       DeferralsWorkflowID(d.Cohort),
		TaskQueue:                MaintenanceQueue,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:            d.ESP + " · deferred from " + stamp(d.OpensAt) + " on",
	}
	in := TrackDeferralsInput{Cohort: d.Cohort, ClosesAt: d.Closes.UTC(), Reviews: c.Reviews}
	if in.Reviews == nil {
		in.Reviews = DeferralReviews
	}
	if _, err := c.Temporal.ExecuteWorkflow(ctx, o, TrackDeferralsType, in); err != nil {
		return fmt.Errorf("start %s: %w", o.ID, err)
	}
	return nil
}
