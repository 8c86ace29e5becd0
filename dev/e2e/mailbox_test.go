package e2e

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
)

// mailbox is the mail server of the people who get notices.
type mailbox struct {
	addr string
	mu   sync.Mutex
	got  []mail
}

type mail struct {
	to   []string
	data []byte
}

func newMailbox() (*mailbox, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &mailbox{addr: l.Addr().String()}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{box: m}, nil }))
	server.Domain = "localhost"
	go func() { _ = server.Serve(l) }() // ends with the process
	return m, nil
}

// to returns the mails that an address has got.
func (m *mailbox) to(address string) []mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []mail
	for _, one := range m.got {
		if slices.ContainsFunc(one.to, func(to string) bool { return strings.EqualFold(to, address) }) {
			out = append(out, one)
		}
	}
	return out
}

type session struct {
	box *mailbox
	to  []string
}

func (s *session) Reset()                               { s.to = nil }
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	var data bytes.Buffer
	if _, err := data.ReadFrom(r); err != nil {
		return err
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	s.box.got = append(s.box.got, mail{to: slices.Clone(s.to), data: data.Bytes()})
	return nil
}
