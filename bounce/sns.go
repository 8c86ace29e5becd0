package bounce

import (
	"encoding/json"
	"strings"
)

// snsMail is a notification of Amazon SES as SNS mails it: the JSON is the
// notice. docs.aws.amazon.com/ses/latest/dg/notification-contents.html
type snsMail struct {
	NotificationType string // older
	EventType        string // of event publishing
	Message          string // the notification itself, when SNS wraps it
	Bounce           struct {
		BounceType, BounceSubType string
		BouncedRecipients         []struct{ EmailAddress, Action, Status, DiagnosticCode string }
		ReportingMTA              string
	}
	Complaint struct {
		ComplainedRecipients  []struct{ EmailAddress string }
		ComplaintFeedbackType string
	}
	Delivery struct {
		Recipients   []string
		SMTPResponse string
	}
	Mail struct {
		MessageID     string
		Source        string
		CommonHeaders struct{ MessageID string }
	}
}

// snsNotification reads such a mail.
func (r *reader) snsNotification(n *notice) bool {
	m, ok := readSNS(n.text)
	if !ok {
		return false
	}
	p := &r.report
	p.Format = FormatJSON
	p.ReturnPath = m.Mail.Source
	p.OriginalMessageID = messageID(m.Mail.CommonHeaders.MessageID)
	if m.Mail.MessageID != "" {
		p.Original = append(p.Original, Field{Name: "X-SES-Message-ID", Value: m.Mail.MessageID})
	}
	switch strings.ToLower(m.NotificationType + m.EventType) {
	case "bounce":
		r.snsBounce(m)
	case "complaint":
		p.Kind, p.FeedbackType = Complaint, m.Complaint.ComplaintFeedbackType
		for _, c := range m.Complaint.ComplainedRecipients {
			r.add(Recipient{Address: c.EmailAddress})
		}
	case "delivery":
		p.Kind = Delivered
		for _, address := range m.Delivery.Recipients {
			e := evidence{diagnostic: m.Delivery.SMTPResponse}
			r.add(Recipient{Address: address, Action: ActionDelivered, EnhancedStatus: e.enhancedStatus(), SMTPCode: e.smtpCode(), Diagnostic: m.Delivery.SMTPResponse})
		}
	default:
		return false
	}
	return true
}

func (r *reader) snsBounce(m *snsMail) {
	r.report.Kind = Bounce
	r.report.ReportingMTA = strings.ToLower(strings.TrimSpace(afterType(m.Bounce.ReportingMTA)))
	for _, b := range m.Bounce.BouncedRecipients {
		rcpt := Recipient{Address: cleanAddress(b.EmailAddress), Action: actionOf(b.Action), Diagnostic: bound(b.DiagnosticCode, maxDiagnostic)}
		if rcpt.Action == "" {
			rcpt.Action = ActionFailed
		}
		r.settle(&rcpt, evidence{status: statusOf(b.Status), diagnostic: b.DiagnosticCode, comment: snsReasons[m.Bounce.BounceSubType], action: rcpt.Action, recipient: rcpt.Address})
		r.add(rcpt)
	}
}

// snsReasons put SES's subtypes into words that the rules know.
var snsReasons = map[string]string{
	"NoEmail": "no such user", "MailboxFull": "mailbox full", "MessageTooLarge": "message too large", "ContentRejected": "message content rejected",
	"AttachmentRejected": "attachment rejected", "Suppressed": "suppression list", "OnAccountSuppressionList": "suppression list",
}

// readSNS decodes the first JSON object of the text. QUIRK: mail servers break
// its long line, in the middle of words, with a newline and a space.
func readSNS(text string) (*snsMail, bool) {
	open := strings.IndexByte(text, '{')
	if open < 0 || open > 200 || !strings.Contains(text, "otificationType") && !strings.Contains(text, "eventType") {
		return nil, false
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text[open:], "\n ", ""), "\n", "")
	var m snsMail
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&m); err != nil {
		return nil, false
	}
	if m.Message != "" && m.NotificationType+m.EventType == "" {
		if err := json.Unmarshal([]byte(m.Message), &m); err != nil {
			return nil, false
		}
	}
	return &m, m.NotificationType+m.EventType != ""
}
