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

	"github.com/redis/go-redis/v9"
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
	redis.SetLogger(silent{})
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
	succeeded, err := quickstart(ctx, settings, screen)
	if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		screen.complain("quickstart: %v", err)
	}
	switch {
	case ctx.Err() != nil:
		return interrupted
	case err != nil || !succeeded:
		return someDidNot
	}
	return allSucceeded
}

// quickstart reports whether every file was dealt with.
func quickstart(ctx context.Context, s settings, screen *screen) (bool, error) {
	sums, err := openSums(s.sums) // now, not after all the work
	if err != nil {
		return false, err
	}
	defer sums.Close()
	files, unread, err := find(ctx, s.dir, sums)
	if err != nil {
		return false, err
	}
	for _, err := range unread {
		screen.complain("quickstart: passed over: %v", err)
	}
	if len(files) == 0 {
		screen.print("No regular files under %s: nothing to do.", printable(s.dir))
		return len(unread) == 0, nil
	}
	succeeded, err := process(ctx, s, files, sums, screen)
	return succeeded && len(unread) == 0, err
}

// process is the program: it starts the peers, enqueues the jobs, waits until
// all have ended, and says what came of them.
func process(ctx context.Context, s settings, files []file, sums *os.File, screen *screen) (succeeded bool, err error) {
	report := newReport(files)
	kill := newKill(s.kill, len(files))
	logger := slog.New(slog.NewTextHandler(screen, &slog.HandlerOptions{Level: s.logs}))
	fleet, err := newFleet(ctx, s, report, kill, logger)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, fleet.close()) }()
	screen.print("%d files, %s, for %d peers of %d tokens, %d of them kept for priority 1; store: %s.",
		report.files, size(report.bytes), peers, tokens, reserve, fleet.backend)

	work, stop := context.WithCancel(ctx)
	defer stop()
	fleet.start(work, stop)
	report.read(fleet.client)
	stopShowing := screen.follow(func() string { return report.line() + fleet.line() })

	// All at once: EnqueueMany sends them in pieces that Redis digests. When it
	// returns nil, the store has every job.
	_, err = fleet.client.EnqueueMany(work, requests(files)...)
	report.enqueued(err)
	if work.Err() != nil {
		err = nil // no more than that it was stopped
	}
	if err != nil {
		stop()
	}
	select {
	case <-report.done:
	case <-work.Done(): // Ctrl-C, or something went wrong
	}
	if ctx.Err() != nil {
		screen.print("Interrupted: the peers shut down. Ctrl-C again stops at once.")
	}
	stop()
	err = errors.Join(err, fleet.wait()) // from here on no hook is called
	report.close()
	stopShowing()

	kill.print(fleet, screen)
	succeeded = report.print(fleet, screen)
	return succeeded, errors.Join(err, writeSums(sums, report.sums))
}
