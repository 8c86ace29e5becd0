package webhook

import (
	"strings"

	"aftersend/event"
	"aftersend/id"
)

// Matcher decides which events a webhook gets. It is compiled once and asked
// about thousands of events; safe for concurrent use.
type Matcher struct {
	types   typeSet
	sources []id.ID // none = all
	filters []filter
}

// typeSet has one bit for each of event.Types.
type typeSet uint32

type filter struct {
	values []string // alternatives
	fold   bool     // compared without regard to case
	of     func(*event.Event) string
}

var typeBit = func() map[event.Type]typeSet {
	bits := make(map[event.Type]typeSet, len(event.Types))
	for i, t := range event.Types {
		bits[t] = 1 << i
	}
	return bits
}()

func bitOf(t event.Type) typeSet {
	if bit, ok := typeBit[t]; ok {
		return bit
	}
	return typeBit[event.Unknown]
}

// Compile prepares the decision. Event types that the dialect has no words for
// never match, so that no batch consists of nothing. Settings that Normalize
// has not accepted match what they can.
func Compile(s Settings) *Matcher {
	m := &Matcher{}
	for _, t := range s.Events {
		m.types |= bitOf(t)
	}
	if len(s.Events) == 0 {
		m.types = ^typeSet(0)
	}
	m.types &= s.Dialect.speaks()
	for _, v := range s.Filters.Source {
		// A spelling that names no source stays as the nil id, which matches none.
		source, _ := id.Source.Parse(v)
		m.sources = append(m.sources, source)
	}
	m.add(s.Filters.ESP, true, func(e *event.Event) string { return e.ESP })
	m.add(s.Filters.Stream, true, func(e *event.Event) string { return e.Stream })
	m.add(s.Filters.SendingDomain, true, func(e *event.Event) string { return e.SendingDomain })
	m.add(s.Filters.SendingNode, false, func(e *event.Event) string { return e.SendingNode })
	m.add(s.Filters.Bridge, false, func(e *event.Event) string { return e.Bridge })
	m.add(s.Filters.DedicatedIP, true, func(e *event.Event) string { return e.DedicatedIP })
	return m
}

func (m *Matcher) add(values []string, fold bool, of func(*event.Event) string) {
	if len(values) > 0 {
		m.filters = append(m.filters, filter{values, fold, of})
	}
}

// Match reports whether the webhook gets e, which came through source. An
// event that does not say what a filter asks about does not match it.
func (m *Matcher) Match(e *event.Event, source id.ID) bool {
	if m.types&bitOf(e.Type) == 0 || !m.fromOneOf(source) {
		return false
	}
	for i := range m.filters {
		if !m.filters[i].has(e) {
			return false
		}
	}
	return true
}

func (m *Matcher) fromOneOf(source id.ID) bool {
	for _, s := range m.sources {
		if s == source && s != id.Nil {
			return true
		}
	}
	return len(m.sources) == 0
}

func (f *filter) has(e *event.Event) bool {
	got := f.of(e)
	for _, v := range f.values {
		if v == got || f.fold && strings.EqualFold(v, got) {
			return true
		}
	}
	return false
}

// Matches is Compile and Match for a single event.
func Matches(s Settings, e *event.Event, source id.ID) bool {
	return Compile(s).Match(e, source)
}
