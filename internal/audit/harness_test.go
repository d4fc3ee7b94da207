package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/dianemo/dianemo/redisstore"
)

var (
	server     *redistest.Server
	namespaces atomic.Int64
	quiet      = slog.New(slog.DiscardHandler)
)

func TestMain(m *testing.M) {
	os.Exit(redistest.Main(m, func(s *redistest.Server) { server = s }))
}

// What a handler is to do.
type args struct {
	Do string // "", fail, retry, snooze, hold, choose, report
}

var (
	plain  = dianemo.NewKind[args]("plain", dianemo.Policy{Retries: dianemo.None})
	urgent = dianemo.NewKind[args]("urgent", dianemo.Policy{Priority: 1})
	heavy  = dianemo.NewKind[args]("heavy", dianemo.Policy{Weight: 3})
	brief  = dianemo.NewKind[args]("brief", dianemo.Policy{Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}}})
	nobody = dianemo.NewKind[args]("nobody", dianemo.Policy{}) // which nobody handles
)

// A world is a namespace with peers and a client at work in it.
type world struct {
	*dianemo.Client
	t          *testing.T
	rdb        *redis.Client
	store      *redisstore.Store
	namespace  string
	partitions int
	stops      []func()
	free       chan struct{} // closed when what is held may end
}

func newWorld(t *testing.T, partitions int) *world {
	w := &world{t: t, rdb: server.Client(t), namespace: fmt.Sprintf("audit-%d", namespaces.Add(1)), partitions: partitions, free: make(chan struct{})}
	w.store = redisstore.New(w.rdb, redisstore.Options{Namespace: w.namespace, Partitions: partitions})
	var err error
	w.Client, err = dianemo.NewClient(w.store, dianemo.ClientConfig{Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return w
}

// beatEvery is so long that what keeps Redis busy meanwhile is no outage, and no peer that is not scheduled for a while is silent.
const beatEvery = 500 * time.Millisecond

// patience is for what must happen.
const patience = time.Minute

// peer starts one; it is stopped with the others.
func (w *world) peer() *dianemo.Peer {
	w.t.Helper()
	p, err := dianemo.NewPeer(w.store, dianemo.Config{Tokens: 16, BeatEvery: beatEvery, Finish: dianemo.None, Load: dianemo.LoadConfig{Off: true}, Logger: quiet})
	require.NoError(w.t, err)
	for _, kind := range []dianemo.Kind[args]{plain, urgent, heavy, brief} {
		require.NoError(w.t, kind.Handle(p, w.handle))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); running.Wait() })
	w.stops = append(w.stops, stop)
	w.t.Cleanup(stop)
	return p
}

func (w *world) stop() {
	for _, stop := range w.stops {
		stop()
	}
}

func (w *world) handle(ctx context.Context, job *dianemo.Job[args]) error {
	switch job.Args.Do {
	case "fail":
		return dianemo.Fail(errors.New("as told"))
	case "retry":
		return dianemo.RetryIn(time.Hour, errors.New("as told"))
	case "snooze":
		if job.Attempt == 1 && job.Epoch%2 == 0 {
			return dianemo.Snooze(time.Millisecond)
		}
	case "choose":
		return job.Choose(ctx, "left")
	case "report":
		return job.SetResult(job.ID)
	case "hold":
		job.Progress(1, 2, "held")
		select {
		case <-w.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *world) enqueue(kind dianemo.Kind[args], do string, options dianemo.Options) string {
	w.t.Helper()
	id, err := kind.EnqueueWith(w.t.Context(), w.Client, args{do}, options)
	require.NoError(w.t, err)
	return id
}

func (w *world) ends(state dianemo.State, ids ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for _, id := range ids {
		job, err := w.Wait(ctx, id)
		require.NoError(w.t, err, id)
		require.Equal(w.t, state, job.State, "%s: %s, %s", id, job.Reason, job.LastError())
	}
}

func (w *world) becomes(state dianemo.State, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		w.eventually(id+" is "+string(state), func() bool {
			job, err := w.Get(w.t.Context(), id)
			return err == nil && job.State == state
		})
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	require.Eventually(w.t, ok, patience, 5*time.Millisecond, what)
}

func (w *world) clean() {
	w.t.Helper()
	findings, err := Keys(w.t.Context(), w.rdb, w.namespace, w.partitions)
	require.NoError(w.t, err)
	require.Empty(w.t, findings, "%s", strings.Join(findings, "\n"))
}

// settled waits until nobody has anything to tell.
func (w *world) settled() {
	w.t.Helper()
	w.eventually("all outboxes are empty", func() bool {
		for p := range w.partitions {
			if w.rdb.Exists(w.t.Context(), w.tag(p)+"outbox").Val() > 0 {
				return false
			}
		}
		return true
	})
}

func (w *world) tag(partition int) string { return fmt.Sprintf("{%s:%d}:", w.namespace, partition) }

// at is the tag of an id's partition.
func (w *world) at(id string) string { return w.tag(w.store.Partition(id)) }

// workflow is a small one: a decision with two branches, a failure and what comes after it.
func workflow(spread bool) *dianemo.Workflow {
	wf := dianemo.NewWorkflow("flow")
	wf.Spread = spread
	wf.Add("first", plain.New(args{"report"}))
	wf.Add("choice", plain.New(args{"choose"})).After("first")
	wf.Add("left", urgent.New(args{})).After("choice")
	wf.Add("right", urgent.New(args{})).After("choice")
	wf.Add("joined", plain.New(args{})).AfterChosen("left", "right")
	wf.Add("fails", plain.New(args{"fail"})).AfterEnd("first")
	wf.Add("spared", plain.New(args{})).After("fails")
	wf.Add("amends", plain.New(args{})).AfterFailure("fails")
	return wf
}

func (w *world) submit(wf *dianemo.Workflow) string {
	w.t.Helper()
	id, err := w.Submit(w.t.Context(), wf)
	require.NoError(w.t, err)
	return id
}

func member(wf *dianemo.Workflow, id, name string) string {
	if wf.Spread {
		return name + "/" + id
	}
	return id + "@" + name
}

// A populated world has something of everything. The ids are of jobs that stay as they are.
type populated struct {
	*world
	waiting, later, retrying, running, blocked, skipped, failed, succeeded string
	unique, flow, heldFlow, gone, parent                                   string
}

func populate(t *testing.T, partitions int) *populated {
	w := &populated{world: newWorld(t, partitions)}
	w.fill()
	return w
}

func (w *populated) fill() {
	t, ctx := w.t, w.t.Context()
	w.peer()
	two := w.peer()

	w.succeeded = w.enqueue(plain, "report", dianemo.Options{})
	w.failed = w.enqueue(plain, "fail", dianemo.Options{})
	missed := w.enqueue(plain, "", dianemo.Options{RunAt: time.Now().Add(-2 * time.Hour), Grace: time.Minute})
	w.waiting = w.enqueue(nobody, "", dianemo.Options{})
	w.later = w.enqueue(plain, "", dianemo.Options{Delay: time.Hour, Weight: 5, Reruns: 2})
	w.retrying = w.enqueue(heavy, "retry", dianemo.Options{})
	w.running = w.enqueue(plain, "hold", dianemo.Options{})
	snoozes := w.enqueue(urgent, "snooze", dianemo.Options{Retries: 3, Reruns: 3})
	w.gone = w.enqueue(brief, "report", dianemo.Options{})
	cancelled := w.enqueue(nobody, "", dianemo.Options{Priority: 7})
	require.NoError(t, w.Cancel(ctx, cancelled))
	moved := w.enqueue(nobody, "", dianemo.Options{Priority: 3})
	require.NoError(t, w.Reschedule(ctx, moved, dianemo.Change{Delay: time.Hour, Priority: 4}))
	large := make([]byte, 5000)
	_, err := nobody.EnqueueWith(ctx, w.Client, args{string(large)}, dianemo.Options{})
	require.NoError(t, err)

	w.unique = w.enqueue(nobody, "", dianemo.Options{Unique: dianemo.Unique{Key: "k"}})
	first := w.enqueue(nobody, "", dianemo.Options{Unique: dianemo.Unique{Key: "r", Replace: true}})
	w.enqueue(nobody, "", dianemo.Options{Unique: dianemo.Unique{Key: "r", Replace: true}})
	w.ends(dianemo.Cancelled, first)
	w.enqueue(nobody, "", dianemo.Options{Unique: dianemo.Unique{Key: "t", For: time.Millisecond}})
	w.eventually("the key is free again", func() bool {
		_, err := nobody.EnqueueWith(ctx, w.Client, args{}, dianemo.Options{Unique: dianemo.Unique{Key: "t", For: time.Hour}})
		return err == nil
	})
	started := w.enqueue(plain, "hold", dianemo.Options{Unique: dianemo.Unique{Key: "s", Until: dianemo.UntilStarted}})
	w.becomes(dianemo.Running, started)
	w.enqueue(plain, "", dianemo.Options{Delay: time.Hour, Unique: dianemo.Unique{Key: "s", Until: dianemo.UntilStarted}})
	w.ends(dianemo.Succeeded, w.enqueue(plain, "", dianemo.Options{Unique: dianemo.Unique{Key: "done"}}))

	w.blocked = w.enqueue(plain, "", dianemo.Options{Parents: append(dianemo.After(w.running, w.succeeded), dianemo.AfterEnd(w.later)...)})
	w.enqueue(plain, "", dianemo.Options{RunAt: time.Now().Add(time.Hour), Parents: dianemo.After(w.waiting), Unique: dianemo.Unique{Key: "child"}})
	w.skipped = w.enqueue(plain, "", dianemo.Options{Parents: dianemo.After(w.failed)})
	withdrawn := w.enqueue(plain, "", dianemo.Options{Parents: dianemo.After(w.waiting)})
	require.NoError(t, w.Cancel(ctx, withdrawn))
	w.ends(dianemo.Skipped, w.skipped)
	w.enqueue(plain, "", dianemo.Options{Parents: dianemo.AfterFailure(w.skipped, w.waiting)})

	for _, spread := range []bool{false, true} {
		wf := workflow(spread)
		w.flow = w.submit(wf)
		w.ends(dianemo.Failed, w.flow)
		w.ends(dianemo.Skipped, member(wf, w.flow, "right"), member(wf, w.flow, "spared"))
		held := workflow(spread)
		held.Add("held", plain.New(args{"hold"})).After("first")
		held.Add("last", plain.New(args{})).After("held", "amends")
		w.heldFlow = w.submit(held)
		w.becomes(dianemo.Running, member(held, w.heldFlow, "held"))
		w.ends(dianemo.Succeeded, member(held, w.heldFlow, "amends"))
		stopped := dianemo.NewWorkflow("stopped")
		stopped.Spread = spread
		stopped.Add("one", nobody.New(args{}))
		stopped.Add("two", plain.New(args{})).After("one")
		id := w.submit(stopped)
		require.NoError(t, w.Cancel(ctx, id))
		w.ends(dianemo.Cancelled, id)
		again := w.submit(stopped)
		require.NoError(t, w.Cancel(ctx, again))
		w.ends(dianemo.Cancelled, again)
		_, err := w.ResumeWorkflow(ctx, again)
		require.NoError(t, err)
	}

	w.schedules()
	require.NoError(t, w.Pause(ctx, "nobody"))
	require.NoError(t, w.Requeue(ctx, cancelled))
	require.NoError(t, w.Drain(ctx, two.ID()))
	w.silent()

	w.ends(dianemo.Succeeded, w.succeeded, snoozes)
	w.ends(dianemo.Failed, w.failed)
	w.ends(dianemo.Missed, missed)
	w.becomes(dianemo.Retrying, w.retrying)
	w.becomes(dianemo.Running, w.running)
	w.becomes(dianemo.Blocked, w.blocked)
	w.eventually("what is not kept is gone", func() bool {
		_, err := w.Get(ctx, w.gone)
		return errors.Is(err, dianemo.ErrNotFound)
	})
	w.settled()
}

func (w *populated) schedules() {
	t, ctx := w.t, w.t.Context()
	hourly, err := dianemo.Interval(time.Hour)
	require.NoError(t, err)
	cron, err := dianemo.Cron("30 2 * * *", "Europe/Berlin")
	require.NoError(t, err)
	often, err := dianemo.Interval(time.Second)
	require.NoError(t, err)
	finish, err := dianemo.AfterFinish(time.Hour)
	require.NoError(t, err)
	once, err := dianemo.At(time.Now().Add(time.Minute))
	require.NoError(t, err)
	for _, s := range []dianemo.Schedule{
		{Name: "hourly", Rule: hourly, Job: plain.New(args{})},
		{Name: "nightly", Rule: cron, Job: plain.New(args{}), Jitter: time.Minute, Missed: dianemo.MissedAll},
		{Name: "often", Rule: often, Job: nobody.New(args{}), Overlap: dianemo.OverlapSkip},
		{Name: "waits", Rule: often, Job: nobody.New(args{}), Overlap: dianemo.OverlapWait},
		{Name: "finish", Rule: finish, Job: plain.New(args{}), Start: time.Now().Add(-time.Hour)},
		{Name: "once", Rule: once, Job: plain.New(args{})},
		{Name: "flows", Rule: hourly, Workflow: workflow(false)},
		{Name: "paused", Rule: hourly, Job: plain.New(args{})},
		{Name: "removed", Rule: hourly, Job: plain.New(args{})},
	} {
		require.NoError(t, w.PutSchedule(ctx, s))
	}
	for _, name := range []string{"hourly", "paused"} {
		id, err := w.TriggerSchedule(ctx, name)
		require.NoError(t, err)
		w.ends(dianemo.Succeeded, id)
	}
	id, err := w.TriggerSchedule(ctx, "flows")
	require.NoError(t, err)
	w.ends(dianemo.Failed, id)
	require.NoError(t, w.PauseSchedule(ctx, "paused"))
	require.NoError(t, w.RemoveSchedule(ctx, "removed"))
	_, err = w.Backfill(ctx, "nightly", dianemo.Backfill{From: time.Now().Add(-72 * time.Hour), To: time.Now().Add(-time.Minute), Max: 10, Priority: 5})
	require.NoError(t, err)
	w.eventually("an occurrence is skipped", func() bool {
		page, err := w.List(ctx, dianemo.Filter{States: []dianemo.State{dianemo.Skipped}, Kinds: []string{"nobody"}})
		return err == nil && len(page.Jobs) > 0
	})
}

// silent has a peer claim jobs that is never heard of again.
func (w *populated) silent() {
	lane := dianemo.Lane{Kind: "lost", Priority: 2, Grace: 24 * time.Hour}
	lost := dianemo.NewKind[args]("lost", dianemo.Policy{})
	again := w.enqueue(lost, "", dianemo.Options{ID: "lost@1", Reruns: 1})
	never := w.enqueue(lost, "", dianemo.Options{ID: "lost@2", Reruns: dianemo.None})
	var room [10]int
	for i := range room {
		room[i] = 100
	}
	reply, err := w.store.Turn(w.t.Context(), w.store.Partition(again), dianemo.Call{Caller: "ghost", Number: 1}, nil, dianemo.Claim{Limit: 10, Room: room,
		Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1}}, BeatEvery: beatEvery, SilentAfter: 4 * beatEvery})
	require.NoError(w.t, err)
	require.Len(w.t, reply.Jobs, 2)
	w.becomes(dianemo.Retrying, again)
	w.ends(dianemo.Unreachable, never)
}

// all are the names of the namespace's keys.
func (w *world) all() []string {
	keys := append(w.rdb.Keys(w.t.Context(), "{"+w.namespace+"}:*").Val(), w.rdb.Keys(w.t.Context(), "{"+w.namespace+":*").Val()...)
	slices.Sort(keys)
	return keys
}
