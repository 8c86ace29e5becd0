package notify

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

// postOffice is a real SMTP server that keeps what it gets.
type postOffice struct {
	mu    sync.Mutex
	mails []letter
}

type letter struct {
	from, to string
	data     string
}

func (p *postOffice) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{office: p}, nil }

type session struct {
	office *postOffice
	letter letter
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error { s.letter.from = from; return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	switch {
	case strings.HasPrefix(to, "unknown@"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to}
	case strings.HasPrefix(to, "busy@"):
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
	}
	s.letter.to = to
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	s.letter.data = string(data)
	s.office.mu.Lock()
	defer s.office.mu.Unlock()
	s.office.mails = append(s.office.mails, s.letter)
	return err
}

func (s *session) Reset()        { s.letter = letter{} }
func (s *session) Logout() error { return nil }

func open(t *testing.T) (*postOffice, string) {
	office := &postOffice{}
	server := smtp.NewServer(office)
	server.Domain = "localhost"
	server.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return office, l.Addr().String()
}

func mailer(t *testing.T, o Options) *Mailer {
	o.From, o.Timeout = "aftersend@example.com", 5*time.Second
	m, err := New(o)
	require.NoError(t, err)
	return m
}

func TestSend(t *testing.T) {
	t.Parallel()
	office, addr := open(t)
	m := mailer(t, Options{Addr: addr, TLS: "none"})
	sent := Mail{
		To: "owner@example.com", Subject: "Webhook \"Bücher\r\nBcc: victim@example.com\" is paused", Text: "line one\n.\nGrüße\n",
		MessageID: "ntc_1@aftersend.invalid", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	require.NoError(t, m.Send(t.Context(), sent))
	require.Len(t, office.mails, 1)
	got := office.mails[0]
	require.Equal(t, "aftersend@example.com", got.from)
	require.Equal(t, "owner@example.com", got.to)
	msg, err := netmail.ReadMessage(strings.NewReader(got.data))
	require.NoError(t, err)
	require.Empty(t, msg.Header.Get("Bcc"), "a name cannot add headers")
	require.Equal(t, "<ntc_1@aftersend.invalid>", msg.Header.Get("Message-ID"))
	require.Equal(t, "auto-generated", msg.Header.Get("Auto-Submitted"))
	require.Contains(t, msg.Header.Get("Content-Type"), "text/plain")
	date, err := msg.Header.Date()
	require.NoError(t, err)
	require.True(t, sent.Date.Equal(date))
	require.Contains(t, got.data, "\r\n.\r\n", "a lone dot is no end")
}

func TestSendingFails(t *testing.T) {
	t.Parallel()
	_, addr := open(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := closed.Addr().String()
	require.NoError(t, closed.Close())
	for _, tc := range []struct {
		name    string
		options Options
		to      string
		class   string
		refused bool
	}{
		{"no server", Options{}, "owner@example.com", "no mail server is configured", false},
		{"nobody listens", Options{Addr: nobody, TLS: "none"}, "owner@example.com", "connection", false},
		{"no such recipient", Options{Addr: addr, TLS: "none"}, "unknown@example.com", "SMTP 550", true},
		{"later", Options{Addr: addr, TLS: "none"}, "busy@example.com", "SMTP 451", false},
		{"TLS that the server lacks", Options{Addr: addr, TLS: "starttls"}, "owner@example.com", "not sent", false},
		{"an address that is none", Options{Addr: addr, TLS: "none"}, "owner@example.com>\r\nRCPT TO:<x@example.com", "not sent", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := mailer(t, tc.options).Send(t.Context(), Mail{To: tc.to, Subject: "s", Text: "t", MessageID: "m@x", Date: time.Unix(0, 0)})
			require.Error(t, err)
			require.Equal(t, tc.class, Class(err), "%v", err)
			require.Equal(t, tc.refused, Refused(err))
		})
	}
	require.Equal(t, "timeout", Class(context.DeadlineExceeded))
	require.Equal(t, "not sent", Class(errors.New("?")))
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Addr: "localhost"}, {Addr: "localhost:smtp"}, {Addr: ":25"}, {Addr: "localhost:25", TLS: "maybe"}} {
		o.From, o.Timeout = "a@example.com", time.Second
		_, err := New(o)
		require.Error(t, err, "%+v", o)
	}
}

func TestWebhookPaused(t *testing.T) {
	t.Parallel()
	p := Paused{
		Webhook: "wh_1", Name: "crm\r\nBcc: x@example.com", Endpoint: "https://example.com/hook",
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), At: time.Date(2026, 1, 2, 6, 24, 5, 0, time.UTC),
		Attempts: 41, LastError: "HTTP 503", Waiting: 1234567, PublicURL: "https://hub.example.com/",
	}
	subject, text := p.Mail()
	require.Equal(t, `Webhook "crm  Bcc: x@example.com" is paused: HTTP 503`, subject)
	for _, part := range []string{
		"41 attempts failed, last: HTTP 503", "https://example.com/hook", "2026-01-02 03:04:05 UTC", "2026-01-02 06:24:05 UTC", "1,234,567 events",
		"https://hub.example.com/webhooks/wh_1", "curl -X POST https://hub.example.com/api/v1/webhooks/wh_1/resume", `{"backlog":"deliver"}`,
	} {
		require.Contains(t, text, part)
	}
	p.Final, p.LastError, p.Waiting, p.Attempts = true, "HTTP 410", 1, 1
	require.Equal(t, "the endpoint answered HTTP 410, which trying again cannot mend", p.Reason())
	_, text = p.Mail()
	require.Contains(t, text, "1 event\n")
}
