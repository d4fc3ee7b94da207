package redistest

import (
	"fmt"
	"os"
	"syscall"
)

// dieWithParent has the child killed when this process ends, however it ends: a
// test that times out or panics runs no cleanups.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// suspend stops a child and waits until it has stopped: sending the signal only
// queues it, and the child may answer a request or two before it takes effect.
func suspend(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	const (
		pPid    = 1          // P_PID
		stopped = 0x2        // WSTOPPED
		noWait  = 0x01000000 // WNOWAIT: leave the state, so that a second call sees it too
	)
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPid, uintptr(p.Pid), 0, stopped|noWait, 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return fmt.Errorf("waiting for process %d to stop: %w", p.Pid, errno)
		}
	}
}

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
