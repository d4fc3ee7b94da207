package dianemo_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
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
	})
}

func TestAChainOfAThousandIsQuick(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		c := client(t, store)
		kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
		var requests []dianemo.Request
		for i := range 1000 {
			o := dianemo.Options{ID: fmt.Sprintf("chain-%d", i)}
			if i > 0 {
				o.Parents = dianemo.After(fmt.Sprintf("chain-%d", i-1))
			}
			requests = append(requests, kind.NewWith(Args{}, o))
		}
		begin := time.Now()
		_, err := c.EnqueueMany(t.Context(), requests...)
		require.NoError(t, err)
		t.Log("enqueued", time.Since(begin))
		begin = time.Now()
		start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { handle(t, p, "kind", dianemo.Policy{}, returns(nil)) })
		require.Equal(t, dianemo.Succeeded, ends(t, c, "chain-999"))
		t.Log("done", time.Since(begin))
	})
}
