package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// Class names why no answer came.
type Class string

// The classes.
const (
	ClassTimeout  Class = "timeout"
	ClassDNS      Class = "dns"
	ClassConnect  Class = "connect" // refused, unreachable
	ClassTLS      Class = "tls"     // certificate or version
	ClassBlocked  Class = "blocked_address"
	ClassReset    Class = "reset"    // closed before an answer
	ClassProtocol Class = "protocol" // not valid HTTP
	ClassCanceled Class = "canceled" // by us
)

// classify names an error and tells about it without the URL, which may hold
// credentials.
func classify(err error) (Class, string) {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	detail := err.Error()
	if len(detail) > 500 {
		detail = detail[:500] + "…"
	}
	return class(err, detail), detail
}

func class(err error, text string) Class {
	switch {
	case errors.Is(err, errBlocked):
		return ClassBlocked
	case errors.Is(err, context.Canceled):
		return ClassCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return ClassTimeout
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return ClassDNS
	}
	if isTLS(err) || strings.HasPrefix(text, "tls: ") {
		return ClassTLS
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed), strings.Contains(text, "server closed idle connection"),
		// A kept connection broke while we were writing.
		strings.Contains(text, "transport connection broken") && !strings.Contains(text, "malformed") && !strings.Contains(text, "exceeded"):
		return ClassReset
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Timeout() {
			return ClassTimeout
		}
		if op.Op == "dial" {
			return ClassConnect
		}
		if strings.HasPrefix(op.Op, "remote error") || op.Op == "local error" {
			return ClassTLS // an alert
		}
		return ClassReset
	}
	return ClassProtocol
}

func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}
