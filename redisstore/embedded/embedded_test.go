package embedded_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

func TestInABubbleSomeNightsTakesAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := embedded.New(redisstore.Options{})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		peer, err := dianemo.NewPeer(store, dianemo.Config{BeatEvery: time.Hour, Lease: 3 * time.Hour, Load: dianemo.LoadConfig{Off: true}})
		require.NoError(t, err)
		kind, ran := dianemo.NewKind[string]("report", dianemo.Policy{}), make(chan time.Time, 100)
		require.NoError(t, kind.Handle(peer, func(context.Context, *dianemo.Job[string]) error {
			ran <- time.Now()
			return nil
		}))
		rule, err := dianemo.Cron("30 2 * * *", "UTC")
		require.NoError(t, err)
		require.NoError(t, peer.Schedule(dianemo.Schedule{Name: "nightly", Rule: rule, Job: kind.New("")}))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- peer.Run(ctx) }()
		first := <-ran
		for night := 1; night < 3; night++ {
			require.WithinDuration(t, first.AddDate(0, 0, night), <-ran, time.Second)
		}
		cancel()
		require.NoError(t, <-ended)
	})
}

// What is longer than the buffers of client and server together would block
// both, if the connection held nothing.
func TestALongPipelineIsAnswered(t *testing.T) {
	store, err := embedded.New(redisstore.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	ctx, text := t.Context(), strings.Repeat("x", 10_000)
	pipe := store.Client().Pipeline()
	for range 100 {
		pipe.Echo(ctx, text)
	}
	answers, err := pipe.Exec(ctx)
	require.NoError(t, err)
	require.Len(t, answers, 100)
}
