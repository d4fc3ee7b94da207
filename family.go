package dianemo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
)

// A family is the jobs of one call and what they wait for. A workflow's jobs wait for
// its gate, all others each for one of its own.
type family struct {
	*Client
	workflow string // "" for none
	records  []Record
	errs     []error
	place    map[string]int // of the jobs, by id
	calls    Call
	by       uint64    // who says what they wait for
	shared   bool      // others may say the same: they are taken for one
	released []Release // what is to be told once all is there
	added    []string  // the jobs that it was this one who enqueued
}

func (c *Client) family(workflow string, records []Record) *family {
	f := &family{Client: c, workflow: workflow, records: records, errs: make([]error, len(records)), place: make(map[string]int, len(records)),
		calls: Call{Caller: uuid.NewString()}}
	for i := range records {
		f.place[records[i].ID] = i
	}
	f.sign(newTeller())
	return f
}

func newTeller() uint64 { return 1 + rand.Uint64N(1e15-1) }

// sign says who says what the jobs wait for.
func (f *family) sign(by uint64) {
	f.by = by
	for i := range f.records {
		if f.records[i].Blocked {
			f.records[i].Teller = by
		}
	}
}

// acceptFamily enqueues jobs of which some have parents: what they wait for first,
// then the jobs, and then it opens the gates.
func (c *Client) acceptFamily(ctx context.Context, records []Record) []error {
	f := c.family("", records)
	err := f.tell(ctx)
	if err == nil {
		err = f.link(ctx)
	}
	if err == nil {
		err = f.disown(ctx)
	}
	if err != nil {
		return f.fail(err)
	}
	f.enqueue(ctx)
	if err := f.open(ctx); err != nil {
		return f.fail(err)
	}
	return f.errs
}

// fail gives all that have no error this one.
func (f *family) fail(err error) []error {
	for i := range f.errs {
		if f.errs[i] == nil {
			f.errs[i] = err
		}
	}
	return f.errs
}

// depsCall bounds the edges of one call.
const depsCall = 500

// tell says what the jobs wait for.
func (f *family) tell(ctx context.Context) error { return f.need(ctx, TellIt, nil) }

// need tells it, or has it forgotten, for all or some of the jobs.
func (f *family) need(ctx context.Context, telling Telling, only func(i int) bool) error {
	gate := OwnGate
	if f.workflow != "" {
		gate = ItsGate
	}
	waits := map[int][]Wait{}
	for i, r := range f.records {
		if !r.Blocked || only != nil && !only(i) {
			continue
		}
		p := f.store.Partition(r.ID)
		for rest, first := r.Parents, true; first || len(rest) > 0; first = false {
			some := rest[:min(len(rest), depsCall)]
			rest = rest[len(some):]
			waits[p] = append(waits[p], Wait{r.ID, some, gate})
		}
	}
	return f.needAll(ctx, telling, waits)
}

// needAll says so in calls of a bounded size.
func (f *family) needAll(ctx context.Context, telling Telling, waits map[int][]Wait) error {
	for partition, all := range waits {
		for len(all) > 0 {
			n, edges := 0, 0
			for n < len(all) && (n == 0 || edges+len(all[n].Parents)+1 <= depsCall) {
				edges += len(all[n].Parents) + 1
				n++
			}
			var refused []bool
			err := f.insist(ctx, "enqueue", func() (err error) {
				refused, err = f.store.Need(ctx, partition, telling, f.by, all[:n])
				f.mended(partition, err)
				return err
			})
			if err != nil {
				return err
			}
			if telling == JoinIt && slices.Contains(refused, true) {
				return errTurned
			}
			all = all[n:]
		}
	}
	return nil
}

// link tells the parents of their children, and a workflow's jobs of it. A child of a
// parent that does not exist is refused.
func (f *family) link(ctx context.Context) error {
	type tie struct {
		Tie
		child     int
		on        Condition
		mayBeGone bool
	}
	ties := map[bool]map[int][]tie{true: {}, false: {}} // by whether the parent comes with this call
	for i, r := range f.records {
		for _, p := range r.Parents {
			_, here := f.place[p.ID]
			partition := f.store.Partition(p.ID)
			ties[here][partition] = append(ties[here][partition], tie{Tie{p.ID, r.ID}, i, p.On, p.MayBeGone})
		}
		if f.workflow != "" {
			partition := f.store.Partition(r.ID)
			ties[true][partition] = append(ties[true][partition], tie{Tie: Tie{r.ID, "|" + f.workflow}})
		}
	}
	for here, byPartition := range ties {
		how := LinkTo
		if here {
			how = ExpectOf
		}
		for partition, all := range byPartition {
			for some := range slices.Chunk(all, depsCall) {
				call := make([]Tie, len(some))
				for i, t := range some {
					call[i] = t.Tie
				}
				var parents []Linked
				err := f.insist(ctx, "enqueue", func() (err error) {
					parents, err = f.store.Link(ctx, partition, how, call)
					f.mended(partition, err)
					return err
				})
				if err != nil {
					return err
				}
				for i, t := range some {
					switch parent := parents[i]; {
					case here:
					case parent.State == "" && t.mayBeGone:
						f.release(t.Child, t.Parent, Linked{State: fitting(t.on)})
					case parent.State == "":
						f.errs[t.child] = &ParentGoneError{t.Child, t.Parent}
					case parent.State.Finished() || parent.State == Unchosen:
						f.release(t.Child, t.Parent, parent)
					}
				}
			}
		}
	}
	return nil
}

// fitting is an end as this condition wants it.
func fitting(on Condition) State {
	if on == OnFailure {
		return Failed
	}
	return Succeeded
}

func (f *family) release(child, parent string, found Linked) {
	f.released = append(f.released, Release{Child: child, Parent: parent, State: found.State, Peer: found.Peer})
}

// disown refuses the descendants of those that were refused, and has it forgotten
// what all of these wait for.
func (f *family) disown(ctx context.Context) error {
	refused := false
	for again := true; again; {
		again = false
		for i, r := range f.records {
			if f.errs[i] != nil {
				refused = true
				continue
			}
			for _, p := range r.Parents {
				if at, here := f.place[p.ID]; here && f.errs[at] != nil {
					f.errs[i], again = &ParentGoneError{r.ID, p.ID}, true
					break
				}
			}
		}
	}
	if !refused {
		return nil
	}
	isRefused := func(i int) bool { return f.errs[i] != nil }
	if err := f.need(ctx, ForgetIt, isRefused); err != nil {
		return err
	}
	ties := map[int][]Tie{}
	for i, r := range f.records {
		if isRefused(i) {
			for _, p := range r.Parents {
				partition := f.store.Partition(p.ID)
				ties[partition] = append(ties[partition], Tie{p.ID, r.ID})
			}
		}
	}
	for partition, all := range ties {
		for some := range slices.Chunk(all, depsCall) {
			err := f.insist(ctx, "enqueue", func() error {
				_, err := f.store.Link(ctx, partition, Unlink, some)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// enqueue adds the jobs that are not refused.
func (f *family) enqueue(ctx context.Context) {
	var places []int
	var records []Record
	for i, r := range f.records {
		if f.errs[i] == nil {
			places, records = append(places, i), append(records, r)
		}
	}
	accept := f.acceptTold
	if f.shared {
		accept = f.acceptAll // where another came first, the gate has been opened
	}
	for i, err := range accept(ctx, records) {
		if f.errs[places[i]] = err; err == nil {
			f.added = append(f.added, records[i].ID)
		}
	}
}

// acceptTold enqueues jobs of which it was told what they wait for. Where another has told
// the same meanwhile, that one's jobs are about to be there.
func (c *Client) acceptTold(ctx context.Context, records []Record) []error {
	errs := c.acceptAll(ctx, records)
	for i, err := range errs {
		for try := 1; errors.Is(err, ErrMoved) && try <= 10; try++ {
			standings, failed := c.store.Standings(ctx, []string{records[i].ID})
			if failed == nil && standings[0].State != "" {
				err = &ExistsError{ID: records[i].ID, State: standings[0].State}
			} else if !pause(ctx, backoff(try, 10*time.Millisecond, 200*time.Millisecond)) {
				break
			}
		}
		errs[i] = err
	}
	return errs
}

// open opens the gates of those that were added, and says what their parents had come
// to before. Where a parent of this call could not be added, its children are
// cancelled.
func (f *family) open(ctx context.Context) error {
	lost := make([]bool, len(f.records))
	for again := true; again; {
		again = false
		for i, r := range f.records {
			if lost[i] {
				continue
			}
			// That it exists already is as good as that it was added.
			lost[i] = f.errs[i] != nil && !errors.Is(f.errs[i], ErrExists)
			for _, p := range r.Parents {
				if at, here := f.place[p.ID]; here && lost[at] {
					lost[i] = true
				}
			}
			again = again || lost[i]
		}
	}
	for i, r := range f.records {
		if !r.Blocked {
			continue
		}
		state := Open
		if lost[i] {
			if state = Void; f.errs[i] == nil {
				f.errs[i] = fmt.Errorf("%w: one of its parents was not accepted", ErrUnconfirmed)
			}
		}
		f.release(r.ID, "", Linked{State: state})
	}
	f.released = slices.DeleteFunc(f.released, func(r Release) bool {
		return errors.As(f.errs[f.place[r.Child]], new(*ParentGoneError))
	})
	_, err := f.releaseAll(ctx, &f.calls, f.released)
	return err
}
