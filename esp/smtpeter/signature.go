package smtpeter

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
)

// freshness is how far the signed Date may lie from the time of receipt, for
// clocks that differ and posts that waited. Copernica says "recent".
const freshness = 15 * time.Minute

// mustCover are the parts that a genuine signature always covers.
var mustCover = []string{"(request-target)", "host", "date", "x-copernica-id", "digest"}

var dnsName = regexp.MustCompile(`^[a-z0-9_.-]{1,253}$`)

// Verify implements esp.Verifier: the Digest header against the body, then the
// Signature header (draft-cavage-http-signatures-11, rsa-sha256) with the key
// that its keyId names in DNS.
func (Adapter) Verify(ctx context.Context, req esp.Request, v esp.Verification) error {
	header := req.Header.Get("Signature")
	if header == "" {
		return esp.ErrUnsigned
	}
	if !digestMatches(req) {
		return espkit.Forged("the Digest header does not match the body")
	}
	sig := parameters(header)
	if alg := sig["algorithm"]; alg != "" && alg != "rsa-sha256" && alg != "hs2019" {
		return espkit.Forged("the signature's algorithm is not rsa-sha256")
	}
	covered := strings.Fields(strings.ToLower(sig["headers"]))
	for _, name := range mustCover {
		if !slices.Contains(covered, name) {
			return espkit.Forged("the signature does not cover " + name)
		}
	}
	if err := checkHeaders(req, v); err != nil {
		return err
	}
	// Anyone may publish a key somewhere; only copernica.com's count.
	keyID := strings.ToLower(strings.TrimSuffix(sig["keyid"], "."))
	if !dnsName.MatchString(keyID) || !strings.HasSuffix(keyID, ".copernica.com") {
		return espkit.Forged("the signature's key is not published under copernica.com")
	}
	signature, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(sig["signature"]), ""))
	if err != nil {
		return espkit.Forged("the signature is not base64")
	}
	if v.Keys == nil {
		return esp.ErrUnverified
	}
	txt, err := v.Keys.TXT(ctx, keyID)
	if err != nil {
		return fmt.Errorf("look up the key %s: %w", keyID, err)
	}
	key, err := publicKey(txt)
	if err != nil {
		return espkit.Forged("the key in DNS is unusable: " + err.Error())
	}
	hash := sha256.Sum256([]byte(signingString(req, covered)))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], signature) != nil {
		return espkit.Forged("the signature does not match; is the URL entered at SMTPeter the one shown here?")
	}
	return nil
}

// checkHeaders holds the signed headers against what we know: whose account,
// which host, when.
func checkHeaders(req esp.Request, v esp.Verification) error {
	account := strings.TrimSpace(v.Secrets["account"])
	if account == "" || !hmac.Equal([]byte(req.Header.Get("X-Copernica-ID")), []byte(account)) {
		return espkit.Forged("X-Copernica-ID is not this source's account")
	}
	if target, err := url.Parse(req.URL); err != nil || !strings.EqualFold(target.Host, host(req)) {
		return espkit.Forged("the Host header is not this server's")
	}
	if v.Now.IsZero() {
		return nil
	}
	date, err := http.ParseTime(req.Header.Get("Date"))
	if err != nil {
		return espkit.Forged("the Date header is not a date")
	}
	if off := v.Now.Sub(date); off > freshness || off < -freshness {
		return espkit.Forged("the Date header is too far from the time of receipt")
	}
	return nil
}

func digestMatches(req esp.Request) bool {
	sum := sha256.Sum256(req.Body)
	for _, digest := range strings.Split(req.Header.Get("Digest"), ",") {
		algorithm, value, _ := strings.Cut(strings.TrimSpace(digest), "=")
		if !strings.EqualFold(algorithm, "SHA-256") {
			continue
		}
		got, err := base64.StdEncoding.DecodeString(value)
		return err == nil && hmac.Equal(got, sum[:])
	}
	return false
}

// signingString joins the covered parts in their order, "name: value" a line,
// names in lower case.
func signingString(req esp.Request, covered []string) string {
	lines := make([]string, len(covered))
	for i, name := range covered {
		switch name {
		case "(request-target)":
			target := req.Path
			if u, err := url.Parse(req.URL); err == nil {
				target = u.RequestURI() // the path as posted; req.Path may be masked
			}
			lines[i] = name + ": " + strings.ToLower(req.Method) + " " + target
		case "host":
			lines[i] = name + ": " + host(req)
		case "content-length":
			// A server may keep the length apart from the headers.
			lines[i] = name + ": " + espkit.First(req.Header.Get(name), strconv.Itoa(len(req.Body)))
		default:
			lines[i] = name + ": " + strings.Join(req.Header.Values(name), ", ")
		}
	}
	return strings.Join(lines, "\n")
}

func host(req esp.Request) string { return req.Header.Get("Host") }

// parameters reads name="value" pairs between commas, names in lower case. In
// Copernica's own example a comma is missing, so the quotes lead the way.
func parameters(header string) map[string]string {
	out := map[string]string{}
	for len(out) < 20 {
		name, rest, ok := strings.Cut(header, "=\"")
		if !ok {
			break
		}
		value, rest, ok := strings.Cut(rest, "\"")
		if !ok {
			break
		}
		out[strings.ToLower(strings.Trim(name, ", \t\r\n"))] = value
		header = rest
	}
	return out
}

var errNoKey = errors.New("it holds no RSA key")

// publicKey reads a key record as DKIM has them (RFC 6376, 3.6.1).
func publicKey(txt string) (*rsa.PublicKey, error) {
	for _, tag := range strings.Split(txt, ";") {
		name, value, _ := strings.Cut(tag, "=")
		if strings.TrimSpace(name) != "p" {
			continue
		}
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(value), ""))
		if err != nil {
			return nil, errNoKey
		}
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, errNoKey
		}
		if rsaKey, ok := key.(*rsa.PublicKey); ok {
			return rsaKey, nil
		}
	}
	return nil, errNoKey
}

// signSample signs as SMTPeter does, with a stand-in for its key.
func signSample(req *esp.Request, account, key string, now time.Time) error {
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return errors.New("decode the sample key: it is not base64")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("parse the sample key: it is no RSA key in PKCS #8 form")
	}
	sum := sha256.Sum256(req.Body)
	req.Header.Set("Date", now.UTC().Format(http.TimeFormat))
	req.Header.Set("X-Copernica-ID", account)
	req.Header.Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(sum[:]))
	hash := sha256.Sum256([]byte(signingString(*req, mustCover)))
	signature, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, hash[:])
	if err != nil {
		return fmt.Errorf("sign a sample: %w", err)
	}
	req.Header.Set("Signature", `keyId="one._domainkey.copernica.com",algorithm="rsa-sha256",headers="`+strings.Join(mustCover, " ")+
		`",signature="`+base64.StdEncoding.EncodeToString(signature)+`"`)
	return nil
}
