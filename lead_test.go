package dianemo_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// Who leads keeps the time for jobs that are due later, so one that shuts down
// hands over before it waits for its jobs.
func TestALeaderThatShutsDownHandsOverTheTimeAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		leads := make(chan dianemo.LeadInfo, 10)
		begun, free := make(chan string, 1), make(chan struct{})
		var slow, quick dianemo.Kind[Args]
		leader := start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { leads <- i }}}, func(p *dianemo.Peer) {
			slow = handle(t, p, "slow", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
		})
		require.True(t, receive(t, leads).Leading)
		enqueue(t, leader, slow, dianemo.Options{})
		receive(t, begun)
		heirs := make(chan dianemo.LeadInfo, 10)
		heir := start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { heirs <- i }}}, func(p *dianemo.Peer) {
			quick = handle(t, p, "quick", dianemo.Policy{}, func(context.Context, *dianemo.Job[Args]) error { return nil })
		})
		c := client(t, store)
		require.Eventually(t, func() bool { return len(peers(t, c)) == 2 }, 10*time.Second, time.Millisecond)
		later := enqueue(t, c, quick, dianemo.Options{Delay: time.Second})
		leader.cancel() // its job is not done for a while
		require.True(t, receive(t, heirs).Leading, "beats and bids are an hour apart: it was told")
		require.Equal(t, later, heir.next().ID)
		close(free)
		require.NoError(t, leader.wait())
	})
}
