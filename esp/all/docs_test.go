package all_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/esp/capture"
	"aftersend/event"
)

var update = flag.Bool("update", false, "write docs/esp anew")

const docs = "../../docs/esp"

// TestDocs keeps docs/esp: a page for every ESP, made of what its adapter says
// of itself, its own sample, and the quirks in its README.
func TestDocs(t *testing.T) {
	pages := map[string]string{"README.md": index()}
	for _, a := range all.Adapters() {
		pages[a.Describe().Name+".md"] = page(t, a)
	}
	if *update {
		require.NoError(t, os.MkdirAll(docs, 0o755))
		for name, text := range pages {
			require.NoError(t, os.WriteFile(filepath.Join(docs, name), []byte(text), 0o644))
		}
	}
	there, err := filepath.Glob(filepath.Join(docs, "*"))
	require.NoError(t, err)
	for _, path := range there {
		require.Contains(t, pages, filepath.Base(path), "%s is about no ESP there is", path)
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(docs, name))
		require.NoError(t, err, "write it with `go test ./esp/all -update`")
		require.Equal(t, want, string(got), "docs/esp/%s is stale; write it with `go test ./esp/all -update`", name)
	}
}

const generated = "<!-- Made by `go test ./esp/all -update` from the adapter; changes belong there. -->\n"

func index() string {
	var b strings.Builder
	b.WriteString(generated + `
# E-mail service providers

How each ESP is set up, what keeps a forger out, and what its events become. What any of them has in common:

- A source is one account at one ESP. Make it first; its address is what you enter at the ESP.
- Whoever has the address can post to it, so it is a secret. Where the ESP signs, or sends credentials, or posts from known
  addresses, enter that in the source's verification; a callback without it is answered 401 and kept among the rejected.
- *deferred* means that the ESP will try again, *bounced* that it has given up or that a bounce came later, whatever word
  the ESP has for it.
- 200 means that the callback is on disk. What is authentic but cannot be understood is kept, shown, and can be read again.

| ESP | in the address | what keeps a forger out |
|---|---|---|
`)
	for _, a := range all.Adapters() {
		d := a.Describe()
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s |\n", d.Title, d.Name, code(slices.Concat([]string{d.Name}, d.Aliases)), d.Protection)
	}
	b.WriteString("\nAnother one: [how an ESP is added](../adding-an-esp.md).\n")
	return b.String()
}

func page(t *testing.T, a esp.Adapter) string {
	d := a.Describe()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# %s\n\n", generated, d.Title)
	fmt.Fprintf(&b, "In addresses and filters: %s. The ESP's own page: <%s>.\n", code(slices.Concat([]string{d.Name}, d.Aliases)), d.DocsURL)

	b.WriteString("\n## Set up\n\n")
	fmt.Fprintf(&b, "1. Make a source, with `POST /api/v1/sources {\"esp\":\"%s\"}`. The answer has its address, such as %s. "+
		"What is entered in the source later goes to `PATCH /api/v1/sources/{id} {\"verification\":{…}}`.\n", d.Name, address(d))
	for i, step := range d.SetUp {
		fmt.Fprintf(&b, "%d. %s\n", i+2, strings.ReplaceAll(step.Text, "{url}", address(d)))
	}
	fmt.Fprintf(&b, "\nSee it work without the ESP: `aftersend send %s bounced --url %s`, with `--secret FIELD=VALUE` for what the source verifies with.\n",
		d.Name, address(d))

	fmt.Fprintf(&b, "\n## Protection\n\n%s\n\n", d.Protection)
	fields(&b, d)

	b.WriteString("\n## Events\n\n| " + d.Title + " | ours | |\n|---|---|---|\n")
	for _, m := range d.Types {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.Theirs, m.Ours, m.Note)
	}
	b.WriteString("| anything else | unknown | kept with what it said |\n")
	if slices.ContainsFunc(d.Types, func(m esp.TypeMapping) bool { return strings.Contains(m.Theirs, ".") }) {
		b.WriteString("\nWhere one word of theirs has several meanings, what tells them apart follows it behind a dot.\n")
	}

	b.WriteString("\n## A callback\n\n")
	sample(t, &b, a)

	fmt.Fprintf(&b, "\n## When it cannot be stored\n\nThe answer is %d, so that it comes again. %s\n", d.RetryStatus, d.Retry)

	readme := filepath.Join("..", d.Name, "README.md")
	if quirks := quirks(t, readme); quirks != "" {
		b.WriteString("\n## Quirks\n\n" + quirks)
	}
	fmt.Fprintf(&b, "\nSources and details: [esp/%s](../../esp/%s/README.md).\n", d.Name, d.Name)
	return b.String()
}

// address is that of an example source.
func address(d esp.Description) string { return host + "/callbacks/" + d.Name + "/TOKEN" }

const host = "https://hub.example.com"

// code lists names as code.
func code(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = "`" + name + "`"
	}
	return strings.Join(quoted, ", ")
}

func fields(b *strings.Builder, d esp.Description) {
	b.WriteString("| field of `verification` | | |\n|---|---|---|\n")
	for _, f := range d.Fields {
		traits := "optional"
		if f.Required {
			traits = "needed to verify"
		}
		if f.Secret {
			traits += ", secret"
		}
		fmt.Fprintf(b, "| `%s` | %s, %s | %s |\n", f.Name, f.Label, traits, f.Help)
	}
	var common []string
	for _, f := range esp.Common {
		common = append(common, f.Name)
	}
	fmt.Fprintf(b, "| %s | with any ESP, optional | What is set must hold beside the rest. |\n", code(common))
}

// example is the event of the sample: a bounce says most.
var example = event.Event{
	Type: event.Bounced, BounceType: event.Hard, Recipient: "ada@example.com", MessageID: "0193c1f0aaaa7000", EventID: "0193c1f0bbbb7000",
	Subject: "Your invoice", SendingDomain: "mail.example.com", Stream: "transactional", Tags: []string{"invoice"}, Metadata: map[string]any{"order": "A-5521"},
	SMTPCode: 550, EnhancedStatus: "5.1.1", Diagnostic: "550 5.1.1 User unknown",
}

// sample shows a callback as HTTP, JSON laid out and signatures cut short.
func sample(t *testing.T, b *strings.Builder, a esp.Adapter) {
	d := a.Describe()
	secrets := esp.Secrets{}
	if keys, err := capture.ReadKeys(filepath.Join("..", d.Name, "testdata", "_keys.json")); err == nil {
		if v, ok := keys.Verification(a); ok {
			secrets = v.Secrets
		}
	}
	req, err := a.(esp.Sampler).Sample(example, address(d), secrets, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	require.NoError(t, err)
	b.WriteString("A bounce, as `aftersend send` makes it")
	body := string(req.Body)
	var laidOut bytes.Buffer
	if json.Indent(&laidOut, req.Body, "", "  ") == nil {
		body = laidOut.String()
		b.WriteString(" (the JSON is laid out for reading)")
	}
	fmt.Fprintf(b, ":\n\n```http\n%s %s HTTP/1.1\n", req.Method, strings.TrimPrefix(req.URL, host))
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		value := req.Header.Get(name)
		if len(value) > 100 {
			value = value[:90] + "…"
		}
		fmt.Fprintf(b, "%s: %s\n", name, value)
	}
	if body != "" {
		b.WriteString("\n" + strings.TrimSpace(body) + "\n")
	}
	b.WriteString("```\n")
}

// quirks returns what an adapter's README says under Quirks.
func quirks(t *testing.T, readme string) string {
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	_, after, found := strings.Cut(string(text), "**Quirks.**")
	if !found {
		return ""
	}
	return strings.TrimSpace(after) + "\n"
}
