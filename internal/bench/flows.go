package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/measure"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// onFlows measures what jobs that wait for others cost, on a Redis that notes its slow
// calls.
func onFlows(show func(b *bench) error) error {
	server, err := redistest.Launch("--slowlog-log-slower-than", "200", "--slowlog-max-len", "100000")
	if err != nil {
		return err
	}
	defer server.Close()
	b := &bench{rdb: redis.NewClient(&redis.Options{Addr: server.Addr()})}
	defer b.rdb.Close()
	return show(b)
}

// slow prints the longest calls of each script, named by its first key. On a busy machine
// the longest of all says how long Redis was kept from its CPU.
func (b *bench) slow() error {
	logs, err := b.rdb.SlowLogGet(context.Background(), -1).Result()
	if err != nil {
		return err
	}
	calls := map[string][]time.Duration{}
	for _, l := range logs {
		name := strings.ToLower(l.Args[0])
		if len(l.Args) > 3 && strings.HasPrefix(name, "eval") {
			_, key, _ := strings.Cut(l.Args[3], "}:")
			if call, ok := strings.CutPrefix(key, "call:"); ok {
				key, _, _ = strings.Cut(call, ":")
			}
			name = "script " + key
		}
		calls[name] = append(calls[name], l.Duration)
	}
	var names []string
	for name, all := range calls {
		names = append(names, name)
		slices.SortFunc(all, func(a, b time.Duration) int { return int(b - a) })
	}
	slices.SortFunc(names, func(a, b string) int { return int(calls[b][0] - calls[a][0]) })
	fmt.Println("  the longest calls, by what they are or by a script's first key:")
	for _, name := range names[:min(len(names), 8)] {
		all := calls[name]
		fmt.Printf("    %-22s %6.2f ms, the 10th longest %5.2f ms, median of the %d above 0.2 ms %.2f ms\n", name, measure.Micros(all[0])/1000,
			measure.Micros(all[min(9, len(all)-1)])/1000, len(all), measure.Micros(all[len(all)/2])/1000)
	}
	return b.rdb.SlowLogReset(context.Background()).Err()
}

// A watch says when jobs start and end.
type watch struct {
	mu          sync.Mutex
	first, last time.Time // starts of others than the one that counts as the parent
	parent      time.Time // its end, as its handler knows it
	left        atomic.Int64
	over        chan struct{}
}

func newWatch(jobs int) *watch {
	w := &watch{over: make(chan struct{})}
	w.left.Store(int64(jobs))
	return w
}

func (w *watch) handle(isParent func(*dianemo.Job[string]) bool) func(*dianemo.Job[string]) error {
	return func(job *dianemo.Job[string]) error {
		now := time.Now()
		w.mu.Lock()
		if isParent(job) {
			w.parent = now
		} else {
			if w.first.IsZero() {
				w.first = now
			}
			w.last = now
		}
		w.mu.Unlock()
		if w.left.Add(-1) == 0 {
			close(w.over)
		}
		return nil
	}
}

func (w *watch) wait() error {
	select {
	case <-w.over:
		return nil
	case <-time.After(5 * time.Minute):
		return fmt.Errorf("%d jobs did not start within 5 minutes", w.left.Load())
	}
}

// chain runs no-op jobs of which each is the parent of the next.
func chain(n int) func(b *bench) error {
	return func(b *bench) error {
		for _, how := range []string{"plain parents", "a workflow", "a workflow, spread over 16 partitions"} {
			if err := b.rdb.FlushAll(context.Background()).Err(); err != nil {
				return err
			}
			o := redisstore.Options{Namespace: "bench"}
			wf := dianemo.NewWorkflow("chain")
			if wf.Spread = strings.Contains(how, "spread"); wf.Spread {
				o.Partitions = 16
			}
			store := redisstore.New(b.rdb, o)
			client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
			if err != nil {
				return err
			}
			ctx := context.Background()
			last := strconv.Itoa(n - 1)
			begin := time.Now()
			if how == "plain parents" {
				var requests []dianemo.Request
				for i := range n {
					options := dianemo.Options{ID: strconv.Itoa(i)}
					if i > 0 {
						options.Parents = dianemo.After(strconv.Itoa(i - 1))
					}
					requests = append(requests, kind.NewWith(payload, options))
				}
				_, err = client.EnqueueMany(ctx, requests...)
			} else {
				for i := range n {
					job := wf.Add(strconv.Itoa(i), kind.New(payload))
					if i > 0 {
						job.After(strconv.Itoa(i - 1))
					}
				}
				last, err = client.Submit(ctx, wf)
			}
			if err != nil {
				return err
			}
			enqueued := time.Since(begin)
			begin = time.Now()
			var took time.Duration
			err = b.with(store, 64, func(*dianemo.Job[string]) error { return nil }, func() error {
				info, err := client.Wait(ctx, last)
				took = time.Since(begin)
				if err == nil && info.State != dianemo.Succeeded {
					err = errors.New("the chain ended " + string(info.State))
				}
				return err
			})
			client.Close()
			if err != nil {
				return err
			}
			fmt.Printf("a chain of %d no-op jobs, %s: enqueued in %.2f s, ran in %.2f s\n", n, how, enqueued.Seconds(), took.Seconds())
			if err := b.slow(); err != nil {
				return err
			}
		}
		return nil
	}
}

// children runs one parent and then its children.
func children(n int) func(b *bench) error {
	return func(b *bench) error {
		store, client, err := b.fresh()
		if err != nil {
			return err
		}
		defer client.Close()
		ctx := context.Background()
		if _, err := kind.EnqueueWith(ctx, client, payload, dianemo.Options{ID: "parent"}); err != nil {
			return err
		}
		begin := time.Now()
		for done := 0; done < n; {
			var requests []dianemo.Request
			for range min(500, n-done) {
				requests = append(requests, kind.NewWith(payload, dianemo.Options{Parents: dianemo.After("parent")}))
			}
			if _, err := client.EnqueueMany(ctx, requests...); err != nil {
				return err
			}
			done += len(requests)
		}
		fmt.Printf("%d children of one parent: enqueued in %.2f s\n", n, time.Since(begin).Seconds())
		if err := b.slow(); err != nil {
			return err
		}
		w := newWatch(n + 1)
		if err := b.with(store, 512, w.handle(func(job *dianemo.Job[string]) bool { return job.ID == "parent" }), w.wait); err != nil {
			return err
		}
		fmt.Printf("from the parent's end: the first child started after %.1f ms, the last after %.2f s\n",
			measure.Micros(w.first.Sub(w.parent))/1000, w.last.Sub(w.parent).Seconds())
		return b.slow()
	}
}

// workflow submits and runs one of n jobs: one, those that come after it, and one that comes
// after all of these.
func workflow(n int) func(b *bench) error {
	return func(b *bench) error {
		for _, partitions := range []int{1, 16} {
			if err := b.rdb.FlushAll(context.Background()).Err(); err != nil {
				return err
			}
			store := redisstore.New(b.rdb, redisstore.Options{Namespace: "bench", Partitions: partitions})
			client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
			if err != nil {
				return err
			}
			wf := dianemo.NewWorkflow("wide")
			wf.Spread = partitions > 1
			wf.Add("first", kind.New(payload))
			names := make([]string, n-2)
			for i := range names {
				names[i] = strconv.Itoa(i)
				wf.Add(names[i], kind.New(payload)).After("first")
			}
			wf.Add("last", kind.New(payload)).After(names...)
			w := newWatch(n)
			var submitted, ended time.Time
			begin := time.Now()
			err = b.with(store, 512, w.handle(func(job *dianemo.Job[string]) bool { return job.Name == "first" }), func() error {
				id, err := client.Submit(context.Background(), wf)
				if err != nil {
					return err
				}
				submitted = time.Now()
				if err := w.wait(); err != nil {
					return err
				}
				info, err := client.Wait(context.Background(), id)
				ended = time.Now()
				if err == nil && info.State != dianemo.Succeeded {
					err = errors.New("the workflow ended " + string(info.State))
				}
				return err
			})
			client.Close()
			if err != nil {
				return err
			}
			fmt.Printf("a workflow of %d jobs, %d partitions: submitted in %.2f s, its first job started %.1f ms after that, the next %.1f ms later, it ended %.2f s after it was submitted\n",
				n, partitions, submitted.Sub(begin).Seconds(), measure.Micros(w.parent.Sub(submitted))/1000, measure.Micros(w.first.Sub(w.parent))/1000, ended.Sub(submitted).Seconds())
			if err := b.slow(); err != nil {
				return err
			}
		}
		return nil
	}
}
