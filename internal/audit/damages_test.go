package audit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/sample"
)

// ghost is a peer that has claimed a job, reported on it, leads and stands idle, and does nothing more.
func (w *populated) ghost() {
	ctx := w.t.Context()
	w.waiting = w.enqueue(nobody, "", dianemo.Options{ID: "ghost@waits"})
	w.running = w.enqueue(dianemo.NewKind[args]("ghostly", dianemo.Policy{}), "", dianemo.Options{ID: "ghost@1"})
	// The word of it would have the ghost stand idle no longer.
	w.eventually("nobody has heard of the job", func() bool { return w.rdb.HExists(ctx, w.space("unheard"), "ghostly").Val() })
	_, err := w.store.Present(ctx, dianemo.PeerInfo{ID: "ghost"}, false)
	require.NoError(w.t, err)
	var room [10]int
	for i := range room {
		room[i] = 1
	}
	partition := w.store.Partition(w.running)
	reply, err := w.store.Turn(ctx, partition, dianemo.Call{Caller: "ghost", Number: 100}, nil, dianemo.Claim{Limit: 1, Room: room,
		Lanes:     []dianemo.ClaimLane{{Lane: dianemo.Lane{Kind: "ghostly", Priority: 2, Grace: 24 * time.Hour}, Weight: 1}},
		Stance:    dianemo.Stance{Move: dianemo.Up, Level: 9, Room: room, Kinds: map[string]int{"ghostly": 1}},
		BeatEvery: time.Hour, SilentAfter: 4 * time.Hour})
	require.NoError(w.t, err)
	require.Len(w.t, reply.Jobs, 1)
	_, err = w.store.Beat(ctx, partition, dianemo.Beat{Peer: "ghost", Every: time.Hour, SilentAfter: 4 * time.Hour,
		Runs: []dianemo.HeldRun{{ID: w.running, Epoch: reply.Jobs[0].Epoch, Progress: &dianemo.Progress{Done: 1}}}})
	require.NoError(w.t, err)
	_, err = w.store.Lead(ctx, dianemo.Bid{Peer: "ghost", Lease: time.Hour})
	require.NoError(w.t, err)
}

// A dump brings a namespace back.
type dump map[string]struct {
	bytes string
	life  time.Duration
}

func (w *world) dump() dump {
	d := dump{}
	for _, key := range w.all() {
		one := d[key]
		one.bytes, one.life = w.rdb.Dump(w.t.Context(), key).Val(), max(w.rdb.PTTL(w.t.Context(), key).Val(), 0)
		require.NotEmpty(w.t, one.bytes)
		d[key] = one
	}
	return d
}

func (w *world) restore(d dump) {
	ctx := w.t.Context()
	require.NoError(w.t, w.rdb.Del(ctx, w.all()...).Err())
	for key, one := range d {
		require.NoError(w.t, w.rdb.Restore(ctx, key, one.life, one.bytes).Err())
	}
}

// A damage of one key, and a part of what must be found.
type damage struct {
	name  string
	do    func(d *damager)
	finds string
}

// A damager fails the test where there is nothing to damage.
type damager struct {
	*populated
	redis.Pipeliner
}

func (d *damager) set(id, key, field, value string) {
	d.HSet(d.t.Context(), d.at(id)+key, field, value)
}

func (d *damager) value(id, key, field string) string {
	value, err := d.rdb.HGet(d.t.Context(), d.at(id)+key, field).Result()
	require.NoError(d.t, err, "%s %s", key, field)
	return value
}

// change puts other text into a field.
func (d *damager) change(id, key, field, old, new string) {
	was := d.value(id, key, field)
	require.Contains(d.t, was, old)
	d.set(id, key, field, strings.Replace(was, old, new, 1))
}

// field puts another value into the n-th field of a record.
func (d *damager) field(id string, n int, value string) {
	f := strings.Split(d.value(id, "meta", id), "|")
	f[n] = value
	d.set(id, "meta", id, strings.Join(f, "|"))
}

func (d *damager) drop(id, key, field string) {
	d.value(id, key, field)
	d.HDel(d.t.Context(), d.at(id)+key, field)
}

func (d *damager) add(id, key, member string, score float64) {
	d.ZAdd(d.t.Context(), d.at(id)+key, redis.Z{Member: member, Score: score})
}

func (d *damager) remove(id, key, member string) {
	require.NoError(d.t, d.rdb.ZScore(d.t.Context(), d.at(id)+key, member).Err(), "%s %s", key, member)
	d.ZRem(d.t.Context(), d.at(id)+key, member)
}

func (w *world) space(key string) string { return "{" + w.namespace + "}:" + key }

const nobodyLane = "nobody:2:86400000:0:new"

var damages = []damage{
	{"a job whose spec is gone", func(d *damager) { d.drop(d.waiting, "spec", d.waiting) }, "it has no spec"},
	{"an ended job whose spec is gone", func(d *damager) { d.drop(d.succeeded, "spec", d.succeeded) }, "it has no spec"},
	{"a spec that is cut", func(d *damager) { d.set(d.waiting, "spec", d.waiting, d.value(d.waiting, "spec", d.waiting)[:8]) }, "its spec is cut short"},
	{"a spec that is cut within a field", func(d *damager) {
		was := d.value(d.failed, "spec", d.failed)
		d.set(d.failed, "spec", d.failed, was[:4]+was[len(was)-13:])
	}, "of its spec is cut short"},
	{"a spec of a newer version", func(d *damager) { d.set(d.waiting, "spec", d.waiting, "2"+d.value(d.waiting, "spec", d.waiting)[1:]) }, "its spec is of version '2'"},
	{"a spec of another lane", func(d *damager) { d.change(d.failed, "spec", d.failed, "plain", "plaim") }, "by its spec plaim:2"},
	{"a spec in another partition", func(d *damager) {
		other := d.tag((d.store.Partition(d.waiting) + 1) % d.partitions)
		d.HSet(d.t.Context(), other+"spec", d.waiting, d.value(d.waiting, "spec", d.waiting))
	}, "it belongs into partition"},
	{"garbage for a record", func(d *damager) { d.set(d.retrying, "meta", d.retrying, "x") }, "its record is of version"},
	{"a record of a newer version", func(d *damager) { d.field(d.retrying, 0, "2") }, `its record is of version "2"`},
	{"a record that is cut", func(d *damager) { d.set(d.retrying, "meta", d.retrying, "1|scheduled|||") }, "its record is cut short"},
	{"a number in a record that is none", func(d *damager) { d.field(d.retrying, 4, "1e3") }, `its record has "1e3" for a number`},
	{"a state that there is not", func(d *damager) { d.field(d.retrying, 1, "lost") }, `its record has the state "lost"`},
	{"another state", func(d *damager) { d.field(d.succeeded, 1, "failed") }, "and should be in done:failed:plain"},
	{"a state that has ended, and no time", func(d *damager) { d.field(d.succeeded, 3, "") }, `it is succeeded and ended at ""`},
	{"a run under no epoch", func(d *damager) { d.field(d.running, 4, "0") }, "epoch 0"},
	{"an epoch that is another", func(d *damager) { d.add(d.running, "run:ghost", d.running, 5) }, "its score in run:ghost is 5"},
	{"a missed job that was run", func(d *damager) { d.field(d.failed, 1, "missed") }, "it is missed and was run"},
	{"a record that is gone of a job that was run", func(d *damager) { d.drop(d.retrying, "meta", d.retrying) }, "and should be in lane:heavy"},
	{"a record that is gone of a job with settings of its own", func(d *damager) { d.drop(d.later, "meta", d.later) }, "it has settings of its own and no record"},
	{"a record that is gone of a blocked job", func(d *damager) { d.drop(d.blocked, "meta", d.blocked) }, "it was blocked at first, and it has no record"},
	{"a job in no lane", func(d *damager) { d.remove(d.waiting, "lane:"+nobodyLane, d.waiting) }, "it is in no index"},
	{"a job in two indexes", func(d *damager) { d.add(d.succeeded, "lane:"+nobodyLane, d.succeeded, 9e14) }, "it is in 2 indexes"},
	{"a job that is due at another time", func(d *damager) { d.add(d.waiting, "lane:"+nobodyLane, d.waiting, 9e14) }, "its score in lane:nobody"},
	{"a retry that is due at another time", func(d *damager) { d.field(d.retrying, 7, "5") }, "its score in lane:heavy"},
	{"a member of a lane that is no job", func(d *damager) { d.add(d.waiting, "lane:"+nobodyLane, "ghost@none", 9e14) }, "job ghost@none: it has no spec"},
	{"a member of a run that is no job", func(d *damager) { d.add(d.running, "run:ghost", "ghost@none", 9e14) }, "job ghost@none: it has no spec"},
	{"an ended job that is in no set", func(d *damager) { d.remove(d.failed, "done:failed:plain", d.failed) }, "it is in no index, and should be in done:failed:plain"},
	{"a blocked job that is not in the set", func(d *damager) { d.remove(d.blocked, "blocked", d.blocked) }, "it is in no index, and should be in blocked"},
	{"a blocked job with another end", func(d *damager) { d.add(d.blocked, "blocked", d.blocked, 5) }, "its score in blocked is 5"},
	{"a lane that is not named", func(d *damager) { d.remove(d.waiting, "lanes", nobodyLane) }, "has jobs and is not named"},
	{"a lane that is named too late", func(d *damager) { d.add(d.waiting, "lanes", nobodyLane, 9e15) }, "is named with 9000000000000000"},
	{"a lane that is named and empty", func(d *damager) { d.add(d.waiting, "lanes", "none:2:-1:0:new", 5) }, "is named and has no jobs"},
	{"a lane of no name", func(d *damager) { d.add(d.waiting, "lanes", "none", 5) }, "no lane has such a name"},
	{"a counter that is off", func(d *damager) { d.set(d.failed, "counts", "failed:plain:2", "77") }, `failed:plain:2 is "77"`},
	{"a counter that is gone", func(d *damager) { d.drop(d.running, "counts", "running:ghostly:2") }, "running:ghostly:2 is missing"},
	{"a counter of nothing", func(d *damager) { d.set(d.failed, "counts", "scheduled:plain:2", "1") }, "nothing is counted as"},
	{"a result of nobody", func(d *damager) { d.set(d.waiting, "result", "none", "1") }, `of job "none", which does not exist`},
	{"a result of a job that waits", func(d *damager) { d.set(d.waiting, "result", d.waiting, "1") }, "result: of job ghost@waits, which is scheduled"},
	{"errors of nobody", func(d *damager) { d.set(d.waiting, "errors", "3|none", "1|2|p|fail|error|x") }, `errors: of job "none", which does not exist`},
	{"errors that are none", func(d *damager) { d.set(d.failed, "errors", "0|"+d.failed, "x") }, `: "x"`},
	{"progress of a job that does not run", func(d *damager) { d.set(d.failed, "progress", d.failed, "{}") }, "progress: of job"},
	{"progress that is none", func(d *damager) { d.set(d.running, "progress", d.running, "{") }, `progress: of job "ghost@1": "{"`},
	{"a peer that runs and does not beat", func(d *damager) { d.remove(d.running, "beats", "ghost") }, "ghost runs something and is not there"},
	{"a slot of nobody", func(d *damager) { d.set(d.unique, "unique", "nobody:k", "none|f|0|0") }, "nobody:k names job none, which does not exist"},
	{"a slot that is gone", func(d *damager) { d.drop(d.unique, "unique", "nobody:k") }, "does not hold nobody:k"},
	{"a slot that another has", func(d *damager) { d.set(d.unique, "unique", "nobody:k", d.unique+"x|f|0|0") }, "does not hold nobody:k"},
	{"a slot that is none", func(d *damager) { d.set(d.unique, "unique", "nobody:x", "x") }, `nobody:x is "x"`},
	{"a slot of a job that has another", func(d *damager) { d.set(d.unique, "unique", "nobody:x", d.unique+"|f|0|0") }, "nobody:x names job"},
	{"what a blocked job waits for is gone", func(d *damager) { d.drop(d.blocked, "needs", d.blocked+"||") }, "it has no numbers"},
	{"a parent that is waited for is gone", func(d *damager) { d.drop(d.blocked, "needs", d.blocked+"|"+d.later) }, "its numbers are"},
	{"numbers that are off", func(d *damager) { d.change(d.blocked, "needs", d.blocked+"||", ",0,0,", ",1,0,") }, "its numbers are"},
	{"nothing is left to wait for", func(d *damager) {
		id := d.blocked
		d.HDel(d.t.Context(), d.at(id)+"needs", id+"|"+d.later, id+"|"+d.parent)
		d.set(id, "needs", id+"||", "0,0,0,0,1#"+strings.Split(d.value(id, "needs", id+"||"), "#")[1])
	}, "and nothing is left to wait for"},
	{"a way to wait that there is not", func(d *damager) { d.set(d.blocked, "needs", d.blocked+"|"+d.later, "z#1") }, `is "z#1"`},
	{"a gate that nobody opens", func(d *damager) {
		d.set(d.blocked, "needs", d.blocked+"|", "g")
		d.change(d.blocked, "needs", d.blocked+"||", "2,", "3,")
	}, "its gate is closed for ever"},
	{"a gate of nobody", func(d *damager) { d.add(d.blocked, "gates", d.blocked, 9e12) }, "waits for none"},
	{"an edge that is gone", func(d *damager) { d.remove(d.later, "edges", d.later+"|"+d.blocked) }, "does not know of it"},
	{"an edge that is none", func(d *damager) { d.add(d.later, "edges", "x", 0) }, "no edge is such"},
	{"a family that is gone", func(d *damager) { d.drop(d.later, "kids", d.later) }, "which has a child"},
	{"a family that can't be read", func(d *damager) { d.set(d.later, "kids", d.later, "x") }, `is "x"`},
	{"a family that was told in part", func(d *damager) { d.set(d.later, "kids", d.later, "1|x") }, "was told as far as x"},
	{"a child that was told by a number of the future", func(d *damager) {
		job := "amends/" + d.heldFlow
		d.value(job, "kids", job)
		d.set(job, "kids", job, "1|")
	}, "it was told of amends/"},
	{"word for nobody's children", func(d *damager) { d.add(d.waiting, "outbox", "none", 5) }, "none has no child"},
	{"a workflow that was not told of its job", func(d *damager) {
		id := d.flow
		field := id + "|" + "fails/" + id
		was := d.value(id, "needs", field)
		d.set(id, "needs", field, "+"+was[1:])
		d.change(id, "needs", id+"||", "1,1,", "0,0,")
	}, "it was told of fails/"},
	{"a workflow that does not wait for a job", func(d *damager) {
		id := d.heldFlow
		d.drop(id, "needs", id+"|held/"+id)
		sums := strings.SplitN(d.value(id, "needs", id+"||"), ",", 2)
		d.set(id, "needs", id+"||", fmt.Sprint(whole(sums[0])-1)+","+sums[1])
	}, "it does not wait for its job held/"},
	{"a parent that has ended untold", func(d *damager) {
		f := strings.Split(d.value(d.later, "meta", d.later), "|")
		f[1], f[3] = "cancelled", "5"
		d.set(d.later, "meta", d.later, strings.Join(f, "|"))
	}, `which is "cancelled"`},
	{"a cursor that is gone", func(d *damager) { d.drop("hourly", "cursors", "hourly") }, "schedule hourly has none"},
	{"a cursor that can't be read", func(d *damager) { d.set("hourly", "cursors", "hourly", "x") }, "that of schedule hourly is"},
	{"a definition that is gone", func(d *damager) { d.drop("hourly", "schedules", "hourly") }, "hourly has a cursor and no definition"},
	{"a definition that can't be read", func(d *damager) { d.set("hourly", "schedules", "hourly", "{") }, `hourly is "{"`},
	{"a definition without a job", func(d *damager) { d.change("hourly", "schedules", "hourly", `"job":"`, `"job":"AAAA`) }, "the job of hourly can't be read"},
	{"a schedule that is never looked at", func(d *damager) { d.remove("hourly", "fires", "hourly") }, "schedule hourly is on and is not there"},
	{"a schedule that is paused and fires", func(d *damager) { d.add("paused", "fires", "paused", 5) }, "schedule paused is paused"},
	{"a schedule that is none", func(d *damager) { d.add("none", "fires", "none", 5) }, "none is no schedule"},
	{"an occurrence of another schedule", func(d *damager) {
		id := strings.SplitN(d.value("hourly", "cursors", "hourly"), "|", 7)[5]
		d.change("hourly", "spec", id, "hourly", "hourlx")
	}, "it is an occurrence and should begin with hourlx"},
	{"info that is none", func(d *damager) { d.set(d.waiting, "info", "alive", "x") }, `alive is "x"`},
	{"info of nothing", func(d *damager) { d.set(d.waiting, "info", "none", "1") }, `it has the field "none"`},
	{"a term that no leader had", func(d *damager) { d.set(d.waiting, "info", "term", "9999999999999") }, "term is"},
	{"a peer that was not seen", func(d *damager) { d.ZRem(d.t.Context(), d.space("seen"), "ghost") }, "peer ghost is not there"},
	{"a peer that is gone", func(d *damager) { d.HDel(d.t.Context(), d.space("peers"), "ghost") }, "ghost was seen and is not there"},
	{"a peer that is drained and none", func(d *damager) { d.SAdd(d.t.Context(), d.space("drained"), "none") }, "none is no peer"},
	{"an idle peer without room", func(d *damager) { d.HDel(d.t.Context(), d.space("room"), "ghost") }, "ghost has no room"},
	{"an idle peer without kinds", func(d *damager) { d.HDel(d.t.Context(), d.space("handles"), "ghost") }, "or no kinds"},
	{"room of a peer that is not idle", func(d *damager) { d.ZRem(d.t.Context(), d.space("idle"), "ghost") }, "ghost is not idle"},
	{"a leader of another term", func(d *damager) { d.Set(d.t.Context(), d.space("term"), "5", 0) }, "ghost|"},
	{"a leader for ever", func(d *damager) { d.Persist(d.t.Context(), d.space("leader")) }, "leader: it never expires"},
	{"another number of partitions", func(d *damager) { d.HSet(d.t.Context(), d.space("layout"), "partitions", "3") }, "partitions:3"},
	{"what is kept, unreadable", func(d *damager) { d.HSet(d.t.Context(), d.space("kinds"), "plain", "x") }, `of "plain" is kept "x"`},
	{"work that was not heard of, nowhere", func(d *damager) { d.HSet(d.t.Context(), d.space("unheard"), "plain", " 99/2 ") }, "there is no partition 99"},
	{"a call for ever", func(d *damager) { d.Persist(d.t.Context(), d.at(d.running)+"call:claim:ghost") }, "call:claim:ghost: it never expires"},
	{"a call that is none", func(d *damager) { d.Set(d.t.Context(), d.at(d.running)+"call:claim:ghost", "x", time.Hour) }, "it is no answer"},
	{"a key that expires", func(d *damager) { d.Expire(d.t.Context(), d.at(d.waiting)+"spec", time.Hour) }, "spec: it expires"},
	{"a key of another type", func(d *damager) {
		d.Del(d.t.Context(), d.at(d.waiting)+"meta")
		d.LPush(d.t.Context(), d.at(d.waiting)+"meta", "x")
	}, "it is a list, not a hash"},
	{"a key of no name", func(d *damager) { d.Set(d.t.Context(), d.at(d.waiting)+"mail:ghost", "x", 0) }, "no key has such a name"},
	{"a key of no name of the namespace's", func(d *damager) { d.Set(d.t.Context(), d.space("spec"), "x", 0) }, "no key has such a name"},
	{"a key of no partition", func(d *damager) { d.HSet(d.t.Context(), d.tag(99)+"spec", "x", "x") }, "there is no such partition"},
	{"a key that is aside for ever", func(d *damager) { d.Set(d.t.Context(), d.tag(0)+"spec:aside:1700000000000", "x", 0) }, "it is aside for ever"},
}

func TestEachSortOfDamageIsFound_Long(t *testing.T) {
	t.Parallel()
	w := populate(t, 4)
	w.parent = w.running
	w.stop()
	w.ghost()
	w.clean()
	whole := w.dump()
	for _, d := range sample.Rows(t, damages, 8) {
		t.Run(strings.ReplaceAll(d.name, " ", "_"), func(t *testing.T) {
			on := &damager{w, w.rdb.Pipeline()}
			d.do(on)
			changes, err := on.Exec(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, changes)
			findings, err := Keys(t.Context(), w.rdb, w.namespace, w.partitions)
			require.NoError(t, err)
			require.Contains(t, strings.Join(findings, "\n"), d.finds)
			w.restore(whole)
			w.clean()
		})
	}
}

// What is of no use any more is told apart from what is wrong.
func TestWhatIsOfNoUseIsALeftover(t *testing.T) {
	t.Parallel()
	w := populate(t, 1)
	w.stop()
	ctx := t.Context()
	for name, do := range map[string]func(){
		"kids: x has no child": func() { w.rdb.HSet(ctx, w.tag(0)+"kids", "x", "1|") },
		"edges: x → y: the parent is gone, and nobody waits for it": func() {
			w.rdb.HSet(ctx, w.tag(0)+"kids", "x", "1|")
			w.rdb.ZAdd(ctx, w.tag(0)+"edges", redis.Z{Member: "x|y"})
		},
		"needs: job y, which does not exist, waits": func() { w.rdb.HSet(ctx, w.tag(0)+"needs", "y|x", "s#1", "y||", "1,0,0,0,0#1") },
	} {
		do()
		w.clean()
		left, err := Leftovers(ctx, w.rdb, w.namespace, w.partitions)
		require.NoError(t, err)
		require.Contains(t, strings.Join(left, "\n"), name)
		report, err := w.Repair(ctx)
		require.NoError(t, err)
		require.NotEmpty(t, report.Found)
		left, err = Leftovers(ctx, w.rdb, w.namespace, w.partitions)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}
