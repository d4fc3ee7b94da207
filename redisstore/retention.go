package redisstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// share is a partition's part of what is kept, rounded up; -1: no limit.
func (s *Store) share(jobs int) int {
	if jobs == dianemo.None {
		return 0
	}
	if jobs <= 0 {
		return -1
	}
	partitions := max(s.Partitions(), 1)
	return (jobs + partitions - 1) / partitions
}

// keptMillis rounds up; -1: no limit.
func keptMillis(d time.Duration) int64 {
	if d <= 0 {
		return -1
	}
	return millisUp(d)
}

// encodeKeep writes what is kept of a kind: the version, then state:ms:jobs for
// each state that does not inherit all.
func encodeKeep(keep dianemo.Keep) string {
	var b strings.Builder
	b.WriteString("1|")
	for _, state := range slices.Sorted(maps.Keys(keep)) {
		r := keep[state]
		age := int64(r.For)
		if r.For > 0 {
			age = millisUp(r.For)
		}
		fmt.Fprintf(&b, "%s:%d:%d ", state, age, r.Jobs)
	}
	return b.String()
}

// decodeKeep reads it, and whether it can be read: if not, nothing of the kind
// is let go of.
func decodeKeep(s string) (dianemo.Keep, bool) {
	rest, ok := strings.CutPrefix(s, "1|")
	if !ok {
		return nil, false
	}
	keep := dianemo.Keep{}
	for _, word := range strings.Fields(rest) {
		f := strings.Split(word, ":")
		if len(f) != 3 {
			return nil, false
		}
		age, err1 := strconv.ParseInt(f[1], 10, 64)
		jobs, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil {
			return nil, false
		}
		r := dianemo.Retention{For: time.Duration(age), Jobs: jobs}
		if age > 0 {
			r.For = time.Duration(min(age, dianemo.MaxSpan.Milliseconds())) * time.Millisecond
		}
		keep[dianemo.State(f[0])] = r
	}
	return keep, true
}

// Declare implements [dianemo.Store].
func (s *Store) Declare(ctx context.Context, keeps map[string]dianemo.Keep, anew bool) error {
	how := "missing"
	if anew {
		how = "anew"
	}
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(keeps)), dianemo.MaxCallJobs) {
		args := []any{how}
		for _, kind := range batch {
			args = append(args, kind, encodeKeep(keeps[kind]))
		}
		replies, err := s.eval(ctx, command{s.scripts.declare, []string{s.space().key("kinds")}, args})
		if err != nil {
			return err
		}
		if err := verdict(replies[0]); err != nil {
			return err
		}
	}
	return nil
}

// trimSets is how many sets of ended jobs one call looks at.
const trimSets = 128

// Trim implements [dianemo.Store]. The counters tell which sets of ended jobs
// there are; each 128 of them are a call of their own to the script, so their
// numbers are counted on from the chore's.
func (s *Store) Trim(ctx context.Context, partition int, call dianemo.Call, chore dianemo.Chore) (dianemo.TrimReply, error) {
	var answer dianemo.TrimReply
	t := s.tag(partition)
	pipe := s.rdb.Pipeline()
	kindsCmd, countsCmd := pipe.HGetAll(ctx, s.space().key("kinds")), pipe.HKeys(ctx, t.key("counts"))
	if _, err := pipe.Exec(ctx); err != nil {
		return answer, s.broken(ctx, err, s.space().key("kinds"), t.key("counts"))
	}
	if len(kindsCmd.Val()) == 0 {
		// It was lost: those who handle the kinds will say it again, and until then
		// the defaults could be too little.
		return answer, nil
	}
	var names []string
	var limits []any
	seen := map[string]bool{}
	for _, field := range countsCmd.Val() {
		state, kind, ok := endedField(field)
		if !ok || seen[t.done(state, kind)] {
			continue
		}
		seen[t.done(state, kind)] = true
		var keep dianemo.Keep
		if declared, ok := kindsCmd.Val()[kind]; ok {
			if keep, ok = decodeKeep(declared); !ok {
				continue
			}
		}
		r := keep.Of(state)
		names = append(names, t.done(state, kind))
		limits = append(limits, string(state), keptMillis(r.For), s.share(r.Jobs))
	}
	keys := []string{t.call("trim", call.Caller), t.key("info"), t.key("counts"), t.key("spec"), t.key("meta"), t.key("result"),
		t.key("errors"), t.key("unique")}
	const calls = 1 << 10 // in one chore
	for i := 0; i < len(names) && i < calls*trimSets; i += trimSets {
		if answer.Jobs >= chore.Limit {
			answer.More = true
			break
		}
		end := min(i+trimSets, len(names))
		args := []any{call.Number*calls + uint64(i/trimSets), chore.Term, min(chore.Limit-answer.Jobs, dianemo.MaxCallJobs)}
		replies, err := s.eval(ctx, command{s.scripts.trim, slices.Concat(keys, names[i:end], t.heirs()), append(args, limits[3*i:3*end]...)})
		if err != nil {
			return answer, err
		}
		if err := verdict(replies[0]); err != nil {
			return answer, err
		}
		answer.Jobs += int(number(replies[0][1]))
		answer.More = answer.More || number(replies[0][2]) == 1
		for _, id := range list(replies[0][3]) {
			answer.Held = append(answer.Held, text(id))
		}
	}
	return answer, nil
}

// endedField reads the name of a counter of ended jobs.
func endedField(field string) (dianemo.State, string, bool) {
	f := strings.Split(field, ":")
	if len(f) != 3 || !dianemo.State(f[0]).Finished() || dianemo.CheckName("kind", f[1]) != nil {
		return "", "", false
	}
	return dianemo.State(f[0]), f[1], true
}
