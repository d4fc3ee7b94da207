package main

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
)

// The graph of -wide: a root with so many children, one of which begins a chain, each
// taking its time on one of the peer's tokens.
const (
	wideChildren = 4000
	wideChain    = 100
	wideTakes    = 10 * time.Millisecond
	wideTokens   = 16
)

// wide shows what it gives that jobs on a workflow's longest path go first: the same
// graph is run as plain parents and children, which start in the order in which they
// were released, and as a workflow.
func wide() error {
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()
	jobs := 1 + wideChildren + wideChain
	fmt.Printf("a root with %d children, one of which begins a chain of %d; %v each, %d tokens\n", wideChildren, wideChain, wideTakes, wideTokens)
	fmt.Printf("no order is quicker than %v\n\n", time.Duration(jobs)*wideTakes/wideTokens)
	for _, way := range []struct {
		name   string
		submit func(ctx context.Context, c *dianemo.Client) ([]string, error)
	}{{"plain parents", plainWide}, {"a workflow", flowWide}} {
		for range 3 {
			took, err := timeWide(rdb, way.submit)
			if err != nil {
				return err
			}
			fmt.Printf("%-15s %v\n", way.name, took.Round(time.Millisecond))
		}
	}
	return nil
}

// timeWide returns how long it takes from the root's start to the end of the jobs that
// submit returns.
func timeWide(rdb *redis.Client, submit func(ctx context.Context, c *dianemo.Client) ([]string, error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b := &bench{rdb: rdb}
	store, client, err := b.fresh()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: wideTokens, Logger: quiet, Load: dianemo.LoadConfig{Off: true}})
	if err != nil {
		return 0, err
	}
	var root time.Time
	err = kind.Handle(peer, func(ctx context.Context, job *dianemo.Job[string]) error {
		if job.Args == "root" {
			root = time.Now()
		}
		time.Sleep(wideTakes) // the work
		return nil
	})
	if err != nil {
		return 0, err
	}
	ends, err := submit(ctx, client)
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(running) }()
	defer func() { stop(); <-ended }()
	for _, id := range ends {
		if _, err := client.Wait(ctx, id); err != nil {
			return 0, err
		}
	}
	return time.Since(root), nil
}

func plainWide(ctx context.Context, c *dianemo.Client) ([]string, error) {
	request := func(id, arg string, parent string) dianemo.Request {
		o := dianemo.Options{ID: "wide@" + id}
		if parent != "" {
			o.Parents = dianemo.After("wide@" + parent)
		}
		return kind.NewWith(arg, o)
	}
	requests := []dianemo.Request{request("root", "root", "")}
	var ends []string
	wideEdges(func(name, parent string) {
		requests = append(requests, request(name, "", parent))
		ends = append(ends, "wide@"+name)
	})
	_, err := c.EnqueueMany(ctx, requests...)
	return ends, err
}

func flowWide(ctx context.Context, c *dianemo.Client) ([]string, error) {
	wf := dianemo.NewWorkflow("wide")
	wf.Add("root", kind.New("root"))
	wideEdges(func(name, parent string) { wf.Add(name, kind.New("")).After(parent) })
	id, err := c.Submit(ctx, wf)
	return []string{id}, err
}

func wideEdges(add func(name, parent string)) {
	for i := range wideChildren {
		add(fmt.Sprintf("child-%04d", i), "root")
	}
	parent := fmt.Sprintf("child-%04d", wideChildren/2)
	for i := range wideChain {
		name := fmt.Sprintf("link-%04d", i)
		add(name, parent)
		parent = name
	}
}
