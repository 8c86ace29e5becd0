package outbound

import (
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"
)

// trace notes when the parts of a call happened. Dialling may go on in another
// goroutine after the call has ended, hence the lock.
type trace struct {
	start time.Time

	mu                   sync.Mutex
	dnsStart, tcpStart   time.Time
	tlsStart             time.Time
	dns, connect, secure time.Duration
	first                time.Duration
	kept                 bool
}

func (t *trace) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { t.begin(&t.dnsStart) },
		DNSDone:      func(httptrace.DNSDoneInfo) { t.end(&t.dns, &t.dnsStart) },
		ConnectStart: func(string, string) { t.begin(&t.tcpStart) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				t.end(&t.connect, &t.tcpStart)
			}
		},
		TLSHandshakeStart: func() { t.begin(&t.tlsStart) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { t.end(&t.secure, &t.tlsStart) },
		GotConn: func(i httptrace.GotConnInfo) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.kept = i.Reused
		},
		GotFirstResponseByte: func() { t.end(&t.first, &t.start) },
	}
}

func (t *trace) begin(at *time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at.IsZero() { // of several addresses tried, from the first
		*at = time.Now()
	}
}

func (t *trace) end(took *time.Duration, since *time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*took = time.Since(*since)
}

func (t *trace) timings() Timings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Timings{DNS: t.dns, Connect: t.connect, TLS: t.secure, FirstByte: t.first}
}

func (t *trace) reused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kept
}
