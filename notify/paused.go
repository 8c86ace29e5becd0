package notify

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Paused is what is known when a webhook is paused because it failed.
type Paused struct {
	Webhook   string // its id, wh_…
	Name      string
	Endpoint  string // URL without query
	Since     time.Time
	At        time.Time // when it was paused
	Attempts  int
	LastError string // "HTTP 503", "timeout"
	Final     bool   // the error was such that trying again cannot help
	Waiting   int64  // events that wait for it now
	PublicURL string // of this installation
}

// Reason is why the webhook is paused, in one line without a full stop.
func (p Paused) Reason() string {
	if p.Final {
		return "the endpoint answered " + p.LastError + ", which trying again cannot mend"
	}
	return fmt.Sprintf("%s failed, last: %s", count(int64(p.Attempts), "attempt"), p.LastError)
}

// Mail is the notice that tells about it: subject and text.
func (p Paused) Mail() (subject, text string) {
	name := oneLine(p.Name)
	subject = fmt.Sprintf("Webhook %q is paused: %s", name, p.LastError)
	var b strings.Builder
	fmt.Fprintf(&b, "The webhook %q is paused: %s.\n", name, p.Reason())
	b.WriteString("It goes on collecting events. Nothing is dropped, and nothing is sent until you resume it.\n\n")
	for _, line := range [][2]string{
		{"Webhook", p.Webhook},
		{"Endpoint", oneLine(p.Endpoint)},
		{"Failing since", stamp(p.Since)},
		{"Paused at", stamp(p.At)},
		{"Attempts", strconv.Itoa(p.Attempts)},
		{"Last answer", p.LastError},
		{"Waiting", count(p.Waiting, "event")},
	} {
		fmt.Fprintf(&b, "  %-14s %s\n", line[0], line[1])
	}
	base := strings.TrimSuffix(p.PublicURL, "/")
	fmt.Fprintf(&b, `
What to do

1. Mend the endpoint, or change the webhook's settings.
2. Resume the webhook:
   %[1]s/webhooks/%[2]s

   or with the API:
   curl -X POST %[1]s/api/v1/webhooks/%[2]s/resume \
     -H "Authorization: Bearer $AFTERSEND_TOKEN" \
     -H "Content-Type: application/json" -d '{"backlog":"deliver"}'

"deliver" sends the batch that failed first, alone, with the same id and
content, then everything that waits, in order. "skip" starts with what comes
from then on; what is skipped is kept and can be replayed.
`, base, p.Webhook)
	return subject, b.String()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// count is "1 event", "1,234 events"; "1,234" of no noun.
func count(n int64, noun string) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	switch {
	case noun == "":
		return digits
	case n != 1:
		noun += "s"
	}
	return digits + " " + noun
}
