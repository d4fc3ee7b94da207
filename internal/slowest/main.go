// Slowest reads what go test -json has written: it lists the slowest tests and the
// time of each package.
//
//	go run ./internal/slowest [file...]
//
// Without files it reads test-*.json in the folder that TESTLOG names, or in .testlog.
// With -filter it stands behind a run, keeps what it reads in a file, and prints what a
// person wants to see of it:
//
//	go test -json ./... | go run ./internal/slowest -filter .testlog/test-all.json
//
// It exits with 1 if anything failed, if a package has no result, and if no test ran.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
)

// An event is a line of go test -json; see "go doc test2json". A build has its own.
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

func main() {
	log.SetFlags(0)
	file := flag.String("filter", "", "write what is read from stdin to this `file`, and print it in short")
	flag.Parse()
	if *file != "" {
		ok, err := keep(*file)
		if err != nil {
			log.Fatal(err)
		}
		if !ok {
			os.Exit(1)
		}
		return
	}
	files := flag.Args()
	if len(files) == 0 {
		folder := os.Getenv("TESTLOG")
		if folder == "" {
			folder = ".testlog"
		}
		var err error
		if files, err = filepath.Glob(filepath.Join(folder, "test-*.json")); err != nil {
			log.Fatal(err)
		}
		if len(files) == 0 {
			log.Fatalf("there is no test-*.json in %s: make test writes it", folder)
		}
	}
	if err := list(files); err != nil {
		log.Fatal(err)
	}
}

func keep(name string) (ok bool, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return false, err
	}
	file, err := os.Create(name)
	if err != nil {
		return false, err
	}
	f := newFilter(os.Stdout)
	err = each(io.TeeReader(os.Stdin, file), f.take)
	return f.end() && err == nil, errors.Join(err, file.Close())
}

func list(files []string) error {
	var t times
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		err = each(file, func(e event, _ []byte) { t.take(e) })
		file.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	t.print(os.Stdout, 20)
	return nil
}

// each calls take for each line. A line that is no event has no action.
func each(r io.Reader, take func(e event, line []byte)) error {
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{}
			}
			take(e, line)
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
