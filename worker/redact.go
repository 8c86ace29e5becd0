package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/lib/pq"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"aftersend/store"
)

// redactor replaces every error and panic by its class before Temporal sees
// it. Histories are read by operators, kept elsewhere and not encrypted, while
// an error's text may hold whatever came from outside: an address, a URL with a
// token, a piece of a body.
type redactor struct {
	interceptor.WorkerInterceptorBase
	log *slog.Logger
}

// InterceptActivity implements interceptor.WorkerInterceptor, also for local activities.
func (r *redactor) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	a := &activityRedactor{log: r.log}
	a.Next = next
	return a
}

// InterceptWorkflow implements interceptor.WorkerInterceptor.
func (r *redactor) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	w := &workflowRedactor{}
	w.Next = next
	return w
}

type activityRedactor struct {
	interceptor.ActivityInboundInterceptorBase
	log *slog.Logger
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (a *activityRedactor) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (res any, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.ErrorContext(ctx, "activity panicked", append(about(ctx), "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))...)
			res, err = nil, temporal.NewApplicationError(fmt.Sprintf("panic (%T)", p), "panic")
		}
	}()
	res, err = a.Next.ExecuteActivity(ctx, in)
	if err == nil || errors.Is(err, activity.ErrResultPending) {
		return res, err
	}
	redacted := redact(err)
	if ctx.Err() == nil && !expected(redacted) {
		a.log.WarnContext(ctx, "activity failed", append(append(about(ctx), "error", redacted.Error()), where(err)...)...)
	}
	return res, redacted
}

// expected reports whether an error is part of normal operation: an endpoint
// that refuses a batch has its own line in the log.
func expected(err error) bool {
	app, ok := errors.AsType[*temporal.ApplicationError](err)
	return ok && app.Category() == temporal.ApplicationErrorCategoryBenign
}

func about(ctx context.Context) []any {
	info := activity.GetInfo(ctx)
	return []any{"activity", info.ActivityType.Name, "workflow", info.WorkflowExecution.ID, "attempt", info.Attempt, "local", info.IsLocalActivity}
}

// where names what in our schema a Postgres error is about. Its message and
// detail may quote values.
func where(err error) []any {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return nil
	}
	return []any{"table", pe.Table, "constraint", pe.Constraint, "routine", pe.Routine}
}

// harmless is what the message of an error that we made for Temporal may look
// like: a few short words and numbers, like "HTTP 503".
var harmless = regexp.MustCompile(`^[A-Za-z0-9_()*.,:/ -]{0,100}$`)

const longestWord = 24

// words keeps the message of an application error if it looks like our own.
func words(message, instead string) string {
	if !harmless.MatchString(message) {
		return instead
	}
	for word := range strings.FieldsSeq(message) {
		if len(word) > longestWord {
			return instead
		}
	}
	return message
}

// redact returns what Temporal may know of an error: its class, and what
// decides about retries. Cancellation stays what it is.
func redact(err error) error {
	if temporal.IsCanceledError(err) {
		return temporal.NewCanceledError()
	}
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	if app, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		kind := words(app.Type(), "error")
		return temporal.NewApplicationErrorWithOptions(words(app.Message(), kind), kind, temporal.ApplicationErrorOptions{
			NonRetryable: app.NonRetryable(), NextRetryDelay: app.NextRetryDelay(), Category: app.Category(),
		})
	}
	class := Class(err)
	return temporal.NewApplicationError(class, class)
}

// Class names an error without its text: what package store calls it, else the
// Go type of its innermost cause.
func Class(err error) string {
	if class := store.Class(err); class != "error" {
		return class
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			break
		}
		err = inner
	}
	return words(fmt.Sprintf("error (%T)", err), "error")
}

type workflowRedactor struct {
	interceptor.WorkflowInboundInterceptorBase
}

// Init implements interceptor.WorkflowInboundInterceptor.
func (w *workflowRedactor) Init(out interceptor.WorkflowOutboundInterceptor) error {
	o := &coroutineRedactor{}
	o.Next = out
	return w.Next.Init(o)
}

// ExecuteWorkflow implements interceptor.WorkflowInboundInterceptor.
func (w *workflowRedactor) ExecuteWorkflow(ctx workflow.Context, in *interceptor.ExecuteWorkflowInput) (any, error) {
	defer redactPanic()
	res, err := w.Next.ExecuteWorkflow(ctx, in)
	return res, redactWorkflow(err)
}

// ExecuteUpdate implements interceptor.WorkflowInboundInterceptor.
func (w *workflowRedactor) ExecuteUpdate(ctx workflow.Context, in *interceptor.UpdateInput) (any, error) {
	defer redactPanic()
	res, err := w.Next.ExecuteUpdate(ctx, in)
	return res, redactWorkflow(err)
}

// ValidateUpdate implements interceptor.WorkflowInboundInterceptor.
func (w *workflowRedactor) ValidateUpdate(ctx workflow.Context, in *interceptor.UpdateInput) error {
	defer redactPanic()
	return redactWorkflow(w.Next.ValidateUpdate(ctx, in))
}

// HandleQuery implements interceptor.WorkflowInboundInterceptor.
func (w *workflowRedactor) HandleQuery(ctx workflow.Context, in *interceptor.HandleQueryInput) (any, error) {
	defer redactPanic()
	res, err := w.Next.HandleQuery(ctx, in)
	return res, redactWorkflow(err)
}

// redactWorkflow leaves alone what is made of errors that were redacted when
// their activity returned them, and what is no failure.
func redactWorkflow(err error) error {
	if err == nil || workflow.IsContinueAsNewError(err) {
		return err
	}
	switch err.(type) {
	case *temporal.ActivityError, *temporal.TimeoutError, *temporal.ChildWorkflowExecutionError, *temporal.TerminatedError:
		return err
	}
	return redact(err)
}

type coroutineRedactor struct {
	interceptor.WorkflowOutboundInterceptorBase
}

// Go implements interceptor.WorkflowOutboundInterceptor.
func (c *coroutineRedactor) Go(ctx workflow.Context, name string, f func(workflow.Context)) workflow.Context {
	return c.Next.Go(ctx, name, func(ctx workflow.Context) {
		defer redactPanic()
		f(ctx)
	})
}

// redactPanic lets a panic of workflow code go on without its text; the stack
// says where. Panics of the SDK and of the runtime keep theirs: it is about the
// code, and the SDK tells by them what to do.
func redactPanic() {
	p := recover()
	if p == nil {
		return
	}
	if _, ok := p.(runtime.Error); ok || ofSDK(p) {
		panic(p)
	}
	panic(fmt.Sprintf("panic (%T)", p))
}

func ofSDK(p any) bool {
	t := reflect.TypeOf(p)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := p.(string); ok && strings.HasPrefix(s, "[TMPRL") {
		return true
	}
	return strings.HasPrefix(t.PkgPath(), "go.temporal.io/sdk")
}
