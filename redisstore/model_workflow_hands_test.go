package redisstore_test

import (
	"fmt"
	"slices"

	"github.com/dianemo/dianemo"
)

// What those do in a walk who submit workflows.

// A modelFlow is a workflow on its way: its own job, behind a gate; that it waits for its jobs,
// and these for its gate and for each other; these; and then the gate is opened.
type modelFlow struct {
	part  *modelPart
	id    string
	by    uint64
	jobs  []dianemo.Wait
	stage int
}

const modelFlowKind = "workflow/etl"

func (w *modelWalk) submitOne() {
	if len(w.flows) == 0 || len(w.flows) < 3 && w.chance(25) {
		p := w.part()
		f := &modelFlow{part: p, id: w.newID(p), by: 1 + w.rng.Uint64N(1e15-1)}
		// One that was given up is submitted anew.
		if ids := w.some(p, 1, func(j *modelJob) bool { return j.flow() && j.reason == "gate" }); len(ids) > 0 && w.chance(50) {
			f.id = ids[0]
		}
		for range 1 + w.rng.IntN(4) {
			job := dianemo.Wait{ID: w.newID(w.part()), Gate: dianemo.ItsGate}
			for _, before := range f.jobs {
				if w.chance(40) {
					job.Parents = append(job.Parents, dianemo.Parent{ID: before.ID, On: pick(w, []dianemo.Condition{dianemo.OnSuccess, dianemo.OnEnd, dianemo.OnChosen, dianemo.OnFailure})})
				}
			}
			f.jobs = append(f.jobs, job)
		}
		w.flows = append(w.flows, f)
	}
	f := pick(w, w.flows)
	f.stage++
	if done := w.submit(f); done || f.stage > 1 && w.chance(2) {
		w.flows = slices.DeleteFunc(w.flows, func(had *modelFlow) bool { return had == f })
	}
}

// submit takes the next step. It reports whether that was the last.
func (w *modelWalk) submit(f *modelFlow) bool {
	switch f.stage {
	case 1:
		w.need(f.part, dianemo.TellIt, f.by, []dianemo.Wait{{ID: f.id, Gate: dianemo.OwnGate}})
	case 2:
		l := dianemo.Lane{Kind: modelFlowKind, Priority: 2, Grace: dianemo.Unlimited}
		spec := dianemo.EncodeSpec(&dianemo.Spec{Kind: l.Kind, Priority: l.Priority, Grace: l.Grace, Args: []byte("{}")})
		w.enqueue(f.part, []dianemo.Record{{ID: f.id, Lane: l, Spec: spec, Blocked: true, Teller: f.by}})
		// What is left of an earlier submission goes.
		if left := f.part.children(f.id, "#", ""); len(left) > 0 {
			w.expungeAll(f, left)
		}
	case 3:
		var jobs []dianemo.Parent
		for _, job := range f.jobs {
			w.ties(f.id, job.ID, dianemo.Enlist, nil)
			jobs = append(jobs, dianemo.Parent{ID: job.ID, On: dianemo.OfWorkflow})
		}
		w.need(f.part, dianemo.JoinIt, f.by, []dianemo.Wait{{ID: f.id, Parents: jobs}})
	case 4:
		for _, job := range f.jobs {
			w.need(w.partOf(job.ID), dianemo.TellIt, f.by, []dianemo.Wait{job})
			w.ties(job.ID, "|"+f.id, dianemo.ExpectOf, nil)
			for _, parent := range job.Parents {
				w.ties(parent.ID, job.ID, dianemo.ExpectOf, nil)
			}
		}
	case 5:
		for _, job := range f.jobs {
			r := w.record(job.ID)
			r.Blocked, r.Teller = true, f.by
			w.enqueue(w.partOf(job.ID), []dianemo.Record{r})
		}
	case 6:
		gate := pick(w, []dianemo.State{dianemo.Open, dianemo.Open, dianemo.Open, dianemo.Void})
		w.release(f.part, []dianemo.Release{{Child: f.id, State: gate, Teller: f.by}})
		return true
	}
	return false
}

func (w *modelWalk) partOf(id string) *modelPart { return w.model.parts[w.store.Partition(id)] }

func (w *modelWalk) expungeAll(f *modelFlow, ids []string) {
	for _, id := range ids {
		w.expunge(w.partOf(id), f.by, []string{id})
		w.ties(f.id, id, dianemo.Delist, nil)
	}
}

// disinherit lets a job that stays for its children alone have none, as far as these have ended.
func (w *modelWalk) disinherit(id string) {
	p := w.partOf(id)
	jobs := p.children(id, "#", "")
	for _, job := range jobs {
		w.ties(id, job, dianemo.Delist, nil)
	}
	if len(jobs) > 0 {
		w.need(p, dianemo.DropIt, 0, []dianemo.Wait{{ID: id}})
	}
	for _, child := range p.children(id, "|", "") {
		w.disown(id, child)
	}
}

// releasesOf is what the children of an outbox's entry are told.
func (w *modelWalk) releasesOf(h *dianemo.Heirs) (all []dianemo.Release) {
	if h.Listed && h.State != dianemo.Open {
		if h.State == dianemo.Void {
			p := w.model.parts[w.store.Partition(h.Parent)]
			for _, job := range p.children(h.Parent, "#", "") {
				all = append(all, dianemo.Release{Child: job, State: dianemo.Withdrawn, Teller: h.Teller})
			}
		}
		h.Children, h.All = nil, true
		return all
	}
	for _, child := range h.Children {
		r := dianemo.Release{Child: child, Parent: h.Parent, State: h.State, Number: h.Number, Peer: h.Peer}
		switch {
		case child[0] == '|':
			r.Child = child[1:]
		case h.Listed:
			r.Parent = ""
		case h.Decides && !slices.Contains(h.Chosen, child):
			r.State = dianemo.Unchosen
		case h.Reason == "workflow" || w.chance(2):
			r.State = dianemo.Withdrawn
		}
		all = append(all, r)
	}
	return all
}

// flowOccurrence has a schedule make a workflow.
func (w *modelWalk) flowOccurrence(r *dianemo.Record) {
	r.Lane = dianemo.Lane{Kind: modelFlowKind, Priority: 2, Grace: dianemo.Unlimited}
	r.Weight, r.Reruns, r.Teller = 0, 0, 1+w.rng.Uint64N(1e15-1)
	r.Spec = dianemo.EncodeSpec(&dianemo.Spec{Kind: r.Lane.Kind, Priority: r.Lane.Priority, Grace: r.Lane.Grace, Args: []byte(fmt.Sprint(w.rng.IntN(10)))})
}
