package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"aftersend/id"
	"aftersend/migrations"
	"aftersend/pglocal"
	"aftersend/store"
)

// BenchmarkInsertCallbacks compares ways to store one flush, each with its
// commit on disk, for requests of 750 bytes. The product's way sends one
// binary array per column; the others are here to show what it was chosen over.
//
//	go test ./store -run '^$' -bench InsertCallbacks -benchmem
func BenchmarkInsertCallbacks(b *testing.B) {
	ctx := context.Background()
	server, err := pglocal.Start(ctx, pglocal.Options{DataDir: b.TempDir(), Settings: pglocal.Production, Ephemeral: true})
	require.NoError(b, err)
	b.Cleanup(func() { _ = server.Stop(ctx) })
	db, err := sqlx.Connect("postgres", server.URL("postgres")+"&binary_parameters=yes")
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	require.NoError(b, migrations.Up(ctx, db.DB))

	s := store.New(db, nil)
	ways := []struct {
		name   string
		insert func(ctx context.Context, writer, first int64, rows []store.Callback) error
	}{
		{"binary arrays", s.InsertCallbacks},
		{"text arrays", textArrays(db)},
		{"blob and offsets", blobAndOffsets(db)},
		{"copy", copyIn(db)},
	}
	for _, count := range []int{1, 30, 300} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("%s/rows=%d", way.name, count), func(b *testing.B) {
				writer, err := s.NewWriter(ctx, "benchmark")
				require.NoError(b, err)
				rows := callbacks(count, 750)
				n := int64(1)
				b.ReportAllocs()
				for b.Loop() {
					for i := range rows {
						rows[i].ID = id.New()
					}
					if err := way.insert(ctx, writer, n, rows); err != nil {
						b.Fatal(err)
					}
					n += int64(count)
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// callbacks makes requests with a header of 250 bytes and a body of the rest.
func callbacks(count, size int) []store.Callback {
	account, source := id.New(), id.New()
	rows := make([]store.Callback, count)
	for i := range rows {
		rows[i] = store.Callback{
			ID: id.New(), AccountID: account, SourceID: source, ESP: "mailtrap", ReceivedAt: time.Now(),
			RemoteIP: netip.MustParseAddr("192.0.2.7"), Verified: true, Method: "POST", Path: []byte("/callbacks/mailtrap/[masked]"),
			Query: []byte{}, Headers: bytes.Repeat([]byte("h"), 250), Body: bytes.Repeat([]byte("b"), size-250),
		}
	}
	return rows
}

const insertInto = `insert into callbacks
	(writer_id, n, id, account_id, source_id, received_at, remote_ip, verified, method, path, query, headers, body) `

type inserter func(ctx context.Context, writer, first int64, rows []store.Callback) error

func column[T any](rows []store.Callback, of func(c *store.Callback) T) []T {
	out := make([]T, len(rows))
	for i := range rows {
		out[i] = of(&rows[i])
	}
	return out
}

// textArrays lets lib/pq spell arrays: bodies travel in hex.
func textArrays(db *sqlx.DB) inserter {
	return func(ctx context.Context, writer, first int64, rows []store.Callback) error {
		_, err := db.ExecContext(ctx, insertInto+`
			select $1, $2::bigint + ord - 1, a, b, c, d, e, f, g, h, i, j, k from unnest($3::uuid[], $4::uuid[], $5::uuid[],
				$6::timestamptz[], $7::inet[], $8::boolean[], $9::text[], $10::bytea[], $11::bytea[], $12::bytea[], $13::bytea[])
				with ordinality as u (a, b, c, d, e, f, g, h, i, j, k, ord)`,
			append([]any{writer, first, pq.Array(column(rows, func(c *store.Callback) string { return c.ID.String() }))},
				append(scalars(rows),
					pq.Array(column(rows, func(c *store.Callback) []byte { return c.Path })),
					pq.Array(column(rows, func(c *store.Callback) []byte { return c.Query })),
					pq.Array(column(rows, func(c *store.Callback) []byte { return c.Headers })),
					pq.Array(column(rows, func(c *store.Callback) []byte { return c.Body })))...)...)
		return err
	}
}

// scalars are the columns from account_id to method.
func scalars(rows []store.Callback) []any {
	return []any{
		pq.Array(column(rows, func(c *store.Callback) string { return c.AccountID.String() })),
		pq.Array(column(rows, func(c *store.Callback) string { return c.SourceID.String() })),
		pq.Array(column(rows, func(c *store.Callback) string { return c.ReceivedAt.Format(time.RFC3339Nano) })),
		pq.Array(column(rows, func(c *store.Callback) string { return c.RemoteIP.String() })),
		pq.Array(column(rows, func(c *store.Callback) bool { return c.Verified })),
		pq.Array(column(rows, func(c *store.Callback) string { return c.Method })),
	}
}

// blobAndOffsets sends all bytes as one parameter that the server cuts.
func blobAndOffsets(db *sqlx.DB) inserter {
	return func(ctx context.Context, writer, first int64, rows []store.Callback) error {
		var blob []byte
		var at [5][]int64
		for i := range rows {
			c := &rows[i]
			for k, part := range [][]byte{c.Path, c.Query, c.Headers, c.Body} {
				at[k] = append(at[k], int64(len(blob)+1))
				blob = append(blob, part...)
			}
			at[4] = append(at[4], int64(len(blob)+1))
		}
		args := append([]any{writer, first, pq.Array(column(rows, func(c *store.Callback) string { return c.ID.String() }))}, scalars(rows)...)
		for _, offsets := range at {
			args = append(args, pq.Array(offsets))
		}
		_, err := db.ExecContext(ctx, insertInto+`
			select $1, $2::bigint + ord - 1, a, b, c, d, e, f, g,
				substr($15::bytea, p, q-p), substr($15::bytea, q, r-q), substr($15::bytea, r, s-r), substr($15::bytea, s, t-s)
			from unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::inet[], $8::boolean[], $9::text[],
				$10::int[], $11::int[], $12::int[], $13::int[], $14::int[])
				with ordinality as u (a, b, c, d, e, f, g, p, q, r, s, t, ord)`, append(args, blob)...)
		return err
	}
}

// copyIn uses COPY in text format, as lib/pq speaks it: a transaction of
// several round trips.
func copyIn(db *sqlx.DB) inserter {
	return func(ctx context.Context, writer, first int64, rows []store.Callback) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		stmt, err := tx.PrepareContext(ctx, `copy callbacks (writer_id, n, id, account_id, source_id, received_at,
			remote_ip, verified, method, path, query, headers, body) from stdin`)
		if err != nil {
			return err
		}
		for i := range rows {
			c := &rows[i]
			_, err = stmt.ExecContext(ctx, writer, first+int64(i), c.ID.String(), c.AccountID.String(), c.SourceID.String(), c.ReceivedAt,
				c.RemoteIP.String(), c.Verified, c.Method, c.Path, c.Query, c.Headers, c.Body)
			if err != nil {
				return err
			}
		}
		_, err = stmt.ExecContext(ctx)
		return errors.Join(err, stmt.Close(), tx.Commit())
	}
}
