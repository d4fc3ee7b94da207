package redisstore_test

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Beat, held, survey, reap, miss, overdue, trim and lead.

func (p *modelPart) beat(beat dianemo.Beat) dianemo.BeatReply {
	reply := dianemo.BeatReply{Held: len(p.run(beat.Peer))}
	for _, r := range beat.Runs {
		j := p.job(r.ID)
		ref := dianemo.RunRef{ID: r.ID, Epoch: r.Epoch}
		if j == nil || j.state != dianemo.Running || j.peer != beat.Peer || j.epoch != r.Epoch {
			reply.Lost = append(reply.Lost, ref)
			continue
		}
		if r.Progress != nil {
			text, _ := json.Marshal(r.Progress)
			j.progress = string(text)
		}
		if j.marked() {
			reply.Cancelled = append(reply.Cancelled, ref)
		}
	}
	p.touch(beat.Every)
	p.beats[beat.Peer] = p.ms() + beat.SilentAfter.Milliseconds()
	return reply
}

func (p *modelPart) held(peer string) (all []dianemo.HeldJob) {
	for _, j := range p.run(peer) {
		all = append(all, dianemo.HeldJob{RunRef: dianemo.RunRef{ID: j.id, Epoch: j.epoch}, Lane: j.lane, Again: j.reruns < j.maxReruns})
	}
	return all
}

// leads is the leader's sign of life. It reports whether there was no outage.
func (p *modelPart) leads(chore *dianemo.Chore) bool {
	p.touch(chore.BeatEvery)
	p.term, p.every = chore.Term, chore.BeatEvery.Milliseconds()
	return p.since <= p.ms()-chore.SilentAfter.Milliseconds()
}

func (w *modelWorld) survey(chore *dianemo.Chore) (all []dianemo.Survey) {
	for _, p := range w.parts {
		s := dianemo.Survey{Partition: p.number, Now: time.UnixMicro(p.now), Lanes: p.laneHeads(), Heirs: len(p.outbox) > 0}
		if chore != nil && p.deposed(chore.Term) {
			s.Deposed = true
		} else if chore != nil && p.leads(chore) {
			for peer, until := range p.beats {
				if until < p.ms() {
					s.Silent = append(s.Silent, peer)
				}
			}
			slices.SortFunc(s.Silent, func(a, b string) int { return cmp.Or(cmp.Compare(p.beats[a], p.beats[b]), strings.Compare(a, b)) })
		}
		first := int64(0)
		for _, one := range p.schedules {
			if one.next != 0 && (first == 0 || one.next < first) {
				first = one.next
			}
		}
		s.Fires = modelInstant(first)
		for _, j := range p.jobs {
			s.Late = s.Late || j.state == dianemo.Blocked && j.startBy() < p.ms()
		}
		for _, until := range p.gates {
			s.Late = s.Late || until <= p.ms()
		}
		all = append(all, s)
	}
	return all
}

func modelMicros(us int64) time.Time { return time.UnixMicro(us) }

func modelInstant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// startBy is until when a blocked job must start: the end of the year 9999 if it has no time of its own.
func (j *modelJob) startBy() int64 {
	if j.due <= 0 || j.lane.Grace < 0 {
		return time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli()
	}
	return j.due + j.lane.Grace.Milliseconds()
}

func (p *modelPart) reap(call dianemo.Call, peer string, chore dianemo.Chore) (dianemo.ReapReply, error) {
	if p.deposed(chore.Term) {
		return dianemo.ReapReply{}, dianemo.ErrDeposed
	}
	if kept, err := p.recall("reap", call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.ReapReply)
		return reply, err
	}
	var reply dianemo.ReapReply
	runs := p.run(peer)
	if until, heard := p.beats[peer]; !p.leads(&chore) || heard && until >= p.ms() {
		return reply, nil // it is not silent; where nothing was done there is nothing to remember
	}
	var ended []*modelJob
	for _, j := range runs[:min(len(runs), chore.Limit)] {
		p.ran(j, p.ms(), dianemo.Lost, "silent", "the peer was silent for too long")
		cancelled := j.marked()
		j.epoch++ // what the silent peer may still send is refused
		j.progress = ""
		switch {
		case cancelled:
			p.end(j, dianemo.Cancelled, "cancel")
		case j.reruns < j.maxReruns:
			j.reruns++
			j.wait(p.ms(), "silent")
			l := j.waits()
			one := dianemo.News{Kind: l.Kind, Priority: l.Priority, Weight: l.Lightest()}
			if !slices.Contains(reply.News, one) {
				reply.News = append(reply.News, one)
			}
		default:
			p.end(j, dianemo.Unreachable, "silent")
		}
		if j.state.Finished() {
			ended = append(ended, j)
		}
		reply.Jobs = append(reply.Jobs, j.moved())
	}
	reply.More = len(reply.Jobs) > 0
	p.bequeath(ended...)
	if len(p.run(peer)) == 0 {
		delete(p.beats, peer)
	}
	p.keep("reap", call, reply)
	return reply, nil
}

// miss: each lane is a call of its own, so their numbers are counted on from the chore's.
func (p *modelPart) miss(call dianemo.Call, chore dianemo.Chore) (reply dianemo.MissReply, err error) {
	heads := p.heads()
	call.Number *= 1 << 10
	for _, l := range p.lanes() {
		if heads[l] > p.ms() {
			break
		}
		if len(reply.Jobs) >= chore.Limit {
			reply.More = true
			break
		}
		if l.Grace < 0 || heads[l] >= p.ms()-l.Grace.Milliseconds() {
			continue
		}
		if p.deposed(chore.Term) {
			return reply, dianemo.ErrDeposed
		}
		kept, err := p.recall("miss", call)
		if err != nil {
			return reply, err
		}
		jobs, again := kept.([]dianemo.Moved)
		if !again {
			limit := chore.Limit - len(reply.Jobs)
			for _, j := range p.in(l) {
				if j.due < p.ms()-l.Grace.Milliseconds() && len(jobs) < limit {
					p.expire(j)
					jobs = append(jobs, j.moved())
					p.bequeath(j)
				}
			}
			reply.More = reply.More || len(jobs) >= limit
			p.term = chore.Term
			p.keep("miss", call, jobs)
		}
		reply.Jobs = append(reply.Jobs, jobs...)
		call.Number++
	}
	return reply, nil
}

func (p *modelPart) overdue(call dianemo.Call, chore dianemo.Chore) (reply dianemo.MissReply, err error) {
	var late []*modelJob
	for _, j := range p.jobs {
		if j.state == dianemo.Blocked && j.startBy() <= p.ms() {
			late = append(late, j)
		}
	}
	if len(late) == 0 {
		return reply, nil
	}
	slices.SortFunc(late, func(a, b *modelJob) int {
		return cmp.Or(cmp.Compare(a.startBy(), b.startBy()), strings.Compare(a.id, b.id))
	})
	if p.deposed(chore.Term) {
		return reply, dianemo.ErrDeposed
	}
	if kept, err := p.recall("overdue", call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.MissReply)
		return reply, err
	}
	for _, j := range late[:min(len(late), chore.Limit)] {
		if j.startBy() < p.ms() {
			p.end(j, dianemo.Missed, "grace")
			reply.Jobs = append(reply.Jobs, j.moved())
			p.bequeath(j)
		}
	}
	reply.More = len(reply.Jobs) > 0
	p.keep("overdue", call, reply)
	return reply, nil
}

// A modelOutlived is what is too old, or too much, of a set of ended jobs.
type modelOutlived struct {
	gone []*modelJob
	held []string // that stay for their children
}

// outlived looks for it beside those that are about to join.
func (p *modelPart) outlived(state dianemo.State, kind string, keep dianemo.Retention, added, most int, joining []*modelJob) (o modelOutlived) {
	var set []*modelJob
	for _, j := range p.jobs {
		if j.state == state && j.lane.Kind == kind && !slices.Contains(joining, j) {
			set = append(set, j)
		}
	}
	slices.SortFunc(set, func(a, b *modelJob) int { return cmp.Or(cmp.Compare(a.ended, b.ended), strings.Compare(a.id, b.id)) })
	over := 0
	if keep.Jobs > 0 || keep.Jobs == dianemo.None {
		share := max(keep.Jobs, 0)
		share = (share + len(p.parts) - 1) / len(p.parts)
		over = len(set) + added - share
		if added > 0 && over*100 <= share {
			over = 0 // a little too much, for now
		}
	}
	before := int64(math.MinInt64)
	if keep.For > 0 {
		before = p.ms() - upMillis(keep.For)
	}
	for i, j := range set {
		if i >= most || i >= over && j.ended >= before {
			break
		}
		if p.kids[j.id] != nil || j.flow() && p.kids[j.id+"#"] != nil {
			o.held = append(o.held, j.id)
		} else {
			o.gone = append(o.gone, j)
		}
	}
	return o
}

// forget lets a job go whole.
func (p *modelPart) forget(j *modelJob) {
	delete(p.jobs, j.id)
	if j.unique != nil && p.slots[j.unique.slot].id == j.id {
		delete(p.slots, j.unique.slot)
	}
}

func (p *modelPart) trim(call dianemo.Call, chore dianemo.Chore) (reply dianemo.TrimReply, err error) {
	kinds := map[string]dianemo.Keep{}
	for name := range p.counted {
		f := strings.Split(name, ":")
		if dianemo.State(f[0]).Finished() {
			kinds[f[1]] = p.keeps[f[1]]
		}
	}
	if len(p.keeps) == 0 || len(kinds) == 0 {
		return reply, nil // what is kept is not known, or nothing ever was
	}
	if p.deposed(chore.Term) {
		return reply, dianemo.ErrDeposed
	}
	if kept, err := p.recall("trim", call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.TrimReply)
		reply.Held = nil // that is not remembered
		return reply, err
	}
	for kind, keep := range kinds {
		for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped} {
			o := p.outlived(state, kind, keep.Of(state), 0, chore.Limit, nil)
			reply.Held = append(reply.Held, o.held...)
			reply.Jobs += len(o.gone)
			for _, j := range o.gone {
				p.forget(j)
			}
		}
	}
	if reply.Jobs > 0 {
		p.keep("trim", call, reply)
	}
	return reply, nil
}

func (w *modelWorld) lead(bid dianemo.Bid) dianemo.Lease {
	if w.forgets && w.now >= w.until {
		w.leader = ""
	}
	switch {
	case bid.Resign && w.leader == bid.Peer && w.leader != "":
		w.leader = ""
		return dianemo.Lease{Term: w.term}
	case bid.Resign && w.leader == "":
		return dianemo.Lease{}
	case !bid.Resign && w.leader == "":
		w.last = max(w.ms(), w.last+1)
		w.leader, w.term = bid.Peer, w.last
	}
	if !bid.Resign && w.leader == bid.Peer {
		w.until = w.now + bid.Lease.Microseconds()
	}
	return dianemo.Lease{Leader: w.leader, Term: w.term}
}
