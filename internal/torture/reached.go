//go:build linux

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/history"
)

// A reach is how often a fault met something that it is for.
type reach struct {
	fault  string
	struck int
	what   string
	count  int64
}

// missed reports whether it was not tried, or met nothing.
func (r reach) missed() bool { return r.struck == 0 || r.count == 0 }

// reached says it of each of the faults. epoch is the moment at which Unix time was 0.
func (n *nemesis) reached(chosen []fault, events []history.Event, epoch history.Moment) []reach {
	t := tallied(events, epoch)
	counts := map[string]struct {
		what  string
		count int64
	}{
		"kill-peer":       {"runs reaped from the dead", t.reapedFrom["kill-peer"]},
		"kill-leader":     {"ticks due while nobody led", t.leaderless["kill-leader"]},
		"pause-peer":      {"runs reaped from who slept", t.reapedFrom["pause-peer"]},
		"pause-leader":    {"leaders deposed", t.deposed["pause-leader"]},
		"terminate":       {"runs given back or ended by a shutdown", t.shutdowns},
		"drop-replies":    {"replies lost", n.droppedReplies()},
		"drop-claims":     {"claims sent again", n.lost["drop-claims"].Load()},
		"drop-settles":    {"settlements sent again", n.lost["drop-settles"].Load()},
		"drop-enqueues":   {"enqueues sent again", n.lost["drop-enqueues"].Load()},
		"drop-fires":      {"firings sent again", n.lost["drop-fires"].Load()},
		"cut-connections": {"connections cut", n.cut.Load()},
		"cut-one":         {"runs reaped from who was cut off", t.reapedFrom["cut-one"]},
		"cut-all":         {"beats that all missed", t.silence["cut-all"]},
		"delay":           {"beats of 200 ms and more", t.slow},
		"redis-restart":   {"runs that outlasted it", t.outlasted["redis-restart"]},
		"redis-kill":      {"runs that outlasted it", t.outlasted["redis-kill"]},
		"script-flush":    {"NOSCRIPT answers", n.noScript.Load()},
		"client-kill":     {"clients killed", n.killedClients.Load()},
		"debug-sleep":     {"beats that all missed", t.silence["debug-sleep"]},
		"maxmemory":       {"calls refused, OOM, and runs that went on", min(n.full.Load(), t.whileFull)},
		"poison":          {"peers that died of a job", t.poisoned},
	}
	var all []reach
	for _, f := range chosen {
		all = append(all, reach{f.name, t.struck[f.name], counts[f.name].what, counts[f.name].count})
	}
	if len(chosen) == len(faults) {
		all = append(all, reach{"all together", t.struckInAll(), "results refused as stale", t.stale})
	}
	return all
}

// droppedReplies are those of all proxies, less those that were aimed at.
func (n *nemesis) droppedReplies() int64 {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	sum := int64(n.own.Dropped())
	for _, p := range n.fleet.paths {
		sum += int64(p.Dropped())
	}
	for _, lost := range n.lost {
		sum -= lost.Load()
	}
	return sum
}

// A tally is what the history says of faults. Its maps are by faults' names.
type tally struct {
	struck     map[string]int
	reapedFrom map[string]int64
	deposed    map[string]int64
	leaderless map[string]int64 // instants of schedules
	silence    map[string]int64 // beats
	outlasted  map[string]int64
	whileFull  int64 // claims and settlements
	shutdowns  int64
	stale      int64 // results that were refused
	slow       int64
	poisoned   int64
}

func (t *tally) struckInAll() (sum int) {
	for f, n := range t.struck {
		if f != history.Away {
			sum += n
		}
	}
	return sum
}

// hooksLate is how long after an edge its hook is heard.
const hooksLate = 100 * time.Millisecond

func tallied(events []history.Event, epoch history.Moment) *tally {
	t := &tally{struck: map[string]int{}, reapedFrom: map[string]int64{}, deposed: map[string]int64{},
		leaderless: map[string]int64{}, silence: map[string]int64{}, outlasted: map[string]int64{}}
	victims := map[string]map[string]bool{} // by process: the faults that befell it
	running := map[string]int64{}           // by process
	ended := map[string]bool{}              // poison jobs' runs that came to an end
	var headless string                     // the fault that took the leader
	var since, lastBeat history.Moment
	var quiet string        // the fault during which nobody can beat
	var full history.Moment // since when Redis has been full; 0 if it is not
	for _, e := range events {
		if full != 0 && e.At.Sub(full) > hooksLate && (e.What == history.Claim || e.What == history.Settle && !e.Stale) {
			t.whileFull++
		}
		switch e.What {
		case history.Fault:
			if e.On {
				t.struck[e.Fault]++
			}
			if e.Victim != "" && e.On {
				if victims[e.Victim] == nil {
					victims[e.Victim] = map[string]bool{}
				}
				victims[e.Victim][e.Fault] = true
			}
			switch e.Fault {
			case "kill-leader", "pause-leader":
				if e.On {
					headless, since = e.Fault, e.At
				}
			case "redis-restart", "redis-kill":
				if e.On {
					for _, n := range running {
						t.outlasted[e.Fault] += n
					}
				}
			case "maxmemory":
				if full = 0; e.On {
					full = e.At
				}
			case "cut-all", "debug-sleep":
				if quiet != "" { // with the last one
					t.silence[quiet] += int64(max(0, e.At.Sub(lastBeat)/beatEvery-1))
				}
				if quiet = ""; e.On {
					quiet, lastBeat = e.Fault, e.At
				}
			}
			if e.On && (e.Fault == "kill-peer" || e.Fault == "kill-leader") {
				delete(running, e.Victim)
			}
		case history.Start:
			running[e.Process]++
		case history.End:
			running[e.Process]--
			ended[fmt.Sprint(e.Job, e.Epoch)] = true
		case history.Reap:
			for f := range victims[e.Silent] {
				t.reapedFrom[f]++
			}
		case history.Settle:
			if e.Stale {
				t.stale++
			}
			if e.Outcome == dianemo.GiveBack || e.Reason == "shutdown" {
				t.shutdowns++
			}
		case history.Lead:
			if !e.Leading {
				for f := range victims[e.Process] {
					t.deposed[f]++
				}
			} else if headless != "" {
				second := history.Moment(time.Second)
				t.leaderless[headless] += int64((e.At-epoch)/second - (since-epoch)/second)
				headless = ""
			}
		case history.Beat:
			if e.At.Sub(e.Began) >= 200*time.Millisecond {
				t.slow++
			}
			if quiet != "" {
				t.silence[quiet] += int64(max(0, e.At.Sub(lastBeat)/beatEvery-1))
				lastBeat = e.At
			}
		}
	}
	for _, e := range events {
		if e.What == history.Start && e.Kind == poison.kind.Name() && !ended[fmt.Sprint(e.Job, e.Epoch)] {
			t.poisoned++
		}
	}
	return t
}

// An outcome is what a run was, or several.
type outcome struct {
	jobs, starts, peers, events int
	reached                     []reach
}

func outcomeOf(events []history.Event, final history.Final, reached []reach) outcome {
	out := outcome{jobs: len(final.Jobs), events: len(events), reached: reached}
	for _, e := range events {
		switch e.What {
		case history.Start:
			out.starts++
		case history.Begin:
			out.peers++
		}
	}
	return out
}

func (o *outcome) add(other outcome) {
	o.jobs += other.jobs
	o.starts += other.starts
	o.peers += other.peers
	o.events += other.events
	if o.reached == nil {
		o.reached = make([]reach, len(other.reached))
	}
	for i, r := range other.reached {
		sum := &o.reached[i]
		sum.fault, sum.what = r.fault, r.what
		sum.struck += r.struck
		sum.count += r.count
	}
}

// print returns the faults that were not reached.
func (o *outcome) print(w io.Writer) (missed []string, err error) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "fault\tstruck\treached\t")
	for _, r := range o.reached {
		fmt.Fprintf(out, "%s\t%d\t%d\t%s\n", r.fault, r.struck, r.count, r.what)
		if r.missed() {
			missed = append(missed, r.fault)
		}
	}
	fmt.Fprintf(out, "%d jobs, %d starts, %d peers, %d events\n", o.jobs, o.starts, o.peers, o.events)
	return missed, out.Flush()
}
