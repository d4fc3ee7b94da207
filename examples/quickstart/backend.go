package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// A backend is the Redis that keeps the jobs: one inside this process, or that
// of -redis.
type backend struct {
	server  *embedded.Store // nil with -redis
	redis   redis.Options
	options redisstore.Options
	clients []*redis.Client
}

func openBackend(ctx context.Context, given *redis.Options) (*backend, error) {
	if given == nil {
		server, err := embedded.New(redisstore.Options{})
		if err != nil {
			return nil, err
		}
		// Peers that share a process may share server itself, which is a Store.
		return &backend{server: server, redis: *server.Client().Options(), options: redisstore.Options{Plain: true}}, nil
	}
	b := &backend{redis: *given, options: redisstore.Options{Namespace: "quickstart-" + strings.ToLower(rand.Text()[:8])}}
	// A peer waits for a Redis that is away. Here it is more likely mistyped.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	rdb, _ := b.connect()
	if err := rdb.Ping(ctx).Err(); err != nil {
		_ = rdb.Close()
		return nil, fmt.Errorf("no Redis at %s: %w", given.Addr, err)
	}
	return b, nil
}

// connect returns a store with a connection pool of its own, as another process
// would have.
func (b *backend) connect() (*redis.Client, *redisstore.Store) {
	options := b.redis
	rdb := redis.NewClient(&options)
	b.clients = append(b.clients, rdb)
	return rdb, redisstore.New(rdb, b.options)
}

// String says where the jobs are.
func (b *backend) String() string {
	if b.server != nil {
		return "embedded"
	}
	return fmt.Sprintf("Redis at %s, namespace %s", b.redis.Addr, b.options.Namespace)
}

// close leaves nothing behind.
func (b *backend) close() error {
	var err error
	if b.server != nil {
		err = b.server.Close()
	} else if err = b.deleteKeys(); err != nil {
		err = fmt.Errorf("the keys of namespace %s are still in Redis: %w", b.options.Namespace, err)
	}
	for _, rdb := range b.clients {
		_ = rdb.Close() // nothing more is sent
	}
	return err
}

// deleteKeys deletes the run's namespace, also when Ctrl-C has ended everything
// else. The namespace's keys begin with {namespace} or, by partition, with
// {namespace:0}.
func (b *backend) deleteKeys() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	options := b.redis
	rdb := redis.NewClient(&options)
	defer rdb.Close()
	keys := rdb.Scan(ctx, 0, "{"+b.options.Namespace+"[:}]*", 1000).Iterator()
	for keys.Next(ctx) {
		if err := rdb.Unlink(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
	return keys.Err()
}

// silent keeps go-redis from writing across the progress line. What it would say
// comes back as errors too.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
