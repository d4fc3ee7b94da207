package redistest

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// dieWithParent has the child killed when this process ends, however it ends: a
// test that times out or panics runs no cleanups.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

const (
	suspendWithin = 20 * time.Second // generous: the machine may be busy with other tests
	suspendPoll   = time.Millisecond
)

// Suspend stops a child and returns when it has stopped: sending the signal only
// queues it, and the child may do a thing or two before it takes effect. The signal
// is sent again at each look, so that a Resume at the same time does not undo it. A
// child that has ended is an error.
func Suspend(p *os.Process) error {
	const (
		pPid = 1 // P_PID
		// To wait for the child to stop, or for its end, would be to wait for ever if it is
		// continued before it has stopped. WNOWAIT leaves the state for others to see.
		look = syscall.WSTOPPED | syscall.WEXITED | syscall.WNOHANG | syscall.WNOWAIT
	)
	for end := time.Now().Add(suspendWithin); ; time.Sleep(suspendPoll) {
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		var info struct { // siginfo_t of SIGCHLD
			signo, errno, code int32
			_                  [116]byte
		}
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPid, uintptr(p.Pid), uintptr(unsafe.Pointer(&info)), look, 0, 0)
		const stopped = 5 // CLD_STOPPED
		switch {
		case errno == syscall.ECHILD || errno == 0 && info.signo != 0 && info.code != stopped:
			return os.ErrProcessDone
		case errno == 0 && info.code == stopped:
			return nil
		case errno != 0 && errno != syscall.EINTR:
			return fmt.Errorf("waiting for process %d to stop: %w", p.Pid, errno)
		case time.Now().After(end):
			return fmt.Errorf("process %d has not stopped after %v", p.Pid, suspendWithin)
		}
	}
}

// Resume lets a process go on.
func Resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
