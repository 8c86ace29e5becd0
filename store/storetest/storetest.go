// Package storetest gives every test a Postgres database of its own, with the product's schema, from nothing but the server
// binaries of the machine.
//
// A test process runs one cluster, copied from a template that the first process on the machine makes and keeps in the user's
// cache; the schema is applied once per process, and each test's database is a copy of the result. Nothing is flushed to disk. The
// cluster ends and disappears with the process, however that ends. All of it may be used by parallel tests.
//
// It is for tests of any room; it imports pglocal and migrations only, so that store's own tests can use it.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // the driver "postgres"

	"aftersend/migrations"
	"aftersend/pglocal"
	"aftersend/pglocal/filelock"
	"aftersend/store/prepared"
)

// New returns a connection pool on a fresh database, as the store opens it (binary_parameters=yes, 20 connections). Pool and
// database are gone at the end of the test. Without PostgreSQL binaries the test fails and says how to get them.
func New(t testing.TB) *sqlx.DB {
	t.Helper()
	return Connect(t, URL(t))
}

// URL returns the address of a fresh database, for what opens its own connections (store.Open, a child process).
func URL(t testing.TB) string {
	t.Helper()
	c, err := theCluster()
	if err != nil {
		t.Fatalf("a Postgres for tests: %v", err)
	}
	name := "t" + strconv.FormatInt(c.databases.Add(1), 10)
	if _, err := c.admin.Exec("CREATE DATABASE " + name + " TEMPLATE " + schema); err != nil {
		t.Fatalf("make database %s: %v; the server's log is %s", name, err, c.server.LogFile())
	}
	t.Cleanup(func() {
		if _, err := c.admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return c.server.URL(name)
}

// Connect opens another pool on a database of URL.
func Connect(t testing.TB, url string) *sqlx.DB {
	t.Helper()
	pool, err := prepared.Open(url + "&binary_parameters=yes")
	if err != nil {
		t.Fatalf("connect to the test database: %v", err)
	}
	db := sqlx.NewDb(pool, "postgres")
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

const (
	schema      = "schema"          // the database that tests' databases are copies of
	prefix      = "aftersend-test-" // of clusters' directories, followed by the process
	layout      = "1"               // of the cached template; raise it when what makes it changes
	startupTime = 2 * time.Minute   // the first process on a machine may run initdb, or even fetch binaries
)

type cluster struct {
	server    *pglocal.Server
	admin     *sql.DB
	databases atomic.Int64
}

// theCluster is the one of this process, started when first asked for.
var theCluster = sync.OnceValues(func() (*cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startupTime)
	defer cancel()
	template, err := cachedTemplate(ctx)
	if err != nil {
		return nil, err
	}
	go removeStale()
	dir, err := os.MkdirTemp(roomy(), fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	server, err := pglocal.Start(ctx, pglocal.Options{DataDir: dir, Settings: pglocal.Test, Ephemeral: true, Template: template})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c := &cluster{server: server}
	if c.admin, err = sql.Open("postgres", server.URL("postgres")); err == nil {
		c.admin.SetMaxIdleConns(4)
		err = c.migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, server.Stop(ctx))
	}
	return c, nil
})

func (c *cluster) migrate(ctx context.Context) error {
	if _, err := c.admin.ExecContext(ctx, "CREATE DATABASE "+schema); err != nil {
		return err
	}
	db, err := sql.Open("postgres", c.server.URL(schema))
	if err != nil {
		return err
	}
	// Closed before anyone copies it: a database with connections cannot be a template.
	return errors.Join(migrations.Up(ctx, db), db.Close())
}

// cachedTemplate is the directory of a stopped, empty cluster for this machine's PostgreSQL. Who comes first makes it.
func cachedTemplate(ctx context.Context) (string, error) {
	bin, err := pglocal.Find(ctx)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil { // no $HOME, as in some CI containers
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("aftersend-cache-%d", os.Getuid()))
	}
	home := filepath.Join(cache, "aftersend", "test-clusters")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", err
	}
	template := filepath.Join(home, "postgresql-"+bin.Version+"-"+layout)
	if exists(template) {
		return template, nil
	}
	lock, err := filelock.Wait(ctx, template+".lock")
	if err != nil {
		return "", fmt.Errorf("wait for another test process to make the template cluster: %w", err)
	}
	defer lock.Release()
	if exists(template) {
		return template, nil
	}
	return template, makeTemplate(ctx, template)
}

func makeTemplate(ctx context.Context, template string) (err error) {
	dir, err := os.MkdirTemp(roomy(), fmt.Sprintf("%s%d-template-", prefix, os.Getpid()))
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := pglocal.Start(ctx, pglocal.Options{DataDir: dir, Settings: pglocal.Test})
	if err != nil {
		return err
	}
	if err := server.Stop(ctx); err != nil {
		return err
	}
	unfinished := template + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := os.CopyFS(unfinished, os.DirFS(server.Dir())); err != nil {
		return fmt.Errorf("keep the template cluster: %w", err)
	}
	return os.Rename(unfinished, template)
}

// memory is a file system in RAM. A database is some 900 files, which a disk makes ten times slower.
const memory = "/dev/shm"

// roomy is where clusters go: into memory where there is plenty (containers often get 64 MB), else to the temporary directory.
func roomy() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && uint64(fs.Bavail)*uint64(fs.Bsize) > 2<<30 {
		return memory
	}
	return os.TempDir()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// removeStale removes clusters whose process is gone and which were not cleared away with it (the machine went down). Nobody
// waits for it, and what it cannot remove is left.
func removeStale() {
	var dirs []string
	for _, parent := range []string{memory, os.TempDir()} {
		in, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
		dirs = append(dirs, in...)
	}
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		_ = pglocal.Remove(context.Background(), dir)
	}
}
