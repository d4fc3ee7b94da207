package suite

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// Server is the Redis that the tests of a package share. Each store on it has a
// namespace of its own. A test that changes or breaks the server starts another one.
var Server *redistest.Server

// Main is for a package's TestMain.
func Main(m *testing.M) int {
	return redistest.Main(m, func(s *redistest.Server) { Server = s })
}

// Each runs a test on the embedded store, in a bubble of virtual time, and on a
// real Redis, with 1 and 8 partitions, all at the same time. In the short form
// one of the two has 1 partition and the other 8.
func Each(t *testing.T, test func(t *testing.T, store dianemo.Store)) {
	run(t, test, virtual, onRedis)
}

// EachOnTime is for tests that wait for real seconds, or hold what happens to its
// time: in the short form it runs them in virtual time alone.
func EachOnTime(t *testing.T, test func(t *testing.T, store dianemo.Store)) {
	if sample.Long(t) {
		run(t, test, virtual, onRedis)
	} else {
		run(t, test, virtual)
	}
}

// EachInRealTime is Each without a bubble, in which time stands still for as long
// as anything runs: for tests that keep their peers busy.
func EachInRealTime(t *testing.T, test func(t *testing.T, store dianemo.Store)) {
	run(t, test, onEmbedded, onRedis)
}

// A place runs a test on a store with so many partitions.
type place struct {
	name string
	run  func(t *testing.T, partitions int, test func(t *testing.T, store dianemo.Store))
}

var (
	onEmbedded = place{"embedded", func(t *testing.T, partitions int, test func(t *testing.T, store dianemo.Store)) {
		test(t, Embedded(t, partitions))
	}}
	virtual = place{"embedded", func(t *testing.T, partitions int, test func(t *testing.T, store dianemo.Store)) {
		synctest.Test(t, func(t *testing.T) { test(t, Embedded(t, partitions)) })
	}}
	onRedis = place{"redis", func(t *testing.T, partitions int, test func(t *testing.T, store dianemo.Store)) {
		test(t, Redis(t, Server.Client(t), partitions))
	}}
)

func run(t *testing.T, test func(t *testing.T, store dianemo.Store), places ...place) {
	order := sample.Rand(t).Perm(2)
	for i, p := range places {
		for n, partitions := range []int{1, 8} {
			if n != order[i] && !sample.Long(t) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", p.name, partitions), func(t *testing.T) {
				t.Parallel()
				p.run(t, partitions, test)
			})
		}
	}
}

// RunVirtual runs a sub-test in parallel, in a bubble of virtual time.
func RunVirtual(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	})
}

// Embedded is closed when the test ends.
func Embedded(t *testing.T, partitions int) *embedded.Store {
	s, err := embedded.New(redisstore.Options{Partitions: partitions})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

var (
	namespaces atomic.Int64
	spaces     sync.Map // of each store on a real Redis: its namespace
)

// Redis has a namespace of its own, which no other call returns.
func Redis(t *testing.T, rdb redis.UniversalClient, partitions int) *redisstore.Store {
	namespace := Namespace()
	store := redisstore.New(rdb, redisstore.Options{Namespace: namespace, Partitions: partitions})
	spaces.Store(store, namespace)
	t.Cleanup(func() { spaces.Delete(store) })
	return store
}

// Namespace is one that no other call returns.
func Namespace() string { return fmt.Sprintf("test-%d", namespaces.Add(1)) }

// Behind is a client that goes past the store, and the store's namespace.
func Behind(t *testing.T, store dianemo.Store) (redis.UniversalClient, string) {
	t.Helper()
	if s, ok := store.(*embedded.Store); ok {
		return s.Client(), "dianemo"
	}
	namespace, ok := spaces.Load(store)
	require.True(t, ok, "not a store of Redis or Embedded")
	return Server.Client(t), namespace.(string)
}

// A DeafStore hears of nothing that is said but that there may be work.
type DeafStore struct{ dianemo.Store }

func (s DeafStore) Listen(ctx context.Context, peer string, heard func(dianemo.Message)) error {
	return s.Store.Listen(ctx, peer, func(m dianemo.Message) {
		for p := range s.Partitions() {
			if m.Word == "" || m.Word == dianemo.Look && m.Partition == p {
				heard(dianemo.Message{Word: dianemo.Look, Partition: p})
			}
		}
	})
}

// NewerSchedules makes n schedules that are due and that only a newer version can
// read, so that they stay due.
func NewerSchedules(t *testing.T, store dianemo.Store, n int) {
	t.Helper()
	require.NoError(t, store.Open(t.Context()))
	for i := range n {
		name := fmt.Sprintf("s@%d", i) // in the partition of s
		_, err := store.SetSchedule(t.Context(), store.Partition(name), dianemo.Call{Caller: "newer", Number: uint64(i + 1)}, dianemo.ScheduleWish{
			Name: name, What: dianemo.PutIt, Definition: []byte(`{"v":2,"rule":"lunar"}`), Cursor: time.UnixMilli(1), Next: time.UnixMilli(int64(i + 2))})
		require.NoError(t, err)
	}
}
