// Command planted tests the torture test: it plants known bugs, one at a time, in copies of this
// module, tortures each, and says which invariant caught it, and after how long. A bug that is
// not caught is a hole in the load, in the faults, or in the checker.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "plant only these, by their names, separated by commas")
	minutes := flag.Float64("minutes", 0.5, "how long each is tortured, with one seed")
	seed := flag.Uint64("seed", 1, "the first seed; where a bug is not caught, the next ones are tried")
	seeds := flag.Int("seeds", 3, "how many seeds are tried")
	list := flag.Bool("list", false, "only list what there is to plant")
	flag.Parse()
	chosen, err := choose(*only)
	if err == nil && (*minutes <= 0 || *seeds < 1 || flag.NArg() > 0) {
		err = errors.New("-minutes must be positive, -seeds 1 at least, and there are no arguments")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(2)
	}
	if *list {
		for _, b := range chosen {
			fmt.Printf("%-20s %s\n", b.name, b.what)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, chosen, plan{minutes: *minutes, seed: *seed, seeds: *seeds})
	if err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func choose(only string) ([]bug, error) {
	if only == "" {
		return bugs, nil
	}
	var chosen []bug
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(bugs, func(b bug) bool { return b.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only=%s: there is no such bug; -list says which there are", name)
		}
		chosen = append(chosen, bugs[i])
	}
	return chosen, nil
}

// A plan says how long a bug is looked for.
type plan struct {
	minutes float64
	seed    uint64
	seeds   int
}

// run reports whether all were caught.
func run(ctx context.Context, chosen []bug, plan plan) (bool, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return false, err
	}
	var found []finding
	ok := true
	for _, b := range chosen {
		f, err := try(ctx, root, b, plan)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			f.err = err // which is as bad as not being caught, but no reason not to try the others
		}
		fmt.Fprintln(os.Stderr, f.line())
		found = append(found, f)
		ok = ok && f.caught()
	}
	report(os.Stdout, found)
	return ok, nil
}

// try plants a bug and tortures it until it is caught, with one seed after another.
func try(ctx context.Context, root string, b bug, plan plan) (finding, error) {
	f := finding{bug: b}
	program, clean, err := plant(ctx, root, b)
	if err != nil {
		return f, err
	}
	defer clean()
	for i := range plan.seeds {
		begin := time.Now()
		f.seed = plan.seed + uint64(i)
		f.violations, err = torture(ctx, program, b, f.seed, plan.minutes)
		f.took += time.Since(begin)
		if err != nil || f.caught() {
			return f, err
		}
	}
	return f, nil
}
