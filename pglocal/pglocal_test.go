package pglocal

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests that need someone to be killed run this binary again as that someone.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PGLOCAL_TEST_VICTIM"); dir != "" {
		s, err := Start(context.Background(), Options{DataDir: dir, Settings: Test, Ephemeral: os.Getenv("PGLOCAL_TEST_EPHEMERAL") != ""})
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(s.Pid()) + "\n")
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

// reachableDir is a directory that the account running Postgres gets into, which t.TempDir is not; in memory where that can be,
// since initdb makes a thousand files.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pglocal-test-")
	if err != nil {
		dir, err = os.MkdirTemp("", "pglocal-test-")
	}
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "pg")
}

func startAt(t *testing.T, opts Options) *Server {
	t.Helper()
	if opts.Settings == nil {
		opts.Settings = Test
	}
	s, err := Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

func exec1(t *testing.T, url, statement string) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
}

func ask(t *testing.T, url, query string) (answer string) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&answer))
	return answer
}

// victim starts a server from another process and returns that process and the server's.
func victim(t *testing.T, dir string, env ...string) (owner *exec.Cmd, server int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "PGLOCAL_TEST_VICTIM="+dir), env...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	server, err = strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err, line)
	return cmd, server
}

func gone(pid int) func() bool { return func() bool { return !alive(pid) } }

func TestStartStopAndStartAgainKeepsTheData(t *testing.T) {
	dir := reachableDir(t)
	s := startAt(t, Options{DataDir: dir})
	require.NoError(t, s.CreateDatabase(t.Context(), "shop"))
	require.NoError(t, s.CreateDatabase(t.Context(), "shop"), "making it again is fine")
	exec1(t, s.URL("shop"), "create table kept as select 'yes'::text as v")
	port, pid := s.Port(), s.Pid()
	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Stop(t.Context()), "stopping twice is fine")
	require.False(t, alive(pid))

	again := startAt(t, Options{DataDir: dir})
	require.Equal(t, port, again.Port(), "addresses stay")
	require.Equal(t, "yes", ask(t, again.URL("shop"), "select v from kept"))
}

func TestRestartKeepsAddressAndData(t *testing.T) {
	s := startAt(t, Options{DataDir: reachableDir(t)})
	exec1(t, s.URL("postgres"), "create table kept as select 'yes'::text as v")
	url, before, done := s.URL("postgres"), s.Pid(), s.Done()
	require.NoError(t, s.Restart(t.Context()))
	<-done
	require.Equal(t, url, s.URL("postgres"))
	require.NotEqual(t, before, s.Pid())
	require.Equal(t, "yes", ask(t, url, "select v from kept"))

	// A server that was killed, the hard way, can be restarted too.
	done = s.Done()
	require.NoError(t, syscall.Kill(s.Pid(), syscall.SIGKILL))
	<-done
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, "yes", ask(t, url, "select v from kept"))
}

func TestProductionCommitsAreOnDisk(t *testing.T) {
	s := startAt(t, Options{DataDir: reachableDir(t), Settings: Production})
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		require.Equal(t, "on", ask(t, s.URL("postgres"), "show "+setting), setting)
	}
	require.Equal(t, "off", ask(t, s.URL("postgres"), "show jit"))
	require.Contains(t, []string{"lz4", "on", "pglz"}, ask(t, s.URL("postgres"), "show wal_compression"))
}

func TestOnlyThePasswordLetsIn(t *testing.T) {
	s := startAt(t, Options{DataDir: reachableDir(t)})
	db, err := sql.Open("postgres", strings.Replace(s.URL("postgres"), s.password, "guess", 1))
	require.NoError(t, err)
	defer db.Close()
	require.ErrorContains(t, db.PingContext(t.Context()), "password authentication failed")
}

func TestTwoLiveOwnersOfOneDirectoryExplainThemselves(t *testing.T) {
	dir := reachableDir(t)
	owner, _ := victim(t, dir)
	_, err := Start(t.Context(), Options{DataDir: dir, Settings: Test})
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, strconv.Itoa(owner.Process.Pid), "it names the process")
	require.ErrorIs(t, Remove(t.Context(), dir), ErrInUse)
}

func TestTheServerEndsWithItsOwner(t *testing.T) {
	owner, server := victim(t, reachableDir(t))
	require.NoError(t, owner.Process.Kill())
	require.Eventually(t, gone(server), 30*time.Second, 20*time.Millisecond)
}

func TestAnEphemeralServerDisappearsWithItsOwner(t *testing.T) {
	dir := reachableDir(t)
	owner, server := victim(t, dir, "PGLOCAL_TEST_EPHEMERAL=1")
	require.NoError(t, owner.Process.Kill())
	require.Eventually(t, gone(server), 30*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "data")); return os.IsNotExist(err) }, 30*time.Second, 20*time.Millisecond)
}

// A server can survive its owner where the kernel does not end it and the watcher was killed as well. It is made here by starting
// Postgres by hand on a directory that nobody owns.
func TestALeftoverServerIsStoppedAndItsDataGoOn(t *testing.T) {
	dir := reachableDir(t)
	s := startAt(t, Options{DataDir: dir})
	exec1(t, s.URL("postgres"), "create table kept as select 'yes'::text as v")
	require.NoError(t, s.Stop(t.Context()))
	cmd := s.account.command(0, filepath.Join(s.bin.Dir, "postgres"), "-D", s.pgdata(), "-p", strconv.Itoa(s.port))
	done, err := start(cmd)
	require.NoError(t, err)
	require.Eventually(t, func() bool { p, err := readPidFile(s.pgdata()); return err == nil && p.ready }, 30*time.Second, 10*time.Millisecond)

	again := startAt(t, Options{DataDir: dir})
	<-done
	require.Equal(t, "yes", ask(t, again.URL("postgres"), "select v from kept"))
}

// After a crash of the machine postmaster.pid names a process that may be anything by now; here it is this test.
func TestAPidFileOfSomeoneElseIsNoServer(t *testing.T) {
	dir := reachableDir(t)
	s := startAt(t, Options{DataDir: dir})
	require.NoError(t, s.Stop(t.Context()))
	stale := filepath.Join(s.pgdata(), "postmaster.pid")
	require.NoError(t, os.WriteFile(stale, []byte(strconv.Itoa(os.Getpid())+"\n"+s.pgdata()+"\n"), 0o644))
	startAt(t, Options{DataDir: dir})
}

func TestAHalfMadeClusterIsMadeAnew(t *testing.T) {
	dir := reachableDir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o755))
	s := startAt(t, Options{DataDir: dir})
	require.NoDirExists(t, filepath.Join(s.Dir(), "data.new"))
}

func TestRootPutsAnUnreachableClusterElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs Postgres as somebody else")
	}
	dir := filepath.Join(t.TempDir(), "pg") // below a directory of mode 0700
	s := startAt(t, Options{DataDir: dir})
	require.NotEqual(t, dir, s.Dir())
	t.Cleanup(func() { require.NoError(t, Remove(context.Background(), dir)); require.NoDirExists(t, s.Dir()) })
	where, err := os.ReadFile(filepath.Join(dir, pointer))
	require.NoError(t, err)
	require.Equal(t, s.Dir(), strings.TrimSpace(string(where)))
	exec1(t, s.URL("postgres"), "create table kept ()")
	require.NoError(t, s.Stop(t.Context()))

	s = startAt(t, Options{DataDir: dir})
	require.Equal(t, "kept", ask(t, s.URL("postgres"), "select relname from pg_class where relname = 'kept'"))
	require.NoError(t, s.Stop(t.Context()))

	// Who deletes the directory expects to start afresh.
	require.NoError(t, os.RemoveAll(dir))
	s = startAt(t, Options{DataDir: dir})
	require.Equal(t, "0", ask(t, s.URL("postgres"), "select count(*)::text from pg_class where relname = 'kept'"))
	require.NoError(t, s.Stop(t.Context()))

	// And who deletes a temporary directory for good leaves nothing behind.
	require.NoError(t, os.RemoveAll(dir))
	sweepElsewhere(t.Context())
	require.NoDirExists(t, s.Dir())
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	install := func(name string) string {
		dir := filepath.Join(root, name, "bin")
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "initdb"), nil, 0o755))
		return dir
	}
	versions := map[string]string{
		install("asked"): "15.2", install("inpath"): "16.1", install("config"): "14.9",
		install("system/9.6"): "9.6", install("system/15"): "15.18", install("system/17"): "17.2", install("fetched"): "17.5",
	}
	at := func(name string) string { return filepath.Join(root, name, "bin") }
	nothing := finder{
		getenv:  func(string) string { return "" },
		bindir:  func() (string, error) { return "", errors.New("no pg_config") },
		version: func(dir string) string { return versions[dir] },
	}
	for _, c := range []struct {
		name string
		edit func(*finder)
		want string
	}{
		{"AFTERSEND_PG_BIN comes first", func(f *finder) {
			f.getenv = func(name string) string {
				return map[string]string{"AFTERSEND_PG_BIN": at("asked"), "PATH": at("inpath")}[name]
			}
		}, "asked"},
		{"then PATH", func(f *finder) {
			f.getenv = func(name string) string { return map[string]string{"PATH": "/nowhere:" + at("inpath")}[name] }
			f.bindir = func() (string, error) { return at("config"), nil }
		}, "inpath"},
		{"then pg_config", func(f *finder) {
			f.bindir = func() (string, error) { return at("config"), nil }
			f.patterns = []string{filepath.Join(root, "system/*/bin")}
		}, "config"},
		{"then the newest of the system's", func(f *finder) { f.patterns = []string{filepath.Join(root, "system/*/bin")} }, "system/17"},
		{"or the one that made the cluster", func(f *finder) {
			f.patterns = []string{filepath.Join(root, "system/*/bin")}
			f.want = 15
		}, "system/15"},
		{"then a fetched one", func(f *finder) {
			f.fetch = func(context.Context) (string, error) { return at("fetched"), nil }
		}, "fetched"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := nothing
			c.edit(&f)
			b, err := f.find(t.Context())
			require.NoError(t, err)
			require.Equal(t, at(c.want), b.Dir)
		})
	}
}

func TestNotFoundSaysWhatWasTriedAndWhatToDo(t *testing.T) {
	f := finder{
		getenv:   func(string) string { return "" },
		bindir:   func() (string, error) { return "", errors.New("no pg_config") },
		patterns: []string{"/nowhere/*/bin"},
		version:  func(string) string { return "" },
	}
	_, err := f.find(t.Context())
	require.ErrorIs(t, err, ErrNoBinaries)
	for _, part := range []string{"AFTERSEND_PG_BIN", "PATH", "pg_config --bindir", "/nowhere/*/bin", "is not done as root", "apt-get install postgresql"} {
		require.ErrorContains(t, err, part)
	}

	f.getenv = func(string) string { return "/wrong" }
	_, err = f.find(t.Context())
	require.ErrorIs(t, err, ErrNoBinaries, "what was asked for is not silently replaced")
	require.ErrorContains(t, err, "/wrong has no working initdb and postgres")
}
