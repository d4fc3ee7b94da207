package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
)

func zs(member string, score float64) redis.Z { return redis.Z{Member: member, Score: score} }

// repair walks through one partition.
func (f *fixture) repair(partition int) (found []dianemo.Repaired) {
	f.t.Helper()
	step := dianemo.RepairStep{Term: 1, Limit: 100}
	for range 1000 {
		reply, err := f.Repair(f.t.Context(), partition, f.call("leader"), step)
		if broken := (*dianemo.BrokenError)(nil); errors.As(err, &broken) {
			found = append(found, broken.Found...)
			continue
		}
		require.NoError(f.t, err)
		found = append(found, reply.Found...)
		if step.Cursor = reply.Next; step.Cursor == "" {
			return found
		}
	}
	f.t.Fatal("the walk does not end")
	return nil
}

// sound walks again and finds nothing.
func (f *fixture) sound(partition int) {
	f.t.Helper()
	require.Empty(f.t, f.repair(partition))
}

// populated is a partition with a job in each state.
type populated struct {
	*fixture
	partition int
	epoch     int64
}

const all = "p@" // the beginning of ids that share a partition

// populate makes jobs that wait (one due, one later, one to be tried again, one heavy), one that runs, and two that
// ended.
func (f *fixture) populate() *populated {
	f.t.Helper()
	p := &populated{fixture: f, partition: f.Partition(all)}
	f.end(dianemo.Retention{}, dianemo.Settlement{Outcome: dianemo.Succeed, Result: []byte(`1`)}, all+"succeeded")
	f.end(dianemo.Retention{}, dianemo.Settlement{Outcome: dianemo.FailRun, Reason: "error", Error: "boom"}, all+"failed")
	// To be tried again.
	f.enqueue(record(all+"retrying", lane("kind")))
	job := f.claim(p.partition, owner, claimLane(lane("kind"))).Jobs[0]
	require.Empty(f.t, f.settle(p.partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Retry, Error: "x", In: time.Hour}))
	f.enqueue(record(all+"running", lane("kind")))
	p.epoch = f.claim(p.partition, owner, claimLane(lane("kind"))).Jobs[0].Epoch
	_, err := f.Beat(f.t.Context(), p.partition, dianemo.Beat{Peer: owner, Every: 5 * time.Second, SilentAfter: time.Minute,
		Runs: []dianemo.HeldRun{{ID: all + "running", Epoch: p.epoch, Progress: &dianemo.Progress{Done: 1}}}})
	require.NoError(f.t, err)
	f.enqueue(record(all+"queued", lane("kind")))
	later := dianemo.Record{ID: all + "later", Lane: lane("kind"), Delay: time.Hour,
		Spec: dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Grace: dianemo.Unlimited, Delay: time.Hour, Args: []byte(`{}`)})}
	f.enqueue(later)
	heavy := lane("kind")
	heavy.Weight = 8
	f.enqueue(dianemo.Record{ID: all + "heavy", Lane: heavy, Weight: 7, Delay: time.Hour,
		Spec: dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Grace: dianemo.Unlimited, Weight: 7, Delay: time.Hour, Args: []byte(`{}`)})})
	f.sound(p.partition)
	return p
}

func (p *populated) states() map[string]dianemo.State {
	states := map[string]dianemo.State{}
	for _, name := range []string{"succeeded", "failed", "retrying", "running", "queued", "later", "heavy"} {
		states[name] = p.state(all + name)
	}
	return states
}

// whole is what populate makes, with changes.
func whole(changes ...any) map[string]dianemo.State {
	states := map[string]dianemo.State{"succeeded": dianemo.Succeeded, "failed": dianemo.Failed, "retrying": dianemo.Retrying,
		"running": dianemo.Running, "queued": dianemo.Queued, "later": dianemo.Scheduled, "heavy": dianemo.Scheduled}
	for i := 0; i < len(changes); i += 2 {
		states[changes[i].(string)] = changes[i+1].(dianemo.State)
	}
	return states
}

// What is broken, and what is left of it after a repair. All must be sound afterwards, and jobs that are not named must
// be as they were.
type damage struct {
	name string
	do   func(p *populated)
	want map[string]dianemo.State // nil: as it was
	// finds is a word of what must be reported; "": nothing need be.
	finds string
}

func damages() []damage {
	del := func(name string) func(*populated) {
		return func(p *populated) {
			require.EqualValues(p.t, 1, p.rdb.Del(p.t.Context(), p.key(all, name)).Val(), name)
		}
	}
	wrong := func(name string) func(*populated) {
		return func(p *populated) {
			p.rdb.Del(p.t.Context(), p.key(all, name))
			require.NoError(p.t, p.rdb.Set(p.t.Context(), p.key(all, name), "x", 0).Err())
		}
	}
	space := func(name string, do func(ctx interface{ Deadline() (time.Time, bool) }, p *populated, key string)) func(*populated) {
		return func(p *populated) { do(p.t.Context(), p, fmt.Sprintf("{%s}:%s", p.namespace, name)) }
	}
	hset := func(key, field, value string) func(*populated) {
		return func(p *populated) {
			require.NoError(p.t, p.rdb.HSet(p.t.Context(), p.key(all, key), field, value).Err())
		}
	}
	hdel := func(key, field string) func(*populated) {
		return func(p *populated) {
			require.EqualValues(p.t, 1, p.rdb.HDel(p.t.Context(), p.key(all, key), field).Val())
		}
	}
	const laneNew, laneAgain, laneHeavy = "kind:2:-1:0:new", "kind:2:-1:0:again", "kind:2:-1:8:new"
	var list []damage
	both := func(name, finds string, want, wantWrong map[string]dianemo.State) {
		list = append(list, damage{name: "deleted " + name, do: del(name), want: want, finds: finds},
			damage{name: "wrong type of " + name, do: wrong(name), want: wantWrong, finds: "not a"})
	}
	corrupt := whole("queued", dianemo.Failed, "later", dianemo.Failed, "retrying", dianemo.Failed, "heavy", dianemo.Failed)
	both("spec", "spec", corrupt, corrupt)
	// Without its record a job in a lane of its own waits there still.
	both("meta", "record is missing", nil, nil)
	both("result", "", nil, nil)
	both("errors", "", nil, nil)
	both("progress", "", nil, nil)
	both("lane:"+laneNew, "was in no index", nil, nil)
	both("lane:"+laneAgain, "was not in its index", nil, nil)
	both("lane:"+laneHeavy, "was not in its index", nil, nil)
	both("lanes", "index of lanes", nil, nil)
	both("run:"+owner, "was not in its index", nil, nil)
	both("beats", "those that beat", nil, nil)
	both("done:succeeded:kind", "was not in its index", nil, nil)
	both("counts", "counters", nil, nil)
	both("info", "", nil, nil)
	for _, name := range []string{"layout", "peers", "seen", "leader", "term", "kinds"} {
		list = append(list, damage{name: "deleted " + name, do: space(name, func(_ interface{ Deadline() (time.Time, bool) }, p *populated, key string) {
			p.rdb.Del(p.t.Context(), key)
		})}, damage{name: "wrong type of " + name, finds: "not a", do: space(name, func(_ interface{ Deadline() (time.Time, bool) }, p *populated, key string) {
			p.rdb.Del(p.t.Context(), key)
			require.NoError(p.t, p.rdb.LPush(p.t.Context(), key, "x").Err())
		})})
	}
	return append(list,
		damage{name: "call keys deleted", do: func(p *populated) {
			for _, key := range p.rdb.Keys(p.t.Context(), p.key(all, "call:*")).Val() {
				require.NoError(p.t, p.rdb.Del(p.t.Context(), key).Err())
			}
		}},
		damage{name: "garbage in the layout", finds: "layout", do: space("layout", func(_ interface{ Deadline() (time.Time, bool) }, p *populated, key string) {
			require.NoError(p.t, p.rdb.HSet(p.t.Context(), key, "partitions", "x").Err())
		})},
		damage{name: "a term from nowhere", finds: "term", do: func(p *populated) {
			_, err := p.Lead(p.t.Context(), dianemo.Bid{Peer: owner, Lease: time.Minute})
			require.NoError(p.t, err)
			hset("info", "term", "99999999999999")(p)
		}},
		damage{name: "garbage in info", do: func(p *populated) { hset("info", "alive", "x")(p); hset("info", "up_since", "x")(p) }},
		damage{name: "garbage for a term", do: hset("info", "term", "x"), finds: "term"},
		damage{name: "garbage for a record that waits", do: hset("meta", all+"retrying", "x"), finds: "can not be read", want: whole("retrying", dianemo.Failed)},
		damage{name: "garbage for the record of a job that was never claimed", do: hset("meta", all+"queued", "1|x"), finds: "can not be read", want: whole("queued", dianemo.Failed)},
		damage{name: "garbage for a record that runs", do: hset("meta", all+"running", "x"), finds: "can not be read"},
		damage{name: "garbage for a record that ended", do: hset("meta", all+"failed", "x"), finds: "can not be read"},
		damage{name: "a state of a record that there is not", do: hset("meta", all+"retrying", "1|x||"+strings.Repeat("0|", 12)+""), finds: "can not be read",
			want: whole("retrying", dianemo.Failed)},
		damage{name: "a record without its job in an index", do: hdel("meta", all+"failed"), finds: "record is missing"},
		damage{name: "garbage for a spec that waits", do: hset("spec", all+"queued", "\x00x"), finds: "spec", want: whole("queued", dianemo.Failed)},
		damage{name: "garbage for a spec with a record", do: hset("spec", all+"retrying", "1kx"+strings.Repeat("0", 13)), finds: "spec", want: whole("retrying", dianemo.Failed)},
		damage{name: "garbage for a spec that runs", do: hset("spec", all+"running", "\x00x")},
		damage{name: "garbage for a spec that ended", do: hset("spec", all+"succeeded", "\x00x")},
		damage{name: "a spec that is gone", do: hdel("spec", all+"queued"), finds: "neither", want: whole("queued", dianemo.Failed)},
		damage{name: "a newer record is left alone", do: func(p *populated) {
			hset("meta", all+"newer", "2|whatever")(p)
			hset("spec", all+"newest", "2whatever1234567890123")(p)
		}},
		damage{name: "garbage for progress", do: hset("progress", all+"running", "{"), finds: "can't be read"},
		damage{name: "orphans", finds: "its job is gone", do: func(p *populated) {
			hset("result", all+"x", "1")(p)
			hset("errors", "3|"+all+"x", "1|1|p|x")(p)
			hset("progress", all+"x", "{}")(p)
		}},
		damage{name: "a job in two places", finds: "was in this index", do: func(p *populated) {
			for _, key := range []string{"done:failed:kind", "lane:" + laneNew, "lane:" + laneAgain, "run:" + owner, "done:succeeded:kind"} {
				for _, id := range []string{"succeeded", "failed", "retrying", "running"} {
					require.NoError(p.t, p.rdb.ZAddNX(p.t.Context(), p.key(all, key), zs(all+id, 5)).Err())
				}
			}
			p.rdb.ZAdd(p.t.Context(), p.key(all, "lanes"), zs(laneNew, 5))
		}},
		damage{name: "members without a job", finds: "neither", do: func(p *populated) {
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "lane:"+laneNew), zs(all+"ghost", 5)).Err())
			p.rdb.ZAdd(p.t.Context(), p.key(all, "lanes"), zs(laneNew, 5))
		}},
		damage{name: "an epoch that is another", finds: "epoch", do: func(p *populated) {
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "run:"+owner), zs(all+"running", 5)).Err())
		}},
		damage{name: "a job that ended at another time", finds: "another time", do: func(p *populated) {
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "done:failed:kind"), zs(all+"failed", 5)).Err())
		}},
		damage{name: "an epoch that no clock has", finds: "can not be read", do: func(p *populated) {
			f := splitRecord(p.rdb.HGet(p.t.Context(), p.key(all, "meta"), all+"running").Val())
			f[4] = "9999999999999999"
			hset("meta", all+"running", strings.Join(f, "|"))(p)
		}},
		damage{name: "scores that are no times of jobs without records", finds: "record is missing", do: func(p *populated) {
			hdel("meta", all+"failed")(p)
			hdel("meta", all+"retrying")(p)
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "done:failed:kind"), zs(all+"failed", 1e20)).Err())
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "lane:"+laneAgain), zs(all+"retrying", 1e20)).Err())
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "lanes"), zs(laneAgain, 1e20)).Err())
		}},
		damage{name: "a lane that is named too late", finds: "index of lanes", do: func(p *populated) {
			require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), p.key(all, "lanes"), zs(laneNew, 1e15)).Err())
		}},
		damage{name: "a counter that is off", finds: "counters", do: hset("counts", "succeeded:kind:2", "7")},
		damage{name: "a counter that is no number", finds: "counters", do: hset("counts", "succeeded:kind:2", "x")},
		damage{name: "a counter of running jobs that is off", finds: "counters", do: hset("counts", "running:kind:2", "7")},
		damage{name: "a counter that is gone", finds: "counters", do: hdel("counts", "failed:kind:2")},
	)
}

func TestEachSortOfDamageIsMendedOrSetAside_Long(t *testing.T) {
	t.Parallel()
	for _, d := range damages() {
		t.Run(strings.ReplaceAll(d.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			eachInLong(t, func(t *testing.T, f *fixture) {
				p := f.populate()
				d.do(p)
				found := p.repair(p.partition)
				for i := range p.Partitions() {
					if i != p.partition {
						found = append(found, p.repair(i)...)
					}
				}
				if d.finds != "" {
					require.Contains(t, fmt.Sprint(found), d.finds)
				}
				p.sound(p.partition)
				require.NoError(t, p.Open(t.Context()))
				want := d.want
				if want == nil {
					want = whole()
				}
				require.Equal(t, want, p.states(), "%v", found)
				for name, state := range want {
					if state != dianemo.Failed || name == "failed" {
						continue
					}
					job, err := p.Get(t.Context(), all+name)
					require.NoError(t, err)
					require.Equal(t, "corrupt", job.Info.Reason, name)
				}
				for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed} {
					require.Equal(t, p.rdb.ZCard(t.Context(), p.key(all, "done:"+string(state)+":kind")).Val(), p.counted(state), state)
				}
				require.EqualValues(t, 1, p.counted(dianemo.Running))
				for _, id := range []string{all + "newer", all + "newest"} {
					require.LessOrEqual(t, len(p.traces(id)), 1)
				}
				// The rest goes on: what runs is taken, what waits is claimed, a new job comes in.
				require.Empty(t, p.settle(p.partition, owner, dianemo.Settlement{ID: all + "running", Lane: lane("kind"), Epoch: p.epoch, Outcome: dianemo.Succeed}))
				require.Equal(t, dianemo.Succeeded, p.state(all+"running"))
				p.enqueue(record(all+"another", lane("kind")))
				var claimed []string
				for _, job := range p.claim(p.partition, "other", claimLane(lane("kind"))).Jobs {
					claimed = append(claimed, job.ID)
				}
				require.Contains(t, claimed, all+"another")
				require.Equal(t, want["queued"] == dianemo.Queued, len(claimed) == 2, "%v", claimed)
				job, err := p.Get(t.Context(), all+"later")
				require.NoError(t, err)
				if want["later"] == dianemo.Scheduled {
					require.WithinRange(t, job.Info.Due, time.Now().Add(50*time.Minute), time.Now().Add(time.Hour+time.Second))
				}
			})
		})
	}
}

// A call that meets a key of another type fails before it has written anything, moves the key out of the way, and is
// taken when it comes again.
func TestACallThatMeetsAKeyOfAnotherTypeMovesItAside_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		for _, name := range []string{"spec", "meta", "errors", "result", "progress", "lanes", "beats", "counts", "info", "run:" + owner,
			"lane:kind:2:-1:0:new", "done:succeeded:kind", "done:failed:kind", "call:enqueue:producer", "call:claim:" + owner, "call:settle:" + owner} {
			id := "a@" + strings.NewReplacer(":", "-").Replace(name)
			partition := f.Partition(id)
			f.wipe()
			require.NoError(t, f.Open(t.Context()))
			require.NoError(t, f.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: f.key(id, name), Values: []string{"x", "x"}}).Err())
			met := 0
			again := func(call func() error) {
				for range 20 {
					err := call()
					if err == nil {
						return
					}
					var broken *dianemo.BrokenError
					require.ErrorAs(t, err, &broken)
					met++
				}
				t.Fatalf("%s: it fails for ever", name)
			}
			call := f.call("producer")
			again(func() error {
				reply, err := f.Enqueue(t.Context(), partition, call, []dianemo.Record{record(id, lane("kind"))})
				if err == nil {
					require.Equal(t, []dianemo.State{""}, reply.Existing, name)
				}
				return err
			})
			var jobs []dianemo.Claimed
			call = f.call(owner)
			again(func() error {
				reply, err := f.Turn(t.Context(), partition, call, nil, dianemo.Claim{Limit: 100, Room: roomFor(1000), Lanes: []dianemo.ClaimLane{claimLane(lane("kind"))}, BeatEvery: 5 * time.Second})
				jobs = reply.Jobs
				return err
			})
			require.Len(t, jobs, 1, name)
			again(func() error {
				_, err := f.Beat(t.Context(), partition, dianemo.Beat{Peer: owner, Every: 5 * time.Second, SilentAfter: time.Minute,
					Runs: []dianemo.HeldRun{{ID: id, Epoch: jobs[0].Epoch, Progress: &dianemo.Progress{Done: 1}}}})
				return err
			})
			call = f.call(owner)
			settlement := dianemo.Settlement{ID: id, Lane: lane("kind"), Epoch: jobs[0].Epoch, Outcome: dianemo.Succeed, Result: []byte(`1`)}
			if name == "errors" || name == "done:failed:kind" {
				settlement.Outcome, settlement.Error = dianemo.FailRun, "boom"
			}
			again(func() error {
				reply, err := f.Turn(t.Context(), partition, call, []dianemo.Settlement{settlement}, dianemo.Claim{})
				if err == nil {
					require.Empty(t, reply.Stale)
				}
				return err
			})
			require.Positive(t, met, name)
			require.True(t, f.state(id).Finished(), name)
			f.sound(partition)
			require.NotEmpty(t, f.rdb.Keys(t.Context(), f.key(id, name+":aside:*")).Val(), name)
		}
	})
}

func TestARepairSentTwiceAnswersTwiceTheSame_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		p := f.populate()
		require.NoError(t, p.rdb.Del(t.Context(), p.key(all, "done:failed:kind")).Err())
		call := f.call("leader")
		step := dianemo.RepairStep{Cursor: "meta|", Limit: 100}
		first, err := f.Repair(t.Context(), p.partition, call, step)
		require.NoError(t, err)
		require.NotEmpty(t, first.Found)
		second, err := f.Repair(t.Context(), p.partition, call, step)
		require.NoError(t, err)
		require.Equal(t, first.Found, second.Found)
		_, err = f.Repair(t.Context(), p.partition, dianemo.Call{Caller: call.Caller, Number: call.Number - 1}, step)
		require.ErrorIs(t, err, dianemo.ErrSuperseded)
	})
}

// interrupted is a fixture on a real Redis, and where a test puts what is to be done once, right before the next script:
// after what was read for it.
func interrupted(t *testing.T) (f *fixture, before *func()) {
	client := server.Client(t)
	namespace := fmt.Sprintf("test-%d", namespaces.Add(1))
	before = new(func())
	client.AddHook(scriptHook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		if do := *before; do != nil {
			*before = nil
			do()
		}
		return next(ctx, cmd)
	}))
	store := redisstore.New(client, redisstore.Options{Namespace: namespace, Partitions: 1})
	require.NoError(t, store.Open(t.Context()))
	return &fixture{Store: store, t: t, rdb: server.Client(t), namespace: namespace}, before
}

// What goes with its job after repair has read it is no orphan.
func TestAJobThatGoesWhileRepairLooksIsNotReported(t *testing.T) {
	t.Parallel()
	f, before := interrupted(t)
	for _, cursor := range []string{"result|", "errors|", "progress|", "spec|", "meta|", "index|"} {
		p := f.populate()
		*before = p.wipe
		reply, err := f.Repair(t.Context(), p.partition, f.call("leader"), dianemo.RepairStep{Cursor: cursor, Limit: 100})
		require.NoError(t, err)
		require.Nil(t, *before, "%s: no script was called", cursor)
		require.Empty(t, reply.Found, cursor)
		require.NoError(t, f.Open(t.Context()))
	}
}

// The first job of its kind and priority to run makes their counter, maybe after repair has read which there are.
func TestACounterOfRunningJobsThatAppearsWhileRepairLooksIsJudgedAsItIs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		counter string
		off     bool
	}{
		{"right", "1", false},
		{"off", "7", true},
		{"no number", "x", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f, before := interrupted(t)
			p := f.populate()
			*before = func() {
				p.enqueue(record(all+"other", lane("other")))
				require.Len(t, p.claim(p.partition, owner, claimLane(lane("other"))).Jobs, 1)
				require.NoError(t, p.rdb.HSet(t.Context(), p.key(all, "counts"), "running:other:2", row.counter).Err())
			}
			reply, err := f.Repair(t.Context(), p.partition, f.call("leader"), dianemo.RepairStep{Cursor: "counts|", Limit: 100})
			require.NoError(t, err)
			require.Nil(t, *before, "no script was called")
			require.Equal(t, row.off, len(reply.Found) > 0, "%v", reply.Found)
			require.EqualValues(t, 2, p.counted(dianemo.Running))
			p.consistent(p.partition)
			p.sound(p.partition)
		})
	}
}

// Else a partition that remembers a later term would refuse all leaders to come.
func TestTermsGrowAlthoughTheLastOneIsForgotten_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		var last int64
		for _, forget := range []func(key string) error{
			func(string) error { return nil },
			func(key string) error { return f.rdb.Del(t.Context(), key).Err() },
			func(key string) error { return f.rdb.Set(t.Context(), key, "garbage", 0).Err() },
		} {
			require.NoError(t, forget(fmt.Sprintf("{%s}:term", f.namespace)))
			var clock time.Time
			f.waitMillis(&clock, 2)
			lease, err := f.Lead(t.Context(), dianemo.Bid{Peer: owner, Lease: time.Minute})
			require.NoError(t, err)
			require.Greater(t, lease.Term, last)
			last = lease.Term
			_, err = f.Lead(t.Context(), dianemo.Bid{Peer: owner, Lease: time.Minute, Resign: true})
			require.NoError(t, err)
		}
	})
}
