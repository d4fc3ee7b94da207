package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/measure"
)

// heading says what is measured on what.
func heading(b measure.Backend, s measure.Settings) string {
	var t strings.Builder
	fmt.Fprintf(&t, "Dianemo %s, %s, %d CPUs, %s\n", dianemo.Version, runtime.Version(), runtime.NumCPU(), where(b))
	peers := "one peer in this process"
	if s.Peers > 0 {
		peers = fmt.Sprintf("peers in processes of their own: %d", s.Peers)
	}
	fmt.Fprintf(&t, "%d jobs, %d bytes each, kinds: %d, partitions: %d, %s, tokens: %d\n", s.Jobs, s.Payload, s.Kinds, s.Partitions, peers, s.Tokens)
	if s.Rounds > 1 {
		fmt.Fprintf(&t, "medians of %d rounds (least … most)\n", s.Rounds)
	}
	return t.String()
}

func where(b measure.Backend) string {
	switch b.Kind {
	case measure.Own:
		return fmt.Sprintf("redis-server %s of its own", b.Version)
	case measure.Given:
		return fmt.Sprintf("Redis %s at %s, namespace %s", b.Version, b.Address, b.Namespace)
	}
	return fmt.Sprintf("the embedded Redis (%s), which is a part of this process", b.Why)
}

// titles of the figures.
func title(figure string, s measure.Settings) string {
	switch figure {
	case measure.Enqueue:
		return fmt.Sprintf("Enqueue one by one, %d callers", s.Callers)
	case measure.Bulk:
		return fmt.Sprintf("Enqueue in bulk, %d a call", s.Batch)
	case measure.Drain:
		if s.Takes > 0 {
			return fmt.Sprintf("Drain of jobs that take %v", s.Takes)
		}
		return "Drain of no-op jobs"
	case measure.PickUp:
		if s.Waiting > 0 {
			return fmt.Sprintf("Pick-up of priority 1 while %d of priority 2 wait: from the call of Enqueue to the handler", s.Waiting)
		}
		return fmt.Sprintf("Pick-up, %d jobs a second: from the call of Enqueue to the handler", s.Rate)
	case measure.Schedule:
		return "Schedule: from when a job is due to the handler"
	}
	return fmt.Sprintf("Idle, for %v, each peer in a process of its own", s.Idle)
}

// table is for people.
func table(r *measure.Report) string {
	var t strings.Builder
	for _, figure := range measure.Figures {
		values, ok := r.Figures[figure]
		if !ok {
			continue
		}
		fmt.Fprintf(&t, "\n%s\n", title(figure, r.Settings))
		for _, f := range measure.Fields {
			v, ok := values[f.Name]
			if f.Figure != figure || !ok {
				continue
			}
			line := fmt.Sprintf("  %s %12s %s", padded(f.Text, 46), number(v.Median), f.Unit)
			if r.Settings.Rounds > 1 {
				line = fmt.Sprintf("%s (%s … %s)", padded(line, 74), number(v.Least), number(v.Most))
			}
			t.WriteString(strings.TrimRight(line, " ") + "\n")
		}
		t.WriteString(histogram(r.Histograms[figure]))
	}
	t.WriteString(scripts(r.Scripts))
	fmt.Fprintf(&t, "\nMeasured in %v.\n", time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	return t.String()
}

// histogram draws a bar for each bucket.
func histogram(buckets []measure.Bucket) string {
	var t strings.Builder
	most := uint64(1)
	for _, b := range buckets {
		most = max(most, b.Count)
	}
	for _, b := range buckets {
		bar := strings.Repeat("█", int(b.Count*barWidth/most))
		if bar == "" {
			bar = "▏"
		}
		fmt.Fprintf(&t, "    up to %9s µs %s %d\n", number(b.UpToMicros), bar, b.Count)
	}
	return t.String()
}

// scripts tells which calls held Redis for long.
func scripts(s measure.Scripts) string {
	if !s.Known {
		return "\nHow long scripts held Redis is not known: it has no slowlog that can be read.\n"
	}
	var t strings.Builder
	fmt.Fprintf(&t, "\nScript calls that held Redis for %v ms or longer\n", s.AboveMs)
	if len(s.Calls) == 0 {
		t.WriteString("  none\n")
	}
	for _, c := range s.Calls {
		line := fmt.Sprintf("  %s longest %8.2f ms, of %d", padded(c.Name, 38), c.Longest, c.Logged)
		if c.TooLong > 0 {
			line += fmt.Sprintf("   TOO LONG: %d above %v", c.TooLong, measure.LongCall)
		}
		t.WriteString(line + "\n")
	}
	if limit := float64(measure.LongCall) / float64(time.Millisecond); s.AboveMs > limit {
		fmt.Fprintf(&t, "  Those above %v ms would be too long: --slowlog has Redis tell them.\n", limit)
	}
	return t.String()
}

// padded counts letters, where the verbs of fmt count bytes.
func padded(text string, width int) string {
	return text + strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
}

// number has three digits at least.
func number(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
