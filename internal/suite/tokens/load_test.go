package tokens_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// A dial is a source of load that a test turns.
type dial struct {
	t       *testing.T
	load    atomic.Pointer[dianemo.Load]
	fails   atomic.Pointer[func(context.Context) (dianemo.Load, error)] // instead of load, unless nil
	samples chan dianemo.LoadInfo
}

func newDial(t *testing.T, host, own float64) *dial {
	d := &dial{t: t, samples: make(chan dianemo.LoadInfo, 100_000)}
	d.load.Store(&dianemo.Load{Host: host, Own: own})
	return d
}

func (d *dial) source(ctx context.Context) (dianemo.Load, error) {
	if fails := d.fails.Load(); fails != nil {
		return (*fails)(ctx)
	}
	return *d.load.Load(), nil
}

func (d *dial) config(c dianemo.LoadConfig) (dianemo.LoadConfig, *dianemo.Hooks) {
	c.Source = d.source
	if c.Every == 0 {
		c.Every = 100 * time.Millisecond // ten samples that a busy machine makes late would count as no load
	}
	return c, &dianemo.Hooks{Load: func(i dianemo.LoadInfo) { d.samples <- i }}
}

// turn sets the load, and returns once the peer knows.
func (d *dial) turn(host, own float64) dianemo.LoadInfo {
	d.t.Helper()
	d.load.Store(&dianemo.Load{Host: host, Own: own})
	return d.until(func(i dianemo.LoadInfo) bool { return i.Load.Host == host && i.Load.Own == own })
}

func (d *dial) until(fits func(dianemo.LoadInfo) bool) dianemo.LoadInfo {
	d.t.Helper()
	for {
		if i := suite.Receive(d.t, d.samples); fits(i) {
			return i
		}
	}
}

// more waits for n more samples than there are.
func (d *dial) more(n int) {
	d.t.Helper()
	for range len(d.samples) + n {
		suite.Receive(d.t, d.samples)
	}
}

// A claimCounter counts calls with a claim, and those that were answered; and the looks at all partitions, one a tick.
type claimCounter struct {
	dianemo.Store
	claims, answers atomic.Int64
	ticks           atomic.Int64
}

func (c *claimCounter) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	defer c.ticks.Add(1)
	return c.Store.Survey(ctx, chore)
}

func (c *claimCounter) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	if claim.Limit > 0 {
		c.claims.Add(1)
		defer c.answers.Add(1)
	}
	return c.Store.Turn(ctx, partition, call, settle, claim)
}

// A gate holds handlers.
type gate struct {
	started chan string
	free    chan struct{} // one handler for each that is sent
}

func newGate() *gate { return &gate{make(chan string, 1000), make(chan struct{})} }

func (g *gate) handler(_ context.Context, job *dianemo.Job[suite.Args]) error {
	g.started <- job.ID
	<-g.free
	return nil
}

func (g *gate) release(t *testing.T) {
	t.Helper()
	select {
	case g.free <- struct{}{}:
	case <-time.After(suite.Patience):
		t.Fatal("no handler runs")
	}
}

// Ticks are an hour apart, so what resumes the claims is the load.
func TestClaimsStopOnAHotHostRunningJobsGoOnAndClaimsResume_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		g, d := newGate(), newDial(t, 0.3, 0.3)
		load, hooks := d.config(dianemo.LoadConfig{})
		count := &claimCounter{Store: store}
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, count, dianemo.Config{Tokens: 8, Load: load, Hooks: hooks}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, g.handler)
			// One for the first job: beside it no claim is under way that a hot host finds too late to stop.
			require.NoError(t, p.SetTokens(1))
		})
		first := suite.Enqueue(t, peer, kind, dianemo.Options{})
		require.Equal(t, first, suite.Receive(t, g.started))

		info := d.turn(0.95, 0.02)
		require.NoError(t, peer.SetTokens(8))
		require.True(t, info.Hot)
		require.Zero(t, info.Available)
		require.InDelta(t, 0.93, info.Share, 1e-9)
		urgent := suite.Enqueue(t, peer, kind, dianemo.Options{Priority: 1})
		var others []string
		for range 8 {
			others = append(others, suite.Enqueue(t, peer, kind, dianemo.Options{}))
		}
		g.release(t)
		require.Equal(t, first, peer.Next().ID, "it runs to its end, and is settled")
		before := count.claims.Load()
		d.more(5)
		require.Empty(t, g.started, "not even the most urgent starts")
		require.Equal(t, before, count.claims.Load(), "nothing is asked of the store")

		info = d.turn(0.8, 0)
		require.True(t, info.Hot, "not below the low mark")
		d.more(3)
		require.Empty(t, g.started)

		info = d.turn(0.5, 0)
		require.False(t, info.Hot)
		require.Equal(t, 4, info.Available)
		got := []string{}
		for range 4 {
			got = append(got, suite.Receive(t, g.started))
		}
		if count.Partitions() == 1 {
			require.Contains(t, got, urgent)
		}
		d.more(3)
		require.Empty(t, g.started, "half of the tokens are the others'")
		d.turn(0.5, 0.5) // its own
		for range 4 {
			got = append(got, suite.Receive(t, g.started))
		}
		for range 5 {
			g.release(t)
		}
		got = append(got, suite.Receive(t, g.started))
		for range 4 {
			g.release(t)
		}
		require.ElementsMatch(t, append(others, urgent), got)
	})
}

// The fallback tick claims nothing either, and whoever is hot from the start
// never does.
func TestAHotPeerTicksWithoutAClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &claimCounter{Store: suite.Embedded(t, 8)}
		g, d := newGate(), newDial(t, 1, 0)
		load, hooks := d.config(dianemo.LoadConfig{})
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{Tokens: 8, Load: load, Hooks: hooks, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Hour}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, g.handler)
			// Until it knows the load: a claim of before might be planned, and neither sent nor answered, whatever is waited for.
			require.NoError(t, p.SetTokens(0))
		})
		d.until(func(i dianemo.LoadInfo) bool { return i.Hot })
		require.NoError(t, peer.SetTokens(8))
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		before := store.ticks.Load()
		require.Eventually(t, func() bool { return store.ticks.Load() > before+8 }, suite.Patience, time.Millisecond)
		require.Zero(t, store.claims.Load())
		require.Empty(t, g.started)
		d.turn(0, 0)
		require.Equal(t, id, suite.Receive(t, g.started))
		g.release(t)
	})
}

func TestWithCountSelfAPeerOnWhichNothingRunsClaimsOne_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		g, d := newGate(), newDial(t, 0.95, 0.6)
		load, hooks := d.config(dianemo.LoadConfig{CountSelf: true})
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{Tokens: 8, Load: load, Hooks: hooks}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Weight: 5}, g.handler)
		})
		d.until(func(i dianemo.LoadInfo) bool { return i.Hot })
		for range 4 {
			suite.Enqueue(t, peer, kind, dianemo.Options{})
		}
		for range 2 {
			suite.Receive(t, g.started)
			d.more(3)
			require.Empty(t, g.started, "one at a time")
			g.release(t)
			peer.Next()
		}
		suite.Receive(t, g.started)
		require.True(t, d.turn(0.95, 0.01).Hot)
		g.release(t)
		peer.Next()
		d.more(3)
		require.Empty(t, g.started, "others alone make the host hot")
		d.turn(0.95, 0.6)
		suite.Receive(t, g.started)
		g.release(t)
	})
}

func TestTokensCanBeChangedByHand_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		g, count := newGate(), &claimCounter{Store: store}
		var kind, heavy dianemo.Kind[suite.Args]
		peer := suite.Start(t, count, dianemo.Config{Tokens: 4, Reserve: map[int]int{1: 2}}, func(p *dianemo.Peer) {
			for _, bad := range []int{-1, dianemo.MaxWeight + 1} {
				var got *dianemo.FieldError
				require.ErrorAs(t, p.SetTokens(bad), &got)
				require.Equal(t, "tokens", got.Field)
			}
			require.NoError(t, p.SetTokens(0), "before Run, too")
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, g.handler)
			heavy = suite.Handle(t, p, "heavy", dianemo.Policy{}, g.handler)
		})
		shows := func(tokens int) {
			t.Helper()
			require.Eventually(t, func() bool {
				peers, err := peer.Peers(t.Context())
				return err == nil && len(peers) == 1 && peers[0].Tokens == tokens && peers[0].Available == tokens
			}, suite.Patience, 5*time.Millisecond, "readers see %d tokens at once", tokens)
		}
		shows(0)
		low, urgent := suite.Enqueue(t, peer, kind, dianemo.Options{}), suite.Enqueue(t, peer, kind, dianemo.Options{Priority: 1})
		require.NoError(t, peer.SetTokens(2))
		require.Equal(t, urgent, suite.Receive(t, g.started), "all that there is is reserved")
		shows(2)
		require.Empty(t, g.started)
		require.NoError(t, peer.SetTokens(4))
		require.Equal(t, low, suite.Receive(t, g.started))

		// Nothing is evicted, and nothing claimed until it fits.
		require.NoError(t, peer.SetTokens(1))
		shows(1)
		// Heavier than all that there were so far.
		big := suite.Enqueue(t, peer, heavy, dianemo.Options{Weight: 7})
		g.release(t)
		g.release(t)
		require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
		require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
		before := count.answers.Load()
		require.NoError(t, peer.SetTokens(8))
		// Asked for the lightest job of its lane, and for all that could be had.
		require.Eventually(t, func() bool { return count.answers.Load() >= before+2 }, suite.Patience, time.Millisecond)
		shows(8)
		require.Empty(t, g.started, "with the reserve it needs nine")
		require.NoError(t, peer.SetTokens(9))
		require.Equal(t, big, suite.Receive(t, g.started))
		g.release(t)
		require.Equal(t, big, peer.Next().ID)
	})
}

// A log that counts warnings that have these words.
type warnings struct {
	slog.Handler
	words string
	mu    *sync.Mutex
	count *int
}

func (w warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w warnings) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Level == slog.LevelWarn && strings.Contains(r.Message, w.words) {
		*w.count++
	}
	return nil
}

func TestABadSourceOfLoadIsOutlived(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		fails func(ctx context.Context, blocks func()) (dianemo.Load, error)
		says  string
	}{
		{"error", func(context.Context, func()) (dianemo.Load, error) {
			return dianemo.Load{}, errors.New("no such sensor")
		}, "no such sensor"},
		{"NaN", func(context.Context, func()) (dianemo.Load, error) { return dianemo.Load{Host: math.NaN()}, nil }, "not a number"},
		{"panic", func(context.Context, func()) (dianemo.Load, error) { panic("sensor broke") }, "panicked: sensor broke"},
		{"Goexit", func(context.Context, func()) (dianemo.Load, error) { runtime.Goexit(); panic("unreachable") }, "runtime.Goexit"},
		{"blocks", func(_ context.Context, blocks func()) (dianemo.Load, error) {
			blocks()
			return dianemo.Load{}, errors.New("blocked")
		}, "has not returned"},
		{"heeds its context", func(ctx context.Context, _ func()) (dianemo.Load, error) {
			<-ctx.Done()
			return dianemo.Load{}, ctx.Err()
		}, "has not returned"},
	} {
		suite.RunVirtual(t, row.name, func(t *testing.T) {
			unblock := make(chan struct{})
			var blocked atomic.Int64
			fails := func(ctx context.Context) (dianemo.Load, error) {
				return row.fails(ctx, func() {
					blocked.Add(1)
					defer blocked.Add(-1)
					<-unblock
				})
			}
			g, d := newGate(), newDial(t, 0.95, 0)
			load, hooks := d.config(dianemo.LoadConfig{})
			var mu sync.Mutex
			warned := 0
			var kind dianemo.Kind[suite.Args]
			peer := suite.Start(t, suite.Embedded(t, 1), dianemo.Config{Load: load, Hooks: hooks,
				Logger: slog.New(warnings{slog.DiscardHandler, "the load is not known", &mu, &warned})}, func(p *dianemo.Peer) {
				kind = suite.Handle(t, p, "kind", dianemo.Policy{}, g.handler)
			})
			require.True(t, d.until(func(i dianemo.LoadInfo) bool { return i.Hot }).Known)
			id := suite.Enqueue(t, peer, kind, dianemo.Options{})
			d.fails.Store(&fails)
			first := d.until(func(i dianemo.LoadInfo) bool { return i.Err != nil })
			require.ErrorContains(t, first.Err, row.says)
			for n := 1; n < 10; n++ {
				require.True(t, first.Hot && first.Known, "bad sample %d", n)
				require.Equal(t, 0.95, first.Share)
				first = suite.Receive(t, d.samples)
				require.Error(t, first.Err)
			}
			require.False(t, first.Hot || first.Known, "the tenth in a row")
			require.Equal(t, first.Tokens, first.Available)
			require.Equal(t, id, suite.Receive(t, g.started), "with no load known, claims go on")
			mu.Lock()
			require.Equal(t, 1, warned)
			mu.Unlock()
			g.release(t)
			if row.name == "blocks" {
				require.EqualValues(t, 1, blocked.Load(), "it is not called again while it has not returned")
				require.NoError(t, peer.Stop(), "and Run does not wait for it")
				close(unblock)
				return
			}
			d.fails.Store(nil)
			d.until(func(i dianemo.LoadInfo) bool { return i.Err == nil && i.Known && i.Hot })
			require.NoError(t, peer.Stop())
		})
	}
}

// One that is always late is used, and complained of once.
func TestASlowSourceOfLoadIsUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDial(t, 0, 0)
		load, hooks := d.config(dianemo.LoadConfig{})
		var mu sync.Mutex
		warned := 0
		answer := make(chan dianemo.Load)
		slow := func(context.Context) (dianemo.Load, error) { return <-answer, nil }
		d.fails.Store(&slow)
		suite.Start(t, suite.Embedded(t, 1), dianemo.Config{Load: load, Hooks: hooks,
			Logger: slog.New(warnings{slog.DiscardHandler, "the load is not known", &mu, &warned})}, func(*dianemo.Peer) {})
		for n := range 5 {
			require.ErrorContains(t, d.until(func(i dianemo.LoadInfo) bool { return i.Err != nil }).Err, "has not returned")
			answer <- dianemo.Load{Host: float64(n) / 10}
			require.Equal(t, float64(n)/10, d.until(func(i dianemo.LoadInfo) bool { return i.Err == nil }).Share)
		}
		d.fails.Store(nil)
		close(answer)
		d.until(func(i dianemo.LoadInfo) bool { return i.Err == nil })
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, 1, warned)
	})
}

// The host's own load, whatever it is, and what readers see of it.
func TestTheLoadOfThisHostIsReadAndShown(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	samples := make(chan dianemo.LoadInfo, 10_000)
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: 10, BeatEvery: 100 * time.Millisecond, SilentAfter: time.Hour, Lease: time.Hour, Logger: suite.Quiet,
		Load: dianemo.LoadConfig{Every: time.Second}, Hooks: &dianemo.Hooks{Load: func(i dianemo.LoadInfo) { samples <- i }}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	for range 3 {
		i := suite.Receive(t, samples)
		require.NoError(t, i.Err)
		require.True(t, i.Known)
		require.True(t, i.Share >= 0 && i.Share <= i.Load.Host+i.Load.Throttled && i.Load.Host <= 1, "%+v", i)
	}
	c := suite.Client(t, store)
	require.Eventually(t, func() bool {
		peers, err := c.Peers(t.Context())
		return err == nil && len(peers) == 1 && peers[0].LoadKnown && (peers[0].Available < 10) == (peers[0].Load > 0)
	}, suite.Patience, 5*time.Millisecond)
	cancel()
	require.NoError(t, suite.Receive(t, ended))
}
