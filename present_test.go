package dianemo

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A mirror is a store in which peers only show themselves.
type mirror struct {
	openStore
	mu    sync.Mutex
	shown map[string][]time.Time
}

func (s *mirror) Present(_ context.Context, info PeerInfo, _ bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown[info.ID] = append(s.shown[info.ID], time.Now())
	return false, nil
}

func TestPeersThatWereStartedTogetherDoNotShowThemselvesTogetherForGood(t *testing.T) {
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
