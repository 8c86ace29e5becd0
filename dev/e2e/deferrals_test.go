package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"

	"aftersend/id"
	"aftersend/store"
	"aftersend/workflows"
)

// TestDeferralsExpire is five days in some seconds: the sweep finds the cohort
// of messages that were deferred, its workflow's query and the API say the
// same, and a message that never gets its final word ends as an event that
// reaches the subscriber.
func TestDeferralsExpire(t *testing.T) {
	t.Parallel()
	p := calm(t)
	s := p.newSource(t, "mailtrap", "Deferrals", nil)
	h := p.newHook(t, receivers.endpoint("deferrals"), from(s))
	src, err := id.Source.Parse(s.ID)
	require.NoError(t, err)
	run := id.New().String()
	word := func(message, event string) {
		a, err := post(t.Context(), s, mailtrapEvent(map[string]any{
			"event": event, "event_id": run + message + event, "message_id": run + message, "email": message + "@" + people,
		}))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, a.status)
		eventually(t, time.Minute, "callback processed", func() error { return p.callbackState(a.id, "processed") })
	}
	word("waits", "soft bounce")
	word("arrives", "soft bounce")

	var cohort id.ID
	eventually(t, time.Minute, "somebody watches", func() error {
		if err := p.db.QueryRow(`select id from deferral_cohorts where source_id = $1`, src).Scan(&cohort); err != nil {
			return err
		}
		_, err := p.describe(workflows.DeferralsWorkflowID(cohort))
		return err
	})

	// A cohort of five days ago, which the sweep takes for started, and its workflow in a hurry.
	old := id.New()
	_, err = p.db.Exec(`insert into deferral_cohorts (id, source_id, opens_at, started_at) values ($1, $2, now() - interval '5 days', now())`, old, src)
	require.NoError(t, err)
	_, err = p.db.Exec(`update messages set cohort_id = $1 where cohort_id in (select id from deferral_cohorts where source_id = $2)`, old, src)
	require.NoError(t, err)
	hurried := workflows.Client{Temporal: p.temporal, Reviews: []time.Duration{time.Second, 20 * time.Second, 22 * time.Second}}
	require.NoError(t, hurried.StartDeferrals(t.Context(), workflows.DeferralsStart{
		Cohort: old, ESP: "mailtrap", OpensAt: time.Now().Add(-store.DeferralWindow), Closes: time.Now(),
	}))
	status := func() (got workflows.DeferralsStatus, err error) {
		v, err := p.temporal.QueryWorkflow(t.Context(), workflows.DeferralsWorkflowID(old), "", workflows.StatusQuery)
		if err == nil {
			err = v.Get(&got)
		}
		return got, err
	}
	eventually(t, time.Minute, "the first review", func() error {
		got, err := status()
		if err != nil {
			return err
		}
		return want(got.Review, 1, "reviews")
	})
	first, err := status()
	require.NoError(t, err)
	require.Equal(t, p.deferred(t, s), first.Open)
	word("arrives", "delivery")
	eventually(t, time.Minute, "all reviews", func() error {
		got, err := status()
		if err != nil {
			return err
		}
		return want(got.Closed, true, "closed")
	})
	last, err := status()
	require.NoError(t, err)
	require.Equal(t, 1, last.Delivered)
	require.Equal(t, 1, last.Expired)

	eventually(t, time.Minute, "the subscriber knows", func() error {
		for _, e := range decodeEvents(t, h.requirePromises(t, h.Secret)) {
			if e.Type == "expired" && e.Recipient == "waits@"+people && e.Message.Previous == "deferred" && e.Source == s.ID {
				return nil
			}
		}
		return fmt.Errorf("no expired event yet")
	})
	require.Zero(t, p.deferred(t, s))

	history := p.history(t, workflows.DeferralsWorkflowID(old))
	require.Equal(t, enums.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, history.Events[len(history.Events)-1].EventType)
	p.record(t, workflows.DeferralsWorkflowID(old), "track_deferrals_expired")
}

// deferred is how many of a source's messages the API lists as deferred.
func (p *product) deferred(t *testing.T, s source) int {
	t.Helper()
	all, err := list[struct {
		Source string `json:"source"`
	}](p, "/api/v1/messages?status=deferred")
	require.NoError(t, err)
	n := 0
	for _, m := range all {
		if m.Source == s.ID {
			n++
		}
	}
	return n
}
