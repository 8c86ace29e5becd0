package load

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// maxDelivery bounds the body of one delivery.
const maxDelivery = 64 << 20

// Sink is the endpoint of subscribers: it answers every POST with 200 at once, and notes which of our events were in those to URL.
type Sink struct {
	listener net.Listener
	marker   []byte
	ledger   atomic.Pointer[ledger]
}

// NewSink listens on a free port of the loopback interface. The nonce is the generator's.
func NewSink(nonce string) (*Sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Sink{listener: l, marker: []byte(marker(nonce))}
	go s.accept()
	return s, nil
}

// eventsPath is where events are noted; elsewhere they are only taken.
const eventsPath = "/events"

// URL is where the webhook delivers to whose events are noted. Others may deliver to any other path.
func (s *Sink) URL() string { return "http://" + s.listener.Addr().String() + eventsPath }

// Close stops listening.
func (s *Sink) Close() error { return s.listener.Close() }

// watch has arrivals noted in l from now on; nil for nowhere.
func (s *Sink) watch(l *ledger) { s.ledger.Store(l) }

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.serve(c)
	}
}

var (
	accepted    = []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	goOn        = []byte("HTTP/1.1 100 Continue\r\n\r\n")
	needsLength = []byte("HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	expect      = []byte("\r\nexpect:")
	noted       = []byte("POST " + eventsPath + " ")
)

// serve reads deliveries from one connection until it ends.
func (s *Sink) serve(c net.Conn) {
	defer c.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, start, err := readHead(c, buffer)
		if err != nil {
			return
		}
		length, err := lengthOf(buffer[:start])
		if err != nil || length > maxDelivery {
			_, _ = c.Write(needsLength)
			return
		}
		if bytes.Contains(bytes.ToLower(buffer[:start]), expect) {
			_, _ = c.Write(goOn)
		}
		if start+length > len(buffer) {
			buffer = append(buffer, make([]byte, start+length-len(buffer))...)
		}
		if n < start+length {
			if _, err := io.ReadFull(c, buffer[n:start+length]); err != nil {
				return
			}
		}
		if bytes.HasPrefix(buffer, noted) {
			s.note(buffer[start : start+length])
		}
		if _, err := c.Write(accepted); err != nil {
			return
		}
	}
}

// note finds our sequence numbers in a body, whatever its format.
func (s *Sink) note(body []byte) {
	l := s.ledger.Load()
	if l == nil {
		return
	}
	at := time.Since(l.start)
	events := 0
	for {
		i := bytes.Index(body, s.marker)
		if i < 0 || len(body) < i+len(s.marker)+digits {
			break
		}
		body = body[i+len(s.marker):]
		if sequence, err := strconv.ParseInt(string(body[:digits]), 10, 64); err == nil {
			l.arrived(sequence, at)
			events++
		}
	}
	l.deliveries.Add(1)
	if events == 0 {
		l.foreign.Add(1)
	}
}
