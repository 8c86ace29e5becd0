package app

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/config"
	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/event"
	"aftersend/manage"
	"aftersend/seal"
	"aftersend/store/storetest"
	"aftersend/workflows"
)

// withoutTemporal is a configuration on a database of its own, where nothing
// listens at the engine's address.
func withoutTemporal(t *testing.T) config.Config {
	t.Helper()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	cfg := config.Default()
	cfg.API.Addr = "127.0.0.1:0"
	cfg.Database.URL = storetest.URL(t)
	cfg.Seal.Keys = seal.NewKey(1).String()
	cfg.Temporal.Address = closed.Addr().String()
	cfg.Dev.Token = true
	return cfg
}

// start runs a process until the test ends or stop is called.
func start(t *testing.T, cfg config.Config, roles Roles, o Options) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	o.Log = slog.New(slog.DiscardHandler)
	o.Ready = func(addr string) { ready <- addr }
	go func() { ended <- Run(ctx, cfg, roles, o) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case addr = <-ready:
	case err := <-ended:
		stopped = true
		require.NoError(t, err, "the process ended")
	case <-time.After(time.Minute):
		require.Fail(t, "not ready")
	}
	return addr, stop
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

func TestDefaultsAreDeclaredOnce(t *testing.T) {
	require.Equal(t, workflows.DeferralReviews, config.Default().Deferrals.Reviews)
}

func TestCallbacksAreAcceptedWithTemporalDown(t *testing.T) {
	t.Parallel()
	for name, roles := range map[string]Roles{"api": {API: true}, "serve": {API: true, Worker: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := withoutTemporal(t)
			addr, stop := start(t, cfg, roles, Options{Extra: map[string]http.Handler{
				"/outbox": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "mails") }),
			}})
			base := "http://" + addr
			for _, path := range []string{"/livez", "/readyz", "/metrics"} {
				status, body := get(t, base+path, "")
				require.Equal(t, 200, status, "%s: %s", path, body)
			}
			_, body := get(t, base+"/readyz?verbose", "")
			require.Contains(t, body, "unreachable")
			_, body = get(t, base+"/outbox/1", "")
			require.Equal(t, "mails", body)

			url := base + "/callbacks/mandrill/" + manage.DevToken
			adapter, ok := all.ByName("mandrill")
			require.True(t, ok)
			now := time.Now().UTC().Truncate(time.Second)
			sample, err := adapter.(esp.Sampler).Sample(manage.Sample(event.Bounced, now), url, nil, now)
			require.NoError(t, err)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(string(sample.Body)))
			require.NoError(t, err)
			req.Header = sample.Header
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, 200, res.StatusCode)

			status, body := get(t, base+"/api/v1/callbacks", manage.DevToken)
			require.Equal(t, 200, status, body)
			var list struct {
				Data []struct{ ID, State string }
			}
			require.NoError(t, json.Unmarshal([]byte(body), &list))
			require.Len(t, list.Data, 1)
			require.Equal(t, "received", list.Data[0].State)
			_, raw := get(t, base+"/api/v1/callbacks/"+list.Data[0].ID+"/raw", manage.DevToken)
			require.Equal(t, string(sample.Body), raw)

			require.NoError(t, stop(), "it drains without an engine, too")
		})
	}
}

func TestWhatCannotWorkIsSaidAtTheStart(t *testing.T) {
	t.Parallel()
	good := withoutTemporal(t)
	for want, spoil := range map[string]func(*config.Config){
		"no database is set":    func(c *config.Config) { c.Database.URL = "" },
		"no sealing key is set": func(c *config.Config) { c.Seal.Keys = "" },
		"sealing key":           func(c *config.Config) { c.Seal.Keys = "1:short" },
		"listen":                func(c *config.Config) { c.API.Addr = "127.0.0.1:1x" },
	} {
		cfg := good
		spoil(&cfg)
		err := Run(t.Context(), cfg, Roles{API: true}, Options{Log: slog.New(slog.DiscardHandler)})
		require.ErrorContains(t, err, want)
	}
}

func TestAnAdminListenerTakesHealthAway(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	cfg := withoutTemporal(t)
	cfg.API.AdminAddr = free.Addr().String()
	addr, _ := start(t, cfg, Roles{API: true}, Options{})
	status, _ := get(t, "http://"+addr+"/metrics", "")
	require.Equal(t, 404, status)
	status, body := get(t, "http://"+cfg.API.AdminAddr+"/metrics", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, "go_goroutines")
}
