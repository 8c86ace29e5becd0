package outbox

import (
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
)

// Handler serves the outbox beneath prefix: the list, one mail at prefix/<id>, its source at prefix/<id>/raw, and the list as JSON
// with ?format=json.
func (o *Outbox) Handler(prefix string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"/{$}", func(w http.ResponseWriter, r *http.Request) { o.list(w, r, prefix) })
	mux.HandleFunc("GET "+prefix, func(w http.ResponseWriter, r *http.Request) { o.list(w, r, prefix) })
	mux.HandleFunc("GET "+prefix+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		m, err := o.Mail(r.PathValue("id"))
		if failed(w, err) {
			return
		}
		render(w, mailPage, struct {
			Prefix string
			Mail
		}{prefix, m})
	})
	mux.HandleFunc("GET "+prefix+"/{id}/raw", func(w http.ResponseWriter, r *http.Request) {
		raw, err := o.Raw(r.PathValue("id"))
		if failed(w, err) {
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(raw)
	})
	return mux
}

func (o *Outbox) list(w http.ResponseWriter, r *http.Request, prefix string) {
	mails, err := o.Mails()
	if failed(w, err) {
		return
	}
	if r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"data": mails})
		return
	}
	render(w, listPage, struct {
		Prefix string
		Mails  []Mail
	}{prefix, mails})
}

func failed(w http.ResponseWriter, err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "There is no such mail; the outbox keeps the last 200.", http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	return true
}

func render(w http.ResponseWriter, page *template.Template, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_ = page.Execute(w, data) // the reader has gone
}

const style = `<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #ddd;vertical-align:top}
pre{white-space:pre-wrap;border:1px solid #ddd;padding:1rem}dt{float:left;clear:left;width:5rem;color:#555}dd{margin-left:5.5rem}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}th,td,pre{border-color:#444}dt{color:#aaa}a{color:#8cb4ff}}
</style>`

var listPage = template.Must(template.New("list").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Outbox</title>` + style + `
<h1>Outbox</h1>
<p>Mails that would have been sent. On a development machine they end here.</p>
{{if .Mails}}<table><thead><tr><th>Time (UTC)<th>To<th>Subject</thead><tbody>
{{range .Mails}}<tr><td>{{.At.Format "2006-01-02 15:04:05"}}<td>{{range .To}}{{.}} {{end}}<td><a href="{{$.Prefix}}/{{.ID}}">{{or .Subject "(no subject)"}}</a>
{{end}}</tbody></table>{{else}}<p>None yet.</p>{{end}}
</html>
`))

var mailPage = template.Must(template.New("mail").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Subject}}</title>` + style + `
<p><a href="{{.Prefix}}">Outbox</a></p>
<h1>{{or .Subject "(no subject)"}}</h1>
<dl><dt>Time<dd>{{.At.Format "2006-01-02 15:04:05"}} UTC<dt>From<dd>{{.From}}<dt>To<dd>{{range .To}}{{.}} {{end}}</dl>
<pre>{{.Text}}</pre>
<p><a href="{{.Prefix}}/{{.ID}}/raw">Source</a></p>
</html>
`))
