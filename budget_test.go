package dianemo_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A whole peer under random weights, priorities and budgets: what runs never
// exceeds the tokens, and no level enters the reserve of a more urgent one.
func TestWhatRunsStaysWithinTheBudget(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			onEach(t, func(t *testing.T, store dianemo.Store) {
				rng := rand.New(rand.NewPCG(seed, 4))
				tokens := 8 + rng.IntN(40)
				reserve := map[int]int{1: rng.IntN(tokens / 4), 3: rng.IntN(tokens / 4)}
				var mu sync.Mutex
				var running [10]int
				broken := ""
				note := func(priority, weight int) {
					mu.Lock()
					defer mu.Unlock()
					running[priority] += weight
					sum := 0
					for q := 9; q >= 1; q-- {
						budget := tokens
						for level, r := range reserve {
							if level < q {
								budget -= r
							}
						}
						if sum += running[q]; sum > budget && broken == "" {
							broken = fmt.Sprintf("at levels >= %d run %d of %d; all: %v", q, sum, budget, running)
						}
					}
				}
				fn := func(_ context.Context, job *dianemo.Job[Args]) error {
					note(job.Priority, job.Weight)
					defer note(job.Priority, -job.Weight)
					if job.Args.N%7 == 0 {
						time.Sleep(time.Duration(job.Args.N%5) * time.Millisecond) // so that runs overlap
					}
					return nil
				}
				var kinds []dianemo.Kind[Args]
				peer := start(t, store, dianemo.Config{Tokens: tokens, Reserve: reserve}, func(p *dianemo.Peer) {
					for i, weight := range []int{1, 2, 5} {
						kinds = append(kinds, handle(t, p, fmt.Sprint("kind", i), dianemo.Policy{Weight: weight, Priority: 1 + i}, fn))
					}
				})
				const jobs = 400
				var requests []dianemo.Request
				for i := range jobs {
					options := dianemo.Options{Priority: rng.IntN(10)}
					if rng.IntN(4) == 0 {
						options.Weight = 1 + rng.IntN(tokens-reserve[1]-reserve[3])
					}
					requests = append(requests, kinds[rng.IntN(3)].NewWith(Args{i}, options))
				}
				_, err := peer.EnqueueMany(t.Context(), requests...)
				require.NoError(t, err)
				for range jobs {
					require.Equal(t, dianemo.Succeed, peer.next().Outcome)
				}
				mu.Lock()
				defer mu.Unlock()
				require.Empty(t, broken)
				require.Equal(t, [10]int{}, running)
			})
		})
	}
}

// A claim names 64 lanes at most. Those from which nothing can be taken must not
// crowd out the others.
func TestManyLanesThatDoNotFitHoldUpNothing(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		producer := client(t, store)
		var heavy []dianemo.Kind[Args]
		var requests []dianemo.Request
		for i := range 150 {
			kind := dianemo.NewKind[Args](fmt.Sprint("heavy", i), dianemo.Policy{Priority: 1, Weight: 5})
			heavy = append(heavy, kind)
			requests = append(requests, kind.New(Args{}))
		}
		light := dianemo.NewKind[Args]("light", dianemo.Policy{Priority: 9})
		for range 10 {
			requests = append(requests, light.New(Args{}))
		}
		_, err := producer.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		peer := start(t, store, dianemo.Config{Tokens: 4}, func(p *dianemo.Peer) {
			for _, kind := range append(heavy, light) {
				require.NoError(t, kind.Handle(p, returns(nil)))
			}
		})
		for range 10 {
			require.Equal(t, "light", peer.next().Kind)
		}
	})
}

func TestEveryEdgeHasItsHook(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		type note struct {
			edge dianemo.Edge
			id   string
		}
		notes := make(chan note, 1000)
		hooks := &dianemo.Hooks{
			Enqueue: func(i dianemo.EnqueueInfo) { notes <- note{dianemo.EdgeEnqueue, i.ID} },
			Claim:   func(i dianemo.ClaimInfo) { notes <- note{dianemo.EdgeClaim, i.ID} },
			Miss:    func(i dianemo.MissInfo) { notes <- note{dianemo.EdgeMiss, i.ID} },
			Reap:    func(i dianemo.ReapInfo) { notes <- note{dianemo.EdgeReap, i.ID} },
			Lead:    func(i dianemo.LeadInfo) { notes <- note{dianemo.EdgeLead, fmt.Sprint(i.Leading)} },
		}
		seen := map[note]bool{}
		await := func(want note) {
			t.Helper()
			for !seen[want] {
				seen[receive(t, notes)] = true
			}
		}
		var kind dianemo.Kind[Args]
		// A peer that goes silent: its Run gives up a handler that does not return.
		begun, free := make(chan struct{}), make(chan struct{})
		silent := start(t, store, dianemo.Config{Finish: dianemo.None, StuckAfter: time.Millisecond, BeatEvery: 50 * time.Millisecond, Lease: 100 * time.Millisecond}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{Reruns: dianemo.None}, func(context.Context, *dianemo.Job[Args]) error {
				close(begun)
				<-free
				return nil
			})
		})
		defer close(free)
		abandoned := enqueue(t, silent, kind, dianemo.Options{})
		receive(t, begun)
		require.Error(t, silent.stop())

		other := dianemo.NewKind[Args]("other", dianemo.Policy{})
		peer := start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: 400 * time.Millisecond, Lease: 100 * time.Millisecond, Hooks: hooks}, func(p *dianemo.Peer) {
			handle(t, p, "mine", dianemo.Policy{}, returns(nil))
			require.NoError(t, other.Handle(p, returns(nil)))
		})
		id := enqueue(t, peer, other, dianemo.Options{})
		await(note{dianemo.EdgeEnqueue, id})
		await(note{dianemo.EdgeClaim, id})
		require.Equal(t, id, peer.next().ID)
		await(note{dianemo.EdgeLead, "true"})
		late := enqueue(t, peer, kind, dianemo.Options{RunAt: time.Now().Add(-48 * time.Hour)}) // no handler here: a chore finds it
		await(note{dianemo.EdgeMiss, late})
		await(note{dianemo.EdgeReap, abandoned})
		require.Equal(t, []any{dianemo.Unreachable, dianemo.Missed}, []any{get(t, peer, abandoned).State, get(t, peer, late).State})
		require.NoError(t, peer.stop())
		await(note{dianemo.EdgeLead, "false"})
	})
}
