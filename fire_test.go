package dianemo_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
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

// newer makes schedules that are due and that only a newer version can read, so that they stay due.
func newer(t *testing.T, store dianemo.Store, n int) {
	t.Helper()
	require.NoError(t, store.Open(t.Context()))
	for i := range n {
		name := fmt.Sprintf("s@%d", i) // in the partition of s
		_, err := store.SetSchedule(t.Context(), store.Partition(name), dianemo.Call{Caller: "newer", Number: uint64(i + 1)}, dianemo.ScheduleWish{
			Name: name, What: dianemo.PutIt, Definition: []byte(`{"v":2,"rule":"lunar"}`), Cursor: time.UnixMilli(1), Next: time.UnixMilli(int64(i + 2))})
		require.NoError(t, err)
	}
}

// firings of a peer without handlers, which leads.
func firings(t *testing.T, store dianemo.Store) <-chan dianemo.FireInfo {
	fired := make(chan dianemo.FireInfo, 1000)
	start(t, store, dianemo.Config{Hooks: &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}}, func(*dianemo.Peer) {})
	return fired
}

func TestSchedulesOfANewerVersionDoNotDelayTheOthers(t *testing.T) {
	for _, n := range []int{1, 100, 250} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			onEach(t, func(t *testing.T, store dianemo.Store) {
				newer(t, store, n)
				c := client(t, store)
				put(t, c, dianemo.Schedule{Name: "s", Rule: every(t, time.Second), Job: dianemo.NewKind[Args]("kind", dianemo.Policy{}).New(Args{})})
				fired := firings(t, store)
				at := receive(t, fired).At
				for range 2 {
					next := receive(t, fired)
					require.Equal(t, at.Add(time.Second), next.At)
					require.Less(t, next.Late, time.Second)
					at = next.At
				}
			})
		})
	}
}

// Those that stay due stand before all others in the index.
func TestTheLeaderIsToldOfANewScheduleThatStandsBehindOnesThatCannotBeFired(t *testing.T) {
	onEach(t, func(t *testing.T, store dianemo.Store) {
		newer(t, store, 3)
		looked := make(chan bool, 1000)
		fired := firings(t, &watchedStore{Store: store, read: func(due dianemo.SchedulesReply) { looked <- due.Asked == 0 && due.Due == 3 }})
		for !receive(t, looked) {
		}
		put(t, client(t, store), dianemo.Schedule{Name: "s", Rule: every(t, time.Second), Job: dianemo.NewKind[Args]("kind", dianemo.Policy{}).New(Args{})})
		require.Equal(t, "s", receive(t, fired).Schedule)
	})
}

func TestAScheduleThatIsMadeWhileTheLeaderLooksIsNotForgotten(t *testing.T) {
	for _, what := range []string{"a read of what is due", "a survey"} {
		t.Run(what, func(t *testing.T) {
			onEach(t, func(t *testing.T, store dianemo.Store) {
				c := client(t, store)
				kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
				require.NoError(t, store.Open(t.Context()))
				late := "late" // in the partition of the other one
				for store.Partition(late) != store.Partition("hourly") {
					late += "+"
				}
				leads, listens, heard, read := make(chan bool, 100), make(chan bool, 100), make(chan bool, 100), make(chan time.Time, 10000)
				// The answer is not given before another schedule was made, and the leader told of it.
				hold := sync.OnceFunc(func() {
					receive(t, listens)
					for len(heard) > 0 {
						<-heard
					}
					put(t, c, dianemo.Schedule{Name: late, Rule: every(t, time.Second), Job: kind.New(Args{})})
					receive(t, heard)
				})
				w := &watchedStore{Store: store, listens: func() { listens <- true }, heard: func() { heard <- true }}
				if what == "a survey" {
					w.read = func(due dianemo.SchedulesReply) { read <- due.Later }
					w.surveyed = sync.OnceFunc(func() {
						hold()
						for receive(t, read).IsZero() { // that the leader knows it by now must not be undone
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
					receive(t, leads)
					put(t, c, dianemo.Schedule{Name: "hourly", Rule: every(t, time.Hour), Job: kind.New(Args{})}) // makes it read
				}
				require.Equal(t, late, receive(t, fired).Schedule)
			})
		})
	}
}

func TestADefinitionWithoutSenseIsSetAside(t *testing.T) {
	store := redisStore(t, server.Client(t), 1)
	c := client(t, store)
	kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
	key := fmt.Sprintf("{test-%d:0}:schedules", namespaces.Load())
	cursors := fmt.Sprintf("{test-%d:0}:cursors", namespaces.Load())
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
		put(t, c, dianemo.Schedule{Name: name, Rule: every(t, time.Second), Job: kind.New(Args{})})
		was := server.Client(t).HGet(t.Context(), key, name).Val()
		require.Contains(t, was, change[0])
		spoil(t, name, "schedules", strings.Replace(was, change[0], change[1], 1))
	}
	fired := firings(t, store)
	for range 2 {
		require.Equal(t, "more", receive(t, fired).Schedule)
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
		require.Contains(t, server.Client(t).HGet(t.Context(), cursors, name).Val(), "|broken|", name)
	}
}

func TestAScheduleOfANewerVersionIsShownAndLeftAlone(t *testing.T) {
	store := redisStore(t, server.Client(t), 1)
	c := client(t, store)
	s := dianemo.Schedule{Name: "s", Rule: every(t, time.Hour), Job: dianemo.NewKind[Args]("kind", dianemo.Policy{}).New(Args{})}
	shown := func(state dianemo.ScheduleState) {
		info, err := c.GetSchedule(t.Context(), "s")
		require.NoError(t, err)
		require.Equal(t, state, info.State)
		require.Contains(t, info.Reason, "newer version")
	}
	put(t, c, s)
	require.NoError(t, c.PauseSchedule(t.Context(), "s"))
	spoil(t, "s", "schedules", `{"v":2,"rule":{"phase":"new"}}`)
	shown(dianemo.Paused)
	spoil(t, "s", "cursors", "2|1|on|whatever")
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
	store := embeddedStore(t, 1)
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	store.SetTime(midnight)
	c := client(t, store)
	kind := dianemo.NewKind[string]("kind", dianemo.Policy{Grace: dianemo.Unlimited})
	for i := range 4 {
		put(t, c, dianemo.Schedule{Name: fmt.Sprint("s", i), Rule: every(t, time.Hour), Missed: dianemo.MissedAll, Job: kind.New(strings.Repeat("x", 10<<10))})
	}
	store.SetTime(midnight.Add(12 * time.Hour))
	calls := make(chan dianemo.Fire, 100)
	fired := firings(t, &watchedStore{Store: store, fire: func(f dianemo.Fire) { calls <- f }})
	for range 4 * 12 {
		receive(t, fired)
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
