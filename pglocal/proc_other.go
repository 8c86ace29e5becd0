//go:build !linux

package pglocal

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent: only Linux has such a thing; elsewhere the watcher process alone does it.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// isPostmaster tells whether process pid is a Postgres that works on pgdata, by its command line.
func isPostmaster(pid int, pgdata string) bool {
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), pgdata)
}
