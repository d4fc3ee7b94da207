// Package history is what the processes of a torture test write down, and the checker that holds
// it, and the final state, against what is promised.
package history
