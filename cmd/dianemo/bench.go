package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/dianemo/dianemo/internal/measure"
)

// benchCommand has the flags of bench.
type benchCommand struct {
	Redis    string `placeholder:"ADDR" help:"The Redis to measure, host:port or redis://…; default a redis-server of its own, if there is one on PATH, else the embedded one."`
	Embedded bool   `help:"Measure the embedded Redis."`
	JSON     bool   `name:"json" help:"Print one JSON object, as docs/performance.md describes it."`

	Figures []string `default:"${figures}" help:"What is measured: ${figures}."`
	Rounds  int      `default:"1" help:"Rounds, of which medians are printed."`

	Jobs       int           `help:"Jobs that are enqueued and drained; default ${jobs}, on the embedded Redis ${embeddedjobs}."`
	Payload    int           `default:"100" help:"Bytes of a job's arguments."`
	Kinds      int           `default:"1" help:"Kinds of jobs."`
	Weights    []int         `default:"1" help:"Weights of the kinds in turn, for example 1,4,16."`
	Takes      time.Duration `default:"0s" help:"How long a job takes."`
	Tokens     int           `default:"512" help:"Tokens of each peer."`
	Peers      int           `help:"Run the jobs on so many peers, each in a process of its own; default one in this process."`
	Partitions int           `default:"1" help:"Partitions of the namespace."`
	Keep       measure.Keep  `default:"default" help:"How many jobs that succeeded are kept of each kind: a number, none, all, or default."`
	Load       bool          `help:"Let the peers give way to the load of the host. Redis and this program are a part of it."`

	Callers    int           `default:"32" help:"Callers that enqueue one by one."`
	Batch      int           `default:"500" help:"Jobs in a call that enqueues in bulk."`
	Samples    int           `default:"1000" help:"Jobs whose start is timed, for pickup and schedule."`
	Rate       int           `default:"400" help:"Of these, how many come in a second."`
	Waiting    int           `help:"Time the pick-up of priority 1 while so many jobs of priority 2 wait or run; a quarter of the tokens is reserved for it."`
	Idle       time.Duration `default:"6s" help:"How long idle peers are watched. Chores come round once a minute."`
	LookAround time.Duration `hidden:"" help:"What peers are given before they count as idle."` // for tests
	Slowlog    bool          `help:"Have the Redis that was given log script calls from 1 ms on, and put its settings back at the end."`
}

// vars are what the help names.
var vars = map[string]string{
	"figures":      strings.Join(measure.Figures, ","),
	"jobs":         fmt.Sprint(measure.DefaultJobs),
	"embeddedjobs": fmt.Sprint(measure.EmbeddedJobs),
}

func (c *benchCommand) settings() measure.Settings {
	return measure.Settings{Redis: c.Redis, Embedded: c.Embedded, Figures: c.Figures, Jobs: c.Jobs, Payload: c.Payload, Tokens: c.Tokens,
		Weights: c.Weights, Kinds: c.Kinds, Partitions: c.Partitions, Peers: c.Peers, Keep: c.Keep, Load: c.Load, Takes: c.Takes,
		Callers: c.Callers, Batch: c.Batch, Samples: c.Samples, Rate: c.Rate, Waiting: c.Waiting, Idle: c.Idle, Rounds: c.Rounds, SlowLog: c.Slowlog, LookAround: c.LookAround}
}

// Validate is called by kong, so that what is out of bounds is bad usage.
func (c *benchCommand) Validate() error { return c.settings().Check() }

// Run is called by kong.
func (c *benchCommand) Run(p program) error {
	var progress measure.Progress
	end := showProgress(p.stderr, &progress)
	report, err := measure.Run(p.ctx, c.settings(), func(b measure.Backend, s measure.Settings) {
		if !c.JSON {
			fmt.Fprint(p.stdout, heading(b, s))
		}
	}, &progress)
	end()
	if err != nil {
		if p.ctx.Err() != nil {
			return errors.Join(errors.New("interrupted"), err)
		}
		return err
	}
	if c.JSON {
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		return out.Encode(report)
	}
	fmt.Fprint(p.stdout, table(report))
	return nil
}

// peerCommand is a peer of bench.
type peerCommand struct{}

// Run is called by kong. A Ctrl-C in a terminal goes to all processes there: the
// peer leaves it to who started it.
func (peerCommand) Run(p program) error {
	signal.Ignore(os.Interrupt)
	return measure.Serve(p.stdin, p.stdout)
}
