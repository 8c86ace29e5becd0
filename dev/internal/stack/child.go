package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"aftersend/dev/internal/engine"
	"aftersend/pglocal/filelock"
)

const (
	childArg    = "child:" // followed by the role, the one argument of a child
	reportReady = "ready"
	orphanTime  = 10 * time.Second // for a child to stop after its parent was killed
)

// spec is what a child is told on its standard input. The rest of the product's configuration is in its environment.
type spec struct {
	Role    Role
	DataDir string
	Engine  engine.Options
}

// runs are the children's main functions. They run until ctx ends and call ready once they serve.
var runs = map[Role]func(ctx context.Context, sp spec, ready func()) error{
	Temporal: func(ctx context.Context, sp spec, ready func()) error { return engine.Run(ctx, sp.Engine, ready) },
	Serve:    runProduct,
	API:      runProduct,
	Worker:   runProduct,
}

// Child runs a child of the stack and does not return, when this process was started as one. Call it first in main or TestMain.
func Child() {
	if len(os.Args) != 2 {
		return
	}
	role, is := strings.CutPrefix(os.Args[1], childArg)
	if !is {
		return
	}
	os.Exit(childMain(Role(role)))
}

func childMain(role Role) int {
	// The parent reads our log. When it is gone, a line nobody reads must not end us before we have stopped in order.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	report := os.NewFile(3, "report")
	tell := func(line string) {
		_, _ = report.WriteString(strings.ReplaceAll(line, "\n", " ") + "\n")
		_ = report.Close()
	}
	sp, err := readSpec(role, stop)
	if err == nil {
		var lock *filelock.Lock
		if lock, err = filelock.Try(roleLock(sp.DataDir, role)); err == nil {
			defer lock.Release()
			err = runs[role](ctx, sp, func() { tell(reportReady) })
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		tell(err.Error())
		return 1
	}
	return 0
}

// readSpec reads the spec, and has the child stop when the parent's end of the pipe closes, which it does when the parent dies.
func readSpec(role Role, stop func()) (sp spec, err error) {
	if runs[role] == nil {
		return sp, fmt.Errorf("%q is no role", role)
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return sp, fmt.Errorf("a child is started by its stack only: %w", err)
	}
	if err := json.Unmarshal(line, &sp); err != nil {
		return sp, fmt.Errorf("read what to run: %w", err)
	}
	go func() {
		_, _ = in.ReadByte() // nothing more comes
		time.AfterFunc(orphanTime, func() { os.Exit(1) })
		stop()
	}()
	return sp, nil
}
