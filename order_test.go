package dianemo

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/graph/path"
	"gonum.org/v1/gonum/graph/simple"
	"gonum.org/v1/gonum/graph/topo"

	"github.com/dianemo/dianemo/internal/sample"
)

// randomParents is a graph of up to 200 nodes, sparse or dense. Where loops is 0 it has no
// cycle; else so many of its edges go any way, also from a node to itself, or are there
// twice.
func randomParents(rng *rand.Rand, loops int) [][]int {
	n := rng.IntN(201)
	parents := make([][]int, n)
	if n == 0 {
		return parents
	}
	place := rng.Perm(n) // so that the indices tell nothing of the order
	for range rng.IntN(1 + n*(1+rng.IntN(8))) {
		a, b := rng.IntN(n), rng.IntN(n)
		if a != b {
			child, parent := place[max(a, b)], place[min(a, b)]
			parents[child] = append(parents[child], parent)
		}
	}
	for range loops {
		child := rng.IntN(n)
		parents[child] = append(parents[child], rng.IntN(n))
	}
	return parents
}

// gonumGraph is the same graph as gonum has it, from parents to children. It has no edges
// from a node to itself, so ownParent says whether there is one.
func gonumGraph(parents [][]int) (g *simple.DirectedGraph, ownParent bool) {
	g = simple.NewDirectedGraph()
	for i := range parents {
		g.AddNode(simple.Node(i))
	}
	for child, all := range parents {
		for _, parent := range all {
			if parent == child {
				ownParent = true
				continue
			}
			g.SetEdge(simple.Edge{F: simple.Node(parent), T: simple.Node(child)})
		}
	}
	return g, ownParent
}

// longestPaths asks gonum: the shortest paths from a node above all sinks, towards
// parents, where each edge weighs -1.
func longestPaths(t *testing.T, parents [][]int) []int {
	g := simple.NewWeightedDirectedGraph(0, math.Inf(1))
	above := simple.Node(len(parents))
	g.AddNode(above)
	sinks := make([]bool, len(parents))
	for i := range sinks {
		sinks[i] = true
	}
	for child, all := range parents {
		for _, parent := range all {
			sinks[parent] = false
			g.SetWeightedEdge(simple.WeightedEdge{F: simple.Node(child), T: simple.Node(parent), W: -1})
		}
	}
	for i, sink := range sinks {
		if sink {
			g.SetWeightedEdge(simple.WeightedEdge{F: above, T: simple.Node(i), W: -1})
		}
	}
	shortest, ok := path.BellmanFordFrom(above, g)
	require.True(t, ok)
	longest := make([]int, len(parents))
	for i := range longest {
		longest[i] = -int(shortest.WeightTo(int64(i)))
	}
	return longest
}

// checkOrder compares with gonum what order and remaining say of a graph, and reports
// whether there was an order.
func checkOrder(t *testing.T, parents [][]int) bool {
	sorted, cycle := order(parents)
	g, ownParent := gonumGraph(parents)
	_, err := topo.Sort(g)
	require.Equal(t, err == nil && !ownParent, cycle == nil)
	if cycle != nil {
		require.Nil(t, sorted)
		checkCycle(t, g, parents, cycle)
		return false
	}

	require.Len(t, sorted, len(parents))
	came := make([]bool, len(parents))
	for _, node := range sorted {
		if came[node] {
			require.Fail(t, "a node is there twice", "%d", node)
		}
		came[node] = true
		for _, parent := range parents[node] {
			if !came[parent] {
				require.Fail(t, "a node comes before its parent", "%d before %d", node, parent)
			}
		}
	}
	longest := longestPaths(t, parents)
	for node, got := range remaining(parents, sorted) {
		if got != longest[node] {
			require.Fail(t, "another length", "from node %d: %d instead of %d", node, got, longest[node])
		}
	}
	return true
}

// checkCycle wants each to wait for the one before it, the first for the last, none twice,
// and all in one strongly connected component.
func checkCycle(t *testing.T, g *simple.DirectedGraph, parents [][]int, cycle []int) {
	component := make([]int, len(parents))
	for i, nodes := range topo.TarjanSCC(g) {
		for _, node := range nodes {
			component[node.ID()] = i
		}
	}
	seen := make([]bool, len(parents))
	before := cycle[len(cycle)-1]
	for _, node := range cycle {
		require.False(t, seen[node], "node %d is there twice", node)
		seen[node] = true
		require.True(t, slices.Contains(parents[node], before), "%d does not wait for %d", node, before)
		require.Equal(t, component[before], component[node])
		before = node
	}
}

// seeds are those of a test of n random cases, or a tenth of them in its short form.
func seeds(t *testing.T, n int) []uint64 {
	t.Helper()
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i)
	}
	return sample.Rows(t, all, 10)
}

func TestOrdersAndCyclesOfRandomGraphsAreThoseOfGonum_Long(t *testing.T) {
	t.Parallel()
	cyclic := 0
	for _, seed := range seeds(t, 600) {
		rng := rand.New(rand.NewPCG(seed, 5))
		loops := 0
		if seed%2 == 1 {
			loops = 1 + rng.IntN(20)
		}
		ordered := checkOrder(t, randomParents(rng, loops))
		require.True(t, ordered || loops > 0, "seed %d", seed)
		if !ordered {
			cyclic++
		}
	}
	require.Greater(t, cyclic, sample.Part(t, 100, 100)) // or the test tries too few
}

func TestAGraphMayBeVeryLongOrVeryWide_Long(t *testing.T) {
	t.Parallel()
	n := sample.Part(t, 100_000, 10)
	long, wide := make([][]int, n), make([][]int, n)
	for i := range n - 1 {
		long[i] = []int{i + 1} // the first is the last to come, so that all are on the stack
		wide[i+1] = []int{0}
	}
	for i := range n - 2 {
		wide[n-1] = append(wide[n-1], i+1)
	}
	require.True(t, checkOrder(t, long))
	require.True(t, checkOrder(t, wide))

	long[n-1], wide[0] = []int{0}, []int{n - 1}
	_, cycle := order(long)
	require.Len(t, cycle, n)
	require.False(t, checkOrder(t, long))
	require.False(t, checkOrder(t, wide))
}

func TestACycleIsToldInTheOrderInWhichItsNodesWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parents       [][]int
		sorted, cycle []int
	}{
		{nil, []int{}, nil},
		{[][]int{nil}, []int{0}, nil},
		{[][]int{{0}}, nil, []int{0}},
		{[][]int{{1}, {2}, nil}, []int{2, 1, 0}, nil},
		{[][]int{{1, 1}, nil}, []int{1, 0}, nil},
		{[][]int{{1}, {2}, {3}, {1}}, nil, []int{3, 2, 1}}, // 0 only waits for them
	} {
		sorted, cycle := order(c.parents)
		require.Equal(t, c.sorted, sorted, c.parents)
		require.Equal(t, c.cycle, cycle, c.parents)
	}
}
