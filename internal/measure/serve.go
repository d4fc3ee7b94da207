package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// tellEvery is how often a process says how many jobs it has done, at most.
const tellEvery = 10 * time.Millisecond

// Serve is a peer in a process of its own. It reads what it is to be and what it is
// to do from in, and ends with it, so that no peer outlives who started it; on out
// it says what it did.
func Serve(in io.Reader, out io.Writer) error {
	say := newSpeech(out)
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s is a part of bench, which starts it itself: %w", ServeCommand, err)
	}
	var s spec
	if err := json.Unmarshal(first, &s); err != nil {
		return err
	}
	counts := counter{changed: make(chan struct{}, 1)}
	m, err := newMember(s, counts.add)
	if err != nil {
		return say.line(line{Error: err.Error()})
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var work sync.WaitGroup
	failed := false
	orders := bufio.NewScanner(lines)
	for orders.Scan() {
		switch orders.Text() {
		case sayMark:
			t := m.mark()
			if err := say.line(line{Marked: &t}); err != nil {
				return err
			}
		case sayBegin:
			work.Go(func() {
				if err := m.run(ctx); err != nil {
					failed = true
					_ = say.line(line{Error: err.Error()})
				}
			})
			work.Go(func() { counts.tell(ctx, say) })
		}
	}
	cancel()
	work.Wait()
	if failed {
		return nil
	}
	t := m.mark()
	return say.line(line{Done: counts.now(), Last: &t})
}

// A speech writes lines, one at a time.
type speech struct {
	mu  sync.Mutex
	out *json.Encoder
}

func newSpeech(out io.Writer) *speech { return &speech{out: json.NewEncoder(out)} }

func (s *speech) line(l line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Encode(l)
}

// A counter counts the jobs that are done.
type counter struct {
	counts  [classes]atomic.Int64
	changed chan struct{} // has room for one
}

func (c *counter) add(class int) {
	c.counts[class].Add(1)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *counter) now() []int64 {
	all := make([]int64, classes)
	for i := range all {
		all[i] = c.counts[i].Load()
	}
	return all
}

// tell says the counts soon after they have grown. A ticker would wake an idle
// peer, whose cost is measured.
func (c *counter) tell(ctx context.Context, say *speech) {
	for {
		select {
		case <-c.changed:
		case <-ctx.Done():
			return
		}
		if say.line(line{Done: c.now()}) != nil || wait(ctx, tellEvery) != nil {
			return
		}
	}
}
