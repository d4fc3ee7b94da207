//go:build race

package dianemo_test

// raced says that all is several times slower.
const raced = true
