package filelock_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"aftersend/pglocal/filelock"
)

func TestOneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := filelock.Try(path)
	require.NoError(t, err)

	_, err = filelock.Try(path)
	var held *filelock.Held
	require.ErrorAs(t, err, &held)
	require.Equal(t, os.Getpid(), held.Pid, "the error names the owner")

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = filelock.Wait(ctx, path)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorAs(t, err, &held)

	go first.Release()
	second, err := filelock.Wait(t.Context(), path)
	require.NoError(t, err)
	second.Release()
}
