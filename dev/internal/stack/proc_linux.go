package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dieWithParent has the kernel ask the child to stop when its parent dies. The child also notices by itself.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }

// tick is the unit of times in /proc: USER_HZ, which is 100 on every Linux.
const tick = 10 * time.Millisecond

// treeCPU is the user and system time of a process, its living descendants and the children each has waited for. Not the process
// group: Postgres' backends each lead their own.
func treeCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// After the name in parentheses, which may hold anything, fields count from 3: utime 14, stime 15, cutime 16, cstime 17.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	var ticks int64
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	used := time.Duration(ticks) * tick
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		children, _ := os.ReadFile(list) // a thread that has ended has none
		for _, c := range strings.Fields(string(children)) {
			n, err := strconv.Atoi(c)
			if err != nil {
				return 0, err
			}
			below, err := treeCPU(n)
			if err != nil && !os.IsNotExist(err) { // a child that has just ended is counted with its parent next time
				return 0, err
			}
			used += below
		}
	}
	return used, nil
}
