package espkit

import (
	"bytes"
	"errors"

	"aftersend/esp"
)

// The problems a batch can have apart from its records.
var (
	errNotJSON = errors.New("not valid JSON")
	errCutOff  = errors.New("the payload ends in the middle of a record")
	errTail    = errors.New("the payload is damaged after its last record")
	errTooMany = errors.New("more records than one callback can have")
)

// maxRecords and maxProblems bound what a body of 10 MiB can make of itself.
// The largest batch an ESP documents has 1,000 records (Mandrill).
const (
	maxRecords  = 20_000
	maxProblems = 1_000
)

// AddProblem notes a record that could not be understood.
func AddProblem(r *esp.Result, record int, reason string) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, esp.Problem{Record: record, Reason: reason})
	}
}

// Records calls yield for every element of the JSON array that doc is, or that
// stands under key in the object that doc is. A broken element is yielded as
// an error, so that its neighbours live. False means that doc has no such
// array, and that yield was not called.
//
// After a broken element reading goes on at the next "},{". What follows the
// damage inside the same element may then show up as a further broken record,
// never as an event: it has no type. The work stays linear.
func Records(doc []byte, key string, yield func(i int, v Value, err error)) bool {
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
	n, end := elements(doc, start, yield)
	if end < 0 {
		return true // the damage was reported where it is
	}
	if !tailIntact(doc, start, end) {
		yield(n, nil, errTail)
	}
	return true
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
	rest := append([]byte{'{'}, doc[end+1:]...)
	_, ok := Document(rest)
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

// elements yields the elements of the array at start and returns how many
// there were and the index after it, or -1 when it does not end.
func elements(doc []byte, start int, yield func(i int, v Value, err error)) (int, int) {
	s := scanner{doc: doc}
	i := skipSpace(doc, start+1)
	if i < len(doc) && doc[i] == ']' {
		return 0, i + 1
	}
	for n := 0; ; n++ {
		i = skipSpace(doc, i)
		if i >= len(doc) {
			yield(n, nil, errCutOff)
			return n + 1, -1
		}
		if n == maxRecords {
			yield(n, nil, errTooMany)
			return n + 1, -1
		}
		s.string = i
		end, ok := s.value(i, 1)
		next := skipSpace(doc, end)
		switch {
		case ok && next >= len(doc): // whole, only the bracket is missing
			yield(n, Value(doc[i:end:end]), nil)
			yield(n+1, nil, errCutOff)
			return n + 2, -1
		case ok && doc[next] == ']':
			yield(n, Value(doc[i:end:end]), nil)
			return n + 1, next + 1
		case ok && doc[next] == ',':
			yield(n, Value(doc[i:end:end]), nil)
			i = next + 1
			continue
		case ok && doc[next] == '{' && doc[i] == '{': // whole, only the comma is missing
			yield(n, Value(doc[i:end:end]), nil)
			i = next
			continue
		case !ok:
			// Go on from the last string, because a missing quote makes a
			// string swallow what follows. A string holds no further quote, so
			// nothing is read twice for long.
			end = max(i, min(s.string, end))
		}
		yield(n, nil, errNotJSON)
		if i = resume(doc, end, doc[i] == '{'); i < 0 {
			return n + 1, -1
		}
	}
}

// resume returns the index of the next object that follows a comma, and before
// it "}" when the damage is inside an object; -1 when there is none.
func resume(doc []byte, i int, inObject bool) int {
	before := byte(',')
	if inObject {
		before = '}'
	}
	for i < len(doc) {
		at := bytes.IndexByte(doc[i:], before)
		if at < 0 {
			return -1
		}
		i += at + 1
		next := i
		if inObject {
			if next = skipSpace(doc, next); next >= len(doc) || doc[next] != ',' {
				continue
			}
			next++
		}
		if next = skipSpace(doc, next); next < len(doc) && doc[next] == '{' {
			return next
		}
	}
	return -1
}

// Lines calls yield for every line of a JSON Lines body. Blank lines, CRLF and
// a missing final newline are fine; i counts the lines that are not blank.
func Lines(doc []byte, yield func(i int, v Value, err error)) {
	doc = trim(doc)
	for i := 0; len(doc) > 0; {
		line, rest, _ := bytes.Cut(doc, []byte{'\n'})
		doc = rest
		if line = trim(line); len(line) == 0 {
			continue
		}
		if i == maxRecords {
			yield(i, nil, errTooMany)
			return
		}
		if v, ok := Document(line); ok {
			yield(i, v, nil)
		} else {
			yield(i, nil, errNotJSON)
		}
		i++
	}
}
