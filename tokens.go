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
// reserve of a more urgent one. Available is what the load leaves of the
// tokens. The rule is judged at claim; a budget that shrinks evicts nothing.
//
// The budget of a claim is set aside before it is sent, so that claims under
// way at the same time never overspend; and partitions that wait for tokens
// stand in line, the most urgent first.
type ledger struct {
	mu      sync.Mutex
	tokens  int
	budget  budget // by the load
	reserve levels
	running levels // tokens charged, by priority
	aside   levels // tokens granted to claims under way, as in room
	line    []*place
	saving  saving
}

// A saving keeps tokens together for one heavy job: while it lasts, nobody else
// gets any at its level or a less urgent one.
type saving struct {
	by    *place // nil: nobody saves
	level int
	until time.Time // so that a partition that does not answer does not save for ever
}

// A budget is what the load allows. The zero value is that of no load.
type budget struct {
	share float64 // of the tokens that are not to be had
	hot   bool    // none are
	// single: even so, if nothing runs, one job may be claimed that fits into all
	// tokens.
	single bool
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

func newLedger(tokens int, reserve map[int]int) *ledger {
	l := &ledger{tokens: tokens}
	for level, tokens := range reserve {
		l.reserve[level] = tokens
	}
	return l
}

// available is what the load leaves of the tokens.
func (l *ledger) available() int {
	if l.budget.hot {
		return 0
	}
	// A share that is off by a rounding error must not cost a token.
	return min(int(float64(l.tokens)*(1-l.budget.share)+1e-6), l.tokens)
}

// setTokens and adapt change what is available. Partitions that did not get
// what they asked for stand in line, so whoever can be served now is called.

func (l *ledger) setTokens(tokens int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = tokens
	l.callNext()
}

// adapt returns the budget so far.
func (l *ledger) adapt(b budget) budget {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.budget
	l.budget = b
	if b != was {
		l.callNext()
	}
	return was
}

func (l *ledger) state() (tokens, available int, b budget) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tokens, l.available(), l.budget
}

// dry reports whether nothing could be claimed, whatever waits.
func (l *ledger) dry() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.available() == 0 && (!l.single() || l.tokens == 0)
}

// single reports whether one job may be claimed although it does not fit.
func (l *ledger) single() bool {
	return l.budget.single && l.running == levels{} && l.aside == levels{}
}

// room is what may still be claimed: w at level p fits if it is at most
// room[q] for every q <= p.
func (l *ledger) room() levels {
	var room levels
	available := l.available()
	atOrBelow, reserved := 0, 0 // running at levels >= q; reserves of levels < q
	for q := 9; q >= 1; q-- {
		atOrBelow += l.running[q]
		room[q] = available - atOrBelow - l.aside[q]
	}
	for q := 1; q <= 9; q++ {
		room[q] -= reserved
		reserved += l.reserve[q]
	}
	return room
}

// lets is what is left of a room for one partition: while another saves for a
// heavy job, nothing at that job's level and the less urgent ones.
func (l *ledger) lets(p *place, room levels) levels {
	if l.saving.by != nil && l.saving.by != p && time.Now().Before(l.saving.until) {
		for q := l.saving.level; q <= 9; q++ {
			room[q] = min(room[q], 0)
		}
	}
	return room
}

// now is the room as p may use it, and reach what it would be if nothing ran.
func (l *ledger) now(p *place) (room, reach levels) {
	l.mu.Lock()
	defer l.mu.Unlock()
	idle := ledger{tokens: l.tokens, budget: l.budget, reserve: l.reserve}
	return l.lets(p, l.room()), idle.room()
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

// spare is what a job of each priority may weigh to fit. What claims under way have
// set aside counts as free: most of it comes back at once.
func (l *ledger) spare() levels {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.room()
	for q := range room {
		room[q] += l.aside[q]
	}
	if l.single() {
		room = l.whole()
	}
	room = l.lets(nil, room)
	var spare levels
	for level := 1; level <= 9; level++ {
		spare[level] = max(room.fits(level), 0)
	}
	return spare
}

// load is the share of the tokens that can't be had, by what runs here and by
// what others use of the host.
func (l *ledger) load() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	free := l.available()
	for _, tokens := range l.running {
		free -= tokens
	}
	return 1 - float64(max(free, 0))/float64(max(l.tokens, 1))
}

// capacity is the room of a peer on which nothing runs and no load is.
func (l *ledger) capacity() levels {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole()
}

func (l *ledger) whole() levels {
	idle := ledger{tokens: l.tokens, reserve: l.reserve}
	return idle.room()
}

// fits is the most that one job of this level may weigh.
func (r levels) fits(level int) int {
	return slices.Min(r[1 : level+1])
}

// ask grants a claim its budget, for that many jobs at most: to be charged or
// given back with grant.close. It returns 0 jobs if nothing fits now; then p
// stands in line and is called when it is worth asking again.
func (l *ledger) ask(p *place, need levels) (grant levels, jobs int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.room()
	level := p.level()
	p.need = need
	jobs = MaxCallJobs
	if l.single() && !p.fits(l.lets(p, room)) && l.next(room) == nil {
		room, jobs = l.whole(), 1
	}
	if p.level() != level {
		l.drop(p) // it stands elsewhere now
	}
	waits := slices.Contains(l.line, p)
	next := l.next(room)
	room = l.lets(p, room)
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
		return levels{}, 0
	}
	l.drop(p)
	// Half of the peer's tokens at a time, so that what one claim brought runs
	// while the next is under way; and half of what there is where others wait,
	// so that a claim whose partition does not answer does not hold everything.
	most := (l.available() + 1) / 2
	if len(l.line) > 0 {
		most = (room[1] + 1) / 2
	}
	if jobs == 1 {
		most = l.tokens
	}
	grant = room
	for q := range grant {
		grant[q] = min(grant[q], max(most, slices.Max(need[:])))
	}
	for q := range grant {
		grant[q] = max(grant[q], 0)
		l.aside[q] += grant[q]
	}
	return grant, jobs
}

// next is the first in line for whom there is room.
func (l *ledger) next(room levels) *place {
	for _, p := range l.line {
		if p.fits(l.lets(p, room)) {
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
	p := l.next(l.room())
	if p == nil && l.single() {
		p = l.next(l.whole())
	}
	if p != nil {
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
