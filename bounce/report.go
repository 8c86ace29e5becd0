// Package bounce reads the mails that come back: bounces in the standard form
// (RFC 3464) and in the forms that mail servers invented, delay notices,
// complaints (RFC 5965) and automatic replies (RFC 3834). Bytes in, Report out:
// it does no I/O, never fails and never panics; what it could not make out is
// in Report.Problems. It imports package event, the standard library and the
// character sets of golang.org/x/text.
//
// How a mail is read, one file per step:
//
//	walker, header, charset, html   bytes to parts, fields and UTF-8 text
//	notice, returned                which part says what; where the returned message begins
//	kind, words, autoreply          what kind of mail it is
//	dsn, arf, sns                   the machine-readable forms
//	mentions, structure, address,
//	codes                           everything else: by the structure of the text
//	category, registry, rules       from texts and codes to a category
//
// Structure comes first, wording second: an unknown server's notice is read by
// the address line, the lines that follow it and the reply code in them. The
// rules are data, each with a text it was made for.
//
// Every step is linear in the size of the mail, and all sizes are bounded by
// the constants in this file.
package bounce

import (
	"aftersend/event"
)

// What is read of a mail; the rest is ignored and named in Report.Problems.
const (
	MaxSize       = 2 << 20 // bytes of the mail
	maxParts      = 200     // MIME parts, of all levels together
	maxDepth      = 10      // levels of multipart
	maxFields     = 400     // header fields of one header
	maxFieldSize  = 8 << 10 // bytes of one field, unfolded
	maxText       = 96 << 10
	maxLines      = 2000 // lines of the notice's own text
	maxLine       = 2000 // bytes of one line of it
	maxReason     = 120  // lines read for one recipient
	maxRecipients = 500
	maxExplained  = 100 // recipients whose reason is looked for in more than their own lines
	maxAddress    = 320 // RFC 5321, 4.5.3.1: 64 + 1 + 255
	maxDiagnostic = 1000
	maxOriginal   = 60 // header fields kept of the returned message
)

// Kind says what a mail is.
type Kind string

// The kinds of mail.
const (
	Bounce     Kind = "bounce"       // final failure for at least one recipient
	Delayed    Kind = "delayed"      // still being tried, no final result
	Delivered  Kind = "delivered"    // success for every recipient it names (also relayed, expanded)
	AutoReply  Kind = "autoreply"    // vacation, ticket acknowledgement, challenge
	Complaint  Kind = "complaint"    // a recipient, or the provider for him, calls the message spam
	NotABounce Kind = "not-a-bounce" // anything else
)

// Action is what happened to one recipient (RFC 3464, 2.3.3).
type Action string

// The actions.
const (
	ActionFailed    Action = "failed"
	ActionDelayed   Action = "delayed"
	ActionDelivered Action = "delivered"
	ActionRelayed   Action = "relayed"
	ActionExpanded  Action = "expanded"
)

// Format names the form in which the mail told what it told, for statistics
// and for people who look at what was misunderstood.
type Format string

// The formats.
const (
	FormatStatus   Format = "delivery-status" // RFC 3464 fields
	FormatText     Format = "text"            // prose of any mail server
	FormatFeedback Format = "feedback-report" // RFC 5965
	FormatJSON     Format = "json"            // a notification of Amazon SNS
)

// Report is what a mail says.
type Report struct {
	Kind         Kind
	Format       Format // empty for automatic replies and for what is not a bounce
	FeedbackType string // of feedback reports (RFC 5965, 3.1), also of those that are no complaint
	Recipients   []Recipient

	OriginalMessageID string   // of the returned message, or the one an automatic reply answers; no brackets
	EnvelopeID        string   // Original-Envelope-Id: the ENVID given when sending (RFC 3461)
	ReturnPath        string   // envelope sender of the returned message, where the mail tells
	To                []string // addresses this mail was sent to; a VERP address among them names the message
	Original          []Field  // header of the returned message, as far as it helps to find it
	ReportingMTA      string
	Problems          []string // what was damaged, missing or unclear
}

// Recipient is what a mail says about one recipient. Of a complaint it has the
// address only.
type Recipient struct {
	Address        string // as sent, where that is told, else as the last server knew it
	Final          string // the other one of the two, if it differs
	Action         Action
	EnhancedStatus string // RFC 3463; empty when the mail has none, never made up
	SMTPCode       int    // reply code of the server that refused, 400..599, or 2xx on success
	BounceType     event.BounceType
	Category       event.Category
	Diagnostic     string
}

// Field is one header field, unfolded, with the name as written.
type Field struct {
	Name, Value string
}

// OriginalField returns the first field of the returned message with that
// name, whatever its case, or "".
func (r *Report) OriginalField(name string) string {
	for _, f := range r.Original {
		if equalFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Read reads a mail: header, empty line, body, with any line ends. It is safe
// for any input and for concurrent use.
func Read(mail []byte) (report Report) {
	defer func() {
		// Mails come from strangers. No input is known to get here.
		if recover() != nil {
			report = Report{Kind: NotABounce, Problems: []string{"the mail could not be read"}}
		}
	}()
	r := &reader{}
	root := r.walk(mail)
	n := r.collect(root)
	r.decide(n)
	return r.report
}

// reader is the state of reading one mail.
type reader struct {
	report Report
	parts  int // MIME parts seen
	wraps  int // notices around this one
}

// problem notes what is wrong with the mail, each thing once.
func (r *reader) problem(text string) {
	for _, p := range r.report.Problems {
		if p == text {
			return
		}
	}
	if len(r.report.Problems) < 20 {
		r.report.Problems = append(r.report.Problems, text)
	}
}
