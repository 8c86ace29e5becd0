package store_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/id"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
)

// intakeStore is a store over a database of its own, with its key.
func intakeStore(t *testing.T) (*sqlx.DB, *store.Store, *seal.Box) {
	db := storetest.New(t)
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	return db, store.New(db, box), box
}

func TestHeadersAreStoredWithoutCredentials(t *testing.T) {
	h := http.Header{
		"Host": {"example.com"}, "Authorization": {"Basic x"}, "Proxy-Authorization": {"y"}, "Cookie": {"a=b", "c=d"},
		"X-Two": {"1", "2: 3"}, "X-Empty": {""}, "X-Bytes": {"\x00\xff"},
	}
	stored := store.EncodeHeaders(h)
	require.Equal(t, "Authorization: [masked]\r\nCookie: [masked]\r\nCookie: [masked]\r\nHost: example.com\r\nProxy-Authorization: [masked]\r\n"+
		"X-Bytes: \x00\xff\r\nX-Empty: \r\nX-Two: 1\r\nX-Two: 2: 3\r\n", string(stored))
	h["Authorization"], h["Proxy-Authorization"], h["Cookie"] = []string{store.Masked}, []string{store.Masked}, []string{store.Masked, store.Masked}
	require.Equal(t, h, store.DecodeHeaders(stored))
	require.Empty(t, store.DecodeHeaders(nil))
}

func TestInflate(t *testing.T) {
	plain := bytes.Repeat([]byte("callback "), 1000)
	compressed := func(w func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		c := w(&b)
		_, _ = c.Write(plain)
		_ = c.Close()
		return b.Bytes()
	}
	gz := compressed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	z := compressed(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
	bare := compressed(func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f })
	for name, c := range map[string]struct {
		body     []byte
		encoding string
		limit    int64
		want     []byte
		err      error
	}{
		"plain":             {plain, "", 1, plain, nil},
		"gzip":              {gz, "gzip", 9000, plain, nil},
		"gzip, shouted":     {gz, " GZIP ", 9000, plain, nil},
		"zlib":              {z, "deflate", 9000, plain, nil},
		"bare deflate":      {bare, "deflate", 9000, plain, nil},
		"too large":         {gz, "gzip", 8999, nil, store.ErrTooLarge},
		"cut short":         {gz[:40], "gzip", 9000, gz[:40], nil},
		"no gzip":           {plain, "gzip", 9000, plain, nil},
		"an unknown coding": {gz, "br", 9000, gz, nil},
	} {
		got, err := store.Inflate(c.body, c.encoding, c.limit)
		require.ErrorIs(t, err, c.err, name)
		require.Equal(t, c.want, got, name)
	}
}

func TestCallbacksAreStoredByteForByte(t *testing.T) {
	db, s, _ := intakeStore(t)
	writer, err := s.NewWriter(t.Context(), "here")
	require.NoError(t, err)
	rows := callbacks(3, 750)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	rows[0].ReceivedAt = at
	rows[1].RemoteIP = netip.MustParseAddr("2001:db8::1")
	rows[1].Body, rows[1].Query, rows[1].Headers = []byte("\x00\xff\\x"), nil, []byte("A: \x00\r\n")
	rows[2].RemoteIP, rows[2].Verified = netip.Addr{}, false
	require.NoError(t, s.InsertCallbacks(t.Context(), writer, 1, rows[:1]))
	require.NoError(t, s.InsertCallbacks(t.Context(), writer, 2, rows[1:]))

	for i, want := range rows {
		var got store.Callback
		var n int64
		var ip *string
		require.NoError(t, db.QueryRow(`select id, n, account_id, source_id, received_at, host(remote_ip), verified, method, path, query, headers, body
			from callbacks where id = $1`, want.ID).Scan(&got.ID, &n, &got.AccountID, &got.SourceID, &got.ReceivedAt, &ip,
			&got.Verified, &got.Method, &got.Path, &got.Query, &got.Headers, &got.Body))
		require.EqualValues(t, i+1, n)
		if ip != nil {
			got.RemoteIP = netip.MustParseAddr(*ip)
		}
		require.WithinDuration(t, want.ReceivedAt, got.ReceivedAt, time.Microsecond)
		got.ReceivedAt, got.ESP = want.ReceivedAt, want.ESP
		if want.Query == nil {
			want.Query = []byte{}
		}
		require.Equal(t, want, got)
	}
	require.True(t, store.IsDataError(s.InsertCallbacks(t.Context(), writer, 3, []store.Callback{{ID: id.New(), Method: "\x00"}})))

	_, err = db.Exec(`update writers set closed_at = now()`)
	require.NoError(t, err)
	require.ErrorIs(t, s.InsertCallbacks(t.Context(), writer, 3, callbacks(1, 750)), store.ErrWriterClosed)
}

func TestACallbackIsReadBackAsARequest(t *testing.T) {
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write([]byte("a=b"))
	require.NoError(t, w.Close())
	cb := store.Callback{
		Method: "POST", Path: []byte("/callbacks/x/[masked]"), Query: []byte("q=1"), Body: gz.Bytes(),
		Headers: store.EncodeHeaders(http.Header{"Content-Encoding": {"gzip"}, "Host": {"h"}}),
	}
	req, err := cb.Request()
	require.NoError(t, err)
	require.Equal(t, "a=b", string(req.Body))
	require.Equal(t, "h", req.Header.Get("Host"))
	require.Equal(t, "q=1", req.RawQuery)
}

func TestOneOfManyMakesTheGroup(t *testing.T) {
	db, s, _ := intakeStore(t)
	writer, err := s.NewWriter(t.Context(), "here")
	require.NoError(t, err)
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			ok, err := s.MakeGroup(t.Context(), store.Group{ID: id.New(), WriterID: writer, NFrom: 1, NTo: 5, IDFrom: id.New(), IDTo: id.New(), Callbacks: 5})
			require.NoError(t, err)
			if ok {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, made.Load())

	g := store.Group{ID: id.New(), WriterID: writer, NFrom: 6, NTo: 6, IDFrom: id.New(), IDTo: id.New(), Summary: "1 callback", Callbacks: 1}
	for range 2 { // the answer to the first was lost
		ok, err := s.MakeGroup(t.Context(), g)
		require.NoError(t, err)
		require.True(t, ok)
	}
	ok, err := s.MakeGroup(t.Context(), store.Group{ID: id.New(), WriterID: writer, NFrom: 8, NTo: 9})
	require.NoError(t, err)
	require.False(t, ok, "a gap")
	n, last, err := s.GroupedThrough(t.Context(), writer)
	require.NoError(t, err)
	require.EqualValues(t, 6, n)
	require.Equal(t, g.IDTo, last)
	var groups int
	require.NoError(t, db.Get(&groups, `select count(*) from groups`))
	require.Equal(t, 2, groups)

	open, err := s.StillOpen(t.Context(), []id.ID{g.ID, id.New()})
	require.NoError(t, err)
	require.Equal(t, []id.ID{g.ID}, open)
	count, err := s.OpenGroups(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, count)
}

func TestUngroupedCallbacksAreFoundInRanges(t *testing.T) {
	db, s, _ := intakeStore(t)
	writer, err := s.NewWriter(t.Context(), "dead")
	require.NoError(t, err)
	rows := callbacks(10, 1000)
	rows[6].Body = make([]byte, 50_000) // weighs more than a range may
	require.NoError(t, s.InsertCallbacks(t.Context(), writer, 1, rows))
	ok, err := s.MakeGroup(t.Context(), store.Group{ID: id.New(), WriterID: writer, NFrom: 1, NTo: 2, IDFrom: rows[0].ID, IDTo: rows[1].ID})
	require.NoError(t, err)
	require.True(t, ok)

	ranges, err := s.Ungrouped(t.Context(), writer, 3, 10_000)
	require.NoError(t, err)
	var spans [][2]int64
	for _, r := range ranges {
		spans = append(spans, [2]int64{r.NFrom, r.NTo})
		require.Equal(t, rows[r.NFrom-1].ID, r.IDFrom)
		require.Equal(t, rows[r.NTo-1].ID, r.IDTo)
	}
	require.Equal(t, [][2]int64{{3, 5}, {6, 6}, {7, 7}, {8, 10}}, spans)

	silent, err := s.SilentWriters(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Empty(t, silent, "it was seen just now")
	require.NoError(t, s.RetireWriter(t.Context(), writer))
	silent, err = s.SilentWriters(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []int64{writer}, silent)

	closed, err := s.CloseWriters(t.Context(), time.Hour)
	require.NoError(t, err)
	require.Zero(t, closed, "its callbacks are in no group")
	_, err = db.Exec(`update writers set grouped_through = 10, grouped_id = $1`, rows[9].ID)
	require.NoError(t, err)
	closed, err = s.CloseWriters(t.Context(), time.Hour)
	require.NoError(t, err)
	require.Equal(t, 1, closed)
	_, err = s.TouchWriter(t.Context(), writer, time.Minute)
	require.ErrorIs(t, err, store.ErrWriterClosed)
}

func TestLiveProcessesAreCounted(t *testing.T) {
	_, s, _ := intakeStore(t)
	var writer int64
	for _, host := range []string{"a", "a", "b", "c"} {
		var err error
		writer, err = s.NewWriter(t.Context(), host)
		require.NoError(t, err)
	}
	require.NoError(t, s.RetireWriter(t.Context(), 3))
	n, err := s.TouchWriter(t.Context(), writer, time.Minute)
	require.NoError(t, err)
	require.Equal(t, 2, n, "a and c")
}

func TestOnlyOneSweeperGetsAStaleGroup(t *testing.T) {
	_, s, _ := intakeStore(t)
	writer, err := s.NewWriter(t.Context(), "here")
	require.NoError(t, err)
	g := store.Group{ID: id.New(), WriterID: writer, NFrom: 1, NTo: 1, IDFrom: id.New(), IDTo: id.New(), Summary: "1 callback", Callbacks: 1}
	_, err = s.MakeGroup(t.Context(), g)
	require.NoError(t, err)
	stale := store.Staleness{NeverStarted: 0, Started: time.Hour, Patient: time.Hour}
	claimed, err := s.ClaimGroups(t.Context(), stale, 10)
	require.NoError(t, err)
	require.Len(t, claimed, 1)
	require.Equal(t, "1 callback", claimed[0].Summary)
	again, err := s.ClaimGroups(t.Context(), stale, 10)
	require.NoError(t, err)
	require.Empty(t, again)
	require.NoError(t, s.ReleaseGroups(t.Context(), []id.ID{g.ID}))
	again, err = s.ClaimGroups(t.Context(), stale, 10)
	require.NoError(t, err)
	require.Len(t, again, 1)
}

func TestSourcesAreFoundByToken(t *testing.T) {
	db, s, box := intakeStore(t)
	account, u := id.New(), id.New()
	_, err := db.Exec(`insert into accounts (id, name) values ($1, 'a')`, account)
	require.NoError(t, err)
	_, err = db.Exec(`insert into sources (id, account_id, esp, name, token_hash, token_sealed, verification) values ($1, $2, 'mandrill', 'n', 'hash', '', $3)`,
		u, account, box.Seal([]byte(`{"key":"v"}`), "sources", "verification", u))
	require.NoError(t, err)
	want := store.Source{ID: u, AccountID: account, ESP: "mandrill", Name: "n", Secrets: esp.Secrets{"key": "v"}}
	got, err := s.SourceByToken(t.Context(), []byte("hash"))
	require.NoError(t, err)
	require.Equal(t, want, got)
	_, err = s.SourceByToken(t.Context(), []byte("other"))
	require.ErrorIs(t, err, store.ErrNotFound)

	_, err = db.Exec(`update sources set deleted_at = now()`)
	require.NoError(t, err)
	_, err = s.SourceByToken(t.Context(), []byte("hash"))
	require.ErrorIs(t, err, store.ErrNotFound)
	got, err = s.SourceByID(t.Context(), u)
	require.NoError(t, err)
	require.Equal(t, want, got, "what it accepted is processed all the same")

	_, err = db.Exec(`update sources set verification = $1`, box.Seal([]byte(`["s3cret"]`), "sources", "verification", u))
	require.NoError(t, err)
	_, err = s.SourceByID(t.Context(), u)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "s3cret")
}

func TestRejectedRequestsAreBounded(t *testing.T) {
	db, s, _ := intakeStore(t)
	sources := []id.ID{id.Nil, id.New()}
	for _, source := range sources {
		for i := range 130 {
			r := store.Rejected{ID: id.New(), SourceID: source, ReceivedAt: time.Now(), RemoteIP: netip.MustParseAddr("fe80::1%eth0"),
				Reason: "forged", Status: 401, Method: "PO\x00ST\xff", Path: []byte("\x00")}
			if i == 0 {
				r.Status, r.Body = 200, []byte("the only copy")
			}
			require.NoError(t, s.InsertRejected(t.Context(), r))
		}
	}
	var counts []int
	require.NoError(t, db.Select(&counts, `select count(*) from rejected_requests group by source_id`))
	require.Equal(t, []int{101, 101}, counts)
	var kept int
	require.NoError(t, db.Get(&kept, `select count(*) from rejected_requests where body is not null`))
	require.Equal(t, 2, kept)
	var method string
	require.NoError(t, db.Get(&method, `select method from rejected_requests limit 1`))
	require.True(t, strings.HasPrefix(method, "PO\uFFFDST"))
}
