package producers_test

import (
	"context"
	"fmt"
	"math"
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
	"github.com/dianemo/dianemo/redisstore"
)

func TestBadInputIsRefusedByNameBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	c := suite.Client(t, store)
	good := dianemo.NewKind[any]("good", dianemo.Policy{})
	request := func(name string, p dianemo.Policy, args any, o dianemo.Options) dianemo.Request {
		return dianemo.NewKind[any](name, p).NewWith(args, o)
	}
	cyclic := map[string]any{}
	cyclic["self"] = cyclic
	for name, row := range map[string]struct {
		request dianemo.Request
		field   string
	}{
		"no kind":            {request("", dianemo.Policy{}, 1, dianemo.Options{}), "kind"},
		"long kind":          {request(strings.Repeat("k", 129), dianemo.Policy{}, 1, dianemo.Options{}), "kind"},
		"kind with brace":    {request("a{b}", dianemo.Policy{}, 1, dianemo.Options{}), "kind"},
		"kind with colon":    {request("a:b", dianemo.Policy{}, 1, dianemo.Options{}), "kind"},
		"kind with newline":  {request("a\nb", dianemo.Policy{}, 1, dianemo.Options{}), "kind"},
		"kind not ASCII":     {request("größe", dianemo.Policy{}, 1, dianemo.Options{}), "kind"},
		"id with space":      {request("k", dianemo.Policy{}, 1, dianemo.Options{ID: "a b"}), "Options.ID"},
		"id with bar":        {request("k", dianemo.Policy{}, 1, dianemo.Options{ID: "a|b"}), "Options.ID"},
		"long id":            {request("k", dianemo.Policy{}, 1, dianemo.Options{ID: strings.Repeat("i", 129)}), "Options.ID"},
		"priority 10":        {request("k", dianemo.Policy{}, 1, dianemo.Options{Priority: 10}), "Options.Priority"},
		"priority -1":        {request("k", dianemo.Policy{Priority: -1}, 1, dianemo.Options{}), "Policy.Priority"},
		"weight -1":          {request("k", dianemo.Policy{}, 1, dianemo.Options{Weight: -1}), "Options.Weight"},
		"weight too large":   {request("k", dianemo.Policy{Weight: dianemo.MaxWeight + 1}, 1, dianemo.Options{}), "Policy.Weight"},
		"grace -2":           {request("k", dianemo.Policy{}, 1, dianemo.Options{Grace: -2}), "Options.Grace"},
		"timeout -1 s":       {request("k", dianemo.Policy{Timeout: -time.Second}, 1, dianemo.Options{}), "Policy.Timeout"},
		"retries -2":         {request("k", dianemo.Policy{}, 1, dianemo.Options{Retries: dianemo.Unlimited}), "Options.Retries"},
		"grace None":         {request("k", dianemo.Policy{Grace: dianemo.None}, 1, dianemo.Options{}), "Policy.Grace"},
		"grace for ever":     {request("k", dianemo.Policy{}, 1, dianemo.Options{Grace: math.MaxInt64}), "Options.Grace"},
		"timeout for ever":   {request("k", dianemo.Policy{}, 1, dianemo.Options{Timeout: math.MaxInt64}), "Options.Timeout"},
		"delay for ever":     {request("k", dianemo.Policy{}, 1, dianemo.Options{Delay: math.MaxInt64}), "Options.Delay"},
		"long ago":           {request("k", dianemo.Policy{}, 1, dianemo.Options{RunAt: time.Unix(-1<<62, 0)}), "Options.RunAt"},
		"reruns 1001":        {request("k", dianemo.Policy{Reruns: 1001}, 1, dianemo.Options{}), "Policy.Reruns"},
		"delay -1 s":         {request("k", dianemo.Policy{}, 1, dianemo.Options{Delay: -time.Second}), "Options.Delay"},
		"delay and time":     {request("k", dianemo.Policy{}, 1, dianemo.Options{Delay: time.Second, RunAt: time.Now()}), "Options.Delay"},
		"before 1970":        {request("k", dianemo.Policy{}, 1, dianemo.Options{RunAt: time.Unix(-1, 0)}), "Options.RunAt"},
		"year 10000":         {request("k", dianemo.Policy{}, 1, dianemo.Options{RunAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}), "Options.RunAt"},
		"channel":            {request("k", dianemo.Policy{}, make(chan int), dianemo.Options{}), "args"},
		"infinity":           {request("k", dianemo.Policy{}, math.Inf(1), dianemo.Options{}), "args"},
		"cycle":              {request("k", dianemo.Policy{}, cyclic, dianemo.Options{}), "args"},
		"payload":            {request("k", dianemo.Policy{}, strings.Repeat("x", dianemo.MaxPayload-1), dianemo.Options{}), "args and headers"},
		"payload by headers": {request("k", dianemo.Policy{}, "", dianemo.Options{Headers: map[string]string{"h": strings.Repeat("x", dianemo.MaxPayload)}}), "args and headers"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			_, err := c.EnqueueMany(t.Context(), good.New(1), row.request)
			var field *dianemo.FieldError
			require.ErrorAs(t, err, &field)
			require.ErrorIs(t, err, dianemo.ErrInvalid)
			require.Equal(t, row.field, field.Field)
			require.NotEmpty(t, field.Allowed)
			require.Less(t, len(err.Error()), 500)
			require.Empty(t, store.Client().Keys(t.Context(), "*").Val(), "something was written")
		})
	}
	_, err := good.Enqueue(t.Context(), c, strings.Repeat("x", dianemo.MaxPayload-2))
	require.NoError(t, err, "the largest payload")
}

func TestTheShortestBeatNeedsNoOtherSettings(t *testing.T) {
	t.Parallel()
	_, err := dianemo.NewPeer(suite.Embedded(t, 1), dianemo.Config{BeatEvery: 25 * time.Millisecond})
	require.NoError(t, err)
}

func TestBadConfigIsRefusedByName(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	for field, config := range map[string]dianemo.Config{
		"Config.Tokens":      {Tokens: -1},
		"Config.Reserve":     {Tokens: 4, Reserve: map[int]int{1: 3, 2: 2}},
		"Config.Reserve[3]":  {Tokens: 4, Reserve: map[int]int{3: -1}},
		"Config.BeatEvery":   {BeatEvery: 24 * time.Millisecond},
		"Config.SilentAfter": {BeatEvery: time.Second, SilentAfter: 3999 * time.Millisecond},
		"Config.Lease":       {Lease: -time.Second},
		"Config.Finish":      {Finish: -1},
		"Config.StuckAfter":  {StuckAfter: -1},
		"Config.Load.Every":  {Load: dianemo.LoadConfig{Every: 9 * time.Millisecond}},
	} {
		_, err := dianemo.NewPeer(store, config)
		var got *dianemo.FieldError
		require.ErrorAs(t, err, &got, field)
		require.Equal(t, field, got.Field)
	}
	_, err := dianemo.NewPeer(store, dianemo.Config{Tokens: 4, Reserve: map[int]int{0: 1}})
	require.ErrorContains(t, err, "priorities 1 to 9")
	var none *redisstore.Store
	for _, store := range []dianemo.Store{nil, none} {
		_, err = dianemo.NewPeer(store, dianemo.Config{})
		require.ErrorIs(t, err, dianemo.ErrInvalid)
		_, err = dianemo.NewClient(store, dianemo.ClientConfig{})
		require.ErrorIs(t, err, dianemo.ErrInvalid)
	}
	for _, options := range []redisstore.Options{{Namespace: "a b"}, {Partitions: -1}, {Partitions: 4097}} {
		_, err = suite.Client(t, redisstore.New(suite.Server.Client(t), options)).Counts(t.Context())
		require.ErrorIs(t, err, dianemo.ErrInvalid)
	}
	_, err = suite.Client(t, redisstore.New(nil, redisstore.Options{})).Counts(t.Context())
	require.ErrorIs(t, err, dianemo.ErrInvalid)

	peer, err := dianemo.NewPeer(store, dianemo.Config{Logger: suite.Quiet})
	require.NoError(t, err)
	kind := suite.Handle(t, peer, "kind", dianemo.Policy{}, suite.Returns(nil))
	require.ErrorContains(t, kind.Handle(peer, suite.Returns(nil)), "one handler for each kind")
	require.ErrorIs(t, kind.Handle(peer, nil), dianemo.ErrInvalid)
	require.ErrorIs(t, dianemo.NewKind[suite.Args]("a b", dianemo.Policy{}).Handle(peer, suite.Returns(nil)), dianemo.ErrInvalid)
	require.ErrorIs(t, dianemo.NewKind[suite.Args]("other", dianemo.Policy{Weight: -3}).Handle(peer, suite.Returns(nil)), dianemo.ErrInvalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, peer.Run(ctx))
	require.ErrorIs(t, peer.Run(ctx), dianemo.ErrRunTwice)
	require.ErrorContains(t, dianemo.NewKind[suite.Args]("late", dianemo.Policy{}).Handle(peer, suite.Returns(nil)), "before Run")
	_, err = kind.Enqueue(t.Context(), peer, suite.Args{})
	require.ErrorIs(t, err, dianemo.ErrClosed)
}

func TestAnIdIsTakenOnce_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		a, b := dianemo.NewKind[suite.Args]("a", dianemo.Policy{}), dianemo.NewKind[string]("b", dianemo.Policy{Priority: 1})
		suite.Enqueue(t, c, a, dianemo.Options{ID: "one"})
		_, err := b.EnqueueWith(t.Context(), c, "x", dianemo.Options{ID: "one"})
		var exists *dianemo.ExistsError
		require.ErrorAs(t, err, &exists)
		require.ErrorIs(t, err, dianemo.ErrExists)
		require.Equal(t, dianemo.ExistsError{ID: "one", State: dianemo.Scheduled}, *exists)

		// Of many, those that are new are accepted, and the answer says which.
		ids, err := c.EnqueueMany(t.Context(), a.NewWith(suite.Args{}, dianemo.Options{ID: "two"}), b.NewWith("", dianemo.Options{ID: "one"}),
			b.New("y"), a.NewWith(suite.Args{}, dianemo.Options{ID: "two"}))
		var batch *dianemo.BatchError
		require.ErrorAs(t, err, &batch)
		require.ErrorIs(t, err, dianemo.ErrExists)
		require.Len(t, ids, 4)
		require.NoError(t, batch.Errs[0])
		require.ErrorIs(t, batch.Errs[1], dianemo.ErrExists)
		require.NoError(t, batch.Errs[2])
		require.ErrorIs(t, batch.Errs[3], dianemo.ErrExists)
		require.Equal(t, "b", suite.Get(t, c, ids[2]).Kind)

		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, a.Handle(p, suite.Returns(nil))) })
		for range 2 {
			peer.Next()
		}
		_, err = a.EnqueueWith(t.Context(), c, suite.Args{}, dianemo.Options{ID: "one"})
		require.ErrorAs(t, err, &exists)
		require.Equal(t, dianemo.Succeeded, exists.State)
	})
}

func TestManyJobsInOneCall_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[string]("kind", dianemo.Policy{})
		var requests []dianemo.Request
		for i := range 1700 {
			requests = append(requests, kind.New(strings.Repeat("x", i)))
		}
		ids, err := c.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		for _, i := range []int{0, 499, 500, 1699} {
			var args string
			require.NoError(t, suite.Get(t, c, ids[i]).DecodeArgs(&args))
			require.Len(t, args, i)
		}
		counts, err := c.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, []dianemo.Count{{State: dianemo.Queued, Kind: "kind", Priority: 2, Jobs: 1700}}, counts)
		ids, err = c.EnqueueMany(t.Context())
		require.NoError(t, err)
		require.Empty(t, ids)
	})
}

// counting counts the scripts that a client sends.
type counting struct{ scripts atomic.Int64 }

func (h *counting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			h.scripts.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (h *counting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestCallersAtTheSameTimeShareRoundTrips(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, suite.Server.Addr())
	rdb := redis.NewClient(&redis.Options{Addr: proxy.Addr()})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	count := &counting{}
	rdb.AddHook(count)
	store := suite.Redis(t, rdb, 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	suite.Enqueue(t, c, kind, dianemo.Options{})
	proxy.Delay(20 * time.Millisecond)
	before := count.scripts.Load()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			_, err := kind.Enqueue(context.Background(), c, suite.Args{})
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.LessOrEqual(t, count.scripts.Load()-before, int64(20))
	counts, err := c.Counts(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 201, counts[0].Jobs)
}

// A loadStore notes how many jobs the calls of an enqueue carry at most, and holds the calls until it is opened.
// It accepts whatever comes and keeps none of it.
type loadStore struct {
	dianemo.Store
	came chan string // the first job's kind
	open chan struct{}
	mu   sync.Mutex
	most int
}

func (s *loadStore) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	s.came <- records[0].Lane.Kind
	<-s.open
	s.mu.Lock()
	s.most = max(s.most, len(records))
	s.mu.Unlock()
	return dianemo.EnqueueReply{Existing: make([]dianemo.State, len(records))}, nil
}

func TestACallCarriesFewerJobsThatCostTheStoreMore(t *testing.T) {
	t.Parallel()
	unique := func(i int) dianemo.Options { return dianemo.Options{Unique: dianemo.Unique{Key: fmt.Sprint(i)}} }
	for name, row := range map[string]struct {
		jobs, kinds int
		options     func(i int) dianemo.Options
		most        int // in a call
	}{
		"of one kind":       {5000, 1, nil, 500},
		"of a kind each":    {500, 500, nil, 100},
		"of 20 kinds":       {5000, 20, nil, 424},
		"with a unique key": {1000, 1, unique, 125},
		"with both":         {500, 500, unique, 63},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := make([]dianemo.Request, row.jobs)
			for i := range requests {
				kind := dianemo.NewKind[suite.Args](fmt.Sprintf("kind-%d", i%row.kinds), dianemo.Policy{})
				requests[i] = kind.New(suite.Args{})
				if row.options != nil {
					requests[i] = kind.NewWith(suite.Args{}, row.options(i))
				}
			}
			of := func(t *testing.T) (*loadStore, *dianemo.Client) {
				s := &loadStore{Store: suite.Embedded(t, 1), came: make(chan string, 6000), open: make(chan struct{})}
				return s, suite.Client(t, s)
			}
			t.Run("in one request", func(t *testing.T) {
				t.Parallel()
				s, c := of(t)
				close(s.open)
				_, err := c.EnqueueMany(t.Context(), requests...)
				require.NoError(t, err)
				require.LessOrEqual(t, s.most, row.most)
			})
			t.Run("of callers at the same time", func(t *testing.T) {
				t.Parallel()
				s, c := of(t)
				// While two calls are under way the others gather.
				first := dianemo.NewKind[suite.Args]("first", dianemo.Policy{})
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() { suite.Enqueue(t, c, first, dianemo.Options{}) })
					require.Equal(t, "first", suite.Receive(t, s.came))
				}
				var begun sync.WaitGroup
				for _, r := range requests {
					begun.Add(1)
					wg.Go(func() {
						begun.Done()
						_, err := c.EnqueueMany(t.Context(), r)
						require.NoError(t, err)
					})
				}
				begun.Wait()
				close(s.open)
				wg.Wait()
				require.LessOrEqual(t, s.most, row.most)
			})
		})
	}
}

// An idle peer waits for its next due time and for wake-ups; it does not poll.
func TestAnIdlePeerSendsNextToNothing(t *testing.T) {
	t.Parallel()
	rdb := suite.Server.Client(t)
	count := &counting{}
	rdb.AddHook(count)
	store := suite.Redis(t, rdb, 1)
	var kind dianemo.Kind[suite.Args]
	peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { kind = suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
	past, namespace := suite.Behind(t, store)
	producer := suite.Client(t, redisstore.New(past, redisstore.Options{Namespace: namespace}))
	suite.Enqueue(t, producer, dianemo.NewKind[suite.Args]("foreign", dianemo.Policy{Priority: 1}), dianemo.Options{})
	suite.Enqueue(t, producer, kind, dianemo.Options{})
	peer.Next()
	before := count.scripts.Load()
	suite.Enqueue(t, producer, kind, dianemo.Options{Delay: 700 * time.Millisecond})
	peer.Next()
	require.LessOrEqual(t, count.scripts.Load()-before, int64(12))
}

func TestEnqueueReturnsWithinItsDeadlineAndSaysWhatIsKnown(t *testing.T) {
	t.Parallel()
	own := redistest.Start(t)
	rdb := redis.NewClient(&redis.Options{Addr: own.Addr(), DisableIdentity: true, ReadTimeout: time.Minute})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	c := suite.Client(t, redisstore.New(rdb, redisstore.Options{}))
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	suite.Enqueue(t, c, kind, dianemo.Options{ID: "first"})

	require.NoError(t, own.Pause())
	within := func(id string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // in which even a busy machine sends it
		defer cancel()
		_, err := kind.EnqueueWith(ctx, c, suite.Args{}, dianemo.Options{ID: id})
		return err
	}
	// Two are sent and not answered; the next waits behind them and is withdrawn.
	for _, id := range []string{"second", "third"} {
		err := within(id)
		require.ErrorIs(t, err, dianemo.ErrUnconfirmed)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	err := within("withdrawn")
	require.NotErrorIs(t, err, dianemo.ErrUnconfirmed)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	require.NoError(t, own.Resume())
	// Whatever became of them: there is one such job each after this.
	for _, id := range []string{"second", "third"} {
		require.Eventually(t, func() bool {
			_, err := kind.EnqueueWith(t.Context(), c, suite.Args{}, dianemo.Options{ID: id})
			return err == nil || strings.Contains(err.Error(), "exists")
		}, suite.Patience, time.Millisecond)
	}
	counts, err := c.Counts(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, counts[0].Jobs)
	_, err = c.Get(t.Context(), "withdrawn")
	require.ErrorIs(t, err, dianemo.ErrNotFound)
}

func TestAClientWaitsForARedisThatIsDown(t *testing.T) {
	t.Parallel()
	hangs := redistest.Start(t)
	require.NoError(t, hangs.Pause())
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	begin := time.Now()
	_, err := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).Enqueue(short, suite.Client(t, redisstore.New(hangs.Client(t), redisstore.Options{})), suite.Args{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 2*time.Second, "the client library would wait for its own time-out")
	require.NoError(t, hangs.Resume())

	own := redistest.Start(t)
	require.NoError(t, own.Kill())
	c := suite.Client(t, redisstore.New(own.Client(t), redisstore.Options{}))
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = kind.Enqueue(ctx, c, suite.Args{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	done := make(chan error, 1)
	go func() {
		_, err := kind.Enqueue(t.Context(), c, suite.Args{})
		done <- err
	}()
	require.NoError(t, own.Restart())
	require.NoError(t, suite.Receive(t, done))
}

func TestAFullRedisRefusesNewJobsAndFinishesTheOthers(t *testing.T) {
	t.Parallel()
	own := redistest.Start(t)
	rdb := own.Client(t)
	store := redisstore.New(rdb, redisstore.Options{})
	c := suite.Client(t, store)
	kind := dianemo.NewKind[string]("kind", dianemo.Policy{})
	var requests []dianemo.Request
	for range 50 {
		requests = append(requests, kind.New("x"))
	}
	_, err := c.EnqueueMany(t.Context(), requests...)
	require.NoError(t, err)
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "1mb").Err())
	_, err = kind.Enqueue(t.Context(), c, "y")
	require.ErrorIs(t, err, dianemo.ErrStoreFull)

	peer := suite.Start(t, store, dianemo.Config{Tokens: 4, BeatEvery: 100 * time.Millisecond}, func(p *dianemo.Peer) {
		require.NoError(t, kind.Handle(p, func(_ context.Context, job *dianemo.Job[string]) error { return job.SetResult("done") }))
	})
	for range 50 {
		require.False(t, peer.Next().Stale)
	}
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
	_, err = kind.Enqueue(t.Context(), c, "y")
	require.NoError(t, err)
	require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
}

func TestTheNamespaceRemembersItsLayout(t *testing.T) {
	t.Parallel()
	rdb := suite.Server.Client(t)
	namespace := suite.Namespace()
	options := redisstore.Options{Namespace: namespace, Partitions: 4}
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	suite.Enqueue(t, suite.Client(t, redisstore.New(rdb, options)), kind, dianemo.Options{ID: "a"})

	other := options
	other.Partitions = 8
	_, err := kind.Enqueue(t.Context(), suite.Client(t, redisstore.New(rdb, other)), suite.Args{})
	var layout *dianemo.LayoutError
	require.ErrorAs(t, err, &layout)
	require.Equal(t, dianemo.LayoutError{Namespace: namespace, Field: "partitions", Stored: 4, Own: 8}, *layout)
	peer, err := dianemo.NewPeer(redisstore.New(rdb, other), dianemo.Config{})
	require.NoError(t, err)
	require.ErrorIs(t, peer.Run(t.Context()), dianemo.ErrLayout)

	// Without a number of its own, a program takes what is recorded.
	other.Partitions = 0
	store := redisstore.New(rdb, other)
	require.Equal(t, dianemo.Queued, suite.Get(t, suite.Client(t, store), "a").State)
	require.Equal(t, 4, store.Partitions())

	for _, field := range []string{"layout", "min_peer"} {
		require.NoError(t, rdb.HSet(t.Context(), "{"+namespace+"}:layout", field, 2).Err())
		_, err = kind.Enqueue(t.Context(), suite.Client(t, redisstore.New(rdb, options)), suite.Args{})
		require.ErrorAs(t, err, &layout)
		require.Equal(t, field, layout.Field)
		require.NoError(t, rdb.HSet(t.Context(), "{"+namespace+"}:layout", field, 1).Err())
	}
}

func TestAPeerStopsWhenTheNamespaceIsNoLongerForIt(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 2)
	var kind dianemo.Kind[suite.Args]
	peer := suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond}, func(p *dianemo.Peer) { kind = suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
	suite.Enqueue(t, peer, kind, dianemo.Options{})
	peer.Next()
	rdb, namespace := suite.Behind(t, store)
	require.EqualValues(t, 0, rdb.HSet(t.Context(), "{"+namespace+"}:layout", "min_peer", 2).Val())
	require.ErrorIs(t, peer.Stopped(), dianemo.ErrLayout)
}

// One node that holds all slots refuses what no cluster would carry out: a
// script or a transaction whose keys are in several slots.
func TestAClusterWorks(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t, "--cluster-enabled", "yes")
	require.NoError(t, node.Client(t).ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{node.Addr()}})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	require.Eventually(t, func() bool { return rdb.Set(t.Context(), "up", 1, 0).Err() == nil }, suite.Patience, 10*time.Millisecond)
	store := redisstore.New(rdb, redisstore.Options{})
	var kind dianemo.Kind[suite.Args]
	peer := suite.Start(t, store, dianemo.Config{BeatEvery: 200 * time.Millisecond}, func(p *dianemo.Peer) {
		kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
			job.Progress(1, 2, "half")
			if job.Attempt == 1 {
				return dianemo.RetryIn(0, suite.ErrBoom)
			}
			return job.SetResult(job.Args.N)
		})
	})
	var requests []dianemo.Request
	for i := range 500 {
		requests = append(requests, kind.New(suite.Args{N: i}))
	}
	ids, err := peer.EnqueueMany(t.Context(), requests...)
	require.NoError(t, err)
	require.Equal(t, 64, store.Partitions())
	for range 2 * len(ids) {
		peer.Next()
	}
	require.Equal(t, "499", string(suite.Get(t, peer, ids[499]).Result))
	counts, err := peer.Counts(t.Context())
	require.NoError(t, err)
	require.Equal(t, []dianemo.Count{{State: dianemo.Succeeded, Kind: "kind", Priority: 2, Jobs: 500}}, counts)
	require.Eventually(t, func() bool { all, err := peer.Peers(t.Context()); return err == nil && len(all) == 1 }, suite.Patience, 10*time.Millisecond)
}

// A claim or a settle of 100 jobs is a handful of commands.
func TestAHundredJobsTakeAHandfulOfCommands(t *testing.T) {
	t.Parallel()
	own := redistest.Start(t)
	rdb := own.Client(t)
	store := redisstore.New(rdb, redisstore.Options{})
	require.NoError(t, store.Open(t.Context()))
	lane := dianemo.Lane{Kind: "kind", Priority: 2, Grace: time.Hour}
	var records []dianemo.Record
	for i := range 100 {
		spec := dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Grace: time.Hour, Args: []byte("1")})
		records = append(records, dianemo.Record{ID: fmt.Sprint(i), Lane: lane, Spec: spec})
	}
	commands := func(do func()) int {
		// A script that the server doesn't know costs a few more.
		require.NoError(t, rdb.ConfigResetStat(t.Context()).Err())
		do()
		n := 0
		for _, line := range strings.Split(rdb.Info(t.Context(), "commandstats").Val(), "\r\n") {
			var name string
			var calls int
			if _, err := fmt.Sscanf(strings.NewReplacer(":", " ", ",", " ").Replace(line), "%s calls=%d", &name, &calls); err == nil {
				n += calls
			}
		}
		require.Greater(t, n, 5)
		return n
	}
	require.LessOrEqual(t, commands(func() {
		_, err := store.Enqueue(t.Context(), 0, dianemo.Call{Caller: "c", Number: 1}, records)
		require.NoError(t, err)
	}), 16)
	var reply dianemo.TurnReply
	claim := dianemo.Claim{Limit: 100, Room: [10]int{100, 100, 100, 100, 100, 100, 100, 100, 100, 100}, Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1}}}
	require.LessOrEqual(t, commands(func() {
		var err error
		reply, err = store.Turn(t.Context(), 0, dianemo.Call{Caller: "p", Number: 1}, nil, claim)
		require.NoError(t, err)
	}), 24)
	require.Len(t, reply.Jobs, 100)
	var settle []dianemo.Settlement
	for _, job := range reply.Jobs {
		settle = append(settle, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Succeed, Result: []byte("1")})
	}
	require.LessOrEqual(t, commands(func() {
		reply, err := store.Turn(t.Context(), 0, dianemo.Call{Caller: "p", Number: 2}, settle, dianemo.Claim{})
		require.NoError(t, err)
		require.Empty(t, reply.Stale)
	}), 20)
}
