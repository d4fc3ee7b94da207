package schedules_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// there waits until a schedule is there, and reads it.
func there(t *testing.T, c *dianemo.Client, name string) *dianemo.ScheduleInfo {
	t.Helper()
	var info *dianemo.ScheduleInfo
	require.Eventually(t, func() (ok bool) {
		var err error
		info, err = c.GetSchedule(t.Context(), name)
		return err == nil
	}, suite.Patience, 5*time.Millisecond, name)
	return info
}

// declares registers schedules.
func declares(t *testing.T, schedules ...dianemo.Schedule) func(p *dianemo.Peer) {
	return func(p *dianemo.Peer) {
		for _, s := range schedules {
			require.NoError(t, p.Schedule(s))
		}
	}
}

// What is read of a rule of one's own are the next instants only: put, they would be
// a schedule that ends.
func TestARuleOfOnesOwnThatWasReadCanNotBePut(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	suite.Start(t, store, suite.Quick, declares(t, dianemo.Schedule{Name: "s", Rule: ownRule{time.Hour}, Job: kind.New(suite.Args{})}))
	info := there(t, c, "s")
	changed := info.Schedule
	changed.Overlap = dianemo.OverlapSkip
	var wrong *dianemo.FieldError
	require.ErrorAs(t, c.PutSchedule(t.Context(), changed), &wrong)
	require.Equal(t, "rule", wrong.Field)
	_, err := dianemo.RuleText(changed.Rule)
	require.ErrorIs(t, err, dianemo.ErrInvalid)
	peer, err := dianemo.NewPeer(store, suite.Quick)
	require.NoError(t, err)
	require.ErrorIs(t, peer.Schedule(changed), dianemo.ErrInvalid)

	again := there(t, c, "s")
	require.Equal(t, dianemo.OverlapAllow, again.Overlap)
	require.Len(t, again.Preview(10), 10)
	require.Equal(t, again.Preview(10), dianemo.Preview(again.Rule, again.Decided, 10))
}

// A shy peer's store does not answer when it shows itself until it may, and counts
// what it puts.
type shyStore struct {
	dianemo.Store
	asked, may chan struct{}
	puts       atomic.Int64
}

func (s *shyStore) Present(ctx context.Context, peer dianemo.PeerInfo, gone bool) (bool, error) {
	signalOne(s.asked)
	select {
	case <-s.may:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return s.Store.Present(ctx, peer, gone)
}

func (s *shyStore) SetSchedule(ctx context.Context, partition int, call dianemo.Call, wish dianemo.ScheduleWish) (bool, error) {
	s.puts.Add(1)
	return s.Store.SetSchedule(ctx, partition, call, wish)
}

func signalOne(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// A lateStore says when it is first asked what a schedule is, and answers when it may.
type lateStore struct {
	dianemo.Store
	once       sync.Once
	asked, may chan struct{}
}

func (s *lateStore) Schedules(ctx context.Context, partition int, names []string, offset int) (dianemo.SchedulesReply, error) {
	if len(names) > 0 {
		s.once.Do(func() {
			s.asked <- struct{}{}
			<-s.may
		})
	}
	return s.Store.Schedules(ctx, partition, names, offset)
}

// of is that configuration, of a program that was built then.
func of(config dianemo.Config, built int64) dianemo.Config {
	config.Built = time.Unix(built, 0)
	return config
}

// says waits until the job of a schedule has that argument.
func says(t *testing.T, c *dianemo.Client, name string, n int) {
	t.Helper()
	there(t, c, name)
	require.Eventually(t, func() bool { return said(t, c, name) == n }, suite.Patience, 10*time.Millisecond)
}

// said is the argument of a schedule's job.
func said(t *testing.T, c *dianemo.Client, name string) int {
	t.Helper()
	id, err := c.TriggerSchedule(t.Context(), name)
	require.NoError(t, err)
	var args suite.Args
	require.NoError(t, suite.Get(t, c, id).DecodeArgs(&args))
	return args.N
}

func TestAPeerShowsItselfBeforeItDeclares_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		hourly := func(name string, n int) dianemo.Schedule {
			return dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{N: n})}
		}
		shy := &shyStore{Store: store, asked: make(chan struct{}, 1), may: make(chan struct{})}
		suite.Start(t, shy, of(suite.Quick, 2e9), declares(t, hourly("s", 2)))
		suite.Receive(t, shy.asked)
		suite.Start(t, store, of(suite.Quick, 1e9), declares(t, hourly("s", 1), hourly("z", 1)))
		there(t, c, "z")
		says(t, c, "s", 1)
		require.Zero(t, shy.puts.Load())
		close(shy.may)
		says(t, c, "s", 2)
	})
}

// A newer build comes up, and declares, while an older one is about to read.
func TestAnOlderBuildThatStartsWithANewerOneIsPassedOver_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		hourly := func(name string, n int) dianemo.Schedule {
			return dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{N: n})}
		}
		late := &lateStore{Store: store, asked: make(chan struct{}, 1), may: make(chan struct{})}
		suite.Start(t, late, of(suite.Quick, 1e9), declares(t, hourly("s", 1), hourly("z", 1)))
		suite.Receive(t, late.asked)
		suite.Start(t, store, of(suite.Quick, 2e9), declares(t, hourly("s", 2)))
		there(t, c, "s")
		close(late.may)
		there(t, c, "z")
		require.Equal(t, 2, said(t, c, "s"))
	})
}
