package redisstore_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dianemo/dianemo"
)

// The moves of a walk, held against the state table.

// modelEdges says which edges a call may take, in this order. Those that are missing move no job.
var modelEdges = map[string][]dianemo.Edge{
	"enqueue": {dianemo.EdgeEnqueue}, "turn": {dianemo.EdgeSettle, dianemo.EdgeClaim}, "release": {dianemo.EdgeRelease},
	"reap": {dianemo.EdgeReap}, "miss": {dianemo.EdgeMiss}, "overdue": {dianemo.EdgeMiss}, "cancel": {dianemo.EdgeCancel},
	"requeue": {dianemo.EdgeRequeue}, "reschedule": {dianemo.EdgeReschedule}, "fire": {dianemo.EdgeFire},
}

// moves compares where each job stands with where it stood before the step: what moved it
// must be in the table. Jobs that are let go of are in none.
func (w *modelWalk) moves(name string) {
	name = strings.TrimSuffix(name, " again")
	before := w.stood
	w.stood = make(map[string]dianemo.State, len(before))
	for _, p := range w.model.parts {
		for id, j := range p.jobs {
			w.stood[id] = j.state
			if was := before[id]; was != j.state {
				w.move(name, j, was)
			}
		}
	}
}

func (w *modelWalk) move(name string, j *modelJob, was dianemo.State) {
	table := dianemo.Edges
	if j.flow() {
		table = dianemo.WorkflowEdges
	}
	for _, edge := range modelEdges[name] {
		if slices.Contains(table[was][edge], j.state) {
			w.did[fmt.Sprintf("move %s -%s-> %s%s", was, edge, j.state, flowMark(j))]++
			return
		}
	}
	// A turn settles and claims; and of two jobs of one call the second may replace the first.
	for _, first := range modelEdges[name] {
		for _, between := range table[was][first] {
			for _, second := range modelEdges[name] {
				if slices.Contains(table[between][second], j.state) {
					return
				}
			}
		}
	}
	w.fail("%s has moved job %s from %q to %q, which is not in the table", name, j.id, was, j.state)
}

func flowMark(j *modelJob) string {
	if j.flow() {
		return " (workflow)"
	}
	return ""
}
