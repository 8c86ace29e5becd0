package activities_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
	"aftersend/store/storetest"
)

// A failure in the SMTP dialogue and a bounce after acceptance are the same
// kind of event on the same message, through whichever sources they come, in
// whichever order, at the same time or not.
func TestSyncAndAsyncThroughDifferentSources(t *testing.T) {
	h := newHouse(t, storetest.New(t))
	rapid.Check(t, func(t *rapid.T) {
		_, err := h.db.Exec(`truncate events, event_keys, messages, message_keys, suppressions, deferral_cohorts`)
		require.NoError(t, err)
		esp := event.Event{Recipient: "a@example.com", MessageID: "77", RFCMessageID: "<x@y>"}
		sent, inDialogue := esp, esp
		sent.Type, sent.OccurredAt = event.Delivered, began
		inDialogue.Type, inDialogue.OccurredAt, inDialogue.Asynchronous = event.Bounced, began.Add(time.Minute), event.Bool(false)
		// The second source knows the header only, spelt as it pleases.
		after := event.Event{Type: event.Bounced, Recipient: "A@Example.com", Asynchronous: event.Bool(true), OccurredAt: began.Add(2 * time.Minute)}
		after.RFCMessageID = rapid.SampledFrom([]string{"<x@y>", "x@y", " <x@y> "}).Draw(t, "spelling")
		told := []event.Event{inDialogue, after}
		if rapid.Bool().Draw(t, "delivered") {
			told = append(told, sent)
		}
		var groups []id.ID
		for _, i := range rapid.Permutation([]int{0, 1, 2}[:len(told)]).Draw(t, "order") {
			c := h.callback(line(told[i]))
			if i == 1 {
				c.SourceID = h.sources[1]
			}
			groups = append(groups, h.group(c))
		}
		var work errgroup.Group
		if !rapid.Bool().Draw(t, "at the same time") {
			work.SetLimit(1)
		}
		for _, g := range groups {
			work.Go(func() error { _, err := process(h.worker(), g); return err })
		}
		require.NoError(t, work.Wait())

		row, timeline := h.message("a@example.com")
		require.Equal(t, "bounced", row.Status)
		require.True(t, row.Asynchronous)
		require.Equal(t, after.OccurredAt, row.StatusAt.UTC())
		require.Len(t, timeline, len(told))
		for _, e := range timeline {
			if e.Type == event.Bounced {
				require.Equal(t, e.Source == id.Source.Format(h.sources[1]), *e.Asynchronous)
			}
		}
		require.Equal(t, 1, h.count(`select count(distinct message_id) from events`))
	})
}

// report is an asynchronous bounce that names no message.
func report(recipient string, minute int) event.Event {
	return event.Event{Type: event.Bounced, Recipient: recipient, Asynchronous: event.Bool(true), BounceType: event.Hard,
		OccurredAt: began.Add(time.Duration(minute) * time.Minute), EventID: fmt.Sprint("report", recipient, minute)}
}

func (h *house) elsewhere(e event.Event) id.ID {
	c := h.callback(line(e))
	c.SourceID = h.sources[2]
	return h.group(c)
}

func (h *house) link() int {
	h.t.Helper()
	linked, last, err := h.store.LinkBounces(context.Background(), time.Now(), id.Nil, 100)
	require.NoError(h.t, err)
	require.Equal(h.t, id.Nil, last)
	return linked
}

func TestABounceThatNamesNoMessageGoesToTheOnlyOneItCanMean(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	h.process(h.post(line(said(event.Delivered, "a", 1)), line(said(event.Delivered, "b", 1))))
	h.process(h.elsewhere(report("A@example.com", 60)))
	row, timeline := h.message("a@example.com")
	require.Equal(t, "bounced", row.Status)
	require.True(t, row.Asynchronous)
	require.Equal(t, event.MatchLikely, row.Match, "it says how sure it is")
	require.Equal(t, event.MatchLikely, timeline[1].Message.Match)
	require.Equal(t, event.Delivered, timeline[1].Message.PreviousStatus)
	require.Empty(t, timeline[0].Message.Match)

	h.process(h.elsewhere(report("a@example.com", 90))) // told once more, in other words
	row, timeline = h.message("a@example.com")
	require.Len(t, timeline, 3)
	require.Equal(t, event.MatchLikely, row.Match)
	row, _ = h.message("b@example.com")
	require.Equal(t, "delivered", row.Status)
	require.Zero(t, h.link())

	// Beside other words about the same message.
	h.process(h.post(line(said(event.Opened, "b", 5))+"\n"+line(report("b@example.com", 60)), line(said(event.Clicked, "b", 6))))
	row, timeline = h.message("b@example.com")
	require.Equal(t, "bounced", row.Status)
	require.Len(t, timeline, 4)
}

func TestAWrongGuessIsWorseThanNone(t *testing.T) {
	t.Parallel()
	for name, others := range map[string][]event.Event{
		"two were delivered":             {said(event.Delivered, "a", 1), said(event.Delivered, "b", 2)},
		"another may have been":          {said(event.Delivered, "a", 1), said(event.Sent, "b", 2)},
		"delivered long ago":             {said(event.Delivered, "a", -6*24*60)},
		"delivered afterwards":           {said(event.Delivered, "a", 120)},
		"it failed in the dialogue":      {said(event.Bounced, "a", 1)},
		"nothing was ever heard of them": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, storetest.New(t))
			for _, e := range others {
				e.Recipient = "r@example.com"
				h.process(h.post(line(e)))
			}
			before := h.facts()
			h.process(h.elsewhere(report("r@example.com", 30)))
			require.Zero(t, h.link())
			require.Len(t, h.facts(), len(before)+1, "kept, and visible")
			rows, err := h.store.Messages(t.Context(), h.account, store.MessageFilter{Recipient: "r@example.com"}, store.Page{Limit: 1})
			require.NoError(t, err)
			require.Equal(t, "bounced", rows[0].Status)
			require.Equal(t, event.MatchNone, rows[0].Match)
			_, timeline, err := h.store.Message(t.Context(), h.account, rows[0].ID)
			require.NoError(t, err)
			require.Contains(t, string(timeline[0].Data), `"match":"none"`)
		})
	}
}

// The message turns up after its bounce, or is recorded by a group that runs
// beside: the sweep links them.
func TestABounceIsLinkedWhenItsMessageTurnsUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	w := h.webhook()
	h.process(h.elsewhere(report("a@example.com", 60)))
	h.process(h.elsewhere(report("z@example.com", 60)))
	require.Zero(t, h.link())
	h.process(h.post(line(said(event.Sent, "a", 0))))
	require.Zero(t, h.link(), "it is not known to be delivered")
	h.process(h.post(line(said(event.Delivered, "a", 1))))
	require.Equal(t, 1, h.link())
	require.Zero(t, h.link())
	row, timeline := h.message("a@example.com")
	require.Equal(t, "bounced", row.Status)
	require.Equal(t, "delivered", row.PreviousStatus)
	require.Equal(t, event.MatchLikely, row.Match)
	require.Len(t, timeline, 3)
	require.Equal(t, 3, h.count(`select count(*) from events where message_id = $1`, row.ID))
	require.Equal(t, 4, h.count(`select matched from webhook_progress where webhook_id = $1`, w), "nobody is told twice")

	h.process(h.post(line(said(event.Opened, "a", 5)))) // its keys name the message that is left
	_, timeline = h.message("a@example.com")
	require.Len(t, timeline, 4)

	// Two sweepers at once.
	h.process(h.post(line(said(event.Delivered, "z", 1))))
	var work errgroup.Group
	for range 4 {
		work.Go(func() error {
			_, _, err := h.store.LinkBounces(context.Background(), time.Now(), id.Nil, 100)
			return err
		})
	}
	require.NoError(t, work.Wait())
	row, timeline = h.message("z@example.com")
	require.Equal(t, "bounced", row.Status)
	require.Len(t, timeline, 2)
}
