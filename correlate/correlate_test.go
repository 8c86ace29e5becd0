package correlate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"aftersend/correlate"
	"aftersend/event"
)

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// said is an event a number of minutes after start.
func said(t event.Type, minute int, with ...func(*event.Event)) *event.Event {
	at := start.Add(time.Duration(minute) * time.Minute)
	e := &event.Event{Type: t, OccurredAt: at, ReceivedAt: at.Add(time.Second), Recipient: "a@example.com",
		MessageID: "m1", EventID: fmt.Sprint(t, minute)}
	for _, f := range with {
		f(e)
	}
	return e
}

func later(e *event.Event) { e.Asynchronous = event.Bool(true) }

func keyOf(e *event.Event) correlate.Key {
	return correlate.EventKey(correlate.Origin{}, e, correlate.Key{}, 0)
}

func apply(events ...*event.Event) correlate.Message {
	var m correlate.Message
	for _, e := range events {
		m, _ = correlate.Apply(m, e, keyOf(e))
	}
	return m
}

func TestStatus(t *testing.T) {
	minute := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
	for _, c := range []struct {
		name     string
		events   []*event.Event
		status   event.Type
		at       int
		previous event.Type
		final    int // minute; -1: not final
	}{
		{"sent", []*event.Event{said(event.Queued, 0), said(event.Sent, 1)}, event.Sent, 1, event.Queued, -1},
		{"an older word does not go back", []*event.Event{said(event.Sent, 1), said(event.Queued, 5)}, event.Sent, 1, event.Queued, -1},
		{"deferred, then delivered", []*event.Event{said(event.Deferred, 1), said(event.Deferred, 6), said(event.Delivered, 9)},
			event.Delivered, 9, event.Deferred, 9},
		{"a deferral reported late", []*event.Event{said(event.Delivered, 9), said(event.Deferred, 12)}, event.Delivered, 9, event.Deferred, 9},
		{"of two final words the later", []*event.Event{said(event.Bounced, 5), said(event.Delivered, 4)}, event.Bounced, 5, event.Delivered, 5},
		{"a bounce after acceptance, timed before it", []*event.Event{said(event.Delivered, 9), said(event.Bounced, 3, later)},
			event.Bounced, 3, event.Delivered, 3},
		{"an open shows delivery", []*event.Event{said(event.Sent, 1), said(event.Opened, 30)}, event.Delivered, 30, event.Sent, 30},
		{"an open does not move the time of delivery", []*event.Event{said(event.Delivered, 2), said(event.Opened, 30)}, event.Delivered, 30, "", 2},
		{"an open does not undo a bounce after acceptance", []*event.Event{said(event.Bounced, 3, later), said(event.Opened, 30)},
			event.Bounced, 3, event.Delivered, 3},
		{"complaints and unsubscriptions show delivery", []*event.Event{said(event.Complained, 7), said(event.Unsubscribed, 6)}, event.Delivered, 7, "", 6},
		{"expired", []*event.Event{said(event.Deferred, 1), said(event.Expired, 100)}, event.Expired, 100, event.Deferred, -1},
		{"a later deferral takes expiry back", []*event.Event{said(event.Deferred, 1), said(event.Expired, 100), said(event.Deferred, 101)},
			event.Deferred, 101, event.Expired, -1},
		{"any later word takes expiry back", []*event.Event{said(event.Deferred, 1), said(event.Expired, 100), said(event.Sent, 101)},
			event.Deferred, 1, event.Sent, -1},
		{"a final word takes expiry back, even an earlier one", []*event.Event{said(event.Expired, 100), said(event.Failed, 90)},
			event.Failed, 90, event.Expired, 90},
		{"rejected", []*event.Event{said(event.Rejected, 1)}, event.Rejected, 1, "", 1},
		{"words without a fate", []*event.Event{said(event.Autoresponded, 8), said(event.Subscribed, 9)}, event.Unknown, 9, "", -1},
		{"words without a fate beside others", []*event.Event{said(event.Sent, 2), said(event.Unknown, 9)}, event.Sent, 2, "", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := apply(c.events...)
			f := m.Facts()
			require.Equal(t, c.status, f.Status)
			require.Equal(t, minute(c.at), f.StatusAt)
			require.Equal(t, c.previous, f.PreviousStatus)
			if c.final < 0 {
				require.Zero(t, f.FinalAt)
			} else {
				require.Equal(t, minute(c.final), f.FinalAt)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	m := apply(said(event.Deferred, 30), said(event.Sent, 2), said(event.Deferred, 10), said(event.Bounced, 40, later), said(event.Deferred, 10))
	f := m.Facts()
	require.Equal(t, 2, f.Deferrals, "the repeat does not count")
	require.Equal(t, start.Add(10*time.Minute), f.FirstDeferredAt)
	require.Equal(t, start.Add(2*time.Minute), f.FirstEventAt)
	require.True(t, f.Asynchronous)
}

func TestSnapshot(t *testing.T) {
	var m correlate.Message
	var c correlate.Change
	for _, e := range []*event.Event{said(event.Deferred, 1), said(event.Delivered, 3)} {
		m, c = correlate.Apply(m, e, keyOf(e))
	}
	s := c.Snapshot(correlate.Key{1})
	require.Equal(t, event.Delivered, s.Status)
	require.Equal(t, event.Deferred, s.PreviousStatus)
	require.Equal(t, 1, s.Deferrals)
	require.EqualValues(t, 120, *s.SecondsToFinal)

	_, c = correlate.Apply(m, said(event.Deferred, 2), keyOf(said(event.Deferred, 2)))
	require.False(t, c.FirstDeferral)
	require.Empty(t, c.Snapshot(correlate.Key{1}).PreviousStatus, "the status stayed")
}

func TestClocks(t *testing.T) {
	ahead := said(event.Delivered, 0, func(e *event.Event) { e.OccurredAt = e.ReceivedAt.Add(24 * time.Hour) })
	silent := said(event.Bounced, 0, func(e *event.Event) { e.OccurredAt = time.Time{} })
	require.Equal(t, ahead.ReceivedAt.Add(5*time.Minute), ptr(apply(ahead)).Facts().StatusAt)
	require.Equal(t, silent.ReceivedAt, ptr(apply(silent)).Facts().StatusAt)
}

func ptr[T any](v T) *T { return &v }

// history draws events of one message, some of them at the same instant.
func history(t *rapid.T) []*event.Event {
	types := append([]event.Type{event.Deferred, event.Expired}, event.Types...)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *event.Event {
		e := said(rapid.SampledFrom(types).Draw(t, "type"), rapid.IntRange(0, 20).Draw(t, "minute"))
		e.EventID = rapid.StringMatching(`[a-d][a-d]`).Draw(t, "id")
		if rapid.Bool().Draw(t, "asynchronous") {
			e.Asynchronous = event.Bool(true)
		}
		return e
	}), 1, 25).Draw(t, "events")
}

// Whatever the order, the repetition and the way events were split over two
// messages that turned out to be one: same state.
func TestOrderRepetitionAndMergingDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := history(t)
		want := apply(events...)

		shuffled := rapid.Permutation(events).Draw(t, "order")
		again := rapid.SliceOfN(rapid.SampledFrom(events), 0, 10).Draw(t, "repeats")
		require.Equal(t, want, apply(append(shuffled, again...)...))

		cut := rapid.IntRange(0, len(shuffled)).Draw(t, "cut")
		a, b := apply(append(again, shuffled[:cut]...)...), apply(append(shuffled[cut:], again...)...)
		require.Equal(t, want, correlate.Merge(a, b))
		require.Equal(t, want, correlate.Merge(b, a))
	})
}

func TestEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := apply(history(t)...)
		got, err := correlate.Decode(m.Append(nil))
		require.NoError(t, err)
		require.Equal(t, m, got)
	})
	for _, damaged := range [][]byte{nil, {2}, {1, 3}, {1, 99}, {1, 0xff, 1}} {
		_, err := correlate.Decode(damaged)
		require.ErrorIs(t, err, correlate.ErrState, "%v", damaged)
	}
}

func TestManyDeferrals(t *testing.T) {
	var up, down correlate.Message
	const n = correlate.MaxDeferrals + 50
	for i := range n {
		u, d := said(event.Deferred, i), said(event.Deferred, n-1-i)
		up, _ = correlate.Apply(up, u, keyOf(u))
		down, _ = correlate.Apply(down, d, keyOf(d))
	}
	require.Equal(t, correlate.MaxDeferrals, up.Facts().Deferrals)
	require.Equal(t, up, down)
}
