package history

import (
	"fmt"

	"github.com/dianemo/dianemo"
)

// acknowledged: of each call that was answered with yes the job is there in the end, or has been
// started if it may be gone by then; of one that was not answered there is one at most; of one that was
// refused there is none. The jobs of a call count together, since a job with an id of its own may be
// asked for again until it is known to be there: then one yes or one unknown answer stands for it, and
// the others are refused, because it exists.
//
// A call that was not answered may be carried out at any time, so nothing is said of when.
func acknowledged(a *account, say sayer) {
	for _, m := range a.marks {
		if len(m.invokes) == 0 {
			for _, j := range m.jobs {
				say(j, "exists, and nobody has asked for it")
			}
			continue
		}
		accepted(a, m, say)
		for _, j := range m.jobs {
			for _, s := range j.starts {
				if s.Mark != m.name {
					say(j, "was started by %s with the arguments of %s", s.Process, s.Mark)
				}
			}
		}
		most := len(m.oks) + m.unknown
		there := m.jobs
		if most == 0 {
			there = m.unwanted()
		}
		switch {
		case len(there) > most && most == 0:
			say(there[0], "was refused, and exists%s", standing(there[0]))
		case len(there) > most:
			say(there[0], "was asked for and not refused %s, and there are %d of it: %s", times(most), len(there), ids(there))
		}
	}
	wholeWorkflows(a, say)
	uniqueKeys(a, say)
}

// unwanted are the jobs of a mark that was always refused. What has parents, or is of a workflow, may be
// found behind a gate that was never opened, if the refusal came late: that was cancelled, and never
// started.
func (m *mark) unwanted() []*job {
	var all []*job
	for _, j := range m.jobs {
		gated := m.op == Submit || m.wish != nil && len(m.wish.Parents) > 0
		if gated && len(j.starts) == 0 && j.final != nil && j.final.State == dianemo.Cancelled {
			continue
		}
		all = append(all, j)
	}
	return all
}

// accepted looks for what was answered with yes. What is let go of when it has succeeded has been started,
// and its peer had written so before it could succeed.
func accepted(a *account, m *mark, say sayer) {
	forgotten := m.wish != nil && m.wish.Forgotten
	byID := map[string]int{}
	nameless := 0
	for _, ok := range m.oks {
		if ok.Job == "" {
			nameless++
			continue
		}
		byID[ok.Job]++
		j := a.job(ok.Job)
		switch {
		case byID[ok.Job] == 2 && !forgotten:
			say(j, "was accepted twice under one id")
		case byID[ok.Job] > 1:
		case j.final == nil && !(forgotten && (len(j.starts) > 0 || j.end() != "")):
			say(j, "was accepted, and is gone")
		case j.final != nil && j.final.Mark != "" && j.final.Mark != m.name:
			say(j, "was accepted as %s, and is another", m.name)
		}
		if f := j.final; byID[ok.Job] == 1 && f != nil && (f.Reason == "gate" || f.Reason == "corrupt") {
			say(j, "was accepted, and is %s (%s)", f.State, f.Reason)
		}
	}
	if nameless > 0 && !forgotten && len(m.jobs) < nameless+len(byID) {
		say(&job{mark: m.name}, "was accepted %s, and there are %d of it", times(nameless+len(byID)), len(m.jobs))
	}
}

// wholeWorkflows: a workflow is accepted as a whole or not at all, and nothing of one that was not is ever
// started. So where one of its jobs was, all are there, whatever the call was told.
func wholeWorkflows(a *account, say sayer) {
	type call struct {
		process string
		number  int64
	}
	members := map[call][]*mark{}
	var order []call
	for _, m := range a.marks {
		if m.op != Submit {
			continue
		}
		for _, e := range m.invokes {
			c := call{e.Process, e.Call}
			if members[c] == nil {
				order = append(order, c)
			}
			members[c] = append(members[c], m)
		}
	}
	for _, c := range order {
		var begun *job
		for _, m := range members[c] {
			for _, j := range m.jobs {
				if len(j.starts) > 0 {
					begun = j
				}
			}
		}
		for _, m := range members[c] {
			if begun != nil && len(m.jobs) == 0 && len(m.oks) == 0 && (m.wish == nil || !m.wish.Forgotten) {
				say(begun, "was started, and %s of the same workflow is not there", m.name)
			}
		}
	}
}

func standing(j *job) string {
	switch {
	case j.final != nil:
		return fmt.Sprintf(": it is %s", j.final.State)
	case len(j.starts) > 0:
		return ": it was started by " + j.starts[0].Process
	}
	return ""
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

func ids(jobs []*job) string {
	text := ""
	for i, j := range jobs {
		if i > 0 {
			text += ", "
		}
		text += j.id
	}
	return text
}
