package dianemo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// ClientConfig is a client's settings. The zero value works.
type ClientConfig struct {
	Hooks  *Hooks       // only Enqueue, Cancel, Requeue, Reschedule and Repair are called
	Logger *slog.Logger // default slog.Default()
	// WrapEnqueue puts something around every enqueue: see [EnqueueFunc].
	WrapEnqueue func(next EnqueueFunc) EnqueueFunc
	// MaxWorkflow is how many jobs a workflow may have that is submitted here, up to a
	// million; default [MaxWorkflow].
	MaxWorkflow int
}

// A Client enqueues and reads jobs and runs none. It is safe for concurrent
// use; one for a process is enough. Callers that enqueue at the same time share
// round trips.
type Client struct {
	store  Store
	id     string
	hooks  Hooks
	logger *slog.Logger
	around EnqueueFunc // what WrapEnqueue made; nil: nothing
	waits  waits

	maxWorkflow int
	// near takes jobs that are kept for a peer, if this client is part of that one; nil:
	// it is of none.
	near func(peer string, partition int, jobs []NearJob) bool

	opening chan struct{}             // held by the one caller that opens the store
	boxes   atomic.Pointer[[]*outbox] // one for each partition, once opened
	rules   map[string]Rule           // of this program's own types, by schedule
	ctx     context.Context
	stop    context.CancelFunc
	mu      sync.Mutex // guards closed, and sends.Add against Close
	closed  bool
	sends   sync.WaitGroup
	repairer
}

// NewClient makes a client. Nothing is sent before it is first used. The error
// is a [FieldError].
func NewClient(store Store, config ClientConfig) (*Client, error) {
	if isNil(store) {
		return nil, &FieldError{"store", nil, "a Store, for example redisstore.New(…)"}
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	config.MaxWorkflow = inherit(config.MaxWorkflow, MaxWorkflow)
	if config.MaxWorkflow < 1 || config.MaxWorkflow > mostWorkflow {
		return nil, &FieldError{"MaxWorkflow", config.MaxWorkflow, fmt.Sprintf("1 to %d, or 0 for %d", mostWorkflow, MaxWorkflow)}
	}
	c := &Client{maxWorkflow: config.MaxWorkflow, store: store, id: uuid.NewString(), hooks: config.Hooks.filled(), logger: config.Logger,
		opening: make(chan struct{}, 1), rules: map[string]Rule{}, waits: waits{all: map[*waiter]bool{}, kicked: make(chan struct{}, 1)}}
	if config.WrapEnqueue != nil {
		if c.around = config.WrapEnqueue(c.enqueueMany); c.around == nil {
			return nil, &FieldError{"WrapEnqueue", nil, "a function that returns an EnqueueFunc"}
		}
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// isNil also knows a nil pointer in an interface.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return v == nil || r.Kind() == reflect.Pointer && r.IsNil()
}

// Close refuses further enqueues and waits, ends those that wait for an answer
// with ErrUnconfirmed and ErrClosed, and returns when the client's goroutines have ended. It does
// not close the store.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.sends.Wait()
}

// open opens the store once. Passing errors are tried again until ctx ends,
// and then the last one is told.
func (c *Client) open(ctx context.Context) error {
	if c.boxes.Load() != nil {
		return nil
	}
	select {
	case c.opening <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("dianemo: open the store: %w", ctx.Err())
	}
	// A Redis that hangs is not waited for: the client library may not hear of
	// the context's end.
	opened := make(chan error, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.opening
		return ErrClosed
	}
	c.sends.Go(func() {
		defer func() { <-c.opening }()
		opened <- c.openNow(ctx)
	})
	c.mu.Unlock()
	select {
	case err := <-opened:
		return err
	case <-ctx.Done():
		return fmt.Errorf("dianemo: open the store: %w", ctx.Err())
	}
}

func (c *Client) openNow(ctx context.Context) error {
	for attempt := 1; c.boxes.Load() == nil; attempt++ {
		err := c.store.Open(ctx)
		switch {
		case err == nil:
			boxes := make([]*outbox, c.store.Partitions())
			for i := range boxes {
				boxes[i] = newOutbox(i, c.id)
			}
			c.boxes.Store(&boxes)
		case errors.Is(err, ErrLayout) || errors.Is(err, ErrInvalid):
			return err
		default:
			if attempt == 1 {
				c.logger.Warn("the store does not answer; trying again", "err", err)
			}
			if !pause(ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second)) {
				return fmt.Errorf("dianemo: open the store: %w (%w)", ctx.Err(), err)
			}
		}
	}
	return nil
}

// pause waits, and reports whether it did so to the end.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// EnqueueMany adds jobs, of one kind or several, and returns their ids in
// order. The jobs of one partition are added in pieces, each in one step: of 125 jobs, or
// 31 with unique keys, fewer if they are of many kinds or priorities, and 1 MiB at most. An
// error leaves those of other pieces as they are.
//
//   - [FieldError]: a request is wrong. Nothing was written.
//   - [BatchError]: it has an error for each job that was not accepted, most
//     often an [ExistsError]. All others were. The id of a job whose unique key
//     was taken is that of the job that has it.
//   - In a BatchError too: the context's error, alone if it ended before a job
//     was sent, with [ErrUnconfirmed] and what went wrong if after; [ErrStoreFull];
//     [ErrClosed].
//   - [ErrLayout].
//
// While Redis can't be reached it waits and tries again until ctx ends.
func (c *Client) EnqueueMany(ctx context.Context, requests ...Request) ([]string, error) {
	if c.around != nil {
		return c.around(ctx, slices.Clone(requests)) // which it may change
	}
	return c.enqueueMany(ctx, requests)
}

func (c *Client) enqueueMany(ctx context.Context, requests []Request) ([]string, error) {
	if len(requests) > 0 && requests[0].submission != nil {
		return nil, c.submit(ctx, *requests[0].submission, requests)
	}
	ids := make([]string, len(requests))
	records := make([]Record, len(requests))
	for i := range requests {
		record, err := requests[i].record()
		if err != nil {
			if len(requests) > 1 {
				err = fmt.Errorf("request %d of %d: %w", i+1, len(requests), err)
			}
			return nil, err
		}
		ids[i], records[i] = record.ID, record
	}
	if cycle := findCycle(records); cycle != nil {
		return nil, &CycleError{cycle}
	}
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	errs := c.accept(ctx, records)
	failed := false
	for i, err := range errs {
		if taken, ok := err.(*ExistsError); ok {
			ids[i] = taken.ID
		}
		failed = failed || err != nil
	}
	if failed {
		return ids, &BatchError{errs}
	}
	return ids, nil
}

// accept enqueues jobs and returns an error for each that was not accepted.
func (c *Client) accept(ctx context.Context, records []Record) []error {
	if !slices.ContainsFunc(records, func(r Record) bool { return r.Blocked }) {
		return c.acceptAll(ctx, records)
	}
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return slices.Repeat([]error{err}, len(records))
	}
	defer done()
	return c.acceptFamily(ctx, records)
}

func (c *Client) acceptAll(ctx context.Context, records []Record) []error {
	parcels := c.pack(records)
	for _, p := range parcels {
		c.post(p)
	}
	errs := make([]error, len(records))
	for _, p := range parcels {
		reply := c.await(ctx, p)
		for i, place := range p.places {
			errs[place] = reply.err
			if reply.err == nil {
				errs[place] = reply.answers[i]
			}
		}
	}
	for i, err := range errs {
		id := records[i].ID
		if taken, ok := err.(*ExistsError); ok {
			id = taken.ID
		}
		c.hooks.Enqueue(EnqueueInfo{id, records[i].Lane.Kind, records[i].Lane.Priority, err})
	}
	return errs
}

// spec checks a request and makes the job's spec.
func (q *Request) spec() (*Spec, error) {
	if err := firstError(checkKind(q.kind), q.policy.check(), q.options.check()); err != nil {
		return nil, err
	}
	args, err := json.Marshal(q.args)
	if err != nil {
		return nil, &FieldError{"args", fmt.Sprintf("%T: %v", q.args, err), "a value that encoding/json marshals"}
	}
	o := q.options
	spec := &Spec{Kind: q.kind, Priority: inherit(o.Priority, q.policy.Priority, 2), Weight: o.Weight, Timeout: o.Timeout,
		Retries: o.Retries, Reruns: o.Reruns, RunAt: o.RunAt, Delay: o.Delay, Headers: o.Headers, Schedule: q.schedule, At: q.at, Args: args}
	parents := withConditions(o.Parents)
	if len(parents) <= specParents {
		spec.Parents = parents
	} else if spec.Many = len(parents); !slices.ContainsFunc(parents, func(p Parent) bool { return p.On != parents[0].On }) {
		spec.ManyOn = parents[0].On
	}
	spec.Grace = inherit(q.policy.Grace, defaults(spec.Priority).Grace)
	if o.Grace != 0 && o.Grace != spec.Grace {
		spec.Grace = laneGrace(o.Grace)
	}
	if q.workflow != "" {
		spec.Workflow, spec.Name = q.workflow, q.name
		slack := aheadOf(spec.Grace)
		if spec.Grace > 0 {
			spec.Grace += slack
		}
		// What may be kept for a peer is due when that is over, not earlier than others.
		if o.RunAt.IsZero() && !slices.ContainsFunc(parents, func(p Parent) bool { return p.Near > 0 }) {
			spec.Ahead = time.Duration(float64(slack) * q.ahead).Truncate(time.Millisecond)
		}
	}
	size := len(args)
	for name, value := range o.Headers {
		size += len(name) + len(value)
	}
	if size > MaxPayload {
		return nil, &FieldError{"args and headers", fmt.Sprintf("%d bytes", size), fmt.Sprintf("%d bytes at most", MaxPayload)}
	}
	return spec, nil
}

// record checks and encodes a request.
func (q *Request) record() (Record, error) {
	spec, err := q.spec()
	if err != nil {
		return Record{}, err
	}
	o := q.options
	r := Record{ID: o.ID, Lane: spec.Lane(), RunAt: o.RunAt, Delay: o.Delay, Weight: o.Weight, Reruns: o.Reruns, Unique: o.Unique,
		Blocked: len(o.Parents) > 0, Parents: withConditions(o.Parents), Ahead: spec.Ahead, Spec: EncodeSpec(spec)}
	if r.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return Record{}, fmt.Errorf("dianemo: make an id: %w", err)
		}
		r.ID = id.String()
		if o.Unique.Key != "" {
			r.ID = o.Unique.route(spec.Kind) + "@" + r.ID
		}
	}
	return r, nil
}

// cost is how much of a call a record takes: a unique key is looked up, so a
// call of the same length carries fewer of these.
func (r *Record) cost() int {
	if r.Unique.Key != "" {
		return 4
	}
	return 1
}

// Get reads one job whole, or returns [ErrNotFound]. Like all reading, it does not
// try again while Redis can't be reached.
func (c *Client) Get(ctx context.Context, id string) (*JobInfo, error) {
	if err := CheckName("id", id); err != nil {
		return nil, err
	}
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	job, err := c.store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	job.decode()
	return &job.Info, nil
}

// decode adds what the spec says. What can't be decoded is shown as far as the
// store knows it.
func (j *StoredJob) decode() {
	spec, err := DecodeSpec(j.Spec)
	if err != nil {
		j.Info.Reason = inherit(j.Info.Reason, "corrupt")
		return
	}
	j.Info.Weight, j.Info.Headers, j.Info.Args = spec.Weight, spec.Headers, spec.Args
	j.Info.Schedule, j.Info.ScheduledFor, j.Info.Parents = spec.Schedule, spec.At, spec.Parents
	j.Info.Workflow, j.Info.Name, j.Info.ManyParents = spec.Workflow, spec.Name, spec.Many
}

// Counts reads how many jobs there are, by state, kind and priority. It looks
// at no job, so it costs the same however many there are.
func (c *Client) Counts(ctx context.Context) ([]Count, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	return c.store.Counts(ctx)
}

// Peers lists the live peers: those that showed themselves within their own
// limit of silence.
func (c *Client) Peers(ctx context.Context) ([]PeerInfo, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	return c.store.Peers(ctx)
}
