package dependencies_test

import (
	"context"
	"errors"
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

// A node of a random graph, in an order in which each comes after its parents.
type node struct {
	id      string
	fails   bool
	parents []dianemo.Parent
}

// graph makes a random one; some of its jobs fail.
func graph(dice *rand.Rand, name string, n int) []node {
	nodes := make([]node, n)
	for i := range nodes {
		nodes[i] = node{id: fmt.Sprintf("%s-%d", name, i), fails: dice.IntN(5) == 0}
		if name[0]%2 == 0 {
			nodes[i].id = fmt.Sprintf("%s@%d", name, i) // all in one partition
		}
		for j := range i {
			if dice.IntN(i) < 2 {
				on := []dianemo.Condition{dianemo.OnSuccess, "", dianemo.OnSuccess, dianemo.OnEnd, dianemo.OnFailure}[dice.IntN(5)]
				nodes[i].parents = append(nodes[i].parents, dianemo.Parent{ID: nodes[j].id, On: on})
			}
		}
	}
	return nodes
}

func suits(on dianemo.Condition, state dianemo.State) bool {
	switch on {
	case dianemo.OnEnd:
		return true
	case dianemo.OnFailure:
		return state != dianemo.Succeeded
	}
	return state == dianemo.Succeeded
}

// outcome is how each job must end.
func outcome(nodes []node) map[string]dianemo.State {
	states := map[string]dianemo.State{}
	for _, n := range nodes {
		state := dianemo.Succeeded
		if n.fails {
			state = dianemo.Failed
		}
		for _, p := range n.parents {
			if !suits(p.On, states[p.ID]) {
				state = dianemo.Skipped
			}
		}
		states[n.id] = state
	}
	return states
}

// Each graph is enqueued in several calls, some of them while earlier jobs run. No job
// starts before its parents have ended as it wants, and each ends as it must.
func TestRandomGraphsEndAsTheyMust_Long(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 16} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			store := suite.Redis(t, suite.Server.Client(t), partitions)
			c := suite.Client(t, store)
			const size = 14
			graphs, seed := sample.Part(t, 300, 5), sample.Seed(t)

			var mu sync.Mutex
			ended := map[string]dianemo.State{} // by handlers that have returned
			starts := map[string]int{}
			all := map[string]node{}
			var early []string
			kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Retries: dianemo.None})
			handler := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				mu.Lock()
				defer mu.Unlock()
				starts[job.ID]++
				n := all[job.ID]
				for _, p := range n.parents {
					state, ran := ended[p.ID]
					if !ran && !suits(p.On, dianemo.Skipped) || ran && !suits(p.On, state) {
						early = append(early, fmt.Sprintf("%s before %s (%s)", job.ID, p.ID, state))
					}
				}
				if n.fails {
					ended[job.ID] = dianemo.Failed
					return errors.New("as told")
				}
				ended[job.ID] = dianemo.Succeeded
				return nil
			}
			for range 2 {
				suite.Start(t, store, dianemo.Config{Tokens: 64, BeatEvery: time.Second}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, handler)) })
			}
			expected := map[string]dianemo.State{}
			var made [][]node
			for g := range graphs {
				nodes := graph(rand.New(rand.NewPCG(seed, uint64(g))), fmt.Sprintf("%c%d", 'a'+g%4, g), size)
				for _, n := range nodes {
					all[n.id] = n
				}
				for id, state := range outcome(nodes) {
					expected[id] = state
				}
				made = append(made, nodes)
			}
			var under sync.WaitGroup
			for w := range 4 {
				under.Go(func() {
					for g := w; g < graphs; g += 4 {
						dice := rand.New(rand.NewPCG(seed+1, uint64(g)))
						for rest := made[g]; len(rest) > 0; {
							some := rest[:1+dice.IntN(len(rest))]
							rest = rest[len(some):]
							requests := make([]dianemo.Request, len(some))
							for i, j := range dice.Perm(len(some)) {
								requests[i] = kind.NewWith(suite.Args{}, dianemo.Options{ID: some[j].id, Parents: some[j].parents})
							}
							if _, err := c.EnqueueMany(t.Context(), requests...); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			under.Wait()
			for id, want := range expected {
				require.Equal(t, want, suite.Ends(t, c, id), id)
			}
			mu.Lock()
			defer mu.Unlock()
			require.Empty(t, early)
			for id, state := range expected {
				want := 1
				if state == dianemo.Skipped {
					want = 0
				}
				require.Equal(t, want, starts[id], id)
			}
		})
	}
}
