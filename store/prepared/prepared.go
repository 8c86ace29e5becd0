// Package prepared opens Postgres connections that remember the statements they have run. The product runs the same few dozen
// statements for every flush, group and batch; parsing and planning one costs the server two to five times what running it on a
// few rows does. It also brings results of type bytea in binary, which lib/pq asks for with prepared statements only.
//
// It wraps lib/pq and knows nothing of the product. Behind PgBouncer in transaction mode it needs max_prepared_statements
// (PgBouncer 1.21).
package prepared

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/lib/pq"
)

// remembered bounds the statements that one connection remembers. Lists are put together from conditions, so that there is no
// end to them.
const remembered = 200

// Open returns a pool of such connections. It does not connect yet.
func Open(dsn string) (*sql.DB, error) {
	c, err := pq.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c}), nil
}

type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pqc, ok := inner.(pqConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connect: a lib/pq whose connections lack what this package passes on (%T)", inner), inner.Close())
	}
	return &conn{pqConn: pqc, statements: map[string]*statement{}}, nil
}

// pqConn is what lib/pq's connections can do.
type pqConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// conn is one connection; database/sql uses it from one goroutine at a time.
type conn struct {
	pqConn
	statements map[string]*statement
}

// statement is what a connection remembers of a statement: at first that it ran, then how to run it again.
type statement struct {
	prepared interface {
		driver.StmtExecContext
		driver.StmtQueryContext
	}
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.recall(ctx, query, args)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.pqConn.ExecContext(ctx, query, args)
	}
	r, err := s.prepared.ExecContext(ctx, args)
	return r, outdated(err)
}

// QueryContext implements driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.recall(ctx, query, args)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.pqConn.QueryContext(ctx, query, args)
	}
	r, err := s.prepared.QueryContext(ctx, args)
	return r, outdated(err)
}

// recall returns the prepared statement for a query from its second run on, nil when there is none. A query without parameters
// may be several, which cannot be prepared.
func (c *conn) recall(ctx context.Context, query string, args []driver.NamedValue) (*statement, error) {
	s := c.statements[query]
	switch {
	case len(args) == 0 || s == nil && len(c.statements) >= remembered:
		return nil, nil
	case s == nil:
		c.statements[query] = &statement{}
		return nil, nil
	case s.prepared != nil:
		return s, nil
	}
	p, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s.prepared = p.(interface {
		driver.StmtExecContext
		driver.StmtQueryContext
	})
	return s, nil
}

// outdated turns the error of a statement that no longer fits the schema, or that a connection pooler in between has forgotten,
// into that of a broken connection: nothing was executed, database/sql closes it and, outside transactions, tries another.
func outdated(err error) error {
	if refused, ok := errors.AsType[*pq.Error](err); ok {
		switch refused.Code {
		case "0A000", // feature_not_supported: "cached plan must not change result type"
			"26000": // invalid_sql_statement_name
			return driver.ErrBadConn
		}
	}
	return err
}
