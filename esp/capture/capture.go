// Package capture reads requests that were kept in files: *.request.json, as
// the adapters' fixtures are written, and raw HTTP in *.http. It imports esp
// and the standard library only.
//
// A *.request.json is one object:
//
//	{"method": "POST", "path_query": "/callbacks/mandrill?x=1", "headers": {"Content-Type": "…"},
//	 "body": "text", "body_base64": "instead of body, where it is no valid UTF-8",
//	 "remote_ip": "192.0.2.1", "received_at": "2026-01-02T03:04:05Z",
//	 "auth": {"scheme": "…", "valid": true}, "source": "where the form comes from", "note": "…"}
//
// A header's value may be a list. Everything but the method is optional.
package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"aftersend/esp"
)

// DefaultBaseURL stands before the paths of captures when no keys file names
// another.
const DefaultBaseURL = "https://hub.example.test"

// maxInflated is what intake takes, too.
const maxInflated = 10 << 20

// Capture is one kept request.
type Capture struct {
	Request esp.Request
	Auth    *Auth  // what is known about its authenticity; nil when nothing
	Source  string // where it comes from
	Note    string
}

// Auth says whether a capture is authentic under the keys it was kept with.
type Auth struct {
	Scheme string `json:"scheme"`
	Valid  bool   `json:"valid"`
}

// ReadFile reads a capture: raw HTTP when the name ends in .http, else JSON.
// baseURL is the public address of the server that the path belongs to.
func ReadFile(name, baseURL string) (Capture, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Capture{}, fmt.Errorf("read the capture: %w", err)
	}
	if strings.HasSuffix(name, ".http") {
		return ParseHTTP(data, baseURL)
	}
	return ParseJSON(data, baseURL)
}

// ParseJSON reads a *.request.json.
func ParseJSON(data []byte, baseURL string) (Capture, error) {
	var f struct {
		Method     string            `json:"method"`
		PathQuery  string            `json:"path_query"`
		Headers    map[string]values `json:"headers"`
		Body       string            `json:"body"`
		BodyBase64 string            `json:"body_base64"`
		RemoteIP   netip.Addr        `json:"remote_ip"`
		ReceivedAt time.Time         `json:"received_at"`
		Auth       *Auth             `json:"auth"`
		Source     string            `json:"source"`
		Note       string            `json:"note"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return Capture{}, fmt.Errorf("parse the capture: %w", err)
	}
	if f.Method == "" {
		return Capture{}, errors.New("parse the capture: it has no method; a *.request.json is wanted")
	}
	body := []byte(f.Body)
	if f.BodyBase64 != "" {
		var err error
		if body, err = base64.StdEncoding.DecodeString(f.BodyBase64); err != nil {
			return Capture{}, fmt.Errorf("decode body_base64: %w", err)
		}
	}
	header := make(http.Header, len(f.Headers))
	for name, list := range f.Headers {
		for _, v := range list {
			header.Add(name, v)
		}
	}
	req, err := newRequest(f.Method, baseURL, f.PathQuery, header, body)
	if err != nil {
		return Capture{}, err
	}
	req.RemoteIP, req.ReceivedAt = f.RemoteIP, f.ReceivedAt.UTC()
	return Capture{Request: req, Auth: f.Auth, Source: f.Source, Note: f.Note}, nil
}

// ParseHTTP reads a raw HTTP/1 request. Without Transfer-Encoding the body is
// everything after the header, whatever Content-Length says, so that files can
// be edited by hand.
func ParseHTTP(data []byte, baseURL string) (Capture, error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		return Capture{}, fmt.Errorf("parse the raw HTTP request: %w", err)
	}
	body := afterHeader(data)
	if len(r.TransferEncoding) > 0 {
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxInflated)); err != nil {
			return Capture{}, fmt.Errorf("read the chunked body: %w", err)
		}
	}
	r.Header.Set("Host", r.Host) // ReadRequest moves it out of the header
	req, err := newRequest(r.Method, baseURL, r.RequestURI, r.Header, body)
	return Capture{Request: req}, err
}

func newRequest(method, baseURL, pathQuery string, header http.Header, body []byte) (esp.Request, error) {
	if !strings.HasPrefix(pathQuery, "/") { // absent, or the absolute form
		pathQuery = "/" + strings.TrimPrefix(pathQuery, strings.TrimSuffix(baseURL, "/"))
		pathQuery = strings.Replace(pathQuery, "//", "/", 1)
	}
	raw := strings.TrimSuffix(baseURL, "/") + pathQuery
	u, err := url.Parse(raw)
	if err != nil {
		return esp.Request{}, fmt.Errorf("parse the capture's URL: %w", err)
	}
	if header.Get("Host") == "" {
		header.Set("Host", u.Host)
	}
	if strings.EqualFold(header.Get("Content-Encoding"), "gzip") {
		if body, err = inflate(body); err != nil {
			return esp.Request{}, err
		}
	}
	return esp.Request{Method: method, URL: raw, Path: u.EscapedPath(), RawQuery: u.RawQuery, Header: header, Body: body}, nil
}

func inflate(body []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("inflate the body: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, maxInflated))
	if err != nil {
		return nil, fmt.Errorf("inflate the body: %w", err)
	}
	return out, nil
}

// afterHeader returns what follows the first empty line.
func afterHeader(data []byte) []byte {
	for len(data) > 0 {
		line, rest, found := bytes.Cut(data, []byte{'\n'})
		if !found {
			return nil
		}
		if len(bytes.TrimSuffix(line, []byte{'\r'})) == 0 {
			return rest
		}
		data = rest
	}
	return nil
}

// values is one text or a list of them.
type values []string

// UnmarshalJSON implements json.Unmarshaler.
func (v *values) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]string)(v))
	}
	var s string
	err := json.Unmarshal(data, &s)
	*v = values{s}
	return err
}
