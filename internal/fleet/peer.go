package main

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// A peer sends what the library's does, see beat.go, leader.go, wake.go and work.go there.
type peer struct {
	*world
	ledger
	parts  []part
	load   float64 // its place among equals
	dead   bool
	deaf   int // attempts to listen that failed
	rounds int // in which it led

	// standing, as in the library.
	standing int // 0: it does not stand
	room     int // the tokens that it said it has to spare
	under    bool
}

// A place is one loop of one peer.
type place struct {
	peer      *peer
	partition int
}

const never = time.Duration(math.MinInt64)

// A part is a peer's work in one partition: a loop that claims and one that settles, each
// with one turn under way.
type part struct {
	ready    bool // it was kicked, and will look at what there is to do
	turning  bool // a turn is under way that claims, or stands up or down
	settling bool // one that settles
	beaten   bool // a beat is
	look     bool
	due      time.Duration // of the first job, as last heard; never: there is none
	known    time.Duration // since when that is known
	told     time.Duration // for which due time another peer was told
	lonely   time.Duration // when nobody could be told
	held     []job
	ended    int // jobs that have returned and are not being settled
	waker
}

func newPeer(w *world) *peer {
	p := &peer{world: w, ledger: ledger{tokens: w.Tokens}, parts: make([]part, w.Settings.Partitions)}
	for i := range p.parts {
		p.parts[i].due, p.parts[i].told, p.parts[i].lonely, p.parts[i].look = never, never, never, true
	}
	return p
}

func (p *peer) begin() {
	p.kickAll()
	p.present()
	p.in(time.Duration(p.rng.Int64N(int64(p.Beat))), p.beats)
	p.lead()
	p.in(time.Duration(p.rng.Int64N(int64(p.Beat))), p.tick)
	p.in(2*p.Lag, p.heardAnew)
	if p.Outage > 0 {
		p.at(max(p.OutageAt, p.now), func() { p.listen() })
	}
}

func (p *peer) die() {
	p.dead = true
	for i := range p.parts {
		if part := &p.parts[i]; len(part.held) > 0 {
			at := &p.partitions[i]
			at.silent = append(at.silent, silence{p.now, part.held})
			part.held = nil
		}
	}
}

// listen tries to hear messages again, after an outage has cut it off.
func (p *peer) listen() {
	if p.dead {
		return
	}
	if p.down(p.now) {
		p.deaf++
		p.in(p.pause(p.deaf, 50*time.Millisecond, 5*time.Second), p.listen)
		return
	}
	p.deaf = 0
	p.in(2*p.Lag, p.heardAnew)
}

// heardAnew is what a new subscription makes it do: what was published before is lost.
func (p *peer) heardAnew() {
	if p.dead {
		return
	}
	for i := range p.parts {
		p.parts[i].look = true
	}
	p.restand()
	p.present()
	p.bidOnce()
}

// hear is the message Look.
func (p *peer) hear(partition int) {
	if p.dead {
		return
	}
	p.parts[partition].look = true
	p.kick(partition)
	p.restand()
}

func (p *peer) restand() {
	p.standing = 0
	p.kickAll()
}

func (p *peer) kick(partition int) {
	if part := &p.parts[partition]; !part.ready {
		part.ready = true
		p.world.ready = append(p.world.ready, place{p, partition})
	}
}

func (p *peer) kickAll() {
	for i := range p.parts {
		p.kick(i)
	}
}

func (p *peer) kickNext() {
	if next := p.next(); next >= 0 {
		p.kick(next)
	}
}

// gained is the library's, for kinds that weigh 1.
func gained(said, room int) bool {
	return room > said && (said < 1 || bits.Len(uint(said-1)) < bits.Len(uint(room-1)))
}

// stance says how the standing is to change: up, down, or not at all.
func (p *peer) stance(looks bool) (up, down bool) {
	if p.under {
		return false, false
	}
	level, room := 0, max(p.spare(), 0)
	if room > 0 {
		level = 9
	}
	more := level != p.standing || level > 0 && gained(p.room, room)
	if !more || looks && level < p.standing {
		return false, false
	}
	p.standing, p.under = level, true
	if level == 0 {
		return false, true
	}
	p.room = room
	p.load = 1 - float64(p.tokens-p.running)/float64(p.tokens) + p.rng.Float64()/1000
	return true, false
}

// step is one look of the loops at what there is to do.
func (p *peer) step(partition int) {
	part := &p.parts[partition]
	part.ready = false
	if p.dead {
		return
	}
	if settles := min(part.ended, maxCall); settles > 0 && !part.settling {
		part.settling, part.ended = true, part.ended-settles
		p.turn(turn{peer: p, partition: partition, settles: settles}, 1)
	}
	if part.turning {
		return // it looks again when the turn is over
	}
	if grant, claims, up, down := p.plan(partition); claims || up || down {
		part.turning = true
		p.turn(turn{peer: p, partition: partition, claims: claims, grant: grant, up: up, down: down}, 1)
	}
}

// plan decides whether to claim, and with which budget.
func (p *peer) plan(partition int) (grant int, claims, up, down bool) {
	part := &p.parts[partition]
	look := part.look
	part.look = false
	due := part.due != never
	if !look && !due {
		p.drop(partition)
		p.kickNext()
		up, down = p.stance(false)
		return 0, false, up, down
	}
	grant, other := p.ask(partition)
	if other >= 0 && other != partition {
		p.kick(other)
	}
	if grant == 0 && due {
		p.passOn(partition)
	}
	if grant == 0 && !look {
		up, down = p.stance(false)
		return 0, false, up, down
	}
	if !due {
		up, down = p.stance(true)
	}
	return grant, true, up, down
}

// passOn tells another peer of work that this one can't take, once; and where nobody could be told, not again for a second.
func (p *peer) passOn(partition int) {
	part := &p.parts[partition]
	if part.told == part.due {
		return
	}
	if part.lonely != never && p.now < part.lonely+time.Second {
		p.at(part.lonely+time.Second, func() { p.kick(partition) })
		return
	}
	part.told = part.due
	p.wake(partition, &part.waker, p, func(told bool) {
		if !told {
			part.lonely = p.now
		}
	})
}

// A turn settles; or it stands up or down, and claims, in one round trip; on a cluster the first of these goes to another node.
type turn struct {
	peer      *peer
	partition int
	settles   int
	claims    bool
	grant     int
	up, down  bool

	left   int // calls that have not been answered
	failed bool
	notes  []int
	jobs   []job
	due    time.Duration
	known  time.Duration
}

func (p *peer) turn(t turn, attempt int) {
	t.due = never
	answered := func(ok bool) {
		t.failed = t.failed || !ok
		if t.left--; t.left > 0 || p.dead {
			return
		}
		if t.failed {
			t.failed = false
			p.in(p.pause(attempt, 20*time.Millisecond, 2*time.Second), func() { p.turn(t, attempt+1) })
			return
		}
		p.turned(&t)
	}
	var own []call
	if t.settles > 0 {
		own = append(own, call{sort: settle, do: func() (sort, int) { return settle, t.settles }, then: answered})
	}
	if t.claims {
		own = append(own, call{sort: claim, do: func() (sort, int) {
			at := &p.partitions[t.partition]
			t.jobs, t.known = at.take(min(t.grant, maxCall)), p.now
			if len(at.lane) > 0 {
				t.due = at.lane[0].born
			}
			if p.dead { // its call was under way
				at.silent = append(at.silent, silence{p.now, t.jobs})
			}
			if len(t.jobs) == 0 {
				return empty, 0
			}
			return claim, len(t.jobs)
		}, then: answered})
	}
	t.left = len(own)
	if t.up || t.down {
		t.left++
		p.common().send(call{sort: stand, do: func() (sort, int) {
			t.notes = p.stand(p, t.up, p.load)
			return stand, 0
		}, then: answered})
	}
	for _, c := range own {
		p.of(t.partition).send(c)
	}
}

// turned takes in the answer.
func (p *peer) turned(t *turn) {
	part := &p.parts[t.partition]
	if t.settles > 0 {
		part.settling = false
		p.kick(t.partition)
		return
	}
	part.turning = false
	if t.up || t.down {
		p.under = false
	}
	for _, i := range t.notes {
		p.parts[i].look = true
		p.kick(i)
	}
	if t.claims {
		if t.known >= part.known {
			part.due, part.known = t.due, t.known
		}
		p.close(t.grant, len(t.jobs))
		p.kickNext()
		for _, j := range t.jobs {
			p.start(t.partition, j)
		}
	}
	p.kick(t.partition)
}

func (p *peer) start(partition int, j job) {
	part := &p.parts[partition]
	part.held = append(part.held, j)
	p.started++
	if p.now >= p.began && p.began > 0 {
		p.delays.Add(p.now - j.born)
	}
	if p.onStart != nil {
		p.onStart(j)
	}
	p.in(time.Duration(p.rng.ExpFloat64()*float64(p.Takes)), func() {
		if p.dead {
			return
		}
		at := slices.Index(part.held, j)
		part.held[at] = part.held[len(part.held)-1]
		part.held = part.held[:len(part.held)-1]
		part.ended++
		p.running--
		p.kickNext()
		p.kick(partition)
	})
}

// beats comes at the peer's own ticks, in each partition where it holds runs.
func (p *peer) beats() {
	if p.dead {
		return
	}
	p.in(p.Beat, p.beats)
	p.present()
	for i := range p.parts {
		part := &p.parts[i]
		held := len(part.held) + part.ended
		if held == 0 || part.beaten {
			continue
		}
		part.beaten = true
		p.of(i).send(call{sort: beat, do: func() (sort, int) { return beat, held }, then: func(bool) { part.beaten = false }})
	}
}

func (p *peer) present() {
	p.common().send(call{sort: present, do: func() (sort, int) { return present, 0 }, then: func(bool) {}})
}

func (p *peer) lead() {
	p.bidding(func() {
		every := p.Settings.Lease / 3
		p.in(every*7/8+time.Duration(p.rng.Int64N(int64(every/8)+1)), p.lead)
	})
}

func (p *peer) bidOnce() { p.bidding(func() {}) }

func (p *peer) bidding(then func()) {
	if p.dead {
		return
	}
	p.common().send(call{sort: lead, do: func() (sort, int) {
		p.bid(p)
		return lead, 0
	}, then: func(bool) { then() }})
}

// surveyed is how many partitions one call looks at, on a Redis that is no cluster, and abreast how many of the calls are
// under way at a time.
const (
	surveyed = 64
	abreast  = 8
)

// tick is a round's, every beat.
func (p *peer) tick() {
	if !p.dead {
		p.in(p.Beat, p.tick)
		p.round()
	}
}

// round looks at all partitions. The leader does its chores on the way.
func (p *peer) round() {
	if p.dead {
		return
	}
	leads := p.leader == p
	n, size := len(p.parts), surveyed
	if p.Cluster {
		size = 1
	}
	heads := make([]time.Duration, n)
	from, left, begin := 0, (n+size-1)/size, p.now
	var next func(bool)
	one := func() {
		first, last := from, min(from+size, n)
		from = last
		p.of(first).send(call{sort: survey, do: func() (sort, int) {
			for i := first; i < last; i++ {
				if heads[i] = never; len(p.partitions[i].lane) > 0 {
					heads[i] = p.partitions[i].lane[0].born
				}
			}
			return survey, last - first
		}, then: next})
	}
	failed := false
	next = func(ok bool) {
		failed = failed || !ok
		if from < n {
			one()
		}
		if left--; left > 0 || p.dead {
			return
		}
		if !failed {
			for i := range p.parts {
				if part := &p.parts[i]; part.known <= begin {
					part.due, part.known = heads[i], begin
				}
			}
			if leads {
				p.chores()
			}
		}
		p.restand()
	}
	for range min(abreast, left) {
		one()
	}
}

// What the library's leader does: see choresIn and walks there. reaps is how many silent peers one look at a partition finds.
const (
	reaps       = 10
	trimRounds  = 12
	repairEach  = 3
	repairParts = 32
	silentAfter = 4 // beats
)

func (p *peer) chores() {
	p.rounds++
	under, more := 0, false // chores; and there are more silent peers
	done := func(bool) {
		if under--; under == 0 && more {
			p.round()
		}
	}
	send := func(i int, c call) {
		under++
		then := c.then
		c.then = func(ok bool) { then(ok); done(ok) }
		p.of(i).send(c)
	}
	for i := range p.partitions {
		at := &p.partitions[i]
		for range reaps {
			if len(at.silent) == 0 || p.now < at.silent[0].since+silentAfter*p.Beat {
				break
			}
			gone := at.silent[0]
			at.silent = at.silent[1:]
			send(i, call{sort: chore, do: func() (sort, int) {
				at.lane = append(at.lane, gone.runs...)
				p.again += len(gone.runs)
				p.lastReap = p.now
				return chore, len(gone.runs)
			}, then: func(bool) { p.wake(i, &p.parts[i].waker, nil, func(bool) {}) }})
		}
		more = more || len(at.silent) > 0 && p.now >= at.silent[0].since+silentAfter*p.Beat
		if (p.rounds+i)%trimRounds == 0 || p.rounds%repairEach == 0 && i%repairParts == p.rounds%repairParts {
			send(i, call{sort: chore, do: func() (sort, int) { return chore, 0 }, then: func(bool) {}})
		}
	}
}
