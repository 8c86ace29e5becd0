package webhook

import (
	"slices"

	"aftersend/id"
)

// MaxBatchEvents is how many events one batch carries at most.
const MaxBatchEvents = 500

// Item is one event of a batch: its id and its native JSON as recorded.
type Item struct {
	ID   id.ID
	Data []byte
}

// Post is what one request carries.
type Post struct {
	ContentType string
	Body        []byte
}

// dialect is what there is to know about speaking as a provider does.
type dialect struct {
	types   typeSet  // event types it has words for
	formats []Format // the first is the default
	success Success  // what the provider itself takes for delivered
	singly  bool     // one event per request
	// encode writes one request; no body when the dialect has no words for
	// any of the items.
	encode func(f Format, items []Item) (Post, error)
}

var dialects = map[Dialect]dialect{
	DialectNative: {
		types:   ^typeSet(0),
		formats: []Format{FormatJSON, FormatJSONL},
		success: Success2xx,
		encode:  encodeNative,
	},
}

func (d Dialect) speaks() typeSet { return dialects[d].types }

// Singly reports whether the dialect takes one event per request, so that a
// batch is delivered as many requests, each with the event's id.
func (d Dialect) Singly() bool { return dialects[d].singly }

// Known reports whether webhooks can speak the dialect.
func (d Dialect) Known() bool { _, ok := dialects[d]; return ok }

// Dialects lists the dialects webhooks can speak.
func Dialects() []Dialect {
	var known []Dialect
	for _, d := range []Dialect{DialectNative, DialectMailtrap, DialectMumara, DialectEverlytic, DialectSMTPeter} {
		if d.Known() {
			known = append(known, d)
		}
	}
	return known
}

// Formats lists the formats of a dialect, its default first.
func (d Dialect) Formats() []Format { return slices.Clone(dialects[d].formats) }

// Encode writes what one request carries: all items of a batch, or exactly one
// where the dialect takes them singly. The body is empty when the dialect has
// no words for any of them. The same items always give the same bytes.
func Encode(d Dialect, f Format, items []Item) (Post, error) {
	return dialects[d].encode(f, items)
}

// encodeNative joins what is recorded, byte for byte: {"events":[…]}, or one
// event a line.
func encodeNative(f Format, items []Item) (Post, error) {
	open, separator, end, contentType := `{"events":[`, byte(','), "]}", "application/json"
	if f == FormatJSONL {
		open, separator, end, contentType = "", '\n', "\n", "application/jsonl"
	}
	size := len(open) + len(end)
	for i := range items {
		size += len(items[i].Data) + 1
	}
	body := append(make([]byte, 0, size), open...)
	for i := range items {
		if i > 0 {
			body = append(body, separator)
		}
		body = append(body, items[i].Data...)
	}
	return Post{ContentType: contentType, Body: append(body, end...)}, nil
}
