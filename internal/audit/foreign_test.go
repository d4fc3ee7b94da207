package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/redistest"
)

func TestKeysOfOthersAreToldApartByTheirWholeTag(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		"{ns}:peers": true, "{ns:0}:spec": true, "{ns:12}:lane:x": true, "{ns:99}:spec": true,
		"{ns}2:peers": false, "{ns-x}:peers": false, "{ns-x:0}:spec": false, "ns:0:spec": false, "{ns:x}:spec": false, "{ns:0}2:spec": false,
		"{ns:0}": false, "{ns:}:spec": false, "{ns:01}:spec": false, "x{ns}:peers": false, "{NS}:peers": false, "{ns:0:1}:spec": false,
	} {
		require.Equal(t, want, isOf("ns", key), key)
	}
}

func TestWhatBecomesOfForeignKeysIsSeen(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb, ctx := server.Client(t), t.Context()
	for i := range 300 {
		require.NoError(t, rdb.HSet(ctx, "{ns}2:hash", fmt.Sprint("f", i), i).Err())
		require.NoError(t, rdb.SAdd(ctx, "{ns-x}:set", fmt.Sprint("m", i)).Err())
	}
	require.NoError(t, rdb.ZAdd(ctx, "ns:0:zset", redis.Z{Member: "a", Score: 1}).Err())
	require.NoError(t, rdb.RPush(ctx, "list", "a", "b").Err())
	require.NoError(t, rdb.XAdd(ctx, &redis.XAddArgs{Stream: "stream", Values: []string{"a", "b"}}).Err())
	require.NoError(t, rdb.Set(ctx, "text", "a", 0).Err())
	require.NoError(t, rdb.Set(ctx, "mortal", "a", time.Hour).Err())
	require.NoError(t, rdb.Set(ctx, "{ns}:term", "1", 0).Err())
	snapshot := func() map[string]string {
		digests, err := Snapshot(ctx, rdb, "ns")
		require.NoError(t, err)
		return digests
	}
	before := snapshot()
	require.Len(t, before, 7)
	require.Empty(t, Foreign(before, snapshot()))
	require.NoError(t, rdb.Set(ctx, "{ns}:term", "2", 0).Err())
	require.NoError(t, rdb.HSet(ctx, "{ns:0}:spec", "id", "x").Err())
	require.Empty(t, Foreign(before, snapshot()), "the namespace's own")
	for _, change := range []struct {
		want string
		do   func() error
	}{
		{"{ns}2:hash has changed", func() error { return rdb.HIncrBy(ctx, "{ns}2:hash", "f7", 1).Err() }},
		{"{ns-x}:set has changed", func() error { return rdb.SRem(ctx, "{ns-x}:set", "m7").Err() }},
		{"ns:0:zset has changed", func() error { return rdb.ZIncrBy(ctx, "ns:0:zset", 1, "a").Err() }},
		{"list has changed", func() error { return rdb.RPush(ctx, "list", "c").Err() }},
		{"stream has changed", func() error {
			return rdb.XAdd(ctx, &redis.XAddArgs{Stream: "stream", Values: []string{"a", "b"}}).Err()
		}},
		{"text has changed", func() error { return rdb.Expire(ctx, "text", time.Hour).Err() }},
		{"mortal is gone", func() error { return rdb.Del(ctx, "mortal").Err() }},
		{"{ns:x}:spec was made", func() error { return rdb.HSet(ctx, "{ns:x}:spec", "id", "x").Err() }},
	} {
		require.NoError(t, change.do())
		after := snapshot()
		require.Equal(t, []string{change.want}, Foreign(before, after))
		before = after
	}
}
