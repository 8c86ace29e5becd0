package bounce

import (
	"strings"
	"sync"

	"aftersend/event"
)

// evidence is all that is known about one recipient's failure or delay.
type evidence struct {
	status     string // enhanced status code of the Status field
	comment    string // what the Status field says besides
	diagnostic string // Diagnostic-Code, or what stands for it
	near, wide []line // the notice's text about this recipient
	all        []line // the whole of it, when it is about nobody else
	subject    string
	code       int // reply code, once it is known
	action     Action
	recipient  string
	sender     string
}

// enhancedStatus chooses the code to report: the Status field, unless it says
// no more than its class and the reply says more (RFC 3463, 3.1: x.0.0).
func (e *evidence) enhancedStatus() string {
	status := e.status
	if status != "" && !vague(status) {
		return status
	}
	reply := enhancedStatus(withoutType(e.diagnostic))
	if reply == "" && status == "" {
		reply = enhancedStatus(join(e.near))
		if reply == "" {
			reply = markedStatus(join(e.wide))
		}
		if reply == "" {
			reply = markedStatus(join(e.all))
		}
	}
	if reply == "" || status != "" && vague(reply) {
		return status
	}
	return reply
}

func vague(status string) bool { return strings.HasSuffix(status, ".0.0") }

// smtpCode chooses the reply code: of the diagnostic, else of the text.
func (e *evidence) smtpCode() int {
	diagnostic := withoutType(e.diagnostic)
	if e.action == ActionDelivered || e.action == ActionRelayed || e.action == ActionExpanded {
		if len(diagnostic) > 3 && diagnostic[0] == '2' && isDigit(diagnostic[1]) && isDigit(diagnostic[2]) {
			return int(diagnostic[0]-'0')*100 + int(diagnostic[1]-'0')*10 + int(diagnostic[2]-'0')
		}
		return 0
	}
	for _, text := range []string{diagnostic, join(e.near), join(e.wide), join(e.all)} {
		if code := smtpCode(text); code > 0 {
			return code
		}
	}
	return 0
}

// withoutType takes off the diagnostic's type ("smtp; ..."). Exit statuses of
// programs are no replies.
func withoutType(diagnostic string) string {
	kind, rest, ok := strings.Cut(diagnostic, ";")
	if !ok || strings.ContainsAny(strings.TrimSpace(kind), " \n") {
		return diagnostic
	}
	rest = strings.TrimSpace(rest)
	if equalFold(strings.TrimSpace(kind), "x-unix") && len(rest) <= 3 {
		return ""
	}
	return quotedReply(rest)
}

// quotedReply is the other server's answer where a server puts its own words
// before it: "5.1.0 - Unknown address error 550-'5.7.1 ... Access denied'"
// (IronPort, Amazon SES).
func quotedReply(s string) string {
	if at := strings.Index(s, "-'"); at >= 3 && isReplyAt(s, at-3) {
		return s[at-3:]
	}
	return s
}

// category weighs the evidence, the clearest first: what the reply says, a
// specific code, what the notice says around it, a general code, the reply
// code with the command it answered.
func (e *evidence) category() event.Category {
	reply := withoutType(e.diagnostic)
	near, wide, all := join(e.near), join(e.wide), join(e.all)
	if e.status != "" {
		if c, ok := certainCodes[e.status[2:]]; ok {
			return c
		}
	}
	if reply == "" && near == "" {
		near = wide // nothing closer: the notice's explanation is all there is
	}
	for _, text := range []string{reply, firstAnswer(near), near} {
		if c := e.said(text); c != "" {
			return e.staged(c, reply+"\n"+near)
		}
	}
	if c := specificCategory(e.status); c != "" {
		return e.timed(c, wide)
	}
	if c := tellingReplies[e.code]; c != "" {
		return c
	}
	for _, text := range []string{e.comment, firstAnswer(wide), wide, firstAnswer(all), all, e.subject} {
		c := e.said(text)
		if isHard(c) && (e.code > 0 && smtpCode(reply+"\n"+near) > 0) {
			continue // general advice ("check the address") does not explain a reply that says something else
		}
		if c != "" {
			return c
		}
	}
	if c := generalCategory(e.status); c != "" {
		return c
	}
	return e.byReply(reply + "\n" + near + "\n" + wide + "\n" + all)
}

// said is the category of a text, seen with what else is known.
func (e *evidence) said(text string) event.Category {
	if text == "" {
		return ""
	}
	if e.aboutSender(text) {
		return event.SenderRejected
	}
	c := categoryOfText(text)
	if c == event.GaveUp && e.action == ActionDelayed {
		return "" // a delay has not expired; its cause may stand elsewhere
	}
	return c
}

// timed looks for a cause where the code only says that time ran out.
func (e *evidence) timed(c event.Category, wide string) event.Category {
	switch {
	case c == event.GaveUp && e.action == ActionDelayed:
		if said := e.said(wide); said != "" {
			return said
		}
		return event.NoReason
	case c == event.GaveUp:
		if said := e.said(wide); said == event.NetworkError || said == event.DNSFailure || said == event.MailboxFull {
			return said
		}
	}
	return c
}

// aboutSender tells "<domain> does not exist" about the sender's domain.
func (e *evidence) aboutSender(text string) bool {
	domain := domainOf(e.sender)
	if len(domain) < 4 || domain == domainOf(e.recipient) || !strings.Contains(domain, ".") {
		return false
	}
	for rest := strings.ToLower(text); ; {
		_, after, found := strings.Cut(rest, domain)
		if !found {
			return false
		}
		next := after[:min(len(after), 40)]
		if containsAny(next, []string{"does not exist", "doesn't exist", "not found", "cannot be resolved", "unresolvable", "does not resolve"}) && !strings.Contains(next, "@") {
			return true
		}
		rest = after
	}
}

// firstAnswer is the first refusal of an SMTP transcript. Later ones are the
// consequences ("503 Need RCPT").
func firstAnswer(text string) string {
	if !strings.Contains(text, "<<<") && !strings.Contains(text, ">>>") {
		return ""
	}
	for l := range strings.Lines(text) {
		if answer, ok := transcriptAnswer(l); ok && isReplyAt(answer, 0) {
			return answer
		}
	}
	return ""
}

// staged corrects what general words mean by the command that they answered: a
// server that refuses at the greeting refuses the client.
func (e *evidence) staged(c event.Category, text string) event.Category {
	if c == event.Policy && e.code/100 == 5 && stage(text) == event.Blocklisted {
		return event.Blocklisted
	}
	return c
}

// stage is what a refusal (5xx) without a usable text is about, by the command
// it answered: the client, the sender, or the message.
func stage(text string) event.Category {
	lower := strings.ToLower(text)
	switch {
	case containsAny(lower, []string{"after initial connection", "after ehlo", "after helo", "in reply to connect", "reply to ehlo", "reply to helo", "refused to talk to me"}):
		return event.Blocklisted
	case containsAny(lower, []string{"after mail from", "reply to mail from", "sender was rejected", "did not like our mail from"}):
		return event.SenderRejected
	case containsAny(lower, []string{"end of data", "after i sent the message", "final data", "reply to data", "after data"}):
		return event.Policy
	}
	return event.NoReason
}

// byReply goes by the reply code and the command it answered (RFC 5321, 4.2
// and 4.3.2).
func (e *evidence) byReply(text string) event.Category {
	if c := replyCategories[e.code]; c != "" {
		return c
	}
	if e.code/100 == 5 {
		return stage(text)
	}
	return event.NoReason
}

// categoryOfText finds the first rule that a text matches, or "". It looks at
// every word once, whatever the number of rules.
func categoryOfText(text string) event.Category {
	if text == "" {
		return ""
	}
	t := normalText(text)
	index := ruleIndex()
	best := len(rules)
	for i := 0; i+1 < len(t); i++ {
		if i > 0 && alphanumeric(t[i]) && alphanumeric(t[i-1]) {
			continue // patterns begin where words begin
		}
		for _, c := range index[[2]byte{t[i], t[i+1]}] {
			if c.rule >= best {
				break // candidates are in the order of the rules
			}
			if strings.HasPrefix(t[i:], c.pattern[0]) && c.pattern[1:].follows(t[i+len(c.pattern[0]):]) {
				best = c.rule
			}
		}
	}
	if best == len(rules) {
		return ""
	}
	return rules[best].category
}

// candidate is a pattern with the place of its rule.
type candidate struct {
	rule    int
	pattern pattern
}

// ruleIndex finds patterns by their first two bytes.
var ruleIndex = sync.OnceValue(indexRules)

func indexRules() map[[2]byte][]candidate {
	index := map[[2]byte][]candidate{}
	for i, r := range rules {
		for _, p := range r.patterns {
			key := [2]byte{p[0][0], p[0][1]}
			index[key] = append(index[key], candidate{rule: i, pattern: p})
		}
	}
	return index
}

func alphanumeric(c byte) bool { return isLetter(c) || isDigit(c) }

// normalText prepares a text for the rules: lower case, one space between
// words, addresses masked (they contain any word), and without the codes that
// continued replies repeat ("550-5.7.1 ...").
func normalText(text string) string {
	text = strings.ToLower(bound(text, 6000))
	text = fold(quotes.Replace(text))
	var b strings.Builder
	b.Grow(len(text) + 2)
	b.WriteByte(' ')
	for _, word := range strings.Fields(text) {
		if continued(word) {
			continue
		}
		if strings.IndexByte(word, '@') > 0 {
			word = maskAddresses(word)
		}
		b.WriteString(word)
		b.WriteByte(' ')
	}
	return b.String()
}

// quotes unifies quotation marks, and underscores for spaces (Lyris). Postfix puts "Recipient address rejected:"
// before other reasons as well; it is a reason itself only when nothing follows.
var quotes = strings.NewReplacer("_", " ", "’", "'", "\u2018", "'", "\u00a0", " ", "“", `"`, "”", `"`, "recipient address rejected: ", "rejected-rcpt: ")

// fold takes the accents off Latin letters. Notices are often written without.
func fold(lower string) string {
	for i := 0; i < len(lower); i++ {
		if lower[i] >= 0x80 {
			return accents.Replace(lower)
		}
	}
	return lower
}

var accents = strings.NewReplacer("à", "a", "á", "a", "â", "a", "ã", "a", "ä", "a", "å", "a", "ą", "a", "ç", "c", "ć", "c", "č", "c", "ď", "d", "è", "e", "é", "e", "ê", "e", "ë", "e", "ę", "e", "ě", "e",
	"ğ", "g", "ì", "i", "í", "i", "î", "i", "ï", "i", "ı", "i", "ł", "l", "ñ", "n", "ń", "n", "ň", "n", "ò", "o", "ó", "o", "ô", "o", "õ", "o", "ö", "o", "ő", "o", "ø", "o", "ř", "r", "ś", "s", "š", "s", "ş", "s", "ș", "s",
	"ť", "t", "ț", "t", "ù", "u", "ú", "u", "û", "u", "ü", "u", "ů", "u", "ű", "u", "ý", "y", "ź", "z", "ż", "z", "ž", "z", "ß", "ss")

// folded prepares a list of words for texts that fold made.
func folded(words ...string) []string {
	for i := range words {
		words[i] = fold(words[i])
	}
	return words
}

// continued tells "550-5.7.1" and "550-".
func continued(word string) bool {
	if len(word) < 4 || word[3] != '-' || word[0] < '4' || word[0] > '5' || !isDigit(word[1]) || !isDigit(word[2]) {
		return false
	}
	_, end := statusAt(word, 4)
	return len(word) == 4 || end == len(word)
}

func maskAddresses(word string) string {
	found := findAddresses(word)
	if len(found) == 0 {
		return word
	}
	var b strings.Builder
	from := 0
	for _, a := range found {
		b.WriteString(word[from:a.start])
		b.WriteString("<>")
		from = a.end
	}
	b.WriteString(word[from:])
	return b.String()
}

// pattern is a phrase: pieces in this order, at most 80 bytes apart. Each
// begins at the start of a word; it may end within one.
type pattern []string

func newPattern(s string) pattern { return strings.Split(fold(strings.ReplaceAll(s, "_", " ")), " * ") }

func (p pattern) follows(text string) bool {
	for _, piece := range p {
		window := text[:min(len(text), 80+len(piece))]
		at := wordIndex(window, piece)
		if at < 0 {
			return false
		}
		text = text[at+len(piece):]
	}
	return true
}

// wordIndex is strings.Index for pieces that begin a word.
func wordIndex(text, piece string) int {
	from := 0
	for {
		at := strings.Index(text[from:], piece)
		if at < 0 {
			return -1
		}
		at += from
		c := piece[0]
		if at == 0 || !alphanumeric(c) || !alphanumeric(text[at-1]) {
			return at
		}
		from = at + 1
	}
}

// text is what to show when there is no Diagnostic-Code: the paragraph about
// the recipient with a server's reply, else one that explains something, else
// what stands nearest.
func (e *evidence) text() string {
	explained, nearest := "", ""
	for _, lines := range [][]line{e.near, e.wide, e.all} {
		for len(lines) > 0 {
			end := 0
			for end < len(lines) && !lines[end].blank() {
				end++
			}
			paragraph := join(lines[:end])
			lines = lines[min(end+1, len(lines)):]
			if paragraph == "" {
				continue
			}
			shown := bound(oneLine(paragraph), maxDiagnostic)
			switch {
			case smtpCode(paragraph) > 0:
				return shown
			case explained == "" && categoryOfText(paragraph) != "":
				explained = shown
			case nearest == "":
				nearest = shown
			}
		}
	}
	if explained != "" {
		return explained
	}
	return nearest
}
