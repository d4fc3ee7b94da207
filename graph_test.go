package dianemo

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/graph"
	"gonum.org/v1/gonum/graph/encoding"
	"gonum.org/v1/gonum/graph/encoding/dot"
	"gonum.org/v1/gonum/graph/simple"
)

// A drawing is what gonum reads in a text of DOT.
type drawing struct {
	*simple.DirectedGraph
	name string
}

type drawnNode struct {
	graph.Node
	attributes
	id string
}

type drawnEdge struct {
	graph.Edge
	attributes
}

type attributes map[string]string

func (a attributes) SetAttribute(attribute encoding.Attribute) error {
	a[attribute.Key] = attribute.Value
	return nil
}

func (n *drawnNode) SetDOTID(id string) { n.id = id }

func (d *drawing) SetDOTID(id string) { d.name = id }

func (d *drawing) NewNode() graph.Node {
	return &drawnNode{Node: d.DirectedGraph.NewNode(), attributes: attributes{}}
}

func (d *drawing) NewEdge(from, to graph.Node) graph.Edge {
	return &drawnEdge{Edge: d.DirectedGraph.NewEdge(from, to), attributes: attributes{}}
}

// read gives the nodes by name, and the edges by parent and child.
func read(t *testing.T, text string) (name string, nodes map[string]attributes, edges map[[2]string]attributes) {
	d := &drawing{DirectedGraph: simple.NewDirectedGraph()}
	require.NoError(t, dot.Unmarshal([]byte(text), d), text)
	nodes, edges = map[string]attributes{}, map[[2]string]attributes{}
	for _, n := range graph.NodesOf(d.Nodes()) {
		nodes[n.(*drawnNode).id] = n.(*drawnNode).attributes
	}
	require.Len(t, nodes, d.Nodes().Len())
	for _, e := range graph.EdgesOf(d.Edges()) {
		edges[[2]string{e.From().(*drawnNode).id, e.To().(*drawnNode).id}] = e.(*drawnEdge).attributes
	}
	return d.name, nodes, edges
}

// hardNames are words and numbers of DOT, what it would take for an operator or for
// another name, and what no job is called but nothing here forbids.
var hardNames = []string{"node", "Edge", "graph", "digraph", "subgraph", "strict", "1", "-.5", "1a", "a-b", "a/b", "a@b", "a+b", "--", ".", "_", "N", "n",
	"a", "A", `a"b`, `a\`, `\N`, `\n`, `\"`, `"`, "a; b -> c", "ä", "[label=x]", "a:n", "//", "#"}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/@+"

func randomName(rng *rand.Rand) string {
	if rng.IntN(3) == 0 {
		return hardNames[rng.IntN(len(hardNames))]
	}
	name := make([]byte, 1+rng.IntN(MaxName))
	for i := range name {
		name[i] = nameChars[rng.IntN(len(nameChars))]
	}
	return string(name)
}

var allStates = []State{Blocked, Scheduled, Queued, Retrying, Running, Succeeded, Failed, Missed, Unreachable, Cancelled, Skipped, ""}

func randomGraph(rng *rand.Rand) *Graph {
	g := &Graph{ID: randomName(rng), Name: randomName(rng), State: allStates[rng.IntN(len(allStates))]}
	seen := map[string]bool{}
	for range rng.IntN(40) {
		job := GraphJob{Name: randomName(rng), ID: randomName(rng), State: allStates[rng.IntN(len(allStates))]}
		if rng.IntN(4) > 0 {
			job.Kind = randomName(rng)
		}
		if rng.IntN(4) == 0 {
			job.Reason = "error"
		}
		if !seen[job.Name] {
			seen[job.Name] = true
			g.Jobs = append(g.Jobs, job)
		}
	}
	slices.SortFunc(g.Jobs, func(a, b GraphJob) int { return strings.Compare(a.Name, b.Name) })
	for child := range g.Jobs {
		parents := map[string]bool{}
		for range rng.IntN(4) {
			if child > 0 {
				parents[g.Jobs[rng.IntN(child)].Name] = true
			}
			if outside := randomName(rng); !seen[outside] && rng.IntN(4) == 0 {
				parents[outside] = true
			}
		}
		for parent := range parents {
			on := []Condition{OnSuccess, OnFailure, OnEnd, OnChosen}[rng.IntN(4)]
			g.Edges = append(g.Edges, GraphEdge{Parent: parent, Child: g.Jobs[child].Name, On: on})
		}
	}
	slices.SortFunc(g.Edges, func(a, b GraphEdge) int {
		return strings.Compare(a.Child+"\x00"+a.Parent, b.Child+"\x00"+b.Parent)
	})
	return g
}

func TestWhatIsDrawnHasTheNodesAndEdgesOfTheGraphWhateverTheirNames_Long(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t, 300) {
		g := randomGraph(rand.New(rand.NewPCG(seed, 6)))
		text := g.DOT()
		require.Equal(t, text, g.DOT(), "seed %d", seed)
		name, nodes, edges := read(t, text)
		require.Equal(t, g.Name, name)

		wantNodes := map[string]attributes{}
		for _, edge := range g.Edges {
			wantNodes[edge.Parent] = attributes{"shape": "plaintext", "style": "solid"}
		}
		for _, job := range g.Jobs {
			label, want := job.Name, attributes{"fillcolor": fills[job.State]}
			if job.Kind != "" {
				label += "\n" + job.Kind
			}
			if job.State == "" {
				label, want["style"] = label+"\ngone", "rounded,filled,dashed"
			} else {
				label += "\n" + string(job.State)
			}
			want["label"] = label
			wantNodes[job.Name] = want
		}
		require.Equal(t, wantNodes, nodes, "seed %d", seed)

		wantEdges := map[[2]string]attributes{}
		for _, edge := range g.Edges {
			wantEdges[[2]string{edge.Parent, edge.Child}] = map[Condition]attributes{
				OnSuccess: {}, OnFailure: {"style": "dashed", "color": "red"}, OnEnd: {"style": "dotted"}, OnChosen: {"style": "dashed"},
			}[edge.On]
		}
		require.Equal(t, wantEdges, edges, "seed %d", seed)
	}
}

// One job in each state, one edge of each condition, and one parent from elsewhere.
var nightly = Graph{
	ID: "nightly-7", Name: "nightly", State: Running,
	Jobs: []GraphJob{
		{Name: "archive", ID: "nightly-7@archive", Kind: "files.archive", State: Queued},
		{Name: "audit", ID: "nightly-7@audit", Kind: "books.audit", State: Missed, Reason: "grace"},
		{Name: "choose", ID: "nightly-7@choose", Kind: "books.choose", State: Retrying, Reason: "error"},
		{Name: "clean", ID: "nightly-7@clean", Kind: "files.clean", State: Scheduled},
		{Name: "download", ID: "nightly-7@download"},
		{Name: "extract", ID: "nightly-7@extract", Kind: "rows.extract", State: Succeeded},
		{Name: "index", ID: "nightly-7@index", Kind: "rows.index", State: Unreachable, Reason: "silent"},
		{Name: "load", ID: "nightly-7@load", Kind: "rows.load", State: Failed, Reason: "timeout"},
		{Name: "mail", ID: "nightly-7@mail", Kind: "mail.send", State: Skipped, Reason: "parent"},
		{Name: "mend", ID: "nightly-7@mend", Kind: "rows.mend", State: Running},
		{Name: "preview", ID: "nightly-7@preview", Kind: "rows.preview", State: Cancelled, Reason: "cancel"},
		{Name: "report", ID: "nightly-7@report", Kind: "books.report", State: Blocked},
	},
	Edges: []GraphEdge{
		{"extract", "archive", OnEnd},
		{"extract", "audit", OnSuccess},
		{"extract", "choose", OnSuccess},
		{"archive", "clean", OnEnd},
		{"download", "extract", OnSuccess},
		{"rates@20260131T073000Z", "extract", OnSuccess},
		{"extract", "index", OnSuccess},
		{"extract", "load", OnSuccess},
		{"load", "mail", OnSuccess},
		{"load", "mend", OnFailure},
		{"extract", "preview", OnSuccess},
		{"choose", "report", OnChosen},
		{"mend", "report", OnSuccess},
	},
}

func TestAGraphIsDrawnAsInTheGoldenFile(t *testing.T) {
	t.Parallel()
	const file = "testdata/graph.dot"
	got := nightly.DOT()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestAnEmptyGraphIsDrawnEmpty(t *testing.T) {
	t.Parallel()
	name, nodes, edges := read(t, new(Graph).DOT())
	require.Empty(t, name)
	require.Empty(t, nodes)
	require.Empty(t, edges)
}

// The state table and what readers see besides have all states there are.
func TestEachStateHasAColourOfItsOwnOnWhichBlackIsLegible(t *testing.T) {
	t.Parallel()
	states := []State{Queued, Retrying}
	for state := range Edges {
		states = append(states, state)
	}
	require.ElementsMatch(t, allStates, states)
	require.Len(t, fills, len(states))
	owners := map[string]State{}
	for _, state := range states {
		fill, has := fills[state]
		require.True(t, has, state)
		require.NotContains(t, owners, fill, state)
		owners[fill] = state
		require.GreaterOrEqual(t, contrastToBlack(t, fill), 7.0, state)
	}
}

// contrastToBlack is the contrast ratio of WCAG 2.1; it asks for 7 at level AAA.
func contrastToBlack(t *testing.T, fill string) float64 {
	luminance := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		var channel int
		_, err := fmt.Sscanf(fill[1+2*i:3+2*i], "%02x", &channel)
		require.NoError(t, err)
		c := float64(channel) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		luminance += weight * c
	}
	return (luminance + 0.05) / 0.05
}

func TestAStateThatIsNotKnownIsDrawnWhiteAndByItsName(t *testing.T) {
	t.Parallel()
	_, nodes, _ := read(t, (&Graph{Jobs: []GraphJob{{Name: "a", Kind: "kind", State: "dreaming"}}}).DOT())
	require.Equal(t, map[string]attributes{"a": {"label": "a\nkind\ndreaming", "fillcolor": "#ffffff"}}, nodes)
}

func TestAGraphIsReadBackFromItsJSON(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		g := randomGraph(rand.New(rand.NewPCG(seed, 7)))
		text, err := json.Marshal(g)
		require.NoError(t, err)
		var back Graph
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, *g, back, "seed %d", seed)
	}
	text, err := json.Marshal(Graph{"nightly-7", "nightly", Running,
		[]GraphJob{{"load", "nightly-7@load", "rows.load", Failed, "timeout"}, {"gone", "nightly-7@gone", "", "", ""}},
		[]GraphEdge{{"gone", "load", OnChosen}}})
	require.NoError(t, err)
	require.JSONEq(t, `{"id": "nightly-7", "name": "nightly", "state": "running", "jobs": [
		{"name": "load", "id": "nightly-7@load", "kind": "rows.load", "state": "failed", "reason": "timeout"},
		{"name": "gone", "id": "nightly-7@gone", "kind": "", "state": ""}],
		"edges": [{"parent": "gone", "child": "load", "on": "chosen"}]}`, string(text))
}
