package espkit

import (
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
)

// Notice is what a returned mail inside a callback says about one recipient.
// Package bounce reads bounce mails in all their forms; this reads only the
// standard one (RFC 3464), which is what ESPs pass on, and is content with any
// text whatever.
type Notice struct {
	Action     string // failed, delayed, delivered, relayed, expanded (RFC 3464, 2.3.3); "" without a status part
	Status     string // enhanced status code
	SMTPCode   int
	Diagnostic string // Diagnostic-Code as written
	MessageID  string // Message-ID of the returned message
	AutoReply  bool   // the mail says that a machine answered it (RFC 3834), and has no status part
}

// ReadNotice reads a mail. Of several recipients it takes the one named,
// else the first.
func ReadNotice(mail, recipient string) Notice {
	header, body := mailHeader(mail)
	var n Notice
	for part := range parts(body) {
		h, content := mailHeader(part)
		switch kind := mediaType(h["content-type"]); kind {
		case "message/delivery-status", "message/global-delivery-status":
			if n.Action == "" {
				n.readStatus(decode(content, h["content-transfer-encoding"]), recipient)
			}
		case "message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers":
			if n.MessageID == "" {
				returned, _ := mailHeader(strings.TrimLeft(decode(content, h["content-transfer-encoding"]), "\r\n"))
				n.MessageID = returned["message-id"]
			}
		}
	}
	n.AutoReply = n.Action == "" && isAutoReply(header)
	return n
}

func (n *Notice) readStatus(text, recipient string) {
	for text = strings.TrimLeft(text, "\r\n"); text != ""; text = strings.TrimLeft(text, "\r\n") {
		var block map[string]string
		block, text = mailHeader(text)
		action := strings.ToLower(firstWord(block["action"]))
		if action == "" {
			continue // the block about the whole message
		}
		about := typed(block["final-recipient"])
		original := typed(block["original-recipient"])
		named := recipient != "" && (strings.EqualFold(about, recipient) || strings.EqualFold(original, recipient))
		if n.Action != "" && !named {
			continue
		}
		n.Action, n.Diagnostic = action, block["diagnostic-code"]
		n.SMTPCode, n.Status = SMTPCode(n.Diagnostic), Status(firstWord(block["status"]))
		// x.0.0 says no more than its class; the text often says more.
		if fuller := EnhancedStatus(n.Diagnostic); fuller != "" && (n.Status == "" || strings.HasSuffix(n.Status, ".0.0")) {
			n.Status = fuller
		}
		if named {
			return
		}
	}
}

// isAutoReply goes by the headers that only automatic replies have. Bounces
// may have them as well; those are recognised first.
func isAutoReply(header map[string]string) bool {
	if strings.HasPrefix(strings.ToLower(header["auto-submitted"]), "auto-replied") {
		return true
	}
	for _, name := range []string{"x-autoreply", "x-autorespond"} {
		if _, ok := header[name]; ok {
			return true
		}
	}
	return strings.EqualFold(header["precedence"], "auto_reply") || strings.EqualFold(header["x-apple-action"], "vacation")
}

// parts yields what stands between lines that begin with "--". Whatever the
// boundary is, it looks like that, also where the header that names it is
// damaged; a line of dashes in a text only makes a part that nobody asks for.
func parts(body string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start := -1
		for at := 0; at < len(body); {
			end := len(body)
			if nl := strings.IndexByte(body[at:], '\n'); nl >= 0 {
				end = at + nl + 1
			}
			if strings.HasPrefix(body[at:end], "--") {
				if start >= 0 && !yield(body[start:at]) {
					return
				}
				start = end
			}
			at = end
		}
		if start >= 0 {
			yield(body[start:])
		}
	}
}

// mailHeader reads header fields up to the first empty line, names in lower
// case, folded lines joined, the first of several, and returns what follows.
func mailHeader(text string) (map[string]string, string) {
	header := map[string]string{}
	for text != "" {
		line, rest := cutLine(text)
		if line == "" {
			return header, rest
		}
		folded := false
		for rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			_, rest = cutLine(rest)
			folded = true
		}
		if folded {
			line = strings.Join(strings.Fields(text[:len(text)-len(rest)]), " ")
		}
		text = rest
		name, value, ok := strings.Cut(line, ":")
		if !ok || len(name) > 100 {
			continue
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if _, seen := header[name]; !seen {
			header[name] = strings.TrimSpace(value)
		}
	}
	return header, ""
}

func cutLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// typed returns what follows the type in "rfc822; a@example.com".
func typed(s string) string {
	if _, address, ok := strings.Cut(s, ";"); ok {
		s = address
	}
	return Address(s)
}

func firstWord(s string) string {
	if words := strings.Fields(Bound(s, 100)); len(words) > 0 {
		return words[0]
	}
	return ""
}

func decode(content, encoding string) string {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		// What decodes before the damage is better than nothing.
		b, _ := io.ReadAll(base64.NewDecoder(base64.StdEncoding, strings.NewReader(content)))
		return string(b)
	case "quoted-printable":
		b, _ := io.ReadAll(quotedprintable.NewReader(strings.NewReader(content)))
		return string(b)
	}
	return content
}
