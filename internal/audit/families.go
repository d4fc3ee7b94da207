package audit

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/dianemo/dianemo"
)

// An edge is from a job to its child; from a job to its workflow, in which it is a member; or, as
// a list, from a workflow to its job.
type edge struct {
	parent, child string
	listed        bool // workflow#job
	member        bool // job||workflow
}

var edgeParts = regexp.MustCompile(`^([^|#]+)([|#])(\|?)(.+)$`)

func parseEdge(s string) (edge, bool) {
	f := edgeParts.FindStringSubmatch(s)
	if f == nil {
		return edge{}, false
	}
	e := edge{f[1], f[4], f[2] == "#", f[3] != ""}
	return e, isName(e.parent) && isName(e.child) && !(e.listed && e.member)
}

// family is the name under which kids and the outbox have it.
func (e edge) family() string {
	if e.listed {
		return e.parent + "#"
	}
	return e.parent
}

// A how says in what way a job waits for another one.
type how struct {
	mark   string // ! ended otherwise, ? left out, + counts as done and may change
	letter string // s, f, a, c; m for a workflow's job
	at     int64  // number in kids that the parent had when it was told; 0: none
	by     string // who said so
}

var howForm = regexp.MustCompile(`^([!?+]?)([sfacm])\d{0,9}(?:@(\d{0,16}))?#(\d{0,16})$`)

// Needs are what one job waits for.
type needs struct {
	*part
	id    string
	gate  string // "", g, or g0: closed by repair
	sum   string
	hows  map[string]how
	wrong bool // something of it can't be read
}

// A sum is pending, violated, left, out of what a job waits for, and who said so.
type sum struct {
	pending, violated, left, out int64
	by                           string
}

var sumForm = regexp.MustCompile(`^(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9}),[01]#(\d{0,16})(?: \d{0,9} \S*)?$`)

func parseSum(s string) (sum, bool) {
	f := sumForm.FindStringSubmatch(s)
	if f == nil {
		return sum{}, false
	}
	return sum{whole(f[1]), whole(f[2]), whole(f[3]), whole(f[4]), f[5]}, true
}

func (p *part) gatherFamilies() {
	for name, score := range p.key("edges").zset {
		e, ok := parseEdge(name)
		if !ok {
			p.found("edges", "no edge is such: %.200q", name)
			continue
		}
		if score != 0 {
			p.found("edges", "%s has score %v", name, score)
		}
		if home := p.partOf(e.parent); home != p {
			p.found("edges", "%s belongs into partition %d", name, home.number)
		}
		p.edges[e] = true
	}
	for field, value := range p.key("needs").hash {
		child, parent, ok := strings.Cut(field, "|")
		if !ok || !isName(child) || parent != "" && parent != "|" && !isName(parent) {
			p.found("needs", "no field is such: %.200q", field)
			continue
		}
		if home := p.partOf(child); home != p {
			p.found("needs", "%s belongs into partition %d", field, home.number)
			continue
		}
		n := p.audit.needs[child]
		if n == nil {
			n = &needs{part: p, id: child, hows: map[string]how{}}
			p.audit.needs[child] = n
		}
		f := howForm.FindStringSubmatch(value)
		_, good := parseSum(value)
		switch {
		case parent == "" && (value == "g" || value == "g0"):
			n.gate = value
		case parent == "|" && good:
			n.sum = value
		case parent != "" && parent != "|" && f != nil:
			n.hows[parent] = how{f[1], f[2], whole(f[3]), f[4]}
		default:
			n.wrong = true
			p.found("needs", "%s is %.200q", field, value)
		}
	}
}

var kidsForm = regexp.MustCompile(`^\d{1,16}\|(\|?[0-9A-Za-z._/@+-]{1,128})?$`)

func (a *audit) checkFamilies() {
	for _, p := range a.parts {
		p.checkEdges()
		p.checkKids()
		p.checkGates()
		for id, j := range p.jobs {
			if j.state() == dianemo.Blocked && a.needs[id] == nil {
				p.found("needs", "job %s is blocked and waits for nothing", id)
			}
		}
	}
	for _, n := range a.needs {
		n.check()
	}
}

func (p *part) checkEdges() {
	kids := p.key("kids").hash
	for e := range p.edges {
		name := fmt.Sprintf("%s → %s", e.family(), e.child)
		if _, ok := kids[e.family()]; !ok {
			p.found("kids", "%s is not there, which has a child: %s", e.family(), name)
		}
		if p.jobs[e.parent].exists() {
			continue
		}
		child := p.audit.jobs[e.child]
		if n := p.audit.needs[e.child]; n != nil && n.gate != "" {
			continue // it is about to be said what became of the parent
		}
		if e.listed || !child.lives() {
			p.left("edges", "%s: the parent is gone, and nobody waits for it", name)
		}
	}
}

func (p *part) checkKids() {
	outbox := p.key("outbox").zset
	has := map[string]bool{}
	for e := range p.edges {
		has[e.family()] = true
	}
	kids := p.key("kids").hash
	for name, value := range kids {
		_, leaves := outbox[name]
		switch f := kidsForm.FindStringSubmatch(value); {
		case !isName(strings.TrimSuffix(name, "#")):
			p.found("kids", "no job is such: %.200q", name)
		case f == nil:
			p.found("kids", "%s is %.200q", name, value)
		case f[1] != "" && !leaves:
			p.found("kids", "%s was told as far as %s, and is not in the outbox", name, f[1])
		}
		if !has[name] {
			p.left("kids", "%.200s has no child", name)
		}
	}
	for name, since := range outbox {
		if _, ok := kids[name]; !ok {
			p.found("outbox", "%.200s has no child", name)
		}
		if !isTime(since) {
			p.found("outbox", "%.200s since %v", name, since)
		}
	}
}

func (p *part) checkGates() {
	for id, until := range p.key("gates").zset {
		if n := p.audit.needs[id]; n == nil || n.gate == "" {
			p.found("gates", "job %.200s waits for none", id)
		}
		if !isTime(until) {
			p.found("gates", "%.200s until %v", id, until)
		}
	}
}
