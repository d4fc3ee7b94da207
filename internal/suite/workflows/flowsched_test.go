package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// nightly has a fork, a join and what is done in any case.
func nightly(spread bool) *dianemo.Workflow {
	return plan("nightly", spread, "extract", "left +extract", "right +extract", "join +left +right", "log *join")
}

var nightlyJobs = map[string]dianemo.State{"extract": "succeeded", "left": "succeeded", "right": "succeeded", "join": "succeeded", "log": "succeeded"}

// runs counts how often each job was started, by its id.
type runs struct {
	mu     sync.Mutex
	starts map[string]int
	jobs   []dianemo.Job[suite.Args]
}

func (r *runs) run(_ context.Context, job *dianemo.Job[suite.Args]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.starts == nil {
		r.starts = map[string]int{}
	}
	r.starts[job.ID]++
	r.jobs = append(r.jobs, *job)
	return nil
}

// once requires that so many jobs were started, each once.
func (r *runs) once(t *testing.T, jobs int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(t, r.starts, jobs)
	require.Len(t, r.jobs, jobs)
}

// onceOf requires the same of the jobs of one workflow.
func (r *runs) onceOf(t *testing.T, workflow string, jobs int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	started := map[string]bool{}
	for _, job := range r.jobs {
		if job.Workflow == workflow {
			started[job.ID] = true
			require.Equal(t, 1, r.starts[job.ID], job.ID)
		}
	}
	require.Len(t, started, jobs)
}

// fired is a hook that passes on what a peer fires.
func fired(into chan<- dianemo.FireInfo) *dianemo.Hooks {
	return &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { into <- i }}
}

func TestAScheduleSubmitsItsWorkflowAnewAtEachInstant_Long(t *testing.T) {
	t.Parallel()
	onTimeSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		events := make(chan dianemo.FireInfo, 100)
		var ran runs
		peer := suite.Start(t, store, dianemo.Config{Hooks: fired(events)}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
		c := suite.Client(t, store)
		name := fmt.Sprintf("tick-%v", spread)
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Second), Workflow: nightly(spread)})
		first, second := suite.Receive(t, events), suite.Receive(t, events)
		require.NoError(t, c.PauseSchedule(t.Context(), name))
		require.Equal(t, first.At.Add(time.Second), second.At)
		made := 0
		for _, event := range []dianemo.FireInfo{first, second} {
			require.Equal(t, dianemo.Blocked, event.State)
			require.Equal(t, "workflow/nightly", event.Kind)
			require.Equal(t, dianemo.OccurrenceID(name, event.At), event.ID)
			require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, event.ID))
			require.Equal(t, nightlyJobs, standing(t, c, event.ID))
			info, err := c.Workflow(t.Context(), event.ID)
			require.NoError(t, err)
			require.Equal(t, name, info.Schedule)
			require.True(t, event.At.Equal(info.ScheduledFor))
			require.Equal(t, map[dianemo.State]int{dianemo.Succeeded: 5}, info.Counts)
			made += 5
		}
		require.NoError(t, peer.Stop())
		events = nil
		ran.mu.Lock()
		for id, n := range ran.starts {
			require.Equal(t, 1, n, id)
		}
		for _, job := range ran.jobs {
			require.Equal(t, name, job.Schedule)
			require.Equal(t, dianemo.OccurrenceID(name, job.ScheduledFor), job.Workflow)
		}
		require.GreaterOrEqual(t, len(ran.starts), made)
		ran.mu.Unlock()
		info, err := c.GetSchedule(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, "workflow/nightly", info.Kind)
		require.NotNil(t, info.Workflow)
		suite.Put(t, c, info.Schedule)
		again, err := c.GetSchedule(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, info, again)
	})
}

// onlyOf has a schedule's jobs do this. Others, left by the test before, succeed.
func onlyOf(schedule string, do func(ctx context.Context, job *dianemo.Job[suite.Args]) error) func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
	return func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
		if job.Schedule != schedule {
			return nil
		}
		return do(ctx, job)
	}
}

// A faulty store fails, or waits, before some of its calls.
type faultyStore struct {
	dianemo.Store
	before func(ctx context.Context, call string) error
}

func (s *faultyStore) Need(ctx context.Context, partition int, telling dianemo.Telling, by uint64, waits []dianemo.Wait) ([]bool, error) {
	if err := s.before(ctx, string(telling)); err != nil {
		return nil, err
	}
	return s.Store.Need(ctx, partition, telling, by, waits)
}

func (s *faultyStore) Link(ctx context.Context, partition int, how dianemo.Linking, ties []dianemo.Tie) ([]dianemo.Linked, error) {
	if err := s.before(ctx, string(how)); err != nil {
		return nil, err
	}
	return s.Store.Link(ctx, partition, how, ties)
}

func (s *faultyStore) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	if err := s.before(ctx, "enqueue"); err != nil {
		return dianemo.EnqueueReply{}, err
	}
	return s.Store.Enqueue(ctx, partition, call, records)
}

func (s *faultyStore) Release(ctx context.Context, partition int, call dianemo.Call, releases []dianemo.Release) (dianemo.ReleaseReply, error) {
	if err := s.before(ctx, "release"); err != nil {
		return dianemo.ReleaseReply{}, err
	}
	return s.Store.Release(ctx, partition, call, releases)
}

// onTwo is onEachSpread for what takes long: the simplest store, and the one with most parts.
func onTwo(t *testing.T, test func(t *testing.T, store dianemo.Store, spread bool)) {
	suite.RunVirtual(t, "embedded/1", func(t *testing.T) { test(t, suite.Embedded(t, 1), false) })
	t.Run("redis/8", func(t *testing.T) {
		t.Parallel()
		test(t, suite.Redis(t, suite.Server.Client(t), 8), true)
	})
}

// The steps in which an occurrence's jobs come into the store.
var unfoldSteps = []string{"enlist", "join", "tell", "expect", "enqueue", "release"}

// The leader that has fired dies in each of the steps, before the first call or, where the
// jobs are of several partitions, the second.
func TestAnotherLeaderSubmitsWhatTheOneThatFiredCouldNot(t *testing.T) {
	t.Parallel()
	for _, step := range unfoldSteps {
		for _, after := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/%d", step, after), func(t *testing.T) {
				t.Parallel()
				onTwo(t, func(t *testing.T, store dianemo.Store, spread bool) {
					require.NoError(t, store.Open(t.Context()))
					several := step == "tell" || step == "expect" || step == "enqueue"
					if after > 0 && (!several || !spread || store.Partitions() == 1) {
						return // there is one call
					}
					stuck := make(chan struct{}, 1000)
					var mu sync.Mutex
					calls := 0
					faulty := &faultyStore{store, func(ctx context.Context, call string) error {
						mu.Lock()
						defer mu.Unlock()
						if call != step {
							return nil
						}
						if calls++; calls <= after {
							return nil
						}
						stuck <- struct{}{}
						<-ctx.Done()
						return errors.New("no answer")
					}}
					events := make(chan dianemo.FireInfo, 100)
					config := suite.Quick
					config.Hooks = fired(events)
					first := suite.Start(t, faulty, config, func(*dianemo.Peer) {})
					c := suite.Client(t, store)
					name := fmt.Sprintf("s-%v", spread)
					suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Second), Workflow: nightly(spread)})
					id := suite.Receive(t, events).ID
					suite.Receive(t, stuck)
					require.NoError(t, c.PauseSchedule(t.Context(), name))
					require.Equal(t, dianemo.Blocked, suite.Get(t, c, id).State)
					require.NoError(t, first.Stop())
					var ran runs
					suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
					require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
					require.Equal(t, nightlyJobs, standing(t, c, id))
					ran.onceOf(t, id, 5)
				})
			})
		}
	}
}

// A holding client is held before its first call of a step.
type holding struct {
	*dianemo.Client
	held chan struct{}
	goOn func() // lets it go on
}

func hold(t *testing.T, store dianemo.Store, step string) *holding {
	t.Helper()
	held, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h := &holding{held: held, goOn: sync.OnceFunc(func() { close(goOn) })}
	h.Client = suite.Client(t, &faultyStore{store, func(_ context.Context, call string) error {
		if call == step {
			once.Do(func() { close(held); <-goOn })
		}
		return nil
	}})
	t.Cleanup(h.goOn)
	return h
}

// A stuckTrigger triggers a schedule's workflow and is held before the first call of a step.
type stuckTrigger struct {
	*holding
	schedule  string
	triggered chan string
}

func trigger(t *testing.T, store dianemo.Store, step string, spread bool) *stuckTrigger {
	t.Helper()
	s := &stuckTrigger{holding: hold(t, store, step), schedule: fmt.Sprintf("s-%v", spread), triggered: make(chan string)}
	suite.Put(t, s.Client, dianemo.Schedule{Name: s.schedule, Rule: suite.Every(t, 24*time.Hour), Workflow: nightly(spread)})
	go func() {
		id, err := s.TriggerSchedule(context.Background(), s.schedule)
		if err != nil {
			t.Error(err)
		}
		s.triggered <- id
	}()
	suite.Receive(t, s.held)
	return s
}

// Two submit the same occurrence, one of them so slowly that the workflow has ended by
// then, and perhaps even that its jobs were let go of.
func TestAnOccurrenceThatTwoSubmitRunsOnce(t *testing.T) {
	t.Parallel()
	for _, kept := range []bool{true, false} {
		for _, step := range unfoldSteps {
			if kept && (step == "join" || step == "tell" || step == "expect") {
				continue // the next step is no other
			}
			t.Run(fmt.Sprintf("%s/kept=%v", step, kept), func(t *testing.T) {
				t.Parallel()
				onTwo(t, func(t *testing.T, store dianemo.Store, spread bool) {
					slow := trigger(t, store, step, spread)
					c := suite.Client(t, store)
					info, err := c.GetSchedule(t.Context(), slow.schedule)
					require.NoError(t, err)
					id := info.Last
					policy := dianemo.Policy{}
					if !kept {
						policy.Keep = dianemo.Keep{dianemo.Succeeded: {For: time.Millisecond}}
					}
					var ran runs
					suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) {
						require.NoError(t, dianemo.NewKind[suite.Args](chore.Name(), policy).Handle(p, ran.run))
						suite.Handle(t, p, "last", dianemo.Policy{}, suite.Returns(nil))
					})
					require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
					if !kept {
						require.Eventually(t, func() bool {
							info, err := c.Workflow(t.Context(), id)
							return err == nil && info.Counts[dianemo.Succeeded] == 0
						}, suite.Patience, 10*time.Millisecond)
					}
					slow.goOn()
					require.Equal(t, id, suite.Receive(t, slow.triggered))
					if kept {
						require.Equal(t, nightlyJobs, standing(t, c, id))
					}
					last := suite.Enqueue(t, c, dianemo.NewKind[suite.Args]("last", dianemo.Policy{}), dianemo.Options{}) // and what was due before it has run
					require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, last))
					require.Equal(t, dianemo.Succeeded, suite.Get(t, c, id).State)
					ran.once(t, 5)
					counts, err := c.Counts(t.Context())
					require.NoError(t, err)
					for _, count := range counts {
						require.NotEqual(t, dianemo.Blocked, count.State, "%+v", count)
						require.NotEqual(t, dianemo.Queued, count.State, "%+v", count)
						if step == "enlist" || step == "join" { // so early that nothing was added again
							require.NotEqual(t, dianemo.Cancelled, count.State, "%+v", count)
						}
					}
				})
			})
		}
	}
}

// Who finds the gate open cancels nothing whose jobs have not heard of it yet.
func TestAnOccurrenceIsNotTakenForLostWhileItsJobsHearOfTheGate_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		slow := trigger(t, store, "release", spread)
		mute := &muteStore{Store: store}
		mute.silent.Store(true)
		var ran runs
		suite.Start(t, mute, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
		require.Eventually(t, func() bool {
			gates, err := store.Gates(t.Context(), store.Partition(slow.schedule), 10)
			return err == nil && len(gates) == 0
		}, suite.Patience, 10*time.Millisecond)
		slow.goOn()
		id := suite.Receive(t, slow.triggered)
		mute.silent.Store(false)
		c := suite.Client(t, store)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		require.Equal(t, nightlyJobs, standing(t, c, id))
		ran.once(t, 5)
	})
}

// Nor what waits for a gate since it is to be run again.
func TestAnOccurrenceIsNotTakenForLostWhileItIsResumed_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		slow := trigger(t, store, "release", spread)
		var s script
		running := make(chan struct{})
		s.set("extract", func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
			close(running)
			<-ctx.Done()
			return ctx.Err()
		})
		register := func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) }
		first := suite.Start(t, store, suite.Quick, register)
		c := suite.Client(t, store)
		info, err := c.GetSchedule(t.Context(), slow.schedule)
		require.NoError(t, err)
		id := info.Last
		suite.Receive(t, running)
		require.NoError(t, c.Cancel(t.Context(), id))
		require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		require.NoError(t, first.Stop(), "and so nobody is still telling jobs that the workflow is cancelled")
		s.set("extract", nil)
		suite.Start(t, store, suite.Quick, register)
		resumer := hold(t, store, "release")
		resumed := make(chan error)
		go func() {
			_, err := resumer.ResumeWorkflow(context.Background(), id)
			resumed <- err
		}()
		suite.Receive(t, resumer.held)
		slow.goOn()
		require.Equal(t, id, suite.Receive(t, slow.triggered))
		resumer.goOn()
		require.NoError(t, suite.Receive(t, resumed))
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		require.Equal(t, nightlyJobs, standing(t, c, id))
	})
}

// A mute store does not tell whose children are to be told.
type muteStore struct {
	dianemo.Store
	silent atomic.Bool
}

func (s *muteStore) Heirs(ctx context.Context, partition, parents, children int) ([]dianemo.Heirs, int64, error) {
	if s.silent.Load() {
		return nil, 0, errors.New("no answer")
	}
	return s.Store.Heirs(ctx, partition, parents, children)
}

func TestAWorkflowCancelledBeforeItsJobsAreThereEndsCancelled_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		ctx, cancel := context.WithCancel(t.Context())
		dying := suite.Client(t, &faultyStore{store, func(context.Context, string) error { cancel(); return errors.New("no answer") }})
		name := fmt.Sprintf("s-%v", spread)
		suite.Put(t, dying, dianemo.Schedule{Name: name, Rule: suite.Every(t, 24*time.Hour), Workflow: nightly(spread)})
		id, err := dying.TriggerSchedule(ctx, name)
		require.NoError(t, err, "it is made, and will be submitted")
		c := suite.Client(t, store)
		require.NoError(t, c.Cancel(t.Context(), id))
		require.Equal(t, dianemo.Blocked, suite.Get(t, c, id).State)
		var ran runs
		suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
		require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		ran.once(t, 0)
		n, err := c.ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, 5, n)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		ran.once(t, 5)
	})
}

func TestAWorkflowWhoseOccurrencesFailedIsResumedAsOthersAre_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		var s script
		s.set("join", fails)
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		c := suite.Client(t, store)
		name := fmt.Sprintf("s-%v", spread)
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, 24*time.Hour), Workflow: nightly(spread), Overlap: dianemo.OverlapSkip})
		id, err := c.TriggerSchedule(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, dianemo.Failed, suite.Ends(t, c, id))
		running, goOn := make(chan struct{}), make(chan struct{})
		s.set("join", func(context.Context, *dianemo.Job[suite.Args]) error { close(running); <-goOn; return nil })
		n, err := c.ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		suite.Receive(t, running)
		_, err = c.TriggerSchedule(t.Context(), name)
		var busy *dianemo.OverlapError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, id, busy.ID)
		close(goOn)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		s.set("join", nil)
		id, err = c.TriggerSchedule(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
	})
}

func TestAnOccurrenceWaitsForTheEndOfTheWholeWorkflow_Long(t *testing.T) {
	t.Parallel()
	onTimeSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		first, goOn := make(chan dianemo.Job[suite.Args], 100), make(chan struct{})
		var s script
		name := fmt.Sprintf("s-%v", spread)
		s.set("extract", onlyOf(name, suite.Sees(first)))
		s.set("log", onlyOf(name, func(context.Context, *dianemo.Job[suite.Args]) error { <-goOn; return nil }))
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Second), Workflow: nightly(spread), Overlap: dianemo.OverlapWait})
		one := suite.Receive(t, first)
		require.Eventually(t, func() bool { // the next one is due, and waits
			info, err := c.GetSchedule(t.Context(), name)
			return err == nil && time.Since(info.Next) > 1200*time.Millisecond && info.Last == one.Workflow
		}, suite.Patience, 10*time.Millisecond)
		require.Empty(t, first)
		goOn <- struct{}{}
		freed := time.Now()
		two := suite.Receive(t, first)
		require.Less(t, time.Since(freed), 2*time.Second, "the leader would have looked again after five")
		require.Equal(t, one.ScheduledFor.Add(time.Second), two.ScheduledFor)
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, one.Workflow).State)
		close(goOn)
		require.Equal(t, two.ScheduledFor.Add(time.Second), suite.Receive(t, first).ScheduledFor)
		require.NoError(t, c.RemoveSchedule(t.Context(), name))
	})
}

func TestAnOccurrenceThatOverlapsAWorkflowIsSkipped_Long(t *testing.T) {
	t.Parallel()
	onTimeSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		goOn, events := make(chan struct{}), make(chan dianemo.FireInfo, 100)
		var s script
		name := fmt.Sprintf("s-%v", spread)
		s.set("log", onlyOf(name, func(context.Context, *dianemo.Job[suite.Args]) error { <-goOn; return nil }))
		suite.Start(t, store, dianemo.Config{Hooks: fired(events)}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		defer close(goOn)
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Second), Workflow: nightly(spread), Overlap: dianemo.OverlapSkip})
		require.Equal(t, dianemo.Blocked, suite.Receive(t, events).State)
		skipped := suite.Receive(t, events)
		require.NoError(t, c.RemoveSchedule(t.Context(), name))
		require.Equal(t, dianemo.Skipped, skipped.State)
		info, err := c.Workflow(t.Context(), skipped.ID)
		require.NoError(t, err)
		require.Equal(t, dianemo.Skipped, info.State)
		require.Equal(t, "overlap", info.Reason)
		require.Equal(t, 5, info.Jobs)
		require.Empty(t, info.Counts)
		require.Zero(t, info.Progress())
		_, err = c.ResumeWorkflow(t.Context(), skipped.ID)
		var state *dianemo.StateError
		require.ErrorAs(t, err, &state)
		require.Error(t, c.Cancel(t.Context(), skipped.ID))
	})
}

func TestAWorkflowAfterTheFinishOfTheLast_Long(t *testing.T) {
	t.Parallel()
	onTimeSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		first, goOn := make(chan dianemo.Job[suite.Args], 100), make(chan struct{})
		var s script
		name := fmt.Sprintf("s-%v", spread)
		s.set("extract", onlyOf(name, suite.Sees(first)))
		s.set("log", onlyOf(name, func(context.Context, *dianemo.Job[suite.Args]) error { <-goOn; return nil }))
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		defer close(goOn)
		rule, err := dianemo.AfterFinish(time.Second)
		require.NoError(t, err)
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: rule, Workflow: nightly(spread)})
		one := suite.Receive(t, first)
		goOn <- struct{}{}
		freed := time.Now()
		two := suite.Receive(t, first)
		require.Less(t, time.Since(freed), 3*time.Second, "the leader would have looked again after five")
		ended := suite.Get(t, c, one.Workflow).EndedAt
		require.True(t, two.ScheduledFor.Equal(ended.Add(time.Second)), "%v after %v", two.ScheduledFor, ended)
		require.NoError(t, c.RemoveSchedule(t.Context(), name))
	})
}

// Nobody was up for six hours. The clock is the embedded store's.
func TestWorkflowsThatWereMissedAreRecordedWithoutJobs(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{0, 5 * time.Minute} {
		suite.RunVirtual(t, fmt.Sprint(grace), func(t *testing.T) {
			store := suite.Embedded(t, 1)
			midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
			store.SetTime(midnight)
			c := suite.Client(t, store)
			wf := dianemo.NewWorkflow("w")
			wf.Add("a", chore.NewWith(suite.Args{}, dianemo.Options{Grace: grace}))
			wf.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{Grace: time.Second})).After("a")
			suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: wf})
			store.SetTime(midnight.Add(6*time.Hour + 10*time.Minute))
			events, config := make(chan dianemo.FireInfo, 100), suite.Quick
			config.Hooks = fired(events)
			var ran runs
			suite.Start(t, store, config, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
			missed := map[string]bool{}
			for range 6 {
				if event := suite.Receive(t, events); event.State == dianemo.Missed {
					missed[event.ID] = true
				}
			}
			six := dianemo.OccurrenceID("s", midnight.Add(6*time.Hour))
			if grace == 0 { // the kind's, a day
				require.Len(t, missed, 5)
				require.NotContains(t, missed, six)
				require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, six))
				due := suite.Get(t, c, six+"@a").Due
				require.True(t, due.Equal(midnight.Add(6*time.Hour)), due)
				ran.once(t, 2)
			} else {
				require.Len(t, missed, 6)
				ran.once(t, 0)
			}
			for id := range missed {
				info, err := c.Workflow(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, dianemo.Missed, info.State)
				require.Equal(t, "late", info.Reason)
				require.Equal(t, 2, info.Jobs)
				require.Empty(t, info.Counts)
				g, err := c.WorkflowGraph(t.Context(), id)
				require.NoError(t, err)
				require.Empty(t, g.Jobs)
			}
			page, err := c.Workflows(t.Context(), dianemo.WorkflowFilter{States: []dianemo.State{dianemo.Missed}})
			require.NoError(t, err)
			require.Len(t, page.Workflows, len(missed))
			_, err = c.Workflows(t.Context(), dianemo.WorkflowFilter{States: []dianemo.State{dianemo.Unreachable}})
			require.ErrorIs(t, err, dianemo.ErrInvalid)
		})
	}
}

func TestABackfillMakesWorkflows(t *testing.T) {
	t.Parallel()
	for _, spread := range []bool{false, true} {
		suite.RunVirtual(t, fmt.Sprint(spread), func(t *testing.T) {
			store := suite.Embedded(t, 8)
			noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
			store.SetTime(noon)
			c := suite.Client(t, store)
			suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: nightly(spread)})
			b := dianemo.Backfill{From: noon.Add(-5 * time.Hour), To: noon, Max: 3, Every: time.Minute, Priority: 7}
			done, err := c.Backfill(t.Context(), "s", b)
			require.NoError(t, err)
			require.Len(t, done.IDs, 3)
			require.True(t, done.Next.Equal(noon.Add(-2*time.Hour)))
			var ran runs
			suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
			for i, id := range done.IDs {
				require.Equal(t, dianemo.OccurrenceID("s", noon.Add(time.Duration(i-5)*time.Hour)), id)
				if i > 0 {
					require.Equal(t, dianemo.Blocked, suite.Get(t, c, id).State)
				}
				store.SetTime(noon.Add(time.Duration(i) * time.Minute))
				require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
				g, err := c.WorkflowGraph(t.Context(), id)
				require.NoError(t, err)
				for _, job := range g.Jobs {
					require.Equal(t, 7, suite.Get(t, c, job.ID).Priority)
				}
			}
			ran.once(t, 15)
			done, err = c.Backfill(t.Context(), "s", b)
			require.NoError(t, err)
			require.Equal(t, 3, done.Existing)
			require.Len(t, done.IDs, 2)
		})
	}
}

// Its grace says only whether it is run at all.
func TestAWorkflowThatWasBackfilledTakesItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
		store.SetTime(noon)
		c := suite.Client(t, store)
		wf := dianemo.NewWorkflow("w")
		wf.Add("a", chore.NewWith(suite.Args{}, dianemo.Options{Grace: 5 * time.Minute}))
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: wf})
		done, err := c.Backfill(t.Context(), "s", dianemo.Backfill{From: noon.Add(-time.Hour), To: noon, Max: 1})
		require.NoError(t, err)
		running, goOn, missed := make(chan struct{}), make(chan struct{}), make(chan dianemo.MissInfo, 10)
		config := suite.Quick
		config.Hooks = &dianemo.Hooks{Miss: func(i dianemo.MissInfo) { missed <- i }}
		suite.Start(t, store, config, func(p *dianemo.Peer) {
			require.NoError(t, chore.Handle(p, func(context.Context, *dianemo.Job[suite.Args]) error { close(running); <-goOn; return nil }))
		})
		suite.Receive(t, running)
		// One that waits for the workflow is overdue, and later than it would be.
		child := suite.Enqueue(t, c, chore, dianemo.Options{Parents: dianemo.After(done.IDs...), RunAt: noon, Grace: 10 * time.Minute})
		store.SetTime(noon.Add(20 * time.Minute))
		require.Equal(t, child, suite.Receive(t, missed).ID)
		close(goOn)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, done.IDs[0]))
	})
}

func TestABackfillThatDiesIsCompleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 8)
		noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
		store.SetTime(noon)
		ctx, cancel := context.WithCancel(t.Context())
		dying := suite.Client(t, &faultyStore{store, func(_ context.Context, call string) error {
			if call != "join" {
				return nil
			}
			cancel()
			return errors.New("no answer")
		}})
		suite.Put(t, dying, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: nightly(true)})
		done, err := dying.Backfill(ctx, "s", dianemo.Backfill{From: noon.Add(-2 * time.Hour), To: noon, Max: 10})
		require.NoError(t, err)
		require.Len(t, done.IDs, 2)
		c := suite.Client(t, store)
		require.Equal(t, dianemo.Blocked, suite.Get(t, c, done.IDs[0]).State)
		store.SetTime(noon.Add(10*time.Minute + time.Second))
		var ran runs
		suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
		for _, id := range done.IDs {
			require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		}
		ran.once(t, 10)
	})
}

// What can't be submitted is cancelled, and the others go on.
func TestAWorkflowWhosePlanIsCorruptIsCancelled_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		suite.NewerSchedules(t, store, 1) // a schedule that no leader touches
		ctx := t.Context()
		fire := dianemo.Fire{Firings: []dianemo.Firing{{Name: "s@0", Version: 1, Extra: true, Overlap: dianemo.OverlapAllow}}}
		whole := dianemo.EncodeSpec(&dianemo.Spec{Kind: "chore", Priority: 2, Grace: dianemo.Unlimited, Name: "a", Args: []byte("{}")})
		ahead := append([]byte{}, whole...)
		ahead[0]++
		for id, spec := range map[string]dianemo.Spec{
			"s@args":  {Args: []byte("x"), Plan: [][]byte{whole}},
			"s@short": {Args: []byte(`{"jobs":2}`), Plan: [][]byte{whole}},
			"s@spec":  {Args: []byte(`{"jobs":1}`), Plan: [][]byte{[]byte("0")}},
			"s@names": {Args: []byte(`{"jobs":2}`), Plan: [][]byte{whole, whole}},
			"s@newer": {Args: []byte(`{"jobs":1}`), Plan: [][]byte{ahead}},
			"s@whole": {Args: []byte(`{"jobs":1}`), Plan: [][]byte{whole}},
		} {
			spec.Kind, spec.Priority, spec.Grace, spec.Schedule, spec.Teller = "workflow/w", 2, dianemo.Unlimited, "s@0", 7
			fire.Firings[0].Occurrences = append(fire.Firings[0].Occurrences,
				dianemo.Occurrence{Record: dianemo.Record{ID: id, Lane: spec.Lane(), Blocked: true, Teller: 7, Spec: dianemo.EncodeSpec(&spec)}})
		}
		read, err := store.Schedules(ctx, store.Partition("s@0"), []string{"s@0"}, 0)
		require.NoError(t, err)
		fire.Firings[0].Version = read.Schedules[0].Version
		reply, err := store.Fire(ctx, store.Partition("s@0"), dianemo.Call{Caller: "test", Number: 1}, fire)
		require.NoError(t, err)
		require.True(t, reply.Fired[0].Done)
		var ran runs
		suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
		c := suite.Client(t, store)
		for _, id := range []string{"s@args", "s@short", "s@spec", "s@names"} {
			require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
			require.Equal(t, "gate", suite.Get(t, c, id).Reason)
		}
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, "s@whole"))
		require.Equal(t, dianemo.Blocked, suite.Get(t, c, "s@newer").State, "a newer version's")
		ran.once(t, 1)
	})
}

// The ids of its jobs are made of its own, and may be taken all the same.
func TestAnOccurrenceOfWhichAnotherJobHasAnIDIsCancelled_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		slow := trigger(t, store, "enlist", spread)
		c := suite.Client(t, store)
		info, err := c.GetSchedule(t.Context(), slow.schedule)
		require.NoError(t, err)
		id := info.Last
		taken := id + "@join"
		if spread {
			taken = "join/" + id
		}
		suite.Enqueue(t, c, chore, dianemo.Options{ID: taken})
		slow.goOn()
		require.Equal(t, id, suite.Receive(t, slow.triggered))
		require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		require.Equal(t, "gate", suite.Get(t, c, id).Reason)
		var ran runs
		suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, ran.run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, taken))
		ran.once(t, 1)
		require.Equal(t, dianemo.Cancelled, suite.Get(t, c, id).State)
	})
}

func TestABackfillMakesNoWorkflowAnewOfWhichAJobIsLeft(t *testing.T) {
	t.Parallel()
	for _, spread := range []bool{false, true} {
		suite.RunVirtual(t, fmt.Sprint(spread), func(t *testing.T) {
			store := suite.Embedded(t, 8)
			noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
			store.SetTime(noon)
			c := suite.Client(t, store)
			suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: nightly(spread)})
			left := "s@20260302T110000Z@join"
			if spread {
				left = "join/s@20260302T110000Z"
			}
			suite.Enqueue(t, c, chore, dianemo.Options{ID: left})
			done, err := c.Backfill(t.Context(), "s", dianemo.Backfill{From: noon.Add(-2 * time.Hour), To: noon, Max: 10})
			require.NoError(t, err)
			require.Equal(t, 1, done.Existing)
			require.Equal(t, []string{"s@20260302T100000Z"}, done.IDs)
			_, err = c.Get(t.Context(), "s@20260302T110000Z")
			require.ErrorIs(t, err, dianemo.ErrNotFound)
		})
	}
}

func TestAScheduleOfAWrongWorkflowIsRefused(t *testing.T) {
	t.Parallel()
	c := suite.Client(t, suite.Embedded(t, 1))
	for field, spoil := range map[string]func(s *dianemo.Schedule){
		"Schedule.Job":          func(s *dianemo.Schedule) { s.Workflow = nil },
		"Schedule.Workflow":     func(s *dianemo.Schedule) { s.Job = chore.New(suite.Args{}) },
		"Schedule.Workflow: ID": func(s *dianemo.Schedule) { s.Workflow.ID = "x" },
		"Schedule.Workflow: Options.RunAt": func(s *dianemo.Schedule) {
			s.Workflow.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{RunAt: time.Now()}))
		},
		"Schedule.Workflow: Options.Parents": func(s *dianemo.Schedule) {
			s.Workflow.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{Parents: dianemo.After("x")}))
		},
		"Options.Delay": func(s *dianemo.Schedule) {
			s.Workflow.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{Delay: 1}))
		},
		"Workflow":           func(s *dianemo.Schedule) { s.Workflow = dianemo.NewWorkflow("empty") },
		"Workflow.Name":      func(s *dianemo.Schedule) { s.Workflow = plan("a workflow", false, "a") },
		"Workflow.Add(name)": func(s *dianemo.Schedule) { s.Workflow.Add("a", chore.New(suite.Args{})) },
		"After(name)":        func(s *dianemo.Schedule) { s.Workflow.Add("b", chore.New(suite.Args{})).After("c") },
		"name": func(s *dianemo.Schedule) {
			s.Name = strings.Repeat("s", 80)
			s.Workflow.Add(strings.Repeat("b", 20), chore.New(suite.Args{}))
		},
		"Schedule.Workflow: 3": func(s *dianemo.Schedule) {
			s.Workflow = dianemo.NewWorkflow("large")
			kind := dianemo.NewKind[string]("kind", dianemo.Policy{})
			for i := range 3 {
				s.Workflow.Add(fmt.Sprint(i), kind.New(strings.Repeat("x", 100<<10)))
			}
		},
	} {
		s := dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: plan("w", false, "a")}
		spoil(&s)
		err := c.PutSchedule(t.Context(), s)
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, field)
		want, _, _ := strings.Cut(field, ": 3")
		require.Equal(t, want, wrong.Field)
	}
	err := c.PutSchedule(t.Context(), dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Workflow: plan("w", false, "a +b", "b +a")})
	var cycle *dianemo.CycleError
	require.ErrorAs(t, err, &cycle)
	list, err := c.ListSchedules(t.Context(), "", 10)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestAScheduledWorkflowShowsHowManyPeersHandleAllOfIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		c := suite.Client(t, store)
		other := dianemo.NewKind[suite.Args]("other", dianemo.Policy{})
		wf := plan("w", false, "a")
		wf.Add("b", other.New(suite.Args{})).After("a")
		for range 2 {
			suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, (&script{}).run)) })
		}
		require.Eventually(t, func() bool {
			peers, err := c.Peers(t.Context())
			return err == nil && len(peers) == 2
		}, suite.Patience, 10*time.Millisecond)
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, 24*time.Hour), Workflow: wf})
		handlers := func() int {
			info, err := c.GetSchedule(t.Context(), "s")
			require.NoError(t, err)
			return info.Handlers
		}
		require.Zero(t, handlers())
		suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { suite.Handle(t, p, "other", dianemo.Policy{}, suite.Returns(nil)) })
		require.Eventually(t, func() bool { return handlers() == 1 }, suite.Patience, 10*time.Millisecond)
	})
}
