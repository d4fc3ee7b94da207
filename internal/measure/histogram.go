package measure

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A Histogram counts durations in buckets that are each at most 1/64 wider than
// the one before, so that a quantile is at most 1.6 % too high, from a
// nanosecond to eighteen minutes. Anyone may add to it at any time. The zero
// value is empty.
type Histogram struct {
	counts [buckets]atomic.Uint64
}

const (
	fine    = 6 // bits of a value that are kept below its highest one
	largest = 40
	buckets = (largest - fine + 1) << fine
)

// bucketOf numbers the buckets: the values below 64 have one each, and each
// power of two above is cut into 64.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<fine {
		return int(v)
	}
	v = min(v, 1<<largest-1)
	shift := bits.Len64(v) - 1 - fine
	return (shift+1)<<fine + int(v>>shift) - 1<<fine
}

// upper is the largest duration of a bucket.
func upper(bucket int) time.Duration {
	if bucket < 1<<fine {
		return time.Duration(bucket)
	}
	shift := bucket>>fine - 1
	return time.Duration((uint64(bucket&(1<<fine-1))+1<<fine+1)<<shift - 1)
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) { h.counts[bucketOf(d)].Add(1) }

// Count is how many durations there are.
func (h *Histogram) Count() uint64 {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile is the least duration that the share q of all does not exceed, 0 if
// there are none. That of 1 is the longest.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank, seen := max(uint64(q*float64(n)+0.999999), 1), uint64(0)
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			return upper(i)
		}
	}
	return upper(buckets - 1)
}

// counted is what a histogram has been told, to be sent to another process:
// bucket → how many.
type counted map[int]uint64

// take empties the histogram.
func (h *Histogram) take() counted {
	c := counted{}
	for i := range h.counts {
		if n := h.counts[i].Swap(0); n > 0 {
			c[i] = n
		}
	}
	return c
}

func (h *Histogram) add(c counted) {
	for i, n := range c {
		if i >= 0 && i < buckets {
			h.counts[i].Add(n)
		}
	}
}

// A Bucket is how many durations there were above the one of the bucket before
// it, and up to this one.
type Bucket struct {
	UpToMicros float64 `json:"up_to_us"`
	Count      uint64  `json:"count"`
}

// Buckets are few enough to look at: two for each doubling.
func (h *Histogram) Buckets() []Bucket {
	var all []Bucket
	for i := range h.counts {
		n := h.counts[i].Load()
		if n == 0 {
			continue
		}
		end := Micros(upper(i | (1<<(fine-1) - 1)))
		if last := len(all) - 1; last >= 0 && all[last].UpToMicros == end {
			all[last].Count += n
			continue
		}
		all = append(all, Bucket{end, n})
	}
	return all
}

// Micros is d in microseconds.
func Micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
