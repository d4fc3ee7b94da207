package dianemo

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sentinels to branch on with errors.Is. Where there is data to go with one,
// a typed error carries it and unwraps to the sentinel.
var (
	// ErrInvalid: a value was refused before anything was written; see [FieldError].
	ErrInvalid = errors.New("dianemo: invalid value")
	// ErrExists: a job with this id is there already; see [ExistsError].
	ErrExists = errors.New("dianemo: the job exists")
	// ErrNotFound: no job has this id.
	ErrNotFound = errors.New("dianemo: no such job")
	// ErrUnconfirmed: the request was sent, but no answer arrived within the
	// context's deadline. The jobs exist or they don't; an enqueue with the same
	// caller-given id tells (ErrExists) without making a second one.
	ErrUnconfirmed = errors.New("dianemo: sent, but not confirmed")
	// ErrStoreFull: Redis is at its maxmemory. Only enqueue is refused; what
	// lets work finish goes on.
	ErrStoreFull = errors.New("dianemo: the store is full")
	// ErrLayout: the namespace in Redis was made with another number of
	// partitions, or needs a newer version of this library; see [LayoutError].
	ErrLayout = errors.New("dianemo: the namespace's layout does not fit")
	// ErrClosed: the client or peer is closed.
	ErrClosed = errors.New("dianemo: closed")
	// ErrRunTwice: Run was called a second time; a peer runs once.
	ErrRunTwice = errors.New("dianemo: this peer's Run was called before")
	// ErrState: the job's state does not allow what was asked for; see
	// [StateError].
	ErrState = errors.New("dianemo: the job's state does not allow it")
	// ErrNoPeer: no peer of this id has shown itself in the last day.
	ErrNoPeer = errors.New("dianemo: no such peer")
	// ErrParentGone: a parent does not exist, perhaps no longer; see
	// [ParentGoneError].
	ErrParentGone = errors.New("dianemo: no such parent")
	// ErrGivenUp: it took more than ten minutes to submit the workflow, so that its gate was
	// voided. Nothing of it will run.
	ErrGivenUp = errors.New("dianemo: the workflow was given up before it was wholly submitted")
	// ErrNoSchedule: there is no schedule of this name.
	ErrNoSchedule = errors.New("dianemo: no such schedule")
	// ErrMoved: each time that the job was to be changed, others had moved it
	// meanwhile. Nothing was done; the same call may be made again.
	ErrMoved = errors.New("dianemo: the job moved, again and again")
	// ErrNewer: a newer version of this library has written the schedule, or the job,
	// and this one leaves it alone.
	ErrNewer = errors.New("dianemo: the record is of a newer version")
)

// What the functions around a handler say and hear.
var (
	// ErrDone: the work is done already. Returned by a function of [Kind.Before], it
	// ends the attempt as a success without the handler; from anywhere else it is an
	// error as any other.
	ErrDone = errors.New("dianemo: the work is done already")
	// ErrSnooze: what [Snooze] returns is this, for [Kind.After] and Config.Wrap to
	// tell it by. Returned by itself it is an error as any other.
	ErrSnooze = errors.New("dianemo: snooze")
)

// Causes with which a handler's context ends; read them with context.Cause.
var (
	// ErrTimeout: the run took longer than its Timeout.
	ErrTimeout = errors.New("dianemo: the job's timeout has passed")
	// ErrLost: the store no longer counts this run as the job's: the peer was
	// silent for too long. Another run may have begun, and whatever this one
	// returns is refused.
	ErrLost = errors.New("dianemo: the run's lease was lost")
	// ErrCancelled: someone has cancelled the job. What the handler returns still
	// counts: nil is success and [Fail] is failure; anything else ends the job
	// cancelled, and it is not started again.
	ErrCancelled = errors.New("dianemo: the job was cancelled")
	// ErrShutdown: the peer is shutting down and the time it gives its jobs to
	// finish is over.
	ErrShutdown = errors.New("dianemo: the peer is shutting down")
)

// A FieldError names a value that was refused, and what would have been
// accepted. It unwraps to [ErrInvalid].
type FieldError struct {
	Field   string // for example "Policy.Weight"
	Value   any
	Allowed string // for example "1 to 1048576, or 0 to inherit"
}

func (e *FieldError) Error() string {
	value := fmt.Sprintf("%v", e.Value)
	if s, ok := e.Value.(string); ok {
		value = fmt.Sprintf("%q", s)
	}
	if len(value) > 160 {
		value = value[:160] + "…"
	}
	return fmt.Sprintf("dianemo: %s is %s; allowed: %s", e.Field, value, e.Allowed)
}

func (e *FieldError) Unwrap() error { return ErrInvalid }

// An ExistsError is the answer to an enqueue under an id or a unique key that is
// taken, and to a requeue under such a key. It unwraps to [ErrExists].
type ExistsError struct {
	ID string // of the job that is there
	// State is the existing job's state. Scheduled here stands for any job that
	// waits in its lane, due or not.
	State State
	Key   string // the unique key that it holds; "" if the id was taken
}

func (e *ExistsError) Error() string {
	if e.Key != "" {
		return fmt.Sprintf("dianemo: job %q holds the unique key %q and is %s", e.ID, e.Key, e.State)
	}
	return fmt.Sprintf("dianemo: job %q exists and is %s", e.ID, e.State)
}

func (e *ExistsError) Unwrap() error { return ErrExists }

// A StateError is the answer to a wish that a job's state does not allow, such
// as to requeue one that runs. Nothing was done. It unwraps to [ErrState].
type StateError struct {
	ID string
	// State is what the job is in. Scheduled here stands for any job that waits in
	// its lane, due or not.
	State State
	Edge  Edge
}

func (e *StateError) Error() string {
	return fmt.Sprintf("dianemo: job %q is %s, which %s does not allow", e.ID, e.State, e.Edge)
}

func (e *StateError) Unwrap() error { return ErrState }

// A ParentGoneError is the answer to an enqueue of a job one of whose parents does not
// exist. It was not accepted. It unwraps to [ErrParentGone].
type ParentGoneError struct {
	ID, Parent string
}

func (e *ParentGoneError) Error() string {
	return fmt.Sprintf("dianemo: parent %q of job %q does not exist", e.Parent, e.ID)
}

func (e *ParentGoneError) Unwrap() error { return ErrParentGone }

// A ScheduleError is the answer to a wish that a schedule's state does not allow.
// Nothing was done. It unwraps to [ErrState].
type ScheduleError struct {
	Schedule string
	State    ScheduleState
	Reason   string // why it is broken
}

func (e *ScheduleError) Error() string {
	return fmt.Sprintf("dianemo: schedule %q is %s%s", e.Schedule, e.State, because(e.Reason))
}

func (e *ScheduleError) Unwrap() error { return ErrState }

// An OverlapError is the answer to a [Client.TriggerSchedule] while the last
// occurrence has not ended and the schedule does not allow two at a time. Nothing
// was done. It unwraps to [ErrExists].
type OverlapError struct {
	Schedule string
	ID       string // of the job that has not ended
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("dianemo: job %q of schedule %q has not ended", e.ID, e.Schedule)
}

func (e *OverlapError) Unwrap() error { return ErrExists }

// A BatchError says which requests of one EnqueueMany, or which ids of one
// Cancel or Requeue, were not accepted. The others were.
type BatchError struct {
	Errs []error // one per request or id, in order; nil where it was accepted
}

func (e *BatchError) Error() string {
	refused, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			if first == nil {
				first = err
			}
			refused++
		}
	}
	return fmt.Sprintf("dianemo: %d of %d jobs were not accepted; the first: %v", refused, len(e.Errs), first)
}

// Unwrap returns the errors that are not nil, for errors.Is and errors.As.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// A LayoutError says how this program's idea of the namespace differs from
// what Redis holds. It unwraps to [ErrLayout].
type LayoutError struct {
	Namespace string
	Field     string // "layout", "min_peer" or "partitions"
	Stored    int
	Own       int
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("dianemo: namespace %q has %s %d in Redis, this program has %d", e.Namespace, e.Field, e.Stored, e.Own)
}

func (e *LayoutError) Unwrap() error { return ErrLayout }

// A StuckError is returned by [Peer.Run] when jobs had not returned by the end
// of the shutdown, or their outcomes could not be stored. Their runs stay with
// the store and are reaped like those of any peer that went silent.
type StuckError struct {
	IDs []string
}

func (e *StuckError) Error() string {
	const shown = 10
	ids, more := e.IDs, ""
	if len(ids) > shown {
		ids, more = ids[:shown], fmt.Sprintf(" and %d more", len(e.IDs)-shown)
	}
	return fmt.Sprintf("dianemo: shut down with unfinished runs of %d jobs: %s%s", len(e.IDs), strings.Join(ids, ", "), more)
}

// Limits of names, weights and sizes.
const (
	MaxName    = 128       // bytes of a kind, an id or a namespace
	MaxKey     = 256       // bytes of a unique key
	MaxWeight  = 1 << 20   // tokens of one job, and of one peer
	MaxPayload = 256 << 10 // bytes of a job's encoded arguments, and of its result
	MaxHistory = 10        // runs of a job that are kept, besides the present or successful one
	MaxSpan    = 100 * 365 * 24 * time.Hour
	maxError   = 4 << 10 // bytes kept of one error
)

// CheckName reports, as a [FieldError], whether name may be a kind, an id or a
// namespace: 1 to 128 of the ASCII letters, digits and . _ - / @ +, so that
// braces, colons and control characters never reach a key.
func CheckName(field, name string) error { return checkName(field, name, MaxName) }

func checkName(field, name string, most int) error {
	ok := len(name) >= 1 && len(name) <= most
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-/@+", c) >= 0
	}
	if !ok {
		return &FieldError{field, name, fmt.Sprintf("1 to %d letters, digits and . _ - / @ +", most)}
	}
	return nil
}

// checkCount refuses numbers outside 0 (inherit), low..high and, where none is
// allowed, None.
func checkCount(field string, v, low, high int, none bool) error {
	if v == 0 || low <= v && v <= high || none && v == None {
		return nil
	}
	allowed := fmt.Sprintf("%d to %d, or 0 to inherit", low, high)
	if none {
		allowed += ", or None"
	}
	return &FieldError{field, v, allowed}
}

// checkSpan refuses durations above MaxSpan, and negative ones other than
// Unlimited.
func checkSpan(field string, d time.Duration) error {
	if 0 <= d && d <= MaxSpan || d == Unlimited {
		return nil
	}
	return &FieldError{field, d, "a positive duration of at most 100 years, 0 to inherit, or Unlimited"}
}
