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
