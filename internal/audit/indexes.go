package audit

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/dianemo/dianemo"
)

// checkLanes: the index of lanes names each that has jobs, and none else, with when the first
// of them is due.
func (p *part) checkLanes() {
	named := p.key("lanes").zset
	for key, c := range p.keys {
		name, ok := strings.CutPrefix(key, "lane:")
		if !ok {
			continue
		}
		if !isLane(name) {
			p.found(key, "no lane has such a name")
		}
		first := math.Inf(1)
		for _, due := range c.zset {
			first = min(first, due)
		}
		if at, ok := named[name]; !ok {
			p.found("lanes", "lane %s has jobs and is not named", name)
		} else if at != first {
			p.found("lanes", "lane %s is named with %.0f, and its first job is due at %.0f", name, at, first)
		}
	}
	for name := range named {
		if p.keys["lane:"+name] == nil {
			p.found("lanes", "lane %s is named and has no jobs", name)
		}
		if !isLane(name) {
			p.found("lanes", "no lane has such a name: %.200q", name)
		}
	}
}

func isLane(name string) bool {
	base, ok := strings.CutSuffix(name, ":new")
	if !ok {
		base, ok = strings.CutSuffix(name, ":again")
	}
	l, good := parseBase(base)
	return ok && good && !l.workflow()
}

// checkRuns: whoever runs something is among those who beat.
func (p *part) checkRuns() {
	beats := p.key("beats").zset
	for key := range p.keys {
		if peer, ok := strings.CutPrefix(key, "run:"); ok {
			if _, beat := beats[peer]; !beat {
				p.found("beats", "%s runs something and is not there", peer)
			}
			if !isName(peer) {
				p.found(key, "no peer has such a name")
			}
		}
		if rest, ok := strings.CutPrefix(key, "done:"); ok {
			state, kind, _ := strings.Cut(rest, ":")
			if !dianemo.State(state).Finished() || !isName(kind) {
				p.found(key, "no set of ended jobs has such a name")
			}
		}
		if rest, ok := strings.CutPrefix(key, "call:"); ok {
			edge, caller, _ := strings.Cut(rest, ":")
			if !callForm.MatchString(p.keys[key].text) {
				p.found(key, "it is no answer: %.60q", p.keys[key].text)
			}
			if !edgeForm.MatchString(edge) || !isName(caller) {
				p.found(key, "no call has such a name")
			}
		}
	}
	for peer, until := range beats {
		if !isName(peer) || !isTime(until) {
			p.found("beats", "peer %.200q until %v", peer, until)
		}
	}
}

var (
	callForm = regexp.MustCompile(`^\d+ `)
	edgeForm = regexp.MustCompile(`^[a-z]+$`)
)

// isTime is for scores that are instants.
func isTime(score float64) bool { return score == math.Trunc(score) && score > 0 && score < 1e17 }

// checkCounts counts what runs, is blocked and has ended.
func (p *part) checkCounts() {
	has := map[string]int{}
	for _, j := range p.jobs {
		if j.record != nil && j.record.state != dianemo.Scheduled {
			has[fmt.Sprintf("%s:%s", j.record.state, j.record.base.class())]++
		}
	}
	for field, value := range p.key("counts").hash {
		words := strings.Split(field, ":")
		state := dianemo.State(words[0])
		if len(words) != 3 || !isName(words[1]) || !state.Finished() && state != dianemo.Running && state != dianemo.Blocked {
			p.found("counts", "nothing is counted as %.200q", field)
			continue
		}
		if n, err := strconv.Atoi(value); err != nil || n != has[field] {
			p.found("counts", "%s is %.60q, and there are %d", field, value, has[field])
		}
		delete(has, field)
	}
	for field, n := range has {
		p.found("counts", "%s is missing, and there are %d", field, n)
	}
}

var (
	errorField = regexp.MustCompile(`^[0-9]\|(.+)$`)
	errorForm  = regexp.MustCompile(`(?s)^\d{1,16}\|\d{1,16}\|[^|]+\|[a-z]+\|[^|]*\|`)
)

// checkBeside: results, errors and progress are of jobs that exist, and may have them.
func (p *part) checkBeside() {
	for id := range p.key("result").hash {
		switch j := p.jobs[id]; {
		case !j.exists():
			p.found("result", "of job %.200q, which does not exist", id)
		case j.lives() && j.bad == nil:
			p.found("result", "of job %s, which is %s", id, j.state())
		}
	}
	for field, value := range p.key("errors").hash {
		f := errorField.FindStringSubmatch(field)
		switch {
		case f == nil:
			p.found("errors", "no run is such: %.200q", field)
		case !p.jobs[f[1]].exists():
			p.found("errors", "of job %.200q, which does not exist", f[1])
		case !errorForm.MatchString(value):
			p.found("errors", "of job %s: %.200q", f[1], value)
		}
	}
	for id, value := range p.key("progress").hash {
		switch j := p.jobs[id]; {
		case !j.exists():
			p.found("progress", "of job %.200q, which does not exist", id)
		case j.state() != dianemo.Running:
			p.found("progress", "of job %s, which is %s", id, j.state())
		}
		if json.Unmarshal([]byte(value), &struct {
			Done, Total int64
			Note        string
			Stuck       bool
		}{}) != nil {
			p.found("progress", "of job %.200q: %.200q", id, value)
		}
	}
}

var holdForm = regexp.MustCompile(`^(.+)\|\d{1,16}$`)

// checkInfo looks at what a partition keeps of itself.
func (p *part) checkInfo() {
	for field, value := range p.key("info").hash {
		number := regexp.MustCompile(`^\d{1,16}$`).MatchString(value)
		lane, hold := strings.CutPrefix(field, "hold:")
		switch {
		case hold:
			if f := holdForm.FindStringSubmatch(value); f == nil || !isName(f[1]) || !isLane(lane) {
				p.found("info", "%.200s is %.200q", field, value)
			}
		case field == "paused":
			for _, kind := range strings.Split(value, " ") {
				if !isName(kind) {
					p.found("info", "paused is %.200q", value)
				}
			}
		case field == "alive", field == "up_since", field == "every", field == "removed":
			if !number {
				p.found("info", "%s is %.60q", field, value)
			}
		case field == "term":
			if !number || whole(value) > whole(p.audit.key("term").text) {
				p.found("info", "term is %.60q, and the last one %.60q", value, p.audit.key("term").text)
			}
		default:
			p.found("info", "it has the field %.200q", field)
		}
	}
	info := p.key("info").hash
	if alive, since := info["alive"], info["up_since"]; (alive == "") != (since == "") || whole(since) > whole(alive) {
		p.found("info", "alive at %q, up since %q", alive, since)
	}
}
