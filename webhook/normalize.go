package webhook

import (
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"aftersend/id"
)

// Limits of what a webhook can be set to.
const (
	MaxTimeout       = 30 * time.Second
	MaxBatchWait     = 30 * time.Second
	MaxRetries       = 1000
	MaxRetryInterval = 24 * time.Hour
	maxURL           = 2048
	maxFilterValues  = 100
	maxFilterValue   = 255
	maxNotify        = 20
	maxHeaders       = 20
	maxHeaderBytes   = 8 << 10 // names and values together
	maxCredential    = 4 << 10
)

// Defaults is what a new webhook gets where its owner does not say.
type Defaults struct {
	Timeout       time.Duration
	RetryInterval time.Duration
	Retries       int
	MaxEvents     int
	MaxWait       time.Duration
}

// Settings are the settings to decode a request for a new webhook onto.
// Decoding onto them tells "no retries" from "not said".
func (d Defaults) Settings() Settings {
	return Settings{
		Channel: ChannelWeb, Dialect: DialectNative, AuthType: AuthNone,
		Timeout: int(d.Timeout / time.Second),
		Retry:   Retry{IntervalSeconds: int(d.RetryInterval / time.Second), Attempts: d.Retries},
		Batch:   Batch{MaxEvents: d.MaxEvents, MaxWaitSeconds: int(d.MaxWait / time.Second)},
	}
}

// Problem is one thing wrong with a webhook's settings.
type Problem struct {
	Field string `json:"field"` // as in the API: "auth.headers", "filters.source"
	Text  string `json:"text"`  // what is wrong and what is wanted; repeats no secret
}

// Problems is the error of Normalize.
type Problems []Problem

// Error lists the problems.
func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, problem := range p {
		texts[i] = problem.Field + ": " + problem.Text
	}
	return strings.Join(texts, "; ")
}

func (p *Problems) add(field, format string, args ...any) {
	*p = append(*p, Problem{Field: field, Text: fmt.Sprintf(format, args...)})
}

// Normalize checks a webhook's settings and returns them as they are kept:
// lists without repeats, words in lower case where case says nothing, what was
// not said filled in from d, credentials in the URL moved to basic
// authentication, the shown URL free of secrets. The complete URL is taken
// from secrets, or from s when secrets has none. checkURL refuses what the
// outgoing client would not call (outbound.Client.CheckURL). The error, if any,
// is of type Problems.
func Normalize(s Settings, secrets Secrets, d Defaults, checkURL func(*url.URL) error) (Settings, Secrets, error) {
	var p Problems
	fill(&s, d)
	p.events(&s)
	p.filters(&s.Filters)
	p.channel(&s, &secrets, checkURL)
	p.numbers(s)
	p.notify(&s)
	if len(p) > 0 {
		return s, secrets, p
	}
	return s, secrets, nil
}

func fill(s *Settings, d Defaults) {
	if s.Channel == "" {
		s.Channel = ChannelWeb
	}
	if s.Dialect == "" {
		s.Dialect = DialectNative
	}
	known := dialects[s.Dialect]
	if s.Format == "" && len(known.formats) > 0 {
		s.Format = known.formats[0]
	}
	if s.Success == "" {
		s.Success = known.success
	}
	if s.AuthType == "" {
		s.AuthType = AuthNone
	}
	def := d.Settings()
	if s.Timeout == 0 {
		s.Timeout = def.Timeout
	}
	if s.Retry.IntervalSeconds == 0 {
		s.Retry.IntervalSeconds = def.Retry.IntervalSeconds
	}
	if s.Batch.MaxEvents == 0 {
		s.Batch.MaxEvents = def.Batch.MaxEvents
	}
}

func (p *Problems) events(s *Settings) {
	for _, t := range s.Events {
		if !t.Known() {
			p.add("events", "unknown event type %q", clip(string(t)))
		}
	}
	s.Events = unique(s.Events)
	if m := Compile(Settings{Events: s.Events, Dialect: s.Dialect}); s.Dialect.Known() && m.types == 0 {
		p.add("events", "the dialect %s has no words for any of these", s.Dialect)
	}
}

func (p *Problems) filters(f *Filters) {
	for _, one := range []struct {
		name   string
		values *[]string
		lower  bool
	}{
		{"source", &f.Source, false}, {"esp", &f.ESP, true}, {"stream", &f.Stream, true},
		{"sending_domain", &f.SendingDomain, true}, {"sending_node", &f.SendingNode, false},
		{"bridge", &f.Bridge, false}, {"dedicated_ip", &f.DedicatedIP, true},
	} {
		field := "filters." + one.name
		if len(*one.values) > maxFilterValues {
			p.add(field, "at most %d values", maxFilterValues)
			continue
		}
		kept := make([]string, 0, len(*one.values))
		for _, v := range *one.values {
			v = strings.TrimSpace(v)
			if one.lower {
				v = strings.ToLower(v)
			}
			switch one.name {
			case "source":
				source, err := id.Source.Parse(v)
				if err != nil {
					p.add(field, "%q is not the id of a source (src_…)", clip(v))
					continue
				}
				v = id.Source.Format(source)
			case "dedicated_ip":
				ip, err := netip.ParseAddr(v)
				if err != nil {
					p.add(field, "%q is not an IP address", clip(v))
					continue
				}
				v = ip.String()
			case "sending_domain":
				v = strings.TrimSuffix(v, ".")
			}
			if v == "" || len(v) > maxFilterValue || hasControl(v) {
				p.add(field, "values have 1 to %d characters, none of them control characters", maxFilterValue)
				continue
			}
			kept = append(kept, v)
		}
		*one.values = unique(kept)
	}
}

func (p *Problems) channel(s *Settings, secrets *Secrets, checkURL func(*url.URL) error) {
	switch s.Channel {
	case ChannelWeb:
	case ChannelPushover:
		p.add("channel", "pushover is not available in this version")
		return
	default:
		p.add("channel", "want web")
		return
	}
	d, ok := dialects[s.Dialect]
	if !ok {
		p.add("dialect", "want one of %v", Dialects())
	} else if !slices.Contains(d.formats, s.Format) {
		p.add("format", "the dialect %s is written as one of %v", s.Dialect, d.formats)
	}
	if s.Success != Success2xx && s.Success != Success200 && ok {
		p.add("success", "want 2xx or 200")
	}
	p.url(s, secrets, checkURL)
	secrets.Auth.Type = s.AuthType
	p.auth(&secrets.Auth)
}

func (p *Problems) url(s *Settings, secrets *Secrets, checkURL func(*url.URL) error) {
	raw := secrets.URL
	if raw == "" {
		raw = s.URL
	}
	raw = strings.TrimSpace(raw)
	s.URL, secrets.URL = "", raw
	if raw == "" {
		p.add("url", "is required")
		return
	}
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxURL || hasControl(raw) {
		p.add("url", "cannot be read: want https://host/path of at most %d characters", maxURL)
		return
	}
	u.Fragment, u.RawFragment = "", ""
	if u.User != nil {
		if s.AuthType != AuthNone && s.AuthType != AuthBasic {
			p.add("url", "holds a user name and password, which does not go with auth type %s", s.AuthType)
			return
		}
		s.AuthType = AuthBasic
		password, _ := u.User.Password()
		secrets.Auth = Auth{Type: AuthBasic, Username: u.User.Username(), Password: password}
		u.User = nil
	}
	if err := checkURL(u); err != nil {
		p.add("url", "%s", err)
		return
	}
	secrets.URL = u.String()
	u.RawQuery, u.ForceQuery = "", false
	s.URL = u.String()
}

// reserved headers are ours or the connection's.
var reserved = []string{
	"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "keep-alive",
	"proxy-connection", "proxy-authorization", "te", "trailer", "upgrade", "expect", "accept-encoding", "user-agent",
	"mailtrap-signature",
}

func (p *Problems) auth(a *Auth) {
	given := *a
	*a = Auth{Type: given.Type} // what does not belong to the type is dropped
	switch given.Type {
	case AuthNone:
	case AuthBasic:
		a.Username, a.Password = given.Username, given.Password
		if a.Username == "" || strings.Contains(a.Username, ":") {
			p.add("auth.username", "is required and cannot hold a colon (RFC 7617)")
		}
		p.credential("auth.username", a.Username)
		p.credential("auth.password", a.Password)
	case AuthQuery:
		a.Name, a.Token = given.Name, given.Token
		if a.Name == "" {
			p.add("auth.name", "is required: the name of the query parameter")
		}
		if a.Token == "" {
			p.add("auth.token", "is required")
		}
		p.credential("auth.name", a.Name)
		p.credential("auth.token", a.Token)
	case AuthBearer:
		a.Token = given.Token
		if a.Token == "" || strings.ContainsAny(a.Token, " \t") {
			p.add("auth.token", "is required and cannot hold blanks (RFC 6750)")
		}
		p.credential("auth.token", a.Token)
	case AuthHeaders:
		a.Headers = given.Headers
		p.headers(a.Headers)
	default:
		p.add("auth.type", "want none, basic, query, bearer or headers")
	}
}

func (p *Problems) credential(field, value string) {
	if len(value) > maxCredential || hasControl(value) {
		p.add(field, "at most %d bytes, none of them control characters", maxCredential)
	}
}

func (p *Problems) headers(headers map[string]string) {
	const field = "auth.headers"
	if len(headers) == 0 || len(headers) > maxHeaders {
		p.add(field, "want 1 to %d headers", maxHeaders)
		return
	}
	size := 0
	for name, value := range headers {
		size += len(name) + len(value)
		lower := strings.ToLower(name)
		switch {
		case !isToken(name):
			p.add(field, "a header's name consists of letters, digits and any of !#$%%&'*+-.^_`|~ (RFC 9110, 5.6.2)")
		case slices.Contains(reserved, lower), strings.HasPrefix(lower, "webhook-"):
			p.add(field, "%s cannot be set: it belongs to the request itself", name)
		case hasControl(value) || strings.TrimSpace(value) != value:
			p.add(field, "the value of %s cannot hold control characters or start or end with a blank", name)
		}
	}
	if size > maxHeaderBytes {
		p.add(field, "at most %d bytes in all", maxHeaderBytes)
	}
}

func (p *Problems) numbers(s Settings) {
	within := func(field string, value, low, high int) {
		if value < low || value > high {
			p.add(field, "want %d to %d", low, high)
		}
	}
	within("timeout_seconds", s.Timeout, 1, int(MaxTimeout/time.Second))
	within("retry.interval_seconds", s.Retry.IntervalSeconds, 1, int(MaxRetryInterval/time.Second))
	within("retry.attempts", s.Retry.Attempts, 0, MaxRetries)
	within("batch.max_events", s.Batch.MaxEvents, 1, MaxBatchEvents)
	within("batch.max_wait_seconds", s.Batch.MaxWaitSeconds, 0, int(MaxBatchWait/time.Second))
}

func (p *Problems) notify(s *Settings) {
	if len(s.Notify) > maxNotify {
		p.add("notify", "at most %d addresses", maxNotify)
		return
	}
	kept := make([]string, 0, len(s.Notify))
	for _, v := range s.Notify {
		a, err := mail.ParseAddress(strings.TrimSpace(v))
		if err != nil || len(v) > 320 || hasControl(v) {
			p.add("notify", "want e-mail addresses, as in ops@example.com")
			continue
		}
		kept = append(kept, a.Address)
	}
	s.Notify = unique(kept)
}

func unique[T comparable](list []T) []T {
	var kept []T
	for _, v := range list {
		if !slices.Contains(kept, v) {
			kept = append(kept, v)
		}
	}
	return kept
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' })
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
