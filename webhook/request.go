package webhook

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// Request is one HTTP POST, ready to be sent. What is signed is what is sent.
type Request struct {
	URL    string
	Header http.Header
	Body   []byte
}

// NewRequest puts together one attempt: post goes to the webhook's URL with
// its credentials, signed with every key that is valid at the time. messageID
// is the batch's id, or the event's where one request is one event; it stays
// the same over all attempts, while the timestamp is that of this one.
func NewRequest(s Settings, secrets Secrets, post Post, messageID string, keys [][]byte, at time.Time) (Request, error) {
	u, err := url.Parse(secrets.URL)
	if err != nil {
		return Request{}, errors.New("the webhook's URL cannot be read") // the cause would repeat it
	}
	h := http.Header{}
	h.Set("Content-Type", post.ContentType)
	h.Set(HeaderID, messageID)
	h.Set(HeaderTimestamp, timestamp(at))
	if len(keys) > 0 {
		h.Set(HeaderSignature, Sign(keys, messageID, at, post.Body))
		if s.Dialect == DialectMailtrap {
			h.Set("Mailtrap-Signature", SignMailtrap(keys[0], post.Body))
		}
	}
	authorize(u, h, secrets.Auth)
	return Request{URL: u.String(), Header: h, Body: post.Body}, nil
}

func authorize(u *url.URL, h http.Header, a Auth) {
	switch a.Type {
	case AuthBasic:
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(a.Username+":"+a.Password)))
	case AuthBearer:
		h.Set("Authorization", "Bearer "+a.Token)
	case AuthQuery:
		// Appended, so that what the user wrote in the URL stays as it is.
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += url.QueryEscape(a.Name) + "=" + url.QueryEscape(a.Token)
	case AuthHeaders:
		for name, value := range a.Headers {
			h.Set(name, value)
		}
	}
}
