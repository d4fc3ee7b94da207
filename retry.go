package dianemo

import (
	"math/rand/v2"
	"time"
)

// Every is a [Policy.RetryIn] that waits d after each failed attempt.
func Every(d time.Duration) func(attempt int, err error) time.Duration {
	return func(int, error) time.Duration { return d }
}

// Exponential is a [Policy.RetryIn] that waits about first after the first
// failed attempt and twice as long after each further one, at most limit. A
// random part of up to a quarter is taken off, so that jobs that failed
// together don't return together.
func Exponential(first, limit time.Duration) func(attempt int, err error) time.Duration {
	return func(attempt int, _ error) time.Duration { return backoff(attempt, first, limit) }
}

func backoff(attempt int, first, limit time.Duration) time.Duration {
	d := limit
	if shift := attempt - 1; shift < 62 && first<<shift>>shift == first {
		d = min(first<<max(shift, 0), limit)
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}
