package dianemo

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Choose makes the job a decision: of its children only these go on when it has
// succeeded, and the others are left out. They are skipped, with the reason choice, and so
// are their own children, unless these come after others too and wait [AfterChosen]; a child
// that waits [AfterEnd] of the decision itself starts however it chose. Children are given by their
// names within the workflow, or by their ids; none: all are left out. The last call
// counts. It has no effect in a Job that a test made.
//
// Errors: a [FieldError] for one that is not its child; what kept the children from being
// read.
func (j *Job[Args]) Choose(ctx context.Context, children ...string) error {
	if j.run == nil {
		return nil
	}
	chosen, err := j.run.choose(ctx, children, j.in)
	if err != nil {
		return err
	}
	j.run.mu.Lock()
	defer j.run.mu.Unlock()
	j.run.decides, j.run.chosen = true, chosen
	return nil
}

// choose finds the children that are meant.
func (r *run) choose(ctx context.Context, names []string, in func(name string) string) ([]string, error) {
	chosen := make([]string, len(names))
	for i, name := range names {
		chosen[i] = inherit(in(name), name)
	}
	if size := len(strings.Join(chosen, " ")); size > MaxPayload/2 {
		return nil, &FieldError{"Choose(children)", fmt.Sprintf("%d bytes of ids", size), fmt.Sprintf("%d bytes at most", MaxPayload/2)}
	}
	var all []string
	err := r.partition.peer.children(ctx, r.id, func(child string) { all = append(all, child) })
	if err != nil {
		return nil, fmt.Errorf("dianemo: read the children of job %s: %w", r.id, err)
	}
	for i, name := range names {
		if _, there := slices.BinarySearch(all, chosen[i]); there {
			continue
		}
		if _, there := slices.BinarySearch(all, name); !there {
			return nil, &FieldError{"Choose(children)", name, "the job's children: " + r.named(all)}
		}
		chosen[i] = name
	}
	return chosen, nil
}

// named lists some of the job's children, by their names where they have some.
func (r *run) named(children []string) string {
	spread := r.id != memberID(r.spec.Workflow, r.spec.Name, false)
	var names []string
	for _, child := range children {
		if strings.HasPrefix(child, "|") {
			break // its workflows
		}
		if len(names) == 10 {
			names = append(names, "…")
			break
		}
		names = append(names, memberName(r.spec.Workflow, child, spread))
	}
	return strings.Join(names, ", ")
}
