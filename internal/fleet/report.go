package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A Report is what came of it.
type Report struct {
	Jobs, Started float64 // each second
	Waiting       int     // jobs at the end, in lanes
	Growth        int     // jobs that came more than were started
	ClaimsPerJob  float64 // that found something or nothing, for each job that was started
	EmptyPerJob   float64
	P50, P99, Max time.Duration // from the call of Enqueue to the handler
	Nodes         []NodeReport  // the namespace's comes last
	Again         int
	LastReap      time.Duration // after KillAt
	Vacant        time.Duration // nobody led
}

// A NodeReport is of one node, or of the busiest of several.
type NodeReport struct {
	Name    string
	Calls   [sorts]float64 // each second; the mean of several nodes
	Sum     float64
	Busy    float64 // share of its time
	Wait    time.Duration
	Longest time.Duration
	Deepest int
	Bytes   float64 // each second
}

func (w *world) report() Report {
	seconds := w.For.Seconds()
	jobs, started := w.jobs-w.counted.jobs, w.started-w.counted.started
	r := Report{Jobs: float64(jobs) / seconds, Started: float64(started) / seconds, Growth: jobs - started, Again: w.again, Vacant: w.vacant + w.unled(),
		P50: w.delays.Quantile(0.5), P99: w.delays.Quantile(0.99), Max: w.delays.Quantile(1)}
	if w.lastReap > 0 {
		r.LastReap = w.lastReap - w.KillAt
	}
	for i := range w.partitions {
		r.Waiting += len(w.partitions[i].lane)
	}
	var claims, empties int
	for _, n := range w.nodes {
		claims += n.counts[claim] + n.counts[empty]
		empties += n.counts[empty]
	}
	if started > 0 {
		r.ClaimsPerJob, r.EmptyPerJob = float64(claims)/float64(started), float64(empties)/float64(started)
	}
	one := func(name string, nodes ...*node) {
		if len(nodes) == 0 {
			return
		}
		of := NodeReport{Name: name}
		for _, n := range nodes {
			for s, count := range n.counts {
				of.Calls[s] += float64(count) / seconds / float64(len(nodes))
				of.Sum += float64(count) / seconds / float64(len(nodes))
			}
			of.Busy = max(of.Busy, float64(n.busy)/float64(w.For))
			of.Wait = max(of.Wait, n.waited/time.Duration(max(n.finished, 1)))
			of.Longest, of.Deepest = max(of.Longest, n.longest), max(of.Deepest, n.deepest)
			of.Bytes += n.bytes / seconds / float64(len(nodes))
		}
		r.Nodes = append(r.Nodes, of)
	}
	switch {
	case w.Apart:
		one("partitions", w.nodes[:w.Nodes]...)
		one("namespace", w.nodes[w.Nodes])
	case w.Nodes > 1:
		one("partitions", w.nodes[1:]...)
		one("both", w.nodes[0])
	default:
		one("all", w.nodes[0])
	}
	return r
}

// Print is for people.
func (r Report) Print(out io.Writer) {
	fmt.Fprintf(out, "jobs/s %.0f, started %.0f, waiting at the end %d (%+d); claims per job %.3f, of which empty %.3f\n",
		r.Jobs, r.Started, r.Waiting, r.Growth, r.ClaimsPerJob, r.EmptyPerJob)
	fmt.Fprintf(out, "pick-up p50 %v, p99 %v, longest %v\n", short(r.P50), short(r.P99), short(r.Max))
	if r.Again > 0 || r.Vacant > 0 {
		fmt.Fprintf(out, "nobody led for %v; %d jobs were given to another peer, the last %v after\n", short(r.Vacant), r.Again, short(r.LastReap))
	}
	for _, n := range r.Nodes {
		fmt.Fprintf(out, "%-10s %3.0f %% busy, %.0f calls/s, mean wait %v, longest %v, %d waited at once, %.1f MB/s\n",
			n.Name, 100*n.Busy, n.Sum, short(n.Wait), short(n.Longest), n.Deepest, n.Bytes/1e6)
		var calls []string
		for s, count := range n.Calls {
			if count > 0 {
				calls = append(calls, fmt.Sprintf("%s %.0f", sortNames[s], count))
			}
		}
		fmt.Fprintf(out, "           %s\n", strings.Join(calls, ", "))
	}
}

func short(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * micro)
	}
	return d.Round(micro)
}
