package redisstore_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// The model: what a namespace holds, and what each call of a Store makes of it and
// answers, said once more in Go, as store.go, the state table in job.go and the list of
// keys in keys.go have it. It is for walks of one call at a time, by a clock that the test
// sets, so each answer can be told to the last field.
//
// What it does not say: the order in which an answer has its news; and in one call no job
// moves between what the store reads in order to name keys and the script.

// A modelWorld is a namespace.
type modelWorld struct {
	now int64 // µs
	// forgets: calls are remembered for an hour, and leases end. A real Redis that is told
	// another time than its own keeps both.
	forgets bool
	parts   []*modelPart
	keeps   map[string]dianemo.Keep
	leader  string
	term    int64 // of the lease
	until   int64 // µs: end of the lease
	last    int64 // term
}

func newModelWorld(partitions int, forgets bool, now time.Time) *modelWorld {
	w := &modelWorld{now: now.UnixMicro(), forgets: forgets, keeps: map[string]dianemo.Keep{}}
	for n := range partitions {
		w.parts = append(w.parts, &modelPart{modelWorld: w, number: n, jobs: map[string]*modelJob{}, slots: map[string]modelSlot{},
			beats: map[string]int64{}, holds: map[string]modelHold{}, calls: map[string]modelAnswer{}, needs: map[string]*modelNeed{},
			gates: map[string]int64{}, edges: map[string]bool{}, kids: map[string]*modelKin{}, outbox: map[string]int64{},
			schedules: map[string]*modelSchedule{}, counted: map[string]bool{}})
	}
	return w
}

func (w *modelWorld) ms() int64 { return w.now / 1000 }

// A modelPart is a partition.
type modelPart struct {
	*modelWorld
	number int
	jobs   map[string]*modelJob
	slots  map[string]modelSlot
	beats  map[string]int64 // until when a peer may be silent (ms)
	holds  map[string]modelHold
	calls  map[string]modelAnswer
	paused []string
	// The last sign of life, since when silence counts, the leader's interval (ms), and its term.
	alive, since, every, term int64

	needs  map[string]*modelNeed // by child
	gates  map[string]int64
	edges  map[string]bool
	kids   map[string]*modelKin
	outbox map[string]int64

	schedules map[string]*modelSchedule
	removed   int64

	counted map[string]bool // which jobs were ever counted, as 'state:kind:priority'
}

// A modelJob is a job. Times are in ms, and 0 if there is none.
type modelJob struct {
	id        string
	bare      bool // it has no record yet
	state     dianemo.State
	reason    string
	lane      dianemo.Lane // Again is not kept: the runs say it
	weight    int
	maxReruns int // -1: not said yet
	unique    *modelUnique
	spec      []byte
	enqueued  int64

	due, started, ended int64
	epoch               int64
	peer                string
	fails, reruns, runs int
	result, progress    string
	history             map[int]string // a ring
}

type modelUnique struct {
	slot  string
	until dianemo.UniqueUntil
	lasts int64
}

// A modelSlot is a unique key that was taken.
type modelSlot struct {
	id      string
	until   dianemo.UniqueUntil
	expires int64 // ms, 0: never
	runs    int   // of the job, when it took it
}

type modelHold struct {
	peer  string
	until int64
}

// waits is the lane in which the job waits, or would.
func (j *modelJob) waits() dianemo.Lane {
	l := j.lane
	l.Again = j.runs > 0
	return l
}

func (j *modelJob) marked() bool { return j.state == dianemo.Running && j.reason == "cancel" }

func (j *modelJob) flow() bool { return dianemo.IsWorkflow(j.lane.Kind) }

func (j *modelJob) moved() dianemo.Moved {
	return dianemo.Moved{ID: j.id, State: j.state, Kind: j.lane.Kind, Priority: j.lane.Priority}
}

// end ends a job.
func (p *modelPart) end(j *modelJob, state dianemo.State, reason string) {
	j.state, j.reason, j.ended, j.bare = state, reason, p.ms(), false
	p.counts(j)
}

// counts notes that there is a counter for jobs like this one.
func (p *modelPart) counts(j *modelJob) {
	p.counted[fmt.Sprintf("%s:%s:%d", j.state, j.lane.Kind, j.lane.Priority)] = true
}

// wait has a job wait in its lane.
func (j *modelJob) wait(due int64, reason string) {
	j.state, j.reason, j.ended, j.due = dianemo.Scheduled, reason, 0, due
}

// ran notes how a run ended.
func (p *modelPart) ran(j *modelJob, ended int64, outcome dianemo.Outcome, reason, text string) {
	j.history[(j.runs-1)%dianemo.MaxHistory] = fmt.Sprintf("%d|%d|%s|%s|%s|%s", ended, j.epoch, j.peer, outcome, reason, text)
}

// job returns one, nil if there is none.
func (p *modelPart) job(id string) *modelJob { return p.jobs[id] }

// in lists the jobs that wait in a lane, in the order in which they are claimed.
func (p *modelPart) in(l dianemo.Lane) []*modelJob {
	var jobs []*modelJob
	for _, j := range p.jobs {
		if j.state == dianemo.Scheduled && j.waits() == l {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *modelJob) int { return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.id, b.id)) })
	return jobs
}

// run lists what a peer runs, by epoch.
func (p *modelPart) run(peer string) []*modelJob {
	var jobs []*modelJob
	for _, j := range p.jobs {
		if j.state == dianemo.Running && j.peer == peer {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *modelJob) int { return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.id, b.id)) })
	return jobs
}

// heads are the lanes that have jobs, with the due time of the first.
func (p *modelPart) heads() map[dianemo.Lane]int64 {
	heads := map[dianemo.Lane]int64{}
	for _, j := range p.jobs {
		if j.state == dianemo.Scheduled {
			l := j.waits()
			if had, ok := heads[l]; !ok || j.due < had {
				heads[l] = j.due
			}
		}
	}
	return heads
}

// lanes are these in order: the earliest due first.
func (p *modelPart) lanes() []dianemo.Lane {
	heads := p.heads()
	return slices.SortedFunc(maps.Keys(heads), func(a, b dianemo.Lane) int {
		return cmp.Or(cmp.Compare(heads[a], heads[b]), cmp.Compare(modelLane(a), modelLane(b)))
	})
}

func (p *modelPart) laneHeads() []dianemo.LaneHead {
	heads := p.heads()
	var all []dianemo.LaneHead
	for _, l := range p.lanes() {
		all = append(all, dianemo.LaneHead{Lane: l, Due: time.UnixMilli(heads[l])})
	}
	return all
}

// A modelNews gathers what a call brings, to tell of which lanes have work sooner than before.
type modelNews struct {
	p      *modelPart
	before map[dianemo.Lane]int64
	come   map[dianemo.Lane]int64
}

func (p *modelPart) news() *modelNews {
	return &modelNews{p, p.heads(), map[dianemo.Lane]int64{}}
}

func (n *modelNews) add(j *modelJob) {
	l := j.waits()
	if had, ok := n.come[l]; !ok || j.due < had {
		n.come[l] = j.due
	}
}

func (n *modelNews) list() []dianemo.News {
	var all []dianemo.News
	for l, due := range n.come {
		if had, ok := n.before[l]; ok && had <= due {
			continue
		}
		one := dianemo.News{Kind: l.Kind, Priority: l.Priority, Weight: l.Lightest(), Later: due > n.p.ms()}
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// The memory of calls.

type modelAnswer struct {
	number uint64
	answer any
	until  int64 // µs
}

// recall returns what was kept of the call, or ErrSuperseded.
func (p *modelPart) recall(edge string, call dianemo.Call) (answer any, err error) {
	kept, ok := p.calls[edge+":"+call.Caller]
	switch {
	case !ok || p.forgets && p.now >= kept.until:
		return nil, nil
	case call.Number == kept.number:
		return kept.answer, nil
	case call.Number < kept.number:
		return nil, dianemo.ErrSuperseded
	}
	return nil, nil
}

func (p *modelPart) keep(edge string, call dianemo.Call, answer any) {
	p.calls[edge+":"+call.Caller] = modelAnswer{call.Number, answer, p.now + time.Hour.Microseconds()}
}

func (p *modelPart) deposed(term int64) bool { return term < p.term }

// touch is a sign of life. After a gap in all of them silence counts from now on.
func (p *modelPart) touch(every time.Duration) {
	widest, now := max(every.Milliseconds(), p.every), p.ms()
	fresh := p.alive == 0 || float64(now-p.alive) > 1.5*float64(widest)
	if fresh {
		p.since = now
	}
	// Those that come close upon each other are not all written.
	if fresh || p.since == now || float64(now-p.alive) > float64(widest)/50 {
		p.alive = now
	}
}

// Names, spelled out here once more so that a changed layout is noticed.

func modelBase(l dianemo.Lane) string {
	grace := int64(-1)
	if l.Grace >= 0 {
		grace = l.Grace.Milliseconds()
	}
	return fmt.Sprintf("%s:%d:%d:%d", l.Kind, l.Priority, grace, l.Weight)
}

func modelLane(l dianemo.Lane) string {
	if l.Again {
		return modelBase(l) + ":again"
	}
	return modelBase(l) + ":new"
}

// modelRecord is the job's record, as common.lua has it.
func modelRecord(j *modelJob) string {
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	reruns, size, unique := "", "", ""
	if j.maxReruns >= 0 {
		reruns = strconv.Itoa(j.maxReruns)
	}
	if len(j.spec) > 2<<10 {
		size = strconv.Itoa(len(j.spec))
	}
	if j.unique != nil {
		until := "f"
		if j.unique.until == dianemo.UntilStarted {
			until = "s"
		}
		unique = fmt.Sprintf("%s,%d,%s", until, j.unique.lasts, j.unique.slot)
	}
	return strings.Join([]string{"1", string(j.state), j.reason, number(j.ended), strconv.FormatInt(j.epoch, 10), j.peer, modelBase(j.lane),
		strconv.FormatInt(j.due, 10), number(j.started), strconv.Itoa(j.fails), strconv.Itoa(j.reruns), strconv.Itoa(j.runs), reruns,
		number(int64(j.weight)), size, unique, ""}, "|")
}

func upMillis(d time.Duration) int64 {
	return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}
