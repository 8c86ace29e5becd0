package activities

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/sdk/activity"

	"aftersend/crash"
	"aftersend/id"
	"aftersend/notify"
	"aftersend/outbound"
	"aftersend/store"
)

// Delivery holds the activities of the Webhook and SendNotice workflows.
type Delivery struct {
	Store     *store.Store
	Client    *outbound.Client
	Mailer    Mailer
	Hub       *Hub
	Limits    DeliveryLimits
	PublicURL string // of this installation, for links in notices
	Log       *slog.Logger
}

// Mailer sends a mail; *notify.Mailer is one.
type Mailer interface {
	Send(ctx context.Context, letter notify.Mail) error
}

// DeliveryLimits paces DeliverBatches. They are declared with the timeouts of
// the workflows.
type DeliveryLimits struct {
	DrainFor  time.Duration // it starts no batch after this
	LingerFor time.Duration // and waits this long on an empty outbox
	Poll      time.Duration // looking at the outbox in between, for what other processes route
	// Batches that are not full are at least this far apart: Spacing when they
	// hold some events, less when they hold few, see spacing.
	Spacing time.Duration
}

// LoadWebhook notes that the webhook's workflow is up and reads what it needs
// to decide. The note comes first: what is routed before it is seen here, who
// routes later finds it.
func (d *Delivery) LoadWebhook(ctx context.Context, in WebhookInput) (WebhookView, error) {
	if err := d.Store.StayAwake(ctx, in.Webhook); err != nil {
		return WebhookView{}, err
	}
	sub, err := d.Store.Subscription(ctx, in.Webhook)
	if errors.Is(err, store.ErrNotFound) {
		return WebhookView{}, nil
	}
	if err != nil {
		return WebhookView{}, err
	}
	v := WebhookView{
		Account: sub.AccountID, Exists: !sub.Deleted, Status: sub.Status,
		MaxWait: sub.Settings.Batch.MaxWait(), MaxEvents: sub.Settings.Batch.MaxEvents,
		RetryInterval: sub.Settings.Retry.Interval(), Retries: sub.Settings.Retry.Attempts,
		Due: sub.Due, Open: sub.Open, Attempts: sub.OpenAttempts,
		Failing: failing(&sub), RetriesUsed: sub.Progress.AttemptsUsed, GiveUp: exhausted(&sub), LastError: sub.Progress.LastError,
	}
	if sub.PausedAt != nil {
		v.PausedSince = *sub.PausedAt
	}
	if sub.Progress.NextAt != nil {
		v.NextAt = *sub.Progress.NextAt
	}
	return v, nil
}

func active(sub *store.Subscription) bool { return !sub.Deleted && sub.Status == "active" }

func failing(sub *store.Subscription) bool {
	return sub.Open != id.Nil && sub.Progress.FailingSince != nil
}

// exhausted reports whether what failed will not be tried again by itself.
func exhausted(sub *store.Subscription) bool {
	return failing(sub) && (sub.Progress.NextAt == nil || sub.Progress.AttemptsUsed >= sub.Settings.Retry.Attempts)
}

// PauseWebhook pauses a webhook whose attempts are exhausted, with the notice
// that tells about it, once for each outage. It decides by the rows: one that
// was resumed or mended meanwhile is left alone.
func (d *Delivery) PauseWebhook(ctx context.Context, in WebhookInput) (PauseResult, error) {
	sub, err := d.Store.Subscription(ctx, in.Webhook)
	if errors.Is(err, store.ErrNotFound) {
		return PauseResult{}, nil
	}
	if err != nil {
		return PauseResult{}, err
	}
	if sub.Deleted || !exhausted(&sub) {
		return PauseResult{}, nil
	}
	facts := notify.Paused{
		Webhook: id.Webhook.Format(sub.ID), Name: sub.Name, Endpoint: sub.Settings.URL,
		Since: *sub.Progress.FailingSince, At: time.Now(),
		Attempts: sub.OpenAttempts, LastError: sub.Progress.LastError,
		Final:   sub.Progress.AttemptsUsed < sub.Settings.Retry.Attempts,
		Waiting: sub.Progress.Waiting, PublicURL: d.PublicURL,
	}
	subject, text := facts.Mail()
	notice, err := d.Store.GiveUp(ctx, store.GiveUp{
		Account: sub.AccountID, Webhook: sub.ID, Outage: sub.Outage, Reason: facts.Reason(),
		Notice: store.Notice{ID: id.New(), Subject: subject, Body: text, Recipients: sub.Settings.Notify},
	})
	if err != nil {
		return PauseResult{}, err
	}
	if notice != id.Nil {
		d.Log.Warn("webhook paused", "webhook", id.Webhook.Format(sub.ID), "error", sub.Progress.LastError, "attempts", sub.OpenAttempts)
	}
	return PauseResult{Notice: notice}, nil
}

// FallAsleep notes that the webhook's workflow sleeps from now on, unless
// something is due.
func (d *Delivery) FallAsleep(ctx context.Context, in WebhookInput) (SleepResult, error) {
	due, err := d.Store.FallAsleep(ctx, in.Webhook)
	return SleepResult{Due: due}, err
}

// SendMail sends a notice to each of its recipients, once. What was reached
// before a failure is not mailed again by the next attempt.
func (d *Delivery) SendMail(ctx context.Context, in NoticeInput) error {
	n, err := d.Store.Notice(ctx, in.Notice)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || n.SentAt != nil {
		return err
	}
	reached := 0 // recipients, in order; kept by the engine between attempts
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &reached); err != nil {
			reached = 0
		}
	}
	if err := d.mail(ctx, n, reached); err != nil {
		why := notify.Class(err)
		if errors.Is(err, errNobody) {
			why = errNobody.Error()
		}
		d.Log.Warn("notice not sent", "notice", id.Notice.Format(n.ID), "error", why)
		if err := d.Store.NoticeFailed(ctx, n.ID, why); err != nil {
			return err
		}
		return infrastructure(why)
	}
	crash.Point("notice_after_send")
	return d.Store.NoticeSent(ctx, n.ID)
}

var errNobody = errors.New("nobody to send it to: the webhook names no address and the account has no owner")

func (d *Delivery) mail(ctx context.Context, n store.Notice, reached int) error {
	if len(n.Recipients) == 0 {
		return errNobody
	}
	var refused error
	for i, to := range n.Recipients {
		if i < reached {
			continue
		}
		crash.Point("notice_before_send")
		err := d.Mailer.Send(ctx, notify.Mail{
			To: to, Subject: n.Subject, Text: n.Body, Date: n.CreatedAt,
			MessageID: id.Notice.Format(n.ID) + "@aftersend.invalid",
		})
		switch {
		case err == nil:
			refused = nil
		case notify.Refused(err) && len(n.Recipients) > 1:
			// One address that does not exist must not keep the others from knowing.
			refused = err
			continue
		default:
			return err
		}
		activity.RecordHeartbeat(ctx, i+1)
	}
	return refused
}
