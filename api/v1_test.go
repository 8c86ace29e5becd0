package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"aftersend/config"
	"aftersend/esp/all"
	"aftersend/event"
	"aftersend/id"
	"aftersend/intake"
	"aftersend/manage"
	"aftersend/outbound"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
)

// noEngine is a workflow engine that is down.
type noEngine struct{}

func (noEngine) Wake(context.Context, id.ID) error          { return errors.New("down") }
func (noEngine) Nudge(context.Context, id.ID, string) error { return errors.New("down") }

// v1Fixture is an API on a database of its own, with two accounts.
type v1Fixture struct {
	http.Handler
	store *store.Store
	mine  client
	other client
}

type client struct {
	api   http.Handler
	token string
	scope manage.Scope
}

func newV1(t *testing.T) *v1Fixture {
	t.Helper()
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	st := store.New(storetest.New(t), box)
	out := outbound.New(outbound.Options{AllowedPrefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	t.Cleanup(out.Close)
	log := slog.New(slog.DiscardHandler)
	m := manage.New(manage.Deps{
		Store: st, Engine: noEngine{}, Adapters: all.Adapters(), Defaults: config.Default().Delivery, Sender: out, Now: time.Now, Log: log,
	})
	cfg := config.Default()
	cfg.API.PublicURL = "https://in.example.com"
	f := &v1Fixture{store: st, Handler: New(Deps{
		Config: cfg, Store: st, Flusher: intake.New(st, intake.Options{}, log), Adapters: all.ByName, Manage: m,
		Log: log, Metrics: prometheus.NewRegistry(),
	})}
	first, err := m.Bootstrap(t.Context(), true)
	require.NoError(t, err)
	second, err := st.CreateAccount(t.Context(), "second", store.Actor{Kind: "system", Name: "test"})
	require.NoError(t, err)
	for account, c := range map[id.ID]*client{first: &f.mine, second: &f.other} {
		_, text, err := m.CreateToken(t.Context(), manage.System(account), manage.TokenInput{Name: "test"})
		require.NoError(t, err)
		*c = client{api: f.Handler, token: text, scope: manage.System(account)}
	}
	return f
}

type answered struct {
	*httptest.ResponseRecorder
}

// JSON decodes the body.
func (a answered) JSON(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(a.Body.Bytes(), &v), "%s", a.Body)
	return v
}

func (c client) do(t *testing.T, method, path, body string, headers ...string) answered {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, r)
	return answered{w}
}

// want is do for an answer that must have this status.
func (c client) want(t *testing.T, status int, method, path, body string, headers ...string) map[string]any {
	t.Helper()
	a := c.do(t, method, path, body, headers...)
	require.Equal(t, status, a.Code, "%s %s: %s", method, path, a.Body)
	if a.Body.Len() == 0 {
		return nil
	}
	return a.JSON(t)
}

func TestV1Authentication(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	for name, test := range map[string]struct {
		header  string
		peer    string
		host    string
		forward bool
		status  int
	}{
		"a good token":            {header: "Bearer " + f.mine.token, status: 200},
		"in other case":           {header: "bearer " + f.mine.token, status: 200},
		"none":                    {status: 401},
		"basic":                   {header: "Basic " + f.mine.token, status: 401},
		"unknown":                 {header: "Bearer as_hunter2", status: 401},
		"dev from here":           {header: "Bearer dev", peer: "127.0.0.1:4000", host: "localhost:8080", status: 200},
		"dev from elsewhere":      {header: "Bearer dev", peer: "192.0.2.1:4000", host: "localhost:8080", status: 401},
		"dev by another name":     {header: "Bearer dev", peer: "127.0.0.1:4000", host: "evil.example.com", status: 401},
		"dev through a tunnel":    {header: "Bearer dev", peer: "127.0.0.1:4000", host: "localhost:8080", forward: true, status: 401},
		"a token of great length": {header: "Bearer " + strings.Repeat("x", 9000), status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/api/v1/account", nil)
			r.Header.Set("Authorization", test.header)
			if test.peer != "" {
				r.RemoteAddr, r.Host = test.peer, test.host
			}
			if test.forward {
				r.Header.Set("X-Forwarded-For", "198.51.100.1")
			}
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code, "%s", w.Body)
			if test.status == 401 {
				require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
				require.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
				require.NotContains(t, w.Body.String(), "hunter2")
			}
		})
	}
}

func TestV1RevokedTokenIsOver(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	made := f.mine.want(t, 201, "POST", "/api/v1/tokens", `{"name":"ci"}`)
	ci := f.mine
	ci.token = made["token"].(string)
	ci.want(t, 200, "GET", "/api/v1/account", "")
	for _, listed := range f.mine.want(t, 200, "GET", "/api/v1/tokens", "")["data"].([]any) {
		require.NotContains(t, listed, "token")
	}
	f.other.want(t, 404, "DELETE", "/api/v1/tokens/"+made["id"].(string), "")
	f.mine.want(t, 204, "DELETE", "/api/v1/tokens/"+made["id"].(string), "")
	ci.want(t, 401, "GET", "/api/v1/account", "")
}

func TestV1Webhook(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	made := f.mine.want(t, 201, "POST", "/api/v1/webhooks", `{
		"name":"CRM","url":"https://crm.example.com/in?key=hunter2","events":["bounced","deferred"],
		"filters":{"sending_domain":["Example.ORG"]},"auth":{"type":"basic","username":"ann","password":"hunter3"},
		"retry":{"attempts":3},"batch":{"max_wait_seconds":30},"notify":["ops@example.com"]}`)
	require.Regexp(t, "^wh_", made["id"])
	require.Regexp(t, "^whsec_", made["secret"])
	require.Equal(t, "active", made["status"])
	require.EqualValues(t, 0, made["backlog"])
	path := "/api/v1/webhooks/" + made["id"].(string)

	a := f.mine.do(t, "GET", path, "")
	require.NotContains(t, a.Body.String(), "hunter")
	require.NotContains(t, a.Body.String(), "whsec_")
	require.NotContains(t, a.Body.String(), "$schema")
	got := a.JSON(t)
	require.Equal(t, "https://crm.example.com/in", got["url"])
	require.Equal(t, map[string]any{"interval_seconds": 300.0, "attempts": 3.0}, got["retry"])
	require.Equal(t, map[string]any{"type": "basic", "username": "ann"}, got["auth"])
	require.Equal(t, map[string]any{"sending_domain": []any{"example.org"}}, got["filters"])
	require.Equal(t, "idle", got["state"])

	etag := a.Header().Get("ETag")
	changed := f.mine.want(t, 200, "PATCH", path, `{"name":"CRM 2"}`, "If-Match", etag)
	require.Equal(t, "CRM 2", changed["name"])
	f.mine.want(t, 409, "PATCH", path, `{"name":"CRM 3"}`, "If-Match", etag)

	paused := f.mine.want(t, 200, "POST", path+"/pause", `{"reason":"maintenance"}`)
	require.Equal(t, "paused", paused["state"])
	require.Equal(t, "maintenance", paused["paused"].(map[string]any)["reason"])
	f.mine.want(t, 422, "POST", path+"/resume", `{"backlog":"burn"}`)
	resumed := f.mine.want(t, 200, "POST", path+"/resume", "")
	require.Equal(t, "active", resumed["status"])
	require.NotContains(t, resumed, "paused")
	f.mine.want(t, 200, "POST", path+"/flush", "")
	require.NotEqual(t, made["secret"], f.mine.want(t, 200, "POST", path+"/rotate-secret", "")["secret"])
	require.Empty(t, f.mine.want(t, 200, "GET", path+"/batches", "")["data"])
	require.Len(t, f.mine.want(t, 200, "GET", "/api/v1/webhooks", "")["data"], 1)
	f.mine.want(t, 204, "DELETE", path, "")
	f.mine.want(t, 404, "GET", path, "")

	log := f.mine.do(t, "GET", "/api/v1/activity-log", "")
	require.NotContains(t, log.Body.String(), "hunter")
	entry := log.JSON(t)["data"].([]any)[0].(map[string]any)
	require.Equal(t, "webhook.deleted", entry["action"])
	require.Equal(t, "test", entry["actor"].(map[string]any)["name"])
	require.Equal(t, made["id"], entry["resource"].(map[string]any)["id"])
}

func TestV1AccountsDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	h := f.mine.want(t, 201, "POST", "/api/v1/webhooks", `{"name":"mine","url":"https://example.com/"}`)["id"].(string)
	s := f.mine.want(t, 201, "POST", "/api/v1/sources", `{"esp":"mandrill"}`)["id"].(string)
	d := f.seed(t)
	for _, call := range []string{
		"GET /api/v1/webhooks/" + h, "PATCH /api/v1/webhooks/" + h, "DELETE /api/v1/webhooks/" + h,
		"POST /api/v1/webhooks/" + h + "/pause", "POST /api/v1/webhooks/" + h + "/resume", "POST /api/v1/webhooks/" + h + "/flush",
		"POST /api/v1/webhooks/" + h + "/rotate-secret", "POST /api/v1/webhooks/" + h + "/test", "GET /api/v1/webhooks/" + h + "/batches",
		"GET /api/v1/sources/" + s, "PATCH /api/v1/sources/" + s, "DELETE /api/v1/sources/" + s,
		"GET /api/v1/callbacks/" + d.callback, "GET /api/v1/callbacks/" + d.callback + "/raw",
		"GET /api/v1/events/" + d.events[0], "GET /api/v1/messages/" + d.message,
	} {
		method, path, _ := strings.Cut(call, " ")
		body := ""
		if method == "PATCH" {
			body = "{}"
		}
		f.other.want(t, 404, method, path, body)
	}
	for _, list := range []string{"webhooks", "sources", "callbacks", "events", "messages", "suppressions"} {
		require.Empty(t, f.other.want(t, 200, "GET", "/api/v1/"+list, "")["data"], list)
	}
	require.Empty(t, f.other.want(t, 200, "GET", "/api/v1/events?feed=start", "")["data"])
	f.mine.want(t, 200, "GET", "/api/v1/webhooks/"+h, "")
}

func TestV1ProblemsDoNotRepeatWhatWasSubmitted(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	for name, test := range map[string]struct {
		method, path, body string
		status             int
		location           string
	}{
		"unknown field":        {"POST", "/api/v1/webhooks", `{"name":"x","url":"https://example.com","pasword":"hunter2"}`, 422, "body.pasword"},
		"wrong type":           {"POST", "/api/v1/webhooks", `{"name":"x","url":["hunter2"]}`, 422, "body.url"},
		"wrong word":           {"POST", "/api/v1/webhooks", `{"name":"x","url":"https://example.com","auth":{"type":"hunter2"}}`, 422, "body.auth.type"},
		"no JSON":              {"POST", "/api/v1/webhooks", `hunter2`, 400, "body"},
		"cut off":              {"POST", "/api/v1/webhooks", `{"name":"hunter2`, 400, "body"},
		"bad URL":              {"POST", "/api/v1/webhooks", `{"name":"x","url":"https://u:hunter2@10.0.0.1/"}`, 422, "body.url"},
		"bad header":           {"POST", "/api/v1/webhooks", `{"name":"x","url":"https://example.com","auth":{"type":"headers","headers":{"Host":"hunter2"}}}`, 422, "body.auth.headers"},
		"unknown verification": {"POST", "/api/v1/sources", `{"esp":"mandrill","verification":{"hunter2":"hunter2"}}`, 422, "body.verification"},
		"unknown ESP":          {"POST", "/api/v1/sources", `{"esp":"hunter2"}`, 422, "body.esp"},
		"bad time":             {"POST", "/api/v1/tokens", `{"name":"x","expires_at":"hunter2"}`, 422, "body.expires_at"},
		"bad cursor":           {"GET", "/api/v1/events?after=hunter2", "", 422, "query.after"},
		"bad limit":            {"GET", "/api/v1/events?limit=hunter2", "", 422, "query.limit"},
		"bad feed":             {"GET", "/api/v1/events?feed=hunter2", "", 422, "query.feed"},
		"unknown parameter":    {"GET", "/api/v1/events?recipent=hunter2", "", 422, "query.recipent"},
		"bad id":               {"GET", "/api/v1/webhooks/hunter2", "", 404, ""},
		"bad type":             {"GET", "/api/v1/events?type=hunter2", "", 422, "query.type"},
	} {
		t.Run(name, func(t *testing.T) {
			a := f.mine.do(t, test.method, test.path, test.body)
			require.Equal(t, test.status, a.Code, "%s", a.Body)
			require.Equal(t, "application/problem+json", a.Header().Get("Content-Type"))
			require.NotContains(t, a.Body.String(), "hunter2")
			if test.location != "" {
				problem := a.JSON(t)
				require.Equal(t, test.location, problem["errors"].([]any)[0].(map[string]any)["location"], "%s", a.Body)
			}
		})
	}
}

func TestV1IdempotencyKey(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	const body = `{"name":"CRM","url":"https://example.com/"}`
	first := f.mine.do(t, "POST", "/api/v1/webhooks", body, "Idempotency-Key", "abc")
	again := f.mine.do(t, "POST", "/api/v1/webhooks", body, "Idempotency-Key", "abc")
	require.Equal(t, 201, again.Code)
	require.Equal(t, first.Body.String(), again.Body.String(), "the same answer, with the secret")
	require.Equal(t, "true", again.Header().Get("Idempotent-Replayed"))
	require.Len(t, f.mine.want(t, 200, "GET", "/api/v1/webhooks", "")["data"], 1)

	f.mine.want(t, 422, "POST", "/api/v1/webhooks", `{"name":"other","url":"https://example.com/"}`, "Idempotency-Key", "abc")
	f.other.want(t, 201, "POST", "/api/v1/webhooks", body, "Idempotency-Key", "abc")
	f.mine.want(t, 422, "POST", "/api/v1/webhooks", `{"name":"CRM"}`, "Idempotency-Key", "def")
	f.mine.want(t, 201, "POST", "/api/v1/webhooks", body, "Idempotency-Key", "def")

	secret := first.JSON(t)["secret"].(string)
	var kept string
	require.NoError(t, f.store.DB().QueryRow(`select string_agg(encode(response, 'escape'), '') from idempotency_keys`).Scan(&kept))
	require.NotContains(t, kept, secret, "the answer is kept sealed")
}

func TestV1Sources(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	made := f.other.want(t, 201, "POST", "/api/v1/sources", `{"esp":"mandrill","name":"EU","verification":{"key":"hunter2"}}`)
	require.Equal(t, "https://in.example.com/callbacks/mandrill/"+made["token"].(string), made["url"])
	require.Equal(t, map[string]any{"key": "[set]"}, made["verification"])
	path := "/api/v1/sources/" + made["id"].(string)
	changed := f.other.want(t, 200, "PATCH", path, `{"name":"US"}`)
	require.Equal(t, "US", changed["name"])
	require.Equal(t, map[string]any{"key": "[set]"}, changed["verification"])
	changed = f.other.want(t, 200, "PATCH", path, `{"verification":{"username":"esp","password":"hunter2","allowed_ips":"192.0.2.0/24"}}`)
	require.Equal(t, map[string]any{"key": "[set]", "username": "esp", "password": "[set]", "allowed_ips": "192.0.2.0/24"}, changed["verification"])
	require.Contains(t, fmt.Sprint(changed["set_up"]), "allowed_ips")
	f.other.want(t, 422, "PATCH", path, `{"verification":{"allowed_ips":"example.com"}}`)
	f.other.want(t, 204, "DELETE", path, "")
	f.other.want(t, 404, "GET", path, "")
}

func TestV1ListsGoByCursor(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	for i := range 7 {
		f.other.want(t, 201, "POST", "/api/v1/webhooks", fmt.Sprintf(`{"name":"w%d","url":"https://example.com/"}`, i))
	}
	var names []string
	after := ""
	for range 10 {
		page := f.other.want(t, 200, "GET", "/api/v1/webhooks?limit=3"+after, "")
		for _, w := range page["data"].([]any) {
			names = append(names, w.(map[string]any)["name"].(string))
		}
		require.Contains(t, page, "next", "null ends the list")
		if page["next"] == nil {
			break
		}
		after = "&after=" + url.QueryEscape(page["next"].(string))
		// What is new does not shift the pages.
		f.other.want(t, 201, "POST", "/api/v1/webhooks", `{"name":"new","url":"https://example.com/"}`)
	}
	require.Equal(t, []string{"w6", "w5", "w4", "w3", "w2", "w1", "w0"}, names)
}

// seeded is one deferred and then delivered message, from one callback.
type seeded struct {
	callback, message, source string
	events                    []string
	data                      [][]byte
	body                      []byte
}

// seed writes what processing would have.
func (f *v1Fixture) seed(t *testing.T) seeded {
	t.Helper()
	ctx, db := t.Context(), f.store.DB()
	src, err := f.store.Sources(ctx, f.mine.scope.Account, store.Page{Limit: 100})
	require.NoError(t, err)
	var source store.SourceRow
	for _, s := range src {
		if s.ESP == "mandrill" {
			source = s
		}
	}
	writer, err := f.store.NewWriter(ctx, "test")
	require.NoError(t, err)
	now := time.Now().UTC().Truncate(time.Millisecond)
	d := seeded{body: []byte("mandrill_events=\x00\xff%5B%5D")}
	rows := make([]store.Callback, 3)
	for i := range rows {
		rows[i] = store.Callback{
			ID: id.New(), AccountID: f.mine.scope.Account, SourceID: source.ID, ReceivedAt: now, Verified: true, Method: "POST",
			Path: []byte("/callbacks/mandrill/***"), Headers: []byte("Content-Type: text/html\r\nX-Odd: a\xffb\r\n"), Body: d.body,
		}
	}
	require.NoError(t, f.store.InsertCallbacks(ctx, writer, 1, rows))
	group := id.New()
	_, err = f.store.MakeGroup(ctx, store.Group{ID: group, Kind: "callbacks", WriterID: writer, NFrom: 1, NTo: 2, IDFrom: rows[0].ID, IDTo: rows[1].ID, Callbacks: 2})
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, `update groups set step = 'done', number = 1 where id = $1`, group)
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, `update group_sequence set number = 1`)
	require.NoError(t, err)
	msg := id.New()
	ids := []id.ID{id.New(), id.New()}
	for i, kind := range []event.Type{event.Deferred, event.Delivered} {
		data := fmt.Appendf(nil, `{"id":"%s","type":"%s","recipient":"Ann@example.com","message_id":"m1","metadata":{"n":12345678901234567890}}`, id.Event.Format(ids[i]), kind)
		_, err = db.ExecContext(ctx, `
			insert into events (id, account_id, source_id, callback_id, ordinal, group_id, position, message_id, type, occurred_at, data)
			values ($1, $2, $3, $4, $5, $6, $5, $7, $8, $9, $10)`,
			ids[i], f.mine.scope.Account, source.ID, rows[0].ID, i, group, msg, kind, now, data)
		require.NoError(t, err)
		d.data = append(d.data, data)
		d.events = append(d.events, id.Event.Format(ids[i]))
	}
	_, err = db.ExecContext(ctx, `
		insert into messages (id, account_id, source_id, recipient, status, status_at, deferrals, first_event_at, state, keys, timeline)
		values ($1, $2, $3, 'ann@example.com', 'delivered', $4, 1, $4, '', '{}', array[$5::uuid, $6::uuid])`,
		msg, f.mine.scope.Account, source.ID, now, ids[0], ids[1])
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, `
		insert into quarantine (id, account_id, source_id, callback_id, group_id, reason) values ($1, $2, $3, $4, $5, 'not JSON')`,
		id.New(), f.mine.scope.Account, source.ID, rows[1].ID, group)
	require.NoError(t, err)
	d.callback, d.message, d.source = id.Callback.Format(rows[0].ID), id.Message.Format(msg), id.Source.Format(source.ID)
	return d
}

func TestV1CallbacksShowWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	d := f.seed(t)
	states := func(query string) (out []string) {
		for _, c := range f.mine.want(t, 200, "GET", "/api/v1/callbacks"+query, "")["data"].([]any) {
			out = append(out, c.(map[string]any)["state"].(string))
		}
		return out
	}
	require.Equal(t, []string{"received", "quarantined", "processed"}, states(""))
	for _, state := range []string{"received", "quarantined", "processed"} {
		require.Equal(t, []string{state}, states("?state="+state))
		require.Equal(t, []string{state}, states("?esp=mandrill&source="+d.source+"&state="+state))
		require.Empty(t, states("?esp=mailtrap&state="+state))
	}
	require.Len(t, states("?esp=mandrill"), 3)

	got := f.mine.want(t, 200, "GET", "/api/v1/callbacks/"+d.callback, "")
	require.Equal(t, "processed", got["state"])
	require.EqualValues(t, 2, got["events"])
	require.Regexp(t, "^group/grp_", got["workflow_id"])
	require.Len(t, got["made"], 2)
	require.Equal(t, []any{
		map[string]any{"name": "Content-Type", "value": "text/html"}, map[string]any{"name": "X-Odd", "value": "a\uFFFDb"},
	}, got["request"].(map[string]any)["headers"])

	raw := f.mine.do(t, "GET", "/api/v1/callbacks/"+d.callback+"/raw", "")
	require.Equal(t, d.body, raw.Body.Bytes())
	require.Equal(t, "application/octet-stream", raw.Header().Get("Content-Type"), "not what came with it")
}

func TestV1EventsGoOutAsTheyAreStored(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	d := f.seed(t)
	list := f.mine.do(t, "GET", "/api/v1/events", "")
	require.Equal(t, `{"data":[`+string(d.data[1])+`,`+string(d.data[0])+`],"next":null}`+"\n", list.Body.String())
	require.Equal(t, "application/json", list.Header().Get("Content-Type"))
	require.Equal(t, string(d.data[0]), f.mine.do(t, "GET", "/api/v1/events/"+d.events[0], "").Body.String())

	count := func(query string) int {
		return len(f.mine.want(t, 200, "GET", "/api/v1/events?"+query, "")["data"].([]any))
	}
	require.Equal(t, 1, count("type=deferred"))
	require.Equal(t, 2, count("type=deferred,delivered&esp=mandrill&source="+d.source))
	require.Equal(t, 2, count("recipient=ANN@example.com"), "addresses are compared in lower case")
	require.Equal(t, 0, count("recipient=ben@example.com"))
	require.Equal(t, 0, count("esp=mailtrap"))
	require.Equal(t, 1, count("limit=1"))
}

func TestV1FeedNeitherMissesNorRepeats(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	now := f.mine.want(t, 200, "GET", "/api/v1/events?feed=now", "")["next"].(string)
	d := f.seed(t)
	for _, from := range []string{"start", now} {
		var got []string
		for range 3 {
			page := f.mine.want(t, 200, "GET", "/api/v1/events?limit=1&feed="+url.QueryEscape(from), "")
			for _, e := range page["data"].([]any) {
				got = append(got, e.(map[string]any)["id"].(string))
			}
			from = page["next"].(string)
		}
		require.Equal(t, d.events, got, "oldest first, then nothing more")
	}
	f.mine.want(t, 422, "GET", "/api/v1/events?feed=start&type=bounced", "")
}

func TestV1Messages(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	d := f.seed(t)
	for query, want := range map[string]int{
		"": 1, "?recipient=Ann@Example.com": 1, "?recipient=x@example.com": 0, "?status=delivered": 1, "?status=bounced": 0,
	} {
		require.Len(t, f.mine.want(t, 200, "GET", "/api/v1/messages"+query, "")["data"], want, query)
	}
	got := f.mine.want(t, 200, "GET", "/api/v1/messages/"+d.message, "")
	require.Equal(t, "delivered", got["status"])
	require.Equal(t, "m1", got["message_id"])
	require.EqualValues(t, 1, got["deferrals"])
	timeline := got["timeline"].([]any)
	require.Len(t, timeline, 2)
	require.Equal(t, d.events[0], timeline[0].(map[string]any)["id"])
}

func TestV1TestDelivery(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	}))
	defer endpoint.Close()
	got := f.mine.want(t, 200, "POST", "/api/v1/webhooks/test", `{"event":"bounced","webhook":{"url":"`+endpoint.URL+`"}}`)
	require.Equal(t, false, got["ok"])
	require.EqualValues(t, 418, got["status_code"])
	require.Equal(t, "short and stout", got["response"].(map[string]any)["body"])
	require.Contains(t, got["request"].(map[string]any)["body"], "bounced")
	f.mine.want(t, 422, "POST", "/api/v1/webhooks/test", `{"event":"exploded","webhook":{"url":"`+endpoint.URL+`"}}`)
}

func TestV1DescribesItself(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	for path, kind := range map[string]string{"/api/openapi.json": "application/openapi+json", "/api/docs": "text/html; charset=utf-8"} {
		r := httptest.NewRequest("GET", path, nil)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code)
		require.Equal(t, kind, w.Header().Get("Content-Type"))
		require.Contains(t, w.Body.String(), "/api/v1/webhooks/{id}/rotate-secret")
		if path == "/api/docs" {
			require.NotRegexp(t, `(?i)<script|src=|https?://[^"]*cdn`, w.Body.String(), "nothing from other hosts")
			require.Contains(t, w.Body.String(), "retry.attempts")
			continue
		}
		var spec struct {
			OpenAPI string
			Paths   map[string]map[string]struct {
				Responses map[string]struct {
					Content map[string]struct{ Schema map[string]any }
				}
			}
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &spec))
		require.Regexp(t, `^3\.1`, spec.OpenAPI)
		for path, methods := range spec.Paths {
			for method, op := range methods {
				if method == "delete" {
					continue
				}
				ok := op.Responses["200"]
				if len(ok.Content) == 0 {
					ok = op.Responses["201"]
				}
				require.NotEmpty(t, ok.Content, "%s %s says what it returns", method, path)
			}
		}
	}
}
