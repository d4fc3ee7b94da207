package redistest

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sleeper starts a child that does nothing.
func sleeper(t *testing.T) *process {
	t.Helper()
	p, err := startProcess(exec.Command("sleep", "3600"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.kill()) })
	return p
}

func TestSuspendReturnsWhenTheProcessHasStopped(t *testing.T) {
	t.Parallel()
	p := sleeper(t).cmd.Process
	for range 100 {
		require.NoError(t, Suspend(p))
		require.True(t, isStopped(t, p))
		require.NoError(t, Suspend(p), "twice")
		require.True(t, isStopped(t, p))
		require.NoError(t, Resume(p))
	}
}

func isStopped(t *testing.T, p *os.Process) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/status")
	require.NoError(t, err)
	return strings.Contains(string(status), "State:\tT")
}

// A signal to continue that comes between the one to stop and its effect leaves
// nothing to wait for.
func TestSuspendReturnsAlthoughSomebodyResumesMeanwhile(t *testing.T) {
	t.Parallel()
	p := sleeper(t).cmd.Process
	over, resumed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-over:
				resumed <- nil
				return
			case <-time.After(time.Duration(rand.IntN(100)) * time.Microsecond):
			}
			if err := Resume(p); err != nil {
				resumed <- err
				return
			}
		}
	}()
	for range 300 {
		require.NoError(t, Suspend(p))
	}
	close(over)
	require.NoError(t, <-resumed)
}

func TestSuspendReturnsWhenTheProcessEnds(t *testing.T) {
	t.Parallel()
	t.Run("meanwhile", func(t *testing.T) {
		t.Parallel()
		for range 50 {
			p := sleeper(t)
			killed := make(chan error, 1)
			go func() { killed <- p.kill() }()
			for {
				if err := Suspend(p.cmd.Process); err != nil {
					require.ErrorIs(t, err, os.ErrProcessDone)
					break
				}
			}
			require.NoError(t, <-killed)
		}
	})
	t.Run("before, and nobody has waited for it", func(t *testing.T) {
		t.Parallel()
		cmd := exec.Command("true")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 1)) // the end comes when it does
		require.Error(t, err)
		var last error
		require.Eventually(t, func() bool { last = Suspend(cmd.Process); return last != nil }, patience, time.Millisecond)
		require.ErrorIs(t, last, os.ErrProcessDone)
		require.NoError(t, cmd.Wait(), "it was left to be waited for")
	})
	t.Run("before, and it was waited for", func(t *testing.T) {
		t.Parallel()
		cmd := exec.Command("true")
		require.NoError(t, cmd.Run())
		require.ErrorIs(t, Suspend(cmd.Process), os.ErrProcessDone)
	})
}
