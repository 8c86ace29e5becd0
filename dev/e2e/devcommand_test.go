package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDevCommand runs what `go run ./dev` runs, kills it, and starts it again
// on the same data.
func TestDevCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "dev")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "..").CombinedOutput()
	require.NoError(t, err, "%s", out)
	data := filepath.Join(dir, "data")

	first := startDev(t, binary, data)
	p := &product{url: first.api}
	s := source{URL: first.api + "/callbacks/mailtrap/dev"}
	a, err := post(t.Context(), s, delivered("dev-1"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.status, "every ESP has a source with the token dev")
	eventually(t, time.Minute, "processed", func() error { return p.callbackState(a.id, "processed") })
	for name, address := range map[string]string{"Temporal's UI": first.ui, "outbox": first.api + "/outbox", "the API's page": first.api + "/api/docs"} {
		eventually(t, time.Minute, name, func() error {
			res, err := web.Get(address)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			return want(res.StatusCode, http.StatusOK, address)
		})
	}
	for name, header := range map[string][2]string{
		"through a tunnel":  {"X-Forwarded-For", "203.0.113.9"},
		"through a proxy":   {"Via", "1.1 proxy"},
		"for another host":  {"Host", "hooks.example.com"},
		"for someone else":  {"Forwarded", "for=203.0.113.9"},
		"under other names": {"X-Forwarded-Host", "hooks.example.com"},
	} {
		t.Run("the dev token is refused "+name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, first.api+"/api/v1/callbacks", nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer dev")
			if req.Header.Set(header[0], header[1]); header[0] == "Host" {
				req.Host = header[1]
			}
			res, err := web.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, http.StatusUnauthorized, res.StatusCode)
		})
	}

	require.NoError(t, first.cmd.Process.Kill())
	<-first.done
	second := startDev(t, binary, data) // at once: what the killed one left behind is stopped or has stopped
	for name, port := range first.ports() {
		if second.ports()[name] != port {
			eventually(t, time.Minute, name+" of the killed run is gone", func() error { return closed(port) })
		}
	}
	p = &product{url: second.api}
	require.NoError(t, p.callbackState(a.id, "processed"), "the data go on")
	s.URL = second.api + "/callbacks/mailtrap/dev"
	b, err := post(t.Context(), s, delivered("dev-2"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, b.status)
	eventually(t, time.Minute, "processed", func() error { return p.callbackState(b.id, "processed") })

	t.Run("a second start beside it is refused", func(t *testing.T) {
		out, err := exec.Command(binary, "--data", data, "--addr", freeAddr(t)).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "already running")
	})
	t.Run("a taken address is explained", func(t *testing.T) {
		u, err := url.Parse(second.api)
		require.NoError(t, err)
		out, err := exec.Command(binary, "--data", filepath.Join(dir, "other"), "--addr", u.Host).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "--addr")
	})

	require.NoError(t, second.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-second.done:
		require.Zero(t, second.cmd.ProcessState.ExitCode(), "%s", second.log)
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not stop on SIGTERM")
	}
	for name, port := range second.ports() {
		require.NoError(t, closed(port), name)
	}
}

// devRun is a running `go run ./dev`.
type devRun struct {
	cmd               *exec.Cmd
	done              chan struct{}
	api, ui, database string // from its banner
	temporal          string
	log               *logBuffer
}

// startDev starts it and reads its banner.
func startDev(t *testing.T, binary, data string) *devRun {
	t.Helper()
	r := &devRun{done: make(chan struct{}), log: &logBuffer{}, temporal: freeAddr(t)}
	_, temporalPort, err := net.SplitHostPort(r.temporal)
	require.NoError(t, err)
	_, uiPort, err := net.SplitHostPort(freeAddr(t))
	require.NoError(t, err)
	r.cmd = exec.Command(binary, "--data", data, "--addr", freeAddr(t), "--temporal-port", temporalPort, "--temporal-ui-port", uiPort, "--fast")
	r.cmd.Stderr = r.log
	stdout, err := r.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		<-r.done
		if t.Failed() {
			t.Logf("go run ./dev said:\n%s", r.log.tail())
		}
	})
	ready := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			line := strings.TrimSpace(lines.Text())
			_, _ = io.WriteString(r.log, line+"\n")
			for name, to := range map[string]*string{"API": &r.api, "Temporal UI": &r.ui, "Postgres": &r.database} {
				if rest, ok := strings.CutPrefix(line, name+" "); ok {
					*to = address.FindString(rest)
				}
			}
			if strings.HasPrefix(line, "Ctrl-C") {
				close(ready)
			}
		}
		_ = r.cmd.Wait()
		close(r.done)
	}()
	select {
	case <-ready:
	case <-r.done:
		t.Fatalf("it ended: %s", r.log.tail())
	case <-time.After(2 * time.Minute):
		t.Fatalf("not ready: %s", r.log.tail())
	}
	r.api = strings.TrimSuffix(r.api, "/api/v1")
	require.NotEmpty(t, r.api)
	require.NotEmpty(t, r.ui)
	require.NotEmpty(t, r.database)
	return r
}

var address = regexp.MustCompile(`(http|postgres)\S+`)

// ports are where its parts listen.
func (r *devRun) ports() map[string]string {
	ports := map[string]string{"Temporal": r.temporal}
	for name, address := range map[string]string{"API": r.api, "Temporal's UI": r.ui, "Postgres": r.database} {
		if u, err := url.Parse(address); err == nil {
			ports[name] = u.Host
		}
	}
	return ports
}

// closed reports when somebody listens at an address.
func closed(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("somebody listens at %s", address), conn.Close())
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
