//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/history"
)

// A producer is a client that makes load of all sorts and writes down what it asked for and what
// it was told.
type producer struct {
	name    string
	client  *dianemo.Client
	journal *history.Journal
	dice    *rand.Rand
	every   time.Duration // a call, on average

	marks int
	calls atomic.Int64
	full  atomic.Int64 // refused since the store was full
	wg    sync.WaitGroup

	mu   sync.Mutex
	made []string // ids of some jobs, to be cancelled
}

const (
	// shortly is how long a call is waited for; then it is not known what became of it.
	shortly = 1500 * time.Millisecond
	// forLong is for what would stay half done until it is given up, ten minutes later.
	forLong = 2 * time.Minute
)

// produce makes load until ctx ends, and returns when all calls have returned.
func (p *producer) produce(ctx context.Context) {
	defer p.wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		p.one()
		timer.Reset(time.Duration(p.dice.Float64() * 2 * float64(p.every)))
	}
}

// A draft is a job before it is enqueued.
type draft struct {
	sort    sort
	args    args
	options dianemo.Options
	wish    history.Wish
}

func (p *producer) mark() string {
	p.marks++
	return fmt.Sprintf("%s-%d", p.name, p.marks)
}

// draft chooses how long a job works, and the rest.
func (p *producer) draft(s sort, options dianemo.Options) draft {
	a := args{Mark: p.mark(), Work: 5*time.Millisecond + p.within(120*time.Millisecond), Stubborn: p.dice.IntN(8) == 0, Quiet: p.dice.IntN(2) == 0}
	if p.dice.IntN(120) == 0 { // longer than some faults: runs that are lost go on
		a.Work = time.Second + p.within(7*time.Second)
	}
	if s.policy.Retries > 0 {
		a.Fails = max(0, p.dice.IntN(6)-2)
	}
	return draft{s, a, options, s.wish(a, options)}
}

func (p *producer) within(d time.Duration) time.Duration {
	return time.Duration(p.dice.Int64N(int64(d)))
}

// one makes one call, or several that belong together. All choices are made here, so that they
// depend on the seed alone; the calls go their own way.
func (p *producer) one() {
	switch n := p.dice.IntN(100); {
	case n < 22:
		p.enqueue(shortly, p.draft(plain, p.settings()))
	case n < 32:
		p.enqueue(shortly, p.draft(once, dianemo.Options{}))
	case n < 40:
		p.enqueue(shortly, p.draft(heavy, dianemo.Options{}))
	case n < 50:
		p.enqueue(shortly, p.draft(flaky, dianemo.Options{}))
	case n < 56:
		n := 1
		if p.dice.IntN(10) == 9 { // some of which will wait for longer than they may
			n = 20
		}
		drafts := make([]draft, n)
		for i := range drafts {
			drafts[i] = p.draft(brief, dianemo.Options{Priority: []int{1, 3}[p.dice.IntN(2)]})
		}
		p.enqueue(shortly, drafts...)
	case n < 64:
		p.enqueue(shortly, p.draft(plain, dianemo.Options{Delay: p.within(2 * time.Second)}))
	case n < 72:
		p.named(p.draft(plain, dianemo.Options{}))
	case n < 80:
		unique := dianemo.Unique{Key: fmt.Sprint("key-", p.dice.IntN(5))}
		p.enqueue(shortly, p.draft(sole, dianemo.Options{Unique: unique}))
	case n < 84:
		n := 10 + p.dice.IntN(30)
		if p.dice.IntN(60) == 59 { // more than one call to each partition carries
			n += 600
		}
		drafts := make([]draft, n)
		for i := range drafts {
			drafts[i] = p.draft([]sort{plain, once, heavy, flaky}[p.dice.IntN(4)], dianemo.Options{})
		}
		p.enqueue(shortly, drafts...)
	case n < 92:
		p.family()
	case n < 97:
		p.workflow()
	default:
		p.cancel()
	}
}

// settings are a job's own: each fourth weighs more than its kind says, each fourth is less urgent.
func (p *producer) settings() dianemo.Options {
	weight, priority := 2+p.dice.IntN(5), 4+p.dice.IntN(3)
	switch p.dice.IntN(4) {
	case 0:
		return dianemo.Options{Weight: weight}
	case 1:
		return dianemo.Options{Priority: priority}
	}
	return dianemo.Options{}
}

// enqueue makes one call with these jobs.
func (p *producer) enqueue(patience time.Duration, drafts ...draft) {
	p.wg.Go(func() { p.enqueueNow(patience, drafts...) })
}

func (p *producer) enqueueNow(patience time.Duration, drafts ...draft) []error {
	requests := make([]dianemo.Request, len(drafts))
	call := p.calls.Add(1)
	for i, d := range drafts {
		requests[i] = d.sort.kind.NewWith(d.args, d.options)
		p.invoke(call, history.Enqueue, d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ids, err := p.client.EnqueueMany(ctx, requests...)
	errs := make([]error, len(drafts))
	var batch *dianemo.BatchError
	for i, d := range drafts {
		switch {
		case errors.As(err, &batch):
			errs[i] = batch.Errs[i]
		default:
			errs[i] = err
		}
		said := history.Event{Call: call, Op: history.Enqueue, Mark: d.args.Mark, Kind: d.sort.kind.Name()}
		if i < len(ids) {
			said.Job = ids[i]
		}
		p.answer(said, errs[i])
		if errs[i] == nil && said.Job != "" {
			p.note(said.Job)
		}
	}
	return errs
}

func (p *producer) invoke(call int64, op history.Op, d draft) {
	p.journal.Say(history.Event{What: history.Invoke, Call: call, Op: op, Mark: d.args.Mark, Kind: d.sort.kind.Name(),
		Priority: cmp.Or(d.options.Priority, d.sort.priority()), Weight: cmp.Or(d.options.Weight, d.sort.policy.Weight, 1), Wish: &d.wish})
}

// answer writes down what was said to a call.
func (p *producer) answer(said history.Event, err error) {
	said.What = history.OK
	if err != nil {
		said.What, said.Err = history.Refused, err.Error()
		switch {
		case errors.Is(err, dianemo.ErrUnconfirmed):
			said.What = history.Unknown
		case errors.Is(err, dianemo.ErrStoreFull):
			p.full.Add(1)
		}
	}
	p.journal.Say(said)
}

// named enqueues a job under an id of its own, and again if it is not known whether it is there.
func (p *producer) named(d draft) {
	d.options.ID = d.args.Mark
	p.wg.Go(func() {
		for {
			err := p.enqueueNow(shortly, d)[0]
			if !errors.Is(err, dianemo.ErrUnconfirmed) {
				return
			}
		}
	})
}

// family enqueues parents and then children of theirs.
func (p *producer) family() {
	parents := make([]draft, 1+p.dice.IntN(2))
	for i := range parents {
		parents[i] = p.draft([]sort{member, member, once, brief}[p.dice.IntN(4)], dianemo.Options{}) // which may end unreachable, missed
		parents[i].options.ID = parents[i].args.Mark
	}
	var children []draft
	n := 1 + p.dice.IntN(3)
	if p.dice.IntN(60) == 59 { // more than are told at a time
		n += 150
	}
	for range n {
		d := p.draft(member, dianemo.Options{})
		for _, parent := range parents {
			on := p.condition()
			d.options.Parents = append(d.options.Parents, dianemo.Parent{ID: parent.options.ID, On: on})
			d.wish.Parents = append(d.wish.Parents, history.Parent{Mark: parent.args.Mark, States: suiting(on)})
		}
		children = append(children, d)
	}
	p.wg.Go(func() {
		for _, err := range p.enqueueNow(forLong, parents...) {
			if err != nil {
				return
			}
		}
		p.enqueueNow(forLong, children...)
	})
}

func (p *producer) condition() dianemo.Condition {
	return []dianemo.Condition{dianemo.OnSuccess, dianemo.OnSuccess, dianemo.OnEnd, dianemo.OnFailure}[p.dice.IntN(4)]
}

func suiting(on dianemo.Condition) []dianemo.State {
	failures := []dianemo.State{dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped}
	switch on {
	case dianemo.OnFailure:
		return failures
	case dianemo.OnEnd:
		return append(failures, dianemo.Succeeded)
	}
	return []dianemo.State{dianemo.Succeeded}
}

// workflow submits a random graph.
func (p *producer) workflow() {
	id := p.mark()
	wf := dianemo.NewWorkflow("random")
	wf.ID, wf.Spread = id, p.dice.IntN(2) == 0
	var drafts []draft
	for i := range 2 + p.dice.IntN(7) {
		d := p.draft(member, dianemo.Options{})
		d.args.Mark, d.wish.Workflow = fmt.Sprintf("%s/%d", id, i), id
		job := wf.Add(fmt.Sprint("j", i), d.sort.kind.New(d.args))
		for k, parent := range drafts {
			if p.dice.IntN(i) >= 2 {
				continue
			}
			on, name := p.condition(), fmt.Sprint("j", k)
			switch on {
			case dianemo.OnSuccess:
				job.After(name)
			case dianemo.OnEnd:
				job.AfterEnd(name)
			case dianemo.OnFailure:
				job.AfterFailure(name)
			}
			d.wish.Parents = append(d.wish.Parents, history.Parent{Mark: parent.args.Mark, States: suiting(on)})
		}
		drafts = append(drafts, d)
	}
	p.wg.Go(func() {
		call := p.calls.Add(1)
		for _, d := range drafts {
			p.invoke(call, history.Submit, d)
		}
		ctx, cancel := context.WithTimeout(context.Background(), forLong)
		defer cancel()
		_, err := p.client.Submit(ctx, wf)
		for _, d := range drafts {
			p.answer(history.Event{Call: call, Op: history.Submit, Mark: d.args.Mark, Kind: d.sort.kind.Name()}, err)
		}
	})
}

// mostNoted is how many jobs are kept to be cancelled.
const mostNoted = 20

func (p *producer) note(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made = append(p.made, id); len(p.made) > mostNoted {
		p.made = p.made[1:]
	}
}

// cancel cancels a job that was made lately.
func (p *producer) cancel() {
	choice := p.dice.IntN(mostNoted)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.made) == 0 {
		return
	}
	id := p.made[choice%len(p.made)]
	p.wg.Go(func() {
		call := p.calls.Add(1)
		said := history.Event{What: history.Invoke, Call: call, Op: history.CancelJob, Job: id}
		p.journal.Say(said)
		ctx, cancel := context.WithTimeout(context.Background(), shortly)
		defer cancel()
		p.answer(said, p.client.Cancel(ctx, id))
	})
}

// poisonJob enqueues a job that kills whoever runs it.
func (p *producer) poisonJob() {
	d := p.draft(poison, dianemo.Options{})
	d.args.Poison = true
	d.wish = poison.wish(d.args, d.options)
	p.enqueue(forLong, d)
}

// schedules are made before the load, and fire until they are paused.
func (p *producer) schedules(ctx context.Context) error {
	for _, s := range []struct {
		name string
		sort sort
	}{{"tick", tick}, {"tock", tock}} {
		rule, err := dianemo.Interval(time.Second)
		if err != nil {
			return err
		}
		a := args{Mark: s.name, Work: 30 * time.Millisecond}
		wish := s.sort.wish(a, dianemo.Options{})
		wish.Every, wish.Forgotten = time.Second, s.sort.policy.Keep[dianemo.Succeeded].Jobs == dianemo.None
		said := history.Event{Call: p.calls.Add(1), Op: history.PutSchedule, Schedule: s.name, Kind: s.name, Mark: s.name}
		invoke := said
		invoke.What, invoke.Wish, invoke.Priority, invoke.Weight = history.Invoke, &wish, s.sort.priority(), 1
		p.journal.Say(invoke)
		err = p.client.PutSchedule(ctx, dianemo.Schedule{Name: s.name, Rule: rule, Job: s.sort.kind.New(a), Missed: dianemo.MissedAll, MissedMax: 1000})
		p.answer(said, err)
		if err != nil {
			return fmt.Errorf("schedule %s: %w", s.name, err)
		}
	}
	return nil
}

func (p *producer) pauseSchedules(ctx context.Context) error {
	return errors.Join(p.client.PauseSchedule(ctx, "tick"), p.client.PauseSchedule(ctx, "tock"))
}

// probes are urgent jobs made when everything has calmed down, and have ended when it returns, or
// can be waited for no longer: the checker says what is wrong then.
func (p *producer) probes(ctx context.Context, n int) []string {
	var marks []string
	for range n {
		d := p.draft(probe, dianemo.Options{})
		d.args.Work, d.args.Stubborn = 0, false
		d.options.ID = d.args.Mark
		marks = append(marks, d.args.Mark)
		if err := p.enqueueNow(forLong, d)[0]; err != nil {
			break
		}
		if _, err := p.client.Wait(ctx, d.options.ID); err != nil {
			break
		}
	}
	return marks
}

// markOf is the mark of a job of the final state.
func markOf(info *dianemo.JobInfo) (string, error) {
	var a args
	if dianemo.IsWorkflow(info.Kind) {
		return "", nil
	}
	err := info.DecodeArgs(&a)
	return a.Mark, err
}
