package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/correlate"
	"aftersend/event"
	"aftersend/id"
)

// Messages that become deferred join the cohort of their source and of the
// window in which we record it. TrackDeferrals reviews a cohort as a whole, so
// that a storm costs no more than a few.
//
// Who adds messages to a cohort holds a share lock on its row until COMMIT, and
// who closes it locks the row first and then looks: a cohort is never closed
// over a message that waits, and one that was closed before is opened again.

// DeferralWindow is how long one cohort takes in messages.
const DeferralWindow = 5 * time.Minute

// ExpiredPerGroup bounds the groups of events that the end of a cohort makes.
const ExpiredPerGroup = 10_000

type cohort struct {
	source id.ID
	opens  time.Time
}

// joinCohorts finds the cohorts of the messages that end up deferred and are
// not watched yet, and makes those that are missing.
func (c *correlation) joinCohorts() error {
	if !c.waiting {
		return nil
	}
	var joining []*story
	var all []cohort
	for _, s := range c.roots() {
		if s.status == event.Deferred && !s.watched {
			s.joins.opens = c.Now.UTC().Truncate(DeferralWindow)
			joining = append(joining, s)
			if !slices.Contains(all, s.joins) { // few: one per source
				all = append(all, s.joins)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b cohort) int { return compareID(a.source, b.source) })
	sources := array(oidUUID, all, func(dst []byte, k *cohort) []byte { return appendUUID(dst, k.source) })
	opens := array(oidTimestamptz, all, func(dst []byte, k *cohort) []byte { return appendTimestamptz(dst, k.opens) })
	_, err := c.tx.ExecContext(c.ctx, `
		insert into deferral_cohorts (id, source_id, opens_at)
		select unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::timestamptz[])
		on conflict (source_id, opens_at) do nothing`,
		array(oidUUID, all, func(dst []byte, _ *cohort) []byte { return appendUUID(dst, id.New()) }), sources, opens)
	if err != nil {
		return fmt.Errorf("make deferral cohorts: %w", err)
	}
	var rows []struct {
		ID     id.ID `db:"id"`
		Source id.ID `db:"source_id"`
		Closed bool  `db:"closed"`
	}
	err = c.tx.SelectContext(c.ctx, &rows, `
		select d.id, d.source_id, d.closed_at is not null as closed
		from   deferral_cohorts d
		join   (select unnest($1::uuid[]) as source_id, unnest($2::timestamptz[]) as opens_at) x using (source_id, opens_at)
		order  by d.source_id
		for    share of d`, sources, opens)
	if err != nil {
		return fmt.Errorf("join deferral cohorts: %w", err)
	}
	byKey := make(map[id.ID]id.ID, len(rows))
	for _, r := range rows {
		byKey[r.Source] = r.ID
		if r.Closed {
			_, err := c.tx.ExecContext(c.ctx, `update deferral_cohorts set closed_at = null, started_at = null, next_at = null where id = $1`, r.ID)
			if err != nil {
				return fmt.Errorf("open %s again: %w", id.Cohort.Format(r.ID), err)
			}
		}
	}
	for _, s := range joining {
		s.cohort = byKey[s.joins.source]
	}
	return nil
}

// Cohort is the messages of one source that became deferred in one window.
type Cohort struct {
	ID      id.ID     `db:"id"`
	ESP     string    `db:"esp"`
	OpensAt time.Time `db:"opens_at"`
}

// ClosesAt is when the last message can have joined it.
func (c *Cohort) ClosesAt() time.Time { return c.OpensAt.Add(DeferralWindow) }

// ClaimCohorts returns open cohorts, oldest first, whose workflow was never
// started, or which were last started longer ago than again and whose review
// is overdue by as much, and marks them as started now.
func (s *Store) ClaimCohorts(ctx context.Context, again time.Duration, limit int) ([]Cohort, error) {
	var cohorts []Cohort
	err := s.db.SelectContext(ctx, &cohorts, `
		with claimed as (
			update deferral_cohorts set started_at = now()
			where id in (
				select id from deferral_cohorts
				where  closed_at is null
				and   (started_at is null
				    or started_at < now() - $1 * interval '1 second'
				       and coalesce(next_at, opens_at + interval '1 hour') < now() - $1 * interval '1 second')
				order  by created_at
				limit  $2
				for update skip locked)
			returning id, source_id, opens_at, created_at
		)
		select c.id, c.opens_at, s.esp from claimed c join sources s on s.id = c.source_id order by c.created_at`,
		again.Seconds(), limit)
	if err != nil {
		return nil, fmt.Errorf("claim deferral cohorts: %w", err)
	}
	return cohorts, nil
}

// ReleaseCohorts takes back the claim on cohorts whose workflow could not be started.
func (s *Store) ReleaseCohorts(ctx context.Context, cohorts []id.ID) error {
	_, err := s.db.ExecContext(ctx,
		`update deferral_cohorts set started_at = null where id = any($1::uuid[]) and closed_at is null`, uuidArray(cohorts))
	if err != nil {
		return fmt.Errorf("release %d deferral cohorts: %w", len(cohorts), err)
	}
	return nil
}

// Review is what to do with a cohort besides counting.
type Review struct {
	Cohort id.ID
	Now    time.Time
	NextAt time.Time // of the review after this one; zero: this is the last, and who still waits expires
}

// Reviewed is how a cohort's messages stand.
type Reviewed struct {
	Open      int // deferred
	Delivered int
	Bounced   int
	Failed    int // or rejected
	Expired   int // with those that the last review gave up on
	Closed    bool
}

// ReviewCohort counts a cohort's messages by where they stand, and closes it
// when its window is over and none is deferred any more. The last review also
// gives up on those that are: it makes groups of kind expired, whose processing
// makes the events, and closes the cohort in the same transaction. A cohort
// that is closed, or gone, is only counted.
func (s *Store) ReviewCohort(ctx context.Context, r Review) (Reviewed, error) {
	var out Reviewed
	err := s.inTx(ctx, "review "+id.Cohort.Format(r.Cohort), func(tx *sqlx.Tx) error {
		out = Reviewed{}
		var source id.ID
		var opens time.Time
		err := tx.QueryRowContext(ctx, `select source_id, opens_at, closed_at is not null from deferral_cohorts where id = $1 for update`, r.Cohort).
			Scan(&source, &opens, &out.Closed)
		if errors.Is(err, sql.ErrNoRows) {
			out.Closed = true
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.count(ctx, tx, r.Cohort); err != nil || out.Closed {
			return err
		}
		switch {
		case out.Open == 0 && !r.Now.Before(opens.Add(DeferralWindow)):
			out.Closed = true
		case r.NextAt.IsZero():
			if err := makeExpiredGroups(ctx, tx, r.Cohort, source); err != nil {
				return err
			}
			out.Open, out.Expired, out.Closed = 0, out.Expired+out.Open, true
		}
		_, err = tx.ExecContext(ctx, `
			update deferral_cohorts set next_at = $2, closed_at = case when $3 then now() end where id = $1`,
			r.Cohort, sql.NullTime{Time: r.NextAt, Valid: !r.NextAt.IsZero()}, out.Closed)
		return err
	})
	return out, err
}

func (r *Reviewed) count(ctx context.Context, tx *sqlx.Tx, cohort id.ID) error {
	var counts []struct {
		Status event.Type `db:"status"`
		N      int        `db:"n"`
	}
	err := tx.SelectContext(ctx, &counts, `select status, count(*) as n from messages where cohort_id = $1 group by status`, cohort)
	if err != nil {
		return fmt.Errorf("count messages: %w", err)
	}
	for _, c := range counts {
		switch c.Status {
		case event.Deferred:
			r.Open += c.N
		case event.Delivered:
			r.Delivered += c.N
		case event.Bounced:
			r.Bounced += c.N
		case event.Rejected, event.Failed:
			r.Failed += c.N
		case event.Expired:
			r.Expired += c.N
		}
	}
	return nil
}

func makeExpiredGroups(ctx context.Context, tx *sqlx.Tx, cohort, source id.ID) error {
	var waiting []id.ID
	err := tx.SelectContext(ctx, &waiting, `select id from messages where cohort_id = $1 and status = 'deferred' order by id`, cohort)
	if err != nil {
		return fmt.Errorf("list deferred messages: %w", err)
	}
	for chunk := range slices.Chunk(waiting, ExpiredPerGroup) {
		_, err := tx.ExecContext(ctx, `
			insert into groups (id, kind, ref_id, id_from, id_to, step, summary)
			values ($1, 'expired', $2, $3, $4, 'correlate',
			        $5 || ' expired · ' || coalesce((select esp from sources where id = $6), ''))`,
			id.New(), cohort, chunk[0], chunk[len(chunk)-1], plural(len(chunk), "deferral"), source)
		if err != nil {
			return fmt.Errorf("make group of %d expired: %w", len(chunk), err)
		}
	}
	return nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ExpiredEvents makes the events of a group of kind expired: one for each of
// its messages that is still deferred. They are numbered from where the group
// stands, since those before are not deferred any more.
func (s *Store) ExpiredEvents(ctx context.Context, g GroupState) ([]NewEvent, error) {
	rows, err := s.db.QueryContext(ctx, `
		select m.id, m.account_id, m.recipient, m.source_id, s.esp, coalesce(e.source_id, m.source_id), coalesce(e.data, '')
		from   messages m
		join   sources s on s.id = m.source_id
		left   join lateral (
			select e.source_id, e.data
			from   unnest(m.timeline) t(id)
			cross  join lateral (select source_id, type, data from events where id = t.id offset 0) e -- prunes partitions
			where  e.type = 'deferred'
			order  by t.id desc
			limit  1) e on true
		where  m.cohort_id = $1 and m.id between $2 and $3 and m.status = 'deferred'
		order  by m.id`, g.Ref, g.IDFrom, g.IDTo)
	if err != nil {
		return nil, fmt.Errorf("read deferred messages of %s: %w", id.Group.Format(g.ID), err)
	}
	defer rows.Close()
	var events []NewEvent
	decided := g.CreatedAt.UTC()
	for rows.Next() {
		var e NewEvent
		var recipient, esp string
		var source id.ID
		var data []byte
		if err := rows.Scan(&e.Message, &e.Account, &recipient, &source, &esp, &e.Source, &data); err != nil {
			return nil, fmt.Errorf("read deferred messages of %s: %w", id.Group.Format(g.ID), err)
		}
		last := event.Event{Recipient: recipient, ESP: esp, Source: id.Source.Format(source)}
		if len(data) > 0 {
			last = event.Event{}
			if err := json.Unmarshal(data, &last); err != nil {
				return nil, fmt.Errorf("read last deferral of %s: its JSON does not decode", id.Message.Format(e.Message))
			}
		}
		e.Event = correlate.Expire(&last, decided)
		e.Key = correlate.ExpiryKey(g.ID, e.Message)
		e.Position = int(g.N) + len(events)
		e.Ordinal, e.N = e.Position, int64(e.Position)+1
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read deferred messages of %s: %w", id.Group.Format(g.ID), err)
	}
	return events, nil
}
