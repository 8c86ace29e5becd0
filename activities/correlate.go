package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"aftersend/id"
	"aftersend/store"
)

// CorrelateEvents records the events of a group that are new and tells every
// message its part, in transactions of bounded size.
func (p *Processing) CorrelateEvents(ctx context.Context, in GroupInput) (GroupResult, error) {
	for range maxMoved {
		g, err := p.begin(ctx, in.Group)
		if err != nil || g.Step != store.StepCorrelate {
			return result(g), err
		}
		parsed := p.groups.get(in.Group)
		if parsed == nil {
			events, err := p.eventsIn(ctx, &g)
			if err != nil {
				return GroupResult{}, err
			}
			parsed = &parsedGroup{events: events, bytes: weigh(events)}
		}
		switch err := p.correlate(ctx, &g, parsed); {
		case errors.Is(err, errMoved):
			continue
		case err != nil:
			return GroupResult{}, err
		}
		return result(g), nil
	}
	return GroupResult{}, fmt.Errorf("correlate %s: %w", id.Group.Format(in.Group), errMoved)
}

// eventsIn has the events of a group once more, from what they are made of.
func (p *Processing) eventsIn(ctx context.Context, g *store.GroupState) ([]store.NewEvent, error) {
	if g.Kind == store.KindExpired {
		events, err := p.Store.ExpiredEvents(ctx, *g)
		g.NTo = g.Mark.N + int64(len(events))
		return events, err
	}
	events, _, err := p.parse(ctx, *g, false)
	return events, err
}

// errMoved means that another run of this step is at work on the same group.
var errMoved = errors.New("the group was moved on by another run of this step")

const (
	maxMoved           = 5
	defaultEventsPerTx = 10_000
)

// correlate takes a group from where it stands to the end of the step, and
// keeps its counts up to date.
func (p *Processing) correlate(ctx context.Context, g *store.GroupState, parsed *parsedGroup) error {
	w := correlating{Processing: p, group: g, events: parsed.events, at: g.Mark, now: time.Now()}
	size := p.EventsPerTx
	if size == 0 {
		size = defaultEventsPerTx
	}
	start := w.at
	for lo := w.indexOf(start); ; lo += size {
		hi := min(lo+size, len(w.events))
		if err := w.share(ctx, lo, hi); err != nil {
			return err
		}
		if hi == len(w.events) {
			break
		}
	}
	if start == (store.Mark{}) {
		p.groups.put(g.ID, &parsedGroup{correlated: true, recorded: w.recorded, events: parsed.events, bytes: parsed.bytes})
	} else {
		p.groups.drop(g.ID) // another run did a part of it
	}
	return nil
}

// correlating is one run of correlate.
type correlating struct {
	*Processing
	group    *store.GroupState
	events   []store.NewEvent
	at       store.Mark
	now      time.Time
	recorded []store.StoredEvent
}

// indexOf returns the index of the first event after a mark.
func (w *correlating) indexOf(m store.Mark) int {
	first, _ := slices.BinarySearchFunc(w.events, m.N+1, func(e store.NewEvent, n int64) int { return int(e.N - n) })
	return min(first+m.Events, len(w.events))
}

// markAt is the mark when the events before index i are done.
func (w *correlating) markAt(i int) store.Mark {
	if i == len(w.events) {
		return store.Mark{N: w.group.NTo}
	}
	n := w.events[i].N
	first := i
	for first > 0 && w.events[first-1].N == n {
		first--
	}
	return store.Mark{N: n - 1, Events: i - first}
}

// share correlates events lo to hi in one transaction. When Postgres refuses
// their data it does each half alone, down to the one event that is to blame,
// which is quarantined.
func (w *correlating) share(ctx context.Context, lo, hi int) error {
	to := w.markAt(hi)
	c := store.Correlation{Group: w.group.ID, Events: w.events[lo:hi], From: w.at, To: to, Last: hi == len(w.events), Now: w.now}
	done, err := w.Store.CorrelateEvents(ctx, c)
	guilty := store.IsDataError(err) || errors.Is(err, store.ErrUnencodable)
	switch {
	case guilty && hi-lo > 1:
		middle := lo + (hi-lo)/2
		if err := w.share(ctx, lo, middle); err != nil {
			return err
		}
		return w.share(ctx, middle, hi)
	case guilty && hi-lo == 1:
		e := &w.events[lo]
		w.Log.ErrorContext(ctx, "event quarantined: the database refuses it", "group", id.Group.Format(w.group.ID),
			"callback", id.Callback.Format(e.Callback), "ordinal", e.Ordinal, "class", store.Class(err))
		c.Events, c.SetAside = nil, []store.Quarantine{e.Quarantine("the database refuses this event (" + store.Class(err) + ")")}
		done, err = w.Store.CorrelateEvents(ctx, c)
	}
	if err != nil {
		return err
	}
	if !done.Done {
		return errMoved
	}
	w.at = to
	w.group.Quarantined += len(c.SetAside)
	for i, eventID := range done.IDs {
		e := &w.events[lo+i]
		if eventID == id.Nil {
			if e.Message == id.Nil {
				w.group.Repeats++
			}
			continue
		}
		w.group.Events++
		w.recorded = append(w.recorded, store.StoredEvent{ID: eventID, Account: e.Account, Source: e.Source, Event: e.Event, Said: done.Said[i]})
	}
	return nil
}
