package producers_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// stepped is a store whose walks have that many steps, each of which looks at that many jobs. It tells of each
// walk.
type stepped struct {
	dianemo.Store
	steps, looked int
	round         atomic.Int64
	ends          chan walk

	// Only the leader's rounds touch these, one at a time.
	walk walk
	last int64
}

// A walk began in a round, and took so many steps in this and each later one in which it took any.
type walk struct {
	begin int64
	steps []int64
}

func (s *stepped) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	if chore != nil {
		s.round.Add(1)
	}
	return s.Store.Survey(ctx, chore)
}

func (s *stepped) Repair(_ context.Context, _ int, _ dianemo.Call, step dianemo.RepairStep) (dianemo.RepairReply, error) {
	if round := s.round.Load(); round != s.last {
		s.walk.steps, s.last = append(s.walk.steps, 0), round
	}
	if step.Cursor == "" {
		s.walk.begin = s.last
	}
	s.walk.steps[len(s.walk.steps)-1]++
	at, err := strconv.Atoi("0" + step.Cursor)
	if at++; at < s.steps || err != nil {
		return dianemo.RepairReply{Next: strconv.Itoa(at), Looked: s.looked}, err
	}
	select {
	case s.ends <- s.walk:
	default:
	}
	s.walk, s.last = walk{}, s.round.Load()-1 // so that a walk that began at once would show
	return dianemo.RepairReply{Looked: s.looked}, nil
}

func TestAWalkThroughManySmallIndexesTakesFewRounds(t *testing.T) {
	t.Parallel()
	for looked, want := range map[int][]int64{0: {16, 16, 8}, 2: {16, 16, 8}, 90: {3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1}, 200: {16, 16, 8}} {
		suite.RunVirtual(t, strconv.Itoa(looked), func(t *testing.T) {
			s := &stepped{Store: suite.Embedded(t, 1), steps: 40, looked: looked, ends: make(chan walk, 2)}
			suite.Start(t, s, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: time.Minute, Lease: time.Minute}, func(p *dianemo.Peer) {
				suite.Handle(t, p, "kind", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error { return nil })
			})
			first := suite.Receive(t, s.ends)
			require.Equal(t, want, first.steps)
			next := suite.Receive(t, s.ends)
			require.Equal(t, want, next.steps, "the next walk begins in a round of its own")
			require.EqualValues(t, 48, next.begin-first.begin, "and not before its time")
		})
	}
}
