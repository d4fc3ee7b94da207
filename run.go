package dianemo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// A run is one attempt at a job, from its claim until its settlement is
// answered.
type run struct {
	id, kind  string
	spec      *Spec // nil if it could not be read
	stored    Spec
	policy    Policy // of the kind, as this peer defines it
	fn        handler
	partition *partition
	lane      Lane
	priority  int
	weight    int
	attempt   int
	fails     int
	epoch     int64
	due       time.Time
	enqueued  time.Time
	started   time.Time
	ctx       context.Context
	cancel    context.CancelCauseFunc

	mu       sync.Mutex
	progress Progress
	news     bool // progress that no beat has carried yet
	result   []byte
	decides  bool // Choose was called
	chosen   []string
	ended    time.Time // when a beat first found its context ended
	lost     bool      // a beat has found it lost; guarded by the partition's mu
	called   bool      // a beat has found it cancelled; the same
}

func (r *run) ref() RunRef { return RunRef{r.id, r.epoch} }

func (r *run) setProgress(done, total int64, note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Done, r.progress.Total, r.progress.Note, r.news = done, total, trim(note, 256), true
}

func encodeResult(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, &FieldError{"result", fmt.Sprintf("%T: %v", v, err), "a value that encoding/json marshals"}
	}
	if len(b) > MaxPayload {
		return nil, &FieldError{"result", fmt.Sprintf("%d bytes", len(b)), fmt.Sprintf("%d bytes at most", MaxPayload)}
	}
	return b, nil
}

func (r *run) setResult(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result = b
}

// open makes the context in which the handler will run. The time-out counts
// from here.
func (r *run) open(base context.Context) {
	ctx, cancel := context.WithCancelCause(base)
	r.ctx, r.cancel = ctx, cancel
	if timeout := inherit(r.spec.Timeout, r.policy.Timeout, Unlimited); timeout > 0 {
		var stop context.CancelFunc
		r.ctx, stop = context.WithTimeoutCause(ctx, timeout, ErrTimeout)
		r.cancel = func(cause error) {
			cancel(cause)
			stop()
		}
	}
}

// execute calls the handler and says how the run ended. It returns only when
// the handler's goroutine is done with it, however it went.
func (r *run) execute() {
	ctx := r.ctx
	defer r.cancel(nil)

	var s Settlement
	returned := false
	// Deferred, because after runtime.Goexit nothing else is run.
	defer func() {
		if !returned {
			s = r.settlement(&PanicError{recover(), stack()}, context.Cause(ctx))
		}
		r.partition.finish(r, s)
	}()
	err := r.fn(ctx, r)
	s = r.settlement(err, context.Cause(ctx)) // which calls methods of the handler's error
	returned = true
}

// settlement decides what becomes of the job: the table of DESIGN §3.
func (r *run) settlement(err, cause error) Settlement {
	s := Settlement{ID: r.id, Lane: r.lane, Epoch: r.epoch, Outcome: Succeed}
	if err == nil {
		r.mu.Lock()
		s.Result = r.result
		if r.decides {
			s.Decides, s.Chosen, s.Reason = true, r.chosen, "choice"
		}
		r.mu.Unlock()
		return s
	}
	level := defaults(r.priority)
	retries := max(inherit(r.spec.Retries, r.policy.Retries, level.Retries), 0)
	reruns := max(inherit(r.spec.Reruns, r.policy.Reruns, level.Reruns), 0)
	var said *outcome
	var panicked *PanicError
	reason := "error"
	if errors.As(err, &panicked) {
		reason = "panic"
	}
	switch {
	case errors.Is(cause, ErrCancelled) && !(errors.As(err, &said) && said.verdict == verdictFail):
		s.Outcome, s.Reason = CancelRun, "cancel"
		if said != nil && said.verdict == verdictSnooze {
			return s
		}
	case errors.As(err, &said) && said.verdict == verdictSnooze:
		s.Outcome, s.In, s.Reason = Postpone, said.in, "snooze"
		return s
	case errors.As(err, &said) && said.verdict == verdictRetry:
		s.Outcome, s.In, s.Reason = Retry, said.in, reason
	case errors.As(err, &said):
		s.Outcome, s.Reason, s.Own = FailRun, reason, true
	case (errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrLost)) && panicked == nil:
		// Whatever it says, it was stopped by us. Without the promise of another
		// start it ends here; else it costs no attempt.
		s.Outcome, s.Reason = GiveBack, "shutdown"
		if errors.Is(cause, ErrLost) {
			s.Reason = "lost"
		}
		if retries == 0 && reruns == 0 {
			s.Outcome = FailRun
			err = fmt.Errorf("%w: %w", cause, err)
		}
	default:
		s.Outcome, s.Reason = FailRun, reason
		if errors.Is(cause, ErrTimeout) && panicked == nil {
			s.Reason = "timeout"
			if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				err = fmt.Errorf("%w: %w", ErrTimeout, err)
			}
		}
		if r.fails < retries {
			s.Outcome, s.In = Retry, r.retryIn(level, err)
		}
	}
	if s.Outcome != GiveBack {
		s.Error = trim(err.Error(), maxError)
	}
	return s
}

// retryIn asks the kind's own function, which may be wrong but not fatal.
func (r *run) retryIn(level Policy, err error) (in time.Duration) {
	if r.policy.RetryIn == nil {
		return level.RetryIn(r.fails+1, err)
	}
	defer func() {
		if p := recover(); p != nil {
			r.partition.peer.logger.Error("Policy.RetryIn panicked; the default is taken", "kind", r.kind, "panic", p)
			in = level.RetryIn(r.fails+1, err)
		}
	}()
	return max(r.policy.RetryIn(r.fails+1, err), 0)
}

// stack is the handler's part of the goroutine's stack.
func stack() string {
	s := string(debug.Stack())
	// What stands above the last panic or Goexit is ours.
	for _, mark := range []string{"\npanic(", "\nruntime.Goexit("} {
		if i := strings.LastIndex(s, mark); i >= 0 {
			s = s[i+1:]
			// The mark's own line, and the line with its place.
			for range 2 {
				_, s, _ = strings.Cut(s, "\n")
			}
			break
		}
	}
	for _, ours := range []string{"dianemo.caught(", "dianemo.(*run).execute("} {
		if i := strings.Index(s, ours); i > 0 {
			s = s[:strings.LastIndex(s[:i], "\n")+1]
		}
	}
	return s
}

// trim cuts s to at most n bytes of whole runes.
func trim(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
