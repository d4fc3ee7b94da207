// Nightly shows schedules: a report at half past two in the night of another
// zone, an import that may take longer than its interval, and a clean-up that
// counts from the end of the last one. It needs nothing but Go:
//
//	go run ./examples/nightly -fast
//
// fast.go is only about -fast: it moves the clock.
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
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// No arguments: what a run is about follows from its occurrence.
type none struct{}

var (
	Report  = dianemo.NewKind[none]("nightly.report", dianemo.Policy{})
	Import  = dianemo.NewKind[none]("nightly.import", dianemo.Policy{Retries: dianemo.None}) // the next one is soon
	CleanUp = dianemo.NewKind[none]("nightly.clean-up", dianemo.Policy{})
)

// newYork is for readers. A rule has the zone's name, which is the same everywhere.
var newYork, zoneErr = time.LoadLocation(zone)

const zone = "America/New_York"

// schedules are what this program declares. All processes of a fleet do; each
// occurrence is run by one of them.
func schedules(every time.Duration) ([]dianemo.Schedule, error) {
	atNight, err1 := dianemo.Cron("30 2 * * *", zone)
	often, err2 := dianemo.Interval(every)
	later, err3 := dianemo.AfterFinish(6 * time.Hour)
	return []dianemo.Schedule{
		// Once on each day, also on one that has no 02:30. If no process was up then,
		// the latest is made up for: Missed says so by default.
		{Name: "report", Rule: atNight, Job: Report.New(none{})},
		// Never two at a time, and none long after its time: the next one does its work.
		{Name: "import", Rule: often, Job: Import.New(none{}), Overlap: dianemo.OverlapSkip, Missed: dianemo.MissedSkip},
		// However long it takes, it can't overlap itself.
		{Name: "clean-up", Rule: later, Job: CleanUp.New(none{})},
	}, errors.Join(zoneErr, err1, err2, err3)
}

// declare gives a peer its handlers and schedules, which is all that a program
// does but for Run. These handlers only take their time.
func declare(peer *dianemo.Peer, clock *clock, schedules []dianemo.Schedule, every time.Duration) error {
	err := errors.Join(
		Report.Handle(peer, func(ctx context.Context, job *dianemo.Job[none]) error {
			// Which day it is about depends on its occurrence alone: a run that is late, or
			// is the second one, may be on another day.
			day := job.ScheduledFor.In(newYork).AddDate(0, 0, -1)
			return errors.Join(clock.sleep(ctx, 25*time.Minute), job.SetResult("for "+day.Format(time.DateOnly)))
		}),
		Import.Handle(peer, func(ctx context.Context, job *dianemo.Job[none]) error {
			if job.ScheduledFor.UnixMilli()/every.Milliseconds()%4 == 0 { // so that the next one is skipped
				return errors.Join(clock.sleep(ctx, every+every/3), job.SetResult("many rows"))
			}
			return errors.Join(clock.sleep(ctx, every/3), job.SetResult("some rows"))
		}),
		CleanUp.Handle(peer, func(ctx context.Context, job *dianemo.Job[none]) error {
			return errors.Join(clock.sleep(ctx, 10*time.Minute), job.SetResult("all clean"))
		}),
	)
	for _, s := range schedules {
		err = errors.Join(err, peer.Schedule(s)) // Run makes it
	}
	return err
}

const usage = `Shows when three schedules are due next, and runs them until Ctrl-C, with a line
for each occurrence that has ended: a report at 02:30 in New York, an import that
sometimes takes longer than its interval, and a clean-up six hours after the last
one. With -fast, days pass in seconds. To see something soon without it:

  go run ./examples/nightly -every 1s

`

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore) // the first Ctrl-C ends ctx, a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("nightly", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	address := flags.String("redis", "", "keep schedules and jobs in the Redis at this `address`, host:port, in the namespace nightly,\n"+
		"where they stay: the next start goes on with them, and several programs share them (default: an\n"+
		"embedded one)")
	every := flags.Duration("every", 15*time.Minute, "the import's `interval`")
	fast := flags.Bool("fast", false, "run on a virtual clock, which is moved from one event to the next")
	from := flags.String("from", "2026-03-07", "with -fast: the first `day`; in the second night from this one New York has no 02:30")
	days := flags.Int("days", 3, "with -fast: how many `days`")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2 // flags has said why
	}
	schedules, err := schedules(*every)
	begin := time.Now()
	if err == nil && *fast {
		begin, err = time.ParseInLocation(time.DateOnly, *from, newYork)
	}
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("%q is not a flag", flags.Arg(0))
	case begin.Year() < 1970:
		err = fmt.Errorf("-from is %q; allowed: a day since 1970", *from)
	case *days < 1 || *days > 366:
		err = fmt.Errorf("-days is %d; allowed: 1 to 366", *days)
	case *fast && *address != "":
		err = errors.New("-redis: not with -fast; only an embedded store has a clock that can be moved")
	}
	if err != nil {
		fmt.Fprintf(stderr, "nightly: %v\n", err)
		return 2
	}
	var c *clock
	if *fast {
		c = newClock(begin, begin.AddDate(0, 0, *days))
	}
	preview(stdout, schedules, begin)
	err = nightly(ctx, schedules, *every, *address, c, stdout, stderr)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "nightly: %v\n", err)
		return 1
	case *fast && ctx.Err() != nil:
		return 130 // as shells say it: 128 + SIGINT
	}
	return 0
}

// preview asks the rules, for which no store is needed. Of a schedule that is in
// the store, ScheduleInfo.Preview tells the same, and knows what was before.
func preview(out io.Writer, schedules []dianemo.Schedule, from time.Time) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SCHEDULE\tNEW YORK\tUTC")
	for _, s := range schedules {
		for _, at := range dianemo.Preview(s.Rule, from, 3) {
			fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, at.In(newYork).Format(form), at.UTC().Format(form))
		}
	}
	table.Flush()
	fmt.Fprint(out, "The clean-up is shown as if one had just ended, and as if it took no time.\n\n")
}

const form = "Mon 2006-01-02 15:04:05 MST"

// nightly runs a peer until ctx ends, or the clock's last day.
func nightly(ctx context.Context, schedules []dianemo.Schedule, every time.Duration, address string, clock *clock, stdout, stderr io.Writer) error {
	var store dianemo.Store
	if address != "" {
		rdb := redis.NewClient(&redis.Options{Addr: address})
		defer rdb.Close()
		// A peer waits for a Redis that is away. Here it is more likely mistyped.
		if err := rdb.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("no Redis at %s: %w", address, err)
		}
		store = redisstore.New(rdb, redisstore.Options{Namespace: "nightly"})
	} else {
		server, err := embedded.New(redisstore.Options{})
		if err != nil {
			return err
		}
		defer server.Close()
		clock.drive(server)
		store = server
	}
	ended := make(chan string, 1000) // ids
	config := config(ended, stderr)
	clock.configure(&config)
	peer, err := dianemo.NewPeer(store, config)
	if err != nil {
		return err
	}
	if err := declare(peer, clock, schedules, every); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() {
		defer stop() // should it end by itself
		ran <- peer.Run(ctx)
	}()
	for err == nil {
		var ids []string
		ids, err = clock.next(ctx, peer, len(schedules), ended)
		for _, id := range ids {
			report(ctx, stdout, peer, id)
		}
	}
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		err = nil // it is over
	}
	stop()
	return errors.Join(err, <-ran)
}

// config has hooks that tell which jobs have ended. They must be quick, so they do
// no more than that.
func config(ended chan<- string, stderr io.Writer) dianemo.Config {
	end := func(id string, state dianemo.State) {
		if state.Finished() {
			ended <- id
		}
	}
	return dianemo.Config{
		Hooks: &dianemo.Hooks{
			Fire: func(f dianemo.FireInfo) { end(f.ID, f.State) }, // missed or skipped: it has ended before it began
			Miss: func(m dianemo.MissInfo) { end(m.ID, m.State) }, // made in time, but not started within its grace
			Settle: func(s dianemo.SettleInfo) {
				if !s.Stale {
					end(s.ID, s.State)
				}
			},
		},
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Load:   dianemo.LoadConfig{Off: true}, // a demonstration is to go on on a busy machine, too
		Finish: dianemo.None,                  // what still runs at the end is given back, to be run again
	}
}

// report prints what became of an occurrence, and when.
func report(ctx context.Context, out io.Writer, peer *dianemo.Peer, id string) {
	job, err := peer.Get(ctx, id)
	if err != nil {
		if ctx.Err() == nil { // perhaps Redis is away; the schedules go on when it is back
			fmt.Fprintf(out, "%s has ended, but can't be read: %v\n", id, err)
		}
		return
	}
	what := job.LastError()
	switch job.State {
	case dianemo.Succeeded:
		what, _ = dianemo.ResultOf[string](job) // all of them set one
	case dianemo.Skipped:
		what = "the one before still runs"
	case dianemo.Missed:
		what = "nobody was there in time"
	}
	fmt.Fprintf(out, "%s  %-8s of %s  %s: %s\n", job.EndedAt.In(newYork).Format(form), job.Schedule,
		job.ScheduledFor.In(newYork).Format("15:04:05 MST"), job.State, what)
}
