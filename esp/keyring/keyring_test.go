package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/keyring"
)

type dns map[string][]string

func (d dns) LookupTXT(_ context.Context, name string) ([]string, error) {
	switch records, ok := d[name]; {
	case ok:
		return records, nil
	case name == "broken.example":
		return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func TestKeyring(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var asked atomic.Int64
	answer := func() (int, []byte, error) { return 200, []byte("PEM"), nil }
	k := keyring.New(func(context.Context, string) (int, []byte, error) { asked.Add(1); return answer() },
		dns{"key.example": {"p=abc"}}, func() time.Time { return now })

	_, err := k.Cached().Certificate(ctx, "https://a/1")
	require.ErrorIs(t, err, esp.ErrUnverified)
	require.Zero(t, asked.Load(), "the cached view asks nobody")

	for range 3 {
		pem, err := k.Certificate(ctx, "https://a/1")
		require.NoError(t, err)
		require.Equal(t, "PEM", string(pem))
	}
	pem, err := k.Cached().Certificate(ctx, "https://a/1")
	require.NoError(t, err)
	require.Equal(t, "PEM", string(pem))
	require.EqualValues(t, 1, asked.Load())

	now = now.Add(7 * time.Hour)
	_, err = k.Cached().Certificate(ctx, "https://a/1")
	require.ErrorIs(t, err, esp.ErrUnverified, "too old")

	for status, want := range map[int]error{404: esp.ErrForged, 403: esp.ErrForged, 500: esp.ErrUnverified, 429: esp.ErrUnverified} {
		answer = func() (int, []byte, error) { return status, nil, nil }
		_, err = k.Certificate(ctx, fmt.Sprintf("https://a/%d", status))
		require.ErrorIs(t, err, want, status)
	}
	answer = func() (int, []byte, error) { return 0, nil, errors.New("no route") }
	_, err = k.Certificate(ctx, "https://a/unreachable")
	require.ErrorIs(t, err, esp.ErrUnverified)
	require.NotErrorIs(t, err, esp.ErrForged)

	before := asked.Load()
	_, err = k.Certificate(ctx, "https://a/404")
	require.ErrorIs(t, err, esp.ErrForged)
	require.Equal(t, before, asked.Load(), "that it does not exist is kept, too")

	txt, err := k.TXT(ctx, "key.example")
	require.NoError(t, err)
	require.Equal(t, "p=abc", txt)
	txt, err = k.Cached().TXT(ctx, "KEY.example")
	require.NoError(t, err)
	require.Equal(t, "p=abc", txt)
	_, err = k.TXT(ctx, "missing.example")
	require.ErrorIs(t, err, esp.ErrForged)
	_, err = k.TXT(ctx, "broken.example")
	require.ErrorIs(t, err, esp.ErrUnverified)
	_, err = k.Certificate(ctx, "https://a/"+string(make([]byte, 5000)))
	require.ErrorIs(t, err, esp.ErrForged)
}

func TestKeyringIsBounded(t *testing.T) {
	k := keyring.New(func(context.Context, string) (int, []byte, error) { return 200, nil, nil }, nil, time.Now)
	kept := 0
	for i := range 3000 {
		_, err := k.Certificate(t.Context(), fmt.Sprint("https://a/", i))
		require.NoError(t, err)
	}
	for i := range 3000 {
		if _, err := k.Cached().Certificate(t.Context(), fmt.Sprint("https://a/", i)); err == nil {
			kept++
		}
	}
	require.LessOrEqual(t, kept, 1000)
	require.Positive(t, kept)
}
