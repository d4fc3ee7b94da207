package history

import "time"

// Bounds of what is to happen once nothing goes wrong any more. They are promises of time, so each has room
// for a machine that is busy with something else, or slowed by a race detector.
const (
	// busy is that room.
	busy = 2 * time.Second
	// drainWithin is for all that some minutes of load left: peers are found silent after SilentAfter, their jobs run again
	// as often as they may, and each waits for what it is to be tried again after.
	drainWithin = 2 * time.Minute
)

// leadWithin: two leases; the last holder's runs out, and somebody bids at least once in a third of one.
func (a *account) leadWithin() time.Duration {
	return 2*a.longest(func(h *Hello) time.Duration { return h.Lease }) + busy
}

// startWithin: an idle peer is told of a job at once; if it was not, it looks after a beat, and so does the
// leader for whoever has tokens.
func (a *account) startWithin() time.Duration {
	return 2*a.longest(func(h *Hello) time.Duration { return h.BeatEvery }) + busy
}

// longest is the longest of all peers' settings.
func (a *account) longest(setting func(h *Hello) time.Duration) (longest time.Duration) {
	for _, p := range a.processes {
		if p.hello != nil {
			longest = max(longest, setting(p.hello))
		}
	}
	return longest
}

// calm: after the faults somebody leads, the backlog drains, what is due starts, and no token stays charged,
// each within its bound.
func calm(a *account, say sayer) {
	f := &a.final
	if f.Led == 0 {
		say(nil, "nobody led after the faults")
	} else if took := f.Led.Sub(f.Calm); took > a.leadWithin() && !a.ledBy(f.Calm.Add(a.leadWithin())) {
		say(nil, "nobody led for %v after the faults; two leases and some are %v", took.Round(time.Millisecond), a.leadWithin())
	}
	bound := drainWithin
	for _, m := range a.marks {
		if m.wish != nil {
			bound = max(bound, drainWithin+m.wish.Delay+time.Duration(max(m.wish.Retries, 0))*m.wish.RetryAfter)
		}
	}
	if f.Drained == 0 {
		say(nil, "the backlog never drained")
	} else if took := f.Drained.Sub(f.Calm); took > bound {
		say(nil, "the backlog took %v to drain; the bound is %v", took.Round(time.Millisecond), bound)
	}
	for _, name := range f.Probes {
		probed(a, name, say)
	}
	taken(a, say)
	left(a, say)
	for peer, tokens := range f.Charged {
		if tokens != 0 {
			say(nil, "%s shows %d tokens as in use, and nothing runs", peer, tokens)
		}
	}
}

// ledBy reports whether a peer said that it led between the end of the faults and that time, and was alive
// after it: who looked from outside may have looked late.
func (a *account) ledBy(until Moment) bool {
	for _, p := range a.processes {
		leads, lives := false, false
		for _, e := range p.events {
			lives = lives || e.At >= a.final.Calm
			if e.What == Lead && (e.Leading && e.At <= until || !e.Leading && e.At < a.final.Calm) {
				leads = e.Leading
			}
		}
		if leads && lives {
			return true
		}
	}
	return false
}

func probed(a *account, name string, say sayer) {
	m := a.byMark[name]
	if m == nil || len(m.invokes) == 0 {
		say(&job{mark: name}, "is a probe that nobody asked for")
		return
	}
	var started Moment
	for _, j := range m.jobs {
		if len(j.starts) > 0 {
			started = j.starts[0].At
		}
	}
	switch took := started.Sub(m.invokes[0].At); {
	case len(m.oks) == 0:
		say(&job{mark: name}, "was not accepted, though nothing went wrong any more")
	case started == 0:
		say(&job{mark: name}, "was due, and was not started")
	case took > a.startWithin():
		say(&job{mark: name}, "was due, and was started only after %v; the bound is %v", took.Round(time.Millisecond), a.startWithin())
	}
}

// taken: what ran on a peer that died is taken from it soon, by a leader that may have to be found first. Poison
// kills when all other faults are over, too.
func taken(a *account, say sayer) {
	within := a.leadWithin() + a.longest(func(h *Hello) time.Duration { return h.SilentAfter + h.BeatEvery })
	died := map[string]Moment{}
	for _, p := range a.processes {
		if n := len(p.events); n > 0 {
			died[p.name] = p.events[n-1].At
		}
	}
	for _, j := range a.jobs {
		for _, e := range j.reaps {
			if took := e.At.Sub(max(a.final.Calm, died[e.Silent])); took > within {
				say(j, "was taken from %s only %v after the faults; the bound is %v", e.Silent, took.Round(time.Millisecond), within)
			}
		}
	}
}

// left: no peer ends before it is told to, and one whose Run returned nil has settled, by then, all that was started
// there.
func left(a *account, say sayer) {
	bye, terminated := map[string]bool{}, map[string]bool{}
	for _, e := range a.faults {
		terminated[e.Victim] = terminated[e.Victim] || e.Fault == "terminate"
	}
	for _, p := range a.processes {
		for _, e := range p.events {
			bye[p.name] = bye[p.name] || e.What == Leave && e.Err == ""
			if e.What == Leave && e.At < a.final.Calm && !terminated[p.name] {
				say(nil, "%s ended by itself: %.100s", p.name, e.Err)
			}
		}
	}
	for _, j := range a.jobs {
		for _, r := range j.runs {
			if bye[r.peer] && r.start != nil && r.settle == nil {
				say(j, "was started by %s, which ended in good order and did not settle it", r.peer)
			}
		}
	}
}
