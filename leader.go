package dianemo

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
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

// resign gives up the lease, so that another peer keeps the time at once.
func (p *Peer) resign(ctx context.Context) {
	if !p.bidden {
		return
	}
	_, err := p.store.Lead(ctx, Bid{Peer: p.id, Lease: p.config.Lease, Resign: true})
	p.depose()
	if err != nil {
		p.logger.Info("the lease was not given up; it will run out", "err", err)
		return
	}
	if err := p.store.Tell(ctx, "", Message{Word: BidNow}); err != nil {
		if ctx.Err() == nil { // else leave does it again
			p.logger.Info("nobody was told that the lease is free; they will find it so", "err", err)
		}
		return
	}
	p.bidden = false
}

// lead bids for the lease and renews it, three times in each lease.
func (p *Peer) lead(ctx context.Context) {
	failing := false
	for {
		if p.closing.Load() {
			if ctx.Err() == nil { // else that is for leave to do
				p.resign(ctx)
			}
			return
		}
		begin := time.Now()
		p.bidden = true
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
				signal(p.soon) // it keeps the time from now on
			}
		default:
			p.bidden = false
			p.depose()
		}
		p.mended(0, err)
		failing = err != nil
		if t := p.term.Load(); t != nil && !time.Now().Before(t.until) {
			p.depose()
		}
		every := p.config.Lease / 3
		timer := time.NewTimer(every*7/8 + rand.N(every/8+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-p.bid:
			timer.Stop()
		}
	}
}

// A rota is what the leader has to know from one round to the next.
type rota struct {
	beat  int      // rounds in which this peer led
	calls []uint64 // numbers of the last calls, by partition
	walks *walks
	told  map[Lane]Cause // lanes that no live peer can take from
	// silent are the peers that the last round was told of in each partition where there were too many for one.
	silent map[int][]string
	goesOn bool // the next round follows at once, because of these; what has a pace is not done in it
}

func newRota(partitions int) *rota {
	return &rota{calls: make([]uint64, partitions), walks: newWalks(partitions), told: map[Lane]Cause{}, silent: map[int][]string{}}
}

// rounds looks at what there is to do in all partitions, every BeatEvery: the
// safety net under the wake-ups. The leader does its chores on the way.
func (p *Peer) rounds(ctx context.Context) {
	r := newRota(len(p.partitions))
	ticker := time.NewTicker(rand.N(p.config.BeatEvery) + 1) // so that the fleet's rounds are spread
	defer ticker.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.soon:
		}
		if first {
			ticker.Reset(p.config.BeatEvery)
		}
		p.round(ctx, r)
	}
}

func (p *Peer) round(ctx context.Context, r *rota) {
	var chore *Chore
	if term := p.leading(); term != 0 {
		chore = &Chore{Term: term, BeatEvery: p.config.BeatEvery, SilentAfter: p.config.SilentAfter}
	}
	paced := chore != nil && !r.goesOn
	r.goesOn = false
	wakes := make([]uint64, len(p.partitions))
	for i, part := range p.partitions {
		wakes[i] = part.clock.wakes()
	}
	begin := time.Now()
	surveys, err := p.store.Survey(ctx, chore)
	if ctx.Err() != nil {
		return
	}
	p.mended(0, err)
	if surveys != nil {
		err = nil
	}
	p.blind.about(p.logger, err, "a look at all partitions failed; it comes round again")
	took := time.Since(begin)
	// A partition that does not answer must not keep the others waiting long.
	var under sync.WaitGroup
	room := make(chan struct{}, 8)
	for i := range surveys {
		s := &surveys[i]
		part := p.partitions[s.Partition]
		p.mended(s.Partition, s.Err)
		if chore == nil {
			part.chores.about(p.logger, s.Err, "a look at a partition failed; it comes round again", "partition", s.Partition)
		}
		if s.Err == nil {
			ahead := s.Now.Sub(begin.Add(took / 2))
			part.surveyed.Store(&surveyed{s, ahead, s.Now.Sub(begin.Add(took))})
			part.kick()
			if chore != nil {
				part.clock.set(wakes[s.Partition], s.Fires, ahead)
				signal(p.fireSoon)
			}
		}
		if s.Deposed {
			p.depose()
		}
		if chore == nil || s.Deposed {
			continue
		}
		room <- struct{}{}
		under.Go(func() {
			defer func() { <-room }()
			if paced && r.walks.turn(s.Partition, r.beat) {
				p.repairs(ctx, s.Partition, &r.calls[s.Partition], r.walks, r.beat)
			}
			p.choresIn(ctx, s, &r.calls[s.Partition], paced && (r.beat+s.Partition)%trimBeats == trimBeats-1)
		})
	}
	p.restand()
	under.Wait()
	if chore != nil && r.mourns(surveys) {
		r.goesOn = true
		signal(p.soon)
	}
	if paced {
		if r.beat%strandedBeats == strandedBeats-1 { // by then all have shown themselves
			p.stranded(ctx, surveys, r.told)
		}
		r.walks.next(r.beat)
		r.beat++
	}
}

// mourns reports whether there are more silent peers than a round was told of, so that the next one is to come at once.
// Where it would be told of the same, since they could not be reaped, it comes at its time.
func (r *rota) mourns(surveys []Survey) (more bool) {
	for i := range surveys {
		s := &surveys[i]
		if s.Err != nil || s.Deposed || !s.MoreSilent {
			delete(r.silent, s.Partition)
			continue
		}
		more = more || !slices.Equal(s.Silent, r.silent[s.Partition])
		r.silent[s.Partition] = s.Silent
	}
	return more
}

// choresIn does them in one partition, in small steps, for as long as there is
// something to do and this peer leads.
func (p *Peer) choresIn(ctx context.Context, s *Survey, calls *uint64, trims bool) {
	partition := s.Partition
	part := p.partitions[partition]
	part.chores.about(p.logger, s.Err, "a chore failed; it comes round again", "partition", partition)
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
				part.chores.about(p.logger, err, "a chore failed; it comes round again", "partition", partition)
			}
			if err != nil {
				return
			}
		}
	}
	for _, silent := range s.Silent {
		again(func(call Call, chore Chore) (bool, error) {
			reply, err := p.store.Reap(ctx, partition, call, silent, chore)
			for _, job := range reply.Jobs {
				p.logger.Warn("a job's peer went silent", "job", job.ID, "silent", silent, "state", job.State)
				p.hooks.Reap(ReapInfo{job.ID, job.Kind, job.Priority, silent, job.State})
			}
			p.wake(partition, "", reply.News...)
			if len(reply.Jobs) > 0 {
				p.releaseHeirs(partition)
			}
			return reply.More, err
		})
	}
	p.heirsIn(ctx, s, again)
	late := s.Next != 0 || s.Err != nil || slices.ContainsFunc(s.Lanes, func(l LaneHead) bool { return l.Grace >= 0 && s.Now.Sub(l.Due) > l.Grace })
	if late {
		again(func(call Call, chore Chore) (bool, error) {
			reply, err := p.store.Miss(ctx, partition, call, chore)
			for _, job := range reply.Jobs {
				p.hooks.Miss(MissInfo{job.ID, job.Kind, job.Priority, job.State})
			}
			if len(reply.Jobs) > 0 {
				p.releaseHeirs(partition)
			}
			return reply.More, err
		})
	}
	if trims {
		again(p.trim(ctx, partition))
	}
}
