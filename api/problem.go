package api

import (
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"
)

// problemDetails is an error for a program to read (RFC 9457); its type is
// "about:blank", the status says what kind it is.
type problemDetails struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// problem ends a request with an error. detail is for a person and never
// repeats what the request held, but for its method.
func problem(c *gin.Context, status int, detail string) {
	body, _ := json.Marshal(problemDetails{Title: http.StatusText(status), Status: status, Detail: detail}) // plain fields: cannot fail
	c.Abort()
	c.Data(status, "application/problem+json", body)
}
