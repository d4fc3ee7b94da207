package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestANamespaceInWhichAllFeaturesWereUsedIsClean(t *testing.T) {
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			t.Parallel()
			w := populate(t, partitions)
			w.clean() // while jobs run, and peers beat
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
			_ = time.Now
		})
	}
}
