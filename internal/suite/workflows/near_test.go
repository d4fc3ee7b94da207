package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// placed is where and when a job was started.
type placed struct {
	dianemo.ClaimInfo
	on string
	at time.Time
}

// places keeps the last start of each job.
type places struct {
	mu     sync.Mutex
	starts map[string]placed
}

func (s *places) hooks(peer string) *dianemo.Hooks {
	return &dianemo.Hooks{Claim: func(i dianemo.ClaimInfo) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.starts == nil {
			s.starts = map[string]placed{}
		}
		s.starts[i.ID] = placed{i, peer, time.Now()}
	}}
}

func (s *places) of(t *testing.T, id string) placed {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Contains(t, s.starts, id)
	return s.starts[id]
}

// peers starts them: all run one kind, and each another of its own name.
func (s *places) peers(t *testing.T, store dianemo.Store, config dianemo.Config, names ...string) map[string]*suite.Running {
	t.Helper()
	peers := map[string]*suite.Running{}
	for _, name := range names {
		config.Hooks = s.hooks(name)
		peers[name] = suite.Start(t, store, config, func(p *dianemo.Peer) {
			suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil))
			suite.Handle(t, p, "on-"+name, dianemo.Policy{}, suite.Returns(nil))
		})
	}
	c := suite.Client(t, store)
	require.Eventually(t, func() bool { return len(allPeers(t, c)) == len(names) }, suite.Patience, time.Millisecond)
	return peers
}

func allPeers(t *testing.T, c *dianemo.Client) []dianemo.PeerInfo {
	t.Helper()
	peers, err := c.Peers(t.Context())
	require.NoError(t, err)
	return peers
}

func near(wait time.Duration, parents ...string) dianemo.Options {
	o := dianemo.Options{Parents: dianemo.After(parents...)}
	for i := range o.Parents {
		o.Parents[i].Near = wait
	}
	return o
}

func named(id string, o dianemo.Options) dianemo.Options {
	o.ID = id
	return o
}

func only(name string) dianemo.Kind[suite.Args] {
	return dianemo.NewKind[suite.Args]("on-"+name, dianemo.Policy{})
}

var anyKind = dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})

func TestAChildRunsOnThePeerThatRanItsParent_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var s places
		names := []string{"a", "b", "c"}
		s.peers(t, store, dianemo.Config{}, names...)
		c := suite.Client(t, store)
		var took []time.Duration
		for i := range 50 {
			parent, child := fmt.Sprintf("p%d", i), fmt.Sprintf("c%d", i)
			_, err := c.EnqueueMany(t.Context(), only(names[i%3]).NewWith(suite.Args{}, dianemo.Options{ID: parent}), anyKind.NewWith(suite.Args{}, named(child, near(time.Hour, parent))))
			require.NoError(t, err)
			require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, child))
			first, second := s.of(t, parent), s.of(t, child)
			require.Equal(t, first.on, second.on)
			require.Zero(t, second.Waited.Truncate(time.Millisecond), "it is due when it is claimed")
			require.False(t, second.Due.Before(first.Due))
			took = append(took, second.at.Sub(first.at))
		}
		slices.Sort(took)
		t.Logf("from the parent's start to the child's: p50 %v, p90 %v", took[25], took[45])
	})
}

// A pair of peers with a child that is kept for a, where its first parent runs, and is
// released by b, where its last one does.
type pair struct {
	places
	t     *testing.T
	c     *dianemo.Client
	store dianemo.Store
	a, b  *suite.Running
	frees map[string]chan struct{} // by the ids of the jobs that wait for it
	freed map[string]bool
	told  chan string // of whose end a child was told
}

func newPair(t *testing.T, store dianemo.Store, config dianemo.Config) *pair {
	p := &pair{t: t, c: suite.Client(t, store), store: store, freed: map[string]bool{}, told: make(chan string, 100), frees: map[string]chan struct{}{"first": make(chan struct{}), "last": make(chan struct{}), "busy": make(chan struct{})}}
	run := func(_ context.Context, job *dianemo.Job[suite.Args]) error {
		if free := p.frees[job.ID]; free != nil {
			<-free
		}
		return nil
	}
	begin := func(name string, config dianemo.Config) *suite.Running {
		config.Hooks = p.hooks(name)
		config.Hooks.Release = func(i dianemo.ReleaseInfo) { p.told <- i.Parent }
		return suite.Start(t, store, config, func(peer *dianemo.Peer) {
			suite.Handle(t, peer, "kind", dianemo.Policy{}, run)
			suite.Handle(t, peer, "on-"+name, dianemo.Policy{}, run)
		})
	}
	p.a, p.b = begin("a", config), begin("b", dianemo.Config{})
	require.Eventually(t, func() bool { return len(allPeers(t, p.c)) == 2 }, suite.Patience, time.Millisecond)
	t.Cleanup(func() {
		for id := range p.frees {
			p.free(id)
		}
	})
	return p
}

// free lets a job end that waits for it.
func (p *pair) free(id string) {
	if !p.freed[id] {
		close(p.frees[id])
		p.freed[id] = true
	}
}

// child enqueues it with its parents, of which the last one is not free yet.
func (p *pair) child(kind dianemo.Kind[suite.Args], wait time.Duration) {
	p.t.Helper()
	o := near(wait, "first")
	o.Parents = append(o.Parents, dianemo.After("last")...)
	_, err := p.c.EnqueueMany(p.t.Context(), only("a").NewWith(suite.Args{}, dianemo.Options{ID: "first"}), only("b").NewWith(suite.Args{}, dianemo.Options{ID: "last"}),
		kind.NewWith(suite.Args{}, named("child", o)))
	require.NoError(p.t, err)
	p.free("first") // now that the gate is open
	require.Equal(p.t, "first", suite.Receive(p.t, p.told))
}

// occupy gives a a job that takes all of its tokens.
func (p *pair) occupy() {
	p.t.Helper()
	suite.Enqueue(p.t, p.c, only("a"), dianemo.Options{ID: "busy"})
	require.Eventually(p.t, func() bool { return suite.Get(p.t, p.c, "busy").State == dianemo.Running }, suite.Patience, time.Millisecond)
}

func TestAChildRunsAnywhereAfterItsWaitIfThePeerOfItsParentDoesNotTakeIt_Long(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(p *pair){
		"it has no tokens":  func(p *pair) { p.occupy() },
		"it is gone":        func(p *pair) { require.NoError(p.t, p.a.Stop()) },
		"it is drained":     func(p *pair) { drain(p.t, p.c, p.a.ID()) },
		"it has no handler": func(*pair) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				const wait = 300 * time.Millisecond
				p := newPair(t, store, dianemo.Config{Tokens: 1})
				kind := anyKind
				if name == "it has no handler" {
					kind = only("b")
				}
				p.child(kind, wait)
				happens(p)
				freed := time.Now()
				p.free("last")
				require.Equal(t, dianemo.Succeeded, suite.Ends(t, p.c, "child"))
				child := p.of(t, "child")
				require.Equal(t, "b", child.on)
				require.GreaterOrEqual(t, child.at.Sub(freed), wait)
				require.Less(t, child.Waited, 10*time.Second, "it was due when its wait was over")
			})
		})
	}
}

// drain asks a peer to claim nothing, and returns when it has heard of it.
func drain(t *testing.T, c *dianemo.Client, peer string) {
	t.Helper()
	require.NoError(t, c.Drain(t.Context(), peer))
	require.Eventually(t, func() bool {
		for _, p := range allPeers(t, c) {
			if p.ID == peer {
				return p.Draining
			}
		}
		return false
	}, suite.Patience, time.Millisecond)
}

func TestAPeerThatIsToldOfAChildTakesItAsSoonAsItHasTokens_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		p := newPair(t, store, dianemo.Config{Tokens: 1})
		p.child(anyKind, time.Hour)
		p.occupy()
		p.free("last")
		require.Eventually(t, func() bool { return suite.Get(t, p.c, "child").State == dianemo.Scheduled }, suite.Patience, time.Millisecond)
		p.free("busy")
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, p.c, "child"))
		require.Equal(t, "a", p.of(t, "child").on)
	})
}

func TestAChildOfAPausedKindWaitsForItsPeerAllTheSame_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		p := newPair(t, store, dianemo.Config{})
		p.child(anyKind, time.Hour)
		require.NoError(t, p.c.Pause(t.Context(), "kind"))
		p.free("last")
		require.Eventually(t, func() bool { return suite.Get(t, p.c, "child").State == dianemo.Scheduled }, suite.Patience, time.Millisecond)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, p.c, suite.Enqueue(t, p.c, only("a"), dianemo.Options{})), "the peer goes on")
		require.Equal(t, dianemo.Scheduled, suite.Get(t, p.c, "child").State)
		require.NoError(t, p.c.Resume(t.Context(), "kind"))
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, p.c, "child"))
		require.Equal(t, "a", p.of(t, "child").on)
	})
}

// What was decided about a child in the meantime counts.
func TestAChildThatIsKeptForAPeerCanBePutOffAndCancelled_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		p := newPair(t, store, dianemo.Config{Tokens: 1})
		p.child(anyKind, time.Hour)
		o := near(time.Hour, "first")
		o.Parents = append(o.Parents, dianemo.After("last")...)
		suite.Enqueue(t, p.c, anyKind, named("other", o))
		p.occupy()
		p.free("last")
		require.Eventually(t, func() bool {
			return suite.Get(t, p.c, "child").State == dianemo.Scheduled && suite.Get(t, p.c, "other").State == dianemo.Scheduled
		}, suite.Patience, time.Millisecond)
		require.NoError(t, p.c.Cancel(t.Context(), "other"))
		require.NoError(t, p.c.Reschedule(t.Context(), "child", dianemo.Change{Delay: 2 * time.Hour}))
		p.free("busy")
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, p.c, suite.Enqueue(t, p.c, only("a"), dianemo.Options{})))
		require.Equal(t, dianemo.Scheduled, suite.Get(t, p.c, "child").State)
		require.Equal(t, dianemo.Cancelled, suite.Get(t, p.c, "other").State)
	})
}

func TestAChildOfAParentThatHasEndedRunsOnItsPeer_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var s places
		names := []string{"a", "b", "c"}
		s.peers(t, store, dianemo.Config{}, names...)
		c := suite.Client(t, store)
		for i := range 9 {
			parent := suite.Enqueue(t, c, only(names[i%3]), dianemo.Options{})
			require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, parent))
			child := suite.Enqueue(t, c, anyKind, near(time.Hour, parent))
			require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, child))
			require.Equal(t, names[i%3], s.of(t, child).on)
		}
	})
}

func TestAJobOfAWorkflowRunsOnThePeerOfAnother_Long(t *testing.T) {
	t.Parallel()
	onEachSpread(t, func(t *testing.T, store dianemo.Store, spread bool) {
		var s places
		s.peers(t, store, dianemo.Config{}, "a", "b", "c")
		c := suite.Client(t, store)
		wf := dianemo.NewWorkflow("local")
		wf.Spread = spread
		wf.Add("fetch", anyKind.New(suite.Args{}))
		for i := range 5 {
			wf.Add(fmt.Sprint("count-", i), anyKind.New(suite.Args{})).AfterOn("fetch", time.Hour)
		}
		id := submit(t, c, wf)
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, id))
		g, err := c.WorkflowGraph(t.Context(), id)
		require.NoError(t, err)
		on := map[string]bool{}
		for _, job := range g.Jobs {
			on[s.of(t, job.ID).on] = true
		}
		require.Len(t, on, 1)
	})
}
