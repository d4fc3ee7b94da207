//go:build linux

package faulttest

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// takeover is how long after a peer's death its jobs have started elsewhere.
const takeover = silentAfter + 2*lease + beatEvery

// spared is how long after a fault to see that a leader took nothing from
// those who live.
const spared = silentAfter + 4*beatEvery

func TestAKilledPeersJobsAreFinishedByOthersOrEndUnreachable(t *testing.T) {
	t.Parallel()
	for _, victimLeads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader=%v", victimLeads), func(t *testing.T) {
			t.Parallel()
			f := assemble(t, server, 4)
			if !victimLeads {
				f.awaitLeader(f.start(settings{Kinds: []string{"other"}}))
			}
			victim := f.start(settings{})
			if victimLeads {
				f.awaitLeader(victim)
			}
			patient := f.enqueue(20, "work", args{}, dianemo.Options{})
			once := f.enqueue(8, "work", args{}, urgent)
			f.awaitStarts(victim, concat(patient, once)...)
			rescuers := []*peer{f.start(settings{Open: true}), f.start(settings{Open: true})}

			killed := time.Now()
			victim.kill()
			second := f.await(len(patient), "the jobs start again", func(l line) bool { return l.is(started, patient...) && l.PID != victim.pid })
			slowest := time.Duration(0)
			for _, l := range second {
				slowest = max(slowest, l.At.Sub(killed))
				require.Equal(t, 2, l.Attempt)
				require.Contains(t, []int{rescuers[0].pid, rescuers[1].pid}, l.PID)
			}
			f.promised(slowest, takeover, "the takeover after the kill")

			f.awaitState(dianemo.Succeeded, patient...)
			for _, l := range second {
				f.hasResultOf(l)
			}
			f.awaitState(dianemo.Unreachable, once...)
			require.Len(t, f.starts(nil, once...), len(once), "jobs without reruns were started more than once")
			require.Len(t, f.starts(nil, patient...), 2*len(patient))
			for _, id := range once {
				job := f.get(id)
				require.Equal(t, "silent", job.Reason)
				require.Equal(t, victim.id, job.Peer)
			}
			peers, err := f.client.Peers(t.Context())
			require.NoError(t, err)
			for _, info := range peers {
				require.NotEqual(t, victim.id, info.ID, "it is still on the list")
			}
		})
	}
}

// The same faults on a machine on which nothing else runs: each is over in time.
func TestWhatAFaultCostsInTimeIsWhatIsPromised_Alone(t *testing.T) {
	t.Run("kill", TestAKilledPeersJobsAreFinishedByOthersOrEndUnreachable)
	t.Run("the leader's death", TestAfterTheLeadersDeathAnotherLeadsUnderAHigherTerm)
	t.Run("cut off", TestAPeerThatWasCutOffFromRedisLosesItsJobsAndWorksOn)
	t.Run("ignored", TestATerminatedPeerNamesTheJobsWhoseHandlersIgnoreItAndTheyAreReaped)
	t.Run("terminated while Redis is away", TestAPeerThatIsTerminatedWhileRedisIsAwayGivesUpAndNamesItsJobs)
}

func TestAfterTheLeadersDeathAnotherLeadsUnderAHigherTerm(t *testing.T) {
	t.Parallel()
	f := assemble(t, server, 2)
	leader := f.start(settings{})
	term := f.awaitLeader(leader).Term
	for range 4 {
		f.start(settings{})
	}
	// The last is asked to go, and need not be waited for: it gives up its lease.
	for _, promise := range []time.Duration{2 * lease, 2 * lease, 2 * lease, lease / 3} {
		begin := time.Now()
		if promise == 2*lease {
			leader.kill()
		} else {
			leader.signal(syscall.SIGTERM)
		}
		next := f.await(1, "another lead", func(l line) bool { return l.Event == lead && l.Leading && l.Term > term })
		require.Len(t, next, 1)
		took := next[0].At.Sub(begin)
		f.promised(took, promise, fmt.Sprintf("the start of term %d after the end of the last", next[0].Term))
		require.NotEqual(t, leader.pid, next[0].PID)
		term = next[0].Term
		for _, p := range f.peers {
			if p.pid == next[0].PID {
				leader = p
			}
		}
		f.eventually("the lease says so", func() bool {
			peer, held := f.leader()
			return peer == leader.id && held == strconv.FormatInt(term, 10)
		})
	}
	terms := map[int64]bool{}
	for _, l := range f.seen(func(l line) bool { return l.Event == lead && l.Leading }) {
		require.False(t, terms[l.Term], "term %d was led twice", l.Term)
		terms[l.Term] = true
	}
}
