package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dianemo/dianemo"
)

// What leaders and operators do in a walk.

// chore is one of a leader, mostly of the last term.
func (w *modelWalk) chore() (string, dianemo.Chore) {
	who := modelTerm{pick(w, modelLeaders), 1}
	if n := len(w.terms); n > 0 {
		if who = w.terms[n-1]; w.chance(15) {
			who = pick(w, w.terms)
		}
	}
	return who.leader, dianemo.Chore{Term: who.term, Limit: pick(w, []int{1, 2, 100}), BeatEvery: modelBeat, SilentAfter: modelSilent}
}

func (w *modelWalk) leadOne() {
	bid := dianemo.Bid{Peer: pick(w, modelLeaders), Lease: pick(w, []time.Duration{3 * time.Second, 15 * time.Second, 2 * time.Hour}), Resign: w.chance(25)}
	if !w.model.forgets {
		bid.Lease = 24 * time.Hour // longer than any walk
	}
	w.do(modelCall{name: "lead", text: fmt.Sprintf("%+v", bid),
		real:  func(ctx context.Context) (any, error) { return w.store.Lead(ctx, bid) },
		model: func() (any, error) { return w.model.lead(bid), nil },
		heard: func(answer any) {
			lease := answer.(dianemo.Lease)
			if who := (modelTerm{lease.Leader, lease.Term}); lease.Leader != "" && !slices.Contains(w.terms, who) {
				w.terms = append(w.terms, who)
			}
		}})
}

func (w *modelWalk) surveyAll() {
	var chore *dianemo.Chore
	if w.chance(85) {
		_, one := w.chore()
		chore = &one
	}
	w.survey(chore)
}

func (w *modelWalk) survey(chore *dianemo.Chore) {
	text := "by nobody"
	if chore != nil {
		text = fmt.Sprintf("%+v", *chore)
	}
	w.do(modelCall{name: "survey", text: text,
		real:  func(ctx context.Context) (any, error) { return w.store.Survey(ctx, chore) },
		model: func() (any, error) { return w.model.survey(chore), nil }})
}

func (w *modelWalk) reapOne() {
	p := w.part()
	peer := pick(w, modelPeers)
	w.reap(p, peer)
}

func (w *modelWalk) reap(p *modelPart, peer string) {
	leader, chore := w.chore()
	call := w.call(leader)
	w.do(modelCall{name: "reap", text: fmt.Sprintf("%d %v %s %+v", p.number, call, peer, chore),
		real:  func(ctx context.Context) (any, error) { return w.store.Reap(ctx, p.number, call, peer, chore) },
		model: func() (any, error) { return p.reap(call, peer, chore) }})
}

// silence: the leader is there all the time, and some peers are not.
func (w *modelWalk) silence() {
	_, chore := w.chore()
	for range 5 {
		w.advance(time.Duration(4000+w.rng.IntN(3000)) * time.Millisecond)
		w.survey(&chore)
	}
	for _, p := range w.model.parts {
		for _, peer := range modelPeers {
			if w.chance(50) && len(p.run(peer)) > 0 {
				w.reap(p, peer)
			}
		}
	}
}

func (w *modelWalk) missSome() {
	p := w.part()
	leader, chore := w.chore()
	call := w.call(leader)
	w.do(modelCall{name: "miss", text: fmt.Sprintf("%d %v %+v", p.number, call, chore),
		real:  func(ctx context.Context) (any, error) { return w.store.Miss(ctx, p.number, call, chore) },
		model: func() (any, error) { return p.miss(call, chore) }})
}

func (w *modelWalk) overdueSome() {
	p := w.part()
	leader, chore := w.chore()
	call := w.call(leader)
	w.do(modelCall{name: "overdue", text: fmt.Sprintf("%d %v %+v", p.number, call, chore),
		real:  func(ctx context.Context) (any, error) { return w.store.Overdue(ctx, p.number, call, chore) },
		model: func() (any, error) { return p.overdue(call, chore) }})
}

func (w *modelWalk) trimSome() {
	p := w.part()
	leader, chore := w.chore()
	chore.Limit = 500
	call := w.call(leader)
	var held []string
	w.do(modelCall{name: "trim", text: fmt.Sprintf("%d %v %+v", p.number, call, chore),
		real:  func(ctx context.Context) (any, error) { return w.store.Trim(ctx, p.number, call, chore) },
		model: func() (any, error) { return p.trim(call, chore) },
		heard: func(answer any) { held = answer.(dianemo.TrimReply).Held }})
	slices.Sort(held)
	for _, id := range held[:min(len(held), 3)] {
		w.disinherit(id)
	}
}

func (w *modelWalk) declareOne() {
	kind := pick(w, append([]string{modelFlowKind}, modelKinds...))
	keep := dianemo.Keep{}
	for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped} {
		keep[state] = dianemo.Retention{For: pick(w, []time.Duration{dianemo.Unlimited, time.Minute, time.Hour}), Jobs: pick(w, []int{3, 10, 10})}
	}
	anew := w.chance(70)
	w.do(modelCall{name: "declare", text: fmt.Sprint(kind, keep, anew),
		real: func(ctx context.Context) (any, error) {
			return "", w.store.Declare(ctx, map[string]dianemo.Keep{kind: keep}, anew)
		},
		model: func() (any, error) {
			if _, had := w.model.keeps[kind]; !had || anew {
				w.model.keeps[kind] = keep
			}
			return "", nil
		}})
}

func (w *modelWalk) cancelSome() {
	p := w.part()
	call := w.call("operator")
	ids := w.some(p, 3, func(j *modelJob) bool { return !j.state.Finished() || w.chance(10) })
	if len(ids) == 0 {
		return
	}
	w.do(modelCall{name: "cancel", text: fmt.Sprint(p.number, call, ids),
		real:  func(ctx context.Context) (any, error) { return w.store.Cancel(ctx, p.number, call, ids) },
		model: func() (any, error) { return p.cancel(call, ids) }})
}

func (w *modelWalk) requeueSome() {
	p := w.part()
	call := w.call("operator")
	heed := w.chance(25)
	ids := w.some(p, 3, func(j *modelJob) bool { return j.state.Finished() || w.chance(10) })
	if len(ids) == 0 {
		return
	}
	w.do(modelCall{name: "requeue", text: fmt.Sprint(p.number, call, ids, heed),
		real:  func(ctx context.Context) (any, error) { return w.store.Requeue(ctx, p.number, call, ids, heed) },
		model: func() (any, error) { return p.requeue(call, ids, heed) }})
}

func (w *modelWalk) rescheduleSome() {
	p := w.part()
	call := w.call("operator")
	ids := w.some(p, 3, func(j *modelJob) bool { return j.state == dianemo.Scheduled || w.chance(5) })
	if len(ids) == 0 {
		return
	}
	var change dianemo.Change
	switch w.rng.IntN(3) {
	case 0:
		change.RunAt = w.near(pick(w, []time.Duration{-time.Minute, time.Minute}))
	case 1:
		change.Delay = time.Duration(1+w.rng.IntN(5_000_000)) * time.Microsecond
	}
	if w.chance(50) || change == (dianemo.Change{}) {
		change.Priority = pick(w, []int{1, 2, 4, 9})
	}
	w.do(modelCall{name: "reschedule", text: fmt.Sprintf("%d %v %v %+v", p.number, call, ids, change),
		real:  func(ctx context.Context) (any, error) { return w.store.Reschedule(ctx, p.number, call, ids, change) },
		model: func() (any, error) { return p.reschedule(call, ids, change) }})
}

func (w *modelWalk) pauseOne() {
	p, kind, on := w.part(), pick(w, modelKinds), w.chance(40)
	w.do(modelCall{name: "pause", text: fmt.Sprint(p.number, kind, on),
		real:  func(ctx context.Context) (any, error) { return "", w.store.Pause(ctx, p.number, kind, on) },
		model: func() (any, error) { p.pause(kind, on); return "", nil }})
}
