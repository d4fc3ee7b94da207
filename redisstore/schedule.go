package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// duePage is how many due schedules one call reads.
const duePage = 100

// Fire implements [dianemo.Store].
func (s *Store) Fire(ctx context.Context, partition int, call dianemo.Call, fire dianemo.Fire) (dianemo.FireReply, error) {
	t := s.tag(partition)
	keys := []string{t.call(dianemo.EdgeFire, call.Caller), t.key("info"), t.key("spec"), t.key("meta"), t.key("lanes"),
		t.key("counts"), t.key("cursors"), t.key("fires"), t.key("needs"), t.key("blocked"), t.key("gates")}
	var lanes, schedules []any
	places := map[dianemo.Lane]int{}
	for i := range fire.Firings {
		f := &fire.Firings[i]
		to, summary := millis(f.To), ""
		if f.Extra {
			to = ""
		}
		if u := f.Unrecorded; u.Count > 0 {
			summary = fmt.Sprintf("%d|%s|%s", u.Count, millis(u.First), millis(u.Last))
		}
		pending := 0
		if f.Pending {
			pending = 1
		}
		schedules = append(schedules, f.Name, f.Version, millis(f.Cursor), to, millis(f.Hold), millis(f.Next), summary, string(f.Overlap), pending, max(f.Again.Milliseconds(), 1), len(f.Occurrences))
		for _, o := range f.Occurrences {
			if _, ok := places[o.Lane]; !ok {
				places[o.Lane] = len(places) + 1
				keys = append(keys, t.lane(laneName(o.Lane)), t.done(dianemo.Missed, o.Lane.Kind), t.done(dianemo.Skipped, o.Lane.Kind))
				lanes = append(lanes, laneName(o.Lane))
			}
			teller := ""
			if o.Teller != 0 {
				teller = strconv.FormatUint(o.Teller, 10)
			}
			verdict := "run"
			if o.Missed {
				verdict = "missed"
			}
			schedules = append(schedules, o.ID, unixMilliUp(o.RunAt), places[o.Lane], ownSettings(&o.Record)+"|"+teller, verdict, o.Spec)
		}
	}
	args := append([]any{call.Number, fire.Term, len(lanes)}, append(lanes, schedules...)...)
	replies, err := s.eval(ctx, command{s.scripts.fire, keys, args})
	if err != nil {
		return dianemo.FireReply{}, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return dianemo.FireReply{}, err
	}
	answer := dianemo.FireReply{News: news(reply[1]), First: number(reply[2]) == 1, Fired: make([]dianemo.Fired, len(fire.Firings))}
	if len(reply) != 3+len(fire.Firings) {
		return answer, fmt.Errorf("redisstore: fire answered %d values for %d schedules", len(reply), len(fire.Firings))
	}
	for i := range fire.Firings {
		words := list(reply[3+i])
		if len(words) < 2 {
			return answer, fmt.Errorf("redisstore: fire answered %d words for a schedule", len(words))
		}
		fired := &answer.Fired[i]
		word := text(words[0])
		fired.Done, fired.Waits, fired.Running = word == "done" || word == "waits", word == "waits", text(words[1])
		fired.States = make([]dianemo.State, len(fire.Firings[i].Occurrences))
		for j, state := range words[2:] {
			if word := text(state); j < len(fired.States) && word != "exists" && word != "waits" {
				fired.States[j] = dianemo.State(word)
			}
		}
	}
	return answer, nil
}

// millis is an instant as the scripts get it; zero is ”.
func millis(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(unixMilliUp(t), 10)
}

// SetSchedule implements [dianemo.Store].
func (s *Store) SetSchedule(ctx context.Context, partition int, call dianemo.Call, wish dianemo.ScheduleWish) (bool, error) {
	t := s.tag(partition)
	script, said := s.scripts.schedule, wish.Reason
	if wish.What == dianemo.PutIt {
		// At maxmemory it is refused, as an enqueue is; the others let Redis become emptier, or stop what fills it.
		script, said = s.scripts.put, string(wish.Definition)
	}
	replies, err := s.eval(ctx, command{script, []string{t.call("schedule", call.Caller), t.key("schedules"), t.key("cursors"), t.key("fires"), t.key("info")},
		[]any{call.Number, wish.Name, string(wish.What), wish.Version, said, millis(wish.Cursor), millis(wish.Next), millis(wish.From)}})
	if err != nil {
		return false, err
	}
	switch reply := replies[0]; text(reply[0]) {
	case "moved":
		return false, dianemo.ErrMoved
	case "newer":
		return false, fmt.Errorf("schedule %q: %w", wish.Name, dianemo.ErrNewer)
	case "none":
		return false, fmt.Errorf("%w: %q", dianemo.ErrNoSchedule, wish.Name)
	default:
		return len(reply) > 1 && number(reply[1]) == 1, verdict(reply)
	}
}

// Schedules implements [dianemo.Store].
func (s *Store) Schedules(ctx context.Context, partition int, names []string, offset int) (dianemo.SchedulesReply, error) {
	var answer dianemo.SchedulesReply
	t := s.tag(partition)
	args := []any{duePage, dianemo.MaxFireBytes, offset}
	for _, name := range names[:min(len(names), dianemo.MaxCallJobs)] {
		args = append(args, name)
	}
	replies, err := s.eval(ctx, command{s.scripts.due, []string{t.key("schedules"), t.key("cursors"), t.key("fires"), t.key("spec"), t.key("meta")}, args})
	if err != nil {
		return answer, err
	}
	reply := replies[0]
	if err := verdict(reply); err != nil {
		return answer, err
	}
	if len(reply) < 4 {
		return answer, fmt.Errorf("redisstore: due answered %d values", len(reply))
	}
	answer.Asked = len(reply) - 4
	answer.Now, answer.Later, answer.Due = time.UnixMicro(number(reply[1])), instant(number(reply[2])), int(number(reply[3]))
	for _, v := range reply[4:] {
		words := list(v)
		if len(words) != 5 {
			return answer, fmt.Errorf("redisstore: due answered %d words for a schedule", len(words))
		}
		one := dianemo.StoredSchedule{Name: text(words[0]), Next: instant(number(words[3]))}
		if definition := text(words[1]); definition != "" {
			one.Definition = []byte(definition)
		}
		cursor := text(words[2])
		if cursor != "" {
			one.Err = parseCursor(cursor, &one)
		}
		if one.Definition == nil && cursor == "" && one.Next.IsZero() {
			continue // it does not exist
		}
		switch record := text(words[4]); record {
		case "":
		case "fresh":
			one.LastState = dianemo.Scheduled
		default:
			m, err := parseMeta(record)
			switch {
			case err == nil:
				one.LastState, one.LastEnded = dianemo.State(m.state), instant(m.ended)
			case errors.Is(err, dianemo.ErrNewer):
				one.LastState = dianemo.Running // taken to live, as fire.lua does
			}
		}
		answer.Schedules = append(answer.Schedules, one)
	}
	return answer, nil
}

// parseCursor reads what cursor.lua writes, and refuses the same.
func parseCursor(s string, into *dianemo.StoredSchedule) error {
	form, rest, whole := strings.Cut(s, "|")
	if n, ok := digits(form, 1, 18); ok && whole && n > layoutVersion {
		return dianemo.ErrNewer
	}
	f := strings.SplitN(rest, "|", 9)
	if form != "1" || len(f) != 9 {
		return &corruptError{s}
	}
	bad := false
	read := func(field, least int) int64 {
		n, ok := digits(f[field], least, 15)
		bad = bad || !ok
		return n
	}
	into.Version, into.Cursor, into.Seen = read(0, 1), time.UnixMilli(read(2, 1)), instant(read(3, 0))
	into.Last, into.Reason = f[4], f[8]
	into.Unrecorded = dianemo.Unrecorded{Count: read(5, 1), First: instant(read(6, 0)), Last: instant(read(7, 0))}
	state, ok := map[string]dianemo.ScheduleState{"on": dianemo.Active, "paused": dianemo.Paused, "broken": dianemo.Broken}[f[1]]
	into.State = state
	if bad || !ok {
		return &corruptError{s}
	}
	return nil
}

// instant is that many ms since 1970; 0 is the zero time.
func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// ScheduleNames implements [dianemo.Store]. It looks at all names.
func (s *Store) ScheduleNames(ctx context.Context, after string, limit int) ([]string, error) {
	var names, keys []string
	var cmds []*redis.StringSliceCmd
	pipe := s.rdb.Pipeline()
	for p := range s.Partitions() {
		for _, name := range []string{"schedules", "cursors"} { // of which one may have been lost
			keys = append(keys, s.tag(p).key(name))
			cmds = append(cmds, pipe.HKeys(ctx, keys[len(keys)-1]))
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			return nil, s.broken(ctx, err, keys[i])
		}
		for _, name := range cmd.Val() {
			if name > after {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), limit)], nil
}
