package scaleway

import (
	"bytes"
	"crypto/x509"
	_ "embed"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/esp/espkit/sns"
)

// trustChain is Scaleway's published authority: a root valid until 2032 and
// the intermediate valid until December 2027.
//
//go:embed trust-chain.pem
var trustChain []byte

// issued checks that a certificate comes from Scaleway's authority. Scaleway
// asks for it, because the certificates are files in a bucket and change every
// year.
func issued(chain []*x509.Certificate, s esp.Secrets, now time.Time) error {
	authority := trustChain
	if entered := s["trust_chain"]; entered != "" {
		authority = []byte(entered)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range sns.Certificates(authority) {
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			roots.AddCert(c)
		} else {
			intermediates.AddCert(c)
		}
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if now.IsZero() {
		now = chain[0].NotBefore
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return espkit.Forged("the signing certificate was not issued by Scaleway, or has expired")
	}
	return nil
}
