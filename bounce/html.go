package bounce

import (
	"html"
	"strings"
)

// plain makes text of HTML: block elements become line breaks, the rest of the
// tags, styles, scripts and comments vanish, entities are decoded.
func plain(page string) string {
	var b strings.Builder
	b.Grow(len(page) / 2)
	for page != "" {
		open := strings.IndexByte(page, '<')
		if open < 0 {
			b.WriteString(page)
			break
		}
		b.WriteString(page[:open])
		page = page[open:]
		name, after := tag(page)
		if name == "" { // "<addr@example.com>" or a lone "<"
			b.WriteByte('<')
			page = page[1:]
			continue
		}
		page = after
		switch name {
		case "style", "script":
			page = afterClosing(page, name)
		case "br", "p", "div", "tr", "table", "li", "ul", "ol", "h1", "h2", "h3", "h4", "pre", "hr", "blockquote", "body",
			"/p", "/div", "/tr", "/table", "/li", "/h1", "/h2", "/h3", "/h4", "/pre", "/title":
			b.WriteByte('\n')
		case "td", "th":
			b.WriteByte(' ')
		}
	}
	return strings.ReplaceAll(html.UnescapeString(b.String()), "\u00a0", " ")
}

// tag reads the tag at the start of s; name is empty when there is none.
func tag(s string) (name, after string) {
	if strings.HasPrefix(s, "<!--") {
		if end := strings.Index(s, "-->"); end >= 0 {
			return "!", s[end+3:]
		}
		return "!", "" // as browsers do
	}
	i := 1
	for i < len(s) && i < 20 && (isLetter(s[i]) || s[i] == '/' || s[i] == '!' || s[i] == '?' || i > 1 && s[i] >= '1' && s[i] <= '6') {
		i++
	}
	if i == 1 || i >= len(s) || !strings.ContainsRune(" \t\n>/:", rune(s[i])) {
		return "", s
	}
	end := strings.IndexByte(s[i:min(len(s), i+2000)], '>')
	if end < 0 {
		return "", s
	}
	return strings.ToLower(strings.TrimSuffix(s[1:i], "/")), s[i+end+1:]
}

// afterClosing skips to behind </name>, or over everything when it is missing.
func afterClosing(s, name string) string {
	for at := 0; ; {
		i := strings.Index(s[at:], "</")
		if i < 0 {
			return ""
		}
		at += i + 2
		if len(s)-at >= len(name) && strings.EqualFold(s[at:at+len(name)], name) {
			if end := strings.IndexByte(s[at:], '>'); end >= 0 {
				return s[at+end+1:]
			}
			return ""
		}
	}
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
