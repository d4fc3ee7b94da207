package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// sent is what real peers have sent, by sort.
type sent [sorts]atomic.Int64

// counting is a store that counts what the library asks of it, and tells of each time that a peer shows itself.
type counting struct {
	dianemo.Store
	counts *sent
	shown  chan struct{}
}

func (c counting) Turn(ctx context.Context, partition int, call dianemo.Call, settled []dianemo.Settlement, claims dianemo.Claim) (dianemo.TurnReply, error) {
	reply, err := c.Store.Turn(ctx, partition, call, settled, claims)
	if len(settled) > 0 {
		c.counts[settle].Add(1)
	}
	if claims.Stance.Move != 0 {
		c.counts[stand].Add(1)
	}
	if claims.Limit > 0 && len(reply.Jobs) > 0 {
		c.counts[claim].Add(1)
	} else if claims.Limit > 0 {
		c.counts[empty].Add(1)
	}
	return reply, err
}

func (c counting) Beat(ctx context.Context, partition int, b dianemo.Beat) (dianemo.BeatReply, error) {
	c.counts[beat].Add(1)
	return c.Store.Beat(ctx, partition, b)
}

func (c counting) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	c.counts[survey].Add(1)
	return c.Store.Survey(ctx, chore)
}

func (c counting) Wake(ctx context.Context, partition int, n dianemo.News, except string) (bool, error) {
	told, err := c.Store.Wake(ctx, partition, n, except)
	if told {
		c.counts[wake].Add(1)
	} else {
		c.counts[nobody].Add(1)
	}
	return told, err
}

func (c counting) Present(ctx context.Context, p dianemo.PeerInfo, gone bool) (bool, error) {
	c.counts[present].Add(1)
	drained, err := c.Store.Present(ctx, p, gone)
	select {
	case c.shown <- struct{}{}:
	case <-ctx.Done():
	}
	return drained, err
}

func (c counting) Lead(ctx context.Context, b dianemo.Bid) (dianemo.Lease, error) {
	c.counts[lead].Add(1)
	return c.Store.Lead(ctx, b)
}

// real runs peers of the library as the settings say, on the embedded Redis and in virtual time, and counts what they send from when they have shown themselves warm
// times each until they have done so beats times more, for each of these.
func real(t *testing.T, s Settings, warm, beats int) (each [sorts]float64, first [sorts]int64) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	store, err := embedded.New(redisstore.Options{Partitions: s.Partitions})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{})
	require.NoError(t, err)
	defer client.Close()
	kind := dianemo.NewKind[int]("kind", dianemo.Policy{})
	var requests []dianemo.Request
	for i := range s.Backlog {
		due := time.Now().Add(time.Duration(i-s.Backlog) * time.Millisecond)
		requests = append(requests, kind.NewWith(i, dianemo.Options{RunAt: due}))
	}
	_, err = client.EnqueueMany(t.Context(), requests...)
	require.NoError(t, err)

	var counts sent
	shown, ends := make(chan struct{}), make(chan error, s.Peers)
	for i := range s.Peers {
		p, err := dianemo.NewPeer(counting{store, &counts, shown}, dianemo.Config{Tokens: s.Tokens, BeatEvery: s.Beat, Lease: s.Lease,
			Finish: dianemo.None, Load: dianemo.LoadConfig{Off: true}})
		require.NoError(t, err)
		require.NoError(t, kind.Handle(p, func(ctx context.Context, _ *dianemo.Job[int]) error {
			timer := time.NewTimer(time.Duration(rand.ExpFloat64() * float64(s.Takes)))
			defer timer.Stop()
			select {
			case <-timer.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}))
		go func() {
			time.Sleep(s.Spread * time.Duration(i) / time.Duration(s.Peers))
			ends <- p.Run(ctx)
		}()
	}
	for range warm * s.Peers {
		<-shown
	}
	for i := range counts {
		first[i] = counts[i].Swap(0)
	}
	for range beats * s.Peers {
		<-shown
	}
	for i := range counts {
		each[i] = float64(counts[i].Load()) / float64(beats*s.Peers)
	}
	stop()
	for range s.Peers {
		require.NoError(t, <-ends)
	}
	return each, first
}

// simulated is the same of the simulation.
func simulated(s Settings) (each [sorts]float64) {
	r := simulate(s)
	for i, calls := range r.Nodes[0].Calls {
		each[i] = calls / r.Nodes[0].Calls[present]
	}
	return each
}

func small() Settings {
	s := Default()
	s.Beat, s.Lease, s.Rate, s.Warm, s.Spread, s.For, s.Lag = 400*time.Millisecond, 1200*time.Millisecond, 0, time.Second, 400*time.Millisecond, 20*time.Second, 50*micro
	return s
}

func TestAnIdlePeerSendsWhatASimulatedOneDoes(t *testing.T) {
	t.Parallel()
	s := small()
	s.Peers, s.Partitions = 5, 16
	var each [sorts]float64
	var first [sorts]int64
	synctest.Test(t, func(t *testing.T) { each, first = real(t, s, 4, 6) })
	want := simulated(s)
	for _, sort := range []sort{survey, stand, lead, empty, wake, nobody, beat} {
		require.InDelta(t, want[sort], each[sort], 0.25, sortNames[sort])
	}
	// Each loop looks when it is made, and again when messages can be heard.
	s.Together = true
	looks := simulate(s)
	require.InDelta(t, 2*s.Peers*s.Partitions, first[empty], float64(s.Peers*s.Partitions)/4)
	require.InDelta(t, 2*s.Peers*s.Partitions, looks.Nodes[0].Calls[empty]*s.For.Seconds(), float64(s.Peers*s.Partitions)/4)
}

func TestAFullPeerSendsWhatASimulatedOneDoes(t *testing.T) {
	t.Parallel()
	s := small()
	s.Peers, s.Partitions, s.Tokens, s.Takes, s.Backlog = 4, 16, 4, time.Second, 1000
	var each [sorts]float64
	synctest.Test(t, func(t *testing.T) { each, _ = real(t, s, 4, 12) })
	want := simulated(s)
	for _, sort := range []sort{survey, lead} {
		require.InDelta(t, want[sort], each[sort], 0.25, sortNames[sort])
	}
	require.InEpsilon(t, want[beat], each[beat], 0.25)
	// It has work in each partition that it can't take, and tells of it once a second.
	require.InEpsilon(t, float64(s.Partitions)*s.Beat.Seconds(), want[nobody], 0.3)
	require.InEpsilon(t, want[nobody], each[nobody], 0.4)
}
