package bounce

import (
	"strings"
)

// Where the returned message begins matters twice: behind it are other
// people's addresses and words that must not be taken for the notice's, and in
// it is the Message-ID that tells which message came back.

// separatorWords are what separator lines call the message that follows. A
// line is a separator if it says one of them and either is decorated ("-----
// Original message -----") or announces ("Original message follows.").
var separatorWords = []string{
	"original message", "original mail", "copy of the message", "copy of your message", "copy of the original", "copy of the mail",
	"returned message", "returned mail", "unsent message", "message header", "message headers", "header of the original",
	"headers of the original", "the headers of the message", "message text", "message body", "body of the message",
	"undelivered message", "undeliverable message", "rejected message", "failed message", "bounced e-mail", "bounced email",
	"bounced message", "the message below", "your message reads", "your original mail", "old message", "message you sent",
	"original e-mail", "original email", "header information", "message is attached", "message attached", "attached message",
	"mensaje original", "mensagem original", "message original", "message d'origine", "messaggio originale", "messaggio allegato",
	"ursprüngliche nachricht", "originalnachricht", "originalmail", "kopie der nachricht", "ihre nachricht", "kopfzeilen",
	"исходное сообщение", "исходного сообщения", "оригинал сообщения", "копия сообщения", "заголовки письма",
	"元のメッセージ", "元のメール", "オリジナルメッセージ", "原メッセージ", "送信メール", "原邮件", "原信", "原始邮件", "原件", "original-nachricht",
	"oorspronkelijke bericht", "wiadomość oryginalna", "oryginalna wiadomość", "original meddelande", "alkuperäinen viesti",
}

var announcing = []string{"follows", "follow", "following", "below", "attached", "enclosed", "reads", "appears", "siguiente", "suit", "folgt", "segue"}

// isSeparator tells whether the returned message begins after this line.
func isSeparator(s string) bool {
	if len(s) < 6 || len(s) > 160 {
		return false
	}
	bare := strings.Trim(s, "-=*_#|+~>< \t")
	decorated := decorated(s)
	lower := strings.ToLower(bare)
	if lower == "" {
		return false
	}
	if containsAny(lower, []string{"address", "recipient"}) {
		return false // "The following addresses did not receive a copy of your message:"
	}
	if !containsAny(lower, separatorWords) {
		return decorated && (strings.HasPrefix(lower, "below this line") || strings.HasPrefix(lower, "below the next line"))
	}
	if decorated || len(lower) < 30 && strings.HasSuffix(lower, ":") {
		return true
	}
	end := strings.TrimRight(lower, ".:;-!= ")
	for _, word := range announcing {
		if strings.HasSuffix(end, word) {
			return true
		}
	}
	return strings.HasSuffix(lower, ":") && len(lower) < 70 && containsAny(lower, []string{"copy", "kopie", "copia", "copie"})
}

// returnedAt finds the line at which the returned message begins, or -1.
func returnedAt(lines []line) int {
	for i, l := range lines {
		if l.blank() {
			continue
		}
		if isSeparator(l.s) && !announcesReasons(lines[i+1:], decorated(l.s)) {
			return i
		}
		if strongField(l.s) && headerBlock(lines[i:]) {
			return i
		}
	}
	return -1
}

// decorated: dashes, equal signs or the like begin the line.
func decorated(s string) bool {
	return len(s)-len(strings.TrimLeft(s, "-=*_#|+~>< ")) >= 3 && s[0] != '>' && s[0] != '<'
}

// announcesReasons tells an opening such as "The original message:", after
// which the notice goes on, from a separator: a reply code comes, and no
// header. Behind a decorated line only a recipient with his reply counts.
func announcesReasons(lines []line, decorated bool) bool {
	limit := 25
	if decorated {
		limit = 6
	}
	for _, l := range lines[:min(len(lines), limit)] {
		switch {
		case l.blank():
		case strongField(l.s):
			return false
		case smtpCode(l.s) == 0:
		case !decorated:
			return true
		default:
			if found := findAddresses(l.s); len(found) > 0 && found[0].start <= 2 {
				return true
			}
		}
	}
	return false
}

// strongFields are header fields that a notice has no reason to write about,
// and that every message has some of.
var strongFields = []string{"received:", "return-path:", "message-id:", "dkim-signature:", "mime-version:", "x-received:", "delivered-to:",
	"x-mailer:", "arc-seal:", "domainkey-signature:", "x-originating-ip:", "authentication-results:", "received-spf:"}

func strongField(s string) bool {
	s = strings.TrimLeft(s, "> |")
	if len(s) < 8 {
		return false
	}
	lower := strings.ToLower(s[:min(len(s), 28)])
	for _, f := range strongFields {
		if strings.HasPrefix(lower, f) {
			return true
		}
	}
	return false
}

// headerBlock tells whether lines begin with a message header: several fields
// in a row, more than one of them strong or followed by the usual ones.
func headerBlock(lines []line) bool {
	fields, strong := 0, 0
	for i := 0; i < len(lines) && i < 40; i++ {
		l := lines[i]
		if l.blank() {
			break
		}
		if l.raw[0] == ' ' || l.raw[0] == '\t' {
			continue
		}
		if _, _, ok := fieldOf([]byte(l.s)); !ok {
			break
		}
		fields++
		if strongField(l.s) {
			strong++
		}
	}
	return strong >= 2 && fields >= 3 || strong >= 1 && fields >= 4
}

// strength counts the fields of a header that only messages have.
func strength(h header) int {
	if !h.has("received") && !h.has("message-id") {
		return 0
	}
	n := 0
	for _, name := range []string{"received", "message-id", "from", "to", "date", "subject", "return-path", "mime-version"} {
		if h.has(name) {
			n++
		}
	}
	return n
}

func startsWithField(s string) bool {
	first, _, _ := strings.Cut(strings.TrimLeft(s, "\n\t "), "\n")
	name, _, ok := fieldOf([]byte(first))
	return ok && messageField(name)
}

// returnedHeader reads the header of the returned message from a text that
// begins somewhere before it. The header may be indented or quoted, and lines
// of dashes or prose may precede it.
func (r *reader) returnedHeader(text string) header {
	lines := splitLines(text)
	for i := 0; i < len(lines) && i < 60; i++ {
		s := strings.TrimLeft(lines[i].s, ">| ")
		name, _, ok := fieldOf([]byte(s))
		if !ok || !messageField(name) {
			continue
		}
		h := r.headerFrom(lines[i:])
		if len(h) >= 2 || h.has("message-id") {
			return h
		}
	}
	return nil
}

// messageField tells names of message fields from words with a colon.
func messageField(name string) bool {
	switch strings.ToLower(name) {
	case "received", "return-path", "message-id", "from", "to", "date", "subject", "mime-version", "dkim-signature",
		"content-type", "sender", "reply-to", "delivered-to", "cc", "domainkey-signature", "authentication-results", "arc-seal", "path":
		return true
	}
	return len(name) > 3 && (name[1] == '-' && name[0]|0x20 == 'x')
}

// headerFrom reads fields until an empty line.
func (r *reader) headerFrom(lines []line) header {
	indent := len(lines[0].raw) - len(strings.TrimLeft(lines[0].raw, ">| \t"))
	var h header
	for _, l := range lines {
		raw := l.raw
		if indent > 0 {
			raw = raw[min(indent, len(raw)-len(strings.TrimLeft(raw, ">| \t"))):]
		}
		if strings.TrimSpace(raw) == "" || len(h) >= maxFields {
			break
		}
		if raw[0] == ' ' || raw[0] == '\t' {
			if f := len(h) - 1; f >= 0 && len(h[f].Value)+len(raw) < maxFieldSize {
				h[f].Value += " " + strings.TrimSpace(raw)
			}
			continue
		}
		if name, value, ok := fieldOf([]byte(raw)); ok {
			h = append(h, Field{Name: name, Value: value})
		}
	}
	return h
}

// messageID takes an id out of its brackets and comments.
func messageID(field string) string {
	field = strings.TrimSpace(field)
	if open := strings.IndexByte(field, '<'); open >= 0 {
		if close := strings.IndexByte(field[open:], '>'); close > 0 {
			return strings.TrimSpace(field[open+1 : open+close])
		}
		field = field[open+1:]
	}
	if words := strings.Fields(field); len(words) > 0 && len(words[0]) < 1000 {
		return words[0]
	}
	return ""
}

// keepOriginal fills what helps to find the message that came back.
func (r *reader) keepOriginal(n *notice) {
	p := &r.report
	p.OriginalMessageID = messageID(n.returned.get("message-id"))
	if p.OriginalMessageID == "" {
		p.OriginalMessageID = mentionedID(n)
	}
	if p.OriginalMessageID != "" && p.OriginalMessageID == messageID(n.header.get("message-id")) {
		p.OriginalMessageID = "" // a notice that is its own original says nothing
	}
	if p.ReturnPath == "" {
		p.ReturnPath = cleanAddress(n.returned.get("return-path"))
	}
	for _, f := range n.returned {
		if len(p.Original) < maxOriginal && helpsMatching(f.Name) && len(f.Value) <= 2000 {
			p.Original = append(p.Original, Field{Name: f.Name, Value: decodeWords(f.Value)})
		}
	}
}

// mentionedID looks for the id in the notice itself: in fields that some
// servers add to a status part or a receipt, and in the text ("This report
// relates to a message you sent with the following header fields").
func mentionedID(n *notice) string {
	for _, fields := range []string{n.status, n.receipt} {
		for _, f := range fieldsOf(fields) {
			switch strings.ToLower(f.Name) {
			case "x-original-message-id", "original-message-id":
				return messageID(f.Value)
			}
		}
	}
	for _, l := range n.lines {
		if len(l.s) > 11 && equalFold(l.s[:11], "message-id:") {
			return messageID(l.s[11:])
		}
	}
	return ""
}

// helpsMatching leaves out the long fields of transport and authentication.
// The X- fields are where ESPs keep their ids.
func helpsMatching(name string) bool {
	switch strings.ToLower(name) {
	case "message-id", "from", "to", "cc", "subject", "date", "sender", "reply-to", "return-path", "in-reply-to", "references",
		"feedback-id", "resent-message-id", "list-unsubscribe", "list-id", "errors-to", "delivered-to":
		return true
	case "x-received", "x-google-smtp-source", "x-google-dkim-signature", "x-gm-message-state", "x-ymail-osg", "x-spam-report":
		return false
	}
	return len(name) > 2 && name[0]|0x20 == 'x' && name[1] == '-'
}
