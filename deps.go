package dianemo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// A child is blocked until its parents have ended as it wants. What it waits for
// stands in its own partition; that it waits, in each parent's. A parent that ends
// goes into its partition's outbox, in the same script; from there its children are
// told, bit by bit, by whoever ended it, and else by the leader: at least once, and
// it counts once. While a child is on its way into the store its gate is closed, so
// that nothing moves it before all is there.

// A Parent is a job that has to end before another one starts. Make it with
// [After], [AfterFailure] or [AfterEnd].
type Parent struct {
	ID string
	On Condition
	// MayBeGone accepts a parent that does not exist, for example since retention has
	// let go of it, as one that has ended as it should. Otherwise the job is refused
	// with a [ParentGoneError].
	MayBeGone bool
}

// A Condition is how a parent must end.
type Condition string

const (
	OnSuccess Condition = "success" // the default
	OnFailure Condition = "failure" // it failed, was missed, cancelled, skipped or became unreachable
	OnEnd     Condition = "end"     // however
	OnChosen  Condition = "chosen"  // it succeeded, or a decision left it out
)

// After are parents that must succeed. If one ends otherwise, the child is skipped,
// and its own children in turn; if that one is requeued and then succeeds, they wait
// again.
func After(ids ...string) []Parent { return parentsOf(OnSuccess, ids) }

// AfterFailure are parents of a job that makes good for their failure. If one
// succeeds, it is skipped.
func AfterFailure(ids ...string) []Parent { return parentsOf(OnFailure, ids) }

// AfterEnd are parents that must have ended, however.
func AfterEnd(ids ...string) []Parent { return parentsOf(OnEnd, ids) }

func parentsOf(on Condition, ids []string) []Parent {
	parents := make([]Parent, len(ids))
	for i, id := range ids {
		parents[i] = Parent{ID: id, On: on}
	}
	return parents
}

// ParentResult decodes the result of one of a job's parents, from within its handler.
// It returns [ErrNotFound] if that parent has none, or is gone, and a [FieldError] for a
// job that is not its parent.
func ParentResult[R, Args any](ctx context.Context, job *Job[Args], parent string) (R, error) {
	var none R
	if !slices.ContainsFunc(job.Parents, func(p Parent) bool { return p.ID == parent }) {
		return none, &FieldError{"ParentResult(parent)", parent, "one of Job.Parents"}
	}
	if job.run == nil {
		return none, fmt.Errorf("dianemo: result of parent %s: %w", parent, ErrNotFound)
	}
	info, err := job.run.partition.peer.Get(ctx, parent)
	if err != nil {
		return none, err
	}
	return ResultOf[R](info)
}

// MaxParents is how many parents one job may have.
const MaxParents = 100_000

func checkParents(o *Options) error {
	if len(o.Parents) == 0 {
		return nil
	}
	if len(o.Parents) > MaxParents {
		return &FieldError{"Options.Parents", fmt.Sprintf("%d parents", len(o.Parents)), fmt.Sprintf("at most %d", MaxParents)}
	}
	if o.Delay != 0 {
		return &FieldError{"Options.Delay", o.Delay, "0 where Parents is set; RunAt may be"}
	}
	if o.Unique.Replace {
		return &FieldError{"Options.Unique.Replace", true, "false where Parents is set"}
	}
	seen := make(map[string]bool, len(o.Parents))
	for i, p := range o.Parents {
		field := fmt.Sprintf("Options.Parents[%d]", i)
		if err := CheckName(field+".ID", p.ID); err != nil {
			return err
		}
		switch {
		case p.On != "" && p.On != OnSuccess && p.On != OnFailure && p.On != OnEnd:
			return &FieldError{field + ".On", string(p.On), "OnSuccess, OnFailure or OnEnd"}
		case p.ID == o.ID:
			return &FieldError{field + ".ID", p.ID, "another job than this one"}
		case seen[p.ID]:
			return &FieldError{field + ".ID", p.ID, "each parent once"}
		}
		seen[p.ID] = true
	}
	return nil
}

// withConditions are the parents with their defaults.
func withConditions(parents []Parent) []Parent {
	parents = slices.Clone(parents)
	for i := range parents {
		parents[i].On = inherit(parents[i].On, OnSuccess)
	}
	return parents
}

// A CycleError shows jobs of one call that wait for each other. Nothing was
// written. It unwraps to [ErrInvalid].
type CycleError struct {
	IDs []string // each waits for the one before it, and the first for the last
}

func (e *CycleError) Error() string {
	text := "dianemo: jobs wait for each other: "
	for _, id := range e.IDs {
		text += id + " → "
	}
	return text + e.IDs[0]
}

func (e *CycleError) Unwrap() error { return ErrInvalid }

// A family is the jobs of one call and what they wait for.
type family struct {
	*Client
	records  []Record
	errs     []error
	place    map[string]int // of the jobs, by id
	calls    Call
	released []Release // what is to be told once all is there
}

// acceptFamily enqueues jobs of which some have parents: what they wait for first,
// then the jobs, and then it opens the gates.
func (c *Client) acceptFamily(ctx context.Context, records []Record) []error {
	f := &family{Client: c, records: records, errs: make([]error, len(records)), place: make(map[string]int, len(records)), calls: Call{Caller: uuid.NewString()}}
	for i := range records {
		f.place[records[i].ID] = i
	}
	err := f.tell(ctx)
	if err == nil {
		err = f.link(ctx)
	}
	if err != nil {
		return f.fail(err)
	}
	f.enqueue(ctx)
	if err := f.open(ctx); err != nil {
		return f.fail(err)
	}
	return f.errs
}

// fail gives all that have no error this one.
func (f *family) fail(err error) []error {
	for i := range f.errs {
		if f.errs[i] == nil {
			f.errs[i] = err
		}
	}
	return f.errs
}

// findCycle returns jobs that wait for each other, or nil.
func findCycle(records []Record) []string {
	if !slices.ContainsFunc(records, func(r Record) bool { return len(r.Parents) > 0 }) {
		return nil // as in most calls, which pay for no more
	}
	place := make(map[string]int, len(records))
	for i := range records {
		place[records[i].ID] = i
	}
	parents := make([][]int, len(records))
	for i := range records {
		for _, p := range records[i].Parents {
			if at, here := place[p.ID]; here {
				parents[i] = append(parents[i], at)
			}
		}
	}
	_, cycle := order(parents)
	var ids []string
	for _, i := range cycle {
		ids = append(ids, records[i].ID)
	}
	return ids
}

// depsCall bounds the edges of one call.
const depsCall = 500

// tell says what the jobs wait for.
func (f *family) tell(ctx context.Context) error { return f.need(ctx, TellIt, nil) }

// need tells it, or has it forgotten, for all or some of the jobs.
func (f *family) need(ctx context.Context, telling Telling, only func(i int) bool) error {
	waits := map[int][]Wait{}
	for i, r := range f.records {
		if !r.Blocked || only != nil && !only(i) {
			continue
		}
		p := f.store.Partition(r.ID)
		for rest, first := r.Parents, true; first || len(rest) > 0; first = false {
			some := rest[:min(len(rest), depsCall)]
			rest = rest[len(some):]
			waits[p] = append(waits[p], Wait{r.ID, some, true})
		}
	}
	for partition, all := range waits {
		for len(all) > 0 {
			n, edges := 0, 0
			for n < len(all) && (n == 0 || edges+len(all[n].Parents)+1 <= depsCall) {
				edges += len(all[n].Parents) + 1
				n++
			}
			err := f.insist(ctx, "enqueue", func() error {
				_, err := f.store.Need(ctx, partition, telling, all[:n])
				f.mended(partition, err)
				return err
			})
			if err != nil {
				return err
			}
			all = all[n:]
		}
	}
	return nil
}

// link tells the parents of their children. A child of a parent that does not exist is
// refused, and so are its own.
func (f *family) link(ctx context.Context) error {
	type tie struct {
		Tie
		child     int
		on        Condition
		mayBeGone bool
	}
	ties := map[bool]map[int][]tie{true: {}, false: {}} // by whether the parent comes with this call
	for i, r := range f.records {
		for _, p := range r.Parents {
			_, here := f.place[p.ID]
			partition := f.store.Partition(p.ID)
			ties[here][partition] = append(ties[here][partition], tie{Tie{p.ID, r.ID}, i, p.On, p.MayBeGone})
		}
	}
	for here, byPartition := range ties {
		how := LinkTo
		if here {
			how = ExpectOf
		}
		for partition, all := range byPartition {
			for some := range slices.Chunk(all, depsCall) {
				call := make([]Tie, len(some))
				for i, t := range some {
					call[i] = t.Tie
				}
				var states []State
				err := f.insist(ctx, "enqueue", func() (err error) {
					states, err = f.store.Link(ctx, partition, how, call)
					f.mended(partition, err)
					return err
				})
				if err != nil {
					return err
				}
				for i, t := range some {
					switch state := states[i]; {
					case here:
					case state == "" && t.mayBeGone:
						f.release(t.Child, t.Parent, fitting(t.on))
					case state == "":
						f.errs[t.child] = &ParentGoneError{t.Child, t.Parent}
					case state.Finished():
						f.release(t.Child, t.Parent, state)
					}
				}
			}
		}
	}
	return f.disown(ctx)
}

// fitting is an end as this condition wants it.
func fitting(on Condition) State {
	if on == OnFailure {
		return Failed
	}
	return Succeeded
}

func (f *family) release(child, parent string, state State) {
	f.released = append(f.released, Release{child, parent, state})
}

// disown refuses the descendants of those that were refused, and has it forgotten
// what all of these wait for.
func (f *family) disown(ctx context.Context) error {
	refused := false
	for again := true; again; {
		again = false
		for i, r := range f.records {
			if f.errs[i] != nil {
				refused = true
				continue
			}
			for _, p := range r.Parents {
				if at, here := f.place[p.ID]; here && f.errs[at] != nil {
					f.errs[i], again = &ParentGoneError{r.ID, p.ID}, true
					break
				}
			}
		}
	}
	if !refused {
		return nil
	}
	isRefused := func(i int) bool { return f.errs[i] != nil }
	if err := f.need(ctx, ForgetIt, isRefused); err != nil {
		return err
	}
	ties := map[int][]Tie{}
	for i, r := range f.records {
		if isRefused(i) {
			for _, p := range r.Parents {
				partition := f.store.Partition(p.ID)
				ties[partition] = append(ties[partition], Tie{p.ID, r.ID})
			}
		}
	}
	for partition, all := range ties {
		for some := range slices.Chunk(all, depsCall) {
			err := f.insist(ctx, "enqueue", func() error {
				_, err := f.store.Link(ctx, partition, Unlink, some)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// enqueue adds the jobs that are not refused.
func (f *family) enqueue(ctx context.Context) {
	var places []int
	var records []Record
	for i, r := range f.records {
		if f.errs[i] == nil {
			places, records = append(places, i), append(records, r)
		}
	}
	for i, err := range f.acceptAll(ctx, records) {
		f.errs[places[i]] = err
	}
}

// open opens the gates of those that were added, and says what their parents had come
// to before. Where a parent of this call could not be added, its children are
// cancelled.
func (f *family) open(ctx context.Context) error {
	lost := make([]bool, len(f.records))
	for again := true; again; {
		again = false
		for i, r := range f.records {
			if lost[i] {
				continue
			}
			// That it exists already is as good as that it was added.
			lost[i] = f.errs[i] != nil && !errors.Is(f.errs[i], ErrExists)
			for _, p := range r.Parents {
				if at, here := f.place[p.ID]; here && lost[at] {
					lost[i] = true
				}
			}
			again = again || lost[i]
		}
	}
	for i, r := range f.records {
		if !r.Blocked {
			continue
		}
		state := Open
		if lost[i] {
			if state = Void; f.errs[i] == nil {
				f.errs[i] = fmt.Errorf("%w: one of its parents was not accepted", ErrUnconfirmed)
			}
		}
		f.release(r.ID, "", state)
	}
	parts := map[int][]Release{}
	for _, r := range f.released {
		if i := f.place[r.Child]; f.errs[i] != nil && errors.As(f.errs[i], new(*ParentGoneError)) {
			continue
		}
		p := f.store.Partition(r.Child)
		parts[p] = append(parts[p], r)
	}
	for partition, all := range parts {
		if err := f.releaseAll(ctx, partition, &f.calls, all); err != nil {
			return err
		}
	}
	return nil
}

// releaseAll tells children of one partition what their parents have come to.
func (c *Client) releaseAll(ctx context.Context, partition int, calls *Call, all []Release) error {
	for try := 0; len(all) > 0; try++ {
		some := all[:min(len(all), depsCall/2)]
		all = all[len(some):]
		calls.Number++
		var reply ReleaseReply
		err := c.insist(ctx, "release", func() (err error) {
			reply, err = c.store.Release(ctx, partition, *calls, some)
			c.mended(partition, err)
			return err
		})
		if err != nil {
			return err
		}
		for i, job := range reply.Jobs {
			if job.State != "" {
				c.hooks.Release(ReleaseInfo{job.ID, job.Kind, job.Priority, job.State, some[i].Parent})
			}
		}
		c.wake(partition, "", reply.News...)
		if reply.Heirs {
			c.releaseHeirs(partition)
		}
		if len(reply.Moved) > 0 && try >= maxMoves {
			return ErrMoved
		}
		for _, i := range reply.Moved {
			all = append(all, some[i])
		}
		if len(reply.Moved) == 0 {
			try = 0
		}
	}
	return nil
}

// releaseHeirs releases the children of jobs of the partition that have ended, without
// anyone waiting for it.
func (c *Client) releaseHeirs(partition int) {
	box := (*c.boxes.Load())[partition]
	box.mu.Lock()
	defer box.mu.Unlock()
	box.heirs = true
	if !box.delivering {
		box.delivering = true
		c.sends.Go(func() { c.deliverAll(box) })
	}
}

// At a time, children of so many parents are released, and so many.
const (
	heirParents  = 50
	heirChildren = 250
)

func (c *Client) deliverAll(box *outbox) {
	calls := Call{Caller: uuid.NewString()}
	for {
		box.mu.Lock()
		box.delivering = box.heirs
		box.heirs = false
		more := box.delivering
		box.mu.Unlock()
		if !more {
			return
		}
		for more {
			var err error
			if more, err = c.deliverSome(box.partition, &calls); err != nil {
				if c.ctx.Err() == nil {
					c.logger.Debug("children were not released; the leader does it", "partition", box.partition, "err", err)
				}
				break
			}
		}
	}
}

// deliverSome reports whether there is more.
func (c *Client) deliverSome(partition int, calls *Call) (bool, error) {
	heirs, err := c.store.Heirs(c.ctx, partition, heirParents, heirChildren)
	if err != nil || len(heirs) == 0 {
		return false, err
	}
	parts := map[int][]Release{}
	for i := range heirs {
		h := &heirs[i]
		if !h.State.Finished() {
			h.Children, h.All = nil, true // it has been requeued, or is gone
			continue
		}
		for _, child := range h.Children {
			p := c.store.Partition(child)
			parts[p] = append(parts[p], Release{child, h.Parent, h.State})
		}
	}
	for to, all := range parts {
		if err := c.releaseAll(c.ctx, to, calls, all); err != nil {
			return false, err
		}
	}
	return c.store.Passed(c.ctx, partition, heirs)
}

// heirsIn is the leader's: it releases what others left, ends blocked jobs that are
// overdue, and those whose gate nobody will open.
func (p *Peer) heirsIn(ctx context.Context, s *Survey, again func(func(Call, Chore) (bool, error))) {
	if s.Heirs {
		p.releaseHeirs(s.Partition)
	}
	if !s.Late {
		return
	}
	again(func(call Call, chore Chore) (bool, error) {
		reply, err := p.store.Overdue(ctx, s.Partition, call, chore)
		for _, job := range reply.Jobs {
			p.hooks.Miss(MissInfo{job.ID, job.Kind, job.Priority, job.State})
		}
		if len(reply.Jobs) > 0 {
			p.releaseHeirs(s.Partition)
		}
		return reply.More, err
	})
	again(func(Call, Chore) (bool, error) {
		ids, err := p.store.Gates(ctx, s.Partition, depsCall/2)
		if err != nil || len(ids) == 0 {
			return false, err
		}
		releases := make([]Release, len(ids))
		for i, id := range ids {
			releases[i] = Release{id, "", Void}
		}
		p.logger.Warn("jobs are cancelled whose enqueue was never finished", "partition", s.Partition, "jobs", len(ids))
		calls := Call{Caller: uuid.NewString()}
		return len(ids) == depsCall/2, p.releaseAll(ctx, s.Partition, &calls, releases)
	})
}

// disinherit makes the children of a job that is to be let go of no longer its own, as
// far as they have ended.
func (c *Client) disinherit(ctx context.Context, parent string) error {
	after := ""
	for range 20 { // and more when it comes round again
		children, err := c.store.Children(ctx, parent, after, depsCall)
		if err != nil || len(children) == 0 {
			return err
		}
		after = children[len(children)-1]
		states, err := c.store.States(ctx, children)
		if err != nil {
			return err
		}
		waits := map[int][]Wait{}
		var ties []Tie
		for i, child := range children {
			if states[i] == "" || states[i].Finished() {
				p := c.store.Partition(child)
				waits[p] = append(waits[p], Wait{ID: child, Parents: []Parent{{ID: parent}}})
				ties = append(ties, Tie{parent, child})
			}
		}
		for partition, some := range waits {
			if _, err := c.store.Need(ctx, partition, DropIt, some); err != nil {
				return err
			}
		}
		if len(ties) > 0 {
			if _, err := c.store.Link(ctx, c.store.Partition(parent), Unlink, ties); err != nil {
				return err
			}
		}
		if len(children) < depsCall {
			return nil
		}
	}
	return nil
}
