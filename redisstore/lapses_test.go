package redisstore_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// It could have started before its other parent has ended.
func TestAChildWhoseNumbersAreLostIsSetAside_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		for sum, want := range map[string]dianemo.State{"2,0,0,0,0#1": dianemo.Blocked, "": dianemo.Skipped, "0,0,0,0,0#1": dianemo.Skipped, "x": dianemo.Skipped} {
			id := "child" + strings.NewReplacer(",", "-", "#", "-").Replace(sum)
			f.need(id, parentOf(id), parentOf(id)+"-too")
			r := record(id, lane("kind"))
			r.Blocked = true
			f.enqueue(r)
			if sum == "" {
				require.NoError(t, f.rdb.HDel(t.Context(), f.key(id, "needs"), id+"||").Err())
			} else {
				require.NoError(t, f.rdb.HSet(t.Context(), f.key(id, "needs"), id+"||", sum).Err())
			}
			reply := f.release(id, dianemo.Succeeded)
			require.Equal(t, want == dianemo.Skipped, reply.Jobs[0].Corrupt, "%q", sum)
			require.Equal(t, want, f.state(id), "%q", sum)
			if want == dianemo.Skipped {
				job, err := f.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, "corrupt", job.Info.Reason)
			}
		}
	})
}

// Else its children would be told for ever.
func TestAnEntryInTheOutboxThatNobodyWroteLeavesIt_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition("parent")
		for _, score := range []any{"-inf", "inf", "1.5", "-7", "1e300"} {
			require.NoError(t, f.rdb.Do(t.Context(), "ZADD", f.key("parent", "outbox"), score, "parent").Err())
			require.NoError(t, f.rdb.ZAdd(t.Context(), f.key("parent", "edges"), redis.Z{Member: "parent|a"}, redis.Z{Member: "parent|b"}).Err())
			var told []string
			for more := true; more; {
				require.Less(t, len(told), 3, "%v", score)
				heirs, _, err := f.Heirs(t.Context(), partition, 10, 1) // and kids, which has its cursor, is gone
				require.NoError(t, err)
				for _, h := range heirs {
					told = append(told, h.Children...)
				}
				more, err = f.Passed(t.Context(), partition, heirs)
				require.NoError(t, err)
			}
			require.Equal(t, []string{"a", "b"}, told, "%v", score)
			require.NoError(t, f.rdb.Del(t.Context(), f.key("parent", "kids")).Err())
		}
	})
}

// Two tell the same children; the one that told some of them is heard after the one that told all.
func TestWhatWasToldInPartIsNotKeptOnceAllWereTold_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition("parent")
		require.NoError(t, f.rdb.ZAdd(t.Context(), f.key("parent", "edges"), redis.Z{Member: "parent|a"}, redis.Z{Member: "parent|b"}).Err())
		require.NoError(t, f.rdb.ZAdd(t.Context(), f.key("parent", "outbox"), redis.Z{Score: 1, Member: "parent"}).Err())
		some, _, err := f.Heirs(t.Context(), partition, 10, 1)
		require.NoError(t, err)
		all, _, err := f.Heirs(t.Context(), partition, 10, 100)
		require.NoError(t, err)
		for _, heirs := range [][]dianemo.Heirs{all, some} {
			more, err := f.Passed(t.Context(), partition, heirs)
			require.NoError(t, err)
			require.False(t, more)
		}
		kids, err := f.rdb.HGetAll(t.Context(), f.key("parent", "kids")).Result()
		require.NoError(t, err)
		require.NotContains(t, kids["parent"], "a", "how far the children were told")
	})
}
