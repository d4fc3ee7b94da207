package dianemo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// releaseAll tells children, and workflows, what their parents and jobs have come to. It
// returns the jobs that had ended by that and no longer have.
func (c *Client) releaseAll(ctx context.Context, calls *Call, all []Release) (revived []Release, err error) {
	parts := map[int][]Release{}
	for _, r := range all {
		p := c.store.Partition(r.Child)
		parts[p] = append(parts[p], r)
	}
	for partition, all := range parts {
		back, err := c.releaseIn(ctx, partition, calls, all)
		if err != nil {
			return nil, err
		}
		revived = append(revived, back...)
	}
	return revived, nil
}

func (c *Client) releaseIn(ctx context.Context, partition int, calls *Call, all []Release) (revived []Release, err error) {
	for try := 0; len(all) > 0; try++ {
		some := all[:min(len(all), releaseJobs)]
		all = all[len(some):]
		calls.Number++
		var reply ReleaseReply
		err := c.insist(ctx, "release", func() (err error) {
			reply, err = c.store.Release(ctx, partition, *calls, some)
			c.mended(partition, err)
			return err
		})
		if err != nil {
			return nil, err
		}
		var near map[string][]NearJob // by the peers for which they are kept
		var ends []string             // workflows, for whose end a schedule may wait
		for i, job := range reply.Jobs {
			if job.Corrupt {
				c.repaired(partition, []Repaired{{ID: job.ID, Key: "needs", What: "how it waits for " + inherit(some[i].Parent, "its gate") + " could not be read", Did: "it ends"}})
			}
			if job.State == "" {
				continue
			}
			c.hooks.Release(ReleaseInfo{job.ID, job.Kind, job.Priority, job.State, some[i].Parent})
			if job.Near != "" && job.State == Scheduled {
				if near == nil {
					near = map[string][]NearJob{}
				}
				near[job.Near] = append(near[job.Near], NearJob{job.ID, job.Lane, job.Until})
			}
			if job.Revived {
				revived = append(revived, Release{Parent: job.ID, State: job.State, Number: job.Number})
			}
			// No other workflow has such an id, but by its user's wish: see OccurrenceID.
			if job.State.Finished() && IsWorkflow(job.Kind) && strings.Contains(job.ID, "@") {
				ends = append(ends, job.ID)
			}
		}
		if len(ends) > 0 {
			c.followEnds(partition, ends)
		}
		c.tellNear(ctx, partition, near)
		c.wake(partition, "", reply.News...)
		if reply.Heirs {
			c.releaseHeirs(partition)
		}
		if len(reply.Moved) > 0 && try >= maxMoves {
			return nil, ErrMoved
		}
		for _, i := range reply.Moved {
			all = append(all, some[i])
		}
		if len(reply.Moved) == 0 {
			try = 0
		}
	}
	return revived, nil
}

// releaseHeirs tells the children of jobs of the partition that have ended, without
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

// At a time, children of so many parents are told, and so many.
const (
	heirParents  = 50
	heirChildren = releaseJobs
)

// releaseJobs is how many are told in one call, so that it holds the store no longer than
// 5 ms: 250 took 9.
const releaseJobs = 100

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
			round, err := c.deliverSome(c.ctx, box.partition, &calls)
			if err != nil && c.ctx.Err() == nil {
				c.logger.Debug("children were not released; the leader does it", "partition", box.partition, "err", err)
			}
			more = err == nil && round.more
		}
	}
}

// deliverUntilNow tells the children of all that is in the outbox now.
func (c *Client) deliverUntilNow(ctx context.Context, partition int) error {
	calls := Call{Caller: uuid.NewString()}
	until := int64(0)
	for {
		var round delivery
		err := c.insist(ctx, "release", func() (err error) {
			round, err = c.deliverSome(ctx, partition, &calls)
			return err
		})
		if until == 0 {
			until = round.until
		}
		if err != nil || !round.more || round.since > until {
			return err
		}
	}
}

// A delivery is one step through an outbox: since when the first of what it delivered
// was there, until when there was some, and whether there is more.
type delivery struct {
	since, until int64
	more         bool
}

func (c *Client) deliverSome(ctx context.Context, partition int, calls *Call) (round delivery, err error) {
	heirs, until, err := c.store.Heirs(ctx, partition, heirParents, heirChildren)
	if err != nil || len(heirs) == 0 {
		return round, err
	}
	round.since, round.until = heirs[0].Since, until
	var children, workflows []Release
	for i := range heirs {
		h := &heirs[i]
		if h.Listed && h.State != Open {
			if h.State == Void {
				// Where the gate was never open, nothing has started.
				if err := c.withdraw(ctx, h.Parent, h.Teller, h.Reason != "gate", calls); err != nil {
					return round, err
				}
			}
			h.Children, h.All = nil, true
			continue
		}
		for _, child := range h.Children {
			workflow, isWorkflow := strings.CutPrefix(child, "|")
			if CheckName("child", strings.TrimPrefix(child, "|")) != nil {
				if err := c.sever(ctx, partition, h, child); err != nil {
					return round, err
				}
				continue
			}
			r := Release{Child: child, Parent: h.Parent, State: h.State, Number: h.Number, Peer: h.Peer}
			switch {
			case isWorkflow:
				r.Child = workflow
				workflows = append(workflows, r)
				continue
			case h.Listed:
				r.Parent = ""
			case h.Decides && !slices.Contains(h.Chosen, child):
				r.State = Unchosen
			case h.Reason == withdrawn:
				// What would start since this one has ended is withdrawn, too. It must be told, for
				// it may be behind a gate: then withdraw came before it was to be run again.
				if same, err := c.sameWorkflow(ctx, h.Parent, child); err != nil {
					return round, err
				} else if same {
					r.State = Withdrawn
				}
			}
			children = append(children, r)
		}
	}
	revived, err := c.releaseAll(ctx, calls, children)
	if err != nil {
		return round, err
	}
	// A workflow hears of jobs that are to run after all before it hears that those have
	// ended that brought them back: else it would end in between.
	var back []Release
	for _, r := range revived {
		if r.Child, err = c.workflowOf(ctx, r.Parent); err != nil {
			return round, err
		}
		if r.Child != "" {
			back = append(back, r)
		}
	}
	if _, err := c.releaseAll(ctx, calls, append(back, workflows...)); err != nil {
		return round, err
	}
	round.more, err = c.store.Passed(ctx, partition, heirs)
	return round, err
}

// sever removes an edge that no program has written, so that it is in nobody's way.
func (c *Client) sever(ctx context.Context, partition int, h *Heirs, child string) error {
	how := Unlink
	if h.Listed {
		how = Delist
	}
	if _, err := c.store.Link(ctx, partition, how, []Tie{{h.Parent, child}}); err != nil {
		return err
	}
	c.repaired(partition, []Repaired{{ID: h.Parent, Key: "edges", What: fmt.Sprintf("its child can't be told of it: %.200q", child), Did: "it has it no longer"}})
	return nil
}

// workflowOf is the workflow of which this is a job, "" for none.
func (c *Client) workflowOf(ctx context.Context, id string) (string, error) {
	ties, err := c.store.Children(ctx, id, "{", 1) // behind all children
	if err != nil || len(ties) == 0 {
		return "", err
	}
	return strings.TrimPrefix(ties[0], "|"), nil
}

func (c *Client) sameWorkflow(ctx context.Context, one, other string) (bool, error) {
	first, err := c.workflowOf(ctx, one)
	if err != nil || first == "" {
		return false, err
	}
	second, err := c.workflowOf(ctx, other)
	return first == second, err
}

// withdrawn is the reason of jobs that were blocked when their workflow was cancelled.
const withdrawn = "workflow"

// withdraw cancels a workflow's jobs: first those that are blocked, so that the end of
// others can't start any of them, and then, if it was begun, all others.
func (c *Client) withdraw(ctx context.Context, workflow string, teller uint64, begun bool, calls *Call) error {
	block := func(ids []string) error {
		all := make([]Release, len(ids))
		for i, id := range ids {
			all[i] = Release{Child: id, State: Withdrawn, Teller: teller}
		}
		_, err := c.releaseAll(ctx, calls, all)
		return err
	}
	steps := []func(ids []string) error{block}
	if begun {
		steps = append(steps, func(ids []string) error { return c.cancelAll(ctx, ids) })
	}
	for _, step := range steps {
		err := c.memberIDs(ctx, workflow, func(ids []string) error {
			if begun {
				if err := c.resumed(ctx, workflow); err != nil {
					return err
				}
			}
			return step(ids)
		})
		if err != nil && !errors.Is(err, errResumed) {
			return err
		}
	}
	return nil
}

const errResumed = storeError("dianemo: the workflow was resumed meanwhile")

// resumed returns errResumed if the workflow is no longer cancelled: another has told all of
// its jobs that it was, before it was resumed.
func (c *Client) resumed(ctx context.Context, workflow string) error {
	standings, err := c.store.Standings(ctx, []string{workflow})
	if err == nil && standings[0].State != "" && standings[0].State != Cancelled && standings[0].Reason != "cancel" {
		err = errResumed
	}
	return err
}

// cancelAll cancels those of the jobs that have not ended.
func (c *Client) cancelAll(ctx context.Context, ids []string) error {
	s := &series{edge: EdgeCancel, hook: c.hooks.Cancel, ask: c.store.Cancel}
	var failed error
	_ = c.askAll(ctx, s, ids, func(info WishInfo, _ bool) { // it stands in failed
		if info.Err != nil && !errors.Is(info.Err, ErrNotFound) && !errors.As(info.Err, new(*StateError)) {
			failed = info.Err
		}
	})
	return failed
}

// heirsIn is the leader's: it tells what others left untold, ends blocked jobs that are
// overdue, unfolds the workflows of schedules, and voids other gates that nobody will open.
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
		flows, voids, err := p.plannedOf(ctx, ids)
		p.unfoldSoon(s.Partition, flows)
		if err != nil || len(voids) == 0 {
			return false, err
		}
		p.logger.Warn("jobs are cancelled whose enqueue was never finished", "partition", s.Partition, "jobs", len(voids))
		_, err = p.releaseIn(ctx, s.Partition, &Call{Caller: uuid.NewString()}, voids)
		return len(ids) == depsCall/2, err
	})
}

// disinherit lets a job that is to be let go of have no more children, as far as they
// have ended, and a workflow no more jobs.
func (c *Client) disinherit(ctx context.Context, parent string) error {
	partition := c.store.Partition(parent)
	for {
		jobs, err := c.store.Members(ctx, parent, "", depsCall)
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			break
		}
		ties := make([]Tie, len(jobs))
		for i, job := range jobs {
			ties[i] = Tie{parent, job}
		}
		if _, err := c.store.Link(ctx, partition, Delist, ties); err != nil {
			return err
		}
		if len(jobs) < depsCall {
			// And of the numbers of what it was told, what its jobs' leaving has left.
			if _, err := c.store.Need(ctx, partition, DropIt, 0, []Wait{{ID: parent}}); err != nil {
				return err
			}
			break
		}
	}
	after := ""
	for range 20 { // and more when it comes round again
		children, err := c.store.Children(ctx, parent, after, depsCall)
		if err != nil || len(children) == 0 {
			return err
		}
		after = children[len(children)-1]
		ids := make([]string, len(children))
		for i, child := range children {
			ids[i] = strings.TrimPrefix(child, "|")
		}
		standings, err := c.store.Standings(ctx, ids)
		if err != nil {
			return err
		}
		waits := map[int][]Wait{}
		var ties []Tie
		for i, child := range children {
			if state := standings[i].State; state == "" || state.Finished() {
				p := c.store.Partition(ids[i])
				waits[p] = append(waits[p], Wait{ID: ids[i], Parents: []Parent{{ID: parent}}})
				ties = append(ties, Tie{parent, child})
			}
		}
		for p, some := range waits {
			if _, err := c.store.Need(ctx, p, DropIt, 0, some); err != nil {
				return err
			}
		}
		if len(ties) > 0 {
			if _, err := c.store.Link(ctx, partition, Unlink, ties); err != nil {
				return err
			}
		}
		if len(children) < depsCall {
			return nil
		}
	}
	return nil
}
