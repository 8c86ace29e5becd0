// Command dev is the whole product on one machine with nothing set up: `go run ./dev` starts a private Postgres, the Temporal
// server and its web UI, and aftersend itself, and keeps their data in one directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"aftersend/dev/internal/stack"
)

func main() {
	stack.Child() // does not return when this process is one of the stack's children
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// stopTime is how long an orderly stop may take in all.
const stopTime = 40 * time.Second

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	atOnce, hurry := context.WithCancel(context.Background())
	defer hurry()
	go func() {
		select {
		case <-signals:
			fmt.Fprintln(stderr, "\nstopping (once more to stop at once)")
		case <-goRunGone():
		}
		stop()
		<-signals
		hurry()
	}()

	console := &console{out: stderr, color: isTerminal(stderr)}
	o.Log = console.log
	o.Progress = console.progress
	began := time.Now()
	s, err := stack.Start(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return 0
		}
		fmt.Fprintln(stderr, explain(err, o))
		return 1
	}
	banner(stdout, s, o, time.Since(began))

	err = supervise(ctx, s, console)
	stopping, cancel := context.WithTimeout(atOnce, stopTime)
	defer cancel()
	if err = errors.Join(err, s.Stop(stopping)); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (o stack.Options, err error) {
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.Addr, "addr", "127.0.0.1:8080", "where API and callbacks listen")
	flags.StringVar(&o.DataDir, "data", "./.aftersend", "keeps everything between starts; delete it to start afresh")
	flags.BoolVar(&o.Fast, "fast", false, "retry failed deliveries every 2 s, 8 times, to watch failure, pause and resume within a minute")
	flags.Bool("empty", false, "start without sample traffic (there is none yet, so it always does)")
	flags.StringVar(&o.DatabaseURL, "database-url", "", "use this Postgres `URL` instead of a private server; Temporal's databases are made beside it")
	flags.IntVar(&o.TemporalPort, "temporal-port", 7233, "of Temporal's gRPC; a free one is used when it is taken")
	flags.IntVar(&o.UIPort, "temporal-ui-port", 8233, "of Temporal's web UI; likewise")
	flags.BoolVar(&o.Verbose, "verbose", false, "show what the parts do, not only what goes wrong")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "unexpected argument %q; the flags are shown by --help\n", flags.Arg(0))
		return o, errors.New("unexpected argument")
	}
	return o, nil
}

// explain adds what to do about an error.
func explain(err error, o stack.Options) string {
	var taken *stack.Taken
	if errors.As(err, &taken) && taken.Addr == o.Addr {
		return fmt.Sprintf("%v: stop it, or choose another address, for example --addr 127.0.0.1:8081", err)
	}
	return err.Error()
}

// supervise restarts what ends by itself, until ctx ends. It gives up on a part that ends again and again.
func supervise(ctx context.Context, s *stack.Stack, c *console) error {
	const most, within = 5, time.Minute
	ended := make(chan stack.Role)
	watch := func(role stack.Role) {
		select {
		case <-s.Exited(role):
			select {
			case ended <- role:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
	}
	for role := range s.Pids() {
		go watch(role)
	}
	restarts := map[stack.Role][]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case role := <-ended:
			recent := restarts[role][:0]
			for _, at := range restarts[role] {
				if time.Since(at) < within {
					recent = append(recent, at)
				}
			}
			if restarts[role] = append(recent, time.Now()); len(recent) >= most {
				return fmt.Errorf("%s ended %d times within %v; its log says why", role, most+1, within)
			}
			c.progress(string(role) + " has ended by itself, it is started again")
			if err := s.Restart(ctx, role); err != nil && ctx.Err() == nil {
				return err
			}
			go watch(role)
		}
	}
}

// banner says where everything is, and two things to try.
func banner(w io.Writer, s *stack.Stack, o stack.Options, took time.Duration) {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "  %-14s %s\n", name, value) }
	fmt.Fprintf(&b, "\naftersend is ready after %.1f s\n\n", took.Seconds())
	line("API", s.API+"/api/v1   described at "+s.API+"/api/docs")
	line("Callbacks", s.API+"/callbacks/{esp}/"+stack.Token)
	line("Outbox", s.Outbox()+"   mails that would be sent")
	line("Temporal UI", s.TemporalUI)
	database := s.DatabaseURL
	if u, err := url.Parse(o.DatabaseURL); err == nil && o.DatabaseURL != "" {
		database = u.Redacted() // a password of someone else's server is not ours to show
	}
	line("Postgres", database)
	line("Data", s.DataDir())
	line("Token", stack.Token+"   for the API and in callback addresses, good on this machine only")
	for _, moved := range s.Moved {
		line("Note", moved)
	}
	fmt.Fprintf(&b, `
Try it: a bounce as Mailtrap reports it, and what became of it

  curl -H 'Content-Type: application/json' %[1]s/callbacks/mailtrap/%[2]s -d '{"events":[{"event":"bounce","email":"jo@example.com",
    "message_id":"m-1","event_id":"e-%[3]d","timestamp":%[3]d,"response":"550 5.1.1 no such user","response_code":550}]}'
  curl -H 'Authorization: Bearer %[2]s' '%[1]s/api/v1/messages?recipient=jo@example.com'

Ctrl-C stops it. The data stay.
`, s.API, stack.Token, time.Now().Unix())
	_, _ = io.WriteString(w, b.String())
}

// console shows the parts' logs, each line under its part's name, and what is going on.
type console struct {
	mu    sync.Mutex
	out   io.Writer
	color bool
}

var colors = map[stack.Role]int{stack.Postgres: 34, stack.Temporal: 35, stack.Serve: 36}

func (c *console) log(role stack.Role) io.Writer {
	prefix := fmt.Sprintf("%-8s | ", role)
	if c.color {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colors[role], prefix)
	}
	return writerFunc(func(line []byte) (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, err := fmt.Fprintf(c.out, "%s%s", prefix, line)
		return len(line), err
	})
}

func (c *console) progress(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(c.out, "· "+what)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
