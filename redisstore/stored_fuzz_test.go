package redisstore

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A planted store is one in whose Redis a test puts what no version has written.
type planted struct {
	*Store
	t   *testing.T
	rdb *redis.Client
}

// onBoth runs a test on both servers, with nothing in either, and says whether it gave the same.
func onBoth(f *testing.F) func(t *testing.T, test func(p *planted) any) {
	servers := readInLua(f, "return {}").servers
	return func(t *testing.T, test func(p *planted) any) {
		gave := map[string]any{}
		for name, rdb := range servers {
			require.NoError(t, rdb.FlushAll(t.Context()).Err())
			p := &planted{New(rdb, Options{Namespace: "fuzz", Plain: name == "embedded"}), t, rdb}
			p.partitions.Store(1)
			gave[name] = test(p)
		}
		require.Equal(t, gave["redis"], gave["embedded"])
	}
}

func (p *planted) put(key string, fieldsAndValues ...any) {
	p.t.Helper()
	require.NoError(p.t, p.rdb.HSet(p.t.Context(), key, fieldsAndValues...).Err())
}

func (p *planted) rank(key, member string, score float64) {
	p.t.Helper()
	require.NoError(p.t, p.rdb.ZAdd(p.t.Context(), key, redis.Z{Score: score, Member: member}).Err())
}

func FuzzLease(f *testing.F) {
	f.Add("peer-1|1700000000000|15000", true, "1700000000000")
	f.Add("peer-1|1700000000000|15000", false, "1700000000000")
	f.Add("me|99999999999999999999999|15000", true, "1e300")
	f.Add("me|7|99999999999999999999999", false, "inf")
	f.Add("|||7|7", true, "nan")
	f.Add("me", false, "99999999999999999999999")
	f.Add("", true, "")
	both := onBoth(f)
	f.Fuzz(func(t *testing.T, lease string, expires bool, term string) {
		both(t, func(p *planted) any {
			ctx, space := t.Context(), p.space()
			ttl := time.Duration(0)
			if expires {
				ttl = time.Hour
			}
			require.NoError(t, p.rdb.Set(ctx, space.key("leader"), lease, ttl).Err())
			require.NoError(t, p.rdb.Set(ctx, space.key("term"), term, 0).Err())
			now, err := p.rdb.Time(ctx).Result()
			require.NoError(t, err)
			bid := dianemo.Bid{Peer: "me", Lease: 15 * time.Second}
			got, err := p.Lead(ctx, bid)
			require.NoError(t, err)
			require.NotEmpty(t, got.Leader, "somebody leads")
			require.True(t, got.Term >= 0 && got.Term < 1e16, "term %d", got.Term)
			left, err := p.rdb.PTTL(ctx, space.key("leader")).Result()
			require.NoError(t, err)
			require.True(t, 0 < left && left <= time.Hour, "a lease ends: %v", left)
			again, err := p.Lead(ctx, bid)
			require.NoError(t, err)
			require.Equal(t, got, again)
			bid.Resign = true
			_, err = p.Lead(ctx, bid)
			require.NoError(t, err)
			bid.Resign = false
			next, err := p.Lead(ctx, bid)
			require.NoError(t, err)
			if got.Leader == "me" {
				require.Equal(t, "me", next.Leader)
				require.True(t, next.Term > got.Term || got.Term >= 9e15, "after %d comes %d", got.Term, next.Term)
				require.GreaterOrEqual(t, next.Term, now.UnixMilli(), "by the clock")
			}
			return got.Leader
		})
	})
}

func FuzzLayout(f *testing.F) {
	f.Add("1", "1", "8")
	f.Add("2", "1", "8")
	f.Add("1", "2", "8")
	f.Add("1", "1", "0")
	f.Add("1", "1", "99999999999999999999")
	f.Add("x", "", "1e1")
	f.Add("1", "nan", "-1")
	both := onBoth(f)
	f.Fuzz(func(t *testing.T, layout, least, partitions string) {
		both(t, func(p *planted) any {
			p.partitions.Store(0)
			p.put(p.space().key("layout"), "layout", layout, "min_peer", least, "partitions", partitions)
			if err := p.Open(t.Context()); err != nil {
				require.Zero(t, p.Partitions())
				return errors.Is(err, dianemo.ErrLayout)
			}
			require.True(t, 1 <= p.Partitions() && p.Partitions() <= maxPartitions)
			n, err := strconv.Atoi(partitions)
			require.NoError(t, err)
			require.Equal(t, n, p.Partitions())
			return n
		})
	})
}

// What is said of a unique slot decides whether a job is accepted, and never keeps a call from being answered.
func FuzzSlot(f *testing.F) {
	waiting := "1|scheduled|||0||k:2:-1:0|1700000000000||0|0|0|||5|f,0,k:key|"
	f.Add("first|f|0|0", waiting)
	f.Add("first|f|99999999999999999999999|0", waiting)
	f.Add("first|s|1700000000000|0", waiting)
	f.Add("first|s|0|1", someMeta)
	f.Add("first|s|0|0", "2|who knows")
	f.Add("gone|f|0|0", "")
	f.Add("|f|0|0", "1|x")
	f.Add("f", waiting)
	both := onBoth(f)
	spec := dianemo.EncodeSpec(&dianemo.Spec{Kind: "k", Priority: 2, Grace: dianemo.Unlimited})
	f.Fuzz(func(t *testing.T, said, record string) {
		both(t, func(p *planted) any {
			tag := p.tag(0)
			p.put(tag.key("unique"), "k:key", said)
			p.put(tag.key("spec"), "first", string(spec)+"1700000000000")
			p.put(tag.key("meta"), "first", record)
			job := dianemo.Record{ID: "second", Lane: dianemo.Lane{Kind: "k", Priority: 2, Grace: dianemo.Unlimited}, Spec: spec, Unique: dianemo.Unique{Key: "key", For: time.Hour}}
			reply, err := p.Enqueue(t.Context(), 0, dianemo.Call{Caller: "test", Number: 1}, []dianemo.Record{job})
			require.NoError(t, err)
			now, err := p.rdb.HGet(t.Context(), tag.key("unique"), "k:key").Result()
			require.NoError(t, err)
			if reply.Existing[0] == "" {
				require.Regexp(t, `^second\|f\|[0-9]{13}\|0$`, now)
			} else {
				require.Equal(t, "first", reply.Holders[0])
				require.Equal(t, said, now)
			}
			job.ID, job.Unique.Replace = "third", true
			_, err = p.Enqueue(t.Context(), 0, dianemo.Call{Caller: "test", Number: 2}, []dianemo.Record{job})
			require.NoError(t, err)
			return reply
		})
	})
}

// What a job waits for, and how far its parents' children have been told.
func FuzzFamily(f *testing.F) {
	f.Add("s#7", "1,0,0,0,0#7", "1700000000000000|", "g#7")
	f.Add("!f60000@12#7", "2,1,0,0,0#7", "1700000000000000|parent", "")
	f.Add("?c@99999999999999999999999#7", "2,1,1,0,0#7", "99999999999999999999999|x", "g0")
	f.Add("+c99999999999999999999999#7", "0,0,0,1,1#7 99999 peer-1", "|", "")
	f.Add("s#7", "1,0,0,0,0#7", "1700000000000000|", "")
	f.Add("m", "", "", "g")
	both := onBoth(f)
	spec := dianemo.EncodeSpec(&dianemo.Spec{Kind: "k", Priority: 2, Grace: dianemo.Unlimited})
	f.Fuzz(func(t *testing.T, how, totals, told, gate string) {
		both(t, func(p *planted) any {
			ctx, tag := t.Context(), p.tag(0)
			p.put(tag.key("spec"), "child", string(spec)+"1700000000000")
			p.put(tag.key("meta"), "child", "1|blocked|||0||k:2:-1:0|1700000000000||0|0|0|||5||",
				"parent", "1|succeeded||1700000000000|1700000000000000|peer-1|k:2:-1:0|1|1|0|0|1|||5||")
			p.rank(tag.key("blocked"), "child", 253402300799999)
			p.put(tag.key("needs"), "child|parent", how, "child||", totals)
			if gate != "" {
				p.put(tag.key("needs"), "child|", gate)
			}
			p.put(tag.key("kids"), "parent", told)
			p.rank(tag.key("outbox"), "parent", 1700000000000000)
			p.rank(tag.key("edges"), "parent|child", 0)
			heirs, _, err := p.Heirs(ctx, 0, 10, 10)
			require.NoError(t, err)
			require.Len(t, heirs, 1)
			releases := []dianemo.Release{{Child: "child", Parent: "parent", State: dianemo.Succeeded, Number: heirs[0].Number, Peer: "peer-1"},
				{Child: "child", State: "open"}}
			reply, err := p.Release(ctx, 0, dianemo.Call{Caller: "test", Number: 1}, releases)
			require.NoError(t, err)
			again, err := p.Release(ctx, 0, dianemo.Call{Caller: "test", Number: 1}, releases)
			require.NoError(t, err)
			require.Equal(t, reply, again, "the answer of the first")
			_, err = p.Passed(ctx, 0, heirs)
			require.NoError(t, err)
			_, err = p.Need(ctx, 0, dianemo.DropIt, 7, []dianemo.Wait{{ID: "child", Parents: dianemo.After("parent")}})
			require.NoError(t, err)
			var states []dianemo.State
			for _, job := range reply.Jobs {
				states = append(states, job.State)
			}
			return []any{heirs, states, reply.Moved}
		})
	})
}
