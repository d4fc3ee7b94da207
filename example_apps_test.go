package dianemo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// embeddedPeer is a peer on an embedded store, with its handlers, at work until
// stop.
func embeddedPeer(config dianemo.Config, handlers func(p *dianemo.Peer) error) (peer *dianemo.Peer, stop func()) {
	store, err := embedded.New(redisstore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if peer, err = dianemo.NewPeer(store, config); err != nil {
		log.Fatal(err)
	}
	if err := handlers(peer); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx) }()
	return peer, func() {
		cancel()
		if err := <-ended; err != nil {
			log.Fatal(err)
		}
		if err := store.Close(); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleClient_Wait() {
	greet := dianemo.NewKind[string]("greet", dianemo.Policy{})
	peer, stop := embeddedPeer(dianemo.Config{}, func(p *dianemo.Peer) error {
		return greet.Handle(p, func(_ context.Context, job *dianemo.Job[string]) error {
			fmt.Println("hello,", job.Args)
			return nil
		})
	})
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := greet.Enqueue(ctx, peer, "world")
	if err != nil {
		log.Fatal(err)
	}
	job, err := peer.Wait(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(job.State, "after", job.Runs, "run")
	// Output:
	// hello, world
	// succeeded after 1 run
}

func ExampleResultOf() {
	type sum struct{ Total int }
	add := dianemo.NewKind[[]int]("add", dianemo.Policy{})
	peer, stop := embeddedPeer(dianemo.Config{}, func(p *dianemo.Peer) error {
		return add.Handle(p, func(_ context.Context, job *dianemo.Job[[]int]) error {
			var s sum
			for _, n := range job.Args {
				s.Total += n
			}
			return job.SetResult(s)
		})
	})
	defer stop()
	ctx := context.Background()
	id, err := add.Enqueue(ctx, peer, []int{1, 2, 3})
	if err != nil {
		log.Fatal(err)
	}
	job, err := peer.Wait(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	result, err := dianemo.ResultOf[sum](job)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Total)
	// Output: 6
}

// Something around every handler, and a header that finds its way there from
// where the job was enqueued.
func ExampleConfig_wrap() {
	config := dianemo.Config{
		WrapEnqueue: func(next dianemo.EnqueueFunc) dianemo.EnqueueFunc {
			return func(ctx context.Context, requests []dianemo.Request) ([]string, error) {
				for i := range requests {
					requests[i] = requests[i].WithHeader("trace", "4bf92f35")
				}
				return next(ctx, requests)
			}
		},
		Wrap: func(next dianemo.Handler) dianemo.Handler {
			return func(ctx context.Context, job *dianemo.Job[json.RawMessage]) error {
				fmt.Printf("%s begins, trace %s, args %s\n", job.Kind, job.Headers["trace"], job.Args)
				err := next(ctx, job)
				fmt.Printf("%s ends: %v\n", job.Kind, err)
				return err
			}
		},
	}
	greet := dianemo.NewKind[string]("greet", dianemo.Policy{})
	peer, stop := embeddedPeer(config, func(p *dianemo.Peer) error {
		return greet.Handle(p, func(context.Context, *dianemo.Job[string]) error { return nil })
	})
	defer stop()
	id, err := greet.Enqueue(context.Background(), peer, "world")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := peer.Wait(context.Background(), id); err != nil {
		log.Fatal(err)
	}
	// Output:
	// greet begins, trace 4bf92f35, args "world"
	// greet ends: <nil>
}

// Kinds whose names are known only when the program runs.
func ExamplePeer_HandleRaw() {
	names := []string{"hook.created", "hook.deleted"} // from a configuration, say
	peer, stop := embeddedPeer(dianemo.Config{}, func(p *dianemo.Peer) error {
		for _, name := range names {
			err := p.HandleRaw(name, dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[json.RawMessage]) error {
				fmt.Println(job.Kind, string(job.Args))
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	defer stop()
	for _, name := range names {
		kind := dianemo.NewKind[json.RawMessage](name, dianemo.Policy{})
		id, err := kind.Enqueue(context.Background(), peer, json.RawMessage(`{"user":7}`))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := peer.Wait(context.Background(), id); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// hook.created {"user":7}
	// hook.deleted {"user":7}
}

// A renamed kind still finds its jobs.
func ExampleKind_Aliases() {
	mail := dianemo.NewKind[string]("mail.send", dianemo.Policy{}).Aliases("mail")
	peer, stop := embeddedPeer(dianemo.Config{}, func(p *dianemo.Peer) error {
		return mail.Handle(p, func(_ context.Context, job *dianemo.Job[string]) error {
			fmt.Println(job.Kind, "to", job.Args)
			return nil
		})
	})
	defer stop()
	old := dianemo.NewKind[string]("mail", dianemo.Policy{}) // as last year's producers have it
	for _, kind := range []dianemo.Kind[string]{old, mail} {
		id, err := kind.Enqueue(context.Background(), peer, "ann")
		if err != nil {
			log.Fatal(err)
		}
		if _, err := peer.Wait(context.Background(), id); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// mail to ann
	// mail.send to ann
}

// A page that was fetched already is not fetched again, and one that is gone is no
// failure.
func ExampleKind_After() {
	errGone := errors.New("gone")
	fetched := map[string]bool{"/old": true}
	fetch := dianemo.NewKind[string]("page.fetch", dianemo.Policy{Retries: dianemo.None}).
		Before(func(_ context.Context, job *dianemo.Job[string]) error {
			if fetched[job.Args] {
				return dianemo.ErrDone
			}
			return nil
		}).
		After(func(_ context.Context, job *dianemo.Job[string], err error) error {
			if errors.Is(err, errGone) {
				return nil
			}
			return err
		})
	peer, stop := embeddedPeer(dianemo.Config{}, func(p *dianemo.Peer) error {
		return fetch.Handle(p, func(_ context.Context, job *dianemo.Job[string]) error {
			fmt.Println("fetching", job.Args)
			if job.Args == "/gone" {
				return errGone
			}
			return errors.New("no answer")
		})
	})
	defer stop()
	for _, page := range []string{"/old", "/gone", "/slow"} {
		id, err := fetch.Enqueue(context.Background(), peer, page)
		if err != nil {
			log.Fatal(err)
		}
		job, err := peer.Wait(context.Background(), id)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(page, job.State)
	}
	// Output:
	// /old succeeded
	// fetching /gone
	// /gone succeeded
	// fetching /slow
	// /slow failed
}

func ExampleClient_Submit() {
	count := dianemo.NewKind[string]("count", dianemo.Policy{})
	add := dianemo.NewKind[[]string]("add", dianemo.Policy{})
	peer, stop := embeddedPeer(dianemo.Config{}, func(p *dianemo.Peer) error {
		return errors.Join(
			count.Handle(p, func(_ context.Context, job *dianemo.Job[string]) error {
				return job.SetResult(len(job.Args))
			}),
			add.Handle(p, func(ctx context.Context, job *dianemo.Job[[]string]) error {
				sum := 0
				for _, name := range job.Args {
					n, err := dianemo.ParentResult[int](ctx, job, name)
					if err != nil {
						return err
					}
					sum += n
				}
				fmt.Println("letters:", sum)
				return nil
			}))
	})
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wf := dianemo.NewWorkflow("letters")
	wf.Add("one", count.New("fork"))
	wf.Add("other", count.New("join"))
	wf.Add("sum", add.New([]string{"one", "other"})).After("one", "other")
	id, err := peer.Submit(ctx, wf)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := peer.Wait(ctx, id); err != nil {
		log.Fatal(err)
	}
	info, err := peer.Workflow(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.State, info.Counts[dianemo.Succeeded], "of", info.Jobs)
	// Output:
	// letters: 8
	// succeeded 3 of 3
}
