package suite

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// Quiet is for tests in which warnings are expected.
var Quiet = slog.New(slog.DiscardHandler)

// Quick settings make a leader soon, and again when a store's clock has leapt.
var Quick = dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Second}

// A Running peer, and what it settled.
type Running struct {
	*dianemo.Peer
	Settled chan dianemo.SettleInfo
	Beats   chan dianemo.BeatInfo
	End     context.CancelFunc // of Run's context

	t     *testing.T
	ended chan error
}

// Start makes a peer, lets register give it handlers, and runs it until Stop or
// the test's end. BeatEvery is an hour unless set: what a test sees soon, a tick
// did not do. The load is off unless the test has a source of it.
func Start(t *testing.T, store dianemo.Store, config dianemo.Config, register func(p *dianemo.Peer)) *Running {
	t.Helper()
	r := &Running{t: t, Settled: make(chan dianemo.SettleInfo, 10000), Beats: make(chan dianemo.BeatInfo, 10000), ended: make(chan error, 1)}
	if config.BeatEvery == 0 {
		config.BeatEvery = time.Hour
	}
	if config.Logger == nil {
		config.Logger = Quiet
	}
	config.Load.Off = config.Load.Source == nil
	hooks := dianemo.Hooks{}
	if config.Hooks != nil {
		hooks = *config.Hooks
	}
	hooks.Settle = func(i dianemo.SettleInfo) { r.Settled <- i }
	hooks.Beat = func(i dianemo.BeatInfo) { r.Beats <- i }
	config.Hooks = &hooks
	p, err := dianemo.NewPeer(store, config)
	require.NoError(t, err)
	register(p)
	r.Peer = p
	ctx, cancel := context.WithCancel(t.Context())
	r.End = cancel
	go func() { r.ended <- p.Run(ctx) }()
	t.Cleanup(func() { cancel(); r.Stopped() })
	return r
}

// Stop ends the peer and returns what Run returned.
func (r *Running) Stop() error {
	r.End()
	return r.Stopped()
}

// Stopped waits until Run has returned, and returns what it returned.
func (r *Running) Stopped() error {
	r.t.Helper()
	err := Receive(r.t, r.ended)
	r.ended <- err // for the next who asks
	return err
}

// Next is the next run to be settled.
func (r *Running) Next() dianemo.SettleInfo {
	r.t.Helper()
	return Receive(r.t, r.Settled)
}
