package outages_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/internal/suite"
	"github.com/dianemo/dianemo/redisstore"
)

// A leaky is a place in which to look for what is not given back: a store on a
// Redis of its own, over and over used by peers and clients of this process.
type leaky struct {
	t         *testing.T
	server    *redistest.Server
	admin     *redis.Client
	namespace string

	nothing, waited, fails, panics, late, long dianemo.Kind[suite.Args]
	heavy                                      dianemo.Kind[suite.Args] // all tokens
}

const (
	leakyTokens = 1000
	leakyKept   = 100 // jobs of each kind and state
	// leakySilence is not so short that a busy machine makes a peer seem silent.
	leakySilence = 4 * time.Second
)

func newLeaky(t *testing.T) *leaky {
	l := &leaky{t: t, server: redistest.Start(t), namespace: "leaks"}
	l.admin = l.server.Client(t)
	keep := dianemo.Keep{}
	for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Cancelled} {
		keep[state] = dianemo.Retention{Jobs: leakyKept}
	}
	kind := func(name string, policy dianemo.Policy) dianemo.Kind[suite.Args] {
		policy.Keep = keep
		return dianemo.NewKind[suite.Args](name, policy)
	}
	l.nothing = kind("nothing", dianemo.Policy{})
	l.waited = kind("waited", dianemo.Policy{}) // few, so that none is let go of before it was heard of
	l.fails = kind("fails", dianemo.Policy{Retries: dianemo.None})
	l.panics = kind("panics", dianemo.Policy{Retries: dianemo.None})
	l.late = kind("late", dianemo.Policy{Retries: dianemo.None, Timeout: time.Millisecond})
	l.long = kind("long", dianemo.Policy{Retries: dianemo.None})
	l.heavy = kind("heavy", dianemo.Policy{Weight: leakyTokens})
	return l
}

// rounds starts a client of Redis, and a peer and a Client on it, has the peer run so many
// jobs each round and stops it before the next, if lives are wanted. When it returns,
// all that it has started is closed.
func (l *leaky) rounds(n, jobs int, lives bool) {
	rdb := redis.NewClient(&redis.Options{Addr: l.server.Addr(), DisableIdentity: true, PoolSize: 8})
	store := redisstore.New(rdb, redisstore.Options{Namespace: l.namespace, Partitions: 1})
	c, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: suite.Quiet})
	require.NoError(l.t, err)
	var p *leakyPeer
	for i := range n {
		if p == nil {
			p = l.live(store)
		}
		p.round(c, jobs)
		if lives || i == n-1 {
			p.stop()
			p = nil
			l.subscribed(0)
		}
		require.LessOrEqual(l.t, len(l.connections()), 8+1, "connections of the pool, and a subscription")
	}
	c.Close()
	require.NoError(l.t, rdb.Close())
}

type leakyPeer struct {
	*dianemo.Peer
	l       *leaky
	begun   chan string // jobs of the kind long
	settled atomic.Int64
	all     atomic.Int64  // how many are to be
	drained chan struct{} // when they are
	end     context.CancelFunc
	ended   chan error
}

func (l *leaky) live(store dianemo.Store) *leakyPeer {
	p := &leakyPeer{l: l, begun: make(chan string, 100), drained: make(chan struct{}, 1), ended: make(chan error, 1)}
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: leakyTokens, BeatEvery: 500 * time.Millisecond, SilentAfter: leakySilence, Load: dianemo.LoadConfig{Off: true}, Logger: suite.Quiet,
		Hooks: &dianemo.Hooks{Settle: func(dianemo.SettleInfo) {
			if p.settled.Add(1) == p.all.Load() {
				p.drained <- struct{}{}
			}
		}}})
	require.NoError(l.t, err)
	p.Peer = peer
	ends := func(ctx context.Context, _ *dianemo.Job[suite.Args]) error { <-ctx.Done(); return ctx.Err() }
	for _, k := range []struct {
		kind dianemo.Kind[suite.Args]
		fn   func(ctx context.Context, job *dianemo.Job[suite.Args]) error
	}{
		{l.nothing, func(context.Context, *dianemo.Job[suite.Args]) error { return nil }},
		{l.waited, func(context.Context, *dianemo.Job[suite.Args]) error { return nil }},
		{l.heavy, func(context.Context, *dianemo.Job[suite.Args]) error { return nil }},
		{l.fails, func(context.Context, *dianemo.Job[suite.Args]) error { return errors.New("as it is to") }},
		{l.panics, func(context.Context, *dianemo.Job[suite.Args]) error { panic("as it is to") }},
		{l.late, ends},
		{l.long, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			p.begun <- job.ID
			return ends(ctx, job)
		}},
	} {
		require.NoError(l.t, k.kind.Handle(p.Peer, k.fn))
	}
	var ctx context.Context
	ctx, p.end = context.WithCancel(context.Background())
	go func() { p.ended <- p.Run(ctx) }()
	return p
}

func (p *leakyPeer) stop() {
	p.end()
	require.NoError(p.l.t, suite.Receive(p.l.t, p.ended))
}

// round enqueues jobs through the peer and the client at once, most of them in
// batches, waits for some, cancels those that would not end, and at last runs one that
// needs all tokens.
func (p *leakyPeer) round(c *dianemo.Client, jobs int) {
	t, l := p.l.t, p.l
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p.all.Add(int64(jobs) + 2*5)
	var under sync.WaitGroup
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	for _, to := range []dianemo.Enqueuer{p.Peer, c} {
		under.Go(func() {
			batch := make([]dianemo.Request, jobs/2)
			for i := range batch {
				batch[i] = l.nothing.New(suite.Args{N: i})
			}
			for some := range slices.Chunk(batch, 500) {
				_, err := to.EnqueueMany(ctx, some...)
				check(err)
			}
		})
	}
	want := map[dianemo.State]dianemo.Kind[suite.Args]{dianemo.Failed: l.fails, dianemo.Succeeded: l.waited}
	for range 2 {
		for state, kind := range want {
			under.Go(func() {
				id, err := kind.Enqueue(ctx, c, suite.Args{})
				check(err)
				job, err := c.Wait(ctx, id)
				if check(err); err == nil && job.State != state {
					t.Errorf("job of kind %s: %s, not %s", job.Kind, job.State, state)
				}
			})
		}
		for _, kind := range []dianemo.Kind[suite.Args]{l.panics, l.late} {
			under.Go(func() {
				id, err := kind.Enqueue(ctx, p.Peer, suite.Args{})
				check(err)
				_, err = p.Wait(ctx, id)
				check(err)
			})
		}
		under.Go(func() {
			id, err := l.long.Enqueue(ctx, c, suite.Args{})
			check(err)
			gaveUp, stop := context.WithCancel(ctx)
			under.Go(func() { // one who does not wait for the end
				_, err := p.Wait(gaveUp, id)
				check(ignore(err, context.Canceled))
			})
			check(c.Cancel(ctx, suite.Receive(t, p.begun)))
			stop()
			job, err := c.Wait(ctx, id)
			if check(err); err == nil && job.State != dianemo.Cancelled {
				t.Errorf("a cancelled job is %s", job.State)
			}
		})
	}
	under.Wait()
	suite.Receive(t, p.drained)
	p.all.Add(1)
	id, err := l.heavy.Enqueue(ctx, c, suite.Args{})
	require.NoError(t, err)
	job, err := c.Wait(ctx, id)
	require.NoError(t, err, "all tokens are free again")
	require.Equal(t, dianemo.Succeeded, job.State)
	suite.Receive(t, p.drained)
	require.False(t, t.Failed())
}

func ignore(err, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}

// connections are those that others than the test's own client have.
func (l *leaky) connections() []string {
	text, err := l.admin.ClientList(l.t.Context()).Result()
	require.NoError(l.t, err)
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(text), "\n"), func(line string) bool { return strings.Contains(line, "cmd=client|list") })
}

// subscribed waits until so many connections are: Redis hears of the end of one a little later.
func (l *leaky) subscribed(n int) {
	l.t.Helper()
	l.eventually(func() bool {
		here := 0
		for _, line := range l.connections() {
			if !strings.Contains(line, " sub=0 ") {
				here++
			}
		}
		return here == n
	}, func() string { return strings.Join(l.connections(), "\n") })
}

func (l *leaky) eventually(holds func() bool, else_ func() string) {
	l.t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			require.Fail(l.t, "it does not come to rest", else_())
		}
	}
}

// left is what is there when nobody is at work.
type left struct {
	goroutines int
	heap       uint64
	keys       []string         // but those that remember calls, which expire
	sizes      map[string]int64 // of the keys
}

func (l *leaky) left() left {
	l.t.Helper()
	ctx := l.t.Context()
	l.eventually(func() bool { return len(l.connections()) == 0 }, func() string { return strings.Join(l.connections(), "\n") })
	var now left
	l.eventually(func() bool { return len(ours()) == 0 }, func() string { return strings.Join(ours(), "\n\n") })
	now.goroutines = runtime.NumGoroutine()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	now.heap, now.sizes = memory.HeapAlloc, map[string]int64{}
	keys, err := l.admin.Keys(ctx, "*").Result()
	require.NoError(l.t, err)
	for _, key := range keys {
		require.True(l.t, strings.HasPrefix(key, "{"+l.namespace), key)
		kind, err := l.admin.Type(ctx, key).Result()
		require.NoError(l.t, err)
		if kind == "string" && (strings.Contains(key, ":call:") || strings.HasSuffix(key, ":leader")) {
			expires, err := l.admin.PTTL(ctx, key).Result()
			require.NoError(l.t, err)
			require.NotEqual(l.t, time.Duration(-1), expires, "%s never expires", key)
			continue
		}
		now.keys = append(now.keys, key)
		switch kind {
		case "hash":
			now.sizes[key], err = l.admin.HLen(ctx, key).Result()
		case "zset":
			now.sizes[key], err = l.admin.ZCard(ctx, key).Result()
		case "set":
			now.sizes[key], err = l.admin.SCard(ctx, key).Result()
		}
		require.NoError(l.t, err)
	}
	slices.Sort(now.keys)
	return now
}

// ours are the stacks of goroutines in the library or in its client of Redis, but the test's own.
func ours() []string {
	all := make([]byte, 4<<20)
	stacks := strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n")
	return slices.DeleteFunc(stacks, func(stack string) bool {
		return !strings.Contains(stack, "dianemo/dianemo.") && !strings.Contains(stack, "dianemo/redisstore.") && !strings.Contains(stack, "go-redis")
	})
}

const (
	// fewLeft jobs of a kind and state are a little more than are kept, until the next are let go of.
	fewLeft = leakyKept + leakyKept/5
	// manyLeft: what one call settles makes room in what was there before, and is there whole until the next.
	manyLeft = leakyKept + dianemo.MaxCallJobs
)

func (l *leaky) compare(before, after left) {
	require.LessOrEqual(l.t, after.goroutines, before.goroutines, "goroutines")
	require.LessOrEqual(l.t, after.heap, 2*before.heap+8<<20, "heap")
	require.Equal(l.t, before.keys, after.keys)
	for key, size := range after.sizes {
		_, name, _ := strings.Cut(key, ":")
		most := int64(10)
		switch {
		case strings.HasPrefix(name, "0}:done:") && strings.HasSuffix(name, ":nothing"):
			most = manyLeft
		case strings.HasPrefix(name, "0}:done:"):
			most = fewLeft
		case slices.Contains([]string{"0}:spec", "0}:meta", "0}:errors"}, name):
			most = manyLeft + 6*fewLeft // of each kind
		case name == "0}:counts":
			most = 40 // states of kinds
		}
		require.LessOrEqual(l.t, size, most, key)
	}
}

func TestNothingIsLeftOfAHundredThousandJobsAndOfAHundredLivesOfAPeer_Long(t *testing.T) {
	l := newLeaky(t)
	l.rounds(3, 2000, true) // until all that is kept once is there
	before := l.left()
	begin := time.Now()
	l.rounds(sample.Part(t, 10, 10), 8000, false)
	many := l.left()
	l.compare(before, many)
	t.Logf("jobs in one life: %.1f s", time.Since(begin).Seconds())
	begin = time.Now()
	l.rounds(sample.Part(t, 100, 10), 200, true)
	// Those that have gone stand in beats until they are silent for too long; then one that lives on has them go.
	for end := time.Now().Add(time.Minute); ; l.rounds(40, 200, false) {
		standing, err := l.admin.ZCard(t.Context(), "{"+l.namespace+":0}:beats").Result()
		require.NoError(t, err)
		if standing <= 10 {
			break
		}
		require.True(t, time.Now().Before(end), "%d peers stand in beats for ever", standing)
	}
	after := l.left()
	l.compare(before, after)
	t.Logf("jobs in many lives: %.1f s; %d goroutines, heap %d to %d kB, %s", time.Since(begin).Seconds(), after.goroutines, before.heap>>10, after.heap>>10,
		fmt.Sprint(after.sizes))
}
