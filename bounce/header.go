package bounce

import (
	"bytes"
	"io"
	"mime"
	"strings"
)

// header is a mail header (RFC 5322, 2.2) in its order.
type header []Field

// get returns the first field of that name (in lower case), or "".
func (h header) get(name string) string {
	for i := range h {
		if equalFold(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

func (h header) has(name string) bool {
	for i := range h {
		if equalFold(h[i].Name, name) {
			return true
		}
	}
	return false
}

// text returns the first field of that name with its encoded words decoded.
func (h header) text(name string) string { return decodeWords(h.get(name)) }

// readHeader reads fields up to the first empty line and returns what follows
// it. It bears: no header at all, fields without an end, folded lines without
// their space after a semicolon, lines that are no field, 8-bit text, a space
// before the colon.
func (r *reader) readHeader(raw []byte) (header, []byte) {
	var h header
	at := 0
	for at < len(raw) {
		line, next := lineAt(raw, at)
		if len(bytes.TrimRight(line, " \t")) == 0 {
			return h, raw[next:]
		}
		name, value, ok := fieldOf(line)
		switch {
		case ok && len(h) >= maxFields:
			r.problem("too many header fields")
		case ok:
			value, next = unfold(raw, next, value)
			h = append(h, Field{Name: name, Value: clean(value)})
		case len(h) == 0:
			return nil, raw // no header: all of it is body
		default:
			r.problem("a header line without a name")
		}
		at = next
	}
	return h, nil
}

// unfold reads the lines that continue a field: those that begin with a space,
// and, QUIRK, a parameter without one after a semicolon (Verizon).
func unfold(raw []byte, at int, value string) (string, int) {
	var b strings.Builder
	b.WriteString(value)
	last := value
	for at < len(raw) {
		line, next := lineAt(raw, at)
		trimmed := bytes.TrimSpace(line)
		if len(trimmed) == 0 {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			if _, _, ok := fieldOf(line); ok || !strings.HasSuffix(last, ";") {
				break
			}
		}
		if b.Len()+len(trimmed) < maxFieldSize {
			b.WriteByte(' ')
			b.Write(trimmed)
		}
		last, at = string(trimmed[max(0, len(trimmed)-1):]), next
	}
	return b.String(), at
}

// fieldOf splits "Name: value". Names are printable ASCII without spaces (RFC
// 5322, 2.2), but some servers put a space before the colon.
func fieldOf(line []byte) (name, value string, ok bool) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || i > 100 {
		return "", "", false
	}
	key := bytes.TrimRight(line[:i], " \t")
	for _, c := range key {
		if c <= ' ' || c >= 127 {
			return "", "", false
		}
	}
	rest := bytes.TrimSpace(line[i+1:])
	if len(rest) > maxFieldSize {
		rest = rest[:maxFieldSize]
	}
	return string(key), clean(string(rest)), len(key) > 0
}

// mediaType reads a Content-Type (RFC 2045, 5.1) without insisting on its
// grammar: "multipart/mixed boundary=x", unquoted values, repeated semicolons.
// Split parameters (RFC 2231) are not joined: no boundary is ever so long.
func mediaType(field string) (kind string, params map[string]string) {
	end := strings.IndexAny(field, "; \t")
	if end < 0 {
		end = len(field)
	}
	kind = strings.ToLower(strings.TrimSpace(field[:end]))
	params = map[string]string{}
	rest := field[end:]
	for n := 0; rest != "" && n < 20; n++ {
		rest = strings.TrimLeft(rest, "; \t")
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		value, rest = parameterValue(strings.TrimLeft(value, " \t"))
		name = strings.ToLower(strings.TrimSpace(name))
		if _, seen := params[name]; !seen {
			params[name] = value
		}
	}
	return kind, params
}

func parameterValue(s string) (value, rest string) {
	if strings.HasPrefix(s, `"`) {
		if end := strings.IndexByte(s[1:], '"'); end >= 0 {
			return s[1 : 1+end], s[end+2:]
		}
		return s[1:], "" // QUIRK: a quote that never closes
	}
	end := strings.IndexAny(s, "; \t")
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

var wordDecoder = mime.WordDecoder{CharsetReader: func(charset string, input io.Reader) (io.Reader, error) {
	b, err := io.ReadAll(input)
	if err != nil {
		return nil, err
	}
	return strings.NewReader(toUTF8(b, charset)), nil
}}

// decodeWords decodes the encoded words (RFC 2047) of a field; what is
// malformed stays as it is. Raw 8-bit text becomes UTF-8.
func decodeWords(s string) string {
	if strings.Contains(s, "=?") {
		if decoded, err := wordDecoder.DecodeHeader(s); err == nil {
			s = decoded
		}
	}
	return toUTF8([]byte(s), "")
}

// clean makes control characters spaces.
func clean(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' && s[i] != 0x1b || s[i] == 127 { // ESC belongs to ISO-2022-JP
			return strings.Map(func(c rune) rune {
				if c < ' ' && c != 0x1b || c == 127 {
					return ' '
				}
				return c
			}, s)
		}
	}
	return s
}

func equalFold(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }
