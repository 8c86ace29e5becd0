package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"aftersend/event"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
	"aftersend/workflows"
)

// --- callbacks ---

// Callback is a received callback and what became of it.
type Callback struct {
	ID         string    `json:"id"`
	ESP        string    `json:"esp"`
	Source     string    `json:"source"`
	ReceivedAt time.Time `json:"received_at"`
	State      string    `json:"state" enum:"received,processed,quarantined"`
	Events     int       `json:"events" doc:"How many events it made; repeats of known ones make none."`
	Size       int       `json:"size" doc:"Of the body as received, in bytes."`
	Error      string    `json:"error,omitempty" doc:"Why it is quarantined."`
	WorkflowID string    `json:"workflow_id,omitempty" doc:"What processes it, in Temporal."`
}

func callbackView(r store.CallbackRow) Callback {
	out := Callback{
		ID: id.Callback.Format(r.ID), ESP: r.ESP, Source: id.Source.Format(r.SourceID), ReceivedAt: r.ReceivedAt.UTC(),
		State: r.State, Events: r.Events, Size: r.Size, Error: r.Error,
	}
	if r.GroupID.ID != id.Nil {
		out.WorkflowID = workflows.GroupWorkflowID(r.GroupID.ID)
	}
	return out
}

type callbackList struct {
	Paging
	ESP    string `query:"esp" doc:"A name such as mandrill."`
	Source string `query:"source" doc:"src_…"`
	State  string `query:"state" enum:"received,processed,quarantined"`
}

func (v *v1) listCallbacks(ctx context.Context, sc manage.Scope, in *callbackList) (*listOutput[Callback], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	f := store.CallbackFilter{ESP: v.espName(in.ESP), State: in.State}
	if f.Source, err = sourceParam(in.Source); err != nil {
		return nil, err
	}
	rows, err := v.store.Callbacks(ctx, sc.Account, f, p)
	if err != nil {
		return nil, err
	}
	return listOf(in.Paging, rows, func(r store.CallbackRow) id.ID { return r.ID }, callbackView), nil
}

// espName resolves an alias; what is no ESP matches nothing.
func (v *v1) espName(name string) string {
	if a, ok := v.manage.Adapter(name); ok {
		return a.Describe().Name
	}
	return name
}

func sourceParam(s string) (id.ID, error) {
	if s == "" {
		return id.Nil, nil
	}
	u, err := id.Source.Parse(s)
	if err != nil {
		return id.Nil, badParam("query.source", "want the id of a source, src_…")
	}
	return u, nil
}

type header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type callbackDetail struct {
	Callback
	Request struct {
		Method  string   `json:"method"`
		Path    string   `json:"path" doc:"The token is masked."`
		Query   string   `json:"query,omitempty"`
		Headers []header `json:"headers" nullable:"false" doc:"As received; credentials are masked."`
	} `json:"request"`
	Made []event.Event `json:"made" nullable:"false" doc:"The events it made."`
}

// getCallback puts stored events into its answer as they are, hence the bytes.
func (v *v1) getCallback(ctx context.Context, sc manage.Scope, in *ByID) (*rawOutput[callbackDetail], error) {
	u, err := in.parse(id.Callback)
	if err != nil {
		return nil, err
	}
	row, err := v.store.Callback(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	raw, err := v.store.RawCallback(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	events, err := v.store.EventsOfCallback(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	detail := callbackDetail{Callback: callbackView(row)}
	detail.Request.Method, detail.Request.Path, detail.Request.Query = raw.Method, manage.Text(raw.Path), manage.Text(raw.Query)
	detail.Request.Headers = headerLines(raw.Headers)
	return withEvents[callbackDetail](detail, "made", events)
}

func headerLines(stored []byte) []header {
	headers := []header{}
	for line := range bytes.Lines(stored) {
		name, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ": ")
		headers = append(headers, header{strings.ToValidUTF8(name, "\uFFFD"), strings.ToValidUTF8(value, "\uFFFD")})
	}
	return headers
}

type rawCallback struct {
	ContentType        string `header:"Content-Type"`
	ContentDisposition string `header:"Content-Disposition"`
	NoSniff            string `header:"X-Content-Type-Options"`
	Body               []byte `contentType:"application/octet-stream"`
}

func (v *v1) getCallbackRaw(ctx context.Context, sc manage.Scope, in *ByID) (*rawCallback, error) {
	u, err := in.parse(id.Callback)
	if err != nil {
		return nil, err
	}
	raw, err := v.store.RawCallback(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	return &rawCallback{
		// Never the type that came with it: it is somebody else's HTML, for all we know.
		ContentType:        "application/octet-stream",
		ContentDisposition: `attachment; filename="` + id.Callback.Format(u) + `"`,
		NoSniff:            "nosniff",
		Body:               raw.Body,
	}, nil
}

// --- events ---

// rawOutput is JSON that is written already and has the shape of T.
type rawOutput[T any] struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Body        func(huma.Context)
}

// shape is what its schema is made from.
func (rawOutput[T]) shape() reflect.Type { return reflect.TypeFor[T]() }

func rawJSON[T any](body []byte) *rawOutput[T] {
	return &rawOutput[T]{ContentType: "application/json", Body: func(ctx huma.Context) {
		ctx.SetStatus(http.StatusOK)
		_, _ = ctx.BodyWriter().Write(body) // the client may be gone
	}}
}

// withEvents encodes v and puts stored events, as they are, where its field is.
func withEvents[T any](v any, field string, events []store.EventRow) (*rawOutput[T], error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	empty := []byte(`"` + field + `":null`)
	at := bytes.LastIndex(text, empty)
	b.Write(text[:at])
	b.WriteString(`"` + field + `":[`)
	b.Write(bytes.Join(eventData(events), []byte{','}))
	b.WriteByte(']')
	b.Write(text[at+len(empty):])
	return rawJSON[T](b.Bytes()), nil
}

type eventList struct {
	Paging
	Type      []string `query:"type" doc:"Event types, comma separated."`
	Recipient string   `query:"recipient" maxLength:"320"`
	ESP       string   `query:"esp" doc:"A name such as mandrill."`
	Source    string   `query:"source" doc:"src_…"`
	Feed      string   `query:"feed" doc:"The pull feed, oldest first: start or now begin one, then next of the answer before. It never misses or repeats an event, and next is never null."`
}

func (v *v1) listEvents(ctx context.Context, sc manage.Scope, in *eventList) (*rawOutput[list[event.Event]], error) {
	f := store.EventFilter{Types: in.Type, Recipient: in.Recipient, ESP: v.espName(in.ESP)}
	for _, t := range in.Type {
		if !event.Type(t).Known() {
			return nil, badParam("query.type", "want event types such as bounced, comma separated")
		}
	}
	var err error
	if f.Source, err = sourceParam(in.Source); err != nil {
		return nil, err
	}
	if in.Feed != "" {
		if in.After != "" || in.Recipient != "" || in.ESP != "" || in.Source != "" || len(in.Type) > 0 {
			return nil, badParam("query.feed", "the feed takes limit and nothing else")
		}
		return v.feed(ctx, sc, in)
	}
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Events(ctx, sc.Account, f, p)
	if err != nil {
		return nil, err
	}
	rows, next := cut(in.Paging, rows, func(r store.EventRow) id.ID { return r.ID })
	return rawJSON[list[event.Event]](listJSON(eventData(rows), next)), nil
}

func (v *v1) feed(ctx context.Context, sc manage.Scope, in *eventList) (*rawOutput[list[event.Event]], error) {
	var after store.FeedPosition
	var rows []store.EventRow
	var err error
	switch in.Feed {
	case "start":
		after.Position = -1 // before the first event of number 0, which there is none of
	case "now":
		if after, err = v.store.FeedEnd(ctx); err != nil {
			return nil, err
		}
		next := feedCursor(after)
		return rawJSON[list[event.Event]](listJSON(nil, &next)), nil
	default:
		if after, err = parseFeedCursor(in.Feed); err != nil {
			return nil, err
		}
	}
	if rows, after, err = v.store.Feed(ctx, sc.Account, after, in.Limit); err != nil {
		return nil, err
	}
	after.Position = max(after.Position, 0)
	next := feedCursor(after)
	return rawJSON[list[event.Event]](listJSON(eventData(rows), &next)), nil
}

func (v *v1) getEvent(ctx context.Context, sc manage.Scope, in *ByID) (*rawOutput[event.Event], error) {
	u, err := in.parse(id.Event)
	if err != nil {
		return nil, err
	}
	row, err := v.store.Event(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	return rawJSON[event.Event](row.Data), nil
}

// --- messages ---

// Message is the story of one message to one recipient, in short.
type Message struct {
	ID              string     `json:"id"`
	Status          string     `json:"status"`
	PreviousStatus  string     `json:"previous_status,omitempty"`
	StatusAt        time.Time  `json:"status_at" doc:"When that happened."`
	Asynchronous    bool       `json:"asynchronous,omitempty" doc:"Bounced after it had been accepted."`
	Match           string     `json:"match,omitempty" doc:"Absent: all its events name it by an id. likely: a bounce was put to it by recipient and time alone. none: a bounce that names no message; it is linked when the message turns up."`
	Recipient       string     `json:"recipient"`
	ESP             string     `json:"esp"`
	Source          string     `json:"source"`
	MessageID       string     `json:"message_id,omitempty" doc:"The ESP's own id."`
	RFCMessageID    string     `json:"rfc_message_id,omitempty"`
	Subject         string     `json:"subject,omitempty"`
	Events          int        `json:"events" doc:"How many its timeline has."`
	Deferrals       int        `json:"deferrals"`
	FirstEventAt    time.Time  `json:"first_event_at"`
	FirstDeferredAt *time.Time `json:"first_deferred_at,omitempty"`
	FinalAt         *time.Time `json:"final_at,omitempty"`
	UpdatedAt       time.Time  `json:"updated_at"`
}

type messageDetail struct {
	Message
	Timeline []event.Event `json:"timeline" nullable:"false" doc:"Its events as they arrived."`
}

func messageView(r store.MessageRow) Message {
	var first struct {
		MessageID    string `json:"message_id"`
		RFCMessageID string `json:"rfc_message_id"`
		Subject      string `json:"subject"`
	}
	_ = json.Unmarshal(r.FirstEvent, &first) // an event that retention removed tells nothing
	return Message{
		ID: id.Message.Format(r.ID), Status: r.Status, PreviousStatus: r.PreviousStatus, StatusAt: r.StatusAt.UTC(),
		Asynchronous: r.Asynchronous, Match: r.Match, Recipient: r.Recipient, ESP: r.ESP, Source: id.Source.Format(r.SourceID),
		MessageID: first.MessageID, RFCMessageID: first.RFCMessageID, Subject: first.Subject,
		Events: r.Events, Deferrals: r.Deferrals, FirstEventAt: r.FirstEventAt.UTC(),
		FirstDeferredAt: utc(r.FirstDeferredAt), FinalAt: utc(r.FinalAt), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

type messageList struct {
	Paging
	Recipient string `query:"recipient" maxLength:"320"`
	Status    string `query:"status" doc:"An event type, such as bounced."`
}

func (v *v1) listMessages(ctx context.Context, sc manage.Scope, in *messageList) (*listOutput[Message], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	if in.Status != "" && !slices.Contains(event.Types, event.Type(in.Status)) {
		return nil, badParam("query.status", "want an event type such as bounced")
	}
	f := store.MessageFilter{Recipient: in.Recipient, Status: in.Status}
	rows, err := v.store.Messages(ctx, sc.Account, f, p)
	if err != nil {
		return nil, err
	}
	out := listOf(in.Paging, rows, func(r store.MessageRow) id.ID { return r.ID }, messageView)
	if out.Body.Next == nil {
		more, err := v.store.MoreMessages(ctx, sc.Account, f, p)
		if err != nil {
			return nil, err
		}
		if more != id.Nil {
			out.Body.Next = cursor(more)
		}
	}
	return out, nil
}

func (v *v1) getMessage(ctx context.Context, sc manage.Scope, in *ByID) (*rawOutput[messageDetail], error) {
	u, err := in.parse(id.Message)
	if err != nil {
		return nil, err
	}
	row, timeline, err := v.store.Message(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	return withEvents[messageDetail](messageDetail{Message: messageView(row)}, "timeline", timeline)
}
