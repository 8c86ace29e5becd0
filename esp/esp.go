// Package esp is the contract between aftersend and an e-mail service
// provider (ESP): one adapter per ESP, one folder per adapter, which says how
// the ESP's callbacks are verified and what they mean. Adapters are pure: a
// request goes in, events and problems come out. Package esp/all lists them,
// package esp/esptest holds every one of them to the same rules.
//
// It may import package event and the standard library. It knows nothing of
// Gin, SQL or Temporal.
package esp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"aftersend/event"
)

// Request is one HTTP request from an ESP.
type Request struct {
	Method     string
	URL        string      // public URL as the ESP was given it, with path, token and query; some ESPs sign it
	Path       string      // path without query, token masked when read back from the store
	RawQuery   string      // query without "?"
	Header     http.Header // as received; Host is in it
	Body       []byte      // inflated when it came compressed, otherwise the bytes on the wire
	RemoteIP   netip.Addr  // the peer, or what a trusted proxy said; zero when unknown
	ReceivedAt time.Time   // UTC
}

// Result is what a callback said. A request that must be answered but says
// nothing (probe, ping, confirmation) has neither events nor problems.
type Result struct {
	Events   []event.Event // in payload order, one per recipient; ID, ESP, Source, ReceivedAt and Message are left to the caller
	Problems []Problem     // records that could not be understood, while others were

	// Confirm is a URL to fetch once, after the callback proved authentic, to
	// confirm a subscription (Amazon SNS). The adapter has checked its host.
	Confirm string
}

// Problem is one record of a callback that could not be understood. It is
// kept and shown; the other records go on.
type Problem struct {
	Record int    // position in the payload, from 0
	Reason string // what is wrong, for a person; never holds payload text
}

// Adapter understands the callbacks of one ESP. Implementations hold no state
// and are safe for concurrent use.
type Adapter interface {
	// Describe says everything the rest of the product needs to know about
	// this ESP without naming it: route, set-up guide, verification, answers.
	Describe() Description
	// Parse turns a callback into events. It is pure and never panics. The
	// error means that nothing at all could be read; it tells a person why
	// and wraps ErrUnreadable. An unknown event type is event.Unknown, not an
	// error. Parse keeps no reference to req.Body. Every event has its ESPType
	// and its Record. When all records are problems, both they and an error
	// are returned.
	Parse(req Request) (Result, error)
}

// Verifier is the ability to tell an authentic callback from a forged one by
// more than the token in its URL.
type Verifier interface {
	// Verify returns nil, ErrForged (wrapped with the reason, never with a
	// secret; ErrUnsigned when there is nothing to judge) or ErrUnverified
	// when keys cannot give the needed key without the network. It is called
	// with the secrets the operator entered, once Description.Verifiable says
	// that they suffice.
	Verify(ctx context.Context, req Request, v Verification) error
}

// Verification is what Verify works with.
type Verification struct {
	Secrets Secrets
	Keys    Keys      // public keys published by the ESP (certificates, DNS records)
	Now     time.Time // for replay windows: when the request was received; zero switches them off
}

// Secrets are the values the operator entered for a source, by Field.Name.
type Secrets map[string]string

// SampleKey names the private key (base64 of its PKCS #8 form) with which a
// Sampler signs for an ESP whose own key nobody else has. No source has it.
const SampleKey = "sample_key"

// Keys finds what an ESP publishes to verify its signatures. At intake it is
// a cache and answers ErrUnverified on a miss; in activities it asks the
// network.
type Keys interface {
	// Certificate returns the PEM behind an https URL whose host the adapter
	// has checked.
	Certificate(ctx context.Context, url string) ([]byte, error)
	// TXT returns the concatenated TXT record of a DNS name.
	TXT(ctx context.Context, name string) (string, error)
}

// Answerer is the ability to answer a request that is no callback: a probe
// with HEAD or GET, a URL confirmation. Without it HEAD and GET, and a POST
// with an empty body, are answered 200 with nothing. An ESP whose callbacks
// come with GET (Elastic Email) has it, and says false to them.
type Answerer interface {
	// Answer returns the reply and true when req must not be stored.
	Answer(req Request, s Secrets) (Reply, bool)
}

// Sampler is the ability to make realistic, correctly signed callbacks, for
// `aftersend send`, `simulate` and the tests of other rooms. Where the ESP
// signs with a private key of its own, the secret SampleKey stands in for it;
// without one the sample is not signed.
type Sampler interface {
	// Sample returns the request in which this ESP would report ev, or an
	// error when this ESP has no such event. url is the public callback URL.
	Sample(ev event.Event, url string, s Secrets, now time.Time) (Request, error)
}

// Reply answers a probe.
type Reply struct {
	Status      int
	ContentType string
	Body        string
}

// Description is what an adapter says about its ESP.
type Description struct {
	Name    string   // lower case, as in the route: "mandrill"
	Title   string   // as the ESP spells itself: "Mandrill (Mailchimp Transactional)"
	Aliases []string // former or other names that the route also accepts: "sendinblue"
	DocsURL string   // the ESP's page on callbacks

	// Protection tells a person, in one or two sentences, what keeps a forger
	// out: signature, basic auth, source addresses, or only the token.
	Protection string
	Fields     []Field // secrets and settings to enter for verification
	SetUp      []Step  // where to click and what to tick, in order

	// Retry tells a person what the ESP does when we do not answer 200.
	Retry string
	// RetryStatus is the HTTP status that makes the ESP post again later:
	// 503 for most, 429 for those that drop an event on any 5xx.
	RetryStatus int
	// MessageIDIsRFC says that the ESP's message id is the Message-ID header.
	MessageIDIsRFC bool
	// Types maps the ESP's own type words to ours, for docs and tests.
	Types []TypeMapping
}

// Verifiable reports whether s has what Verify needs: every required field.
// Until then there is only the token in the URL.
func (d Description) Verifiable(s Secrets) bool {
	required := 0
	for _, f := range d.Fields {
		if !f.Required {
			continue
		}
		if s[f.Name] == "" {
			return false
		}
		required++
	}
	return required > 0
}

// TypeMapping is one line of an adapter's event map.
type TypeMapping struct {
	Theirs string
	Ours   event.Type
	Note   string // why, where it is not obvious
}

// Field is one value the operator enters for a source.
type Field struct {
	Name     string // as in JSON: "signing_key"
	Label    string // for the form
	Help     string // where the ESP shows it
	Secret   bool   // sealed in the database, masked when shown
	Required bool   // verification is impossible without it
}

// Step is one step of a set-up guide; "{url}" in it stands for the source's URL.
type Step struct{ Text string }

// ErrUnreadable is wrapped by Parse when a callback says nothing readable.
var ErrUnreadable = errors.New("callback is not readable")

// ErrForged is wrapped by Verify when a callback is not authentic.
var ErrForged = errors.New("callback is not authentic")

// ErrUnsigned is the ErrForged of a callback that carries no signature at all.
var ErrUnsigned = fmt.Errorf("%w: it carries no signature", ErrForged)

// ErrUnverified is returned by Verify and Keys when the network is needed.
var ErrUnverified = errors.New("verification needs the network")
