package redisstore_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// Edges are found by their names, for which all must have the same score.
func TestAnEdgeWithAScoreCostsNoOtherFamilyItsChildren_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		partition := f.Partition(all)
		var ties []dianemo.Tie
		for _, parent := range []string{"a", "b", "c"} {
			f.enqueue(record(all+parent, lane("kind")))
			for i := range 3 {
				child := fmt.Sprint(all, parent, i)
				f.need(child, all+parent)
				r := record(child, lane("kind"))
				r.Blocked = true
				f.enqueue(r)
				ties = append(ties, dianemo.Tie{Parent: all + parent, Child: child})
			}
		}
		_, err := f.Link(ctx, partition, dianemo.LinkTo, ties)
		require.NoError(t, err)
		key := f.key(all, "edges")
		sound := func() {
			for _, parent := range []string{"a", "b", "c"} {
				children, err := f.Children(ctx, all+parent, "", 10)
				require.NoError(t, err)
				require.Len(t, children, 3, parent)
				require.True(t, f.rdb.HExists(ctx, f.key(all, "kids"), all+parent).Val(), parent)
			}
		}
		sound()
		for _, edge := range []string{all + "a|" + all + "a0", all + "b|" + all + "b1", "\x00"} {
			for _, score := range []float64{-5, 5} {
				require.NoError(t, f.rdb.ZAdd(ctx, key, zs(edge, score)).Err())
				// Until it is mended, nobody is taken to be childless.
				_, err := f.Link(ctx, partition, dianemo.Unlink, []dianemo.Tie{{Parent: all + "c", Child: "none"}})
				require.NoError(t, err)
				require.True(t, f.rdb.HExists(ctx, f.key(all, "kids"), all+"c").Val())
				require.Contains(t, fmt.Sprint(f.repair(partition)), "edges had scores")
				for i := range f.Partitions() {
					f.sound(i)
				}
				sound()
			}
		}
	})
}

// A parent that is run again must be able to tell its children, whether they wait or not.
func TestThatAJobHasChildrenIsNotedAgain_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		partition := f.Partition(all)
		parent, child := all+"parent", all+"child"
		f.enqueue(record(parent, lane("kind")))
		f.need(child, parent)
		r := record(child, lane("kind"))
		r.Blocked = true
		f.enqueue(r)
		_, err := f.Link(ctx, partition, dianemo.LinkTo, []dianemo.Tie{{Parent: parent, Child: child}})
		require.NoError(t, err)
		f.cancel(child)
		require.NoError(t, f.rdb.Del(ctx, f.key(all, "kids")).Err())
		require.Contains(t, fmt.Sprint(f.repair(partition)), "it was not noted that it has children")
		require.True(t, f.rdb.HExists(ctx, f.key(all, "kids"), parent).Val())
		f.sound(partition)
	})
}

// What repair has set aside is told of its parents meanwhile, until its gate is opened.
func TestAJobThatIsSetAsideBehindAGateEndsCorruptWhateverItIsTold_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		id := "job"
		f.need(id, parentOf(id))
		r := record(id, lane("kind"))
		r.Blocked = true
		f.enqueue(r)
		require.NoError(t, f.rdb.HSet(t.Context(), f.key(id, "needs"), id+"||", "corrupt", id+"|", "g0").Err())
		f.release(id, dianemo.Succeeded)
		require.Equal(t, dianemo.Blocked, f.state(id))
		_, err := f.Release(t.Context(), f.Partition(id), f.call("opener"), []dianemo.Release{{Child: id, State: dianemo.Open}})
		require.NoError(t, err)
		job, err := f.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, []any{dianemo.Skipped, "corrupt"}, []any{job.Info.State, job.Info.Reason})
	})
}
