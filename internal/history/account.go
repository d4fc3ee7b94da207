package history

import (
	"cmp"
	"slices"

	"github.com/dianemo/dianemo"
)

// An account is the events and the final state, sorted by what they are about.
type account struct {
	final     Final
	last      Moment // of all that was seen
	clock     clock
	processes []*process // in the order of their coming
	jobs      []*job     // the same
	marks     []*mark    // the same
	byProcess map[string]*process
	byJob     map[string]*job
	byMark    map[string]*mark
	schedules []*schedule
	faults    []*Event
}

type process struct {
	name   string
	hello  *Hello // nil: it is no peer
	began  Moment // its hello
	events []*Event
}

// What was asked for, and what was answered.
type asked struct {
	name    string
	wish    *Wish
	invokes []*Event
	oks     []*Event
	refused []*Event
	unknown int    // that were not answered, or not with yes or no
	jobs    []*job // of a mark: seen to exist, in the end or since they were started
}

// A mark is what a client calls a job; under an id of its own the job may be asked for several times.
type mark struct {
	asked
	kind string
	op   Op
}

type schedule struct{ asked }

type job struct {
	id, mark, kind string
	workflow       bool
	wish           *Wish // nil: it was never seen to be asked for
	of             *mark // nil: of a schedule, or of nobody
	schedule       string
	instant        int64
	final          *Job     // nil: it is not there in the end
	runs           []*run   // by epoch
	starts         []*Event // in order
	claims         []*Event // the same, as are all others
	settles        []*Event
	reaps          []*Event
	misses         []*Event
	releases       []*Event
	fires          []*Event
	cancels        []*Event
}

// A run is what was seen of one epoch of a job on one peer.
type run struct {
	job        *job
	epoch      int64
	peer       string
	claim      *Event
	start, end *Event
	settle     *Event
	// outcome is with which it was accepted, or Lost, as far as it is known: by the hook, or else by
	// the record.
	outcome dianemo.Outcome
}

// accepted reports whether the store took what its handler came to: then the job was this run's until
// after the handler's end.
func (r *run) accepted() bool { return r.outcome != "" && r.outcome != dianemo.Lost }

// died reports whether its handler was called and never returned. Only a reap ends such a run. What was
// settled had returned, though nobody saw it.
func (r *run) died() bool { return r.start != nil && r.end == nil && r.settle == nil }

func newAccount(events []Event, final Final) *account {
	a := &account{final: final, last: max(final.Drained, final.Calm), byProcess: map[string]*process{}, byJob: map[string]*job{}, byMark: map[string]*mark{}}
	for i := range events {
		e := &events[i]
		a.last = max(a.last, e.At)
		a.take(e)
	}
	for i := range final.Jobs {
		f := &final.Jobs[i]
		j := a.job(f.ID)
		j.final, j.workflow = f, f.Workflow
		j.mark, j.kind = cmp.Or(f.Mark, j.mark), cmp.Or(f.Kind, j.kind)
		j.schedule, j.instant = cmp.Or(f.Schedule, j.schedule), cmp.Or(f.Instant, j.instant)
	}
	for _, j := range a.jobs {
		a.assign(j)
		j.judge()
	}
	a.clock = clockOf(a)
	return a
}

// take sorts one event in.
func (a *account) take(e *Event) {
	p := a.process(e.Process)
	p.events = append(p.events, e)
	switch e.What {
	case Begin:
		if p.hello == nil {
			p.hello, p.began = e.Hello, e.At
		}
	case Invoke, OK, Refused, Unknown:
		a.call(e)
	case Fault:
		a.faults = append(a.faults, e)
	case Start, End, Claim, Settle, Reap, Miss, Release, Fire, Cancel:
		if e.Job != "" {
			a.job(e.Job).take(e)
		}
	}
}

func (j *job) take(e *Event) {
	j.mark, j.kind = cmp.Or(j.mark, e.Mark), cmp.Or(j.kind, e.Kind)
	j.schedule, j.instant = cmp.Or(j.schedule, e.Schedule), cmp.Or(j.instant, e.Instant)
	first := func(at **Event) {
		if *at == nil {
			*at = e
		}
	}
	switch e.What {
	case Start:
		j.starts = append(j.starts, e)
		first(&j.run(e.Epoch, e.Process).start)
	case End:
		first(&j.run(e.Epoch, e.Process).end)
	case Claim:
		j.claims = append(j.claims, e)
		first(&j.run(e.Epoch, e.Process).claim)
	case Settle:
		j.settles = append(j.settles, e)
		first(&j.run(e.Epoch, e.Process).settle)
	case Reap:
		j.reaps = append(j.reaps, e)
	case Miss:
		j.misses = append(j.misses, e)
	case Release:
		j.releases = append(j.releases, e)
	case Fire:
		j.fires = append(j.fires, e)
	case Cancel:
		j.cancels = append(j.cancels, e)
	}
}

// call takes in an invoke or an answer.
func (a *account) call(e *Event) {
	switch e.Op {
	case CancelJob:
		if e.Job != "" {
			j := a.job(e.Job)
			j.cancels = append(j.cancels, e)
		}
	case PutSchedule:
		a.scheduleNamed(cmp.Or(e.Schedule, e.Mark)).take(e)
	case Enqueue, Submit:
		m := a.markNamed(e.Mark)
		m.take(e)
		if e.What == Invoke {
			m.op, m.kind = e.Op, cmp.Or(m.kind, e.Kind)
		}
		if e.What == OK && e.Job != "" {
			j := a.job(e.Job)
			j.mark, j.kind = cmp.Or(j.mark, e.Mark), cmp.Or(j.kind, e.Kind)
		}
	}
}

func (q *asked) take(e *Event) {
	switch e.What {
	case Invoke:
		q.invokes = append(q.invokes, e)
		q.unknown++ // until it is answered
		if q.wish == nil {
			q.wish = e.Wish
		}
	case OK:
		q.oks = append(q.oks, e)
		q.unknown--
	case Refused:
		q.refused = append(q.refused, e)
		q.unknown--
	}
}

// assign finds who asked for a job.
func (a *account) assign(j *job) {
	j.workflow = j.workflow || dianemo.IsWorkflow(j.kind)
	if j.schedule != "" {
		s := a.scheduleNamed(j.schedule)
		s.jobs = append(s.jobs, j)
		j.wish = s.wish
		return
	}
	if m := a.byMark[j.mark]; m != nil {
		j.of, j.wish = m, m.wish
	}
	if j.mark != "" && j.seen() {
		m := a.markNamed(j.mark)
		m.jobs = append(m.jobs, j)
	}
}

// judge says what became of the job's runs: by what the hooks said, and what the record says.
func (j *job) judge() {
	slices.SortStableFunc(j.runs, func(r, s *run) int { return cmp.Compare(r.epoch, s.epoch) })
	for _, s := range j.settles {
		if r := j.run(s.Epoch, s.Process); !s.Stale && s.Outcome != dianemo.Unstarted {
			r.outcome = s.Outcome
		}
	}
	if j.final == nil {
		return
	}
	for _, h := range j.final.History {
		if r := j.find(h.Epoch, h.Peer); r != nil && r.outcome == "" {
			r.outcome = h.Outcome
		}
	}
}

// seen reports whether the job was seen to exist.
func (j *job) seen() bool {
	return j.final != nil || len(j.starts)+len(j.claims)+len(j.settles)+len(j.reaps)+len(j.misses)+len(j.fires) > 0
}

// whole reports whether the final state has all of the job's runs.
func (j *job) whole() bool {
	return j.final != nil && len(j.final.History) == j.final.Runs && j.final.State.Finished()
}

// ended is how many runs did so, by the record.
func (j *job) ended(outcome dianemo.Outcome) (n int) {
	for _, h := range j.final.History {
		if h.Outcome == outcome {
			n++
		}
	}
	return n
}

func (j *job) find(epoch int64, peer string) *run {
	for _, r := range j.runs {
		if r.epoch == epoch && r.peer == peer {
			return r
		}
	}
	return nil
}

func (j *job) run(epoch int64, peer string) *run {
	r := j.find(epoch, peer)
	if r == nil {
		r = &run{job: j, epoch: epoch, peer: peer}
		j.runs = append(j.runs, r)
	}
	return r
}

func (a *account) process(name string) *process {
	p := a.byProcess[name]
	if p == nil {
		p = &process{name: name}
		a.byProcess[name], a.processes = p, append(a.processes, p)
	}
	return p
}

func (a *account) job(id string) *job {
	j := a.byJob[id]
	if j == nil {
		j = &job{id: id}
		a.byJob[id], a.jobs = j, append(a.jobs, j)
	}
	return j
}

func (a *account) markNamed(name string) *mark {
	m := a.byMark[name]
	if m == nil {
		m = &mark{asked: asked{name: name}}
		a.byMark[name], a.marks = m, append(a.marks, m)
	}
	return m
}

func (a *account) scheduleNamed(name string) *schedule {
	for _, s := range a.schedules {
		if s.name == name {
			return s
		}
	}
	s := &schedule{asked{name: name}}
	a.schedules = append(a.schedules, s)
	return s
}

// An ending is a sign that a job has ended, and how; the deed was at that time or before.
type ending struct {
	state dianemo.State
	by    *Event
}

// endings are all signs of it but the final state.
func (j *job) endings() []ending {
	var all []ending
	for _, events := range [][]*Event{j.settles, j.reaps, j.misses, j.releases, j.fires, j.cancels} {
		for _, e := range events {
			if e.State.Finished() && !e.Stale {
				all = append(all, ending{e.State, e})
			}
		}
	}
	return all
}

// end is the state in which the job has ended, "" if it is not known.
func (j *job) end() dianemo.State {
	if j.final != nil {
		if j.final.State.Finished() {
			return j.final.State
		}
		return ""
	}
	for _, e := range j.endings() {
		return e.state
	}
	return ""
}

// last is the run that ended the job: that was accepted and moved it into the state in which it is. Nil
// if none was, or if it was not seen.
func (j *job) last() *run {
	state := j.end()
	for _, r := range slices.Backward(j.runs) {
		if !r.accepted() {
			continue
		}
		if s := r.settle; s != nil && !s.Stale {
			if s.State == state {
				return r
			}
			continue
		}
		if j.final != nil && r.epoch == j.final.Epoch && (state == dianemo.Succeeded || state == dianemo.Failed || state == dianemo.Cancelled) {
			return r
		}
	}
	return nil
}
