// Command fleet simulates what a large fleet of peers sends to Redis: which calls, to which node, and how long they wait there.
// It takes what a call costs a node from measurements; -measure makes them. docs/capacity.md says what came of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	s := Default()
	s.flags(flag.CommandLine)
	measures := flag.Bool("measure", false, "measure what the calls cost, on a redis-server of its own, and simulate nothing")
	flag.Parse()
	if *measures {
		if err := measureCalls(context.Background(), os.Stdout); err != nil {
			fail(err)
		}
		return
	}
	if err := s.check(); err != nil {
		fail(err)
	}
	begin := time.Now()
	simulate(s).Print(os.Stdout)
	fmt.Printf("simulated in %v\n", time.Since(begin).Round(10*time.Millisecond))
}

func simulate(s Settings) Report {
	w := newWorld(s)
	w.run()
	return w.report()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "fleet:", err)
	os.Exit(1)
}
