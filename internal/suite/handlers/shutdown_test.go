package handlers_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/suite"
	"github.com/dianemo/dianemo/redisstore"
)

func TestAtShutdownRunningJobsFinish_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, free := make(chan string, 100), make(chan struct{})
		peer := suite.Start(t, store, dianemo.Config{Tokens: 3}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return ctx.Err()
			})
		})
		var ids []string
		for range 10 {
			ids = append(ids, suite.Enqueue(t, peer, kind, dianemo.Options{}))
		}
		for range 3 {
			suite.Receive(t, begun)
		}
		peer.End()
		close(free)
		require.NoError(t, peer.Stopped())
		states := map[dianemo.State]int{}
		c := suite.Client(t, store)
		for _, id := range ids {
			states[suite.Get(t, c, id).State]++
		}
		// Between the end of the context and Run's hearing of it, one or the other
		// may still have been claimed; none is left half done.
		require.GreaterOrEqual(t, states[dianemo.Succeeded], 3)
		require.Equal(t, 10, states[dianemo.Succeeded]+states[dianemo.Queued], "%v", states)
	})
}

func TestAtShutdownWhatDoesNotFinishIsGivenBack_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		patient, urgent, retried := dianemo.NewKind[suite.Args]("patient", dianemo.Policy{}), dianemo.NewKind[suite.Args]("urgent", dianemo.Policy{Priority: 1}),
			dianemo.NewKind[suite.Args]("retried", dianemo.Policy{Priority: 1, Retries: 1})
		begun := make(chan string, 10)
		wait := func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			begun <- job.ID
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), dianemo.ErrShutdown)
			return errors.New("whatever it says")
		}
		peer := suite.Start(t, store, dianemo.Config{Finish: dianemo.None}, func(p *dianemo.Peer) {
			for _, kind := range []dianemo.Kind[suite.Args]{patient, urgent, retried} {
				require.NoError(t, kind.Handle(p, wait))
			}
		})
		ids := map[string]string{}
		for name, kind := range map[string]dianemo.Kind[suite.Args]{"patient": patient, "urgent": urgent, "retried": retried} {
			ids[name] = suite.Enqueue(t, peer, kind, dianemo.Options{})
			suite.Receive(t, begun)
		}
		require.NoError(t, peer.Stop())
		c := suite.Client(t, store)
		for _, name := range []string{"patient", "retried"} {
			job := suite.Get(t, c, ids[name])
			require.Equal(t, []any{dianemo.Retrying, "shutdown", 0, 1}, []any{job.State, job.Reason, job.Attempt, job.Runs}, name)
			require.Empty(t, job.LastError())
			require.Len(t, job.History, 1)
			require.Equal(t, dianemo.GiveBack, job.History[0].Outcome)
		}
		job := suite.Get(t, c, ids["urgent"])
		require.Equal(t, []any{dianemo.Failed, "shutdown", 1}, []any{job.State, job.Reason, job.Runs}, "it was promised not to start twice")
		require.Contains(t, job.LastError(), "shutting down: whatever it says")

		// What was given back is due now, and another peer is told.
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			require.NoError(t, patient.Handle(p, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				return nil
			}))
		})
		require.Equal(t, ids["patient"], suite.Receive(t, begun))
	})
}

func TestAtShutdownAHandlerThatIgnoresItsContextIsNamed_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, free := make(chan string, 2), make(chan struct{})
		peer := suite.Start(t, store, dianemo.Config{Finish: dianemo.None, StuckAfter: 50 * time.Millisecond}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
		})
		ids := []string{suite.Enqueue(t, peer, kind, dianemo.Options{}), suite.Enqueue(t, peer, kind, dianemo.Options{})}
		suite.Receive(t, begun)
		suite.Receive(t, begun)
		err := peer.Stop()
		var stuck *dianemo.StuckError
		require.ErrorAs(t, err, &stuck)
		slices.Sort(ids)
		require.Equal(t, ids, stuck.IDs)
		require.ErrorContains(t, err, ids[0])
		c := suite.Client(t, store)
		for _, id := range ids {
			require.Equal(t, dianemo.Running, suite.Get(t, c, id).State, "the runs are left to be reaped")
		}
		close(free)
	})
}

func TestResultsThatCannotBeStoredAtShutdownAreNamed(t *testing.T) {
	t.Parallel()
	own := redistest.Start(t)
	store := redisstore.New(own.Client(t), redisstore.Options{})
	var kind dianemo.Kind[suite.Args]
	begun, free := make(chan string, 2), make(chan struct{})
	peer := suite.Start(t, store, dianemo.Config{Finish: 50 * time.Millisecond, StuckAfter: 50 * time.Millisecond}, func(p *dianemo.Peer) {
		kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
			begun <- job.ID
			<-free
			return nil
		})
	})
	id := suite.Enqueue(t, peer, kind, dianemo.Options{})
	suite.Receive(t, begun)
	require.NoError(t, own.Kill())
	close(free)
	var stuck *dianemo.StuckError
	require.ErrorAs(t, peer.Stop(), &stuck)
	require.Equal(t, []string{id}, stuck.IDs)
}

func TestRunWaitsForARedisThatIsDown(t *testing.T) {
	t.Parallel()
	own := redistest.Start(t)
	require.NoError(t, own.Kill())
	store := redisstore.New(own.Client(t), redisstore.Options{})
	var kind dianemo.Kind[suite.Args]
	peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { kind = suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
	require.NoError(t, own.Restart())
	suite.Enqueue(t, peer, kind, dianemo.Options{})
	require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
	require.NoError(t, peer.Stop())

	require.NoError(t, own.Kill())
	never := suite.Start(t, redisstore.New(own.Client(t), redisstore.Options{}), dianemo.Config{}, func(*dianemo.Peer) {})
	require.NoError(t, never.Stop(), "nothing was begun")
}

// Scripts vanish from Redis by SCRIPT FLUSH and by a failover.
func TestScriptsThatRedisForgotAreSentAgain(t *testing.T) {
	t.Parallel()
	own := redistest.Start(t)
	rdb := own.Client(t)
	store := redisstore.New(rdb, redisstore.Options{})
	var kind dianemo.Kind[suite.Args]
	peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
		kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, _ *dianemo.Job[suite.Args]) error { return rdb.ScriptFlush(ctx).Err() })
	})
	for range 20 {
		suite.Enqueue(t, peer, kind, dianemo.Options{})
		require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
	}
}

func TestCorruptJobsFailAndNewerOnesAreLeftAlone(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	require.NoError(t, store.Open(t.Context()))
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
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
	good := suite.Enqueue(t, suite.Client(t, store), kind, dianemo.Options{})
	peer := suite.Start(t, store, dianemo.Config{Tokens: 2}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
	ended := map[string]dianemo.SettleInfo{}
	for range len(specs) {
		i := peer.Next()
		ended[i.ID] = i
	}
	require.Equal(t, dianemo.Succeed, ended[good].Outcome)
	for id := range specs {
		if id == "newer" {
			require.NotContains(t, ended, id)
			continue
		}
		require.Equal(t, dianemo.FailRun, ended[id].Outcome, id)
		job := suite.Get(t, peer, id)
		require.Equal(t, dianemo.Failed, job.State, id)
		if id != "args" {
			require.Equal(t, "corrupt", job.Reason, id)
		}
		require.NotEmpty(t, job.LastError(), id)
	}
}
