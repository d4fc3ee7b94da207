package redisstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// listener hears a peer's messages until the test's end.
func (f *fixture) listener(peer string) <-chan dianemo.Message {
	f.t.Helper()
	heard := make(chan dianemo.Message, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = f.Listen(ctx, peer, func(m dianemo.Message) { heard <- m })
	}()
	f.t.Cleanup(func() { cancel(); <-ended })
	require.Zero(f.t, f.receive(heard), "the first says that some may have been missed")
	require.Zero(f.t, f.receive(heard), "once for each channel")
	return heard
}

func (f *fixture) receive(from <-chan dianemo.Message) dianemo.Message {
	f.t.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(20 * time.Second):
		f.t.Fatal("nothing came for 20 s")
		panic("unreachable")
	}
}

func (f *fixture) stand(peer string, stance dianemo.Stance) []int {
	f.t.Helper()
	reply, err := f.Turn(f.t.Context(), 0, f.call(peer), nil, dianemo.Claim{Stance: stance})
	require.NoError(f.t, err)
	return reply.Unheard
}

func (f *fixture) wake(news dianemo.News, except string) bool {
	f.t.Helper()
	told, err := f.Wake(f.t.Context(), 0, news, except)
	require.NoError(f.t, err)
	return told
}

// quietly runs a test without the disturbances that send a script twice: a
// wake-up sent twice may tell two peers, which is allowed.
func quietly(t *testing.T, test func(t *testing.T, f *fixture)) {
	eachBut(t, []string{"twice", "lossy"}, test)
}

func TestTheLeastLoadedPeerThatCanIsWoken_Long(t *testing.T) {
	t.Parallel()
	quietly(t, func(t *testing.T, f *fixture) {
		peers := map[string]<-chan dianemo.Message{}
		for peer, stance := range map[string]dianemo.Stance{
			"busy":     {Move: dianemo.Up, Level: 9, Room: roomFor(5), Load: 0.5, Kinds: map[string]int{"kind": 2}},
			"idle":     {Move: dianemo.Up, Level: 9, Room: roomFor(2), Load: 0.1, Kinds: map[string]int{"kind": 2, "other": 2}},
			"reserved": {Move: dianemo.Up, Level: 1, Room: roomFor(2), Load: 0.0, Kinds: map[string]int{"kind": 2}},
			"stranger": {Move: dianemo.Up, Level: 9, Room: roomFor(2), Load: 0.0, Kinds: map[string]int{"other": 2, "kin": 2, "kind2": 2}},
		} {
			peers[peer] = f.listener(peer)
			require.Empty(t, f.stand(peer, stance))
		}
		require.Empty(t, f.stand("small", dianemo.Stance{Move: dianemo.Up, Level: 9, Room: roomFor(1), Kinds: map[string]int{"kind": 2}}), "it has not enough")
		require.Empty(t, f.stand("dead", dianemo.Stance{Move: dianemo.Up, Level: 9, Room: roomFor(2), Load: 0, Kinds: map[string]int{"kind": 2}}), "it does not listen")
		look := dianemo.Message{Word: dianemo.Look, Kind: "kind"}
		two, one := dianemo.News{Kind: "kind", Priority: 2}, dianemo.News{Kind: "kind", Priority: 1}
		heavier := dianemo.News{Kind: "kind", Priority: 2, Weight: 6}
		require.False(t, f.wake(heavier, ""), "nobody has room for that")
		require.True(t, f.wake(two, "idle"))
		require.Equal(t, look, f.receive(peers["busy"]), "all others are excepted, dead, without tokens for it or without a handler")
		require.True(t, f.wake(two, ""))
		require.Equal(t, look, f.receive(peers["idle"]))
		require.False(t, f.wake(two, ""), "who was woken stands no more")
		require.True(t, f.wake(one, ""))
		require.Equal(t, look, f.receive(peers["reserved"]))
		require.Empty(t, peers["stranger"])
	})
}

func TestWhoStandsUpHearsWhatNobodyHeard_Long(t *testing.T) {
	t.Parallel()
	quietly(t, func(t *testing.T, f *fixture) {
		require.False(t, f.wake(dianemo.News{Kind: "kind", Priority: 2}, ""))
		require.False(t, f.wake(dianemo.News{Kind: "kind", Priority: 2}, ""), "noted once")
		up := dianemo.Stance{Move: dianemo.Up, Level: 9, Room: roomFor(2), Kinds: map[string]int{"other": 2}}
		require.Empty(t, f.stand("stranger", up))
		up.Kinds, up.Level = map[string]int{"other": 1, "kind": 1}, 1
		require.Empty(t, f.stand("urgent", up), "it has tokens for priority 1 only")
		up.Level = 2
		require.Equal(t, []int{0}, f.stand("peer", up))
		require.Empty(t, f.stand("peer", up), "once")
		require.False(t, f.wake(dianemo.News{Kind: "kind", Priority: 2}, "peer"))
		require.Empty(t, f.stand("peer", dianemo.Stance{Move: dianemo.Down}))
		require.False(t, f.wake(dianemo.News{Kind: "kind", Priority: 2}, ""), "it stands no more")
	})
}

// A peer says its kinds once. If what it said is spoilt, nobody would ever wake it again.
func TestAPeerIsAskedForItsKindsAgainWhereTheyCanNotBeRead_Long(t *testing.T) {
	t.Parallel()
	quietly(t, func(t *testing.T, f *fixture) {
		up := dianemo.Stance{Move: dianemo.Up, Level: 9, Room: roomFor(2), Kinds: map[string]int{"kind": 1, "other": 2}}
		f.listener("peer")
		for _, spoilt := range []string{"x", "", " ", " kind=1 ot", " kind="} {
			require.NoError(t, f.rdb.HSet(t.Context(), fmt.Sprintf("{%s}:handles", f.namespace), "peer", spoilt).Err())
			f.stand("peer", up)
			require.True(t, f.wake(dianemo.News{Kind: "kind", Priority: 2}, ""), spoilt)
		}
	})
}

func TestTheLeaderHearsOfWorkThatIsDueLater_Long(t *testing.T) {
	t.Parallel()
	quietly(t, func(t *testing.T, f *fixture) {
		later := dianemo.News{Kind: "kind", Priority: 2, Later: true}
		require.False(t, f.wake(later, ""), "nobody leads")
		heard := f.listener("leader")
		_, err := f.Lead(t.Context(), dianemo.Bid{Peer: "leader", Lease: time.Minute})
		require.NoError(t, err)
		require.True(t, f.wake(later, ""))
		require.Equal(t, dianemo.Message{Word: dianemo.Look, Kind: "kind"}, f.receive(heard))
	})
}

// News is what some peer must hear of: a lane has work sooner than before.
func TestEnqueueAndSettleTellWhatIsNew_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(4)
		partition := f.Partition(ids[0])
		now, later := dianemo.News{Kind: "kind", Priority: 2}, dianemo.News{Kind: "kind", Priority: 2, Later: true}
		delayed := func(id string, by time.Duration) dianemo.Record {
			r := record(id, lane("kind"))
			r.Delay = by
			return r
		}
		require.Equal(t, []dianemo.News{later}, f.enqueue(delayed(ids[0], time.Hour)).News)
		require.Empty(t, f.enqueue(delayed(ids[1], 2*time.Hour)).News, "not sooner")
		require.Equal(t, []dianemo.News{now}, f.enqueue(record(ids[2], lane("kind"))).News)
		require.Empty(t, f.enqueue(record(ids[3], lane("kind"))).News, "whoever takes the first sees it")
		jobs := f.claim(partition, owner, claimLane(lane("kind"))).Jobs
		require.Len(t, jobs, 2)
		for i, want := range []dianemo.News{later, now} {
			s := dianemo.Settlement{ID: jobs[i].ID, Lane: lane("kind"), Epoch: jobs[i].Epoch, Outcome: dianemo.Retry, In: time.Duration(1-i) * time.Hour}
			reply, err := f.Turn(t.Context(), partition, f.call(owner), []dianemo.Settlement{s}, dianemo.Claim{})
			require.NoError(t, err)
			require.Equal(t, []dianemo.News{want}, reply.News)
		}
	})
}

func TestASurveyShowsEachPartition_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		late := lane("late")
		r := record("late", late)
		r.RunAt = time.Now().Add(-time.Hour)
		f.enqueue(r)
		f.enqueue(record("kind", lane("kind")))
		surveys, err := f.Survey(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, surveys, f.Partitions())
		found := map[string]int{}
		for p, s := range surveys {
			require.Equal(t, p, s.Partition)
			require.NoError(t, s.Err)
			for _, head := range s.Lanes {
				found[head.Kind] = p
			}
		}
		require.Equal(t, map[string]int{"late": f.Partition("late"), "kind": f.Partition("kind")}, found)

		// A key of another type does not hide the others: it is moved aside, and reported.
		require.NoError(t, f.rdb.Set(t.Context(), f.key("kind", "lanes"), "x", 0).Err())
		surveys, err = f.Survey(t.Context(), nil)
		var broken *dianemo.BrokenError
		require.ErrorAs(t, err, &broken)
		require.Equal(t, f.key("kind", "lanes"), broken.Found[0].Key)
		require.Len(t, surveys, f.Partitions())
		for _, s := range surveys {
			require.NoError(t, s.Err)
		}
		_, err = f.Survey(t.Context(), nil)
		require.NoError(t, err)
	})
}

func TestASurveySaysWhetherMorePeersAreSilent_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		const partition = 0
		for i := range 25 {
			beat := redis.Z{Score: float64(i + 1), Member: fmt.Sprintf("gone-%02d", i)}
			require.NoError(t, f.rdb.ZAdd(t.Context(), fmt.Sprintf("{%s:%d}:beats", f.namespace, partition), beat).Err())
		}
		survey := func() dianemo.Survey {
			surveys, err := f.Survey(t.Context(), &dianemo.Chore{Term: 1, BeatEvery: 5 * time.Second, SilentAfter: time.Millisecond})
			require.NoError(t, err)
			return surveys[partition]
		}
		survey()
		var clock time.Time
		for _, n := range []int{10, 10, 5, 0} {
			f.waitMillis(&clock, 3)
			s := survey()
			require.Len(t, s.Silent, n)
			require.Equal(t, n == 10, s.MoreSilent)
			f.reap(partition)
		}
	})
}

func TestOnePeerAtATimeHoldsALane_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		ids := f.ids(2)
		heavy := lane("kind")
		name := dianemo.ClaimLane{Lane: heavy, Weight: 8}
		f.enqueue(record(ids[0], heavy), record(ids[1], heavy))
		partition := f.Partition(ids[0])
		ask := func(peer string, room int) dianemo.TurnReply {
			reply, err := f.Turn(t.Context(), partition, f.call(peer), nil, dianemo.Claim{Limit: 1, Room: roomFor(room), Hold: &heavy,
				Lanes: []dianemo.ClaimLane{name}, BeatEvery: 5 * time.Second, SilentAfter: 20 * time.Second})
			require.NoError(t, err)
			return reply
		}
		require.True(t, ask("one", 7).Held)
		require.False(t, ask("two", 7).Held)
		require.True(t, ask("one", 7).Held, "renewed")
		reply := ask("two", 8)
		require.Len(t, reply.Jobs, 1, "who has room need not hold")
		require.False(t, reply.Held)
		reply = ask("one", 8)
		require.Len(t, reply.Jobs, 1)
		require.True(t, ask("two", 7).Held, "what it was held for has come")
		field := "hold:kind:2:-1:0:new"
		require.NoError(t, f.rdb.HSet(t.Context(), f.key(ids[0], "info"), field, "two|1000").Err())
		require.True(t, ask("one", 7).Held, "the other's hold has run out")
	})
}
