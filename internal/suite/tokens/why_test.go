package tokens_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

func why(t *testing.T, c *dianemo.Client, id string) *dianemo.Why {
	t.Helper()
	w, err := c.Why(t.Context(), id)
	require.NoError(t, err)
	require.NotEmpty(t, w.String())
	return w
}

func TestWhySaysWhatKeepsAJobFromRunning_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		stranger := dianemo.NewKind[suite.Args]("stranger", dianemo.Policy{})
		free := make(chan struct{})
		begun := make(chan string, 10)
		var kind, heavy dianemo.Kind[suite.Args]
		hold := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
			begun <- job.ID
			<-free
			return nil
		}
		peer := suite.Start(t, store, dianemo.Config{Tokens: 8, Reserve: map[int]int{1: 2}, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Second},
			func(p *dianemo.Peer) {
				kind = suite.Handle(t, p, "kind", dianemo.Policy{Weight: 3}, hold)
				heavy = suite.Handle(t, p, "heavy", dianemo.Policy{Weight: 7}, hold)
			})
		require.Eventually(t, func() bool { return len(suite.Peers(t, c)) == 1 }, suite.Patience, time.Millisecond)

		_, err := c.Why(t.Context(), "nobody")
		require.ErrorIs(t, err, dianemo.ErrNotFound)
		require.Equal(t, dianemo.CauseNoHandler, why(t, c, suite.Enqueue(t, c, stranger, dianemo.Options{})).Cause)
		require.Equal(t, dianemo.CauseNotDue, why(t, c, suite.Enqueue(t, c, kind, dianemo.Options{Delay: time.Hour})).Cause)

		w := why(t, c, suite.Enqueue(t, c, heavy, dianemo.Options{}))
		require.Equal(t, dianemo.CauseUnplaceable, w.Cause)
		require.Equal(t, []dianemo.WhyPeer{{Peer: peer.ID(), Cause: dianemo.CauseUnplaceable, Weight: 7, Room: 6, Most: 6}}, w.Peers)
		require.Contains(t, w.String(), "weighs 7, and no live peer that handles heavy can carry more than 6 at priority 2")

		running := []string{suite.Enqueue(t, c, kind, dianemo.Options{}), suite.Enqueue(t, c, kind, dianemo.Options{})}
		suite.Receive(t, begun)
		suite.Receive(t, begun)
		require.Equal(t, dianemo.CauseRunning, why(t, c, running[0]).Cause)

		// All of one partition, so that they go before each other.
		var waiting []string
		for _, id := range []string{"x@1", "x@2", "x@3"} {
			waiting = append(waiting, suite.Enqueue(t, c, kind, dianemo.Options{ID: id, RunAt: time.Now().Add(-time.Duration(10-len(waiting)) * time.Second)}))
		}
		urgent := suite.Enqueue(t, c, kind, dianemo.Options{ID: "x@0", Priority: 1, Weight: 4, Grace: time.Hour})
		require.Eventually(t, func() bool { return len(why(t, c, waiting[0]).Peers) == 1 && why(t, c, waiting[0]).Peers[0].Room == 0 }, suite.Patience, time.Millisecond,
			"the peer shows what runs there")
		for i, id := range waiting {
			w := why(t, c, id)
			require.Equal(t, dianemo.CauseTokens, w.Cause)
			require.GreaterOrEqual(t, w.Ahead, int64(i+1), "the urgent one and those due earlier")
		}
		w = why(t, c, urgent)
		require.Equal(t, dianemo.CauseTokens, w.Cause)
		require.Equal(t, 2, w.Peers[0].Room, "the reserve")

		require.NoError(t, c.Pause(t.Context(), "kind"))
		require.Equal(t, dianemo.CausePaused, why(t, c, waiting[0]).Cause)
		require.NoError(t, c.Drain(t.Context(), peer.ID()))
		require.NoError(t, c.Resume(t.Context(), "kind"))
		require.Eventually(t, func() bool { return why(t, c, waiting[0]).Cause == dianemo.CauseLeaving }, suite.Patience, time.Millisecond)
		require.NoError(t, c.Undrain(t.Context(), peer.ID()))
		require.NoError(t, peer.SetTokens(2))
		require.Eventually(t, func() bool { return why(t, c, waiting[0]).Cause == dianemo.CauseUnplaceable }, suite.Patience, time.Millisecond)
		require.NoError(t, peer.SetTokens(8))
		close(free)
		for range 6 {
			peer.Next()
		}
		require.Equal(t, dianemo.CauseEnded, why(t, c, running[0]).Cause)
	})
}

func TestWhySaysThatThePeersAreHotOrThatTheJobIsNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		d := newDial(t, 1, 0)
		load, hooks := d.config(dianemo.LoadConfig{Every: 100 * time.Millisecond}) // for ten of these without a sample it stays hot
		g := newGate()
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{Load: load, Hooks: hooks, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Second}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, g.handler)
		})
		d.until(func(i dianemo.LoadInfo) bool { return i.Hot })
		require.Eventually(t, func() bool { all := suite.Peers(t, peer.Client); return len(all) == 1 && all[0].Hot }, suite.Patience, time.Millisecond)
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		require.Equal(t, dianemo.CauseHot, why(t, peer.Client, id).Cause)
		d.turn(0, 0)
		require.Equal(t, id, suite.Receive(t, g.started))
		g.release(t)
	})
}

func TestTheLeaderTellsOfJobsThatNoLivePeerCanRun_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		told := make(chan dianemo.StrandedInfo, 10)
		c := suite.Client(t, store)
		heavy := dianemo.NewKind[suite.Args]("heavy", dianemo.Policy{})
		suite.Enqueue(t, c, heavy, dianemo.Options{Weight: 9})
		suite.Enqueue(t, c, dianemo.NewKind[suite.Args]("stranger", dianemo.Policy{Priority: 1, Grace: time.Hour}), dianemo.Options{})
		suite.Start(t, store, dianemo.Config{Tokens: 8, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Second,
			Hooks: &dianemo.Hooks{Stranded: func(i dianemo.StrandedInfo) { told <- i }}}, func(p *dianemo.Peer) {
			suite.Handle(t, p, "heavy", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
		})
		causes := map[string]dianemo.Cause{}
		for causes["heavy"] != dianemo.CauseUnplaceable || causes["stranger"] != dianemo.CauseNoHandler {
			i := suite.Receive(t, told) // before the peer has shown itself, nobody has a handler
			causes[i.Kind] = i.Cause
		}
	})
}
