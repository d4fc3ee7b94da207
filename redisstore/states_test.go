package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A subject is one job that was brought into a state.
type subject struct {
	id    string
	lane  dianemo.Lane // where it waits, or waited
	epoch int64        // of its last run
}

const owner = "owner" // the peer that runs or ran the subject

// bring makes a job in the state. expired makes a waiting one wait past its
// grace; unique makes it hold a slot.
func (f *fixture) bring(state dianemo.State, expired, unique bool) subject {
	f.t.Helper()
	s := subject{id: "subject", lane: lane("kind")}
	if state == "" {
		return s
	}
	if state == dianemo.Missed || (state == dianemo.Scheduled || state == dianemo.Blocked) && expired {
		s.lane.Grace = time.Minute
	}
	r := record(s.id, s.lane)
	if s.lane.Grace > 0 {
		r.RunAt = time.Now().Add(-time.Hour)
	}
	if unique {
		r.Unique.Key = "slot"
	}
	if state == dianemo.Blocked || state == dianemo.Skipped {
		r.Blocked = true
		f.need(s.id, parentOf(s.id))
	}
	f.enqueue(r)
	partition := f.Partition(s.id)
	run := func() {
		jobs := f.claim(partition, owner, claimLane(s.lane)).Jobs
		require.Len(f.t, jobs, 1)
		s.epoch = jobs[0].Epoch
	}
	end := func(outcome dianemo.Outcome) {
		require.Empty(f.t, f.settle(partition, owner, dianemo.Settlement{ID: s.id, Lane: s.lane, Epoch: s.epoch, Outcome: outcome}))
	}
	switch state {
	case dianemo.Scheduled, dianemo.Blocked:
	case dianemo.Skipped:
		f.release(s.id, dianemo.Failed)
	case dianemo.Running:
		run()
	case dianemo.Succeeded:
		run()
		end(dianemo.Succeed)
	case dianemo.Failed:
		run()
		end(dianemo.FailRun)
	case dianemo.Missed:
		require.Len(f.t, f.miss(partition), 1)
	case dianemo.Unreachable:
		run()
		require.Len(f.t, f.reap(partition), 1)
	case dianemo.Cancelled:
		require.NoError(f.t, f.cancel(s.id).Err)
	}
	require.Equal(f.t, state, f.stored(s.id))
	return s
}

// stored is the state without what readers tell apart.
func (f *fixture) stored(id string) dianemo.State {
	switch state := f.state(id); state {
	case dianemo.Queued, dianemo.Retrying:
		return dianemo.Scheduled
	default:
		return state
	}
}

// attempt is one way to try an edge on the subject.
type attempt struct {
	edge    dianemo.Edge
	name    string
	expired bool
	unique  bool
	want    map[dianemo.State]dianemo.State // what it makes of a state; missing: nothing
	try     func(f *fixture, s subject)
}

func attempts() []attempt {
	settle := func(outcome dianemo.Outcome, becomes dianemo.State) attempt {
		return attempt{edge: dianemo.EdgeSettle, name: string(outcome), want: map[dianemo.State]dianemo.State{dianemo.Running: becomes},
			try: func(f *fixture, s subject) {
				f.settle(f.Partition(s.id), owner, dianemo.Settlement{ID: s.id, Lane: s.lane, Epoch: s.epoch, Outcome: outcome, In: time.Hour})
			}}
	}
	refused := func(name string, outcome dianemo.Outcome, peer string, off int64) attempt {
		return attempt{edge: dianemo.EdgeSettle, name: name, try: func(f *fixture, s subject) {
			stale := f.settle(f.Partition(s.id), peer, dianemo.Settlement{ID: s.id, Lane: s.lane, Epoch: s.epoch + off, Outcome: outcome})
			require.Equal(f.t, []dianemo.RunRef{{ID: s.id, Epoch: s.epoch + off}}, stale)
		}}
	}
	fires := func(name string, overlap dianemo.Overlap, missed bool, becomes dianemo.State) attempt {
		return attempt{edge: dianemo.EdgeFire, name: name, want: map[dianemo.State]dianemo.State{"": becomes}, try: func(f *fixture, s subject) {
			f.schedule(s.id)
			f.fire(f.firing(s.id, 0, overlap, f.occurrence(s.id+"@before", s.lane, 1)))
			one := f.occurrence(s.id, s.lane, 2)
			one.Missed = missed
			before := f.stored(s.id)
			fired := f.fire(f.firing(s.id, 1, overlap, one))
			require.Equal(f.t, before == "", fired.States[0] != "")
		}}
	}
	releases := func(name string, parent dianemo.State, want map[dianemo.State]dianemo.State) attempt {
		return attempt{edge: dianemo.EdgeRelease, name: name, want: want, try: func(f *fixture, s subject) { f.release(s.id, parent) }}
	}
	return []attempt{
		{edge: dianemo.EdgeEnqueue, want: map[dianemo.State]dianemo.State{"": dianemo.Scheduled}, try: func(f *fixture, s subject) {
			before := f.stored(s.id)
			require.Equal(f.t, []dianemo.State{before}, f.enqueue(record(s.id, s.lane)).Existing)
		}},
		{edge: dianemo.EdgeClaim, want: map[dianemo.State]dianemo.State{dianemo.Scheduled: dianemo.Running}, try: func(f *fixture, s subject) {
			before := f.stored(s.id)
			require.Equal(f.t, before == dianemo.Scheduled, len(f.claim(f.Partition(s.id), "other", claimLane(s.lane)).Jobs) == 1)
		}},
		{edge: dianemo.EdgeClaim, name: "past its grace", expired: true, want: map[dianemo.State]dianemo.State{dianemo.Scheduled: dianemo.Missed},
			try: func(f *fixture, s subject) {
				before := f.stored(s.id)
				reply := f.claim(f.Partition(s.id), "other", claimLane(s.lane))
				require.Empty(f.t, reply.Jobs)
				require.Equal(f.t, before == dianemo.Scheduled, len(reply.Missed) == 1)
			}},
		settle(dianemo.Succeed, dianemo.Succeeded),
		settle(dianemo.FailRun, dianemo.Failed),
		settle(dianemo.Retry, dianemo.Scheduled),
		settle(dianemo.Postpone, dianemo.Scheduled),
		settle(dianemo.GiveBack, dianemo.Scheduled),
		settle(dianemo.Unstarted, dianemo.Scheduled),
		settle(dianemo.CancelRun, dianemo.Cancelled),
		refused("under another epoch", dianemo.Succeed, owner, 7),
		refused("failed under another epoch", dianemo.FailRun, owner, 7),
		refused("by another peer", dianemo.Succeed, "other", 0),
		refused("retry by another peer", dianemo.Retry, "other", 0),
		{edge: dianemo.EdgeBeat, try: func(f *fixture, s subject) {
			before := f.stored(s.id)
			reply, err := f.Beat(f.t.Context(), f.Partition(s.id), dianemo.Beat{Peer: owner, Every: 5 * time.Second, Runs: []dianemo.HeldRun{{ID: s.id, Epoch: s.epoch}}})
			require.NoError(f.t, err)
			require.Equal(f.t, before != dianemo.Running, len(reply.Lost) == 1)
		}},
		{edge: dianemo.EdgeReap, want: map[dianemo.State]dianemo.State{dianemo.Running: dianemo.Unreachable}, try: func(f *fixture, s subject) {
			f.reap(f.Partition(s.id))
		}},
		{edge: dianemo.EdgeMiss, expired: true, want: map[dianemo.State]dianemo.State{dianemo.Scheduled: dianemo.Missed, dianemo.Blocked: dianemo.Missed}, try: func(f *fixture, s subject) {
			f.miss(f.Partition(s.id))
		}},
		{edge: dianemo.EdgeMiss, name: "within its grace", try: func(f *fixture, s subject) {
			require.Empty(f.t, f.miss(f.Partition(s.id)))
		}},
		{edge: dianemo.EdgeEnqueue, name: "that replaces", unique: true, want: map[dianemo.State]dianemo.State{dianemo.Scheduled: dianemo.Cancelled, dianemo.Blocked: dianemo.Cancelled},
			try: func(f *fixture, s subject) {
				before := f.stored(s.id)
				r := record(s.id+"@second", s.lane)
				r.Unique = dianemo.Unique{Key: "slot", Replace: true}
				reply := f.enqueue(r)
				// One that has ended has no slot.
				if before == dianemo.Running {
					require.Equal(f.t, []dianemo.State{before}, reply.Existing)
					require.Equal(f.t, map[int]string{0: s.id}, reply.Holders)
				} else {
					require.Equal(f.t, []dianemo.State{""}, reply.Existing)
				}
			}},
		{edge: dianemo.EdgeCancel, want: map[dianemo.State]dianemo.State{dianemo.Blocked: dianemo.Cancelled, dianemo.Scheduled: dianemo.Cancelled, dianemo.Running: dianemo.Running},
			try: func(f *fixture, s subject) {
				before := f.stored(s.id)
				job := f.cancel(s.id)
				switch {
				case before == "":
					require.ErrorIs(f.t, job.Err, dianemo.ErrNotFound)
				case before.Finished() && before != dianemo.Cancelled:
					require.Equal(f.t, &dianemo.StateError{ID: s.id, State: before, Edge: dianemo.EdgeCancel}, job.Err)
				default:
					require.NoError(f.t, job.Err)
				}
				if before == dianemo.Running {
					require.Equal(f.t, owner, job.Peer)
				}
			}},
		{edge: dianemo.EdgeRequeue, want: map[dianemo.State]dianemo.State{dianemo.Succeeded: dianemo.Scheduled, dianemo.Failed: dianemo.Scheduled,
			dianemo.Missed: dianemo.Scheduled, dianemo.Unreachable: dianemo.Scheduled, dianemo.Cancelled: dianemo.Scheduled, dianemo.Skipped: dianemo.Scheduled},
			try: func(f *fixture, s subject) {
				before := f.stored(s.id)
				job := f.requeue(s.id)
				switch {
				case before == "":
					require.ErrorIs(f.t, job.Err, dianemo.ErrNotFound)
				case !before.Finished():
					require.Equal(f.t, &dianemo.StateError{ID: s.id, State: before, Edge: dianemo.EdgeRequeue}, job.Err)
				default:
					require.NoError(f.t, job.Err)
				}
			}},
		{edge: dianemo.EdgeRequeue, name: "that heeds its parents", want: map[dianemo.State]dianemo.State{dianemo.Succeeded: dianemo.Blocked, dianemo.Failed: dianemo.Blocked,
			dianemo.Missed: dianemo.Blocked, dianemo.Unreachable: dianemo.Blocked, dianemo.Cancelled: dianemo.Blocked, dianemo.Skipped: dianemo.Blocked},
			try: func(f *fixture, s subject) {
				reply, err := f.Requeue(f.t.Context(), f.Partition(s.id), f.call("operator"), []string{s.id}, true)
				require.NoError(f.t, err)
				require.Len(f.t, reply.Jobs, 1)
			}},
		{edge: dianemo.EdgeReschedule, want: map[dianemo.State]dianemo.State{dianemo.Scheduled: dianemo.Scheduled}, try: func(f *fixture, s subject) {
			before := f.stored(s.id)
			job := f.reschedule(s.id, dianemo.Change{Delay: time.Hour, Priority: 7})
			switch before {
			case "":
				require.ErrorIs(f.t, job.Err, dianemo.ErrNotFound)
			case dianemo.Scheduled:
				require.NoError(f.t, job.Err)
			default:
				require.Equal(f.t, &dianemo.StateError{ID: s.id, State: before, Edge: dianemo.EdgeReschedule}, job.Err)
			}
		}},
		releases("that suits", dianemo.Succeeded, map[dianemo.State]dianemo.State{dianemo.Blocked: dianemo.Scheduled, dianemo.Skipped: dianemo.Scheduled}),
		releases("that does not suit", dianemo.Failed, map[dianemo.State]dianemo.State{dianemo.Blocked: dianemo.Skipped}),
		releases("that was requeued", dianemo.Scheduled, map[dianemo.State]dianemo.State{dianemo.Skipped: dianemo.Blocked}),
		releases("that was left out", dianemo.Unchosen, map[dianemo.State]dianemo.State{dianemo.Blocked: dianemo.Skipped}),
		fires("run", dianemo.OverlapAllow, false, dianemo.Scheduled),
		fires("missed", dianemo.OverlapAllow, true, dianemo.Missed),
		fires("overlap", dianemo.OverlapSkip, false, dianemo.Skipped),
		{edge: dianemo.EdgeLead, try: func(f *fixture, s subject) {
			_, err := f.Lead(f.t.Context(), dianemo.Bid{Peer: "leader", Lease: time.Second})
			require.NoError(f.t, err)
		}},
	}
}

func TestEveryStateMeetsEveryEdge_Long(t *testing.T) {
	t.Parallel()
	states := []dianemo.State{"", dianemo.Blocked, dianemo.Scheduled, dianemo.Running, dianemo.Succeeded, dianemo.Failed,
		dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped}
	for _, state := range states {
		for _, a := range attempts() {
			name := string(state) + " " + string(a.edge) + " " + a.name
			t.Run(strings.ReplaceAll(strings.TrimSpace(name), " ", "_"), func(t *testing.T) {
				t.Parallel()
				if state == "" && a.edge == dianemo.EdgeSettle {
					a.want = nil // nothing can be stale either: there is no epoch
				}
				allowed := dianemo.Edges[state][a.edge]
				want, moves := a.want[state]
				if !moves {
					want = state
				} else {
					require.Contains(t, allowed, want, "the state table has no such edge")
				}
				eachInLong(t, func(t *testing.T, f *fixture) {
					s := f.bring(state, a.expired, a.unique)
					a.try(f, s)
					require.Equal(t, want, f.stored(s.id))
				})
			})
		}
	}
}

func TestTheStateTableHasAnAttemptForEveryPair(t *testing.T) {
	t.Parallel()
	tried := map[dianemo.State]map[dianemo.Edge]bool{}
	for _, a := range attempts() {
		for state := range a.want {
			if tried[state] == nil {
				tried[state] = map[dianemo.Edge]bool{}
			}
			tried[state][a.edge] = true
		}
	}
	for state, edges := range dianemo.Edges {
		for edge := range edges {
			require.True(t, tried[state][edge], "%s --%s--> is in the table and untested", state, edge)
		}
	}
}

// What has been run and is not picked up within its grace fails: missed means
// never started.
func TestARetryPastItsGraceFails_Long(t *testing.T) {
	t.Parallel()
	for _, way := range []dianemo.Edge{dianemo.EdgeClaim, dianemo.EdgeMiss} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				s := subject{id: "subject", lane: lane("kind")}
				s.lane.Grace = time.Minute
				f.enqueue(record(s.id, s.lane))
				partition := f.Partition(s.id)
				jobs := f.claim(partition, owner, claimLane(s.lane)).Jobs
				require.Len(t, jobs, 1)
				require.Empty(t, f.settle(partition, owner, dianemo.Settlement{ID: s.id, Lane: s.lane, Epoch: jobs[0].Epoch,
					Outcome: dianemo.Retry, Reason: "error", Error: "boom"}))
				again := s.lane
				again.Again = true
				f.age(s.id, "kind:2:60000:0:again", time.Hour)
				if way == dianemo.EdgeClaim {
					require.Equal(t, []dianemo.Moved{{ID: s.id, State: dianemo.Failed, Kind: "kind", Priority: 2}}, f.claim(partition, owner, claimLane(again)).Missed)
				} else {
					require.Equal(t, []dianemo.Moved{{ID: s.id, State: dianemo.Failed, Kind: "kind", Priority: 2}}, f.miss(partition))
				}
				job, err := f.Get(t.Context(), s.id)
				require.NoError(t, err)
				require.Equal(t, dianemo.Failed, job.Info.State)
				require.Equal(t, "grace", job.Info.Reason)
				require.Equal(t, "boom", job.Info.LastError())
			})
		})
	}
}
