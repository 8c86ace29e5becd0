package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"aftersend/activities"
	"aftersend/webhook"
)

// Every timeout, retry policy and limit of the workflows, as data. Operators
// and tests read this one page.

// Delivery limits. The HTTP timeout is shorter than the activity's, so that a
// slow endpoint is told apart from a lost worker and its attempt is recorded.
const (
	MaxHTTPTimeout      = webhook.MaxTimeout // 30 s
	DefaultRetryEvery   = 5 * time.Minute
	DefaultRetries      = 40
	MaxRetryAfter       = webhook.MaxRetryAfter  // 1 h
	MaxBatchEvents      = webhook.MaxBatchEvents // 500
	MaxBatchWait        = webhook.MaxBatchWait   // 30 s
	DrainFor            = 10 * time.Second       // DeliverBatches starts no batch after this
	LingerFor           = time.Second            // and waits this long on an empty outbox
	LingerPoll          = 250 * time.Millisecond
	BatchSpacing        = 100 * time.Millisecond // batches that are not full start at least this far apart
	TroubleFirst        = time.Second            // after a failure of ours the webhook rests this long, doubling
	TroubleMost         = time.Minute            // up to this
	WorkerStopTimeout   = 45 * time.Second       // longer than an HTTP attempt: a deploy burns none
	NamespaceRetention  = 24 * time.Hour
	MaxEventsPerTx      = 10_000
	NoticeShownUnsentAt = 24 * time.Hour
)

// DeferralReviews is, unless configured otherwise, when TrackDeferrals looks at the messages of a cohort,
// counted from when the last of them can have joined it. The last review gives
// up on those that are still deferred: RFC 5321, 4.5.4.1 lets senders try for
// four to five days.
var DeferralReviews = []time.Duration{15 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour, 120 * time.Hour}

var (
	// sqlLocal: the happy path of a SQL step, inside the workflow task.
	sqlLocal = workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: 10 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    100 * time.Millisecond,
			BackoffCoefficient: 2,
			MaximumInterval:    time.Second,
			MaximumAttempts:    3,
		},
	}

	// sqlPatient: the same step as a regular activity, where operators see
	// attempt, error and next try; for as long as it takes.
	sqlPatient = workflow.ActivityOptions{
		StartToCloseTimeout: 60 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    time.Second,
			BackoffCoefficient: 2,
			MaximumInterval:    time.Minute,
		},
	}

	// deliverFirst: first attempts, batch after batch. Failure is a value and
	// not retried here. The heartbeat tells a lost worker from a slow endpoint.
	deliverFirst = workflow.ActivityOptions{
		TaskQueue:           DeliveryQueue,
		StartToCloseTimeout: 45 * time.Second,
		HeartbeatTimeout:    15 * time.Second,
		WaitForCancellation: true,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 1},
	}

	// sendMail: a notice is sent patiently, until it is shown as unsent and the
	// sweep takes over.
	sendMail = workflow.ActivityOptions{
		TaskQueue:              NotifyQueue,
		StartToCloseTimeout:    60 * time.Second,
		ScheduleToCloseTimeout: NoticeShownUnsentAt,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    time.Minute,
			BackoffCoefficient: 2,
			MaximumInterval:    time.Hour,
		},
	}
)

// retryBatch is the declared policy for one batch that failed: every interval,
// not growing, until the attempts are used up. What is left after a change of
// settings is passed in. What cannot be mended by trying again is not retried:
// the activity says so, and these types say it a second time.
func retryBatch(interval time.Duration, attemptsLeft int) workflow.ActivityOptions {
	o := deliverFirst
	o.RetryPolicy = &temporal.RetryPolicy{
		InitialInterval:        interval,
		BackoffCoefficient:     1,
		MaximumInterval:        max(interval, MaxRetryAfter),
		MaximumAttempts:        int32(attemptsLeft),
		NonRetryableErrorTypes: []string{activities.ErrGone, activities.ErrBlockedAddress, activities.ErrStopped},
	}
	return o
}
