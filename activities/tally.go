package activities

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
)

// How many recipient domains and codes of one account are told apart in a day,
// by each process. Those that matter come often, so they are among the first.
const (
	maxDomains = 500
	maxCodes   = 200
)

// tally counts events by what people ask for besides their type.
func (p *Processing) tally(events []store.StoredEvent) map[store.TallyKey]int {
	counts := map[store.TallyKey]int{}
	for i := range events {
		e := &events[i]
		key := store.TallyKey{Source: e.Source, Hour: e.Event.ReceivedAt.UTC().Truncate(time.Hour), Type: e.Event.Type}
		add := func(kind store.TallyKind, value string) {
			key.Kind, key.Value = kind, value
			counts[key]++
		}
		if domain, ok := domainOf(e.Event); ok {
			add(store.ByDomain, p.known.admit(e.Account, store.ByDomain, key.Hour, domain, maxDomains))
		}
		if code := codeOf(e.Event); code != "" {
			add(store.ByCode, p.known.admit(e.Account, store.ByCode, key.Hour, code, maxCodes))
		}
		if seconds, ok := secondsToFinal(e); ok {
			add(store.ByTime, bucketOf(seconds))
		}
	}
	return counts
}

// domainOf is the recipient's domain of an event about the fate of a message;
// what a person does with it later says nothing about the domain.
func domainOf(e *event.Event) (string, bool) {
	switch e.Type {
	case event.Delivered, event.Deferred, event.Bounced, event.Rejected, event.Failed, event.Expired, event.Complained:
	default:
		return "", false
	}
	at := strings.LastIndexByte(e.Recipient, '@')
	if at < 0 || at == len(e.Recipient)-1 {
		return "", false
	}
	return strings.ToLower(e.Recipient[at+1:]), true
}

// codeOf is how the mail server said why a message failed.
func codeOf(e *event.Event) string {
	switch e.Type {
	case event.Deferred, event.Bounced, event.Rejected, event.Failed:
	default:
		return ""
	}
	code := e.EnhancedStatus
	if e.SMTPCode != 0 {
		code = strings.TrimSpace(strconv.Itoa(e.SMTPCode) + " " + code)
	}
	return code
}

// secondsToFinal is how long the final word took that this event says, if it
// says one.
func secondsToFinal(e *store.StoredEvent) (int64, bool) {
	if e.Said == nil || e.Said.SecondsToFinal == nil || e.Said.Status != e.Event.Type {
		return 0, false
	}
	return *e.Said.SecondsToFinal, true
}

func bucketOf(seconds int64) string {
	for _, upTo := range store.FinalBuckets {
		if seconds <= upTo {
			return strconv.FormatInt(upTo, 10)
		}
	}
	return store.OtherValue
}

// admitted remembers which values are told apart. A process that starts anew
// remembers nothing and may admit as many again: the bound is one on rows, not
// an exact one.
type admitted struct {
	mu     sync.Mutex
	day    time.Time
	values map[admittedKey]map[string]bool
}

type admittedKey struct {
	account id.ID
	kind    store.TallyKind
}

// admit returns value, or store.OtherValue when the account has so many others
// on this day.
func (a *admitted) admit(account id.ID, kind store.TallyKind, at time.Time, value string, limit int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	// What arrives late counts among those of the newest day: one set is enough.
	if day := at.Truncate(24 * time.Hour); day.After(a.day) {
		a.day, a.values = day, map[admittedKey]map[string]bool{}
	}
	key := admittedKey{account, kind}
	known := a.values[key]
	switch {
	case known[value]:
		return value
	case len(known) >= limit:
		return store.OtherValue
	case known == nil:
		known = map[string]bool{}
		a.values[key] = known
	}
	known[value] = true
	return value
}
