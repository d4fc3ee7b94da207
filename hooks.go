package dianemo

import "time"

// Hooks are optional functions that a peer or client calls after an edge, one
// for each; logs, metrics and traces hang there. They are called from the
// engine's own goroutines, often many at a time: they must be quick and must
// not panic.
type Hooks struct {
	Enqueue func(EnqueueInfo) // for each job of an Enqueue that was answered
	Claim   func(ClaimInfo)   // for each job, before its handler starts
	Settle  func(SettleInfo)  // for each run, once the store has answered
	Beat    func(BeatInfo)    // for each beat of a partition
	Reap    func(ReapInfo)    // for each job, on the leader
	Miss    func(MissInfo)    // for each job, on whoever found it
	Release func(ReleaseInfo) // for each child that a parent's end has moved, on whoever told it
	Fire    func(FireInfo)    // for each occurrence, on whoever fired it
	Lead    func(LeadInfo)    // when this peer takes or loses the lease
	Load    func(LoadInfo)    // for each sample of the load, and each that could not be had

	// For each job of a Cancel, Requeue or Reschedule that was answered, on whoever
	// called it. A job that an enqueue replaced is told to none.
	Cancel, Requeue, Reschedule func(WishInfo)
	// For each lane that is due and has jobs that no live peer can run: looked for
	// once in twelve beats, on the leader, and told once until it is no longer so.
	Stranded func(StrandedInfo)
	Trim     func(TrimInfo)   // for each step of retention that let go of jobs, on the leader
	Repair   func(RepairInfo) // for each thing put right, on whoever did it
}

// EnqueueInfo: Err is nil, an ExistsError, or what kept the call from being
// answered.
type EnqueueInfo struct {
	ID, Kind string
	Priority int
	Err      error
}

// ReleaseInfo is a child that hears what a parent has come to.
type ReleaseInfo struct {
	ID, Kind string
	Priority int
	State    State  // that it is in now: Scheduled, Skipped, Blocked still, Cancelled
	Parent   string // "" if it was its gate
}

// FireInfo is an occurrence of a schedule.
type FireInfo struct {
	Schedule string
	ID, Kind string
	Priority int
	At       time.Time     // the instant of its rule
	State    State         // Scheduled, Missed or Skipped; Blocked: a workflow
	Late     time.Duration // after it was due, jitter included
}

// ClaimInfo is a run that begins.
type ClaimInfo struct {
	ID, Kind string
	Priority int
	Weight   int
	Attempt  int
	Epoch    int64
	Due      time.Time
	Waited   time.Duration // from due to the claim, by the store's clock
}

// SettleInfo is a run that has ended.
type SettleInfo struct {
	ID, Kind string
	Priority int
	Weight   int
	Epoch    int64
	Outcome  Outcome
	State    State // that the job is in now, unless Stale: Succeeded, Failed, Cancelled, or Scheduled again
	Reason   string
	Error    string
	Took     time.Duration // from start to return
	Stale    bool          // the store refused it: the run was no longer this peer's
}

// BeatInfo is one beat of one partition.
type BeatInfo struct {
	Partition int
	Runs      int      // held by this peer
	Lost      []string // ids of jobs whose runs are newly found not to be this peer's
	Cancelled []string // ids of jobs newly found to be cancelled
	Stuck     []string // ids of jobs newly found to ignore the end of their context
	Took      time.Duration
	Err       error
}

// ReapInfo is a job taken from a silent peer.
type ReapInfo struct {
	ID, Kind string
	Priority int
	Peer     string
	State    State // Scheduled again, or Unreachable
}

// WishInfo is what became of an operator's wish about one job. Kind is "" and
// Priority 0 where there is no such job.
type WishInfo struct {
	ID, Kind string
	Priority int
	State    State // that the job is in now
	Err      error // nil, ErrNotFound, a StateError, an ExistsError, ErrMoved
}

// MissInfo is a job that was not started within its grace.
type MissInfo struct {
	ID, Kind string
	Priority int
	State    State // Missed, or Failed if it had been run before
}

// LeadInfo says that this peer leads, or no longer does.
type LeadInfo struct {
	Leading bool
	Term    int64
}

// LoadInfo is a sample of the load and what it makes of a peer's tokens.
type LoadInfo struct {
	Load  Load    // the last good one
	Known bool    // false: there was none, or none of the last ten was good
	Share float64 // that counts: of others, or with CountSelf of all; 0 if not Known
	Hot   bool    // nothing is claimed
	// Available is what the load leaves of the peer's Tokens, before what runs
	// here is subtracted.
	Tokens, Available int
	Err               error // why this sample is not a good one
}

// StrandedInfo is about jobs that are due and that no live peer can run: their
// Cause is CauseNoHandler or CauseUnplaceable. See [Client.Why].
type StrandedInfo struct {
	Kind     string
	Priority int
	Weight   int // about what they weigh, if they have weights of their own; else 0
	Cause    Cause
	Due      time.Time // of the first
}

// TrimInfo says that retention let go of finished jobs.
type TrimInfo struct {
	Partition int
	Jobs      int
}

// RepairInfo is one thing that was put right.
type RepairInfo struct {
	Partition int
	Repaired
}

// filled returns hooks in which nothing is nil.
func (h *Hooks) filled() Hooks {
	var f Hooks
	if h != nil {
		f = *h
	}
	fill(&f.Enqueue)
	fill(&f.Claim)
	fill(&f.Settle)
	fill(&f.Beat)
	fill(&f.Reap)
	fill(&f.Miss)
	fill(&f.Fire)
	fill(&f.Release)
	fill(&f.Lead)
	fill(&f.Cancel)
	fill(&f.Requeue)
	fill(&f.Reschedule)
	fill(&f.Load)
	fill(&f.Stranded)
	fill(&f.Trim)
	fill(&f.Repair)
	return f
}

func fill[T any](hook *func(T)) {
	if *hook == nil {
		*hook = func(T) {}
	}
}
