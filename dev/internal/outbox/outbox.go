// Package outbox is where mails go on a development machine: a mail server on loopback that delivers nothing, and a page that
// shows what it took. Mails are files in a directory, so they survive a restart; the last 200 are kept.
package outbox

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/uuid"
)

const (
	keep     = 200      // mails
	maxBytes = 10 << 20 // of one mail
	suffix   = ".eml"
)

// Outbox is a directory of mails. Several processes may use one.
type Outbox struct{ dir string }

// Open makes the directory if it is missing.
func Open(dir string) (*Outbox, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the outbox: %w", err)
	}
	return &Outbox{dir}, nil
}

// Listen starts the mail server on a free loopback port and returns its address. It needs neither TLS nor credentials, and runs
// until stop is called.
func (o *Outbox) Listen() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen for mails: %w", err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{box: o}, nil }))
	server.Domain = "localhost"
	server.MaxMessageBytes = maxBytes
	server.ReadTimeout, server.WriteTimeout = time.Minute, time.Minute
	go func() { _ = server.Serve(l) }() // returns when closed
	return l.Addr().String(), func() { _ = server.Close() }, nil
}

// session is one SMTP conversation.
type session struct {
	box  *Outbox
	from string
	to   []string
}

func (s *session) Reset()        { s.from, s.to = "", nil }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return s.box.put(s.from, s.to, body)
}

// put stores a mail, under its envelope as a delivering server would write it (RFC 5321, 4.4), and forgets the oldest.
func (o *Outbox) put(from string, to []string, body []byte) error {
	id, err := uuid.NewV7() // sorts by time
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "Return-Path: <%s>\r\nDelivered-To: %s\r\n", from, strings.Join(to, ", "))
	b.Write(body)
	unfinished := filepath.Join(o.dir, id.String()+".new")
	if err := os.WriteFile(unfinished, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("store a mail: %w", err)
	}
	if err := os.Rename(unfinished, filepath.Join(o.dir, id.String()+suffix)); err != nil {
		return fmt.Errorf("store a mail: %w", err)
	}
	ids, err := o.ids()
	if err != nil {
		return err
	}
	for _, old := range ids[min(keep, len(ids)):] {
		_ = os.Remove(filepath.Join(o.dir, old+suffix)) // another process may have
	}
	return nil
}

// ids are those of the mails, newest first.
func (o *Outbox) ids() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(o.dir, "*"+suffix))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, f := range files {
		ids = append(ids, strings.TrimSuffix(filepath.Base(f), suffix))
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
	return ids, nil
}

// Mail is a mail as a person reads it.
type Mail struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	From    string    `json:"from"`
	To      []string  `json:"to"` // of the envelope
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
}

// Mails returns all mails, newest first.
func (o *Outbox) Mails() ([]Mail, error) {
	ids, err := o.ids()
	if err != nil {
		return nil, err
	}
	mails := []Mail{}
	for _, id := range ids {
		m, err := o.Mail(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // forgotten meanwhile
		}
		if err != nil {
			return nil, err
		}
		mails = append(mails, m)
	}
	return mails, nil
}

// Raw returns a mail as it came, fs.ErrNotExist when there is none of that id.
func (o *Outbox) Raw(id string) ([]byte, error) {
	if uuid.Validate(id) != nil {
		return nil, fs.ErrNotExist
	}
	return os.ReadFile(filepath.Join(o.dir, id+suffix))
}

// Mail returns one mail, fs.ErrNotExist when there is none of that id. What cannot be decoded is shown as it is.
func (o *Outbox) Mail(id string) (Mail, error) {
	raw, err := o.Raw(id)
	if err != nil {
		return Mail{}, err
	}
	out := Mail{ID: id}
	if sec, nsec := uuid.MustParse(id).Time().UnixTime(); sec != 0 {
		out.At = time.Unix(sec, nsec).UTC()
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		out.Text = string(raw)
		return out, nil
	}
	out.From, out.Subject = decoded(m.Header.Get("From")), decoded(m.Header.Get("Subject"))
	out.To = strings.Split(m.Header.Get("Delivered-To"), ", ")
	out.Text = text(m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	return out, nil
}

func decoded(header string) string {
	if s, err := new(mime.WordDecoder).DecodeHeader(header); err == nil {
		return s
	}
	return header
}

// text is the plain text of a body: the body itself, or the first part that is or has some.
func text(contentType, encoding string, body io.Reader) string {
	kind, params, err := mime.ParseMediaType(cmp.Or(contentType, "text/plain"))
	if err == nil && strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if err != nil {
				return ""
			}
			if t := text(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p); t != "" {
				return t
			}
		}
	}
	if err == nil && kind != "text/plain" {
		return ""
	}
	switch strings.ToLower(encoding) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	b, _ := io.ReadAll(body) // what can be read of it
	return string(b)
}
