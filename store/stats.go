package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"aftersend/event"
	"aftersend/id"
)

// StatsFilter says which events are counted: those that reached us in the
// hours from From, inclusive, to To, exclusive.
type StatsFilter struct {
	From, To time.Time
	Step     time.Duration // of Stats.Series: an hour or a day
	Source   id.ID         // nil = all of the account
}

// Outcomes counts events by type.
type Outcomes map[event.Type]int64

// Total is how many there are.
func (o Outcomes) Total() (n int64) {
	for _, events := range o {
		n += events
	}
	return n
}

// Stats are an account's events, counted in several ways. Lists go from the
// most to the fewest.
type Stats struct {
	Outcomes Outcomes
	Series   []StatsAt // by time; steps in which nothing came are left out
	Sources  []StatsOf // Value is the id, Name and ESP are set
	Domains  []StatsOf // of recipients
	Codes    []StatsOf // of failures
	// ToFinal counts messages by the seconds between the first word on them
	// and the final one: one bucket for each of FinalBuckets and one beyond.
	ToFinal []int64
}

// StatsAt counts the events of one step.
type StatsAt struct {
	At time.Time
	Outcomes
}

// StatsOf counts the events of one source, domain or code. Of domains and
// codes beyond the most frequent ones Value is OtherValue; they come last.
type StatsOf struct {
	Value, Name, ESP string
	Outcomes
}

// MaxStatsValues is how many domains and codes Stats tells apart.
const MaxStatsValues = 100

// Stats counts an account's events.
func (s *Store) Stats(ctx context.Context, account id.ID, f StatsFilter) (Stats, error) {
	out := Stats{Outcomes: Outcomes{}, ToFinal: make([]int64, len(FinalBuckets)+1)}
	if err := s.statsVolume(ctx, account, f, &out); err != nil {
		return Stats{}, fmt.Errorf("count events: %w", err)
	}
	if err := s.statsTallies(ctx, account, f, &out); err != nil {
		return Stats{}, fmt.Errorf("count events by value: %w", err)
	}
	return out, nil
}

func (s *Store) statsVolume(ctx context.Context, account id.ID, f StatsFilter, out *Stats) error {
	var rows []struct {
		Source id.ID      `db:"id"`
		ESP    string     `db:"esp"`
		Name   string     `db:"name"`
		At     time.Time  `db:"at"`
		Type   event.Type `db:"type"`
		Events int64      `db:"events"`
	}
	err := s.db.SelectContext(ctx, &rows, `
		select s.id, s.esp, s.name, date_bin($5 * interval '1 second', v.hour, '2000-01-01Z') as at, v.type, sum(v.events)::bigint as events
		from   sources s
		join   volume v on v.source_id = s.id and v.hour >= $2 and v.hour < $3
		where  s.account_id = $1 and ($4::uuid is null or s.id = $4)
		group  by s.id, s.esp, s.name, 4, v.type
		order  by at, s.id`, account, f.From, f.To, nullID(f.Source), f.Step.Seconds())
	if err != nil {
		return err
	}
	bySource := map[id.ID]*StatsOf{}
	for _, r := range rows {
		out.Outcomes[r.Type] += r.Events
		if n := len(out.Series); n == 0 || !out.Series[n-1].At.Equal(r.At) {
			out.Series = append(out.Series, StatsAt{r.At.UTC(), Outcomes{}})
		}
		out.Series[len(out.Series)-1].Outcomes[r.Type] += r.Events
		if bySource[r.Source] == nil {
			bySource[r.Source] = &StatsOf{Value: id.Source.Format(r.Source), Name: r.Name, ESP: r.ESP, Outcomes: Outcomes{}}
		}
		bySource[r.Source].Outcomes[r.Type] += r.Events
	}
	for _, of := range bySource {
		out.Sources = append(out.Sources, *of)
	}
	mostFirst(out.Sources)
	return nil
}

func (s *Store) statsTallies(ctx context.Context, account id.ID, f StatsFilter, out *Stats) error {
	var rows []struct {
		Kind   string     `db:"kind"`
		Value  string     `db:"value"`
		Type   event.Type `db:"type"`
		Events int64      `db:"events"`
	}
	err := s.db.SelectContext(ctx, &rows, `
		select t.kind::text, t.value, t.type, sum(t.events)::bigint as events
		from   sources s
		join   tallies t on t.source_id = s.id and t.hour >= $2 and t.hour < $3
		where  s.account_id = $1 and ($4::uuid is null or s.id = $4)
		group  by t.kind, t.value, t.type`, account, f.From, f.To, nullID(f.Source))
	if err != nil {
		return err
	}
	values := map[TallyKind]map[string]Outcomes{ByDomain: {}, ByCode: {}}
	for _, r := range rows {
		kind := TallyKind(r.Kind[0])
		if kind == ByTime {
			out.ToFinal[bucketAt(r.Value)] += r.Events
			continue
		}
		if values[kind][r.Value] == nil {
			values[kind][r.Value] = Outcomes{}
		}
		values[kind][r.Value][r.Type] += r.Events
	}
	out.Domains, out.Codes = mostOf(values[ByDomain]), mostOf(values[ByCode])
	return nil
}

// bucketAt is the place of a bucket's value in FinalBuckets.
func bucketAt(value string) int {
	upTo, err := strconv.ParseInt(value, 10, 64)
	i, ok := slices.BinarySearch(FinalBuckets, upTo)
	if err != nil || !ok {
		return len(FinalBuckets)
	}
	return i
}

// mostOf sorts values and makes one of those beyond MaxStatsValues.
func mostOf(values map[string]Outcomes) []StatsOf {
	others := StatsOf{Value: OtherValue, Outcomes: Outcomes{}}
	var all []StatsOf
	for value, outcomes := range values {
		if value == OtherValue {
			others.Outcomes = outcomes
			continue
		}
		all = append(all, StatsOf{Value: value, Outcomes: outcomes})
	}
	mostFirst(all)
	for _, of := range all[min(len(all), MaxStatsValues):] {
		for t, n := range of.Outcomes {
			others.Outcomes[t] += n
		}
	}
	all = all[:min(len(all), MaxStatsValues)]
	if len(others.Outcomes) > 0 {
		all = append(all, others)
	}
	return all
}

func mostFirst(all []StatsOf) {
	slices.SortFunc(all, func(a, b StatsOf) int {
		return cmp.Or(cmp.Compare(b.Total(), a.Total()), cmp.Compare(a.Value, b.Value))
	})
}

// TrimTallies removes counts of hours before a time.
func (s *Store) TrimTallies(ctx context.Context, before time.Time) error {
	if _, err := s.db.ExecContext(ctx, `delete from tallies where hour < $1`, before); err != nil {
		return fmt.Errorf("trim tallies: %w", err)
	}
	return nil
}
