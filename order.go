package dianemo

import "slices"

// order puts nodes in an order in which each comes after its parents: parents[i] are
// those of node i. Where there is none it returns a cycle instead: each waits for the one
// before it, and the first for the last. A node that is its own parent is a cycle of one.
func order(parents [][]int) (sorted, cycle []int) {
	const under, done = 1, 2
	marks := make([]uint8, len(parents))
	sorted = make([]int, 0, len(parents))
	type step struct{ node, next int } // next of its parents
	var stack []step                   // each but the first is a parent of the one below it; chains are too long to recurse
	for start := range parents {
		if marks[start] == done {
			continue
		}
		marks[start] = under
		stack = append(stack, step{start, 0})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next == len(parents[top.node]) {
				marks[top.node] = done
				sorted = append(sorted, top.node)
				stack = stack[:len(stack)-1]
				continue
			}
			parent := parents[top.node][top.next]
			top.next++
			switch marks[parent] {
			case under:
				first := slices.IndexFunc(stack, func(s step) bool { return s.node == parent })
				for _, s := range slices.Backward(stack[first:]) {
					cycle = append(cycle, s.node)
				}
				return nil, cycle
			case done:
			default:
				marks[parent] = under
				stack = append(stack, step{parent, 0})
			}
		}
	}
	return sorted, nil
}

// remaining is, for each node, how many are on the longest path from it to a node without
// children, itself included. It takes parents and an order as [order] has them.
func remaining(parents [][]int, order []int) []int {
	longest := make([]int, len(parents))
	for _, node := range slices.Backward(order) {
		longest[node]++ // all of its children have been here
		for _, parent := range parents[node] {
			longest[parent] = max(longest[parent], longest[node])
		}
	}
	return longest
}
