package pglocal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// poll is how often a state that cannot be waited for is looked at.
const poll = 5 * time.Millisecond

// environment is all a server gets to see of ours: no secrets, no PG… variables, and libraries where they were set up.
func environment() []string {
	env := []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// command prepares a program of ours: as the account, in a process group of its own (a Ctrl-C at the terminal is for us, who
// then stop it in order), and sent sig when we die.
func (a account) command(sig syscall.Signal, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = environment()
	cmd.Dir = "/" // ours may be unreadable to the account
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	dieWithParent(cmd.SysProcAttr, sig)
	return cmd
}

// start starts cmd from a thread that lives as long as it (see dieWithParent) and returns a channel that is closed at its end.
func start(cmd *exec.Cmd) (done chan struct{}, err error) {
	started := make(chan error)
	done = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // cmd.ProcessState keeps how it ended
			close(done)
		}
	}()
	return done, <-started
}

// run runs cmd to its end, or kills it when ctx ends first.
func run(ctx context.Context, cmd *exec.Cmd) error {
	done, err := start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		return ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return errors.New(cmd.ProcessState.String())
	}
	return nil
}

// watch starts a small shell that outlives us: when the pipe to it closes without a word because we were killed, it sends sig to
// process pid, waits for its end and removes the directory given, if any. The returned function dismisses it.
// It is what ends the server where the kernel does not (see dieWithParent), and what clears away after tests.
func (a account) watch(pid int, sig, remove string) (dismiss func(), err error) {
	const script = `read _ && exit
kill -"$2" "$1" 2>/dev/null
while kill -0 "$1" 2>/dev/null; do sleep 0.05; done
[ -z "$3" ] || rm -rf -- "$3"`
	cmd := a.command(0, "/bin/sh", "-c", script, "watch-postgres", strconv.Itoa(pid), sig, remove)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	done, err := start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start the watcher of Postgres: %w", err)
	}
	return func() {
		_, _ = in.Write([]byte("\n"))
		_ = in.Close()
		<-done
	}, nil
}

// pidFile is what Postgres writes into postmaster.pid.
type pidFile struct {
	pid   int
	ready bool
}

func readPidFile(pgdata string) (pidFile, error) {
	b, err := os.ReadFile(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return pidFile{}, fmt.Errorf("postmaster.pid: %w", err)
	}
	// Line 8 is the state, padded: "starting", "stopping", "ready", "standby" (src/include/utils/pidfile.h).
	return pidFile{pid: pid, ready: len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"}, nil
}

// stopLeftover ends a server that a killed run left on pgdata. The caller holds the lock of the directory, so that server has no
// owner. A pid file whose process is something else by now is removed: Postgres would take any living process for a server.
func stopLeftover(ctx context.Context, pgdata string) error {
	p, err := readPidFile(pgdata)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read who runs the cluster: %w", err)
	}
	if !alive(p.pid) {
		return nil
	}
	if !isPostmaster(p.pid, pgdata) {
		return os.Remove(filepath.Join(pgdata, "postmaster.pid"))
	}
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, 15 * time.Second}, {syscall.SIGQUIT, 10 * time.Second}} {
		_ = syscall.Kill(p.pid, step.sig)
		for deadline := time.Now().Add(step.wait); time.Now().Before(deadline); time.Sleep(poll) {
			if !alive(p.pid) {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return fmt.Errorf("the server that an earlier run left behind on %s (process %d) does not stop", pgdata, p.pid)
}

// alive tells whether a process exists (a zombie does).
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
