package operating_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

func TestABadRetentionIsRefusedByName(t *testing.T) {
	t.Parallel()
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
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Keep: keep})
		peer, err := dianemo.NewPeer(suite.Embedded(t, 1), dianemo.Config{Logger: suite.Quiet})
		require.NoError(t, err)
		err = kind.Handle(peer, suite.Returns(nil))
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, field)
		require.Equal(t, field, wrong.Field)
		_, err = kind.Enqueue(t.Context(), peer, suite.Args{})
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
}

func TestWhatIsNotSaidOfRetentionIsInherited(t *testing.T) {
	t.Parallel()
	keep := dianemo.Keep{dianemo.Failed: {Jobs: 5}, dianemo.Succeeded: {For: dianemo.Unlimited}}
	require.Equal(t, dianemo.Retention{For: 30 * 24 * time.Hour, Jobs: 5}, keep.Of(dianemo.Failed))
	require.Equal(t, dianemo.Retention{For: dianemo.Unlimited, Jobs: 10_000}, keep.Of(dianemo.Succeeded))
	require.Equal(t, dianemo.Retention{For: 30 * 24 * time.Hour, Jobs: 100_000}, keep.Of(dianemo.Missed))
	require.Equal(t, dianemo.Retention{For: 24 * time.Hour, Jobs: 10_000}, dianemo.Keep(nil).Of(dianemo.Succeeded))
}

// BeatEvery is an hour, so no chore does it.
func TestEndedJobsDisappearAsOthersEnd_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind, lasting dianemo.Kind[suite.Args]
		keep := dianemo.Keep{dianemo.Succeeded: {Jobs: 8}}
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Keep: keep}, func(_ context.Context, job *dianemo.Job[suite.Args]) error { return job.SetResult(1) })
			lasting = suite.Handle(t, p, "lasting", dianemo.Policy{}, suite.Returns(nil))
		})
		c := suite.Client(t, store)
		first := suite.Enqueue(t, c, kind, dianemo.Options{ID: "first@1"})
		last := suite.Enqueue(t, c, lasting, dianemo.Options{ID: "first@2"})
		peer.Next()
		peer.Next()
		for i := range 60 {
			suite.Enqueue(t, c, kind, dianemo.Options{ID: fmt.Sprintf("first@later%d", i)}) // all in one partition
			peer.Next()
		}
		_, err := c.Get(t.Context(), first)
		require.ErrorIs(t, err, dianemo.ErrNotFound)
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, last).State)
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, "first@later59").State)
		require.LessOrEqual(t, suite.CountOf(t, c, dianemo.Succeeded), int64(9+1))
	})
}

// The kind's peer is gone; the leader has no handler for it and goes by what it declared.
func TestTheLeaderTrimsKindsOfOthersByWhatTheyDeclared_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		keep := dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}, dianemo.Failed: {Jobs: 100}}
		var kind dianemo.Kind[suite.Args]
		other := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Keep: keep}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				if job.ID == "fails" {
					return dianemo.Fail(errors.New("boom"))
				}
				return nil
			})
		})
		suite.Enqueue(t, c, kind, dianemo.Options{ID: "fails"})
		suite.Enqueue(t, c, kind, dianemo.Options{ID: "succeeds"})
		other.Next()
		other.Next()
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, "succeeds").State)
		require.NoError(t, other.Stop())

		trimmed := make(chan dianemo.TrimInfo, 100)
		// On a busy machine a bid takes longer than a short lease lasts, and nobody leads for long enough.
		suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Hour, Hooks: &dianemo.Hooks{Trim: func(i dianemo.TrimInfo) { trimmed <- i }}},
			func(p *dianemo.Peer) { suite.Handle(t, p, "foreign", dianemo.Policy{}, suite.Returns(nil)) })
		require.Equal(t, 1, suite.Receive(t, trimmed).Jobs)
		_, err := c.Get(t.Context(), "succeeds")
		require.ErrorIs(t, err, dianemo.ErrNotFound)
		require.Equal(t, dianemo.Failed, suite.Get(t, c, "fails").State)
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
func TestAPeerThatShutsDownSoonHasDeclaredWhatItsKindsKeep_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, &unheardStore{Store: store}, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: 7}}}, suite.Returns(nil))
		})
		suite.Enqueue(t, peer, kind, dianemo.Options{})
		peer.Next()
		require.NoError(t, peer.Stop())
		rdb, namespace := suite.Behind(t, store)
		require.Equal(t, "1|succeeded:0:7 ", rdb.HGet(t.Context(), fmt.Sprintf("{%s}:kinds", namespace), "kind").Val())
	})
}

func TestDeclarationsThatWereLostAreSaidAgain(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Second}, func(p *dianemo.Peer) {
		suite.Handle(t, p, "kind", dianemo.Policy{Keep: dianemo.Keep{dianemo.Failed: {Jobs: 7}}}, suite.Returns(nil))
	})
	rdb, namespace := suite.Behind(t, store)
	key := "{" + namespace + "}:kinds"
	said := func() bool { return rdb.HGet(t.Context(), key, "kind").Val() == "1|failed:0:7 " }
	require.Eventually(t, said, suite.Patience, 10*time.Millisecond)
	require.NoError(t, rdb.Del(t.Context(), key).Err())
	require.Eventually(t, said, suite.Patience, 10*time.Millisecond)
	require.NoError(t, rdb.Del(t.Context(), key).Err())
	require.NoError(t, rdb.Set(t.Context(), key, "x", 0).Err())
	require.Eventually(t, said, suite.Patience, 10*time.Millisecond)
}
