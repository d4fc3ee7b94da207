package dianemo

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A hour's schedule, of which everything up to midnight was decided.
func hourly(t *testing.T, change func(s *Schedule)) (*definition, *StoredSchedule) {
	t.Helper()
	s := Schedule{Name: "s", Rule: must(Interval(time.Hour)), Job: NewKind[int]("kind", Policy{}).New(1)}
	if change != nil {
		change(&s)
	}
	d, err := s.definition()
	require.NoError(t, err)
	return d, &StoredSchedule{Name: "s", Version: 1, State: Active, Cursor: hour(0)}
}

func hour(n int) time.Time { return time.Date(2026, 6, 1, n, 0, 0, 0, time.UTC) }

// story is a firing in short: what is run (r) and missed (m), by the hour.
func story(f Firing) string {
	text := ""
	if f.Unrecorded.Count > 0 {
		text = fmt.Sprintf("%d unrecorded ", f.Unrecorded.Count)
	}
	for _, o := range f.Occurrences {
		verdict := "r"
		if o.Missed {
			verdict = "m"
		}
		text += fmt.Sprintf("%s%d ", verdict, int(o.At.Sub(hour(0))/time.Hour))
	}
	text += fmt.Sprintf("to %d", int(f.To.Sub(hour(0))/time.Hour))
	if f.Pending {
		text += " pending"
	}
	return text
}

func TestWhatBecomesOfOccurrencesThatAreDue(t *testing.T) {
	t.Parallel()
	policy := func(missed MissedPolicy, most int, grace time.Duration) func(s *Schedule) {
		return func(s *Schedule) {
			s.Missed, s.MissedMax = missed, most
			s.Job = NewKind[int]("kind", Policy{Grace: grace}).New(1)
		}
	}
	wait := func(s *Schedule) { s.Overlap, s.Missed = OverlapWait, MissedAll }
	for _, row := range []struct {
		name   string
		change func(s *Schedule)
		stored func(s *StoredSchedule)
		now    time.Time
		want   string
	}{
		{"nothing is due", nil, nil, hour(1).Add(-1), "to 0"},
		{"on time", nil, nil, hour(1), "r1 to 1"},
		{"late", policy(MissedSkip, 0, 0), nil, hour(1).Add(time.Minute), "r1 to 1"},
		{"too late to be on time, latest", nil, nil, hour(1).Add(2 * time.Minute), "r1 to 1"},
		{"too late to be on time, skip", policy(MissedSkip, 0, 0), nil, hour(1).Add(2 * time.Minute), "m1 to 1"},
		{"six hours, latest", nil, nil, hour(6).Add(10 * time.Minute), "m1 m2 m3 m4 m5 r6 to 6"},
		{"six hours, latest, past its grace", policy(MissedLatest, 0, 5*time.Minute), nil, hour(6).Add(10 * time.Minute), "m1 m2 m3 m4 m5 m6 to 6"},
		{"six hours, skip, the last is on time", policy(MissedSkip, 0, 0), nil, hour(6).Add(time.Second), "m1 m2 m3 m4 m5 r6 to 6"},
		{"six hours, all", policy(MissedAll, 0, 0), nil, hour(6).Add(10 * time.Minute), "r1 r2 r3 r4 r5 r6 to 6"},
		{"six hours, all, three at most", policy(MissedAll, 3, 0), nil, hour(6).Add(10 * time.Minute), "m1 m2 m3 r4 r5 r6 to 6"},
		{"six hours, all, within the grace", policy(MissedAll, 0, 2*time.Hour), nil, hour(6).Add(10 * time.Minute), "m1 m2 m3 m4 r5 r6 to 6"},
		{"a day, skip: the latest 20 have a record", policy(MissedSkip, 0, 0), nil, hour(24).Add(10 * time.Minute),
			"4 unrecorded m5 m6 m7 m8 m9 m10 m11 m12 m13 m14 m15 m16 m17 m18 m19 m20 m21 m22 m23 m24 to 24"},
		{"they wait in their order", wait, nil, hour(3).Add(10 * time.Minute), "r1 to 1 pending"},
		{"who was seen to wait just now was not missed", func(s *Schedule) { s.Overlap = OverlapWait },
			func(s *StoredSchedule) { s.Seen = hour(5).Add(9 * time.Minute) }, hour(5).Add(10 * time.Minute), "r1 to 1 pending"},
		{"who waited before a downtime was", func(s *Schedule) { s.Overlap = OverlapWait }, func(s *StoredSchedule) { s.Cursor, s.Seen = hour(2), hour(2) },
			hour(5).Add(10 * time.Minute), "m3 m4 r5 to 5"},
		{"not before Start", func(s *Schedule) { s.Start = hour(2) }, nil, hour(2), "r2 to 2"},
		{"not after End", func(s *Schedule) { s.End = hour(2) }, nil, hour(3), "m1 r2 to 2"},
		{"after the end of the last", func(s *Schedule) { s.Rule = must(AfterFinish(time.Hour)) },
			func(s *StoredSchedule) { s.Last, s.LastState, s.LastEnded = "s@x", Failed, hour(3) }, hour(4), "r4 to 4 pending"},
		{"the end of the last is kept, since retention may let go of it", func(s *Schedule) { s.Rule = must(AfterFinish(5 * time.Hour)) },
			func(s *StoredSchedule) { s.Last, s.LastState, s.LastEnded = "s@x", Failed, hour(3) }, hour(4), "to 3"},
		{"missed after the end of the last, it begins anew", func(s *Schedule) {
			s.Rule, s.Job = must(AfterFinish(time.Hour)), NewKind[int]("kind", Policy{Grace: time.Minute}).New(1)
		}, func(s *StoredSchedule) { s.Last, s.LastState, s.LastEnded = "s@x", Failed, hour(3) }, hour(9), "m4 to 9"},
		{"not before the last has ended", func(s *Schedule) { s.Rule = must(AfterFinish(time.Hour)) },
			func(s *StoredSchedule) { s.Last, s.LastState = "s@x", Running }, hour(4), "to 0 pending"},
		{"after it was last seen, if it is gone", func(s *Schedule) { s.Rule = must(AfterFinish(time.Hour)) },
			func(s *StoredSchedule) { s.Last, s.Seen = "s@x", hour(3) }, hour(4), "r4 to 4 pending"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d, s := hourly(t, row.change)
			if row.stored != nil {
				row.stored(s)
			}
			f, err := d.decide(s, row.now)
			require.NoError(t, err)
			require.Equal(t, row.want, story(f))
			for _, o := range f.Occurrences {
				spec, err := DecodeSpec(o.Spec)
				require.NoError(t, err)
				require.True(t, spec.At.Equal(o.At))
				require.Equal(t, OccurrenceID("s", o.At), o.ID)
			}
		})
	}
}

// Somebody was up all the time, and the last occurrence took long.
func TestALongWaitLosesNothing(t *testing.T) {
	t.Parallel()
	d, s := hourly(t, func(s *Schedule) { s.Rule, s.Overlap = must(Interval(time.Second)), OverlapWait })
	now := hour(0).Add(20_000 * time.Second)
	s.Seen = now.Add(-30 * time.Second)
	f, err := d.decide(s, now)
	require.NoError(t, err)
	require.Zero(t, f.Unrecorded.Count)
	require.True(t, f.Pending)
	require.Len(t, f.Occurrences, 1)
	require.True(t, f.To.Equal(hour(0).Add(time.Second)))
	require.Equal(t, onTime/2, f.Again)
}

func TestJitterBeyondTheIntervalKeepsTheOrderAndMissesNothing(t *testing.T) {
	t.Parallel()
	d, s := hourly(t, func(s *Schedule) {
		s.Rule, s.Jitter, s.Missed = must(Interval(time.Minute)), 10*time.Minute, MissedSkip
	})
	last := time.Time{}
	for now := hour(0); now.Before(hour(3)); now = now.Add(time.Second) {
		f, err := d.decide(s, now)
		require.NoError(t, err)
		for _, o := range f.Occurrences {
			require.False(t, o.Missed, "%v at %v", o.At, now)
			require.False(t, o.RunAt.Before(last))
			require.LessOrEqual(t, o.RunAt.Sub(o.At), 10*time.Minute)
			last = o.RunAt
		}
		s.Cursor = f.To
	}
	require.True(t, s.Cursor.After(hour(3).Add(-11*time.Minute)))
}

// It goes on behind what was due, and before what jitter still holds.
func TestAPauseDoesNotPassOverWhatJitterHolds(t *testing.T) {
	t.Parallel()
	d, s := hourly(t, func(s *Schedule) { s.Jitter = 30 * time.Minute })
	due := d.occurrence("s", hour(1)).due
	require.True(t, due.After(hour(1).Add(time.Second)))
	for at, want := range map[time.Time]time.Time{due.Add(-time.Second): hour(0), due: hour(1)} {
		cursor, err := d.goesOn(s, at)
		require.NoError(t, err)
		s.Cursor = cursor
		next, err := d.next(cursor)
		require.NoError(t, err)
		require.True(t, next.Equal(want.Add(time.Hour)), "%v: %v", at, next)
		s.Cursor = hour(0)
	}
	f, err := d.flush(s, due.Add(-time.Second))
	require.NoError(t, err)
	require.Equal(t, "r1 to 1", story(f), "a new rule begins behind it")
}

func TestTwoWeeksOfAnHourlyScheduleAreABoundedSummary(t *testing.T) {
	t.Parallel()
	for policy, want := range map[MissedPolicy]int{MissedLatest: 21, MissedSkip: 20, MissedAll: 100} {
		d, s := hourly(t, func(s *Schedule) { s.Missed = policy; s.Job = NewKind[int]("kind", Policy{Grace: Unlimited}).New(1) })
		now := hour(14 * 24).Add(10 * time.Minute)
		var count, records, unrecorded int64
		for s.Cursor.Before(hour(14 * 24)) {
			f, err := d.decide(s, now)
			require.NoError(t, err)
			require.LessOrEqual(t, len(f.Occurrences), firingJobs)
			s.Cursor, count = f.To, count+1
			records, unrecorded = records+int64(len(f.Occurrences)), unrecorded+f.Unrecorded.Count
		}
		if policy == MissedAll {
			want += maxRecorded
		}
		require.EqualValues(t, want, records, policy)
		require.EqualValues(t, 14*24, records+unrecorded, policy)
		require.LessOrEqual(t, count, int64(3))
	}
}

// A decision looks at a bounded number of instants, and together they lose none.
func TestALongDowntimeOfAQuickScheduleIsTakenInSteps(t *testing.T) {
	t.Parallel()
	d, s := hourly(t, func(s *Schedule) { s.Rule = must(Interval(time.Second)) })
	now := hour(0).Add(30_000 * time.Second)
	var decided int64
	for steps := 0; s.Cursor.Before(now); steps++ {
		require.Less(t, steps, 10)
		f, err := d.decide(s, now)
		require.NoError(t, err)
		require.True(t, f.To.After(s.Cursor))
		decided += f.Unrecorded.Count + int64(len(f.Occurrences))
		s.Cursor = f.To
	}
	require.EqualValues(t, 30_000, decided)
}

func TestJitterIsTheSameForTheSameOccurrence(t *testing.T) {
	t.Parallel()
	d, s := hourly(t, func(s *Schedule) { s.Jitter = 10 * time.Minute })
	first, err := d.decide(s, hour(0))
	require.NoError(t, err)
	delays := map[time.Duration]bool{}
	for n := 1; n <= 100; n++ {
		o := d.occurrence("s", hour(n))
		require.Equal(t, o, d.occurrence("s", hour(n)))
		delay := o.due.Sub(o.at)
		require.True(t, delay >= 0 && delay <= 10*time.Minute)
		delays[delay] = true
	}
	require.Greater(t, len(delays), 90)
	require.Equal(t, d.occurrence("s", hour(1)).due, first.Next)
	f, err := d.decide(s, first.Next.Add(-1))
	require.NoError(t, err)
	require.Empty(t, f.Occurrences)
	f, err = d.decide(s, first.Next)
	require.NoError(t, err)
	require.Equal(t, first.Next, f.Occurrences[0].RunAt)
}

func TestAScheduleIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	d, _ := hourly(t, func(s *Schedule) {
		s.Start, s.End, s.Jitter, s.Missed, s.MissedMax, s.Overlap = hour(1), hour(9), time.Second, MissedAll, 5, OverlapWait
		s.Job = NewKind[int]("kind", Policy{Grace: 61 * time.Second, Priority: 3}).NewWith(1, Options{Weight: 5, Retries: None, Headers: map[string]string{"b": "2", "a": "1"}})
	})
	b, err := d.encode()
	require.NoError(t, err)
	read, err := decodeDefinition(b)
	require.NoError(t, err)
	require.Equal(t, d.text(), read.text())
	again := read.schedule("s")
	back, err := again.definition()
	require.NoError(t, err)
	require.Equal(t, d.text(), back.text(), "what was read can be put again, and is the same")

	for _, bad := range []string{"", "{}", "x", `{"v":1}`, string(b[:len(b)/2]), string(b) + "", `{"v":1,"rule":"cron UTC * * * *","job":"MQ=="}`} {
		if bad == string(b) {
			continue
		}
		_, err := decodeDefinition([]byte(bad))
		require.Error(t, err, "%s", bad)
		require.NotErrorIs(t, err, ErrNewer)
	}
	_, err = decodeDefinition([]byte(`{"v":2,"rule":"lunar"}`))
	require.ErrorIs(t, err, ErrNewer)
}

func TestAWorkflowOfAScheduleIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, spread := range []bool{false, true} {
		d, _ := hourly(t, func(s *Schedule) {
			kind := NewKind[string]("kind", Policy{Grace: 61 * time.Second, Priority: 3})
			w := NewWorkflow("w")
			w.Spread = spread
			w.Add("a", kind.NewWith("<a>", Options{Weight: 5, Timeout: time.Hour, Retries: None, Headers: map[string]string{"b": "2", "a": "1"}}))
			w.Add("b", NewKind[int]("other", Policy{Priority: 1}).New(1)).AfterOn("a", 90*time.Second)
			w.Add("c", kind.NewWith("", Options{Grace: Unlimited, Reruns: 2})).After("a").AfterChosen("b")
			w.Add("d", kind.NewWith("", Options{Priority: 9})).AfterFailure("b").AfterEnd("c")
			s.Job, s.Workflow = Request{}, w
		})
		require.Equal(t, 61*time.Second, d.spec.Grace, "that of the jobs without parents")
		b, err := d.encode()
		require.NoError(t, err)
		read, err := decodeDefinition(b)
		require.NoError(t, err)
		again := read.schedule("s")
		require.Equal(t, spread, again.Workflow.Spread)
		require.Equal(t, []Parent{{ID: "a", On: OnSuccess, Near: 90 * time.Second}}, again.Workflow.jobs[1].parents)
		back, err := again.definition()
		require.NoError(t, err)
		require.Equal(t, d.text(), back.text(), "what was read can be put again, and is the same")

		read.spec.Plan[1][0]++ // a newer version's
		read.Job = EncodeSpec(read.spec)
		b, err = read.encode()
		require.NoError(t, err)
		_, err = decodeDefinition(b)
		require.ErrorIs(t, err, ErrNewer)
		read.spec.Plan = read.spec.Plan[:3]
		read.spec.Plan[1][0]--
		read.Job = EncodeSpec(read.spec)
		b, err = read.encode()
		require.NoError(t, err)
		_, err = decodeDefinition(b)
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrNewer)
	}
}

// instants that a program's own rule has, as the store gets them.
func TestTheInstantsOfAProgramsOwnRuleAreKeptAhead(t *testing.T) {
	t.Parallel()
	d, _ := hourly(t, func(s *Schedule) { s.Rule = relative(time.Minute) })
	again, err := d.know(relative(time.Minute), hour(0), hour(0))
	require.NoError(t, err)
	require.Len(t, d.Known, knownAhead)
	require.Equal(t, hour(0).Add(time.Minute).UnixMilli(), d.Known[0])
	require.Equal(t, knownAhead/2*time.Minute, again)
	was := d.Known
	// Some have been fired.
	_, err = d.know(relative(time.Minute), hour(1), hour(1))
	require.NoError(t, err)
	require.Equal(t, was, d.Known)
	_, err = d.know(relative(time.Minute), hour(3), hour(3))
	require.NoError(t, err)
	require.Equal(t, hour(3).Add(time.Minute).UnixMilli(), d.Known[0])
	// All have passed, long ago.
	again, err = d.know(relative(time.Minute), hour(3), hour(100))
	require.NoError(t, err)
	require.Len(t, d.Known, MaxInstants)
	require.Equal(t, 100*time.Millisecond, again)
	// It ends.
	d.Known = nil
	again, err = d.know(must(At(hour(1), hour(2))), hour(0), hour(0))
	require.NoError(t, err)
	require.Len(t, d.Known, 2)
	require.Zero(t, again)
}

// relative is a rule that can't be computed from anywhere else.
type relative time.Duration

func (r relative) Next(after time.Time) time.Time { return after.Add(time.Duration(r)) }

func must(rule Rule, err error) Rule {
	if err != nil {
		panic(err)
	}
	return rule
}
