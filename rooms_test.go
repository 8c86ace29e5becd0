// Package aftersend_test keeps the map of the rooms: which package may import
// which. A broken arrow usually means that code sits in the wrong room; the
// failure says where it belongs.
package aftersend_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// layers are the rooms from the bottom up. A room may import rooms of lower
// layers, and rooms beneath itself (esp/espkit for esp/mandrill).
var layers = [][]string{
	{"id", "event", "crash", "config", "migrations", "pglocal"},
	{"seal", "outbound"},
	{"esp", "bounce", "correlate", "webhook", "notify", "watch"},
	{"store"},
	{"activities"},
	{"workflows"},
	{"intake", "worker", "manage"},
	{"api", "smtpd", "web"},
	{"app"},
	{"cmd"},
}

// pure rooms think: no database, no workflow engine, no HTTP framework, no
// file system, no network.
var pure = map[string]bool{"event": true, "correlate": true, "webhook": true, "bounce": true, "watch": true}

// meaning says what belongs in a room, for the failure message.
var meaning = map[string]string{
	"event":      "the canonical model",
	"esp":        "understanding one ESP's callbacks",
	"correlate":  "the message state machine",
	"webhook":    "filters, payloads, signatures, verdicts",
	"outbound":   "the safe HTTP client",
	"notify":     "mails to people",
	"watch":      "whether counts are out of the ordinary",
	"store":      "SQL",
	"activities": "load, call a pure room, save",
	"workflows":  "deciding: the order of steps, timers, signals",
	"intake":     "from requests to groups to workflows",
	"worker":     "registering workflows and activities",
	"manage":     "what people do to webhooks, sources and tokens",
	"api":        "HTTP in",
	"app":        "wiring rooms into roles",
}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Doc          string
	Name         string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	lookAtSources(t)
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Doc,Name", "./...").Output()
	require.NoError(t, err)
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err)
		}
		all = append(all, p)
	}
}

// lookAtSources makes the sources an input of the tests that list them, so that
// a cached result is not taken for the result on a changed tree.
func lookAtSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && len(path) > 1 && entry.Name()[0] == '.' {
			return fs.SkipDir
		}
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	require.NoError(t, err)
}

// room is the top folder of one of our packages, or "".
func room(importPath string) string {
	rest, ok := strings.CutPrefix(importPath, "aftersend/")
	if !ok {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

func level(name string) int {
	for i, l := range layers {
		for _, r := range l {
			if r == name {
				return i
			}
		}
	}
	return -1
}

func TestArrowsGoOneWay(t *testing.T) {
	for _, p := range packages(t) {
		from := room(p.ImportPath)
		if from == "" {
			continue
		}
		require.NotEqual(t, -1, level(from), "room %s/ is not on the map in rooms_test.go: add it to a layer", from)
		for _, imported := range p.Imports {
			to := room(imported)
			if to == "" || to == from {
				continue
			}
			require.Less(t, level(to), level(from), "%s imports %s: the arrow points up. %s/ is for %s; what needs %s belongs there or above",
				p.ImportPath, imported, from, meaning[from], to)
		}
	}
}

func TestAdaptersAreKnownInOnePlaceOnly(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			rest, ok := strings.CutPrefix(imported, "aftersend/esp/")
			if !ok || strings.HasPrefix(p.ImportPath, "aftersend/esp/") {
				continue
			}
			switch rest {
			case "all", "capture", "keyring":
			default:
				t.Errorf("%s imports the adapter %s: only esp/all may; ask the adapter's Description instead", p.ImportPath, imported)
			}
		}
	}
}

func TestWorkflowsOnlyDecide(t *testing.T) {
	for _, p := range packages(t) {
		if room(p.ImportPath) != "workflows" {
			continue
		}
		for _, imported := range p.Imports {
			for _, no := range []string{"aftersend/store", "aftersend/esp", "aftersend/outbound", "database/sql", "net/http", "os"} {
				require.False(t, imported == no || strings.HasPrefix(imported, no+"/"),
					"workflow code imports %s: doing belongs in an activity", imported)
			}
		}
	}
}

func TestPureRoomsDoNoIO(t *testing.T) {
	for _, p := range packages(t) {
		if !pure[room(p.ImportPath)] {
			continue
		}
		for _, imported := range p.Imports {
			for _, no := range []string{"database/sql", "github.com/jmoiron/sqlx", "github.com/lib/pq", "go.temporal.io", "github.com/gin-gonic", "os"} {
				require.False(t, imported == no || strings.HasPrefix(imported, no+"/"), "%s is a pure room and imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestTheProductDoesNotKnowTheServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/...").Output()
	require.NoError(t, err)
	for dep := range strings.Lines(string(out)) {
		require.False(t, strings.HasPrefix(dep, "go.temporal.io/server/") || strings.HasPrefix(dep, "github.com/temporalio/ui-server"),
			"the product links %s: the Temporal server belongs to the module dev/", strings.TrimSpace(dep))
	}
}

func TestEveryRoomSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if room(p.ImportPath) == "" || p.Name == "main" && p.Doc == "" && strings.Contains(p.ImportPath, "/testdata/") {
			continue
		}
		require.NotEmpty(t, p.Doc, "%s has no package comment", p.ImportPath)
	}
}
