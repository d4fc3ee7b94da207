package dianemo

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A State says where a job stands. The first three groups are what the store
// distinguishes; Queued and Retrying are how a reader sees jobs that wait in a
// lane.
type State string

const (
	// Blocked: has parents that have not ended. Moved on by release, cancel or miss.
	Blocked State = "blocked"
	// Scheduled: in its lane, due later, never run. Moved on by claim, cancel or miss.
	Scheduled State = "scheduled"
	// Queued is a scheduled job, never run, that is due.
	Queued State = "queued"
	// Retrying is a scheduled job that has been run, due or not.
	Retrying State = "retrying"
	// Running: claimed by a peer under an epoch. Moved on by settle or reap; cancel marks it.
	Running State = "running"

	Succeeded   State = "succeeded"   // the handler returned nil
	Failed      State = "failed"      // the last allowed attempt failed
	Missed      State = "missed"      // not started within its grace; never started at all
	Unreachable State = "unreachable" // its peer went silent, and it may not run again
	Cancelled   State = "cancelled"   // by someone's wish
	Skipped     State = "skipped"     // a parent ended otherwise than needed, or another occurrence of its schedule had not ended
)

// Finished reports whether a job in this state has ended. Only an operator's
// requeue moves it on.
func (s State) Finished() bool {
	switch s {
	case Succeeded, Failed, Missed, Unreachable, Cancelled, Skipped:
		return true
	}
	return false
}

// An Edge is a way from one state to another, or a chore of the fleet. Its
// name is the same in the state table, the Store, the script and the hook.
type Edge string

const (
	EdgeEnqueue    Edge = "enqueue"
	EdgeClaim      Edge = "claim"
	EdgeSettle     Edge = "settle"
	EdgeRelease    Edge = "release"
	EdgeBeat       Edge = "beat"
	EdgeReap       Edge = "reap"
	EdgeMiss       Edge = "miss"
	EdgeCancel     Edge = "cancel"
	EdgeRequeue    Edge = "requeue"
	EdgeReschedule Edge = "reschedule"
	EdgeFire       Edge = "fire"
	EdgeLead       Edge = "lead"
)

// Edges is the state table: for each stored state, the states to which an edge
// may take a job. A pair that is missing here is refused by the scripts. Beat and
// lead move no job.
var Edges = map[State]map[Edge][]State{
	"": {EdgeEnqueue: {Scheduled, Blocked}, EdgeFire: {Scheduled, Missed, Skipped}},

	// An enqueue may replace the job that holds its unique slot, if that has not
	// been started.
	// Cancelled is for a job whose gate was never opened.
	Blocked: {EdgeRelease: {Scheduled, Skipped, Cancelled}, EdgeCancel: {Cancelled}, EdgeMiss: {Missed}, EdgeEnqueue: {Cancelled}},
	Scheduled: {EdgeClaim: {Running, Missed, Failed}, EdgeCancel: {Cancelled}, EdgeReschedule: {Scheduled}, EdgeEnqueue: {Cancelled},
		// A job that has been run and is not picked up within its grace ends failed:
		// missed means never started.
		EdgeMiss: {Missed, Failed}},
	// A cancelled job goes on until its handler has returned.
	Running: {EdgeSettle: {Succeeded, Failed, Scheduled, Cancelled}, EdgeReap: {Scheduled, Unreachable, Cancelled},
		EdgeCancel: {Running}},

	// A requeue that heeds parents, as a workflow's does, waits for them.
	Succeeded:   {EdgeRequeue: {Scheduled, Blocked}},
	Failed:      {EdgeRequeue: {Scheduled, Blocked}},
	Missed:      {EdgeRequeue: {Scheduled, Blocked}},
	Unreachable: {EdgeRequeue: {Scheduled, Blocked}},
	Cancelled:   {EdgeRequeue: {Scheduled, Blocked}},
	Skipped:     {EdgeRequeue: {Scheduled, Blocked}, EdgeRelease: {Scheduled, Blocked}},
}

// WorkflowEdges is the same for workflows, which are blocked until their jobs have ended,
// and again when one of these is to run again. What is missing moves none.
var WorkflowEdges = map[State]map[Edge][]State{
	"": {EdgeEnqueue: {Blocked}, EdgeFire: {Blocked, Missed, Skipped}},
	// A cancel marks it; it ends when its jobs have.
	Blocked:   {EdgeRelease: {Succeeded, Failed, Cancelled}, EdgeCancel: {Blocked}},
	Succeeded: {EdgeRelease: {Blocked, Failed, Cancelled}},
	Failed:    {EdgeRelease: {Blocked, Succeeded, Cancelled}},
	// One that was never wholly submitted may be submitted anew.
	Cancelled: {EdgeRelease: {Blocked, Succeeded, Failed}, EdgeEnqueue: {Blocked}},
}

// A Job is what a handler gets: one run of one job.
type Job[Args any] struct {
	ID string
	// Kind is the name under which the job was enqueued: an alias, where the
	// handler's kind has one; see [Kind.Aliases].
	Kind string
	Args Args
	// Attempt is 1 for the first attempt and grows with every attempt that
	// failed or was lost with its peer; a snooze or a shutdown costs none.
	Attempt  int
	Priority int
	Weight   int // tokens charged while this run lasts
	// Epoch grows with every run of this job, by the store's clock. Hand it to
	// other systems as a fencing token: of two runs the one with the higher
	// epoch is the valid one.
	Epoch      int64
	Due        time.Time // when it was to start, to the millisecond
	EnqueuedAt time.Time // by the store's clock, to the millisecond
	// Headers are those of the job's Options; nil if it had none.
	Headers map[string]string
	// Schedule is the schedule that made the job, "" for none, and ScheduledFor the
	// instant of its rule: what a nightly job works on should depend on this, not on
	// when it runs.
	Schedule     string
	ScheduledFor time.Time
	// Parents are those of its Options, if they were at most 1000. See [ParentResult].
	Parents []Parent
	// Workflow is the workflow of which this is a job, "" for none, and Name its name
	// there.
	Workflow, Name string

	run *run // nil in a Job that a test made
}

// Progress says how far the run is; readers see it within about a second. It
// never blocks and keeps only the last report; note is cut at 256 bytes. In a Job
// that a test made for a handler, it does nothing.
func (j *Job[Args]) Progress(done, total int64, note string) {
	if j.run != nil {
		j.run.setProgress(done, total, note)
	}
}

// SetResult keeps v, encoded as JSON, as the job's result, readable once the
// job has succeeded. The last call counts. It returns a [FieldError] when v
// does not marshal or takes more than [MaxPayload] bytes.
func (j *Job[Args]) SetResult(v any) error {
	b, err := encodeResult(v)
	if err == nil && j.run != nil {
		j.run.setResult(b)
	}
	return err
}

// A JobInfo is a job as readers see it.
type JobInfo struct {
	ID         string
	Kind       string
	State      State
	Priority   int
	Weight     int           // 0: the claiming peer's definition of the kind decides
	Grace      time.Duration // Unlimited: no limit
	Due        time.Time
	EnqueuedAt time.Time
	StartedAt  time.Time // the last run's start; zero if it never ran
	EndedAt    time.Time // zero unless State.Finished
	Attempt    int       // attempts begun, those of snoozes and shutdowns not counted
	Runs       int       // starts in all
	Peer       string    // of the last run
	Epoch      int64     // of the last run; 0 if it never ran
	// UniqueKey is that of its Options; "" for none.
	UniqueKey string
	// Reason is one word on why the job ended or waits again: error, timeout,
	// panic, grace, silent, lost, shutdown, corrupt, cancel, replaced, requeue, late,
	// overlap, parent (ended otherwise), choice (a decision left it out, or it chose), gate
	// (it was never wholly enqueued), workflow (that was cancelled, or never wholly submitted),
	// job (one of the workflow's ended so).
	// Empty where the state says it all. A running job with reason cancel is
	// cancelled, and its handler has not returned yet.
	Reason string
	// History has the job's runs, oldest first: the present one or the one that
	// succeeded, and of those that ended otherwise the last MaxHistory.
	History  []Run
	Progress Progress
	Headers  map[string]string
	// Schedule is the schedule that made the job, "" for none, and ScheduledFor the
	// instant of its rule.
	Schedule     string
	ScheduledFor time.Time
	// Parents are those of its Options, if they were at most 1000; otherwise ManyParents is
	// how many.
	Parents     []Parent
	ManyParents int
	// Workflow is the workflow of which this is a job, "" for none, and Name its name
	// there.
	Workflow, Name string
	// Chosen are, of a decision that succeeded, the ids of the children that go on: see
	// [Job.Choose].
	Chosen []string
	Args   json.RawMessage
	Result json.RawMessage // nil: none was set
}

// DecodeArgs unmarshals the job's arguments into v.
func (i *JobInfo) DecodeArgs(v any) error {
	if err := json.Unmarshal(i.Args, v); err != nil {
		return fmt.Errorf("dianemo: decode args of job %s: %w", i.ID, err)
	}
	return nil
}

// DecodeResult unmarshals the job's result into v; without a result it leaves
// v alone and returns ErrNotFound.
func (i *JobInfo) DecodeResult(v any) error {
	if i.Result == nil {
		return fmt.Errorf("dianemo: result of job %s: %w", i.ID, ErrNotFound)
	}
	if err := json.Unmarshal(i.Result, v); err != nil {
		return fmt.Errorf("dianemo: decode result of job %s: %w", i.ID, err)
	}
	return nil
}

// LastError is what the last run that ended with an error said, or "".
func (i *JobInfo) LastError() string {
	for _, r := range slices.Backward(i.History) {
		if r.Error != "" {
			return r.Error
		}
	}
	return ""
}

// ResultOf decodes a job's result. Without one it returns [ErrNotFound]; a job
// has one only if it succeeded and its handler called SetResult.
func ResultOf[R any](info *JobInfo) (R, error) {
	var result, none R
	if info == nil {
		return none, &FieldError{"ResultOf(info)", nil, "a JobInfo"}
	}
	if err := info.DecodeResult(&result); err != nil {
		return none, err
	}
	return result, nil
}

// A Run is one run of a job as readers see it. A run that was claimed and never
// handed to a handler is none.
type Run struct {
	Epoch     int64
	Peer      string
	StartedAt time.Time // by the store's clock, to the millisecond, as is EndedAt
	EndedAt   time.Time // zero while it runs
	Outcome   Outcome   // "" while it runs
	// Reason is one word: error, timeout, panic, snooze, shutdown, silent, corrupt.
	Reason string
	Error  string // at most 4 KiB
}

// Progress is a run's last report, or the zero value. Stuck is set for a
// run whose context ended and whose handler still has not returned.
type Progress struct {
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Note  string `json:"note,omitempty"`
	Stuck bool   `json:"stuck,omitempty"`
}

// An outcome is what a handler may return besides nil and a plain error.
type outcome struct {
	verdict verdict
	in      time.Duration
	err     error
}

type verdict uint8

const (
	verdictRetry verdict = iota + 1
	verdictSnooze
	verdictFail
)

func (o *outcome) Error() string {
	switch o.verdict {
	case verdictRetry:
		return fmt.Sprintf("retry in %v: %v", o.in, o.err)
	case verdictSnooze:
		return fmt.Sprintf("snooze for %v", o.in)
	default:
		return o.err.Error()
	}
}

func (o *outcome) Unwrap() error { return o.err }

// RetryIn is returned by a handler whose attempt failed with err and who wants
// the next one after d. This is the handler's own wish, so the policy's number
// of retries does not limit it: look at Job.Attempt to stop. A negative d
// counts as zero.
func RetryIn(d time.Duration, err error) error {
	if err == nil {
		err = errors.New("retry asked for")
	}
	return &outcome{verdictRetry, max(d, 0), err}
}

// Snooze is returned by a handler that wants to be started again after d, for
// example because what it waits for is not there yet. It costs no attempt. A
// negative d counts as zero.
func Snooze(d time.Duration) error { return &outcome{verdictSnooze, max(d, 0), ErrSnooze} }

// Fail is returned by a handler to fail for good: no retry whatever the policy
// says.
func Fail(err error) error {
	if err == nil {
		err = errors.New("failed for good")
	}
	return &outcome{verdictFail, 0, err}
}
