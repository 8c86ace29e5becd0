package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"aftersend/esp"
)

// KeyFile is a file of verification keys: one object with a member for each
// ESP, and base_url, the public address that captures were posted to.
//
//	{"base_url": "https://hub.example.test",
//	 "mandrill": {"key": "…"},
//	 "smtpeter": {"account": "environment-1", "dns_name": "one._domainkey.copernica.com", "dns_txt": "v=DKIM1; …"},
//	 "ses": {"signing_cert_url": "https://…", "certificate_pem": "-----BEGIN …"}}
//
// A member's names are those of the adapter's fields, with or without the
// ending _base64_der; dns_name with dns_txt, and signing_cert_url with
// certificate_pem, stand for what the ESP publishes.
type KeyFile struct {
	BaseURL string
	byESP   map[string]map[string]string
}

// ReadKeys reads a keys file.
func ReadKeys(name string) (*KeyFile, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the keys file: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("parse the keys file %s: %w", name, err)
	}
	k := &KeyFile{BaseURL: DefaultBaseURL, byESP: map[string]map[string]string{}}
	for member, raw := range members {
		var texts map[string]string
		switch {
		case member == "base_url":
			if err := json.Unmarshal(raw, &k.BaseURL); err != nil {
				return nil, fmt.Errorf("parse base_url of the keys file: %w", err)
			}
		case json.Unmarshal(raw, &texts) == nil: // other members are notes
			k.byESP[member] = texts
		}
	}
	return k, nil
}

// Verification returns what an adapter verifies with, without a clock; false
// when the file has nothing for it.
func (k *KeyFile) Verification(a esp.Adapter) (esp.Verification, bool) {
	if k == nil {
		return esp.Verification{}, false
	}
	d := a.Describe()
	entry, ok := k.byESP[d.Name]
	if !ok {
		return esp.Verification{}, false
	}
	secrets := esp.Secrets{}
	for name, text := range entry {
		secrets[strings.TrimSuffix(name, "_base64_der")] = text
	}
	return esp.Verification{Secrets: secrets, Keys: published(entry)}, true
}

// published is esp.Keys out of a keys file.
type published map[string]string

// Certificate implements esp.Keys.
func (p published) Certificate(_ context.Context, url string) ([]byte, error) {
	if pem := p["certificate_pem"]; pem != "" && url == p["signing_cert_url"] {
		return []byte(pem), nil
	}
	return nil, esp.ErrUnverified
}

// TXT implements esp.Keys.
func (p published) TXT(_ context.Context, name string) (string, error) {
	if txt := p["dns_txt"]; txt != "" && strings.EqualFold(name, p["dns_name"]) {
		return txt, nil
	}
	return "", esp.ErrUnverified
}
