package tokens_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// A stream of light jobs never leaves room for a heavy one, unless the peer
// keeps what becomes free.
func TestAHeavyJobIsWaitedForAfterHeavyWait_Long(t *testing.T) {
	t.Parallel()
	suite.EachInRealTime(t, func(t *testing.T, store dianemo.Store) {
		var light, heavy dianemo.Kind[suite.Args]
		began := make(chan struct{})
		var ran, stopped atomic.Bool
		var lights atomic.Int64
		register := func(p *dianemo.Peer) {
			light = suite.Handle(t, p, "light", dianemo.Policy{Retries: dianemo.None}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				if stopped.Load() {
					return nil
				}
				// Each is followed by another before it ends: all tokens stay in use.
				if _, err := light.Enqueue(ctx, p, suite.Args{}); err != nil {
					return err
				}
				if lights.Add(1) < 200 || ran.Load() {
					return nil
				}
				// From here on the stream goes on only for as long as the heavy job has not begun.
				select {
				case <-began:
				case <-time.After(5 * time.Millisecond):
				}
				return nil
			})
			heavy = suite.Handle(t, p, "heavy", dianemo.Policy{Weight: 8}, func(context.Context, *dianemo.Job[suite.Args]) error {
				ran.Store(true)
				close(began)
				return nil
			})
		}
		peer := suite.Start(t, store, dianemo.Config{Tokens: 8, HeavyWait: 50 * time.Millisecond}, register)
		for range 16 {
			suite.Enqueue(t, peer, light, dianemo.Options{})
		}
		for range 20 {
			peer.Next()
		}
		suite.Enqueue(t, peer, heavy, dianemo.Options{})
		select {
		case <-began:
		case <-time.After(suite.Patience):
			t.Fatalf("the heavy job did not run while %d light ones did", lights.Load())
		}
		stopped.Store(true)
	})
}

// What a peer can never carry is left for a larger one, and keeps nothing from
// the others.
func TestAJobThatNeverFitsHoldsUpNobody_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var light, heavy dianemo.Kind[suite.Args]
		register := func(p *dianemo.Peer) {
			light = suite.Handle(t, p, "light", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
			heavy = suite.Handle(t, p, "heavy", dianemo.Policy{Weight: 9}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
		}
		small := suite.Start(t, store, dianemo.Config{Tokens: 8, HeavyWait: time.Millisecond}, register)
		id := suite.Enqueue(t, small, heavy, dianemo.Options{})
		for range 50 {
			suite.Enqueue(t, small, light, dianemo.Options{})
			require.Equal(t, "light", small.Next().Kind)
		}
		require.Equal(t, dianemo.Queued, suite.Get(t, small, id).State)
		large := suite.Start(t, store, dianemo.Config{Tokens: 9}, register)
		require.Equal(t, "heavy", large.Next().Kind)
	})
}

// While tokens are saved for a heavy job, its kind may be paused: then they are
// for the others again.
func TestAPausedKindKeepsNoTokens_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		begun, free := make(chan string, 1), make(chan struct{})
		var light, long, heavy dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{Tokens: 4, HeavyWait: time.Millisecond, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Second}, func(p *dianemo.Peer) {
			light = suite.Handle(t, p, "light", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
			long = suite.Handle(t, p, "long", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
			heavy = suite.Handle(t, p, "heavy", dianemo.Policy{Weight: 4}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
		})
		suite.Enqueue(t, peer, long, dianemo.Options{})
		suite.Receive(t, begun)
		suite.Enqueue(t, peer, heavy, dianemo.Options{})
		require.NoError(t, peer.Pause(t.Context(), "heavy"))
		for range 40 {
			suite.Enqueue(t, peer, light, dianemo.Options{})
		}
		for range 40 {
			require.Equal(t, "light", peer.Next().Kind)
		}
		require.NoError(t, peer.Resume(t.Context(), "heavy"))
		close(free)
		for range 2 {
			require.NotEqual(t, "light", peer.Next().Kind)
		}
	})
}
