package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aftersend.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestNothingSetGivesTheDefaults(t *testing.T) {
	c, err := Load("", []string{"HOME=/root", "PATH=/bin"})
	require.NoError(t, err)
	d := Default()
	d.origins = map[string]string{}
	require.Equal(t, d, c)
}

func TestLayers(t *testing.T) {
	path := write(t, `
api:
  addr: 0.0.0.0:80
  public_url: https://callbacks.example.com/
  max_body_bytes: 20MiB
delivery:
  retry_interval: 10m
  retries: 7
  allowed_prefixes: [10.0.0.0/8, "fd00::/8"]
  allowed_ports: [9000]
`)
	c, err := Load(path, []string{
		"AFTERSEND_API__ADDR=127.0.0.1:9",
		"AFTERSEND_API__TRUSTED_PROXIES=192.0.2.0/24, 198.51.100.7/32",
		"AFTERSEND_DEV__TOKEN=true",
		"AFTERSEND_DEFERRALS__REVIEWS=30s, 1h",
		"DATABASE_URL=postgres://a@b/c",
		"TEMPORAL_ADDRESS=t:7233",
		"TEMPORAL_NAMESPACE=theirs",
		"AFTERSEND_TEMPORAL__NAMESPACE=ours",
	})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:9", c.API.Addr, "the environment wins over the file")
	require.Equal(t, "https://callbacks.example.com", c.API.PublicURL)
	require.EqualValues(t, 20<<20, c.API.MaxBodyBytes)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")}, c.API.TrustedProxies)
	require.Equal(t, 10*time.Minute, c.Delivery.RetryInterval)
	require.Equal(t, 7, c.Delivery.Retries)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}, c.Delivery.AllowedPrefixes)
	require.Equal(t, []uint16{9000}, c.Delivery.AllowedPorts, "a list replaces the default")
	require.True(t, c.Dev.Token)
	require.Equal(t, []time.Duration{30 * time.Second, time.Hour}, c.Deferrals.Reviews)
	require.Equal(t, "postgres://a@b/c", c.Database.URL)
	require.Equal(t, "t:7233", c.Temporal.Address)
	require.Equal(t, "ours", c.Temporal.Namespace)
	require.Equal(t, 30*time.Second, c.Delivery.Timeout, "what nobody sets stays")
}

func TestFileIsFoundByTheEnvironment(t *testing.T) {
	path := write(t, "log: {level: debug}")
	c, err := Load("", []string{"AFTERSEND_CONFIG=" + path})
	require.NoError(t, err)
	require.Equal(t, "debug", c.Log.Level)
}

func TestUnknownKeysNameTheNearest(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		env  []string
		want string
	}{
		"in the file":        {file: "delivry: {retries: 3}", want: `unknown key "delivry.retries" (did you mean "delivery.retries"?)`},
		"a section":          {file: "mail: {smtpaddr: x}", want: `did you mean "mail.smtp_addr"?`},
		"one underscore":     {env: []string{"AFTERSEND_DATABASE_URL=postgres://x"}, want: `did you mean "AFTERSEND_DATABASE__URL"?`},
		"nothing near":       {env: []string{"AFTERSEND_COLOUR_OF_THE_SHED=red"}, want: "config print"},
		"file of no secret":  {env: []string{"AFTERSEND_API__ADDR_FILE=/x"}, want: `did you mean "AFTERSEND_API__ADDR"?`},
		"a key of one piece": {file: "port: 8080", want: `unknown key "port"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := ""
			if test.file != "" {
				path = write(t, test.file)
			}
			_, err := Load(path, test.env)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestVariablesOfOthersAreLeftAlone(t *testing.T) {
	_, err := Load("", []string{
		"AFTERSEND_PG_BIN=/x", "AFTERSEND_CRASH=intake_after_insert:3",
		"AFTERSEND_SERVICE_HOST=10.0.0.1", "AFTERSEND_SERVICE_PORT=80", "AFTERSEND_PORT=tcp://10.0.0.1:80",
		"AFTERSEND_API_SERVICE_PORT_HTTP=80", "AFTERSEND_API_PORT_8080_TCP_ADDR=10.0.0.1",
	})
	require.NoError(t, err, "Kubernetes sets these for services named aftersend and aftersend-api")
}

func TestValuesThatCannotWorkAreAllNamed(t *testing.T) {
	_, err := Load("", []string{
		"AFTERSEND_DELIVERY__TIMEOUT=31s",
		"AFTERSEND_MAIL__TLS=yes",
		"AFTERSEND_API__PUBLIC_URL=example.com",
	})
	require.ErrorContains(t, err, "delivery.timeout")
	require.ErrorContains(t, err, "mail.tls")
	require.ErrorContains(t, err, "api.public_url")

	_, err = Load("", []string{"AFTERSEND_DELIVERY__RETRY_INTERVAL=300", "AFTERSEND_API__TRUSTED_PROXIES=everyone"})
	require.ErrorContains(t, err, `delivery.retry_interval (AFTERSEND_DELIVERY__RETRY_INTERVAL): 300 is not a duration with its unit`)
	require.ErrorContains(t, err, `everyone is not a list of address ranges`)
}

func TestSecretsFromFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte("1:c2VjcmV0\n"), 0o600))
	c, err := Load("", []string{"AFTERSEND_SEAL__KEYS_FILE=" + path})
	require.NoError(t, err)
	require.Equal(t, "1:c2VjcmV0", c.Seal.Keys)

	_, err = Load("", []string{"AFTERSEND_SEAL__KEYS_FILE=" + path, "AFTERSEND_SEAL__KEYS=1:x"})
	require.ErrorContains(t, err, "both set")
	_, err = Load("", []string{"AFTERSEND_SEAL__KEYS_FILE=" + path + ".none"})
	require.ErrorContains(t, err, "AFTERSEND_SEAL__KEYS_FILE")
}

func TestPrintMasksSecretsAndSaysWhereValuesAreFrom(t *testing.T) {
	c, err := Load("", []string{
		"DATABASE_URL=postgres://me:hunter2@db/aftersend",
		"AFTERSEND_SEAL__KEYS=1:c2VjcmV0",
		"AFTERSEND_MAIL__PASSWORD=hunter3",
		"AFTERSEND_DELIVERY__ALLOWED_PREFIXES=10.0.0.0/8,127.0.0.0/8",
	})
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, c.Print(&out))
	for _, secret := range []string{"hunter2", "hunter3", "c2VjcmV0"} {
		require.NotContains(t, out.String(), secret)
	}
	require.Contains(t, out.String(), "postgres://me:xxxxx@db/aftersend")
	require.Regexp(t, `max_conns: 20\n`, out.String())
	require.Regexp(t, `url: .* # DATABASE_URL\n`, out.String())

	again, err := Load(write(t, out.String()), nil)
	require.NoError(t, err, "what is printed can be read")
	require.Equal(t, c.Delivery, again.Delivery)
	require.Equal(t, c.API.ReadTimeout, again.API.ReadTimeout)
}

func TestBaseURL(t *testing.T) {
	for want, api := range map[string]API{
		"https://in.example.com": {Addr: ":80", PublicURL: "https://in.example.com"},
		"http://127.0.0.1:8080":  {Addr: "127.0.0.1:8080"},
		"http://localhost:80":    {Addr: ":80"},
		"http://localhost:81":    {Addr: "0.0.0.0:81"},
		"http://localhost:82":    {Addr: "[::]:82"},
	} {
		require.Equal(t, want, api.BaseURL())
	}
}
