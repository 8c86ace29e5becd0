package sns_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/espkit/sns"
)

const topic = "arn:x:sns:here:1:mine"

var (
	now     = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	service = sns.Service{
		CertificateHost:   regexp.MustCompile(`^sns\.[a-z0-9-]+\.example\.com$`),
		CertificateFile:   regexp.MustCompile(`\.pem$`),
		ConfirmHost:       regexp.MustCompile(`^sns\.[a-z0-9-]+\.example\.com$`),
		SampleCertificate: "https://sns.here.example.com/a.pem",
	}
)

// published is the keys that a service publishes. Asked for any other URL it
// fails the test: nothing may be fetched from elsewhere.
type published struct {
	t    *testing.T
	urls map[string][]byte
	err  error
}

func (p published) Certificate(_ context.Context, url string) ([]byte, error) {
	if p.err != nil {
		return nil, p.err
	}
	require.Contains(p.t, p.urls, url)
	return p.urls[url], nil
}

func (published) TXT(context.Context, string) (string, error) { return "", esp.ErrUnverified }

func newKey(t *testing.T) (secret string, certificate []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sns"}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(pkcs8), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// signed makes a post and what verifies it.
func signed(t *testing.T) (esp.Request, esp.Verification) {
	t.Helper()
	key, certificate := newKey(t)
	secrets := esp.Secrets{"topic_arn": "arn:other, \n" + topic, esp.SampleKey: key}
	req, err := service.Sample("https://hub.example.test/cb", "ignored", "A subject", "id-1", map[string]any{"a": "<b>"}, esp.Secrets{"topic_arn": topic, esp.SampleKey: key}, now)
	require.NoError(t, err)
	return req, esp.Verification{Secrets: secrets, Now: now, Keys: published{t: t, urls: map[string][]byte{service.SampleCertificate: certificate}}}
}

func TestVerifyHoldsEverySignedMember(t *testing.T) {
	req, v := signed(t)
	require.NoError(t, service.Verify(t.Context(), req, v))
	change := func(name string, value any) esp.Request {
		var envelope map[string]any
		require.NoError(t, json.Unmarshal(req.Body, &envelope))
		if envelope[name] = value; value == nil {
			delete(envelope, name)
		}
		body, err := json.Marshal(envelope)
		require.NoError(t, err)
		changed := req
		changed.Body = body
		return changed
	}
	for _, name := range []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", "Signature", "SignatureVersion"} {
		for _, value := range []any{"other", "", nil, 1, []string{"x"}} {
			require.ErrorIs(t, service.Verify(t.Context(), change(name, value), v), esp.ErrForged, "%s %v", name, value)
		}
	}
	require.ErrorIs(t, service.Verify(t.Context(), change("Signature", nil), v), esp.ErrUnsigned)
	require.ErrorIs(t, service.Verify(t.Context(), change("Type", "SubscriptionConfirmation"), v), esp.ErrForged)
	require.NoError(t, service.Verify(t.Context(), change("UnsubscribeURL", "https://evil.example"), v), "not signed, and believed by nobody")
	require.ErrorIs(t, service.Verify(t.Context(), esp.Request{Body: []byte("x")}, v), esp.ErrUnsigned)
}

func TestVerifyFetchesFromTheServiceOnly(t *testing.T) {
	req, v := signed(t)
	for _, url := range []string{
		"", "https://sns.here.example.com.evil.example/a.pem", "http://sns.here.example.com/a.pem", "https://sns.here.example.com@evil.example/a.pem",
		"https://user@sns.here.example.com/a.pem", "https://sns.here.example.com:8443/a.pem", "https://sns.here.example.com/a.pem?x=1", "https://sns.here.example.com/a.txt",
		"https://evil.example/sns.here.example.com/a.pem", " https://sns.here.example.com/a.pem", `https://sns.here.example.com\@evil.example/a.pem`,
		"https://sns.a.b.example.com/a.pem", "https://sns.here.example.com/a.pem#.pem", "//sns.here.example.com/a.pem", "https:sns.here.example.com/a.pem",
	} {
		var envelope map[string]any
		require.NoError(t, json.Unmarshal(req.Body, &envelope))
		envelope["SigningCertURL"] = url
		other := req
		other.Body, _ = json.Marshal(envelope)
		require.ErrorIs(t, service.Verify(t.Context(), other, v), esp.ErrForged, url)
	}
	v.Keys = published{err: esp.ErrUnverified}
	require.ErrorIs(t, service.Verify(t.Context(), req, v), esp.ErrUnverified)
	v.Keys = nil
	require.ErrorIs(t, service.Verify(t.Context(), req, v), esp.ErrUnverified)
	v.Keys = published{t: t, urls: map[string][]byte{service.SampleCertificate: []byte("no certificate")}}
	require.ErrorIs(t, service.Verify(t.Context(), req, v), esp.ErrForged)
	_, other := newKey(t)
	v.Keys = published{t: t, urls: map[string][]byte{service.SampleCertificate: other}}
	require.ErrorIs(t, service.Verify(t.Context(), req, v), esp.ErrForged)
}

func TestVerifyAgeAndTopic(t *testing.T) {
	req, v := signed(t)
	for off, fine := range map[time.Duration]bool{0: true, 23 * time.Hour: true, 25 * time.Hour: false, -10 * time.Minute: true, -20 * time.Minute: false} {
		v.Now = now.Add(off)
		if err := service.Verify(t.Context(), req, v); fine {
			require.NoError(t, err, off)
		} else {
			require.ErrorIs(t, err, esp.ErrForged, off)
		}
	}
	v.Now = time.Time{}
	require.NoError(t, service.Verify(t.Context(), req, v), "no clock, no window")
	for _, topics := range []string{"", " , ", "arn:other", topic + "x"} {
		v.Secrets = esp.Secrets{"topic_arn": topics}
		require.ErrorIs(t, service.Verify(t.Context(), req, v), esp.ErrForged, "%q", topics)
	}
}

func TestVerifyAsksWhoIssuedTheCertificate(t *testing.T) {
	req, v := signed(t)
	strict := service
	strict.Trust = func([]*x509.Certificate, esp.Secrets, time.Time) error { return esp.ErrForged }
	require.ErrorIs(t, strict.Verify(t.Context(), req, v), esp.ErrForged)
}

func TestOpen(t *testing.T) {
	post := func(body string) esp.Request { return esp.Request{Method: http.MethodPost, Body: []byte(body)} }
	for name, c := range map[string]struct {
		body string
		want sns.Content
	}{
		"notification":            {`{"Type":"Notification","MessageId":"1","Message":"{\"a\":\"\\u00e9\"}"}`, sns.Content{Text: `{"a":"\u00e9"}`, MessageID: "1"}},
		"raw delivery":            {` {"a":1} `, sns.Content{Text: `{"a":1}`}},
		"subscription":            {`{"Type":"SubscriptionConfirmation","SubscribeURL":"https://sns.here.example.com/?x=1"}`, sns.Content{Confirm: "https://sns.here.example.com/?x=1"}},
		"subscription elsewhere":  {`{"Type":"SubscriptionConfirmation","SubscribeURL":"https://sns.here.example.com.evil.example/?x=1"}`, sns.Content{}},
		"subscription, no TLS":    {`{"Type":"SubscriptionConfirmation","SubscribeURL":"http://sns.here.example.com/"}`, sns.Content{}},
		"unsubscription (an URL)": {`{"Type":"UnsubscribeConfirmation","SubscribeURL":"https://sns.here.example.com/?x=1"}`, sns.Content{}},
	} {
		got, err := service.Open(post(c.body))
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
	for _, body := range []string{"", "x", "[]", `{"Type":"Notification"}`, `{"Type":"Notification","Message":{}}`, `{"Type":"Other"}`} {
		_, err := service.Open(post(body))
		require.ErrorIs(t, err, esp.ErrUnreadable, body)
	}
	got, err := service.Open(esp.Request{Method: http.MethodHead})
	require.NoError(t, err)
	require.Zero(t, got)
}

func TestSampleNeedsAnRSAKey(t *testing.T) {
	for _, key := range []string{"%", "AAAA"} {
		_, err := service.Sample("https://hub.example.test", topic, "", "", 1, esp.Secrets{esp.SampleKey: key}, now)
		require.Error(t, err)
	}
	req, err := service.Sample("https://hub.example.test", topic, "", "", 1, nil, now)
	require.NoError(t, err)
	require.NotEmpty(t, req.Header.Get("X-Amz-Sns-Message-Id"), "an id is made from the record")
}
