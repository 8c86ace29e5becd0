package all_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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

// outcomes are the words in which each ESP says that it will try again, and
// that it has given up or that a bounce came later: read from its documents,
// not from its adapter. A word of nobody's list is neither.
var outcomes = map[string]struct{ retried, final []string }{
	"brevo": {[]string{"deferred"}, []string{"soft_bounce", "hard_bounce", "invalid_email"}},
	"elasticemail": {[]string{"Error.GreyListed", "Error.Throttled", "Error.Timeout", "Error.ConnectionProblem", "Error.ConnectionTerminated"},
		[]string{"Error.NoMailbox", "Error.AccountProblem", "Error.Spam", "Error.BlackListed", "Error.SPFProblem", "Error.DNSProblem",
			"Error.WhitelistingProblem", "Error.ContentFilter", "Error.NotDelivered", "Error.Unknown"}},
	"everlytic":  {nil, []string{"bounced", "bounce"}},
	"kumomta":    {[]string{"TransientFailure", "Delayed"}, []string{"Bounce", "Expiration", "OOB"}},
	"mailersend": {[]string{"activity.deferred"}, []string{"activity.soft_bounced", "activity.hard_bounced"}},
	"mailgun":    {[]string{"failed.temporary"}, []string{"failed.permanent", "failed.old", "failed", "bounced", "dropped.old"}},
	"mailjet":    {[]string{"bounce.greylisted"}, []string{"bounce"}},
	"mailtrap":   {[]string{"soft bounce", "soft_bounce", "suspension"}, []string{"bounce"}},
	"mandrill":   {[]string{"deferral"}, []string{"soft_bounce", "hard_bounce"}},
	"mumaraone":  {[]string{"deferred", "delayed", "t"}, []string{"bounced", "failed", "b", "rb"}},
	"postal":     {[]string{"MessageDelayed"}, []string{"MessageDeliveryFailed", "MessageBounced"}},
	"postmark": {[]string{"Transient", "DnsError", "OpenRelayTest"},
		[]string{"HardBounce", "SoftBounce", "VirusNotification", "SubscriptionChange.HardBounce"}},
	"powermta":    {[]string{"t", "rs.delayed"}, []string{"b", "rb", "rs.failed"}},
	"resend":      {[]string{"email.delivery_delayed"}, []string{"email.bounced"}},
	"scaleway":    {[]string{"email_deferred"}, []string{"email_dropped", "email_mailbox_not_found"}},
	"sendgrid":    {[]string{"deferred"}, []string{"bounce", "bounce.blocked"}},
	"ses":         {[]string{"DeliveryDelay"}, []string{"Bounce"}},
	"smtp2go":     {nil, []string{"bounce"}},
	"smtpeter":    {[]string{"bounce.delayed"}, []string{"failure", "bounce.failed"}},
	"sparkpost":   {[]string{"delay"}, []string{"bounce", "out_of_band"}},
	"unisendergo": {[]string{"soft_bounced.err_will_retry"}, []string{"soft_bounced", "hard_bounced"}},
}

// TestRetriedIsDeferredGivenUpIsBounced: the same outcome has the same type
// whichever ESP reports it, and every ESP that reports outcomes is held to it.
func TestRetriedIsDeferredGivenUpIsBounced(t *testing.T) {
	either := regexp.MustCompile(`(?i)soft`)
	require.Len(t, outcomes, len(all.Adapters()), "a new ESP: what are its words?")
	for _, a := range all.Adapters() {
		d := a.Describe()
		want, listed := outcomes[d.Name]
		require.True(t, listed, "%s: what are its words for an outcome?", d.Name)
		require.NotEmpty(t, want.final, d.Name)
		var deferred, bounced []string
		for _, m := range d.Types {
			switch m.Ours {
			case event.Deferred:
				deferred = append(deferred, m.Theirs)
			case event.Bounced:
				bounced = append(bounced, m.Theirs)
			}
			if either.MatchString(m.Theirs) && m.Theirs != "soft_bounced.err_will_retry" {
				require.NotEmpty(t, m.Note, "%s %q could be read both ways: the note says why it is %s", d.Name, m.Theirs, m.Ours)
			}
		}
		require.ElementsMatch(t, want.retried, deferred, "%s: the ESP will try again = deferred", d.Name)
		require.ElementsMatch(t, want.final, bounced, "%s: the ESP has given up = bounced", d.Name)
	}
}

// TestOutcomesOfSamples: what a sample says of an outcome survives the way to
// the ESP's words and back, with any kind of bounce.
func TestOutcomesOfSamples(t *testing.T) {
	for _, a := range all.Adapters() {
		name := a.Describe().Name
		s, ok := a.(esp.Sampler)
		require.True(t, ok, "%s makes no samples", name)
		for _, ev := range []event.Event{
			{Type: event.Deferred, Diagnostic: "451 4.7.1 Try again later"},
			{Type: event.Bounced, BounceType: event.Hard, Diagnostic: "550 5.1.1 User unknown"},
			{Type: event.Bounced, BounceType: event.Soft, Diagnostic: "452 4.2.2 Mailbox full"},
			{Type: event.Bounced, BounceType: event.Hard, Asynchronous: event.Bool(true), Diagnostic: "550 5.1.1 User unknown"},
		} {
			if ev.Type == event.Deferred && outcomes[name].retried == nil {
				continue
			}
			ev.Recipient, ev.MessageID = "ada@example.com", "m1"
			req, err := s.Sample(ev, "https://hub.example.test/callbacks/"+name+"/token", nil, time.Unix(1767323045, 0))
			require.NoError(t, err, "%s %+v", name, ev)
			result, err := a.Parse(req)
			require.NoError(t, err, name)
			require.Len(t, result.Events, 1, name)
			got := result.Events[0]
			require.Equal(t, ev.Type, got.Type, "%s: %q", name, got.ESPType)
			words := outcomes[name].final
			if ev.Type == event.Deferred {
				words = outcomes[name].retried
			}
			require.Contains(t, words, got.ESPType, name)
		}
	}
}

// TestCommonFieldsAreNobodysOwn: what protects any source keeps its names.
func TestCommonFieldsAreNobodysOwn(t *testing.T) {
	for _, a := range all.Adapters() {
		for _, own := range a.Describe().Fields {
			for _, common := range esp.Common {
				require.NotEqual(t, common.Name, own.Name, a.Describe().Name)
			}
		}
	}
}

// TestNobodyElseKnowsAnESP: an ESP is its folder and its lines here. The rest
// of the product imports this package, or is handed what it lists.
func TestNobodyElseKnowsAnESP(t *testing.T) {
	const root = "../.."
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, imported := range file.Imports {
			name, under := strings.CutPrefix(strings.Trim(imported.Path.Value, `"`), "aftersend/esp/")
			if _, known := all.ByName(name); under && known {
				require.Equal(t, "all", filepath.Base(filepath.Dir(path)), "%s imports %s", path, imported.Path.Value)
			}
		}
		return nil
	}))
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
