//go:build linux

package faulttest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// settingsVariable makes the test binary a peer instead.
const settingsVariable = "DIANEMO_FAULTTEST_PEER"

var server *redistest.Server // shared: each test has a namespace of its own

func TestMain(m *testing.M) {
	if s := os.Getenv(settingsVariable); s != "" {
		os.Exit(peerMain(s))
	}
	if os.Getenv(burnVariable) != "" {
		burnMain()
	}
	os.Exit(redistest.Main(m, func(s *redistest.Server) { server = s }))
}

// Settings of one peer process.
type settings struct {
	Redis      string
	Namespace  string
	Partitions int
	Kinds      []string // what it handles; default "work"
	Open       bool     // its handlers are not held; see args
	Forgets    bool     // nothing is kept of jobs that succeeded
	Tokens     int      // default 64
	Finish     time.Duration
	StuckAfter time.Duration
	// SilentAfter is at least silentAfter. A client that has failed to connect for a
	// while tries once a second only: after a long outage that must not count.
	SilentAfter time.Duration
	Lease       time.Duration // default lease
	Load        *load         // default: none
}

// A load that a peer is to read and give way to.
type load struct {
	Every     time.Duration
	High, Low float64
}

// Intervals of all peers. From a peer's death until its jobs start elsewhere
// there pass at most silentAfter, two leases if it led, and one beatEvery for
// the chore. They are long enough for a machine that is busy: a peer that is not
// scheduled for a while is not to be taken for silent.
const (
	beatEvery   = 300 * time.Millisecond
	silentAfter = 6 * beatEvery
	lease       = 1500 * time.Millisecond
)

// redisTimeout is short, so that a dead connection is noticed while a test lasts.
const redisTimeout = 500 * time.Millisecond

// args of all kinds. A handler waits for Work; without, until the test lets it
// go. In an open peer nobody is held.
type args struct {
	Work time.Duration
	// Stubborn handlers note the end of their context and go on.
	Stubborn bool
	Fails    bool // at the end of its work
	Failures int  // so many attempts fail, and are to be tried again
}

// result is what a handler leaves as its job's result.
type result struct {
	Peer  string
	PID   int
	Epoch int64
}

// A line is one thing that a peer saw, told to the witness.
type line struct {
	Event event
	Peer  string
	PID   int
	Job   string `json:",omitempty"`
	Epoch int64  `json:",omitempty"`
	Cause string `json:",omitempty"` // ended: of the context; exit: what Run returned; settle: the reason

	Attempt int             `json:",omitempty"` // start
	Made    time.Time       `json:",omitzero"`  // start: the job, by the store's clock
	Outcome dianemo.Outcome `json:",omitempty"` // settle
	Stale   bool            `json:",omitempty"` // settle
	Silent  string          `json:",omitempty"` // reap: the peer from whom the job was taken
	State   dianemo.State   `json:",omitempty"` // reap, fire
	Term    int64           `json:",omitempty"` // lead
	Leading bool            `json:",omitempty"` // lead
	IDs     []string        `json:",omitempty"` // exit: of a StuckError
	Share   float64         `json:",omitempty"` // load
	Known   bool            `json:",omitempty"` // load
	Hot     bool            `json:",omitempty"` // load
	Taken   time.Time       `json:",omitzero"`  // load: by the peer's clock
	Key     string          `json:",omitempty"` // repair; Cause is what was wrong and what became of it

	At time.Time `json:"-"` // when the test read it
}

type event string

const (
	mark     event = "mark"   // the test's own
	made     event = "made"   // the peer is about to Run
	started  event = "start"  // a handler was called
	ended    event = "ended"  // and saw its context end
	returned event = "return" // and is about to return
	settled  event = "settle"
	reaped   event = "reap"
	fired    event = "fire"
	lead     event = "lead"
	sampled  event = "load"
	repaired event = "repair"
	exited   event = "exit" // Run returned
)

// A worker is what runs in a peer process.
type worker struct {
	id      string
	mu      sync.Mutex // guards the rest
	witness *os.File
	free    map[string]bool // what is held no longer: jobs, runs as job:epoch, or * for all
	freed   chan struct{}   // closed when free changes
}

func peerMain(encoded string) int {
	var s settings
	if err := json.Unmarshal([]byte(encoded), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	w := &worker{witness: os.NewFile(3, "witness"), free: map[string]bool{"*": s.Open}, freed: make(chan struct{})}
	rdb := redis.NewClient(&redis.Options{Addr: s.Redis, DisableIdentity: true,
		DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout})
	defer rdb.Close()
	store := redisstore.New(rdb, redisstore.Options{Namespace: s.Namespace, Partitions: s.Partitions})
	loadConfig := dianemo.LoadConfig{Off: true}
	if s.Load != nil {
		loadConfig = dianemo.LoadConfig{Every: s.Load.Every, High: s.Load.High, Low: s.Load.Low}
	}
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: s.Tokens, BeatEvery: beatEvery, SilentAfter: max(s.SilentAfter, silentAfter), Lease: cmp.Or(s.Lease, lease),
		Finish: s.Finish, StuckAfter: s.StuckAfter, Load: loadConfig, Hooks: w.hooks(),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	w.id = peer.ID()
	for _, name := range s.Kinds {
		policy := dianemo.Policy{}
		if name == "once" {
			policy.Priority = 1 // so that such jobs are claimed without having been heard of
		}
		if name == "again" {
			policy.RetryIn = dianemo.Every(20 * time.Millisecond)
		}
		if s.Forgets {
			policy.Keep = dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}}
		}
		kind := dianemo.NewKind[args](name, policy)
		if err := kind.Handle(peer, w.handle); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	w.say(line{Event: made}) // from now on it may be terminated
	go w.obey(os.Stdin)
	said := line{Event: exited}
	if err := peer.Run(ctx); err != nil {
		said.Cause = err.Error()
		var stuck *dianemo.StuckError
		if errors.As(err, &stuck) {
			said.IDs = stuck.IDs
		}
	}
	w.say(said)
	return 0
}

// say tells the witness. A write of less than PIPE_BUF is atomic, whatever
// becomes of this process.
func (w *worker) say(l line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.Peer, l.PID = w.id, os.Getpid()
	l.Cause = l.Cause[:min(len(l.Cause), 1000)]
	b, err := json.Marshal(l)
	if err == nil {
		_, err = w.witness.Write(append(b, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "panic: the witness can't be told:", err)
	}
}

func (w *worker) hooks() *dianemo.Hooks {
	return &dianemo.Hooks{
		Settle: func(i dianemo.SettleInfo) {
			w.say(line{Event: settled, Job: i.ID, Epoch: i.Epoch, Outcome: i.Outcome, Stale: i.Stale, Cause: i.Reason})
		},
		Reap: func(i dianemo.ReapInfo) { w.say(line{Event: reaped, Job: i.ID, Silent: i.Peer, State: i.State}) },
		Fire: func(i dianemo.FireInfo) { w.say(line{Event: fired, Job: i.ID, State: i.State}) },
		Lead: func(i dianemo.LeadInfo) { w.say(line{Event: lead, Term: i.Term, Leading: i.Leading}) },
		Repair: func(i dianemo.RepairInfo) {
			w.say(line{Event: repaired, Job: i.ID, Key: i.Key, Cause: i.What + "; " + i.Did})
		},
		Load: func(i dianemo.LoadInfo) {
			w.say(line{Event: sampled, Share: i.Share, Known: i.Known, Hot: i.Hot, Taken: time.Now()})
		},
	}
}

// obey hears from the test what to hold no longer.
func (w *worker) obey(orders *os.File) {
	in := bufio.NewScanner(orders)
	for in.Scan() {
		w.mu.Lock()
		for _, id := range strings.Fields(in.Text()) {
			w.free[id] = true
		}
		close(w.freed)
		w.freed = make(chan struct{})
		w.mu.Unlock()
	}
}

func (w *worker) held(job *dianemo.Job[args]) (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.free[job.ID] && !w.free[runName(job.ID, job.Epoch)] && !w.free["*"], w.freed
}

func runName(id string, epoch int64) string { return fmt.Sprintf("%s:%d", id, epoch) }

func (w *worker) handle(ctx context.Context, job *dianemo.Job[args]) error {
	w.say(line{Event: started, Job: job.ID, Epoch: job.Epoch, Attempt: job.Attempt, Made: job.EnqueuedAt})
	if err := job.SetResult(result{w.id, os.Getpid(), job.Epoch}); err != nil {
		return err
	}
	err := w.wait(ctx, job)
	w.say(line{Event: returned, Job: job.ID, Epoch: job.Epoch})
	return err
}

func (w *worker) wait(ctx context.Context, job *dianemo.Job[args]) error {
	end := ctx.Done()
	over := func() error {
		end = nil
		w.say(line{Event: ended, Job: job.ID, Epoch: job.Epoch, Cause: context.Cause(ctx).Error()})
		if job.Args.Stubborn {
			return nil
		}
		return ctx.Err()
	}
	if job.Args.Work > 0 {
		timer := time.NewTimer(job.Args.Work)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				if job.Args.Fails {
					return dianemo.Fail(errors.New("as told"))
				}
				if job.Attempt <= job.Args.Failures {
					return errors.New("as told")
				}
				return nil
			case <-end:
				if err := over(); err != nil {
					return err
				}
			}
		}
	}
	for {
		held, freed := w.held(job)
		if !held {
			return nil
		}
		select {
		case <-freed:
		case <-end:
			if err := over(); err != nil {
				return err
			}
		}
	}
}

func (l line) is(e event, jobs ...string) bool {
	return l.Event == e && (len(jobs) == 0 || slices.Contains(jobs, l.Job))
}
