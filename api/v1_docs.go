package api

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
)

//go:embed v1_docs.html
var docsHTML string

var docsPage = template.Must(template.New("docs").Parse(docsHTML))

// describe serves the OpenAPI document and a page made from it: no script, and
// nothing from other hosts.
func (v *v1) describe(engine *gin.Engine, h huma.API) {
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(h.OpenAPI()) })
	engine.GET("/api/openapi.json", func(c *gin.Context) {
		body, err := document()
		if err != nil {
			v.refuse(c, v.fail(c.Request.Context(), "openapi", err))
			return
		}
		c.Data(http.StatusOK, "application/openapi+json", body)
	})
	page := sync.OnceValues(func() ([]byte, error) {
		var b strings.Builder
		err := docsPage.Execute(&b, docsOf(h.OpenAPI()))
		return []byte(b.String()), err
	})
	engine.GET("/api/docs", func(c *gin.Context) {
		body, err := page()
		if err != nil {
			v.refuse(c, v.fail(c.Request.Context(), "docs", err))
			return
		}
		c.Header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		c.Data(http.StatusOK, "text/html; charset=utf-8", body)
	})
}

type docs struct {
	Title, Description, Server string
	Sections                   []docsSection
}

type docsSection struct {
	Name       string
	Operations []docsOperation
}

type docsOperation struct {
	Method, Path, Summary string
	Parameters            []docsField
	Body                  []docsField
}

type docsField struct {
	Name, Type, Doc string
	Required        bool
}

func docsOf(o *huma.OpenAPI) docs {
	out := docs{Title: o.Info.Title, Description: o.Info.Description, Server: o.Servers[0].URL}
	paths := make([]string, 0, len(o.Paths))
	for path := range o.Paths {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		item := o.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			at := slices.IndexFunc(out.Sections, func(s docsSection) bool { return s.Name == op.Tags[0] })
			if at < 0 {
				at = len(out.Sections)
				out.Sections = append(out.Sections, docsSection{Name: op.Tags[0]})
			}
			out.Sections[at].Operations = append(out.Sections[at].Operations, docsOf1(o, op))
		}
	}
	return out
}

func docsOf1(o *huma.OpenAPI, op *huma.Operation) docsOperation {
	out := docsOperation{Method: op.Method, Path: op.Path, Summary: op.Summary}
	for _, p := range op.Parameters {
		out.Parameters = append(out.Parameters, docsField{p.Name + " (" + p.In + ")", typeName(p.Schema), p.Schema.Description + p.Description, p.Required})
	}
	if op.RequestBody != nil {
		media := op.RequestBody.Content["application/json"]
		if media == nil {
			return out // a file
		}
		schema := media.Schema
		if schema.Ref != "" {
			schema = o.Components.Schemas.SchemaFromRef(schema.Ref)
		}
		out.Body = bodyFields(o, "", schema)
	}
	return out
}

// bodyFields lists a schema's fields, those of objects in it as "retry.attempts".
func bodyFields(o *huma.OpenAPI, prefix string, s *huma.Schema) []docsField {
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []docsField
	for _, name := range names {
		field := s.Properties[name]
		doc, full := field.Description, field
		if field.Ref != "" {
			full = o.Components.Schemas.SchemaFromRef(field.Ref)
		}
		out = append(out, docsField{prefix + name, typeName(full), doc, slices.Contains(s.Required, name)})
		if len(full.Properties) > 0 {
			out = append(out, bodyFields(o, prefix+name+".", full)...)
		}
	}
	return out
}

func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case len(s.Enum) > 0:
		words := make([]string, 0, len(s.Enum))
		for _, word := range s.Enum {
			if text, ok := word.(string); ok {
				words = append(words, text)
			}
		}
		return strings.Join(words, " | ")
	case s.Type == "array" && s.Items != nil:
		return "list of " + typeName(s.Items)
	}
	return s.Type
}
