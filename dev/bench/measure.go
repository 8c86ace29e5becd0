package main

import (
	"context"
	"fmt"
	"time"

	"aftersend/dev/bench/load"
)

// Run is one measured run.
type Run struct {
	Name string    `json:"name"`
	Spec load.Spec `json:"spec"`
	load.Result
	AcceptedPerSecond  float64 `json:"accepted_per_second"`
	DeliveredPerSecond float64 `json:"delivered_per_second,omitempty"` // until the last arrival
	// CPU is CPU seconds per 1,000 accepted callbacks by process, from the first request to the last arrival.
	CPU map[string]float64 `json:"cpu_seconds_per_1000"`
	// Cores is CPU seconds a second while requests were made, by process; "others" is what ran on the machine besides.
	Cores map[string]float64 `json:"cores"`
	// Memory is the most bytes resident so far, by process; Postgres's is that of its first process only.
	Memory map[string]int64 `json:"memory_bytes"`
}

// CPUSum is the CPU seconds per 1,000 callbacks of all processes together.
func (r Run) CPUSum() float64 { return sum(r.CPU) }

// CoresSum is the cores all processes of ours used.
func (r Run) CoresSum() float64 { return sum(r.Cores) - r.Cores[others] }

func sum(m map[string]float64) float64 {
	total := 0.0
	for _, v := range m {
		total += v
	}
	return total
}

// The names of processes in figures, besides the roles of the stack.
const (
	generator = "generator" // with the sink
	ceiling   = "ceiling"   // the server of a ceiling
	others    = "others"
)

// measure has the generator make a run and reads the CPU clocks of the accounts meanwhile.
func measure(ctx context.Context, g *process, name string, spec load.Spec, accounts load.Accounts) (Run, error) {
	run := Run{Name: name, Spec: spec}
	if err := ctx.Err(); err != nil {
		return run, err
	}
	if err := g.say(spec); err != nil {
		return run, fmt.Errorf("%s: %w", name, err)
	}
	clocks := map[load.Moment]load.CPU{}
	for {
		m, err := g.next()
		if err != nil {
			return run, fmt.Errorf("%s: %w", name, err)
		}
		if m.Result != nil {
			run.Result = *m.Result
			break
		}
		if clocks[m.Moment], err = accounts.Read(); err != nil {
			return run, fmt.Errorf("%s: %w", name, err)
		}
		if err := g.say(nil); err != nil {
			return run, fmt.Errorf("%s: %w", name, err)
		}
	}
	run.Spec.Targets = nil // they hold secrets
	run.AcceptedPerSecond = run.AcceptedRate()
	if spec.Deliveries {
		run.DeliveredPerSecond = run.DeliveredRate()
	}
	whole, window := clocks[load.Drained].Since(clocks[load.Started]), clocks[load.Sent].Since(clocks[load.Started])
	run.CPU, run.Cores = perThousand(whole, run.Accepted), perSecond(window, run.Seconds)
	var err error
	run.Memory, err = accounts.Memory()
	return run, err
}

func perThousand(used load.CPU, events int) map[string]float64 {
	out := map[string]float64{}
	for name, d := range used {
		if name != load.Machine {
			out[name] = d.Seconds() * 1000 / float64(max(1, events))
		}
	}
	return out
}

func perSecond(used load.CPU, seconds float64) map[string]float64 {
	out := map[string]float64{}
	rest := used[load.Machine]
	for name, d := range used {
		if name != load.Machine {
			out[name] = d.Seconds() / seconds
			rest -= d
		}
	}
	out[others] = max(0, rest.Seconds()/seconds)
	return out
}

// settle lets what a run left behind (checkpoints of small things, garbage, timers) pass before the next one.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Second):
	}
}
