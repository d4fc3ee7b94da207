//go:build unix

package handlers_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// Neither a peer without handlers nor one that waits for its last handler has
// anything to do between two ticks.
func TestAPeerThatClaimsNothingUsesNoCPU_Alone(t *testing.T) {
	cpu := func() time.Duration {
		var use syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
		return time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	store := suite.Redis(t, suite.Server.Client(t), 1)
	suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond}, func(*dianemo.Peer) {})
	begun := make(chan struct{})
	var kind dianemo.Kind[suite.Args]
	closing := suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond}, func(p *dianemo.Peer) {
		kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error {
			close(begun)
			<-time.After(1500 * time.Millisecond) // a slow one, that ends by itself
			return nil
		})
	})
	suite.Enqueue(t, closing, kind, dianemo.Options{})
	suite.Receive(t, begun)
	before := cpu()
	require.NoError(t, closing.Stop())
	require.Less(t, cpu()-before, 700*time.Millisecond, "of CPU in 1.5 s")
}
