package dianemo_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A start is where and when a job was started.
type placed struct {
	dianemo.ClaimInfo
	on string
	at time.Time
}

// places keeps the last start of each job.
type places struct {
	mu     sync.Mutex
	starts map[string]placed
	ends   map[string]time.Time
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

// near starts peers that run the kind at most at so many at a time, and handle kinds of
// their own names.
func (s *places) peers(t *testing.T, store dianemo.Store, config dianemo.Config, names ...string) map[string]*running {
	t.Helper()
	peers := map[string]*running{}
	for _, name := range names {
		config.Hooks = s.hooks(name)
		peers[name] = start(t, store, config, func(p *dianemo.Peer) {
			handle(t, p, "kind", dianemo.Policy{}, returns(nil))
			handle(t, p, "on-"+name, dianemo.Policy{}, returns(nil))
		})
	}
	c := client(t, store)
	require.Eventually(t, func() bool { return len(allPeers(t, c)) == len(names) }, 20*time.Second, time.Millisecond)
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

func only(name string) dianemo.Kind[Args] { return dianemo.NewKind[Args]("on-"+name, dianemo.Policy{}) }

var anyKind = dianemo.NewKind[Args]("kind", dianemo.Policy{})

func TestAChildRunsOnThePeerThatRanItsParent(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var s places
		names := []string{"a", "b", "c"}
		s.peers(t, store, dianemo.Config{}, names...)
		c := client(t, store)
		var took []time.Duration
		for i := range 50 {
			parent, child := fmt.Sprintf("p%d", i), fmt.Sprintf("c%d", i)
			_, err := c.EnqueueMany(t.Context(), only(names[i%3]).NewWith(Args{}, dianemo.Options{ID: parent}), anyKind.NewWith(Args{}, named(child, near(time.Hour, parent))))
			require.NoError(t, err)
			require.Equal(t, dianemo.Succeeded, ends(t, c, child))
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

func TestAChildOfTwoParentsRunsWhereTheLastOfThemRan(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		var s places
		c := client(t, store)
		free := make(chan struct{})
		for _, name := range []string{"a", "b"} {
			start(t, store, dianemo.Config{Hooks: s.hooks(name)}, func(p *dianemo.Peer) {
				handle(t, p, "kind", dianemo.Policy{}, returns(nil))
				handle(t, p, "on-"+name, dianemo.Policy{}, func(context.Context, *dianemo.Job[Args]) error {
					if name == "b" {
						<-free
					}
					return nil
				})
			})
		}
		_, err := c.EnqueueMany(t.Context(), only("a").NewWith(Args{}, dianemo.Options{ID: "first"}), only("b").NewWith(Args{}, dianemo.Options{ID: "last"}),
			anyKind.NewWith(Args{}, named("child", near(time.Hour, "first", "last"))), anyKind.NewWith(Args{}, named("told", near(time.Hour, "first"))))
		require.NoError(t, err)
		require.Equal(t, dianemo.Succeeded, ends(t, c, "told"))
		require.Equal(t, dianemo.Blocked, get(t, c, "child").State)
		close(free)
		require.Equal(t, dianemo.Succeeded, ends(t, c, "child"))
		require.Equal(t, "b", s.of(t, "child").on)
	})
}
