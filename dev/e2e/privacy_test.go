package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"

	"aftersend/dev/internal/stack"
	"aftersend/workflows"
)

// TestNothingPersonalInTemporalOrLogs plants addresses, texts, tokens and
// secrets in every place there is, has things go right and wrong with them, and
// then looks for them in all that Temporal keeps and all that was logged.
func TestNothingPersonalInTemporalOrLogs(t *testing.T) {
	t.Parallel()
	p := calm(t)
	const mark = "canary7f3a"
	secret := "secret-" + mark
	s := p.newSource(t, "mailtrap", "canaries", map[string]string{"secret": secret})
	failing := receivers.endpoint("canary-failing")
	failing.answer(http.StatusServiceUnavailable, "no, "+mark+" is not welcome; who is somebody@"+people+"?")
	failing.url += "?key=query-" + mark
	settings := func(auth map[string]any) map[string]any {
		in := and(and(from(s), "notify", []string{"owner-" + mark + "@" + people}), "retry", map[string]any{"interval_seconds": 1, "attempts": 2})
		in["auth"] = auth
		return in
	}
	h := p.newHook(t, failing, settings(map[string]any{"type": "basic", "username": "user-" + mark, "password": "password-" + mark}))
	bearer := p.newHook(t, receivers.endpoint("canary-bearer"), settings(map[string]any{"type": "bearer", "token": "bearer-" + mark}))
	broken := &endpoint{url: "http://user-" + mark + ":password-" + mark + "@127.0.0.1:1/" + mark + "?token=query-" + mark}
	_, err := p.call(http.MethodPost, "/api/v1/webhooks", and(settings(map[string]any{"type": "none"}), "name", "nobody listens"), nil)
	require.Error(t, err, "a webhook needs a URL")
	unreachable := map[string]any{"name": "nobody listens", "url": broken.url, "filters": map[string]any{"source": []string{s.ID}}, "retry": map[string]any{"interval_seconds": 1, "attempts": 2}}
	if _, err := p.call(http.MethodPost, "/api/v1/webhooks", unreachable, nil); err != nil {
		require.NotContains(t, err.Error(), "password-"+mark, "problems never echo secrets")
	}

	sent := mailtrapEvent(map[string]any{
		"event": "bounce", "event_id": "event-" + mark, "message_id": "message-" + mark, "email": "Somebody." + mark + "@" + people,
		"category": "category-" + mark, "custom_variables": map[string]any{"name": "Jane " + mark}, "response": "550 5.1.1 <somebody." + mark + "@" + people + "> unknown", "response_code": 550,
	}).signedAsMailtrap(secret).with("Authorization", "Bearer header-"+mark).with("Cookie", "session="+mark)
	sent.query = "password=query-" + mark
	a, err := post(t.Context(), s, sent)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.status)
	unreadable := callback{Method: http.MethodPost, Headers: map[string]string{"Content-Type": "application/json"}, Body: `{"events":[{"event":"` + mark + `", "email": somebody@` + people}
	b, err := post(t.Context(), s, unreadable.signedAsMailtrap(secret))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, b.status)
	forged, err := post(t.Context(), s, sent.with("Mailtrap-Signature", "00"))
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, forged.status)
	// A step that fails with the data in the error's detail.
	p.exec(t, `alter table events add constraint e2e_canary check (position('refuse-`+mark+`'::bytea in data) = 0) not valid`)
	refused, err := post(t.Context(), s, mailtrapEvent(map[string]any{"event_id": "refuse-" + mark, "email": mark + "@" + people}).signedAsMailtrap(secret))
	require.NoError(t, err)
	eventually(t, time.Minute, "refused event in quarantine", func() error { return p.callbackState(refused.id, "quarantined") })
	p.exec(t, `alter table events drop constraint e2e_canary`)

	eventually(t, time.Minute, "quarantined", func() error { return p.callbackState(b.id, "quarantined") })
	eventually(t, 2*time.Minute, "the failing webhook is paused", func() error {
		v, err := p.webhook(h)
		if err != nil {
			return err
		}
		return want(v.Status, "paused", "status")
	})
	eventually(t, time.Minute, "mail", func() error { return want(len(mails.to("owner-"+mark+"@"+people)), 1, "mails") })
	eventually(t, time.Minute, "delivered", func() error {
		if len(bearer.all()) == 0 {
			return errNotYet
		}
		return nil
	})
	require.Equal(t, "Bearer bearer-"+mark, bearer.all()[0].header.Get("Authorization"))
	user, password, _ := (&http.Request{Header: h.all()[0].header}).BasicAuth()
	require.Equal(t, "user-"+mark+" password-"+mark, user+" "+password)
	require.Equal(t, "key=query-"+mark, h.all()[0].query)

	words := []string{mark, people, secret, s.Token, h.Secret, strings.TrimPrefix(bearer.Secret, "whsec_"), "Password reset"}
	n := 0
	for _, info := range p.workflows(t) {
		raw, err := proto.Marshal(info) // memo, search attributes, summaries: payloads are plain bytes in it
		require.NoError(t, err)
		requireNone(t, words, raw, info.Execution.WorkflowId)
		// Thousands of good callbacks of other tests look alike.
		if n++; n > 300 && info.Type.Name == workflows.ProcessCallbacksType {
			continue
		}
		history, err := p.fetchHistory(info.Execution.WorkflowId, info.Execution.RunId)
		require.NoError(t, err)
		raw, err = proto.Marshal(history)
		require.NoError(t, err)
		requireNone(t, words, raw, "history of "+info.Execution.WorkflowId)
	}
	require.Greater(t, n, 3)
	d, err := p.describe(workflows.WebhookWorkflowID(h.webhookID()))
	require.NoError(t, err)
	raw, err := proto.Marshal(d)
	require.NoError(t, err)
	requireNone(t, words, raw, "description of the paused webhook's workflow")

	log := p.logs[stack.Serve].String()
	require.NotEmpty(t, log, "there is something to look through")
	requireNone(t, words, []byte(log), "the product's log")
	requireNone(t, words, []byte(p.logs[stack.Temporal].String()), "Temporal's log")
}

func requireNone(t *testing.T, words []string, text []byte, where string) {
	t.Helper()
	lower := bytes.ToLower(text)
	for _, word := range words {
		if i := bytes.Index(lower, []byte(strings.ToLower(word))); i >= 0 {
			t.Errorf("%s holds %q: …%q…", where, word, text[max(0, i-300):min(len(text), i+100)])
		}
	}
}

// workflows lists every workflow execution that Temporal knows, newest first.
func (p *product) workflows(t *testing.T) []*workflowpb.WorkflowExecutionInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out []*workflowpb.WorkflowExecutionInfo
	var next []byte
	for {
		page, err := p.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: stack.Namespace, PageSize: 500, NextPageToken: next})
		require.NoError(t, err, fmt.Sprintf("after %d", len(out)))
		out = append(out, page.Executions...)
		if next = page.NextPageToken; len(next) == 0 {
			return out
		}
	}
}
