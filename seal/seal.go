// Package seal keeps secrets that must be read back (verification secrets,
// endpoint credentials, signing secrets) encrypted in the database:
// AES-256-GCM, with the key's id and a random nonce in front, bound to the
// table, column and row they belong to, so that a sealed value copied to
// another row does not open.
//
// What need not be read back (API tokens, passwords) is hashed instead.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"aftersend/id"
)

// ErrOpen is returned when a value does not open: unknown key, another row, or damage.
var ErrOpen = errors.New("sealed value does not open: unknown key id, or it belongs to another row")

// Key is an AES-256 key with a short id that is stored beside what it sealed.
type Key struct {
	ID    byte
	Bytes [32]byte
}

// ParseKeys reads "1:base64,2:base64" (32 bytes each). The first key seals, all
// of them open; a rotation puts the new key in front.
func ParseKeys(s string) ([]Key, error) {
	var keys []Key
	for part := range strings.SplitSeq(s, ",") {
		var k Key
		name, enc, ok := strings.Cut(strings.TrimSpace(part), ":")
		if _, err := fmt.Sscanf(name, "%d", &k.ID); err != nil || !ok {
			return nil, errors.New("sealing key: want <id 0..255>:<base64 of 32 bytes>")
		}
		raw, err := base64.StdEncoding.DecodeString(enc)
		if err != nil || len(raw) != len(k.Bytes) {
			return nil, fmt.Errorf("sealing key %d: want base64 of 32 bytes", k.ID)
		}
		copy(k.Bytes[:], raw)
		keys = append(keys, k)
	}
	return keys, nil
}

// NewKey makes a random key.
func NewKey(keyID byte) Key {
	k := Key{ID: keyID}
	_, _ = rand.Read(k.Bytes[:]) // never fails, see crypto/rand
	return k
}

// String spells the key as ParseKeys reads it. It is a secret.
func (k Key) String() string {
	return fmt.Sprintf("%d:%s", k.ID, base64.StdEncoding.EncodeToString(k.Bytes[:]))
}

// Box seals and opens. Safe for concurrent use.
type Box struct {
	first byte
	aead  map[byte]cipher.AEAD
}

// New makes a box from at least one key.
func New(keys ...Key) (*Box, error) {
	if len(keys) == 0 {
		return nil, errors.New("no sealing key: set one, for example with `aftersend keys generate`")
	}
	b := &Box{first: keys[0].ID, aead: map[byte]cipher.AEAD{}}
	for _, k := range keys {
		block, err := aes.NewCipher(k.Bytes[:])
		if err != nil {
			return nil, fmt.Errorf("sealing key %d: %w", k.ID, err)
		}
		if b.aead[k.ID], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("sealing key %d: %w", k.ID, err)
		}
	}
	return b, nil
}

// Seal encrypts plain for one column of one row.
func (b *Box) Seal(plain []byte, table, column string, row id.ID) []byte {
	gcm := b.aead[b.first]
	out := make([]byte, 1+gcm.NonceSize(), 1+gcm.NonceSize()+len(plain)+gcm.Overhead())
	out[0] = b.first
	_, _ = rand.Read(out[1:])
	return gcm.Seal(out, out[1:], plain, bound(table, column, row))
}

// Open decrypts what Seal made for the same table, column and row.
func (b *Box) Open(sealed []byte, table, column string, row id.ID) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, ErrOpen
	}
	gcm, ok := b.aead[sealed[0]]
	if !ok || len(sealed) < 1+gcm.NonceSize() {
		return nil, ErrOpen
	}
	nonce, box := sealed[1:1+gcm.NonceSize()], sealed[1+gcm.NonceSize():]
	plain, err := gcm.Open(nil, nonce, box, bound(table, column, row))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func bound(table, column string, row id.ID) []byte {
	return append([]byte(table+"."+column+"\x00"), row[:]...)
}
