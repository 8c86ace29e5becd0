package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"aftersend/event"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
)

type suppression struct {
	ID        string     `json:"id"`
	Recipient string     `json:"recipient"`
	Reason    string     `json:"reason" enum:"unsubscribed,complained,bounced,manual"`
	Active    bool       `json:"active" doc:"It holds: do not mail this address."`
	Event     string     `json:"event,omitempty" doc:"What made it; absent when a person did."`
	Since     time.Time  `json:"since"`
	LiftedAt  *time.Time `json:"lifted_at,omitempty" doc:"When it was last lifted."`
	CreatedAt time.Time  `json:"created_at"`
}

func suppressionView(r store.SuppressionRow) suppression {
	return suppression{
		ID: id.Suppression.Format(r.ID), Recipient: r.Recipient, Reason: r.Reason, Active: r.Active,
		Event: id.Event.Format(r.EventID.ID), Since: r.Since.UTC(), LiftedAt: utc(r.LiftedAt), CreatedAt: r.CreatedAt.UTC(),
	}
}

// SuppressionFilter is what narrows the list and its export.
type SuppressionFilter struct {
	Recipient string    `query:"recipient" maxLength:"320"`
	Reason    string    `query:"reason" enum:"unsubscribed,complained,bounced,manual"`
	Active    string    `query:"active" enum:"true,false,any" default:"true" doc:"Those that hold, those that were lifted, or both."`
	Since     time.Time `query:"since" doc:"Put on the list then or later."`
}

func (in SuppressionFilter) filter() store.SuppressionFilter {
	f := store.SuppressionFilter{Recipient: in.Recipient, Reason: in.Reason, Since: in.Since}
	if in.Active != "any" {
		active := in.Active == "true"
		f.Active = &active
	}
	return f
}

type suppressionList struct {
	Paging
	SuppressionFilter
}

func (v *v1) listSuppressions(ctx context.Context, sc manage.Scope, in *suppressionList) (*listOutput[suppression], error) {
	p, err := in.page()
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Suppressions(ctx, sc.Account, in.filter(), p)
	if err != nil {
		return nil, err
	}
	return listOf(in.Paging, rows, func(r store.SuppressionRow) id.ID { return r.ID }, suppressionView), nil
}

type suppressionInput struct{ Body manage.SuppressionInput }

type suppressionOutput struct{ Body suppression }

func (v *v1) addSuppression(ctx context.Context, sc manage.Scope, in *suppressionInput) (*suppressionOutput, error) {
	row, err := v.manage.AddSuppression(ctx, sc, in.Body)
	if err != nil {
		return nil, err
	}
	return &suppressionOutput{suppressionView(row)}, nil
}

type suppressionDetail struct {
	suppression
	Cause []event.Event `json:"cause" nullable:"false" doc:"The event that made it, while it is kept."`
}

func (v *v1) getSuppression(ctx context.Context, sc manage.Scope, in *ByID) (*rawOutput[suppressionDetail], error) {
	u, err := in.parse(id.Suppression)
	if err != nil {
		return nil, err
	}
	row, cause, err := v.store.Suppression(ctx, sc.Account, u)
	if err != nil {
		return nil, err
	}
	var events []store.EventRow
	if cause != nil {
		events = append(events, store.EventRow{Data: cause})
	}
	return withEvents[suppressionDetail](suppressionDetail{suppression: suppressionView(row)}, "cause", events)
}

func (v *v1) liftSuppression(ctx context.Context, sc manage.Scope, in *ByID) (*struct{}, error) {
	u, err := in.parse(id.Suppression)
	if err != nil {
		return nil, err
	}
	return nil, v.manage.LiftSuppression(ctx, sc, u)
}

type checkInput struct {
	Body struct {
		Recipients []string `json:"recipients" minItems:"1" maxItems:"1000"`
	}
}

type checked struct {
	Recipient  string   `json:"recipient" doc:"As given."`
	Suppressed bool     `json:"suppressed"`
	Reasons    []reason `json:"reasons" nullable:"false"`
}

type reason struct {
	Reason string    `json:"reason" enum:"unsubscribed,complained,bounced,manual"`
	ID     string    `json:"id"`
	Event  string    `json:"event,omitempty"`
	Since  time.Time `json:"since"`
}

type checkOutput struct {
	Body struct {
		Data []checked `json:"data" nullable:"false" doc:"In the order given."`
	}
}

func (v *v1) checkSuppressions(ctx context.Context, sc manage.Scope, in *checkInput) (*checkOutput, error) {
	all, err := v.manage.CheckSuppressions(ctx, sc, in.Body.Recipients)
	if err != nil {
		return nil, err
	}
	out := &checkOutput{}
	for _, c := range all {
		one := checked{Recipient: c.Recipient, Suppressed: len(c.Suppressions) > 0, Reasons: []reason{}}
		for _, s := range c.Suppressions {
			one.Reasons = append(one.Reasons, reason{s.Reason, id.Suppression.Format(s.ID), id.Event.Format(s.EventID.ID), s.Since.UTC()})
		}
		out.Body.Data = append(out.Body.Data, one)
	}
	return out, nil
}

// importInput is a file that is read while it comes in: it has no Body, so
// that huma leaves the body alone.
type importInput struct {
	file io.Reader
}

// Resolve implements huma.Resolver.
func (in *importInput) Resolve(ctx huma.Context) []error {
	in.file = ctx.BodyReader()
	return nil
}

func (*importInput) describe(op *huma.Operation) {
	op.Description = "One address a line, or columns under a header: recipient (or email, address), reason, since. Others are skipped. " +
		"Up to 64 MiB. Good lines are added whatever is wrong with others; importing a file again adds nothing."
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: "string"}}}}
}

type imported struct {
	Lines     int         `json:"lines" doc:"That hold an address or an error."`
	Added     int         `json:"added"`
	Unchanged int         `json:"unchanged" doc:"On the list already, or lifted later than the line says."`
	Failed    int         `json:"failed"`
	Errors    []lineError `json:"errors" nullable:"false" doc:"Of the first 1,000 lines with one."`
}

type lineError struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

type importOutput struct{ Body imported }

func (v *v1) importSuppressions(ctx context.Context, sc manage.Scope, in *importInput) (*importOutput, error) {
	im, err := v.manage.ImportSuppressions(ctx, sc, in.file)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, huma.NewError(http.StatusRequestEntityTooLarge, "the file is larger than 64 MiB; its first part was imported")
	}
	if errors.Is(err, manage.ErrBrokenFile) {
		return nil, huma.Error400BadRequest("the file could not be read to its end; what was read is imported, importing it again does no harm")
	}
	if err != nil {
		return nil, err
	}
	out := &importOutput{imported{Lines: im.Lines, Added: im.Added, Unchanged: im.Unchanged, Failed: im.Failed, Errors: []lineError{}}}
	for _, e := range im.Errors {
		out.Body.Errors = append(out.Body.Errors, lineError(e))
	}
	return out, nil
}

type exportInput struct{ SuppressionFilter }

func (*exportInput) describe(op *huma.Operation) {
	op.Responses = map[string]*huma.Response{"200": {
		Description: "OK", Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: "string"}}},
	}}
}

type exportOutput struct {
	ContentType        string `header:"Content-Type" hidden:"true"`
	ContentDisposition string `header:"Content-Disposition" hidden:"true"`
	NoSniff            string `header:"X-Content-Type-Options" hidden:"true"`
	Body               func(huma.Context)
}

func (exportOutput) shape() reflect.Type { return reflect.TypeFor[string]() }

// exportSuppressions streams. When it fails half-way the connection is cut, so
// that nobody takes half a list for all of it.
func (v *v1) exportSuppressions(ctx context.Context, sc manage.Scope, in *exportInput) (*exportOutput, error) {
	return &exportOutput{
		ContentType: "text/csv; charset=utf-8", ContentDisposition: `attachment; filename="suppressions.csv"`, NoSniff: "nosniff",
		Body: func(hc huma.Context) {
			if err := v.manage.ExportSuppressions(ctx, sc, in.filter(), hc.BodyWriter()); err != nil {
				if ctx.Err() == nil {
					v.log.ErrorContext(ctx, "api request failed", "operation", "export-suppressions", "error_class", store.Class(err))
				}
				panic(http.ErrAbortHandler)
			}
		},
	}, nil
}
