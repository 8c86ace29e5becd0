package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"aftersend/correlate"
	"aftersend/esp"
	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
)

// ParseCallbacks reads the callbacks of a group, verifies those whose
// verification had to wait, and understands them. What it cannot understand it
// quarantines. The events are not stored yet: parsing is pure and can be
// repeated, and CorrelateEvents finds them in memory when it runs here, too.
func (p *Processing) ParseCallbacks(ctx context.Context, in GroupInput) (GroupResult, error) {
	g, err := p.begin(ctx, in.Group)
	if err != nil || g.Step != store.StepParse {
		return result(g), err
	}
	events, quarantined, err := p.parse(ctx, g, true)
	if err != nil {
		return GroupResult{}, err
	}
	if err := p.Store.FinishParse(ctx, in.Group, quarantined); err != nil {
		return GroupResult{}, err
	}
	p.groups.put(in.Group, &parsedGroup{events: events, bytes: weigh(events)})
	return GroupResult{Callbacks: g.Callbacks, Events: len(events), Quarantined: len(quarantined)}, nil
}

// weigh estimates what events cost to keep.
func weigh(events []store.NewEvent) int {
	n := 0
	for i := range events {
		e := events[i].Event
		n += 1200 + len(e.Diagnostic) + len(e.URL) + len(e.UserAgent) + len(e.Subject) + 64*len(e.Metadata)
	}
	return n
}

// Parsing of one group takes this many processors at most.
const parsers = 2

// outcome is what one callback said.
type outcome struct {
	events      []store.NewEvent
	quarantined []store.Quarantine
}

// reader understands the callbacks of one source.
type reader struct {
	esp     string
	adapter esp.Adapter // nil: this build has none for the ESP
	about   esp.Description
	origin  correlate.Origin
}

// parse understands the callbacks of a group. first is false when ParseCallbacks
// has done so already and its results are no longer in memory.
func (p *Processing) parse(ctx context.Context, g store.GroupState, first bool) ([]store.NewEvent, []store.Quarantine, error) {
	callbacks, err := p.Store.GroupCallbacks(ctx, g.Group)
	if err != nil {
		return nil, nil, err
	}
	readers, err := p.readers(ctx, callbacks)
	if err != nil {
		return nil, nil, err
	}
	dropped := map[id.ID]bool{}
	if !first {
		if dropped, err = p.refused(ctx, callbacks); err != nil {
			return nil, nil, err
		}
	}
	outcomes := make([]outcome, len(callbacks))
	var next atomic.Int64
	work, ctx := errgroup.WithContext(ctx)
	for range parsers {
		work.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(callbacks) {
					return nil
				}
				c := &callbacks[i]
				if dropped[c.ID] {
					continue
				}
				var err error
				if outcomes[i], err = p.understand(ctx, readers[c.SourceID], c, first); err != nil {
					return fmt.Errorf("parse %s: %w", id.Callback.Format(c.ID), err)
				}
				callbacks[i] = store.NumberedCallback{} // its bytes are not needed any more
			}
		})
	}
	if err := work.Wait(); err != nil {
		return nil, nil, err
	}
	var events []store.NewEvent
	var quarantined []store.Quarantine
	for _, o := range outcomes {
		for _, e := range o.events {
			e.Position = len(events)
			events = append(events, e)
		}
		quarantined = append(quarantined, o.quarantined...)
	}
	return events, quarantined, nil
}

func (p *Processing) readers(ctx context.Context, callbacks []store.NumberedCallback) (map[id.ID]*reader, error) {
	readers := map[id.ID]*reader{}
	for i := range callbacks {
		c := &callbacks[i]
		if readers[c.SourceID] != nil {
			continue
		}
		name, err := p.espName(ctx, c.SourceID)
		if err != nil {
			return nil, err
		}
		r := &reader{esp: name, origin: correlate.Origin{Account: c.AccountID, Source: c.SourceID}}
		if adapter, ok := p.Adapters(name); ok {
			r.adapter, r.about = adapter, adapter.Describe()
			r.origin.MessageIDIsRFC = r.about.MessageIDIsRFC
		}
		readers[c.SourceID] = r
	}
	return readers, nil
}

// refused returns the callbacks that did not prove authentic the first time.
// Asked again the network might say something else; what was said stands.
func (p *Processing) refused(ctx context.Context, callbacks []store.NumberedCallback) (map[id.ID]bool, error) {
	var unverified []id.ID
	for i := range callbacks {
		if !callbacks[i].Verified {
			unverified = append(unverified, callbacks[i].ID)
		}
	}
	if len(unverified) == 0 {
		return nil, nil
	}
	return p.Store.QuarantinedCallbacks(ctx, unverified)
}

// understand turns one callback into events. The error means that something
// other than the callback is to blame and trying again may help.
func (p *Processing) understand(ctx context.Context, r *reader, c *store.NumberedCallback, first bool) (outcome, error) {
	whole := func(reason string) (outcome, error) {
		return outcome{quarantined: []store.Quarantine{{Account: c.AccountID, Source: c.SourceID, Callback: c.ID,
			Record: store.WholeCallback, Reason: reason}}}, nil
	}
	if r.adapter == nil {
		return whole("there is no adapter for this ESP")
	}
	req, err := c.Request()
	if errors.Is(err, store.ErrTooLarge) {
		return whole("its body is too large when inflated")
	} else if err != nil {
		return whole("its body cannot be read")
	}
	if !c.Verified {
		switch err := p.verify(ctx, r, req, c.SourceID); {
		case errors.Is(err, esp.ErrForged):
			return whole(err.Error())
		case errors.Is(err, esp.ErrUnverified) && givesUp(ctx):
			return whole("it could not be verified: the ESP's public key was out of reach")
		case err != nil:
			return outcome{}, fmt.Errorf("verify: %w", err)
		}
	}
	res, err := safeParse(r.adapter, req)
	if err != nil && len(res.Problems) == 0 {
		return whole(err.Error())
	}
	if first && res.Confirm != "" && p.Confirm != nil {
		switch err := p.confirm(ctx, r, req, c.SourceID, res.Confirm); {
		case errors.Is(err, errUnproven):
			return whole("it asks to confirm a subscription, but only the token in its address speaks for it: enter what this source is verified with, and have it read again")
		case errors.Is(err, esp.ErrForged):
			return whole(err.Error())
		case err != nil && givesUp(ctx):
			return whole("the subscription could not be confirmed")
		case err != nil:
			return outcome{}, fmt.Errorf("confirm subscription: %w", err)
		}
	}
	return collect(r, c, res), nil
}

// attempts to reach something in the network before a callback that depends on
// it is put aside, so that the rest of its group goes on. As a regular activity
// they take some two minutes.
const networkAttempts = 7

func givesUp(ctx context.Context) bool {
	return patient(ctx) && activity.GetInfo(ctx).Attempt >= networkAttempts
}

// confirm fetches the URL that confirms a subscription, for a callback whose
// signature holds and no other: whoever knows the token could make us subscribe
// to anything.
func (p *Processing) confirm(ctx context.Context, r *reader, req esp.Request, source id.ID, url string) error {
	if err := p.prove(ctx, r, req, source); err != nil {
		return err
	}
	return p.Confirm(ctx, url)
}

// verify does what intake could not do without the network, on the request as
// intake saw it.
func (p *Processing) verify(ctx context.Context, r *reader, req esp.Request, source id.ID) error {
	err := p.prove(ctx, r, req, source)
	if errors.Is(err, errUnproven) {
		return nil // the operator has since taken the secret away: only the token protects
	}
	return err
}

// errUnproven means that there is nothing to verify a callback with.
var errUnproven = errors.New("there is nothing to verify it with")

// prove returns nil when the adapter says that a callback is authentic.
func (p *Processing) prove(ctx context.Context, r *reader, req esp.Request, source id.ID) error {
	v, ok := r.adapter.(esp.Verifier)
	if !ok {
		return errUnproven
	}
	src, err := p.Store.SourceByID(ctx, source)
	if err != nil {
		return err
	}
	if !r.about.Verifiable(src.Secrets) {
		return errUnproven
	}
	token, err := p.Store.SourceToken(ctx, source)
	if err != nil {
		return err
	}
	req.Path = strings.Replace(req.Path, store.Masked, token, 1)
	req.URL = cmp.Or(strings.TrimSuffix(p.PublicURL, "/"), "https://"+req.Header.Get("Host")) + req.Path
	if req.RawQuery != "" {
		req.URL += "?" + req.RawQuery
	}
	return v.Verify(ctx, req, esp.Verification{Secrets: src.Secrets, Keys: p.Keys, Now: req.ReceivedAt})
}

// safeParse guards against an adapter that panics. None should; what is lost
// then is one callback, and it can be read again after a fix.
func safeParse(a esp.Adapter, req esp.Request) (res esp.Result, err error) {
	defer func() {
		if recover() != nil {
			res, err = esp.Result{}, fmt.Errorf("%w: the adapter stumbled over it", esp.ErrUnreadable)
		}
	}()
	return a.Parse(req)
}

func collect(r *reader, c *store.NumberedCallback, res esp.Result) outcome {
	var o outcome
	for _, problem := range res.Problems {
		o.quarantined = append(o.quarantined, store.Quarantine{Account: c.AccountID, Source: c.SourceID, Callback: c.ID,
			Record: problem.Record, Reason: problem.Reason})
	}
	o.events = make([]store.NewEvent, len(res.Events))
	source := id.Source.Format(c.SourceID)
	for i := range res.Events {
		e := &res.Events[i]
		e.ESP, e.Source, e.ReceivedAt = r.esp, source, c.ReceivedAt
		event.Clean(e)
		o.events[i] = store.NewEvent{
			Event: e, Account: c.AccountID, Source: c.SourceID, Callback: c.ID, N: c.N, Ordinal: i,
			Key:  correlate.EventKey(r.origin, e, c.ID, i),
			Keys: correlate.MessageKeys(nil, r.origin, e),
			// It came with the source's token and, where the ESP signs, its signature.
			Authentic: true,
		}
		e.Record = nil
	}
	return o
}
