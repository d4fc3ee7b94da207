package dianemo

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A partition is a peer's work in one partition of the store. Its loop keeps
// one turn under way: in one round trip it settles what has finished since the
// last one and claims what fits. While a turn is under way, results gather, so
// that batches form without anyone waiting for them (group commit).
type partition struct {
	peer   *Peer
	number int
	kicked chan struct{} // has room for one: there is something to do
	look   atomic.Bool   // there may be work of which nothing is known

	mu       sync.Mutex
	held     map[RunRef]*run // claimed and not yet returned
	finished []finished      // returned and not yet settled

	// Only the loop touches these.
	turn  uint64 // number of the last
	view  laneView
	page  int           // where the next listing of lanes begins
	place place         // in the line for tokens
	batch int           // jobs claimed at most, by how long turns take
	ahead time.Duration // the store's clock less ours
	tick  time.Time     // when to look although nothing was heard
	trip  time.Duration // the quickest turn so far: mostly the network's part

	beaten  atomic.Bool // a beat is under way
	beatNow atomic.Bool // the next beat names all runs
	silent  complaint   // about beats that are not answered
	chores  complaint   // about chores that fail
}

// finished is a run that has returned.
type finished struct {
	run        *run
	settlement Settlement
	took       time.Duration
}

func newPartition(p *Peer, number int) *partition {
	part := &partition{peer: p, number: number, kicked: make(chan struct{}, 1), held: map[RunRef]*run{}, batch: MaxCallJobs}
	part.place.call = part.kick
	part.look.Store(true)
	for name, kind := range p.kinds {
		// Where most of a kind's jobs will wait, so that the first of them is
		// found without a listing.
		priority := inherit(kind.policy.Priority, 2)
		lane := Lane{Kind: name, Priority: priority, Grace: inherit(kind.policy.Grace, defaults(priority).Grace)}
		if own, ok := p.own(lane); ok {
			part.view.add(own)
		}
	}
	return part
}

// own says how this peer runs the jobs of a lane, or that it does not: a kind
// without a handler is left for a peer that has one.
func (p *Peer) own(l Lane) (ClaimLane, bool) {
	kind, ok := p.kinds[l.Kind]
	if !ok {
		return ClaimLane{}, false
	}
	return ClaimLane{Lane: l, Weight: inherit(kind.policy.Weight, 1),
		Reruns: max(inherit(kind.policy.Reruns, defaults(l.Priority).Reruns), 0)}, true
}

// kick makes the loop look at what there is to do.
func (part *partition) kick() {
	select {
	case part.kicked <- struct{}{}:
	default:
	}
}

// turns is the loop. It ends when the peer is closing and nothing is left to
// settle here, or when ctx ends.
func (part *partition) turns(ctx, base context.Context) {
	part.setTick()
	for {
		settle := part.take()
		claim, grant := part.plan()
		if len(settle) == 0 && claim.Limit == 0 {
			if part.peer.closing.Load() && part.idle() || ctx.Err() != nil {
				return
			}
			part.sleep(ctx)
			continue
		}
		part.turn++
		reply, ok := part.send(ctx, settle, claim)
		if !ok {
			part.putBack(settle)
			return
		}
		part.settled(settle, reply.Stale)
		if reply.Wake {
			part.look.Store(true)
			part.peer.wake(part.number)
		}
		if claim.Limit > 0 {
			part.learn(claim, reply)
			part.begin(base, grant, reply)
		}
	}
}

// take returns what has finished, as much as one call carries.
func (part *partition) take() []finished {
	part.mu.Lock()
	defer part.mu.Unlock()
	n, bytes := 0, 0
	for ; n < min(len(part.finished), MaxCallJobs); n++ {
		s := &part.finished[n].settlement
		if bytes += len(s.Result) + len(s.Error); n > 0 && bytes > MaxCallBytes {
			break
		}
	}
	taken := part.finished[:n:n]
	part.finished = part.finished[n:]
	return taken
}

// plan decides whether to claim, what, and within which budget.
func (part *partition) plan() (Claim, levels) {
	p := part.peer
	now := time.Now()
	ticks := !now.Before(part.tick)
	if ticks {
		part.setTick()
	}
	if p.closing.Load() || len(p.kinds) == 0 {
		p.ledger.leave(&part.place)
		return Claim{}, levels{}
	}
	if ticks {
		part.look.Store(true)
		for _, l := range part.view.lanes {
			l.stuck = 0
		}
	}
	due, _ := part.view.due(now.Add(part.ahead))
	var need levels
	capacity := p.ledger.capacity()
	for _, l := range due {
		if n := l.need(capacity); n > 0 && (need[l.Priority] == 0 || n < need[l.Priority]) {
			need[l.Priority] = n
		}
	}
	look := part.look.Swap(false)
	if look {
		need[1] = 1 // what is not known may be urgent and light
	}
	if need == (levels{}) {
		p.ledger.leave(&part.place)
		return Claim{}, levels{}
	}
	grant, ok := p.ledger.ask(&part.place, need)
	if !ok && !look {
		return Claim{}, levels{}
	}
	// Without a budget it only learns what there is, so that what becomes free
	// goes to the most urgent.
	return Claim{Limit: part.batch, Room: grant, Lanes: part.view.choose(due, grant, capacity), From: part.page,
		BeatEvery: p.config.BeatEvery, SilentAfter: p.config.SilentAfter}, grant
}

// send makes the call until it is answered: the same call each time, so that
// it counts once. It returns false when ctx ends first.
func (part *partition) send(ctx context.Context, settle []finished, claim Claim) (TurnReply, bool) {
	p := part.peer
	settlements := make([]Settlement, len(settle))
	for i := range settle {
		settlements[i] = settle[i].settlement
		if state := settlements[i].Outcome.state(); state.Finished() {
			settlements[i].Keep = settle[i].run.policy.Keep.Of(state)
		}
	}
	for attempt := 1; ; attempt++ {
		begin := time.Now()
		reply, err := p.store.Turn(ctx, part.number, Call{p.id, part.turn}, settlements, claim)
		if err == nil {
			part.measure(begin, reply, claim)
			if attempt > 1 {
				p.logger.Info("the store answers again", "partition", part.number, "attempts", attempt)
			}
			return reply, true
		}
		p.mended(part.number, err)
		if attempt == 1 {
			p.logger.Warn("the store does not answer; running jobs go on, and results are kept", "partition", part.number, "err", err)
		}
		if errors.Is(err, ErrSuperseded) {
			// The store has seen a higher number of ours, which only its return to an
			// older state followed by another program under our id could explain.
			part.turn++
		}
		if !pause(ctx, backoff(attempt, 20*time.Millisecond, 2*time.Second)) {
			return TurnReply{}, false
		}
	}
}

// measure learns the store's clock, and how large a batch may be: a turn is to
// hold the store for less than 5 ms.
func (part *partition) measure(begin time.Time, reply TurnReply, claim Claim) {
	took := time.Since(begin)
	if part.trip == 0 || took < part.trip {
		part.trip = took
	}
	if claim.Limit == 0 {
		return
	}
	if part.ahead == 0 || took < 8*part.trip+50*time.Millisecond { // else where in it the clock was read is a guess
		part.ahead = reply.Now.Sub(begin.Add(took / 2))
	}
	switch held := took - part.trip; {
	case held > 5*time.Millisecond && len(reply.Jobs) > 32:
		part.batch = max(len(reply.Jobs)*3/4, 32)
	case held < 3*time.Millisecond && len(reply.Jobs) == part.batch:
		part.batch = min(part.batch+32, MaxCallJobs)
	}
}

// learn takes in what a claim's reply says of the lanes.
func (part *partition) learn(claim Claim, reply TurnReply) {
	part.view.heard(claim.From, reply.Lanes, reply.Next == 0, part.peer.own)
	if part.page = reply.Next; part.page != 0 {
		part.look.Store(true) // the listing goes on
	}
	if len(reply.Jobs) > 0 || len(reply.Missed) > 0 {
		return
	}
	capacity := part.peer.ledger.capacity()
	for _, l := range claim.Lanes {
		known := part.view.index[l.Lane]
		if known != nil && !known.due.IsZero() && !known.due.After(reply.Now) && known.need(capacity) <= levels(claim.Room).fits(l.Priority) {
			known.stuck++
		}
	}
}

// settled tells the hooks, once the store has answered.
func (part *partition) settled(settle []finished, stale []RunRef) {
	for _, f := range settle {
		s := f.settlement
		refused := slices.Contains(stale, f.run.ref())
		part.peer.hooks.Settle(SettleInfo{ID: s.ID, Kind: f.run.kind, Priority: f.run.priority, Weight: f.run.weight, Epoch: s.Epoch, Outcome: s.Outcome, State: s.Outcome.state(),
			Reason: s.Reason, Error: s.Error, Took: f.took, Stale: refused})
		if refused {
			part.peer.logger.Warn("a result was refused: the run was no longer this peer's", "job", s.ID, "kind", f.run.kind, "epoch", s.Epoch)
		}
	}
}

// begin charges what was claimed and starts the handlers.
func (part *partition) begin(base context.Context, grant levels, reply TurnReply) {
	p := part.peer
	now := time.Now()
	runs := make([]*run, 0, len(reply.Jobs))
	part.mu.Lock()
	for i := range reply.Jobs {
		r, refusal := part.newRun(&reply.Jobs[i], now)
		if refusal != nil {
			part.finished = append(part.finished, finished{run: r, settlement: *refusal})
			continue
		}
		r.open(base)
		part.held[r.ref()] = r
		runs = append(runs, r)
	}
	part.mu.Unlock()
	p.ledger.close(grant, runs)
	for _, m := range reply.Missed {
		p.hooks.Miss(MissInfo{m.ID, m.Kind, m.Priority, m.State})
	}
	for _, r := range runs {
		p.hooks.Claim(ClaimInfo{r.id, r.kind, r.priority, r.weight, r.attempt, r.epoch, r.due, max(reply.Now.Sub(r.due), 0)})
		go r.execute(func(s Settlement) { part.finish(r, s) })
	}
}

// newRun makes a run of a claimed job, or says why it is not to be started.
func (part *partition) newRun(job *Claimed, now time.Time) (*run, *Settlement) {
	p := part.peer
	r := &run{id: job.ID, kind: job.Lane.Kind, partition: part, lane: job.Lane, priority: job.Lane.Priority, weight: job.Weight,
		attempt: job.Fails + job.Reruns + 1, fails: job.Fails, epoch: job.Epoch, due: job.Due, enqueued: job.Enqueued, started: now}
	kind, ok := p.kinds[job.Lane.Kind]
	r.policy = kind.policy
	refuse := func(outcome Outcome, reason, text string) (*run, *Settlement) {
		return r, &Settlement{ID: r.id, Lane: r.lane, Epoch: r.epoch, Outcome: outcome, Reason: reason, Error: text}
	}
	if job.Corrupt != "" {
		return refuse(FailRun, "corrupt", "corrupt: "+job.Corrupt)
	}
	spec, err := DecodeSpec(job.Spec)
	if err == nil && spec.Kind != job.Lane.Kind {
		err = errors.New("its lane is not of its kind")
	}
	switch {
	case err != nil:
		return refuse(FailRun, "corrupt", "corrupt: "+trim(err.Error(), maxError))
	case p.closing.Load() || !ok:
		return refuse(Unstarted, "", "")
	}
	r.spec, r.fn = spec, kind.fn
	return r, nil
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
}

// sleep waits until there is something to do: a kick, the next due time, or
// the tick.
func (part *partition) sleep(ctx context.Context) {
	wake := part.tick
	if !part.peer.closing.Load() {
		if _, next := part.view.due(time.Now().Add(part.ahead)); !next.IsZero() {
			if at := next.Add(-part.ahead); at.Before(wake) {
				wake = at
			}
		}
	}
	timer := time.NewTimer(time.Until(wake))
	defer timer.Stop()
	select {
	case <-part.kicked:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// setTick spreads the peers' ticks.
func (part *partition) setTick() {
	every := part.peer.config.BeatEvery
	part.tick = time.Now().Add(every*3/4 + rand.N(every/2))
}

func (part *partition) idle() bool {
	part.mu.Lock()
	defer part.mu.Unlock()
	return len(part.held) == 0 && len(part.finished) == 0
}

func (part *partition) runs() []*run {
	part.mu.Lock()
	defer part.mu.Unlock()
	all := make([]*run, 0, len(part.held))
	for _, r := range part.held {
		all = append(all, r)
	}
	return all
}

func (part *partition) putBack(settle []finished) {
	part.mu.Lock()
	defer part.mu.Unlock()
	part.finished = append(settle, part.finished...)
}

// unsettled lists the jobs whose runs are not over for the store.
func (part *partition) unsettled() []string {
	part.mu.Lock()
	defer part.mu.Unlock()
	var ids []string
	for ref := range part.held {
		ids = append(ids, ref.ID)
	}
	for _, f := range part.finished {
		ids = append(ids, f.run.id)
	}
	return ids
}
