//go:build linux

package faulttest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
)

// single is for jobs that the library starts once, and that wait patiently.
var single = dianemo.Options{Retries: dianemo.None, Reruns: dianemo.None}

// lasting is how long a test of endurance goes on: DIANEMO_SECONDS, or short.
func lasting(t *testing.T, short time.Duration) time.Duration {
	if s := os.Getenv("DIANEMO_SECONDS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err, "DIANEMO_SECONDS")
		return time.Duration(n) * time.Second
	}
	return short
}

// How much a fleet does is how many jobs run at a time: that does not depend on the machine.
func TestPeersComeAndGoAndTheThroughputFollows(t *testing.T) {
	t.Parallel()
	lasts := lasting(t, 0)
	// How many peers there are in each step: up and down again.
	wave := []int{1, 2, 3, 4, 5, 4, 3, 2}
	const (
		tokens = 2
		work   = 50 * time.Millisecond
	)
	f := assemble(t, server, 2)
	var ids []string
	var alive, gone []*peer
	for begin, i := time.Now(), 0; i < len(wave) || time.Since(begin) < lasts; i++ {
		n := wave[i%len(wave)]
		for len(alive) < n {
			alive = append(alive, f.start(settings{Tokens: tokens}))
		}
		for len(alive) > n {
			oldest := alive[0] // most often the leader
			oldest.signal(syscall.SIGTERM)
			require.Empty(t, oldest.exit().Cause, "its jobs were finished, not given back")
			gone, alive = append(gone, oldest), alive[1:]
		}
		held := f.enqueue(n*tokens, "work", args{}, single)
		f.await(len(held), fmt.Sprintf("as many jobs run as %d peers have tokens", n), func(l line) bool { return l.is(started, held...) })
		for _, p := range alive {
			require.Len(t, f.starts(p, held...), tokens)
			p.release(held...)
		}
		// Peers come and go while there is work.
		ids = concat(ids, held, f.enqueue(n*tokens*10, "work", args{Work: work}, single))
	}
	require.NotEmpty(t, gone)

	// The rest is done by those that are left, and nothing was lost or run twice.
	for _, p := range alive {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range alive {
		require.Empty(t, p.exit().Cause)
	}
	starts := f.starts(nil)
	seen := map[string]bool{}
	for _, l := range starts {
		require.False(t, seen[l.Job], "job %s was started twice", l.Job)
		seen[l.Job] = true
	}
	require.Empty(t, f.seen(func(l line) bool { return l.Event == reaped || l.Event == settled && l.Stale }))
	all, err := f.client.Counts(t.Context())
	require.NoError(t, err)
	counts := map[dianemo.State]int64{}
	for _, n := range all {
		counts[n.State] += n.Jobs
	}
	require.Equal(t, map[dianemo.State]int64{dianemo.Succeeded: int64(len(starts)), dianemo.Queued: int64(len(ids) - len(starts))}, counts)
}

// Redis is away for far longer than any limit, while jobs run and wait.
func TestALongOutageUnderLoad(t *testing.T) {
	t.Parallel()
	lasts := lasting(t, 5*time.Second)
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	f := assemble(t, redis, 2)
	var peers []*peer
	for range 3 {
		peers = append(peers, f.start(settings{Tokens: 6, SilentAfter: 4 * time.Second}))
	}
	// Long enough to be running when Redis goes, and to return while it is away.
	patient := f.enqueue(60, "work", args{Work: min(lasts/5, 2*time.Second)}, dianemo.Options{})
	once := f.enqueue(60, "work", args{Work: min(lasts/5, 2*time.Second)}, single)
	ids := concat(patient, once)
	running := f.await(18, "all tokens are in use", func(l line) bool { return l.is(started) })
	require.NoError(t, redis.Kill())
	away := time.Now()
	f.await(len(running), "handlers finish without Redis", func(l line) bool { return l.is(returned) })
	time.Sleep(lasts - time.Since(away)) // how long it lasts is what is tested
	before := len(f.starts(nil))
	require.NoError(t, redis.Restart())
	back := time.Now()
	after := f.await(before+18, "work goes on", func(l line) bool { return l.is(started) })[before:]
	f.eventually("all have succeeded", func() bool {
		all, err := f.client.Counts(t.Context())
		if err != nil {
			return false
		}
		n := int64(0)
		for _, c := range all {
			if c.State == dianemo.Succeeded {
				n += c.Jobs
			}
		}
		return n == int64(len(ids))
	})
	var spread []string
	for i := 0; i < len(after); i += 6 {
		spread = append(spread, after[i].At.Sub(back).Round(10*time.Millisecond).String())
	}
	t.Logf("away for %v; starts number 1, 7 and 13 after its return came after %s", back.Sub(away).Round(time.Second), strings.Join(spread, ", "))
	for _, id := range ids {
		require.Len(t, f.starts(nil, id), 1, "starts of job %s", id)
	}
	require.Empty(t, f.seen(func(l line) bool { return l.is(reaped) || l.is(ended) || l.is(settled) && l.Stale }))
	for _, p := range peers {
		p.signal(syscall.SIGTERM)
		require.Empty(t, p.exit().Cause)
	}
}
