package history

import (
	"time"

	"github.com/dianemo/dianemo"
)

// An Event is one thing that a process did or saw: a line of JSON in the process's file. Each
// process writes its own, in the order of its doing, and before it goes on.
type Event struct {
	At      Moment `json:"at"`
	Process string `json:"process"` // a peer's id; a client's name; "nemesis"
	What    What   `json:"what"`

	// Of a client's call: which of this process's it is. Each job of the call has an invoke and an
	// answer of its own, under this number.
	Call int64  `json:"call,omitempty"`
	Op   Op     `json:"op,omitempty"`
	Err  string `json:"err,omitempty"`
	Wish *Wish  `json:"wish,omitempty"` // invoke: what the job is to be like

	Job       string          `json:"job,omitempty"`  // its id
	Mark      string          `json:"mark,omitempty"` // as in its Wish: invoke, the answers, start, end
	Kind      string          `json:"kind,omitempty"`
	Priority  int             `json:"priority,omitempty"`
	Weight    int             `json:"weight,omitempty"` // claim, start, end, settle: tokens charged
	Attempt   int             `json:"attempt,omitempty"`
	Epoch     int64           `json:"epoch,omitempty"`
	Outcome   dianemo.Outcome `json:"outcome,omitempty"` // settle
	State     dianemo.State   `json:"state,omitempty"`   // settle, reap, miss, release, fire, cancel: that the job is in now
	Reason    string          `json:"reason,omitempty"`
	Stale     bool            `json:"stale,omitempty"`     // settle: refused
	Silent    string          `json:"silent,omitempty"`    // reap: the peer from whom the job was taken
	Parent    string          `json:"parent,omitempty"`    // release: its id
	Schedule  string          `json:"schedule,omitempty"`  // fire, start: the schedule that made the job
	Instant   int64           `json:"instant,omitempty"`   // fire, start: of its rule, Unix ms
	Term      int64           `json:"term,omitempty"`      // lead
	Leading   bool            `json:"leading,omitempty"`   // lead
	Began     Moment          `json:"began,omitempty"`     // beat: when it was sent; At is when it was answered
	Partition int             `json:"partition,omitempty"` // beat
	Hello     *Hello          `json:"hello,omitempty"`
	Fault     string          `json:"fault,omitempty"`  // fault: its name
	Victim    string          `json:"victim,omitempty"` // fault: the process that it befell; "" all, or Redis
	On        bool            `json:"on,omitempty"`     // fault: it begins; otherwise it ends
}

// A Moment is a time by the host's monotonic clock, in nanoseconds: the same for all of its
// processes, and no clock that anybody sets.
type Moment int64

// Sub is the time from n to m.
func (m Moment) Sub(n Moment) time.Duration { return time.Duration(m - n) }

// Add is the moment d later.
func (m Moment) Add(d time.Duration) Moment { return m + Moment(d) }

// What an event is.
type What string

const (
	// Of clients: a call, and what became of it.
	Invoke  What = "invoke"
	OK      What = "ok"
	Refused What = "fail"    // it was said that nothing was done
	Unknown What = "unknown" // it was done or not

	// Of the witness: a handler was called, and is about to return.
	Start What = "start"
	End   What = "end"

	// Of peers, by their hooks: the store has answered.
	Claim   What = "claim"
	Settle  What = "settle"
	Reap    What = "reap"
	Miss    What = "miss"
	Release What = "release"
	Fire    What = "fire"
	Cancel  What = "cancel" // of clients, too
	Lead    What = "lead"
	Beat    What = "beat" // of a partition in which it holds runs, answered
	Repair  What = "repair"

	Begin What = "hello" // a peer is about to Run
	Leave What = "bye"   // its Run has returned; Err is what it returned

	Fault What = "fault" // of the nemesis
)

// Away is the fault that says for certain that no peer could reach Redis: On is said when that is
// so already, and the end before it is over. Those faults that bring it about have names of their
// own besides, and last longer.
const Away = "away"

// An Op is what a call asks for.
type Op string

const (
	Enqueue     Op = "enqueue"
	Submit      Op = "submit" // a workflow's job; all of a workflow have the same call
	PutSchedule Op = "schedule"
	CancelJob   Op = "cancel"
)

// A Wish is what a job, or the jobs of a schedule, are to be like, all defaults filled in.
type Wish struct {
	Retries    int           `json:"retries,omitempty"`
	Reruns     int           `json:"reruns,omitempty"`
	RetryAfter time.Duration `json:"retryAfter,omitempty"` // after an attempt that failed
	Delay      time.Duration `json:"delay,omitempty"`      // after it was accepted
	Grace      time.Duration `json:"grace,omitempty"`      // 0: unlimited
	Parents    []Parent      `json:"parents,omitempty"`
	Unique     string        `json:"unique,omitempty"`   // its key; at most one of a kind lives at a time
	Fails      int           `json:"fails,omitempty"`    // its first attempts that fail
	Poison     bool          `json:"poison,omitempty"`   // kills its process
	Quiet      bool          `json:"quiet,omitempty"`    // leaves no result
	Workflow   string        `json:"workflow,omitempty"` // the mark of all its workflow's jobs begins so
	Every      time.Duration `json:"every,omitempty"`    // schedule: between its instants, which are multiples of it since 1970
	// Forgotten: it is let go of as soon as it has succeeded, so it may be missing in the final state.
	Forgotten bool `json:"forgotten,omitempty"`
}

// A Parent of a job: it starts only if the parent ends in one of these states.
type Parent struct {
	Mark   string          `json:"mark"`
	States []dianemo.State `json:"states"`
}

// A Hello says how a peer is set up.
type Hello struct {
	PID         int           `json:"pid"`
	Partitions  int           `json:"partitions,omitempty"` // of the namespace; 0: not known here
	Tokens      int           `json:"tokens"`
	Reserve     map[int]int   `json:"reserve,omitempty"`
	BeatEvery   time.Duration `json:"beatEvery"`
	SilentAfter time.Duration `json:"silentAfter"`
	Lease       time.Duration `json:"lease"`
}
