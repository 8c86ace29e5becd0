package bounce

import (
	"strings"
)

// signs are what speaks for a mail being a notice of a mail server. None of
// them looks into the returned message.
type signs struct {
	daemon     bool // a mail server's name or address in From
	nullSender bool // Return-Path: <> (RFC 5321, 4.5.5), or a daemon's
	subject    bool // a Subject that notices have
	opening    bool // a phrase that notices have
	failed     bool // X-Failed-Recipients (Exim, Gmail)
	recipient  bool // an address where notices put the recipient's
	reason     bool // a reply code or a known reason
	returned   bool // a returned message
	list       bool // a mailing list's header
	human      bool // written or forwarded by a person
	machine    bool // a program's mail: marked as such, or from a list's address
	named      bool // an address, also in a sentence
}

// decide finds out what kind of mail it is and reads it accordingly. The order
// matters: machine-readable forms first; and bounces before automatic replies,
// because many servers mark bounces as auto-replied.
func (r *reader) decide(n *notice) {
	r.report.Kind = NotABounce
	r.report.To = sentTo(n.header)
	switch {
	case n.feedback != "":
		r.feedback(n)
	case r.otherReport(n):
	case r.snsNotification(n):
	case r.providerComplaint(n):
	case r.wrapped(n):
	case r.statusReport(n):
	case r.textNotice(n):
	case isAutoReply(n):
		r.autoReply(n)
	}
}

// otherReport tells reports that are no notices: TLS reports (RFC 8460), and
// receipts (RFC 8098), except those by which servers that cannot send a DSN
// reject (Dovecot, Sieve; RFC 5429, 2.1.1).
func (r *reader) otherReport(n *notice) bool {
	kind := strings.ToLower(n.root.params["report-type"])
	switch {
	case n.other || kind == "tlsrpt":
		return true
	case n.receipt == "" && kind != "disposition-notification":
		return false
	}
	text := strings.ToLower(n.text)
	if containsAny(text, []string{"automatically rejected", "was rejected", "been rejected", "refused"}) && n.status == "" {
		r.report.Format = FormatText
		r.report.Kind = Bounce
		r.keepOriginal(n)
		r.readText(n, ActionFailed)
		return true
	}
	return n.status == ""
}

// wrapped reads a notice that a gateway's own notice brings, without saying
// anything itself (InterScan, Trend Micro). A notice within a person's mail is
// not looked at.
func (r *reader) wrapped(n *notice) bool {
	if n.status != "" || len(n.inner) == 0 || r.wraps >= 2 || !isDaemon(n.returned.text("from")) || !(isDaemon(n.header.text("from")) || isNullSender(n.header)) {
		return false
	}
	for _, m := range n.mentions() {
		if m.tier <= tierPhrase {
			return false
		}
	}
	within := &reader{wraps: r.wraps + 1}
	within.decide(within.collect(within.walk(n.inner)))
	if within.report.Kind == NotABounce || len(within.report.Recipients) == 0 {
		return false
	}
	within.report.To = append(r.report.To, within.report.To...)
	r.report = within.report
	r.problem("a notice within a notice")
	return true
}

// statusReport reads a mail with delivery-status fields. The fields alone make
// it a notice, except in mails that people send.
func (r *reader) statusReport(n *notice) bool {
	fields := n.status
	if fields == "" {
		// QUIRK: Amazon WorkMail and others put the fields into the text.
		first := embeddedStatus(n.lines)
		if first < 0 {
			return false
		}
		if s := r.signs(n); !(s.daemon || s.nullSender || s.failed) && (s.human || s.list || !s.subject) {
			return false
		}
		fields, n.lines, n.counted = joinRaw(n.lines[first:]), n.lines[:first], false
	}
	recipients := r.statusRecipients(fields)
	if len(recipients) == 0 {
		return false
	}
	r.report.Format = FormatStatus
	r.keepOriginal(n)
	r.finishStatus(n, recipients)
	return true
}

// textNotice reads a notice in prose.
func (r *reader) textNotice(n *notice) bool {
	s := r.signs(n)
	if !s.notice(n) {
		return false
	}
	if !s.daemon && !s.failed && isAutoReply(n) {
		return false // its words about full mailboxes are a person's
	}
	r.report.Format = FormatText
	action := ActionFailed
	if isDelay(n) {
		action = ActionDelayed
	}
	r.report.Kind = Bounce
	if action == ActionDelayed {
		r.report.Kind = Delayed
	}
	r.keepOriginal(n)
	r.readText(n, action)
	return true
}

// notice weighs the signs.
func (s signs) notice(n *notice) bool {
	if s.failed {
		return !s.human
	}
	if n.status != "" && (s.daemon || s.nullSender || s.subject) {
		return true // a status part without a recipient
	}
	if s.human || otherwise(n, s.daemon || s.nullSender) {
		return false
	}
	about := s.subject || s.opening // it says that mail was not delivered
	weak := count(s.subject, s.opening, s.recipient && s.reason, s.returned)
	switch {
	case s.daemon && s.nullSender && about, s.daemon && s.recipient && (s.nullSender || s.returned):
		return true // in any language
	case s.list && !s.daemon:
		return weak >= 3 && s.returned
	case s.daemon || s.nullSender:
		return about && weak >= 1 || s.recipient && s.reason && weak >= 1
	}
	return weak >= 2 && about && (s.recipient || n.attached || s.machine && s.named)
}

// lowered prepares a text for the word lists.
func lowered(s string) string { return fold(strings.ReplaceAll(strings.ToLower(s), "’", "'")) }

func count(signs ...bool) int {
	n := 0
	for _, s := range signs {
		if s {
			n++
		}
	}
	return n
}

func (r *reader) signs(n *notice) signs {
	from := n.header.text("from")
	subject := lowered(n.header.text("subject"))
	s := signs{
		daemon:     isDaemon(from),
		nullSender: isNullSender(n.header),
		subject:    containsAny(subject, noticeSubjects) || aboutAddress(subject),
		opening:    opens(n.lines),
		failed:     n.header.has("x-failed-recipients"),
		returned:   n.attached || n.cut,
		list:       n.header.has("list-id") || n.header.has("list-unsubscribe") || equalFold(n.header.get("precedence"), "list"),
	}
	if !s.daemon && !s.failed {
		s.human = byPerson(n, subject)
	}
	s.machine = byMachine(n.header)
	looked := 0
	for _, m := range n.mentions() {
		s.named = s.named || m.tier <= tierPhrase
		if m.tier <= tierReply {
			s.recipient = true
			if looked++; !s.reason && looked <= 20 {
				own := join(m.near)
				s.reason = smtpCode(own) > 0 || enhancedStatus(own) != "" || categoryOfText(own) != ""
			}
		}
	}
	return s
}

// aboutAddress tells a Subject such as "Delivery to a@b failed".
func aboutAddress(subject string) bool {
	return len(findAddresses(bound(subject, 400))) > 0 && containsAny(subject, []string{"fail", "reject", "unknown", "error", "could not", "cannot", "returned", "bounce", "not deliver", "invalid"})
}

// isDaemon tells the sender of notices: by the local part or by the name.
func isDaemon(from string) bool {
	lower := strings.ToLower(from)
	if strings.TrimSpace(lower) == "" || strings.Contains(lower, "<>") {
		return strings.Contains(lower, "<>")
	}
	address := strings.ToLower(firstAddress(from))
	local := localOf(address)
	name := lower
	if local == "" {
		local = strings.Trim(lower, " <>\"")
	} else {
		name = strings.Replace(lower, address, "", 1)
	}
	for _, d := range daemonLocals {
		if strings.HasPrefix(local, d) {
			return true
		}
	}
	return containsAny(name, daemonNames)
}

// isNullSender looks at the envelope sender as the last server wrote it down.
// Daemons' addresses stand for it where a server or list put its own.
func isNullSender(h header) bool {
	for _, f := range h {
		if !equalFold(f.Name, "return-path") {
			continue
		}
		value := strings.ToLower(f.Value)
		if strings.Trim(value, "<> ") == "" || strings.Contains(value, "mailer-daemon") {
			return true
		}
	}
	return false
}

// byPerson tells replies and forwards of people, who may well quote a bounce.
func byPerson(n *notice, subject string) bool {
	for _, prefix := range []string{"fw:", "fwd:", "wg:", "tr:", "rv:", "enc:", "i:", "[fwd:", "転送:", "转发:", "пересл:", "doorst:", "vs:"} {
		if strings.HasPrefix(subject, prefix) && !isNullSender(n.header) {
			return true
		}
	}
	if isNullSender(n.header) {
		return false
	}
	if n.header.has("in-reply-to") && (strings.HasPrefix(subject, "re:") || strings.HasPrefix(subject, "aw:") || strings.HasPrefix(subject, "sv:")) {
		return true
	}
	for i, l := range n.lines {
		lower := strings.ToLower(l.s)
		if i < 60 && containsAny(lower, []string{"forwarded message", "begin forwarded", "-----original message-----", "weitergeleitete nachricht", "message transféré", "mensaje reenviado"}) {
			return true
		}
	}
	return false
}

// byMachine tells mails of programs, by their marks (RFC 3834) or by the
// addresses that list servers write under.
func byMachine(h header) bool {
	from := localOf(firstAddress(h.get("from")))
	submitted := strings.ToLower(h.get("auto-submitted"))
	precedence := strings.ToLower(h.get("precedence"))
	return submitted != "" && submitted != "no" || h.has("x-mlserver") || precedence == "bulk" || precedence == "junk" ||
		isRole(from) || strings.HasSuffix(from, "-admin") || startsWithAny(from, []string{"noreply", "no-reply", "no_reply", "donotreply", "do-not-reply"})
}

// otherwise tells notices about other things, which servers send in the same
// manner. Of senders that are no mail server's the Subject tells more.
func otherwise(n *notice, server bool) bool {
	subject := lowered(n.header.text("subject"))
	if aboutElse(subject, otherSubjects) || !server && aboutElse(subject, peopleSubjects) {
		return true
	}
	text := lowered(join(n.lines[:min(len(n.lines), 40)]))
	return containsAny(text, otherTexts)
}

// aboutElse judges a Subject. Notices often quote the Subject of the message
// ("Undeliverable: Welcome to the list"), so a part of it that is a notice's and
// nothing else settles it.
func aboutElse(subject string, others []string) bool {
	other := false
	for segment := range strings.SplitSeq(subject, ":") {
		switch {
		case containsAny(segment, others):
			other = true
		case containsAny(segment, noticeSubjects):
			return false
		}
	}
	return other || containsAny(subject, others)
}

// opens looks for the phrases of notices in the lines before the returned
// message. Phrases may be wrapped.
func opens(lines []line) bool {
	text := lowered(strings.ReplaceAll(join(lines[:min(len(lines), 80)]), "\n", " "))
	return containsAny(text, openings)
}

// isDelay tells a delay from a failure (only where no Action says it).
func isDelay(n *notice) bool {
	if n.delayed == nil {
		delayed := saysDelay(n)
		n.delayed = &delayed
	}
	return *n.delayed
}

func saysDelay(n *notice) bool {
	subject := lowered(n.header.text("subject"))
	text := lowered(strings.ReplaceAll(join(n.lines), "\n", " "))
	if containsAny(text, givingUp) || containsAny(subject, failureSubjects) {
		return false
	}
	return containsAny(text, stillTrying) || containsAny(subject, delaySubjects)
}

// sentTo are the addresses the mail was sent to: what VERP needs.
func sentTo(h header) []string {
	var to []string
	for _, name := range []string{"delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-rcpt-to", "apparently-to", "to"} {
		for _, f := range h {
			if !equalFold(f.Name, name) || len(to) >= 10 {
				continue
			}
			for _, a := range findAddresses(f.Value[:min(len(f.Value), 2000)]) {
				if !containsFold(to, a.address) && len(to) < 10 {
					to = append(to, a.address)
				}
			}
		}
	}
	return to
}

func containsFold(list []string, s string) bool {
	for _, l := range list {
		if equalFold(l, s) {
			return true
		}
	}
	return false
}

func containsAny(s string, any []string) bool {
	for _, a := range any {
		if strings.Contains(s, a) {
			return true
		}
	}
	return false
}
