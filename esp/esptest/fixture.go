package esptest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/event"
)

// fixture is a captured request with what it must give.
type fixture struct {
	name, path, ending string
	capture            capture.Capture
}

// expectation is what a *.events.json says.
type expectation struct {
	Error  string           `json:"error,omitempty"`
	Events []map[string]any `json:"events"`
}

// run checks one fixture. Own expectations are complete; those of a shared
// corpus name some fields only, and null there means absent.
func (c fixture) run(t *testing.T, a esp.Adapter, keys *capture.KeyFile, own bool) {
	if own && c.ending == ".request.json" {
		require.NotEmpty(t, c.capture.Source, "say where the form of this request comes from")
	}
	result, err := a.Parse(c.capture.Request)
	if own && *update {
		c.write(t, result, err)
	}
	want := c.expectation(t)
	if want.Error == "" {
		require.NoError(t, err)
		require.Empty(t, result.Problems)
	} else {
		require.True(t, err != nil || len(result.Problems) > 0, "expected a problem: %s", want.Error)
	}
	require.Equal(t, len(want.Events) == 0 && want.Error != "", err != nil, "an error is for callbacks that say nothing readable: %v", err)
	require.Len(t, result.Events, len(want.Events))
	for i, e := range result.Events {
		if different := compare(native(t, e), want.Events[i], own); len(different) > 0 {
			t.Errorf("event %d:\n  %s", i, strings.Join(different, "\n  "))
		}
	}
	c.authenticity(t, a, keys)
}

func (c fixture) authenticity(t *testing.T, a esp.Adapter, keys *capture.KeyFile) {
	if c.capture.Auth == nil {
		return
	}
	verifier, ok := a.(esp.Verifier)
	require.True(t, ok, "the capture is signed, the adapter cannot verify")
	v, ok := keys.Verification(a)
	require.True(t, ok, "no keys to judge the capture with")
	err := verifier.Verify(t.Context(), c.capture.Request, v)
	if c.capture.Auth.Valid {
		require.NoError(t, err)
	} else {
		require.ErrorIs(t, err, esp.ErrForged)
	}
}

func (c fixture) expectationPath() string {
	return filepath.Join(filepath.Dir(c.path), c.name+".events.json")
}

func (c fixture) expectation(t *testing.T) expectation {
	t.Helper()
	data, err := os.ReadFile(c.expectationPath())
	require.NoError(t, err, "every request has its expectation; -update writes it")
	var want expectation
	target := any(&want)
	if data = bytes.TrimSpace(data); data[0] == '[' {
		target = &want.Events
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	require.NoError(t, d.Decode(target), c.expectationPath())
	return want
}

func (c fixture) write(t *testing.T, result esp.Result, err error) {
	t.Helper()
	events := result.Events
	if events == nil {
		events = []event.Event{}
	}
	var out any = events
	why := ""
	if err != nil {
		why = err.Error()
	} else if len(result.Problems) > 0 {
		why = fmt.Sprintf("record %d: %s", result.Problems[0].Record, result.Problems[0].Reason)
	}
	if why != "" {
		out = map[string]any{"error": why, "events": events}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	require.NoError(t, encoder.Encode(out))
	require.NoError(t, os.WriteFile(c.expectationPath(), b.Bytes(), 0o644))
}

// native returns an event as its JSON says it.
func native(t testing.TB, e event.Event) map[string]any {
	t.Helper()
	data, err := json.Marshal(e)
	require.NoError(t, err)
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	require.NoError(t, d.Decode(&m))
	return m
}

// compare lists the fields that differ. Absent, null, [] and {} are the same;
// times are equal within a millisecond, numbers by value.
func compare(got, want map[string]any, complete bool) []string {
	var different []string
	for name, w := range want {
		if g := got[name]; !same(name, g, w) {
			different = append(different, fmt.Sprintf("%s: got %v, want %v", name, show(g), show(w)))
		}
	}
	for name, g := range got {
		if _, named := want[name]; complete && !named && !empty(g) {
			different = append(different, fmt.Sprintf("%s: got %v, want nothing", name, show(g)))
		}
	}
	slices.Sort(different)
	return different
}

func same(name string, got, want any) bool {
	if empty(got) || empty(want) {
		return empty(got) && empty(want)
	}
	if name == "occurred_at" {
		g, err1 := time.Parse(time.RFC3339Nano, fmt.Sprint(got))
		w, err2 := time.Parse(time.RFC3339Nano, fmt.Sprint(want))
		return err1 == nil && err2 == nil && g.Sub(w).Abs() <= time.Millisecond
	}
	return equal(got, want)
}

func equal(got, want any) bool {
	switch w := want.(type) {
	case json.Number:
		g, ok := got.(json.Number)
		if !ok {
			return false
		}
		a, ok1 := new(big.Rat).SetString(g.String())
		b, ok2 := new(big.Rat).SetString(w.String())
		return ok1 && ok2 && a.Cmp(b) == 0
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(g, w, equal)
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for name := range w {
			if _, there := g[name]; !there || !equal(g[name], w[name]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func show(v any) string {
	if empty(v) {
		return "nothing"
	}
	return fmt.Sprintf("%#v", v)
}
