package storetest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/store/storetest"
)

func TestEachTestHasItsOwnDatabaseWithTheSchema(t *testing.T) {
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			var callbacks int
			require.NoError(t, db.Get(&callbacks, "select count(*) from callbacks"), "the schema is there")
			require.Zero(t, callbacks)
			_, err := db.Exec("create table mine ()")
			require.NoError(t, err, "nobody else made it here")
		})
	}
}

func TestAURLOpensSeveralPoolsOnOneDatabase(t *testing.T) {
	url := storetest.URL(t)
	first, second := storetest.Connect(t, url), storetest.Connect(t, url)
	_, err := first.Exec("create table seen (n int); insert into seen values (7)")
	require.NoError(t, err)
	var n int
	require.NoError(t, second.Get(&n, "select n from seen"))
	require.Equal(t, 7, n)
}

func TestTheDatabaseGoesWithItsTest(t *testing.T) {
	var name string
	t.Run("", func(t *testing.T) {
		require.NoError(t, storetest.New(t).Get(&name, "select current_database()"))
	})
	var there bool
	require.NoError(t, storetest.New(t).Get(&there, "select exists (select from pg_database where datname = $1)", name))
	require.False(t, there)
}

func BenchmarkNew(b *testing.B) {
	storetest.New(b)
	for b.Loop() {
		storetest.URL(b)
	}
}
