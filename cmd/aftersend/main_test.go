package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/event"
	"aftersend/manage"
	"aftersend/seal"
	"aftersend/store/storetest"
	"aftersend/webhook"
	"time"
)

func aftersend(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, environ, &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args    []string
		environ []string
		code    int
		stderr  string
	}{
		"help":               {args: []string{"--help"}},
		"no command":         {args: nil},
		"unknown command":    {args: []string{"serv"}, code: exitUsage, stderr: `unknown command "serv"`},
		"unknown flag":       {args: []string{"serve", "--fast"}, code: exitUsage, stderr: "unknown flag"},
		"missing argument":   {args: []string{"token", "create"}, code: exitUsage, stderr: "accepts 1 arg"},
		"bad configuration":  {args: []string{"serve"}, environ: []string{"AFTERSEND_API__ADRR=x"}, code: exitFailed, stderr: "AFTERSEND_API__ADDR"},
		"no database":        {args: []string{"migrate"}, code: exitFailed, stderr: "database.url"},
		"unknown ESP":        {args: []string{"send", "pigeon", "bounced"}, code: exitFailed, stderr: "mandrill"},
		"unknown event type": {args: []string{"send", "mandrill", "exploded"}, code: exitFailed, stderr: "bounced"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := aftersend(t, test.environ, test.args...)
			require.Equal(t, test.code, code, stderr)
			require.Contains(t, stderr, test.stderr)
		})
	}
}

func TestKeysGenerateMakesWhatConfigPrintMasks(t *testing.T) {
	t.Parallel()
	code, key, _ := aftersend(t, nil, "keys", "generate", "--id", "7")
	require.Equal(t, exitOK, code)
	keys, err := seal.ParseKeys(strings.TrimSpace(key))
	require.NoError(t, err)
	require.EqualValues(t, 7, keys[0].ID)
	code, out, _ := aftersend(t, []string{"AFTERSEND_SEAL__KEYS=" + key}, "config", "print")
	require.Equal(t, exitOK, code)
	require.NotContains(t, out, strings.TrimSpace(key))
	require.Contains(t, out, "AFTERSEND_SEAL__KEYS")
}

func TestMigrateTokenDoctor(t *testing.T) {
	t.Parallel()
	environ := []string{
		"DATABASE_URL=" + storetest.URL(t), "AFTERSEND_SEAL__KEYS=" + seal.NewKey(1).String(),
		"AFTERSEND_TEMPORAL__ADDRESS=127.0.0.1:1", "AFTERSEND_API__ADDR=127.0.0.1:1",
	}
	code, out, stderr := aftersend(t, environ, "migrate")
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, out, "up to date")

	code, out, stderr = aftersend(t, environ, "token", "create", "ci")
	require.Equal(t, exitOK, code, stderr)
	require.Regexp(t, `^as_\S{40,}\n$`, out, "nothing but the token")

	code, out, _ = aftersend(t, environ, "doctor")
	require.Equal(t, exitFailed, code)
	require.Regexp(t, `(?m)^ok   schema`, out)
	require.Regexp(t, `(?m)^ok   partitions`, out)
	require.Regexp(t, `(?m)^fix  temporal `, out)
	require.Regexp(t, `(?m)^fix  public URL`, out)
}

func TestSend(t *testing.T) {
	t.Parallel()
	var got *http.Request
	status := http.StatusOK
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = r
		w.WriteHeader(status)
	}))
	defer source.Close()
	url := source.URL + "/callbacks/mandrill/secret"
	code, _, stderr := aftersend(t, nil, "send", "mandrill", "bounced", "--url", url, "--to", "ben@example.com")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "/callbacks/mandrill/secret", got.URL.Path)
	require.Contains(t, got.Form.Get("mandrill_events"), "ben@example.com")

	status = http.StatusNotFound
	code, out, _ := aftersend(t, nil, "send", "mandrill", "bounced", "--url", url)
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "404")

	got = nil
	code, out, _ = aftersend(t, nil, "send", "mandrill", "bounced", "--url", url, "--print-curl")
	require.Equal(t, exitOK, code)
	require.Nil(t, got, "it is only printed")
	require.Regexp(t, `(?s)^curl -X POST .*'`+url+`'\n$`, out)
}

func TestReceive(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{7}, 32)
	var out bytes.Buffer
	r := &receiver{out: &out, status: http.StatusOK}
	require.NoError(t, r.verifyWith(webhook.Secret(key)))
	post := func(key []byte) int {
		now := time.Now()
		data := []byte(`{"type":"` + string(manage.Sample(event.Bounced, now).Type) + `"}`)
		p, err := webhook.Encode(webhook.DialectNative, webhook.FormatJSON, []webhook.Item{{Data: data}})
		require.NoError(t, err)
		signed, err := webhook.NewRequest(webhook.Settings{}, webhook.Secrets{URL: "http://x/"}, p, "bat_1", [][]byte{key}, now)
		require.NoError(t, err)
		req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(signed.Body))
		req.Header = signed.Header
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w.Code
	}
	require.Equal(t, http.StatusOK, post(key))
	require.Contains(t, out.String(), `"webhook_id":"bat_1","signature":"valid","events":1`)
	out.Reset()
	require.Equal(t, http.StatusUnauthorized, post(bytes.Repeat([]byte{8}, 32)))
	require.Contains(t, out.String(), `"signature":"invalid"`)
	r.status = http.StatusServiceUnavailable
	require.Equal(t, http.StatusServiceUnavailable, post(key))
}
