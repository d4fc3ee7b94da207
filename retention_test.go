package dianemo_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestABadRetentionIsRefusedByName(t *testing.T) {
	for field, keep := range map[string]dianemo.Keep{
		"Policy.Keep[running]":        {dianemo.Running: {Jobs: 1}},
		"Policy.Keep[queued]":         {dianemo.Queued: {}},
		"Policy.Keep[]":               {"": {Jobs: 1}},
		"Policy.Keep[nonsense]":       {"nonsense": {Jobs: 1}},
		"Policy.Keep[failed].For":     {dianemo.Failed: {For: dianemo.None}},
		"Policy.Keep[missed].For":     {dianemo.Missed: {For: -time.Hour}},
		"Policy.Keep[succeeded].For":  {dianemo.Succeeded: {For: dianemo.MaxSpan + 1}},
		"Policy.Keep[cancelled].Jobs": {dianemo.Cancelled: {Jobs: -3}},
		"Policy.Keep[skipped].Jobs":   {dianemo.Skipped: {Jobs: 1_000_000_001}},
	} {
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{Keep: keep})
		peer, err := dianemo.NewPeer(embeddedStore(t, 1), dianemo.Config{Logger: quiet})
		require.NoError(t, err)
		err = kind.Handle(peer, returns(nil))
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
		_, err = kind.Enqueue(t.Context(), peer, Args{})
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
}

func TestWhatIsNotSaidOfRetentionIsInherited(t *testing.T) {
	keep := dianemo.Keep{dianemo.Failed: {Jobs: 5}, dianemo.Succeeded: {For: dianemo.Unlimited}}
	require.Equal(t, dianemo.Retention{For: 30 * 24 * time.Hour, Jobs: 5}, keep.Of(dianemo.Failed))
	require.Equal(t, dianemo.Retention{For: dianemo.Unlimited, Jobs: 10_000}, keep.Of(dianemo.Succeeded))
	require.Equal(t, dianemo.Retention{For: 30 * 24 * time.Hour, Jobs: 100_000}, keep.Of(dianemo.Missed))
	require.Equal(t, dianemo.Retention{For: 24 * time.Hour, Jobs: 10_000}, dianemo.Keep(nil).Of(dianemo.Succeeded))
}

func finished(t *testing.T, c *dianemo.Client, state dianemo.State) (n int64) {
	t.Helper()
	counts, err := c.Counts(t.Context())
	require.NoError(t, err)
	for _, count := range counts {
		if count.State == state {
			n += count.Jobs
		}
	}
	return n
}

// BeatEvery is an hour, so no chore does it.
func TestEndedJobsDisappearAsOthersEnd(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind, lasting dianemo.Kind[Args]
		keep := dianemo.Keep{dianemo.Succeeded: {Jobs: 8}}
		peer := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{Keep: keep}, func(_ context.Context, job *dianemo.Job[Args]) error { return job.SetResult(1) })
			lasting = handle(t, p, "lasting", dianemo.Policy{}, returns(nil))
		})
		c := client(t, store)
		first := enqueue(t, c, kind, dianemo.Options{ID: "first@1"})
		last := enqueue(t, c, lasting, dianemo.Options{ID: "first@2"})
		peer.next()
		peer.next()
		for i := range 60 {
			enqueue(t, c, kind, dianemo.Options{ID: fmt.Sprintf("first@later%d", i)}) // all in one partition
			peer.next()
		}
		_, err := c.Get(t.Context(), first)
		require.ErrorIs(t, err, dianemo.ErrNotFound)
		require.Equal(t, dianemo.Succeeded, get(t, c, last).State)
		require.Equal(t, dianemo.Succeeded, get(t, c, "first@later59").State)
		require.LessOrEqual(t, finished(t, c, dianemo.Succeeded), int64(9+1))
	})
}

// The kind's peer is gone; the leader has no handler for it and goes by what it declared.
func TestTheLeaderTrimsKindsOfOthersByWhatTheyDeclared(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		keep := dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}, dianemo.Failed: {Jobs: 100}}
		var kind dianemo.Kind[Args]
		other := start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{Keep: keep}, func(_ context.Context, job *dianemo.Job[Args]) error {
				if job.ID == "fails" {
					return dianemo.Fail(errors.New("boom"))
				}
				return nil
			})
		})
		enqueue(t, c, kind, dianemo.Options{ID: "fails"})
		enqueue(t, c, kind, dianemo.Options{ID: "succeeds"})
		other.next()
		other.next()
		require.Equal(t, dianemo.Succeeded, get(t, c, "succeeds").State)
		require.NoError(t, other.stop())

		trimmed := make(chan dianemo.TrimInfo, 100)
		// On a busy machine a bid takes longer than a short lease lasts, and nobody leads for long enough.
		start(t, store, dianemo.Config{BeatEvery: 25 * time.Millisecond, Lease: time.Hour, Hooks: &dianemo.Hooks{Trim: func(i dianemo.TrimInfo) { trimmed <- i }}},
			func(p *dianemo.Peer) { handle(t, p, "foreign", dianemo.Policy{}, returns(nil)) })
		require.Equal(t, 1, receive(t, trimmed).Jobs)
		_, err := c.Get(t.Context(), "succeeds")
		require.ErrorIs(t, err, dianemo.ErrNotFound)
		require.Equal(t, dianemo.Failed, get(t, c, "fails").State)
	})
}

// A unheardStore does not answer the first declaration while the peer runs.
type unheardStore struct {
	dianemo.Store
	once sync.Once
}

func (s *unheardStore) Declare(ctx context.Context, keeps map[string]dianemo.Keep, anew bool) (err error) {
	s.once.Do(func() {
		<-ctx.Done()
		err = ctx.Err()
	})
	if err != nil {
		return err
	}
	return s.Store.Declare(ctx, keeps, anew)
}

// Else the leader takes the defaults for what ran there.
func TestAPeerThatShutsDownSoonHasDeclaredWhatItsKindsKeep(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[Args]
		peer := start(t, &unheardStore{Store: store}, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: 7}}}, returns(nil))
		})
		enqueue(t, peer, kind, dianemo.Options{})
		peer.next()
		require.NoError(t, peer.stop())
		rdb, namespace := behind(t, store)
		require.Equal(t, "1|succeeded:0:7 ", rdb.HGet(t.Context(), fmt.Sprintf("{%s}:kinds", namespace), "kind").Val())
	})
}

func TestDeclarationsThatWereLostAreSaidAgain(t *testing.T) {
	rdb := server.Client(t)
	store := redisStore(t, rdb, 1)
	start(t, store, dianemo.Config{BeatEvery: 25 * time.Millisecond, Lease: 200 * time.Millisecond}, func(p *dianemo.Peer) {
		handle(t, p, "kind", dianemo.Policy{Keep: dianemo.Keep{dianemo.Failed: {Jobs: 7}}}, returns(nil))
	})
	key := fmt.Sprintf("{test-%d}:kinds", namespaces.Load())
	said := func() bool { return rdb.HGet(t.Context(), key, "kind").Val() == "1|failed:0:7 " }
	require.Eventually(t, said, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, rdb.Del(t.Context(), key).Err())
	require.Eventually(t, said, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, rdb.Del(t.Context(), key).Err())
	require.NoError(t, rdb.Set(t.Context(), key, "x", 0).Err())
	require.Eventually(t, said, 20*time.Second, 10*time.Millisecond)
}
