package schedules_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

func TestAScheduleFiresAtEachInstantOfItsRule_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		ran := make(chan dianemo.Job[suite.Args], 100)
		var kind dianemo.Kind[suite.Args]
		fired := make(chan dianemo.FireInfo, 100)
		suite.Start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Sees(ran))
		})
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: "tick", Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{N: 7})})
		first := suite.Receive(t, ran)
		require.Equal(t, suite.Args{N: 7}, first.Args)
		require.Equal(t, "tick", first.Schedule)
		require.Equal(t, first.Due.UnixMilli(), first.ScheduledFor.UnixMilli())
		require.Zero(t, first.ScheduledFor.Nanosecond())
		require.Equal(t, dianemo.OccurrenceID("tick", first.ScheduledFor), first.ID)
		second := suite.Receive(t, ran)
		require.Equal(t, first.ScheduledFor.Add(time.Second), second.ScheduledFor)
		info := suite.Get(t, c, first.ID)
		require.Equal(t, "tick", info.Schedule)
		require.Equal(t, first.ScheduledFor, info.ScheduledFor)
		event := suite.Receive(t, fired)
		require.Equal(t, first.ID, event.ID)
		require.Equal(t, dianemo.Scheduled, event.State)
	})
}

func TestASchedulesLifeFromAnyProcess_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c, other := suite.Client(t, store), suite.Client(t, store)
		ctx := t.Context()
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Weight: 3, Grace: time.Hour})
		s := dianemo.Schedule{Name: "hourly", Rule: suite.Every(t, time.Hour), Job: kind.NewWith(suite.Args{N: 1}, dianemo.Options{Retries: 5, Headers: map[string]string{"a": "b"}}),
			Jitter: time.Minute, Missed: dianemo.MissedAll, MissedMax: 7, Overlap: dianemo.OverlapSkip}
		suite.Put(t, c, s)
		info, err := other.GetSchedule(ctx, "hourly")
		require.NoError(t, err)
		require.Equal(t, dianemo.Active, info.State)
		require.Equal(t, "kind", info.Kind)
		require.Equal(t, dianemo.OverlapSkip, info.Overlap)
		require.Equal(t, 7, info.MissedMax)
		require.Equal(t, time.Minute, info.Jitter)
		require.Zero(t, info.Handlers)
		require.False(t, info.Declared)
		require.WithinDuration(t, time.Now().Truncate(time.Hour).Add(time.Hour), info.Next, time.Minute+time.Second)
		require.Equal(t, []time.Time{info.Next}, info.Preview(1))

		require.NoError(t, other.PauseSchedule(ctx, "hourly"))
		info, err = c.GetSchedule(ctx, "hourly")
		require.NoError(t, err)
		require.Equal(t, dianemo.Paused, info.State)
		require.Zero(t, info.Next)
		suite.Put(t, c, info.Schedule)
		info, err = c.GetSchedule(ctx, "hourly")
		require.NoError(t, err)
		require.Equal(t, dianemo.Paused, info.State)
		id, err := other.TriggerSchedule(ctx, "hourly")
		require.NoError(t, err)
		job := suite.Get(t, c, id)
		require.Equal(t, "hourly", job.Schedule)
		require.Equal(t, time.Hour, job.Grace)
		require.Equal(t, map[string]string{"a": "b"}, job.Headers)
		_, err = c.TriggerSchedule(ctx, "hourly")
		var busy *dianemo.OverlapError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, id, busy.ID)
		require.NoError(t, c.ResumeSchedule(ctx, "hourly"))
		require.NoError(t, c.ResumeSchedule(ctx, "hourly"))

		suite.Put(t, c, dianemo.Schedule{Name: "another", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{})})
		list, err := c.ListSchedules(ctx, "", 10)
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, "another", list[0].Name)
		list, err = c.ListSchedules(ctx, "another", 10)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, dianemo.Active, list[0].State)

		require.NoError(t, other.RemoveSchedule(ctx, "hourly"))
		for _, err := range []error{other.RemoveSchedule(ctx, "hourly"), other.PauseSchedule(ctx, "hourly"), other.ResumeSchedule(ctx, "hourly")} {
			require.ErrorIs(t, err, dianemo.ErrNoSchedule)
		}
		_, err = c.GetSchedule(ctx, "hourly")
		require.ErrorIs(t, err, dianemo.ErrNoSchedule)
		_, err = c.TriggerSchedule(ctx, "hourly")
		require.ErrorIs(t, err, dianemo.ErrNoSchedule)
		require.Equal(t, dianemo.Queued, suite.Get(t, c, id).State)
	})
}

func TestABadScheduleIsRefusedByField(t *testing.T) {
	t.Parallel()
	c := suite.Client(t, suite.Embedded(t, 1))
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	good := func() dianemo.Schedule {
		return dianemo.Schedule{Name: "name", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{})}
	}
	noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	once, err := dianemo.At(noon)
	require.NoError(t, err)
	for field, spoil := range map[string]func(s *dianemo.Schedule){
		"Schedule.Name": func(s *dianemo.Schedule) { s.Name = "a@b" },
		"Schedule.Rule": func(s *dianemo.Schedule) { s.Rule = nil },
		"Schedule.Job":  func(s *dianemo.Schedule) { s.Job = dianemo.Request{} },
		"kind": func(s *dianemo.Schedule) {
			s.Job = dianemo.NewKind[suite.Args]("a b", dianemo.Policy{}).New(suite.Args{})
		},
		"Options.Weight":              func(s *dianemo.Schedule) { s.Job = kind.NewWith(suite.Args{}, dianemo.Options{Weight: -1}) },
		"Schedule.Job: Options.ID":    func(s *dianemo.Schedule) { s.Job = kind.NewWith(suite.Args{}, dianemo.Options{ID: "x"}) },
		"Schedule.Job: Options.RunAt": func(s *dianemo.Schedule) { s.Job = kind.NewWith(suite.Args{}, dianemo.Options{RunAt: noon}) },
		"Schedule.Job: Options.Delay": func(s *dianemo.Schedule) { s.Job = kind.NewWith(suite.Args{}, dianemo.Options{Delay: 1}) },
		"Schedule.Job: Options.Parents": func(s *dianemo.Schedule) {
			s.Job = kind.NewWith(suite.Args{}, dianemo.Options{Parents: dianemo.After("x")})
		},
		"Schedule.Job: Options.Unique": func(s *dianemo.Schedule) {
			s.Job = kind.NewWith(suite.Args{}, dianemo.Options{Unique: dianemo.Unique{Key: "x"}})
		},
		"Schedule.Start":                     func(s *dianemo.Schedule) { s.Start = time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC) },
		"Schedule.End":                       func(s *dianemo.Schedule) { s.Start, s.End = noon, noon.Add(-time.Second) },
		"Schedule.End: no bound":             func(s *dianemo.Schedule) { s.End = time.Unix(0, 0) },
		"Schedule.Jitter":                    func(s *dianemo.Schedule) { s.Jitter = -1 },
		"Schedule.Missed":                    func(s *dianemo.Schedule) { s.Missed = "never" },
		"Schedule.MissedMax":                 func(s *dianemo.Schedule) { s.MissedMax = 3 },
		"Schedule.Overlap":                   func(s *dianemo.Schedule) { s.Overlap = "cancel" },
		"Schedule.Rule: none from Start":     func(s *dianemo.Schedule) { s.Rule, s.Start = once, noon.Add(1) },
		"rule":                               func(s *dianemo.Schedule) { s.Rule = ownRule{time.Hour} },
		"Next of rule schedules_test.panics": func(s *dianemo.Schedule) { s.Rule = panics{} },
	} {
		s := good()
		spoil(&s)
		err := c.PutSchedule(t.Context(), s)
		var wrong *dianemo.FieldError
		require.ErrorAs(t, err, &wrong, field)
		require.Contains(t, field, wrong.Field)
	}
	list, err := c.ListSchedules(t.Context(), "", 10)
	require.NoError(t, err)
	require.Empty(t, list)
	_, err = c.ListSchedules(t.Context(), "", 0)
	require.ErrorIs(t, err, dianemo.ErrInvalid)
}

// A fitful store says once that a schedule has moved, and then for a while nothing.
type fitfulStore struct {
	dianemo.Store
	moves, silences int
}

func (s *fitfulStore) SetSchedule(ctx context.Context, partition int, call dianemo.Call, wish dianemo.ScheduleWish) (bool, error) {
	if s.moves > 0 {
		s.moves--
		return false, dianemo.ErrMoved
	}
	return s.Store.SetSchedule(ctx, partition, call, wish)
}

func (s *fitfulStore) Schedules(ctx context.Context, partition int, names []string, offset int) (dianemo.SchedulesReply, error) {
	if s.moves == 0 && s.silences > 0 {
		s.silences--
		return dianemo.SchedulesReply{}, errors.New("no answer")
	}
	return s.Store.Schedules(ctx, partition, names, offset)
}

func TestAChangeOfAScheduleOutlastsASilenceOfTheStore(t *testing.T) {
	t.Parallel()
	store := &fitfulStore{suite.Embedded(t, 1), 1, 3}
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	suite.Put(t, c, dianemo.Schedule{Name: "hourly", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{})})
	require.Zero(t, store.moves)
	require.Zero(t, store.silences)
	info, err := c.GetSchedule(t.Context(), "hourly")
	require.NoError(t, err)
	require.Equal(t, dianemo.Active, info.State)
}

// ownRule counts from its argument, so it can't be computed from anywhere else.
type ownRule struct{ d time.Duration }

func (r ownRule) Next(after time.Time) time.Time { return after.Add(r.d) }

type panics struct{}

func (panics) Next(time.Time) time.Time { panic(errors.New("boom")) }

func TestAnOccurrenceThatOverlapsIsSkippedAndRecorded_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		goOn := make(chan struct{})
		fired := make(chan dianemo.FireInfo, 100)
		var kind dianemo.Kind[suite.Args]
		suite.Start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(context.Context, *dianemo.Job[suite.Args]) error { <-goOn; return nil })
		})
		defer close(goOn)
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{}), Overlap: dianemo.OverlapSkip})
		require.Equal(t, dianemo.Scheduled, suite.Receive(t, fired).State)
		skipped := suite.Receive(t, fired)
		require.Equal(t, dianemo.Skipped, skipped.State)
		job := suite.Get(t, c, skipped.ID)
		require.Equal(t, dianemo.Skipped, job.State)
		require.Equal(t, "overlap", job.Reason)
		require.NoError(t, c.Requeue(t.Context(), skipped.ID))
	})
}

func TestABackfillMakesWhatIsNotThereYet_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		ctx := t.Context()
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Minute), Job: kind.New(suite.Args{N: 3}), Overlap: dianemo.OverlapWait})
		from := time.Now().Add(-48 * time.Hour).Truncate(time.Hour)
		before, err := c.GetSchedule(ctx, "s")
		require.NoError(t, err)
		done, err := c.Backfill(ctx, "s", dianemo.Backfill{From: from, To: from.Add(10 * time.Minute), Max: 4, Every: time.Hour, Priority: 5})
		require.NoError(t, err)
		require.Len(t, done.IDs, 4)
		require.True(t, done.Next.Equal(from.Add(4*time.Minute)))
		job := suite.Get(t, c, dianemo.OccurrenceID("s", from.Add(2*time.Minute)))
		require.Equal(t, 5, job.Priority)
		require.Equal(t, dianemo.Scheduled, job.State)
		require.WithinDuration(t, time.Now().Add(2*time.Hour), job.Due, time.Minute)
		require.True(t, job.ScheduledFor.Equal(from.Add(2*time.Minute)))

		done, err = c.Backfill(ctx, "s", dianemo.Backfill{From: from, To: from.Add(10 * time.Minute), Max: 1000})
		require.NoError(t, err)
		require.Len(t, done.IDs, 6)
		require.Equal(t, 4, done.Existing)
		require.Zero(t, done.Next)
		done, err = c.Backfill(ctx, "s", dianemo.Backfill{From: from, To: from.Add(20 * time.Hour), Max: 1190})
		require.NoError(t, err)
		require.Len(t, done.IDs, 1190)
		require.Equal(t, 10, done.Existing)
		require.Zero(t, done.Next)
		after, err := c.GetSchedule(ctx, "s")
		require.NoError(t, err)
		require.Equal(t, before.Decided, after.Decided)
		require.Empty(t, after.Last)

		finish, err := dianemo.AfterFinish(time.Hour)
		require.NoError(t, err)
		suite.Put(t, c, dianemo.Schedule{Name: "f", Rule: finish, Job: kind.New(suite.Args{})})
		good := dianemo.Backfill{From: from, To: from.Add(time.Hour), Max: 1}
		for field, spoil := range map[string]func(b *dianemo.Backfill){
			"Backfill.Max":      func(b *dianemo.Backfill) { b.Max = 0 },
			"Backfill.Max ":     func(b *dianemo.Backfill) { b.Max = dianemo.MaxBackfill + 1 },
			"Backfill.From":     func(b *dianemo.Backfill) { b.From = time.Time{} },
			"Backfill.To":       func(b *dianemo.Backfill) { b.To = time.Time{} },
			"Backfill.To ":      func(b *dianemo.Backfill) { b.To = b.From },
			"Backfill.To  ":     func(b *dianemo.Backfill) { b.To = time.Now().Add(time.Hour) },
			"Backfill.Every":    func(b *dianemo.Backfill) { b.Every = -1 },
			"Backfill.Priority": func(b *dianemo.Backfill) { b.Priority = 10 },
		} {
			b := good
			spoil(&b)
			_, err := c.Backfill(ctx, "s", b)
			var wrong *dianemo.FieldError
			require.ErrorAs(t, err, &wrong, field)
			require.Contains(t, field, wrong.Field)
		}
		_, err = c.Backfill(ctx, "f", good)
		require.ErrorIs(t, err, dianemo.ErrInvalid)
		_, err = c.Backfill(ctx, "none", good)
		require.ErrorIs(t, err, dianemo.ErrNoSchedule)
	})
}

// spoil writes over one field of one of a schedule's keys.
func spoil(t *testing.T, store dianemo.Store, name, key, value string) {
	t.Helper()
	rdb, namespace := suite.Behind(t, store)
	require.NoError(t, rdb.HSet(t.Context(), "{"+namespace+":0}:"+key, name, value).Err())
}

func TestACorruptScheduleIsSetAsideAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	for _, name := range []string{"definition", "cursor", "rule", "good"} {
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{})})
	}
	spoil(t, store, "definition", "schedules", "{")
	spoil(t, store, "cursor", "cursors", "nonsense")
	spoil(t, store, "rule", "schedules", `{"v":1,"rule":"cron UTC 0 0 30 2 *","job":"`+"MWsEa2luZHABBGEAAA=="+`"}`)
	ran := make(chan dianemo.Job[suite.Args], 100)
	suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Sees(ran)) })
	require.Equal(t, "good", suite.Receive(t, ran).Schedule)
	require.Equal(t, "good", suite.Receive(t, ran).Schedule)
	list, err := c.ListSchedules(t.Context(), "", 10)
	require.NoError(t, err)
	for _, info := range list {
		if info.Name == "good" {
			require.Equal(t, dianemo.Active, info.State)
			continue
		}
		require.Equal(t, dianemo.Broken, info.State, info.Name)
		require.NotEmpty(t, info.Reason)
		_, err := c.TriggerSchedule(t.Context(), info.Name)
		var broken *dianemo.ScheduleError
		require.ErrorAs(t, err, &broken)
		require.ErrorIs(t, c.ResumeSchedule(t.Context(), info.Name), dianemo.ErrState)
		suite.Put(t, c, dianemo.Schedule{Name: info.Name, Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{})})
	}
	seen := map[string]bool{}
	for len(seen) < 4 {
		seen[suite.Receive(t, ran).Schedule] = true
	}
}

func TestASchedulesLostPlaceInTheIndexIsFoundByTheNextLeader(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{})})
	rdb, namespace := suite.Behind(t, store)
	require.NoError(t, rdb.Set(t.Context(), "{"+namespace+":0}:fires", "of another type", 0).Err())
	ran := make(chan dianemo.Job[suite.Args], 100)
	suite.Start(t, store, suite.Quick, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Sees(ran)) })
	suite.Receive(t, ran)
}

func TestTheNewerDeclarationWins_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		one, two := time.Unix(1e9, 0), time.Unix(2e9, 0)
		run := func(built time.Time, n int) *suite.Running {
			return suite.Start(t, store, dianemo.Config{Built: built, BeatEvery: 100 * time.Millisecond, Lease: time.Second, SilentAfter: time.Minute}, func(p *dianemo.Peer) {
				require.NoError(t, p.Schedule(dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{N: n})}))
			})
		}
		says := func(n int) {
			t.Helper()
			require.Eventually(t, func() bool {
				job, err := c.TriggerSchedule(t.Context(), "s")
				if err != nil {
					return false
				}
				var args suite.Args
				require.NoError(t, suite.Get(t, c, job).DecodeArgs(&args))
				return args.N == n
			}, suite.Patience, 10*time.Millisecond)
		}
		old := run(one, 1)
		says(1)
		new := run(two, 2)
		says(2)
		info, err := c.GetSchedule(t.Context(), "s")
		require.NoError(t, err)
		require.True(t, info.Declared)

		// The old one again, in the middle of the roll-out; then one that adds its own, so
		// that we know that the other was passed over.
		again := suite.Start(t, store, dianemo.Config{Built: one, BeatEvery: 100 * time.Millisecond, Lease: time.Second, SilentAfter: time.Minute}, func(p *dianemo.Peer) {
			require.NoError(t, p.Schedule(dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{N: 1})}))
			require.NoError(t, p.Schedule(dianemo.Schedule{Name: "z", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{N: 1})}))
		})
		require.Eventually(t, func() bool { _, err := c.GetSchedule(t.Context(), "z"); return err == nil }, suite.Patience, 10*time.Millisecond)
		says(2)

		// An operator's change outlives a restart of the program that declares it.
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{N: 3})})
		require.NoError(t, new.Stop())
		new = run(two, 2)
		says(3)

		// Rolled back: nobody of the newer build is left.
		require.NoError(t, new.Stop())
		require.NoError(t, old.Stop())
		require.NoError(t, again.Stop())
		require.Eventually(t, func() bool { peers, err := c.Peers(t.Context()); return err == nil && len(peers) == 0 }, suite.Patience, 10*time.Millisecond)
		run(one, 1)
		says(1)
	})
}

func TestARuleOfOnesOwnIsFiredByAnyLeader_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		ran := make(chan dianemo.Job[suite.Args], 100)
		handler := func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Sees(ran)) }
		leads := make(chan dianemo.LeadInfo, 10)
		suite.Start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Lead: func(i dianemo.LeadInfo) { leads <- i }}}, handler)
		require.True(t, suite.Receive(t, leads).Leading)
		s := dianemo.Schedule{Name: "s", Rule: ownRule{time.Second}, Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).New(suite.Args{})}
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) { require.NoError(t, p.Schedule(s)) })
		first := suite.Receive(t, ran)
		require.Equal(t, first.ScheduledFor.Add(time.Second), suite.Receive(t, ran).ScheduledFor)
		info, err := suite.Client(t, store).GetSchedule(t.Context(), "s")
		require.NoError(t, err)
		require.Len(t, info.Preview(10), 10)
	})
}

func TestSchedulesAreDeclaredOnceAndBeforeRun(t *testing.T) {
	t.Parallel()
	s := dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).New(suite.Args{})}
	var twice error
	peer := suite.Start(t, suite.Embedded(t, 1), dianemo.Config{}, func(p *dianemo.Peer) {
		require.NoError(t, p.Schedule(s))
		twice = p.Schedule(s)
	})
	require.ErrorIs(t, twice, dianemo.ErrInvalid)
	require.NoError(t, peer.Stop())
	s.Name = "other"
	require.ErrorIs(t, peer.Schedule(s), dianemo.ErrInvalid)
}
