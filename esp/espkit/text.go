package espkit

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// SMTPCode returns the first SMTP reply code in a diagnostic: 2dd, 4dd or 5dd,
// not preceded by a digit or dot, followed by a space, "-" or the end
// (RFC 5321, 4.2). Ports, IP parts and queue ids do not look like that. 0 when
// there is none.
func SMTPCode(diagnostic string) int {
	for i := 0; i+3 <= len(diagnostic); i++ {
		if !isClass(diagnostic[i]) || !isDigit(diagnostic[i+1]) || !isDigit(diagnostic[i+2]) {
			continue
		}
		if i > 0 && (isDigit(diagnostic[i-1]) || diagnostic[i-1] == '.') {
			continue
		}
		if i+3 == len(diagnostic) || diagnostic[i+3] == ' ' || diagnostic[i+3] == '-' {
			return int(diagnostic[i]-'0')*100 + int(diagnostic[i+1]-'0')*10 + int(diagnostic[i+2]-'0')
		}
	}
	return 0
}

// EnhancedStatus returns the first enhanced status code (RFC 3463) in a
// diagnostic: 2, 4 or 5, two numbers of up to three digits, and no digit or
// dot beside it, so that no part of an IP address is taken for one.
func EnhancedStatus(diagnostic string) string {
	for i := 0; i < len(diagnostic); i++ {
		if !isClass(diagnostic[i]) || i > 0 && (isDigit(diagnostic[i-1]) || diagnostic[i-1] == '.') {
			continue
		}
		end := i + 1
		for range 2 {
			if end = dotNumber(diagnostic, end); end < 0 {
				break
			}
		}
		if end > 0 && (end == len(diagnostic) || diagnostic[end] != '.' && !isDigit(diagnostic[end])) {
			return diagnostic[i:end]
		}
	}
	return ""
}

// dotNumber returns the index after a dot and one to three digits, -1 when
// they are not there.
func dotNumber(s string, i int) int {
	if i >= len(s) || s[i] != '.' {
		return -1
	}
	start := i + 1
	for i = start; i < len(s) && i < start+3 && isDigit(s[i]); i++ {
	}
	if i == start {
		return -1
	}
	return i
}

func isClass(c byte) bool { return c == '2' || c == '4' || c == '5' }

// ReplyCode reads an explicit reply code field: 200 to 599, else 0.
func ReplyCode(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < 200 || n > 599 {
		return 0
	}
	return n
}

// Status reads an explicit enhanced status field, "" when it is none.
func Status(s string) string {
	s = strings.TrimSpace(s)
	if EnhancedStatus(s) == s {
		return s
	}
	return ""
}

// Time reads a time that an ESP wrote as unix seconds, with or without
// fraction, milliseconds or microseconds (told apart by their size), or as
// RFC 3339 or ISO 8601 with a zone. A time without zone, and nonsense, are the
// zero time.
func Time(s string) time.Time {
	s = strings.TrimSpace(s)
	if s == "" {
		return time.Time{}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return unix(n)
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return unixFraction(s, f)
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02 15:04:05.999999999Z0700", "2006-01-02 15:04:05.999999999 Z0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Microsecond)
		}
	}
	return time.Time{}
}

// TimeUTC reads a time without zone that the ESP documents as UTC.
func TimeUTC(s string, layouts ...string) time.Time {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, strings.TrimSpace(s)); err == nil {
			return t.UTC().Truncate(time.Microsecond)
		}
	}
	return Time(s)
}

// The limits between the units: 1e11 seconds are the year 5138, 1e11
// milliseconds the year 1973.
const (
	maxSeconds = 100_000_000_000
	maxMillis  = 1000 * maxSeconds
)

func unix(n int64) time.Time {
	switch {
	case n <= 0:
		return time.Time{}
	case n < maxSeconds:
		return time.Unix(n, 0).UTC()
	case n < maxMillis:
		return time.UnixMilli(n).UTC()
	case n < 1000*maxMillis:
		return time.UnixMicro(n).UTC()
	}
	return time.Time{}
}

// unixFraction keeps six decimals as they were written: a float64 of today's
// seconds is off by up to a microsecond.
func unixFraction(s string, f float64) time.Time {
	if math.IsNaN(f) || f <= 0 || f >= maxMillis {
		return time.Time{}
	}
	whole, fraction, found := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if !found || err != nil || f >= maxSeconds || strings.ContainsAny(fraction, "eE") {
		return unix(int64(f))
	}
	micros, _ := strconv.ParseInt((fraction + "000000")[:6], 10, 64)
	return time.Unix(seconds, micros*1000).UTC()
}

// Domain returns what follows the last @ of an address, in lower case.
func Domain(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return ""
	}
	return strings.ToLower(strings.Trim(address[at+1:], "> "))
}

// Address returns an address without display name and brackets.
func Address(s string) string {
	s = strings.TrimSpace(s)
	if open := strings.LastIndexByte(s, '<'); open >= 0 && strings.HasSuffix(s, ">") {
		s = strings.TrimSpace(s[open+1 : len(s)-1])
	}
	return s
}

// Bound cuts s to at most limit bytes without breaking a character.
func Bound(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// First returns the first text that is not empty.
func First(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}
