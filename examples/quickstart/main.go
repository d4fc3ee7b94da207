// Quickstart compresses and hashes every file below a directory: one job for
// each file, run by three peers. It needs nothing but Go:
//
//	go run ./examples/quickstart [flags] [DIR]
//
// The three peers stand in one program here, so that there is one thing to
// start; each has a connection of its own, as it would in a process of its own,
// and knows nothing of the others.
//
// Read on in work.go (the kind and its handler), fleet.go (the peers), report.go
// (how one learns what became of the jobs) and kill.go (what happens when a peer
// dies).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
)

// Exit statuses.
const (
	allSucceeded = 0
	someDidNot   = 1
	badUsage     = 2
	interrupted  = 130 // as shells say it: 128 + SIGINT
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, restore) // the first Ctrl-C ends ctx, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	settings, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return allSucceeded
	}
	if err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\nTry 'go run ./examples/quickstart -h'.\n", err)
		return badUsage
	}
	screen := newScreen(stdout, stderr)
	status, err := quickstart(ctx, settings, screen)
	if err != nil {
		screen.complain("quickstart: %v", err)
	}
	return status
}

func quickstart(ctx context.Context, s settings, screen *screen) (int, error) {
	sums, err := openSums(s.sums) // now, not after all the work
	if err != nil {
		return someDidNot, err
	}
	defer sums.Close()
	files, unread, err := find(ctx, s.dir, sums)
	switch {
	case ctx.Err() != nil:
		return interrupted, nil
	case err != nil:
		return someDidNot, err
	}
	for _, err := range unread {
		screen.complain("quickstart: passed over: %v", err)
	}
	if len(files) == 0 {
		screen.print("No regular files under %s: nothing to do.", printable(s.dir))
	} else if status, err := process(ctx, s, files, sums, screen); status != allSucceeded || err != nil {
		return status, err
	}
	if len(unread) > 0 {
		return someDidNot, nil
	}
	return allSucceeded, nil
}

// process is the program: it starts the peers, enqueues the jobs, waits until
// all have ended, and says what came of them.
func process(ctx context.Context, s settings, files []file, sums *os.File, screen *screen) (int, error) {
	report := newReport(files)
	kill := newKill(s.kill, len(files))
	fleet, err := newFleet(ctx, s, report, kill, slog.New(slog.NewTextHandler(screen, &slog.HandlerOptions{Level: s.logs})))
	if err != nil {
		return someDidNot, err
	}
	defer func() {
		if err := fleet.close(); err != nil {
			screen.complain("quickstart: %v", err)
		}
	}()
	screen.print("%d files, %s, for %d peers of %d tokens, %d of them kept for priority 1; store: %s.",
		report.files, size(report.bytes), peers, tokens, reserve, fleet.backend)

	work, finish := context.WithCancel(ctx)
	fleet.start(work, finish)
	report.read(fleet.client)
	stopShowing := screen.follow(func() string { return report.line() + fleet.line() })

	// Every file at once: EnqueueMany sends them in pieces of a size that Redis
	// digests. What it has accepted is safe with the store.
	_, err = fleet.client.EnqueueMany(work, requests(files)...)
	if work.Err() != nil {
		err = nil // what kept it is told elsewhere
	} else if err != nil {
		finish()
	}
	select {
	case <-report.done:
	case <-work.Done(): // Ctrl-C, or something went wrong
	}
	if ctx.Err() != nil {
		screen.print("Interrupted: running jobs have %v to finish. Ctrl-C again stops at once.", fleet.finish)
	}
	finish()
	err = errors.Join(err, fleet.wait()) // from here on no hook is called
	report.close()
	stopShowing()

	kill.print(fleet, screen)
	complete := report.print(fleet, screen)
	err = errors.Join(err, writeSums(sums, report.sums))
	switch {
	case ctx.Err() != nil:
		return interrupted, err
	case err != nil || !complete:
		return someDidNot, err
	}
	return allSucceeded, nil
}
