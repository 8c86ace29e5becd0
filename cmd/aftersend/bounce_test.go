package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const bounceMail = "Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example.net\r\nTo: b@send.example.com\r\nSubject: failure notice\r\n\r\n" +
	"<ann@example.net>:\r\nRemote host said: 550 5.1.1 User unknown\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n" +
	"Received: by out.example.com\r\nFrom: shop@example.com\r\nTo: ann@example.net\r\nMessage-ID: <order.1@example.com>\r\n"

func TestBouncePrintsOneLinePerFile(t *testing.T) {
	dir := t.TempDir()
	mail := filepath.Join(dir, "a.eml")
	require.NoError(t, os.WriteFile(mail, []byte(bounceMail), 0o600))
	var out, stderr bytes.Buffer
	code := run(t.Context(), []string{"bounce", mail, filepath.Join(dir, "missing.eml")}, nil, &out, &stderr)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), "1 of 2 files")

	decoder := json.NewDecoder(&out)
	var first, second map[string]any
	require.NoError(t, decoder.Decode(&first))
	require.NoError(t, decoder.Decode(&second))
	require.Equal(t, mail, first["file"])
	require.Equal(t, "bounce", first["kind"])
	require.Equal(t, "order.1@example.com", first["original_message_id"])
	require.Equal(t, []any{}, first["problems"])
	recipient := first["recipients"].([]any)[0].(map[string]any)
	require.Equal(t, "ann@example.net", recipient["recipient"])
	require.Equal(t, "550", recipient["smtp_code"])
	require.Equal(t, "hard", recipient["bounce_type"])
	require.NotEmpty(t, second["error"])
}

func TestBounceScoresLabelledMails(t *testing.T) {
	dir := t.TempDir()
	mail := filepath.Join(dir, "a.eml")
	require.NoError(t, os.WriteFile(mail, []byte(bounceMail), 0o600))
	var out, stderr bytes.Buffer
	require.Equal(t, exitFailed, run(t.Context(), []string{"bounce", "--score", mail}, nil, &out, &stderr))
	require.Contains(t, stderr.String(), "a.json is missing")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.json"), []byte(`{"kind":"bounce","family":"qmail","recipients":[{"recipient":"ann@example.net",
		"action":"failed","enhanced_status":"5.1.1","smtp_code":"550","bounce_type":"hard","category":"inactive_mailbox"}],"original_message_id":"order.1@example.com"}`), 0o600))
	require.Equal(t, exitOK, run(t.Context(), []string{"bounce", "--score", mail}, nil, &out, &stderr))
	require.Contains(t, out.String(), "hard caught        100.00 %  1 of 1")
	require.Contains(t, out.String(), "category: invalid_recipient, should be inactive_mailbox")
}
