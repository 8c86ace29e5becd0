package activities_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"aftersend/activities"
	"aftersend/esp"
	"aftersend/esp/all"
	"aftersend/event"
	"aftersend/id"
	"aftersend/migrations"
	"aftersend/pglocal"
	"aftersend/store"
)

// BenchmarkProcess takes groups of Mandrill callbacks, one event each, through
// all steps on a Postgres set up as in production. Every message is told of
// twice, in groups that follow each other: made by the one, updated by the
// next. Per event it prints the time and the CPU it costs here and in Postgres
// (storing the callbacks not counted).
//
//	go test ./activities -run '^$' -bench Process
func BenchmarkProcess(b *testing.B) {
	ctx := context.Background()
	server, err := pglocal.Start(ctx, pglocal.Options{DataDir: b.TempDir(), Settings: pglocal.Production, Ephemeral: true})
	require.NoError(b, err)
	b.Cleanup(func() { _ = server.Stop(ctx) })
	db, err := sqlx.Connect("postgres", server.URL("postgres")+"&binary_parameters=yes")
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	require.NoError(b, migrations.Up(ctx, db.DB))
	h := newHouse(b, db)
	h.Adapters = all.ByName
	_, err = db.Exec(`update sources set esp = 'mandrill'`)
	require.NoError(b, err)
	h.webhook()

	messages := 0
	for _, size := range []int{2000, 500, 50, 1} {
		b.Run(fmt.Sprint("callbacks=", size), func(b *testing.B) {
			events := 0
			var pg, us time.Duration
			turn := event.Sent
			messages += 2000 // the last of the run before may have been told of once
			for b.Loop() {
				b.StopTimer()
				callbacks := make([]store.Callback, size)
				for i := range callbacks {
					callbacks[i] = h.mandrill(turn, messages+i)
				}
				if turn == event.Sent {
					turn = event.Bounced
				} else {
					turn, messages = event.Sent, messages+size
				}
				group := h.group(callbacks...)
				pgBefore, usBefore := cpuOfChildren(b, server.Pid()), cpu(b)
				b.StartTimer()
				res, err := process(h.Processing, group)
				b.StopTimer()
				us += cpu(b) - usBefore
				pg += cpuOfChildren(b, server.Pid()) - pgBefore
				b.StartTimer()
				if err != nil || res != (activities.GroupResult{Callbacks: size, Events: size, Webhooks: 1}) {
					b.Fatal(err, res)
				}
				events += size
			}
			b.StopTimer()
			per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(events) }
			b.ReportMetric(per(b.Elapsed()), "µs/event")
			b.ReportMetric(per(pg), "µs-postgres/event")
			b.ReportMetric(per(us), "µs-go/event")
		})
	}
}

func (h *house) mandrill(t event.Type, message int) store.Callback {
	adapter, _ := all.ByName("mandrill")
	now := time.Now()
	e := event.Event{Type: t, OccurredAt: now, Recipient: fmt.Sprintf("user%d@example.com", message), MessageID: fmt.Sprintf("%032x", message),
		Subject: "Your order has been shipped", Tags: []string{"orders", "shipping"}, SendingDomain: "shop.example.com"}
	if t == event.Bounced {
		e.BounceType, e.Category, e.SMTPCode, e.EnhancedStatus = event.Hard, event.InvalidRecipient, 550, "5.1.1"
		e.Diagnostic = "smtp;550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's address"
	}
	req, err := adapter.(esp.Sampler).Sample(e, "https://example.com/callbacks/mandrill/token", esp.Secrets{"key": "k"}, now)
	require.NoError(h.t, err)
	return store.Callback{ID: id.New(), AccountID: h.account, SourceID: h.sources[0], ReceivedAt: now, Verified: true, Method: "POST",
		Path: []byte(req.Path), Query: []byte(req.RawQuery), Headers: store.EncodeHeaders(req.Header), Body: req.Body}
}

// cpu is what this process has used so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOfChildren is what the living children of a process have used so far.
func cpuOfChildren(b *testing.B, parent int) time.Duration {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(b, err)
	var ticks int64
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))
		if fields[1] != strconv.Itoa(parent) {
			continue
		}
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on every platform Go runs on
}
