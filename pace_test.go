package dianemo_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// stepped is a store whose walks have that many steps, each of which looks at that many jobs. It tells in how many of
// the leader's rounds a walk took them, and how many the last of these took.
type stepped struct {
	dianemo.Store
	steps, looked int
	round         atomic.Int64
	ends          chan []int64

	// Only the leader's rounds touch these, one at a time.
	rounds []int64
	last   int64
}

func (s *stepped) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	if chore != nil {
		s.round.Add(1)
	}
	return s.Store.Survey(ctx, chore)
}

func (s *stepped) Repair(_ context.Context, _ int, _ dianemo.Call, step dianemo.RepairStep) (dianemo.RepairReply, error) {
	if round := s.round.Load(); round != s.last {
		s.rounds, s.last = append(s.rounds, 0), round
	}
	s.rounds[len(s.rounds)-1]++
	at, err := strconv.Atoi("0" + step.Cursor)
	if at++; at < s.steps || err != nil {
		return dianemo.RepairReply{Next: strconv.Itoa(at), Looked: s.looked}, err
	}
	select {
	case s.ends <- s.rounds:
	default:
	}
	s.rounds, s.last = nil, s.round.Load()-1 // so that a walk that began at once would show
	return dianemo.RepairReply{Looked: s.looked}, nil
}

func TestAWalkThroughManySmallIndexesTakesFewRounds(t *testing.T) {
	for looked, want := range map[int][]int64{0: {16, 16, 8}, 2: {16, 16, 8}, 90: {3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1}, 200: {16, 16, 8}} {
		t.Run(strconv.Itoa(looked), func(t *testing.T) {
			s := &stepped{Store: embeddedStore(t, 1), steps: 40, looked: looked, ends: make(chan []int64, 2)}
			start(t, s, dianemo.Config{BeatEvery: 50 * time.Millisecond, SilentAfter: time.Minute}, func(p *dianemo.Peer) {
				handle(t, p, "kind", dianemo.Policy{}, func(context.Context, *dianemo.Job[Args]) error { return nil })
			})
			require.Equal(t, want, receive(t, s.ends))
			require.Equal(t, want, receive(t, s.ends), "the next walk begins in a round of its own")
		})
	}
}
