package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"aftersend/event"
	"aftersend/id"
)

// Manual is the reason of a suppression that a person made. The others are
// event types.
const Manual = "manual"

// Reasons why an address should not be mailed.
var Reasons = []string{string(event.Unsubscribed), string(event.Complained), string(event.Bounced), Manual}

// SuppressionRow says that an address should not be mailed, or was to be so
// until LiftedAt. An address has one per reason.
type SuppressionRow struct {
	ID        id.ID      `db:"id"`
	Recipient string     `db:"recipient"` // lower case
	Reason    string     `db:"reason"`
	EventID   uuidOrNil  `db:"event_id"` // what made it; nil when a person did
	Since     time.Time  `db:"since"`    // effective time of that event
	CreatedAt time.Time  `db:"created_at"`
	LiftedAt  *time.Time `db:"lifted_at"` // when it was last lifted
	Active    bool       `db:"active"`    // it holds
}

const suppressionColumns = `id, recipient, reason, event_id, since, created_at, lifted_at, active`

// SuppressionFilter narrows a list of suppressions; zero values match all.
type SuppressionFilter struct {
	Recipient string
	Reason    string
	Active    *bool     // nil = those that hold and those that were lifted
	Since     time.Time // made, or made again, then or later
}

// Suppressions lists an account's suppressions, newest first.
func (s *Store) Suppressions(ctx context.Context, account id.ID, f SuppressionFilter, p Page) ([]SuppressionRow, error) {
	q := query{args: []any{account, p.before(), p.Limit, never}}
	// Since is never for addresses that were only ever taken off the list.
	where := `account_id = $1 and id < $2 and since > $4`
	if f.Recipient != "" {
		where += ` and recipient = ` + q.arg(strings.ToLower(f.Recipient))
	}
	if !f.Since.IsZero() {
		where += ` and since >= ` + q.arg(f.Since)
	}
	var statement string
	if f.Recipient != "" || !f.Since.IsZero() {
		statement = `select ` + suppressionColumns + ` from suppressions
			where ` + where + f.chooses(&q, "reason", "active") + ` order by id desc limit $3`
	} else {
		// One way in per reason and state, each in the order of the index.
		statement = `select x.* from unnest(` + q.arg(pq.Array(Reasons)) + `::text[]) r(reason), unnest('{true,false}'::boolean[]) a(active)
			cross join lateral (
				select ` + suppressionColumns + ` from suppressions
				where ` + where + ` and reason = r.reason and active = a.active order by id desc limit $3
			) x
			where true` + f.chooses(&q, "r.reason", "a.active") + ` order by x.id desc limit $3`
	}
	rows := []SuppressionRow{}
	if err := s.db.SelectContext(ctx, &rows, statement, q.args...); err != nil {
		return nil, fmt.Errorf("list suppressions: %w", err)
	}
	return rows, nil
}

// chooses is the part of the filter that chooses among the ways in.
func (f SuppressionFilter) chooses(q *query, reason, active string) (where string) {
	if f.Reason != "" {
		where += ` and ` + reason + ` = ` + q.arg(f.Reason)
	}
	if f.Active != nil {
		where += ` and ` + active + ` = ` + q.arg(*f.Active)
	}
	return where
}

// Suppression returns one suppression of an account, and the JSON of the event
// that made it; nil when a person did, or retention removed it.
func (s *Store) Suppression(ctx context.Context, account, suppression id.ID) (SuppressionRow, []byte, error) {
	var row SuppressionRow
	err := s.db.GetContext(ctx, &row, `
		select `+suppressionColumns+` from suppressions where id = $1 and account_id = $2 and since > $3`, suppression, account, never)
	if err := found(err, "suppression", id.Suppression, suppression); err != nil || row.EventID.ID == id.Nil {
		return row, nil, err
	}
	e, err := s.Event(ctx, account, row.EventID.ID)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return row, e.Data, err
}

// SuppressedAmong returns the suppressions that hold for any of these
// addresses, which are in lower case.
func (s *Store) SuppressedAmong(ctx context.Context, account id.ID, recipients []string) ([]SuppressionRow, error) {
	rows := []SuppressionRow{}
	err := s.db.SelectContext(ctx, &rows, `
		select x.* from unnest($2::text[]) r(recipient)
		cross join lateral (
			select `+suppressionColumns+` from suppressions where account_id = $1 and recipient = r.recipient and active offset 0
		) x
		order by x.recipient, x.reason`, account, pq.Array(recipients))
	if err != nil {
		return nil, fmt.Errorf("look up %d addresses: %w", len(recipients), err)
	}
	return rows, nil
}

// NewSuppression is an address that a person puts on the list.
type NewSuppression struct {
	Recipient string // lower case
	Reason    string
	Since     time.Time
}

// AddSuppressions puts addresses on the list, up to some thousand at a time,
// no two with the same address and reason. One that holds already stays as it
// is; one that was lifted holds again when Since is later. It returns how many
// were added; c may be nil when the caller tells of many such steps by itself.
func (s *Store) AddSuppressions(ctx context.Context, account id.ID, rows []NewSuppression, c *Change) (added int, err error) {
	err = s.inTx(ctx, fmt.Sprintf("add %d suppressions", len(rows)), func(tx *sqlx.Tx) error {
		type row = NewSuppression
		res, err := tx.ExecContext(ctx, `
			insert into suppressions as s (id, account_id, recipient, reason, since)
			select x.id, $1, x.recipient, x.reason, x.since from (
				select unnest($2::uuid[]) as id, unnest($3::text[]) as recipient, unnest($4::text[]) as reason, unnest($5::timestamptz[]) as since) x
			order by x.recipient, x.reason
			on conflict (account_id, recipient, reason) do update
			set    since = excluded.since, event_id = null
			where  not s.active and excluded.since >= s.lifted_at`,
			account,
			array(oidUUID, rows, func(dst []byte, _ *row) []byte { return appendUUID(dst, id.New()) }),
			array(oidText, rows, func(dst []byte, r *row) []byte { return append(dst, r.Recipient...) }),
			array(oidText, rows, func(dst []byte, r *row) []byte { return append(dst, r.Reason...) }),
			array(oidTimestamptz, rows, func(dst []byte, r *row) []byte { return appendTimestamptz(dst, r.Since) }))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if added = int(n); err != nil || added == 0 || c == nil {
			return err
		}
		return insertActivity(ctx, tx, account, *c)
	})
	return added, err
}

// LiftSuppression takes an address off the list again, for one reason; events
// from before now do not bring it back. ErrNotFound when none holds.
func (s *Store) LiftSuppression(ctx context.Context, account, suppression id.ID, now time.Time, c Change) error {
	return s.inTx(ctx, "lift "+id.Suppression.Format(suppression), func(tx *sqlx.Tx) error {
		var reason string
		// The event may lie minutes ahead: clocks run ahead.
		err := tx.QueryRowContext(ctx, `
			update suppressions set lifted_at = greatest($3::timestamptz, since + interval '1 microsecond')
			where id = $1 and account_id = $2 and active returning recipient, reason`, suppression, account, now).Scan(&c.ResourceName, &reason)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		c.Changes = map[string]FromTo{"reason": {From: reason, To: nil}}
		return insertActivity(ctx, tx, account, c)
	})
}

// LogActivity writes an entry of the activity log for what was done in several
// transactions.
func (s *Store) LogActivity(ctx context.Context, account id.ID, c Change) error {
	return s.inTx(ctx, "log "+c.Action, func(tx *sqlx.Tx) error { return insertActivity(ctx, tx, account, c) })
}
