package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// goRunGone is closed when the `go run` that started us has ended before us: killing that one does not reach us, and nobody would
// find out what still holds the ports. Started otherwise, it never is.
func goRunGone() <-chan struct{} {
	gone := make(chan struct{})
	parent := os.Getppid()
	if program(parent) != "go" {
		return gone
	}
	go func() {
		for os.Getppid() == parent {
			time.Sleep(250 * time.Millisecond)
		}
		close(gone)
	}()
	return gone
}

// program is the name of a process's program, "" when it cannot be found out.
func program(pid int) string {
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		return strings.TrimSpace(string(comm))
	}
	out, err := exec.Command("ps", "-o", "ucomm=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
