package store

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	"aftersend/esp"
	"aftersend/id"
)

// Callback is one received request, kept byte for byte.
type Callback struct {
	ID         id.ID
	AccountID  id.ID
	SourceID   id.ID
	ESP        string // not stored: the source knows
	ReceivedAt time.Time
	RemoteIP   netip.Addr
	Verified   bool // false: verification needs the network, ParseCallbacks does it
	Method     string
	Path       []byte // token masked
	Query      []byte
	Headers    []byte // see EncodeHeaders
	Body       []byte // as on the wire
}

// Size is what a callback weighs: the bytes that came from outside.
func (c *Callback) Size() int64 {
	return int64(len(c.Path) + len(c.Query) + len(c.Headers) + len(c.Body))
}

// Request returns the callback as adapters see it: headers parsed (secrets
// masked), body inflated, without the public URL. The body is shared with c
// unless it came compressed.
func (c *Callback) Request() (esp.Request, error) {
	header := DecodeHeaders(c.Headers)
	body, err := Inflate(c.Body, header.Get("Content-Encoding"), maxInflated)
	if err != nil {
		return esp.Request{}, fmt.Errorf("read callback %s: %w", id.Callback.Format(c.ID), err)
	}
	return esp.Request{
		Method:     c.Method,
		Path:       string(c.Path),
		RawQuery:   string(c.Query),
		Header:     header,
		Body:       body,
		RemoteIP:   c.RemoteIP,
		ReceivedAt: c.ReceivedAt,
	}, nil
}

// Masked stands in stored requests where a credential was.
const Masked = "[masked]"

// maskedHeaders are those whose value is a credential whatever the ESP.
var maskedHeaders = map[string]bool{"Authorization": true, "Proxy-Authorization": true, "Cookie": true}

// EncodeHeaders spells headers as they are stored: "Name: value\r\n" lines in
// the order of their names, with credentials masked.
func EncodeHeaders(h http.Header) []byte { return AppendHeaders(nil, h) }

// AppendHeaders is EncodeHeaders into a buffer.
func AppendHeaders(dst []byte, h http.Header) []byte {
	var few [32]string
	names := few[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			if maskedHeaders[name] {
				value = Masked
			}
			dst = append(append(dst, name...), ": "...)
			dst = append(append(dst, value...), "\r\n"...)
		}
	}
	return dst
}

// DecodeHeaders reads what EncodeHeaders wrote.
func DecodeHeaders(stored []byte) http.Header {
	h := http.Header{}
	for line := range strings.SplitSeq(string(stored), "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h[name] = append(h[name], value)
		}
	}
	return h
}

// ErrTooLarge is returned by Inflate.
var ErrTooLarge = errors.New("body is too large when inflated")

// maxInflated guards the reading back of what intake let in under its own,
// configured limit.
const maxInflated = 256 << 20

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

// Inflate returns a body as it was before compression. A body that is not
// compressed, in a way unknown here, or damaged comes back as it is: whoever
// reads it will say what is wrong. More than limit bytes are ErrTooLarge.
func Inflate(body []byte, contentEncoding string, limit int64) ([]byte, error) {
	var r io.Reader
	switch strings.ToLower(strings.TrimSpace(contentEncoding)) {
	case "gzip", "x-gzip":
		gz := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(gz)
		if gz.Reset(bytes.NewReader(body)) != nil {
			return body, nil
		}
		r = gz
	case "deflate":
		// QUIRK: RFC 9110 8.4.1.2 means zlib by this name, many send bare deflate.
		z, err := zlib.NewReader(bytes.NewReader(body))
		if err != nil {
			z = flate.NewReader(bytes.NewReader(body))
		}
		r = z
	default:
		return body, nil
	}
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(plain)) > limit {
		return nil, ErrTooLarge
	}
	if err != nil {
		return body, nil
	}
	return plain, nil
}

// ErrWriterClosed means that a writer was declared dead: its rows would never
// be looked at, so none is taken.
var ErrWriterClosed = errors.New("writer is closed")

// NewWriter makes the row of one incarnation of a flusher. host names the
// process for people and tells processes apart.
func (s *Store) NewWriter(ctx context.Context, host string) (int64, error) {
	var writer int64
	err := s.db.GetContext(ctx, &writer, `insert into writers (host) values ($1) returning id`, host)
	if err != nil {
		return 0, fmt.Errorf("make writer: %w", err)
	}
	return writer, nil
}

// TouchWriter says that a writer's process lives, and returns how many
// processes have live writers. It returns ErrWriterClosed when somebody has
// declared this one dead.
func (s *Store) TouchWriter(ctx context.Context, writer int64, silent time.Duration) (processes int, err error) {
	var row struct {
		Touched   int `db:"touched"`
		Processes int `db:"processes"`
	}
	err = s.db.GetContext(ctx, &row, `
		with touched as (
			update writers set seen_at = now() where id = $1 and closed_at is null returning 1
		)
		select (select count(*) from touched) as touched, count(distinct host) as processes
		from   writers
		where  closed_at is null and seen_at > now() - $2 * interval '1 second'`,
		writer, silent.Seconds())
	if err != nil {
		return 0, fmt.Errorf("touch writer %d: %w", writer, err)
	}
	if row.Touched == 0 {
		return row.Processes, fmt.Errorf("touch writer %d: %w", writer, ErrWriterClosed)
	}
	return row.Processes, nil
}

// RetireWriter says that nothing comes from a writer any more, so that sweepers
// take its rows up at once instead of waiting for its silence.
func (s *Store) RetireWriter(ctx context.Context, writer int64) error {
	_, err := s.db.ExecContext(ctx, `update writers set seen_at = now() - interval '1 day' where id = $1`, writer)
	if err != nil {
		return fmt.Errorf("retire writer %d: %w", writer, err)
	}
	return nil
}

// CloseWriters closes writers that were silent for so long that nothing can
// come from them, and whose rows are all in groups. An insert under a closed
// writer is refused, so that a process that wakes up after hours loses nothing.
func (s *Store) CloseWriters(ctx context.Context, silent time.Duration) (closed int, err error) {
	r, err := s.db.ExecContext(ctx, `
		update writers w
		set    closed_at = now()
		where  closed_at is null
		and    seen_at < now() - $1 * interval '1 second'
		and    not exists (
			select from callbacks c where c.writer_id = w.id and c.n > w.grouped_through and c.id > w.grouped_id)`,
		silent.Seconds())
	if err != nil {
		return 0, fmt.Errorf("close silent writers: %w", err)
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// insertBuffers are the arrays of one InsertCallbacks, one per column.
type insertBuffers [11][]byte

var insertPool = sync.Pool{New: func() any { return new(insertBuffers) }}

// maxPooled bounds what is kept of a large flush.
const maxPooled = 1 << 20

// InsertCallbacks stores rows as firstN, firstN+1, … of the writer, in one
// statement that is one commit: when it returns nil they are on disk. Their
// ids ascend. The server copies each body once, from the message into the
// tuple; see BenchmarkInsertCallbacks for what this was measured against.
func (s *Store) InsertCallbacks(ctx context.Context, writer, firstN int64, rows []Callback) error {
	buf := insertPool.Get().(*insertBuffers)
	defer insertPool.Put(buf)
	args := [13]any{writer, firstN}
	for i, column := range callbackColumns {
		buf[i] = appendArray(buf[i][:0], column.oid, rows, column.element)
		args[i+2] = buf[i]
		if cap(buf[i]) > maxPooled {
			buf[i] = nil
		}
	}
	r, err := s.db.ExecContext(ctx, insertCallbacks, args[:]...)
	if err != nil {
		return fmt.Errorf("insert %d callbacks of writer %d: %w", len(rows), writer, err)
	}
	if n, err := r.RowsAffected(); err != nil || n != int64(len(rows)) {
		return fmt.Errorf("insert %d callbacks of writer %d: %w", len(rows), writer, ErrWriterClosed)
	}
	return nil
}

const insertCallbacks = `
	insert into callbacks
		(writer_id, n, id, account_id, source_id, received_at, remote_ip, verified, method, path, query, headers, body)
	select
		w.id,
		generate_series($2::bigint, $2::bigint + cardinality($3::uuid[]) - 1),
		unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::uuid[]), unnest($6::timestamptz[]), unnest($7::inet[]),
		unnest($8::boolean[]), unnest($9::text[]), unnest($10::bytea[]), unnest($11::bytea[]), unnest($12::bytea[]),
		unnest($13::bytea[])
	from writers w
	where w.id = $1 and w.closed_at is null`

// callbackColumns are $3 to $13 of insertCallbacks.
var callbackColumns = [11]struct {
	oid     uint32
	element func(dst []byte, c *Callback) []byte
}{
	{oidUUID, func(dst []byte, c *Callback) []byte { return append(dst, c.ID[:]...) }},
	{oidUUID, func(dst []byte, c *Callback) []byte { return append(dst, c.AccountID[:]...) }},
	{oidUUID, func(dst []byte, c *Callback) []byte { return append(dst, c.SourceID[:]...) }},
	{oidTimestamptz, func(dst []byte, c *Callback) []byte { return appendTimestamptz(dst, c.ReceivedAt) }},
	{oidInet, func(dst []byte, c *Callback) []byte { return appendInet(dst, c.RemoteIP) }},
	{oidBool, func(dst []byte, c *Callback) []byte { return appendBool(dst, c.Verified) }},
	{oidText, func(dst []byte, c *Callback) []byte { return append(dst, c.Method...) }},
	{oidBytea, func(dst []byte, c *Callback) []byte { return append(dst, c.Path...) }},
	{oidBytea, func(dst []byte, c *Callback) []byte { return append(dst, c.Query...) }},
	{oidBytea, func(dst []byte, c *Callback) []byte { return append(dst, c.Headers...) }},
	{oidBytea, func(dst []byte, c *Callback) []byte { return append(dst, c.Body...) }},
}

// Range is committed callbacks NFrom..NTo of one writer that are in no group yet.
type Range struct {
	WriterID   int64
	NFrom, NTo int64
	IDFrom     id.ID // of NFrom
	IDTo       id.ID // of NTo
	Bytes      int64
	Counts     []ESPCount // in no particular order
}

// ESPCount says how many callbacks of a range are of one ESP.
type ESPCount struct {
	ESP string
	N   int
}

// Callbacks is how many callbacks the range holds.
func (r *Range) Callbacks() int { return int(r.NTo - r.NFrom + 1) }

// Add extends the range by what follows it.
func (r *Range) Add(next Range) {
	r.NTo, r.IDTo, r.Bytes = next.NTo, next.IDTo, r.Bytes+next.Bytes
	for _, c := range next.Counts {
		r.Count(c.ESP, c.N)
	}
}

// Count adds n callbacks of an ESP to the counts.
func (r *Range) Count(espName string, n int) {
	for i := range r.Counts {
		if r.Counts[i].ESP == espName {
			r.Counts[i].N += n
			return
		}
	}
	r.Counts = append(r.Counts, ESPCount{espName, n})
}

// Kinds of groups: what their events are made of.
const (
	KindCallbacks = "callbacks"
	KindExpired   = "expired" // messages IDFrom..IDTo of a cohort that never got their final word
)

// Group is what one ProcessCallbacks workflow processes.
type Group struct {
	ID         id.ID
	Kind       string // KindCallbacks, KindExpired, reprocess, activity
	WriterID   int64
	NFrom, NTo int64
	IDFrom     id.ID
	IDTo       id.ID
	Summary    string   // "12 callbacks · mandrill 9, brevo 3"
	Step       string   // parse, correlate, route, done
	Callbacks  int      // how many
	Patient    bool     // fell back to patient retries
	ESPs       []string // not stored; of the callbacks
	CreatedAt  time.Time
}

// MakeGroup makes a range of callbacks a group: it inserts the row and moves
// the writer's grouped_through from just before the range to its end. made is
// false when somebody else moved it first; then nothing was written. Repeating
// it with the same id after an unclear failure is safe and says true.
func (s *Store) MakeGroup(ctx context.Context, g Group) (made bool, err error) {
	r, err := s.db.ExecContext(ctx, `
		with moved as (
			update writers
			set    grouped_through = $4, grouped_id = $6
			where  id = $2 and grouped_through = $3::bigint - 1
			returning id
		)
		insert into groups (id, kind, writer_id, n_from, n_to, id_from, id_to, summary, callbacks)
		select $1::uuid, 'callbacks', id, $3::bigint, $4::bigint, $5::uuid, $6::uuid, $7, $8::integer from moved`,
		g.ID, g.WriterID, g.NFrom, g.NTo, g.IDFrom, g.IDTo, g.Summary, g.Callbacks)
	if err != nil {
		return false, fmt.Errorf("make group %s: %w", id.Group.Format(g.ID), err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		return n == 1, err
	}
	err = s.db.GetContext(ctx, &made, `select exists (select from groups where id = $1)`, g.ID)
	if err != nil {
		return false, fmt.Errorf("look for group %s: %w", id.Group.Format(g.ID), err)
	}
	return made, nil
}

// GroupedThrough returns how far a writer's callbacks are in groups: the number
// and id of the last one, 0 and nil when none is.
func (s *Store) GroupedThrough(ctx context.Context, writer int64) (n int64, last id.ID, err error) {
	err = s.db.QueryRowContext(ctx, `select grouped_through, grouped_id from writers where id = $1`, writer).Scan(&n, &last)
	if err != nil {
		return 0, id.Nil, fmt.Errorf("read writer %d: %w", writer, err)
	}
	return n, last, nil
}

// SilentWriters returns open writers that were not seen for a while and have
// callbacks in no group, oldest first.
func (s *Store) SilentWriters(ctx context.Context, silent time.Duration) ([]int64, error) {
	var writers []int64
	err := s.db.SelectContext(ctx, &writers, `
		select w.id
		from   writers w
		where  w.closed_at is null
		and    w.seen_at < now() - $1 * interval '1 second'
		and    exists (select from callbacks c where c.writer_id = w.id and c.n > w.grouped_through and c.id > w.grouped_id)
		order  by w.id
		limit  100`, silent.Seconds())
	if err != nil {
		return nil, fmt.Errorf("find silent writers: %w", err)
	}
	return writers, nil
}

// rangesAtOnce is how many full ranges Ungrouped returns at most.
const rangesAtOnce = 10

// Ungrouped returns the callbacks of a writer that are in no group, as
// contiguous ranges of at most so many callbacks and, but for a single one,
// bytes. It returns the oldest ten ranges or so.
func (s *Store) Ungrouped(ctx context.Context, writer int64, maxCallbacks int, maxBytes int64) ([]Range, error) {
	rows, err := s.db.QueryContext(ctx, `
		select c.n, c.id, length(c.path) + length(c.query) + length(c.headers) + length(c.body), coalesce(s.esp, '')
		from   writers w
		join   callbacks c on c.writer_id = w.id and c.n > w.grouped_through and c.id > w.grouped_id
		left   join sources s on s.id = c.source_id
		where  w.id = $1
		order  by c.n
		limit  $2`, writer, rangesAtOnce*maxCallbacks)
	if err != nil {
		return nil, fmt.Errorf("read ungrouped callbacks of writer %d: %w", writer, err)
	}
	defer rows.Close()
	var ranges []Range
	for rows.Next() {
		var n, size int64
		var cb id.ID
		var espName string
		if err := rows.Scan(&n, &cb, &size, &espName); err != nil {
			return nil, fmt.Errorf("read ungrouped callbacks of writer %d: %w", writer, err)
		}
		one := Range{WriterID: writer, NFrom: n, NTo: n, IDFrom: cb, IDTo: cb, Bytes: size}
		if espName != "" {
			one.Counts = []ESPCount{{espName, 1}}
		}
		if last := len(ranges) - 1; last >= 0 && ranges[last].Fits(one, maxCallbacks, maxBytes) {
			ranges[last].Add(one)
			continue
		}
		ranges = append(ranges, one)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read ungrouped callbacks of writer %d: %w", writer, err)
	}
	return ranges, nil
}

// Fits says whether next follows r directly and both together keep the limits.
func (r *Range) Fits(next Range, maxCallbacks int, maxBytes int64) bool {
	return r.WriterID == next.WriterID && r.NTo+1 == next.NFrom &&
		r.Callbacks()+next.Callbacks() <= maxCallbacks && r.Bytes+next.Bytes <= maxBytes
}

// StillOpen returns which of these groups are being worked on: neither done
// nor fallen back to patient retries.
func (s *Store) StillOpen(ctx context.Context, groups []id.ID) ([]id.ID, error) {
	var open []id.ID
	err := s.db.SelectContext(ctx, &open,
		`select id from groups where id = any($1::uuid[]) and step <> 'done' and not patient`, uuidArray(groups))
	if err != nil {
		return nil, fmt.Errorf("look at %d groups: %w", len(groups), err)
	}
	return open, nil
}

func uuidArray(ids []id.ID) []byte {
	return appendArray(nil, oidUUID, ids, func(dst []byte, u *id.ID) []byte { return append(dst, u[:]...) })
}

// OpenGroups counts the groups of all processes that are being worked on.
func (s *Store) OpenGroups(ctx context.Context) (int, error) {
	var n int
	err := s.db.GetContext(ctx, &n, `select count(*) from groups where step <> 'done' and not patient`)
	if err != nil {
		return 0, fmt.Errorf("count open groups: %w", err)
	}
	return n, nil
}

// Staleness says after how long without news an open group's workflow is
// started again, which does no harm when it still runs.
type Staleness struct {
	NeverStarted time.Duration // since the group was made
	Started      time.Duration // since its workflow was last started
	Patient      time.Duration // the same, in patient retries
}

// ClaimGroups returns stale groups, oldest first, and marks them as started
// now, so that of several sweepers only one starts each. Groups whose step is
// at work (the row is locked) are left alone.
func (s *Store) ClaimGroups(ctx context.Context, stale Staleness, limit int) ([]Group, error) {
	rows, err := s.db.QueryContext(ctx, `
		with claimed as (
			update groups set started_at = now()
			where id in (
				select id from groups
				where  step <> 'done'
				and   (started_at is null and created_at < now() - $1 * interval '1 second'
				    or started_at < now() - case when patient then $3::float8 else $2::float8 end * interval '1 second')
				order  by created_at
				limit  $4
				for update skip locked)
			returning *
		)
		select g.id, g.kind, g.summary, g.step, g.callbacks, g.patient, g.created_at, array(
			select distinct s.esp
			from   callbacks c join sources s on s.id = c.source_id
			where  c.writer_id = g.writer_id and c.n between g.n_from and g.n_to and c.id between g.id_from and g.id_to
			order  by s.esp)
		from claimed g
		order by g.created_at`,
		stale.NeverStarted.Seconds(), stale.Started.Seconds(), stale.Patient.Seconds(), limit)
	if err != nil {
		return nil, fmt.Errorf("claim stale groups: %w", err)
	}
	defer rows.Close()
	var groups []Group
	for rows.Next() {
		var g Group
		err := rows.Scan(&g.ID, &g.Kind, &g.Summary, &g.Step, &g.Callbacks, &g.Patient, &g.CreatedAt, pq.Array(&g.ESPs))
		if err != nil {
			return nil, fmt.Errorf("claim stale groups: %w", err)
		}
		groups = append(groups, g)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("claim stale groups: %w", err)
	}
	return groups, nil
}

// ReleaseGroups takes back the claim on groups whose workflow could not be started.
func (s *Store) ReleaseGroups(ctx context.Context, groups []id.ID) error {
	_, err := s.db.ExecContext(ctx,
		`update groups set started_at = null where id = any($1::uuid[]) and step <> 'done'`, uuidArray(groups))
	if err != nil {
		return fmt.Errorf("release %d groups: %w", len(groups), err)
	}
	return nil
}

// QuietWebhooks returns active webhooks to which something is due and nothing
// was delivered for a while, while no retry is planned: their workflow may
// have been lost, or the signal that wakes it.
func (s *Store) QuietWebhooks(ctx context.Context, quiet time.Duration, limit int) ([]id.ID, error) {
	var webhooks []id.ID
	err := s.db.SelectContext(ctx, &webhooks, `
		select p.webhook_id
		from   webhook_progress p
		join   webhooks w on w.id = p.webhook_id
		where  w.status = 'active' and w.deleted_at is null
		and    p.matched > p.delivered + p.skipped + p.set_aside
		and    coalesce(p.last_delivered_at, w.created_at) < now() - $1 * interval '1 second'
		and    coalesce(p.next_at, w.created_at) < now() - $1 * interval '1 second'
		order  by coalesce(p.last_delivered_at, w.created_at)
		limit  $2`, quiet.Seconds(), limit)
	if err != nil {
		return nil, fmt.Errorf("find quiet webhooks: %w", err)
	}
	return webhooks, nil
}

// ClaimNotices returns unsent notices, oldest first, whose workflow was not
// started within never, or was last started longer ago than again, and marks
// them as started now.
func (s *Store) ClaimNotices(ctx context.Context, never, again time.Duration, limit int) ([]id.ID, error) {
	var notices []id.ID
	err := s.db.SelectContext(ctx, &notices, `
		update notices set started_at = now()
		where id in (
			select id from notices
			where  sent_at is null
			and   (started_at is null and created_at < now() - $1 * interval '1 second'
			    or started_at < now() - $2 * interval '1 second')
			order  by created_at
			limit  $3
			for update skip locked)
		returning id`, never.Seconds(), again.Seconds(), limit)
	if err != nil {
		return nil, fmt.Errorf("claim unsent notices: %w", err)
	}
	return notices, nil
}

// ReleaseNotices takes back the claim on notices whose workflow could not be started.
func (s *Store) ReleaseNotices(ctx context.Context, notices []id.ID) error {
	_, err := s.db.ExecContext(ctx,
		`update notices set started_at = null where id = any($1::uuid[]) and sent_at is null`, uuidArray(notices))
	if err != nil {
		return fmt.Errorf("release %d notices: %w", len(notices), err)
	}
	return nil
}

// Source is one ESP account that posts to us.
type Source struct {
	ID        id.ID
	AccountID id.ID
	ESP       string
	Name      string
	Loopback  bool        // only good for a loopback peer
	Secrets   esp.Secrets // what the operator entered for verification, opened
}

// SourceByToken finds a source by the hash of its ESP and token; ErrNotFound
// when there is none or it was deleted.
func (s *Store) SourceByToken(ctx context.Context, tokenHash []byte) (Source, error) {
	return s.source(ctx, `token_hash = $1 and deleted_at is null`, tokenHash)
}

// SourceByID finds a source by its id, also when it was deleted: callbacks it
// accepted are processed all the same.
func (s *Store) SourceByID(ctx context.Context, source id.ID) (Source, error) {
	return s.source(ctx, `id = $1`, source)
}

func (s *Store) source(ctx context.Context, where string, arg any) (Source, error) {
	var src Source
	var sealed []byte
	err := s.db.QueryRowContext(ctx,
		`select id, account_id, esp, name, loopback, verification from sources where `+where, arg).
		Scan(&src.ID, &src.AccountID, &src.ESP, &src.Name, &src.Loopback, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return Source{}, fmt.Errorf("find source: %w", ErrNotFound)
	}
	if err != nil {
		return Source{}, fmt.Errorf("find source: %w", err)
	}
	if sealed == nil {
		return src, nil
	}
	plain, err := s.box.Open(sealed, "sources", "verification", src.ID)
	if err != nil {
		return Source{}, fmt.Errorf("open verification of %s: %w", id.Source.Format(src.ID), err)
	}
	if err := json.Unmarshal(plain, &src.Secrets); err != nil {
		// Its message would quote what it could not read.
		return Source{}, fmt.Errorf("open verification of %s: not a JSON object of strings", id.Source.Format(src.ID))
	}
	return src, nil
}

// Rejected is a request refused at the door.
type Rejected struct {
	ID         id.ID
	AccountID  id.ID // nil when the source is unknown
	SourceID   id.ID // nil when unknown
	ESP        string
	ReceivedAt time.Time
	RemoteIP   netip.Addr
	Reason     string // for a person; never holds what came from outside
	Status     int    // answered
	Method     string
	Path       []byte // token masked
	Query      []byte
	Headers    []byte // see EncodeHeaders
	Body       []byte // nil when not kept
}

// rejectedKept is how many refused requests are kept per source, and of
// unknown sources together.
const rejectedKept = 100

// InsertRejected keeps a refused request, and of its source the newest hundred.
// A request that was answered 200 (the callback's row was refused by Postgres,
// this is its only copy) is never thrown away for newer ones.
func (s *Store) InsertRejected(ctx context.Context, r Rejected) error {
	same := `source_id = $3`
	if r.SourceID == id.Nil {
		same = `source_id is null`
	}
	ip := sql.NullString{String: r.RemoteIP.Unmap().WithZone("").String(), Valid: r.RemoteIP.IsValid()}
	_, err := s.db.ExecContext(ctx, `
		with kept as (
			insert into rejected_requests
				(id, account_id, source_id, esp, received_at, remote_ip, reason, status_code, method, path, query, headers, body)
			values ($1, $2, $3, $4, $5, $6::inet, $7, $8, $9, $10, $11, $12, $13)
		)
		delete from rejected_requests
		where `+same+` and status_code <> 200 and id < (
			select id from rejected_requests where `+same+` and status_code <> 200 order by id desc offset $14 limit 1)`,
		r.ID, nullID(r.AccountID), nullID(r.SourceID), r.ESP, r.ReceivedAt, ip, r.Reason, r.Status, cleanText(r.Method),
		notNil(r.Path), notNil(r.Query), notNil(r.Headers), r.Body, rejectedKept-2)
	if err != nil {
		return fmt.Errorf("keep rejected request: %w", err)
	}
	return nil
}

// cleanText makes text of anything: Postgres refuses NUL and invalid UTF-8 there.
func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func nullID(u id.ID) any {
	if u == id.Nil {
		return nil
	}
	return u
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
