package dianemo_test

import (
	"context"
	"errors"
	"sync"
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

// A bidder is a store in which the first call of some kind for the lease is not answered until the peer has no use for it.
type bidder struct {
	dianemo.Store
	unanswered func(dianemo.Bid) bool
	once       sync.Once
	reached    chan struct{} // closed when that call has been made
}

func (b *bidder) Lead(ctx context.Context, bid dianemo.Bid) (lease dianemo.Lease, err error) {
	if b.unanswered(bid) {
		b.once.Do(func() {
			if !bid.Resign {
				_, err = b.Store.Lead(ctx, bid)
			}
			close(b.reached)
			<-ctx.Done()
			err = errors.Join(err, ctx.Err())
		})
		if err != nil {
			return dianemo.Lease{}, err
		}
	}
	return b.Store.Lead(ctx, bid)
}

// Else nobody does the chores until the lease, here of hours, runs out.
func TestAPeerThatShutsDownLeavesNoLeaseBehind(t *testing.T) {
	for name, unanswered := range map[string]func(dianemo.Bid) bool{
		"when the store has taken its bid and not answered": func(b dianemo.Bid) bool { return !b.Resign },
		"when it could not resign at once":                  func(b dianemo.Bid) bool { return b.Resign },
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, store dianemo.Store) {
				b := &bidder{Store: store, unanswered: unanswered, reached: make(chan struct{})}
				leads := make(chan dianemo.LeadInfo, 10)
				hooks := &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { leads <- i }}
				begun, free := make(chan string, 1), make(chan struct{})
				var kind dianemo.Kind[Args]
				leader := start(t, b, dianemo.Config{Hooks: hooks}, func(p *dianemo.Peer) {
					kind = handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[Args]) error {
						begun <- job.ID
						<-free
						return nil
					})
				})
				enqueue(t, leader, kind, dianemo.Options{})
				receive(t, begun)
				if unanswered(dianemo.Bid{}) {
					receive(t, b.reached)
				} else {
					require.True(t, receive(t, leads).Leading)
				}
				leader.cancel()
				receive(t, b.reached)
				close(free) // now it has no use for an answer any more
				require.NoError(t, leader.wait())
				start(t, store, dianemo.Config{Hooks: hooks}, func(*dianemo.Peer) {})
				for !receive(t, leads).Leading { // the first one was told that it leads no more
				}
			})
		})
	}
}
