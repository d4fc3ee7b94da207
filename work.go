package dianemo

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A partition is a peer's work in one partition of the store. One loop claims what
// fits, another settles what has finished (see settle.go); each keeps one call under
// way. So while one reads its answer, the store works for the other.
type partition struct {
	peer   *Peer
	number int
	kicked chan struct{} // has room for one: there is something to do
	ended  chan struct{} // has room for one: there is something to settle
	look   atomic.Bool   // there may be work of which nothing is known

	surveyed atomic.Pointer[surveyed] // what the last round found; nil: taken in

	mu       sync.Mutex
	held     map[RunRef]*run // claimed and not yet returned
	finished []finished      // returned and not yet settled
	sending  []finished      // of these, those in the call under way
	news     []string        // kinds of which there was news
	near     []NearJob       // kept for this peer

	// Only the loop that settles touches these.
	settles  uint64 // number of the last call
	settling pace

	// Only the loop that claims touches these.
	claims   uint64 // number of the last claim
	claiming pace
	view     laneView
	page     int           // where the next listing of lanes begins
	place    place         // in the line for tokens
	ahead    time.Duration // the store's clock less ours
	least    time.Duration // the least that this can be
	watched  time.Time     // when it last asked for a round
	known    time.Time     // the store's clock when the view was last heard of
	heavy    *laneKnown    // whose job tokens are saved for
	renew    bool          // the hold on it is to be renewed
	planned  time.Time     // the store's clock when the last plan was made
	owed     bool          // it is to look once there are tokens again
	next     time.Time     // when it is to plan again, for example since a lane's patience ends, by our clock; zero: never
	carry    levels        // the peer's capacity at the last plan

	told    atomic.Bool  // a message about runs came since the last claim was sent
	beaten  atomic.Bool  // a beat is under way
	beatNow atomic.Bool  // the next beat names all runs
	doubt   atomic.Bool  // the store says that this peer holds more runs than it knows
	sure    atomic.Int64 // when the last beat that was answered was sent (ns since 1970)
	silent  complaint    // about beats that are not answered
	chores  complaint    // about chores that fail
	unfired complaint    // about schedules that can't be fired
	clock   clock        // of the schedules
}

// surveyed is a partition as a round found it.
type surveyed struct {
	*Survey
	ahead, least time.Duration // as in partition
}

// finished is a run that has returned.
type finished struct {
	run        *run
	settlement Settlement
	took       time.Duration
}

func newPartition(p *Peer, number int) *partition {
	part := &partition{peer: p, number: number, kicked: make(chan struct{}, 1), ended: make(chan struct{}, 1), held: map[RunRef]*run{},
		settling: pace{jobs: firstPace, least: leastPace}, claiming: pace{jobs: firstPace, least: leastPace}}
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

// lookFor makes the loop look for work of which nothing is known, of this kind
// or of any.
func (part *partition) lookFor(kind string) {
	if kind != "" {
		part.mu.Lock()
		if len(part.news) < emptyLanes && !slices.Contains(part.news, kind) {
			part.news = append(part.news, kind)
		}
		part.mu.Unlock()
	}
	part.look.Store(true)
	part.kick()
}

// kick makes the loop look at what there is to do.
func (part *partition) kick() {
	signal(part.kicked)
}

// work claims until the peer is closing and nothing is left to settle here, or until ctx
// ends; and settles meanwhile.
func (part *partition) work(ctx, base context.Context) {
	settling, stop := context.WithCancel(ctx)
	var settles sync.WaitGroup
	settles.Go(func() { part.settle(settling) })
	part.claim(ctx, base)
	stop()
	settles.Wait()
}

func (part *partition) claim(ctx, base context.Context) {
	for {
		if part.doubt.Swap(false) {
			part.audit(ctx)
		}
		if part.behind() {
			select {
			case <-part.kicked:
				continue
			case <-ctx.Done():
				return
			}
		}
		claim, grant := part.plan()
		if claim.Limit == 0 && claim.Stance.Move == 0 {
			if part.peer.closing.Load() && part.idle() || ctx.Err() != nil {
				return
			}
			part.sleep(ctx)
			continue
		}
		part.told.Store(false)
		reply, begin, ok := part.call(ctx, &part.claims, nil, claim)
		if claim.Stance.Move != 0 {
			part.peer.standing.stood()
		}
		if !ok {
			return
		}
		part.heard(reply)
		if claim.Limit > 0 {
			part.measure(begin, reply)
			part.learn(claim, reply)
			part.begin(base, grant, reply)
		}
	}
}

// heard acts on the news in a turn's reply.
func (part *partition) heard(reply TurnReply) {
	p := part.peer
	for _, n := range reply.News {
		if _, handles := p.kinds[n.Kind]; handles && !p.refrains() && (!n.Later || p.leading() != 0) {
			part.lookFor(n.Kind) // and what this peer can't take, it passes on
		} else {
			p.wake(part.number, "", n)
		}
	}
	for _, number := range reply.Unheard {
		p.partitions[number].lookFor("")
	}
}

// takeSurvey takes in what a round found.
func (part *partition) takeSurvey() {
	s := part.surveyed.Swap(nil)
	if s == nil {
		return
	}
	part.view.all = part.peer.leading() != 0
	if s.Now.Before(part.known) {
		return // a claim has seen more since
	}
	part.view.paused = nil // if they still are, the next claim says so
	part.ahead, part.least = s.ahead, s.least
	part.view.heard(0, s.Lanes, s.Next == 0, part.peer.own)
	if part.page = s.Next; part.page != 0 && !part.peer.refrains() {
		part.look.Store(true) // the listing goes on
	}
	for _, l := range part.view.lanes {
		l.stuck = 0
	}
	part.renew = part.heavy != nil
}

// plan decides whether to claim, what, and within which budget.
func (part *partition) plan() (Claim, levels) {
	p := part.peer
	part.takeSurvey()
	part.next = time.Time{}
	now := time.Now()
	part.planned = now.Add(part.ahead)
	due, foreign, _ := part.view.due(part.planned)
	for _, l := range foreign {
		part.passOn(l)
	}
	if p.refrains() {
		for _, l := range due {
			part.passOn(l)
		}
		if part.look.Swap(false) {
			part.watch()
		}
		part.letGo(func(NearJob) bool { return true })
		part.stopSaving()
		p.ledger.leave(&part.place)
		return Claim{Stance: p.stance(false)}, levels{}
	}
	capacity := p.ledger.capacity()
	if capacity != part.carry {
		part.carry = capacity
		for _, l := range part.view.lanes {
			l.stuck, l.beyond = 0, false
		}
	}
	near := part.nearLanes()
	need, hold := part.wants(due, near, capacity, now)
	look := part.look.Swap(false)
	looks := look || part.owed || hold != nil
	if looks {
		need[1] = 1 // what is not known may be urgent and light
	}
	if need == (levels{}) {
		p.ledger.leave(&part.place)
		return Claim{Stance: p.stance(false)}, levels{}
	}
	grant, jobs := p.ledger.ask(&part.place, need)
	for _, l := range due {
		if n := l.need(capacity); jobs == 0 || n == 0 || n > grant.fits(l.Priority) || !part.may(l) {
			part.passOn(l)
		}
	}
	if jobs == 0 && looks && p.ledger.dry() {
		// The load or the operator has stopped all claims; it will be called, and
		// looks then. Whoever was to be told of news is another now.
		for _, kind := range part.takeNews() {
			p.passOn(part.number, News{Kind: kind, Priority: 2}, p.id)
		}
		if look {
			part.watch()
		}
		part.owed, looks = true, false
	}
	if jobs == 0 && !looks {
		return Claim{Stance: p.stance(false)}, levels{}
	}
	part.owed = false
	if jobs == 0 {
		jobs = part.claiming.jobs // without a budget it only learns what there is, so that what becomes free goes to the most urgent
	}
	near = slices.DeleteFunc(near, func(l *laneKnown) bool { return l.nearNeed(capacity) > grant.fits(l.Priority) })
	claim := Claim{Limit: min(part.claiming.jobs, jobs), Room: grant, Lanes: part.view.choose(near, due, grant, capacity, part.takeNews(), part.may),
		From: part.page, BeatEvery: p.config.BeatEvery, SilentAfter: p.config.SilentAfter, Hold: hold}
	if len(near) > 0 {
		claim.Near = part.chooseNear(near)
	}
	if len(due) == 0 {
		claim.Stance = p.stance(true)
	}
	return claim, grant
}

// watch makes a leader that does not claim now look at what is due later all the
// same: it keeps the time for all.
func (part *partition) watch() {
	if part.peer.leading() == 0 {
		return
	}
	if again := part.watched.Add(100 * time.Millisecond); time.Now().Before(again) {
		part.look.Store(true) // since the round that was asked for may have been before the news
		part.planBy(again)
		return
	}
	part.watched = time.Now()
	signal(part.peer.soon)
}

// planBy makes the loop plan again at that time at the latest.
func (part *partition) planBy(at time.Time) {
	if part.next.IsZero() || at.Before(part.next) {
		part.next = at
	}
}

// wants is what a claim must have room for, by levels, and the lane that the
// peer asks to hold, if one has been passed over for long enough.
func (part *partition) wants(due, near []*laneKnown, capacity levels, now time.Time) (need levels, hold *Lane) {
	room, reach := part.peer.ledger.now(&part.place)
	if h := part.heavy; h != nil && (h.passed.IsZero() || part.view.rests(h) || h.need(capacity) == 0 || h.least() > reach.fits(h.Priority)) {
		h.beyond = h.need(capacity) == 0
		part.stopSaving() // it has gone, is paused, or would not fit if nothing ran
	}
	for _, l := range due {
		n := l.need(capacity)
		if l == part.heavy {
			n = min(l.most(), capacity.fits(l.Priority))
		}
		if part.waits(l, n, room, reach, now) {
			hold = &l.Lane
		}
		if n > 0 && part.may(l) && (need[l.Priority] == 0 || n < need[l.Priority]) {
			need[l.Priority] = n
		}
	}
	for _, l := range near {
		if n := l.nearNeed(capacity); need[l.Priority] == 0 || n < need[l.Priority] {
			need[l.Priority] = n
		}
	}
	if part.renew {
		hold, part.renew = &part.heavy.Lane, false
	}
	return need, hold
}

// takeNews returns the kinds of which there was news since the last call.
func (part *partition) takeNews() []string {
	part.mu.Lock()
	defer part.mu.Unlock()
	kinds := part.news
	part.news = nil
	return kinds
}

// call makes a call until it is answered: the same call each time, so that it counts
// once. last is the number of the one before. It returns when it sent the call that was
// answered, and false when ctx ends first.
func (part *partition) call(ctx context.Context, last *uint64, settle []Settlement, claim Claim) (TurnReply, time.Time, bool) {
	p := part.peer
	*last++
	for attempt := 1; ; attempt++ {
		begin := time.Now()
		reply, err := p.store.Turn(ctx, part.number, Call{p.id, *last}, settle, claim)
		if err == nil {
			if attempt > 1 {
				p.logger.Info("the store answers again", "partition", part.number, "attempts", attempt)
			}
			return reply, begin, true
		}
		p.mended(part.number, err)
		if attempt == 1 {
			p.logger.Warn("the store does not answer; running jobs go on, and results are kept", "partition", part.number, "err", err)
		}
		if errors.Is(err, ErrSuperseded) {
			// The store has seen a higher number of ours, which only its return to an
			// older state followed by another program under our id could explain.
			*last++
		}
		if !pause(ctx, backoff(attempt, 20*time.Millisecond, 2*time.Second)) {
			return TurnReply{}, begin, false
		}
	}
}

// measure learns the store's clock, and how much a claim may carry.
func (part *partition) measure(begin time.Time, reply TurnReply) {
	took := time.Since(begin)
	part.claiming.learn(took, len(reply.Jobs), 1)
	if part.ahead == 0 || took < 8*part.claiming.trip+50*time.Millisecond { // else where in it the clock was read is a guess
		part.ahead, part.least = reply.Now.Sub(begin.Add(took/2)), reply.Now.Sub(begin.Add(took))
	}
}

// hand tells the leader of what is due next in lanes from which this peer, which
// does not lead, has just taken what the leader knew of.
func (part *partition) hand(reply TurnReply) {
	p := part.peer
	if len(reply.Jobs) == 0 || p.leading() != 0 {
		return
	}
	for _, head := range reply.Lanes {
		in := head.Due.Sub(reply.Now)
		if in > 0 && in < p.config.BeatEvery && slices.ContainsFunc(reply.Jobs, func(j Claimed) bool { return j.Lane.Kind == head.Kind }) {
			p.wake(part.number, "", News{Kind: head.Kind, Priority: head.Priority, Later: true})
			return // it looks at all lanes
		}
	}
}

// learn takes in what a claim's reply says of the lanes.
func (part *partition) learn(claim Claim, reply TurnReply) {
	part.known = reply.Now
	part.hand(reply)
	part.view.heard(claim.From, reply.Lanes, reply.Next == 0, part.peer.own)
	part.view.paused = reply.Paused
	part.tried(claim, reply)
	if part.page = reply.Next; part.page != 0 {
		part.look.Store(true) // the listing goes on
	}
	if h := part.heavy; h != nil && slices.ContainsFunc(reply.Jobs, func(j Claimed) bool { return j.Lane == h.Lane }) {
		part.stopSaving()
	}
	if claim.Hold != nil {
		if part.heavy != nil && !reply.Held {
			part.stopSaving()
		} else if reply.Held {
			part.startSaving(*claim.Hold)
		}
		if l := part.view.index[*claim.Hold]; part.heavy == nil && l != nil && !l.passed.IsZero() {
			// Another saves for it, or this peer for another: asked again a beat later.
			l.passed = time.Now().Add(part.peer.config.BeatEvery - part.peer.config.HeavyWait)
		}
	}
	if len(reply.Jobs) > 0 || len(reply.Missed) > 0 {
		return
	}
	capacity := part.peer.ledger.capacity()
	for _, l := range claim.Lanes {
		known := part.view.index[l.Lane]
		if known != nil && !part.view.rests(known) && !known.due.IsZero() && !known.due.After(reply.Now) && known.need(capacity) <= levels(claim.Room).fits(l.Priority) {
			known.stuck++
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
		r, refusal := part.newRun(&reply.Jobs[i], now, reply.Now)
		if refusal != nil {
			part.finished = append(part.finished, finished{run: r, settlement: *refusal})
			continue
		}
		r.open(base)
		part.held[r.ref()] = r
		runs = append(runs, r)
	}
	part.mu.Unlock()
	if p.resting.CompareAndSwap(true, false) {
		signal(p.awake)
	}
	if len(runs) < len(reply.Jobs) {
		signal(part.ended)
	}
	p.ledger.close(grant, runs)
	if len(reply.Missed) > 0 {
		p.releaseHeirs(part.number)
	}
	for _, m := range reply.Missed {
		p.hooks.Miss(MissInfo{m.ID, m.Kind, m.Priority, m.State})
	}
	for _, r := range runs {
		p.hooks.Claim(ClaimInfo{r.id, r.kind, r.priority, r.weight, r.attempt, r.epoch, r.due, max(reply.Now.Sub(r.due), 0)})
		go r.execute()
	}
	if len(runs) > 0 && part.told.Load() {
		// It may have been about these, when no beat could name them yet.
		part.beatNow.Store(true)
		p.beatAtOnce()
	}
}

// newRun makes a run of a claimed job, or says why it is not to be started.
func (part *partition) newRun(job *Claimed, now, theirs time.Time) (*run, *Settlement) {
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
	spec := &r.stored
	err := spec.decode(job.Spec, job.Lane.Kind)
	if err == nil && spec.Kind != job.Lane.Kind {
		err = errors.New("its lane is not of its kind")
	}
	switch {
	case err != nil:
		return refuse(FailRun, "corrupt", "corrupt: "+trim(err.Error(), maxError))
	case job.Cancelled:
		return refuse(CancelRun, "cancel", "")
	case p.refrains() || !ok:
		return refuse(Unstarted, "", "")
	}
	r.spec, r.fn = spec, kind.fn
	if spec.Ahead > 0 && job.Runs == 1 {
		// It was put before others; see aheadOf.
		if r.due = r.due.Add(spec.Ahead); r.due.After(theirs) {
			r.due = theirs
		}
	}
	return r, nil
}

// sleep waits until there is something to do: a kick, the end of a lane's
// patience, or, for who leads and keeps the time, the next due time.
func (part *partition) sleep(ctx context.Context) {
	wake := part.next
	if part.peer.leading() != 0 && !part.peer.closing.Load() {
		// What has become due since the plan was made is not in it, and is due next.
		if _, _, next := part.view.due(part.planned); !next.IsZero() {
			if at := next.Add(-part.ahead); wake.IsZero() || at.Before(wake) {
				wake = at
			}
		}
	}
	var alarm <-chan time.Time
	if !wake.IsZero() {
		timer := time.NewTimer(time.Until(wake))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-part.kicked:
	case <-alarm:
	case <-ctx.Done():
	}
}

// audit gives back the runs that the store says this peer holds and that it does
// not know: a claim whose answer was lost for good, or a settlement that Redis
// itself has lost. No claim is under way meanwhile. Since the job may have been
// run, one that may not run twice ends here.
func (part *partition) audit(ctx context.Context) {
	p := part.peer
	known := map[RunRef]bool{} // whatever is settled meanwhile
	part.mu.Lock()
	for ref := range part.held {
		known[ref] = true
	}
	for _, done := range [][]finished{part.finished, part.sending} {
		for _, f := range done {
			known[f.run.ref()] = true
		}
	}
	part.mu.Unlock()
	jobs, err := p.store.Held(ctx, part.number, p.id)
	if err != nil {
		p.mended(part.number, err)
		if ctx.Err() == nil {
			p.logger.Warn("runs that this peer does not know could not be read; the next beat asks again", "partition", part.number, "err", err)
		}
		return
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	for _, job := range jobs {
		if known[job.RunRef] {
			continue
		}
		s := Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: GiveBack, Reason: "lost"}
		if !job.Again {
			s.Outcome, s.Error = FailRun, "its peer did not know that it was running there; whether it was is not known"
		}
		p.logger.Warn("a run that this peer does not know is given back", "job", job.ID, "epoch", job.Epoch, "outcome", s.Outcome)
		part.finished = append(part.finished, finished{run: &run{id: job.ID, kind: job.Lane.Kind, priority: job.Lane.Priority, lane: job.Lane,
			partition: part, epoch: job.Epoch, started: time.Now()}, settlement: s})
		signal(part.ended)
	}
}

func (part *partition) idle() bool { return part.count() == 0 }

func (part *partition) runs() []*run {
	part.mu.Lock()
	defer part.mu.Unlock()
	all := make([]*run, 0, len(part.held))
	for _, r := range part.held {
		all = append(all, r)
	}
	return all
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
