package dianemo_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestAHandlerGetsItsJobWhole(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		type Nested struct {
			Name string
			Tags map[string]int
		}
		kind := dianemo.NewKind[Nested]("mail/send@v2", dianemo.Policy{Weight: 3})
		jobs := make(chan *dianemo.Job[Nested], 1)
		peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			require.NoError(t, kind.Handle(p, func(_ context.Context, job *dianemo.Job[Nested]) error {
				jobs <- job
				return job.SetResult(map[string]string{"sent": job.Args.Name})
			}))
		})
		args := Nested{"Zoë \x00 \"quoted\" {}", map[string]int{"a": 1}}
		id, err := kind.EnqueueWith(t.Context(), peer, args, dianemo.Options{ID: "order/17@eu", Priority: 4, Headers: map[string]string{"traceparent": "00-ab", "": ""}})
		require.NoError(t, err)
		require.Equal(t, "order/17@eu", id)
		job := receive(t, jobs)
		require.Equal(t, args, job.Args)
		require.Equal(t, []any{id, "mail/send@v2", 1, 4, 3}, []any{job.ID, job.Kind, job.Attempt, job.Priority, job.Weight})
		require.Positive(t, job.Epoch)
		require.Equal(t, job.Due, job.EnqueuedAt)
		require.Equal(t, map[string]string{"traceparent": "00-ab", "": ""}, job.Headers)
		peer.next()

		info := get(t, peer, id)
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

func TestAnIdlePeerStartsAFutureJobOnItsTime(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[Args]
		started := make(chan time.Duration, 2)
		register := func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
				started <- time.Since(job.Due) // the store's clock is this machine's
				return nil
			})
		}
		peer := start(t, store, dianemo.Config{}, register) // its tick is an hour
		other := client(t, store)
		require.Eventually(t, func() bool { return len(peers(t, other)) == 1 }, 10*time.Second, time.Millisecond)
		enqueue(t, other, kind, dianemo.Options{Delay: 400 * time.Millisecond})
		enqueue(t, other, kind, dianemo.Options{RunAt: time.Now().Add(200 * time.Millisecond)})
		for range 2 {
			late := receive(t, started)
			require.GreaterOrEqual(t, late, time.Duration(0), "never early")
			require.Less(t, late, time.Second, "not by a tick, which is an hour away")
		}
		_ = peer
	})
}

func peers(t *testing.T, c *dianemo.Client) []dianemo.PeerInfo {
	t.Helper()
	all, err := c.Peers(t.Context())
	require.NoError(t, err)
	return all
}

func TestAKindWithoutAHandlerIsLeftForAPeerThatHasOne(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		known := dianemo.NewKind[Args]("known", dianemo.Policy{})
		unknown := dianemo.NewKind[Args]("unknown", dianemo.Policy{Priority: 1})
		one := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, known.Handle(p, returns(nil))) })
		var left []string
		for range 20 {
			left = append(left, enqueue(t, one, unknown, dianemo.Options{}))
			enqueue(t, one, known, dianemo.Options{})
			one.next()
		}
		for _, id := range left {
			require.Equal(t, []any{dianemo.Queued, 0, 0}, []any{get(t, one, id).State, get(t, one, id).Attempt, get(t, one, id).Runs})
		}
		two := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, unknown.Handle(p, returns(nil))) })
		for range left {
			require.Equal(t, "unknown", two.next().Kind)
		}
	})
}

func TestTokensAreHeldUntilTheHandlerReallyReturns(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[Args]
		begun, free := make(chan string, 2), make(chan struct{})
		peer := start(t, store, dianemo.Config{Tokens: 5, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, StuckAfter: 10 * time.Millisecond}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{Weight: 3, Timeout: 10 * time.Millisecond, Retries: dianemo.None}, func(_ context.Context, job *dianemo.Job[Args]) error {
				begun <- job.ID
				<-free // whatever becomes of the context
				return nil
			})
		})
		enqueue(t, peer, kind, dianemo.Options{})
		first := receive(t, begun)
		enqueue(t, peer, kind, dianemo.Options{})
		for {
			if beat := receive(t, peer.beats); len(beat.Stuck) > 0 {
				require.Equal(t, []string{first}, beat.Stuck)
				break
			}
		}
		require.Eventually(t, func() bool { return get(t, peer, first).Progress.Stuck }, 10*time.Second, 10*time.Millisecond)
		require.Equal(t, dianemo.Running, get(t, peer, first).State)
		require.Eventually(t, func() bool {
			all, err := peer.Peers(t.Context())
			return err == nil && len(all) == 1 && len(all[0].Stuck) == 1 && all[0].Running[2] == 3
		}, 10*time.Second, 10*time.Millisecond)
		require.Empty(t, begun, "3 of 5 tokens are not free")
		free <- struct{}{}
		require.NotEqual(t, first, receive(t, begun))
		free <- struct{}{}
	})
}

func TestPriorityTwoNeverTakesTheReserve(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var mu sync.Mutex
		running := map[int]int{}
		free := make(chan struct{})
		begun := make(chan int, 100)
		register := func(p *dianemo.Peer) {
			handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[Args]) error {
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
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
		producer := client(t, store)
		for range 20 {
			enqueue(t, producer, kind, dianemo.Options{})
		}
		peer := start(t, store, dianemo.Config{Tokens: 10, Reserve: map[int]int{1: 4}}, register)
		for range 6 {
			require.Equal(t, 2, receive(t, begun))
		}
		for range 6 {
			enqueue(t, producer, kind, dianemo.Options{Priority: 1})
		}
		for range 4 {
			require.Equal(t, 1, receive(t, begun), "the reserve is free for priority 1")
		}
		mu.Lock()
		require.Equal(t, map[int]int{1: 4, 2: 6}, running)
		mu.Unlock()
		require.Empty(t, begun)
		if store.Partitions() == 1 {
			// What becomes free goes to priority 1 first. With several partitions this
			// holds within one rotation.
			free <- struct{}{}
			require.Equal(t, 1, receive(t, begun))
			free <- struct{}{}
			require.Equal(t, 1, receive(t, begun))
		}
		close(free)
		for range 26 {
			peer.next()
		}
	})
}

func TestProgressIsSeenWhileTheJobRuns(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[Args]
		free := make(chan struct{})
		peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
				job.Progress(1, 10, "begun")
				job.Progress(3, 10, strings.Repeat("n", 1000))
				<-free
				return nil
			})
		})
		id := enqueue(t, peer, kind, dianemo.Options{})
		require.Eventually(t, func() bool {
			return get(t, peer, id).Progress == dianemo.Progress{Done: 3, Total: 10, Note: strings.Repeat("n", 256)}
		}, 10*time.Second, 10*time.Millisecond)
		close(free)
		peer.next()
	})
}

func TestResultsThatCannotBeKeptAreRefusedByName(t *testing.T) {
	store := embeddedStore(t, 1)
	var kind dianemo.Kind[Args]
	errs := make(chan error, 2)
	peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
		kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
			errs <- job.SetResult(strings.Repeat("x", dianemo.MaxPayload))
			errs <- job.SetResult(make(chan int))
			return job.SetResult("short")
		})
	})
	id := enqueue(t, peer, kind, dianemo.Options{})
	peer.next()
	for range 2 {
		var field *dianemo.FieldError
		require.ErrorAs(t, <-errs, &field)
		require.Equal(t, "result", field.Field)
	}
	require.Equal(t, `"short"`, string(get(t, peer, id).Result))
}

// Counts tell waiting jobs apart, and look at no job.
func TestCountsByStateKindAndPriority(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var good, bad dianemo.Kind[Args]
		peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			good = handle(t, p, "good", dianemo.Policy{}, returns(nil))
			bad = handle(t, p, "bad", dianemo.Policy{}, returns(errBoom))
		})
		other := dianemo.NewKind[Args]("other", dianemo.Policy{})
		var requests []dianemo.Request
		for range 3 {
			requests = append(requests, good.New(Args{}), bad.New(Args{}), bad.NewWith(Args{}, dianemo.Options{Priority: 1}), other.New(Args{}),
				other.NewWith(Args{}, dianemo.Options{Priority: 7, Delay: time.Hour}))
		}
		_, err := peer.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		for range 9 {
			peer.next()
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

func TestPeersShowThemselves(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		peer := start(t, store, dianemo.Config{Tokens: 8, Reserve: map[int]int{1: 2}}, func(p *dianemo.Peer) {
			handle(t, p, "b", dianemo.Policy{}, returns(nil))
			handle(t, p, "a", dianemo.Policy{}, returns(nil))
		})
		c := client(t, store)
		var all []dianemo.PeerInfo
		require.Eventually(t, func() bool { all = peers(t, c); return len(all) == 1 }, 10*time.Second, time.Millisecond)
		require.Equal(t, []any{peer.ID(), dianemo.Version, []string{"a", "b"}, 8, map[int]int{1: 2}},
			[]any{all[0].ID, all[0].Version, all[0].Kinds, all[0].Tokens, all[0].Reserve})
		require.NotEmpty(t, all[0].Host)
		require.Positive(t, all[0].PID)
		require.NoError(t, peer.stop())
		require.Empty(t, peers(t, c))
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
	const tokens, jobs = 64, 3000
	store := &backlogStore{Store: redisStore(t, server.Client(t), 1), goOn: make(chan struct{})}
	c := client(t, store)
	kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
	requests := make([]dianemo.Request, jobs)
	for i := range requests {
		requests[i] = kind.New(Args{})
	}
	_, err := c.EnqueueMany(t.Context(), requests...)
	require.NoError(t, err)
	peer := start(t, store, dianemo.Config{Tokens: tokens}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, returns(nil))) })
	require.Eventually(t, func() bool { return store.claimed.Load() > dianemo.MaxCallJobs }, 20*time.Second, time.Millisecond)
	require.Never(t, func() bool { return store.claimed.Load() > dianemo.MaxCallJobs+2*tokens }, 300*time.Millisecond, time.Millisecond)
	close(store.goOn)
	for range jobs {
		peer.next()
	}
}
