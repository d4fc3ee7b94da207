package main

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/measure"
	"github.com/dianemo/dianemo/redisstore"
)

const dianemoName = "Dianemo"

type dianemoSystem struct{ addr string }

var (
	kind  = dianemo.NewKind[string]("bench.noop", dianemo.Policy{})
	text  = strings.Repeat("x", payloadSize-2) // and two quotes
	quiet = slog.New(slog.DiscardHandler)
)

func (d *dianemoSystem) name() string { return dianemoName }

// open makes a store with connections of its own, and a client.
func (d *dianemoSystem) open() (dianemo.Store, *dianemo.Client, func(), error) {
	rdb := redis.NewClient(&redis.Options{Addr: d.addr})
	store := redisstore.New(rdb, redisstore.Options{Namespace: "bench"})
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
	if err != nil {
		rdb.Close()
		return nil, nil, nil, err
	}
	return store, client, func() {
		client.Close()
		rdb.Close()
	}, nil
}

func (d *dianemoSystem) enqueue(ctx context.Context, n int) error {
	_, client, end, err := d.open()
	if err != nil {
		return err
	}
	defer end()
	return together(callers, func() error {
		for range n / callers {
			if _, err := kind.Enqueue(ctx, client, text); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *dianemoSystem) bulk(ctx context.Context, n int) error {
	_, client, end, err := d.open()
	if err != nil {
		return err
	}
	defer end()
	calls := shares(n, bulkSize)
	return together(bulkCallers, func() error {
		requests := make([]dianemo.Request, bulkSize)
		for size := calls(); size > 0; size = calls() {
			for i := range size {
				requests[i] = kind.New(text)
			}
			if _, err := client.EnqueueMany(ctx, requests[:size]...); err != nil {
				return err
			}
		}
		return nil
	})
}

// with runs a peer while fn runs; Run returns when all results are stored.
func (d *dianemoSystem) with(tokens int, handler func(), fn func(*dianemo.Client) error) error {
	store, client, end, err := d.open()
	if err != nil {
		return err
	}
	defer end()
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: tokens, Load: dianemo.LoadConfig{Off: true}, Logger: quiet})
	if err != nil {
		return err
	}
	err = kind.Handle(peer, func(context.Context, *dianemo.Job[string]) error {
		handler()
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	err = fn(client)
	cancel()
	if ended := <-ended; err == nil {
		err = ended
	}
	return err
}

func (d *dianemoSystem) drain(ctx context.Context, n, concurrency int) (time.Duration, error) {
	var done atomic.Int64
	last := make(chan struct{})
	begin := time.Now()
	err := d.with(concurrency, func() {
		if done.Add(1) == int64(n) {
			close(last)
		}
	}, func(*dianemo.Client) error { return until(ctx, last) })
	return time.Since(begin), err
}

func (d *dianemoSystem) pickUp(ctx context.Context) (*measure.Histogram, error) {
	started := make(chan time.Time, 1)
	var h *measure.Histogram
	err := d.with(64, func() { started <- time.Now() }, func(client *dianemo.Client) (err error) {
		h, err = oneByOne(ctx, started, func() error {
			_, err := kind.Enqueue(ctx, client, text)
			return err
		})
		return err
	})
	return h, err
}
