// Package watch decides, from counts alone, whether something is wrong: a
// source that tells far less than it usually does at these hours, and a
// recipient domain where far more fails than usual. It compares each with its
// own past and knows no absolute norm.
//
// It does no I/O and imports the standard library only. Whom to tell, and how
// often, is decided elsewhere.
package watch

import (
	"slices"
	"time"
)

// Settings are the thresholds.
type Settings struct {
	DropBelow     float64 // of what is usual: less is a drop; 0..1
	DropEvents    int64   // so many must be usual in a window to speak of a drop
	SilentEvents  int64   // so many must be usual in a window to speak of silence
	FailureShare  float64 // of the messages that met their fate; less failing is never a fault; 0..1
	FailureRise   float64 // times what is usual
	FailureEvents int64   // so many must have met their fate in a window
}

// State is what was decided.
type State string

// The states. Unsure neither begins nor ends an outage: too little to go by,
// or between well and not.
const (
	Unsure  State = ""
	Well    State = "well"
	Silent  State = "silent"  // nothing came that usually does
	Dropped State = "dropped" // far less came than usual
	Failing State = "failing" // far more failed than usual
)

// Windows are the last full hours that are looked at: the shortest one that
// says enough counts, so that large sources are seen to within the hour and
// small ones within a day.
var Windows = []int{1, 3, 6, 24}

const (
	day  = 24
	week = 7 * day
)

// History is how many hours Volume looks back, at most.
const History = 4*week + day

// VolumeVerdict is what Volume decided and on what grounds.
type VolumeVerdict struct {
	State  State
	Window time.Duration
	Events int64 // in the window
	Usual  int64 // in such a window
}

// Volume judges a source by its events per hour: hours[0] is the last full
// hour, the last one is when it began. What is usual is what came at the same
// hours of the last seven days, or of the same weekday in the last four weeks,
// whichever is less. So weekends, or campaigns that come every other week, are
// no outage, and a source younger than a week is not judged.
func Volume(hours []int64, s Settings) VolumeVerdict {
	for _, w := range Windows {
		usual, ok := usual(hours, w)
		v := VolumeVerdict{Window: time.Duration(w) * time.Hour, Usual: usual}
		if !ok {
			continue
		}
		v.Events = sum(hours[:w])
		switch {
		case v.Events == 0 && usual >= s.SilentEvents:
			v.State = Silent
		case usual < s.DropEvents:
			continue
		case float64(v.Events) < s.DropBelow*float64(usual):
			v.State = Dropped
		case float64(v.Events) >= recovered(s.DropBelow)*float64(usual):
			v.State = Well
		}
		return v
	}
	return VolumeVerdict{}
}

// recovered is the share of the usual at which a drop is over: half-way from
// where it begins to all of it, so that it does not flicker.
func recovered(dropBelow float64) float64 { return (dropBelow + 1) / 2 }

// usual is what came in windows like the last one; false when there are too few.
func usual(hours []int64, w int) (int64, bool) {
	var daily, weekly []int64
	for at := day; at+w <= min(len(hours), History); at += day {
		if at <= week {
			daily = append(daily, sum(hours[at:at+w]))
		}
		if at%week == 0 {
			weekly = append(weekly, sum(hours[at:at+w]))
		}
	}
	if len(daily) < 7 {
		return 0, false
	}
	return min(median(daily), median(weekly)), true
}

// Fate counts messages that met their fate: accepted by the domain's servers,
// or bounced, failed or put off.
type Fate struct {
	Good, Bad int64
}

func (f Fate) total() int64 { return f.Good + f.Bad }

func (f Fate) share() float64 { return float64(f.Bad) / float64(f.total()) }

// FailureVerdict is what Failures decided and on what grounds.
type FailureVerdict struct {
	State  State
	Window time.Duration
	Fate   Fate    // in the window
	Share  float64 // of it that failed
	Usual  float64 // what usually does
}

// What a day must hold to tell what is usual, and how many such days it takes.
// Where almost everything fails, nothing can rise: ESPs that tell of failures
// only look like that.
const (
	dayTells    = 20
	daysTell    = 3
	alwaysFails = 0.8
)

// Days is how many days Failures looks back, not counting the last one.
const Days = 7

// Failures judges a recipient domain by the fate of messages to it: hours are
// the last full hours, the newest first, up to a day; days are the days before
// those, the newest first. What is usual is the median of the days, so that an
// outage of a day or two does not become usual.
func Failures(hours, days []Fate, s Settings) FailureVerdict {
	var shares []float64
	for _, d := range days {
		if d.total() >= dayTells {
			shares = append(shares, d.share())
		}
	}
	if len(shares) < daysTell {
		return FailureVerdict{}
	}
	usual := median(shares)
	if usual > alwaysFails {
		return FailureVerdict{}
	}
	for _, w := range Windows {
		var f Fate
		for _, h := range hours[:min(w, len(hours))] {
			f.Good += h.Good
			f.Bad += h.Bad
		}
		if f.total() < max(s.FailureEvents, 1) {
			continue
		}
		v := FailureVerdict{Window: time.Duration(w) * time.Hour, Fate: f, Share: f.share(), Usual: usual}
		// Half-way to everything is far more than usual, whatever the factor.
		fails := max(s.FailureShare, min(usual*s.FailureRise, (1+usual)/2))
		switch {
		case v.Share >= fails:
			v.State = Failing
		case v.Share <= (usual+fails)/2:
			v.State = Well
		}
		return v
	}
	return FailureVerdict{}
}

func sum(all []int64) (n int64) {
	for _, x := range all {
		n += x
	}
	return n
}

// median of an even number is the lower of the two in the middle.
func median[T int64 | float64](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)/2]
}
