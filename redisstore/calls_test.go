package redisstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// ids returns n ids of one partition.
func (f *fixture) ids(n int) []string {
	var ids []string
	for i := 0; len(ids) < n; i++ {
		id := fmt.Sprintf("job-%d", i)
		if f.Partition(id) == f.Partition("job-0") {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestTheSameCallAgainHasTheEffectAndTheAnswerOfTheFirst_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		ids := f.ids(3)
		partition := f.Partition(ids[0])
		l := lane("kind")
		late := l
		late.Grace = time.Minute
		old := record(ids[2], late)
		old.RunAt = time.Now().Add(-time.Hour)
		f.enqueue(record(ids[1], l))

		// Two of these are new, one exists.
		records := []dianemo.Record{record(ids[0], l), record(ids[1], l), old}
		enqueue := f.call("producer")
		for range 3 {
			reply, err := f.Enqueue(ctx, partition, enqueue, records)
			require.NoError(t, err)
			require.Equal(t, []dianemo.State{"", dianemo.Scheduled, ""}, reply.Existing)
		}

		claim := f.call(owner)
		ask := dianemo.Claim{Limit: 10, Room: roomFor(10), Lanes: []dianemo.ClaimLane{claimLane(l), claimLane(late)}, BeatEvery: time.Second}
		var first dianemo.TurnReply
		for i := range 3 {
			reply, err := f.Turn(ctx, partition, claim, nil, ask)
			require.NoError(t, err)
			require.Len(t, reply.Jobs, 2)
			require.Equal(t, []dianemo.Moved{{ID: ids[2], State: dianemo.Missed, Kind: "kind", Priority: 2}}, reply.Missed)
			if i == 0 {
				first = reply
				// What comes between must not be claimed by the same call.
				f.enqueue(record("job-0@later", l))
			}
			require.Equal(t, first.Jobs, reply.Jobs)
		}

		settle := f.call(owner)
		settlements := []dianemo.Settlement{
			{ID: first.Jobs[0].ID, Lane: l, Epoch: first.Jobs[0].Epoch, Outcome: dianemo.Retry, Error: "boom"},
			{ID: first.Jobs[1].ID, Lane: l, Epoch: first.Jobs[1].Epoch + 1, Outcome: dianemo.Succeed},
		}
		for range 3 {
			reply, err := f.Turn(ctx, partition, settle, settlements, dianemo.Claim{})
			require.NoError(t, err)
			require.Equal(t, []dianemo.RunRef{{ID: first.Jobs[1].ID, Epoch: first.Jobs[1].Epoch + 1}}, reply.Stale)
		}
		job, err := f.Get(ctx, first.Jobs[0].ID)
		require.NoError(t, err)
		require.Equal(t, dianemo.Retrying, job.Info.State)
		require.Equal(t, 1, job.Info.Attempt, "three answers, one failure")
		require.Len(t, job.Info.History, 1)

		// Not even a call of another number, sent because the first one's answer
		// was given up, is refused what this very run had settled.
		require.Equal(t, []dianemo.RunRef{{ID: first.Jobs[1].ID, Epoch: first.Jobs[1].Epoch + 1}}, f.settle(partition, owner, settlements...))
	})
}

func TestALateCallIsSuperseded_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		ids := f.ids(2)
		partition := f.Partition(ids[0])
		early, late := f.call("producer"), f.call("producer")
		_, err := f.Enqueue(ctx, partition, late, []dianemo.Record{record(ids[0], lane("kind"))})
		require.NoError(t, err)
		_, err = f.Enqueue(ctx, partition, early, []dianemo.Record{record(ids[1], lane("kind"))})
		require.ErrorIs(t, err, dianemo.ErrSuperseded)
		require.Empty(t, f.state(ids[1]))

		early, late = f.call(owner), f.call(owner)
		ask := dianemo.Claim{Limit: 10, Room: roomFor(0), Lanes: []dianemo.ClaimLane{claimLane(lane("kind"))}, BeatEvery: time.Second}
		_, err = f.Turn(ctx, partition, late, nil, ask)
		require.NoError(t, err)
		ask.Room = roomFor(10)
		_, err = f.Turn(ctx, partition, early, nil, ask)
		require.ErrorIs(t, err, dianemo.ErrSuperseded)
		require.Equal(t, dianemo.Queued, f.state(ids[0]))
	})
}

func TestChoresSentTwiceAnswerTwiceTheSame_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(2)
		partition := f.Partition(ids[0])
		late := lane("kind")
		late.Grace = time.Minute
		old := record(ids[0], late)
		old.RunAt = time.Now().Add(-time.Hour)
		f.enqueue(old, record(ids[1], lane("kind")))
		require.Len(t, f.claim(partition, owner, claimLane(lane("kind"))).Jobs, 1)
		miss := f.call("leader")
		reply, err := f.Miss(t.Context(), partition, miss, dianemo.Chore{Term: 1, Limit: 10})
		require.NoError(t, err)
		require.Equal(t, []dianemo.Moved{{ID: ids[0], State: dianemo.Missed, Kind: "kind", Priority: 2}}, reply.Jobs)
		require.Equal(t, []dianemo.Moved{{ID: ids[1], State: dianemo.Unreachable, Kind: "kind", Priority: 2}}, f.reap(partition))
	})
}

func TestALeaderOfAnEarlierTermIsDeposed_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		chore := dianemo.Chore{Term: 7, Limit: 10, BeatEvery: time.Second, SilentAfter: time.Second}
		for partition := range f.Partitions() {
			_, err := f.Reap(t.Context(), partition, f.call("new"), owner, chore)
			require.NoError(t, err)
			chore.Term = 6
			_, err = f.Reap(t.Context(), partition, f.call("old"), owner, chore)
			require.ErrorIs(t, err, dianemo.ErrDeposed)
			surveys, err := f.Survey(t.Context(), &chore)
			require.NoError(t, err)
			require.True(t, surveys[partition].Deposed)
			// A lane must be overdue for Miss to have anything to say.
			id := ""
			for i := 0; id == "" || f.Partition(id) != partition; i++ {
				id = fmt.Sprint("late-", i)
			}
			l := lane("kind")
			l.Grace = time.Minute
			r := record(id, l)
			r.RunAt = time.Now().Add(-time.Hour)
			f.enqueue(r)
			_, err = f.Miss(t.Context(), partition, f.call("old"), chore)
			require.ErrorIs(t, err, dianemo.ErrDeposed)
			require.Equal(t, dianemo.Queued, f.state(id))
			chore.Term = 7
		}
	})
}

func TestTheLeaseHasOneHolderAndTermsGrow_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		bid := func(peer string, lease time.Duration) dianemo.Lease {
			l, err := f.Lead(ctx, dianemo.Bid{Peer: peer, Lease: lease})
			require.NoError(t, err)
			return l
		}
		first := bid("a", time.Hour)
		require.Equal(t, "a", first.Leader)
		require.Equal(t, first, bid("b", time.Hour))
		require.Equal(t, first, bid("a", time.Hour), "a renewal is the same term")
		_, err := f.Lead(ctx, dianemo.Bid{Peer: "b", Resign: true})
		require.NoError(t, err)
		require.Equal(t, first, bid("b", time.Hour), "nobody resigns for another")
		_, err = f.Lead(ctx, dianemo.Bid{Peer: "a", Resign: true})
		require.NoError(t, err)
		second := bid("b", 20*time.Millisecond)
		require.Equal(t, "b", second.Leader)
		require.Greater(t, second.Term, first.Term)
		var third dianemo.Lease
		require.Eventually(t, func() bool { third = bid("a", time.Hour); return third.Leader == "a" }, time.Minute, time.Millisecond)
		require.Greater(t, third.Term, second.Term)
	})
}

// What someone's hand has written must not keep a fleet without a leader, nor without its terms.
func TestALeaseThatWasSpoiltRunsOutAndTheTermComesBack_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		key, term := fmt.Sprintf("{%s}:leader", f.namespace), fmt.Sprintf("{%s}:term", f.namespace)
		bid := func(peer string, lease time.Duration) dianemo.Lease {
			l, err := f.Lead(ctx, dianemo.Bid{Peer: peer, Lease: lease})
			require.NoError(t, err)
			return l
		}
		for _, held := range []string{"ghost|5|20", "x", "ghost|" + strings.Repeat("9", 30) + "|20", "ghost|5|" + strings.Repeat("9", 30)} {
			require.NoError(t, f.rdb.Set(ctx, key, held, 0).Err())
			require.Eventually(t, func() bool { return bid("a", time.Hour).Leader == "a" }, 5*time.Second, time.Millisecond, held)
			require.Positive(t, f.rdb.PTTL(ctx, key).Val(), held)
		}
		had := bid("a", time.Hour).Term
		for _, last := range []string{"", "x", "5", strings.Repeat("9", 30)} {
			require.NoError(t, f.rdb.Set(ctx, term, last, 0).Err())
			if last == "" {
				require.NoError(t, f.rdb.Del(ctx, term).Err())
			}
			require.Equal(t, dianemo.Lease{Leader: "a", Term: had}, bid("a", time.Hour), last)
			require.Equal(t, fmt.Sprint(had), f.rdb.Get(ctx, term).Val(), last)
		}
		require.NoError(t, f.rdb.Del(ctx, key).Err())
		require.NoError(t, f.rdb.Set(ctx, term, strings.Repeat("9", 30), 0).Err())
		// Terms of one millisecond count on, ahead of the clock that a new one is taken from.
		require.Eventually(t, func() bool {
			now, err := f.rdb.Time(ctx).Result()
			return err == nil && now.UnixMilli() > had
		}, time.Minute, time.Millisecond)
		next := bid("b", time.Hour)
		require.Equal(t, "b", next.Leader)
		require.Greater(t, next.Term, had)
	})
}

// Else one field that was spoilt would keep every leader from its chores, in all partitions, and from the walk that
// would put it right.
func TestATermThatNobodyHadDeposesNoLeader_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		lease, err := f.Lead(ctx, dianemo.Bid{Peer: owner, Lease: time.Hour})
		require.NoError(t, err)
		chore := dianemo.Chore{Term: lease.Term, Limit: 1, BeatEvery: time.Second, SilentAfter: time.Minute}
		partition := f.Partition("id")
		require.NoError(t, f.rdb.HSet(ctx, f.key("id", "info"), "term", "8000000000000000").Err())
		surveys, err := f.Survey(ctx, &chore)
		var broken *dianemo.BrokenError
		require.ErrorAs(t, err, &broken)
		require.Contains(t, fmt.Sprint(broken.Found), "no leader had")
		require.NoError(t, surveys[partition].Err)
		require.False(t, surveys[partition].Deposed)
		_, err = f.Miss(ctx, partition, f.call(owner), chore)
		require.NoError(t, err)

		// A later leader is another matter.
		_, err = f.Lead(ctx, dianemo.Bid{Peer: owner, Lease: time.Hour, Resign: true})
		require.NoError(t, err)
		later, err := f.Lead(ctx, dianemo.Bid{Peer: "other", Lease: time.Hour})
		require.NoError(t, err)
		_, err = f.Survey(ctx, &dianemo.Chore{Term: later.Term, BeatEvery: time.Second, SilentAfter: time.Minute})
		require.NoError(t, err)
		surveys, err = f.Survey(ctx, &chore)
		require.NoError(t, err)
		require.True(t, surveys[partition].Deposed)
	})
}

// A server clock that steps back after a lease was taken makes its key live
// for hours.
func TestALeaseIsNeverLongerThanItWasTakenFor_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		_, err := f.Lead(ctx, dianemo.Bid{Peer: "a", Lease: 30 * time.Millisecond})
		require.NoError(t, err)
		require.NoError(t, f.rdb.PExpire(ctx, fmt.Sprintf("{%s}:leader", f.namespace), 2*time.Hour).Err())
		require.Eventually(t, func() bool {
			l, err := f.Lead(ctx, dianemo.Bid{Peer: "b", Lease: time.Hour})
			return err == nil && l.Leader == "b"
		}, time.Minute, time.Millisecond)
	})
}
