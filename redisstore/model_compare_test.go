package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// A modelDump is all that a namespace holds: key → field or member → value or score.
type modelDump map[string]map[string]string

func (d modelDump) put(key, field string, value any) {
	if d[key] == nil {
		d[key] = map[string]string{}
	}
	d[key][field] = fmt.Sprint(value)
}

// differences lists what the one has otherwise than the other.
func (d modelDump) differences(is modelDump) (found []string) {
	keys := slices.Sorted(maps.Keys(d))
	for key := range is {
		if _, ok := d[key]; !ok {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		fields := slices.Sorted(maps.Keys(d[key]))
		for field := range is[key] {
			if _, ok := d[key][field]; !ok {
				fields = append(fields, field)
			}
		}
		for _, field := range fields {
			want, in := d[key][field]
			got, out := is[key][field]
			if want != got || in != out {
				found = append(found, fmt.Sprintf("%s %s: is %.300q, should be %.300q", key, field, got, want))
			}
		}
	}
	return found
}

// dump is what the store should hold.
func (w *modelWorld) dump(namespace string) modelDump {
	d := modelDump{}
	for _, p := range w.parts {
		tag := fmt.Sprintf("{%s:%d}:", namespace, p.number)
		counts := map[string]int{}
		for id, j := range p.jobs {
			d.put(tag+"spec", id, string(j.spec)+fmt.Sprintf("%013d", j.enqueued))
			if !j.bare {
				d.put(tag+"meta", id, modelRecord(j))
			}
			if j.result != "" {
				d.put(tag+"result", id, j.result)
			}
			if j.progress != "" {
				d.put(tag+"progress", id, j.progress)
			}
			for place, entry := range j.history {
				d.put(tag+"errors", fmt.Sprintf("%d|%s", place, id), entry)
			}
			switch j.state {
			case dianemo.Scheduled:
				d.put(tag+"lane:"+modelLane(j.waits()), id, j.due)
				continue
			case dianemo.Running:
				d.put(tag+"run:"+j.peer, id, j.epoch)
			case dianemo.Blocked:
				d.put(tag+"blocked", id, j.startBy())
			default:
				d.put(tag+"done:"+string(j.state)+":"+j.lane.Kind, id, j.ended)
			}
			counts[fmt.Sprintf("%s:%s:%d", j.state, j.lane.Kind, j.lane.Priority)]++
		}
		for class, n := range counts {
			d.put(tag+"counts", class, n)
		}
		for l, due := range p.heads() {
			d.put(tag+"lanes", modelLane(l), due)
		}
		for peer, until := range p.beats {
			d.put(tag+"beats", peer, until)
		}
		for slot, s := range p.slots {
			until := "f"
			if s.until == dianemo.UntilStarted {
				until = "s"
			}
			d.put(tag+"unique", slot, fmt.Sprintf("%s|%s|%d|%d", s.id, until, s.expires, s.runs))
		}
		p.dumpFamilies(d, tag)
		p.dumpInfo(d, tag)
	}
	return d
}

func (p *modelPart) dumpFamilies(d modelDump, tag string) {
	for id, n := range p.needs {
		if n.gate {
			d.put(tag+"needs", id+"|", "g")
		}
		for parent, tie := range n.ties {
			at := ""
			if tie.number != "" {
				at = "@" + tie.number
			}
			d.put(tag+"needs", id+"|"+parent, tie.mark+tie.letter+tie.near+at+"#"+tie.by)
		}
		if n.told != nil {
			pending, violated, left, out := n.sums()
			fit := 0
			if n.told.fit {
				fit = 1
			}
			sums := fmt.Sprintf("%d,%d,%d,%d,%d#%s", pending, violated, left, out, fit, n.told.by)
			if n.told.peer != "" {
				sums += " " + n.told.wait + " " + n.told.peer
			}
			d.put(tag+"needs", id+"||", sums)
		}
	}
	for id, until := range p.gates {
		d.put(tag+"gates", id, until)
	}
	for edge := range p.edges {
		d.put(tag+"edges", edge, 0)
	}
	for family, kin := range p.kids {
		d.put(tag+"kids", family, fmt.Sprintf("%d|%s", kin.number, kin.cursor))
	}
	for family, at := range p.outbox {
		d.put(tag+"outbox", family, at)
	}
}

func (p *modelPart) dumpInfo(d modelDump, tag string) {
	for name, s := range p.schedules {
		if s.definition != "" {
			d.put(tag+"schedules", name, s.definition)
		}
		number := func(n int64) string { return strings.TrimPrefix(strconv.FormatInt(n, 10), "0") }
		d.put(tag+"cursors", name, fmt.Sprintf("1|%d|%s|%d|%s|%s|%d|%s|%s|%s", s.version, s.state, s.at, number(s.seen), s.last, s.missed, number(s.from), number(s.to), s.reason))
		if s.next != 0 {
			d.put(tag+"fires", name, s.next)
		}
	}
	for name, n := range map[string]int64{"alive": p.alive, "up_since": p.since, "every": p.every, "term": p.term, "removed": p.removed} {
		if n != 0 {
			d.put(tag+"info", name, n)
		}
	}
	if len(p.paused) > 0 {
		d.put(tag+"info", "paused", strings.Join(p.paused, " "))
	}
	for lane, hold := range p.holds {
		d.put(tag+"info", "hold:"+lane, fmt.Sprintf("%s|%d", hold.peer, hold.until))
	}
}

// dumpOf reads what the store holds: the partitions' keys, without the memory of calls.
func dumpOf(ctx context.Context, rdb redis.UniversalClient, namespace string) (modelDump, error) {
	keys, err := rdb.Keys(ctx, "{"+namespace+":*").Result()
	if err != nil {
		return nil, err
	}
	zset := func(name string) bool {
		first, _, _ := strings.Cut(name, ":")
		return slices.Contains([]string{"lane", "lanes", "run", "beats", "done", "fires", "edges", "outbox", "gates", "blocked"}, first)
	}
	hashes, zsets := map[string]*redis.MapStringStringCmd{}, map[string]*redis.ZSliceCmd{}
	pipe := rdb.Pipeline()
	for _, key := range keys {
		switch _, name, _ := strings.Cut(key, "}:"); {
		case strings.HasPrefix(name, "call:"):
		case zset(name):
			zsets[key] = pipe.ZRangeWithScores(ctx, key, 0, -1)
		default:
			hashes[key] = pipe.HGetAll(ctx, key)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && len(hashes)+len(zsets) > 0 {
		return nil, err
	}
	d := modelDump{}
	for key, cmd := range hashes {
		for field, value := range cmd.Val() {
			if value != "0" || !strings.HasSuffix(key, ":counts") {
				d.put(key, field, value)
			}
		}
	}
	for key, cmd := range zsets {
		for _, z := range cmd.Val() {
			member, _ := z.Member.(string)
			d.put(key, member, strconv.FormatFloat(z.Score, 'f', -1, 64))
		}
	}
	return d, nil
}

// modelSay is an answer as text, without what it leaves open: the order of what has none. Again: it is that to a call
// sent again, of which the store says some as it is now.
func modelSay(answer any, err error, again bool) string {
	if err != nil {
		return "error: " + modelError(err)
	}
	news := func(all []dianemo.News) []string { return modelSorted(all) }
	switch a := answer.(type) {
	case dianemo.EnqueueReply:
		return fmt.Sprintf("existing %q holders %v moved %v news %v", a.Existing, a.Holders, a.Moved, news(a.News))
	case dianemo.TurnReply:
		s := fmt.Sprintf("stale %v cancelled %v heirs %v news %v missed %v lanes %v paused %v held %v now %v", modelSorted(a.Stale), modelSorted(a.Cancelled), a.Heirs,
			news(a.News), modelSorted(a.Missed), modelHeads(a.Lanes), a.Paused, a.Held, a.Now.UnixMicro())
		for _, j := range a.Jobs {
			s += fmt.Sprintf("\n\t   job %s in %s epoch %d due %d enqueued %d weight %d fails %d reruns %d runs %d cancelled %v spec %x corrupt %q", j.ID, modelLane(j.Lane), j.Epoch, j.Due.UnixMilli(), j.Enqueued.UnixMilli(),
				j.Weight, j.Fails, j.Reruns, j.Runs, j.Cancelled, crc32.ChecksumIEEE(j.Spec), j.Corrupt)
		}
		return s
	case []dianemo.Survey:
		var s string
		for _, one := range a {
			s += fmt.Sprintf("%d: now %d lanes %v next %d silent %v %v deposed %v heirs %v late %v fires %d err %v; ", one.Partition, one.Now.UnixMicro(), modelHeads(one.Lanes), one.Next, one.Silent, one.MoreSilent, one.Deposed,
				one.Heirs, one.Late, one.Fires.UnixMilli(), one.Err)
		}
		return s
	case dianemo.WishReply:
		// Where jobs come to a lane from several, it may be told of twice.
		a.News = slices.DeleteFunc(slices.Clone(a.News), func(n dianemo.News) bool {
			later := n.Later
			n.Later = false
			return later && slices.Contains(a.News, n)
		})
		s := fmt.Sprintf("news %v", news(a.News))
		for _, j := range a.Jobs {
			word := modelError(j.Err)
			if errors.Is(j.Err, dianemo.ErrNotFound) {
				j.Kind, j.Priority = "", 0
			}
			if again && errors.As(j.Err, new(*dianemo.ExistsError)) {
				j.State, word = "", "taken"
			}
			s += fmt.Sprintf(" %v %s %s", j.Moved, j.Peer, word)
		}
		return s
	case dianemo.ReleaseReply:
		s := fmt.Sprintf("news %v heirs %v moved %v", news(a.News), a.Heirs, a.Moved)
		for _, j := range a.Jobs {
			if again {
				j.Lane.Again = false
			}
			s += fmt.Sprintf(" %+v", j)
		}
		return s
	case dianemo.ReapReply:
		return fmt.Sprintf("%v %v news %v", a.Jobs, a.More, news(a.News))
	case dianemo.FireReply:
		return fmt.Sprintf("%+v first %v news %v", a.Fired, a.First, news(a.News))
	case dianemo.TrimReply:
		return fmt.Sprintf("%d %v held %v", a.Jobs, a.More, modelSorted(a.Held))
	}
	return fmt.Sprintf("%+v", answer)
}

func modelHeads(heads []dianemo.LaneHead) (all []string) {
	for _, head := range heads {
		all = append(all, fmt.Sprintf("%s@%d", modelLane(head.Lane), head.Due.UnixMilli()))
	}
	return all
}

func modelSorted[T any](all []T) []string {
	words := make([]string, len(all))
	for i, one := range all {
		words[i] = fmt.Sprintf("%+v", one)
	}
	slices.Sort(words)
	return words
}

// modelError is what callers can tell of an error.
func modelError(err error) string {
	var state *dianemo.StateError
	var exists *dianemo.ExistsError
	switch {
	case err == nil:
		return "-"
	case errors.As(err, &state):
		return fmt.Sprintf("%+v", *state)
	case errors.As(err, &exists):
		return fmt.Sprintf("%+v", *exists)
	}
	return err.Error()
}
