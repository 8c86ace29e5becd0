package stack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"aftersend/pglocal/filelock"
)

const (
	readyTime = 2 * time.Minute  // for a child to get ready; the first start makes schemas
	graceTime = 15 * time.Second // for a child to stop after SIGTERM
)

// child is the parent's side of a child process. The two are joined by pipes: the child's standard input carries its spec and stays
// open as long as the parent lives; descriptor 3 carries one line back, "ready" or what went wrong; standard error is its log.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	report chan string // one line, or closed without
	done   chan struct{}
	log    *logLines
}

func startChild(sp spec, env []string, log io.Writer) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	input, err := json.Marshal(sp)
	if err != nil {
		return nil, err
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe, childArg+string(sp.Role)), report: make(chan string, 1), done: make(chan struct{}), log: &logLines{to: log}}
	c.cmd.Env = env
	c.cmd.ExtraFiles = []*os.File{reportW}
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	c.cmd.WaitDelay = time.Second // for a grandchild that keeps the log open
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(c.cmd.SysProcAttr)
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.stdin = stdin

	started := make(chan error)
	go func() {
		// The kernel's signal at the parent's death is tied to the thread that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		reportW.Close()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // cmd.ProcessState keeps how it ended
			c.log.flush()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		reportR.Close()
		return nil, fmt.Errorf("start %s: %w", sp.Role, err)
	}
	go func() {
		defer reportR.Close()
		if line, err := bufio.NewReader(reportR).ReadString('\n'); err == nil {
			c.report <- strings.TrimSpace(line)
		}
		close(c.report)
	}()
	if _, err := stdin.Write(append(input, '\n')); err != nil {
		c.kill()
		return nil, fmt.Errorf("start %s: %w", sp.Role, err)
	}
	return c, nil
}

// waitReady waits for the child's report.
func (c *child) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	select {
	case line, ok := <-c.report:
		if line == reportReady {
			return nil
		}
		if ok {
			return errors.New(line)
		}
		<-c.done
		return fmt.Errorf("it ended (%s), its last words: %s", c.cmd.ProcessState, c.log.tail())
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w; its last words: %s", ctx.Err(), c.log.tail())
	}
}

// stop asks the child to end, and kills it when it has not by the end of ctx or of the time it is given.
func (c *child) stop(ctx context.Context) error {
	if ended(c.done) {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	case <-time.After(graceTime):
	}
	c.kill()
	return fmt.Errorf("%s had to be killed, it did not stop", c.cmd.Args[1][len(childArg):])
}

// kill ends the child and what it may have started, at once.
func (c *child) kill() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.done
	c.stdin.Close()
}

// roleLock is the file whose lock a role's process holds as long as it lives.
func roleLock(dir string, role Role) string { return filepath.Join(dir, "run", string(role)+".lock") }

// stopLeftover ends the process of a role that a killed run left behind: whoever holds the role's lock, since the lock of the data
// directory is ours.
func (s *Stack) stopLeftover(ctx context.Context, role Role) error {
	path := roleLock(s.dir, role)
	signal := func(sig syscall.Signal, wait time.Duration) error {
		lock, err := filelock.Try(path)
		if err == nil {
			lock.Release()
			return nil
		}
		var held *filelock.Held
		if !errors.As(err, &held) {
			return err
		}
		if held.Pid > 0 {
			s.opts.Progress(fmt.Sprintf("stopping the %s of an earlier run (process %d)", role, held.Pid))
			_ = syscall.Kill(held.Pid, sig)
		}
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if lock, err = filelock.Wait(ctx, path); err != nil {
			return err
		}
		lock.Release()
		return nil
	}
	if signal(syscall.SIGTERM, graceTime) == nil {
		return nil
	}
	if err := signal(syscall.SIGKILL, 5*time.Second); err != nil {
		return fmt.Errorf("stop the %s of an earlier run: %w", role, err)
	}
	return nil
}

// logLines passes a child's log on line by line, so that lines of several children do not mix, and remembers the last ones.
type logLines struct {
	mu      sync.Mutex
	to      io.Writer
	partial []byte
	last    []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.line(line)
		l.partial = append(l.partial[:0], rest...)
	}
}

func (l *logLines) line(line []byte) {
	l.last = append(l.last, string(line))
	if len(l.last) > 10 {
		l.last = l.last[1:]
	}
	_, _ = l.to.Write(append(line[:len(line):len(line)], '\n')) // a log that cannot be shown is no reason to stop
}

func (l *logLines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.line(l.partial)
		l.partial = nil
	}
}

func (l *logLines) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == 0 {
		return "none"
	}
	return strings.Join(l.last, "\n")
}
