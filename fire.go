package dianemo

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// The leader fires the schedules: it knows when the first one of each partition is
// due, sleeps until then, reads those that are due, decides, and has the store do
// it. Others do so only where it would be late: who has settled an occurrence for
// whose end another one waits, and who changes a schedule that is due. Nothing
// depends on there being one at a time: a firing counts only from the cursor that it
// was decided by.

// clock is when the first schedule of a partition is due.
type clock struct {
	mu     sync.Mutex
	head   time.Time     // by the store's clock; zero: never
	ahead  time.Duration // the store's clock less ours
	firing bool          // they are being fired
	heard  uint64        // how often it was told to look at once
}

// wakes is how often the clock was told to look at once: for who is about to read.
func (k *clock) wakes() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.heard
}

// set takes in what was read after it had been woken that often. If it was woken
// since, that was perhaps read too early, and it looks again.
func (k *clock) set(wakes uint64, head time.Time, ahead time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.heard == wakes {
		k.head, k.ahead = head, ahead
	}
}

// now makes it look at once.
func (k *clock) now() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.head, k.ahead = time.Unix(0, 0), 0
	k.heard++
}

// start reports whether it is time to fire, and if not, when it will be by our
// clock; zero: not before something is heard.
func (k *clock) start() (bool, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.firing || k.head.IsZero() {
		return false, time.Time{}
	}
	at := k.head.Add(-k.ahead)
	k.firing = !at.After(time.Now())
	return k.firing, at
}

func (k *clock) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.firing = false
}

// fires is the leader's loop.
func (p *Peer) fires(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	var checked atomic.Int64 // the term in which all schedules were looked at last
	var at time.Time
	for {
		if term := p.leading(); term != 0 && (term != checked.Load() || time.Since(at) > checkEvery) {
			at = time.Now()
			checked.Store(term)
			under.Go(func() {
				err := p.checkSchedules(ctx, term)
				p.mended(0, err)
				p.unchecked.about(p.logger, err, "the schedules could not all be checked; the next round tries again")
				if err != nil {
					checked.Store(0)
				}
			})
		}
		var next time.Time
		for _, part := range p.partitions {
			if p.leading() == 0 {
				break // when it leads, a round comes first
			}
			now, at := part.clock.start()
			if now {
				// A partition that does not answer must not keep the others waiting.
				under.Go(func() {
					part.fire(ctx)
					part.clock.stop()
					signal(p.fireSoon)
				})
			} else if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		var alarm <-chan time.Time
		if !next.IsZero() {
			alarm = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-p.fireSoon:
		case <-alarm:
		}
	}
}

// fireNow makes the leader look at the schedules of a partition, or of all.
func (p *Peer) fireNow(partition int, all bool) {
	for i, part := range p.partitions {
		if all || i == partition {
			part.clock.now()
		}
	}
	signal(p.fireSoon)
}

// fire fires what is due in the partition. What can't be fired, as the record of a
// newer version, stays due and stands in front of the others: it is passed over, and
// comes round with the next survey.
func (part *partition) fire(ctx context.Context) {
	p := part.peer
	offset := 0         // how many were passed over
	var began time.Time // by the store's clock, when the first of all was looked at last
	var wakes uint64    // before that
	for ctx.Err() == nil {
		term := p.leading()
		if term == 0 {
			return
		}
		if offset == 0 {
			wakes = part.clock.wakes()
		}
		begin := time.Now()
		reply, err := p.store.Schedules(ctx, part.number, nil, offset)
		done := false
		switch {
		case err != nil:
			p.mended(part.number, err)
		case reply.Asked == 0 && reply.Due >= offset:
			part.clock.set(wakes, reply.Later, reply.Now.Sub(begin.Add(time.Since(begin)/2)))
			part.unfired.about(p.logger, nil, "")
			return
		case offset > 0 && reply.overtakes(began):
			// Some that were passed over are gone, and others have moved up; or what is due
			// now was not when this began, and may come again and again. So the first once more.
			offset = 0
			continue
		default:
			if offset == 0 {
				began = reply.Now
			}
			done, err = p.fire(ctx, part.number, term, reply)
		}
		if errors.Is(err, ErrDeposed) {
			p.depose()
			return
		}
		if ctx.Err() == nil {
			part.unfired.about(p.logger, err, "schedules that are due could not be fired; the next round tries again", "partition", part.number)
		}
		if err != nil { // the rounds come back to it
			part.clock.set(wakes, time.Time{}, 0)
			return
		}
		if !done {
			offset += reply.Asked // else those that are left are now there where these were
		}
	}
}

// overtakes reports whether this page has nothing that was due at that time.
func (r *SchedulesReply) overtakes(began time.Time) bool {
	return r.Asked == 0 || len(r.Schedules) > 0 && r.Schedules[0].Next.After(began)
}

// fire decides about schedules as they were read, and has the store do it. It
// reports whether that has changed anything.
func (c *Client) fire(ctx context.Context, partition int, term int64, read SchedulesReply) (done bool, err error) {
	var batch []Firing
	jobs, bytes := 0, 0
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		fired, err := c.sendFirings(ctx, partition, Fire{Term: term, Firings: batch}, read.Now)
		done = done || fired
		batch, jobs, bytes = nil, 0, 0
		return err
	}
	for i := range read.Schedules {
		s := &read.Schedules[i]
		if s.State == Paused || s.State == Broken {
			continue
		}
		d, err := s.decode()
		if errors.Is(err, ErrNewer) {
			continue
		}
		var f Firing
		if err == nil {
			f, err = d.decide(s, read.Now)
		}
		if err != nil {
			broken, err := c.breakSchedule(ctx, partition, s, err)
			if err != nil {
				return done, err
			}
			done = done || broken
			continue
		}
		if len(f.Occurrences) == 0 && !f.Pending && f.To.Equal(s.Cursor) && f.Next.Equal(s.Next) {
			continue
		}
		size := 0
		for _, o := range f.Occurrences {
			size += len(o.Spec)
		}
		if len(batch) == duePerFire || jobs+len(f.Occurrences) > MaxCallJobs/2 || bytes+size > MaxFireBytes {
			if err := send(); err != nil {
				return done, err
			}
		}
		batch, jobs, bytes = append(batch, f), jobs+len(f.Occurrences), bytes+size
	}
	return done, send()
}

// duePerFire is how many schedules one call fires.
const duePerFire = 100

// checkEvery is how often the leader looks at all schedules, besides at the start of
// its term.
const checkEvery = time.Hour

// checkSchedules puts those right that have lost when they are due, and sets those
// aside that can't be read.
func (p *Peer) checkSchedules(ctx context.Context, term int64) error {
	for after, last := "", false; !last && p.leading() == term; {
		names, err := p.store.ScheduleNames(ctx, after, MaxList)
		if err != nil {
			return err
		}
		if last = len(names) < MaxList; !last {
			after = names[MaxList-1]
		}
		err = p.eachSchedules(ctx, names, func(partition int, read SchedulesReply) error {
			_, err := p.fire(ctx, partition, term, read)
			return err
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrDeposed) {
			return err
		}
	}
	return nil
}

// sendFirings makes one call and tells of what it has done.
func (c *Client) sendFirings(ctx context.Context, partition int, fire Fire, now time.Time) (done bool, err error) {
	var reply FireReply
	err = c.inTurn(ctx, partition, "fire", func(call Call) (err error) {
		reply, err = c.store.Fire(ctx, partition, call, fire)
		return err
	})
	if err != nil {
		return false, err
	}
	for i, fired := range reply.Fired {
		f := &fire.Firings[i]
		if !fired.Done {
			continue
		}
		done = true
		missed := f.Unrecorded.Count
		for j, o := range f.Occurrences {
			if state := fired.States[j]; state != "" {
				if state == Missed {
					missed++
				}
				c.hooks.Fire(FireInfo{f.Name, o.ID, o.Lane.Kind, o.Lane.Priority, o.At, state, max(now.Sub(o.RunAt), 0)})
			}
		}
		if missed > 0 {
			c.logger.Warn("occurrences of a schedule were missed", "schedule", f.Name, "missed", missed, "unrecorded", f.Unrecorded.Count, "until", f.To)
		}
	}
	c.unfoldSoon(partition, flowsOf(fire.Firings, reply))
	c.wake(partition, "", reply.News...)
	if reply.First && fire.Term == 0 {
		c.wake(partition, "", News{Fire: true})
	}
	return done, nil
}

// breakSchedule sets a schedule aside that can't be fired.
func (c *Client) breakSchedule(ctx context.Context, partition int, s *StoredSchedule, why error) (bool, error) {
	wish := ScheduleWish{Name: s.Name, What: BreakIt, Version: s.Version, Reason: trim(why.Error(), maxError)}
	if s.Err != nil {
		wish.Version = AnyVersion
	}
	_, err := c.setSchedule(ctx, partition, wish)
	if errors.Is(err, ErrMoved) || errors.Is(err, ErrNoSchedule) || errors.Is(err, ErrNewer) {
		return false, nil // it is another by now, or a newer version's
	}
	if err == nil {
		c.logger.Error("a schedule is set aside; PutSchedule mends it", "schedule", s.Name, "err", why)
	}
	return err == nil, err
}

// decode reads the definition, or says why it can't be fired.
func (s *StoredSchedule) decode() (*definition, error) {
	switch {
	case s.Err != nil:
		return nil, s.Err
	case s.Definition == nil:
		return nil, errors.New("its definition is gone")
	case s.Version == 0:
		return nil, errors.New("its cursor is gone")
	}
	return decodeDefinition(s.Definition)
}

// setSchedule makes one call, and tells the leader if the schedule is now the first
// to be due.
func (c *Client) setSchedule(ctx context.Context, partition int, wish ScheduleWish) (first bool, err error) {
	err = c.inTurn(ctx, partition, string(wish.What)+" schedule", func(call Call) (err error) {
		first, err = c.store.SetSchedule(ctx, partition, call, wish)
		return err
	})
	if first {
		c.wake(partition, "", News{Fire: true})
	}
	return first, err
}

// inTurn makes a call about schedules until it is answered: one at a time in each
// partition, so that its number tells one that is sent again from a new one.
func (c *Client) inTurn(ctx context.Context, partition int, what string, call func(Call) error) error {
	box := (*c.boxes.Load())[partition]
	select {
	case box.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-box.turn }()
	box.calls++
	return c.insist(ctx, what, func() error {
		err := call(Call{c.id, box.calls})
		c.mended(partition, err)
		return err
	})
}

// fireNamed looks at these schedules whether or not they are due.
func (c *Client) fireNamed(ctx context.Context, partition int, names ...string) error {
	read, err := c.store.Schedules(ctx, partition, names, 0)
	if err != nil {
		return err
	}
	_, err = c.fire(ctx, partition, 0, read)
	return err
}

// follow fires what waits for the end of these runs.
func (part *partition) follow(settle []finished) {
	var names []string
	for _, f := range settle {
		if spec := f.run.spec; spec != nil && spec.Follow && f.settlement.Outcome.state().Finished() {
			names = append(names, spec.Schedule)
		}
	}
	if len(names) == 0 {
		return
	}
	p := part.peer
	p.sends.Go(func() {
		if err := p.fireNamed(p.ctx, part.number, names...); err != nil && p.ctx.Err() == nil {
			p.logger.Debug("schedules that waited were not fired at once; the leader does it", "err", err)
		}
	})
}
