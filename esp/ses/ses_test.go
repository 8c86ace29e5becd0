package ses_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/esp/capture"
	"aftersend/esp/esptest"
	"aftersend/esp/ses"
)

// What of a body is signed, and that nothing else is believed, is tested in
// package sns.
func TestAdapter(t *testing.T) {
	esptest.Run(t, ses.Adapter{}, esptest.BodyUnsigned, esptest.SignatureInBody)
}

func FuzzParse(f *testing.F) { esptest.Fuzz(f, ses.Adapter{}) }

func TestSubscriptionsAreConfirmedAtAmazonOnly(t *testing.T) {
	for name, confirmed := range map[string]bool{"subscription_confirmation": true, "subscription_confirmation_elsewhere": false, "unsubscribe_confirmation": false} {
		c, err := capture.ReadFile("testdata/"+name+".request.json", capture.DefaultBaseURL)
		require.NoError(t, err)
		result, err := ses.Adapter{}.Parse(c.Request)
		require.NoError(t, err)
		require.Equal(t, confirmed, result.Confirm != "", name)
	}
}
