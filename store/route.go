package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/crash"
	"aftersend/event"
	"aftersend/id"
	"aftersend/webhook"
)

// Subscriber is a webhook that collects e-mail events.
type Subscriber struct {
	ID, Account id.ID
	Version     int64
	Settings    *webhook.Settings // nil when the version is the one already known
}

// Subscribers returns the webhooks that collect e-mail events, with the
// settings of those that are not known in this version.
func (s *Store) Subscribers(ctx context.Context, known map[id.ID]int64) ([]Subscriber, error) {
	ids := make([]id.ID, 0, len(known))
	for webhook := range known {
		ids = append(ids, webhook)
	}
	rows, err := s.db.QueryContext(ctx, `
		select w.id, w.account_id, w.version, case when k.version is null then w.settings end
		from   webhooks w
		left   join (select unnest($1::uuid[]) as id, unnest($2::bigint[]) as version) k on k.id = w.id and k.version = w.version
		where  w.status in ('active', 'paused') and w.deleted_at is null and w.area = 'email_sending'
		order  by w.id`,
		uuidArray(ids), array(oidInt8, ids, func(dst []byte, u *id.ID) []byte { return appendInt8(dst, known[*u]) }))
	if err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	defer rows.Close()
	var all []Subscriber
	for rows.Next() {
		var w Subscriber
		var settings []byte
		if err := rows.Scan(&w.ID, &w.Account, &w.Version, &settings); err != nil {
			return nil, fmt.Errorf("read subscribers: %w", err)
		}
		if settings != nil {
			w.Settings = new(webhook.Settings)
			if err := json.Unmarshal(settings, w.Settings); err != nil {
				return nil, fmt.Errorf("read settings of %s: not the JSON we write", id.Webhook.Format(w.ID))
			}
		}
		all = append(all, w)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	return all, nil
}

// Routing says where the events of a group go.
type Routing struct {
	Group  id.ID
	Events int   // how many the group made
	Due    []Due // one per webhook that gets any
	Volume map[VolumeKey]int
	Tally  map[TallyKey]int
}

// Due is what one webhook gets, in order.
type Due struct {
	Webhook id.ID
	Events  []id.ID
}

// VolumeKey is what events are counted by.
type VolumeKey struct {
	Source id.ID
	Hour   time.Time // in which they reached us, UTC
	Type   event.Type
}

// TallyKind says what else events are counted by.
type TallyKind byte

// What events are counted by besides their type.
const (
	ByDomain TallyKind = 'd' // the recipient's domain, lower case; OtherValue for those beyond the bound
	ByCode   TallyKind = 'c' // why a message failed: "550 5.1.1", "550", "5.1.1"; OtherValue likewise
	ByTime   TallyKind = 't' // from the first word on a message to the final one: a bucket of FinalBuckets
)

// OtherValue stands for all values beyond what is told apart.
const OtherValue = ""

// FinalBuckets are the upper bounds, in seconds, of the times to the final
// word that are told apart; their values are these numbers. What takes longer
// is OtherValue.
var FinalBuckets = []int64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600, 120 * 3600}

// TallyKey is what events are counted by, one way of several.
type TallyKey struct {
	Source id.ID
	Hour   time.Time // in which they reached us, UTC
	Kind   TallyKind
	Value  string
	Type   event.Type
}

// outboxPart is how many events one row of the outbox holds.
const outboxPart = 500

// RouteEvents ends a group: it takes the next number of the outbox order and
// writes what is due to whom. A group without events takes no number (0). It
// does nothing, and says 0, when the step is done.
//
// The number is taken last, in the statement that also writes the outbox, from
// a row that stays locked to COMMIT: numbers become visible in their order.
func (s *Store) RouteEvents(ctx context.Context, r Routing) (number int64, err error) {
	type part struct {
		webhook id.ID
		number  int
		events  []id.ID
	}
	var parts []part
	for _, d := range r.Due {
		n := 0
		for chunk := range slices.Chunk(d.Events, outboxPart) {
			parts = append(parts, part{d.Webhook, n, chunk})
			n++
		}
	}
	err = s.inTx(ctx, "route events of "+id.Group.Format(r.Group), func(tx *sqlx.Tx) error {
		step, err := lockStep(ctx, tx, r.Group)
		if err != nil || step != StepRoute {
			return err
		}
		if r.Events == 0 {
			_, err = tx.ExecContext(ctx, `update groups set step = 'done', finished_at = now() where id = $1`, r.Group)
			return err
		}
		if err := count(ctx, tx, r); err != nil {
			return err
		}
		err = tx.GetContext(ctx, &number, `
			with numbered as (
				update group_sequence set number = number + 1 returning number
			), due as (
				insert into outbox (webhook_id, number, part, events, event_ids)
				select x.webhook_id, n.number, x.part, x.events, x.event_ids
				from   numbered n, (
					select unnest($2::uuid[]) as webhook_id, unnest($3::bigint[])::integer as part,
					       unnest($4::bigint[])::integer as events, unnest($5::bytea[]) as event_ids) x
			), counted as (
				update webhook_progress p set matched = p.matched + x.n
				from   (select unnest($6::uuid[]) as webhook_id, unnest($7::bigint[]) as n) x
				where  p.webhook_id = x.webhook_id
			)
			update groups set step = 'done', finished_at = now(), number = (select number from numbered) where id = $1
			returning number`,
			r.Group,
			array(oidUUID, parts, func(dst []byte, p *part) []byte { return appendUUID(dst, p.webhook) }),
			array(oidInt8, parts, func(dst []byte, p *part) []byte { return appendInt8(dst, int64(p.number)) }),
			array(oidInt8, parts, func(dst []byte, p *part) []byte { return appendInt8(dst, int64(len(p.events))) }),
			array(oidBytea, parts, func(dst []byte, p *part) []byte {
				for _, e := range p.events {
					dst = appendUUID(dst, e)
				}
				return dst
			}),
			array(oidUUID, r.Due, func(dst []byte, d *Due) []byte { return appendUUID(dst, d.Webhook) }),
			array(oidInt8, r.Due, func(dst []byte, d *Due) []byte { return appendInt8(dst, int64(len(d.Events))) }))
		crash.Point("route_before_commit")
		return err
	})
	if err == nil {
		crash.Point("route_after_commit")
	}
	return number, err
}

// count adds a group to the statistics, in one round trip.
func count(ctx context.Context, tx *sqlx.Tx, r Routing) error {
	volume := slices.SortedFunc(maps.Keys(r.Volume), func(a, b VolumeKey) int {
		return cmp.Or(compareID(a.Source, b.Source), a.Hour.Compare(b.Hour), cmp.Compare(a.Type, b.Type))
	})
	tally := slices.SortedFunc(maps.Keys(r.Tally), func(a, b TallyKey) int {
		return cmp.Or(compareID(a.Source, b.Source), a.Hour.Compare(b.Hour), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Type, b.Type))
	})
	_, err := tx.ExecContext(ctx, `
		with tallied as (
			insert into tallies (source_id, hour, kind, value, type, events)
			select unnest($5::uuid[]), unnest($6::timestamptz[]), unnest($7::"char"[]), unnest($8::text[]), unnest($9::text[]), unnest($10::bigint[])
			on conflict (source_id, hour, kind, value, type) do update set events = tallies.events + excluded.events
		)
		insert into volume (source_id, hour, type, events)
		select unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::text[]), unnest($4::bigint[])
		on conflict (source_id, hour, type) do update set events = volume.events + excluded.events`,
		array(oidUUID, volume, func(dst []byte, k *VolumeKey) []byte { return appendUUID(dst, k.Source) }),
		array(oidTimestamptz, volume, func(dst []byte, k *VolumeKey) []byte { return appendTimestamptz(dst, k.Hour) }),
		array(oidText, volume, func(dst []byte, k *VolumeKey) []byte { return append(dst, k.Type...) }),
		array(oidInt8, volume, func(dst []byte, k *VolumeKey) []byte { return appendInt8(dst, int64(r.Volume[*k])) }),
		array(oidUUID, tally, func(dst []byte, k *TallyKey) []byte { return appendUUID(dst, k.Source) }),
		array(oidTimestamptz, tally, func(dst []byte, k *TallyKey) []byte { return appendTimestamptz(dst, k.Hour) }),
		array(oidChar, tally, func(dst []byte, k *TallyKey) []byte { return append(dst, byte(k.Kind)) }),
		array(oidText, tally, func(dst []byte, k *TallyKey) []byte { return append(dst, k.Value...) }),
		array(oidText, tally, func(dst []byte, k *TallyKey) []byte { return append(dst, k.Type...) }),
		array(oidInt8, tally, func(dst []byte, k *TallyKey) []byte { return appendInt8(dst, int64(r.Tally[*k])) }))
	if err != nil {
		return fmt.Errorf("count events: %w", err)
	}
	return nil
}

// WakeTarget is a webhook that got something from a group.
type WakeTarget struct {
	Webhook id.ID
	// Signal: its workflow sleeps, or collects and has enough. Otherwise it is
	// at work and will look at the outbox by itself.
	Signal bool
}

// WakeTargets returns the webhooks to which the group with this number brought
// something, as they stand now. Webhooks that are paused or gone need no
// signal.
func (s *Store) WakeTargets(ctx context.Context, number int64) ([]WakeTarget, error) {
	rows, err := s.db.QueryContext(ctx, `
		select p.webhook_id,
		       w.status = 'active' and w.deleted_at is null and (
		           p.asleep or p.collecting and p.matched - p.delivered - p.skipped - p.set_aside
		               >= coalesce((w.settings #>> '{batch,max_events}')::integer, 0))
		from   webhook_progress p
		join   webhooks w on w.id = p.webhook_id
		where  exists (select from outbox o where o.webhook_id = p.webhook_id and o.number = $1)
		order  by p.webhook_id`, number)
	if err != nil {
		return nil, fmt.Errorf("find webhooks to wake: %w", err)
	}
	defer rows.Close()
	var all []WakeTarget
	for rows.Next() {
		var t WakeTarget
		if err := rows.Scan(&t.Webhook, &t.Signal); err != nil {
			return nil, fmt.Errorf("find webhooks to wake: %w", err)
		}
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find webhooks to wake: %w", err)
	}
	return all, nil
}
