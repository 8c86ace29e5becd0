package correlate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"aftersend/correlate"
	"aftersend/event"
	"aftersend/id"
)

func TestGuess(t *testing.T) {
	const day = 24 * 60
	bounce := start.Add(10 * day * time.Minute)
	delivered := func(minute int) []*event.Event {
		return []*event.Event{said(event.Sent, minute-1), said(event.Delivered, minute)}
	}
	for _, c := range []struct {
		name     string
		messages [][]*event.Event
		want     int // index; -1: none
	}{
		{"nothing", nil, -1},
		{"the only one", [][]*event.Event{delivered(9 * day)}, 0},
		{"the only one lately", [][]*event.Event{delivered(4 * day), delivered(9 * day)}, 1},
		{"two", [][]*event.Event{delivered(9 * day), delivered(8 * day)}, -1},
		{"too long ago", [][]*event.Event{delivered(5*day - 1)}, -1},
		{"just after, by another clock", [][]*event.Event{delivered(10*day + 4)}, 0},
		{"afterwards", [][]*event.Event{delivered(10*day + 6)}, -1},
		{"opened, so delivered", [][]*event.Event{{said(event.Opened, 9*day)}}, 0},
		{"opened late", [][]*event.Event{{said(event.Delivered, 2*day), said(event.Opened, 9*day)}}, -1},
		{"bounced already", [][]*event.Event{{said(event.Delivered, 9*day), said(event.Bounced, 9*day+1, later)}}, 0},
		{"bounced already, delivery untold", [][]*event.Event{{said(event.Bounced, 9*day+1, later)}}, -1},
		{"another was sent", [][]*event.Event{delivered(9 * day), {said(event.Sent, 9*day)}}, -1},
		{"another still waits", [][]*event.Event{delivered(9 * day), {said(event.Deferred, 2*day), said(event.Deferred, 6*day)}}, -1},
		{"another was sent long ago", [][]*event.Event{delivered(9 * day), {said(event.Sent, 4*day)}}, 0},
		{"another was sent afterwards", [][]*event.Event{delivered(9 * day), {said(event.Sent, 11*day)}}, 0},
		{"another never got there", [][]*event.Event{{said(event.Bounced, 9*day)}, {said(event.Rejected, 9*day)}, {said(event.Sent, 9*day), said(event.Failed, 9*day)}, delivered(9 * day)}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []correlate.Candidate
			for i, events := range c.messages {
				all = append(all, correlate.Candidate{ID: id.ID{byte(i + 1)}, Message: apply(events...)})
			}
			got, ok := correlate.Guess(bounce, all)
			require.Equal(t, c.want >= 0, ok)
			if ok {
				require.Equal(t, id.ID{byte(c.want + 1)}, got)
			}
		})
	}
}

// The order in which messages are looked at does not matter, and a message that
// may be meant as well is never passed over.
func TestGuessIsCareful(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []correlate.Candidate
		for i := range rapid.IntRange(0, 5).Draw(t, "messages") {
			all = append(all, correlate.Candidate{ID: id.ID{byte(i + 1)}, Message: apply(history(t)...)})
		}
		got, ok := correlate.Guess(start.Add(time.Hour), all)
		again, okAgain := correlate.Guess(start.Add(time.Hour), rapid.Permutation(all).Draw(t, "order"))
		require.Equal(t, got, again)
		require.Equal(t, ok, okAgain)
		one := correlate.Candidate{ID: id.ID{99}, Message: apply(said(event.Sent, 30))}
		_, ok = correlate.Guess(start.Add(time.Hour), append(all, one))
		require.False(t, ok, "one more that was sent makes it unsure")
	})
}

func TestGuessable(t *testing.T) {
	require.True(t, correlate.Guessable(said(event.Bounced, 1, later)))
	require.False(t, correlate.Guessable(said(event.Bounced, 1)))
	require.False(t, correlate.Guessable(said(event.Complained, 1, later)))
	require.False(t, correlate.Guessable(said(event.Bounced, 1, later, func(e *event.Event) { e.Recipient = "" })))
}

func TestExpire(t *testing.T) {
	last := said(event.Deferred, 3, func(e *event.Event) {
		e.ID, e.BounceType, e.Category, e.Asynchronous = "evt_1", event.Soft, event.MailboxFull, event.Bool(false)
		e.Message = &event.Snapshot{ID: "msg_1"}
	})
	before := *last
	at := start.Add(120 * time.Hour)
	e := correlate.Expire(last, at)
	require.Equal(t, &event.Event{Type: event.Expired, OccurredAt: at, ReceivedAt: at, Recipient: last.Recipient,
		MessageID: last.MessageID, Category: event.MailboxFull}, e)
	require.Equal(t, before, *last)
	require.NotEqual(t, correlate.ExpiryKey(id.ID{1}, id.ID{2}), correlate.ExpiryKey(id.ID{1}, id.ID{3}))
	require.NotEqual(t, correlate.ExpiryKey(id.ID{1}, id.ID{2}), correlate.ExpiryKey(id.ID{2}, id.ID{2}))
}
