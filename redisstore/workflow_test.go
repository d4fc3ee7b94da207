package redisstore_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

const flow = "flow"

// A workflow of two jobs, of which it has been told this; its gate is open.
func (f *fixture) workflow(told map[string]dianemo.State) {
	f.t.Helper()
	p := f.Partition(flow)
	need := func(telling dianemo.Telling, w dianemo.Wait) {
		exist, err := f.Need(f.t.Context(), p, telling, 1, []dianemo.Wait{w})
		require.NoError(f.t, err)
		require.Equal(f.t, []bool{false}, exist)
	}
	need(dianemo.TellIt, dianemo.Wait{ID: flow, Gate: dianemo.OwnGate})
	r := record(flow, lane("workflow/kind"))
	r.Blocked = true
	f.enqueue(r)
	need(dianemo.JoinIt, dianemo.Wait{ID: flow, Parents: []dianemo.Parent{{ID: flow + "@a", On: dianemo.OfWorkflow}, {ID: flow + "@b", On: dianemo.OfWorkflow}}})
	f.tellWorkflow("", dianemo.Open, 0)
	for _, job := range []string{"a", "b"} {
		if state := told[job]; state != "" {
			f.tellWorkflow(flow+"@"+job, state, 1)
		}
	}
}

func (f *fixture) tellWorkflow(job string, state dianemo.State, seen int64) {
	f.t.Helper()
	reply, err := f.Release(f.t.Context(), f.Partition(flow), f.call("teller"), []dianemo.Release{{Child: flow, Parent: job, State: state, Number: seen}})
	require.NoError(f.t, err)
	require.Len(f.t, reply.Jobs, 1)
}

// Whatever a workflow was told before and is told now, its state is what its jobs say, and
// each move is in the table.
func TestAWorkflowIsWhatItsJobsSay_Long(t *testing.T) {
	t.Parallel()
	running, well, bad, left, off := dianemo.Scheduled, dianemo.Succeeded, dianemo.Failed, dianemo.Skipped, dianemo.Cancelled
	for _, befores := range [][2]dianemo.State{{"", ""}, {well, ""}, {well, well}, {bad, well}, {bad, bad}, {off, well}, {left, bad}, {off, bad}} {
		for _, becomes := range []dianemo.State{running, well, bad, left, off, dianemo.Missed, dianemo.Unreachable} {
			a, b := befores[0], befores[1]
			t.Run(string(a)+"_"+string(b)+"_then_"+string(becomes), func(t *testing.T) {
				t.Parallel()
				each(t, func(t *testing.T, f *fixture) {
					f.workflow(map[string]dianemo.State{"a": a, "b": b})
					before := f.stored(flow)
					require.Equal(t, verdict(a, b), before)
					f.tellWorkflow(flow+"@a", becomes, 2)
					after := f.stored(flow)
					require.Equal(t, verdict(becomes, b), after)
					if after != before {
						require.Contains(t, dianemo.WorkflowEdges[before][dianemo.EdgeRelease], after)
					}
					f.tellWorkflow(flow+"@a", running, 1)
					require.Equal(t, after, f.stored(flow), "that was seen before")
				})
			})
		}
	}
}

// verdict is how a workflow stands whose jobs do so.
func verdict(jobs ...dianemo.State) dianemo.State {
	state := dianemo.Succeeded
	for _, job := range jobs {
		switch job {
		case "", dianemo.Scheduled:
			return dianemo.Blocked
		case dianemo.Failed, dianemo.Missed, dianemo.Unreachable:
			state = dianemo.Failed
		case dianemo.Cancelled:
			if state == dianemo.Succeeded {
				state = dianemo.Cancelled
			}
		}
	}
	return state
}

// Whoever lets go of one of its jobs may say so twice, since it died before it was done.
func TestAWorkflowThatNoLongerWaitsForAJobIsToldOfTheOthers_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.workflow(map[string]dianemo.State{"a": dianemo.Succeeded, "b": dianemo.Succeeded})
		require.Equal(t, dianemo.Succeeded, f.stored(flow))
		for range 2 {
			_, err := f.Need(t.Context(), f.Partition(flow), dianemo.DropIt, 0, []dianemo.Wait{{ID: flow, Parents: []dianemo.Parent{{ID: flow + "@a"}}}})
			require.NoError(t, err)
		}
		f.tellWorkflow(flow+"@b", dianemo.Scheduled, 2)
		require.Equal(t, dianemo.Blocked, f.stored(flow))
		f.tellWorkflow(flow+"@b", dianemo.Succeeded, 3)
		require.Equal(t, dianemo.Succeeded, f.stored(flow))
	})
}

// One whose time is over stays for its children alone. What its jobs do is nothing to it then.
func TestAWorkflowThatStaysForItsChildrenIsNotToldOfItsJobs_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.workflow(map[string]dianemo.State{"a": dianemo.Succeeded, "b": dianemo.Succeeded})
		_, err := f.Need(t.Context(), f.Partition(flow), dianemo.DropIt, 0, []dianemo.Wait{{ID: flow}})
		require.NoError(t, err)
		for i, state := range []dianemo.State{dianemo.Scheduled, dianemo.Failed} {
			f.tellWorkflow(flow+"@b", state, int64(2+i))
			require.Equal(t, dianemo.Succeeded, f.stored(flow))
		}
	})
}

func TestAWorkflowIsNeitherRequeuedNorReplacedByHand_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.workflow(map[string]dianemo.State{"a": dianemo.Failed, "b": dianemo.Succeeded})
		var field *dianemo.FieldError
		require.ErrorAs(t, f.requeue(flow).Err, &field)
		require.Equal(t, dianemo.Failed, f.stored(flow))
		var state *dianemo.StateError
		require.ErrorAs(t, f.cancel(flow).Err, &state)
	})
	each(t, func(t *testing.T, f *fixture) {
		f.workflow(nil)
		require.NoError(t, f.cancel(flow).Err)
		require.Equal(t, dianemo.Blocked, f.stored(flow), "its jobs have not ended")
		f.tellWorkflow(flow+"@a", dianemo.Cancelled, 1)
		f.tellWorkflow(flow+"@b", dianemo.Failed, 1)
		require.Equal(t, dianemo.Cancelled, f.stored(flow), "that it was cancelled counts more")
	})
}

// Two may submit it at a time, and one of them is too late.
func TestAWorkflowThatWasGivenUpStaysAsItIsUntilItIsSubmittedAnew_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		r := record(flow, lane("workflow/kind"))
		r.Blocked = true
		tell := func(by uint64) {
			t.Helper()
			_, err := f.Need(t.Context(), f.Partition(flow), dianemo.TellIt, by, []dianemo.Wait{{ID: flow, Gate: dianemo.OwnGate}})
			require.NoError(t, err)
		}
		tell(1)
		f.enqueue(r)
		f.tellWorkflow("", dianemo.Void, 0)
		require.Equal(t, dianemo.Cancelled, f.stored(flow))
		tell(2)
		r.Teller = 1
		require.Equal(t, []int{0}, f.enqueue(r).Moved)
		require.Equal(t, dianemo.Cancelled, f.stored(flow))
		f.consistent(f.Partition(flow))
		r.Teller = 2
		require.Empty(t, f.enqueue(r).Moved)
		require.Equal(t, dianemo.Blocked, f.stored(flow))
		require.Zero(t, f.counted(dianemo.Cancelled))
	})
}

// What is cancelled with its workflow takes with it what waits for it there; but not what is
// behind a gate, since it is to be run again: that only hears of it, and is skipped if nothing
// newer comes before the gate opens.
func TestAChildOfAJobThatWasWithdrawnDoesNotWaitForIt_Long(t *testing.T) {
	t.Parallel()
	for _, on := range []dianemo.Condition{dianemo.OnSuccess, dianemo.OnFailure, dianemo.OnEnd, dianemo.OnChosen} {
		t.Run(string(on), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				tell := func(parent string, state dianemo.State, seen int64) {
					t.Helper()
					_, err := f.Release(t.Context(), f.Partition("child"), f.call("teller"), []dianemo.Release{{Child: "child", Parent: parent, State: state, Number: seen}})
					require.NoError(t, err)
				}
				_, err := f.Need(t.Context(), f.Partition("child"), dianemo.TellIt, 1, []dianemo.Wait{{ID: "child", Parents: []dianemo.Parent{{ID: "parent", On: on}}, Gate: dianemo.OwnGate}})
				require.NoError(t, err)
				r := record("child", lane("kind"))
				r.Blocked = true
				f.enqueue(r)
				tell("parent", dianemo.Withdrawn, 1)
				require.Equal(t, dianemo.Blocked, f.stored("child"), "the gate is closed")
				tell("", dianemo.Open, 0)
				require.Equal(t, dianemo.Skipped, f.stored("child"))
				tell("parent", dianemo.Scheduled, 3)
				require.Equal(t, dianemo.Blocked, f.stored("child"), "its parent is run again")
				tell("parent", dianemo.Withdrawn, 2)
				require.Equal(t, dianemo.Blocked, f.stored("child"), "that was before")
				tell("parent", dianemo.Withdrawn, 4)
				require.Equal(t, dianemo.Cancelled, f.stored("child"))
			})
		})
	}
}

// Why a job is skipped decides what becomes of its children, so it may not depend on which of
// its parents was first.
func TestWhyAJobIsSkippedDoesNotDependOnWhichParentEndsFirst_Long(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string][2]dianemo.State{"left out first": {dianemo.Unchosen, dianemo.Failed}, "failed first": {dianemo.Failed, dianemo.Unchosen}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				f.need("child", "one", "other")
				r := record("child", lane("kind"))
				r.Blocked = true
				f.enqueue(r)
				for i, state := range ends {
					_, err := f.Release(t.Context(), f.Partition("child"), f.call("teller"), []dianemo.Release{{Child: "child", Parent: []string{"one", "other"}[i], State: state, Number: int64(i + 1)}})
					require.NoError(t, err)
				}
				standings, err := f.Standings(t.Context(), []string{"child"})
				require.NoError(t, err)
				require.Equal(t, []dianemo.Standing{{State: dianemo.Skipped, Reason: "parent"}}, standings)
			})
		})
	}
}

// Nothing but the gate holds a schedule's workflow, and whoever looks for gates finds it.
func TestAScheduleMakesAWorkflowBehindAGateThatIsDueAtOnce_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		l := lane("workflow/kind")
		one := func(n int) dianemo.Occurrence {
			o := f.occurrence("s@"+strconv.Itoa(n), l, n)
			o.Blocked = true
			return o
		}
		allowed := dianemo.WorkflowEdges[""][dianemo.EdgeFire]
		late := func() bool {
			surveys, err := f.Survey(t.Context(), nil)
			require.NoError(t, err)
			return surveys[f.Partition("s")].Late
		}
		f.schedule("s")
		require.False(t, late())
		missed := one(1)
		missed.Missed = true
		firing := f.firing("s", 0, dianemo.OverlapSkip, missed, one(2), one(3))
		reply := f.fires(firing)
		require.Equal(t, []dianemo.State{dianemo.Missed, dianemo.Blocked, dianemo.Skipped}, reply.Fired[0].States)
		require.Empty(t, reply.News)
		for i, state := range reply.Fired[0].States {
			require.Equal(t, state, f.stored("s@"+strconv.Itoa(i+1)))
			require.Contains(t, allowed, state)
		}
		require.Len(t, allowed, 3)
		require.True(t, late())
		gates, err := f.Gates(t.Context(), f.Partition("s"), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"s@2"}, gates)
		s := f.stored1("s")
		require.Equal(t, "s@2", s.Last)
		require.Equal(t, dianemo.Blocked, s.LastState)
		require.False(t, f.fire(firing).Done, "what has been decided")

		waits := f.firing("s", 3, dianemo.OverlapWait, one(4))
		require.Equal(t, "s@2", f.fire(waits).Running)
		require.Empty(t, f.stored("s@4"))
		waits.Overlap = dianemo.OverlapAllow
		require.Equal(t, []dianemo.State{dianemo.Blocked}, f.fire(waits).States)
		// One without jobs has ended when it is opened.
		opened, err := f.Release(t.Context(), f.Partition("s"), f.call("submitter"), []dianemo.Release{{Child: "s@4", State: dianemo.Open}})
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, opened.Jobs[0].State)
		require.Equal(t, dianemo.Succeeded, f.stored1("s").LastState)
		gates, err = f.Gates(t.Context(), f.Partition("s"), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"s@2"}, gates)
		counts, err := f.Counts(t.Context())
		require.NoError(t, err)
		states := map[dianemo.State]int64{}
		for _, c := range counts {
			states[c.State] += c.Jobs
		}
		require.Equal(t, map[dianemo.State]int64{dianemo.Missed: 1, dianemo.Blocked: 1, dianemo.Skipped: 1, dianemo.Succeeded: 1}, states)
	})
}
