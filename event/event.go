// Package event is the canonical model: what happened to one message to one
// recipient, in our words, whichever ESP reported it. It imports the standard
// library only and does no I/O; every other room speaks in its types.
package event

import (
	"time"
)

// Type says what happened. These are the words subscribers filter on.
type Type string

// The event types. Deferred means that the ESP will try again, Bounced that it
// has given up or that a mail server said so after accepting the message.
const (
	Queued        Type = "queued"        // accepted by the ESP, not yet tried
	Sent          Type = "sent"          // left the ESP, fate unknown
	Delivered     Type = "delivered"     // accepted by the recipient's mail server (250, RFC 5321)
	Deferred      Type = "deferred"      // refused for now; the ESP will try again
	Bounced       Type = "bounced"       // undeliverable: the ESP has given up, or a bounce came later
	Rejected      Type = "rejected"      // the ESP refused to send (suppressed, invalid, policy)
	Failed        Type = "failed"        // the ESP could not send (its own fault)
	Complained    Type = "complained"    // the recipient called it spam
	Opened        Type = "opened"        // an open was tracked
	Clicked       Type = "clicked"       // a click was tracked
	Unsubscribed  Type = "unsubscribed"  // the recipient opted out
	Subscribed    Type = "subscribed"    // the recipient opted in again
	Autoresponded Type = "autoresponded" // an automatic reply came back (RFC 3834)
	Expired       Type = "expired"       // our own: a deferral that never got its final word
	Unknown       Type = "unknown"       // understood as a record, not as one of the above
)

// Types lists every type in the order of a message's life; the order in which
// pages and documents show them.
var Types = []Type{
	Queued, Sent, Deferred, Delivered, Bounced, Rejected, Failed, Expired,
	Opened, Clicked, Complained, Unsubscribed, Subscribed, Autoresponded, Unknown,
}

// Known reports whether t is one of Types.
func (t Type) Known() bool {
	for _, k := range Types {
		if k == t {
			return true
		}
	}
	return false
}

// BounceType tells a permanent failure from a passing one. It is set on
// bounced events, and on a deferral whose ESP calls it soft.
type BounceType string

// The bounce types.
const (
	Hard         BounceType = "hard"
	Soft         BounceType = "soft"
	Undetermined BounceType = "undetermined"
)

// Category says why a message bounced, was deferred or was rejected. Empty
// when nothing told.
type Category string

// The categories. The comment names the nearest codes of RFC 3463 and of the
// IANA enhanced status code registry.
const (
	InvalidRecipient      Category = "invalid_recipient"      // no such mailbox, moved (5.1.1, 5.1.6)
	InvalidDomain         Category = "invalid_domain"         // no such domain, null MX (5.1.2, 5.1.10)
	InactiveMailbox       Category = "inactive_mailbox"       // disabled or suspended (5.2.1)
	Suppressed            Category = "suppressed"             // the ESP's own suppression list
	MailboxFull           Category = "mailbox_full"           // over quota (x.2.2)
	MessageTooLarge       Category = "message_too_large"      // x.2.3, x.3.4
	SpamContent           Category = "spam_content"           // judged spam by content
	ContentRejected       Category = "content_rejected"       // attachment or form refused (x.6.x)
	Virus                 Category = "virus"                  // malware found
	Blocklisted           Category = "blocklisted"            // sending IP or domain on a list
	AuthenticationFailure Category = "authentication_failure" // SPF, DKIM, DMARC, reverse DNS (RFC 7372)
	Policy                Category = "policy"                 // local rule (x.7.1)
	SenderRejected        Category = "sender_rejected"        // envelope sender refused (x.1.7, x.1.8)
	RelayDenied           Category = "relay_denied"           // host does not relay for this domain
	RateLimited           Category = "rate_limited"           // too many connections, messages, recipients
	Greylisted            Category = "greylisted"             // try later, first contact
	DNSFailure            Category = "dns_failure"            // look-up failed (x.4.3)
	NetworkError          Category = "network_error"          // no connection, timeout, loop (x.4.1, x.4.2, x.4.6)
	GaveUp                Category = "expired"                // queue lifetime over, cause not stated (x.4.7)
	ProtocolError         Category = "protocol_error"         // SMTP syntax or sequence (x.5.x)
	SystemError           Category = "system_error"           // the receiver's own trouble (x.3.x)
	NoReason              Category = "undetermined"           // no usable reason
)

// Event is one thing that happened to one message to one recipient. Absent
// strings are "", absent codes 0; the JSON leaves out what is absent. Once
// recorded it never changes.
//
// The JSON is the native form of the API, of webhooks and of `aftersend parse`.
type Event struct {
	ID         string    `json:"id,omitempty"` // evt_…
	Type       Type      `json:"type"`
	OccurredAt time.Time `json:"occurred_at,omitzero"` // what the ESP says, UTC, at most microseconds
	ReceivedAt time.Time `json:"received_at,omitzero"` // when its callback reached us, UTC
	ESP        string    `json:"esp,omitempty"`
	Source     string    `json:"source,omitempty"` // src_…

	Recipient    string `json:"recipient,omitempty"`      // as sent, without display name or brackets
	MessageID    string `json:"message_id,omitempty"`     // the ESP's own, verbatim
	EventID      string `json:"event_id,omitempty"`       // the ESP's own; two recipients may share one
	RFCMessageID string `json:"rfc_message_id,omitempty"` // Message-ID header (RFC 5322, 3.6.4), with its brackets
	ReturnPath   string `json:"return_path,omitempty"`    // envelope sender (RFC 5321, 4.4), often VERP

	BounceType     BounceType `json:"bounce_type,omitempty"`
	Category       Category   `json:"category,omitempty"`
	Asynchronous   *bool      `json:"asynchronous,omitempty"`    // false: in the SMTP dialogue; true: after acceptance
	SMTPCode       int        `json:"smtp_code,omitempty"`       // reply code, 200..599 (RFC 5321, 4.2)
	EnhancedStatus string     `json:"enhanced_status,omitempty"` // class.subject.detail (RFC 3463)
	Diagnostic     string     `json:"diagnostic,omitempty"`      // the most technical text there is

	URL       string `json:"url,omitempty"` // the link that was clicked
	UserAgent string `json:"user_agent,omitempty"`
	IP        string `json:"ip,omitempty"` // of the person, never of a mail server

	Subject  string         `json:"subject,omitempty"`
	Tags     []string       `json:"tags,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"` // what the sender attached; numbers as json.Number

	Stream        string `json:"stream,omitempty"` // "transactional", "bulk" or the ESP's word
	SendingDomain string `json:"sending_domain,omitempty"`
	SendingNode   string `json:"sending_node,omitempty"`
	Bridge        string `json:"bridge,omitempty"`
	DedicatedIP   string `json:"dedicated_ip,omitempty"`
	CampaignID    string `json:"campaign_id,omitempty"`
	BroadcastName string `json:"broadcast_name,omitempty"`

	// Message is the story so far, as of this event.
	Message *Snapshot `json:"message,omitempty"`

	// ESPType is the ESP's own word for the type. It is part of the key that
	// recognises repeats, so that two of its types we call the same stay two.
	ESPType string `json:"-"`
	// Record is this event's part of the callback, as posted. Where the ESP
	// gives no event id, its hash recognises repeats.
	Record []byte `json:"-"`
}

// Snapshot is a message's state at the moment of one event.
type Snapshot struct {
	ID              string    `json:"id"` // msg_…
	Status          Type      `json:"status"`
	PreviousStatus  Type      `json:"previous_status,omitempty"`
	Deferrals       int       `json:"deferrals,omitempty"`
	FirstDeferredAt time.Time `json:"first_deferred_at,omitzero"`
	SecondsToFinal  *int64    `json:"seconds_to_final,omitempty"` // from the first word to the final one
	// Match says how sure it is that the event is about this message: "" by an
	// id of the message; MatchLikely; MatchNone.
	Match string `json:"match,omitempty"`
}

// How sure it is that an asynchronous bounce without any id of its message is
// about the message it was put to.
const (
	MatchLikely = "likely" // only this one had been delivered to the recipient lately
	MatchNone   = "none"   // no message is known to be meant; this one holds the bounce alone
)

// EffectiveAt is the time an event counts for: what the ESP says, but never
// more than five minutes after we received it (clocks run ahead), or the time
// we received it when the ESP says nothing.
func (e *Event) EffectiveAt() time.Time {
	latest := e.ReceivedAt.Add(5 * time.Minute)
	switch {
	case e.OccurredAt.IsZero():
		return e.ReceivedAt
	case e.OccurredAt.After(latest):
		return latest
	}
	return e.OccurredAt
}

// Bool returns a pointer to b, for Asynchronous.
func Bool(b bool) *bool { return &b }
