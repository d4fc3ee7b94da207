package dianemo

import (
	"context"
	"encoding/json"
	"maps"
)

// A Handler runs jobs whose arguments are still encoded. [Peer.HandleRaw] takes
// one, and Config.Wrap puts something around each, whatever it was registered
// with: for traces, logs, values in the context, limits.
//
// Wrap is called once for each kind, when it is registered; what it returns is
// called for every run that is handed to a handler, with the run's context, and
// in the handler's goroutine. What it passes on is what the handler gets: the job,
// or a copy of it with other Args or Headers. What it returns decides what becomes
// of the job, as a handler's return does; without a call of next it decides alone.
// The handler's panics pass through it, and its own are the run's. The kind's own
// functions are inside: with a [Kind.After], a panic comes as the [PanicError] or what
// was made of it.
//
// With a Wrap, the first is the outermost:
//
//	Wrap: func(next dianemo.Handler) dianemo.Handler { return traced(logged(next)) }
type Handler func(ctx context.Context, job *Job[json.RawMessage]) error

// handler is a Handler before its Job is made.
type handler func(ctx context.Context, r *run) error

// HandleRaw makes the peer run jobs of a kind that is known only by its name, for
// example from a configuration. All that is said of [Kind.Handle] holds here. The
// producer's side needs no function of its own: it is
// NewKind[json.RawMessage](name, policy).
func (p *Peer) HandleRaw(name string, policy Policy, fn Handler) error {
	if p == nil {
		return &FieldError{"HandleRaw(peer)", nil, "a Peer"}
	}
	if fn == nil {
		return &FieldError{"HandleRaw(fn)", nil, "a function"}
	}
	return p.handle([]string{name}, policy, func(ctx context.Context, r *run) error { return fn(ctx, rawJob(r)) }, fn)
}

// wrapped is raw with Config.Wrap around it. Without a Wrap it is direct, so that
// a typed handler does not pay for a raw job.
func (p *Peer) wrapped(direct handler, raw Handler) (handler, error) {
	if p.config.Wrap == nil {
		return direct, nil
	}
	fn := p.config.Wrap(raw)
	if fn == nil {
		return nil, &FieldError{"Config.Wrap", nil, "a function that returns a Handler"}
	}
	return func(ctx context.Context, r *run) error { return fn(ctx, rawJob(r)) }, nil
}

// newJob is what a handler gets for this run, but for the arguments.
func newJob[Args any](r *run) *Job[Args] {
	return &Job[Args]{ID: r.id, Kind: r.kind, Attempt: r.attempt, Priority: r.priority, Weight: r.weight,
		Epoch: r.epoch, Due: r.due, EnqueuedAt: r.enqueued, Headers: r.spec.Headers,
		Schedule: r.spec.Schedule, ScheduledFor: r.spec.At, Parents: r.spec.Parents,
		Workflow: r.spec.Workflow, Name: r.spec.Name, run: r}
}

func rawJob(r *run) *Job[json.RawMessage] {
	job := newJob[json.RawMessage](r)
	job.Args = r.spec.Args
	return job
}

// typed is the job with another type of arguments, which are still to be decoded.
func typed[Args any](j *Job[json.RawMessage]) *Job[Args] {
	return &Job[Args]{ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, Priority: j.Priority, Weight: j.Weight,
		Epoch: j.Epoch, Due: j.Due, EnqueuedAt: j.EnqueuedAt, Headers: j.Headers,
		Schedule: j.Schedule, ScheduledFor: j.ScheduledFor, Parents: j.Parents,
		Workflow: j.Workflow, Name: j.Name, run: j.run}
}

// An EnqueueFunc adds jobs, as [Client.EnqueueMany] does. WrapEnqueue puts
// something around it, for example to give each request the trace context as a
// header. It is called once for each call of Enqueue, EnqueueWith or EnqueueMany,
// in the caller's goroutine. The slice is its own to change; the requests of
// callers, their Headers among them, stay as they are. What it returns is what
// the caller gets: it should pass on ids and error as they came from next.
type EnqueueFunc func(ctx context.Context, requests []Request) ([]string, error)

// Kind is the name of the kind.
func (q Request) Kind() string { return q.kind }

// Header is one of the job's Options.Headers, or "".
func (q Request) Header(name string) string { return q.options.Headers[name] }

// WithHeader returns the request with one header more, or another value of it.
// The map that the caller gave is not touched.
func (q Request) WithHeader(name, value string) Request {
	headers := make(map[string]string, len(q.options.Headers)+1)
	maps.Copy(headers, q.options.Headers)
	headers[name] = value
	q.options.Headers = headers
	return q
}
