package dianemo_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

var (
	server     *redistest.Server
	namespaces atomic.Int64
)

func TestMain(m *testing.M) {
	os.Exit(redistest.Main(m, func(s *redistest.Server) { server = s }))
}

// onEach runs a test on the embedded store and on a real Redis, with 1 and 8
// partitions.
func onEach(t *testing.T, test func(t *testing.T, store dianemo.Store)) {
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprintf("embedded/%d", partitions), func(t *testing.T) { test(t, embeddedStore(t, partitions)) })
		t.Run(fmt.Sprintf("redis/%d", partitions), func(t *testing.T) { test(t, redisStore(t, server.Client(t), partitions)) })
	}
}

func embeddedStore(t *testing.T, partitions int) *embedded.Store {
	s, err := embedded.New(redisstore.Options{Partitions: partitions})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// redisStore has a namespace of its own, which no other call returns.
func redisStore(t *testing.T, rdb *redis.Client, partitions int) *redisstore.Store {
	return redisstore.New(rdb, redisstore.Options{Namespace: fmt.Sprintf("test-%d", namespaces.Add(1)), Partitions: partitions})
}

// quiet is for tests in which warnings are expected.
var quiet = slog.New(slog.DiscardHandler)

// A running peer, and what it settled.
type running struct {
	*dianemo.Peer
	t       *testing.T
	cancel  context.CancelFunc
	settled chan dianemo.SettleInfo
	beats   chan dianemo.BeatInfo
	ended   chan error
}

// start makes a peer, lets register give it handlers, and runs it until stop
// or the test's end. BeatEvery is an hour unless set: what a test sees soon, a
// tick did not do. The load is off unless the test has a source of it.
func start(t *testing.T, store dianemo.Store, config dianemo.Config, register func(p *dianemo.Peer)) *running {
	t.Helper()
	r := &running{t: t, settled: make(chan dianemo.SettleInfo, 10000), beats: make(chan dianemo.BeatInfo, 10000), ended: make(chan error, 1)}
	if config.BeatEvery == 0 {
		config.BeatEvery = time.Hour
	}
	if config.Logger == nil {
		config.Logger = quiet
	}
	config.Load.Off = config.Load.Source == nil
	hooks := dianemo.Hooks{}
	if config.Hooks != nil {
		hooks = *config.Hooks
	}
	hooks.Settle = func(i dianemo.SettleInfo) { r.settled <- i }
	hooks.Beat = func(i dianemo.BeatInfo) { r.beats <- i }
	config.Hooks = &hooks
	p, err := dianemo.NewPeer(store, config)
	require.NoError(t, err)
	register(p)
	r.Peer = p
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- p.Run(ctx) }()
	t.Cleanup(func() { cancel(); r.wait() })
	return r
}

// stop ends the peer and returns what Run returned.
func (r *running) stop() error {
	r.cancel()
	return r.wait()
}

func (r *running) wait() error {
	r.t.Helper()
	err := receive(r.t, r.ended)
	r.ended <- err // for the next who asks
	return err
}

// next is the next run to be settled.
func (r *running) next() dianemo.SettleInfo {
	r.t.Helper()
	return receive(r.t, r.settled)
}

// receive fails the test when nothing comes for long.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came for 20 s")
		panic("unreachable")
	}
}

func client(t *testing.T, store dianemo.Store) *dianemo.Client {
	c, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func get(t *testing.T, c interface {
	Get(context.Context, string) (*dianemo.JobInfo, error)
}, id string) *dianemo.JobInfo {
	t.Helper()
	job, err := c.Get(t.Context(), id)
	require.NoError(t, err)
	return job
}

type Args struct{ N int }

// handle registers a handler for a kind of that name.
func handle(t *testing.T, p *dianemo.Peer, name string, policy dianemo.Policy, fn func(ctx context.Context, job *dianemo.Job[Args]) error) dianemo.Kind[Args] {
	t.Helper()
	kind := dianemo.NewKind[Args](name, policy)
	require.NoError(t, kind.Handle(p, fn))
	return kind
}

func enqueue(t *testing.T, to dianemo.Enqueuer, kind dianemo.Kind[Args], options dianemo.Options) string {
	t.Helper()
	id, err := kind.EnqueueWith(t.Context(), to, Args{}, options)
	require.NoError(t, err)
	return id
}
