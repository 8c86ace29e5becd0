package sendgrid

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
)

const (
	signatureHeader = "X-Twilio-Email-Event-Webhook-Signature"
	timestampHeader = "X-Twilio-Email-Event-Webhook-Timestamp"
)

// What the signed time may differ from the time of receipt. SendGrid retries
// for 24 hours, and does not say whether it signs anew each time; repeats are
// recognised anyway, by the event id.
const (
	maxAge   = 25 * time.Hour
	maxAhead = 15 * time.Minute
)

// Verify implements esp.Verifier: ECDSA on P-256 with SHA-256 over the
// timestamp header and the body as received.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	posted, timestamp := req.Header.Get(signatureHeader), req.Header.Get(timestampHeader)
	if posted == "" {
		return esp.ErrUnsigned
	}
	signature, err := base64.StdEncoding.DecodeString(posted)
	if err != nil {
		return espkit.Forged(signatureHeader + " is not base64")
	}
	key, err := publicKey(v.Secrets["public_key"])
	if err != nil {
		return espkit.Forged(err.Error())
	}
	if !ecdsa.VerifyASN1(key, digest(timestamp, req.Body), signature) {
		return espkit.Forged(signatureHeader + " does not match; is the verification key this webhook's?")
	}
	if v.Now.IsZero() {
		return nil
	}
	signed := espkit.Time(timestamp)
	if age := v.Now.Sub(signed); signed.IsZero() || age > maxAge || age < -maxAhead {
		return espkit.Forged(timestampHeader + " is too far from the time of receipt")
	}
	return nil
}

func digest(timestamp string, body []byte) []byte {
	h := sha256.New()
	h.Write([]byte(timestamp))
	h.Write(body)
	return h.Sum(nil)
}

var errKey = errors.New("the verification key entered here is no ECDSA public key; copy it from SendGrid again")

// publicKey reads base64 as SendGrid shows it, with or without the lines of
// PEM around it.
func publicKey(entered string) (*ecdsa.PublicKey, error) {
	var text strings.Builder
	for line := range strings.Lines(entered) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			text.WriteString(line)
		}
	}
	der, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		return nil, errKey
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok {
		return nil, errKey
	}
	return key, nil
}

// signSample signs as SendGrid does, with a stand-in for its key.
func signSample(req *esp.Request, key, timestamp string) error {
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return errors.New("decode the sample key: it is not base64")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("parse the sample key: it is no ECDSA key in PKCS #8 form")
	}
	// Without a source of randomness the signature depends on its input only (RFC 6979).
	signature, err := private.Sign(nil, digest(timestamp, req.Body), crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign a sample: %w", err)
	}
	req.Header.Set(signatureHeader, base64.StdEncoding.EncodeToString(signature))
	req.Header.Set(timestampHeader, timestamp)
	return nil
}
