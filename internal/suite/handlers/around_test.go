package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// A log is what was called, in order.
type callLog struct {
	mu    sync.Mutex
	calls []string
}

func (l *callLog) add(call string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
}

// all is what there is, and nothing is left.
func (l *callLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = nil
	return calls
}

type (
	work  = func(ctx context.Context, job *dianemo.Job[suite.Args]) error
	judge = func(ctx context.Context, job *dianemo.Job[suite.Args], err error) error
)

func results(n int, err error) work {
	return func(_ context.Context, job *dianemo.Job[suite.Args]) error { return errors.Join(job.SetResult(n), err) }
}

func panicsWith(value any) work {
	return func(context.Context, *dianemo.Job[suite.Args]) error { panic(value) }
}

func exits(context.Context, *dianemo.Job[suite.Args]) error { runtime.Goexit(); return nil }

// asItIs returns what the handler did.
func asItIs(_ context.Context, _ *dianemo.Job[suite.Args], err error) error { return err }

func turnsTo(err error) judge {
	return func(context.Context, *dianemo.Job[suite.Args], error) error { return err }
}

func wraps(_ context.Context, _ *dianemo.Job[suite.Args], err error) error {
	return fmt.Errorf("page 3: %w", err)
}

// seen is what an After is told.
func seen(err error) string {
	var panicked *dianemo.PanicError
	switch {
	case errors.As(err, &panicked):
		return fmt.Sprintf("panic %v", panicked.Value)
	case errors.Is(err, dianemo.ErrSnooze):
		return "snooze"
	}
	return fmt.Sprint(err)
}

func TestWhatStandsAroundAHandlerDecides_Long(t *testing.T) {
	t.Parallel()
	pass, late := suite.Returns(nil), errors.New("late")
	for _, row := range []struct {
		name    string
		policy  dianemo.Policy
		before  []work
		handler work
		after   []judge
		calls   string // in order, and what each After was told
		state   dianemo.State
		reason  string
		in      time.Duration
		attempt int
		text    string // with which the error begins
		result  string
	}{
		{"in order", dianemo.Policy{}, []work{pass, pass}, results(1, nil), []judge{asItIs, asItIs},
			"before 1, before 2, handler, after 1 <nil>, after 2 <nil>", dianemo.Succeeded, "", 0, 1, "", "1"},
		{"a failure stays one", dianemo.Policy{}, []work{pass}, results(1, suite.ErrBoom), []judge{asItIs},
			"before 1, handler, after 1 boom", dianemo.Retrying, "error", 30 * time.Minute, 1, "boom", ""},

		{"before fails", dianemo.Policy{}, []work{suite.Returns(suite.ErrBoom), pass}, pass, nil,
			"before 1", dianemo.Retrying, "error", 30 * time.Minute, 1, "boom", ""},
		{"before fails, and after hears of it", dianemo.Policy{Priority: 1}, []work{pass, suite.Returns(suite.ErrBoom)}, pass, []judge{asItIs},
			"before 1, before 2, after 1 boom", dianemo.Failed, "error", 0, 1, "boom", ""},
		{"before asks for a retry", dianemo.Policy{Priority: 1}, []work{suite.Returns(dianemo.RetryIn(time.Minute, suite.ErrBoom))}, pass, nil,
			"before 1", dianemo.Retrying, "error", time.Minute, 1, "retry in 1m0s: boom", ""},
		{"before snoozes", dianemo.Policy{}, []work{suite.Returns(dianemo.Snooze(time.Minute))}, pass, nil,
			"before 1", dianemo.Retrying, "snooze", time.Minute, 0, "", ""},
		{"before fails for good", dianemo.Policy{}, []work{suite.Returns(dianemo.Fail(suite.ErrBoom))}, pass, nil,
			"before 1", dianemo.Failed, "error", 0, 1, "boom", ""},
		{"before panics", dianemo.Policy{}, []work{panicsWith("ouch")}, pass, nil,
			"before 1", dianemo.Retrying, "panic", 30 * time.Minute, 1, "panic: ouch\n", ""},
		{"before panics, and after hears of it", dianemo.Policy{}, []work{panicsWith("ouch")}, pass, []judge{asItIs},
			"before 1, after 1 panic ouch", dianemo.Retrying, "panic", 30 * time.Minute, 1, "panic: ouch\n", ""},
		{"before says nil when its time is over", dianemo.Policy{Timeout: 10 * time.Millisecond}, []work{untilLate, pass}, pass, []judge{asItIs},
			"before 1, after 1 context deadline exceeded", dianemo.Retrying, "timeout", 30 * time.Minute, 1,
			"dianemo: the job's timeout has passed: context deadline exceeded", ""},

		{"done", dianemo.Policy{}, []work{suite.Returns(dianemo.ErrDone), pass}, pass, []judge{asItIs},
			"before 1, after 1 <nil>", dianemo.Succeeded, "", 0, 1, "", ""},
		{"done, wrapped, with a result", dianemo.Policy{}, []work{results(1, fmt.Errorf("by night: %w", dianemo.ErrDone))}, pass, nil,
			"before 1", dianemo.Succeeded, "", 0, 1, "", "1"},
		{"done when the time is over", dianemo.Policy{Timeout: 10 * time.Millisecond}, []work{func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
			<-ctx.Done()
			return dianemo.ErrDone
		}}, pass, nil, "before 1", dianemo.Succeeded, "", 0, 1, "", ""},
		{"done, but not for after", dianemo.Policy{}, []work{suite.Returns(dianemo.ErrDone)}, pass, []judge{turnsTo(suite.ErrBoom)},
			"before 1, after 1 <nil>", dianemo.Retrying, "error", 30 * time.Minute, 1, "boom", ""},
		{"done is before's word", dianemo.Policy{}, nil, suite.Returns(dianemo.ErrDone), nil,
			"handler", dianemo.Retrying, "error", 30 * time.Minute, 1, "dianemo: the work is done already", ""},
		{"done is not after's word", dianemo.Policy{}, nil, pass, []judge{turnsTo(dianemo.ErrDone)},
			"handler, after 1 <nil>", dianemo.Retrying, "error", 30 * time.Minute, 1, "dianemo: the work is done already", ""},

		{"success from failure", dianemo.Policy{}, nil, results(1, suite.ErrBoom), []judge{turnsTo(nil)},
			"handler, after 1 boom", dianemo.Succeeded, "", 0, 1, "", "1"},
		{"success from a failure of before", dianemo.Policy{}, []work{results(1, suite.ErrBoom)}, pass, []judge{turnsTo(nil)},
			"before 1, after 1 boom", dianemo.Succeeded, "", 0, 1, "", "1"},
		{"failure from success", dianemo.Policy{}, nil, results(1, nil), []judge{turnsTo(suite.ErrBoom)},
			"handler, after 1 <nil>", dianemo.Retrying, "error", 30 * time.Minute, 1, "boom", ""},
		{"failure for good from success", dianemo.Policy{}, nil, pass, []judge{turnsTo(dianemo.Fail(suite.ErrBoom))},
			"handler, after 1 <nil>", dianemo.Failed, "error", 0, 1, "boom", ""},
		{"retry from success", dianemo.Policy{Priority: 1}, nil, pass, []judge{turnsTo(dianemo.RetryIn(time.Minute, suite.ErrBoom))},
			"handler, after 1 <nil>", dianemo.Retrying, "error", time.Minute, 1, "retry in 1m0s: boom", ""},
		{"snooze from failure", dianemo.Policy{}, nil, suite.Returns(suite.ErrBoom), []judge{turnsTo(dianemo.Snooze(time.Minute))},
			"handler, after 1 boom", dianemo.Retrying, "snooze", time.Minute, 0, "", ""},
		{"each is told what the one before it said", dianemo.Policy{}, nil, suite.Returns(suite.ErrBoom), []judge{turnsTo(nil), turnsTo(late), wraps},
			"handler, after 1 boom, after 2 <nil>, after 3 late", dianemo.Retrying, "error", 30 * time.Minute, 1, "page 3: late", ""},

		{"a retry stays one", dianemo.Policy{Priority: 1}, nil, suite.Returns(dianemo.RetryIn(time.Minute, suite.ErrBoom)), []judge{asItIs},
			"handler, after 1 retry in 1m0s: boom", dianemo.Retrying, "error", time.Minute, 1, "retry in 1m0s: boom", ""},
		{"a wrapped retry stays one", dianemo.Policy{Priority: 1}, nil, suite.Returns(dianemo.RetryIn(time.Minute, suite.ErrBoom)), []judge{wraps},
			"handler, after 1 retry in 1m0s: boom", dianemo.Retrying, "error", time.Minute, 1, "page 3: retry in 1m0s: boom", ""},
		{"a snooze stays one", dianemo.Policy{}, nil, suite.Returns(dianemo.Snooze(time.Minute)), []judge{asItIs},
			"handler, after 1 snooze", dianemo.Retrying, "snooze", time.Minute, 0, "", ""},
		{"success from a snooze", dianemo.Policy{}, nil, suite.Returns(dianemo.Snooze(time.Minute)), []judge{turnsTo(nil)},
			"handler, after 1 snooze", dianemo.Succeeded, "", 0, 1, "", ""},
		{"failed for good stays it", dianemo.Policy{}, nil, suite.Returns(dianemo.Fail(suite.ErrBoom)), []judge{asItIs},
			"handler, after 1 boom", dianemo.Failed, "error", 0, 1, "boom", ""},

		{"a panic stays one", dianemo.Policy{}, nil, panicsWith("ouch"), []judge{asItIs},
			"handler, after 1 panic ouch", dianemo.Retrying, "panic", 30 * time.Minute, 1, "panic: ouch\n", ""},
		{"a wrapped panic stays one", dianemo.Policy{}, nil, panicsWith("ouch"), []judge{wraps, asItIs},
			"handler, after 1 panic ouch, after 2 panic ouch", dianemo.Retrying, "panic", 30 * time.Minute, 1, "page 3: panic: ouch\n", ""},
		{"a panic, failed for good", dianemo.Policy{}, nil, panicsWith("ouch"),
			[]judge{func(_ context.Context, _ *dianemo.Job[suite.Args], err error) error { return dianemo.Fail(err) }},
			"handler, after 1 panic ouch", dianemo.Failed, "panic", 0, 1, "panic: ouch\n", ""},
		{"a panic, to be tried soon", dianemo.Policy{Priority: 1}, nil, panicsWith("ouch"),
			[]judge{func(_ context.Context, _ *dianemo.Job[suite.Args], err error) error {
				return dianemo.RetryIn(time.Minute, err)
			}},
			"handler, after 1 panic ouch", dianemo.Retrying, "panic", time.Minute, 1, "retry in 1m0s: panic: ouch\n", ""},
		{"a panic with another's word is no word", dianemo.Policy{Priority: 1}, nil, panicsWith(dianemo.Snooze(time.Minute)), []judge{asItIs},
			"handler, after 1 panic snooze for 1m0s", dianemo.Failed, "panic", 0, 1, "panic: snooze for 1m0s\n", ""},
		{"another error from a panic", dianemo.Policy{}, nil, panicsWith("ouch"), []judge{turnsTo(suite.ErrBoom)},
			"handler, after 1 panic ouch", dianemo.Retrying, "error", 30 * time.Minute, 1, "boom", ""},
		{"success from a panic", dianemo.Policy{}, nil, panicsWith("ouch"), []judge{turnsTo(nil)},
			"handler, after 1 panic ouch", dianemo.Succeeded, "", 0, 1, "", ""},

		{"after panics", dianemo.Policy{}, nil, pass, []judge{func(context.Context, *dianemo.Job[suite.Args], error) error { panic("late") }},
			"handler, after 1 <nil>", dianemo.Retrying, "panic", 30 * time.Minute, 1, "panic: late\n", ""},
		{"after panics, and the next hears of it", dianemo.Policy{}, nil, panicsWith("ouch"),
			[]judge{func(context.Context, *dianemo.Job[suite.Args], error) error { panic("late") }, turnsTo(nil)},
			"handler, after 1 panic ouch, after 2 panic late", dianemo.Succeeded, "", 0, 1, "", ""},

		// It can't be taken back.
		{"goexit", dianemo.Policy{}, nil, exits, []judge{turnsTo(nil), turnsTo(nil)},
			"handler, after 1 panic <nil>, after 2 panic <nil>", dianemo.Retrying, "panic", 30 * time.Minute, 1, "the handler called runtime.Goexit\n", ""},
		{"goexit before", dianemo.Policy{}, []work{exits}, pass, []judge{asItIs},
			"before 1, after 1 panic <nil>", dianemo.Retrying, "panic", 30 * time.Minute, 1, "the handler called runtime.Goexit\n", ""},
		{"goexit after", dianemo.Policy{}, nil, pass, []judge{func(context.Context, *dianemo.Job[suite.Args], error) error { runtime.Goexit(); return nil }, asItIs},
			"handler, after 1 <nil>, after 2 panic <nil>", dianemo.Retrying, "panic", 30 * time.Minute, 1, "the handler called runtime.Goexit\n", ""},

		{"timeout", dianemo.Policy{Timeout: 10 * time.Millisecond}, nil, untilEnd(dianemo.ErrTimeout), []judge{asItIs},
			"handler, after 1 context deadline exceeded", dianemo.Retrying, "timeout", 30 * time.Minute, 1,
			"dianemo: the job's timeout has passed: context deadline exceeded", ""},
		{"success from a timeout", dianemo.Policy{Timeout: 10 * time.Millisecond}, nil, untilEnd(dianemo.ErrTimeout), []judge{
			func(ctx context.Context, _ *dianemo.Job[suite.Args], err error) error {
				if context.Cause(ctx) == dianemo.ErrTimeout {
					return nil
				}
				return err
			}}, "handler, after 1 context deadline exceeded", dianemo.Succeeded, "", 0, 1, "", ""},
		{"after takes too long", dianemo.Policy{Timeout: 10 * time.Millisecond}, nil, pass, []judge{
			func(ctx context.Context, job *dianemo.Job[suite.Args], _ error) error {
				return untilEnd(dianemo.ErrTimeout)(ctx, job)
			}},
			"handler, after 1 <nil>", dianemo.Retrying, "timeout", 30 * time.Minute, 1,
			"dianemo: the job's timeout has passed: context deadline exceeded", ""},
	} {
		t.Run(strings.ReplaceAll(row.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				calls := &callLog{}
				kind := dianemo.NewKind[suite.Args]("kind", row.policy)
				for i, before := range row.before {
					kind = kind.Before(func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
						calls.add(fmt.Sprintf("before %d", i+1))
						return before(ctx, job)
					})
				}
				for i, after := range row.after {
					kind = kind.After(func(ctx context.Context, job *dianemo.Job[suite.Args], err error) error {
						calls.add(fmt.Sprintf("after %d %s", i+1, seen(err)))
						return after(ctx, job, err)
					})
				}
				peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
					require.NoError(t, kind.Handle(p, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
						calls.add("handler")
						return row.handler(ctx, job)
					}))
				})
				id := suite.Enqueue(t, peer, kind, dianemo.Options{})
				peer.Next()
				require.Equal(t, row.calls, strings.Join(calls.all(), ", "))
				job := suite.Get(t, peer, id)
				require.Equal(t, []any{row.state, row.reason, row.attempt, row.result}, []any{job.State, job.Reason, job.Attempt, string(job.Result)})
				if row.in > 0 {
					require.WithinRange(t, job.Due, job.StartedAt.Add(row.in), job.StartedAt.Add(row.in+suite.Patience))
				}
				if row.text == "" {
					require.Empty(t, job.LastError())
					return
				}
				require.True(t, strings.HasPrefix(job.LastError(), row.text), job.LastError())
				if row.reason == "panic" {
					require.Contains(t, job.LastError(), "around_test.go")
				} else {
					require.Equal(t, row.text, job.LastError())
				}
			})
		})
	}
}

func untilLate(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
	<-ctx.Done()
	return nil
}

// What a reader of the history looks for is where it panicked, with an After or
// without; and an After's own panic is no handler's.
func TestTheStackOfAPanicLeadsToWhatPanicked(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	plain := dianemo.NewKind[suite.Args]("plain", dianemo.Policy{Retries: dianemo.None})
	kinds := map[string]dianemo.Kind[suite.Args]{"plain": plain}
	for name, after := range map[string]judge{"followed": asItIs, "late": bursts} {
		kinds[name] = dianemo.NewKind[suite.Args](name, dianemo.Policy{Retries: dianemo.None}).After(after)
	}
	peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
		for _, kind := range kinds {
			require.NoError(t, kind.Handle(p, ouch))
		}
	})
	said := map[string]string{}
	for name, kind := range kinds {
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		peer.Next()
		said[name] = suite.Get(t, peer, id).LastError()
		require.NotContains(t, said[name], "runtime/debug")
		require.NotContains(t, said[name], "dianemo.caught")
		require.NotContains(t, said[name], "execute")
	}
	first := func(text string) string { return strings.Join(strings.Split(text, "\n")[:3], "\n") }
	require.Contains(t, first(said["plain"]), "handlers_test.ouch(")
	require.Contains(t, first(said["plain"]), "around_test.go:")
	withoutAddresses := func(text string) string {
		before, _, _ := strings.Cut(text, " +0x")
		name, place, _ := strings.Cut(before, "(")
		_, place, _ = strings.Cut(place, "\n")
		return name + "\n" + place
	}
	require.Equal(t, withoutAddresses(first(said["plain"])), withoutAddresses(first(said["followed"])))
	require.Contains(t, first(said["late"]), "handlers_test.bursts(")
	require.NotContains(t, said["late"], "handlers_test.ouch(")
}

func ouch(context.Context, *dianemo.Job[suite.Args]) error { panic("ouch") }

func bursts(context.Context, *dianemo.Job[suite.Args], error) error { panic("late") }

// They are one run: one job, one context with one deadline, and the tokens stay
// charged from the first to the last.
func TestWhatStandsAroundAHandlerIsPartOfItsRun_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		type point struct {
			at  string
			job *dianemo.Job[suite.Args]
			ctx context.Context
		}
		reached, goOn := make(chan point, 1), make(chan struct{})
		stop := func(at string, ctx context.Context, job *dianemo.Job[suite.Args]) error {
			reached <- point{at, job, ctx}
			<-goOn
			return nil
		}
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Weight: 3, Timeout: time.Hour}).
			Before(func(ctx context.Context, job *dianemo.Job[suite.Args]) error { return stop("before", ctx, job) }).
			After(func(ctx context.Context, job *dianemo.Job[suite.Args], _ error) error { return stop("after", ctx, job) })
		var light dianemo.Kind[suite.Args]
		begun := make(chan struct{}, 1)
		peer := suite.Start(t, store, dianemo.Config{Tokens: 3}, func(p *dianemo.Peer) {
			require.NoError(t, kind.Handle(p, func(ctx context.Context, job *dianemo.Job[suite.Args]) error { return stop("handler", ctx, job) }))
			light = suite.Handle(t, p, "light", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error {
				begun <- struct{}{}
				return nil
			})
		})
		id, err := kind.Enqueue(t.Context(), peer, suite.Args{N: 7})
		require.NoError(t, err)
		var first point
		for _, at := range []string{"before", "handler", "after"} {
			here := suite.Receive(t, reached)
			require.Equal(t, at, here.at)
			if first.job == nil {
				first = here
				suite.Enqueue(t, peer, light, dianemo.Options{})
			}
			require.Same(t, first.job, here.job)
			require.Equal(t, []any{id, 7}, []any{here.job.ID, here.job.Args.N})
			require.Equal(t, first.ctx, here.ctx)
			require.NoError(t, here.ctx.Err())
			_, limited := here.ctx.Deadline()
			require.True(t, limited)
			require.Empty(t, begun, "no token is free")
			require.Empty(t, peer.Settled)
			goOn <- struct{}{}
		}
		suite.Receive(t, begun)
		for range 2 { // in either order: they may be of two partitions
			require.Equal(t, dianemo.Succeeded, peer.Next().State)
		}
	})
}

// They are called for each attempt, and what a shutdown or a cancel makes of a run
// is decided by what came of all of them.
func TestACancelOrAShutdownJudgesWhatAfterReturns_Long(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		stopAt   string // where it is when its context ends
		shutdown bool
		after    judge
		calls    string
		state    dianemo.State
		reason   string
	}{
		{"cancelled", "handler", false, asItIs, "before, handler, after context canceled", dianemo.Cancelled, "cancel"},
		{"cancelled, but a success", "handler", false, turnsTo(nil), "before, handler, after context canceled", dianemo.Succeeded, ""},
		{"cancelled, but a failure", "handler", false, turnsTo(dianemo.Fail(suite.ErrBoom)), "before, handler, after context canceled", dianemo.Failed, "error"},
		{"cancelled before", "before", false, asItIs, "before, after context canceled", dianemo.Cancelled, "cancel"},
		{"shut down", "handler", true, asItIs, "before, handler, after context canceled", dianemo.Retrying, "shutdown"},
		{"shut down, with another error", "handler", true, turnsTo(suite.ErrBoom), "before, handler, after context canceled", dianemo.Retrying, "shutdown"},
		{"shut down, but a success", "handler", true, turnsTo(nil), "before, handler, after context canceled", dianemo.Succeeded, ""},
		{"shut down before", "before", true, asItIs, "before, after context canceled", dianemo.Retrying, "shutdown"},
	} {
		t.Run(strings.ReplaceAll(row.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				calls, begun := &callLog{}, make(chan struct{}, 1)
				stop := func(ctx context.Context, at string, err func() error) error {
					calls.add(at)
					if row.stopAt != at {
						return nil
					}
					begun <- struct{}{}
					<-ctx.Done()
					return err()
				}
				kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).
					Before(func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
						return stop(ctx, "before", func() error { return nil })
					}).
					After(func(ctx context.Context, job *dianemo.Job[suite.Args], err error) error {
						calls.add("after " + seen(err))
						return row.after(ctx, job, err)
					})
				peer := suite.Start(t, store, dianemo.Config{Finish: dianemo.None}, func(p *dianemo.Peer) {
					require.NoError(t, kind.Handle(p, func(ctx context.Context, _ *dianemo.Job[suite.Args]) error { return stop(ctx, "handler", ctx.Err) }))
				})
				c := suite.Client(t, store)
				id := suite.Enqueue(t, peer, kind, dianemo.Options{})
				suite.Receive(t, begun)
				if row.shutdown {
					require.NoError(t, peer.Stop())
				} else {
					require.NoError(t, c.Cancel(t.Context(), id))
				}
				peer.Next()
				require.Equal(t, row.calls, strings.Join(calls.all(), ", "))
				job := suite.Get(t, c, id)
				require.Equal(t, []any{row.state, row.reason}, []any{job.State, job.Reason})
			})
		})
	}
}

func TestEachAttemptHasItsBeforeAndAfter_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		calls := &callLog{}
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{RetryIn: dianemo.Every(0)}).
			Before(func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				calls.add(fmt.Sprintf("before %d", job.Attempt))
				return nil
			}).
			After(func(_ context.Context, job *dianemo.Job[suite.Args], err error) error {
				calls.add(fmt.Sprintf("after %d", job.Attempt))
				if job.Attempt == 2 {
					return nil
				}
				return err
			})
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(suite.ErrBoom))) })
		suite.Enqueue(t, peer, kind, dianemo.Options{})
		require.Equal(t, dianemo.Retry, peer.Next().Outcome)
		require.Equal(t, dianemo.Succeed, peer.Next().Outcome)
		require.Equal(t, []string{"before 1", "after 1", "before 2", "after 2"}, calls.all())
	})
}

// A middleware is to see what counts.
func TestWrapIsAroundWhatStandsAroundAHandler(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	calls := &callLog{}
	config := dianemo.Config{Wrap: func(next dianemo.Handler) dianemo.Handler {
		return func(ctx context.Context, job *dianemo.Job[json.RawMessage]) error {
			calls.add("wrap")
			defer func() {
				if p := recover(); p != nil {
					calls.add(fmt.Sprintf("a panic: %v", p))
					panic(p)
				}
			}()
			err := next(ctx, job)
			calls.add("end of wrap " + seen(err))
			return err
		}
	}}
	before := dianemo.NewKind[suite.Args]("before", dianemo.Policy{Retries: dianemo.None}).Before(func(context.Context, *dianemo.Job[suite.Args]) error {
		calls.add("before")
		return nil
	})
	judged := dianemo.NewKind[suite.Args]("judged", dianemo.Policy{Retries: dianemo.None}).
		Before(func(context.Context, *dianemo.Job[suite.Args]) error {
			calls.add("before")
			return nil
		}).
		After(func(_ context.Context, job *dianemo.Job[suite.Args], err error) error {
			calls.add("after " + seen(err))
			if job.Args.N == 1 {
				return nil
			}
			return err
		})
	peer := suite.Start(t, store, config, func(p *dianemo.Peer) {
		for _, kind := range []dianemo.Kind[suite.Args]{before, judged} {
			require.NoError(t, kind.Handle(p, func(context.Context, *dianemo.Job[suite.Args]) error {
				calls.add("handler")
				panic("ouch")
			}))
		}
	})
	one := func(kind dianemo.Kind[suite.Args], n int) *dianemo.JobInfo {
		id, err := kind.Enqueue(t.Context(), peer, suite.Args{N: n})
		require.NoError(t, err)
		peer.Next()
		return suite.Get(t, peer, id)
	}
	job := one(judged, 0)
	require.Equal(t, []string{"wrap", "before", "handler", "after panic ouch", "end of wrap panic ouch"}, calls.all())
	require.Equal(t, []any{dianemo.Failed, "panic"}, []any{job.State, job.Reason})
	job = one(judged, 1)
	require.Equal(t, []string{"wrap", "before", "handler", "after panic ouch", "end of wrap <nil>"}, calls.all())
	require.Equal(t, dianemo.Succeeded, job.State)
	job = one(before, 0)
	require.Equal(t, []string{"wrap", "before", "handler", "a panic: ouch"}, calls.all(), "it passes through")
	require.Equal(t, []any{dianemo.Failed, "panic"}, []any{job.State, job.Reason})
}

func TestWithoutArgumentsNothingAroundAHandlerIsCalled(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	calls := &callLog{}
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).
		Before(func(context.Context, *dianemo.Job[suite.Args]) error { calls.add("before"); return nil }).
		After(func(context.Context, *dianemo.Job[suite.Args], error) error { calls.add("after"); return nil })
	peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, kind.Handle(p, suite.Returns(nil))) })
	id, err := dianemo.NewKind[string]("kind", dianemo.Policy{}).Enqueue(t.Context(), peer, "no number")
	require.NoError(t, err)
	peer.Next()
	job := suite.Get(t, peer, id)
	require.Equal(t, dianemo.Failed, job.State)
	require.Contains(t, job.LastError(), "decode args")
	require.Empty(t, calls.all())
}

// A kind is a value: what is made of it does not change it, nor its other
// offspring.
func TestFunctionsAroundAHandlerBelongToTheKindThatWasReturned(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	calls := &callLog{}
	note := func(name string) work {
		return func(context.Context, *dianemo.Job[suite.Args]) error { calls.add(name); return nil }
	}
	end := func(name string) judge {
		return func(_ context.Context, _ *dianemo.Job[suite.Args], err error) error {
			calls.add("end of " + name)
			return err
		}
	}
	kind := func(name string) dianemo.Kind[suite.Args] { return dianemo.NewKind[suite.Args](name, dianemo.Policy{}) }
	plain := kind("plain")
	_ = plain.Before(note("lost")).After(end("lost"))
	// With three, an append has room for a fourth.
	base := kind("a").Before(note("1")).Before(note("2")).Before(note("3")).After(end("1")).After(end("2")).After(end("3"))
	left, right := base.Before(note("left")).After(end("left")), base.Before(note("right")).After(end("right")).Aliases("b")
	want := func(side string) []string {
		return []string{"1", "2", "3", side, "handler", "end of 1", "end of 2", "end of 3", "end of " + side}
	}
	for _, row := range []struct {
		kind dianemo.Kind[suite.Args]
		as   string
		want []string
	}{
		{plain, "plain", []string{"handler"}},
		{left, "a", want("left")},
		{right, "b", want("right")},
	} {
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, row.kind.Handle(p, note("handler"))) })
		suite.Enqueue(t, peer, kind(row.as), dianemo.Options{})
		peer.Next()
		require.Equal(t, row.want, calls.all())
		require.NoError(t, peer.Stop())
	}
}

func TestNilFunctionsAroundAHandlerAreRefused(t *testing.T) {
	t.Parallel()
	peer, err := dianemo.NewPeer(suite.Embedded(t, 1), dianemo.Config{Logger: suite.Quiet})
	require.NoError(t, err)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).Before(suite.Returns(nil)).After(asItIs)
	for field, wrong := range map[string]dianemo.Kind[suite.Args]{"Before(fn)": kind.Before(nil), "After(fn)": kind.After(nil)} {
		var refused *dianemo.FieldError
		require.ErrorAs(t, wrong.Handle(peer, suite.Returns(nil)), &refused)
		require.Equal(t, field, refused.Field)
	}
	require.NoError(t, kind.Handle(peer, suite.Returns(nil)), "nothing of what was refused is left")
}
