package crash_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/crash"
)

func TestPointKillsTheProcessAtTheWantedPassage(t *testing.T) {
	if where := os.Getenv("AFTERSEND_CRASH"); where != "" {
		require.NoError(t, crash.Arm(where))
		crash.Point("elsewhere")
		crash.Point("here")
		_, _ = os.Stdout.WriteString("once")
		crash.Point("here")
		_, _ = os.Stdout.WriteString("twice")
		return
	}
	crash.Point("here") // nobody armed it

	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "AFTERSEND_CRASH=here:2")
	out, err := cmd.Output()

	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "the process ended by itself")
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
	require.Equal(t, "once", string(out))
}

func TestArmRefusesWhatIsNoPoint(t *testing.T) {
	require.NoError(t, crash.Arm(""))
	for _, where := range []string{"here:", "here:0", "here:x"} {
		require.Error(t, crash.Arm(where), where)
	}
}
