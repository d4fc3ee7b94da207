package dianemo

import (
	"math/rand/v2"
	"slices"
	"sync"
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
	mu       sync.Mutex
	under    bool     // a change is under way: two at once might overtake each other
	level    int      // the least urgent priority for which it stands; 0: it does not
	lightest int      // tokens of its lightest kind
	kinds    []string // that it handles, in order
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
	if !p.refrains() && s.lightest > 0 {
		need := s.lightest
		if looks {
			need *= 2 // one for what it may find
		}
		level = p.ledger.spare(need)
	}
	switch {
	case level == s.level || looks && level < s.level:
		return Stance{} // as it is; and what a claim does to it shows afterwards
	case level == 0:
		s.level, s.under = 0, true
		return Stance{Move: Down}
	}
	s.level, s.under = level, true
	// Among equals it is to be anyone.
	return Stance{Up, level, p.ledger.load() + rand.Float64()/1000, s.kinds}
}

// stood takes in that a change of standing has been answered.
func (s *standing) stood() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under = false
}

// restand makes the peer say again that it stands, if it does.
func (p *Peer) restand() {
	p.standing.mu.Lock()
	p.standing.level = 0
	p.standing.mu.Unlock()
	p.kickAll()
}

// register keeps what the peer's kinds want.
func (s *standing) register(kinds map[string]registered) {
	for name, kind := range kinds {
		s.kinds = append(s.kinds, name)
		if weight := inherit(kind.policy.Weight, 1); s.lightest == 0 || weight < s.lightest {
			s.lightest = weight
		}
	}
	slices.Sort(s.kinds)
}
