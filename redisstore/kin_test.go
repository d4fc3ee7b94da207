package redisstore_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// Edges are found by their names, for which all must have the same score.
func TestAnEdgeWithAScoreCostsNoOtherFamilyItsChildren(t *testing.T) {
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
