package correlate

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"aftersend/event"
	"aftersend/id"
)

// Kind says by what a message is recognised.
type Kind byte

// The kinds of message keys, each together with the recipient in lower case.
const (
	ByMessageID  Kind = 'e' // the ESP's message id, within the source
	ByRFC        Kind = 'm' // Message-ID header (RFC 5322, 3.6.4), within the account
	ByReturnPath Kind = 'r' // envelope sender that names one message (VERP), within the account
)

// MessageKey is one way to recognise the message of an event. Two messages
// that share a key are one.
type MessageKey struct {
	Kind Kind
	Key  Key
}

// Origin is where an event came from.
type Origin struct {
	Account, Source id.ID
	// MessageIDIsRFC: this ESP's message id is the Message-ID header.
	MessageIDIsRFC bool
}

// Recipient is how addresses are compared. RFC 5321 lets a host tell cases
// apart in the local part; none that matters does, and ESPs change the case.
func Recipient(e *event.Event) string { return strings.ToLower(e.Recipient) }

// MessageKeys appends the keys of an event's message to dst; none when the
// event names no message.
func MessageKeys(dst []MessageKey, o Origin, e *event.Event) []MessageKey {
	recipient := Recipient(e)
	if e.MessageID != "" {
		dst = append(dst, MessageKey{ByMessageID, hash(byte(ByMessageID), o.Source[:], e.MessageID, recipient)})
	}
	rfc := e.RFCMessageID
	if rfc == "" && o.MessageIDIsRFC {
		rfc = e.MessageID
	}
	if rfc = strings.Trim(rfc, "<> \t"); rfc != "" {
		dst = append(dst, MessageKey{ByRFC, hash(byte(ByRFC), o.Account[:], rfc, recipient)})
	}
	if path := strings.ToLower(strings.Trim(e.ReturnPath, "<> \t")); namesOneMessage(path, recipient) {
		dst = append(dst, MessageKey{ByReturnPath, hash(byte(ByReturnPath), o.Account[:], path, recipient)})
	}
	return dst
}

// EventKey recognises repeats of an event: by the ESP's event id, else by the
// record as posted; an event that has neither is its own (callback, ordinal).
func EventKey(o Origin, e *event.Event, callback id.ID, ordinal int) Key {
	recipient := Recipient(e)
	switch {
	case e.EventID != "":
		return hash('i', o.Source[:], e.EventID, recipient, e.ESPType)
	case len(e.Record) > 0:
		record := sha256.Sum256(e.Record)
		return hash('d', o.Source[:], string(record[:]), recipient, e.ESPType)
	}
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(ordinal))
	return hash('c', callback[:], string(n[:]))
}

// ExpiryKey is the key of the event by which a group gives up on a message.
func ExpiryKey(group, message id.ID) Key { return hash('x', group[:], string(message[:])) }

// hash sets every part off by its length, so that no two lists of parts look
// the same.
func hash(kind byte, scope []byte, parts ...string) Key {
	b := make([]byte, 0, 256)
	b = append(append(b, kind), scope...)
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	return Key(sum[:16])
}

// namesOneMessage reports whether a return path was made for one message: its
// local part has, besides the recipient, a token that looks like an id. Many
// senders use one return path for everything, or one per recipient
// ("bounces+user=example.com@…"); taking those for a message's name would make
// one of all that was ever sent to somebody.
func namesOneMessage(path, recipient string) bool {
	local, domain, ok := strings.Cut(path, "@")
	if !ok || local == "" || domain == "" {
		return false
	}
	if user, host, ok := strings.Cut(recipient, "@"); ok {
		for _, spelled := range []string{user + "=" + host, user + "-at-" + host, user + "-" + host} {
			local = strings.ReplaceAll(local, spelled, "+")
		}
	}
	// BATV (draft-levine-smtp-batv): the tag is of the sender and the day.
	if rest, ok := strings.CutPrefix(local, "prvs="); ok {
		_, local, _ = strings.Cut(rest, "=")
	}
	separator := func(r rune) bool { return strings.ContainsRune("+-=._/", r) }
	return slices.ContainsFunc(strings.FieldsFunc(local, separator), looksLikeID)
}

// looksLikeID: long, with several digits, and not a word with a year or date
// behind it ("newsletter2026").
func looksLikeID(token string) bool {
	digits := 0
	for _, c := range []byte(token) {
		if '0' <= c && c <= '9' {
			digits++
		}
	}
	word := strings.TrimRight(token, "0123456789")
	dated := word != "" && len(word)+digits == len(token) && digits <= len("20260102")
	return len(token) > len("20260102") && digits >= 3 && !dated
}
