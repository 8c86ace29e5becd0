// Package filelock gives files exclusive locks that end with the process that holds them, however it ends: a lock that can be
// had proves that its former owner is gone, and one that cannot names its living owner. It imports the standard library only.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Held is the error of Try when another process, or another Lock of this one, has the lock.
type Held struct {
	Path string
	Pid  int // of the owner; 0 when it has not written it yet
}

func (h *Held) Error() string { return fmt.Sprintf("%s is held by process %d", h.Path, h.Pid) }

// Lock is a lock that is held.
type Lock struct{ file *os.File }

// Try takes the lock of a file, which it makes when missing, and writes our process number into it. It fails with *Held.
func Try(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		owner := make([]byte, 20)
		n, _ := f.Read(owner)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(owner[:n])))
		return nil, &Held{Path: path, Pid: pid}
	}
	if err := errors.Join(f.Truncate(0), write(f)); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f}, nil
}

func write(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Wait takes the lock as soon as it can be had. It fails with *Held when ctx ends before.
func Wait(ctx context.Context, path string) (*Lock, error) {
	for {
		l, err := Try(path)
		var held *Held
		if !errors.As(err, &held) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), held)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Release gives the lock up. The file stays.
func (l *Lock) Release() { _ = l.file.Close() }
