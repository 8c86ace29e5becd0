// Package notify tells people about the state of a webhook or source: it
// writes notices and sends them as text mails. What a notice says is a pure
// function of what is known; sending takes a server's address from the
// configuration. When to send, and again after a failure, is decided elsewhere.
package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// Options says how mails leave.
type Options struct {
	Addr     string // host:port of the SMTP server; "" = none
	Username string // "" = no authentication
	Password string
	TLS      string // starttls (required), tls (from the start) or none
	From     string // address mails come from
	Timeout  time.Duration
}

// Mailer sends mails. Safe for concurrent use.
type Mailer struct {
	from   string
	client func() (*mail.Client, error)
}

// ErrNoServer means that no mail server is configured.
var ErrNoServer = errors.New("no mail server is configured: set mail.smtp_addr")

// New makes a mailer. With no server configured Send returns ErrNoServer.
func New(o Options) (*Mailer, error) {
	if o.Addr == "" {
		return &Mailer{client: func() (*mail.Client, error) { return nil, ErrNoServer }}, nil
	}
	host, portText, err := net.SplitHostPort(o.Addr)
	port, portErr := strconv.Atoi(portText)
	if err != nil || portErr != nil || host == "" {
		return nil, fmt.Errorf("mail server address %q: want host:port", o.Addr)
	}
	options := []mail.Option{mail.WithPort(port), mail.WithTimeout(o.Timeout)}
	switch o.TLS {
	case "none":
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case "tls":
		options = append(options, mail.WithSSL())
	case "starttls", "":
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	default:
		return nil, fmt.Errorf("mail TLS %q: want starttls, tls or none", o.TLS)
	}
	if o.Username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(o.Username), mail.WithPassword(o.Password))
	}
	m := &Mailer{from: o.From, client: func() (*mail.Client, error) { return mail.NewClient(host, options...) }}
	if _, err := m.client(); err != nil {
		return nil, fmt.Errorf("mail settings: %w", err)
	}
	return m, nil
}

// Mail is a text mail to one person.
type Mail struct {
	To        string
	Subject   string
	Text      string
	MessageID string // without angle brackets; the same each time it is tried
	Date      time.Time
}

// Send delivers a mail to the server and returns once that has accepted it.
func (m *Mailer) Send(ctx context.Context, letter Mail) error {
	client, err := m.client() // one connection each; a client is not shared
	if err != nil {
		return err
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(m.from), msg.To(letter.To)); err != nil {
		return errors.New("address of sender or recipient is not valid") // the cause would repeat it
	}
	msg.Subject(oneLine(letter.Subject))
	msg.SetDateWithValue(letter.Date)
	msg.SetMessageIDWithValue(oneLine(letter.MessageID))
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no holiday replies, please
	msg.SetBodyString(mail.TypeTextPlain, letter.Text)
	return client.DialAndSendWithContext(ctx, msg)
}

// Refused reports whether the server said that it will never take a mail to
// this recipient (RFC 5321, 5yz after RCPT), so that trying again cannot help.
func Refused(err error) bool {
	sendErr, ok := errors.AsType[*mail.SendError](err)
	return ok && sendErr.Reason == mail.ErrSMTPRcptTo && !sendErr.IsTemp()
}

// Class names a failure to send without text from the server, which repeats
// addresses.
func Class(err error) string {
	if errors.Is(err, ErrNoServer) {
		return "no mail server is configured"
	}
	if sendErr, ok := errors.AsType[*mail.SendError](err); ok {
		if code := sendErr.ErrorCode(); code != 0 {
			return "SMTP " + strconv.Itoa(code)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return "connection"
	}
	return "not sent"
}

// oneLine keeps text from outside from adding headers.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
