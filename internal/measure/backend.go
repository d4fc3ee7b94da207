package measure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// Where the jobs are.
const (
	Given = "given"
	Own   = "own"
	Inner = "embedded"
)

// A backend is the Redis that is measured: one that somebody gave, a redis-server
// of the benchmark's own, or the embedded one.
type backend struct {
	Backend
	url    string // redis://…
	server *redistest.Server
	inner  *miniredis.Miniredis
	rdb    *redis.Client
	undo   map[string]string // settings of a Redis that were changed
}

// A Backend is what a report says about the Redis.
type Backend struct {
	Kind      string `json:"kind"`    // given, own or embedded
	Address   string `json:"address"` // host:port
	Version   string `json:"version"` // of redis-server; "" if embedded
	Namespace string `json:"namespace"`
	Why       string `json:"why,omitempty"` // it is the embedded one
}

const reachWithin = 3 * time.Second

func openBackend(ctx context.Context, s Settings) (*backend, error) {
	b := &backend{Backend: Backend{Namespace: "dianemo-bench-" + strings.ToLower(rand.Text()[:10])}, undo: map[string]string{}}
	if s.Redis != "" {
		b.Kind, b.url = Given, s.Redis
		if !strings.Contains(b.url, "://") {
			b.url = "redis://" + b.url
		}
	} else if why := b.launch(s.Embedded); why != nil {
		// That of package embedded, but on a port: peers in processes of their own reach it too.
		inner, err := miniredis.Run()
		if err != nil {
			return nil, err
		}
		inner.ClockTTL(true)
		b.Kind, b.Why, b.inner, b.url = Inner, why.Error(), inner, "redis://"+inner.Addr()
	}
	options, err := redis.ParseURL(b.url)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--redis: %w", err), b.stop())
	}
	options.ContextTimeoutEnabled = true // Ctrl-C ends calls to a Redis that hangs, too
	b.Address = options.Addr
	b.rdb = redis.NewClient(options)
	if err := b.look(ctx); err != nil {
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

// launch starts a redis-server; the error says why there is none.
func (b *backend) launch(not bool) error {
	if not {
		return errors.New("asked for")
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		return errors.New("no redis-server on PATH")
	}
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	b.Kind, b.server, b.url = Own, server, "redis://"+server.Addr()
	return nil
}

// look makes sure that it is a Redis that the benchmark can use.
func (b *backend) look(ctx context.Context) error {
	if b.inner != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	info, err := b.rdb.Info(ctx, "server", "cluster").Result()
	var network *net.OpError
	switch {
	case errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no Redis at %s: %w", b.Address, err)
	case err != nil:
		return fmt.Errorf("the Redis at %s can't be measured: %w", b.Address, err)
	}
	b.Version = InfoField(info, "redis_version")
	major, _, _ := strings.Cut(b.Version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 7 {
		return fmt.Errorf("the Redis at %s is of version %s: 7 or newer is needed", b.Address, b.Version)
	}
	if InfoField(info, "cluster_enabled") == "1" {
		return fmt.Errorf("the Redis at %s is a node of a Cluster, which the benchmark does not know", b.Address)
	}
	return nil
}

// store makes a store with a client of its own, which the caller closes.
func (s *spec) store(hooks ...redis.Hook) (*redis.Client, *redisstore.Store, error) {
	options, err := redis.ParseURL(s.URL)
	if err != nil {
		return nil, nil, err
	}
	rdb := redis.NewClient(options)
	for _, h := range hooks {
		rdb.AddHook(h)
	}
	return rdb, redisstore.New(rdb, redisstore.Options{Namespace: s.Namespace, Partitions: s.Partitions, Plain: s.Plain}), nil
}

// usage is what the redis-server has used; nothing of the embedded one, which is
// part of this process.
func (b *backend) usage(ctx context.Context) (ServerUsage, error) {
	if b.inner != nil {
		return ServerUsage{}, nil
	}
	return ReadServer(ctx, b.rdb)
}

// clear deletes the namespace's keys, which begin with {namespace} or, by
// partition, with {namespace:0}, and waits until Redis has freed them.
func (b *backend) clear(ctx context.Context) error {
	keys := b.rdb.Scan(ctx, 0, "{"+b.Namespace+"[:}]*", 1000).Iterator()
	for keys.Next(ctx) {
		if err := b.rdb.Unlink(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
	if err := keys.Err(); err != nil {
		return err
	}
	if b.inner != nil {
		return nil
	}
	until, cancel := context.WithTimeout(ctx, 10*time.Second) // others may be freeing too, without end
	defer cancel()
	for {
		info, err := b.rdb.Info(ctx, "memory").Result()
		if err != nil {
			return err
		}
		if InfoField(info, "lazyfree_pending_objects") == "0" || wait(until, 20*time.Millisecond) != nil {
			return ctx.Err()
		}
	}
}

const tidyWithin = 30 * time.Second

// close leaves nothing behind, also when everything else was ended.
func (b *backend) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), tidyWithin)
	defer cancel()
	var err error
	for name, value := range b.undo {
		if e := b.rdb.ConfigSet(ctx, name, value).Err(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s of the Redis at %s is not yet %s again: %w", name, b.Address, value, e))
		}
	}
	if b.Kind == Given {
		if e := b.clear(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("keys of namespace %s are still in the Redis at %s: %w", b.Namespace, b.Address, e))
		}
	}
	return errors.Join(err, b.stop())
}

func (b *backend) stop() error {
	var err error
	if b.rdb != nil {
		_ = b.rdb.Close() // nothing more is sent
	}
	if b.server != nil {
		err = b.server.Close()
	}
	if b.inner != nil {
		b.inner.Close()
	}
	return err
}

// wait is over when the time is, or the context.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
