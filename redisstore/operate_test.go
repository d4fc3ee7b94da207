package redisstore_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func (f *fixture) cancel(id string) dianemo.Wished {
	f.t.Helper()
	reply, err := f.Cancel(f.t.Context(), f.Partition(id), f.call("operator"), []string{id})
	require.NoError(f.t, err)
	require.Len(f.t, reply.Jobs, 1)
	return reply.Jobs[0]
}

func (f *fixture) requeue(id string) dianemo.Wished {
	f.t.Helper()
	reply, err := f.Requeue(f.t.Context(), f.Partition(id), f.call("operator"), []string{id}, false)
	require.NoError(f.t, err)
	require.Len(f.t, reply.Jobs, 1)
	return reply.Jobs[0]
}

func (f *fixture) reschedule(id string, change dianemo.Change) dianemo.Wished {
	f.t.Helper()
	reply, err := f.Reschedule(f.t.Context(), f.Partition(id), f.call("operator"), []string{id}, change)
	require.NoError(f.t, err)
	require.Len(f.t, reply.Jobs, 1)
	return reply.Jobs[0]
}

// consistent fails unless each job is in exactly the index that its record says, and the
// counters and the index of lanes agree with them.
func (f *fixture) consistent(partition int) {
	f.t.Helper()
	ctx, tag := f.t.Context(), fmt.Sprintf("{%s:%d}:", f.namespace, partition)
	in := map[string][]string{} // id → indices
	sizes := map[string]int64{}
	for _, pattern := range []string{"lane:", "done:", "run:"} {
		for _, key := range f.rdb.Keys(ctx, tag+pattern+"*").Val() {
			for _, id := range f.rdb.ZRange(ctx, key, 0, -1).Val() {
				in[id] = append(in[id], key[len(tag):])
			}
			sizes[key[len(tag):]] = f.rdb.ZCard(ctx, key).Val()
		}
	}
	metas := f.rdb.HGetAll(ctx, tag+"meta").Val()
	counts := map[string]int64{}
	for _, id := range f.rdb.HKeys(ctx, tag+"spec").Val() {
		require.Len(f.t, in[id], 1, "job %s is in %v", id, in[id])
		record, ok := metas[id]
		if !ok {
			require.Regexp(f.t, "^lane:.*:new$", in[id][0])
			continue
		}
		fields := splitRecord(record)
		kind, class, lane := kindOf(fields[6]), classOf(fields[6]), fields[6]
		switch state := fields[1]; state {
		case "scheduled":
			name := ":new"
			if fields[11] != "0" {
				name = ":again"
			}
			require.Equal(f.t, "lane:"+lane+name, in[id][0], record)
		case "running":
			require.Equal(f.t, "run:"+fields[5], in[id][0])
			counts[state+":"+class]++
		default:
			require.Equal(f.t, "done:"+state+":"+kind, in[id][0], record)
			counts[state+":"+class]++
		}
	}
	for field, n := range f.rdb.HGetAll(ctx, tag+"counts").Val() {
		require.Equal(f.t, fmt.Sprint(counts[field]), n, "counter %s", field)
		delete(counts, field)
	}
	require.Empty(f.t, counts)
	lanes := map[string]bool{}
	for _, z := range f.rdb.ZRangeWithScores(ctx, tag+"lanes", 0, -1).Val() {
		name := z.Member.(string)
		lanes[name] = true
		head := f.rdb.ZRangeWithScores(ctx, tag+"lane:"+name, 0, 0).Val()
		require.Len(f.t, head, 1, "lane %s is in the index and empty", name)
		require.GreaterOrEqual(f.t, head[0].Score, z.Score, "lane %s", name)
	}
	for key := range sizes {
		if name, ok := strings.CutPrefix(key, "lane:"); ok {
			require.True(f.t, lanes[name], "lane %s is not in the index", name)
		}
	}
}

// marked is a job that runs under owner and was cancelled.
func (f *fixture) marked(id string, l dianemo.Lane, reruns int) dianemo.Claimed {
	f.t.Helper()
	f.enqueue(record(id, l))
	jobs := f.claim(f.Partition(id), owner, dianemo.ClaimLane{Lane: l, Weight: 1, Reruns: reruns}).Jobs
	require.Len(f.t, jobs, 1)
	job := f.cancel(id)
	require.NoError(f.t, job.Err)
	require.Equal(f.t, []any{dianemo.Running, owner}, []any{job.State, job.Peer})
	return jobs[0]
}

func TestACancelledRunEndsAsItsHandlerSaysAndNeverRunsAgain_Long(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[dianemo.Outcome]dianemo.State{dianemo.Succeed: dianemo.Succeeded, dianemo.FailRun: dianemo.Cancelled, "own": dianemo.Failed,
		dianemo.Retry: dianemo.Cancelled, dianemo.Postpone: dianemo.Cancelled, dianemo.GiveBack: dianemo.Cancelled,
		dianemo.Unstarted: dianemo.Cancelled, dianemo.CancelRun: dianemo.Cancelled} {
		t.Run(string(outcome), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				l := lane("kind")
				job := f.marked("job", l, 3)
				partition := f.Partition(job.ID)
				outcome, own := outcome, outcome == "own"
				if own {
					outcome = dianemo.FailRun
				}
				reply, err := f.Turn(t.Context(), partition, f.call(owner), []dianemo.Settlement{{ID: job.ID, Lane: l, Epoch: job.Epoch,
					Outcome: outcome, Own: own, Reason: map[bool]string{true: "cancel"}[outcome == dianemo.CancelRun]}}, dianemo.Claim{})
				require.NoError(t, err)
				require.Empty(t, reply.Stale)
				require.Empty(t, reply.News)
				info, err := f.Get(t.Context(), job.ID)
				require.NoError(t, err)
				require.Equal(t, want, info.Info.State)
				if want == dianemo.Cancelled {
					require.Equal(t, "cancel", info.Info.Reason)
				} else {
					require.Empty(t, info.Info.Reason)
				}
				instead := outcome != dianemo.CancelRun && want == dianemo.Cancelled
				require.Equal(t, instead, len(reply.Cancelled) == 1)
				again := l
				again.Again = true
				require.Empty(t, f.claim(partition, "other", claimLane(l), claimLane(again)).Jobs)
				f.consistent(partition)
			})
		})
	}
}

func TestACancelledRunOfASilentPeerEndsCancelled_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		job := f.marked("job", lane("kind"), 3)
		partition := f.Partition(job.ID)
		require.Equal(t, []dianemo.Moved{{ID: job.ID, State: dianemo.Cancelled, Kind: "kind", Priority: 2}}, f.reap(partition))
		// What the silent peer still sends is refused.
		require.Len(t, f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Succeed}), 1)
		require.Equal(t, dianemo.Cancelled, f.state(job.ID))
		f.consistent(partition)
	})
}

func TestABeatNamesTheRunsThatWereCancelled_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(2)
		job := f.marked(ids[0], lane("kind"), 0)
		f.enqueue(record(ids[1], lane("kind")))
		other := f.claim(f.Partition(ids[1]), owner, claimLane(lane("kind"))).Jobs[0]
		for range 2 {
			reply, err := f.Beat(t.Context(), f.Partition(job.ID), dianemo.Beat{Peer: owner, Every: time.Second, SilentAfter: time.Minute,
				Runs: []dianemo.HeldRun{{ID: job.ID, Epoch: job.Epoch}, {ID: other.ID, Epoch: other.Epoch}, {ID: "gone", Epoch: 1}}})
			require.NoError(t, err)
			require.Equal(t, []dianemo.RunRef{{ID: job.ID, Epoch: job.Epoch}}, reply.Cancelled)
			require.Equal(t, []dianemo.RunRef{{ID: "gone", Epoch: 1}}, reply.Lost)
		}
	})
}

// The claim's answer was lost, and before it is given again someone cancels.
func TestAClaimAnsweredAgainSaysWhatWasCancelledMeanwhile_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(2)
		f.enqueue(record(ids[0], lane("kind")), record(ids[1], lane("kind")))
		call := f.call(owner)
		claim := dianemo.Claim{Limit: 10, Room: roomFor(10), Lanes: []dianemo.ClaimLane{claimLane(lane("kind"))}, BeatEvery: time.Second}
		_, err := f.Turn(t.Context(), f.Partition(ids[0]), call, nil, claim)
		require.NoError(t, err)
		f.cancel(ids[1])
		reply, err := f.Turn(t.Context(), f.Partition(ids[0]), call, nil, claim)
		require.NoError(t, err)
		require.Len(t, reply.Jobs, 2)
		for _, job := range reply.Jobs {
			require.Equal(t, job.ID == ids[1], job.Cancelled)
			require.Empty(t, job.Corrupt)
		}
	})
}

func TestManyWishesInOneCallAreAnsweredOneByOne_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(5)
		partition := f.Partition(ids[0])
		l := lane("kind")
		f.enqueue(record(ids[0], l))
		job := f.claim(partition, owner, claimLane(l)).Jobs[0]
		f.settle(partition, owner, dianemo.Settlement{ID: ids[0], Lane: l, Epoch: job.Epoch, Outcome: dianemo.Succeed, Result: []byte("1")})
		f.enqueue(record(ids[1], l), record(ids[2], lane("other")))
		f.claim(partition, owner, claimLane(l))
		heavy := record(ids[3], l) // with a record, and due later
		heavy.Weight, heavy.Lane.Weight, heavy.Delay = 3, 4, time.Hour
		f.enqueue(heavy)

		call := f.call("operator")
		for range 2 {
			reply, err := f.Cancel(t.Context(), partition, call, ids)
			require.NoError(t, err)
			require.Empty(t, reply.News)
			require.Equal(t, dianemo.StateError{ID: ids[0], State: dianemo.Succeeded, Edge: dianemo.EdgeCancel}, *reply.Jobs[0].Err.(*dianemo.StateError))
			require.Equal(t, dianemo.Wished{Moved: dianemo.Moved{ID: ids[1], State: dianemo.Running, Kind: "kind", Priority: 2}, Peer: owner}, reply.Jobs[1])
			require.Equal(t, dianemo.Wished{Moved: dianemo.Moved{ID: ids[2], State: dianemo.Cancelled, Kind: "other", Priority: 2}}, reply.Jobs[2])
			require.Equal(t, dianemo.Wished{Moved: dianemo.Moved{ID: ids[3], State: dianemo.Cancelled, Kind: "kind", Priority: 2}}, reply.Jobs[3])
			require.ErrorIs(t, reply.Jobs[4].Err, dianemo.ErrNotFound)
		}
		f.consistent(partition)

		call = f.call("operator")
		for range 2 {
			reply, err := f.Requeue(t.Context(), partition, call, ids, false)
			require.NoError(t, err)
			require.NotEmpty(t, reply.News)
			for i, job := range reply.Jobs {
				switch i {
				case 1:
					require.Equal(t, &dianemo.StateError{ID: ids[1], State: dianemo.Running, Edge: dianemo.EdgeRequeue}, job.Err)
				case 4:
					require.ErrorIs(t, job.Err, dianemo.ErrNotFound)
				default:
					require.NoError(t, job.Err)
					require.Equal(t, dianemo.Scheduled, job.State)
				}
			}
		}
		f.consistent(partition)
		for i, want := range []dianemo.State{dianemo.Retrying, dianemo.Running, dianemo.Queued, dianemo.Queued, ""} {
			require.Equal(t, want, f.state(ids[i]), ids[i])
		}
		info, err := f.Get(t.Context(), ids[0])
		require.NoError(t, err)
		require.Nil(t, info.Info.Result)
		require.Equal(t, "requeue", info.Info.Reason)
		require.Zero(t, info.Info.EndedAt)

		call = f.call("operator")
		for range 2 {
			reply, err := f.Reschedule(t.Context(), partition, call, ids, dianemo.Change{Delay: time.Hour})
			require.NoError(t, err)
			require.Empty(t, reply.News)
			require.Equal(t, []bool{true, false, true, true, false}, []bool{reply.Jobs[0].Err == nil, reply.Jobs[1].Err == nil, reply.Jobs[2].Err == nil, reply.Jobs[3].Err == nil, reply.Jobs[4].Err == nil})
		}
		f.consistent(partition)
		require.Equal(t, dianemo.Scheduled, f.state(ids[2]))
		require.Empty(t, f.claim(partition, owner, claimLane(l), claimLane(lane("other"))).Jobs)
	})
}

// A repeated call must not undo what came between.
func TestAWishSentAgainLateChangesNothing_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		id := f.ids(1)[0]
		partition := f.Partition(id)
		f.enqueue(record(id, lane("kind")))
		call := f.call("one")
		_, err := f.Cancel(t.Context(), partition, call, []string{id})
		require.NoError(t, err)
		require.NoError(t, f.requeue(id).Err)
		reply, err := f.Cancel(t.Context(), partition, call, []string{id})
		require.NoError(t, err)
		require.Equal(t, dianemo.Cancelled, reply.Jobs[0].State, "the answer of the first")
		require.Equal(t, dianemo.Queued, f.state(id))

		f.cancel(id)
		requeue, reschedule := dianemo.Call{Caller: "one", Number: 1}, dianemo.Call{Caller: "one", Number: 2}
		for range 2 {
			reply, err = f.Requeue(t.Context(), partition, requeue, []string{id}, false)
			require.NoError(t, err)
			require.Equal(t, []any{true, nil, dianemo.Scheduled}, []any{len(reply.News) > 0, reply.Jobs[0].Err, reply.Jobs[0].State})
			f.cancel(id)
		}
		require.Equal(t, dianemo.Cancelled, f.state(id))
		f.requeue(id)
		for range 2 {
			reply, err = f.Reschedule(t.Context(), partition, reschedule, []string{id}, dianemo.Change{RunAt: time.UnixMilli(1_000_000_000_000)})
			require.NoError(t, err)
			require.Equal(t, []any{true, nil}, []any{len(reply.News) > 0, reply.Jobs[0].Err})
			require.NoError(t, f.reschedule(id, dianemo.Change{Delay: time.Hour}).Err)
		}
		require.Equal(t, dianemo.Scheduled, f.state(id), "not due")
	})
}

func TestARequeuedJobBeginsAnew_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		id := f.ids(1)[0]
		partition := f.Partition(id)
		l := lane("kind")
		again := l
		again.Again = true
		f.enqueue(record(id, l))
		job := f.claim(partition, owner, claimLane(l)).Jobs[0]
		f.settle(partition, owner, dianemo.Settlement{ID: id, Lane: l, Epoch: job.Epoch, Outcome: dianemo.FailRun, Error: "boom"})
		require.NoError(t, f.requeue(id).Err)
		got := f.claim(partition, owner, claimLane(again)).Jobs
		require.Len(t, got, 1)
		require.Equal(t, []int{0, 0, 2}, []int{got[0].Fails, got[0].Reruns, got[0].Runs})
		require.Greater(t, got[0].Epoch, job.Epoch)
		info, err := f.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "boom", info.Info.LastError(), "what happened before is kept")
		f.consistent(partition)
	})
}

func TestARescheduledJobIsWhereItsRecordSays_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(2)
		partition := f.Partition(ids[0])
		l := lane("kind")
		l.Grace = time.Hour
		urgent := l
		urgent.Priority = 1
		at := time.Now().Add(time.Minute).Truncate(time.Millisecond)
		for _, id := range ids {
			r := record(id, l)
			r.RunAt = at
			f.enqueue(r)
		}
		job := f.reschedule(ids[0], dianemo.Change{Priority: 1})
		require.NoError(t, job.Err)
		require.Equal(t, 1, job.Priority)
		info, err := f.Get(t.Context(), ids[0])
		require.NoError(t, err)
		require.Equal(t, []any{dianemo.Scheduled, 1, time.Hour, at.UnixMilli()}, []any{info.Info.State, info.Info.Priority, info.Info.Grace, info.Info.Due.UnixMilli()})
		f.consistent(partition)

		// Again, with a record now, and due: earlier than all before it.
		reply, err := f.Reschedule(t.Context(), partition, f.call("operator"), []string{ids[0]}, dianemo.Change{RunAt: time.Now().Add(-time.Minute)})
		require.NoError(t, err)
		require.NotEmpty(t, reply.News)
		require.Equal(t, dianemo.Queued, f.state(ids[0]))
		require.Equal(t, []dianemo.State{dianemo.Scheduled}, f.enqueue(record(ids[0], l)).Existing)
		require.Empty(t, f.claim(partition, owner, claimLane(l)).Jobs)
		jobs := f.claim(partition, owner, dianemo.ClaimLane{Lane: urgent, Weight: 1, Reruns: 1}).Jobs
		require.Len(t, jobs, 1)
		require.Equal(t, urgent, jobs[0].Lane)
		// It is reaped, waits again, and is missed where it stands.
		require.Len(t, f.reap(partition), 1)
		f.consistent(partition)
		require.NoError(t, f.reschedule(ids[0], dianemo.Change{Priority: 9, RunAt: time.Now().Add(-2 * time.Hour)}).Err)
		f.consistent(partition)
		require.Equal(t, []dianemo.Moved{{ID: ids[0], State: dianemo.Failed, Kind: "kind", Priority: 9}}, f.miss(partition))
		f.consistent(partition)
	})
}

// A broken index is not made worse: a job that is not where it should be is not
// put anywhere else.
func TestAJobThatIsInNoLaneIsNotRescheduled_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		id := f.ids(1)[0]
		f.enqueue(record(id, lane("kind")))
		waits := f.key(id, "lane:kind:2:-1:0:new")
		require.EqualValues(t, 1, f.rdb.ZRem(t.Context(), waits, id).Val())
		require.Equal(t, dianemo.ErrMoved, f.reschedule(id, dianemo.Change{RunAt: time.Now()}).Err)
		require.Equal(t, dianemo.ErrMoved, f.cancel(id).Err)
		require.Zero(t, f.rdb.Exists(t.Context(), waits).Val())
		require.False(t, f.rdb.HExists(t.Context(), f.key(id, "meta"), id).Val())
	})
}

func TestAPausedKindIsPassedOver_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(3)
		partition := f.Partition(ids[0])
		late := lane("paused")
		late.Grace = time.Minute
		old := record(ids[2], late)
		old.RunAt = time.Now().Add(-time.Hour)
		f.enqueue(record(ids[0], lane("paused")), record(ids[1], lane("other")), old)
		lanes := []dianemo.ClaimLane{claimLane(lane("paused")), claimLane(late), claimLane(lane("other"))}
		for _, kind := range []string{"paused", "paused", "more"} {
			require.NoError(t, f.Pause(t.Context(), partition, kind, true))
		}
		kinds, err := f.Paused(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"more", "paused"}, kinds)
		reply := f.claim(partition, owner, lanes...)
		require.Len(t, reply.Jobs, 1)
		require.Equal(t, ids[1], reply.Jobs[0].ID)
		require.Empty(t, reply.Missed)
		require.ElementsMatch(t, []string{"more", "paused"}, reply.Paused)
		require.Equal(t, []dianemo.State{dianemo.Queued, dianemo.Queued}, []dianemo.State{f.state(ids[0]), f.state(ids[2])})
		require.Len(t, f.miss(partition), 1, "grace goes on")
		for range 2 {
			require.NoError(t, f.Pause(t.Context(), partition, "paused", false))
		}
		reply = f.claim(partition, owner, lanes...)
		require.Len(t, reply.Jobs, 1)
		require.Equal(t, []string{"more"}, reply.Paused)
		require.NoError(t, f.Pause(t.Context(), partition, "more", false))
		require.Empty(t, f.claim(partition, owner, lanes...).Paused)
	})
}

func TestADrainedPeerIsToldWhenItShowsItself_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		present := func(peer string, gone bool) bool {
			drained, err := f.Present(ctx, dianemo.PeerInfo{ID: peer, SilentAfter: time.Hour}, gone)
			require.NoError(t, err)
			return drained
		}
		require.ErrorIs(t, f.Drain(ctx, owner, true), dianemo.ErrNoPeer)
		require.False(t, present(owner, false))
		require.False(t, present("other", false))
		require.NoError(t, f.Drain(ctx, owner, true))
		require.NoError(t, f.Drain(ctx, owner, true))
		require.True(t, present(owner, false))
		require.False(t, present("other", false))
		require.NoError(t, f.Drain(ctx, owner, false))
		require.NoError(t, f.Drain(ctx, owner, false))
		require.False(t, present(owner, false))

		drained := fmt.Sprintf("{%s}:drained", f.namespace)
		require.NoError(t, f.Drain(ctx, owner, true))
		present(owner, true)
		require.Empty(t, f.rdb.SMembers(ctx, drained).Val(), "forgotten when it leaves")
		present(owner, false)
		require.NoError(t, f.Drain(ctx, owner, true))
		require.NoError(t, f.rdb.ZIncrBy(ctx, fmt.Sprintf("{%s}:seen", f.namespace), -25*3600*1000, owner).Err())
		present("other", false)
		require.Empty(t, f.rdb.SMembers(ctx, drained).Val(), "and when it was not seen for a day")
		require.ErrorIs(t, f.Drain(ctx, owner, true), dianemo.ErrNoPeer)
	})
}

// Two sides of one job at once: whichever is first, the job ends once, in one place.
func TestCancelRacesWithWhatMovesTheJob_Long(t *testing.T) {
	t.Parallel()
	for name, rival := range map[string]func(f *fixture, partition int, job dianemo.Claimed){
		"retry": func(f *fixture, partition int, job dianemo.Claimed) {
			f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Retry, In: time.Hour})
		},
		"unstarted": func(f *fixture, partition int, job dianemo.Claimed) {
			f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Unstarted})
		},
		"succeed": func(f *fixture, partition int, job dianemo.Claimed) {
			f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Succeed})
		},
		"reap": func(f *fixture, partition int, _ dianemo.Claimed) { f.reap(partition) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				for round := range 10 {
					id := fmt.Sprintf("job@%d", round)
					partition := f.Partition(id)
					f.enqueue(record(id, lane("kind")))
					jobs := f.claim(partition, owner, dianemo.ClaimLane{Lane: lane("kind"), Weight: 1, Reruns: 3}).Jobs
					require.Len(t, jobs, 1)
					calls := f.calls
					f.calls += 10
					var both sync.WaitGroup
					both.Go(func() {
						for number := calls + 1; t.Context().Err() == nil; {
							reply, err := f.Cancel(t.Context(), partition, dianemo.Call{Caller: "racer", Number: number}, []string{id})
							if err != nil || reply.Jobs[0].Err != dianemo.ErrMoved {
								return
							}
							number++
						}
					})
					rival(f, partition, jobs[0])
					both.Wait()
					require.Equal(t, name != "succeed", f.state(id) == dianemo.Cancelled, "%s", f.state(id))
					f.consistent(partition)
				}
			})
		})
	}
}
