//go:build linux

package faulttest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/sample"
)

// A flowJob is a job of a random workflow.
type flowJob struct {
	id      string
	fails   bool
	once    bool // it may be started once
	parents []dianemo.Parent
}

func randomWorkflow(dice *rand.Rand, id string) (*dianemo.Workflow, []flowJob) {
	wf := dianemo.NewWorkflow("random")
	wf.ID, wf.Spread = id, dice.IntN(2) == 0
	var jobs []flowJob
	var names []string
	for i := range 2 + dice.IntN(9) {
		name := fmt.Sprint("j", i)
		j := flowJob{id: id + "@" + name, fails: dice.IntN(6) == 0, once: dice.IntN(4) == 0}
		if wf.Spread {
			j.id = name + "/" + id
		}
		options := dianemo.Options{Reruns: 100}
		if j.once {
			options = urgent
		}
		job := wf.Add(name, dianemo.NewKind[args]("work", dianemo.Policy{}).NewWith(args{Work: 20*time.Millisecond + within(dice, 180*time.Millisecond), Fails: j.fails}, options))
		for k, p := range jobs {
			if dice.IntN(i) >= 2 {
				continue
			}
			on := []dianemo.Condition{dianemo.OnSuccess, dianemo.OnSuccess, dianemo.OnEnd, dianemo.OnFailure}[dice.IntN(4)]
			switch on {
			case dianemo.OnSuccess:
				job.After(names[k])
			case dianemo.OnEnd:
				job.AfterEnd(names[k])
			case dianemo.OnFailure:
				job.AfterFailure(names[k])
			}
			j.parents = append(j.parents, dianemo.Parent{ID: p.id, On: on})
		}
		jobs, names = append(jobs, j), append(names, name)
	}
	return wf, jobs
}

func suits(on dianemo.Condition, state dianemo.State) bool {
	return on == dianemo.OnEnd || (state == dianemo.Succeeded) == (on == dianemo.OnSuccess)
}

// No job starts before its parents have ended as it wants, as handlers saw it; every workflow
// ends, as its jobs say; and those end as their parents say.
func TestWhilePeersDieAndSleepWorkflowsEndAsTheyMust_Long(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 16} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			flows, begun := sample.Part(t, 60, 4), time.Now()
			dice := sample.Rand(t)
			f := assemble(t, server, partitions)
			var alive []*peer
			join := func() { alive = append(alive, f.launch(settings{Tokens: 8})) }
			for range 4 {
				join()
			}
			made := map[string][]flowJob{}
			submit := func() {
				id := fmt.Sprint("w", len(made))
				wf, jobs := randomWorkflow(dice, id)
				made[id] = jobs
				_, err := f.client.Submit(t.Context(), wf)
				require.NoError(t, err)
			}
			var asleep sync.WaitGroup
			strikes, come := time.NewTicker(silentAfter/2), time.NewTicker(silentAfter/9)
			defer strikes.Stop()
			defer come.Stop()
			// It goes on until it has hit something that matters.
			for struck := 0; len(made) < flows || f.repeated() == 0; {
				require.Less(t, time.Since(begun), 2*patience, "nothing that mattered was hit")
				select {
				case <-come.C:
					submit()
				case <-strikes.C:
					i := dice.IntN(len(alive))
					victim := alive[i]
					if struck++; struck%2 == 0 {
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
			asleep.Wait()
			begin := time.Now()
			for id := range made {
				f.inTime(2*patience, "workflow "+id+" has ended", func() bool { return f.get(id).State.Finished() })
			}
			t.Logf("all ended %v after the last was struck", time.Since(begin).Round(time.Millisecond))
			for _, p := range alive {
				p.terminate()
			}
			for _, p := range alive {
				require.Empty(t, p.exit().Cause)
			}

			starts, over := map[string][]int{}, map[string]int{} // places in what the witness saw
			for i, l := range f.seen(func(l line) bool { return l.is(started) || l.is(returned) }) {
				if l.Event == started {
					starts[l.Job] = append(starts[l.Job], i)
				} else if _, there := over[l.Job]; !there {
					over[l.Job] = i
				}
			}
			counts, again := map[dianemo.State]int{}, 0
			for id, jobs := range made {
				ends, bad := map[string]dianemo.State{}, false
				for _, j := range jobs {
					state := f.get(j.id).State
					ends[j.id] = state
					counts[state]++
					bad = bad || state == dianemo.Failed || state == dianemo.Unreachable
					fit := true
					for _, p := range j.parents {
						fit = fit && suits(p.On, ends[p.ID])
						for _, at := range starts[j.id] {
							ended, returned := over[p.ID]
							// One that was skipped, or went with its peer, had no more to say.
							if ends[p.ID] != dianemo.Skipped && ends[p.ID] != dianemo.Unreachable {
								require.True(t, returned && ended < at, "%s starts before %s has ended", j.id, p.ID)
							}
						}
					}
					switch {
					case !fit:
						require.Equal(t, dianemo.Skipped, state, j.id)
						require.Empty(t, starts[j.id], "%s was started all the same", j.id)
					case j.once && state == dianemo.Unreachable:
					case j.fails:
						require.Equal(t, dianemo.Failed, state, j.id)
					default:
						require.Equal(t, dianemo.Succeeded, state, j.id)
					}
					if j.once {
						require.LessOrEqual(t, len(starts[j.id]), 1, j.id)
					}
					again += max(len(starts[j.id])-1, 0)
				}
				want := dianemo.Succeeded
				if bad {
					want = dianemo.Failed
				}
				require.Equal(t, want, f.get(id).State, id)
			}
			t.Logf("%v; %d runs were repeated", counts, again)
			require.Positive(t, again+counts[dianemo.Unreachable])
		})
	}
}
