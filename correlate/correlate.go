// Package correlate thinks about which message an event belongs to and what
// becomes of the message. It is the state machine of a message to one
// recipient: (state, event) → (state, change).
//
// ESPs report out of order, twice, and through several sources at once, and we
// process in groups that run side by side. So a Message holds only what no
// order can change: for every kind of word ever heard the earliest and the
// latest time it counts for, and the set of deferrals. Applying an event joins
// it to that; status and facts are read off. Applying is commutative,
// associative and idempotent, and so is Merge.
//
// It does no I/O and may import event and id.
package correlate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"aftersend/event"
	"aftersend/id"
)

// Key recognises an event (EventKey) or a message (MessageKey): 128 bits of a
// SHA-256, kept as a uuid.
type Key = id.ID

// MaxDeferrals is how many deferrals of one message are told apart; a message
// that was deferred more often counts as deferred so often.
const MaxDeferrals = 1000

// Message is the story so far of one message to one recipient. The zero value
// is a message nothing was heard of. Copies are independent.
type Message struct {
	marks     [words]mark
	deferrals []uint64 // ascending; the first 8 bytes of their events' keys
}

// mark is what is kept of all events that said one word. Times are
// microseconds since 1970; key is the greatest of those that count for last.
type mark struct {
	first, last int64
	key         Key
	heard       bool
}

// word is what an event says about a message's fate. It is finer than
// event.Type where the order needs it: a bounce after acceptance outranks
// everything, and who opens a message shows that it was delivered.
type word uint8

const (
	other word = iota // says nothing about the fate
	queued
	sent
	deferred
	expired
	delivered
	seen // opened, clicked, complained, unsubscribed
	bounced
	rejected
	failed
	returned // bounced after acceptance
	words
)

// table gives each word its status and its rank; of two words the higher rank
// decides, among equals the later time.
var table = [words]struct {
	status event.Type
	rank   int
}{
	other:     {event.Unknown, 0},
	queued:    {event.Queued, 1},
	sent:      {event.Sent, 2},
	deferred:  {event.Deferred, 3},
	expired:   {event.Expired, 4},
	delivered: {event.Delivered, final},
	seen:      {event.Delivered, final},
	bounced:   {event.Bounced, final},
	rejected:  {event.Rejected, final},
	failed:    {event.Failed, final},
	returned:  {event.Bounced, 6},
}

// final is the lowest rank of the words after which the ESP does no more.
const final = 5

func wordOf(e *event.Event) word {
	switch e.Type {
	case event.Queued:
		return queued
	case event.Sent:
		return sent
	case event.Deferred:
		return deferred
	case event.Expired:
		return expired
	case event.Delivered:
		return delivered
	case event.Opened, event.Clicked, event.Complained, event.Unsubscribed:
		return seen
	case event.Bounced:
		if e.Asynchronous != nil && *e.Asynchronous {
			return returned
		}
		return bounced
	case event.Rejected:
		return rejected
	case event.Failed:
		return failed
	}
	return other
}

// AboutMessage reports whether an event of this type says something about the
// fate of a message, so that one is made for it even when it names none.
func AboutMessage(e *event.Event) bool { return wordOf(e) != other }

// Facts are what a message's events together say. They do not depend on the
// order in which the events came, on repetition, or on how they were grouped.
type Facts struct {
	Status          event.Type
	StatusAt        time.Time  // effective time of the event that decided it
	PreviousStatus  event.Type // what the status would be without the words that say the present one
	Asynchronous    bool       // decided by a bounce after acceptance
	Deferrals       int        // at most MaxDeferrals
	FirstEventAt    time.Time
	FirstDeferredAt time.Time // zero: never
	FinalAt         time.Time // when the final word was first said; zero: not yet
}

// Change is what one event did to a message.
type Change struct {
	Before, After Facts
	FirstDeferral bool // this is the first deferral that we hear of
}

// Apply adds an event to a message. key is the event's EventKey.
func Apply(m Message, e *event.Event, key Key) (Message, Change) {
	c := Change{Before: m.Facts()}
	w := wordOf(e)
	at := e.EffectiveAt().UnixMicro()
	m.marks[w].join(mark{first: at, last: at, key: key, heard: true})
	if w == deferred {
		c.FirstDeferral = len(m.deferrals) == 0
		m.deferrals = join(m.deferrals, []uint64{binary.BigEndian.Uint64(key[:8])})
	}
	c.After = m.Facts()
	return m, c
}

// Merge joins two messages that turned out to be one.
func Merge(a, b Message) Message {
	for w := range a.marks {
		a.marks[w].join(b.marks[w])
	}
	a.deferrals = join(a.deferrals, b.deferrals)
	return a
}

func (m *mark) join(o mark) {
	switch {
	case !o.heard:
		return
	case !m.heard:
		*m = o
		return
	}
	m.first = min(m.first, o.first)
	if o.after(m) {
		m.last, m.key = o.last, o.key
	}
}

// after orders two marks of the same rank: by time, then by the event's key.
func (m *mark) after(o *mark) bool {
	if m.last != o.last {
		return m.last > o.last
	}
	return bytes.Compare(m.key[:], o.key[:]) > 0
}

// join returns the union of two ascending sets, of more than MaxDeferrals the
// lowest ones, so that the result does not depend on the order. It never
// writes to its arguments.
func join(a, b []uint64) []uint64 {
	switch {
	case len(b) == 0:
		return a
	case len(a) == 0:
		return slices.Clone(b)
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), MaxDeferrals)]
}

// Facts reads off what the events heard so far say.
func (m *Message) Facts() Facts {
	w, ok := m.decides("")
	if !ok {
		return Facts{}
	}
	f := Facts{
		Status:       table[w].status,
		StatusAt:     instant(m.marks[w].last),
		Asynchronous: w == returned,
		Deferrals:    len(m.deferrals),
	}
	if p, ok := m.decides(f.Status); ok && p != other {
		f.PreviousStatus = table[p].status
	}
	first := m.marks[w].first
	for i := range m.marks {
		if m.marks[i].heard {
			first = min(first, m.marks[i].first)
		}
	}
	f.FirstEventAt = instant(first)
	if m.marks[deferred].heard {
		f.FirstDeferredAt = instant(m.marks[deferred].first)
	}
	if table[w].rank >= final {
		if w == seen && m.marks[delivered].heard {
			w = delivered // an open shows that it was delivered, not when
		}
		f.FinalAt = instant(m.marks[w].first)
	}
	return f
}

// decides returns the word that decides the status, leaving out those that
// say without; false when nothing else was heard.
//
// Expired is ours, said when the ESP fell silent, so any later word of the ESP
// about the message's fate takes it back, whatever its rank.
func (m *Message) decides(without event.Type) (word, bool) {
	best, ok := other, false
	lastWord := int64(-1 << 63)
	for w := other; w < words; w++ {
		k := &m.marks[w]
		if !k.heard || w == expired {
			continue
		}
		if table[w].status == without {
			continue
		}
		if w != other {
			lastWord = max(lastWord, k.last)
		}
		if !ok || table[w].rank > table[best].rank || table[w].rank == table[best].rank && k.after(&m.marks[best]) {
			best, ok = w, true
		}
	}
	e := &m.marks[expired]
	if e.heard && without != event.Expired && (!ok || table[best].rank < final) && lastWord <= e.last {
		return expired, true
	}
	return best, ok
}

// Expire makes the event that says that a message never got its final word:
// what is known of the message, and why it was last deferred.
func Expire(last *event.Event, at time.Time) *event.Event {
	e := *last
	e.ID, e.Type, e.OccurredAt, e.ReceivedAt = "", event.Expired, at, at
	e.EventID, e.BounceType, e.Asynchronous, e.Message = "", "", nil, nil
	return &e
}

// Snapshot is what an event tells subscribers about its message: its state as
// of this event, and, when this event changed it, the status before.
func (c Change) Snapshot(message id.ID) *event.Snapshot {
	f := c.After
	s := &event.Snapshot{
		ID:              id.Message.Format(message),
		Status:          f.Status,
		Deferrals:       f.Deferrals,
		FirstDeferredAt: f.FirstDeferredAt,
	}
	if c.Before.Status != f.Status {
		s.PreviousStatus = c.Before.Status
	}
	if !f.FinalAt.IsZero() {
		seconds := int64(f.FinalAt.Sub(f.FirstEventAt) / time.Second)
		s.SecondsToFinal = &seconds
	}
	return s
}

func instant(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

// encoding is the first byte of an encoded message. 1: for each word heard its
// number, first, last and key; then 0xff and the deferrals, all big-endian.
const encoding = 1

const (
	markBytes    = 1 + 8 + 8 + 16
	deferralMark = 0xff
)

// Append encodes the message for the database.
func (m *Message) Append(dst []byte) []byte {
	be := binary.BigEndian
	dst = append(dst, encoding)
	for w := range m.marks {
		if k := &m.marks[w]; k.heard {
			dst = append(dst, byte(w))
			dst = be.AppendUint64(dst, uint64(k.first))
			dst = be.AppendUint64(dst, uint64(k.last))
			dst = append(dst, k.key[:]...)
		}
	}
	if len(m.deferrals) > 0 {
		dst = append(dst, deferralMark)
		for _, d := range m.deferrals {
			dst = be.AppendUint64(dst, d)
		}
	}
	return dst
}

// ErrState is returned by Decode.
var ErrState = errors.New("stored message state is not readable: written by a newer version, or damaged")

// Decode reads what Append wrote.
func Decode(b []byte) (Message, error) {
	var m Message
	be := binary.BigEndian
	if len(b) == 0 || b[0] != encoding {
		return m, ErrState
	}
	for b = b[1:]; len(b) >= markBytes && b[0] < byte(words); b = b[markBytes:] {
		k := &m.marks[b[0]]
		k.heard = true
		k.first, k.last = int64(be.Uint64(b[1:])), int64(be.Uint64(b[9:]))
		copy(k.key[:], b[17:])
	}
	if len(b) > 0 && b[0] == deferralMark {
		for b = b[1:]; len(b) >= 8; b = b[8:] {
			m.deferrals = append(m.deferrals, be.Uint64(b))
		}
	}
	if len(b) > 0 {
		return Message{}, ErrState
	}
	return m, nil
}
