package dianemo_test

import (
	"fmt"
	"log"
	"time"

	"github.com/dianemo/dianemo"
)

// In the night of the 29th clocks in Berlin go from 02:00 to 03:00. The report
// runs nevertheless, as soon as there is a time again.
func ExamplePreview() {
	report, err := dianemo.Cron("30 2 * * *", "Europe/Berlin")
	if err != nil {
		log.Fatal(err)
	}
	from := time.Date(2026, time.March, 28, 0, 0, 0, 0, time.UTC)
	for _, at := range dianemo.Preview(report, from, 3) {
		fmt.Println(at.Format(time.RFC1123))
	}
	// Output:
	// Sat, 28 Mar 2026 02:30:00 CET
	// Sun, 29 Mar 2026 03:00:00 CEST
	// Mon, 30 Mar 2026 02:30:00 CEST
}

func ExampleCron_badLine() {
	_, err := dianemo.Cron("0 25 * * *", "UTC")
	fmt.Println(err)
	_, err = dianemo.Cron("0 0 30 2 *", "UTC")
	fmt.Println(err)
	// Output:
	// dianemo: cron line "0 25 * * *", hour is "25"; allowed: 0 to 23, as in 2,14, 9-17, */2 or *
	// dianemo: cron line "0 0 30 2 *", day of month is "30"; allowed: a day that exists in month 2
}
