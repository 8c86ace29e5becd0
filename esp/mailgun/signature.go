package mailgun

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"aftersend/esp"
	"aftersend/esp/espkit"
	"aftersend/event"
)

// What the signed time may differ from the time of receipt. Mailgun retries
// for eight hours, and does not say whether it signs anew each time.
const (
	maxAge   = 9 * time.Hour
	maxAhead = 15 * time.Minute
)

// Verify implements esp.Verifier: hexadecimal HMAC-SHA256 over time and token,
// in the body's signature, or among the fields of an old form. That a token
// comes a second time cannot be seen here; the repeated event is recognised by
// its id.
func (Adapter) Verify(_ context.Context, req esp.Request, v esp.Verification) error {
	timestamp, token, posted := signature(req.Body)
	if posted == "" {
		return esp.ErrUnsigned
	}
	got, err := hex.DecodeString(posted)
	if err != nil {
		return espkit.Forged("the signature is not hexadecimal")
	}
	key := v.Secrets["signing_key"]
	want, _ := hex.DecodeString(sign(key, timestamp, token))
	if key == "" || !hmac.Equal(got, want) {
		return espkit.Forged("the signature does not match; is the signing key this account's?")
	}
	if v.Now.IsZero() {
		return nil
	}
	signed := espkit.Time(timestamp)
	if age := v.Now.Sub(signed); signed.IsZero() || age > maxAge || age < -maxAhead {
		return espkit.Forged("the signature's time is too far from the time of receipt")
	}
	return nil
}

func signature(body []byte) (timestamp, token, signature string) {
	if doc, ok := espkit.Document(body); ok {
		o := doc.Object().Get("signature").Object()
		return o.Get("timestamp").String(), o.Get("token").String(), o.Get("signature").String()
	}
	form := espkit.ParseForm(body)
	return last(form, "timestamp"), last(form, "token"), last(form, "signature")
}

func sign(key, timestamp, token string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(timestamp))
	mac.Write([]byte(token))
	return hex.EncodeToString(mac.Sum(nil))
}

// sampleToken is like Mailgun's: 50 hexadecimal digits.
func sampleToken(ev event.Event, timestamp string) string {
	sum := sha256.Sum256([]byte(ev.EventID + ev.MessageID + ev.Recipient + string(ev.Type) + timestamp))
	return hex.EncodeToString(sum[:25])
}
