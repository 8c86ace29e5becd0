// Package crash lets tests kill the process between two steps, to show that
// nothing acknowledged is lost there. The product only marks the places, which
// costs nothing to speak of; nothing in it can arm one. The children of the
// test stack in dev/ do, and so end as when the machine takes them away, in
// the very code that production runs.
//
// It imports the standard library only and may be used by every room.
package crash

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Point marks a place between two steps. Names are of the form
// room_before_step or room_after_step, each at one place only.
func Point(name string) {
	if t := armed.Load(); t != nil {
		t.pass(name)
	}
}

var armed atomic.Pointer[trap]

// trap is the point where the process is to end.
type trap struct {
	name string
	left atomic.Int64 // passages until the end
}

// Arm makes the process end by SIGKILL when it comes to a point: "name" for
// the first time, "name:3" for the third. "" arms nothing. Only test programs
// call it.
func Arm(where string) error {
	if where == "" {
		return nil
	}
	name, times, counted := strings.Cut(where, ":")
	n := int64(1)
	if counted {
		var err error
		if n, err = strconv.ParseInt(times, 10, 64); err != nil || n < 1 {
			return errors.New("arm crash point: want name or name:n with n from 1")
		}
	}
	t := &trap{name: name}
	t.left.Store(n)
	armed.Store(t)
	return nil
}

func (t *trap) pass(name string) {
	if name != t.name || t.left.Add(-1) != 0 {
		return
	}
	// No deferred call runs, no buffer is flushed.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way; nothing after this point may run
}
