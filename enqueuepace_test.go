package dianemo

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
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

func TestAnEnqueueCarriesAsMuchAsTheStoreCanTakeAtATime_Long(t *testing.T) {
	t.Parallel()
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
			for range sample.Part(t, 4, 4) {
				_, err := c.EnqueueMany(t.Context(), requests...)
				require.NoError(t, err)
			}
			last := store.calls[len(store.calls)-11 : len(store.calls)-1] // but for the rest of the last request
			require.Equal(t, slices.Repeat([]int{row.want}, 10), last, row.each)
		}
	})
}

// A heldStore holds the calls of an enqueue, and knows who makes them.
type heldStore struct {
	openStore
	open chan struct{}
	mu   sync.Mutex
	from []string
}

func (s *heldStore) Partition(string) int { return 0 }

func (s *heldStore) Enqueue(_ context.Context, _ int, call Call, records []Record) (EnqueueReply, error) {
	s.mu.Lock()
	s.from = append(s.from, call.Caller)
	s.mu.Unlock()
	<-s.open
	return EnqueueReply{Existing: make([]State, len(records))}, nil
}

// A call that is not answered may be worked at whenever its bytes arrive. If it is to replace what holds its key, it must not
// replace what came after it: of the same line the store refuses it then.
func TestJobsWithUniqueKeysAreEnqueuedOneCallAfterTheOther(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int{"": 2, "key": 1} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &heldStore{open: make(chan struct{})}
				c, err := NewClient(store, ClientConfig{})
				require.NoError(t, err)
				defer c.Close()
				kind := NewKind[int]("kind", Policy{})
				enqueue := func(ctx context.Context) error {
					_, err := kind.EnqueueWith(ctx, c, 1, Options{Unique: Unique{Key: key, Replace: key != ""}})
					return err
				}
				ctx, leave := context.WithTimeout(t.Context(), time.Second) // of the bubble's clock
				defer leave()
				require.ErrorIs(t, enqueue(ctx), ErrUnconfirmed)
				var all sync.WaitGroup
				for range 3 {
					all.Go(func() {
						if err := enqueue(t.Context()); err != nil {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				require.Len(t, store.from, want)
				close(store.open)
				all.Wait()
				slices.Sort(store.from)
				require.Len(t, slices.Compact(store.from), want)
			})
		})
	}
}
