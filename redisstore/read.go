package redisstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Get implements [dianemo.Store].
func (s *Store) Get(ctx context.Context, id string) (*dianemo.StoredJob, error) {
	t := s.tag(s.Partition(id))
	// Where a job without a record waits is said by its spec, and by the time
	// that is asked it may have been claimed: then it has a record, and the next
	// round finds it.
	for range 3 {
		job, lane, err := s.get(ctx, t, id)
		if err != nil || job.Info.State != dianemo.Scheduled {
			return job, err
		}
		pipe := s.rdb.Pipeline()
		due, now := pipe.ZScore(ctx, t.lane(laneName(lane)), id), pipe.Time(ctx)
		_, _ = pipe.Exec(ctx) // each command has its own error
		if due.Err() == redis.Nil {
			continue
		}
		if err := errors.Join(due.Err(), now.Err()); err != nil {
			return nil, translate(err)
		}
		job.Info.Due = time.UnixMilli(int64(due.Val()))
		switch {
		case job.Info.Runs > 0:
			job.Info.State = dianemo.Retrying
		case !job.Info.Due.After(now.Val()):
			job.Info.State = dianemo.Queued
		}
		return job, nil
	}
	return nil, fmt.Errorf("redisstore: job %s moves too fast to be read, or is in no index", id)
}

func (s *Store) get(ctx context.Context, t tag, id string) (*dianemo.StoredJob, dianemo.Lane, error) {
	var lane dianemo.Lane
	fields := make([]string, dianemo.MaxHistory)
	for i := range fields {
		fields[i] = strconv.Itoa(i) + "|" + id
	}
	pipe := s.rdb.Pipeline()
	specCmd, metaCmd := pipe.HGet(ctx, t.key("spec"), id), pipe.HGet(ctx, t.key("meta"), id)
	resultCmd, progressCmd := pipe.HGet(ctx, t.key("result"), id), pipe.HGet(ctx, t.key("progress"), id)
	errorsCmd := pipe.HMGet(ctx, t.key("errors"), fields...)
	_, _ = pipe.Exec(ctx) // each command has its own error
	for _, cmd := range []redis.Cmder{specCmd, metaCmd, resultCmd, progressCmd, errorsCmd} {
		if err := cmd.Err(); err != nil && err != redis.Nil {
			return nil, lane, translate(err)
		}
	}
	if specCmd.Err() == redis.Nil && metaCmd.Err() == redis.Nil {
		return nil, lane, fmt.Errorf("%w: %q", dianemo.ErrNotFound, id)
	}
	job := &dianemo.StoredJob{Info: dianemo.JobInfo{ID: id, State: dianemo.Scheduled}}
	info := &job.Info
	var specErr error
	job.Spec, info.EnqueuedAt, specErr = splitSpec(specCmd.Val())
	if specErr == nil {
		if spec, err := dianemo.DecodeSpec(job.Spec); err == nil {
			lane = spec.Lane()
		}
	}
	var m meta
	if metaCmd.Err() == nil {
		var err error
		if m, err = parseMeta(metaCmd.Val()); err != nil {
			return nil, lane, fmt.Errorf("job %s: %w", id, err)
		}
		if l, ok := parseBase(m.lane); ok {
			lane = l
		}
		m.fill(info)
		info.UniqueKey = uniqueKey(m.unique)
	}
	info.Kind, info.Priority, info.Grace = lane.Kind, lane.Priority, lane.Grace
	lane.Again = info.Runs > 0
	if resultCmd.Err() == nil {
		info.Chosen, info.Result = decision(resultCmd.Val())
	}
	if progressCmd.Err() == nil {
		if err := json.Unmarshal([]byte(progressCmd.Val()), &info.Progress); err != nil {
			return nil, lane, fmt.Errorf("redisstore: progress of job %s: %w", id, err)
		}
	}
	info.History = m.history(errorsCmd.Val())
	return job, lane, nil
}

// decision takes a result apart: whom the job chose stands before it, in a line of its own that begins
// with a !, which no JSON does. See heirs.lua.
func decision(stored string) (chosen []string, result json.RawMessage) {
	if rest, ok := strings.CutPrefix(stored, "!"); ok {
		line, own, _ := strings.Cut(rest, "\n")
		if chosen, stored = strings.Fields(line), own; stored == "" {
			return chosen, nil
		}
	}
	return chosen, json.RawMessage(stored)
}

// decided is the inverse of decision.
func decided(chosen []string, result json.RawMessage) []byte {
	return []byte("!" + strings.Join(chosen, " ") + "\n" + string(result))
}

func (m *meta) fill(info *dianemo.JobInfo) {
	at := func(ms int64) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms)
	}
	info.State, info.Weight, info.Due = dianemo.State(m.state), m.weight, at(max(m.due, 0))
	info.StartedAt, info.EndedAt = at(m.started), at(m.ended)
	info.Runs, info.Peer, info.Epoch, info.Reason = m.runs, m.peer, m.epoch, m.reason
	info.Attempt = m.fails + m.reruns
	switch info.State {
	case dianemo.Running, dianemo.Succeeded, dianemo.Unreachable:
		info.Attempt++
	}
}

// history reads the ring of a job's runs, oldest first, and adds the one that
// the record itself tells of: the present one, or the one that succeeded.
func (m *meta) history(ring []any) []dianemo.Run {
	var runs []dianemo.Run
	for _, entry := range ring {
		if s, ok := entry.(string); ok {
			runs = append(runs, parseRun(s))
		}
	}
	slices.SortFunc(runs, func(a, b dianemo.Run) int { return cmp.Compare(a.Epoch, b.Epoch) })
	switch last := (dianemo.Run{Epoch: m.epoch, Peer: m.peer, StartedAt: startOf(m.epoch)}); dianemo.State(m.state) {
	case dianemo.Succeeded:
		last.EndedAt, last.Outcome = time.UnixMilli(m.ended), dianemo.Succeed
		runs = append(runs, last)
	case dianemo.Running:
		runs = append(runs, last)
	}
	return runs
}

// parseRun reads what settle.lua and reap.lua say of a run. An entry that can't be
// read is shown as it is.
func parseRun(s string) dianemo.Run {
	f := strings.SplitN(s, "|", 6)
	if len(f) != 6 {
		return dianemo.Run{Error: s}
	}
	ms, err1 := strconv.ParseInt(f[0], 10, 64)
	epoch, err2 := strconv.ParseInt(f[1], 10, 64)
	if err1 != nil || err2 != nil {
		return dianemo.Run{Error: s}
	}
	return dianemo.Run{Epoch: epoch, Peer: f[2], StartedAt: startOf(epoch), EndedAt: time.UnixMilli(ms),
		Outcome: dianemo.Outcome(f[3]), Reason: f[4], Error: f[5]}
}

// startOf is when the run with this epoch began. Like all other times it is cut
// to the millisecond, so that no run ends before it begins.
func startOf(epoch int64) time.Time { return time.UnixMilli(epoch / 1000) }

// Counts implements [dianemo.Store], each partition at one moment: jobs that wait are counted by their
// lanes, all others by the counters that the scripts keep.
func (s *Store) Counts(ctx context.Context) ([]dianemo.Count, error) {
	type class struct {
		state    dianemo.State
		kind     string
		priority int
	}
	sums := map[class]int64{}
	now, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return nil, translate(err)
	}
	for p := range s.Partitions() {
		counters, waits, err := s.countsIn(ctx, s.tag(p), now)
		if err != nil {
			return nil, err
		}
		for field, value := range counters {
			f := strings.Split(field, ":")
			n, err := strconv.ParseInt(value, 10, 64)
			if len(f) != 3 || err != nil {
				continue // a newer version's
			}
			priority, err := strconv.Atoi(f[2])
			if err != nil {
				continue
			}
			sums[class{dianemo.State(f[0]), f[1], priority}] += n
		}
		for _, w := range waits {
			all, due := w.all.Val(), min(w.due.Val(), w.all.Val())
			if w.lane.Again {
				sums[class{dianemo.Retrying, w.lane.Kind, w.lane.Priority}] += all
				continue
			}
			sums[class{dianemo.Queued, w.lane.Kind, w.lane.Priority}] += due
			sums[class{dianemo.Scheduled, w.lane.Kind, w.lane.Priority}] += all - due
		}
	}
	var counts []dianemo.Count
	for c, n := range sums {
		if n != 0 {
			counts = append(counts, dianemo.Count{State: c.state, Kind: c.kind, Priority: c.priority, Jobs: n})
		}
	}
	sort.Slice(counts, func(i, j int) bool {
		a, b := counts[i], counts[j]
		if a.Kind != b.Kind {
			return a.Kind < b.Kind
		}
		if a.Priority != b.Priority {
			return a.Priority < b.Priority
		}
		return a.State < b.State
	})
	return counts, nil
}

// A waiting lane: how many jobs it has, and how many are due.
type waiting struct {
	lane     dianemo.Lane
	all, due *redis.IntCmd
}

// countsIn reads one partition at one moment: again, if a lane came up between
// the reading of their names and that moment.
func (s *Store) countsIn(ctx context.Context, t tag, now time.Time) (map[string]string, []waiting, error) {
	names, err := s.rdb.ZRange(ctx, t.key("lanes"), 0, -1).Result()
	if err != nil {
		return nil, nil, translate(err)
	}
	for try := 1; ; try++ {
		pipe := s.rdb.TxPipeline()
		counters, present := pipe.HGetAll(ctx, t.key("counts")), pipe.ZRange(ctx, t.key("lanes"), 0, -1)
		var waits []waiting
		for _, name := range names {
			if lane, ok := parseLane(name); ok {
				key := t.lane(name)
				waits = append(waits, waiting{lane, pipe.ZCard(ctx, key), pipe.ZCount(ctx, key, "-inf", strconv.FormatInt(now.UnixMilli(), 10))})
			}
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, nil, translate(err)
		}
		came := slices.ContainsFunc(present.Val(), func(name string) bool { return !slices.Contains(names, name) })
		if !came || try == 5 {
			return counters.Val(), waits, nil
		}
		names = present.Val()
	}
}

// Ahead implements [dianemo.Store].
func (s *Store) Ahead(ctx context.Context, partition, priority int, due time.Time) (time.Time, int64, error) {
	t := s.tag(partition)
	pipe := s.rdb.Pipeline()
	nowCmd, namesCmd := pipe.Time(ctx), pipe.ZRange(ctx, t.key("lanes"), 0, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return time.Time{}, 0, translate(err)
	}
	now := nowCmd.Val()
	pipe = s.rdb.Pipeline()
	var counts []*redis.IntCmd
	for _, name := range namesCmd.Val() {
		lane, ok := parseLane(name)
		switch {
		case !ok:
		case lane.Priority < priority:
			counts = append(counts, pipe.ZCount(ctx, t.lane(name), "-inf", strconv.FormatInt(now.UnixMilli(), 10)))
		case lane.Priority == priority && !due.After(now):
			counts = append(counts, pipe.ZCount(ctx, t.lane(name), "-inf", "("+strconv.FormatInt(due.UnixMilli(), 10)))
		}
	}
	if len(counts) == 0 {
		return now, 0, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return now, 0, translate(err)
	}
	jobs := int64(0)
	for _, c := range counts {
		jobs += c.Val()
	}
	return now, jobs, nil
}

// A presence is how a peer shows itself, as stored.
type presence struct {
	Host      string         `json:"host"`
	PID       int            `json:"pid"`
	Version   string         `json:"version"`
	Started   int64          `json:"started"` // ms
	Kinds     []string       `json:"kinds"`
	Weights   map[string]int `json:"weights,omitempty"`
	Tokens    int            `json:"tokens"`
	Reserve   map[int]int    `json:"reserve,omitempty"`
	Running   map[int]int    `json:"running,omitempty"`
	Jobs      int            `json:"jobs"`
	Stuck     []string       `json:"stuck,omitempty"`
	Closing   bool           `json:"closing,omitempty"`
	Drained   bool           `json:"drained,omitempty"`
	Silent    int64          `json:"silent"`         // ms
	Load      *presentLoad   `json:"load,omitempty"` // nil: not known
	Available int            `json:"available"`
	Hot       bool           `json:"hot,omitempty"`
	Built     int64          `json:"built"` // ms
}

type presentLoad struct {
	Share    float64  `json:"share"`
	Pressure *float64 `json:"pressure,omitempty"`
}

func presenceOf(peer *dianemo.PeerInfo) presence {
	var load *presentLoad
	if peer.LoadKnown {
		load = &presentLoad{peer.Load, peer.Pressure}
	}
	return presence{peer.Host, peer.PID, peer.Version, peer.Started.UnixMilli(), peer.Kinds, peer.Weights, peer.Tokens,
		peer.Reserve, peer.Running, peer.Jobs, peer.Stuck, peer.Closing, peer.Draining, peer.SilentAfter.Milliseconds(), load, peer.Available, peer.Hot, peer.Built.UnixMilli()}
}

func (r presence) encode() (string, error) {
	b, err := json.Marshal(r)
	return string(b), err
}

func parsePresence(s string) (presence, error) {
	var r presence
	err := json.Unmarshal([]byte(s), &r)
	r.Silent = min(max(r.Silent, 0), dianemo.MaxSpan.Milliseconds())
	return r, err
}

// peer is what readers see of it; it has neither an id nor when it was seen.
func (r *presence) peer() dianemo.PeerInfo {
	peer := dianemo.PeerInfo{Host: r.Host, PID: r.PID, Version: r.Version, Started: time.UnixMilli(r.Started),
		Kinds: r.Kinds, Weights: r.Weights, Tokens: r.Tokens, Reserve: r.Reserve, Running: r.Running, Jobs: r.Jobs, Stuck: r.Stuck,
		Closing: r.Closing, Draining: r.Drained, SilentAfter: time.Duration(r.Silent) * time.Millisecond, Available: r.Available, Hot: r.Hot, Built: time.UnixMilli(r.Built)}
	if r.Load != nil {
		peer.Load, peer.LoadKnown, peer.Pressure = r.Load.Share, true, r.Load.Pressure
	}
	return peer
}

// Present implements [dianemo.Store].
func (s *Store) Present(ctx context.Context, peer dianemo.PeerInfo, gone bool) (drained bool, err error) {
	if gone {
		return s.present(ctx, peer.ID, "")
	}
	record, err := presenceOf(&peer).encode()
	if err != nil {
		return false, fmt.Errorf("redisstore: record of peer %s: %w", peer.ID, err)
	}
	return s.present(ctx, peer.ID, record)
}

// Peers implements [dianemo.Store]: those seen within their own limit of
// silence. A record that can't be read is left out.
func (s *Store) Peers(ctx context.Context) ([]dianemo.PeerInfo, error) {
	pipe := s.rdb.Pipeline()
	recordsCmd, seenCmd := pipe.HGetAll(ctx, s.space().key("peers")), pipe.ZRangeWithScores(ctx, s.space().key("seen"), 0, -1)
	nowCmd := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, translate(err)
	}
	var peers []dianemo.PeerInfo
	for _, z := range seenCmd.Val() {
		id, _ := z.Member.(string)
		r, err := parsePresence(recordsCmd.Val()[id])
		if err != nil {
			continue
		}
		peer := r.peer()
		peer.ID, peer.Seen = id, time.UnixMilli(int64(z.Score))
		if nowCmd.Val().Sub(peer.Seen) > peer.SilentAfter {
			continue
		}
		peers = append(peers, peer)
	}
	sort.Slice(peers, func(i, j int) bool { return peers[i].ID < peers[j].ID })
	return peers, nil
}
