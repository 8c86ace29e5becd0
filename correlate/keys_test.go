package correlate

import (
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/event"
	"aftersend/id"
)

func TestMessageKeys(t *testing.T) {
	o := Origin{Account: id.ID{1}, Source: id.ID{2}}
	elsewhere := Origin{Account: id.ID{1}, Source: id.ID{3}}
	full := &event.Event{Recipient: "A@Example.com", MessageID: "77", RFCMessageID: "<x@y>", ReturnPath: "<b-20260102345@z>"}

	keys := MessageKeys(nil, o, full)
	require.Len(t, keys, 3)
	require.Equal(t, []Kind{ByMessageID, ByRFC, ByReturnPath}, []Kind{keys[0].Kind, keys[1].Kind, keys[2].Kind})

	require.Equal(t, keys[0], MessageKeys(nil, o, &event.Event{Recipient: "a@example.COM", MessageID: "77"})[0], "case of the recipient")
	require.NotEqual(t, keys[0], MessageKeys(nil, o, &event.Event{Recipient: "b@example.com", MessageID: "77"})[0], "another recipient")
	require.NotEqual(t, keys[0], MessageKeys(nil, elsewhere, full)[0], "ids of ESPs are theirs")
	require.Equal(t, keys[1:], MessageKeys(nil, elsewhere, full)[1:], "the others hold across sources")
	require.NotEqual(t, keys[1], MessageKeys(nil, Origin{Account: id.ID{9}}, full)[1], "not across accounts")

	require.Equal(t, keys[1], MessageKeys(nil, o, &event.Event{Recipient: "a@example.com", RFCMessageID: "x@y"})[0], "without brackets")
	o.MessageIDIsRFC = true
	require.Equal(t, keys[1], MessageKeys(nil, o, &event.Event{Recipient: "a@example.com", MessageID: "<x@y>"})[1], "the ESP's id is the header")
	require.Empty(t, MessageKeys(nil, o, &event.Event{Recipient: "a@example.com", RFCMessageID: "<>", ReturnPath: "<>"}))
}

func TestReturnPathsThatNameOneMessage(t *testing.T) {
	const recipient = "user123456@example.com"
	for path, want := range map[string]bool{
		"bounce-77f1c9a2e0@mail.example.net":                         true,
		"0100018f2a7b-1234-4cde@amazonses.com":                       true,
		"bounces+1234567-9abc-user123456=example.com@em.example.net": false, // account and recipient
		"bounce-md_30001.65a.v1-0af3e1c2d4b5@mandrillapp.com":        true,
		"bounces@example.net":                                        false,
		"bounces+user123456=example.com@lists.example.net":           false, // the recipient, not the message
		"news-user123456-example.com@lists.example.net":              false,
		"prvs=1234567890=sender@example.net":                         false, // BATV: sender and day
		"newsletter2026@example.net":                                 false,
		"news-20260102@example.net":                                  false,
		"":                                                           false, "@": false, "<>": false,
	} {
		require.Equal(t, want, namesOneMessage(path, recipient), "%q", path)
	}
}

func TestEventKey(t *testing.T) {
	o := Origin{Source: id.ID{1}}
	base := event.Event{EventID: "e1", Recipient: "a@example.com", ESPType: "open", Record: []byte("r")}
	key := EventKey(o, &base, id.ID{5}, 0)
	same, elsewhere, recipient, word := base, base, base, base
	same.Record, same.Recipient = []byte("other"), "A@example.com"
	recipient.Recipient = "b@example.com"
	word.ESPType = "click"
	require.Equal(t, key, EventKey(o, &same, id.ID{6}, 7), "the ESP's event id decides")
	require.NotEqual(t, key, EventKey(Origin{Source: id.ID{2}}, &elsewhere, id.ID{5}, 0))
	require.NotEqual(t, key, EventKey(o, &recipient, id.ID{5}, 0), "two recipients may share an event id")
	require.NotEqual(t, key, EventKey(o, &word, id.ID{5}, 0), "and two types")

	plain := event.Event{Recipient: "a@example.com", Record: []byte("r")}
	require.Equal(t, EventKey(o, &plain, id.ID{5}, 0), EventKey(o, &plain, id.ID{6}, 1), "the record decides")
	plain.Record = nil
	require.NotEqual(t, EventKey(o, &plain, id.ID{5}, 0), EventKey(o, &plain, id.ID{5}, 1), "nothing to compare: its own")
}

func TestSuppresses(t *testing.T) {
	event1 := func(t event.Type) *event.Event { return &event.Event{Type: t, Recipient: "a@b"} }
	makes := func(t event.Type) Suppression { return Suppression{Reason: t} }
	no := Suppression{}

	byType := map[event.Type]Suppression{
		event.Unsubscribed: makes(event.Unsubscribed),
		event.Complained:   makes(event.Complained),
		event.Subscribed:   {Reason: event.Unsubscribed, Lift: true},
	}
	for _, word := range event.Types {
		got, ok := Suppresses(event1(word))
		require.Equal(t, byType[word], got, word)
		require.Equal(t, byType[word] != no, ok, word)
		for _, bounceType := range []event.BounceType{event.Hard, event.Soft, event.Undetermined} {
			e := event1(word)
			e.BounceType, e.Category = bounceType, event.InvalidRecipient
			got, _ := Suppresses(e)
			want := byType[word]
			if word == event.Bounced && bounceType == event.Hard {
				want = makes(event.Bounced)
			}
			require.Equal(t, want, got, "%s %s", word, bounceType)
		}
		_, ok = Suppresses(&event.Event{Type: word, BounceType: event.Hard})
		require.False(t, ok, "%s of nobody", word)
	}

	// Of hard bounces only those that are about the address, or about nothing
	// we know: ESPs call spam verdicts, quotas and broken DNS hard, too.
	byCategory := map[event.Category]bool{
		"": true, event.NoReason: true, event.InvalidRecipient: true, event.InvalidDomain: true, event.InactiveMailbox: true,
		event.Suppressed: false, event.MailboxFull: false, event.MessageTooLarge: false, event.SpamContent: false,
		event.ContentRejected: false, event.Virus: false, event.Blocklisted: false, event.AuthenticationFailure: false,
		event.Policy: false, event.SenderRejected: false, event.RelayDenied: false, event.RateLimited: false,
		event.Greylisted: false, event.DNSFailure: false, event.NetworkError: false, event.GaveUp: false,
		event.ProtocolError: false, event.SystemError: false,
	}
	for category, want := range byCategory {
		for _, later := range []*bool{nil, event.Bool(false), event.Bool(true)} {
			e := event1(event.Bounced)
			e.BounceType, e.Category, e.Asynchronous = event.Hard, category, later
			_, ok := Suppresses(e)
			require.Equal(t, want, ok, category)
		}
	}
}
