package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// makeDatabase makes a database beside another one; drop removes it.
func makeDatabase(ctx context.Context, beside, name string) (drop func(), err error) {
	u, err := url.Parse(beside)
	if err != nil {
		return nil, err
	}
	u.Path = "/postgres"
	db, err := sql.Open("postgres", u.String())
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, `create database `+name); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, _ = db.ExecContext(ctx, `drop database `+name+` with (force)`)
		_ = db.Close()
	}, nil
}

// segments of 16 MB are about what a server keeps that has been at work for an hour: max_wal_size of pglocal.Production.
const segments = 240

// age gives a new server what one has that has been at work for a while: WAL files to use again. Making each takes it tens of
// milliseconds, during which nobody's commit is answered.
func age(ctx context.Context, database string) error {
	db, err := sql.Open("postgres", database)
	if err != nil {
		return err
	}
	defer db.Close()
	for range segments {
		// A switch without anything to write since the last one does nothing.
		if _, err := db.ExecContext(ctx, `select pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()`); err != nil {
			return fmt.Errorf("make WAL files: %w", err)
		}
	}
	if _, err := db.ExecContext(ctx, `checkpoint`); err != nil {
		return fmt.Errorf("make WAL files: %w", err)
	}
	return nil
}
