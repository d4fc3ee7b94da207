package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// gateFor is how long a job may wait for its gate. Whoever enqueues it opens that
// within milliseconds, unless it dies.
const gateFor = 10 * time.Minute

// hows are the letters by which the scripts know a condition.
var hows = map[dianemo.Condition]string{dianemo.OnSuccess: "s", dianemo.OnFailure: "f", dianemo.OnEnd: "a", dianemo.OnChosen: "c", dianemo.OfWorkflow: "m"}

// how is a parent as needs has it.
func how(p dianemo.Parent) string {
	if p.Near > 0 {
		return hows[p.On] + strconv.FormatInt(millisUp(p.Near), 10)
	}
	return hows[p.On]
}

// Need implements [dianemo.Store].
func (s *Store) Need(ctx context.Context, partition int, telling dianemo.Telling, by uint64, waits []dianemo.Wait) ([]bool, error) {
	t := s.tag(partition)
	args := []any{string(telling), gateFor.Milliseconds(), by}
	for _, w := range waits {
		args = append(args, w.ID, len(w.Parents))
		for _, p := range w.Parents {
			args = append(args, p.ID, how(p))
		}
		args = append(args, string(w.Gate))
	}
	replies, err := s.eval(ctx, command{s.scripts.needs, []string{t.key("needs"), t.key("gates"), t.key("spec"), t.key("meta")}, args})
	if err != nil {
		return nil, err
	}
	reply := replies[0]
	if len(reply) != 1+len(waits) {
		return nil, fmt.Errorf("redisstore: needs answered %d values for %d jobs", len(reply), len(waits))
	}
	refused := make([]bool, len(waits))
	for i := range refused {
		refused[i] = number(reply[1+i]) == 1
	}
	return refused, verdict(reply)
}

// Link implements [dianemo.Store].
func (s *Store) Link(ctx context.Context, partition int, how dianemo.Linking, ties []dianemo.Tie) ([]dianemo.Linked, error) {
	t := s.tag(partition)
	args := []any{string(how)}
	for _, tie := range ties {
		args = append(args, tie.Parent, tie.Child)
	}
	replies, err := s.eval(ctx, command{s.scripts.link,
		[]string{t.key("spec"), t.key("meta"), t.key("edges"), t.key("kids"), t.key("outbox")}, args})
	if err != nil {
		return nil, err
	}
	reply := replies[0]
	if len(reply) != 1+2*len(ties) {
		return nil, fmt.Errorf("redisstore: link answered %d values for %d edges", len(reply), len(ties))
	}
	parents := make([]dianemo.Linked, len(ties))
	for i := range parents {
		if state := text(reply[1+2*i]); state != "gone" {
			parents[i] = dianemo.Linked{State: dianemo.State(state), Peer: text(reply[2+2*i])}
		}
	}
	return parents, verdict(reply)
}

// Children implements [dianemo.Store].
func (s *Store) Children(ctx context.Context, parent, after string, limit int) ([]string, error) {
	return s.edgesOf(ctx, parent, "|", "}", after, limit)
}

// IsChild implements [dianemo.Store].
func (s *Store) IsChild(ctx context.Context, parent, child string) (bool, error) {
	t := s.tag(s.Partition(parent))
	err := s.rdb.ZScore(ctx, t.key("edges"), parent+"|"+child).Err()
	if err != nil && err != redis.Nil {
		return false, s.broken(ctx, err, t.key("edges"))
	}
	return err == nil, nil
}

// Members implements [dianemo.Store].
func (s *Store) Members(ctx context.Context, workflow, after string, limit int) ([]string, error) {
	return s.edgesOf(ctx, workflow, "#", "$", after, limit)
}

// edgesOf lists what stands behind an id and a mark. stop is the character after the mark.
func (s *Store) edgesOf(ctx context.Context, id, mark, stop, after string, limit int) ([]string, error) {
	t := s.tag(s.Partition(id))
	from := "[" + id + mark
	if after != "" {
		from = "(" + id + mark + after
	}
	found, err := s.rdb.ZRangeByLex(ctx, t.key("edges"), &redis.ZRangeBy{Min: from, Max: "(" + id + stop, Count: int64(limit)}).Result()
	if err != nil {
		return nil, s.broken(ctx, err, t.key("edges"))
	}
	for i, edge := range found {
		found[i] = edge[len(id)+1:]
	}
	return found, nil
}

// Heirs implements [dianemo.Store].
func (s *Store) Heirs(ctx context.Context, partition, parents, children int) ([]dianemo.Heirs, int64, error) {
	t := s.tag(partition)
	replies, err := s.eval(ctx, command{s.scripts.heirs,
		[]string{t.key("outbox"), t.key("kids"), t.key("edges"), t.key("meta"), t.key("result"), t.key("needs")}, []any{parents, children}})
	if err != nil {
		return nil, 0, err
	}
	if err := verdict(replies[0]); err != nil {
		return nil, 0, err
	}
	var all []dianemo.Heirs
	for _, v := range replies[0][2:] {
		words := list(v)
		if len(words) < 9 {
			return nil, 0, fmt.Errorf("redisstore: heirs answered %d words for a job", len(words))
		}
		h := dianemo.Heirs{Since: number(words[1]), Number: number(words[2]), State: dianemo.State(text(words[3])), After: text(words[4]),
			All: number(words[5]) == 1, Peer: text(words[6]), Reason: text(words[7])}
		h.Parent, h.Listed = strings.CutSuffix(text(words[0]), "#")
		if h.Listed {
			h.Peer, h.Teller = "", uint64(number(words[6]))
		}
		var chosen string
		chosen, h.Decides = strings.CutPrefix(text(words[8]), "!")
		h.Chosen = strings.Fields(chosen)
		for _, child := range words[9:] {
			h.Children = append(h.Children, text(child))
		}
		all = append(all, h)
	}
	return all, number(replies[0][1]), nil
}

// Passed implements [dianemo.Store].
func (s *Store) Passed(ctx context.Context, partition int, heirs []dianemo.Heirs) (bool, error) {
	t := s.tag(partition)
	var args []any
	for _, h := range heirs {
		last, all := h.After, 0
		if n := len(h.Children); n > 0 {
			last = h.Children[n-1]
		}
		if h.All {
			all = 1
		}
		entry := h.Parent
		if h.Listed {
			entry += "#"
		}
		args = append(args, entry, h.Number, h.After, last, all)
	}
	replies, err := s.eval(ctx, command{s.scripts.passed, t.heirs(), args})
	if err != nil {
		return false, err
	}
	return number(replies[0][1]) == 1, verdict(replies[0])
}

// Release implements [dianemo.Store]. It reads where the children would wait, and
// lets the script decide.
func (s *Store) Release(ctx context.Context, partition int, call dianemo.Call, releases []dianemo.Release) (dianemo.ReleaseReply, error) {
	var answer dianemo.ReleaseReply
	t := s.tag(partition)
	var ids []string
	places := map[string]int{}
	for _, r := range releases {
		if _, ok := places[r.Child]; !ok {
			places[r.Child] = len(ids)
			ids = append(ids, r.Child)
		}
	}
	found, err := s.find(ctx, t, ids)
	if err != nil {
		return answer, err
	}
	keys := []string{t.call(dianemo.EdgeRelease, call.Caller), t.key("meta"), t.key("needs"), t.key("blocked"), t.key("gates"), t.key("lanes"), t.key("counts")}
	var lanes, edges []any
	laneOf := map[dianemo.Lane]int{}
	for _, r := range releases {
		where, place := found[places[r.Child]], 0
		if lane := where.lane; !where.lost {
			if laneOf[lane] == 0 {
				laneOf[lane] = len(laneOf) + 1
				first, second := t.lane(laneName(lane)), t.done(dianemo.Skipped, lane.Kind)
				if dianemo.IsWorkflow(lane.Kind) {
					first, second = t.done(dianemo.Succeeded, lane.Kind), t.done(dianemo.Failed, lane.Kind)
				}
				keys = append(keys, first, second, t.done(dianemo.Cancelled, lane.Kind))
				lanes = append(lanes, laneName(lane), laneBase(lane))
			}
			place = laneOf[lane]
		}
		by := r.Peer
		if r.Teller != 0 {
			by = strconv.FormatUint(r.Teller, 10)
		}
		edges = append(edges, r.Child, place, r.Parent, string(r.State), r.Number, by)
	}
	keys = append(keys, t.key("unique"), t.key("spec"))
	args := append([]any{call.Number, len(laneOf)}, append(lanes, edges...)...)
	replies, err := s.eval(ctx, command{s.scripts.release, append(keys, t.heirs()...), args})
	if err != nil {
		return answer, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return answer, err
	}
	if len(reply) != 3+3*len(releases) {
		return answer, fmt.Errorf("redisstore: release answered %d values for %d edges", len(reply), len(releases))
	}
	answer.News, answer.Heirs = news(reply[1]), number(reply[2]) > 0
	answer.Jobs = make([]dianemo.Released, len(releases))
	for i, r := range releases {
		word, own, revived := strings.Cut(text(reply[3+3*i]), "<")
		lane, _ := parseBase(text(reply[4+3*i]))
		lane.Again = found[places[r.Child]].lane.Again
		job := &answer.Jobs[i]
		*job = dianemo.Released{Moved: dianemo.Moved{ID: r.Child, State: dianemo.State(word), Kind: lane.Kind, Priority: lane.Priority}, Lane: lane, Revived: revived, Number: number(own)}
		if until, peer, ok := strings.Cut(text(reply[5+3*i]), ":"); ok {
			job.Near, job.Until = peer, time.UnixMilli(number(until))
		}
		switch word {
		case "none":
			job.State = ""
		case "corrupt":
			job.State, job.Corrupt = "", true
		case "moved":
			job.State = ""
			answer.Moved = append(answer.Moved, i)
		}
	}
	return answer, nil
}

// Expunge implements [dianemo.Store].
func (s *Store) Expunge(ctx context.Context, partition int, not uint64, ids []string) error {
	t := s.tag(partition)
	found, err := s.find(ctx, t, ids)
	if err != nil {
		return err
	}
	keys := []string{t.key("spec"), t.key("meta"), t.key("result"), t.key("errors"), t.key("unique"), t.key("counts"), t.key("needs"), t.key("blocked")}
	args := []any{not}
	kinds := map[string]int{}
	for i, id := range ids {
		kind := found[i].lane.Kind
		if found[i].lost || found[i].state != dianemo.Cancelled && found[i].state != dianemo.Blocked {
			continue
		}
		if kinds[kind] == 0 {
			kinds[kind] = len(kinds) + 1
			keys = append(keys, t.done(dianemo.Cancelled, kind))
		}
		args = append(args, id, kinds[kind])
	}
	if len(args) == 1 {
		return nil
	}
	replies, err := s.eval(ctx, command{s.scripts.expunge, append(keys, t.heirs()...), args})
	if err != nil {
		return err
	}
	return verdict(replies[0])
}

// Overdue implements [dianemo.Store].
func (s *Store) Overdue(ctx context.Context, partition int, call dianemo.Call, chore dianemo.Chore) (dianemo.MissReply, error) {
	var answer dianemo.MissReply
	t := s.tag(partition)
	now, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return answer, translate(err)
	}
	ids, err := s.rdb.ZRangeByScore(ctx, t.key("blocked"), &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: int64(min(chore.Limit, dianemo.MaxCallJobs))}).Result()
	if err != nil {
		return answer, s.broken(ctx, err, t.key("blocked"))
	}
	if len(ids) == 0 {
		return answer, nil
	}
	found, err := s.find(ctx, t, ids)
	if err != nil {
		return answer, err
	}
	keys := []string{t.call("overdue", call.Caller), t.key("meta"), t.key("info"), t.key("blocked"), t.key("counts")}
	args := []any{call.Number, chore.Term}
	kinds := map[string]int{}
	for i, id := range ids {
		place := 0
		if kind := found[i].lane.Kind; !found[i].lost {
			if kinds[kind] == 0 {
				kinds[kind] = len(kinds) + 1
				keys = append(keys, t.done(dianemo.Missed, kind))
			}
			place = kinds[kind]
		}
		args = append(args, id, place)
	}
	replies, err := s.eval(ctx, command{s.scripts.overdue, append(keys, t.heirs()...), args})
	if err != nil {
		return answer, err
	}
	if err := verdict(replies[0]); err != nil {
		return answer, err
	}
	answer.Jobs = moved(replies[0][1:])
	answer.More = len(answer.Jobs) > 0
	return answer, nil
}

// Gates implements [dianemo.Store].
func (s *Store) Gates(ctx context.Context, partition, limit int) ([]string, error) {
	t := s.tag(partition)
	now, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return nil, translate(err)
	}
	ids, err := s.rdb.ZRangeByScore(ctx, t.key("gates"), &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: int64(limit)}).Result()
	if err != nil {
		return nil, s.broken(ctx, err, t.key("gates"))
	}
	return ids, nil
}
