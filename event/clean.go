package event

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of what an event may hold, in bytes. An address has at most 254
// (RFC 5321, 4.5.3.1.3), a header line 998 (RFC 5322, 2.1.1); the rest is room
// for what ESPs really send.
const (
	MaxText        = 1000     // addresses, ids, names
	MaxDiagnostic  = 4 << 10  // diagnostic texts and subjects
	MaxURL         = 8 << 10  // links
	MaxTags        = 100      //
	MaxMetadata    = 32 << 10 // keys and values together
	maxDepth       = 8        // of metadata
	maxPerMetadata = 200      // members of one object or list
)

// Times outside these years are taken for mistakes. Postgres and JSON could
// hold more than most that read our events can.
var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2201, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Clean brings everything in e that came from outside within what the database
// and JSON can hold: texts are valid UTF-8 without NUL and of bounded length,
// times within 1970 to 2200 (UTC, whole microseconds; others become absent),
// codes what RFC 5321 allows, metadata bounded in size and depth. It is
// idempotent, and leaves alone what is within bounds.
func Clean(e *Event) {
	for _, s := range [...]*string{&e.Recipient, &e.MessageID, &e.EventID, &e.RFCMessageID, &e.ReturnPath,
		&e.EnhancedStatus, &e.UserAgent, &e.IP, &e.Stream, &e.SendingDomain, &e.SendingNode, &e.Bridge,
		&e.DedicatedIP, &e.CampaignID, &e.BroadcastName, &e.ESPType, (*string)(&e.BounceType), (*string)(&e.Category)} {
		if *s != "" {
			*s = CleanText(*s, MaxText)
		}
	}
	e.Diagnostic = CleanText(e.Diagnostic, MaxDiagnostic)
	e.Subject = CleanText(e.Subject, MaxDiagnostic)
	e.URL = CleanText(e.URL, MaxURL)
	if !e.Type.Known() {
		e.Type = Unknown
	}
	if e.SMTPCode < 200 || e.SMTPCode > 599 {
		e.SMTPCode = 0
	}
	e.OccurredAt = cleanTime(e.OccurredAt)
	e.ReceivedAt = cleanTime(e.ReceivedAt)
	if len(e.Tags) > MaxTags {
		e.Tags = e.Tags[:MaxTags:MaxTags]
	}
	for i, tag := range e.Tags {
		if clean := CleanText(tag, MaxText); clean != tag {
			e.Tags = slices.Clone(e.Tags)
			e.Tags[i] = clean
		}
	}
	if len(e.Metadata) > 0 {
		budget := MaxMetadata
		e.Metadata = cleanObject(e.Metadata, &budget, maxDepth)
	}
}

// CleanText returns s as valid UTF-8 without NUL, cut between characters to at
// most limit bytes.
func CleanText(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit-cutOff(s[:limit])]
	}
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > limit {
		return CleanText(s, limit)
	}
	return s
}

// cutOff is how many bytes at the end of s begin a character and do not end it.
func cutOff(s string) int {
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		if tail := s[len(s)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRuneInString(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

func cleanTime(t time.Time) time.Time {
	if t.IsZero() || t.Before(earliest) || !t.Before(latest) {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// cleanObject goes through the members in the order of their names, so that
// the same input is always cut at the same place.
func cleanObject(in map[string]any, budget *int, depth int) map[string]any {
	out := make(map[string]any, len(in))
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if len(out) == maxPerMetadata {
			break
		}
		clean := CleanText(name, MaxText)
		if *budget -= len(clean) + 4; *budget < 0 {
			break
		}
		if v, ok := cleanValue(in[name], budget, depth); ok {
			out[clean] = v
		}
	}
	return out
}

// cleanValue returns false for what does not fit or has no JSON.
func cleanValue(v any, budget *int, depth int) (any, bool) {
	switch v := v.(type) {
	case string:
		s := CleanText(v, MaxDiagnostic)
		*budget -= len(s) + 2
		return s, *budget >= 0
	case json.Number:
		*budget -= len(v) + 2
		if *budget < 0 || !json.Valid([]byte(v)) || len(v) > MaxText {
			return nil, false
		}
		if _, err := v.Float64(); err != nil {
			// Beyond what JSON's readers take for a number: one such event
			// would make a whole batch unreadable for its subscribers.
			return string(v), true
		}
		return v, true
	case float64:
		*budget -= 8
		return v, *budget >= 0 && !math.IsNaN(v) && !math.IsInf(v, 0)
	case nil, bool, int, int64:
		*budget -= 8
		return v, *budget >= 0
	case map[string]any:
		if depth == 0 {
			return nil, false
		}
		return cleanObject(v, budget, depth-1), true
	case []any:
		if depth == 0 {
			return nil, false
		}
		out := make([]any, 0, min(len(v), maxPerMetadata))
		for _, x := range v[:min(len(v), maxPerMetadata)] {
			if x, ok := cleanValue(x, budget, depth-1); ok {
				out = append(out, x)
			}
		}
		return out, true
	}
	return nil, false
}
