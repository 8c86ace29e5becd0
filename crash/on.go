//go:build crashpoints

// Package crash: see off.go.
package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Point ends the process by SIGKILL when AFTERSEND_CRASH names it: no
// deferred call runs, no buffer is flushed, as when the machine takes it away.
func Point(name string) {
	if name != wanted || left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way; nothing after this point may run
}

var (
	wanted string
	left   atomic.Int64 // passages until the end
)

func init() {
	name, times, found := strings.Cut(os.Getenv("AFTERSEND_CRASH"), ":")
	n := int64(1)
	if found {
		var err error
		if n, err = strconv.ParseInt(times, 10, 64); err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "AFTERSEND_CRASH: want name or name:n with n from 1\n")
			os.Exit(2)
		}
	}
	wanted = name
	left.Store(n)
}
