package dianemo

import (
	"slices"
	"time"
)

// A laneView is what a peer knows of one partition's lanes, with the due time
// of each one's first job as last heard.
type laneView struct {
	lanes []*laneKnown
	index map[Lane]*laneKnown
	all   bool   // foreign kinds too: who leads keeps the time for all
	round uint64 // of listings begun; what a whole listing did not name is empty
	// paused are the kinds from which a claim gets nothing, as last heard.
	paused []string
}

// rests reports whether a lane's kind is paused.
func (v *laneView) rests(l *laneKnown) bool {
	return len(v.paused) > 0 && slices.Contains(v.paused, l.Kind)
}

type laneKnown struct {
	ClaimLane
	due   time.Time // by the store's clock; zero: empty
	round uint64
	stuck int // how often it was claimed from, had due jobs, and gave none

	foreign bool      // of a kind that this peer does not handle
	beyond  bool      // its first job did not fit although all was free
	told    time.Time // the due time of which another peer was told, since this one can't take it
	passed  time.Time // since when its first job is due and does not fit, by our clock
}

// maxLanes bounds what a view remembers, and claimLanes what one claim names:
// a script pays for each name, full or empty.
const (
	maxLanes   = 1024
	claimLanes = 64
	emptyLanes = 16 // of these, lanes not known to be due
)

// least is the weight of the lightest job that a lane can hold.
func (l *laneKnown) least() int {
	if least := l.Lane.Lightest(); least > 0 {
		return least
	}
	return l.Weight
}

// need is what a claim from it must have room for. Where the lightest possible
// job was not what waited, it is the heaviest, or all that this peer could ever
// give; where that did not help either, only time does: 0.
func (l *laneKnown) need(capacity levels) int {
	switch {
	case l.stuck == 0:
		return l.least()
	case l.stuck == 1 && l.Lane.Weight > 0:
		return max(min(l.Lane.Weight, capacity.fits(l.Priority)), l.least())
	}
	return 0
}

// most is what its heaviest job may cost.
func (l *laneKnown) most() int {
	if l.Lane.Weight > 0 {
		return l.Lane.Weight
	}
	return l.Weight
}

func (v *laneView) add(l ClaimLane) *laneKnown {
	if v.index == nil {
		v.index = map[Lane]*laneKnown{}
	}
	known := v.index[l.Lane]
	if known == nil {
		if len(v.lanes) >= maxLanes {
			v.forget()
		}
		known = &laneKnown{ClaimLane: l}
		v.lanes = append(v.lanes, known)
		v.index[l.Lane] = known
	}
	return known
}

// forget drops the empty lanes.
func (v *laneView) forget() {
	v.lanes = slices.DeleteFunc(v.lanes, func(l *laneKnown) bool {
		if l.due.IsZero() {
			delete(v.index, l.Lane)
		}
		return l.due.IsZero()
	})
}

// heard takes in one page of a listing; own says how this peer runs a lane's
// jobs, or that it doesn't.
func (v *laneView) heard(from int, heads []LaneHead, last bool, own func(Lane) (ClaimLane, bool)) {
	if from == 0 {
		v.round++
	}
	for _, head := range heads {
		l, ok := own(head.Lane)
		if !ok {
			if !v.all || len(v.lanes) >= maxLanes {
				continue
			}
			l.Lane = head.Lane
		}
		known := v.add(l)
		if !known.due.Equal(head.Due) {
			known.stuck, known.passed, known.beyond = 0, time.Time{}, false
		}
		known.foreign = !ok
		known.due, known.round = head.Due, v.round
	}
	if !last {
		return
	}
	for _, l := range v.lanes {
		if l.round != v.round {
			l.due, l.stuck, l.passed = time.Time{}, 0, time.Time{}
		}
	}
}

// due returns the lanes that have work by now, the most urgent first, the
// foreign ones apart, and when the next of the others will.
func (v *laneView) due(now time.Time) (lanes, foreign []*laneKnown, next time.Time) {
	for _, l := range v.lanes {
		switch {
		case l.due.IsZero() || v.rests(l):
		case !l.due.After(now) && l.foreign:
			foreign = append(foreign, l)
		case !l.due.After(now):
			lanes = append(lanes, l)
		case next.IsZero() || l.due.Before(next):
			next = l.due
		}
	}
	slices.SortFunc(lanes, func(a, b *laneKnown) int {
		if a.Priority != b.Priority {
			return a.Priority - b.Priority
		}
		return a.due.Compare(b.due)
	})
	return lanes, foreign, next
}

// choose returns the lanes that a claim names: those of which it asks for jobs by
// name and those due from which something may fit into room first, so that they
// are not crowded out by others, those of a kind of which there was news, and some
// that are not known to be due, whose first job may have come since. It leaves out those that may not be claimed
// from now.
func (v *laneView) choose(near, due []*laneKnown, room, capacity levels, kinds []string, may func(*laneKnown) bool) []ClaimLane {
	lanes := make([]ClaimLane, 0, min(len(v.lanes), claimLanes))
	first := 0 // of these, those that were taken for what is kept
	take := func(from []*laneKnown, most int, wanted func(*laneKnown) bool) {
		for _, l := range from {
			if len(lanes) == claimLanes || most == 0 {
				return
			}
			if wanted(l) && !l.foreign && may(l) && !slices.ContainsFunc(lanes[:first], func(c ClaimLane) bool { return c.Lane == l.Lane }) {
				lanes = append(lanes, l.ClaimLane)
				most--
			}
		}
	}
	fits := func(l *laneKnown) bool {
		need := l.need(capacity)
		return need > 0 && need <= room.fits(l.Priority)
	}
	take(near, claimLanes, func(*laneKnown) bool { return true })
	first = len(lanes)
	take(due, claimLanes, fits)
	fresh := func(l *laneKnown) bool { return !slices.Contains(due, l) && !v.rests(l) }
	take(v.lanes, emptyLanes, func(l *laneKnown) bool { return slices.Contains(kinds, l.Kind) && fresh(l) })
	take(v.lanes, emptyLanes, func(l *laneKnown) bool { return !slices.Contains(kinds, l.Kind) && fresh(l) })
	take(due, claimLanes, func(l *laneKnown) bool { return !fits(l) })
	slices.SortStableFunc(lanes, func(a, b ClaimLane) int { return a.Priority - b.Priority })
	return lanes
}
