package redisstore_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// tick is the instant number n of the schedules of these tests, all in the past.
func tick(n int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(n)*1000) }

// schedule makes one whose cursor is at tick 0 and which is due at tick 1.
func (f *fixture) schedule(name string) {
	f.t.Helper()
	_, err := f.set(dianemo.ScheduleWish{Name: name, What: dianemo.PutIt, Definition: []byte("definition"), Cursor: tick(0), Next: tick(1)})
	require.NoError(f.t, err)
}

func (f *fixture) set(wish dianemo.ScheduleWish) (bool, error) {
	return f.SetSchedule(f.t.Context(), f.Partition(wish.Name), f.call("operator"), wish)
}

func (f *fixture) occurrence(id string, l dianemo.Lane, n int) dianemo.Occurrence {
	r := record(id, l)
	r.RunAt = tick(n)
	return dianemo.Occurrence{At: tick(n), Record: r}
}

// firing moves the cursor from tick n to the last of these.
func (f *fixture) firing(name string, n int, overlap dianemo.Overlap, occurrences ...dianemo.Occurrence) dianemo.Firing {
	to := tick(n)
	if len(occurrences) > 0 {
		to = occurrences[len(occurrences)-1].At
	}
	return dianemo.Firing{Name: name, Version: f.version(name), Cursor: tick(n), To: to, Hold: tick(n), Next: to.Add(time.Second), Again: time.Hour, Overlap: overlap, Occurrences: occurrences}
}

func (f *fixture) fire(firing dianemo.Firing) dianemo.Fired {
	f.t.Helper()
	return f.fires(firing).Fired[0]
}

func (f *fixture) fires(firings ...dianemo.Firing) dianemo.FireReply {
	f.t.Helper()
	reply, err := f.Fire(f.t.Context(), f.Partition(firings[0].Name), f.call("leader"), dianemo.Fire{Firings: firings})
	require.NoError(f.t, err)
	require.Len(f.t, reply.Fired, len(firings))
	return reply
}

// version is that of the schedule's definition.
func (f *fixture) version(name string) int64 {
	f.t.Helper()
	return f.stored1(name).Version
}

func (f *fixture) stored1(name string) dianemo.StoredSchedule {
	f.t.Helper()
	read, err := f.Schedules(f.t.Context(), f.Partition(name), []string{name}, 0)
	require.NoError(f.t, err)
	require.Len(f.t, read.Schedules, 1)
	return read.Schedules[0]
}

func TestAnOccurrenceIsFiredOnceAndNeverAgain_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		before, err := f.Schedules(t.Context(), f.Partition("s"), nil, 0)
		require.NoError(t, err)
		require.Len(t, before.Schedules, 1)
		require.Equal(t, 1, before.Due)
		surveys, err := f.Survey(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, tick(1), surveys[f.Partition("s")].Fires)

		firing := f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))
		reply := f.fires(firing)
		require.Equal(t, dianemo.Fired{Done: true, States: []dianemo.State{dianemo.Scheduled}}, reply.Fired[0])
		require.Equal(t, []dianemo.News{{Kind: "kind", Priority: 2}}, reply.News)
		require.Equal(t, dianemo.Queued, f.state("s@1"))
		after := f.stored1("s")
		require.Equal(t, tick(1), after.Cursor)
		require.Equal(t, "s@1", after.Last)
		require.Equal(t, dianemo.Scheduled, after.LastState)
		require.Equal(t, tick(2), after.Next)

		// The job has gone, as by retention. The same decision, made by another.
		for _, key := range []string{"spec", "meta"} {
			require.NoError(t, f.rdb.Del(t.Context(), f.key("s", key)).Err())
		}
		require.False(t, f.fire(firing).Done)
		require.Empty(t, f.state("s@1"))
	})
}

func TestFiringsOfOneCallDoNotDisturbEachOther_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		var firings []dianemo.Firing
		for _, name := range []string{"s@x", "s@y", "s@z"} { // in one partition
			f.schedule(name)
			firings = append(firings, f.firing(name, 0, dianemo.OverlapAllow, f.occurrence(name+"1", lane("kind"), 1)))
		}
		firings[1].Version = 7
		firings[2].Occurrences = append(firings[2].Occurrences, f.occurrence("s@z2", lane("other"), 2))
		firings[2].Unrecorded = dianemo.Unrecorded{Count: 3, First: tick(-3), Last: tick(-1)}
		reply := f.fires(firings...)
		require.True(t, reply.Fired[0].Done)
		require.False(t, reply.Fired[1].Done)
		require.Equal(t, []dianemo.State{dianemo.Scheduled, dianemo.Scheduled}, reply.Fired[2].States)
		require.Empty(t, f.state("s@y1"))
		require.Equal(t, dianemo.Queued, f.state("s@z2"))
		require.Equal(t, dianemo.Unrecorded{Count: 3, First: tick(-3), Last: tick(-1)}, f.stored1("s@z").Unrecorded)
		// It goes on where the last ones ended, and, later, anew.
		more := f.firing("s@z", 1, dianemo.OverlapAllow)
		more.Unrecorded, more.To = dianemo.Unrecorded{Count: 2, First: tick(3), Last: tick(4)}, tick(4)
		require.True(t, f.fire(more).Done)
		more.Cursor, more.To, more.Unrecorded = tick(4), tick(6), dianemo.Unrecorded{Count: 2, First: tick(5), Last: tick(6)}
		require.True(t, f.fire(more).Done)
		require.Equal(t, dianemo.Unrecorded{Count: 4, First: tick(3), Last: tick(6)}, f.stored1("s@z").Unrecorded)
		more.Cursor, more.To, more.Unrecorded = tick(6), tick(9), dianemo.Unrecorded{}
		require.True(t, f.fire(more).Done)
		more.Cursor, more.To, more.Unrecorded = tick(9), tick(10), dianemo.Unrecorded{Count: 1, First: tick(10), Last: tick(10)}
		require.True(t, f.fire(more).Done)
		require.Equal(t, dianemo.Unrecorded{Count: 1, First: tick(10), Last: tick(10)}, f.stored1("s@z").Unrecorded)
	})
}

func TestAnOccurrenceThatOverlapsWaitsOrIsSkipped_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		l := lane("kind")
		for _, overlap := range []dianemo.Overlap{dianemo.OverlapSkip, dianemo.OverlapWait} {
			name := string(overlap)
			f.schedule(name)
			missed := f.occurrence(name+"@1", l, 1)
			missed.Missed = true
			firing := f.firing(name, 0, overlap, missed, f.occurrence(name+"@2", l, 2))
			firing.Hold = tick(1)
			require.Equal(t, []dianemo.State{dianemo.Missed, dianemo.Scheduled}, f.fire(firing).States)
			next := f.firing(name, 2, overlap, f.occurrence(name+"@3", l, 3))
			fired := f.fire(next)
			require.Equal(t, name+"@2", fired.Running)
			require.True(t, fired.Done)
			s := f.stored1(name)
			if overlap == dianemo.OverlapSkip {
				require.Equal(t, []dianemo.State{dianemo.Skipped}, fired.States)
				require.Equal(t, dianemo.Skipped, f.state(name+"@3"))
				require.Equal(t, tick(3), s.Cursor)
				require.Equal(t, name+"@2", s.Last)
				continue
			}
			require.True(t, fired.Waits)
			require.Empty(t, f.state(name+"@3"))
			require.Equal(t, tick(2), s.Cursor)
			require.False(t, s.Seen.IsZero())
			require.WithinDuration(t, s.Seen.Add(time.Hour), s.Next, time.Second)
			// The job that it waits for ends, cancelled here.
			require.NoError(t, f.cancel(name+"@2").Err)
			require.Equal(t, []dianemo.State{dianemo.Scheduled}, f.fire(next).States)
			require.True(t, f.stored1(name).Seen.IsZero())
		}
	})
}

func TestAnExtraOccurrenceLeavesTheCursor_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		extra := f.firing("s", 0, dianemo.OverlapSkip, f.occurrence("s@extra", lane("kind"), 1))
		extra.Extra, extra.Cursor = true, time.Time{}
		require.True(t, f.fire(extra).Done)
		s := f.stored1("s")
		require.Equal(t, tick(0), s.Cursor)
		require.Equal(t, tick(1), s.Next)
		require.Equal(t, "s@extra", s.Last)
		extra.Occurrences[0].ID = "s@more"
		fired := f.fire(extra)
		require.True(t, fired.Waits)
		require.Equal(t, "s@extra", fired.Running)
		require.Empty(t, f.state("s@more"))
	})
}

// Whoever comes first: a firing after the pause does nothing, and the other way
// around both count.
func TestPausingAndFiringAtTheSameMoment_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		firing := f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))
		_, err := f.set(dianemo.ScheduleWish{Name: "s", What: dianemo.PauseIt, Version: dianemo.AnyVersion})
		require.NoError(t, err)
		require.False(t, f.fire(firing).Done)
		require.Empty(t, f.state("s@1"))
		s := f.stored1("s")
		require.Equal(t, dianemo.Paused, s.State)
		require.True(t, s.Next.IsZero())
		_, err = f.set(dianemo.ScheduleWish{Name: "s", What: dianemo.ResumeIt, Version: f.version("s"), Cursor: tick(4), Next: tick(5)})
		require.NoError(t, err)
		require.False(t, f.fire(firing).Done, "the cursor has gone on")
		s = f.stored1("s")
		require.Equal(t, tick(4), s.Cursor)
		require.Equal(t, tick(5), s.Next)
	})
}

func TestAChangeDoesNotPassOverWhatIsDue_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		change := dianemo.ScheduleWish{Name: "s", What: dianemo.PutIt, Version: f.version("s"), Definition: []byte("new"), Cursor: time.Now(), Next: time.Now().Add(time.Hour)}
		_, err := f.set(change)
		require.ErrorIs(t, err, dianemo.ErrMoved)
		require.Equal(t, "definition", string(f.stored1("s").Definition))
		firing := f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))
		firing.Next = time.Now().Add(time.Hour)
		require.True(t, f.fire(firing).Done)
		_, err = f.set(change)
		require.NoError(t, err)
		s := f.stored1("s")
		require.Greater(t, s.Version, change.Version)
		require.Equal(t, "new", string(s.Definition))
		_, err = f.set(change)
		require.ErrorIs(t, err, dianemo.ErrMoved, "it was decided by another version")
	})
}

// Who changes the rule, or ends a pause, sets the cursor to the time at which that was
// decided. What was fired since would be fired again.
func TestAChangeThatWasDecidedBeforeAFiringDoesNotTakeTheCursorBack_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		pause := func() {
			_, err := f.set(dianemo.ScheduleWish{Name: "s", What: dianemo.PauseIt, Version: f.version("s")})
			require.NoError(t, err)
		}
		firing := f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))
		firing.Next = time.Now().Add(time.Hour) // so that nothing is due
		require.True(t, f.fire(firing).Done)
		change := dianemo.ScheduleWish{Name: "s", What: dianemo.PutIt, Version: f.version("s"), Definition: []byte("new"),
			Cursor: tick(0).Add(time.Millisecond), From: tick(0), Next: tick(1)}
		resume := dianemo.ScheduleWish{Name: "s", What: dianemo.ResumeIt, Version: f.version("s"), Cursor: change.Cursor, From: tick(0), Next: tick(1)}
		_, err := f.set(change)
		require.ErrorIs(t, err, dianemo.ErrMoved)
		pause()
		_, err = f.set(resume)
		require.ErrorIs(t, err, dianemo.ErrMoved)
		s := f.stored1("s")
		require.Equal(t, "definition", string(s.Definition))
		require.Equal(t, tick(1), s.Cursor)
		require.Equal(t, dianemo.Paused, s.State)

		// Decided anew.
		resume.Cursor, resume.From, resume.Next = tick(2), tick(1), time.Now().Add(time.Hour)
		_, err = f.set(resume)
		require.NoError(t, err)
		change.Cursor, change.From, change.Next = tick(3), tick(2), time.Now().Add(time.Hour)
		_, err = f.set(change)
		require.NoError(t, err)
		require.Equal(t, tick(3), f.stored1("s").Cursor)
	})
}

func TestFirstIsToldWhenAScheduleIsDueBeforeAllOthers_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		now := time.Now().Truncate(time.Second)
		later, sooner := now.Add(2*time.Hour), now.Add(time.Hour)
		put := func(name string, next time.Time) bool {
			first, err := f.set(dianemo.ScheduleWish{Name: name, What: dianemo.PutIt, Cursor: tick(0), Next: next})
			require.NoError(t, err)
			return first
		}
		require.True(t, put("s@a", later))
		require.True(t, put("s@b", sooner))
		require.False(t, put("s@c", later))
		surveys, err := f.Survey(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, sooner.UnixMilli(), surveys[f.Partition("s")].Fires.UnixMilli())
		moved := f.firing("s@c", 0, dianemo.OverlapAllow)
		moved.Next = time.Now().Add(time.Minute)
		require.True(t, f.fires(moved).First)
		names, err := f.ScheduleNames(t.Context(), "s@a", 5)
		require.NoError(t, err)
		require.Equal(t, []string{"s@b", "s@c"}, names)
		for _, want := range []error{nil, dianemo.ErrNoSchedule} {
			_, err := f.set(dianemo.ScheduleWish{Name: "s@c", What: dianemo.RemoveIt, Version: dianemo.AnyVersion})
			require.ErrorIs(t, err, want)
		}
	})
}

func TestADeposedLeaderFiresNothing_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		_, err := f.Survey(t.Context(), &dianemo.Chore{Term: 9, BeatEvery: time.Second, SilentAfter: time.Second})
		require.NoError(t, err)
		fire := dianemo.Fire{Term: 8, Firings: []dianemo.Firing{f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))}}
		_, err = f.Fire(t.Context(), f.Partition("s"), f.call("leader"), fire)
		require.ErrorIs(t, err, dianemo.ErrDeposed)
		require.Empty(t, f.state("s@1"))
		fire.Term = 9
		_, err = f.Fire(t.Context(), f.Partition("s"), f.call("leader"), fire)
		require.NoError(t, err)
		require.Equal(t, dianemo.Queued, f.state("s@1"))
	})
}

func TestWhatCannotBeReadOfAScheduleIsSaid_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		good := f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))
		good.Version = 1
		was := f.rdb.HGet(t.Context(), f.key("s", "cursors"), "s").Val()
		require.NoError(t, f.rdb.HSet(t.Context(), f.key("s", "cursors"), "s", strings.Replace(was, strconv.FormatInt(f.version("s"), 10), "1", 1)).Err())
		cursor := f.rdb.HGet(t.Context(), f.key("s", "cursors"), "s").Val()
		require.Equal(t, "1|1|on|1700000000000|||0|||", cursor)
		for _, bad := range []string{"", "1", "x", "1|1|off|1700000000000|||0|||", strings.Replace(cursor, "17", "-1", 1), "0" + cursor, "2|new"} {
			require.NoError(t, f.rdb.HSet(t.Context(), f.key("s", "cursors"), "s", bad).Err())
			require.False(t, f.fire(good).Done, "%q", bad)
			if bad != "" {
				require.Error(t, f.stored1("s").Err, "%q", bad)
			}
			_, err := f.set(dianemo.ScheduleWish{Name: "s", What: dianemo.BreakIt, Version: dianemo.AnyVersion, Reason: "it | is so"})
			if bad == "2|new" {
				require.ErrorIs(t, err, dianemo.ErrNewer)
				continue
			}
			require.NoError(t, err, "%q", bad)
			s := f.stored1("s")
			require.NoError(t, s.Err)
			require.Equal(t, dianemo.Broken, s.State)
			require.Equal(t, "it | is so", s.Reason)
			require.True(t, s.Next.IsZero())
		}
	})
}

// Else the leader would not know what it has done.
// Else the leader would find it due at each look, for ever.
func TestAScheduleThatIsNoneIsDueOnceAtMost_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		for _, what := range []dianemo.ScheduleChange{dianemo.BreakIt, dianemo.RemoveIt, dianemo.PauseIt} {
			require.NoError(t, f.rdb.ZAdd(t.Context(), f.key("none", "fires"), zs("none", 5)).Err())
			_, err := f.set(dianemo.ScheduleWish{Name: "none", What: what, Version: dianemo.AnyVersion})
			require.ErrorIs(t, err, dianemo.ErrNoSchedule)
			require.Zero(t, f.rdb.Exists(t.Context(), f.key("none", "fires")).Val(), what)
		}
	})
}

func TestAFiringThatIsSentAgainAfterAChangeOfTheTermHasTheFirstAnswer_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		lead := func(term int64) {
			_, err := f.Survey(t.Context(), &dianemo.Chore{Term: term, BeatEvery: time.Second, SilentAfter: time.Second})
			require.NoError(t, err)
		}
		lead(8)
		call := f.call("leader")
		fire := dianemo.Fire{Term: 8, Firings: []dianemo.Firing{f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))}}
		first, err := f.Fire(t.Context(), f.Partition("s"), call, fire)
		require.NoError(t, err)
		require.True(t, first.Fired[0].Done)
		lead(9)
		again, err := f.Fire(t.Context(), f.Partition("s"), call, fire)
		require.NoError(t, err)
		require.Equal(t, first, again)
		_, err = f.Fire(t.Context(), f.Partition("s"), f.call("leader"), fire)
		require.ErrorIs(t, err, dianemo.ErrDeposed)
	})
}

func TestWhatWasDecidedByARemovedScheduleDoesNotCountForTheNextOfItsName_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.schedule("s")
		was := f.version("s")
		for _, extra := range []bool{false, true} {
			firing := f.firing("s", 0, dianemo.OverlapAllow, f.occurrence("s@1", lane("kind"), 1))
			firing.Extra = extra
			_, err := f.set(dianemo.ScheduleWish{Name: "s", What: dianemo.RemoveIt, Version: dianemo.AnyVersion})
			require.NoError(t, err)
			f.schedule("s")
			require.False(t, f.fire(firing).Done)
			require.Empty(t, f.state("s@1"))
			require.Greater(t, f.version("s"), was)
			was = f.version("s")
		}
		require.InDelta(t, time.Now().UnixMilli(), was, 60_000, "also if it is forgotten what was removed")
	})
}

// The clock stands here: only what was removed tells.
func TestASchedulesVersionGrowsWithoutTheClock(t *testing.T) {
	t.Parallel()
	store, err := embedded.New(redisstore.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	require.NoError(t, store.Open(t.Context()))
	store.SetTime(tick(0))
	f := &fixture{Store: store, t: t, rdb: store.Client()}
	f.schedule("s")
	was := f.version("s")
	for range 3 {
		_, err := f.set(dianemo.ScheduleWish{Name: "s", What: dianemo.RemoveIt, Version: dianemo.AnyVersion})
		require.NoError(t, err)
		f.schedule("s")
		require.Greater(t, f.version("s"), was)
		was = f.version("s")
	}
}

// A long read would keep everyone else waiting.
func TestAReadOfLargeSchedulesIsBounded_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		var names []string
		for i, size := range []int{300 << 10, 100 << 10, 100 << 10, 100 << 10, 300 << 10, 10, 10} {
			name := "s@" + strconv.Itoa(i)
			names = append(names, name)
			_, err := f.set(dianemo.ScheduleWish{Name: name, What: dianemo.PutIt, Definition: []byte(strings.Repeat("x", size)), Cursor: tick(0), Next: tick(i + 1)})
			require.NoError(t, err)
		}
		want := []int{1, 2, 1, 1, 2}
		offset := 0
		for _, n := range want {
			for _, asked := range [][]string{nil, names[offset:]} {
				from := 0
				if asked == nil {
					from = offset
				}
				read, err := f.Schedules(t.Context(), f.Partition("s"), asked, from)
				require.NoError(t, err)
				require.Equal(t, n, read.Asked, "from %d on", offset)
				require.Len(t, read.Schedules, n)
				require.Equal(t, names[offset], read.Schedules[0].Name)
				require.Equal(t, len(names), read.Due)
			}
			offset += n
		}
		read, err := f.Schedules(t.Context(), f.Partition("s"), nil, offset)
		require.NoError(t, err)
		require.Zero(t, read.Asked)
	})
}
