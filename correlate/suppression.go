package correlate

import "aftersend/event"

// Suppression says that an address should not be mailed, or may be again.
type Suppression struct {
	Reason event.Type // unsubscribed, complained or bounced
	Lift   bool       // a resubscription: takes an unsubscription back, nothing else
}

// Suppresses decides whether an authentic event concerns the suppression of
// its recipient. A hard bounce does only when its category is about the
// address, or unknown: ESPs call spam verdicts and full mailboxes hard, too.
func Suppresses(e *event.Event) (Suppression, bool) {
	if e.Recipient == "" {
		return Suppression{}, false
	}
	switch e.Type {
	case event.Unsubscribed, event.Complained:
		return Suppression{Reason: e.Type}, true
	case event.Subscribed:
		return Suppression{Reason: event.Unsubscribed, Lift: true}, true
	case event.Bounced:
		if e.BounceType != event.Hard {
			return Suppression{}, false
		}
		switch e.Category {
		case "", event.NoReason, event.InvalidRecipient, event.InvalidDomain, event.InactiveMailbox:
			return Suppression{Reason: event.Bounced}, true
		}
	}
	return Suppression{}, false
}
