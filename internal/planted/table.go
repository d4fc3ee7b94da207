package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A finding is what became of a bug.
type finding struct {
	bug        bug
	seed       uint64 // the last one
	took       time.Duration
	violations []violation
	err        error // why it could not be tried
}

func (f *finding) caught() bool { return len(f.violations) > 0 }

// invariants are those that caught it, the one that says most first.
func (f *finding) invariants() []string {
	n := map[string]int{}
	var names []string
	for _, v := range f.violations {
		if n[v.invariant]++; n[v.invariant] == 1 {
			names = append(names, v.invariant)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return n[b] - n[a] })
	return names
}

// expected reports whether one of those caught it that the table names.
func (f *finding) expected() bool {
	return slices.ContainsFunc(f.invariants(), func(name string) bool { return slices.Contains(f.bug.by, name) })
}

func (f *finding) verdict() string {
	if f.err != nil {
		return "COULD NOT BE TRIED"
	}
	if !f.caught() {
		return "NOT CAUGHT"
	}
	by := strings.Join(f.invariants(), ", ")
	if !f.expected() {
		by += " (expected: " + strings.Join(f.bug.by, ", ") + ")"
	}
	return by
}

// line is said as soon as it is known.
func (f *finding) line() string {
	s := fmt.Sprintf("%s: %s, %v, seed %d", f.bug.name, f.verdict(), f.took.Round(time.Second), f.seed)
	if f.err != nil {
		s += fmt.Sprintf("\n\t%v", f.err)
	} else if f.caught() {
		s += fmt.Sprintf("\n\t%.300s", f.violations[0].text)
	}
	return s
}

// report prints the table, as it can stand in the docs.
func report(w io.Writer, found []finding) {
	fmt.Fprintln(w, "| bug | what is wrong | faults | caught by | after |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- |")
	missed := 0
	for _, f := range found {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %v |\n", f.bug.name, f.bug.what, strings.Join(f.bug.faults, ", "), f.verdict(), f.took.Round(time.Second))
		if !f.caught() {
			missed++
		}
	}
	fmt.Fprintf(w, "\n%d of %d caught\n", len(found)-missed, len(found))
}
