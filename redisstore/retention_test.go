package redisstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// end makes jobs of one partition, runs them and settles them so.
func (f *fixture) end(keep dianemo.Retention, s dianemo.Settlement, ids ...string) {
	f.t.Helper()
	partition := f.Partition(ids[0])
	var records []dianemo.Record
	for _, id := range ids {
		records = append(records, record(id, lane("kind")))
	}
	require.Equal(f.t, make([]dianemo.State, len(ids)), f.enqueue(records...).Existing)
	var settle []dianemo.Settlement
	for _, job := range f.claim(partition, owner, claimLane(lane("kind"))).Jobs {
		s.ID, s.Lane, s.Epoch, s.Keep = job.ID, job.Lane, job.Epoch, keep
		settle = append(settle, s)
	}
	require.Len(f.t, settle, len(ids))
	require.Empty(f.t, f.settle(partition, owner, settle...))
}

func (f *fixture) trim(partition int) int {
	f.t.Helper()
	reply, err := f.Trim(f.t.Context(), partition, f.call("leader"), dianemo.Chore{Term: 1, Limit: 500})
	require.NoError(f.t, err)
	return reply.Jobs
}

func named(prefix string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s@%02d", prefix, i))
	}
	return ids
}

// traces lists the partition's keys and fields that name the job.
func (f *fixture) traces(id string) (found []string) {
	f.t.Helper()
	ctx := f.t.Context()
	for _, key := range f.rdb.Keys(ctx, f.key(id, "*")).Val() {
		var all []string
		switch f.rdb.Type(ctx, key).Val() {
		case "hash":
			all = f.rdb.HKeys(ctx, key).Val()
		case "zset":
			all = f.rdb.ZRange(ctx, key, 0, -1).Val()
		}
		for _, name := range all {
			if name == id || strings.HasSuffix(name, "|"+id) {
				found = append(found, key)
			}
		}
	}
	return found
}

func (f *fixture) counted(state dianemo.State) (n int64) {
	f.t.Helper()
	counts, err := f.Counts(f.t.Context())
	require.NoError(f.t, err)
	for _, c := range counts {
		if c.State == state {
			n += c.Jobs
		}
	}
	return n
}

func TestSettlingLetsTheOldestGoThatAreTooMany_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		// 8 in the namespace: each of 8 partitions keeps one, a single one all.
		keep := dianemo.Retention{For: dianemo.Unlimited, Jobs: 8}
		share := 8 / f.Partitions()
		first, second := named("a", 20), named("a@later", 5)
		f.end(keep, dianemo.Settlement{Outcome: dianemo.Succeed, Result: []byte(`1`)}, first...)
		for i, id := range second {
			f.end(keep, dianemo.Settlement{Outcome: dianemo.Succeed, Result: []byte(`1`)}, id)
			require.LessOrEqual(t, f.counted(dianemo.Succeeded), int64(share+1), "after %d more", i+1)
		}
		require.EqualValues(t, dianemo.Succeeded, f.state(second[4]))
		require.Empty(t, f.traces(first[0]))
		require.Empty(t, f.state(first[0]))
		require.EqualValues(t, f.rdb.ZCard(t.Context(), f.key("a", "done:succeeded:kind")).Val(), f.counted(dianemo.Succeeded))
	})
}

func TestSettlingLetsTheOldestGoThatAreTooOld_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		keep := dianemo.Retention{For: 20 * time.Millisecond, Jobs: dianemo.Unlimited}
		old := named("a", 5)
		f.end(keep, dianemo.Settlement{Outcome: dianemo.FailRun, Reason: "error", Error: "boom"}, old...)
		f.end(dianemo.Retention{}, dianemo.Settlement{Outcome: dianemo.FailRun, Error: "boom"}, "a@kept")
		require.EqualValues(t, 6, f.counted(dianemo.Failed))
		var clock time.Time
		f.waitMillis(&clock, 50)
		f.end(keep, dianemo.Settlement{Outcome: dianemo.FailRun, Error: "boom"}, "a@new")
		for _, id := range append(old, "a@kept") {
			require.Empty(t, f.traces(id), id)
		}
		require.EqualValues(t, dianemo.Failed, f.state("a@new"))
		require.EqualValues(t, 1, f.counted(dianemo.Failed))
	})
}

// Not declared: nothing is known of the fleet, so nothing goes.
func TestTheChoreTrimsByWhatIsDeclared_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		f.end(dianemo.Retention{}, dianemo.Settlement{Outcome: dianemo.FailRun, Error: "boom", Reason: "error"}, named("a", 12)...)
		partition := f.Partition("a")
		// Too old for the defaults.
		for _, z := range f.rdb.ZRangeWithScores(ctx, f.key("a", "done:failed:kind"), 0, -1).Val() {
			z.Score -= float64((40 * 24 * time.Hour).Milliseconds())
			require.NoError(t, f.rdb.ZAdd(ctx, f.key("a", "done:failed:kind"), z).Err())
		}
		require.Zero(t, f.trim(partition))
		kinds := fmt.Sprintf("{%s}:kinds", f.namespace)

		require.NoError(t, f.Declare(ctx, map[string]dianemo.Keep{"other": nil}, true))
		// What can't be read lets nothing go.
		require.NoError(t, f.rdb.HSet(ctx, kinds, "kind", "1|failed:garbage").Err())
		require.Zero(t, f.trim(partition))

		few := dianemo.Keep{dianemo.Failed: {For: dianemo.Unlimited, Jobs: 2 * f.Partitions()}}
		require.NoError(t, f.Declare(ctx, map[string]dianemo.Keep{"kind": few}, true))
		require.Equal(t, 10, f.trim(partition))
		require.EqualValues(t, 2, f.counted(dianemo.Failed))
		require.Empty(t, f.traces("a@09"))
		require.EqualValues(t, dianemo.Failed, f.state("a@10"))
		require.Zero(t, f.trim(partition))

		// Said again by a peer that started before, it does not change; where nothing is said, it does.
		all := map[string]dianemo.Keep{"kind": {dianemo.Failed: {Jobs: dianemo.None}}}
		require.NoError(t, f.Declare(ctx, all, false))
		require.Zero(t, f.trim(partition))
		require.NoError(t, f.rdb.HSet(ctx, kinds, "kind", "garbage").Err())
		require.NoError(t, f.Declare(ctx, all, false))
		require.Equal(t, 2, f.trim(partition))
		require.Zero(t, f.counted(dianemo.Failed))
		// An id that was let go of is free.
		f.end(dianemo.Retention{}, dianemo.Settlement{Outcome: dianemo.Succeed}, "a@00")
		require.EqualValues(t, dianemo.Succeeded, f.state("a@00"))
		// A kind of which nobody said anything goes by the defaults.
		require.NoError(t, f.rdb.HDel(ctx, kinds, "kind").Err())
		require.Zero(t, f.trim(partition))
		score := float64(time.Now().Add(-25 * time.Hour).UnixMilli())
		require.NoError(t, f.rdb.ZAdd(ctx, f.key("a", "done:succeeded:kind"), zs("a@00", score)).Err())
		require.Equal(t, 1, f.trim(partition))
	})
}

func TestTheChoreTrimsMissedJobsByAgeAStepAtATime_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		late := lane("kind")
		late.Grace = time.Minute
		for _, id := range named("a", 7) {
			r := record(id, late)
			r.RunAt = time.Now().Add(-time.Hour)
			f.enqueue(r)
		}
		partition := f.Partition("a")
		require.Len(t, f.miss(partition), 7)
		require.NoError(t, f.Declare(t.Context(), map[string]dianemo.Keep{"kind": {dianemo.Missed: {For: 10 * time.Millisecond}}}, true))
		var clock time.Time
		f.waitMillis(&clock, 30)
		call := f.call("leader")
		for range 2 { // the same call again
			reply, err := f.Trim(t.Context(), partition, call, dianemo.Chore{Term: 1, Limit: 4})
			require.NoError(t, err)
			require.Equal(t, dianemo.TrimReply{Jobs: 4, More: true}, reply)
			require.EqualValues(t, 3, f.counted(dianemo.Missed))
		}
		_, err := f.Trim(t.Context(), partition, f.call("leader"), dianemo.Chore{Term: 0, Limit: 4})
		require.ErrorIs(t, err, dianemo.ErrDeposed)
		reply, err := f.Trim(t.Context(), partition, f.call("leader"), dianemo.Chore{Term: 1, Limit: 4})
		require.NoError(t, err)
		require.Equal(t, dianemo.TrimReply{Jobs: 3}, reply)
		require.Empty(t, f.traces("a@06"))
	})
}

// What its record does not call ended in that state is never let go of.
func TestOnlyWhatHasEndedIsTrimmed_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		require.NoError(t, f.Declare(ctx, map[string]dianemo.Keep{"kind": {dianemo.Succeeded: {Jobs: dianemo.None}}}, true))
		f.end(dianemo.Retention{}, dianemo.Settlement{Outcome: dianemo.Succeed}, named("a", 4)...)
		f.enqueue(record("a@waits", lane("kind")))
		meta, done := f.key("a", "meta"), f.key("a", "done:succeeded:kind")
		was := f.rdb.HGet(ctx, meta, "a@00").Val()
		require.NoError(t, f.rdb.HSet(ctx, meta, "a@00", strings.Replace(was, "1|succeeded", "1|scheduled", 1), "a@01", "2|newer", "a@02", "garbage").Err())
		require.NoError(t, f.rdb.ZAdd(ctx, done, zs("a@waits", 1)).Err())
		require.Equal(t, 1, f.trim(f.Partition("a")))
		require.Empty(t, f.traces("a@03"))
		for _, id := range []string{"a@00", "a@01", "a@02", "a@waits"} {
			require.Contains(t, f.traces(id), f.key("a", "spec"), id)
		}
	})
}

// Of a large workflow more jobs may be held than are kept: then each settlement would walk past
// them in vain.
func TestASettlementDoesNotWalkPastManyThatStayForTheirChildren_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		all, one := dianemo.Retention{For: dianemo.Unlimited, Jobs: dianemo.Unlimited}, dianemo.Retention{For: dianemo.Unlimited, Jobs: 1}
		well := dianemo.Settlement{Outcome: dianemo.Succeed}
		var clock time.Time
		for i := range 15 {
			ids := named("all", 160)[i*10 : i*10+10]
			f.end(all, well, ids...)
			var ties []dianemo.Tie
			for _, id := range ids {
				ties = append(ties, dianemo.Tie{Parent: id, Child: "child"})
			}
			_, err := f.Link(t.Context(), f.Partition(ids[0]), dianemo.LinkTo, ties)
			require.NoError(t, err)
		}
		f.waitMillis(&clock, 2)
		f.end(all, well, "all@free")
		f.waitMillis(&clock, 2)
		f.end(one, well, "all@next")
		require.NotEmpty(t, f.traces("all@free"), "it stands behind more than it looks at")
		require.NoError(t, f.Declare(t.Context(), map[string]dianemo.Keep{"kind": {dianemo.Succeeded: one}}, true))
		require.Positive(t, f.trim(f.Partition("all@free")))
		require.Empty(t, f.traces("all@free"))
	})
}
