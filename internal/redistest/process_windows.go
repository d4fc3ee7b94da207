package redistest

import (
	"errors"
	"os"
	"syscall"
)

// dieWithParent has no counterpart here: what ends without closing its servers
// leaves them behind.
func dieWithParent() *syscall.SysProcAttr { return nil }

var errNoSignals = errors.New("a process can't be stopped and continued here")

// Suspend is not possible here.
func Suspend(*os.Process) error { return errNoSignals }

// Resume is not possible here.
func Resume(*os.Process) error { return errNoSignals }
