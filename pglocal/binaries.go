package pglocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"

	"aftersend/pglocal/filelock"
)

// minMajor is the oldest PostgreSQL the product supports: DETACH PARTITION CONCURRENTLY came with 14.
const minMajor = 14

// fetchVersion is what is fetched where a machine has no PostgreSQL of its own.
const fetchVersion = embedded.V17

// Binaries is an installation of the PostgreSQL server.
type Binaries struct {
	Dir     string // holds initdb and postgres
	Version string // as `postgres --version` tells it, "15.18"
	Major   int    // 15
}

// ErrNoBinaries marks the error of Find that says where it looked and how to get PostgreSQL.
var ErrNoBinaries = errors.New("no PostgreSQL server binaries found")

// Find returns the PostgreSQL installation to use: AFTERSEND_PG_BIN, PATH, `pg_config --bindir`, then the newest below the usual
// system directories. Where there is none, one is fetched once into the user's cache, unless this runs as root.
// The error, ErrNoBinaries, lists what was tried.
func Find(ctx context.Context) (Binaries, error) {
	return machine(0).find(ctx)
}

// finder is where to look; the tests bring a machine of their own.
type finder struct {
	getenv   func(string) string
	bindir   func() (string, error)  // what pg_config says
	patterns []string                // directories of system packages
	version  func(dir string) string // "" when dir has no usable server
	fetch    func(context.Context) (string, error)
	want     int // a cluster's major version, which the binaries must have; 0 = any
}

func machine(want int) finder {
	f := finder{
		getenv: os.Getenv,
		bindir: func() (string, error) {
			out, err := exec.Command("pg_config", "--bindir").Output()
			return strings.TrimSpace(string(out)), err
		},
		patterns: []string{
			"/usr/lib/postgresql/*/bin",            // Debian, Ubuntu
			"/usr/pgsql-*/bin",                     // PGDG on Red Hat and friends
			"/opt/homebrew/opt/postgresql@*/bin",   // Homebrew, Apple silicon
			"/usr/local/opt/postgresql@*/bin",      // Homebrew, Intel
			"/Applications/Postgres.app/*/*/*/bin", // Postgres.app
			"/usr/local/pgsql/bin", "/usr/lib64/pgsql/*/bin",
		},
		version: serverVersion,
		want:    want,
	}
	if os.Geteuid() != 0 {
		f.fetch = fetchOnce
	}
	return f
}

func (f finder) find(ctx context.Context) (Binaries, error) {
	var tried []string
	note := func(where, what string) { tried = append(tried, fmt.Sprintf("  %-28s %s", where, what)) }
	try := func(where, dir string) (Binaries, bool) {
		b := Binaries{Dir: dir, Version: f.version(dir)}
		b.Major = majorOf(b.Version)
		switch {
		case b.Version == "":
			note(where, dir+" has no working initdb and postgres")
		case b.Major < minMajor:
			note(where, fmt.Sprintf("%s is PostgreSQL %s; %d or newer is needed", dir, b.Version, minMajor))
		case f.want != 0 && b.Major != f.want:
			note(where, fmt.Sprintf("%s is PostgreSQL %s; the cluster was made by %d", dir, b.Version, f.want))
		default:
			return b, true
		}
		return Binaries{}, false
	}

	if dir := f.getenv("AFTERSEND_PG_BIN"); dir == "" {
		note("AFTERSEND_PG_BIN", "is not set")
	} else if b, ok := try("AFTERSEND_PG_BIN", dir); ok {
		return b, nil
	} else {
		return b, f.notFound(tried) // what someone asked for is not silently replaced
	}
	inPath := false
	for _, dir := range filepath.SplitList(f.getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			inPath = true
			if b, ok := try("PATH", dir); ok {
				return b, nil
			}
		}
	}
	if !inPath {
		note("PATH", "has no initdb")
	}
	if dir, err := f.bindir(); err != nil {
		note("pg_config --bindir", "does not run")
	} else if b, ok := try("pg_config --bindir", dir); ok {
		return b, nil
	}
	for _, pattern := range f.patterns {
		dirs, _ := filepath.Glob(pattern)
		sort.Slice(dirs, func(i, j int) bool { return majorOf(f.version(dirs[i])) > majorOf(f.version(dirs[j])) })
		for _, dir := range dirs {
			if b, ok := try(pattern, dir); ok {
				return b, nil
			}
		}
		if len(dirs) == 0 {
			note(pattern, "does not exist")
		}
	}
	if f.fetch == nil {
		note("fetch into the user's cache", "is not done as root")
		return Binaries{}, f.notFound(tried)
	}
	dir, err := f.fetch(ctx)
	if err != nil {
		note("fetch into the user's cache", err.Error())
	} else if b, ok := try("fetch into the user's cache", dir); ok {
		return b, nil
	}
	return Binaries{}, f.notFound(tried)
}

func (f finder) notFound(tried []string) error {
	which := ""
	if f.want != 0 {
		which = fmt.Sprintf(" for a cluster of PostgreSQL %d", f.want)
	}
	return fmt.Errorf(`%w%s. Looked at:
%s
To get them: apt-get install postgresql | dnf install postgresql-server | brew install postgresql@17,
or set AFTERSEND_PG_BIN to the directory that holds initdb and postgres`, ErrNoBinaries, which, strings.Join(tried, "\n"))
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)*`)

// serverVersion is the version of the server in dir, or "" when initdb or postgres is missing there or does not run.
func serverVersion(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return ""
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return ""
	}
	return versionNumber.FindString(string(out))
}

func majorOf(version string) int {
	major, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(major)
	return n
}

// fetchOnce downloads the binaries of the embedded-postgres project into the user's cache, unless they are there.
// Its library only fetches as part of starting a server, so a throw-away cluster is started and stopped.
func fetchOnce(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "aftersend", "postgresql-"+string(fetchVersion))
	bin := filepath.Join(home, "bin")
	if serverVersion(bin) != "" {
		return bin, nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	lock, err := filelock.Wait(ctx, filepath.Join(home, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Release()
	if serverVersion(bin) != "" {
		return bin, nil
	}
	scratch, err := os.MkdirTemp("", "aftersend-fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	port, err := freePort()
	if err != nil {
		return "", err
	}
	pg := embedded.NewDatabase(embedded.DefaultConfig().Version(fetchVersion).Port(uint32(port)).
		CachePath(filepath.Join(home, "download")).BinariesPath(home).RuntimePath(filepath.Join(scratch, "run")).
		StartTimeout(time.Minute).Logger(io.Discard))
	fetched := make(chan error, 1)
	go func() {
		err := pg.Start()
		if err == nil {
			err = pg.Stop()
		}
		fetched <- err
	}()
	select {
	case err := <-fetched:
		return bin, err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// freePort is a TCP port of the loopback interface that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
