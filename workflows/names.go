package workflows

import "aftersend/id"

// Workflow types as registered. Explicit, so that renaming a Go function
// breaks no running workflow.
const (
	ProcessCallbacksType = "ProcessCallbacks"
	WebhookType          = "Webhook"
	SendNoticeType       = "SendNotice"
	TrackDeferralsType   = "TrackDeferrals"
	MaintainType         = "Maintain"
)

// Activity types as registered.
const (
	ParseCallbacksActivity  = "ParseCallbacks"
	CorrelateEventsActivity = "CorrelateEvents"
	RouteEventsActivity     = "RouteEvents"
	WakeWebhooksActivity    = "WakeWebhooks"
	LoadWebhookActivity     = "LoadWebhook"
	DeliverBatchesActivity  = "DeliverBatches"
	DeliverBatchActivity    = "DeliverBatch"
	PauseWebhookActivity    = "PauseWebhook"
	FallAsleepActivity      = "FallAsleep"
	SendMailActivity        = "SendMail"
	ReviewDeferralsActivity = "ReviewDeferrals"
	SweepActivity           = "Sweep"
	WatchActivity           = "Watch"
)

// Task queues; workers scale by them.
const (
	CallbacksQueue   = "callbacks"
	WebhooksQueue    = "webhooks"
	DeliveryQueue    = "delivery"
	NotifyQueue      = "notify"
	MaintenanceQueue = "maintenance"
)

// Signals, updates and queries of the Webhook workflow. TrackDeferrals answers
// StatusQuery, too.
const (
	WakeSignal   = "wake"
	PauseUpdate  = "pause"
	ResumeUpdate = "resume"
	FlushUpdate  = "flush"
	ReloadUpdate = "reload"
	StatusQuery  = "status"
)

// Search attributes; registered by whoever sets up the namespace.
const (
	AttrESP         = "AftersendEsp"         // KeywordList
	AttrWebhook     = "AftersendWebhookId"   // Keyword, wh_…
	AttrState       = "AftersendState"       // Keyword: active, retrying, paused; the status query tells more
	AttrPausedSince = "AftersendPausedSince" // Datetime
	AttrAccount     = "AftersendAccount"     // Keyword, acc_…
)

// GroupWorkflowID names the ProcessCallbacks workflow of a group.
func GroupWorkflowID(group id.ID) string { return "group/" + id.Group.Format(group) }

// WebhookWorkflowID names the Webhook workflow of a webhook.
func WebhookWorkflowID(webhook id.ID) string { return "webhook/" + id.Webhook.Format(webhook) }

// DeferralsWorkflowID names the TrackDeferrals workflow of a cohort.
func DeferralsWorkflowID(cohort id.ID) string { return "deferrals/" + id.Cohort.Format(cohort) }

// NoticeWorkflowID names the SendNotice workflow of a notice.
func NoticeWorkflowID(notice id.ID) string { return "notice/" + id.Notice.Format(notice) }
