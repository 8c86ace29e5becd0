package event_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"aftersend/event"
)

func TestCleanBoundsWhatCameFromOutside(t *testing.T) {
	deep := any("bottom")
	for range 30 {
		deep = []any{deep}
	}
	e := event.Event{
		Type:       "made-up",
		OccurredAt: time.Date(50000, 1, 1, 0, 0, 0, 0, time.UTC),
		ReceivedAt: time.Date(2026, 1, 2, 3, 4, 5, 678999, time.FixedZone("", 3600)),
		Recipient:  "a\x00b\xff@" + strings.Repeat("ü", 2000),
		Diagnostic: strings.Repeat("x", 1<<20),
		SMTPCode:   99999,
		Tags:       append([]string{"\x00"}, make([]string, 500)...),
		Metadata: map[string]any{
			"a\x00": "b\xff", "deep": deep, "nan": math.NaN(), "inf": math.Inf(1), "number": json.Number("1e5"),
			"bad number": json.Number("NaN"), "channel": make(chan int), "large": strings.Repeat("y", 1<<20),
			"many": make([]any, 1<<16), "ok": true, "list": []any{json.Number("1"), nil, "two"},
		},
	}
	event.Clean(&e)

	require.Equal(t, event.Unknown, e.Type)
	require.Zero(t, e.OccurredAt)
	require.Equal(t, time.Date(2026, 1, 2, 2, 4, 5, 678000, time.UTC), e.ReceivedAt)
	require.True(t, strings.HasPrefix(e.Recipient, "a\uFFFDb\uFFFD@ü"))
	require.LessOrEqual(t, len(e.Recipient), event.MaxText)
	require.True(t, utf8.ValidString(e.Recipient))
	require.Len(t, e.Diagnostic, event.MaxDiagnostic)
	require.Zero(t, e.SMTPCode)
	require.Len(t, e.Tags, event.MaxTags)
	require.Equal(t, "\uFFFD", e.Tags[0])
	require.Equal(t, "b\uFFFD", e.Metadata["a\uFFFD"])
	require.Equal(t, json.Number("1e5"), e.Metadata["number"])
	require.Equal(t, []any{json.Number("1"), nil, "two"}, e.Metadata["list"])
	for _, gone := range []string{"nan", "inf", "bad number", "channel"} {
		require.NotContains(t, e.Metadata, gone)
	}

	data, err := json.Marshal(e)
	require.NoError(t, err)
	require.Less(t, len(data), 200<<10)
}

func TestCleanLeavesAloneWhatIsWithinBounds(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
	e := event.Event{Type: event.Bounced, OccurredAt: at, ReceivedAt: at, Recipient: "jürgen@exämple.de", SMTPCode: 550,
		Tags: []string{"a"}, Metadata: map[string]any{"n": json.Number("12"), "o": map[string]any{"x": []any{"y"}}}}
	want := e
	event.Clean(&e)
	require.Equal(t, want, e)
}

func TestCleanMakesTextOfNumbersThatNobodyCanRead(t *testing.T) {
	e := event.Event{Metadata: map[string]any{"huge": json.Number("1e9999"), "tiny": json.Number("1e-9999"), "long": json.Number("12345678901234567890")}}
	event.Clean(&e)
	require.Equal(t, map[string]any{"huge": "1e9999", "tiny": json.Number("1e-9999"), "long": json.Number("12345678901234567890")}, e.Metadata)
}

func TestCleanTextIsIdempotentAndFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.SampledFrom([]byte("a\x00\xff\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"))).Draw(t, "bytes"))
		limit := rapid.IntRange(4, 30).Draw(t, "limit")
		clean := event.CleanText(s, limit)
		require.True(t, utf8.ValidString(clean))
		require.NotContains(t, clean, "\x00")
		require.LessOrEqual(t, len(clean), limit)
		require.Equal(t, clean, event.CleanText(clean, limit))
		if utf8.ValidString(s) && !strings.Contains(s, "\x00") {
			require.True(t, strings.HasPrefix(s, clean))
			require.Greater(t, len(clean)+utf8.UTFMax, min(len(s), limit), "no more is cut than must be")
		}
	})
}
