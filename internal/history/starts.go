package history

import (
	"time"

	"github.com/dianemo/dianemo"
)

// starts: a job without retries and reruns is started once at most; any other once, and once more for each
// retry, each rerun, and each run that gave it back or put it off. Of two starts the first was ended in the
// store before the second was claimed: by a retry, a reap, or one of the latter. So what ended it is counted,
// where it is known, and where it is not, it is taken for what costs nothing. What is certain even so:
//
//   - A handler that never returned was not settled, so its run was reaped, or is the last.
//   - What the record has in full, it has with all outcomes.
//   - Retries that a hook or the record tells of are different runs, by their epochs.
func starts(a *account, say sayer) {
	for _, j := range a.jobs {
		if j.wish != nil && !j.workflow {
			often(j, say)
			unknown(j, say)
			attempts(j, say)
			distance(j, say)
			early(a, j, say)
			late(a, j, say)
			spent(j, say)
			soon(j, say)
			feigned(j, say)
		}
	}
}

func often(j *job, say sayer) {
	retries, reruns := max(j.wish.Retries, 0), max(j.wish.Reruns, 0)
	started, died, retried, free := 0, 0, 0, 0
	for _, r := range j.runs {
		switch {
		case r.start == nil:
		case r.died():
			died++
		case r.outcome == dianemo.GiveBack, r.outcome == dianemo.Postpone:
			free++
		case r.outcome == "" && r.settle == nil:
			free++ // it may have been given back, and its peer was killed before it said so
		}
		if r.start != nil {
			started++
		}
		if r.outcome == dianemo.Retry {
			retried++
		}
	}
	reaped := 0
	for _, e := range j.reaps {
		if e.State == dianemo.Scheduled {
			reaped++
		}
	}
	if j.whole() {
		lost := j.ended(dianemo.Lost)
		free = j.ended(dianemo.GiveBack) + j.ended(dianemo.Postpone)
		if j.final.State == dianemo.Unreachable || j.final.State == dianemo.Cancelled {
			lost-- // the last of these was not started again
		}
		reaped = max(reaped, lost)
	}
	switch most := 1 + retries + reruns + free; {
	case retries == 0 && reruns == 0 && started > 1:
		say(j, "has neither retries nor reruns, and was started %s%s", times(started), by(j))
	case died > 1+reruns:
		say(j, "has %d reruns, and %d of its handlers never returned%s", reruns, died, by(j))
	case retried > retries:
		say(j, "has %d retries, and was tried again %s", retries, times(retried))
	case reaped > reruns:
		say(j, "has %d reruns, and was taken from a peer to run again %s", reruns, times(reaped))
	case started > most:
		say(j, "has %d retries and %d reruns, was given back %s, and was started %s%s", retries, reruns, times(free), times(started), by(j))
	}
}

// unknown: a claim is repeated until it is answered, and has the answer of the first, so no peer has to give back
// what it never knew of.
func unknown(j *job, say sayer) {
	for _, s := range j.settles {
		if r := j.find(s.Epoch, s.Process); s.Reason == "lost" && !s.Stale && r.claim == nil && r.start == nil {
			say(j, "was claimed for %s, which did not hear of it and gave it back (%s)", s.Process, s.Outcome)
		}
	}
}

func by(j *job) string {
	text := ""
	for i, s := range j.starts {
		if i > 0 {
			text += ", "
		}
		text += s.Process
	}
	return ": by " + text
}

// attempts never go back, and one that was tried again has the next.
func attempts(j *job, say sayer) {
	var last *run
	for _, r := range j.runs {
		if r.start == nil || r.start.Attempt == 0 {
			continue
		}
		if last != nil {
			least := last.start.Attempt
			if last.outcome == dianemo.Retry || last.outcome == dianemo.Lost {
				least++
			}
			if r.start.Attempt < least {
				say(j, "was started by %s as attempt %d, after an attempt %d (%s)", r.peer, r.start.Attempt, last.start.Attempt, last.outcome)
			}
		}
		last = r
	}
}

// rounding is what the store's milliseconds and the host's clocks may make of a distance.
const rounding = 5 * time.Millisecond

// distance: whatever was claimed after an attempt that was to be tried again was due that much after it was
// settled, which was after its handler's end.
func distance(j *job, say sayer) {
	for _, r := range j.runs {
		if r.outcome != dianemo.Retry || r.end == nil {
			continue
		}
		for _, s := range j.starts {
			if after := s.At.Sub(r.end.At); s.Epoch > r.epoch && after < j.wish.RetryAfter-rounding {
				say(j, "was started by %s %v after an attempt that failed; it was to be tried again after %v", s.Process, after.Round(time.Millisecond), j.wish.RetryAfter)
				break
			}
		}
	}
}

// early: a job that was delayed is not started before that much after it was asked for. When a child or a job
// of a workflow is due depends on more.
func early(a *account, j *job, say sayer) {
	if j.of == nil || j.of.op != Enqueue || len(j.wish.Parents) > 0 || j.wish.Delay == 0 || len(j.starts) == 0 {
		return
	}
	if after := j.starts[0].At.Sub(j.of.invokes[0].At); after < j.wish.Delay-rounding {
		say(j, "was started by %s %v after it was asked for, which was to be delayed by %v", j.starts[0].Process, after.Round(time.Millisecond), j.wish.Delay)
	}
}

// late: a job is not claimed when its grace is over. When it was, its epoch says, whenever its handler was called.
// When it was due is known at the latest of those runs of which the record, if it has all, tells what was before.
func late(a *account, j *job, say sayer) {
	if j.wish.Grace <= 0 || !a.clock.known || !j.whole() {
		return
	}
	for i, h := range j.final.History {
		due, known := dueBefore(a, j, i)
		claimed, _ := a.clock.claimed(h.Epoch)
		if past := claimed.Sub(due) - j.wish.Grace; known && past > 0 {
			say(j, "was claimed by %s %v or more after its grace of %v was over", h.Peer, past.Round(time.Millisecond), j.wish.Grace)
		}
	}
}

// dueBefore is by when the job was due, certainly, for the run at that place of its history: at its instant; or
// its delay after its call was answered; and later, when a hook told how the run before ended.
func dueBefore(a *account, j *job, i int) (Moment, bool) {
	if i == 0 {
		if j.wish.Every > 0 {
			_, due := a.clock.instant(j.instant)
			return due, true
		}
		if j.of != nil && j.of.op == Enqueue && len(j.wish.Parents) == 0 && len(j.of.invokes) == 1 && len(j.of.oks) == 1 {
			return j.of.oks[0].At.Add(j.wish.Delay), true
		}
		return 0, false
	}
	before := j.final.History[i-1]
	if before.Outcome == dianemo.Lost {
		var told []*Event
		for _, e := range j.reaps {
			if e.Silent == before.Peer {
				told = append(told, e)
			}
		}
		if len(told) == 1 {
			return told[0].At, true
		}
		return 0, false
	}
	r := j.find(before.Epoch, before.Peer)
	if r == nil || r.settle == nil || r.settle.Stale {
		return 0, false
	}
	switch before.Outcome {
	case dianemo.Retry:
		return r.settle.At.Add(j.wish.RetryAfter), true
	case dianemo.GiveBack:
		return r.settle.At, true
	}
	return 0, false
}

// spent: a job fails by a run of its own, and only when no retry is left.
func spent(j *job, say sayer) {
	if !j.whole() || j.final.State != dianemo.Failed {
		return
	}
	switch n, retried := len(j.final.History), j.ended(dianemo.Retry); {
	case n == 0:
		say(j, "failed, and was never run")
	case j.final.History[n-1].Outcome == dianemo.FailRun && retried < j.wish.Retries:
		say(j, "failed after it was tried again %s, and had %d retries", times(retried), j.wish.Retries)
	}
}

// soon: what ends for its grace had waited for longer than that since it was due, which was its delay after it was asked
// for or, for one that is tried again, so much after its handler's end, at the earliest.
func soon(j *job, say sayer) {
	if j.final != nil && j.final.State == dianemo.Missed && j.wish.Grace == 0 && j.schedule == "" { // a schedule that is paused misses what was due
		say(j, "is missed, and may wait for ever")
	}
	for _, e := range j.misses {
		var due Moment
		if n := len(j.runs); n == 0 && j.of != nil && len(j.of.invokes) > 0 {
			due = j.of.invokes[0].At.Add(j.wish.Delay)
		} else if n > 0 && j.runs[n-1].outcome == dianemo.Retry && j.runs[n-1].end != nil {
			due = j.runs[n-1].end.At.Add(j.wish.RetryAfter)
		} else {
			continue
		}
		if waited := e.At.Sub(due); waited < j.wish.Grace-rounding {
			say(j, "ended for its grace of %v (%s), and had waited for %v at most", j.wish.Grace, e.State, waited.Round(time.Millisecond))
		}
	}
}

// feigned: an attempt that is made to fail did not succeed.
func feigned(j *job, say sayer) {
	for _, r := range j.runs {
		if r.outcome == dianemo.Succeed && r.start != nil && r.start.Attempt != 0 && r.start.Attempt <= j.wish.Fails {
			say(j, "succeeded by its attempt %d, and its first %d fail", r.start.Attempt, j.wish.Fails)
		}
	}
}
