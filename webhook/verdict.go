package webhook

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxRetryAfter bounds how long an endpoint can ask us to wait.
const MaxRetryAfter = time.Hour

// Answer is what came of one attempt.
type Answer struct {
	Status     int    // of the HTTP answer; 0 when none came
	Class      string // when none came: why (outbound's error classes)
	Detail     string // when none came: the text of the error
	RetryAfter string // header, verbatim
	Location   string // header, verbatim
}

// ClassBlocked is outbound's class for a forbidden address; trying again
// cannot help. The others are passing.
const ClassBlocked = "blocked_address"

// Verdict is what an attempt means.
type Verdict struct {
	Delivered bool
	// Final says that trying again cannot help: the endpoint is gone (410) or
	// its address forbidden. The webhook is paused at once.
	Final bool
	Gone  bool // Final because of a 410
	// Class is "" when delivered, else "status", "redirect", "gone" or the
	// class of the error.
	Class string
	// Word is a short name without anything from outside, for histories, logs
	// and notices: "HTTP 503", "timeout".
	Word string
	// Explanation tells a person what happened.
	Explanation string
	// RetryAfter is how long the endpoint asks us to wait, within its bounds;
	// 0 = it asks nothing beyond the interval.
	RetryAfter time.Duration
}

// Judge says what an attempt means. Only the status decides: what could not be
// read of an answer's body never turns a success into a failure. interval is
// the webhook's between two attempts; now is when the answer came.
func Judge(a Answer, success Success, interval time.Duration, now time.Time) Verdict {
	v := Verdict{Word: "HTTP " + strconv.Itoa(a.Status), RetryAfter: retryAfter(a.RetryAfter, interval, now)}
	switch {
	case a.Status == 0:
		v.Class, v.Word = a.Class, strings.ReplaceAll(a.Class, "_", " ")
		v.Final = a.Class == ClassBlocked
		v.Explanation = explainError(a)
	case a.Status == http.StatusOK, success != Success200 && a.Status/100 == 2:
		v.Delivered, v.RetryAfter = true, 0
		v.Explanation = "The endpoint accepted: " + statusLine(a.Status) + "."
	case a.Status/100 == 2:
		v.Class = "status"
		v.Explanation = fmt.Sprintf("The endpoint answered %s, but this webhook counts only 200 as delivered.", statusLine(a.Status))
	case a.Status/100 == 3:
		v.Class = "redirect"
		v.Explanation = fmt.Sprintf("The endpoint answered %s%s. Redirects are not followed: set the webhook's URL to the final address.", statusLine(a.Status), toPlace(a.Location))
	case a.Status == http.StatusGone:
		v.Class, v.Final, v.Gone = "gone", true, true
		v.Explanation = "The endpoint answered 410 Gone: it wants no more."
	default:
		v.Class = "status"
		v.Explanation = "The endpoint answered " + statusLine(a.Status) + "."
	}
	return v
}

func statusLine(status int) string {
	if text := http.StatusText(status); text != "" {
		return strconv.Itoa(status) + " " + text
	}
	return strconv.Itoa(status)
}

// toPlace shows where a redirect leads, without a query, which may hold secrets.
func toPlace(location string) string {
	location, _, _ = strings.Cut(location, "?")
	if location == "" {
		return ""
	}
	if len(location) > 200 {
		location = location[:200] + "…"
	}
	return " to " + strconv.Quote(location)
}

var explanations = map[string]string{
	"timeout":    "The endpoint did not answer completely in time.",
	"dns":        "The endpoint's host name could not be resolved.",
	"connect":    "No connection to the endpoint could be made.",
	"tls":        "No secure connection to the endpoint could be made: its certificate or TLS version was refused.",
	"reset":      "The endpoint closed the connection before it answered.",
	"protocol":   "The endpoint's answer was not valid HTTP.",
	"canceled":   "We stopped before the endpoint answered.",
	ClassBlocked: "The URL leads to an address or port that webhooks may not use.",
}

func explainError(a Answer) string {
	text, ok := explanations[a.Class]
	if !ok {
		text = "The request failed."
	}
	if a.Detail != "" {
		text += " (" + a.Detail + ")"
	}
	return text
}

// retryAfter reads a Retry-After header (RFC 9110, 10.2.3: seconds or a date).
// What is not understood, in the past, or shorter than the interval says nothing.
func retryAfter(header string, interval time.Duration, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil {
		wait = time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		wait = date.Sub(now)
	}
	if wait = min(wait, MaxRetryAfter); wait <= interval {
		return 0
	}
	return wait
}
