package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/internal/suite"
)

// A turmoil is random workflows, what their handlers saw, and who interferes.
type turmoil struct {
	t     *testing.T
	store dianemo.Store
	c     *dianemo.Client
	jobs  map[string]*randomJob

	mu     sync.Mutex // guards the rest
	begun  []*randomFlow
	runs   map[string][]*seenRun
	byHand map[string]bool                   // jobs that were requeued, whatever their parents say
	was    map[string]map[dianemo.State]bool // ends of jobs that hooks told of
	faults []string
	did    map[string]int
	done   map[string][]string // to workflows
}

// A seenRun is a run as its handler saw it.
type seenRun struct {
	over, well bool
	decided    bool
	chosen     []string
}

func (u *turmoil) fault(format string, args ...any) {
	if len(u.faults) < 20 {
		u.faults = append(u.faults, fmt.Sprintf(format, args...))
	}
}

func (u *turmoil) handle(ctx context.Context, job *dianemo.Job[suite.Args]) error {
	u.mu.Lock()
	j := u.jobs[job.ID]
	n := len(u.runs[j.id])
	run := &seenRun{}
	u.runs[j.id] = append(u.runs[j.id], run)
	if !u.byHand[j.id] {
		u.judge(j)
	}
	u.mu.Unlock()
	err := u.do(ctx, j, n, job)
	u.mu.Lock()
	defer u.mu.Unlock()
	run.over, run.well = true, err == nil
	if err == nil && j.decides {
		run.decided, run.chosen = true, j.chooses(n)
	}
	return err
}

func (u *turmoil) do(ctx context.Context, j *randomJob, n int, job *dianemo.Job[suite.Args]) error {
	if j.slow {
		timer := time.NewTimer(time.Duration(1+j.seed%3) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if j.failsAt(n) {
		return errors.New("as told")
	}
	if j.decides {
		return job.Choose(ctx, j.chooses(n)...)
	}
	return nil
}

// judge notes it when a job starts before its parents have ended as it wants.
func (u *turmoil) judge(j *randomJob) {
	fates := map[string]fate{}
	if !j.flow.rough {
		fates = j.flow.fates()
	}
	for _, p := range j.parents {
		runs := u.runs[p.ID]
		if !j.flow.rough {
			over := 0
			for _, r := range runs {
				if r.over {
					over++
				}
			}
			if want := fates[p.ID].starts; over != want {
				u.fault("%s starts when its parent %s has ended %d of %d runs", j.id, p.ID, over, want)
			}
		} else if p.On == dianemo.OnSuccess {
			chosen := func(r *seenRun) bool { return r.well && (!r.decided || slices.Contains(r.chosen, j.name)) }
			if !slices.ContainsFunc(runs, chosen) {
				u.fault("%s starts when its parent %s has not succeeded", j.id, p.ID)
			}
		}
	}
}

// note keeps what a hook tells of a job's end.
func (u *turmoil) note(id string, state dianemo.State) {
	if !state.Finished() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.was[id] == nil {
		u.was[id] = map[dianemo.State]bool{}
	}
	u.was[id][state] = true
}

func (u *turmoil) hooks() *dianemo.Hooks {
	return &dianemo.Hooks{
		Release: func(i dianemo.ReleaseInfo) { u.note(i.ID, i.State) },
		Cancel:  func(i dianemo.WishInfo) { u.note(i.ID, i.State) },
		Miss:    func(i dianemo.MissInfo) { u.note(i.ID, i.State) },
		Repair:  func(i dianemo.RepairInfo) { u.mu.Lock(); defer u.mu.Unlock(); u.fault("put right: %v", i.Repaired) },
	}
}

func (u *turmoil) peer() *suite.Running {
	var config dianemo.Config
	config.Tokens, config.BeatEvery, config.Hooks = 48, 500*time.Millisecond, u.hooks()
	return suite.Start(u.t, u.store, config, func(p *dianemo.Peer) {
		for _, kind := range []dianemo.Kind[suite.Args]{kindOnce, kindAgain} {
			require.NoError(u.t, kind.Handle(p, u.handle))
		}
	})
}

// A quitter is a store whose callers give up at a certain call: before it, or before its
// answer, as if they had died there.
type quitter struct{ dianemo.Store }

type quitting struct {
	mu     sync.Mutex
	left   int
	cancel context.CancelFunc
}

type quittingKey struct{}

func withQuit(ctx context.Context, calls int) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	return context.WithValue(ctx, quittingKey{}, &quitting{left: calls, cancel: cancel})
}

func quit[R any](ctx context.Context, call func() (R, error)) (R, error) {
	var none R
	q, ok := ctx.Value(quittingKey{}).(*quitting)
	if !ok {
		return call()
	}
	q.mu.Lock()
	q.left--
	left := q.left
	q.mu.Unlock()
	if left > 0 {
		return call()
	}
	if ctx.Err() == nil && left%2 != 0 {
		_, _ = call() // the answer is lost
	}
	q.cancel()
	if ctx.Err() == nil { // what is done after the caller has given up
		return call()
	}
	return none, context.Canceled
}

func (q quitter) Need(ctx context.Context, partition int, telling dianemo.Telling, by uint64, waits []dianemo.Wait) ([]bool, error) {
	return quit(ctx, func() ([]bool, error) { return q.Store.Need(ctx, partition, telling, by, waits) })
}

func (q quitter) Link(ctx context.Context, partition int, how dianemo.Linking, ties []dianemo.Tie) ([]dianemo.Linked, error) {
	return quit(ctx, func() ([]dianemo.Linked, error) { return q.Store.Link(ctx, partition, how, ties) })
}

func (q quitter) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	return quit(ctx, func() (dianemo.EnqueueReply, error) { return q.Store.Enqueue(ctx, partition, call, records) })
}

func (q quitter) Release(ctx context.Context, partition int, call dianemo.Call, releases []dianemo.Release) (dianemo.ReleaseReply, error) {
	return quit(ctx, func() (dianemo.ReleaseReply, error) { return q.Store.Release(ctx, partition, call, releases) })
}

func (q quitter) Requeue(ctx context.Context, partition int, call dianemo.Call, ids []string, heed bool) (dianemo.WishReply, error) {
	return quit(ctx, func() (dianemo.WishReply, error) { return q.Store.Requeue(ctx, partition, call, ids, heed) })
}

// submit enqueues what a workflow waits for, and the workflow.
func (u *turmoil) submit(f *randomFlow) {
	ctx := u.t.Context()
	for _, j := range f.outside {
		_, err := j.kind.EnqueueWith(ctx, u.c, suite.Args{}, dianemo.Options{ID: j.id, Delay: f.later * time.Duration(j.seed%2)})
		if err != nil {
			u.t.Error(err)
		}
	}
	u.mu.Lock()
	u.begun = append(u.begun, f)
	u.mu.Unlock()
	if f.quits > 0 {
		ctx = withQuit(ctx, f.quits)
	}
	if _, err := u.c.Submit(ctx, f.workflow()); err != nil && f.quits == 0 {
		u.t.Errorf("submit %s: %v", f.id, err)
	}
}

// interfere does one thing to one of the last workflows.
func (u *turmoil) interfere(ctx context.Context, dice *rand.Rand) {
	u.mu.Lock()
	var some []*randomFlow
	for i := len(u.begun) - 1; i >= 0 && len(some) < 30; i-- {
		if u.begun[i].rough {
			some = append(some, u.begun[i])
		}
	}
	u.mu.Unlock()
	if len(some) == 0 {
		return
	}
	f := some[dice.IntN(len(some))]
	j := f.jobs[dice.IntN(len(f.jobs))]
	var what string
	var err error
	begun := time.Now()
	switch dice.IntN(10) {
	case 0, 1, 2, 3:
		what, err = "cancel", u.c.Cancel(ctx, j.id)
	case 4, 5:
		u.mu.Lock()
		u.byHand[j.id] = true
		u.mu.Unlock()
		what, err = "requeue", u.c.Requeue(ctx, j.id)
	case 6:
		what, err = "cancel workflow", u.c.Cancel(ctx, f.id)
	case 7, 8:
		what = "resume"
		_, err = u.c.ResumeWorkflow(ctx, f.id)
	case 9:
		what = "resume given up"
		_, _ = u.c.ResumeWorkflow(withQuit(ctx, 1+dice.IntN(4)), f.id)
	}
	var state *dianemo.StateError
	if err != nil && !errors.As(err, &state) && !errors.Is(err, dianemo.ErrNotFound) && ctx.Err() == nil {
		u.t.Errorf("%s %s or %s: %v", what, j.id, f.id, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.did[what]++
	}
	u.done[f.id] = append(u.done[f.id], fmt.Sprintf("%d to %d: %s %s: %v", begun.UnixMicro(), time.Now().UnixMicro(), what, j.id, err))
}

// Half of the workflows are left alone, and end exactly as they must. With the others
// everything is done that can be: each ends all the same, and as its jobs say; no job starts
// before its parents have ended as it wants; and nothing is left over.
func TestRandomWorkflowsEndWhateverBefallsThem_Long(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 16} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			flows, seed := sample.Part(t, 150, 5), sample.Seed(t)
			rdb := suite.Server.Client(t)
			plain := suite.Redis(t, rdb, partitions)
			_, namespace := suite.Behind(t, plain)
			u := &turmoil{t: t, store: quitter{plain}, jobs: map[string]*randomJob{}, runs: map[string][]*seenRun{}, byHand: map[string]bool{},
				was: map[string]map[dianemo.State]bool{}, did: map[string]int{}, done: map[string][]string{}}
			c, err := dianemo.NewClient(u.store, dianemo.ClientConfig{Logger: suite.Quiet, Hooks: u.hooks()})
			require.NoError(t, err)
			t.Cleanup(c.Close)
			u.c = c
			all := make([]*randomFlow, flows)
			for i := range all {
				all[i] = newRandomFlow(rand.New(rand.NewPCG(seed, uint64(i))), fmt.Sprintf("w%d", i), i%2 == 0)
				for _, j := range all[i].all() {
					u.jobs[j.id] = j
				}
			}
			peers := []*suite.Running{u.peer(), u.peer(), u.peer()}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var nemeses, submitters sync.WaitGroup
			for n := range 2 {
				nemeses.Go(func() {
					for dice := rand.New(rand.NewPCG(seed+1, uint64(n))); ctx.Err() == nil; {
						u.interfere(ctx, dice)
					}
				})
			}
			for n := range 4 {
				submitters.Go(func() {
					for i := n; i < flows; i += 4 {
						u.submit(all[i])
						if n == 0 && i%100 == 0 && i > 0 {
							victim := i / 100 % len(peers)
							peers[victim].End()
							if err := peers[victim].Stopped(); err != nil {
								t.Error(err)
							}
							peers[victim] = u.peer()
						}
					}
				})
			}
			submitters.Wait()
			stop()
			nemeses.Wait()
			left := u.settle(rdb, namespace, partitions)
			t.Logf("%v; %d gates were left", u.did, left)
			u.check(all)
			for _, p := range peers {
				require.NoError(t, p.Stop())
			}
			require.Empty(t, u.faults)
			// What a submission that was given up has told of jobs that were never enqueued is left to
			// repair, and nothing else.
			givenUp := map[string]bool{}
			for _, f := range all {
				givenUp[f.id] = f.quits > 0
			}
			report, err := c.Repair(t.Context())
			require.NoError(t, err)
			for _, r := range report.Found {
				id, _, _ := strings.Cut(r.ID[strings.LastIndex(r.ID, "/")+1:], "@")
				require.True(t, givenUp[id] && r.Did == "it is removed", "%v", r)
			}
			report, err = c.Repair(t.Context())
			require.NoError(t, err)
			require.Empty(t, report.Found)
		})
	}
}

// settle waits until nothing is under way. Gates that were left are taken for old.
func (u *turmoil) settle(rdb *redis.Client, namespace string, partitions int) (gates int) {
	ctx := u.t.Context()
	for p := range partitions {
		key := fmt.Sprintf("{%s:%d}:gates", namespace, p)
		ids, err := rdb.ZRange(ctx, key, 0, -1).Result()
		require.NoError(u.t, err)
		gates += len(ids)
		for _, id := range ids {
			require.NoError(u.t, rdb.ZAddXX(ctx, key, redis.Z{Score: 1, Member: id}).Err())
		}
	}
	var under []string
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(suite.Patience); ; <-tick.C {
		if under = u.under(rdb, namespace, partitions); len(under) == 0 {
			return gates
		}
		require.False(u.t, time.Now().After(end), "still under way: %s", strings.Join(under, "\n"))
	}
}

// under says what is under way, and what that waits for.
func (u *turmoil) under(rdb *redis.Client, namespace string, partitions int) (under []string) {
	ctx := u.t.Context()
	counts, err := u.c.Counts(ctx)
	require.NoError(u.t, err)
	for _, c := range counts {
		if !c.State.Finished() && c.Jobs > 0 {
			under = append(under, fmt.Sprint(c))
		}
	}
	for p := range partitions {
		for _, name := range []string{"outbox", "gates", "blocked"} {
			ids, err := rdb.ZRange(ctx, fmt.Sprintf("{%s:%d}:%s", namespace, p, name), 0, 5).Result()
			require.NoError(u.t, err)
			for _, id := range ids {
				needs, _, err := rdb.HScan(ctx, fmt.Sprintf("{%s:%d}:needs", namespace, p), 0, id+"|*", 1_000_000).Result()
				require.NoError(u.t, err)
				under = append(under, fmt.Sprintf("%s of partition %d: %s needs %v", name, p, id, needs))
				j := u.jobs[id]
				if j == nil {
					continue
				}
				for _, p := range j.parents {
					if info, err := u.c.Get(ctx, p.ID); err == nil {
						under = append(under, fmt.Sprintf("  parent %s, %s: %s %s %d", p.ID, p.On, info.State, info.Reason, info.EndedAt.UnixMicro()))
					}
				}
				u.mu.Lock()
				under = append(under, fmt.Sprintf("  quits at %d; %s", j.flow.quits, strings.Join(u.done[j.flow.id], "; ")))
				u.mu.Unlock()
			}
		}
	}
	return under
}

// check compares how all stand with what the witness saw.
func (u *turmoil) check(flows []*randomFlow) {
	t := u.t
	stand := map[string]dianemo.JobInfo{}
	count := map[string]int64{}
	for filter := (dianemo.Filter{Limit: dianemo.MaxList}); ; {
		page, err := u.c.List(t.Context(), filter)
		require.NoError(t, err)
		for _, job := range page.Jobs {
			require.NotContains(t, stand, job.ID, "listed twice")
			require.True(t, job.State.Finished(), job.ID)
			stand[job.ID] = job
			count[fmt.Sprint(job.State, job.Kind)]++
		}
		if filter.After = page.Next; page.Next == "" {
			break
		}
	}
	counts, err := u.c.Counts(t.Context())
	require.NoError(t, err)
	for _, c := range counts {
		require.Equal(t, count[fmt.Sprint(c.State, c.Kind)], c.Jobs, c)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range flows {
		own, there := stand[f.id]
		states := map[dianemo.State]int{}
		for _, j := range f.jobs {
			if job, there := stand[j.id]; there {
				states[job.State]++
			} else {
				states[""]++
			}
		}
		switch {
		case !there:
			require.NotZero(t, f.quits, f.id)
			require.Equal(t, len(f.jobs), states[""], "%s: jobs without their workflow", f.id)
			continue
		case own.Reason == "gate":
			require.NotZero(t, f.quits, f.id)
			require.Equal(t, dianemo.Cancelled, own.State)
		default:
			require.Zero(t, states[""], "%s: jobs are missing", f.id)
			if want := stateOf(states, own.Reason == "cancel"); own.State != want {
				u.fault("%s is %s for %s, and not %s: %v", f.id, own.State, own.Reason, want, states)
			}
		}
		if !f.rough {
			for id, want := range f.fates() {
				if job := stand[id]; job.State != want.state || want.reason != "" && job.Reason != want.reason || len(u.runs[id]) != want.starts {
					u.fault("%s is %s for %s after %d runs, and not %+v", id, job.State, job.Reason, len(u.runs[id]), want)
				}
			}
			continue
		}
		for _, j := range f.jobs {
			runs := len(u.runs[j.id])
			if runs == 0 || u.byHand[j.id] {
				continue
			}
			if own.Reason == "gate" {
				u.fault("%s ran, and its workflow was not submitted", j.id)
			}
			for _, p := range j.parents {
				was := map[dianemo.State]bool{stand[p.ID].State: true}
				for state := range u.was[p.ID] {
					was[state] = true
				}
				for _, r := range u.runs[p.ID] {
					was[map[bool]dianemo.State{true: dianemo.Succeeded, false: dianemo.Failed}[r.well]] = true
				}
				if delete(was, dianemo.Succeeded); p.On == dianemo.OnFailure && len(was) == 0 {
					u.fault("%s ran after its parent %s did well", j.id, p.ID)
				}
			}
		}
	}
}
