// Package id makes and spells the identifiers of aftersend: UUIDv7 in the
// database, so that rows sort and partition by time, and a prefixed spelling
// in JSON, logs and pages, so that a person sees what an identifier names
// ("evt_01jg…"). The spelling is that of TypeID: the prefix, an underscore and
// the 128 bits in Crockford's base 32, lower case, 26 characters.
//
// It knows nothing of the rest of the product.
package id

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// ID is a UUIDv7 (RFC 9562, section 5.7) as the database holds it.
type ID = uuid.UUID

// Nil is the absent identifier.
var Nil ID

// Prefix says what an identifier names; it stands before the underscore.
type Prefix string

// The prefixes in use, one per kind of thing.
const (
	Callback    Prefix = "cb"
	Group       Prefix = "grp"
	Event       Prefix = "evt"
	Message     Prefix = "msg"
	Suppression Prefix = "sup"
	Webhook     Prefix = "wh"
	Batch       Prefix = "bat"
	Attempt     Prefix = "att"
	Source      Prefix = "src"
	Notice      Prefix = "ntc"
	Key         Prefix = "key"
	User        Prefix = "usr"
	Account     Prefix = "acc"
	Rejected    Prefix = "rej"
	Activity    Prefix = "act"
	Cohort      Prefix = "coh"
)

// ErrBad is wrapped by Parse for anything that is not an identifier of the
// wanted kind.
var ErrBad = errors.New("not a valid id")

// New returns a fresh identifier. Identifiers made by one process ascend, also
// within a millisecond. It panics only when the system has no randomness.
func New() ID { return uuid.Must(uuid.NewV7()) }

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

var decode = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// Format spells an identifier with its prefix. The nil identifier is "".
func (p Prefix) Format(u ID) string {
	if u == Nil {
		return ""
	}
	b := make([]byte, 0, len(p)+27)
	b = append(append(b, p...), '_')
	return string(appendBase32(b, u))
}

func appendBase32(b []byte, u ID) []byte {
	hi, lo := binary.BigEndian.Uint64(u[:8]), binary.BigEndian.Uint64(u[8:])
	var out [26]byte
	for i := 25; i >= 0; i-- {
		out[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return append(b, out[:]...)
}

// Parse reads what Format wrote. A plain UUID is accepted too, since that is
// what a person copies out of psql. The error wraps ErrBad and never repeats
// more than the prefix it was given.
func (p Prefix) Parse(s string) (ID, error) {
	if len(s) == 36 {
		if u, err := uuid.Parse(s); err == nil {
			return u, nil
		}
	}
	if len(s) != len(p)+27 || s[:len(p)] != string(p) || s[len(p)] != '_' {
		return Nil, fmt.Errorf("%w: want %s_ and 26 characters", ErrBad, p)
	}
	digits := s[len(p)+1:]
	if decode[digits[0]] > 7 {
		return Nil, fmt.Errorf("%w: %s_… is out of range", ErrBad, p)
	}
	var hi, lo uint64
	for i := range len(digits) {
		d := decode[digits[i]]
		if d == 0xff {
			return Nil, fmt.Errorf("%w: %s_… has a character outside Crockford's base 32", ErrBad, p)
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(d)
	}
	var u ID
	binary.BigEndian.PutUint64(u[:8], hi)
	binary.BigEndian.PutUint64(u[8:], lo)
	return u, nil
}

// Time returns the millisecond a UUIDv7 was made in, UTC.
func Time(u ID) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(u[:8]) >> 16)).UTC()
}

// Floor returns the lowest identifier that can be made at or after t. Day
// partitions are bounded by it and time filters are turned into it.
func Floor(t time.Time) ID {
	var u ID
	binary.BigEndian.PutUint64(u[:8], uint64(t.UnixMilli())<<16)
	return u
}
