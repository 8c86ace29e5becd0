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
	first := line{raw: m.rest, s: strings.TrimLeft(m.rest, ":;,.])）」】 \t")}
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
