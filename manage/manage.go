// Package manage is what people do with aftersend: make and change webhooks,
// sources and tokens, pause and resume. Each action validates, saves the row
// and its line in the activity log in one transaction, and then nudges the
// workflow concerned. The row is the truth: a nudge that fails is logged, and
// the sweep brings the workflow in line.
//
// The API, the pages and the commands are skins over it. It knows nothing of
// HTTP and may not import them.
package manage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"aftersend/config"
	"aftersend/esp"
	"aftersend/id"
	"aftersend/store"
)

// Engine is what manage needs of the workflow engine; *workflows.Client is one.
type Engine interface {
	// Wake starts or wakes a webhook's workflow.
	Wake(ctx context.Context, webhook id.ID) error
	// Nudge sends the update of this name to a webhook's workflow.
	Nudge(ctx context.Context, webhook id.ID, update string) error
}

// Deps is what a Manager works with. All are required but Now and Log.
type Deps struct {
	Store    *store.Store
	Engine   Engine
	Adapters []esp.Adapter // in the order pages show them
	Defaults config.Delivery
	Sender   Sender // judges URLs and sends tests
	Now      func() time.Time
	Log      *slog.Logger
}

// Manager carries out what people ask for. Safe for concurrent use.
type Manager struct {
	Deps
	adapters map[string]esp.Adapter // by name and alias
}

// New makes a manager.
func New(d Deps) *Manager {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	m := &Manager{Deps: d, adapters: map[string]esp.Adapter{}}
	for _, a := range d.Adapters {
		about := a.Describe()
		m.adapters[about.Name] = a
		for _, alias := range about.Aliases {
			m.adapters[alias] = a
		}
	}
	return m
}

// Scope is the account somebody works in, and who that is.
type Scope struct {
	Account id.ID
	By      store.Actor
}

// System is the scope of what aftersend does by itself.
func System(account id.ID) Scope {
	return Scope{Account: account, By: store.Actor{Kind: "system", Name: "aftersend"}}
}

// Invalid lists what is wrong with a request, field by field. It never repeats
// what was given.
type Invalid struct {
	Fields []FieldError
}

// FieldError is one thing that is wrong.
type FieldError struct {
	Field   string // as in JSON: "retry.attempts"
	Message string // what is wanted
}

// Error implements error.
func (e *Invalid) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + ": " + f.Message
	}
	return "invalid " + strings.Join(parts, "; ")
}

// check adds an error unless ok.
func (e *Invalid) check(ok bool, field, message string) {
	if !ok {
		e.Fields = append(e.Fields, FieldError{field, message})
	}
}

// err returns e, or nil when nothing is wrong.
func (e *Invalid) err() error {
	if len(e.Fields) == 0 {
		return nil
	}
	return e
}

func invalid(field, message string) error {
	return &Invalid{Fields: []FieldError{{field, message}}}
}

// name checks what a person called something.
func (e *Invalid) name(field, text string) {
	ok := utf8.ValidString(text) && strings.TrimSpace(text) == text && text != "" && utf8.RuneCountInString(text) <= 200 &&
		!strings.ContainsFunc(text, unicode.IsControl)
	e.check(ok, field, "want 1 to 200 characters, none of them a control character, no space around them")
}

// ErrConflict means that somebody else changed the thing meanwhile.
var ErrConflict = store.ErrConflict

// How long a person waits for the workflow to take note of a change. It is
// saved already.
const nudgeTimeout = 3 * time.Second

// nudge tells the workflow of a change that is saved. Failing is no error.
func (m *Manager) nudge(ctx context.Context, webhook id.ID, update string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), nudgeTimeout)
	defer cancel()
	if err := m.Engine.Nudge(ctx, webhook, update); err != nil {
		m.Log.WarnContext(ctx, "workflow not nudged; the sweep will see to it",
			"webhook_id", id.Webhook.Format(webhook), "update", update, "error_class", store.Class(err))
	}
}

// secret makes a random URL-safe text of n bytes' entropy.
func secret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b)
}

// filtered stands in the activity log where a secret changed.
const filtered = "[FILTERED]"

// dataError turns text that Postgres refuses (a NUL, for one) into an error of
// the request. Violated constraints are not the text's fault.
func dataError(err error) error {
	if store.IsDataError(err) && !strings.HasPrefix(store.Code(err), "23") {
		return invalid("body", "it holds text that cannot be stored")
	}
	return err
}

// --- sources ---

// SourceInput is what a source is made of. nil = not given.
type SourceInput struct {
	ESP          *string           `json:"esp,omitempty" doc:"The ESP that will post to it: a name such as mandrill. Cannot be changed later."`
	Name         *string           `json:"name,omitempty" maxLength:"200" doc:"What you call it. Default: the ESP's name."`
	Verification map[string]string `json:"verification,omitempty" doc:"What the ESP's callbacks are verified with: fields that depend on the ESP, and username, password, bearer and allowed_ips with any. An empty text removes a field."`
}

// CreateSource makes a source with a fresh token.
func (m *Manager) CreateSource(ctx context.Context, sc Scope, in SourceInput) (store.SourceRow, error) {
	return m.createSource(ctx, sc, in, secret(24), false)
}

func (m *Manager) createSource(ctx context.Context, sc Scope, in SourceInput, token string, loopback bool) (store.SourceRow, error) {
	var wrong Invalid
	row := store.SourceRow{
		ID: id.New(), AccountID: sc.Account, Token: token, Loopback: loopback,
		CreatedAt: m.Now().UTC().Truncate(time.Microsecond),
	}
	row.UpdatedAt = row.CreatedAt
	var about esp.Description
	if in.ESP == nil {
		wrong.check(false, "esp", "required")
	} else if a, ok := m.adapters[*in.ESP]; !ok {
		wrong.check(false, "esp", "want one of "+strings.Join(m.espNames(), ", "))
	} else {
		about = a.Describe()
		row.ESP, row.Name = about.Name, about.Title
	}
	if in.Name != nil {
		row.Name = *in.Name
		wrong.name("name", row.Name)
	}
	if row.ESP != "" {
		row.Verification = wrong.verification(about, nil, in.Verification)
	}
	if err := wrong.err(); err != nil {
		return store.SourceRow{}, err
	}
	err := m.Store.CreateSource(ctx, row, store.Change{
		By: sc.By, Action: "source.created", ResourceKind: "source", ResourceID: row.ID, ResourceName: row.Name,
	})
	return row, dataError(err)
}

// UpdateSource changes a source's name and verification; verification fields
// that are not given stay.
func (m *Manager) UpdateSource(ctx context.Context, sc Scope, source id.ID, in SourceInput) (store.SourceRow, error) {
	row, err := m.Store.Source(ctx, sc.Account, source)
	if err != nil {
		return store.SourceRow{}, err
	}
	var wrong Invalid
	changes := map[string]store.FromTo{}
	wrong.check(in.ESP == nil || *in.ESP == row.ESP, "esp", "cannot be changed; make another source")
	if in.Name != nil && *in.Name != row.Name {
		wrong.name("name", *in.Name)
		changes["name"] = store.FromTo{From: row.Name, To: *in.Name}
		row.Name = *in.Name
	}
	a, ok := m.adapters[row.ESP]
	if !ok {
		return store.SourceRow{}, fmt.Errorf("source %s: this build has no adapter for %q", id.Source.Format(source), row.ESP)
	}
	if len(in.Verification) > 0 {
		changes["verification"] = store.FromTo{From: filtered, To: filtered}
		row.Verification = wrong.verification(a.Describe(), row.Verification, in.Verification)
	}
	if err := wrong.err(); err != nil {
		return store.SourceRow{}, err
	}
	if len(changes) == 0 {
		return row, nil
	}
	row.UpdatedAt = m.Now().UTC().Truncate(time.Microsecond)
	err = m.Store.UpdateSource(ctx, row, store.Change{
		By: sc.By, Action: "source.updated", ResourceKind: "source", ResourceID: row.ID, ResourceName: row.Name, Changes: changes,
	})
	return row, dataError(err)
}

// verification merges given values into the secrets a source has, and checks
// them against the fields of its ESP and those that every source has.
func (e *Invalid) verification(about esp.Description, have esp.Secrets, given map[string]string) esp.Secrets {
	fields := slices.Concat(about.Fields, esp.Common)
	merged := esp.Secrets{}
	for name, value := range have {
		merged[name] = value
	}
	for name, value := range given {
		known := slices.ContainsFunc(fields, func(f esp.Field) bool { return f.Name == name })
		// The name of an unknown field is not repeated: it may be a secret in the wrong place.
		e.check(known, "verification", "unknown field; "+about.Name+" has "+fieldNames(fields))
		e.check(len(value) <= 16<<10, "verification."+name, "longer than 16 KiB")
		if value == "" {
			delete(merged, name)
		} else if known {
			merged[name] = value
		}
	}
	// One required field wants the others; without any, the source is just not verified by signature.
	begun := slices.ContainsFunc(about.Fields, func(f esp.Field) bool { return f.Required && merged[f.Name] != "" })
	for _, f := range about.Fields {
		e.check(!begun || !f.Required || merged[f.Name] != "", "verification."+f.Name, "required for verification")
	}
	e.common(merged)
	return merged
}

// common checks the fields that every source has.
func (e *Invalid) common(s esp.Secrets) {
	_, err := esp.ParsePrefixes(s["allowed_ips"])
	e.check(err == nil, "verification.allowed_ips", "want IP addresses and ranges such as 192.0.2.0/24, with spaces or commas between")
	e.check(!strings.Contains(s["username"], ":"), "verification.username", "basic authentication allows no colon in it")
	e.check(s["password"] == "" || s["username"] != "", "verification.username", "required with a password")
	e.check(s["bearer"] == "" || s["username"] == "", "verification.bearer", "a request cannot carry both a user name and a bearer token")
}

func fieldNames(fields []esp.Field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

func (m *Manager) espNames() []string {
	names := make([]string, len(m.Adapters))
	for i, a := range m.Adapters {
		names[i] = a.Describe().Name
	}
	return names
}

// Adapter returns the adapter of an ESP's name or alias.
func (m *Manager) Adapter(name string) (esp.Adapter, bool) {
	a, ok := m.adapters[name]
	return a, ok
}

// DeleteSource ends a source; what it received stays.
func (m *Manager) DeleteSource(ctx context.Context, sc Scope, source id.ID) error {
	return m.Store.DeleteSource(ctx, sc.Account, source, store.Change{
		By: sc.By, Action: "source.deleted", ResourceKind: "source", ResourceID: source,
	})
}

// --- API tokens ---

// TokenInput is what an API token is made of.
type TokenInput struct {
	Name      string
	ExpiresAt *time.Time // nil = never
}

// CreateToken makes an API token; the text is returned only here.
func (m *Manager) CreateToken(ctx context.Context, sc Scope, in TokenInput) (store.TokenRow, string, error) {
	return m.createToken(ctx, sc, in, "as_"+secret(32), false)
}

func (m *Manager) createToken(ctx context.Context, sc Scope, in TokenInput, text string, loopback bool) (store.TokenRow, string, error) {
	var wrong Invalid
	wrong.name("name", in.Name)
	wrong.check(in.ExpiresAt == nil || in.ExpiresAt.After(m.Now()), "expires_at", "want a time to come")
	if err := wrong.err(); err != nil {
		return store.TokenRow{}, "", err
	}
	row := store.TokenRow{
		ID: id.New(), AccountID: sc.Account, Name: in.Name, Last4: text[max(0, len(text)-4):], Loopback: loopback,
		CreatedAt: m.Now().UTC().Truncate(time.Microsecond), ExpiresAt: in.ExpiresAt,
	}
	err := m.Store.CreateToken(ctx, row, store.TokenHash(text), store.Change{
		By: sc.By, Action: "token.created", ResourceKind: "token", ResourceID: row.ID, ResourceName: row.Name,
	})
	return row, text, dataError(err)
}

// RevokeToken ends an API token.
func (m *Manager) RevokeToken(ctx context.Context, sc Scope, token id.ID) error {
	return m.Store.RevokeToken(ctx, sc.Account, token, store.Change{
		By: sc.By, Action: "token.revoked", ResourceKind: "token", ResourceID: token,
	})
}

// --- the first start ---

// DevToken is the API token and the source token of a development machine,
// good for loopback peers only.
const DevToken = "dev"

// Bootstrap makes the account "default" when there is none, and, for a
// development machine, the API token "dev" and a source with the token "dev"
// for every ESP that has none. It may be repeated and run in several processes
// at once. It returns the account.
func (m *Manager) Bootstrap(ctx context.Context, dev bool) (id.ID, error) {
	account, _, err := m.Store.EnsureAccount(ctx, "default")
	if err != nil || !dev {
		return account, err
	}
	sc := System(account)
	_, err = m.Store.TokenByHash(ctx, store.TokenHash(DevToken))
	if errors.Is(err, store.ErrNotFound) {
		_, _, err = m.createToken(ctx, sc, TokenInput{Name: "development"}, DevToken, true)
		err = unlessThere(err)
	}
	if err != nil {
		return account, fmt.Errorf("make development token: %w", err)
	}
	for _, a := range m.Adapters {
		name := a.Describe().Name
		there, err := m.Store.SourceTokenTaken(ctx, store.SourceTokenHash(name, DevToken))
		if err == nil && !there {
			_, err = m.createSource(ctx, sc, SourceInput{ESP: &name}, DevToken, true)
			err = unlessThere(err)
		}
		if err != nil {
			return account, fmt.Errorf("make development source %s: %w", name, err)
		}
	}
	return account, nil
}

// unlessThere ignores that another process was faster: the hash is unique
// (23505), so what was refused exists.
func unlessThere(err error) error {
	if store.Code(err) == "23505" {
		return nil
	}
	return err
}
