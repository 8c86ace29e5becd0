package manage_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"aftersend/config"
	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/event"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/outbound"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
	"aftersend/webhook"
	"aftersend/workflows"
)

// engine notes nudges, and fails them when told to.
type engine struct {
	mu     sync.Mutex
	nudges []string
	err    error
}

func (e *engine) Wake(context.Context, id.ID) error { return e.err }

func (e *engine) Nudge(_ context.Context, _ id.ID, update string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nudges = append(e.nudges, update)
	return e.err
}

type fixture struct {
	*manage.Manager
	store  *store.Store
	engine *engine
	scope  manage.Scope
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	st := store.New(storetest.New(t), box)
	client := outbound.New(outbound.Options{AllowedPrefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	t.Cleanup(client.Close)
	e := &engine{}
	m := manage.New(manage.Deps{
		Store: st, Engine: e, Adapters: all.Adapters(), Defaults: config.Default().Delivery, Sender: client, Now: time.Now,
	})
	account, err := m.Bootstrap(t.Context(), false)
	require.NoError(t, err)
	return &fixture{Manager: m, store: st, engine: e, scope: manage.System(account)}
}

func (f *fixture) actions(t *testing.T) []string {
	t.Helper()
	rows, err := f.store.Activities(t.Context(), f.scope.Account, store.Page{Limit: 100})
	require.NoError(t, err)
	actions := make([]string, len(rows))
	for i, r := range rows {
		actions[len(rows)-1-i] = r.Action // oldest first
	}
	return actions
}

func ptr[T any](v T) *T { return &v }

func input(url string) manage.WebhookInput {
	return manage.WebhookInput{Name: ptr("CRM"), URL: &url}
}

func requireInvalid(t *testing.T, err error, fields ...string) {
	t.Helper()
	wrong, ok := errors.AsType[*manage.Invalid](err)
	require.True(t, ok, "%v", err)
	got := []string{}
	for _, f := range wrong.Fields {
		got = append(got, f.Field)
	}
	require.Equal(t, fields, got, "%v", err)
}

func TestWebhookGetsDefaultsAndKeepsSecretsApart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	in := input("https://example.com/hook?key=hunter2")
	in.Auth = &manage.AuthInput{Type: webhook.AuthBasic, Username: ptr("ann"), Password: ptr("hunter3")}
	row, secret, err := f.CreateWebhook(ctx, f.scope, in)
	require.NoError(t, err)
	_, err = webhook.ParseSecret(secret)
	require.NoError(t, err)

	row, err = f.store.Webhook(ctx, f.scope.Account, row.ID)
	require.NoError(t, err)
	require.Equal(t, "https://example.com/hook", row.Settings.URL)
	require.Equal(t, "https://example.com/hook?key=hunter2", row.Secrets.URL)
	require.Equal(t, webhook.Retry{IntervalSeconds: 300, Attempts: 40}, row.Settings.Retry)
	require.Equal(t, webhook.Batch{MaxEvents: 500}, row.Settings.Batch)
	require.Equal(t, "hunter3", row.Secrets.Auth.Password)
	require.Equal(t, []string{"account.created", "webhook.created"}, f.actions(t))

	var plain string
	require.NoError(t, f.store.DB().QueryRow(`select w::text || l::text from webhooks w, activity_log l where l.action = 'webhook.created'`).Scan(&plain))
	require.NotContains(t, plain, "hunter")
}

func TestWebhookStartsWithWhatIsRoutedFromNowOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.store.DB().Exec(`update group_sequence set number = 42`)
	require.NoError(t, err)
	row, _, err := f.CreateWebhook(t.Context(), f.scope, input("https://example.com/"))
	require.NoError(t, err)
	var cut int64
	require.NoError(t, f.store.DB().QueryRow(`select cut_number from webhook_progress where webhook_id = $1`, row.ID).Scan(&cut))
	require.EqualValues(t, 42, cut)
}

func TestInvalidWebhooksNameTheField(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, test := range map[string]struct {
		change func(in *manage.WebhookInput)
		fields []string
	}{
		"nothing":         {func(in *manage.WebhookInput) { *in = manage.WebhookInput{} }, []string{"name", "url"}},
		"control in name": {func(in *manage.WebhookInput) { in.Name = ptr("a\x00b") }, []string{"name"}},
		"private address": {func(in *manage.WebhookInput) { in.URL = ptr("http://10.0.0.5/hook") }, []string{"url"}},
		"batch":           {func(in *manage.WebhookInput) { in.Batch = &manage.BatchInput{MaxEvents: ptr(501)} }, []string{"batch.max_events"}},
		"area":            {func(in *manage.WebhookInput) { in.Area = ptr("weather") }, []string{"area"}},
		"event type":      {func(in *manage.WebhookInput) { in.Events = &[]event.Type{"vanished"} }, []string{"events"}},
		"basic, no user":  {func(in *manage.WebhookInput) { in.Auth = &manage.AuthInput{Type: webhook.AuthBasic} }, []string{"auth.username"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := input("https://example.com/")
			test.change(&in)
			_, _, err := f.CreateWebhook(t.Context(), f.scope, in)
			requireInvalid(t, err, test.fields...)
		})
	}
	require.Equal(t, []string{"account.created"}, f.actions(t), "what was refused is in no log")
}

func TestUpdateChangesOnlyWhatIsGiven(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	in := input("https://example.com/hook")
	in.Auth = &manage.AuthInput{Type: webhook.AuthBasic, Username: ptr("ann"), Password: ptr("hunter2")}
	made, _, err := f.CreateWebhook(ctx, f.scope, in)
	require.NoError(t, err)

	row, err := f.UpdateWebhook(ctx, f.scope, made.ID, 0, manage.WebhookInput{
		Retry: &manage.RetryInput{Attempts: ptr(0)},
		Auth:  &manage.AuthInput{Type: webhook.AuthBasic, Username: ptr("ben")},
	})
	require.NoError(t, err)
	require.Equal(t, 0, row.Settings.Retry.Attempts, "no retries is not the same as not said")
	require.Equal(t, 300, row.Settings.Retry.IntervalSeconds)
	require.Equal(t, webhook.Auth{Type: webhook.AuthBasic, Username: "ben", Password: "hunter2"}, row.Secrets.Auth)
	require.Equal(t, "https://example.com/hook", row.Secrets.URL)
	require.Equal(t, []string{workflows.ReloadUpdate}, f.engine.nudges)

	_, err = f.UpdateWebhook(ctx, f.scope, made.ID, made.Version, manage.WebhookInput{Name: ptr("late")})
	require.ErrorIs(t, err, manage.ErrConflict, "based on a version that is past")

	again, err := f.UpdateWebhook(ctx, f.scope, made.ID, row.Version, manage.WebhookInput{Name: ptr("CRM")})
	require.NoError(t, err)
	require.Equal(t, row.Version, again.Version, "no change, no new version")

	row, err = f.UpdateWebhook(ctx, f.scope, made.ID, 0, manage.WebhookInput{Auth: &manage.AuthInput{Type: webhook.AuthNone}})
	require.NoError(t, err)
	require.Equal(t, webhook.Auth{Type: webhook.AuthNone}, row.Secrets.Auth, "secrets of another type go")

	activities, err := f.store.Activities(ctx, f.scope.Account, store.Page{Limit: 2})
	require.NoError(t, err)
	require.NotContains(t, string(activities[1].Changes), "hunter2")
	var changes map[string]store.FromTo
	require.NoError(t, json.Unmarshal(activities[1].Changes, &changes))
	require.Contains(t, changes, "retry")
	require.Equal(t, store.FromTo{From: "[FILTERED]", To: "[FILTERED]"}, changes["auth"])
}

func TestPauseResumeDelete(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	made, _, err := f.CreateWebhook(ctx, f.scope, input("https://example.com/"))
	require.NoError(t, err)

	require.NoError(t, f.Pause(ctx, f.scope, made.ID, "maintenance"))
	row, err := f.store.Webhook(ctx, f.scope.Account, made.ID)
	require.NoError(t, err)
	require.Equal(t, "paused", row.Status)
	require.Equal(t, "maintenance", row.PauseReason)
	_, err = f.UpdateWebhook(ctx, f.scope, made.ID, 0, manage.WebhookInput{Status: ptr("active")})
	requireInvalid(t, err, "status")
	requireInvalid(t, f.Flush(ctx, f.scope, made.ID), "status")
	requireInvalid(t, f.Resume(ctx, f.scope, made.ID, "burn"), "backlog")
	require.NoError(t, f.Resume(ctx, f.scope, made.ID, store.BacklogDeliver))
	require.NoError(t, f.Flush(ctx, f.scope, made.ID))
	require.NoError(t, f.DeleteWebhook(ctx, f.scope, made.ID))
	require.ErrorIs(t, f.DeleteWebhook(ctx, f.scope, made.ID), store.ErrNotFound)
	require.Equal(t, []string{workflows.PauseUpdate, workflows.ResumeUpdate, workflows.FlushUpdate, workflows.ReloadUpdate}, f.engine.nudges)
	require.Equal(t, []string{"account.created", "webhook.created", "webhook.paused", "webhook.resumed", "webhook.deleted"}, f.actions(t))
}

func TestAnEngineThatIsDownStopsNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.engine.err = errors.New("no engine")
	made, _, err := f.CreateWebhook(t.Context(), f.scope, input("https://example.com/"))
	require.NoError(t, err)
	require.NoError(t, f.Pause(t.Context(), f.scope, made.ID, ""))
	row, err := f.store.Webhook(t.Context(), f.scope.Account, made.ID)
	require.NoError(t, err)
	require.Equal(t, "paused", row.Status)
}

func TestRotationKeepsTheFormerSecretForAWhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	made, first, err := f.CreateWebhook(ctx, f.scope, input("https://example.com/"))
	require.NoError(t, err)
	second, until, err := f.RotateSecret(ctx, f.scope, made.ID)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)
	third, _, err := f.RotateSecret(ctx, f.scope, made.ID)
	require.NoError(t, err)

	sub, err := f.store.Subscription(ctx, made.ID)
	require.NoError(t, err)
	secrets := func(at time.Time) (out []string) {
		for _, k := range sub.Keys(at) {
			out = append(out, webhook.Secret(k))
		}
		return out
	}
	require.Equal(t, []string{third, second}, secrets(time.Now()), "two at most: not %s", first)
	require.Equal(t, []string{third}, secrets(time.Now().Add(25*time.Hour)))
}

func TestLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.store.DB().Exec(`update accounts set limits = '{"max_webhooks": 1}'`)
	require.NoError(t, err)
	made, _, err := f.CreateWebhook(t.Context(), f.scope, input("https://example.com/"))
	require.NoError(t, err)
	_, _, err = f.CreateWebhook(t.Context(), f.scope, input("https://example.com/"))
	require.ErrorIs(t, err, store.ErrLimit)
	require.NoError(t, f.DeleteWebhook(t.Context(), f.scope, made.ID))
	_, _, err = f.CreateWebhook(t.Context(), f.scope, input("https://example.com/"))
	require.NoError(t, err)
}

func TestSources(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	_, err := f.CreateSource(ctx, f.scope, manage.SourceInput{ESP: ptr("pigeon")})
	requireInvalid(t, err, "esp")
	_, err = f.CreateSource(ctx, f.scope, manage.SourceInput{ESP: ptr("mandrill"), Verification: map[string]string{"hunter2": "x"}})
	requireInvalid(t, err, "verification")
	require.NotContains(t, err.Error(), "hunter2", "it may be a secret in the wrong place")

	made, err := f.CreateSource(ctx, f.scope, manage.SourceInput{ESP: ptr("mandrill"), Verification: map[string]string{"key": "hunter2"}})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(made.Token), 24)

	found, err := f.store.SourceByToken(ctx, store.SourceTokenHash("mandrill", made.Token))
	require.NoError(t, err, "the intake finds it by its URL")
	require.Equal(t, made.ID, found.ID)
	require.Equal(t, "hunter2", found.Secrets["key"])

	row, err := f.UpdateSource(ctx, f.scope, made.ID, manage.SourceInput{Name: ptr("EU"), Verification: map[string]string{"key": ""}})
	require.NoError(t, err)
	require.Equal(t, "EU", row.Name)
	require.Empty(t, row.Verification)
	row, err = f.store.Source(ctx, f.scope.Account, made.ID)
	require.NoError(t, err)
	require.Equal(t, made.Token, row.Token)
	require.Empty(t, row.Verification)

	require.NoError(t, f.DeleteSource(ctx, f.scope, made.ID))
	_, err = f.store.SourceByToken(ctx, store.SourceTokenHash("mandrill", made.Token))
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestSourceVerification(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, c := range map[string]struct {
		esp   string
		given map[string]string
		wrong string // field; "" when it is right
	}{
		"its own field":                {"mandrill", map[string]string{"key": "k"}, ""},
		"credentials alone":            {"mandrill", map[string]string{"username": "u", "password": "p"}, ""},
		"all together":                 {"mandrill", map[string]string{"key": "k", "bearer": "b", "allowed_ips": "192.0.2.1, 2001:db8::/32"}, ""},
		"an ESP without fields":        {"postmark", map[string]string{"username": "u"}, ""},
		"what precedes the account":    {"smtpeter", map[string]string{"validation_file": "smtpeter-1.txt"}, ""},
		"another ESP's field":          {"postmark", map[string]string{"key": "k"}, "verification"},
		"no address":                   {"postmark", map[string]string{"allowed_ips": "192.0.2.0/24 hunter2"}, "verification.allowed_ips"},
		"password without user name":   {"postmark", map[string]string{"password": "p"}, "verification.username"},
		"colon in the user name":       {"postmark", map[string]string{"username": "u:v", "password": "p"}, "verification.username"},
		"two kinds of credentials":     {"postmark", map[string]string{"username": "u", "bearer": "b"}, "verification.bearer"},
		"longer than anything entered": {"postmark", map[string]string{"bearer": strings.Repeat("b", 20<<10)}, "verification.bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			row, err := f.CreateSource(t.Context(), f.scope, manage.SourceInput{ESP: ptr(c.esp), Verification: c.given})
			if c.wrong != "" {
				requireInvalid(t, err, c.wrong)
				require.NotContains(t, err.Error(), "hunter2")
				return
			}
			require.NoError(t, err)
			require.Equal(t, esp.Secrets(c.given), row.Verification)
		})
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	row, text, err := f.CreateToken(ctx, f.scope, manage.TokenInput{Name: "ci"})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(text, "as_"))
	require.True(t, strings.HasSuffix(text, row.Last4))

	found, err := f.store.TokenByHash(ctx, store.TokenHash(text))
	require.NoError(t, err)
	require.Equal(t, f.scope.Account, found.AccountID)
	rows, err := f.store.Tokens(ctx, f.scope.Account)
	require.NoError(t, err)
	require.NotNil(t, rows[0].LastUsedAt)

	require.NoError(t, f.RevokeToken(ctx, f.scope, row.ID))
	_, err = f.store.TokenByHash(ctx, store.TokenHash(text))
	require.ErrorIs(t, err, store.ErrNotFound)
	_, _, err = f.CreateToken(ctx, f.scope, manage.TokenInput{Name: "old", ExpiresAt: ptr(time.Now().Add(-time.Hour))})
	requireInvalid(t, err, "expires_at")
}

func TestBootstrapMayBeRepeatedAndRace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			account, err := f.Bootstrap(context.Background(), true)
			require.NoError(t, err)
			require.Equal(t, f.scope.Account, account)
		})
	}
	wg.Wait()
	sources, err := f.store.Sources(t.Context(), f.scope.Account, store.Page{Limit: 100})
	require.NoError(t, err)
	require.Len(t, sources, len(all.Adapters()))
	for _, s := range sources {
		require.True(t, s.Loopback)
		require.Equal(t, manage.DevToken, s.Token)
	}
	token, err := f.store.TokenByHash(t.Context(), store.TokenHash(manage.DevToken))
	require.NoError(t, err)
	require.True(t, token.Loopback)
}

func TestTestDelivery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	status := http.StatusOK
	var got []byte
	var headers http.Header
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		headers = r.Header.Clone()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "hello")
	}))
	defer endpoint.Close()

	in := input(endpoint.URL + "/hook?key=hunter2")
	in.Auth = &manage.AuthInput{Type: webhook.AuthBearer, Token: ptr("hunter3")}
	result, err := f.TestUnsaved(ctx, f.scope, in, event.Bounced)
	require.NoError(t, err)
	require.True(t, result.OK, result.Explanation)
	require.Equal(t, "hello", string(result.Answer.Body))
	require.Equal(t, "Bearer hunter3", headers.Get("Authorization"))
	require.Equal(t, "[FILTERED]", result.Header.Get("Authorization"))
	require.NotContains(t, result.URL, "hunter2")
	require.Contains(t, string(got), `"type":"bounced"`)

	made, secret, err := f.CreateWebhook(ctx, f.scope, in)
	require.NoError(t, err)
	status = http.StatusServiceUnavailable
	result, err = f.TestWebhook(ctx, f.scope, made.ID, manage.WebhookInput{}, "")
	require.NoError(t, err)
	require.False(t, result.OK)
	require.Equal(t, 503, result.StatusCode)
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	require.NoError(t, verifier.Verify(got, headers))
	require.Empty(t, f.engine.nudges, "a test goes through no workflow")
}

func TestAnAccountWithoutOwnerGetsOne(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.store.EnsureOwner(t.Context(), f.scope.Account, "ops@example.com"))
	require.NoError(t, f.store.EnsureOwner(t.Context(), f.scope.Account, "other@example.com"))
	var owner string
	row := f.store.DB().QueryRow(`select string_agg(email, ',') from users where account_id = $1 and role = 'owner'`, f.scope.Account)
	require.NoError(t, row.Scan(&owner))
	require.Equal(t, "ops@example.com", owner, "who owns it stays")
}
