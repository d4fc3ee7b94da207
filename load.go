package dianemo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/dianemo/dianemo/internal/hostload"
)

// LoadConfig says how a peer gives way to others that use the CPUs of its
// host. The zero value works:
//
//	available = tokens × (1 − share of the CPUs that others use)
//
// rounded down, and nothing at all from when that share is High until it is
// below Low. Running jobs go on. Others are all that runs on these CPUs but this
// process and its children: what its own jobs use is in their weights already.
//
// The CPUs are those that this process may use: those of its cgroup's quota,
// where there is one (v1 or v2), and otherwise those of the host. Time for which
// the quota keeps threads from running counts as used.
type LoadConfig struct {
	// Off leaves the tokens as they are, whatever the load. The rest then has no
	// effect.
	Off bool
	// Every is how often the load is read; default 1 s, at least 10 ms. The host
	// itself is read ten times a second at most, however many peers there are in
	// a process.
	Every time.Duration
	// High is the share from which nothing is claimed, above 0 and at most 1;
	// default 0.9. Low is the one below which claims go on; default 0.75, or High
	// if that is less, which is also the most.
	High, Low float64
	// CountSelf makes the whole load count, this process's too: for handlers whose
	// weights say little of their CPU use. A peer on which nothing runs may then
	// still claim one job, unless others alone are as High.
	CountSelf bool
	// Source replaces the reading of the host. One call is under way at a time.
	// Its context ends with Run, or when the call has lasted for ten times Every.
	// While it fails, panics, returns NaN or does not return, the last value
	// counts; after ten such samples in a row no load does, until it works again.
	// A Source that never returns leaves its one goroutine behind when Run
	// returns, and nothing else.
	Source func(ctx context.Context) (Load, error)
}

// A Load is what a source says, as shares of the CPUs that this process may
// use, 0 to 1. What lies outside is brought to the next of these.
type Load struct {
	Host float64 // used by all, this process included
	Own  float64 // used by this process, and its children as far as they are known
	// Throttled is the time for which a quota kept threads from running that
	// wanted to. It counts as used.
	Throttled float64
	// Pressure is the share of time in which some thread waited for a CPU (on
	// Linux that of PSI, over ten seconds); nil: unknown. It is shown and decides
	// nothing.
	Pressure *float64
}

const (
	minLoadEvery  = 10 * time.Millisecond
	minHostWindow = 100 * time.Millisecond // counters tick every 10 ms
	badSamples    = 10                     // in a row, after which no load is known
	sourceGrace   = 100 * time.Millisecond // that a source has to return at the end
)

func (c *LoadConfig) fill() error {
	c.Every = inherit(c.Every, time.Second)
	if c.High == 0 {
		c.High = 0.9
	}
	if c.Low == 0 {
		c.Low = min(0.75, c.High)
	}
	switch {
	case c.Every < minLoadEvery:
		return &FieldError{"Config.Load.Every", c.Every, fmt.Sprintf("%v or more", minLoadEvery)}
	case !(c.High > 0 && c.High <= 1): // NaN, too
		return &FieldError{"Config.Load.High", c.High, "above 0 and at most 1"}
	case !(c.Low > 0 && c.Low <= c.High):
		return &FieldError{"Config.Load.Low", c.Low, fmt.Sprintf("above 0 and at most %v, which is High", c.High)}
	}
	return nil
}

// check brings the shares into bounds, or says why it can't.
func (l *Load) check() error {
	for _, share := range []*float64{&l.Host, &l.Own, &l.Throttled} {
		if math.IsNaN(*share) {
			return fmt.Errorf("the load is not a number: %+v", *l)
		}
		*share = min(max(*share, 0), 1)
	}
	if l.Pressure != nil {
		pressure := min(max(*l.Pressure, 0), 1)
		if l.Pressure = &pressure; math.IsNaN(pressure) {
			l.Pressure = nil
		}
	}
	return nil
}

// all is what everyone uses or would; others is that less what is our own.
func (l *Load) all() float64    { return min(1, l.Host+l.Throttled) }
func (l *Load) others() float64 { return max(0, l.all()-l.Own) }

// A mark has two waters: it is hot from the high one until below the low one.
type mark struct{ hot bool }

func (m *mark) at(share float64, c *LoadConfig) {
	m.hot = share >= c.High || m.hot && share >= c.Low
}

// A gauge makes of samples what the ledger is to know. Only one goroutine uses
// it.
type gauge struct {
	config      *LoadConfig
	load        Load // the last good one
	known       bool
	bad         int  // samples in a row
	all, others mark // of what everyone uses, and of what others do
}

// take takes in a sample, or that there was none.
func (g *gauge) take(load Load, err error) error {
	if err == nil {
		err = load.check()
	}
	if err != nil {
		if g.bad++; g.bad >= badSamples {
			*g = gauge{config: g.config, bad: g.bad}
		}
		return err
	}
	g.load, g.known, g.bad = load, true, 0
	g.all.at(load.all(), g.config)
	g.others.at(load.others(), g.config)
	return nil
}

func (g *gauge) budget() budget {
	if !g.config.CountSelf {
		return budget{share: g.load.others(), hot: g.others.hot}
	}
	return budget{share: g.load.all(), hot: g.all.hot, single: g.known && !g.others.hot}
}

// errTooSoon: there is no sample yet; neither a good one nor a bad.
const errTooSoon = storeError("dianemo: too soon after the last reading")

// A hostReader reads this host for all peers of the process: it is one sampler
// without a goroutine of its own, which whoever asks first sets to work.
type hostReader struct {
	mu     sync.Mutex
	users  int // running peers
	reader *hostload.Reader
	last   Load
	known  bool
	at     time.Time // of the last reading
}

var host hostReader

// join is to be called before read, and leave at the end. The first reading
// only tells from when the first sample counts.
func (h *hostReader) join() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users++; h.users == 1 {
		h.reader, h.known, h.at = hostload.New(), false, time.Now()
		// What keeps it from being read will be said at the next reading.
		_, _, _ = h.reader.Read(h.at)
	}
}

func (h *hostReader) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users--; h.users == 0 {
		h.reader = nil
	}
}

// read returns the load since the last reading, or that one's if it is younger
// than half of every.
func (h *hostReader) read(every time.Duration) (Load, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reader == nil {
		return Load{}, errTooSoon // a late call of a peer that has left
	}
	now := time.Now()
	if now.Sub(h.at) >= max(every/2, minHostWindow) {
		s, ok, err := h.reader.Read(now)
		if err != nil {
			return Load{}, err
		}
		if h.at = now; ok {
			h.last, h.known = Load(s), true
		}
	}
	if !h.known {
		return Load{}, errTooSoon
	}
	return h.last, nil
}

// loads reads the load and tells the ledger, until ctx ends.
func (p *Peer) loads(ctx context.Context) {
	c := &p.config.Load
	source, first := c.Source, time.Duration(0)
	if source == nil {
		host.join()
		defer host.leave()
		source = func(context.Context) (Load, error) { return host.read(c.Every) }
		first = min(c.Every, minHostWindow) // a peer that starts on a hot host is to know soon
	}
	type sample struct {
		load Load
		err  error
	}
	samples := make(chan sample, 1)
	// The source runs in a goroutine of its own: it is the application's, and may
	// block.
	ask := func() {
		ctx, cancel := context.WithTimeout(ctx, badSamples*c.Every)
		defer cancel()
		s := sample{err: errors.New("the source called runtime.Goexit")}
		defer func() {
			if v := recover(); v != nil {
				s.err = fmt.Errorf("the source panicked: %v", v)
			}
			samples <- s
		}()
		s.load, s.err = source(ctx)
	}
	g := &gauge{config: c}
	var unread complaint
	asked, late := false, false
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if asked {
				timer.Reset(sourceGrace)
				select {
				case <-samples:
				case <-timer.C:
				}
			}
			return
		case <-timer.C:
			timer.Reset(c.Every)
			if asked {
				late = true
				p.sampled(g, &unread, late, Load{}, errors.New("the source has not returned"))
				continue
			}
			asked, late = true, false
			go ask()
		case s := <-samples:
			asked = false
			p.sampled(g, &unread, late, s.load, s.err)
		}
	}
}

// sampled acts on one sample. A late one counts, and is no reason to complain
// of the next one's being late once more.
func (p *Peer) sampled(g *gauge, unread *complaint, late bool, load Load, err error) {
	if errors.Is(err, errTooSoon) {
		return
	}
	err = g.take(load, err)
	if err != nil || !late {
		unread.about(p.logger, err, "the load is not known; its last value counts for ten samples, then no load does")
	}
	b := g.budget()
	was := p.ledger.adapt(b)
	if b != was {
		p.kickAll() // a peer that has nothing to spare is not to be told of work
	}
	switch {
	case b.hot && !was.hot:
		p.logger.Info("the host is hot: nothing is claimed", "load", b.share)
	case was.hot && !b.hot:
		p.logger.Info("the host is no longer hot: claims go on", "load", b.share, "known", g.known)
	}
	tokens, available, _ := p.ledger.state()
	info := &LoadInfo{Load: g.load, Known: g.known, Share: b.share, Hot: b.hot, Tokens: tokens, Available: available, Err: err}
	p.load.Store(info)
	p.hooks.Load(*info)
}

// SetTokens changes what this peer can carry at a time, 0 to MaxWeight, from
// the next claim on; the share of it that the load takes is taken of the new
// number. It evicts nothing: what runs goes on and is charged as before. With 0,
// or less than a kind's weight, such jobs are left for other peers. The reserve
// stays as it is, so that with fewer tokens than are reserved only the most
// urgent levels get any. The error is a [FieldError].
func (p *Peer) SetTokens(tokens int) error {
	if tokens < 0 || tokens > MaxWeight {
		return &FieldError{"tokens", tokens, fmt.Sprintf("0 to %d", MaxWeight)}
	}
	p.ledger.setTokens(tokens)
	// Jobs that were found too heavy have left the line.
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kickAll()
	p.beatAtOnce()
	return nil
}
