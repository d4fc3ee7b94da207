package redisstore_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Who calls, in a walk: producers, peers, leaders and operators. What they send is chosen by
// what there is, since what is chosen blindly mostly comes to nothing.

// modelHands are those, and what they know.
type modelHands struct {
	numbers uint64
	ids     int
	routes  []string // by partition: what its ids begin with
	runs    []modelRun
	terms   []modelTerm
	births  []*modelBirth
	flows   []*modelFlow
}

// A modelRun is one that a peer was given.
type modelRun struct {
	part int
	peer string
	job  dianemo.Claimed
}

// A modelTerm is one that a leader was given.
type modelTerm struct {
	leader string
	term   int64
}

var (
	modelPeers   = []string{"peer-a", "peer-b", "peer-c"}
	modelLeaders = []string{"peer-a", "peer-b"}
	modelKinds   = []string{"light", "middle", "heavy"}
	modelWeights = map[string]int{"light": 1, "middle": 3, "heavy": 9}
	modelReruns  = map[string]int{"light": 0, "middle": 1, "heavy": 3}
	modelGraces  = []time.Duration{dianemo.Unlimited, 2 * time.Second, 10 * time.Minute}
	modelKeys    = []string{"k1", "k2"}
)

const (
	modelBeat   = 5 * time.Second
	modelSilent = 20 * time.Second
)

func pick[T any](w *modelWalk, all []T) T { return all[w.rng.IntN(len(all))] }

func (w *modelWalk) chance(percent int) bool { return w.rng.IntN(100) < percent }

// begin finds ids for each partition.
func (w *modelWalk) begin() {
	w.routes = make([]string, len(w.model.parts))
	for i, left := 0, len(w.routes); left > 0; i++ {
		route := fmt.Sprintf("r%d", i)
		if p := w.store.Partition(route); w.routes[p] == "" {
			w.routes[p] = route
			left--
		}
	}
	// A server that does not know settle yet carries it out after the claim of the same turn.
	w.turn(w.model.parts[0], modelPeers[0], []dianemo.Settlement{{ID: "none", Lane: w.lane(), Outcome: dianemo.Succeed}}, dianemo.Claim{})
	w.turn(w.model.parts[0], modelPeers[0], nil, dianemo.Claim{Limit: 1, BeatEvery: modelBeat})
}

func (w *modelWalk) part() *modelPart { return pick(w, w.model.parts) }

func (w *modelWalk) newID(p *modelPart) string {
	w.ids++
	return fmt.Sprintf("%s@%d", w.routes[p.number], w.ids)
}

// some are up to n ids of jobs of the partition that are like this; at times one that does not exist.
func (w *modelWalk) some(p *modelPart, n int, like func(j *modelJob) bool) []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(p.jobs)) {
		if like(p.jobs[id]) {
			ids = append(ids, id)
		}
	}
	w.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:min(len(ids), n)]
	if w.chance(5) {
		ids = append(ids, w.routes[p.number]+"@none")
	}
	return ids
}

func (w *modelWalk) call(caller string) dianemo.Call {
	w.numbers++
	return dianemo.Call{Caller: caller, Number: w.numbers}
}

func (w *modelWalk) lane() dianemo.Lane {
	return dianemo.Lane{Kind: pick(w, modelKinds), Priority: pick(w, []int{1, 2, 2, 4}), Grace: pick(w, modelGraces)}
}

func (w *modelWalk) record(id string) dianemo.Record {
	r := dianemo.Record{ID: id, Lane: w.lane()}
	if w.chance(15) {
		r.Weight = 1 + w.rng.IntN(12)
		for r.Lane.Weight = 1; r.Lane.Weight < r.Weight; {
			r.Lane.Weight *= 2
		}
	}
	if w.chance(15) {
		r.Reruns = pick(w, []int{dianemo.None, 1, 2})
	}
	args := []byte("{}")
	if w.chance(3) {
		args = []byte(`"` + strings.Repeat("x", 3<<10) + `"`)
	}
	r.Spec = dianemo.EncodeSpec(&dianemo.Spec{Kind: r.Lane.Kind, Priority: r.Lane.Priority, Grace: r.Lane.Grace, Weight: r.Weight, Args: args})
	return r
}

// dueSome gives a record a due time: mostly now, or soon, or it was before.
func (w *modelWalk) dueSome(r *dianemo.Record) {
	switch w.rng.IntN(10) {
	case 0, 1:
		r.Delay = time.Duration(w.rng.IntN(5_000_000)) * time.Microsecond
	case 2:
		r.RunAt = w.near(-10 * time.Second)
	case 3:
		r.RunAt = w.near(20 * time.Minute)
	}
}

// near is a time within that long from now.
func (w *modelWalk) near(d time.Duration) time.Time {
	return time.UnixMilli(w.model.ms() + w.rng.Int64N(max(d, -d).Milliseconds())*int64(d/max(d, -d)))
}

// act makes one of the hands do something.
func (w *modelWalk) act() {
	total := 0
	for _, a := range modelActs {
		total += a.weight
	}
	n := w.rng.IntN(total)
	for _, a := range modelActs {
		if n -= a.weight; n < 0 {
			a.act(w)
			return
		}
	}
}

var modelActs = []struct {
	weight int
	act    func(w *modelWalk)
}{
	{14, (*modelWalk).enqueueSome}, {5, (*modelWalk).enqueueUnique}, {18, (*modelWalk).claimSome}, {18, (*modelWalk).settleSome},
	{6, (*modelWalk).beatOne}, {2, (*modelWalk).heldOne}, {4, (*modelWalk).surveyAll}, {5, (*modelWalk).reapOne}, {1, (*modelWalk).silence},
	{4, (*modelWalk).missSome}, {3, (*modelWalk).overdueSome}, {6, (*modelWalk).cancelSome}, {6, (*modelWalk).requeueSome},
	{5, (*modelWalk).rescheduleSome}, {2, (*modelWalk).pauseOne}, {2, (*modelWalk).leadOne}, {2, (*modelWalk).trimSome}, {1, (*modelWalk).declareOne},
	{8, (*modelWalk).bearOne}, {7, (*modelWalk).submitOne}, {7, (*modelWalk).deliver}, {4, (*modelWalk).releaseSome}, {2, (*modelWalk).openGates}, {1, (*modelWalk).expungeSome},
	{6, (*modelWalk).setOne}, {8, (*modelWalk).fireSome}, {1, (*modelWalk).readSchedules},
}

func (w *modelWalk) enqueue(p *modelPart, records []dianemo.Record) {
	call := w.call(pick(w, []string{"producer", "client"}))
	var names []string
	for _, r := range records {
		names = append(names, fmt.Sprintf("%s in %v at %v+%v weight %d reruns %d unique %+v blocked %v by %d", r.ID, modelLane(r.Lane), r.RunAt.UnixMilli(), r.Delay, r.Weight, r.Reruns, r.Unique, r.Blocked, r.Teller))
	}
	w.do(modelCall{name: "enqueue", text: fmt.Sprint(p.number, call, names),
		real:  func(ctx context.Context) (any, error) { return w.store.Enqueue(ctx, p.number, call, records) },
		model: func() (any, error) { return p.enqueue(call, records) }})
}

func (w *modelWalk) enqueueSome() {
	p := w.part()
	var records []dianemo.Record
	for range 1 + w.rng.IntN(4) {
		id := w.newID(p)
		if ids := w.some(p, 1, func(*modelJob) bool { return true }); len(ids) > 0 && w.chance(10) {
			id = ids[0]
		} else if len(records) > 0 && w.chance(3) {
			id = records[0].ID
		}
		r := w.record(id)
		if w.dueSome(&r); len(records) > 0 && w.chance(50) {
			first := records[0]
			first.ID = id
			r = first
		}
		records = append(records, r)
	}
	w.enqueue(p, records)
}

func (w *modelWalk) enqueueUnique() {
	p := w.part()
	var records []dianemo.Record
	for range 1 + w.rng.IntN(2) {
		r := w.record(w.newID(p))
		w.dueSome(&r)
		r.Unique = dianemo.Unique{Key: pick(w, modelKeys), Replace: w.chance(40)}
		if w.chance(30) {
			r.Unique.Until = dianemo.UntilStarted
		}
		if w.chance(20) {
			r.Unique.For = time.Duration(1+w.rng.IntN(30)) * time.Second
		}
		records = append(records, r)
	}
	w.enqueue(p, records)
}

// lanesOf are the lanes from which a peer would claim: those that have jobs, and one that has none.
func (w *modelWalk) lanesOf(p *modelPart) (lanes []dianemo.ClaimLane) {
	all := p.lanes()
	all = append(all, w.lane())
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b dianemo.Lane) int { return a.Priority - b.Priority })
	for _, l := range all {
		if w.chance(85) && !slices.ContainsFunc(lanes, func(had dianemo.ClaimLane) bool { return had.Lane == l }) && modelWeights[l.Kind] > 0 {
			lanes = append(lanes, dianemo.ClaimLane{Lane: l, Weight: modelWeights[l.Kind], Reruns: modelReruns[l.Kind]})
		}
	}
	return lanes
}

func (w *modelWalk) claimOf(p *modelPart) dianemo.Claim {
	claim := dianemo.Claim{Limit: 1 + w.rng.IntN(5), Lanes: w.lanesOf(p), BeatEvery: modelBeat, SilentAfter: modelSilent}
	left := pick(w, []int{0, 3, 10, 30, 100})
	for q := 1; q <= 9; q++ {
		claim.Room[q] = left
		if w.chance(30) {
			left -= w.rng.IntN(left + 1)
		}
	}
	if w.chance(20) && len(claim.Lanes) > 0 {
		hold := pick(w, claim.Lanes).Lane
		claim.Hold = &hold
		if w.chance(20) {
			claim.Hold = &dianemo.Lane{Kind: "heavy", Priority: 2, Grace: dianemo.Unlimited}
		}
	}
	if w.chance(10) {
		claim.From = w.rng.IntN(3)
	}
	for _, id := range w.some(p, 2, func(j *modelJob) bool { return j.state == dianemo.Scheduled && j.due > p.ms() }) {
		if j := p.job(id); j != nil && w.chance(30) {
			claim.Near = append(claim.Near, dianemo.NearJob{ID: id, Lane: j.waits(), Until: time.UnixMilli(j.due + pick(w, []int64{0, 0, 1000, -1}))})
		}
	}
	return claim
}

func (w *modelWalk) turn(p *modelPart, peer string, settle []dianemo.Settlement, claim dianemo.Claim) {
	call := w.call(peer)
	text := fmt.Sprint(p.number, call)
	for _, s := range settle {
		text += fmt.Sprintf("\n\tsettle %s %d in %s: %s in %v reason %q own %v result %q decides %v %v keep %v", s.ID, s.Epoch, modelLane(s.Lane), s.Outcome, s.In, s.Reason, s.Own, s.Result, s.Decides, s.Chosen, s.Keep)
	}
	if claim.Limit > 0 {
		text += fmt.Sprintf("\n\tclaim %d room %v from %d near %v in", claim.Limit, claim.Room[1:], claim.From, claim.Near)
		for _, l := range claim.Lanes {
			text += " " + modelLane(l.Lane)
		}
		if claim.Hold != nil {
			text += " hold " + modelLane(*claim.Hold)
		}
	}
	w.do(modelCall{name: "turn", text: text,
		real: func(ctx context.Context) (any, error) { return w.store.Turn(ctx, p.number, call, settle, claim) },
		model: func() (any, error) {
			var settled modelSettled
			var reply dianemo.TurnReply
			var err, claimErr error
			if len(settle) > 0 {
				settled, err = p.settle(call, settle)
			}
			if claim.Limit > 0 {
				if reply, claimErr = p.claim(call, claim); err == nil {
					err = claimErr
				}
			}
			reply.Stale, reply.Cancelled, reply.News, reply.Heirs = settled.stale, settled.cancelled, settled.news, settled.heirs
			return reply, err
		},
		heard: func(answer any) {
			for _, job := range answer.(dianemo.TurnReply).Jobs {
				run := modelRun{p.number, peer, job}
				if !slices.ContainsFunc(w.runs, func(r modelRun) bool { return r.part == p.number && r.job.ID == job.ID && r.job.Epoch == job.Epoch }) {
					w.runs = append(w.runs, run)
				}
			}
		}})
}

func (w *modelWalk) claimSome() {
	p := w.part()
	w.turn(p, pick(w, modelPeers), nil, w.claimOf(p))
}

// known are the runs that a peer was given in a partition, and has not settled as far as it knows.
func (w *modelWalk) known(p *modelPart, peer string) (runs []modelRun) {
	for _, r := range w.runs {
		if r.part == p.number && r.peer == peer {
			runs = append(runs, r)
		}
	}
	return runs
}

func (w *modelWalk) settleSome() {
	if len(w.runs) == 0 {
		return
	}
	first := pick(w, w.runs)
	p, peer := w.model.parts[first.part], first.peer
	runs := w.known(p, peer)
	w.rng.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	var settle []dianemo.Settlement
	for _, r := range runs[:min(len(runs), 1+w.rng.IntN(4))] {
		s := dianemo.Settlement{ID: r.job.ID, Lane: r.job.Lane, Epoch: r.job.Epoch}
		s.Outcome = pick(w, []dianemo.Outcome{dianemo.Succeed, dianemo.Succeed, dianemo.Succeed, dianemo.FailRun, dianemo.Retry, dianemo.Retry, dianemo.Postpone, dianemo.GiveBack, dianemo.CancelRun, dianemo.Unstarted})
		switch s.Outcome {
		case dianemo.Succeed:
			if w.chance(30) {
				s.Result = []byte(fmt.Sprint(w.rng.IntN(1000)))
			}
			if w.chance(15) {
				s.Decides, s.Reason = true, "choice"
				for _, child := range p.children(r.job.ID, "|", "") {
					if w.chance(50) && !strings.HasPrefix(child, "|") {
						s.Chosen = append(s.Chosen, child)
					}
				}
			}
		case dianemo.FailRun, dianemo.Retry:
			s.Reason, s.Error, s.Own = "error", "boom", s.Outcome == dianemo.FailRun && w.chance(50)
			s.In = time.Duration(w.rng.IntN(4000)) * time.Millisecond
		case dianemo.Postpone:
			s.Reason, s.In = "snooze", time.Duration(w.rng.IntN(30_000))*time.Millisecond
		case dianemo.GiveBack:
			s.Reason = "shutdown"
		case dianemo.CancelRun:
			s.Reason = "cancel"
		}
		if w.chance(20) {
			s.Keep = dianemo.Retention{For: pick(w, []time.Duration{0, time.Minute}), Jobs: pick(w, []int{dianemo.None, 3, 20})}
		}
		if w.chance(4) {
			s.Epoch += pick(w, []int64{-1, 1, 1000})
		}
		if w.chance(85) {
			w.runs = slices.DeleteFunc(w.runs, func(had modelRun) bool {
				return had.part == r.part && had.job.ID == r.job.ID && had.job.Epoch == r.job.Epoch
			})
		}
		settle = append(settle, s)
	}
	if w.chance(4) {
		peer = pick(w, modelPeers) // in another's name
	}
	claim := dianemo.Claim{}
	if w.chance(30) {
		claim = w.claimOf(p)
	}
	w.turn(p, peer, settle, claim)
}

func (w *modelWalk) beatOne() {
	p, peer := w.part(), pick(w, modelPeers)
	beat := dianemo.Beat{Peer: peer, Every: modelBeat, SilentAfter: pick(w, []time.Duration{modelSilent, modelSilent, 2 * modelSilent})}
	for _, r := range w.known(p, peer) {
		held := dianemo.HeldRun{ID: r.job.ID, Epoch: r.job.Epoch}
		if w.chance(40) {
			held.Progress = &dianemo.Progress{Done: w.rng.Int64N(100), Total: 100, Note: "so far"}
		}
		beat.Runs = append(beat.Runs, held)
	}
	w.do(modelCall{name: "beat", text: fmt.Sprintf("%d %+v", p.number, beat),
		real:  func(ctx context.Context) (any, error) { return w.store.Beat(ctx, p.number, beat) },
		model: func() (any, error) { return p.beat(beat), nil },
		heard: func(answer any) {
			for _, ref := range answer.(dianemo.BeatReply).Lost {
				// Most give up what they have lost.
				if w.chance(70) {
					w.runs = slices.DeleteFunc(w.runs, func(r modelRun) bool { return r.part == p.number && r.job.ID == ref.ID && r.job.Epoch == ref.Epoch })
				}
			}
		}})
}

func (w *modelWalk) heldOne() {
	p, peer := w.part(), pick(w, modelPeers)
	w.do(modelCall{name: "held", text: fmt.Sprint(p.number, peer), once: true,
		real:  func(ctx context.Context) (any, error) { return w.store.Held(ctx, p.number, peer) },
		model: func() (any, error) { return p.held(peer), nil }})
}
