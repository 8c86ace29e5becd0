package scaleway_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/capture"
	"aftersend/esp/esptest"
	"aftersend/esp/scaleway"
)

// What of a body is signed, and that nothing else is believed, is tested in
// package sns.
func TestAdapter(t *testing.T) {
	esptest.Run(t, scaleway.Adapter{}, esptest.BodyUnsigned, esptest.SignatureInBody)
}

func FuzzParse(f *testing.F) { esptest.Fuzz(f, scaleway.Adapter{}) }

func TestCertificatesAreScaleways(t *testing.T) {
	c, err := capture.ReadFile("testdata/email_delivered.request.json", capture.DefaultBaseURL)
	require.NoError(t, err)
	keys, err := capture.ReadKeys("testdata/_keys.json")
	require.NoError(t, err)
	v, ok := keys.Verification(scaleway.Adapter{})
	require.True(t, ok)
	v.Now = time.Date(2026, 3, 1, 10, 0, 5, 0, time.UTC)
	require.NoError(t, scaleway.Adapter{}.Verify(t.Context(), c.Request, v))
	own := v.Secrets["trust_chain"]

	for name, chain := range map[string]string{"the built-in authority": "", "no authority": "x", "an intermediate alone": own[len(own)/2:]} {
		v.Secrets["trust_chain"] = chain
		require.ErrorIs(t, scaleway.Adapter{}.Verify(t.Context(), c.Request, v), esp.ErrForged, name)
	}
}

func TestSubscriptionIsConfirmed(t *testing.T) {
	c, err := capture.ReadFile("testdata/subscription_confirmation.request.json", capture.DefaultBaseURL)
	require.NoError(t, err)
	result, err := scaleway.Adapter{}.Parse(c.Request)
	require.NoError(t, err)
	require.Contains(t, result.Confirm, "https://sns.mnq.fr-par.scaleway.com/?Action=ConfirmSubscription")
}
