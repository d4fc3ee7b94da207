// Bare looks for a zone without the library: on a machine without a zone
// database there is none.
package main

import (
	"log"
	"time"

	_ "github.com/dianemo/dianemo/testdata/nozones/nowhere"
)

func main() {
	if _, err := time.LoadLocation("Australia/Lord_Howe"); err != nil {
		log.Fatal(err)
	}
}
