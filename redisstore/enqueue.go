package redisstore

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Enqueue implements [dianemo.Store]. More than 500 records or 1 MiB are more
// than one call takes.
func (s *Store) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	t := s.tag(partition)
	keys := []string{t.call(dianemo.EdgeEnqueue, call.Caller), t.key("spec"), t.key("meta"), t.key("lanes")}
	places := make(map[dianemo.Lane]int, 4)
	var lanes []dianemo.Lane // in order
	args := make([]any, 2, 2+8+2*len(records))
	for _, r := range records {
		if _, ok := places[r.Lane]; !ok {
			places[r.Lane] = len(places) + 1
			lanes = append(lanes, r.Lane)
			name := laneName(r.Lane)
			keys = append(keys, t.lane(name))
			args = append(args, name)
		}
	}
	args[0], args[1] = call.Number, len(places)
	// Jobs that differ in their ids and specs alone go together: the script pays
	// for each argument.
	type group struct {
		lane           int
		due, overrides string
	}
	var groups []group
	members := make(map[group][]int, 4)
	for i := range records {
		r := &records[i]
		g := group{places[r.Lane], "+" + strconv.FormatInt(millisUp(r.Delay), 10), overrides(r)}
		if !r.RunAt.IsZero() {
			g.due = "@" + strconv.FormatInt(unixMilliUp(r.RunAt), 10)
		}
		if members[g] == nil {
			groups = append(groups, g)
		}
		members[g] = append(members[g], i)
	}
	order := make([]int, 0, len(records)) // of the records as sent
	for _, g := range groups {
		args = append(args, g.lane, g.due, g.overrides, len(members[g]))
		for _, i := range members[g] {
			args = append(args, records[i].ID, records[i].Spec)
		}
		order = append(order, members[g]...)
	}
	replies, err := s.eval(ctx, command{s.scripts.enqueue, keys, args})
	if err != nil {
		return dianemo.EnqueueReply{}, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return dianemo.EnqueueReply{}, err
	}
	answer := dianemo.EnqueueReply{Existing: make([]dianemo.State, len(records)),
		News: news(reply[1], lanes)}
	for _, word := range strings.Fields(text(reply[2])) {
		place, state, _ := strings.Cut(word, ":")
		if i, err := strconv.Atoi(place); err == nil && 1 <= i && i <= len(records) {
			answer.Existing[order[i-1]] = dianemo.State(state)
		}
	}
	return answer, nil
}

// overrides is what a claim must know of the job before it reads its spec; most
// jobs have none and need no record beside it.
func overrides(r *dianemo.Record) string {
	if r.Weight == 0 && r.Reruns == 0 && len(r.Spec) <= largeSpec {
		return ""
	}
	weight, reruns, size := "", "", ""
	if r.Weight != 0 {
		weight = strconv.Itoa(r.Weight)
	}
	if r.Reruns != 0 {
		reruns = strconv.Itoa(max(r.Reruns, 0))
	}
	if len(r.Spec) > largeSpec {
		size = strconv.Itoa(len(r.Spec))
	}
	return weight + "|" + reruns + "|" + size
}

// millisUp rounds up: nothing is to start early.
func millisUp(d time.Duration) int64 {
	return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}

func unixMilliUp(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms
}
