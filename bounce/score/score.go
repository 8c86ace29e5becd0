// Package score compares what package bounce makes of mails with labels made
// by people, and counts. It does no I/O; the command and the tests bring the
// files. It imports package bounce and the standard library.
package score

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"aftersend/bounce"
)

// Label is what a mail says, in the JSON that labelled corpora and `aftersend
// bounce` use. Absent codes are null.
type Label struct {
	Kind              string      `json:"kind"`
	FeedbackType      string      `json:"feedback_type,omitempty"`
	Recipients        []Recipient `json:"recipients"`
	OriginalMessageID *string     `json:"original_message_id"`
	EnvelopeID        string      `json:"envelope_id,omitempty"`
	ReturnPath        string      `json:"return_path,omitempty"`
	Format            string      `json:"format,omitempty"`
	Problems          []string    `json:"problems"`

	Family string              `json:"family,omitempty"` // of labels: the server or format
	Accept map[string][]string `json:"accept,omitempty"` // of labels: further right answers
}

// Recipient is one recipient of a Label.
type Recipient struct {
	Recipient      string  `json:"recipient"`
	Final          string  `json:"final_recipient,omitempty"`
	Action         *string `json:"action"`
	EnhancedStatus *string `json:"enhanced_status"`
	SMTPCode       *string `json:"smtp_code"`
	BounceType     *string `json:"bounce_type"`
	Category       *string `json:"category"`
	Diagnostic     *string `json:"diagnostic"`

	Accept map[string][]string `json:"accept,omitempty"`
}

// Of puts a report into that form.
func Of(r bounce.Report) Label {
	l := Label{
		Kind: string(r.Kind), FeedbackType: r.FeedbackType, Recipients: []Recipient{}, OriginalMessageID: optional(r.OriginalMessageID),
		EnvelopeID: r.EnvelopeID, ReturnPath: r.ReturnPath, Format: string(r.Format), Problems: r.Problems,
	}
	if l.Problems == nil {
		l.Problems = []string{}
	}
	for _, rcpt := range r.Recipients {
		code := ""
		if rcpt.SMTPCode > 0 {
			code = strconv.Itoa(rcpt.SMTPCode)
		}
		l.Recipients = append(l.Recipients, Recipient{
			Recipient: rcpt.Address, Final: rcpt.Final, Action: optional(string(rcpt.Action)), EnhancedStatus: optional(rcpt.EnhancedStatus), SMTPCode: optional(code),
			BounceType: optional(string(rcpt.BounceType)), Category: optional(string(rcpt.Category)), Diagnostic: optional(rcpt.Diagnostic),
		})
	}
	return l
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// The figures, in the order they are printed. Each counts mails or recipients
// for which it is right, out of those it is about.
const (
	Recognised     = "recognised"       // notices called a notice
	FailedDelayed  = "failed/delayed"   // notices with the right kind among bounce, delayed, delivered
	Recipients     = "recipients exact" // notices with exactly the right recipients
	Status         = "status"           // recipients with the right enhanced status code, null included
	SMTPCode       = "smtp code"        // recipients with the right reply code, null included
	Category       = "category"         // recipients
	Type           = "hard/soft"        // recipients
	HardCaught     = "hard caught"      // recipients labelled hard and called hard
	NoFalseHard    = "no false hard"    // recipients called hard that are so
	MessageID      = "message id"       // notices, complaints and automatic replies
	Complaints     = "complaints"       // recognised, with the right recipients
	AutoReplies    = "auto-replies"     // recognised
	NoFalseNotices = "no false notices" // mails of no interest that are called so
)

// Figures lists the figures in order.
var Figures = []string{Recognised, FailedDelayed, Recipients, Status, SMTPCode, Category, Type, HardCaught, NoFalseHard, MessageID, Complaints, AutoReplies, NoFalseNotices}

// Count is a figure: Right out of All.
type Count struct{ Right, All int }

// Percent is 100 where there is nothing to count.
func (c Count) Percent() float64 {
	if c.All == 0 {
		return 100
	}
	return 100 * float64(c.Right) / float64(c.All)
}

// Sheet counts mails, all together and by family.
type Sheet struct {
	Total    map[string]*Count
	Families map[string]map[string]*Count
	Mails    map[string]int      // by family
	Misses   map[string][]string // by mail: what was wrong
}

// NewSheet returns an empty sheet.
func NewSheet() *Sheet {
	return &Sheet{Total: map[string]*Count{}, Families: map[string]map[string]*Count{}, Mails: map[string]int{}, Misses: map[string][]string{}}
}

// Add compares one mail's report with its label.
func (s *Sheet) Add(name string, want, got Label) {
	s.Mails[want.Family]++
	m := mail{sheet: s, name: name, want: want, got: got}
	switch {
	case isNotice(want.Kind):
		m.notice()
	case want.Kind == "complaint":
		m.count(Complaints, m.kind() && m.recipients(), "%s with %s", got.Kind, addresses(got))
		m.messageID()
	case want.Kind == "autoreply":
		m.count(AutoReplies, m.kind(), "called %s", got.Kind)
		m.messageID()
	default:
		m.count(NoFalseNotices, m.kind(), "called %s", got.Kind)
	}
	m.noFalseHard()
}

// mail is one comparison.
type mail struct {
	sheet     *Sheet
	name      string
	want, got Label
}

func (m *mail) count(figure string, right bool, miss string, args ...any) {
	f := m.sheet.Families[m.want.Family]
	if f == nil {
		f = map[string]*Count{}
		m.sheet.Families[m.want.Family] = f
	}
	for _, counts := range []map[string]*Count{m.sheet.Total, f} {
		if counts[figure] == nil {
			counts[figure] = &Count{}
		}
		counts[figure].All++
		if right {
			counts[figure].Right++
		}
	}
	if !right {
		m.sheet.Misses[m.name] = append(m.sheet.Misses[m.name], figure+": "+fmt.Sprintf(miss, args...))
	}
}

func (m *mail) kind() bool { return is(m.got.Kind, m.want.Kind, m.want.Accept["kind"]) }

func (m *mail) notice() {
	recognised := isNotice(m.got.Kind)
	m.count(Recognised, recognised || m.kind(), "called %s", m.got.Kind)
	m.count(FailedDelayed, m.kind(), "called %s, is %s", m.got.Kind, m.want.Kind)
	m.count(Recipients, m.recipients(), "%s, should be %s", addresses(m.got), addresses(m.want))
	for _, w := range m.want.Recipients {
		m.recipient(w, find(m.got, w))
	}
	m.messageID()
}

func (m *mail) recipient(w Recipient, g *Recipient) {
	if g == nil {
		g = &Recipient{}
	}
	field := func(figure, key string, got, want *string) {
		m.count(figure, is(text(got), text(want), w.Accept[key]), "%s, should be %s", orNull(got), orNull(want))
	}
	field(Status, "enhanced_status", g.EnhancedStatus, w.EnhancedStatus)
	field(SMTPCode, "smtp_code", g.SMTPCode, w.SMTPCode)
	field(Category, "category", g.Category, w.Category)
	field(Type, "bounce_type", g.BounceType, w.BounceType)
	if text(w.BounceType) == "hard" {
		m.count(HardCaught, is(text(g.BounceType), "hard", w.Accept["bounce_type"]), "called %s", orNull(g.BounceType))
	}
}

// noFalseHard counts what would stop mail to an address that is alive.
func (m *mail) noFalseHard() {
	for i, g := range m.got.Recipients {
		if text(g.BounceType) != "hard" {
			continue
		}
		right := false
		for _, w := range m.want.Recipients {
			if same(g, w) && is("hard", text(w.BounceType), w.Accept["bounce_type"]) {
				right = true
			}
		}
		m.count(NoFalseHard, right, "%s", m.got.Recipients[i].Recipient)
	}
}

func (m *mail) messageID() {
	got, want := text(m.got.OriginalMessageID), text(m.want.OriginalMessageID)
	m.count(MessageID, is(got, want, m.want.Accept["original_message_id"]), "%q, should be %q", got, want)
}

// recipients: each of the label's is there, and nothing else.
func (m *mail) recipients() bool {
	if len(m.got.Recipients) != len(m.want.Recipients) {
		return false
	}
	for _, w := range m.want.Recipients {
		if find(m.got, w) == nil {
			return false
		}
	}
	return true
}

func find(l Label, w Recipient) *Recipient {
	for i := range l.Recipients {
		if same(l.Recipients[i], w) {
			return &l.Recipients[i]
		}
	}
	return nil
}

func same(g, w Recipient) bool {
	if strings.EqualFold(g.Recipient, w.Recipient) {
		return true
	}
	for _, a := range w.Accept["recipient"] {
		if strings.EqualFold(g.Recipient, a) {
			return true
		}
	}
	return false
}

func is(got, want string, accept []string) bool {
	if got == want {
		return true
	}
	for _, a := range accept {
		if got == a {
			return true
		}
	}
	return false
}

func isNotice(kind string) bool {
	return kind == "bounce" || kind == "delayed" || kind == "delivered"
}

func addresses(l Label) string {
	var list []string
	for _, r := range l.Recipients {
		list = append(list, r.Recipient)
	}
	return "[" + strings.Join(list, " ") + "]"
}

func orNull(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// Print writes the figures, those of every family, and the misses.
func (s *Sheet) Print(w io.Writer) {
	for _, figure := range Figures {
		if c := s.Total[figure]; c != nil {
			fmt.Fprintf(w, "%-18s %6.2f %%  %d of %d\n", figure, c.Percent(), c.Right, c.All)
		}
	}
	fmt.Fprintln(w)
	for _, family := range sorted(s.Families) {
		fmt.Fprintf(w, "%-18s %4d mails", family, s.Mails[family])
		for _, figure := range Figures {
			if c := s.Families[family][figure]; c != nil && c.Right < c.All {
				fmt.Fprintf(w, "  %s %d/%d", figure, c.Right, c.All)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	for _, name := range sorted(s.Misses) {
		fmt.Fprintf(w, "%s\n    %s\n", name, strings.Join(s.Misses[name], "\n    "))
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// ReadLabel decodes a label.
func ReadLabel(b []byte) (Label, error) {
	var l Label
	if err := json.Unmarshal(b, &l); err != nil {
		return Label{}, fmt.Errorf("read label: %w", err)
	}
	return l, nil
}
