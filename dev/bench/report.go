package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"aftersend/dev/internal/stack"
)

// Report is what --json writes.
type Report struct {
	At      time.Time         `json:"at"`
	Command string            `json:"command"`
	Machine map[string]string `json:"machine"`
	Runs    []Run             `json:"runs"`
}

func describeMachine(ctx context.Context, database string) map[string]string {
	m := map[string]string{"os": runtime.GOOS + "/" + runtime.GOARCH, "go": runtime.Version(), "cores": fmt.Sprint(runtime.NumCPU())}
	info, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			var kb int
			_, _ = fmt.Sscan(f[1], &kb)
			m["memory"] = fmt.Sprintf("%.0f GB", float64(kb)/(1<<20))
		}
	}
	if db, err := sql.Open("postgres", database); err == nil {
		defer db.Close()
		var version string
		if err := db.QueryRowContext(ctx, "show server_version").Scan(&version); err == nil {
			m["postgres"], _, _ = strings.Cut(version, " ")
		}
	}
	return m
}

func (r Report) writeJSON(to string, out io.Writer) error {
	r.At = time.Now().UTC().Truncate(time.Second)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if to == "-" {
		_, err = out.Write(b)
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// columns of CPU time, in the order of the way a callback takes.
var columns = []string{generator, ceiling, string(stack.Serve), string(stack.Postgres), string(stack.Temporal)}

// width of the names of runs, which stand on the left of columns that stand on the right.
const width = 24

// table writes the report for people.
func (r Report) table(out io.Writer) {
	m := r.Machine
	fmt.Fprintf(out, "\n%s, %s cores, %s; %s; PostgreSQL %s; everything on this machine\n\n", m["os"], m["cores"], m["memory"], m["go"], m["postgres"])
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\taccepted/s\tdelivered/s\tack ms p50\tp95\tp99\taccepted to delivered ms p50\tp95\tp99\t")
	for _, run := range r.Runs {
		fmt.Fprintf(t, "%-*s\t%.0f\t", width, run.Name, run.AcceptedPerSecond)
		if !run.Spec.Deliveries {
			fmt.Fprintf(t, "\t%.1f\t%.1f\t%.1f\t\t\t\t\n", run.Ack.P50, run.Ack.P95, run.Ack.P99)
			continue
		}
		fmt.Fprintf(t, "%.0f\t%.1f\t%.1f\t%.1f\t%.0f\t%.0f\t%.0f\t\n", run.DeliveredPerSecond,
			run.Ack.P50, run.Ack.P95, run.Ack.P99, run.AckArrived.P50, run.AckArrived.P95, run.AckArrived.P99)
	}
	_ = t.Flush()

	fmt.Fprintln(out, "\nCPU seconds per 1,000 callbacks, until the last was delivered; cores while they were posted")
	fmt.Fprint(t, "\t")
	for _, c := range columns {
		fmt.Fprintf(t, "%s\t", c)
	}
	fmt.Fprintln(t, "all\tcores\tof others\t")
	for _, run := range r.Runs {
		fmt.Fprintf(t, "%-*s\t", width, run.Name)
		for _, c := range columns {
			if v, ok := run.CPU[c]; ok {
				fmt.Fprintf(t, "%.3f", v)
			}
			fmt.Fprint(t, "\t")
		}
		fmt.Fprintf(t, "%.3f\t%.2f\t%.2f\t\n", run.CPUSum(), run.CoresSum(), run.Cores[others])
	}
	_ = t.Flush()
	r.ratios(out)
	r.books(out)
}

// ratios compares the closed loop with the ceilings.
func (r Report) ratios(out io.Writer) {
	var product *Run
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Spec.Deliveries && run.Spec.Rate == 0 {
			product = run
		}
	}
	if product == nil {
		return
	}
	for _, run := range r.Runs {
		if run.Spec.Deliveries {
			continue
		}
		fmt.Fprintf(out, "\nOf %s: %.0f %% of the callbacks a second, %.1f times the CPU of each, %.1f times the p99 of an acknowledgement",
			run.Name, 100*product.DeliveredPerSecond/run.AcceptedPerSecond, product.CPUSum()/run.CPUSum(), product.Ack.P99/run.Ack.P99)
	}
	fmt.Fprintln(out)
}

// books says for every run whether what was accepted arrived.
func (r Report) books(out io.Writer) {
	fmt.Fprintln(out)
	for _, run := range r.Runs {
		if !run.Spec.Deliveries && len(run.Refused) == 0 {
			continue
		}
		fmt.Fprintf(out, "%s: %d accepted in %.0f s", run.Name, run.Accepted, run.Seconds)
		if run.Spec.Deliveries {
			fmt.Fprintf(out, ", %d of them delivered (the last %.1f s later), %d missing, %d repeats, %d deliveries",
				run.Arrived, run.DrainSeconds, run.Missing, run.Repeats, run.Deliveries)
		}
		for status, n := range run.Refused {
			fmt.Fprintf(out, ", %d refused (%s)", n, map[bool]string{true: "no answer", false: fmt.Sprint(status)}[status == 0])
		}
		fmt.Fprintln(out)
	}
	if last := r.Runs[len(r.Runs)-1]; last.Spec.Deliveries {
		fmt.Fprintf(out, "memory at most: serve %d MB, Temporal %d MB\n", last.Memory[string(stack.Serve)]>>20, last.Memory[string(stack.Temporal)]>>20)
	}
}
