package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"aftersend/dev/bench/load"
	"aftersend/dev/internal/stack"
)

// setUp makes, through the product's API, a source for every ESP in the mix, and webhooks that deliver to the sink, of which the
// first is watched there.
func setUp(ctx context.Context, api, sink, nonce string, mix map[string]int, webhooks int) ([]load.Target, error) {
	c := client{base: api + "/api/v1", http: &http.Client{Timeout: 10 * time.Second}}
	for i := range webhooks {
		url := sink
		if i > 0 {
			url = fmt.Sprintf("%s/%d", sink, i)
		}
		if err := c.post(ctx, "/webhooks", map[string]any{"name": fmt.Sprintf("bench %s, %d", nonce, i), "url": url}, nil); err != nil {
			return nil, err
		}
	}
	var targets []load.Target
	for _, espName := range []string{"mandrill", "mailtrap"} {
		if mix[espName] == 0 {
			continue
		}
		t := load.Target{ESP: espName, Secret: "bench-" + nonce, Weight: mix[espName]}
		verification := map[string]string{map[string]string{"mandrill": "key", "mailtrap": "secret"}[espName]: t.Secret}
		var made struct {
			URL string `json:"url"`
		}
		err := c.post(ctx, "/sources", map[string]any{"esp": espName, "name": "bench " + nonce, "verification": verification}, &made)
		if err != nil {
			return nil, err
		}
		t.URL = made.URL
		targets = append(targets, t)
	}
	return targets, nil
}

// client calls the product's API.
type client struct {
	base string
	http *http.Client
}

func (c client) post(ctx context.Context, path string, body, into any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+stack.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %s", path, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
