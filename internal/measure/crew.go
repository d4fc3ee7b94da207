package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ServeCommand is the argument with which a program that measures starts itself
// as a peer: it then calls Serve.
const ServeCommand = "bench-peer"

// A crew is the peers of one figure: one in this process, or some in processes of
// their own.
type crew struct {
	members []hand
	counts  [classes]atomic.Int64
	target  atomic.Int64  // of await
	changed chan struct{} // has room for one: the counts have grown, to the target or by a step
	failed  chan error    // of a member that ended by itself
	stalled time.Duration // how long no job may end while some are waited for
}

// A hand is a member, wherever it is.
type hand interface {
	begin()                // to work
	mark() (totals, error) // since the last mark, or the start
	end()                  // ends the work, without waiting
	wait() totals          // since the last mark, once it has ended
}

const (
	// step is by how much a count grows before who waits is woken: to be woken by
	// each job would cost what is measured.
	step = 256
	// patience is how long no job may end, besides the time that one takes.
	patience = time.Minute
)

// crew makes the peers, which do not work before begin; n is 0 for the one in this
// process.
func (b *bench) crew(s spec, n int) (*crew, error) {
	c := &crew{changed: make(chan struct{}, 1), failed: make(chan error, max(n, 1)), stalled: patience + s.Takes}
	if n == 0 {
		m, err := newMember(s, func(class int) { c.grown(class, 1) })
		if err != nil {
			return nil, err
		}
		c.members = append(c.members, newLocal(m, c.failed))
		return c, nil
	}
	for range n {
		p, err := c.launch(s)
		if err != nil {
			_, _ = c.stop()
			return nil, fmt.Errorf("starting a peer's process: %w", err)
		}
		c.members = append(c.members, p)
	}
	for _, m := range c.members { // they start side by side
		if _, err := m.mark(); err != nil {
			if _, why := c.stop(); why != nil {
				err = why
			}
			return nil, err
		}
	}
	return c, nil
}

func (c *crew) grown(class int, by int64) {
	n := c.counts[class].Add(by)
	if class == plain && n/step == (n-by)/step && n < c.target.Load() {
		return
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *crew) begin() {
	for _, m := range c.members {
		m.begin()
	}
}

// mark returns what the peers came to together since the last mark.
func (c *crew) mark() (totals, error) {
	var sum totals
	for _, m := range c.members {
		t, err := m.mark()
		if err != nil {
			return sum, err
		}
		sum.add(t)
	}
	return sum, nil
}

// finish marks and stops the crew. err is what went wrong before, if anything: then there is
// nothing to mark, and it is what finish returns.
func (c *crew) finish(err error) (totals, error) {
	var sum totals
	if err == nil {
		sum, err = c.mark()
	}
	if _, ended := c.stop(); err == nil {
		err = ended
	}
	return sum, err
}

// await waits until n jobs of the class are done, and tells how many are.
func (c *crew) await(ctx context.Context, class int, n int64, tell func(done int64)) error {
	c.target.Store(n)
	timer := time.NewTimer(c.stalled)
	defer timer.Stop()
	seen := int64(-1) // when the timer was set
	for {
		done := c.counts[class].Load()
		tell(done)
		if done >= n {
			return nil
		}
		select {
		case <-c.changed:
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			now := c.counts[class].Load()
			if now == seen {
				return fmt.Errorf("no job has ended for %v: %d of %d have", c.stalled, now, n)
			}
			seen = now
			timer.Reset(c.stalled)
		}
	}
}

// stop ends the peers and returns what they came to together since the last mark.
func (c *crew) stop() (totals, error) {
	for _, m := range c.members {
		m.end()
	}
	var sum totals
	for _, m := range c.members {
		sum.add(m.wait())
	}
	select {
	case err := <-c.failed:
		return sum, err
	default:
		return sum, nil
	}
}

// A local is the member in this process.
type local struct {
	*member
	ctx    context.Context
	cancel context.CancelFunc
	failed chan<- error
	began  bool
	ended  sync.WaitGroup
}

func newLocal(m *member, failed chan<- error) *local {
	l := &local{member: m, failed: failed}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *local) begin() {
	l.began = true
	l.ended.Go(func() {
		if err := l.run(l.ctx); err != nil {
			l.failed <- err
		}
	})
}

func (l *local) mark() (totals, error) { return l.member.mark(), nil }

func (l *local) end() { l.cancel() }

func (l *local) wait() totals {
	l.ended.Wait()
	if !l.began {
		_ = l.rdb.Close()
	}
	return l.member.mark()
}

// What a process is told, a line each; the end of its input ends it.
const (
	sayBegin = "begin"
	sayMark  = "mark"
)

// A line is what a process says.
type line struct {
	Done   []int64 `json:",omitempty"` // jobs of each class, so far
	Error  string  `json:",omitempty"`
	Marked *totals `json:",omitempty"`
	Last   *totals `json:",omitempty"` // of the last line
}

// A process is a member in one.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	marked chan totals // closed when the process is about to end
	said   bytes.Buffer
	last   totals
	ended  sync.WaitGroup
}

// launch starts this program as a peer.
func (c *crew) launch(s spec) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(program, ServeCommand), marked: make(chan totals)}
	p.cmd.Stderr = &p.said
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.ended.Go(func() {
		err := p.hear(c, out)
		close(p.marked)
		_, _ = io.Copy(io.Discard, out) // or it could wait for us to read
		if end := p.cmd.Wait(); err == nil {
			err = end
		}
		if err != nil {
			c.failed <- fmt.Errorf("a peer's process: %w %s", err, strings.TrimSpace(p.said.String()))
		}
	})
	// It reads this, its first line, from its standard input: an address may hold a
	// password, which others could read in its arguments.
	err = json.NewEncoder(p.in).Encode(s)
	if err != nil {
		p.end()
		p.wait()
	}
	return p, err
}

func (p *process) hear(c *crew, out io.Reader) error {
	var had [classes]int64
	for in := json.NewDecoder(out); ; {
		var l line
		if err := in.Decode(&l); err != nil {
			return fmt.Errorf("it ended too early: %w", err)
		}
		for class, n := range l.Done {
			c.grown(class, n-had[class])
			had[class] = n
		}
		switch {
		case l.Error != "":
			return errors.New(l.Error)
		case l.Marked != nil:
			p.marked <- *l.Marked
		case l.Last != nil:
			p.last = *l.Last
			return nil
		}
	}
}

func (p *process) begin() { _, _ = io.WriteString(p.in, sayBegin+"\n") } // if it is gone, hear says so

func (p *process) mark() (totals, error) {
	_, _ = io.WriteString(p.in, sayMark+"\n") // if it is gone, hear says so
	t, ok := <-p.marked
	if !ok {
		return t, errors.New("a peer's process has ended")
	}
	return t, nil
}

func (p *process) end() { p.in.Close() }

func (p *process) wait() totals {
	p.ended.Wait()
	return p.last
}
