package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks 1.0.0.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// secretPrefix marks a symmetric signing secret in Standard Webhooks.
const secretPrefix = "whsec_"

// ErrBadSecret means that a text is not a signing secret.
var ErrBadSecret = errors.New("signing secret: want whsec_ and the base64 of 24 to 64 bytes")

// NewKey makes a signing key of 32 bytes from a source of randomness
// (crypto/rand.Reader).
func NewKey(random io.Reader) ([]byte, error) {
	key := make([]byte, 32)
	_, err := io.ReadFull(random, key)
	return key, err
}

// Secret spells a signing key as consumers get it: "whsec_" and base64.
func Secret(key []byte) string { return secretPrefix + base64.StdEncoding.EncodeToString(key) }

// ParseSecret reads what Secret wrote. The error never repeats the text.
func ParseSecret(s string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(s, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, ErrBadSecret
	}
	return key, nil
}

// Sign is the value of the signature header for one request (Standard
// Webhooks: HMAC-SHA256 over "id.seconds.body"), with one signature for each
// key, so that during a rotation holders of either can verify.
func Sign(keys [][]byte, messageID string, at time.Time, body []byte) string {
	signatures := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key)
		_, _ = io.WriteString(mac, messageID+"."+timestamp(at)+".")
		_, _ = mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " ")
}

func timestamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// MailtrapSecret spells a signing key in Mailtrap's shape, 32 hexadecimal
// digits; consumers written for Mailtrap use that text as the key.
func MailtrapSecret(key []byte) string { return hex.EncodeToString(key[:min(len(key), 16)]) }

// SignMailtrap is the value of Mailtrap's signature header: hexadecimal
// HMAC-SHA256 of the body. It covers no time, so it does not stop replays.
func SignMailtrap(key, body []byte) string {
	mac := hmac.New(sha256.New, []byte(MailtrapSecret(key)))
	_, _ = mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
