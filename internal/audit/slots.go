package audit

import (
	"regexp"
	"strings"

	"github.com/dianemo/dianemo"
)

var slotForm = regexp.MustCompile(`^([^|]+)\|[fs]\|\d{1,16}\|\d{1,9}$`)

// checkSlots: each slot names a job that exists, and each job that must hold one is named.
// A slot stays when its job has ended; it goes with it.
func (a *audit) checkSlots() {
	in := map[string]int{}
	for _, p := range a.parts {
		unique := p.key("unique").hash
		for slot, value := range unique {
			f := slotForm.FindStringSubmatch(value)
			if f == nil {
				p.found("unique", "%.200s is %.200q", slot, value)
			} else if j := p.jobs[f[1]]; !j.exists() {
				p.found("unique", "%s names job %s, which does not exist", slot, f[1])
			} else if j.bad == nil && (j.record == nil || !strings.HasSuffix(j.record.unique, ","+slot)) {
				p.found("unique", "%s names job %s, whose record does not name it", slot, f[1])
			}
			if other, ok := in[slot]; ok {
				p.found("unique", "%s is also in partition %d", slot, other)
			}
			in[slot] = p.number
		}
		for id, j := range p.jobs {
			slot := p.mustHold(j)
			if slot == "" {
				continue
			}
			f := slotForm.FindStringSubmatch(unique[slot])
			if f == nil || f[1] != id && (!p.jobs[f[1]].lives() || !p.revived(j, p.jobs[f[1]])) {
				p.found("unique", "job %s is %s and does not hold %s, which is %.200q", id, j.state(), slot, unique[slot])
			}
		}
	}
}

// mustHold is the slot that the job must hold; "" if none.
func (p *part) mustHold(j *job) string {
	if !j.lives() || j.record == nil || j.spec == nil {
		return ""
	}
	f := slotOf(j.record.unique)
	switch {
	case f == nil:
		return ""
	case f[0] == "s" && (j.state() == dianemo.Running || j.record.started != ""):
		return "" // it has been started
	case f[1] != "0" && j.spec.enqueued+whole(f[1]) <= p.now:
		return "" // its time may be over
	}
	return f[2]
}

// revived reports whether one of two jobs that live and have the same slot may have been
// skipped meanwhile, since its parents had ended otherwise, and wait again.
func (p *part) revived(one, other *job) bool {
	return one.spec.blocked() || other.spec != nil && other.spec.blocked()
}
