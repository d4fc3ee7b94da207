package dianemo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Retention says how long finished jobs are kept: until they are older than
// For, or until there are more than Jobs of their kind and state, whichever
// comes first. A job that is let go of disappears whole, and its id is free.
type Retention struct {
	// For counts from the job's end, to the millisecond. 0 inherits; Unlimited:
	// no job is too old.
	For time.Duration
	// Jobs is of the kind, in that state, in the whole namespace; each partition
	// keeps its share, rounded up. 1 to a billion; 0 inherits; Unlimited: there
	// are never too many; None: they go when the next ones end, or within some
	// beats of the leader.
	Jobs int
}

const maxKept = 1_000_000_000

// DefaultRetention is what is kept of finished jobs of a kind whose Policy does
// not say otherwise: of those that succeeded a day's and 10,000, of all others
// thirty days' and 100,000.
func DefaultRetention(state State) Retention {
	if state == Succeeded {
		return Retention{24 * time.Hour, 10_000}
	}
	return Retention{30 * 24 * time.Hour, 100_000}
}

// Keep says what is kept of a kind's finished jobs, by state. What is missing
// inherits [DefaultRetention].
type Keep map[State]Retention

// Of is what is kept in that state; no field is 0.
func (k Keep) Of(state State) Retention {
	own, byDefault := k[state], DefaultRetention(state)
	return Retention{inherit(own.For, byDefault.For), inherit(own.Jobs, byDefault.Jobs)}
}

func (k Keep) check(field string) error {
	for _, state := range slices.Sorted(maps.Keys(k)) {
		field := fmt.Sprintf("%s[%s]", field, state)
		if !state.Finished() {
			return &FieldError{field, k[state], "the finished states"}
		}
		if err := checkSpan(field+".For", k[state].For); err != nil {
			return err
		}
		if n := k[state].Jobs; n < None || n > maxKept {
			return &FieldError{field + ".Jobs", n, fmt.Sprintf("1 to %d, 0 to inherit, Unlimited, or None", maxKept)}
		}
	}
	return nil
}

// A TrimReply says how many jobs were let go of. More: there is more to be done
// now.
type TrimReply struct {
	Jobs int
	More bool
	Held []string // whose time is over and that stay for their children
}

// Chores that are not done at each beat: retention, and saying anew what this
// peer's kinds keep.
const trimBeats = 12

// keeps collects what this peer's kinds keep.
func (p *Peer) keeps() map[string]Keep {
	keeps := make(map[string]Keep, len(p.kinds))
	for name, kind := range p.kinds {
		keeps[name] = kind.policy.Keep
	}
	return keeps
}

// declare tells the fleet what this peer's kinds keep, so that a leader that
// does not know them does not take the defaults. The peer that started last
// decides; afterwards it only fills in what has gone missing.
func (p *Peer) declare(ctx context.Context) {
	if len(p.kinds) == 0 {
		return
	}
	err := p.store.Declare(ctx, p.keeps(), !p.declared.Load())
	p.mended(0, err)
	if err == nil {
		p.declared.Store(true)
	}
	if ctx.Err() == nil {
		p.undeclared.about(p.logger, err, "what is kept of finished jobs could not be declared")
	}
}

// trim is retention, for what settling does not see: kinds and states in which
// nothing ends any more.
func (p *Peer) trim(ctx context.Context, partition int) func(Call, Chore) (bool, error) {
	return func(call Call, chore Chore) (bool, error) {
		chore.Limit = MaxCallJobs
		reply, err := p.store.Trim(ctx, partition, call, chore)
		for _, parent := range reply.Held {
			if err := p.disinherit(ctx, parent); err != nil {
				return false, err
			}
		}
		if reply.Jobs > 0 {
			p.hooks.Trim(TrimInfo{partition, reply.Jobs})
		}
		return reply.More, err
	}
}
