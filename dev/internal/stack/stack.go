// Package stack runs the whole product on one machine: a private Postgres, the Temporal server with its web UI, and the product
// itself, each in processes of its own. `go run ./dev`, the end-to-end tests and the benchmark are built on it.
//
// The children are this same binary, started again: whoever uses the package calls Child first thing in main or TestMain.
// Everything listens on loopback. Everything ends with the process that started it; what survives even so is found by its data
// directory and stopped at the next Start.
package stack

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"aftersend/dev/internal/engine"
	"aftersend/pglocal"
	"aftersend/pglocal/filelock"
)

// Role is one part of the stack, with a process (group) of its own.
type Role string

// The roles, in the order in which they start. They stop in the opposite order.
const (
	Postgres Role = "postgres"
	Temporal Role = "temporal" // the server and its web UI
	Worker   Role = "worker"   // only with Options.Split
	API      Role = "api"      // only with Options.Split
	Serve    Role = "serve"    // API and worker in one process
)

// Namespace is the product's in Temporal.
const Namespace = "aftersend"

// Token is the API token, and the token of a source for every ESP; both are good on loopback only.
const Token = "dev"

// ErrInUse means that another live process runs a stack on the data directory.
var ErrInUse = errors.New("already running")

// Options says what to start. The zero value of all but DataDir is right for a test.
type Options struct {
	DataDir     string // keeps everything between starts; made when missing
	DatabaseURL string // an existing Postgres database to use; "" = a private server in DataDir

	Addr         string // where the API listens, host:port; "" = a free port
	TemporalPort int    // tried first; 0, or taken = a free port
	UIPort       int    // likewise
	NoUI         bool   // leave Temporal's web UI out

	Fast  bool // retries every 2 s, 8 of them: for watching failure, pause and resume within a minute
	Split bool // API and worker in processes of their own, which loses eager workflow starts

	Postgres pglocal.Settings     // settings of the private server over pglocal.Production; nil for that alone
	Env      map[Role][]string    // NAME=value for a role's process, over everything else (AFTERSEND_CRASH, GOMAXPROCS, …)
	Verbose  bool                 // children log what they do, not only what goes wrong
	Log      func(Role) io.Writer // where a role's log goes, line by line; nil for nowhere
	Progress func(string)         // told what is being started; nil for nobody
}

// Addresses is where things are.
type Addresses struct {
	API         string   // http://127.0.0.1:8080
	Temporal    string   // 127.0.0.1:7233
	TemporalUI  string   // http://127.0.0.1:8233/namespaces/aftersend, "" without
	DatabaseURL string   // postgres://…
	Moved       []string // what is elsewhere than asked for, and why, for people
}

// Stack is a running product.
type Stack struct {
	Addresses

	opts Options
	dir  string
	lock *filelock.Lock
	pg   *pglocal.Server // nil with a database of someone else's
	db   databases

	temporalPort, uiPort int

	mu       sync.Mutex
	children map[Role]*child
}

// Start starts everything and returns when the product is ready. When something does not start, what did is stopped again.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Log == nil {
		o.Log = func(Role) io.Writer { return io.Discard }
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	s := &Stack{opts: o, dir: dir, children: map[Role]*child{}}
	if s.lock, err = filelock.Try(filepath.Join(dir, "lock")); err != nil {
		var held *filelock.Held
		if errors.As(err, &held) {
			return nil, fmt.Errorf("%w on %s, as process %d: stop that one, or choose another data directory", ErrInUse, dir, held.Pid)
		}
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return nil, errors.Join(err, s.Stop(stop))
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context) error {
	for _, role := range slices.Backward(s.roles()) {
		if role != Postgres {
			if err := s.stopLeftover(ctx, role); err != nil {
				return err
			}
		}
	}
	if err := s.assignPorts(); err != nil {
		return err
	}
	if err := s.sealKey(); err != nil {
		return err
	}
	for _, role := range s.roles() {
		if err := s.launch(ctx, role); err != nil {
			return err
		}
	}
	if !s.settled(ctx) {
		s.opts.Progress("the worker has not found Temporal yet; callbacks are taken in meanwhile")
	}
	return nil
}

// settleTime is how long a start waits for the worker, which the product itself does not wait for.
const settleTime = 5 * time.Second

// settled waits until the product says that all its parts work, Temporal and the worker included.
func (s *Stack) settled(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		if s.whole(ctx) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Stack) whole(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.API+"/readyz?verbose", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	var said struct{ Degraded *bool }
	return json.NewDecoder(res.Body).Decode(&said) == nil && said.Degraded != nil && !*said.Degraded
}

// roles are those of this stack in starting order.
func (s *Stack) roles() []Role {
	if s.opts.Split {
		return []Role{Postgres, Temporal, Worker, API}
	}
	return []Role{Postgres, Temporal, Serve}
}

// assignPorts settles every address that someone else is told, so that a part can be restarted without the others noticing.
func (s *Stack) assignPorts() (err error) {
	if s.opts.Addr == "" {
		port, err := freePort(0)
		if err != nil {
			return err
		}
		s.opts.Addr = loopback(port)
	} else if err := free(s.opts.Addr); err != nil {
		return err
	}
	s.API = "http://" + browsable(s.opts.Addr)

	if s.temporalPort, err = s.port("Temporal", s.opts.TemporalPort); err != nil {
		return err
	}
	s.Addresses.Temporal = loopback(s.temporalPort)
	if !s.opts.NoUI {
		if s.uiPort, err = s.port("Temporal's web UI", s.opts.UIPort); err != nil {
			return err
		}
		s.TemporalUI = "http://" + loopback(s.uiPort) + "/namespaces/" + Namespace
	}
	return nil
}

// port is the wanted port, or a free one in its place, which is noted.
func (s *Stack) port(what string, want int) (int, error) {
	port, err := freePort(want)
	if err != nil {
		return 0, fmt.Errorf("a port for %s: %w", what, err)
	}
	if want != 0 && port != want {
		s.Moved = append(s.Moved, fmt.Sprintf("%s is on port %d, since %v", what, port, free(loopback(want))))
	}
	return port, nil
}

// sealKey makes the key that seals secrets in the database, once.
func (s *Stack) sealKey() error {
	if _, err := os.Stat(s.sealKeyFile()); err == nil {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return os.WriteFile(s.sealKeyFile(), []byte("1:"+base64.StdEncoding.EncodeToString(key)+"\n"), 0o600)
}

func (s *Stack) sealKeyFile() string { return filepath.Join(s.dir, "seal.key") }

// launch starts one role and waits until it is ready.
func (s *Stack) launch(ctx context.Context, role Role) error {
	s.opts.Progress("starting " + string(role))
	if role == Postgres {
		return s.launchPostgres(ctx)
	}
	c, err := s.spawn(role)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.children[role] = c
	s.mu.Unlock()
	if err := c.waitReady(ctx); err != nil {
		c.kill()
		return fmt.Errorf("start %s: %w", role, err)
	}
	return nil
}

func (s *Stack) launchPostgres(ctx context.Context) (err error) {
	url := s.opts.DatabaseURL
	switch {
	case url != "": // someone else's
	case s.pg != nil:
		err = s.pg.Restart(ctx)
	default:
		log := slog.New(slog.NewTextHandler(s.opts.Log(Postgres), nil))
		settings := maps.Clone(pglocal.Production)
		maps.Copy(settings, s.opts.Postgres)
		s.pg, err = pglocal.Start(ctx, pglocal.Options{DataDir: filepath.Join(s.dir, "postgres"), Settings: settings, Log: log})
	}
	if err != nil {
		return err
	}
	if url == "" {
		url = s.pg.URL("aftersend")
	}
	if s.pg != nil && s.pg.Moved() && s.DatabaseURL == "" {
		s.Addresses.Moved = append(s.Addresses.Moved, "Postgres keeps its data in "+s.pg.Dir()+", since the user that runs it cannot reach the data directory")
	}
	s.DatabaseURL = url
	if s.db, err = databasesOf(url); err != nil {
		return err
	}
	return s.db.ensure(ctx)
}

func (s *Stack) spawn(role Role) (*child, error) {
	sp := spec{Role: role, DataDir: s.dir}
	if role == Temporal {
		sp.Engine = engine.Options{
			Database: s.db.temporal, Visibility: s.db.visibility, Namespace: Namespace,
			Port: s.temporalPort, UIPort: s.uiPort, Verbose: s.opts.Verbose,
		}
	}
	return startChild(sp, s.environment(role), s.opts.Log(role))
}

// environment is what a role's process gets: ours, without what would lead it astray, with our settings.
func (s *Stack) environment(role Role) []string {
	env := environ{}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TEMPORAL_") { // someone's own cluster
			env.set(kv)
		}
	}
	env.set("TEMPORAL_CONFIG_FILE=" + os.DevNull) // nor a profile in their home
	if role == Temporal {
		env.unlessSet("GOMEMLIMIT=1GiB") // its caches fill what they get
	} else {
		level := "warn"
		if s.opts.Verbose {
			level = "info"
		}
		env.unlessSet("AFTERSEND_LOG__LEVEL=" + level)
		env.unlessSet("AFTERSEND_LOG__FORMAT=text") // for people
		env.unlessSet("AFTERSEND_DEV__TOKEN=true")
		env.unlessSet("AFTERSEND_MAIL__OWNER=owner@localhost")                    // whose mails the outbox shows
		env.unlessSet("AFTERSEND_TEMPORAL__WORKER_STOP_TIMEOUT=5s")               // an attempt that is cut off is made again
		env.unlessSet("AFTERSEND_DELIVERY__ALLOWED_PREFIXES=127.0.0.0/8,::1/128") // receivers on this machine
		if s.opts.Fast {
			env.unlessSet("AFTERSEND_DELIVERY__RETRY_INTERVAL=2s")
			env.unlessSet("AFTERSEND_DELIVERY__RETRIES=8")
		}
		if _, own := env["AFTERSEND_SEAL__KEYS"]; !own {
			env.unlessSet("AFTERSEND_SEAL__KEYS_FILE=" + s.sealKeyFile())
		}
		env.set("AFTERSEND_DATABASE__MIGRATE=true")
		env.set("AFTERSEND_DATABASE__URL=" + s.DatabaseURL)
		env.set("AFTERSEND_TEMPORAL__ADDRESS=" + s.Addresses.Temporal)
		env.set("AFTERSEND_TEMPORAL__NAMESPACE=" + Namespace)
		if s.uiPort != 0 {
			env.set("AFTERSEND_TEMPORAL__UI_URL=http://" + loopback(s.uiPort))
		}
		env.set("AFTERSEND_API__ADDR=" + s.opts.Addr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kv := range s.opts.Env[role] {
		env.set(kv)
	}
	return env.list()
}

// Setenv sets NAME=value for a role from its next start on, over everything else.
func (s *Stack) Setenv(role Role, kv ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.opts.Env)
	if all == nil {
		all = map[Role][]string{}
	}
	all[role] = append(slices.Clone(all[role]), kv...)
	s.opts.Env = all
}

func (s *Stack) child(role Role) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.children[role]
}

// Pids are the processes of the roles that run; each leads a process group of its own. A database of someone else's has none.
func (s *Stack) Pids() map[Role]int {
	pids := map[Role]int{}
	if s.pg != nil && !ended(s.pg.Done()) {
		pids[Postgres] = s.pg.Pid()
	}
	for _, role := range s.roles() {
		if c := s.child(role); c != nil && !ended(c.done) {
			pids[role] = c.cmd.Process.Pid
		}
	}
	return pids
}

// CPU is the processor time each running role has used since its start, children and former children included. Linux only.
func (s *Stack) CPU() (map[Role]time.Duration, error) {
	used := map[Role]time.Duration{}
	for role, pid := range s.Pids() {
		d, err := treeCPU(pid)
		if err != nil {
			return nil, fmt.Errorf("read the CPU time of %s: %w", role, err)
		}
		used[role] = d
	}
	return used, nil
}

// Exited is closed when the role's present process ends, for whatever reason (a crash point, say).
func (s *Stack) Exited(role Role) <-chan struct{} {
	if role == Postgres && s.pg != nil {
		if done := s.pg.Done(); done != nil {
			return done
		}
	}
	if c := s.child(role); c != nil {
		return c.done
	}
	never := make(chan struct{})
	close(never)
	return never
}

// Kill ends a role's process as kill -9 does, and returns when it is gone. The others are left to themselves.
func (s *Stack) Kill(role Role) error {
	if role == Postgres {
		if s.pg == nil {
			return errors.New("the database is someone else's")
		}
		done := s.pg.Done()
		if err := syscall.Kill(s.pg.Pid(), syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", role, err)
		}
		<-done
		return nil
	}
	c := s.child(role)
	if c == nil {
		return fmt.Errorf("kill %s: it does not run", role)
	}
	c.kill()
	return nil
}

// Halt stops a role in good order, if it runs.
func (s *Stack) Halt(ctx context.Context, role Role) error {
	if role == Postgres {
		if s.pg == nil {
			return nil
		}
		return s.pg.Halt(ctx)
	}
	if c := s.child(role); c != nil {
		return c.stop(ctx)
	}
	return nil
}

// Restart stops a role, if it still runs, and starts it again at the same addresses.
func (s *Stack) Restart(ctx context.Context, role Role) error {
	if err := s.Halt(ctx, role); err != nil {
		return err
	}
	return s.launch(ctx, role)
}

// Stop stops everything: API and worker, then Temporal, then Postgres. What has not stopped when ctx ends is killed.
func (s *Stack) Stop(ctx context.Context) error {
	var errs []error
	running := s.Pids()
	for _, role := range slices.Backward(s.roles()) {
		if running[role] != 0 {
			s.opts.Progress("stopping " + string(role))
		}
		errs = append(errs, s.Halt(ctx, role))
	}
	if s.pg != nil {
		errs = append(errs, s.pg.Stop(ctx))
	}
	s.lock.Release()
	return errors.Join(errs...)
}

// DataDir is the directory that keeps everything, absolute.
func (s *Stack) DataDir() string { return s.dir }

// Outbox is the page that shows the mails that would have been sent; with ?format=json a JSON list of them.
func (s *Stack) Outbox() string { return s.API + outboxPath }

// environ is a process environment by name.
type environ map[string]string

func (e environ) set(kv string) {
	name, value, _ := strings.Cut(kv, "=")
	e[name] = value
}

func (e environ) unlessSet(kv string) {
	name, _, _ := strings.Cut(kv, "=")
	if _, ok := e[name]; !ok {
		e.set(kv)
	}
}

func (e environ) list() []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, name+"="+e[name])
	}
	return list
}

func ended(done <-chan struct{}) bool {
	if done == nil {
		return true
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}
