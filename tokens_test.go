package dianemo

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// allowed is the rule as DESIGN has it, extended to all levels between: for
// every q <= p, what runs at levels >= q, and w, fit into what the levels < q
// leave of the whole.
func allowed(available int, reserve map[int]int, running levels, p, w int) bool {
	for q := 1; q <= p; q++ {
		budget := available
		for level, tokens := range reserve {
			if level < q {
				budget -= tokens
			}
		}
		for level := q; level <= 9; level++ {
			budget -= running[level]
		}
		if w > budget {
			return false
		}
	}
	return true
}

func TestTheLedgerGrantsWhatTheRuleAllowsAndNoMore(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		available, reserve := 1+rng.IntN(100), map[int]int{}
		rest := available
		for range rng.IntN(4) {
			tokens := rng.IntN(rest + 1)
			reserve[1+rng.IntN(9)] += tokens
			rest -= tokens
		}
		l := newLedger(available, reserve)
		var running levels
		var runs []*run
		for range 200 {
			if len(runs) > 0 && rng.IntN(3) == 0 {
				i := rng.IntN(len(runs))
				r := runs[i]
				runs = append(runs[:i], runs[i+1:]...)
				l.release(r.priority, r.weight)
				running[r.priority] -= r.weight
				continue
			}
			p, w := 1+rng.IntN(9), 1+rng.IntN(available)
			need := levels{}
			need[p] = w
			grant, ok := l.ask(&place{call: func() {}}, need)
			require.Equal(t, allowed(available, reserve, running, p, w), ok, "seed %d: priority %d, weight %d, running %v of %d, reserve %v", seed, p, w, running, available, reserve)
			if !ok {
				l.line = nil
				continue
			}
			r := &run{priority: p, weight: w}
			l.close(grant, []*run{r})
			runs = append(runs, r)
			running[p] += w
			require.Equal(t, running, l.running)

			// No level is in the reserve of a more urgent one.
			total, reserved := 0, 0
			for q := 9; q >= 1; q-- {
				total += running[q]
				reserved = 0
				for level, tokens := range reserve {
					if level < q {
						reserved += tokens
					}
				}
				require.LessOrEqual(t, total, available-reserved)
			}
		}
		require.Equal(t, levels{}, l.aside, "a closed grant leaves nothing set aside")
	}
}

// Partitions claim at the same time: what one was granted, another must not be.
func TestClaimsUnderWayNeverOverspendTogether(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		available := 10 + rng.IntN(100)
		reserve := map[int]int{1: rng.IntN(available), 3: 0}
		l := newLedger(available, reserve)
		type claim struct {
			place *place
			grant levels
			open  bool
		}
		claims := make([]*claim, 5)
		called := map[int]bool{}
		for i := range claims {
			claims[i] = &claim{place: &place{call: func() { called[i] = true }}}
		}
		var runs []*run
		for range 300 {
			i := rng.IntN(len(claims))
			c := claims[i]
			switch {
			case c.open:
				// The claim got some of what it was granted.
				var got []*run
				room := c.grant
				for range rng.IntN(4) {
					p, w := 1+rng.IntN(4), 1+rng.IntN(8)
					fits := true
					for q := 1; q <= p; q++ {
						fits = fits && w <= room[q]
					}
					if !fits {
						continue
					}
					for q := 1; q <= p; q++ {
						room[q] -= w
					}
					got = append(got, &run{priority: p, weight: w})
				}
				l.close(c.grant, got)
				c.open = false
				runs = append(runs, got...)
			case len(runs) > 0 && rng.IntN(2) == 0:
				l.release(runs[0].priority, runs[0].weight)
				runs = runs[1:]
			default:
				need := levels{}
				need[1+rng.IntN(4)] = 1 + rng.IntN(8)
				c.grant, c.open = l.ask(c.place, need)
			}
			total, low := 0, 0
			for level, w := range l.running {
				total += w
				if level > 1 {
					low += w
				}
			}
			require.LessOrEqual(t, total, available, "seed %d", seed)
			require.LessOrEqual(t, low, available-reserve[1], "seed %d", seed)
		}
	}
}

// Whoever waits is called when there is room for it, the most urgent first.
func TestTheLineMovesByPriorityAndThenInOrder(t *testing.T) {
	l := newLedger(4, nil)
	heavy := &run{priority: 2, weight: 4}
	grant, ok := l.ask(&place{call: func() {}}, levels{2: 4})
	require.True(t, ok)
	l.close(grant, []*run{heavy})

	var calls []string
	wait := func(name string, need levels) *place {
		p := &place{call: func() { calls = append(calls, name) }}
		_, ok := l.ask(p, need)
		require.False(t, ok)
		return p
	}
	low, second, urgent := wait("low", levels{5: 1}), wait("second", levels{5: 1}), wait("urgent", levels{1: 4})
	require.Empty(t, calls)
	l.release(2, 4)
	require.Equal(t, []string{"urgent"}, calls)
	_, ok = l.ask(low, levels{5: 1})
	require.False(t, ok, "the urgent one stands before it")
	grant, ok = l.ask(urgent, levels{1: 4})
	require.True(t, ok)
	calls = nil
	l.close(grant, nil)
	require.Equal(t, []string{"low"}, calls)
	l.leave(low)
	require.Equal(t, []string{"low", "second"}, calls, "who leaves calls the next")
	_, ok = l.ask(second, levels{5: 1})
	require.True(t, ok)
	require.Empty(t, l.line)
}
