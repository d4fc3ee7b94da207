package dianemo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// In a Policy, Options or Config: no limit (of a duration), and none (of a
// number, or of Config.Finish). A zero means inherit. They differ so that one
// in the other's place is refused.
const (
	Unlimited = -1
	None      = -2
)

// A Policy says how jobs of a kind are run. A zero field inherits: the job's
// Options come first, then the Policy, then the default of the job's priority.
//
// Priority and Grace are stamped by the producer, because they decide where the
// job waits. Weight, Timeout, Retries and Reruns come from the Policy of the
// peer that claims the job unless its Options set them: a producer built last
// year does not govern today's workers.
type Policy struct {
	// Priority is 1 (the most urgent) to 9; default 2.
	Priority int
	// Weight is what a run costs in tokens, 1 to MaxWeight; default 1.
	Weight int
	// Grace is how long after it was due a job may still start. Default 1
	// minute at priority 1, 24 hours otherwise; Unlimited. It is kept to the
	// millisecond.
	Grace time.Duration
	// Timeout ends the handler's context; default Unlimited.
	Timeout time.Duration
	// Retries is how often a failed job is tried again: default None at
	// priority 1, 3 otherwise; at most 1000.
	Retries int
	// Reruns is how often a job whose peer went silent is given to another:
	// default None at priority 1, 3 otherwise; at most 1000.
	Reruns int
	// RetryIn gives the wait after the failed attempt with that number, 1 for
	// the first; default [Every](30 * time.Minute). See also [Exponential].
	RetryIn func(attempt int, err error) time.Duration
	// OnLost says what becomes of a run when Redis can't be reached for longer
	// than Config.SilentAfter, so that its job may by then have been given to
	// another peer; default [Continue]. A run that is known to be lost always ends
	// with ErrLost.
	OnLost OnLost
	// Keep is what is kept of finished jobs, by state; default
	// [DefaultRetention]. Where peers differ, a job is let go of by what the peer
	// that settles says, or, in the leader's chore, the one that started last.
	Keep Keep
}

// OnLost is Continue or Cancel.
type OnLost int8

const (
	// Continue: the handler goes on, and its result is stored when Redis is back,
	// if the run is still this peer's. An outage of Redis itself gives nobody's
	// job away.
	Continue OnLost = iota + 1
	// Cancel: the handler's context ends, with ErrLost as its cause.
	Cancel
)

func (p Policy) check() error {
	return firstError(
		checkCount("Policy.Priority", p.Priority, 1, 9, false),
		checkCount("Policy.Weight", p.Weight, 1, MaxWeight, false),
		checkSpan("Policy.Grace", p.Grace),
		checkSpan("Policy.Timeout", p.Timeout),
		checkCount("Policy.Retries", p.Retries, 1, maxRuns, true),
		checkCount("Policy.Reruns", p.Reruns, 1, maxRuns, true),
		p.OnLost.check(),
		p.Keep.check("Policy.Keep"),
	)
}

func (o OnLost) check() error {
	if o < 0 || o > Cancel {
		return &FieldError{"Policy.OnLost", int(o), "Continue, Cancel, or 0 for the default"}
	}
	return nil
}

const maxRuns = 1000

// Options are one job's own settings. A zero field inherits from the kind.
type Options struct {
	// ID is the job's id, 1 to 128 letters, digits and . _ - / @ +; default a
	// new UUIDv7. An id given here makes the job unique for as long as it is
	// kept: a second enqueue is answered by an [ExistsError]. Jobs whose ids are
	// equal up to the first @ stand in one partition.
	ID string
	// RunAt is when the job is due; default at once. A time in the past is
	// allowed, and grace counts from it.
	RunAt time.Time
	// Delay makes the job due that long after the store accepts it. At most
	// one of RunAt, Delay and Parents may be set, but for RunAt with Parents.
	Delay time.Duration

	Priority int
	Weight   int
	// Grace of a job's own is rounded up by up to 5 %, so that the number of
	// lanes stays bounded; a kind's is exact.
	Grace   time.Duration
	Timeout time.Duration
	Retries int
	Reruns  int

	// Parents must end before the job starts: see [After]. They are jobs that exist,
	// have ended already, or are enqueued in the same call. Then it is due, or at RunAt,
	// if that is later; its grace begins then. With a RunAt it is missed if it was not
	// released within its grace after that. Not with Delay or Unique.Replace.
	Parents []Parent

	// Unique refuses the job while another one of its kind has the same key, or
	// replaces that one; see [Unique]. It makes an id of its own: ID must be empty.
	Unique Unique

	// Headers travel with the job to its handler, for example a trace context.
	// They count towards MaxPayload.
	Headers map[string]string
}

func (o Options) check() error {
	if o.ID != "" {
		if err := CheckName("Options.ID", o.ID); err != nil {
			return err
		}
	}
	if err := o.Unique.check(o.ID); err != nil {
		return err
	}
	return firstError(
		checkParents(&o),
		checkDue("Options", o.RunAt, o.Delay),
		checkCount("Options.Priority", o.Priority, 1, 9, false),
		checkCount("Options.Weight", o.Weight, 1, MaxWeight, false),
		checkSpan("Options.Grace", o.Grace),
		checkSpan("Options.Timeout", o.Timeout),
		checkCount("Options.Retries", o.Retries, 1, maxRuns, true),
		checkCount("Options.Reruns", o.Reruns, 1, maxRuns, true),
	)
}

// checkDue checks the two fields of a struct that say when a job is due.
func checkDue(in string, runAt time.Time, delay time.Duration) error {
	if delay < 0 || delay > MaxSpan {
		return &FieldError{in + ".Delay", delay, "a positive duration of at most 100 years, or 0"}
	}
	if delay > 0 && !runAt.IsZero() {
		return &FieldError{in + ".Delay", delay, "0 where RunAt is set"}
	}
	if !runAt.IsZero() && (runAt.Before(time.Unix(0, 0)) || runAt.Year() > 9999) {
		return &FieldError{in + ".RunAt", runAt, "years 1970 to 9999"}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inherit returns the first value that is set.
func inherit[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}

// defaults are a priority level's settings, from the source document: jobs of
// priority 1 are for now or never, all others are patient.
func defaults(priority int) Policy {
	p := Policy{Priority: 2, Weight: 1, Grace: 24 * time.Hour, Timeout: Unlimited, Retries: 3, Reruns: 3, RetryIn: Every(30 * time.Minute)}
	if priority == 1 {
		p.Grace, p.Retries, p.Reruns = time.Minute, None, None
	}
	return p
}

// A Kind is a named type of job: what its arguments look like and how it is
// run. Declare it once, as a package variable, and share it between those who
// enqueue and those who handle.
type Kind[Args any] struct {
	name    string
	policy  Policy
	aliases []string
	before  []step[Args]
	after   []judge[Args]
}

// NewKind names a kind: 1 to 128 letters, digits and . _ - / @ +. A bad name or
// policy is reported where the kind is first used, by Handle or Enqueue.
func NewKind[Args any](name string, policy Policy) Kind[Args] {
	return Kind[Args]{name: name, policy: policy}
}

// Name returns the kind's name.
func (k Kind[Args]) Name() string { return k.name }

// Aliases returns the kind with further names, those that it had before: a peer
// that handles it also runs the jobs that wait, or still are enqueued, under
// these. Nothing else changes for such a job: it keeps its name in Job.Kind, in
// JobInfo, hooks and counts; Pause and unique keys too go by that name, so both names
// may have to be paused, and equal keys under both don't exclude each other. New
// jobs get the kind's own name. An alias that is a bad name, is there twice or has
// a handler of its own is a [FieldError] of Handle.
func (k Kind[Args]) Aliases(names ...string) Kind[Args] {
	k.aliases = slices.Concat(k.aliases, names)
	return k
}

// Handle makes peer run jobs of this kind with fn. Call it before Run. A kind
// handled twice and a bad name or policy are [FieldError]s.
//
// fn must return soon after its context has ended; until it does, its tokens
// stay charged. What it returns decides: nil is success, [RetryIn], [Snooze] and
// [Fail] say so themselves, any other error is a failed attempt, and so are a
// panic and runtime.Goexit. [Kind.Before] and [Kind.After] put functions around it.
func (k Kind[Args]) Handle(peer *Peer, fn func(ctx context.Context, job *Job[Args]) error) error {
	if peer == nil {
		return &FieldError{"Handle(peer)", nil, "a Peer"}
	}
	if fn == nil {
		return &FieldError{"Handle(fn)", nil, "a function"}
	}
	whole, err := k.around(fn)
	if err != nil {
		return err
	}
	decoded := func(ctx context.Context, job *Job[Args], args []byte) error {
		if err := json.Unmarshal(args, &job.Args); err != nil {
			return Fail(fmt.Errorf("decode args of kind %s: %w", job.Kind, err))
		}
		return whole(ctx, job)
	}
	return peer.handle(append([]string{k.name}, k.aliases...), k.policy,
		func(ctx context.Context, r *run) error { return decoded(ctx, newJob[Args](r), r.spec.Args) },
		func(ctx context.Context, job *Job[json.RawMessage]) error {
			return decoded(ctx, typed[Args](job), job.Args)
		})
}

// A Request is a job to be enqueued, made by [Kind.New] or [Kind.NewWith].
type Request struct {
	kind    string
	policy  Policy
	args    any
	options Options

	// In a workflow: its id, the job's name there, and how far its longest path to the
	// end is, from 0, the end, to 1, the longest of all.
	workflow, name string
	ahead          float64
	// Where a schedule has made that: its name, and the instant of its rule.
	schedule   string
	at         time.Time
	submission *submission // nil unless it passes through WrapEnqueue
}

// New is a request for a job with the kind's own settings.
func (k Kind[Args]) New(args Args) Request {
	return Request{kind: k.name, policy: k.policy, args: args}
}

// NewWith is a request for a job with settings of its own.
func (k Kind[Args]) NewWith(args Args, options Options) Request {
	return Request{kind: k.name, policy: k.policy, args: args, options: options}
}

// An Enqueuer is a [Client] or a [Peer].
type Enqueuer interface {
	EnqueueMany(ctx context.Context, requests ...Request) ([]string, error)
}

// Enqueue adds one job and returns its id. When it returns nil, Redis has the
// job. For the errors see [Client.EnqueueMany].
func (k Kind[Args]) Enqueue(ctx context.Context, to Enqueuer, args Args) (string, error) {
	return enqueueOne(ctx, to, k.New(args))
}

// EnqueueWith is Enqueue for a job with settings of its own.
func (k Kind[Args]) EnqueueWith(ctx context.Context, to Enqueuer, args Args, options Options) (string, error) {
	return enqueueOne(ctx, to, k.NewWith(args, options))
}

func enqueueOne(ctx context.Context, to Enqueuer, request Request) (string, error) {
	if isNil(to) {
		return "", &FieldError{"Enqueue(to)", nil, "a Client or a Peer"}
	}
	ids, err := to.EnqueueMany(ctx, request)
	if batch, ok := err.(*BatchError); ok && len(batch.Errs) == 1 {
		err = batch.Errs[0]
	}
	if len(ids) == 1 {
		return ids[0], err
	}
	return "", err
}
