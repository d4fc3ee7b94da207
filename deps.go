package dianemo

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A child is blocked until its parents have ended as it wants. What it waits for
// stands in its own partition; that it waits, in each parent's. A parent that ends
// goes into its partition's outbox, in the same script; from there its children are
// told, bit by bit, by whoever ended it, and else by the leader: at least once, and
// it counts once (heirs.go). While a child is on its way into the store its gate is
// closed, so that nothing moves it before all is there (family.go). A workflow waits
// for its jobs in the same way (workflow.go).

// A Parent is a job that has to end before another one starts. Make it with
// [After], [AfterFailure] or [AfterEnd].
type Parent struct {
	ID string
	On Condition
	// MayBeGone accepts a parent that does not exist, for example since retention has
	// let go of it, as one that has ended as it should. Otherwise the job is refused
	// with a [ParentGoneError].
	MayBeGone bool
	// Near keeps the job for the peer that ran this parent, for example for the files
	// that it left there: once released, it is due after this time, and only that peer
	// may start it before, as soon as it has tokens. Nobody cuts the time short, also
	// if that peer is gone, drained or has no handler for it. At most an hour. If
	// several parents have it, the one that ended last counts. After a requeue of
	// the child alone, the job runs anywhere.
	Near time.Duration
}

// A Condition is how a parent must end.
type Condition string

const (
	OnSuccess Condition = "success" // the default
	OnFailure Condition = "failure" // it failed, was missed, cancelled, skipped (but not left out by a decision) or became unreachable
	OnEnd     Condition = "end"     // however
	// OnChosen: it succeeded, or a decision left it out. If all parents were left out,
	// so is the child.
	OnChosen Condition = "chosen"
	// OfWorkflow is how a workflow waits for its jobs. No job can.
	OfWorkflow Condition = "member"
)

// After are parents that must succeed. If one ends otherwise, the child is skipped,
// and its own children in turn; if that one is requeued, they wait
// again.
func After(ids ...string) []Parent { return parentsOf(OnSuccess, ids) }

// AfterFailure are parents of a job that makes good for their failure. If one
// succeeds, it is skipped.
func AfterFailure(ids ...string) []Parent { return parentsOf(OnFailure, ids) }

// AfterEnd are parents that must have ended, however.
func AfterEnd(ids ...string) []Parent { return parentsOf(OnEnd, ids) }

// AfterChosen are parents that must succeed, unless a decision left them out: see
// [Job.Choose]. So a job can come after the branches of a decision.
func AfterChosen(ids ...string) []Parent { return parentsOf(OnChosen, ids) }

func parentsOf(on Condition, ids []string) []Parent {
	parents := make([]Parent, len(ids))
	for i, id := range ids {
		parents[i] = Parent{ID: id, On: on}
	}
	return parents
}

// ParentResult decodes the result of one of a job's parents, from within its handler.
// In a workflow the parent may be given by its name. It returns [ErrNotFound] if that parent
// has none, or is gone, and a [FieldError] for a job that is not its parent.
func ParentResult[R, Args any](ctx context.Context, job *Job[Args], parent string) (R, error) {
	var none R
	names := func(id string) bool {
		return slices.ContainsFunc(job.Parents, func(p Parent) bool { return p.ID == id })
	}
	ids := []string{parent}
	if in := job.in(parent); in != "" {
		ids = []string{in, parent}
	}
	at := slices.IndexFunc(ids, names)
	for i := 0; at < 0 && i < len(ids) && job.run != nil && job.run.spec.Many > 0; i++ {
		child, err := job.run.partition.peer.store.IsChild(ctx, ids[i], job.ID)
		if err != nil {
			return none, fmt.Errorf("dianemo: result of parent %s: %w", parent, err)
		}
		if child {
			at = i
		}
	}
	if at < 0 {
		return none, &FieldError{"ParentResult(parent)", parent, "one of the job's parents"}
	}
	parent = ids[at]
	if job.run == nil {
		return none, fmt.Errorf("dianemo: result of parent %s: %w", parent, ErrNotFound)
	}
	info, err := job.run.partition.peer.Get(ctx, parent)
	if err != nil {
		return none, err
	}
	return ResultOf[R](info)
}

var conditions = []Condition{OnSuccess, OnFailure, OnEnd, OnChosen}

const maxNear = time.Hour

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
		case p.On != "" && !slices.Contains(conditions, p.On):
			return &FieldError{field + ".On", string(p.On), "OnSuccess, OnFailure, OnEnd or OnChosen"}
		case p.Near < 0 || p.Near > maxNear:
			return &FieldError{field + ".Near", p.Near, "a positive duration of at most an hour, or 0"}
		case p.Near > 0 && !o.RunAt.IsZero():
			return &FieldError{field + ".Near", p.Near, "0 where RunAt is set"}
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
