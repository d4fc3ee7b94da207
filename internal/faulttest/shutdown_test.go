//go:build linux

package faulttest

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
)

func TestAPeerThatIsTerminatedFinishesItsJobsAndClaimsNoMore(t *testing.T) {
	t.Parallel()
	f := assemble(t, server, 4)
	p := f.start(settings{Finish: time.Minute})
	ids := concat(f.enqueue(6, "work", args{}, dianemo.Options{}), f.enqueue(6, "work", args{}, urgent))
	f.awaitStarts(p, ids...)

	p.signal(syscall.SIGTERM)
	f.eventually("the peer says that it is closing", func() bool {
		peers, err := f.client.Peers(t.Context())
		require.NoError(t, err)
		return len(peers) == 1 && peers[0].Closing
	})
	later := f.enqueue(6, "work", args{}, dianemo.Options{})
	// Past its limit of silence it still holds its jobs: it beats to the end.
	f.quiet(spared, "a start or a loss", func(l line) bool { return l.is(started) || l.is(reaped) || l.is(ended) })
	p.release()
	require.Empty(t, p.exit().Cause)
	f.ranOnce(p, ids...)
	require.Empty(t, f.starts(nil, later...))
	peers, err := f.client.Peers(t.Context())
	require.NoError(t, err)
	require.Empty(t, peers, "it has taken itself off the list")
	leader, _ := f.leader()
	require.Empty(t, leader, "it has given up its lease")

	heir := f.start(settings{Open: true})
	f.awaitState(dianemo.Succeeded, later...)
	f.ranOnce(heir, later...)
}

func TestJobsThatATerminatedPeerStopsAreGivenBackAtNoCostOrEndFailed(t *testing.T) {
	t.Parallel()
	f := assemble(t, server, 4)
	p := f.start(settings{Finish: 200 * time.Millisecond, StuckAfter: 5 * time.Second})
	patient := f.enqueue(6, "work", args{}, dianemo.Options{})
	once := f.enqueue(6, "work", args{}, urgent)
	f.awaitStarts(p, concat(patient, once)...)
	heir := f.start(settings{Open: true})

	p.signal(syscall.SIGTERM)
	require.Empty(t, p.exit().Cause)
	ends := f.seen(func(l line) bool { return l.Event == ended })
	require.Equal(t, jobsOf(ends), slices.Sorted(slices.Values(concat(patient, once))))
	for _, l := range ends {
		require.Equal(t, dianemo.ErrShutdown.Error(), l.Cause)
	}
	f.awaitState(dianemo.Succeeded, patient...)
	for _, l := range f.awaitStarts(heir, patient...) {
		require.Equal(t, 1, l.Attempt, "a shutdown cost an attempt")
		f.hasResultOf(l)
		job := f.get(l.Job)
		require.Equal(t, 2, job.Runs)
		require.Empty(t, job.LastError())
	}
	for _, id := range once {
		job := f.get(id)
		require.Equal(t, dianemo.Failed, job.State)
		require.Equal(t, "shutdown", job.Reason)
		require.Nil(t, job.Result)
		require.Len(t, f.starts(nil, id), 1)
	}
	require.Empty(t, f.seen(func(l line) bool { return l.Event == reaped }))
}

func TestATerminatedPeerNamesTheJobsWhoseHandlersIgnoreItAndTheyAreReaped(t *testing.T) {
	t.Parallel()
	f := assemble(t, server, 4)
	p := f.start(settings{Finish: 100 * time.Millisecond, StuckAfter: 300 * time.Millisecond})
	patient := f.enqueue(3, "work", args{Stubborn: true}, dianemo.Options{})
	once := f.enqueue(3, "work", args{Stubborn: true}, urgent)
	polite := f.enqueue(3, "work", args{}, dianemo.Options{})
	f.awaitStarts(p, concat(patient, once, polite)...)
	heir := f.start(settings{Open: true})

	p.signal(syscall.SIGTERM)
	said := p.exit()
	require.Equal(t, slices.Sorted(slices.Values(concat(patient, once))), said.IDs, said.Cause)
	gone := time.Now()
	f.awaitState(dianemo.Succeeded, concat(patient, polite)...)
	for _, l := range f.awaitStarts(heir, patient...) {
		require.Equal(t, 2, l.Attempt)
		f.promised(l.At.Sub(gone), takeover, "the takeover")
		f.hasResultOf(l)
	}
	for _, l := range f.awaitStarts(heir, polite...) {
		require.Equal(t, 1, l.Attempt)
	}
	f.awaitState(dianemo.Unreachable, once...)
	require.Len(t, f.starts(nil, once...), len(once))
	require.Equal(t, slices.Sorted(slices.Values(concat(patient, once))),
		jobsOf(f.seen(func(l line) bool { return l.Event == reaped })))
}

func TestAPeerThatIsTerminatedWhileRedisIsAwayGivesUpAndNamesItsJobs(t *testing.T) {
	t.Parallel()
	for _, outage := range outages {
		t.Run(outage.name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			f := assemble(t, redis, 4)
			const finish, stuckAfter = 200 * time.Millisecond, 300 * time.Millisecond
			p := f.start(settings{Finish: finish, StuckAfter: stuckAfter})
			done := concat(f.enqueue(4, "work", args{}, dianemo.Options{}), f.enqueue(4, "work", args{}, urgent))
			open := concat(f.enqueue(4, "work", args{}, dianemo.Options{}), f.enqueue(4, "work", args{}, urgent))
			all := concat(done, open)
			f.awaitStarts(p, all...)
			outage.away(t, redis, func() {
				p.release(done...)
				f.await(len(done), "handlers return", func(l line) bool { return l.is(returned, done...) })
				begin := time.Now()
				p.signal(syscall.SIGTERM)
				require.Equal(t, slices.Sorted(slices.Values(all)), p.exit().IDs)
				// Beyond that, what is under way runs into the client's own limits.
				f.promised(time.Since(begin), finish+stuckAfter+4*redisTimeout, "the end of Run")
			})
			heir := f.start(settings{Open: true})
			f.awaitState(dianemo.Succeeded, concat(done[:4], open[:4])...)
			f.awaitStarts(heir, concat(done[:4], open[:4])...)
			f.awaitState(dianemo.Unreachable, concat(done[4:], open[4:])...)
			require.Len(t, f.starts(nil), len(all)+len(all)/2)
		})
	}
}
