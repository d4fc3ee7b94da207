// Package redisstore keeps Dianemo's jobs in Redis 7 or newer, standalone,
// behind Sentinel or in a Cluster. Each edge of a job's life is one Lua script;
// keys.go has the layout.
//
// The client's own log, which go-redis writes to standard error, is turned off
// or elsewhere by redis.SetLogger.
//
// Redis must not evict: set maxmemory-policy noeviction. What a crash of Redis
// itself can lose is decided by its persistence and replication.
package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Options of a store. The zero value works.
type Options struct {
	// Namespace is a prefix that separates applications sharing a Redis: 1 to
	// 128 letters, digits and . _ - / @ +; default "dianemo".
	Namespace string
	// Partitions divides the namespace, 1 to 4096. It is recorded in Redis by
	// whoever is first; a program that says otherwise afterwards gets a
	// dianemo.LayoutError. Default: what is recorded, else 64 on a Cluster and 1
	// elsewhere.
	Partitions int
	// Plain leaves the line with flags out of the scripts, for servers that
	// don't know it (miniredis). Against a real Redis at its maxmemory, plain
	// scripts that let work finish are refused like all others.
	Plain bool
}

// maxPartitions bounds what chores and readers must visit.
const maxPartitions = 4096

// Bounds of one script call.
const (
	// largeSpec is the size from which a job's record says it, so that a claim
	// can bound its bytes before it reads them.
	largeSpec = 2 << 10
	lanesPage = 128
)

// Store is a [dianemo.Store] in Redis. It is safe for concurrent use, and
// starts no goroutine of its own. Closing the client is up to its owner.
type Store struct {
	rdb        redis.UniversalClient
	options    Options
	scripts    scripts
	partitions atomic.Int32 // 0 until opened
}

var _ dianemo.Store = (*Store)(nil)

// New makes a store on a client. Nothing is sent, and nothing is checked,
// before Open, which peers and clients call by themselves.
func New(rdb redis.UniversalClient, options Options) *Store {
	if options.Namespace == "" {
		options.Namespace = "dianemo"
	}
	return &Store{rdb: rdb, options: options, scripts: loadScripts(options.Plain)}
}

// Open implements [dianemo.Store].
func (s *Store) Open(ctx context.Context) error {
	if s.rdb == nil {
		return &dianemo.FieldError{Field: "redisstore.New(rdb)", Value: nil, Allowed: "a client"}
	}
	if err := dianemo.CheckName("Options.Namespace", s.options.Namespace); err != nil {
		return err
	}
	if p := s.options.Partitions; p < 0 || p > maxPartitions {
		return &dianemo.FieldError{Field: "Options.Partitions", Value: p, Allowed: fmt.Sprintf("1 to %d, or 0 for the default", maxPartitions)}
	}
	return s.present(ctx, "", "")
}

// Partitions implements [dianemo.Store].
func (s *Store) Partitions() int { return int(s.partitions.Load()) }

// Partition implements [dianemo.Store].
func (s *Store) Partition(id string) int { return partitionOf(id, s.Partitions()) }

func (s *Store) tag(partition int) tag { return partitionTag(s.options.Namespace, partition) }

func (s *Store) space() tag { return namespaceTag(s.options.Namespace) }

// present runs the script of that name and checks the layout it answers.
func (s *Store) present(ctx context.Context, peer, record string) error {
	// If Redis has lost the record, what was learned from it counts.
	partitions := s.options.Partitions
	if partitions == 0 {
		partitions = s.Partitions()
	}
	if partitions == 0 {
		partitions = 1
		if _, cluster := s.rdb.(*redis.ClusterClient); cluster {
			partitions = 64
		}
	}
	space := s.space()
	replies, err := s.eval(ctx, command{s.scripts.present,
		[]string{space.key("layout"), space.key("peers"), space.key("seen")},
		[]any{layoutVersion, partitions, peer, record}})
	if err != nil {
		return err
	}
	stored := [3]int{}
	for i := range stored {
		text, _ := replies[0][i].(string)
		if stored[i], err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("redisstore: the record of the layout is corrupt: %w", err)
		}
	}
	mismatch := func(field string, stored, own int) error {
		return &dianemo.LayoutError{Namespace: s.options.Namespace, Field: field, Stored: stored, Own: own}
	}
	switch {
	case stored[0] > layoutVersion:
		return mismatch("layout", stored[0], layoutVersion)
	case stored[1] > layoutVersion:
		return mismatch("min_peer", stored[1], layoutVersion)
	case stored[2] < 1 || stored[2] > maxPartitions || s.options.Partitions != 0 && s.options.Partitions != stored[2]:
		return mismatch("partitions", stored[2], s.options.Partitions)
	case s.partitions.Load() != 0 && int(s.partitions.Load()) != stored[2]:
		return mismatch("partitions", stored[2], int(s.partitions.Load()))
	}
	s.partitions.Store(int32(stored[2]))
	return nil
}

// Enqueue implements [dianemo.Store]. More than 500 records or 1 MiB are more
// than one call takes.
func (s *Store) Enqueue(ctx context.Context, partition int, call dianemo.Call, records []dianemo.Record) (dianemo.EnqueueReply, error) {
	t := s.tag(partition)
	keys := []string{t.call(dianemo.EdgeEnqueue, call.Caller), t.key("spec"), t.key("meta"), t.key("lanes")}
	places := make(map[dianemo.Lane]int, 4)
	args := make([]any, 2, 2+8+2*len(records))
	for _, r := range records {
		if _, ok := places[r.Lane]; !ok {
			places[r.Lane] = len(places) + 1
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
	answer := dianemo.EnqueueReply{Existing: make([]dianemo.State, len(records)), Wake: number(reply[1]) == 1}
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

// Turn implements [dianemo.Store].
func (s *Store) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	t := s.tag(partition)
	var commands []command
	if len(settle) > 0 {
		commands = append(commands, s.settle(t, call, settle))
	}
	if claim.Limit > 0 {
		commands = append(commands, s.claim(t, call, claim))
	}
	var answer dianemo.TurnReply
	if len(commands) == 0 {
		return answer, nil
	}
	replies, err := s.eval(ctx, commands...)
	if err != nil {
		return answer, err
	}
	for _, reply := range replies {
		if err := verdict(reply); err != nil {
			return answer, err
		}
	}
	if len(settle) > 0 {
		answer.Wake = number(replies[0][1]) == 1
		answer.Stale = runRefs(replies[0][2:])
	}
	if claim.Limit > 0 {
		return answer, claimed(replies[len(replies)-1], claim, &answer)
	}
	return answer, nil
}

func (s *Store) settle(t tag, call dianemo.Call, settle []dianemo.Settlement) command {
	keys := []string{t.call(dianemo.EdgeSettle, call.Caller), t.key("meta"), t.run(call.Caller), t.key("lanes"),
		t.key("counts"), t.key("errors"), t.key("result"), t.key("progress")}
	type target struct {
		state dianemo.State
		lane  dianemo.Lane
	}
	places := make(map[target]int, 4)
	args := make([]any, 3, 3+3*4+2*len(settle))
	targets := make([]int, len(settle))
	for i := range settle {
		where := target{dianemo.Scheduled, settle[i].Lane}
		switch settle[i].Outcome {
		case dianemo.Succeed:
			where.state = dianemo.Succeeded
		case dianemo.FailRun:
			where.state = dianemo.Failed
		case dianemo.Unstarted:
		default:
			where.lane.Again = true
		}
		if _, ok := places[where]; !ok {
			places[where] = len(places) + 1
			name := ""
			if where.state == dianemo.Scheduled {
				name = laneName(where.lane)
				keys = append(keys, t.lane(name))
			} else {
				keys = append(keys, t.done(where.state, where.lane.Kind))
			}
			args = append(args, string(where.state), name, laneClass(where.lane))
		}
		targets[i] = places[where]
	}
	args[0], args[1], args[2] = call.Number, call.Caller, len(places)
	// Most jobs succeeded without a result: their ids are all that is said of
	// them, in groups of one target and epoch. Jobs claimed together for the
	// first time have the same epoch.
	type group struct {
		target int
		epoch  int64
	}
	var order []group
	groups := make(map[group][]string, 4)
	var singles []any
	for i := range settle {
		r := &settle[i]
		if r.Outcome != dianemo.Succeed || r.Result != nil || r.Error != "" || r.Reason != "" {
			singles = append(singles, r.ID, r.Epoch, string(r.Outcome), targets[i], millisUp(r.In), r.Reason, r.Error, r.Result)
			continue
		}
		g := group{targets[i], r.Epoch}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], r.ID)
	}
	args = append(args, len(order))
	for _, g := range order {
		args = append(args, g.target, g.epoch, len(groups[g]))
		for _, id := range groups[g] {
			args = append(args, id)
		}
	}
	args = append(args, singles...)
	return command{s.scripts.settle, keys, args}
}

func (s *Store) claim(t tag, call dianemo.Call, claim dianemo.Claim) command {
	keys := make([]string, 0, 8+2*len(claim.Lanes))
	keys = append(keys, t.call(dianemo.EdgeClaim, call.Caller), t.key("spec"), t.key("meta"), t.run(call.Caller),
		t.key("beats"), t.key("info"), t.key("lanes"), t.key("counts"))
	args := make([]any, 0, 17+9*len(claim.Lanes))
	args = append(args, call.Number, call.Caller, min(claim.Limit, dianemo.MaxCallJobs), dianemo.MaxCallBytes, claim.BeatEvery.Milliseconds(),
		claim.From, lanesPage, string(dianemo.SpecVersion))
	for level := 1; level <= 9; level++ {
		args = append(args, claim.Room[level])
	}
	for _, l := range claim.Lanes {
		name, expired := laneName(l.Lane), laneExpired(l.Lane)
		keys = append(keys, t.lane(name), t.done(expired, l.Kind))
		args = append(args, name, laneBase(l.Lane), laneClass(l.Lane), l.Priority, graceMillis(l.Grace), string(expired),
			l.Lane.Weight, l.Weight, l.Reruns)
	}
	return command{s.scripts.claim, keys, args}
}

// claimed reads a claim's reply.
func claimed(reply []any, claim dianemo.Claim, answer *dianemo.TurnReply) error {
	if len(reply) != 5 {
		return fmt.Errorf("redisstore: claim answered %d values", len(reply))
	}
	answer.Now = time.UnixMicro(number(reply[1]))
	jobs, missed, lanes := list(reply[2]), list(reply[3]), list(reply[4])
	bases := make(map[string]int, len(claim.Lanes))
	if len(jobs) > 0 {
		for j := range claim.Lanes {
			bases[laneBase(claim.Lanes[j].Lane)] = j
		}
		answer.Jobs = make([]dianemo.Claimed, 0, len(jobs)/3)
	}
	for i := 0; i+2 < len(jobs); i += 3 {
		job, m, err := readMeta(text(jobs[i]), text(jobs[i+2]))
		if err != nil {
			return err // the script has just written it
		}
		j, ok := bases[m.lane]
		if !ok {
			lane, good := parseBase(m.lane)
			if !good {
				return fmt.Errorf("redisstore: claim answered a job of lane %.40q", m.lane)
			}
			job.Lane = lane
		} else {
			job.Lane = claim.Lanes[j].Lane
		}
		job.Lane.Again = job.Runs > 1
		if job.Weight == 0 && ok {
			job.Weight = claim.Lanes[j].Weight
		}
		spec := text(jobs[i+1])
		switch {
		case len(spec) < stampSize:
			job.Corrupt = "its spec is missing"
		case m.reason != "":
			job.Corrupt = "its record could not be read"
			fallthrough
		default:
			job.Spec, job.Enqueued, err = splitSpec(spec)
			if err != nil {
				job.Corrupt = err.Error()
			}
		}
		answer.Jobs = append(answer.Jobs, job)
	}
	answer.Missed = moved(missed)
	for i := 0; i+1 < len(lanes); i += 2 {
		lane, ok := parseLane(text(lanes[i]))
		due, err := strconv.ParseFloat(text(lanes[i+1]), 64)
		if ok && err == nil {
			answer.Lanes = append(answer.Lanes, dianemo.LaneHead{Lane: lane, Due: time.UnixMilli(int64(due))})
		}
	}
	if len(lanes) == 2*lanesPage {
		answer.Next = claim.From + lanesPage
	}
	return nil
}

// Beat implements [dianemo.Store].
func (s *Store) Beat(ctx context.Context, partition int, beat dianemo.Beat) (dianemo.BeatReply, error) {
	t := s.tag(partition)
	keys := []string{t.key("beats"), t.key("info"), t.run(beat.Peer), t.key("progress")}
	var answer dianemo.BeatReply
	for rest, first := beat.Runs, true; first || len(rest) > 0; first = false {
		batch := rest[:min(len(rest), dianemo.MaxCallJobs)]
		rest = rest[len(batch):]
		args := make([]any, 0, 2+3*len(batch))
		args = append(args, beat.Peer, beat.Every.Milliseconds())
		for _, r := range batch {
			progress := ""
			if r.Progress != nil {
				b, err := json.Marshal(r.Progress)
				if err != nil {
					return answer, fmt.Errorf("redisstore: progress of job %s: %w", r.ID, err)
				}
				progress = string(b)
			}
			args = append(args, r.ID, r.Epoch, progress)
		}
		replies, err := s.eval(ctx, command{s.scripts.beat, keys, args})
		if err != nil {
			return answer, err
		}
		if err := verdict(replies[0]); err != nil {
			return answer, err
		}
		answer.Held = int(number(replies[0][1]))
		answer.Lost = append(answer.Lost, runRefs(replies[0][2:])...)
	}
	return answer, nil
}

// Lead implements [dianemo.Store].
func (s *Store) Lead(ctx context.Context, bid dianemo.Bid) (dianemo.Lease, error) {
	wish := "bid"
	if bid.Resign {
		wish = "resign"
	}
	space := s.space()
	replies, err := s.eval(ctx, command{s.scripts.lead, []string{space.key("leader"), space.key("term")},
		[]any{bid.Peer, bid.Lease.Milliseconds(), wish}})
	if err != nil {
		return dianemo.Lease{}, err
	}
	return dianemo.Lease{Leader: text(replies[0][0]), Term: number(replies[0][1])}, nil
}

// Wake implements [dianemo.Store].
func (s *Store) Wake(ctx context.Context, partition int) error {
	if err := s.rdb.Publish(ctx, s.space().key("wake"), partition).Err(); err != nil {
		return translate(err)
	}
	return nil
}

// Listen implements [dianemo.Store].
func (s *Store) Listen(ctx context.Context, woken func(partition int)) error {
	sub := s.rdb.Subscribe(ctx, s.space().key("wake"))
	defer sub.Close()
	// A receive that waits for a message does not hear of the context's end.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer stop()
	for pinged := false; ; {
		message, err := sub.ReceiveTimeout(ctx, listenTimeout)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && !pinged {
			// Quiet or cut off? The answer to a ping tells.
			pinged, err = true, sub.Ping(ctx)
		}
		if err != nil {
			return translate(err)
		}
		switch m := message.(type) {
		case *redis.Pong:
			pinged = false
		case *redis.Subscription:
			woken(-1) // what was published before is lost
		case *redis.Message:
			pinged = false
			if p, err := strconv.Atoi(m.Payload); err == nil && 0 <= p && p < s.Partitions() {
				woken(p)
			}
		}
	}
}

// listenTimeout is how long a subscription may be quiet before it is tested.
const listenTimeout = 10 * time.Second

// text and number read one value of a reply; what has another type is "" and 0.
func text(v any) string {
	t, _ := v.(string)
	return t
}

func number(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case string:
		i, _ := strconv.ParseInt(n, 10, 64)
		return i
	}
	return 0
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func moved(words []any) []dianemo.Moved {
	var jobs []dianemo.Moved
	for i := 0; i+2 < len(words); i += 3 {
		lane, _ := parseBase(text(words[i+2]))
		jobs = append(jobs, dianemo.Moved{ID: text(words[i]), State: dianemo.State(text(words[i+1])), Kind: lane.Kind, Priority: lane.Priority})
	}
	return jobs
}

func runRefs(words []any) []dianemo.RunRef {
	var runs []dianemo.RunRef
	for i := 0; i+1 < len(words); i += 2 {
		runs = append(runs, dianemo.RunRef{ID: text(words[i]), Epoch: number(words[i+1])})
	}
	return runs
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
