package measure

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEachBucketBeginsWhereTheOneBeforeItEnds(t *testing.T) {
	t.Parallel()
	for i := range buckets - 1 {
		require.Equal(t, i, bucketOf(upper(i)))
		require.Equal(t, i+1, bucketOf(upper(i)+1))
	}
	require.Equal(t, 0, bucketOf(-time.Second))
	require.Equal(t, buckets-1, bucketOf(24*time.Hour))
}

func TestQuantilesAreThoseOfTheSortedDurationsButForOneSixtyFourth(t *testing.T) {
	t.Parallel()
	var h Histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rand.ExpFloat64() * float64(time.Millisecond))
		h.Add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.0001, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[int(q*10_000)-1]
		require.GreaterOrEqual(t, h.Quantile(q), exact, "%v", q)
		require.LessOrEqual(t, float64(h.Quantile(q)), float64(exact)*(1+1.0/64)+1, "%v", q)
	}
	require.EqualValues(t, 10_000, h.Count())
}

func TestAHistogramWithoutDurationsHasQuantilesOfNothing(t *testing.T) {
	t.Parallel()
	var h Histogram
	require.Zero(t, h.Quantile(0.5))
	require.Empty(t, h.Buckets())
}

func TestAHistogramIsToldToAnotherProcessWhole(t *testing.T) {
	t.Parallel()
	var from, to Histogram
	for _, d := range []time.Duration{0, 5, time.Microsecond, time.Second, time.Second} {
		from.Add(d)
	}
	to.Add(time.Minute)
	middle := from.Quantile(0.5)
	to.add(from.take())
	require.EqualValues(t, 6, to.Count())
	require.Zero(t, from.Count())
	require.Less(t, middle, to.Quantile(0.6))
	sum := uint64(0)
	for _, b := range to.Buckets() {
		sum += b.Count
	}
	require.EqualValues(t, 6, sum)
}
