package redisstore_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

var (
	server     *redistest.Server // shared: each test has a namespace of its own
	namespaces atomic.Int64
)

func TestMain(m *testing.M) {
	os.Exit(redistest.Main(m, func(s *redistest.Server) { server = s }))
}

// A fixture is a store under test, and how to reach behind it.
type fixture struct {
	dianemo.Store
	t         *testing.T
	rdb       redis.UniversalClient // past all faults
	namespace string
	calls     uint64
}

// A kindOfStore makes stores to run a test on.
type kindOfStore struct {
	name string
	make func(t *testing.T, options redisstore.Options) (dianemo.Store, redis.UniversalClient)
}

// storeKinds are the embedded Redis, a real one, and a real one under each
// disturbance that must make no difference: every script sent twice; every third
// reply lost; and every script confined to the keys that it declares.
var storeKinds = []kindOfStore{
	{"embedded", func(t *testing.T, options redisstore.Options) (dianemo.Store, redis.UniversalClient) {
		s, err := embedded.New(options)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s, s.Client()
	}},
	{"redis", func(t *testing.T, options redisstore.Options) (dianemo.Store, redis.UniversalClient) {
		return redisstore.New(server.Client(t), options), server.Client(t)
	}},
	{"twice", func(t *testing.T, options redisstore.Options) (dianemo.Store, redis.UniversalClient) {
		client := server.Client(t)
		client.AddHook(scriptHook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			first := redis.NewCmd(ctx, cmd.Args()...)
			_ = next(ctx, first) // the second answer must be as good
			return next(ctx, cmd)
		}))
		return redisstore.New(client, options), server.Client(t)
	}},
	{"lossy", func(t *testing.T, options redisstore.Options) (dianemo.Store, redis.UniversalClient) {
		proxy := redistest.StartProxy(t, server.Addr())
		proxy.DropMatching(everyThirdScript())
		client := redis.NewClient(&redis.Options{Addr: proxy.Addr(), DisableIdentity: true, MaxRetries: 10, ReadTimeout: time.Minute,
			MinRetryBackoff: time.Millisecond, MaxRetryBackoff: time.Millisecond})
		t.Cleanup(func() {
			require.NoError(t, client.Close())
			require.Positive(t, proxy.Dropped(), "the test lost no reply")
		})
		return redisstore.New(client, options), server.Client(t)
	}},
	{"declared", func(t *testing.T, options redisstore.Options) (dianemo.Store, redis.UniversalClient) {
		return redisstore.New(confined(t), options), server.Client(t)
	}},
}

// A place is where a test runs.
type place struct {
	kindOfStore
	partitions int
}

// places are the stores of each kind with 1 and 8 partitions.
func places() (all []place) {
	for _, partitions := range []int{1, 8} {
		for _, kind := range storeKinds {
			all = append(all, place{kind, partitions})
		}
	}
	return all
}

// each runs a test on a store of each kind, with 1 and 8 partitions. In the short
// form it picks one of the two for each kind.
func each(t *testing.T, test func(t *testing.T, f *fixture)) { eachBut(t, nil, test) }

// eachBut is each without some of the stores, by name.
func eachBut(t *testing.T, without []string, test func(t *testing.T, f *fixture)) {
	few, dice := map[string]int{}, sample.Rand(t)
	for _, kind := range storeKinds {
		few[kind.name] = []int{1, 8}[dice.IntN(2)]
	}
	runOn(t, slices.DeleteFunc(places(), func(p place) bool {
		return slices.Contains(without, p.name) || !sample.Long(t) && p.partitions != few[p.name]
	}), test)
}

// eachInLong is for the rows of tables: each in the long form, and one of these
// stores in the short form.
func eachInLong(t *testing.T, test func(t *testing.T, f *fixture)) {
	all := places()
	runOn(t, sample.Rows(t, all, len(all)), test)
}

func runOn(t *testing.T, places []place, test func(t *testing.T, f *fixture)) {
	for _, p := range places {
		t.Run(fmt.Sprintf("%s/%d", p.name, p.partitions), func(t *testing.T) {
			t.Parallel()
			options := redisstore.Options{Namespace: fmt.Sprintf("test-%d", namespaces.Add(1)), Partitions: p.partitions}
			store, rdb := p.make(t, options)
			require.NoError(t, store.Open(t.Context()))
			test(t, &fixture{Store: store, t: t, rdb: rdb, namespace: options.Namespace})
		})
	}
}

func everyThirdScript() func(request []byte) bool {
	var n atomic.Int64
	return func(request []byte) bool {
		return strings.Contains(strings.ToLower(string(request[:min(len(request), 64)])), "eval") && n.Add(1)%3 == 1
	}
}

// scriptHook treats each script call, also those in pipelines.
type scriptHook func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error

func (h scriptHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h scriptHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		return h(ctx, cmd, next)
	}
}

func (h scriptHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	one := func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, []redis.Cmder{cmd})
		cmd.SetErr(err)
		return err
	}
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) > 0 && cmds[0].Name() == "multi" {
			return next(ctx, cmds) // what belongs together; the store's have no scripts
		}
		var first error
		for _, cmd := range cmds {
			if err := h.ProcessHook(one)(ctx, cmd); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
}

// confined is a client whose scripts may touch only the keys that they were
// given: Redis checks each command of a script against its user's keys.
func confined(t *testing.T) *redis.Client {
	admin := server.Client(t)
	user := fmt.Sprintf("confined-%d", namespaces.Add(1))
	allow := func(ctx context.Context, rules ...any) error {
		return admin.Do(ctx, append([]any{"ACL", "SETUSER", user}, rules...)...).Err()
	}
	require.NoError(t, allow(t.Context(), "on", "nopass", "+@all", "allkeys", "allchannels"))
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: user, Password: "-", DisableIdentity: true})
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, admin.Do(context.Background(), "ACL", "DELUSER", user).Err())
	})
	var one sync.Mutex
	client.AddHook(readHook{&one})
	client.AddHook(scriptHook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		one.Lock()
		defer one.Unlock()
		args := cmd.Args()
		rules := []any{"resetkeys"}
		keys, _ := args[2].(int)
		for _, key := range args[3 : 3+keys] {
			rules = append(rules, "~"+key.(string))
		}
		if err := allow(ctx, rules...); err != nil {
			return err
		}
		err := next(ctx, cmd)
		if back := allow(ctx, "allkeys"); back != nil {
			return back
		}
		return err
	}))
	return client
}

// readHook keeps what is read beside scripts out of the moments in which the
// user is confined to a script's keys.
type readHook struct{ one *sync.Mutex }

func (h readHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h readHook) reads(cmd redis.Cmder) bool {
	switch cmd.Name() {
	case "hget", "hmget", "zrange", "zrangebyscore", "zscore", "time":
		return true
	}
	return false
}

func (h readHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.reads(cmd) {
			h.one.Lock()
			defer h.one.Unlock()
		}
		return next(ctx, cmd)
	}
}

func (h readHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if h.reads(cmds[0]) {
			h.one.Lock()
			defer h.one.Unlock()
		}
		return next(ctx, cmds)
	}
}

func TestAConfinedScriptThatTouchesAnUndeclaredKeyIsRefused(t *testing.T) {
	t.Parallel()
	client := confined(t)
	require.NoError(t, client.Eval(t.Context(), "return redis.call('SET', KEYS[1], 1)", []string{"test-declared"}).Err())
	err := client.Eval(t.Context(), "return redis.call('SET', 'test-undeclared', 1)", []string{"test-declared"}).Err()
	require.ErrorContains(t, err, "can't access at least one of the keys")
}

// call is a new call of this caller.
func (f *fixture) call(caller string) dianemo.Call {
	f.calls++
	return dianemo.Call{Caller: caller, Number: f.calls}
}

func lane(kind string) dianemo.Lane {
	return dianemo.Lane{Kind: kind, Priority: 2, Grace: dianemo.Unlimited}
}

func record(id string, l dianemo.Lane) dianemo.Record {
	spec := dianemo.EncodeSpec(&dianemo.Spec{Kind: l.Kind, Priority: l.Priority, Grace: l.Grace, Args: []byte(`{}`)})
	return dianemo.Record{ID: id, Lane: l, Spec: spec}
}

// enqueue adds jobs, all of one partition.
func (f *fixture) enqueue(records ...dianemo.Record) dianemo.EnqueueReply {
	f.t.Helper()
	reply, err := f.Enqueue(f.t.Context(), f.Partition(records[0].ID), f.call("producer"), records)
	require.NoError(f.t, err)
	return reply
}

func roomFor(tokens int) (room [10]int) {
	for level := range room {
		room[level] = tokens
	}
	return room
}

func (f *fixture) claim(partition int, peer string, lanes ...dianemo.ClaimLane) dianemo.TurnReply {
	f.t.Helper()
	reply, err := f.Turn(f.t.Context(), partition, f.call(peer), nil, dianemo.Claim{Limit: 100, Room: roomFor(1000), Lanes: lanes, BeatEvery: 5 * time.Second})
	require.NoError(f.t, err)
	return reply
}

func (f *fixture) settle(partition int, peer string, s ...dianemo.Settlement) (stale []dianemo.RunRef) {
	f.t.Helper()
	reply, err := f.Turn(f.t.Context(), partition, f.call(peer), s, dianemo.Claim{})
	require.NoError(f.t, err)
	return reply.Stale
}

// reap reaps whatever is silent for longer than a few ms, until there is
// nothing more.
func (f *fixture) reap(partition int) (jobs []dianemo.Moved) {
	f.t.Helper()
	var clock time.Time
	f.waitMillis(&clock, 3)
	chore := dianemo.Chore{Term: 1, Limit: 100, BeatEvery: 5 * time.Second, SilentAfter: time.Millisecond}
	surveys, err := f.Survey(f.t.Context(), &chore)
	require.NoError(f.t, err)
	for _, peer := range surveys[partition].Silent {
		for more := true; more; {
			reply, err := f.Reap(f.t.Context(), partition, f.call("leader"), peer, chore)
			require.NoError(f.t, err)
			jobs, more = append(jobs, reply.Jobs...), reply.More
		}
	}
	return jobs
}

// waitMillis waits until the store's clock has gone on.
func (f *fixture) waitMillis(clock *time.Time, ms int) {
	f.t.Helper()
	begin, err := f.rdb.Time(f.t.Context()).Result()
	require.NoError(f.t, err)
	require.Eventually(f.t, func() bool {
		now, err := f.rdb.Time(f.t.Context()).Result()
		*clock = now
		return err == nil && now.Sub(begin) >= time.Duration(ms)*time.Millisecond
	}, time.Minute, time.Millisecond)
}

func (f *fixture) miss(partition int) []dianemo.Moved {
	f.t.Helper()
	reply, err := f.Miss(f.t.Context(), partition, f.call("leader"), dianemo.Chore{Term: 1, Limit: 100})
	require.NoError(f.t, err)
	late, err := f.Overdue(f.t.Context(), partition, f.call("leader"), dianemo.Chore{Term: 1, Limit: 100})
	require.NoError(f.t, err)
	return append(reply.Jobs, late.Jobs...)
}

// parentOf is the id of a parent in the same partition.
func parentOf(id string) string { return id + "@parent" }

// need tells that the job waits for the success of these.
func (f *fixture) need(id string, parents ...string) {
	f.t.Helper()
	_, err := f.Need(f.t.Context(), f.Partition(id), dianemo.TellIt, 1, []dianemo.Wait{{ID: id, Parents: dianemo.After(parents...)}})
	require.NoError(f.t, err)
}

// release tells a job what its parent has come to.
func (f *fixture) release(id string, state dianemo.State) dianemo.ReleaseReply {
	f.t.Helper()
	reply, err := f.Release(f.t.Context(), f.Partition(id), f.call("parent"), []dianemo.Release{{Child: id, Parent: parentOf(id), State: state}})
	require.NoError(f.t, err)
	return reply
}

func (f *fixture) state(id string) dianemo.State {
	f.t.Helper()
	job, err := f.Get(f.t.Context(), id)
	if err != nil {
		require.ErrorIs(f.t, err, dianemo.ErrNotFound)
		return ""
	}
	return job.Info.State
}

// key is the name of one of the partition's keys, spelled out here once more
// so that a changed layout is noticed.
func (f *fixture) key(id, name string) string {
	return fmt.Sprintf("{%s:%d}:%s", f.namespace, f.Partition(id), name)
}

// wipe removes all that the namespace has.
func (f *fixture) wipe() {
	f.t.Helper()
	for _, pattern := range []string{"{" + f.namespace + "}:*", "{" + f.namespace + ":*"} {
		keys, err := f.rdb.Keys(f.t.Context(), pattern).Result()
		require.NoError(f.t, err)
		if len(keys) > 0 {
			require.NoError(f.t, f.rdb.Unlink(f.t.Context(), keys...).Err())
		}
	}
}

// age makes a waiting job due earlier, as if that much time had passed.
func (f *fixture) age(id, laneName string, by time.Duration) {
	f.t.Helper()
	ctx := f.t.Context()
	due := f.rdb.ZScore(ctx, f.key(id, "lane:"+laneName), id).Val() - float64(by.Milliseconds())
	require.Positive(f.t, due)
	require.NoError(f.t, f.rdb.ZAdd(ctx, f.key(id, "lane:"+laneName), redis.Z{Score: due, Member: id}).Err())
	require.NoError(f.t, f.rdb.ZAddLT(ctx, f.key(id, "lanes"), redis.Z{Score: due, Member: laneName}).Err())
}

func claimLane(l dianemo.Lane) dianemo.ClaimLane { return dianemo.ClaimLane{Lane: l, Weight: 1} }
