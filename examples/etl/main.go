// Etl shows a workflow on real files: orders of three shops are extracted at the same
// time (fork), merged (join) and looked at (decision); good ones are loaded into a
// warehouse, bad ones are put aside; a load that breaks is undone (compensation). It
// needs nothing but Go:
//
//	go run ./examples/etl
//
// flow.go has the workflow and its jobs, files.go the files that they work on.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

const usage = `Loads the orders of three shops into a warehouse: a workflow of jobs that read and
write files. It ends with a table of the jobs' states and with the workflow's graph in
the language of Graphviz on standard output; to draw it:

  go run ./examples/etl | sed -n '/^digraph/,$p' | dot -Tsvg > etl.svg

With -bad, so many orders can't be read that the other branch of the decision is taken.
With -break, the load breaks off half-way: it is undone, and the workflow has failed;
-resume as well then runs again what did not succeed, and that only.

`

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore) // the first Ctrl-C ends ctx, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("etl", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	address := flags.String("redis", "", "use the Redis at this `address`, host:port, in the namespace etl (default: an embedded one)")
	dir := flags.String("dir", "", "work in this `directory`, which is kept (default: a temporary one)")
	bad := flags.Bool("bad", false, "make many orders unreadable")
	breaks := flags.Bool("break", false, "let the load break off half-way")
	resume := flags.Bool("resume", false, "with -break: mend what broke the load, and resume the workflow")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2 // flags has said why
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
	case *resume && !*breaks:
		err = errors.New("-resume: only with -break; there is nothing to resume")
	case *breaks && *bad:
		err = errors.New("-break: not with -bad, which loads nothing")
	}
	if err != nil {
		fmt.Fprintf(stderr, "etl: %v\n", err)
		return 2
	}
	ok, err := etl(ctx, *address, *dir, *bad, *breaks, *resume, stdout, stderr)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "etl: %v\n", err)
		return 1
	case !ok:
		return 1 // the table says what failed
	}
	return 0
}

// etl reports whether the workflow succeeded.
func etl(ctx context.Context, address, dir string, bad, breaks, resume bool, stdout, stderr io.Writer) (bool, error) {
	temporary := dir == ""
	if temporary {
		made, err := os.MkdirTemp("", "etl-")
		if err != nil {
			return false, err
		}
		defer os.RemoveAll(made)
		dir = made
	}
	dir, err := filepath.Abs(dir) // the jobs may run in another process
	if err == nil {
		err = writeOrders(dir, bad)
	}
	if err != nil {
		return false, err
	}
	if breaks {
		if err := breakLoad(dir); err != nil {
			return false, err
		}
	}

	store, done, err := open(ctx, address)
	if err != nil {
		return false, err
	}
	defer done()
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	peer, err := dianemo.NewPeer(store, dianemo.Config{Logger: logger})
	if err != nil {
		return false, err
	}
	if err := handle(peer); err != nil {
		return false, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(running) }()
	ok, err := follow(ctx, peer, dir, breaks, resume, stdout)
	stop()
	if err = errors.Join(err, <-ended); err == nil && !temporary {
		fmt.Fprintf(stderr, "The files are in %s.\n", dir)
	}
	return ok, err
}

func open(ctx context.Context, address string) (dianemo.Store, func(), error) {
	if address == "" {
		server, err := embedded.New(redisstore.Options{})
		if err != nil {
			return nil, nil, err
		}
		return server, func() { server.Close() }, nil
	}
	rdb := redis.NewClient(&redis.Options{Addr: address})
	// A peer waits for a Redis that is away. Here it is more likely mistyped.
	if err := rdb.Ping(ctx).Err(); err != nil {
		rdb.Close()
		return nil, nil, fmt.Errorf("no Redis at %s: %w", address, err)
	}
	return redisstore.New(rdb, redisstore.Options{Namespace: "etl"}), func() { rdb.Close() }, nil
}

// follow submits the workflow, waits for its end, and shows it. Any process could.
func follow(ctx context.Context, client *dianemo.Peer, dir string, breaks, resume bool, out io.Writer) (bool, error) {
	id, err := client.Submit(ctx, workflow(dir))
	if err != nil {
		return false, err
	}
	end, err := client.Wait(ctx, id)
	if err != nil {
		return false, err
	}
	if resume {
		if err := show(ctx, client, id, out); err != nil {
			return false, err
		}
		if err := mendLoad(dir); err != nil {
			return false, err
		}
		jobs, err := client.ResumeWorkflow(ctx, id)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(out, "\nResumed: %d job is run again, and then what was skipped because of it.\n\n", jobs)
		if end, err = client.Wait(ctx, id); err != nil {
			return false, err
		}
	}
	if err := show(ctx, client, id, out); err != nil {
		return false, err
	}
	g, err := client.WorkflowGraph(ctx, id)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(out, "\n%s", g.DOT())
	return end.State == dianemo.Succeeded, nil
}

// show prints the workflow's state, and its jobs'.
func show(ctx context.Context, client *dianemo.Peer, id string, out io.Writer) error {
	info, err := client.Workflow(ctx, id)
	if err != nil {
		return err
	}
	g, err := client.WorkflowGraph(ctx, id)
	if err != nil {
		return err
	}
	var jobs []*dianemo.JobInfo
	for _, j := range g.Jobs {
		job, err := client.Get(ctx, j.ID)
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
	}
	// As they ran, and what did not last.
	slices.SortStableFunc(jobs, func(a, b *dianemo.JobInfo) int {
		return cmp.Or(cmp.Compare(min(b.Runs, 1), min(a.Runs, 1)), a.StartedAt.Compare(b.StartedAt))
	})
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "JOB\tSTATE\tRUNS\tRESULT")
	for _, job := range jobs {
		said := string(job.Result)
		switch {
		case job.State == dianemo.Skipped && job.Reason == "choice":
			said = "left out by the inspection"
		case job.State == dianemo.Skipped:
			said = "what it waited for did not happen"
		case job.State != dianemo.Succeeded:
			said = job.LastError()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", job.Name, job.State, job.Runs, said)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nThe workflow has %s: %d of its %d jobs succeeded.\n", info.State, info.Counts[dianemo.Succeeded], info.Jobs)
	return err
}
