package dianemo

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A laden store takes its time for each job of an enqueue, one call after the other.
type ladenStore struct {
	openStore
	one   chan struct{} // held by the call that it works at
	each  time.Duration
	calls []int // how many jobs were in each
}

func (s *ladenStore) Partition(string) int { return 0 }

func (s *ladenStore) Enqueue(_ context.Context, _ int, _ Call, records []Record) (EnqueueReply, error) {
	s.one <- struct{}{}
	defer func() { <-s.one }()
	time.Sleep(100*time.Microsecond + time.Duration(len(records))*s.each) // of the bubble's clock
	s.calls = append(s.calls, len(records))
	return EnqueueReply{Existing: make([]State, len(records))}, nil
}

func TestAnEnqueueCarriesAsMuchAsTheStoreCanTakeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &ladenStore{one: make(chan struct{}, 1)}
		c, err := NewClient(store, ClientConfig{})
		require.NoError(t, err)
		defer c.Close()
		kind := NewKind[int]("kind", Policy{})
		requests := make([]Request, 10_000)
		for i := range requests {
			requests[i] = kind.New(i)
		}
		for _, row := range []struct {
			each time.Duration
			want int // jobs of the calls in the end
		}{
			{4 * time.Microsecond, MaxCallJobs},
			{15 * time.Microsecond, 250},  // a call of 375 takes 5.7 ms
			{time.Millisecond, firstPace}, // no less: it may be the network
			{time.Microsecond, MaxCallJobs},
		} {
			store.each, store.calls = row.each, nil
			for range 4 {
				_, err := c.EnqueueMany(t.Context(), requests...)
				require.NoError(t, err)
			}
			last := store.calls[len(store.calls)-11 : len(store.calls)-1] // but for the rest of the last request
			require.Equal(t, slices.Repeat([]int{row.want}, 10), last, row.each)
		}
	})
}
