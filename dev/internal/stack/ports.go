package stack

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// browsable is an address that a client on this machine can use for a listener's ("0.0.0.0:80", ":80").
func browsable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Taken is the error of an address that someone listens on.
type Taken struct {
	Addr string
	By   string // "process 12 (nginx)", "" when that cannot be found out
}

func (t *Taken) Error() string {
	if t.By == "" {
		return t.Addr + " is taken by another process"
	}
	return t.Addr + " is taken by " + t.By
}

// free tells whether addr can be listened on; *Taken when it cannot because someone else does.
func free(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return &Taken{Addr: addr, By: listener(addr)}
	}
	return fmt.Errorf("listen on %s: %w", addr, err)
}

// freePort is want when it is free, else a loopback port that was free a moment ago.
func freePort(want int) (int, error) {
	if want != 0 && free(loopback(want)) == nil {
		return want, nil
	}
	l, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// listener says who listens on addr's port, as far as ss (Linux) or lsof (elsewhere) can tell.
func listener(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	if out, err := exec.Command("ss", "-Hltnp", "sport = :"+port).Output(); err == nil {
		return parseSS(string(out))
	}
	out, err := exec.Command("lsof", "-nP", "-iTCP:"+port, "-sTCP:LISTEN", "-Fpc").Output()
	if err != nil {
		return ""
	}
	return parseLsof(string(out))
}

// parseSS reads `users:(("nginx",pid=12,fd=6))`.
func parseSS(out string) string {
	_, after, ok := strings.Cut(out, `users:(("`)
	name, after, ok2 := strings.Cut(after, `",pid=`)
	pid, _, ok3 := strings.Cut(after, ",")
	if !ok || !ok2 || !ok3 {
		return ""
	}
	return fmt.Sprintf("process %s (%s)", pid, name)
}

// parseLsof reads lines of fields, "p12" and "cnginx".
func parseLsof(out string) string {
	var pid, name string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "p") && pid == "":
			pid = line[1:]
		case strings.HasPrefix(line, "c") && name == "":
			name = line[1:]
		}
	}
	if pid == "" {
		return ""
	}
	return fmt.Sprintf("process %s (%s)", pid, name)
}
