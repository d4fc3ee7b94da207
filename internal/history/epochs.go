package history

import (
	"slices"

	"github.com/dianemo/dianemo"
)

// epochs: each claim has an epoch of its own, they only grow, and a result counts only from whose run it is.
//
// If the end of a run was accepted, the job was that run's until after its handler had returned. So no
// run of a higher epoch was claimed before, and none was started before: whoever overlapped had lost the
// job. The other way round nothing follows: a peer that was stopped between a claim and its start
// starts a run that was taken from it long ago.
func epochs(a *account, say sayer) {
	for _, j := range a.jobs {
		distinct(j, say)
		highest(j, say)
		overlaps(j, say)
		recorded(j, say)
		result(j, say)
	}
	terms(a, say)
}

// distinct: no epoch is claimed or started twice, and in one process, which claims from a job's partition
// one call after the other, they grow.
func distinct(j *job, say sayer) {
	started := map[int64]string{}
	for _, s := range j.starts {
		if by, twice := started[s.Epoch]; twice {
			say(j, "was started twice under the epoch %d, by %s and %s", s.Epoch, by, s.Process)
		}
		started[s.Epoch] = s.Process
	}
	claimed, last := map[int64]string{}, map[string]int64{}
	for _, c := range j.claims {
		if by, twice := claimed[c.Epoch]; twice && by != c.Process {
			say(j, "was claimed under the epoch %d by %s and %s", c.Epoch, by, c.Process)
		}
		if before, again := last[c.Process]; again && c.Epoch <= before {
			say(j, "was claimed by %s under the epoch %d, and before that under %d", c.Process, c.Epoch, before)
		}
		claimed[c.Epoch], last[c.Process] = c.Process, c.Epoch
	}
}

// highest: the record has the highest epoch, and in its history they grow. Whose end was accepted as the
// job's is the last.
func highest(j *job, say sayer) {
	top := int64(0)
	for _, r := range j.runs {
		top = max(top, r.epoch)
	}
	for _, s := range j.settles {
		if !s.Stale && s.State.Finished() && s.Epoch < top {
			say(j, "ended %s by the run %d of %s, and there was a run %d", s.State, s.Epoch, s.Process, top)
		}
	}
	if j.final == nil {
		return
	}
	if top > j.final.Epoch {
		say(j, "has the epoch %d in the end, and %d was seen", j.final.Epoch, top)
	}
	for i := 1; i < len(j.final.History); i++ {
		if this, before := j.final.History[i].Epoch, j.final.History[i-1].Epoch; this <= before {
			say(j, "has a run %d in its history behind a run %d", this, before)
		}
	}
}

func overlaps(j *job, say sayer) {
	for _, r := range j.runs {
		if !r.accepted() || r.end == nil {
			continue
		}
		for _, s := range j.starts {
			if s.Epoch > r.epoch && s.At < r.end.At {
				say(j, "was started by %s under the epoch %d while %s ran it under %d, whose end (%s) was accepted all the same",
					s.Process, s.Epoch, r.peer, r.epoch, r.outcome)
			}
		}
	}
}

// recorded: the record, where it has all runs, has them as they were accepted, and those that were refused
// as lost.
func recorded(j *job, say sayer) {
	if !j.whole() {
		return
	}
	for _, s := range j.settles {
		i := slices.IndexFunc(j.final.History, func(h Run) bool { return h.Epoch == s.Epoch && h.Peer == s.Process })
		switch {
		case s.Stale && i >= 0 && j.final.History[i].Outcome != dianemo.Lost:
			say(j, "has the run %d of %s in its history (%s), whose end was refused", s.Epoch, s.Process, j.final.History[i].Outcome)
		case s.Stale || s.Outcome == dianemo.Unstarted:
		case i < 0:
			say(j, "has no run %d of %s in its history, whose end (%s) was accepted", s.Epoch, s.Process, s.Outcome)
		case j.final.History[i].Outcome != s.Outcome:
			say(j, "has the run %d of %s in its history as %s, which was accepted as %s", s.Epoch, s.Process, j.final.History[i].Outcome, s.Outcome)
		}
	}
}

// result: what succeeded did so by a handler that was seen to return, and has the result of that one. No
// other has a result.
func result(j *job, say sayer) {
	f, quiet := j.final, j.wish != nil && j.wish.Quiet
	switch {
	case f == nil || j.workflow:
		return
	case f.State != dianemo.Succeeded:
		if f.ResultEpoch != 0 {
			say(j, "is %s, and has a result, of the run %d", f.State, f.ResultEpoch)
		}
		return
	case quiet && f.ResultEpoch != 0:
		say(j, "has a result, of the run %d, and leaves none", f.ResultEpoch)
	case !quiet && (f.ResultEpoch != f.Epoch || f.ResultPeer != f.Peer):
		say(j, "succeeded by the run %d of %s, and has the result of %d of %s", f.Epoch, f.Peer, f.ResultEpoch, f.ResultPeer)
	}
	if r := j.find(f.Epoch, f.Peer); r == nil || r.start == nil || r.end == nil {
		say(j, "succeeded by the run %d of %s, whose handler was not seen to return", f.Epoch, f.Peer)
	}
}

// terms: each is one peer's, and one peer's grow. Two may think that they lead at a time, or be heard late.
func terms(a *account, say sayer) {
	holder := map[int64]string{}
	for _, p := range a.processes {
		last := int64(0)
		for _, e := range p.events {
			if e.What != Lead || !e.Leading {
				continue
			}
			if by, held := holder[e.Term]; held && by != p.name {
				say(nil, "%s and %s both led in the term %d", by, p.name, e.Term)
			}
			if e.Term < last {
				say(nil, "%s led in the term %d after it had in %d", p.name, e.Term, last)
			}
			holder[e.Term], last = p.name, e.Term
		}
	}
}
