package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// surveyed is how many partitions one call looks at, where one can.
const surveyed = 64

// silentPage is how many silent peers of a partition one survey names.
const silentPage = 10

// Survey implements [dianemo.Store], in one call for many partitions, or on a
// cluster in one for each. A partition that can't be read is asked again by
// itself, so that it does not hide the others.
func (s *Store) Survey(ctx context.Context, chore *dianemo.Chore) ([]dianemo.Survey, error) {
	surveys := make([]dianemo.Survey, s.Partitions())
	for p := range surveys {
		surveys[p].Partition = p
	}
	size := surveyed
	if s.clustered() {
		size = 1
	}
	var under sync.WaitGroup
	room := make(chan struct{}, 8)
	var mu sync.Mutex
	var mended []error // what was put right before a batch was asked again
	for batch := range slices.Chunk(surveys, size) {
		room <- struct{}{}
		under.Go(func() {
			defer func() { <-room }()
			err := s.survey(ctx, chore, batch)
			if err == nil || ctx.Err() != nil {
				return
			}
			if broken := (*dianemo.BrokenError)(nil); errors.As(err, &broken) {
				mu.Lock()
				mended = append(mended, err)
				mu.Unlock()
			}
			for i := range batch {
				batch[i].Err = s.survey(ctx, chore, batch[i:i+1])
			}
		})
	}
	under.Wait()
	var errs []error
	for i := range surveys {
		if surveys[i].Err != nil {
			errs = append(errs, surveys[i].Err)
		}
	}
	if ctx.Err() != nil || len(errs) == len(surveys) {
		return nil, translate(cmp.Or(ctx.Err(), errors.Join(errs...)))
	}
	return surveys, errors.Join(mended...)
}

func (s *Store) survey(ctx context.Context, chore *dianemo.Chore, batch []dianemo.Survey) error {
	var keys []string
	for i := range batch {
		t := s.tag(batch[i].Partition)
		keys = append(keys, t.key("beats"), t.key("info"), t.key("lanes"), t.key("fires"), t.key("outbox"), t.key("blocked"), t.key("gates"))
	}
	args := []any{lanesPage, "", 0, 0, silentPage}
	if chore != nil {
		args = []any{lanesPage, chore.Term, chore.BeatEvery.Milliseconds(), chore.SilentAfter.Milliseconds(), silentPage}
	}
	replies, err := s.eval(ctx, command{s.scripts.survey, keys, args})
	if err != nil {
		return err
	}
	if len(replies[0]) != 2+len(batch) {
		return fmt.Errorf("redisstore: survey answered %d values", len(replies[0]))
	}
	for i, v := range replies[0][2:] {
		found, one := list(v), &batch[i]
		if len(found) != 6 {
			return fmt.Errorf("redisstore: survey answered %d values for a partition", len(found))
		}
		one.Now = time.UnixMicro(number(replies[0][1]))
		if one.Deposed = number(found[0]) == 1; one.Deposed {
			// One that nobody had would keep all leaders from their chores, and the walk that forgets it is one of them.
			forgotten, err := s.forgetTerm(ctx, s.tag(one.Partition), chore.Term)
			if err == nil && len(forgotten) > 0 {
				err = &dianemo.BrokenError{Found: forgotten, Err: dianemo.ErrDeposed} // and it is asked again
			}
			if err != nil {
				return err
			}
		}
		for _, peer := range list(found[1]) {
			one.Silent = append(one.Silent, text(peer))
		}
		one.MoreSilent = len(one.Silent) == silentPage
		one.Fires = instant(number(found[3]))
		one.Heirs, one.Late = number(found[4]) == 1, number(found[5]) == 1
		lanes := list(found[2])
		if one.Lanes = headsOf(lanes); len(lanes) == 2*lanesPage {
			one.Next = lanesPage
		}
	}
	return nil
}

// Reap implements [dianemo.Store]. It reads which lanes the peer's jobs belong
// to, so that it can name their keys, and lets the script decide about each job.
func (s *Store) Reap(ctx context.Context, partition int, call dianemo.Call, peer string, chore dianemo.Chore) (dianemo.ReapReply, error) {
	var answer dianemo.ReapReply
	t := s.tag(partition)
	lanes, runs, held, err := s.heldBy(ctx, t, peer, min(chore.Limit, dianemo.MaxCallJobs))
	if err != nil || len(runs) == 0 && held > 0 { // all its runs are a newer program's
		return answer, err
	}
	keys := []string{t.call(dianemo.EdgeReap, call.Caller), t.key("meta"), t.run(peer), t.key("beats"), t.key("info"),
		t.key("lanes"), t.key("counts"), t.key("errors"), t.key("progress")}
	args := []any{call.Number, chore.Term, peer, chore.BeatEvery.Milliseconds(), chore.SilentAfter.Milliseconds(), len(lanes)}
	for _, l := range lanes {
		l.Again = true
		name := laneName(l)
		keys = append(keys, t.lane(name), t.done(dianemo.Unreachable, l.Kind), t.done(dianemo.Cancelled, l.Kind))
		args = append(args, laneBase(l), name, laneClass(l))
	}
	replies, err := s.eval(ctx, command{s.scripts.reap, append(keys, t.heirs()...), append(args, runs...)})
	if err != nil {
		return answer, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return answer, err
	}
	answer.Jobs = moved(reply[2:])
	answer.News = news(reply[1])
	// Where nothing could be moved, another try at once would not help.
	answer.More = len(answer.Jobs) > 0
	return answer, nil
}

// Held implements [dianemo.Store]. Runs whose record can't be read are left out.
func (s *Store) Held(ctx context.Context, partition int, peer string) ([]dianemo.HeldJob, error) {
	t := s.tag(partition)
	runs, err := s.rdb.ZRangeWithScores(ctx, t.run(peer), 0, -1).Result()
	if err != nil {
		return nil, s.broken(ctx, err, t.run(peer))
	}
	held := make([]dianemo.HeldJob, 0, len(runs))
	for batch := range slices.Chunk(runs, dianemo.MaxCallJobs) {
		ids := make([]string, len(batch))
		for i, z := range batch {
			ids[i], _ = z.Member.(string)
		}
		metas, err := s.rdb.HMGet(ctx, t.key("meta"), ids...).Result()
		if err != nil {
			return nil, s.broken(ctx, err, t.key("meta"))
		}
		for i, id := range ids {
			m, err := parseMeta(text(metas[i]))
			lane, ok := parseBase(m.lane)
			if err == nil && ok && m.peer == peer && m.state == string(dianemo.Running) {
				held = append(held, dianemo.HeldJob{RunRef: dianemo.RunRef{ID: id, Epoch: m.epoch}, Lane: lane, Again: m.reruns < m.maxReruns})
			}
		}
	}
	return held, nil
}

// heldBy reads the first runs of a peer, as arguments for reap, their lanes,
// and how many there were; those of a newer program are left out.
func (s *Store) heldBy(ctx context.Context, t tag, peer string, limit int) ([]dianemo.Lane, []any, int, error) {
	held, err := s.rdb.ZRangeWithScores(ctx, t.run(peer), 0, int64(limit)-1).Result()
	if err != nil {
		return nil, nil, 0, s.broken(ctx, err, t.run(peer))
	}
	if len(held) == 0 {
		return nil, nil, 0, nil
	}
	ids := make([]string, len(held))
	for i, z := range held {
		ids[i], _ = z.Member.(string)
	}
	metas, err := s.rdb.HMGet(ctx, t.key("meta"), ids...).Result()
	if err != nil {
		return nil, nil, 0, s.broken(ctx, err, t.key("meta"))
	}
	var lanes []dianemo.Lane
	places := map[dianemo.Lane]int{}
	runs := make([]any, 0, 3*len(ids))
	for i, id := range ids {
		lane, err := s.laneOf(ctx, t, id, metas[i])
		if err == dianemo.ErrNewer {
			continue
		}
		if err != nil {
			return nil, nil, 0, err
		}
		if _, ok := places[lane]; !ok {
			lanes = append(lanes, lane)
			places[lane] = len(lanes)
		}
		runs = append(runs, id, strconv.FormatFloat(held[i].Score, 'f', 0, 64), places[lane])
	}
	return lanes, runs, len(held), nil
}

// laneOf is the lane of a job that runs: its record names it, or, where that is
// corrupt, its spec. A job that has neither ends under a kind of its own.
func (s *Store) laneOf(ctx context.Context, t tag, id string, record any) (dianemo.Lane, error) {
	m, err := parseMeta(text(record))
	if err == dianemo.ErrNewer {
		return dianemo.Lane{}, err
	}
	if lane, ok := parseBase(m.lane); err == nil && ok {
		return lane, nil
	}
	stored, err := s.rdb.HGet(ctx, t.key("spec"), id).Result()
	if err != nil && err != redis.Nil {
		return dianemo.Lane{}, s.broken(ctx, err, t.key("spec"))
	}
	if b, _, err := splitSpec(stored); err == nil {
		if spec, err := dianemo.DecodeSpec(b); err == nil {
			return spec.Lane(), nil
		}
	}
	return dianemo.Lane{Kind: "unknown", Priority: 2}, nil
}

// Miss implements [dianemo.Store]. Each lane is a call of its own to the script,
// so their numbers are counted on from the chore's.
func (s *Store) Miss(ctx context.Context, partition int, call dianemo.Call, chore dianemo.Chore) (dianemo.MissReply, error) {
	var answer dianemo.MissReply
	t := s.tag(partition)
	now, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return answer, translate(err)
	}
	// On a cluster this is some node's clock; the script judges by its own.
	heads, err := s.rdb.ZRangeByScoreWithScores(ctx, t.key("lanes"), &redis.ZRangeBy{Min: "-inf", Max: fmt.Sprint(now.UnixMilli())}).Result()
	if err != nil {
		return answer, translate(err)
	}
	const lanes = 1 << 10 // in one chore
	next := call.Number * lanes
	for _, head := range heads {
		if len(answer.Jobs) >= chore.Limit || next == (call.Number+1)*lanes-1 {
			answer.More = true
			break
		}
		name, _ := head.Member.(string)
		lane, ok := parseLane(name)
		late := time.Duration(now.UnixMilli()-int64(head.Score)) * time.Millisecond
		if !ok || lane.Grace < 0 || late <= lane.Grace {
			continue
		}
		ended := laneExpired(lane)
		keys := []string{t.call(dianemo.EdgeMiss, call.Caller), t.key("meta"), t.key("info"), t.key("lanes"), t.key("counts"),
			t.lane(name), t.done(ended, lane.Kind)}
		keys = append(keys, t.heirs()...)
		replies, err := s.eval(ctx, command{s.scripts.miss, keys, []any{next, chore.Term, min(chore.Limit-len(answer.Jobs), dianemo.MaxCallJobs), name,
			laneBase(lane), laneClass(lane), graceMillis(lane.Grace), string(ended)}})
		if err != nil {
			return answer, err
		}
		if err := verdict(replies[0]); err != nil {
			return answer, err
		}
		answer.Jobs = append(answer.Jobs, moved(replies[0][2:])...)
		answer.More = answer.More || number(replies[0][1]) == 1
		next++
	}
	return answer, nil
}
