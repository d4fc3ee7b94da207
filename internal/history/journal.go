//go:build linux

package history

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Now is the present moment.
func Now() Moment {
	const monotonic = 1 // CLOCK_MONOTONIC
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic(fmt.Sprintf("history: the monotonic clock can't be read: %v", errno))
	}
	return Moment(t.Nano())
}

// A Journal is a process's file of events. What was said is with the kernel, so that it is read
// whatever becomes of the process.
type Journal struct {
	process string
	mu      sync.Mutex // guards the rest, and keeps times in order
	file    *os.File
}

// Open makes the journal of a process.
func Open(path, process string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &Journal{process: process, file: f}, nil
}

// Say writes an event down, with the time and the process, and returns when it happened. A test
// whose journal can't be written has nothing to go by: it panics.
func (j *Journal) Say(e Event) Moment {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.At, e.Process = Now(), j.process
	b, err := json.Marshal(e)
	if err == nil {
		_, err = j.file.Write(append(b, '\n'))
	}
	if err != nil {
		panic(fmt.Sprintf("history: the journal can't be written: %v", err))
	}
	return e.At
}

// Close ends it.
func (j *Journal) Close() error { return j.file.Close() }
