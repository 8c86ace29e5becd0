package api

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
)

// --- account and tokens ---

type account struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Limits    json.RawMessage `json:"limits" doc:"max_webhooks, max_sources; absent = unlimited."`
	Webhooks  int             `json:"webhooks" doc:"How many it has."`
	Sources   int             `json:"sources" doc:"How many it has."`
	CreatedAt time.Time       `json:"created_at"`
}

type accountOutput struct{ Body account }

func (v *v1) getAccount(ctx context.Context, sc manage.Scope, _ *struct{}) (*accountOutput, error) {
	row, err := v.store.Account(ctx, sc.Account)
	if err != nil {
		return nil, err
	}
	return &accountOutput{account{
		ID: id.Account.Format(row.ID), Name: row.Name, Limits: row.Limits,
		Webhooks: row.Webhooks, Sources: row.Sources, CreatedAt: row.CreatedAt.UTC(),
	}}, nil
}

type token struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Token      string     `json:"token,omitempty" doc:"Only in the answer that makes it."`
	Last4      string     `json:"last4"`
	Loopback   bool       `json:"loopback,omitempty" doc:"Good for callers on the same machine only."`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
}

func tokenView(r store.TokenRow) token {
	return token{
		ID: id.Key.Format(r.ID), Name: r.Name, Last4: r.Last4, Loopback: r.Loopback,
		CreatedAt: r.CreatedAt.UTC(), LastUsedAt: utc(r.LastUsedAt), ExpiresAt: utc(r.ExpiresAt),
	}
}

type tokenOutput struct{ Body token }

func (v *v1) listTokens(ctx context.Context, sc manage.Scope, _ *struct{}) (*listOutput[token], error) {
	rows, err := v.store.Tokens(ctx, sc.Account)
	if err != nil {
		return nil, err
	}
	all := Paging{Limit: len(rows)}
	return listOf(all, rows, func(r store.TokenRow) id.ID { return r.ID }, tokenView), nil
}

type tokenInput struct {
	Body struct {
		Name      string     `json:"name" maxLength:"200"`
		ExpiresAt *time.Time `json:"expires_at,omitempty"`
	}
}

func (v *v1) createToken(ctx context.Context, sc manage.Scope, in *tokenInput) (*tokenOutput, error) {
	row, text, err := v.manage.CreateToken(ctx, sc, manage.TokenInput{Name: in.Body.Name, ExpiresAt: in.Body.ExpiresAt})
	if err != nil {
		return nil, err
	}
	out := &tokenOutput{tokenView(row)}
	out.Body.Token = text
	return out, nil
}

func (v *v1) revokeToken(ctx context.Context, sc manage.Scope, in *ByID) (*struct{}, error) {
	u, err := in.parse(id.Key)
	if err != nil {
		return nil, err
	}
	return nil, v.manage.RevokeToken(ctx, sc, u)
}

// --- sources ---

type source struct {
	ID             string            `json:"id"`
	ESP            string            `json:"esp"`
	Name           string            `json:"name"`
	URL            string            `json:"url" doc:"What to enter at the ESP."`
	Token          string            `json:"token" doc:"The secret part of the URL."`
	Loopback       bool              `json:"loopback,omitempty" doc:"Good for callers on the same machine only."`
	Verification   map[string]string `json:"verification" doc:"What callbacks are verified with; secrets are shown as [set]."`
	Protection     string            `json:"protection" doc:"What keeps a forger out."`
	SetUp          []string          `json:"set_up" nullable:"false" doc:"What to do at the ESP, in order."`
	DocsURL        string            `json:"docs_url,omitempty" doc:"The ESP's page on callbacks."`
	LastCallbackAt *time.Time        `json:"last_callback_at,omitempty"`
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`
}

type sourceOutput struct{ Body source }

func (v *v1) sourceView(r store.SourceRow) source {
	out := source{
		ID: id.Source.Format(r.ID), ESP: r.ESP, Name: r.Name, Token: r.Token, Loopback: r.Loopback,
		URL:          v.config.API.BaseURL() + "/callbacks/" + r.ESP + "/" + r.Token,
		Verification: map[string]string{}, SetUp: []string{},
		LastCallbackAt: utc(r.LastCallback), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	var about esp.Description
	if a, ok := v.manage.Adapter(r.ESP); ok {
		about = a.Describe()
	}
	out.Protection, out.DocsURL = about.Protection, about.DocsURL
	for _, step := range about.SetUp {
		out.SetUp = append(out.SetUp, strings.ReplaceAll(step.Text, "{url}", out.URL))
	}
	out.SetUp = append(out.SetUp, esp.CommonStep)
	for name := range r.Verification {
		out.Verification[name] = "[set]"
	}
	for _, f := range slices.Concat(about.Fields, esp.Common) {
		if value, ok := r.Verification[f.Name]; ok && !f.Secret {
			out.Verification[f.Name] = value
		}
	}
	return out
}

func (v *v1) listSources(ctx context.Context, sc manage.Scope, in *Paging) (*listOutput[source], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Sources(ctx, sc.Account, p)
	if err != nil {
		return nil, err
	}
	return listOf(*in, rows, func(r store.SourceRow) id.ID { return r.ID }, v.sourceView), nil
}

type sourceInput struct{ Body manage.SourceInput }

func (v *v1) createSource(ctx context.Context, sc manage.Scope, in *sourceInput) (*sourceOutput, error) {
	row, err := v.manage.CreateSource(ctx, sc, in.Body)
	if err != nil {
		return nil, err
	}
	return &sourceOutput{v.sourceView(row)}, nil
}

func (v *v1) getSource(ctx context.Context, sc manage.Scope, in *ByID) (*sourceOutput, error) {
	u, err := in.parse(id.Source)
	if err != nil {
		return nil, err
	}
	row, err := v.store.Source(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	return &sourceOutput{v.sourceView(row)}, nil
}

type sourceChange struct {
	ByID
	Body manage.SourceInput
}

func (v *v1) updateSource(ctx context.Context, sc manage.Scope, in *sourceChange) (*sourceOutput, error) {
	u, err := in.parse(id.Source)
	if err != nil {
		return nil, err
	}
	row, err := v.manage.UpdateSource(ctx, sc, u, in.Body)
	if err != nil {
		return nil, err
	}
	return &sourceOutput{v.sourceView(row)}, nil
}

func (v *v1) deleteSource(ctx context.Context, sc manage.Scope, in *ByID) (*struct{}, error) {
	u, err := in.parse(id.Source)
	if err != nil {
		return nil, err
	}
	return nil, v.manage.DeleteSource(ctx, sc, u)
}

// --- activity log ---

type activity struct {
	ID       string          `json:"id"`
	At       time.Time       `json:"at"`
	Actor    actor           `json:"actor"`
	Action   string          `json:"action"`
	Resource resource        `json:"resource"`
	Changes  json.RawMessage `json:"changes" doc:"By field: from and to; secrets as [FILTERED]."`
}

type actor struct {
	Kind string `json:"kind" enum:"user,token,system"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
}

type resource struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
}

// prefixes spell the ids of actors and resources by their kind.
var prefixes = map[string]id.Prefix{
	"account": id.Account, "source": id.Source, "suppression": id.Suppression, "token": id.Key, "user": id.User, "webhook": id.Webhook,
}

func activityView(r store.ActivityRow) activity {
	return activity{
		ID: id.Activity.Format(r.ID), At: r.At.UTC(), Action: r.Action, Changes: r.Changes,
		Actor:    actor{Kind: r.ActorKind, ID: prefixes[r.ActorKind].Format(r.ActorID.ID), Name: r.ActorName},
		Resource: resource{Kind: r.ResourceKind, ID: prefixes[r.ResourceKind].Format(r.ResourceID.ID), Name: r.ResourceName},
	}
}

func (v *v1) listActivity(ctx context.Context, sc manage.Scope, in *Paging) (*listOutput[activity], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Activities(ctx, sc.Account, p)
	if err != nil {
		return nil, err
	}
	return listOf(*in, rows, func(r store.ActivityRow) id.ID { return r.ID }, activityView), nil
}
