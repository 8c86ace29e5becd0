package mailgun_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/esp/esptest"
	"aftersend/esp/mailgun"
)

func TestAdapter(t *testing.T) {
	esptest.Run(t, mailgun.Adapter{}, esptest.BodyUnsigned, esptest.SignatureInBody)
}

func FuzzParse(f *testing.F) { esptest.Fuzz(f, mailgun.Adapter{}) }

func TestSignaturesGrowOld(t *testing.T) {
	c, err := capture.ReadFile("testdata/delivered.request.json", capture.DefaultBaseURL)
	require.NoError(t, err)
	keys, err := capture.ReadKeys("testdata/_keys.json")
	require.NoError(t, err)
	v, ok := keys.Verification(mailgun.Adapter{})
	require.True(t, ok)
	signed := time.Unix(1772359200, 0)
	for off, fine := range map[time.Duration]bool{0: true, 8 * time.Hour: true, 10 * time.Hour: false, -10 * time.Minute: true, -20 * time.Minute: false} {
		v.Now = signed.Add(off)
		if err := (mailgun.Adapter{}).Verify(t.Context(), c.Request, v); fine {
			require.NoError(t, err, off)
		} else {
			require.ErrorIs(t, err, esp.ErrForged, off)
		}
	}
}
