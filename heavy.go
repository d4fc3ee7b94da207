package dianemo

import "time"

// A job that does not fit is passed over by lighter ones, for a while. Then its
// peer saves: it keeps what becomes free, at the job's level and the less urgent
// ones, until the job fits. The peer has the patience and the tokens; the
// partition has a hold on the lane, which one peer at a time gets, so that only
// one saves for one heavy job. A hold that is not renewed runs out.

// may reports whether a lane may be claimed from: while tokens are saved for a
// heavy job, nothing lighter at its level, and nothing less urgent.
func (part *partition) may(l *laneKnown) bool {
	return part.heavy == nil || l == part.heavy || l.Priority < part.heavy.Priority
}

// waits keeps a due lane's patience: it reports whether its job was passed over
// by lighter ones for long enough. What is as light as anything is not passed
// over, it waits its turn.
func (part *partition) waits(l *laneKnown, need int, room, reach levels, now time.Time) bool {
	p := part.peer
	most := min(l.most(), reach.fits(l.Priority))
	switch {
	case p.config.HeavyWait == Unlimited || need == 0 || l.beyond || l.least() > most || most <= 1 || most <= room.fits(l.Priority) && l != part.heavy:
		l.passed = time.Time{}
	case part.heavy != nil:
	case l.passed.IsZero():
		l.passed = now
		fallthrough
	case now.Sub(l.passed) < p.config.HeavyWait:
		part.planBy(l.passed.Add(p.config.HeavyWait))
	default:
		return true
	}
	return false
}

// startSaving keeps tokens together for the lane that the store lets this peer
// hold.
func (part *partition) startSaving(lane Lane) {
	p := part.peer
	if l := part.view.index[lane]; l != nil && p.ledger.save(&part.place, l.Priority, time.Now().Add(3*p.config.BeatEvery)) {
		part.heavy = l
	}
}

func (part *partition) stopSaving() {
	if part.heavy != nil {
		part.heavy.passed = time.Time{}
		part.heavy, part.renew = nil, false
		part.peer.ledger.spend(&part.place)
	}
}
