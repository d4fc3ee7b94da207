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
	// Turn carries out settle, then the stance, then claim, in one round trip. The
	// claim is left out when its Limit is 0.
	Turn(ctx context.Context, partition int, call Call, settle []Settlement, claim Claim) (TurnReply, error)
	// Beat says that the peer is alive in this partition and holds these runs,
	// and keeps the progress that they report.
	Beat(ctx context.Context, partition int, beat Beat) (BeatReply, error)
	// Survey reads what there is to do in each partition. With a chore it is the
	// leader's: a sign of life there, and it says who is silent. A [BrokenError]
	// may come with surveys: it says what was put right on the way.
	Survey(ctx context.Context, chore *Chore) ([]Survey, error)
	// Held reads the runs that the store says a peer holds in a partition.
	Held(ctx context.Context, partition int, peer string) ([]HeldJob, error)
	// Reap takes the runs of a silent peer from it, at most chore.Limit of them. It
	// does nothing and returns ErrDeposed if a leader of a later term was here.
	Reap(ctx context.Context, partition int, call Call, peer string, chore Chore) (ReapReply, error)
	// Miss ends jobs whose grace is over and that nobody claims, at most
	// chore.Limit of them. ErrDeposed as with Reap.
	Miss(ctx context.Context, partition int, call Call, chore Chore) (MissReply, error)
	// Cancel ends jobs that wait, and marks those that run: their peers learn it at
	// their next beats, and nothing starts them again. Of an ended job: a
	// StateError, unless it was cancelled.
	Cancel(ctx context.Context, partition int, call Call, ids []string) (WishReply, error)
	// Requeue makes ended jobs wait again, due now. A StateError for a job that
	// has not ended, an ExistsError if another holds its unique slot. If heed is set they
	// are blocked and wait for their parents, and for gates of their own.
	Requeue(ctx context.Context, partition int, call Call, ids []string, heed bool) (WishReply, error)
	// Reschedule changes when jobs that wait are due, or their priority. A
	// StateError for others. These three take at most MaxCallJobs ids, each once.
	Reschedule(ctx context.Context, partition int, call Call, ids []string, change Change) (WishReply, error)
	// Pause has claims in one partition pass over a kind's jobs, or no longer.
	Pause(ctx context.Context, partition int, kind string, on bool) error
	// Paused lists the kinds that are paused in any partition.
	Paused(ctx context.Context) ([]string, error)
	// Drain asks a peer to claim nothing more, or to claim again: it learns so from
	// Present. ErrNoPeer if no peer of this id has shown itself in the last day.
	Drain(ctx context.Context, peer string, on bool) error
	// Trim lets go of jobs that ended long ago or that are too many, at most
	// chore.Limit of them. ErrDeposed as with Reap.
	Trim(ctx context.Context, partition int, call Call, chore Chore) (TrimReply, error)
	// Repair looks at a part of a partition, in the order of a walk, and puts
	// right what does not hold together. ErrDeposed as with Reap, unless its Term
	// is 0.
	Repair(ctx context.Context, partition int, call Call, step RepairStep) (RepairReply, error)
	// Fire makes the occurrences of schedules that were decided, workflows behind gates
	// that Gates lists at once, each together with
	// the cursor by which it is never made again. ErrDeposed as with Reap, unless the
	// Term is 0; ErrStoreFull. The firings are of different schedules and have at most
	// MaxCallJobs occurrences, and MaxFireBytes, if there are several.
	Fire(ctx context.Context, partition int, call Call, fire Fire) (FireReply, error)
	// Need tells what jobs wait for, before they are enqueued, or that they are not. by is
	// the number of who says so, at most 15 digits: what others said before counts no more.
	// It reports for which of them nothing was done: most often since they exist.
	Need(ctx context.Context, partition int, telling Telling, by uint64, waits []Wait) ([]bool, error)
	// Children lists the children of a job after that one, in order: at last, with a "|"
	// before it, the workflow to which it belongs.
	Children(ctx context.Context, parent, after string, limit int) ([]string, error)
	// IsChild reports whether the one job waits, or waited, for the other.
	IsChild(ctx context.Context, parent, child string) (bool, error)
	// Members lists the jobs of a workflow after that one, in order.
	Members(ctx context.Context, workflow, after string, limit int) ([]string, error)
	// Link makes jobs the children of jobs of this partition, or makes them so no longer.
	// It returns the parents.
	Link(ctx context.Context, partition int, how Linking, ties []Tie) ([]Linked, error)
	// Heirs reads whose children are to be told, the next ones, and until when there are
	// some, as in Heirs.Since.
	Heirs(ctx context.Context, partition, parents, children int) (heirs []Heirs, until int64, err error)
	// Passed says that the children were told as Heirs said. It reports whether there
	// are more.
	Passed(ctx context.Context, partition int, heirs []Heirs) (bool, error)
	// Release tells children of this partition, and workflows, what their parents and jobs
	// have come to, at most MaxCallJobs. It counts once, however often it is told.
	Release(ctx context.Context, partition int, call Call, releases []Release) (ReleaseReply, error)
	// Expunge removes those of the jobs that are blocked or cancelled and never started:
	// what is left of a workflow that was never wholly submitted. It leaves those of which
	// not has told what they wait for.
	Expunge(ctx context.Context, partition int, not uint64, ids []string) error
	// Overdue is Miss for blocked jobs.
	Overdue(ctx context.Context, partition int, call Call, chore Chore) (MissReply, error)
	// Gates lists jobs and workflows whose gate has been closed for so long that whoever
	// was to open it has died, and workflows that a schedule has made.
	Gates(ctx context.Context, partition, limit int) ([]string, error)

	// Lead takes, renews or gives up the lease for the fleet's chores.
	Lead(ctx context.Context, bid Bid) (Lease, error)

	// SetSchedule makes, changes, pauses, resumes, sets aside or removes a schedule. It
	// reports whether that one is due, or will be before all others of the partition
	// that are not due yet. ErrMoved if it is not as the wish says, or if some of it is
	// to be fired first; ErrNoSchedule; ErrNewer; ErrStoreFull.
	SetSchedule(ctx context.Context, partition int, call Call, wish ScheduleWish) (first bool, err error)
	// Schedules reads those of a partition with these names, or, if names is nil, some
	// that are due, those first that are due for longest, without the first offset of
	// them. A name that is unknown is left out.
	Schedules(ctx context.Context, partition int, names []string, offset int) (SchedulesReply, error)
	// ScheduleNames lists the names after that one, in order, at most limit.
	ScheduleNames(ctx context.Context, after string, limit int) ([]string, error)

	// Present shows the peer to readers, or takes it off the list, and checks
	// the layout anew (ErrLayout). It returns whether the peer is to be drained.
	Present(ctx context.Context, peer PeerInfo, gone bool) (drained bool, err error)
	// Declare says what is kept of the finished jobs of these kinds: as it is said
	// here, or, unless anew, only where nothing is said that can be read.
	Declare(ctx context.Context, keeps map[string]Keep, anew bool) error
	// Wake tells the least loaded of the idle peers that handle the kind, and have
	// tokens for its priority, to look into the partition; or, for work that is due
	// later, the leader. It does not tell the peer except. Where there is nobody,
	// the next peer that stands idle hears of it. It reports whether somebody was
	// told.
	Wake(ctx context.Context, partition int, news News, except string) (bool, error)
	// Tell sends a message to one peer, or to all if peer is "". Best effort: what
	// it says stands in the store as well, and who did not hear it sees it at the
	// next tick or beat.
	Tell(ctx context.Context, peer string, message Message) error
	// Listen calls heard for each message to this peer or to all, until ctx ends.
	// When it may have missed some, it calls it with the zero Message.
	Listen(ctx context.Context, peer string, heard func(Message)) error

	// Get reads one job whole, or returns ErrNotFound.
	Get(ctx context.Context, id string) (*StoredJob, error)
	// Standings reads where jobs stand.
	Standings(ctx context.Context, ids []string) ([]Standing, error)
	// Specs reads jobs' specs, nil where there is none that can be read.
	Specs(ctx context.Context, ids []string) ([][]byte, error)
	// List reads a page of jobs; see Client.List for what it holds.
	List(ctx context.Context, listing Listing) (ListReply, error)
	// Counts reads how many jobs there are by state, kind and priority, without
	// looking at the jobs.
	Counts(ctx context.Context) ([]Count, error)
	// Ahead is the store's clock, and how many due jobs of the partition go before
	// one of this priority that was due then.
	Ahead(ctx context.Context, partition, priority int, due time.Time) (now time.Time, jobs int64, err error)
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
	// MaxFireBytes is the same for calls that read or fire several schedules.
	MaxFireBytes = 256 << 10
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

// A Message tells a peer where to look. Nothing depends on it, so a lost one
// costs time and nothing else. The zero Message says that some were missed.
type Message struct {
	Word      Word
	Partition int       // for Look, BeatNow and KeepNear; for the first two it may be Everywhere
	Kind      string    // for Look: of the work, or ""
	Near      []NearJob // for KeepNear
}

// A NearJob is kept for a peer until then: it is due at that time, and that peer may
// claim it before.
type NearJob struct {
	ID    string
	Lane  Lane
	Until time.Time // by the store's clock
}

// Everywhere stands for all partitions.
const Everywhere = -1

// A Word says what a Message is about.
type Word string

const (
	Look     Word = "look" // the partition has work sooner than known
	BeatNow  Word = "beat" // something was decided about runs of this peer in the partition
	ShowNow  Word = "show" // something was decided about this peer, or all
	BidNow   Word = "bid"  // the leader has left
	KeepNear Word = "near" // jobs of the partition are kept for this peer
	FireNow  Word = "fire" // a schedule of the partition, or Everywhere, is due sooner than known; for the leader
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

// Lightest is what the lightest job weighs that the lane can hold; 0: what the
// peer's kind weighs.
func (l Lane) Lightest() int {
	if l.Weight == 0 {
		return 0
	}
	return l.Weight/2 + 1
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
	// Blocked: it waits for what Need was told, and after that until RunAt.
	Blocked bool
	Parents []Parent
	// Teller is who has told what it waits for: see Need. If another has since, or its gate
	// was voided, it is not accepted, and is among those that have moved.
	Teller uint64
	Ahead  time.Duration // how much earlier than others it is due when it is released
	// Unique is the zero value for most; else the slot that it takes, one of its
	// kind's. The ids of all jobs with this key must have the same partition.
	Unique Unique
}

// EnqueueReply has one answer for each record.
type EnqueueReply struct {
	// Existing has the state of the job that was there already, or "" where the
	// record was accepted.
	Existing []State
	// Holders has, by their places, the records that were refused for their
	// unique slots, and the ids of the jobs that hold them. Nil where there is none.
	Holders map[int]string
	// Moved are the places of records for which nothing was done, because who
	// holds their slot changed meanwhile: to be enqueued again, by a new call.
	Moved []int
	News  []News
}

// News: a lane has work of this kind and priority sooner than before.
type News struct {
	Kind     string
	Priority int
	Weight   int  // the lightest that it can be; 0: what the peer's kind weighs
	Later    bool // not due yet
	Fire     bool // no job but a schedule, which is the leader's to fire; the other fields are zero
}

// WishReply has one answer for each id of a Cancel, Requeue or Reschedule.
type WishReply struct {
	Jobs []Wished
	News []News
}

// Wished is what became of one job. Err is nil if it was done, or had been
// before, and ErrMoved if the job moved meanwhile: nothing was done, and a new
// call may be made.
type Wished struct {
	Moved
	Peer string // Cancel: who runs it
	Err  error
}

// An Outcome is how a run ended.
type Outcome string

const (
	Succeed  Outcome = "succeed"
	FailRun  Outcome = "fail"     // for good
	Retry    Outcome = "retry"    // failed, to be tried again
	Postpone Outcome = "snooze"   // to be started again, no attempt lost
	GiveBack Outcome = "giveback" // not finished, no attempt lost
	// CancelRun ends the job cancelled. Where someone has cancelled the job, so do
	// the three before this one and the one after.
	CancelRun Outcome = "cancel"
	// Unstarted gives back what was claimed and never handed to a handler: the
	// job is as it was before the claim.
	Unstarted Outcome = "unstarted"
	// Lost: its peer went silent. Only readers meet it, in a Run.
	Lost Outcome = "lost"
)

// state is what the outcome makes of the job.
func (o Outcome) state() State {
	switch o {
	case Succeed:
		return Succeeded
	case FailRun:
		return Failed
	case CancelRun:
		return Cancelled
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
	Own     bool          // a FailRun that its handler asked for, with Fail: it counts even if the job was cancelled meanwhile
	In      time.Duration // for Retry and Postpone: due anew after that long
	Reason  string        // one word, for JobInfo.Reason
	Error   string        // kept unless empty
	Result  []byte        // kept unless nil
	Decides bool          // of a Succeed: of its children those in Chosen go on, the others are left out
	Chosen  []string
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
	// Near are jobs that it may take from these lanes although they are not due yet,
	// each once. They are due when it does.
	Near []NearJob
	// From is where the reply's page of lanes begins; see TurnReply.Next.
	From int
	// Stance says whether the peer stands among the idle from now on; it may come
	// without a claim.
	Stance Stance
	// Hold asks to be the one peer that saves tokens for this lane's first job, for
	// two beat intervals. A claim from the lane ends it.
	Hold *Lane
	// BeatEvery is this peer's beat interval, by which the store tells an outage
	// of its own from the silence of peers. SilentAfter is how long the peer may
	// be silent from this claim on.
	BeatEvery   time.Duration
	SilentAfter time.Duration
}

// A Stance changes whether a peer is one of those that Wake may choose. The zero
// Stance leaves it as it is.
type Stance struct {
	Move  Move
	Level int            // the least urgent priority for which it has tokens
	Room  [10]int        // what a job of each priority, 1 to Level, may weigh
	Load  float64        // 0 to 1: of those with the same level, the least loaded is chosen first
	Kinds map[string]int // that it handles, and what they weigh
}

// A Move says which way.
type Move int8

const (
	Up   Move = iota + 1 // it has tokens to spare
	Down                 // it has not
)

// A ClaimLane is a lane and what this peer's definition of the kind says.
type ClaimLane struct {
	Lane
	Weight int // tokens of a job without an override
	Reruns int // reruns of a job without an override; 0: none
}

// A TurnReply answers a turn.
type TurnReply struct {
	Stale []RunRef // of settlements that were refused
	Heirs bool     // jobs that have children have ended
	// Cancelled are the runs whose jobs were to wait again and ended cancelled
	// instead, since someone had cancelled them.
	Cancelled []RunRef
	News      []News // by what was settled
	// Unheard are partitions in which there was news of this peer's kinds when
	// nobody stood idle. Only where the claim's stance is Up.
	Unheard []int
	Jobs    []Claimed
	Missed  []Moved // found past their grace
	// Lanes is a page of the partition's lanes that have jobs, the earliest due
	// first, beginning at Claim.From. Next is where the following page begins, 0
	// if this was the last.
	Lanes []LaneHead
	Next  int
	// Paused are the kinds whose lanes the claim passed over.
	Paused []string
	// Held: the peer holds the lane that Claim.Hold names.
	Held bool
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
	// Cancelled: someone has cancelled it since it was claimed, in an answer that
	// is given again.
	Cancelled bool
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

// A HeldJob is a run as the store knows it. Again: its job may be started anew.
type HeldJob struct {
	RunRef
	Lane  Lane
	Again bool
}

// BeatReply: which of the runs the peer does not hold any more, which of the
// others' jobs someone has cancelled, and how many the store says it does hold.
type BeatReply struct {
	Lost      []RunRef
	Cancelled []RunRef
	Held      int
}

// A Chore is what the leader does in one partition.
type Chore struct {
	Term        int64
	Limit       int           // jobs at most
	BeatEvery   time.Duration // the leader's beat interval
	SilentAfter time.Duration // the limit after an outage; otherwise each peer's own counts
}

// A Survey is what there is to do in a partition.
type Survey struct {
	Partition  int
	Now        time.Time  // by the store's clock
	Lanes      []LaneHead // the earliest due first
	Next       int        // as in TurnReply
	Silent     []string   // some peers, for the leader
	MoreSilent bool       // there may be others
	Deposed    bool       // a leader of a later term was here
	Heirs      bool       // children are to be released
	Late       bool       // a blocked job is overdue, or a gate was left closed
	Fires      time.Time  // when the first schedule is due; zero: never
	Err        error      // why the rest is missing
}

// A Wait is what a job waits for.
type Wait struct {
	ID      string
	Parents []Parent
	Gate    Gate
}

// A Gate is what a job also waits for, since not all is there yet that belongs to it.
type Gate string

const (
	OwnGate Gate = "own" // voided if nobody opens it in time
	ItsGate Gate = "its" // opened, or voided, with its workflow's
)

// Telling is what Need does.
type Telling string

const (
	TellIt   Telling = "tell"
	ForgetIt Telling = "forget" // the job was not enqueued
	DropIt   Telling = "drop"   // the job waits for these parents no longer
	JoinIt   Telling = "join"   // a workflow whose gate is closed waits for these jobs
)

// Linking is what Link does.
type Linking string

const (
	LinkTo   Linking = "link"
	ExpectOf Linking = "expect" // the parent may be enqueued later
	Unlink   Linking = "unlink"
	Enlist   Linking = "enlist" // a workflow and its job
	Delist   Linking = "delist"
)

// A Tie is between a parent and a child.
type Tie struct{ Parent, Child string }

// Linked is a parent as Link found it. State is "" for one that does not exist.
type Linked struct {
	State State
	Peer  string // of its last run
}

// Heirs are children that are to be told what has become of their parent. Where Listed
// is set, the parent is a workflow, its jobs are to be told of its gate, and State is Open
// or Void. If the parent has not ended, or no longer has, only workflows are to be told.
type Heirs struct {
	Parent   string
	Listed   bool
	Since    int64 // since when they are to be told, as the store knows it
	Number   int64 // of what has become of the parent: it grows
	State    State // the parent's; Unchosen, Gone; where Listed, Open, Void or Closed
	Reason   string
	Peer     string // of its last run
	Teller   uint64 // where Listed: who has told what the workflow waits for
	Decides  bool   // it was a decision, and
	Chosen   []string
	After    string
	All      bool // there are no more
	Children []string
}

// A Release tells a child what one of its parents has come to, or a workflow one of its
// jobs; or, if Parent is "", that the gate is Open or Void.
type Release struct {
	Child, Parent string
	State         State
	Number        int64  // as in Heirs: what has a lower one than was told before is old
	Peer          string // that ran the parent
	Teller        uint64 // if not 0, the gate is only turned if this one has told what the job waits for
}

// What a Release may say besides a job's states.
const (
	Open State = "open"
	Void State = "void" // it will not be opened: the job is cancelled
	// Withdrawn is for jobs of a cancelled workflow: they are cancelled if they are blocked.
	Withdrawn State = "withdrawn"
	Unchosen  State = "unchosen" // skipped, since a decision left it out; or left out itself
	Gone      State = "gone"     // there is no such job
)

// ReleaseReply has an answer for each release.
type ReleaseReply struct {
	Jobs  []Released
	Moved []int // places of those for which nothing was done: to be told again, by a new call
	News  []News
	Heirs bool // there are children to be told in turn
}

// A Released job is in that state now; State is "" if the release meant nothing to it.
type Released struct {
	Moved
	Lane    Lane
	Revived bool      // it had ended, and no longer has
	Number  int64     // its own, if it was revived
	Near    string    // the peer for which it is kept
	Until   time.Time // until it is due, then; zero unless Near is set
	Corrupt bool      // what it waits for could not be read: it ends
}

// A Standing is where a job stands, as stored: one that waits in its lane is Scheduled.
// State is "" where there is no job, or Unreadable.
type Standing struct {
	State  State
	Reason string
}

// A StoredSchedule is what the store knows of a schedule.
type StoredSchedule struct {
	Name       string
	Definition []byte        // nil: it is gone
	Version    int64         // of the definition; 0: there is no cursor
	State      ScheduleState // Active, Paused, Broken
	Reason     string        // why it is broken
	Cursor     time.Time     // the last instant that was decided, or when it was made
	Seen       time.Time     // until when it was seen to wait for its last occurrence; zero: it does not
	Last       string        // id of the last occurrence that was made; "" for none
	LastState  State         // of its job, as stored; "" if it is gone
	LastEnded  time.Time
	Unrecorded Unrecorded
	Next       time.Time // when it is to be looked at; zero: never
	Err        error     // why the rest is missing: what is stored is corrupt, or a newer version's
}

// SchedulesReply: fewer schedules than asked for, if they are large, but one at
// least.
type SchedulesReply struct {
	Asked     int       // how many of the names, or of those that are due, were looked at, from the first on
	Now       time.Time // the store's clock
	Later     time.Time // when the first schedule of the partition that is not due yet will be; zero: never
	Due       int       // how many of the partition are due
	Schedules []StoredSchedule
}

// A ScheduleWish says what is to become of a schedule.
type ScheduleWish struct {
	Name string
	What ScheduleChange
	// Version is that of the definition by which this was decided; 0: there was
	// none; AnyVersion.
	Version    int64
	Definition []byte    // for PutIt
	Reason     string    // for BreakIt
	Cursor     time.Time // for PutIt and ResumeIt; zero: as it is
	From       time.Time // for the same: the cursor that Cursor takes the place of; zero: whatever there is
	Next       time.Time // for the same: when it is due; zero: never
}

// AnyVersion in a ScheduleWish: whatever there is.
const AnyVersion = -1

// A ScheduleChange says which wish it is.
type ScheduleChange string

const (
	PutIt    ScheduleChange = "put"
	PauseIt  ScheduleChange = "pause"
	ResumeIt ScheduleChange = "resume"
	BreakIt  ScheduleChange = "break" // set aside, since it can't be fired
	RemoveIt ScheduleChange = "remove"
)

// A Fire is a call's worth of firings.
type Fire struct {
	Term    int64 // 0: not a chore of the leader
	Firings []Firing
}

// A Firing is what was decided about one schedule.
type Firing struct {
	Name    string
	Version int64     // of the definition by which it was decided
	Cursor  time.Time // from which it was decided
	// To is the cursor afterwards; Hold the same, if what is to be run has to wait.
	To, Hold    time.Time
	Next        time.Time     // when it is to be looked at next; zero: never
	Pending     bool          // more is due, and waits for the last occurrence: looked at again soon
	Again       time.Duration // how soon it is looked at again while it waits
	Extra       bool          // out of turn: the cursor stays
	Unrecorded  Unrecorded
	Overlap     Overlap
	Occurrences []Occurrence // in order
}

// An Occurrence is a job that a schedule makes.
type Occurrence struct {
	At     time.Time
	Missed bool // it is recorded, and not to be run
	Record
}

// FireReply has an answer for each firing. First: one of the schedules is due again,
// or will be before all that are not due yet.
type FireReply struct {
	Fired []Fired
	News  []News
	First bool
}

// Fired is what became of a firing.
type Fired struct {
	// Done is false if another has decided, or the schedule has changed or is paused:
	// nothing was done.
	Done    bool
	Waits   bool   // what is to be run was left, since the last occurrence has not ended
	Running string // that one's id
	// States has, for each occurrence, Scheduled, or Blocked for a workflow, Missed or
	// Skipped; "" if its job exists already, or was left.
	States []State
}

// ReapReply says what was taken. More: there is more to be done now.
type ReapReply struct {
	Jobs []Moved
	News []News
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

// Unreadable is where a job stands whose record this program can't read.
const Unreadable State = "unreadable"

// A Listing asks for a page of jobs. Its Filter is checked and has its
// defaults; After counts in place of Filter.After.
type Listing struct {
	Filter
	After Place
	Bare  bool // without what only the jobs' specs say
}

// A Place is one in the order of a list: by time, then by id. The zero Place is
// the beginning.
type Place struct {
	Time time.Time // to the microsecond
	ID   string
}

// ListReply: Next is the place after which to go on, the zero Place if there is
// nothing more. The jobs have no result, history or progress.
type ListReply struct {
	Jobs []StoredJob
	Next Place
	// Now is the store's clock before it read anything; on a cluster, some node's.
	Now time.Time
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
	Weights map[string]int // of the kinds that do not cost one token
	Tokens  int            // now; see [Peer.SetTokens]
	// Available is what the load leaves of Tokens, before what runs is
	// subtracted; 0 while the host is Hot.
	Available int
	// Load is the share of the CPUs that counts: what others use, or with
	// CountSelf all. It is 0 unless LoadKnown.
	Load      float64
	LoadKnown bool
	Hot       bool
	Pressure  *float64 // as in [Load]
	Reserve   map[int]int
	Running   map[int]int // tokens in use, by priority
	Jobs      int         // jobs running
	Stuck     []string    // ids of jobs whose handlers ignore the end of their context
	Closing   bool        // shutting down: claims nothing
	// Draining: it has heard that it was drained, and claims nothing; what it runs
	// goes on.
	Draining bool
	// SilentAfter is how long it may be silent before it counts as gone.
	SilentAfter time.Duration
	Built       time.Time // see Config
}
