package bounce

import (
	"strings"
)

// notice is a mail taken apart: what it says itself, what it says in fields,
// and what it brings back.
type notice struct {
	root   *part
	header header

	text     string  // the notice's own words, without the returned message
	lines    []line  // of text
	status   string  // fields of delivery-status parts (RFC 3464, RFC 6533)
	feedback string  // fields of a feedback-report part (RFC 5965)
	receipt  string  // fields of a disposition-notification part (RFC 8098)
	other    bool    // a report of another kind (RFC 8460)
	returned header  // header of the returned message
	inner    []byte  // the returned message itself, as much as may be needed
	attached bool    // the returned message is a part of its own
	guessed  bool    // that part is not marked as one
	cut      bool    // the returned message follows in the text
	texts    []texts // in the order of the parts

	found   []mention // what mentions found
	counted bool
	delayed *bool // what isDelay found
}

// texts is one text part.
type texts struct {
	s     string
	after bool // it comes after the status or the returned message
}

// collect goes through the parts of a mail in their order.
func (r *reader) collect(root *part) *notice {
	n := &notice{root: root, header: root.header}
	r.visit(n, root)
	r.assemble(n)
	return n
}

func (r *reader) visit(n *notice, p *part) {
	switch {
	case p.kind == "multipart/alternative":
		r.visitAlternative(n, p)
	case p.multipart():
		for _, child := range p.parts {
			r.visit(n, child)
		}
	case strings.HasPrefix(p.kind, "message/") && strings.HasSuffix(p.kind, "delivery-status"):
		r.visitStatus(n, p) // also message/xdelivery-status and message/global-delivery-status
	case strings.HasSuffix(p.kind, "feedback-report"):
		if n.feedback == "" {
			n.feedback = r.decoded(p)
		}
	case strings.HasSuffix(p.kind, "disposition-notification"):
		n.receipt += r.decoded(p)
	case strings.HasPrefix(p.kind, "application/tlsrpt"):
		n.other = true
	case strings.HasPrefix(p.kind, "message/"), strings.HasPrefix(p.kind, "text/rfc822"):
		r.visitReturned(n, p) // rfc822, global, partial (Bigfoot); rfc822-headers, rfc822-header
	case strings.HasPrefix(p.kind, "text/") || p == n.root && !strings.Contains(p.kind, "/"):
		r.visitText(n, p)
	}
}

// visitAlternative takes the plain form where it says anything; the forms say
// the same (RFC 2046, 5.1.4).
func (r *reader) visitAlternative(n *notice, p *part) {
	var rich []*part
	said := len(n.texts)
	for _, child := range p.parts {
		if child.kind == "text/html" {
			rich = append(rich, child)
			continue
		}
		r.visit(n, child)
	}
	for _, t := range n.texts[said:] {
		if len(strings.TrimSpace(t.s)) > 20 {
			return
		}
	}
	for _, child := range rich {
		r.visit(n, child)
	}
}

// visitStatus takes the fields. QUIRK: InterMail gives the human part this type
// as well; without a field of RFC 3464 it is text.
func (r *reader) visitStatus(n *notice, p *part) {
	s := r.decoded(p)
	if !hasStatusFields(s) && strings.TrimSpace(s) != "" {
		n.texts = append(n.texts, texts{s: s, after: n.attached})
		return
	}
	if at := strings.Index(s, "\n--"); at >= 0 && !n.attached && strings.Contains(s[at:], "\nContent-") {
		// QUIRK: a mistyped boundary leaves the returned message in here.
		if h := r.returnedHeader(s[at:]); strength(h) >= 2 {
			n.returned, n.attached = h, true
			s = s[:at]
		}
	}
	if len(n.status)+len(s) < maxText {
		n.status += "\n\n" + s
	}
}

func (r *reader) visitReturned(n *notice, p *part) {
	if n.attached && !n.guessed {
		return
	}
	n.attached, n.guessed = true, false
	n.inner = decodeTransfer(p.body, p.header.get("content-transfer-encoding"), maxText)
	if h := r.returnedHeader(string(n.inner)); len(h) > 0 {
		n.returned = h
	}
}

func (r *reader) visitText(n *notice, p *part) {
	s := r.decoded(p)
	if p.kind == "text/html" || p.kind != "text/plain" && strings.Contains(s[:min(len(s), 500)], "<html") {
		s = plain(s)
	}
	// The returned header as a text attachment, or a returned message whose
	// part has no header of its own, so that its header was taken for one.
	if p != n.root && !n.attached {
		if h := r.returnedHeader(s); strength(h) >= 2 && startsWithField(s) {
			n.returned, n.attached, n.guessed = h, true, true
			return
		}
		if strength(p.header) >= 2 {
			n.returned, n.attached, n.guessed = p.header, true, true
			return
		}
	}
	n.texts = append(n.texts, texts{s: s, after: n.attached || n.status != ""})
}

// assemble joins the text parts. What follows the status or the returned
// message is not the notice's (disclaimers, the message's own body), unless
// nothing precedes it.
func (r *reader) assemble(n *notice) {
	var b strings.Builder
	for pass := 0; pass < 2 && strings.TrimSpace(b.String()) == ""; pass++ {
		for _, t := range n.texts {
			if t.after == (pass == 1) && b.Len() < maxText {
				b.WriteString(t.s)
				b.WriteString("\n\n")
			}
		}
	}
	n.text = b.String()
	if len(n.text) > maxText {
		n.text = n.text[:maxText]
		r.problem("the text is longer than what is read of it")
	}
	n.lines = splitLines(n.text)
	if at := returnedAt(n.lines); at >= 0 {
		if len(n.returned) == 0 {
			n.inner = []byte(joinRaw(n.lines[at:]))
			n.returned = r.returnedHeader(string(n.inner))
		}
		n.lines, n.cut = n.lines[:at], true
	}
}

// decoded is a part's text: transfer encoding and character set undone.
func (r *reader) decoded(p *part) string {
	encoding := p.header.get("content-transfer-encoding")
	if encoding == "" || equalFold(encoding, "7bit") || equalFold(encoding, "8bit") {
		if looksQuotedPrintable(p.body[:min(len(p.body), maxText)]) {
			encoding = "quoted-printable"
		}
	}
	body := normalize(decodeTransfer(p.body, encoding, maxText))
	return toUTF8(body, p.params["charset"])
}

// line is one line of a notice.
type line struct {
	raw string // without trailing space
	s   string // without leading space and quotation either
}

func (l line) blank() bool { return l.s == "" }

func splitLines(text string) []line {
	var lines []line
	for text != "" && len(lines) < maxLines {
		raw, rest, _ := strings.Cut(text, "\n")
		text = rest
		if len(raw) > maxLine {
			raw = raw[:maxLine]
		}
		raw = strings.TrimRight(strings.ReplaceAll(raw, "\u00a0", " "), " \t\u3000")
		lines = append(lines, line{raw: raw, s: strings.TrimLeft(clean(raw), " \t\u3000")})
	}
	return lines
}

func joinRaw(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.raw)
		b.WriteByte('\n')
	}
	return b.String()
}

// join makes one text of lines, for reading codes and reasons that were
// wrapped.
func join(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		if l.s != "" {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(l.s)
		}
	}
	return b.String()
}
