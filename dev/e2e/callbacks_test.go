package e2e

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// callback is a request as an ESP sends it.
type callback struct {
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	query   string
}

//go:embed testdata/*.json
var captured embed.FS

// capturedCallback is a request an ESP really sent, or shows in its
// documentation; pairs of old and new text are replaced in its body, which is
// how two captures become two words about one message.
func capturedCallback(t *testing.T, name string, replace ...string) callback {
	t.Helper()
	raw, err := captured.ReadFile("testdata/" + name + ".json")
	require.NoError(t, err)
	var c callback
	require.NoError(t, json.Unmarshal(raw, &c))
	for i := 0; i < len(replace); i += 2 {
		require.Contains(t, c.Body, replace[i])
	}
	c.Body = strings.NewReplacer(replace...).Replace(c.Body)
	return c
}

// with returns the callback with a header set.
func (c callback) with(name, value string) callback {
	c.Headers = maps.Clone(c.Headers)
	c.Headers[name] = value
	return c
}

// signedAsMandrill signs as Mandrill documents it, written down a second time
// so that the adapter is not judged by itself.
func (c callback) signedAsMandrill(t *testing.T, address, key string) callback {
	form, err := url.ParseQuery(c.Body)
	require.NoError(t, err)
	mac := hmac.New(sha1.New, []byte(key))
	mac.Write([]byte(address + "mandrill_events" + form.Get("mandrill_events")))
	return c.with("X-Mandrill-Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// signedAsMailtrap signs as Mailtrap documents it.
func (c callback) signedAsMailtrap(secret string) callback {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(c.Body))
	return c.with("Mailtrap-Signature", hex.EncodeToString(mac.Sum(nil)))
}

// people is the domain of every recipient these tests make up: what must never
// show in a log or a history.
const people = "people.example"

// delivered is a Mailtrap callback with one event of our making. The key comes
// back as the event's event_id.
func delivered(key string) callback {
	return mailtrapEvent(map[string]any{"event_id": key, "message_id": "m-" + key, "email": key + "@" + people})
}

// mailtrapEvent is a Mailtrap callback with one event; fields override what
// a usual delivery has.
func mailtrapEvent(fields map[string]any) callback {
	ev := map[string]any{
		"event": "delivery", "timestamp": 1767323259, "sending_stream": "transactional", "sending_domain_name": "send.example.com",
		"category": "Password reset", "custom_variables": map[string]any{"order": "1042"},
	}
	for k, v := range fields {
		ev[k] = v
	}
	body, err := json.Marshal(map[string]any{"events": []any{ev}})
	if err != nil {
		panic(fmt.Sprintf("encode a callback: %v", err))
	}
	return callback{Method: http.MethodPost, Headers: map[string]string{"Content-Type": "application/json"}, Body: string(body)}
}
