package main

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// A clock is the store's with -fast: it stands still until next moves it. A nil
// clock is the real time.
type clock struct {
	store    *embedded.Store
	now, end time.Time
	asleep   chan nap // from handlers
	naps     []nap
}

// A nap is a handler at work.
type nap struct {
	takes time.Duration
	until time.Time
	wake  chan struct{}
}

func newClock(begin, end time.Time) *clock {
	return &clock{now: begin, end: end, asleep: make(chan nap)}
}

// drive takes over the clock of a store.
func (c *clock) drive(store *embedded.Store) {
	if c != nil {
		c.store = store
		store.SetTime(c.now)
	}
}

// configure fits a peer to it. A peer's own timers are real: it has to look often,
// and must not be taken for silent because hours pass in no time.
func (c *clock) configure(config *dianemo.Config) {
	if c != nil {
		config.BeatEvery, config.SilentAfter, config.Lease = 25*time.Millisecond, 24*time.Hour, 24*time.Hour
	}
}

// sleep is what handlers do in place of work.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	if c == nil {
		_, err := receive(ctx, time.After(d))
		return err
	}
	n := nap{takes: d, wake: make(chan struct{})}
	select {
	case c.asleep <- n:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, err := receive(ctx, n.wake)
	return err
}

// next returns jobs that have ended. It moves the clock to the next event, an
// occurrence that is due or a handler that is done, and waits until all is done
// that comes of it. It returns io.EOF where the clock ends.
func (c *clock) next(ctx context.Context, peer *dianemo.Peer, schedules int, ended <-chan string) (ids []string, err error) {
	if c == nil {
		id, err := receive(ctx, ended)
		if err != nil {
			return nil, err
		}
		return []string{id}, nil
	}
	list, err := made(ctx, peer, schedules)
	if err != nil {
		return nil, err
	}
	now := c.end
	for _, s := range list {
		if !s.Next.IsZero() && s.Next.Before(now) { // while a clean-up runs, there is no next one
			now = s.Next
		}
	}
	for _, n := range c.naps {
		if n.until.Before(now) {
			now = n.until
		}
	}
	if !now.Before(c.end) {
		return nil, io.EOF
	}
	c.store.SetTime(now)

	events := 0 // for each, a job ends or begins to work
	for _, s := range list {
		if s.Next.Equal(now) {
			events++
		}
	}
	c.naps = slices.DeleteFunc(c.naps, func(n nap) bool {
		over := !n.until.After(now)
		if over {
			close(n.wake)
			events++
		}
		return over
	})
	for range events {
		select {
		case id := <-ended:
			ids = append(ids, id)
		case n := <-c.asleep:
			n.until = now.Add(n.takes)
			c.naps = append(c.naps, n)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	slices.Sort(ids) // what happens at one time has no order
	return ids, nil
}

// made lists the schedules once Run has made them all, which no hook tells.
func made(ctx context.Context, peer *dianemo.Peer, schedules int) ([]dianemo.ScheduleInfo, error) {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		list, err := peer.ListSchedules(ctx, "", schedules)
		if err != nil || len(list) == schedules {
			return list, err
		}
		if _, err := receive(ctx, again.C); err != nil {
			return nil, err
		}
	}
}

// receive waits for a signal, or until ctx ends.
func receive[T any](ctx context.Context, from <-chan T) (v T, err error) {
	select {
	case v = <-from:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return v, err
}
