//go:build !linux

package stack

import (
	"errors"
	"syscall"
	"time"
)

// dieWithParent: only Linux has such a thing; elsewhere the child notices by its standard input alone.
func dieWithParent(*syscall.SysProcAttr) {}

func treeCPU(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
