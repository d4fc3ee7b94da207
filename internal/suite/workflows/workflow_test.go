package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// onEachSpread is suite.Each with the jobs of workflows together and spread.
func onEachSpread(t *testing.T, test func(t *testing.T, store dianemo.Store, spread bool)) {
	spreads(t, suite.Each, test)
}

// onTimeSpread is suite.EachOnTime with the jobs of workflows together and spread.
func onTimeSpread(t *testing.T, test func(t *testing.T, store dianemo.Store, spread bool)) {
	spreads(t, suite.EachOnTime, test)
}

func spreads(t *testing.T, each func(*testing.T, func(*testing.T, dianemo.Store)), test func(t *testing.T, store dianemo.Store, spread bool)) {
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprintf("spread=%v", spread), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, store dianemo.Store) { test(t, store, spread) })
		})
	}
}

// A script is what the jobs of a workflow do, by their names: nil is success.
type script struct {
	mu     sync.Mutex
	does   map[string]func(ctx context.Context, job *dianemo.Job[suite.Args]) error
	starts map[string]int
	order  []string
}

func (s *script) run(ctx context.Context, job *dianemo.Job[suite.Args]) error {
	s.mu.Lock()
	if s.starts == nil {
		s.starts = map[string]int{}
	}
	s.starts[job.Name]++
	s.order = append(s.order, job.Name)
	do := s.does[job.Name]
	s.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx, job)
}

func (s *script) set(name string, do func(ctx context.Context, job *dianemo.Job[suite.Args]) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.does == nil {
		s.does = map[string]func(context.Context, *dianemo.Job[suite.Args]) error{}
	}
	s.does[name] = do
}

func (s *script) started(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts[name]
}

func fails(context.Context, *dianemo.Job[suite.Args]) error {
	return dianemo.Fail(errors.New("as told"))
}

var chore = dianemo.NewKind[suite.Args]("chore", dianemo.Policy{Retries: dianemo.None})

// plan makes a workflow of these lines: a name and what it waits for, each with what must
// become of it: +success, !failure, *end, ?chosen.
func plan(name string, spread bool, lines ...string) *dianemo.Workflow {
	wf := dianemo.NewWorkflow(name)
	wf.Spread = spread
	for _, line := range lines {
		words := strings.Fields(line)
		job := wf.Add(words[0], chore.New(suite.Args{}))
		for _, w := range words[1:] {
			switch w[0] {
			case '+':
				job.After(w[1:])
			case '!':
				job.AfterFailure(w[1:])
			case '*':
				job.AfterEnd(w[1:])
			case '?':
				job.AfterChosen(w[1:])
			}
		}
	}
	return wf
}

func submit(t *testing.T, c *dianemo.Client, wf *dianemo.Workflow) string {
	t.Helper()
	id, err := c.Submit(t.Context(), wf)
	require.NoError(t, err)
	return id
}

// standing are the states of a workflow's jobs by their names.
func standing(t *testing.T, c *dianemo.Client, id string) map[string]dianemo.State {
	t.Helper()
	g, err := c.WorkflowGraph(t.Context(), id)
	require.NoError(t, err)
	states := map[string]dianemo.State{}
	for _, job := range g.Jobs {
		states[job.Name] = job.State
	}
	return states
}

func TestAWorkflowRunsAsItsGraphSays_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		var s script
		s.set("bad", fails)
		wf := plan("etl", spread, "extract", "left +extract", "right +extract", "join +left +right", "bad +join", "never +bad", "mend !bad", "always *bad *never")
		id := submit(t, c, wf)
		info, err := c.Workflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, dianemo.Running, info.State)
		require.Equal(t, 8, info.Jobs)
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		require.Equal(t, dianemo.Failed, suite.Ends(t, c, id))
		require.Equal(t, map[string]dianemo.State{"extract": "succeeded", "left": "succeeded", "right": "succeeded", "join": "succeeded", "bad": "failed",
			"never": "skipped", "mend": "succeeded", "always": "succeeded"}, standing(t, c, id))
		info, err = c.Workflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, dianemo.Failed, info.State)
		require.Equal(t, "job", info.Reason)
		require.Equal(t, "etl", info.Name)
		require.Equal(t, map[dianemo.State]int{dianemo.Succeeded: 6, dianemo.Failed: 1, dianemo.Skipped: 1}, info.Counts)
		require.Equal(t, 1.0, info.Progress())
		require.False(t, info.EndedAt.Before(info.SubmittedAt))

		// What failed is run again, and what waited for it; the rest stays.
		s.set("bad", nil)
		n, err := c.ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		require.Equal(t, dianemo.Succeeded, standing(t, c, id)["never"])
		require.Equal(t, 2, s.started("bad"))
		require.Equal(t, 1, s.started("extract"))
		require.Equal(t, 1, s.started("never"))
		require.Equal(t, 1, s.started("mend"))

		page, err := c.Workflows(t.Context(), dianemo.WorkflowFilter{Names: []string{"etl"}, States: []dianemo.State{dianemo.Succeeded}})
		require.NoError(t, err)
		require.Contains(t, ids(page), id)
	})
}

func ids(page dianemo.WorkflowPage) []string {
	var all []string
	for _, w := range page.Workflows {
		all = append(all, w.ID)
	}
	return all
}

func TestADecisionPicksWhichChildrenRun_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		var s script
		s.set("size", func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			err := job.Choose(ctx, "huge")
			var wrong *dianemo.FieldError
			if !errors.As(err, &wrong) {
				return fmt.Errorf("a child that it has not: %w", err)
			}
			return errors.Join(job.Choose(ctx, "small"), job.SetResult("is small"))
		})
		id := submit(t, c, plan("decide", spread, "size", "small +size", "big +size", "bigger +big", "join ?small ?bigger", "strict +small +bigger",
			"none ?big ?bigger", "log *big"))
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		require.Equal(t, map[string]dianemo.State{"size": "succeeded", "small": "succeeded", "big": "skipped", "bigger": "skipped", "join": "succeeded",
			"strict": "skipped", "none": "skipped", "log": "succeeded"}, standing(t, c, id))
		g, err := c.WorkflowGraph(t.Context(), id)
		require.NoError(t, err)
		for _, job := range g.Jobs {
			if job.State == dianemo.Skipped {
				require.Equal(t, "choice", job.Reason, job.Name)
			}
			if job.Name == "size" {
				info := suite.Get(t, c, job.ID)
				require.Len(t, info.Chosen, 1)
				result, err := dianemo.ResultOf[string](info)
				require.NoError(t, err)
				require.Equal(t, "is small", result)
			}
		}
		// Nothing of that is to be run again.
		n, err := c.ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
		require.Zero(t, n)
	})
}

func TestACancelledWorkflowEndsAndCanBeResumed_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		var s script
		running := make(chan struct{})
		s.set("b", func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			close(running)
			<-ctx.Done()
			return ctx.Err()
		})
		id := submit(t, c, plan("long", spread, "a", "b +a", "c +b", "d +c", "e *d"))
		register := func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) }
		first := suite.Start(t, store, dianemo.Config{}, register)
		suite.Receive(t, running)
		require.NoError(t, c.Cancel(t.Context(), id))
		require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		require.Equal(t, map[string]dianemo.State{"a": "succeeded", "b": "cancelled", "c": "cancelled", "d": "cancelled", "e": "cancelled"}, standing(t, c, id))
		require.Equal(t, "cancel", suite.Get(t, c, id).Reason)
		require.NoError(t, c.Cancel(t.Context(), id), "a second time")
		require.NoError(t, first.Stop(), "and so nobody is still telling jobs that the workflow is cancelled")

		s.set("b", nil)
		suite.Start(t, store, dianemo.Config{}, register)
		n, err := c.ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, 4, n)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		require.Equal(t, []string{"a", "b", "b", "c", "d", "e"}, s.order)
	})
}

func TestAWrongWorkflowIsRefusedAndNothingOfItWritten_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: suite.Quiet, MaxWorkflow: 5})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		var field *dianemo.FieldError
		for name, wf := range map[string]*dianemo.Workflow{
			"no jobs":        plan("w", false),
			"a bad name":     plan("a workflow", false, "a"),
			"a job twice":    plan("w", false, "a", "a"),
			"unknown":        plan("w", false, "a +b"),
			"too large":      plan("w", false, "a", "b", "c", "d", "e", "f"),
			"a bad job name": plan("w", false, "a#b"),
			"a long name":    plan("w", false, strings.Repeat("a", 120)),
			"nil":            nil,
			"a parent twice": plan("w", false, "a", "b +a *a"),
			"an id of an own": func() *dianemo.Workflow {
				w := plan("w", false, "a")
				w.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{ID: "x"}))
				return w
			}(),
			"a delay": func() *dianemo.Workflow {
				w := plan("w", false, "a")
				w.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{Delay: time.Hour}))
				return w
			}(),
			"args": func() *dianemo.Workflow {
				w := plan("w", false, "a")
				w.Add("b", dianemo.NewKind[any]("any", dianemo.Policy{}).New(func() {}))
				return w
			}(),
			"a bad kind": func() *dianemo.Workflow {
				w := plan("w", false, "a")
				w.Add("b", dianemo.NewKind[any]("workflow/x", dianemo.Policy{}).New(1))
				return w
			}(),
		} {
			_, err := c.Submit(t.Context(), wf)
			require.ErrorAs(t, err, &field, name)
		}
		var cycle *dianemo.CycleError
		_, err = c.Submit(t.Context(), plan("w", false, "a +c", "b +a", "c +b"))
		require.ErrorAs(t, err, &cycle)
		require.ElementsMatch(t, []string{"a", "b", "c"}, cycle.IDs)
		_, err = c.Submit(t.Context(), plan("w", false, "a +a"))
		require.ErrorAs(t, err, &cycle)
		wf := plan("w", false, "a")
		wf.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{Parents: dianemo.After("nobody")}))
		_, err = c.Submit(t.Context(), wf)
		var gone *dianemo.ParentGoneError
		require.ErrorAs(t, err, &gone)
		require.Equal(t, "nobody", gone.Parent)
		counts, err := c.Counts(t.Context())
		require.NoError(t, err)
		require.Empty(t, counts)
	})
}

func TestAWorkflowWithAnIDExistsOnce_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		wf := plan("once", spread, "a", "b +a")
		wf.ID = fmt.Sprintf("the-one-%v", spread)
		var mu sync.Mutex
		accepted := 0
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				_, err := c.Submit(t.Context(), wf)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					accepted++
				} else if !errors.Is(err, dianemo.ErrExists) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, accepted)
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, (&script{}).run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, wf.ID))
		wf.Spread = !spread // the same id, elsewhere
		_, err := c.Submit(t.Context(), wf)
		require.ErrorIs(t, err, dianemo.ErrExists)
	})
}

// What a workflow's jobs wait for outside of it may have ended, or end later.
func TestAWorkflowMayHaveParentsOutsideOfIt_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		before, after := "before-"+fmt.Sprint(spread), "after-"+fmt.Sprint(spread)
		suite.Enqueue(t, c, chore, dianemo.Options{ID: before})
		var s script
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, before))
		suite.Enqueue(t, c, chore, dianemo.Options{ID: after, Delay: 200 * time.Millisecond})
		wf := plan("outside", spread, "a")
		wf.Add("b", chore.NewWith(suite.Args{}, dianemo.Options{Parents: dianemo.After(before, after)})).After("a")
		id := submit(t, c, wf)
		// And a job outside may wait for the workflow.
		child := suite.Enqueue(t, c, chore, dianemo.Options{Parents: dianemo.After(id)})
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, child))
		require.Equal(t, dianemo.Succeeded, suite.Get(t, c, id).State)
		g, err := c.WorkflowGraph(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, []dianemo.GraphEdge{{Parent: "a", Child: "b", On: dianemo.OnSuccess}, {Parent: after, Child: "b", On: dianemo.OnSuccess},
			{Parent: before, Child: "b", On: dianemo.OnSuccess}}, g.Edges)
	})
}

func TestWhyIsABlockedJobNotRunning_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		id := submit(t, c, plan("why", spread, "a", "b", "c +a +b", "d +c"))
		g, err := c.WorkflowGraph(t.Context(), id)
		require.NoError(t, err)
		a, b, join, last := g.Jobs[0].ID, g.Jobs[1].ID, g.Jobs[2].ID, g.Jobs[3].ID
		why, err := c.Why(t.Context(), join)
		require.NoError(t, err)
		require.Equal(t, dianemo.CauseBlocked, why.Cause)
		require.ElementsMatch(t, []string{a, b}, []string{why.Parents[0].ID, why.Parents[1].ID})
		why, err = c.Why(t.Context(), last)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("job %s is blocked: it waits for %s (blocked)", last, join), why.String())
		why, err = c.Why(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, why.Parents, 4)
	})
}

func TestJobsOnTheLongestPathGoFirst_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		lines := []string{"root", "link-1 +root"}
		var s script
		var released [6]chan struct{} // by link
		for i := range released {
			released[i] = make(chan struct{})
		}
		next := 2 // link; one handler runs at a time
		for i := range 10 {
			name := fmt.Sprintf("child-%d", i)
			lines = append(lines, name+" +root")
			if i < 4 {
				// A job and what comes after it is claimed before its children are told of its end.
				s.set(name, func(context.Context, *dianemo.Job[suite.Args]) error {
					suite.Receive(t, released[min(next, 5)])
					return nil
				})
			}
		}
		due := make(chan time.Duration, 1)
		for i := 2; i <= 5; i++ {
			lines = append(lines, fmt.Sprintf("link-%d +link-%d", i, i-1))
			s.set(fmt.Sprintf("link-%d", i), func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				if next = i + 1; i == 3 {
					due <- time.Since(job.Due)
				}
				return nil
			})
		}
		id := submit(t, c, plan("long", false, lines...))
		claimed := make(chan dianemo.ClaimInfo, 100)
		hooks := &dianemo.Hooks{Claim: func(i dianemo.ClaimInfo) { claimed <- i }, Release: func(i dianemo.ReleaseInfo) {
			if i.State == dianemo.Scheduled && strings.Contains(i.ID, "@link-") && !strings.HasSuffix(i.ID, "-1") {
				close(released[i.ID[len(i.ID)-1]-'0'])
			}
		}}
		suite.Start(t, store, dianemo.Config{Tokens: 1, Hooks: hooks}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		require.Equal(t, []string{"root", "link-1"}, s.order[:2])
		for i := 2; i <= 4; i++ {
			behind := slices.Index(s.order, fmt.Sprintf("link-%d", i)) - slices.Index(s.order, fmt.Sprintf("link-%d", i-1))
			require.Contains(t, []int{1, 2}, behind, "at most the one claimed before this link was released comes before it: %v", s.order)
		}
		require.Equal(t, "link-5", s.order[len(s.order)-1], "it is as far from the end as the children, and was released later: %v", s.order)
		require.Less(t, suite.Receive(t, due), suite.Patience, "when it was to start is not told otherwise")
		for range s.order {
			require.Less(t, suite.Receive(t, claimed).Waited, suite.Patience)
		}
	})
}

// A tardy store hesitates before it first lists a workflow's jobs.
type tardyStore struct {
	dianemo.Store
	once       sync.Once
	held, goOn chan struct{}
}

func (s *tardyStore) Members(ctx context.Context, workflow, after string, limit int) ([]string, error) {
	s.once.Do(func() { close(s.held); <-s.goOn })
	return s.Store.Members(ctx, workflow, after, limit)
}

func TestWhoTellsLateThatAWorkflowWasCancelledCancelsNothingOnceItIsResumed_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		late := &tardyStore{Store: store, held: make(chan struct{}), goOn: make(chan struct{})}
		id := submit(t, c, plan("long", spread, "a", "b +a", "c +b"))
		first := suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { suite.Handle(t, p, "other", dianemo.Policy{}, suite.Returns(nil)) }) // it leads
		cancelled := make(chan error)
		go func() { cancelled <- suite.Client(t, late).Cancel(context.Background(), id) }()
		suite.Receive(t, late.held)
		require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		require.NoError(t, first.Stop())
		n, err := c.ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		close(late.goOn)
		require.NoError(t, suite.Receive(t, cancelled))
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, (&script{}).run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
	})
}

// A meddled store is one in which something happens after the first call that makes jobs
// wait behind gates.
type meddled struct {
	dianemo.Store
	once   sync.Once
	meddle func()
}

func (m *meddled) Requeue(ctx context.Context, partition int, call dianemo.Call, ids []string, heed bool) (dianemo.WishReply, error) {
	reply, err := m.Store.Requeue(ctx, partition, call, ids, heed)
	if heed {
		m.once.Do(m.meddle)
	}
	return reply, err
}

// The workflow is cancelled when one of its jobs is to run again already, and the other not
// yet.
func TestAWorkflowThatIsCancelledWhileItIsResumedEnds(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 8)
	c := suite.Client(t, store)
	require.NoError(t, store.Open(t.Context()))
	lead := func() *suite.Running {
		return suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { suite.Handle(t, p, "other", dianemo.Policy{}, suite.Returns(nil)) })
	}
	leader := lead()
	for i := range 6 { // the order of the partitions is any
		wf := plan("race", true, "a", "b +a")
		wf.ID = fmt.Sprintf("race%d", i)
		require.NotEqual(t, store.Partition("a/"+wf.ID), store.Partition("b/"+wf.ID), "so that they are made to wait by two calls")
		id := submit(t, c, wf)
		require.NoError(t, c.Cancel(t.Context(), id))
		require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		require.NoError(t, leader.Stop(), "and so nobody is still telling jobs that the workflow is cancelled")
		leader = lead()
		among := func(states ...dianemo.State) func() bool {
			return func() bool {
				for _, state := range standing(t, c, id) {
					if !slices.Contains(states, state) {
						return false
					}
				}
				return true
			}
		}
		m := &meddled{Store: store, meddle: func() {
			require.Eventually(t, func() bool { return suite.Get(t, c, id).State == dianemo.Blocked }, suite.Patience, time.Millisecond)
			require.NoError(t, c.Cancel(t.Context(), id))
			require.Eventually(t, among(dianemo.Cancelled), suite.Patience, time.Millisecond)
			require.Equal(t, dianemo.Cancelled, suite.Ends(t, c, id))
		}}
		_, err := suite.Client(t, m).ResumeWorkflow(t.Context(), id)
		require.NoError(t, err)
	}
	suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, (&script{}).run)) })
	for i := range 6 {
		require.NotEqual(t, dianemo.Blocked, suite.Ends(t, c, fmt.Sprintf("race%d", i)))
	}
}

// Options.Parents are ids, and those of the workflow's own jobs are known beforehand.
func TestAWorkflowWhoseJobsIDsAreTakenOrWaitInACircleIsRefused_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		c := suite.Client(t, store)
		id := func(name string) string {
			if spread {
				return name + "/w"
			}
			return "w@" + name
		}
		make := func(parents ...dianemo.Parent) *dianemo.Workflow {
			wf := plan("w", spread, "b +a")
			wf.ID = "w"
			wf.Add("a", chore.NewWith(suite.Args{}, dianemo.Options{Parents: parents}))
			return wf
		}
		var cycle *dianemo.CycleError
		_, err := c.Submit(t.Context(), make(dianemo.After(id("b"))...))
		require.ErrorAs(t, err, &cycle)
		require.ElementsMatch(t, []string{"a", "b"}, cycle.IDs)
		var field *dianemo.FieldError
		_, err = c.Submit(t.Context(), make(dianemo.Parent{ID: "w", MayBeGone: true}))
		require.ErrorAs(t, err, &field)
		stranger := suite.Enqueue(t, c, chore, dianemo.Options{ID: id("a"), Delay: time.Hour})
		var exists *dianemo.ExistsError
		_, err = c.Submit(t.Context(), make())
		require.ErrorAs(t, err, &exists)
		require.Equal(t, stranger, exists.ID)
		counts, err := c.Counts(t.Context())
		require.NoError(t, err)
		require.Len(t, counts, 1, "nothing was written")
	})
}

func TestASubmitThatIsCutLeavesItsIDFree_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		require.NoError(t, store.Open(t.Context()))
		c := suite.Client(t, store)
		for i, step := range unfoldSteps {
			wf := plan("cut", spread, "a", "b +a")
			wf.ID = fmt.Sprintf("cut-%d-%v", i, spread)
			ctx, cancel := context.WithCancel(t.Context())
			cut := suite.Client(t, &faultyStore{store, func(_ context.Context, call string) error {
				if call == step && ctx.Err() == nil {
					cancel()
					return errors.New("no answer")
				}
				return nil
			}})
			_, err := cut.Submit(ctx, wf)
			cancel()
			if err == nil {
				continue // it was accepted before, or the step has no call
			}
			require.ErrorIs(t, err, context.Canceled, step)
			require.NotErrorIs(t, err, dianemo.ErrUnconfirmed, step)
			wf = plan("cut", spread, "b", "c +b") // and not the same
			wf.ID = fmt.Sprintf("cut-%d-%v", i, spread)
			submit(t, c, wf)
		}
		var s script
		suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, s.run)) })
		for i := range unfoldSteps {
			id := fmt.Sprintf("cut-%d-%v", i, spread)
			require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		}
	})
}

// A coyStore does not answer reads of families the first time.
type coyStore struct {
	dianemo.Store
	members, standings int
}

func (s *coyStore) Members(ctx context.Context, workflow, after string, limit int) ([]string, error) {
	if s.members++; s.members == 1 {
		return nil, errors.New("no answer")
	}
	return s.Store.Members(ctx, workflow, after, limit)
}

func (s *coyStore) Standings(ctx context.Context, ids []string) ([]dianemo.Standing, error) {
	if s.standings++; s.standings%2 == 1 {
		return nil, errors.New("no answer")
	}
	return s.Store.Standings(ctx, ids)
}

func TestASubmitAsksAgainWhatTheStoreDidNotAnswer(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	require.NoError(t, store.Open(t.Context()))
	wf := plan("w", false, "a", "b +a")
	wf.ID = "w"
	coy := &coyStore{Store: store}
	_, err := suite.Client(t, coy).Submit(t.Context(), wf)
	require.NoError(t, err)
	require.Greater(t, coy.members, 1)
	again := plan("w", false, "a", "b +a")
	again.ID = "w"
	_, err = suite.Client(t, coy).Submit(t.Context(), again)
	require.ErrorIs(t, err, dianemo.ErrExists)
}

func TestAWrappedEnqueueThatDoesNotGoOnIsNoSubmit(t *testing.T) {
	t.Parallel()
	c, err := dianemo.NewClient(suite.Embedded(t, 1), dianemo.ClientConfig{Logger: suite.Quiet, WrapEnqueue: func(dianemo.EnqueueFunc) dianemo.EnqueueFunc {
		return func(context.Context, []dianemo.Request) ([]string, error) { return nil, nil }
	}})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	_, err = c.Submit(t.Context(), plan("w", false, "a"))
	var field *dianemo.FieldError
	require.ErrorAs(t, err, &field)
}

func TestAWrappedEnqueueSeesAWorkflow_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		drop := false
		c, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: suite.Quiet, WrapEnqueue: func(next dianemo.EnqueueFunc) dianemo.EnqueueFunc {
			return func(ctx context.Context, requests []dianemo.Request) ([]string, error) {
				for i := range requests {
					requests[i] = requests[i].WithHeader("trace", "t1")
				}
				if drop {
					requests = requests[1:]
				}
				return next(ctx, requests)
			}
		}})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		got := make(chan dianemo.Job[suite.Args], 2)
		suite.Start(t, store, dianemo.Config{Wrap: func(next dianemo.Handler) dianemo.Handler { return next }}, func(p *dianemo.Peer) {
			require.NoError(t, chore.Handle(p, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				got <- *job
				return nil
			}))
		})
		id := submit(t, c, plan("traced", false, "a", "b +a"))
		for _, name := range []string{"a", "b"} {
			job := suite.Receive(t, got)
			require.Equal(t, "t1", job.Headers["trace"])
			require.Equal(t, []string{id, name}, []string{job.Workflow, job.Name})
		}
		drop = true
		_, err = c.Submit(t.Context(), plan("traced", false, "a", "b +a"))
		var field *dianemo.FieldError
		require.ErrorAs(t, err, &field)
	})
}
