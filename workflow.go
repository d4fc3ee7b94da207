package dianemo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// A workflow is a job of a kind of its own, that is never claimed: it is blocked until
// its jobs have ended, and its end says how. Its jobs wait for its gate, which is opened
// when all of them are in the store: that one step makes the workflow, in all
// partitions, and until it is taken nothing of it can start.

// A Workflow is a graph of jobs that is submitted as a whole: see [Client.Submit]. Make
// it with [NewWorkflow]; it may be submitted several times, but only changed by one
// goroutine at a time.
type Workflow struct {
	// ID is the workflow's id; default a new UUIDv7 at each Submit. With one given here
	// the workflow exists once, for as long as it is kept. The ids of its jobs are made
	// of it and their names, and must not have more than 128 characters.
	ID string
	// Spread puts the jobs into all partitions of the store. Otherwise they stand
	// together in one, which is quicker for small ones.
	Spread bool

	name string
	jobs []*WorkflowJob
}

// A WorkflowJob is one job of a [Workflow].
type WorkflowJob struct {
	name    string
	request Request
	parents []Parent // by their names
}

// MaxWorkflow is how many jobs a workflow may have, unless the Config or ClientConfig
// says otherwise.
const MaxWorkflow = 100_000

const mostWorkflow = 1_000_000

// NewWorkflow names a workflow: 1 to 100 letters, digits and . _ - / @ +. What is wrong
// with it or its jobs is reported by Submit.
func NewWorkflow(name string) *Workflow { return &Workflow{name: name} }

// Add adds a job under a name that no other job of the workflow has. The request is made
// by [Kind.New] or [Kind.NewWith]; its Options may name parents, by their ids, outside
// of the workflow, but neither ID nor Unique.
func (w *Workflow) Add(name string, request Request) *WorkflowJob {
	job := &WorkflowJob{name: name, request: request}
	w.jobs = append(w.jobs, job)
	return job
}

// After has the job start after these jobs of the workflow have succeeded. Like the
// following it returns the job; these may be added later. See [After].
func (j *WorkflowJob) After(names ...string) *WorkflowJob { return j.wait(OnSuccess, names) }

// AfterFailure has the job start after these have not succeeded. See [AfterFailure].
func (j *WorkflowJob) AfterFailure(names ...string) *WorkflowJob { return j.wait(OnFailure, names) }

// AfterEnd has the job start after these have ended, however.
func (j *WorkflowJob) AfterEnd(names ...string) *WorkflowJob { return j.wait(OnEnd, names) }

// AfterChosen has the job start after those of these have succeeded that no decision left
// out. See [AfterChosen].
func (j *WorkflowJob) AfterChosen(names ...string) *WorkflowJob { return j.wait(OnChosen, names) }

// AfterOn is After for one job, and has this one start on the peer that ran it, if it is
// free within this time; then anywhere. See Near in [Parent].
func (j *WorkflowJob) AfterOn(name string, wait time.Duration) *WorkflowJob {
	j.parents = append(j.parents, Parent{ID: name, On: OnSuccess, Near: wait})
	return j
}

func (j *WorkflowJob) wait(on Condition, names []string) *WorkflowJob {
	j.parents = append(j.parents, parentsOf(on, names)...)
	return j
}

// workflowPrefix begins the kinds of workflows. No other kind may begin with it.
const workflowPrefix = "workflow/"

// IsWorkflow reports whether jobs of this kind are workflows: "workflow/" and the
// workflow's name.
func IsWorkflow(kind string) bool { return strings.HasPrefix(kind, workflowPrefix) }

// checkKind is CheckName for the kind of a job.
func checkKind(kind string) error {
	if IsWorkflow(kind) {
		return &FieldError{"kind", kind, "a name that does not begin with " + workflowPrefix}
	}
	return CheckName("kind", kind)
}

// memberID is the id of a workflow's job. Where the jobs are spread, what stands before
// the first @ differs.
func memberID(workflow, name string, spread bool) string {
	if spread {
		return name + "/" + workflow
	}
	return workflow + "@" + name
}

// in is the id of another job of this one's workflow; "" if it is in none.
func (j *Job[Args]) in(name string) string {
	if j.Workflow == "" {
		return ""
	}
	return memberID(j.Workflow, name, j.ID != memberID(j.Workflow, j.Name, false))
}

// workflowArgs are the arguments of a workflow's own job.
type workflowArgs struct {
	Jobs   int  `json:"jobs"`
	Spread bool `json:"spread,omitempty"`
}

// Members is how many jobs a workflow has, by the spec of its own job; 0 for other jobs.
func (s *Spec) Members() int {
	var args workflowArgs
	if !IsWorkflow(s.Kind) || json.Unmarshal(s.Args, &args) != nil {
		return 0
	}
	return args.Jobs
}

// records checks the workflow and makes the jobs of one submission: the workflow's own,
// and its jobs'. It does not look at jobs outside of it.
func (w *Workflow) records(limit int) (own Record, jobs []Record, err error) {
	if w == nil {
		return own, nil, &FieldError{"workflow", nil, "a Workflow, made by NewWorkflow"}
	}
	longest, err := w.check(limit)
	if err != nil {
		return own, nil, err
	}
	most := slices.Max(longest)
	id := w.ID
	if id == "" {
		made, err := uuid.NewV7()
		if err != nil {
			return own, nil, fmt.Errorf("dianemo: make an id: %w", err)
		}
		id = made.String()
	}
	jobs = make([]Record, len(w.jobs))
	for i, j := range w.jobs {
		request := j.request
		o := &request.options
		if o.ID != "" || o.Unique.Key != "" {
			return own, nil, j.fails(&FieldError{"Options.ID, Options.Unique", inherit(o.ID, o.Unique.Key), "empty in a workflow: the job's id is made of the workflow's and its name"})
		}
		o.ID = memberID(id, j.name, w.Spread)
		if len(o.ID) > 128 {
			return own, nil, j.fails(&FieldError{"name", j.name, fmt.Sprintf("so short that the id %s has at most 128 characters", o.ID)})
		}
		o.Parents = slices.Clone(o.Parents)
		for _, p := range j.parents {
			p.ID = memberID(id, p.ID, w.Spread)
			o.Parents = append(o.Parents, p)
		}
		request.workflow, request.name = id, j.name
		if most > 1 {
			request.ahead = float64(longest[i]-1) / float64(most-1)
		}
		if jobs[i], err = request.record(); err != nil {
			return own, nil, j.fails(err)
		}
		jobs[i].Blocked = true // by the gate
	}
	args, err := json.Marshal(workflowArgs{len(jobs), w.Spread})
	if err != nil {
		return own, nil, err
	}
	spec := Spec{Kind: workflowPrefix + w.name, Priority: 2, Grace: Unlimited, Args: args}
	own = Record{ID: id, Lane: spec.Lane(), Blocked: true, Spec: EncodeSpec(&spec)}
	return own, jobs, nil
}

// fails says which job is wrong.
func (j *WorkflowJob) fails(err error) error {
	return fmt.Errorf("job %q of the workflow: %w", j.name, err)
}

// check returns, for each job, how many are on the longest path from it to the end.
func (w *Workflow) check(limit int) (longest []int, err error) {
	if err := CheckName("Workflow.Name", w.name); err != nil || len(w.name) > 100 {
		return nil, &FieldError{"Workflow.Name", w.name, "1 to 100 letters, digits and . _ - / @ +"}
	}
	if w.ID != "" {
		if err := CheckName("Workflow.ID", w.ID); err != nil {
			return nil, err
		}
	}
	if n := len(w.jobs); n == 0 || n > limit {
		return nil, &FieldError{"Workflow", fmt.Sprintf("%d jobs", n), fmt.Sprintf("1 to %d", limit)}
	}
	place := make(map[string]int, len(w.jobs))
	for i, j := range w.jobs {
		if err := CheckName("Workflow.Add(name)", j.name); err != nil {
			return nil, err
		}
		if _, there := place[j.name]; there {
			return nil, &FieldError{"Workflow.Add(name)", j.name, "each name once"}
		}
		place[j.name] = i
	}
	parents := make([][]int, len(w.jobs))
	for i, j := range w.jobs {
		for _, p := range j.parents {
			at, there := place[p.ID]
			if !there {
				return nil, j.fails(&FieldError{"After(name)", p.ID, "the names of jobs of the workflow"})
			}
			parents[i] = append(parents[i], at)
		}
	}
	sorted, cycle := order(parents)
	if cycle != nil {
		names := make([]string, len(cycle))
		for i, at := range cycle {
			names[i] = w.jobs[at].name
		}
		return nil, &CycleError{names}
	}
	return remaining(parents, sorted), nil
}

// aheadOf is how much earlier than others with this grace the jobs on the longest path of a
// workflow are due when they are released, so that they go first. Its jobs' grace is so much
// longer.
func aheadOf(grace time.Duration) time.Duration {
	if grace < 0 {
		return time.Hour
	}
	return grace / 24
}

// Submit adds a workflow, all of it or nothing, and returns its id. When it returns nil,
// Redis has the workflow; its jobs without parents start at once.
//
//   - [FieldError], [CycleError] (by the jobs' names), [ParentGoneError] for a parent
//     outside of it: the workflow is wrong, and nothing was written.
//   - [ExistsError]: there is a workflow with this ID.
//   - [ErrStoreFull], the context's error, [ErrClosed], [ErrLayout]: nothing of it will
//     run. What had been written of it ends cancelled, with the reason gate: at once or,
//     if this process dies or can't reach Redis, after ten minutes.
//   - with [ErrUnconfirmed] among them: it is not known whether it was accepted.
//
// While Redis can't be reached it waits and tries again until ctx ends.
func (c *Client) Submit(ctx context.Context, workflow *Workflow) (string, error) {
	own, jobs, err := workflow.records(c.maxWorkflow)
	if err != nil {
		return "", err
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	f := c.family(own.ID, jobs)
	if err := f.outside(ctx); err != nil {
		return "", err
	}
	// Its own job comes first, so that of two with the same id only one goes on.
	gate := map[int][]Wait{c.store.Partition(own.ID): {{ID: own.ID, Gate: OwnGate}}}
	if err := f.needAll(ctx, TellIt, gate); err != nil {
		return "", err
	}
	if err := c.acceptAll(ctx, []Record{own})[0]; err != nil {
		return own.ID, err
	}
	if err := f.fill(ctx); err != nil {
		return own.ID, f.void(ctx, err)
	}
	opened, err := f.turn(ctx, Open)
	switch {
	case err != nil:
		return own.ID, f.void(ctx, err)
	case !opened:
		if err := f.withdraw(ctx, own.ID, &f.calls); err != nil {
			return own.ID, err
		}
		return own.ID, fmt.Errorf("dianemo: workflow %s: it took so long to submit it that it was given up", own.ID)
	}
	return own.ID, nil
}

// outside checks the parents that are not in the workflow.
func (f *family) outside(ctx context.Context) error {
	var ids, children []string
	for _, r := range f.records {
		for _, p := range r.Parents {
			if _, here := f.place[p.ID]; !here && !p.MayBeGone {
				ids, children = append(ids, p.ID), append(children, r.ID)
			}
		}
	}
	for from := 0; from < len(ids); from += depsCall {
		some := ids[from:min(from+depsCall, len(ids))]
		var standings []Standing
		err := f.insist(ctx, "submit", func() (err error) {
			standings, err = f.store.Standings(ctx, some)
			return err
		})
		if err != nil {
			return err
		}
		for i, s := range standings {
			if s.State == "" {
				return &ParentGoneError{children[from+i], some[i]}
			}
		}
	}
	return nil
}

// fill puts the workflow's jobs into the store, behind its gate. What is there already,
// because it was tried before, is left as it is.
func (f *family) fill(ctx context.Context) error {
	partition := f.store.Partition(f.workflow)
	for some := range slices.Chunk(f.records, depsCall) {
		ties := make([]Tie, len(some))
		members := make([]Parent, len(some))
		for i, r := range some {
			ties[i], members[i] = Tie{f.workflow, r.ID}, Parent{ID: r.ID, On: OfWorkflow}
		}
		err := f.insist(ctx, "submit", func() error {
			_, err := f.store.Link(ctx, partition, Enlist, ties)
			f.mended(partition, err)
			return err
		})
		if err != nil {
			return err
		}
		if err := f.needAll(ctx, JoinIt, map[int][]Wait{partition: {{ID: f.workflow, Parents: members}}}); err != nil {
			return err
		}
	}
	if err := f.tell(ctx); err != nil {
		return err
	}
	if err := f.link(ctx); err != nil {
		return err
	}
	if err := errors.Join(f.errs...); err != nil {
		return err
	}
	f.enqueue(ctx)
	for _, err := range f.errs {
		if err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	_, err := f.releaseAll(ctx, &f.calls, f.released)
	return err
}

// turn opens the workflow's gate, or voids it. It reports whether there was a closed one.
func (f *family) turn(ctx context.Context, gate State) (bool, error) {
	f.calls.Number++
	partition := f.store.Partition(f.workflow)
	var reply ReleaseReply
	err := f.insist(ctx, "submit", func() (err error) {
		reply, err = f.store.Release(ctx, partition, f.calls, []Release{{Child: f.workflow, State: gate}})
		f.mended(partition, err)
		return err
	})
	if err != nil {
		return false, err
	}
	f.releaseHeirs(partition)
	return reply.Jobs[0].State != "", nil
}

// voidFor is how long it is tried to void a workflow that was not submitted.
const voidFor = 5 * time.Second

// void gives the workflow up, unless its gate is open: then it was accepted after all.
func (f *family) void(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), voidFor)
	defer cancel()
	closed, voided := f.turn(ctx, Void)
	switch {
	case voided != nil:
		return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	case !closed:
		return nil
	}
	return err
}
