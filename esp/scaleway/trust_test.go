package scaleway

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/esp"
	"aftersend/esp/espkit/sns"
)

// TestBuiltInAuthority: the intermediate is issued by the root, until it ends.
func TestBuiltInAuthority(t *testing.T) {
	chain := sns.Certificates(trustChain)
	require.Len(t, chain, 2)
	intermediate := []*x509.Certificate{chain[1]}
	require.NoError(t, issued(intermediate, nil, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)))
	require.NoError(t, issued(intermediate, nil, time.Time{}), "without a clock")
	require.ErrorIs(t, issued(intermediate, nil, time.Date(2028, 3, 1, 0, 0, 0, 0, time.UTC)), esp.ErrForged)
}
