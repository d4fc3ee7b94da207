package dianemo

import (
	"math"
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
	t.Parallel()
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tokens, reserve := 1+rng.IntN(100), map[int]int{}
		rest := tokens
		for range rng.IntN(4) {
			reserved := rng.IntN(rest + 1)
			reserve[1+rng.IntN(9)] += reserved
			rest -= reserved
		}
		l := newLedger(tokens, reserve)
		share, hot, available := 0.0, false, tokens
		var running levels
		var runs []*run
		for range 200 {
			switch rng.IntN(8) {
			case 0, 1:
				if len(runs) > 0 {
					i := rng.IntN(len(runs))
					r := runs[i]
					runs = append(runs[:i], runs[i+1:]...)
					l.release(r.priority, r.weight)
					running[r.priority] -= r.weight
				}
				continue
			case 2: // the budget moves: by the load, or by hand
				if rng.IntN(3) == 0 {
					tokens = rng.IntN(120)
					l.setTokens(tokens)
				} else {
					share, hot = float64(rng.IntN(101))/100, rng.IntN(6) == 0
					l.adapt(budget{share: share, hot: hot})
				}
				available = tokens * (100 - int(math.Round(share*100))) / 100
				if hot {
					available = 0
				}
				require.Equal(t, running, l.running, "nothing is evicted")
				continue
			}
			p, w := 1+rng.IntN(9), 1+rng.IntN(max(tokens, 1))
			need := levels{}
			need[p] = w
			grant, jobs := l.ask(&place{call: func() {}}, need)
			require.Equal(t, allowed(available, reserve, running, p, w), jobs > 0, "seed %d: priority %d, weight %d, running %v of %d, reserve %v", seed, p, w, running, available, reserve)
			require.Equal(t, available == 0, l.dry())
			if jobs == 0 {
				l.line = nil
				continue
			}
			require.Equal(t, MaxCallJobs, jobs)
			r := &run{priority: p, weight: w}
			l.close(grant, []*run{r})
			runs = append(runs, r)
			running[p] += w
			require.Equal(t, running, l.running)

			// No level that was claimed at is in the reserve of a more urgent one.
			total, reserved := 0, 0
			for q := 9; q >= 1; q-- {
				total += running[q]
				reserved = 0
				for level, tokens := range reserve {
					if level < q {
						reserved += tokens
					}
				}
				if q <= p {
					require.LessOrEqual(t, total, available-reserved)
				}
			}
		}
		require.Equal(t, levels{}, l.aside, "a closed grant leaves nothing set aside")
	}
}

// Partitions claim at the same time: what one was granted, another must not be.
func TestClaimsUnderWayNeverOverspendTogether_Long(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t, 300) {
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
				var jobs int
				c.grant, jobs = l.ask(c.place, need)
				c.open = jobs > 0
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
	t.Parallel()
	l := newLedger(4, nil)
	heavy := &run{priority: 2, weight: 4}
	grant, jobs := l.ask(&place{call: func() {}}, levels{2: 4})
	require.NotZero(t, jobs)
	l.close(grant, []*run{heavy})

	var calls []string
	wait := func(name string, need levels) *place {
		p := &place{call: func() { calls = append(calls, name) }}
		_, jobs := l.ask(p, need)
		require.Zero(t, jobs)
		return p
	}
	low, second, urgent := wait("low", levels{5: 1}), wait("second", levels{5: 1}), wait("urgent", levels{1: 4})
	require.Empty(t, calls)
	l.release(2, 4)
	require.Equal(t, []string{"urgent"}, calls)
	_, jobs = l.ask(low, levels{5: 1})
	require.Zero(t, jobs, "the urgent one stands before it")
	grant, jobs = l.ask(urgent, levels{1: 4})
	require.NotZero(t, jobs)
	calls = nil
	l.close(grant, nil)
	require.Equal(t, []string{"low"}, calls)
	l.leave(low)
	require.Equal(t, []string{"low", "second"}, calls, "who leaves calls the next")
	_, jobs = l.ask(second, levels{5: 1})
	require.NotZero(t, jobs)
	require.Empty(t, l.line)
}

// What the load frees goes to those in line, one after the other, without a
// tick; what it takes does not call anyone.
func TestWhoeverWaitsIsCalledWhenTheBudgetGrows(t *testing.T) {
	t.Parallel()
	l := newLedger(10, nil)
	l.adapt(budget{share: 0.95, hot: true})
	var calls []string
	ask := func(name string, need levels) *place {
		p := &place{call: func() { calls = append(calls, name) }}
		_, jobs := l.ask(p, need)
		require.Zero(t, jobs)
		return p
	}
	heavy, light := ask("heavy", levels{2: 6}), ask("light", levels{2: 1})
	require.True(t, l.dry())
	l.adapt(budget{share: 0.8, hot: true})
	l.setTokens(20)
	require.Empty(t, calls)
	l.setTokens(10)

	l.adapt(budget{share: 0.5})
	require.Equal(t, []string{"light"}, calls, "five are there, and heavy needs six")
	grant, jobs := l.ask(light, levels{2: 1})
	require.NotZero(t, jobs)
	l.close(grant, nil)
	require.Equal(t, []string{"light"}, calls)
	l.setTokens(12)
	require.Equal(t, []string{"light", "heavy"}, calls)
	_, jobs = l.ask(heavy, levels{2: 6})
	require.NotZero(t, jobs)
}

// Fewer tokens than are reserved are the most urgent level's.
func TestTheReserveWinsOverFewTokens(t *testing.T) {
	t.Parallel()
	l := newLedger(10, map[int]int{1: 4})
	l.setTokens(3)
	require.Equal(t, 3, l.capacity().fits(1))
	require.Less(t, l.capacity().fits(2), 1)
	l.setTokens(5)
	require.Equal(t, 1, l.capacity().fits(2))
	l.adapt(budget{share: 1, hot: true})
	require.Equal(t, 1, l.capacity().fits(2), "what a peer could carry does not depend on the load")
}

// With a single job allowed, the whole of the tokens is granted to one claim
// for one job, and to nobody while anything runs.
func TestAPeerOnWhichNothingRunsMayBeAllowedOneJob(t *testing.T) {
	t.Parallel()
	l := newLedger(10, map[int]int{1: 2})
	l.adapt(budget{share: 0.95, hot: true, single: true})
	require.False(t, l.dry())
	called := 0
	one, two := &place{call: func() {}}, &place{call: func() { called++ }}
	grant, jobs := l.ask(one, levels{2: 8})
	require.Equal(t, 1, jobs)
	require.Equal(t, 8, grant.fits(2))
	require.Equal(t, 10, grant.fits(1))
	_, jobs = l.ask(two, levels{1: 1})
	require.Zero(t, jobs, "another claim is under way")
	require.True(t, l.dry())
	l.close(grant, []*run{{priority: 2, weight: 8}})
	require.Zero(t, called)
	l.release(2, 8)
	require.Equal(t, 1, called)
	_, jobs = l.ask(two, levels{2: 9})
	require.Zero(t, jobs, "nine would be in the reserve")
	require.Zero(t, func() int { _, jobs := l.ask(two, levels{1: 11}); return jobs }())
	grant, jobs = l.ask(two, levels{1: 10})
	require.Equal(t, 1, jobs)
	l.close(grant, nil)

	l.adapt(budget{share: 0.5, single: true})
	_, jobs = l.ask(one, levels{2: 1})
	require.Equal(t, MaxCallJobs, jobs, "what fits anyway is not limited to one")
	l.adapt(budget{share: 0.95, hot: true})
	require.True(t, l.dry())
}
