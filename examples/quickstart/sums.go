package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
)

// A sum is what a file's SHA-256 came to.
type sum struct {
	path   string
	sha256 []byte
}

// openSums opens the file for the sums before there are any: better to learn at
// once that it can't be written.
func openSums(path string) (*os.File, error) {
	if path == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	return os.Create(path)
}

// writeSums writes the sums as sha256sum does.
func writeSums(f *os.File, sums []sum) error {
	slices.SortFunc(sums, func(a, b sum) int { return cmp.Compare(a.path, b.path) })
	w := bufio.NewWriter(f)
	for _, s := range sums {
		w.WriteString(s.String()) // an error stays with w until Flush
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

var escapes = strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\r", "\\r")

// String is the line for sha256sum -c. One that begins with a backslash has a
// file name with escapes.
func (s sum) String() string {
	path := s.path
	if path == "-" {
		path = "./-" // or else it would be stdin
	}
	escaped := escapes.Replace(path)
	mark := ""
	if escaped != path {
		mark = "\\"
	}
	return fmt.Sprintf("%s%x  %s\n", mark, s.sha256, escaped)
}
