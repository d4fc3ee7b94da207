package outages_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/suite"
)

// A run that the store knows and its peer does not, as after a failover that
// lost a settlement, is given back or ends; the rest is left alone.
func TestARunThatItsPeerDoesNotKnowIsGivenBack(t *testing.T) {
	t.Parallel()
	rdb := suite.Server.Client(t)
	store := suite.Redis(t, rdb, 1)
	var again dianemo.Kind[suite.Args]
	free := make(chan struct{})
	var runs atomic.Int64
	// Full, so that it claims nothing itself.
	peer := suite.Start(t, store, dianemo.Config{Tokens: 1, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Hour}, func(p *dianemo.Peer) {
		again = suite.Handle(t, p, "again", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
			if runs.Add(1) == 1 {
				<-free
			}
			return nil
		})
	})
	held := suite.Enqueue(t, peer, again, dianemo.Options{}) // so that it beats
	require.Eventually(t, func() bool { return runs.Load() == 1 }, suite.Patience, time.Millisecond)

	// Two more are claimed in its name, by calls of which it knows nothing.
	producer := suite.Client(t, store)
	lane := dianemo.Lane{Kind: "again", Priority: 2, Grace: time.Hour}
	lost := suite.Enqueue(t, producer, again, dianemo.Options{Delay: time.Hour, Grace: time.Hour})
	ended := suite.Enqueue(t, producer, again, dianemo.Options{Delay: time.Hour, Grace: time.Hour, Reruns: dianemo.None})
	keys, err := rdb.Keys(t.Context(), "*lane:again:2:3600000:0:new").Result()
	require.NoError(t, err)
	for _, key := range keys {
		for _, id := range []string{lost, ended} {
			require.NoError(t, rdb.ZAddXX(t.Context(), key, redis.Z{Score: 1 + float64(time.Now().UnixMilli()), Member: id}).Err())
		}
	}
	room := [10]int{}
	for level := range room {
		room[level] = 10
	}
	claim := dianemo.Claim{Limit: 2, Room: room, BeatEvery: time.Second, SilentAfter: time.Hour, Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1, Reruns: 3}}}
	require.Eventually(t, func() bool {
		reply, err := store.Turn(t.Context(), 0, dianemo.Call{Caller: peer.ID(), Number: 1 << 40}, nil, claim)
		require.NoError(t, err)
		forget, err := rdb.Keys(t.Context(), "*call:claim:"+peer.ID()).Result()
		require.NoError(t, err)
		require.NoError(t, rdb.Del(t.Context(), forget...).Err())
		claim.Limit -= len(reply.Jobs)
		return claim.Limit == 0
	}, suite.Patience, time.Millisecond)

	outcomes := map[string]dianemo.Outcome{}
	for range 2 {
		s := peer.Next()
		require.Equal(t, "lost", s.Reason)
		outcomes[s.ID] = s.Outcome
	}
	require.Equal(t, map[string]dianemo.Outcome{lost: dianemo.GiveBack, ended: dianemo.FailRun}, outcomes)
	require.Equal(t, dianemo.Failed, suite.Get(t, peer, ended).State)
	close(free)
	require.Equal(t, held, peer.Next().ID)
	require.Equal(t, lost, peer.Next().ID, "and is run")
	require.EqualValues(t, 2, runs.Load())
}

// cut has a peer on a Redis behind a proxy.
func cut(t *testing.T, config dianemo.Config, register func(p *dianemo.Peer)) (*suite.Running, *redistest.Proxy) {
	proxy := redistest.StartProxy(t, suite.Server.Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), DisableIdentity: true, MaxRetries: -1})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	store := suite.Redis(t, rdb, 1)
	return suite.Start(t, store, config, register), proxy
}

func TestAnOutageEndsOnlyRunsWhosePolicySaysSo(t *testing.T) {
	t.Parallel()
	var wary, calm dianemo.Kind[suite.Args]
	begun, ended := make(chan string, 2), make(chan error, 2)
	free := make(chan struct{})
	var waryRuns atomic.Int64
	peer, proxy := cut(t, dianemo.Config{BeatEvery: 200 * time.Millisecond, Lease: time.Second}, func(p *dianemo.Peer) {
		wary = suite.Handle(t, p, "wary", dianemo.Policy{OnLost: dianemo.Cancel}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			if waryRuns.Add(1) > 1 {
				return nil
			}
			begun <- job.Kind
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return ctx.Err()
		})
		calm = suite.Handle(t, p, "calm", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			begun <- job.Kind
			select {
			case <-ctx.Done():
				ended <- context.Cause(ctx)
			case <-free:
			}
			return ctx.Err()
		})
	})
	waryID, calmID := suite.Enqueue(t, peer, wary, dianemo.Options{}), suite.Enqueue(t, peer, calm, dianemo.Options{})
	suite.Receive(t, begun)
	suite.Receive(t, begun)
	proxy.Refuse(true)
	proxy.Cut()
	require.ErrorIs(t, suite.Receive(t, ended), dianemo.ErrLost)
	require.Empty(t, ended, "the other goes on")
	proxy.Refuse(false)
	close(free)
	outcomes := map[string]dianemo.SettleInfo{}
	for range 3 {
		s := peer.Next()
		if _, had := outcomes[s.ID]; !had {
			outcomes[s.ID] = s
		}
	}
	require.Equal(t, dianemo.GiveBack, outcomes[waryID].Outcome, "no attempt is lost")
	require.Equal(t, dianemo.Succeed, outcomes[calmID].Outcome)
	require.False(t, outcomes[calmID].Stale)
	require.Equal(t, 1, suite.Get(t, peer, waryID).Attempt)
	require.Equal(t, dianemo.Succeeded, suite.Get(t, peer, waryID).State)
}
