package manage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
	"unicode/utf8"

	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
	"aftersend/webhook"
	"aftersend/workflows"
)

// WebhookInput is what a webhook is made of, as in the API's JSON. nil = not
// given: the default for a new webhook, unchanged for an existing one.
type WebhookInput struct {
	Name           *string          `json:"name,omitempty" maxLength:"200" doc:"What you call it."`
	Status         *string          `json:"status,omitempty" enum:"active,inactive" doc:"An inactive webhook does not collect events. Pausing has its own operation."`
	Area           *string          `json:"area,omitempty" enum:"email_sending" doc:"What it is about."`
	Events         *[]event.Type    `json:"events,omitempty" nullable:"false" doc:"The event types it gets; none = all."`
	Filters        *webhook.Filters `json:"filters,omitempty" doc:"Values of one filter are alternatives; several filters must all match."`
	Channel        *string          `json:"channel,omitempty" enum:"web,pushover"`
	URL            *string          `json:"url,omitempty" maxLength:"2048" doc:"Where batches are posted. What stands after the question mark is kept secret."`
	Dialect        *string          `json:"dialect,omitempty" doc:"Whose payload it speaks: native, or a provider's."`
	Format         *string          `json:"format,omitempty" enum:"json,jsonl,form"`
	Auth           *AuthInput       `json:"auth,omitempty" doc:"How we authenticate to the endpoint, besides the signature."`
	Success        *string          `json:"success,omitempty" enum:"2xx,200" doc:"Which answers count as delivered."`
	TimeoutSeconds *int             `json:"timeout_seconds,omitempty" minimum:"1" maximum:"30" doc:"For one attempt, including the response body."`
	Retry          *RetryInput      `json:"retry,omitempty"`
	Batch          *BatchInput      `json:"batch,omitempty"`
	Notify         *[]string        `json:"notify,omitempty" nullable:"false" doc:"E-mail addresses that hear of an outage."`
	Pushover       *PushoverInput   `json:"pushover,omitempty"`
}

// AuthInput is how we authenticate to an endpoint. Secrets that are not given
// stay, while the type does.
type AuthInput struct {
	Type     webhook.AuthType   `json:"type" enum:"none,basic,query,bearer,headers"`
	Username *string            `json:"username,omitempty"`
	Password *string            `json:"password,omitempty"`
	Name     *string            `json:"name,omitempty" doc:"The query parameter's name."`
	Token    *string            `json:"token,omitempty" doc:"The query parameter's value, or the bearer token."`
	Headers  *map[string]string `json:"headers,omitempty"`
}

// RetryInput is how often and how long a failed batch is tried again.
type RetryInput struct {
	IntervalSeconds *int `json:"interval_seconds,omitempty" minimum:"1" maximum:"86400"`
	Attempts        *int `json:"attempts,omitempty" minimum:"0" maximum:"1000" doc:"After the first attempt; then the webhook is paused."`
}

// BatchInput is how events are gathered.
type BatchInput struct {
	MaxEvents      *int `json:"max_events,omitempty" minimum:"1" maximum:"500"`
	MaxWaitSeconds *int `json:"max_wait_seconds,omitempty" minimum:"0" maximum:"30" doc:"0 = at once; what gathers while a request is in flight goes together."`
}

// PushoverInput is where pushes go and how they sound.
type PushoverInput struct {
	UserKey  *string `json:"user_key,omitempty"`
	APIToken *string `json:"api_token,omitempty"`
	Sound    *string `json:"sound,omitempty"`
}

// set overwrites a value that was given.
func set[T, U ~string | ~int](to *T, given *U, convert func(U) T) {
	if given != nil {
		*to = convert(*given)
	}
}

func same[T any](v T) T { return v }

// apply writes what was given over a webhook's settings and secrets.
func (in WebhookInput) apply(row *store.WebhookRow) {
	s, secrets := &row.Settings, &row.Secrets
	set(&row.Name, in.Name, same)
	set(&row.Status, in.Status, same)
	set(&row.Area, in.Area, same)
	if in.Events != nil {
		s.Events = *in.Events
	}
	if in.Filters != nil {
		s.Filters = *in.Filters
	}
	set(&s.Channel, in.Channel, func(v string) webhook.Channel { return webhook.Channel(v) })
	set(&secrets.URL, in.URL, same)
	if in.Dialect != nil && webhook.Dialect(*in.Dialect) != s.Dialect {
		s.Dialect = webhook.Dialect(*in.Dialect)
		s.Format, s.Success = "", "" // the dialect's own, unless given
	}
	set(&s.Format, in.Format, func(v string) webhook.Format { return webhook.Format(v) })
	set(&s.Success, in.Success, func(v string) webhook.Success { return webhook.Success(v) })
	set(&s.Timeout, in.TimeoutSeconds, same)
	if r := in.Retry; r != nil {
		set(&s.Retry.IntervalSeconds, r.IntervalSeconds, same)
		set(&s.Retry.Attempts, r.Attempts, same)
	}
	if b := in.Batch; b != nil {
		set(&s.Batch.MaxEvents, b.MaxEvents, same)
		set(&s.Batch.MaxWaitSeconds, b.MaxWaitSeconds, same)
	}
	if in.Notify != nil {
		s.Notify = *in.Notify
	}
	if a := in.Auth; a != nil {
		if a.Type != s.AuthType {
			secrets.Auth = webhook.Auth{Type: a.Type}
		}
		s.AuthType = a.Type
		set(&secrets.Auth.Username, a.Username, same)
		set(&secrets.Auth.Password, a.Password, same)
		set(&secrets.Auth.Name, a.Name, same)
		set(&secrets.Auth.Token, a.Token, same)
		if a.Headers != nil {
			secrets.Auth.Headers = *a.Headers
		}
	}
	if p := in.Pushover; p != nil {
		set(&secrets.Pushover.UserKey, p.UserKey, same)
		set(&secrets.Pushover.APIToken, p.APIToken, same)
		set(&secrets.Pushover.Sound, p.Sound, same)
	}
}

// settingsDefaults are what a new webhook gets where its owner does not say.
func (m *Manager) settingsDefaults() webhook.Defaults {
	d := m.Defaults
	return webhook.Defaults{
		Timeout: d.Timeout, RetryInterval: d.RetryInterval, Retries: d.Retries,
		MaxEvents: d.BatchMaxEvents, MaxWait: d.BatchMaxWait,
	}
}

// normalize checks a webhook and brings it into the form it is kept in.
func (m *Manager) normalize(row *store.WebhookRow, named bool) error {
	var wrong Invalid
	if named {
		wrong.name("name", row.Name)
	}
	wrong.check(row.Status == "active" || row.Status == "inactive" || row.Status == "paused", "status", "want active or inactive")
	wrong.check(row.Area == "email_sending", "area", "want email_sending")
	settings, secrets, err := webhook.Normalize(row.Settings, row.Secrets, m.settingsDefaults(), m.Sender.CheckURL)
	problems, ok := errors.AsType[webhook.Problems](err)
	if err != nil && !ok {
		return err
	}
	for _, p := range problems {
		wrong.check(false, p.Field, p.Text)
	}
	row.Settings, row.Secrets = settings, secrets
	return wrong.err()
}

func (m *Manager) newWebhook(account id.ID, in WebhookInput) store.WebhookRow {
	row := store.WebhookRow{
		ID: id.New(), AccountID: account, Status: "active", Area: "email_sending", Version: 1,
		Settings:  m.settingsDefaults().Settings(),
		CreatedAt: m.Now().UTC().Truncate(time.Microsecond),
		Progress:  store.ProgressRow{Asleep: true},
	}
	row.UpdatedAt = row.CreatedAt
	in.apply(&row)
	return row
}

// CreateWebhook makes a webhook; it gets what is routed from now on. The
// signing secret (whsec_…) is returned only here and on rotation.
func (m *Manager) CreateWebhook(ctx context.Context, sc Scope, in WebhookInput) (row store.WebhookRow, signingSecret string, err error) {
	row = m.newWebhook(sc.Account, in)
	if err := m.normalize(&row, true); err != nil {
		return store.WebhookRow{}, "", err
	}
	key, err := webhook.NewKey(rand.Reader)
	if err != nil {
		return store.WebhookRow{}, "", fmt.Errorf("make signing key: %w", err)
	}
	err = m.Store.CreateWebhook(ctx, row, key, store.Change{
		By: sc.By, Action: "webhook.created", ResourceKind: "webhook", ResourceID: row.ID, ResourceName: row.Name,
	})
	if err != nil {
		return store.WebhookRow{}, "", dataError(err)
	}
	// Its workflow starts when the first event is routed to it.
	return row, webhook.Secret(key), nil
}

// UpdateWebhook changes what is given. With version 0 it makes the change
// whatever others did meanwhile; otherwise the webhook must still have this
// version, or the error is ErrConflict.
func (m *Manager) UpdateWebhook(ctx context.Context, sc Scope, hook id.ID, version int64, in WebhookInput) (store.WebhookRow, error) {
	for try := 1; ; try++ {
		row, err := m.updateWebhook(ctx, sc, hook, version, in)
		if errors.Is(err, ErrConflict) && version == 0 && try < 5 {
			continue
		}
		return row, err
	}
}

func (m *Manager) updateWebhook(ctx context.Context, sc Scope, hook id.ID, version int64, in WebhookInput) (store.WebhookRow, error) {
	before, err := m.Store.Webhook(ctx, sc.Account, hook)
	if err != nil {
		return store.WebhookRow{}, err
	}
	if version != 0 && version != before.Version {
		return store.WebhookRow{}, fmt.Errorf("webhook %s: %w", id.Webhook.Format(hook), ErrConflict)
	}
	if in.Status != nil && before.Status == "paused" {
		return store.WebhookRow{}, invalid("status", "it is paused; resume it first")
	}
	after := before
	in.apply(&after)
	if err := m.normalize(&after, true); err != nil {
		return store.WebhookRow{}, err
	}
	changes, err := difference(before, after)
	if err != nil {
		return store.WebhookRow{}, err
	}
	if len(changes) == 0 {
		return before, nil
	}
	err = m.Store.UpdateWebhook(ctx, after, store.Change{
		By: sc.By, Action: "webhook.updated", ResourceKind: "webhook", ResourceID: hook, ResourceName: after.Name, Changes: changes,
	})
	if err != nil {
		return store.WebhookRow{}, dataError(err)
	}
	m.nudge(ctx, hook, workflows.ReloadUpdate)
	return m.Store.Webhook(ctx, sc.Account, hook)
}

// difference lists what changed, field by field, with secrets filtered.
func difference(before, after store.WebhookRow) (map[string]store.FromTo, error) {
	flat := func(row store.WebhookRow) (map[string]any, error) {
		text, err := json.Marshal(row.Settings)
		if err != nil {
			return nil, err
		}
		fields := map[string]any{}
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, err
		}
		fields["name"], fields["status"], fields["area"] = row.Name, row.Status, row.Area
		return fields, nil
	}
	a, errA := flat(before)
	b, errB := flat(after)
	if err := errors.Join(errA, errB); err != nil {
		return nil, fmt.Errorf("compare settings: %w", err)
	}
	changes := map[string]store.FromTo{}
	for name := range a {
		if !reflect.DeepEqual(a[name], b[name]) {
			changes[name] = store.FromTo{From: a[name], To: b[name]}
		}
	}
	for name := range b {
		if _, had := a[name]; !had {
			changes[name] = store.FromTo{To: b[name]}
		}
	}
	secretly := func(field string, changed bool) {
		if _, shown := changes[field]; changed && !shown {
			changes[field] = store.FromTo{From: filtered, To: filtered}
		}
	}
	secretly("url", before.Secrets.URL != after.Secrets.URL)
	secretly("auth", !reflect.DeepEqual(before.Secrets.Auth, after.Secrets.Auth))
	secretly("pushover", before.Secrets.Pushover != after.Secrets.Pushover)
	return changes, nil
}

// DeleteWebhook ends a webhook; what waits for it is not delivered.
func (m *Manager) DeleteWebhook(ctx context.Context, sc Scope, hook id.ID) error {
	err := m.Store.DeleteWebhook(ctx, sc.Account, hook, store.Change{
		By: sc.By, Action: "webhook.deleted", ResourceKind: "webhook", ResourceID: hook,
	})
	if err == nil {
		m.nudge(ctx, hook, workflows.ReloadUpdate)
	}
	return err
}

// RotateSecret gives a webhook a new signing secret. The former one signs
// along for the configured overlap.
func (m *Manager) RotateSecret(ctx context.Context, sc Scope, hook id.ID) (signingSecret string, formerUntil time.Time, err error) {
	key, err := webhook.NewKey(rand.Reader)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("make signing key: %w", err)
	}
	overlap := m.Defaults.RotationOverlap
	err = m.Store.RotateSigningKey(ctx, sc.Account, hook, key, overlap, store.Change{
		By: sc.By, Action: "webhook.secret_rotated", ResourceKind: "webhook", ResourceID: hook,
	})
	return webhook.Secret(key), m.Now().Add(overlap).UTC(), err
}

// Flush delivers what a webhook has gathered without waiting any longer.
func (m *Manager) Flush(ctx context.Context, sc Scope, hook id.ID) error {
	row, err := m.Store.Webhook(ctx, sc.Account, hook)
	if err != nil {
		return err
	}
	if row.Status == "paused" {
		return invalid("status", "it is paused; resume it to deliver what waits")
	}
	m.nudge(ctx, hook, workflows.FlushUpdate)
	return nil
}

// Pause stops delivering to a webhook; events keep collecting.
func (m *Manager) Pause(ctx context.Context, sc Scope, hook id.ID, reason string) error {
	if utf8.RuneCountInString(reason) > 500 {
		return invalid("reason", "at most 500 characters")
	}
	err := m.Store.PauseWebhook(ctx, sc.Account, hook, reason, store.Change{
		By: sc.By, Action: "webhook.paused", ResourceKind: "webhook", ResourceID: hook,
		Changes: map[string]store.FromTo{"pause_reason": {From: "", To: reason}},
	})
	if err != nil {
		return err
	}
	m.nudge(ctx, hook, workflows.PauseUpdate)
	return nil
}

// Resume delivers to a paused webhook again. The batch that failed goes first,
// alone, under its old id; or, with BacklogSkip, nothing of what waits goes.
func (m *Manager) Resume(ctx context.Context, sc Scope, hook id.ID, backlog store.Backlog) error {
	if backlog != store.BacklogDeliver && backlog != store.BacklogSkip {
		return invalid("backlog", "want deliver or skip")
	}
	err := m.Store.ResumeWebhook(ctx, sc.Account, hook, backlog, store.Change{
		By: sc.By, Action: "webhook.resumed", ResourceKind: "webhook", ResourceID: hook,
		Changes: map[string]store.FromTo{"backlog": {To: string(backlog)}},
	})
	if err != nil {
		return err
	}
	m.nudge(ctx, hook, workflows.ResumeUpdate)
	return nil
}
