package main

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/dianemo/dianemo/internal/measure"
)

// A world is a fleet, its producers and its nodes.
type world struct {
	Settings
	clock
	rng        *rand.Rand
	nodes      []*node // the last is that of the namespace's keys, if it is apart; else the first is
	partitions []partition
	peers      []*peer
	producers  []*producer
	ready      []place // loops that were kicked

	// The keys of the namespace.
	idle    idle
	stands  map[*peer]int // version of its entry in idle
	version int
	unheard map[int]bool
	leader  *peer
	lease   time.Duration // until when
	died    time.Duration // when the leader did, if it has
	vacant  time.Duration // how long nobody led, since it is counted: the lease of a dead one counts as nobody's

	// What is counted.
	began    time.Duration
	jobs     int // enqueued since the beginning of the world
	started  int // the same; a job that is run again counts again
	again    int // given to another peer
	counted  struct{ jobs, started int }
	delays   *measure.Histogram
	lastReap time.Duration
	onStart  func(job)
}

// A job is known by its number.
type job struct {
	number int
	born   time.Duration // when Enqueue was called
}

// A partition is what the store holds of one.
type partition struct {
	lane   []job
	silent []silence // peers that died while they held runs here
}

type silence struct {
	since time.Duration
	runs  []job
}

func (p *partition) take(n int) []job {
	n = min(n, len(p.lane))
	taken := p.lane[:n:n]
	p.lane = p.lane[n:]
	return taken
}

// idle is the sorted set of peers that have tokens to spare. What a later entry or a wake-up has made void is skipped.
type idle []idler

type idler struct {
	score   float64
	peer    *peer
	version int
}

func (s idle) Len() int           { return len(s) }
func (s idle) Less(i, j int) bool { return s[i].score < s[j].score }
func (s idle) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *idle) Push(x any)        { *s = append(*s, x.(idler)) }
func (s *idle) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}

func newWorld(s Settings) *world {
	w := &world{Settings: s, rng: rand.New(rand.NewPCG(s.Seed, 1)), stands: map[*peer]int{}, unheard: map[int]bool{}, delays: &measure.Histogram{},
		partitions: make([]partition, s.Partitions)}
	nodes := s.Nodes
	if s.Apart {
		nodes++
	}
	for range nodes {
		w.nodes = append(w.nodes, &node{world: w})
	}
	for i := range s.Backlog {
		p := &w.partitions[w.rng.IntN(len(w.partitions))]
		j := w.newJob()
		j.born = time.Duration(i-s.Backlog) * time.Millisecond // so that no two are due at the same time
		p.lane = append(p.lane, j)
	}
	for range s.Producers {
		w.producers = append(w.producers, newProducer(w))
	}
	for range s.Peers {
		p := newPeer(w)
		w.peers = append(w.peers, p)
		begin := s.Warm
		if !s.Together {
			begin = time.Duration(w.rng.Int64N(int64(s.Spread)))
		}
		w.at(begin, p.begin)
	}
	if s.Rate > 0 {
		w.at(0, w.arrive)
	}
	if s.KillAt > 0 {
		w.at(s.KillAt, w.kill)
	}
	return w
}

// run simulates it all.
func (w *world) run() {
	w.clock.run(w.Warm, w.settleDown)
	w.began = w.now
	w.counted.jobs, w.counted.started = w.jobs, w.started
	w.delays, w.vacant = &measure.Histogram{}, 0
	for _, n := range w.nodes {
		n.forget()
	}
	w.clock.run(w.Warm+w.For, w.settleDown)
}

// settleDown lets the loops that were kicked do what there is to do now.
func (w *world) settleDown() {
	for i := 0; i < len(w.ready); i++ {
		w.ready[i].peer.step(w.ready[i].partition)
	}
	w.ready = w.ready[:0]
}

// down reports whether nobody can reach the nodes.
func (w *world) down(at time.Duration) bool {
	return w.Outage > 0 && at >= w.OutageAt && at < w.OutageAt+w.Outage
}

// at which node a partition is.
func (w *world) of(partition int) *node { return w.nodes[partition%w.Nodes] }

// common is the node of the namespace's keys: they are in one slot.
func (w *world) common() *node {
	if w.Apart {
		return w.nodes[w.Nodes]
	}
	return w.nodes[0]
}

func (w *world) newJob() job {
	w.jobs++
	return job{w.jobs, w.now}
}

// pause is how long after a failure it is tried again, as in the library.
func (w *world) pause(attempt int, first, limit time.Duration) time.Duration {
	d := limit
	if attempt < 20 {
		d = min(first<<(attempt-1), limit)
	}
	return d - time.Duration(w.rng.Int64N(int64(d)/4+1))
}

// tell wakes the least loaded idle peer but one, or leaves a note.
func (w *world) tell(partition int, except *peer) (sort, bool) {
	var self *idler
	defer func() {
		if self != nil {
			heap.Push(&w.idle, *self)
		}
	}()
	for len(w.idle) > 0 {
		first := heap.Pop(&w.idle).(idler)
		if w.stands[first.peer] != first.version {
			continue
		}
		if first.peer == except {
			self = &first
			continue
		}
		delete(w.stands, first.peer)
		if first.peer.dead {
			if w.Cluster {
				return wake, true // PUBLISH does not say that nobody hears
			}
			continue
		}
		takes, _ := w.Costs[wake].of(0)
		w.in(takes+w.Lag, func() { first.peer.hear(partition) })
		return wake, true
	}
	w.unheard[partition] = true
	return nobody, false
}

// stand puts a peer among the idle, or takes it off, and returns the notes that were left.
func (w *world) stand(p *peer, up bool, load float64) []int {
	delete(w.stands, p)
	if !up {
		return nil
	}
	w.version++
	w.stands[p] = w.version
	heap.Push(&w.idle, idler{load, p, w.version})
	if len(w.unheard) == 0 {
		return nil
	}
	var notes []int
	for i := range w.partitions {
		if w.unheard[i] {
			notes = append(notes, i)
		}
	}
	clear(w.unheard)
	return notes
}

// bid is the lease.
func (w *world) bid(p *peer) {
	if w.leader == p || w.now >= w.lease {
		w.vacant += w.unled()
		w.leader, w.lease = p, w.now+w.Settings.Lease
	}
}

// unled is for how long nobody has led by now.
func (w *world) unled() time.Duration {
	since := w.lease
	if w.leader != nil && w.leader.dead {
		since = min(since, w.died)
	}
	return max(w.now-max(since, w.began), 0)
}

func (w *world) kill() {
	for i, p := range w.peers {
		if p == w.leader || i < int(w.Kill*float64(len(w.peers))) {
			if p == w.leader {
				w.died = w.now
			}
			p.die()
		}
	}
}
