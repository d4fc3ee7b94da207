package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A bug is one that somebody could have made.
type bug struct {
	name  string
	what  string // what is wrong, in a line
	edits []edit
	// faults bring it out, one at least.
	faults []string
	// by are the invariants that may catch it, the one that is meant to first. By another it is
	// caught as well, but nobody knows why.
	by []string
}

// An edit replaces what stands in a file exactly once.
type edit struct{ file, old, new string }

// apply makes the edits in the tree at root.
func (b *bug) apply(root string) error {
	for _, e := range b.edits {
		path := filepath.Join(root, filepath.FromSlash(e.file))
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			return fmt.Errorf("what is to be replaced stands %d times in %s, and not once: the code has changed, and the table must follow\n%s", n, e.file, e.old)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
