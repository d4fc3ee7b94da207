package dependencies_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// A faltering store tells children of their parents a number of times, and then no more, as
// if its process had died.
type faltering struct {
	dianemo.Store
	mu     sync.Mutex
	left   int           // times; below 0: without end
	over   chan struct{} // closed when it is at its end
	cursor string        // how far the children of the parent had been told
	begun  string        // where the first that had any was read
}

func (f *faltering) Heirs(ctx context.Context, partition, parents, children int) ([]dianemo.Heirs, int64, error) {
	f.mu.Lock()
	left := f.left
	f.mu.Unlock()
	if left == 0 {
		return nil, 0, errors.New("dead")
	}
	heirs, until, err := f.Store.Heirs(ctx, partition, parents, children)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range heirs {
		if f.begun == "" && len(h.Children) > 0 {
			f.begun = "[" + h.After
		}
	}
	return heirs, until, err
}

func (f *faltering) Passed(ctx context.Context, partition int, heirs []dianemo.Heirs) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return false, errors.New("dead")
	}
	f.left--
	if f.left == 0 {
		close(f.over) // what it has told last, it can't note
		return false, errors.New("dead")
	}
	if last := heirs[len(heirs)-1]; len(last.Children) > 0 {
		f.cursor = last.Children[len(last.Children)-1]
	}
	return f.Store.Passed(ctx, partition, heirs)
}

// DIANEMO_CHILDREN says how many they are.
func TestWhereOnePeerStoppedTellingChildrenAnotherGoesOnAndEachStartsOnce(t *testing.T) {
	t.Parallel()
	n := 5000
	if s := os.Getenv("DIANEMO_CHILDREN"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err, "DIANEMO_CHILDREN")
	}
	for _, partitions := range []int{1, 16} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			store := suite.Redis(t, suite.Server.Client(t), partitions)
			c := suite.Client(t, store)
			var mu sync.Mutex
			starts := map[string]int{}
			first, all := make(chan struct{}), make(chan struct{})
			handler := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				mu.Lock()
				defer mu.Unlock()
				starts[job.ID]++
				switch len(starts) {
				case 2: // the first is the parent
					close(first)
				case n + 1:
					close(all)
				}
				return nil
			}
			kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.Unlimited}}})
			join := func(store dianemo.Store) *suite.Running {
				return suite.Start(t, store, dianemo.Config{Tokens: 64, BeatEvery: time.Second}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, handler)) })
			}
			suite.Enqueue(t, c, kind, dianemo.Options{ID: "parent"})
			for done := 0; done < n; done += 500 {
				requests := make([]dianemo.Request, min(500, n-done))
				for i := range requests {
					requests[i] = kind.NewWith(suite.Args{}, dianemo.Options{ID: fmt.Sprintf("child-%07d", done+i), Parents: dianemo.After("parent")})
				}
				_, err := c.EnqueueMany(t.Context(), requests...)
				require.NoError(t, err)
			}
			dies := &faltering{Store: store, left: 5, over: make(chan struct{})}
			one := join(dies)
			suite.Receive(t, dies.over)
			suite.Receive(t, first)
			require.NoError(t, one.Stop())
			blocked := func() (jobs int64) {
				counts, err := c.Counts(t.Context())
				require.NoError(t, err)
				for _, count := range counts {
					if count.State == dianemo.Blocked {
						jobs += count.Jobs
					}
				}
				return jobs
			}
			require.Positive(t, blocked(), "the last is released after the first has started")
			goesOn := &faltering{Store: store, left: -1, over: make(chan struct{})}
			two := join(goesOn)
			select {
			case <-all:
			case <-time.After(5 * time.Minute):
				t.Fatalf("%d of %d children are blocked", blocked(), n)
			}
			require.NoError(t, two.Stop())
			require.NotEmpty(t, dies.cursor)
			require.Equal(t, "["+dies.cursor, goesOn.begun)
			require.Len(t, starts, n+1)
			for id, times := range starts {
				require.Equal(t, 1, times, id)
			}
		})
	}
}
