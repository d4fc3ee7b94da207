package handlers_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

func TestAHandlerGetsItsJobWhole_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		type Nested struct {
			Name string
			Tags map[string]int
		}
		kind := dianemo.NewKind[Nested]("mail/send@v2", dianemo.Policy{Weight: 3})
		jobs := make(chan *dianemo.Job[Nested], 1)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			require.NoError(t, kind.Handle(p, func(_ context.Context, job *dianemo.Job[Nested]) error {
				jobs <- job
				return job.SetResult(map[string]string{"sent": job.Args.Name})
			}))
		})
		args := Nested{"Zoë \x00 \"quoted\" {}", map[string]int{"a": 1}}
		id, err := kind.EnqueueWith(t.Context(), peer, args, dianemo.Options{ID: "order/17@eu", Priority: 4, Headers: map[string]string{"traceparent": "00-ab", "": ""}})
		require.NoError(t, err)
		require.Equal(t, "order/17@eu", id)
		job := suite.Receive(t, jobs)
		require.Equal(t, args, job.Args)
		require.Equal(t, []any{id, "mail/send@v2", 1, 4, 3}, []any{job.ID, job.Kind, job.Attempt, job.Priority, job.Weight})
		require.Positive(t, job.Epoch)
		require.Equal(t, job.Due, job.EnqueuedAt)
		require.Equal(t, map[string]string{"traceparent": "00-ab", "": ""}, job.Headers)
		peer.Next()

		info := suite.Get(t, peer, id)
		require.Equal(t, dianemo.Succeeded, info.State)
		require.Equal(t, []any{"mail/send@v2", 4, 24 * time.Hour, 1, 1, peer.ID(), job.Epoch},
			[]any{info.Kind, info.Priority, info.Grace, info.Attempt, info.Runs, info.Peer, info.Epoch})
		require.Equal(t, map[string]string{"traceparent": "00-ab", "": ""}, info.Headers)
		require.False(t, info.StartedAt.Before(info.Due) || info.EndedAt.Before(info.StartedAt))
		var back Nested
		require.NoError(t, info.DecodeArgs(&back))
		require.Equal(t, args, back)
		var result map[string]string
		require.NoError(t, info.DecodeResult(&result))
		require.Equal(t, args.Name, result["sent"])
	})
}

func TestAnIdlePeerStartsAFutureJobOnItsTime_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		started := make(chan time.Duration, 2)
		register := func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				started <- time.Since(job.Due) // the store's clock is this machine's
				return nil
			})
		}
		peer := suite.Start(t, store, dianemo.Config{}, register) // its tick is an hour
		other := suite.Client(t, store)
		require.Eventually(t, func() bool { return len(suite.Peers(t, other)) == 1 }, suite.Patience, time.Millisecond)
		suite.Enqueue(t, other, kind, dianemo.Options{Delay: 400 * time.Millisecond})
		suite.Enqueue(t, other, kind, dianemo.Options{RunAt: time.Now().Add(200 * time.Millisecond)})
		for range 2 {
			late := suite.Receive(t, started)
			require.GreaterOrEqual(t, late, time.Duration(0), "never early")
			require.Less(t, late, time.Second, "not by a tick, which is an hour away")
		}
		_ = peer
	})
}

func TestAKindWithoutAHandlerIsLeftForAPeerThatHasOne_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		known := dianemo.NewKind[suite.Args]("known", dianemo.Policy{})
		unknown := dianemo.NewKind[suite.Args]("unknown", dianemo.Policy{Priority: 1})
		one := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, known.Handle(p, suite.Returns(nil))) })
		var left []string
		for range 20 {
			left = append(left, suite.Enqueue(t, one, unknown, dianemo.Options{}))
			suite.Enqueue(t, one, known, dianemo.Options{})
			one.Next()
		}
		for _, id := range left {
			require.Equal(t, []any{dianemo.Queued, 0, 0}, []any{suite.Get(t, one, id).State, suite.Get(t, one, id).Attempt, suite.Get(t, one, id).Runs})
		}
		two := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, unknown.Handle(p, suite.Returns(nil))) })
		for range left {
			require.Equal(t, "unknown", two.Next().Kind)
		}
	})
}

func TestTokensAreHeldUntilTheHandlerReallyReturns_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, free := make(chan string, 2), make(chan struct{})
		peer := suite.Start(t, store, dianemo.Config{Tokens: 5, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, StuckAfter: 10 * time.Millisecond}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Weight: 3, Timeout: 10 * time.Millisecond, Retries: dianemo.None}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free // whatever becomes of the context
				return nil
			})
		})
		suite.Enqueue(t, peer, kind, dianemo.Options{})
		first := suite.Receive(t, begun)
		suite.Enqueue(t, peer, kind, dianemo.Options{})
		for {
			if beat := suite.Receive(t, peer.Beats); len(beat.Stuck) > 0 {
				require.Equal(t, []string{first}, beat.Stuck)
				break
			}
		}
		require.Eventually(t, func() bool { return suite.Get(t, peer, first).Progress.Stuck }, suite.Patience, 10*time.Millisecond)
		require.Equal(t, dianemo.Running, suite.Get(t, peer, first).State)
		require.Eventually(t, func() bool {
			all, err := peer.Peers(t.Context())
			return err == nil && len(all) == 1 && len(all[0].Stuck) == 1 && all[0].Running[2] == 3
		}, suite.Patience, 10*time.Millisecond)
		require.Empty(t, begun, "3 of 5 tokens are not free")
		free <- struct{}{}
		require.NotEqual(t, first, suite.Receive(t, begun))
		free <- struct{}{}
	})
}

func TestPriorityTwoNeverTakesTheReserve_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var mu sync.Mutex
		running := map[int]int{}
		free := make(chan struct{})
		begun := make(chan int, 100)
		register := func(p *dianemo.Peer) {
			suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				mu.Lock()
				running[job.Priority] += job.Weight
				mu.Unlock()
				begun <- job.Priority
				<-free
				mu.Lock()
				running[job.Priority] -= job.Weight
				mu.Unlock()
				return nil
			})
		}
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		producer := suite.Client(t, store)
		for range 20 {
			suite.Enqueue(t, producer, kind, dianemo.Options{})
		}
		peer := suite.Start(t, store, dianemo.Config{Tokens: 10, Reserve: map[int]int{1: 4}}, register)
		for range 6 {
			require.Equal(t, 2, suite.Receive(t, begun))
		}
		for range 6 {
			suite.Enqueue(t, producer, kind, dianemo.Options{Priority: 1})
		}
		for range 4 {
			require.Equal(t, 1, suite.Receive(t, begun), "the reserve is free for priority 1")
		}
		mu.Lock()
		require.Equal(t, map[int]int{1: 4, 2: 6}, running)
		mu.Unlock()
		require.Empty(t, begun)
		if store.Partitions() == 1 {
			// What becomes free goes to priority 1 first. With several partitions this
			// holds within one rotation.
			free <- struct{}{}
			require.Equal(t, 1, suite.Receive(t, begun))
			free <- struct{}{}
			require.Equal(t, 1, suite.Receive(t, begun))
		}
		close(free)
		for range 26 {
			peer.Next()
		}
	})
}

func TestProgressIsSeenWhileTheJobRuns_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		free := make(chan struct{})
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				job.Progress(1, 10, "begun")
				job.Progress(3, 10, strings.Repeat("n", 1000))
				<-free
				return nil
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		require.Eventually(t, func() bool {
			return suite.Get(t, peer, id).Progress == dianemo.Progress{Done: 3, Total: 10, Note: strings.Repeat("n", 256)}
		}, suite.Patience, 10*time.Millisecond)
		close(free)
		peer.Next()
	})
}

func TestResultsThatCannotBeKeptAreRefusedByName(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	var kind dianemo.Kind[suite.Args]
	errs := make(chan error, 2)
	peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
		kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
			errs <- job.SetResult(strings.Repeat("x", dianemo.MaxPayload))
			errs <- job.SetResult(make(chan int))
			return job.SetResult("short")
		})
	})
	id := suite.Enqueue(t, peer, kind, dianemo.Options{})
	peer.Next()
	for range 2 {
		var field *dianemo.FieldError
		require.ErrorAs(t, <-errs, &field)
		require.Equal(t, "result", field.Field)
	}
	require.Equal(t, `"short"`, string(suite.Get(t, peer, id).Result))
}

// Counts tell waiting jobs apart, and look at no job.
func TestCountsByStateKindAndPriority_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var good, bad dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			good = suite.Handle(t, p, "good", dianemo.Policy{}, suite.Returns(nil))
			bad = suite.Handle(t, p, "bad", dianemo.Policy{}, suite.Returns(suite.ErrBoom))
		})
		other := dianemo.NewKind[suite.Args]("other", dianemo.Policy{})
		var requests []dianemo.Request
		for range 3 {
			requests = append(requests, good.New(suite.Args{}), bad.New(suite.Args{}), bad.NewWith(suite.Args{}, dianemo.Options{Priority: 1}), other.New(suite.Args{}),
				other.NewWith(suite.Args{}, dianemo.Options{Priority: 7, Delay: time.Hour}))
		}
		_, err := peer.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		for range 9 {
			peer.Next()
		}
		counts, err := peer.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, []dianemo.Count{
			{State: dianemo.Failed, Kind: "bad", Priority: 1, Jobs: 3},
			{State: dianemo.Retrying, Kind: "bad", Priority: 2, Jobs: 3},
			{State: dianemo.Succeeded, Kind: "good", Priority: 2, Jobs: 3},
			{State: dianemo.Queued, Kind: "other", Priority: 2, Jobs: 3},
			{State: dianemo.Scheduled, Kind: "other", Priority: 7, Jobs: 3},
		}, counts)
	})
}

func TestPeersShowThemselves_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		peer := suite.Start(t, store, dianemo.Config{Tokens: 8, Reserve: map[int]int{1: 2}}, func(p *dianemo.Peer) {
			suite.Handle(t, p, "b", dianemo.Policy{}, suite.Returns(nil))
			suite.Handle(t, p, "a", dianemo.Policy{}, suite.Returns(nil))
		})
		c := suite.Client(t, store)
		var all []dianemo.PeerInfo
		require.Eventually(t, func() bool { all = suite.Peers(t, c); return len(all) == 1 }, suite.Patience, time.Millisecond)
		require.Equal(t, []any{peer.ID(), dianemo.Version, []string{"a", "b"}, 8, map[int]int{1: 2}},
			[]any{all[0].ID, all[0].Version, all[0].Kinds, all[0].Tokens, all[0].Reserve})
		require.NotEmpty(t, all[0].Host)
		require.Positive(t, all[0].PID)
		require.NoError(t, peer.Stop())
		require.Empty(t, suite.Peers(t, c))
	})
}

// A backlog store settles nothing while it is held, and counts what was claimed.
type backlogStore struct {
	dianemo.Store
	goOn    chan struct{}
	claimed atomic.Int64
}

func (s *backlogStore) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	if len(settle) > 0 {
		<-s.goOn
	}
	reply, err := s.Store.Turn(ctx, partition, call, settle, claim)
	s.claimed.Add(int64(len(reply.Jobs)))
	return reply, err
}

func TestWhatIsNotSettledHasABound(t *testing.T) {
	t.Parallel()
	const tokens, jobs = 64, 3000
	store := &backlogStore{Store: suite.Redis(t, suite.Server.Client(t), 1), goOn: make(chan struct{})}
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	requests := make([]dianemo.Request, jobs)
	for i := range requests {
		requests[i] = kind.New(suite.Args{})
	}
	_, err := c.EnqueueMany(t.Context(), requests...)
	require.NoError(t, err)
	peer := suite.Start(t, store, dianemo.Config{Tokens: tokens}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
	require.Eventually(t, func() bool { return store.claimed.Load() > dianemo.MaxCallJobs }, suite.Patience, time.Millisecond)
	require.Never(t, func() bool { return store.claimed.Load() > dianemo.MaxCallJobs+2*tokens }, 300*time.Millisecond, time.Millisecond)
	close(store.goOn)
	for range jobs {
		peer.Next()
	}
}
