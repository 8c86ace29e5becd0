package bounce

import (
	"strings"
)

// The general reading of notices in prose. Whatever server wrote it and in
// whatever language, a notice puts the recipient's address in one of a few
// places, and the reason near it.

// The places an address can stand in, the surest first.
const (
	tierLead    = iota + 1 // begins a line: "<a@b>:", "a@b (reason)", "-- a@b"
	tierIntro              // in the paragraph after "the following recipients:"
	tierKey                // "Recipient: a@b", "Unknown user: a@b"
	tierReply              // "550 <a@b>... User unknown", ">>> RCPT TO:<a@b>"
	tierPhrase             // "your message to a@b"
	tierMention            // anywhere
	tierNever              // the notice's own sender and addressee, staff
)

// mention is an address in a notice's text.
type mention struct {
	address string
	alias   string // "(expanded from: <x>)": what was sent to
	line    int
	tier    int
	rest    string // what follows it on its line
	near    []line // the reason, where it can be told
	wide    []line // all that may belong to it
}

// mentions returns the addresses of the notice's own text.
func (n *notice) mentions() []mention {
	if !n.counted {
		n.found, n.counted = n.findMentions(), true
	}
	return n.found
}

func (n *notice) findMentions() []mention {
	own := ownAddresses(n)
	var found []mention
	intro := introduced(n.lines)
	for i := range n.lines {
		if n.lines[i].blank() || len(found) > 2*maxRecipients {
			continue
		}
		found = n.lineMentions(found, i, intro[i], own)
	}
	n.surround(found)
	return found
}

// ownAddresses are not recipients: whom the notice is from and to, and who
// sent the message that came back.
func ownAddresses(n *notice) map[string]bool {
	own := map[string]bool{}
	for _, name := range []string{"from", "reply-to", "to", "cc", "delivered-to", "x-original-to", "envelope-to", "sender"} {
		for _, a := range findAddresses(bound(n.header.get(name), 4000)) {
			own[strings.ToLower(a.address)] = true
		}
	}
	for _, name := range []string{"from", "sender", "return-path", "reply-to", "errors-to"} {
		if a := firstAddress(n.returned.get(name)); a != "" {
			own[strings.ToLower(a)] = true
		}
	}
	return own
}

// lineMentions classifies the addresses of one line.
func (n *notice) lineMentions(found []mention, i int, introduced bool, own map[string]bool) []mention {
	s := n.lines[i].s
	addresses := findAddresses(s)
	if len(addresses) == 0 {
		return found
	}
	lower := strings.ToLower(s)
	if isAlias(lower) {
		if last := len(found) - 1; last >= 0 && found[last].alias == "" {
			found[last].alias = addresses[0].address
		}
		return found
	}
	if startsWithAny(strings.TrimLeft(lower, "-*> <("), senderKeys) {
		return found
	}
	lead, contact := leads(n.lines, i, addresses[0]), contacts(lower)
	for k, a := range addresses {
		m := mention{address: a.address, line: i, rest: strings.TrimLeft(s[a.end:], " \t")}
		m.rest = afterMailto(m.rest, a.address)
		m.alias = aliasIn(s[a.end:])
		switch head := lower[:a.start]; {
		case k > 0 && strings.Contains(lower[addresses[k-1].end:a.start], "mailto:"):
			continue
		case k > 0 && m.alias == "" && isAlias(strings.TrimLeft(lower[addresses[k-1].end:a.start], " ")):
			continue
		case lead && (k == 0 || listed(s[addresses[k-1].end:a.start])):
			m.tier = tierLead
		case fromWord(head):
			continue
		case strings.HasSuffix(strings.TrimRight(head, " :<\"'"), "rcpt to"):
			m.tier = tierReply
		case isReplyAt(s, 0):
			m.tier = tierReply
		case recipientKey(head):
			m.tier = tierKey
		case introduced:
			m.tier = tierIntro
		case strings.TrimRight(s[a.end:], ".> ") == "" && strings.HasSuffix(strings.TrimRight(head, " <"), ":") && !contact && (categoryOfText(head) != "" || containsAny(head, openings)):
			m.tier = tierKey // "Unknown user: a@b"
		case toWord(head):
			m.tier = tierPhrase
		default:
			m.tier = tierMention
		}
		if k > 0 && m.tier == tierLead && named(s[addresses[k-1].end:a.start], addresses[k-1], a, s) {
			found[len(found)-1] = m // "a@b <c@d>": the first is the display name
			continue
		}
		if own[strings.ToLower(a.address)] || isRole(a.address) || m.tier > tierIntro && contact || m.tier == tierLead && i > 0 && contacts(strings.ToLower(n.lines[i-1].s)) {
			m.tier += tierNever
		}
		found = append(found, m)
	}
	return found
}

// leads tells whether the line begins with that address, apart from bullets
// and brackets, and is not just a wrapped line of prose.
func leads(lines []line, i int, a located) bool {
	s := lines[i].s
	if strings.Trim(s[:a.start], "*•·–->|+# \t\"'[(“「【") != "" {
		return false
	}
	rest := strings.TrimLeft(s[a.end:], " \t\"')]”」】>")
	if i == 0 || lines[i-1].blank() || rest == "" || strings.IndexByte(":([<;-.=", rest[0]) >= 0 || strings.HasPrefix(rest, "on ") || isReplyAt(rest, 0) {
		return true
	}
	before := lines[i-1].s
	return strings.HasSuffix(before, ":") || len(before) < 40 || strings.Contains(before, "@")
}

// named tells a display name that looks like an address from a list.
func named(between string, name, address located, s string) bool {
	return strings.Trim(between, " \t\"'") == "" && s[address.start] == '<' && s[name.start] != '<'
}

// listed: only separators between two addresses of a list.
func listed(between string) bool {
	return strings.Trim(between, " ,;<>\t\"'") == ""
}

// afterMailto drops the repetition that HTML links leave: "a@b<mailto:a@b>".
func afterMailto(rest, address string) string {
	for _, repeated := range []string{"<mailto:" + address + ">", "(mailto:" + address + ")", "<" + address + ">", "(" + address + ")", "[mailto:" + address + "]"} {
		if len(rest) >= len(repeated) && strings.EqualFold(rest[:len(repeated)], repeated) {
			return strings.TrimLeft(rest[len(repeated):], " \t")
		}
	}
	return rest
}

// isAlias tells a line that explains where an address came from.
func isAlias(lower string) bool {
	s := strings.TrimLeft(lower, "( <")
	return strings.HasPrefix(s, "expanded from") || strings.HasPrefix(s, "ultimately generated from") || strings.HasPrefix(s, "generated from") ||
		strings.HasPrefix(s, "generated by") || strings.HasPrefix(s, "forwarded from") || strings.HasPrefix(s, "originally addressed to") || strings.HasPrefix(s, "alias for")
}

// aliasIn reads "(expanded from <x>)" behind an address on the same line.
func aliasIn(rest string) string {
	trimmed := strings.TrimLeft(rest, " \t>")
	if strings.HasPrefix(trimmed, "(") && isAlias(strings.ToLower(trimmed[:min(len(trimmed), 40)])) {
		return firstAddress(bound(trimmed, 400))
	}
	return ""
}

// senderKeys begin lines about the sender of the returned message.
var senderKeys = []string{
	"from:", "from :", "sender:", "sender :", "mail from", "reply-to:", "return-path:", "originator", "envelope-from", "envelope from", "original sender", "sender-mta", "sent by", "a message sent by",
	"von:", "absender", "de:", "de :", "da:", "expéditeur", "remitente", "remetente", "mittente", "от:", "отправитель", "発信者", "送信者", "差出人", "发件人", "寄件人", "보낸 사람", "nadawca", "van:", "afzender", "errors-to",
	">>> mail from", "received:", "cc:", "bcc:",
}

// recipientKeys end the words before a recipient's address.
var recipientKeys = []string{
	"recipient", "recipients", "recipient(s)", "recipient address", "recipient e-mail", "original recipient", "original-recipient", "final-recipient", "final recipient", "failed recipient", "failed recipient(s)", "intended recipient", "rcpt to", "rcpt", "to address", "target mail address", "target address",
	"error-for", "address", "addressed to", "addresses", "original address", "e-mail address", "email address", "mail address", "failed address", "undeliverable address", "undeliverable to", "destination", "destination address", "mailbox", "user", "userid", "account", "delivered to", "deliver message to", "could not be delivered to", "x-failed-recipients", "delivery userid",
	"smtp", "empfänger", "empfaenger", "empfängeradresse", "destinatario", "destinatarios", "destinatário", "destinatários", "destinataire", "destinataires", "destinatari", "ontvanger", "odbiorca", "adresat", "mottagare", "mottaker", "modtager", "vastaanottaja", "alıcı",
	"получатель", "получателю", "адресат", "адрес", "宛先", "宛先アドレス", "送信先", "受信者", "メールアドレス", "受取人", "邮件地址", "邮箱", "收件人", "收件者", "收件人地址", "收件地址", "邮箱地址", "받는 사람", "수신자",
}

// recipientKey tells "Recipient: ", "Address = <", "Recipient: [SMTP:".
func recipientKey(head string) bool {
	head = strings.TrimRight(head, " <\"'([")
	if len(head) < 2 {
		return false
	}
	trimmed := strings.TrimRight(head, ":=：】] ")
	if trimmed == head || len(trimmed) > 80 {
		return false
	}
	for _, key := range recipientKeys {
		if strings.HasSuffix(trimmed, key) && (len(trimmed) == len(key) || !isLetter(trimmed[len(trimmed)-len(key)-1]) || key[0] >= 0x80) {
			return true
		}
	}
	return false
}

// toWords precede the recipient in a sentence.
var toWords = []string{
	"to", "recipient", "recipients", "user", "users", "address", "addressed", "addressed,", "mailbox", "account", "for", "group", "recipient(s)", "alias", "userid",
	"à", "an", "a", "para", "al", "per", "usuario", "usuário", "utilisateur", "destinatario", "destinatário", "destinataire", "list", "adresse", "empfänger", "benutzer", "postfach", "utente", "indirizzo", "dirección", "endereço", "naar", "aan", "till", "til", "do", "na adres", "adresu",
	"получателю", "адресу", "адрес", "пользователь", "пользователю", "адресата", "宛先", "に",
}

func toWord(head string) bool {
	head = strings.TrimRight(head, " :<\"'([`「『“‘（")
	for _, key := range recipientKeys {
		if key[0] >= 0xe0 && strings.HasSuffix(head, key) {
			return true // languages without spaces do without colons too
		}
	}
	for _, w := range toWords {
		if strings.HasSuffix(head, w) && (len(head) == len(w) || strings.HasSuffix(head[:len(head)-len(w)], " ") || w[0] >= 0xe0) {
			return true
		}
	}
	return false
}

// fromWord tells "not accepting mail from a@b".
func fromWord(head string) bool {
	head = strings.TrimRight(head, " :<\"'([")
	for _, w := range []string{" from", " sender", " by", "mail from", " von", "sent by", " from address", "from:", " sender address"} {
		if strings.HasSuffix(head, w) {
			return true
		}
	}
	return head == "from" || head == "sender"
}

// contactWords are in lines that name whom to ask.
var contactWords = []string{
	"contact", "assistance", "for help", "please send", "send mail to", "send email to", "send e-mail to", "questions", "write to", "e-mail us", "email us", "mail to us", "please reply", "reply to", "unsubscribe", "complain", "support:", "further information", "more information",
	"kontakt", "wenden sie sich", "contactez", "contacter", "póngase en contacto", "contatto", "contattare", "контакт", "обратитесь", "обращайтесь", "問い合わせ", "お問合せ", "連絡", "联系",
}

func contacts(lower string) bool { return containsAny(lower, contactWords) }

// introWords announce a list of recipients.
var introWords = []string{
	"following recipient", "following address", "following user", "following e-mail", "following email", "following mail address", "following mailbox", "following destination", "following person", "following list of recipients", "following list", "the following", "recipient(s)", "failed recipients", "failed addresses", "these recipients", "these addresses", "recipients or groups", "recipients or distribution",
	"not delivered to", "be delivered to", "deliver your message to", "not accepting mail from", "recipients were affected", "address failed", "addresses failed", "address(es)", "recipients:", "addresses:", "delivery errors", "delivery problems", "fatal errors", "destinatarios", "destinatario", "destinatários", "destinataires", "destinataire", "destinatari", "siguientes", "seguintes", "suivant", "seguenti", "seguente", "folgende",
	"empfänger", "empfaenger", "ontvanger", "odbiorc", "adresat", "mottagare", "mottaker", "modtager", "vastaanottaj", "alıcı", "получател", "адресат", "следующ", "одержувач", "宛先", "受信者", "次のあて先", "送信先", "以下の", "以下的", "下列", "收件人", "收件者", "받는 사람", "수신자", "다음",
}

// introduced marks the lines of the paragraph that follows an announcement.
func introduced(lines []line) []bool {
	marked := make([]bool, len(lines))
	for i, l := range lines {
		if l.blank() || marked[i] {
			continue
		}
		lower := strings.ToLower(l.s)
		if !containsAny(lower, introWords) || !announces(lower, lines, i) {
			continue
		}
		for k := nextParagraph(lines, i); k < len(lines) && !lines[k].blank(); k++ {
			marked[k] = true
		}
	}
	return marked
}

// announces: it ends with a colon or a dash, or its paragraph ends there.
func announces(lower string, lines []line, i int) bool {
	end := strings.TrimRight(lower, " ")
	if strings.HasSuffix(end, ":") || strings.HasSuffix(end, "-") || strings.HasSuffix(end, "：") || strings.HasSuffix(end, "。") {
		return true
	}
	return i+1 >= len(lines) || lines[i+1].blank() || strings.HasSuffix(lines[i+1].s, ":")
}

func nextParagraph(lines []line, i int) int {
	if i+1 < len(lines) && !lines[i+1].blank() {
		return i + 1 // it follows at once
	}
	for i++; i < len(lines) && lines[i].blank(); i++ {
	}
	return i
}

// surround finds the text that belongs to each mention.
func (n *notice) surround(found []mention) {
	for k := len(found) - 1; k >= 0; k-- {
		m := &found[k]
		switch m.tier % tierNever {
		case tierLead, tierIntro, tierKey:
			n.following(found, k)
		case tierReply:
			if isReplyAt(n.lines[m.line].s, 0) {
				n.preceding(found, k)
			} else {
				n.following(found, k)
			}
		default:
			from, to := n.paragraph(m.line)
			m.near, m.wide = n.lines[from:to], n.lines
		}
	}
}

// following: the rest of the line and the lines after it, up to an empty line
// (near) or the next recipient (wide). Recipients listed without anything
// between them share what follows the last one.
func (n *notice) following(found []mention, k int) {
	m := &found[k]
	stop := len(n.lines)
	for j := k + 1; j < len(found); j++ {
		if found[j].line > m.line && found[j].tier%tierNever == m.tier%tierNever && found[j].address != m.address {
			stop = found[j].line
			break
		}
	}
	first := line{raw: m.rest, s: strings.TrimLeft(m.rest, ":;, \t")}
	body := n.lines[min(m.line+1, len(n.lines)):stop]
	body = body[:min(len(body), maxReason)]
	end := 0
	for end < len(body) && !body[end].blank() {
		end++
	}
	m.near = prepend(first, body[:end])
	m.wide = prepend(first, body)
	if join(m.wide) == "" {
		if stop < len(n.lines) && k+1 < len(found) {
			m.near, m.wide = found[k+1].near, found[k+1].wide
		} else {
			m.wide = n.lines[:m.line] // the reason came first (Notes, au)
		}
	} else if m.tier%tierNever == tierIntro || m.tier%tierNever == tierKey {
		m.wide = append(m.wide[:len(m.wide):len(m.wide)], n.lines[max(0, m.line-3):m.line]...)
	}
}

// preceding: the lines of an SMTP transcript that led to this reply.
func (n *notice) preceding(found []mention, k int) {
	m := &found[k]
	from := 0
	for j := k - 1; j >= 0; j-- {
		if found[j].line < m.line && found[j].tier%tierNever == tierReply && isReplyAt(n.lines[found[j].line].s, 0) {
			from = found[j].line + 1
			break
		}
	}
	if from == 0 {
		from, _ = n.paragraph(m.line)
	}
	m.near = n.lines[from : m.line+1]
	m.wide = n.lines
}

// paragraph returns the bounds of the lines around i without an empty one.
func (n *notice) paragraph(i int) (from, to int) {
	from, to = i, i
	for from > 0 && !n.lines[from-1].blank() {
		from--
	}
	for to < len(n.lines) && !n.lines[to].blank() {
		to++
	}
	return from, to
}

func prepend(first line, rest []line) []line {
	return append([]line{first}, rest...)
}

// recipientsOf chooses the recipients among the mentions.
func (r *reader) recipientsOf(n *notice) []mention {
	found := n.mentions()
	failed := failedRecipients(n.header)
	best := tierNever
	for _, m := range found {
		best = min(best, m.tier)
	}
	var chosen []mention
	for _, m := range found {
		if m.tier == best && best < tierMention && !hasMention(chosen, m.address) {
			chosen = append(chosen, m)
		}
	}
	switch {
	case len(failed) == 0:
		return r.likely(n, chosen, found)
	case best <= tierReply:
		return agreed(chosen, failed)
	}
	return fromHeader(n, failed, found)
}

// agreed keeps those that X-Failed-Recipients lists too, if any.
func agreed(chosen []mention, failed []string) []mention {
	var both []mention
	for _, m := range chosen {
		if containsFold(failed, m.address) {
			both = append(both, m)
		}
	}
	if len(both) > 0 {
		return both
	}
	return chosen
}

// fromHeader makes mentions of X-Failed-Recipients.
func fromHeader(n *notice, failed []string, found []mention) []mention {
	var chosen []mention
	for _, address := range failed {
		m := mention{address: address, wide: n.lines}
		for _, f := range found {
			if equalFold(f.address, address) {
				m.near = f.near
				break
			}
		}
		chosen = append(chosen, m)
	}
	return chosen
}

// failedRecipients reads X-Failed-Recipients (Exim and its descendants, Gmail).
func failedRecipients(h header) []string {
	var failed []string
	for _, f := range h {
		if !equalFold(f.Name, "x-failed-recipients") {
			continue
		}
		for _, a := range findAddresses(decodeWords(f.Value)) {
			if !containsFold(failed, a.address) && len(failed) < maxRecipients {
				failed = append(failed, a.address)
			}
		}
	}
	return failed
}

// likely settles the unsure cases, in the order of bounces' habits: an address
// that the returned message was for, a bare name, the only one mentioned,
// VERP, the addressee himself, the returned message's To.
func (r *reader) likely(n *notice, chosen, found []mention) []mention {
	sent := returnedTo(n)
	if len(chosen) == 0 || chosen[0].tier >= tierPhrase {
		if bare := n.bareNames(sent); len(bare) > 0 {
			return bare
		}
	}
	if len(chosen) > 1 && chosen[0].tier >= tierPhrase {
		if both := agreed(chosen, sent); len(both) < len(chosen) {
			return both
		}
	}
	if len(chosen) > 0 {
		return chosen
	}
	if only := onlyMention(found, tierMention); only != nil {
		return []mention{*only}
	}
	for _, to := range r.report.To {
		if address := fromVERP(to); address != "" {
			r.problem("the recipient is from the return path only")
			return []mention{{address: address, wide: n.lines}}
		}
	}
	for tier := tierLead; tier <= tierReply; tier++ {
		if only := onlyMention(found, tier+tierNever); only != nil && !isRole(only.address) {
			return []mention{*only}
		}
	}
	if len(sent) == 1 && !n.returned.has("list-id") && !n.returned.has("list-post") && !equalFold(n.returned.get("precedence"), "list") {
		r.problem("the recipient is from the returned message only")
		return []mention{{address: sent[0], wide: n.lines}}
	}
	return nil
}

func onlyMention(found []mention, tier int) *mention {
	var only *mention
	for k := range found {
		if found[k].tier != tier {
			continue
		}
		if only != nil && !equalFold(only.address, found[k].address) {
			return nil
		}
		if only == nil {
			only = &found[k]
		}
	}
	return only
}

func returnedTo(n *notice) []string {
	var to []string
	for _, a := range findAddresses(bound(n.returned.get("to"), 4000)) {
		to = append(to, a.address)
	}
	return to
}

func hasMention(list []mention, address string) bool {
	for _, m := range list {
		if equalFold(m.address, address) {
			return true
		}
	}
	return false
}

// bareNames reads recipients written without their domain (AOL's screen names,
// GroupWise, directories). The domain is the reporting server's.
func (n *notice) bareNames(sent []string) []mention {
	domain := registrable(domainOf(firstAddress(n.header.get("from"))))
	if domain == "" || !isDaemon(n.header.text("from")) {
		return nil
	}
	intro := introduced(n.lines)
	var names []mention
	for i, l := range n.lines {
		name, rest, ok := bareName(l.s)
		if !intro[i] || !ok || len(names) >= maxRecipients {
			continue
		}
		address := name + "@" + domain
		for _, s := range sent {
			if localOf(s) == strings.ToLower(name) {
				address = s
			}
		}
		names = append(names, mention{address: address, line: i, tier: tierLead, rest: rest})
	}
	n.surround(names)
	return names
}

// bareName is a name alone on its line, or set off from a reason.
func bareName(s string) (name, rest string, ok bool) {
	end := 0
	for end < len(s) && (isLetter(s[end]) || isDigit(s[end]) || strings.IndexByte("._-", s[end]) >= 0) {
		end++
	}
	name, rest = s[:end], s[end:]
	if end < 2 || end > 64 || strings.HasSuffix(name, ".") || strings.HasSuffix(name, "-") {
		return "", "", false
	}
	trimmed := strings.TrimLeft(rest, " \t")
	switch {
	case trimmed == "":
		return name, "", true
	case strings.HasPrefix(trimmed, "("), len(rest)-len(trimmed) >= 2:
		return name, trimmed, true
	}
	return "", "", false
}

// mentionOf finds what the text says about a recipient of the status part.
func (n *notice) mentionOf(final, original string, only bool) *mention {
	found := n.mentions()
	var best *mention
	for k := range found {
		m := &found[k]
		if !equalFold(m.address, final) && !equalFold(m.address, original) && (m.alias == "" || !equalFold(m.alias, original)) {
			continue
		}
		if best == nil || m.tier%tierNever < best.tier%tierNever {
			best = m
		}
	}
	if best == nil && only {
		for k := range found {
			if found[k].tier == tierLead {
				return &found[k]
			}
		}
	}
	return best
}

// readText reports the recipients of a notice in prose.
func (r *reader) readText(n *notice, action Action) {
	chosen := r.recipientsOf(n)
	if len(chosen) == 0 {
		r.problem("no recipient found")
	}
	for i, m := range chosen {
		if i >= maxExplained {
			m.wide = nil
		}
		rcpt := Recipient{Address: m.address, Action: action}
		if m.alias != "" && strings.Contains(strings.ToLower(join(n.lines[min(m.line, len(n.lines)):min(m.line+2, len(n.lines))])), "expanded from") {
			rcpt.Address, rcpt.Final = m.alias, m.address
		}
		e := evidence{near: m.near, wide: m.wide, action: action, recipient: rcpt.Address, sender: r.sender(n)}
		if len(chosen) == 1 {
			e.all, e.subject = n.lines, n.header.text("subject")
		}
		r.settle(&rcpt, e)
		r.add(rcpt)
	}
}

// sender is the envelope sender's address of the returned message, as well as
// can be told: the notice was sent to it.
func (r *reader) sender(n *notice) string {
	if r.report.ReturnPath != "" {
		return r.report.ReturnPath
	}
	if len(r.report.To) > 0 {
		return r.report.To[0]
	}
	return firstAddress(n.returned.get("from"))
}
