// Command dianemo is the command-line tool of the library:
//
//	go run github.com/dianemo/dianemo/cmd/dianemo bench
//
// measures it on this machine; see `dianemo bench --help`.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
)

// Exit statuses.
const (
	done        = 0
	failed      = 1
	badUsage    = 2
	interrupted = 130 // as shells say it: 128 + SIGINT
)

// A program is where a command reads and writes.
type program struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
}

// commands are read by kong: a command's flags are a struct here, so that what the
// help says, what is allowed and what the command gets are in one place, and it
// brings no other modules along.
type commands struct {
	Bench     benchCommand `cmd:"" help:"Measure the library on a Redis, in a namespace of its own that is removed at the end."`
	BenchPeer peerCommand  `cmd:"" hidden:"" help:"A peer of bench, which starts it."`
}

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore) // the first Ctrl-C ends ctx, a second one kills
	redis.SetLogger(silent{})
	os.Exit(program{ctx, os.Stdin, os.Stdout, os.Stderr}.run(os.Args[1:]))
}

func (p program) run(args []string) int {
	helped := false
	parser, err := kong.New(&commands{}, kong.Name("dianemo"), kong.Description("The command-line tool of Dianemo, a job runner on Redis."),
		kong.Vars(vars), kong.Writers(p.stdout, p.stderr), kong.Exit(func(int) { helped = true }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		panic(err) // the commands are fixed
	}
	parsed, err := parser.Parse(args)
	switch {
	case helped:
		return done
	case err != nil:
		fmt.Fprintf(p.stderr, "dianemo: %v\nTry 'dianemo --help'.\n", err)
		return badUsage
	}
	err = parsed.Run(p)
	if err != nil {
		fmt.Fprintf(p.stderr, "dianemo %s: %v\n", parsed.Command(), err)
	}
	switch {
	case p.ctx.Err() != nil && err != nil:
		return interrupted
	case err != nil:
		return failed
	}
	return done
}

// silent keeps go-redis from writing across the progress bar. What it would say
// comes back as errors too.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
