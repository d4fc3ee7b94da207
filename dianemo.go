package dianemo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Version of this library.
const Version = "0.1.0"

// Config is a peer's settings. A zero field means its default. Peers of one
// namespace should agree on BeatEvery, SilentAfter and Lease.
type Config struct {
	// Tokens is what this peer can carry at a time, 1 to MaxWeight; default 16
	// for each CPU that Go may use (GOMAXPROCS). The load takes a share of it; see
	// Load and [Peer.SetTokens].
	Tokens int
	// Reserve keeps tokens of each priority level, 1 to 9, from all less urgent
	// ones; default none. The sum may be at most Tokens.
	Reserve map[int]int

	// BeatEvery is how often a peer shows that it is alive, how often the leader
	// does its chores, and how often an idle peer looks for work of which it did
	// not hear; default 5 s, at least 25 ms.
	BeatEvery time.Duration
	// SilentAfter is how long a peer may be silent before its runs are taken
	// from it; default four times BeatEvery, which is also the least.
	SilentAfter time.Duration
	// Lease is how long the leader may be silent before another peer takes over;
	// default three times BeatEvery, but not less than 100 ms, which is the least.
	Lease time.Duration

	// HeavyWait is how long a due job may be passed over by lighter ones because it
	// does not fit. Then its peer keeps what becomes free, at the job's level and
	// the less urgent ones, until it fits; one peer at a time does so for a lane.
	// Default 30 s; Unlimited: never.
	HeavyWait time.Duration

	// Finish is how long Run lets running jobs finish once its context has
	// ended, before it ends theirs; default 20 s; None: not at all.
	Finish time.Duration
	// StuckAfter is how long a handler may take to return once its context has
	// ended, before it is reported as stuck; at shutdown, before Run no longer
	// waits for it. Default 5 s.
	StuckAfter time.Duration

	// Wrap puts something around every handler of this peer: see [Handler].
	Wrap func(next Handler) Handler
	// WrapEnqueue puts something around every enqueue through this peer: see
	// [EnqueueFunc].
	WrapEnqueue func(next EnqueueFunc) EnqueueFunc
	Load        LoadConfig // how the peer gives way to others on its host

	// Built is when this program was built, by which of two versions that declare a
	// schedule otherwise the newer one is told; default the time of its commit, or,
	// where the build does not know that, of the program's file.
	Built time.Time

	// MaxWorkflow is how many jobs a workflow may have that is submitted here, up to a
	// million; default [MaxWorkflow].
	MaxWorkflow int

	Hooks  *Hooks
	Logger *slog.Logger // default slog.Default()
}

const (
	minBeat  = 25 * time.Millisecond // so that SilentAfter may be 100 ms
	minLease = 100 * time.Millisecond
)

func (c *Config) fill() error {
	if c.Tokens == 0 {
		c.Tokens = 16 * runtime.GOMAXPROCS(0)
	}
	c.BeatEvery = inherit(c.BeatEvery, 5*time.Second)
	c.SilentAfter = inherit(c.SilentAfter, 4*c.BeatEvery)
	c.Lease = inherit(c.Lease, max(3*c.BeatEvery, minLease))
	c.HeavyWait = inherit(c.HeavyWait, 30*time.Second)
	c.Finish = inherit(c.Finish, 20*time.Second)
	c.StuckAfter = inherit(c.StuckAfter, 5*time.Second)
	if c.Built.IsZero() {
		c.Built = buildTime()
	}
	if err := checkInstant("Config.Built", c.Built); err != nil {
		return err
	}
	if c.Tokens < 1 || c.Tokens > MaxWeight {
		return &FieldError{"Config.Tokens", c.Tokens, fmt.Sprintf("1 to %d, or 0 for the default", MaxWeight)}
	}
	sum := 0
	for level, tokens := range c.Reserve {
		if level < 1 || level > 9 {
			return &FieldError{"Config.Reserve", level, "priorities 1 to 9"}
		}
		if tokens < 0 || tokens > MaxWeight {
			return &FieldError{fmt.Sprintf("Config.Reserve[%d]", level), tokens, "0 to Tokens"}
		}
		sum += tokens
	}
	if sum > c.Tokens {
		return &FieldError{"Config.Reserve", c.Reserve, fmt.Sprintf("at most %d tokens in all, as many as Config.Tokens", c.Tokens)}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"Config.BeatEvery", c.BeatEvery, minBeat},
		{"Config.SilentAfter", c.SilentAfter, 4 * c.BeatEvery},
		{"Config.Lease", c.Lease, minLease},
		{"Config.StuckAfter", c.StuckAfter, 0},
	} {
		if f.value < f.least {
			return &FieldError{f.name, f.value, fmt.Sprintf("%v or more", f.least)}
		}
	}
	if c.HeavyWait < 0 && c.HeavyWait != Unlimited {
		return &FieldError{"Config.HeavyWait", c.HeavyWait, "a positive duration, 0 for the default, or Unlimited"}
	}
	if c.Finish < 0 && c.Finish != None {
		return &FieldError{"Config.Finish", c.Finish, "a positive duration, 0 for the default, or None"}
	}
	return c.Load.fill()
}

// A Peer is one process's part in the fleet: it runs jobs of the kinds that it
// has handlers for. It is also a [Client]. Its id has a random part, so a
// restarted process is another peer.
type Peer struct {
	*Client
	id      string
	config  Config
	started time.Time
	ledger  *ledger

	mu        sync.Mutex // guards these, and partitions until Run has made them
	kinds     map[string]registered
	schedules []*declaredSchedule
	newest    int64 // when the newest build was built of which a peer was seen alive, in ms; only declares touches it
	ran       bool
	shown     int64 // number of the last call to show itself that was answered

	partitions  []*partition
	closing     atomic.Bool  // claims nothing more
	draining    atomic.Bool  // claims nothing until it is told to
	shows       atomic.Int64 // number of the last call to show itself
	news        atomic.Int64 // how often it was asked to show itself since it began to
	standing    standing
	term        atomic.Pointer[term]
	bidden      bool                     // the lease may be this peer's; only lead touches it, and leave after it
	load        atomic.Pointer[LoadInfo] // the last sample
	unseen      complaint                // about the peer not showing itself
	blind       complaint                // about rounds that see nothing
	declared    atomic.Bool              // what its kinds keep
	undeclared  complaint
	visible     chan struct{} // has room for one: the peer has shown itself
	unscheduled complaint     // about schedules that can't be declared
	unchecked   complaint     // about schedules that can't be checked
	fireSoon    chan struct{} // has room for one: the schedules are to be looked at
	soon        chan struct{} // has room for one: a round is to be made now
	bid         chan struct{} // has room for one: the lease may be free
	beatSoon    chan struct{} // has room for one: some partition is to be beaten, or the peer shown, now
	resting     atomic.Bool   // no news of runs is looked for until the next begins
	awake       chan struct{} // has room for one: it has begun
}

type registered struct {
	policy Policy
	fn     handler
}

// NewPeer makes a peer. Nothing is sent before Run or the first enqueue. The
// error is a [FieldError].
func NewPeer(store Store, config Config) (*Peer, error) {
	if err := config.fill(); err != nil {
		return nil, err
	}
	config.Reserve = maps.Clone(config.Reserve)
	client, err := NewClient(store, ClientConfig{Hooks: config.Hooks, Logger: config.Logger, WrapEnqueue: config.WrapEnqueue, MaxWorkflow: config.MaxWorkflow})
	if err != nil {
		return nil, err
	}
	p := &Peer{Client: client, id: peerID(), config: config, started: time.Now(),
		ledger: newLedger(config.Tokens, config.Reserve), kinds: map[string]registered{}, beatSoon: make(chan struct{}, 1), awake: make(chan struct{}, 1), soon: make(chan struct{}, 1),
		bid: make(chan struct{}, 1), fireSoon: make(chan struct{}, 1), visible: make(chan struct{}, 1)}
	p.logger = p.logger.With("peer", p.id)
	p.Client.near = p.keepNear
	return p, nil
}

func peerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "host"
	}
	host = strings.Map(func(r rune) rune {
		if CheckName("", string(r)) != nil {
			return '-'
		}
		return r
	}, host)
	random := uuid.NewString()
	return fmt.Sprintf("%s-%d-%s", host[:min(len(host), 60)], os.Getpid(), random[24:])
}

// ID is the peer's id, as in [Client.Peers] and [JobInfo].
func (p *Peer) ID() string { return p.id }

// handle registers a kind under its names. direct is what runs its jobs, or raw
// with something around it, if Config.Wrap says so.
func (p *Peer) handle(names []string, policy Policy, direct handler, raw Handler) error {
	name := names[0]
	if err := firstError(checkKind(name), policy.check()); err != nil {
		return err
	}
	for _, alias := range names[1:] {
		if err := CheckName("Aliases", alias); err != nil {
			return err
		}
		if IsWorkflow(alias) {
			return &FieldError{"Aliases", alias, "names that do not begin with " + workflowPrefix}
		}
	}
	fn, err := p.wrapped(direct, raw)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ran {
		return &FieldError{"Handle", name, "a call before Run"}
	}
	for i, name := range names {
		if _, ok := p.kinds[name]; ok || slices.Contains(names[:i], name) {
			return &FieldError{"kind", name, "one handler for each kind and peer, under any of its names"}
		}
	}
	if most := p.ledger.capacity().fits(inherit(policy.Priority, 2)); policy.Weight > most {
		p.logger.Warn("this kind is too heavy for this peer, which will never run it", "kind", name, "weight", policy.Weight, "tokens", most)
	}
	policy.Keep = maps.Clone(policy.Keep)
	for _, name := range names {
		p.kinds[name] = registered{policy, fn}
	}
	return nil
}

// Run makes the peer work until ctx ends, then shuts it down and returns nil:
// it claims nothing more, lets running jobs finish for Config.Finish, ends the
// contexts of those that have not, gives back what then returns unfinished at no
// cost of an attempt (a job without retries and reruns ends failed), and stores
// the results. If handlers do not return within Config.StuckAfter even so, or
// Redis can't be reached for as long, it returns a [StuckError].
//
// A call that Redis has taken and does not answer is waited for, for as long as
// the client's ReadTimeout.
//
// While Redis can't be reached at the start, Run says so in the log and keeps
// trying. It returns ErrLayout if the namespace is not one for this program, or
// no longer is, and ErrRunTwice if it was called before. Handlers' contexts have ctx's values,
// but not its end.
func (p *Peer) Run(ctx context.Context) error {
	p.mu.Lock()
	ran := p.ran
	p.ran = true
	p.mu.Unlock()
	if ran {
		return ErrRunTwice
	}
	defer p.Client.Close()
	if err := p.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // nothing was begun
		}
		return err
	}

	base := context.WithoutCancel(ctx)
	ctx, fail := context.WithCancelCause(ctx) // fail: by an error that ends the peer
	defer fail(nil)
	alive, quit := context.WithCancel(base) // ends when no job is left here
	defer quit()
	turns, abandon := context.WithCancel(base) // ends when results can wait no longer
	context.AfterFunc(turns, quit)
	defer abandon()
	p.standing.register(p.kinds)
	partitions := make([]*partition, p.store.Partitions())
	for i := range partitions {
		partitions[i] = newPartition(p, i)
	}
	p.mu.Lock()
	p.partitions = partitions
	p.mu.Unlock()

	var work, rest sync.WaitGroup
	for _, part := range p.partitions {
		work.Go(func() { part.work(turns, base) })
	}
	rest.Go(func() { p.listen(alive) })
	rest.Go(func() { p.beats(alive, fail) })
	rest.Go(func() { p.lead(alive) })
	rest.Go(func() { p.rounds(alive) })
	rest.Go(func() { p.fires(alive) })
	rest.Go(func() { p.declares(alive) })
	if !p.config.Load.Off {
		rest.Go(func() { p.loads(alive) })
	}

	<-ctx.Done()
	err := p.shutdown(&work, abandon)
	quit()
	rest.Wait()
	if err == nil { // else the store does not answer, or the peer has to be seen to be silent
		p.leave(base)
	}
	if cause := context.Cause(ctx); errors.Is(cause, ErrLayout) {
		return errors.Join(cause, err)
	}
	return err
}

// shutdown ends the peer's work in the order that Run promises.
func (p *Peer) shutdown(work *sync.WaitGroup, abandon context.CancelFunc) error {
	p.closing.Store(true)
	signal(p.bid) // another is to lead from now on
	p.kickAll()
	worked := make(chan struct{})
	go func() {
		work.Wait() // the turns end when their partition holds nothing more
		close(worked)
	}()
	wait := func(d time.Duration) bool {
		timer := time.NewTimer(max(d, 0))
		defer timer.Stop()
		select {
		case <-worked:
			return true
		case <-timer.C:
			return false
		}
	}
	if wait(p.config.Finish) {
		return nil
	}
	for _, r := range p.held() {
		r.cancel(ErrShutdown)
	}
	if wait(p.config.StuckAfter) {
		return nil
	}
	abandon() // which ends the other loops too, so that calls that hang do so together
	<-worked
	var ids []string
	for _, part := range p.partitions {
		ids = append(ids, part.unsettled()...)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return &StuckError{slices.Compact(ids)}
}

// leave takes the peer off the list and gives up its lease, if lead could not.
// Neither is needed: both run out by themselves. What a peer keeps that lived too
// short to declare it, nobody else could say.
func (p *Peer) leave(base context.Context) {
	ctx, cancel := context.WithTimeout(base, time.Second)
	defer cancel()
	p.resign(ctx)
	if !p.declared.Load() {
		p.declare(ctx)
	}
	if _, err := p.store.Present(ctx, PeerInfo{ID: p.id}, true); err != nil {
		p.logger.Info("the peer was not taken off the list; it will fall off", "err", err)
	}
}

// A complaint is made once for each run of failures, so that an outage does not
// fill the log.
type complaint struct{ made atomic.Bool }

// about logs err if it is the first in a row; nil ends the row.
func (c *complaint) about(logger *slog.Logger, err error, message string, args ...any) {
	if err == nil {
		c.made.Store(false)
	} else if !c.made.Swap(true) {
		logger.Warn(message, append(args, "err", err)...)
	}
}

// listen hears messages.
func (p *Peer) listen(ctx context.Context) {
	var deaf complaint
	for attempt := 1; ; attempt++ {
		err := p.store.Listen(ctx, p.id, func(m Message) {
			attempt = 1
			deaf.about(p.logger, nil, "")
			p.hear(m)
		})
		if ctx.Err() != nil {
			return
		}
		deaf.about(p.logger, err, "messages can't be heard; until then ticks and beats have to do")
		if !pause(ctx, backoff(attempt, 50*time.Millisecond, 5*time.Second)) {
			return
		}
	}
}

// hear acts on one message.
func (p *Peer) hear(m Message) {
	for i, part := range p.partitions {
		here := m.Partition == i || m.Partition == Everywhere
		if m.Word == "" || m.Word == Look && here {
			part.lookFor(m.Kind)
		}
		if m.Word == "" || m.Word == BeatNow && here {
			part.told.Store(true)
			part.beatNow.Store(true)
		}
	}
	if m.Word == KeepNear {
		p.keepNear(p.id, m.Partition, m.Near)
	}
	if m.Word == "" || m.Word == FireNow {
		p.fireNow(m.Partition, m.Word == "" || m.Partition == Everywhere)
	}
	if m.Word == "" || m.Word == Look {
		p.restand() // who was told to look stands no more
	}
	if m.Word == "" || m.Word == BeatNow || m.Word == ShowNow {
		p.beatAtOnce()
	}
	if m.Word == "" || m.Word == BidNow {
		signal(p.bid)
	}
}

// signal makes whoever waits at a channel with room for one go on.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// beatAtOnce has the beats' loop beat what is to be beaten, and show the peer.
func (p *Peer) beatAtOnce() {
	select {
	case p.beatSoon <- struct{}{}:
	default:
	}
}

// refrains reports whether the peer is to claim nothing now.
func (p *Peer) refrains() bool { return p.closing.Load() || p.draining.Load() }

func (p *Peer) kickAll() {
	for _, part := range p.partitions {
		part.kick()
	}
}

// held lists the runs that this peer has.
func (p *Peer) held() []*run {
	var all []*run
	for _, part := range p.partitions {
		all = append(all, part.runs()...)
	}
	return all
}
