package all_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/esp/capture"
	"aftersend/event"
)

// TestEveryFolderIsListed: a folder under esp whose package has an Adapter is
// in the list, under the folder's name.
func TestEveryFolderIsListed(t *testing.T) {
	sources, err := filepath.Glob("../*/*.go")
	require.NoError(t, err)
	found := map[string]bool{}
	for _, path := range sources {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		if regexp.MustCompile(`(?m)^type Adapter struct`).Match(text) {
			found[filepath.Base(filepath.Dir(path))] = true
		}
	}
	require.NotEmpty(t, found)
	for name := range found {
		a, ok := all.ByName(name)
		require.True(t, ok, "esp/%s is not listed in esp/all", name)
		require.Equal(t, name, a.Describe().Name, "an adapter is named after its folder")
	}
	require.Len(t, all.Adapters(), len(found))
}

func TestNames(t *testing.T) {
	var names []string
	seen := map[string]string{}
	for _, a := range all.Adapters() {
		d := a.Describe()
		names = append(names, d.Name)
		for _, name := range append([]string{d.Name}, d.Aliases...) {
			require.Empty(t, seen[name], "%s is claimed twice", name)
			seen[name] = d.Name
			got, ok := all.ByName(name)
			require.True(t, ok)
			require.Equal(t, d.Name, got.Describe().Name)
		}
	}
	require.True(t, slices.IsSorted(names), "the list is in the order of names")
	_, ok := all.ByName("Mandrill")
	require.True(t, ok, "case does not matter")
	_, ok = all.ByName("no such ESP")
	require.False(t, ok)
}

// TestRetriedIsDeferredGivenUpIsBounced: the same outcome has the same type
// whichever ESP reports it. The words give most of them away; where one could
// be read both ways ("soft bounce"), the adapter says on whose word it is so.
func TestRetriedIsDeferredGivenUpIsBounced(t *testing.T) {
	retried := regexp.MustCompile(`(?i)defer|delay|transient|greylist|retry|temporar|suspen`)
	final := regexp.MustCompile(`(?i)hard.?bounce|permanent|^bounce$|^bounced$|undeliver`)
	either := regexp.MustCompile(`(?i)soft`)
	for _, a := range all.Adapters() {
		d := a.Describe()
		for _, m := range d.Types {
			switch {
			case either.MatchString(m.Theirs):
				require.Contains(t, []event.Type{event.Deferred, event.Bounced}, m.Ours, "%s %q", d.Name, m.Theirs)
				require.NotEmpty(t, m.Note, "%s %q: does the ESP try again? The note says so", d.Name, m.Theirs)
			case retried.MatchString(m.Theirs):
				require.Equal(t, event.Deferred, m.Ours, "%s %q", d.Name, m.Theirs)
			case final.MatchString(m.Theirs) && m.Note == "":
				require.Equal(t, event.Bounced, m.Ours, "%s %q", d.Name, m.Theirs)
			}
		}
	}
}

// TestBouncesAndDeferralsInFixtures holds what callbacks say to the same rule:
// a deferral is never hard, a bounce never open, whatever the reply code.
func TestBouncesAndDeferralsInFixtures(t *testing.T) {
	seen := map[event.Type]int{}
	for _, a := range all.Adapters() {
		paths, err := filepath.Glob(filepath.Join("..", a.Describe().Name, "testdata", "*.request.json"))
		require.NoError(t, err)
		for _, path := range paths {
			c, err := capture.ReadFile(path, capture.DefaultBaseURL)
			require.NoError(t, err)
			result, _ := a.Parse(c.Request)
			for _, e := range result.Events {
				seen[e.Type]++
				switch e.Type {
				case event.Deferred:
					require.NotEqual(t, event.Hard, e.BounceType, path)
				case event.Bounced:
					require.NotEmpty(t, e.BounceType, path)
				default:
					require.Empty(t, e.BounceType, path)
				}
			}
		}
	}
	require.Positive(t, seen[event.Deferred])
	require.Positive(t, seen[event.Bounced])
}

// BenchmarkParse is the price of one callback with one event.
func BenchmarkParse(b *testing.B) {
	for _, a := range all.Adapters() {
		s, ok := a.(esp.Sampler)
		if !ok {
			continue
		}
		b.Run(a.Describe().Name, func(b *testing.B) {
			req, err := s.Sample(event.Event{
				Type: event.Bounced, BounceType: event.Hard, Recipient: "ada@example.com", MessageID: "0193c1f0-aaaa-7000-8000-000000000001",
				EventID: "0193c1f0-bbbb-7000-8000-000000000001", Subject: "Your invoice 5521", Tags: []string{"invoice", "eu"},
				Metadata: map[string]any{"order": "A-5521", "campaign_id": 77}, Diagnostic: "550 5.1.1 <ada@example.com>: Recipient address rejected: User unknown",
			}, "https://hub.example.test/callbacks/x/token", nil, time.Unix(1767323045, 0))
			require.NoError(b, err)
			b.ReportAllocs()
			b.SetBytes(int64(len(req.Body)))
			for b.Loop() {
				if _, err := a.Parse(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
