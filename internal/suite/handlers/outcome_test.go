package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

func TestWhatAHandlerReturnsDecides_Long(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		policy  dianemo.Policy
		options dianemo.Options
		fn      func(ctx context.Context, job *dianemo.Job[suite.Args]) error
		state   dianemo.State
		reason  string
		in      time.Duration // from the end of the run until it is due again
		attempt int
		text    string // of the error
	}{
		{"nil", dianemo.Policy{}, dianemo.Options{}, suite.Returns(nil), dianemo.Succeeded, "", 0, 1, ""},

		// The defaults of the priorities, and who may set them.
		{"error at priority 1", dianemo.Policy{Priority: 1}, dianemo.Options{}, suite.Returns(suite.ErrBoom), dianemo.Failed, "error", 0, 1, "boom"},
		{"error at priority 2", dianemo.Policy{}, dianemo.Options{}, suite.Returns(suite.ErrBoom), dianemo.Retrying, "error", 30 * time.Minute, 1, "boom"},
		{"error at priority 9", dianemo.Policy{Priority: 9}, dianemo.Options{}, suite.Returns(suite.ErrBoom), dianemo.Retrying, "error", 30 * time.Minute, 1, "boom"},
		{"the job has another priority", dianemo.Policy{}, dianemo.Options{Priority: 1}, suite.Returns(suite.ErrBoom), dianemo.Failed, "error", 0, 1, "boom"},
		{"the kind allows retries", dianemo.Policy{Priority: 1, Retries: 1}, dianemo.Options{}, suite.Returns(suite.ErrBoom), dianemo.Retrying, "error", 30 * time.Minute, 1, "boom"},
		{"the kind allows none", dianemo.Policy{Retries: dianemo.None}, dianemo.Options{}, suite.Returns(suite.ErrBoom), dianemo.Failed, "error", 0, 1, "boom"},
		{"the job allows none", dianemo.Policy{Retries: 5}, dianemo.Options{Retries: dianemo.None}, suite.Returns(suite.ErrBoom), dianemo.Failed, "error", 0, 1, "boom"},
		{"the job allows some", dianemo.Policy{Retries: dianemo.None}, dianemo.Options{Retries: 1}, suite.Returns(suite.ErrBoom), dianemo.Retrying, "error", 30 * time.Minute, 1, "boom"},
		{"the kind has its own distance", dianemo.Policy{RetryIn: dianemo.Every(time.Hour)}, dianemo.Options{}, suite.Returns(suite.ErrBoom), dianemo.Retrying, "error", time.Hour, 1, "boom"},
		{"the kind's distance panics", dianemo.Policy{RetryIn: func(int, error) time.Duration { panic("no") }}, dianemo.Options{}, suite.Returns(suite.ErrBoom),
			dianemo.Retrying, "error", 30 * time.Minute, 1, "boom"},

		{"retry in", dianemo.Policy{}, dianemo.Options{}, suite.Returns(dianemo.RetryIn(time.Minute, suite.ErrBoom)), dianemo.Retrying, "error", time.Minute, 1, "boom"},
		{"retry in, wrapped", dianemo.Policy{}, dianemo.Options{}, suite.Returns(fmt.Errorf("page 3: %w", dianemo.RetryIn(time.Minute, suite.ErrBoom))),
			dianemo.Retrying, "error", time.Minute, 1, "page 3: retry in 1m0s: boom"},
		{"retry in, beyond the retries", dianemo.Policy{Priority: 1}, dianemo.Options{}, suite.Returns(dianemo.RetryIn(time.Minute, suite.ErrBoom)),
			dianemo.Retrying, "error", time.Minute, 1, "boom"},
		{"snooze", dianemo.Policy{Priority: 1}, dianemo.Options{}, suite.Returns(dianemo.Snooze(time.Minute)), dianemo.Retrying, "snooze", time.Minute, 0, ""},
		{"fail", dianemo.Policy{}, dianemo.Options{}, suite.Returns(dianemo.Fail(suite.ErrBoom)), dianemo.Failed, "error", 0, 1, "boom"},

		{"panic", dianemo.Policy{}, dianemo.Options{}, func(context.Context, *dianemo.Job[suite.Args]) error { panic("ouch") },
			dianemo.Retrying, "panic", 30 * time.Minute, 1, "panic: ouch\n"},
		{"an error that panics", dianemo.Policy{Priority: 1}, dianemo.Options{}, suite.Returns((*brokenError)(nil)), dianemo.Failed, "panic", 0, 1, "panic: "},
		{"goexit", dianemo.Policy{Priority: 1}, dianemo.Options{}, func(context.Context, *dianemo.Job[suite.Args]) error { runtime.Goexit(); return nil },
			dianemo.Failed, "panic", 0, 1, "the handler called runtime.Goexit\n"},
		{"timeout", dianemo.Policy{Priority: 1, Timeout: 10 * time.Millisecond}, dianemo.Options{}, untilEnd(dianemo.ErrTimeout),
			dianemo.Failed, "timeout", 0, 1, "the job's timeout has passed"},
		{"the job's own timeout", dianemo.Policy{Timeout: time.Hour}, dianemo.Options{Timeout: 10 * time.Millisecond}, untilEnd(dianemo.ErrTimeout),
			dianemo.Retrying, "timeout", 30 * time.Minute, 1, "the job's timeout has passed"},
		{"success after the timeout", dianemo.Policy{Timeout: time.Millisecond}, dianemo.Options{}, func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
			<-ctx.Done()
			return nil
		}, dianemo.Succeeded, "", 0, 1, ""},
		{"a long error", dianemo.Policy{}, dianemo.Options{}, suite.Returns(errors.New(strings.Repeat("é", 4096))), dianemo.Retrying, "error", 30 * time.Minute, 1,
			strings.Repeat("é", 2048)},
	} {
		t.Run(strings.ReplaceAll(row.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			suite.Each(t, func(t *testing.T, store dianemo.Store) {
				var kind dianemo.Kind[suite.Args]
				peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { kind = suite.Handle(t, p, "kind", row.policy, row.fn) })
				id := suite.Enqueue(t, peer, kind, row.options)
				settled := peer.Next()
				require.False(t, settled.Stale)
				job := suite.Get(t, peer, id)
				require.Equal(t, row.state, job.State)
				require.Equal(t, row.reason, job.Reason)
				require.Equal(t, row.attempt, job.Attempt)
				require.Equal(t, 1, job.Runs)
				if row.in > 0 {
					require.WithinRange(t, job.Due, job.StartedAt.Add(row.in), job.StartedAt.Add(row.in+suite.Patience))
				}
				require.Len(t, job.History, 1)
				run := job.History[0]
				require.Equal(t, []any{peer.ID(), settled.Epoch, settled.Outcome, row.reason}, []any{run.Peer, run.Epoch, run.Outcome, run.Reason})
				require.False(t, run.EndedAt.Before(run.StartedAt))
				if row.text == "" {
					require.Empty(t, run.Error)
					return
				}
				require.Contains(t, run.Error, row.text)
				require.LessOrEqual(t, len(run.Error), 4096)
				if row.reason == "panic" && row.name != "an error that panics" {
					require.Contains(t, run.Error, "outcome_test.go", "the stack leads to the handler")
					require.NotContains(t, run.Error, "runtime/debug")
				}
			})
		})
	}
}

type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// untilEnd returns the context's error once it has ended with that cause.
func untilEnd(cause error) func(context.Context, *dianemo.Job[suite.Args]) error {
	return func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
		<-ctx.Done()
		if context.Cause(ctx) != cause {
			return fmt.Errorf("the cause was %w", context.Cause(ctx))
		}
		return ctx.Err()
	}
}

// Three retries, half an hour apart, each within the grace; then the job has
// failed. The store's clock is moved by the test.
func TestPriorityTwoIsTriedFourTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{BeatEvery: 100 * time.Millisecond, SilentAfter: 24 * time.Hour, Lease: 24 * time.Hour}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				return fmt.Errorf("attempt %d", job.Attempt)
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		for attempt := 1; attempt <= 4; attempt++ {
			settled := peer.Next()
			require.Equal(t, fmt.Sprintf("attempt %d", attempt), settled.Error)
			job := suite.Get(t, peer, id)
			require.Len(t, job.History, attempt)
			if attempt == 4 {
				require.Equal(t, dianemo.Failed, job.State)
				return
			}
			require.Equal(t, dianemo.Retrying, job.State)
			store.Advance(30*time.Minute - 2*time.Second)
			require.Equal(t, dianemo.Retrying, suite.Get(t, peer, id).State, "not before its time")
			require.Empty(t, peer.Settled)
			store.Advance(2 * time.Second)
		}
	})
}

func TestTheLastTenRunsAreKept_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Retries: 12, RetryIn: dianemo.Every(0)}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				return fmt.Errorf("attempt %d", job.Attempt)
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		for range 13 {
			peer.Next()
		}
		job := suite.Get(t, peer, id)
		require.Equal(t, dianemo.Failed, job.State)
		require.Equal(t, 13, job.Attempt)
		require.Len(t, job.History, 10)
		for i, run := range job.History {
			require.Equal(t, fmt.Sprintf("attempt %d", i+4), run.Error)
		}
		require.Equal(t, "attempt 13", job.LastError())
	})
}

// Each way in which a run can end, and the one that has not.
func TestTheHistoryHasEveryRun_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		begun, end := make(chan struct{}, 1), make(chan error)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error {
				begun <- struct{}{}
				return <-end
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		suite.Receive(t, begun)
		var outcomes []dianemo.Outcome
		for _, err := range []error{dianemo.RetryIn(0, suite.ErrBoom), dianemo.Snooze(0), dianemo.RetryIn(0, suite.ErrBoom), nil} {
			job := suite.Get(t, peer, id)
			require.Equal(t, dianemo.Running, job.State)
			require.Len(t, job.History, len(outcomes)+1)
			present := job.History[len(outcomes)]
			require.Equal(t, dianemo.Run{Epoch: job.Epoch, Peer: peer.ID(), StartedAt: time.UnixMilli(job.Epoch / 1000)}, present)
			require.Equal(t, job.StartedAt, present.StartedAt)

			end <- err
			outcomes = append(outcomes, peer.Next().Outcome)
			if err != nil {
				suite.Receive(t, begun)
			}
		}
		require.Equal(t, []dianemo.Outcome{dianemo.Retry, dianemo.Postpone, dianemo.Retry, dianemo.Succeed}, outcomes)
		job := suite.Get(t, peer, id)
		require.Len(t, job.History, len(outcomes))
		for i, run := range job.History {
			require.Equal(t, []any{outcomes[i], peer.ID()}, []any{run.Outcome, run.Peer})
			require.False(t, run.EndedAt.Before(run.StartedAt))
			require.True(t, i == 0 || run.Epoch > job.History[i-1].Epoch)
		}
		require.Equal(t, "retry in 0s: boom", job.LastError())
		require.Equal(t, job.EndedAt, job.History[3].EndedAt)
	})
}

func TestASnoozeCostsNoAttempt_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var kind dianemo.Kind[suite.Args]
		runs := 0
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Priority: 1}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				if runs++; runs < 5 {
					return dianemo.Snooze(time.Millisecond)
				}
				return job.SetResult(job.Attempt)
			})
		})
		id := suite.Enqueue(t, peer, kind, dianemo.Options{})
		for range 5 {
			peer.Next()
		}
		job := suite.Get(t, peer, id)
		require.Equal(t, dianemo.Succeeded, job.State)
		require.Equal(t, 5, job.Runs)
		require.Equal(t, "1", string(job.Result))
	})
}

func TestAttemptsAreDeadlinedToTheMillisecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		var kind dianemo.Kind[suite.Args]
		left := make(chan time.Duration, 1)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{Timeout: 12345 * time.Millisecond}, func(ctx context.Context, _ *dianemo.Job[suite.Args]) error {
				deadline, _ := ctx.Deadline()
				left <- time.Until(deadline)
				return nil
			})
		})
		suite.Enqueue(t, peer, kind, dianemo.Options{})
		require.InDelta(t, 12345, (<-left).Milliseconds(), 50)
	})
}
