//go:build linux

package faulttest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// burnVariable makes the test binary a process that uses all CPUs.
const burnVariable = "DIANEMO_FAULTTEST_BURN"

func burnMain() {
	burning := make(chan bool)
	for range runtime.NumCPU() {
		go func() {
			for n := 0; ; n++ {
				if n == 1<<20 {
					burning <- true
				}
			}
		}()
	}
	for range runtime.NumCPU() {
		<-burning
	}
	fmt.Println("burning")
	select {}
}

// burn starts one, waits until it burns, and returns what ends it.
func burn(t *testing.T) (end func()) {
	t.Helper()
	cmd := exec.Command("nice", "-n", "19", os.Args[0]) // which is load all the same
	cmd.Env = append(os.Environ(), burnVariable+"=1", fmt.Sprintf("GOMAXPROCS=%d", runtime.NumCPU()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	begun, killed, gone := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		// The parent-death signal is of the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(gone)
		err := cmd.Start()
		begun <- err
		if err == nil {
			<-killed
			_ = cmd.Wait() // says that it was killed
		}
	}()
	require.NoError(t, <-begun)
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have gone already
		close(killed)
		<-gone
	})
	t.Cleanup(end)
	_, err = io.ReadFull(out, make([]byte, len("burning")))
	require.NoError(t, err)
	return end
}

// within reports whether the witness sees a line that fits before the limit.
func (f *fleet) within(limit time.Duration, fits func(line) bool) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		if len(f.heard(fits)) > 0 {
			return true
		}
		select {
		case <-news:
		case <-timeout.C:
			return false
		}
	}
}

// The real thing: another process takes all CPUs of this host. How long it takes
// for that to be seen is counted in samples.
func TestAPeerGivesWayToAProcessThatBurnsTheCPU_Alone(t *testing.T) {
	const high, low = 0.8, 0.65
	f := assemble(t, server, 1)
	p := f.launch(settings{Load: &load{Every: 500 * time.Millisecond, High: high, Low: low}})
	sampledAfter := func(at time.Time) func(line) bool {
		return func(l line) bool { return l.is(sampled) && l.Known && l.Taken.After(at) }
	}
	coolAfter := func(at time.Time) func(line) bool {
		return func(l line) bool { return sampledAfter(at)(l) && !l.Hot && l.Share < low }
	}
	f.await(1, "a sample", sampledAfter(time.Time{}))
	const calm = time.Minute // for what else runs on this machine to be done
	require.True(t, f.within(calm, coolAfter(time.Time{})), "for %v, others have used %v of this machine's CPUs or more", calm, low)
	before := f.enqueue(1, "work", args{}, urgent)[0]
	f.await(1, "a job start before the burning", func(l line) bool { return l.is(started, before) })

	end := burn(t)
	burning := time.Now()
	samples := f.await(2, "two samples", sampledAfter(burning))
	// The first has begun before the burning did.
	require.True(t, samples[1].Hot, "the second sample says that the host is hot: %+v", samples)

	during := f.enqueue(1, "work", args{}, urgent)[0]
	p.release(before)
	f.awaitState(dianemo.Succeeded, before) // a running job goes on, and its result is stored
	enough := f.await(2+4, "four more samples", sampledAfter(burning))
	for _, l := range enough[1:] {
		require.True(t, l.Hot, "it burns still: %+v", l)
	}
	require.Empty(t, f.starts(nil, during), "claims have stopped")

	end()
	ended := time.Now()
	cool := f.within(calm, coolAfter(ended))
	require.True(t, cool || len(f.seen(func(l line) bool { return sampledAfter(ended)(l) && l.Share < low })) == 0, "hot below the low mark")
	require.True(t, cool, "for %v after the burning, others have used %v of this machine's CPUs or more", calm, low)
	f.await(1, "the waiting job start", func(l line) bool { return l.is(started, during) })
	p.release(during)
	f.awaitState(dianemo.Succeeded, during)
}
