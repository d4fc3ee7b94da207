// Command bench measures the library on a redis-server of its own, started on
// loopback and stopped at the end. Each figure is printed with what it is of;
// run it on a quiet machine, and compare only figures of one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

func main() {
	jobs := flag.Int("jobs", 200_000, "jobs that are enqueued in bulk and drained")
	rounds := flag.Int("rounds", 3, "rounds, of which the median is printed")
	only := flag.String("run", "", "only the figures whose names match this regular expression")
	load := flag.Bool("load", false, "let the peers give way to the load of the host, as they do by default")
	give := flag.Bool("giveway", false, "instead, show two peers that give way to a process that burns the CPU")
	many := flag.Int("schedules", 0, "instead, show what so many schedules cost, for example 10000")
	isWide := flag.Bool("wide", false, "instead, show what it gives that the longest path of a workflow goes first")
	links := flag.Int("chain", 0, "instead, run a chain of so many jobs, for example 1000")
	heirs := flag.Int("children", 0, "instead, run so many children of one parent, for example 100000")
	size := flag.Int("workflow", 0, "instead, run a workflow of so many jobs, for example 100000")
	if isPart, err := part(); isPart {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	measure := func() error { return run(*jobs, *rounds, *only, *load) }
	if *give {
		measure = giveWay
	} else if *many > 0 {
		measure = func() error { return schedules(*many) }
	} else if *isWide {
		measure = wide
	} else if *links > 0 {
		measure = func() error { return onFlows(*load, chain(*links)) }
	} else if *heirs > 0 {
		measure = func() error { return onFlows(*load, children(*heirs)) }
	} else if *size > 2 {
		measure = func() error { return onFlows(*load, workflow(*size)) }
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(jobs, rounds int, only string, load bool) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	b := &bench{rdb: redis.NewClient(&redis.Options{Addr: server.Addr()}), jobs: jobs, load: load}
	defer b.rdb.Close()
	version := field(b.rdb.Info(context.Background(), "server").Val(), "redis_version")
	fmt.Printf("%s, %d CPUs, redis-server %s, payload 100 bytes, %d jobs, medians of %d rounds\n\n", runtime.Version(), runtime.NumCPU(), version, jobs, rounds)
	figures := []struct {
		name, unit string
		measure    func() (float64, error)
	}{
		{"enqueue one by one from 32 callers", "jobs/s", func() (float64, error) { return b.callers(32, jobs/4) }},
		{"enqueue in bulk, 500 a call, 4 callers", "jobs/s", b.bulk},
		{"Redis memory of a waiting job", "bytes", b.memory},
		{"drain of no-op jobs, 512 tokens", "jobs/s", func() (float64, error) { return b.drain(512) }},
		{"drain of no-op jobs, 64 tokens", "jobs/s", func() (float64, error) { return b.drain(64) }},
		{"pick-up on an idle peer, p50", "µs", func() (float64, error) { return b.pickup(0.50) }},
		{"pick-up on an idle peer, p99", "µs", func() (float64, error) { return b.pickup(0.99) }},
		{"start of a future job after its time, p99", "µs", b.future},
		{"100 jobs/s on 50 idle peers, claims", "per job", b.claimsPerJob},
		{"100 jobs/s on 50 idle peers, pick-up p99", "µs", b.trickleP99},
		{"an idle peer, alone, 1 partition", "cmds/s", b.idle(1, 1)},
		{"an idle peer, alone, 16 partitions", "cmds/s", b.idle(1, 16)},
		{"an idle peer, one of 10, 16 partitions", "cmds/s", b.idle(10, 16)},
	}
	for _, f := range figures {
		if !match.MatchString(f.name) {
			continue
		}
		var values []float64
		times := rounds
		if f.unit == "cmds/s" {
			times = 1 // it is counted, and takes a minute
		}
		for range times {
			v, err := f.measure()
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			values = append(values, v)
		}
		slices.Sort(values)
		fmt.Printf("%-45s %10s %-7s (%s … %s)\n", f.name, figure(values[len(values)/2]), f.unit, figure(values[0]), figure(values[len(values)-1]))
	}
	return nil
}

// figure prints small values with two decimals.
func figure(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// A bench has a Redis; each measurement begins with it empty.
type bench struct {
	rdb  *redis.Client
	jobs int
	load bool
}

var (
	kind    = dianemo.NewKind[string]("bench.noop", dianemo.Policy{})
	payload = strings.Repeat("x", 98) // and two quotes
	quiet   = slog.New(slog.DiscardHandler)
)

func (b *bench) fresh() (*redisstore.Store, *dianemo.Client, error) {
	if err := b.rdb.FlushAll(context.Background()).Err(); err != nil {
		return nil, nil, err
	}
	store := redisstore.New(b.rdb, redisstore.Options{Namespace: "bench"})
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
	return store, client, err
}

// together runs n functions at once and returns how long they took.
func together(n int, fn func() error) (time.Duration, error) {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	begin := time.Now()
	for range n {
		wg.Go(func() {
			if err := fn(); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return time.Since(begin), nil
}

func (b *bench) callers(n, jobs int) (float64, error) {
	_, client, err := b.fresh()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	took, err := together(n, func() error {
		for range jobs / n {
			if _, err := kind.Enqueue(context.Background(), client, payload); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(jobs/n*n) / took.Seconds(), err
}

func (b *bench) fill(client *dianemo.Client) (time.Duration, error) {
	const callers, size = 4, 500
	return together(callers, func() error {
		requests := make([]dianemo.Request, size)
		for range b.jobs / callers / size {
			for i := range requests {
				requests[i] = kind.New(payload)
			}
			if _, err := client.EnqueueMany(context.Background(), requests...); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) bulk() (float64, error) {
	_, client, err := b.fresh()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	took, err := b.fill(client)
	return float64(b.jobs) / took.Seconds(), err
}

func (b *bench) memory() (float64, error) {
	_, client, err := b.fresh()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	used := func() float64 {
		n, _ := strconv.ParseFloat(field(b.rdb.Info(context.Background(), "memory").Val(), "used_memory"), 64)
		return n
	}
	before := used()
	if _, err := b.fill(client); err != nil {
		return 0, err
	}
	return (used() - before) / float64(b.jobs), nil
}

func field(info, name string) string {
	if m := regexp.MustCompile(`(?m)^` + name + `:([^\r\n]*)`).FindStringSubmatch(info); m != nil {
		return m[1]
	}
	return ""
}

// with runs a peer while fn runs.
func (b *bench) with(store dianemo.Store, tokens int, handler func(*dianemo.Job[string]) error, fn func() error) error {
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: tokens, Load: dianemo.LoadConfig{Off: !b.load}, Logger: quiet})
	if err != nil {
		return err
	}
	if err := kind.Handle(peer, func(_ context.Context, job *dianemo.Job[string]) error { return handler(job) }); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	err = fn()
	cancel()
	if ended := <-ended; err == nil {
		err = ended
	}
	return err
}

func (b *bench) drain(tokens int) (float64, error) {
	store, client, err := b.fresh()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if _, err := b.fill(client); err != nil {
		return 0, err
	}
	var done atomic.Int64
	last := make(chan struct{})
	begin := time.Now()
	// Run returns when the last result is stored.
	err = b.with(store, tokens, func(*dianemo.Job[string]) error {
		if done.Add(1) == int64(b.jobs) {
			close(last)
		}
		return nil
	}, func() error { <-last; return nil })
	return float64(b.jobs) / time.Since(begin).Seconds(), err
}

// started gives each job's time from begin to its handler.
func (b *bench) started(n int, options func(i int) dianemo.Options, from func(job *dianemo.Job[string], enqueued time.Time) time.Time, oneByOne bool) ([]time.Duration, error) {
	store, client, err := b.fresh()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var delays []time.Duration
	delay := make(chan time.Duration, n)
	var enqueued atomic.Pointer[time.Time]
	err = b.with(store, 64, func(job *dianemo.Job[string]) error {
		delay <- time.Since(from(job, *enqueued.Load()))
		return nil
	}, func() error {
		for i := range n + 10 { // the first ten warm up
			now := time.Now()
			enqueued.Store(&now)
			if _, err := kind.EnqueueWith(context.Background(), client, payload, options(i)); err != nil {
				return err
			}
			if oneByOne {
				if d := <-delay; i >= 10 {
					delays = append(delays, d)
				}
			}
		}
		for !oneByOne && len(delays) < n {
			delays = append(delays, <-delay)
		}
		return nil
	})
	slices.Sort(delays)
	return delays, err
}

// pickup is from the call of Enqueue to the handler.
func (b *bench) pickup(quantile float64) (float64, error) {
	delays, err := b.started(2000, func(int) dianemo.Options { return dianemo.Options{} },
		func(_ *dianemo.Job[string], enqueued time.Time) time.Time { return enqueued }, true)
	if err != nil {
		return 0, err
	}
	return micros(delays[int(float64(len(delays)-1)*quantile)]), nil
}

// future spreads jobs over two seconds, half a second from now.
func (b *bench) future() (float64, error) {
	begin := time.Now().Add(500 * time.Millisecond)
	delays, err := b.started(500, func(i int) dianemo.Options {
		return dianemo.Options{RunAt: begin.Add(time.Duration(i) * 4 * time.Millisecond)}
	}, func(job *dianemo.Job[string], _ time.Time) time.Time { return job.Due }, false)
	if err != nil {
		return 0, err
	}
	return micros(delays[len(delays)*99/100]), nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
