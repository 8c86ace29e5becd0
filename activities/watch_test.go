package activities_test

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/activities"
	"aftersend/id"
	"aftersend/store/storetest"
	"aftersend/watch"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	now := time.Date(2026, 3, 4, 12, 30, 0, 0, time.UTC)
	until := now.Truncate(time.Hour)
	exec := func(statement string, args ...any) {
		t.Helper()
		_, err := h.db.Exec(statement, args...)
		require.NoError(t, err)
	}
	exec(`update sources set name = 'shop' where id = $1`, h.sources[0])
	// A steady source, one that stopped, a new one; one domain that accepts, one that began to refuse.
	for i, quiet := range []string{"0 hours", "1 hour", "99 days"} {
		exec(`insert into volume (source_id, hour, type, events)
			select $1, t, 'delivered', 500 from generate_series($2::timestamptz - interval '30 days', $2::timestamptz - interval '1 hour' - $3::interval, interval '1 hour') t`,
			h.sources[i], until, quiet)
	}
	exec(`insert into tallies (source_id, hour, kind, value, type, events)
		select $1, t, 'd', d, y, case when y = 'delivered' then 90 when d = 'bad.example' and t = $2::timestamptz - interval '1 hour' then 80 else 2 end
		from generate_series($2::timestamptz - interval '9 days', $2::timestamptz - interval '1 hour', interval '1 hour') t,
		     unnest('{good.example,bad.example}'::text[]) d, unnest('{delivered,bounced}'::text[]) y`, h.sources[0], until)

	var log bytes.Buffer
	w := &activities.Watch{
		Store: h.store, PublicURL: "https://in.example.com", Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Settings: watch.Settings{DropBelow: 0.2, DropEvents: 100, SilentEvents: 20, FailureShare: 0.2, FailureRise: 3, FailureEvents: 50},
	}
	type notice struct {
		Kind    string
		Subject string
		Source  *id.ID `db:"source_id"`
	}
	notices := func() (all []notice) {
		require.NoError(t, w.Watch(t.Context()))
		require.NoError(t, h.db.Select(&all, `select kind, subject, source_id from notices where account_id = $1 order by kind, created_at`, h.account))
		return all
	}
	want := []notice{
		{"domain_failing", "Messages to bad.example fail far more than usual", nil},
		{"source_silent", `Source "f" has fallen silent`, &h.sources[1]},
	}
	require.Equal(t, want, notices())
	require.Equal(t, want, notices(), "once per outage")
	require.NotContains(t, log.String(), "bad.example")

	// An hour later the domain accepts again and the source is back, but with little.
	now = now.Add(time.Hour)
	exec(`insert into volume (source_id, hour, type, events) values ($1, $3, 'delivered', 500), ($2, $3, 'delivered', 50)`, h.sources[0], h.sources[1], until)
	exec(`insert into tallies (source_id, hour, kind, value, type, events) values ($1, $2, 'd', 'bad.example', 'delivered', 90)`, h.sources[0], until)
	want = append(want, notice{})
	copy(want[2:], want[1:])
	want[1] = notice{"source_dropped", `Source "f" tells far less than usual`, &h.sources[1]}
	require.Equal(t, want, notices())
	require.Equal(t, 1, h.count(`select count(*) from outages where ended_at is null`), "the domain is well")

	// Then all is well. What comes and goes within a day is one outage …
	pass := func(hours int, sources ...id.ID) {
		t.Helper()
		for range hours {
			hour := now.Truncate(time.Hour)
			for _, source := range sources {
				exec(`insert into volume (source_id, hour, type, events) values ($1, $2, 'delivered', 500)`, source, hour)
			}
			exec(`insert into tallies (source_id, hour, kind, value, type, events) values ($1, $2, 'd', 'bad.example', 'delivered', 90)`, h.sources[0], hour)
			now = now.Add(time.Hour)
		}
	}
	pass(2, h.sources[0], h.sources[1])
	require.Equal(t, want, notices())
	require.Zero(t, h.count(`select count(*) from outages where ended_at is null`))
	pass(1, h.sources[0])
	require.Equal(t, want, notices())
	require.Equal(t, 1, h.count(`select count(*) from outages where ended_at is null`))

	// … and after a day that was well it is another one.
	pass(1, h.sources[0], h.sources[1])
	require.Equal(t, want, notices())
	pass(25, h.sources[0], h.sources[1])
	require.Equal(t, want, notices())
	pass(1, h.sources[0])
	require.Len(t, notices(), 4)

	// What waits to be processed is not counted yet: nobody is blamed for it.
	now = now.Add(time.Hour)
	g := h.post("{}")
	exec(`update groups set created_at = now() - interval '1 hour' where id = $1`, g)
	require.Len(t, notices(), 4)
	require.Contains(t, log.String(), "wait to be processed")
}
