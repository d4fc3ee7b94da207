package audit

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/dianemo/dianemo"
)

// A record is a job's mutable fields.
type record struct {
	state               dianemo.State
	reason, peer        string
	ended               string
	epoch, due          int64
	base                lane
	started             string
	fails, reruns, runs int64
	maxReruns           string
	weight              string
	unique              string
}

var numberForms = []struct {
	at   int
	form *regexp.Regexp
}{
	{3, regexp.MustCompile(`^\d{0,16}$`)}, {4, regexp.MustCompile(`^\d{1,16}$`)}, {7, regexp.MustCompile(`^(-\d{1,15}|\d{1,16})$`)},
	{8, regexp.MustCompile(`^\d{0,16}$`)}, {9, regexp.MustCompile(`^\d{1,9}$`)}, {10, regexp.MustCompile(`^\d{1,9}$`)},
	{11, regexp.MustCompile(`^\d{1,9}$`)}, {12, regexp.MustCompile(`^\d{0,9}$`)}, {13, regexp.MustCompile(`^\d{0,9}$`)},
	{14, regexp.MustCompile(`^\d{0,9}$`)},
}

// parseRecord reads version|state|reason|ended|epoch|peer|lane|due|started|fails|reruns|runs|
// max_reruns|weight|size|unique|tail.
func parseRecord(s string) (*record, error) {
	f := strings.SplitN(s, "|", 17)
	if f[0] != "1" {
		return nil, fmt.Errorf("its record is of version %.20q", f[0])
	}
	if len(f) < 17 {
		return nil, fmt.Errorf("its record is cut short: %.200q", s)
	}
	for _, n := range numberForms {
		if !n.form.MatchString(f[n.at]) {
			return nil, fmt.Errorf("its record has %q for a number: %.200q", f[n.at], s)
		}
	}
	r := &record{state: dianemo.State(f[1]), reason: f[2], ended: f[3], epoch: whole(f[4]), peer: f[5], due: whole(f[7]), started: f[8],
		fails: whole(f[9]), reruns: whole(f[10]), runs: whole(f[11]), maxReruns: f[12], weight: f[13], unique: f[15]}
	switch r.state {
	case dianemo.Scheduled, dianemo.Running, dianemo.Blocked:
	default:
		if !r.state.Finished() {
			return nil, fmt.Errorf("its record has the state %.40q", f[1])
		}
	}
	var ok bool
	if r.base, ok = parseBase(f[6]); !ok {
		return nil, fmt.Errorf("its record has the lane %.200q", f[6])
	}
	return r, nil
}

// whole is a number that was looked at before.
func whole(digits string) int64 {
	n, _ := strconv.ParseInt(digits, 10, 64)
	return n
}

// A lane is what all its jobs have in common.
type lane struct {
	kind     string
	priority int64
	grace    int64 // ms, -1: none
	weight   int64 // override, rounded up; 0: none
}

var baseForm = regexp.MustCompile(`^([0-9A-Za-z._/@+-]{1,128}):([1-9]):(-1|0|[1-9]\d{0,15}):(0|[1-9]\d{0,6})$`)

func parseBase(s string) (lane, bool) {
	f := baseForm.FindStringSubmatch(s)
	if f == nil {
		return lane{}, false
	}
	return lane{f[1], whole(f[2]), whole(f[3]), whole(f[4])}, true
}

func (l lane) String() string {
	return fmt.Sprintf("%s:%d:%d:%d", l.kind, l.priority, l.grace, l.weight)
}

// class is what jobs are counted by.
func (l lane) class() string { return fmt.Sprintf("%s:%d", l.kind, l.priority) }

func (l lane) workflow() bool { return strings.HasPrefix(l.kind, "workflow/") }

// A place is an index that a job is in, and its score there.
type place struct {
	key   string
	score float64
}

// never is the score of a blocked job that has no time until which it must start: the end of the year 9999.
const never = 253402300799999

// place is where the job must be.
func (r *record) place() place {
	switch r.state {
	case dianemo.Scheduled:
		if r.runs > 0 {
			return place{"lane:" + r.base.String() + ":again", float64(r.due)}
		}
		return place{"lane:" + r.base.String() + ":new", float64(r.due)}
	case dianemo.Running:
		return place{"run:" + r.peer, float64(r.epoch)}
	case dianemo.Blocked:
		if r.due > 0 && r.base.grace >= 0 {
			return place{"blocked", float64(r.due + r.base.grace)}
		}
		return place{"blocked", never}
	}
	return place{fmt.Sprintf("done:%s:%s", r.state, r.base.kind), float64(whole(r.ended))}
}

// wrong says what of the record contradicts itself.
func (r *record) wrong() string {
	finished := r.state.Finished()
	maxReruns := whole(r.maxReruns)
	switch {
	case finished != (r.ended != ""):
		return fmt.Sprintf("it is %s and ended at %q", r.state, r.ended)
	case r.state == dianemo.Running && (!isName(r.peer) || r.epoch == 0 || r.started == "" || r.runs == 0):
		return fmt.Sprintf("it runs under peer %q, epoch %d, since %q, %d runs", r.peer, r.epoch, r.started, r.runs)
	case r.base.workflow() && r.state != dianemo.Blocked && !finished:
		return fmt.Sprintf("a workflow is %s", r.state)
	case r.unique != "" && slotOf(r.unique) == nil:
		return fmt.Sprintf("its unique field is %.200q", r.unique)
	case r.reason == "corrupt":
		return "" // repair has written it, who did not know all
	case r.runs > 0 && r.epoch == 0:
		return fmt.Sprintf("it was run %d times and has no epoch", r.runs)
	case r.fails > r.runs:
		return fmt.Sprintf("%d of %d runs have failed", r.fails, r.runs)
	case r.maxReruns != "" && r.reruns > maxReruns:
		return fmt.Sprintf("%d of %d reruns", r.reruns, maxReruns)
	case r.state == dianemo.Missed && r.runs > 0:
		return fmt.Sprintf("it is missed and was run %d times", r.runs)
	case (r.state == dianemo.Succeeded || r.state == dianemo.Unreachable) && r.runs == 0 && !r.base.workflow():
		return fmt.Sprintf("it is %s and was never run", r.state)
	}
	return ""
}

var uniqueForm = regexp.MustCompile(`^([fs]),(\d{1,16}),([0-9A-Za-z._/@+-]+:[0-9A-Za-z._/@+-]+)$`)

// slotOf takes a record's unique field apart: until, for how long (ms, 0 no limit), slot.
func slotOf(field string) []string {
	if f := uniqueForm.FindStringSubmatch(field); f != nil {
		return f[1:]
	}
	return nil
}
