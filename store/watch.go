package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/id"
)

// SourceHours is how much a source told, by the hour.
type SourceHours struct {
	Account, Source id.ID
	Name, ESP       string
	Hours           []int64 // events; the first is the last full hour, the last one is when it began
}

// WatchedSources reads how much every source told in the hours before until,
// which is a full hour, at most so many.
func (s *Store) WatchedSources(ctx context.Context, until time.Time, hours int) ([]SourceHours, error) {
	rows, err := s.db.QueryContext(ctx, `
		select s.account_id, s.id, s.name, s.esp, v.ago, v.events
		from   sources s
		join   (select source_id, (extract(epoch from $1 - hour) / 3600)::bigint - 1 as ago, sum(events)::bigint as events
		        from volume where hour < $1 and hour >= $1 - $2 * interval '1 hour' group by 1, 2) v on v.source_id = s.id
		where  s.deleted_at is null
		order  by s.id, v.ago`, until, hours)
	if err != nil {
		return nil, fmt.Errorf("read volume of sources: %w", err)
	}
	defer rows.Close()
	var all []SourceHours
	for rows.Next() {
		var of SourceHours
		var ago, events int64
		if err := rows.Scan(&of.Account, &of.Source, &of.Name, &of.ESP, &ago, &events); err != nil {
			return nil, fmt.Errorf("read volume of sources: %w", err)
		}
		if n := len(all); n == 0 || all[n-1].Source != of.Source {
			all = append(all, of)
		}
		last := &all[len(all)-1]
		for int64(len(last.Hours)) < ago {
			last.Hours = append(last.Hours, 0)
		}
		last.Hours = append(last.Hours, events)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read volume of sources: %w", err)
	}
	return all, nil
}

// Fate counts the messages to a domain that were delivered, and those that
// bounced, failed or were deferred.
type Fate struct {
	Good, Bad int64
}

// DomainFates is what became of an account's messages to one recipient domain.
type DomainFates struct {
	Account id.ID
	Domain  string
	Hours   []Fate // of the last day; the first is the last full hour
	Days    []Fate // of the days before
}

// WatchedDomains reads what became of messages in the day before until, which
// is a full hour, and in so many days before that.
func (s *Store) WatchedDomains(ctx context.Context, until time.Time, days int) ([]DomainFates, error) {
	rows, err := s.db.QueryContext(ctx, `
		select s.account_id, t.value, t.ago, sum(t.good)::bigint, sum(t.bad)::bigint
		from   sources s
		join   (select source_id, value,
		               case when ago < 24 then ago else 23 + ago / 24 end as ago,
		               case when type = 'delivered' then events else 0 end as good,
		               case when type in ('bounced', 'failed', 'deferred') then events else 0 end as bad
		        from (select source_id, value, type, events, (extract(epoch from $1 - hour) / 3600)::bigint - 1 as ago
		              from tallies where kind = 'd' and value <> '' and hour < $1 and hour >= $1 - (1 + $2) * interval '1 day') x) t
		       on t.source_id = s.id
		group  by 1, 2, 3
		order  by 1, 2`, until, days)
	if err != nil {
		return nil, fmt.Errorf("read fates by domain: %w", err)
	}
	defer rows.Close()
	var all []DomainFates
	for rows.Next() {
		of := DomainFates{}
		var ago int
		var f Fate
		if err := rows.Scan(&of.Account, &of.Domain, &ago, &f.Good, &f.Bad); err != nil {
			return nil, fmt.Errorf("read fates by domain: %w", err)
		}
		if n := len(all); n == 0 || all[n-1].Account != of.Account || all[n-1].Domain != of.Domain {
			of.Hours, of.Days = make([]Fate, 24), make([]Fate, days)
			all = append(all, of)
		}
		last := &all[len(all)-1]
		if ago < 24 {
			last.Hours[ago] = f
		} else {
			last.Days[ago-24] = f
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read fates by domain: %w", err)
	}
	return all, nil
}

// Behind reports whether callbacks that came so long ago are not processed yet:
// what is counted is then less than what came.
func (s *Store) Behind(ctx context.Context, by time.Duration) (behind bool, err error) {
	err = s.db.GetContext(ctx, &behind, `
		select exists (select from groups where step <> 'done' and created_at < now() - $1 * interval '1 second')
		    or exists (select from writers w
		               cross join lateral (select received_at from callbacks
		                                   where writer_id = w.id and n > w.grouped_through and id > w.grouped_id order by n limit 1) c
		               where w.closed_at is null and c.received_at < now() - $1 * interval '1 second')`, by.Seconds())
	if err != nil {
		return false, fmt.Errorf("look for what is not processed: %w", err)
	}
	return behind, nil
}

// Kinds of outages.
const (
	OutageVolume   = "volume"   // of a source
	OutageFailures = "failures" // of a recipient domain
)

// Outage is something that is wrong with a source or a recipient domain.
type Outage struct {
	Account id.ID
	Kind    string
	Source  id.ID  // or nil
	Domain  string // or ""
}

// OutageGoesOn notes that something is wrong, still or anew, and writes a
// notice of this kind to the account's owners, once per outage. One that ended
// less than so long ago goes on, so that what comes and goes is told of once.
func (s *Store) OutageGoesOn(ctx context.Context, o Outage, now time.Time, settled time.Duration, kind, subject, body string) error {
	return s.inTx(ctx, "note an outage", func(tx *sqlx.Tx) error {
		var outage id.ID
		err := tx.GetContext(ctx, &outage, `
			update outages set ended_at = null, seen_at = $5
			where id = (select id from outages
			            where account_id = $1 and kind = $2 and source_id is not distinct from $3 and domain = $4
			              and (ended_at is null or ended_at > $6)
			            order by id desc limit 1)
			returning id`, o.Account, o.Kind, nullID(o.Source), o.Domain, now, now.Add(-settled))
		if errors.Is(err, sql.ErrNoRows) {
			err = tx.GetContext(ctx, &outage, `
				insert into outages (id, account_id, kind, source_id, domain, started_at, seen_at) values ($1, $2, $3, $4, $5, $6, $6)
				on conflict (account_id, kind, coalesce(source_id, '00000000-0000-0000-0000-000000000000'), domain) where ended_at is null
				do update set seen_at = excluded.seen_at
				returning id`, id.New(), o.Account, o.Kind, nullID(o.Source), o.Domain, now)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
			insert into notices (id, account_id, source_id, outage_id, kind, subject, body, recipients)
			values ($1, $2, $3, $4, $5, $6, $7, '{}')
			on conflict (outage_id, kind) do nothing`,
			id.New(), o.Account, nullID(o.Source), outage, kind, cleanText(subject), cleanText(body))
		return err
	})
}

// OutageOver notes that something is well. It does nothing when it was.
func (s *Store) OutageOver(ctx context.Context, o Outage, now time.Time) error {
	_, err := s.db.ExecContext(ctx, `
		update outages set ended_at = $5
		where account_id = $1 and kind = $2 and source_id is not distinct from $3 and domain = $4 and ended_at is null`,
		o.Account, o.Kind, nullID(o.Source), o.Domain, now)
	if err != nil {
		return fmt.Errorf("end an outage: %w", err)
	}
	return nil
}

// OpenOutages returns what is wrong at the moment.
func (s *Store) OpenOutages(ctx context.Context) ([]Outage, error) {
	rows, err := s.db.QueryContext(ctx, `select account_id, kind, source_id, domain from outages where ended_at is null order by id`)
	if err != nil {
		return nil, fmt.Errorf("list outages: %w", err)
	}
	defer rows.Close()
	var all []Outage
	for rows.Next() {
		var o Outage
		var source uuidOrNil
		if err := rows.Scan(&o.Account, &o.Kind, &source, &o.Domain); err != nil {
			return nil, fmt.Errorf("list outages: %w", err)
		}
		o.Source = source.ID
		all = append(all, o)
	}
	return all, rows.Err()
}

// EndOldOutages ends those of sources that are deleted, and those nobody has
// found wrong for so long: what went on for a week has become usual.
func (s *Store) EndOldOutages(ctx context.Context, now time.Time, unseen time.Duration) error {
	_, err := s.db.ExecContext(ctx, `
		update outages o set ended_at = $1
		where ended_at is null and (seen_at < $2
		   or exists (select from sources s where s.id = o.source_id and s.deleted_at is not null))`, now, now.Add(-unseen))
	if err != nil {
		return fmt.Errorf("end old outages: %w", err)
	}
	return nil
}
