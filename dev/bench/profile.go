package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "github.com/lib/pq"

	"aftersend/dev/internal/stack"
	"aftersend/pglocal"
)

// pprofEnv gives a child, the product's own included, the address of a pprof listener. Not AFTERSEND_…: the product would ask what it is.
const pprofEnv = "BENCH_PPROF"

// profiler collects where the time goes while runs are measured.
type profiler struct {
	dir   string
	addrs map[stack.Role]string
}

func newProfiler(dir string) (profiler, error) {
	p := profiler{dir: dir, addrs: map[stack.Role]string{}}
	for _, role := range []stack.Role{stack.Serve, stack.Temporal} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return p, err
		}
		p.addrs[role] = l.Addr().String()
		if err := l.Close(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// env has the children of the stack listen for us.
func (p profiler) env() map[stack.Role][]string {
	env := map[stack.Role][]string{}
	for role, addr := range p.addrs {
		env[role] = []string{pprofEnv + "=" + addr}
	}
	return env
}

// postgres has the server count statements.
func (p profiler) postgres() pglocal.Settings {
	return pglocal.Settings{"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_planning": "on", "track_io_timing": "on"}
}

// start begins with a run; the function it returns waits for its end. The files are in a directory for the run.
func (p profiler) start(ctx context.Context, run, database string, seconds float64) (stop func() error) {
	dir := filepath.Join(p.dir, run)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return func() error { return err }
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	failed := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	for role, addr := range p.addrs {
		all.Go(func() {
			from := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, max(1, int(seconds)))
			if err := fetch(ctx, from, filepath.Join(dir, string(role)+".pprof")); err != nil {
				failed(fmt.Errorf("profile %s: %w", role, err))
			}
		})
	}
	if err := resetStatements(ctx, database); err != nil {
		failed(fmt.Errorf("count statements: %w", err))
	}
	return func() error {
		all.Wait()
		if err := writeStatements(ctx, database, filepath.Join(dir, "statements.txt")); err != nil {
			failed(fmt.Errorf("list statements: %w", err))
		}
		if addr := p.addrs[stack.Serve]; addr != "" {
			for _, kind := range []string{"heap", "allocs"} {
				if err := fetch(ctx, "http://"+addr+"/debug/pprof/"+kind, filepath.Join(dir, "serve-"+kind+".pprof")); err != nil {
					failed(err)
				}
			}
		}
		return errors.Join(errs...)
	}
}

func fetch(ctx context.Context, from, to string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}

func resetStatements(ctx context.Context, database string) error {
	db, err := sql.Open("postgres", database)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, `create extension if not exists pg_stat_statements; select pg_stat_statements_reset()`)
	return err
}

// writeStatements lists the statements of all databases by the time they took.
func writeStatements(ctx context.Context, database, to string) error {
	db, err := sql.Open("postgres", database)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, `
		select coalesce(d.datname, ''), s.calls, s.rows, round(s.total_exec_time::numeric), round(s.mean_exec_time::numeric, 3), round(s.total_plan_time::numeric),
		       s.wal_bytes, s.shared_blks_hit, s.shared_blks_read, regexp_replace(s.query, '\s+', ' ', 'g')
		from   pg_stat_statements s left join pg_database d on d.oid = s.dbid
		order  by s.total_exec_time + s.total_plan_time desc
		limit  60`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %9s %10s %9s %9s %9s %12s %11s %9s  query\n", "database", "calls", "rows", "ms", "ms/call", "plan ms", "WAL bytes", "hit", "read")
	for rows.Next() {
		var name, query, total, mean, plan string
		var calls, n, wal, hit, read int64
		if err := rows.Scan(&name, &calls, &n, &total, &mean, &plan, &wal, &hit, &read, &query); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%-28s %9d %10d %9s %9s %9s %12d %11d %9d  %s\n", name, calls, n, total, mean, plan, wal, hit, read, query)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return os.WriteFile(to, []byte(b.String()), 0o644)
}
