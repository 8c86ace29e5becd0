// Package keyring finds the public keys that ESPs publish to verify their
// signatures (certificates behind an https URL, TXT records) and keeps them in
// memory for a while. Intake reads only what is kept, so that no callback
// waits for the network; activities ask the network and thereby fill it.
//
// It imports esp, the standard library and x/sync. How a URL is fetched is
// passed in: package outbound does it safely.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"aftersend/esp"
)

// Fetch gets an https URL whose host an adapter has checked. The body may be
// cut off at some 64 KiB. The error means that no answer came.
type Fetch func(ctx context.Context, url string) (status int, body []byte, err error)

// Resolver looks TXT records up; net.Resolver is one.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Limits of what is kept.
const (
	maxEntries  = 1000
	maxName     = 2048 // bytes of a URL or DNS name
	keepFor     = 6 * time.Hour
	keepMissing = time.Minute // that a key does not exist
	askFor      = 5 * time.Second
)

// Keyring is the esp.Keys that asks the network. Safe for concurrent use.
//
// Its errors wrap esp.ErrForged when there is no such key, which no waiting
// will mend, and esp.ErrUnverified when it could not be reached.
type Keyring struct {
	fetch    Fetch
	resolver Resolver
	now      func() time.Time

	flights singleflight.Group
	mu      sync.Mutex
	entries map[string]entry // by "cert " + URL or "txt " + name
}

type entry struct {
	value []byte
	err   error // there is no such key
	until time.Time
}

// New makes a keyring.
func New(fetch Fetch, resolver Resolver, now func() time.Time) *Keyring {
	return &Keyring{fetch: fetch, resolver: resolver, now: now, entries: map[string]entry{}}
}

// Certificate returns the PEM behind an https URL.
func (k *Keyring) Certificate(ctx context.Context, url string) ([]byte, error) {
	return k.get(ctx, "cert "+url, func(ctx context.Context) ([]byte, error) {
		status, body, err := k.fetch(ctx, url)
		switch {
		case err != nil:
			return nil, fmt.Errorf("fetch certificate: %w", esp.ErrUnverified)
		case status == http.StatusOK:
			return body, nil
		case status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
			return nil, fmt.Errorf("%w: its certificate does not exist (HTTP %d)", esp.ErrForged, status)
		}
		return nil, fmt.Errorf("fetch certificate (HTTP %d): %w", status, esp.ErrUnverified)
	})
}

// TXT returns the TXT record of a DNS name; of several, one a line.
func (k *Keyring) TXT(ctx context.Context, name string) (string, error) {
	value, err := k.get(ctx, "txt "+strings.ToLower(name), func(ctx context.Context) ([]byte, error) {
		records, err := k.resolver.LookupTXT(ctx, name)
		if missing, ok := errors.AsType[*net.DNSError](err); ok && missing.IsNotFound {
			return nil, fmt.Errorf("%w: its DNS key does not exist", esp.ErrForged)
		}
		if err != nil {
			return nil, fmt.Errorf("look up DNS key: %w", esp.ErrUnverified)
		}
		return []byte(strings.Join(records, "\n")), nil
	})
	return string(value), err
}

func (k *Keyring) get(ctx context.Context, name string, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	if len(name) > maxName {
		return nil, fmt.Errorf("%w: the name of its key is too long", esp.ErrForged)
	}
	if e, ok := k.kept(name); ok {
		return e.value, e.err
	}
	// One asks for all that wait; that its own request ends must not end theirs.
	value, err, _ := k.flights.Do(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askFor)
		defer cancel()
		value, err := ask(ctx)
		if err == nil || errors.Is(err, esp.ErrForged) {
			k.keep(name, value, err)
		}
		return value, err
	})
	return value.([]byte), err
}

func (k *Keyring) kept(name string) (entry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.entries[name]
	return e, ok && k.now().Before(e.until)
}

func (k *Keyring) keep(name string, value []byte, missing error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if len(k.entries) >= maxEntries {
		for n, e := range k.entries {
			if now.After(e.until) {
				delete(k.entries, n)
			}
		}
		for n := range k.entries {
			if len(k.entries) < maxEntries {
				break
			}
			delete(k.entries, n) // any: a key is quickly fetched again
		}
	}
	e := entry{value: value, err: missing, until: now.Add(keepFor)}
	if missing != nil {
		e.until = now.Add(keepMissing)
	}
	k.entries[name] = e
}

// Cached is the view of the keyring that never asks the network: what is not
// kept is esp.ErrUnverified.
func (k *Keyring) Cached() esp.Keys { return cached{k} }

type cached struct{ k *Keyring }

func (c cached) Certificate(_ context.Context, url string) ([]byte, error) {
	return c.look("cert " + url)
}

func (c cached) TXT(_ context.Context, name string) (string, error) {
	value, err := c.look("txt " + strings.ToLower(name))
	return string(value), err
}

// look leaves saying that a key does not exist to those who may ask again.
func (c cached) look(name string) ([]byte, error) {
	if e, ok := c.k.kept(name); ok && e.err == nil {
		return e.value, nil
	}
	return nil, esp.ErrUnverified
}
