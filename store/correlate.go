package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/correlate"
	"aftersend/crash"
	"aftersend/event"
	"aftersend/id"
)

// NewEvent is an event as a callback told it, before we know whether we have
// heard it already and which message it is about.
type NewEvent struct {
	Event           *event.Event // clean; never written to
	Account, Source id.ID
	Callback        id.ID
	N               int64 // of the callback
	Ordinal         int   // in the callback
	Position        int   // in the group
	Key             correlate.Key
	Keys            []correlate.MessageKey
	Authentic       bool // who says so may put addresses on the suppression list
	// Message is set for events that we made up ourselves about a message we
	// know. They count while it is deferred and are left out otherwise. The
	// events of one Correlation either all have it or none.
	Message id.ID
}

// Correlation is one transaction's share of a group.
type Correlation struct {
	Group    id.ID
	Events   []NewEvent
	From, To Mark // the group is at From, and at To when this is done
	Last     bool // ends the step
	Now      time.Time
	// SetAside are quarantined instead of correlated.
	SetAside []Quarantine
}

// Correlated is what became of the events of one Correlation.
type Correlated struct {
	// Done is false when the group was not at From: somebody else did it.
	Done bool
	IDs  []id.ID // of Events, in their order; nil for repeats and what was left out
	// Said is what each event became the moment of in its message; nil where
	// there is no message, and where there is no id.
	Said []*event.Snapshot
}

// ErrUnencodable means that an event has no JSON. event.Clean leaves none such.
var ErrUnencodable = errors.New("event has no JSON")

// errMerged means that a message disappeared under us: another group found it
// to be one with a second and merged them.
var errMerged = errors.New("message was merged meanwhile")

// CorrelateEvents records events that are new, counts those that are repeats,
// and tells every message its part, in one transaction.
//
// Of two groups with the same new message the second waits on message_keys
// until the first has committed, and then finds the first's message: the
// insert does nothing on conflict, and the select after it is a statement of
// its own, which under READ COMMITTED sees what was committed meanwhile.
func (s *Store) CorrelateEvents(ctx context.Context, in Correlation) (Correlated, error) {
	var out Correlated
	for try := 1; ; try++ {
		err := s.inTx(ctx, "correlate events of "+id.Group.Format(in.Group), func(tx *sqlx.Tx) (err error) {
			c := correlation{Correlation: &in, ctx: ctx, tx: tx, insist: try == maxTxTries}
			out, err = c.run()
			crash.Point("correlate_before_commit")
			return err
		})
		if errors.Is(err, errMerged) {
			continue // never when it insists
		}
		if err != nil {
			return Correlated{}, err
		}
		crash.Point("correlate_after_commit")
		return out, nil
	}
}

// correlation is the work of one CorrelateEvents. Its methods run in the order
// in which they stand here.
type correlation struct {
	*Correlation
	ctx    context.Context
	tx     *sqlx.Tx
	insist bool // keys that still name no message are taken over

	ids     []id.ID // per event; nil: a repeat
	repeats int
	stories []*story       // per event; nil: about no message
	guesses map[int]string // per event: its Snapshot.Match, where it is not ""
	guessed []*story       // those whose match is set
	waiting bool           // a message may have become deferred
	said    []*event.Snapshot
	rows    []eventRow
	supp    map[suppressionKey]suppression
}

// story is what a correlation does to one message.
type story struct {
	id      id.ID   // the message's: new, or the lowest of found
	found   []id.ID // messages that have one of its keys; several are merged
	keys    []correlate.MessageKey
	newKeys []id.ID // of keys, those that were not known
	message correlate.Message
	first   *NewEvent // of ours
	length  int       // of the timeline, with added
	added   []id.ID
	into    *story // found to be the same; nil: this is the one

	status  event.Type // after the events told so far; "": none was
	watched bool       // it was deferred before and its cohort watches over it
	joins   cohort     // when it ends up deferred and is not watched
	cohort  id.ID      // of joins
	match   string     // of the message: event.MatchLikely or MatchNone
}

func (s *story) root() *story {
	for s.into != nil {
		s = s.into
	}
	return s
}

func (s *story) join(o *story) {
	s, o = s.root(), o.root()
	if s == o {
		return
	}
	o.into = s
	s.keys = append(s.keys, o.keys...)
	s.found = append(s.found, o.found...)
	s.newKeys = append(s.newKeys, o.newKeys...)
	if o.first.Position < s.first.Position {
		s.first = o.first
	}
}

func (c *correlation) run() (Correlated, error) {
	var step string
	var at Mark
	err := c.tx.QueryRowContext(c.ctx, `select step, correlated, correlated_events from groups where id = $1 for update`, c.Group).
		Scan(&step, &at.N, &at.Events)
	if err != nil || step != StepCorrelate || at != c.From {
		return Correlated{}, err
	}
	if len(c.Events) > 0 {
		steps := []func() error{
			c.recogniseRepeats, c.findMessages, c.guess, c.lockMessages, c.tell,
			c.insertEvents, c.joinCohorts, c.insertMessages, c.updateMessages, c.noteMatches, c.suppress,
		}
		if c.Events[0].Message != id.Nil {
			steps = []func() error{c.nameMessages, c.lockMessages, c.tell, c.insertEvents, c.updateMessages}
		}
		for _, do := range steps {
			if err := do(); err != nil {
				return Correlated{}, err
			}
		}
	}
	if err := insertQuarantine(c.ctx, c.tx, c.Group, c.SetAside); err != nil {
		return Correlated{}, err
	}
	_, err = c.tx.ExecContext(c.ctx, `
		update groups
		set    step = case when $2 then 'route' else step end, correlated = $3, correlated_events = $4,
		       events = events + $5, repeats = repeats + $6, quarantined = quarantined + $7, started_at = now()
		where  id = $1`,
		c.Group, c.Last, c.To.N, c.To.Events, len(c.rows), c.repeats, len(c.SetAside))
	return Correlated{Done: true, IDs: c.ids, Said: c.said}, err
}

// recogniseRepeats gives new events their ids.
func (c *correlation) recogniseRepeats() error {
	c.ids = make([]id.ID, len(c.Events))
	byKey := make(map[correlate.Key]int, len(c.Events))
	order := make([]int, 0, len(c.Events))
	again := map[correlate.Key]int{}
	for i := range c.Events {
		key := c.Events[i].Key
		if _, ok := byKey[key]; ok {
			again[key]++
			c.repeats++
			continue
		}
		c.ids[i] = id.New()
		byKey[key] = i
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(c.Events[a].Key[:], c.Events[b].Key[:]) })
	// Almost always all of them are new: only the others come back.
	old, err := c.uuids(`
		with said as (
			insert into event_keys (key, event_id)
			select unnest($1::uuid[]), unnest($2::uuid[])
			on conflict (key) do update set repeats = event_keys.repeats + 1
			returning key, repeats
		)
		select key from said where repeats > 0`,
		array(oidUUID, order, func(dst []byte, i *int) []byte { return appendUUID(dst, c.Events[*i].Key) }),
		array(oidUUID, order, func(dst []byte, i *int) []byte { return appendUUID(dst, c.ids[*i]) }))
	if err != nil {
		return fmt.Errorf("recognise repeats: %w", err)
	}
	for _, key := range old {
		c.ids[byKey[key]] = id.Nil
	}
	c.repeats += len(old)
	if len(again) == 0 {
		return nil
	}
	keys := make([]id.ID, 0, len(again))
	for key := range again {
		keys = append(keys, key)
	}
	_, err = c.tx.ExecContext(c.ctx, `
		update event_keys k set repeats = k.repeats + x.n
		from (select unnest($1::uuid[]) as key, unnest($2::bigint[]) as n) x where k.key = x.key`,
		uuidArray(keys), array(oidInt8, keys, func(dst []byte, k *id.ID) []byte { return appendInt8(dst, int64(again[*k])) }))
	if err != nil {
		return fmt.Errorf("count repeats: %w", err)
	}
	return nil
}

// nameMessages is recogniseRepeats and findMessages for events that know their
// message. That the group is at From says that they are new.
func (c *correlation) nameMessages() error {
	c.ids = make([]id.ID, len(c.Events))
	c.stories = make([]*story, len(c.Events))
	for i := range c.Events {
		e := &c.Events[i]
		c.ids[i] = id.New()
		c.stories[i] = &story{id: e.Message, found: []id.ID{e.Message}, first: e}
	}
	return nil
}

// findMessages sorts the new events into stories and finds their messages.
func (c *correlation) findMessages() error {
	c.stories = make([]*story, len(c.Events))
	byKey := make(map[correlate.Key]*story, len(c.Events))
	var keys []correlate.MessageKey
	for i := range c.Events {
		e := &c.Events[i]
		if c.ids[i] == id.Nil || len(e.Keys) == 0 && (e.Event.Recipient == "" || !correlate.AboutMessage(e.Event)) {
			continue
		}
		var s *story
		for _, k := range e.Keys {
			if known := byKey[k.Key]; known != nil && s != nil {
				known.join(s)
				s = known.root()
			} else if known != nil {
				s = known.root()
			}
		}
		if s == nil {
			s = &story{id: id.New(), first: e}
		}
		for _, k := range e.Keys {
			if byKey[k.Key] == nil {
				byKey[k.Key] = s
				s.keys = append(s.keys, k)
				keys = append(keys, k)
			}
		}
		c.stories[i] = s
	}
	if len(keys) == 0 {
		return nil
	}
	slices.SortFunc(keys, func(a, b correlate.MessageKey) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	proposed := func(k *correlate.MessageKey) id.ID { return byKey[k.Key].root().id }
	keyArray := array(oidUUID, keys, func(dst []byte, k *correlate.MessageKey) []byte { return appendUUID(dst, k.Key) })
	r, err := c.tx.ExecContext(c.ctx, `
		insert into message_keys (key, message_id, kind)
		select unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::"char"[])
		on conflict (key) do nothing`,
		keyArray,
		array(oidUUID, keys, func(dst []byte, k *correlate.MessageKey) []byte { return appendUUID(dst, proposed(k)) }),
		array(oidChar, keys, func(dst []byte, k *correlate.MessageKey) []byte { return append(dst, byte(k.Kind)) }))
	if err != nil {
		return fmt.Errorf("write message keys: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil {
		return err
	} else if int(n) == len(keys) {
		for i := range keys {
			s := byKey[keys[i].Key].root()
			s.newKeys = append(s.newKeys, keys[i].Key)
		}
		return nil
	}
	return c.joinFound(keys, keyArray, byKey)
}

// joinFound reads whose the keys are, now that all of them are somebody's.
func (c *correlation) joinFound(keys []correlate.MessageKey, keyArray []byte, byKey map[correlate.Key]*story) error {
	owners, err := c.uuids(`
		select k.message_id from unnest($1::uuid[]) with ordinality x(key, n) left join message_keys k using (key) order by x.n`, keyArray)
	if err != nil {
		return fmt.Errorf("read message keys: %w", err)
	}
	proposed := make([]id.ID, len(keys))
	for i := range keys {
		proposed[i] = byKey[keys[i].Key].root().id
	}
	byMessage := map[id.ID]*story{}
	for i, owner := range owners {
		s := byKey[keys[i].Key].root()
		if owner == proposed[i] {
			s.newKeys = append(s.newKeys, keys[i].Key)
			continue
		}
		if !slices.Contains(s.found, owner) {
			s.found = append(s.found, owner)
		}
		if known := byMessage[owner]; known != nil {
			known.join(s)
		} else {
			byMessage[owner] = s
		}
	}
	var ours, theirs []id.ID
	for i := range keys {
		s := byKey[keys[i].Key].root()
		if len(s.found) == 0 {
			continue
		}
		slices.SortFunc(s.found, compareID)
		s.found = slices.Compact(s.found)
		s.id = s.found[0]
		if owners[i] == proposed[i] {
			ours, theirs = append(ours, keys[i].Key), append(theirs, s.id)
		}
	}
	return c.pointKeys(ours, theirs)
}

// pointKeys makes keys name messages.
func (c *correlation) pointKeys(keys, messages []id.ID) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := c.tx.ExecContext(c.ctx, `
		update message_keys k set message_id = x.message_id
		from (select unnest($1::uuid[]) as key, unnest($2::uuid[]) as message_id) x where k.key = x.key`,
		uuidArray(keys), uuidArray(messages))
	if err != nil {
		return fmt.Errorf("point message keys: %w", err)
	}
	return nil
}

// lockMessages locks the messages found, in the order of their ids, reads
// their state, and merges those that are one.
func (c *correlation) lockMessages() error {
	var found []id.ID
	for _, s := range c.roots() {
		found = append(found, s.found...)
	}
	if len(found) == 0 {
		return nil
	}
	type row struct {
		ID     id.ID  `db:"id"`
		State  []byte `db:"state"`
		Length int    `db:"length"`
	}
	var rows []row
	err := c.tx.SelectContext(c.ctx, &rows, `
		select id, state, cardinality(timeline) as length from messages where id = any($1::uuid[]) order by id for update`, uuidArray(found))
	if err != nil {
		return fmt.Errorf("lock %d messages: %w", len(found), err)
	}
	byID := make(map[id.ID]*row, len(rows))
	for i := range rows {
		byID[rows[i].ID] = &rows[i]
	}
	for _, s := range c.roots() {
		if err := c.dropGone(s, func(m id.ID) bool { return byID[m] == nil }); err != nil {
			return err
		}
		for _, m := range s.found {
			r := byID[m]
			told, err := correlate.Decode(r.State)
			if err != nil {
				return fmt.Errorf("message %s: %w", id.Message.Format(m), err)
			}
			s.message = correlate.Merge(s.message, told)
			s.length += r.Length
			if m != s.id {
				if err := c.merge(s.id, m); err != nil {
					return fmt.Errorf("merge %s into %s: %w", id.Message.Format(m), id.Message.Format(s.id), err)
				}
			}
		}
	}
	return nil
}

// dropGone deals with keys that name a message which is not there. It was
// merged just now, which trying again will show, or else it was deleted without
// its keys, which must not stop a group for ever.
func (c *correlation) dropGone(s *story, gone func(id.ID) bool) error {
	if !slices.ContainsFunc(s.found, gone) {
		return nil
	}
	if s.first.Message != id.Nil {
		s.found = nil // whoever merged it sees to the rest
		return nil
	}
	if !c.insist {
		return errMerged
	}
	s.found = slices.DeleteFunc(s.found, gone)
	s.id = id.New()
	if len(s.found) > 0 {
		s.id = s.found[0]
	}
	s.newKeys = s.newKeys[:0]
	target := make([]id.ID, len(s.keys))
	for i, k := range s.keys {
		s.newKeys, target[i] = append(s.newKeys, k.Key), s.id
	}
	return c.pointKeys(s.newKeys, target)
}

// merge gives everything of one message to another; both are locked. The
// state is written with the rest of the story.
func (c *correlation) merge(low, high id.ID) error {
	for _, statement := range []string{
		`update message_keys set message_id = $1 where key = any(array(select unnest(keys) from messages where id = $2))`,
		`update events set message_id = $1 where id = any(array(select unnest(timeline) from messages where id = $2))`,
		`update messages l
		 set    timeline = array(select t from unnest(l.timeline || h.timeline) t order by t), keys = l.keys || h.keys
		 from   messages h where l.id = $1 and h.id = $2`,
		`delete from messages where id = $2 and id <> $1`,
	} {
		if _, err := c.tx.ExecContext(c.ctx, statement, low, high); err != nil {
			return err
		}
	}
	return nil
}

// roots returns every story once, in the order of their first events.
func (c *correlation) roots() []*story {
	seen := make(map[*story]bool, len(c.stories))
	var all []*story
	for _, s := range c.stories {
		if s == nil {
			continue
		}
		if s = s.root(); !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}

type eventRow struct {
	*NewEvent
	id, message id.ID
	at          time.Time
	data        []byte
}

// A timeline holds this many events. Opens and clicks are left out from half
// of it on: there is no end to them, and the final word must find room.
const maxTimeline = 2000

// tell applies the events to their messages and writes down what each said.
func (c *correlation) tell() error {
	c.rows = make([]eventRow, 0, len(c.Events))
	c.said = make([]*event.Snapshot, len(c.Events))
	c.supp = map[suppressionKey]suppression{}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for i := range c.Events {
		in := &c.Events[i]
		if c.ids[i] == id.Nil {
			continue
		}
		e := *in.Event
		e.ID = id.Event.Format(c.ids[i])
		row := eventRow{NewEvent: in, id: c.ids[i], at: e.EffectiveAt()}
		var s *story
		var told correlate.Message
		if c.stories[i] != nil {
			s = c.stories[i].root()
			var change correlate.Change
			told, change = correlate.Apply(s.message, &e, in.Key)
			if in.Message != id.Nil && (len(s.found) == 0 || change.Before.Status != event.Deferred) {
				c.ids[i] = id.Nil // its final word came meanwhile
				continue
			}
			e.Message = change.Snapshot(s.id)
			e.Message.Match = c.guesses[i]
			c.said[i] = e.Message
			row.message = s.id
			s.note(change, in.Source)
			c.waiting = c.waiting || s.status == event.Deferred && !s.watched
		}
		buf.Reset()
		if err := enc.Encode(&e); err != nil {
			return fmt.Errorf("encode event %d of %s: %w", in.Ordinal, id.Callback.Format(in.Callback), ErrUnencodable)
		}
		row.data = bytes.Clone(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
		c.rows = append(c.rows, row)
		if s != nil {
			s.message = told
			if s.length < maxTimeline/2 || s.length < maxTimeline && e.Type != event.Opened && e.Type != event.Clicked {
				s.added = append(s.added, row.id)
				s.length++
			}
		}
		c.noteSuppression(in, row)
	}
	return nil
}

// note keeps what a change means for the watch over deferrals. A message that
// was two is watched anew, since their cohorts may be closed.
func (s *story) note(change correlate.Change, source id.ID) {
	if s.status == "" {
		s.watched = change.Before.Status == event.Deferred && len(s.found) == 1
	}
	if change.Before.Status != event.Deferred || s.joins.source == id.Nil {
		s.joins.source = source
	}
	s.status = change.After.Status
}

// Quarantine is the row that keeps an event which cannot be recorded.
func (e *NewEvent) Quarantine(reason string) Quarantine {
	return Quarantine{Account: e.Account, Source: e.Source, Callback: e.Callback, Record: e.Ordinal, Reason: reason}
}

func (c *correlation) insertEvents() error {
	if len(c.rows) == 0 {
		return nil
	}
	type row = eventRow
	_, err := c.tx.ExecContext(c.ctx, `
		insert into events
			(group_id, id, account_id, source_id, callback_id, ordinal, position, message_id, type, occurred_at, data)
		select $1::uuid, unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::uuid[]),
			unnest($6::bigint[])::integer, unnest($7::bigint[])::integer,
			unnest($8::uuid[]), unnest($9::text[]), unnest($10::timestamptz[]), unnest($11::bytea[])`,
		c.Group,
		array(oidUUID, c.rows, func(dst []byte, r *row) []byte { return appendUUID(dst, r.id) }),
		array(oidUUID, c.rows, func(dst []byte, r *row) []byte { return appendUUID(dst, r.Account) }),
		array(oidUUID, c.rows, func(dst []byte, r *row) []byte { return appendUUID(dst, r.Source) }),
		array(oidUUID, c.rows, func(dst []byte, r *row) []byte { return appendUUID(dst, r.Callback) }),
		array(oidInt8, c.rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.Ordinal)) }),
		array(oidInt8, c.rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.Position)) }),
		array(oidUUID, c.rows, func(dst []byte, r *row) []byte { return appendUUID(dst, r.message) }),
		array(oidText, c.rows, func(dst []byte, r *row) []byte { return append(dst, r.Event.Type...) }),
		array(oidTimestamptz, c.rows, func(dst []byte, r *row) []byte { return appendTimestamptz(dst, r.at) }),
		array(oidBytea, c.rows, func(dst []byte, r *row) []byte { return append(dst, r.data...) }))
	if err != nil {
		return fmt.Errorf("insert %d events: %w", len(c.rows), err)
	}
	return nil
}

// messageArrays are what insertMessages and updateMessages have in common: one
// parameter per column, and the lists of ids end to end, cut by their ends.
func messageArrays(stories []*story) []any {
	facts := make([]correlate.Facts, len(stories))
	var timelines, keys []id.ID
	type row struct {
		*story
		*correlate.Facts
		timelineEnd, keysEnd int
	}
	rows := make([]row, len(stories))
	for i, s := range stories {
		facts[i] = s.message.Facts()
		timelines, keys = append(timelines, s.added...), append(keys, s.newKeys...)
		rows[i] = row{s, &facts[i], len(timelines), len(keys)}
	}
	return []any{
		array(oidUUID, rows, func(dst []byte, r *row) []byte { return appendUUID(dst, r.id) }),
		array(oidText, rows, func(dst []byte, r *row) []byte { return append(dst, r.Status...) }),
		array(oidTimestamptz, rows, func(dst []byte, r *row) []byte { return appendTimestamptz(dst, r.StatusAt) }),
		array(oidText, rows, func(dst []byte, r *row) []byte { return append(dst, r.PreviousStatus...) }),
		array(oidBool, rows, func(dst []byte, r *row) []byte { return appendBool(dst, r.Asynchronous) }),
		array(oidInt8, rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.Deferrals)) }),
		array(oidTimestamptz, rows, func(dst []byte, r *row) []byte { return appendTimestamptz(dst, r.FirstEventAt) }),
		array(oidTimestamptz, rows, func(dst []byte, r *row) []byte { return appendTimeOrNull(dst, r.FirstDeferredAt) }),
		array(oidTimestamptz, rows, func(dst []byte, r *row) []byte { return appendTimeOrNull(dst, r.FinalAt) }),
		array(oidBytea, rows, func(dst []byte, r *row) []byte { return r.message.Append(dst) }),
		array(oidInt8, rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.timelineEnd-len(r.added)+1)) }),
		array(oidInt8, rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.timelineEnd)) }),
		array(oidInt8, rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.keysEnd-len(r.newKeys)+1)) }),
		array(oidInt8, rows, func(dst []byte, r *row) []byte { return appendInt8(dst, int64(r.keysEnd)) }),
		uuidArray(timelines),
		uuidArray(keys),
		array(oidUUID, rows, func(dst []byte, r *row) []byte {
			if r.cohort == id.Nil {
				return nil
			}
			return appendUUID(dst, r.cohort)
		}),
	}
}

const messageRows = `
	select unnest($1::uuid[]) as id, unnest($2::text[]) as status, unnest($3::timestamptz[]) as status_at,
	       unnest($4::text[]) as previous_status, unnest($5::boolean[]) as asynchronous, unnest($6::bigint[]) as deferrals,
	       unnest($7::timestamptz[]) as first_event_at, unnest($8::timestamptz[]) as first_deferred_at,
	       unnest($9::timestamptz[]) as final_at, unnest($10::bytea[]) as state,
	       unnest($11::bigint[]) as t1, unnest($12::bigint[]) as t2, unnest($13::bigint[]) as k1, unnest($14::bigint[]) as k2,
	       unnest($17::uuid[]) as cohort_id`

func (c *correlation) insertMessages() error {
	var fresh []*story
	for _, s := range c.roots() {
		if len(s.found) == 0 && len(s.added) > 0 {
			fresh = append(fresh, s)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	args := append(messageArrays(fresh),
		array(oidUUID, fresh, func(dst []byte, s **story) []byte { return appendUUID(dst, (*s).first.Account) }),
		array(oidUUID, fresh, func(dst []byte, s **story) []byte { return appendUUID(dst, (*s).first.Source) }),
		array(oidText, fresh, func(dst []byte, s **story) []byte { return append(dst, correlate.Recipient((*s).first.Event)...) }))
	_, err := c.tx.ExecContext(c.ctx, `
		insert into messages
			(id, status, status_at, previous_status, asynchronous, deferrals, first_event_at, first_deferred_at, final_at, state,
			 cohort_id, timeline, keys, account_id, source_id, recipient)
		select x.id, x.status, x.status_at, x.previous_status, x.asynchronous, x.deferrals, x.first_event_at, x.first_deferred_at,
			x.final_at, x.state, x.cohort_id, ($15::uuid[])[t1:t2], ($16::uuid[])[k1:k2], x.account_id, x.source_id, x.recipient
		from (`+messageRows+`,
			unnest($18::uuid[]) as account_id, unnest($19::uuid[]) as source_id, unnest($20::text[]) as recipient) x`, args...)
	if err != nil {
		return fmt.Errorf("insert %d messages: %w", len(fresh), err)
	}
	return nil
}

func (c *correlation) updateMessages() error {
	var known []*story
	for _, s := range c.roots() {
		if len(s.found) > 0 {
			known = append(known, s)
		}
	}
	if len(known) == 0 {
		return nil
	}
	_, err := c.tx.ExecContext(c.ctx, `
		update messages m
		set    status = x.status, status_at = x.status_at, previous_status = x.previous_status, asynchronous = x.asynchronous,
		       deferrals = x.deferrals, first_event_at = x.first_event_at, first_deferred_at = x.first_deferred_at,
		       final_at = x.final_at, state = x.state, updated_at = now(), cohort_id = coalesce(x.cohort_id, m.cohort_id),
		       timeline = m.timeline || ($15::uuid[])[t1:t2],
		       keys = case when k2 < k1 then m.keys else m.keys || ($16::uuid[])[k1:k2] end
		from   (`+messageRows+`) x
		where  m.id = x.id`, messageArrays(known)...)
	if err != nil {
		return fmt.Errorf("update %d messages: %w", len(known), err)
	}
	return nil
}

type suppressionKey struct {
	account   id.ID
	recipient string
	reason    event.Type
}

type suppression struct {
	event         id.ID
	since, lifted time.Time
}

// never is the since of an address that was only ever taken off the list.
var never = time.Unix(0, 0).UTC()

func (c *correlation) noteSuppression(in *NewEvent, row eventRow) {
	verdict, ok := correlate.Suppresses(in.Event)
	if !ok || !in.Authentic {
		return
	}
	key := suppressionKey{in.Account, correlate.Recipient(in.Event), verdict.Reason}
	s, ok := c.supp[key]
	if !ok {
		s.since = never
	}
	switch {
	case verdict.Lift:
		if row.at.After(s.lifted) {
			s.lifted = row.at
		}
	case row.at.After(s.since):
		s.since, s.event = row.at, row.id
	}
	c.supp[key] = s
}

// suppress keeps, for each address and reason, the latest time it was put on
// the list and the latest it was taken off, so that order does not matter.
func (c *correlation) suppress() error {
	if len(c.supp) == 0 {
		return nil
	}
	keys := make([]suppressionKey, 0, len(c.supp))
	for k := range c.supp {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b suppressionKey) int {
		return cmp.Or(compareID(a.account, b.account), strings.Compare(a.recipient, b.recipient), cmp.Compare(a.reason, b.reason))
	})
	type key = suppressionKey
	_, err := c.tx.ExecContext(c.ctx, `
		insert into suppressions as s (id, account_id, recipient, reason, event_id, since, lifted_at)
		select unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]), unnest($5::uuid[]),
		       unnest($6::timestamptz[]), unnest($7::timestamptz[])
		on conflict (account_id, recipient, reason) do update
		set   since     = greatest(s.since, excluded.since),
		      event_id  = case when excluded.since > s.since then excluded.event_id else s.event_id end,
		      lifted_at = greatest(s.lifted_at, excluded.lifted_at)
		where excluded.since > s.since or excluded.lifted_at > coalesce(s.lifted_at, '-infinity')`,
		array(oidUUID, keys, func(dst []byte, _ *key) []byte { return appendUUID(dst, id.New()) }),
		array(oidUUID, keys, func(dst []byte, k *key) []byte { return appendUUID(dst, k.account) }),
		array(oidText, keys, func(dst []byte, k *key) []byte { return append(dst, k.recipient...) }),
		array(oidText, keys, func(dst []byte, k *key) []byte { return append(dst, k.reason...) }),
		array(oidUUID, keys, func(dst []byte, k *key) []byte {
			if e := c.supp[*k].event; e != id.Nil {
				return appendUUID(dst, e)
			}
			return nil
		}),
		array(oidTimestamptz, keys, func(dst []byte, k *key) []byte { return appendTimestamptz(dst, c.supp[*k].since) }),
		array(oidTimestamptz, keys, func(dst []byte, k *key) []byte { return appendTimeOrNull(dst, c.supp[*k].lifted) }))
	if err != nil {
		return fmt.Errorf("note %d suppressions: %w", len(keys), err)
	}
	return nil
}

// uuids runs a query that returns one column of ids.
func (c *correlation) uuids(query string, args ...any) ([]id.ID, error) {
	rows, err := c.tx.QueryContext(c.ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []id.ID
	for rows.Next() {
		var u id.ID
		if err := rows.Scan(&u); err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

func compareID(a, b id.ID) int { return bytes.Compare(a[:], b[:]) }
