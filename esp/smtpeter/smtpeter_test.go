package smtpeter_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/esp/esptest"
	"aftersend/esp/smtpeter"
)

func TestAdapter(t *testing.T) { esptest.Run(t, smtpeter.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, smtpeter.Adapter{}) }

// signed returns a genuine post, made at 03:04:05, and what verifies it.
func signed(t *testing.T) (esp.Request, esp.Verification) {
	t.Helper()
	keys, err := capture.ReadKeys(filepath.Join("testdata", "_keys.json"))
	require.NoError(t, err)
	c, err := capture.ReadFile(filepath.Join("testdata", "failure.request.json"), keys.BaseURL)
	require.NoError(t, err)
	v, ok := keys.Verification(smtpeter.Adapter{})
	require.True(t, ok)
	return c.Request, v
}

func TestOldPostsAreNotReplayed(t *testing.T) {
	req, v := signed(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for offset, fresh := range map[time.Duration]bool{0: true, 14 * time.Minute: true, -14 * time.Minute: true, 16 * time.Minute: false, -time.Hour: false} {
		v.Now = at.Add(offset)
		err := smtpeter.Adapter{}.Verify(t.Context(), req, v)
		if fresh {
			require.NoError(t, err, offset)
		} else {
			require.ErrorIs(t, err, esp.ErrForged, offset)
		}
	}
}

// keys answers what a name server would.
type keys struct {
	txt string
	err error
}

func (k keys) TXT(context.Context, string) (string, error) { return k.txt, k.err }
func (k keys) Certificate(context.Context, string) ([]byte, error) {
	return nil, errors.New("not asked for")
}

func TestTheKeyComesFromDNS(t *testing.T) {
	req, v := signed(t)
	v.Keys = keys{err: esp.ErrUnverified}
	err := smtpeter.Adapter{}.Verify(t.Context(), req, v)
	require.ErrorIs(t, err, esp.ErrUnverified, "a cache miss is no forgery")
	require.NotErrorIs(t, err, esp.ErrForged)
	for _, txt := range []string{"", "v=DKIM1; p=", "v=DKIM1; k=rsa; p=%%%", "p=AAAA", "nonsense"} {
		v.Keys = keys{txt: txt}
		require.ErrorIs(t, smtpeter.Adapter{}.Verify(t.Context(), req, v), esp.ErrForged, txt)
	}
	v.Keys = nil
	require.ErrorIs(t, smtpeter.Adapter{}.Verify(t.Context(), req, v), esp.ErrUnverified)
}

func TestMaskedPathsVerify(t *testing.T) {
	req, v := signed(t)
	req.Path = "/callbacks/smtpeter/masked" // as read back from the store
	req.Header.Del("Content-Length")        // as servers do that keep it apart
	require.NoError(t, smtpeter.Adapter{}.Verify(t.Context(), req, v))
}

func TestValidationFile(t *testing.T) {
	secrets := esp.Secrets{"validation_file": "smtpeter-abc12.txt", "validation_text": "prove it"}
	ask := func(method, path string, s esp.Secrets) (esp.Reply, bool) {
		return smtpeter.Adapter{}.Answer(esp.Request{Method: method, Path: path}, s)
	}
	reply, answered := ask(http.MethodGet, "/callbacks/smtpeter/token/smtpeter-abc12.txt", secrets)
	require.True(t, answered)
	require.Equal(t, http.StatusOK, reply.Status)
	require.Equal(t, "prove it", reply.Body)
	for _, s := range []esp.Secrets{nil, {"validation_file": "smtpeter-other.txt", "validation_text": "prove it"}} {
		reply, answered = ask(http.MethodGet, "/callbacks/smtpeter/token/smtpeter-abc12.txt", s)
		require.True(t, answered)
		require.Equal(t, http.StatusNotFound, reply.Status)
		require.Empty(t, reply.Body)
	}
	reply, answered = ask(http.MethodGet, "/callbacks/smtpeter/token", secrets)
	require.True(t, answered)
	require.Equal(t, http.StatusOK, reply.Status)
	require.Empty(t, reply.Body)
	_, answered = ask(http.MethodPost, "/callbacks/smtpeter/token/", secrets)
	require.False(t, answered, "a callback")
}
