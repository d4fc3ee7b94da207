package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dianemo/dianemo/internal/measure"
)

// samples are how many jobs are timed in each round, after ten to warm up.
const (
	samples = 300
	warmUp  = 10
)

// together runs fn in n goroutines and waits for all.
func together(n int, fn func() error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// shares divides n among callers: each call returns up to size, 0 when there is no
// more.
func shares(n, size int) func() int {
	var taken atomic.Int64
	return func() int {
		from := int(taken.Add(int64(size))) - size
		return max(min(size, n-from), 0)
	}
}

// until waits for something to happen.
func until(ctx context.Context, happened <-chan struct{}) error {
	select {
	case <-happened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// oneByOne times jobs. They do not come at once after one another, or asynq's
// worker, which looks again as soon as it has run one, would never be idle.
func oneByOne(ctx context.Context, started <-chan time.Time, enqueue func() error) (*measure.Histogram, error) {
	var h measure.Histogram
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for i := range samples + warmUp {
		<-pause.C
		begin := time.Now()
		if err := enqueue(); err != nil {
			return nil, err
		}
		select {
		case at := <-started:
			if i >= warmUp {
				h.Add(at.Sub(begin))
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &h, nil
}
