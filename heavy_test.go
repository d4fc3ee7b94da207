package dianemo_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A stream of light jobs never leaves room for a heavy one, unless the peer
// keeps what becomes free.
func TestAHeavyJobIsWaitedForAfterHeavyWait(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var light, heavy dianemo.Kind[Args]
		began := make(chan struct{})
		var ran, stopped atomic.Bool
		var lights atomic.Int64
		register := func(p *dianemo.Peer) {
			light = handle(t, p, "light", dianemo.Policy{Retries: dianemo.None}, func(ctx context.Context, job *dianemo.Job[Args]) error {
				if stopped.Load() {
					return nil
				}
				// Each is followed by another before it ends: all tokens stay in use.
				if _, err := light.Enqueue(ctx, p, Args{}); err != nil {
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
			heavy = handle(t, p, "heavy", dianemo.Policy{Weight: 8}, func(context.Context, *dianemo.Job[Args]) error {
				ran.Store(true)
				close(began)
				return nil
			})
		}
		peer := start(t, store, dianemo.Config{Tokens: 8, HeavyWait: 50 * time.Millisecond}, register)
		for range 16 {
			enqueue(t, peer, light, dianemo.Options{})
		}
		for range 20 {
			peer.next()
		}
		enqueue(t, peer, heavy, dianemo.Options{})
		select {
		case <-began:
		case <-time.After(20 * time.Second):
			t.Fatalf("the heavy job did not run while %d light ones did", lights.Load())
		}
		stopped.Store(true)
	})
}

// What a peer can never carry is left for a larger one, and keeps nothing from
// the others.
func TestAJobThatNeverFitsHoldsUpNobody(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var light, heavy dianemo.Kind[Args]
		register := func(p *dianemo.Peer) {
			light = handle(t, p, "light", dianemo.Policy{}, func(context.Context, *dianemo.Job[Args]) error { return nil })
			heavy = handle(t, p, "heavy", dianemo.Policy{Weight: 9}, func(context.Context, *dianemo.Job[Args]) error { return nil })
		}
		small := start(t, store, dianemo.Config{Tokens: 8, HeavyWait: time.Millisecond}, register)
		id := enqueue(t, small, heavy, dianemo.Options{})
		for range 50 {
			enqueue(t, small, light, dianemo.Options{})
			require.Equal(t, "light", small.next().Kind)
		}
		require.Equal(t, dianemo.Queued, get(t, small, id).State)
		large := start(t, store, dianemo.Config{Tokens: 9}, register)
		require.Equal(t, "heavy", large.next().Kind)
	})
}

// While tokens are saved for a heavy job, its kind may be paused: then they are
// for the others again.
func TestAPausedKindKeepsNoTokens(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		begun, free := make(chan string, 1), make(chan struct{})
		var light, long, heavy dianemo.Kind[Args]
		peer := start(t, store, dianemo.Config{Tokens: 4, HeavyWait: time.Millisecond, BeatEvery: 25 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Second}, func(p *dianemo.Peer) {
			light = handle(t, p, "light", dianemo.Policy{}, func(context.Context, *dianemo.Job[Args]) error { return nil })
			long = handle(t, p, "long", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
			heavy = handle(t, p, "heavy", dianemo.Policy{Weight: 4}, func(context.Context, *dianemo.Job[Args]) error { return nil })
		})
		enqueue(t, peer, long, dianemo.Options{})
		receive(t, begun)
		enqueue(t, peer, heavy, dianemo.Options{})
		require.NoError(t, peer.Pause(t.Context(), "heavy"))
		for range 40 {
			enqueue(t, peer, light, dianemo.Options{})
		}
		for range 40 {
			require.Equal(t, "light", peer.next().Kind)
		}
		require.NoError(t, peer.Resume(t.Context(), "heavy"))
		close(free)
		for range 2 {
			require.NotEqual(t, "light", peer.next().Kind)
		}
	})
}
