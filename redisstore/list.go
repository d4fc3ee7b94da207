package redisstore

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Bounds of one call of List.
const (
	listRead    = 10_000  // jobs read, besides two for each index
	listBytes   = 4 << 20 // of specs, after which no more are read
	listIndexes = 64      // in one call of the script
)

// An index is one of the zsets that list jobs, and what is still to be taken of
// what was read from it.
type index struct {
	partition int
	key       string
	states    []dianemo.State // that its jobs may have
	lane      dianemo.Lane    // of waiting jobs; of those that have ended, only the kind
	peer      string          // of running jobs
	unit      int64           // of its scores, in µs
	low, high int64           // scores wanted

	found []entry // in order
	last  entry   // of those that were read
	begun bool    // there is a last
	done  bool    // all was read
}

// An entry of an index: its place in the list, and the job's record, or "".
type entry struct {
	us     int64
	id     string
	score  int64
	record string
	index  *index
}

func (e entry) compare(o entry) int {
	return cmp.Or(cmp.Compare(e.us, o.us), cmp.Compare(e.id, o.id))
}

// List implements [dianemo.Store]. It merges the indexes that may hold what is
// asked for: all entries up to the place to which each index has been read are
// known, so these can be taken; then the indexes of which little is left are read
// on, each time by twice as much.
func (s *Store) List(ctx context.Context, listing dianemo.Listing) (dianemo.ListReply, error) {
	var reply dianemo.ListReply
	now, err := s.rdb.Time(ctx).Result() // on a cluster, some node's clock
	if err != nil {
		return reply, translate(err)
	}
	reply.Now = now
	indexes, err := s.indexes(ctx, listing, now)
	if err != nil || len(indexes) == 0 {
		return reply, err
	}
	order := entry.compare
	if listing.Newest {
		order = func(a, b entry) int { return b.compare(a) }
	}
	var page []dianemo.StoredJob
	var places []entry // of the jobs in page
	var taken entry    // the last that was looked at
	budget := listRead + 2*len(indexes)
	more := true
	for size := max(2*listing.Limit/len(indexes), 2); more && len(page) < listing.Limit && budget > 0; size *= 2 {
		size = min(size, dianemo.MaxCallJobs)
		read, err := s.readIndexes(ctx, indexes, listing, size)
		if err != nil {
			return reply, err
		}
		budget -= read
		var ready []entry // which may be looked at
		ready, more = known(indexes, order)
		for _, e := range ready {
			if len(page) == listing.Limit {
				more = true // there is at least this one
				break
			}
			taken = e
			if job, ok := e.job(now); ok && wanted(&job.Info, listing) {
				page, places = append(page, job), append(places, e)
			}
		}
	}
	if !listing.Bare {
		n, err := s.addSpecs(ctx, page)
		if err != nil {
			return reply, err
		}
		if n < len(page) {
			page, taken, more = page[:n], places[n-1], true
		}
	}
	reply.Jobs = slices.DeleteFunc(page, func(j dianemo.StoredJob) bool { return j.Info.ID == "" })
	if more && taken.id != "" {
		reply.Next = dianemo.Place{Time: time.UnixMicro(taken.us), ID: taken.id}
	}
	return reply, nil
}

// known takes what is certain to come next from the indexes, in order, and
// reports whether there is more.
func known(indexes []*index, order func(a, b entry) int) ([]entry, bool) {
	var limit *entry // the place up to which all indexes were read
	for _, x := range indexes {
		if !x.done && (limit == nil || order(x.last, *limit) < 0) {
			limit = &x.last
		}
	}
	var ready []entry
	for _, x := range indexes {
		n := len(x.found)
		if limit != nil {
			n, _ = slices.BinarySearchFunc(x.found, *limit, func(e, l entry) int {
				if order(e, l) <= 0 {
					return -1
				}
				return 1
			})
		}
		ready = append(ready, x.found[:n]...)
		x.found = x.found[n:]
	}
	slices.SortFunc(ready, order)
	return ready, limit != nil
}

// indexes lists those that may hold what is asked for, with the scores wanted
// of each.
func (s *Store) indexes(ctx context.Context, listing dianemo.Listing, now time.Time) ([]*index, error) {
	want := func(states ...dianemo.State) bool {
		return len(listing.States) == 0 || slices.ContainsFunc(states, func(s dianemo.State) bool { return slices.Contains(listing.States, s) })
	}
	kind := func(name string) bool { return len(listing.Kinds) == 0 || slices.Contains(listing.Kinds, name) }
	waits, runs := want(dianemo.Scheduled, dianemo.Queued, dianemo.Retrying), want(dianemo.Running)
	ends := want(dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable, dianemo.Cancelled, dianemo.Skipped)

	pipe := s.rdb.Pipeline()
	lanes, peers, counts := make([]*redis.StringSliceCmd, s.Partitions()), make([]*redis.StringSliceCmd, s.Partitions()), make([]*redis.StringSliceCmd, s.Partitions())
	for p := range s.Partitions() {
		t := s.tag(p)
		if waits {
			lanes[p] = pipe.ZRange(ctx, t.key("lanes"), 0, -1)
		}
		if runs {
			// Whoever holds a run is in beats: its claim has put it there.
			peers[p] = pipe.ZRange(ctx, t.key("beats"), 0, -1)
		}
		if ends {
			counts[p] = pipe.HKeys(ctx, t.key("counts"))
		}
	}
	if pipe.Len() > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, translate(err)
		}
	}
	var all []*index
	blocked := want(dianemo.Blocked)
	add := func(x index) {
		if x.bound(listing) {
			all = append(all, &x)
		}
	}
	for p := range s.Partitions() {
		t := s.tag(p)
		if waits {
			for _, name := range lanes[p].Val() {
				l, ok := parseLane(name)
				if !ok || !kind(l.Kind) || listing.Priority != 0 && l.Priority != listing.Priority {
					continue
				}
				x := index{partition: p, key: t.lane(name), lane: l, unit: 1000, high: math.MaxInt64,
					states: []dianemo.State{dianemo.Queued, dianemo.Scheduled}}
				switch due, later := want(dianemo.Queued), want(dianemo.Scheduled); {
				case l.Again:
					x.states = []dianemo.State{dianemo.Retrying}
				case due && !later:
					x.high = now.UnixMilli()
				case later && !due:
					x.low = now.UnixMilli() + 1
				}
				if want(x.states...) {
					add(x)
				}
			}
		}
		if blocked {
			add(index{partition: p, key: t.key("blocked"), unit: 1000, high: math.MaxInt64, states: []dianemo.State{dianemo.Blocked}})
		}
		if runs {
			for _, peer := range peers[p].Val() {
				add(index{partition: p, key: t.run(peer), peer: peer, unit: 1, high: math.MaxInt64, states: []dianemo.State{dianemo.Running}})
			}
		}
		if ends {
			seen := map[string]bool{}
			for _, field := range counts[p].Val() {
				f := strings.Split(field, ":")
				if len(f) != 3 || !dianemo.State(f[0]).Finished() || !want(dianemo.State(f[0])) || !kind(f[1]) || seen[f[0]+":"+f[1]] {
					continue
				}
				seen[f[0]+":"+f[1]] = true
				state := dianemo.State(f[0])
				add(index{partition: p, key: t.done(state, f[1]), lane: dianemo.Lane{Kind: f[1]}, unit: 1000, high: math.MaxInt64,
					states: []dianemo.State{state}})
			}
		}
	}
	return all, nil
}

// bound narrows the scores to the times wanted, and reports whether any are
// left. Scores are whole, and no larger than a float64 holds exactly.
func (x *index) bound(listing dianemo.Listing) bool {
	up := func(t time.Time) int64 {
		us := t.UnixMicro()
		if t.Nanosecond()%1000 != 0 {
			us++
		}
		if us <= 0 {
			return 0
		}
		return (us + x.unit - 1) / x.unit
	}
	x.high = min(x.high, 1<<53)
	if !listing.From.IsZero() {
		x.low = max(x.low, up(listing.From))
	}
	if !listing.To.IsZero() {
		x.high = min(x.high, up(listing.To)-1)
	}
	if after := listing.After; after != (dianemo.Place{}) {
		us := after.Time.UnixMicro()
		score, between := us/x.unit, us%x.unit != 0
		switch {
		case listing.Newest:
			x.high = min(x.high, score)
		case between:
			x.low = max(x.low, score+1)
		default:
			x.low = max(x.low, score)
		}
		if !between && x.low <= score && score <= x.high {
			// Jobs with this very score may stand on either side of the place.
			x.last, x.begun = entry{us: us, id: after.ID, score: score}, true
		}
	}
	return x.low <= x.high
}

// readIndexes reads on, by size, in those indexes of which less than half as
// much is left, and returns how many jobs it read.
func (s *Store) readIndexes(ctx context.Context, indexes []*index, listing dianemo.Listing, size int) (int, error) {
	direction := "up"
	if listing.Newest {
		direction = "down"
	}
	var commands []command
	var groups [][]*index
	for _, x := range indexes {
		if x.done || len(x.found) >= (size+1)/2 {
			continue
		}
		n := len(groups) - 1
		if n < 0 || groups[n][0].partition != x.partition || len(groups[n]) == min(listIndexes, max(dianemo.MaxCallJobs/size, 1)) {
			groups = append(groups, nil)
			commands = append(commands, command{s.scripts.list, []string{s.tag(x.partition).key("meta")}, []any{direction}})
			n++
		}
		groups[n] = append(groups[n], x)
		score, id := "", ""
		if x.begun {
			score, id = strconv.FormatInt(x.last.score, 10), x.last.id
		}
		commands[n].keys = append(commands[n].keys, x.key)
		commands[n].args = append(commands[n].args, x.low, x.high, size, score, id)
	}
	if len(commands) == 0 {
		return 0, nil
	}
	replies, err := s.eval(ctx, commands...)
	if err != nil {
		return 0, err
	}
	read := 0
	for g, group := range groups {
		if err := verdict(replies[g]); err != nil {
			return 0, err
		}
		for i, x := range group {
			var words []any
			if i+1 < len(replies[g]) {
				words = list(replies[g][i+1])
			}
			for w := 0; w+2 < len(words); w += 3 {
				score, err := strconv.ParseFloat(text(words[w+1]), 64)
				if err != nil {
					return 0, translate(err)
				}
				x.last = entry{us: int64(score) * x.unit, id: text(words[w]), score: int64(score), record: text(words[w+2]), index: x}
				x.begun = true
				x.found = append(x.found, x.last)
			}
			x.done = len(words)/3 < size
			read += len(words) / 3
		}
	}
	return read, nil
}

// job is what the record and the index tell of an entry. It returns false when
// the record places the job elsewhere: it counts, the index does not.
func (e entry) job(now time.Time) (dianemo.StoredJob, bool) {
	x := e.index
	info := dianemo.JobInfo{ID: e.id, State: x.states[0], Kind: x.lane.Kind, Priority: x.lane.Priority, Grace: x.lane.Grace}
	if e.record != "" {
		m, err := parseMeta(e.record)
		switch {
		case err == dianemo.ErrNewer:
			info.Reason = "newer"
		case err != nil:
			info.Reason = "corrupt"
		default:
			m.fill(&info)
			if lane, ok := parseBase(m.lane); ok {
				info.Kind, info.Priority, info.Grace = lane.Kind, lane.Priority, lane.Grace
			}
			here := info.State == x.states[0]
			switch {
			case x.peer != "":
				here = here && info.Peer == x.peer
			case x.states[0] == dianemo.Blocked:
			case !x.states[0].Finished():
				here = info.State == dianemo.Scheduled
			}
			if !here {
				return dianemo.StoredJob{}, false
			}
		}
	}
	at := time.UnixMicro(e.us)
	switch {
	case x.peer != "":
		info.Peer, info.Epoch = x.peer, e.score
	case x.states[0].Finished():
		info.EndedAt = at
	case x.states[0] == dianemo.Blocked:
	default:
		info.Due, info.State = at, x.states[0]
		if info.State == dianemo.Queued && at.After(now) {
			info.State = dianemo.Scheduled
		}
	}
	return dianemo.StoredJob{Info: info}, true
}

// wanted applies what the choice of indexes and scores did not.
func wanted(info *dianemo.JobInfo, listing dianemo.Listing) bool {
	return (listing.Priority == 0 || info.Priority == listing.Priority) &&
		(len(listing.Kinds) == 0 || slices.Contains(listing.Kinds, info.Kind))
}

// addSpecs reads the jobs' specs, until they have used up the bytes of a call,
// and returns for how many jobs it did. A job that is gone by then loses its id.
func (s *Store) addSpecs(ctx context.Context, jobs []dianemo.StoredJob) (int, error) {
	n, bytes := 0, 0
	for size := 16; n < len(jobs) && bytes < listBytes; size = min(max((listBytes-bytes)*n/(bytes+1), 1), 4*size, dianemo.MaxCallJobs) {
		size = min(size, len(jobs)-n)
		batch := jobs[n : n+size]
		n += size
		specs, err := s.fields(ctx, "spec", batch)
		if err != nil {
			return 0, err
		}
		var bare []dianemo.StoredJob // without a spec: gone, or corrupt
		for i := range batch {
			stored, ok := specs[batch[i].Info.ID]
			if !ok {
				bare = append(bare, batch[i])
				continue
			}
			bytes += len(stored)
			var spec []byte
			if spec, batch[i].Info.EnqueuedAt, err = splitSpec(stored); err == nil {
				batch[i].Spec = spec
			}
		}
		records, err := s.fields(ctx, "meta", bare)
		if err != nil {
			return 0, err
		}
		for i := range batch {
			id := batch[i].Info.ID
			_, spec := specs[id]
			if _, meta := records[id]; !spec && !meta {
				batch[i].Info.ID = ""
			}
		}
	}
	return n, nil
}

// fields reads one hash of each partition for these jobs: what there is.
func (s *Store) fields(ctx context.Context, hash string, jobs []dianemo.StoredJob) (map[string]string, error) {
	ids := make([]string, len(jobs))
	for i := range jobs {
		ids[i] = jobs[i].Info.ID
	}
	return s.fieldsOf(ctx, hash, ids)
}

func (s *Store) fieldsOf(ctx context.Context, hash string, ids []string) (map[string]string, error) {
	values := make(map[string]string, len(ids))
	if len(ids) == 0 {
		return values, nil
	}
	byPartition := map[int][]string{}
	for _, id := range ids {
		p := s.Partition(id)
		byPartition[p] = append(byPartition[p], id)
	}
	pipe := s.rdb.Pipeline()
	reads := map[int]*redis.SliceCmd{}
	for p, ids := range byPartition {
		reads[p] = pipe.HMGet(ctx, s.tag(p).key(hash), ids...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, translate(err)
	}
	for p, ids := range byPartition {
		for i, v := range reads[p].Val() {
			if v, ok := v.(string); ok {
				values[ids[i]] = v
			}
		}
	}
	return values, nil
}

// Standings implements [dianemo.Store]: most jobs have a record, the rest is asked
// for in a second round trip.
func (s *Store) Standings(ctx context.Context, ids []string) ([]dianemo.Standing, error) {
	records, err := s.fieldsOf(ctx, "meta", ids)
	if err != nil {
		return nil, err
	}
	standings := make([]dianemo.Standing, len(ids))
	pipe := s.rdb.Pipeline()
	there := map[int]*redis.BoolCmd{} // jobs without a record
	for i, id := range ids {
		record, ok := records[id]
		if !ok {
			there[i] = pipe.HExists(ctx, s.tag(s.Partition(id)).key("spec"), id)
			continue
		}
		standings[i].State = dianemo.Unreadable
		if m, err := parseMeta(record); err == nil {
			standings[i] = dianemo.Standing{State: dianemo.State(m.state), Reason: m.reason}
		}
	}
	if len(there) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, translate(err)
		}
	}
	for i, cmd := range there {
		if cmd.Val() {
			standings[i].State = dianemo.Scheduled
		}
	}
	return standings, nil
}

// Specs implements [dianemo.Store].
func (s *Store) Specs(ctx context.Context, ids []string) ([][]byte, error) {
	specs := make([][]byte, 0, len(ids))
	// A few at a time, since they may be large.
	for some := range slices.Chunk(ids, 64) {
		stored, err := s.fieldsOf(ctx, "spec", some)
		if err != nil {
			return nil, err
		}
		for _, id := range some {
			spec, _, err := splitSpec(stored[id])
			if err != nil {
				spec = nil
			}
			specs = append(specs, spec)
		}
	}
	return specs, nil
}
