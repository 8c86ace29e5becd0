package bounce

import (
	"strings"
)

// Which of the addresses in a notice's text are the recipients.

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
