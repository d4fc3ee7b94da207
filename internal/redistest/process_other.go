//go:build unix && !linux

package redistest

import (
	"os"
	"syscall"
)

// dieWithParent has no counterpart here: a test that times out or panics leaves
// its servers behind.
func dieWithParent() *syscall.SysProcAttr {
	return nil
}

// Suspend asks a process to stop; it may run on for a moment.
func Suspend(p *os.Process) error {
	return p.Signal(syscall.SIGSTOP)
}

// Resume lets a process go on.
func Resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
