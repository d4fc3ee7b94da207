package redisstore

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// keyTypes is what the keys must be, by the first word of their names. Keys
// that are not here belong to a newer version.
var keyTypes = map[string]string{
	"spec": "hash", "meta": "hash", "result": "hash", "errors": "hash", "progress": "hash", "counts": "hash", "info": "hash",
	"lane": "zset", "lanes": "zset", "run": "zset", "beats": "zset", "done": "zset", "call": "string", "unique": "hash", "blocked": "zset",
	"needs": "hash", "gates": "zset", "edges": "zset", "kids": "hash", "outbox": "zset",
	"schedules": "hash", "cursors": "hash", "fires": "zset",
	"layout": "hash", "kinds": "hash", "peers": "hash", "seen": "zset", "leader": "string", "term": "string",
	"idle": "zset", "handles": "hash", "unheard": "hash", "room": "hash", "drained": "set",
}

// asideFor is how long a key that was moved out of the way is kept.
const asideFor = 7 * 24 * time.Hour

// broken looks, when a call failed because a key has another type than it
// should, which of its keys that is, and moves it out of the way. Other errors
// it translates.
func (s *Store) broken(ctx context.Context, err error, keys ...string) error {
	if !strings.Contains(err.Error(), "WRONGTYPE") {
		return translate(err)
	}
	found, failed := s.aside(ctx, keys)
	if failed != nil {
		return fmt.Errorf("%w; and then: %w", translate(err), failed)
	}
	return &dianemo.BrokenError{Found: found, Err: translate(err)}
}

// aside moves the keys that have a wrong type out of the way.
func (s *Store) aside(ctx context.Context, keys []string) ([]dianemo.Repaired, error) {
	var found []dianemo.Repaired
	for batch := range slices.Chunk(keys, dianemo.MaxCallJobs) {
		pipe := s.rdb.Pipeline()
		types := make([]*redis.StatusCmd, len(batch))
		for i, key := range batch {
			types[i] = pipe.Type(ctx, key)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return found, translate(err)
		}
		for i, key := range batch {
			_, name, _ := strings.Cut(key, "}:")
			word, _, _ := strings.Cut(name, ":")
			want, known := keyTypes[word]
			if has := types[i].Val(); !known || has == want || has == "none" {
				continue
			}
			to := fmt.Sprintf("%s:aside:%d", key, time.Now().UnixMilli())
			replies, err := s.eval(ctx, command{s.scripts.aside, []string{key, to}, []any{want, asideFor.Milliseconds()}})
			if err != nil {
				return found, err
			}
			if err := verdict(replies[0]); err != nil {
				return found, err
			}
			if had := text(replies[0][1]); had != "" {
				found = append(found, dianemo.Repaired{Key: key, What: "it is a " + had + ", not a " + want, Did: "it is moved to " + to + " for a week"})
			}
		}
	}
	return found, nil
}

// A walk is one step of repair under way.
type walk struct {
	*Store
	t         tag
	partition int
	step      dianemo.RepairStep
	caller    string
	number    uint64 // of the last call to a script
	reply     dianemo.RepairReply
}

// phases of a walk, in order. The indexes come before the specs, so that what
// has lost its record and stands in an index has one again by then.
var phases = []struct {
	name string
	do   func(w *walk, ctx context.Context, rest string) (string, error)
}{
	{"types", (*walk).types},
	{"index", (*walk).index},
	{"spec", func(w *walk, ctx context.Context, rest string) (string, error) { return w.records(ctx, "spec", rest) }},
	{"meta", func(w *walk, ctx context.Context, rest string) (string, error) { return w.records(ctx, "meta", rest) }},
	{"unique", (*walk).unique},
	{"result", func(w *walk, ctx context.Context, rest string) (string, error) { return w.sweep(ctx, "result", rest) }},
	{"errors", func(w *walk, ctx context.Context, rest string) (string, error) { return w.sweep(ctx, "errors", rest) }},
	{"progress", func(w *walk, ctx context.Context, rest string) (string, error) { return w.sweep(ctx, "progress", rest) }},
	{"counts", (*walk).counts},
	{"edges", (*walk).edges},
	{"kids", (*walk).kids},
	{"gates", (*walk).gates},
	{"needs", (*walk).needs},
	{"waits", (*walk).waits},
}

// Repair implements [dianemo.Store]. A step's scripts are calls of their own, so
// their numbers are counted on from the call's.
func (s *Store) Repair(ctx context.Context, partition int, call dianemo.Call, step dianemo.RepairStep) (dianemo.RepairReply, error) {
	w := &walk{Store: s, t: s.tag(partition), partition: partition, step: step, caller: call.Caller, number: call.Number * 100_000}
	w.step.Limit = min(max(step.Limit, 1), dianemo.MaxCallJobs)
	phase, rest, _ := strings.Cut(step.Cursor, "|")
	at := 0
	for i := range phases {
		if phases[i].name == phase {
			at = i
		}
	}
	next, err := phases[at].do(w, ctx, rest)
	switch {
	case err != nil:
		return w.reply, err
	case next != "":
		w.reply.Next = phases[at].name + "|" + next
	case at+1 < len(phases):
		w.reply.Next = phases[at+1].name + "|"
	}
	return w.reply, nil
}

func (w *walk) found(r ...dianemo.Repaired) { w.reply.Found = append(w.reply.Found, r...) }

// run calls one of repair's scripts.
func (w *walk) run(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]any, error) {
	w.number++
	keys = append([]string{w.t.call("repair", w.caller), w.t.key("info")}, keys...)
	replies, err := w.eval(ctx, command{script, keys, append([]any{w.number, w.step.Term}, args...)})
	if err != nil {
		return nil, err
	}
	if text(replies[0][0]) == "moved" {
		return nil, nil
	}
	return replies[0], verdict(replies[0])
}

// types moves aside what has a wrong type, and what of the namespace's own
// records makes no sense.
func (w *walk) types(ctx context.Context, _ string) (string, error) {
	fixed := []string{"spec", "meta", "result", "errors", "progress", "lanes", "beats", "counts", "info", "unique", "blocked",
		"schedules", "cursors", "fires", "needs", "gates", "edges", "kids", "outbox"}
	keys := make([]string, 0, len(fixed)+6)
	for _, name := range fixed {
		keys = append(keys, w.t.key(name))
	}
	space := w.space()
	if w.partition == 0 {
		for _, name := range []string{"layout", "kinds", "peers", "seen", "leader", "term", "idle", "handles", "unheard", "room", "drained"} {
			keys = append(keys, space.key(name))
		}
	}
	found, err := w.aside(ctx, keys)
	w.found(found...)
	if err != nil {
		return "", err
	}
	names, err := w.names(ctx)
	if err != nil {
		return "", err
	}
	keys = keys[:0]
	for _, name := range names {
		keys = append(keys, w.t.key(name))
	}
	found, err = w.aside(ctx, keys)
	w.found(found...)
	if err != nil {
		return "", err
	}
	if w.partition == 0 {
		if err := w.layout(ctx); err != nil {
			return "", err
		}
	}
	return "", w.term(ctx)
}

// layout removes a record of the layout that can't be read; what was learned
// from it takes its place.
func (w *walk) layout(ctx context.Context) error {
	key := w.space().key("layout")
	fields, err := w.rdb.HMGet(ctx, key, "layout", "min_peer", "partitions").Result()
	if err != nil {
		return w.broken(ctx, err, key)
	}
	if !slices.ContainsFunc(fields, func(v any) bool { _, err := strconv.Atoi(text(v)); return err != nil }) {
		return nil
	}
	// By someone's hand: no program writes it so, and none can go on with it.
	if err := w.rdb.Del(ctx, key).Err(); err != nil {
		return translate(err)
	}
	w.found(dianemo.Repaired{Key: key, What: "the record of the layout could not be read", Did: "it is written anew"})
	_, err = w.present(ctx, "", "")
	return err
}

// term forgets a term that no leader can have had.
func (w *walk) term(ctx context.Context) error {
	found, err := w.forgetTerm(ctx, w.t, w.step.Term)
	w.found(found...)
	return err
}

// forgetTerm forgets a partition's term if no leader can have had it: each is told by the
// namespace before it is told here, so it is read after it.
func (s *Store) forgetTerm(ctx context.Context, t tag, own int64) ([]dianemo.Repaired, error) {
	had, err := s.rdb.HGet(ctx, t.key("info"), "term").Result()
	if err == redis.Nil {
		return nil, nil
	}
	if err != nil {
		return nil, s.broken(ctx, err, t.key("info"))
	}
	last, err := s.rdb.Get(ctx, s.space().key("term")).Result()
	if err != nil && err != redis.Nil {
		return nil, s.broken(ctx, err, s.space().key("term"))
	}
	here, bad := strconv.ParseInt(had, 10, 64)
	there, unknown := strconv.ParseInt(last, 10, 64)
	if bad == nil && (unknown != nil || here <= max(there, own)) {
		return nil, nil
	}
	if err := s.rdb.HDel(ctx, t.key("info"), "term").Err(); err != nil {
		return nil, translate(err)
	}
	return []dianemo.Repaired{{Key: t.key("info"), What: "it names a term that no leader had", Did: "it is forgotten"}}, nil
}

// names lists the indexes of jobs that are known, in order.
func (w *walk) names(ctx context.Context) ([]string, error) {
	pipe := w.rdb.Pipeline()
	lanes, counts := pipe.ZRange(ctx, w.t.key("lanes"), 0, -1), pipe.HKeys(ctx, w.t.key("counts"))
	blocked := pipe.ZCard(ctx, w.t.key("blocked"))
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, w.broken(ctx, err, w.t.key("lanes"), w.t.key("counts"), w.t.key("blocked"))
	}
	var names []string
	if blocked.Val() > 0 {
		names = append(names, "blocked")
	}
	for _, lane := range lanes.Val() {
		if _, ok := parseLane(lane); ok {
			names = append(names, "lane:"+lane)
		}
	}
	for _, field := range counts.Val() {
		if state, kind, ok := endedField(field); ok {
			names = append(names, "done:"+string(state)+":"+kind)
		}
	}
	peers, err := w.peers(ctx)
	for _, peer := range peers {
		names = append(names, "run:"+peer)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// peers lists those that may run something here.
func (w *walk) peers(ctx context.Context) ([]string, error) {
	pipe := w.rdb.Pipeline()
	beats, seen := pipe.ZRange(ctx, w.t.key("beats"), 0, -1), pipe.ZRange(ctx, w.space().key("seen"), 0, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, w.broken(ctx, err, w.t.key("beats"), w.space().key("seen"))
	}
	peers := append(beats.Val(), seen.Val()...)
	peers = slices.DeleteFunc(peers, func(p string) bool { return dianemo.CheckName("peer", p) != nil })
	slices.Sort(peers)
	return slices.Compact(peers), nil
}

// index walks through the indexes, by their names: rest is a name and a cursor.
func (w *walk) index(ctx context.Context, rest string) (string, error) {
	name, cursor, _ := strings.Cut(rest, "|")
	if cursor == "" || cursor == "0" {
		names, err := w.names(ctx)
		if err != nil {
			return "", err
		}
		i, here := slices.BinarySearch(names, name)
		if here {
			i++
		}
		if i == len(names) {
			return "", nil
		}
		name, cursor = names[i], "0"
	}
	at, _ := strconv.ParseUint(cursor, 10, 64) // a cursor that is none begins anew
	key := w.t.key(name)
	members, next, err := w.rdb.ZScan(ctx, key, at, "", int64(w.step.Limit)).Result()
	if err != nil {
		return "", w.broken(ctx, err, key)
	}
	ids := make([]string, 0, len(members)/2)
	for i := 0; i+1 < len(members); i += 2 {
		ids = append(ids, members[i])
	}
	places := &places{walk: w}
	walked, ok := places.named(name)
	if !ok {
		return name + "|0", nil
	}
	for batch := range slices.Chunk(ids, dianemo.MaxCallJobs) {
		places.all = places.all[:walked]
		if err := w.check(ctx, places, walked, batch, nil); err != nil {
			return "", err
		}
	}
	if len(ids) == 0 && places.all[walked-1].sort == "lane" {
		if err := w.check(ctx, places, walked, nil, nil); err != nil {
			return "", err
		}
	}
	return name + "|" + strconv.FormatUint(next, 10), nil
}

// records walks through the specs, or the records. How many it reads at a time
// follows their sizes.
func (w *walk) records(ctx context.Context, name, rest string) (string, error) {
	entries, next, err := w.scan(ctx, name, rest)
	if err != nil {
		return "", err
	}
	type entry struct{ id, value string }
	var all []entry
	for i := 0; i+1 < len(entries); i += 2 {
		all = append(all, entry{entries[i], entries[i+1]})
	}
	for batch := range slices.Chunk(all, dianemo.MaxCallJobs) {
		var ids, values []string
		var specs map[string]string
		for _, e := range batch {
			ids, values = append(ids, e.id), append(values, e.value)
			if name == "spec" {
				if specs == nil {
					specs = make(map[string]string, len(batch))
				}
				specs[e.id] = e.value
			}
		}
		if err := w.check(ctx, &places{walk: w}, 0, ids, specs); err != nil {
			return "", err
		}
		if name == "meta" {
			if err := w.restore(ctx, ids, values); err != nil {
				return "", err
			}
		}
	}
	return next, nil
}

// scan reads a part of a hash: rest is its cursor and how many fields to ask for.
func (w *walk) scan(ctx context.Context, name, rest string) ([]string, string, error) {
	cursor, count, _ := strings.Cut(rest, "|")
	at, _ := strconv.ParseUint(cursor, 10, 64) // a cursor that is none begins anew
	ask, err := strconv.Atoi(count)
	if err != nil || ask < 1 {
		ask = 16 // until their size is known
	}
	entries, next, err := w.rdb.HScan(ctx, w.t.key(name), at, "", int64(min(ask, w.step.Limit))).Result()
	if err != nil {
		return nil, "", w.broken(ctx, err, w.t.key(name))
	}
	if next == 0 {
		return entries, "", nil
	}
	bytes := 1
	for _, e := range entries {
		bytes += len(e)
	}
	ask = min(max(len(entries)/2*(256<<10)/bytes, 4), 8*ask)
	return entries, fmt.Sprintf("%d|%d", next, ask), nil
}

// places are the indexes that a call of the script is about.
type places struct {
	*walk
	all []place
}

type place struct{ sort, name, base string }

func (p place) keyName() string {
	if p.sort == "blocked" {
		return p.sort
	}
	return p.sort + ":" + p.name
}

// add gives a place's number, from 1.
func (ps *places) add(p place) int {
	if i := slices.Index(ps.all, p); i >= 0 {
		return i + 1
	}
	ps.all = append(ps.all, p)
	return len(ps.all)
}

func (ps *places) lane(l dianemo.Lane) int { return ps.add(place{"lane", laneName(l), laneBase(l)}) }

func (ps *places) done(state dianemo.State, kind string) int {
	return ps.add(place{"done", string(state) + ":" + kind, string(state)})
}

func (ps *places) blocked() int { return ps.add(place{"blocked", "", ""}) }

func (ps *places) run(peer string) int { return ps.add(place{"run", peer, ""}) }

// named is the place with that key.
func (ps *places) named(name string) (int, bool) {
	sort, rest, _ := strings.Cut(name, ":")
	switch sort {
	case "lane":
		if l, ok := parseLane(rest); ok {
			return ps.lane(l), true
		}
	case "run":
		return ps.run(rest), true
	case "blocked":
		return ps.blocked(), true
	case "done":
		if state, kind, ok := strings.Cut(rest, ":"); ok {
			return ps.done(dianemo.State(state), kind), true
		}
	}
	return 0, false
}

// A suspect is a job that repair looks at.
type suspect struct {
	id     string
	meta   string // "": none
	spec   string // "": not read
	home   int    // where it waits by its spec, 0: not known
	failed int
	base   string
	due    int64
	bad    string // hash of a spec that can't be read
	own    string // what its record says of its own, if by its spec it was blocked at first; else ""
}

// unknownLane is the lane of jobs of which nothing is known.
var unknownLane = dianemo.Lane{Kind: "unknown", Priority: 2, Grace: dianemo.Unlimited}

// check learns where the jobs belong by what can be read, and lets the script
// look again and put them there. walked is the place that they were found in, or
// 0; specs are theirs, or nil if they were not read yet.
func (w *walk) check(ctx context.Context, ps *places, walked int, ids []string, specs map[string]string) error {
	w.reply.Looked += len(ids)
	suspects, err := w.suspects(ctx, ps, walked, ids, specs)
	if err != nil {
		return err
	}
	if err := w.search(ctx, ps, walked, suspects); err != nil {
		return err
	}
	if len(suspects) == 0 && walked == 0 {
		return nil
	}
	keys := []string{w.t.key("spec"), w.t.key("meta"), w.t.key("lanes"), w.t.key("beats"), w.t.key("counts")}
	const silent = 20 * time.Second // the default; its next beat says otherwise
	args := []any{silent.Milliseconds(), walked, len(ps.all)}
	for _, p := range ps.all {
		keys = append(keys, w.t.key(p.keyName()))
		args = append(args, p.sort, p.name, p.base)
	}
	// The script may look for each job in each place, and is to hold Redis no
	// longer than 5 ms.
	const looks = 8000
	most := max(looks/max(len(ps.all), 1), 1)
	for first := true; first || len(suspects) > 0; first = false {
		batch := suspects[:min(len(suspects), most)]
		suspects = suspects[len(batch):]
		args := slices.Clone(args)
		for _, j := range batch {
			args = append(args, j.id, j.home, j.failed, j.base, j.due, j.bad, j.own)
		}
		reply, err := w.run(ctx, w.scripts.repair, append(slices.Clone(keys), w.t.heirs()...), args...)
		if err != nil {
			return err
		}
		for i := 1; i+3 < len(reply); i += 4 {
			r := dianemo.Repaired{ID: text(reply[i]), What: text(reply[i+2]), Did: text(reply[i+3])}
			if p := number(reply[i+1]); 1 <= p && p <= int64(len(ps.all)) {
				r.Key = w.t.key(ps.all[p-1].keyName())
			}
			w.found(r)
		}
	}
	return w.missingCounts(ctx, ps)
}

// suspects reads what is known of the jobs. Those of a newer version are left out.
func (w *walk) suspects(ctx context.Context, ps *places, walked int, ids []string, specs map[string]string) ([]suspect, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	metas, err := w.rdb.HMGet(ctx, w.t.key("meta"), ids...).Result()
	if err != nil {
		return nil, w.broken(ctx, err, w.t.key("meta"))
	}
	var here place
	if walked > 0 {
		here = ps.all[walked-1]
	}
	suspects := make([]suspect, 0, len(ids))
	var unread []string // without a record, and not in a lane that says it all
	for i, id := range ids {
		j := suspect{id: id, meta: text(metas[i]), spec: specs[id]}
		if _, err := parseMeta(j.meta); err == dianemo.ErrNewer {
			continue
		} else if err != nil && j.spec == "" && (j.meta != "" || !strings.HasSuffix(here.name, laneNew)) {
			unread = append(unread, id)
		}
		suspects = append(suspects, j)
	}
	read := map[string]string{}
	for batch := range slices.Chunk(unread, 16) { // they may be large
		values, err := w.rdb.HMGet(ctx, w.t.key("spec"), batch...).Result()
		if err != nil {
			return nil, w.broken(ctx, err, w.t.key("spec"))
		}
		for i, id := range batch {
			read[id] = text(values[i])
		}
	}
	kept := suspects[:0]
	for _, j := range suspects {
		if j.spec == "" {
			j.spec = read[j.id]
		}
		if w.place(ps, walked, &j) {
			kept = append(kept, j)
		}
	}
	return kept, nil
}

// place says where the job belongs; false if that is a newer version's affair.
func (w *walk) place(ps *places, walked int, j *suspect) bool {
	lane, known := unknownLane, false
	if walked > 0 {
		switch p := ps.all[walked-1]; p.sort {
		case "lane":
			lane, known = parseLane(p.name)
		case "done":
			_, kind, _ := strings.Cut(p.name, ":")
			lane.Kind = kind
		}
	}
	if j.spec != "" {
		if j.spec[0] > dianemo.SpecVersion {
			return false
		}
		b, enqueued, err := splitSpec(j.spec)
		var spec *dianemo.Spec
		if err == nil {
			spec, err = dianemo.DecodeSpec(b)
		}
		if err != nil {
			sum := sha1.Sum([]byte(j.spec))
			j.bad = hex.EncodeToString(sum[:])
		} else {
			lane, known = spec.Lane(), true
			due := enqueued.Add(spec.Delay)
			if !spec.RunAt.IsZero() {
				due = spec.RunAt
			}
			j.due = unixMilliUp(due)
			if hasFamily(spec) {
				if spec.RunAt.IsZero() {
					j.due = -spec.Ahead.Milliseconds()
				}
				j.own = ownSettings(&dianemo.Record{Weight: spec.Weight, Reruns: spec.Reruns, Spec: b})
			}
		}
	}
	if j.own != "" {
		j.home = ps.blocked()
	} else if known && (walked == 0 || j.spec != "" || !lane.Again) {
		lane.Again = false
		j.home = ps.lane(lane)
	}
	if m, err := parseMeta(j.meta); err == nil {
		lane, _ = m.base()
		switch state := dianemo.State(m.state); {
		case state == dianemo.Scheduled:
			ps.lane(lane)
		case state == dianemo.Blocked:
			ps.blocked()
		case state == dianemo.Running:
			ps.run(m.peer)
		case state.Finished():
			ps.done(state, lane.Kind)
		}
	}
	lane.Again = false
	j.base, j.failed = laneBase(lane), ps.done(dianemo.Failed, lane.Kind)
	return true
}

// hasFamily reports whether a job with this spec is blocked when it is new.
func hasFamily(s *dianemo.Spec) bool {
	return len(s.Parents) > 0 || s.Many > 0 || s.Workflow != "" || dianemo.IsWorkflow(s.Kind)
}

// search adds the places where jobs may be that have no record, or none that can
// be read, and are not where their specs say.
func (w *walk) search(ctx context.Context, ps *places, walked int, suspects []suspect) error {
	byHome := map[int][]string{}
	lost := map[string]bool{}
	for _, j := range suspects {
		_, err := parseMeta(j.meta)
		switch {
		case err == nil:
		case j.meta == "" && j.bad == "" && j.own == "" && j.home > 0 && (walked == 0 || walked == j.home):
			byHome[j.home] = append(byHome[j.home], j.id)
		default:
			lost[j.id] = true
		}
	}
	for home, ids := range byHome {
		if home == walked {
			continue
		}
		key := w.t.key(ps.all[home-1].keyName())
		scores := w.rdb.ZMScore(ctx, key, ids...)
		if err := scores.Err(); err != nil {
			return w.broken(ctx, err, key)
		}
		// A job that is due at 0 is looked for in vain, which is no harm.
		for i, score := range scores.Val() {
			if score == 0 {
				lost[ids[i]] = true
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	peers, err := w.peers(ctx)
	if err != nil {
		return err
	}
	const most = 1000
	for _, peer := range peers[:min(len(peers), most)] {
		ps.run(peer)
	}
	bad := false
	for _, j := range suspects {
		if !lost[j.id] {
			continue
		}
		bad = bad || j.home == 0
		ps.blocked()
		lane, _ := parseBase(j.base)
		for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped} {
			ps.done(state, lane.Kind)
		}
		ps.lane(lane)
		lane.Again = true
		ps.lane(lane)
	}
	if !bad {
		return nil
	}
	// Nothing says where they wait.
	names, err := w.names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names[:min(len(names), most)] {
		if p, ok := ps.named(name); ok && ps.all[p-1].sort == "lane" {
			kind, _, _ := strings.Cut(ps.all[p-1].base, ":")
			ps.done(dianemo.Failed, kind)
		}
	}
	return nil
}

// missingCounts counts the ended jobs of classes that have no counter.
func (w *walk) missingCounts(ctx context.Context, ps *places) error {
	var fields []string
	var sets []place
	for _, p := range ps.all {
		if p.sort == "done" {
			sets = append(sets, p)
			for priority := range 9 {
				fields = append(fields, fmt.Sprintf("%s:%d", p.name, priority+1))
			}
		}
	}
	if len(sets) == 0 {
		return nil
	}
	counters, err := w.rdb.HMGet(ctx, w.t.key("counts"), fields...).Result()
	if err != nil {
		return w.broken(ctx, err, w.t.key("counts"))
	}
	for i, p := range sets {
		if slices.ContainsFunc(counters[9*i:9*i+9], func(v any) bool { return v != nil }) {
			continue // whether they are right is looked at in their turn
		}
		state, kind, _ := strings.Cut(p.name, ":")
		if err := w.recount(ctx, dianemo.State(state), kind); err != nil {
			return err
		}
	}
	return nil
}

// counts looks at all counters.
func (w *walk) counts(ctx context.Context, _ string) (string, error) {
	counters, err := w.rdb.HGetAll(ctx, w.t.key("counts")).Result()
	if err != nil {
		return "", w.broken(ctx, err, w.t.key("counts"))
	}
	type set struct {
		state dianemo.State
		kind  string
	}
	sums := map[set]int64{}
	odd := map[set]bool{}
	var order []set
	var running, blocked []any
	for field, value := range counters {
		if class, ok := strings.CutPrefix(field, "running:"); ok {
			running = append(running, class)
			continue
		}
		if class, ok := strings.CutPrefix(field, "blocked:"); ok {
			blocked = append(blocked, class)
			continue
		}
		state, kind, ok := endedField(field)
		if !ok {
			continue // a newer version's
		}
		k := set{state, kind}
		if _, ok := sums[k]; !ok {
			order = append(order, k)
		}
		n, err := strconv.ParseInt(value, 10, 64)
		sums[k] += n
		odd[k] = odd[k] || err != nil || n < 0
	}
	for batch := range slices.Chunk(order, dianemo.MaxCallJobs) {
		pipe := w.rdb.Pipeline()
		cards := make([]*redis.IntCmd, len(batch))
		for i, k := range batch {
			cards[i] = pipe.ZCard(ctx, w.t.done(k.state, k.kind))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			var keys []string
			for _, k := range batch {
				keys = append(keys, w.t.done(k.state, k.kind))
			}
			return "", w.broken(ctx, err, keys...)
		}
		for i, k := range batch {
			if cards[i].Val() == sums[k] && !odd[k] {
				continue
			}
			if err := w.recount(ctx, k.state, k.kind); err != nil {
				return "", err
			}
		}
	}
	keys := []string{w.t.key("meta"), w.t.key("counts"), w.t.key("beats")}
	args := append([]any{string(dianemo.Blocked), recounted, ""}, blocked...)
	if err := w.recounts(ctx, append(slices.Clone(keys), w.t.key("blocked")), "blocked", append(args, "")); err != nil {
		return "", err
	}
	peers, err := w.peers(ctx)
	if err != nil || len(peers)+len(running) == 0 {
		return "", err
	}
	args = append([]any{string(dianemo.Running), recounted, ""}, running...)
	args = append(args, "")
	for _, peer := range peers {
		keys = append(keys, w.t.run(peer))
		args = append(args, peer)
	}
	return "", w.recounts(ctx, keys, "running", args)
}

// recounted is how many jobs of a set are looked at one by one to count them.
const recounted = 1000

func (w *walk) recount(ctx context.Context, state dianemo.State, kind string) error {
	keys := []string{w.t.key("meta"), w.t.key("counts"), w.t.key("beats"), w.t.done(state, kind)}
	return w.recounts(ctx, keys, string(state)+" of kind "+kind, []any{string(state), recounted, kind})
}

func (w *walk) recounts(ctx context.Context, keys []string, what string, args []any) error {
	reply, err := w.run(ctx, w.scripts.recount, keys, args...)
	if err != nil || reply == nil {
		return err
	}
	if before, after := number(reply[1]), number(reply[2]); before != after {
		w.found(dianemo.Repaired{Key: w.t.key("counts"), What: "the counters of jobs " + what + " were off", Did: fmt.Sprintf("counted again: %d", after)})
	}
	return nil
}

// sweep walks through what is kept of jobs beside their records.
func (w *walk) sweep(ctx context.Context, name, rest string) (string, error) {
	entries, next, err := w.scan(ctx, name, rest)
	if err != nil {
		return "", err
	}
	var args []any
	for i := 0; i+1 < len(entries); i += 2 {
		field, value := entries[i], entries[i+1]
		id, unreadable := field, ""
		if name == "errors" {
			if _, id, _ = strings.Cut(field, "|"); id == "" {
				continue
			}
		}
		if name == "progress" && json.Unmarshal([]byte(value), new(dianemo.Progress)) != nil {
			unreadable = value
		}
		args = append(args, field, id, unreadable)
	}
	w.reply.Looked += len(args) / 3
	for batch := range slices.Chunk(args, 3*dianemo.MaxCallJobs) {
		reply, err := w.run(ctx, w.scripts.sweep, []string{w.t.key("spec"), w.t.key("meta"), w.t.key(name)}, batch...)
		if err != nil {
			return "", err
		}
		for i := 1; i+1 < len(reply); i += 2 {
			id := text(reply[i])
			if name == "errors" {
				_, id, _ = strings.Cut(id, "|")
			}
			what := "its job is gone"
			if text(reply[i+1]) == "unreadable" {
				what = "it can't be read"
			}
			w.found(dianemo.Repaired{ID: id, Key: w.t.key(name), What: what, Did: "it is removed"})
		}
	}
	return next, nil
}
