package activities

import (
	"sync"

	"aftersend/id"
)

// Hub tells deliveries in this process that a webhook's outbox has grown, so
// that a DeliverBatches lingering on an empty one goes on at once. It is a
// shortcut only: whoever watches also looks at the outbox from time to time,
// since events may have been routed by another process.
//
// The zero value is ready. Safe for concurrent use.
type Hub struct {
	mu       sync.Mutex
	watchers map[id.ID]map[chan struct{}]struct{}
}

// Notify wakes everyone who watches webhook. It never blocks.
func (h *Hub) Notify(webhook id.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.watchers[webhook] {
		select {
		case c <- struct{}{}:
		default: // told already and not looked yet
		}
	}
}

// Watch returns a channel that gets a value after each Notify, several of them
// as one, and a function that ends the watch. Watch first, then look at the
// outbox: what comes between is not missed.
func (h *Hub) Watch(webhook id.ID) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[id.ID]map[chan struct{}]struct{}{}
	}
	if h.watchers[webhook] == nil {
		h.watchers[webhook] = map[chan struct{}]struct{}{}
	}
	h.watchers[webhook][c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers[webhook], c)
		if len(h.watchers[webhook]) == 0 {
			delete(h.watchers, webhook)
		}
	}
}
