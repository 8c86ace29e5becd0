package bounce

import (
	"strings"
)

// smtpCode finds the reply code (RFC 5321, 4.2) with which a server refused:
// 4xx or 5xx at the start of its answer, wherever the text puts that ("said:
// 550 ...", "<<< 550", "smtp; 550-", "response was: 421", alone on a line).
// Numbers in other places are ports, parts of IP addresses, sizes, years and
// queue ids. It returns 0 when there is none.
func smtpCode(text string) int {
	if strings.Contains(text, "<<<") || strings.Contains(text, ">>>") {
		for l := range strings.Lines(text) {
			if answer, ok := transcriptAnswer(l); ok {
				if code := codeIn(answer); code > 0 {
					return code
				}
			}
		}
	}
	return codeIn(text)
}

// transcriptAnswer is what the other side said in a line of an SMTP transcript.
func transcriptAnswer(l string) (string, bool) {
	l = strings.TrimSpace(l)
	for _, prefix := range []string{"<<<", "Received >>>", "received >>>", "S:", "RECV:", "<--", "<-"} {
		if strings.HasPrefix(l, prefix) {
			return strings.TrimSpace(l[len(prefix):]), true
		}
	}
	return "", false
}

func codeIn(text string) int {
	for i := 0; i+2 < len(text); i++ {
		if !isReplyAt(text, i) {
			continue
		}
		code := int(text[i]-'0')*100 + int(text[i+1]-'0')*10 + int(text[i+2]-'0')
		if nested := nestedCode(text[i+3:]); nested > 0 {
			return nested
		}
		return code
	}
	return 0
}

// nestedCode is the reply within "554 <a@b>... 550 Host unknown": sendmail's
// own code first, then the cause.
func nestedCode(rest string) int {
	rest = rest[:min(len(rest), 200)]
	rest, _, _ = strings.Cut(rest, "\n")
	if _, after, ok := strings.Cut(rest, "... "); ok && isReplyAt(after, 0) && strings.HasPrefix(strings.TrimLeft(rest, " <"), firstAddress(rest)) {
		return int(after[0]-'0')*100 + int(after[1]-'0')*10 + int(after[2]-'0')
	}
	return 0
}

// isReplyAt tells whether a reply code stands at text[i:].
func isReplyAt(text string, i int) bool {
	if i+2 >= len(text) || text[i] != '4' && text[i] != '5' || !isDigit(text[i+1]) || !isDigit(text[i+2]) || text[i+1] > '8' {
		return false
	}
	return endsReply(text[i+3:]) && beginsReply(text[:i])
}

// endsReply: a space or hyphen follows (RFC 5321, 4.2), or nothing, and it is
// not a quantity.
func endsReply(rest string) bool {
	if rest == "" || rest[0] == '\n' {
		return true
	}
	if rest[0] != ' ' && rest[0] != '-' && rest[0] != ',' && rest[0] != ';' && rest[0] != ']' && rest[0] != '\'' && rest[0] != '"' && rest[0] != '_' {
		return false
	}
	word := strings.ToLower(strings.TrimLeft(rest[:min(len(rest), 16)], " -"))
	for _, unit := range []string{"kb", "mb", "byte", "kbyte", "second", "minute", "hour", "day", "messages", "recipients", "times", "attempt", "x ", "ms", "characters", "users"} {
		if strings.HasPrefix(word, unit) {
			return false
		}
	}
	return true
}

// beginsReply: it starts a line or an answer.
func beginsReply(head string) bool {
	trimmed := strings.TrimRight(head, " \t")
	if trimmed == "" {
		return true
	}
	switch c := trimmed[len(trimmed)-1]; c {
	case '\n', ';', '(', '[', '\'', '"', '#', '>', '*', '|':
		return true
	case ':':
		return !endsWithWord(trimmed[:len(trimmed)-1], "port", "size", "limit", "length", "id", "line", "count")
	case ',':
		return strings.HasSuffix(trimmed, "],") || strings.HasSuffix(trimmed, "),")
	case '-':
		return len(trimmed) == 1 || trimmed[len(trimmed)-2] == ' ' || trimmed[len(trimmed)-2] == '-' || trimmed[len(trimmed)-2] == '\n'
	case '.':
		return strings.HasSuffix(trimmed, "...")
	}
	if len(trimmed) == len(head) {
		return false // no space before it
	}
	if n := len(trimmed); n >= 3 && isReplyAt(trimmed, n-3) {
		return true // "554 554 5.7.1"
	}
	return endsWithWord(trimmed, "said", "says", "error", "code", "reply", "replied", "response", "responsecode", "returned", "answer", "status", "reason", "with", "failure", "smtp", "esmtp", "was", "problem")
}

func endsWithWord(s string, words ...string) bool {
	s = strings.ToLower(s[max(0, len(s)-16):])
	for _, w := range words {
		if strings.HasSuffix(s, w) && (len(s) == len(w) || !isLetter(s[len(s)-len(w)-1])) {
			return true
		}
	}
	return false
}

// statusAt reads an enhanced status code (RFC 3463: class "." subject "."
// detail) at s[i:]. It is none if it is part of a longer number: an IP
// address, a version.
func statusAt(s string, i int) (code string, end int) {
	if i >= len(s) || s[i] != '2' && s[i] != '4' && s[i] != '5' || i+1 >= len(s) || s[i+1] != '.' {
		return "", 0
	}
	if i > 0 && (isDigit(s[i-1]) || isLetter(s[i-1]) || s[i-1] == '.' || s[i-1] == '_') {
		return "", 0
	}
	subject, at := number(s, i+2)
	if subject == "" || at >= len(s) || s[at] != '.' {
		return "", 0
	}
	detail, at := number(s, at+1)
	if detail == "" || at < len(s) && (isDigit(s[at]) || isLetter(s[at]) || s[at] == '/' || s[at] == '_' || s[at] == '.' && at+1 < len(s) && isDigit(s[at+1])) {
		return "", 0
	}
	return s[i:at], at
}

// number reads up to three digits.
func number(s string, i int) (string, int) {
	start := i
	for i < len(s) && i < start+3 && isDigit(s[i]) {
		i++
	}
	return s[start:i], i
}

// How surely a number of that form is a status code.
const (
	loose    = iota + 1 // it stands somewhere
	marked              // "#5.1.1", "(5.1.1", alone at the start of a line
	answered            // right after a reply code
)

// enhancedStatus finds the status code of a text, or "".
func enhancedStatus(text string) string { return statusIn(text, loose) }

// markedStatus finds one that cannot be a version number.
func markedStatus(text string) string { return statusIn(text, marked) }

func statusIn(text string, atLeast int) string {
	best, found := atLeast-1, ""
	for i := 0; i < len(text); i++ {
		if text[i] < '2' || text[i] > '5' {
			continue
		}
		code, end := statusAt(text, i)
		if end == 0 {
			continue
		}
		if s := certainty(text, i); s > best {
			best, found = s, code
		}
		i = end
	}
	return found
}

func certainty(text string, i int) int {
	head := strings.TrimRight(text[max(0, i-24):i], " \t")
	if tail := strings.TrimRight(head, "'\"-( "); len(tail) >= 3 && isReplyAt(text, max(0, i-24)+len(tail)-3) {
		return answered
	}
	if head == "" && (i < 24 || strings.Contains(text[max(0, i-24):i], "\n")) || strings.HasSuffix(head, "\n") {
		return marked
	}
	if n := len(head); n > 0 {
		switch head[n-1] {
		case '#', '(', '[', '-', ';', ':', '\'', '"':
			return marked
		}
	}
	if endsWithWord(head, "v", "version", "exim", "postfix", "server", "agent", "mta", "release", "build", "axigen", "mailer", "service", "engine", "kerio", "mdaemon", "hmailserver") {
		return 0
	}
	if endsWithWord(head, "status", "dsn", "code", "error") {
		return marked
	}
	return loose
}
