package sns

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
)

// envelope is a notification, its members in the order in which Amazon posts
// them.
type envelope struct {
	Type             string
	MessageId        string
	TopicArn         string
	Subject          string `json:",omitempty"`
	Message          string
	Timestamp        string
	SignatureVersion string
	Signature        string
	SigningCertURL   string
}

// Sample makes the POST in which the service would deliver a record published
// to the source's topic, or to the given one when it has none. It is signed
// (version 2) when the secrets hold esp.SampleKey.
func (s Service) Sample(rawURL, topic, subject, id string, record any, secrets esp.Secrets, now time.Time) (esp.Request, error) {
	text, err := marshal(record, "")
	if err != nil {
		return esp.Request{}, err
	}
	if entered := topics(secrets); len(entered) > 0 {
		topic = entered[0]
	}
	if id == "" {
		sum := sha256.Sum256(text)
		id = fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	}
	e := envelope{
		Type: notification, MessageId: id, TopicArn: topic, Subject: subject, Message: string(text),
		Timestamp: now.UTC().Format("2006-01-02T15:04:05.000Z"), SignatureVersion: "2", SigningCertURL: s.SampleCertificate,
	}
	if key := secrets[esp.SampleKey]; key != "" {
		if e.Signature, err = sign(e, key); err != nil {
			return esp.Request{}, err
		}
	}
	body, err := marshal(e, "  ")
	if err != nil {
		return esp.Request{}, err
	}
	req, err := espkit.NewRequest(rawURL, "text/plain; charset=UTF-8", body, now)
	if err != nil {
		return esp.Request{}, err
	}
	req.Header.Set("X-Amz-Sns-Message-Type", notification)
	req.Header.Set("X-Amz-Sns-Message-Id", id)
	req.Header.Set("X-Amz-Sns-Topic-Arn", topic)
	return req, nil
}

func sign(e envelope, key string) (string, error) {
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", errors.New("decode the sample key: it is not base64")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return "", errors.New("parse the sample key: it is no RSA key in PKCS #8 form")
	}
	posted, err := marshal(e, "")
	if err != nil {
		return "", err
	}
	doc, _ := espkit.Document(posted)
	text, _ := canonical(doc.Object())
	hash := hashes[e.SignatureVersion]
	signature, err := rsa.SignPKCS1v15(nil, private, hash, digest(hash, text))
	if err != nil {
		return "", fmt.Errorf("sign a sample: %w", err)
	}
	return base64.StdEncoding.EncodeToString(signature), nil
}

// marshal leaves <, > and & as they are, as the services do.
func marshal(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a sample: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}
