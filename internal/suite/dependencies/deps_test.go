package dependencies_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/internal/suite"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// byArgs fails where the arguments say so.
func byArgs(_ context.Context, job *dianemo.Job[suite.Args]) error {
	if job.Args.N < 0 {
		return dianemo.Fail(errors.New("as told"))
	}
	return nil
}

func TestAChildStartsWhenItsParentsHaveEnded_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		request := func(id string, n int, parents ...dianemo.Parent) dianemo.Request {
			return kind.NewWith(suite.Args{N: n}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), request("a", 1), request("bad", -1))
		require.NoError(t, err)
		_, err = c.EnqueueMany(t.Context(), request("join", 1, dianemo.After("a", "b")...), request("b", 1, dianemo.After("a")...),
			request("never", 1, dianemo.After("a", "bad")...), request("grandchild", 1, dianemo.After("never")...),
			request("mends", 1, dianemo.AfterFailure("bad")...), request("always", 1, dianemo.AfterEnd("bad", "a", "never")...))
		require.NoError(t, err)
		for _, id := range []string{"join", "b", "never", "grandchild", "mends", "always"} {
			require.Equal(t, dianemo.Blocked, suite.Get(t, c, id).State, id)
		}
		require.Equal(t, dianemo.After("a", "b"), suite.Get(t, c, "join").Parents)
		page, err := c.List(t.Context(), dianemo.Filter{States: []dianemo.State{dianemo.Blocked}})
		require.NoError(t, err)
		require.Len(t, page.Jobs, 6)
		require.EqualValues(t, 6, suite.CountOf(t, c, dianemo.Blocked))
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, byArgs) })
		for id, want := range map[string]dianemo.State{"a": dianemo.Succeeded, "bad": dianemo.Failed, "b": dianemo.Succeeded, "join": dianemo.Succeeded,
			"never": dianemo.Skipped, "grandchild": dianemo.Skipped, "mends": dianemo.Succeeded, "always": dianemo.Succeeded} {
			require.Equal(t, want, suite.Ends(t, c, id), id)
		}
		require.Equal(t, "parent", suite.Get(t, c, "never").Reason)
		// Parents that have ended already.
		_, err = c.EnqueueMany(t.Context(), request("late", 1, dianemo.After("a")...), request("late-skipped", 1, dianemo.After("bad")...))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "late"))
		require.Equal(t, dianemo.Skipped, suite.Ends(t, c, "late-skipped"))
		require.Zero(t, suite.CountOf(t, c, dianemo.Blocked))
	})
}

func TestALongChainEnds_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		n := sample.Part(t, 1000, 10)
		if _, ok := store.(*embedded.Store); ok {
			n = 100 // it sorts all edges for each range
		}
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		var requests []dianemo.Request
		for i := range n {
			o := dianemo.Options{ID: fmt.Sprintf("chain-%d", i)}
			if i > 0 {
				o.Parents = dianemo.After(fmt.Sprintf("chain-%d", i-1))
			}
			requests = append(requests, kind.NewWith(suite.Args{}, o))
		}
		_, err := c.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, fmt.Sprintf("chain-%d", n-1)))
	})
}

func TestAFailedParentThatIsRequeuedAndSucceedsBringsItsChildrenBack_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		failing := make(chan bool, 1)
		failing <- true
		var kind dianemo.Kind[suite.Args]
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				if job.ID == "parent" {
					select {
					case <-failing:
						return dianemo.Fail(errors.New("boom"))
					default:
					}
				}
				return nil
			})
		})
		options := func(id string, parents []dianemo.Parent) dianemo.Request {
			return kind.NewWith(suite.Args{}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), options("parent", nil), options("child", dianemo.After("parent")), options("grandchild", dianemo.After("child")),
			options("mend", dianemo.AfterFailure("parent")), options("cleanup", dianemo.AfterFailure("child")))
		require.NoError(t, err)
		require.Equal(t, dianemo.Skipped, suite.Ends(t, c, "grandchild"))
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "mend"))
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "cleanup"), "to be skipped is not to succeed")
		info := suite.Get(t, c, "child")
		require.Equal(t, dianemo.Skipped, info.State)
		require.Equal(t, "parent", info.Reason)
		require.NoError(t, c.Requeue(t.Context(), "parent"))
		require.Eventually(t, func() bool { return suite.Get(t, c, "grandchild").State == dianemo.Succeeded }, suite.Patience, 5*time.Millisecond)
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, "child").State)
		require.Equal(t, 1, suite.Get(t, c, "mend").Runs)
	})
}

func TestABlockedJobCanBeCancelledAndItsChildrenHearOfIt_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		request := func(id string, parents []dianemo.Parent) dianemo.Request {
			return kind.NewWith(suite.Args{}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), request("a", nil), request("b", dianemo.After("a")), request("c", dianemo.After("b")), request("d", dianemo.AfterEnd("b")))
		require.NoError(t, err)
		require.NoError(t, c.Cancel(t.Context(), "b"))
		require.Equal(t, dianemo.Skipped, suite.Ends(t, c, "c"))
		require.Eventually(t, func() bool { return suite.Get(t, c, "d").State == dianemo.Queued }, suite.Patience, 5*time.Millisecond)
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, byArgs) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "d"))
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "a"))
		require.Equal(t, dianemo.Cancelled, suite.Get(t, c, "b").State)
	})
}

func TestABlockedJobIsMissedWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, partitions := range []int{1, 8} {
			store := suite.Embedded(t, partitions)
			noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
			store.SetTime(noon)
			c := suite.Client(t, store)
			kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Grace: time.Minute})
			foreign := dianemo.NewKind[suite.Args]("foreign", dianemo.Policy{Grace: dianemo.Unlimited})
			child := func(id string, at time.Time, parents []dianemo.Parent) dianemo.Request {
				return kind.NewWith(suite.Args{}, dianemo.Options{ID: id, Parents: parents, RunAt: at})
			}
			_, err := c.EnqueueMany(t.Context(), foreign.NewWith(suite.Args{}, dianemo.Options{ID: "parent"}), child("timed", noon.Add(time.Hour), dianemo.After("parent")),
				child("untimed", time.Time{}, dianemo.After("parent")), child("after", time.Time{}, dianemo.AfterFailure("timed")))
			require.NoError(t, err)
			ran := make(chan dianemo.Job[suite.Args], 10)
			suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{Grace: time.Minute}, suite.Sees(ran)) })
			store.SetTime(noon.Add(time.Hour + time.Minute))
			require.Equal(t, dianemo.Blocked, suite.Get(t, c, "timed").State)
			store.SetTime(noon.Add(time.Hour + time.Minute + time.Second))
			require.Equal(t, "after", suite.Receive(t, ran).ID)
			info := suite.Get(t, c, "timed")
			require.Equal(t, dianemo.Missed, info.State)
			require.Equal(t, "grace", info.Reason)
			require.Equal(t, dianemo.Blocked, suite.Get(t, c, "untimed").State)
		}
	})
}

func TestAParentThatDoesNotExistIsRefusedUnlessItMayBeGone_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		request := func(id string, parents ...dianemo.Parent) dianemo.Request {
			return kind.NewWith(suite.Args{}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), request("a"), request("b", dianemo.After("a", "nobody")...), request("c", dianemo.After("b")...), request("d", dianemo.After("a")...))
		var batch *dianemo.BatchError
		require.ErrorAs(t, err, &batch)
		require.Equal(t, []error{nil, &dianemo.ParentGoneError{ID: "b", Parent: "nobody"}, &dianemo.ParentGoneError{ID: "c", Parent: "b"}, nil}, batch.Errs)
		require.ErrorIs(t, err, dianemo.ErrParentGone)
		for _, id := range []string{"b", "c"} {
			_, err := c.Get(t.Context(), id)
			require.ErrorIs(t, err, dianemo.ErrNotFound)
		}
		require.Equal(t, dianemo.Blocked, suite.Get(t, c, "d").State)
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, byArgs) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "d"))
		_, err = c.EnqueueMany(t.Context(), request("e", dianemo.Parent{ID: "nobody", MayBeGone: true}, dianemo.After("a")[0]))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "e"))

		// Now b may come.
		_, err = c.EnqueueMany(t.Context(), request("b", dianemo.After("a")...))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "b"))
	})
}

func TestBadParentsAreRefused(t *testing.T) {
	t.Parallel()
	c := suite.Client(t, suite.Embedded(t, 1))
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	for field, o := range map[string]dianemo.Options{
		"Options.Parents[0].ID":  {ID: "a", Parents: dianemo.After("a")},
		"Options.Parents[1].ID":  {Parents: dianemo.After("a", "a")},
		"Options.Parents[1].ID ": {Parents: dianemo.After("a", "b c")},
		"Options.Parents[0].On":  {Parents: []dianemo.Parent{{ID: "a", On: "whim"}}},
		"Options.Delay":          {Parents: dianemo.After("a"), Delay: time.Second},
		"Options.Unique.Replace": {Parents: dianemo.After("a"), Unique: dianemo.Unique{Key: "k", Replace: true}},
	} {
		_, err := kind.EnqueueWith(t.Context(), c, suite.Args{}, o)
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, field)
		require.Contains(t, field, wrong.Field)
	}
	request := func(id string, parents ...string) dianemo.Request {
		return kind.NewWith(suite.Args{}, dianemo.Options{ID: id, Parents: dianemo.After(parents...)})
	}
	_, err := c.EnqueueMany(t.Context(), request("a", "b"), request("b", "c"), request("c", "d", "a"), request("d"))
	var cycle *dianemo.CycleError
	require.ErrorAs(t, err, &cycle)
	require.Len(t, cycle.IDs, 3)
	require.ErrorIs(t, err, dianemo.ErrInvalid)
	_, err = c.Get(t.Context(), "d")
	require.ErrorIs(t, err, dianemo.ErrNotFound)
}

func TestAJobStaysWhileItHasUnfinishedChildren_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		keep := dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}, dianemo.Skipped: {Jobs: dianemo.None}}}
		goOn := make(chan struct{})
		var kind dianemo.Kind[suite.Args]
		trimmed := make(chan dianemo.TrimInfo, 1000)
		config := suite.Quick
		config.Hooks = &dianemo.Hooks{Trim: func(i dianemo.TrimInfo) { trimmed <- i }}
		suite.Start(t, store, config, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", keep, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				if job.Args.N == 1 {
					<-goOn
				}
				return nil
			})
		})
		// What has no children goes; the parent stays until its child has ended.
		_, err := c.EnqueueMany(t.Context(), kind.NewWith(suite.Args{N: 0}, dianemo.Options{ID: "parent"}), kind.NewWith(suite.Args{N: 0}, dianemo.Options{ID: "single"}),
			kind.NewWith(suite.Args{N: 1}, dianemo.Options{ID: "child", Parents: dianemo.After("parent")}),
			kind.NewWith(suite.Args{N: 0}, dianemo.Options{ID: "skipped", Parents: dianemo.AfterFailure("parent")}))
		require.NoError(t, err)
		gone := func(id string) func() bool {
			return func() bool { _, err := c.Get(t.Context(), id); return errors.Is(err, dianemo.ErrNotFound) }
		}
		require.Eventually(t, gone("single"), suite.Patience, 5*time.Millisecond)
		for range 3 { // steps of retention that let go of something else
			suite.Enqueue(t, c, kind, dianemo.Options{})
			suite.Receive(t, trimmed)
		}
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, "parent").State)
		close(goOn)
		for _, id := range []string{"child", "parent", "skipped"} {
			require.Eventually(t, gone(id), suite.Patience, 5*time.Millisecond, id)
		}
		require.Eventually(t, func() bool { return leftovers(t, store) == "" }, suite.Patience, 10*time.Millisecond)
	})
}

// leftovers lists the keys that only jobs with parents have.
func leftovers(t *testing.T, store dianemo.Store) string {
	t.Helper()
	rdb, namespace := suite.Behind(t, store)
	keys, err := rdb.Keys(t.Context(), "{"+namespace+":*").Result()
	require.NoError(t, err)
	found := ""
	for _, key := range keys {
		switch _, name, _ := strings.Cut(key, "}:"); name {
		case "needs", "edges", "kids", "outbox", "gates", "blocked":
			found += key + " "
		}
	}
	return found
}

func TestAChildReadsItsParentsResults_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		sums := make(chan int, 1)
		var kind dianemo.Kind[suite.Args]
		wrap := func(next dianemo.Handler) dianemo.Handler { return next } // which must pass the parents on
		suite.Start(t, store, dianemo.Config{Wrap: wrap}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				sum := job.Args.N
				for _, parent := range job.Parents {
					n, err := dianemo.ParentResult[int](ctx, job, parent.ID)
					if err != nil {
						return dianemo.Fail(err)
					}
					sum += n
				}
				if len(job.Parents) > 0 {
					_, err := dianemo.ParentResult[int](ctx, job, "stranger")
					if !errors.Is(err, dianemo.ErrInvalid) {
						return dianemo.Fail(errors.New("a stranger's result"))
					}
					sums <- sum
				}
				return job.SetResult(sum)
			})
		})
		_, err := c.EnqueueMany(t.Context(), kind.NewWith(suite.Args{N: 1}, dianemo.Options{ID: "a"}), kind.NewWith(suite.Args{N: 2}, dianemo.Options{ID: "b"}),
			kind.NewWith(suite.Args{N: 4}, dianemo.Options{Parents: dianemo.After("a", "b")}))
		require.NoError(t, err)
		require.Equal(t, 7, suite.Receive(t, sums))
	})
}

// Whoever enqueued it died before it opened the gate.
func TestAJobWhoseEnqueueWasNeverFinishedIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		store.SetTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
		ctx := t.Context()
		require.NoError(t, store.Open(ctx))
		_, err := store.Need(ctx, 0, dianemo.TellIt, 1, []dianemo.Wait{{ID: "orphan", Gate: dianemo.OwnGate}})
		require.NoError(t, err)
		spec := &dianemo.Spec{Kind: "kind", Priority: 2, Grace: time.Hour, Args: []byte("{}")}
		_, err = store.Enqueue(ctx, 0, dianemo.Call{Caller: "dead", Number: 1}, []dianemo.Record{{ID: "orphan", Lane: spec.Lane(), Blocked: true, Spec: dianemo.EncodeSpec(spec)}})
		require.NoError(t, err)
		released := make(chan dianemo.ReleaseInfo, 10)
		config := suite.Quick
		config.Hooks = &dianemo.Hooks{Release: func(i dianemo.ReleaseInfo) { released <- i }}
		suite.Start(t, store, config, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
		store.Advance(9 * time.Minute)
		c := suite.Client(t, store)
		require.Equal(t, dianemo.Blocked, suite.Get(t, c, "orphan").State)
		store.Advance(2 * time.Minute)
		require.Equal(t, dianemo.Cancelled, suite.Receive(t, released).State)
		require.Equal(t, "gate", suite.Get(t, c, "orphan").Reason)
		require.Empty(t, leftovers(t, store))
	})
}
