package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A screen takes the progress line, messages, and the library's log, and keeps
// them from running into one another. On a terminal the progress line is drawn
// anew each time; elsewhere it is printed about once a second.
type screen struct {
	out, err io.Writer
	terminal bool

	mu    sync.Mutex
	drawn bool // the cursor stands behind a progress line
}

func newScreen(out, err io.Writer) *screen {
	s := &screen{out: out, err: err}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// print writes a line to stdout.
func (s *screen) print(format string, args ...any) { s.write(s.out, fmt.Sprintf(format+"\n", args...)) }

// complain writes a line to stderr.
func (s *screen) complain(format string, args ...any) {
	s.write(s.err, fmt.Sprintf(format+"\n", args...))
}

// Write takes a line of the log.
func (s *screen) Write(line []byte) (int, error) {
	s.write(s.err, string(line))
	return len(line), nil
}

func (s *screen) write(to io.Writer, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	io.WriteString(to, text)
}

// erase removes the progress line.
func (s *screen) erase() {
	if s.drawn {
		io.WriteString(s.out, "\r\x1b[K")
		s.drawn = false
	}
}

// follow shows progress until stop is called.
func (s *screen) follow(line func() string) (stop func()) {
	every := time.Second
	if s.terminal {
		every = 100 * time.Millisecond
	}
	quit := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.show(line())
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		shown.Wait()
	}
}

func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		io.WriteString(s.out, line+"\n")
		return
	}
	s.erase()
	io.WriteString(s.out, line)
	s.drawn = true
}

// printable quotes what would garble the screen: file names may hold anything.
func printable(text string) string {
	odd := func(r rune) bool { return r == '\uFFFD' || !strconv.IsPrint(r) }
	if strings.ContainsFunc(text, odd) {
		return strconv.Quote(text)
	}
	return text
}
