package postal

import (
	"context"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // what Postal before version 3 signs with
	_ "crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"aftersend/esp"
	"aftersend/esp/espkit"
)

const (
	headerSHA1   = "X-Postal-Signature"
	headerSHA256 = "X-Postal-Signature-256"
)

// Verify implements esp.Verifier: RSA (PKCS #1 v1.5) over the body as received.
// The signature with SHA-256 decides when there is one; older Postal has only
// the one with SHA-1.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	name, hash := headerSHA256, crypto.SHA256
	posted := req.Header.Get(name)
	if posted == "" {
		name, hash = headerSHA1, crypto.SHA1
		posted = req.Header.Get(name)
	}
	if posted == "" {
		return esp.ErrUnsigned
	}
	signature, err := base64.StdEncoding.DecodeString(posted)
	if err != nil {
		return espkit.Forged(name + " is not base64")
	}
	key, err := publicKey(v.Secrets["public_key"])
	if err != nil {
		return espkit.Forged(err.Error())
	}
	if rsa.VerifyPKCS1v15(key, hash, digest(hash, req.Body), signature) != nil {
		return espkit.Forged(name + " does not match the body; is the public key this Postal's?")
	}
	return nil
}

func digest(hash crypto.Hash, body []byte) []byte {
	h := hash.New()
	h.Write(body)
	return h.Sum(nil)
}

var errKey = errors.New("the public key entered here is no RSA key; copy the record that postal default-dkim-record prints")

// publicKey reads a DKIM record (RFC 6376, 3.6.1), the key out of one, or PEM.
func publicKey(entered string) (*rsa.PublicKey, error) {
	for tag := range strings.SplitSeq(entered, ";") {
		if name, value, ok := strings.Cut(tag, "="); ok && strings.TrimSpace(name) == "p" {
			entered = value
			break
		}
	}
	var text strings.Builder
	for line := range strings.Lines(entered) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			text.WriteString(strings.Trim(line, `" `))
		}
	}
	der, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		return nil, errKey
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, errKey
	}
	return key, nil
}

// signSample signs as Postal does, with a stand-in for its key.
func signSample(req *esp.Request, key string) error {
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return errors.New("decode the sample key: it is not base64")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("parse the sample key: it is no RSA key in PKCS #8 form")
	}
	for name, hash := range map[string]crypto.Hash{headerSHA1: crypto.SHA1, headerSHA256: crypto.SHA256} {
		signature, err := rsa.SignPKCS1v15(nil, private, hash, digest(hash, req.Body))
		if err != nil {
			return fmt.Errorf("sign a sample: %w", err)
		}
		req.Header.Set(name, base64.StdEncoding.EncodeToString(signature))
	}
	req.Header.Set("X-Postal-Signature-Kid", "sample")
	return nil
}
