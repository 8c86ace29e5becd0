package id

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSpellingRoundTripsAndSortsLikeTheUUID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a, b ID
		copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b"))
		if a == Nil || b == Nil {
			t.Skip("nil is spelled as nothing")
		}
		sa, sb := Event.Format(a), Event.Format(b)
		back, err := Event.Parse(sa)
		require.NoError(t, err)
		require.Equal(t, a, back)
		require.Equal(t, a.String() < b.String(), sa < sb)
	})
}

func TestParseRefuses(t *testing.T) {
	good := Webhook.Format(New())
	for name, s := range map[string]string{
		"empty":            "",
		"another kind":     Event.Format(New()),
		"too short":        good[:len(good)-1],
		"letter u":         good[:len(good)-1] + "u",
		"over 128 bits":    "wh_8zzzzzzzzzzzzzzzzzzzzzzzzz",
		"upper case":       "wh_01JG0000000000000000000000",
		"no underscore":    "wh-01jg0000000000000000000000",
		"36 but no UUID":   "wh_01jg00000000000000000000000000000",
		"prefix and space": "wh_ 1jg0000000000000000000000",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Webhook.Parse(s)
			require.ErrorIs(t, err, ErrBad)
		})
	}
}

func TestPlainUUIDIsAccepted(t *testing.T) {
	u := New()
	got, err := Batch.Parse(u.String())
	require.NoError(t, err)
	require.Equal(t, u, got)
}

func TestTimeAndFloor(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	require.Equal(t, at, Time(Floor(at)))
	require.Less(t, Floor(at).String(), New().String())
	require.Empty(t, Event.Format(Nil))
}
