package operating_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

type sweepFunc func(context.Context, dianemo.Filter) (dianemo.Sweep, error)

// toTheEnd calls until nothing is left, and returns the sums and how many calls it took.
func toTheEnd(t *testing.T, sweep sweepFunc, filter dianemo.Filter, between func(dianemo.Sweep)) (sum dianemo.Sweep, calls int) {
	t.Helper()
	for more := true; more; more = filter.After != "" {
		one, err := sweep(t.Context(), filter)
		require.NoError(t, err)
		if filter.Limit > 0 {
			require.LessOrEqual(t, one.Done+one.Refused, filter.Limit)
		}
		sum.Done, sum.Refused, filter.After = sum.Done+one.Done, sum.Refused+one.Refused, one.Next
		if calls++; between != nil {
			between(one)
		}
		require.Less(t, calls, 100, "it has no end")
	}
	return sum, calls
}

func fill(t *testing.T, c *dianemo.Client, kind dianemo.Kind[suite.Args], n int, options dianemo.Options) []string {
	t.Helper()
	var requests []dianemo.Request
	for range n {
		requests = append(requests, kind.NewWith(suite.Args{}, options))
	}
	ids, err := c.EnqueueMany(t.Context(), requests...)
	require.NoError(t, err)
	return ids
}

// tallies are the jobs by kind and state.
func tallies(t *testing.T, c *dianemo.Client) map[string]int64 {
	t.Helper()
	counts, err := c.Counts(t.Context())
	require.NoError(t, err)
	sums := map[string]int64{}
	for _, count := range counts {
		sums[count.Kind+" "+string(count.State)] += count.Jobs
	}
	return sums
}

func TestAllThatMatchAreCancelledAndRequeuedOverSeveralCalls_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		apple, pear := dianemo.NewKind[suite.Args]("apple", dianemo.Policy{}), dianemo.NewKind[suite.Args]("pear", dianemo.Policy{})
		fill(t, c, apple, 15, dianemo.Options{})
		fill(t, c, apple, 10, dianemo.Options{Delay: time.Hour, Priority: 1})
		fill(t, c, pear, 5, dianemo.Options{})
		require.Equal(t, map[string]int64{"apple queued": 15, "apple scheduled": 10, "pear queued": 5}, tallies(t, c))

		apples := dianemo.Filter{Kinds: []string{"apple"}, Limit: 10}
		sum, calls := toTheEnd(t, c.CancelAll, apples, nil)
		require.Equal(t, dianemo.Sweep{Done: 25}, sum)
		require.InDelta(t, 3, calls, 1)
		require.Equal(t, map[string]int64{"apple cancelled": 25, "pear queued": 5}, tallies(t, c))
		sum, _ = toTheEnd(t, c.CancelAll, apples, nil)
		require.Zero(t, sum, "once more changes nothing")

		apples.Newest, apples.Limit = true, 7
		sum, calls = toTheEnd(t, c.RequeueAll, apples, nil)
		require.Equal(t, dianemo.Sweep{Done: 25}, sum)
		require.InDelta(t, 4, calls, 1)
		require.Equal(t, map[string]int64{"apple queued": 25, "pear queued": 5}, tallies(t, c))

		sum, calls = toTheEnd(t, c.CancelAll, dianemo.Filter{Priority: 1}, nil)
		require.Equal(t, dianemo.Sweep{Done: 10}, sum)
		require.Equal(t, 1, calls)
	})
}

// What has succeeded is requeued only if someone says so; of what has not ended,
// what runs is cancelled too.
func TestWithoutStatesASweepTakesWhatWantsIt_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		var good, bad, long dianemo.Kind[suite.Args]
		begun, causes := make(chan string, 10), make(chan error, 10)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			good = suite.Handle(t, p, "good", dianemo.Policy{}, suite.Returns(nil))
			bad = suite.Handle(t, p, "bad", dianemo.Policy{Retries: 1, RetryIn: dianemo.Every(time.Hour)}, suite.Returns(suite.ErrBoom))
			long = suite.Handle(t, p, "long", dianemo.Policy{}, untilCancelled(begun, causes, suite.ErrBoom))
		})
		succeeded := fill(t, c, good, 3, dianemo.Options{})
		fill(t, c, bad, 3, dianemo.Options{Retries: dianemo.None})
		fill(t, c, bad, 3, dianemo.Options{})
		for range 9 {
			peer.Next()
		}
		fill(t, c, long, 2, dianemo.Options{})
		suite.Receive(t, begun)
		suite.Receive(t, begun)
		require.Equal(t, map[string]int64{"good succeeded": 3, "bad failed": 3, "bad retrying": 3, "long running": 2}, tallies(t, c))

		sum, _ := toTheEnd(t, c.RequeueAll, dianemo.Filter{}, nil)
		require.Equal(t, dianemo.Sweep{Done: 3}, sum)
		for range 3 {
			require.Equal(t, "bad", peer.Next().Kind)
		}
		sum, _ = toTheEnd(t, c.RequeueAll, dianemo.Filter{States: []dianemo.State{dianemo.Succeeded}}, nil)
		require.Equal(t, dianemo.Sweep{Done: 3}, sum)
		for range 3 {
			settled := peer.Next()
			require.Contains(t, succeeded, settled.ID)
		}
		sum, _ = toTheEnd(t, c.CancelAll, dianemo.Filter{States: []dianemo.State{dianemo.Queued, dianemo.Scheduled}}, nil)
		require.Zero(t, sum)
		sum, _ = toTheEnd(t, c.CancelAll, dianemo.Filter{}, nil)
		require.Equal(t, dianemo.Sweep{Done: 5}, sum)
		for range 2 {
			require.ErrorIs(t, suite.Receive(t, causes), dianemo.ErrCancelled)
			require.Equal(t, dianemo.Cancelled, peer.Next().State)
		}
		require.Equal(t, map[string]int64{"good succeeded": 3, "bad failed": 3, "bad cancelled": 3, "long cancelled": 2}, tallies(t, c))
	})
}

func TestAJobThatFailsAgainIsRequeuedOnceByASweep_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: dianemo.None}, suite.Returns(suite.ErrBoom))
		})
		ids := fill(t, peer.Client, kind, 30, dianemo.Options{})
		for range ids {
			peer.Next()
		}
		runs := 1
		for name, filter := range map[string]dianemo.Filter{"as it is": {}, "to a time to come": {To: time.Now().Add(time.Hour)}, "newest first": {Newest: true}} {
			filter.Limit = 4
			sum, _ := toTheEnd(t, peer.RequeueAll, filter, func(one dianemo.Sweep) {
				for range one.Done {
					require.Equal(t, dianemo.Failed, peer.Next().State)
				}
			})
			require.Equal(t, dianemo.Sweep{Done: 30}, sum, name)
			runs++
			for _, id := range ids {
				require.Equal(t, runs, suite.Get(t, peer, id).Runs, name)
			}
		}
	})
}

// A sweptStore lets the test act once a page has been listed, and before the edge is asked for.
type sweptStore struct {
	dianemo.Store
	listed func(page dianemo.ListReply)
	lists  int
}

func (s *sweptStore) List(ctx context.Context, listing dianemo.Listing) (dianemo.ListReply, error) {
	s.lists++
	reply, err := s.Store.List(ctx, listing)
	if err == nil && s.listed != nil {
		s.listed(reply)
	}
	return reply, err
}

func TestWhatMovedOnSinceItWasListedIsCountedAsRefused_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		other := suite.Client(t, store)
		swept := &sweptStore{Store: store}
		told := map[string]error{}
		hear := func(i dianemo.WishInfo) { told[i.ID] = i.Err }
		c, err := dianemo.NewClient(swept, dianemo.ClientConfig{Logger: suite.Quiet, Hooks: &dianemo.Hooks{Cancel: hear, Requeue: hear}})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		ids := fill(t, c, kind, 8, dianemo.Options{})
		unique := dianemo.Options{Unique: dianemo.Unique{Key: "key"}}
		holder := suite.Enqueue(t, c, kind, unique)

		// Three are run before they can be cancelled.
		var peer *suite.Running
		var ran []string
		once := func(act func()) func(dianemo.ListReply) {
			return func(dianemo.ListReply) {
				swept.listed = nil
				act()
			}
		}
		swept.listed = once(func() {
			for _, id := range ids[3:] {
				require.NoError(t, other.Reschedule(t.Context(), id, dianemo.Change{RunAt: time.Now().Add(time.Hour)}))
			}
			require.NoError(t, other.Cancel(t.Context(), holder))
			peer = suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
			for range 3 {
				ran = append(ran, peer.Next().ID)
			}
			require.NoError(t, peer.Stop())
		})
		sum, err := c.CancelAll(t.Context(), dianemo.Filter{})
		require.NoError(t, err)
		require.Equal(t, dianemo.Sweep{Done: 6, Refused: 3}, sum, "one was cancelled already")
		require.ElementsMatch(t, ids[:3], ran)
		for id, err := range told {
			require.Equal(t, slices.Contains(ran, id), errors.Is(err, dianemo.ErrState), err)
		}

		// One is requeued by someone else, and another one's unique key is taken.
		clear(told)
		swept.listed = once(func() {
			require.NoError(t, other.Requeue(t.Context(), ids[4]))
			suite.Enqueue(t, other, kind, unique)
		})
		sum, err = c.RequeueAll(t.Context(), dianemo.Filter{})
		require.NoError(t, err)
		require.Equal(t, dianemo.Sweep{Done: 4, Refused: 2}, sum)
		require.ErrorIs(t, told[ids[4]], dianemo.ErrState)
		require.ErrorIs(t, told[holder], dianemo.ErrExists)
	})
}

// While its pages are read, jobs come and go: those that stay are each treated once.
func TestASweepGoesOnWhileItsListChanges_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		c := suite.Client(t, store)
		due := time.Now().Add(time.Hour)
		stay := map[string]int{}
		var leave []string
		for i := range 20 {
			stay[suite.Enqueue(t, c, kind, dianemo.Options{RunAt: due.Add(time.Duration(i) * time.Second)})] = 0
			leave = append(leave, suite.Enqueue(t, c, kind, dianemo.Options{RunAt: due.Add(time.Duration(i) * time.Second)}))
		}
		hooked, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: suite.Quiet, Hooks: &dianemo.Hooks{Cancel: func(i dianemo.WishInfo) {
			if _, ok := stay[i.ID]; ok {
				stay[i.ID]++
			}
		}}})
		require.NoError(t, err)
		t.Cleanup(hooked.Close)
		toTheEnd(t, hooked.CancelAll, dianemo.Filter{Limit: 3}, func(dianemo.Sweep) {
			suite.Enqueue(t, c, kind, dianemo.Options{RunAt: due.Add(-time.Minute)}) // behind it
			if len(leave) > 0 {
				last := leave[len(leave)-1]
				leave = leave[:len(leave)-1]
				require.NoError(t, c.Cancel(t.Context(), last))
			}
		})
		for id, times := range stay {
			require.Equal(t, 1, times)
			require.Equal(t, dianemo.Cancelled, suite.Get(t, c, id).State)
		}
	})
}

func TestASweepTreatsNoMoreThanMaxSweepInOneCall(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 2)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	fill(t, c, kind, dianemo.MaxSweep+50, dianemo.Options{Delay: time.Hour})
	sum, err := c.CancelAll(t.Context(), dianemo.Filter{})
	require.NoError(t, err)
	require.Equal(t, dianemo.MaxSweep, sum.Done)
	require.NotEmpty(t, sum.Next)
	sum, err = c.CancelAll(t.Context(), dianemo.Filter{After: sum.Next})
	require.NoError(t, err)
	require.Equal(t, dianemo.Sweep{Done: 50}, sum)
	rdb, namespace := suite.Behind(t, store)
	keys, err := rdb.Keys(t.Context(), "{"+namespace+":*}:call:cancel:*").Result()
	require.NoError(t, err)
	require.LessOrEqual(t, len(keys), 4, "one answer is kept for each call and partition, not for each page")
}

// An emptyStore lists nothing, and says that there is more.
type emptyStore struct {
	dianemo.Store
	lists int
}

func (s *emptyStore) List(context.Context, dianemo.Listing) (dianemo.ListReply, error) {
	s.lists++
	return dianemo.ListReply{Next: dianemo.Place{Time: time.UnixMicro(int64(s.lists)), ID: "job"}, Now: time.Now()}, nil
}

func TestASweepThatFindsNothingLooksAtABoundedNumberOfPages(t *testing.T) {
	t.Parallel()
	store := &emptyStore{Store: suite.Embedded(t, 1)}
	c := suite.Client(t, store)
	for _, sweep := range []sweepFunc{c.RequeueAll, c.CancelAll} {
		store.lists = 0
		sum, err := sweep(t.Context(), dianemo.Filter{})
		require.NoError(t, err)
		require.Equal(t, 50, store.lists)
		require.NotEmpty(t, sum.Next)
		require.Zero(t, sum.Done+sum.Refused)
	}
}

func TestASweepThatIsCutShortGoesOnWhereItWas_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		swept := &sweptStore{Store: store}
		c := suite.Client(t, swept)
		ids := fill(t, c, kind, dianemo.MaxList+200, dianemo.Options{})
		require.NoError(t, c.Cancel(t.Context(), ids...))

		// cutAfter makes a sweep whose context ends with that list.
		cutAfter := func(lists int) (dianemo.Sweep, error) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			swept.lists = 0
			swept.listed = func(dianemo.ListReply) {
				if swept.lists == lists {
					cancel()
				}
			}
			return c.RequeueAll(ctx, dianemo.Filter{})
		}
		first, err := cutAfter(2)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, dianemo.MaxList, first.Done)
		require.Zero(t, first.Refused)
		rest, err := c.RequeueAll(t.Context(), dianemo.Filter{After: first.Next})
		require.NoError(t, err)
		require.Equal(t, dianemo.Sweep{Done: 200}, rest)

		// So it does from its very beginning.
		require.NoError(t, c.Cancel(t.Context(), ids[:3]...))
		first, err = cutAfter(1)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, first.Done)
		require.NotEmpty(t, first.Next, "the time to which it is bounded")
		rest, err = c.RequeueAll(t.Context(), dianemo.Filter{After: first.Next})
		require.NoError(t, err)
		require.Equal(t, dianemo.Sweep{Done: 3}, rest)
	})
}

func TestAWrongSweepIsRefusedByNameAndChangesNothing(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	ids := fill(t, c, kind, 4, dianemo.Options{})
	require.NoError(t, c.Cancel(t.Context(), ids[:2]...))
	list, err := c.List(t.Context(), dianemo.Filter{Limit: 1})
	require.NoError(t, err)
	requeue, err := c.RequeueAll(t.Context(), dianemo.Filter{Limit: 1})
	require.NoError(t, err)
	cancel, err := c.CancelAll(t.Context(), dianemo.Filter{Limit: 1})
	require.NoError(t, err)
	require.NotEmpty(t, requeue.Next)
	require.NotEmpty(t, cancel.Next)
	before := tallies(t, c)
	now := time.Now()

	both := map[string][]dianemo.Filter{
		"Filter.States":   {{States: []dianemo.State{"lost"}}, {States: []dianemo.State{""}}, {States: []dianemo.State{dianemo.Unreadable}}},
		"Filter.Kinds":    {{Kinds: []string{"a:b"}}},
		"Filter.Priority": {{Priority: 10}},
		"Filter.To":       {{From: now, To: now}},
		"Filter.Limit":    {{Limit: -1}, {Limit: dianemo.MaxSweep + 1}},
		"Filter.After": {{After: "x"}, {After: list.Next}, {After: requeue.Next + "A"}, {After: requeue.Next[1:]}, {After: cancel.Next[:9]},
			{After: base64.RawURLEncoding.EncodeToString([]byte("s"))}},
	}
	refused := func(sweep sweepFunc, field string, filter dianemo.Filter) {
		t.Helper()
		sum, err := sweep(t.Context(), filter)
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, "%+v", filter)
		require.Equal(t, field, wrong.Field)
		require.Zero(t, sum)
	}
	for field, filters := range both {
		for _, filter := range filters {
			refused(c.RequeueAll, field, filter)
			refused(c.CancelAll, field, filter)
		}
	}
	waiting := []dianemo.State{dianemo.Blocked, dianemo.Scheduled, dianemo.Queued, dianemo.Retrying, dianemo.Running}
	ended := []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped}
	for _, s := range waiting {
		refused(c.RequeueAll, "Filter.States", dianemo.Filter{States: []dianemo.State{dianemo.Failed, s}})
	}
	for _, s := range ended {
		refused(c.CancelAll, "Filter.States", dianemo.Filter{States: []dianemo.State{dianemo.Queued, s}})
	}
	refused(c.RequeueAll, "Filter.After", dianemo.Filter{After: cancel.Next})
	refused(c.CancelAll, "Filter.After", dianemo.Filter{After: requeue.Next})
	require.Equal(t, before, tallies(t, c))
	for i := range []byte(requeue.Next) {
		changed := []byte(requeue.Next)
		changed[i] ^= 1
		if _, err := base64.RawURLEncoding.DecodeString(string(changed)); err == nil {
			refused(c.RequeueAll, "Filter.After", dianemo.Filter{After: string(changed)})
		}
	}

	for _, states := range [][]dianemo.State{waiting, nil} {
		_, err = c.CancelAll(t.Context(), dianemo.Filter{States: states})
		require.NoError(t, err)
	}
	_, err = c.RequeueAll(t.Context(), dianemo.Filter{States: ended})
	require.NoError(t, err)
	c.Close()
	_, err = c.RequeueAll(t.Context(), dianemo.Filter{})
	require.ErrorIs(t, err, dianemo.ErrClosed)
}
