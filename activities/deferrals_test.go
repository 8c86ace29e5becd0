package activities_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/testsuite"

	"aftersend/activities"
	"aftersend/event"
	"aftersend/id"
	"aftersend/store"
	"aftersend/store/storetest"
	"aftersend/workflows"
)

// cohorts are the ids of all cohorts, oldest first.
func (h *house) cohorts() []id.ID {
	h.t.Helper()
	var all []id.ID
	require.NoError(h.t, h.db.Select(&all, `select id from deferral_cohorts order by id`))
	return all
}

// review looks at a cohort as if its window had closed long ago.
func (h *house) review(cohort id.ID, last bool) store.Reviewed {
	h.t.Helper()
	r := store.Review{Cohort: cohort, Now: time.Now().Add(time.Hour)}
	if !last {
		r.NextAt = r.Now.Add(time.Hour)
	}
	got, err := h.store.ReviewCohort(h.t.Context(), r)
	require.NoError(h.t, err)
	return got
}

// expired are the groups that reviews made and nobody processed yet.
func (h *house) expired() []id.ID {
	h.t.Helper()
	var all []id.ID
	require.NoError(h.t, h.db.Select(&all, `select id from groups where kind = 'expired' and step <> 'done' order by id`))
	return all
}

func (h *house) message(recipient string) (store.MessageRow, []event.Event) {
	h.t.Helper()
	rows, err := h.store.Messages(h.t.Context(), h.account, store.MessageFilter{Recipient: recipient}, store.Page{Limit: 10})
	require.NoError(h.t, err)
	require.Len(h.t, rows, 1, recipient)
	row, stored, err := h.store.Message(h.t.Context(), h.account, rows[0].ID)
	require.NoError(h.t, err)
	timeline := make([]event.Event, len(stored))
	for i := range stored {
		require.NoError(h.t, json.Unmarshal(stored[i].Data, &timeline[i]))
	}
	return row, timeline
}

// Every deferred message is in an open cohort.
func (h *house) requireWatched() {
	h.t.Helper()
	require.Zero(h.t, h.count(`
		select count(*) from messages m
		where status = 'deferred' and not exists (select from deferral_cohorts c where c.id = m.cohort_id and c.closed_at is null)`))
}

func TestDeferralsThatNeverGetTheirFinalWordExpire(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	h.EventsPerTx = 2
	all, expired := h.webhook(), h.webhook(event.Expired)
	why := said(event.Deferred, "a", 2)
	why.Subject, why.Tags, why.SendingDomain = "Your order", []string{"orders"}, "shop.example.com"
	why.SMTPCode, why.Category, why.BounceType = 452, event.MailboxFull, event.Soft
	h.process(h.post(line(said(event.Deferred, "a", 1)), line(why), line(said(event.Deferred, "b", 1)), line(said(event.Deferred, "c", 1)),
		line(said(event.Deferred, "d", 1)), line(said(event.Deferred, "e", 1)), line(said(event.Deferred, "f", 1)), line(said(event.Sent, "g", 1)),
		line(said(event.Deferred, "h", 1)), line(said(event.Delivered, "h", 2))))
	h.requireWatched()
	require.Len(t, h.cohorts(), 1)
	cohort := h.cohorts()[0]
	require.Equal(t, store.Reviewed{Open: 6}, h.review(cohort, false), "h had its final word within the group")
	h.process(h.post(line(said(event.Delivered, "b", 5)), line(said(event.Bounced, "c", 5))))
	require.Equal(t, store.Reviewed{Open: 4, Delivered: 1, Bounced: 1}, h.review(cohort, false))

	require.Equal(t, store.Reviewed{Delivered: 1, Bounced: 1, Expired: 4, Closed: true}, h.review(cohort, true))
	groups := h.expired()
	require.Len(t, groups, 1)
	require.Equal(t, store.Reviewed{Open: 4, Delivered: 1, Bounced: 1, Closed: true}, h.review(cohort, true), "the decision is made once")
	require.Equal(t, groups, h.expired())

	h.process(h.post(line(said(event.Delivered, "d", 9)))) // between the decision and what follows from it
	before := h.count(`select matched from webhook_progress where webhook_id = $1`, all)
	for range 2 {
		res, err := process(h.worker(), groups[0])
		require.NoError(t, err)
		require.Equal(t, 3, res.Events)
		require.Zero(t, res.Repeats)
	}
	require.Equal(t, before+3, h.count(`select matched from webhook_progress where webhook_id = $1`, all))
	require.Equal(t, 3, h.count(`select matched from webhook_progress where webhook_id = $1`, expired))
	require.Equal(t, 3, h.count(`select count(*) from events where type = 'expired'`))
	require.Equal(t, 3, h.count(`select count(distinct position) from events where group_id = $1`, groups[0]))
	require.Equal(t, 3, h.count(`select sum(events) from volume where type = 'expired'`))

	row, timeline := h.message("a@example.com")
	require.Equal(t, "expired", row.Status)
	require.Equal(t, "deferred", row.PreviousStatus)
	e := timeline[2]
	require.Equal(t, event.Expired, e.Type)
	require.Equal(t, "a", e.MessageID)
	require.Equal(t, "fake", e.ESP)
	require.Equal(t, id.Source.Format(h.sources[0]), e.Source)
	require.Equal(t, why.Subject, e.Subject)
	require.Equal(t, why.Tags, e.Tags)
	require.Equal(t, why.SendingDomain, e.SendingDomain)
	require.Equal(t, event.MailboxFull, e.Category, "why it was deferred last")
	require.Empty(t, e.BounceType)
	require.Empty(t, e.EventID)
	require.Equal(t, event.Expired, e.Message.Status)
	require.Equal(t, event.Deferred, e.Message.PreviousStatus)
	require.Equal(t, 2, e.Message.Deferrals)
	require.WithinDuration(t, time.Now(), e.OccurredAt, time.Minute)
	row, _ = h.message("d@example.com")
	require.Equal(t, "delivered", row.Status)

	// A late final word overrides expiry; a late deferral takes it back and is watched anew.
	h.process(h.post(line(said(event.Delivered, "a", 20))))
	row, _ = h.message("a@example.com")
	require.Equal(t, "delivered", row.Status)
	require.Equal(t, "expired", row.PreviousStatus)
	again := said(event.Deferred, "e", 3)
	again.OccurredAt = time.Time{}
	late := h.callback(line(again))
	late.ReceivedAt = time.Now().Add(time.Minute)
	h.process(h.group(late))
	row, _ = h.message("e@example.com")
	require.Equal(t, "deferred", row.Status)
	h.requireWatched()
}

// A group of expired deferrals that is interrupted goes on where it stood.
func TestExpiryIsTakenUpWhereItStood(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	var lines []string
	for i := range 25 {
		lines = append(lines, line(said(event.Deferred, fmt.Sprint("m", i), 1)))
	}
	h.process(h.post(lines...))
	h.review(h.cohorts()[0], true)
	group := h.expired()[0]
	_, err := h.db.Exec(`create function fail() returns trigger language plpgsql as $$ begin
		if new.position >= 12 and new.type = 'expired' then raise exception 'no' using errcode = 'XX000'; end if; return new; end $$;
		create trigger fail before insert on events for each row execute function fail()`)
	require.NoError(t, err)
	h.EventsPerTx = 10
	_, err = process(h.Processing, group)
	require.Error(t, err)
	require.Equal(t, 10, h.count(`select count(*) from events where type = 'expired'`))
	_, err = h.db.Exec(`drop trigger fail on events`)
	require.NoError(t, err)
	p := h.worker()
	p.EventsPerTx = 4
	res, err := process(p, group)
	require.NoError(t, err)
	require.Equal(t, 25, res.Events)
	require.Equal(t, 25, h.count(`select count(distinct position) from events where type = 'expired'`))
	require.Equal(t, 25, h.count(`select count(*) from messages where status = 'expired'`))
}

func TestCohortsCloseEarlyAndOpenAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	a, b, other := h.callback(line(said(event.Deferred, "a", 1))), h.callback(line(said(event.Deferred, "b", 1))), h.callback(line(said(event.Deferred, "z", 1)))
	other.SourceID = h.sources[1]
	h.process(h.group(a, b, other))
	require.Len(t, h.cohorts(), 2, "one per source")
	claimed, err := h.store.ClaimCohorts(t.Context(), time.Minute, 10)
	require.NoError(t, err)
	require.Len(t, claimed, 2)
	require.Equal(t, "fake", claimed[0].ESP)
	require.WithinDuration(t, time.Now(), claimed[0].OpensAt, store.DeferralWindow+time.Minute)
	claimed, err = h.store.ClaimCohorts(t.Context(), time.Minute, 10)
	require.NoError(t, err)
	require.Empty(t, claimed)

	var cohort id.ID
	require.NoError(t, h.db.Get(&cohort, `select id from deferral_cohorts where source_id = $1`, h.sources[0]))
	h.process(h.post(line(said(event.Delivered, "a", 2)), line(said(event.Failed, "b", 2))))
	open, err := h.store.ReviewCohort(t.Context(), store.Review{Cohort: cohort, Now: time.Now(), NextAt: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	if !open.Closed { // unless its window ended just now
		require.Equal(t, store.Reviewed{Delivered: 1, Failed: 1, Closed: true}, h.review(cohort, false))
	}
	require.Empty(t, h.expired())

	// Somebody whose transaction took long joins it all the same.
	h.process(h.post(line(said(event.Deferred, "c", 3))))
	h.requireWatched()
	if len(h.cohorts()) == 2 {
		claimed, err = h.store.ClaimCohorts(t.Context(), time.Minute, 10)
		require.NoError(t, err)
		require.Len(t, claimed, 1)
		require.Equal(t, cohort, claimed[0].ID)
	}
	require.NoError(t, h.store.ReleaseCohorts(t.Context(), []id.ID{cohort}))
	require.Equal(t, store.Reviewed{Closed: true}, h.review(id.New(), false), "one that is gone")
}

// What the workflow's query says is what the list says.
func TestTheStatusQueryAgreesWithTheListOfMessages(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.New(t))
	w := h.webhook(event.Expired)
	var lines []string
	for i := range 30 {
		lines = append(lines, line(said(event.Deferred, fmt.Sprint("m", i), 1)))
	}
	h.process(h.post(lines...))
	_, err := h.db.Exec(`update deferral_cohorts set opens_at = opens_at - interval '1 hour'`)
	require.NoError(t, err)

	var s testsuite.WorkflowTestSuite
	env := s.NewTestWorkflowEnvironment()
	env.SetStartTime(time.Now())

	env.RegisterActivityWithOptions(h.ReviewDeferrals, activity.RegisterOptions{Name: workflows.ReviewDeferralsActivity})
	closes := time.Now()
	agree := func(open int) func() {
		return func() {
			v, err := env.QueryWorkflow(workflows.StatusQuery)
			require.NoError(t, err)
			var status workflows.DeferralsStatus
			require.NoError(t, v.Get(&status))
			list, err := h.store.Messages(t.Context(), h.account, store.MessageFilter{Status: "deferred"}, store.Page{Limit: 100})
			require.NoError(t, err)
			require.Len(t, list, open)
			require.Equal(t, open, status.Open)
			require.Equal(t, h.count(`select count(*) from messages where status = 'delivered'`), status.Delivered)
			require.Equal(t, h.count(`select count(*) from messages where status = 'bounced'`), status.Bounced)
		}
	}
	env.RegisterDelayedCallback(agree(30), 16*time.Minute)
	env.RegisterDelayedCallback(func() {
		h.process(h.post(line(said(event.Delivered, "m1", 5)), line(said(event.Delivered, "m2", 5)), line(said(event.Bounced, "m3", 5))))
	}, 2*time.Hour)
	env.RegisterDelayedCallback(agree(27), 5*time.Hour)
	env.ExecuteWorkflow(workflows.TrackDeferrals, workflows.TrackDeferralsInput{Cohort: h.cohorts()[0], ClosesAt: closes, Reviews: workflows.DeferralReviews})
	require.NoError(t, env.GetWorkflowError())
	var status workflows.DeferralsStatus
	require.NoError(t, env.GetWorkflowResult(&status))
	require.Equal(t, 27, status.Expired)
	require.True(t, status.Closed)

	require.Len(t, h.expired(), 1)
	require.Equal(t, activities.GroupResult{Events: 27, Webhooks: 1}, h.process(h.expired()[0]))
	require.Equal(t, 27, h.count(`select matched from webhook_progress where webhook_id = $1`, w))
	list, err := h.store.Messages(t.Context(), h.account, store.MessageFilter{Status: "deferred"}, store.Page{Limit: 100})
	require.NoError(t, err)
	require.Empty(t, list)
}

var storm = flag.Int("storm", 4_000, "how many messages a storm of deferrals has")

// Half of all messages deferred within ten minutes, from two sources: at most
// three windows each, whatever their number.
//
//	go test ./activities -run Storm -v -storm 100000
func TestAStormOfDeferralsCostsAHandfulOfWorkflows(t *testing.T) {
	h := newHouse(t, storetest.New(t))
	const groupSize = 2000
	began := time.Now()
	for lo := 0; lo < *storm; lo += groupSize {
		var callbacks []store.Callback
		for i := lo; i < min(lo+groupSize, *storm); i++ {
			kind := event.Delivered
			if i%2 == 0 {
				kind = event.Deferred
			}
			c := h.callback(line(said(kind, fmt.Sprint("m", i), 1)))
			c.SourceID = h.sources[i/2%2]
			callbacks = append(callbacks, c)
		}
		h.process(h.group(callbacks...))
		// Ten minutes pass: what was recorded moves half a window into the past.
		if lo+groupSize == *storm/2/groupSize*groupSize {
			_, err := h.db.Exec(`update deferral_cohorts set opens_at = opens_at - interval '10 minutes'`)
			require.NoError(t, err)
		}
	}
	recorded := time.Since(began)
	watching, err := h.store.ClaimCohorts(t.Context(), time.Minute, 100)
	require.NoError(t, err)
	require.LessOrEqual(t, len(watching), 6, "workflows that watch: sources × windows")
	require.GreaterOrEqual(t, len(watching), 4)
	h.requireWatched()

	began = time.Now()
	open := 0
	for _, c := range watching {
		open += h.review(c.ID, false).Open
	}
	require.Equal(t, *storm/2, open)
	reviewed := time.Since(began)
	began = time.Now()
	for _, c := range watching {
		h.review(c.ID, true)
	}
	groups := h.expired()
	require.LessOrEqual(t, len(groups), len(watching)+*storm/2/store.ExpiredPerGroup)
	events := 0
	for _, g := range groups {
		events += h.process(g).Events
	}
	require.Equal(t, *storm/2, events)
	t.Logf("%d messages, %d deferred: recorded in %v; %d workflows watch, a review of all takes %v; given up in %d groups in %v",
		*storm, open, recorded, len(watching), reviewed, len(groups), time.Since(began))
}
