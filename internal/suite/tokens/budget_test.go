package tokens_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/internal/suite"
)

// A whole peer under random weights, priorities and budgets: what runs never
// exceeds the tokens, and no level enters the reserve of a more urgent one.
func TestWhatRunsStaysWithinTheBudget_Long(t *testing.T) {
	t.Parallel()
	for _, seed := range sample.Rows(t, []uint64{0, 1, 2}, 3) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
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
				fn := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
					note(job.Priority, job.Weight)
					defer note(job.Priority, -job.Weight)
					if job.Args.N%7 == 0 {
						time.Sleep(time.Duration(job.Args.N%5) * time.Millisecond) // so that runs overlap
					}
					return nil
				}
				var kinds []dianemo.Kind[suite.Args]
				peer := suite.Start(t, store, dianemo.Config{Tokens: tokens, Reserve: reserve}, func(p *dianemo.Peer) {
					for i, weight := range []int{1, 2, 5} {
						kinds = append(kinds, suite.Handle(t, p, fmt.Sprint("kind", i), dianemo.Policy{Weight: weight, Priority: 1 + i}, fn))
					}
				})
				const jobs = 400
				var requests []dianemo.Request
				for i := range jobs {
					options := dianemo.Options{Priority: rng.IntN(10)}
					if rng.IntN(4) == 0 {
						options.Weight = 1 + rng.IntN(tokens-reserve[1]-reserve[3])
					}
					requests = append(requests, kinds[rng.IntN(3)].NewWith(suite.Args{N: i}, options))
				}
				_, err := peer.EnqueueMany(t.Context(), requests...)
				require.NoError(t, err)
				for range jobs {
					require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
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
func TestManyLanesThatDoNotFitHoldUpNothing_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		producer := suite.Client(t, store)
		var heavy []dianemo.Kind[suite.Args]
		var requests []dianemo.Request
		for i := range 150 {
			kind := dianemo.NewKind[suite.Args](fmt.Sprint("heavy", i), dianemo.Policy{Priority: 1, Weight: 5})
			heavy = append(heavy, kind)
			requests = append(requests, kind.New(suite.Args{}))
		}
		light := dianemo.NewKind[suite.Args]("light", dianemo.Policy{Priority: 9})
		for range 10 {
			requests = append(requests, light.New(suite.Args{}))
		}
		_, err := producer.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		peer := suite.Start(t, store, dianemo.Config{Tokens: 4}, func(p *dianemo.Peer) {
			for _, kind := range append(heavy, light) {
				require.NoError(t, kind.Handle(p, suite.Returns(nil)))
			}
		})
		for range 10 {
			require.Equal(t, "light", peer.Next().Kind)
		}
	})
}

func TestEveryEdgeHasItsHook_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
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
				seen[suite.Receive(t, notes)] = true
			}
		}
		var kind dianemo.Kind[suite.Args]
		// A peer that goes silent: its Run gives up a handler that does not return.
		begun, free := make(chan struct{}), make(chan struct{})
		silent := suite.Start(t, store, dianemo.Config{Finish: dianemo.None, StuckAfter: time.Millisecond, BeatEvery: 500 * time.Millisecond, Lease: time.Second}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Reruns: dianemo.None}, func(context.Context, *dianemo.Job[suite.Args]) error {
				close(begun)
				<-free
				return nil
			})
		})
		defer close(free)
		abandoned := suite.Enqueue(t, silent, kind, dianemo.Options{})
		suite.Receive(t, begun)
		require.Error(t, silent.Stop())

		other := dianemo.NewKind[suite.Args]("other", dianemo.Policy{})
		peer := suite.Start(t, store, dianemo.Config{BeatEvery: 500 * time.Millisecond, SilentAfter: 2 * time.Second, Lease: time.Second, Hooks: hooks}, func(p *dianemo.Peer) {
			suite.Handle(t, p, "mine", dianemo.Policy{}, suite.Returns(nil))
			require.NoError(t, other.Handle(p, suite.Returns(nil)))
		})
		id := suite.Enqueue(t, peer, other, dianemo.Options{})
		await(note{dianemo.EdgeEnqueue, id})
		await(note{dianemo.EdgeClaim, id})
		require.Equal(t, id, peer.Next().ID)
		await(note{dianemo.EdgeLead, "true"})
		late := suite.Enqueue(t, peer, kind, dianemo.Options{RunAt: time.Now().Add(-48 * time.Hour)}) // no handler here: a chore finds it
		await(note{dianemo.EdgeMiss, late})
		await(note{dianemo.EdgeReap, abandoned})
		require.Equal(t, []any{dianemo.Unreachable, dianemo.Missed}, []any{suite.Get(t, peer, abandoned).State, suite.Get(t, peer, late).State})
		require.NoError(t, peer.Stop())
		await(note{dianemo.EdgeLead, "false"})
	})
}
