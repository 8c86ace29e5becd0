package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"aftersend/event"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
	"aftersend/webhook"
	"aftersend/workflows"
)

type webhookJSON struct {
	ID             string          `json:"id"`
	Name           string          `json:"name"`
	Status         string          `json:"status" enum:"active,paused,inactive"`
	State          string          `json:"state" enum:"idle,collecting,delivering,retrying,paused,inactive"`
	Area           string          `json:"area"`
	Events         []event.Type    `json:"events" nullable:"false" doc:"None = all."`
	Filters        webhook.Filters `json:"filters"`
	Channel        string          `json:"channel"`
	URL            string          `json:"url,omitempty" doc:"Without what stands after the question mark."`
	Dialect        string          `json:"dialect"`
	Format         string          `json:"format"`
	Auth           authJSON        `json:"auth"`
	Success        string          `json:"success"`
	TimeoutSeconds int             `json:"timeout_seconds"`
	Retry          webhook.Retry   `json:"retry"`
	Batch          webhook.Batch   `json:"batch"`
	Notify         []string        `json:"notify" nullable:"false"`
	Pushover       *pushoverJSON   `json:"pushover,omitempty"`

	Secret          string        `json:"secret,omitempty" doc:"whsec_…; only in the answer that makes it."`
	Paused          *pausedJSON   `json:"paused,omitempty"`
	Retrying        *retryingJSON `json:"retrying,omitempty"`
	Backlog         int64         `json:"backlog" doc:"Events that wait to be delivered."`
	Counts          countsJSON    `json:"counts" doc:"Since the webhook exists: matched = delivered + waiting + skipped + set_aside."`
	LastDeliveredAt *time.Time    `json:"last_delivered_at,omitempty"`
	WorkflowID      string        `json:"workflow_id" doc:"Its workflow in Temporal."`
	CreatedAt       time.Time     `json:"created_at"`
	UpdatedAt       time.Time     `json:"updated_at"`
}

// authJSON shows how we authenticate, without the secrets.
type authJSON struct {
	Type     string   `json:"type"`
	Username string   `json:"username,omitempty"`
	Name     string   `json:"name,omitempty"`
	Headers  []string `json:"headers,omitempty" doc:"Their names."`
}

type pushoverJSON struct {
	Sound string `json:"sound"`
}

type pausedJSON struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

type retryingJSON struct {
	Since     time.Time  `json:"since" doc:"Start of the outage."`
	Attempt   int        `json:"attempt" doc:"Retries used on the batch."`
	Of        int        `json:"of"`
	NextAt    *time.Time `json:"next_at,omitempty"`
	GivesUpAt *time.Time `json:"gives_up_at,omitempty" doc:"When the webhook will be paused."`
	LastError string     `json:"last_error"`
}

type countsJSON struct {
	Matched   int64 `json:"matched"`
	Delivered int64 `json:"delivered"`
	Waiting   int64 `json:"waiting"`
	Skipped   int64 `json:"skipped"`
	SetAside  int64 `json:"set_aside"`
}

// notNull shows an absent list as an empty one.
func notNull[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func webhookView(r store.WebhookRow) webhookJSON {
	s, p := r.Settings, r.Progress
	out := webhookJSON{
		ID: id.Webhook.Format(r.ID), Name: r.Name, Status: r.Status, State: webhookState(r), Area: r.Area,
		Events: notNull(s.Events), Filters: s.Filters, Channel: string(s.Channel), URL: s.URL,
		Dialect: string(s.Dialect), Format: string(s.Format), Success: string(s.Success), TimeoutSeconds: s.Timeout,
		Retry: s.Retry, Batch: s.Batch, Notify: notNull(s.Notify),
		Auth: authJSON{
			Type: string(s.AuthType), Username: r.Secrets.Auth.Username, Name: r.Secrets.Auth.Name,
			Headers: slices.Sorted(maps.Keys(r.Secrets.Auth.Headers)),
		},
		Backlog:         p.Waiting,
		Counts:          countsJSON{Matched: p.Matched, Delivered: p.Delivered, Waiting: p.Waiting, Skipped: p.Skipped, SetAside: p.SetAside},
		LastDeliveredAt: utc(p.LastDeliveredAt), WorkflowID: workflows.WebhookWorkflowID(r.ID),
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	if s.Channel == webhook.ChannelPushover {
		out.Pushover = &pushoverJSON{Sound: r.Secrets.Pushover.Sound}
	}
	if r.Status == "paused" && r.PausedAt != nil {
		out.Paused = &pausedJSON{Since: r.PausedAt.UTC(), Reason: r.PauseReason}
	}
	if out.State == "retrying" {
		out.Retrying = &retryingJSON{
			Since: p.FailingSince.UTC(), Attempt: p.AttemptsUsed, Of: s.Retry.Attempts,
			NextAt: utc(p.NextAt), GivesUpAt: utc(p.GivesUpAt), LastError: p.LastError,
		}
	}
	return out
}

// webhookState says in one word what a webhook is about, from its rows.
func webhookState(r store.WebhookRow) string {
	switch p := r.Progress; {
	case r.Status != "active":
		return r.Status
	case p.FailingSince != nil:
		return "retrying"
	case p.Collecting:
		return "collecting"
	case p.Waiting > 0:
		return "delivering"
	}
	return "idle"
}

type webhookOutput struct {
	ETag string `header:"ETag" doc:"For If-Match."`
	Body webhookJSON
}

func showWebhook(r store.WebhookRow) *webhookOutput {
	return &webhookOutput{ETag: strconv.Quote(strconv.FormatInt(r.Version, 10)), Body: webhookView(r)}
}

// webhookByID reads a webhook after something was done to it.
func (v *v1) webhookByID(ctx context.Context, sc manage.Scope, u id.ID) (*webhookOutput, error) {
	row, err := v.store.Webhook(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	return showWebhook(row), nil
}

func (v *v1) listWebhooks(ctx context.Context, sc manage.Scope, in *Paging) (*listOutput[webhookJSON], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Webhooks(ctx, sc.Account, p)
	if err != nil {
		return nil, err
	}
	return listOf(*in, rows, func(r store.WebhookRow) id.ID { return r.ID }, webhookView), nil
}

type webhookCreate struct{ Body manage.WebhookInput }

func (v *v1) createWebhook(ctx context.Context, sc manage.Scope, in *webhookCreate) (*webhookOutput, error) {
	row, secret, err := v.manage.CreateWebhook(ctx, sc, in.Body)
	if err != nil {
		return nil, err
	}
	out := showWebhook(row)
	out.Body.Secret = secret
	return out, nil
}

func (v *v1) getWebhook(ctx context.Context, sc manage.Scope, in *ByID) (*webhookOutput, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	return v.webhookByID(ctx, sc, u)
}

type webhookChange struct {
	ByID
	IfMatch string `header:"If-Match" doc:"The ETag of what the change is based on; without it the change is made whatever others did."`
	Body    manage.WebhookInput
}

func (v *v1) updateWebhook(ctx context.Context, sc manage.Scope, in *webhookChange) (*webhookOutput, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	var version int64
	if in.IfMatch != "" && in.IfMatch != "*" {
		version, err = strconv.ParseInt(strings.Trim(in.IfMatch, `"`), 10, 64)
		if err != nil || version <= 0 {
			return nil, badParam("header.If-Match", "want the ETag of the webhook")
		}
	}
	row, err := v.manage.UpdateWebhook(ctx, sc, u, version, in.Body)
	if err != nil {
		return nil, err
	}
	return showWebhook(row), nil
}

func (v *v1) deleteWebhook(ctx context.Context, sc manage.Scope, in *ByID) (*struct{}, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	return nil, v.manage.DeleteWebhook(ctx, sc, u)
}

type pauseInput struct {
	ByID
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"500" doc:"Shown beside the webhook and in the activity log."`
	} `required:"false"`
}

func (v *v1) pauseWebhook(ctx context.Context, sc manage.Scope, in *pauseInput) (*webhookOutput, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	if err := v.manage.Pause(ctx, sc, u, reason); err != nil {
		return nil, err
	}
	return v.webhookByID(ctx, sc, u)
}

type resumeInput struct {
	ByID
	Body *struct {
		Backlog string `json:"backlog,omitempty" enum:"deliver,skip" default:"deliver" doc:"What becomes of the events that wait. Skipped ones are kept."`
	} `required:"false"`
}

func (v *v1) resumeWebhook(ctx context.Context, sc manage.Scope, in *resumeInput) (*webhookOutput, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	backlog := store.BacklogDeliver
	if in.Body != nil && in.Body.Backlog != "" {
		backlog = store.Backlog(in.Body.Backlog)
	}
	if err := v.manage.Resume(ctx, sc, u, backlog); err != nil {
		return nil, err
	}
	return v.webhookByID(ctx, sc, u)
}

func (v *v1) flushWebhook(ctx context.Context, sc manage.Scope, in *ByID) (*webhookOutput, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	if err := v.manage.Flush(ctx, sc, u); err != nil {
		return nil, err
	}
	return v.webhookByID(ctx, sc, u)
}

type rotated struct {
	Body struct {
		Secret      string    `json:"secret" doc:"whsec_…; shown only here."`
		FormerUntil time.Time `json:"former_until" doc:"Until then the former secret signs along."`
	}
}

func (v *v1) rotateSecret(ctx context.Context, sc manage.Scope, in *ByID) (*rotated, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	out := &rotated{}
	out.Body.Secret, out.Body.FormerUntil, err = v.manage.RotateSecret(ctx, sc, u)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// --- tests ---

type testResult struct {
	OK          bool         `json:"ok"`
	StatusCode  int          `json:"status_code,omitempty" doc:"Absent when there was no answer."`
	Explanation string       `json:"explanation"`
	Request     exchangeJSON `json:"request"`
	Response    exchangeJSON `json:"response"`
	Timings     timingsJSON  `json:"timings"`
}

type exchangeJSON struct {
	URL       string   `json:"url,omitempty"`
	Headers   []header `json:"headers" nullable:"false" doc:"Credentials are masked."`
	Body      string   `json:"body" doc:"Its first 4 KiB."`
	Truncated bool     `json:"truncated,omitempty"`
}

type timingsJSON struct {
	DNS       float64 `json:"dns_ms"`
	Connect   float64 `json:"connect_ms"`
	TLS       float64 `json:"tls_ms"`
	FirstByte float64 `json:"first_byte_ms"`
	Total     float64 `json:"total_ms"`
}

type testOutput struct{ Body testResult }

func testView(r manage.TestResult) *testOutput {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	t := r.Answer.Timings
	request, answer := manage.Text(r.Body), manage.Text(r.Answer.Body)
	return &testOutput{testResult{
		OK: r.OK, StatusCode: r.StatusCode, Explanation: r.Explanation,
		Request:  exchangeJSON{URL: r.URL, Headers: headersOf(r.Header), Body: request, Truncated: len(request) < len(r.Body)},
		Response: exchangeJSON{Headers: headersOf(r.Answer.Header), Body: answer, Truncated: r.Answer.Truncated || len(answer) < len(r.Answer.Body)},
		Timings:  timingsJSON{DNS: ms(t.DNS), Connect: ms(t.Connect), TLS: ms(t.TLS), FirstByte: ms(t.FirstByte), Total: ms(t.Total)},
	}}
}

func headersOf(h http.Header) []header {
	headers := []header{}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			headers = append(headers, header{name, strings.ToValidUTF8(value, "\uFFFD")})
		}
	}
	return headers
}

type testInput struct {
	ByID
	Body *struct {
		Event event.Type `json:"event,omitempty" doc:"The type of the sample event; default: the first the webhook gets."`
		// Settings to try instead of the saved ones, before saving them.
		Webhook manage.WebhookInput `json:"webhook,omitempty" doc:"Settings to try in place of the saved ones."`
	} `required:"false"`
}

func (v *v1) testWebhook(ctx context.Context, sc manage.Scope, in *testInput) (*testOutput, error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	var changed manage.WebhookInput
	var t event.Type
	if in.Body != nil {
		changed, t = in.Body.Webhook, in.Body.Event
	}
	r, err := v.manage.TestWebhook(ctx, sc, u, changed, t)
	if err != nil {
		return nil, err
	}
	return testView(r), nil
}

type testUnsavedInput struct {
	Body struct {
		Event   event.Type          `json:"event,omitempty" doc:"The type of the sample event."`
		Webhook manage.WebhookInput `json:"webhook" doc:"As for making one; the name may be left out."`
	}
}

func (v *v1) testUnsaved(ctx context.Context, sc manage.Scope, in *testUnsavedInput) (*testOutput, error) {
	r, err := v.manage.TestUnsaved(ctx, sc, in.Body.Webhook, in.Body.Event)
	if err != nil {
		return nil, err
	}
	return testView(r), nil
}

// --- batches ---

type batchJSON struct {
	ID         string     `json:"id" doc:"The webhook-id header of its requests."`
	State      string     `json:"state" enum:"open,delivered,skipped,set_aside"`
	Dialect    string     `json:"dialect"`
	Format     string     `json:"format"`
	Events     int        `json:"events"`
	CreatedAt  time.Time  `json:"created_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	Attempts   []attempt  `json:"attempts" nullable:"false" doc:"The newest first, at most 50."`
}

type attempt struct {
	ID         string    `json:"id"`
	Number     int       `json:"number" doc:"1 = the first attempt."`
	StartedAt  time.Time `json:"started_at"`
	Outcome    string    `json:"outcome" enum:"started,delivered,failed"`
	StatusCode *int      `json:"status_code,omitempty"`
	ErrorClass string    `json:"error_class,omitempty" doc:"timeout, dns, connect, tls, status, …; absent when it was delivered."`
	Explains   string    `json:"explanation,omitempty" doc:"What happened, for a person."`
	Events     int       `json:"events"`
	Bytes      int       `json:"bytes"`
	TotalMS    *float64  `json:"total_ms,omitempty"`
	Response   string    `json:"response,omitempty" doc:"The first 4 KiB of the answer."`
}

func batchView(r store.BatchRow) batchJSON {
	out := batchJSON{
		ID: id.Batch.Format(r.ID), State: r.State, Dialect: r.Dialect, Format: r.Format, Events: r.Events,
		CreatedAt: r.CreatedAt.UTC(), FinishedAt: utc(r.FinishedAt), Attempts: make([]attempt, len(r.Attempts)),
	}
	for i, a := range r.Attempts {
		out.Attempts[i] = attempt{
			ID: id.Attempt.Format(a.ID), Number: a.Number, StartedAt: a.StartedAt.UTC(), Outcome: a.Outcome,
			StatusCode: a.StatusCode, ErrorClass: a.ErrorClass, Explains: a.Error, Events: a.Events, Bytes: a.Bytes,
			Response: manage.Text(a.Response),
		}
		if a.TotalUs != nil {
			total := float64(*a.TotalUs) / 1000
			out.Attempts[i].TotalMS = &total
		}
	}
	return out
}

type batchList struct {
	ByID
	Paging
}

func (v *v1) listBatches(ctx context.Context, sc manage.Scope, in *batchList) (*listOutput[batchJSON], error) {
	u, err := in.parse(id.Webhook)
	if err != nil {
		return nil, err
	}
	if _, err := v.store.Webhook(ctx, sc.Account, u); err != nil {
		return nil, err
	}
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Batches(ctx, sc.Account, u, p)
	if err != nil {
		return nil, err
	}
	return listOf(in.Paging, rows, func(r store.BatchRow) id.ID { return r.ID }, batchView), nil
}
