package e2e

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/dev/internal/stack"
)

var soak = flag.Duration("soak", 0, "how long TestSoak kills at random; 0 = not at all")

// TestSoak kills processes at random moments while endpoints come and go:
// `go test ./dev/e2e -run Soak -soak 10m -timeout 30m`.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("only with -soak")
	}
	p := calm(t)
	ctx := t.Context()
	var ledgers []*ledger
	var hooks []*hook
	var stops []func()
	for i := range 6 {
		s := p.newSource(t, "mailtrap", "soak", nil)
		settings := and(from(s), "retry", map[string]any{"interval_seconds": 1, "attempts": 1000})
		settings["batch"] = map[string]any{"max_events": []int{500, 3, 50, 500, 20, 500}[i], "max_wait_seconds": []int{0, 0, 1, 2, 3, 0}[i]}
		hooks = append(hooks, p.newHook(t, receivers.endpoint("soak"), settings))
		ledgers = append(ledgers, newLedger(p, s))
		stops = append(stops, ledgers[i].keepPosting(t, 10*(i+1), time.Duration(50+60*i)*time.Millisecond))
	}
	restart := func(role stack.Role, after time.Duration) {
		require.NoError(t, p.stack.Kill(role))
		time.Sleep(after)
		require.NoError(t, p.stack.Restart(ctx, role))
	}
	for end := time.Now().Add(*soak); time.Now().Before(end); {
		time.Sleep(rand.N(2500 * time.Millisecond))
		hooks[rand.IntN(len(hooks))].answer([]int{http.StatusOK, http.StatusInternalServerError}[rand.IntN(2)], "")
		switch rand.IntN(12) {
		case 0:
			restart(stack.Temporal, rand.N(1500*time.Millisecond))
		case 1:
			restart(stack.Postgres, rand.N(500*time.Millisecond))
		default:
			restart(stack.Serve, 0)
		}
	}
	for _, h := range hooks {
		h.answer(http.StatusOK, "")
	}
	for _, stop := range stops {
		stop()
	}
	for i, l := range ledgers {
		l.requireKept(t, hooks[i], 5*time.Minute)
	}
	p.requireNothingStuck(t)
}
