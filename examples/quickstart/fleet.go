package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Each peer carries 20 tokens' worth of jobs at a time. Only priority 1 may use
// the last four.
const (
	peers   = 3
	tokens  = 20
	reserve = 4
)

// A fleet is the peers, and a client to enqueue and to read with.
type fleet struct {
	backend *backend
	client  *dianemo.Client
	members []*member

	running sync.WaitGroup
	mu      sync.Mutex
	errs    []error // of those that ran
}

// A member is one peer, as it would stand in a program of its own.
type member struct {
	number int
	peer   *dianemo.Peer
	redis  *redis.Client
	stop   context.CancelFunc
	dead   atomic.Bool // by -kill

	mu    sync.Mutex
	inUse int // tokens
	peak  int
}

func newFleet(ctx context.Context, s settings, report *report, kill *kill, logger *slog.Logger) (*fleet, error) {
	backend, err := openBackend(ctx, s.redis)
	if err != nil {
		return nil, err
	}
	config := dianemo.Config{
		Tokens:  tokens,
		Reserve: map[int]int{1: reserve},
		// After Ctrl-C: what running jobs are given to finish, and then to return.
		Finish:     2 * time.Second,
		StuckAfter: 2 * time.Second,
		// A demonstration is to finish on a busy machine, too. Without this the
		// peers would give way to whatever else uses its CPUs.
		Load:   dianemo.LoadConfig{Off: true},
		Logger: logger,
	}
	if s.kill {
		kill.hasten(&config)
	}
	f := &fleet{backend: backend}
	_, store := backend.connect()
	if f.client, err = dianemo.NewClient(store, dianemo.ClientConfig{Logger: logger}); err != nil {
		f.close()
		return nil, err
	}
	for n := 1; n <= peers; n++ {
		m := &member{number: n}
		config.Hooks = &dianemo.Hooks{
			Claim: func(c dianemo.ClaimInfo) {
				m.charge(c.Weight)
				kill.claimed(m)
			},
			Settle: report.settled,
			Miss:   report.missed,
			Reap: func(r dianemo.ReapInfo) {
				kill.reaped(m, r)
				report.reaped(r)
			},
		}
		if err := m.join(backend, config); err != nil {
			f.close()
			return nil, err
		}
		f.members = append(f.members, m)
	}
	return f, nil
}

// join is all that a program does to become a peer, but for Run.
func (m *member) join(backend *backend, config dianemo.Config) (err error) {
	rdb, store := backend.connect()
	m.redis = rdb
	if m.peer, err = dianemo.NewPeer(store, config); err != nil {
		return err
	}
	return Digest.Handle(m.peer, func(ctx context.Context, job *dianemo.Job[File]) error {
		defer m.charge(-job.Weight)
		return digest(ctx, job)
	})
}

// charge counts the tokens in use. A job is charged from its claim until its
// handler has returned. That is before it is settled, so the hook for settle
// would be late: the next job may have its tokens by then.
func (m *member) charge(weight int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inUse += weight
	m.peak = max(m.peak, m.inUse)
}

func (m *member) charged() (now, peak int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inUse, m.peak
}

// start lets the peers run until ctx ends. When one fails, it calls giveUp.
func (f *fleet) start(ctx context.Context, giveUp func()) {
	for _, m := range f.members {
		var own context.Context
		own, m.stop = context.WithCancel(ctx)
		f.running.Go(func() {
			defer m.stop()
			err := m.peer.Run(own)
			if err == nil || m.dead.Load() {
				return
			}
			f.mu.Lock()
			f.errs = append(f.errs, fmt.Errorf("peer %d: %w", m.number, err))
			f.mu.Unlock()
			giveUp()
		})
	}
}

// wait returns when all peers have shut down.
func (f *fleet) wait() error {
	f.running.Wait()
	return errors.Join(f.errs...)
}

func (f *fleet) close() error {
	if f.client != nil {
		f.client.Close()
	}
	return f.backend.close()
}

// line says what the peers carry now.
func (f *fleet) line() string {
	use := make([]string, len(f.members))
	for i, m := range f.members {
		now, _ := m.charged()
		use[i] = fmt.Sprintf("%2d", now)
	}
	return "   tokens in use " + strings.Join(use, " ")
}

// byID finds a member by its peer's id.
func (f *fleet) byID(id string) *member {
	for _, m := range f.members {
		if m.peer.ID() == id {
			return m
		}
	}
	return nil
}
