package main

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
)

// alone is a world with one node and nobody in it.
func alone(lag time.Duration) (*world, *node) {
	s := Default()
	s.Peers, s.Producers, s.Rate, s.Lag = 0, 0, 0, lag
	w := newWorld(s)
	return w, w.nodes[0]
}

func TestCallsWaitAsLongAsQueueingTheorySays_Long(t *testing.T) {
	t.Parallel()
	for _, busy := range sample.Rows(t, []float64{0.3, 0.6, 0.9}, 3) {
		t.Run(fmt.Sprint(busy), func(t *testing.T) {
			t.Parallel()
			w, n := alone(0)
			takes, _ := w.Costs[stand].of(0)
			every := float64(takes) / busy
			sum, looks := 0, 0
			var come, look func()
			come = func() {
				w.in(time.Duration(w.rng.ExpFloat64()*every), come)
				n.send(call{sort: stand, do: func() (sort, int) { return stand, 0 }, then: func(bool) {}})
			}
			look = func() {
				w.in(17*micro, look)
				sum, looks = sum+len(n.waiting), looks+1
			}
			w.at(0, come)
			w.at(0, look)
			w.clock.run(40*time.Second, func() {})

			require.InEpsilon(t, busy, float64(n.busy)/float64(w.now), 0.02)
			mean := float64(n.waited) / float64(n.finished)
			// M/D/1, by Pollaczek and Khinchine.
			require.InEpsilon(t, busy/(2*(1-busy))*float64(takes), mean, 0.06)
			// Little: how many wait is how many come in the time that one waits.
			require.InEpsilon(t, mean/every, float64(sum)/float64(looks), 0.06)
		})
	}
}

func TestCallsAreDoneInTheirOrderAndAnsweredAfterTheLag(t *testing.T) {
	t.Parallel()
	w, n := alone(time.Millisecond)
	var order []string
	note := func(what string) { order = append(order, fmt.Sprint(what, " ", w.now.Microseconds())) }
	for _, name := range []string{"a", "b"} {
		n.send(call{do: func() (sort, int) { note("do " + name); return stand, 0 }, then: func(ok bool) { note(fmt.Sprint(name, " ", ok)) }})
	}
	w.clock.run(time.Second, func() {})
	takes := w.Costs[stand].Fixed.Microseconds()
	require.Equal(t, []string{"do a 1000", fmt.Sprint("do b ", 1000+takes), fmt.Sprint("a true ", 2000+takes), fmt.Sprint("b true ", 2000+2*takes)}, order)
}

func TestWhatIsDueAtTheSameTimeHappensAsPlanned(t *testing.T) {
	t.Parallel()
	var c clock
	var order, want []int
	for i := range 20 {
		c.at(time.Second, func() { order = append(order, i) })
		want = append(want, i)
	}
	c.run(time.Second, func() {})
	require.Equal(t, want, order)
}

// worldsOf are some of the worlds, in the long form all.
func worldsOf(t *testing.T, part int) map[string]Settings {
	all := someWorlds()
	some := map[string]Settings{}
	for _, name := range sample.Rows(t, slices.Sorted(maps.Keys(all)), part) {
		some[name] = all[name]
	}
	return some
}

// someWorlds are small, and each has something of its own.
func someWorlds() map[string]Settings {
	base := Default()
	base.Peers, base.Tokens, base.Partitions, base.Rate, base.Warm, base.Spread, base.For = 30, 8, 16, 500, 6*time.Second, 2*time.Second, 6*time.Second
	calm := base
	cluster := base
	cluster.Nodes, cluster.Apart, cluster.Batch = 3, true, 50
	full := base
	full.Backlog, full.Takes = 20_000, 200*time.Millisecond
	outage := base
	outage.OutageAt, outage.Outage = 8*time.Second, 2*time.Second
	deaths := base
	deaths.Beat, deaths.Lease = 500*time.Millisecond, 1500*time.Millisecond
	deaths.KillAt, deaths.Kill, deaths.Takes = 7*time.Second, 0.4, 50*time.Millisecond
	together := base
	together.Together = true
	return map[string]Settings{"calm": calm, "cluster": cluster, "full": full, "outage": outage, "deaths": deaths, "together": together}
}

func TestEachJobIsStartedOnceAndNoneIsLost_Long(t *testing.T) {
	t.Parallel()
	for name, s := range worldsOf(t, 2) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(s)
			starts := map[int]int{}
			w.onStart = func(j job) { starts[j.number]++ }
			w.run()
			require.NotEmpty(t, starts)
			for number, n := range starts {
				require.True(t, n == 1 || w.again > 0 && n > 0, "job %d was started %d times", number, n)
			}
			require.LessOrEqual(t, w.started-len(starts), w.again)
			// Nothing more comes, and what waits is run in the end.
			w.Rate = 0
			w.clock.run(w.now+time.Minute, w.settleDown)
			require.Equal(t, w.jobs, len(starts))
			for i := range w.partitions {
				require.Empty(t, w.partitions[i].lane)
			}
			for _, p := range w.peers {
				for i := range p.parts {
					require.False(t, !p.dead && (p.parts[i].turning || p.parts[i].settling || p.parts[i].ended > 0), "a loop hangs")
				}
			}
			if name == "deaths" {
				require.Positive(t, w.again)
			}
		})
	}
}

func TestNoPeerRunsMoreThanItsTokensAllow_Long(t *testing.T) {
	t.Parallel()
	for name, s := range worldsOf(t, 3) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(s)
			most, starts := 0, 0
			w.onStart = func(job) {
				if starts++; starts%20 != 0 {
					return // to look at all peers takes long
				}
				for _, p := range w.peers {
					most = max(most, p.running)
					require.LessOrEqual(t, p.running+p.aside, p.tokens)
					require.GreaterOrEqual(t, p.aside, 0)
				}
			}
			w.run()
			require.Positive(t, most)
		})
	}
}

func TestASeedDecidesEverything_Long(t *testing.T) {
	t.Parallel()
	for name, s := range worldsOf(t, 6) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := simulate(s)
			require.Equal(t, first, simulate(s))
			s.Seed++
			require.NotEqual(t, first, simulate(s))
		})
	}
}

// The library was measured with 1.01 claims per job, of jobs that come evenly spaced. Where they come at random, some come
// together and share a claim.
func TestFiftyIdlePeersClaimEachJobOnce(t *testing.T) {
	t.Parallel()
	s := Default()
	s.Peers, s.Partitions, s.Rate, s.Takes, s.For, s.Steady = 50, 1, 100, time.Millisecond, 60*time.Second, true
	r := simulate(s)
	require.InDelta(t, 1.01, r.ClaimsPerJob, 0.03)
	require.Less(t, r.P99, 3*time.Millisecond)
	s.Steady = false
	require.Less(t, simulate(s).ClaimsPerJob, r.ClaimsPerJob)
}

func TestAfterAnOutageTheFleetWorksAsBefore(t *testing.T) {
	t.Parallel()
	s := someWorlds()["outage"]
	s.For = 20 * time.Second
	r := simulate(s)
	require.Greater(t, r.Max, s.Outage) // who came at its beginning waited
	require.Zero(t, r.Waiting)
	require.Less(t, r.P50, 5*time.Millisecond)
	// All that can hear again look everywhere.
	require.Greater(t, r.EmptyPerJob*r.Started*s.For.Seconds(), float64(s.Peers*s.Partitions)/2)
}

func TestAnotherPeerLeadsWhenTheLeaderDies(t *testing.T) {
	t.Parallel()
	s := someWorlds()["deaths"]
	r := simulate(s)
	require.Greater(t, r.Vacant, s.Lease/2)       // it was renewed a third of a lease before, at most
	require.Less(t, r.Vacant, s.Lease+s.Lease/10) // many bid, so hardly longer than it lasts
	require.Greater(t, r.LastReap, 4*s.Beat)
}

func TestCostsAreReadFromTheCommandLine(t *testing.T) {
	t.Parallel()
	c := DefaultCosts
	require.NoError(t, c.Set("wake=20,claim=30+2.5"))
	require.Equal(t, 20*micro, c[wake].Fixed)
	require.Equal(t, Cost{30 * micro, 2500 * time.Nanosecond, DefaultCosts[claim].FixedBytes, DefaultCosts[claim].EachBytes}, c[claim])
	require.Equal(t, DefaultCosts[stand], c[stand])
	for _, wrong := range []string{"", "wake", "sleep=1", "wake=x", "wake=-1"} {
		require.Error(t, c.Set(wrong), wrong)
	}
}
