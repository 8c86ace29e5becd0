package espkit

import "strings"

// maxFields bounds what a form may hold, so that a body of ampersands does not
// become a list thirty times its size. Real callbacks have at most some 30.
const maxFields = 10_000

// Field is one name and value of a form.
type Field struct{ Name, Value string }

// Form is a form body (application/x-www-form-urlencoded) or a query in the
// order it was posted. Names may repeat and differ in case only.
type Form []Field

// ParseForm reads a form. It never fails: a broken escape stands for itself,
// and invalid UTF-8 becomes U+FFFD in Get and All.
func ParseForm(body []byte) Form {
	var f Form
	text := string(body)
	for text != "" && len(f) < maxFields {
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		f = append(f, Field{unescape(name), unescape(value)})
	}
	return f
}

// Has reports whether a field of that name was posted.
func (f Form) Has(name string) bool {
	for i := range f {
		if f[i].Name == name {
			return true
		}
	}
	return false
}

// Get returns the first value of that name, "" when there is none.
func (f Form) Get(name string) string {
	for i := range f {
		if f[i].Name == name {
			return valid(f[i].Value)
		}
	}
	return ""
}

// List returns the values of a list in any of the spellings name=, name[]= and
// name[0]=; empty ones are left out.
func (f Form) List(name string) []string {
	var out []string
	for i := range f {
		rest, ok := strings.CutPrefix(f[i].Name, name)
		if ok && (rest == "" || rest[0] == '[' && rest[len(rest)-1] == ']') && f[i].Value != "" {
			out = append(out, valid(f[i].Value))
		}
	}
	return out
}

func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 < len(s) {
				hi, ok1 := hexDigit(s[i+1])
				lo, ok2 := hexDigit(s[i+2])
				if ok1 && ok2 {
					out = append(out, hi<<4|lo)
					i += 2
					continue
				}
			}
			out = append(out, c)
		default:
			out = append(out, c)
		}
	}
	return string(out)
}
