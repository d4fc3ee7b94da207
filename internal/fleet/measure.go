package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
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

// What the calls are measured with.
const (
	rounds     = 3000 // calls of each sort that carry one job
	large      = 500  // jobs of the calls that carry many
	callers    = 4    // connections, so that Redis reads several at a time
	standers   = 10_000
	partitions = 64
	payload    = 100
)

// A meter measures what one sort of call costs a redis-server: the CPU of the whole process, so that reading and answering
// count, and what goes over the network.
type meter struct {
	rdb   *redis.Client
	store *redisstore.Store
	out   io.Writer
}

type cost struct{ cpu, bytes float64 } // of one call: µs, and bytes in both directions

// measureCalls prints the costs in the form of the flags that take them.
func measureCalls(ctx context.Context, out io.Writer) error {
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: callers})
	defer rdb.Close()
	m := &meter{rdb, redisstore.New(rdb, redisstore.Options{Partitions: partitions}), out}
	if err := m.store.Open(ctx); err != nil {
		return err
	}
	if err := m.all(ctx); err != nil {
		return err
	}
	return m.memory(ctx)
}

// memory measures what a job takes that waits, is blocked by one parent, or has succeeded and is kept.
func (m *meter) memory(ctx context.Context) error {
	store := redisstore.New(m.rdb, redisstore.Options{Namespace: "memory", Partitions: 1})
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{})
	if err != nil {
		return err
	}
	defer client.Close()
	kind := dianemo.NewKind[string]("mail.send", dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.Unlimited}}})
	args := strings.Repeat("x", payload-2) // and the quotes
	const jobs = 60_000
	held := func(name string, change func() error) error {
		before, _, err := m.read(ctx)
		if err != nil {
			return err
		}
		if err := change(); err != nil {
			return err
		}
		after, _, err := m.read(ctx)
		fmt.Fprintf(m.out, "%-10s %7.0f bytes of memory per job\n", name, float64(after.Memory-before.Memory)/jobs)
		return err
	}
	fill := func(options func(i int) dianemo.Options) error {
		requests := make([]dianemo.Request, jobs)
		for i := range requests {
			requests[i] = kind.NewWith(args, options(i))
		}
		for some := range slices.Chunk(requests, 5000) {
			if _, err := client.EnqueueMany(ctx, some...); err != nil {
				return err
			}
		}
		return nil
	}
	parents := make([]dianemo.Request, 1000)
	for i := range parents {
		parents[i] = kind.NewWith(args, dianemo.Options{RunAt: time.Now().Add(time.Hour)})
	}
	ids, err := client.EnqueueMany(ctx, parents...)
	if err != nil {
		return err
	}
	err = held("blocked", func() error {
		return fill(func(i int) dianemo.Options {
			return dianemo.Options{Parents: dianemo.After(ids[i%len(ids)])}
		})
	})
	if err != nil {
		return err
	}
	if err := held("waiting", func() error { return fill(func(int) dianemo.Options { return dianemo.Options{} }) }); err != nil {
		return err
	}
	return held("to succeed", func() error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		left := atomic.Int64{}
		left.Store(jobs)
		hooks := &dianemo.Hooks{Settle: func(dianemo.SettleInfo) {
			if left.Add(-1) == 0 {
				stop()
			}
		}}
		peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: large, Load: dianemo.LoadConfig{Off: true}, Hooks: hooks, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		if err := kind.Handle(peer, func(context.Context, *dianemo.Job[string]) error { return nil }); err != nil {
			return err
		}
		return peer.Run(ctx)
	})
}

// of runs n calls and says what one cost.
func (m *meter) of(ctx context.Context, n int, call func(i int) error) (cost, error) {
	before, sent, err := m.read(ctx)
	if err != nil {
		return cost{}, err
	}
	var under sync.WaitGroup
	errs := make([]error, callers)
	for c := range callers {
		under.Go(func() {
			for i := c; i < n && errs[c] == nil; i += callers {
				errs[c] = call(i)
			}
		})
	}
	under.Wait()
	for _, err := range errs {
		if err != nil {
			return cost{}, err
		}
	}
	after, sentThen, err := m.read(ctx)
	return cost{float64((after.CPU - before.CPU).Microseconds()) / float64(n), float64(sentThen-sent) / float64(n)}, err
}

func (m *meter) read(ctx context.Context) (measure.ServerUsage, int64, error) {
	usage, err := measure.ReadServer(ctx, m.rdb)
	if err != nil {
		return usage, 0, err
	}
	info, err := m.rdb.Info(ctx, "stats").Result()
	var in, out int64
	fmt.Sscan(measure.InfoField(info, "total_net_input_bytes"), &in)
	fmt.Sscan(measure.InfoField(info, "total_net_output_bytes"), &out)
	return usage, in + out, err
}

// say prints what a call costs with one job, and each further one.
func (m *meter) say(name string, one, many cost, n int) {
	per := cost{(many.cpu - one.cpu) / float64(n-1), (many.bytes - one.bytes) / float64(n-1)}
	fmt.Fprintf(m.out, "%-10s %7.1f µs + %6.2f µs per job or run    %6.0f bytes + %5.0f\n", name, one.cpu-per.cpu, per.cpu, one.bytes-per.bytes, per.bytes)
}

func (m *meter) sayOne(name string, c cost) { m.say(name, c, c, 2) }

func (m *meter) all(ctx context.Context) error {
	var err error
	of := func(n int, call func(i int) error) (c cost) {
		if err == nil {
			c, err = m.of(ctx, n, call)
		}
		return c
	}
	number := 0 // of the last call
	lane := dianemo.Lane{Kind: "mail.send", Priority: 2, Grace: 24 * time.Hour}
	spec := dianemo.EncodeSpec(&dianemo.Spec{Kind: lane.Kind, Args: []byte(strings.Repeat("x", payload))})
	caller := func(i int) string { return fmt.Sprintf("host-%d-0123456789ab", i%callers) }

	var one, many [5]cost // enqueue, claim, beat, settle, and a claim that finds nothing
	for _, size := range []int{1, large} {
		calls, at := rounds, &one
		if size > 1 {
			calls, at = rounds/20, &many
		}
		base := number
		number += calls
		var mu sync.Mutex
		claimed := make([][]dianemo.Claimed, calls)
		at[0] = of(calls, func(i int) error {
			records := make([]dianemo.Record, size)
			for j := range records {
				records[j] = dianemo.Record{ID: fmt.Sprintf("0190aaaa-%04d-7%03d-8000-%012d", size, j, i), Lane: lane, Spec: spec}
			}
			_, err := m.store.Enqueue(ctx, 0, dianemo.Call{Caller: caller(i), Number: uint64(base + i + 1)}, records)
			return err
		})
		claim := dianemo.Claim{Limit: size, Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1, Reruns: 3}}, BeatEvery: 5 * time.Second, SilentAfter: 20 * time.Second}
		for q := range claim.Room {
			claim.Room[q] = size
		}
		at[1] = of(calls, func(i int) error {
			reply, err := m.store.Turn(ctx, 0, dianemo.Call{Caller: caller(i), Number: uint64(base + i + 1)}, nil, claim)
			mu.Lock()
			claimed[i] = reply.Jobs
			mu.Unlock()
			return err
		})
		at[2] = of(calls, func(i int) error {
			held := make([]dianemo.HeldRun, len(claimed[i]))
			for j, c := range claimed[i] {
				held[j] = dianemo.HeldRun{ID: c.ID, Epoch: c.Epoch}
			}
			_, err := m.store.Beat(ctx, 0, dianemo.Beat{Peer: caller(i), Every: 5 * time.Second, SilentAfter: 20 * time.Second, Runs: held})
			return err
		})
		at[3] = of(calls, func(i int) error {
			settle := make([]dianemo.Settlement, len(claimed[i]))
			for j, c := range claimed[i] {
				settle[j] = dianemo.Settlement{ID: c.ID, Lane: c.Lane, Epoch: c.Epoch, Outcome: dianemo.Succeed}
			}
			_, err := m.store.Turn(ctx, 0, dianemo.Call{Caller: caller(i), Number: uint64(base + i + 1)}, settle, dianemo.Claim{})
			return err
		})
		base = number
		number += calls
		at[4] = of(calls, func(i int) error {
			_, err := m.store.Turn(ctx, 0, dianemo.Call{Caller: caller(i), Number: uint64(base + i + 1)}, nil, claim)
			return err
		})
	}
	if err != nil {
		return err
	}
	for i, name := range []string{"enqueue", "claim", "beat", "settle"} {
		m.say(name, one[i], many[i], large)
	}
	m.sayOne("empty", one[4])

	if err := m.standing(ctx, of, func() error { return err }); err != nil {
		return err
	}
	single := redisstore.New(m.rdb, redisstore.Options{Namespace: "single", Partitions: 1})
	if err := single.Open(ctx); err != nil {
		return err
	}
	one[0] = of(rounds, func(int) error { _, err := single.Survey(ctx, nil); return err })
	many[0] = of(rounds, func(int) error { _, err := m.store.Survey(ctx, nil); return err })
	m.say("survey", one[0], many[0], partitions)
	return err
}

// standing measures what goes to the keys of the namespace, with many peers there.
func (m *meter) standing(ctx context.Context, of func(int, func(int) error) cost, failed func() error) error {
	kinds := map[string]int{}
	for i := range 10 {
		kinds[fmt.Sprintf("application.kind-%d", i)] = 1
	}
	names := slices.Collect(func(yield func(string) bool) {
		for name := range kinds {
			if !yield(name) {
				return
			}
		}
	})
	peer := func(i int) string { return fmt.Sprintf("host-%d-0123456789ab", i%standers) }
	stand := func(i int) error {
		stance := dianemo.Stance{Move: dianemo.Up, Level: 9, Load: rand.Float64() / 1000, Kinds: kinds}
		for q := 1; q <= 9; q++ {
			stance.Room[q] = 64
		}
		_, err := m.store.Turn(ctx, 0, dianemo.Call{Caller: peer(i), Number: uint64(1e6 + i)}, nil, dianemo.Claim{Stance: stance})
		return err
	}
	present := func(i int) error {
		_, err := m.store.Present(ctx, dianemo.PeerInfo{ID: peer(i), Host: peer(i), PID: 1234, Version: dianemo.Version, Started: time.Now(), Built: time.Now(),
			Tokens: 64, Available: 64, Kinds: names, SilentAfter: 20 * time.Second, LoadKnown: true}, false)
		return err
	}
	of(standers, present)
	of(standers, stand) // the first time, each says its kinds
	if err := failed(); err != nil {
		return err
	}
	channels := make([]string, standers)
	for i := range channels {
		channels[i] = "{dianemo}:tell:" + peer(i)
	}
	sub := m.rdb.Subscribe(ctx, channels...)
	defer sub.Close()
	for range channels { // until all are subscribed
		if _, err := sub.Receive(ctx); err != nil {
			return err
		}
	}
	go func() {
		for range sub.Channel() { // what is heard is taken off the connection
		}
	}()
	wake := func(kind string) func(int) error {
		return func(int) error {
			_, err := m.store.Wake(ctx, 17, dianemo.News{Kind: kind, Priority: 2}, "")
			return err
		}
	}
	m.sayOne("present", of(rounds, present))
	m.sayOne("stand", of(rounds, stand))
	m.sayOne("wake", of(rounds, wake(names[0])))
	m.sayOne("lead", of(rounds, func(i int) error {
		_, err := m.store.Lead(ctx, dianemo.Bid{Peer: peer(i), Lease: 15 * time.Second})
		return err
	}))
	m.sayOne("peers", of(rounds/100, func(int) error { _, err := m.store.Peers(ctx); return err }))
	m.sayOne("1000 seen", of(rounds/10, wake("nobodys"))) // a wake-up that looks at as many idle peers as it may, in vain
	if err := m.rdb.Del(ctx, "{dianemo}:idle").Err(); err != nil {
		return err
	}
	m.sayOne("nobody", of(rounds, wake(names[0])))
	return failed()
}
