package hostload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is USER_HZ, which is 100 wherever Go runs on Linux.
const ticksPerSecond = 100

// treeSeconds is the CPU time of a process, of the children it has waited for,
// and of those that run, with theirs. A child that ends and is waited for moves
// from one to the other; if that happens in between, it is read again.
func treeSeconds(root fs.FS, pid string) (float64, error) {
	const tries = 3
	for try := 1; ; try++ {
		_, before, err := processTimes(root, pid)
		if err != nil {
			return 0, err
		}
		children, err := childrenSeconds(root, pid)
		if err != nil {
			return 0, err
		}
		self, after, err := processTimes(root, pid)
		if err != nil {
			return 0, err
		}
		if before == after || try == tries {
			return self + after + children, nil
		}
	}
}

// childrenSeconds is 0 on a kernel that does not list children.
func childrenSeconds(root fs.FS, pid string) (float64, error) {
	threads, err := fs.ReadDir(root, "proc/"+pid+"/task")
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, thread := range threads {
		list, err := fs.ReadFile(root, "proc/"+pid+"/task/"+thread.Name()+"/children")
		if gone(err) {
			continue // the thread, if not the file
		}
		if err != nil {
			return 0, err
		}
		for _, child := range strings.Fields(string(list)) {
			seconds, err := treeSeconds(root, child)
			if err != nil && !gone(err) {
				return 0, err
			}
			sum += seconds
		}
	}
	return sum, nil
}

// gone: the process or thread ended before it was read, or while.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// processTimes reads what the process used, and what its children did that it
// has waited for. See proc_pid_stat(5); the name in parentheses may hold
// anything.
func processTimes(root fs.FS, pid string) (self, waited float64, err error) {
	file := "proc/" + pid + "/stat"
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, 0, err
	}
	// From the third on, the state; all of them if there is no name.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("/%s says %q, which is not understood", file, text[:min(len(text), 80)])
	}
	var ticks [4]uint64 // utime, stime, cutime, cstime
	for i := range ticks {
		if ticks[i], err = strconv.ParseUint(fields[11+i], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("/%s: %w", file, err)
		}
	}
	return float64(ticks[0]+ticks[1]) / ticksPerSecond, float64(ticks[2]+ticks[3]) / ticksPerSecond, nil
}
