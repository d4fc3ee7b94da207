// Command bench compares Dianemo with asynq, and with the floor: the least that a
// Redis can do for jobs that are leased, which is to push, pop and acknowledge them
// in batches. All do the same work on one redis-server of the program's own, in
// turn in each round, so that their ratios mean something on any machine that is
// quiet. It is a module of its own, so that rivals are no dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo/internal/measure"
	"github.com/dianemo/dianemo/internal/redistest"
)

const (
	payloadSize = 100
	callers     = 32
	bulkSize    = 500
	bulkCallers = 4
)

// A system runs jobs on a Redis that is empty when a figure begins. Handlers do
// nothing.
type system interface {
	name() string
	// enqueue adds n jobs one by one, from 32 callers.
	enqueue(ctx context.Context, n int) error
	// bulk adds n jobs in the best way that there is for many.
	bulk(ctx context.Context, n int) error
	// drain runs the n jobs that wait, so many at a time, and returns once all are
	// settled.
	drain(ctx context.Context, n, concurrency int) (time.Duration, error)
	// pickUp times jobs from the call that enqueues them to their handler, each when
	// the one before has ended; nil if there is nobody to wait for jobs.
	pickUp(ctx context.Context) (*measure.Histogram, error)
}

func main() {
	jobs := flag.Int("jobs", 100_000, "jobs that are enqueued and drained")
	rounds := flag.Int("rounds", 5, "rounds, of which medians are printed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, *jobs, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, jobs, rounds int) error {
	if jobs < 1000 || rounds < 1 {
		return errors.New("at least 1000 -jobs and one of -rounds are needed")
	}
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()
	c := &comparison{rdb: rdb, jobs: jobs, values: map[string]map[string][]float64{}}
	systems := []system{&dianemoSystem{server.Addr()}, &asynqSystem{server.Addr()}, newFloor(rdb)}
	info, err := rdb.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d CPUs, redis-server %s, %d jobs of %d bytes, medians of %d rounds\n\n", runtime.Version(), runtime.NumCPU(),
		measure.InfoField(info, "redis_version"), jobs, payloadSize, rounds)
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
		for _, take := range []func(context.Context, system) error{c.enqueue, c.wholeLife, c.few, c.pickUp} {
			for i := range systems { // nobody always comes first
				s := systems[(i+round)%len(systems)]
				if err := take(ctx, s); err != nil {
					return fmt.Errorf("%s: %w", s.name(), err)
				}
			}
		}
	}
	fmt.Print(c.table())
	return nil
}

// A comparison gathers what was measured: figure → system → a value each round.
type comparison struct {
	rdb    *redis.Client
	jobs   int
	values map[string]map[string][]float64
}

func (c *comparison) note(figure string, s system, value float64) {
	if c.values[figure] == nil {
		c.values[figure] = map[string][]float64{}
	}
	c.values[figure][s.name()] = append(c.values[figure][s.name()], value)
}

// median is -1 if there is none.
func (c *comparison) median(figure, system string) float64 {
	values := slices.Sorted(slices.Values(c.values[figure][system]))
	if len(values) == 0 {
		return -1
	}
	return values[len(values)/2]
}

// empty is the state in which each figure begins.
func (c *comparison) empty(ctx context.Context) error {
	runtime.GC()
	return c.rdb.FlushAll(ctx).Err() // waits until all is freed
}

func (c *comparison) enqueue(ctx context.Context, s system) error {
	if err := c.empty(ctx); err != nil {
		return err
	}
	n := c.jobs / 4 / callers * callers
	begin := time.Now()
	if err := s.enqueue(ctx, n); err != nil {
		return err
	}
	c.note(enqueueOne, s, float64(n)/time.Since(begin).Seconds())
	return nil
}

// wholeLife fills Redis, weighs it, and drains it.
func (c *comparison) wholeLife(ctx context.Context, s system) error {
	if err := c.empty(ctx); err != nil {
		return err
	}
	before, err := measure.ReadServer(ctx, c.rdb)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := s.bulk(ctx, c.jobs); err != nil {
		return err
	}
	filling := time.Since(begin)
	after, err := measure.ReadServer(ctx, c.rdb)
	if err != nil {
		return err
	}
	draining, err := s.drain(ctx, c.jobs, 512)
	if err != nil {
		return err
	}
	jobs := float64(c.jobs)
	c.note(enqueueBulk, s, jobs/filling.Seconds())
	c.note(memory, s, float64(after.Memory-before.Memory)/jobs)
	c.note(drain512, s, jobs/draining.Seconds())
	c.note(life, s, jobs/(filling+draining).Seconds())
	return nil
}

func (c *comparison) few(ctx context.Context, s system) error {
	if err := c.empty(ctx); err != nil {
		return err
	}
	if err := s.bulk(ctx, c.jobs); err != nil {
		return err
	}
	draining, err := s.drain(ctx, c.jobs, 64)
	if err == nil {
		c.note(drain64, s, float64(c.jobs)/draining.Seconds())
	}
	return err
}

func (c *comparison) pickUp(ctx context.Context, s system) error {
	if err := c.empty(ctx); err != nil {
		return err
	}
	delays, err := s.pickUp(ctx)
	if err == nil && delays != nil {
		c.note(pickUpP50, s, measure.Micros(delays.Quantile(0.5)))
		c.note(pickUpP99, s, measure.Micros(delays.Quantile(0.99)))
	}
	return err
}
