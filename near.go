package dianemo

import (
	"context"
	"slices"
)

// A child that asks for the peer that ran its parent is due only when its wait is
// over. Until then that peer alone may claim it, since it alone is told of it: by
// whoever released the child, most often itself. All this is best effort: what is not
// told, or forgotten, or does not fit, is due soon and run by anyone. For the same
// reason nobody gives back early what it will not run, for example since it shuts
// down.

const (
	mostNear  = 10_000 // jobs that a peer remembers of a partition
	claimNear = 100    // jobs that one claim names
)

// tellNear tells peers which jobs are kept for them.
func (c *Client) tellNear(ctx context.Context, partition int, near map[string][]NearJob) {
	for peer, jobs := range near {
		if c.near != nil && c.near(peer, partition, jobs) {
			continue
		}
		if err := c.store.Tell(ctx, peer, Message{Word: KeepNear, Partition: partition, Near: jobs}); err != nil {
			c.logger.Debug("a peer was not told of jobs that are kept for it; they will run anywhere", "partition", partition, "err", err)
		}
	}
}

// keepNear takes in jobs that are kept for this peer. It reports whether they are.
func (p *Peer) keepNear(peer string, partition int, jobs []NearJob) bool {
	if peer != p.id {
		return false
	}
	p.mu.Lock()
	partitions := p.partitions
	p.mu.Unlock()
	if partition < 0 || partition >= len(partitions) {
		return true // it does not run
	}
	part := partitions[partition]
	part.mu.Lock()
	for _, job := range jobs {
		if _, handles := p.kinds[job.Lane.Kind]; handles && len(part.near) < mostNear {
			part.near = append(part.near, job)
		}
	}
	part.mu.Unlock()
	part.kick()
	return true
}

// letGo forgets some of the jobs that are kept for this peer.
func (part *partition) letGo(of func(NearJob) bool) {
	part.mu.Lock()
	defer part.mu.Unlock()
	if len(part.near) > 0 {
		part.near = slices.DeleteFunc(part.near, of)
	}
}

// nearLanes returns the lanes, not too many, in which jobs are kept for this peer that
// it may claim now and could carry.
func (part *partition) nearLanes() (lanes []*laneKnown) {
	part.letGo(func(j NearJob) bool { return !j.Until.After(part.planned) })
	part.mu.Lock()
	defer part.mu.Unlock()
	var last Lane // most stand together
	for _, j := range part.near {
		if j.Lane == last {
			continue
		}
		last = j.Lane
		own, handles := part.peer.own(j.Lane)
		if !handles {
			continue
		}
		if l := part.view.add(own); !slices.Contains(lanes, l) && !part.view.rests(l) && part.may(l) {
			if lanes = append(lanes, l); len(lanes) == emptyLanes {
				break
			}
		}
	}
	return lanes
}

// nearNeed is what a claim must have room for to get a job of the lane that is kept for
// this peer: as it is asked for by name, the heaviest that there may be.
func (l *laneKnown) nearNeed(capacity levels) int {
	return max(min(l.most(), capacity.fits(l.Priority)), l.least())
}

// chooseNear returns the jobs of these lanes that a claim asks for by name.
func (part *partition) chooseNear(lanes []*laneKnown) (jobs []NearJob) {
	part.mu.Lock()
	defer part.mu.Unlock()
	named := map[string]bool{} // it may have been told twice
	var last Lane
	here := false
	for _, j := range part.near {
		if j.Lane != last {
			last, here = j.Lane, slices.ContainsFunc(lanes, func(l *laneKnown) bool { return l.Lane == j.Lane })
		}
		if here && !named[j.ID] {
			named[j.ID] = true
			if jobs = append(jobs, j); len(jobs) == claimNear {
				break
			}
		}
	}
	return jobs
}

// tried forgets what a claim has got, and, if it got nothing at all, what it asked for by
// name: that is gone, or can't be run here, unless its kind is paused.
func (part *partition) tried(claim Claim, reply TurnReply) {
	if len(claim.Near) == 0 {
		return
	}
	over := map[string]bool{}
	for _, j := range reply.Jobs {
		over[j.ID] = true
	}
	if len(reply.Jobs) == 0 {
		for _, j := range claim.Near {
			over[j.ID] = !slices.Contains(reply.Paused, j.Lane.Kind)
		}
	}
	part.letGo(func(j NearJob) bool { return over[j.ID] })
}
