package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"aftersend/config"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
)

// v1 serves /api/v1: what people manage and read, as JSON. Handlers return
// errors; fail turns them into responses.
type v1 struct {
	store  *store.Store
	manage *manage.Manager
	config config.Config
	log    *slog.Logger
}

// registerV1 mounts /api/v1, its OpenAPI description and its page.
func registerV1(engine *gin.Engine, d Deps) {
	quietErrors()
	v := &v1{store: d.Store, manage: d.Manage, config: d.Config, log: d.Log}

	c := huma.DefaultConfig("aftersend", "1")
	c.Info.Description = "What ESPs said about your mail, and where it goes. Lists go from the newest to the oldest: " +
		"pass `next` as `after` for the next page; null ends the list. A POST with an Idempotency-Key is carried out once. " +
		"Errors are problems as in RFC 9457."
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	c.CreateHooks = nil // they would add a $schema to every answer
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.RejectUnknownQueryParameters = true
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token, as_…"},
	}
	c.Security = []map[string][]string{{"token": {}}}
	c.Servers = []*huma.Server{{URL: d.Config.API.BaseURL()}}
	h := humagin.NewWithGroup(engine, engine.Group("", v.limitBody, v.authenticate, v.idempotent), c)

	v.routes(h)
	v.describe(engine, h)
}

// schemaName names a type in the OpenAPI document: as in Go, but for our suffix
// and for the settings of a webhook, whose names others have too.
func schemaName(t reflect.Type, hint string) string {
	name := strings.ReplaceAll(huma.DefaultSchemaNamer(t, hint), "JSON", "")
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.PkgPath() == "aftersend/webhook" {
		name = "Webhook" + name + "Settings"
	}
	return name
}

// routes is everything /api/v1 can do.
func (v *v1) routes(h huma.API) {
	add(v, h, "GET", "/account", "get-account", "Account", "The account of the token", v.getAccount)
	add(v, h, "GET", "/tokens", "list-tokens", "Tokens", "List API tokens", v.listTokens)
	add(v, h, "POST", "/tokens", "create-token", "Tokens", "Make an API token, which is shown once", v.createToken)
	add(v, h, "DELETE", "/tokens/{id}", "revoke-token", "Tokens", "Revoke an API token", v.revokeToken)

	add(v, h, "GET", "/sources", "list-sources", "Sources", "List sources: the ESP accounts that post to us", v.listSources)
	add(v, h, "POST", "/sources", "create-source", "Sources", "Make a source and get the URL for its ESP", v.createSource)
	add(v, h, "GET", "/sources/{id}", "get-source", "Sources", "One source with its set-up guide", v.getSource)
	add(v, h, "PATCH", "/sources/{id}", "update-source", "Sources", "Change a source's name or verification", v.updateSource)
	add(v, h, "DELETE", "/sources/{id}", "delete-source", "Sources", "End a source; what it received stays", v.deleteSource)

	add(v, h, "GET", "/callbacks", "list-callbacks", "Callbacks", "List received callbacks", v.listCallbacks)
	add(v, h, "GET", "/callbacks/{id}", "get-callback", "Callbacks", "One callback: its request and its events", v.getCallback)
	add(v, h, "GET", "/callbacks/{id}/raw", "get-callback-raw", "Callbacks", "The stored body, byte for byte", v.getCallbackRaw)

	add(v, h, "GET", "/events", "list-events", "Events", "List events, or follow the feed", v.listEvents)
	add(v, h, "GET", "/events/{id}", "get-event", "Events", "One event", v.getEvent)

	add(v, h, "GET", "/messages", "list-messages", "Messages", "List messages, one per recipient", v.listMessages)
	add(v, h, "GET", "/messages/{id}", "get-message", "Messages", "One message with its timeline", v.getMessage)

	add(v, h, "GET", "/suppressions", "list-suppressions", "Suppressions", "List addresses that should not be mailed", v.listSuppressions)
	add(v, h, "POST", "/suppressions", "add-suppression", "Suppressions", "Put an address on the list; one that is there stays as it is", v.addSuppression)
	add(v, h, "POST", "/suppressions/check", "check-suppressions", "Suppressions", "Look up to 1,000 addresses up", v.checkSuppressions)
	add(v, h, "POST", "/suppressions/import", "import-suppressions", "Suppressions", "Add the addresses of a CSV file", v.importSuppressions)
	add(v, h, "GET", "/suppressions/export", "export-suppressions", "Suppressions", "The list as a CSV file", v.exportSuppressions)
	add(v, h, "GET", "/suppressions/{id}", "get-suppression", "Suppressions", "One suppression with the event that made it", v.getSuppression)
	add(v, h, "DELETE", "/suppressions/{id}", "lift-suppression", "Suppressions", "Take an address off the list, for one reason", v.liftSuppression)

	add(v, h, "GET", "/webhooks", "list-webhooks", "Webhooks", "List webhooks", v.listWebhooks)
	add(v, h, "POST", "/webhooks", "create-webhook", "Webhooks", "Make a webhook; its secret is shown once", v.createWebhook)
	add(v, h, "POST", "/webhooks/test", "test-unsaved-webhook", "Webhooks", "Post a sample event to a webhook that is not saved", v.testUnsaved)
	add(v, h, "GET", "/webhooks/{id}", "get-webhook", "Webhooks", "One webhook", v.getWebhook)
	add(v, h, "PATCH", "/webhooks/{id}", "update-webhook", "Webhooks", "Change a webhook; what is not given stays", v.updateWebhook)
	add(v, h, "DELETE", "/webhooks/{id}", "delete-webhook", "Webhooks", "End a webhook", v.deleteWebhook)
	add(v, h, "POST", "/webhooks/{id}/test", "test-webhook", "Webhooks", "Post a sample event to the webhook", v.testWebhook)
	add(v, h, "POST", "/webhooks/{id}/pause", "pause-webhook", "Webhooks", "Stop delivering; events keep collecting", v.pauseWebhook)
	add(v, h, "POST", "/webhooks/{id}/resume", "resume-webhook", "Webhooks", "Deliver again, with the backlog or without", v.resumeWebhook)
	add(v, h, "POST", "/webhooks/{id}/flush", "flush-webhook", "Webhooks", "Deliver what has gathered, without waiting", v.flushWebhook)
	add(v, h, "POST", "/webhooks/{id}/rotate-secret", "rotate-webhook-secret", "Webhooks", "Make a new signing secret, shown once; the former one signs along for a while", v.rotateSecret)
	add(v, h, "GET", "/webhooks/{id}/batches", "list-batches", "Webhooks", "List batches with their attempts", v.listBatches)

	add(v, h, "GET", "/stats", "get-stats", "Stats", "Count events: by type, time, source, recipient domain, code, and time to the final word", v.getStats)

	add(v, h, "GET", "/activity-log", "list-activity", "Activity log", "List who changed what", v.listActivity)
}

// add registers one operation: it hands the handler the scope of the caller and
// turns its error into a problem.
func add[I, O any](v *v1, h huma.API, method, path, name, tag, summary string, handle func(context.Context, manage.Scope, *I) (*O, error)) {
	op := huma.Operation{
		Method: method, Path: "/api/v1" + path, OperationID: name, Summary: summary, Tags: []string{tag},
		MaxBodyBytes: maxRequest,
		Errors:       []int{http.StatusUnauthorized},
	}
	if creates := method == http.MethodPost && slices.Contains([]string{"/tokens", "/sources", "/suppressions", "/webhooks"}, path); creates {
		op.DefaultStatus = http.StatusCreated
	}
	if path != "/account" && path[len(path)-1] == '}' {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	if raw, ok := any(new(O)).(interface{ shape() reflect.Type }); ok {
		schema := h.OpenAPI().Components.Schemas.Schema(raw.shape(), true, name)
		op.Responses = map[string]*huma.Response{"200": {
			Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}},
		}}
	}
	if special, ok := any(new(I)).(interface{ describe(op *huma.Operation) }); ok {
		special.describe(&op)
	}
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, scopeOf(ctx), in)
		if err != nil {
			return nil, v.fail(ctx, name, err)
		}
		return out, nil
	})
}

// --- errors ---

// quietErrors makes huma's problems leave out the submitted value, which may be
// a secret. It is a variable of the library.
var quietErrors = sync.OnceFunc(func() {
	loud := huma.NewError
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		quiet := make([]error, 0, len(errs))
		for _, err := range errs {
			detail, ok := errors.AsType[*huma.ErrorDetail](err)
			if !ok {
				continue // its text may quote what was submitted
			}
			quiet = append(quiet, &huma.ErrorDetail{Message: detail.Message, Location: detail.Location})
		}
		return loud(status, message, quiet...)
	}
})

// fail says in HTTP what went wrong.
func (v *v1) fail(ctx context.Context, operation string, err error) error {
	if _, ok := errors.AsType[huma.StatusError](err); ok {
		return err
	}
	if wrong, ok := errors.AsType[*manage.Invalid](err); ok {
		details := make([]error, len(wrong.Fields))
		for i, f := range wrong.Fields {
			details[i] = &huma.ErrorDetail{Location: "body." + f.Field, Message: f.Message}
		}
		return huma.Error422UnprocessableEntity("validation failed", details...)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return huma.Error404NotFound("there is no such thing in this account")
	case errors.Is(err, store.ErrConflict):
		return huma.Error409Conflict("somebody else changed it meanwhile; read it again")
	case errors.Is(err, store.ErrLimit):
		return huma.Error403Forbidden("the account's limit is reached")
	case errors.Is(err, context.Canceled):
		return huma.NewError(499, "the request was given up") // nobody reads it
	}
	class := store.Class(err)
	v.log.ErrorContext(ctx, "api request failed", "operation", operation, "error_class", class, "error", err)
	switch class {
	case "connection", "timeout", "sql_57P01", "sql_57P03", "sql_53300":
		return huma.ErrorWithHeaders(huma.Error503ServiceUnavailable("the database cannot be reached; try again"), http.Header{"Retry-After": {"5"}})
	}
	return huma.Error500InternalServerError("something went wrong; the log says what")
}

// badParam is a problem with one query parameter or path segment.
func badParam(location, message string) error {
	return huma.Error422UnprocessableEntity("validation failed", &huma.ErrorDetail{Location: location, Message: message})
}

// --- what several operations take and give ---

// ByID is the path of one thing. (Exported, as huma looks into no other
// embedded structs.)
type ByID struct {
	ID string `path:"id" doc:"Its id, with the prefix."`
}

// parse reads the id. One that is none names nothing.
func (in ByID) parse(p id.Prefix) (id.ID, error) {
	u, err := p.Parse(in.ID)
	if err != nil {
		return id.Nil, store.ErrNotFound
	}
	return u, nil
}

// Paging is what every list takes.
type Paging struct {
	After string `query:"after" doc:"next of the page before."`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

// page reads the cursor and asks for one row more than is shown, to know
// whether there is another page.
func (in Paging) page() (store.Page, error) {
	p := store.Page{Limit: in.Limit + 1}
	if in.After == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(in.After)
	if err != nil || len(raw) != len(p.After) {
		return p, badParam("query.after", "not a cursor of this list")
	}
	p.After = id.ID(raw)
	return p, nil
}

// list is one page. Next is null on the last one.
type list[T any] struct {
	Data []T     `json:"data" nullable:"false"`
	Next *string `json:"next"`
}

type listOutput[T any] struct{ Body list[T] }

// cut drops the row too many and returns the cursor to it.
func cut[R any](in Paging, rows []R, idOf func(R) id.ID) ([]R, *string) {
	if len(rows) <= in.Limit {
		return rows, nil
	}
	rows = rows[:in.Limit]
	return rows, cursor(idOf(rows[in.Limit-1]))
}

// cursor spells the place in a list after an id.
func cursor(after id.ID) *string {
	next := base64.RawURLEncoding.EncodeToString(after[:])
	return &next
}

func listOf[R, T any](in Paging, rows []R, idOf func(R) id.ID, view func(R) T) *listOutput[T] {
	rows, next := cut(in, rows, idOf)
	out := &listOutput[T]{Body: list[T]{Data: make([]T, len(rows)), Next: next}}
	for i, r := range rows {
		out.Body.Data[i] = view(r)
	}
	return out
}

// feedCursor spells a position in the feed.
func feedCursor(p store.FeedPosition) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.Number))
	b = binary.BigEndian.AppendUint32(b, uint32(p.Position))
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseFeedCursor(s string) (store.FeedPosition, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 12 || b[0] > 0x7f || b[8] > 0x7f {
		return store.FeedPosition{}, badParam("query.feed", `not a cursor of the feed; "start" and "now" begin one`)
	}
	return store.FeedPosition{Number: int64(binary.BigEndian.Uint64(b)), Position: int(binary.BigEndian.Uint32(b[8:]))}, nil
}

// listJSON puts a list together from elements that are JSON already, so that
// they go out as they are stored.
func listJSON(elements [][]byte, next *string) []byte {
	size := 64
	for _, e := range elements {
		size += len(e) + 1
	}
	b := append(make([]byte, 0, size), `{"data":[`...)
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e...)
	}
	b = append(b, `],"next":`...)
	text, _ := json.Marshal(next) // a string or null: cannot fail
	return append(append(b, text...), "}\n"...)
}

func eventData(rows []store.EventRow) [][]byte {
	data := make([][]byte, len(rows))
	for i, r := range rows {
		data[i] = r.Data
	}
	return data
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
