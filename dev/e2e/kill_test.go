package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/dev/internal/stack"
)

// TestKillBetweenEveryTwoSteps kills the process at every crash point there
// is, one after the other and without waiting for recovery in between, while
// callbacks keep coming. Each point has a source and a webhook of its own, so
// that what is lost says where.
func TestKillBetweenEveryTwoSteps(t *testing.T) {
	p := calm(t)
	points := crashPoints(t)
	require.GreaterOrEqual(t, len(points), 20, "%v", points)

	type victim struct {
		point string
		*ledger
		hook   *hook
		paused bool // its endpoint fails until it is paused
		owner  string
	}
	victims := make([]*victim, 0, len(points))
	for _, point := range points {
		v := &victim{point: point, owner: strings.ReplaceAll(point, "_", "-") + "@" + people}
		// What happens around a pause needs an endpoint that fails.
		v.paused = strings.HasPrefix(point, "pause_") || strings.HasPrefix(point, "notice_")
		s := p.newSource(t, "mailtrap", point, nil)
		e := receivers.endpoint(point)
		settings := and(from(s), "notify", []string{v.owner})
		settings["retry"] = map[string]any{"interval_seconds": 1, "attempts": 1000}
		if v.paused {
			e.answer(http.StatusServiceUnavailable, "")
			settings["retry"] = map[string]any{"interval_seconds": 1, "attempts": 1}
		}
		v.hook = p.newHook(t, e, settings)
		v.ledger = newLedger(p, s)
		victims = append(victims, v)
	}

	// Somebody posts all the time, whatever happens.
	steadySource := p.newSource(t, "mailtrap", "steady", nil)
	steady := newLedger(p, steadySource)
	steadyHook := p.newHook(t, receivers.endpoint("steady"), and(from(steadySource), "retry", map[string]any{"interval_seconds": 1, "attempts": 1000}))
	stops := []func(){steady.keepPosting(t, 20, 100*time.Millisecond)}

	for _, v := range victims {
		began := time.Now()
		p.restart(t, "AFTERSEND_CRASH="+v.point+":"+passage(v.point))
		stop := v.keepPosting(t, 10, 1500*time.Millisecond) // with pauses, so that webhooks fall asleep
		stops = append(stops, stop)
		select {
		case <-p.stack.Exited(stack.Serve):
		case <-time.After(time.Minute):
			t.Errorf("the process never came to the crash point %s", v.point)
		}
		t.Logf("%s after %v", v.point, time.Since(began).Round(100*time.Millisecond))
		go stop() // what is not answered yet needs the next process
	}
	p.restart(t, "AFTERSEND_CRASH=")
	for _, stop := range stops {
		stop()
	}
	steady.requireKept(t, steadyHook, 3*time.Minute)
	require.NotContains(t, p.logs[stack.Serve].String(), "\npanic:", "it died by signals only")

	for _, v := range victims {
		if v.paused {
			continue
		}
		t.Run(v.point, func(t *testing.T) {
			v.requireKept(t, v.hook, 3*time.Minute)
			require.Empty(t, mails.to(v.owner), "nothing failed that anybody should hear of")
		})
	}

	// The kills were where they hurt: an answer got lost after the commit, and
	// so did an endpoint's.
	repeats, again := 0, 0
	for _, v := range append(victims, &victim{ledger: steady, hook: steadyHook}) {
		repeats += v.repeats
		seen := map[string]bool{}
		for _, d := range v.hook.all() {
			if d.status == http.StatusOK && seen[d.batch] {
				again++
			}
			seen[d.batch] = seen[d.batch] || d.status == http.StatusOK
		}
	}
	require.Positive(t, repeats, "callbacks that were stored and posted again")
	require.Positive(t, again, "batches that were accepted and posted again")

	// A mail that was under way when its process died is tried again after
	// minutes, as is right for mails. Other tests go on meanwhile.
	t.Parallel()
	for _, v := range victims {
		if !v.paused {
			continue
		}
		t.Run(v.point, func(t *testing.T) {
			eventually(t, 2*time.Minute, "paused", func() error {
				w, err := p.webhook(v.hook)
				return errors.Join(err, want(w.Status, "paused", "status"))
			})
			eventually(t, 4*time.Minute, "its owner is told", func() error {
				if n := len(mails.to(v.owner)); n < 1 || n > 2 { // the second when killed between sending and writing down
					return fmt.Errorf("%d mails", n)
				}
				return nil
			})
			v.hook.answer(http.StatusOK, "")
			p.must(t, http.MethodPost, "/api/v1/webhooks/"+v.hook.ID+"/resume", map[string]any{"backlog": "deliver"}, nil)
			v.requireKept(t, v.hook, 3*time.Minute)
		})
	}
}

// passage is at which passage of a point to kill: steps that every callback
// takes in the middle of the traffic, the others when they first happen.
func passage(point string) string {
	for _, rare := range []string{"pause_", "notice_", "sleep_"} {
		if strings.HasPrefix(point, rare) {
			return "1"
		}
	}
	return "3"
}

// crashPoints finds every crash.Point in the product's source, so that a new
// one is tested without being listed here. Those that take longest to recover
// from come first.
func crashPoints(t *testing.T) []string {
	t.Helper()
	call := regexp.MustCompile(`crash\.Point\("(\w+)"\)`)
	var points []string
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "dev" || d.Name() == "crash" || strings.HasPrefix(d.Name(), ".") && path != root):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range call.FindAllSubmatch(text, -1) {
			points = append(points, string(m[1]))
		}
		return nil
	})
	require.NoError(t, err)
	order := []string{"notice", "pause", "deliver", "sleep", "wake", "route", "correlate", "parse", "starter", "intake"}
	rank := func(point string) int {
		room, _, _ := strings.Cut(point, "_")
		return slices.Index(order, room)
	}
	slices.Sort(points)
	points = slices.Compact(points)
	slices.SortStableFunc(points, func(a, b string) int { return rank(a) - rank(b) })
	return points
}

// restart starts the product's process again, whether or not it still runs,
// with one more setting. It may die again before it is ready; whether it ever
// answers is for the test to see.
func (p *product) restart(t *testing.T, setting string) {
	t.Helper()
	p.stack.Setenv(stack.Serve, setting)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-p.stack.Exited(stack.Serve):
	default:
		require.NoError(t, p.stack.Kill(stack.Serve))
	}
	err := p.stack.Restart(ctx, stack.Serve)
	select {
	case <-p.stack.Exited(stack.Serve):
		if setting != "AFTERSEND_CRASH=" {
			return // it came to its point before it was ready
		}
	default:
	}
	require.NoError(t, err)
}

// requireNothingStuck checks what nobody's ledger holds: no group or batch is
// left half done, and every writer's rows are in groups.
func (p *product) requireNothingStuck(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "nothing under way", func() error {
		var groups, batches, ungrouped int
		err := p.db.QueryRow(`
			select (select count(*) from groups where step <> 'done'),
			       (select count(*) from batches b join webhooks w on w.id = b.webhook_id where b.state = 'open' and w.status = 'active'),
			       (select count(*) from callbacks c join writers w on w.id = c.writer_id where c.n > w.grouped_through)`).
			Scan(&groups, &batches, &ungrouped)
		return errors.Join(err, want(groups, 0, "open groups"), want(batches, 0, "open batches"), want(ungrouped, 0, "callbacks in no group"))
	})
}
