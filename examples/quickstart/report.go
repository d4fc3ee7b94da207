package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dianemo/dianemo"
)

// A report learns what becomes of the jobs. Hooks say that one has ended, and
// the store says how: the report needs nothing from the handlers, which could
// as well run in other processes.
type report struct {
	files int
	bytes int64
	begun time.Time
	took  time.Duration // until all had ended; 0 before
	ended chan string   // ids, from the hooks; has room for all
	done  chan struct{} // closed when all have ended
	reads sync.WaitGroup
	quit  context.CancelFunc // ends the reads

	mu       sync.Mutex
	count    int
	states   map[dianemo.State]int
	jobs     map[string]int // by id of the peer that ran them last
	in, out  int64
	sums     []sum
	problems []string
	refused  int   // were not enqueued
	unread   int   // ended, but the store did not say how
	why      error // of the last of these
}

func newReport(files []file) *report {
	r := &report{files: len(files), begun: time.Now(), ended: make(chan string, len(files)), done: make(chan struct{}),
		states: map[dianemo.State]int{}, jobs: map[string]int{}}
	for _, f := range files {
		r.bytes += f.size
	}
	return r
}

// Three edges can end a job, and each has a hook. Hooks run in the engine's own
// goroutines, so they only pass the id on.

func (r *report) settled(s dianemo.SettleInfo) {
	// A stale outcome was refused, and others than these mean another start.
	if !s.Stale && (s.Outcome == dianemo.Succeed || s.Outcome == dianemo.FailRun) {
		r.ended <- s.ID
	}
}

func (r *report) reaped(job dianemo.ReapInfo) {
	if job.State.Finished() { // unreachable; otherwise it is scheduled again
		r.ended <- job.ID
	}
}

func (r *report) missed(job dianemo.MissInfo) { r.ended <- job.ID }

// read reads the jobs that have ended, several at a time, until close.
func (r *report) read(client *dianemo.Client) {
	var ctx context.Context
	ctx, r.quit = context.WithCancel(context.Background())
	for range 4 {
		r.reads.Go(func() {
			for id := range r.ended {
				r.add(client.Get(ctx, id))
			}
		})
	}
}

// close waits for the last reads, but not long: the store may be away. No hook
// may be called after.
func (r *report) close() {
	close(r.ended)
	defer time.AfterFunc(3*time.Second, r.quit).Stop()
	r.reads.Wait()
	r.quit()
}

func (r *report) add(job *dianemo.JobInfo, err error) {
	var args File
	var result Result
	if err == nil {
		err = job.DecodeArgs(&args)
	}
	if err == nil && job.State == dianemo.Succeeded {
		err = job.DecodeResult(&result)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count++; r.count == r.files {
		r.took = time.Since(r.begun)
		close(r.done)
	}
	if err != nil {
		r.unread, r.why = r.unread+1, err
		return
	}
	r.states[job.State]++
	r.jobs[job.Peer]++
	if job.State != dianemo.Succeeded {
		r.problems = append(r.problems, problem(job, string(args.Path)))
		return
	}
	r.in += result.In
	r.out += result.Out
	r.sums = append(r.sums, sum{string(args.Path), result.SHA256})
}

// enqueued takes the error of EnqueueMany.
func (r *report) enqueued(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var batch *dianemo.BatchError
	switch {
	case errors.As(err, &batch):
		r.refused = len(batch.Unwrap())
	case err != nil:
		r.refused = r.files
	}
}

// problem says why a job did not succeed.
func problem(job *dianemo.JobInfo, path string) string {
	why := cmp.Or(job.LastError(), job.Reason)
	if !strings.Contains(why, path) {
		why = path + ": " + why
	}
	return string(job.State) + ": " + why
}

// line is how far it is.
func (r *report) line() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%*d of %d files, %9s of %s", len(fmt.Sprint(r.files)), r.count, r.files, size(r.in), size(r.bytes))
}

// print shows what came of the jobs, and reports whether all succeeded.
func (r *report) print(fleet *fleet, screen *screen) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.took == 0 {
		r.took = time.Since(r.begun)
		r.recount(fleet.client)
	}
	if r.unread > 0 {
		r.problems = append(r.problems, fmt.Sprintf("%d jobs ended, but could not be read: %v", r.unread, r.why))
	}
	slices.Sort(r.problems)
	const most = 20
	for _, problem := range r.problems[:min(len(r.problems), most)] {
		screen.print("%s", printable(problem))
	}
	if more := len(r.problems) - most; more > 0 {
		screen.print("and %d more", more)
	}
	screen.print("\n%-12s %8s %12s %12s", "STATE", "JOBS", "BYTES IN", "BYTES OUT")
	for _, state := range order {
		switch n := r.states[state]; {
		case state == dianemo.Succeeded:
			screen.print("%-12s %8d %12s %12s", state, n, size(r.in), size(r.out))
		case n > 0:
			screen.print("%-12s %8d", state, n)
		}
	}
	screen.print("\n%-12s %8s %12s", "PEER", "JOBS", "PEAK TOKENS")
	for _, m := range fleet.members {
		_, peak := m.charged()
		note := ""
		if m.dead.Load() {
			note = "   cut off"
		}
		screen.print("%-12d %8d %9d/%d%s", m.number, r.jobs[m.peer.ID()], peak, tokens, note)
	}
	screen.print("\n%-12s %6.2f s", "ELAPSED", r.took.Seconds())
	return len(r.problems) == 0 && r.count == r.files
}

// notEnqueued is not a state that a job can have: these have none.
const notEnqueued dianemo.State = "not enqueued"

// order is that of the table.
var order = []dianemo.State{
	dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped,
	dianemo.Running, dianemo.Queued, dianemo.Retrying, dianemo.Scheduled, dianemo.Blocked, notEnqueued,
}

// recount asks the store how many jobs there are in each state: after Ctrl-C not
// all have ended, and hooks did not tell of the others.
func (r *report) recount(client *dianemo.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	counts, err := client.Counts(ctx)
	if err != nil {
		r.problems = append(r.problems, fmt.Sprintf("the jobs that have not ended could not be counted: %v", err))
		return
	}
	r.states = map[dianemo.State]int{notEnqueued: r.refused}
	for _, c := range counts {
		r.states[c.State] += int(c.Jobs)
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(n), 0
	for value >= 1023.95 { // what would be written as 1024.0
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
