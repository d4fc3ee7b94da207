package dianemo_test

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

func TestAtShutdownRunningJobsFinish(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[Args]
		begun, free := make(chan string, 100), make(chan struct{})
		peer := start(t, store, dianemo.Config{Tokens: 3}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[Args]) error {
				begun <- job.ID
				<-free
				return ctx.Err()
			})
		})
		var ids []string
		for range 10 {
			ids = append(ids, enqueue(t, peer, kind, dianemo.Options{}))
		}
		for range 3 {
			receive(t, begun)
		}
		peer.cancel()
		close(free)
		require.NoError(t, peer.wait())
		states := map[dianemo.State]int{}
		c := client(t, store)
		for _, id := range ids {
			states[get(t, c, id).State]++
		}
		// Between the end of the context and Run's hearing of it, one or the other
		// may still have been claimed; none is left half done.
		require.GreaterOrEqual(t, states[dianemo.Succeeded], 3)
		require.Equal(t, 10, states[dianemo.Succeeded]+states[dianemo.Queued], "%v", states)
	})
}

func TestAtShutdownWhatDoesNotFinishIsGivenBack(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		patient, urgent, retried := dianemo.NewKind[Args]("patient", dianemo.Policy{}), dianemo.NewKind[Args]("urgent", dianemo.Policy{Priority: 1}),
			dianemo.NewKind[Args]("retried", dianemo.Policy{Priority: 1, Retries: 1})
		begun := make(chan string, 10)
		wait := func(ctx context.Context, job *dianemo.Job[Args]) error {
			begun <- job.ID
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), dianemo.ErrShutdown)
			return errors.New("whatever it says")
		}
		peer := start(t, store, dianemo.Config{Finish: dianemo.None}, func(p *dianemo.Peer) {
			for _, kind := range []dianemo.Kind[Args]{patient, urgent, retried} {
				require.NoError(t, kind.Handle(p, wait))
			}
		})
		ids := map[string]string{}
		for name, kind := range map[string]dianemo.Kind[Args]{"patient": patient, "urgent": urgent, "retried": retried} {
			ids[name] = enqueue(t, peer, kind, dianemo.Options{})
			receive(t, begun)
		}
		require.NoError(t, peer.stop())
		c := client(t, store)
		for _, name := range []string{"patient", "retried"} {
			job := get(t, c, ids[name])
			require.Equal(t, []any{dianemo.Retrying, "shutdown", 0, 1}, []any{job.State, job.Reason, job.Attempt, job.Runs}, name)
			require.Empty(t, job.LastError())
			require.Len(t, job.History, 1)
			require.Equal(t, dianemo.GiveBack, job.History[0].Outcome)
		}
		job := get(t, c, ids["urgent"])
		require.Equal(t, []any{dianemo.Failed, "shutdown", 1}, []any{job.State, job.Reason, job.Runs}, "it was promised not to start twice")
		require.Contains(t, job.LastError(), "shutting down: whatever it says")

		// What was given back is due now, and another peer is told.
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			require.NoError(t, patient.Handle(p, func(_ context.Context, job *dianemo.Job[Args]) error {
				begun <- job.ID
				return nil
			}))
		})
		require.Equal(t, ids["patient"], receive(t, begun))
	})
}

func TestAtShutdownAHandlerThatIgnoresItsContextIsNamed(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[Args]
		begun, free := make(chan string, 2), make(chan struct{})
		peer := start(t, store, dianemo.Config{Finish: dianemo.None, StuckAfter: 50 * time.Millisecond}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
		})
		ids := []string{enqueue(t, peer, kind, dianemo.Options{}), enqueue(t, peer, kind, dianemo.Options{})}
		receive(t, begun)
		receive(t, begun)
		err := peer.stop()
		var stuck *dianemo.StuckError
		require.ErrorAs(t, err, &stuck)
		slices.Sort(ids)
		require.Equal(t, ids, stuck.IDs)
		require.ErrorContains(t, err, ids[0])
		c := client(t, store)
		for _, id := range ids {
			require.Equal(t, dianemo.Running, get(t, c, id).State, "the runs are left to be reaped")
		}
		close(free)
	})
}

func TestResultsThatCannotBeStoredAtShutdownAreNamed(t *testing.T) {
	own := redistest.Start(t)
	store := redisstore.New(own.Client(t), redisstore.Options{})
	var kind dianemo.Kind[Args]
	begun, free := make(chan string, 2), make(chan struct{})
	peer := start(t, store, dianemo.Config{Finish: 50 * time.Millisecond, StuckAfter: 50 * time.Millisecond}, func(p *dianemo.Peer) {
		kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
			begun <- job.ID
			<-free
			return nil
		})
	})
	id := enqueue(t, peer, kind, dianemo.Options{})
	receive(t, begun)
	require.NoError(t, own.Kill())
	close(free)
	var stuck *dianemo.StuckError
	require.ErrorAs(t, peer.stop(), &stuck)
	require.Equal(t, []string{id}, stuck.IDs)
}

func TestRunWaitsForARedisThatIsDown(t *testing.T) {
	own := redistest.Start(t)
	require.NoError(t, own.Kill())
	store := redisstore.New(own.Client(t), redisstore.Options{})
	var kind dianemo.Kind[Args]
	peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { kind = handle(t, p, "kind", dianemo.Policy{}, returns(nil)) })
	require.NoError(t, own.Restart())
	enqueue(t, peer, kind, dianemo.Options{})
	require.Equal(t, dianemo.Succeed, peer.next().Outcome)
	require.NoError(t, peer.stop())

	require.NoError(t, own.Kill())
	never := start(t, redisstore.New(own.Client(t), redisstore.Options{}), dianemo.Config{}, func(*dianemo.Peer) {})
	require.NoError(t, never.stop(), "nothing was begun")
}

// Scripts vanish from Redis by SCRIPT FLUSH and by a failover.
func TestScriptsThatRedisForgotAreSentAgain(t *testing.T) {
	own := redistest.Start(t)
	rdb := own.Client(t)
	store := redisstore.New(rdb, redisstore.Options{})
	var kind dianemo.Kind[Args]
	peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
		kind = handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, _ *dianemo.Job[Args]) error { return rdb.ScriptFlush(ctx).Err() })
	})
	for range 20 {
		enqueue(t, peer, kind, dianemo.Options{})
		require.Equal(t, dianemo.Succeed, peer.next().Outcome)
	}
}

func TestCorruptJobsFailAndNewerOnesAreLeftAlone(t *testing.T) {
	store := redisStore(t, server.Client(t), 1)
	require.NoError(t, store.Open(t.Context()))
	kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
	lane := dianemo.Lane{Kind: "kind", Priority: 2, Grace: 24 * time.Hour}
	specs := map[string]string{
		"newer": "2anything", "cut": "1k\xff", "empty": "", "garbage": "\x00\x00", "no-kind": "1", "other-kind": string(dianemo.EncodeSpec(&dianemo.Spec{Kind: "other", Priority: 2})),
		"args": string(dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Grace: 24 * time.Hour, Args: []byte("{")})),
	}
	number := uint64(0)
	for id, spec := range specs {
		number++
		_, err := store.Enqueue(t.Context(), 0, dianemo.Call{Caller: "test", Number: number}, []dianemo.Record{{ID: id, Lane: lane, Spec: []byte(spec)}})
		require.NoError(t, err)
	}
	peer := start(t, store, dianemo.Config{Tokens: 2}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, returns(nil))) })
	good := enqueue(t, peer, kind, dianemo.Options{})
	ended := map[string]dianemo.SettleInfo{}
	for range len(specs) {
		i := peer.next()
		ended[i.ID] = i
	}
	require.Equal(t, dianemo.Succeed, ended[good].Outcome)
	for id := range specs {
		if id == "newer" {
			require.NotContains(t, ended, id)
			continue
		}
		require.Equal(t, dianemo.FailRun, ended[id].Outcome, id)
		job := get(t, peer, id)
		require.Equal(t, dianemo.Failed, job.State, id)
		if id != "args" {
			require.Equal(t, "corrupt", job.Reason, id)
		}
		require.NotEmpty(t, job.LastError(), id)
	}
}

// Neither a peer without handlers nor one that waits for its last handler has
// anything to do between two ticks.
func TestAPeerThatClaimsNothingUsesNoCPU(t *testing.T) {
	cpu := func() time.Duration {
		var use syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
		return time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	store := redisStore(t, server.Client(t), 1)
	start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond}, func(*dianemo.Peer) {})
	begun := make(chan struct{})
	var kind dianemo.Kind[Args]
	closing := start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond}, func(p *dianemo.Peer) {
		kind = handle(t, p, "kind", dianemo.Policy{}, func(context.Context, *dianemo.Job[Args]) error {
			close(begun)
			<-time.After(1500 * time.Millisecond) // a slow one, that ends by itself
			return nil
		})
	})
	enqueue(t, closing, kind, dianemo.Options{})
	receive(t, begun)
	before := cpu()
	require.NoError(t, closing.stop())
	require.Less(t, cpu()-before, 700*time.Millisecond, "of CPU in 1.5 s")
}
