package operating_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/suite"
)

// untilCancelled is a handler that tells when it has begun and how its context ended, and then
// returns err.
func untilCancelled(begun chan string, causes chan error, err error) func(context.Context, *dianemo.Job[suite.Args]) error {
	return func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
		begun <- job.ID
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return err
	}
}

func TestCancelEndsTheContextOfARunningJobAndNothingStartsItAgain_Long(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		returns error
		panics  bool
		state   dianemo.State
		reason  string
		text    string // of the error that is kept
	}{
		"nil":         {nil, false, dianemo.Succeeded, "", ""},
		"plain error": {suite.ErrBoom, false, dianemo.Cancelled, "cancel", "boom"},
		"context":     {context.Canceled, false, dianemo.Cancelled, "cancel", "context canceled"},
		"fail":        {dianemo.Fail(suite.ErrBoom), false, dianemo.Failed, "error", "boom"},
		"retry":       {dianemo.RetryIn(0, suite.ErrBoom), false, dianemo.Cancelled, "cancel", "boom"},
		"snooze":      {dianemo.Snooze(0), false, dianemo.Cancelled, "cancel", ""},
		"panic":       {nil, true, dianemo.Cancelled, "cancel", "panic: boom"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				var kind dianemo.Kind[suite.Args]
				begun, causes := make(chan string, 10), make(chan error, 10)
				claims := atomic.Int64{}
				hooks := &dianemo.Hooks{Claim: func(dianemo.ClaimInfo) { claims.Add(1) }}
				peer := suite.Start(t, store, dianemo.Config{Hooks: hooks}, func(p *dianemo.Peer) { // its next beat is in an hour
					kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: 5, RetryIn: dianemo.Every(0)}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
						err := untilCancelled(begun, causes, row.returns)(ctx, job)
						if row.panics {
							panic("boom")
						}
						return err
					})
				})
				id := suite.Enqueue(t, peer, kind, dianemo.Options{})
				suite.Receive(t, begun)
				operator := suite.Client(t, store)
				require.NoError(t, operator.Cancel(t.Context(), id))
				require.ErrorIs(t, suite.Receive(t, causes), dianemo.ErrCancelled)
				settled := peer.Next()
				require.Equal(t, []any{row.state, row.reason, false}, []any{settled.State, settled.Reason, settled.Stale})
				info := suite.Get(t, operator, id)
				require.Equal(t, []any{row.state, row.reason, 1, 1}, []any{info.State, info.Reason, info.Attempt, info.Runs})
				if row.text == "" {
					require.Empty(t, info.LastError())
				} else {
					require.Contains(t, info.LastError(), row.text)
				}
				// Another job goes through, and this one did not come back.
				other := suite.Enqueue(t, peer, kind, dianemo.Options{})
				require.Equal(t, other, suite.Receive(t, begun))
				require.EqualValues(t, 2, claims.Load())
				require.NoError(t, operator.Cancel(t.Context(), other))
				peer.Next()
			})
		})
	}
}

// What returns of itself before it has heard of the cancellation is not tried
// again either: the store knows.
func TestARunThatNeverHeardOfItsCancellationIsNotTriedAgain_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, free := make(chan string, 10), make(chan struct{})
		peer := suite.Start(t, suite.DeafStore{Store: store}, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: 5, RetryIn: dianemo.Every(0)}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return suite.ErrBoom
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		suite.Receive(t, begun)
		require.NoError(t, suite.Client(t, store).Cancel(t.Context(), id))
		require.Equal(t, []any{dianemo.Running, "cancel"}, []any{suite.Get(t, peer, id).State, suite.Get(t, peer, id).Reason})
		close(free)
		settled := peer.Next()
		require.Equal(t, []any{dianemo.Retry, dianemo.Cancelled, "cancel"}, []any{settled.Outcome, settled.State, settled.Reason})
		require.Equal(t, dianemo.Cancelled, suite.Get(t, peer, id).State)
		require.Empty(t, begun)
	})
}

func TestWithoutAMessageABeatTellsOfACancellation_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, causes := make(chan string, 10), make(chan error, 10)
		peer := suite.Start(t, suite.DeafStore{Store: store}, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, untilCancelled(begun, causes, suite.ErrBoom))
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		suite.Receive(t, begun)
		require.NoError(t, suite.Client(t, store).Cancel(t.Context(), id))
		require.ErrorIs(t, suite.Receive(t, causes), dianemo.ErrCancelled)
		require.Equal(t, dianemo.Cancelled, peer.Next().State)
		for {
			if beat := suite.Receive(t, peer.Beats); len(beat.Cancelled) > 0 {
				require.Equal(t, []string{id}, beat.Cancelled)
				break
			}
		}
	})
}

// At shutdown too it ends cancelled rather than being given back.
func TestACancelledJobThatOutlivesItsPeersPatienceEndsCancelled_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, causes := make(chan string, 10), make(chan error, 10)
		peer := suite.Start(t, suite.DeafStore{Store: store}, dianemo.Config{Finish: dianemo.None}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, untilCancelled(begun, causes, suite.ErrBoom))
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		suite.Receive(t, begun)
		require.NoError(t, suite.Client(t, store).Cancel(t.Context(), id)) // it does not hear of it
		require.NoError(t, peer.Stop())
		require.ErrorIs(t, suite.Receive(t, causes), dianemo.ErrShutdown)
		c := suite.Client(t, store)
		require.Equal(t, []any{dianemo.Cancelled, "cancel"}, []any{suite.Get(t, c, id).State, suite.Get(t, c, id).Reason})
	})
}

func TestManyJobsAreCancelledAndRequeuedFromAnotherProcess_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		var mu sync.Mutex
		told := map[string][]dianemo.WishInfo{}
		hear := func(edge string) func(dianemo.WishInfo) {
			return func(i dianemo.WishInfo) { mu.Lock(); defer mu.Unlock(); told[edge] = append(told[edge], i) }
		}
		c, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: suite.Quiet,
			Hooks: &dianemo.Hooks{Cancel: hear("cancel"), Requeue: hear("requeue"), Reschedule: hear("reschedule")}})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		var requests []dianemo.Request
		for range 600 {
			requests = append(requests, kind.New(suite.Args{}))
		}
		ids, err := c.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		require.NoError(t, c.Cancel(t.Context()))
		require.NoError(t, c.Cancel(t.Context(), ids...))
		require.NoError(t, c.Cancel(t.Context(), ids...), "once more changes nothing")
		counts, err := c.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, []dianemo.Count{{State: dianemo.Cancelled, Kind: "kind", Priority: 2, Jobs: 600}}, counts)

		// Errors stand in order, also for ids given twice.
		waiting := suite.Enqueue(t, c, kind, dianemo.Options{})
		err = c.Requeue(t.Context(), ids[0], waiting, ids[1], "nobody", waiting)
		var batch *dianemo.BatchError
		require.ErrorAs(t, err, &batch)
		require.Equal(t, []error{nil, &dianemo.StateError{ID: waiting, State: dianemo.Scheduled, Edge: dianemo.EdgeRequeue}, nil},
			batch.Errs[:3])
		require.ErrorIs(t, batch.Errs[3], dianemo.ErrNotFound)
		require.ErrorIs(t, batch.Errs[4], dianemo.ErrState)
		require.ErrorIs(t, c.Requeue(t.Context(), "nobody"), dianemo.ErrNotFound)
		require.NoError(t, c.Requeue(t.Context(), ids[2:]...))
		require.NoError(t, c.Reschedule(t.Context(), ids[3], dianemo.Change{Priority: 1}))
		mu.Lock()
		require.Len(t, told["cancel"], 1200)
		require.Len(t, told["requeue"], 4+1+598)
		require.Equal(t, []dianemo.WishInfo{{ID: ids[3], Kind: "kind", Priority: 1, State: dianemo.Scheduled}}, told["reschedule"])
		mu.Unlock()

		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
		for range 601 {
			require.Equal(t, dianemo.Succeeded, peer.Next().State)
		}
		var state *dianemo.StateError
		require.ErrorAs(t, c.Cancel(t.Context(), ids[0]), &state)
		require.Equal(t, dianemo.StateError{ID: ids[0], State: dianemo.Succeeded, Edge: dianemo.EdgeCancel}, *state)
		require.ErrorIs(t, c.Reschedule(t.Context(), ids[0], dianemo.Change{Priority: 1}), dianemo.ErrState)
		require.NoError(t, c.Requeue(t.Context(), ids[0]), "one that has succeeded, too; an idle peer is told")
		require.Equal(t, ids[0], peer.Next().ID)
	})
}

// A moving store says for a while that what is to be changed has moved.
type movingStore struct {
	dianemo.Store
	moves int
}

func (s *movingStore) Cancel(ctx context.Context, partition int, call dianemo.Call, ids []string) (dianemo.WishReply, error) {
	if s.moves--; s.moves < 0 {
		return s.Store.Cancel(ctx, partition, call, ids)
	}
	var reply dianemo.WishReply
	for _, id := range ids {
		reply.Jobs = append(reply.Jobs, dianemo.Wished{Moved: dianemo.Moved{ID: id}, Err: dianemo.ErrMoved})
	}
	return reply, nil
}

func (s *movingStore) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	if s.moves--; s.moves < 0 || len(records) == 1 && records[0].Unique.Key == "" {
		return s.Store.Enqueue(ctx, partition, call, records)
	}
	// The first is accepted, all others are to come again.
	reply, err := s.Store.Enqueue(ctx, partition, call, records[:1])
	reply.Existing = append(reply.Existing, make([]dianemo.State, len(records)-1)...)
	for i := range records[1:] {
		reply.Moved = append(reply.Moved, i+1)
	}
	return reply, err
}

func TestWhatMovesIsTriedAgainAndNotForEver(t *testing.T) {
	t.Parallel()
	store := &movingStore{Store: suite.Embedded(t, 1)}
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	ids := []string{suite.Enqueue(t, c, kind, dianemo.Options{}), suite.Enqueue(t, c, kind, dianemo.Options{})}
	store.moves = 1000
	err := c.Cancel(t.Context(), ids...)
	require.ErrorIs(t, err, dianemo.ErrMoved)
	require.Greater(t, store.moves, 900)
	require.Equal(t, dianemo.Queued, suite.Get(t, c, ids[0]).State)
	store.moves = 5
	require.NoError(t, c.Cancel(t.Context(), ids...))
	require.Equal(t, []dianemo.State{dianemo.Cancelled, dianemo.Cancelled}, []dianemo.State{suite.Get(t, c, ids[0]).State, suite.Get(t, c, ids[1]).State})

	var requests []dianemo.Request
	for i := range 4 {
		requests = append(requests, kind.NewWith(suite.Args{}, dianemo.Options{Unique: dianemo.Unique{Key: fmt.Sprint(i / 2)}}))
	}
	store.moves = 2
	ids, err = c.EnqueueMany(t.Context(), requests...)
	var batch *dianemo.BatchError
	require.ErrorAs(t, err, &batch)
	require.Equal(t, []any{nil, nil}, []any{batch.Errs[0], batch.Errs[2]})
	require.Equal(t, &dianemo.ExistsError{ID: ids[0], State: dianemo.Scheduled, Key: "0"}, batch.Errs[1])
	require.Equal(t, &dianemo.ExistsError{ID: ids[2], State: dianemo.Scheduled, Key: "1"}, batch.Errs[3])
	require.Equal(t, []string{ids[0], ids[2]}, []string{ids[1], ids[3]})
}

func TestAFailedJobIsRequeuedWithAllItsRetries_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		attempts := make(chan int, 10)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: 1, RetryIn: dianemo.Every(0)}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				attempts <- job.Attempt
				return suite.ErrBoom
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		for range 2 {
			for _, want := range []int{1, 2} {
				require.Equal(t, want, suite.Receive(t, attempts))
			}
			for peer.Next().State != dianemo.Failed {
			}
			require.NoError(t, peer.Requeue(t.Context(), id))
		}
		require.Equal(t, 1, suite.Receive(t, attempts))
	})
}

func TestARescheduledJobStartsWhenItIsNowDue_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun := make(chan int, 10)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.Priority
				return nil
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{Delay: time.Hour})
		require.NoError(t, suite.Client(t, store).Reschedule(t.Context(), id, dianemo.Change{RunAt: time.Now(), Priority: 1}))
		require.Equal(t, 1, suite.Receive(t, begun))
		require.Equal(t, []any{dianemo.Succeeded, 1}, []any{peer.Next().State, suite.Get(t, peer, id).Priority})
	})
}

// A counting store tells how many claims are made.
type countingStore struct {
	dianemo.Store
	claims atomic.Int64
}

func (s *countingStore) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	if claim.Limit > 0 {
		s.claims.Add(1)
	}
	return s.Store.Turn(ctx, partition, call, settle, claim)
}

func TestAPausedKindIsLeftAndNobodyPollsForIt_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		counting := &countingStore{Store: store}
		var paused, other dianemo.Kind[suite.Args]
		begun, free := make(chan string, 100), make(chan struct{})
		peer := suite.Start(t, counting, dianemo.Config{}, func(p *dianemo.Peer) {
			paused = suite.Handle(t, p, "paused", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
			other = suite.Handle(t, p, "other", dianemo.Policy{}, suite.Returns(nil))
		})
		c := suite.Client(t, store)
		first := suite.Enqueue(t, c, paused, dianemo.Options{})
		require.Equal(t, first, suite.Receive(t, begun))
		require.NoError(t, c.Pause(t.Context(), "paused"))
		require.NoError(t, c.Pause(t.Context(), "paused"))
		kinds, err := c.Paused(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"paused"}, kinds)
		var left []string
		for range 20 {
			left = append(left, suite.Enqueue(t, c, paused, dianemo.Options{}))
		}
		before := counting.claims.Load()
		for range 20 { // the fleet goes on with all else, and each of these wakes the peer
			suite.Enqueue(t, c, other, dianemo.Options{})
			require.Equal(t, "other", peer.Next().Kind)
		}
		// Each of the 40 jobs woke the peer at most once, each of 20 was found by a claim and each settled; a peer that
		// polled for what is paused would have made thousands.
		require.Less(t, counting.claims.Load()-before, int64(200))
		require.Empty(t, begun)
		require.Equal(t, dianemo.Running, suite.Get(t, c, first).State, "what runs goes on")
		close(free)
		require.Equal(t, []any{"paused", dianemo.Succeeded}, func() []any { s := peer.Next(); return []any{s.Kind, s.State} }())
		require.NoError(t, c.Resume(t.Context(), "paused"))
		require.NoError(t, c.Resume(t.Context(), "paused"))
		for range left {
			require.Contains(t, left, suite.Receive(t, begun))
		}
		kinds, err = c.Paused(t.Context())
		require.NoError(t, err)
		require.Empty(t, kinds)
	})
}

func TestADrainedPeerClaimsNothingUntilItIsUndrained_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, free := make(chan string, 100), make(chan struct{}, 100)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
		})
		c := suite.Client(t, store)
		first := suite.Enqueue(t, c, kind, dianemo.Options{})
		require.Equal(t, first, suite.Receive(t, begun))
		shown := func(draining bool) func() bool {
			return func() bool {
				all := suite.Peers(t, c)
				return len(all) == 1 && all[0].Draining == draining
			}
		}
		require.Eventually(t, shown(false), suite.Patience, time.Millisecond)
		require.NoError(t, c.Drain(t.Context(), peer.ID()))
		require.NoError(t, c.Drain(t.Context(), peer.ID()))
		require.Eventually(t, shown(true), suite.Patience, time.Millisecond)
		second := suite.Enqueue(t, c, kind, dianemo.Options{})
		free <- struct{}{}
		require.Equal(t, first, peer.Next().ID, "what it runs goes on")
		// Another one takes what it leaves.
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
		require.Eventually(t, func() bool { return suite.Get(t, c, second).State == dianemo.Succeeded }, suite.Patience, time.Millisecond)
		require.Empty(t, begun)
		require.NoError(t, c.Undrain(t.Context(), peer.ID()))
		require.Eventually(t, func() bool {
			all := suite.Peers(t, c)
			return len(all) == 2 && !all[0].Draining && !all[1].Draining
		}, suite.Patience, time.Millisecond)
		close(free)
		require.ErrorIs(t, c.Drain(t.Context(), "nobody"), dianemo.ErrNoPeer)
		require.ErrorIs(t, c.Undrain(t.Context(), "nobody"), dianemo.ErrNoPeer)
	})
}

// With one peer only: it does nothing while it is drained, though told of work,
// and takes the work up when it is undrained. No message arrives; beats do.
func TestWithoutMessagesAPeerLearnsAtABeatThatItIsDrained_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		counting := &countingStore{Store: suite.DeafStore{Store: store}}
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, counting, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil))
		})
		c := suite.Client(t, store)
		draining := func() bool { all := suite.Peers(t, c); return len(all) == 1 && all[0].Draining }
		require.Eventually(t, func() bool { return c.Drain(t.Context(), peer.ID()) == nil }, suite.Patience, time.Millisecond)
		require.Eventually(t, draining, suite.Patience, time.Millisecond)
		id := suite.Enqueue(t, c, kind, dianemo.Options{})
		// Two claims may have been under way when it heard; then it makes none.
		seen := suite.Peers(t, c)[0].Seen
		before := counting.claims.Load()
		require.Eventually(t, func() bool { return suite.Peers(t, c)[0].Seen.Sub(seen) > 200*time.Millisecond }, suite.Patience, time.Millisecond)
		require.LessOrEqual(t, counting.claims.Load()-before, int64(store.Partitions()))
		require.Equal(t, dianemo.Queued, suite.Get(t, c, id).State)
		require.NoError(t, c.Undrain(t.Context(), peer.ID()))
		require.Equal(t, id, peer.Next().ID)
		require.Eventually(t, func() bool { return !draining() }, suite.Patience, time.Millisecond)
	})
}

func TestBadWishesAreRefusedByNameBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	long := strings.Repeat("x", dianemo.MaxKey+1)
	with := func(u dianemo.Unique, id string) error {
		_, err := kind.EnqueueWith(t.Context(), c, suite.Args{}, dianemo.Options{ID: id, Unique: u})
		return err
	}
	ctx := t.Context()
	for name, row := range map[string]struct {
		err   error
		field string
	}{
		"cancel of a bad id":        {c.Cancel(ctx, "fine", "a b"), "id"},
		"requeue of a bad id":       {c.Requeue(ctx, ""), "id"},
		"reschedule of a bad id":    {c.Reschedule(ctx, "{", dianemo.Change{Priority: 1}), "id"},
		"no change":                 {c.Reschedule(ctx, "job", dianemo.Change{}), "Change"},
		"priority 10":               {c.Reschedule(ctx, "job", dianemo.Change{Priority: 10}), "Change.Priority"},
		"priority -1":               {c.Reschedule(ctx, "job", dianemo.Change{Priority: -1}), "Change.Priority"},
		"delay -1":                  {c.Reschedule(ctx, "job", dianemo.Change{Delay: -1}), "Change.Delay"},
		"delay and time":            {c.Reschedule(ctx, "job", dianemo.Change{Delay: 1, RunAt: time.Now()}), "Change.Delay"},
		"before 1970":               {c.Reschedule(ctx, "job", dianemo.Change{RunAt: time.Unix(-1, 0)}), "Change.RunAt"},
		"pause of a bad kind":       {c.Pause(ctx, "a b"), "kind"},
		"resume of a bad kind":      {c.Resume(ctx, ""), "kind"},
		"drain of a bad peer":       {c.Drain(ctx, "a b"), "peer"},
		"undrain of a bad peer":     {c.Undrain(ctx, ""), "peer"},
		"unique key too long":       {with(dianemo.Unique{Key: long}, ""), "Options.Unique.Key"},
		"unique key with a colon":   {with(dianemo.Unique{Key: "a:b"}, ""), "Options.Unique.Key"},
		"unique without a key":      {with(dianemo.Unique{Replace: true}, ""), "Options.Unique.Key"},
		"unique with an id":         {with(dianemo.Unique{Key: "a"}, "id"), "Options.ID"},
		"unique until nobody knows": {with(dianemo.Unique{Key: "a", Until: 2}, ""), "Options.Unique.Until"},
		"unique for -1 s":           {with(dianemo.Unique{Key: "a", For: -time.Second}, ""), "Options.Unique.For"},
		"unique for ever":           {with(dianemo.Unique{Key: "a", For: dianemo.MaxSpan + 1}, ""), "Options.Unique.For"},
	} {
		var field *dianemo.FieldError
		require.ErrorAs(t, row.err, &field, name)
		require.Equal(t, row.field, field.Field, name)
	}
	require.Empty(t, store.Client().Keys(ctx, "*").Val(), "something was written")
	require.NoError(t, with(dianemo.Unique{Key: long[1:]}, ""), "the longest key")
	c.Close()
	require.ErrorIs(t, c.Cancel(ctx, "job"), dianemo.ErrClosed)
	require.ErrorIs(t, c.Pause(ctx, "kind"), dianemo.ErrClosed)
}

// While Redis is away, wishes wait for it; when the context ends first, they say
// that nothing is known.
func TestWishesWaitForRedisAsLongAsTheirContextLasts(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, suite.Server.Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), DisableIdentity: true, MaxRetries: -1})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	store := suite.Redis(t, rdb, 2)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	id := suite.Enqueue(t, c, kind, dianemo.Options{})
	away := func() { proxy.Refuse(true); proxy.Cut() }
	away()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.Cancel(short, id)
	require.ErrorIs(t, err, dianemo.ErrUnconfirmed)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	err = c.Pause(short, "kind")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "done in 0 of 2 partitions")
	done := make(chan error, 3)
	go func() { done <- c.Cancel(t.Context(), id) }()
	go func() { done <- c.Pause(t.Context(), "kind") }()
	proxy.Refuse(false)
	require.NoError(t, suite.Receive(t, done))
	require.NoError(t, suite.Receive(t, done))
	require.Equal(t, dianemo.Cancelled, suite.Get(t, c, id).State)
	away()
	go func() { done <- c.Requeue(t.Context(), id) }()
	c.Close()
	require.ErrorIs(t, suite.Receive(t, done), dianemo.ErrClosed)
}

func TestAUniqueJobIsRefusedUntilTheFirstHasEnded_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, free := make(chan string, 100), make(chan struct{}, 100)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
		})
		c := suite.Client(t, store)
		one := dianemo.Options{Unique: dianemo.Unique{Key: "user/17@eu"}}
		first := suite.Enqueue(t, c, kind, one)
		require.Equal(t, first, suite.Receive(t, begun))
		for _, replace := range []bool{false, true} {
			one.Unique.Replace = replace
			id, err := kind.EnqueueWith(t.Context(), peer, suite.Args{}, one)
			require.Equal(t, first, id, "the first one's")
			var exists *dianemo.ExistsError
			require.ErrorAs(t, err, &exists)
			require.ErrorIs(t, err, dianemo.ErrExists)
			require.Equal(t, dianemo.ExistsError{ID: first, State: dianemo.Running, Key: "user/17@eu"}, *exists)
		}
		require.Equal(t, "user/17@eu", suite.Get(t, c, first).UniqueKey)
		free <- struct{}{}
		peer.Next()
		second := suite.Enqueue(t, c, kind, one)
		require.Equal(t, second, suite.Receive(t, begun))
		var exists *dianemo.ExistsError
		require.ErrorAs(t, c.Requeue(t.Context(), first), &exists)
		require.Equal(t, dianemo.ExistsError{ID: second, State: dianemo.Running, Key: "user/17@eu"}, *exists)
		close(free)
	})
}

func TestAWaitingJobIsReplacedUntilItIsStarted_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		latest := func(n int) dianemo.Request {
			return kind.NewWith(suite.Args{N: n}, dianemo.Options{Unique: dianemo.Unique{Key: "key", Until: dianemo.UntilStarted, Replace: true}, Delay: time.Duration(n) * time.Millisecond})
		}
		// From several clients, and several times in one batch.
		var all sync.WaitGroup
		errs := make(chan error, 100)
		for i := range 4 {
			other := suite.Client(t, store)
			all.Go(func() {
				for n := range 5 {
					_, err := other.EnqueueMany(t.Context(), latest(10*i+n), latest(100+10*i+n))
					errs <- err
				}
			})
		}
		all.Wait()
		for range 20 {
			require.NoError(t, <-errs)
		}
		ids, err := c.EnqueueMany(t.Context(), latest(1), latest(2), latest(3))
		require.NoError(t, err)
		counts, err := c.Counts(t.Context())
		require.NoError(t, err)
		states := map[dianemo.State]int64{}
		for _, n := range counts {
			states[n.State] += n.Jobs
		}
		require.Equal(t, int64(42), states[dianemo.Cancelled])
		require.Equal(t, int64(1), states[dianemo.Queued]+states[dianemo.Scheduled])
		require.Equal(t, []any{dianemo.Cancelled, "replaced"}, []any{suite.Get(t, c, ids[0]).State, suite.Get(t, c, ids[0]).Reason})
		args := make(chan int, 10)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			require.NoError(t, kind.Handle(p, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				args <- job.Args.N
				return nil
			}))
		})
		require.Equal(t, 3, suite.Receive(t, args))
		require.Equal(t, ids[2], peer.Next().ID)
	})
}

// Many callers share an outbox: each gets its own answer.
func TestCallersThatShareABatchGetTheirOwnAnswers_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		var all sync.WaitGroup
		var mu sync.Mutex
		accepted, holders := map[string]string{}, map[string][]string{}
		for i := range 60 {
			all.Go(func() {
				key := fmt.Sprint("key-", i%6)
				id, err := kind.EnqueueWith(t.Context(), c, suite.Args{}, dianemo.Options{Unique: dianemo.Unique{Key: key}})
				if i%6 == 5 {
					id, err = kind.Enqueue(t.Context(), c, suite.Args{})
					key = id
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					accepted[key] = id
				} else if errors.Is(err, dianemo.ErrExists) {
					holders[key] = append(holders[key], id)
				}
			})
		}
		all.Wait()
		require.Len(t, accepted, 15)
		for key, ids := range holders {
			require.Len(t, ids, 9)
			require.Equal(t, []string{accepted[key]}, slices.Compact(ids))
		}
		require.Len(t, holders, 5)
	})
}

// The peer that ran it is gone: once the job is given up, its key is free.
func TestACrashOfItsPeerFreesAUniqueKey(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 2)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Reruns: dianemo.None})
	c := suite.Client(t, store)
	options := dianemo.Options{Unique: dianemo.Unique{Key: "key"}}
	first := suite.Enqueue(t, c, kind, options)
	lane := dianemo.Lane{Kind: "kind", Priority: 2, Grace: 24 * time.Hour}
	claim := dianemo.Claim{Limit: 1, Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1}}, BeatEvery: 500 * time.Millisecond, SilentAfter: 2 * time.Second}
	for level := range claim.Room {
		claim.Room[level] = 1
	}
	// A peer that claims and is never heard of again.
	reply, err := store.Turn(t.Context(), store.Partition(first), dianemo.Call{Caller: "crashed", Number: 1}, nil, claim)
	require.NoError(t, err)
	require.Len(t, reply.Jobs, 1)
	_, err = kind.EnqueueWith(t.Context(), c, suite.Args{}, options)
	require.ErrorIs(t, err, dianemo.ErrExists)
	reaped := make(chan dianemo.ReapInfo, 1)
	suite.Start(t, store, dianemo.Config{BeatEvery: 500 * time.Millisecond, SilentAfter: 2 * time.Second, Hooks: &dianemo.Hooks{Reap: func(i dianemo.ReapInfo) { reaped <- i }}},
		func(*dianemo.Peer) {})
	require.Equal(t, dianemo.Unreachable, suite.Receive(t, reaped).State)
	require.NotEqual(t, first, suite.Enqueue(t, c, kind, options))
}

// A holdingStore lets the test act between a claim and the peer's hearing of its answer.
type holdingStore struct {
	dianemo.Store
	claimed func(jobs []dianemo.Claimed) error // called once, with the first that were claimed
	once    sync.Once
	shown   chan struct{} // unless nil: each time that the peer has shown itself
}

func (s *holdingStore) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	reply, err := s.Store.Turn(ctx, partition, call, settle, claim)
	if len(reply.Jobs) > 0 {
		s.once.Do(func() { err = errors.Join(err, s.claimed(reply.Jobs)) })
	}
	return reply, err
}

func (s *holdingStore) Present(ctx context.Context, peer dianemo.PeerInfo, gone bool) (bool, error) {
	if s.shown != nil {
		defer func() { s.shown <- struct{}{} }()
	}
	return s.Store.Present(ctx, peer, gone)
}

func TestAJobThatIsCancelledBeforeItsClaimIsHeardIsNotStarted_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		holding := &holdingStore{Store: store, claimed: func(jobs []dianemo.Claimed) error {
			return errors.Join(c.Cancel(t.Context(), jobs[0].ID), errors.New("the answer is lost"))
		}}
		begun := make(chan string, 10)
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, holding, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				return nil
			})
		})
		id := suite.Enqueue(t, c, kind, dianemo.Options{})
		settled := peer.Next()
		require.Equal(t, []any{id, dianemo.CancelRun, dianemo.Cancelled}, []any{settled.ID, settled.Outcome, settled.State})
		require.Equal(t, []any{dianemo.Cancelled, "cancel"}, []any{suite.Get(t, c, id).State, suite.Get(t, c, id).Reason})
		require.Empty(t, begun)
	})
}

// The message comes when the peer does not know yet of the run that it is about.
func TestACancellationThatOvertakesTheClaimsAnswerIsHeard_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		holding := &holdingStore{Store: store, shown: make(chan struct{}, 100)}
		holding.claimed = func(jobs []dianemo.Claimed) error {
			err := c.Cancel(t.Context(), jobs[0].ID)
			select {
			case <-holding.shown: // the message was heard
			case <-t.Context().Done():
			}
			return err
		}
		begun, causes := make(chan string, 10), make(chan error, 10)
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, holding, dianemo.Config{}, func(p *dianemo.Peer) { // its next beat is in an hour
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, untilCancelled(begun, causes, suite.ErrBoom))
		})
		suite.Receive(t, holding.shown) // at its start
		suite.Receive(t, holding.shown) // and when it hears messages
		suite.Enqueue(t, c, kind, dianemo.Options{})
		require.ErrorIs(t, suite.Receive(t, causes), dianemo.ErrCancelled)
		require.Equal(t, dianemo.Cancelled, peer.Next().State)
	})
}

func TestWhatWasBeingClaimedWhenThePeerWasDrainedGoesBack_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		var peer *suite.Running
		ready := make(chan struct{})
		holding := &holdingStore{Store: store, claimed: func([]dianemo.Claimed) error {
			<-ready
			err := c.Drain(t.Context(), peer.ID())
			for err == nil { // until it has heard
				var all []dianemo.PeerInfo
				if all, err = c.Peers(t.Context()); len(all) == 1 && all[0].Draining {
					break
				}
			}
			return err
		}}
		begun := make(chan string, 10)
		var kind dianemo.Kind[suite.Args]
		peer = suite.Start(t, holding, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				return nil
			})
		})
		close(ready)
		require.Eventually(t, func() bool { return len(suite.Peers(t, c)) == 1 }, suite.Patience, time.Millisecond)
		id := suite.Enqueue(t, c, kind, dianemo.Options{})
		settled := peer.Next()
		require.Equal(t, []any{id, dianemo.Unstarted, dianemo.Scheduled}, []any{settled.ID, settled.Outcome, settled.State})
		require.Equal(t, []any{dianemo.Queued, 0}, []any{suite.Get(t, c, id).State, suite.Get(t, c, id).Runs})
		require.NoError(t, c.Undrain(t.Context(), peer.ID()))
		require.Equal(t, id, suite.Receive(t, begun))
	})
}
