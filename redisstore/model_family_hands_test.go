package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// What those do in a walk who make children of jobs, and who tell them of their parents.

// A modelBirth is a child on its way: it is told, linked, enqueued, and its gate is opened.
type modelBirth struct {
	part    *modelPart
	id      string
	parents []dianemo.Parent
	by      uint64
	stage   int
	told    []dianemo.Release
}

func (w *modelWalk) bearOne() {
	if len(w.births) == 0 || len(w.births) < 4 && w.chance(30) {
		p := w.part()
		b := &modelBirth{part: p, id: w.newID(p), by: 1 + w.rng.Uint64N(1e15-1)}
		for range 1 + w.rng.IntN(3) {
			from := w.part()
			parent := w.routes[from.number] + "@none"
			if ids := w.some(from, 1, func(j *modelJob) bool { return !j.state.Finished() || w.chance(30) }); len(ids) > 0 {
				parent = ids[0]
			}
			if slices.ContainsFunc(b.parents, func(had dianemo.Parent) bool { return had.ID == parent }) {
				continue
			}
			one := dianemo.Parent{ID: parent, On: pick(w, []dianemo.Condition{dianemo.OnSuccess, dianemo.OnSuccess, dianemo.OnFailure, dianemo.OnEnd, dianemo.OnChosen})}
			if w.chance(20) {
				one.Near = time.Duration(1+w.rng.IntN(60)) * time.Second
			}
			b.parents = append(b.parents, one)
		}
		w.births = append(w.births, b)
	}
	b := pick(w, w.births)
	done := false
	switch b.stage {
	case 0:
		w.need(b.part, dianemo.TellIt, b.by, []dianemo.Wait{{ID: b.id, Parents: b.parents, Gate: dianemo.OwnGate}})
	case 1:
		for _, parent := range b.parents {
			w.link(b, parent)
		}
	case 2:
		r := w.record(b.id)
		r.Blocked, r.Teller = true, b.by
		switch {
		case w.chance(10):
			r.RunAt = w.near(10 * time.Second)
		case w.chance(10):
			r.Ahead = time.Duration(w.rng.IntN(5000)) * time.Millisecond
		}
		if w.chance(15) {
			r.Unique = dianemo.Unique{Key: pick(w, modelKeys)}
		}
		if w.chance(4) {
			r.Teller++ // another has told
		}
		w.enqueue(b.part, []dianemo.Record{r})
	case 3:
		all := append(slices.Clone(b.told), dianemo.Release{Child: b.id, State: dianemo.Open, Teller: b.by})
		w.release(b.part, all)
		done = true
	}
	b.stage++
	switch {
	case b.stage < 3 && w.chance(4):
		// Whoever it was gives up, and has it forgotten, or dies.
		if w.chance(50) {
			w.need(b.part, dianemo.ForgetIt, b.by, []dianemo.Wait{{ID: b.id, Parents: b.parents}})
			for _, parent := range b.parents {
				w.unlink(parent.ID, b.id)
			}
		}
		done = true
	case b.stage == 3 && w.chance(5):
		done = true // the gate stays closed
	}
	if done {
		w.births = slices.DeleteFunc(w.births, func(had *modelBirth) bool { return had == b })
	}
}

func (w *modelWalk) need(p *modelPart, telling dianemo.Telling, by uint64, waits []dianemo.Wait) {
	w.do(modelCall{name: "need " + string(telling), text: fmt.Sprintf("%d by %d %+v", p.number, by, waits),
		real:  func(ctx context.Context) (any, error) { return w.store.Need(ctx, p.number, telling, by, waits) },
		model: func() (any, error) { return p.need(telling, by, waits), nil }})
}

func (w *modelWalk) ties(parent, child string, how dianemo.Linking, heard func(found dianemo.Linked)) {
	p := w.partOf(parent)
	ties := []dianemo.Tie{{Parent: parent, Child: child}}
	w.do(modelCall{name: string(how), text: fmt.Sprintf("%d %v", p.number, ties),
		real:  func(ctx context.Context) (any, error) { return w.store.Link(ctx, p.number, how, ties) },
		model: func() (any, error) { return p.link(how, ties), nil },
		heard: func(answer any) {
			if heard != nil {
				heard(answer.([]dianemo.Linked)[0])
			}
		}})
}

func (w *modelWalk) link(b *modelBirth, parent dianemo.Parent) {
	how := dianemo.LinkTo
	if w.chance(10) {
		how = dianemo.ExpectOf
	}
	w.ties(parent.ID, b.id, how, func(found dianemo.Linked) {
		if found.State == "" {
			found.State = dianemo.Gone
		}
		if found.State == dianemo.Gone || found.State == dianemo.Unchosen || found.State.Finished() {
			b.told = append(b.told, dianemo.Release{Child: b.id, Parent: parent.ID, State: found.State, Peer: found.Peer})
		}
	})
}

func (w *modelWalk) unlink(parent, child string) { w.ties(parent, child, dianemo.Unlink, nil) }

func (w *modelWalk) release(p *modelPart, releases []dianemo.Release) {
	call := w.call(pick(w, []string{"teller", "deliverer"}))
	w.do(modelCall{name: "release", text: fmt.Sprintf("%d %v %+v", p.number, call, releases),
		real:  func(ctx context.Context) (any, error) { return w.store.Release(ctx, p.number, call, releases) },
		model: func() (any, error) { return p.release(call, releases) }})
}

// deliver tells the children of what is in an outbox, as far as it comes.
func (w *modelWalk) deliver() {
	p := w.part()
	for _, other := range w.model.parts {
		if len(p.outbox) == 0 {
			p = other
		}
	}
	parents, children := 1+w.rng.IntN(3), 1+w.rng.IntN(4)
	var heirs []dianemo.Heirs
	type answer struct {
		heirs []dianemo.Heirs
		until int64
	}
	w.do(modelCall{name: "heirs", text: fmt.Sprint(p.number, parents, children), once: true,
		real: func(ctx context.Context) (any, error) {
			all, until, err := w.store.Heirs(ctx, p.number, parents, children)
			return answer{all, until}, err
		},
		model: func() (any, error) {
			all, until := p.heirs(parents, children)
			return answer{all, until}, nil
		},
		heard: func(a any) { heirs = a.(answer).heirs }})
	releases := make([][]dianemo.Release, len(w.model.parts))
	for i := range heirs {
		for _, r := range w.releasesOf(&heirs[i]) {
			to := w.store.Partition(r.Child)
			releases[to] = append(releases[to], r)
		}
	}
	for to, all := range releases {
		if len(all) > 0 && w.chance(98) {
			w.release(w.model.parts[to], all)
		}
	}
	if len(heirs) == 0 || w.chance(10) {
		return // it dies before it has said so
	}
	w.do(modelCall{name: "passed", text: fmt.Sprintf("%d %+v", p.number, heirs),
		real:  func(ctx context.Context) (any, error) { return w.store.Passed(ctx, p.number, heirs) },
		model: func() (any, error) { return p.passed(heirs), nil }})
}

// releaseSome tells of parents what may be old, or untrue.
func (w *modelWalk) releaseSome() {
	p := w.part()
	var releases []dianemo.Release
	for range 1 + w.rng.IntN(3) {
		ids := w.some(p, 1, func(j *modelJob) bool { return p.needs[j.id] != nil || w.chance(5) })
		if len(ids) == 0 {
			continue
		}
		r := dianemo.Release{Child: ids[0], Number: pick(w, []int64{0, w.model.now - 1e6, w.model.now}), Peer: pick(w, modelPeers)}
		r.State = pick(w, []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Scheduled, dianemo.Unchosen, dianemo.Gone, dianemo.Cancelled, dianemo.Withdrawn})
		if n := p.needs[r.Child]; n != nil {
			var parents []string
			for parent := range n.ties {
				parents = append(parents, parent)
			}
			slices.Sort(parents)
			if len(parents) > 0 {
				r.Parent = pick(w, parents)
			}
		}
		if r.Parent == "" || w.chance(20) {
			r.Parent, r.Peer, r.State = "", "", pick(w, []dianemo.State{dianemo.Open, dianemo.Open, dianemo.Void, dianemo.Withdrawn})
			if w.chance(20) {
				r.Teller = 7 // who has told nothing
			}
		}
		releases = append(releases, r)
	}
	if len(releases) > 0 {
		w.release(p, releases)
	}
}

// openGates voids, or opens, gates that are closed for too long.
func (w *modelWalk) openGates() {
	p := w.part()
	var ids []string
	w.do(modelCall{name: "gates", text: fmt.Sprint(p.number), once: true,
		real:  func(ctx context.Context) (any, error) { return w.store.Gates(ctx, p.number, 3) },
		model: func() (any, error) { return p.closed(3), nil },
		heard: func(answer any) { ids = answer.([]string) }})
	var releases []dianemo.Release
	for _, id := range ids {
		releases = append(releases, dianemo.Release{Child: id, State: pick(w, []dianemo.State{dianemo.Open, dianemo.Void, dianemo.Void})})
	}
	if len(releases) > 0 {
		w.release(p, releases)
	}
}

func (w *modelWalk) expungeSome() {
	p := w.part()
	ids := w.some(p, 2, func(j *modelJob) bool {
		return j.state == dianemo.Blocked || j.state == dianemo.Cancelled || w.chance(5)
	})
	if len(ids) == 0 {
		return
	}
	not := uint64(0)
	if n := p.needs[ids[0]]; n != nil && n.told != nil && w.chance(50) {
		_, _ = fmt.Sscan(n.told.by, &not)
	}
	w.expunge(p, not, ids)
	for _, id := range ids {
		if p.job(id) == nil {
			w.disinherit(id)
		}
	}
}

func (w *modelWalk) expunge(p *modelPart, not uint64, ids []string) {
	w.do(modelCall{name: "expunge", text: fmt.Sprint(p.number, not, ids),
		real:  func(ctx context.Context) (any, error) { return "", w.store.Expunge(ctx, p.number, not, ids) },
		model: func() (any, error) { p.expunge(not, ids); return "", nil }})
}

// disown: a child, or workflow, that has ended, or is gone, has this parent no longer.
func (w *modelWalk) disown(parent, child string) {
	id := strings.TrimPrefix(child, "|")
	p := w.partOf(id)
	if j := p.job(id); j == nil || j.state.Finished() {
		w.need(p, dianemo.DropIt, 0, []dianemo.Wait{{ID: id, Parents: []dianemo.Parent{{ID: parent}}}})
		w.unlink(parent, child)
	}
}
