package handlers_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/suite"
	"github.com/dianemo/dianemo/redisstore"
)

// What users of asynq know, each on a real Redis.

// A choreStore tells when its peer has done a round as the leader.
type choreStore struct {
	dianemo.Store
	done chan struct{}
}

func (s *choreStore) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	surveys, err := s.Store.Survey(ctx, chore)
	if err == nil && chore != nil {
		s.done <- struct{}{}
	}
	return surveys, err
}

// Redis goes away as the handler returns. When it is back, the leader does its
// rounds before the peer that ran the job reaches it again. Redis itself was away, so
// nobody has been silent, even where SilentAfter is shorter.
func TestAnOutageOfTwoSecondsAtCompletionRunsNothingTwice(t *testing.T) {
	t.Parallel()
	const outage = 2 * time.Second
	for name, config := range map[string]dianemo.Config{
		"shorter than SilentAfter": {BeatEvery: 500 * time.Millisecond, SilentAfter: 10 * time.Second},
		"longer than SilentAfter":  {BeatEvery: 100 * time.Millisecond, SilentAfter: outage - 100*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := redistest.Start(t, "--appendonly", "yes")
			proxy := redistest.StartProxy(t, own.Addr())
			through := redis.NewClient(&redis.Options{Addr: proxy.Addr(), DisableIdentity: true})
			t.Cleanup(func() { require.NoError(t, through.Close()) })

			var runs, reaped atomic.Int64
			led := make(chan struct{}, 100)
			config.Hooks = &dianemo.Hooks{
				Reap: func(dianemo.ReapInfo) { reaped.Add(1) },
				Lead: func(i dianemo.LeadInfo) {
					if i.Leading {
						led <- struct{}{}
					}
				},
			}
			policy := dianemo.Policy{Retries: 3, Reruns: 3, RetryIn: dianemo.Every(0)}
			rounds := &choreStore{redisstore.New(own.Client(t), redisstore.Options{}), make(chan struct{}, 10_000)}
			leader := suite.Start(t, rounds, config, func(p *dianemo.Peer) {
				suite.Handle(t, p, "kind", policy, func(context.Context, *dianemo.Job[suite.Args]) error {
					runs.Add(1)
					return nil
				})
				require.NoError(t, p.SetTokens(0))
			})
			suite.Receive(t, led)
			begun, end, down := make(chan string, 10), make(chan struct{}), make(chan error, 10)
			var kind dianemo.Kind[suite.Args]
			runner := suite.Start(t, redisstore.New(through, redisstore.Options{}), config, func(p *dianemo.Peer) {
				kind = suite.Handle(t, p, "kind", policy, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
					runs.Add(1)
					begun <- job.ID
					<-end
					proxy.Refuse(true)
					down <- own.Kill()
					return nil
				})
			})
			id := suite.Enqueue(t, leader, kind, dianemo.Options{})
			suite.Receive(t, begun)
			require.NoError(t, leader.SetTokens(8)) // it could run it, too
			close(end)
			require.NoError(t, suite.Receive(t, down))
			<-time.After(outage)
			for len(rounds.done) > 0 {
				<-rounds.done
			}
			require.NoError(t, own.Restart())
			suite.Receive(t, rounds.done)
			suite.Receive(t, rounds.done)
			proxy.Refuse(false)

			settled := runner.Next()
			require.Equal(t, []any{id, dianemo.Succeeded, false}, []any{settled.ID, settled.State, settled.Stale})
			suite.Receive(t, rounds.done)
			suite.Receive(t, rounds.done)
			info := suite.Get(t, leader, id)
			require.Equal(t, []any{dianemo.Succeeded, 1, 1}, []any{info.State, info.Attempt, info.Runs})
			require.EqualValues(t, 1, runs.Load())
			require.Zero(t, reaped.Load())
			require.Empty(t, leader.Settled)
		})
	}
}

func TestAHandlerThatGoesOnAfterItsTimeoutKeepsItsSlot(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	var kind dianemo.Kind[suite.Args]
	var inside, most atomic.Int64
	begun, free := make(chan string, 10), make(chan struct{})
	config := dianemo.Config{Tokens: 1, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, StuckAfter: 10 * time.Millisecond}
	peer := suite.Start(t, store, config, func(p *dianemo.Peer) {
		policy := dianemo.Policy{Timeout: 50 * time.Millisecond, Retries: 5, RetryIn: dianemo.Every(time.Hour)}
		kind = suite.Handle(t, p, "kind", policy, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			now := inside.Add(1)
			defer inside.Add(-1)
			for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
			}
			begun <- job.ID
			<-ctx.Done()
			<-free
			return ctx.Err()
		})
	})
	first := suite.Enqueue(t, peer, kind, dianemo.Options{})
	require.Equal(t, first, suite.Receive(t, begun))
	second := suite.Enqueue(t, peer, kind, dianemo.Options{})
	for stuck := false; !stuck; {
		stuck = len(suite.Receive(t, peer.Beats).Stuck) > 0
	}
	for range 5 { // some rounds, in which it might be claimed
		suite.Receive(t, peer.Beats)
	}
	require.Empty(t, begun)
	require.Equal(t, dianemo.Running, suite.Get(t, peer, first).State)
	require.Equal(t, []any{dianemo.Queued, 0}, []any{suite.Get(t, peer, second).State, suite.Get(t, peer, second).Runs})
	free <- struct{}{}
	require.Equal(t, second, suite.Receive(t, begun))
	free <- struct{}{}
	for _, id := range []string{first, second} {
		settled := peer.Next()
		require.Equal(t, []any{id, dianemo.Retry, "timeout"}, []any{settled.ID, settled.Outcome, settled.Reason})
	}
	require.EqualValues(t, 1, most.Load())
}

func TestATimeoutOfHalfASecondIsHalfASecond(t *testing.T) {
	t.Parallel()
	const timeout = 500 * time.Millisecond
	for name, row := range map[string]struct {
		policy  dianemo.Policy
		options dianemo.Options
	}{
		"the kind's":    {policy: dianemo.Policy{Timeout: timeout}},
		"the job's own": {dianemo.Policy{Timeout: time.Hour}, dianemo.Options{Timeout: timeout}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := suite.Redis(t, suite.Server.Client(t), 1)
			var kind dianemo.Kind[suite.Args]
			ended, causes := make(chan time.Time, 1), make(chan error, 1)
			peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
				row.policy.Retries = dianemo.None
				kind = suite.Handle(t, p, "kind", row.policy, func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
					<-ctx.Done()
					ended <- time.Now()
					causes <- context.Cause(ctx)
					return ctx.Err()
				})
			})
			before := time.Now()
			id := suite.Enqueue(t, peer, kind, row.options)
			took := suite.Receive(t, ended).Sub(before)
			require.GreaterOrEqual(t, took, timeout)
			require.Less(t, took, 10*time.Second)
			require.ErrorIs(t, suite.Receive(t, causes), dianemo.ErrTimeout)
			peer.Next()
			require.Equal(t, []any{dianemo.Failed, "timeout"}, []any{suite.Get(t, peer, id).State, suite.Get(t, peer, id).Reason})
			require.NoError(t, peer.Stop())
		})
	}
}

func TestAJobLosesNoAttemptToAPeerThatLacksItsKind(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	var known dianemo.Kind[suite.Args]
	rounds := &choreStore{store, make(chan struct{}, 10_000)}
	without := suite.Start(t, rounds, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour}, func(p *dianemo.Peer) {
		known = suite.Handle(t, p, "known", dianemo.Policy{}, suite.Returns(nil))
	})
	lacked := dianemo.NewKind[suite.Args]("lacked", dianemo.Policy{Retries: dianemo.None})
	ids := []string{suite.Enqueue(t, without, lacked, dianemo.Options{}), suite.Enqueue(t, without, lacked, dianemo.Options{Priority: 1, Grace: time.Hour}),
		suite.Enqueue(t, without, lacked, dianemo.Options{Weight: 3, Delay: 50 * time.Millisecond})}
	for range 5 { // it looks, and claims what it can
		suite.Enqueue(t, without, known, dianemo.Options{})
		require.Equal(t, "known", without.Next().Kind)
		suite.Receive(t, rounds.done)
	}
	with := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, lacked.Handle(p, suite.Returns(nil))) })
	for range ids {
		require.Equal(t, dianemo.Succeeded, with.Next().State)
	}
	for _, id := range ids {
		info := suite.Get(t, with, id)
		require.Equal(t, []any{dianemo.Succeeded, 1, 1, ""}, []any{info.State, info.Attempt, info.Runs, info.LastError()})
		require.Len(t, info.History, 1)
		require.Equal(t, with.ID(), info.History[0].Peer)
	}
	require.Empty(t, without.Settled)
}

func TestACancelledJobIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			t.Parallel()
			to := dianemo.Store(suite.Redis(t, suite.Server.Client(t), 1))
			if deaf {
				to = suite.DeafStore{Store: to} // a beat tells it
			}
			var kind dianemo.Kind[suite.Args]
			begun := make(chan string, 10)
			peer := suite.Start(t, to, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour}, func(p *dianemo.Peer) {
				policy := dianemo.Policy{Retries: 5, Reruns: 5, RetryIn: dianemo.Every(0)}
				kind = suite.Handle(t, p, "kind", policy, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
					begun <- job.ID
					<-ctx.Done()
					return ctx.Err()
				})
			})
			id := suite.Enqueue(t, peer, kind, dianemo.Options{})
			require.Equal(t, id, suite.Receive(t, begun))
			require.NoError(t, suite.Client(t, to).Cancel(t.Context(), id))
			settled := peer.Next()
			require.Equal(t, []any{id, dianemo.Cancelled}, []any{settled.ID, settled.State})
			other := suite.Enqueue(t, peer, kind, dianemo.Options{})
			require.Equal(t, other, suite.Receive(t, begun), "what is started next is another job")
			info := suite.Get(t, peer, id)
			require.Equal(t, []any{dianemo.Cancelled, 1, 1}, []any{info.State, info.Attempt, info.Runs})
			require.NoError(t, suite.Client(t, to).Cancel(t.Context(), other))
			require.Equal(t, other, peer.Next().ID)
			require.NoError(t, peer.Stop())
		})
	}
}
