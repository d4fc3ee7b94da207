//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/history"
)

func planOf(seed uint64, chosen []fault, span time.Duration) (steps []string) {
	for _, s := range plan(rand.New(rand.NewPCG(seed, 0)), chosen, span) {
		steps = append(steps, fmt.Sprint(s, s.span, s.seeds))
	}
	return steps
}

func TestThePlanIsDecidedByTheSeed(t *testing.T) {
	t.Parallel()
	require.Equal(t, planOf(1, faults, time.Minute), planOf(1, faults, time.Minute))
	require.NotEqual(t, planOf(1, faults, time.Minute), planOf(2, faults, time.Minute))
}

func TestInTwoMinutesEveryFaultStrikesAloneAndTwoServerFaultsNeverMix(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		left := 2 * time.Minute
		alone := map[string]bool{}
		for _, s := range plan(rand.New(rand.NewPCG(seed, 0)), faults, left) {
			if left -= s.span + rest; left > 0 && len(s.faults) == 1 {
				alone[s.faults[0].name] = true
			}
			exclusive := 0
			for _, f := range s.faults {
				if f.exclusive {
					exclusive++
				}
			}
			require.LessOrEqual(t, exclusive, 1, s.String())
		}
		require.Len(t, alone, len(faults), "seed %d", seed)
		require.Negative(t, left)
	}
}

func TestAPlanOfOneFaultFillsTheTime(t *testing.T) {
	t.Parallel()
	chosen, err := choose([]string{"kill-peer"})
	require.NoError(t, err)
	require.Greater(t, len(planOf(1, chosen, time.Minute)), 10)
	_, err = choose([]string{"kill-peer", "earthquake"})
	require.ErrorContains(t, err, "earthquake")
}

func TestTheCountOfAnErrorIsFound(t *testing.T) {
	t.Parallel()
	info := "# Errorstats\r\nerrorstat_ERR:count=7\r\nerrorstat_NOSCRIPT:count=12\r\n"
	require.EqualValues(t, 12, errorCount(info, "NOSCRIPT"))
	require.Zero(t, errorCount(info, "OOM"))
}

func TestWhatAFaultReachedIsCounted(t *testing.T) {
	t.Parallel()
	at := func(ms int) history.Moment { return history.Moment(time.Duration(ms) * time.Millisecond) }
	tally := tallied([]history.Event{
		{At: at(100), Process: "p", What: history.Beat, Began: at(99)},
		{At: at(150), Process: "p", What: history.Start, Kind: "plain", Job: "j", Epoch: 1},
		{At: at(200), What: history.Fault, Fault: "kill-leader", Victim: "p", On: true},
		{At: at(210), What: history.Fault, Fault: "redis-kill", On: true},
		{At: at(300), Process: "q", What: history.Start, Kind: "plain", Job: "j", Epoch: 2},
		{At: at(310), What: history.Fault, Fault: "redis-kill", On: true},
		{At: at(400), Process: "q", What: history.Reap, Silent: "p", State: dianemo.Scheduled},
		{At: at(2300), Process: "q", What: history.Lead, Leading: true},
		{At: at(3000), What: history.Fault, Fault: "cut-all", On: true},
		{At: at(5000), What: history.Fault, Fault: "cut-all"},
		{At: at(6000), What: history.Fault, Fault: "pause-peer", Victim: "q", On: true},
		{At: at(6500), Process: "q", What: history.Settle, Stale: true},
		{At: at(6600), Process: "q", What: history.Lead},
		{At: at(6700), Process: "q", What: history.Settle, Outcome: dianemo.GiveBack},
		{At: at(6800), Process: "q", What: history.Beat, Began: at(6500)},
		{At: at(6900), Process: "q", What: history.Start, Kind: "poison", Job: "x", Epoch: 3},
	}, 0)
	require.Equal(t, map[string]int64{"kill-leader": 2}, tally.leaderless)
	require.Equal(t, map[string]int64{"kill-leader": 1}, tally.reapedFrom)
	require.Equal(t, map[string]int64{"redis-kill": 1}, tally.outlasted, "the dead run nothing")
	require.Equal(t, map[string]int64{"cut-all": 9}, tally.silence)
	require.Equal(t, map[string]int64{"pause-peer": 1}, tally.deposed)
	require.Equal(t, []int64{1, 1, 1, 1}, []int64{tally.shutdowns, tally.slow, tally.poisoned, tally.stale})
}
