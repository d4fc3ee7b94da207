package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Enqueue implements [dianemo.Store]. More than 500 records or 1 MiB are more
// than one call takes.
func (s *Store) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	t := s.tag(partition)
	firsts, err := s.firsts(ctx, t, records)
	if err != nil {
		return dianemo.EnqueueReply{}, err
	}
	keys := []string{t.call(dianemo.EdgeEnqueue, call.Caller), t.key("spec"), t.key("meta"), t.key("lanes"),
		t.key("unique"), t.key("counts"), t.key("blocked"), t.key("needs")}
	places := make(map[dianemo.Lane]int, 4)
	args := make([]any, 2, 2+8+2*len(records))
	place := func(l dianemo.Lane) {
		if _, ok := places[l]; !ok {
			places[l] = len(places) + 1
			name := laneName(l)
			keys = append(keys, t.lane(name))
			args = append(args, name)
		}
	}
	for _, r := range records {
		place(r.Lane)
	}
	for _, f := range firsts {
		place(f.lane)
	}
	args[0], args[1] = call.Number, len(places)
	// replace says which keys a record needs to replace the first one.
	sets := map[string]int{} // of cancelled jobs, by kind
	replace := func(r *dianemo.Record) string {
		if !r.Unique.Replace && !dianemo.IsWorkflow(r.Lane.Kind) {
			return ""
		}
		if _, ok := sets[r.Lane.Kind]; !ok {
			sets[r.Lane.Kind] = len(sets) + 1
			keys = append(keys, t.done(dianemo.Cancelled, r.Lane.Kind))
		}
		words := strconv.Itoa(sets[r.Lane.Kind])
		if f, ok := firsts[slotName(r.Lane.Kind, r.Unique.Key)]; ok {
			words += "," + strconv.Itoa(places[f.lane]) + "," + f.id
		}
		return words
	}
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
		g := group{places[r.Lane], "+" + strconv.FormatInt(millisUp(r.Delay), 10), overrides(r, replace)}
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
	replies, err := s.eval(ctx, command{s.scripts.enqueue, append(keys, t.heirs()...), args})
	if err != nil {
		return dianemo.EnqueueReply{}, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return dianemo.EnqueueReply{}, err
	}
	answer := dianemo.EnqueueReply{Existing: make([]dianemo.State, len(records)),
		News: news(reply[1])}
	for _, word := range strings.Fields(text(reply[2])) {
		f := strings.Split(word, ":")
		i, err := strconv.Atoi(f[0])
		if err != nil || len(f) != 3 || i < 1 || i > len(records) {
			return answer, fmt.Errorf("redisstore: enqueue answered %.80q", word)
		}
		i = order[i-1]
		if f[1] == "moved" {
			answer.Moved = append(answer.Moved, i)
			continue
		}
		answer.Existing[i] = dianemo.State(f[1])
		if f[2] != "" {
			if answer.Holders == nil {
				answer.Holders = map[int]string{}
			}
			answer.Holders[i] = f[2]
		}
	}
	slices.Sort(answer.Moved)
	return answer, nil
}

// A waiter is a job and where it was found to wait.
type waiter struct {
	id   string
	lane dianemo.Lane
}

// firsts reads who seems to hold the slots of the records that are to replace
// those, so that their keys can be named. The script judges.
func (s *Store) firsts(ctx context.Context, t tag, records []dianemo.Record) (map[string]waiter, error) {
	var slots []string
	for i := range records {
		if u := &records[i].Unique; u.Replace {
			if slot := slotName(records[i].Lane.Kind, u.Key); !slices.Contains(slots, slot) {
				slots = append(slots, slot)
			}
		}
	}
	if len(slots) == 0 {
		return nil, nil
	}
	values, err := s.rdb.HMGet(ctx, t.key("unique"), slots...).Result()
	if err != nil {
		return nil, s.broken(ctx, err, t.key("unique"))
	}
	var ids, held []string
	for i, value := range values {
		if id, _, ok := strings.Cut(text(value), "|"); ok {
			ids, held = append(ids, id), append(held, slots[i])
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	metas, err := s.rdb.HMGet(ctx, t.key("meta"), ids...).Result()
	if err != nil {
		return nil, s.broken(ctx, err, t.key("meta"))
	}
	firsts := map[string]waiter{}
	for i, id := range ids {
		m, err := parseMeta(text(metas[i]))
		if lane, ok := m.base(); err == nil && ok {
			firsts[held[i]] = waiter{id, lane}
		}
	}
	return firsts, nil
}

// overrides is what a claim must know of the job before it reads its spec; most
// jobs have none and need no record beside it.
func overrides(r *dianemo.Record, replace func(*dianemo.Record) string) string {
	if r.Weight == 0 && r.Reruns == 0 && len(r.Spec) <= largeSpec && r.Unique.Key == "" && !r.Blocked {
		return ""
	}
	unique := ""
	if r.Unique.Key != "" {
		unique = uniqueField(r.Lane.Kind, r.Unique)
	}
	blocked := ""
	if r.Blocked {
		blocked = strconv.FormatInt(-r.Ahead.Milliseconds(), 10)
		if !r.RunAt.IsZero() {
			blocked = strconv.FormatInt(unixMilliUp(r.RunAt), 10)
		}
		if r.Teller != 0 {
			blocked += "," + strconv.FormatUint(r.Teller, 10)
		}
	}
	return ownSettings(r) + "|" + unique + "|" + replace(r) + "|" + blocked
}

// ownSettings is what a claim must know of a job before it reads its spec.
func ownSettings(r *dianemo.Record) string {
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
	return graceMillis(max(d, 0))
}

func unixMilliUp(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms
}
