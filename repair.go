package dianemo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Repair walks through all that a partition holds, and puts right what does not
// hold together: a record in no index, an index without its record, a job in
// two places, counters that are off, what is left of jobs that are gone, keys of
// another type. A job's record decides where it belongs. What can't be read, and
// is not of a newer version, is set aside: the job ends failed, for the reason
// corrupt. The leader takes one small step at a time, for ever; [Client.Repair]
// walks it all at once.
//
// Each step looks again inside its script, so it is right whatever moved since
// its reading; where it can't know, it leaves things alone for the next walk.

// A RepairStep is a part of a walk through one partition.
type RepairStep struct {
	Term   int64  // the leader's, or 0 for an operator
	Cursor string // RepairReply.Next of the step before; "" begins a walk
	Limit  int    // jobs to look at, about
}

// RepairReply says what was found. Next is where the walk goes on; "" at its end.
type RepairReply struct {
	Next   string
	Found  []Repaired
	Looked int // at so many jobs and entries
	// Tell is what blocked jobs were not told, and nobody else will tell them.
	Tell []Release
}

// Repaired is one thing that was put right.
type Repaired struct {
	ID   string // of the job; "" where it is about a key
	Key  string // the key it was found in or is missing from; "" where it is about a record
	What string // what was wrong
	Did  string // what became of it
}

func (r Repaired) String() string {
	subject := "key " + r.Key
	if r.ID != "" {
		subject = "job " + r.ID
		if r.Key != "" {
			subject += " in " + r.Key
		}
	}
	return fmt.Sprintf("%s: %s; %s", subject, r.What, r.Did)
}

// A BrokenError is a call that failed on a key of another type than the store's.
// The store has moved the key out of the way, as Found tells, so the same call
// may be sent again.
type BrokenError struct {
	Found []Repaired
	Err   error
}

func (e *BrokenError) Error() string {
	text := e.Err.Error()
	for _, r := range e.Found {
		text += "; " + r.String()
	}
	return text
}

func (e *BrokenError) Unwrap() error { return e.Err }

// A RepairReport is the sum of a walk.
type RepairReport struct {
	Found  []Repaired // the first 10,000
	More   int        // found beyond those
	Looked int        // at so many jobs and entries
}

const maxReported = 10_000

// Repair walks through the whole namespace once and puts right what does not
// hold together; it disturbs no running job and may be called at any time. It
// returns what it found so far when ctx ends or Redis fails.
func (c *Client) Repair(ctx context.Context) (RepairReport, error) {
	var report RepairReport
	if err := c.open(ctx); err != nil {
		return report, err
	}
	c.repairing.Lock()
	defer c.repairing.Unlock()
	for partition := range c.store.Partitions() {
		failures := 0
		for step := (RepairStep{Limit: MaxCallJobs}); ; {
			c.repairs++
			reply, err := c.store.Repair(ctx, partition, Call{c.id, c.repairs}, step)
			var broken *BrokenError
			if errors.As(err, &broken) {
				reply.Found = append(reply.Found, broken.Found...)
			}
			c.repaired(partition, reply.Found)
			if _, told := c.releaseAll(ctx, &Call{Caller: uuid.NewString()}, reply.Tell); err == nil {
				err = told
			}
			room := min(maxReported-len(report.Found), len(reply.Found))
			report.Found = append(report.Found, reply.Found[:room]...)
			report.More += len(reply.Found) - room
			report.Looked += reply.Looked
			if broken != nil && failures < 10 {
				failures++
				continue
			}
			if err != nil {
				return report, fmt.Errorf("dianemo: repair of partition %d: %w", partition, err)
			}
			if step.Cursor = reply.Next; step.Cursor == "" {
				break
			}
		}
	}
	return report, nil
}

// repaired tells the hooks, and the log as much as is good for it.
func (c *Client) repaired(partition int, found []Repaired) {
	const logged = 10
	for i, r := range found {
		if i < logged {
			c.logger.Warn("repaired", "partition", partition, "job", r.ID, "key", r.Key, "what", r.What, "did", r.Did)
		}
		c.hooks.Repair(RepairInfo{partition, r})
	}
	if len(found) > logged {
		c.logger.Warn("repaired more", "partition", partition, "more", len(found)-logged)
	}
}

// mended tells what the store put right when a call failed on it.
func (c *Client) mended(partition int, err error) {
	var broken *BrokenError
	if errors.As(err, &broken) {
		c.repaired(partition, broken.Found)
	}
}

// The pace of repair: at each third beat one partition takes a step, and one
// more for each 32 that there are. It takes up to 16 at once: where there is much to
// look at some 3,000 jobs, for which the store works about 20 ms. A walk that came
// to its end begins anew 48 beats after it began at the earliest: where there is
// little to look at, little is asked.
const (
	repairBeats = 3
	repairParts = 32
	repairSteps = 16
	repairLimit = 200 // jobs of one step
	repairRound = 48  // beats
)

// walks are a leader's, one through each partition.
type walks struct {
	from    int      // the partition whose turn it is
	cursors []string // each its partition's own, as is all below
	begin   []int    // the beat from which on the next walk may begin
	failing []complaint
}

func newWalks(partitions int) *walks {
	return &walks{cursors: make([]string, partitions), begin: make([]int, partitions), failing: make([]complaint, partitions)}
}

func (w *walks) parts() int { return 1 + len(w.cursors)/repairParts }

// turn reports whether the partition takes a step at this beat.
func (w *walks) turn(partition, beat int) bool {
	if beat%repairBeats != repairBeats-1 || (partition-w.from+len(w.cursors))%len(w.cursors) >= w.parts() {
		return false
	}
	return w.cursors[partition] != "" || beat >= w.begin[partition]
}

func (w *walks) next(beat int) {
	if beat%repairBeats == repairBeats-1 {
		w.from = (w.from + w.parts()) % len(w.cursors)
	}
}

// repairs takes steps while they are full, and small ones until they make up a
// full one: a walk through many small indexes is to take minutes, not hours. It
// stops where the walk ends, or after a quarter of a beat: the round waits for it, and
// a leader whose rounds are one and a half beats apart takes each gap for an outage, after
// which it knows nobody to be silent.
func (p *Peer) repairs(ctx context.Context, partition int, calls *uint64, w *walks, beat int) {
	sum, begin := 0, time.Now()
	for range repairSteps {
		looked, more := p.repairStep(ctx, partition, calls, w, beat)
		if sum += looked; !more || looked < repairLimit/2 && sum >= repairLimit || time.Since(begin) >= p.config.BeatEvery/4 {
			return
		}
	}
}

// repairStep returns at how many jobs it looked, and whether the walk goes on.
func (p *Peer) repairStep(ctx context.Context, partition int, calls *uint64, w *walks, beat int) (int, bool) {
	term := p.leading()
	if term == 0 {
		return 0, false
	}
	*calls++
	cursor := &w.cursors[partition]
	reply, err := p.store.Repair(ctx, partition, Call{p.id, *calls}, RepairStep{Term: term, Cursor: *cursor, Limit: repairLimit})
	p.repaired(partition, reply.Found)
	p.mended(partition, err)
	if _, told := p.releaseAll(ctx, &Call{Caller: uuid.NewString()}, reply.Tell); err == nil {
		err = told
	}
	if err == nil {
		if *cursor == "" {
			w.begin[partition] = beat + repairRound
		}
		*cursor = reply.Next
	} else {
		*cursor, w.begin[partition] = "", 0 // its beginning mends what keeps the rest from being done
	}
	if errors.Is(err, ErrDeposed) {
		p.depose()
		return 0, false
	}
	if ctx.Err() == nil {
		w.failing[partition].about(p.logger, err, "a step of repair failed; the walk begins anew", "partition", partition)
	}
	return reply.Looked, *cursor != ""
}

// repairer is a client's place in its calls of Repair: one walk at a time.
type repairer struct {
	repairing sync.Mutex
	repairs   uint64 // number of the last call
}
