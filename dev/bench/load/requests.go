package load

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/url"
	"strings"
	"time"
)

// Target is a source of aftersend that gets callbacks.
type Target struct {
	ESP    string `json:"esp"`    // mandrill or mailtrap
	URL    string `json:"url"`    // as the ESP has it; Mandrill signs it
	Secret string `json:"secret"` // the webhook's key
	Weight int    `json:"weight"` // its share of the messages
}

const (
	digits = 10 // of a sequence number, always written in full, so that a request can be patched in place
	// block is how many messages begin before the second event of the first of them follows: far enough apart to be in
	// different commits, as in life.
	block = 256
)

// marker precedes an event's sequence number, in a field that reaches the subscriber as it is.
func marker(nonce string) string { return "bench-" + nonce + "-" }

// placeholders stand in the JSON of the templates for what is patched in.
const (
	sequenceHere = "0000000001"
	messageHere  = "0000000002"
)

// story is the words of one ESP for the life of a message. Of 20 messages most go well; one is deferred first, one bounces.
type story struct{ first, second []string }

var stories = map[string]story{
	"mandrill": {
		first:  weighted(map[int]string{1: "deferral"}, "send"),
		second: weighted(map[int]string{2: "hard_bounce"}, "delivered"),
	},
	"mailtrap": {
		first:  weighted(map[int]string{1: "soft bounce", 2: "soft bounce"}, "delivery"),
		second: weighted(map[int]string{1: "delivery", 2: "bounce"}, "open"),
	},
}

func weighted(some map[int]string, most string) []string {
	words := make([]string, 20)
	for i := range words {
		words[i] = most
		if w, ok := some[i]; ok {
			words[i] = w
		}
	}
	return words
}

// templates are the requests of a run, one for every source and word. Each connection has its own, since they are patched.
type templates struct {
	perMessage int
	cycle      []int // target of message i mod len
	targets    []target
}

type target struct {
	Target
	words map[string]*request
	story story
}

// request is a whole HTTP request whose sequence number, message number and signature are patched in place.
type request struct {
	wire      []byte
	signed    []byte // what the signature is over
	sequences []slot
	messages  []slot
	signature []byte // in wire
	sign      func(signed, signature []byte)
}

// slot is a place of digits in wire and in what is signed.
type slot struct{ wire, signed []byte }

func newTemplates(targets []Target, perMessage int, nonce string, now time.Time) (*templates, error) {
	t := &templates{perMessage: max(1, perMessage)}
	for i, with := range targets {
		s, ok := stories[with.ESP]
		if !ok {
			return nil, fmt.Errorf("no requests for the ESP %q: have mandrill and mailtrap", with.ESP)
		}
		made := target{Target: with, words: map[string]*request{}, story: s}
		for _, words := range [][]string{s.first, s.second} {
			for _, word := range words {
				if made.words[word] != nil {
					continue
				}
				r, err := newRequest(with, word, nonce, now)
				if err != nil {
					return nil, err
				}
				made.words[word] = r
			}
		}
		t.targets = append(t.targets, made)
		for range with.Weight {
			t.cycle = append(t.cycle, i)
		}
	}
	if len(t.cycle) == 0 {
		return nil, fmt.Errorf("no target has a weight")
	}
	return t, nil
}

func newRequest(t Target, word, nonce string, now time.Time) (*request, error) {
	to, err := url.Parse(t.URL)
	if err != nil {
		return nil, fmt.Errorf("callback URL: %w", err)
	}
	var body, prefix, signedBody, contentType, header string
	var size int
	var mac hash.Hash
	var encode func(dst, sum []byte)
	switch t.ESP {
	case "mandrill":
		list := "[" + mandrillEvent(word, nonce, now) + "]"
		body = "mandrill_events=" + url.QueryEscape(list)
		prefix, signedBody = t.URL+"mandrill_events", list
		contentType, header = "application/x-www-form-urlencoded", "X-Mandrill-Signature"
		mac, size, encode = hmac.New(sha1.New, []byte(t.Secret)), base64.StdEncoding.EncodedLen(sha1.Size), base64.StdEncoding.Encode
	case "mailtrap":
		body = `{"events":[` + mailtrapEvent(word, nonce, now) + `]}`
		signedBody = body
		contentType, header = "application/json", "Mailtrap-Signature"
		mac, size = hmac.New(sha256.New, []byte(t.Secret)), hex.EncodedLen(sha256.Size)
		encode = func(dst, sum []byte) { hex.Encode(dst, sum) }
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s-Webhook/1.0\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s: ",
		to.RequestURI(), to.Host, t.ESP, contentType, len(body), header)
	r := &request{
		wire:   []byte(head + strings.Repeat("=", size) + "\r\n\r\n" + body),
		signed: []byte(prefix + signedBody),
	}
	r.signature = r.wire[len(head):][:size]
	wireBody := r.wire[len(r.wire)-len(body):]
	r.sequences = slots(wireBody, r.signed, sequenceHere)
	r.messages = slots(wireBody, r.signed, messageHere)
	var sum []byte
	r.sign = func(signed, signature []byte) {
		mac.Reset()
		mac.Write(signed)
		sum = mac.Sum(sum[:0])
		encode(signature, sum)
	}
	return r, nil
}

// slots finds the places of a placeholder, which are equally many and equally ordered in both texts.
func slots(wire, signed []byte, placeholder string) []slot {
	var found []slot
	for {
		i, j := bytes.Index(wire, []byte(placeholder)), bytes.Index(signed, []byte(placeholder))
		if i < 0 || j < 0 {
			return found
		}
		found = append(found, slot{wire[i:][:digits:digits], signed[j:][:digits:digits]})
		wire, signed = wire[i+digits:], signed[j+digits:]
	}
}

// mandrillEvent is an element of mandrill_events as Mandrill documents it; about 700 bytes when it is form-encoded.
func mandrillEvent(word, nonce string, now time.Time) string {
	state, diag, description := "sent", "null", "null"
	switch word {
	case "deferral":
		state, diag = "deferred", `"451 4.3.0 try again later"`
	case "hard_bounce":
		state, diag, description = "bounced", `"smtp;550 5.1.1 no such user"`, `"bad_mailbox"`
	}
	id := "msg" + nonce + messageHere
	return fmt.Sprintf(`{"event":%q,"_id":%q,"ts":%d,"msg":{"ts":%d,"_id":%q,"state":%q,"subject":"Your order has left our house",`+
		`"email":"customer.%s.%s@example.com","sender":"shop@mail.example.com","tags":["order"],"metadata":{"seq":"%s%s"},`+
		`"opens":[],"clicks":[],"smtp_events":[],"diag":%s,"bounce_description":%s}}`,
		word, id, timeOf(word, now), timeOf("send", now), id, state, nonce, messageHere, marker(nonce), sequenceHere, diag, description)
}

// mailtrapEvent is an element of events as Mailtrap documents it; with what real variables hold, about 700 bytes.
func mailtrapEvent(word, nonce string, now time.Time) string {
	more := ""
	switch word {
	case "soft bounce":
		more = `,"response":"451 4.3.0 try again later","response_code":451,"bounce_category":"greylisting"`
	case "bounce":
		more = `,"response":"550 5.1.1 no such user","response_code":550,"bounce_category":"badrecipient"`
	case "open":
		more = `,"ip":"198.51.100.77","user_agent":"Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"`
	}
	return fmt.Sprintf(`{"event":%q,"message_id":"%s00-0000-4000-8000-00%s","event_id":"%s00-0000-4000-9000-00%s","timestamp":%d,`+
		`"email":"customer.%s.%s@example.com","sending_stream":"transactional","sending_domain_name":"mail.example.com","category":"order",`+
		`"custom_variables":{"seq":"%s%s","order":"2026-004711","campaign":"autumn","shop":"Example & Sons, 1 Example Street, Exampleton",`+
		`"note":"a customer's own words may be here, and ESPs hand them through as they were sent"}%s}`,
		word, nonce, messageHere, nonce, sequenceHere, timeOf(word, now), nonce, messageHere, marker(nonce), sequenceHere, more)
}

// timeOf spreads the words of a story over the seconds before now, in their order.
func timeOf(word string, now time.Time) int64 {
	switch word {
	case "send", "deferral", "soft bounce":
		return now.Unix() - 3
	case "open":
		return now.Unix() - 1
	}
	return now.Unix() - 2
}

// request returns the bytes to send for a sequence number; they are valid until the next call.
func (t *templates) request(sequence int64) []byte {
	span := int64(block * t.perMessage)
	message, phase := sequence/span*block+sequence%block, sequence%span/block
	to := &t.targets[t.cycle[message%int64(len(t.cycle))]]
	words := to.story.first
	if phase > 0 {
		words = to.story.second
	}
	r := to.words[words[message/int64(len(t.cycle))%int64(len(words))]]
	for _, s := range r.sequences {
		s.write(sequence)
	}
	for _, s := range r.messages {
		s.write(message)
	}
	r.sign(r.signed, r.signature)
	return r.wire
}

func (s slot) write(n int64) {
	for i := digits - 1; i >= 0; i-- {
		s.wire[i] = byte('0' + n%10)
		n /= 10
	}
	copy(s.signed, s.wire)
}
