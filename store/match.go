package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"aftersend/correlate"
	"aftersend/event"
	"aftersend/id"
)

// Asynchronous bounces that name no message. correlate.Guess decides; here is
// what it decides on. A bounce for which nothing is found keeps a message of its
// own, marked MatchNone, and LinkBounces looks again while something may still
// turn up: the delivery may be told later, or by a group that runs beside.

// unmatched is such a bounce.
type unmatched struct {
	account   id.ID
	recipient string
	at        time.Time
}

// maxCandidates is how many of a recipient's latest messages are looked at.
// With more than that in ten days no guess would be one.
const maxCandidates = 100

// messageAge is how long before a bounce its message can have begun: delivered
// up to correlate.GuessWindow ago, after as long in some queue, and a day.
const messageAge = 2*correlate.GuessWindow + 24*time.Hour

// candidates returns, for each bounce, the messages to its recipient that it
// may be about.
func candidates(ctx context.Context, tx sqlx.QueryerContext, bounces []unmatched) ([][]correlate.Candidate, error) {
	rows, err := tx.QueryContext(ctx, `
		select x.n, m.id, m.state
		from   unnest($1::uuid[], $2::text[], $3::uuid[]) with ordinality x(account_id, recipient, since, n)
		cross  join lateral (
			select id, state from messages
			where  account_id = x.account_id and recipient = x.recipient and id >= x.since and match <> 'none'
			order  by id desc
			limit  $4) m`,
		array(oidUUID, bounces, func(dst []byte, b *unmatched) []byte { return appendUUID(dst, b.account) }),
		array(oidText, bounces, func(dst []byte, b *unmatched) []byte { return append(dst, b.recipient...) }),
		array(oidUUID, bounces, func(dst []byte, b *unmatched) []byte { return appendUUID(dst, id.Floor(b.at.Add(-messageAge))) }),
		maxCandidates)
	if err != nil {
		return nil, fmt.Errorf("look for the messages of %d bounces: %w", len(bounces), err)
	}
	defer rows.Close()
	all := make([][]correlate.Candidate, len(bounces))
	for rows.Next() {
		var n int
		var m correlate.Candidate
		var state []byte
		if err := rows.Scan(&n, &m.ID, &state); err != nil {
			return nil, fmt.Errorf("look for the messages of %d bounces: %w", len(bounces), err)
		}
		if m.Message, err = correlate.Decode(state); err != nil {
			return nil, fmt.Errorf("message %s: %w", id.Message.Format(m.ID), err)
		}
		all[n-1] = append(all[n-1], m)
	}
	for i := range all {
		if len(all[i]) == maxCandidates {
			all[i] = nil
		}
	}
	return all, rows.Err()
}

// guess finds messages for asynchronous bounces that name none, or marks them
// as without.
func (c *correlation) guess() error {
	var bounces []unmatched
	var at []int
	for i := range c.Events {
		e := &c.Events[i]
		if c.stories[i] != nil && len(e.Keys) == 0 && correlate.Guessable(e.Event) {
			bounces = append(bounces, unmatched{e.Account, correlate.Recipient(e.Event), e.Event.EffectiveAt()})
			at = append(at, i)
		}
	}
	if len(bounces) == 0 {
		return nil
	}
	found, err := candidates(c.ctx, c.tx, bounces)
	if err != nil {
		return err
	}
	byMessage := map[id.ID]*story{}
	for _, s := range c.roots() {
		for _, m := range s.found {
			byMessage[m] = s
		}
	}
	c.guesses = make(map[int]string, len(bounces))
	for k, i := range at {
		s := c.stories[i]
		message, ok := correlate.Guess(bounces[k].at, found[k])
		if !ok {
			c.guesses[i], s.match = event.MatchNone, event.MatchNone
			c.guessed = append(c.guessed, s)
			continue
		}
		c.guesses[i] = event.MatchLikely
		if known := byMessage[message]; known != nil {
			known.join(s)
		} else {
			s.id, s.found, byMessage[message] = message, []id.ID{message}, s
		}
		s = s.root()
		s.match = event.MatchLikely
		c.guessed = append(c.guessed, s)
	}
	return nil
}

// noteMatches writes down how sure it is that messages are one. It is an update
// of its own since hardly any group has one to note.
func (c *correlation) noteMatches() error {
	for _, s := range c.guessed {
		if _, err := c.tx.ExecContext(c.ctx, `update messages set match = $2 where id = $1`, s.id, s.match); err != nil {
			return fmt.Errorf("note match of %s: %w", id.Message.Format(s.id), err)
		}
	}
	return nil
}

// LinkBounces looks again for the messages of bounces that found none, those
// after the message named first, and joins both stories where there is just one
// that can be meant. It returns the last bounce it looked at, nil when there are
// no more.
func (s *Store) LinkBounces(ctx context.Context, now time.Time, after id.ID, limit int) (linked int, last id.ID, err error) {
	var rows []struct {
		ID        id.ID  `db:"id"`
		Account   id.ID  `db:"account_id"`
		Recipient string `db:"recipient"`
		State     []byte `db:"state"`
	}
	err = s.db.SelectContext(ctx, &rows, `
		select id, account_id, recipient, state from messages
		where  match = 'none' and id > $1 and id >= $2 order by id limit $3`,
		after, id.Floor(now.Add(-correlate.GuessWindow-24*time.Hour)), limit)
	if err != nil || len(rows) == 0 {
		return 0, id.Nil, err
	}
	bounces := make([]unmatched, len(rows))
	for i, r := range rows {
		m, err := correlate.Decode(r.State)
		if err != nil {
			return 0, id.Nil, fmt.Errorf("message %s: %w", id.Message.Format(r.ID), err)
		}
		bounces[i] = unmatched{r.Account, r.Recipient, m.Facts().StatusAt}
	}
	found, err := candidates(ctx, s.db, bounces)
	if err != nil {
		return 0, id.Nil, err
	}
	for i, r := range rows {
		message, ok := correlate.Guess(bounces[i].at, found[i])
		if !ok {
			continue
		}
		switch err := s.link(ctx, r.ID, message); {
		case errors.Is(err, errMerged): // another sweeper was faster; the next round will show
		case err != nil:
			return linked, id.Nil, err
		default:
			linked++
		}
	}
	if len(rows) < limit {
		return linked, id.Nil, nil
	}
	return linked, rows[len(rows)-1].ID, nil
}

// link makes two messages the lower one.
func (s *Store) link(ctx context.Context, a, b id.ID) error {
	low, high := a, b
	if compareID(low, high) > 0 {
		low, high = high, low
	}
	what := fmt.Sprintf("link %s and %s", id.Message.Format(low), id.Message.Format(high))
	return s.inTx(ctx, what, func(tx *sqlx.Tx) error {
		both := &story{id: low, found: []id.ID{low, high}, first: new(NewEvent), match: event.MatchLikely}
		c := correlation{ctx: ctx, tx: tx, stories: []*story{both}, guessed: []*story{both}}
		for _, do := range []func() error{c.lockMessages, c.updateMessages, c.noteMatches} {
			if err := do(); err != nil {
				return err
			}
		}
		return nil
	})
}
