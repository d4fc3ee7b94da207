//go:build linux

package faulttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/audit"
	"github.com/dianemo/dianemo/internal/sample"
)

// A spoiler damages what a fleet has in Redis while that is at work.
type spoiler struct {
	*fleet
	dice  *rand.Rand
	gate  string // a held job, for whose end victims wait
	alive []*peer
	free  []string // held jobs that are to be let go of in the end
	ids   int
}

func spoil(t *testing.T, partitions int) *spoiler {
	s := &spoiler{fleet: assemble(t, server, partitions), dice: sample.Rand(t)}
	for range 3 {
		// No peer dies here, and one that is slow, on a busy machine, is to keep its jobs.
		s.alive = append(s.alive, s.start(settings{Kinds: []string{"work", "again", "newer", "tick"}, Tokens: 24, SilentAfter: 3 * time.Second}))
	}
	return s
}

// one adds one job.
func (s *spoiler) one(kind string, a args, options dianemo.Options) string {
	s.t.Helper()
	return s.enqueue(1, kind, a, options)[0]
}

// id is one of a partition's; of any, if that is negative.
func (s *spoiler) id(partition int) string {
	for {
		s.ids++
		id := fmt.Sprintf("j%d", s.ids)
		if partition < 0 || s.partitionOf(id) == partition {
			return id
		}
	}
}

func (s *spoiler) tag(partition int) string { return fmt.Sprintf("{%s:%d}:", s.namespace, partition) }

func (s *spoiler) partitionOf(id string) int { return s.store.Partition(id) }

// at is the tag of an id's partition.
func (s *spoiler) at(id string) string { return s.tag(s.partitionOf(id)) }

func (s *spoiler) space(key string) string { return fmt.Sprintf("{%s}:%s", s.namespace, key) }

// held is a job that runs until the end of the spoiling.
func (s *spoiler) held(options dianemo.Options) string {
	s.t.Helper()
	id := s.one("work", args{}, options)
	s.free = append(s.free, id)
	s.await(1, "the job start", func(l line) bool { return l.is(started, id) })
	return id
}

func (s *spoiler) release() {
	for _, p := range s.alive {
		p.release(s.free...)
	}
}

// A bystander is a job that nobody touches: how it is to end, after how many starts.
type bystander struct {
	id     string
	state  dianemo.State
	starts int
}

// bystanders adds a few jobs of some sort, all of them in one partition, or where they may be.
func (s *spoiler) bystanders(partition int) []bystander {
	s.t.Helper()
	work := args{Work: 5*time.Millisecond + within(s.dice, 30*time.Millisecond)}
	add := func(kind string, a args, o dianemo.Options) string {
		o.ID = s.id(partition)
		return s.one(kind, a, o)
	}
	switch s.dice.IntN(7) {
	case 0:
		return []bystander{{add("work", work, dianemo.Options{Delay: within(s.dice, 500*time.Millisecond)}), dianemo.Succeeded, 1}}
	case 1:
		work.Failures = 1 + s.dice.IntN(2)
		return []bystander{{add("again", work, dianemo.Options{}), dianemo.Succeeded, 1 + work.Failures}}
	case 2:
		work.Fails = true
		return []bystander{{add("work", work, dianemo.Options{}), dianemo.Failed, 1}}
	case 3:
		parent := add("work", work, dianemo.Options{})
		child := add("work", work, dianemo.Options{Parents: dianemo.After(parent)})
		none := add("work", work, dianemo.Options{Parents: dianemo.AfterFailure(parent)})
		return []bystander{{parent, dianemo.Succeeded, 1}, {child, dianemo.Succeeded, 1}, {none, dianemo.Skipped, 0}}
	case 4:
		wf := dianemo.NewWorkflow("flow")
		wf.ID = s.id(partition)
		kind := dianemo.NewKind[args]("work", dianemo.Policy{})
		wf.Add("a", kind.New(work))
		wf.Add("b", kind.New(work)).After("a")
		wf.Add("c", kind.New(args{Work: time.Millisecond, Fails: true})).After("a")
		wf.Add("d", kind.New(work)).After("b", "c")
		_, err := s.client.Submit(context.Background(), wf)
		require.NoError(s.t, err)
		return []bystander{{wf.ID, dianemo.Failed, 0}, {wf.ID + "@a", dianemo.Succeeded, 1}, {wf.ID + "@b", dianemo.Succeeded, 1},
			{wf.ID + "@c", dianemo.Failed, 1}, {wf.ID + "@d", dianemo.Skipped, 0}}
	case 5:
		if partition >= 0 {
			return nil // a unique job's partition is its key's
		}
		return []bystander{{s.one("work", work, dianemo.Options{Unique: dianemo.Unique{Key: s.id(-1)}}), dianemo.Succeeded, 1}}
	default:
		return []bystander{{add("work", work, urgent), dianemo.Succeeded, 1}}
	}
}

// attempts adds a few jobs of a partition in which keys are struck, so that it may not succeed.
func (s *spoiler) attempts(partition int) []string {
	work := args{Work: 5*time.Millisecond + within(s.dice, 30*time.Millisecond)}
	var ids []string
	add := func(kind string, a args, o dianemo.Options) string {
		o.ID = s.id(partition)
		if _, err := dianemo.NewKind[args](kind, dianemo.Policy{}).EnqueueWith(s.t.Context(), s.client, a, o); err == nil {
			ids = append(ids, o.ID)
		}
		return o.ID
	}
	switch s.dice.IntN(4) {
	case 0:
		add("work", work, dianemo.Options{Delay: within(s.dice, 500*time.Millisecond)})
	case 1:
		work.Failures = 1
		add("again", work, dianemo.Options{Weight: 2})
	case 2:
		add("work", work, dianemo.Options{Parents: dianemo.After(add("work", work, dianemo.Options{}))})
	case 3:
		wf := dianemo.NewWorkflow("flow")
		wf.ID = s.id(partition)
		kind := dianemo.NewKind[args]("work", dianemo.Policy{})
		wf.Add("a", kind.New(work))
		wf.Add("b", kind.New(work)).After("a")
		if _, err := s.client.Submit(s.t.Context(), wf); err == nil {
			ids = append(ids, wf.ID, wf.ID+"@a", wf.ID+"@b")
		}
	}
	return ids
}

// checkBystanders waits for their ends.
func (s *spoiler) checkBystanders(all []bystander) {
	s.t.Helper()
	for _, b := range all {
		s.inTime(2*patience, b.id+" has ended", func() bool { return s.get(b.id).State.Finished() })
		job := s.get(b.id)
		require.Equal(s.t, b.state, job.State, "%s: %s %s", b.id, job.Reason, job.LastError())
		require.Len(s.t, s.starts(nil, b.id), b.starts, "starts of %s", b.id)
	}
}

// ticks makes a schedule that is due each second, and returns what looks at its jobs at last.
func (s *spoiler) ticks(name string) (check func()) {
	s.t.Helper()
	rule, err := dianemo.Interval(time.Second)
	require.NoError(s.t, err)
	require.NoError(s.t, s.client.PutSchedule(context.Background(), dianemo.Schedule{Name: name, Rule: rule,
		Job: dianemo.NewKind[args]("tick", dianemo.Policy{}).New(args{Work: time.Millisecond})}))
	return func() {
		s.t.Helper()
		const least = 3 // are to be seen
		s.await(least, "the schedule fires", func(l line) bool { return l.is(fired) && strings.HasPrefix(l.Job, name+"@") })
		info, err := s.client.GetSchedule(context.Background(), name)
		require.NoError(s.t, err)
		require.Equal(s.t, dianemo.Active, info.State, info.Reason)
		first := time.Time{}
		for _, l := range s.seen(func(l line) bool { return l.is(fired) && strings.HasPrefix(l.Job, name+"@") }) {
			at, err := time.Parse("20060102T150405Z", strings.TrimPrefix(l.Job, name+"@"))
			require.NoError(s.t, err)
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
		n := 0
		for at := first; !at.After(info.Decided); at = at.Add(time.Second) {
			id := dianemo.OccurrenceID(name, at)
			s.awaitState(dianemo.Succeeded, id)
			require.Len(s.t, s.starts(nil, id), 1, id)
			n++
		}
		require.GreaterOrEqual(s.t, n, least)
	}
}

// work goes on: each peer still starts jobs.
func (s *spoiler) allWork() {
	s.t.Helper()
	exits := s.seen(func(l line) bool { return l.Event == exited })
	require.Empty(s.t, exits, "a peer has ended")
	// They are too heavy for fewer peers.
	jobs := s.enqueue(len(s.alive), "work", args{}, dianemo.Options{Weight: 20})
	s.await(len(jobs), "all peers start a job", func(l line) bool { return l.is(started, jobs...) })
	for _, p := range s.alive {
		require.NotEmpty(s.t, s.starts(p, jobs...), "peer %s starts nothing", p.id)
		p.release(jobs...)
	}
	s.awaitState(dianemo.Succeeded, jobs...)
}

// mended walks until nothing is found any more, and returns what was.
func (s *spoiler) mended() (found []dianemo.Repaired) {
	s.t.Helper()
	for range 10 {
		report, err := s.client.Repair(s.t.Context())
		require.NoError(s.t, err)
		if len(report.Found) == 0 {
			return found
		}
		found = append(found, report.Found...)
	}
	require.Fail(s.t, "repair finds something again and again", "%v", found)
	return nil
}

// sound: but for what contains one of these, all is well.
func (s *spoiler) sound(may []string) {
	s.t.Helper()
	findings, err := audit.Keys(s.t.Context(), s.rdb, s.namespace, s.partitions)
	require.NoError(s.t, err)
	findings = slices.DeleteFunc(findings, func(finding string) bool {
		return slices.ContainsFunc(may, func(part string) bool { return strings.Contains(finding, part) })
	})
	require.Empty(s.t, findings, "%s", strings.Join(findings, "\n"))
}

// A victim is a job that was struck.
type victim struct {
	*strike
	id string
}

// Each strike hits one job, or one entry of an index. Whatever it was, all others go on.
func TestWhileEntriesAreSpoiltAllOtherJobsGoOn_Long(t *testing.T) {
	t.Parallel()
	s := spoil(t, 2)
	s.gate = s.held(dianemo.Options{})
	check := s.ticks("ticks")
	come := time.NewTicker(25 * time.Millisecond)
	defer come.Stop()
	var others []bystander
	var victims []victim
	var remains []string
	picked := sample.Rows(t, strikes, 8)
	for _, i := range s.dice.Perm(len(picked)) {
		<-come.C
		others = append(others, s.bystanders(-1)...)
		v := victim{strike: &picked[i]}
		if v.make != nil {
			v.id = v.make(s)
		}
		v.do(s, v.id)
		victims = append(victims, v)
		for _, part := range v.remains {
			remains = append(remains, strings.ReplaceAll(part, "ID", v.id))
		}
	}
	for range sample.Part(t, 40, 4) {
		<-come.C
		others = append(others, s.bystanders(-1)...)
	}
	s.release()
	s.rdb.Del(t.Context(), s.space("leader")) // a new term begins with a look at all schedules
	s.checkBystanders(others)
	t.Logf("%d bystanders, %d strikes", len(others), len(victims))
	s.awaitState(dianemo.Succeeded, s.gate)
	for _, v := range victims {
		s.checkVictim(v)
	}
	check()
	s.allWork()
	s.mended()
	for _, p := range s.alive {
		p.terminate()
	}
	for _, p := range s.alive {
		require.Empty(t, p.exit().Cause)
	}
	require.Empty(t, s.mended())
	s.sound(remains)
}

// tell says all that there is of a job, for whoever wonders why it does not end.
func (s *spoiler) tell(id string) string {
	ctx := context.Background()
	at := s.at(id)
	text := fmt.Sprintf("record %q, spec %.60q", s.rdb.HGet(ctx, at+"meta", id).Val(), s.rdb.HGet(ctx, at+"spec", id).Val())
	for _, key := range s.rdb.Keys(ctx, at+"*").Val() {
		switch s.rdb.Type(ctx, key).Val() {
		case "zset":
			for _, z := range s.rdb.ZRangeWithScores(ctx, key, 0, -1).Val() {
				if member, _ := z.Member.(string); strings.Contains(member, id) {
					text += fmt.Sprintf("; %s: %s %v", key, member, z.Score)
				}
			}
		case "hash":
			for field, value := range s.rdb.HGetAll(ctx, key).Val() {
				if strings.Contains(field, id) && !strings.HasSuffix(key, ":spec") && !strings.HasSuffix(key, ":meta") {
					text += fmt.Sprintf("; %s: %s %q", key, field, value)
				}
			}
		}
	}
	return text
}

// awaitEnd waits for the end of a job, or, if it may be lost, until nobody knows of it any more.
func (s *spoiler) awaitEnd(what, id string, lost bool) (job *dianemo.JobInfo) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		var err error
		job, err = s.client.Get(s.t.Context(), id)
		if lost && errors.Is(err, dianemo.ErrNotFound) {
			return nil
		}
		if err == nil && job.State.Finished() {
			return job
		}
		if time.Since(begin) > 2*patience {
			require.Fail(s.t, "it does not end", "%s: %s: %v; %s", what, id, err, s.tell(id))
		}
	}
}

func (s *spoiler) checkVictim(v victim) {
	s.t.Helper()
	if v.id == "" {
		return
	}
	if v.newer {
		job, err := s.client.Get(s.t.Context(), v.id)
		require.True(s.t, err != nil || !job.State.Finished(), "%s: what a newer version wrote was touched: %+v", v.name, job)
		require.LessOrEqual(s.t, len(s.starts(nil, v.id)), max(v.starts, 1), v.name)
		return
	}
	may := v.may
	if may == nil {
		may = []dianemo.State{dianemo.Succeeded}
	}
	job := s.awaitEnd(v.name, v.id, false)
	assert.Contains(s.t, may, job.State, "%s: %s %s %s", v.name, v.id, job.Reason, job.LastError())
	assert.LessOrEqual(s.t, len(s.starts(nil, v.id)), max(v.starts, 1), "%s: starts of %s", v.name, v.id)
	if v.corrupt && job.State != dianemo.Succeeded {
		assert.Equal(s.t, "corrupt", job.Reason, "%s: %s: %s", v.name, v.id, s.tell(v.id))
	}
}

// Whole keys, each that the layout has: they are deleted, and then replaced by another type. Those
// of one partition and of the namespace are struck; the jobs of the other partition go on as if nothing
// had been. Of the partition that is struck, what is lost with the only key that told of it is lost.
func TestWhileKeysAreSpoiltAllPeersWorkOnAndOtherPartitionsDoNotNotice_Long(t *testing.T) {
	t.Parallel()
	const struck, spared = 0, 1
	s := spoil(t, 2)
	check := s.ticks(s.id(spared))
	s.ticks(s.id(struck))
	come := time.NewTicker(25 * time.Millisecond)
	defer come.Stop()
	var others []bystander
	var theirs []string
	flow := func() {
		<-come.C
		others = append(others, s.bystanders(spared)...)
		theirs = append(theirs, s.attempts(struck)...)
	}
	for range 30 {
		flow()
	}
	runs := []string{s.held(dianemo.Options{ID: s.id(struck), Reruns: 3}), s.held(dianemo.Options{ID: s.id(spared)})}
	others = append(others, bystander{runs[1], dianemo.Succeeded, 1})
	theirs = append(theirs, runs[0])

	var replaced []string
	strike := func(do func(key string)) {
		keys := s.keys(struck)
		s.dice.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		for _, key := range keys[:sample.Part(t, len(keys), 5)] {
			flow()
			do(key)
		}
	}
	strike(func(key string) { require.NoError(t, s.rdb.Del(t.Context(), key).Err()) })
	strike(func(key string) {
		pipe := s.rdb.TxPipeline()
		pipe.Del(t.Context(), key)
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []string{"x", "x"}})
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
		replaced = append(replaced, key)
	})
	for range sample.Part(t, 40, 4) {
		flow()
	}
	s.release()
	s.checkBystanders(others)
	check()
	found := s.mended()
	t.Logf("%d jobs beside, %d jobs struck, %d keys replaced, %d things found at last", len(others), len(theirs), len(replaced), len(found))
	lost := 0
	for _, id := range theirs {
		if s.awaitEnd("struck", id, true) == nil {
			lost++
		}
	}
	t.Logf("%d jobs are lost", lost)
	told := map[string]bool{}
	for _, l := range s.seen(func(l line) bool { return l.Event == repaired && strings.Contains(l.Cause, "it is a stream") }) {
		told[l.Key] = true
	}
	for _, r := range found {
		told[r.Key] = told[r.Key] || strings.Contains(r.What, "it is a stream")
	}
	for _, key := range replaced {
		if strings.Contains(key, "}:call:") || strings.Contains(key, "}:done:") || strings.Contains(key, "}:lane:") {
			continue // whoever made that call may not come again, nor may such jobs, and then nobody has the name any more
		}
		kind := s.rdb.Type(t.Context(), key).Val()
		require.NotEqual(t, "stream", kind, key)
		if told[key] {
			require.NotEmpty(t, s.rdb.Keys(t.Context(), key+":aside:*").Val(), key)
		}
	}
	require.Greater(t, len(told), len(replaced)/2)
	s.rdb.Del(t.Context(), s.space("leader")) // a new term begins with a look at all schedules
	s.eventually("it finds which of them have lost something", func() bool {
		findings, err := audit.Keys(t.Context(), s.rdb, s.namespace, s.partitions)
		require.NoError(t, err)
		return !slices.ContainsFunc(findings, func(finding string) bool { return strings.Contains(finding, ": schedule ") })
	})
	s.allWork()
	for _, p := range s.alive {
		p.terminate()
	}
	for _, p := range s.alive {
		require.Empty(t, p.exit().Cause)
	}
	s.mended()
	require.Empty(t, s.mended())
	s.sound([]string{
		"it has no spec",                        // it has ended
		"it weighs",                             // what it weighs was in its record alone
		"does not know of it",                   // of jobs that have ended, nobody looks for the edges
		"}:call:", "it is a stream, not a zset", // nobody has its name any more
	})
}

// keys are all keys of a partition and of the namespace that there are, and those that there
// might be.
func (s *spoiler) keys(partition int) []string {
	keys := s.rdb.Keys(s.t.Context(), s.tag(partition)+"*").Val()
	for _, name := range []string{"spec", "meta", "result", "errors", "progress", "lanes", "beats", "counts", "unique", "schedules", "cursors", "fires", "kids",
		"edges", "outbox", "needs", "gates", "blocked", "info"} {
		keys = append(keys, s.tag(partition)+name)
	}
	for _, name := range []string{"layout", "kinds", "peers", "seen", "drained", "leader", "term", "idle", "handles", "room", "unheard"} {
		keys = append(keys, s.space(name))
	}
	slices.Sort(keys)
	calls := map[string]bool{} // one for each edge
	keys = slices.DeleteFunc(keys, func(key string) bool {
		edge, caller, _ := strings.Cut(strings.TrimPrefix(key, s.tag(partition)+"call:"), ":")
		again := caller != "" && strings.Contains(key, "}:call:") && calls[edge]
		calls[edge] = true
		return again || strings.Contains(key, ":aside:")
	})
	return slices.Compact(keys)
}
