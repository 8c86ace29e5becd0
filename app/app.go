// Package app wires the rooms into a process and runs it: the api role takes
// callbacks in and serves people, the worker role processes and delivers, and
// one process may do both. It starts what a role needs in order, and on the way
// out drains in the opposite one, so that nothing is answered that is not
// stored and no attempt is cut off.
//
// It may import everything but cmd and dev.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.temporal.io/sdk/client"

	"aftersend/activities"
	"aftersend/api"
	"aftersend/config"
	"aftersend/esp/all"
	"aftersend/esp/keyring"
	"aftersend/intake"
	"aftersend/manage"
	"aftersend/migrations"
	"aftersend/notify"
	"aftersend/outbound"
	"aftersend/seal"
	"aftersend/store"
	"aftersend/watch"
	"aftersend/worker"
	"aftersend/workflows"
)

// Roles says what a process does.
type Roles struct {
	API    bool // takes callbacks in, serves /api/v1
	Worker bool // runs workflows and activities
}

// Options is what a process gets from whoever starts it, besides its
// configuration.
type Options struct {
	Extra map[string]http.Handler // further pages beside the API, by path prefix
	Ready func(addr string)       // called once, when the API listens at addr ("" without the API role)
	Log   *slog.Logger            // nil = JSON to standard error
}

// Bounds of starting and stopping.
const (
	databaseWait = time.Minute      // for Postgres to answer at the start
	httpStop     = 25 * time.Second // for requests that are being answered
	houseEvery   = time.Hour
	mailTimeout  = 45 * time.Second // for the conversation with the mail server
)

// OpenStore opens the database of the configuration with its sealing keys.
func OpenStore(ctx context.Context, cfg config.Config) (*store.Store, error) {
	if cfg.Database.URL == "" {
		return nil, errors.New("no database is set: set database.url, or DATABASE_URL, to postgres://user:password@host/name")
	}
	if cfg.Seal.Keys == "" {
		return nil, errors.New("no sealing key is set: make one with `aftersend keys generate` and set seal.keys")
	}
	keys, err := seal.ParseKeys(cfg.Seal.Keys)
	if err != nil {
		return nil, err
	}
	box, err := seal.New(keys...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, databaseWait)
	defer cancel()
	return store.Open(ctx, cfg.Database.URL, box, store.Options{MaxConns: cfg.Database.MaxConns})
}

// Run runs a process until ctx ends or its listener fails, then drains it. It
// fails at once when the database cannot be used; Temporal may come later.
func Run(ctx context.Context, cfg config.Config, roles Roles, o Options) error {
	if o.Log == nil {
		o.Log = NewLogger(os.Stderr, cfg.Log)
	}
	tuneMemory()
	st, err := OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := prepare(ctx, cfg, st); err != nil {
		return err
	}
	p, err := build(cfg, roles, o, st)
	if err != nil {
		return err
	}
	defer p.close()
	account, err := p.manage.Bootstrap(ctx, cfg.Dev.Token)
	if err != nil {
		return err
	}
	if cfg.Mail.Owner != "" {
		if err := st.EnsureOwner(ctx, account, cfg.Mail.Owner); err != nil {
			return err
		}
	}
	return p.run(ctx)
}

// prepare brings the schema to where this binary needs it.
func prepare(ctx context.Context, cfg config.Config, st *store.Store) error {
	schema := migrations.Check
	if cfg.Database.Migrate {
		schema = migrations.Up
	}
	if err := schema(ctx, st.DB()); err != nil {
		return err
	}
	return st.MakePartitions(ctx, time.Now())
}

// process is the rooms, wired.
type process struct {
	cfg     config.Config
	roles   Roles
	o       Options
	log     *slog.Logger
	metrics *prometheus.Registry

	store    *store.Store
	temporal client.Client
	engine   *engine
	outbound *outbound.Client
	keys     *keyring.Keyring
	manage   *manage.Manager
	flusher  *intake.Flusher
	starter  *intake.Starter
	sweeper  *intake.Sweeper
	worker   *worker.Worker // nil without the worker role

	draining atomic.Bool
}

func build(cfg config.Config, roles Roles, o Options, st *store.Store) (*process, error) {
	p := &process{cfg: cfg, roles: roles, o: o, log: o.Log, store: st, metrics: prometheus.NewRegistry()}
	p.metrics.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewDBStatsCollector(st.DB(), "aftersend"),
	)
	var err error
	if p.temporal, err = Dial(cfg.Temporal, p.log); err != nil {
		return nil, err
	}
	p.engine = &engine{
		// A workflow starts in this very process when its worker is here too.
		Client:    &workflows.Client{Temporal: p.temporal, Eager: roles.API && roles.Worker, Reviews: cfg.Deferrals.Reviews},
		namespace: cfg.Temporal.Namespace, log: p.log,
	}
	p.outbound = outbound.New(outbound.Options{AllowedPrefixes: cfg.Delivery.AllowedPrefixes, AllowedPorts: cfg.Delivery.AllowedPorts})
	p.keys = keyring.New(p.fetch, net.DefaultResolver, time.Now)
	p.manage = manage.New(manage.Deps{
		Store: st, Engine: p.engine, Adapters: all.Adapters(), Defaults: cfg.Delivery, Sender: p.outbound, Now: time.Now, Log: p.log,
	})
	p.buildIntake()
	if roles.Worker {
		err = p.buildWorker()
	}
	return p, err
}

func (p *process) buildIntake() {
	host, _ := os.Hostname() // a name for people; without one the process id must do
	c := p.cfg.Intake
	o := intake.Options{
		Host:    fmt.Sprintf("%s/%d", host, os.Getpid()),
		MaxRows: c.MaxRows, MaxBytes: c.MaxBytes, MaxInFlightBytes: c.MaxInFlightBytes,
		GroupMaxCallbacks: c.GroupMaxCallbacks, GroupMaxBytes: c.GroupMaxBytes, OpenGroups: c.OpenGroups,
		Metrics: p.metrics,
	}
	p.starter = intake.NewStarter(p.store, p.engine, o, p.log)
	if p.roles.API {
		o.Committed = p.starter.Offer
		p.flusher = intake.New(p.store, o, p.log)
	}
	p.sweeper = intake.NewSweeper(p.store, p.engine, p.starter, p.flusher, o, p.log)
}

func (p *process) buildWorker() error {
	hub := &activities.Hub{}
	processing := &activities.Processing{
		Store: p.store, Adapters: all.ByName, Keys: p.keys, Waker: p.engine, Hub: hub, Log: p.log,
		PublicURL: p.cfg.API.PublicURL, Confirm: p.confirm, OnGroupDone: p.starter.Done,
	}
	c := p.cfg.Mail
	mailer, err := notify.New(notify.Options{
		Addr: c.SMTPAddr, Username: c.Username, Password: c.Password, TLS: c.TLS, From: c.From, Timeout: mailTimeout,
	})
	if err != nil {
		return err
	}
	delivery := &activities.Delivery{
		Store: p.store, Client: p.outbound, Mailer: mailer, Hub: hub, PublicURL: p.cfg.API.BaseURL(), Log: p.log,
		Limits: activities.DeliveryLimits{
			DrainFor: workflows.DrainFor, LingerFor: workflows.LingerFor, Poll: workflows.LingerPoll, Spacing: workflows.BatchSpacing,
		},
	}
	p.worker = worker.New(p.temporal, worker.Deps{
		Processing: processing, Delivery: delivery, Sweep: p.sweeper.Sweep, Watch: p.watch().Watch, Attributes: p.engine.attributes.Load, Log: p.log,
	}, worker.Options{StopTimeout: p.cfg.Temporal.WorkerStopTimeout})
	return nil
}

func (p *process) watch() *activities.Watch {
	c := p.cfg.Watch
	return &activities.Watch{
		Store: p.store, PublicURL: p.cfg.API.BaseURL(), Now: time.Now, Log: p.log,
		Settings: watch.Settings{
			DropBelow: c.DropBelow, DropEvents: c.DropEvents, SilentEvents: c.SilentEvents,
			FailureShare: c.FailureShare, FailureRise: c.FailureRise, FailureEvents: c.FailureEvents,
		},
	}
}

// fetchTimeout bounds the look-up of a certificate and the confirmation of a
// subscription.
const fetchTimeout = 10 * time.Second

func (p *process) fetch(ctx context.Context, url string) (int, []byte, error) {
	a := p.outbound.Do(ctx, outbound.Request{Method: http.MethodGet, URL: url, Timeout: fetchTimeout})
	if a.Status == 0 {
		return 0, nil, fmt.Errorf("no answer: %s", a.Class)
	}
	return a.Status, a.Body, nil
}

func (p *process) confirm(ctx context.Context, url string) error {
	status, _, err := p.fetch(ctx, url)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("answered %d", status)
	}
	return err
}

func (p *process) close() {
	p.temporal.Close()
	p.outbound.Close()
}

// run starts everything, waits, and drains.
func (p *process) run(ctx context.Context) error {
	servers, addr, err := p.listen()
	if err != nil {
		return err
	}
	var stops []func() // in the order of starting; stopped in the opposite one
	start := func(f func(context.Context)) { stops = append(stops, inBackground(f)) }
	start(p.engine.watch)
	start(p.keepHouse)
	if p.roles.Worker {
		start(p.work)
	}
	start(p.sweeper.Run)
	start(p.starter.Run) // a lone worker's sweeper hands it what dead processes left
	if p.roles.API {
		start(p.flusher.Run)
	}
	failed := make(chan error, len(servers))
	for _, s := range servers {
		go func() { failed <- s.serve() }()
	}
	p.log.Info("running", "api", p.roles.API, "worker", p.roles.Worker, "addr", addr)
	if p.o.Ready != nil {
		p.o.Ready(addr)
	}

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	p.log.Info("stopping")
	p.draining.Store(true)
	if err == nil && p.roles.API {
		time.Sleep(p.cfg.API.DrainDelay)
	}
	for _, s := range servers {
		s.stop()
	}
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	p.log.Info("stopped")
	return err
}

// inBackground runs f until the returned function is called, which waits for it.
func inBackground(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// work runs the worker until ctx ends, and then lets its activities finish.
func (p *process) work(ctx context.Context) {
	p.worker.Start()
	<-ctx.Done()
	p.worker.Stop()
}

// keepHouse removes what nobody needs any more.
func (p *process) keepHouse(ctx context.Context) {
	for {
		if err := p.store.TrimIdempotencyKeys(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("housekeeping failed; it is tried again in an hour", "error_class", store.Class(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(houseEvery):
		}
	}
}

// server is a listener and what answers on it.
type server struct {
	http     *http.Server
	listener net.Listener
}

// listen opens the listeners of the roles; addr is where the API is.
func (p *process) listen() (servers []server, addr string, err error) {
	deps := api.Deps{
		Config: p.cfg, Store: p.store, Flusher: p.flusher, Adapters: all.ByName, Manage: p.manage, Log: p.log,
		Metrics: p.metrics, Keys: p.keys.Cached(), Extra: p.o.Extra, Status: p.status,
	}
	open := func(addr string, h http.Handler) (string, error) {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return "", fmt.Errorf("listen: %w", err)
		}
		c := p.cfg.API
		c.Addr = addr
		servers = append(servers, server{api.NewServer(c, p.notReadyWhileDraining(h), p.log), listener})
		return listener.Addr().String(), nil
	}
	if p.roles.API {
		if addr, err = open(p.cfg.API.Addr, api.New(deps)); err != nil {
			return nil, "", err
		}
	}
	if p.cfg.API.AdminAddr != "" {
		if _, err = open(p.cfg.API.AdminAddr, api.Admin(deps)); err != nil {
			for _, s := range servers {
				_ = s.listener.Close()
			}
			return nil, "", err
		}
	}
	return servers, addr, nil
}

// notReadyWhileDraining tells balancers to look elsewhere.
func (p *process) notReadyWhileDraining(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.draining.Load() && r.URL.Path == "/readyz" {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s server) serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// stop lets requests finish, for a while.
func (s server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), httpStop)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// status is what readiness does not depend on.
func (p *process) status() map[string]string {
	word := func(ok bool, otherwise string) string {
		if ok {
			return "ok"
		}
		return otherwise
	}
	status := map[string]string{"temporal": word(p.engine.reachable.Load(), "unreachable")}
	if p.roles.Worker {
		status["worker"] = word(p.worker.Running(), "not running")
	}
	return status
}
