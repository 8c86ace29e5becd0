package capture_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
)

const base = "https://hub.example.test"

func TestParseJSON(t *testing.T) {
	c, err := capture.ParseJSON([]byte(`{"method":"POST","path_query":"/callbacks/x/t%20k?a=1&b=%20","headers":{"content-type":"text/plain","X-Two":["1","2"]},
		"body":"é\n","remote_ip":"192.0.2.1","received_at":"2026-01-02T04:04:05+01:00","auth":{"scheme":"s","valid":true},"source":"here","note":"n","unknown":1}`), base+"/")
	require.NoError(t, err)
	r := c.Request
	require.Equal(t, base+"/callbacks/x/t%20k?a=1&b=%20", r.URL)
	require.Equal(t, "/callbacks/x/t%20k", r.Path)
	require.Equal(t, "a=1&b=%20", r.RawQuery)
	require.Equal(t, "text/plain", r.Header.Get("Content-Type"))
	require.Equal(t, []string{"1", "2"}, r.Header.Values("X-Two"))
	require.Equal(t, "hub.example.test", r.Header.Get("Host"))
	require.Equal(t, "é\n", string(r.Body))
	require.Equal(t, "192.0.2.1", r.RemoteIP.String())
	require.Equal(t, "2026-01-02 03:04:05 +0000 UTC", r.ReceivedAt.String())
	require.Equal(t, &capture.Auth{Scheme: "s", Valid: true}, c.Auth)
	require.Equal(t, "here", c.Source)

	c, err = capture.ParseJSON([]byte(`{"method":"HEAD","body_base64":"/wA="}`), base)
	require.NoError(t, err)
	require.Equal(t, "\xff\x00", string(c.Request.Body))
	require.Equal(t, base+"/", c.Request.URL)
	require.Nil(t, c.Auth)

	for _, broken := range []string{"", "{", "[]", `{"type":"sent"}`, `{"method":"POST","body_base64":"?"}`, `{"method":"POST","path_query":"/%zz"}`, `{"method":"POST","headers":{"a":1}}`} {
		_, err := capture.ParseJSON([]byte(broken), base)
		require.Error(t, err, broken)
	}
}

func TestParseHTTP(t *testing.T) {
	c, err := capture.ParseHTTP([]byte("POST /callbacks/x/t?a=1 HTTP/1.1\r\nHost: other.example\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nwhole body\r\n\r\nto the end"), base)
	require.NoError(t, err)
	require.Equal(t, "whole body\r\n\r\nto the end", string(c.Request.Body), "files may be edited by hand")
	require.Equal(t, base+"/callbacks/x/t?a=1", c.Request.URL)
	require.Equal(t, "other.example", c.Request.Header.Get("Host"))
	require.Equal(t, "1", c.Request.Header.Get("X-A"))

	c, err = capture.ParseHTTP([]byte("GET http://hub.example.test/e?x=1 HTTP/1.1\nHost: hub.example.test\n\n"), "http://hub.example.test")
	require.NoError(t, err)
	require.Equal(t, "http://hub.example.test/e?x=1", c.Request.URL)
	require.Empty(t, c.Request.Body)

	c, err = capture.ParseHTTP([]byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), base)
	require.NoError(t, err)
	require.Equal(t, "abcde", string(c.Request.Body))

	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte("inflated"))
	require.NoError(t, w.Close())
	c, err = capture.ParseHTTP(append([]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\n\r\n"), z.Bytes()...), base)
	require.NoError(t, err)
	require.Equal(t, "inflated", string(c.Request.Body))

	_, err = capture.ParseHTTP([]byte("no request"), base)
	require.Error(t, err)
}

// adapter stands for an ESP that publishes keys.
type adapter struct{ esp.Adapter }

func (adapter) Describe() esp.Description { return esp.Description{Name: "some"} }

func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"note":"x","base_url":"https://else.example","other":{"key":"k"},
		"some":{"public_key_base64_der":"AAAA","secret":"s","dns_name":"One.example","dns_txt":"p=1","signing_cert_url":"https://c.example/a.pem","certificate_pem":"PEM"}}`), 0o600))
	keys, err := capture.ReadKeys(file)
	require.NoError(t, err)
	require.Equal(t, "https://else.example", keys.BaseURL)
	v, ok := keys.Verification(adapter{})
	require.True(t, ok)
	require.Equal(t, "AAAA", v.Secrets["public_key"])
	require.Equal(t, "s", v.Secrets["secret"])
	require.True(t, v.Now.IsZero())
	txt, err := v.Keys.TXT(t.Context(), "one.example")
	require.NoError(t, err)
	require.Equal(t, "p=1", txt)
	_, err = v.Keys.TXT(t.Context(), "two.example")
	require.ErrorIs(t, err, esp.ErrUnverified)
	pem, err := v.Keys.Certificate(t.Context(), "https://c.example/a.pem")
	require.NoError(t, err)
	require.Equal(t, "PEM", string(pem))
	_, err = v.Keys.Certificate(t.Context(), "https://evil.example/a.pem")
	require.ErrorIs(t, err, esp.ErrUnverified)

	_, ok = (*capture.KeyFile)(nil).Verification(adapter{})
	require.False(t, ok, "no file, no keys")
	_, err = capture.ReadKeys(file + ".missing")
	require.Error(t, err)
}
