package bounce

import (
	"bytes"
	"strings"
)

// part is one MIME part (RFC 2046). The walker is tolerant where readers of
// the standard library and others give up: boundaries that are missing, never
// closed or wrong, headers without an end, unknown encodings. Of a mail that
// broken there is usually enough left to read.
type part struct {
	header header
	kind   string            // media type in lower case; "text/plain" where none is given
	params map[string]string // of Content-Type
	body   []byte            // as transferred
	parts  []*part           // of a multipart
}

func (p *part) multipart() bool { return strings.HasPrefix(p.kind, "multipart/") }

// walk splits a mail into its parts.
func (r *reader) walk(mail []byte) *part {
	if len(mail) > MaxSize {
		mail = mail[:MaxSize]
		r.problem("the mail is larger than what is read of it")
	}
	mail = normalize(mail)
	for at := 0; len(mail) > 0; mail = mail[at:] {
		var first []byte
		if first, at = lineAt(mail, 0); len(bytes.TrimSpace(first)) > 0 {
			break // QUIRK: empty lines before the header
		}
	}
	if bytes.HasPrefix(mail, []byte("From ")) || bytes.HasPrefix(mail, []byte(">From ")) {
		_, mail, _ = bytes.Cut(mail, []byte("\n")) // an mbox separator
	}
	return r.part(mail, 0)
}

// normalize makes all line ends \n (CRLF, bare CR, mixed) and NULs spaces.
func normalize(mail []byte) []byte {
	if bytes.IndexByte(mail, '\r') < 0 && bytes.IndexByte(mail, 0) < 0 {
		return mail
	}
	out := make([]byte, 0, len(mail))
	for i, c := range mail {
		switch {
		case c == '\r' && i+1 < len(mail) && mail[i+1] == '\n':
		case c == '\r':
			out = append(out, '\n')
		case c == 0:
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return out
}

func (r *reader) part(raw []byte, depth int) *part {
	h, body := r.readHeader(raw)
	p := &part{header: h, body: body}
	p.kind, p.params = mediaType(h.get("content-type"))
	if p.kind == "" {
		p.kind = "text/plain" // RFC 2045, 5.2
		if boundary := guessBoundary(body[:min(len(body), 600)]); boundary != "" && depth == 0 {
			p.kind, p.params["boundary"] = "multipart/mixed", boundary // QUIRK: the header lost its MIME fields
		}
	}
	if !p.multipart() {
		return p
	}
	if depth >= maxDepth {
		r.problem("parts nested too deeply")
		p.kind = "text/plain"
		return p
	}
	for _, piece := range r.split(body, p.params["boundary"]) {
		if r.parts++; r.parts > maxParts {
			r.problem("too many parts")
			break
		}
		p.parts = append(p.parts, r.part(piece, depth+1))
	}
	if len(p.parts) == 0 {
		p.kind = "text/plain" // no boundary to be found: it is all text
	}
	return p
}

// split cuts the body of a multipart at its boundary lines. What comes before
// the first one (the preamble) is dropped; a boundary that never closes ends
// with the body.
func (r *reader) split(body []byte, boundary string) [][]byte {
	pieces, found := cutAt(body, boundary)
	if !found {
		guess := guessBoundary(body)
		if guess == "" {
			r.problem("multipart without its boundary")
			return nil
		}
		r.problem("boundary differs from the header's")
		pieces, _ = cutAt(body, guess)
	}
	return pieces
}

func cutAt(body []byte, boundary string) (pieces [][]byte, found bool) {
	if boundary == "" {
		return nil, false
	}
	delimiter := []byte("--" + boundary)
	start := -1
	for at := 0; at < len(body); {
		line, next := lineAt(body, at)
		if bytes.HasPrefix(line, delimiter) {
			switch rest := bytes.TrimRight(line[len(delimiter):], " \t"); {
			case len(rest) == 0:
				if start >= 0 {
					pieces = append(pieces, body[start:at])
				}
				start, found = next, true
			case string(rest) == "--":
				if start >= 0 {
					pieces = append(pieces, body[start:at])
				}
				// What follows is the epilogue, unless the same boundary opens
				// once more (seen with parts that reuse the parent's).
				start, found = -1, true
			}
		}
		if len(pieces) > maxParts {
			return pieces, true
		}
		at = next
	}
	if start >= 0 {
		pieces = append(pieces, body[start:])
	}
	return pieces, found
}

// guessBoundary finds a line "--x" that a Content- field follows.
func guessBoundary(body []byte) string {
	for at := 0; at < len(body); {
		line, next := lineAt(body, at)
		if bytes.HasPrefix(line, []byte("--")) && len(line) > 3 && len(line) < 200 {
			after, _ := lineAt(body, next)
			if len(after) > 8 && equalFold(string(after[:8]), "content-") {
				return strings.TrimRight(string(line[2:]), " \t")
			}
		}
		at = next
	}
	return ""
}

// lineAt returns the line that starts at i, without its end, and where the
// next one starts.
func lineAt(b []byte, i int) (line []byte, next int) {
	if i >= len(b) {
		return nil, len(b)
	}
	if n := bytes.IndexByte(b[i:], '\n'); n >= 0 {
		return b[i : i+n], i + n + 1
	}
	return b[i:], len(b)
}
