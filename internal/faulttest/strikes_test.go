//go:build linux

package faulttest

import (
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A strike spoils one entry of a key.
type strike struct {
	name    string
	make    func(s *spoiler) string     // the victim, as it is struck; nil: it hits no job
	do      func(s *spoiler, id string) // the strike
	may     []dianemo.State             // how the victim may end; nil: as if nothing had been
	corrupt bool                        // unless it succeeds, it is for the reason corrupt
	newer   bool                        // it is left alone
	starts  int                         // of the victim, at most; 0: one
	remains []string                    // parts of what the audit may find in the end; ID is the victim's
}

var (
	setAside = []dianemo.State{dianemo.Failed}
	// Whoever comes first, what tells the job or repair, decides.
	perhaps = []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Skipped}
	// A run of which the record is lost may be taken from its peer, and given to another.
	anyhow = []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Unreachable}
)

// Victims.

// soon waits, without a record.
func soon(s *spoiler) string {
	return s.one("work", args{Work: time.Millisecond}, dianemo.Options{Priority: 1, Delay: 700 * time.Millisecond})
}

// own waits, with a record.
func own(s *spoiler) string {
	return s.one("work", args{Work: time.Millisecond}, dianemo.Options{Delay: 700 * time.Millisecond, Weight: 3})
}

func runs(s *spoiler) string { return s.held(dianemo.Options{Reruns: 1, Retries: dianemo.None}) }

func succeeds(s *spoiler) string {
	id := s.one("work", args{Work: time.Millisecond}, urgent)
	s.awaitState(dianemo.Succeeded, id)
	return id
}

func fails(s *spoiler) string {
	id := s.one("work", args{Work: time.Millisecond, Fails: true}, urgent)
	s.awaitState(dianemo.Failed, id)
	return id
}

func child(s *spoiler) string {
	return s.one("work", args{Work: time.Millisecond}, dianemo.Options{Parents: dianemo.After(s.gate)})
}

// flow is a workflow that waits for two jobs.
func flow(s *spoiler) string {
	wf := dianemo.NewWorkflow("struck")
	wf.ID = s.id(-1)
	kind := dianemo.NewKind[args]("work", dianemo.Policy{})
	wf.Add("a", kind.NewWith(args{Work: time.Millisecond}, dianemo.Options{RunAt: time.Now().Add(700 * time.Millisecond)}))
	wf.Add("b", kind.New(args{Work: time.Millisecond})).After("a")
	_, err := s.client.Submit(s.t.Context(), wf)
	require.NoError(s.t, err)
	return wf.ID
}

func unique(s *spoiler) string {
	return s.one("work", args{Work: time.Millisecond}, dianemo.Options{Delay: 700 * time.Millisecond, Unique: dianemo.Unique{Key: s.id(-1)}})
}

// of another kind, so that what is said of its counters is known to be about it.
func newer(make func(s *spoiler, kind string) string) func(s *spoiler) string {
	return func(s *spoiler) string { return make(s, "newer") }
}

// The strikes.

func set(key, value string) func(s *spoiler, id string) {
	return func(s *spoiler, id string) { s.hset(s.at(id)+key, id, value) }
}

func del(key string) func(s *spoiler, id string) {
	return func(s *spoiler, id string) { s.hdel(s.at(id)+key, id) }
}

// edit changes a field that is there.
func edit(key string, change func(was string) string) func(s *spoiler, id string) {
	return func(s *spoiler, id string) { s.hset(s.at(id)+key, id, change(s.hget(s.at(id)+key, id))) }
}

// field changes the n-th part of a record.
func field(n int, value string) func(s *spoiler, id string) {
	return edit("meta", func(was string) string {
		f := strings.Split(was, "|")
		f[n] = value
		return strings.Join(f, "|")
	})
}

func cut(was string) string   { return was[:len(was)*2/3] }
func later(was string) string { return "2" + was[1:] }

func (s *spoiler) hget(key, field string) string {
	value, err := s.rdb.HGet(s.t.Context(), key, field).Result()
	require.NoError(s.t, err, "%s %s", key, field)
	return value
}

func (s *spoiler) hset(key, field, value string) {
	require.NoError(s.t, s.rdb.HSet(s.t.Context(), key, field, value).Err())
}

func (s *spoiler) hdel(key, field string) {
	require.NoError(s.t, s.rdb.HDel(s.t.Context(), key, field).Err())
}

func (s *spoiler) zadd(key, member string, score float64) {
	require.NoError(s.t, s.rdb.ZAdd(s.t.Context(), key, redis.Z{Member: member, Score: score}).Err())
}

func (s *spoiler) zrem(key, member string) {
	require.NoError(s.t, s.rdb.ZRem(s.t.Context(), key, member).Err())
}

// runOf is the index of runs that a job is in.
func (s *spoiler) runOf(id string) string {
	return s.at(id) + "run:" + s.starts(nil, id)[0].Peer
}

// needsOf is the field that says how a victim waits for the gate.
func (s *spoiler) needsOf(id string) string { return id + "|" + s.gate }

const (
	urgentLane = "lane:work:1:60000:0:new"
	doneOnes   = "done:succeeded:work"
	failedOnes = "done:failed:work"
)

var strikes = []strike{
	{name: "garbage for a spec that waits", make: soon, do: set("spec", "\x00"), may: setAside, corrupt: true, remains: []string{"ID: its spec"}},
	{name: "a spec that waits is cut", make: own, do: edit("spec", cut), may: setAside, corrupt: true, remains: []string{"ID: its spec", "of its spec"}},
	{name: "a spec that waits is gone", make: soon, do: del("spec"), may: setAside, corrupt: true, remains: []string{"ID: it has no spec"}},
	{name: "a newer spec", make: newer(func(s *spoiler, kind string) string {
		return s.one(kind, args{Work: time.Millisecond}, dianemo.Options{Delay: 500 * time.Millisecond})
	}),
		do: edit("spec", later), newer: true, remains: []string{"ID: its spec is of version"}},
	{name: "garbage for a spec that runs", make: runs, do: set("spec", "\x00"), remains: []string{"ID: its spec"}},
	{name: "a spec that runs is gone", make: runs, do: del("spec"), remains: []string{"ID: it has no spec"}},
	{name: "garbage for a spec that has ended", make: succeeds, do: set("spec", "\x00"), remains: []string{"ID: its spec"}},
	{name: "a spec that has ended is gone", make: fails, do: del("spec"), may: setAside, remains: []string{"ID: it has no spec"}},
	{name: "garbage for a spec that is blocked", make: child, do: set("spec", "\x00"), may: []dianemo.State{dianemo.Failed, dianemo.Skipped}, corrupt: true, remains: []string{"ID: its spec"}},
	{name: "a spec that is blocked is gone", make: child, do: del("spec"), may: []dianemo.State{dianemo.Failed, dianemo.Skipped}, corrupt: true, remains: []string{"ID: it has no spec"}},
	{name: "garbage for a workflow's spec", make: flow, do: set("spec", "\x00"), remains: []string{"ID: its spec"}},
	{name: "a workflow's spec is gone", make: flow, do: del("spec"), remains: []string{"ID: it has no spec"}},

	{name: "garbage for the record of a job without one", make: soon, do: set("meta", "x"), may: setAside, corrupt: true},
	{name: "garbage for a record that waits", make: own, do: set("meta", "\x00\xff|||"), may: setAside, corrupt: true},
	{name: "a record that waits is cut", make: own, do: edit("meta", cut), may: setAside, corrupt: true},
	{name: "a record that waits is gone", make: own, do: del("meta"), remains: []string{"ID: it weighs"}},
	{name: "a record that waits is due at another time", make: own, do: field(7, "5")},
	{name: "a number of a record is none", make: own, do: field(9, "1e9"), may: setAside, corrupt: true},
	{name: "a number of a record is too long", make: own, do: field(4, strings.Repeat("9", 30)), may: setAside, corrupt: true},
	{name: "a state of a record is none", make: own, do: field(1, "lost"), may: setAside, corrupt: true},
	{name: "a newer record that waits", make: newer(func(s *spoiler, kind string) string {
		return s.one(kind, args{Work: time.Millisecond}, dianemo.Options{Delay: 500 * time.Millisecond})
	}),
		do: set("meta", "2|whatever"), newer: true, remains: []string{"ID: its record is of version"}},
	{name: "a newer record that runs", make: newer(func(s *spoiler, kind string) string {
		id := s.one(kind, args{}, dianemo.Options{})
		s.free = append(s.free, id)
		s.await(1, "the job start", func(l line) bool { return l.is(started, id) })
		return id
		// While something runs of which the kind can't be read, nobody counts what runs.
	}), do: edit("meta", later), newer: true, remains: []string{"ID: its record is of version", "counts: running:"}},
	{name: "garbage for a record that runs", make: runs, do: set("meta", "x"), may: anyhow, starts: 2},
	{name: "a record that runs is cut", make: runs, do: edit("meta", cut), may: anyhow, starts: 2},
	{name: "a record that runs is gone", make: runs, do: del("meta"), may: anyhow, starts: 2},
	{name: "a record that runs has another epoch", make: runs, do: field(4, "9999999999999999"), may: anyhow, starts: 2},
	{name: "garbage for a record that has ended", make: succeeds, do: set("meta", "x")},
	{name: "a record that has ended is gone", make: fails, do: del("meta"), may: setAside},
	{name: "garbage for a record that is blocked", make: child, do: set("meta", "x"), may: []dianemo.State{dianemo.Failed, dianemo.Skipped}, corrupt: true},
	{name: "a record that is blocked is gone", make: child, do: del("meta")},
	{name: "a workflow's record is gone", make: flow, do: del("meta")},

	{name: "a job is in no lane", make: soon, do: func(s *spoiler, id string) { s.zrem(s.at(id)+urgentLane, id) }},
	{name: "a lane has a job too early", make: soon, do: func(s *spoiler, id string) { s.zadd(s.at(id)+urgentLane, id, 5) }, may: []dianemo.State{dianemo.Succeeded, dianemo.Missed}},
	{name: "a lane has a job too late", make: soon, do: func(s *spoiler, id string) {
		s.zadd(s.at(id)+urgentLane, id, 9e14)
		// Nobody can know, but an operator may.
		require.NoError(s.t, s.client.Reschedule(s.t.Context(), id, dianemo.Change{RunAt: time.Now()}))
	}},
	{name: "a lane has a job that is none", make: func(s *spoiler) string { return s.id(-1) }, do: func(s *spoiler, id string) { s.zadd(s.at(id)+urgentLane, id, 5) },
		may: []dianemo.State{dianemo.Failed, dianemo.Missed}, remains: []string{"ID: it has no spec"}},
	{name: "a lane has a job that has ended", make: succeeds, do: func(s *spoiler, id string) { s.zadd(s.at(id)+urgentLane, id, 5) }},
	{name: "a job that runs is in no index", make: runs, do: func(s *spoiler, id string) { s.zrem(s.runOf(id), id) }, may: anyhow, starts: 2},
	{name: "a run has another epoch", make: runs, do: func(s *spoiler, id string) { s.zadd(s.runOf(id), id, 5) }, may: anyhow, starts: 2},
	{name: "a run is none", make: func(s *spoiler) string { return s.id(-1) }, do: func(s *spoiler, id string) { s.zadd(s.at(id)+"run:"+s.alive[0].id, id, 5) },
		may: []dianemo.State{dianemo.Failed, dianemo.Unreachable}, remains: []string{"ID: it has no spec"}},
	{name: "a job that has ended is in no set", make: fails, do: func(s *spoiler, id string) { s.zrem(s.at(id)+failedOnes, id) }, may: setAside},
	{name: "a job ended at another time", make: succeeds, do: func(s *spoiler, id string) { s.zadd(s.at(id)+doneOnes, id, 1e13) }},
	{name: "a job that has ended is none", make: func(s *spoiler) string { return s.id(-1) }, do: func(s *spoiler, id string) { s.zadd(s.at(id)+failedOnes, id, float64(time.Now().UnixMilli())) },
		may: setAside, remains: []string{"ID: it has no spec"}},
	{name: "a blocked job is not in the set", make: child, do: func(s *spoiler, id string) { s.zrem(s.at(id)+"blocked", id) }},
	{name: "a blocked job must start at another time", make: child, do: func(s *spoiler, id string) { s.zadd(s.at(id)+"blocked", id, 9e12) }},
	{name: "a blocked job is none", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"blocked", "none", 9e12) }},

	{name: "a lane is not named", do: func(s *spoiler, _ string) { s.zrem(s.tag(0)+"lanes", urgentLane[5:]) }},
	{name: "a lane is named too late", make: soon, do: func(s *spoiler, id string) { s.zadd(s.at(id)+"lanes", urgentLane[5:], 9e14) }},
	{name: "a lane is named too early", make: soon, do: func(s *spoiler, id string) { s.zadd(s.at(id)+"lanes", urgentLane[5:], 5) }},
	{name: "a lane is named that is empty", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"lanes", "none:2:-1:0:new", 5) }},
	{name: "a lane is named that is none", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"lanes", "none", 5) }, remains: []string{"lane none is named", `"none"`}},
	// Where the sum of a kind's counters agrees, it is believed: a job of one priority may be counted as one of another.
	{name: "a counter is off", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"counts", "succeeded:work:1", "7777") }, remains: []string{"counts: succeeded:work:"}},
	{name: "a counter is no number", do: func(s *spoiler, _ string) { s.hset(s.tag(1)+"counts", "running:work:2", "x") }},
	{name: "a counter is gone", do: func(s *spoiler, _ string) { s.hdel(s.tag(1)+"counts", "failed:work:1") }, remains: []string{"counts: failed:work:"}},
	{name: "a counter is none", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"counts", "x", "x") }, remains: []string{`nothing is counted as "x"`}},

	{name: "garbage for a result", make: succeeds, do: set("result", "x")},
	{name: "a result is gone", make: succeeds, do: del("result")},
	{name: "a result is nobody's", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"result", "none", "1") }},
	{name: "garbage for an error", make: fails, do: func(s *spoiler, id string) { s.hset(s.at(id)+"errors", "0|"+id, "x") }, may: setAside, remains: []string{"errors: of job ID"}},
	{name: "an error is nobody's", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"errors", "0|none", "x") }},
	{name: "garbage for progress", make: runs, do: set("progress", "{")},
	{name: "progress is nobody's", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"progress", "none", "{}") }},

	{name: "garbage for a slot", make: unique, do: func(s *spoiler, id string) { s.hset(s.at(id)+"unique", s.slotOf(id), "x") }},
	{name: "a slot is gone", make: unique, do: func(s *spoiler, id string) { s.hdel(s.at(id)+"unique", s.slotOf(id)) }},
	{name: "a slot is nobody's", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"unique", "work:none", "none|f|0|0") }},

	{name: "garbage for what a job waits for", make: child, do: func(s *spoiler, id string) { s.hset(s.at(id)+"needs", s.needsOf(id), "x") }, may: perhaps, corrupt: true, remains: []string{`needs: ID|`}},
	{name: "what a job waits for is gone", make: child, do: func(s *spoiler, id string) { s.hdel(s.at(id)+"needs", s.needsOf(id)) }, may: perhaps, corrupt: true},
	{name: "garbage for what a job waits for, in numbers", make: child, do: func(s *spoiler, id string) { s.hset(s.at(id)+"needs", id+"||", "x") }, may: perhaps, corrupt: true},
	{name: "what a job waits for, in numbers, is off", make: child, do: func(s *spoiler, id string) {
		s.hset(s.at(id)+"needs", id+"||", "9"+s.hget(s.at(id)+"needs", id+"||"))
	}, may: perhaps, corrupt: true},
	{name: "what a job waits for, in numbers, is gone", make: child, do: func(s *spoiler, id string) { s.hdel(s.at(id)+"needs", id+"||") }, may: perhaps, corrupt: true},
	{name: "what a workflow waits for, in numbers, is gone", make: flow, do: func(s *spoiler, id string) { s.hdel(s.at(id)+"needs", id+"||") }, may: perhaps, corrupt: true},
	{name: "what a workflow waits for is gone in part", make: flow, do: func(s *spoiler, id string) { s.hdel(s.at(id)+"needs", id+"|"+id+"@b") }, may: perhaps, corrupt: true},
	{name: "garbage in needs", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"needs", "\x00", "x") }},
	{name: "an edge is gone", make: child, do: func(s *spoiler, id string) { s.zrem(s.at(s.gate)+"edges", s.gate+"|"+id) }},
	{name: "an edge has a score", make: child, do: func(s *spoiler, id string) { s.zadd(s.at(s.gate)+"edges", s.gate+"|"+id, 5) }},
	{name: "a workflow's edge is gone", make: flow, do: func(s *spoiler, id string) { s.zrem(s.at(id)+"edges", id+"@b||"+id) }},
	{name: "garbage for an edge", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"edges", "\x00", 5) }},
	{name: "an edge is nobody's", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"edges", "none|none", 0) }},
	{name: "a family can't be read", make: child, do: func(s *spoiler, _ string) { s.hset(s.at(s.gate)+"kids", s.gate, "x") }},
	{name: "a family is gone", make: child, do: func(s *spoiler, _ string) { s.hdel(s.at(s.gate)+"kids", s.gate) }},
	{name: "a family is nobody's", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"kids", "none", "1|") }},
	{name: "word for nobody", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"outbox", "none", 5) }},
	{name: "a gate of nobody", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"gates", "none", 5) }},

	{name: "garbage for a definition", do: func(s *spoiler, _ string) { s.schedule("def", func(at string) { s.hset(at+"schedules", "def", "{") }) }},
	{name: "a definition is gone", do: func(s *spoiler, _ string) { s.schedule("nodef", func(at string) { s.hdel(at+"schedules", "nodef") }) }},
	{name: "garbage for a cursor", do: func(s *spoiler, _ string) { s.schedule("cur", func(at string) { s.hset(at+"cursors", "cur", "x") }) }},
	{name: "a cursor is gone", do: func(s *spoiler, _ string) { s.schedule("nocur", func(at string) { s.hdel(at+"cursors", "nocur") }) }},
	{name: "a schedule is not looked at", do: func(s *spoiler, _ string) { s.schedule("nofire", func(at string) { s.zrem(at+"fires", "nofire") }) }},
	{name: "a schedule is looked at too late", do: func(s *spoiler, _ string) { s.schedule("late", func(at string) { s.zadd(at+"fires", "late", 9e14) }) }},
	{name: "a schedule that is none", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"fires", "none", 5) }},

	{name: "garbage for a sign of life", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"info", "alive", "x") }},
	{name: "a sign of life of the future", do: func(s *spoiler, _ string) { s.hset(s.tag(1)+"info", "alive", "9000000000000000") }},
	{name: "garbage for the end of an outage", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"info", "up_since", "x") }},
	{name: "an outage that ends in the future", do: func(s *spoiler, _ string) { s.hset(s.tag(1)+"info", "up_since", "9000000000000000") }},
	{name: "garbage for an interval", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"info", "every", "x") }},
	{name: "garbage for a term", do: func(s *spoiler, _ string) { s.hset(s.tag(0)+"info", "term", "x") }},
	{name: "a term of the future", do: func(s *spoiler, _ string) { s.hset(s.tag(1)+"info", "term", "9000000000000000") }},
	{name: "a peer is gone from the beats", do: func(s *spoiler, _ string) { s.zrem(s.tag(0)+"beats", s.alive[0].id) }},
	{name: "a beat of nobody", do: func(s *spoiler, _ string) { s.zadd(s.tag(0)+"beats", "none", 5) }},
	{name: "garbage for the answer to a call", do: func(s *spoiler, _ string) {
		for _, key := range s.rdb.Keys(s.t.Context(), s.tag(0)+"call:*").Val() {
			require.NoError(s.t, s.rdb.SetXX(s.t.Context(), key, "x", redis.KeepTTL).Err())
		}
	}, remains: []string{"it is no answer"}},

	{name: "garbage for what is kept", do: func(s *spoiler, _ string) { s.hset(s.space("kinds"), "work", "x") }},
	{name: "garbage for a peer", do: func(s *spoiler, _ string) { s.hset(s.space("peers"), s.alive[1].id, "x") }},
	{name: "a peer is gone", do: func(s *spoiler, _ string) { s.hdel(s.space("peers"), s.alive[2].id) }},
	{name: "a peer was not seen", do: func(s *spoiler, _ string) { s.zrem(s.space("seen"), s.alive[2].id) }},
	{name: "a peer was seen that is none", do: func(s *spoiler, _ string) { s.zadd(s.space("seen"), "none", 5) }},
	{name: "a peer is drained that is none", do: func(s *spoiler, _ string) { s.rdb.SAdd(s.t.Context(), s.space("drained"), "none") }, remains: []string{"drained: none"}},
	{name: "garbage for the leader", do: func(s *spoiler, _ string) { s.rdb.Set(s.t.Context(), s.space("leader"), "x", 0) }},
	{name: "garbage for the term", do: func(s *spoiler, _ string) { s.rdb.Set(s.t.Context(), s.space("term"), "x", 0) }},
	{name: "a peer is idle that is none", do: func(s *spoiler, _ string) { s.zadd(s.space("idle"), "none", 0) }, remains: []string{"idle: none"}},
	{name: "garbage for what a peer handles", do: func(s *spoiler, _ string) { s.hset(s.space("handles"), s.alive[0].id, "x") }},
	{name: "garbage for a peer's room", do: func(s *spoiler, _ string) { s.hset(s.space("room"), s.alive[0].id, "x") }, remains: []string{"room: "}},
	{name: "garbage for what nobody heard", do: func(s *spoiler, _ string) { s.hset(s.space("unheard"), "work", "x") }},
	{name: "garbage for the layout", do: func(s *spoiler, _ string) { s.hset(s.space("layout"), "partitions", "x") }},
}

func (s *spoiler) slotOf(id string) string {
	f := strings.Split(s.hget(s.at(id)+"meta", id), ",")
	return strings.Split(f[2], "|")[0]
}

// schedule makes one and spoils it.
func (s *spoiler) schedule(name string, strike func(at string)) {
	s.t.Helper()
	s.ticks(name)
	strike(s.at(name))
}
