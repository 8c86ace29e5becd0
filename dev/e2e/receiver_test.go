package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// receiver is the subscribers' side: one server, an endpoint per webhook.
type receiver struct {
	server *httptest.Server
	mu     sync.Mutex
	byPath map[string]*endpoint
}

func newReceiver() *receiver {
	r := &receiver{byPath: map[string]*endpoint{}}
	r.server = httptest.NewServer(r)
	return r
}

// endpoint makes a new address that answers 200.
func (r *receiver) endpoint(name string) *endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &endpoint{path: fmt.Sprintf("/%s-%d", name, len(r.byPath)), status: http.StatusOK}
	e.url = r.server.URL + e.path
	r.byPath[e.path] = e
	return e
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	e := r.byPath[req.URL.Path]
	r.mu.Unlock()
	if e == nil {
		http.NotFound(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender died half-way; nothing was received
	}
	e.mu.Lock()
	act := e.act
	e.mu.Unlock()
	if act != nil {
		act(w, req)
		return
	}
	e.mu.Lock()
	status, text := e.status, e.text
	e.got = append(e.got, delivery{
		batch:  req.Header.Get("webhook-id"),
		header: req.Header.Clone(),
		query:  req.URL.RawQuery,
		body:   body,
		status: status,
	})
	e.mu.Unlock()
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// endpoint is one subscriber's address and everything that arrived there.
type endpoint struct {
	url, path string

	mu     sync.Mutex
	status int
	text   string
	act    http.HandlerFunc // instead of everything else
	got    []delivery
}

// delivery is one request as the subscriber saw it, and what it answered.
type delivery struct {
	batch  string
	header http.Header
	query  string
	body   []byte
	status int
}

// answer sets what is answered from now on.
func (e *endpoint) answer(status int, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.text = status, text
}

// behave makes the endpoint do something of its own; nil ends that.
func (e *endpoint) behave(act http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.act = act
}

// all is everything that arrived so far, in order.
func (e *endpoint) all() []delivery {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

// received is one event as delivered: its id and its exact bytes.
type received struct {
	ID   string
	JSON json.RawMessage
}

// events are the events of a native JSON batch.
func (d delivery) events(t *testing.T) []received {
	t.Helper()
	var batch struct {
		Events []json.RawMessage `json:"events"`
	}
	require.NoError(t, json.Unmarshal(d.body, &batch), "batch %s is native JSON", d.batch)
	var out []received
	for _, raw := range batch.Events {
		var e struct {
			ID string `json:"id"`
		}
		require.NoError(t, json.Unmarshal(raw, &e))
		out = append(out, received{e.ID, raw})
	}
	return out
}

// requirePromises checks what holds of every endpoint at any time: requests are
// signed, a batch has the same bytes whenever it comes, and an event is in one
// batch only. It returns the events that were accepted, in order of arrival.
func (e *endpoint) requirePromises(t *testing.T, secret string) []received {
	t.Helper()
	signer, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	bodies := map[string][]byte{}
	batchOf := map[string]string{}
	accepted := map[string]bool{}
	var out []received
	for _, d := range e.all() {
		require.True(t, strings.HasPrefix(d.batch, "bat_"), "webhook-id %q", d.batch)
		require.NoError(t, signer.Verify(d.body, d.header), "batch %s", d.batch)
		if first, seen := bodies[d.batch]; seen {
			require.True(t, bytes.Equal(first, d.body), "batch %s came with other bytes the second time", d.batch)
		}
		bodies[d.batch] = d.body
		for _, ev := range d.events(t) {
			if first, seen := batchOf[ev.ID]; seen {
				require.Equal(t, first, d.batch, "event %s is in two batches", ev.ID)
			}
			batchOf[ev.ID] = d.batch
			if d.status == http.StatusOK && !accepted[d.batch] {
				out = append(out, ev)
			}
		}
		if d.status == http.StatusOK {
			accepted[d.batch] = true
		}
	}
	return out
}
