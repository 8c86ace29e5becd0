package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"aftersend/event"
	"aftersend/id"
)

// Page is a slice of a list that goes from the newest to the oldest: at most
// Limit rows with an id below After. Identifiers ascend with time, so pages
// neither skip nor repeat rows while new ones arrive.
type Page struct {
	After id.ID // the last id of the page before; nil = start
	Limit int
}

// before is the bound for "id < $n".
func (p Page) before() id.ID {
	if p.After != id.Nil {
		return p.After
	}
	var highest id.ID
	for i := range highest {
		highest[i] = 0xff
	}
	return highest
}

// A row may carry the clock of another machine. Where the id of one row bounds
// the ids of rows made later, this much is allowed for.
const clockSlack = time.Hour

func earliest(u id.ID) id.ID { return id.Floor(id.Time(u).Add(-clockSlack)) }

// --- callbacks ---

// CallbackFilter narrows a list of callbacks; zero values match all.
type CallbackFilter struct {
	ESP    string
	Source id.ID
	State  string // received, processed, quarantined
}

// CallbackRow is a received callback and what became of it.
type CallbackRow struct {
	ID         id.ID     `db:"id"`
	SourceID   id.ID     `db:"source_id"`
	ESP        string    `db:"esp"`
	ReceivedAt time.Time `db:"received_at"`
	Method     string    `db:"method"`
	Size       int       `db:"size"` // of the stored body, in bytes
	State      string    `db:"state"`
	Error      string    `db:"error"`    // why it is quarantined
	GroupID    uuidOrNil `db:"group_id"` // what processes it; nil until grouped
	Events     int       `db:"-"`
}

// uuidOrNil reads NULL as the nil identifier.
type uuidOrNil struct{ id.ID }

// Scan implements sql.Scanner.
func (u *uuidOrNil) Scan(src any) error {
	u.ID = id.Nil
	if src == nil {
		return nil
	}
	return u.ID.Scan(src)
}

// What became of a callback c is what its group and the quarantine say.
const callbackAndFate = `
	c.id, c.source_id, s.esp, c.received_at, c.method, octet_length(c.body) as size,
	g.id as group_id, coalesce(q.reason, '') as error,
	case when q.reason is not null then 'quarantined' when g.step = 'done' then 'processed' else 'received' end as state`

const joinFate = `
	join sources s on s.id = c.source_id
	left join lateral (
		select id, step, n_to from groups
		where writer_id = c.writer_id and n_from <= c.n and kind = 'callbacks'
		order by n_from desc limit 1
	) g on g.n_to >= c.n
	left join lateral (
		select reason from quarantine where callback_id = c.id and resolved_at is null order by record limit 1
	) q on true`

// Callbacks lists an account's callbacks, newest first. Each filter has a way
// in that reads no more than a page: sources by their index, quarantined ones
// by the quarantine, unprocessed ones by the groups and writers that are open.
func (s *Store) Callbacks(ctx context.Context, account id.ID, f CallbackFilter, p Page) ([]CallbackRow, error) {
	var sources []id.ID
	err := s.db.SelectContext(ctx, &sources, `
		select id from sources where account_id = $1 and ($2 = '' or esp = $2) and ($3::uuid is null or id = $3)`,
		account, f.ESP, nullID(f.Source))
	if err != nil {
		return nil, fmt.Errorf("list callbacks: %w", err)
	}
	if len(sources) == 0 {
		return nil, nil
	}
	rows := []CallbackRow{}
	if err := s.db.SelectContext(ctx, &rows, callbackQuery(f.State), uuidArray(sources), p.before(), p.Limit, account); err != nil {
		return nil, fmt.Errorf("list callbacks: %w", err)
	}
	return rows, s.countEvents(ctx, rows)
}

// callbackQuery takes $1 sources, $2 id below, $3 limit, $4 account.
func callbackQuery(state string) string {
	switch state {
	case "quarantined":
		return `select ` + callbackAndFate + `
			from (select distinct callback_id as id from quarantine
			      where account_id = $4 and resolved_at is null and callback_id < $2 and source_id = any($1)
			      order by callback_id desc limit $3) page
			join callbacks c on c.id = page.id` + joinFate + `
			order by c.id desc`
	case "received":
		return `select ` + callbackAndFate + `
			from (select c.* from groups g
			      join callbacks c on c.writer_id = g.writer_id and c.n between g.n_from and g.n_to and c.id between g.id_from and g.id_to
			      where g.step <> 'done' and g.kind = 'callbacks'
			      union all
			      select c.* from writers w
			      cross join lateral (
			          select * from callbacks
			          where writer_id = w.id and n > w.grouped_through and id > w.grouped_id and id < $2 and source_id = any($1)
			          order by n desc limit $3
			      ) c
			      where w.closed_at is null) c` + joinFate + `
			where c.id < $2 and c.source_id = any($1) and c.account_id = $4 and q.reason is null
			order by c.id desc limit $3`
	}
	perSource := `select c.* from callbacks c where c.source_id = src.id and c.id < $2 order by c.id desc limit $3`
	if state == "processed" {
		// Spelt so that the planner expects many: it would else read and sort them all.
		perSource = `select c.* from callbacks c
			where c.source_id = src.id and c.id < $2
			  and not exists (select from quarantine where callback_id = c.id and resolved_at is null)
			  and coalesce((select step = 'done' and n_to >= c.n from groups
			                where writer_id = c.writer_id and n_from <= c.n and kind = 'callbacks' order by n_from desc limit 1), false)
			order by c.id desc limit $3`
	}
	return `select ` + callbackAndFate + `
		from (select c.* from unnest($1::uuid[]) src(id) cross join lateral (` + perSource + `) c
		      where c.account_id = $4 order by c.id desc limit $3) c` + joinFate + `
		order by c.id desc`
}

// Callback returns one callback of an account.
func (s *Store) Callback(ctx context.Context, account, callback id.ID) (CallbackRow, error) {
	rows := make([]CallbackRow, 1)
	err := s.db.GetContext(ctx, &rows[0], `select `+callbackAndFate+` from callbacks c`+joinFate+` where c.id = $1 and c.account_id = $2`, callback, account)
	if err := found(err, "callback", id.Callback, callback); err != nil {
		return CallbackRow{}, err
	}
	err = s.countEvents(ctx, rows)
	return rows[0], err
}

func (s *Store) countEvents(ctx context.Context, rows []CallbackRow) error {
	if len(rows) == 0 {
		return nil
	}
	at := map[id.ID]int{}
	ids := make([]id.ID, len(rows))
	for i, r := range rows {
		ids[i], at[r.ID] = r.ID, i
	}
	var counts []struct {
		Callback id.ID `db:"callback_id"`
		Events   int   `db:"events"`
	}
	err := s.db.SelectContext(ctx, &counts, `
		select callback_id, count(*) as events from events where callback_id = any($1) and id >= $2 group by callback_id`,
		uuidArray(ids), earliest(rows[len(rows)-1].ID))
	if err != nil {
		return fmt.Errorf("count events of callbacks: %w", err)
	}
	for _, c := range counts {
		rows[at[c.Callback]].Events = c.Events
	}
	return nil
}

// RawCallback is a callback's stored bytes.
type RawCallback struct {
	Method  string `db:"method"`
	Path    []byte `db:"path"` // token masked
	Query   []byte `db:"query"`
	Headers []byte `db:"headers"` // "Name: value\r\n" lines
	Body    []byte `db:"body"`
}

// RawCallback returns the stored bytes of one callback.
func (s *Store) RawCallback(ctx context.Context, account, callback id.ID) (RawCallback, error) {
	var raw RawCallback
	err := s.db.GetContext(ctx, &raw, `select method, path, query, headers, body from callbacks where id = $1 and account_id = $2`, callback, account)
	return raw, found(err, "callback", id.Callback, callback)
}

// --- events ---

// EventFilter narrows a list of events; zero values match all.
type EventFilter struct {
	Types     []string
	Recipient string
	ESP       string
	Source    id.ID
}

// EventRow is an event as its JSON was stored.
type EventRow struct {
	ID   id.ID  `db:"id"`
	Data []byte `db:"data"`
}

// eventsGlance is how many of the newest events are looked through for a page
// before the index is asked, which has one way in per source and type.
const eventsGlance = 5000

// Events lists an account's events, newest first.
func (s *Store) Events(ctx context.Context, account id.ID, f EventFilter, p Page) ([]EventRow, error) {
	if f.Recipient != "" {
		return s.eventsOf(ctx, account, f, p)
	}
	rows := []EventRow{}
	if !f.narrow() {
		// Almost always enough, unless the account is a small one among large ones.
		err := s.db.SelectContext(ctx, &rows, `
			select id, data from (select id, account_id, data from events where id < $2 order by id desc limit $4) e
			where account_id = $1 order by id desc limit $3`, account, p.before(), p.Limit, eventsGlance)
		if err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		if len(rows) == p.Limit {
			return rows, nil
		}
	}
	types := f.Types
	if len(types) == 0 {
		for _, t := range event.Types {
			types = append(types, string(t))
		}
	}
	err := s.db.SelectContext(ctx, &rows, `
		select e.id, e.data
		from sources s
		cross join unnest($4::text[]) t(type)
		cross join lateral (select id, data from events where source_id = s.id and type = t.type and id < $2 order by id desc limit $3) e
		where s.account_id = $1 and ($5::uuid is null or s.id = $5) and ($6 = '' or s.esp = $6)
		order by e.id desc limit $3`, account, p.before(), p.Limit, pq.Array(types), nullID(f.Source), f.ESP)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return rows, nil
}

// narrow is whether the filter leaves anything out.
func (f EventFilter) narrow() bool {
	return len(f.Types) > 0 || f.Recipient != "" || f.ESP != "" || f.Source != id.Nil
}

// eventsOf lists the events to a recipient: those of its messages' timelines,
// newest first, each then one probe by id until the page is full.
func (s *Store) eventsOf(ctx context.Context, account id.ID, f EventFilter, p Page) ([]EventRow, error) {
	q := query{args: []any{account, p.before(), p.Limit, strings.ToLower(f.Recipient)}}
	where := `true`
	if len(f.Types) > 0 {
		where += ` and e.type = any(` + q.arg(pq.Array(f.Types)) + `)`
	}
	if f.Source != id.Nil {
		where += ` and e.source_id = ` + q.arg(f.Source)
	}
	if f.ESP != "" {
		where += ` and e.source_id = any(array(select id from sources where account_id = $1 and esp = ` + q.arg(f.ESP) + `))`
	}
	rows := []EventRow{}
	err := s.db.SelectContext(ctx, &rows, `
		select e.id, e.data
		from (select id from (select unnest(timeline) as id from messages where account_id = $1 and recipient = $4) t
		      where id < $2 order by id desc) t
		cross join lateral (select id, source_id, type, data from events where id = t.id offset 0) e
		where `+where+` order by t.id desc limit $3`, q.args...)
	if err != nil {
		return nil, fmt.Errorf("list events of a recipient: %w", err)
	}
	return rows, nil
}

// Event returns one event of an account.
func (s *Store) Event(ctx context.Context, account, event id.ID) (EventRow, error) {
	var row EventRow
	err := s.db.GetContext(ctx, &row, `select id, data from events where id = $1 and account_id = $2`, event, account)
	return row, found(err, "event", id.Event, event)
}

// EventsOfCallback returns the events one callback made, in its order.
func (s *Store) EventsOfCallback(ctx context.Context, account, callback id.ID) ([]EventRow, error) {
	rows := []EventRow{}
	err := s.db.SelectContext(ctx, &rows, `
		select id, data from events where callback_id = $1 and account_id = $2 and id >= $3 order by ordinal`,
		callback, account, earliest(callback))
	if err != nil {
		return nil, fmt.Errorf("events of %s: %w", id.Callback.Format(callback), err)
	}
	return rows, nil
}

// FeedPosition is a place in the feed: after the event at Position of the
// group with this Number. Numbers become visible in order, so nothing appears
// before a position somebody has read to.
type FeedPosition struct {
	Number   int64 `db:"number"`
	Position int   `db:"position"`
}

// FeedEnd is where the feed ends now.
func (s *Store) FeedEnd(ctx context.Context) (FeedPosition, error) {
	end := FeedPosition{Position: 1<<31 - 1}
	if err := s.db.GetContext(ctx, &end.Number, `select number from group_sequence`); err != nil {
		return end, fmt.Errorf("read end of feed: %w", err)
	}
	return end, nil
}

// feedGroups is how many groups one look at the feed goes through, feedLooks
// how many looks one call takes to get past those of other accounts.
const (
	feedGroups = 2000
	feedLooks  = 5
)

// Feed returns up to limit events after a position, oldest first, and the
// position to go on from.
func (s *Store) Feed(ctx context.Context, account id.ID, after FeedPosition, limit int) ([]EventRow, FeedPosition, error) {
	// Read first: whatever has a number up to there is visible from now on.
	end, err := s.FeedEnd(ctx)
	if err != nil {
		return nil, after, err
	}
	for range feedLooks {
		through := after.Number + feedGroups
		events, last, err := s.feed(ctx, account, after, through, limit)
		if err != nil || len(events) > 0 {
			return events, last, err
		}
		if through >= end.Number {
			break
		}
		after = FeedPosition{Number: through, Position: end.Position}
	}
	return []EventRow{}, after, nil
}

func (s *Store) feed(ctx context.Context, account id.ID, after FeedPosition, through int64, limit int) ([]EventRow, FeedPosition, error) {
	var rows []struct {
		EventRow
		FeedPosition
	}
	err := s.db.SelectContext(ctx, &rows, `
		select e.id, e.data, g.number, e.position
		from (select id, number, created_at from groups where number between $2 and $5 order by number) g
		cross join lateral (
			select id, data, position from events
			where group_id = g.id and account_id = $1
			  and id >= uuid_floor(((g.created_at - interval '1 hour') at time zone 'utc')::date)::uuid
			  and (g.number > $2 or position > $3)
			order by position limit $4
		) e
		order by g.number, e.position limit $4`, account, after.Number, after.Position, limit, through)
	if err != nil {
		return nil, after, fmt.Errorf("read feed: %w", err)
	}
	events := make([]EventRow, len(rows))
	for i, r := range rows {
		events[i], after = r.EventRow, r.FeedPosition
	}
	return events, after, nil
}

// --- messages ---

// MessageFilter narrows a list of messages; zero values match all.
type MessageFilter struct {
	Recipient string
	Status    string
}

// MessageRow is the story of one message to one recipient, in short.
type MessageRow struct {
	ID              id.ID      `db:"id"`
	SourceID        id.ID      `db:"source_id"`
	ESP             string     `db:"esp"`
	Recipient       string     `db:"recipient"`
	Status          string     `db:"status"`
	StatusAt        time.Time  `db:"status_at"`
	PreviousStatus  string     `db:"previous_status"`
	Asynchronous    bool       `db:"asynchronous"`
	Match           string     `db:"match"` // "", event.MatchLikely or MatchNone
	Deferrals       int        `db:"deferrals"`
	FirstEventAt    time.Time  `db:"first_event_at"`
	FirstDeferredAt *time.Time `db:"first_deferred_at"`
	FinalAt         *time.Time `db:"final_at"`
	UpdatedAt       time.Time  `db:"updated_at"`
	Events          int        `db:"events"`
	FirstEvent      []byte     `db:"first_event"` // JSON of the event that made it: names the ESP's message id, the subject
}

const messageSelect = `
	select m.id, m.source_id, s.esp, m.recipient, m.status, m.status_at, m.previous_status, m.asynchronous, m.match, m.deferrals,
	       m.first_event_at, m.first_deferred_at, m.final_at, m.updated_at, cardinality(m.timeline) as events,
	       coalesce((select data from events where id = m.timeline[1]), '') as first_event
	from messages m join sources s on s.id = m.source_id`

// apartStatuses are those in which few messages are, and which people look
// for: the index on messages has a way in for each, and one for all others.
var apartStatuses = []string{"deferred", "bounced", "rejected", "failed", "expired"}

// common is whether only messages in a status without a way in of its own are wanted.
func (f MessageFilter) common() bool {
	return f.Status != "" && !slices.Contains(apartStatuses, f.Status)
}

// apart lists the ways in that the filter needs.
func (f MessageFilter) apart() []string {
	switch {
	case f.Status == "":
		return append([]string{""}, apartStatuses...)
	case f.common():
		return []string{""}
	}
	return []string{f.Status}
}

// messagesGlance is how many messages are looked through for a page of those
// in a status that has no way in of its own.
const messagesGlance = 50_000

// Messages lists an account's messages, newest first. After a page that is not
// full MoreMessages tells whether the list ends there.
func (s *Store) Messages(ctx context.Context, account id.ID, f MessageFilter, p Page) ([]MessageRow, error) {
	q := query{args: []any{account, p.before(), p.Limit}}
	from := `select m.id from unnest(` + q.arg(pq.Array(f.apart())) + `::text[]) a(apart)
		cross join lateral (select id from messages where account_id = $1 and apart = a.apart and id < $2 order by id desc limit $3) m
		order by m.id desc limit $3`
	switch {
	case f.Recipient != "":
		from = `select id from messages where account_id = $1 and recipient = ` + q.arg(strings.ToLower(f.Recipient)) + `
			and apart = any($4) and ` + q.arg(f.Status) + `::text in ('', status) and id < $2 order by id desc limit $3`
	case f.common():
		from = `select id from (
				select id, status from messages where account_id = $1 and apart = ($4::text[])[1] and id < $2 order by id desc limit ` + q.arg(messagesGlance) + `
			) m where status = ` + q.arg(f.Status) + ` order by id desc limit $3`
	}
	rows := []MessageRow{}
	err := s.db.SelectContext(ctx, &rows, messageSelect+` where m.id = any(array(`+from+`)) order by m.id desc`, q.args...)
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return rows, nil
}

// MoreMessages tells where the list goes on after a page that is not full:
// Page.After of the next page, or nil at the end. A page of messages in a
// common status looks through so many, and leaves the rest to the next one.
func (s *Store) MoreMessages(ctx context.Context, account id.ID, f MessageFilter, p Page) (id.ID, error) {
	if f.Recipient != "" || !f.common() {
		return id.Nil, nil
	}
	var last id.ID
	err := s.db.GetContext(ctx, &last, `
		select id from messages where account_id = $1 and apart = '' and id < $2 order by id desc offset $3 limit 1`,
		account, p.before(), messagesGlance-1)
	if errors.Is(err, sql.ErrNoRows) {
		return id.Nil, nil
	}
	if err != nil {
		return id.Nil, fmt.Errorf("list messages: %w", err)
	}
	return last, nil
}

// Message returns one message of an account and its events, as they arrived.
func (s *Store) Message(ctx context.Context, account, message id.ID) (MessageRow, []EventRow, error) {
	var row MessageRow
	err := s.db.GetContext(ctx, &row, messageSelect+` where m.id = $2 and m.account_id = $1`, account, message)
	if err := found(err, "message", id.Message, message); err != nil {
		return MessageRow{}, nil, err
	}
	timeline := []EventRow{}
	err = s.db.SelectContext(ctx, &timeline, `
		select e.id, e.data
		from messages m
		cross join lateral unnest(m.timeline) with ordinality t(id, n)
		cross join lateral (select id, data from events where id = t.id offset 0) e
		where m.id = $1 order by t.n`, message)
	if err != nil {
		return MessageRow{}, nil, fmt.Errorf("timeline of %s: %w", id.Message.Format(message), err)
	}
	return row, timeline, nil
}

// --- deliveries ---

// BatchRow is a batch of a webhook with its attempts.
type BatchRow struct {
	ID         id.ID        `db:"id"`
	State      string       `db:"state"` // open, delivered, skipped, set_aside
	Dialect    string       `db:"dialect"`
	Format     string       `db:"format"`
	Events     int          `db:"events"`
	CreatedAt  time.Time    `db:"created_at"`
	FinishedAt *time.Time   `db:"finished_at"`
	Attempts   []AttemptRow `db:"-"` // the newest first, at most 50
}

// AttemptRow is one try to deliver a batch. Times are in microseconds.
type AttemptRow struct {
	ID          id.ID     `db:"id"`
	BatchID     id.ID     `db:"batch_id"`
	Number      int       `db:"number"`
	StartedAt   time.Time `db:"started_at"`
	Outcome     string    `db:"outcome"` // started, delivered, failed
	StatusCode  *int      `db:"status_code"`
	ErrorClass  string    `db:"error_class"`
	Error       string    `db:"error"`
	Events      int       `db:"events"`
	Bytes       int       `db:"bytes"`
	DNSUs       *int      `db:"dns_us"`
	ConnectUs   *int      `db:"connect_us"`
	TLSUs       *int      `db:"tls_us"`
	FirstByteUs *int      `db:"first_byte_us"`
	TotalUs     *int      `db:"total_us"`
	Response    []byte    `db:"response"` // its first 4 KiB
}

// Batches lists a webhook's batches, newest first, with their attempts.
func (s *Store) Batches(ctx context.Context, account, webhook id.ID, p Page) ([]BatchRow, error) {
	batches := []BatchRow{}
	err := s.db.SelectContext(ctx, &batches, `
		select id, state, dialect, format, events, created_at, finished_at from batches
		where webhook_id = $1 and account_id = $2 and id < $3 order by id desc limit $4`, webhook, account, p.before(), p.Limit)
	if err != nil {
		return nil, fmt.Errorf("batches of %s: %w", id.Webhook.Format(webhook), err)
	}
	if len(batches) == 0 {
		return batches, nil
	}
	at := map[id.ID]int{}
	ids := make([]id.ID, len(batches))
	for i, b := range batches {
		ids[i], at[b.ID] = b.ID, i
	}
	var attempts []AttemptRow
	err = s.db.SelectContext(ctx, &attempts, `
		select a.* from unnest($1::uuid[]) b(id)
		cross join lateral (
			select id, batch_id, number, started_at, outcome, status_code, error_class, error, events, bytes,
			       dns_us, connect_us, tls_us, first_byte_us, total_us, response
			from attempts where batch_id = b.id and id >= $2 order by id desc limit 50
		) a
		order by a.id desc`, uuidArray(ids), earliest(ids[len(ids)-1]))
	if err != nil {
		return nil, fmt.Errorf("attempts of %s: %w", id.Webhook.Format(webhook), err)
	}
	for _, a := range attempts {
		b := &batches[at[a.BatchID]]
		b.Attempts = append(b.Attempts, a)
	}
	return batches, nil
}

// --- activity log ---

// ActivityRow is an entry of the activity log.
type ActivityRow struct {
	ID           id.ID     `db:"id"`
	At           time.Time `db:"at"`
	ActorKind    string    `db:"actor_kind"`
	ActorID      uuidOrNil `db:"actor_id"`
	ActorName    string    `db:"actor_name"`
	Action       string    `db:"action"`
	ResourceKind string    `db:"resource_kind"`
	ResourceID   uuidOrNil `db:"resource_id"`
	ResourceName string    `db:"resource_name"`
	Changes      []byte    `db:"changes"` // JSON: field -> {"from","to"}
}

// Activities lists an account's activity log, newest first.
func (s *Store) Activities(ctx context.Context, account id.ID, p Page) ([]ActivityRow, error) {
	rows := []ActivityRow{}
	err := s.db.SelectContext(ctx, &rows, `
		select id, at, actor_kind, actor_id, actor_name, action, resource_kind, resource_id, resource_name, changes
		from activity_log where account_id = $1 and id < $2 order by id desc limit $3`, account, p.before(), p.Limit)
	if err != nil {
		return nil, fmt.Errorf("list activity log: %w", err)
	}
	return rows, nil
}

// SetUp is what `doctor` asks the database.
type SetUp struct {
	Version           string // of the server
	PartitionsThrough time.Time
	SynchronousCommit string
}

// Inspect reads how the database is set up.
func (s *Store) Inspect(ctx context.Context) (SetUp, error) {
	var out SetUp
	err := s.db.QueryRowxContext(ctx, `select current_setting('server_version'), current_setting('synchronous_commit')`).Scan(&out.Version, &out.SynchronousCommit)
	if err != nil {
		return SetUp{}, fmt.Errorf("inspect database: %w", err)
	}
	var last sql.NullString
	err = s.db.GetContext(ctx, &last, `
		select max(substring(c.relname from '\d{8}$')) from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'callbacks'::regclass`)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return SetUp{}, fmt.Errorf("inspect partitions: %w", err)
	}
	out.PartitionsThrough, _ = time.Parse("20060102", last.String) // zero when there is none
	return out, nil
}

// query collects the arguments of a statement that is put together.
type query struct{ args []any }

func (q *query) arg(v any) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d", len(q.args))
}
