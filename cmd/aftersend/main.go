// Command aftersend takes in what e-mail service providers say about mail, and
// brings it to those who want to know. One small file per subcommand; what they
// do is in the other rooms.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"aftersend/app"
	"aftersend/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line makes no sense
)

// run is the program, without the process around it.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	c := &cli{environ: environ, stderr: stderr}
	root := c.command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "error: %v\n", err)
	if !c.running {
		fmt.Fprintln(stderr, "`aftersend --help` lists what there is")
		return exitUsage
	}
	return exitFailed
}

// cli is what the subcommands share.
type cli struct {
	environ    []string
	stderr     io.Writer
	configFile string
	running    bool // a command has begun: errors are no longer about the command line
}

func (c *cli) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "aftersend",
		Short:         "Callbacks from e-mail service providers, understood and delivered",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			c.running = true
		},
	}
	root.PersistentFlags().StringVar(&c.configFile, "config", "", "YAML file with settings (default: $AFTERSEND_CONFIG)")
	root.AddCommand(
		c.serveCommand(),
		c.apiCommand(),
		c.workerCommand(),
		c.migrateCommand(),
		c.doctorCommand(),
		c.tokenCommand(),
		c.keysCommand(),
		c.configCommand(),
		newParseCommand(),
		newBounceCommand(),
		c.sendCommand(),
		c.receiveCommand(),
	)
	return root
}

// load reads the configuration.
func (c *cli) load() (config.Config, error) { return config.Load(c.configFile, c.environ) }

func (c *cli) logger(cfg config.Config) *slog.Logger { return app.NewLogger(c.stderr, cfg.Log) }

// needsSubcommand is the RunE of a command that only groups others.
func needsSubcommand(cmd *cobra.Command, _ []string) error {
	return errors.New("say what to do: " + cmd.UseLine())
}
