package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo/internal/measure"
)

const (
	floorName    = "floor"
	floorWorkers = 4
	floorBatch   = 100

	waitingKey = "{bench}:waiting"
	leasedKey  = "{bench}:leased"
)

// floor is the least that Redis can do for jobs that are leased. A job is a number
// and its payload, 100 bytes together: members of a sorted set must differ.
type floor struct {
	rdb  *redis.Client
	next atomic.Int64
	pop  *redis.Script
}

func newFloor(rdb *redis.Client) *floor {
	return &floor{rdb: rdb, pop: redis.NewScript(`
local jobs = redis.call('LPOP', KEYS[1], ARGV[1])
if not jobs then return {} end
local now = redis.call('TIME')
local until_ = now[1] + 30
local leases = {}
for i, job in ipairs(jobs) do
  leases[2 * i - 1], leases[2 * i] = until_, job
end
redis.call('ZADD', KEYS[2], unpack(leases))
return jobs`)}
}

func (f *floor) name() string { return floorName }

func (f *floor) job() string {
	number := fmt.Sprintf("%016d", f.next.Add(1))
	return number + strings.Repeat("x", payloadSize-len(number))
}

func (f *floor) push(ctx context.Context, n, size, workers int) error {
	calls := shares(n, size)
	return together(workers, func() error {
		jobs := make([]any, size)
		for size := calls(); size > 0; size = calls() {
			for i := range size {
				jobs[i] = f.job()
			}
			if err := f.rdb.RPush(ctx, waitingKey, jobs[:size]...).Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *floor) enqueue(ctx context.Context, n int) error { return f.push(ctx, n, 1, callers) }

func (f *floor) bulk(ctx context.Context, n int) error {
	return f.push(ctx, n, bulkSize, bulkCallers)
}

// drain pops a batch and acknowledges the one before in the same round trip. So
// many at a time as there are batches under way, whatever was asked for.
func (f *floor) drain(ctx context.Context, n, _ int) (time.Duration, error) {
	if err := f.pop.Load(ctx, f.rdb).Err(); err != nil {
		return 0, err
	}
	begin := time.Now()
	var done atomic.Int64
	err := together(floorWorkers, func() error {
		var held []any
		for {
			pipe := f.rdb.Pipeline()
			popped := pipe.EvalSha(ctx, f.pop.Hash(), []string{waitingKey, leasedKey}, floorBatch)
			if len(held) > 0 {
				pipe.ZRem(ctx, leasedKey, held...)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
			done.Add(int64(len(held)))
			var err error
			if held, err = popped.Slice(); err != nil {
				return err
			}
			if len(held) == 0 {
				return nil
			}
		}
	})
	took := time.Since(begin)
	if err == nil && done.Load() != int64(n) {
		err = errors.New("jobs are missing")
	}
	return took, err
}

func (f *floor) pickUp(context.Context) (*measure.Histogram, error) { return nil, nil }
