package schedules_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// A watched store lets a test act between the store's answers and the leader's hearing of them.
type watchedStore struct {
	dianemo.Store
	read     func(due dianemo.SchedulesReply) // what is due was read
	surveyed func()
	listens  func() // from now on it hears what is said
	heard    func()
	fire     func(dianemo.Fire)
}

func (s *watchedStore) Fire(ctx context.Context, partition int, call dianemo.Call, fire dianemo.Fire) (dianemo.FireReply, error) {
	if s.fire != nil {
		s.fire(fire)
	}
	return s.Store.Fire(ctx, partition, call, fire)
}

func (s *watchedStore) Schedules(ctx context.Context, partition int, names []string, offset int) (dianemo.SchedulesReply, error) {
	reply, err := s.Store.Schedules(ctx, partition, names, offset)
	if err == nil && names == nil && s.read != nil {
		s.read(reply)
	}
	return reply, err
}

func (s *watchedStore) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	surveys, err := s.Store.Survey(ctx, chore)
	if err == nil && chore != nil && s.surveyed != nil {
		s.surveyed()
	}
	return surveys, err
}

func (s *watchedStore) Listen(ctx context.Context, peer string, heard func(dianemo.Message)) error {
	return s.Store.Listen(ctx, peer, func(m dianemo.Message) {
		heard(m)
		switch {
		case m.Word == "" && s.listens != nil:
			s.listens()
		case m.Word == dianemo.FireNow && s.heard != nil:
			s.heard()
		}
	})
}

// firings of a peer without handlers, which leads.
func firings(t *testing.T, store dianemo.Store) <-chan dianemo.FireInfo {
	fired := make(chan dianemo.FireInfo, 1000)
	suite.Start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}}, func(*dianemo.Peer) {})
	return fired
}

func TestSchedulesOfANewerVersionDoNotDelayTheOthers_Long(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 100, 250} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
				suite.NewerSchedules(t, store, n)
				c := suite.Client(t, store)
				suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Second), Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).New(suite.Args{})})
				fired := firings(t, store)
				at := suite.Receive(t, fired).At
				for range 2 {
					next := suite.Receive(t, fired)
					require.Equal(t, at.Add(time.Second), next.At)
					require.Less(t, next.Late, time.Second)
					at = next.At
				}
			})
		})
	}
}

// Those that stay due stand before all others in the index.
func TestTheLeaderIsToldOfANewScheduleThatStandsBehindOnesThatCannotBeFired_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		suite.NewerSchedules(t, store, 3)
		looked := make(chan bool, 1000)
		fired := firings(t, &watchedStore{Store: store, read: func(due dianemo.SchedulesReply) { looked <- due.Asked == 0 && due.Due == 3 }})
		for !suite.Receive(t, looked) {
		}
		suite.Put(t, suite.Client(t, store), dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Second), Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).New(suite.Args{})})
		require.Equal(t, "s", suite.Receive(t, fired).Schedule)
	})
}

func TestAScheduleThatIsMadeWhileTheLeaderLooksIsNotForgotten_Long(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"a read of what is due", "a survey"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
				c := suite.Client(t, store)
				kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
				require.NoError(t, store.Open(t.Context()))
				late := "late" // in the partition of the other one
				for store.Partition(late) != store.Partition("hourly") {
					late += "+"
				}
				leads, listens, heard, read := make(chan bool, 100), make(chan bool, 100), make(chan bool, 100), make(chan time.Time, 10000)
				// The answer is not given before another schedule was made, and the leader told of it.
				hold := sync.OnceFunc(func() {
					suite.Receive(t, listens)
					for len(heard) > 0 {
						<-heard
					}
					suite.Put(t, c, dianemo.Schedule{Name: late, Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{})})
					suite.Receive(t, heard)
				})
				w := &watchedStore{Store: store, listens: func() { listens <- true }, heard: func() { heard <- true }}
				if what == "a survey" {
					w.read = func(due dianemo.SchedulesReply) { read <- due.Later }
					w.surveyed = sync.OnceFunc(func() {
						hold()
						for suite.Receive(t, read).IsZero() { // that the leader knows it by now must not be undone
						}
					})
				} else {
					w.surveyed = func() { leads <- true }
					w.read = func(due dianemo.SchedulesReply) {
						if due.Asked == 0 && !due.Later.IsZero() {
							hold()
						}
					}
				}
				fired := firings(t, w)
				if what != "a survey" {
					suite.Receive(t, leads)
					suite.Put(t, c, dianemo.Schedule{Name: "hourly", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{})}) // makes it read
				}
				require.Equal(t, late, suite.Receive(t, fired).Schedule)
			})
		})
	}
}

func TestADefinitionWithoutSenseIsSetAside(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	rdb, namespace := suite.Behind(t, store)
	key, cursors := "{"+namespace+":0}:schedules", "{"+namespace+":0}:cursors"
	changes := map[string][2]string{
		"nothing": {`"missed":"latest","overlap":"allow"`, `"x":1`},
		"overlap": {`"overlap":"allow"`, `"overlap":"cancel"`},
		"missed":  {`"missed":"latest"`, `"missed":"never"`},
		"most":    {`"missed":"latest"`, `"missed":"latest","max":7`},
		"least":   {`"missed":"latest"`, `"missed":"all"`},
		"many":    {`"missed":"latest"`, `"missed":"all","max":1001`},
		"form":    {`"v":1`, `"v":0`},
		"end":     {`"v":1`, `"v":1,"end":-1`},
		"built":   {`"v":1`, `"v":1,"built":-1`},
		"known":   {`"v":1`, `"v":1,"known":[-1]`},
		"more":    {`"v":1`, `"v":1,"more":[-1]`}, // what a later program may add
	}
	for name, change := range changes {
		suite.Put(t, c, dianemo.Schedule{Name: name, Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{})})
		was := rdb.HGet(t.Context(), key, name).Val()
		require.Contains(t, was, change[0])
		spoil(t, store, name, "schedules", strings.Replace(was, change[0], change[1], 1))
	}
	fired := firings(t, store)
	for range 2 {
		require.Equal(t, "more", suite.Receive(t, fired).Schedule)
	}
	for name := range changes {
		info, err := c.GetSchedule(t.Context(), name)
		require.NoError(t, err)
		if name == "more" {
			require.Equal(t, dianemo.Active, info.State)
			continue
		}
		require.Equal(t, dianemo.Broken, info.State, name)
		require.NotEmpty(t, info.Reason, name)
		require.Contains(t, suite.Server.Client(t).HGet(t.Context(), cursors, name).Val(), "|broken|", name)
	}
}

func TestAScheduleOfANewerVersionIsShownAndLeftAlone(t *testing.T) {
	t.Parallel()
	store := suite.Redis(t, suite.Server.Client(t), 1)
	c := suite.Client(t, store)
	s := dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).New(suite.Args{})}
	shown := func(state dianemo.ScheduleState) {
		info, err := c.GetSchedule(t.Context(), "s")
		require.NoError(t, err)
		require.Equal(t, state, info.State)
		require.Contains(t, info.Reason, "newer version")
	}
	suite.Put(t, c, s)
	require.NoError(t, c.PauseSchedule(t.Context(), "s"))
	spoil(t, store, "s", "schedules", `{"v":2,"rule":{"phase":"new"}}`)
	shown(dianemo.Paused)
	spoil(t, store, "s", "cursors", "2|1|on|whatever")
	shown(dianemo.Active)
	_, triggered := c.TriggerSchedule(t.Context(), "s")
	for _, err := range []error{c.PutSchedule(t.Context(), s), c.PauseSchedule(t.Context(), "s"), c.ResumeSchedule(t.Context(), "s"),
		c.RemoveSchedule(t.Context(), "s"), triggered} {
		require.ErrorIs(t, err, dianemo.ErrNewer)
		require.NotErrorIs(t, err, dianemo.ErrMoved)
	}
	shown(dianemo.Active)
}

// A long call would keep everyone else waiting.
func TestWhatOneCallFiresIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	store.SetTime(midnight)
	c := suite.Client(t, store)
	kind := dianemo.NewKind[string]("kind", dianemo.Policy{Grace: dianemo.Unlimited})
	for i := range 4 {
		suite.Put(t, c, dianemo.Schedule{Name: fmt.Sprint("s", i), Rule: suite.Every(t, time.Hour), Missed: dianemo.MissedAll, Job: kind.New(strings.Repeat("x", 10<<10))})
	}
	store.SetTime(midnight.Add(12 * time.Hour))
	calls := make(chan dianemo.Fire, 100)
	fired := firings(t, &watchedStore{Store: store, fire: func(f dianemo.Fire) { calls <- f }})
	for range 4 * 12 {
		suite.Receive(t, fired)
	}
	several := false
	for len(calls) > 0 {
		call := <-calls
		bytes := 0
		for _, firing := range call.Firings {
			for _, o := range firing.Occurrences {
				bytes += len(o.Spec)
			}
		}
		require.LessOrEqual(t, bytes, 256<<10)
		several = several || len(call.Firings) == 2
	}
	require.True(t, several)
}
