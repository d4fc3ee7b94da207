package history

import (
	"slices"

	"github.com/dianemo/dianemo"
)

// families: a child is started only after the handlers of the runs have returned by which its parents
// ended, and only if these ended in states that it wants; if one did not, it is skipped. And it is released
// once: as scheduled by one call, which may say so for several parents, but once for each. Where it is skipped
// or blocked, others that tell it of other parents say so too.
//
// Where it is not known what a parent has come to, nothing is said: it may have been let go of.
func families(a *account, say sayer) {
	for _, j := range a.jobs {
		if j.workflow {
			members(a, j, say)
			continue
		}
		released(j, say)
		if j.wish == nil || j.of == nil {
			continue
		}
		unsuitable, unknown := "", false
		for _, p := range j.wish.Parents {
			parent := a.only(p.Mark)
			state := dianemo.State("")
			if parent != nil {
				state = parent.end()
			}
			switch {
			case state == "":
				unknown = true
				continue
			case !slices.Contains(p.States, state):
				unsuitable = p.Mark
				if len(j.starts) > 0 {
					say(j, "was started by %s, and its parent %s is %s", j.starts[0].Process, p.Mark, state)
				}
				continue
			}
			last := parent.last()
			if last == nil || last.end == nil {
				continue
			}
			for _, s := range j.starts {
				if s.At < last.end.At {
					say(j, "was started by %s before its parent %s had ended", s.Process, p.Mark)
					break
				}
			}
		}
		f := j.final
		if f != nil && f.State == dianemo.Skipped && (f.Reason == "parent" || f.Reason == "" || len(j.wish.Parents) > 0) && unsuitable == "" && !unknown {
			say(j, "is skipped, and all its parents have ended as it wants")
		}
	}
}

// only is the job with that mark, if there is one.
func (a *account) only(name string) *job {
	if m := a.byMark[name]; m != nil && len(m.jobs) == 1 {
		return m.jobs[0]
	}
	return nil
}

func released(j *job, say sayer) {
	var first *Event
	parents := map[string]bool{}
	for _, e := range j.releases {
		if e.State != dianemo.Scheduled {
			continue
		}
		switch {
		case first == nil:
			first = e
		case e.Process != first.Process:
			say(j, "was released by %s and by %s", first.Process, e.Process)
		case parents[e.Parent]:
			say(j, "was released twice by %s, for its parent %q", e.Process, e.Parent)
		}
		parents[e.Parent] = true
	}
}

// members: what a workflow has come to is what its jobs have. One that was never wholly submitted is cancelled,
// and so is one that somebody cancelled, unless all of it succeeded.
func members(a *account, wf *job, say sayer) {
	if wf.final == nil || !wf.final.State.Finished() {
		return
	}
	if wf.final.Reason == "gate" {
		for _, m := range a.marks {
			if m.wish != nil && m.wish.Workflow == wf.id && len(m.oks) > 0 {
				say(wf, "was accepted, and was given up")
				break
			}
		}
		return
	}
	failed, left, n := "", "", 0
	for _, m := range a.marks {
		if m.wish == nil || m.wish.Workflow != wf.id {
			continue
		}
		j := a.only(m.name)
		if j == nil || j.final == nil {
			return
		}
		switch n++; j.final.State {
		case dianemo.Succeeded, dianemo.Skipped:
		case dianemo.Cancelled:
			left = m.name
		case dianemo.Failed, dianemo.Missed, dianemo.Unreachable:
			failed = m.name
		default:
			return
		}
	}
	state := wf.final.State
	switch {
	case n == 0:
	case failed != "" && state == dianemo.Succeeded:
		say(wf, "succeeded, and its job %s did not", failed)
	case left != "" && state == dianemo.Succeeded:
		say(wf, "succeeded, and its job %s was cancelled", left)
	case failed == "" && state == dianemo.Failed:
		say(wf, "failed, and none of its jobs did")
	case failed == "" && left == "" && state == dianemo.Cancelled:
		say(wf, "is cancelled, and none of its jobs is")
	}
}
