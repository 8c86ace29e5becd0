package outbound

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// quiet takes what test servers complain about.
var quiet = log.New(io.Discard, "", 0)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newClient(t *testing.T, o Options) *Client {
	if o.AllowedPrefixes == nil {
		o.AllowedPrefixes = loopback
	}
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func endpoint(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only who has read the body learns that the client went away.
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		h(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

// raw answers a connection with bytes of its own choice.
func raw(t *testing.T, answer func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = c.Read(make([]byte, 64<<10))
				answer(c)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func post(t *testing.T, c *Client, to string, timeout time.Duration) Answer {
	return c.Do(t.Context(), Request{URL: to, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"events":[]}`), Timeout: timeout})
}

func TestAnAnswer(t *testing.T) {
	t.Parallel()
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.Header.Get("Content-Type"), r.UserAgent(), r.Header.Get("Accept-Encoding"), body)
	})
	c := newClient(t, Options{})
	a := post(t, c, to, time.Minute)
	require.Equal(t, 202, a.Status)
	require.Equal(t, "7", a.Header.Get("Retry-After"))
	require.Equal(t, `POST application/json aftersend/1  {"events":[]}`, string(a.Body))
	require.Empty(t, a.Class)
	require.Positive(t, a.Timings.Connect)
	require.Positive(t, a.Timings.FirstByte)
	require.GreaterOrEqual(t, a.Timings.Total, a.Timings.FirstByte)
	again := post(t, c, to, time.Minute)
	require.Zero(t, again.Timings.Connect, "the connection is kept")
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	target := endpoint(t, func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		to := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", target)
			w.WriteHeader(status)
		})
		a := post(t, newClient(t, Options{}), to, time.Minute)
		require.Equal(t, status, a.Status)
		require.Equal(t, target, a.Header.Get("Location"))
	}
	require.False(t, followed.Load())
}

func TestNoProxyFromTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	to := endpoint(t, func(http.ResponseWriter, *http.Request) {})
	require.Equal(t, 200, post(t, newClient(t, Options{}), to, time.Minute).Status)
}

func zipped(of io.Reader) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.Copy(z, of)
	_ = z.Close()
	return b.Bytes()
}

// Whatever an endpoint does to its body, the status stands, and neither memory
// nor time are unbounded.
func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	bomb := zipped(io.LimitReader(zeros{}, 64<<20))
	for _, tc := range []struct {
		name      string
		answer    http.HandlerFunc
		timeout   time.Duration
		length    int
		truncated bool
		class     string
	}{
		{name: "none", answer: func(http.ResponseWriter, *http.Request) {}},
		{name: "exactly at the limit", answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxAnswer)) }, length: MaxAnswer},
		{name: "one more", answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxAnswer+1)) }, length: MaxAnswer, truncated: true},
		{name: "endless", answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, zeros{}) }, length: MaxAnswer, truncated: true},
		{name: "gzip", answer: encoded(zipped(strings.NewReader("hello"))), length: 5},
		{name: "gzip bomb", answer: encoded(bomb), length: MaxAnswer, truncated: true},
		{name: "broken gzip", answer: encoded([]byte("this is no gzip")), class: "protocol"},
		{name: "truncated gzip", answer: encoded(zipped(strings.NewReader("hello"))[:10]), class: "reset"},
		{name: "a byte now and then", timeout: 300 * time.Millisecond, class: "timeout", length: 1, answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{name: "shorter than promised", class: "reset", length: 3, answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("abc"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.timeout == 0 {
				tc.timeout = time.Minute
			}
			a := post(t, newClient(t, Options{}), endpoint(t, tc.answer), tc.timeout)
			require.Equal(t, 200, a.Status)
			require.Empty(t, a.Class)
			require.Equal(t, tc.class, a.BodyClass)
			require.Equal(t, tc.truncated, a.Truncated)
			require.Len(t, a.Body, tc.length)
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func encoded(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(body)
	}
}

func TestFailuresHaveClasses(t *testing.T) {
	t.Parallel()
	plain := endpoint(t, func(http.ResponseWriter, *http.Request) {})
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	t.Cleanup(secure.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(secure.Certificate())
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = quiet
	old.StartTLS()
	t.Cleanup(old.Close)
	noDNS := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no name server") }}

	for _, tc := range []struct {
		name    string
		url     string
		options Options
		want    Class
	}{
		{"hangs", endpoint(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), Options{}, ClassTimeout},
		{"headers never end", raw(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-")
			_, _ = c.Read(make([]byte, 1))
		}), Options{}, ClassTimeout},
		{"refused", "http://127.0.0.1:1", Options{}, ClassConnect},
		{"no such name", "http://endpoint.test.invalid", Options{Resolver: noDNS}, ClassDNS},
		{"closes", raw(t, func(net.Conn) {}), Options{}, ClassReset},
		{"resets", raw(t, func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }), Options{}, ClassReset},
		{"speaks something else", raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.example.com ESMTP\r\n") }), Options{}, ClassProtocol},
		{"huge headers", endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Big", strings.Repeat("x", 200<<10)) }), Options{}, ClassProtocol},
		{"self-signed", secure.URL, Options{}, ClassTLS},
		{"other host's certificate", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), Options{RootCAs: trusted}, ClassTLS},
		{"too old", old.URL, Options{}, ClassTLS},
		{"no TLS", strings.Replace(plain, "http:", "https:", 1), Options{}, ClassTLS},
		{"blocked", plain, Options{AllowedPrefixes: []netip.Prefix{}}, ClassBlocked},
		{"not a URL", "http://a b/", Options{}, ClassProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			timeout := time.Minute
			if tc.want == ClassTimeout {
				timeout = 200 * time.Millisecond
			}
			a := post(t, newClient(t, tc.options), tc.url+"/path?token=secret", timeout)
			require.Equal(t, tc.want, a.Class, "%s", a.Detail)
			require.Zero(t, a.Status)
			require.NotEmpty(t, a.Detail)
			require.NotContains(t, a.Detail, "secret")
		})
	}
	t.Run("trusted", func(t *testing.T) {
		t.Parallel()
		a := post(t, newClient(t, Options{RootCAs: trusted}), secure.URL, time.Minute)
		require.Equal(t, 200, a.Status)
		require.Positive(t, a.Timings.TLS)
	})
	t.Run("stopped by us", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		to := endpoint(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
		a := newClient(t, Options{}).Do(ctx, Request{URL: to, Timeout: time.Minute})
		require.Equal(t, ClassCanceled, a.Class)
	})
}

// A connection that the endpoint closed while it was idle is no answer of the
// endpoint, and no request is repeated behind the caller's back.
func TestBrokenKeptConnections(t *testing.T) {
	t.Parallel()
	requests := make(chan int, 10)
	n := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		requests <- n
		if n == 2 { // read, then gone, as when a server restarts
			c, _, _ := w.(http.Hijacker).Hijack()
			_ = c.Close()
		}
	}))
	s.Start()
	t.Cleanup(s.Close)
	c := newClient(t, Options{})
	require.Equal(t, 200, post(t, c, s.URL, time.Minute).Status)
	a := post(t, c, s.URL, time.Minute)
	require.Equal(t, ClassReset, a.Class)
	require.True(t, a.Stale)
	require.Len(t, requests, 2)
	fresh := post(t, newClient(t, Options{}), raw(t, func(net.Conn) {}), time.Minute)
	require.False(t, fresh.Stale, "a fresh connection that is closed is the endpoint's doing")
}

// A name that resolves to an inner address is stopped when it is dialled.
func TestRebinding(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{AllowedPrefixes: []netip.Prefix{}})
	u, err := url.Parse("http://rebound.example.com/")
	require.NoError(t, err)
	require.NoError(t, c.CheckURL(u))
	for _, address := range []string{"127.0.0.1:80", "[::1]:80", "10.1.2.3:443", "[fd00:ec2::254]:80", "169.254.169.254:80", "203.0.113.1:80", "8.8.8.8:22"} {
		network := "tcp4"
		if address[0] == '[' {
			network = "tcp6"
		}
		require.ErrorIs(t, c.policy.control(network, address, nil), errBlocked, address)
	}
	require.NoError(t, c.policy.control("tcp4", "8.8.8.8:443", nil))
	require.Error(t, c.policy.control("udp4", "8.8.8.8:443", nil))
	require.Error(t, c.policy.control("tcp4", "nonsense", nil))
}

// spellings of addresses that nobody may call from outside.
var spellings = []string{
	"127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "0x7f.0x0.0x0.0x1",
	"[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[::127.0.0.1]",
	"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254", "192.0.0.192", "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.9",
	"224.0.0.1", "240.0.0.1", "255.255.255.255", "0.1.2.3", "168.63.129.16", "192.88.99.1",
	"[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[5f00::1]",
	"localhost", "LOCALHOST", "localhost.", "a.localhost", "user@example.com", "user:password@example.com", "",
}

func TestForbiddenAddressesAreRefusedWhenSavedAndWhenCalled(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{AllowedPrefixes: []netip.Prefix{}})
	for _, host := range spellings {
		for _, scheme := range []string{"http", "https"} {
			raw := scheme + "://" + host + "/x"
			if u, err := url.Parse(raw); err == nil {
				require.ErrorIs(t, c.CheckURL(u), errBlocked, raw)
			}
			a := post(t, c, raw, time.Minute)
			require.Zero(t, a.Status, raw)
			require.Contains(t, []Class{ClassBlocked, ClassProtocol}, a.Class, raw)
		}
	}
	for _, raw := range []string{"ftp://example.com", "file:///etc/passwd", "gopher://example.com", "http:example.com", "//example.com", "http://example.com:0", "http://example.com:99999", "http://example.com:22"} {
		u, err := url.Parse(raw)
		if err == nil {
			require.ErrorIs(t, c.CheckURL(u), errBlocked, raw)
		}
	}
	for _, raw := range []string{"https://example.com", "http://example.com:80/a?b=c", "https://8.8.8.8", "https://[2606:4700::1111]/", "https://xn--bcher-kva.example", "https://1e100.net", "https://EXAMPLE.com."} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		require.NoError(t, c.CheckURL(u), raw)
	}
}

func TestAllowedRanges(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{AllowedPrefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}, AllowedPorts: []uint16{443, 8443}})
	for raw, ok := range map[string]bool{
		"https://10.1.2.3:9999": true, "https://10.2.0.1": false, "https://[fd00:1::5]:81": true, "https://[fd00:2::5]": false,
		"https://8.8.8.8:8443": true, "http://8.8.8.8": false, "http://localhost": false,
		"http://inner.example:9999": true, // may lead to an allowed range; decided when dialled
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		if err := c.CheckURL(u); ok {
			require.NoError(t, err, raw)
		} else {
			require.ErrorIs(t, err, errBlocked, raw)
		}
	}
}

// Whatever is taken for an address when dialled is either public or allowed,
// however the URL spells it.
func FuzzCheckURL(f *testing.F) {
	for _, host := range spellings {
		f.Add("http://" + host + "/")
	}
	f.Add("https://example.com:8080/a?b#c")
	c := New(Options{})
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil || c.CheckURL(u) != nil {
			return
		}
		host := strings.TrimSuffix(u.Hostname(), ".")
		// The C library's resolver takes more spellings for addresses than netip does.
		if strings.Trim(host, "0123456789.xXabcdefABCDEF:") == "" {
			ip, err := netip.ParseAddr(host)
			if err != nil {
				last := host[strings.LastIndexByte(host, '.')+1:]
				require.False(t, isNumber(strings.ToLower(last)), "%q may be taken for an address", raw)
				return
			}
			require.True(t, ip.IsGlobalUnicast() && !ip.IsPrivate() && !ip.Is4In6(), raw)
		}
	})
}
