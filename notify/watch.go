package notify

import (
	"fmt"
	"strings"
	"time"
)

// Quiet is what is known when a source tells far less than usual.
type Quiet struct {
	Source    string // its id, src_…
	Name      string
	ESP       string
	Silent    bool // nothing at all
	Window    time.Duration
	Until     time.Time // its end
	Events    int64     // in the window
	Usual     int64
	PublicURL string // of this installation
}

// Mail is the notice that tells about it: subject and text.
func (q Quiet) Mail() (subject, text string) {
	name := oneLine(q.Name)
	subject = fmt.Sprintf("Source %q tells far less than usual", name)
	if q.Silent {
		subject = fmt.Sprintf("Source %q has fallen silent", name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "In the last %s the source %q brought %s. At these hours %s are usual.\n\n", hours(q.Window), name, count(q.Events, "event"), count(q.Usual, "event"))
	lines(&b, [][2]string{{"Source", q.Source}, {"ESP", oneLine(q.ESP)}, {"Until", stamp(q.Until)}})
	fmt.Fprintf(&b, `
What to do

1. Nothing, if you send less.
2. See at the ESP whether its webhook is still there, active, and points to the
   source's URL; many ESPs switch one off after failures.
3. See whether requests are refused:
   %s/sources/%s

You will hear of this again only after it was well in between.
`, strings.TrimSuffix(q.PublicURL, "/"), q.Source)
	return subject, b.String()
}

// Failing is what is known when messages to a domain fail far more than usual.
type Failing struct {
	Domain    string
	Window    time.Duration
	Until     time.Time
	Bad       int64 // bounced, failed or deferred
	Total     int64
	Usual     float64 // share that fails
	PublicURL string
}

// Mail is the notice that tells about it: subject and text.
func (f Failing) Mail() (subject, text string) {
	domain := oneLine(f.Domain)
	subject = fmt.Sprintf("Messages to %s fail far more than usual", domain)
	var b strings.Builder
	fmt.Fprintf(&b, "In the last %s %s of %s to %s failed or were put off (%s). %s is usual.\n\n",
		hours(f.Window), count(f.Bad, ""), count(f.Total, "message"), domain, percent(float64(f.Bad)/float64(f.Total)), percent(f.Usual))
	lines(&b, [][2]string{{"Domain", domain}, {"Until", stamp(f.Until)}})
	fmt.Fprintf(&b, `
What to do

1. Read what the domain's mail servers say:
   %s/events?type=bounced,deferred
   "blocklisted", "policy" or 5.7.1 mean that it refuses your address or domain.
2. If so, send less to it until you are off the list, and ask its postmaster.

You will hear of this again only after it was well in between.
`, strings.TrimSuffix(f.PublicURL, "/"))
	return subject, b.String()
}

func lines(b *strings.Builder, all [][2]string) {
	for _, line := range all {
		fmt.Fprintf(b, "  %-14s %s\n", line[0], line[1])
	}
}

func hours(d time.Duration) string {
	if d == time.Hour {
		return "hour"
	}
	return count(int64(d/time.Hour), "hour")
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
