//go:build linux

package faulttest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
)

// An outage takes Redis away for a while; it is back when the function returns.
var outages = []struct {
	name string
	away func(t *testing.T, s *redistest.Server, meanwhile func())
}{
	{"restart", func(t *testing.T, s *redistest.Server, meanwhile func()) {
		require.NoError(t, s.Kill())
		meanwhile()
		require.NoError(t, s.Restart())
	}},
	{"pause", func(t *testing.T, s *redistest.Server, meanwhile func()) {
		require.NoError(t, s.Pause())
		meanwhile()
		require.NoError(t, s.Resume())
	}},
}

func TestAnOutageOfRedisIsNoOutageOfWork(t *testing.T) {
	t.Parallel()
	for _, outage := range outages {
		for name, span := range map[string]time.Duration{"short": silentAfter / 3, "long": 3 * silentAfter} {
			t.Run(outage.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
				f := assemble(t, redis, 4)
				// Four peers whose tokens are all used, and one with nothing to do.
				var peers []*peer
				for range 4 {
					peers = append(peers, f.start(settings{Tokens: 4}))
				}
				f.start(settings{Kinds: []string{"other"}})
				patient := f.enqueue(8, "work", args{}, dianemo.Options{})
				once := f.enqueue(8, "work", args{}, urgent)
				ids := concat(patient, once)
				starts := f.await(len(ids), "all jobs start", func(l line) bool { return l.is(started) })
				f.await(1, "one lead", func(l line) bool { return l.Event == lead && l.Leading })
				during, after := concat(patient[:4], once[:4]), concat(patient[4:], once[4:])

				outage.away(t, redis, func() {
					begin := time.Now()
					for _, p := range peers {
						p.release(during...)
					}
					f.await(len(during), "handlers return without Redis", func(l line) bool { return l.is(returned, during...) })
					require.Empty(t, f.seen(func(l line) bool { return l.is(settled) }))
					time.Sleep(span - time.Since(begin)) // how long it lasts is what is tested
				})
				lost := func(l line) bool { return l.is(reaped) || l.is(ended) || l.is(settled) && l.Stale }
				f.quiet(takeover, "a loss", lost)
				for _, p := range peers {
					p.release(after...)
				}
				f.awaitState(dianemo.Succeeded, ids...)
				f.await(len(ids), "every result is answered", func(l line) bool { return l.is(settled) })
				require.Empty(t, f.seen(lost))
				require.Len(t, f.starts(nil), len(ids), "something was run twice")
				for _, l := range starts {
					f.hasResultOf(l)
					require.Equal(t, 1, f.get(l.Job).Runs)
				}
				// And they work on.
				for _, p := range peers {
					p.release()
				}
				f.awaitState(dianemo.Succeeded, f.enqueue(8, "work", args{}, dianemo.Options{})...)
			})
		}
	}
}

func TestAPeerThatWasCutOffFromRedisLosesItsJobsAndWorksOn(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(p *redistest.Proxy, on bool){
		"refused": (*redistest.Proxy).Refuse, "swallowed": (*redistest.Proxy).Blackhole,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := assemble(t, server, 4)
			proxy := redistest.StartProxy(t, server.Addr())
			island := f.start(settings{Redis: proxy.Addr(), Kinds: []string{"work", "solo"}})
			term := f.awaitLeader(island).Term
			patient := f.enqueue(12, "work", args{Stubborn: true}, dianemo.Options{})
			once := f.enqueue(6, "work", args{}, urgent)
			first := f.awaitStarts(island, concat(patient, once)...)
			mainland := f.start(settings{Open: true})

			begin := time.Now()
			cut(proxy, true)
			second := f.awaitStarts(mainland, patient...)
			slowest := time.Duration(0)
			for _, l := range second {
				slowest = max(slowest, l.At.Sub(begin))
			}
			f.promised(slowest, takeover, "the takeover after the cut")
			require.Greater(t, f.awaitLeader(mainland).Term, term)
			f.awaitState(dianemo.Succeeded, patient...)
			f.awaitState(dianemo.Unreachable, once...)
			// Half of the late results wait for the way to be free, the others come after.
			island.release(patient[:6]...)
			f.await(6, "handlers return", func(l line) bool { return l.is(returned, patient[:6]...) && l.PID == island.pid })
			require.Empty(t, f.seen(func(l line) bool { return l.Event == settled && l.PID == island.pid }))

			f.await(1, "the old leader no longer trust its lease", func(l line) bool {
				return l.Event == lead && !l.Leading && l.Term == term && l.PID == island.pid
			})

			cut(proxy, false)
			ends := f.await(len(first)-6, "the lost runs' contexts end", func(l line) bool { return l.Event == ended && l.PID == island.pid })
			for _, l := range ends {
				require.Equal(t, dianemo.ErrLost.Error(), l.Cause)
			}
			island.release()
			late := f.await(len(first), "the late results are answered", func(l line) bool { return l.Event == settled && l.PID == island.pid })
			for _, l := range late {
				require.True(t, l.Stale, "a late result was accepted: %+v", l)
			}
			for _, l := range second {
				f.hasResultOf(l)
			}
			f.awaitState(dianemo.Unreachable, once...)
			require.Len(t, f.starts(nil, once...), len(once))

			solo := f.enqueue(8, "solo", args{}, urgent)
			f.awaitState(dianemo.Succeeded, solo...)
			f.ranOnce(island, solo...)
			require.Len(t, f.starts(nil, patient...), 2*len(patient))
		})
	}
}

func TestAClaimThatIsNotAnsweredIsAnsweredAgainUnlessItsJobsWereTakenOver(t *testing.T) {
	t.Parallel()
	for _, long := range []bool{false, true} {
		t.Run(fmt.Sprintf("longer than the limit of silence=%v", long), func(t *testing.T) {
			t.Parallel()
			f := assemble(t, server, 1) // with more, not all first claims have room
			f.awaitLeader(f.start(settings{Kinds: []string{"other"}, Open: true}))
			f.awaitState(dianemo.Succeeded, f.enqueue(1, "other", args{}, dianemo.Options{})...) // Redis knows the scripts
			proxy := redistest.StartProxy(t, server.Addr())
			// Claims are carried out, and their replies are lost. The peer comes when the
			// jobs are there, so that its first claims get them.
			proxy.DropMatching(func(request []byte) bool { return bytes.Contains(request, []byte("}:call:claim:")) })
			patient := f.enqueue(8, "work", args{}, dianemo.Options{})
			once := f.enqueue(8, "once", args{}, urgent)
			deaf := f.start(settings{Redis: proxy.Addr(), Kinds: []string{"work", "once"}, Open: true})
			f.awaitState(dianemo.Running, concat(patient, once)...)
			require.Empty(t, f.starts(deaf))
			if !long {
				proxy.DropMatching(nil)
				f.awaitState(dianemo.Succeeded, concat(patient, once)...)
				f.ranOnce(deaf, concat(patient, once)...)
				require.Empty(t, f.seen(func(l line) bool { return l.Event == reaped }))
				return
			}
			heir := f.start(settings{Kinds: []string{"work", "once"}, Open: true})
			f.awaitState(dianemo.Succeeded, patient...)
			f.awaitState(dianemo.Unreachable, once...)
			f.ranOnce(heir, patient...)
			proxy.DropMatching(nil)
			// What the claims had got is no longer the peer's. It starts new jobs.
			heir.kill()
			more := f.enqueue(8, "once", args{}, urgent)
			f.awaitState(dianemo.Succeeded, more...)
			f.ranOnce(deaf, more...)
			require.Empty(t, f.starts(nil, once...))
			require.Empty(t, f.starts(deaf, patient...))
		})
	}
}
