package sns

import (
	"context"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // version 1
	_ "crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
)

// Trust returns why a certificate, the first of chain, is not the service's;
// the others are what was published beside it. now is zero when no clock is to
// be asked.
type Trust func(chain []*x509.Certificate, s esp.Secrets, now time.Time) error

// What a Timestamp may differ from the time of receipt. It is when a message
// was published, so retries must fit; repeats are recognised anyway, by the
// message id.
const (
	maxAge   = 24 * time.Hour
	maxAhead = 15 * time.Minute
)

// hashes are the digests by SignatureVersion.
var hashes = map[string]crypto.Hash{"1": crypto.SHA1, "2": crypto.SHA256}

// signed are the members that a signature covers, by Type, in the order in
// which it covers them; those a message does not have are left out.
var signed = map[string][]string{
	notification:   {"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"},
	subscription:   {"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"},
	unsubscription: {"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"},
}

// Verify does the work of esp.Verifier: topic, age, then the RSA signature
// (PKCS #1 v1.5) with the certificate that the message names. UnsubscribeURL
// and the headers are not signed, and nothing here believes them.
func (s Service) Verify(ctx context.Context, req esp.Request, v esp.Verification) error {
	doc, _ := espkit.Document(req.Body)
	envelope := doc.Object()
	if !envelope.Get("Signature").Present() {
		return esp.ErrUnsigned // raw delivery among others
	}
	if !slices.Contains(topics(v.Secrets), envelope.Get("TopicArn").String()) {
		return espkit.Forged("the message is not from the topic entered here")
	}
	if err := fresh(envelope, v.Now); err != nil {
		return err
	}
	hash, ok := hashes[envelope.Get("SignatureVersion").String()]
	if !ok {
		return espkit.Forged("SignatureVersion is neither 1 nor 2")
	}
	text, ok := canonical(envelope)
	if !ok {
		return espkit.Forged("the message is of no known type")
	}
	signature, err := base64.StdEncoding.DecodeString(envelope.Get("Signature").String())
	if err != nil {
		return espkit.Forged("Signature is not base64")
	}
	key, err := s.key(ctx, envelope.Get("SigningCertURL").String(), v)
	if err != nil {
		return err
	}
	if rsa.VerifyPKCS1v15(key, hash, digest(hash, text), signature) != nil {
		return espkit.Forged("Signature does not match the message")
	}
	return nil
}

func fresh(envelope espkit.Object, now time.Time) error {
	if now.IsZero() {
		return nil
	}
	published := espkit.Time(envelope.Get("Timestamp").String())
	if age := now.Sub(published); published.IsZero() || age > maxAge || age < -maxAhead {
		return espkit.Forged("Timestamp is too far from the time of receipt")
	}
	return nil
}

// canonical is what is signed: name and value of each covered member, every
// one ended by a line feed.
func canonical(envelope espkit.Object) (string, bool) {
	names, ok := signed[envelope.Get("Type").String()]
	var text []byte
	for _, name := range names {
		if value := envelope.Get(name); value.Present() {
			text = append(append(append(append(text, name...), '\n'), value.String()...), '\n')
		}
	}
	return string(text), ok
}

func digest(hash crypto.Hash, text string) []byte {
	h := hash.New()
	h.Write([]byte(text))
	return h.Sum(nil)
}

// key returns the public key of the certificate behind a URL.
func (s Service) key(ctx context.Context, raw string, v esp.Verification) (*rsa.PublicKey, error) {
	u := at(raw, s.CertificateHost)
	if u == nil || u.RawQuery != "" || u.Fragment != "" || !s.CertificateFile.MatchString(u.Path) {
		return nil, espkit.Forged("SigningCertURL is not where the service publishes its certificates")
	}
	if v.Keys == nil {
		return nil, esp.ErrUnverified
	}
	data, err := v.Keys.Certificate(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("get the signing certificate: %w", err)
	}
	chain := Certificates(data)
	if len(chain) == 0 {
		return nil, espkit.Forged("there is no certificate behind SigningCertURL")
	}
	if s.Trust != nil {
		if err := s.Trust(chain, v.Secrets, v.Now); err != nil {
			return nil, err
		}
	}
	key, ok := chain[0].PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, espkit.Forged("the signing certificate has no RSA key")
	}
	return key, nil
}

// Certificates reads PEM. What is no certificate is skipped.
func Certificates(data []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return out
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
}
