// Package sample gives a test two forms: a short one for make test, which takes
// a part of its rows or steps, and a long one for make check, which takes all.
//
// The name of such a test ends in _Long. That is how make check finds it, so the
// functions of this package fail a test that has another name.
package sample

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	longVariable = "DIANEMO_LONG" // not empty: the long form
	seedVariable = "DIANEMO_SEED" // of what is picked; without it, each process picks anew
)

// Long reports whether the test is to run in its long form.
func Long(tb testing.TB) bool {
	tb.Helper()
	if name, _, _ := strings.Cut(tb.Name(), "/"); !strings.HasSuffix(name, "_Long") {
		tb.Fatalf("%s has a long form, so its name must end in _Long", name)
	}
	return os.Getenv(longVariable) != ""
}

// Part is n in the long form and otherwise the part-th part of it, but at least 1.
func Part(tb testing.TB, n, part int) int {
	tb.Helper()
	if Long(tb) {
		return n
	}
	return max((n+part-1)/part, 1)
}

// Rows returns all rows in the long form. Otherwise it picks the part-th part of
// them, rounded up, in their order.
func Rows[T any](tb testing.TB, rows []T, part int) []T {
	tb.Helper()
	n := Part(tb, len(rows), part)
	if n >= len(rows) {
		return rows
	}
	indexes := Rand(tb).Perm(len(rows))[:n]
	slices.Sort(indexes)
	picked := make([]T, n)
	for i, index := range indexes {
		picked[i] = rows[index]
	}
	return picked
}

// Rand is a source for what a test picks. Tests of other names pick otherwise by
// the same seed, whatever runs beside them.
func Rand(tb testing.TB) *rand.Rand {
	tb.Helper()
	name := fnv.New64a()
	_, _ = name.Write([]byte(tb.Name())) // which never fails
	return rand.New(rand.NewPCG(Seed(tb), name.Sum64()))
}

// Seed is what DIANEMO_SEED says, or one that this process has picked. The test's log has it.
func Seed(tb testing.TB) uint64 {
	tb.Helper()
	seed, err := processSeed()
	if err != nil {
		tb.Fatalf("%s: %v", seedVariable, err)
	}
	tb.Logf("%s=%d picks what this test runs", seedVariable, seed)
	return seed
}

var processSeed = sync.OnceValues(func() (uint64, error) {
	if text := os.Getenv(seedVariable); text != "" {
		return strconv.ParseUint(text, 10, 64)
	}
	return rand.Uint64(), nil
})
