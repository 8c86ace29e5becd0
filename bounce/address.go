package bounce

import (
	"strings"
)

// located is an address found in a line of text.
type located struct {
	address    string
	start, end int // of the address with its angle brackets
}

// findAddresses returns the addresses of a line. Linear: every byte is looked
// at by at most two of its @ signs.
func findAddresses(line string) []located {
	var found []located
	from := 0 // where the previous address ended
	for i := 0; i < len(line) && len(found) < 50; i++ {
		if line[i] != '@' {
			continue
		}
		start := localStart(line, i, from)
		end := domainEnd(line, i+1)
		if start == i || end == i+1 || inURL(line, start, from) {
			continue
		}
		address := cleanAddress(line[start:end])
		if !plausible(address) && !(bracketed(line, start, end) && strings.Contains(address, "@") && len(address) > 3) {
			continue
		}
		at := located{address: address, start: start, end: end}
		if bracketed(line, start, end) {
			at.start, at.end = start-1, end+1
		}
		found = append(found, at)
		from, i = end, end-1
	}
	return found
}

func bracketed(line string, start, end int) bool {
	return start > 0 && line[start-1] == '<' && end < len(line) && line[end] == '>'
}

// localStart finds where the local part before the @ at i begins. A quoted
// local part (RFC 5321, 4.1.2) may hold spaces.
func localStart(line string, i, from int) int {
	if i > from && line[i-1] == '"' {
		if q := strings.LastIndexByte(line[from:i-1], '"'); q >= 0 && i-q < 80 {
			return from + q
		}
	}
	start := i
	for start > from && isLocal(line[start-1]) {
		start--
	}
	// An apostrophe or a parameter name may stick to it: 'a@b', SMTP=a@b.
	for start < i && (line[start] == '\'' || line[start] == '=' && line[start:min(start+2, i)] != "=?" || line[start] == '*') {
		start++
	}
	if i-start > 5 && equalFold(line[start:start+5], "smtp=") {
		start += 5
	}
	// Text of languages written without spaces may precede it. Local parts in
	// such a script (RFC 6531) are not mixed with ASCII.
	for k := i; k > start; k-- {
		if line[k-1] >= 0xe2 && k < i && line[i-1] < 0x80 {
			return k + continuation(line[k:i])
		}
	}
	return start
}

// continuation counts the bytes at the start that belong to the rune before.
func continuation(s string) int {
	n := 0
	for n < len(s) && s[n] >= 0x80 && s[n] < 0xc0 {
		n++
	}
	return n
}

func domainEnd(line string, i int) int {
	end := i
	if end < len(line) && line[end] == '[' { // address literal
		if close := strings.IndexByte(line[end:], ']'); close > 0 && close < 50 {
			return end + close + 1
		}
	}
	for label := end; end < len(line) && isDomain(line[end]); end++ {
		if line[end] == '.' && end+1 < len(line) && line[end+1] == '.' {
			break // "<a@b>...User unknown" without its brackets
		} else if line[end] == '.' {
			label = end + 1
		} else if line[end] >= 0xe2 && label < end && line[label] < 0x80 {
			break // as above, text that follows without a space
		}
	}
	for end > i && (line[end-1] == '.' || line[end-1] == '-') {
		end--
	}
	return end
}

func isLocal(c byte) bool {
	return isLetter(c) || isDigit(c) || c >= 0x80 || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.\\", c) >= 0
}

func isDomain(c byte) bool {
	return isLetter(c) || isDigit(c) || c >= 0x80 || c == '.' || c == '-' || c == '_' || c == '#'
}

// inURL tells "http://host/?to=a@b" and "ftp://user@host".
func inURL(line string, start, from int) bool {
	head := line[max(from, start-60):start]
	if sp := strings.LastIndexAny(head, " \t<>()\"'"); sp >= 0 {
		head = head[sp+1:]
	}
	return strings.Contains(head, "://") || strings.Contains(line[start:min(start+8, len(line))], "//")
}

// plausible asks for a local part and a domain with a dot that has letters.
func plausible(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || at == len(address)-1 || len(address) > maxAddress {
		return false
	}
	domain := address[at+1:]
	if domain[0] == '[' {
		return true
	}
	dot := strings.LastIndexByte(domain, '.')
	return dot > 0 && dot < len(domain)-1 && !isDigit(domain[len(domain)-1])
}

// cleanAddress takes off brackets, quotes, source routes (RFC 5321, 4.1.1.3:
// "@relay:user@domain") and mailto:.
func cleanAddress(s string) string {
	s = strings.TrimSpace(s)
	s = strings.TrimPrefix(s, "mailto:")
	if strings.HasPrefix(s, "<") {
		s = strings.TrimPrefix(s, "<")
		s, _, _ = strings.Cut(s, ">")
	}
	if strings.HasPrefix(s, "@") {
		if _, user, ok := strings.Cut(s, ":"); ok {
			s = user
		}
	}
	s = strings.Trim(s, " \t\"'<>,;")
	if len(s) > maxAddress {
		return ""
	}
	return s
}

// firstAddress returns the first address of a text, or "".
func firstAddress(s string) string {
	if len(s) > 4*maxFieldSize {
		s = s[:4*maxFieldSize]
	}
	if found := findAddresses(s); len(found) > 0 {
		return found[0].address
	}
	return ""
}

func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

func localOf(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		address = address[:at]
	}
	return strings.ToLower(address)
}

// roleLocals are mailboxes of staff and software. Notices name them for help;
// they are recipients only when nobody else can be.
var roleLocals = map[string]bool{
	"postmaster": true, "mailer-daemon": true, "abuse": true, "support": true, "helpdesk": true, "hostmaster": true,
	"webmaster": true, "noreply": true, "no-reply": true, "help": true, "root": true, "postmast": true, "servicedesk": true,
}

// isRole also tells the command addresses of mailing lists.
func isRole(address string) bool {
	local := localOf(address)
	if roleLocals[local] {
		return true
	}
	for _, suffix := range []string{"-request", "-owner", "-ctl", "-help", "-unsubscribe", "-subscribe"} {
		if strings.HasSuffix(local, suffix) {
			return true
		}
	}
	return strings.HasPrefix(local, "owner-")
}

// registrable is the domain under which a host name stands, by rule of thumb:
// mr2.its.yale.edu -> yale.edu, mx.example.co.uk -> example.co.uk.
func registrable(host string) string {
	labels := strings.Split(strings.ToLower(host), ".")
	keep := 2
	if n := len(labels); n >= 3 && len(labels[n-1]) == 2 && len(labels[n-2]) <= 3 {
		keep = 3
	}
	return strings.Join(labels[max(0, len(labels)-keep):], ".")
}

// fromVERP reads the recipient out of a variable envelope return path such as
// bounces+81-user=example.net@send.example.com, or returns "".
func fromVERP(address string) string {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	lower := strings.ToLower(local)
	if strings.HasPrefix(lower, "prvs=") || strings.HasPrefix(lower, "srs") { // BATV, SRS: the sender
		return ""
	}
	eq := strings.LastIndexByte(local, '=')
	if eq <= 0 || !plausible("x@"+local[eq+1:]) {
		return ""
	}
	user := local[:eq]
	if cut := strings.LastIndexAny(user, "+="); cut >= 0 {
		user = user[cut+1:]
	} else if cut := strings.IndexByte(user, '-'); cut >= 0 {
		user = user[cut+1:]
	}
	if user == "" {
		return ""
	}
	return user + "@" + local[eq+1:]
}
