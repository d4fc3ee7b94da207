package dianemo

import (
	"context"
	"time"
)

// A Store keeps the jobs. It is what stands between the decisions, which are
// taken in Go, and the edges, each of which is carried out atomically by the
// store if the job's state still allows it: one method per edge, and reads.
// redisstore has the one implementation.
//
// A namespace is divided into partitions. A job lives wholly in one, and each
// call goes to one. Every call that changes something may be sent twice, by the
// client library or by the network: it has the effect of once and the answer of
// the first. Calls that can't be told apart by what they say carry a [Call].
//
// Errors that are neither one of this package's sentinels nor a context's are
// passing: the same call may be sent again.
type Store interface {
	// Open checks that the namespace's layout fits this program, or makes it. It
	// returns ErrLayout if it does not fit. Until it has succeeded once,
	// Partitions and Partition must not be called.
	Open(ctx context.Context) error
	Partitions() int
	// Partition is where the job with this id lives.
	Partition(id string) int

	// Enqueue adds jobs to one partition: all that are new, in one step.
	Enqueue(ctx context.Context, partition int, call Call, records []Record) (EnqueueReply, error)
	// Turn carries out settle, then claim, in one round trip. The claim is left
	// out when its Limit is 0.
	Turn(ctx context.Context, partition int, call Call, settle []Settlement, claim Claim) (TurnReply, error)
	// Beat says that the peer is alive in this partition and holds these runs,
	// and keeps the progress that they report.
	Beat(ctx context.Context, partition int, beat Beat) (BeatReply, error)
	// Reap takes the runs of one silent peer from it, at most limit of them, and
	// is itself a sign of life in the partition. It does nothing and returns
	// ErrDeposed if a leader of a later term was here.
	Reap(ctx context.Context, partition int, call Call, chore Chore) (ReapReply, error)
	// Miss ends jobs whose grace is over and that nobody claims, at most
	// chore.Limit of them. ErrDeposed as with Reap.
	Miss(ctx context.Context, partition int, call Call, chore Chore) (MissReply, error)
	// Trim lets go of jobs that ended long ago or that are too many, at most
	// chore.Limit of them. ErrDeposed as with Reap.
	Trim(ctx context.Context, partition int, call Call, chore Chore) (TrimReply, error)
	// Repair looks at a part of a partition, in the order of a walk, and puts
	// right what does not hold together. ErrDeposed as with Reap, unless its Term
	// is 0.
	Repair(ctx context.Context, partition int, call Call, step RepairStep) (RepairReply, error)
	// Lead takes, renews or gives up the lease for the fleet's chores.
	Lead(ctx context.Context, bid Bid) (Lease, error)

	// Present shows the peer to readers, or takes it off the list, and checks
	// the layout anew (ErrLayout).
	Present(ctx context.Context, peer PeerInfo, gone bool) error
	// Declare says what is kept of the finished jobs of these kinds: as it is said
	// here, or, unless anew, only where nothing is said that can be read.
	Declare(ctx context.Context, keeps map[string]Keep, anew bool) error
	// Tell sends a message to one peer, or to all if peer is "". Best effort: what
	// it says stands in the store as well, and who did not hear it sees it at the
	// next tick or beat.
	Tell(ctx context.Context, peer string, message Message) error
	// Listen calls heard for each message to this peer or to all, until ctx ends.
	// When it may have missed some, it calls it with the zero Message.
	Listen(ctx context.Context, peer string, heard func(Message)) error

	// Get reads one job whole, or returns ErrNotFound.
	Get(ctx context.Context, id string) (*StoredJob, error)
	// Counts reads how many jobs there are by state, kind and priority, without
	// looking at the jobs.
	Counts(ctx context.Context) ([]Count, error)
	// Peers lists the live peers.
	Peers(ctx context.Context) ([]PeerInfo, error)
}

// ErrDeposed: a leader of a later term has done chores in this partition.
const ErrDeposed = storeError("dianemo: a later leader has been here")

type storeError string

func (e storeError) Error() string { return string(e) }

// Bounds of one call of a Store: how many jobs and bytes of specs or results
// it may carry.
const (
	MaxCallJobs  = 500
	MaxCallBytes = 1 << 20
)

// A Call names one mutating call: the store keeps the last number of each
// caller, by partition and edge, with its answer. The same number again gets
// that answer and changes nothing. A lower one is refused with ErrSuperseded:
// a caller sends a higher number only when it no longer waits for the lower.
type Call struct {
	Caller string
	Number uint64
}

// ErrSuperseded: the caller has made a later call; this one changed nothing now.
const ErrSuperseded = storeError("dianemo: a later call of this caller was here")

// A Message tells a peer where to look. It carries nothing itself, so a lost one
// costs time and nothing else. The zero Message says that some were missed.
type Message struct {
	Word      Word
	Partition int // for Look and BeatNow
}

// A Word says what a Message is about.
type Word string

const (
	Look    Word = "look" // the partition has work sooner than known
	BeatNow Word = "beat" // something was decided about runs of this peer in the partition
	ShowNow Word = "show" // something was decided about this peer, or all
)

// A Lane is where jobs wait for a claim. All its jobs have the same kind,
// priority, grace and weight override, so a claim need not look at each one's
// policy, and the head of a lane is what expires first.
type Lane struct {
	Kind     string
	Priority int
	Grace    time.Duration // Unlimited: no limit
	// Weight is 0 for jobs that cost what the claiming peer says their kind
	// costs; otherwise their own weight, rounded up to a power of two. What they
	// are charged is exact.
	Weight int
	// Again tells the jobs that have been run from those that have not. Past
	// their grace, the former end failed, the latter missed.
	Again bool
}

// A Record is a job on its way into the store.
type Record struct {
	ID     string
	Lane   Lane
	RunAt  time.Time     // zero: Delay counts
	Delay  time.Duration // from the store's now
	Weight int           // the exact override, or 0
	Reruns int           // the override (None for zero), or 0
	Spec   []byte        // the encoded job; see EncodeSpec
}

// EnqueueReply has one answer for each record.
type EnqueueReply struct {
	// Existing has the state of the job that was there already, or "" where the
	// record was accepted.
	Existing []State
	// Wake: some lane has work sooner than before.
	Wake bool
}

// An Outcome is how a run ended.
type Outcome string

const (
	Succeed  Outcome = "succeed"
	FailRun  Outcome = "fail"     // for good
	Retry    Outcome = "retry"    // failed, to be tried again
	Postpone Outcome = "snooze"   // to be started again, no attempt lost
	GiveBack Outcome = "giveback" // not finished, no attempt lost
	// Unstarted gives back what was claimed and never handed to a handler: the
	// job is as it was before the claim.
	Unstarted Outcome = "unstarted"
)

// state is what the outcome makes of the job.
func (o Outcome) state() State {
	switch o {
	case Succeed:
		return Succeeded
	case FailRun:
		return Failed
	}
	return Scheduled
}

// A Settlement says how one run ended. A turn has at most one of each run. It is refused as stale unless the job
// still runs under this peer and epoch.
type Settlement struct {
	ID      string
	Lane    Lane // where the job was claimed from
	Epoch   int64
	Outcome Outcome
	In      time.Duration // for Retry and Postpone: due anew after that long
	Reason  string        // one word, for JobInfo.Reason
	Error   string        // kept unless empty
	Result  []byte        // kept unless nil
	// Keep is what is kept of jobs of this kind that ended like this one; the
	// oldest of the others go. The zero value keeps all.
	Keep Retention
}

// A Claim asks for as much work as fits.
type Claim struct {
	Limit int // jobs at most; 0: no claim
	// Room is what may be claimed at each priority level: a job of level p and
	// weight w fits when w is at most Room[q] for all q <= p, and takes w from
	// each of these. Index 0 is unused.
	Room  [10]int
	Lanes []ClaimLane // in the order in which they are to be claimed
	// From is where the reply's page of lanes begins; see TurnReply.Next.
	From int
	// BeatEvery is this peer's beat interval, by which the store tells an outage
	// of its own from the silence of peers. SilentAfter is how long the peer may
	// be silent from this claim on.
	BeatEvery   time.Duration
	SilentAfter time.Duration
}

// A ClaimLane is a lane and what this peer's definition of the kind says.
type ClaimLane struct {
	Lane
	Weight int // tokens of a job without an override
	Reruns int // reruns of a job without an override; 0: none
}

// A TurnReply answers a turn.
type TurnReply struct {
	Stale []RunRef // of settlements that were refused
	// Wake: by what was settled, some lane has work sooner than before.
	Wake   bool
	Jobs   []Claimed
	Missed []Moved // found past their grace
	// Lanes is a page of the partition's lanes that have jobs, the earliest due
	// first, beginning at Claim.From. Next is where the following page begins, 0
	// if this was the last.
	Lanes []LaneHead
	Next  int
	// Now is the store's clock when it claimed.
	Now time.Time
}

// A LaneHead is a lane and the due time of its first job.
type LaneHead struct {
	Lane
	Due time.Time
}

// A Claimed job runs here now, under Epoch.
type Claimed struct {
	ID       string
	Lane     Lane
	Epoch    int64
	Due      time.Time
	Enqueued time.Time
	Weight   int // what it was charged
	Fails    int // attempts that failed before this run
	Reruns   int // runs lost with their peers before this run
	Runs     int // starts, this one included
	Spec     []byte
	// Corrupt says what is wrong with the job's record; it can't be run.
	Corrupt string
}

// Moved is a job that a chore moved on.
type Moved struct {
	ID       string
	State    State
	Kind     string
	Priority int
}

// A Beat is a peer's sign of life in one partition.
type Beat struct {
	Peer  string
	Every time.Duration // the peer's beat interval
	// SilentAfter is how long the peer may be silent from this beat on.
	SilentAfter time.Duration
	Runs        []HeldRun // what it holds there
}

// A HeldRun is a run that a peer believes to hold.
type HeldRun struct {
	ID       string
	Epoch    int64
	Progress *Progress // nil: nothing new
}

// A RunRef names one run. A peer may have two of a job, if it lost the first
// and claimed the job again before that one's handler returned.
type RunRef struct {
	ID    string
	Epoch int64
}

// BeatReply: which of the runs the peer does not hold any more, and how many
// the store says it does hold.
type BeatReply struct {
	Lost []RunRef
	Held int
}

// A Chore is what the leader does in one partition.
type Chore struct {
	Term        int64
	Limit       int           // jobs at most
	BeatEvery   time.Duration // for Reap: the leader's beat interval
	SilentAfter time.Duration // for Reap: the limit after an outage; otherwise each peer's own counts
}

// ReapReply says what was taken from whom. More: there is more to be done now.
type ReapReply struct {
	Peer string
	Jobs []Moved
	Wake bool
	More bool
}

// MissReply says which jobs ended. More: there is more to be done now.
type MissReply struct {
	Jobs []Moved
	More bool
}

// A Bid for the leader's lease.
type Bid struct {
	Peer   string
	Lease  time.Duration
	Resign bool
}

// A Lease is the answer to a bid. Term grows with every holding.
type Lease struct {
	Leader string // who holds it now
	Term   int64
}

// A Count is how many jobs of a kind and priority are in a state. The states
// are those of readers: Queued, Scheduled and Retrying are told apart. Retrying
// jobs that are due count as Retrying.
type Count struct {
	State    State
	Kind     string
	Priority int
	Jobs     int64
}

// A StoredJob is what the store knows of a job.
type StoredJob struct {
	Info JobInfo
	Spec []byte
}

// A PeerInfo is a live peer as it showed itself at its last beat.
type PeerInfo struct {
	ID      string
	Host    string
	PID     int
	Version string // of this library
	Started time.Time
	Seen    time.Time // its last beat, by the store's clock
	Kinds   []string
	Tokens  int
	Reserve map[int]int
	Running map[int]int // tokens in use, by priority
	Jobs    int         // jobs running
	Stuck   []string    // ids of jobs whose handlers ignore the end of their context
	Closing bool        // shutting down: claims nothing
	// SilentAfter is how long it may be silent before it counts as gone.
	SilentAfter time.Duration
}
