package redisstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Turn implements [dianemo.Store].
func (s *Store) Turn(ctx context.Context, partition int, call dianemo.Call, settle []dianemo.Settlement, claim dianemo.Claim) (dianemo.TurnReply, error) {
	t := s.tag(partition)
	var answer dianemo.TurnReply
	var commands []command
	var readers []func(reply []any) error // one for each
	if len(settle) > 0 {
		commands = append(commands, s.settle(t, call, settle))
		readers = append(readers, func(reply []any) error {
			answer.News = news(reply[1])
			answer.Stale, answer.Cancelled = runRefs(list(reply[2])), runRefs(list(reply[3]))
			answer.Heirs = number(reply[4]) > 0
			return nil
		})
	}
	if claim.Stance.Move != 0 {
		commands = append(commands, s.stance(call.Caller, claim.Stance))
		readers = append(readers, func(reply []any) (err error) {
			answer.Unheard, err = s.unheard(ctx, call.Caller, claim.Stance, reply)
			return err
		})
	}
	if claim.Limit > 0 {
		commands = append(commands, s.claim(t, call, claim))
		readers = append(readers, func(reply []any) error { return claimed(reply, claim, &answer) })
	}
	if len(commands) == 0 {
		return answer, nil
	}
	replies, err := s.eval(ctx, commands...)
	if err != nil {
		return answer, err
	}
	for i, reply := range replies {
		if err := verdict(reply); err != nil {
			return answer, err
		}
		if err := readers[i](reply); err != nil {
			return answer, err
		}
	}
	return answer, nil
}

// ownFail is the outcome that settle is told of a run whose handler called its
// error final. It is kept as FailRun.
const ownFail = "own"

func (s *Store) settle(t tag, call dianemo.Call, settle []dianemo.Settlement) command {
	keys := []string{t.call(dianemo.EdgeSettle, call.Caller), t.key("meta"), t.run(call.Caller), t.key("lanes"),
		t.key("counts"), t.key("errors"), t.key("result"), t.key("progress")}
	type target struct {
		state dianemo.State
		lane  dianemo.Lane
	}
	places := make(map[target]int, 4)
	var kept []string
	trimmed := make(map[string]bool, 2)
	args := make([]any, 3, 3+4*4+16)
	targets := make([]int, len(settle))
	// place declares a target. One that is a lane, or the set of failed jobs,
	// needs another one, for jobs that were cancelled while they ran.
	place := func(where target) int {
		if n, ok := places[where]; ok {
			return n
		}
		places[where] = len(places) + 1
		if where.state == dianemo.Scheduled {
			name := laneName(where.lane)
			keys = append(keys, t.lane(name))
			args = append(args, string(where.state), name, laneClass(where.lane), 0)
		} else {
			keys = append(keys, t.done(where.state, where.lane.Kind))
			args = append(args, string(where.state), "", laneClass(where.lane), 0)
		}
		return places[where]
	}
	for i := range settle {
		where := target{dianemo.Scheduled, settle[i].Lane}
		switch settle[i].Outcome {
		case dianemo.Succeed:
			where.state = dianemo.Succeeded
		case dianemo.FailRun:
			where.state = dianemo.Failed
		case dianemo.CancelRun:
			where.state = dianemo.Cancelled
		case dianemo.Unstarted:
		default:
			where.lane.Again = true
		}
		targets[i] = place(where)
		if where.state == dianemo.Scheduled || where.state == dianemo.Failed {
			// Before the assignment: it may move the arguments.
			instead := place(target{dianemo.Cancelled, dianemo.Lane{Kind: where.lane.Kind, Priority: where.lane.Priority}})
			args[2+4*targets[i]] = instead
		}
		if where.state == dianemo.Scheduled {
			continue
		}
		if keep, set := settle[i].Keep, keys[7+targets[i]]; keep != (dianemo.Retention{}) && !trimmed[set] {
			// Once for each set, whatever the priorities.
			trimmed[set] = true
			kept = append(kept, fmt.Sprintf("%d:%d:%d", targets[i], keptMillis(keep.For), s.share(keep.Jobs)))
		}
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
	groups := make(map[group][]byte, 4) // ids, separated by spaces
	var singles []any
	for i := range settle {
		r := &settle[i]
		if r.Outcome != dianemo.Succeed || r.Result != nil || r.Error != "" || r.Reason != "" {
			outcome := string(r.Outcome)
			if r.Outcome == dianemo.FailRun && r.Own {
				outcome = ownFail
			}
			result := r.Result
			if r.Decides {
				result = decided(r.Chosen, result)
			}
			singles = append(singles, r.ID, r.Epoch, outcome, targets[i], millisUp(r.In), r.Reason, r.Error, result)
			continue
		}
		g := group{targets[i], r.Epoch}
		ids := groups[g]
		if ids == nil {
			order = append(order, g)
			ids = make([]byte, 0, (len(settle)-i)*(len(r.ID)+1))
		}
		groups[g] = append(append(ids, r.ID...), ' ')
	}
	args = append(args, strings.Join(kept, " "), len(order))
	for _, g := range order {
		args = append(args, g.target, g.epoch, groups[g])
	}
	args = append(args, singles...)
	return command{s.scripts.settle, append(keys, t.key("unique"), t.key("spec"), t.key("kids"), t.key("outbox")), args}
}

func (s *Store) claim(t tag, call dianemo.Call, claim dianemo.Claim) command {
	keys := make([]string, 0, 10+2*len(claim.Lanes))
	keys = append(keys, t.call(dianemo.EdgeClaim, call.Caller), t.key("spec"), t.key("meta"), t.run(call.Caller),
		t.key("beats"), t.key("info"), t.key("lanes"), t.key("counts"))
	args := make([]any, 0, 19+9*len(claim.Lanes))
	args = append(args, call.Number, call.Caller, min(claim.Limit, dianemo.MaxCallJobs), dianemo.MaxCallBytes, claim.BeatEvery.Milliseconds(),
		claim.From, lanesPage, string(dianemo.SpecVersion))
	for level := 1; level <= 9; level++ {
		args = append(args, claim.Room[level])
	}
	hold := ""
	if claim.Hold != nil {
		hold = laneName(*claim.Hold)
	}
	args = append(args, claim.SilentAfter.Milliseconds(), hold)
	for _, l := range claim.Lanes {
		name, expired := laneName(l.Lane), laneExpired(l.Lane)
		keys = append(keys, t.lane(name), t.done(expired, l.Kind))
		args = append(args, name, laneBase(l.Lane), laneClass(l.Lane), l.Priority, graceMillis(l.Grace), string(expired),
			l.Lane.Weight, l.Weight, l.Reruns)
	}
	for _, job := range claim.Near {
		if place := slices.IndexFunc(claim.Lanes, func(l dianemo.ClaimLane) bool { return l.Lane == job.Lane }); place >= 0 {
			args = append(args, place+1, job.ID, job.Until.UnixMilli())
		}
	}
	return command{s.scripts.claim, append(keys, t.heirs()...), args}
}

// claimed reads a claim's reply.
func claimed(reply []any, claim dianemo.Claim, answer *dianemo.TurnReply) error {
	if len(reply) != 7 {
		return fmt.Errorf("redisstore: claim answered %d values", len(reply))
	}
	answer.Now = time.UnixMicro(number(reply[1]))
	for _, batch := range list(reply[2]) {
		if err := begunIn(list(batch), claim, answer); err != nil {
			return err
		}
	}
	answer.Missed = moved(list(reply[3]))
	lanes := list(reply[4])
	answer.Lanes = headsOf(lanes)
	answer.Held = number(reply[6]) == 1
	if len(lanes) == 2*lanesPage {
		answer.Next = claim.From + lanesPage
	}
	answer.Paused = strings.Fields(text(reply[5]))
	return nil
}

// begunIn reads the jobs of one lane. Their ids share memory.
func begunIn(batch []any, claim dianemo.Claim, answer *dianemo.TurnReply) error {
	if len(batch) != 3 {
		return fmt.Errorf("redisstore: claim answered %d values for a lane", len(batch))
	}
	var lane dianemo.ClaimLane
	if place := number(batch[0]); 1 <= place && place <= int64(len(claim.Lanes)) {
		lane = claim.Lanes[place-1]
	}
	words, texts := text(batch[1]), text(batch[2])
	answer.Jobs = slices.Grow(answer.Jobs, strings.Count(words, " ")/3+1)
	for words != "" {
		var id, record, size, spec string
		id, words, _ = strings.Cut(words, " ")
		record, words, _ = strings.Cut(words, " ")
		size, words, _ = strings.Cut(words, " ")
		whole := true
		if had, ok := strings.CutPrefix(record, "r"); ok {
			record, texts, whole = cut(texts, had)
		}
		if whole && size != "-" {
			spec, texts, whole = cut(texts, size)
		}
		if !whole {
			return fmt.Errorf("redisstore: claim answered too little for job %.80q", id)
		}
		answer.Jobs = append(answer.Jobs, begun(id, spec, record, lane, claim, answer.Now))
	}
	return nil
}

// cut returns so many bytes of a text, and those behind them, if there are as many.
func cut(text, size string) (head, rest string, ok bool) {
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > len(text) {
		return "", text, false
	}
	return text[:n], text[n:], true
}

// begun reads one claimed job. A job that had no record runs for the first
// time, since now, and only its due time is told; others come with their record.
// One that can't be read makes the job corrupt, and the other jobs are run.
func begun(id, spec, record string, lane dianemo.ClaimLane, claim dianemo.Claim, now time.Time) dianemo.Claimed {
	job := dianemo.Claimed{ID: id, Lane: lane.Lane, Weight: lane.Weight, Epoch: now.UnixMicro(), Runs: 1}
	if due, err := strconv.ParseInt(record, 10, 64); err == nil {
		job.Due = time.UnixMilli(due)
	} else {
		m, err := parseMeta(record)
		if err != nil {
			job.Corrupt = "its record could not be read"
		}
		if lane.Kind == "" {
			// An answer given again does not say from which lane.
			job.Lane = unknownLane
			for _, l := range claim.Lanes {
				if laneBase(l.Lane) == m.lane {
					job.Lane, job.Weight = l.Lane, l.Weight
				}
			}
		}
		if err == nil {
			job.Epoch, job.Due, job.Weight = m.epoch, time.UnixMilli(m.due), cmp.Or(m.weight, job.Weight)
			job.Fails, job.Reruns, job.Runs = m.fails, m.reruns, m.runs
		}
		switch m.reason {
		case "cancel":
			job.Cancelled = true // since the claim that is answered again
		case "corrupt":
			job.Corrupt = "its record could not be read"
		}
	}
	job.Lane.Again = job.Runs > 1
	if len(spec) < stampSize {
		job.Corrupt = "its spec is missing"
		return job
	}
	var err error
	if job.Spec, job.Enqueued, err = splitSpec(spec); err != nil {
		job.Corrupt = err.Error()
	}
	return job
}
