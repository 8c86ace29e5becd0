package activities

import (
	"context"
	"time"

	"aftersend/id"
	"aftersend/store"
	"aftersend/webhook"
)

// RouteEvents decides which webhooks get which of a group's events and puts
// them into the outbox, in one transaction.
func (p *Processing) RouteEvents(ctx context.Context, in GroupInput) (GroupResult, error) {
	g, err := p.begin(ctx, in.Group)
	if err != nil {
		return GroupResult{}, err
	}
	if g.Step != store.StepRoute {
		p.done(in.Group) // an earlier run may have ended between commit and saying so
		return result(g), nil
	}
	events, err := p.eventsOf(ctx, g)
	if err != nil {
		return GroupResult{}, err
	}
	r := store.Routing{Group: in.Group, Events: len(events), Volume: volume(events), Tally: p.tally(events)}
	if r.Due, err = p.match(ctx, events); err != nil {
		return GroupResult{}, err
	}
	if g.Number, err = p.Store.RouteEvents(ctx, r); err != nil {
		return GroupResult{}, err
	}
	p.groups.put(in.Group, &parsedGroup{routed: &g})
	p.done(in.Group)
	res := result(g)
	res.Webhooks = len(r.Due)
	return res, nil
}

func (p *Processing) eventsOf(ctx context.Context, g store.GroupState) ([]store.StoredEvent, error) {
	if known := p.groups.get(g.ID); known != nil && known.correlated {
		return known.recorded, nil
	}
	return p.Store.GroupEvents(ctx, g)
}

func volume(events []store.StoredEvent) map[store.VolumeKey]int {
	counts := map[store.VolumeKey]int{}
	for i := range events {
		e := &events[i]
		counts[store.VolumeKey{Source: e.Source, Hour: e.Event.ReceivedAt.UTC().Truncate(time.Hour), Type: e.Event.Type}]++
	}
	return counts
}

// match asks every webhook's filter about every event of its account.
func (p *Processing) match(ctx context.Context, events []store.StoredEvent) ([]store.Due, error) {
	if len(events) == 0 {
		return nil, nil
	}
	known := p.compiled()
	versions := make(map[id.ID]int64, len(known))
	for w, m := range known {
		versions[w] = m.version
	}
	subscribers, err := p.Store.Subscribers(ctx, versions)
	if err != nil {
		return nil, err
	}
	var all []store.Due
	for i, m := range p.compile(subscribers, known) {
		due := store.Due{Webhook: subscribers[i].ID}
		for k := range events {
			e := &events[k]
			if e.Account == subscribers[i].Account && m.Match(e.Event, e.Source) {
				due.Events = append(due.Events, e.ID)
			}
		}
		if len(due.Events) > 0 {
			all = append(all, due)
		}
	}
	return all, nil
}

// compiled returns the matchers of the last time; nobody writes to the map.
func (p *Processing) compiled() map[id.ID]matcher {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.matchers
}

// compile returns the matcher of each subscriber and keeps them for the next time.
func (p *Processing) compile(subscribers []store.Subscriber, known map[id.ID]matcher) []matcher {
	matchers := make([]matcher, len(subscribers))
	byID := make(map[id.ID]matcher, len(subscribers))
	for i, s := range subscribers {
		m := known[s.ID]
		if s.Settings != nil {
			m = matcher{s.Version, webhook.Compile(*s.Settings)}
		}
		matchers[i], byID[s.ID] = m, m
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.matchers = byID
	return matchers
}
