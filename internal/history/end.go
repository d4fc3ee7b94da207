package history

import (
	"slices"
	"strings"

	"github.com/dianemo/dianemo"
)

// oneEnd: each job has ended in the final state, as every sign of its end said, by one deed, and by
// moves of the state table. What the hooks said is compared whatever its order, since they may speak late;
// but each speaks once for a deed, except those that only tell where a job stands: a cancel of one that
// is cancelled already, and a release of a child that is skipped for another parent already.
func oneEnd(a *account, say sayer) {
	for _, j := range a.jobs {
		if j.final != nil && !j.final.State.Finished() && !slices.Contains(a.final.Probes, j.mark) {
			say(j, "has not ended: it is %s", j.final.State)
		}
		moves(j, say)
		if !j.workflow {
			deeds(j, say)
			cancelled(a, j, say)
		}
		settledOnce(j, say)
	}
}

// deeds compares all signs of an end.
func deeds(j *job, say sayer) {
	all := j.endings()
	var states []string
	add := func(s dianemo.State) {
		if !slices.Contains(states, string(s)) {
			states = append(states, string(s))
		}
	}
	n, released := 0, false
	for _, e := range all {
		add(e.state)
		switch e.by.What {
		case Settle, Reap, Miss, Fire:
			n++
		case Release:
			released = true
		}
	}
	if released {
		n++
	}
	if len(states) > 1 {
		say(j, "was said to have ended in %d ways: %s", len(states), strings.Join(states, ", "))
	} else if n > 1 {
		say(j, "ended %s", times(n))
	}
	if j.final != nil && j.final.State.Finished() && len(states) > 0 && !slices.Contains(states, string(j.final.State)) {
		say(j, "was said to be %s, and is %s in the end", states[0], j.final.State)
	}
}

// moves: what hooks said of a job's moves is in the state table, and is what their outcome leads to.
func moves(j *job, say sayer) {
	edges := dianemo.Edges
	if j.workflow {
		edges = dianemo.WorkflowEdges
	}
	check := func(events []*Event, edge dianemo.Edge, stays ...dianemo.State) {
		for _, e := range events {
			if e.State == "" || e.Stale || slices.Contains(stays, e.State) {
				continue
			}
			allowed := false
			for _, to := range edges {
				allowed = allowed || slices.Contains(to[edge], e.State)
			}
			if !allowed {
				say(j, "was moved to %s by %s, which never does that", e.State, edge)
			}
		}
	}
	check(j.settles, dianemo.EdgeSettle)
	check(j.reaps, dianemo.EdgeReap)
	check(j.misses, dianemo.EdgeMiss)
	check(j.releases, dianemo.EdgeRelease, dianemo.Blocked) // it may have to wait for others still
	check(j.fires, dianemo.EdgeFire)
	for _, e := range j.settles {
		if e.Stale || e.State == "" {
			continue
		}
		leads := map[dianemo.Outcome][]dianemo.State{
			dianemo.Succeed:   {dianemo.Succeeded},
			dianemo.FailRun:   {dianemo.Failed, dianemo.Cancelled},
			dianemo.Retry:     {dianemo.Scheduled, dianemo.Cancelled},
			dianemo.Postpone:  {dianemo.Scheduled, dianemo.Cancelled},
			dianemo.GiveBack:  {dianemo.Scheduled, dianemo.Cancelled},
			dianemo.Unstarted: {dianemo.Scheduled, dianemo.Cancelled},
			dianemo.CancelRun: {dianemo.Cancelled},
		}[e.Outcome]
		if !slices.Contains(leads, e.State) {
			say(j, "came to %s by a run that ended with %s", e.State, e.Outcome)
		}
	}
}

// settledOnce: a run's end is accepted once. Its peer settles it once, however often it sends that.
func settledOnce(j *job, say sayer) {
	seen := map[int64]string{}
	for _, e := range j.settles {
		if e.Stale {
			continue
		}
		if by, twice := seen[e.Epoch]; twice {
			say(j, "had the end of its run %d accepted twice, from %s and %s", e.Epoch, by, e.Process)
		}
		seen[e.Epoch] = e.Process
	}
}

// cancelled: a job of which somebody was told that it is cancelled ends so, unless its handler, which ran by
// then, succeeded or called its error final. None is started after that: when it was claimed, its epoch
// says. And nobody is cancelled without a wish. The jobs of a workflow are cancelled with it.
func cancelled(a *account, j *job, say sayer) {
	var told *Event
	wished := false
	for _, e := range j.cancels {
		switch {
		case e.What == Invoke || e.What == Cancel:
			wished = true
		case e.What == OK && told == nil:
			told = e
		}
	}
	f := j.final
	if f != nil && f.State == dianemo.Cancelled && f.Reason == "cancel" && !wished && j.wish != nil && j.wish.Workflow == "" {
		say(j, "is cancelled, and nobody has asked for it")
	}
	if told == nil {
		return
	}
	if f != nil && f.State.Finished() && f.State != dianemo.Cancelled && f.State != dianemo.Succeeded && f.State != dianemo.Failed {
		say(j, "was said to be cancelled, and is %s", f.State)
	}
	for _, s := range j.starts {
		if from, _ := a.clock.claimed(s.Epoch); a.clock.known && from > told.At {
			say(j, "was claimed by %s after it was said to be cancelled", s.Process)
		}
	}
}
