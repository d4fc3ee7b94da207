package operating_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/internal/suite"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// Under load, repair finds nothing, and nothing is lost or run twice.
func TestRepairDisturbsNothingThatRuns_Long(t *testing.T) {
	t.Parallel()
	suite.EachInRealTime(t, func(t *testing.T, store dianemo.Store) {
		jobs := sample.Part(t, 2000, 10)
		var mu sync.Mutex
		starts := map[string]int{}
		var done atomic.Int64
		finished := make(chan struct{})
		policy := dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: 100}}, RetryIn: dianemo.Every(0)}
		run := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
			mu.Lock()
			starts[job.ID]++
			again := starts[job.ID]
			mu.Unlock()
			job.Progress(1, 2, "half")
			if job.Args.N%10 == 3 && again == 1 {
				return fmt.Errorf("once")
			}
			if job.Args.N%10 == 5 && again == 1 {
				return dianemo.Snooze(time.Millisecond)
			}
			if int(done.Add(1)) == jobs {
				close(finished)
			}
			return job.SetResult(job.Args.N)
		}
		var repaired atomic.Int64
		hooks := &dianemo.Hooks{Repair: func(i dianemo.RepairInfo) {
			repaired.Add(1)
			t.Errorf("repaired: %v", i.Repaired)
		}}
		kind := dianemo.NewKind[suite.Args]("kind", policy)
		for range 2 {
			suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: time.Minute, Hooks: hooks}, func(p *dianemo.Peer) {
				require.NoError(t, kind.Handle(p, run))
			})
		}
		operator, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: suite.Quiet, Hooks: hooks})
		require.NoError(t, err)
		t.Cleanup(operator.Close)
		var requests []dianemo.Request
		for i := range jobs {
			options := dianemo.Options{Priority: 1 + i%3, Retries: 3}
			if i%7 == 0 {
				options.Weight = 1 + i%5
			}
			requests = append(requests, kind.NewWith(suite.Args{N: i}, options))
		}
		walks := 0
		var under sync.WaitGroup
		stop := make(chan struct{})
		under.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				report, err := operator.Repair(t.Context())
				if err != nil || len(report.Found) > 0 {
					t.Errorf("%v %v", report, err)
					return
				}
				walks++
			}
		})
		c := suite.Client(t, store)
		for len(requests) > 0 {
			_, err := c.EnqueueMany(t.Context(), requests[:100]...)
			require.NoError(t, err)
			requests = requests[100:]
		}
		select {
		case <-finished:
		case <-time.After(time.Minute):
			t.Error("the jobs don't end")
		}
		close(stop)
		under.Wait()
		require.Positive(t, walks)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, starts, jobs)
		require.Zero(t, repaired.Load())
	})
}

// Whatever key is gone or of another type, the rest goes on: jobs of that kind, of other kinds, in other partitions.
func TestWorkGoesOnWhateverKeyBreaks(t *testing.T) {
	t.Parallel()
	partition := []string{"spec", "meta", "result", "errors", "progress", "lanes", "beats", "counts", "info", "lane:kind:2:86400000:0:new",
		"lane:kind:2:86400000:0:again", "done:succeeded:kind", "done:failed:kind", "run:PEER", "call:claim:PEER", "call:settle:PEER",
		"call:reap:PEER", "call:miss:PEER", "call:trim:PEER", "call:repair:PEER"}
	space := []string{"layout", "kinds", "peers", "seen", "leader", "term"}
	on := func(name string, make func(t *testing.T) (dianemo.Store, redis.UniversalClient, string)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, rdb, namespace := make(t)
			var kind, other dianemo.Kind[suite.Args]
			work := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				job.Progress(1, 1, "")
				if job.Args.N == 1 {
					return dianemo.Fail(fmt.Errorf("boom"))
				}
				return job.SetResult(1)
			}
			config := dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Second, SilentAfter: time.Minute}
			peer := suite.Start(t, store, config, func(p *dianemo.Peer) {
				kind = suite.Handle(t, p, "kind", dianemo.Policy{}, work)
				other = suite.Handle(t, p, "other", dianemo.Policy{}, work)
			})
			c := suite.Client(t, store)
			var keys []string
			for _, k := range partition {
				keys = append(keys, fmt.Sprintf("{%s:0}:%s", namespace, strings.ReplaceAll(k, "PEER", peer.ID())))
			}
			for _, k := range space {
				keys = append(keys, fmt.Sprintf("{%s}:%s", namespace, k))
			}
			n := 0
			for _, key := range keys {
				for _, how := range []string{"deleted", "another type"} {
					n++
					if how == "deleted" {
						require.NoError(t, rdb.Del(t.Context(), key).Err())
					} else {
						pipe := rdb.TxPipeline()
						pipe.Del(t.Context(), key)
						pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []string{"x", "x"}})
						_, err := pipe.Exec(t.Context())
						require.NoError(t, err)
					}
					ids := map[string]dianemo.State{}
					for i, k := range []dianemo.Kind[suite.Args]{kind, other, kind} {
						id := fmt.Sprintf("job%d@%d", n, i)
						_, err := k.EnqueueWith(t.Context(), c, suite.Args{N: i / 2}, dianemo.Options{ID: id})
						require.NoError(t, err, "%s %s", how, key)
						ids[id] = dianemo.Succeeded
						if i == 2 {
							ids[id] = dianemo.Failed
						}
					}
					for id, state := range ids {
						require.Eventually(t, func() bool {
							job, err := c.Get(t.Context(), id)
							return err == nil && job.State == state
						}, suite.Patience, 5*time.Millisecond, "%s %s %s", how, key, id)
					}
				}
			}
			report, err := c.Repair(t.Context())
			require.NoError(t, err)
			report, err = c.Repair(t.Context())
			require.NoError(t, err)
			require.Empty(t, report.Found)
			require.NoError(t, peer.Stop())
		})
	}
	on("embedded", func(t *testing.T) (dianemo.Store, redis.UniversalClient, string) {
		s, err := embedded.New(redisstore.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s, s.Client(), "dianemo"
	})
	on("redis", func(t *testing.T) (dianemo.Store, redis.UniversalClient, string) {
		store := suite.Redis(t, suite.Server.Client(t), 1)
		rdb, namespace := suite.Behind(t, store)
		return store, rdb, namespace
	})
}

// The leader walks by itself, a step at a time, and tells what it found.
func TestTheLeaderRepairs_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		repaired := make(chan dianemo.RepairInfo, 100)
		suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Second, Hooks: &dianemo.Hooks{Repair: func(i dianemo.RepairInfo) { repaired <- i }}},
			func(p *dianemo.Peer) { suite.Handle(t, p, "foreign", dianemo.Policy{}, suite.Returns(nil)) })
		c := suite.Client(t, store)
		id := suite.Enqueue(t, c, dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}), dianemo.Options{})
		rdb, namespace := suite.Behind(t, store)
		lane := fmt.Sprintf("{%s:%d}:lane:kind:2:86400000:0:new", namespace, store.Partition(id))
		require.EqualValues(t, 1, rdb.Del(t.Context(), lane).Val())
		info := suite.Receive(t, repaired)
		require.Equal(t, store.Partition(id), info.Partition)
		require.Equal(t, id, info.ID)
		require.Equal(t, dianemo.Queued, suite.Get(t, c, id).State)
	})
}
