package esp

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Common are the fields that every source has beside its ESP's own: what any
// ESP can send or be known by, whether it signs or not. Intake checks them,
// because credentials are masked before a callback is stored.
var Common = []Field{
	{Name: "username", Label: "User name", Help: "For basic authentication, where the ESP can send it: in a form of its own, or in the URL as https://user:password@…"},
	{Name: "password", Label: "Password", Secret: true, Help: "Goes with the user name."},
	{Name: "bearer", Label: "Bearer token", Secret: true, Help: "Where the ESP can send an Authorization header, what it sends behind the word Bearer."},
	{Name: "allowed_ips", Label: "Allowed addresses", Help: "The addresses the ESP posts from, as it documents them: IP addresses or ranges such as 192.0.2.0/24, with spaces or commas between."},
}

// CommonStep is what every set-up guide says of Common.
const CommonStep = "For more protection, enter a user name and password (username, password), a bearer token (bearer) or the addresses " +
	"that callbacks come from (allowed_ips) in this source's verification. What is entered must hold, or the callback is refused."

// HasCommon reports whether any of the Common fields is set.
func HasCommon(s Secrets) bool {
	return slices.ContainsFunc(Common, func(f Field) bool { return s[f.Name] != "" })
}

// VerifyCommon holds a request against the Common fields: each one that is set
// must hold. The error wraps ErrForged.
func VerifyCommon(req Request, s Secrets) error {
	if allowed := s["allowed_ips"]; allowed != "" {
		prefixes, err := ParsePrefixes(allowed)
		if err != nil {
			return fmt.Errorf("%w: this source's list of allowed addresses cannot be read", ErrForged)
		}
		ip := req.RemoteIP.Unmap()
		if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return fmt.Errorf("%w: it comes from an address that is not allowed", ErrForged)
		}
	}
	posted := req.Header.Get("Authorization")
	if s["username"] != "" || s["password"] != "" {
		if posted == "" {
			return fmt.Errorf("%w: it carries no user name and password", ErrForged)
		}
		if !credentials(posted, "Basic", basic(s)) {
			return fmt.Errorf("%w: user name or password is wrong", ErrForged)
		}
	}
	if token := s["bearer"]; token != "" {
		if posted == "" {
			return fmt.Errorf("%w: it carries no bearer token", ErrForged)
		}
		if !credentials(posted, "Bearer", token) {
			return fmt.Errorf("%w: the bearer token is wrong", ErrForged)
		}
	}
	return nil
}

// Authenticate gives a sample the credentials that VerifyCommon wants.
func Authenticate(req *Request, s Secrets) {
	switch {
	case s["bearer"] != "":
		req.Header.Set("Authorization", "Bearer "+s["bearer"])
	case s["username"] != "" || s["password"] != "":
		req.Header.Set("Authorization", "Basic "+basic(s))
	}
}

// basic is what stands behind the word Basic (RFC 7617, 2).
func basic(s Secrets) string {
	return base64.StdEncoding.EncodeToString([]byte(s["username"] + ":" + s["password"]))
}

// credentials compares an Authorization header (RFC 9110, 11.4) in a time that
// says nothing of what is wanted, not even its length.
func credentials(header, scheme, want string) bool {
	posted, value, _ := strings.Cut(header, " ")
	a, b := sha256.Sum256([]byte(strings.TrimSpace(value))), sha256.Sum256([]byte(want))
	return strings.EqualFold(posted, scheme) && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// ParsePrefixes reads addresses and ranges (CIDR) between spaces and commas.
func ParsePrefixes(list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune(" ,;\t\r\n", r) }) {
		if ip, err := netip.ParseAddr(text); err == nil {
			ip = ip.Unmap().WithZone("")
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("parse address %d of the list: want an IP address or a range such as 192.0.2.0/24", len(out)+1)
		}
		out = append(out, p)
	}
	return out, nil
}
