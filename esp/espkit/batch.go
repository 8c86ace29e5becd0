package espkit

import (
	"bytes"
	"errors"
	"net/http"

	"aftersend/esp"
	"aftersend/event"
)

// The problems a batch can have apart from its records'.
var (
	errNotJSON = errors.New("the record is not valid JSON")
	errCutOff  = errors.New("the payload ends too early")
	errTail    = errors.New("the payload is damaged after its last record")
	errTooMany = errors.New("the payload has more records than one callback can have")
)

// maxRecords and maxProblems bound what a body of 10 MiB can make of itself.
// The largest batch an ESP documents has 1,000 records (Mandrill).
const (
	maxRecords    = 20_000
	maxProblems   = 1_000
	maxRecipients = 1_000 // of one record
)

// Batch collects what the records of one callback say. Record turns one record
// into an event, or says why it cannot. Where a record may name several
// recipients, or concern no message at all, Several does it instead.
type Batch struct {
	Result  esp.Result
	Record  func(v Value) (event.Event, error)
	Several func(v Value) ([]event.Event, error)

	n int // records so far
}

// Read is the whole of Parse for an ESP that posts JSON: a list of records,
// the whole body or standing under key; one record; or a record a line. A HEAD
// says nothing.
func (b *Batch) Read(req esp.Request, key string) (esp.Result, error) {
	switch {
	case req.Method == http.MethodHead:
		return esp.Result{}, nil
	case len(trim(req.Body)) == 0:
		return esp.Result{}, Unreadable("the body is empty")
	case b.AddArray(req.Body, key):
		return b.Outcome()
	}
	if v, ok := Document(req.Body); ok {
		b.Add(v)
	} else {
		b.AddLines(req.Body)
	}
	return b.Outcome()
}

// Add takes one record.
func (b *Batch) Add(v Value) {
	if err := b.read(v); err != nil {
		b.problem(err)
	}
}

// read takes a record, and nothing at all when it is broken.
func (b *Batch) read(v Value) error {
	if b.Several != nil {
		events, err := b.Several(v)
		if err != nil {
			return err
		}
		b.Result.Events = append(b.Result.Events, events...)
	} else {
		e, err := b.Record(v)
		if err != nil {
			return err
		}
		b.Result.Events = append(b.Result.Events, e)
	}
	b.n++
	return nil
}

// ForEach makes one event for each address from one event, at most 1,000.
func ForEach(e event.Event, addresses []string) []event.Event {
	if len(addresses) == 0 {
		return []event.Event{e}
	}
	addresses = addresses[:min(len(addresses), maxRecipients)]
	out := make([]event.Event, 0, len(addresses))
	for _, a := range addresses {
		e.Recipient = Bound(Address(a), maxShort)
		out = append(out, e)
	}
	return out
}

func (b *Batch) problem(err error) {
	if len(b.Result.Problems) < maxProblems {
		b.Result.Problems = append(b.Result.Problems, esp.Problem{Record: b.n, Reason: err.Error()})
	}
	b.n++
}

// Outcome is what Parse returns: an error as well when problems are all there
// is.
func (b *Batch) Outcome() (esp.Result, error) {
	r := b.Result
	if len(r.Events) == 0 && len(r.Problems) > 0 {
		return r, Unreadable(r.Problems[0].Reason)
	}
	return r, nil
}

// AddArray takes the elements of the JSON array that doc is, or that stands
// under key in the object that doc is. False means that there is no such array.
//
// A broken element is one problem and leaves its neighbours alone: reading goes
// on at the next "{" behind a comma that makes a record. The work is linear in
// the size of doc, whatever doc is.
func (b *Batch) AddArray(doc []byte, key string) bool {
	doc = trim(doc)
	if len(doc) == 0 {
		return false
	}
	start := 0
	if doc[0] == '{' {
		if start = find(doc, key); start < 0 {
			return false
		}
	}
	if start >= len(doc) || doc[start] != '[' {
		return false
	}
	if end := b.elements(doc, start); end >= 0 && !tailIntact(doc, start, end) {
		b.problem(errTail)
	}
	return true
}

// elements takes the elements of the array at start and returns the index
// after it, or -1 when its end is not found.
func (b *Batch) elements(doc []byte, start int) int {
	s := scanner{doc: doc}
	i := skipSpace(doc, start+1)
	if i < len(doc) && doc[i] == ']' {
		return i + 1
	}
	// After damage it is not known how deep we are: what makes no record may be
	// part of the broken one, and a bracket may close an array inside of it.
	lost := false
	for {
		if i = skipSpace(doc, i); i >= len(doc) {
			b.problem(errCutOff)
			return -1
		}
		if b.n >= maxRecords {
			b.problem(errTooMany)
			return -1
		}
		s.string = i
		end, ok := s.value(i, 1)
		next := skipSpace(doc, end)
		switch {
		case ok && next >= len(doc): // whole, only the bracket is missing
			b.take(doc[i:end:end], lost)
			b.problem(errCutOff)
			return -1
		case ok && doc[next] == ']':
			if b.take(doc[i:end:end], lost) || nothingMore(doc, next+1) {
				return next + 1
			}
			end = next // the end of some array inside the broken record
		case ok && doc[next] == ',':
			lost = !b.take(doc[i:end:end], lost)
			i = next + 1
			continue
		case ok && doc[next] == '{' && doc[i] == '{': // whole, only the comma is missing
			lost = !b.take(doc[i:end:end], lost)
			i = next
			continue
		}
		if !ok {
			// Go on from the last string, because a missing quote makes a
			// string swallow what follows. A string holds no further quote, so
			// nothing is read twice for long.
			end = max(i, min(s.string, end))
		}
		if !lost {
			b.problem(errNotJSON)
		}
		lost = true
		if i = resume(doc, end); i < 0 {
			return -1
		}
	}
}

// take adds an element; when lost, only if it makes a record. It reports
// whether it knows where it is again.
func (b *Batch) take(v Value, lost bool) bool {
	if !lost {
		b.Add(v)
		return true
	}
	return b.read(v) == nil
}

// resume returns the index of the next "{" behind a comma, -1 without one.
func resume(doc []byte, i int) int {
	for i < len(doc) {
		comma := bytes.IndexByte(doc[i:], ',')
		if comma < 0 {
			return -1
		}
		i += comma + 1
		if next := skipSpace(doc, i); next < len(doc) && doc[next] == '{' {
			return next
		}
	}
	return -1
}

// nothingMore reports whether only closing brackets follow.
func nothingMore(doc []byte, i int) bool {
	i = skipSpace(doc, i)
	return i >= len(doc) || doc[i] == '}' && skipSpace(doc, i+1) >= len(doc)
}

// tailIntact reports whether nothing is wrong behind the array that ends
// before end: the rest of the object around it, or nothing at all.
func tailIntact(doc []byte, start, end int) bool {
	end = skipSpace(doc, end)
	if start == 0 {
		return end == len(doc)
	}
	if end < len(doc) && doc[end] == '}' {
		return skipSpace(doc, end+1) == len(doc)
	}
	if end >= len(doc) || doc[end] != ',' {
		return false
	}
	_, ok := Document(append([]byte{'{'}, doc[end+1:]...))
	return ok
}

// find returns where the value of a member of the object doc begins, -1 when
// it has no such member before the first damage.
func find(doc []byte, key string) int {
	s := scanner{doc: doc}
	i := skipSpace(doc, 1)
	for {
		name, at, ok := s.name(i)
		if !ok {
			return -1
		}
		if string(name) == key {
			return at
		}
		end, ok := s.value(at, 1)
		if !ok {
			return -1
		}
		if end = skipSpace(doc, end); end >= len(doc) || doc[end] != ',' {
			return -1
		}
		i = skipSpace(doc, end+1)
	}
}

// AddLines takes every line of a JSON Lines body. Blank lines, CRLF and a
// missing final newline are fine.
func (b *Batch) AddLines(doc []byte) {
	for doc = trim(doc); len(doc) > 0; {
		line, rest, _ := bytes.Cut(doc, []byte{'\n'})
		doc = rest
		if line = trim(line); len(line) == 0 {
			continue
		}
		if b.n >= maxRecords {
			b.problem(errTooMany)
			return
		}
		if v, ok := Document(line); ok {
			b.Add(v)
		} else {
			b.problem(errNotJSON)
		}
	}
}
