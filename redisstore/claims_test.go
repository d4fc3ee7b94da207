package redisstore_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A claim against a model: random kinds, weights, overrides, priorities and
// budgets. What it takes fits, is what was due, is the most urgent that was
// there, and is charged exactly.
func TestClaimsFitTheirRoom_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		type job struct {
			id       string
			lane     dianemo.Lane
			weight   int
			inFuture bool
		}
		for seed := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, 3))
			var waiting []job
			kinds := map[string]int{"light": 1, "middle": 3, "heavy": 9}
			names := []string{"light", "middle", "heavy"}
			partition := f.Partition(fmt.Sprintf("s%d@", seed))
			var lanes []dianemo.ClaimLane
			var records []dianemo.Record
			for i := range 60 {
				kind := names[rng.IntN(3)]
				j := job{id: fmt.Sprintf("s%d@%d", seed, i), weight: kinds[kind], inFuture: rng.IntN(6) == 0}
				j.lane = dianemo.Lane{Kind: fmt.Sprintf("%s%d", kind, seed), Priority: 1 + rng.IntN(4), Grace: dianemo.Unlimited}
				r := record(j.id, j.lane)
				if rng.IntN(3) == 0 {
					j.weight = 1 + rng.IntN(20)
					for j.lane.Weight = 1; j.lane.Weight < j.weight; {
						j.lane.Weight *= 2
					}
					r = record(j.id, j.lane)
					r.Weight = j.weight
				}
				if j.inFuture {
					r.Delay = time.Hour
				}
				l := dianemo.ClaimLane{Lane: j.lane, Weight: kinds[kind]}
				if !slices.Contains(lanes, l) {
					lanes = append(lanes, l)
				}
				records, waiting = append(records, r), append(waiting, j)
			}
			f.enqueue(records...)
			slices.SortStableFunc(lanes, func(a, b dianemo.ClaimLane) int { return a.Priority - b.Priority })

			var settle []dianemo.Settlement
			for round := 0; round < 200 && slices.ContainsFunc(waiting, func(j job) bool { return !j.inFuture }); round++ {
				var room [10]int
				left := 30
				for q := 1; q <= 9; q++ {
					room[q] = left
					if round%3 > 0 { // else there is no reserve
						left -= rng.IntN(left + 2)
					}
				}
				limit := 1 + rng.IntN(10)
				reply, err := f.Turn(t.Context(), partition, f.call(owner), settle, dianemo.Claim{Limit: limit, Room: room, Lanes: lanes, BeatEvery: time.Second})
				require.NoError(t, err)
				require.LessOrEqual(t, len(reply.Jobs), limit)
				settle = nil
				for _, c := range reply.Jobs {
					i := slices.IndexFunc(waiting, func(j job) bool { return j.id == c.ID })
					require.GreaterOrEqual(t, i, 0, "%s was not waiting", c.ID)
					j := waiting[i]
					require.False(t, j.inFuture)
					require.Equal(t, []any{j.weight, j.lane}, []any{c.Weight, c.Lane})
					for q := 1; q <= j.lane.Priority; q++ {
						room[q] -= j.weight
						require.GreaterOrEqual(t, room[q], 0, "seed %d: no room at level %d for %v", seed, q, j)
					}
					waiting = slices.Delete(waiting, i, i+1)
					settle = append(settle, dianemo.Settlement{ID: c.ID, Lane: c.Lane, Epoch: c.Epoch, Outcome: dianemo.Succeed})
				}
				if len(reply.Jobs) == limit {
					continue
				}
				// Nothing that was left behind would still have fitted: of each lane, at
				// least the first.
				for _, l := range lanes {
					i := slices.IndexFunc(waiting, func(j job) bool { return j.lane == l.Lane && !j.inFuture })
					if i >= 0 && l.Lane.Weight == 0 {
						require.Greater(t, waiting[i].weight, slices.Min(room[1:l.Priority+1]), "seed %d: %v was left behind", seed, waiting[i])
					}
				}
			}
			for _, j := range waiting {
				require.True(t, j.inFuture, "seed %d: %v was never claimed", seed, j)
			}
			f.settle(partition, owner, settle...)
		}
	})
}

// What the index of lanes says decides whether peers sleep.
func TestTheReplyNamesTheLanesThatHaveJobsAndTheirFirst_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(3)
		partition := f.Partition(ids[0])
		empty, left, future := lane("empty"), lane("left"), lane("future")
		at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		later := record(ids[2], future)
		later.RunAt = at
		f.enqueue(record(ids[0], empty), record(ids[1], left), later)
		reply := f.claim(partition, owner, claimLane(empty), claimLane(future))
		require.Len(t, reply.Jobs, 1)
		require.Len(t, reply.Lanes, 2)
		require.Equal(t, left, reply.Lanes[0].Lane)
		require.False(t, reply.Lanes[0].Due.After(reply.Now))
		require.Equal(t, future, reply.Lanes[1].Lane)
		require.True(t, at.Equal(reply.Lanes[1].Due))
		require.Zero(t, reply.Next)
	})
}

// Jobs of a lane whose weights differ: those that do not fit are looked past,
// with few commands, and only so many of them.
func TestJobsThatDoNotFitAreLookedPast_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(102)
		l := lane("kind")
		l.Weight = 64
		var records []dianemo.Record
		for i, id := range ids {
			r := record(id, l)
			if r.Weight = 60; i >= 100 {
				r.Weight = 36
			}
			r.RunAt = time.UnixMilli(1_000_000_000_000 + int64(i)) // in this order
			records = append(records, r)
		}
		f.enqueue(records...)
		reply, err := f.Turn(t.Context(), f.Partition(ids[0]), f.call(owner), nil, dianemo.Claim{Limit: 10, Room: roomFor(40),
			Lanes: []dianemo.ClaimLane{{Lane: l, Weight: 1}}, BeatEvery: time.Second})
		require.NoError(t, err)
		require.Len(t, reply.Jobs, 1)
		require.Equal(t, []any{ids[100], 36}, []any{reply.Jobs[0].ID, reply.Jobs[0].Weight})
	})
}

// A peer that said it may be silent for long is not judged by a hasty leader.
func TestEachPeersOwnLimitOfSilenceCounts_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		id := f.ids(1)[0]
		partition := f.Partition(id)
		f.enqueue(record(id, lane("kind")))
		claim := dianemo.Claim{Limit: 1, Room: roomFor(1), Lanes: []dianemo.ClaimLane{claimLane(lane("kind"))}, BeatEvery: time.Second, SilentAfter: time.Hour}
		reply, err := f.Turn(t.Context(), partition, f.call(owner), nil, claim)
		require.NoError(t, err)
		require.Len(t, reply.Jobs, 1)
		require.Empty(t, f.reap(partition))
		_, err = f.Beat(t.Context(), partition, dianemo.Beat{Peer: owner, Every: time.Second, SilentAfter: 0})
		require.NoError(t, err)
		require.Len(t, f.reap(partition), 1)
	})
}

func TestAClaimIsBoundedInBytes_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(12)
		l := lane("kind")
		for _, id := range ids {
			r := record(id, l)
			r.Spec = dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Grace: dianemo.Unlimited, Args: make([]byte, 250<<10)})
			f.enqueue(r)
		}
		left := len(ids)
		for left > 0 {
			jobs := f.claim(f.Partition(ids[0]), owner, claimLane(l)).Jobs
			require.LessOrEqual(t, len(jobs), 4, "1 MiB at most")
			require.NotEmpty(t, jobs)
			left -= len(jobs)
		}
	})
}

// What may run again after its peer went silent, and how often: the default of
// its priority, the kind's own, the job's own.
func TestReapedJobsRunAgainAsOftenAsTheyMay_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(4)
		partition := f.Partition(ids[0])
		l := lane("kind")
		jobs := map[string]int{ids[0]: 0, ids[1]: 2, ids[2]: 3, ids[3]: 0}
		var records []dianemo.Record
		for i, id := range ids {
			r := record(id, l)
			switch i {
			case 2:
				r.Reruns = 3
			case 3:
				r.Reruns = dianemo.None
			}
			records = append(records, r)
		}
		f.enqueue(records...)
		again := l
		again.Again = true
		for round := 0; ; round++ {
			lanes := []dianemo.ClaimLane{{Lane: l, Weight: 1, Reruns: 2}, {Lane: again, Weight: 1, Reruns: 2}}
			reply := f.claim(partition, owner, lanes...)
			if len(reply.Jobs) == 0 {
				break
			}
			for _, job := range reply.Jobs {
				require.Equal(t, []int{round, round + 1, 0}, []int{job.Reruns, job.Runs, job.Fails})
				require.Equal(t, round > 0, job.Lane.Again)
			}
			moved := f.reap(partition)
			require.Len(t, moved, len(reply.Jobs))
		}
		jobs[ids[0]], jobs[ids[1]] = 2, 2 // by the kind
		for id, reruns := range jobs {
			job, err := f.Get(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, []any{dianemo.Unreachable, "silent", reruns + 1, reruns + 1, owner},
				[]any{job.Info.State, job.Info.Reason, job.Info.Runs, job.Info.Attempt, job.Info.Peer}, id)
			require.Contains(t, job.Info.LastError(), "silent")
			require.Len(t, job.Info.History, reruns+1)
			for _, run := range job.Info.History {
				require.Equal(t, []any{owner, dianemo.Lost, "silent"}, []any{run.Peer, run.Outcome, run.Reason})
				require.False(t, run.EndedAt.Before(run.StartedAt))
			}
		}
	})
}

// Whatever someone's hand has made of a score, the record that a claim writes can be read.
func TestAJobThatIsDueAtNoTimeRunsAllTheSame_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		l := lane("kind")
		for i, due := range []float64{-5.5, 5.5, -1e20, math.Inf(-1), 1e-9} {
			id := fmt.Sprint("a@", i)
			f.enqueue(record(id, l))
			require.NoError(t, f.rdb.ZAdd(t.Context(), f.key(id, "lane:kind:2:-1:0:new"), zs(id, due)).Err())
			require.NoError(t, f.rdb.ZAdd(t.Context(), f.key(id, "lanes"), zs("kind:2:-1:0:new", due)).Err())
			jobs := f.claim(f.Partition(id), owner, claimLane(l)).Jobs
			require.Len(t, jobs, 1, due)
			require.Empty(t, jobs[0].Corrupt, due)
			require.Equal(t, dianemo.Running, f.state(id), due)
			require.Empty(t, f.settle(f.Partition(id), owner, dianemo.Settlement{ID: id, Lane: l, Epoch: jobs[0].Epoch, Outcome: dianemo.Succeed}))
			require.Equal(t, dianemo.Succeeded, f.state(id), due)
		}
	})
}

// Nobody's silence would count until then.
func TestAnOutageThatEndsInTheFutureHasEnded_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition("id")
		chore := dianemo.Chore{Term: 1, Limit: 10, BeatEvery: time.Hour, SilentAfter: 20 * time.Second}
		_, err := f.Survey(t.Context(), &chore)
		require.NoError(t, err)
		require.NoError(t, f.rdb.HSet(t.Context(), f.key("id", "info"), "up_since", "9000000000000000").Err())
		_, err = f.Survey(t.Context(), &chore)
		require.NoError(t, err)
		since, err := f.rdb.HGet(t.Context(), fmt.Sprintf("{%s:%d}:info", f.namespace, partition), "up_since").Int64()
		require.NoError(t, err)
		now, err := f.rdb.Time(t.Context()).Result()
		require.NoError(t, err)
		require.LessOrEqual(t, since, now.UnixMilli())
	})
}

// Redis away is not peers silent: after a gap in everyone's signs of life,
// nobody's silence counts from before its end.
func TestAnOutageIsNotTheSilenceOfPeers_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		id := f.ids(1)[0]
		partition := f.Partition(id)
		f.enqueue(record(id, lane("kind")))
		reply, err := f.Turn(t.Context(), partition, f.call(owner), nil, dianemo.Claim{Limit: 1, Room: roomFor(1), Lanes: []dianemo.ClaimLane{claimLane(lane("kind"))},
			BeatEvery: 5 * time.Second, SilentAfter: 20 * time.Second})
		require.NoError(t, err)
		require.Len(t, reply.Jobs, 1)
		shift := func(by time.Duration) { // as if everything so far had happened earlier
			for _, field := range []string{"alive", "up_since"} {
				require.NoError(t, f.rdb.HIncrBy(t.Context(), f.key(id, "info"), field, -by.Milliseconds()).Err())
			}
			require.NoError(t, f.rdb.ZIncrBy(t.Context(), f.key(id, "beats"), -float64(by.Milliseconds()), owner).Err())
		}
		reap := func() int {
			chore := dianemo.Chore{Term: 1, Limit: 10, BeatEvery: 5 * time.Second, SilentAfter: 20 * time.Second}
			surveys, err := f.Survey(t.Context(), &chore)
			require.NoError(t, err)
			reply, err := f.Reap(t.Context(), partition, f.call("leader"), owner, chore)
			require.NoError(t, err)
			require.Len(t, surveys[partition].Silent, len(reply.Jobs))
			return len(reply.Jobs)
		}
		require.Zero(t, reap())
		shift(time.Hour)
		require.Zero(t, reap(), "nobody was heard for an hour, not the leader either")
		shift(7 * time.Second)
		require.Zero(t, reap())
		shift(7 * time.Second)
		require.Zero(t, reap())
		shift(7 * time.Second)
		require.Equal(t, 1, reap(), "the leader was heard all the time, the peer was not for 21 s")
		require.Equal(t, dianemo.Unreachable, f.state(id))
	})
}

// Each kind of broken record, planted: the job is set aside or left alone, and
// the one behind it goes on.
func TestCorruptRecordsHoldUpNothing_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		ids := f.ids(6)
		partition := f.Partition(ids[0])
		l := lane("kind")
		for _, id := range ids {
			f.enqueue(record(id, l))
		}
		meta := f.key(ids[0], "meta")
		require.NoError(t, f.rdb.HSet(ctx, meta, ids[0], "1|garbage").Err())
		require.NoError(t, f.rdb.HSet(ctx, meta, ids[1], "2|from the future").Err())
		require.NoError(t, f.rdb.HDel(ctx, f.key(ids[0], "spec"), ids[2]).Err())
		require.NoError(t, f.rdb.HSet(ctx, meta, ids[3], "1|succeeded||1|1|p|kind:2:-1:0|1|1|0|0|1|||||tail").Err())
		reply := f.claim(partition, owner, claimLane(l))
		got := map[string]string{}
		for _, job := range reply.Jobs {
			got[job.ID] = job.Corrupt
		}
		require.Len(t, got, 4)
		require.NotEmpty(t, got[ids[0]])
		require.NotEmpty(t, got[ids[2]])
		require.Equal(t, []string{"", ""}, []string{got[ids[4]], got[ids[5]]})
		require.Equal(t, "2|from the future", f.rdb.HGet(ctx, meta, ids[1]).Val(), "what is newer is left alone")
		require.Equal(t, dianemo.Succeeded, f.state(ids[3]), "the record decides, not the lane")
		require.Empty(t, f.claim(partition, owner, claimLane(l)).Jobs)

		// Its record breaks while it runs, and then its peer goes silent.
		require.NoError(t, f.rdb.HSet(ctx, meta, ids[4], "").Err())
		require.Len(t, f.reap(partition), 4)
		require.Equal(t, dianemo.Unreachable, f.state(ids[4]))
		require.Equal(t, dianemo.Unreachable, f.state(ids[5]))
	})
}

// Fields that a later program adds to the record survive this one.
func TestAnUnknownTailIsKeptByteForByte_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		id := f.ids(1)[0]
		partition := f.Partition(id)
		r := record(id, lane("kind"))
		r.Weight, r.Lane.Weight = 3, 4 // so that it has a record
		f.enqueue(r)
		const tail = "x=1|y=\x00\xff|"
		meta := f.rdb.HGet(ctx, f.key(id, "meta"), id).Val()
		require.NoError(t, f.rdb.HSet(ctx, f.key(id, "meta"), id, meta+tail).Err())
		claim := dianemo.ClaimLane{Lane: r.Lane, Weight: 1}
		for _, outcome := range []dianemo.Outcome{dianemo.Unstarted, dianemo.Succeed} {
			jobs := f.claim(partition, owner, claim).Jobs
			require.Len(t, jobs, 1)
			require.Empty(t, f.settle(partition, owner, dianemo.Settlement{ID: id, Lane: jobs[0].Lane, Epoch: jobs[0].Epoch, Outcome: outcome}))
			require.Contains(t, f.rdb.HGet(ctx, f.key(id, "meta"), id).Val(), "|"+tail)
		}
	})
}

// In a lane whose jobs are due together, or apart, or both, each is claimed with its own due time, and its record says so, also
// once it has succeeded.
func TestAClaimTellsWhenEachJobWasDue_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		base := time.UnixMilli(1_000_000_000_000)
		for name, due := range map[string]func(i int) int{
			"together":    func(int) int { return 0 },
			"in clusters": func(i int) int { return i / 13 },
			"one alone":   func(i int) int { return min(i/59, 1) },
			"apart":       func(i int) int { return i * 1000 },
		} {
			l := lane("kind" + strings.ReplaceAll(name, " ", "-"))
			want := map[string]time.Time{}
			var records []dianemo.Record
			for i := range 60 {
				r := record(fmt.Sprintf("%s%s@%02d", all, l.Kind, i), l)
				r.RunAt = base.Add(time.Duration(due(i)) * time.Millisecond)
				want[r.ID] = r.RunAt
				records = append(records, r)
			}
			f.enqueue(records...)
			partition := f.Partition(records[0].ID)
			for got := range 3 {
				claim := dianemo.Claim{Limit: []int{1, 2, 100}[got], Room: roomFor(1000), Lanes: []dianemo.ClaimLane{claimLane(l)}, BeatEvery: 5 * time.Second}
				reply, err := f.Turn(t.Context(), partition, f.call(owner), nil, claim)
				require.NoError(t, err, name)
				require.Len(t, reply.Jobs, []int{1, 2, 57}[got], name)
				var settle []dianemo.Settlement
				for _, job := range reply.Jobs {
					require.True(t, want[job.ID].Equal(job.Due), "%s: %s", name, job.ID)
					require.Equal(t, fmt.Sprint(want[job.ID].UnixMilli()), splitRecord(f.record(job.ID))[7], "%s: %s", name, job.ID)
					settle = append(settle, dianemo.Settlement{ID: job.ID, Lane: l, Epoch: job.Epoch, Outcome: dianemo.Succeed})
				}
				require.Empty(t, f.settle(partition, owner, settle...), name)
				for _, job := range reply.Jobs {
					record := splitRecord(f.record(job.ID))
					require.Equal(t, string(dianemo.Succeeded), record[1], "%s: %s", name, job.ID)
					require.Equal(t, fmt.Sprint(want[job.ID].UnixMilli()), record[7], "%s: %s", name, job.ID)
				}
			}
		}
	})
}
