package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// What this package reads of HTTP/1.1: messages with a Content-Length, one after the other on a connection.

var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = []byte("\r\ncontent-length:")

	errTooLong  = errors.New("the head of the message is too long")
	errNoLength = errors.New("the message has no Content-Length")
)

// readAnswer reads one answer and returns its status. Nothing may follow it on the connection.
func readAnswer(r io.Reader, buffer []byte) (int, error) {
	n, body, err := readHead(r, buffer)
	if err != nil {
		return 0, err
	}
	head := buffer[:body]
	length, err := lengthOf(head)
	if err != nil {
		return 0, err
	}
	for missing := length - (n - body); missing > 0; {
		m, err := r.Read(buffer[body:])
		if err != nil {
			return 0, err
		}
		missing -= m
	}
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("HTTP/1.")) {
		return 0, errors.New("the answer is not HTTP/1")
	}
	return strconv.Atoi(string(head[9:12]))
}

// readHead reads until the head of a message is in the buffer: n bytes are read, the body begins at body.
func readHead(r io.Reader, buffer []byte) (n, body int, err error) {
	for n < len(buffer) {
		m, err := r.Read(buffer[n:])
		if m == 0 && err != nil {
			return 0, 0, err
		}
		from := max(0, n-len(headEnd))
		n += m
		if i := bytes.Index(buffer[from:n], headEnd); i >= 0 {
			return n, from + i + len(headEnd), nil
		}
	}
	return 0, 0, errTooLong
}

// lengthOf returns the Content-Length in a head, whichever way its name is written.
func lengthOf(head []byte) (int, error) {
	for rest := head; ; {
		i := bytes.IndexByte(rest, '\r')
		if i < 0 {
			return 0, errNoLength
		}
		rest = rest[i:]
		if len(rest) > len(contentLength) && bytes.EqualFold(rest[:len(contentLength)], contentLength) {
			value := rest[len(contentLength):]
			if end := bytes.IndexByte(value, '\r'); end >= 0 {
				value = value[:end]
			}
			length, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || length < 0 {
				return 0, fmt.Errorf("the Content-Length %q is no number", value)
			}
			return length, nil
		}
		rest = rest[1:]
	}
}
