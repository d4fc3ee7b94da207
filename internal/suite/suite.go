// Package suite is what the tests of behaviour in the packages below it share:
// stores to run on, a peer that reports what it does, and short ways to say what
// most tests say.
package suite

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// Patience is how long a test waits for what must come before it fails. It is no
// bound on anything's speed: it only ends a test that hangs.
const Patience = 3 * time.Minute

// Receive fails the test if nothing comes for as long as Patience.
func Receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(Patience):
		t.Fatalf("nothing came for %v", Patience)
		panic("unreachable")
	}
}

// Args of most kinds.
type Args struct{ N int }

// Client is closed when the test ends.
func Client(t *testing.T, store dianemo.Store) *dianemo.Client {
	c, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: Quiet})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// Handle registers a handler for a kind of that name.
func Handle(t *testing.T, p *dianemo.Peer, name string, policy dianemo.Policy, fn func(ctx context.Context, job *dianemo.Job[Args]) error) dianemo.Kind[Args] {
	t.Helper()
	kind := dianemo.NewKind[Args](name, policy)
	require.NoError(t, kind.Handle(p, fn))
	return kind
}

// Enqueue returns the id of a job that it has enqueued.
func Enqueue(t *testing.T, to dianemo.Enqueuer, kind dianemo.Kind[Args], options dianemo.Options) string {
	t.Helper()
	id, err := kind.EnqueueWith(t.Context(), to, Args{}, options)
	require.NoError(t, err)
	return id
}

// Get returns a job that must exist.
func Get(t *testing.T, c interface {
	Get(context.Context, string) (*dianemo.JobInfo, error)
}, id string) *dianemo.JobInfo {
	t.Helper()
	job, err := c.Get(t.Context(), id)
	require.NoError(t, err)
	return job
}

// Ends waits for a job's end, and returns the state in which it ended.
func Ends(t *testing.T, c *dianemo.Client, id string) dianemo.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	info, err := c.Wait(ctx, id)
	require.NoError(t, err, id)
	return info.State
}

// CountOf is how many jobs are in that state.
func CountOf(t *testing.T, c *dianemo.Client, state dianemo.State) (n int64) {
	t.Helper()
	counts, err := c.Counts(t.Context())
	require.NoError(t, err)
	for _, count := range counts {
		if count.State == state {
			n += count.Jobs
		}
	}
	return n
}

// Peers are all that have announced themselves.
func Peers(t *testing.T, c *dianemo.Client) []dianemo.PeerInfo {
	t.Helper()
	all, err := c.Peers(t.Context())
	require.NoError(t, err)
	return all
}

// Every is a rule with that interval.
func Every(t *testing.T, d time.Duration) dianemo.Rule {
	t.Helper()
	rule, err := dianemo.Interval(d)
	require.NoError(t, err)
	return rule
}

// Put stores a schedule.
func Put(t *testing.T, c *dianemo.Client, s dianemo.Schedule) {
	t.Helper()
	require.NoError(t, c.PutSchedule(t.Context(), s))
}
