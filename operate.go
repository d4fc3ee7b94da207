package dianemo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// An Operator's wishes. Each of these calls may be made by any process, on a
// Client or a Peer, and be repeated: it says what is to be, and a job that is so
// already stays as it is. While Redis can't be reached they wait and try again
// until ctx ends; then the error is the context's, with [ErrUnconfirmed] if
// anything was sent.

// Cancel ends jobs by someone's wish. One that waits ends cancelled at once. Of
// one that runs, the handler's context ends with cause [ErrCancelled], at once or,
// if no message reaches its peer, by the next beat; what the handler returns
// counts: nil is success, [Fail] is failure, and with anything else, a panic or
// a wish to be tried again too, the job ends cancelled. It is never started
// again, not even if its peer goes silent.
//
// A workflow is cancelled by its id: when Cancel returns, those of its jobs that had not
// started are cancelled, and those that run are as said before; it ends with the last of
// them. If ctx ends before that, the error says so, and the leader goes on.
//
// Cancelling a job that is cancelled already changes nothing and is no error.
// Errors, by themselves for one id and in a [BatchError] in order for several:
// [ErrNotFound]; a [StateError] for a job that has ended otherwise; [ErrMoved].
func (c *Client) Cancel(ctx context.Context, ids ...string) error {
	return c.wish(ctx, EdgeCancel, c.hooks.Cancel, ids, c.store.Cancel)
}

// Requeue makes jobs that have ended, however they have, wait again: due now,
// with all their retries and reruns before them, and without their results. The
// errors of earlier runs are kept.
//
// Errors as with Cancel: [ErrNotFound]; a [StateError] for a job that has not
// ended; an [ExistsError] if another job has its unique key; [ErrMoved].
func (c *Client) Requeue(ctx context.Context, ids ...string) error {
	return c.wish(ctx, EdgeRequeue, c.hooks.Requeue, ids, c.requeue)
}

func (c *Client) requeue(ctx context.Context, partition int, call Call, ids []string) (WishReply, error) {
	return c.store.Requeue(ctx, partition, call, ids, false)
}

// A Change is what [Client.Reschedule] changes. At least one field must be set.
type Change struct {
	// RunAt is when the job is due; for now, say time.Now(). Grace counts from it.
	RunAt time.Time
	// Delay makes it due that long after the store takes the change. At most one
	// of RunAt and Delay may be set.
	Delay time.Duration
	// Priority is 1 to 9. The job keeps its grace; retries and reruns that neither
	// it nor its kind sets are those of the new priority.
	Priority int
}

func (ch Change) check() error {
	if ch == (Change{}) {
		return &FieldError{"Change", "empty", "at least one of RunAt, Delay and Priority"}
	}
	if err := checkDue("Change", ch.RunAt, ch.Delay); err != nil {
		return err
	}
	return checkCount("Change.Priority", ch.Priority, 1, 9, false)
}

// Reschedule changes when a job that waits is due, or its priority: one that was
// never started, or one that waits for its next try.
//
// Errors: a [FieldError]; [ErrNotFound]; a [StateError] for a job that does not
// wait; [ErrMoved].
func (c *Client) Reschedule(ctx context.Context, id string, change Change) error {
	if err := change.check(); err != nil {
		return err
	}
	return c.wish(ctx, EdgeReschedule, c.hooks.Reschedule, []string{id},
		func(ctx context.Context, partition int, call Call, ids []string) (WishReply, error) {
			return c.store.Reschedule(ctx, partition, call, ids, change)
		})
}

// wishJobs is how many jobs a call asks about: half of what it may, which keeps
// the store for about 2 ms.
const wishJobs = MaxCallJobs / 2

// wish asks one thing of these jobs, and has an error for each that it was not
// done to.
func (c *Client) wish(ctx context.Context, edge Edge, hook func(WishInfo), ids []string,
	ask func(context.Context, int, Call, []string) (WishReply, error)) error {
	for _, id := range ids {
		if err := CheckName("id", id); err != nil {
			return err
		}
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	places := make(map[string][]int, len(ids)) // an id may be given twice
	var each []string
	for i, id := range ids {
		if places[id] == nil {
			each = append(each, id)
		}
		places[id] = append(places[id], i)
	}
	errs := make([]error, len(ids))
	failed := false
	s := &series{edge: edge, hook: hook, ask: ask}
	broken := c.askAll(ctx, s, each, func(info WishInfo, _ bool) {
		for _, i := range places[info.ID] {
			errs[i] = info.Err
		}
		failed = failed || info.Err != nil
	})
	switch {
	case !failed:
		return broken
	case len(ids) == 1:
		return errs[0]
	}
	return &BatchError{errs}
}

// A series of calls that ask the same thing of jobs. They are one caller's, so that
// the store keeps one answer of them in each partition.
type series struct {
	edge Edge
	hook func(WishInfo)
	ask  func(context.Context, int, Call, []string) (WishReply, error)
	call Call // the last
}

// askAll asks one thing of many jobs, no id twice: in pieces, each in one step, and
// again for those that have moved meanwhile. tell is called for each, answered or
// not; the error is the first for which there was no answer.
func (c *Client) askAll(ctx context.Context, s *series, ids []string, tell func(info WishInfo, answered bool)) error {
	pieces := map[int][]string{}
	for _, id := range ids {
		partition := c.store.Partition(id)
		pieces[partition] = append(pieces[partition], id)
	}
	if s.call.Caller == "" {
		s.call.Caller = uuid.NewString()
	}
	var broken error
	for partition, rest := range pieces {
		for try := 1; len(rest) > 0; try++ {
			piece := rest[:min(len(rest), wishJobs)]
			rest = rest[len(piece):]
			s.call.Number++
			var reply WishReply
			err := c.insist(ctx, string(s.edge), func() (err error) {
				reply, err = s.ask(ctx, partition, s.call, piece)
				c.mended(partition, err)
				return err
			})
			if err != nil {
				if broken == nil {
					broken = err
				}
				for _, id := range piece {
					info := WishInfo{ID: id, Err: err}
					tell(info, false)
					s.hook(info)
				}
				continue // ctx has ended, and so will the others
			}
			var moved []string
			workflows := false
			beat := map[string]bool{}
			for _, job := range reply.Jobs {
				if errors.Is(job.Err, ErrMoved) && try < maxMoves {
					moved = append(moved, job.ID)
					continue
				}
				if job.Peer != "" {
					beat[job.Peer] = true
				}
				workflows = workflows || job.Err == nil && IsWorkflow(job.Kind)
				info := WishInfo{job.ID, job.Kind, job.Priority, job.State, job.Err}
				tell(info, true)
				s.hook(info)
			}
			for peer := range beat {
				if err := c.store.Tell(ctx, peer, Message{Word: BeatNow, Partition: partition}); err != nil {
					c.logger.Debug("a peer was not told that its job is cancelled; its next beat will do", "peer", peer, "err", err)
				}
			}
			c.wake(partition, "", reply.News...)
			switch {
			case s.edge == EdgeCancel && workflows:
				// Its jobs have heard of it when this returns.
				if err := c.deliverUntilNow(ctx, partition); err != nil && broken == nil {
					broken = err
				}
			case s.edge == EdgeCancel, s.edge == EdgeRequeue:
				c.releaseHeirs(partition)
			}
			if rest = append(rest, moved...); len(moved) < len(piece) {
				try = 0 // it gets on
			}
		}
	}
	return broken
}

// enter opens the store and counts a call among what Close waits for. The
// returned context also ends when the client is closed.
func (c *Client) enter(ctx context.Context) (context.Context, func(), error) {
	if err := c.open(ctx); err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	c.sends.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		c.sends.Done()
	}, nil
}

// insist makes the same call until it is answered or ctx ends.
func (c *Client) insist(ctx context.Context, what string, call func() error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("dianemo: %s: %w", what, context.Cause(ctx))
	}
	for attempt := 1; ; attempt++ {
		err := call()
		switch {
		case err == nil || isFinal(err):
			return err
		case attempt == 1 && ctx.Err() == nil:
			c.logger.Warn("the store does not answer; trying again", "call", what, "err", err)
		}
		if !pause(ctx, backoff(attempt, 20*time.Millisecond, time.Second)) {
			return fmt.Errorf("%w: %w (%w)", ErrUnconfirmed, context.Cause(ctx), err)
		}
	}
}

// isFinal reports whether the same call would be answered in the same way.
func isFinal(err error) bool {
	for _, final := range []error{ErrNoPeer, ErrNoSchedule, ErrInvalid, ErrSuperseded, ErrMoved, ErrNewer, ErrDeposed, ErrStoreFull} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// Pause leaves a kind's jobs where they wait, in the whole fleet, until
// [Client.Resume]: they are not started. Those that run go on, and new ones are
// accepted. Grace goes on, too: jobs for which it is over are missed, as they
// are where no peer has the handler. Any kind may be paused, known or not.
//
// If it fails, some partitions are paused and others not; the same call again
// finishes it.
func (c *Client) Pause(ctx context.Context, kind string) error { return c.setPaused(ctx, kind, true) }

// Resume ends a pause. It is no error if there is none. If it fails, the same
// call again finishes it.
func (c *Client) Resume(ctx context.Context, kind string) error {
	return c.setPaused(ctx, kind, false)
}

func (c *Client) setPaused(ctx context.Context, kind string, on bool) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	what := "resume"
	if on {
		what = "pause"
	}
	for partition := range c.store.Partitions() {
		if err := c.insist(ctx, what, func() error { return c.store.Pause(ctx, partition, kind, on) }); err != nil {
			return fmt.Errorf("%s kind %s: done in %d of %d partitions, not in the others; the same call again finishes it: %w",
				what, kind, partition, c.store.Partitions(), err)
		}
	}
	if !on {
		if err := c.store.Tell(ctx, "", Message{Word: Look, Partition: Everywhere, Kind: kind}); err != nil {
			c.logger.Debug("the peers were not told of a resumed kind; their rounds will do", "kind", kind, "err", err)
		}
	}
	return nil
}

// Paused lists the paused kinds, in order. Like all reading, it does not try
// again while Redis can't be reached.
func (c *Client) Paused(ctx context.Context) ([]string, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	return c.store.Paused(ctx)
}

// Drain has a peer claim nothing more until [Client.Undrain]; what it runs goes
// on. The peer hears of it at once or, if no message reaches it, when it next
// shows itself; then [PeerInfo] says Draining. A restarted process is another
// peer, and is not drained. It returns [ErrNoPeer] if no peer of this id has
// shown itself in the last day.
func (c *Client) Drain(ctx context.Context, peer string) error { return c.setDrained(ctx, peer, true) }

// Undrain has a drained peer claim again. It is no error if it was not drained.
func (c *Client) Undrain(ctx context.Context, peer string) error {
	return c.setDrained(ctx, peer, false)
}

func (c *Client) setDrained(ctx context.Context, peer string, on bool) error {
	if err := CheckName("peer", peer); err != nil {
		return err
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	what := "undrain"
	if on {
		what = "drain"
	}
	if err := c.insist(ctx, what, func() error { return c.store.Drain(ctx, peer, on) }); err != nil {
		return err
	}
	if err := c.store.Tell(ctx, peer, Message{Word: ShowNow}); err != nil {
		c.logger.Debug("a peer was not told; it learns it when it next shows itself", "peer", peer, "err", err)
	}
	return nil
}
