package workflows_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// A randomFlow is a workflow of which it is known beforehand what each job does, and so
// what becomes of it if nobody interferes.
type randomFlow struct {
	id      string
	spread  bool
	rough   bool          // the nemesis may interfere
	jobs    []*randomJob  // each comes after its parents
	outside []*randomJob  // parents that are not of the workflow
	quits   int           // its submission is given up at this call; 0: it is not
	later   time.Duration // the last of outside are due so late
}

// A randomJob fails its first runs, and then succeeds; roughly, since a run that nobody
// planned may fail, too.
type randomJob struct {
	flow     *randomFlow
	name     string
	id       string
	kind     dianemo.Kind[suite.Args]
	attempts int
	fails    int
	parents  []dianemo.Parent // by ids
	children []string         // names, of the workflow's
	decides  bool
	slow     bool
	seed     uint64
}

var (
	kindOnce  = dianemo.NewKind[suite.Args]("once", dianemo.Policy{Retries: dianemo.None, Keep: keepAll})
	kindAgain = dianemo.NewKind[suite.Args]("again", dianemo.Policy{Retries: 2, RetryIn: dianemo.Every(time.Millisecond), Keep: keepAll})
	keepAll   = dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.Unlimited}}
)

func newRandomFlow(dice *rand.Rand, id string, rough bool) *randomFlow {
	f := &randomFlow{id: id, spread: dice.IntN(2) == 0, rough: rough, later: time.Duration(dice.IntN(30)) * time.Millisecond}
	job := func(name, id string) *randomJob {
		j := &randomJob{flow: f, name: name, id: id, kind: kindOnce, attempts: 1, slow: dice.IntN(4) == 0, seed: dice.Uint64()}
		if dice.IntN(3) == 0 {
			j.kind, j.attempts = kindAgain, 3
		}
		if dice.IntN(4) == 0 {
			j.fails = 1 + dice.IntN(3)
		}
		return j
	}
	if dice.IntN(4) == 0 {
		for i := range 1 + dice.IntN(3) {
			f.outside = append(f.outside, job("", fmt.Sprintf("%s-out-%d", id, i)))
		}
	}
	for i := range 1 + dice.IntN(20) {
		name := fmt.Sprintf("j%d", i)
		at := id + "@" + name
		if f.spread {
			at = name + "/" + id
		}
		j := job(name, at)
		on := func() dianemo.Condition {
			return []dianemo.Condition{dianemo.OnSuccess, dianemo.OnSuccess, dianemo.OnSuccess, dianemo.OnChosen, dianemo.OnChosen, dianemo.OnEnd, dianemo.OnFailure}[dice.IntN(7)]
		}
		for _, p := range f.jobs {
			if dice.IntN(i) < 2 {
				j.parents = append(j.parents, dianemo.Parent{ID: p.id, On: on()})
				p.children = append(p.children, name)
			}
		}
		for _, p := range f.outside {
			if dice.IntN(6) == 0 {
				j.parents = append(j.parents, dianemo.Parent{ID: p.id, On: on()})
			}
		}
		f.jobs = append(f.jobs, j)
	}
	for _, j := range f.jobs {
		j.decides = len(j.children) > 0 && dice.IntN(4) == 0
	}
	if rough && dice.IntN(8) == 0 {
		f.quits = 1 + dice.IntN(12)
	}
	return f
}

func (f *randomFlow) all() []*randomJob {
	return append(f.outside[:len(f.outside):len(f.outside)], f.jobs...)
}

func (f *randomFlow) workflow() *dianemo.Workflow {
	wf := dianemo.NewWorkflow("random")
	wf.ID, wf.Spread = f.id, f.spread
	names := map[string]string{}
	for _, j := range f.jobs {
		names[j.id] = j.name
	}
	for _, j := range f.jobs {
		var without []dianemo.Parent
		for _, p := range j.parents {
			if names[p.ID] == "" {
				without = append(without, p)
			}
		}
		added := wf.Add(j.name, j.kind.NewWith(suite.Args{}, dianemo.Options{Parents: without}))
		for _, p := range j.parents {
			if name := names[p.ID]; name != "" {
				map[dianemo.Condition]func(...string) *dianemo.WorkflowJob{dianemo.OnSuccess: added.After, dianemo.OnFailure: added.AfterFailure,
					dianemo.OnEnd: added.AfterEnd, dianemo.OnChosen: added.AfterChosen}[p.On](name)
			}
		}
	}
	return wf
}

// chooses is what the job's n-th run, from 0, leaves of its children.
func (j *randomJob) chooses(n int) []string {
	dice := rand.New(rand.NewPCG(j.seed, uint64(n)))
	chosen := []string{}
	for _, child := range j.children {
		if dice.IntN(2) == 0 {
			chosen = append(chosen, child)
		}
	}
	return chosen
}

// failsAt reports whether its n-th run fails.
func (j *randomJob) failsAt(n int) bool {
	return n < j.fails || n >= j.attempts && rand.New(rand.NewPCG(j.seed, uint64(n))).IntN(3) == 0
}

// A fate is what becomes of a job that nobody interferes with.
type fate struct {
	state  dianemo.State
	reason string // of one that is skipped
	starts int
}

func (f *randomFlow) fates() map[string]fate {
	fates := map[string]fate{}
	chosen := map[string]map[string]bool{} // by decisions, of names
	for _, j := range f.all() {
		left, bad, fit, out := 0, 0, 0, 0
		for _, p := range j.parents {
			parent := fates[p.ID]
			leftOut := parent.state == dianemo.Skipped && parent.reason == "choice"
			if names, decided := chosen[p.ID]; decided && !names[j.name] {
				leftOut = true
			}
			switch {
			case p.On == dianemo.OnEnd:
				fit++
			case leftOut && p.On == dianemo.OnChosen:
				out++
			case leftOut:
				left++
			case (parent.state == dianemo.Succeeded) != (p.On == dianemo.OnFailure):
				fit++
			default:
				bad++
			}
		}
		switch {
		case bad > 0:
			fates[j.id] = fate{dianemo.Skipped, "parent", 0}
		case left > 0 || out > 0 && fit == 0:
			fates[j.id] = fate{dianemo.Skipped, "choice", 0}
		case j.fails >= j.attempts:
			fates[j.id] = fate{dianemo.Failed, "", j.attempts}
		default:
			fates[j.id] = fate{dianemo.Succeeded, "", j.fails + 1}
			if j.decides {
				chosen[j.id] = map[string]bool{}
				for _, name := range j.chooses(j.fails) {
					chosen[j.id][name] = true
				}
			}
		}
	}
	return fates
}

// stateOf is how a workflow ends whose jobs have ended so.
func stateOf(counts map[dianemo.State]int, cancelled bool) dianemo.State {
	bad := counts[dianemo.Failed] + counts[dianemo.Missed] + counts[dianemo.Unreachable]
	switch off := counts[dianemo.Cancelled]; {
	case bad+off == 0:
		return dianemo.Succeeded
	case bad == 0 || cancelled:
		return dianemo.Cancelled
	}
	return dianemo.Failed
}
