// Nozones prints the next instant of a rule in a zone: zones_test.go runs it
// where there are no files at all.
package main

import (
	"fmt"
	"log"
	"time"

	"github.com/dianemo/dianemo"
	_ "github.com/dianemo/dianemo/testdata/nozones/nowhere"
)

func main() {
	rule, err := dianemo.Cron("30 2 * * *", "Australia/Lord_Howe")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rule.Next(time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)).Format(time.RFC3339))
}
