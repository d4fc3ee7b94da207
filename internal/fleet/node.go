package main

import "time"

// A sort is a kind of call.
type sort int

const (
	enqueue sort = iota
	claim        // one that finds something
	empty        // one that finds nothing
	settle
	beat
	survey
	chore // of the leader, in one partition: retention, a step of repair, a reap
	wake
	nobody // a wake-up when nobody stands among the idle
	stand
	present
	lead
	sorts
)

var sortNames = [sorts]string{"enqueue", "claim", "empty", "settle", "beat", "survey", "chore", "wake", "nobody", "stand", "present", "lead"}

// A node is one redis-server: it does one call after the other, in the order in which they come.
type node struct {
	*world
	waiting  []call
	serving  bool // the first of these is planned
	clear    time.Duration
	counts   [sorts]int
	bytes    float64
	busy     time.Duration
	waited   time.Duration
	longest  time.Duration // that a call waited
	deepest  int           // calls that waited at once
	finished int
}

type call struct {
	sort    sort
	arrives time.Duration
	// do is what the script does, at the time when it is run. It returns what sort of call it turned out to be, and of how many
	// jobs, runs or partitions.
	do   func() (sort, int)
	then func(ok bool) // when the answer comes; false: the node could not be reached
}

// send has a node do something. All calls are as long under way, so they come in the order in which they are sent.
func (n *node) send(c call) {
	c.arrives = n.now + n.Lag
	if n.down(c.arrives) {
		n.in(2*n.Lag, func() { c.then(false) })
		return
	}
	n.waiting = append(n.waiting, c)
	n.deepest = max(n.deepest, len(n.waiting))
	if !n.serving {
		n.serving = true
		n.at(max(c.arrives, n.clear), n.serve)
	}
}

func (n *node) serve() {
	c := n.waiting[0]
	n.waiting[0] = call{}
	n.waiting = n.waiting[1:]
	was, jobs := c.do()
	takes, bytes := n.Costs[was].of(jobs)
	n.clear = n.now + takes
	n.counts[was]++
	n.bytes += bytes
	n.busy += takes
	n.waited += n.now - c.arrives
	n.longest = max(n.longest, n.now-c.arrives)
	n.finished++
	n.at(n.clear+n.Lag, func() { c.then(true) })
	if n.serving = len(n.waiting) > 0; n.serving {
		n.at(max(n.waiting[0].arrives, n.clear), n.serve)
	}
}

// forget begins the count anew; what waits stays.
func (n *node) forget() {
	n.counts, n.bytes, n.busy, n.waited, n.longest, n.finished, n.deepest = [sorts]int{}, 0, 0, 0, 0, 0, len(n.waiting)
}
