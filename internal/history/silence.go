package history

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// silence: a run is taken from a peer only after the store had no sign of life of it for as long as it may be
// silent, in time in which Redis was there; and only a job that was never started is missed.
//
// A sign of life is a beat or a claim in the partition. A beat that was answered was carried out between
// when it was sent and when its answer was written down; a claim, which counts for the partition of its
// job, at the time that its epoch says. A run was taken between its claim and when that was told of or the
// next claim. If in that time there was a moment at which it may have been taken, nothing is wrong: so of
// each sign only counts what is certain, that it was there by the end of its span and is as old as its
// beginning.
//
// After an outage silence counts anew from the first sign of anybody. Most of these are not seen (a leader
// that looks around is one), so nothing but the nemesis can tell an outage, as Away.
func silence(a *account, say sayer) {
	for _, j := range a.jobs {
		missed(j, say)
		gaveUp(j, say)
	}
	w := newWatch(a)
	if w == nil {
		return
	}
	for _, j := range a.jobs {
		said := map[string]bool{}
		for _, l := range lostRuns(a, j) {
			if !said[l.peer] && !w.mayBeSilent(l, w.partition(j.id)) {
				said[l.peer] = true
				say(j, "was taken from %s, which was never silent for %v while it had the job", l.peer, a.byProcess[l.peer].hello.SilentAfter)
			}
		}
	}
}

func missed(j *job, say sayer) {
	state := j.final != nil && j.final.State == dianemo.Missed
	for _, e := range j.misses {
		state = state || e.State == dianemo.Missed
	}
	switch {
	case state && len(j.starts) > 0:
		say(j, "is missed, and was started by %s", j.starts[0].Process)
	case state && j.final != nil && j.final.Runs > 0:
		say(j, "is missed, and its record has %d runs", j.final.Runs)
	}
}

// gaveUp: a job is unreachable when its last run was lost, and no rerun was left.
func gaveUp(j *job, say sayer) {
	if !j.whole() || j.final.State != dianemo.Unreachable {
		return
	}
	lost := 0
	for _, h := range j.final.History {
		if h.Outcome == dianemo.Lost {
			lost++
		}
	}
	if n := len(j.final.History); n == 0 || j.final.History[n-1].Outcome != dianemo.Lost {
		say(j, "is unreachable, and its last run was not lost")
	} else if j.wish != nil && lost < 1+j.wish.Reruns {
		say(j, "is unreachable after %d of its runs were lost, and had %d reruns", lost, j.wish.Reruns)
	}
}

// A lostRun was taken from its peer between two moments.
type lostRun struct {
	peer        string
	from, until Moment
}

// lostRuns are those that a reap told of, and those that the record has. The former does not say which run
// it was: it may be any of that peer's.
func lostRuns(a *account, j *job) []lostRun {
	var all []lostRun
	claimed := func(epoch int64) Moment {
		from, _ := a.clock.claimed(epoch)
		return from
	}
	for _, e := range j.reaps {
		l := lostRun{peer: e.Silent, until: e.At}
		for _, r := range j.runs {
			if at := claimed(r.epoch); r.peer == e.Silent && at < e.At && (l.from == 0 || at < l.from) {
				l.from = at
			}
		}
		all = append(all, l)
	}
	if j.final == nil {
		return all
	}
	last := a.last
	if a.final.Drained == 0 {
		last = math.MaxInt64 // nothing says when the final state was read
	}
	for i, h := range j.final.History {
		if h.Outcome != dianemo.Lost {
			continue
		}
		l := lostRun{h.Peer, claimed(h.Epoch), last}
		if i+1 < len(j.final.History) {
			_, l.until = a.clock.claimed(j.final.History[i+1].Epoch)
		}
		all = append(all, l)
	}
	return all
}

// A watch knows the signs of life.
type watch struct {
	account    *account
	partitions int
	limit      time.Duration // after an outage
	signs      map[post][]sign
	outages    []outage
}

// A post is where a peer gives signs.
type post struct {
	peer      string
	partition int
}

// A sign was there at that moment, and had been given at that one at the earliest.
type sign struct{ there, given Moment }

// In an outage nobody gave a sign.
type outage struct{ from, to Moment }

// newWatch returns nil if the history does not tell enough.
func newWatch(a *account) *watch {
	w := &watch{account: a, limit: math.MaxInt64, signs: map[post][]sign{}}
	for _, p := range a.processes {
		if p.hello != nil {
			w.partitions = max(w.partitions, p.hello.Partitions)
			w.limit = min(w.limit, p.hello.SilentAfter)
		}
	}
	if w.partitions == 0 || !a.clock.known {
		return nil
	}
	for _, p := range a.processes {
		for _, e := range p.events {
			at := post{p.name, e.Partition}
			s := sign{e.At, e.Began}
			switch e.What {
			case Beat:
			case Claim:
				from, to := a.clock.claimed(e.Epoch)
				at.partition, s = w.partition(e.Job), sign{min(to, e.At), from}
			default:
				continue
			}
			w.signs[at] = append(w.signs[at], s)
		}
	}
	for _, signs := range w.signs {
		slices.SortStableFunc(signs, func(s, t sign) int { return cmp.Compare(s.there, t.there) })
	}
	w.findOutages()
	return w
}

// partition is where a job is kept: it is said by what stands before the first @ of its id.
func (w *watch) partition(id string) int {
	h := fnv.New32a()
	route, _, _ := strings.Cut(id, "@")
	_, _ = h.Write([]byte(route)) // a hash's Write never fails
	return int(h.Sum32() % uint32(w.partitions))
}

// findOutages takes those of the nemesis's that no sign denies, in which no peer came up (whose way to Redis
// was perhaps not cut), and that are so long that the store must have noticed: one and a half beats.
func (w *watch) findOutages() {
	const settling = 2 * time.Second // from a peer's hello until it is one of those that are cut off
	var begun *Event
	for _, e := range w.account.faults {
		if e.Fault != Away {
			continue
		}
		if e.On {
			begun = e
			continue
		}
		if begun == nil {
			continue
		}
		o := outage{begun.At, e.At}
		begun = nil
		denied, beat := false, time.Duration(0)
		for _, p := range w.account.processes {
			if p.hello != nil {
				beat = max(beat, p.hello.BeatEvery)
				denied = denied || p.began > o.from.Add(-settling) && p.began < o.to
			}
		}
		for _, signs := range w.signs {
			denied = denied || slices.ContainsFunc(signs, func(s sign) bool { return s.given > o.from && s.there < o.to })
		}
		if !denied && o.to.Sub(o.from) > 3*beat/2+rounding {
			w.outages = append(w.outages, o)
		}
	}
}

// mayBeSilent reports whether there was a moment at which the run may have been taken. Silence grows until the
// next sign is there, so it is enough to look at those moments, and at the last.
func (w *watch) mayBeSilent(l lostRun, partition int) bool {
	p := w.account.byProcess[l.peer]
	if p == nil || p.hello == nil {
		return true
	}
	signs := w.signs[post{l.peer, partition}]
	moments := []Moment{l.until}
	for _, s := range signs {
		moments = append(moments, s.there)
	}
	for _, o := range w.outages {
		moments = append(moments, o.from)
	}
	for _, x := range moments {
		if x >= l.from && x <= l.until && w.silentAt(x, l.from, signs, p.hello.SilentAfter) {
			return true
		}
	}
	return false
}

// silentAt looks right before the moment. The run's own claim was the first sign.
func (w *watch) silentAt(x, claimed Moment, signs []sign, limit time.Duration) bool {
	last := claimed
	for _, s := range signs {
		if s.there >= x {
			break
		}
		last = max(last, s.given)
	}
	if x.Sub(last) <= limit-2*rounding {
		return false
	}
	for _, o := range w.outages {
		if o.from < x && x.Sub(o.to) <= w.limit-2*rounding {
			return false
		}
	}
	return true
}
