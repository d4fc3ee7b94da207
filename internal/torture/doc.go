//go:build linux

// Torture runs peers, clients and a Redis of its own, has everything go wrong that is known to go
// wrong, and holds what happened against what is promised: see docs/reliability.md.
//
//	go run ./internal/torture -seed 1 -minutes 2
//
// The seed decides what is asked for and what goes wrong when; what comes of it depends on the
// machine, too. The exit status is 1 if a promise was broken, 2 if the test could not be
// carried out, and 3 if a fault that was to be tested met nothing.
package main
