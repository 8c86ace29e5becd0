package esp_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
)

func TestVerifyCommon(t *testing.T) {
	basic := func(user, password string) string {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	login := esp.Secrets{"username": "mandrill", "password": "hunter2:ä"}
	for name, c := range map[string]struct {
		secrets       esp.Secrets
		authorization string
		ip            string
		forged        bool
	}{
		"nothing is set":                   {},
		"another field is set":             {secrets: esp.Secrets{"key": "k"}},
		"right credentials":                {secrets: login, authorization: basic("mandrill", "hunter2:ä")},
		"the scheme in another case":       {secrets: esp.Secrets{"bearer": "t0ken"}, authorization: "bearer t0ken"},
		"no credentials":                   {secrets: login, forged: true},
		"wrong password":                   {secrets: login, authorization: basic("mandrill", "hunter3"), forged: true},
		"wrong user":                       {secrets: login, authorization: basic("mandril", "hunter2:ä"), forged: true},
		"the colon elsewhere":              {secrets: esp.Secrets{"username": "a", "password": "b:c"}, authorization: basic("a", "b:cd"), forged: true},
		"no password, and none is set":     {secrets: esp.Secrets{"username": "a"}, authorization: basic("a", "")},
		"a password where none is set":     {secrets: esp.Secrets{"username": "a"}, authorization: basic("a", "x"), forged: true},
		"not base64":                       {secrets: login, authorization: "Basic ???", forged: true},
		"the scheme alone":                 {secrets: login, authorization: "Basic", forged: true},
		"right bearer token":               {secrets: esp.Secrets{"bearer": "t0ken"}, authorization: "Bearer t0ken"},
		"wrong bearer token":               {secrets: esp.Secrets{"bearer": "t0ken"}, authorization: "Bearer t0ke", forged: true},
		"basic instead of bearer":          {secrets: esp.Secrets{"bearer": "t0ken"}, authorization: "Basic t0ken", forged: true},
		"no bearer token":                  {secrets: esp.Secrets{"bearer": "t0ken"}, forged: true},
		"allowed address":                  {secrets: esp.Secrets{"allowed_ips": "198.51.100.1, 192.0.2.7"}, ip: "192.0.2.7"},
		"in an allowed range":              {secrets: esp.Secrets{"allowed_ips": "192.0.2.0/24"}, ip: "192.0.2.7"},
		"IPv4 in IPv6":                     {secrets: esp.Secrets{"allowed_ips": "192.0.2.0/24"}, ip: "::ffff:192.0.2.7"},
		"in an allowed range of IPv6":      {secrets: esp.Secrets{"allowed_ips": "2001:db8::/32\n192.0.2.0/24"}, ip: "2001:db8::1"},
		"another address":                  {secrets: esp.Secrets{"allowed_ips": "192.0.2.0/24"}, ip: "192.0.3.1", forged: true},
		"no known address":                 {secrets: esp.Secrets{"allowed_ips": "0.0.0.0/0 ::/0"}, forged: true},
		"a list that cannot be read":       {secrets: esp.Secrets{"allowed_ips": "example.com"}, ip: "192.0.2.7", forged: true},
		"right address, wrong credentials": {secrets: esp.Secrets{"allowed_ips": "192.0.2.7", "bearer": "t"}, ip: "192.0.2.7", authorization: "Bearer u", forged: true},
		"right credentials, wrong address": {secrets: esp.Secrets{"allowed_ips": "192.0.2.7", "bearer": "t"}, ip: "192.0.2.8", authorization: "Bearer t", forged: true},
		"right credentials and address":    {secrets: esp.Secrets{"allowed_ips": "192.0.2.7", "bearer": "t"}, ip: "192.0.2.7", authorization: "Bearer t"},
	} {
		t.Run(name, func(t *testing.T) {
			req := esp.Request{Header: http.Header{}}
			if c.authorization != "" {
				req.Header.Set("Authorization", c.authorization)
			}
			if c.ip != "" {
				req.RemoteIP = netip.MustParseAddr(c.ip)
			}
			err := esp.VerifyCommon(req, c.secrets)
			if !c.forged {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, esp.ErrForged)
			for _, secret := range c.secrets {
				if len(secret) > 3 {
					require.NotContains(t, err.Error(), secret)
				}
			}
		})
	}
}

func TestParsePrefixes(t *testing.T) {
	got, err := esp.ParsePrefixes(" 192.0.2.1,\n2001:db8::/32; 198.51.100.0/24 ")
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("198.51.100.0/24")}, got)
	for _, wrong := range []string{"192.0.2", "192.0.2.0/33", "example.com", "192.0.2.1 nonsense"} {
		_, err := esp.ParsePrefixes(wrong)
		require.Error(t, err, wrong)
	}
}
