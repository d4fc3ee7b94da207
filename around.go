package dianemo

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Before returns the kind with a function that a peer which handles it calls in
// each attempt before the handler: to look whether there is anything to do, or to
// get what the handler needs. It gets the same job, and runs under the same context,
// Timeout and tokens. Several are called in the order in which they were added.
//
// The first error is the attempt's, as if the handler had returned it; so [RetryIn],
// [Snooze] and [Fail] can be said here too, and neither the functions after it nor the
// handler are called. [ErrDone] says that there is nothing left to do: the attempt has
// succeeded, with the result that was set, if any. Once the context has ended, nothing
// more is begun either, and the attempt ends with the context's error.
//
// A nil function is a [FieldError] of Handle. It is for who handles the kind; Enqueue
// does not know of it.
func (k Kind[Args]) Before(fn func(ctx context.Context, job *Job[Args]) error) Kind[Args] {
	k.before = slices.Concat(k.before, []step[Args]{fn})
	return k
}

// After returns the kind with a function that is called in each attempt when the
// handler, or what stopped it in [Kind.Before], has come to its end: to judge it, or
// to tidy up. err is what it ended with, and nil after [ErrDone]; what fn returns takes
// its place and decides what becomes of the job, as a handler's return does. So nil
// makes a success of a failure, with the result that was set, if any, and an error
// makes a failure of a success; err itself leaves everything as it is. Of several,
// each gets what the one added before it returned.
//
// What err is:
//
//   - After a panic a [PanicError]. Returned or wrapped, it keeps the reason panic.
//   - After [RetryIn] and [Fail] an error that wraps theirs. After [Snooze] one that
//     is [ErrSnooze] and should be returned as it is, unless the snooze is to count as
//     something else.
//   - When the context has ended, whatever the handler made of that. context.Cause
//     tells [ErrTimeout], [ErrCancelled], [ErrShutdown] and [ErrLost] apart. fn must then
//     return soon, and what it does needs a context of its own, for example from
//     context.WithoutCancel.
//
// A panic of fn is as a handler's, and reaches those added after it. After
// runtime.Goexit fn is called, but what it returns does not count, since nothing
// returns from there. It is not called when the arguments could not be decoded, nor
// when the peer died: it can't stand in for an idempotent handler.
//
// Config.Wrap is around all of these. A nil function is a [FieldError] of Handle.
func (k Kind[Args]) After(fn func(ctx context.Context, job *Job[Args], err error) error) Kind[Args] {
	k.after = slices.Concat(k.after, []judge[Args]{fn})
	return k
}

// A step is a handler, or what comes before it.
type step[Args any] func(ctx context.Context, job *Job[Args]) error

// A judge comes after it.
type judge[Args any] func(ctx context.Context, job *Job[Args], err error) error

// around is fn between the kind's functions.
func (k Kind[Args]) around(fn step[Args]) (step[Args], error) {
	for _, before := range k.before {
		if before == nil {
			return nil, &FieldError{"Before(fn)", nil, "a function"}
		}
	}
	for _, after := range k.after {
		if after == nil {
			return nil, &FieldError{"After(fn)", nil, "a function"}
		}
	}
	if len(k.before) > 0 {
		fn = preceded(k.before, fn)
	}
	for _, after := range k.after {
		fn = followed(fn, after)
	}
	return fn, nil
}

func preceded[Args any](steps []step[Args], fn step[Args]) step[Args] {
	return func(ctx context.Context, job *Job[Args]) error {
		for _, step := range steps {
			err := step(ctx, job)
			if errors.Is(err, ErrDone) {
				return nil
			}
			if err == nil {
				err = ctx.Err() // a run that was lost or cancelled must not begin its work now
			}
			if err != nil {
				return err
			}
		}
		return fn(ctx, job)
	}
}

func followed[Args any](fn step[Args], after judge[Args]) step[Args] {
	return func(ctx context.Context, job *Job[Args]) error {
		// Not from within a deferred function, where the stack of its own panic would
		// still show the handler's.
		return after(ctx, job, caught(
			func() error { return fn(ctx, job) },
			func(exit error) { _ = after(ctx, job, exit) }))
	}
}

// caught is what fn returns or panics with. If fn calls runtime.Goexit, which ends
// the goroutine whatever one does, exiting is called on the way.
func caught(fn func() error, exiting func(exit error)) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover()
		err = &PanicError{p, stack()}
		if p == nil {
			exiting(err)
		}
	}()
	err = fn()
	returned = true
	return err
}

// A PanicError is a handler's panic as [Kind.After] and Policy.RetryIn get it. It does
// not wrap the Value, even if that is an error: no panic says [Snooze].
type PanicError struct {
	Value any    // nil: it was runtime.Goexit
	Stack string // of the handler, from where it panicked
}

func (e *PanicError) Error() string {
	if e.Value == nil {
		return "the handler called runtime.Goexit\n" + e.Stack
	}
	return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack)
}
