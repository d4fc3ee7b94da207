// Package hostload reads how busy the CPUs are that this process may use, and
// how much of that is its own doing.
//
// These CPUs are the ones that a cgroup's quota leaves it (v1 and v2), where
// there is one, and otherwise those of the host that the process may be
// scheduled on. Where several cgroups above it have a quota, the one counts of
// which others use most.
package hostload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
)

// A Sample has shares of the CPUs that this process may use, 0 to 1, over the
// time between two readings.
type Sample struct {
	Host float64 // used by all; time stolen by the hypervisor included
	// Own is used by this process, and on Linux by its children and theirs:
	// those that run, if the kernel lists them (CONFIG_PROC_CHILDREN), and
	// otherwise those that it has waited for.
	Own float64
	// Throttled is the time that the quota kept threads from running which
	// wanted to; each of them counts, so that it is 1 sooner than the use is.
	Throttled float64
	// Pressure is the share of the last ten seconds in which some thread of the
	// host waited for a CPU (PSI, Linux); nil where the kernel does not say.
	Pressure *float64
}

// A Reader remembers its last reading. It is not safe for concurrent use.
type Reader struct {
	root   fs.FS // of proc, sys
	times  func() ([]cpu.TimesStat, error)
	own    func(root fs.FS) (float64, error)
	mounts []mount // of cgroups; nil: not read yet
	last   *reading
}

// New makes a reader of this host.
func New() *Reader {
	return &Reader{root: os.DirFS("/"), times: hostTimes, own: ownSeconds}
}

// hostTimes are by CPU where the system tells them apart.
func hostTimes() ([]cpu.TimesStat, error) {
	if times, err := cpu.TimesWithContext(context.Background(), true); err == nil && len(times) > 0 {
		return times, nil
	}
	return cpu.TimesWithContext(context.Background(), false)
}

// A reading is what the counters said; all are seconds of one CPU.
type reading struct {
	at          time.Time
	own         float64
	busy, total float64
	limits      []limit
}

// Read returns the shares since the last call. It returns false if there was
// none, or if by the counters no time has passed since.
func (r *Reader) Read(now time.Time) (Sample, bool, error) {
	next, err := r.read(now)
	if err != nil {
		return Sample{}, false, err
	}
	pressure, err := readPressure(r.root)
	if err != nil {
		return Sample{}, false, err
	}
	if r.last == nil {
		r.last = next
		return Sample{}, false, nil
	}
	s, ok := shares(r.last, next)
	if ok {
		r.last = next
	}
	s.Pressure = pressure
	return s, ok, nil
}

func (r *Reader) read(now time.Time) (*reading, error) {
	next := &reading{at: now}
	times, err := r.times()
	if err != nil {
		return nil, fmt.Errorf("hostload: CPU times: %w", err)
	}
	if next.own, err = r.own(r.root); err != nil {
		return nil, fmt.Errorf("hostload: this process's CPU time: %w", err)
	}
	allowed, err := readAllowed(r.root)
	if err != nil {
		return nil, err
	}
	cpus := 0
	for _, t := range times {
		if allowed != nil && !allowed[t.CPU] && t.CPU != "cpu-total" {
			continue
		}
		cpus++
		// Linux counts guests' time as its user's, too.
		idle := t.Idle + t.Iowait
		next.busy += t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
		next.total += t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal + idle
	}
	if cpus == 0 {
		return nil, fmt.Errorf("hostload: CPU times: none of %d CPUs is one that this process may use", len(times))
	}
	if r.mounts == nil {
		if r.mounts, err = readMounts(r.root); err != nil {
			return nil, err
		}
	}
	if next.limits, err = readLimits(r.root, r.mounts); err != nil {
		return nil, err
	}
	if len(times) == 1 && times[0].CPU == "cpu-total" {
		return next, nil
	}
	// A quota of more than there is limits nothing.
	binding := next.limits[:0]
	for _, l := range next.limits {
		if l.cpus < float64(cpus) {
			binding = append(binding, l)
		}
	}
	next.limits = binding
	return next, nil
}

// shares compares two readings.
func shares(last, next *reading) (Sample, bool) {
	var worst Sample
	found := false
	add := func(used, throttled, all float64) {
		if all <= 0 {
			return
		}
		s := Sample{Host: clamp(used / all), Own: clamp((next.own - last.own) / all), Throttled: clamp(throttled / all)}
		if !found || s.others() > worst.others() {
			worst, found = s, true
		}
	}
	wall := next.at.Sub(last.at).Seconds()
	for _, l := range next.limits {
		for _, was := range last.limits {
			if was.name == l.name {
				add(l.used-was.used, l.throttled-was.throttled, wall*l.cpus)
			}
		}
	}
	if !found {
		add(next.busy-last.busy, 0, next.total-last.total)
	}
	return worst, found
}

func (s Sample) others() float64 { return min(1, s.Host+s.Throttled) - s.Own }

func clamp(share float64) float64 { return min(max(share, 0), 1) }

// readAllowed returns the names of the CPUs that this process may be scheduled
// on, or nil if the system does not say.
func readAllowed(root fs.FS) (map[string]bool, error) {
	const file = "proc/self/status"
	text, err := optional(root, file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		list, ok := strings.CutPrefix(line, "Cpus_allowed_list:")
		if !ok {
			continue
		}
		allowed := map[string]bool{}
		for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			from, err1 := strconv.Atoi(first)
			to, err2 := strconv.Atoi(last)
			if err1 != nil || err2 != nil || from < 0 || to < from || to > 1<<16 {
				return nil, malformed(file, line)
			}
			for n := from; n <= to; n++ {
				allowed["cpu"+strconv.Itoa(n)] = true
			}
		}
		return allowed, nil
	}
	return nil, nil
}

// readPressure reads the share of ten seconds in which some thread waited.
func readPressure(root fs.FS) (*float64, error) {
	const file = "proc/pressure/cpu"
	text, err := optional(root, file)
	if err != nil || text == "" {
		return nil, err
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "some" {
			continue
		}
		percent, ok := strings.CutPrefix(fields[1], "avg10=")
		value, err := strconv.ParseFloat(percent, 64)
		if !ok || err != nil || !(value >= 0 && value <= 100) {
			return nil, malformed(file, line)
		}
		value /= 100
		return &value, nil
	}
	return nil, malformed(file, text)
}

// optional reads a file that need not be there, or whose contents the kernel
// was told not to provide: then it returns "".
func optional(root fs.FS, name string) (string, error) {
	text, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("hostload: %w", err)
	}
	return string(text), nil
}

func malformed(file, text string) error {
	text = strings.TrimSpace(text)
	return fmt.Errorf("hostload: /%s says %q, which is not understood", file, text[:min(len(text), 80)])
}
