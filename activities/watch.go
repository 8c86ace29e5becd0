package activities

import (
	"context"
	"log/slog"
	"time"

	"aftersend/id"
	"aftersend/notify"
	"aftersend/store"
	"aftersend/watch"
)

// Watch holds the activity that looks for sources that fall silent and for
// recipient domains that refuse. Use it by pointer; safe for concurrent use.
type Watch struct {
	Store     *store.Store
	Settings  watch.Settings
	PublicURL string // of this installation
	Now       func() time.Time
	Log       *slog.Logger
}

// Bounds of a watch.
const (
	// watchBehind: while callbacks of this age are not processed, counts are
	// too low to judge by. The fault is ours then, and shown elsewhere.
	watchBehind   = 15 * time.Minute
	outageUnseen  = 7 * 24 * time.Hour
	outageSettled = 24 * time.Hour
	talliesKept   = 93 * 24 * time.Hour
)

// Kinds of notices of the watch.
const (
	NoticeSourceSilent  = "source_silent"
	NoticeSourceDropped = "source_dropped"
	NoticeDomainFailing = "domain_failing"
)

// Watch judges every source and recipient domain by the last full hours and
// writes a notice, once per outage, where something is wrong.
func (w *Watch) Watch(ctx context.Context) error {
	until := w.Now().UTC().Truncate(time.Hour)
	if err := w.Store.TrimTallies(ctx, until.Add(-talliesKept)); err != nil {
		return err
	}
	behind, err := w.Store.Behind(ctx, watchBehind)
	if err != nil {
		return err
	}
	if behind {
		w.Log.WarnContext(ctx, "sources and domains not judged: callbacks wait to be processed")
		return nil
	}
	open, err := w.open(ctx)
	if err != nil {
		return err
	}
	if err := w.sources(ctx, until, open); err != nil {
		return err
	}
	if err := w.domains(ctx, until, open); err != nil {
		return err
	}
	return w.Store.EndOldOutages(ctx, w.Now(), outageUnseen)
}

func (w *Watch) open(ctx context.Context) (map[store.Outage]bool, error) {
	all, err := w.Store.OpenOutages(ctx)
	open := make(map[store.Outage]bool, len(all))
	for _, o := range all {
		open[o] = true
	}
	return open, err
}

func (w *Watch) sources(ctx context.Context, until time.Time, open map[store.Outage]bool) error {
	all, err := w.Store.WatchedSources(ctx, until, watch.History)
	if err != nil {
		return err
	}
	for _, of := range all {
		v := watch.Volume(of.Hours, w.Settings)
		notice := notify.Quiet{
			Source: id.Source.Format(of.Source), Name: of.Name, ESP: of.ESP, Silent: v.State == watch.Silent,
			Window: v.Window, Until: until, Events: v.Events, Usual: v.Usual, PublicURL: w.PublicURL,
		}
		kind := NoticeSourceDropped
		if notice.Silent {
			kind = NoticeSourceSilent
		}
		o := store.Outage{Account: of.Account, Kind: store.OutageVolume, Source: of.Source}
		if err := w.settle(ctx, o, open[o], v.State, kind, notice.Mail); err != nil {
			return err
		}
	}
	return nil
}

func (w *Watch) domains(ctx context.Context, until time.Time, open map[store.Outage]bool) error {
	all, err := w.Store.WatchedDomains(ctx, until, watch.Days)
	if err != nil {
		return err
	}
	for _, of := range all {
		v := watch.Failures(fates(of.Hours), fates(of.Days), w.Settings)
		notice := notify.Failing{
			Domain: of.Domain, Window: v.Window, Until: until, Bad: v.Fate.Bad, Total: v.Fate.Good + v.Fate.Bad, Usual: v.Usual, PublicURL: w.PublicURL,
		}
		o := store.Outage{Account: of.Account, Kind: store.OutageFailures, Domain: of.Domain}
		if err := w.settle(ctx, o, open[o], v.State, NoticeDomainFailing, notice.Mail); err != nil {
			return err
		}
	}
	return nil
}

// settle writes down what was decided.
func (w *Watch) settle(ctx context.Context, o store.Outage, open bool, state watch.State, kind string, mail func() (subject, text string)) error {
	switch state {
	case watch.Unsure:
		return nil
	case watch.Well:
		if !open {
			return nil
		}
		w.Log.InfoContext(ctx, "outage over", "kind", o.Kind, "account", id.Account.Format(o.Account), "source", id.Source.Format(o.Source))
		return w.Store.OutageOver(ctx, o, w.Now())
	}
	if !open {
		w.Log.WarnContext(ctx, "outage begins", "kind", kind, "account", id.Account.Format(o.Account), "source", id.Source.Format(o.Source))
	}
	subject, text := mail()
	return w.Store.OutageGoesOn(ctx, o, w.Now(), outageSettled, kind, subject, text)
}

func fates(all []store.Fate) []watch.Fate {
	out := make([]watch.Fate, len(all))
	for i, f := range all {
		out[i] = watch.Fate(f)
	}
	return out
}
