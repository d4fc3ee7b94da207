package dianemo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Wait returns the job once it has ended, however it did. It asks the store
// again and again: at first every 5 ms, then each time after an eighth of the time
// waited so far, at most after half a second; so the news comes within an eighth
// of the time that the job took, and half a second at most, besides a round trip.
// All waits of one client ask together, so it may have thousands.
//
// While Redis can't be reached it goes on. It returns the context's error when
// that ends first, with what went wrong in the end if anything did; [ErrNotFound]
// when there is no such job, also when retention removed it between its end and the
// next question; [ErrClosed] when the client is closed. A job whose record can't be
// read ends the wait with that error.
func (c *Client) Wait(ctx context.Context, id string) (*JobInfo, error) {
	if err := CheckName("id", id); err != nil {
		return nil, err
	}
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	w := &waiter{id: id, begun: now, due: now, told: make(chan waited, 1)}
	if err := c.watch(w); err != nil {
		return nil, err
	}
	select {
	case end := <-w.told:
		return end.job, end.err
	case <-ctx.Done():
	}
	failed := c.waits.leave(w)
	select {
	case end := <-w.told: // at the last moment
		return end.job, end.err
	default:
	}
	if failed != nil {
		return nil, fmt.Errorf("dianemo: wait for job %s: %w (%w)", id, ctx.Err(), failed)
	}
	return nil, fmt.Errorf("dianemo: wait for job %s: %w", id, ctx.Err())
}

// waits are a client's waits that are not over. One goroutine asks for all of
// them; it is there while there are any.
type waits struct {
	mu     sync.Mutex
	all    map[*waiter]bool
	asking bool          // the goroutine is there
	failed error         // why the last question was not answered
	kicked chan struct{} // has room for one: a wait has joined
	unsaid complaint
}

type waiter struct {
	id         string
	begun, due time.Time   // due: when to ask next; guarded by waits.mu
	told       chan waited // has room for the one answer
}

type waited struct {
	job *JobInfo
	err error
}

// Bounds of the time between two questions for one job.
const (
	askFirst = 5 * time.Millisecond
	askLast  = 500 * time.Millisecond
)

func (w *waiter) interval(now time.Time) time.Duration {
	return min(max(now.Sub(w.begun)/8, askFirst), askLast)
}

func (c *Client) watch(w *waiter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.waits.mu.Lock()
	defer c.waits.mu.Unlock()
	c.waits.all[w] = true
	if !c.waits.asking {
		c.waits.asking = true
		c.sends.Go(c.ask)
	}
	select {
	case c.waits.kicked <- struct{}{}:
	default:
	}
	return nil
}

func (ws *waits) leave(w *waiter) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.all, w)
	return ws.failed
}

func (ws *waits) tell(w *waiter, end waited) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all[w] {
		delete(ws.all, w)
		w.told <- end
	}
}

// ask asks for all waits until there are none, or the client is closed.
func (c *Client) ask() {
	ws := &c.waits
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, sleep := ws.next(time.Now())
		if c.ctx.Err() != nil {
			ws.end()
			return
		}
		switch {
		case len(due) > 0:
			c.askFor(due)
		case sleep < 0:
			return
		default:
			timer.Reset(sleep)
			select {
			case <-timer.C:
			case <-ws.kicked:
			case <-c.ctx.Done():
			}
		}
	}
}

// next returns the waits that are to be asked for now, at most as many as one
// call carries, or how long there is nothing to ask; a negative time if there are
// no waits: then asking is over. Those that would be asked for soon, within a
// quarter of their interval, go with those that are due.
func (ws *waits) next(now time.Time) (due []*waiter, sleep time.Duration) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.all) == 0 {
		ws.asking = false
		return nil, -1
	}
	first := true
	for w := range ws.all {
		if left := w.due.Sub(now); first || left < sleep {
			first, sleep = false, left
		}
	}
	if sleep > 0 {
		return nil, sleep
	}
	for w := range ws.all {
		if every := w.interval(now); len(due) < MaxCallJobs && w.due.Sub(now) <= every/4 {
			w.due = now.Add(every)
			due = append(due, w)
		}
	}
	return due, 0
}

// end tells all that the client is closed.
func (ws *waits) end() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		w.told <- waited{err: ErrClosed}
	}
	clear(ws.all)
	ws.asking = false
}

// askFor asks once for these, and reads the jobs that have ended.
func (c *Client) askFor(due []*waiter) {
	ids := make([]string, len(due))
	for i, w := range due {
		ids[i] = w.id
	}
	standings, err := c.store.Standings(c.ctx, ids)
	c.heard(err)
	if err != nil {
		return
	}
	var reads sync.WaitGroup
	room := make(chan struct{}, 8) // reads at a time
	for i, standing := range standings {
		w, state := due[i], standing.State
		if state != "" && state != Unreadable && !state.Finished() {
			continue
		}
		room <- struct{}{}
		reads.Go(func() {
			defer func() { <-room }()
			job, err := c.Get(c.ctx, w.id)
			switch {
			case err == nil && job.State.Finished(), errors.Is(err, ErrNotFound), err != nil && state == Unreadable:
				c.waits.tell(w, waited{job, err})
			default: // Redis has gone away, or the job was requeued: it is asked for again
				c.heard(err)
			}
		})
	}
	reads.Wait()
}

// heard keeps why the last question was not answered.
func (c *Client) heard(err error) {
	c.waits.mu.Lock()
	c.waits.failed = err
	c.waits.mu.Unlock()
	if c.ctx.Err() == nil {
		c.waits.unsaid.about(c.logger, err, "those who wait for a job's end can't be told; asking again")
	}
}
