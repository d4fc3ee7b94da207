package dianemo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// ends waits until a job has ended, and returns how.
func ends(t *testing.T, c *dianemo.Client, id string) dianemo.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	info, err := c.Wait(ctx, id)
	require.NoError(t, err, id)
	return info.State
}

// byArgs fails where the arguments say so.
func byArgs(_ context.Context, job *dianemo.Job[Args]) error {
	if job.Args.N < 0 {
		return dianemo.Fail(errors.New("as told"))
	}
	return nil
}

func TestAChildStartsWhenItsParentsHaveEnded(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
		request := func(id string, n int, parents ...dianemo.Parent) dianemo.Request {
			return kind.NewWith(Args{n}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), request("a", 1), request("bad", -1))
		require.NoError(t, err)
		_, err = c.EnqueueMany(t.Context(), request("join", 1, dianemo.After("a", "b")...), request("b", 1, dianemo.After("a")...),
			request("never", 1, dianemo.After("a", "bad")...), request("grandchild", 1, dianemo.After("never")...),
			request("mends", 1, dianemo.AfterFailure("bad")...), request("always", 1, dianemo.AfterEnd("bad", "a", "never")...))
		require.NoError(t, err)
		for _, id := range []string{"join", "b", "never", "grandchild", "mends", "always"} {
			require.Equal(t, dianemo.Blocked, get(t, c, id).State, id)
		}
		require.Equal(t, dianemo.After("a", "b"), get(t, c, "join").Parents)
		page, err := c.List(t.Context(), dianemo.Filter{States: []dianemo.State{dianemo.Blocked}})
		require.NoError(t, err)
		require.Len(t, page.Jobs, 6)
		require.EqualValues(t, 6, finished(t, c, dianemo.Blocked))
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{}, byArgs) })
		for id, want := range map[string]dianemo.State{"a": dianemo.Succeeded, "bad": dianemo.Failed, "b": dianemo.Succeeded, "join": dianemo.Succeeded,
			"never": dianemo.Skipped, "grandchild": dianemo.Skipped, "mends": dianemo.Succeeded, "always": dianemo.Succeeded} {
			require.Equal(t, want, ends(t, c, id), id)
		}
		// Parents that have ended already.
		_, err = c.EnqueueMany(t.Context(), request("late", 1, dianemo.After("a")...), request("late-skipped", 1, dianemo.After("bad")...))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, ends(t, c, "late"))
		require.Equal(t, dianemo.Skipped, ends(t, c, "late-skipped"))
		require.Zero(t, finished(t, c, dianemo.Blocked))
	})
}

func TestALongChainEnds(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		n := 1000
		if _, ok := store.(*embedded.Store); ok {
			n = 100 // it sorts all edges for each range
		}
		c := client(t, store)
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
		var requests []dianemo.Request
		for i := range n {
			o := dianemo.Options{ID: fmt.Sprintf("chain-%d", i)}
			if i > 0 {
				o.Parents = dianemo.After(fmt.Sprintf("chain-%d", i-1))
			}
			requests = append(requests, kind.NewWith(Args{}, o))
		}
		_, err := c.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{}, returns(nil)) })
		require.Equal(t, dianemo.Succeeded, ends(t, c, fmt.Sprintf("chain-%d", n-1)))
	})
}

func TestAFailedParentThatIsRequeuedAndSucceedsBringsItsChildrenBack(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		failing := make(chan bool, 1)
		failing <- true
		var kind dianemo.Kind[Args]
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
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
			return kind.NewWith(Args{}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), options("parent", nil), options("child", dianemo.After("parent")), options("grandchild", dianemo.After("child")),
			options("mend", dianemo.AfterFailure("parent")), options("cleanup", dianemo.AfterFailure("child")))
		require.NoError(t, err)
		require.Equal(t, dianemo.Skipped, ends(t, c, "grandchild"))
		require.Equal(t, dianemo.Succeeded, ends(t, c, "mend"))
		require.Equal(t, dianemo.Succeeded, ends(t, c, "cleanup"), "to be skipped is not to succeed")
		info := get(t, c, "child")
		require.Equal(t, dianemo.Skipped, info.State)
		require.Equal(t, "parent", info.Reason)
		require.NoError(t, c.Requeue(t.Context(), "parent"))
		require.Eventually(t, func() bool { return get(t, c, "grandchild").State == dianemo.Succeeded }, 20*time.Second, 5*time.Millisecond)
		require.Equal(t, dianemo.Succeeded, get(t, c, "child").State)
		require.Equal(t, 1, get(t, c, "mend").Runs)
	})
}

func TestABlockedJobCanBeCancelledAndItsChildrenHearOfIt(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
		request := func(id string, parents []dianemo.Parent) dianemo.Request {
			return kind.NewWith(Args{}, dianemo.Options{ID: id, Parents: parents})
		}
		_, err := c.EnqueueMany(t.Context(), request("a", nil), request("b", dianemo.After("a")), request("c", dianemo.After("b")), request("d", dianemo.AfterEnd("b")))
		require.NoError(t, err)
		require.NoError(t, c.Cancel(t.Context(), "b"))
		require.Equal(t, dianemo.Skipped, ends(t, c, "c"))
		require.Eventually(t, func() bool { return get(t, c, "d").State == dianemo.Queued }, 20*time.Second, 5*time.Millisecond)
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{}, byArgs) })
		require.Equal(t, dianemo.Succeeded, ends(t, c, "d"))
		require.Equal(t, dianemo.Succeeded, ends(t, c, "a"))
		require.Equal(t, dianemo.Cancelled, get(t, c, "b").State)
	})
}

func TestABlockedJobIsMissedWhenItsTimeIsOver(t *testing.T) {
	for _, partitions := range []int{1, 8} {
		store := embeddedStore(t, partitions)
		noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		store.SetTime(noon)
		c := client(t, store)
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{Grace: time.Minute})
		foreign := dianemo.NewKind[Args]("foreign", dianemo.Policy{Grace: dianemo.Unlimited})
		child := func(id string, at time.Time, parents []dianemo.Parent) dianemo.Request {
			return kind.NewWith(Args{}, dianemo.Options{ID: id, Parents: parents, RunAt: at})
		}
		_, err := c.EnqueueMany(t.Context(), foreign.NewWith(Args{}, dianemo.Options{ID: "parent"}), child("timed", noon.Add(time.Hour), dianemo.After("parent")),
			child("untimed", time.Time{}, dianemo.After("parent")), child("after", time.Time{}, dianemo.AfterFailure("timed")))
		require.NoError(t, err)
		ran := make(chan dianemo.Job[Args], 10)
		start(t, store, quick, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{Grace: time.Minute}, sees(ran)) })
		store.SetTime(noon.Add(time.Hour + time.Minute))
		require.Equal(t, dianemo.Blocked, get(t, c, "timed").State)
		store.SetTime(noon.Add(time.Hour + time.Minute + time.Second))
		require.Equal(t, "after", receive(t, ran).ID)
		info := get(t, c, "timed")
		require.Equal(t, dianemo.Missed, info.State)
		require.Equal(t, "grace", info.Reason)
		require.Equal(t, dianemo.Blocked, get(t, c, "untimed").State)
	}
}

func TestAParentThatDoesNotExistIsRefusedUnlessItMayBeGone(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
		request := func(id string, parents ...dianemo.Parent) dianemo.Request {
			return kind.NewWith(Args{}, dianemo.Options{ID: id, Parents: parents})
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
		require.Equal(t, dianemo.Blocked, get(t, c, "d").State)
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{}, byArgs) })
		require.Equal(t, dianemo.Succeeded, ends(t, c, "d"))
		_, err = c.EnqueueMany(t.Context(), request("e", dianemo.Parent{ID: "nobody", MayBeGone: true}, dianemo.After("a")[0]))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, ends(t, c, "e"))

		// Now b may come.
		_, err = c.EnqueueMany(t.Context(), request("b", dianemo.After("a")...))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, ends(t, c, "b"))
	})
}

func TestBadParentsAreRefused(t *testing.T) {
	c := client(t, embeddedStore(t, 1))
	kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
	for field, o := range map[string]dianemo.Options{
		"Options.Parents[0].ID":  {ID: "a", Parents: dianemo.After("a")},
		"Options.Parents[1].ID":  {Parents: dianemo.After("a", "a")},
		"Options.Parents[1].ID ": {Parents: dianemo.After("a", "b c")},
		"Options.Parents[0].On":  {Parents: []dianemo.Parent{{ID: "a", On: "whim"}}},
		"Options.Delay":          {Parents: dianemo.After("a"), Delay: time.Second},
		"Options.Unique.Replace": {Parents: dianemo.After("a"), Unique: dianemo.Unique{Key: "k", Replace: true}},
	} {
		_, err := kind.EnqueueWith(t.Context(), c, Args{}, o)
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, field)
		require.Contains(t, field, wrong.Field)
	}
	request := func(id string, parents ...string) dianemo.Request {
		return kind.NewWith(Args{}, dianemo.Options{ID: id, Parents: dianemo.After(parents...)})
	}
	_, err := c.EnqueueMany(t.Context(), request("a", "b"), request("b", "c"), request("c", "d", "a"), request("d"))
	var cycle *dianemo.CycleError
	require.ErrorAs(t, err, &cycle)
	require.Len(t, cycle.IDs, 3)
	require.ErrorIs(t, err, dianemo.ErrInvalid)
	_, err = c.Get(t.Context(), "d")
	require.ErrorIs(t, err, dianemo.ErrNotFound)
}

func TestAJobStaysWhileItHasUnfinishedChildren(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		keep := dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}, dianemo.Skipped: {Jobs: dianemo.None}}}
		goOn := make(chan struct{})
		var kind dianemo.Kind[Args]
		trimmed := make(chan dianemo.TrimInfo, 1000)
		config := quick
		config.Hooks = &dianemo.Hooks{Trim: func(i dianemo.TrimInfo) { trimmed <- i }}
		start(t, store, config, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", keep, func(_ context.Context, job *dianemo.Job[Args]) error {
				if job.Args.N == 1 {
					<-goOn
				}
				return nil
			})
		})
		// What has no children goes; the parent stays until its child has ended.
		_, err := c.EnqueueMany(t.Context(), kind.NewWith(Args{0}, dianemo.Options{ID: "parent"}), kind.NewWith(Args{0}, dianemo.Options{ID: "single"}),
			kind.NewWith(Args{1}, dianemo.Options{ID: "child", Parents: dianemo.After("parent")}),
			kind.NewWith(Args{0}, dianemo.Options{ID: "skipped", Parents: dianemo.AfterFailure("parent")}))
		require.NoError(t, err)
		gone := func(id string) func() bool {
			return func() bool { _, err := c.Get(t.Context(), id); return errors.Is(err, dianemo.ErrNotFound) }
		}
		require.Eventually(t, gone("single"), 20*time.Second, 5*time.Millisecond)
		for range 3 { // steps of retention that let go of something else
			enqueue(t, c, kind, dianemo.Options{})
			receive(t, trimmed)
		}
		require.Equal(t, dianemo.Succeeded, get(t, c, "parent").State)
		close(goOn)
		for _, id := range []string{"child", "parent", "skipped"} {
			require.Eventually(t, gone(id), 20*time.Second, 5*time.Millisecond, id)
		}
		require.Eventually(t, func() bool { return leftovers(t, store) == "" }, 20*time.Second, 10*time.Millisecond)
	})
}

// leftovers lists the keys that only jobs with parents have.
func leftovers(t *testing.T, store dianemo.Store) string {
	t.Helper()
	rdb := server.Client(t)
	pattern := fmt.Sprintf("{test-%d:*", namespaces.Load())
	if s, ok := store.(*embedded.Store); ok {
		rdb, pattern = s.Client(), "{dianemo:*"
	}
	keys, err := rdb.Keys(t.Context(), pattern).Result()
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

func TestAChildReadsItsParentsResults(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		sums := make(chan int, 1)
		var kind dianemo.Kind[Args]
		wrap := func(next dianemo.Handler) dianemo.Handler { return next } // which must pass the parents on
		start(t, store, dianemo.Config{Wrap: wrap}, func(p *dianemo.Peer) {
			kind = handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[Args]) error {
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
		_, err := c.EnqueueMany(t.Context(), kind.NewWith(Args{1}, dianemo.Options{ID: "a"}), kind.NewWith(Args{2}, dianemo.Options{ID: "b"}),
			kind.NewWith(Args{4}, dianemo.Options{Parents: dianemo.After("a", "b")}))
		require.NoError(t, err)
		require.Equal(t, 7, receive(t, sums))
	})
}

// Whoever enqueued it died before it opened the gate.
func TestAJobWhoseEnqueueWasNeverFinishedIsCancelled(t *testing.T) {
	store := embeddedStore(t, 1)
	store.SetTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	ctx := t.Context()
	require.NoError(t, store.Open(ctx))
	_, err := store.Need(ctx, 0, dianemo.TellIt, 1, []dianemo.Wait{{ID: "orphan", Gate: dianemo.OwnGate}})
	require.NoError(t, err)
	spec := &dianemo.Spec{Kind: "kind", Priority: 2, Grace: time.Hour, Args: []byte("{}")}
	_, err = store.Enqueue(ctx, 0, dianemo.Call{Caller: "dead", Number: 1}, []dianemo.Record{{ID: "orphan", Lane: spec.Lane(), Blocked: true, Spec: dianemo.EncodeSpec(spec)}})
	require.NoError(t, err)
	released := make(chan dianemo.ReleaseInfo, 10)
	config := quick
	config.Hooks = &dianemo.Hooks{Release: func(i dianemo.ReleaseInfo) { released <- i }}
	start(t, store, config, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{}, returns(nil)) })
	store.Advance(9 * time.Minute)
	c := client(t, store)
	require.Equal(t, dianemo.Blocked, get(t, c, "orphan").State)
	store.Advance(2 * time.Minute)
	require.Equal(t, dianemo.Cancelled, receive(t, released).State)
	require.Equal(t, "gate", get(t, c, "orphan").Reason)
	require.Empty(t, leftovers(t, store))
}
