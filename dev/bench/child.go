package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // for the children that are profiled
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"aftersend/dev/bench/load"
)

// The benchmark's own children are this binary again, so that each has CPU clocks of its own. They speak lines of JSON on
// standard input and output, and end when their standard input does.

// childArg is the first argument of a child; the role follows.
const childArg = "bench-child"

// roles are the children's main functions.
var roles = map[string]func(ctx context.Context, p *pipe, args []string) error{
	"generator": generate,
	"gin":       serveGin,
	"commit":    serveCommit,
}

// child runs a child of the benchmark and does not return, when this process was started as one.
func child() {
	if addr := os.Getenv(pprofEnv); addr != "" {
		go func() { fmt.Fprintln(os.Stderr, "pprof:", http.ListenAndServe(addr, nil)) }()
	}
	if len(os.Args) < 3 || os.Args[1] != childArg {
		return
	}
	signal.Ignore(syscall.SIGINT) // of a terminal; the parent decides
	ctx, stop := context.WithCancel(context.Background())
	p := &pipe{lines: make(chan []byte), out: json.NewEncoder(os.Stdout)}
	go func() {
		p.read(os.Stdin)
		stop()
	}()
	if err := roles[os.Args[2]](ctx, p, os.Args[3:]); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// pipe is a child's side of the conversation.
type pipe struct {
	lines chan []byte
	out   *json.Encoder
}

func (p *pipe) read(r io.Reader) {
	defer close(p.lines)
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		p.lines <- line
	}
}

// message is a line from a child.
type message struct {
	Ready  string       `json:"ready,omitempty"`  // first line: the address or URL where it listens
	Moment load.Moment  `json:"moment,omitempty"` // of a run; it goes on when it is answered with an empty line
	Result *load.Result `json:"result,omitempty"`
	Error  string       `json:"error,omitempty"`
}

// generate is the main function of the generator and sink; its argument is the nonce.
func generate(ctx context.Context, p *pipe, args []string) error {
	sink, err := load.NewSink(args[0])
	if err != nil {
		return err
	}
	g := load.NewGenerator(args[0], sink)
	if err := p.out.Encode(message{Ready: sink.URL()}); err != nil {
		return err
	}
	for line := range p.lines {
		var spec load.Spec
		if err := json.Unmarshal(line, &spec); err != nil {
			return err
		}
		result, err := g.Run(ctx, spec, func(m load.Moment) {
			_ = p.out.Encode(message{Moment: m})
			<-p.lines
		})
		m := message{Result: &result}
		if err != nil {
			m = message{Error: err.Error()}
		}
		if err := p.out.Encode(m); err != nil {
			return err
		}
	}
	return nil
}

// serveUntil serves h on a free loopback port until ctx ends, and says where.
func serveUntil(ctx context.Context, p *pipe, h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := p.out.Encode(message{Ready: l.Addr().String()}); err != nil {
		return err
	}
	go func() {
		for range p.lines { // nothing is asked of it
		}
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// process is the parent's side.
type process struct {
	ready string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
}

func start(ctx context.Context, env []string, role string, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, exe, append([]string{childArg, role}, args...)...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	m, err := p.next()
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p.ready = m.Ready
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) next() (message, error) {
	var m message
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return m, fmt.Errorf("it ended: %w", err)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, err
	}
	if m.Error != "" {
		return m, errors.New(m.Error)
	}
	return m, nil
}

func (p *process) say(v any) error { return json.NewEncoder(p.in).Encode(v) }

func (p *process) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}
