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
	// the workflow exists once, for as long as it or one of its jobs is kept. The ids of its jobs are made
	// of it and their names, and must not have more than 128 characters.
	ID string
	// Spread puts the jobs into all partitions of the store. Otherwise they stand
	// together in one, which is quicker for small ones.
	Spread bool

	name string
	jobs []*WorkflowJob

	// Where a schedule has made it: its name, the instant of its rule, and when the jobs
	// without parents are due.
	schedule string
	at, due  time.Time
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
// of the workflow, but neither ID, Delay nor Unique.
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

// memberName is the name of a workflow's job, or the id of another one.
func memberName(workflow, id string, spread bool) string {
	switch {
	case workflow == "":
		return id
	case spread:
		return strings.TrimSuffix(id, "/"+workflow)
	}
	return strings.TrimPrefix(id, workflow+"@")
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

// spreads reports whether a workflow's jobs are spread, by its own job.
func (i *JobInfo) spreads() bool {
	var args workflowArgs
	return json.Unmarshal(i.Args, &args) == nil && args.Spread
}

// Members is how many jobs a workflow has, by the spec of its own job; 0 for other jobs.
func (s *Spec) Members() int {
	var args workflowArgs
	if !IsWorkflow(s.Kind) || json.Unmarshal(s.Args, &args) != nil {
		return 0
	}
	return max(args.Jobs, 0)
}

// requests checks the workflow and makes what one submission asks for: its own job, and
// the others.
func (w *Workflow) requests(limit int) (own Record, jobs []Request, err error) {
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
	jobs = make([]Request, len(w.jobs))
	for i, j := range w.jobs {
		request := j.request
		o := &request.options
		if o.ID != "" || o.Unique.Key != "" {
			return own, nil, j.fails(&FieldError{"Options.ID, Options.Unique", inherit(o.ID, o.Unique.Key), "empty in a workflow: the job's id is made of the workflow's and its name"})
		}
		if o.Delay != 0 {
			return own, nil, j.fails(&FieldError{"Options.Delay", o.Delay, "0 in a workflow; RunAt may be set"})
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
		if request.schedule, request.at = w.schedule, w.at; len(j.parents) == 0 && !w.due.IsZero() {
			o.RunAt = w.due
		}
		if most > 1 {
			request.ahead = float64(longest[i]-1) / float64(most-1)
		}
		jobs[i] = request
	}
	spec, err := w.spec()
	if err != nil {
		return own, nil, err
	}
	own = Record{ID: id, Lane: spec.Lane(), Blocked: true, Spec: EncodeSpec(spec)}
	return own, jobs, nil
}

// spec is that of the workflow's own job.
func (w *Workflow) spec() (*Spec, error) {
	args, err := json.Marshal(workflowArgs{len(w.jobs), w.Spread})
	return &Spec{Kind: workflowPrefix + w.name, Priority: 2, Grace: Unlimited, Args: args}, err
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
//   - [ExistsError]: there is a workflow with this ID, or it is being submitted, or a job with
//     the id of one of its jobs.
//   - [ErrStoreFull], the context's error, [ErrClosed], [ErrLayout], [ErrMoved], [ErrGivenUp]:
//     nothing of it will run. What had been written of it ends cancelled, with the reason
//     gate or workflow: at once or, if this process dies or can't reach Redis, after ten minutes.
//     From then on it may be submitted again, under the same ID.
//   - with [ErrUnconfirmed] among them: it is not known whether it was accepted. Nor is
//     whether there is a gate left to be voided, if it was not.
//
// While Redis can't be reached it waits and tries again until ctx ends.
// WrapEnqueue is put around it with the requests of its jobs, in the order in which they
// were added; it must pass on as many.
func (c *Client) Submit(ctx context.Context, workflow *Workflow) (string, error) {
	own, jobs, err := workflow.requests(c.maxWorkflow)
	if err != nil {
		return "", err
	}
	if c.around == nil {
		return own.ID, c.submit(ctx, submission{own, len(jobs), new(bool)}, jobs)
	}
	s := &submission{own, len(jobs), new(bool)}
	for i := range jobs {
		jobs[i].submission = s
	}
	if _, err = c.around(ctx, jobs); err == nil && !*s.came {
		err = &FieldError{"WrapEnqueue", "nothing", "that it calls next, or returns an error"}
	}
	return own.ID, err
}

// A submission is what a workflow's requests belong to on their way through WrapEnqueue.
type submission struct {
	own  Record
	jobs int
	came *bool // set when it has come through
}

func (c *Client) submit(ctx context.Context, s submission, requests []Request) error {
	if len(requests) != s.jobs {
		return &FieldError{"WrapEnqueue", fmt.Sprintf("%d requests", len(requests)), fmt.Sprintf("as many as the workflow has jobs, %d", s.jobs)}
	}
	jobs, err := members(requests)
	if err != nil {
		return err
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	*s.came = true // or refused: next was called
	f := c.family(s.own.ID, jobs)
	if err := f.circles(); err != nil {
		return err
	}
	if err := f.outside(ctx); err != nil {
		return f.refused(ctx, err)
	}
	if err := f.begin(ctx, s.own); err != nil {
		return f.refused(ctx, err)
	}
	if err := f.fill(ctx); err != nil && !errors.Is(err, errTurned) {
		_, _ = f.void(ctx) // it has said what went wrong
		return f.refused(ctx, err)
	}
	opened, err := f.turn(ctx, Open)
	if err != nil {
		// It may have been opened.
		closed, voided := f.void(ctx)
		switch {
		case voided != nil:
			return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
		case closed:
			return f.refused(ctx, err)
		}
		return nil
	}
	if !opened {
		return errors.Join(fmt.Errorf("%w: %s", ErrGivenUp, f.workflow), f.withdraw(ctx, f.workflow, f.by, false, &f.calls))
	}
	return nil
}

// members are a workflow's jobs.
func members(requests []Request) ([]Record, error) {
	jobs := make([]Record, len(requests))
	for i := range requests {
		var err error
		if jobs[i], err = requests[i].record(); err != nil {
			return nil, fmt.Errorf("job %q of the workflow: %w", requests[i].name, err)
		}
		jobs[i].Blocked = true // by the gate
	}
	return jobs, nil
}

// refused is what kept a workflow from being accepted, of which that is certain.
func (f *family) refused(ctx context.Context, err error) error {
	if errors.Is(err, ErrUnconfirmed) && ctx.Err() != nil {
		return fmt.Errorf("dianemo: workflow %s was not accepted: %w", f.workflow, context.Cause(ctx))
	}
	return err
}

// begin adds the workflow's own job, with its gate closed. Of several that submit the same
// id, one goes on. Where an earlier submission was given up, this one takes its place.
func (f *family) begin(ctx context.Context, own Record) error {
	partition := f.store.Partition(own.ID)
	if err := f.needAll(ctx, TellIt, map[int][]Wait{partition: {{ID: own.ID, Gate: OwnGate}}}); err != nil {
		return err
	}
	own.Teller = f.by
	if err := f.acceptTold(ctx, []Record{own})[0]; err != nil {
		if errors.Is(err, ErrUnconfirmed) {
			_, _ = f.void(ctx) // it has said what went wrong
		}
		return err
	}
	for {
		var ids []string
		err := f.insist(ctx, "submit", func() (err error) {
			ids, err = f.store.Members(ctx, own.ID, "", depsCall)
			return err
		})
		if err == nil && len(ids) == 0 {
			return nil
		}
		if err == nil {
			err = f.expunge(ctx, ids)
		}
		if err != nil {
			_, _ = f.void(ctx) // it has said what went wrong
			return err
		}
	}
}

// expunge removes what is left of an earlier submission's jobs.
func (f *family) expunge(ctx context.Context, ids []string) error {
	ties, parts := make([]Tie, len(ids)), map[int][]string{}
	for i, id := range ids {
		p := f.store.Partition(id)
		ties[i], parts[p] = Tie{f.workflow, id}, append(parts[p], id)
	}
	for p, some := range parts {
		if err := f.insist(ctx, "submit", func() error { return f.store.Expunge(ctx, p, f.by, some) }); err != nil {
			return err
		}
	}
	return f.insist(ctx, "submit", func() error {
		_, err := f.store.Link(ctx, f.store.Partition(f.workflow), Delist, ties)
		return err
	})
}

// circles looks for jobs that would wait for each other because of parents that were given
// by their ids.
func (f *family) circles() error {
	for _, r := range f.records {
		if slices.ContainsFunc(r.Parents, func(p Parent) bool { return p.ID == f.workflow }) {
			return &FieldError{"Options.Parents", f.workflow, "other jobs than the workflow itself, which waits for its jobs"}
		}
	}
	cycle := findCycle(f.records)
	if cycle == nil {
		return nil
	}
	for i, id := range cycle {
		if spec, err := DecodeSpec(f.records[f.place[id]].Spec); err == nil && spec.Workflow != "" {
			cycle[i] = spec.Name
		}
	}
	return &CycleError{cycle}
}

// outside checks that the parents that are not in the workflow exist, and that its jobs
// do not.
func (f *family) outside(ctx context.Context) error {
	var ids []string
	var children []int // -1: it is a job of the workflow
	for i, r := range f.records {
		ids, children = append(ids, r.ID), append(children, -1)
		for _, p := range r.Parents {
			if _, here := f.place[p.ID]; !here && !p.MayBeGone {
				ids, children = append(ids, p.ID), append(children, i)
			}
		}
	}
	var there []string
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
			switch child := children[from+i]; {
			case child >= 0 && s.State == "":
				return &ParentGoneError{f.records[child].ID, some[i]}
			case child < 0 && s.State != "":
				there = append(there, some[i])
			}
		}
	}
	if len(there) == 0 {
		return nil
	}
	// It is in the way, unless it is left of a submission that was given up.
	var standings []Standing
	err := f.insist(ctx, "submit", func() (err error) {
		standings, err = f.store.Standings(ctx, []string{f.workflow, there[0]})
		return err
	})
	if err != nil {
		return err
	}
	switch own := standings[0]; {
	case own.State == Cancelled && own.Reason == "gate":
		return nil
	case own.State != "":
		return &ExistsError{ID: f.workflow, State: own.State}
	}
	return &ExistsError{ID: there[0], State: standings[1].State}
}

// errTurned: a workflow's gate is not closed any more, so it takes no more jobs.
const errTurned = storeError("dianemo: the workflow's gate is not closed")

// fill puts the workflow's jobs into the store, behind its gate. What is there already,
// because it was tried before, is left as it is. It returns errTurned if the gate is not
// closed.
func (f *family) fill(ctx context.Context) error {
	partition := f.store.Partition(f.workflow)
	for some := range slices.Chunk(f.records, depsCall) {
		ties := make([]Tie, len(some))
		jobs := make([]Parent, len(some))
		for i, r := range some {
			ties[i], jobs[i] = Tie{f.workflow, r.ID}, Parent{ID: r.ID, On: OfWorkflow}
		}
		err := f.insist(ctx, "submit", func() error {
			_, err := f.store.Link(ctx, partition, Enlist, ties)
			f.mended(partition, err)
			return err
		})
		if err != nil {
			return err
		}
		if err := f.join(ctx, jobs); err != nil {
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
	var there []string
	for i, err := range f.errs {
		if errors.Is(err, ErrExists) {
			there = append(there, f.records[i].ID)
		} else if err != nil {
			return err
		}
	}
	if err := f.strangers(ctx, there); err != nil {
		return err
	}
	_, err := f.releaseAll(ctx, &f.calls, f.released)
	return err
}

// join has the workflow wait for these jobs, or returns errTurned.
func (f *family) join(ctx context.Context, jobs []Parent) error {
	return f.needAll(ctx, JoinIt, map[int][]Wait{f.store.Partition(f.workflow): {{ID: f.workflow, Parents: jobs}}})
}

// strangers looks for jobs that have the ids of the workflow's and are not its own. They are
// no more of the workflow, so that they are not cancelled with it. While the gate is closed,
// its own are blocked.
func (f *family) strangers(ctx context.Context, ids []string) error {
	for some := range slices.Chunk(ids, depsCall) {
		var specs [][]byte
		var standings []Standing
		err := f.insist(ctx, "submit", func() (err error) {
			if specs, err = f.store.Specs(ctx, some); err == nil {
				standings, err = f.store.Standings(ctx, some)
			}
			return err
		})
		if err != nil {
			return err
		}
		for i, id := range some {
			if spec, err := DecodeSpec(specs[i]); err == nil && spec.Workflow == f.workflow && standings[i].State == Blocked {
				continue // it was tried before
			}
			if err := f.join(ctx, nil); err != nil {
				return err
			}
			err := f.insist(ctx, "submit", func() error {
				_, err1 := f.store.Link(ctx, f.store.Partition(f.workflow), Delist, []Tie{{f.workflow, id}})
				_, err2 := f.store.Link(ctx, f.store.Partition(id), Unlink, []Tie{{id, "|" + f.workflow}})
				return errors.Join(err1, err2)
			})
			return errors.Join(&ExistsError{ID: id, State: standings[i].State}, err)
		}
	}
	return nil
}

// turn opens the workflow's gate, or voids it. It reports whether there was a closed one.
func (f *family) turn(ctx context.Context, gate State) (bool, error) {
	f.calls.Number++
	partition := f.store.Partition(f.workflow)
	var reply ReleaseReply
	err := f.insist(ctx, "submit", func() (err error) {
		reply, err = f.store.Release(ctx, partition, f.calls, []Release{{Child: f.workflow, State: gate, Teller: f.by}})
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

// void gives the workflow up, unless its gate is open. It reports whether it was closed.
// Its jobs are cancelled as those of a cancelled one are.
func (f *family) void(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), voidFor)
	defer cancel()
	closed, err := f.turn(ctx, Void)
	if err != nil {
		f.logger.Debug("a workflow that was not submitted could not be given up; the leader does it in ten minutes", "workflow", f.workflow, "err", err)
	} else if closed {
		if err := f.need(ctx, ForgetIt, nil); err != nil {
			f.logger.Debug("what jobs were to wait for was not forgotten; repair does it", "workflow", f.workflow, "err", err)
		}
	}
	return closed, err
}
