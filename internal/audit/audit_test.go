package audit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestANamespaceInWhichAllFeaturesWereUsedIsClean(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			t.Parallel()
			w := populate(t, partitions)
			w.clean() // while jobs run, and peers beat
			counts, err := w.Counts(t.Context())
			require.NoError(t, err)
			has := map[dianemo.State]bool{}
			for _, c := range counts {
				has[c.State] = true
			}
			for _, state := range []dianemo.State{dianemo.Blocked, dianemo.Scheduled, dianemo.Running, dianemo.Succeeded, dianemo.Failed, dianemo.Missed,
				dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped} {
				require.True(t, has[state], "%s in %v", state, counts)
			}
			close(w.free)
			w.ends(dianemo.Succeeded, w.running)
			w.clean()
			w.stop()
			w.clean()
			report, err := w.Repair(t.Context())
			require.NoError(t, err)
			require.Empty(t, report.Found)
			left, err := Leftovers(t.Context(), w.rdb, w.namespace, w.partitions)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// All is read at one moment, and at no moment is anything wrong.
func TestANamespaceIsCleanWhateverIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, partitions)
			require.NoError(t, w.store.Open(t.Context()))
			var looks atomic.Int64
			stop := make(chan struct{})
			var looking sync.WaitGroup
			looking.Go(func() {
				pace := time.NewTicker(10 * time.Millisecond)
				defer pace.Stop()
				for {
					select {
					case <-stop:
						return
					case <-pace.C:
					}
					findings, err := Keys(t.Context(), w.rdb, w.namespace, partitions)
					if err != nil || len(findings) > 0 {
						t.Errorf("%v %v", findings, err)
						return
					}
					looks.Add(1)
				}
			})
			p := &populated{world: w}
			p.fill()
			close(w.free)
			w.ends(dianemo.Succeeded, p.running)
			w.eventually("it was looked at often", func() bool { return looks.Load() > 20 || t.Failed() })
			w.stop()
			close(stop)
			looking.Wait()
			t.Logf("%d looks", looks.Load())
		})
	}
}
