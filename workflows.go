package dianemo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// A WorkflowInfo is a workflow as readers see it.
type WorkflowInfo struct {
	ID   string
	Name string
	// State is Running until all jobs have ended. Then it is Succeeded if none failed,
	// was missed, cancelled or became unreachable (to be skipped is no failure of its own),
	// Cancelled if some were cancelled and none of the others, or the workflow was
	// cancelled as a whole, and otherwise Failed. That of a schedule may be Missed or Skipped:
	// it has no jobs then.
	State State
	// Reason is gate if it was never wholly submitted, late or overlap if its schedule did not
	// run it, and otherwise empty, cancel, or job.
	Reason string
	// Jobs is how many it has, or would have, and Counts by where they stand: those that wait in their
	// lanes are Scheduled, whether due or not; under "" those that retention has let go of.
	Jobs   int
	Counts map[State]int
	// Schedule is the schedule that made it, "" for none, and ScheduledFor the instant of
	// its rule.
	Schedule             string
	ScheduledFor         time.Time
	SubmittedAt, EndedAt time.Time // by the store's clock, to the millisecond
}

// Progress is the share of its jobs that have ended, 0 to 1.
func (w *WorkflowInfo) Progress() float64 {
	if w.Jobs == 0 {
		return 0
	}
	ended := w.Counts[""]
	for state, n := range w.Counts {
		if state.Finished() {
			ended += n
		}
	}
	return float64(ended) / float64(w.Jobs)
}

// workflowInfo is what the workflow's own job says.
func workflowInfo(job *JobInfo) (WorkflowInfo, error) {
	var args workflowArgs
	if err := json.Unmarshal(job.Args, &args); err != nil {
		return WorkflowInfo{}, fmt.Errorf("dianemo: workflow %s: %w", job.ID, err)
	}
	info := WorkflowInfo{ID: job.ID, Name: strings.TrimPrefix(job.Kind, workflowPrefix), State: job.State, Reason: job.Reason, Jobs: args.Jobs,
		Schedule: job.Schedule, ScheduledFor: job.ScheduledFor, SubmittedAt: job.EnqueuedAt, EndedAt: job.EndedAt}
	if info.State == Blocked {
		info.State = Running
	}
	return info, nil
}

// workflowJob reads the workflow's own job, and workflow what that says.
func (c *Client) workflowJob(ctx context.Context, id string) (*JobInfo, error) {
	job, err := c.Get(ctx, id)
	if err == nil && !IsWorkflow(job.Kind) {
		return nil, &FieldError{"id", id, "that of a workflow; it is a job of kind " + job.Kind}
	}
	return job, err
}

func (c *Client) workflow(ctx context.Context, id string) (WorkflowInfo, error) {
	job, err := c.workflowJob(ctx, id)
	if err != nil {
		return WorkflowInfo{}, err
	}
	return workflowInfo(job)
}

// Workflow reads a workflow, and where all of its jobs stand: not at one moment, since
// they are read 500 at a time. It returns [ErrNotFound] if there is none of this id, and a
// [FieldError] if it is that of a job. To wait for its end, say [Client.Wait].
func (c *Client) Workflow(ctx context.Context, id string) (*WorkflowInfo, error) {
	info, err := c.workflow(ctx, id)
	if err != nil {
		return nil, err
	}
	info.Counts = map[State]int{}
	err = c.members(ctx, id, func(ids []string, standings []Standing) error {
		for _, s := range standings {
			info.Counts[s.State]++
		}
		return nil
	})
	return &info, err
}

// memberIDs reads the ids of a workflow's jobs, in order, some at a time.
func (c *Client) memberIDs(ctx context.Context, workflow string, each func(ids []string) error) error {
	for after := ""; ; {
		ids, err := c.store.Members(ctx, workflow, after, MaxCallJobs)
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := each(ids); err != nil {
			return err
		}
		after = ids[len(ids)-1]
	}
}

// members reads where they stand, too.
func (c *Client) members(ctx context.Context, workflow string, each func(ids []string, standings []Standing) error) error {
	return c.memberIDs(ctx, workflow, func(ids []string) error {
		standings, err := c.store.Standings(ctx, ids)
		if err != nil {
			return err
		}
		return each(ids, standings)
	})
}

// children reads a job's children.
func (c *Client) children(ctx context.Context, id string, each func(child string)) error {
	for after := ""; ; {
		some, err := c.store.Children(ctx, id, after, depsCall)
		if err != nil {
			return err
		}
		for _, child := range some {
			each(child)
		}
		if len(some) < depsCall {
			return nil
		}
		after = some[len(some)-1]
	}
}

// A WorkflowFilter says which workflows [Client.Workflows] lists. The zero value lists
// all, those first that ended first, and behind them those that have not.
type WorkflowFilter struct {
	Names    []string  // none: all
	States   []State   // Running, Succeeded, Failed, Cancelled, Missed, Skipped; none: all
	From, To time.Time // of their ends, as in [Filter]
	Newest   bool      // those first that have not ended, and then the latest end
	Limit    int       // of a page: 1 to MaxList; default 100
	After    string    // the Next of a page; "": from the beginning
}

// A WorkflowPage of a list. Of each workflow it has all but Counts, and so no Progress.
type WorkflowPage struct {
	Workflows []WorkflowInfo
	Next      string // what WorkflowFilter.After must be to go on; "" if there is nothing more
}

// Workflows reads a page of workflows, as [Client.List] does of jobs. The error is a
// [FieldError] if the filter is wrong.
func (c *Client) Workflows(ctx context.Context, filter WorkflowFilter) (WorkflowPage, error) {
	var page WorkflowPage
	jobs := Filter{From: filter.From, To: filter.To, Newest: filter.Newest, Limit: filter.Limit, After: filter.After}
	for _, state := range filter.States {
		if state == Running {
			state = Blocked
		} else if !state.Finished() || state == Unreachable {
			return page, &FieldError{"WorkflowFilter.States", string(state), "Running, Succeeded, Failed, Cancelled, Missed, Skipped"}
		}
		jobs.States = append(jobs.States, state)
	}
	for _, name := range filter.Names {
		if err := CheckName("WorkflowFilter.Names", name); err != nil {
			return page, err
		}
		jobs.Kinds = append(jobs.Kinds, workflowPrefix+name)
	}
	if len(jobs.Kinds) == 0 {
		counts, err := c.Counts(ctx)
		if err != nil {
			return page, err
		}
		for _, count := range counts {
			if IsWorkflow(count.Kind) {
				jobs.Kinds = append(jobs.Kinds, count.Kind)
			}
		}
		if len(jobs.Kinds) == 0 {
			return page, nil
		}
	}
	list, err := c.List(ctx, jobs)
	if err != nil {
		return page, err
	}
	page.Next = list.Next
	for i := range list.Jobs {
		info, err := workflowInfo(&list.Jobs[i])
		if err != nil {
			info.ID, info.Reason = list.Jobs[i].ID, "corrupt"
		}
		page.Workflows = append(page.Workflows, info)
	}
	return page, nil
}

// WorkflowGraph reads a workflow's jobs with what they wait for. Where retention has let
// go of jobs, what these waited for is not known any more; of a job with more than 1000
// parents, those outside of the workflow are not told, nor how they must end, if that is
// not the same of all. Errors as with Workflow.
func (c *Client) WorkflowGraph(ctx context.Context, id string) (*Graph, error) {
	job, err := c.workflowJob(ctx, id)
	if err != nil {
		return nil, err
	}
	info, err := workflowInfo(job)
	if err != nil {
		return nil, err
	}
	spread := job.spreads()
	g := &Graph{ID: info.ID, Name: info.Name, State: info.State, Jobs: []GraphJob{}, Edges: []GraphEdge{}}
	many := map[string]Condition{} // jobs that do not name their parents
	err = c.members(ctx, id, func(ids []string, standings []Standing) error {
		specs, err := c.store.Specs(ctx, ids)
		if err != nil {
			return err
		}
		for i, member := range ids {
			one := GraphJob{Name: memberName(id, member, spread), ID: member, State: standings[i].State, Reason: standings[i].Reason}
			if spec, err := DecodeSpec(specs[i]); err == nil {
				one.Kind = spec.Kind
				if spec.Many > 0 {
					many[member] = spec.ManyOn
				}
				for _, p := range spec.Parents {
					g.Edges = append(g.Edges, GraphEdge{memberName(id, p.ID, spread), one.Name, p.On})
				}
			}
			g.Jobs = append(g.Jobs, one)
		}
		return nil
	})
	for i := 0; err == nil && len(many) > 0 && i < len(g.Jobs); i++ {
		err = c.children(ctx, g.Jobs[i].ID, func(child string) {
			if on, is := many[child]; is {
				g.Edges = append(g.Edges, GraphEdge{g.Jobs[i].Name, memberName(id, child, spread), on})
			}
		})
	}
	slices.SortFunc(g.Jobs, func(a, b GraphJob) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(g.Edges, func(a, b GraphEdge) int {
		return cmp.Or(strings.Compare(a.Child, b.Child), strings.Compare(a.Parent, b.Parent))
	})
	return g, err
}

// revive makes one job of a cancelled workflow wait again, and so the workflow go on, before
// any other job does: whoever still tells them that it was cancelled then stops, and
// cancels none of them again.
func (c *Client) revive(ctx context.Context, s *series, workflow, member string, opened func(WishInfo, bool)) error {
	for try := 1; ; try++ {
		var asked WishInfo
		var answered bool
		if err := c.askAll(ctx, s, []string{member}, func(info WishInfo, ok bool) { asked, answered = info, ok }); err != nil {
			return err
		}
		for _, id := range []string{member, workflow} {
			if err := c.deliverUntilNow(ctx, c.store.Partition(id)); err != nil {
				return err
			}
		}
		standings, err := c.store.Standings(ctx, []string{member, workflow})
		if err != nil {
			return err
		}
		if standings[0].State != Cancelled && standings[1].State != Cancelled || try == maxMoves {
			opened(asked, answered)
			return nil
		}
	}
}

// ResumeWorkflow runs again what did not succeed: jobs that failed, were missed or
// cancelled or became unreachable, with all their retries, once their parents suit; and
// then what was skipped because of them. What has succeeded stays as it is, and so does what
// a decision left out. It returns how many jobs it has made wait again; by then the
// workflow is under way again.
//
// It may be called while the workflow runs. If it fails half-way, the same call goes on.
// Errors: as with [Client.Workflow]; a [StateError] for a workflow that was never wholly
// submitted, or that its schedule did not run; the context's, with [ErrUnconfirmed] if anything was sent. Jobs that were about to
// be run again and are left so end cancelled after ten minutes, until the call is repeated.
func (c *Client) ResumeWorkflow(ctx context.Context, id string) (int, error) {
	job, err := c.workflowJob(ctx, id)
	if err != nil {
		return 0, err
	}
	if job.Reason == "gate" || job.State == Missed || job.State == Skipped {
		return 0, &StateError{ID: id, State: job.State, Edge: EdgeRequeue}
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	// First all of them wait behind gates, so that none that comes after others starts, or
	// is skipped, before it is known that these are to run again.
	s := &series{edge: EdgeRequeue, hook: c.hooks.Requeue, ask: func(ctx context.Context, partition int, call Call, ids []string) (WishReply, error) {
		return c.store.Requeue(ctx, partition, call, ids, true)
	}}
	touched := map[int]bool{c.store.Partition(id): true}
	var opens, left []Release
	err = c.members(ctx, id, func(ids []string, standings []Standing) error {
		var again []string
		for i, member := range ids {
			switch standings[i].State {
			case Failed, Missed, Unreachable, Cancelled:
				again = append(again, member)
				touched[c.store.Partition(member)] = true
			case Blocked:
				if standings[i].Reason == "requeue" { // and left so, maybe
					left = append(left, Release{Child: member, State: Open})
					touched[c.store.Partition(member)] = true
				}
			}
		}
		opened := func(info WishInfo, answered bool) {
			if answered && info.Err == nil {
				opens = append(opens, Release{Child: info.ID, State: Open})
			}
		}
		if job.State == Cancelled && len(opens) == 0 && len(again) > 0 {
			if err := c.revive(ctx, s, id, again[0], opened); err != nil {
				return err
			}
			again = again[1:]
		}
		return c.askAll(ctx, s, again, opened)
	})
	if err != nil {
		return 0, err
	}
	for partition := range touched {
		if err := c.deliverUntilNow(ctx, partition); err != nil {
			return 0, err
		}
	}
	_, err = c.releaseAll(ctx, &Call{Caller: uuid.NewString()}, append(left, opens...))
	return len(opens), err
}
