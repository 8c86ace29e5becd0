package stack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/lib/pq"
)

// databases are the three on one server: the product's, and two of Temporal's named after it.
type databases struct{ product, temporal, visibility string }

func databasesOf(product string) (databases, error) {
	u, err := url.Parse(product)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || strings.Trim(u.Path, "/") == "" {
		return databases{}, errors.New("database URL: want postgres://user:password@host/name?sslmode=…")
	}
	sibling := func(suffix string) string {
		s := *u
		s.Path += suffix
		return s.String()
	}
	return databases{product, sibling("_temporal"), sibling("_temporal_visibility")}, nil
}

// ensure makes those that do not exist.
func (d databases) ensure(ctx context.Context) error {
	for _, url := range []string{d.product, d.temporal, d.visibility} {
		if err := ensureDatabase(ctx, url); err != nil {
			return err
		}
	}
	return nil
}

func ensureDatabase(ctx context.Context, database string) error {
	err := execute(ctx, database, "SELECT 1")
	if code(err) != "3D000" { // invalid_catalog_name
		return err
	}
	u, err := url.Parse(database)
	if err != nil {
		return err
	}
	name := strings.Trim(u.Path, "/")
	u.Path = "/postgres"
	if err := execute(ctx, u.String(), "CREATE DATABASE "+pq.QuoteIdentifier(name)); err != nil && code(err) != "42P04" { // duplicate_database
		return fmt.Errorf("make database %s: %w", name, err)
	}
	return nil
}

func code(err error) string {
	var refused *pq.Error
	if errors.As(err, &refused) {
		return string(refused.Code)
	}
	return ""
}

func execute(ctx context.Context, database, statement string) error {
	db, err := sql.Open("postgres", database)
	if err != nil {
		return errors.New("database URL: want postgres://user:password@host/name?sslmode=…") // the driver's words may hold the password
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		u, _ := url.Parse(database)
		return fmt.Errorf("reach Postgres at %s: %w", u.Host, err)
	}
	return nil
}
