package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Reap implements [dianemo.Store]. It asks the script who is silent, reads
// which lanes that peer's jobs belong to, so that it can name their keys, and
// lets the script decide about each job.
func (s *Store) Reap(ctx context.Context, partition int, call dianemo.Call, chore dianemo.Chore) (dianemo.ReapReply, error) {
	var answer dianemo.ReapReply
	t := s.tag(partition)
	reap := func(peer string, lanes []dianemo.Lane, runs []any) ([]any, error) {
		keys := []string{t.call(dianemo.EdgeReap, call.Caller), t.key("meta"), t.run(peer), t.key("beats"), t.key("info"),
			t.key("lanes"), t.key("counts"), t.key("errors"), t.key("progress")}
		args := []any{call.Number, chore.Term, peer, chore.BeatEvery.Milliseconds(), chore.SilentAfter.Milliseconds(), len(lanes)}
		for _, l := range lanes {
			l.Again = true
			name := laneName(l)
			keys = append(keys, t.lane(name), t.done(dianemo.Unreachable, l.Kind), t.done(dianemo.Cancelled, l.Kind))
			args = append(args, laneBase(l), name, laneClass(l))
		}
		replies, err := s.eval(ctx, command{s.scripts.reap, keys, append(args, runs...)})
		if err != nil {
			return nil, err
		}
		return replies[0], verdict(replies[0])
	}
	reply, err := reap("", nil, nil)
	if err != nil || len(reply) == 1 {
		return answer, err
	}
	for _, peer := range reply[1:] {
		lanes, runs, held, err := s.heldBy(ctx, t, text(peer), min(chore.Limit, dianemo.MaxCallJobs))
		if err != nil {
			return answer, err
		}
		if len(runs) == 0 && held > 0 {
			continue // all its runs are a newer program's
		}
		if reply, err = reap(text(peer), lanes, runs); err != nil {
			return answer, err
		}
		answer.Peer, answer.Wake, answer.Jobs = text(peer), number(reply[1]) == 1, moved(reply[2:])
		// Where nothing could be moved, another try at once would not help.
		answer.More = len(answer.Jobs) > 0 || held == 0
		if answer.More {
			break
		}
	}
	return answer, nil
}

// heldBy reads the first runs of a peer, as arguments for reap, their lanes,
// and how many there were; those of a newer program are left out.
func (s *Store) heldBy(ctx context.Context, t tag, peer string, limit int) ([]dianemo.Lane, []any, int, error) {
	held, err := s.rdb.ZRangeWithScores(ctx, t.run(peer), 0, int64(limit)-1).Result()
	if err != nil || len(held) == 0 {
		return nil, nil, 0, translateIf(err)
	}
	ids := make([]string, len(held))
	for i, z := range held {
		ids[i], _ = z.Member.(string)
	}
	metas, err := s.rdb.HMGet(ctx, t.key("meta"), ids...).Result()
	if err != nil {
		return nil, nil, 0, translate(err)
	}
	var lanes []dianemo.Lane
	places := map[dianemo.Lane]int{}
	runs := make([]any, 0, 3*len(ids))
	for i, id := range ids {
		lane, err := s.laneOf(ctx, t, id, metas[i])
		if err == errNewer {
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
	if err == errNewer {
		return dianemo.Lane{}, err
	}
	if lane, ok := parseBase(m.lane); err == nil && ok {
		return lane, nil
	}
	stored, err := s.rdb.HGet(ctx, t.key("spec"), id).Result()
	if err != nil && err != redis.Nil {
		return dianemo.Lane{}, translate(err)
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

func translateIf(err error) error {
	if err == nil {
		return nil
	}
	return translate(err)
}
