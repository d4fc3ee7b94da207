package redisstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
)

// unique is the n-th job of those that share a slot.
func unique(n int, u dianemo.Unique) dianemo.Record {
	r := record(fmt.Sprintf("slot@%d", n), lane("kind"))
	r.Unique = u
	if r.Unique.Key == "" {
		r.Unique.Key = "key"
	}
	return r
}

// refuses enqueues a record and expects it to be refused for that job's sake.
func (f *fixture) refuses(r dianemo.Record, holder string, state dianemo.State) {
	f.t.Helper()
	reply := f.enqueue(r)
	require.Equal(f.t, []dianemo.State{state}, reply.Existing)
	require.Equal(f.t, map[int]string{0: holder}, reply.Holders)
	require.Empty(f.t, reply.Moved)
	require.Empty(f.t, f.state(r.ID))
}

func (f *fixture) accepts(r dianemo.Record) {
	f.t.Helper()
	reply := f.enqueue(r)
	require.Equal(f.t, []dianemo.State{""}, reply.Existing)
	require.Nil(f.t, reply.Holders)
	require.Empty(f.t, reply.Moved)
}

// Each way in which a job can end frees its slot, and each state before that holds it.
func TestASlotIsHeldUntilItsJobHasEnded_Long(t *testing.T) {
	t.Parallel()
	l := lane("kind")
	again := l
	again.Again = true
	run := func(f *fixture, l dianemo.Lane) dianemo.Claimed {
		jobs := f.claim(f.Partition("slot"), owner, dianemo.ClaimLane{Lane: l, Weight: 1, Reruns: 1}).Jobs
		require.Len(f.t, jobs, 1)
		return jobs[0]
	}
	settle := func(f *fixture, job dianemo.Claimed, outcome dianemo.Outcome) {
		require.Empty(f.t, f.settle(f.Partition("slot"), owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: outcome}))
	}
	for name, end := range map[string]func(f *fixture){
		"succeeds":            func(f *fixture) { settle(f, run(f, l), dianemo.Succeed) },
		"fails":               func(f *fixture) { settle(f, run(f, l), dianemo.FailRun) },
		"waits and cancelled": func(f *fixture) { require.NoError(f.t, f.cancel("slot@1").Err) },
		"runs and cancelled": func(f *fixture) {
			job := run(f, l)
			require.NoError(f.t, f.cancel("slot@1").Err)
			f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Running)
			settle(f, job, dianemo.CancelRun)
		},
		"unreachable": func(f *fixture) {
			run(f, l)
			require.Len(f.t, f.reap(f.Partition("slot")), 1)
			f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Scheduled)
			run(f, again)
			require.Len(f.t, f.reap(f.Partition("slot")), 1)
		},
		"deleted by hand": func(f *fixture) {
			for _, hash := range []string{"spec", "meta"} {
				require.NoError(f.t, f.rdb.HDel(f.t.Context(), f.key("slot", hash), "slot@1").Err())
			}
		},
		"spec deleted by hand": func(f *fixture) {
			require.NoError(f.t, f.rdb.HDel(f.t.Context(), f.key("slot", "spec"), "slot@1").Err())
		},
		"slot broken by hand": func(f *fixture) {
			require.NoError(f.t, f.rdb.HSet(f.t.Context(), f.key("slot", "unique"), "kind:key", "garbage").Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				f.accepts(unique(1, dianemo.Unique{}))
				f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Scheduled)
				f.accepts(unique(3, dianemo.Unique{Key: "another"}))
				f.cancel("slot@3")
				other := unique(4, dianemo.Unique{}) // another kind's
				other.Lane.Kind = "other"
				f.accepts(other)
				job := run(f, l)
				f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Running)
				f.refuses(unique(2, dianemo.Unique{Replace: true}), "slot@1", dianemo.Running)
				settle(f, job, dianemo.Unstarted)
				f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Scheduled)
				end(f)
				f.accepts(unique(2, dianemo.Unique{}))
				f.refuses(unique(5, dianemo.Unique{}), "slot@2", dianemo.Scheduled)
			})
		})
	}
}

func TestASlotUntilTheStartIsFreeFromThere_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		started := dianemo.Unique{Until: dianemo.UntilStarted}
		l := lane("kind")
		again := l
		again.Again = true
		partition := f.Partition("slot")
		f.accepts(unique(1, started))
		f.refuses(unique(2, started), "slot@1", dianemo.Scheduled)
		job := f.claim(partition, owner, claimLane(l)).Jobs[0]
		f.accepts(unique(2, started))
		f.refuses(unique(3, started), "slot@2", dianemo.Scheduled)
		f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: l, Epoch: job.Epoch, Outcome: dianemo.FailRun})
		// A requeue takes it again, once it is free, and holds it until the next start.
		taken := f.requeue("slot@1")
		require.Equal(t, &dianemo.ExistsError{ID: "slot@2", State: dianemo.Scheduled, Key: "key"}, taken.Err)
		require.Equal(t, dianemo.Failed, taken.State)
		require.Equal(t, dianemo.Failed, f.state("slot@1"))
		require.Len(t, f.claim(partition, owner, claimLane(l)).Jobs, 1)
		require.NoError(t, f.requeue("slot@1").Err)
		f.refuses(unique(3, started), "slot@1", dianemo.Scheduled)
		require.Len(t, f.claim(partition, owner, claimLane(again)).Jobs, 1)
		f.accepts(unique(3, started))
		f.consistent(partition)
	})
}

// One that waits for its next try was started.
func TestAJobThatWaitsForItsNextTryIsNotReplaced_Long(t *testing.T) {
	t.Parallel()
	for until, refused := range map[dianemo.UniqueUntil]bool{dianemo.UntilFinished: true, dianemo.UntilStarted: false} {
		t.Run(fmt.Sprint(until), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				partition := f.Partition("slot")
				f.accepts(unique(1, dianemo.Unique{Until: until}))
				job := f.claim(partition, owner, claimLane(lane("kind"))).Jobs[0]
				f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Retry})
				second := unique(2, dianemo.Unique{Until: until, Replace: true})
				if refused {
					f.refuses(second, "slot@1", dianemo.Scheduled)
				} else {
					f.accepts(second)
				}
				require.Equal(t, dianemo.Retrying, f.state("slot@1"))
				f.consistent(partition)
			})
		})
	}
}

func TestASlotIsHeldNoLongerThanAsked_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.accepts(unique(1, dianemo.Unique{For: 30 * time.Second}))
		f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Scheduled)
		// As if that time had passed.
		slot := f.key("slot", "unique")
		var id string
		var expires int64
		value := f.rdb.HGet(t.Context(), slot, "kind:key").Val()
		_, err := fmt.Sscanf(value, "slot@1|f|%d|%s", &expires, &id)
		require.NoError(t, err, value)
		now := f.rdb.Time(t.Context()).Val()
		require.InDelta(t, now.Add(30*time.Second).UnixMilli(), expires, 20_000)
		require.NoError(t, f.rdb.HSet(t.Context(), slot, "kind:key", fmt.Sprintf("slot@1|f|%d|0", now.UnixMilli()-1)).Err())
		f.accepts(unique(2, dianemo.Unique{}))
		require.Equal(t, dianemo.Queued, f.state("slot@1"), "the job itself goes on")
		f.consistent(f.Partition("slot"))
	})
}

func TestAJobThatIsNotStartedIsReplaced_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		replace := dianemo.Unique{Replace: true}
		first := unique(1, replace)
		first.Lane.Priority, first.Delay = 5, time.Hour
		f.accepts(first)
		f.accepts(unique(2, replace))
		info, err := f.Get(t.Context(), "slot@1")
		require.NoError(t, err)
		require.Equal(t, []any{dianemo.Cancelled, "replaced", "key"}, []any{info.Info.State, info.Info.Reason, info.Info.UniqueKey})
		f.consistent(f.Partition("slot"))

		// After a reschedule it is elsewhere.
		require.NoError(t, f.reschedule("slot@2", dianemo.Change{Priority: 9}).Err)
		f.accepts(unique(3, replace))
		require.Equal(t, dianemo.Cancelled, f.state("slot@2"))
		require.Equal(t, &dianemo.ExistsError{ID: "slot@3", State: dianemo.Scheduled, Key: "key"}, f.requeue("slot@1").Err)
		f.consistent(f.Partition("slot"))
	})
}

// Of one key in one batch: the first is accepted and the others refused, or each
// replaces the one before.
func TestOneKeySeveralTimesInOneBatch_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition("slot")
		call := f.call("producer")
		plain := record("slot@plain", lane("kind"))
		for range 2 {
			reply, err := f.Enqueue(t.Context(), partition, call, []dianemo.Record{unique(1, dianemo.Unique{}), plain, unique(2, dianemo.Unique{}), unique(3, dianemo.Unique{For: time.Hour})})
			require.NoError(t, err)
			require.Equal(t, []dianemo.State{"", "", dianemo.Scheduled, dianemo.Scheduled}, reply.Existing)
			require.Equal(t, map[int]string{2: "slot@1", 3: "slot@1"}, reply.Holders)
		}
		f.consistent(partition)
		var batch []dianemo.Record
		for n := 4; n < 10; n++ {
			r := unique(n, dianemo.Unique{Replace: true})
			r.Delay = time.Duration(n%2) * time.Hour
			r.Lane.Priority = 1 + n%3
			batch = append(batch, r)
		}
		batch[5].Lane.Priority, batch[5].Delay = 8, 3*time.Hour // sent last, since it shares its group with none
		call = f.call("producer")
		for range 2 {
			reply, err := f.Enqueue(t.Context(), partition, call, batch)
			require.NoError(t, err)
			require.Equal(t, make([]dianemo.State, 6), reply.Existing)
			require.Empty(t, reply.Moved)
		}
		for n := 1; n < 10; n++ {
			want := dianemo.Cancelled
			switch n {
			case 2, 3:
				want = ""
			case 9:
				want = dianemo.Scheduled
			}
			require.Equal(t, want, f.state(fmt.Sprintf("slot@%d", n)), "%d", n)
		}
		f.consistent(partition)
		f.refuses(unique(10, dianemo.Unique{}), "slot@9", dianemo.Scheduled)
	})
}

// Who holds the slot, or where, changes between the reading of its keys and the
// script.
func TestAReplacementThatComesTooLateIsToldSo(t *testing.T) {
	t.Parallel()
	options := redisstore.Options{Namespace: fmt.Sprintf("test-%d", namespaces.Add(1)), Partitions: 1}
	f := &fixture{Store: redisstore.New(server.Client(t), options), t: t, rdb: server.Client(t), namespace: options.Namespace}
	require.NoError(t, f.Open(t.Context()))
	between := func() {}
	client := server.Client(t)
	client.AddHook(scriptHook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		between()
		return next(ctx, cmd)
	}))
	late := redisstore.New(client, options)
	require.NoError(t, late.Open(t.Context()))
	replace := dianemo.Unique{Replace: true}
	try := func(meddle func()) dianemo.EnqueueReply {
		between = meddle
		reply, err := late.Enqueue(t.Context(), 0, f.call("late"), []dianemo.Record{unique(100, replace)})
		require.NoError(t, err)
		return reply
	}
	f.accepts(unique(1, replace))
	require.Equal(t, []int{0}, try(func() { f.accepts(unique(2, replace)) }).Moved)
	require.Equal(t, []dianemo.State{"", dianemo.Queued}, []dianemo.State{f.state("slot@100"), f.state("slot@2")})
	require.Equal(t, []int{0}, try(func() { require.NoError(t, f.reschedule("slot@2", dianemo.Change{Priority: 9}).Err) }).Moved)
	f.consistent(0)
	l := lane("kind")
	l.Priority = 9
	var job dianemo.Claimed
	reply := try(func() {
		jobs := f.claim(0, owner, claimLane(l)).Jobs
		require.Len(t, jobs, 1)
		job = jobs[0]
	})
	require.Equal(t, []dianemo.State{dianemo.Running}, reply.Existing)
	require.Equal(t, map[int]string{0: "slot@2"}, reply.Holders)
	f.consistent(0)
	reply = try(func() {
		f.settle(0, owner, dianemo.Settlement{ID: job.ID, Lane: l, Epoch: job.Epoch, Outcome: dianemo.Succeed})
	})
	require.Equal(t, []dianemo.State{""}, reply.Existing)
	f.consistent(0)
}

func TestOfManyClientsAtOnceOneGetsTheSlot_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition("slot")
		const callers = 8
		var all sync.WaitGroup
		replies := make([]dianemo.EnqueueReply, callers)
		errs := make([]error, callers)
		for i := range callers {
			all.Go(func() {
				replies[i], errs[i] = f.Enqueue(t.Context(), partition, dianemo.Call{Caller: fmt.Sprint("caller-", i), Number: 1}, []dianemo.Record{unique(i, dianemo.Unique{})})
			})
		}
		all.Wait()
		accepted, holder := 0, ""
		for i, reply := range replies {
			require.NoError(t, errs[i])
			if reply.Existing[0] == "" {
				accepted, holder = accepted+1, fmt.Sprintf("slot@%d", i)
			}
		}
		require.Equal(t, 1, accepted)
		for _, reply := range replies {
			if reply.Existing[0] != "" {
				require.Equal(t, map[int]string{0: holder}, reply.Holders)
			}
		}
		f.consistent(partition)
	})
}

// Either the first was started, and the second is refused, or it never will be.
func TestReplaceRacesWithClaim_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition("slot")
		for round := range 10 {
			u := dianemo.Unique{Key: fmt.Sprint("key-", round), Replace: true}
			first, second := unique(2*round, u), unique(2*round+1, u)
			second.Delay = time.Hour
			f.accepts(first)
			var reply dianemo.EnqueueReply
			var err error
			var both sync.WaitGroup
			call := dianemo.Call{Caller: "racer", Number: uint64(100*round + 1)}
			both.Go(func() {
				reply, err = f.Enqueue(t.Context(), partition, call, []dianemo.Record{second})
				for len(reply.Moved) > 0 {
					call.Number++
					reply, err = f.Enqueue(t.Context(), partition, call, []dianemo.Record{second})
				}
			})
			jobs := f.claim(partition, owner, claimLane(lane("kind"))).Jobs
			both.Wait()
			require.NoError(t, err)
			if len(jobs) == 1 {
				require.Equal(t, first.ID, jobs[0].ID)
				require.Equal(t, []dianemo.State{dianemo.Running}, reply.Existing)
				require.Empty(t, f.state(second.ID))
			} else {
				require.Equal(t, []dianemo.State{""}, reply.Existing)
				require.Equal(t, []dianemo.State{dianemo.Cancelled, dianemo.Scheduled}, []dianemo.State{f.state(first.ID), f.state(second.ID)})
			}
			f.consistent(partition)
		}
	})
}

// A job that was skipped held its slot no longer. When it waits again after all, it takes it again,
// as one does that is requeued; if another has it by then, both go on.
func TestAJobThatIsSkippedNoLongerTakesItsSlotAgain_Long(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]bool{"free": false, "taken": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				f.need("slot@1", parentOf("slot@1"))
				r := unique(1, dianemo.Unique{})
				r.Blocked = true
				f.accepts(r)
				f.refuses(unique(2, dianemo.Unique{}), "slot@1", dianemo.Blocked)
				f.release("slot@1", dianemo.Failed)
				require.Equal(t, dianemo.Skipped, f.state("slot@1"))
				// Its slot was free meanwhile.
				f.accepts(unique(3, dianemo.Unique{}))
				if !other {
					require.NoError(t, f.cancel("slot@3").Err)
				}
				f.release("slot@1", dianemo.Scheduled)
				require.Equal(t, dianemo.Blocked, f.state("slot@1"))
				if other {
					f.refuses(unique(4, dianemo.Unique{}), "slot@3", dianemo.Scheduled)
					return
				}
				f.refuses(unique(4, dianemo.Unique{}), "slot@1", dianemo.Blocked)
				f.release("slot@1", dianemo.Succeeded)
				require.Equal(t, dianemo.Queued, f.state("slot@1"))
				f.refuses(unique(5, dianemo.Unique{}), "slot@1", dianemo.Scheduled)
			})
		})
	}
}
