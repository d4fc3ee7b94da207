package dianemo

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// One peer leads: it does the fleet's chores, so that not all do them. This is
// thrift, not safety: each chore stays right if two peers do it at once. The
// lease is a key with an expiry that only one peer can set (SET NX PX); each
// holding has a term, a number that grows, and a partition refuses chores of a
// term lower than the highest that it has seen. A leader trusts its lease only
// for as long as it lasts by its own clock, counted from before it asked.

// A term is one holding of the lease.
type term struct {
	number int64
	until  time.Time
}

// leading is the term in which this peer leads now, or 0.
func (p *Peer) leading() int64 {
	if t := p.term.Load(); t != nil && time.Now().Before(t.until) {
		return t.number
	}
	return 0
}

// depose forgets the term.
func (p *Peer) depose() {
	if t := p.term.Swap(nil); t != nil {
		p.logger.Info("no longer the leader", "term", t.number)
		p.hooks.Lead(LeadInfo{false, t.number})
	}
}

// lead bids for the lease and renews it, three times in each lease.
func (p *Peer) lead(ctx context.Context) {
	failing := false
	for {
		begin := time.Now()
		lease, err := p.store.Lead(ctx, Bid{Peer: p.id, Lease: p.config.Lease})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				p.logger.Warn("a bid for the lease was not answered", "err", err)
			}
		case lease.Leader == p.id:
			had := p.term.Swap(&term{lease.Term, begin.Add(p.config.Lease)})
			if had == nil || had.number != lease.Term {
				p.logger.Info("this peer leads", "term", lease.Term)
				p.hooks.Lead(LeadInfo{true, lease.Term})
			}
		default:
			p.depose()
		}
		p.mended(0, err)
		failing = err != nil
		if t := p.term.Load(); t != nil && !time.Now().Before(t.until) {
			p.depose()
		}
		every := p.config.Lease / 3
		if !pause(ctx, every*7/8+rand.N(every/8+1)) {
			return
		}
	}
}

// chores does the leader's work, every BeatEvery.
func (p *Peer) chores(ctx context.Context) {
	ticker := time.NewTicker(p.config.BeatEvery)
	defer ticker.Stop()
	calls := make([]uint64, len(p.partitions)) // numbers of the last, by partition
	walks := newWalks(len(p.partitions))
	for beat := 0; ; beat++ {
		if p.leading() != 0 {
			// A partition that does not answer must not keep the others waiting long.
			var under sync.WaitGroup
			room := make(chan struct{}, 8)
			for _, part := range p.partitions {
				room <- struct{}{}
				under.Go(func() {
					defer func() { <-room }()
					if walks.turn(part.number, beat) {
						p.repairs(ctx, part.number, &calls[part.number], walks)
					}
					p.choresIn(ctx, part.number, &calls[part.number], beat)
				})
			}
			under.Wait()
			walks.next(beat)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// choresIn does them in one partition, in small steps, for as long as there is
// something to do and this peer leads.
func (p *Peer) choresIn(ctx context.Context, partition int, calls *uint64, beat int) {
	again := func(step func(Call, Chore) (bool, error)) {
		for more := true; more && ctx.Err() == nil; {
			term := p.leading()
			if term == 0 {
				return
			}
			*calls++
			var err error
			more, err = step(Call{p.id, *calls}, Chore{Term: term, Limit: 100, BeatEvery: p.config.BeatEvery, SilentAfter: p.config.SilentAfter})
			p.mended(partition, err)
			if errors.Is(err, ErrDeposed) {
				p.depose()
				return
			}
			if ctx.Err() == nil {
				p.partitions[partition].chores.about(p.logger, err, "a chore failed; it comes round again", "partition", partition)
			}
			if err != nil {
				return
			}
		}
	}
	again(func(call Call, chore Chore) (bool, error) {
		reply, err := p.store.Reap(ctx, partition, call, chore)
		for _, job := range reply.Jobs {
			p.logger.Warn("a job's peer went silent", "job", job.ID, "silent", reply.Peer, "state", job.State)
			p.hooks.Reap(ReapInfo{job.ID, job.Kind, job.Priority, reply.Peer, job.State})
		}
		if reply.Wake {
			p.wake(partition)
		}
		return reply.More, err
	})
	again(func(call Call, chore Chore) (bool, error) {
		reply, err := p.store.Miss(ctx, partition, call, chore)
		for _, job := range reply.Jobs {
			p.hooks.Miss(MissInfo{job.ID, job.Kind, job.Priority, job.State})
		}
		return reply.More, err
	})
	if (beat+partition)%trimBeats == trimBeats-1 {
		again(p.trim(ctx, partition))
	}
}
