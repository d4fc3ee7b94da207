package audit

import (
	"strings"

	"github.com/dianemo/dianemo"
)

// leaves reports whether a parent's children, or a workflow's jobs, are yet to be told of it.
func (a *audit) leaves(family string) bool {
	_, ok := a.partOf(strings.TrimSuffix(family, "#")).key("outbox").zset[family]
	return ok
}

func (a *audit) knows(parent, child string) bool {
	edges := a.partOf(parent).edges
	return edges[edge{parent: parent, child: child}] || edges[edge{parent: parent, child: child, member: true}]
}

func (n *needs) tell(format string, args ...any) {
	n.found("needs", "job "+n.id+": "+format, args...)
}

// check holds what a job waits for against its numbers, its state, and those for whom it waits.
func (n *needs) check() {
	j := n.jobs[n.id]
	if !j.exists() {
		n.checkAbsent()
		return
	}
	if n.wrong || j.record == nil || j.record.reason == "corrupt" {
		return // of which more is said elsewhere
	}
	state, flow := j.state(), j.record.base.workflow()
	s, ok := parseSum(n.sum)
	if !ok {
		if state == dianemo.Blocked {
			n.tell("it has no numbers")
		}
		return
	}
	if state != dianemo.Blocked && state != dianemo.Skipped && !flow {
		return // it has gone on; what it waited for goes when its parents do
	}
	if is := n.count(s.by); is != s {
		n.tell("its numbers are %s, and counted %+v", n.sum, is)
		return
	}
	if n.gate == "g" {
		if state == dianemo.Blocked {
			n.checkGate(j)
		}
		return
	}
	if n.gate != "" || j.reason() == "gate" {
		return
	}
	if state == dianemo.Blocked && (s.pending <= s.violated || !flow && s.violated > s.left) {
		n.tell("it is blocked, and nothing is left to wait for: %s", n.sum)
	}
	for parent, h := range n.hows {
		if h.by == s.by {
			n.checkHow(j, parent, h)
		}
	}
	if state == dianemo.Blocked {
		n.checkAbsentParents(j)
	}
}

// count is what the numbers must be.
func (n *needs) count(by string) sum {
	is := sum{by: by}
	if n.gate != "" {
		is.pending++
	}
	for _, h := range n.hows {
		if h.by != by {
			continue // said by one who did not enqueue the job
		}
		if h.mark != "+" {
			is.pending++
		}
		if h.mark == "!" || h.mark == "?" {
			is.violated++
		}
		if h.mark == "?" {
			is.left++
		}
		if h.mark == "+" && h.letter == "c" {
			is.out++
		}
	}
	return is
}

// checkGate: someone opens each gate.
func (n *needs) checkGate(j *job) {
	if _, ok := n.key("gates").zset[n.id]; ok || j.spec == nil {
		return
	}
	workflow := j.spec.workflow
	if workflow == "" {
		n.tell("its gate is closed for ever")
		return
	}
	p := n.partOf(workflow)
	its := n.audit.needs[workflow]
	switch closed := its != nil && its.gate != ""; {
	case n.leaves(workflow + "#"):
	case !closed:
		n.tell("it was not told of the gate of its workflow %s", workflow)
	case !p.edges[edge{parent: workflow, child: n.id, listed: true}]:
		n.tell("its workflow %s does not know of it", workflow)
	}
}

// checkHow: what a job was told of a parent is how that stands, or it is about to be told.
func (n *needs) checkHow(j *job, parent string, h how) {
	p := n.partOf(parent)
	other := p.jobs[parent]
	flow := j.record.base.workflow()
	if flow != (h.letter == "m") {
		n.tell("it waits for %s in a way that it can't: %q", parent, h.letter)
		return
	}
	if f := kidsForm.FindStringSubmatch(p.key("kids").hash[parent]); f != nil {
		if number, _, _ := strings.Cut(f[0], "|"); h.at > whole(number) {
			n.tell("it was told of %s by number %d, and that is at %s", parent, h.at, number)
		}
	}
	if n.leaves(parent) || other != nil && other.meta != "" && other.record == nil {
		return
	}
	blocked, lives := j.state() == dianemo.Blocked, other.lives()
	switch {
	case flow:
		if want := markOf(other); h.mark != want {
			n.tell("it was told of %s %q, and that is %s", parent, h.mark, other.state())
		}
	case blocked && h.mark == "" && !lives:
		n.tell("it waits for %s, which is %q", parent, other.state())
	case h.mark != "" && lives && n.knows(parent, n.id):
		n.tell("it was told that %s has ended, and that is %s", parent, other.state())
	}
	if (blocked || flow) && other.exists() && !n.knows(parent, n.id) {
		n.tell("%s does not know of it", parent)
	}
}

// markOf is what a workflow must have been told of its job.
func markOf(j *job) string {
	switch j.state() {
	case dianemo.Cancelled:
		return "?"
	case "", dianemo.Succeeded, dianemo.Skipped:
		return "+"
	case dianemo.Failed, dianemo.Missed, dianemo.Unreachable:
		return "!"
	}
	return ""
}

// checkAbsentParents: what has ended as it should is removed. So nobody is missing who was never
// even claimed.
func (n *needs) checkAbsentParents(j *job) {
	if j.spec == nil {
		return
	}
	for parent := range j.spec.parents {
		other := n.audit.jobs[parent]
		if _, ok := n.hows[parent]; !ok && other.exists() && other.meta == "" && n.knows(parent, n.id) {
			n.tell("it does not wait for %s, which was never claimed", parent)
		}
	}
	if !j.record.base.workflow() {
		return
	}
	for e := range n.edges {
		other := n.audit.jobs[e.child]
		if _, ok := n.hows[e.child]; !ok && e.listed && e.parent == n.id && other.exists() && other.spec != nil && other.spec.workflow == n.id && n.knows(e.child, n.id) {
			n.tell("it does not wait for its job %s", e.child)
		}
	}
}

// checkAbsent is for a job that is not there, or not yet.
func (n *needs) checkAbsent() {
	if n.gate != "" {
		if _, ok := n.key("gates").zset[n.id]; !ok {
			n.left("needs", "job %s, which does not exist, waits for a gate", n.id)
		}
		return
	}
	for parent := range n.hows {
		if n.knows(parent, n.id) {
			return // until that is let go of
		}
	}
	n.left("needs", "job %s, which does not exist, waits", n.id)
}
