package dianemo_test

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
	const outage = 2 * time.Second
	for name, config := range map[string]dianemo.Config{
		"shorter than SilentAfter": {BeatEvery: 500 * time.Millisecond, SilentAfter: 10 * time.Second},
		"longer than SilentAfter":  {BeatEvery: 100 * time.Millisecond, SilentAfter: outage - 100*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
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
			leader := start(t, rounds, config, func(p *dianemo.Peer) {
				handle(t, p, "kind", policy, func(context.Context, *dianemo.Job[Args]) error {
					runs.Add(1)
					return nil
				})
				require.NoError(t, p.SetTokens(0))
			})
			receive(t, led)
			begun, end, down := make(chan string, 10), make(chan struct{}), make(chan error, 10)
			var kind dianemo.Kind[Args]
			runner := start(t, redisstore.New(through, redisstore.Options{}), config, func(p *dianemo.Peer) {
				kind = handle(t, p, "kind", policy, func(_ context.Context, job *dianemo.Job[Args]) error {
					runs.Add(1)
					begun <- job.ID
					<-end
					proxy.Refuse(true)
					down <- own.Kill()
					return nil
				})
			})
			id := enqueue(t, leader, kind, dianemo.Options{})
			receive(t, begun)
			require.NoError(t, leader.SetTokens(8)) // it could run it, too
			close(end)
			require.NoError(t, receive(t, down))
			<-time.After(outage)
			for len(rounds.done) > 0 {
				<-rounds.done
			}
			require.NoError(t, own.Restart())
			receive(t, rounds.done)
			receive(t, rounds.done)
			proxy.Refuse(false)

			settled := runner.next()
			require.Equal(t, []any{id, dianemo.Succeeded, false}, []any{settled.ID, settled.State, settled.Stale})
			receive(t, rounds.done)
			receive(t, rounds.done)
			info := get(t, leader, id)
			require.Equal(t, []any{dianemo.Succeeded, 1, 1}, []any{info.State, info.Attempt, info.Runs})
			require.EqualValues(t, 1, runs.Load())
			require.Zero(t, reaped.Load())
			require.Empty(t, leader.settled)
		})
	}
}

func TestAHandlerThatGoesOnAfterItsTimeoutKeepsItsSlot(t *testing.T) {
	store := redisStore(t, server.Client(t), 1)
	var kind dianemo.Kind[Args]
	var inside, most atomic.Int64
	begun, free := make(chan string, 10), make(chan struct{})
	config := dianemo.Config{Tokens: 1, BeatEvery: 50 * time.Millisecond, SilentAfter: time.Hour, StuckAfter: 10 * time.Millisecond}
	peer := start(t, store, config, func(p *dianemo.Peer) {
		policy := dianemo.Policy{Timeout: 50 * time.Millisecond, Retries: 5, RetryIn: dianemo.Every(time.Hour)}
		kind = handle(t, p, "kind", policy, func(ctx context.Context, job *dianemo.Job[Args]) error {
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
	first := enqueue(t, peer, kind, dianemo.Options{})
	require.Equal(t, first, receive(t, begun))
	second := enqueue(t, peer, kind, dianemo.Options{})
	for stuck := false; !stuck; {
		stuck = len(receive(t, peer.beats).Stuck) > 0
	}
	for range 5 { // some rounds, in which it might be claimed
		receive(t, peer.beats)
	}
	require.Empty(t, begun)
	require.Equal(t, dianemo.Running, get(t, peer, first).State)
	require.Equal(t, []any{dianemo.Queued, 0}, []any{get(t, peer, second).State, get(t, peer, second).Runs})
	free <- struct{}{}
	require.Equal(t, second, receive(t, begun))
	free <- struct{}{}
	for _, id := range []string{first, second} {
		settled := peer.next()
		require.Equal(t, []any{id, dianemo.Retry, "timeout"}, []any{settled.ID, settled.Outcome, settled.Reason})
	}
	require.EqualValues(t, 1, most.Load())
}

func TestATimeoutOfHalfASecondIsHalfASecond(t *testing.T) {
	const timeout = 500 * time.Millisecond
	store := redisStore(t, server.Client(t), 1)
	for name, row := range map[string]struct {
		policy  dianemo.Policy
		options dianemo.Options
	}{
		"the kind's":    {policy: dianemo.Policy{Timeout: timeout}},
		"the job's own": {dianemo.Policy{Timeout: time.Hour}, dianemo.Options{Timeout: timeout}},
	} {
		t.Run(name, func(t *testing.T) {
			var kind dianemo.Kind[Args]
			ended, causes := make(chan time.Time, 1), make(chan error, 1)
			peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
				row.policy.Retries = dianemo.None
				kind = handle(t, p, "kind", row.policy, func(ctx context.Context, _ *dianemo.Job[Args]) error {
					<-ctx.Done()
					ended <- time.Now()
					causes <- context.Cause(ctx)
					return ctx.Err()
				})
			})
			before := time.Now()
			id := enqueue(t, peer, kind, row.options)
			took := receive(t, ended).Sub(before)
			require.GreaterOrEqual(t, took, timeout)
			require.Less(t, took, 10*time.Second)
			require.ErrorIs(t, receive(t, causes), dianemo.ErrTimeout)
			peer.next()
			require.Equal(t, []any{dianemo.Failed, "timeout"}, []any{get(t, peer, id).State, get(t, peer, id).Reason})
			require.NoError(t, peer.stop())
		})
	}
}

func TestAJobLosesNoAttemptToAPeerThatLacksItsKind(t *testing.T) {
	store := redisStore(t, server.Client(t), 1)
	var known dianemo.Kind[Args]
	rounds := &choreStore{store, make(chan struct{}, 10_000)}
	without := start(t, rounds, dianemo.Config{BeatEvery: 50 * time.Millisecond, SilentAfter: time.Hour}, func(p *dianemo.Peer) {
		known = handle(t, p, "known", dianemo.Policy{}, returns(nil))
	})
	lacked := dianemo.NewKind[Args]("lacked", dianemo.Policy{Retries: dianemo.None})
	ids := []string{enqueue(t, without, lacked, dianemo.Options{}), enqueue(t, without, lacked, dianemo.Options{Priority: 1, Grace: time.Hour}),
		enqueue(t, without, lacked, dianemo.Options{Weight: 3, Delay: 50 * time.Millisecond})}
	for range 5 { // it looks, and claims what it can
		enqueue(t, without, known, dianemo.Options{})
		require.Equal(t, "known", without.next().Kind)
		receive(t, rounds.done)
	}
	with := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, lacked.Handle(p, returns(nil))) })
	for range ids {
		require.Equal(t, dianemo.Succeeded, with.next().State)
	}
	for _, id := range ids {
		info := get(t, with, id)
		require.Equal(t, []any{dianemo.Succeeded, 1, 1, ""}, []any{info.State, info.Attempt, info.Runs, info.LastError()})
		require.Len(t, info.History, 1)
		require.Equal(t, with.ID(), info.History[0].Peer)
	}
	require.Empty(t, without.settled)
}

func TestACancelledJobIsNotTriedAgain(t *testing.T) {
	store := redisStore(t, server.Client(t), 1)
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf=%v", deaf), func(t *testing.T) {
			to := dianemo.Store(store)
			if deaf {
				to = deafStore{store} // a beat tells it
			}
			var kind dianemo.Kind[Args]
			begun := make(chan string, 10)
			peer := start(t, to, dianemo.Config{BeatEvery: 50 * time.Millisecond, SilentAfter: time.Hour}, func(p *dianemo.Peer) {
				policy := dianemo.Policy{Retries: 5, Reruns: 5, RetryIn: dianemo.Every(0)}
				kind = handle(t, p, "kind", policy, func(ctx context.Context, job *dianemo.Job[Args]) error {
					begun <- job.ID
					<-ctx.Done()
					return ctx.Err()
				})
			})
			id := enqueue(t, peer, kind, dianemo.Options{})
			require.Equal(t, id, receive(t, begun))
			require.NoError(t, client(t, to).Cancel(t.Context(), id))
			settled := peer.next()
			require.Equal(t, []any{id, dianemo.Cancelled}, []any{settled.ID, settled.State})
			other := enqueue(t, peer, kind, dianemo.Options{})
			require.Equal(t, other, receive(t, begun), "what is started next is another job")
			info := get(t, peer, id)
			require.Equal(t, []any{dianemo.Cancelled, 1, 1}, []any{info.State, info.Attempt, info.Runs})
			require.NoError(t, client(t, to).Cancel(t.Context(), other))
			require.Equal(t, other, peer.next().ID)
			require.NoError(t, peer.stop())
		})
	}
}
