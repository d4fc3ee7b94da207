package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dianemo/dianemo/internal/measure"
)

const (
	barWidth   = 30
	redrawEach = 250 * time.Millisecond // each costs a little of what is measured
)

// showProgress draws a bar until end is called, and nothing where out is not a
// terminal.
func showProgress(out io.Writer, progress *measure.Progress) (end func()) {
	if !terminal(out) {
		return func() {}
	}
	quit := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		ticker := time.NewTicker(redrawEach)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				share, name := progress.Now()
				io.WriteString(out, "\r\x1b[K"+bar(share, name))
			case <-quit:
				io.WriteString(out, "\r\x1b[K")
				return
			}
		}
	})
	return func() {
		close(quit)
		drawing.Wait()
	}
}

func terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func bar(share float64, name string) string {
	full := int(share * barWidth)
	return fmt.Sprintf("%s%s %3.0f %% %s", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), share*100, name)
}
