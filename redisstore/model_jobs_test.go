package redisstore_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Enqueue, settle and claim.

// holder is the job that holds a slot, and whether it has been started since it took it.
func (p *modelPart) holder(slot string) (*modelJob, bool) {
	s, taken := p.slots[slot]
	j := p.job(s.id)
	if !taken || j == nil || s.expires != 0 && p.ms() >= s.expires || j.state.Finished() {
		return nil, false
	}
	started := j.runs != s.runs || j.state == dianemo.Running
	if s.until == dianemo.UntilStarted && started {
		return nil, false
	}
	return j, started
}

// take gives a job the slot.
func (p *modelPart) take(j *modelJob) {
	s := modelSlot{id: j.id, until: j.unique.until, runs: j.runs}
	if j.unique.lasts > 0 {
		s.expires = p.ms() + j.unique.lasts
	}
	p.slots[j.unique.slot] = s
}

// dueOf is when a record is due: not before what it says, to the ms.
func (p *modelPart) dueOf(r *dianemo.Record) int64 {
	if r.RunAt.IsZero() {
		return p.ms() + upMillis(r.Delay)
	}
	return upMillis(time.Duration(r.RunAt.UnixNano()))
}

// byLikeness is the order in which the records of a call are looked at: those that differ in id
// and spec alone go together. Only two that want the same id or slot can tell.
func byLikeness(p *modelPart, records []dianemo.Record) []int {
	var names []string
	places := map[string][]int{}
	for i, r := range records {
		name := fmt.Sprint(r.Lane, p.dueOf(&r), r.RunAt.IsZero(), r.Weight, r.Reruns, r.Unique, r.Blocked, r.Teller, r.Ahead, max(len(r.Spec), 2<<10))
		if places[name] == nil {
			names = append(names, name)
		}
		places[name] = append(places[name], i)
	}
	var order []int
	for _, name := range names {
		order = append(order, places[name]...)
	}
	return order
}

func (p *modelPart) enqueue(call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	if kept, err := p.recall("enqueue", call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.EnqueueReply)
		return reply, err
	}
	reply := dianemo.EnqueueReply{Existing: make([]dianemo.State, len(records))}
	news := p.news()
	came := map[string]bool{}
	var replaced []*modelJob
	for _, i := range byLikeness(p, records) {
		r := &records[i]
		had := p.job(r.ID)
		if had != nil && r.Blocked && had.flow() && had.state == dianemo.Cancelled && had.reason == "gate" {
			had = nil // a workflow that was never wholly submitted: its id is free
		}
		if had != nil {
			reply.Existing[i] = had.state
			if came[r.ID] {
				reply.Existing[i] = dianemo.Scheduled
			}
			continue
		}
		if r.Blocked && r.Teller != 0 {
			if n := p.needs[r.ID]; n == nil || !n.gate || n.by() != fmt.Sprint(r.Teller) {
				reply.Moved = append(reply.Moved, i)
				continue
			}
		}
		j := &modelJob{id: r.ID, bare: true, state: dianemo.Scheduled, lane: r.Lane, weight: r.Weight, maxReruns: -1, spec: r.Spec,
			enqueued: p.ms(), due: p.dueOf(r), history: map[int]string{}}
		if r.Reruns != 0 {
			j.maxReruns = max(r.Reruns, 0)
		}
		if r.Blocked {
			j.state, j.due = dianemo.Blocked, -r.Ahead.Milliseconds()
			if !r.RunAt.IsZero() {
				j.due = p.dueOf(r)
			}
		}
		j.bare = r.Weight == 0 && r.Reruns == 0 && len(r.Spec) <= 2<<10 && r.Unique.Key == "" && !r.Blocked
		if r.Unique.Key != "" {
			j.unique = &modelUnique{r.Lane.Kind + ":" + r.Unique.Key, r.Unique.Until, upMillis(r.Unique.For)}
			holder, started := p.holder(j.unique.slot)
			if holder != nil && (!r.Unique.Replace || started) {
				reply.Existing[i] = holder.state
				if came[holder.id] {
					reply.Existing[i] = dianemo.Scheduled
				}
				if reply.Holders == nil {
					reply.Holders = map[int]string{}
				}
				reply.Holders[i] = holder.id
				continue
			}
			if holder != nil {
				p.end(holder, dianemo.Cancelled, "replaced")
				replaced = append(replaced, holder)
			}
			p.take(j)
		}
		p.jobs[j.id], came[j.id] = j, true
		if j.state == dianemo.Scheduled {
			news.add(j)
		}
	}
	for l := range news.come {
		if !slices.ContainsFunc(p.in(l), func(j *modelJob) bool { return came[j.id] }) {
			delete(news.come, l) // all were replaced at once
		}
	}
	reply.News = news.list()
	p.bequeath(replaced...)
	slices.Sort(reply.Moved)
	p.keep("enqueue", call, reply)
	return reply, nil
}

// A modelSettled is what settle answers.
type modelSettled struct {
	stale, cancelled []dianemo.RunRef
	news             []dianemo.News
	heirs            bool
}

func (p *modelPart) settle(call dianemo.Call, settle []dianemo.Settlement) (modelSettled, error) {
	if kept, err := p.recall("settle", call); kept != nil || err != nil {
		reply, _ := kept.(modelSettled)
		return reply, err
	}
	var reply modelSettled
	news := p.news()
	var ended []*modelJob
	type target struct {
		state dianemo.State
		lane  dianemo.Lane
	}
	joined := map[target]int{}
	// Those that succeeded and say nothing else are looked at first: their refusals stand first.
	plain := func(s dianemo.Settlement) bool {
		return s.Outcome == dianemo.Succeed && s.Result == nil && s.Error == "" && s.Reason == ""
	}
	for _, first := range []bool{true, false} {
		for i := range settle {
			s := &settle[i]
			if plain(*s) != first {
				continue
			}
			ref := dianemo.RunRef{ID: s.ID, Epoch: s.Epoch}
			j := p.job(s.ID)
			if j == nil || j.bare || j.epoch != s.Epoch || j.peer != call.Caller {
				reply.stale = append(reply.stale, ref)
				continue
			}
			if j.state != dianemo.Running {
				continue // it was settled before, by this very run
			}
			if p.settleOne(j, s) {
				reply.cancelled = append(reply.cancelled, ref)
			}
			j.progress = ""
			if j.state.Finished() {
				ended = append(ended, j)
				if j.state == settledState(s.Outcome) {
					joined[target{j.state, s.Lane}]++
				}
			} else {
				news.add(j)
			}
		}
	}
	reply.news = news.list()
	// The first to say what is kept of a set decides, once. What has come to the set otherwise
	// is not counted, and goes the next time.
	decided := map[string]bool{}
	for i := range settle {
		s := &settle[i]
		state := settledState(s.Outcome)
		set := string(state) + ":" + s.Lane.Kind
		if state == "" || s.Keep == (dianemo.Retention{}) || decided[set] {
			continue
		}
		decided[set] = true
		if added := joined[target{state, s.Lane}]; added > 0 {
			for _, j := range p.outlived(state, s.Lane.Kind, s.Keep, added, added+100, ended).gone {
				p.forget(j)
			}
		}
	}
	reply.heirs = p.bequeath(ended...)
	p.keep("settle", call, reply)
	return reply, nil
}

func settledState(o dianemo.Outcome) dianemo.State {
	return map[dianemo.Outcome]dianemo.State{dianemo.Succeed: dianemo.Succeeded, dianemo.FailRun: dianemo.Failed, dianemo.CancelRun: dianemo.Cancelled}[o]
}

// settleOne moves a job as its run ended. It reports whether it ended cancelled instead.
func (p *modelPart) settleOne(j *modelJob, s *dianemo.Settlement) bool {
	instead := j.marked() && s.Outcome != dianemo.Succeed && s.Outcome != dianemo.CancelRun && !(s.Outcome == dianemo.FailRun && s.Own)
	if s.Outcome != dianemo.Succeed && s.Outcome != dianemo.Unstarted {
		p.ran(j, p.ms(), s.Outcome, s.Reason, s.Error)
	}
	switch s.Outcome {
	case dianemo.FailRun, dianemo.Retry, dianemo.CancelRun:
		j.fails++
	case dianemo.Unstarted:
		j.runs--
	}
	if state := settledState(s.Outcome); !instead && state != "" {
		p.end(j, state, s.Reason)
	} else if instead {
		p.end(j, dianemo.Cancelled, "cancel")
	} else {
		due := p.ms() + upMillis(s.In)
		if s.Outcome == dianemo.Unstarted {
			due = j.due
		}
		j.wait(due, s.Reason)
	}
	if j.state.Finished() {
		result := string(s.Result)
		if s.Decides {
			result = "!" + strings.Join(s.Chosen, " ") + "\n" + result
		}
		if result != "" {
			j.result = result
		}
	}
	return instead
}

// A modelClaimed is what claim keeps of its answer.
type modelClaimed struct {
	runs   []dianemo.RunRef
	missed []dianemo.Moved
	held   bool
}

func (p *modelPart) claim(call dianemo.Call, claim dianemo.Claim) (dianemo.TurnReply, error) {
	kept, err := p.recall("claim", call)
	if err != nil {
		return dianemo.TurnReply{}, err
	}
	took, again := kept.(modelClaimed)
	if !again {
		took = p.claimAnew(call.Caller, claim)
		p.keep("claim", call, took)
	}
	reply := dianemo.TurnReply{Missed: took.missed, Held: took.held, Lanes: p.laneHeads(), Paused: p.paused, Now: time.UnixMicro(p.now)}
	reply.Lanes = reply.Lanes[min(claim.From, len(reply.Lanes)):]
	// Asked again, it gets those that it still runs.
	for _, run := range took.runs {
		j := p.job(run.ID)
		if j == nil || j.state != dianemo.Running || j.peer != call.Caller {
			continue
		}
		one := dianemo.Claimed{ID: j.id, Lane: j.lane, Epoch: j.epoch, Due: time.UnixMilli(j.due), Enqueued: time.UnixMilli(j.enqueued),
			Weight: j.weight, Fails: j.fails, Reruns: j.reruns, Runs: j.runs, Spec: j.spec, Cancelled: j.marked()}
		one.Lane.Again = j.runs > 1
		for _, l := range claim.Lanes {
			if j.weight == 0 && l.Lane == one.Lane {
				one.Weight = l.Weight
			}
		}
		reply.Jobs = append(reply.Jobs, one)
	}
	return reply, nil
}

func (p *modelPart) claimAnew(peer string, claim dianemo.Claim) (took modelClaimed) {
	room, now := claim.Room, p.ms()
	fromHeld := false
	for _, l := range claim.Lanes {
		if slices.Contains(p.paused, l.Kind) {
			continue
		}
		least := func() int { return slices.Min(room[1 : l.Priority+1]) }
		lightest := l.Weight
		if l.Lane.Weight > 0 {
			lightest = l.Lane.Lightest()
		}
		begin := func(j *modelJob, weight int, due int64) {
			j.state, j.reason, j.ended, j.bare = dianemo.Running, "", 0, false
			j.epoch, j.peer, j.due, j.started = max(j.epoch+1, p.now), peer, due, now
			j.runs++
			if j.maxReruns < 0 {
				j.maxReruns = l.Reruns
			}
			for q := 1; q <= l.Priority; q++ {
				room[q] -= weight
			}
			took.runs = append(took.runs, dianemo.RunRef{ID: j.id, Epoch: j.epoch})
			fromHeld = fromHeld || claim.Hold != nil && *claim.Hold == l.Lane
		}
		weighs := func(j *modelJob) int {
			if j.weight > 0 {
				return j.weight
			}
			return l.Weight
		}
		if least() < lightest || len(took.runs) >= claim.Limit {
			continue
		}
		jobs := p.in(l.Lane)
		// Those that are kept for this peer come first.
		for _, near := range claim.Near {
			at := slices.IndexFunc(jobs, func(j *modelJob) bool { return j.id == near.ID })
			if near.Lane != l.Lane || at < 0 || jobs[at].due <= now || jobs[at].due > near.Until.UnixMilli() {
				continue
			}
			if weighs(jobs[at]) <= least() && len(took.runs) < claim.Limit {
				begin(jobs[at], weighs(jobs[at]), now)
			}
		}
		if least() < lightest || len(took.runs) >= claim.Limit {
			continue
		}
		for _, j := range jobs {
			if j.state != dianemo.Scheduled || j.due > now {
				continue
			}
			if l.Grace >= 0 && j.due < now-l.Grace.Milliseconds() {
				p.expire(j)
				took.missed = append(took.missed, j.moved())
				p.bequeath(j)
				continue
			}
			if weighs(j) <= least() && len(took.runs) < claim.Limit {
				begin(j, weighs(j), j.due)
			}
		}
	}
	if len(took.runs) > 0 {
		p.beats[peer] = now + claim.SilentAfter.Milliseconds()
	}
	p.touch(claim.BeatEvery)
	if claim.Hold != nil {
		name := modelLane(*claim.Hold)
		if had, ok := p.holds[name]; fromHeld {
			delete(p.holds, name) // it has what it was held for
		} else if !ok || had.peer == peer || had.until < now {
			p.holds[name] = modelHold{peer, now + 2*claim.BeatEvery.Milliseconds()}
			took.held = true
		}
	}
	return took
}

// expire ends a job whose grace is over: missed means never started.
func (p *modelPart) expire(j *modelJob) {
	state := dianemo.Missed
	if j.runs > 0 {
		state = dianemo.Failed
	}
	p.end(j, state, "grace")
}
