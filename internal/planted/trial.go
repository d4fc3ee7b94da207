package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// What the torture test's exit status says.
const (
	violated   = 1
	unreached  = 3 // all is well, but not every fault was reached
	complained = 4096
)

// A violation is one that the torture test has printed.
type violation struct{ invariant, text string }

var violationLine = regexp.MustCompile(`(?m)^VIOLATION ([a-z-]+): (.*)$`)

func violationsIn(output string) []violation {
	var all []violation
	for _, m := range violationLine.FindAllStringSubmatch(output, -1) {
		all = append(all, violation{m[1], m[2]})
	}
	return all
}

// torture makes one run, and returns what it caught.
func torture(ctx context.Context, program string, b bug, seed uint64, minutes float64) ([]violation, error) {
	cmd := exec.CommandContext(ctx, program, "-seed", strconv.FormatUint(seed, 10),
		"-minutes", strconv.FormatFloat(minutes, 'g', -1, 64), "-faults", strings.Join(b.faults, ","))
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(program))       // a history that is no longer wanted goes with it
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has servers to stop
	cmd.WaitDelay = 10 * time.Second
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	found := violationsIn(out.String())
	var exit *exec.ExitError
	switch {
	case err == nil || errors.As(err, &exit) && exit.ExitCode() == unreached:
		return nil, nil
	case errors.As(err, &exit) && exit.ExitCode() == violated && len(found) > 0:
		return found, nil
	}
	said := complaints.Bytes()
	return nil, fmt.Errorf("the torture test of seed %d could not be run: %w\n%s", seed, err, said[max(0, len(said)-complained):])
}
