package measure

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// A spec is what a peer of the benchmark has to know, wherever it runs.
type spec struct {
	URL, Namespace string
	Plain          bool
	Partitions     int
	Tokens         int
	Reserve        int // for priority 1
	Weights        []int
	Kinds          int
	Keep           Keep
	Load           bool
	Takes          time.Duration
	Count          bool // its commands and its claims
}

// Jobs come in two classes. Those whose start is timed say from when, in a
// header: an instant in ns, or "due". They take no time.
const (
	plain   = 0
	timed   = 1
	classes = 2

	fromHeader = "from"
	fromDue    = "due"
)

// totals is what members have come to.
type totals struct {
	Usage
	Commands, Claims int64
	Delays           counted
	Until            time.Time // it is of: of a member that has ended, its end
}

func (t *totals) add(o totals) {
	t.CPU += o.CPU
	t.Allocations += o.Allocations
	t.Commands += o.Commands
	t.Claims += o.Claims
	if t.Delays == nil {
		t.Delays = counted{}
	}
	for bucket, n := range o.Delays {
		t.Delays[bucket] += n
	}
	if o.Until.After(t.Until) {
		t.Until = o.Until
	}
}

// A member is one peer of the benchmark.
type member struct {
	spec             spec
	rdb              *redis.Client
	peer             *dianemo.Peer
	done             func(class int) // is told of each job that is done
	delays           Histogram
	commands, claims atomic.Int64
	from             Usage // when it was marked
}

func newMember(s spec, done func(class int)) (*member, error) {
	m := &member{spec: s, done: done}
	var hooks []redis.Hook
	if s.Count {
		hooks = append(hooks, sent{&m.commands})
	}
	rdb, store, err := s.store(hooks...)
	if err != nil {
		return nil, err
	}
	m.rdb = rdb
	var through dianemo.Store = store
	if s.Count {
		through = counting{store, &m.claims}
	}
	config := dianemo.Config{Tokens: s.Tokens, Load: dianemo.LoadConfig{Off: !s.Load}, Logger: quiet}
	if s.Reserve > 0 {
		config.Reserve = map[int]int{1: s.Reserve}
	}
	if s.Takes > 0 {
		config.Finish = dianemo.None // what runs at the end is of no interest
	}
	if m.peer, err = dianemo.NewPeer(through, config); err == nil {
		for _, k := range s.kinds() {
			if err = k.Handle(m.peer, m.handle); err != nil {
				break
			}
		}
	}
	if err != nil {
		_ = rdb.Close()
		return nil, err
	}
	return m, nil
}

func (m *member) handle(ctx context.Context, job *dianemo.Job[string]) error {
	switch from := job.Headers[fromHeader]; from {
	case "":
		if m.spec.Takes > 0 {
			if err := wait(ctx, m.spec.Takes); err != nil {
				return err
			}
		}
		m.done(plain)
		return nil
	case fromDue:
		m.delays.Add(time.Since(job.Due))
	default:
		ns, err := strconv.ParseInt(from, 10, 64)
		if err != nil {
			return dianemo.Fail(err)
		}
		m.delays.Add(time.Since(time.Unix(0, ns)))
	}
	m.done(timed)
	return nil
}

// run works until ctx ends.
func (m *member) run(ctx context.Context) error {
	defer m.rdb.Close()
	return m.peer.Run(ctx)
}

// mark returns the totals since the last mark.
func (m *member) mark() totals {
	until, usage := time.Now(), OwnUsage()
	t := totals{usage.Since(m.from), m.commands.Swap(0), m.claims.Swap(0), m.delays.take(), until}
	m.from = usage
	return t
}

var quiet = slog.New(slog.DiscardHandler)

// A counting store counts the claims that go through it.
type counting struct {
	dianemo.Store
	claims *atomic.Int64
}

func (c counting) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	if claim.Limit > 0 {
		c.claims.Add(1)
	}
	return c.Store.Turn(ctx, partition, call, settle, claim)
}

// sent is a client's hook that counts the commands that it sends.
type sent struct{ commands *atomic.Int64 }

func (s sent) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s sent) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "hello" && cmd.Name() != "client" {
			s.commands.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (s sent) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "hello" }) {
			s.commands.Add(int64(len(cmds)))
		}
		return next(ctx, cmds)
	}
}
