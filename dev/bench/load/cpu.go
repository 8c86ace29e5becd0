package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc on Linux, USER_HZ.
const tick = 10 * time.Millisecond

// CPU is a reading of CPU clocks: user and system time by name, that of all processes of the machine together under Machine.
type CPU map[string]time.Duration

// Machine is the name in CPU of everything that ran, ours or not.
const Machine = "machine"

// Accounts are the processes to read, by name. A process counts with its descendants, living and reaped, but for those that
// have an account of their own: the backends of Postgres come and go.
type Accounts map[string]int

// Read returns the clocks. That one of the processes has ended is an error.
func (a Accounts) Read() (CPU, error) {
	procs, err := processes()
	if err != nil {
		return nil, err
	}
	owner := map[int]string{}
	for name, pid := range a {
		if _, ok := procs[pid]; !ok {
			return nil, fmt.Errorf("%s (process %d) has ended", name, pid)
		}
		owner[pid] = name
	}
	sum := CPU{}
	for pid, p := range procs {
		for up := pid; up > 1; up = procs[up].parent {
			if name, ok := owner[up]; ok {
				sum[name] += p.used
				break
			}
		}
	}
	sum[Machine], err = machine()
	return sum, err
}

// Memory returns the most memory, in bytes, that each process has had resident so far; its descendants are not counted, since
// those of Postgres share most of theirs.
func (a Accounts) Memory() (map[string]int64, error) {
	most := map[string]int64{}
	for name, pid := range a {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", name, err)
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
				kb, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return nil, errStat
				}
				most[name] = kb << 10
			}
		}
	}
	return most, nil
}

// Since returns what was used between two readings.
func (c CPU) Since(earlier CPU) CPU {
	used := CPU{}
	for name, now := range c {
		used[name] = now - earlier[name]
	}
	return used
}

type process struct {
	parent int
	used   time.Duration
}

// processes reads all of /proc. What ends meanwhile is left out.
func processes() (map[int]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("CPU accounting needs Linux's /proc: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := map[int]process{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if p, err := parseStat(stat); err == nil {
			all[pid] = p
		}
	}
	return all, nil
}

var errStat = errors.New("/proc: not the format of proc(5)")

// parseStat reads /proc/PID/stat: after the name in parentheses, which may hold anything, come state, parent and, as the 12th
// to 15th, utime, stime, and those of reaped children.
func parseStat(stat []byte) (process, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return process{}, errStat
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 15 {
		return process{}, errStat
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, errStat
	}
	p := process{parent: parent}
	for _, f := range fields[11:15] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return process{}, errStat
		}
		p.used += time.Duration(ticks) * tick
	}
	return p, nil
}

// machine reads the busy time of all CPUs from the first line of /proc/stat: not idle, iowait, what the host stole, nor the
// guests' time, which is in user's.
func machine() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, errStat
	}
	var busy time.Duration
	for i, f := range fields[1:8] { // user nice system idle iowait irq softirq
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, errStat
		}
		if i != 3 && i != 4 {
			busy += time.Duration(ticks) * tick
		}
	}
	return busy, nil
}
