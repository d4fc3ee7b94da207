// Package embedded is a [dianemo.Store] that needs no server: the scripts of
// redisstore, run by miniredis inside this process. It is for a quick start and
// for tests, above all those that need a clock of their own: SetTime stops the
// store's clock, and in a bubble of testing/synctest a whole program runs by the
// bubble's. Nothing outlives the process, and no other process can reach it.
// Lanes of more than some thousand jobs make it slow.
package embedded

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
)

// Store is a redisstore.Store with a Redis of its own.
type Store struct {
	*redisstore.Store
	server *miniredis.Miniredis
	client *redis.Client

	mu  sync.Mutex
	now time.Time // zero: the real time
}

// connections are so many that no call waits for one. go-redis shares the timers of
// such waits among all clients of a process, and those of a bubble must not leave it.
const connections = 10_000

// New starts an embedded Redis, which is reached through memory alone. Close it
// when done.
func New(options redisstore.Options) (*Store, error) {
	server := miniredis.NewMiniRedis()
	first, err := server.Dial() // which starts it without a port
	if err != nil {
		return nil, fmt.Errorf("embedded: start: %w", err)
	}
	if err := first.Close(); err != nil {
		return nil, fmt.Errorf("embedded: start: %w", err)
	}
	server.ClockTTL(true) // leases and the memory of calls expire by its clock
	client := redis.NewClient(&redis.Options{
		Addr:                     "127.0.0.1:0", // never dialled; a name, or the default, would be looked up
		Dialer:                   dialer(server),
		PoolSize:                 connections,
		ReadTimeout:              -1, // nothing gets lost on the way, so an answer is only late
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	options.Plain = true
	return &Store{Store: redisstore.New(client, options), server: server, client: client}, nil
}

func dialer(server *miniredis.Miniredis) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		client, end := pipe()
		server.Server().ServeConn(end)
		return client, nil
	}
}

// Close stops the Redis; what it held is gone.
func (s *Store) Close() error {
	err := s.client.Close()
	s.server.Close()
	return err
}

// Client is a connection to the embedded Redis, for tests that look at it or
// break it.
func (s *Store) Client() *redis.Client { return s.client }

// SetTime stops the store's clock and sets it. From then on it moves only by
// SetTime and Advance. A peer's own timers go on in real time: they decide when
// it asks, the store's clock decides what is due. The leader is told to look at the
// schedules; what else is due it finds within a BeatEvery. A leap of more than its
// SilentAfter makes a peer silent, until its next beat.
func (s *Store) SetTime(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(t)
}

// Advance moves the store's clock. If it was running, it stops first.
func (s *Store) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.IsZero() {
		s.now = time.Now()
	}
	s.set(s.now.Add(d))
}

func (s *Store) set(t time.Time) {
	s.now = t
	s.server.SetTime(t)
	// Best effort, as all messages: what is not heard, a round finds.
	_ = s.Tell(context.Background(), "", dianemo.Message{Word: dianemo.FireNow, Partition: dianemo.Everywhere})
}
