//go:build linux

package faulttest

import (
	"bytes"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
)

func TestAPausedLeaderWakesAndItsLateResultsAreRefused(t *testing.T) {
	t.Parallel()
	f := assemble(t, server, 4)
	sleeper := f.start(settings{})
	term := f.awaitLeader(sleeper).Term
	patient := f.enqueue(12, "work", args{Stubborn: true}, dianemo.Options{})
	once := f.enqueue(6, "work", args{Stubborn: true}, urgent)
	first := f.awaitStarts(sleeper, concat(patient, once)...)
	rescuer := f.start(settings{Open: true})

	sleeper.pause()
	next := f.awaitLeader(rescuer)
	require.Greater(t, next.Term, term)
	second := f.awaitStarts(rescuer, patient...)
	f.awaitState(dianemo.Succeeded, patient...)
	f.awaitState(dianemo.Unreachable, once...)
	reaps := f.seen(func(l line) bool { return l.Event == reaped })

	// The other has work of its own while the old leader comes to itself.
	busy := f.start(settings{Kinds: []string{"busy"}})
	own := f.enqueue(4, "busy", args{}, urgent)
	f.awaitStarts(busy, own...)

	sleeper.resume()
	ends := f.await(len(first), "the lost runs' contexts end", func(l line) bool { return l.Event == ended && l.PID == sleeper.pid })
	require.Len(t, ends, len(first))
	for _, l := range ends {
		require.Equal(t, dianemo.ErrLost.Error(), l.Cause)
	}
	f.await(1, "the old leader notices", func(l line) bool {
		return l.Event == lead && !l.Leading && l.Term == term && l.PID == sleeper.pid
	})
	sleeper.release()
	late := f.await(len(first), "the late results are answered", func(l line) bool { return l.Event == settled && l.PID == sleeper.pid })
	require.Len(t, late, len(first))
	for _, l := range late {
		require.True(t, l.Stale, "a late result was accepted: %+v", l)
		require.Equal(t, dianemo.Succeed, l.Outcome)
	}
	for _, l := range second {
		f.hasResultOf(l)
	}
	f.awaitState(dianemo.Unreachable, once...)

	// The old leader did no harm.
	f.quiet(takeover, "a reap", func(l line) bool { return l.Event == reaped })
	require.Equal(t, reaps, f.seen(func(l line) bool { return l.Event == reaped }))
	leader, held := f.leader()
	require.Equal(t, rescuer.id, leader)
	require.Equal(t, strconv.FormatInt(next.Term, 10), held)
	for _, last := range f.terms() {
		require.Equal(t, held, last)
	}
	busy.release()
	f.awaitState(dianemo.Succeeded, own...)
	f.ranOnce(busy, own...)

	// And works on as any other peer.
	more := f.enqueue(8, "work", args{}, dianemo.Options{})
	f.awaitState(dianemo.Succeeded, more...)
}

func TestAPauseShorterThanTheLimitOfSilenceCostsNothing(t *testing.T) {
	t.Parallel()
	f := assemble(t, server, 4)
	f.awaitLeader(f.start(settings{Kinds: []string{"other"}}))
	p := f.start(settings{})
	ids := concat(f.enqueue(6, "work", args{}, dianemo.Options{}), f.enqueue(6, "work", args{}, urgent))
	f.awaitStarts(p, ids...)
	f.start(settings{Open: true})
	p.pause()
	time.Sleep(silentAfter / 3) // how long it lasts is what is tested
	p.resume()
	f.quiet(spared, "a loss", func(l line) bool { return l.is(reaped) || l.is(ended) })
	p.release()
	f.awaitState(dianemo.Succeeded, ids...)
	f.ranOnce(p, ids...)
}

// reunite makes a peer lose a job and, since nobody else handles it, start it
// again beside the first run.
func reunite(t *testing.T, s settings) (f *fleet, p *peer, proxy *redistest.Proxy, first, second line) {
	f = assemble(t, server, 1)
	f.awaitLeader(f.start(settings{Kinds: []string{"other"}}))
	proxy = redistest.StartProxy(t, server.Addr())
	s.Redis = proxy.Addr()
	p = f.start(s)
	id := f.enqueue(1, "work", args{Stubborn: true}, dianemo.Options{})[0]
	first = f.awaitStarts(p, id)[0]
	proxy.Refuse(true)
	f.await(1, "the job is taken from the peer", func(l line) bool { return l.is(reaped, id) })
	proxy.Refuse(false)
	second = f.await(2, "the job starts again", func(l line) bool { return l.is(started, id) })[1]
	require.Equal(t, p.pid, second.PID)
	require.Greater(t, second.Epoch, first.Epoch)
	return f, p, proxy, first, second
}

func TestAPeerThatStartsAgainWhatItHasLostKeepsTheSecondRunWhenTheFirstReturns(t *testing.T) {
	t.Parallel()
	f, p, _, first, second := reunite(t, settings{})
	id := first.Job
	p.release(runName(id, first.Epoch))
	late := f.await(1, "the late result is answered", func(l line) bool { return l.is(settled, id) })[0]
	require.True(t, late.Stale)
	require.Equal(t, first.Epoch, late.Epoch)
	// The second run is still this peer's, and the store hears so.
	f.quiet(spared, "the second run being lost", func(l line) bool {
		return l.is(reaped, id) || l.is(started, id) || l.is(ended, id) && l.Epoch == second.Epoch
	})
	p.release(runName(id, second.Epoch))
	f.awaitState(dianemo.Succeeded, id)
	f.hasResultOf(second)
	require.Len(t, f.starts(nil, id), 2)
}

func TestAPeerThatStartsAgainWhatItHasLostWaitsForTheFirstRunAtItsEnd(t *testing.T) {
	t.Parallel()
	f, p, _, first, second := reunite(t, settings{Finish: 100 * time.Millisecond, StuckAfter: 200 * time.Millisecond})
	id := first.Job
	p.release(runName(id, second.Epoch))
	f.awaitState(dianemo.Succeeded, id)
	f.hasResultOf(second)
	p.signal(syscall.SIGTERM)
	require.Equal(t, []string{id}, p.exit().IDs, "the first run's handler has not returned")
}

func TestOfTwoRunsOfAJobThatEndTogetherOnlyTheLostOneIsCalledStale(t *testing.T) {
	t.Parallel()
	f, p, proxy, first, second := reunite(t, settings{})
	id := first.Job
	// A turn that is not answered is kept up, so that both go with the next. The
	// peer's beats are answered meanwhile.
	const noAnswer = "the store does not answer"
	before := strings.Count(p.stderr.String(), noAnswer)
	proxy.DropMatching(func(request []byte) bool {
		return bytes.Contains(request, []byte("}:call:")) || bytes.Contains(request, []byte("}:unheard")) // turns, with and without jobs
	})
	f.eventually("a turn is under way", func() bool { return strings.Count(p.stderr.String(), noAnswer) > before })
	p.release(id)
	f.await(2, "both return", func(l line) bool { return l.is(returned, id) })
	proxy.DropMatching(nil)
	for _, l := range f.await(2, "both are answered", func(l line) bool { return l.is(settled, id) }) {
		require.Equal(t, l.Epoch == first.Epoch, l.Stale, "%+v", l)
	}
	f.awaitState(dianemo.Succeeded, id)
	f.hasResultOf(second)
}
