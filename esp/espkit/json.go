package espkit

import (
	"encoding/json"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds nesting, so that a body of brackets cannot use up the stack.
// Real callbacks nest five or six levels.
const maxDepth = 200

// Value is one JSON value as posted, cut out of its document. The zero Value
// is an absent member; absent, null and a value of another kind than asked for
// all read as nothing, because an ESP that sends null, "" and no member at all
// means the same by them.
//
// Values are read where they lie instead of being decoded into structs: one
// field of an unexpected type must not lose a record, numbers must survive
// beyond 2^53, and this is the hot path.
type Value []byte

// Member is one name of a JSON object with its value.
type Member struct {
	Name  []byte // unescaped
	Value Value
}

// Object is a JSON object in the order it was posted.
type Object []Member

// Document returns the one JSON value that doc holds. A byte order mark and
// white space around it are skipped; false means that doc is something else.
func Document(doc []byte) (Value, bool) {
	doc = trim(doc)
	s := scanner{doc: doc}
	end, ok := s.value(0, 0)
	if !ok || skipSpace(doc, end) != len(doc) {
		return nil, false
	}
	return Value(doc[:end]), true
}

// Present reports whether v is there and not null.
func (v Value) Present() bool { return len(v) > 0 && v[0] != 'n' }

// IsObject reports whether v is a JSON object.
func (v Value) IsObject() bool { return len(v) > 0 && v[0] == '{' }

// String returns a string's text, or a number or boolean as it was written;
// anything else is "". Invalid UTF-8 and lone surrogates become U+FFFD.
func (v Value) String() string {
	if len(v) == 0 {
		return ""
	}
	switch v[0] {
	case '"':
		return unquote(v)
	case '{', '[', 'n':
		return ""
	}
	return string(v)
}

// Object returns the members of an object, nothing when v is something else.
func (v Value) Object() Object {
	if !v.IsObject() {
		return nil
	}
	s := scanner{doc: v}
	members := make(Object, 0, 16)
	i := skipSpace(v, 1)
	for i < len(v) && v[i] == '"' {
		name, at, ok := s.name(i)
		if !ok {
			return nil
		}
		end, ok := s.value(at, 1)
		if !ok {
			return nil
		}
		members = append(members, Member{name, Value(v[at:end:end])})
		if i = skipSpace(v, end); i < len(v) && v[i] == ',' {
			i = skipSpace(v, i+1)
		}
	}
	return members
}

// Get returns the member of that name; of several the last, as most readers do.
func (o Object) Get(name string) Value {
	for i := len(o) - 1; i >= 0; i-- {
		if string(o[i].Name) == name {
			return o[i].Value
		}
	}
	return nil
}

// Elements returns the elements of an array, nothing when v is something else.
func (v Value) Elements() []Value {
	if len(v) == 0 || v[0] != '[' {
		return nil
	}
	var out []Value
	s := scanner{doc: v}
	for i := skipSpace(v, 1); i < len(v) && v[i] != ']'; i = skipSpace(v, i) {
		end, ok := s.value(i, 1)
		if !ok {
			return out
		}
		out = append(out, Value(v[i:end:end]))
		if i = skipSpace(v, end); i < len(v) && v[i] == ',' {
			i++
		}
	}
	return out
}

// Strings returns the texts of an array, or a single text as a list of one;
// empty ones are left out.
func (v Value) Strings() []string {
	if len(v) > 0 && v[0] == '[' {
		var out []string
		for _, e := range v.Elements() {
			if s := e.String(); s != "" {
				out = append(out, s)
			}
		}
		return out
	}
	if s := v.String(); s != "" {
		return []string{s}
	}
	return nil
}

// Map returns an object as Go values, numbers as json.Number, for
// event.Metadata. An empty object, and the empty array by which some ESPs mean
// an empty object, are nil.
func (v Value) Map() map[string]any {
	if !v.IsObject() {
		return nil
	}
	m, _ := v.any().(map[string]any)
	if len(m) == 0 {
		return nil
	}
	return m
}

func (v Value) any() any {
	switch v[0] {
	case '{':
		o := v.Object()
		m := make(map[string]any, len(o))
		for _, member := range o {
			m[valid(string(member.Name))] = member.Value.any()
		}
		return m
	case '[':
		list := []any{}
		for _, e := range v.Elements() {
			list = append(list, e.any())
		}
		return list
	case '"':
		return unquote(v)
	case 't':
		return true
	case 'f':
		return false
	case 'n':
		return nil
	}
	return json.Number(v)
}

// scanner checks JSON grammar (RFC 8259) with two liberties: control
// characters may stand raw in strings, and unknown escapes are let through;
// the meaning of both is plain, and ESPs relay diagnostics with either.
type scanner struct {
	doc    []byte
	string int // where the last string began; resynchronisation starts there
}

// value returns the index after the value at i. When the grammar breaks, it
// returns false and the index where it broke.
func (s *scanner) value(i, depth int) (int, bool) {
	i = skipSpace(s.doc, i)
	if i >= len(s.doc) || depth > maxDepth {
		return i, false
	}
	switch c := s.doc[i]; c {
	case '"':
		return s.text(i)
	case '{', '[':
		return s.container(i, depth, c)
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	}
	return s.number(i)
}

func (s *scanner) container(i, depth int, open byte) (int, bool) {
	closing := open + 2 // ']' and '}' are two after their openings in ASCII
	i = skipSpace(s.doc, i+1)
	if i < len(s.doc) && s.doc[i] == closing {
		return i + 1, true
	}
	for {
		ok := true
		if open == '{' {
			if _, i, ok = s.name(i); !ok {
				return i, false
			}
		}
		if i, ok = s.value(i, depth+1); !ok {
			return i, false
		}
		i = skipSpace(s.doc, i)
		if i >= len(s.doc) {
			return i, false
		}
		switch s.doc[i] {
		case closing:
			return i + 1, true
		case ',':
			i = skipSpace(s.doc, i+1)
		default:
			return i, false
		}
	}
}

// name reads a member's name and colon, and returns where its value begins.
func (s *scanner) name(i int) ([]byte, int, bool) {
	if i >= len(s.doc) || s.doc[i] != '"' {
		return nil, i, false
	}
	end, ok := s.text(i)
	if !ok {
		return nil, end, false
	}
	name := s.doc[i+1 : end-1]
	for _, c := range name {
		if c == '\\' {
			name = []byte(unquote(Value(s.doc[i:end])))
			break
		}
	}
	at := skipSpace(s.doc, end)
	if at >= len(s.doc) || s.doc[at] != ':' {
		return nil, at, false
	}
	return name, skipSpace(s.doc, at+1), true
}

func (s *scanner) text(i int) (int, bool) {
	s.string = i
	for i++; i < len(s.doc); i++ {
		switch s.doc[i] {
		case '"':
			return i + 1, true
		case '\\':
			i++
		}
	}
	return len(s.doc), false
}

func (s *scanner) literal(i int, word string) (int, bool) {
	if len(s.doc)-i < len(word) || string(s.doc[i:i+len(word)]) != word {
		return i, false
	}
	return i + len(word), true
}

// number is strict: what it lets through is written again as a json.Number.
func (s *scanner) number(i int) (int, bool) {
	digits := func() bool {
		start := i
		for i < len(s.doc) && isDigit(s.doc[i]) {
			i++
		}
		return i > start
	}
	if s.doc[i] == '-' {
		i++
	}
	if i < len(s.doc) && s.doc[i] == '0' {
		i++
	} else if !digits() {
		return i, false
	}
	if i < len(s.doc) && s.doc[i] == '.' {
		if i++; !digits() {
			return i, false
		}
	}
	if i < len(s.doc) && (s.doc[i] == 'e' || s.doc[i] == 'E') {
		if i++; i < len(s.doc) && (s.doc[i] == '+' || s.doc[i] == '-') {
			i++
		}
		if !digits() {
			return i, false
		}
	}
	return i, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// trim removes a byte order mark and white space around a document.
func trim(b []byte) []byte {
	if len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF {
		b = b[3:]
	}
	b = b[skipSpace(b, 0):]
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t' || b[len(b)-1] == '\r' || b[len(b)-1] == '\n') {
		b = b[:len(b)-1]
	}
	return b
}

// unquote returns the text of a JSON string that the scanner let through.
func unquote(v Value) string {
	raw := v[1 : len(v)-1]
	plain := 0
	for plain < len(raw) && raw[plain] != '\\' {
		plain++
	}
	if plain == len(raw) {
		return valid(string(raw))
	}
	out := make([]byte, plain, len(raw))
	copy(out, raw)
	for i := plain; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' || i+1 >= len(raw) {
			out = append(out, c)
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, n := codePoint(raw[i+1:])
			out = utf8.AppendRune(out, r)
			i += n
		default: // \" \\ \/ and escapes that JSON does not have
			out = append(out, raw[i])
		}
	}
	return valid(string(out))
}

// codePoint reads what follows \u: four hex digits, or a surrogate pair.
func codePoint(b []byte) (rune, int) {
	first, ok := hex4(b)
	if !ok {
		return utf8.RuneError, 0
	}
	if !utf16.IsSurrogate(first) {
		return first, 4
	}
	if len(b) >= 6 && b[4] == '\\' && b[5] == 'u' {
		if second, ok := hex4(b[6:]); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r, 10
			}
		}
	}
	return utf8.RuneError, 4
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		d, ok := hexDigit(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}
