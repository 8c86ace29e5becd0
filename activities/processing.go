package activities

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"aftersend/esp"
	"aftersend/id"
	"aftersend/store"
	"aftersend/webhook"
)

// Processing holds the activities of ProcessCallbacks and what they need. The
// fields of the first paragraph must be set. Use it by pointer; safe for
// concurrent use.
type Processing struct {
	Store    *store.Store
	Adapters func(name string) (esp.Adapter, bool)
	Keys     esp.Keys // asks the network
	Waker    Waker
	Hub      *Hub
	Log      *slog.Logger

	// PublicURL is the base of the URL that ESPs post to, without a path; some
	// sign it. Empty = https and the Host they named.
	PublicURL string
	// Confirm fetches the URL that confirms a subscription, whose host the
	// adapter has checked, for callbacks that the adapter has verified. Without
	// it nothing is confirmed.
	Confirm func(ctx context.Context, url string) error
	// OnGroupDone is told when a group no longer counts as open: it is done,
	// or has fallen back to patient retries. It may be told again.
	OnGroupDone func(group id.ID)
	// EventsPerTx bounds the transactions of CorrelateEvents; 0 = 10,000.
	EventsPerTx int

	groups groupCache
	known  admitted // domains and codes that are counted by name

	mu       sync.Mutex
	espNames map[id.ID]string
	matchers map[id.ID]matcher
}

// Waker tells a webhook's workflow that its outbox holds something.
type Waker interface {
	Wake(ctx context.Context, webhook id.ID) error
}

type matcher struct {
	version int64
	*webhook.Matcher
}

// begin reads how far a group is. A step that runs as a regular activity has
// failed as a local one: from then on its group is patient and gives its slot
// to others.
func (p *Processing) begin(ctx context.Context, group id.ID) (store.GroupState, error) {
	if patient(ctx) {
		if err := p.Store.SetPatient(ctx, group); err != nil {
			return store.GroupState{}, err
		}
		p.done(group)
	}
	g, err := p.Store.GroupState(ctx, group)
	if errors.Is(err, store.ErrNotFound) {
		return g, temporal.NewNonRetryableApplicationError("no such group", ErrNoGroup, err)
	}
	return g, err
}

// ErrNoGroup is the type of the application error for a group that has no row.
const ErrNoGroup = "NoGroup"

// patient reports whether this is a regular activity.
func patient(ctx context.Context) bool {
	return activity.IsActivity(ctx) && !activity.GetInfo(ctx).IsLocalActivity
}

func (p *Processing) done(group id.ID) {
	if p.OnGroupDone != nil {
		p.OnGroupDone(group)
	}
}

func result(g store.GroupState) GroupResult {
	return GroupResult{Callbacks: g.Callbacks, Events: g.Events, Repeats: g.Repeats, Quarantined: g.Quarantined}
}

// espName finds the ESP of a source, which never changes.
func (p *Processing) espName(ctx context.Context, source id.ID) (string, error) {
	p.mu.Lock()
	name, ok := p.espNames[source]
	p.mu.Unlock()
	if ok {
		return name, nil
	}
	src, err := p.Store.SourceByID(ctx, source)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.espNames == nil || len(p.espNames) > 10_000 {
		p.espNames = map[id.ID]string{}
	}
	p.espNames[source] = src.ESP
	return src.ESP, nil
}

// parsedGroup is what one step found out and the next can use. It may be lost
// at any time; everything in it can be had again from the rows.
type parsedGroup struct {
	events []store.NewEvent
	bytes  int
	// Set by CorrelateEvents when it did all of the group.
	correlated bool
	recorded   []store.StoredEvent
	// Set by RouteEvents: the group as it left it.
	routed *store.GroupState
}

// groupCache keeps what steps found out, of the most recent groups.
type groupCache struct {
	mu    sync.Mutex
	byID  map[id.ID]*parsedGroup
	order []id.ID
	bytes int
}

// Limits of groupCache. A group has up to 8 MB of bodies.
const (
	maxCachedGroups = 64
	maxCachedBytes  = 64 << 20
)

func (c *groupCache) get(group id.ID) *parsedGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[group]
}

func (c *groupCache) put(group id.ID, g *parsedGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(group)
	if c.byID == nil {
		c.byID = map[id.ID]*parsedGroup{}
	}
	c.byID[group] = g
	c.order = append(c.order, group)
	c.bytes += g.bytes
	for len(c.order) > 1 && (len(c.order) > maxCachedGroups || c.bytes > maxCachedBytes) {
		c.remove(c.order[0])
	}
}

func (c *groupCache) drop(group id.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(group)
}

func (c *groupCache) remove(group id.ID) {
	g, ok := c.byID[group]
	if !ok {
		return
	}
	c.bytes -= g.bytes
	delete(c.byID, group)
	for i, o := range c.order {
		if o == group {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}
