package api

import (
	"context"
	"time"

	"aftersend/event"
	"aftersend/manage"
	"aftersend/store"
)

// stats counts events. Values such as domains are told apart as far as they
// are frequent; the rest is one entry that is called "".
type stats struct {
	From    time.Time        `json:"from"`
	To      time.Time        `json:"to"`
	Step    string           `json:"step" enum:"hour,day" doc:"Of the series."`
	Events  int64            `json:"events"`
	Types   map[string]int64 `json:"types" doc:"Events by type."`
	Series  []statsAt        `json:"series" nullable:"false" doc:"By the hour or day in which events reached us; those without any are left out."`
	Sources []statsSource    `json:"sources" nullable:"false"`
	Domains []statsDomain    `json:"domains" nullable:"false" doc:"Of recipients, in events on the fate of messages; the most frequent first, the others together as \"\" last."`
	Codes   []statsCode      `json:"codes" nullable:"false" doc:"Why messages failed or were deferred, as the mail server said it; likewise."`
	ToFinal toFinal          `json:"time_to_final" doc:"How long messages took from the first word on them to the final one."`
}

type statsAt struct {
	At    time.Time        `json:"at"`
	Types map[string]int64 `json:"types"`
}

type statsSource struct {
	Source string           `json:"source"`
	ESP    string           `json:"esp"`
	Name   string           `json:"name"`
	Events int64            `json:"events"`
	Types  map[string]int64 `json:"types"`
}

type statsDomain struct {
	Domain string           `json:"domain"`
	Events int64            `json:"events"`
	Types  map[string]int64 `json:"types"`
}

type statsCode struct {
	Code   string           `json:"code" example:"550 5.1.1"`
	Events int64            `json:"events"`
	Types  map[string]int64 `json:"types"`
}

type toFinal struct {
	Messages int64         `json:"messages"`
	P50      *int64        `json:"p50_seconds" doc:"Half of them took at most so long; null: longer than is told apart, or there are none."`
	P90      *int64        `json:"p90_seconds"`
	P99      *int64        `json:"p99_seconds"`
	Buckets  []finalBucket `json:"buckets" nullable:"false"`
}

type finalBucket struct {
	UpTo     *int64 `json:"up_to_seconds" doc:"null: longer than the ones before."`
	Messages int64  `json:"messages"`
}

type statsInput struct {
	From   time.Time `query:"from" doc:"Whole hours. Default: seven days before to."`
	To     time.Time `query:"to" doc:"Not included. Default: the end of this hour."`
	Source string    `query:"source" doc:"src_…"`
}

type statsOutput struct{ Body stats }

// How far back counts go, and up to which span the series is by the hour.
const (
	maxStatsSpan  = 92 * 24 * time.Hour
	hourlyStats   = 3 * 24 * time.Hour
	defaultPeriod = 7 * 24 * time.Hour
)

func (v *v1) getStats(ctx context.Context, sc manage.Scope, in *statsInput) (*statsOutput, error) {
	f := store.StatsFilter{From: in.From.UTC().Truncate(time.Hour), To: in.To.UTC().Truncate(time.Hour), Step: 24 * time.Hour}
	if in.To.IsZero() {
		f.To = v.manage.Now().UTC().Truncate(time.Hour).Add(time.Hour)
	}
	if in.From.IsZero() {
		f.From = f.To.Add(-defaultPeriod)
	}
	if !f.From.Before(f.To) || f.To.Sub(f.From) > maxStatsSpan {
		return nil, badParam("query.from", "want an hour before to, and at most 92 days before")
	}
	if f.To.Sub(f.From) <= hourlyStats {
		f.Step = time.Hour
	}
	var err error
	if f.Source, err = sourceParam(in.Source); err != nil {
		return nil, err
	}
	s, err := v.store.Stats(ctx, sc.Account, f)
	if err != nil {
		return nil, err
	}
	return &statsOutput{statsView(f, s)}, nil
}

func statsView(f store.StatsFilter, s store.Stats) stats {
	out := stats{
		From: f.From, To: f.To, Step: "day", Events: s.Outcomes.Total(), Types: typesView(s.Outcomes),
		Series: []statsAt{}, Sources: []statsSource{}, Domains: []statsDomain{}, Codes: []statsCode{},
		ToFinal: toFinalView(s.ToFinal),
	}
	if f.Step == time.Hour {
		out.Step = "hour"
	}
	for _, at := range s.Series {
		out.Series = append(out.Series, statsAt{at.At, typesView(at.Outcomes)})
	}
	for _, of := range s.Sources {
		out.Sources = append(out.Sources, statsSource{of.Value, of.ESP, of.Name, of.Total(), typesView(of.Outcomes)})
	}
	for _, of := range s.Domains {
		out.Domains = append(out.Domains, statsDomain{of.Value, of.Total(), typesView(of.Outcomes)})
	}
	for _, of := range s.Codes {
		out.Codes = append(out.Codes, statsCode{of.Value, of.Total(), typesView(of.Outcomes)})
	}
	return out
}

func typesView(o map[event.Type]int64) map[string]int64 {
	out := make(map[string]int64, len(o))
	for t, n := range o {
		out[string(t)] = n
	}
	return out
}

func toFinalView(buckets []int64) toFinal {
	out := toFinal{Buckets: make([]finalBucket, len(buckets))}
	for i, n := range buckets {
		out.Messages += n
		out.Buckets[i] = finalBucket{bucketBound(i), n}
	}
	out.P50, out.P90, out.P99 = percentile(buckets, out.Messages, 50), percentile(buckets, out.Messages, 90), percentile(buckets, out.Messages, 99)
	return out
}

func bucketBound(i int) *int64 {
	if i == len(store.FinalBuckets) {
		return nil
	}
	return &store.FinalBuckets[i]
}

// percentile is the bound of the bucket that holds it.
func percentile(buckets []int64, total, percent int64) *int64 {
	var sum int64
	for i, n := range buckets {
		if sum += n; total > 0 && sum*100 >= total*percent {
			return bucketBound(i)
		}
	}
	return nil
}
