package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
)

// source adds one to the account of the server's others.
func (s *callbackServer) source(t *testing.T, name, token string, secrets esp.Secrets) {
	t.Helper()
	var account id.ID
	require.NoError(t, s.db.Get(&account, `select id from accounts limit 1`))
	row := store.SourceRow{ID: id.New(), AccountID: account, ESP: name, Token: token, Verification: secrets}
	require.NoError(t, s.deps.Store.CreateSource(t.Context(), row, store.Change{
		By: store.Actor{Kind: "system", Name: "test"}, Action: "source.created", ResourceKind: "source", ResourceID: row.ID,
	}))
}

// realESPs is a server that knows every ESP there is.
func realESPs(t *testing.T) *callbackServer {
	return newCallbackServer(t, func(d *Deps) { d.Adapters = all.ByName })
}

func TestCredentialsAndAddressesOfASource(t *testing.T) {
	s := newCallbackServer(t, nil)
	s.source(t, "plain", "basic", esp.Secrets{"username": "esp", "password": "hunter2"})
	s.source(t, "plain", "bearer", esp.Secrets{"bearer": "hunter2"})
	s.source(t, "plain", "addresses", esp.Secrets{"allowed_ips": "198.51.100.0/24"})
	s.source(t, "signing", "both", esp.Secrets{"secret": "s3cret", "bearer": "hunter2"})
	for _, c := range []struct {
		name, target, authorization, signature, peer string
		status                                       int
	}{
		{name: "user and password", target: "/callbacks/plain/basic", authorization: "Basic ZXNwOmh1bnRlcjI=", status: 200},
		{name: "another password", target: "/callbacks/plain/basic", authorization: "Basic ZXNwOmh1bnRlcjM=", status: 401},
		{name: "neither", target: "/callbacks/plain/basic", status: 401},
		{name: "bearer token", target: "/callbacks/plain/bearer", authorization: "Bearer hunter2", status: 200},
		{name: "another token", target: "/callbacks/plain/bearer", authorization: "Bearer hunter3", status: 401},
		{name: "allowed address", target: "/callbacks/plain/addresses", peer: "198.51.100.7:4711", status: 200},
		{name: "another address", target: "/callbacks/plain/addresses", peer: "192.0.2.1:4711", status: 401},
		{name: "unknown address", target: "/callbacks/plain/addresses", peer: "@", status: 401},
		{name: "signed and with a token", target: "/callbacks/signing/both", authorization: "Bearer hunter2", signature: "s3cret http://example.com/callbacks/signing/both x", status: 200},
		{name: "signed only", target: "/callbacks/signing/both", signature: "s3cret http://example.com/callbacks/signing/both x", status: 401},
		{name: "with a token only", target: "/callbacks/signing/both", authorization: "Bearer hunter2", status: 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			stored, rejected := s.count(t, `select count(*) from callbacks`), s.count(t, `select count(*) from rejected_requests where status_code = 401`)
			r := httptest.NewRequest(http.MethodPost, c.target, strings.NewReader("x"))
			if c.authorization != "" {
				r.Header.Set("Authorization", c.authorization)
			}
			if c.signature != "" {
				r.Header.Set("X-Signature", c.signature)
			}
			if c.peer != "" {
				r.RemoteAddr = c.peer
			}
			w := s.do(r)
			require.Equal(t, c.status, w.Code, w.Body)
			require.Equal(t, btoi(c.status == 200), s.count(t, `select count(*) from callbacks`)-stored)
			require.Equal(t, btoi(c.status == 401), s.count(t, `select count(*) from rejected_requests where status_code = 401`)-rejected)
			require.Equal(t, c.status == 401 && strings.HasSuffix(c.target, "basic"), w.Header().Get("WWW-Authenticate") != "",
				"a client that waits to be asked for its password is asked")
			require.NotContains(t, w.Body.String(), "hunter2")
		})
	}
	require.Equal(t, 200, s.do(httptest.NewRequest(http.MethodHead, "/callbacks/plain/basic", nil)).Code, "a probe says nothing and learns nothing")
	require.Zero(t, s.count(t, `select count(*) from rejected_requests where headers like '%aHVudGVyM%' or reason like '%hunter%'`))
}

func TestSMTPeterFindsItsFileBelowTheAddress(t *testing.T) {
	s := realESPs(t)
	s.source(t, "smtpeter", testToken, esp.Secrets{"validation_file": "smtpeter-abc12.txt", "validation_text": "prove it"})
	const address = "/callbacks/smtpeter/" + testToken
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		address:                         {200, ""},
		address + "/":                   {200, ""},
		address + "/smtpeter-abc12.txt": {200, "prove it"},
		address + "/smtpeter-other.txt": {404, ""},
		"/callbacks/smtpeter/another/smtpeter-abc12.txt": {404, "no such source"},
	} {
		w := s.do(httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, want.status, w.Code, path)
		require.Contains(t, w.Body.String(), want.body, path)
		if want.status == 200 {
			require.Equal(t, want.body, w.Body.String(), path)
		}
	}
	require.Zero(t, s.count(t, `select count(*) from callbacks`))

	for _, path := range []string{address, address + "/", address + "/below%20it?a=b"} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("id=1&type=delivery&recipient=a%40example.com"))
		require.Equal(t, 200, s.do(r).Code, path)
	}
	var stored []string
	require.NoError(t, s.db.Select(&stored, `select convert_from(path, 'UTF8') from callbacks order by 1`))
	require.Equal(t, []string{"/callbacks/smtpeter/[masked]", "/callbacks/smtpeter/[masked]/", "/callbacks/smtpeter/[masked]/below%20it"}, stored)
	require.Equal(t, 200, s.do(httptest.NewRequest(http.MethodPost, address+"/", nil)).Code, "nothing is in it")
	require.Equal(t, 3, s.count(t, `select count(*) from callbacks`))
}

func TestElasticEmailCallsWithGET(t *testing.T) {
	s := realESPs(t)
	s.source(t, "elasticemail", testToken, nil)
	const address = "/callbacks/elasticemail/" + testToken
	a, _ := all.ByName("elasticemail")
	req, err := a.(esp.Sampler).Sample(event.Event{Type: event.Bounced, Recipient: "a@example.com", MessageID: "m1"}, "http://example.com"+address, nil, time.Now())
	require.NoError(t, err)
	for target, stored := range map[string]int{address: 0, address + "?" + req.RawQuery: 1} {
		require.Equal(t, 200, s.do(httptest.NewRequest(http.MethodGet, target, nil)).Code)
		require.Equal(t, stored, s.count(t, `select count(*) from callbacks where method = 'GET' and convert_from(query, 'UTF8') = $1`, req.RawQuery))
		_, err = s.db.Exec(`delete from callbacks`)
		require.NoError(t, err)
	}
}

// TestOldCallbacksAreRefused: an authentic post that somebody kept is refused
// when it comes late, where the ESP signs the time.
func TestOldCallbacksAreRefused(t *testing.T) {
	s := realESPs(t)
	for _, c := range []struct {
		esp     string
		secrets esp.Secrets
		late    time.Duration
	}{
		{"resend", esp.Secrets{"secret": "whsec_cmVzZW5kLWZpeHR1cmU="}, 6 * time.Minute},
		{"mailgun", esp.Secrets{"signing_key": "key-1"}, 10 * time.Hour},
	} {
		t.Run(c.esp, func(t *testing.T) {
			s.source(t, c.esp, testToken, c.secrets)
			a, _ := all.ByName(c.esp)
			for at, status := range map[time.Time]int{time.Now(): 200, time.Now().Add(-c.late): 401} {
				req, err := a.(esp.Sampler).Sample(event.Event{Type: event.Delivered, Recipient: "a@example.com", MessageID: "m1"},
					"http://example.com/callbacks/"+c.esp+"/"+testToken, c.secrets, at)
				require.NoError(t, err)
				r := httptest.NewRequest(req.Method, req.URL, strings.NewReader(string(req.Body)))
				r.Header = req.Header
				w := s.do(r)
				require.Equal(t, status, w.Code, w.Body)
			}
		})
	}
}
