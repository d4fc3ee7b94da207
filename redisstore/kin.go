package redisstore

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Repair of what is kept of families beside their jobs: what can't be read is removed, so
// that it is in nobody's way, and what is left where no job is.

// A relic may belong to nothing any more: see kin.lua.
type relic struct {
	what, name, parent string
	id                 string // of the job that it is about
	why, did           string // did: "" for that it is removed
}

// remove has the script look at them, and removes what it may.
func (w *walk) remove(ctx context.Context, key string, most int, relics []relic) error {
	keys := make([]string, 0, 7)
	for _, name := range []string{"spec", "meta", "edges", "kids", "outbox", "gates", "needs"} {
		keys = append(keys, w.t.key(name))
	}
	for some := range slices.Chunk(relics, most) {
		var args []any
		for _, r := range some {
			args = append(args, r.what, r.name, r.parent)
		}
		reply, err := w.run(ctx, w.scripts.kin, keys, args...)
		if err != nil {
			return err
		}
		for i, r := range some {
			if i+1 < len(reply) && number(reply[i+1]) == 1 {
				w.found(dianemo.Repaired{ID: r.id, Key: w.t.key(key), What: r.why, Did: cmp.Or(r.did, "it is removed")})
			}
		}
	}
	return nil
}

// page reads a part of a sorted set.
func (w *walk) page(ctx context.Context, key, rest string) (members []string, next string, err error) {
	at, _ := strconv.ParseUint(rest, 10, 64) // a cursor that is none begins anew
	found, cursor, err := w.rdb.ZScan(ctx, w.t.key(key), at, "", int64(w.step.Limit)).Result()
	if err != nil {
		return nil, "", w.broken(ctx, err, w.t.key(key))
	}
	for i := 0; i+1 < len(found); i += 2 {
		members = append(members, found[i])
	}
	w.reply.Looked += len(members)
	if cursor != 0 {
		next = strconv.FormatUint(cursor, 10)
	}
	return members, next, nil
}

// parseEdge takes an edge apart: parent and child, or workflow and job with listed.
func parseEdge(edge string) (parent, child string, listed, ok bool) {
	i := strings.IndexAny(edge, "|#")
	if i < 0 {
		return "", "", false, false
	}
	parent, child, listed = edge[:i], edge[i+1:], edge[i] == '#'
	if !listed {
		child = strings.TrimPrefix(child, "|")
	}
	return parent, child, listed, dianemo.CheckName("parent", parent) == nil && dianemo.CheckName("child", child) == nil
}

// level gives all edges the score 0. They are found by their names, which works only while
// all have the same score: one that has another hides those of other families.
func (w *walk) level(ctx context.Context) error {
	key := w.t.key("edges")
	for _, bounds := range [][2]string{{"-inf", "(0"}, {"(0", "+inf"}} {
		for {
			off, err := w.rdb.ZRangeByScore(ctx, key, &redis.ZRangeBy{Min: bounds[0], Max: bounds[1], Count: dianemo.MaxCallJobs}).Result()
			if err != nil {
				return w.broken(ctx, err, key)
			}
			if len(off) == 0 {
				break
			}
			right := make([]redis.Z, len(off))
			for i, edge := range off {
				right[i].Member = edge
			}
			if err := w.rdb.ZAddXX(ctx, key, right...).Err(); err != nil {
				return w.broken(ctx, err, key)
			}
			w.found(dianemo.Repaired{Key: key, What: strconv.Itoa(len(off)) + " edges had scores, which hid others", Did: "they have none"})
		}
	}
	return nil
}

// edges walks through them.
func (w *walk) edges(ctx context.Context, rest string) (string, error) {
	if rest == "" {
		if err := w.level(ctx); err != nil {
			return "", err
		}
	}
	members, next, err := w.page(ctx, "edges", rest)
	if err != nil {
		return "", err
	}
	var relics []relic
	var parents, children, orphans []string
	for _, edge := range members {
		parent, child, _, ok := parseEdge(edge)
		if !ok {
			relics = append(relics, relic{what: "edge", name: edge, why: "an edge can't be read: " + strconv.Quote(edge[:min(len(edge), 200)])})
			continue
		}
		parents, children, orphans = append(parents, parent), append(children, child), append(orphans, edge)
	}
	if err := w.families(ctx, orphans, parents); err != nil {
		return "", err
	}
	standings, err := w.Standings(ctx, parents)
	if err != nil {
		return "", err
	}
	n := 0
	for i := range orphans {
		if standings[i].State == "" {
			parents[n], children[n], orphans[n] = parents[i], children[i], orphans[i]
			n++
		}
	}
	standings, err = w.Standings(ctx, children[:n])
	if err != nil {
		return "", err
	}
	barred, err := w.barred(ctx, children[:n])
	if err != nil {
		return "", err
	}
	for i, edge := range orphans[:n] {
		if state := standings[i].State; !barred[children[i]] && (state == "" || state.Finished() || strings.HasPrefix(edge, parents[i]+"#")) {
			relics = append(relics, relic{what: "edge", name: edge, parent: parents[i], id: parents[i], why: "it is gone, and " + children[i] + " does not wait for it"})
		}
	}
	return next, w.remove(ctx, "edges", dianemo.MaxCallJobs, relics)
}

// families notes again that the parents of these edges have children.
func (w *walk) families(ctx context.Context, edges, parents []string) error {
	if len(edges) == 0 {
		return nil
	}
	names := make([]string, len(edges))
	for i, parent := range parents {
		if names[i] = parent; edges[i][len(parent)] == '#' {
			names[i] += "#"
		}
	}
	noted, err := w.rdb.HMGet(ctx, w.t.key("kids"), names...).Result()
	if err != nil {
		return w.broken(ctx, err, w.t.key("kids"))
	}
	var relics []relic
	for i, edge := range edges {
		if noted[i] == nil && !slices.ContainsFunc(relics, func(r relic) bool { return r.parent == names[i] }) {
			relics = append(relics, relic{what: "family", name: edge, parent: names[i], id: parents[i], why: "it was not noted that it has children", did: "it is"})
		}
	}
	return w.remove(ctx, "kids", dianemo.MaxCallJobs, relics)
}

// barred says which of the jobs wait for a gate.
func (w *walk) barred(ctx context.Context, ids []string) (map[string]bool, error) {
	parts := map[int][]string{}
	for _, id := range ids {
		parts[w.Partition(id)] = append(parts[w.Partition(id)], id)
	}
	barred := map[string]bool{}
	for p, ids := range parts {
		key := w.tag(p).key("needs")
		for some := range slices.Chunk(ids, neededFields) {
			fields := make([]string, len(some))
			for i, id := range some {
				fields[i] = id + "|"
			}
			values, err := w.rdb.HMGet(ctx, key, fields...).Result()
			if err != nil {
				return nil, w.broken(ctx, err, key)
			}
			for i, id := range some {
				barred[id] = values[i] != nil
			}
		}
	}
	return barred, nil
}

// kids walks through the jobs that have children.
func (w *walk) kids(ctx context.Context, rest string) (string, error) {
	entries, next, err := w.scan(ctx, "kids", rest)
	if err != nil {
		return "", err
	}
	w.reply.Looked += len(entries) / 2
	var relics []relic
	for i := 0; i+1 < len(entries); i += 2 {
		id := strings.TrimSuffix(entries[i], "#")
		r := relic{what: "kids", name: entries[i], parent: id, id: id, why: "nobody is its child"}
		if id != entries[i] {
			r.why = "it has no jobs"
		}
		relics = append(relics, r)
		last := entries[i+1]
		count, child, ok := strings.Cut(last, "|")
		if _, good := digits(count, 1, 16); !ok || !good || child != "" && dianemo.CheckName("child", strings.TrimPrefix(child, "|")) != nil {
			r.what, r.name, r.parent, r.why = "last", entries[i], last, "whom of its children was told last can't be read"
			relics = append(relics, r)
		}
	}
	return next, w.remove(ctx, "kids", 50, relics)
}

// gates walks through the closed ones.
func (w *walk) gates(ctx context.Context, rest string) (string, error) {
	members, next, err := w.page(ctx, "gates", rest)
	if err != nil || len(members) == 0 {
		return next, err
	}
	fields := make([]string, len(members))
	for i, id := range members {
		fields[i] = id + "|"
	}
	values, err := w.rdb.HMGet(ctx, w.t.key("needs"), fields...).Result()
	if err != nil {
		return "", w.broken(ctx, err, w.t.key("needs"))
	}
	var relics []relic
	for i, id := range members {
		if values[i] == nil {
			relics = append(relics, relic{what: "gate", name: id, id: id, why: "it does not wait for a gate"})
		}
	}
	return next, w.remove(ctx, "gates", dianemo.MaxCallJobs, relics)
}

// needs walks through what jobs wait for, and removes that of jobs which are neither there
// nor about to come, and which their parents do not know either.
func (w *walk) needs(ctx context.Context, rest string) (string, error) {
	entries, next, err := w.scan(ctx, "needs", rest)
	if err != nil {
		return "", err
	}
	w.reply.Looked += len(entries) / 2
	var relics []relic
	var children, parents []string
	for i := 0; i+1 < len(entries); i += 2 {
		child, parent, ok := strings.Cut(entries[i], "|")
		switch {
		case ok && (parent == "" || parent == "|") && dianemo.CheckName("child", child) == nil:
		case !ok || dianemo.CheckName("child", child) != nil || dianemo.CheckName("parent", parent) != nil:
			relics = append(relics, relic{what: "need", name: entries[i], why: "what a job waits for can't be read: " + strconv.Quote(entries[i][:min(len(entries[i]), 200)])})
		default:
			children, parents = append(children, child), append(parents, parent)
		}
	}
	if err := w.remove(ctx, "needs", dianemo.MaxCallJobs, relics); err != nil {
		return "", err
	}
	standings, err := w.Standings(ctx, children)
	if err != nil {
		return "", err
	}
	var ties []dianemo.Tie
	for i, child := range children {
		if standings[i].State == "" {
			ties = append(ties, dianemo.Tie{Parent: parents[i], Child: child})
		}
	}
	return next, w.forget(ctx, ties)
}

// forget forgets what jobs waited for that do not exist.
func (w *walk) forget(ctx context.Context, ties []dianemo.Tie) error {
	flows := slices.Clone(ties) // a workflow stands otherwise in its jobs' edges
	for i := range flows {
		flows[i].Child = "|" + flows[i].Child
	}
	known, err := w.ends(ctx, "|", ties)
	if err != nil {
		return err
	}
	listed, err := w.ends(ctx, "|", flows)
	if err != nil {
		return err
	}
	children := make([]string, len(ties))
	for i, tie := range ties {
		children[i] = tie.Child
	}
	barred, err := w.barred(ctx, children)
	if err != nil {
		return err
	}
	there, err := w.Standings(ctx, children)
	if err != nil {
		return err
	}
	for i, tie := range ties {
		if known[i].knows || listed[i].knows || barred[tie.Child] || there[i].State != "" {
			continue
		}
		wait := dianemo.Wait{ID: tie.Child, Parents: []dianemo.Parent{{ID: tie.Parent, On: dianemo.OnEnd}}}
		if _, err := w.Need(ctx, w.partition, dianemo.DropIt, 0, []dianemo.Wait{wait}); err != nil {
			return err
		}
		w.found(dianemo.Repaired{ID: tie.Child, Key: w.t.key("needs"), What: "it is gone, and so is what it waited for", Did: "it is removed"})
	}
	return nil
}
