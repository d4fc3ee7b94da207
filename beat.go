package dianemo

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"
)

// progressEvery is how often progress is passed on, at most.
const progressEvery = 500 * time.Millisecond

// beats shows that the peer lives: to readers, and in each partition where it
// holds runs. Between beats it passes on the progress that runs report. When the
// namespace's layout is no longer one for this program, the peer fails.
func (p *Peer) beats(ctx context.Context, fail func(error)) {
	var under sync.WaitGroup
	defer under.Wait()
	beat := time.NewTicker(rand.N(p.config.BeatEvery) + 1) // so that those of a fleet that was started together are spread
	defer beat.Stop()
	newsEvery := min(progressEvery, p.config.BeatEvery)
	news := time.NewTicker(newsEvery)
	defer news.Stop()
	p.present(ctx, fail)
	p.declare(ctx)
	for n, first := 0, true; ; {
		whole := false
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			if whole = true; first {
				first = false
				beat.Reset(p.config.BeatEvery)
			}
			under.Go(func() { p.present(ctx, fail) })
			if n++; n%trimBeats == 0 || !p.declared.Load() {
				under.Go(func() { p.declare(ctx) })
			}
		case <-p.beatSoon:
			under.Go(func() { p.presentInTurn(ctx, fail) })
		case <-news.C:
			if p.rests() {
				news.Stop()
			}
		case <-p.awake:
			news.Reset(newsEvery)
		}
		for _, part := range p.partitions {
			part.loseTouch()
			// A partition that does not answer must not keep the others from beating.
			if !part.beaten.CompareAndSwap(false, true) {
				continue
			}
			rep := part.report(part.beatNow.Swap(false) || whole, p.config.StuckAfter)
			if len(rep.held) == 0 {
				part.beaten.Store(false)
				continue
			}
			under.Go(func() {
				defer part.beaten.Store(false)
				part.beat(ctx, rep)
			})
		}
	}
}

// rests reports whether there are no runs that could have news, or are to be beaten for. If so, who begins one says so on
// awake.
func (p *Peer) rests() bool {
	p.resting.Store(true)
	if slices.ContainsFunc(p.partitions, func(part *partition) bool { return part.count() > 0 }) {
		p.resting.Store(false)
		return false
	}
	return true
}

// A report is what a beat carries.
type report struct {
	held  []HeldRun
	stuck []string // newly
}

// report collects all runs, or only those with news.
func (part *partition) report(whole bool, stuckAfter time.Duration) report {
	var rep report
	now := time.Now()
	for _, r := range part.runs() {
		r.mu.Lock()
		if r.ctx.Err() != nil {
			if r.ended.IsZero() {
				r.ended = now
			}
			if now.Sub(r.ended) >= stuckAfter && !r.progress.Stuck {
				r.progress.Stuck, r.news = true, true
				rep.stuck = append(rep.stuck, r.id)
			}
		}
		held := HeldRun{ID: r.id, Epoch: r.epoch}
		if r.news {
			progress := r.progress
			held.Progress, r.news = &progress, false
		}
		r.mu.Unlock()
		if whole || held.Progress != nil {
			rep.held = append(rep.held, held)
		}
	}
	if whole {
		// What has returned is this peer's until the store has heard of it.
		part.mu.Lock()
		for _, done := range [][]finished{part.finished, part.sending} {
			for _, f := range done {
				rep.held = append(rep.held, HeldRun{ID: f.run.id, Epoch: f.run.epoch})
			}
		}
		part.mu.Unlock()
	}
	return rep
}

// beat sends one, and tells the runs that it finds lost.
func (part *partition) beat(ctx context.Context, rep report) {
	p := part.peer
	for _, id := range rep.stuck {
		p.logger.Warn("a handler ignores the end of its context; its tokens stay charged", "job", id)
	}
	begin := time.Now()
	reply, err := p.store.Beat(ctx, part.number, Beat{Peer: p.id, Every: p.config.BeatEvery, SilentAfter: p.config.SilentAfter, Runs: rep.held})
	p.mended(part.number, err)
	if err != nil {
		part.unreported(rep)
		part.beatNow.Store(true)
	}
	if ctx.Err() == nil {
		part.silent.about(p.logger, err, "a beat was not answered", "partition", part.number)
	}
	lost, cancelled := part.lost(reply.Lost), part.cancelled(reply.Cancelled)
	if err == nil {
		part.sure.Store(begin.UnixNano())
		if part.count() < reply.Held {
			part.doubt.Store(true)
			part.kick()
		}
	}
	p.hooks.Beat(BeatInfo{Partition: part.number, Runs: len(rep.held), Lost: lost, Cancelled: cancelled, Stuck: rep.stuck, Took: time.Since(begin), Err: err})
}

// cancelled ends the contexts of runs whose jobs someone has cancelled, and
// returns those that are new.
func (part *partition) cancelled(refs []RunRef) []string {
	var ids []string
	part.mu.Lock()
	defer part.mu.Unlock()
	for _, ref := range refs {
		if r := part.held[ref]; r != nil && !r.called {
			r.called = true
			r.cancel(ErrCancelled)
			ids = append(ids, ref.ID)
			part.peer.logger.Info("a running job was cancelled", "job", ref.ID, "epoch", ref.Epoch)
		}
	}
	return ids
}

// count is how many runs this peer has here, settled or not.
func (part *partition) count() int {
	part.mu.Lock()
	defer part.mu.Unlock()
	return len(part.held) + len(part.finished) + len(part.sending)
}

// loseTouch ends the contexts of runs whose policy says so when no beat was
// answered for so long that the job may have been given to another peer.
func (part *partition) loseTouch() {
	p := part.peer
	for _, r := range part.runs() {
		if r.policy.OnLost != Cancel {
			continue
		}
		sure := time.Unix(0, part.sure.Load())
		if r.started.After(sure) {
			sure = r.started
		}
		if time.Since(sure) > p.config.SilentAfter && r.ctx.Err() == nil {
			p.logger.Warn("a run is ended: no beat was answered for so long that it may be another peer's", "job", r.id, "epoch", r.epoch)
			r.cancel(ErrLost)
		}
	}
}

// lost ends the contexts of runs that the store says are not this peer's, and
// returns those that are new. A run that was settled while the beat was under
// way is none.
func (part *partition) lost(refs []RunRef) []string {
	var ids []string
	part.mu.Lock()
	defer part.mu.Unlock()
	for _, ref := range refs {
		if r := part.held[ref]; r != nil && !r.lost {
			r.lost = true
			r.cancel(ErrLost)
			ids = append(ids, ref.ID)
			part.peer.logger.Warn("a run was lost: the store has given the job up or to another peer", "job", ref.ID, "epoch", ref.Epoch)
		}
	}
	return ids
}

// unreported makes the next beat carry the progress that this one did not.
func (part *partition) unreported(rep report) {
	part.mu.Lock()
	defer part.mu.Unlock()
	for _, h := range rep.held {
		if r := part.held[RunRef{h.ID, h.Epoch}]; r != nil && h.Progress != nil {
			r.mu.Lock()
			r.news = true
			r.mu.Unlock()
		}
	}
}

// present shows the peer to readers, and learns whether it is drained.
func (p *Peer) present(ctx context.Context, fail func(error)) {
	number := p.shows.Add(1)
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	tokens, available, budget := p.ledger.state()
	info := PeerInfo{ID: p.id, Host: host, PID: os.Getpid(), Version: Version, Started: p.started,
		Tokens: tokens, Available: available, Load: budget.share, Hot: budget.hot,
		Reserve: p.config.Reserve, Running: p.ledger.inUse(), Closing: p.closing.Load(), Draining: p.draining.Load(), SilentAfter: p.config.SilentAfter, Built: p.config.Built}
	if sample := p.load.Load(); sample != nil {
		info.LoadKnown, info.Pressure = sample.Known, sample.Load.Pressure
	}
	for name, kind := range p.kinds {
		info.Kinds = append(info.Kinds, name)
		if kind.policy.Weight > 1 {
			if info.Weights == nil {
				info.Weights = map[string]int{}
			}
			info.Weights[name] = kind.policy.Weight
		}
	}
	slices.Sort(info.Kinds)
	for _, r := range p.held() {
		info.Jobs++
		r.mu.Lock()
		if r.progress.Stuck && len(info.Stuck) < 100 {
			info.Stuck = append(info.Stuck, r.id)
		}
		r.mu.Unlock()
	}
	drained, err := p.store.Present(ctx, info, false)
	p.mended(0, err)
	if ctx.Err() == nil {
		p.unseen.about(p.logger, err, "the peer could not show itself")
	}
	if errors.Is(err, ErrLayout) {
		fail(err)
	}
	if err == nil {
		p.drain(number, drained)
		signal(p.visible)
	}
}

// presentInTurn is present where there is news: one call at a time, so that what
// is shown in the end is the news, and one more for all that came meanwhile. Beats
// do not wait in this line: a call that hangs must not keep the next from being
// made.
func (p *Peer) presentInTurn(ctx context.Context, fail func(error)) {
	news := p.news.Add(1)
	if news > 1 {
		return
	}
	for {
		p.present(ctx, fail)
		if p.news.CompareAndSwap(news, 0) {
			return
		}
		news = p.news.Load()
	}
}

// drain takes in what the call of that number has answered, unless a later one
// was heard before.
func (p *Peer) drain(number int64, drained bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if number < p.shown {
		return
	}
	p.shown = number
	if p.draining.Swap(drained) == drained {
		return
	}
	if drained {
		p.logger.Info("drained: this peer claims nothing more until it is told to")
	} else {
		p.logger.Info("no longer drained: this peer claims again")
	}
	for _, part := range p.partitions {
		part.look.Store(true)
		part.kick()
	}
	p.beatAtOnce() // to show it
}
