package dianemo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
)

// A declaringStore holds schedules all of whose instants are fired, and counts what it
// is asked. Its clock is the bubble's.
type declaringStore struct {
	Store
	mu         sync.Mutex
	schedules  map[string]*StoredSchedule
	live       []PeerInfo
	puts       []string // the names, in order
	reads, who int      // calls
}

func (s *declaringStore) Open(context.Context) error { return nil }
func (s *declaringStore) Partitions() int            { return 1 }
func (s *declaringStore) Partition(string) int       { return 0 }

func (s *declaringStore) Peers(context.Context) ([]PeerInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who++
	return slices.Clone(s.live), nil
}

func (s *declaringStore) Schedules(_ context.Context, _ int, names []string, _ int) (SchedulesReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	names = names[:min(len(names), MaxCallJobs)]
	reply := SchedulesReply{Asked: len(names), Now: time.Now()}
	for _, name := range names {
		if one := s.schedules[name]; one != nil {
			one.Cursor = time.Now()
			reply.Schedules = append(reply.Schedules, *one)
		}
	}
	return reply, nil
}

func (s *declaringStore) SetSchedule(_ context.Context, _ int, _ Call, wish ScheduleWish) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.schedules[wish.Name]
	if one == nil {
		one = &StoredSchedule{Name: wish.Name}
	}
	if wish.Version != AnyVersion && wish.Version != one.Version {
		return false, ErrMoved
	}
	switch wish.What {
	case PutIt:
		s.puts = append(s.puts, wish.Name)
		s.schedules[wish.Name] = &StoredSchedule{Name: wish.Name, Version: one.Version + 1, State: Active, Definition: wish.Definition}
	case RemoveIt:
		delete(s.schedules, wish.Name)
	default:
		return false, errors.New("not here")
	}
	return false, nil
}

func (s *declaringStore) Fire(_ context.Context, _ int, _ Call, fire Fire) (FireReply, error) {
	return FireReply{Fired: make([]Fired, len(fire.Firings))}, nil // nothing is due
}

// made tells how many definitions were put, read, and how often it was asked who lives.
func (s *declaringStore) made() (puts, reads, who int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.puts), s.reads, s.who
}

// A fleet's peers only declare.
type fleet struct {
	t     *testing.T
	store *declaringStore
	log   *strings.Builder
	to    *slog.Logger
}

func newFleet(t *testing.T) *fleet {
	log := &strings.Builder{}
	return &fleet{t, &declaringStore{schedules: map[string]*StoredSchedule{}}, log, slog.New(slog.NewTextHandler(log, nil))}
}

// start is a peer of a program that was built so many seconds after 1970, and what
// ends it.
func (f *fleet) start(built int64, schedules ...Schedule) (p *Peer, stop func()) {
	f.t.Helper()
	at := time.Unix(built, 0)
	p, err := NewPeer(f.store, Config{Built: at, Logger: f.to})
	require.NoError(f.t, err)
	for _, s := range schedules {
		require.NoError(f.t, p.Schedule(s))
	}
	require.NoError(f.t, p.open(f.t.Context()))
	f.store.mu.Lock()
	f.store.live = append(f.store.live, PeerInfo{ID: p.id, Built: at})
	f.store.mu.Unlock()
	signal(p.visible)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.declares(ctx) }()
	synctest.Wait()
	return p, func() {
		cancel()
		<-ended
		p.Close()
		f.store.mu.Lock()
		defer f.store.mu.Unlock()
		f.store.live = slices.DeleteFunc(f.store.live, func(i PeerInfo) bool { return i.ID == p.id })
	}
}

// after lets time pass.
func (f *fleet) after(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

// stored is the definition that is there, nil if there is none.
func (f *fleet) stored(name string) *definition {
	f.t.Helper()
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if f.store.schedules[name] == nil {
		return nil
	}
	d, err := f.store.schedules[name].decode()
	require.NoError(f.t, err)
	return d
}

// says is the argument of a schedule's job.
func (f *fleet) says(name string) string {
	f.t.Helper()
	d := f.stored(name)
	require.NotNil(f.t, d)
	return string(d.spec.Args)
}

// hourlyJob is a schedule whose job has that argument.
func hourlyJob(name string, n int) Schedule {
	return Schedule{Name: name, Rule: must(Interval(time.Hour)), Job: NewKind[int]("kind", Policy{}).New(n)}
}

// A canary: an older build runs on all the time, a newer one comes, declares otherwise,
// and goes.
func TestACanaryThatIsTakenBackTakesItsDeclarationsWithIt(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ lives, within time.Duration }{
		{time.Hour, time.Minute},
		{61 * time.Second, time.Minute},
		{time.Second, 10 * time.Minute},
	} {
		t.Run(row.lives.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				_, stop := f.start(1e9, hourlyJob("s", 1))
				defer stop()
				f.after(20 * time.Minute)
				f.after(10 * time.Second)
				require.Equal(t, "1", f.says("s"))
				_, back := f.start(2e9, hourlyJob("s", 2))
				require.Equal(t, "2", f.says("s"))
				f.after(row.lives)
				require.Equal(t, "2", f.says("s"))
				back()
				f.after(row.within)
				require.Equal(t, "1", f.says("s"))
			})
		})
	}
}

// Of three builds the newest goes, and leaves what only the oldest declares besides.
func TestTheNewestBuildThatLivesWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		_, stop := f.start(1e9, hourlyJob("s", 1), hourlyJob("both", 1))
		defer stop()
		_, stopSecond := f.start(2e9, hourlyJob("s", 2))
		_, stopThird := f.start(3e9, hourlyJob("s", 3), hourlyJob("both", 3))
		f.after(time.Hour)
		require.Equal(t, "3", f.says("s"))
		require.Equal(t, "3", f.says("both"))
		stopThird()
		f.after(time.Minute)
		require.Equal(t, "2", f.says("s"))
		require.Equal(t, "1", f.says("both"))
		stopSecond()
		f.after(time.Minute)
		require.Equal(t, "1", f.says("s"))
	})
}

func TestToLookAtManySchedulesCostsFewCalls_Long(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		n := sample.Part(t, 3000, 3)
		var all []Schedule
		for i := range n {
			all = append(all, hourlyJob(fmt.Sprint(i), 1))
		}
		_, stop := f.start(1e9, all...)
		defer stop()
		puts, reads, who := f.store.made()
		require.Equal(t, n, puts)
		f.after(time.Hour + time.Second)
		puts, read, asked := f.store.made()
		require.Equal(t, n, puts)
		require.Equal(t, 6*n/MaxCallJobs, read-reads)
		require.Equal(t, 60, asked-who)

		// All of them passed over, at each look.
		_, back := f.start(2e9, hourlyJob("0", 2), hourlyJob("1", 2))
		defer back()
		f.after(time.Hour)
		puts, _, asked = f.store.made()
		require.Equal(t, n+2, puts)
		require.LessOrEqual(t, asked-who, 60+2*60+2*6)
	})
}

// Two programs of one build time: the one that starts later wins, and that is that.
func TestEquallyOldBuildsDoNotFight(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string][]Rule{
		"the library's":   {must(Interval(time.Hour)), must(Interval(time.Minute))},
		"of types of own": {gridRule{time.Second}, otherRule{time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				for i, rule := range rules {
					s := hourlyJob("s", i)
					s.Rule = rule
					_, stop := f.start(1e9, s)
					defer stop()
					require.Equal(t, fmt.Sprint(i), f.says("s"))
				}
				for range 60 {
					f.after(time.Minute)
					require.Equal(t, "1", f.says("s"))
				}
			})
		})
	}
}

type gridRule struct{ d time.Duration }

func (r gridRule) Next(after time.Time) time.Time { return after.Truncate(r.d).Add(r.d) }

type otherRule struct{ d time.Duration }

func (r otherRule) Next(after time.Time) time.Time { return after.Truncate(r.d).Add(r.d) }

func TestARemovedScheduleStaysAwayUntilAProgramThatDeclaresItStarts(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]Rule{"the library's": must(Interval(time.Hour)), "of a type of one's own": gridRule{time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				s := hourlyJob("s", 1)
				s.Rule = rule
				p, stop := f.start(1e9, s)
				defer stop()
				f.after(time.Hour)
				require.NoError(t, p.RemoveSchedule(t.Context(), "s"))
				f.after(time.Hour)
				require.True(t, f.stored("s") == nil)

				// What an operator puts in its place is the operator's.
				require.NoError(t, p.PutSchedule(t.Context(), hourlyJob("s", 7)))
				f.after(time.Hour)
				require.Equal(t, "7", f.says("s"))

				_, stopAgain := f.start(1e9, s)
				defer stopAgain()
				require.Equal(t, "1", f.says("s"))
			})
		})
	}
}

// minuteRule is hourly, at that minute.
type minuteRule struct{ m int }

func (r minuteRule) Next(after time.Time) time.Time {
	at := after.Truncate(time.Hour).Add(time.Duration(r.m) * time.Minute)
	if !at.After(after) {
		at = at.Add(time.Hour)
	}
	return at
}

// One type, whose code has changed: what tells the builds apart is when they were built.
func TestTheInstantsOfARuleOfOnesOwnAreThoseOfTheNewestBuildThatLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		at := func(minute int) Schedule {
			s := hourlyJob("s", 1)
			s.Rule = minuteRule{minute}
			return s
		}
		are := func(minute int) {
			t.Helper()
			known := f.stored("s").Known
			require.GreaterOrEqual(t, len(known), knownAhead/2)
			for _, ms := range known {
				require.Equal(t, minute, time.UnixMilli(ms).UTC().Minute())
			}
		}
		_, stop := f.start(1e9, at(0))
		defer stop()
		f.after(40 * time.Minute)
		are(0)
		_, back := f.start(2e9, at(30))
		defer back()
		for range 150 {
			are(30)
			f.after(time.Hour)
		}
		back()
		f.after(time.Minute)
		are(0)
	})
}

// tableRule is hourly, and panics where its table ends.
type tableRule struct{ end time.Time }

func (r tableRule) Next(after time.Time) time.Time {
	at := after.Truncate(time.Hour).Add(time.Hour)
	if at.After(r.end) {
		panic("no table for " + at.String())
	}
	return at
}

// fitfulRule is due each minute, and fails where it is told to.
type fitfulRule struct{ fails *atomic.Bool }

func (r fitfulRule) Next(after time.Time) time.Time {
	if r.fails.Load() {
		return after // which is not later
	}
	return after.Truncate(time.Minute).Add(time.Minute)
}

func TestWhatARuleOfOnesOwnGaveBeforeItFailedIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var fails atomic.Bool
		table, nothing, later := hourlyJob("a", 1), hourlyJob("b", 1), hourlyJob("c", 1)
		end := time.Now().Add(20 * time.Hour)
		table.Rule, nothing.Rule, later.Rule = tableRule{end}, tableRule{time.Now().Add(-time.Hour)}, fitfulRule{&fails}
		_, stop := f.start(1e9, table, nothing, later, hourlyJob("z", 1))
		defer stop()
		require.Equal(t, "1", f.says("z"))
		require.Len(t, f.stored("a").Known, 20)
		require.Equal(t, end.UnixMilli(), f.stored("a").Known[19])
		require.True(t, f.stored("b") == nil)
		require.Len(t, f.stored("c").Known, knownAhead)
		require.Equal(t, 2, strings.Count(f.log.String(), "level=ERROR"))

		fails.Store(true)
		last := f.stored("c").Known[knownAhead-1]
		for range 25 {
			f.after(time.Hour)
		}
		require.Equal(t, end.UnixMilli(), slices.Max(f.stored("a").Known))
		require.Equal(t, last, slices.Max(f.stored("c").Known))
		require.Equal(t, 3, strings.Count(f.log.String(), "level=ERROR"), "each once, however often it was looked at")
		fails.Store(false)
		f.after(declareAnew)
		require.Greater(t, slices.Max(f.stored("c").Known), last)
	})
}
