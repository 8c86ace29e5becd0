package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"aftersend/api"
	"aftersend/config"
	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/esp/capture"
	"aftersend/event"
	"aftersend/id"
	"aftersend/intake"
	"aftersend/manage"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/store/storetest"
)

// keysOf is the keys file of an ESP's own fixtures.
func keysOf(name string) string {
	return filepath.Join("..", "..", "esp", name, "testdata", "_keys.json")
}

// published finds what any of the ESPs publishes.
type published []esp.Keys

func (p published) Certificate(ctx context.Context, url string) ([]byte, error) {
	for _, keys := range p {
		if pem, err := keys.Certificate(ctx, url); err == nil {
			return pem, nil
		}
	}
	return nil, esp.ErrUnverified
}

func (p published) TXT(ctx context.Context, name string) (string, error) {
	for _, keys := range p {
		if txt, err := keys.TXT(ctx, name); err == nil {
			return txt, nil
		}
	}
	return "", esp.ErrUnverified
}

// espServer is the API with a source for every ESP, verified with all that it
// can be, and remembers the last request.
type espServer struct {
	*httptest.Server
	db   *sqlx.DB
	last esp.Request
}

func newESPServer(t *testing.T) *espServer {
	s := &espServer{db: storetest.New(t)}
	box, err := seal.New(seal.NewKey(1))
	require.NoError(t, err)
	st := store.New(s.db, box)
	account := id.New()
	_, err = s.db.Exec(`insert into accounts (id, name) values ($1, 'test')`, account)
	require.NoError(t, err)
	var keys published
	for _, a := range all.Adapters() {
		name := a.Describe().Name
		row := store.SourceRow{ID: id.New(), AccountID: account, ESP: name, Name: name, Token: "t0ken"}
		row.Verification = esp.Secrets{"username": "esp", "password": "it's hunter2"}
		if file, err := capture.ReadKeys(keysOf(name)); err == nil {
			if v, ok := file.Verification(a); ok {
				for _, f := range a.Describe().Fields {
					row.Verification[f.Name] = v.Secrets[f.Name]
				}
				keys = append(keys, v.Keys)
			}
		}
		if _, ok := a.(esp.Verifier); ok {
			require.True(t, a.Describe().Verifiable(row.Verification), name)
		}
		require.NoError(t, st.CreateSource(t.Context(), row, store.Change{
			By: store.Actor{Kind: "system", Name: "test"}, Action: "source.created", ResourceKind: "source", ResourceID: row.ID,
		}))
	}
	flusher := intake.New(st, intake.Options{Host: "test"}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { flusher.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	handler := api.New(api.Deps{
		Config: config.Default(), Store: st, Flusher: flusher, Adapters: all.ByName, Manage: manage.New(manage.Deps{Store: st}),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Keys: keys,
		Status: func() map[string]string { return nil },
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.last = esp.Request{Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery, Header: r.Header.Clone(), Body: body}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// shell runs what --print-curl printed, with a curl that shows its arguments,
// and makes the request they mean.
func shell(t *testing.T, command string) int {
	t.Helper()
	out, err := exec.Command("sh", "-c", `curl() { printf '%s\0' "$@"; }`+"\n"+command).Output()
	require.NoError(t, err, command)
	args := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	var method, body string
	header := http.Header{}
	for len(args) > 1 {
		switch args[0] {
		case "-X":
			method = args[1]
		case "-H":
			name, value, _ := strings.Cut(args[1], ": ")
			header.Add(name, value)
		case "--data-binary":
			require.NotEqual(t, byte('@'), args[1][0], "curl would read a file")
			body = args[1]
		default:
			t.Fatalf("curl does not get %q from us", args[0])
		}
		args = args[2:]
	}
	req, err := http.NewRequestWithContext(t.Context(), method, args[0], strings.NewReader(body))
	require.NoError(t, err)
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	return res.StatusCode
}

// TestSendAndPrintCurlForEveryESP: every event of every ESP is accepted by the
// real intake, which verifies signatures and credentials, and says what was
// asked for.
func TestSendAndPrintCurlForEveryESP(t *testing.T) {
	t.Parallel()
	s := newESPServer(t)
	said := func(a esp.Adapter, want event.Type) {
		result, err := a.Parse(s.last)
		require.NoError(t, err)
		require.Len(t, result.Events, 1)
		require.Equal(t, want, result.Events[0].Type)
		require.Equal(t, "ben.o'hara@example.com", result.Events[0].Recipient)
	}
	accepted := 0
	for _, a := range all.Adapters() {
		about := a.Describe()
		mapped := map[event.Type]bool{}
		for _, m := range about.Types {
			mapped[m.Ours] = true
		}
		url := s.URL + "/callbacks/" + about.Name + "/t0ken"
		for _, kind := range event.Types {
			args := []string{"send", about.Name, string(kind), "--url", url, "--keys", keysOf(about.Name),
				"--secret", "username=esp", "--secret", "password=it's hunter2", "--to", "ben.o'hara@example.com"}
			if _, err := capture.ReadKeys(keysOf(about.Name)); err != nil { // an ESP that signs nothing
				args = append(args[:5:5], args[7:]...)
			}
			code, out, stderr := aftersend(t, nil, args...)
			if !mapped[kind] || kind == event.Unknown {
				require.Equal(t, exitFailed, code, "%s has no %s: %s", about.Name, kind, out)
				require.Contains(t, stderr, "has no "+string(kind), about.Name)
				continue
			}
			require.Equal(t, exitOK, code, "%s %s: %s%s", about.Name, kind, out, stderr)
			said(a, kind)
			code, out, stderr = aftersend(t, nil, append(args, "--print-curl")...)
			require.Equal(t, exitOK, code, stderr)
			require.Equal(t, http.StatusOK, shell(t, out), "%s %s: %s", about.Name, kind, out)
			said(a, kind)
			accepted += 2
		}
		if _, ok := a.(esp.Verifier); ok {
			code, out, _ := aftersend(t, nil, "send", about.Name, "delivered", "--url", url, "--secret", "username=esp", "--secret", "password=it's hunter2")
			require.Equal(t, exitFailed, code, "%s: unsigned", about.Name)
			require.Contains(t, out, "401", about.Name)
		}
	}
	var stored, verified int
	require.NoError(t, s.db.QueryRow(`select count(*), count(*) filter (where verified) from callbacks`).Scan(&stored, &verified))
	require.Equal(t, accepted, stored)
	require.Equal(t, accepted, verified)
}

func TestSendWantsSecretsByTheirNames(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"hunter2", "signing_key=hunter2"} {
		code, _, stderr := aftersend(t, nil, "send", "mandrill", "bounced", "--secret", wrong, "--url", "http://127.0.0.1:1/")
		require.Equal(t, exitFailed, code)
		require.Contains(t, stderr, "mandrill has allowed_ips, bearer, key, password, sample_key, username")
		require.NotContains(t, stderr, "hunter2")
	}
}
