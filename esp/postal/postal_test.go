package postal_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/esp/esptest"
	"aftersend/esp/postal"
)

func TestAdapter(t *testing.T) { esptest.Run(t, postal.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, postal.Adapter{}) }

// TestPublicKey: people paste what they have, a DKIM record or a key.
func TestPublicKey(t *testing.T) {
	keys, err := capture.ReadKeys("testdata/_keys.json")
	require.NoError(t, err)
	v, ok := keys.Verification(postal.Adapter{})
	require.True(t, ok)
	c, err := capture.ReadFile("testdata/sent.request.json", keys.BaseURL)
	require.NoError(t, err)
	key := v.Secrets["public_key"]
	for _, entered := range []string{
		key,
		"v=DKIM1; t=s; h=sha256; p=" + key + ";",
		"\"v=DKIM1; t=s; h=sha256; p=" + key[:200] + "\"\n\"" + key[200:] + ";\"",
		"-----BEGIN PUBLIC KEY-----\n" + key[:64] + "\n" + key[64:] + "\n-----END PUBLIC KEY-----\n",
	} {
		v.Secrets["public_key"] = entered
		require.NoError(t, postal.Adapter{}.Verify(t.Context(), c.Request, v), entered)
	}
	v.Secrets["public_key"] = "v=DKIM1; p=AAAA;"
	require.ErrorIs(t, postal.Adapter{}.Verify(t.Context(), c.Request, v), esp.ErrForged)
}

// TestSignatures: with both signatures there, the weaker one cannot save the
// other.
func TestSignatures(t *testing.T) {
	keys, err := capture.ReadKeys("testdata/_keys.json")
	require.NoError(t, err)
	v, _ := keys.Verification(postal.Adapter{})
	c, err := capture.ReadFile("testdata/sent.request.json", keys.BaseURL)
	require.NoError(t, err)
	strong := c.Request.Header.Get("X-Postal-Signature-256")
	c.Request.Header.Set("X-Postal-Signature-256", c.Request.Header.Get("X-Postal-Signature"))
	require.ErrorIs(t, postal.Adapter{}.Verify(t.Context(), c.Request, v), esp.ErrForged)
	c.Request.Header.Del("X-Postal-Signature-256")
	require.NoError(t, postal.Adapter{}.Verify(t.Context(), c.Request, v), "Postal before version 3")
	c.Request.Header.Set("X-Postal-Signature", strong)
	require.ErrorIs(t, postal.Adapter{}.Verify(t.Context(), c.Request, v), esp.ErrForged)
}
