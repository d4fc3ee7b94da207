package dianemo

import (
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"time"
)

// Nobody polls for work. A peer that has tokens to spare stands among the idle;
// a job that becomes due, or due earlier than all before it, makes whoever put
// it there wake the least loaded of those that handle its kind, and only that
// one. To be woken ends the standing: the peer stands up again with the claim
// that follows. Where nobody stands, a note is left, which the next one reads
// who stands up. Who has seen due work that it can't take passes it on in the
// same way. What is due later is the leader's to watch: it alone sets timers. All
// this is best effort; the rounds find what was lost.

// standing is whether this peer is among the idle, as far as it knows.
type standing struct {
	mu    sync.Mutex
	under bool           // a change is under way: two at once might overtake each other
	level int            // the least urgent priority for which it stands; 0: it does not
	room  levels         // the tokens that it said it has to spare, for each priority
	kinds map[string]int // that it handles, and what they weigh
	// weights are those of the kinds, each once, the lightest first.
	weights []int
}

// stance says how the peer's standing is to change with the next turn, which
// looks for work of which nothing is known, or does nothing else.
func (p *Peer) stance(looks bool) Stance {
	s := &p.standing
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under {
		return Stance{}
	}
	level := 0
	var room levels
	if !p.refrains() && len(s.kinds) > 0 {
		room = p.ledger.spare()
		for level = 9; level > 0 && room[level] < 1; level-- {
		}
	}
	more := level != s.level
	for q := 1; q <= level; q++ {
		more = more || s.gained(s.room[q], room[q])
	}
	switch {
	case !more || looks && level < s.level:
		return Stance{} // as it is; and what a claim does to it shows afterwards
	case level == 0:
		s.level, s.under = 0, true
		return Stance{Move: Down}
	}
	s.level, s.room, s.under = level, room, true
	// Among equals it is to be anyone.
	return Stance{Up, level, room, p.ledger.load() + rand.Float64()/1000, s.kinds}
}

// stood takes in that a change of standing has been answered.
func (s *standing) stood() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under = false
}

// gained reports whether there is work that may fit into room now and did not into what was said. Wake-ups name a kind, or
// for jobs with weights of their own, 1, 2, 3, 5, 9 and so on, the lightest of their lane: only these make a difference.
func (s *standing) gained(said, room int) bool {
	if room <= said {
		return false
	}
	return said < 1 || bits.Len(uint(said-1)) < bits.Len(uint(room-1)) ||
		sort.SearchInts(s.weights, said+1) < sort.SearchInts(s.weights, room+1)
}

// restand makes the peer say again that it stands, if it does.
func (p *Peer) restand() {
	p.standing.mu.Lock()
	p.standing.level = 0
	p.standing.mu.Unlock()
	p.kickAll()
}

// register keeps what the peer handles.
func (s *standing) register(kinds map[string]registered) {
	s.kinds = make(map[string]int, len(kinds))
	for name, kind := range kinds {
		s.kinds[name] = inherit(kind.policy.Weight, 1)
	}
	s.weights = slices.Compact(slices.Sorted(maps.Values(s.kinds)))
}

// A wakeup is news for the fleet, or, if except is set, work that this peer
// can't take.
type wakeup struct {
	News
	except string
}

// wake tells the fleet that there is work: best effort, after the write, and
// without anyone waiting for it. A lost wake-up costs a tick, never a job.
func (c *Client) wake(partition int, except string, news ...News) {
	if len(news) == 0 {
		return
	}
	box := (*c.boxes.Load())[partition]
	box.mu.Lock()
	defer box.mu.Unlock()
	for _, n := range news {
		if w := (wakeup{n, except}); !slices.Contains(box.wakes, w) {
			box.wakes = append(box.wakes, w)
		}
	}
	if box.waking {
		return // whoever sends now sends these afterwards
	}
	box.waking = true
	c.sends.Go(func() { c.sendWakes(box) })
}

func (c *Client) sendWakes(box *outbox) {
	for {
		box.mu.Lock()
		wakes := box.wakes
		box.wakes = nil
		box.waking = len(wakes) > 0
		box.mu.Unlock()
		if len(wakes) == 0 {
			return
		}
		for _, w := range wakes {
			told, err := c.store.Wake(c.ctx, box.partition, w.News, w.except)
			if err != nil {
				c.logger.Debug("a wake-up was not sent; the tick will do", "partition", box.partition, "err", err)
			} else if !told && w.except != "" {
				box.mu.Lock()
				if box.lonely == nil {
					box.lonely = map[News]time.Time{}
				}
				box.lonely[w.News] = time.Now()
				box.mu.Unlock()
			}
		}
	}
}

// passOn tells another peer of due work that this one can't take now. Where
// nobody was idle, the next one who is hears of it, so it is not said again soon:
// then passOn returns when it may be. Other work may have come since that one heard.
func (c *Client) passOn(partition int, n News, self string) (again time.Time) {
	box := (*c.boxes.Load())[partition]
	box.mu.Lock()
	again = box.lonely[n].Add(time.Second)
	box.mu.Unlock()
	if time.Now().Before(again) {
		return again
	}
	c.wake(partition, self, n)
	return time.Time{}
}

// passOn tells another peer, once, of due work that this one can't take. If that may
// not be due yet, for all that is known of the store's clock, it comes later: who is told
// too early finds nothing.
func (part *partition) passOn(l *laneKnown) {
	if l.told.Equal(l.due) {
		return
	}
	if sure := l.due.Add(-part.least); l.due.After(part.known) && time.Now().Before(sure) {
		part.planBy(sure)
		return
	}
	n := News{Kind: l.Kind, Priority: l.Priority}
	if l.Lane.Weight > 0 {
		n.Weight = l.least()
	}
	if again := part.peer.passOn(part.number, n, part.peer.id); !again.IsZero() {
		part.planBy(again)
		return
	}
	l.told = l.due
}
