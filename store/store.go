// Package store holds all SQL. Exported methods own their transaction and do
// one whole step; helpers take a transaction. Statements work on whole groups
// and lock rows in key order. What the tables mean is said in migrations.
//
// Files follow the product: intake.go (callbacks, writers, groups),
// process.go (events, messages, outbox), delivery.go (batches, attempts,
// notices), manage.go (webhooks, sources, tokens), read.go (lists).
package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"aftersend/seal"
	"aftersend/store/prepared"
)

// Store is the database. Safe for concurrent use.
type Store struct {
	db  *sqlx.DB
	box *seal.Box
}

// ErrNotFound means that no such row exists, or not in this account.
var ErrNotFound = errors.New("not found")

// ErrConflict means that somebody else changed the row first.
var ErrConflict = errors.New("changed by somebody else meanwhile")

// Options bounds the connection pool.
type Options struct {
	MaxConns int // 0 = 20
}

// Open connects to a Postgres URL and waits, up to ctx's deadline, until it answers.
func Open(ctx context.Context, databaseURL string, box *seal.Box, o Options) (*Store, error) {
	dsn, err := withDriverSettings(databaseURL)
	if err != nil {
		return nil, err
	}
	pool, err := prepared.Open(dsn)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sqlx.NewDb(pool, "postgres")
	if o.MaxConns == 0 {
		o.MaxConns = 20
	}
	db.SetMaxOpenConns(o.MaxConns)
	db.SetMaxIdleConns(o.MaxConns)
	db.SetConnMaxLifetime(time.Hour)
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return New(db, box), nil
		}
		select {
		case <-ctx.Done():
			_ = db.Close()
			return nil, fmt.Errorf("reach database: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// withDriverSettings asks lib/pq to send []byte in binary and each statement
// in one round trip instead of two.
func withDriverSettings(databaseURL string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("database URL: want postgres://user:password@host/name?sslmode=…")
	}
	q := u.Query()
	q.Set("binary_parameters", "yes")
	if q.Get("application_name") == "" {
		q.Set("application_name", "aftersend")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// New wraps an open database; tests use it.
func New(db *sqlx.DB, box *seal.Box) *Store { return &Store{db: db, box: box} }

// DB gives migrations and health checks the pool.
func (s *Store) DB() *sql.DB { return s.db.DB }

// Close closes the pool.
func (s *Store) Close() error { return s.db.Close() }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }

// MakePartitions makes the day partitions from yesterday to 14 days ahead. It
// is called at boot and hourly by every process.
func (s *Store) MakePartitions(ctx context.Context, now time.Time) error {
	day := now.UTC().Truncate(24 * time.Hour)
	var made int
	err := s.db.GetContext(ctx, &made, `select make_partitions($1::date, $2::date)`,
		day.AddDate(0, 0, -1).Format(time.DateOnly), day.AddDate(0, 0, 14).Format(time.DateOnly))
	if err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// maxTxTries bounds how often a transaction is run again after a deadlock or
// serialization failure.
const maxTxTries = 5

// inTx runs f in a transaction and commits it, again from the start after a
// deadlock (40P01) or serialization failure (40001).
func (s *Store) inTx(ctx context.Context, what string, f func(tx *sqlx.Tx) error) error {
	for try := 1; ; try++ {
		err := s.once(ctx, f)
		if err == nil {
			return nil
		}
		if code := Code(err); try < maxTxTries && (code == "40P01" || code == "40001") {
			continue
		}
		return fmt.Errorf("%s: %w", what, err)
	}
}

func (s *Store) once(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // a no-op after Commit
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Code returns the SQLSTATE of a Postgres error, or "".
func Code(err error) string {
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		return string(pe.Code)
	}
	return ""
}

// IsDataError reports whether Postgres refused the data itself, so that trying
// again cannot help and one row among many may be guilty: class 22 (data
// exception), 23 (integrity constraint), 54 (limit exceeded, for example an
// index row too long), and invalid byte sequences.
func IsDataError(err error) bool {
	code := Code(err)
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || strings.HasPrefix(code, "54")
}

// Class names an error without repeating its text, for logs, histories and
// metrics: "sql_22021", "timeout", "connection", "canceled", "not_found", "error".
func Class(err error) string {
	switch code := Code(err); {
	case err == nil:
		return ""
	case code != "":
		return "sql_" + code
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, ErrNotFound), errors.Is(err, sql.ErrNoRows):
		return "not_found"
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone):
		return "connection"
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return "connection"
	}
	return "error"
}
