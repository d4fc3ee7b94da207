package workflows_test

import (
	"context"
	"fmt"
	"maps"
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

// A broken graph: a workflow and a family of jobs, of each of which the first job has ended
// and its children have not been told.
type brokenGraph struct {
	t         *testing.T
	store     dianemo.Store
	c         *dianemo.Client
	rdb       redis.UniversalClient
	namespace string
	flow      string
	spread    bool
	twice     bool // which jobs the workflow had is lost wherever it stood
}

func (g *brokenGraph) id(name string) string {
	switch {
	case strings.HasPrefix(name, "own-"):
		return name + g.flow[len(g.flow)-8:]
	case name == "flow":
		return g.flow
	case g.spread:
		return name + "/" + g.flow
	}
	return g.flow + "@" + name
}

func (g *brokenGraph) key(id, name string) string {
	return fmt.Sprintf("{%s:%d}:%s", g.namespace, g.store.Partition(id), name)
}

// del deletes keys in all partitions.
func (g *brokenGraph) del(names ...string) {
	for p := range g.store.Partitions() {
		for _, name := range names {
			require.NoError(g.t, g.rdb.Del(g.t.Context(), fmt.Sprintf("{%s:%d}:%s", g.namespace, p, name)).Err())
		}
	}
}

// set gives a field of a job's hash another value, or removes it.
func (g *brokenGraph) set(hash, job, rest, value string) {
	id := g.id(job)
	if rest != "" {
		mark, other, _ := strings.Cut(rest, ":")
		if rest = mark; other != "" {
			rest += g.id(other)
		}
	}
	key := g.key(id, hash)
	require.Equal(g.t, true, g.rdb.HExists(g.t.Context(), key, id+rest).Val(), "%s in %s", id+rest, key)
	if value == "" {
		require.NoError(g.t, g.rdb.HDel(g.t.Context(), key, id+rest).Err())
	} else {
		require.NoError(g.t, g.rdb.HSet(g.t.Context(), key, id+rest, value).Err())
	}
}

func (g *brokenGraph) edge(member string, id string) {
	require.NoError(g.t, g.rdb.ZAdd(g.t.Context(), g.key(id, "edges"), redis.Z{Member: member}).Err())
}

// What the graph must come to.
var graphEnds = map[string]dianemo.State{"flow": "failed", "a": "succeeded", "b": "succeeded", "join": "succeeded", "bad": "failed", "never": "skipped", "mend": "succeeded",
	"always": "succeeded", "own-p": "succeeded", "own-q": "succeeded", "own-r": "succeeded", "own-after": "succeeded"}

func breakable(t *testing.T, store dianemo.Store, spread bool) *brokenGraph {
	rdb, namespace := suite.Behind(t, store)
	g := &brokenGraph{t: t, store: store, c: suite.Client(t, store), rdb: rdb, namespace: namespace, spread: spread}
	g.flow = submit(t, g.c, plan("etl", spread, "a", "b", "join +a +b", "bad +join", "never +bad", "mend !bad", "always *bad *never"))
	request := func(name string, parents ...dianemo.Parent) dianemo.Request {
		return chore.NewWith(suite.Args{}, dianemo.Options{ID: g.id(name), Parents: parents})
	}
	_, err := g.c.EnqueueMany(t.Context(), request("own-p"), request("own-q", dianemo.After(g.id("own-p"))...), request("own-r", dianemo.AfterEnd(g.id("own-q"), g.id("own-p"))...),
		request("own-after", dianemo.AfterFailure(g.flow)...))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		left := int64(0)
		for p := range store.Partitions() {
			left += rdb.ZCard(t.Context(), fmt.Sprintf("{%s:%d}:outbox", namespace, p)).Val()
		}
		return left == 0
	}, suite.Patience, time.Millisecond, "the workflow's jobs are not told of its gate")
	report, err := g.c.Repair(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Found)
	for _, name := range []string{"a", "own-p"} {
		g.end(g.id(name))
	}
	return g
}

// end runs a job, as a peer that dies before it has told anyone.
func (g *brokenGraph) end(id string) {
	claim := dianemo.Claim{Limit: 100, BeatEvery: 5 * time.Second, SilentAfter: time.Minute}
	for _, grace := range []time.Duration{24 * time.Hour, 25 * time.Hour} { // those of workflows have somewhat longer
		claim.Lanes = append(claim.Lanes, dianemo.ClaimLane{Lane: dianemo.Lane{Kind: "chore", Priority: 2, Grace: grace}, Weight: 1})
	}
	for level := range claim.Room {
		claim.Room[level] = 1000
	}
	call := dianemo.Call{Caller: "dies-" + id, Number: 1}
	reply, err := g.store.Turn(g.t.Context(), g.store.Partition(id), call, nil, claim)
	require.NoError(g.t, err)
	found := false
	var settle []dianemo.Settlement
	for _, job := range reply.Jobs {
		s := dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Unstarted}
		if job.ID == id {
			found, s.Outcome = true, dianemo.Succeed
		}
		settle = append(settle, s)
	}
	require.True(g.t, found, id)
	call.Number++
	_, err = g.store.Turn(g.t.Context(), g.store.Partition(id), call, settle, dianemo.Claim{})
	require.NoError(g.t, err)
}

// What may happen to it.
var graphDamages = map[string]func(g *brokenGraph){
	"nothing":                    func(g *brokenGraph) {},
	"the outbox":                 func(g *brokenGraph) { g.del("outbox") },
	"needs":                      func(g *brokenGraph) { g.del("needs") },
	"needs and the outbox":       func(g *brokenGraph) { g.del("needs", "outbox") },
	"edges":                      func(g *brokenGraph) { g.del("edges") },
	"edges and the outbox":       func(g *brokenGraph) { g.del("edges", "outbox") },
	"kids":                       func(g *brokenGraph) { g.del("kids") },
	"kids and the outbox":        func(g *brokenGraph) { g.del("kids", "outbox") },
	"edges, kids and the outbox": func(g *brokenGraph) { g.del("edges", "kids", "outbox") },
	"gates":                      func(g *brokenGraph) { g.del("gates") },
	"blocked":                    func(g *brokenGraph) { g.del("blocked") },
	"counts":                     func(g *brokenGraph) { g.del("counts") },
	"a child's record":           func(g *brokenGraph) { g.set("meta", "own-q", "", "") },
	"a job's record":             func(g *brokenGraph) { g.set("meta", "join", "", "") },
	"the workflow's record":      func(g *brokenGraph) { g.set("meta", "flow", "", "") },
	"a record and its place":     func(g *brokenGraph) { g.set("meta", "join", "", ""); g.del("blocked") },
	"a child's numbers":          func(g *brokenGraph) { g.set("needs", "own-r", "||", "") },
	"a job's numbers":            func(g *brokenGraph) { g.set("needs", "join", "||", "") },
	"the workflow's numbers":     func(g *brokenGraph) { g.set("needs", "flow", "||", "") },
	"garbage for numbers": func(g *brokenGraph) {
		g.set("needs", "flow", "||", "x")
		g.set("needs", "join", "||", "9,9")
		g.set("needs", "own-r", "||", "1,2,3,4,5")
	},
	"numbers that are off": func(g *brokenGraph) {
		g.set("needs", "flow", "||", "1,0,0,0,0#1")
		g.set("needs", "join", "||", "1,0,0,0,0#1")
		g.set("needs", "own-r", "||", "7,0,0,0,0#1")
	},
	"a condition":           func(g *brokenGraph) { g.set("needs", "own-q", "|:own-p", "") },
	"a job's condition":     func(g *brokenGraph) { g.set("needs", "join", "|:b", "") },
	"a workflow's job":      func(g *brokenGraph) { g.set("needs", "flow", "|:a", "") },
	"garbage for condition": func(g *brokenGraph) { g.set("needs", "own-q", "|:own-p", "x"); g.set("needs", "join", "|:b", "m@") },
	"garbage for a job of a workflow": func(g *brokenGraph) {
		g.set("needs", "flow", "|:a", "\x00")
		g.set("needs", "flow", "|:bad", "s")
	},
	"garbage among edges": func(g *brokenGraph) {
		for _, id := range []string{g.id("a"), g.id("own-p"), g.flow} {
			for _, member := range []string{"x", id + "|a b", id + "|", id + "|||", id + "#\x00", id + "#", "|", "#", id + "|\xff"} {
				g.edge(member, id)
			}
		}
	},
	"the workflow's spec": func(g *brokenGraph) { g.set("spec", "flow", "", "\x00"); g.del("outbox", "kids") },
	"the workflow's spec and numbers": func(g *brokenGraph) {
		g.set("spec", "flow", "", "")
		g.set("needs", "flow", "||", "")
		g.set("needs", "flow", "|:a", "x")
		require.NoError(g.t, g.rdb.ZRem(g.t.Context(), g.key(g.flow, "edges"), g.flow+"#"+g.id("b")).Err())
	},
	// By their names, edges are found only while all have the same score.
	"scores among edges": func(g *brokenGraph) {
		for i, edge := range []string{g.id("a") + "|" + g.id("join"), g.id("own-p") + "|" + g.id("own-q"), g.flow + "#" + g.id("b")} {
			parent := edge[:strings.IndexAny(edge, "|#")]
			require.NoError(g.t, g.rdb.ZAddXX(g.t.Context(), g.key(parent, "edges"), redis.Z{Member: edge, Score: float64(5 - 4*i)}).Err())
		}
	},
	"garbage among kids": func(g *brokenGraph) {
		for _, id := range []string{"x", "a b", "#", ""} {
			require.NoError(g.t, g.rdb.HSet(g.t.Context(), g.key(g.flow, "kids"), id, "").Err())
		}
		for _, id := range []string{g.id("a"), g.id("own-p"), g.id("b")} {
			require.NoError(g.t, g.rdb.HSet(g.t.Context(), g.key(id, "kids"), id, "~").Err())
		}
	},
	"garbage in the outbox": func(g *brokenGraph) {
		for p := range g.store.Partitions() {
			key := fmt.Sprintf("{%s:%d}:outbox", g.namespace, p)
			require.NoError(g.t, g.rdb.Do(g.t.Context(), "ZADD", key, "-inf", "x", "inf", "a b", "1.5", "#", "-7", "gone#", "1e300", "").Err())
		}
	},
	"garbage among needs": func(g *brokenGraph) {
		for _, field := range []string{"x", "|", "||", "a b|c", "gone|gone", ""} {
			require.NoError(g.t, g.rdb.HSet(g.t.Context(), g.key(g.flow, "needs"), field, "s").Err())
		}
	},
	"strangers among the blocked and the gates": func(g *brokenGraph) {
		for _, key := range []string{"blocked", "gates"} {
			for _, id := range []string{g.id("a"), g.id("own-p"), g.flow + "@gone"} {
				require.NoError(g.t, g.rdb.ZAdd(g.t.Context(), g.key(id, key), redis.Z{Member: id, Score: 1e13}).Err())
			}
		}
	},
	"another type of each": func(g *brokenGraph) {
		g.twice = true
		for _, key := range []string{"needs", "edges", "kids", "gates", "outbox", "blocked"} {
			g.del(key)
			require.NoError(g.t, g.rdb.Set(g.t.Context(), g.key(g.flow, key), "x", 0).Err())
		}
	},
}

// mend repairs until there is nothing more to be found.
func (g *brokenGraph) mend() (found []dianemo.Repaired) {
	for range 6 {
		report, err := g.c.Repair(g.t.Context())
		require.NoError(g.t, err)
		found = append(found, report.Found...)
		if len(report.Found) == 0 {
			return found
		}
	}
	require.Fail(g.t, "repair finds something for ever", "%v", found[max(len(found)-20, 0):])
	return nil
}

// run runs the graph to its end, and returns what it came to, and who started too early.
func (g *brokenGraph) run(config dianemo.Config) (map[string]dianemo.State, []string) {
	early := make(chan string, 100)
	after := map[string][]string{"join": {"a", "b"}, "bad": {"join"}, "mend": {"bad"}, "always": {"bad", "never"}, "own-q": {"own-p"}, "own-r": {"own-p", "own-q"}, "own-after": {"flow"}}
	parents := map[string][]string{}
	for name, all := range after {
		for _, p := range all {
			parents[g.id(name)] = append(parents[g.id(name)], g.id(p))
		}
	}
	suite.Start(g.t, g.store, config, func(p *dianemo.Peer) {
		require.NoError(g.t, chore.Handle(p, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
			for _, p := range parents[job.ID] {
				if info, err := g.c.Get(ctx, p); err != nil || !info.State.Finished() {
					early <- job.ID + " before " + p
				}
			}
			if job.Name == "bad" {
				return fails(ctx, job)
			}
			return nil
		}))
	})
	states := map[string]dianemo.State{}
	for name := range graphEnds {
		ctx, cancel := context.WithTimeout(g.t.Context(), suite.Patience)
		info, err := g.c.Wait(ctx, g.id(name))
		cancel()
		require.NoError(g.t, err, name)
		states[name] = info.State
		if info.Reason == "corrupt" {
			states[name] = "corrupt"
		}
	}
	if g.twice && states["flow"] == "corrupt" {
		states["flow"] = dianemo.Failed
	}
	close(early)
	var all []string
	for e := range early {
		all = append(all, e)
	}
	return states, all
}

func TestAGraphEndsAsItMustOnceItIsRepaired_Long(t *testing.T) {
	t.Parallel()
	for name, damage := range graphDamages {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for _, way := range sample.Rows(t, []struct{ embedded, spread bool }{{true, false}, {true, true}, {false, false}, {false, true}}, 4) {
				t.Run(fmt.Sprintf("embedded=%v/spread=%v", way.embedded, way.spread), func(t *testing.T) {
					t.Parallel()
					var store dianemo.Store = suite.Redis(t, suite.Server.Client(t), 4)
					if way.embedded {
						store = suite.Embedded(t, 1)
					}
					g := breakable(t, store, way.spread)
					damage(g)
					found := g.mend()
					if name == "nothing" {
						require.Empty(t, found)
					}
					states, early := g.run(dianemo.Config{})
					require.Empty(t, early)
					require.Equal(t, graphEnds, states, "%v", found)
					require.Empty(t, g.mend())
				})
			}
		})
	}
}

// Nobody can know any more whom it waited for, so nothing but repair could end it.
func TestABlockedJobWhoseSpecCanNotBeReadEndsWhoeverKnowsOfIt_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		for _, spec := range []string{"\x00", "", "1cut"} {
			g := breakable(t, store, true)
			g.set("spec", "own-q", "", spec)
			g.set("spec", "join", "", spec)
			g.set("spec", "own-after", "", "2 of a newer program")
			// It was not told of the gate of its workflow either.
			require.NoError(t, g.rdb.HSet(t.Context(), g.key(g.id("mend"), "needs"), g.id("mend")+"|", "g").Err())
			g.set("spec", "mend", "", spec)
			g.del("kids", "edges", "outbox")
			require.Contains(t, fmt.Sprint(g.mend()), "its spec can not be read")
			for _, name := range []string{"own-q", "join", "mend"} {
				info, err := g.c.Get(t.Context(), g.id(name))
				require.NoError(t, err)
				require.Equal(t, []any{dianemo.Skipped, "corrupt"}, []any{info.State, info.Reason}, name)
			}
			for _, name := range []string{"flow", "own-after"} {
				info, err := g.c.Get(t.Context(), g.id(name))
				require.NoError(t, err)
				require.Equal(t, dianemo.Blocked, info.State, "%s needs no spec, or is a newer program's", name)
			}
			require.Empty(t, g.mend())
		}
	})
}

// Whoever was to open a gate may have died, and the note of until when it may stay closed be lost.
func TestAGateOfWhichNothingIsNotedIsNotedAgain_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		rdb, namespace := suite.Behind(t, store)
		c := suite.Client(t, store)
		parent := suite.Enqueue(t, c, chore, dianemo.Options{})
		child := suite.Enqueue(t, c, chore, dianemo.Options{Parents: dianemo.After(parent)})
		g := &brokenGraph{t: t, store: store, c: c, rdb: rdb, namespace: namespace}
		needs, gates := g.key(child, "needs"), g.key(child, "gates")
		_, by, _ := strings.Cut(rdb.HGet(t.Context(), needs, child+"||").Val(), "#")
		close := func() {
			require.NoError(t, rdb.HSet(t.Context(), needs, child+"|", "g", child+"||", "2,0,0,0,0#"+by).Err())
		}
		close()
		require.Len(t, g.mend(), 1)
		until := time.UnixMilli(int64(rdb.ZScore(t.Context(), gates, child).Val()))
		require.WithinRange(t, until, time.Now().Add(5*time.Minute), time.Now().Add(15*time.Minute))
		require.Equal(t, dianemo.Blocked, suite.Get(t, c, child).State)
		// It is nobody's gate any more.
		require.NoError(t, rdb.HDel(t.Context(), needs, child+"|").Err())
		require.NoError(t, rdb.HSet(t.Context(), needs, child+"||", "1,0,0,0,0#"+by).Err())
		require.Len(t, g.mend(), 1)
		require.Zero(t, rdb.ZCard(t.Context(), gates).Val())
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, chore.Handle(p, (&script{}).run)) })
		require.Equal(t, dianemo.Succeeded, suite.Ends(t, c, child))
	})
}

// Where a peer meets the damage before repair does, what can't be read is set aside, and
// what depends on it ends, too.
func TestABrokenGraphEndsAlthoughNobodyAsksForARepair_Long(t *testing.T) {
	t.Parallel()
	for _, name := range sample.Rows(t, slices.Sorted(maps.Keys(graphDamages)), 4) {
		damage := graphDamages[name]
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			store := suite.Redis(t, suite.Server.Client(t), 4)
			g := breakable(t, store, true)
			damage(g)
			states, early := g.run(dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Second, SilentAfter: time.Minute})
			require.Empty(t, early)
			if !slices.Contains([]string{"garbage for numbers", "numbers that are off", "a child's numbers", "a job's numbers", "the workflow's numbers", "the workflow's spec and numbers", "garbage for condition",
				"garbage for a job of a workflow"}, name) {
				require.Equal(t, graphEnds, states)
			}
		})
	}
}

// While workflows and families are submitted, run, fail, are cancelled and resumed, repair finds nothing.
func TestRepairFindsNothingAmongGraphsThatRun_Long(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			t.Parallel()
			store := suite.Redis(t, suite.Server.Client(t), partitions)
			c := suite.Client(t, store)
			config := dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Minute, SilentAfter: time.Minute,
				Hooks: &dianemo.Hooks{Repair: func(i dianemo.RepairInfo) { t.Errorf("the leader repaired: %v", i.Repaired) }}}
			for range 2 {
				suite.Start(t, store, config, func(p *dianemo.Peer) {
					require.NoError(t, chore.Handle(p, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
						if job.Name == "bad" {
							return fails(t.Context(), job)
						}
						return nil
					}))
				})
			}
			stop, walks := make(chan struct{}), 0
			var under sync.WaitGroup
			under.Go(func() {
				for {
					report, err := c.Repair(t.Context())
					if err != nil || len(report.Found) > 0 {
						t.Errorf("%v %v", report.Found, err)
					}
					walks++
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			var work sync.WaitGroup
			rounds := sample.Part(t, 15, 5)
			for w := range 4 {
				work.Go(func() {
					own := suite.Client(t, store)
					for i := range rounds {
						wf := plan("etl", i%2 == 0, "a", "b", "join +a +b", "bad +join", "never +bad", "mend !bad", "always *bad *never")
						id, err := own.Submit(t.Context(), wf)
						if err != nil {
							t.Error(err)
							return
						}
						child := fmt.Sprintf("child-%d-%d", w, i)
						_, err = own.EnqueueMany(t.Context(), chore.NewWith(suite.Args{}, dianemo.Options{ID: child, Parents: dianemo.AfterEnd(id)}),
							chore.NewWith(suite.Args{}, dianemo.Options{Parents: dianemo.After(child)}), chore.NewWith(suite.Args{}, dianemo.Options{Parents: dianemo.AfterFailure(child)}))
						if err != nil {
							t.Error(err)
						}
						if i%3 == 0 {
							_ = own.Cancel(t.Context(), id) // it may have ended
						}
						if _, err := own.Wait(t.Context(), id); err != nil {
							t.Error(err)
						}
						if i%3 != 1 {
							if _, err := own.ResumeWorkflow(t.Context(), id); err != nil {
								t.Error(err)
							}
						}
						if _, err := own.Wait(t.Context(), child); err != nil {
							t.Error(err)
						}
					}
				})
			}
			work.Wait()
			close(stop)
			under.Wait()
			require.Positive(t, walks)
		})
	}
}

// Once workflows and their jobs are let go of, in whatever order, nothing is left of them.
func TestNothingIsLeftOfWorkflowsThatAreLetGoOf_Long(t *testing.T) {
	t.Parallel()
	for _, spread := range []bool{false, true} {
		t.Run(fmt.Sprintf("spread=%v", spread), func(t *testing.T) {
			t.Parallel()
			store := suite.Redis(t, suite.Server.Client(t), 4)
			c := suite.Client(t, store)
			keep := dianemo.Keep{}
			for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Skipped, dianemo.Cancelled} {
				keep[state] = dianemo.Retention{Jobs: dianemo.None}
			}
			require.NoError(t, store.Open(t.Context()))
			var flows []string
			for range sample.Part(t, 50, 5) {
				flows = append(flows, submit(t, c, plan("etl", spread, "a", "b +a", "bad +b", "never +bad", "mend !bad", "always *bad *never")))
			}
			suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, Lease: time.Minute, SilentAfter: time.Minute,
				Hooks: &dianemo.Hooks{Repair: func(i dianemo.RepairInfo) { t.Errorf("left to repair: %v", i.Repaired) }}}, func(p *dianemo.Peer) {
				require.NoError(t, chore.Handle(p, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
					if job.Name == "bad" {
						return fails(ctx, job)
					}
					return nil
				}))
			})
			for _, id := range flows {
				require.Equal(t, dianemo.Failed, suite.Ends(t, c, id))
			}
			require.NoError(t, store.Declare(t.Context(), map[string]dianemo.Keep{"chore": keep, "workflow/etl": keep}, true))
			rdb, namespace := suite.Behind(t, store)
			left := func() (all []string) {
				for p := range store.Partitions() {
					for _, name := range []string{"spec", "meta", "needs", "edges", "kids", "gates", "blocked", "outbox", "errors"} {
						if key := fmt.Sprintf("{%s:%d}:%s", namespace, p, name); rdb.Exists(t.Context(), key).Val() > 0 {
							all = append(all, key)
						}
					}
				}
				return all
			}
			require.Eventually(t, func() bool { return len(left()) == 0 }, suite.Patience, 20*time.Millisecond, "%v", left())
		})
	}
}
