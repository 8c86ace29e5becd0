// Package esptest holds every adapter to the same rules. A new adapter's test
// is one line:
//
//	func TestAdapter(t *testing.T) { esptest.Run(t, mandrill.Adapter{}) }
//
// Beside it, testdata holds captured requests (*.request.json or *.http, see
// package capture), for each the events it must give (*.events.json), and
// _keys.json with the keys they are signed with. An expectation is a list of
// events in their native form, {"error": "why"} when nothing can be read, or
// both. `go test ./esp/… -update` writes expectations anew; read the diff.
//
// Where a shared corpus lies beside the module (../shared/corpus/esp), its
// cases are run as well.
package esptest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/event"
)

var update = flag.Bool("update", false, "write the expectations in testdata anew")

// Option says in what an adapter differs from most.
type Option int

const (
	// BodyUnsigned says that the ESP's signature does not cover the body
	// (Mailgun) or not all of it (Amazon SNS), so that a changed body need not
	// be noticed.
	BodyUnsigned Option = iota + 1
	// SignatureInBody says that the signature is part of the body, so that a
	// post without its headers is signed all the same.
	SignatureInBody
)

// Run runs the suite.
func Run(t *testing.T, a esp.Adapter, options ...Option) {
	t.Helper()
	own := load(t, "testdata", "_keys.json")
	require.NotEmpty(t, own.cases, "testdata holds no captured requests")
	sets := []set{own}
	if dir := corpus(a.Describe().Name); dir != "" {
		sets = append(sets, load(t, dir, "../_keys.json"))
	}
	t.Run("describes itself", func(t *testing.T) { describes(t, a) })
	t.Run("fixtures", func(t *testing.T) {
		for i, s := range sets {
			for _, c := range s.cases {
				t.Run(filepath.Base(filepath.Dir(c.path))+"/"+c.name, func(t *testing.T) { c.run(t, a, s.keys, i == 0) })
			}
		}
	})
	t.Run("own fixtures cover the event map", func(t *testing.T) { covers(t, a, own) })
	t.Run("survives any input", func(t *testing.T) { survives(t, a, sets) })
	t.Run("takes linear time", func(t *testing.T) { linear(t, a, own) })
	if v, ok := a.(esp.Verifier); ok {
		t.Run("refuses forgeries", func(t *testing.T) { forgeries(t, a, v, sets, options) })
	}
	if s, ok := a.(esp.Sampler); ok {
		t.Run("samples", func(t *testing.T) { samples(t, a, s, own) })
	}
}

// Fuzz looks for input that breaks the rules that hold for any input:
//
//	func FuzzParse(f *testing.F) { esptest.Fuzz(f, mandrill.Adapter{}) }
func Fuzz(f *testing.F, a esp.Adapter) {
	for _, c := range load(f, "testdata", "_keys.json").cases {
		f.Add(c.capture.Request.Method, c.capture.Request.RawQuery, c.capture.Request.Header.Get("Content-Type"), c.capture.Request.Body)
	}
	f.Fuzz(func(t *testing.T, method, query, contentType string, body []byte) {
		req := post(contentType, body)
		req.Method, req.RawQuery = method, query
		parseAny(t, a, req)
	})
}

// set is a folder of fixtures with its keys.
type set struct {
	cases []fixture
	keys  *capture.KeyFile
}

func load(t testing.TB, dir, keyFile string) set {
	t.Helper()
	var s set
	base := capture.DefaultBaseURL
	if path := filepath.Join(dir, keyFile); exists(path) {
		keys, err := capture.ReadKeys(path)
		require.NoError(t, err)
		s.keys, base = keys, keys.BaseURL
	}
	for _, ending := range []string{".request.json", ".http"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*"+ending))
		require.NoError(t, err)
		for _, path := range paths {
			c, err := capture.ReadFile(path, base)
			require.NoError(t, err, path)
			s.cases = append(s.cases, fixture{name: strings.TrimSuffix(filepath.Base(path), ending), path: path, ending: ending, capture: c})
		}
	}
	return s
}

// corpus returns the folder of an ESP's shared cases, "" when there is none.
func corpus(name string) string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if exists(filepath.Join(dir, "go.mod")) {
			shared := filepath.Join(dir, "..", "shared", "corpus", "esp", name)
			if exists(shared) {
				return shared
			}
			return ""
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// describes checks that the description leaves nothing open.
func describes(t *testing.T, a esp.Adapter) {
	d := a.Describe()
	require.Regexp(t, `^[a-z0-9]+$`, d.Name)
	require.NotEmpty(t, d.Title)
	require.Regexp(t, `^https://`, d.DocsURL)
	require.NotEmpty(t, d.Protection, "what keeps a forger out?")
	require.NotEmpty(t, d.Retry, "what does the ESP do when it gets no 200?")
	require.Contains(t, []int{429, 503}, d.RetryStatus)
	for _, alias := range d.Aliases {
		require.Equal(t, strings.ToLower(alias), alias)
	}
	guide := ""
	for _, step := range d.SetUp {
		require.NotEmpty(t, step.Text)
		guide += step.Text
	}
	require.Contains(t, guide, "{url}", "the set-up guide says where the URL goes")
	for _, f := range d.Fields {
		require.Regexp(t, `^[a-z][a-z0-9_]*$`, f.Name)
		require.NotEmpty(t, f.Label, f.Name)
		require.NotEmpty(t, f.Help, f.Name)
	}
	if _, ok := a.(esp.Verifier); ok {
		require.NotEmpty(t, d.Fields, "what is Verify to work with?")
	}
	require.NotEmpty(t, d.Types)
	seen := map[string]bool{}
	for _, m := range d.Types {
		require.NotEmpty(t, m.Theirs)
		require.False(t, seen[m.Theirs], "%s is listed twice", m.Theirs)
		require.True(t, m.Ours.Known(), "%s: %q is no event type", m.Theirs, m.Ours)
		require.NotEqual(t, event.Expired, m.Ours, "expired is our own word")
		seen[m.Theirs] = true
	}
	require.True(t, exists("README.md"), "the adapter's README names its sources and quirks")
}

// covers checks that every line of the event map is seen in a fixture, and an
// unknown type as well.
func covers(t *testing.T, a esp.Adapter, own set) {
	seen := map[esp.TypeMapping]bool{}
	mapped := map[string]bool{}
	for _, m := range a.Describe().Types {
		mapped[m.Theirs] = true
	}
	news := false
	for _, c := range own.cases {
		result, _ := a.Parse(c.capture.Request)
		for _, e := range result.Events {
			seen[esp.TypeMapping{Theirs: e.ESPType, Ours: e.Type}] = true
			if !mapped[e.ESPType] {
				news = true
				require.Equal(t, event.Unknown, e.Type, "%s: %q is not in the event map", c.name, e.ESPType)
			}
		}
	}
	for _, m := range a.Describe().Types {
		require.True(t, seen[esp.TypeMapping{Theirs: m.Theirs, Ours: m.Ours}], "no fixture shows that %q is %s", m.Theirs, m.Ours)
	}
	require.True(t, news, "no fixture has a type that the adapter does not know")
}
