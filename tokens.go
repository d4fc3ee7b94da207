package dianemo

import (
	"slices"
	"sync"
	"time"
)

// levels is indexed by priority, 1 to 9; index 0 is unused.
type levels [10]int

// A ledger is a peer's token account. The rule, for a job of weight w at
// priority p, is that for every level q <= p
//
//	tokens of running jobs at levels >= q  +  w  <=  available - reserves of levels < q
//
// so that the whole never exceeds what is available, and no level enters the
// reserve of a more urgent one. It is judged at claim; a budget that shrinks
// evicts nothing.
//
// The budget of a claim is set aside before it is sent, so that claims under
// way at the same time never overspend; and partitions that wait for tokens
// stand in line, the most urgent first.
type ledger struct {
	mu        sync.Mutex
	available int
	reserve   levels
	running   levels // tokens charged, by priority
	aside     levels // tokens granted to claims under way, as in room
	line      []*place
	saving    saving
}

// A saving keeps tokens together for one heavy job: while it lasts, nobody else
// gets any at its level or a less urgent one.
type saving struct {
	by    *place // nil: nobody saves
	level int
	until time.Time // so that a partition that does not answer does not save for ever
}

// A place in the line of partitions that wait for tokens. Only the ledger
// touches it between ask and the next ask or leave.
type place struct {
	need levels // tokens of the lightest work at each level; 0: there is none
	call func() // tells it to ask again
}

// level is that of its most urgent work.
func (p *place) level() int {
	for level := 1; level < 10; level++ {
		if p.need[level] > 0 {
			return level
		}
	}
	return 10
}

// fits reports whether there is room for some of its work.
func (p *place) fits(room levels) bool {
	for level := 1; level < 10; level++ {
		if p.need[level] > 0 && p.need[level] <= room.fits(level) {
			return true
		}
	}
	return false
}

func newLedger(available int, reserve map[int]int) *ledger {
	l := &ledger{available: available}
	for level, tokens := range reserve {
		l.reserve[level] = tokens
	}
	return l
}

// room is what may still be claimed: w at level p fits if it is at most
// room[q] for every q <= p.
func (l *ledger) room() levels {
	var room levels
	atOrBelow, reserved := 0, 0 // running at levels >= q; reserves of levels < q
	for q := 9; q >= 1; q-- {
		atOrBelow += l.running[q]
		room[q] = l.available - atOrBelow - l.aside[q]
	}
	for q := 1; q <= 9; q++ {
		room[q] -= reserved
		reserved += l.reserve[q]
	}
	return room
}

// roomFor is the room as one partition may use it.
func (l *ledger) roomFor(p *place) levels {
	room := l.room()
	if l.saving.by != nil && l.saving.by != p && time.Now().Before(l.saving.until) {
		for q := l.saving.level; q <= 9; q++ {
			room[q] = min(room[q], 0)
		}
	}
	return room
}

// now is the room as p may use it.
func (l *ledger) now(p *place) levels {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roomFor(p)
}

// save makes p the one for whom tokens are kept together, unless another is.
func (l *ledger) save(p *place, level int, until time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.saving; s.by != nil && s.by != p && time.Now().Before(s.until) {
		return false
	}
	l.saving = saving{p, level, until}
	return true
}

// spend ends p's saving.
func (l *ledger) spend(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.saving.by == p {
		l.saving = saving{}
		l.callNext()
	}
}

// spare is the least urgent level that has room for need, or 0. What claims under
// way have set aside counts as free: most of it comes back at once.
func (l *ledger) spare(need int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.roomFor(nil)
	for q := range room {
		room[q] += l.aside[q]
	}
	for level := 9; level >= 1; level-- {
		if need <= room.fits(level) {
			return level
		}
	}
	return 0
}

// load is the share of the tokens that is in use.
func (l *ledger) load() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := 0
	for _, tokens := range l.running {
		used += tokens
	}
	return float64(used) / float64(max(l.available, 1))
}

// capacity is the room of a peer on which nothing runs.
func (l *ledger) capacity() levels {
	l.mu.Lock()
	defer l.mu.Unlock()
	idle := ledger{available: l.available, reserve: l.reserve}
	return idle.room()
}

// fits is the most that one job of this level may weigh.
func (r levels) fits(level int) int {
	return slices.Min(r[1 : level+1])
}

// ask grants a claim its budget: to be charged or given back with grant.close.
// It returns false if nothing fits now; then p stands in line and is called
// when it is worth asking again.
func (l *ledger) ask(p *place, need levels) (levels, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.roomFor(p)
	level := p.level()
	p.need = need
	if p.level() != level {
		l.drop(p) // it stands elsewhere now
	}
	waits := slices.Contains(l.line, p)
	next := l.next()
	turn := next == nil || next == p || !waits && p.level() < next.level()
	if !turn || !p.fits(room) {
		if !waits {
			at := slices.IndexFunc(l.line, func(o *place) bool { return o.level() > p.level() })
			if at < 0 {
				at = len(l.line)
			}
			l.line = slices.Insert(l.line, at, p)
		}
		if next != nil && next != p {
			next.call()
		}
		return levels{}, false
	}
	l.drop(p)
	// Half of the peer's tokens at a time, so that what one claim brought runs
	// while the next is under way; and half of what there is where others wait,
	// so that a claim whose partition does not answer does not hold everything.
	most := (l.available + 1) / 2
	if len(l.line) > 0 {
		most = (room[1] + 1) / 2
	}
	grant := room
	for q := range grant {
		grant[q] = min(grant[q], max(most, slices.Max(need[:])))
	}
	for q := range grant {
		grant[q] = max(grant[q], 0)
		l.aside[q] += grant[q]
	}
	return grant, true
}

// next is the first in line for whom there is room.
func (l *ledger) next() *place {
	for _, p := range l.line {
		if p.fits(l.roomFor(p)) {
			return p
		}
	}
	return nil
}

func (l *ledger) drop(p *place) {
	if i := slices.Index(l.line, p); i >= 0 {
		l.line = slices.Delete(l.line, i, i+1)
	}
}

// leave takes p out of the line; it does not want tokens any more.
func (l *ledger) leave(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(p)
	l.callNext()
}

// close ends a grant: what was claimed under it is charged, the rest is free.
func (l *ledger) close(grant levels, claimed []*run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for q := range grant {
		l.aside[q] -= grant[q]
	}
	for _, r := range claimed {
		l.running[r.priority] += r.weight
	}
	l.callNext()
}

// release frees what one run was charged.
func (l *ledger) release(priority, weight int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[priority] -= weight
	l.callNext()
}

func (l *ledger) callNext() {
	if len(l.line) == 0 {
		return
	}
	if p := l.next(); p != nil {
		p.call()
	}
}

// inUse returns the tokens charged, by priority.
func (l *ledger) inUse() map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	use := map[int]int{}
	for level, tokens := range l.running {
		if tokens != 0 {
			use[level] = tokens
		}
	}
	return use
}
