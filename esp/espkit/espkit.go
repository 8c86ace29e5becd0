// Package espkit is what the adapters share: tolerant reading of JSON, forms,
// times and SMTP replies, and the few steps that every Parse ends with. It
// holds nothing that belongs to one ESP, and imports esp, event and the
// standard library only.
package espkit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"aftersend/esp"
	"aftersend/event"
)

// The most bytes that an event's texts may have. An address has at most 254
// (RFC 5321, 4.5.3.1.3), a header line 998 (RFC 5322, 2.1.1); the rest is room
// for what real ESPs send.
const (
	maxShort      = 1024
	maxURL        = 8 * 1024
	maxDiagnostic = 16 * 1024
)

// Table looks an ESP's type words up; what it does not hold is event.Unknown.
type Table map[string]event.Type

// NewTable makes the table of an adapter's event map.
func NewTable(types []esp.TypeMapping) Table {
	t := make(Table, len(types))
	for _, m := range types {
		t[m.Theirs] = m.Ours
	}
	return t
}

// Of returns our type for theirs.
func (t Table) Of(theirs string) event.Type {
	if ours, ok := t[theirs]; ok {
		return ours
	}
	return event.Unknown
}

// Unreadable is the error of a callback that says nothing readable.
func Unreadable(reason string) error {
	return fmt.Errorf("%w: %s", esp.ErrUnreadable, reason)
}

// Forged is the error of a callback whose signature does not hold.
func Forged(reason string) error { return fmt.Errorf("%w: %s", esp.ErrForged, reason) }

// Finish completes an event: codes from the diagnostic where no field gave
// them, the sender's own filter values from its metadata, texts and time in
// bounds.
func Finish(e *event.Event) {
	if e.Diagnostic != "" {
		e.Diagnostic = Bound(strings.TrimSpace(e.Diagnostic), maxDiagnostic)
		if e.SMTPCode == 0 {
			e.SMTPCode = SMTPCode(e.Diagnostic)
		}
		if e.EnhancedStatus == "" {
			e.EnhancedStatus = EnhancedStatus(e.Diagnostic)
		}
	}
	if len(e.Metadata) > 0 {
		fromMetadata(e)
	}
	for _, s := range []*string{&e.Recipient, &e.MessageID, &e.EventID, &e.RFCMessageID, &e.ReturnPath, &e.UserAgent, &e.IP,
		&e.Subject, &e.Stream, &e.SendingDomain, &e.SendingNode, &e.Bridge, &e.DedicatedIP, &e.CampaignID, &e.BroadcastName, &e.ESPType} {
		if len(*s) > maxShort {
			*s = Bound(*s, maxShort)
		}
	}
	e.URL = Bound(e.URL, maxURL)
	if !e.OccurredAt.IsZero() {
		e.OccurredAt = e.OccurredAt.UTC().Truncate(time.Microsecond)
	}
}

// fromMetadata lets a sender's own metadata say what no ESP knows: campaign,
// broadcast, sending node and the like, under the names our events use. What
// the ESP itself says wins.
func fromMetadata(e *event.Event) {
	take := func(field *string, name string) {
		if *field != "" {
			return
		}
		switch v := e.Metadata[name].(type) {
		case string:
			*field = v
		case json.Number:
			*field = v.String()
		}
	}
	take(&e.CampaignID, "campaign_id")
	take(&e.BroadcastName, "broadcast_name")
	take(&e.SendingDomain, "sending_domain")
	take(&e.SendingNode, "sending_node")
	take(&e.Bridge, "bridge")
	take(&e.DedicatedIP, "dedicated_ip")
	take(&e.Stream, "stream")
}

// BounceByCode tells hard from soft by the class of the reply code, else of
// the enhanced status.
func BounceByCode(code int, status string) event.BounceType {
	class := code / 100
	if class == 0 && status != "" {
		class = int(status[0] - '0')
	}
	switch class {
	case 5:
		return event.Hard
	case 4:
		return event.Soft
	}
	return event.Undetermined
}

// NewRequest makes the POST of a sample.
func NewRequest(rawURL, contentType string, body []byte, now time.Time) (esp.Request, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return esp.Request{}, fmt.Errorf("parse the callback URL: %w", err)
	}
	header := http.Header{}
	header.Set("Host", u.Host)
	header.Set("Content-Type", contentType)
	return esp.Request{
		Method: http.MethodPost, URL: rawURL, Path: u.EscapedPath(), RawQuery: u.RawQuery,
		Header: header, Body: body, ReceivedAt: now.UTC(),
	}, nil
}

// SampleTime is when a sampled event happened: as it says, else now.
func SampleTime(e event.Event, now time.Time) time.Time {
	if e.OccurredAt.IsZero() {
		return now.UTC()
	}
	return e.OccurredAt.UTC()
}
