package producers_test

import (
	"context"
	"errors"
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
	"github.com/dianemo/dianemo/internal/suite"
)

// A clockStore has jobs that end at set times, and counts what it is asked.
type clockStore struct {
	dianemo.Store
	mu    sync.Mutex
	ends  map[string]time.Time
	calls int
	most  int   // ids in one call
	err   error // instead of an answer
}

func (s *clockStore) Open(context.Context) error { return nil }
func (s *clockStore) Partitions() int            { return 1 }
func (s *clockStore) Partition(string) int       { return 0 }

func (s *clockStore) Standings(_ context.Context, ids []string) ([]dianemo.Standing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.most = max(s.most, len(ids))
	if s.err != nil {
		return nil, s.err
	}
	states := make([]dianemo.Standing, len(ids))
	for i, id := range ids {
		if end, ok := s.ends[id]; ok {
			states[i].State = dianemo.Running
			if !time.Now().Before(end) {
				states[i].State = dianemo.Succeeded
			}
		}
	}
	return states, nil
}

func (s *clockStore) Get(_ context.Context, id string) (*dianemo.StoredJob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.ends[id]; !ok {
		return nil, fmt.Errorf("%w: %q", dianemo.ErrNotFound, id)
	}
	return &dianemo.StoredJob{Info: dianemo.JobInfo{ID: id, State: dianemo.Succeeded}}, nil
}

// set changes it while it is asked.
func (s *clockStore) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *clockStore) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func clockClient(t *testing.T, s *clockStore) *dianemo.Client {
	c, err := dianemo.NewClient(s, dianemo.ClientConfig{Logger: suite.Quiet})
	require.NoError(t, err)
	return c
}

func TestTheNewsOfAnEndComesWithinAnEighthOfTheTimeItTook(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{0, time.Microsecond, 7 * time.Millisecond, 41 * time.Millisecond, time.Second, 7 * time.Second, 333 * time.Second, time.Hour} {
		t.Run(took.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &clockStore{ends: map[string]time.Time{"job": time.Now().Add(took)}}
				c := clockClient(t, store)
				defer c.Close()
				begin := time.Now()
				job, err := c.Wait(t.Context(), "job")
				require.NoError(t, err)
				require.Equal(t, "job", job.ID)
				late := time.Since(begin) - took
				require.GreaterOrEqual(t, late, time.Duration(0))
				require.LessOrEqual(t, late, min(max(took/8, 5*time.Millisecond), 500*time.Millisecond))
				require.LessOrEqual(t, store.asked(), 60+int(took/(300*time.Millisecond)))
			})
		})
	}
}

// A thousand waits that began one after another ask together, not a thousand
// times as often as one.
func TestWaitsAskTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &clockStore{ends: map[string]time.Time{}}
		const n = 1000
		for i := range n {
			store.ends[fmt.Sprint(i)] = time.Now().Add(time.Minute)
		}
		c := clockClient(t, store)
		defer c.Close()
		var waits sync.WaitGroup
		for i := range n {
			waits.Go(func() {
				time.Sleep(time.Duration(max(i-600, 0)) * time.Millisecond) // of the bubble's clock
				if _, err := c.Wait(context.Background(), fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		before := store.asked()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, store.asked()-before, 120, "in 10 s, of which each wait asks 20 times or a little more")
		require.GreaterOrEqual(t, store.asked()-before, 40, "two calls carry a thousand")
		waits.Wait()
		store.set(func() { require.Equal(t, dianemo.MaxCallJobs, store.most) })
		require.LessOrEqual(t, time.Since(store.ends["0"]), 500*time.Millisecond)
	})
}

func TestAWaitEndsWithItsContextOrItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		store := &clockStore{ends: map[string]time.Time{"job": time.Now().Add(time.Hour)}}
		c := clockClient(t, store)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := c.Wait(ctx, "job")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, away)

		ended, end := context.WithCancel(context.Background())
		end()
		begin := time.Now()
		_, err = c.Wait(ended, "job")
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, begin, time.Now())

		store.set(func() { store.err = away })
		ctx, cancel = context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = c.Wait(ctx, "job")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, away, "and why it was not known")
		store.set(func() { store.err = nil })

		_, err = c.Wait(context.Background(), "nobody")
		require.ErrorIs(t, err, dianemo.ErrNotFound)
		_, err = c.Wait(context.Background(), "no:name")
		require.ErrorIs(t, err, dianemo.ErrInvalid)

		// What retention removes meanwhile is not there either.
		removed := make(chan error, 1)
		go func() { _, err := c.Wait(context.Background(), "job"); removed <- err }()
		time.Sleep(time.Second)
		synctest.Wait()
		store.set(func() { delete(store.ends, "job") })
		require.ErrorIs(t, <-removed, dianemo.ErrNotFound)

		store.set(func() { store.ends["job"] = time.Now().Add(time.Hour) })
		closed := make(chan error, 1)
		go func() { _, err := c.Wait(context.Background(), "job"); closed <- err }()
		time.Sleep(time.Second)
		synctest.Wait()
		c.Close()
		require.ErrorIs(t, <-closed, dianemo.ErrClosed)
		calls := store.asked()
		_, err = c.Wait(context.Background(), "job")
		require.ErrorIs(t, err, dianemo.ErrClosed)
		require.Equal(t, calls, store.asked())
	})
}

func TestManyWaitForTheirJobs_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		open := make(chan struct{})
		peer := suite.Start(t, store, dianemo.Config{Tokens: 50}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: dianemo.None}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				<-open
				if job.Args.N%2 == 0 {
					return suite.ErrBoom
				}
				return job.SetResult(job.Args.N)
			})
		})
		c := suite.Client(t, store)
		requests := make([]dianemo.Request, 150)
		for i := range requests {
			requests[i] = kind.New(suite.Args{N: i})
		}
		ids, err := peer.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		var waits sync.WaitGroup
		var succeeded, failed atomic.Int64
		for i, id := range ids {
			for range 2 {
				waits.Go(func() {
					job, err := c.Wait(t.Context(), id)
					if err != nil {
						t.Errorf("job %s: %v", id, err)
						return
					}
					if job.State == dianemo.Failed && job.LastError() == "boom" {
						failed.Add(1)
					}
					if n, err := dianemo.ResultOf[int](job); err == nil && n == i {
						succeeded.Add(1)
					}
				})
			}
		}
		close(open)
		waits.Wait()
		require.Equal(t, []int64{150, 150}, []int64{succeeded.Load(), failed.Load()})
	})
}

func TestAWaitGoesOnAcrossAnOutage(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, suite.Server.Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr(), DisableIdentity: true})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	through := suite.Redis(t, rdb, 8)
	var away atomic.Bool
	asked := make(chan struct{}, 1000)
	store := &askedStore{Store: through, heard: func(err error) {
		if away.Load() == (err != nil) {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
	}}
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	c := suite.Client(t, store)
	id := suite.Enqueue(t, c, kind, dianemo.Options{})
	got := make(chan *dianemo.JobInfo, 1)
	go func() {
		job, err := c.Wait(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		got <- job
	}()
	suite.Receive(t, asked)
	away.Store(true)
	proxy.Refuse(true)
	for len(asked) > 0 {
		<-asked
	}
	suite.Receive(t, asked) // and was not answered
	require.Empty(t, got)
	proxy.Refuse(false)
	away.Store(false)
	suite.Start(t, through, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
	require.Equal(t, dianemo.Succeeded, suite.Receive(t, got).State)
}

// An askedStore tells how each question for states was answered.
type askedStore struct {
	dianemo.Store
	heard func(error)
}

func (s *askedStore) Standings(ctx context.Context, ids []string) ([]dianemo.Standing, error) {
	standings, err := s.Store.Standings(ctx, ids)
	s.heard(err)
	return standings, err
}
