package sendgrid_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/esp/esptest"
	"aftersend/esp/sendgrid"
)

func TestAdapter(t *testing.T) { esptest.Run(t, sendgrid.Adapter{}) }

func FuzzParse(f *testing.F) { esptest.Fuzz(f, sendgrid.Adapter{}) }

func TestSignaturesGrowOld(t *testing.T) {
	c, err := capture.ReadFile("testdata/every_event.request.json", capture.DefaultBaseURL)
	require.NoError(t, err)
	keys, err := capture.ReadKeys("testdata/_keys.json")
	require.NoError(t, err)
	v, ok := keys.Verification(sendgrid.Adapter{})
	require.True(t, ok)
	signed := time.Unix(1772359205, 0)
	for off, fine := range map[time.Duration]bool{0: true, 24 * time.Hour: true, 26 * time.Hour: false, -10 * time.Minute: true, -20 * time.Minute: false} {
		v.Now = signed.Add(off)
		if err := (sendgrid.Adapter{}).Verify(t.Context(), c.Request, v); fine {
			require.NoError(t, err, off)
		} else {
			require.ErrorIs(t, err, esp.ErrForged, off)
		}
	}
}

func TestVerificationKeyInPEM(t *testing.T) {
	c, err := capture.ReadFile("testdata/every_event.request.json", capture.DefaultBaseURL)
	require.NoError(t, err)
	keys, err := capture.ReadKeys("testdata/_keys.json")
	require.NoError(t, err)
	v, _ := keys.Verification(sendgrid.Adapter{})
	key := v.Secrets["public_key"]
	v.Secrets["public_key"] = "-----BEGIN PUBLIC KEY-----\r\n" + key[:64] + "\r\n" + key[64:] + "\r\n-----END PUBLIC KEY-----\r\n"
	require.NoError(t, sendgrid.Adapter{}.Verify(t.Context(), c.Request, v))
}
