// Bench measures the product from outside, with everything on this machine: load generator, sink, API and worker (`serve`),
// Temporal and Postgres.
//
//	go run ./dev/bench [--seconds 60] [--connections 128] [--mix mandrill=1,mailtrap=1] [--json FILE] [--profile DIR]
//
// It measures, in one run: two ceilings (HTTP alone; HTTP and the group commit alone), then the product under as much as it takes,
// under half of that, and under 2,500, 1,000 and 50 callbacks a second. Every accepted callback is looked for at the sink, by number.
// docs/performance.md says how to read the figures. It ends by itself and leaves nothing behind.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"aftersend/dev/bench/load"
	"aftersend/dev/internal/stack"
	"aftersend/pglocal"
)

// options are the flags.
type options struct {
	seconds     float64
	short       float64
	connections int
	perMessage  int
	webhooks    int
	half        float64
	postgres    pglocal.Settings
	mix         map[string]int
	phases      []string
	dataDir     string
	json        string
	profile     string
	verbose     bool
}

// phases are the parts of the benchmark in their order.
var phases = []string{"gin", "commit", "closed", "half", "2500", "1000", "50"}

func main() {
	child()
	stack.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{mix: map[string]int{}, postgres: pglocal.Settings{}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.Float64Var(&o.seconds, "seconds", 60, "length of the closed loop; other runs take a third of it")
	f.IntVar(&o.connections, "connections", 128, "keep-alive connections that post")
	f.IntVar(&o.perMessage, "per-message", 2, "events of one message; 1 = every callback is about a new one")
	f.IntVar(&o.webhooks, "webhooks", 1, "webhooks that get every event; delivery is watched at the first")
	f.Float64Var(&o.half, "half", 5000, "callbacks a second of the phase half, when the phase closed is left out")
	mix := f.String("mix", "mandrill=1,mailtrap=1", "share of each ESP")
	some := f.String("phases", strings.Join(phases, ","), "which parts to run")
	f.Func("postgres", "NAME=VALUE: a setting of Postgres other than pglocal.Production; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want NAME=VALUE")
		}
		o.postgres[name] = value
		return nil
	})
	f.StringVar(&o.dataDir, "data", "", "directory of the databases, kept; default: a temporary one")
	f.StringVar(&o.json, "json", "", "also write the figures to this file, - for standard output")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of serve and Temporal, and the costliest SQL statements, of each run with the product to this directory")
	f.BoolVar(&o.verbose, "verbose", false, "show the log of serve and Temporal")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.short = max(1, o.seconds/3)
	for share := range strings.SplitSeq(*mix, ",") {
		name, weight, ok := strings.Cut(share, "=")
		n, err := strconv.Atoi(weight)
		if !ok || err != nil || n < 0 {
			return o, fmt.Errorf("--mix: want ESP=share,…, not %q", share)
		}
		o.mix[name] = n
	}
	o.phases = strings.Split(*some, ",")
	for _, p := range o.phases {
		if !slices.Contains(phases, p) {
			return o, fmt.Errorf("--phases: %q is none of %s", p, strings.Join(phases, ", "))
		}
	}
	return o, nil
}

// run measures everything and writes the report.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir := o.dataDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "aftersend-bench-"); err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, pglocal.Remove(context.WithoutCancel(ctx), filepath.Join(dir, "postgres")), os.RemoveAll(dir))
		}()
	}
	b, err := open(ctx, o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	runs, err := b.measure(ctx)
	if len(runs) == 0 {
		return err
	}
	report := Report{Machine: describeMachine(ctx, b.stack.DatabaseURL), Command: "go run ./dev/bench " + strings.Join(args, " "), Runs: runs}
	report.table(out) // what was measured before an error is worth having
	if o.json != "" {
		err = errors.Join(err, report.writeJSON(o.json, out))
	}
	return err
}

// bench is everything that runs.
type bench struct {
	o         options
	nonce     string
	stack     *stack.Stack
	generator *process
	targets   []load.Target
	profiler  profiler
}

// open starts the product and the generator, and introduces them to each other.
func open(ctx context.Context, o options, dir string) (b *bench, err error) {
	nonce := make([]byte, 3)
	_, _ = rand.Read(nonce)
	b = &bench{o: o, nonce: hex.EncodeToString(nonce)}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	so := stack.Options{DataDir: dir, NoUI: true, Env: map[stack.Role][]string{}, Postgres: o.postgres, Progress: b.progress}
	if o.verbose {
		so.Verbose = true
		so.Log = func(stack.Role) io.Writer { return os.Stderr }
	}
	if o.profile != "" {
		if b.profiler, err = newProfiler(o.profile); err != nil {
			return nil, err
		}
		maps.Copy(so.Env, b.profiler.env())
		maps.Copy(so.Postgres, b.profiler.postgres())
	}
	if b.stack, err = stack.Start(ctx, so); err != nil {
		return b, err
	}
	if b.generator, err = start(ctx, nil, "generator", b.nonce); err != nil {
		return b, err
	}
	if _, ours := b.stack.Pids()[stack.Postgres]; ours {
		b.progress("giving postgres the WAL files of a server that has been at work")
		if err := age(ctx, b.stack.DatabaseURL); err != nil {
			return b, err
		}
	}
	b.targets, err = setUp(ctx, b.stack.API, b.generator.ready, b.nonce, o.mix, o.webhooks)
	return b, err
}

func (b *bench) close() error {
	if b.generator != nil {
		b.generator.stop()
	}
	if b.stack == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return b.stack.Stop(ctx)
}

func (b *bench) progress(what string) {
	fmt.Fprintln(os.Stderr, time.Now().Format(time.TimeOnly), what)
}

// drainTime bounds the wait for what was accepted to arrive.
const drainTime = 120

// warmUp is how long each server is used before it is measured: connections, caches, the first growth of heaps and tables.
const warmUp = 4

// measure makes the runs in their order, and returns those it made.
func (b *bench) measure(ctx context.Context) (runs []Run, err error) {
	for _, c := range []struct{ phase, name string }{{"gin", "HTTP alone"}, {"commit", "group commit alone"}} {
		if b.wants(c.phase) {
			run, err := b.ceiling(ctx, c.phase, c.name)
			if err != nil {
				return runs, err
			}
			runs = append(runs, run)
		}
	}
	if !b.wants(phases[2:]...) {
		return runs, nil
	}
	if _, err := b.product(ctx, "", "warming up", warmUp, 0); err != nil {
		return runs, err
	}
	half := b.o.half
	if b.wants("closed") {
		run, err := b.product(ctx, "closed", fmt.Sprintf("product, %d connections", b.o.connections), b.o.seconds, 0)
		if err != nil {
			return runs, err
		}
		runs = append(runs, run)
		half = run.DeliveredPerSecond / 2
	}
	for _, open := range []struct {
		phase string
		rate  float64
	}{{"half", half}, {"2500", 2500}, {"1000", 1000}, {"50", 50}} {
		if b.wants(open.phase) {
			run, err := b.product(ctx, open.phase, fmt.Sprintf("product, %.0f/s offered", open.rate), b.o.short, open.rate)
			if err != nil {
				return runs, err
			}
			runs = append(runs, run)
		}
	}
	return runs, nil
}

// wants says whether any of the phases was asked for.
func (b *bench) wants(phases ...string) bool {
	return slices.ContainsFunc(phases, func(p string) bool { return slices.Contains(b.o.phases, p) })
}

// product measures the product, all of whose processes have an account. Only phases are profiled.
func (b *bench) product(ctx context.Context, phase, name string, seconds, rate float64) (Run, error) {
	accounts := load.Accounts{generator: b.generator.pid()}
	for role, pid := range b.stack.Pids() {
		accounts[string(role)] = pid
	}
	settle(ctx)
	b.progress(name)
	if phase == "" || b.o.profile == "" {
		return measure(ctx, b.generator, name, b.spec(b.stack.API, seconds, rate, true), accounts)
	}
	stop := b.profiler.start(ctx, phase, b.stack.DatabaseURL, seconds)
	run, err := measure(ctx, b.generator, name, b.spec(b.stack.API, seconds, rate, true), accounts)
	return run, errors.Join(err, stop())
}

func (b *bench) spec(server string, seconds, rate float64, deliveries bool) load.Spec {
	return load.Spec{
		Addr: strings.TrimPrefix(server, "http://"), Targets: b.targets, PerMessage: b.o.perMessage, Connections: b.o.connections,
		Seconds: seconds, Rate: rate, Deliveries: deliveries, DrainSeconds: drainTime,
	}
}

// ceiling measures a server of our own, with the same requests.
func (b *bench) ceiling(ctx context.Context, role, name string) (Run, error) {
	b.progress(name)
	database, err := url.Parse(b.stack.DatabaseURL)
	if err != nil {
		return Run{}, err
	}
	database.Path = "/aftersend_bench_" + b.nonce
	accounts := load.Accounts{generator: b.generator.pid()}
	if role == "commit" {
		drop, err := makeDatabase(ctx, b.stack.DatabaseURL, database.Path[1:])
		if err != nil {
			return Run{}, err
		}
		defer drop()
		if pid, ours := b.stack.Pids()[stack.Postgres]; ours {
			accounts[string(stack.Postgres)] = pid
		}
	}
	server, err := start(ctx, []string{databaseEnv + "=" + database.String()}, role)
	if err != nil {
		return Run{}, err
	}
	defer server.stop()
	accounts[ceiling] = server.pid()
	if _, err := measure(ctx, b.generator, name, b.spec(server.ready, warmUp/2, 0, false), accounts); err != nil {
		return Run{}, err
	}
	settle(ctx)
	return measure(ctx, b.generator, name, b.spec(server.ready, b.o.short, 0, false), accounts)
}
