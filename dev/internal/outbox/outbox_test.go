package outbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/dev/internal/outbox"
)

func open(t *testing.T) (*outbox.Outbox, string) {
	t.Helper()
	box, err := outbox.Open(t.TempDir())
	require.NoError(t, err)
	addr, stop, err := box.Listen()
	require.NoError(t, err)
	t.Cleanup(stop)
	return box, addr
}

func send(t *testing.T, addr, to, text string) {
	t.Helper()
	require.NoError(t, smtp.SendMail(addr, nil, "aftersend@localhost", []string{to}, []byte(strings.ReplaceAll(text, "\n", "\r\n"))))
}

func TestMailsAreKeptReadAndForgotten(t *testing.T) {
	box, addr := open(t)
	send(t, addr, "owner@example.com", "From: aftersend@localhost\nTo: owner@example.com\nSubject: =?utf-8?q?Webhook_angehalten=2C_sch=C3=B6n?=\n"+
		"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n41 attempts =E2=80=93 the last: HTTP 503\n")
	mails, err := box.Mails()
	require.NoError(t, err)
	require.Len(t, mails, 1)
	m := mails[0]
	require.Equal(t, "Webhook angehalten, schön", m.Subject)
	require.Equal(t, []string{"owner@example.com"}, m.To)
	require.Equal(t, "41 attempts – the last: HTTP 503\r\n", m.Text)
	require.False(t, m.At.IsZero())

	for i := range 201 {
		send(t, addr, "owner@example.com", fmt.Sprintf("Subject: %d\n\nx", i))
	}
	mails, err = box.Mails()
	require.NoError(t, err)
	require.Len(t, mails, 200)
	require.Equal(t, "200", mails[0].Subject, "newest first")
}

func TestTextOfAMailWithParts(t *testing.T) {
	box, addr := open(t)
	send(t, addr, "owner@example.com", `Subject: parts
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/html

<p>not this</p>
--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

VGhlIHRleHQ=
--b--
`)
	mails, err := box.Mails()
	require.NoError(t, err)
	require.Equal(t, "The text", mails[0].Text)
}

func TestPages(t *testing.T) {
	box, addr := open(t)
	pages := box.Handler("/outbox")
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	require.Contains(t, get("/outbox").Body.String(), "None yet.")

	send(t, addr, "owner@example.com", "Subject: <b>paused</b>\n\n<script>alert(1)</script>")
	list := get("/outbox/").Body.String()
	require.Contains(t, list, "&lt;b&gt;paused&lt;/b&gt;")

	var got struct{ Data []outbox.Mail }
	require.NoError(t, json.Unmarshal(get("/outbox?format=json").Body.Bytes(), &got))
	require.Len(t, got.Data, 1)
	page := get("/outbox/" + got.Data[0].ID)
	require.Equal(t, http.StatusOK, page.Code)
	require.NotContains(t, page.Body.String(), "<script>")
	require.Contains(t, get("/outbox/"+got.Data[0].ID+"/raw").Body.String(), "Return-Path: <aftersend@localhost>")

	require.Equal(t, http.StatusNotFound, get("/outbox/0199a000-0000-7000-8000-000000000000").Code)
	require.Equal(t, http.StatusNotFound, get("/outbox/..%2Fseal").Code)
}
