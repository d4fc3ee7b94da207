// Command bench shows what is no figure of `dianemo bench`: how peers give way, what
// schedules cost, what the order of a workflow's jobs gives. Each is on a
// redis-server of its own, started on loopback and stopped at the end; run it on a
// quiet machine, and compare only figures of one run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
)

func main() {
	give := flag.Bool("giveway", false, "show two peers that give way to a process that burns the CPU")
	many := flag.Int("schedules", 0, "show what so many schedules cost, for example 10000")
	isWide := flag.Bool("wide", false, "show what it gives that the longest path of a workflow goes first")
	links := flag.Int("chain", 0, "run a chain of so many jobs, for example 1000")
	heirs := flag.Int("children", 0, "run so many children of one parent, for example 100000")
	size := flag.Int("workflow", 0, "run a workflow of so many jobs, for example 100000")
	if isPart, err := part(); isPart {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	show := func() error { return errors.New("name one thing to show, see -h; `dianemo bench` measures the rest") }
	if *give {
		show = giveWay
	} else if *many > 0 {
		show = func() error { return schedules(*many) }
	} else if *isWide {
		show = wide
	} else if *links > 0 {
		show = func() error { return onFlows(chain(*links)) }
	} else if *heirs > 0 {
		show = func() error { return onFlows(children(*heirs)) }
	} else if *size > 2 {
		show = func() error { return onFlows(workflow(*size)) }
	}
	if err := show(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench has a Redis; each measurement begins with it empty.
type bench struct{ rdb *redis.Client }

var (
	kind    = dianemo.NewKind[string]("bench.noop", dianemo.Policy{})
	payload = strings.Repeat("x", 98) // and two quotes
	quiet   = slog.New(slog.DiscardHandler)
)

func (b *bench) fresh() (*redisstore.Store, *dianemo.Client, error) {
	if err := b.rdb.FlushAll(context.Background()).Err(); err != nil {
		return nil, nil, err
	}
	store := redisstore.New(b.rdb, redisstore.Options{Namespace: "bench"})
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
	return store, client, err
}

// with runs a peer while fn runs. It does not look at the load.
func (b *bench) with(store dianemo.Store, tokens int, handler func(*dianemo.Job[string]) error, fn func() error) error {
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: tokens, Load: dianemo.LoadConfig{Off: true}, Logger: quiet})
	if err != nil {
		return err
	}
	if err := kind.Handle(peer, func(_ context.Context, job *dianemo.Job[string]) error { return handler(job) }); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	err = fn()
	cancel()
	if ended := <-ended; err == nil {
		err = ended
	}
	return err
}
