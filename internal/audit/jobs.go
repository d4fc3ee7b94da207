package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dianemo/dianemo"
)

// A job is all that is known of one id in its partition.
type job struct {
	id      string
	hasSpec bool
	spec    *spec // nil if it can't be read
	badSpec error
	meta    string
	record  *record // nil if there is none, or none that can be read
	bad     error
	places  []place
}

// gather finds the jobs, and where they are.
func (p *part) gather() {
	for id, text := range p.key("spec").hash {
		j := p.job(id)
		j.hasSpec = true
		j.spec, j.badSpec = parseSpec(text)
	}
	for id, text := range p.key("meta").hash {
		j := p.job(id)
		j.meta = text
		j.record, j.bad = parseRecord(text)
	}
	for key, c := range p.keys {
		switch word, _, _ := strings.Cut(key, ":"); word {
		case "lane", "run", "done", "blocked":
			for id, score := range c.zset {
				j := p.job(id)
				j.places = append(j.places, place{key, score})
			}
		}
	}
	for id, j := range p.jobs {
		p.audit.jobs[id] = j
	}
	p.gatherFamilies()
}

func (p *part) job(id string) *job {
	if p.jobs[id] == nil {
		p.jobs[id] = &job{id: id}
	}
	return p.jobs[id]
}

// exists: a member of an index that has neither spec nor record is no job.
func (j *job) exists() bool { return j != nil && (j.hasSpec || j.meta != "") }

// state is "" for a job that does not exist. What can't be read is taken to be running.
func (j *job) state() dianemo.State {
	switch {
	case !j.exists():
		return ""
	case j.record != nil:
		return j.record.state
	case j.meta != "":
		return dianemo.Running
	}
	return dianemo.Scheduled
}

func (j *job) reason() string {
	if j != nil && j.record != nil {
		return j.record.reason
	}
	return ""
}

// lives reports whether it has not ended.
func (j *job) lives() bool {
	state := j.state()
	return state != "" && !state.Finished()
}

func (p *part) checkJobs() {
	for id, j := range p.jobs {
		tell := func(format string, args ...any) {
			p.audit.found("{%s:%d}: job %s: %s", p.namespace, p.number, id, fmt.Sprintf(format, args...))
		}
		if !isName(id) {
			tell("no id is such: %q", id)
		} else if home := p.partOf(id); home != p {
			tell("it belongs into partition %d", home.number)
		}
		if !j.hasSpec {
			tell("it has no spec")
		} else if j.badSpec != nil {
			tell("%v", j.badSpec)
		}
		if j.bad != nil {
			tell("%v", j.bad)
		}
		slices.SortFunc(j.places, func(a, b place) int { return strings.Compare(a.key, b.key) })
		want, known := j.place(tell)
		switch {
		case len(j.places) == 0:
			tell("it is in no index%s", wanted(want, known))
		case len(j.places) > 1:
			tell("it is in %d indexes: %s%s", len(j.places), keysOf(j.places), wanted(want, known))
		case known && j.places[0].key != want.key:
			tell("it is in %s%s", j.places[0].key, wanted(want, known))
		case known && j.places[0].score != want.score:
			tell("its score in %s is %.0f%s", want.key, j.places[0].score, wanted(want, known))
		}
	}
}

// place is where the job must be, if that is known.
func (j *job) place(tell func(string, ...any)) (place, bool) {
	if r := j.record; r != nil {
		if wrong := r.wrong(); wrong != "" {
			tell("%s", wrong)
		}
		if s := j.spec; s != nil {
			if r.base.kind != s.kind || r.base.grace != s.grace || r.base.weight != s.lane.weight {
				tell("its lane is %s, and by its spec %s", r.base, s.lane)
			}
			if s.weight != whole(r.weight) && r.reason != "corrupt" {
				tell("it weighs %q, and by its spec %d", r.weight, s.weight)
			}
			if slot := slotOf(r.unique); slot != nil && !strings.HasPrefix(slot[2], s.kind+":") {
				tell("its unique slot is %s", slot[2])
			}
		}
		return r.place(), true
	}
	if j.bad != nil || j.spec == nil {
		return place{}, false
	}
	switch s := j.spec; {
	case s.blocked():
		tell("by its spec it was blocked at first, and it has no record")
		return place{}, false
	case s.weight != 0 || s.reruns != 0 || s.size > largeSpec:
		tell("it has settings of its own and no record")
	}
	return j.spec.place(), true
}

func wanted(want place, known bool) string {
	if !known {
		return ""
	}
	return fmt.Sprintf(", and should be in %s with %.0f", want.key, want.score)
}

func keysOf(places []place) string {
	var keys []string
	for _, p := range places {
		keys = append(keys, p.key)
	}
	return strings.Join(keys, ", ")
}
