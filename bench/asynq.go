package main

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo/internal/measure"
)

const (
	asynqName = "asynq"
	taskType  = "bench.noop"
	// lookEach is how often asynq looks for tasks while there are none.
	lookEach = time.Millisecond
	// connections are more than go-redis's default, ten for each CPU, for which
	// hundreds of workers would queue.
	connections = 128
)

type asynqSystem struct{ addr string }

var payload = bytes.Repeat([]byte("x"), payloadSize)

func (a *asynqSystem) name() string { return asynqName }

func (a *asynqSystem) enqueue(_ context.Context, n int) error {
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: a.addr, PoolSize: connections})
	defer client.Close()
	jobs := shares(n, 1)
	return together(callers, func() error {
		for jobs() > 0 {
			if _, err := client.Enqueue(asynq.NewTask(taskType, payload)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *asynqSystem) bulk(ctx context.Context, n int) error { return a.enqueue(ctx, n) }

// with runs a server while fn runs.
func (a *asynqSystem) with(concurrency int, handler func(), fn func() error) error {
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: a.addr, PoolSize: connections},
		asynq.Config{Concurrency: concurrency, TaskCheckInterval: lookEach, LogLevel: asynq.FatalLevel})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		handler()
		return nil
	}))
	if err != nil {
		return err
	}
	defer server.Shutdown()
	return fn()
}

// drain ends when no task is active any more, which is before the server has: to
// shut down it waits for the next look.
func (a *asynqSystem) drain(ctx context.Context, n, concurrency int) (took time.Duration, err error) {
	rdb := redis.NewClient(&redis.Options{Addr: a.addr})
	defer rdb.Close()
	var done atomic.Int64
	last := make(chan struct{})
	begin := time.Now()
	err = a.with(concurrency, func() {
		if done.Add(1) == int64(n) {
			close(last)
		}
	}, func() error {
		if err := until(ctx, last); err != nil {
			return err
		}
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			active, err := rdb.LLen(ctx, "asynq:{default}:active").Result()
			if err != nil || active == 0 {
				took = time.Since(begin)
				return err
			}
			<-ticker.C
		}
	})
	return took, err
}

func (a *asynqSystem) pickUp(ctx context.Context) (*measure.Histogram, error) {
	client := asynq.NewClient(asynq.RedisClientOpt{Addr: a.addr, PoolSize: connections})
	defer client.Close()
	started := make(chan time.Time, 1)
	var h *measure.Histogram
	err := a.with(64, func() { started <- time.Now() }, func() (err error) {
		h, err = oneByOne(ctx, started, func() error {
			_, err := client.Enqueue(asynq.NewTask(taskType, payload))
			return err
		})
		return err
	})
	return h, err
}
