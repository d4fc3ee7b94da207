package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A took is how long a test took. Of those below one top-level test, it is the slowest one:
// the time of a test that has parallel sub-tests leaves them out.
type took struct {
	pkg, test string
	seconds   float64
}

// A name is that of a top-level test.
type name struct{ pkg, test string }

// times are of one run, or of several.
type times struct {
	tests    map[name]took
	packages map[string]float64
}

func (t *times) take(e event) {
	if e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
		return
	}
	switch {
	case e.Test == "":
		if t.packages == nil {
			t.packages = map[string]float64{}
		}
		t.packages[e.Package] += e.Elapsed
	default:
		if t.tests == nil {
			t.tests = map[name]took{}
		}
		top, _, _ := strings.Cut(e.Test, "/")
		if of := (name{e.Package, top}); e.Elapsed >= t.tests[of].seconds {
			t.tests[of] = took{e.Package, e.Test, e.Elapsed}
		}
	}
}

// print lists the slowest tests, at most so many, and all packages, the slowest first.
func (t *times) print(w io.Writer, most int) {
	slower := func(a, b took) int {
		return cmp.Or(cmp.Compare(b.seconds, a.seconds), strings.Compare(a.pkg, b.pkg), strings.Compare(a.test, b.test))
	}
	tests := slices.SortedFunc(maps.Values(t.tests), slower)
	for _, test := range tests[:min(most, len(tests))] {
		fmt.Fprintf(w, "%8.2f  %s  %s\n", test.seconds, test.pkg, test.test)
	}
	fmt.Fprintln(w)
	var packages []took
	for pkg := range maps.Keys(t.packages) {
		packages = append(packages, took{pkg, "", t.packages[pkg]})
	}
	slices.SortFunc(packages, slower)
	for _, pkg := range packages {
		fmt.Fprintf(w, "%8.2f  %s\n", pkg.seconds, pkg.pkg)
	}
}
