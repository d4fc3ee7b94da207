// Package dianemo runs a Go service's background and batch work across all of
// its own processes. A program registers handler functions, each with a token
// weight and a priority; every process that does so is a peer; the peers share
// one Redis, and each claims as much as it can carry. There is no server, no
// dispatcher and no master.
//
// # One job's life
//
// A [Kind] names a type of job: its arguments and its [Policy]. Declare it once
// and share it between those who enqueue and those who run:
//
//	var Thumbnail = dianemo.NewKind[ThumbnailArgs]("image.thumbnail",
//		dianemo.Policy{Weight: 4, Timeout: time.Minute})
//
// Enqueue writes the job into its lane in Redis, where it waits until it is due:
//
//	id, err := Thumbnail.Enqueue(ctx, client, ThumbnailArgs{URL: u})
//
// A [Peer] that has a handler for the kind, and tokens free for its weight,
// claims it:
//
//	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: 64, Reserve: map[int]int{1: 16}})
//	err = Thumbnail.Handle(peer, func(ctx context.Context, job *dianemo.Job[ThumbnailArgs]) error { … })
//	err = peer.Run(ctx)
//
// Each start is a run, with an epoch that only grows. What the handler returns
// settles it: nil, an error, or [RetryIn], [Snooze], [Fail]. [Kind.Before] and
// [Kind.After] may say otherwise. What was settled is
// kept and can be read: one job with [Client.Get], many with [Client.List], its end
// with [Client.Wait].
//
// A job that was not started within its grace is [Missed], and never started
// afterwards. While a run lasts, its peer sends beats; when they stop for
// longer than Config.SilentAfter, the job is given to another peer, or, if it
// may not run again, ends [Unreachable]. One peer, the leader, looks after that;
// when it goes, another takes over.
//
// # Tokens
//
// A peer has Config.Tokens; a run costs its kind's weight from the claim until
// its handler has really returned. Config.Reserve keeps tokens for urgent work: a
// job of priority p and weight w is claimed only if, for every level q from 1 to
// p, what runs at levels q and below it in urgency, and w, fit into the tokens
// less the reserves of the levels more urgent than q.
//
// Others come first on a peer's host: its tokens shrink by the share of the CPUs
// that they use, and when that is nine tenths it claims nothing until it is
// below three quarters; running jobs go on. See [LoadConfig].
//
// A heavy job may be passed over by lighter ones for Config.HeavyWait; then its
// peer keeps what becomes free until it fits.
//
// # Operating
//
// Any process with a [Client] can cancel, requeue and reschedule jobs, pause a
// kind, drain a peer, and ask why a job is not running: [Client.Cancel],
// [Client.Requeue], [Client.Reschedule], [Client.Pause], [Client.Drain],
// [Client.Why]. Finished jobs are let go of by age and number, as [Policy].Keep
// says. What does not hold together in Redis is put right by the leader, bit by
// bit, or at once by [Client.Repair].
//
// # Schedules
//
// A [Schedule] makes a job at each instant of its [Rule]:
//
//	rule, err := dianemo.Cron("30 2 * * *", "Europe/Berlin")
//	err = peer.Schedule(dianemo.Schedule{Name: "nightly", Rule: rule, Job: Report.New(args)})
//
// It lives in the store with its cursor, the last instant that was decided. The
// leader fires it; since an occurrence and the cursor are written as one, each exists
// exactly once. [Client.PutSchedule] makes and changes schedules from any process.
//
// # Parents and children
//
// A job with Options.Parents is blocked until these have ended as it wants: see
// [After], [AfterFailure], [AfterEnd] and [AfterChosen]. A parent that ends otherwise makes
// it [Skipped], and its own children in turn. A handler that calls [Job.Choose] picks which of
// its children go on.
//
// # Workflows
//
// A [Workflow] is a graph of jobs that [Client.Submit] accepts as a whole or not at all. It
// is a job itself: [Client.Wait] waits for its end and [Client.Cancel] cancels all of it.
// [Client.Workflow] tells its progress, [Client.WorkflowGraph] draws it,
// [Client.ResumeWorkflow] runs again what did not succeed.
//
// # What is promised
//
//   - A job whose enqueue returned nil is in Redis, once.
//   - A job with neither retries nor reruns, as is the default at priority 1, is
//     never started a second time by the library.
//   - Any other is started within its grace, or not at all; and at most 1 +
//     retries + reruns times, not counting what its handler asks for and what a
//     shutdown gave back unfinished.
//   - A result is kept only if it is of the job's present run: a peer that wakes
//     from a long pause can't overwrite what another did meanwhile.
//   - Handlers are never abandoned: Run returns when they have, or names them.
//
// # What is not
//
//   - Exactly-once effects. A handler may be killed between its effect and its
//     settlement. Make handlers idempotent, or hand Job.Epoch to the systems they
//     write to as a fencing token.
//   - More durability than Redis has: what it loses in a crash or a failover
//     after it said yes is lost. See the README for its settings.
//   - Order. Within a lane jobs start in the order of their due times, but they
//     run at the same time.
package dianemo
