package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"aftersend/crash"
	"aftersend/id"
	"aftersend/webhook"
)

// Subscription is a webhook as its delivery sees it: settings, keys, and where
// things stand.
type Subscription struct {
	WebhookRow
	Deleted bool
	Outage  id.ID // names the outage it is in; nil when it is in none
	// Open is the batch that is being delivered, nil when there is none.
	Open         id.ID
	OpenAttempts int // made so far to deliver it, those without an outcome included
	Due          int // events in the outbox, counted up to a batch's worth of rows
	keys         []signingKey
}

type signingKey struct {
	key     []byte
	expires time.Time // zero = never
}

// Keys are the signing keys that are valid at a time, the newest first.
func (s *Subscription) Keys(at time.Time) [][]byte {
	var keys [][]byte
	for _, k := range s.keys {
		if k.expires.IsZero() || k.expires.After(at) {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// dueFrom are the outbox rows of webhook w, with progress p, that are not in
// batches yet. The first may be in one in part.
const dueFrom = `
	outbox o where o.webhook_id = w.id and (o.number, o.part) >= (p.cut_number, p.cut_part)`

// cutAlready is how many events of outbox row o are in a batch.
const cutAlready = `case when o.number = p.cut_number and o.part = p.cut_part then p.cut_offset else 0 end`

// Subscription reads a webhook for delivery, deleted or not. ErrNotFound when
// there is no such row any more.
func (s *Store) Subscription(ctx context.Context, webhook id.ID) (Subscription, error) {
	var r struct {
		webhookRecord
		Deleted      bool      `db:"deleted"`
		Outage       uuidOrNil `db:"outage_id"`
		Open         uuidOrNil `db:"open_batch"`
		OpenAttempts int       `db:"open_attempts"`
		Due          int       `db:"due"`
	}
	err := s.db.GetContext(ctx, &r, `
		select w.id, w.account_id, w.name, w.status, w.area, w.settings, w.sealed, w.version,
		       w.paused_at, w.pause_reason, w.created_at, w.updated_at,
		       p.asleep, p.collecting, p.matched, p.delivered, p.skipped, p.set_aside,
		       p.matched - p.delivered - p.skipped - p.set_aside as waiting,
		       p.failing_since, p.attempts_used, p.next_at, p.gives_up_at, p.last_error, p.last_delivered_at,
		       w.deleted_at is not null as deleted, p.outage_id, b.id as open_batch, coalesce(b.attempts, 0) as open_attempts,
		       (select coalesce(sum(events - skip), 0)
		        from (select o.events, `+cutAlready+` as skip from `+dueFrom+` order by o.number, o.part limit 500) due) as due
		from   webhooks w
		join   webhook_progress p on p.webhook_id = w.id
		left   join batches b on b.webhook_id = w.id and b.state = 'open'
		where  w.id = $1`, webhook)
	if err := found(err, "webhook", id.Webhook, webhook); err != nil {
		return Subscription{}, err
	}
	row, err := s.openWebhook(r.webhookRecord)
	if err != nil {
		return Subscription{}, err
	}
	sub := Subscription{
		WebhookRow: row, Deleted: r.Deleted, Outage: r.Outage.ID,
		Open: r.Open.ID, OpenAttempts: r.OpenAttempts, Due: r.Due,
	}
	sub.keys, err = s.signingKeys(ctx, webhook)
	return sub, err
}

func (s *Store) signingKeys(ctx context.Context, webhook id.ID) ([]signingKey, error) {
	var rows []struct {
		ID        id.ID      `db:"id"`
		Sealed    []byte     `db:"sealed"`
		ExpiresAt *time.Time `db:"expires_at"`
	}
	err := s.db.SelectContext(ctx, &rows, `select id, sealed, expires_at from webhook_secrets where webhook_id = $1 order by id desc`, webhook)
	if err != nil {
		return nil, fmt.Errorf("signing keys of %s: %w", id.Webhook.Format(webhook), err)
	}
	keys := make([]signingKey, len(rows))
	for i, r := range rows {
		if keys[i].key, err = s.box.Open(r.Sealed, "webhook_secrets", "sealed", r.ID); err != nil {
			return nil, fmt.Errorf("signing key of %s: %w", id.Webhook.Format(webhook), err)
		}
		if r.ExpiresAt != nil {
			keys[i].expires = *r.ExpiresAt
		}
	}
	return keys, nil
}

// --- being awake ---

// StayAwake notes that a webhook's workflow is up and will look at the outbox
// after this, so that nobody needs to wake it; and whether it collects, that
// is, wants to be told once max_events are due. A webhook that is deleted or
// inactive is noted as asleep: its workflow ends.
func (s *Store) StayAwake(ctx context.Context, webhook id.ID) error {
	_, err := s.db.ExecContext(ctx, `
		update webhook_progress p
		set    asleep = f.asleep, collecting = f.collecting
		from (
			select w.id, w.deleted_at is not null or w.status = 'inactive' as asleep,
			       w.deleted_at is null and w.status = 'active' and (w.settings->'batch'->>'max_wait_seconds')::int > 0
			       and not exists (select from batches b where b.webhook_id = w.id and b.state = 'open') as collecting
			from webhooks w where w.id = $1
		) f
		where p.webhook_id = f.id and (p.asleep, p.collecting) <> (f.asleep, f.collecting)`, webhook)
	if err != nil {
		return fmt.Errorf("note that %s is awake: %w", id.Webhook.Format(webhook), err)
	}
	return nil
}

// StopCollecting notes that a webhook delivers now and need not be told.
func (s *Store) StopCollecting(ctx context.Context, webhook id.ID) error {
	_, err := s.db.ExecContext(ctx, `update webhook_progress set collecting = false where webhook_id = $1 and collecting`, webhook)
	if err != nil {
		return fmt.Errorf("note that %s delivers: %w", id.Webhook.Format(webhook), err)
	}
	return nil
}

// FallAsleep notes that a webhook's workflow will not look at the outbox again
// until it is woken, then looks once more, in a transaction of its own: events
// that were routed before the note became visible are seen here, later ones
// find the note. It reports whether anything is due; then the note is undone.
func (s *Store) FallAsleep(ctx context.Context, webhook id.ID) (due bool, err error) {
	what := "let " + id.Webhook.Format(webhook) + " fall asleep: "
	_, err = s.db.ExecContext(ctx, `update webhook_progress set asleep = true, collecting = false where webhook_id = $1`, webhook)
	if err != nil {
		return false, fmt.Errorf(what+"%w", err)
	}
	crash.Point("sleep_between")
	err = s.db.GetContext(ctx, &due, `
		with due as (
			select from webhooks w join webhook_progress p on p.webhook_id = w.id
			where  w.id = $1 and w.status = 'active' and w.deleted_at is null
			and   (exists (select from `+dueFrom+` and o.events > `+cutAlready+`)
			    or exists (select from batches b where b.webhook_id = w.id and b.state = 'open'))
		), undone as (
			update webhook_progress set asleep = false where webhook_id = $1 and exists (select from due)
		)
		select exists (select from due)`, webhook)
	if err != nil {
		return false, fmt.Errorf(what+"%w", err)
	}
	return due, nil
}

// --- batches ---

// Batch is what one delivery carries.
type Batch struct {
	ID       id.ID
	Dialect  webhook.Dialect
	Format   webhook.Format
	Events   []id.ID
	Posted   int          // events that are delivered; of a dialect that takes them singly
	Attempts int          // made so far
	Kept     webhook.Post // what is sent next, once an attempt with it has failed
}

// Cut says what a new batch is to be.
type Cut struct {
	Webhook   id.ID
	Version   int64 // of the settings the rest comes from
	Batch     id.ID // of the new batch
	Attempt   id.ID // of its first attempt, noted as started; nil = none yet
	MaxEvents int
	Dialect   webhook.Dialect
	Format    webhook.Format
	At        time.Time
}

// cutBatch moves what is due first into a batch: one statement, one commit.
// $2 version, $9 status: the webhook must be as the caller thinks.
// $10, $11: up to this outbox row.
const cutBatch = `
	with w as (
		select id, account_id from webhooks
		where  id = $1 and version = $2 and status = $9 and deleted_at is null
	), p as (
		select p.cut_number, p.cut_part, p.cut_offset
		from   webhook_progress p join w on p.webhook_id = w.id
		for    update of p
	), due as (
		select o.number, o.part, o.events, o.event_ids, ` + cutAlready + ` as skip
		from   w, p, ` + dueFrom + ` and (o.number, o.part) <= ($10, $11)
		order  by o.number, o.part
		limit  $3 + 1 -- the first may be in a batch already
	), run as (
		select *, sum(events - skip) over (order by number, part) - (events - skip) as before
		from   due where events > skip
	), taken as (
		select number, part, events, event_ids, skip, least(events - skip, $3 - before)::int as take
		from   run where before < $3
	), last as (
		select number, part, skip + take as through from taken order by number desc, part desc limit 1
	), batch as (
		insert into batches (id, account_id, webhook_id, state, dialect, format, events, event_ids, attempts, finished_at)
		select $4, w.account_id, w.id, $5, $6, $7, t.events, t.event_ids, case when $8::uuid is null then 0 else 1 end,
		       case when $5 <> 'open' then $12::timestamptz end
		from   w, (select sum(take) as events, string_agg(substr(event_ids, 16 * skip + 1, 16 * take), ''::bytea order by number, part) as event_ids
		           from taken) t
		where  t.events > 0
		returning account_id, events, event_ids
	), attempt as (
		insert into attempts (id, account_id, webhook_id, batch_id, number, started_at, outcome, events)
		select $8, account_id, $1, $4, 1, $12, 'started', events from batch where $8::uuid is not null
	), used as (
		delete from outbox o using taken t
		where o.webhook_id = $1 and o.number = t.number and o.part = t.part and t.skip + t.take = t.events
	), moved as (
		update webhook_progress
		set    cut_number = last.number, cut_part = last.part, cut_offset = last.through,
		       skipped = skipped + case when $5 = 'skipped' then batch.events else 0 end
		from   last, batch
		where  webhook_id = $1
	)
	select exists (select from w) as unchanged, (select event_ids from batch) as event_ids`

// CutBatch makes a batch of what is due first, at most c.MaxEvents events, and
// opens it. It returns nil when nothing is due, ErrConflict when the webhook is
// not active, its settings are not of c.Version, or another batch is open:
// then read again.
func (s *Store) CutBatch(ctx context.Context, c Cut) (*Batch, error) {
	return s.cut(ctx, c, "open", "active", math.MaxInt64)
}

func (s *Store) cut(ctx context.Context, c Cut, state, status string, through int64) (*Batch, error) {
	var r struct {
		Unchanged bool   `db:"unchanged"`
		EventIDs  []byte `db:"event_ids"`
	}
	err := s.db.GetContext(ctx, &r, cutBatch, c.Webhook, c.Version, c.MaxEvents, c.Batch, state, string(c.Dialect), string(c.Format),
		nullID(c.Attempt), status, through, math.MaxInt32, c.At)
	switch {
	case Code(err) == "23505": // batches_open
		return nil, ErrConflict
	case err != nil:
		return nil, fmt.Errorf("cut a batch of %s: %w", id.Webhook.Format(c.Webhook), err)
	case !r.Unchanged:
		return nil, ErrConflict
	case len(r.EventIDs) == 0:
		return nil, nil
	}
	b := &Batch{ID: c.Batch, Dialect: c.Dialect, Format: c.Format, Events: splitIDs(r.EventIDs)}
	if c.Attempt != id.Nil {
		b.Attempts = 1
	}
	return b, nil
}

func splitIDs(packed []byte) []id.ID {
	ids := make([]id.ID, len(packed)/16)
	for i := range ids {
		copy(ids[i][:], packed[16*i:])
	}
	return ids
}

// OpenBatch returns the batch of a webhook that is being delivered, nil when
// there is none.
func (s *Store) OpenBatch(ctx context.Context, webhookID id.ID) (*Batch, error) {
	var r struct {
		ID          id.ID  `db:"id"`
		Dialect     string `db:"dialect"`
		Format      string `db:"format"`
		EventIDs    []byte `db:"event_ids"`
		Posted      int    `db:"posted"`
		Attempts    int    `db:"attempts"`
		ContentType string `db:"content_type"`
		Body        []byte `db:"body"`
	}
	err := s.db.GetContext(ctx, &r, `
		select id, dialect, format, event_ids, posted, attempts, content_type, body
		from batches where webhook_id = $1 and state = 'open'`, webhookID)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open batch of %s: %w", id.Webhook.Format(webhookID), err)
	}
	return &Batch{
		ID: r.ID, Dialect: webhook.Dialect(r.Dialect), Format: webhook.Format(r.Format), Events: splitIDs(r.EventIDs),
		Posted: r.Posted, Attempts: r.Attempts, Kept: webhook.Post{ContentType: r.ContentType, Body: r.Body},
	}, nil
}

// BatchItems returns the recorded JSON of events, in the order of ids.
func (s *Store) BatchItems(ctx context.Context, ids []id.ID) ([]webhook.Item, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	sorted := slices.SortedFunc(slices.Values(ids), compareIDs)
	// The bounds prune partitions.
	rows, err := s.db.QueryContext(ctx, `
		select data from events
		where id = any($1::uuid[]) and id >= $2 and id <= $3
		order by id`, uuidArray(ids), sorted[0], sorted[len(sorted)-1])
	if err != nil {
		return nil, fmt.Errorf("load %d events: %w", len(ids), err)
	}
	defer func() { _ = rows.Close() }()
	found := make([]webhook.Item, 0, len(ids))
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, fmt.Errorf("load %d events: %w", len(ids), err)
		}
		if len(found) == len(sorted) {
			break
		}
		found = append(found, webhook.Item{ID: sorted[len(found)], Data: data})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load %d events: %w", len(ids), err)
	}
	if len(found) != len(ids) {
		return nil, fmt.Errorf("load %d events: %w: %d are missing", len(ids), ErrNotFound, len(ids)-len(found))
	}
	if slices.Equal(ids, sorted) {
		return found, nil
	}
	items := make([]webhook.Item, len(ids))
	for i, want := range ids {
		at, _ := slices.BinarySearchFunc(found, want, func(it webhook.Item, u id.ID) int { return compareIDs(it.ID, u) })
		items[i] = found[at]
	}
	return items, nil
}

func compareIDs(a, b id.ID) int { return slices.Compare(a[:], b[:]) }

// --- attempts ---

// Start is an attempt about to be made.
type Start struct {
	Attempt id.ID
	Webhook id.ID
	Version int64 // of the settings it goes by
	Batch   id.ID
	Events  int
	At      time.Time
}

// StartAttempt notes an attempt before it is made. Earlier ones of the batch
// without an outcome are marked as lost: their process is gone. ErrConflict
// when the webhook is not active, its settings are not of this version, or the
// batch is not open any more.
func (s *Store) StartAttempt(ctx context.Context, a Start) error {
	var started bool
	err := s.db.GetContext(ctx, &started, `
		with batch as (
			update batches b set attempts = attempts + 1
			from   webhooks w
			where  b.id = $3 and b.state = 'open' and w.id = $2 and b.webhook_id = w.id
			and    w.version = $4 and w.status = 'active' and w.deleted_at is null
			returning b.account_id, b.attempts
		), lost as (
			update attempts set outcome = 'failed', error_class = 'lost', error = 'The outcome is not known: the process that made this attempt ended.'
			where  batch_id = $3 and id >= $7 and outcome = 'started' and exists (select from batch)
		), attempt as (
			insert into attempts (id, account_id, webhook_id, batch_id, number, started_at, outcome, events)
			select $1, account_id, $2, $3, attempts, $6, 'started', $5 from batch
		)
		select exists (select from batch)`, a.Attempt, a.Webhook, a.Batch, a.Version, a.Events, a.At, earliest(a.Batch))
	if err != nil {
		return fmt.Errorf("start attempt on %s: %w", id.Batch.Format(a.Batch), err)
	}
	if !started {
		return ErrConflict
	}
	return nil
}

// Outcome is what came of an attempt.
type Outcome struct {
	Attempt   id.ID
	Webhook   id.ID
	Batch     id.ID
	At        time.Time // when it ended
	Status    int       // 0 = no answer
	Class     string    // of the failure
	Error     string    // for people
	Bytes     int       // of the body sent
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration
	Total     time.Duration
	Response  []byte // its beginning
}

// MaxResponse is how much of an answer is kept.
const MaxResponse = 4 << 10

// lockOpen locks, in the order in which all statements here do, a webhook's
// progress ($16) and the batch ($13) if it is still open.
const lockOpen = `
	p as (
		select from webhook_progress where webhook_id = $16 for update
	), open as (
		select b.id, b.posted from p, batches b where b.id = $13 and b.state = 'open' for update of b
	)`

// endAttempt writes an outcome; parameters $1 to $12. $11 is when it ended.
const endAttempt = `
	update attempts
	set    outcome = $2, status_code = $3, error_class = $4, error = $5, bytes = $6,
	       dns_us = $7, connect_us = $8, tls_us = $9, first_byte_us = $10, total_us = $11, response = $12
	where  id = $1`

func (o *Outcome) args(outcome string) []any {
	return []any{
		o.Attempt, outcome, nullInt(o.Status), o.Class, cleanText(o.Error), o.Bytes,
		micros(o.DNS), micros(o.Connect), micros(o.TLS), micros(o.FirstByte), micros(o.Total), o.Response[:min(len(o.Response), MaxResponse)],
	}
}

func nullInt(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// micros is NULL for what did not happen, for example a look-up on a kept connection.
func micros(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return min(d.Microseconds(), math.MaxInt32)
}

// RecordDelivered notes that an attempt was accepted: the first through events
// of the batch are delivered, and with the last of them the batch is. It counts
// once, however often it is called. The outage, if there was one, is over.
func (s *Store) RecordDelivered(ctx context.Context, o Outcome, through int) error {
	_, err := s.db.ExecContext(ctx, `
		with `+lockOpen+`, attempt as (`+endAttempt+`), batch as (
			update batches b
			set    posted = $14,
			       state = case when $14 = b.events then 'delivered' else 'open' end,
			       finished_at = case when $14 = b.events then $15::timestamptz end,
			       -- What is kept belongs to the request that was accepted now.
			       body = case when $14 = b.events then b.body end
			from   open where b.id = open.id and open.posted < $14
			returning $14 - open.posted as events
		)
		update webhook_progress
		set    delivered = delivered + batch.events, last_delivered_at = $15,
		       failing_since = null, outage_id = null, attempts_used = 0, next_at = null, gives_up_at = null, last_error = ''
		from   batch where webhook_id = $16`,
		append(o.args("delivered"), o.Batch, through, o.At, o.Webhook)...)
	if err != nil {
		return fmt.Errorf("record delivery of %s: %w", id.Batch.Format(o.Batch), err)
	}
	return nil
}

// Failure is an attempt that was not accepted, and what follows from it.
type Failure struct {
	Outcome
	Keep   webhook.Post // what was sent, to be sent again byte for byte; empty when it is kept already
	Retry  bool         // it was a retry, so it uses one up; a first attempt uses none
	Word   string       // short name of the failure
	NextAt time.Time    // zero: there will be no other attempt
	GiveUp time.Time    // when the last retry will have failed
}

// RecordFailure notes that an attempt was not accepted. An attempt that was
// given up as lost meanwhile no longer counts.
func (s *Store) RecordFailure(ctx context.Context, f Failure) error {
	var body any
	if len(f.Keep.Body) > 0 {
		body = f.Keep.Body
	}
	_, err := s.db.ExecContext(ctx, `
		with `+lockOpen+`, attempt as (
			`+endAttempt+` and outcome = 'started' and (select count(*) from open) >= 0 returning id
		), batch as (
			update batches b
			set    body = coalesce($14, body), content_type = case when $14::bytea is null then content_type else $15 end
			from   open, attempt where b.id = open.id
			returning b.id
		)
		update webhook_progress
		set    failing_since = coalesce(failing_since, $17), outage_id = coalesce(outage_id, $18),
		       attempts_used = case when $19 then attempts_used + 1 else 0 end,
		       next_at = $20, gives_up_at = $21, last_error = $22
		from   batch where webhook_id = $16`,
		append(f.args("failed"), f.Batch, body, f.Keep.ContentType, f.Webhook, f.At, id.New(), f.Retry, nullTime(f.NextAt), nullTime(f.GiveUp), f.Word)...)
	if err != nil {
		return fmt.Errorf("record failure of %s: %w", id.Batch.Format(f.Batch), err)
	}
	return nil
}

func nullTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// RecordBroken notes an attempt that told nothing about the endpoint, since a
// kept connection broke under it. It changes nothing else.
func (s *Store) RecordBroken(ctx context.Context, o Outcome) error {
	if _, err := s.db.ExecContext(ctx, endAttempt, o.args("failed")...); err != nil {
		return fmt.Errorf("record attempt on %s: %w", id.Batch.Format(o.Batch), err)
	}
	return nil
}

// --- pausing and resuming ---

// PauseWebhook pauses an active webhook: it goes on collecting and delivers
// nothing. Pausing one that is paused changes nothing. ErrConflict when it is
// inactive, ErrNotFound when the account has no such webhook.
func (s *Store) PauseWebhook(ctx context.Context, account, webhook id.ID, reason string, c Change) error {
	return s.inTx(ctx, "pause "+id.Webhook.Format(webhook), func(tx *sqlx.Tx) error {
		status, name, err := lockWebhook(ctx, tx, account, webhook)
		switch {
		case err != nil:
			return err
		case status == "paused":
			return nil
		case status != "active":
			return ErrConflict
		}
		c.ResourceName = name
		return pause(ctx, tx, account, webhook, reason, c)
	})
}

func lockWebhook(ctx context.Context, tx *sqlx.Tx, account, webhook id.ID) (status, name string, err error) {
	err = tx.QueryRowxContext(ctx, `
		select status, name from webhooks where id = $1 and account_id = $2 and deleted_at is null for update`, webhook, account).Scan(&status, &name)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return status, name, err
}

func pause(ctx context.Context, tx *sqlx.Tx, account, webhook id.ID, reason string, c Change) error {
	_, err := tx.ExecContext(ctx, `
		update webhooks set status = 'paused', paused_at = now(), pause_reason = $2, version = version + 1, updated_at = now()
		where id = $1`, webhook, cleanText(reason))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `update webhook_progress set next_at = null, gives_up_at = null, collecting = false where webhook_id = $1`, webhook)
	if err != nil {
		return err
	}
	return insertActivity(ctx, tx, account, c)
}

// GiveUp is the pause that ends an outage, with the notice that tells of it.
type GiveUp struct {
	Account, Webhook id.ID
	Outage           id.ID // the one that the decision is about
	Reason           string
	Notice           Notice
}

// NoticeWebhookPaused is the kind of notice that tells of a pause.
const NoticeWebhookPaused = "webhook_paused"

// GiveUp pauses a webhook and writes the notice in one transaction, once per
// outage: called again, it returns the notice that is there. It returns nil
// when that outage is over or somebody else paused the webhook.
func (s *Store) GiveUp(ctx context.Context, g GiveUp) (notice id.ID, err error) {
	err = s.inTx(ctx, "pause failing "+id.Webhook.Format(g.Webhook), func(tx *sqlx.Tx) error {
		notice = id.Nil
		status, name, err := lockWebhook(ctx, tx, g.Account, g.Webhook)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		var goesOn bool
		err = tx.GetContext(ctx, &goesOn, `select outage_id is not distinct from $2 from webhook_progress where webhook_id = $1 for update`, g.Webhook, g.Outage)
		if err != nil {
			return err
		}
		if status == "active" && goesOn {
			c := Change{By: Actor{Kind: "system", Name: "aftersend"}, Action: "webhook.paused", ResourceKind: "webhook", ResourceID: g.Webhook, ResourceName: name,
				Changes: map[string]FromTo{"status": {From: "active", To: "paused"}}}
			if err := pause(ctx, tx, g.Account, g.Webhook, g.Reason, c); err != nil {
				return err
			}
			n := g.Notice
			_, err = tx.ExecContext(ctx, `
				insert into notices (id, account_id, webhook_id, outage_id, kind, subject, body, recipients)
				values ($1, $2, $3, $4, $5, $6, $7, coalesce($8::text[], '{}'))
				on conflict (outage_id, kind) do nothing`,
				n.ID, g.Account, g.Webhook, g.Outage, NoticeWebhookPaused, cleanText(n.Subject), cleanText(n.Body), pq.Array(n.Recipients))
			if err != nil {
				return err
			}
		}
		err = tx.GetContext(ctx, &notice, `select id from notices where outage_id = $1 and kind = $2`, g.Outage, NoticeWebhookPaused)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		crash.Point("pause_before_commit")
		return err
	})
	crash.Point("pause_after_commit")
	return notice, err
}

// Backlog says what becomes of what gathered while a webhook was paused.
type Backlog string

// The choices. Skipped events stay in batches of their own and can be replayed.
const (
	BacklogDeliver Backlog = "deliver"
	BacklogSkip    Backlog = "skip"
)

// ResumeWebhook makes a paused webhook active again. With BacklogDeliver its
// open batch goes first, alone, then the rest, in order; with BacklogSkip all
// that is due at this time is skipped. Resuming an active one changes nothing;
// ErrConflict when it is inactive, ErrNotFound when the account has none such.
func (s *Store) ResumeWebhook(ctx context.Context, account, webhook id.ID, backlog Backlog, c Change) error {
	if backlog == BacklogSkip {
		if err := s.skipDue(ctx, account, webhook); err != nil {
			return err
		}
	}
	return s.inTx(ctx, "resume "+id.Webhook.Format(webhook), func(tx *sqlx.Tx) error {
		status, name, err := lockWebhook(ctx, tx, account, webhook)
		switch {
		case err != nil:
			return err
		case status == "active":
			return nil
		case status != "paused":
			return ErrConflict
		}
		if backlog == BacklogSkip {
			_, err = tx.ExecContext(ctx, `
				with batch as (
					update batches set state = 'skipped', finished_at = now() where webhook_id = $1 and state = 'open' returning events - posted as events
				)
				update webhook_progress set skipped = skipped + batch.events from batch where webhook_id = $1`, webhook)
			if err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `
			update webhook_progress
			set    failing_since = null, outage_id = null, attempts_used = 0, next_at = null, gives_up_at = null, last_error = ''
			where  webhook_id = $1`, webhook)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
			update webhooks set status = 'active', paused_at = null, pause_reason = '', version = version + 1, updated_at = now()
			where id = $1`, webhook)
		if err != nil {
			return err
		}
		c.ResourceName = name
		return insertActivity(ctx, tx, account, c)
	})
}

// maxSkip is how many events a skipped batch holds at most.
const maxSkip = webhook.MaxBatchEvents

// skipDue moves what is in the outbox of a paused webhook into skipped
// batches, in small transactions: routing waits for the row they lock.
func (s *Store) skipDue(ctx context.Context, account, webhook id.ID) error {
	row, err := s.Webhook(ctx, account, webhook)
	if err != nil || row.Status != "paused" {
		return err
	}
	var through int64
	err = s.db.GetContext(ctx, &through, `select coalesce(max(number), 0) from outbox where webhook_id = $1`, webhook)
	if err != nil {
		return fmt.Errorf("skip what is due to %s: %w", id.Webhook.Format(webhook), err)
	}
	for {
		b, err := s.cut(ctx, Cut{
			Webhook: webhook, Version: row.Version, Batch: id.New(), MaxEvents: maxSkip,
			Dialect: row.Settings.Dialect, Format: row.Settings.Format, At: time.Now(),
		}, "skipped", "paused", through)
		if err != nil || b == nil {
			return err
		}
	}
}

// Balance is the conservation of a webhook's events, from the rows themselves:
// Matched = Delivered + Waiting + Skipped + SetAside, always.
type Balance struct {
	Matched   int64 `db:"matched"`
	Delivered int64 `db:"delivered"`
	Waiting   int64 `db:"waiting"` // in the outbox and in the open batch, counted there
	Skipped   int64 `db:"skipped"`
	SetAside  int64 `db:"set_aside"`
}

// Lost is what the sums do not account for; anything but 0 is a fault of ours.
func (b Balance) Lost() int64 {
	return b.Matched - b.Delivered - b.Waiting - b.Skipped - b.SetAside
}

// WebhookBalance counts a webhook's events at one moment.
func (s *Store) WebhookBalance(ctx context.Context, webhook id.ID) (Balance, error) {
	var b Balance
	err := s.db.GetContext(ctx, &b, `
		select p.matched, p.delivered, p.skipped, p.set_aside,
		       (select coalesce(sum(o.events - `+cutAlready+`), 0) from `+dueFrom+`)
		       + (select coalesce(sum(b.events - b.posted), 0) from batches b where b.webhook_id = w.id and b.state = 'open') as waiting
		from webhooks w join webhook_progress p on p.webhook_id = w.id where w.id = $1`, webhook)
	return b, found(err, "webhook", id.Webhook, webhook)
}

// --- notices ---

// Notice is a mail to people about a webhook.
type Notice struct {
	ID         id.ID          `db:"id"`
	AccountID  id.ID          `db:"account_id"`
	Subject    string         `db:"subject"`
	Body       string         `db:"body"`
	Recipients pq.StringArray `db:"recipients"`
	CreatedAt  time.Time      `db:"created_at"`
	SentAt     *time.Time     `db:"sent_at"`
}

// Notice returns a notice. One without recipients goes to the account's owners.
func (s *Store) Notice(ctx context.Context, notice id.ID) (Notice, error) {
	var n Notice
	err := s.db.GetContext(ctx, &n, `
		select n.id, n.account_id, n.subject, n.body, n.created_at, n.sent_at,
		       case when cardinality(n.recipients) > 0 then n.recipients else array(
		            select u.email from users u where u.account_id = n.account_id and u.role = 'owner' and u.deleted_at is null order by u.id
		       ) end as recipients
		from notices n where n.id = $1`, notice)
	return n, found(err, "notice", id.Notice, notice)
}

// NoticeFailed notes a try to send a notice that did not succeed.
func (s *Store) NoticeFailed(ctx context.Context, notice id.ID, why string) error {
	_, err := s.db.ExecContext(ctx, `update notices set attempts = attempts + 1, last_error = $2 where id = $1`, notice, cleanText(why))
	if err != nil {
		return fmt.Errorf("note failure of %s: %w", id.Notice.Format(notice), err)
	}
	return nil
}

// NoticeSent notes that a notice is sent.
func (s *Store) NoticeSent(ctx context.Context, notice id.ID) error {
	_, err := s.db.ExecContext(ctx, `
		update notices set attempts = attempts + 1, last_error = '', sent_at = now() where id = $1 and sent_at is null`, notice)
	if err != nil {
		return fmt.Errorf("note that %s is sent: %w", id.Notice.Format(notice), err)
	}
	return nil
}
