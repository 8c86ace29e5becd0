package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/crash"
	"aftersend/event"
	"aftersend/id"
)

// What ProcessCallbacks does to the rows of one group. Each step is guarded by
// the group's row, which it locks first: a step that was done already, by
// whatever run, does nothing. Locks are taken in one order everywhere: group,
// event_keys, message_keys, messages, then what is shared by many groups
// (cohorts, suppressions, volume, group_sequence, webhook_progress); within a
// table in the order of the keys.

// Steps of a group, in their order.
const (
	StepParse     = "parse"
	StepCorrelate = "correlate"
	StepRoute     = "route"
	StepDone      = "done"
)

// GroupState is a group and how far it has come.
type GroupState struct {
	Group
	Mark
	Ref         id.ID // what made a group that is not of callbacks
	Number      int64 // position in the outbox order; 0: none yet, or it had no events
	Events      int   // new ones
	Repeats     int
	Quarantined int
}

// Mark is how far the events of a group are correlated: those of callbacks up
// to N, and the first Events of the next one.
type Mark struct {
	N      int64
	Events int
}

// GroupState reads a group's row; ErrNotFound when there is none.
func (s *Store) GroupState(ctx context.Context, group id.ID) (GroupState, error) {
	g := GroupState{Group: Group{ID: group}}
	err := s.db.QueryRowContext(ctx, `
		select kind, coalesce(writer_id, 0), coalesce(n_from, 0), coalesce(n_to, 0), coalesce(id_from, $2), coalesce(id_to, $2),
		       summary, step, patient, callbacks, events, repeats, quarantined, correlated, correlated_events,
		       coalesce(number, 0), created_at, coalesce(ref_id, $2)
		from groups where id = $1`, group, id.Nil).
		Scan(&g.Kind, &g.WriterID, &g.NFrom, &g.NTo, &g.IDFrom, &g.IDTo, &g.Summary, &g.Step, &g.Patient, &g.Callbacks,
			&g.Events, &g.Repeats, &g.Quarantined, &g.N, &g.Mark.Events, &g.Number, &g.CreatedAt, &g.Ref)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return g, fmt.Errorf("read group %s: %w", id.Group.Format(group), err)
	}
	return g, nil
}

// SetPatient notes that a group fell back to patient retries and no longer
// counts as open.
func (s *Store) SetPatient(ctx context.Context, group id.ID) error {
	_, err := s.db.ExecContext(ctx, `update groups set patient = true where id = $1 and not patient`, group)
	if err != nil {
		return fmt.Errorf("make group %s patient: %w", id.Group.Format(group), err)
	}
	return nil
}

// SourceToken returns the token in a source's URL. It is a secret.
func (s *Store) SourceToken(ctx context.Context, source id.ID) (string, error) {
	var sealed []byte
	err := s.db.GetContext(ctx, &sealed, `select token_sealed from sources where id = $1`, source)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("read token of %s: %w", id.Source.Format(source), err)
	}
	token, err := s.box.Open(sealed, "sources", "token_sealed", source)
	if err != nil {
		return "", fmt.Errorf("open token of %s: %w", id.Source.Format(source), err)
	}
	return string(token), nil
}

// NumberedCallback is a callback with its number among its writer's.
type NumberedCallback struct {
	N int64
	Callback
}

// GroupCallbacks reads the callbacks of a group in the order they came.
func (s *Store) GroupCallbacks(ctx context.Context, g Group) ([]NumberedCallback, error) {
	rows, err := s.db.QueryContext(ctx, `
		select n, id, account_id, source_id, received_at, host(remote_ip), verified, method, path, query, headers, body
		from   callbacks
		where  writer_id = $1 and n between $2 and $3 and id between $4 and $5
		order  by n`, g.WriterID, g.NFrom, g.NTo, g.IDFrom, g.IDTo)
	if err != nil {
		return nil, fmt.Errorf("read callbacks of %s: %w", id.Group.Format(g.ID), err)
	}
	defer rows.Close()
	callbacks := make([]NumberedCallback, 0, g.NTo-g.NFrom+1)
	for rows.Next() {
		var c NumberedCallback
		var ip sql.NullString
		err := rows.Scan(&c.N, &c.ID, &c.AccountID, &c.SourceID, &c.ReceivedAt, &ip, &c.Verified, &c.Method,
			&c.Path, &c.Query, &c.Headers, &c.Body)
		if err != nil {
			return nil, fmt.Errorf("read callbacks of %s: %w", id.Group.Format(g.ID), err)
		}
		if ip.Valid {
			c.RemoteIP, _ = netip.ParseAddr(ip.String) // Postgres wrote it
		}
		c.ReceivedAt = c.ReceivedAt.UTC()
		callbacks = append(callbacks, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read callbacks of %s: %w", id.Group.Format(g.ID), err)
	}
	return callbacks, nil
}

// Quarantine is a callback, or one record of it, that could not be understood.
type Quarantine struct {
	Account, Source, Callback id.ID
	Record                    int    // position in the callback; WholeCallback
	Reason                    string // for a person; never holds what came from outside
}

// WholeCallback is the Record of a quarantined callback.
const WholeCallback = -1

const maxReason = 500

func insertQuarantine(ctx context.Context, tx *sqlx.Tx, group id.ID, rows []Quarantine) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `
		insert into quarantine (group_id, id, account_id, source_id, callback_id, record, reason)
		select $1, unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::uuid[]), unnest($6::bigint[])::integer,
		       unnest($7::text[])
		on conflict (callback_id, record) do update set reason = left(quarantine.reason || '; ' || excluded.reason, $8)`,
		group,
		array(oidUUID, rows, func(dst []byte, _ *Quarantine) []byte { return appendUUID(dst, id.New()) }),
		array(oidUUID, rows, func(dst []byte, q *Quarantine) []byte { return appendUUID(dst, q.Account) }),
		array(oidUUID, rows, func(dst []byte, q *Quarantine) []byte { return appendUUID(dst, q.Source) }),
		array(oidUUID, rows, func(dst []byte, q *Quarantine) []byte { return appendUUID(dst, q.Callback) }),
		array(oidInt8, rows, func(dst []byte, q *Quarantine) []byte { return appendInt8(dst, int64(q.Record)) }),
		array(oidText, rows, func(dst []byte, q *Quarantine) []byte { return append(dst, event.CleanText(q.Reason, maxReason)...) }),
		maxReason)
	if err != nil {
		return fmt.Errorf("quarantine %d records: %w", len(rows), err)
	}
	return nil
}

// FinishParse ends the step parse: it keeps what could not be understood. It
// does nothing when the step is done.
func (s *Store) FinishParse(ctx context.Context, group id.ID, quarantined []Quarantine) error {
	err := s.inTx(ctx, "finish parsing "+id.Group.Format(group), func(tx *sqlx.Tx) error {
		step, err := lockStep(ctx, tx, group)
		if err != nil || step != StepParse {
			return err
		}
		if err := insertQuarantine(ctx, tx, group, quarantined); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`update groups set step = 'correlate', quarantined = $2, started_at = now() where id = $1`, group, len(quarantined))
		crash.Point("parse_before_commit")
		return err
	})
	if err == nil {
		crash.Point("parse_after_commit")
	}
	return err
}

// QuarantinedCallbacks returns which of these callbacks are quarantined as a whole.
func (s *Store) QuarantinedCallbacks(ctx context.Context, callbacks []id.ID) (map[id.ID]bool, error) {
	var found []id.ID
	err := s.db.SelectContext(ctx, &found, `
		select callback_id from quarantine where callback_id = any($1::uuid[]) and record = $2 and resolved_at is null`,
		uuidArray(callbacks), WholeCallback)
	if err != nil {
		return nil, fmt.Errorf("look for quarantined callbacks: %w", err)
	}
	set := make(map[id.ID]bool, len(found))
	for _, c := range found {
		set[c] = true
	}
	return set, nil
}

func lockStep(ctx context.Context, tx *sqlx.Tx, group id.ID) (string, error) {
	var step string
	err := tx.QueryRowContext(ctx, `select step from groups where id = $1 for update`, group).Scan(&step)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return step, err
}

// StoredEvent is an event as RouteEvents needs it.
type StoredEvent struct {
	ID, Account, Source id.ID
	Event               *event.Event    // Message may be left out of it
	Said                *event.Snapshot // its Message
}

// GroupEvents reads the events that a group made, in the feed's order.
func (s *Store) GroupEvents(ctx context.Context, g GroupState) ([]StoredEvent, error) {
	rows, err := s.db.QueryContext(ctx, `
		select id, account_id, source_id, data from events where group_id = $1 and id >= $2 order by position`,
		g.ID, id.Floor(g.CreatedAt.Add(-time.Hour)))
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", id.Group.Format(g.ID), err)
	}
	defer rows.Close()
	var events []StoredEvent
	for rows.Next() {
		e := StoredEvent{Event: new(event.Event)}
		var data []byte
		if err := rows.Scan(&e.ID, &e.Account, &e.Source, &data); err != nil {
			return nil, fmt.Errorf("read events of %s: %w", id.Group.Format(g.ID), err)
		}
		if err := json.Unmarshal(data, e.Event); err != nil {
			return nil, fmt.Errorf("read event %s: its JSON does not decode", id.Event.Format(e.ID))
		}
		e.Said = e.Event.Message
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read events of %s: %w", id.Group.Format(g.ID), err)
	}
	return events, nil
}

// array is appendArray into a fresh buffer.
func array[T any](oid uint32, rows []T, element func(dst []byte, row *T) []byte) []byte {
	return appendArray(nil, oid, rows, element)
}

func appendUUID(dst []byte, u id.ID) []byte { return append(dst, u[:]...) }

func appendInt8(dst []byte, n int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(n)) }

// appendTimeOrNull spells the zero time as NULL.
func appendTimeOrNull(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return nil
	}
	return appendTimestamptz(dst, t)
}
