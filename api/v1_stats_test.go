package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
)

func TestV1Stats(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	empty := f.mine.want(t, 200, "GET", "/api/v1/stats", "")
	require.EqualValues(t, 0, empty["events"])
	require.Empty(t, empty["series"])
	require.Nil(t, empty["time_to_final"].(map[string]any)["p50_seconds"])

	sources, err := f.store.Sources(t.Context(), f.mine.scope.Account, store.Page{Limit: 2})
	require.NoError(t, err)
	hour := time.Now().UTC().Truncate(time.Hour)
	route := func(r store.Routing) {
		r.Group = id.New()
		_, err := f.store.DB().Exec(`insert into groups (id, kind, step) values ($1, 'callbacks', 'route')`, r.Group)
		require.NoError(t, err)
		_, err = f.store.RouteEvents(t.Context(), r)
		require.NoError(t, err)
	}
	key := func(source int, ago time.Duration, kind store.TallyKind, value string, of event.Type) store.TallyKey {
		return store.TallyKey{Source: sources[source].ID, Hour: hour.Add(-ago), Kind: kind, Value: value, Type: of}
	}
	for range 2 {
		route(store.Routing{
			Events: 6,
			Volume: map[store.VolumeKey]int{
				{Source: sources[0].ID, Hour: hour, Type: event.Delivered}:                     3,
				{Source: sources[0].ID, Hour: hour.Add(-30 * time.Hour), Type: event.Bounced}:  2,
				{Source: sources[1].ID, Hour: hour, Type: event.Bounced}:                       1,
				{Source: sources[1].ID, Hour: hour.Add(-400 * time.Hour), Type: event.Bounced}: 100,
			},
			Tally: map[store.TallyKey]int{
				key(0, 0, store.ByDomain, "a.example", event.Delivered):            3,
				key(0, 30*time.Hour, store.ByDomain, "a.example", event.Bounced):   1,
				key(0, 30*time.Hour, store.ByDomain, store.OtherValue, event.Sent): 9,
				key(1, 0, store.ByDomain, "b.example", event.Bounced):              1,
				key(1, 0, store.ByCode, "550 5.1.1", event.Bounced):                1,
				key(0, 0, store.ByTime, "5", event.Delivered):                      3,
				key(1, 0, store.ByTime, store.OtherValue, event.Bounced):           1,
			},
		})
	}
	got := f.mine.want(t, 200, "GET", "/api/v1/stats", "")
	require.EqualValues(t, 12, got["events"])
	require.Equal(t, "day", got["step"])
	require.Equal(t, map[string]any{"delivered": 6.0, "bounced": 6.0}, got["types"])
	bySource := got["sources"].([]any)
	require.Len(t, bySource, 2)
	require.Equal(t, id.Source.Format(sources[0].ID), bySource[0].(map[string]any)["source"])
	require.EqualValues(t, 10, bySource[0].(map[string]any)["events"])
	domains := got["domains"].([]any)
	require.Len(t, domains, 3)
	require.Equal(t, map[string]any{"domain": "a.example", "events": 8.0, "types": map[string]any{"delivered": 6.0, "bounced": 2.0}}, domains[0])
	require.Equal(t, "", domains[2].(map[string]any)["domain"], "the others come last")
	require.Equal(t, []any{map[string]any{"code": "550 5.1.1", "events": 2.0, "types": map[string]any{"bounced": 2.0}}}, got["codes"])
	final := got["time_to_final"].(map[string]any)
	require.EqualValues(t, 8, final["messages"])
	require.EqualValues(t, 5, final["p50_seconds"])
	require.Nil(t, final["p90_seconds"])

	recent := f.mine.want(t, 200, "GET", "/api/v1/stats?from="+hour.Add(-2*time.Hour).Format(time.RFC3339)+"&source="+id.Source.Format(sources[0].ID), "")
	require.EqualValues(t, 6, recent["events"])
	require.Equal(t, "hour", recent["step"])
	require.Equal(t, []any{map[string]any{"at": hour.Format(time.RFC3339), "types": map[string]any{"delivered": 6.0}}}, recent["series"])
	require.Len(t, recent["domains"], 1)

	require.EqualValues(t, 0, f.other.want(t, 200, "GET", "/api/v1/stats", "")["events"])
	f.mine.want(t, 422, "GET", "/api/v1/stats?from=2999-01-01T00:00:00Z", "")
	f.mine.want(t, 422, "GET", "/api/v1/stats?from=2020-01-01T00:00:00Z", "")
	f.mine.want(t, 422, "GET", "/api/v1/stats?source=msg_1", "")
}
