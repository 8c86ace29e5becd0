package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflowservice/v1"

	"aftersend/app"
	"aftersend/config"
	"aftersend/migrations"
	"aftersend/seal"
	"aftersend/store"
)

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check what aftersend needs, and say how to mend what is missing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{out: cmd.OutOrStdout()}
			cfg, err := c.load()
			if err != nil {
				d.fix("configuration", err, "see `aftersend config print` for what there is")
				return d.verdict()
			}
			d.ok("configuration", "readable")
			d.database(cmd.Context(), cfg)
			d.temporal(cmd.Context(), cfg, c)
			d.publicURL(cmd.Context(), cfg)
			if cfg.Mail.SMTPAddr == "" {
				d.fix("mail", errors.New("no mail server is set"), "set mail.smtp_addr and mail.from, or nobody hears of a paused webhook")
			} else {
				d.ok("mail", "notices go through "+cfg.Mail.SMTPAddr)
			}
			return d.verdict()
		},
	}
}

// doctor prints a line per check.
type doctor struct {
	out   io.Writer
	fixes int
}

func (d *doctor) ok(what, about string) {
	fmt.Fprintf(d.out, "ok   %-18s %s\n", what, about)
}

func (d *doctor) fix(what string, err error, remedy string) {
	d.fixes++
	fmt.Fprintf(d.out, "fix  %-18s %v\n     %-18s %s\n", what, err, "", remedy)
}

func (d *doctor) verdict() error {
	if d.fixes > 0 {
		return fmt.Errorf("%d to mend", d.fixes)
	}
	return nil
}

// within bounds each check.
const within = 5 * time.Second

func (d *doctor) database(ctx context.Context, cfg config.Config) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	keys, err := seal.ParseKeys(cfg.Seal.Keys)
	if cfg.Seal.Keys == "" {
		err = errors.New("no key is set")
	}
	if err != nil {
		d.fix("seal keys", err, "make one with `aftersend keys generate` and set seal.keys")
		keys = []seal.Key{seal.NewKey(0)} // opens nothing; the checks below need none
	} else {
		d.ok("seal keys", fmt.Sprintf("%d, number %d seals", len(keys), keys[0].ID))
	}
	if cfg.Database.URL == "" {
		d.fix("database", errors.New("no database is set"), "set database.url, or DATABASE_URL, to postgres://user:password@host/name")
		return
	}
	box, err := seal.New(keys...)
	if err != nil {
		d.fix("seal keys", err, "make one with `aftersend keys generate`")
		return
	}
	st, err := store.Open(ctx, cfg.Database.URL, box, store.Options{MaxConns: 4})
	if err != nil {
		d.fix("database", err, "check database.url, that Postgres runs and lets this machine in")
		return
	}
	defer st.Close()
	if err := migrations.Check(ctx, st.DB()); err != nil {
		d.ok("database", "answers")
		d.fix("schema", err, "run `aftersend migrate`")
		return
	}
	about, err := st.Inspect(ctx)
	if err != nil {
		d.fix("database", err, "check the rights of the role in database.url")
		return
	}
	d.ok("database", "PostgreSQL "+about.Version)
	d.ok("schema", "up to date")
	if about.SynchronousCommit == "off" {
		d.fix("durability", errors.New("synchronous_commit is off: callbacks that were answered 200 can be lost"), "switch it on for the role in database.url")
	} else {
		d.ok("durability", "synchronous_commit is "+about.SynchronousCommit)
	}
	if ahead := time.Until(about.PartitionsThrough); ahead < 2*24*time.Hour {
		d.fix("partitions", errors.New("fewer than 2 days are made ahead"), "start a process: each makes them at its start and hourly")
	} else {
		d.ok("partitions", "made through "+about.PartitionsThrough.Format(time.DateOnly))
	}
}

func (d *doctor) temporal(ctx context.Context, cfg config.Config, c *cli) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cl, err := app.Dial(cfg.Temporal, c.logger(cfg))
	if err != nil {
		d.fix("temporal", err, "check the TEMPORAL_… variables")
		return
	}
	defer cl.Close()
	if _, err := cl.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{}); err != nil {
		d.fix("temporal", err, "check temporal.address ("+cfg.Temporal.Address+"); until it answers, callbacks are stored and wait")
		return
	}
	d.ok("temporal", cfg.Temporal.Address)
	_, err = cl.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: cfg.Temporal.Namespace})
	if err != nil {
		d.fix("namespace", err, "temporal operator namespace create --retention 24h "+cfg.Temporal.Namespace)
		return
	}
	d.ok("namespace", cfg.Temporal.Namespace)
	missing, err := app.MissingSearchAttributes(ctx, cl, cfg.Temporal.Namespace)
	switch {
	case err != nil:
		d.fix("search attributes", err, "they are left out; everything else works")
	case len(missing) > 0:
		for name, kind := range missing {
			d.fix("search attributes", errors.New(name+" is missing"),
				"temporal operator search-attribute create --namespace "+cfg.Temporal.Namespace+" --name "+name+" --type "+kind.String())
		}
	default:
		d.ok("search attributes", "registered")
	}
}

func (d *doctor) publicURL(ctx context.Context, cfg config.Config) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	base := cfg.API.BaseURL()
	remedy := "set api.public_url to how ESPs reach this machine, and start `aftersend serve`"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/livez", nil)
	if err != nil {
		d.fix("public URL", err, remedy)
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.fix("public URL", err, remedy)
		return
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		d.fix("public URL", fmt.Errorf("%s/livez answers %s", base, res.Status), remedy)
		return
	}
	d.ok("public URL", base)
}
