package audit

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

var cursorForm = regexp.MustCompile(`(?s)^1\|(\d{1,15})\|(on|paused|broken)\|(\d{1,15})\|(\d{0,15})\|([^|]*)\|(\d{1,15})\|(\d{0,15})\|(\d{0,15})\|(.*)$`)

// A definition, as far as anything depends on it.
type definition struct {
	V       int
	Rule    string
	Job     []byte
	End     int64
	Missed  string
	Overlap string
}

// checkSchedules: each has a definition and a cursor, and is looked at as long as it is on.
func (p *part) checkSchedules() {
	definitions, cursors, fires := p.key("schedules").hash, p.key("cursors").hash, p.key("fires").zset
	for name, text := range definitions {
		if home := p.partOf(name); home != p {
			p.found("schedules", "%.200s belongs into partition %d", name, home.number)
		}
		cursor, ok := cursors[name]
		if !ok {
			p.found("cursors", "schedule %.200s has none", name)
			continue
		}
		c := cursorForm.FindStringSubmatch(cursor)
		if c == nil {
			p.found("cursors", "that of schedule %.200s is %.200q", name, cursor)
			continue
		}
		if c[2] == "broken" {
			continue // set aside, whatever it says
		}
		var d definition
		if err := json.Unmarshal([]byte(text), &d); err != nil || d.V != 1 || d.Rule == "" || d.Missed == "" || d.Overlap == "" {
			p.found("schedules", "%.200s is %.200q", name, text)
			continue
		}
		// As it is stored in a job, it has the time behind it.
		s, err := parseSpec(string(d.Job) + "0000000000000")
		if err != nil || s.schedule != name {
			p.found("schedules", "the job of %.200s can't be read, or is of another schedule: %v", name, err)
			continue
		}
		if (c[6] == "0") != (c[7] == "") || whole(c[7]) > whole(c[8]) {
			p.found("cursors", "schedule %s has left out %s from %q to %q", name, c[6], c[7], c[8])
		}
		_, fire := fires[name]
		form, _, _ := strings.Cut(d.Rule, " ")
		if c[2] == "on" && !fire && d.End == 0 && (form == "cron" || form == "interval") {
			p.found("fires", "schedule %s is on and is not there", name)
		}
		if last := p.jobs[c[5]]; c[5] != "" && last.exists() && last.spec != nil && last.spec.schedule != name {
			p.found("cursors", "the last job of schedule %s is %s, which is of %q", name, c[5], last.spec.schedule)
		}
	}
	for name, cursor := range cursors {
		if _, ok := definitions[name]; !ok {
			if c := cursorForm.FindStringSubmatch(cursor); c == nil || c[2] != "broken" {
				p.found("schedules", "%.200s has a cursor and no definition", name)
			}
		}
	}
	for name, at := range fires {
		c := cursorForm.FindStringSubmatch(cursors[name])
		if c == nil {
			p.found("fires", "%.200s is no schedule", name)
		} else if c[2] != "on" {
			p.found("fires", "schedule %s is %s", name, c[2])
		}
		if !isTime(at) {
			p.found("fires", "schedule %.200s at %v", name, at)
		}
	}
	for id, j := range p.jobs {
		if s := j.spec; s != nil && s.schedule != "" && s.workflow == "" {
			if !strings.HasPrefix(id, occurrenceOf(s)) {
				p.audit.found("{%s:%d}: job %s: it is an occurrence and should begin with %s", p.namespace, p.number, id, occurrenceOf(s))
			}
		}
	}
}

// occurrenceOf is how the id of an occurrence begins, or is.
func occurrenceOf(s *spec) string {
	at := time.UnixMilli(s.at).UTC()
	form := "20060102T150405Z"
	if s.at%1000 != 0 {
		form = "20060102T150405.000Z"
	}
	return s.schedule + "@" + at.Format(form)
}
