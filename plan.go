package dianemo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A schedule's workflow is written as one job that is blocked by its gate, in the step
// that moves the schedule's cursor; so it exists exactly once. Its spec has the plan of
// its jobs. Whoever fired it then submits these and opens the gate; if that one dies, the
// leader finds the gate, which is due at once. That may be done twice, and by two at the
// same time: the jobs' ids are made of the workflow's, so they are there once, and all are
// there before the first of the two opens the gate.

// plan checks a workflow that is the body of a schedule, and makes the spec of its
// occurrences.
func (w *Workflow) plan(schedule string) (*Spec, error) {
	if w.ID != "" {
		return nil, &FieldError{"Schedule.Workflow: ID", w.ID, "none: it is OccurrenceID"}
	}
	for _, j := range w.jobs {
		if o := j.request.options; !o.RunAt.IsZero() {
			return nil, j.fails(&FieldError{"Schedule.Workflow: Options.RunAt", o.RunAt, "none: the rule says it"})
		} else if len(o.Parents) > 0 {
			return nil, j.fails(&FieldError{"Schedule.Workflow: Options.Parents", o.Parents[0].ID, "none: a job outside would be the parent of each occurrence"})
		}
	}
	made := *w
	made.ID = OccurrenceID(schedule, time.UnixMilli(1)) + "-00000000" // none is longer
	_, requests, err := made.requests(MaxWorkflow)
	if err != nil {
		return nil, err
	}
	if _, err := members(requests); err != nil {
		return nil, err
	}
	own, err := w.spec()
	if err != nil {
		return nil, err
	}
	size := 0
	for _, j := range w.jobs {
		spec, err := j.request.spec()
		if err != nil {
			return nil, j.fails(err)
		}
		spec.Name, spec.Parents = j.name, withConditions(j.parents)
		if len(j.parents) == 0 && spec.Grace >= 0 && (own.Grace < 0 || spec.Grace < own.Grace) {
			own.Grace = spec.Grace
		}
		own.Plan = append(own.Plan, EncodeSpec(spec))
		size += len(own.Plan[len(own.Plan)-1])
	}
	if size > MaxPayload {
		return nil, &FieldError{"Schedule.Workflow", fmt.Sprintf("%d bytes of jobs", size), fmt.Sprintf("%d bytes at most", MaxPayload)}
	}
	return own, nil
}

// workflow is the one of which this is the plan.
func (s *Spec) workflow() (*Workflow, error) {
	var args workflowArgs
	if err := json.Unmarshal(s.Args, &args); err != nil {
		return nil, fmt.Errorf("%w: %w", errSpecCorrupt, err)
	}
	w := NewWorkflow(strings.TrimPrefix(s.Kind, workflowPrefix))
	w.Spread = args.Spread
	for _, b := range s.Plan {
		job, err := DecodeSpec(b)
		if err != nil {
			return nil, err
		}
		w.Add(job.Name, job.request()).parents = job.Parents
	}
	if len(w.jobs) != args.Jobs {
		return nil, fmt.Errorf("%w: %d of %d jobs", errSpecCorrupt, len(w.jobs), args.Jobs)
	}
	_, err := w.check(MaxWorkflow)
	return w, err
}

// request is the one that this was made of, but for when it is due.
func (s *Spec) request() Request {
	return Request{kind: s.Kind, args: json.RawMessage(s.Args), policy: Policy{Priority: s.Priority, Grace: s.Grace},
		options: Options{Weight: s.Weight, Timeout: s.Timeout, Retries: s.Retries, Reruns: s.Reruns, Headers: s.Headers}}
}

// prioritize gives all jobs of the plan this priority.
func (s *Spec) prioritize(priority int) error {
	for i, b := range s.Plan {
		job, err := DecodeSpec(b)
		if err != nil {
			return err
		}
		job.Priority = priority
		s.Plan[i] = EncodeSpec(job)
	}
	return nil
}

// A planned workflow is one that a schedule has made, and whose jobs are not there yet.
type planned struct {
	id   string
	spec *Spec
}

// planOf reports whether a spec is that of a workflow that a schedule has made.
func planOf(spec *Spec) bool { return IsWorkflow(spec.Kind) && spec.Schedule != "" }

// unfoldSoon unfolds workflows of a partition without anyone waiting for it.
func (c *Client) unfoldSoon(partition int, flows []planned) {
	if len(flows) > 0 {
		c.sends.Go(func() { c.unfoldAll(c.ctx, partition, flows) })
	}
}

// unfoldAll unfolds those that this process is not unfolding already. What can't be
// unfolded now is left to the leader.
func (c *Client) unfoldAll(ctx context.Context, partition int, flows []planned) {
	box := (*c.boxes.Load())[partition]
	box.mu.Lock()
	flows = slices.DeleteFunc(slices.Clone(flows), func(f planned) bool { return box.unfolding[f.id] })
	if box.unfolding == nil {
		box.unfolding = map[string]bool{}
	}
	for _, f := range flows {
		box.unfolding[f.id] = true
	}
	box.mu.Unlock()
	for _, f := range flows {
		err := c.unfold(ctx, f)
		if err != nil && ctx.Err() == nil {
			c.logger.Warn("the jobs of a schedule's workflow could not be submitted; the leader tries again", "workflow", f.id, "err", err)
		}
		box.mu.Lock()
		delete(box.unfolding, f.id)
		box.mu.Unlock()
	}
}

// unfold submits the jobs of a workflow that a schedule has made, as far as they are not
// there yet, and opens its gate. One whose plan can't be read, or one of whose jobs is
// another one's, is given up.
func (c *Client) unfold(ctx context.Context, p planned) error {
	f, err := c.unfolded(p)
	if errors.Is(err, errSpecNewer) {
		return err
	}
	if err == nil {
		err = f.fill(ctx)
	}
	if errors.Is(err, ErrMoved) { // since its gate is open, or was voided
		err = cmp.Or(f.join(ctx, nil), err)
	}
	opened := false
	if err == nil {
		opened, err = f.turn(ctx, Open)
	}
	switch {
	case opened:
		return nil
	case err == nil || errors.Is(err, errTurned):
		return f.clear(ctx)
	case errors.Is(err, ErrInvalid), errors.Is(err, errSpecCorrupt), errors.Is(err, ErrExists):
		c.logger.Error("a schedule's workflow can't be submitted; it is cancelled", "workflow", p.id, "err", err)
		f.by = 0 // whoever was to tell
		_, err := f.turn(ctx, Void)
		return err
	}
	return err
}

// unfolded are the workflow's jobs. Those without parents are due when it is.
func (c *Client) unfolded(p planned) (*family, error) {
	var jobs []Record
	w, err := p.spec.workflow()
	if err == nil {
		w.ID, w.schedule, w.at, w.due = p.id, p.spec.Schedule, p.spec.At, p.spec.RunAt
		var requests []Request
		if _, requests, err = w.requests(MaxWorkflow); err == nil {
			jobs, err = members(requests)
		}
	}
	f := c.family(p.id, jobs)
	f.shared = true
	f.sign(p.spec.Teller)
	return f, err
}

// clear is for who comes late: another has opened the gate meanwhile, or voided it. Jobs
// that had ended and been let go of by then may have been added once more: they are those
// that still wait for the gate when all others have heard of it.
func (f *family) clear(ctx context.Context) error {
	if len(f.added) == 0 {
		return nil
	}
	if err := f.deliverUntilNow(ctx, f.store.Partition(f.workflow)); err != nil {
		return err
	}
	var voids []Release
	for some := range slices.Chunk(f.added, depsCall) {
		standings, err := f.store.Standings(ctx, some)
		if err != nil {
			return err
		}
		for i, id := range some {
			if standings[i] == (Standing{State: Blocked}) { // and not since it is to be run again
				voids = append(voids, Release{Child: id, State: Void, Teller: f.by})
			}
		}
	}
	_, err := f.releaseAll(ctx, &f.calls, voids)
	return err
}

// plannedOf finds the workflows of schedules among jobs whose gates are closed. The
// others, whose enqueue was never finished, it returns as what voids them.
func (c *Client) plannedOf(ctx context.Context, ids []string) (flows []planned, voids []Release, err error) {
	for some := range slices.Chunk(ids, 20) { // plans may be large
		specs, err := c.store.Specs(ctx, some)
		if err != nil {
			return nil, nil, err
		}
		for i, id := range some {
			spec, err := DecodeSpec(specs[i])
			switch {
			case errors.Is(err, errSpecNewer):
			case err == nil && planOf(spec):
				flows = append(flows, planned{id, spec})
			default:
				voids = append(voids, Release{Child: id, State: Void})
			}
		}
	}
	return flows, voids, nil
}

// followEnds fires the schedules that wait for the end of these workflows.
func (c *Client) followEnds(partition int, ids []string) {
	c.sends.Go(func() {
		specs, err := c.store.Specs(c.ctx, ids)
		var names []string
		for _, b := range specs {
			if spec, err := DecodeSpec(b); err == nil && spec.Follow {
				names = append(names, spec.Schedule)
			}
		}
		if err == nil && len(names) > 0 {
			slices.Sort(names)
			err = c.fireNamed(c.ctx, partition, slices.Compact(names)...)
		}
		if err != nil && c.ctx.Err() == nil {
			c.logger.Debug("schedules that waited were not fired at once; the leader does it", "err", err)
		}
	})
}

// flowsOf are the workflows that were made by firings.
func flowsOf(firings []Firing, reply FireReply) []planned {
	var flows []planned
	for i, fired := range reply.Fired {
		for j, state := range fired.States {
			if state != Blocked {
				continue
			}
			o := &firings[i].Occurrences[j]
			if spec, err := DecodeSpec(o.Spec); err == nil { // it was just encoded
				flows = append(flows, planned{o.ID, spec})
			}
		}
	}
	return flows
}

// acceptOccurrences adds occurrences of one schedule out of turn.
func (c *Client) acceptOccurrences(ctx context.Context, records []Record) []error {
	if len(records) == 0 || !records[0].Blocked {
		return c.acceptAll(ctx, records)
	}
	errs := make([]error, len(records))
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return slices.Repeat([]error{err}, len(records))
	}
	defer done()
	var flows []planned
	for i, r := range records {
		spec, err := DecodeSpec(r.Spec)
		if err != nil {
			errs[i] = err
			continue
		}
		p := planned{r.ID, spec}
		f, err := c.unfolded(p)
		if err == nil {
			err = f.outside(ctx)
		}
		if err == nil {
			r.RunAt = time.Time{} // its jobs'
			err = f.begin(ctx, r)
		}
		if err == nil {
			flows = append(flows, p)
		}
		errs[i] = err
	}
	c.unfoldAll(ctx, c.store.Partition(records[0].ID), flows)
	return errs
}
