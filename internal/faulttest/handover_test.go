//go:build linux

package faulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/redisstore"
)

// Each occurrence is a job of which nothing is kept once it has succeeded, so that
// one that is made twice is run twice: nothing in Redis would stop it. A run that is
// repeated, because its peer was killed, is of a job that was made once, at a time
// that each run is told. So an occurrence was made as often as its runs know times,
// and was lost if it has no run. What is told of firings must agree, but may lack
// some: who is killed tells nothing.
func TestWhateverBefallsLeadersAroundTheTicksEveryOccurrenceIsMadeOnce_Long(t *testing.T) {
	t.Parallel()
	const lease = 500 * time.Millisecond // so that there is a leader at most ticks
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprintf("partitions=%d", partitions), func(t *testing.T) {
			t.Parallel()
			dice := sample.Rand(t)
			f := assemble(t, server, partitions)
			least := time.Duration(sample.Part(t, 40, 4)) * time.Second
			least = max(lasting(t, least), least)

			// Nobody leads yet, so it is known which occurrence is the first.
			schedules := metronomes(t)
			first := map[string]time.Time{}
			for _, m := range schedules {
				require.NoError(t, f.client.PutSchedule(t.Context(), m.Schedule))
				info, err := f.client.GetSchedule(t.Context(), m.Name)
				require.NoError(t, err)
				first[m.Name] = m.Rule.Next(info.Decided)
			}

			var contenders []contender
			join := func() {
				w := &way{Proxy: redistest.StartProxy(t, server.Addr())}
				contenders = append(contenders, contender{f.launch(settings{Redis: w.Addr(), Open: true, Forgets: true, Lease: lease}), w})
			}
			for range 4 {
				join()
			}
			o := f.hire(schedules[:4], rand.New(rand.NewPCG(dice.Uint64(), 0)), lease)
			var revising sync.WaitGroup
			over, stop := context.WithCancel(t.Context())
			defer revising.Wait()
			defer stop()
			revising.Go(func() { o.revise(over) })

			met := map[fate]int{}
			held := int64(0) // firings that were caught
			metAll := func() bool {
				caught := held
				for _, c := range contenders {
					caught += c.caught.Load()
				}
				return len(met) == len(fates) && caught > 0 && o.caught.Load() > 0
			}
			var next []fate
			// It goes on until everything has happened.
			begin := time.Now()
			for tick := begin.Truncate(time.Second).Add(time.Second); time.Since(begin) < least || !metAll(); tick = tick.Add(time.Second) {
				require.Less(t, time.Since(begin), least+patience, "met: %v; the operator was held up %d times", met, o.caught.Load())
				<-time.After(time.Until(tick.Add(within(dice, 200*time.Millisecond) - 100*time.Millisecond)))
				leader, _ := f.leader()
				i := slices.IndexFunc(contenders, func(c contender) bool { return c.pid == f.pid(leader) })
				if i < 0 {
					continue // there is none
				}
				if len(next) == 0 {
					next = slices.Clone(fates)
					dice.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
				}
				contenders[i].meet(next[0], lease+within(dice, 2*lease))
				if met[next[0]]++; next[0] == killed {
					held += contenders[i].caught.Load()
					contenders = slices.Delete(contenders, i, i+1)
					join()
				}
				next = next[1:]
			}
			for _, c := range contenders {
				held += c.caught.Load()
				c.recover()
			}
			stop()
			revising.Wait()

			// The schedules end. One that was due after that may have been fired before.
			expected := map[string]bool{}
			end := time.Now()
			last := end.Truncate(time.Second).Add(3 * time.Second)
			for _, m := range schedules {
				m.End = last
				f.eventually("the schedule ends", func() bool {
					err := f.client.PutSchedule(t.Context(), m.Schedule)
					require.True(t, err == nil || errors.Is(err, dianemo.ErrMoved), "%v", err)
					return err == nil
				})
				info, err := f.client.GetSchedule(t.Context(), m.Name)
				require.NoError(t, err)
				for at := first[m.Name]; !at.After(last) || !at.After(info.Decided); at = m.Rule.Next(at) {
					expected[dianemo.OccurrenceID(m.Name, at)] = true
				}
			}
			require.Greater(t, len(expected), int(least/time.Second)*7)
			// Each loss of a wake-up may cost a schedule that waits five seconds.
			f.eventually("all schedules have ended", func() bool {
				infos, err := f.client.ListSchedules(t.Context(), "", dianemo.MaxList)
				require.NoError(t, err)
				require.Len(t, infos, len(schedules))
				return !slices.ContainsFunc(infos, func(i dianemo.ScheduleInfo) bool { return i.State != dianemo.Ended })
			})
			f.eventually("all jobs have succeeded", func() bool {
				counts, err := f.client.Counts(t.Context())
				require.NoError(t, err)
				return !slices.ContainsFunc(counts, func(c dianemo.Count) bool { return c.State != dianemo.Succeeded && c.Jobs > 0 })
			})
			took := time.Since(end)
			for _, c := range contenders {
				c.terminate()
			}
			for _, c := range contenders {
				require.Empty(t, c.exit().Cause)
			}

			madeAt, firedBy, repeated := map[string][]time.Time{}, map[string][]string{}, 0
			var wrong []string
			for _, l := range f.starts(nil) {
				if l.Attempt > 1 {
					repeated++
				}
				if !slices.ContainsFunc(madeAt[l.Job], l.Made.Equal) {
					madeAt[l.Job] = append(madeAt[l.Job], l.Made)
				}
			}
			for _, l := range f.seen(func(l line) bool { return l.Event == fired }) {
				firedBy[l.Job] = append(firedBy[l.Job], l.Peer)
				if l.State != dianemo.Scheduled {
					wrong = append(wrong, fmt.Sprintf("%s is %s", l.Job, l.State))
				}
			}
			for id := range expected {
				if len(madeAt[id]) == 0 {
					wrong = append(wrong, id+" was lost")
				}
			}
			for id, times := range madeAt {
				if len(times) != 1 || !expected[id] {
					wrong = append(wrong, fmt.Sprintf("%s was made at %v", id, times))
				}
			}
			for id, peers := range firedBy {
				if len(peers) != 1 || !expected[id] {
					wrong = append(wrong, fmt.Sprintf("%s was fired by %v", id, peers))
				}
			}
			slices.Sort(wrong)
			terms := f.seen(func(l line) bool { return l.Event == lead && l.Leading })
			t.Logf("%d occurrences, of %d it was told who fired them; %d terms, leaders were %v; held up: %d firings of leaders, %d calls of the operator; "+
				"%d runs were repeated; all was done %v after the end", len(expected), len(firedBy), len(terms), met, held, o.caught.Load(), repeated, took.Round(time.Millisecond))
			require.Empty(t, wrong)
		})
	}
}

// A metronome is a schedule that is due at every full second.
type metronome struct {
	dianemo.Schedule
	other dianemo.Rule // with the same instants
}

// metronomes have no end yet. Of some an occurrence waits for the one before it:
// they are fired by whoever has settled that one, too.
func metronomes(t *testing.T) []*metronome {
	interval, err := dianemo.Interval(time.Second)
	require.NoError(t, err)
	cron, err := dianemo.Cron("* * * * * *", "UTC")
	require.NoError(t, err)
	all := make([]*metronome, 10)
	for i := range all {
		overlap, work := dianemo.OverlapAllow, time.Duration(0)
		if i >= 6 {
			overlap, work = dianemo.OverlapWait, 100*time.Millisecond
		}
		all[i] = &metronome{other: cron, Schedule: dianemo.Schedule{Name: fmt.Sprintf("metronome-%d", i), Rule: interval,
			Overlap: overlap, Job: dianemo.NewKind[args]("work", dianemo.Policy{}).NewWith(args{Work: work}, dianemo.Options{Reruns: 1000}),
			// However late a busy machine is, none is missed.
			Missed: dianemo.MissedAll, MissedMax: 1000}}
		if i%2 == 1 {
			all[i].change()
		}
	}
	return all
}

func (m *metronome) change() { m.Rule, m.other = m.other, m.Rule }

// A fate is what a leader meets. It lasts for longer than a lease.
type fate string

const (
	killed    fate = "killed"    // and another peer comes
	stopped   fate = "stopped"   // and woken: for a moment it may believe that it leads
	refused   fate = "refused"   // its connections are cut, and it gets no new ones
	swallowed fate = "swallowed" // what it sends, and what it is sent, stays on the way
	caught    fate = "caught"    // the same, from when it fires next: that comes to Redis when another leads
)

var fates = []fate{killed, stopped, refused, swallowed, caught}

// A contender is a peer that is to lead and to lose it.
type contender struct {
	*peer
	*way
}

func (c contender) meet(what fate, lasts time.Duration) {
	c.f.t.Helper()
	switch what {
	case killed:
		c.kill()
	case stopped:
		c.pause()
		time.AfterFunc(lasts, c.resume)
	case refused:
		c.Refuse(true)
		time.AfterFunc(lasts, func() { c.Refuse(false) })
	case swallowed:
		c.Blackhole(true)
		time.AfterFunc(lasts, func() { c.Blackhole(false) })
	case caught:
		c.catch(dianemo.EdgeFire, lasts)
	}
}

// recover ends what it has met.
func (c contender) recover() {
	c.resume()
	c.DropMatching(nil)
	c.Refuse(false)
	c.Blackhole(false)
}

// A way leads to Redis.
type way struct {
	*redistest.Proxy
	caught atomic.Int64 // calls
}

// catch holds up the next call of this name, and whatever comes with it and after it.
func (w *way) catch(call dianemo.Edge, lasts time.Duration) {
	var once sync.Once
	w.DropMatching(func(request []byte) bool {
		if bytes.Contains(request, []byte("}:call:"+string(call)+":")) {
			once.Do(func() {
				w.Blackhole(true) // before this request goes on
				w.caught.Add(1)
				time.AfterFunc(lasts, func() { w.Blackhole(false) })
			})
		}
		return false
	})
}

// An operator gives schedules other rules with the same instants, which fires first
// what is due of them, whoever leads. Its calls are held up, so that the leader
// decides meanwhile what they have decided: no term tells which of them is late.
type operator struct {
	*way
	f         *fleet
	client    *dianemo.Client
	schedules []*metronome
	dice      *rand.Rand
	lease     time.Duration
}

func (f *fleet) hire(schedules []*metronome, dice *rand.Rand, lease time.Duration) *operator {
	o := &operator{&way{Proxy: redistest.StartProxy(f.t, f.server.Addr())}, f, nil, schedules, dice, lease}
	rdb := redis.NewClient(&redis.Options{Addr: o.Addr(), DisableIdentity: true,
		DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout})
	f.t.Cleanup(func() { _ = rdb.Close() })
	w := &worker{id: "operator", witness: f.pipe}
	var err error
	o.client, err = dianemo.NewClient(redisstore.New(rdb, redisstore.Options{Namespace: f.namespace, Partitions: f.partitions}),
		dianemo.ClientConfig{Hooks: w.hooks(), Logger: slog.New(slog.NewTextHandler(f.t.Output(), nil))})
	require.NoError(f.t, err)
	f.t.Cleanup(o.client.Close)
	return o
}

func (o *operator) revise(ctx context.Context) {
	for tick := time.Now().Truncate(time.Second); ; tick = time.Now().Truncate(time.Second).Add(time.Second) {
		select {
		case <-time.After(time.Until(tick.Add(within(o.dice, time.Second/2)))):
		case <-ctx.Done():
			return
		}
		o.catch([]dianemo.Edge{dianemo.EdgeFire, dianemo.EdgeFire, "schedule"}[o.dice.IntN(3)], o.lease+within(o.dice, 3*o.lease))
		m := o.schedules[o.dice.IntN(len(o.schedules))]
		m.change()
		err := o.client.PutSchedule(o.f.t.Context(), m.Schedule) // which comes to an end, or it could come late
		if err != nil && !errors.Is(err, dianemo.ErrMoved) && o.f.t.Context().Err() == nil {
			o.f.t.Errorf("the operator can't change %s: %v", m.Name, err)
		}
	}
}

// pid of a peer, once it has said anything.
func (f *fleet) pid(id string) int {
	lines := f.seen(func(l line) bool { return l.Event == made && l.Peer == id })
	if len(lines) == 0 {
		return 0
	}
	return lines[0].PID
}

// within is any duration from 0 to less than d.
func within(dice *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(dice.Int64N(int64(d)))
}
