// Package outbound is the HTTP client for addresses that users choose: webhook
// endpoints, and the certificates that callbacks point to. It calls public
// addresses only (what special-purpose ranges it may use in addition is
// configured), checks the very address it dials, follows no redirects, takes
// no proxy from the environment, and bounds the time and size of everything
// that comes back.
//
// It imports the standard library and the range list only.
package outbound

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// MaxAnswer is how much of an answer's body is read, after inflating it.
const MaxAnswer = 64 << 10

// UserAgent is what endpoints see.
const UserAgent = "aftersend/1"

// Options says what the client may reach besides public addresses on the
// standard ports.
type Options struct {
	// AllowedPrefixes are special-purpose ranges that may be called all the
	// same, on any port: who opens a network vouches for what is in it.
	AllowedPrefixes []netip.Prefix
	// AllowedPorts of all other addresses; none = 80 and 443.
	AllowedPorts []uint16
	// RootCAs verify endpoints' certificates; nil = the system's.
	RootCAs *x509.CertPool
	// Resolve replaces the system's resolver for look-ups; nil = the system's.
	Resolver *net.Resolver
}

// Client calls endpoints. It keeps connections open between calls and is safe
// for concurrent use.
type Client struct {
	policy    policy
	transport *http.Transport
}

// Connections that are not in use are kept shorter than common servers do (5 s
// in Node.js, more elsewhere): a request on a connection that the other side is
// just closing fails for no fault of the endpoint.
const idleTimeout = 4 * time.Second

// New makes a client.
func New(o Options) *Client {
	c := &Client{policy: newPolicy(o)}
	dialer := &net.Dialer{Control: c.policy.control, Resolver: o.Resolver, KeepAlive: 15 * time.Second}
	c.transport = &http.Transport{
		Proxy:                  nil, // a proxy would be dialled in place of the address that was checked
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true, // Go gives it up when there is a dialer
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		DisableCompression:     true, // inflated here, within a bound
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    8, // more webhooks than the default of 2 may share a host
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		WriteBufferSize:        64 << 10, // batches are large
	}
	return c
}

// Close closes the connections that are kept open.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Request is one call.
type Request struct {
	Method  string // "" = POST
	URL     string
	Header  http.Header
	Body    []byte
	Timeout time.Duration // over everything, including the answer's body
}

// Timings is where the time of a call went. A part that did not happen, for
// example a look-up on a kept connection, is 0.
type Timings struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from the start of the call
	Total     time.Duration
}

// Answer is what came of a call. Either Status is set, or Class and Detail.
type Answer struct {
	Status    int
	Header    http.Header
	Body      []byte // at most MaxAnswer, inflated
	Truncated bool   // there was more
	BodyClass string // why the rest of the body could not be read, "" when it could
	Class     Class  // why no answer came
	Detail    string // of the failure; without the URL
	Timings   Timings
	// Stale says that a kept connection broke before any answer: it tells
	// nothing about the endpoint, and the call may be repeated at once.
	Stale bool
}

// Do makes one call. It never fails otherwise than by an answer that says so.
// The call ends when ctx does or Timeout is over, whichever is first.
func (c *Client) Do(ctx context.Context, r Request) (a Answer) {
	start := time.Now()
	defer func() { a.Timings.Total = time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	trace := &trace{start: start}
	ctx = httptrace.WithClientTrace(ctx, trace.hooks())

	method := r.Method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, r.URL, bytes.NewReader(r.Body))
	if err == nil {
		err = c.policy.checkURL(req.URL)
	}
	if err != nil {
		a.Class, a.Detail = classify(err)
		return a
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", UserAgent)

	res, err := c.transport.RoundTrip(req) // below http.Client, which would follow redirects
	a.Timings = trace.timings()
	if err != nil {
		a.Class, a.Detail = classify(err)
		a.Stale = a.Class == ClassReset && trace.reused()
		return a
	}
	// Closed without draining: what is left may never end.
	defer func() { _ = res.Body.Close() }()
	a.Status, a.Header = res.StatusCode, res.Header
	a.Body, a.Truncated, err = readBody(res)
	if err != nil {
		class, _ := classify(err)
		a.BodyClass = string(class)
	}
	return a
}

// readBody reads up to MaxAnswer inflated bytes. With an error it returns what
// came before.
func readBody(res *http.Response) (body []byte, truncated bool, err error) {
	var from io.Reader = res.Body
	switch strings.ToLower(res.Header.Get("Content-Encoding")) {
	case "gzip", "x-gzip":
		from, err = gzip.NewReader(res.Body)
	case "deflate":
		from, err = zlib.NewReader(res.Body)
	}
	if err != nil {
		return nil, false, err
	}
	body, err = io.ReadAll(io.LimitReader(from, MaxAnswer+1))
	if len(body) > MaxAnswer {
		return body[:MaxAnswer], true, nil
	}
	return body, false, err
}

// CheckURL says, for a person to read, why a URL is not one the client would
// call; nil when it may be. Names are resolved, and their addresses checked,
// only when dialled.
func (c *Client) CheckURL(u *url.URL) error { return c.policy.checkURL(u) }
