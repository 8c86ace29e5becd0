package correlate

import (
	"time"

	"aftersend/event"
	"aftersend/id"
)

// GuessWindow is how long after delivery a bounce is looked for without any id
// to go by: as long as mail servers keep trying (RFC 5321, 4.5.4.1).
const GuessWindow = 5 * 24 * time.Hour

// skew is how far the clocks of two reporters may be apart.
const skew = 5 * time.Minute

// Candidate is a message to the recipient of a bounce.
type Candidate struct {
	ID      id.ID
	Message Message
}

// Guessable reports whether a message may be looked for by recipient and time
// alone, when the event has no MessageKeys.
func Guessable(e *event.Event) bool { return wordOf(e) == returned && e.Recipient != "" }

// Guess returns the one message that an asynchronous bounce at that time can be
// about: it was delivered within GuessWindow before, and no other message to
// the recipient was, nor is there one whose fate in that time is not known. A
// wrong guess is worse than none.
//
// It goes by what was said of delivery, whatever was said later, so that of two
// bounces of one message neither hides it from the other.
func Guess(at time.Time, messages []Candidate) (id.ID, bool) {
	from, to := at.Add(-GuessWindow).UnixMicro(), at.Add(skew).UnixMicro()
	within := func(first, last int64) bool { return first <= to && last >= from }
	found := id.Nil
	for _, c := range messages {
		m := &c.Message
		var meant bool
		switch accepted, ok := m.accepted(); {
		case ok:
			meant = within(accepted, accepted)
		case m.refused():
			continue
		case within(m.span()):
			return id.Nil, false // it may have been delivered, and bounced
		}
		if meant && found != id.Nil {
			return id.Nil, false
		}
		if meant {
			found = c.ID
		}
	}
	return found, found != id.Nil
}

// accepted is when the recipient's mail server is first known to have taken the
// message.
func (m *Message) accepted() (at int64, ok bool) {
	for _, w := range []word{delivered, seen} {
		if m.marks[w].heard {
			return m.marks[w].first, true
		}
	}
	return 0, false
}

// refused reports that the message never got to the recipient's mail server.
func (m *Message) refused() bool {
	return !m.marks[returned].heard && (m.marks[bounced].heard || m.marks[rejected].heard || m.marks[failed].heard)
}

// span is when the message was first and last heard of.
func (m *Message) span() (first, last int64) {
	first, last = 1<<63-1, -1<<63
	for i := range m.marks {
		if k := &m.marks[i]; k.heard {
			first, last = min(first, k.first), max(last, k.last)
		}
	}
	return first, last
}
