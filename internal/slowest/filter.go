package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A filter prints of a run what a person wants to see: a line for each package, all that
// failed tests and builds have said, and how many tests passed and failed.
type filter struct {
	w                       io.Writer
	running                 map[string]*running // by package
	passed, failed, skipped int
}

// A running package has begun and has no result yet.
type running struct {
	said   map[string][]string // by test that has no result yet; "" is the package
	failed bool                // one of its tests did
}

func newFilter(w io.Writer) *filter { return &filter{w: w, running: map[string]*running{}} }

func (f *filter) take(e event, line []byte) {
	switch e.Action {
	case "": // no event
		fmt.Fprintf(f.w, "%s\n", strings.TrimRight(string(line), "\r\n"))
		return
	case "build-output":
		fmt.Fprint(f.w, e.Output)
		return
	}
	if e.Package == "" {
		return // "build-fail": the packages that need it fail
	}
	pkg := f.running[e.Package]
	if pkg == nil {
		pkg = &running{said: map[string][]string{}}
		f.running[e.Package] = pkg
	}
	switch {
	case e.Action == "output":
		if e.Test == "" || !marks(e.Output) {
			pkg.said[e.Test] = append(pkg.said[e.Test], e.Output)
		}
	case e.Action == "run":
		pkg.said[e.Test] = nil
	case e.Action != "pass" && e.Action != "fail" && e.Action != "skip":
	case e.Test == "":
		f.ended(e, pkg)
	default:
		switch e.Action {
		case "pass":
			f.passed++
		case "skip":
			f.skipped++
		case "fail":
			f.fails(pkg, e.Test)
		}
		delete(pkg.said, e.Test)
	}
}

// marks reports whether a line only says which test goes on.
func marks(line string) bool {
	for _, mark := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME "} {
		if strings.HasPrefix(line, mark) {
			return true
		}
	}
	return false
}

func (f *filter) fails(pkg *running, test string) {
	f.failed++
	pkg.failed = true
	f.print(pkg.said[test])
}

func (f *filter) print(said []string) {
	text := strings.Join(said, "")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	fmt.Fprint(f.w, text)
}

// ended takes a package's result. What has none of its tests fails. A package that fails
// without any of its tests is counted as one.
func (f *filter) ended(e event, pkg *running) {
	delete(f.running, e.Package)
	own := pkg.said[""]
	delete(pkg.said, "")
	for _, test := range slices.Sorted(maps.Keys(pkg.said)) {
		fmt.Fprintf(f.w, "%s of %s has no result\n", test, e.Package)
		f.fails(pkg, test)
	}
	if e.Action == "fail" {
		if !pkg.failed {
			f.fails(pkg, "")
		}
		f.print(slices.DeleteFunc(own, func(line string) bool {
			return line == "FAIL\n" || strings.HasPrefix(line, "FAIL\t") && !strings.HasSuffix(line, "]\n") // but what kept it from being built
		}))
	}
	switch {
	case pkg.failed:
		fmt.Fprintf(f.w, "FAIL  %s %.1fs\n", e.Package, e.Elapsed)
	case e.Action == "skip":
		fmt.Fprintf(f.w, "?     %s has no tests\n", e.Package)
	default:
		fmt.Fprintf(f.w, "ok    %s %.1fs\n", e.Package, e.Elapsed)
	}
}

// end prints the sum, and reports whether all is well.
func (f *filter) end() bool {
	for _, name := range slices.Sorted(maps.Keys(f.running)) {
		fmt.Fprintf(f.w, "%s has no result\n", name)
		f.ended(event{Action: "fail", Package: name}, f.running[name])
	}
	if f.passed+f.failed == 0 {
		fmt.Fprintln(f.w, "no test ran")
	}
	fmt.Fprintf(f.w, "%d passed, %d failed", f.passed, f.failed)
	if f.skipped > 0 {
		fmt.Fprintf(f.w, ", %d skipped", f.skipped)
	}
	fmt.Fprintln(f.w)
	return f.failed == 0 && f.passed > 0
}
