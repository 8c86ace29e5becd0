package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
)

// maxRequest bounds the body of a request to /api/v1, in bytes.
const maxRequest = 1 << 20

// A file to import is read as it comes in, and may be large.
const (
	importPath = "/api/v1/suppressions/import"
	maxImport  = 64 << 20
)

func (v *v1) limitBody(c *gin.Context) {
	limit := int64(maxRequest)
	if c.FullPath() == importPath {
		limit = maxImport
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, limit)
}

type scopeKey struct{}

func scopeOf(ctx context.Context) manage.Scope {
	scope, _ := ctx.Value(scopeKey{}).(manage.Scope)
	return scope
}

// authenticate finds the account of the Bearer token (RFC 6750). An unknown
// token, one that is over and one that is not for here are told apart by
// nobody.
func (v *v1) authenticate(c *gin.Context) {
	scheme, token, _ := strings.Cut(c.GetHeader("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > 200 {
		c.Header("WWW-Authenticate", `Bearer realm="aftersend"`)
		v.refuse(c, huma.Error401Unauthorized("an API token is needed: Authorization: Bearer as_…"))
		return
	}
	row, err := v.store.TokenByHash(c.Request.Context(), store.TokenHash(token))
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && row.Loopback && !fromLoopback(c.Request):
		c.Header("WWW-Authenticate", `Bearer realm="aftersend", error="invalid_token"`)
		v.refuse(c, huma.Error401Unauthorized("the API token is not valid"))
		return
	case err != nil:
		v.refuse(c, v.fail(c.Request.Context(), "authenticate", err))
		return
	}
	scope := manage.Scope{Account: row.AccountID, By: store.Actor{Kind: "token", ID: row.ID, Name: row.Name}}
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), scopeKey{}, scope))
}

// refuse ends a request before it reaches its operation.
func (v *v1) refuse(c *gin.Context, err error) {
	status := http.StatusInternalServerError
	if he, ok := errors.AsType[huma.HeadersError](err); ok {
		for name, values := range he.GetHeaders() {
			c.Writer.Header()[name] = values
		}
	}
	problem, ok := errors.AsType[huma.StatusError](err)
	if ok {
		status = problem.GetStatus()
	}
	c.Header("Content-Type", "application/problem+json")
	c.AbortWithStatusJSON(status, problem)
}

// idempotent carries out a POST with an Idempotency-Key once: the same request
// again gets the same answer. A request that failed may be tried again. An
// import needs no key: done twice it adds nothing.
func (v *v1) idempotent(c *gin.Context) {
	key := c.GetHeader("Idempotency-Key")
	if key == "" || c.Request.Method != http.MethodPost || c.FullPath() == importPath {
		return
	}
	if len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		v.refuse(c, badParam("header.Idempotency-Key", "want 1 to 255 printable ASCII characters"))
		return
	}
	body, err := io.ReadAll(c.Request.Body)
	if err != nil {
		v.refuse(c, huma.NewError(http.StatusRequestEntityTooLarge, "the request could not be read, or is larger than 1 MiB"))
		return
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.New()
	_, _ = io.WriteString(sum, c.Request.Method+" "+c.Request.URL.RequestURI()+"\n")
	_, _ = sum.Write(body)
	claim := store.Idempotency{Account: scopeOf(c.Request.Context()).Account, Key: key, Request: sum.Sum(nil)}

	status, answer, err := v.store.BeginIdempotent(c.Request.Context(), claim)
	switch {
	case errors.Is(err, store.ErrInProgress):
		v.refuse(c, huma.Error409Conflict("a request with this Idempotency-Key is still being worked on"))
		return
	case errors.Is(err, store.ErrOtherRequest):
		v.refuse(c, huma.Error422UnprocessableEntity("this Idempotency-Key was used for a different request"))
		return
	case err != nil:
		v.refuse(c, v.fail(c.Request.Context(), "idempotency", err))
		return
	case status != 0:
		c.Header("Idempotent-Replayed", "true")
		c.Data(status, "application/json", answer)
		c.Abort()
		return
	}
	w := &recorder{ResponseWriter: c.Writer}
	c.Writer = w
	finished := false
	defer func() {
		status := w.Status()
		if !finished || status < 200 || status >= 300 {
			status = 0 // what failed, or panicked, may be tried again
		}
		// The work is done whether or not the client still waits.
		ctx := context.WithoutCancel(c.Request.Context())
		if err := v.store.FinishIdempotent(ctx, claim, status, w.body.Bytes()); err != nil {
			v.log.ErrorContext(ctx, "answer not kept for its idempotency key",
				"account_id", id.Account.Format(claim.Account), "error_class", store.Class(err))
		}
	}()
	c.Next()
	finished = true
}

// recorder keeps a copy of the body that is written.
type recorder struct {
	gin.ResponseWriter
	body bytes.Buffer
}

// Write implements io.Writer.
func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

// WriteString implements io.StringWriter.
func (r *recorder) WriteString(s string) (int, error) {
	r.body.WriteString(s)
	return r.ResponseWriter.WriteString(s)
}
