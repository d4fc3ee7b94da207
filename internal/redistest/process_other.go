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

// suspend asks a process to stop; it may run on for a moment.
func suspend(p *os.Process) error {
	return p.Signal(syscall.SIGSTOP)
}

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
