package prepared_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/store/prepared"
	"aftersend/store/storetest"
)

func open(t *testing.T) *sql.DB {
	db, err := prepared.Open(storetest.URL(t) + "&binary_parameters=yes")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// known counts the statements that the server holds for the one connection of db.
func known(t *testing.T, db *sql.DB) (n int) {
	require.NoError(t, db.QueryRow(`select count(*) from pg_prepared_statements where statement not like '%pg_prepared%'`).Scan(&n))
	return n
}

func TestStatementsAreRemembered(t *testing.T) {
	db := open(t)
	for i := range 5 {
		var n int
		require.NoError(t, db.QueryRow(`select $1::int + 1`, i).Scan(&n))
		require.Equal(t, i+1, n)
		require.Equal(t, map[bool]int{true: 1}[i > 0], known(t, db), "from the second run on, once")
	}
}

func TestInTransactions(t *testing.T) {
	db := open(t)
	_, err := db.Exec(`create table t (b bytea, u uuid, x timestamptz)`)
	require.NoError(t, err)
	blob := []byte{0, 'a', 0xff, '\\'}
	for range 3 {
		tx, err := db.Begin()
		require.NoError(t, err)
		_, err = tx.Exec(`insert into t values ($1, '0190f0f0-0000-7000-8000-000000000001', now())`, blob)
		require.NoError(t, err)
		var got, id []byte
		require.NoError(t, tx.QueryRow(`select b, u from t where b = $1 limit 1`, blob).Scan(&got, &id))
		require.Equal(t, blob, got)
		require.Equal(t, "0190f0f0-0000-7000-8000-000000000001", string(id))
		require.NoError(t, tx.Commit())
	}
	var n int
	require.NoError(t, db.QueryRow(`select count(*) from t`).Scan(&n))
	require.Equal(t, 3, n)
}

func TestSeveralStatementsAtOnce(t *testing.T) {
	db := open(t)
	for range 3 {
		_, err := db.Exec(`create table if not exists a (); create table if not exists b ()`)
		require.NoError(t, err)
	}
}

func TestSchemaThatChanges(t *testing.T) {
	db := open(t)
	_, err := db.Exec(`create table t (a int); insert into t values (1)`)
	require.NoError(t, err)
	columns := func() int {
		rows, err := db.Query(`select * from t where a = $1`, 1)
		require.NoError(t, err)
		defer rows.Close()
		names, err := rows.Columns()
		require.NoError(t, err)
		require.True(t, rows.Next())
		return len(names)
	}
	for range 3 {
		require.Equal(t, 1, columns())
	}
	_, err = db.Exec(`alter table t add b int`)
	require.NoError(t, err)
	require.Equal(t, 2, columns())

	_, err = db.Exec(`deallocate all`) // as when a pooler gives us another server connection
	require.NoError(t, err)
	require.Equal(t, 2, columns())
}

func TestErrorsLeaveTheConnectionUsable(t *testing.T) {
	db := open(t)
	divide := func(by int) (n int, err error) {
		err = db.QueryRow(`select 10 / $1::int`, by).Scan(&n)
		return n, err
	}
	for range 3 {
		n, err := divide(2)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		_, err = divide(0)
		require.ErrorContains(t, err, "division by zero")
	}
	_, err := db.Exec(`select nonsense($1)`, 1)
	require.Error(t, err)
	_, err = db.Exec(`select nonsense($1)`, 1)
	require.ErrorContains(t, err, "nonsense")
	require.Equal(t, 1, known(t, db))
}

func TestCancelledStatement(t *testing.T) {
	db := open(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := db.ExecContext(ctx, `select pg_sleep($1)`, 0)
		require.ErrorIs(t, err, context.Canceled)
		_, err = db.Exec(`select pg_sleep($1)`, 0)
		require.NoError(t, err)
	}
}

func TestOnlySoManyAreRemembered(t *testing.T) {
	db := open(t)
	for i := range 300 {
		query := `select $1::int + ` + string(rune('0'+i%10)) + ` /*` + string(rune('a'+i/10)) + `*/`
		for range 2 {
			_, err := db.Exec(query, i)
			require.NoError(t, err)
		}
	}
	require.LessOrEqual(t, known(t, db), 200)
}
