package stack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/pglocal/filelock"
	"aftersend/store/storetest"
)

// Children for the tests: one that serves until it is told to stop, and three that do not get that far.
const (
	good   Role = "good"
	failed Role = "failed"
	dies   Role = "dies"
)

func TestMain(m *testing.M) {
	runs[good] = func(ctx context.Context, _ spec, ready func()) error {
		fmt.Fprintln(os.Stderr, "working")
		ready()
		<-ctx.Done()
		fmt.Fprintln(os.Stderr, "stopped in order")
		return nil
	}
	runs[failed] = func(context.Context, spec, func()) error { return errors.New("no such database") }
	runs[dies] = func(context.Context, spec, func()) error {
		fmt.Fprintln(os.Stderr, "fatal: port taken")
		os.Exit(7)
		return nil
	}
	Child()
	if dir := os.Getenv("STACK_TEST_PARENT"); dir != "" {
		c, err := startChild(spec{Role: good, DataDir: dir}, os.Environ(), io.Discard)
		if err == nil {
			err = c.waitReady(context.Background())
		}
		fmt.Println(err)
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

// dataDir is as Start lays it out.
func dataDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "run"), 0o755))
	return dir
}

// logBuffer may be written and read at the same time.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAChildReportsReadyAndStopsInOrder(t *testing.T) {
	var log logBuffer
	c, err := startChild(spec{Role: good, DataDir: dataDir(t)}, os.Environ(), &log)
	require.NoError(t, err)
	require.NoError(t, c.waitReady(t.Context()))
	group, err := syscall.Getpgid(c.cmd.Process.Pid)
	require.NoError(t, err)
	require.Equal(t, c.cmd.Process.Pid, group, "a group of its own: Ctrl-C at the terminal is for the parent")
	require.NoError(t, c.stop(t.Context()))
	require.Equal(t, "working\nstopped in order\n", log.String())
	require.NoError(t, c.stop(t.Context()), "stopping twice is fine")
}

func TestAChildThatDoesNotStartSaysWhy(t *testing.T) {
	for role, why := range map[Role]string{failed: "no such database", dies: "fatal: port taken", "nonsense": "no role"} {
		c, err := startChild(spec{Role: role, DataDir: dataDir(t)}, os.Environ(), io.Discard)
		require.NoError(t, err)
		require.ErrorContains(t, c.waitReady(t.Context()), why)
		c.kill()
	}
}

func TestAChildEndsWithItsParent(t *testing.T) {
	dir := dataDir(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "STACK_TEST_PARENT="+dir)
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>\n", line)

	var held *filelock.Held
	_, err = filelock.Try(roleLock(dir, good))
	require.ErrorAs(t, err, &held, "the child lives")
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lock, err := filelock.Wait(ctx, roleLock(dir, good))
	require.NoError(t, err, "the child has ended")
	lock.Release()
}

func TestALeftoverOfAKilledRunIsStopped(t *testing.T) {
	dir := dataDir(t)
	c, err := startChild(spec{Role: good, DataDir: dir}, os.Environ(), io.Discard)
	require.NoError(t, err)
	require.NoError(t, c.waitReady(t.Context()))

	// Another of the same role is refused as long as it lives.
	second, err := startChild(spec{Role: good, DataDir: dir}, os.Environ(), io.Discard)
	require.NoError(t, err)
	require.ErrorContains(t, second.waitReady(t.Context()), "held by process")

	s := &Stack{dir: dir, opts: Options{Progress: func(string) {}}}
	require.NoError(t, s.stopLeftover(t.Context(), good))
	<-c.done
	require.NoError(t, s.stopLeftover(t.Context(), good), "nothing left")
}

func TestTwoStacksOnOneDirectoryExplainThemselves(t *testing.T) {
	dir := t.TempDir()
	lock, err := filelock.Try(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	defer lock.Release()
	_, err = Start(t.Context(), Options{DataDir: dir})
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprint("process ", os.Getpid()))
}

func TestATakenPublicAddressIsExplainedAndLeavesNothingRunning(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dir := t.TempDir()
	_, err = Start(t.Context(), Options{DataDir: dir, Addr: l.Addr().String()})
	var taken *Taken
	require.ErrorAs(t, err, &taken)
	require.Equal(t, l.Addr().String(), taken.Addr)
	require.NoDirExists(t, filepath.Join(dir, "postgres"))
	lock, err := filelock.Try(filepath.Join(dir, "lock"))
	require.NoError(t, err, "the directory is free again")
	lock.Release()
}

func TestAPortThatIsTakenIsReplacedAndNoted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	want := l.Addr().(*net.TCPAddr).Port
	var s Stack
	port, err := s.port("Temporal", want)
	require.NoError(t, err)
	require.NotEqual(t, want, port)
	require.Len(t, s.Moved, 1)
	require.Contains(t, s.Moved[0], fmt.Sprint("127.0.0.1:", want, " is taken"))
}

func TestWhoListens(t *testing.T) {
	require.Equal(t, "process 4242 (nginx)",
		parseSS(`LISTEN 0 4096 127.0.0.1:8080 0.0.0.0:* users:(("nginx",pid=4242,fd=6))`+"\n"))
	require.Empty(t, parseSS("LISTEN 0 4096 127.0.0.1:8080 0.0.0.0:*\n"), "someone else's process")
	require.Equal(t, "process 77 (node)", parseLsof("p77\ncnode\nf23\n"))
	require.Empty(t, parseLsof(""))
}

func TestAddressesForBrowsers(t *testing.T) {
	for listen, browse := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080", ":8080": "127.0.0.1:8080", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", "dev.local:80": "dev.local:80",
	} {
		require.Equal(t, browse, browsable(listen))
	}
}

func TestTheProductsEnvironment(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "their.cluster:7233")
	t.Setenv("AFTERSEND_DELIVERY__RETRIES", "3")
	s := &Stack{dir: "/data", uiPort: 1, Addresses: Addresses{DatabaseURL: "postgres://here/aftersend", Temporal: "127.0.0.1:1"},
		opts: Options{Fast: true, Addr: "127.0.0.1:8080"}}
	s.Setenv(Serve, "AFTERSEND_CRASH=intake_after_insert")
	s.Setenv(Serve, "AFTERSEND_LOG__LEVEL=debug")
	env := environ{}
	for _, kv := range s.environment(Serve) {
		env.set(kv)
	}
	require.NotContains(t, env, "TEMPORAL_ADDRESS", "another cluster is left alone")
	require.Equal(t, "127.0.0.1:1", env["AFTERSEND_TEMPORAL__ADDRESS"])
	require.Equal(t, "postgres://here/aftersend", env["AFTERSEND_DATABASE__URL"])
	require.Equal(t, "3", env["AFTERSEND_DELIVERY__RETRIES"], "what a person set stays")
	require.Equal(t, "2s", env["AFTERSEND_DELIVERY__RETRY_INTERVAL"])
	require.Equal(t, "intake_after_insert", env["AFTERSEND_CRASH"])
	require.Equal(t, "debug", env["AFTERSEND_LOG__LEVEL"])
	require.NotContains(t, strings.Join(s.environment(Temporal), "\n"), "AFTERSEND_CRASH")
}

func TestDatabasesAreMadeOnce(t *testing.T) {
	u, err := url.Parse(storetest.URL(t))
	require.NoError(t, err)
	u.Path += "_new"
	d, err := databasesOf(u.String())
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, d.ensure(t.Context()))
	}
	for _, database := range []string{d.product, d.temporal, d.visibility} {
		require.NoError(t, execute(t.Context(), database, "CREATE TABLE IF NOT EXISTS t ()"))
	}

	_, err = databasesOf("postgres://host")
	require.Error(t, err)
	u.User = url.UserPassword("aftersend", "hunter2")
	err = ensureDatabase(t.Context(), u.String())
	require.ErrorContains(t, err, u.Host)
	require.NotContains(t, err.Error(), "hunter2")
}

func TestCPUTimeOfAProcessTree(t *testing.T) {
	before, err := treeCPU(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("Linux only")
	}
	require.NoError(t, err)
	require.NoError(t, exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").Run())
	after, err := treeCPU(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before, "a child that has ended counts")
}
