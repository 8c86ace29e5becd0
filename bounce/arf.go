package bounce

import (
	"strings"
)

// feedback reads a feedback report (RFC 5965). Types that are no complaint
// (not-spam; auth-failure of RFC 6591) keep their name in FeedbackType.
func (r *reader) feedback(n *notice) {
	p := &r.report
	p.Format, p.Kind, p.FeedbackType = FormatFeedback, Complaint, "abuse"
	var named []string
	for _, f := range fieldsOf(n.feedback) {
		value := oneLine(f.Value)
		switch strings.ToLower(f.Name) {
		case "feedback-type":
			p.FeedbackType = strings.ToLower(value)
		case "original-rcpt-to":
			named = append(named, cleanAddress(afterType(value)))
		case "original-mail-from":
			p.ReturnPath = cleanAddress(value)
		case "original-envelope-id":
			p.EnvelopeID = value
		case "reporting-mta":
			p.ReportingMTA = strings.ToLower(afterType(value))
		}
	}
	switch p.FeedbackType {
	case "not-spam", "auth-failure":
		p.Kind = NotABounce
	}
	r.keepOriginal(n)
	if p.Kind == Complaint {
		r.complainants(n, named)
	}
}

// complainants are the recipients of a complaint. Many providers redact them;
// no recipient is better than "redacted@".
func (r *reader) complainants(n *notice, named []string) {
	named = append(named, cleanAddress(n.returned.get("x-hmxmroriginalrecipient")))
	for _, address := range named {
		if plausible(address) && !redacted(address) {
			r.add(Recipient{Address: address})
		}
	}
	if len(r.report.Recipients) == 0 {
		r.problem("the complaint does not name the recipient")
	}
}

func redacted(address string) bool {
	local := localOf(address)
	hash := len(local) >= 24 && strings.Trim(local, "0123456789abcdef") == ""
	return hash || strings.Contains(local, "redacted") || strings.Trim(local, "x*-") == "" || strings.Contains(domainOf(address), "redacted")
}

// providerComplaint reads complaints in providers' own forms: Microsoft's
// Junk Mail Reporting Programme, and SpamCop.
func (r *reader) providerComplaint(n *notice) bool {
	from := strings.ToLower(n.header.get("from"))
	subject := strings.ToLower(n.header.text("subject"))
	microsoft := n.attached && (strings.HasPrefix(subject, "complaint about message from") || n.returned.has("x-hmxmroriginalrecipient"))
	old := n.attached && strings.HasPrefix(subject, "email feedback report for ip")
	spamcop := strings.HasPrefix(subject, "[spamcop (") || strings.Contains(from, ".spamcop.net>") && strings.Contains(subject, "spam")
	if !microsoft && !old && !spamcop {
		return false
	}
	r.report.Kind, r.report.Format, r.report.FeedbackType = Complaint, FormatText, "abuse"
	r.keepOriginal(n)
	r.complainants(n, nil)
	return true
}
