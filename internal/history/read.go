package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Read reads the journals in a directory, *.jsonl, and merges them by time. Each keeps its order.
func Read(dir string) ([]Event, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	journals := make([][]Event, len(names))
	for i, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		journals[i], err = Decode(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return merge(journals), nil
}

// Decode reads one journal. The last line may be cut, since its process may have been killed: then it
// counts as not written. Any other line that can't be read is an error.
func Decode(r io.Reader) ([]Event, error) {
	var events []Event
	for in, line := bufio.NewReader(r), 1; ; line++ {
		b, err := in.ReadBytes('\n')
		cut := err == io.EOF
		if err != nil && !cut {
			return nil, err
		}
		if len(bytes.TrimSpace(b)) > 0 {
			var e Event
			switch err := json.Unmarshal(b, &e); {
			case err == nil:
				events = append(events, e)
			case !cut:
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
		}
		if cut {
			return events, nil
		}
	}
}

// merge takes what comes first of what stands first in each journal.
func merge(journals [][]Event) []Event {
	var all []Event
	for {
		first := -1
		for i, j := range journals {
			if len(j) > 0 && (first < 0 || j[0].At < journals[first][0].At) {
				first = i
			}
		}
		if first < 0 {
			return all
		}
		all = append(all, journals[first][0])
		journals[first] = journals[first][1:]
	}
}
