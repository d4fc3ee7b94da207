//go:build linux

package faulttest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/sample"
)

func TestWhilePeersDieAllTheTimeEveryJobIsRunAsOftenAsItMayBe_Long(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		partitions int
		lossy      bool // every tenth reply of Redis is lost
		pauses     bool // every other victim is stopped for a while, not killed
	}{
		{"1 partition", 1, false, false},
		{"8 partitions", 8, false, false},
		{"8 partitions, replies lost, peers paused", 8, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const strike = silentAfter / 2
			jobs, lasts := sample.Part(t, 200, 3), time.Duration(sample.Part(t, 16, 3))*strike
			dice := sample.Rand(t)
			f := assemble(t, server, c.partitions)
			var alive []*peer
			join := func() {
				s := settings{Tokens: 6}
				if c.lossy {
					proxy := redistest.StartProxy(t, server.Addr())
					proxy.DropEvery(10)
					s.Redis = proxy.Addr()
				}
				alive = append(alive, f.launch(s))
			}
			for range 4 {
				join()
			}

			var patient, once []string
			victims := map[int]time.Time{} // by pid, when they were first hit
			var asleep sync.WaitGroup
			begun := time.Now()
			strikes := time.NewTicker(strike)
			defer strikes.Stop()
			come := time.NewTicker(lasts / time.Duration(jobs))
			defer come.Stop()
			enqueue := func() {
				work := args{Work: time.Duration(20+dice.IntN(280)) * time.Millisecond}
				switch n := len(patient) + len(once); {
				case n%4 == 0:
					once = append(once, f.enqueue(1, "work", work, urgent)...)
				default:
					patient = append(patient, f.enqueue(1, "work", work, dianemo.Options{Reruns: 100})...)
				}
			}
			// It goes on until it has hit something that matters.
			for struck := 0; time.Since(begun) < lasts || f.repeated() == 0; {
				require.Less(t, time.Since(begun), lasts+patience, "nothing that mattered was hit")
				select {
				case <-come.C:
					enqueue()
				case <-strikes.C:
					i := dice.IntN(len(alive))
					victim := alive[i]
					if victims[victim.pid].IsZero() {
						victims[victim.pid] = time.Now()
					}
					if struck++; c.pauses && struck%2 == 0 {
						victim.pause()
						asleep.Add(1)
						time.AfterFunc(2*silentAfter, func() {
							victim.resume()
							asleep.Done()
						})
						continue
					}
					victim.kill()
					alive = slices.Delete(alive, i, i+1)
					join()
				}
			}
			for len(patient)+len(once) < jobs { // those for which a busy machine left no time
				enqueue()
			}
			asleep.Wait()

			begin := time.Now()
			counts := map[string]int64{}
			f.eventually("all jobs have ended", func() bool {
				all, err := f.client.Counts(t.Context())
				require.NoError(t, err)
				clear(counts)
				over := int64(0)
				for _, n := range all {
					counts[fmt.Sprintf("%s at %d", n.State, n.Priority)] += n.Jobs
					if n.State.Finished() {
						over += n.Jobs
					}
				}
				return over >= int64(len(patient)+len(once))
			})
			t.Logf("%d victims; all ended %v after the last; %v", len(victims), time.Since(begin).Round(time.Millisecond), counts)
			// Late results have been answered when those that are left have ended.
			for _, p := range alive {
				p.terminate()
			}
			for _, p := range alive {
				require.Empty(t, p.exit().Cause)
			}

			pids := map[string]int{}
			for _, l := range f.seen(func(l line) bool { return l.Event == made }) {
				pids[l.Peer] = l.PID
			}
			for _, l := range f.seen(func(l line) bool { return l.Event == reaped }) {
				hit := victims[pids[l.Silent]]
				require.True(t, !hit.IsZero() && hit.Before(l.At), "a living peer was taken for silent: %+v", l)
			}
			unreachable := int64(0)
			for _, id := range once {
				starts := f.starts(nil, id)
				require.LessOrEqual(t, len(starts), 1, "job %s may be started once: %+v", id, starts)
				if job := f.get(id); job.State == dianemo.Unreachable {
					unreachable++
					require.Contains(t, victims, pids[job.Peer], "job %s: its peer lives", id)
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
				byEpoch := slices.SortedFunc(slices.Values(starts), func(a, b line) int { return int(a.Epoch - b.Epoch) })
				for i := 1; i < len(starts); i++ {
					require.Greater(t, byEpoch[i].Epoch, byEpoch[i-1].Epoch, "two runs of job %s under one epoch: %+v", id, starts)
				}
				if !c.pauses { // a peer may be stopped between a claim and a start
					require.Equal(t, byEpoch, starts, "epochs of job %s in the order of its starts", id)
				}
				again += len(starts) - 1
				require.GreaterOrEqual(t, f.get(id).Runs, len(starts))
				f.hasResultOf(byEpoch[len(starts)-1])
			}
			t.Logf("%d runs were repeated", again)
			require.Positive(t, again)
			accepted := map[string]bool{}
			for _, l := range f.seen(func(l line) bool { return l.Event == settled && !l.Stale }) {
				require.False(t, accepted[l.Job], "job %s ended twice", l.Job)
				accepted[l.Job] = true
			}
		})
	}
}
