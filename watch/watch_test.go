package watch_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/watch"
)

var settings = watch.Settings{DropBelow: 0.2, DropEvents: 100, SilentEvents: 20, FailureShare: 0.2, FailureRise: 3, FailureEvents: 50}

// hours makes a history of so many days; of says what came in an hour so many
// hours ago, 0 being the last full one.
func hours(days int, of func(ago int) int64) []int64 {
	all := make([]int64, days*24)
	for i := range all {
		all[i] = of(i)
	}
	return all
}

func TestVolume(t *testing.T) {
	steady := func(usual int64, recent ...int64) func(int) int64 {
		return func(ago int) int64 {
			if ago < len(recent) {
				return recent[ago]
			}
			return usual
		}
	}
	// Now is the end of a Saturday; weekdays have more.
	weekdays := func(saturday int64) func(int) int64 {
		return func(ago int) int64 {
			switch d := ago / 24; {
			case d == 0:
				return saturday
			case d%7 == 0 || d%7 == 6:
				return 10
			}
			return 1000
		}
	}
	for name, c := range map[string]struct {
		hours  []int64
		state  watch.State
		window int
	}{
		"nothing is known":                {nil, watch.Unsure, 0},
		"younger than a week":             {hours(6, steady(1000, 0)), watch.Unsure, 0},
		"as ever":                         {hours(29, steady(1000)), watch.Well, 1},
		"as ever, but young":              {hours(8, steady(1000)), watch.Well, 1},
		"a bit less":                      {hours(29, steady(1000, 700)), watch.Well, 1},
		"half of it may go either way":    {hours(29, steady(1000, 500)), watch.Unsure, 1},
		"far less":                        {hours(29, steady(1000, 199)), watch.Dropped, 1},
		"just not far less":               {hours(29, steady(1000, 200)), watch.Unsure, 1},
		"nothing":                         {hours(29, steady(1000, 0)), watch.Silent, 1},
		"more than ever":                  {hours(29, steady(1000, 50_000)), watch.Well, 1},
		"few an hour, nothing in three":   {hours(29, steady(10, 0, 0, 0)), watch.Silent, 3},
		"few an hour, nothing in one":     {hours(29, steady(10, 0)), watch.Well, 24},
		"few an hour, less for a day":     {hours(29, func(ago int) int64 { return map[bool]int64{true: 1, false: 10}[ago < 24] }), watch.Dropped, 24},
		"hardly any":                      {hours(29, steady(0)), watch.Unsure, 0},
		"a handful a day":                 {hours(29, func(ago int) int64 { return map[bool]int64{true: 5}[ago%24 == 3 && ago > 24] }), watch.Unsure, 0},
		"a weekend":                       {hours(29, weekdays(10)), watch.Well, 24},
		"a dead weekend":                  {hours(29, weekdays(0)), watch.Silent, 3},
		"a campaign every other week":     {hours(29, func(ago int) int64 { return map[bool]int64{true: 9000}[ago%336 >= 168 && ago%336 < 192] }), watch.Unsure, 0},
		"the same hours last week failed": {hours(29, func(ago int) int64 { return map[bool]int64{true: 0, false: 1000}[ago == 0 || ago == 168] }), watch.Silent, 1},
		"three days of silence":           {hours(29, func(ago int) int64 { return map[bool]int64{true: 0, false: 1000}[ago < 72] }), watch.Silent, 1},
		"a week of silence is a habit":    {hours(29, func(ago int) int64 { return map[bool]int64{true: 0, false: 1000}[ago < 200] }), watch.Unsure, 0},
		"nights are quiet, so is this":    {hours(29, func(ago int) int64 { return map[bool]int64{true: 0, false: 1000}[ago%24 < 8] }), watch.Well, 24},
	} {
		got := watch.Volume(c.hours, settings)
		require.Equal(t, c.state, got.State, "%s: %+v", name, got)
		require.Equal(t, time.Duration(c.window)*time.Hour, got.Window, name)
	}
	require.Equal(t, watch.VolumeVerdict{State: watch.Dropped, Window: time.Hour, Events: 12, Usual: 1000}, watch.Volume(hours(29, steady(1000, 12)), settings))
}

func TestFailures(t *testing.T) {
	same := func(n int, f watch.Fate) []watch.Fate {
		all := make([]watch.Fate, n)
		for i := range all {
			all[i] = f
		}
		return all
	}
	usual := same(7, watch.Fate{Good: 2000, Bad: 40}) // 2 %
	for name, c := range map[string]struct {
		hours, days []watch.Fate
		state       watch.State
		window      int
	}{
		"nothing is known":                {same(24, watch.Fate{Bad: 100}), nil, watch.Unsure, 0},
		"hardly anything is known":        {same(24, watch.Fate{Bad: 100}), same(7, watch.Fate{Good: 10}), watch.Unsure, 0},
		"as ever":                         {same(24, watch.Fate{Good: 90, Bad: 2}), usual, watch.Well, 1},
		"a bad hour":                      {same(1, watch.Fate{Good: 30, Bad: 30}), usual, watch.Failing, 1},
		"all of it":                       {same(24, watch.Fate{Bad: 100}), usual, watch.Failing, 1},
		"three times usual, and little":   {same(24, watch.Fate{Good: 93, Bad: 7}), usual, watch.Well, 1},
		"not quite bad":                   {same(24, watch.Fate{Good: 85, Bad: 15}), usual, watch.Unsure, 1},
		"few an hour":                     {same(24, watch.Fate{Good: 2, Bad: 8}), usual, watch.Failing, 6},
		"too few all day":                 {same(24, watch.Fate{Bad: 2}), usual, watch.Unsure, 0},
		"much fails always":               {same(24, watch.Fate{Good: 60, Bad: 40}), same(7, watch.Fate{Good: 600, Bad: 400}), watch.Well, 1},
		"much fails always, now far more": {same(24, watch.Fate{Good: 20, Bad: 80}), same(7, watch.Fate{Good: 600, Bad: 400}), watch.Failing, 1},
		"only failures are told of":       {same(24, watch.Fate{Bad: 100}), same(7, watch.Fate{Bad: 1000}), watch.Unsure, 0},
		"the second day of it":            {same(24, watch.Fate{Good: 10, Bad: 90}), append(same(2, watch.Fate{Good: 100, Bad: 900}), usual[:5]...), watch.Failing, 1},
	} {
		got := watch.Failures(c.hours, c.days, settings)
		require.Equal(t, c.state, got.State, "%s: %+v", name, got)
		require.Equal(t, time.Duration(c.window)*time.Hour, got.Window, name)
	}
}
