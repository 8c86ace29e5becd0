package activities_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/activities"
	"aftersend/esp"
	"aftersend/store"
	"aftersend/store/storetest"
)

// subscribing is an ESP whose callbacks ask to confirm a subscription.
type subscribing struct{ fake }

func (subscribing) Parse(esp.Request) (esp.Result, error) {
	return esp.Result{Confirm: "https://esp.example.com/confirm"}, nil
}

// unsigning is one that cannot be verified.
type unsigning struct{ esp.Adapter }

// A subscription is confirmed for callbacks that are proved authentic. The
// token in the address, which stands in logs and screenshots, is no proof.
func TestSubscriptionsAreConfirmedForAuthenticCallbacks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		adapter   esp.Adapter
		keys      esp.Keys
		secrets   bool
		verified  bool // at intake, which says yes where there is nothing to verify
		answer    error
		confirmed int
		reason    string // why it is put aside
		err       bool   // it will be tried again
	}{
		"authentic":                      {adapter: subscribing{}, keys: keys{}, secrets: true, verified: true, confirmed: 1},
		"found authentic late":           {adapter: subscribing{}, keys: keys{}, secrets: true, confirmed: 1},
		"forged":                         {adapter: subscribing{}, keys: keys{fmt.Errorf("%w: another's", esp.ErrForged)}, secrets: true, reason: "not authentic"},
		"the source has no secrets":      {adapter: subscribing{}, keys: keys{}, verified: true, reason: "only the token"},
		"the ESP signs nothing":          {adapter: unsigning{subscribing{}}, keys: keys{}, secrets: true, verified: true, reason: "only the token"},
		"the key is out of reach":        {adapter: subscribing{}, keys: keys{esp.ErrUnverified}, secrets: true, verified: true, err: true},
		"the confirmation does not work": {adapter: subscribing{}, keys: keys{}, secrets: true, verified: true, answer: errors.New("down"), confirmed: 1, err: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, storetest.New(t))
			if !c.secrets {
				_, err := h.db.Exec(`update sources set verification = null`)
				require.NoError(t, err)
			}
			var confirmed []string
			h.Adapters = func(string) (esp.Adapter, bool) { return c.adapter, true }
			h.Keys = c.keys
			h.Confirm = func(_ context.Context, url string) error { confirmed = append(confirmed, url); return c.answer }
			callback := h.unverified("")
			callback.Verified = c.verified
			res, err := h.ParseCallbacks(t.Context(), activities.GroupInput{Group: h.group(callback)})
			require.Equal(t, c.err, err != nil, "%v", err)
			require.Len(t, confirmed, c.confirmed)
			if c.err {
				return
			}
			var reasons []string
			require.NoError(t, h.db.Select(&reasons, `select reason from quarantine where record = $1`, store.WholeCallback))
			if c.reason == "" {
				require.Empty(t, reasons)
				return
			}
			require.Equal(t, 1, res.Quarantined)
			require.Len(t, reasons, 1)
			require.Contains(t, reasons[0], c.reason)
		})
	}
}
