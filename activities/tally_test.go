package activities

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
)

func TestTally(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	source := id.ID{1}
	seconds := int64(42)
	say := func(of event.Type, recipient string, change func(*store.StoredEvent)) store.StoredEvent {
		e := store.StoredEvent{Account: id.ID{9}, Source: source, Event: &event.Event{Type: of, Recipient: recipient, ReceivedAt: at}}
		if change != nil {
			change(&e)
		}
		return e
	}
	final := func(status event.Type) func(*store.StoredEvent) {
		return func(e *store.StoredEvent) { e.Said = &event.Snapshot{Status: status, SecondsToFinal: &seconds} }
	}
	code := func(smtp int, enhanced string) func(*store.StoredEvent) {
		return func(e *store.StoredEvent) { e.Event.SMTPCode, e.Event.EnhancedStatus = smtp, enhanced }
	}
	key := func(kind store.TallyKind, value string, of event.Type) store.TallyKey {
		return store.TallyKey{Source: source, Hour: at.Truncate(time.Hour), Kind: kind, Value: value, Type: of}
	}
	for name, c := range map[string]struct {
		e    store.StoredEvent
		want []store.TallyKey
	}{
		"sent says nothing":     {say(event.Sent, "a@x.com", nil), nil},
		"delivered":             {say(event.Delivered, "a@X.com", final(event.Delivered)), []store.TallyKey{key('d', "x.com", event.Delivered), key('t', "60", event.Delivered)}},
		"deferred with a code":  {say(event.Deferred, "a@x.com", code(451, "4.7.1")), []store.TallyKey{key('d', "x.com", event.Deferred), key('c', "451 4.7.1", event.Deferred)}},
		"an SMTP code alone":    {say(event.Bounced, "", code(550, "")), []store.TallyKey{key('c', "550", event.Bounced)}},
		"an enhanced one alone": {say(event.Bounced, "nobody", code(0, "5.1.1")), []store.TallyKey{key('c', "5.1.1", event.Bounced)}},
		"delivered with a code": {say(event.Delivered, "a@x.com", code(250, "2.0.0")), []store.TallyKey{key('d', "x.com", event.Delivered)}},
		"opened after delivery": {say(event.Opened, "a@x.com", final(event.Delivered)), nil},
	} {
		want := map[store.TallyKey]int{}
		for _, k := range c.want {
			want[k] = 1
		}
		require.Equal(t, want, new(Processing).tally([]store.StoredEvent{c.e}), name)
	}
	require.Equal(t, "1", bucketOf(0))
	require.Equal(t, "5", bucketOf(2))
	require.Equal(t, store.OtherValue, bucketOf(1e9))
}

func TestOnlySoManyValuesAreToldApart(t *testing.T) {
	var a admitted
	day := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for i := range 5 {
		require.Equal(t, fmt.Sprint(i), a.admit(id.ID{1}, store.ByDomain, day, fmt.Sprint(i), 5))
	}
	require.Equal(t, store.OtherValue, a.admit(id.ID{1}, store.ByDomain, day, "one more", 5))
	require.Equal(t, "3", a.admit(id.ID{1}, store.ByDomain, day, "3", 5), "known ones stay")
	require.Equal(t, "one more", a.admit(id.ID{2}, store.ByDomain, day, "one more", 5), "each account has its own")
	require.Equal(t, "one more", a.admit(id.ID{1}, store.ByCode, day, "one more", 5))
	require.Equal(t, "one more", a.admit(id.ID{1}, store.ByDomain, day.AddDate(0, 0, 1), "one more", 5), "and each day")
}
