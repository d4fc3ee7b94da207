package main

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
)

// A counting store counts the claims that go through it.
type counting struct {
	dianemo.Store
	claims *atomic.Int64
}

func (c counting) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	if claim.Limit > 0 {
		c.claims.Add(1)
	}
	return c.Store.Turn(ctx, partition, call, settle, claim)
}

// sent is a client's hook that counts the commands that it sends.
type sent struct{ commands *atomic.Int64 }

func (s sent) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s sent) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "hello" && cmd.Name() != "client" {
			s.commands.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (s sent) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "hello" }) {
			s.commands.Add(int64(len(cmds)))
		}
		return next(ctx, cmds)
	}
}

// A fleet is n idle peers with clients of their own.
type fleet struct {
	claims, commands atomic.Int64
	producer         *dianemo.Client
	done             chan time.Duration // from the enqueue to the start, of each job
	stop             func() error
}

func (b *bench) fleet(n, partitions int) (*fleet, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.rdb.FlushAll(ctx).Err(); err != nil {
		cancel()
		return nil, err
	}
	f := &fleet{done: make(chan time.Duration, 1<<16)}
	ended := make(chan error, n)
	var clients []*redis.Client
	f.stop = func() (err error) {
		cancel()
		for range clients {
			if one := <-ended; one != nil {
				err = one
			}
		}
		f.producer.Close()
		for _, c := range clients {
			c.Close()
		}
		return err
	}
	options := redisstore.Options{Namespace: "bench", Partitions: partitions}
	var err error
	if f.producer, err = dianemo.NewClient(redisstore.New(b.rdb, options), dianemo.ClientConfig{Logger: quiet}); err != nil {
		cancel()
		return nil, err
	}
	for range n {
		rdb := redis.NewClient(&redis.Options{Addr: b.rdb.Options().Addr})
		rdb.AddHook(sent{&f.commands})
		peer, err := dianemo.NewPeer(counting{redisstore.New(rdb, options), &f.claims}, dianemo.Config{Tokens: 16, Logger: quiet})
		if err == nil {
			err = kind.Handle(peer, func(_ context.Context, job *dianemo.Job[string]) error {
				at, err := time.Parse(time.RFC3339Nano, job.Headers["at"])
				f.done <- time.Since(at)
				return err
			})
		}
		clients = append(clients, rdb)
		if err != nil {
			ended <- err
			return nil, f.stop()
		}
		go func() { ended <- peer.Run(ctx) }()
	}
	for {
		peers, err := f.producer.Peers(ctx)
		if err != nil {
			return nil, f.stop()
		}
		if len(peers) == n {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(time.Second) // all have looked around and are idle
	return f, nil
}

func (f *fleet) enqueue() error {
	_, err := kind.EnqueueWith(context.Background(), f.producer, strings.Clone(payload),
		dianemo.Options{Headers: map[string]string{"at": time.Now().Format(time.RFC3339Nano)}})
	return err
}

// trickle is 100 jobs a second on 50 idle peers: claims per job, or the
// quantile of the time from enqueue to start.
func (b *bench) trickle(measure func(f *fleet, delays []time.Duration) float64) (float64, error) {
	f, err := b.fleet(50, 1)
	if err != nil {
		return 0, err
	}
	const jobs = 500
	f.claims.Store(0)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	delays := make([]time.Duration, 0, jobs)
	for range jobs {
		<-ticker.C
		if err := f.enqueue(); err != nil {
			return 0, err
		}
	}
	for range jobs {
		delays = append(delays, <-f.done)
	}
	slices.Sort(delays)
	value := measure(f, delays)
	return value, f.stop()
}

func (b *bench) claimsPerJob() (float64, error) {
	return b.trickle(func(f *fleet, delays []time.Duration) float64 { return float64(f.claims.Load()) / float64(len(delays)) })
}

func (b *bench) trickleP99() (float64, error) {
	return b.trickle(func(_ *fleet, delays []time.Duration) float64 { return micros(delays[len(delays)*99/100]) })
}

// idle is the commands a second that each of n idle peers sends.
func (b *bench) idle(n, partitions int) func() (float64, error) {
	return func() (float64, error) {
		f, err := b.fleet(n, partitions)
		if err != nil {
			return 0, err
		}
		f.commands.Store(0)
		const seconds = 60 // chores come round once a minute
		time.Sleep(seconds * time.Second)
		commands := f.commands.Load()
		return float64(commands) / seconds / float64(n), f.stop()
	}
}
