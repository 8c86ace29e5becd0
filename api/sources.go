package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"aftersend/esp"
	"aftersend/store"
)

// How long a look-up of a source is good. A change to a source (its secrets,
// its deletion) takes effect within sourceStale.
const (
	sourceFresh   = 2 * time.Second // used as it is
	sourceStale   = 5 * time.Second // used while one look-up renews it
	unknownFresh  = time.Second     // a token that is not known
	unknownsKept  = 4096
	lookUpsAtOnce = 4 // so that a flood of wrong tokens leaves connections to others
)

// sources finds the source of a request: a cache before the store.
type sources struct {
	find func(ctx context.Context, tokenHash []byte) (store.Source, error)
	now  func() time.Time
	slot chan struct{}

	mu      sync.RWMutex
	known   map[[sha256.Size]byte]*knownSource
	unknown map[[sha256.Size]byte]time.Time // until when
}

type knownSource struct {
	store.Source
	verifiable bool // what was entered suffices to verify
	common     bool // credentials or addresses were entered
	at         time.Time
	renewing   atomic.Bool
}

func newSources(find func(context.Context, []byte) (store.Source, error), now func() time.Time) *sources {
	return &sources{
		find: find, now: now, slot: make(chan struct{}, lookUpsAtOnce),
		known: map[[sha256.Size]byte]*knownSource{}, unknown: map[[sha256.Size]byte]time.Time{},
	}
}

// byToken returns the source of an ESP's name and a token, or store.ErrNotFound.
func (s *sources) byToken(ctx context.Context, about *esp.Description, token string) (*knownSource, error) {
	key := [sha256.Size]byte(store.SourceTokenHash(about.Name, token))
	now := s.now()
	s.mu.RLock()
	known, until := s.known[key], s.unknown[key]
	s.mu.RUnlock()
	switch {
	case known != nil && now.Sub(known.at) < sourceFresh:
		return known, nil
	case known != nil && now.Sub(known.at) < sourceStale && !known.renewing.CompareAndSwap(false, true):
		return known, nil
	case now.Before(until):
		return nil, store.ErrNotFound
	}

	select {
	case s.slot <- struct{}{}:
		defer func() { <-s.slot }()
	case <-ctx.Done():
		if known != nil {
			known.renewing.Store(false)
		}
		return nil, ctx.Err()
	}
	s.mu.RLock()
	other := s.known[key]
	s.mu.RUnlock()
	if other != known && now.Sub(other.atOr(now)) < sourceFresh {
		return other, nil // found while we waited
	}
	found, err := s.find(ctx, key[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		fresh := &knownSource{Source: found, verifiable: about.Verifiable(found.Secrets), common: esp.HasCommon(found.Secrets), at: now}
		s.known[key] = fresh
		return fresh, nil
	case errors.Is(err, store.ErrNotFound):
		delete(s.known, key)
		if len(s.unknown) >= unknownsKept {
			clear(s.unknown)
		}
		s.unknown[key] = now.Add(unknownFresh)
	case known != nil:
		known.renewing.Store(false)
	}
	return nil, err
}

// atOr is when the source was looked up, long ago when there is none.
func (k *knownSource) atOr(now time.Time) time.Time {
	if k == nil {
		return now.Add(-sourceStale)
	}
	return k.at
}
