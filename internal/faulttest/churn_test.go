//go:build linux

package faulttest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestWhilePeersDieAllTheTimeEveryJobIsRunAsOftenAsItMayBe(t *testing.T) {
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprintf("partitions=%d", partitions), func(t *testing.T) {
			t.Parallel()
			const (
				jobs     = 200
				lasts    = 5 * time.Second
				killing  = 300 * time.Millisecond
				deadLine = 20 * time.Second
			)
			seed := uint64(partitions)
			dice := rand.New(rand.NewPCG(seed, 1))
			f := assemble(t, server, partitions)
			var alive []*peer
			join := func() { alive = append(alive, f.launch(settings{Tokens: 6})) }
			for range 4 {
				join()
			}

			var patient, once []string
			killed := map[int]bool{}
			end := time.NewTimer(lasts)
			defer end.Stop()
			kills := time.NewTicker(killing)
			defer kills.Stop()
			come := time.NewTicker(lasts / jobs * 9 / 10)
			defer come.Stop()
			for busy := true; busy; {
				select {
				case <-come.C:
					work := args{Work: time.Duration(20+dice.IntN(280)) * time.Millisecond}
					switch n := len(patient) + len(once); {
					case n == jobs:
					case n%4 == 0:
						once = append(once, f.enqueue(1, "work", work, urgent)...)
					default:
						patient = append(patient, f.enqueue(1, "work", work, dianemo.Options{Reruns: 100})...)
					}
				case <-kills.C:
					i := dice.IntN(len(alive))
					killed[alive[i].pid] = true
					alive[i].kill()
					alive = append(alive[:i], alive[i+1:]...)
					join()
				case <-end.C:
					busy = false
				}
			}
			require.Equal(t, jobs, len(patient)+len(once))

			begin := time.Now()
			counts := map[string]int64{}
			f.eventually("all jobs have ended", func() bool {
				all, err := f.client.Counts(t.Context())
				require.NoError(t, err)
				clear(counts)
				open := int64(0)
				for _, c := range all {
					counts[fmt.Sprintf("%s at %d", c.State, c.Priority)] += c.Jobs
					if !c.State.Finished() {
						open += c.Jobs
					}
				}
				return open == 0
			})
			t.Logf("seed %d: %d kills; all ended %v after the last; %v", seed, len(killed), time.Since(begin).Round(time.Millisecond), counts)

			pids := map[string]int{}
			for _, l := range f.seen(func(line) bool { return true }) {
				pids[l.Peer] = l.PID
			}
			for _, l := range f.seen(func(l line) bool { return l.Event == reaped }) {
				require.True(t, pids[l.Silent] == 0 || killed[pids[l.Silent]], "a living peer was taken for silent: %+v", l)
			}
			unreachable := int64(0)
			for _, id := range once {
				starts := f.starts(nil, id)
				require.LessOrEqual(t, len(starts), 1, "job %s may be started once: %+v", id, starts)
				if job := f.get(id); job.State == dianemo.Unreachable {
					unreachable++
					require.True(t, len(starts) == 0 || killed[starts[0].PID], "job %s: its peer lives", id)
				} else {
					require.Len(t, starts, 1)
					f.hasResultOf(starts[0])
				}
			}
			want := map[string]int64{"succeeded at 2": int64(len(patient)), "succeeded at 1": int64(len(once)) - unreachable}
			if unreachable > 0 {
				want["unreachable at 1"] = unreachable
			}
			require.Equal(t, want, counts)
			again := 0
			for _, id := range patient {
				starts := f.starts(nil, id)
				require.NotEmpty(t, starts)
				for i := 1; i < len(starts); i++ {
					require.Greater(t, starts[i].Epoch, starts[i-1].Epoch, "epochs of job %s: %+v", id, starts)
				}
				again += len(starts) - 1
				job := f.get(id)
				require.GreaterOrEqual(t, job.Runs, len(starts))
				f.hasResultOf(starts[len(starts)-1])
			}
			t.Logf("%d runs were repeated", again)
			require.Positive(t, again, "the test killed nothing that mattered")
			accepted := map[string]bool{}
			for _, l := range f.seen(func(l line) bool { return l.Event == settled && !l.Stale }) {
				require.False(t, accepted[l.Job], "job %s ended twice", l.Job)
				accepted[l.Job] = true
			}
		})
	}
}
