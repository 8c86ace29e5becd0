package webhook

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"aftersend/event"
	"aftersend/id"
)

var (
	source = id.New()
	other  = id.New()
)

func TestMatch(t *testing.T) {
	t.Parallel()
	e := event.Event{Type: event.Bounced, ESP: "mandrill", Stream: "transactional", SendingDomain: "mail.example.com", SendingNode: "n1", Bridge: "b1", DedicatedIP: "192.0.2.1"}
	for _, tc := range []struct {
		name string
		s    Settings
		want bool
	}{
		{"everything", Settings{}, true},
		{"its type", Settings{Events: []event.Type{event.Delivered, event.Bounced}}, true},
		{"other types", Settings{Events: []event.Type{event.Delivered}}, false},
		{"one of several values", Settings{Filters: Filters{SendingDomain: []string{"a.example", "mail.example.com"}}}, true},
		{"domains have no case", Settings{Filters: Filters{SendingDomain: []string{"MAIL.example.com"}}}, true},
		{"nodes do", Settings{Filters: Filters{SendingNode: []string{"N1"}}}, false},
		{"all filters", Settings{Filters: Filters{ESP: []string{"mandrill"}, Stream: []string{"transactional"}, SendingNode: []string{"n1"}, Bridge: []string{"b1"}, DedicatedIP: []string{"192.0.2.1"}}}, true},
		{"all but one", Settings{Filters: Filters{ESP: []string{"mandrill"}, Stream: []string{"bulk"}}}, false},
		{"its source", Settings{Filters: Filters{Source: []string{id.Source.Format(other), id.Source.Format(source)}}}, true},
		{"another source", Settings{Filters: Filters{Source: []string{id.Source.Format(other)}}}, false},
		{"a source that is none", Settings{Filters: Filters{Source: []string{"nonsense"}}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.s.Dialect = DialectNative
			require.Equal(t, tc.want, Matches(tc.s, &e, source))
		})
	}
	require.False(t, Matches(Settings{Dialect: DialectNative, Filters: Filters{Bridge: []string{"b1"}}}, &event.Event{Type: event.Opened}, source), "what an event does not say does not match")
	require.True(t, Matches(Settings{Dialect: DialectNative, Events: []event.Type{event.Unknown}}, &event.Event{Type: "new"}, source))
}

func BenchmarkMatch(b *testing.B) {
	e := event.Event{Type: event.Bounced, ESP: "mandrill", SendingDomain: "mail.example.com"}
	m := Compile(Settings{Dialect: DialectNative, Events: []event.Type{event.Bounced}, Filters: Filters{SendingDomain: []string{"a.example.com", "mail.example.com"}}})
	b.ReportAllocs()
	for b.Loop() {
		m.Match(&e, source)
	}
}

func TestNativeBodiesHoldTheRecordedBytes(t *testing.T) {
	t.Parallel()
	a, b := []byte(`{"id":"evt_1","n":1.0}`), []byte(`{"id":"evt_2", "ü":"\u0000"}`)
	post, err := Encode(DialectNative, FormatJSON, []Item{{Data: a}, {Data: b}})
	require.NoError(t, err)
	require.Equal(t, `{"events":[`+string(a)+`,`+string(b)+`]}`, string(post.Body))
	require.Equal(t, "application/json", post.ContentType)
	require.True(t, json.Valid(post.Body))
	post, err = Encode(DialectNative, FormatJSONL, []Item{{Data: a}, {Data: b}})
	require.NoError(t, err)
	require.Equal(t, string(a)+"\n"+string(b)+"\n", string(post.Body))
	require.Equal(t, "application/jsonl", post.ContentType)
}

// The vector of the specification, and the reference library's agreement.
func TestStandardWebhooksSignature(t *testing.T) {
	t.Parallel()
	key, err := ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	require.NoError(t, err)
	at := time.Unix(1614265330, 0)
	got := Sign([][]byte{key}, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, []byte(`{"test": 2432232314}`))
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", got)

	fresh, err := NewKey(rand.Reader)
	require.NoError(t, err)
	back, err := ParseSecret(Secret(fresh))
	require.NoError(t, err)
	require.Equal(t, fresh, back)
	s := Settings{Dialect: DialectNative}
	post := Post{ContentType: "application/json", Body: []byte(`{"events":[]}`)}
	r, err := NewRequest(s, Secrets{URL: "https://example.com"}, post, "bat_1", [][]byte{fresh, key}, at)
	require.NoError(t, err)
	for name, k := range map[string][]byte{"new": fresh, "old": key} {
		verifier, err := standardwebhooks.NewWebhook(Secret(k))
		require.NoError(t, err)
		require.NoError(t, verifier.VerifyIgnoringTimestamp(r.Body, r.Header), "%s key during a rotation", name)
		require.Error(t, verifier.VerifyIgnoringTimestamp([]byte("other"), r.Header))
	}
	for _, bad := range []string{"", "whsec_", "whsec_!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="} {
		_, err := ParseSecret(bad)
		require.ErrorIs(t, err, ErrBadSecret, bad)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		auth Auth
		url  string
		name string
		want string
	}{
		{Auth{Type: AuthNone}, "https://example.com/a?b=c", "Authorization", ""},
		{Auth{Type: AuthBasic, Username: "u", Password: "p:ü"}, "https://example.com/a?b=c", "Authorization", "Basic dTpwOsO8"},
		{Auth{Type: AuthBearer, Token: "abc"}, "https://example.com/a?b=c", "Authorization", "Bearer abc"},
		{Auth{Type: AuthQuery, Name: "to ken", Token: "a&b"}, "https://example.com/a?b=c&to+ken=a%26b", "Authorization", ""},
		{Auth{Type: AuthHeaders, Headers: map[string]string{"X-Api-Key": "k"}}, "https://example.com/a?b=c", "X-Api-Key", "k"},
	} {
		r, err := NewRequest(Settings{}, Secrets{URL: "https://example.com/a?b=c", Auth: tc.auth}, Post{ContentType: "application/json"}, "bat_1", nil, time.Unix(5, 0))
		require.NoError(t, err)
		require.Equal(t, tc.url, r.URL)
		require.Equal(t, tc.want, r.Header.Get(tc.name))
		require.Equal(t, "bat_1", r.Header.Get(HeaderID))
		require.Equal(t, "5", r.Header.Get(HeaderTimestamp))
		require.Empty(t, r.Header.Values(HeaderSignature))
	}
	_, err := NewRequest(Settings{}, Secrets{URL: "http://a b/?token=secret"}, Post{}, "bat_1", nil, time.Unix(5, 0))
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name    string
		answer  Answer
		success Success
		want    Verdict // without the explanation
		explain string
	}{
		{name: "200", answer: Answer{Status: 200}, want: Verdict{Delivered: true, Word: "HTTP 200"}},
		{name: "204", answer: Answer{Status: 204}, want: Verdict{Delivered: true, Word: "HTTP 204"}},
		{name: "204 where only 200 counts", answer: Answer{Status: 204}, success: Success200, want: Verdict{Class: "status", Word: "HTTP 204"}, explain: "only 200"},
		{name: "200 where only 200 counts", answer: Answer{Status: 200}, success: Success200, want: Verdict{Delivered: true, Word: "HTTP 200"}},
		{name: "302", answer: Answer{Status: 302, Location: "https://x.example/?token=secret"}, want: Verdict{Class: "redirect", Word: "HTTP 302"}, explain: `to "https://x.example/"`},
		{name: "304", answer: Answer{Status: 304}, want: Verdict{Class: "redirect", Word: "HTTP 304"}},
		{name: "400", answer: Answer{Status: 400}, want: Verdict{Class: "status", Word: "HTTP 400"}, explain: "400 Bad Request"},
		{name: "410", answer: Answer{Status: 410}, want: Verdict{Class: "gone", Final: true, Gone: true, Word: "HTTP 410"}},
		{name: "503", answer: Answer{Status: 503}, want: Verdict{Class: "status", Word: "HTTP 503"}},
		{name: "599", answer: Answer{Status: 599}, want: Verdict{Class: "status", Word: "HTTP 599"}},
		{name: "timeout", answer: Answer{Class: "timeout", Detail: "context deadline exceeded"}, want: Verdict{Class: "timeout", Word: "timeout"}, explain: "in time. (context deadline"},
		{name: "blocked", answer: Answer{Class: ClassBlocked}, want: Verdict{Class: ClassBlocked, Final: true, Word: "blocked address"}},
		{name: "a new class", answer: Answer{Class: "quic"}, want: Verdict{Class: "quic", Word: "quic"}, explain: "failed"},
		{name: "Retry-After", answer: Answer{Status: 429, RetryAfter: "600"}, want: Verdict{Class: "status", Word: "HTTP 429", RetryAfter: 10 * time.Minute}},
		{name: "Retry-After as a date", answer: Answer{Status: 503, RetryAfter: now.Add(20 * time.Minute).Format(http.TimeFormat)}, want: Verdict{Class: "status", Word: "HTTP 503", RetryAfter: 20 * time.Minute}},
		{name: "Retry-After of ten years", answer: Answer{Status: 503, RetryAfter: "315360000"}, want: Verdict{Class: "status", Word: "HTTP 503", RetryAfter: time.Hour}},
		{name: "Retry-After beyond numbers", answer: Answer{Status: 503, RetryAfter: "99999999999999999999999"}, want: Verdict{Class: "status", Word: "HTTP 503"}},
		{name: "Retry-After sooner than the interval", answer: Answer{Status: 503, RetryAfter: "3"}, want: Verdict{Class: "status", Word: "HTTP 503"}},
		{name: "Retry-After in the past", answer: Answer{Status: 503, RetryAfter: now.Add(-time.Hour).Format(http.TimeFormat)}, want: Verdict{Class: "status", Word: "HTTP 503"}},
		{name: "Retry-After negative", answer: Answer{Status: 503, RetryAfter: "-600"}, want: Verdict{Class: "status", Word: "HTTP 503"}},
		{name: "Retry-After nonsense", answer: Answer{Status: 503, RetryAfter: "soon"}, want: Verdict{Class: "status", Word: "HTTP 503"}},
		{name: "Retry-After with a success", answer: Answer{Status: 200, RetryAfter: "600"}, want: Verdict{Delivered: true, Word: "HTTP 200"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.success == "" {
				tc.success = Success2xx
			}
			got := Judge(tc.answer, tc.success, 5*time.Minute, now)
			require.Contains(t, got.Explanation, tc.explain)
			require.NotEmpty(t, got.Explanation)
			require.NotContains(t, got.Explanation, "secret")
			got.Explanation = ""
			require.Equal(t, tc.want, got)
		})
	}
}

var defaults = Defaults{Timeout: 30 * time.Second, RetryInterval: 5 * time.Minute, Retries: 40, MaxEvents: 500}

func anyURL(*url.URL) error { return nil }

func TestNormalizeFillsIn(t *testing.T) {
	t.Parallel()
	s, secrets, err := Normalize(defaults.Settings(), Secrets{URL: " https://u:p@example.com/hook?token=secret#top "}, defaults, anyURL)
	require.NoError(t, err)
	require.Equal(t, Settings{
		Channel: ChannelWeb, URL: "https://example.com/hook", Dialect: DialectNative, Format: FormatJSON, AuthType: AuthBasic, Success: Success2xx,
		Timeout: 30, Retry: Retry{IntervalSeconds: 300, Attempts: 40}, Batch: Batch{MaxEvents: 500},
	}, s)
	require.Equal(t, Secrets{URL: "https://example.com/hook?token=secret", Auth: Auth{Type: AuthBasic, Username: "u", Password: "p"}}, secrets)

	again, secretsAgain, err := Normalize(s, secrets, defaults, anyURL)
	require.NoError(t, err)
	require.Equal(t, s, again, "what is normal stays")
	require.Equal(t, secrets, secretsAgain)

	none, _, err := Normalize(Settings{URL: "https://example.com", Retry: Retry{Attempts: 0}}, Secrets{}, defaults, anyURL)
	require.NoError(t, err)
	require.Zero(t, none.Retry.Attempts, "no retries can be wanted")

	tidy, _, err := Normalize(Settings{
		URL: "https://example.com", Events: []event.Type{"bounced", "opened", "bounced"}, Notify: []string{"Ops <ops@example.com>", "ops@example.com"},
		Filters: Filters{SendingDomain: []string{" Mail.Example.COM. ", "mail.example.com"}, DedicatedIP: []string{"2001:DB8::0001"}, Source: []string{id.Source.Format(source)}},
	}, Secrets{}, defaults, anyURL)
	require.NoError(t, err)
	require.Equal(t, []event.Type{"bounced", "opened"}, tidy.Events)
	require.Equal(t, []string{"ops@example.com"}, tidy.Notify)
	require.Equal(t, []string{"mail.example.com"}, tidy.Filters.SendingDomain)
	require.Equal(t, []string{netip.MustParseAddr("2001:db8::1").String()}, tidy.Filters.DedicatedIP)
}

func TestNormalizeRefuses(t *testing.T) {
	t.Parallel()
	headers := func(name, value string) func(*Settings, *Secrets) {
		return func(s *Settings, secrets *Secrets) {
			s.AuthType, secrets.Auth.Headers = AuthHeaders, map[string]string{name: value}
		}
	}
	for _, tc := range []struct {
		name  string
		field string
		give  func(*Settings, *Secrets)
	}{
		{"no URL", "url", func(s *Settings, _ *Secrets) { s.URL = "" }},
		{"a long URL", "url", func(s *Settings, _ *Secrets) { s.URL += strings.Repeat("x", 3000) }},
		{"a URL with a line break", "url", func(s *Settings, _ *Secrets) { s.URL += "\r\nX: y" }},
		{"what the client would not call", "url", func(s *Settings, _ *Secrets) { s.URL = "https://localhost" }},
		{"credentials twice", "url", func(s *Settings, secrets *Secrets) {
			s.URL, s.AuthType, secrets.Auth.Token = "https://u:p@example.com", AuthBearer, "t"
		}},
		{"an unknown type", "events", func(s *Settings, _ *Secrets) { s.Events = []event.Type{"exploded"} }},
		{"an unknown channel", "channel", func(s *Settings, _ *Secrets) { s.Channel = "fax" }},
		{"an unknown dialect", "dialect", func(s *Settings, _ *Secrets) { s.Dialect = "klingon" }},
		{"a format of another dialect", "format", func(s *Settings, _ *Secrets) { s.Format = FormatForm }},
		{"an unknown success", "success", func(s *Settings, _ *Secrets) { s.Success = "3xx" }},
		{"a long timeout", "timeout_seconds", func(s *Settings, _ *Secrets) { s.Timeout = 31 }},
		{"a negative timeout", "timeout_seconds", func(s *Settings, _ *Secrets) { s.Timeout = -1 }},
		{"a negative interval", "retry.interval_seconds", func(s *Settings, _ *Secrets) { s.Retry.IntervalSeconds = -1 }},
		{"too many retries", "retry.attempts", func(s *Settings, _ *Secrets) { s.Retry.Attempts = 1001 }},
		{"too many events", "batch.max_events", func(s *Settings, _ *Secrets) { s.Batch.MaxEvents = 501 }},
		{"too long a wait", "batch.max_wait_seconds", func(s *Settings, _ *Secrets) { s.Batch.MaxWaitSeconds = 31 }},
		{"no mail address", "notify", func(s *Settings, _ *Secrets) { s.Notify = []string{"ops"} }},
		{"a mail address that adds a header", "notify", func(s *Settings, _ *Secrets) { s.Notify = []string{"ops@example.com\r\nBcc: x@example.com"} }},
		{"no source", "filters.source", func(s *Settings, _ *Secrets) { s.Filters.Source = []string{"evt_1"} }},
		{"no IP", "filters.dedicated_ip", func(s *Settings, _ *Secrets) { s.Filters.DedicatedIP = []string{"300.1.1.1"} }},
		{"an empty filter", "filters.bridge", func(s *Settings, _ *Secrets) { s.Filters.Bridge = []string{" "} }},
		{"a crowd of values", "filters.stream", func(s *Settings, _ *Secrets) { s.Filters.Stream = make([]string, 101) }},
		{"an unknown auth", "auth.type", func(s *Settings, _ *Secrets) { s.AuthType = "mtls" }},
		{"basic without a name", "auth.username", func(s *Settings, _ *Secrets) { s.AuthType = AuthBasic }},
		{"basic with a colon", "auth.username", func(s *Settings, secrets *Secrets) { s.AuthType, secrets.Auth.Username = AuthBasic, "a:b" }},
		{"bearer without a token", "auth.token", func(s *Settings, _ *Secrets) { s.AuthType = AuthBearer }},
		{"a token that adds a header", "auth.token", func(s *Settings, secrets *Secrets) { s.AuthType, secrets.Auth.Token = AuthBearer, "a\r\nX: y" }},
		{"query without a name", "auth.name", func(s *Settings, secrets *Secrets) { s.AuthType, secrets.Auth.Token = AuthQuery, "t" }},
		{"no headers", "auth.headers", func(s *Settings, _ *Secrets) { s.AuthType = AuthHeaders }},
		{"a header that adds another", "auth.headers", headers("X-A", "a\r\nX-B: b")},
		{"a header's name that adds another", "auth.headers", headers("X-A: b\r\nX-B", "c")},
		{"Host", "auth.headers", headers("host", "inner.example.com")},
		{"Content-Length", "auth.headers", headers("Content-Length", "0")},
		{"a signature of their own", "auth.headers", headers("Webhook-Signature", "v1,x")},
		{"a header of 8 kB", "auth.headers", headers("X-A", strings.Repeat("x", 9000))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, secrets := defaults.Settings(), Secrets{}
			s.URL = "https://example.com/hook?token=secret"
			tc.give(&s, &secrets)
			_, _, err := Normalize(s, secrets, defaults, func(u *url.URL) error {
				if u.Host == "localhost" {
					return errors.New("not a permitted destination")
				}
				return nil
			})
			problems, ok := errors.AsType[Problems](err)
			require.True(t, ok)
			require.Equal(t, tc.field, problems[0].Field, "%v", err)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// The events of a dialect that takes batches are written once and joined; no
// encoder may depend on anything but its input.
func TestEncodingIsDeterministic(t *testing.T) {
	t.Parallel()
	items := []Item{{ID: id.New(), Data: sample(t, event.Bounced)}, {ID: id.New(), Data: sample(t, event.Delivered)}}
	for _, d := range Dialects() {
		for _, f := range d.Formats() {
			batch := items
			if d.Singly() {
				batch = items[:1]
			}
			first, err := Encode(d, f, batch)
			require.NoError(t, err)
			second, err := Encode(d, f, batch)
			require.NoError(t, err)
			require.True(t, bytes.Equal(first.Body, second.Body), "%s %s", d, f)
		}
	}
}

func sample(t *testing.T, of event.Type) []byte {
	async := false
	data, err := json.Marshal(event.Event{
		ID: "evt_1", Type: of, OccurredAt: time.Unix(1728669700, 0).UTC(), ReceivedAt: time.Unix(1728669701, 0).UTC(), ESP: "mandrill",
		Recipient: "receiver@example.com", MessageID: "m1", EventID: "e1", BounceType: event.Hard, Asynchronous: &async, SMTPCode: 550,
		EnhancedStatus: "5.1.1", Diagnostic: "550 5.1.1 User unknown", SendingDomain: "example.com", Stream: "transactional",
	})
	require.NoError(t, err)
	return data
}
