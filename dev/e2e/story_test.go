package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"

	"aftersend/id"
	"aftersend/workflows"
)

// nativeEvent is what these tests look at in an event's native JSON.
type nativeEvent struct {
	ID           string            `json:"id"`
	Type         string            `json:"type"`
	ESP          string            `json:"esp"`
	Source       string            `json:"source"`
	Recipient    string            `json:"recipient"`
	MessageID    string            `json:"message_id"`
	EventID      string            `json:"event_id"`
	OccurredAt   time.Time         `json:"occurred_at"`
	BounceType   string            `json:"bounce_type"`
	Asynchronous *bool             `json:"asynchronous"`
	SMTPCode     int               `json:"smtp_code"`
	Status       string            `json:"enhanced_status"`
	Diagnostic   string            `json:"diagnostic"`
	Subject      string            `json:"subject"`
	Tags         []string          `json:"tags"`
	Metadata     map[string]any    `json:"metadata"`
	Message      *nativeEventStory `json:"message"`
}

type nativeEventStory struct {
	ID        string `json:"id"`
	Status    string `json:"status"`
	Previous  string `json:"previous_status"`
	Deferrals int    `json:"deferrals"`
}

func decodeEvents(t *testing.T, accepted []received) []nativeEvent {
	t.Helper()
	var out []nativeEvent
	for _, a := range accepted {
		var e nativeEvent
		require.NoError(t, json.Unmarshal(a.JSON, &e))
		require.Equal(t, a.ID, e.ID)
		out = append(out, e)
	}
	return out
}

// TestStory is the product in one test: what three ESPs really send is kept,
// understood, joined into messages and delivered.
func TestStory(t *testing.T) {
	t.Parallel()
	p := calm(t)
	const mandrillKey, mailtrapSecret = "story-mandrill-key", "story-mailtrap-secret"
	mandrill := p.newSource(t, "mandrill", "Mandrill", map[string]string{"key": mandrillKey})
	mailtrap := p.newSource(t, "mailtrap", "Mailtrap", map[string]string{"secret": mailtrapSecret})
	smtpeter := p.newSource(t, "smtpeter", "SMTPeter", nil)
	h := p.newHook(t, receivers.endpoint("story"), from(mandrill, mailtrap, smtpeter))

	// Nothing but a name and a URL is needed; this one gets everything of everybody.
	everything := p.newHook(t, receivers.endpoint("everything"), nil)

	// Four words of Mandrill and Mailtrap about two messages, each deferred
	// first, and others besides.
	const mandrillMessage, mandrillRecipient = "exampleaaaaaaaaaaaaaaaaaaaaaaaaa2", "example.webhook%40mandrillapp.example"
	steps := []struct {
		source source
		sent   callback
		events int
	}{
		{mandrill, capturedCallback(t, "mandrill_deferral_smtp_events").signedAsMandrill(t, mandrill.URL, mandrillKey), 1},
		{mandrill, capturedCallback(t, "mandrill_delivered", "7761632", mandrillMessage, "foo%40example.com", mandrillRecipient).signedAsMandrill(t, mandrill.URL, mandrillKey), 1},
		{mandrill, capturedCallback(t, "mandrill_batch_three").signedAsMandrill(t, mandrill.URL, mandrillKey), 3},
		{mailtrap, capturedCallback(t, "mailtrap_soft_bounce_space").signedAsMailtrap(mailtrapSecret), 1},
		{mailtrap, capturedCallback(t, "mailtrap_delivery", "-000000000001", "-000000000003").signedAsMailtrap(mailtrapSecret), 1},
		{mailtrap, capturedCallback(t, "mailtrap_jsonl_two").signedAsMailtrap(mailtrapSecret), 2},
		{smtpeter, capturedCallback(t, "smtpeter_failure_async_bounce"), 1},
	}
	var ids []string
	total := 0
	for _, step := range steps {
		a, err := post(t.Context(), step.source, step.sent)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, a.status)
		ids = append(ids, a.id)
		total += step.events
		// The next word comes later, as in life: a group of its own.
		eventually(t, time.Minute, "callback processed", func() error { return p.callbackState(a.id, "processed") })
	}

	t.Run("callbacks are kept byte for byte", func(t *testing.T) {
		listed, err := list[callbackView](p, "/api/v1/callbacks?esp=mandrill")
		require.NoError(t, err)
		for i, step := range steps {
			var raw []byte
			p.must(t, http.MethodGet, "/api/v1/callbacks/"+ids[i]+"/raw", nil, &raw)
			require.Equal(t, step.sent.Body, string(raw))
			if step.source.ID == mandrill.ID {
				require.True(t, slices.ContainsFunc(listed, func(c callbackView) bool {
					return c.ID == ids[i] && c.Source == mandrill.ID && c.Events == step.events && c.ESP == "mandrill" && c.WorkflowID != ""
				}), "%s is listed: %+v", ids[i], listed)
			}
		}
	})

	t.Run("a forged callback is refused", func(t *testing.T) {
		forged := steps[3].sent
		forged.Body = forged.Body + " "
		a, err := post(t.Context(), mailtrap, forged)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, a.status)
		var rejected int
		u, err := id.Source.Parse(mailtrap.ID)
		require.NoError(t, err)
		eventually(t, time.Minute, "the refusal is written down", func() error {
			if err := p.db.QueryRow(`select count(*) from rejected_requests where source_id = $1 and status_code = 401`, u).Scan(&rejected); err != nil {
				return err
			}
			return want(rejected, 1, "rejected requests")
		})

		unknown := mailtrap
		unknown.URL = p.url + "/callbacks/mailtrap/no-such-token"
		a, err = post(t.Context(), unknown, steps[3].sent)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, a.status)
	})

	var delivered []nativeEvent
	t.Run("events arrive signed, in our words", func(t *testing.T) {
		eventually(t, time.Minute, "all events delivered", func() error {
			n, err := p.progress(h)
			if err != nil {
				return err
			}
			return want(n, progress{matched: total, delivered: total}, "progress")
		})
		delivered = decodeEvents(t, h.requirePromises(t, h.Secret))
		var types []string
		for _, e := range delivered {
			types = append(types, e.ESP+" "+e.Type)
		}
		require.Equal(t, []string{
			"mandrill deferred", "mandrill delivered",
			"mandrill sent", "mandrill bounced", "mandrill opened",
			"mailtrap deferred", "mailtrap delivered",
			"mailtrap delivered", "mailtrap opened",
			"smtpeter bounced",
		}, types)

		bounce := delivered[9]
		require.Equal(t, "late@example.com", bounce.Recipient)
		require.Equal(t, smtpeter.ID, bounce.Source)
		require.Equal(t, "hard", bounce.BounceType)
		require.True(t, *bounce.Asynchronous)
		require.Equal(t, 550, bounce.SMTPCode)
		require.Equal(t, "5.1.1", bounce.Status)
		require.Equal(t, []string{"welcome", "eu"}, bounce.Tags)
		require.Equal(t, time.Unix(1736112700, 0).UTC(), bounce.OccurredAt)

		require.Equal(t, "soft", delivered[3].BounceType)
		require.Equal(t, "451 4.3.5 Temporarily unavailable, try again later.", delivered[0].Diagnostic)
		require.Equal(t, "This an example webhook message", delivered[0].Subject)
		require.EqualValues(t, 111, delivered[0].Metadata["user_id"])
		require.Equal(t, "bede7236-2284-43d6-a953-1fdcafd0fd03", delivered[5].EventID)
	})

	t.Run("deferred then delivered is one message", func(t *testing.T) {
		for _, pair := range [][2]nativeEvent{{delivered[0], delivered[1]}, {delivered[5], delivered[6]}} {
			first, second := pair[0], pair[1]
			require.Equal(t, first.Message.ID, second.Message.ID)
			require.Equal(t, "deferred", first.Message.Status)
			require.Equal(t, "delivered", second.Message.Status)
			require.Equal(t, "deferred", second.Message.Previous)
			require.Equal(t, 1, second.Message.Deferrals)

			var m struct {
				Status, Recipient string
				Deferrals         int
				Timeline          []nativeEvent
			}
			p.must(t, http.MethodGet, "/api/v1/messages/"+first.Message.ID, nil, &m)
			require.Equal(t, "delivered", m.Status)
			require.Equal(t, first.Recipient, m.Recipient)
			require.Equal(t, 1, m.Deferrals)
			require.Equal(t, []nativeEvent{first, second}, m.Timeline)
		}
	})

	t.Run("the API tells the same events", func(t *testing.T) {
		listed, err := list[nativeEvent](p, "/api/v1/events?recipient=late@example.com")
		require.NoError(t, err)
		require.Contains(t, listed, delivered[9])
	})

	t.Run("a repeat of the same callback makes no second event", func(t *testing.T) {
		for _, i := range []int{0, 3, 5, 6} {
			a, err := post(t.Context(), steps[i].source, steps[i].sent)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, a.status)
			eventually(t, time.Minute, "repeat processed", func() error { return p.callbackState(a.id, "processed") })
		}
		// What comes after them shows that they brought nothing.
		a, err := post(t.Context(), smtpeter, capturedCallback(t, "smtpeter_failure_async_bounce", "late", "later"))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, a.status)
		eventually(t, time.Minute, "delivered", func() error {
			n, err := p.progress(h)
			if err != nil {
				return err
			}
			return want(n, progress{matched: total + 1, delivered: total + 1}, "progress")
		})
		again := decodeEvents(t, h.requirePromises(t, h.Secret))
		require.Equal(t, delivered, again[:total])
		require.Equal(t, "later@example.com", again[total].Recipient)
	})

	t.Run("a webhook without filters got them too", func(t *testing.T) {
		eventually(t, time.Minute, "delivered", func() error {
			if got := len(everything.requirePromises(t, everything.Secret)); got < total+1 {
				return fmt.Errorf("%d events", got)
			}
			return nil
		})
	})

	t.Run("the workflows ran eagerly, in the process that took the callbacks", func(t *testing.T) {
		var c callbackView
		p.must(t, http.MethodGet, "/api/v1/callbacks/"+ids[0], nil, &c)
		h := p.history(t, c.WorkflowID)
		started := h.Events[0].GetWorkflowExecutionStartedEventAttributes()
		require.True(t, started.EagerExecutionAccepted, "%s", c.WorkflowID)
		require.Equal(t, enums.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, h.Events[len(h.Events)-1].EventType)
		p.record(t, c.WorkflowID, "process_callbacks_happy")
	})

	t.Run("the webhook's workflow sleeps and keeps no data", func(t *testing.T) {
		p.waitAsleep(t, h)
		p.record(t, workflows.WebhookWorkflowID(h.webhookID()), "webhook_deliver_sleep")
	})
}

// waitAsleep waits until a webhook's workflow has nothing left to do.
func (p *product) waitAsleep(t *testing.T, h *hook) {
	t.Helper()
	eventually(t, time.Minute, "asleep", func() error {
		var asleep bool
		if err := p.db.QueryRow(`select asleep from webhook_progress where webhook_id = $1`, h.webhookID()).Scan(&asleep); err != nil {
			return err
		}
		return want(asleep, true, "asleep")
	})
}

type callbackView struct {
	ID         string `json:"id"`
	ESP        string `json:"esp"`
	Source     string `json:"source"`
	State      string `json:"state"`
	Events     int    `json:"events"`
	Error      string `json:"error"`
	WorkflowID string `json:"workflow_id"`
}

// callbackState reports when a callback is not in a state, as the API tells it.
func (p *product) callbackState(callback, state string) error {
	var c callbackView
	if _, err := p.call(http.MethodGet, "/api/v1/callbacks/"+callback, nil, &c); err != nil {
		return err
	}
	return want(c.State, state, "callback "+callback)
}

// want is an equality to wait for.
func want[T comparable](got, want T, what string) error {
	if got != want {
		return fmt.Errorf("%s: %v, want %v", what, got, want)
	}
	return nil
}
