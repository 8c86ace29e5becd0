package esptest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/event"
)

// foreign are bodies that some ESP or stranger posts, and this one does not.
var foreign = []string{
	"", " \r\n", "{}", "[]", "null", "true", "0", `""`, "[null]", `[[]]`, `[{}]`, "{", "[", "\"", "\xef\xbb\xbf", "\x00", "\xff\xfe{\x00}\x00",
	"<html>", "hello", "a=1&b=2", "=", "&&&", "%", "%zz=%", "type=d&status=relayed&to=user%40example.net",
	`{"event":"delivered","email":"x@example.com"}`, `{"RecordType":"Bounce","Email":"a@example.com"}`, `[{"msys":{}}]`,
	`{"Type":"Notification","Message":"{\"eventType\":\"Send\"}"}`, `{"signature":{},"event-data":{"event":"opened"}}`,
	`{"events":null}`, `{"events":{}}`, `{"events":"x"}`, `{"events":[1,"a",null,[],{}]}`, `mandrill_events={"event":"send"}`, `mandrill_events=[{"event":1,"msg":[]}]`,
	`{"event":{"event":{"event":[]}}}`, `{"id":{},"type":[],"time":{},"tags":{}}`, `{"events":[{"event":"open","timestamp":1e400,"email":7}]}`,
	`{"events":[{"event":"open","timestamp":"9999999999999999999999"}]}`, "id=1&type=bounce&mime=%00%00", "--x\r\n\r\n--x--",
}

func post(contentType string, body []byte) esp.Request {
	return esp.Request{
		Method: http.MethodPost, URL: capture.DefaultBaseURL + "/callbacks/x", Path: "/callbacks/x", Body: body,
		Header: http.Header{"Content-Type": {contentType}, "Host": {"hub.example.test"}},
	}
}

// parseAny parses and checks what holds for every input.
func parseAny(t testing.TB, a esp.Adapter, req esp.Request) {
	t.Helper()
	before := bytes.Clone(req.Body)
	result, err := a.Parse(req)
	require.True(t, bytes.Equal(before, req.Body), "Parse changed the request's body")
	if err != nil {
		require.ErrorIs(t, err, esp.ErrUnreadable)
		require.Empty(t, result.Events, "an error is for callbacks that say nothing readable")
		require.NotContains(t, err.Error(), "@", "errors hold no payload text")
	}
	for _, p := range result.Problems {
		require.NotEmpty(t, p.Reason)
		require.NotContains(t, p.Reason, "@", "problems hold no payload text")
	}
	records := make([]string, len(result.Events))
	for i := range result.Events {
		checkEvent(t, &result.Events[i])
		records[i] = string(result.Events[i].Record)
	}
	for i := range req.Body {
		req.Body[i] = '#'
	}
	for i := range result.Events {
		require.Equal(t, records[i], string(result.Events[i].Record), "Record refers to the request's body")
	}
	copy(req.Body, before)
}

func checkEvent(t testing.TB, e *event.Event) {
	t.Helper()
	require.True(t, e.Type.Known(), "%q is no event type", e.Type)
	require.NotEmpty(t, e.ESPType)
	require.NotEmpty(t, e.Record)
	require.Equal(t, time.UTC, e.OccurredAt.Location())
	require.Zero(t, e.OccurredAt.Nanosecond()%1000, "times have microseconds at most")
	require.LessOrEqual(t, e.OccurredAt.Year(), 9999)
	require.True(t, e.SMTPCode == 0 || e.SMTPCode >= 200 && e.SMTPCode <= 599, "%d is no reply code", e.SMTPCode)
	switch e.Type {
	case event.Bounced:
		require.NotEmpty(t, e.BounceType, "a bounce is hard, soft or undetermined")
	case event.Deferred:
		require.Contains(t, []event.BounceType{"", event.Soft}, e.BounceType, "the ESP will try again")
	default:
		require.Empty(t, e.BounceType, "%s is no bounce", e.Type)
	}
	require.Empty(t, e.ID+e.ESP+e.Source, "the caller's fields")
	require.True(t, e.ReceivedAt.IsZero() && e.Message == nil, "the caller's fields")
	for _, s := range []string{e.Recipient, e.MessageID, e.EventID, e.Subject, e.Diagnostic, e.URL, e.UserAgent, e.ESPType} {
		require.True(t, utf8.ValidString(s))
	}
	native(t, *e) // it can be written
}

// survives tries truncated, damaged and foreign bodies.
func survives(t *testing.T, a esp.Adapter, sets []set) {
	for _, body := range foreign {
		for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded", "application/jsonl", ""} {
			parseAny(t, a, post(contentType, []byte(body)))
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same damage each time
	for _, s := range sets {
		for _, c := range s.cases {
			req := c.capture.Request
			body := req.Body
			for cut := 0; cut < len(body); cut += 1 + len(body)/64 {
				req.Body = bytes.Clone(body[:cut])
				parseAny(t, a, req)
			}
			for range 64 {
				req.Body = damage(random, body)
				parseAny(t, a, req)
			}
			req.Body = bytes.Clone(body)
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, ""} {
				req.Method = method
				parseAny(t, a, req)
			}
			req.Method, req.Header = http.MethodPost, nil
			parseAny(t, a, req)
		}
	}
}

// damage changes, removes or doubles a few bytes.
func damage(random *rand.Rand, body []byte) []byte {
	out := bytes.Clone(body)
	for range 1 + random.IntN(4) {
		if len(out) == 0 {
			break
		}
		at := random.IntN(len(out))
		end := min(len(out), at+1+random.IntN(8))
		switch random.IntN(4) {
		case 0:
			out[at] = byte(random.UintN(256))
		case 1:
			out[at] = `"{}[],:\%&=`[random.IntN(11)]
		case 2:
			out = append(out[:at], out[end:]...)
		case 3:
			out = append(out[:end:end], out[at:]...)
		}
	}
	return out
}

// linear posts long runs of what makes parsers slow. A parser that reads back
// and forth would not come back from a megabyte; the test then times out.
func linear(t *testing.T, a esp.Adapter, own set) {
	if testing.Short() {
		t.Skip("megabytes of input")
	}
	const size = 1 << 20
	example := own.cases[0].capture.Request
	for _, c := range own.cases { // one that says something
		if result, _ := a.Parse(c.capture.Request); len(result.Events) > 0 {
			example = c.capture.Request
			break
		}
	}
	for _, run := range []string{
		"[", "{", `{"a":`, `"`, `\`, "},{", "{},", `{"":"`, `{"event":"x},{"`, "%", "%22", "&", "a&", "tags[]=a&", "\n", "\r\n ", "-", "--\n", "0", "1e", "5.", "550",
		"a@", "<", ": ", "%7D%2C%7B", `[{"a":[{},`, "Content-Type: message/delivery-status\r\n\r\nAction: failed\r\n\r\n--\r\n", "\xff", "é",
	} {
		long := bytes.Repeat([]byte(run), size/len(run))
		escaped := []byte(url.QueryEscape(string(long[:size/4])))
		middle := len(example.Body) / 2
		for _, body := range [][]byte{
			long,
			bytes.Join([][]byte{example.Body[:middle], long}, nil),
			bytes.Join([][]byte{example.Body[:middle], escaped, example.Body[middle:]}, nil),
		} {
			req := example
			req.Body = body
			_, err := a.Parse(req)
			require.True(t, err == nil || errors.Is(err, esp.ErrUnreadable))
		}
	}
}

// forgeries changes what is signed.
func forgeries(t *testing.T, a esp.Adapter, v esp.Verifier, sets []set, options []Option) {
	signed := 0
	for _, s := range sets {
		if !slices.ContainsFunc(s.cases, func(c fixture) bool { return c.capture.Auth != nil }) {
			continue
		}
		verification, ok := s.keys.Verification(a)
		require.True(t, ok, "there are no keys to verify the fixtures with")
		require.True(t, a.Describe().Verifiable(verification.Secrets), "_keys.json has no value for a required field")
		for _, c := range s.cases {
			refuse := func(why string, req esp.Request, verification esp.Verification) {
				err := v.Verify(t.Context(), req, verification)
				require.ErrorIs(t, err, esp.ErrForged, "%s: %s", c.name, why)
				for name, secret := range verification.Secrets {
					if len(secret) > 3 && isSecret(a, name) {
						require.NotContains(t, err.Error(), secret, "errors hold no secrets")
					}
				}
			}
			if c.capture.Auth == nil || !c.capture.Auth.Valid {
				continue
			}
			signed++
			for name := range changedHeaders(c.capture.Request.Header) { // any answer, no panic
				for _, value := range []string{"", "x", "%%%", "AAAA", "=\"", strings.Repeat("a,=\"", 1000)} {
					req := c.capture.Request
					req.Header = req.Header.Clone()
					req.Header.Set(name, value)
					if err := v.Verify(t.Context(), req, verification); err != nil {
						require.True(t, errors.Is(err, esp.ErrForged) || errors.Is(err, esp.ErrUnverified), "%v", err)
					}
				}
			}
			if !slices.Contains(options, SignatureInBody) {
				req := c.capture.Request
				req.Header = http.Header{"Host": req.Header["Host"]}
				refuse("no signature", req, verification)
			}
			if !slices.Contains(options, BodyUnsigned) {
				body := c.capture.Request.Body
				for at := 0; at < len(body); at += 1 + len(body)/64 {
					req := c.capture.Request
					req.Body = bytes.Clone(body)
					req.Body[at] ^= 1
					refuse(fmt.Sprintf("byte %d of the body changed", at), req, verification)
				}
			}
			if strings.HasPrefix(c.name, "probe") {
				continue // signed with a key that is no secret
			}
			refuse("no secrets", c.capture.Request, esp.Verification{Secrets: esp.Secrets{}, Keys: verification.Keys})
			for _, f := range a.Describe().Fields {
				if f.Required {
					other := esp.Secrets{}
					for name, value := range verification.Secrets {
						other[name] = value
					}
					other[f.Name] = "another-" + f.Name
					refuse("another "+f.Name, c.capture.Request, esp.Verification{Secrets: other, Keys: verification.Keys})
				}
			}
		}
	}
	require.Positive(t, signed, "no fixture is signed")
}

func changedHeaders(h http.Header) http.Header {
	h = h.Clone()
	h.Del("Content-Type")
	return h
}

func isSecret(a esp.Adapter, name string) bool {
	for _, f := range a.Describe().Fields {
		if f.Name == name {
			return f.Secret
		}
	}
	return name == esp.SampleKey
}

// samples checks that the adapter understands and accepts what it makes up.
func samples(t *testing.T, a esp.Adapter, s esp.Sampler, own set) {
	verification, _ := own.keys.Verification(a)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	address := capture.DefaultBaseURL + "/callbacks/" + a.Describe().Name + "/token?x=1"
	mapped := map[event.Type]bool{}
	for _, m := range a.Describe().Types {
		mapped[m.Ours] = true
	}
	for _, kind := range event.Types {
		want := sampled(kind, now)
		req, err := s.Sample(want, address, verification.Secrets, now)
		if !mapped[kind] || kind == event.Unknown {
			require.Error(t, err, "%s is not among the ESP's types", kind)
			continue
		}
		require.NoError(t, err, kind)
		require.True(t, strings.HasPrefix(req.URL, address), "%s: a sample goes to the URL it was asked for", kind)
		again, err := s.Sample(want, address, verification.Secrets, now)
		require.NoError(t, err)
		require.Equal(t, req.Body, again.Body, "samples depend on their arguments only")
		parseAny(t, a, req)
		result, err := a.Parse(req)
		require.NoError(t, err, kind)
		require.Len(t, result.Events, 1, kind)
		got := result.Events[0]
		require.Equal(t, kind, got.Type)
		require.Equal(t, want.Recipient, got.Recipient)
		if got.MessageID != "" && !a.Describe().MessageIDIsRFC {
			require.Equal(t, want.MessageID, got.MessageID)
		}
		if !got.OccurredAt.IsZero() { // some types come without
			require.Equal(t, want.OccurredAt, got.OccurredAt)
		}
		if v, ok := a.(esp.Verifier); ok && a.Describe().Verifiable(verification.Secrets) {
			verification.Now = now
			require.NoError(t, v.Verify(t.Context(), req, verification), kind)
		}
		plain, err := s.Sample(want, address, nil, now)
		require.NoError(t, err, "without secrets")
		parseAny(t, a, plain)
	}
}

// sampled is an event as a simulator would ask for it.
func sampled(kind event.Type, now time.Time) event.Event {
	e := event.Event{
		Type: kind, OccurredAt: now.Add(-time.Second), Recipient: "ada@example.com", MessageID: "0193c1f0-sample-0001", EventID: "0193c1f0-event-0001",
		Subject: "Your invoice", Tags: []string{"invoice"}, Metadata: map[string]any{"order": "17"}, Stream: "transactional", SendingDomain: "mail.example.com",
	}
	switch kind {
	case event.Bounced:
		e.BounceType, e.SMTPCode, e.EnhancedStatus, e.Diagnostic = event.Hard, 550, "5.1.1", "550 5.1.1 User unknown"
	case event.Deferred:
		e.SMTPCode, e.EnhancedStatus, e.Diagnostic = 451, "4.7.1", "451 4.7.1 Greylisted, try again later"
	case event.Opened, event.Clicked, event.Unsubscribed:
		e.IP, e.UserAgent = "192.0.2.55", "Mozilla/5.0"
		if kind == event.Clicked {
			e.URL = "https://www.example.com/offer?id=1&c=2"
		}
	}
	return e
}
