package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"aftersend/crash"
	"aftersend/id"
	"aftersend/outbound"
	"aftersend/store"
	"aftersend/webhook"
)

// DeliverBatches delivers a webhook's batches one after the other: the open
// one first, then new ones cut from the outbox, as long as they are accepted
// and for at most DrainFor. On an empty outbox it lingers a little, so that a
// steady trickle is one activity and not one for each event.
//
// What the endpoint does is a result, not an error; an error is a failure of
// ours and says nothing about the endpoint. A request under way is always
// brought to its end and recorded, also when the activity is cancelled.
func (d *Delivery) DeliverBatches(ctx context.Context, in WebhookInput) (DeliverResult, error) {
	defer heartbeat(ctx)()
	events, unwatch := d.Hub.Watch(in.Webhook)
	defer unwatch()
	if err := d.Store.StopCollecting(ctx, in.Webhook); err != nil {
		return DeliverResult{}, err
	}
	run := drain{Delivery: d, webhook: in.Webhook, events: events, end: time.Now().Add(d.Limits.DrainFor)}
	if err := run.read(ctx); err != nil {
		return DeliverResult{}, err
	}
	err := run.loop(ctx)
	return run.result, err
}

// drain is one run of DeliverBatches.
type drain struct {
	*Delivery
	webhook id.ID
	events  <-chan struct{} // the outbox has grown
	end     time.Time
	sub     store.Subscription
	result  DeliverResult
}

func (r *drain) read(ctx context.Context) (err error) {
	r.sub, err = r.Store.Subscription(ctx, r.webhook)
	if errors.Is(err, store.ErrNotFound) {
		r.sub, err = store.Subscription{Deleted: true}, nil
	}
	return err
}

func (r *drain) loop(ctx context.Context) error {
	lastFound := time.Now()
	for {
		switch {
		case !active(&r.sub):
			r.result.Outcome = OutcomeStopped
			return nil
		case failing(&r.sub): // recorded by a run whose result was lost
			r.result.Outcome, r.result.Error = OutcomeFailed, r.sub.Progress.LastError
			return nil
		case time.Now().After(r.end) || stopping(ctx):
			r.result.Outcome = OutcomeMore
			return nil
		}
		began := time.Now()
		b, attempt, err := r.next(ctx)
		if errors.Is(err, store.ErrConflict) { // paused, changed or deleted meanwhile
			if err := r.read(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if b == nil {
			if r.sub.Settings.Batch.MaxWait() > 0 || time.Since(lastFound) >= r.Limits.LingerFor {
				r.result.Outcome = OutcomeDrained
				return nil
			}
			r.wait(ctx, r.Limits.Poll)
			continue
		}
		lastFound = began
		delivered, err := r.deliver(ctx, b, attempt)
		if errors.Is(err, store.ErrConflict) {
			err = r.read(ctx)
		} else if err == nil && !delivered {
			return nil
		}
		if err != nil {
			return err
		}
		if full := len(b.Events) >= r.sub.Settings.Batch.MaxEvents; !full {
			if r.sub.Settings.Batch.MaxWait() > 0 { // the rest is collected again
				r.result.Outcome = OutcomeDrained
				return nil
			}
			r.sleep(ctx, spacing(len(b.Events), r.Limits.Spacing)-time.Since(began))
		}
	}
}

// spacing is how far apart batches start that are not full: 10 ms and 5 more
// for each event they hold, up to the limit. So a trickle goes out at once, and
// from some 180 events a second on batches grow instead of becoming more. Full
// ones follow at once: waiting could not make them larger.
func spacing(events int, limit time.Duration) time.Duration {
	return min(limit, time.Duration(10+5*events)*time.Millisecond)
}

// next is the batch to deliver now: the open one, or a new one with its first
// attempt noted. It is nil when nothing is due.
func (r *drain) next(ctx context.Context) (b *store.Batch, attempt id.ID, err error) {
	crash.Point("deliver_before_attempt_row")
	if r.sub.Open != id.Nil {
		r.sub.Open = id.Nil // once delivered
		b, err = r.Store.OpenBatch(ctx, r.webhook)
		if b != nil || err != nil {
			return b, id.Nil, err
		}
	}
	s := &r.sub.Settings
	if !s.Dialect.Singly() {
		attempt = id.New()
	}
	b, err = r.Store.CutBatch(ctx, store.Cut{
		Webhook: r.webhook, Version: r.sub.Version, Batch: id.New(), Attempt: attempt,
		MaxEvents: s.Batch.MaxEvents, Dialect: s.Dialect, Format: s.Format, At: time.Now(),
	})
	return b, attempt, err
}

// deliver makes the attempts that a batch takes: one, or one for each event.
func (r *drain) deliver(ctx context.Context, b *store.Batch, attempt id.ID) (delivered bool, err error) {
	for b.Posted < len(b.Events) {
		before := b.Posted
		verdict, err := r.post(ctx, &r.sub, b, attempt, false)
		if err != nil {
			return false, err
		}
		if !verdict.Delivered {
			r.result.Outcome, r.result.Error = OutcomeFailed, verdict.Word
			return false, nil
		}
		r.result.Events += b.Posted - before
		attempt = id.Nil
		if b.Posted < len(b.Events) && (time.Now().After(r.end) || stopping(ctx)) {
			r.result.Outcome = OutcomeMore
			return false, nil
		}
	}
	r.result.Batches++
	return true, nil
}

// wait returns when the outbox has grown, or after a while.
func (r *drain) wait(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-r.events:
	case <-timer.C:
	case <-ctx.Done():
	case <-activity.GetWorkerStopChannel(ctx):
	}
}

func (r *drain) sleep(ctx context.Context, pause time.Duration) {
	if pause <= 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-activity.GetWorkerStopChannel(ctx):
	}
}

// stopping reports whether the activity is cancelled or its worker shuts down.
func stopping(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-activity.GetWorkerStopChannel(ctx):
		return true
	default:
		return false
	}
}

// DeliverBatch is one retry of the batch that failed. The endpoint's answer is
// an error here, since the engine's retry policy is the webhook's: its text is
// the short name of the failure only. A batch that is delivered already, or
// whose place another took, is a success.
func (d *Delivery) DeliverBatch(ctx context.Context, in DeliverBatchInput) (DeliverResult, error) {
	defer heartbeat(ctx)()
	for {
		result, err := d.retry(ctx, in)
		if !errors.Is(err, store.ErrConflict) {
			return result, err
		}
		// The settings were changed between reading and starting: read again.
	}
}

func (d *Delivery) retry(ctx context.Context, in DeliverBatchInput) (DeliverResult, error) {
	done := DeliverResult{Outcome: OutcomeDelivered}
	sub, err := d.Store.Subscription(ctx, in.Webhook)
	if errors.Is(err, store.ErrNotFound) || err == nil && !active(&sub) {
		return DeliverResult{}, stopped("the webhook is not active")
	}
	if err != nil {
		return DeliverResult{}, infrastructure(store.Class(err))
	}
	if sub.Open != in.Batch {
		return done, nil
	}
	if exhausted(&sub) {
		return DeliverResult{}, stopped("no attempts are left")
	}
	b, err := d.Store.OpenBatch(ctx, in.Webhook)
	if err != nil {
		return DeliverResult{}, infrastructure(store.Class(err))
	}
	if b == nil || b.ID != in.Batch {
		return done, nil
	}
	verdict, err := d.post(ctx, &sub, b, id.Nil, failing(&sub))
	switch {
	case errors.Is(err, store.ErrConflict):
		return DeliverResult{}, err
	case err != nil:
		return DeliverResult{}, infrastructure(store.Class(err))
	case verdict.Delivered:
		return DeliverResult{Outcome: OutcomeDelivered, Batches: 1, Events: len(b.Events)}, nil
	}
	return DeliverResult{}, attemptFailed(verdict)
}

// infrastructurePause is how soon a retry that failed for reasons of ours is
// repeated; it used up none of the endpoint's.
const infrastructurePause = 10 * time.Second

func infrastructure(class string) error {
	return temporal.NewApplicationErrorWithOptions(class, ErrInfrastructure, temporal.ApplicationErrorOptions{NextRetryDelay: infrastructurePause})
}

func stopped(why string) error {
	return temporal.NewApplicationErrorWithOptions(why, ErrStopped, temporal.ApplicationErrorOptions{
		NonRetryable: true, Category: temporal.ApplicationErrorCategoryBenign,
	})
}

func attemptFailed(v webhook.Verdict) error {
	o := temporal.ApplicationErrorOptions{
		NonRetryable: v.Final, NextRetryDelay: v.RetryAfter, Category: temporal.ApplicationErrorCategoryBenign,
	}
	kind := ErrAttemptFailed
	switch {
	case v.Gone:
		kind = ErrGone
	case v.Final:
		kind = ErrBlockedAddress
	}
	return temporal.NewApplicationErrorWithOptions(v.Word, kind, o)
}

// post makes one attempt to deliver what comes next of a batch, with what the
// settings say now, and records what came of it: b.Posted moves on when it was
// accepted. attempt is noted already, or nil. The error is store.ErrConflict
// when the webhook changed since sub was read.
func (d *Delivery) post(ctx context.Context, sub *store.Subscription, b *store.Batch, attempt id.ID, retry bool) (webhook.Verdict, error) {
	// Whatever is begun is brought to its end: an attempt whose outcome nobody
	// noted would be made again for nothing. The timeout bounds it.
	ctx = context.WithoutCancel(ctx)
	through, messageID := len(b.Events), id.Batch.Format(b.ID)
	if b.Dialect.Singly() {
		through, messageID = b.Posted+1, id.Event.Format(b.Events[b.Posted])
	}
	body, err := d.body(ctx, b, through)
	if err != nil {
		return webhook.Verdict{}, err
	}
	if len(body.Body) == 0 { // the dialect has no words for any of it
		o := store.Outcome{Attempt: attempt, Webhook: sub.ID, Batch: b.ID, At: time.Now()}
		if err := d.Store.RecordDelivered(ctx, o, through); err != nil {
			return webhook.Verdict{}, err
		}
		b.Posted = through
		return webhook.Verdict{Delivered: true}, nil
	}
	for again := false; ; again = true {
		if attempt == id.Nil {
			attempt = id.New()
			err := d.Store.StartAttempt(ctx, store.Start{
				Attempt: attempt, Webhook: sub.ID, Version: sub.Version, Batch: b.ID, Events: through - b.Posted, At: time.Now(),
			})
			if err != nil {
				return webhook.Verdict{}, err
			}
		}
		crash.Point("deliver_after_attempt_row")
		answer, err := d.call(ctx, sub, body, messageID)
		if err != nil {
			return webhook.Verdict{}, err
		}
		outcome := describe(attempt, sub, b, body, answer)
		if answer.Stale && !again {
			// Not silently: the attempt is shown, but decides nothing.
			if err := d.Store.RecordBroken(ctx, outcome); err != nil {
				return webhook.Verdict{}, err
			}
			attempt = id.Nil
			continue
		}
		verdict := webhook.Judge(webhook.Answer{
			Status: answer.Status, Class: string(answer.Class), Detail: answer.Detail,
			RetryAfter: answer.Header.Get("Retry-After"), Location: answer.Header.Get("Location"),
		}, sub.Settings.Success, sub.Settings.Retry.Interval(), outcome.At)
		err = d.record(ctx, sub, b, body, outcome, verdict, through, retry)
		crash.Point("deliver_after_commit")
		d.log(sub, b, outcome, verdict)
		return verdict, err
	}
}

// body is what is sent next: what was kept when it failed before, else
// rendered from the events.
func (d *Delivery) body(ctx context.Context, b *store.Batch, through int) (webhook.Post, error) {
	if len(b.Kept.Body) > 0 {
		return b.Kept, nil
	}
	items, err := d.Store.BatchItems(ctx, b.Events[b.Posted:through])
	if err != nil {
		return webhook.Post{}, err
	}
	return webhook.Encode(b.Dialect, b.Format, items)
}

func (d *Delivery) call(ctx context.Context, sub *store.Subscription, body webhook.Post, messageID string) (outbound.Answer, error) {
	now := time.Now()
	req, err := webhook.NewRequest(sub.Settings, sub.Secrets, body, messageID, sub.Keys(now), now)
	if err != nil {
		return outbound.Answer{}, err
	}
	crash.Point("deliver_before_post")
	answer := d.Client.Do(ctx, outbound.Request{
		URL: req.URL, Header: req.Header, Body: req.Body, Timeout: time.Duration(sub.Settings.Timeout) * time.Second,
	})
	crash.Point("deliver_after_post")
	return answer, nil
}

func describe(attempt id.ID, sub *store.Subscription, b *store.Batch, body webhook.Post, a outbound.Answer) store.Outcome {
	return store.Outcome{
		Attempt: attempt, Webhook: sub.ID, Batch: b.ID, At: time.Now(),
		Status: a.Status, Class: string(a.Class), Error: a.Detail, Bytes: len(body.Body),
		DNS: a.Timings.DNS, Connect: a.Timings.Connect, TLS: a.Timings.TLS, FirstByte: a.Timings.FirstByte, Total: a.Timings.Total,
		Response: a.Body,
	}
}

func (d *Delivery) record(ctx context.Context, sub *store.Subscription, b *store.Batch, body webhook.Post, o store.Outcome, v webhook.Verdict, through int, retry bool) error {
	o.Class, o.Error = v.Class, v.Explanation
	if v.Delivered {
		if err := d.Store.RecordDelivered(ctx, o, through); err != nil {
			return err
		}
		b.Posted, b.Kept = through, webhook.Post{}
		return nil
	}
	f := store.Failure{Outcome: o, Retry: retry, Word: v.Word}
	if len(b.Kept.Body) == 0 {
		f.Keep = body
	}
	used := 0
	if retry {
		used = sub.Progress.AttemptsUsed + 1
	}
	if left := sub.Settings.Retry.Attempts - used; left > 0 && !v.Final {
		interval := sub.Settings.Retry.Interval()
		f.NextAt = o.At.Add(max(interval, v.RetryAfter))
		f.GiveUp = f.NextAt.Add(time.Duration(left-1) * interval)
	}
	return d.Store.RecordFailure(ctx, f)
}

// log writes one wide line for each attempt.
func (d *Delivery) log(sub *store.Subscription, b *store.Batch, o store.Outcome, v webhook.Verdict) {
	write := d.Log.Debug
	if !v.Delivered {
		write = d.Log.Info
	}
	write("attempt", "webhook", id.Webhook.Format(sub.ID), "batch", id.Batch.Format(b.ID), "attempt", id.Attempt.Format(o.Attempt),
		"delivered", v.Delivered, "answer", v.Word, "events", len(b.Events), "bytes", o.Bytes, "ms", o.Total.Milliseconds())
}

// heartbeatEvery tells the engine that the worker lives, and learns from it
// that the activity is cancelled.
const heartbeatEvery = 5 * time.Second

// heartbeat beats until the returned function is called.
func heartbeat(ctx context.Context) (stop func()) {
	beating, stop := context.WithCancel(ctx)
	go func() {
		ticker := time.NewTicker(heartbeatEvery)
		defer ticker.Stop()
		for {
			select {
			case <-beating.Done():
				return
			case <-ticker.C:
				activity.RecordHeartbeat(ctx)
			}
		}
	}()
	return stop
}
