package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Cancel implements [dianemo.Store].
func (s *Store) Cancel(ctx context.Context, partition int, call dianemo.Call, ids []string) (dianemo.WishReply, error) {
	t := s.tag(partition)
	found, err := s.find(ctx, t, ids)
	if err != nil {
		return dianemo.WishReply{}, err
	}
	keys := []string{t.call(dianemo.EdgeCancel, call.Caller), t.key("spec"), t.key("meta"), t.key("lanes"), t.key("counts"), t.key("blocked")}
	var lanes, jobs []any
	places := map[dianemo.Lane]int{}
	for i, id := range ids {
		lane := found[i].lane
		if found[i].lost {
			jobs = append(jobs, id, 0)
			continue
		}
		if _, ok := places[lane]; !ok {
			places[lane] = len(places) + 1
			keys = append(keys, t.lane(laneName(lane)), t.done(dianemo.Cancelled, lane.Kind))
			lanes = append(lanes, laneName(lane), laneBase(lane))
		}
		jobs = append(jobs, id, places[lane])
	}
	args := append([]any{call.Number, len(places)}, append(lanes, jobs...)...)
	return s.wish(ctx, dianemo.EdgeCancel, command{s.scripts.cancel, append(keys, t.heirs()...), args}, ids, found)
}

// Requeue implements [dianemo.Store].
func (s *Store) Requeue(ctx context.Context, partition int, call dianemo.Call, ids []string, heed bool) (dianemo.WishReply, error) {
	t := s.tag(partition)
	found, err := s.find(ctx, t, ids)
	if err != nil {
		return dianemo.WishReply{}, err
	}
	keys := []string{t.call(dianemo.EdgeRequeue, call.Caller), t.key("spec"), t.key("meta"), t.key("lanes"), t.key("counts"),
		t.key("result"), t.key("unique"), t.key("errors"), t.key("needs"), t.key("blocked"), t.key("gates")}
	type target struct {
		lane  dianemo.Lane
		state dianemo.State
	}
	var targets, jobs []any
	places := map[target]int{}
	for i, id := range ids {
		where := target{found[i].lane, found[i].state}
		if found[i].lost || !where.state.Finished() {
			jobs = append(jobs, id, 0)
			continue
		}
		if _, ok := places[where]; !ok {
			places[where] = len(places) + 1
			keys = append(keys, t.lane(laneName(where.lane)), t.done(where.state, where.lane.Kind))
			targets = append(targets, laneName(where.lane), string(where.state))
		}
		jobs = append(jobs, id, places[where])
	}
	heeds := ""
	if heed {
		heeds = strconv.FormatInt(gateFor.Milliseconds(), 10)
	}
	args := append([]any{call.Number, heeds, len(places)}, append(targets, jobs...)...)
	return s.wish(ctx, dianemo.EdgeRequeue, command{s.scripts.requeue, append(keys, t.heirs()...), args}, ids, found)
}

// Reschedule implements [dianemo.Store].
func (s *Store) Reschedule(ctx context.Context, partition int, call dianemo.Call, ids []string, change dianemo.Change) (dianemo.WishReply, error) {
	t := s.tag(partition)
	found, err := s.find(ctx, t, ids)
	if err != nil {
		return dianemo.WishReply{}, err
	}
	due := ""
	switch {
	case !change.RunAt.IsZero():
		due = "@" + strconv.FormatInt(unixMilliUp(change.RunAt), 10)
	case change.Delay > 0:
		due = "+" + strconv.FormatInt(millisUp(change.Delay), 10)
	}
	keys := []string{t.call(dianemo.EdgeReschedule, call.Caller), t.key("spec"), t.key("meta"), t.key("lanes")}
	var moves, jobs []any
	places := map[dianemo.Lane]int{}
	for i, id := range ids {
		from := found[i].lane
		if found[i].lost || found[i].state != dianemo.Scheduled {
			jobs = append(jobs, id, 0)
			continue
		}
		if _, ok := places[from]; !ok {
			places[from] = len(places) + 1
			to := from
			if change.Priority != 0 {
				to.Priority = change.Priority
			}
			keys = append(keys, t.lane(laneName(from)), t.lane(laneName(to)))
			moves = append(moves, laneName(from), laneBase(from), laneName(to), laneBase(to))
		}
		jobs = append(jobs, id, places[from])
	}
	args := append([]any{call.Number, due, len(places)}, append(moves, jobs...)...)
	return s.wish(ctx, dianemo.EdgeReschedule, command{s.scripts.reschedule, keys, args}, ids, found)
}

// wish sends one of these scripts and reads its answers.
func (s *Store) wish(ctx context.Context, edge dianemo.Edge, c command, ids []string, found []whereabouts) (dianemo.WishReply, error) {
	var answer dianemo.WishReply
	replies, err := s.eval(ctx, c)
	if err != nil {
		return answer, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return answer, err
	}
	rest := reply[1:]
	if edge != dianemo.EdgeCancel {
		answer.News, rest = news(reply[1]), reply[2:]
	}
	if len(rest) != 4*len(ids) {
		return answer, fmt.Errorf("redisstore: %s answered %d values for %d jobs", edge, len(rest), len(ids))
	}
	answer.Jobs = make([]dianemo.Wished, len(ids))
	for i, id := range ids {
		word, other := text(rest[4*i]), text(rest[4*i+3])
		lane, ok := parseBase(text(rest[4*i+2]))
		if !ok {
			lane = found[i].lane
		}
		job := &answer.Jobs[i]
		*job = dianemo.Wished{Moved: dianemo.Moved{ID: id, State: dianemo.State(text(rest[4*i+1])), Kind: lane.Kind, Priority: lane.Priority}}
		switch word {
		case "done":
			job.Peer = other
		case "refused":
			job.Err = &dianemo.StateError{ID: id, State: job.State, Edge: edge}
		case "workflow":
			job.Err = &dianemo.FieldError{Field: "id", Value: id, Allowed: "that of a job; ResumeWorkflow runs a workflow again"}
		case "taken":
			job.Err = &dianemo.ExistsError{ID: other, State: job.State, Key: found[i].key}
			job.State = found[i].state
		case "none":
			job.Err = fmt.Errorf("%w: %q", dianemo.ErrNotFound, id)
		case "moved":
			job.Err = dianemo.ErrMoved
		case "newer":
			job.Err = fmt.Errorf("job %s: %w", id, dianemo.ErrNewer)
		case "corrupt":
			job.Err = fmt.Errorf("redisstore: the record of job %s is corrupt", id)
		default:
			return answer, fmt.Errorf("redisstore: %s answered %.40q", edge, word)
		}
	}
	return answer, nil
}

// whereabouts are what a script has to be told of a job before it can judge.
type whereabouts struct {
	state dianemo.State
	lane  dianemo.Lane // in which it waits, or would
	key   string       // of its unique slot
	lost  bool         // nothing was found that says so
}

// find reads where jobs are.
func (s *Store) find(ctx context.Context, t tag, ids []string) ([]whereabouts, error) {
	if len(ids) == 0 || len(ids) > dianemo.MaxCallJobs {
		return nil, fmt.Errorf("redisstore: %d jobs in one call", len(ids))
	}
	metas, err := s.rdb.HMGet(ctx, t.key("meta"), ids...).Result()
	if err != nil {
		return nil, s.broken(ctx, err, t.key("meta"))
	}
	found := make([]whereabouts, len(ids))
	var bare []int // without a record: their specs say it
	for i := range ids {
		if metas[i] == nil {
			bare = append(bare, i)
			continue
		}
		m, err := parseMeta(text(metas[i]))
		lane, ok := m.base()
		found[i] = whereabouts{dianemo.State(m.state), lane, uniqueKey(m.unique), err != nil || !ok}
	}
	// A few at a time, since specs may be large.
	for some := range slices.Chunk(bare, 32) {
		names := make([]string, len(some))
		for j, i := range some {
			names[j] = ids[i]
		}
		specs, err := s.rdb.HMGet(ctx, t.key("spec"), names...).Result()
		if err != nil {
			return nil, s.broken(ctx, err, t.key("spec"))
		}
		for j, i := range some {
			found[i].lost = true
			b, _, err := splitSpec(text(specs[j]))
			if err != nil {
				continue
			}
			if spec, err := dianemo.DecodeSpec(b); err == nil {
				found[i] = whereabouts{state: dianemo.Scheduled, lane: spec.Lane()}
			}
		}
	}
	return found, nil
}

// Pause implements [dianemo.Store].
func (s *Store) Pause(ctx context.Context, partition int, kind string, on bool) error {
	replies, err := s.eval(ctx, command{s.scripts.pause, []string{s.tag(partition).key("info")}, []any{kind, onOff(on)}})
	if err != nil {
		return err
	}
	return verdict(replies[0])
}

// Paused implements [dianemo.Store].
func (s *Store) Paused(ctx context.Context) ([]string, error) {
	var kinds []string
	for p := range s.Partitions() {
		paused, err := s.rdb.HGet(ctx, s.tag(p).key("info"), "paused").Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, translate(err)
		}
		kinds = append(kinds, strings.Fields(paused)...)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds), nil
}

// Drain implements [dianemo.Store].
func (s *Store) Drain(ctx context.Context, peer string, on bool) error {
	space := s.space()
	replies, err := s.eval(ctx, command{s.scripts.drain, []string{space.key("peers"), space.key("drained")}, []any{peer, onOff(on)}})
	if err != nil {
		return err
	}
	if text(replies[0][0]) == "none" {
		return fmt.Errorf("%w: %q", dianemo.ErrNoPeer, peer)
	}
	return verdict(replies[0])
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
