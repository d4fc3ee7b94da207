package history

import "cmp"

// tokens: what runs on a peer at levels from q on weighs no more than its tokens less what is reserved for
// levels before q, whatever q is. A run is charged before its claim is written down, and until after its
// handler's end is, so what is written down is never more than what is charged. What was claimed when its
// process died counts until then.
//
// A run that was settled, and whose handler was not seen to return, was none or ended otherwise (it
// panicked): it does not count.
func tokens(a *account, say sayer) {
	for _, p := range a.processes {
		if p.hello == nil || p.hello.Tokens == 0 {
			continue
		}
		tooMuch(a, p, say)
	}
}

// tooMuch looks for the first time that too much runs.
func tooMuch(a *account, p *process, say sayer) {
	type charge struct{ level, weight int }
	var running levels
	charged := map[*run]charge{}
	for _, e := range p.events {
		if e.What != Claim && e.What != Start && e.What != End {
			continue
		}
		r := a.job(e.Job).run(e.Epoch, p.name)
		c, is := charged[r]
		switch {
		case r.settle != nil && r.end == nil:
		case e.What == End && is:
			running[c.level] -= c.weight
			delete(charged, r)
		case e.What == Claim && !is, e.What == Start && r.claim == nil && !is:
			level, weight := e.Priority, e.Weight
			if of := r.job.of; of != nil && len(of.invokes) > 0 { // as it was asked for, whatever the engine takes it for
				level, weight = cmp.Or(of.invokes[0].Priority, level), max(of.invokes[0].Weight, weight)
			}
			c = charge{min(max(level, 1), 9), max(weight, 1)}
			charged[r] = c
			running[c.level] += c.weight
			if q, most := running.exceeds(p.hello); q > 0 {
				say(r.job, "made %s run %d tokens at levels from %d on, where it has %d", p.name, running.from(q), q, most)
				return
			}
		}
	}
}

// levels are tokens by priority, 1 to 9.
type levels [10]int

func (l *levels) from(q int) int {
	sum := 0
	for ; q < len(l); q++ {
		sum += l[q]
	}
	return sum
}

// exceeds returns the first level from which on more runs than may, and how much may; 0 if there is none.
func (l *levels) exceeds(h *Hello) (level, most int) {
	most = h.Tokens
	for q := 1; q < len(l); q++ {
		if l.from(q) > most {
			return q, most
		}
		most -= h.Reserve[q]
	}
	return 0, 0
}
