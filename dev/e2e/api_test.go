package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// web is the client of everybody in these tests: ESPs, users, operators. It
// gives up on a process that died while it held the connection.
var web = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 128},
}

// call asks the API as a user and decodes the answer into out, which may be nil.
func (p *product) call(method, path string, in, out any) (status int, err error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, p.url+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer dev")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := web.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return res.StatusCode, err
	}
	if res.StatusCode/100 != 2 {
		return res.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, raw)
	}
	if out == nil {
		return res.StatusCode, nil
	}
	if b, ok := out.(*[]byte); ok {
		*b = raw
		return res.StatusCode, nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return res.StatusCode, fmt.Errorf("%s %s: %w: %s", method, path, err, raw)
	}
	return res.StatusCode, nil
}

// must is call, for what has to succeed.
func (p *product) must(t *testing.T, method, path string, in, out any) {
	t.Helper()
	_, err := p.call(method, path, in, out)
	require.NoError(t, err)
}

// source is one ESP account that posts to us.
type source struct {
	ID    string `json:"id"`
	URL   string `json:"url"`
	Token string `json:"token"`
	Name  string `json:"name"`
}

// newSource makes a source through the API.
func (p *product) newSource(t *testing.T, esp, name string, verification map[string]string) source {
	t.Helper()
	in := map[string]any{"esp": esp, "name": name}
	if verification != nil {
		in["verification"] = verification
	}
	var s source
	p.must(t, http.MethodPost, "/api/v1/sources", in, &s)
	require.True(t, strings.HasPrefix(s.ID, "src_"), "%+v", s)
	require.True(t, strings.HasPrefix(s.URL, p.url+"/callbacks/"+esp+"/"), "%+v", s)
	return s
}

// hook is a webhook with its endpoint.
type hook struct {
	*endpoint
	ID     string `json:"id"`
	Secret string `json:"secret"`
	Status string `json:"status"`
}

// newHook makes a webhook through the API. settings are those of the API's
// JSON; name and url are filled in.
func (p *product) newHook(t *testing.T, e *endpoint, settings map[string]any) *hook {
	t.Helper()
	in := map[string]any{"name": t.Name(), "url": e.url}
	for k, v := range settings {
		in[k] = v
	}
	h := &hook{endpoint: e}
	p.must(t, http.MethodPost, "/api/v1/webhooks", in, h)
	require.True(t, strings.HasPrefix(h.ID, "wh_"), "%+v", h)
	require.True(t, strings.HasPrefix(h.Secret, "whsec_"), "a new webhook tells its secret")
	require.Equal(t, "active", h.Status)
	return h
}

// from narrows a webhook to the events of some sources.
func from(sources ...source) map[string]any {
	ids := make([]string, 0, len(sources))
	for _, s := range sources {
		ids = append(ids, s.ID)
	}
	return map[string]any{"filters": map[string]any{"source": ids}}
}

// and adds one setting.
func and(settings map[string]any, key string, value any) map[string]any {
	settings[key] = value
	return settings
}

// webhookView is what the API says of a webhook.
type webhookView struct {
	Status  string `json:"status"`
	State   string `json:"state"`
	Backlog int    `json:"backlog"`
	Paused  *struct {
		Since  time.Time `json:"since"`
		Reason string    `json:"reason"`
	} `json:"paused"`
	Retrying *struct {
		Attempt   int       `json:"attempt"`
		Of        int       `json:"of"`
		NextAt    time.Time `json:"next_at"`
		GivesUpAt time.Time `json:"gives_up_at"`
	} `json:"retrying"`
}

func (p *product) webhook(h *hook) (v webhookView, err error) {
	_, err = p.call(http.MethodGet, "/api/v1/webhooks/"+h.ID, nil, &v)
	return v, err
}

// list fetches every page of a list of the API.
func list[T any](p *product, path string) ([]T, error) {
	var out []T
	next := ""
	for {
		page := path
		if next != "" {
			joint := "?"
			if strings.Contains(path, "?") {
				joint = "&"
			}
			page += joint + "after=" + url.QueryEscape(next)
		}
		var answer struct {
			Data []T    `json:"data"`
			Next string `json:"next"`
		}
		if _, err := p.call(http.MethodGet, page, nil, &answer); err != nil {
			return nil, err
		}
		out = append(out, answer.Data...)
		if next = answer.Next; next == "" || len(answer.Data) == 0 {
			return out, nil
		}
	}
}

// answer is what an ESP gets.
type answer struct {
	status     int
	retryAfter string
	id         string // when answered 200: cb_…, or rej_… for what Postgres refuses and is kept aside
}

// post posts a callback once, as the ESP would.
func post(ctx context.Context, s source, c callback) (answer, error) {
	address := s.URL
	if c.query != "" {
		address += "?" + c.query
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, address, strings.NewReader(c.Body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range c.Headers {
		req.Header.Set(k, v)
	}
	res, err := web.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, retryAfter: res.Header.Get("Retry-After")}
	if a.status != http.StatusOK {
		return a, nil
	}
	var said struct{ Status, ID string }
	prefixes := map[string]string{"accepted": "cb_", "kept": "rej_"}
	if err := json.Unmarshal(raw, &said); err != nil || prefixes[said.Status] == "" || !strings.HasPrefix(said.ID, prefixes[said.Status]) {
		return a, fmt.Errorf("answered 200 with %q, want the id of what is kept", raw)
	}
	a.id = said.ID
	return a, nil
}

// eventually waits until f returns nil and fails with its last error when that
// takes implausibly long. No deadline here says how fast the product is.
func eventually(t *testing.T, deadline time.Duration, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	require.NoError(t, err, "%s: not within %v", what, deadline)
}
