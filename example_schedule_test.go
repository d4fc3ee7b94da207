package dianemo_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// Any process can make schedules, and list them with their next occurrences. In
// the night of the 8th New York's clocks go from 02:00 to 03:00, and the report runs
// as soon as there is a time again.
func ExampleClient_PutSchedule() {
	store, err := embedded.New(redisstore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	store.SetTime(time.Date(2026, time.March, 6, 12, 0, 0, 0, time.UTC)) // so that the output is the same on all days
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx := context.Background()
	report := dianemo.NewKind[string]("report", dianemo.Policy{})
	atNight, err := dianemo.Cron("30 2 * * *", "America/New_York")
	if err != nil {
		log.Fatal(err)
	}
	err = client.PutSchedule(ctx, dianemo.Schedule{Name: "nightly", Rule: atNight, Job: report.New("sales")})
	if err != nil {
		log.Fatal(err)
	}
	schedules, err := client.ListSchedules(ctx, "", 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range schedules {
		fmt.Println(s.Name, "is", s.State)
		for _, due := range s.Preview(3) {
			fmt.Println(due.Format(time.RFC1123), "=", due.UTC().Format(time.TimeOnly), "UTC")
		}
	}
	// Output:
	// nightly is active
	// Sat, 07 Mar 2026 02:30:00 EST = 07:30:00 UTC
	// Sun, 08 Mar 2026 03:00:00 EDT = 07:00:00 UTC
	// Mon, 09 Mar 2026 02:30:00 EDT = 06:30:00 UTC
}

// A schedule can have a workflow as its body. What its jobs work on depends on the
// instant, so a night that was missed can be made up for.
func ExampleClient_PutSchedule_workflow() {
	store, err := embedded.New(redisstore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	store.SetTime(time.Date(2026, time.March, 6, 12, 0, 0, 0, time.UTC))
	peer, err := dianemo.NewPeer(store, dianemo.Config{})
	if err != nil {
		log.Fatal(err)
	}
	step := dianemo.NewKind[string]("step", dianemo.Policy{})
	err = step.Handle(peer, func(_ context.Context, job *dianemo.Job[string]) error {
		fmt.Println(job.Args, "of", job.ScheduledFor.Format(time.DateOnly))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- peer.Run(ctx) }()

	etl := dianemo.NewWorkflow("etl")
	etl.Add("extract", step.New("extract"))
	etl.Add("load", step.New("load")).After("extract")
	midnight, err := dianemo.Cron("0 0 * * *", "UTC")
	if err != nil {
		log.Fatal(err)
	}
	err = peer.PutSchedule(ctx, dianemo.Schedule{Name: "nightly", Rule: midnight, Workflow: etl})
	if err != nil {
		log.Fatal(err)
	}
	made, err := peer.Backfill(ctx, "nightly", dianemo.Backfill{From: time.Date(2026, time.March, 4, 0, 0, 0, 0, time.UTC),
		To: time.Date(2026, time.March, 5, 0, 0, 0, 0, time.UTC), Max: 1})
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range made.IDs {
		ended, err := peer.Wait(ctx, id)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(id, "has", ended.State)
	}
	stop()
	if err := <-stopped; err != nil {
		log.Fatal(err)
	}
	// Output:
	// extract of 2026-03-04
	// load of 2026-03-04
	// nightly@20260304T000000Z has succeeded
}
