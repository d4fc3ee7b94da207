package redisstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// keeps releases jobs that are kept for the owner of their parents' runs.
func (f *fixture) keeps(l dianemo.Lane, ids ...string) (jobs []dianemo.NearJob) {
	f.t.Helper()
	for _, id := range ids {
		_, err := f.Need(f.t.Context(), f.Partition(id), dianemo.TellIt, 1, []dianemo.Wait{{ID: id, Parents: []dianemo.Parent{{ID: parentOf(id), On: dianemo.OnSuccess, Near: time.Hour}}}})
		require.NoError(f.t, err)
		r := record(id, l)
		r.Blocked = true
		f.enqueue(r)
		reply, err := f.Release(f.t.Context(), f.Partition(id), f.call("parent"), []dianemo.Release{{Child: id, Parent: parentOf(id), State: dianemo.Succeeded, Peer: owner}})
		require.NoError(f.t, err)
		require.Len(f.t, reply.Jobs, 1)
		require.Equal(f.t, []any{dianemo.Scheduled, owner, l}, []any{reply.Jobs[0].State, reply.Jobs[0].Near, reply.Jobs[0].Lane})
		jobs = append(jobs, dianemo.NearJob{ID: id, Lane: l, Until: reply.Jobs[0].Until})
	}
	return jobs
}

func (f *fixture) claimNear(limit, tokens int, near []dianemo.NearJob, lanes ...dianemo.ClaimLane) dianemo.TurnReply {
	f.t.Helper()
	reply, err := f.Turn(f.t.Context(), f.Partition(near[0].ID), f.call(owner), nil, dianemo.Claim{Limit: limit, Room: roomFor(tokens), Lanes: lanes, Near: near, BeatEvery: 5 * time.Second})
	require.NoError(f.t, err)
	return reply
}

func claimedIDs(reply dianemo.TurnReply) (ids []string) {
	for _, job := range reply.Jobs {
		ids = append(ids, job.ID)
	}
	return ids
}

func TestJobsThatAreKeptForAPeerAreClaimedByNameBeforeTheyAreDue_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids, l := f.ids(7), lane("kind")
		partition := f.Partition(ids[0])
		near := f.keeps(l, ids[:4]...)
		f.enqueue(record(ids[4], l), record(ids[5], l), record(ids[6], l))

		reply := f.claimNear(2, 100, near[1:3], claimLane(l))
		require.Equal(t, ids[1:3], claimedIDs(reply), "before what is due")
		for _, job := range reply.Jobs {
			require.False(t, job.Due.After(reply.Now), "it is due when it is claimed")
			require.Equal(t, l, job.Lane)
		}
		require.NotEmpty(t, reply.Lanes)
		require.False(t, reply.Lanes[0].Due.After(reply.Now))

		reply = f.claimNear(100, 3, near, claimLane(l))
		require.Len(t, reply.Jobs, 3, "what it has tokens for")
		require.ElementsMatch(t, []string{ids[0], ids[3]}, claimedIDs(reply)[:2])
		require.Contains(t, ids[4:], claimedIDs(reply)[2])

		left := claimedIDs(f.claimNear(100, 100, near, claimLane(l)))
		require.Len(t, left, 2)
		require.Subset(t, ids[4:], left)
		require.NotContains(t, left, claimedIDs(reply)[2])
		require.Empty(t, f.claim(partition, "other", claimLane(l)).Jobs)
		require.EqualValues(t, 7, f.rdb.ZCard(t.Context(), f.key(ids[0], "run:"+owner)).Val())
		require.Zero(t, f.rdb.Exists(t.Context(), f.key(ids[0], "lane:kind:2:-1:0:new"), f.key(ids[0], "lanes")).Val())
	})
}

// One that is given back unstarted is anyone's.
func TestAJobThatIsKeptForAPeerIsNotClaimedWhenItMayNotBe_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids, l := f.ids(5), lane("kind")
		partition := f.Partition(ids[0])
		near := f.keeps(l, ids...)
		require.Empty(t, f.claim(partition, owner, claimLane(l)).Jobs, "by name only")
		require.NoError(t, f.Pause(t.Context(), partition, "kind", true))
		require.Empty(t, f.claimNear(100, 100, near, claimLane(l)).Jobs, "its kind is paused")
		require.NoError(t, f.Pause(t.Context(), partition, "kind", false))
		require.Empty(t, f.claimNear(100, 100, near, claimLane(lane("else"))).Jobs, "another lane")

		require.NoError(t, f.cancel(ids[0]).Err)
		require.NoError(t, f.reschedule(ids[1], dianemo.Change{Delay: 2 * time.Hour}).Err)
		meta := f.rdb.HGet(t.Context(), f.key(ids[2], "meta"), ids[2]).Val()
		require.NoError(t, f.rdb.HSet(t.Context(), f.key(ids[2], "meta"), ids[2], "2"+meta[1:]).Err())
		reply := f.claimNear(100, 100, near, claimLane(l))
		require.Equal(t, ids[3:], claimedIDs(reply), "the others are cancelled, put off, and of a newer version")
		require.Equal(t, []dianemo.State{dianemo.Cancelled, dianemo.Scheduled}, []dianemo.State{f.stored(ids[0]), f.stored(ids[1])})

		for _, job := range reply.Jobs {
			require.Empty(t, f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Unstarted}))
		}
		require.ElementsMatch(t, ids[3:], claimedIDs(f.claim(partition, "other", claimLane(l))))
	})
}

func TestAPeerIsToldWhichJobsAreKeptForIt_Long(t *testing.T) {
	t.Parallel()
	quietly(t, func(t *testing.T, f *fixture) {
		heard := f.listener("peer")
		again := lane("kind")
		again.Again = true
		until := time.UnixMilli(1_800_000_000_123)
		for _, near := range [][]dianemo.NearJob{nil, {{ID: "a@b", Lane: lane("kind"), Until: until}, {ID: "c", Lane: again, Until: until}}} {
			m := dianemo.Message{Word: dianemo.KeepNear, Near: near}
			require.NoError(t, f.Tell(t.Context(), "peer", m))
			require.Equal(t, m, f.receive(heard))
		}
		channel := "{" + f.namespace + "}:tell:peer"
		for _, wrong := range []string{"near 0", "near x ", "near 99 ", "near 0  a", "near 0  a b", ""} {
			require.NoError(t, f.rdb.Publish(t.Context(), channel, wrong).Err())
		}
		require.NoError(t, f.rdb.Publish(t.Context(), channel, "near 0  a nolane 1 b kind:2:-1:0:new 1 c kind:2:-1:0:new x").Err())
		require.Equal(t, []dianemo.NearJob{{ID: "b", Lane: lane("kind"), Until: time.UnixMilli(1)}}, f.receive(heard).Near)
	})
}
