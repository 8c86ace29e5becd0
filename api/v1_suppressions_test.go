package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestV1Suppressions(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	made := f.mine.want(t, 201, "POST", "/api/v1/suppressions", `{"recipient":"Jo@Example.com"}`)
	require.Equal(t, "jo@example.com", made["recipient"])
	require.Equal(t, "manual", made["reason"])
	require.Equal(t, true, made["active"])
	f.mine.want(t, 422, "POST", "/api/v1/suppressions", `{"recipient":"nobody"}`)

	got := f.mine.want(t, 200, "POST", "/api/v1/suppressions/import", "email,reason\na@x.com,complained\nnobody,\n+b@x.com,\n", "Content-Type", "text/csv", "Idempotency-Key", "k")
	require.EqualValues(t, 2, got["added"])
	require.EqualValues(t, 1, got["failed"])
	require.Len(t, got["errors"], 1)

	all := f.mine.want(t, 200, "GET", "/api/v1/suppressions", "")
	require.Len(t, all["data"], 3)
	require.Nil(t, all["next"])
	page := f.mine.want(t, 200, "GET", "/api/v1/suppressions?limit=2", "")
	require.Len(t, page["data"], 2)
	page = f.mine.want(t, 200, "GET", "/api/v1/suppressions?limit=2&after="+page["next"].(string), "")
	require.Len(t, page["data"], 1)
	for query, n := range map[string]int{
		"recipient=JO@example.com": 1, "recipient=no@example.com": 0, "reason=manual": 2, "reason=complained": 1, "reason=bounced": 0,
		"since=2999-01-01T00:00:00Z": 0, "since=2020-01-01T00:00:00Z": 3, "active=false": 0, "active=any&reason=manual&recipient=jo@example.com": 1,
	} {
		require.Len(t, f.mine.want(t, 200, "GET", "/api/v1/suppressions?"+query, "")["data"], n, query)
	}
	require.Empty(t, f.other.want(t, 200, "GET", "/api/v1/suppressions", "")["data"])

	checked := f.mine.want(t, 200, "POST", "/api/v1/suppressions/check", `{"recipients":["no@x.com","A@x.com"]}`)["data"].([]any)
	require.Len(t, checked, 2)
	require.Equal(t, map[string]any{"recipient": "no@x.com", "suppressed": false, "reasons": []any{}}, checked[0])
	require.Equal(t, true, checked[1].(map[string]any)["suppressed"])
	f.mine.want(t, 422, "POST", "/api/v1/suppressions/check", `{"recipients":[`+strings.Repeat(`"a@x.com",`, 1000)+`"a@x.com"]}`)

	export := f.mine.do(t, "GET", "/api/v1/suppressions/export?reason=manual", "")
	require.Equal(t, 200, export.Code)
	require.Equal(t, "text/csv; charset=utf-8", export.Header().Get("Content-Type"))
	lines := strings.Split(strings.TrimSpace(export.Body.String()), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, export.Body.String(), "'+b@x.com,manual,")

	path := "/api/v1/suppressions/" + made["id"].(string)
	require.Empty(t, f.mine.want(t, 200, "GET", path, "")["cause"])
	f.other.want(t, 404, "GET", path, "")
	f.other.want(t, 404, "DELETE", path, "")
	f.mine.want(t, 204, "DELETE", path, "")
	f.mine.want(t, 404, "DELETE", path, "")
	require.Equal(t, false, f.mine.want(t, 200, "GET", path, "")["active"])
	require.Len(t, f.mine.want(t, 200, "GET", "/api/v1/suppressions?active=false", "")["data"], 1)
	entry := f.mine.want(t, 200, "GET", "/api/v1/activity-log?limit=1", "")["data"].([]any)[0].(map[string]any)
	require.Equal(t, "suppression.lifted", entry["action"])
	require.Equal(t, made["id"], entry["resource"].(map[string]any)["id"])
}

func TestV1ImportIsLargerThanOtherRequests(t *testing.T) {
	t.Parallel()
	f := newV1(t)
	line := "somebody@example.com\n"
	got := f.mine.want(t, 200, "POST", "/api/v1/suppressions/import", strings.Repeat(line, maxRequest/len(line)+2), "Content-Type", "text/csv")
	require.EqualValues(t, 1, got["added"])
	tooLarge := f.mine.do(t, "POST", "/api/v1/suppressions/import", strings.Repeat(line, maxImport/len(line)+2), "Content-Type", "text/csv")
	require.Equal(t, 413, tooLarge.Code)
}
