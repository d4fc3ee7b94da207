package dianemo

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// MaxSweep is the most jobs that one RequeueAll or CancelAll treats.
const MaxSweep = 10_000

// sweepPages is how many pages of a list one call reads at most: a page may hold few
// jobs or none, where few of those that it looked at match.
const sweepPages = 50

// A Sweep is what one RequeueAll or CancelAll did.
type Sweep struct {
	// Done are the jobs that are as wished, of which some may have been so before.
	Done int
	// Refused are those that matched when they were listed and could not be changed:
	// they had moved on or gone by then, another job has their unique key, or their
	// records can't be read. The hooks are told of each, and why.
	Refused int
	// Next is what Filter.After must be in the call that goes on; "" if nothing is
	// left.
	Next string
}

// RequeueAll does what [Client.Requeue] does to all jobs that match. One call is
// bounded: Filter.Limit, at most MaxSweep and that by default, is how many jobs it
// treats, and it looks at about half a million. The same call with Filter.After
// set to the Next of the last Sweep goes on, until Next is "":
//
//	for more := true; more; more = filter.After != "" {
//		sweep, err := client.RequeueAll(ctx, filter)
//		if err != nil {
//			return err
//		}
//		done, filter.After = done+sweep.Done, sweep.Next
//	}
//
// Filter.States may name those that have ended; none: all of these but Succeeded,
// since what has succeeded is done again only if someone says so.
//
// One that fails again is not requeued again by the same sweep: Filter.To is, at
// most, the store's time at the first call, and Next carries it. Where the nodes of
// a cluster differ in their clocks, that is as exact as they agree.
//
// Jobs that moved on meanwhile are counted, and are no error. Errors: a
// [FieldError]; [ErrLayout]; [ErrClosed]; the context's if it ends first, with
// [ErrUnconfirmed] if anything was sent. With an error the Sweep says what is known
// to be done, and its Next goes on with what may not have been: some jobs of one
// page may then be counted as neither, or twice.
func (c *Client) RequeueAll(ctx context.Context, filter Filter) (Sweep, error) {
	return c.sweep(ctx, filter, &series{edge: EdgeRequeue, hook: c.hooks.Requeue, ask: c.requeue})
}

// CancelAll does what [Client.Cancel] does to all jobs that match, within the bounds
// of [Client.RequeueAll], and goes on and fails like it. Filter.States may name those
// that have not ended; none: all of these.
//
// Jobs that come, or move, while it is under way may be left out. Where producers go
// on, set Filter.To, or it may have no end.
func (c *Client) CancelAll(ctx context.Context, filter Filter) (Sweep, error) {
	return c.sweep(ctx, filter, &series{edge: EdgeCancel, hook: c.hooks.Cancel, ask: c.store.Cancel})
}

// sweep lists and asks, page by page.
func (c *Client) sweep(ctx context.Context, filter Filter, s *series) (Sweep, error) {
	at, limit, listing, err := sweeping(filter, s.edge)
	if err != nil {
		return Sweep{}, err
	}
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return Sweep{Next: filter.After}, err
	}
	defer leave()
	sweep := Sweep{Next: filter.After}
	treated := map[string]bool{} // one that moves may be listed twice
	for range sweepPages {
		listing.After, listing.Limit = at.Place, min(limit-len(treated), MaxList)
		var page ListReply
		err := c.insist(ctx, "list", func() (err error) {
			page, err = c.store.List(ctx, listing)
			return err
		})
		if err != nil {
			return sweep, err
		}
		if s.edge == EdgeRequeue && at.ended.IsZero() {
			// Times are kept to the millisecond. What ended before the list was asked for is in; what is requeued in
			// a later one can't end in the same.
			at.ended = page.Now.Truncate(time.Millisecond).Add(time.Millisecond)
			at.bound(&listing)
			sweep.Next = at.cursor()
			if !pause(ctx, time.Millisecond) {
				return sweep, fmt.Errorf("dianemo: %s: %w", s.edge, context.Cause(ctx))
			}
		}
		var ids []string
		for i := range page.Jobs {
			if id := page.Jobs[i].Info.ID; !treated[id] {
				treated[id] = true
				ids = append(ids, id)
			}
		}
		err = c.askAll(ctx, s, ids, func(info WishInfo, answered bool) {
			switch {
			case info.Err == nil:
				sweep.Done++
			case answered:
				sweep.Refused++
			}
		})
		if err != nil {
			return sweep, err
		}
		if page.Next == (Place{}) {
			sweep.Next = ""
			return sweep, nil
		}
		at.Place = page.Next
		if sweep.Next = at.cursor(); len(treated) == limit {
			break
		}
	}
	return sweep, nil
}

// sweeping checks a filter, and reads where to begin, how many jobs to treat and
// what to list.
func sweeping(filter Filter, edge Edge) (at sweepPlace, limit int, listing Listing, err error) {
	allowed := sweepable(edge)
	for _, s := range filter.States {
		if !slices.Contains(allowed, s) {
			return at, 0, listing, &FieldError{"Filter.States", string(s), fmt.Sprintf("%s, for %s", allowed, edge)}
		}
	}
	if filter.Limit < 0 || filter.Limit > MaxSweep {
		return at, 0, listing, &FieldError{"Filter.Limit", filter.Limit, fmt.Sprintf("1 to %d, or 0 for %[1]d", MaxSweep)}
	}
	if filter.After != "" {
		var ok bool
		if at, ok = parseSweep(filter.After); !ok || (edge == EdgeRequeue) == at.ended.IsZero() {
			return at, 0, listing, &FieldError{"Filter.After", filter.After, "the Next of a Sweep of the same sort, as it was"}
		}
	}
	limit = inherit(filter.Limit, MaxSweep)
	filter.Limit, filter.After = 0, ""
	listing = Listing{Filter: filter, Bare: true}
	if err = listing.fill(); err != nil {
		return at, 0, listing, err
	}
	if len(filter.States) == 0 {
		listing.States = slices.DeleteFunc(allowed, func(s State) bool { return s == Succeeded })
	}
	at.bound(&listing)
	return at, limit, listing, nil
}

// sweepable are the states, as readers tell them apart, that the edge may take a job
// from.
func sweepable(edge Edge) []State {
	var states []State
	for _, s := range readable {
		stored := s
		if s == Queued || s == Retrying {
			stored = Scheduled
		}
		if Edges[stored][edge] != nil {
			states = append(states, s)
		}
	}
	return states
}

// A sweepPlace is where a sweep goes on.
type sweepPlace struct {
	Place           // the zero Place: at the beginning
	ended time.Time // of a requeue: only what ended before
}

// bound keeps a listing to what had ended when the sweep began.
func (p sweepPlace) bound(l *Listing) {
	if !p.ended.IsZero() && (l.To.IsZero() || p.ended.Before(l.To)) {
		l.To = p.ended
	}
}

// Its cursor differs from a list's by the version.
const sweepVersion = 's'

func (p sweepPlace) cursor() string {
	b := []byte{sweepVersion}
	for _, t := range []time.Time{p.ended, p.Time} {
		us := int64(0)
		if !t.IsZero() {
			us = t.UnixMicro()
		}
		b = binary.BigEndian.AppendUint64(b, uint64(us))
	}
	return seal(append(b, p.ID...))
}

func parseSweep(s string) (sweepPlace, bool) {
	b, ok := unseal(s)
	if !ok || len(b) < 17 || b[0] != sweepVersion {
		return sweepPlace{}, false
	}
	var p sweepPlace
	if us := int64(binary.BigEndian.Uint64(b[1:])); us > 0 {
		p.ended = time.UnixMicro(us)
	}
	if p.ID = string(b[17:]); p.ID != "" {
		p.Time = time.UnixMicro(int64(binary.BigEndian.Uint64(b[9:])))
	}
	// An id that is none is left to the store: something broken may stand in an index.
	return p, (p.ID == "" || p.Time.UnixMicro() >= 0) && p.cursor() == s
}
