package dianemo

import (
	"context"
	"runtime"
	"slices"
	"time"
)

// settle stores what has finished, until ctx ends. While a call is under way more
// gathers, so that batches form without anyone waiting for them (group commit).
func (part *partition) settle(ctx context.Context) {
	for {
		// Those that are about to finish do so first, and go along.
		runtime.Gosched()
		some := part.take()
		if len(some) == 0 {
			select {
			case <-part.ended:
				continue
			case <-ctx.Done():
				return
			}
		}
		settlements := make([]Settlement, len(some))
		for i := range some {
			settlements[i] = some[i].settlement
			if state := settlements[i].Outcome.state(); state.Finished() {
				settlements[i].Keep = some[i].run.policy.Keep.Of(state)
			}
		}
		reply, begin, ok := part.call(ctx, &part.settles, settlements, Claim{})
		if !ok {
			part.putBack(some)
			return
		}
		part.settling.learn(time.Since(begin), len(some), 1)
		part.settled(some, reply)
		part.heard(reply)
		part.kick() // the peer may be closing
	}
}

// take returns what has finished, as much as one call carries.
func (part *partition) take() []finished {
	part.mu.Lock()
	defer part.mu.Unlock()
	n, bytes := 0, 0
	for ; n < min(len(part.finished), part.settling.jobs); n++ {
		s := &part.finished[n].settlement
		if bytes += len(s.Result) + len(s.Error); n > 0 && bytes > MaxCallBytes {
			break
		}
	}
	part.sending = part.finished[:n:n]
	part.finished = part.finished[n:]
	return part.sending
}

// behind reports whether more has finished than one call settles: then nothing is claimed,
// or the results that a crash of this peer would lose, and jobs that would run again, had
// no bound.
func (part *partition) behind() bool {
	part.mu.Lock()
	defer part.mu.Unlock()
	return len(part.finished)+len(part.sending) > MaxCallJobs
}

// settled tells the hooks, once the store has answered.
func (part *partition) settled(settle []finished, reply TurnReply) {
	part.follow(settle)
	if reply.Heirs {
		part.peer.releaseHeirs(part.number)
	}
	part.mu.Lock()
	part.sending = nil
	part.mu.Unlock()
	for _, f := range settle {
		s := f.settlement
		refused := slices.Contains(reply.Stale, f.run.ref())
		state := s.Outcome.state()
		if slices.Contains(reply.Cancelled, f.run.ref()) {
			state, s.Reason = Cancelled, "cancel"
		}
		part.peer.hooks.Settle(SettleInfo{ID: s.ID, Kind: f.run.kind, Priority: f.run.priority, Weight: f.run.weight, Epoch: s.Epoch, Outcome: s.Outcome, State: state,
			Reason: s.Reason, Error: s.Error, Took: f.took, Stale: refused})
		if refused {
			part.peer.logger.Warn("a result was refused: the run was no longer this peer's", "job", s.ID, "kind", f.run.kind, "epoch", s.Epoch)
		}
	}
}

func (part *partition) putBack(settle []finished) {
	part.mu.Lock()
	defer part.mu.Unlock()
	part.finished = append(settle, part.finished...)
	part.sending = nil
}

// finish takes a run's end. Its tokens are free only now that its handler's
// goroutine has really returned.
func (part *partition) finish(r *run, s Settlement) {
	part.mu.Lock()
	delete(part.held, r.ref())
	part.finished = append(part.finished, finished{r, s, time.Since(r.started)})
	part.mu.Unlock()
	part.peer.ledger.release(r.priority, r.weight)
	part.kick()
	signal(part.ended)
}

// The paces before anything is known, since jobs of 500 kinds may cost the store ten times as much as those of one; and of claims
// and settlements that take long.
const (
	firstPace = MaxCallJobs / 4
	leastPace = 32
)

// A pace is how much one call carries, by how long calls take: each is to hold the store
// for less than 5 ms. What it waits there for another call counts, too.
type pace struct {
	jobs  int           // at most
	least int           // even if calls take long, or a slow network would let nothing through
	trip  time.Duration // the quickest call so far: mostly the network's part
}

// learn takes in how long a call took, how many jobs were in it, and how many such calls were under way.
func (p *pace) learn(took time.Duration, jobs, calls int) {
	if p.trip == 0 || took < p.trip {
		p.trip = took
	}
	switch held := (took - p.trip) / time.Duration(calls); {
	case held > 5*time.Millisecond && jobs > p.least:
		p.jobs = min(p.jobs, max(jobs*3/4, p.least))
	case held < 3*time.Millisecond && jobs > p.jobs/2:
		p.jobs = min(p.jobs+32, MaxCallJobs)
	}
}
