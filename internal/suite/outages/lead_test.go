package outages_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// Who leads keeps the time for jobs that are due later, so one that shuts down
// hands over before it waits for its jobs.
func TestALeaderThatShutsDownHandsOverTheTimeAtOnce_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		leads := make(chan dianemo.LeadInfo, 10)
		begun, free := make(chan string, 1), make(chan struct{})
		var slow, quick dianemo.Kind[suite.Args]
		leader := suite.Start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { leads <- i }}}, func(p *dianemo.Peer) {
			slow = suite.Handle(t, p, "slow", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				begun <- job.ID
				<-free
				return nil
			})
		})
		require.True(t, suite.Receive(t, leads).Leading)
		suite.Enqueue(t, leader, slow, dianemo.Options{})
		suite.Receive(t, begun)
		heirs := make(chan dianemo.LeadInfo, 10)
		heir := suite.Start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { heirs <- i }}}, func(p *dianemo.Peer) {
			quick = suite.Handle(t, p, "quick", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
		})
		c := suite.Client(t, store)
		require.Eventually(t, func() bool { return len(suite.Peers(t, c)) == 2 }, suite.Patience, time.Millisecond)
		later := suite.Enqueue(t, c, quick, dianemo.Options{Delay: time.Second})
		leader.End() // its job is not done for a while
		require.True(t, suite.Receive(t, heirs).Leading, "beats and bids are an hour apart: it was told")
		require.Equal(t, later, heir.Next().ID)
		close(free)
		require.NoError(t, leader.Stopped())
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
func TestAPeerThatShutsDownLeavesNoLeaseBehind_Long(t *testing.T) {
	t.Parallel()
	for name, unanswered := range map[string]func(dianemo.Bid) bool{
		"when the store has taken its bid and not answered": func(b dianemo.Bid) bool { return !b.Resign },
		"when it could not resign at once":                  func(b dianemo.Bid) bool { return b.Resign },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				b := &bidder{Store: store, unanswered: unanswered, reached: make(chan struct{})}
				leads := make(chan dianemo.LeadInfo, 10)
				hooks := &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { leads <- i }}
				begun, free := make(chan string, 1), make(chan struct{})
				var kind dianemo.Kind[suite.Args]
				leader := suite.Start(t, b, dianemo.Config{Hooks: hooks}, func(p *dianemo.Peer) {
					kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
						begun <- job.ID
						<-free
						return nil
					})
				})
				suite.Enqueue(t, leader, kind, dianemo.Options{})
				suite.Receive(t, begun)
				if unanswered(dianemo.Bid{}) {
					suite.Receive(t, b.reached)
				} else {
					require.True(t, suite.Receive(t, leads).Leading)
				}
				leader.End()
				suite.Receive(t, b.reached)
				close(free) // now it has no use for an answer any more
				require.NoError(t, leader.Stopped())
				suite.Start(t, store, dianemo.Config{Hooks: hooks}, func(*dianemo.Peer) {})
				for !suite.Receive(t, leads).Leading { // the first one was told that it leads no more
				}
			})
		})
	}
}
