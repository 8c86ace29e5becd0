package bounce

import (
	"strconv"
	"strings"

	"aftersend/event"
)

// fieldsOf reads fields from a status, feedback or receipt part. An empty line
// gives a field without a name, which separates the blocks (RFC 3464, 2.1).
// Folded lines are joined; so are continued ones that forgot their space,
// which reply texts of several lines often do ("550-5.1.1 ...").
func fieldsOf(text string) []Field {
	var fields []Field
	for _, l := range splitLines(text) {
		folded := l.raw != "" && (l.raw[0] == ' ' || l.raw[0] == '\t')
		last := len(fields) - 1
		name, value, ok := fieldOf([]byte(l.s))
		switch {
		case len(fields) >= 4*maxFields:
			return fields
		case l.blank():
			fields = append(fields, Field{})
		case last >= 0 && fields[last].Name != "" && (folded && !(ok && statusField(name)) || !ok):
			if len(fields[last].Value) < maxFieldSize {
				fields[last].Value += "\n" + l.s
			}
		case ok:
			// QUIRK: "Final-Recipient:= rfc822" of a half-decoded part.
			fields = append(fields, Field{Name: name, Value: strings.TrimLeft(value, "= ")})
		}
	}
	return fields
}

// statusField tells the fields of RFC 3464 by name.
func statusField(name string) bool {
	switch strings.ToLower(name) {
	case "reporting-mta", "original-envelope-id", "dsn-gateway", "received-from-mta", "arrival-date", "original-recipient", "final-recipient",
		"action", "status", "remote-mta", "diagnostic-code", "last-attempt-date", "final-log-id", "will-retry-until", "x-actual-recipient", "x-supplementary-info",
		"x-display-name":
		return true
	}
	return false
}

// hasStatusFields tells a status part from text of the same type.
func hasStatusFields(text string) bool {
	for _, l := range splitLines(text[:min(len(text), 8000)]) {
		if name, _, ok := fieldOf([]byte(l.s)); ok && statusField(name) {
			return true
		}
	}
	return false
}

// embeddedStatus finds where status fields begin in a text: a recipient, and a
// status or an action. It returns -1 when there are none.
func embeddedStatus(lines []line) int {
	first := -1
	recipient, result := false, false
	for i, l := range lines {
		name, _, ok := fieldOf([]byte(l.s))
		if !ok || !statusField(name) {
			continue
		}
		if first < 0 {
			first = i
		}
		switch strings.ToLower(name) {
		case "final-recipient", "original-recipient":
			recipient = true
		case "action", "status":
			result = true
		}
	}
	if !recipient || !result {
		return -1
	}
	return first
}

// statusBlock is what one block of fields says about one recipient.
type statusBlock struct {
	original, final, action, status, diagnostic string
}

func (b *statusBlock) recipient() bool { return b.original != "" || b.final != "" }

// empty is a block with nothing about the outcome.
func (b *statusBlock) outcome() bool { return b.action != "" || b.status != "" || b.diagnostic != "" }

// statusRecipients reads the blocks. Per-message fields go to the report.
func (r *reader) statusRecipients(text string) []statusBlock {
	var blocks []statusBlock
	var current statusBlock
	common := "" // an Action in the block about the message (seen with old servers)
	closeBlock := func() {
		last := len(blocks) - 1
		switch {
		case current.recipient() && len(blocks) < maxRecipients:
			blocks = append(blocks, current)
		case current.recipient():
			r.problem("more recipients than are reported")
		case current.outcome() && last >= 0 && !(blocks[last].action != "" && blocks[last].status != ""):
			blocks[last].complete(current) // an empty line inside a block (SurfControl)
		case current.action != "" && last < 0:
			common = current.action
		}
		current = statusBlock{}
	}
	for _, f := range fieldsOf(text) {
		name := strings.ToLower(f.Name)
		if name == "" || name == "final-recipient" && current.final != "" || name == "original-recipient" && current.original != "" && current.final != "" {
			closeBlock() // an empty line, or no empty line between two recipients
		}
		r.perMessage(name, f.Value)
		current.set(name, f.Value)
	}
	closeBlock()
	for i := range blocks {
		if blocks[i].action == "" {
			blocks[i].action = common
		}
	}
	return merged(blocks)
}

func (r *reader) perMessage(name, value string) {
	switch name {
	case "original-envelope-id":
		r.report.EnvelopeID = oneLine(value)
	case "reporting-mta":
		if r.report.ReportingMTA == "" {
			r.report.ReportingMTA = strings.ToLower(strings.TrimSpace(afterType(value)))
		}
	case "x-postfix-sender":
		r.report.ReturnPath = cleanAddress(afterType(value))
	}
}

func (b *statusBlock) set(name, value string) {
	switch name {
	case "original-recipient":
		b.original = typedAddress(value)
	case "final-recipient":
		b.final = typedAddress(value)
	case "action":
		b.action = oneLine(value)
	case "status":
		b.status = oneLine(value)
	case "diagnostic-code":
		if b.diagnostic == "" {
			b.diagnostic = value
		}
	}
}

func (b *statusBlock) complete(more statusBlock) {
	if b.action == "" {
		b.action = more.action
	}
	if b.status == "" {
		b.status = more.status
	}
	if b.diagnostic == "" {
		b.diagnostic = more.diagnostic
	}
}

// merged leaves one block per recipient. Servers that expand aliases repeat
// them; a failure says more than the rest.
func merged(blocks []statusBlock) []statusBlock {
	seen := map[string]int{}
	out := blocks[:0]
	for _, b := range blocks {
		key := strings.ToLower(b.original + "\n" + b.final)
		at, repeated := seen[key]
		if !repeated {
			seen[key] = len(out)
			out = append(out, b)
			continue
		}
		if actionOf(b.action) == ActionFailed && actionOf(out[at].action) != ActionFailed {
			out[at] = b
		}
	}
	return out
}

// typedAddress reads "rfc822; a@example.com" (RFC 3464, 2.3.1 and 2.3.2), and
// the escaped form of RFC 6533 ("utf-8; \x{7528}@example.jp").
func typedAddress(value string) string {
	kind, _, _ := strings.Cut(value, ";")
	s := cleanAddress(strings.TrimPrefix(oneLine(afterType(value)), "rfc822;")) // QUIRK: "rfc822; rfc822;a@b"
	if equalFold(strings.TrimSpace(kind), "utf-8") {
		s = unescapeUTF8(s)
	}
	return s
}

func afterType(value string) string {
	if _, rest, ok := strings.Cut(value, ";"); ok {
		return strings.TrimSpace(rest)
	}
	return value
}

// unescapeUTF8 decodes \x{7528} (RFC 6533, 3).
func unescapeUTF8(s string) string {
	if !strings.Contains(s, `\x{`) {
		return s
	}
	var b strings.Builder
	for s != "" {
		head, tail, found := strings.Cut(s, `\x{`)
		b.WriteString(head)
		if !found {
			break
		}
		hex, rest, closed := strings.Cut(tail, "}")
		code, err := strconv.ParseUint(hex, 16, 21)
		if !closed || err != nil {
			b.WriteString(`\x{`)
			s = tail
			continue
		}
		b.WriteRune(rune(code))
		s = rest
	}
	return b.String()
}

// oneLine undoes folding.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// actionOf reads an Action as servers write it ("failed (Bad destination
// mailbox address)", "failure", "error", "expired", "deliverable").
func actionOf(s string) Action {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, a := range []struct {
		prefix string
		action Action
	}{
		{"fail", ActionFailed}, {"err", ActionFailed}, {"expire", ActionFailed}, {"undeliver", ActionFailed}, {"reject", ActionFailed}, {"bounce", ActionFailed},
		{"delay", ActionDelayed}, {"defer", ActionDelayed}, {"retr", ActionDelayed}, {"transient", ActionDelayed},
		{"deliver", ActionDelivered}, {"success", ActionDelivered}, {"relay", ActionRelayed}, {"expand", ActionExpanded},
	} {
		if strings.HasPrefix(s, a.prefix) {
			return a.action
		}
	}
	return ""
}

// finishStatus turns blocks into recipients, with help from the text where the
// fields say little, and sets the kind: bounce if any failed.
func (r *reader) finishStatus(n *notice, blocks []statusBlock) {
	kind := Delivered
	for i, b := range blocks {
		if i == maxExplained {
			n.found = nil // from here on the fields have to do
		}
		rcpt := r.statusRecipient(n, b, len(blocks) == 1)
		switch {
		case rcpt.Action == ActionFailed:
			kind = Bounce
		case rcpt.Action == ActionDelayed && kind == Delivered:
			kind = Delayed
		}
		r.add(rcpt)
	}
	r.report.Kind = kind
}

func (r *reader) statusRecipient(n *notice, b statusBlock, only bool) Recipient {
	rcpt := Recipient{Address: b.final, Action: actionOf(b.action), Diagnostic: bound(oneLine(b.diagnostic), maxDiagnostic)}
	// What was sent to is the original; the final one may be a mailbox's
	// internal name (RFC 3464, 2.3.1).
	if b.original != "" && strings.Contains(b.original, "@") || b.final == "" {
		rcpt.Address = b.original
	}
	m := n.mentionOf(b.final, b.original, only)
	if !strings.Contains(rcpt.Address, "@") || strings.HasPrefix(rcpt.Address, "@") || strings.HasPrefix(rcpt.Address, "|") {
		r.problem("the recipient of the status part is no address")
		if other := r.namedOtherwise(n, m, only); other != "" {
			rcpt.Address = other
		}
	}
	if !equalFold(rcpt.Address, b.final) {
		rcpt.Final = b.final
	}
	if rcpt.Action == "" {
		rcpt.Action = assumedAction(n, b.status)
	}
	e := evidence{status: statusOf(b.status), diagnostic: b.diagnostic, comment: commentOf(b.status), action: rcpt.Action, recipient: rcpt.Address, sender: r.sender(n)}
	if m != nil {
		e.near, e.wide = m.near, m.wide
	} else if only {
		e.wide = n.lines
	}
	r.settle(&rcpt, e)
	return rcpt
}

// namedOtherwise finds the recipient where the status part has a local name or
// a program.
func (r *reader) namedOtherwise(n *notice, m *mention, only bool) string {
	if m != nil && strings.Contains(m.address, "@") {
		return m.address
	}
	if only {
		if failed := failedRecipients(n.header); len(failed) == 1 {
			return failed[0]
		}
		if named := r.recipientsOf(n); len(named) == 1 {
			return named[0].address
		}
	}
	return ""
}

// assumedAction is for blocks without an Action, which are required to have
// one (RFC 3464, 2.3.3).
func assumedAction(n *notice, status string) Action {
	switch s := statusOf(status); {
	case strings.HasPrefix(s, "2."):
		return ActionDelivered
	case isDelay(n):
		return ActionDelayed
	}
	return ActionFailed
}

// statusOf is the code at the start of a Status, or "". It may have a comment
// ("4.4.0 (other or undefined network or routing status)"); some servers write
// a reply there instead.
func statusOf(s string) string {
	s = strings.TrimLeft(s, " (#")
	if code, end := statusAt(s, 0); end > 0 {
		return code
	}
	return ""
}

// commentOf is what follows the code.
func commentOf(s string) string {
	_, end := statusAt(s, 0)
	return strings.Trim(s[end:], " ()")
}

// add appends a recipient, each address once.
func (r *reader) add(rcpt Recipient) {
	if len(r.report.Recipients) >= maxRecipients {
		r.problem("more recipients than are reported")
		return
	}
	for i := range r.report.Recipients {
		if equalFold(r.report.Recipients[i].Address, rcpt.Address) && r.report.Recipients[i].Action == rcpt.Action {
			return
		}
	}
	r.report.Recipients = append(r.report.Recipients, rcpt)
}

// settle fills codes, category and type from the evidence.
func (r *reader) settle(rcpt *Recipient, e evidence) {
	rcpt.EnhancedStatus = e.enhancedStatus()
	rcpt.SMTPCode = e.smtpCode()
	if rcpt.Action != ActionFailed && rcpt.Action != ActionDelayed {
		return // nothing to explain
	}
	e.code, e.status = rcpt.SMTPCode, rcpt.EnhancedStatus
	rcpt.Category = e.category()
	rcpt.BounceType = bounceType(rcpt.Category, rcpt.Action, rcpt.SMTPCode)
	if rcpt.Diagnostic == "" {
		rcpt.Diagnostic = e.text()
	}
}

// bounceType: hard means to stop sending to this address. Only four categories
// are about the address, and a passing reply (4xx) is never final about it.
func bounceType(c event.Category, action Action, code int) event.BounceType {
	switch {
	case c == event.NoReason || c == "":
		return event.Undetermined
	case isHard(c) && action == ActionFailed && code/100 != 4:
		return event.Hard
	}
	return event.Soft
}

// isHard tells the categories that are about the address.
func isHard(c event.Category) bool {
	return c == event.InvalidRecipient || c == event.InvalidDomain || c == event.InactiveMailbox || c == event.Suppressed
}

func bound(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}
