package pglocal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dieWithParent makes the kernel send sig to the child when the thread that started it ends, which is why children are started
// from a locked thread.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// isPostmaster tells whether process pid is a Postgres that works on pgdata: a postmaster makes that its working directory.
func isPostmaster(pid int, pgdata string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || !strings.HasPrefix(filepath.Base(exe), "postgres") {
		return false
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == pgdata
}
