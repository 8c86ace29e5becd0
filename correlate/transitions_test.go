package correlate_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/correlate"
	"aftersend/event"
)

var update = flag.Bool("update", false, "write the tables in docs/messages.md")

// histories are a message in each status, as it usually gets there.
var histories = []struct {
	name   string
	events []*event.Event
}{
	{"(none)", nil},
	{"unknown", []*event.Event{said(event.Autoresponded, 0)}},
	{"queued", []*event.Event{said(event.Queued, 0)}},
	{"sent", []*event.Event{said(event.Queued, 0), said(event.Sent, 1)}},
	{"deferred", []*event.Event{said(event.Sent, 1), said(event.Deferred, 2)}},
	{"expired", []*event.Event{said(event.Sent, 1), said(event.Deferred, 2), said(event.Expired, 3)}},
	{"delivered", []*event.Event{said(event.Sent, 1), said(event.Delivered, 3)}},
	{"bounced", []*event.Event{said(event.Sent, 1), said(event.Bounced, 3)}},
	{"rejected", []*event.Event{said(event.Queued, 0), said(event.Rejected, 3)}},
	{"failed", []*event.Event{said(event.Queued, 0), said(event.Failed, 3)}},
	{"bounced*", []*event.Event{said(event.Delivered, 3), said(event.Bounced, 3, later)}},
}

// told are the events that come next; those in one row do the same.
var told = []struct {
	name  string
	types []event.Type
	with  []func(*event.Event)
}{
	{"queued", []event.Type{event.Queued}, nil},
	{"sent", []event.Type{event.Sent}, nil},
	{"deferred", []event.Type{event.Deferred}, nil},
	{"expired", []event.Type{event.Expired}, nil},
	{"delivered, opened, clicked, complained, unsubscribed",
		[]event.Type{event.Delivered, event.Opened, event.Clicked, event.Complained, event.Unsubscribed}, nil},
	{"bounced", []event.Type{event.Bounced}, nil},
	{"rejected", []event.Type{event.Rejected}, nil},
	{"failed", []event.Type{event.Failed}, nil},
	{"bounced*", []event.Type{event.Bounced}, []func(*event.Event){later}},
	{"subscribed, autoresponded, unknown", []event.Type{event.Subscribed, event.Autoresponded, event.Unknown}, nil},
}

// transitions is the table status × event → status for an event of that minute.
func transitions(t *testing.T, minute int) string {
	var b strings.Builder
	b.WriteString("| status | " + strings.Join(names(), " | ") + " |\n|---" + strings.Repeat("|---", len(told)) + "|\n")
	for _, h := range histories {
		fmt.Fprintf(&b, "| **%s** ", h.name)
		for _, next := range told {
			var results []string
			for _, kind := range next.types {
				e := said(kind, minute, next.with...)
				m, change := correlate.Apply(apply(h.events...), e, keyOf(e))
				require.Equal(t, change.After, m.Facts())
				results = append(results, spell(change.After))
			}
			require.Len(t, slices.Compact(results), 1, "%s: %s", h.name, next.name)
			cell := results[0]
			if cell == h.name {
				cell = "·"
			}
			fmt.Fprintf(&b, "| %s ", cell)
		}
		b.WriteString("|\n")
	}
	return b.String()
}

func names() []string {
	all := make([]string, len(told))
	for i := range told {
		all[i] = told[i].name
	}
	return all
}

func spell(f correlate.Facts) string {
	if f.Asynchronous {
		return string(f.Status) + "*"
	}
	return string(f.Status)
}

// Every type is in the table, and the page says what the code does.
//
//	go test ./correlate -run Documented -update
func TestTransitionsAreAsDocumented(t *testing.T) {
	for _, kind := range event.Types {
		require.True(t, slices.ContainsFunc(told, func(n struct {
			name  string
			types []event.Type
			with  []func(*event.Event)
		}) bool {
			return slices.Contains(n.types, kind)
		}), "%s", kind)
	}
	path := filepath.Join("..", "docs", "messages.md")
	page, err := os.ReadFile(path)
	require.NoError(t, err)
	want := section(t, string(page), "later", transitions(t, 9))
	want = section(t, want, "earlier", transitions(t, -9))
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(page), "go test ./correlate -run Documented -update writes it")
}

// section replaces what stands between the marks of a section.
func section(t *testing.T, page, name, content string) string {
	begin, end := "<!-- "+name+": made by correlate/transitions_test.go -->\n", "<!-- end of "+name+" -->\n"
	before, rest, ok := strings.Cut(page, begin)
	require.True(t, ok, name)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok, name)
	return before + begin + "\n" + content + "\n" + end + after
}
