//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo/internal/history"
	"github.com/dianemo/dianemo/internal/redistest"
)

// The nemesis has things go wrong, one after the other and several at a time.
type nemesis struct {
	ctx      context.Context
	redis    *redistest.Server
	admin    *redis.Client // past all proxies; it waits for as long as Redis sleeps
	fleet    *fleet
	own      *redistest.Proxy // the clients' way to Redis
	poisoner *producer
	journal  *history.Journal

	server sync.RWMutex // held by who takes Redis away
	errs   [2]int64     // of the server that runs, when last seen: see sample

	lost          map[string]*atomic.Int64 // replies, by fault
	killedClients atomic.Int64
	cut           atomic.Int64 // connections
	noScript      atomic.Int64
	full          atomic.Int64
}

// A step of the plan: these faults at once, for that long.
type step struct {
	faults []fault
	seeds  []uint64
	span   time.Duration
}

func (s step) String() string {
	var names []string
	for _, f := range s.faults {
		names = append(names, f.name)
	}
	return strings.Join(names, " + ")
}

const (
	shortest, longest = 1500 * time.Millisecond, 3 * time.Second
	rest              = 400 * time.Millisecond
)

// plan chooses the steps, by the seed alone: each of the faults alone, then two and three of them
// at a time.
func plan(dice *rand.Rand, chosen []fault, span time.Duration) []step {
	var steps []step
	left := span
	add := func(fs ...fault) {
		s := step{faults: fs, span: shortest + time.Duration(dice.Int64N(int64(longest-shortest)))}
		for range fs {
			s.seeds = append(s.seeds, dice.Uint64())
		}
		steps, left = append(steps, s), left-s.span-rest
	}
	for left > 0 {
		for _, i := range dice.Perm(len(chosen)) {
			add(chosen[i])
		}
		for range len(chosen) {
			var mixed []fault
			exclusive := false
			for _, i := range dice.Perm(len(chosen))[:min(len(chosen), 2+dice.IntN(2))] {
				if f := chosen[i]; !f.exclusive || !exclusive {
					mixed, exclusive = append(mixed, f), exclusive || f.exclusive
				}
			}
			add(mixed...)
		}
	}
	return steps
}

// rage carries out the plan, from its beginning, for that long.
func (n *nemesis) rage(steps []step, say func(format string, args ...any)) error {
	for _, s := range steps {
		if n.ctx.Err() != nil {
			return nil
		}
		say("%s", s)
		errs := make([]error, len(s.faults))
		var all sync.WaitGroup
		for i, f := range s.faults {
			all.Go(func() { errs[i] = f.strike(n, s.span, rand.New(rand.NewPCG(s.seeds[i], 1))) })
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		n.sample()
		if err := n.wait(rest); err != nil {
			return err
		}
	}
	return nil
}

// Tries at what was not reached, and how long they take together at most.
const (
	insistences = 3
	insistFor   = 40 * time.Second
)

// insist strikes once more, alone, with the faults that have met nothing so far, as may happen: a
// leader that is to be stopped is not there at that moment.
func (n *nemesis) insist(dir string, dice *rand.Rand, chosen []fault, epoch history.Moment, say func(format string, args ...any)) error {
	ctx, end := context.WithTimeout(context.Background(), insistFor)
	defer end()
	n.ctx = ctx
	for range insistences {
		events, err := history.Read(dir)
		if err != nil {
			return err
		}
		var steps []step
		for i, r := range n.reached(chosen, events, epoch) {
			if r.missed() && i < len(chosen) {
				steps = append(steps, step{faults: chosen[i : i+1], seeds: []uint64{dice.Uint64()}, span: longest})
			}
		}
		if len(steps) == 0 {
			return nil
		}
		if err := n.rage(steps, say); err != nil {
			return err
		}
	}
	return nil
}

// heal undoes whatever may be left.
func (n *nemesis) heal() error {
	for _, p := range n.fleet.alive() {
		p.resume()
	}
	return n.liftMaxmemory()
}

func (n *nemesis) liftMaxmemory() error {
	n.server.RLock()
	defer n.server.RUnlock()
	return n.admin.ConfigSet(context.Background(), "maxmemory", "0").Err()
}

// anyone is a peer that lives, or nil.
func (n *nemesis) anyone(dice *rand.Rand) *peer {
	choice := dice.IntN(peersAtOnce)
	if alive := n.fleet.alive(); len(alive) > 0 {
		return alive[choice%len(alive)]
	}
	return nil
}

// leader is the peer that holds the lease, or nil if that is nobody for some time.
func (n *nemesis) leader() *peer {
	ctx, end := context.WithTimeout(n.ctx, 2*lease)
	defer end()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if p := n.leaderIn(ctx); p != nil {
			return p
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *nemesis) leaderIn(ctx context.Context) *peer {
	n.server.RLock()
	defer n.server.RUnlock()
	held, err := n.admin.Get(ctx, "{"+namespace+"}:leader").Result()
	if err != nil {
		return nil // nobody, or Redis sleeps
	}
	id, _, _ := strings.Cut(held, "|")
	return n.fleet.named(id)
}

// paths are all ways to Redis.
func (n *nemesis) paths() []*redistest.Proxy {
	paths := []*redistest.Proxy{n.own}
	for _, p := range n.fleet.alive() {
		paths = append(paths, p.path)
	}
	return paths
}

// sample adds up the errors that Redis counts, which it forgets when it ends.
func (n *nemesis) sample() {
	info, err := n.admin.Info(context.Background(), "errorstats").Result()
	if err != nil {
		return // it sleeps or is away: the next one has them, or they are lost
	}
	for i, sum := range []*atomic.Int64{&n.noScript, &n.full} {
		count := errorCount(info, []string{"NOSCRIPT", "OOM"}[i])
		if count < n.errs[i] {
			n.errs[i] = 0 // another server
		}
		sum.Add(count - n.errs[i])
		n.errs[i] = count
	}
}

// errorCount reads errorstat_NAME:count=N.
func errorCount(info, name string) int64 {
	_, rest, ok := strings.Cut(info, "errorstat_"+name+":count=")
	if !ok {
		return 0
	}
	var count int64
	if _, err := fmt.Sscanf(rest, "%d", &count); err != nil {
		return 0
	}
	return count
}

// choose finds faults by their names; none: all.
func choose(names []string) ([]fault, error) {
	if len(names) == 0 {
		return faults, nil
	}
	var chosen []fault
	for _, name := range names {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q", name)
		}
		chosen = append(chosen, faults[i])
	}
	return chosen, nil
}
