package activities

import (
	"context"

	"golang.org/x/sync/errgroup"

	"aftersend/crash"
	"aftersend/store"
)

// wakers is how many workflows are signalled at a time.
const wakers = 8

// WakeWebhooks tells the webhooks that got something from a group. It always
// does, however often it runs: whether a webhook must be told is read from its
// row after RouteEvents has committed.
func (p *Processing) WakeWebhooks(ctx context.Context, in GroupInput) (GroupResult, error) {
	var g store.GroupState
	var err error
	if known := p.groups.get(in.Group); known != nil && known.routed != nil {
		g = *known.routed
	} else if g, err = p.begin(ctx, in.Group); err != nil {
		return GroupResult{}, err
	}
	if g.Number == 0 {
		return result(g), nil
	}
	targets, err := p.Store.WakeTargets(ctx, g.Number)
	if err != nil {
		return GroupResult{}, err
	}
	crash.Point("wake_before")
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(wakers)
	for _, t := range targets {
		p.Hub.Notify(t.Webhook)
		if t.Signal {
			work.Go(func() error { return p.Waker.Wake(ctx, t.Webhook) })
		}
	}
	if err := work.Wait(); err != nil {
		return GroupResult{}, err
	}
	crash.Point("wake_after")
	p.groups.drop(in.Group)
	res := result(g)
	res.Webhooks = len(targets)
	return res, nil
}
