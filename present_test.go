package dianemo

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A mirror is a store in which peers only show themselves and beat.
type mirror struct {
	openStore
	mu    sync.Mutex
	shown map[string][]time.Time
	beats []Beat
}

func (s *mirror) Declare(context.Context, map[string]Keep, bool) error { return nil }

func (s *mirror) Beat(_ context.Context, _ int, beat Beat) (BeatReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats = append(s.beats, beat)
	return BeatReply{}, nil
}

func (s *mirror) Present(_ context.Context, info PeerInfo, _ bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown[info.ID] = append(s.shown[info.ID], time.Now())
	return false, nil
}

func TestPeersThatWereStartedTogetherDoNotShowThemselvesTogetherForGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const peers, every = 50, 5 * time.Second
		store := &mirror{shown: map[string][]time.Time{}}
		ctx, stop := context.WithCancel(t.Context())
		begin := time.Now()
		var beats sync.WaitGroup
		for range peers {
			p, err := NewPeer(store, Config{BeatEvery: every})
			require.NoError(t, err)
			defer p.Close()
			beats.Go(func() { p.beats(ctx, func(error) {}) })
		}
		time.Sleep(4 * every) // of the bubble's clock
		stop()
		beats.Wait()
		require.Len(t, store.shown, peers)
		seconds := map[time.Duration]int{}
		for _, shown := range store.shown {
			require.Equal(t, begin, shown[0])
			require.LessOrEqual(t, shown[1].Sub(begin), every)
			for i := 2; i < len(shown); i++ {
				require.Equal(t, every, shown[i].Sub(shown[i-1]))
			}
			require.GreaterOrEqual(t, len(shown), 4)
			seconds[shown[1].Sub(begin)/time.Second]++
		}
		require.Greater(t, len(seconds), 2, "they are spread over five seconds")
	})
}

// While a peer has no runs it does not look for what they have to say.
func TestProgressIsPassedOnByAPeerThatHadNothingToDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour // the first beat is at a random time
		store := &mirror{shown: map[string][]time.Time{}}
		p, err := NewPeer(store, Config{BeatEvery: year, SilentAfter: 4 * year, Lease: 4 * year})
		require.NoError(t, err)
		defer p.Close()
		said, end := make(chan struct{}), make(chan struct{})
		require.NoError(t, NewKind[int]("kind", Policy{}).Handle(p, func(_ context.Context, job *Job[int]) error {
			job.Progress(int64(job.Args), 0, "")
			said <- struct{}{}
			<-end
			return nil
		}))
		part := newPartition(p, 0)
		p.partitions = []*partition{part}
		ctx, stop := context.WithCancel(t.Context())
		var beats sync.WaitGroup
		beats.Go(func() { p.beats(ctx, func(error) {}) })
		for round := range 3 {
			time.Sleep(2 * progressEvery) // of the bubble's clock
			require.True(t, p.resting.Load())
			job := Claimed{ID: "job", Epoch: int64(round), Lane: Lane{Kind: "kind", Priority: 2}, Spec: EncodeSpec(&Spec{Kind: "kind", Priority: 2, Args: fmt.Append(nil, round)})}
			part.begin(ctx, levels{}, TurnReply{Jobs: []Claimed{job}})
			<-said
			time.Sleep(progressEvery)
			synctest.Wait()
			require.Len(t, store.beats, round+1)
			require.EqualValues(t, round, store.beats[round].Runs[0].Progress.Done)
			require.False(t, p.resting.Load())
			end <- struct{}{}
			synctest.Wait()
			time.Sleep(2 * progressEvery)
			require.False(t, p.resting.Load(), "it is this peer's until it is settled")
			part.settled(part.take(), TurnReply{})
		}
		stop()
		beats.Wait()
	})
}
