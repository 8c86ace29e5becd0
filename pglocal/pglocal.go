// Package pglocal runs a private Postgres from the server binaries of this machine: for `go run ./dev`, where its data stay, and
// for tests, where they go with the process. It knows nothing of the product's schema and imports nothing of the product.
//
// A server listens on a loopback port and a socket in its directory, lets in whoever has the generated password, and ends with
// the process that started it, also when that is killed: the kernel sends it a signal (Linux), and a small shell that waits on a
// pipe from us does the same everywhere. What survives all the same is found by its data directory at the next start.
package pglocal

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lib/pq"

	"aftersend/pglocal/filelock"
)

// User is the superuser of every private cluster.
const User = "aftersend"

// ErrInUse means that a live process has a server on the data directory.
var ErrInUse = errors.New("the data directory is in use by another process")

// Options says what to start. Only DataDir is required.
type Options struct {
	// DataDir is made when missing. It holds the cluster (data/), its log, its password and its socket.
	DataDir string
	// Settings are the run-time settings, Production when nil. Listening, the socket and the like are the package's own.
	Settings Settings
	// Port is the TCP port, 0 for that of the last start, or a free one.
	Port int
	// Ephemeral makes the directory disappear with the server, and the server not take leave of anyone: for tests.
	Ephemeral bool
	// Template is the directory of a stopped server to copy instead of running initdb, which takes a second.
	Template string
	// Log is told what a person may want to know; nil for nobody.
	Log *slog.Logger
}

// Server is a running private Postgres.
type Server struct {
	opts     Options
	bin      Binaries
	dir      string // where it really is, see place
	account  account
	password string
	lock     *filelock.Lock

	mu      sync.Mutex // guards what a restart changes
	port    int
	pid     int
	done    chan struct{}
	dismiss func() // the watcher
}

// Start starts the server of opts.DataDir, making its cluster first if there is none, and returns when it accepts connections.
// A server that a killed run left there is stopped first. It fails with ErrInUse when the owner of the directory lives, and with
// ErrNoBinaries when there is no PostgreSQL to be found.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.Settings == nil {
		opts.Settings = Production
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	dir, account, err := place(opts.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, dir: dir, account: account, port: opts.Port}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		s.lock.Release()
		return nil, err
	}
	return s, nil
}

// lockDir takes the lock of a directory.
func lockDir(dir string) (*filelock.Lock, error) {
	l, err := filelock.Try(filepath.Join(dir, "lock"))
	var held *filelock.Held
	if errors.As(err, &held) {
		return nil, fmt.Errorf("%w: %s, process %d", ErrInUse, dir, held.Pid)
	}
	return l, err
}

// Remove stops what still runs on a data directory and deletes it. It fails with ErrInUse when its owner lives.
func Remove(ctx context.Context, dataDir string) error {
	dir, _, err := place(dataDir)
	if err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := stopLeftover(ctx, filepath.Join(dir, "data")); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(dataDir))
}

// open does Start's work under the lock of the directory.
func (s *Server) open(ctx context.Context) error {
	if err := stopLeftover(ctx, s.pgdata()); err != nil {
		return err
	}
	if err := point(s.opts.DataDir, s.dir); err != nil {
		return err
	}
	if s.Moved() {
		s.opts.Log.Info("the cluster is elsewhere, since the user who runs Postgres cannot reach the data directory",
			"data", s.opts.DataDir, "cluster", s.dir, "user", s.account.name)
		sweepElsewhere(ctx)
	}
	want := 0
	if v, err := os.ReadFile(filepath.Join(s.pgdata(), "PG_VERSION")); err == nil {
		want = majorOf(strings.TrimSpace(string(v)))
	}
	bin, err := machine(want).find(ctx)
	if err != nil {
		return err
	}
	if !s.account.reaches(bin.Dir) {
		return fmt.Errorf("user %s, who has to run Postgres because root must not, cannot reach its binaries in %s", s.account.name, bin.Dir)
	}
	s.bin = bin
	if want == 0 {
		if err := s.create(ctx); err != nil {
			return err
		}
	}
	password, err := os.ReadFile(s.path("password"))
	if err != nil {
		return fmt.Errorf("read the cluster's password: %w", err)
	}
	s.password = strings.TrimSpace(string(password))
	if s.port == 0 {
		s.port = s.lastPort()
	}
	return s.launch(ctx)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }
func (s *Server) pgdata() string          { return s.path("data") }

// Dir is where the server really lives: the data directory, or a place that the account running Postgres can reach.
func (s *Server) Dir() string { return s.dir }

// Moved tells that Dir is not the data directory asked for.
func (s *Server) Moved() bool {
	asked, err := os.Stat(s.opts.DataDir)
	if err != nil {
		return true
	}
	is, err := os.Stat(s.dir)
	return err != nil || !os.SameFile(asked, is)
}

// Version is the server's, "15.18".
func (s *Server) Version() string { return s.bin.Version }

// LogFile is where the server writes its log.
func (s *Server) LogFile() string { return s.path("postgres.log") }

// Port is the TCP port on 127.0.0.1.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// Pid is the process of the server, which leads its process group.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// Done is closed when the running server ends, for whatever reason. After a Restart there is a new one.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// URL is the address of a database for libpq and its likes, with the password and without TLS.
func (s *Server) URL(db string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(User, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())),
		Path:     "/" + db,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// CreateDatabase makes the database if it is not there.
func (s *Server) CreateDatabase(ctx context.Context, name string) error {
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(name))
	var refused *pq.Error
	if errors.As(err, &refused) && refused.Code == "42P04" { // duplicate_database
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// Stop ends the server: connections are cut, transactions rolled back, everything flushed. When ctx ends first it is stopped
// at once, which costs a recovery at the next start. Stop may be called twice.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.halt(ctx)
	if s.lock != nil {
		if s.opts.Ephemeral {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
		s.lock.Release()
		s.lock = nil
	}
	return err
}

// Halt ends the server as Stop does, but keeps its directory for a Restart.
func (s *Server) Halt(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halt(ctx)
}

// Restart stops the server, if it still runs, and starts it again on the same port.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Halt(ctx); err != nil {
		return err
	}
	if err := stopLeftover(ctx, s.pgdata()); err != nil {
		return err
	}
	return s.launch(ctx)
}

// halt stops the process. The caller holds mu.
func (s *Server) halt(ctx context.Context) error {
	if s.done == nil {
		return nil
	}
	sig := syscall.SIGINT // "fast"
	if s.opts.Ephemeral {
		sig = syscall.SIGQUIT // "immediate"
	}
	select {
	case <-s.done: // it has ended by itself
	default:
		_ = syscall.Kill(s.pid, sig)
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		_ = syscall.Kill(s.pid, syscall.SIGQUIT)
		select {
		case <-s.done:
		case <-time.After(10 * time.Second): // it kills its own children after 5
			return fmt.Errorf("the Postgres server (process %d) does not stop", s.pid)
		}
	}
	s.dismiss()
	s.done = nil
	return nil
}

// create makes the cluster, under another name until it is whole.
func (s *Server) create(ctx context.Context) error {
	unfinished := s.path("data.new")
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove an unfinished cluster: %w", err)
	}
	if s.opts.Template != "" {
		if err := s.account.copyTree(filepath.Join(s.opts.Template, "data"), unfinished); err != nil {
			return fmt.Errorf("copy the cluster: %w", err)
		}
		if err := s.account.copyFile(filepath.Join(s.opts.Template, "password"), s.path("password")); err != nil {
			return fmt.Errorf("copy the cluster's password: %w", err)
		}
	} else if err := s.initdb(ctx, unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, s.pgdata())
}

func (s *Server) initdb(ctx context.Context, pgdata string) error {
	s.opts.Log.Info("making a Postgres cluster", "dir", s.dir, "version", s.bin.Version)
	if err := os.WriteFile(s.path("password"), []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	if err := s.account.own(s.path("password")); err != nil {
		return err
	}
	args := []string{"-D", pgdata, "-U", User, "--pwfile", s.path("password"), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"}
	if runtime.GOOS == "linux" {
		args = append(args, "--lc-ctype", "C.UTF-8") // bytes order, but lower() knows Ä; not every system has this name
	}
	if s.opts.Settings["fsync"] == "off" {
		args = append(args, "--no-sync", "--wal-segsize", "1") // small, so that copies are fast
	}
	var out bytes.Buffer
	cmd := s.account.command(syscall.SIGKILL, filepath.Join(s.bin.Dir, "initdb"), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := run(ctx, cmd); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(out.String(), 5))
	}
	return nil
}

// lastPort is the port of the last start when it is still free, so that addresses in people's shells go on working; else a free
// one (0 when there is none, which makes the server say so).
func (s *Server) lastPort() int {
	if b, err := os.ReadFile(s.path("port")); err == nil {
		port, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil && port != 0 {
			l.Close()
			return port
		}
	}
	port, _ := freePort()
	return port
}

// socketDir is where the socket goes: a path of more than some 100 characters cannot be bound.
func (s *Server) socketDir() string {
	if len(s.dir) < 80 {
		return s.dir
	}
	return ""
}

// launchTime bounds a start, recovery after a crash included.
const launchTime = 2 * time.Minute

// launch starts the process and waits until it accepts connections. What goes away by itself is tried again: a port taken since
// it was found free, and memory that the backends of a killed server still hold.
func (s *Server) launch(ctx context.Context) error {
	own := Settings{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": s.socketDir(),
	}
	if err := configure(s.bin, s.pgdata(), common.with(s.opts.Settings, own)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	for try := 1; ; try++ {
		said, err := s.launchOnce(ctx)
		if err == nil {
			return os.WriteFile(s.path("port"), []byte(strconv.Itoa(s.port)+"\n"), 0o644)
		}
		if try == 25 || ctx.Err() != nil {
			return err
		}
		switch {
		case strings.Contains(said, "could not bind") && s.opts.Port == 0:
			if s.port, err = freePort(); err != nil {
				return err
			}
		case strings.Contains(said, "pre-existing shared memory block"):
			time.Sleep(200 * time.Millisecond)
		default:
			return err
		}
	}
}

// launchOnce returns what the server had to say when it does not come up.
func (s *Server) launchOnce(ctx context.Context) (said string, err error) {
	log, err := s.openLog()
	if err != nil {
		return "", err
	}
	defer log.Close()
	before, _ := log.Seek(0, 2)

	sig := syscall.SIGINT
	if s.opts.Ephemeral {
		sig = syscall.SIGQUIT
	}
	cmd := s.account.command(sig, filepath.Join(s.bin.Dir, "postgres"), "-D", s.pgdata(), "-p", strconv.Itoa(s.port))
	cmd.Stdout, cmd.Stderr = log, log
	done, err := start(cmd)
	if err != nil {
		return "", fmt.Errorf("start Postgres: %w", err)
	}
	pid := cmd.Process.Pid
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-done:
			b, _ := os.ReadFile(s.LogFile())
			said = string(b[min(int(before), len(b)):])
			return said, fmt.Errorf("the Postgres server does not start (%s): %s", cmd.ProcessState, lastLines(said, 5))
		case <-ctx.Done():
			_ = syscall.Kill(pid, syscall.SIGQUIT)
			<-done
			return "", fmt.Errorf("start Postgres: %w; its log is %s", ctx.Err(), s.LogFile())
		case <-tick.C:
			p, err := readPidFile(s.pgdata())
			if err != nil && !errors.Is(err, fs.ErrNotExist) || p.pid != pid || !p.ready {
				continue
			}
			return "", s.started(pid, done)
		}
	}
}

// started takes note of a server that accepts connections, and sets the watcher on it.
func (s *Server) started(pid int, done chan struct{}) error {
	sig, remove := "INT", ""
	if s.opts.Ephemeral {
		sig, remove = "QUIT", s.dir
	}
	dismiss, err := s.account.watch(pid, sig, remove)
	if err != nil {
		_ = syscall.Kill(pid, syscall.SIGQUIT)
		<-done
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	once := sync.OnceFunc(dismiss)
	s.pid, s.done, s.dismiss = pid, done, once
	go func() { // a watcher must not outlive its server: the process number could be someone else's by then
		<-done
		once()
	}()
	return nil
}

// openLog opens the server's log for appending; one that has grown past 10 MB starts anew.
func (s *Server) openLog() (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(s.LogFile()); err == nil && info.Size() > 10<<20 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.LogFile(), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of Postgres: %w", err)
	}
	return f, nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
