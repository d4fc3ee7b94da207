package redisstore

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

const someMeta = "1|running||1700000000000|1700000000000000|peer-1|mail/send@v2:2:86400000:4|1700000000000|1700000000000|1|2|3|3|5|4096|s,60000,mail/send@v2:key|a|tail"

func FuzzMeta(f *testing.F) {
	for _, s := range []string{someMeta, "1|scheduled|||0||k:1:-1:0|-1||0|0|0||||", "1|blocked|||0||workflow/w:9:0:1048576|253402300799999||0|0|0|||||",
		"1|scheduled|||0||k:1:9223372036854:0|0||0|0|0|||||", "1|succeeded|||0||k:1:-0:0|0||0|0|0|||||", "1|running||010|0100|p|k:1:0:0|0100|010|010|010|010|010|010|010||", "2|whatever", "2", "01|x", "999999999999999999|", "", "1|",
		strings.Repeat("1|", 40), strings.ReplaceAll(someMeta, "1700", "9999"), strings.ReplaceAll(someMeta, "|1|2|", "|1234567890|2|")} {
		f.Add(s)
	}
	lua := readInLua(f, `
local m, why = read(ARGV[1])
if not m then return {why} end
return {'ok', write(m), m.state, m.reason, m.ended, m.epoch, m.peer, m.lane, m.due, m.started, m.fails, m.reruns, m.runs, m.max_reruns,
  m.weight, m.unique, waits(m), class_of(m.lane), is_workflow(m.lane) and '1' or '0', int(tonumber(m.runs) + 1), int(tonumber(m.due) + 1)}`)
	f.Fuzz(func(t *testing.T, stored string) {
		m, err := parseMeta(stored)
		words := lua.both(t, stored)
		switch {
		case err == dianemo.ErrNewer:
			require.Equal(t, []string{"newer"}, words)
			return
		case err != nil:
			require.Equal(t, []string{"corrupt"}, words)
			return
		}
		require.Equal(t, "ok", words[0])
		require.Equal(t, stored, words[1], "what Lua writes is what it has read")
		lane, ok := m.base()
		require.True(t, ok)
		for i, want := range []any{m.state, m.reason, m.ended, m.epoch, m.peer, m.lane, m.due, m.started, m.fails, m.reruns, m.runs, m.maxReruns, m.weight, m.unique,
			laneName(lane), laneClass(lane), dianemo.IsWorkflow(lane.Kind), m.runs + 1} {
			got := words[2+i]
			switch want := want.(type) {
			case string:
				require.Equal(t, want, got, "field %d", i)
			case bool:
				require.Equal(t, want, got == "1", "field %d", i)
			case int:
				require.Equal(t, strconv.Itoa(want), plain(got), "field %d", i)
			case int64:
				require.Equal(t, strconv.FormatInt(want, 10), plain(got), "field %d", i)
			}
		}
		if -(1<<53) < m.due && m.due < 1<<53-1 {
			require.Equal(t, strconv.FormatInt(m.due+1, 10), words[len(words)-1])
		}
		m.fill(new(dianemo.JobInfo))
		m.history([]any{stored, nil, int64(1)})
	})
}

// plain is a number without what it may have in front; none is 0.
func plain(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	if digits = strings.TrimLeft(digits, "0"); digits == "" {
		return "0"
	}
	return sign + digits
}

func FuzzLane(f *testing.F) {
	for _, s := range []string{"k:2:-1:0", "mail/send@v2:1:60000:1048576", "k:1:9223372036854:0", "k:1:9223372036855:0", "k:1:-0:0", "k:1:01:0", "k:1:0:01", "k:0:0:0",
		"k:1:0:1048577", "k:1:18446744073709551616:0", "k::0:0", ":1:0:0", "k:1:+5:0", strings.Repeat("k", 129) + ":1:0:0", "k:1:0:0:new", "ä:1:0:0"} {
		f.Add(s)
	}
	lua := readInLua(f, `return {lane_of(ARGV[1]) and '1' or '0'}`)
	f.Fuzz(func(t *testing.T, name string) {
		lane, ok := parseBase(name)
		require.Equal(t, ok, lua.both(t, name)[0] == "1", "both readers of a lane's name agree")
		if ok {
			require.Equal(t, name, laneBase(lane))
			require.True(t, 1 <= lane.Priority && lane.Priority <= 9 && 0 <= lane.Weight && lane.Weight <= dianemo.MaxWeight && lane.Grace >= dianemo.Unlimited)
		}
		for again, suffix := range map[bool]string{false: laneNew, true: laneAgain} {
			whole, good := parseLane(name + suffix)
			require.Equal(t, ok, good)
			if lane.Again = again; ok {
				require.Equal(t, lane, whole)
				require.Equal(t, name+suffix, laneName(whole))
			}
		}
		if whole, ok := parseLane(name); ok {
			require.Equal(t, name, laneName(whole))
		}
	})
}

const someCursor = "1|7|on|1700000000000|1700000001000|nightly@20260101T000000Z|3|1699990000000|1699999000000|why|not"

func FuzzCursor(f *testing.F) {
	for _, s := range []string{someCursor, "1|1|paused|0|||0|||", "1|1|broken|1|||0|||its job | can't be read", "2|", "2", "1|1|On|0|||0|||", "1|1|on|-1|||0|||",
		"1|1|on|1234567890123456|||0|||", "1|1|on|0||a\nb|0|||\x00", "", "1", "1|1|on|0|||0||"} {
		f.Add(s)
	}
	lua := readInLua(f, `
local c, why = cursor_of(ARGV[1])
if not c then return {why} end
return {'ok', cursor_text(c), c.version, c.at, c.seen, c.last, c.missed, c.from, c.to, c.reason, c.state}`, "cursor.lua")
	f.Fuzz(func(t *testing.T, stored string) {
		var s dianemo.StoredSchedule
		err := parseCursor(stored, &s)
		words := lua.both(t, stored)
		switch {
		case err == dianemo.ErrNewer:
			require.Equal(t, []string{"newer"}, words)
			return
		case err != nil:
			require.Equal(t, []string{"corrupt"}, words)
			return
		}
		require.Equal(t, []string{"ok", stored}, words[:2])
		ms := func(at time.Time) string {
			if at.IsZero() {
				return "0"
			}
			return strconv.FormatInt(at.UnixMilli(), 10)
		}
		require.Equal(t, []string{strconv.FormatInt(s.Version, 10), ms(s.Cursor), ms(s.Seen), s.Last, strconv.FormatInt(s.Unrecorded.Count, 10),
			ms(s.Unrecorded.First), ms(s.Unrecorded.Last), s.Reason},
			[]string{plain(words[2]), plain(words[3]), plain(words[4]), words[5], plain(words[6]), plain(words[7]), plain(words[8]), words[9]})
		require.Equal(t, words[10], map[dianemo.ScheduleState]string{dianemo.Active: "on", dianemo.Paused: "paused", dianemo.Broken: "broken"}[s.State])
	})
}

func FuzzUnique(f *testing.F) {
	f.Add("mail/send@v2", "customer/7", int64(time.Minute), true)
	f.Add("k", "a,b:c|d", int64(0), false)
	f.Add("k", "", int64(math.MaxInt64), false)
	f.Add("workflow/k", "+", int64(1), true)
	lua := readInLua(f, `
local till, lasts, slot = slot_of(ARGV[1])
if not till then return {'none'} end
return {till, lasts, slot}`)
	f.Fuzz(func(t *testing.T, kind, key string, lasts int64, started bool) {
		lua.both(t, key) // whatever it says
		uniqueKey(key)
		if dianemo.CheckName("kind", kind) != nil || dianemo.CheckName("key", key) != nil || lasts < 0 || lasts > int64(dianemo.MaxSpan) {
			return
		}
		u := dianemo.Unique{Key: key, For: time.Duration(lasts)}
		till := "f"
		if started {
			u.Until, till = dianemo.UntilStarted, "s"
		}
		field := uniqueField(kind, u)
		require.Equal(t, []string{till, strconv.FormatInt(millisUp(u.For), 10), slotName(kind, key)}, lua.both(t, field))
		require.Equal(t, key, uniqueKey(field))
		require.NotContains(t, field, "|", "the record has room for it")
	})
}

func FuzzTotals(f *testing.F) {
	for _, s := range []string{"", "0,0,0,0,0#", "3,2,1,0,1#123456789012345", "3,2,1,4,0#7 60000 peer-1", "1,2,3,4,5", "1234567890,0,0,0,0#", "1,2,0,0,0#", "3,1,2,0,0#",
		"1,0,0,0,0# 1234567890 p", "1,0,0,0,0#  ", "1,0,0,99999999999999999999999,0#1"} {
		f.Add(s)
	}
	lua := readInLua(f, `
local t = totals(ARGV[1])
if t.corrupt then return {'corrupt'} end
local words = {'ok', sums_of(t)}
t = totals(words[2])
return {'ok', words[2], t.corrupt and 'corrupt' or sums_of(t), int(t.pending - 1), int(t.violated - 1), int(t.left - 1), int(t.out - 1)}`)
	f.Fuzz(func(t *testing.T, stored string) {
		words := lua.both(t, stored)
		if words[0] == "ok" {
			require.Equal(t, words[1], words[2], "what is written is read as it was")
		}
	})
}

// A score is what a server makes of it.
func FuzzScore(f *testing.F) {
	for _, score := range []float64{1700000000000000, 2000000000000000, 0, 1.5, -1, 1e16, 1e16 + 2, math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64} {
		f.Add(score)
	}
	lua := readInLua(f, `
redis.call('ZADD', 'scores', ARGV[1], 'member')
return {since(redis.call('ZRANGE', 'scores', 0, 0, 'WITHSCORES')[2])}`)
	f.Fuzz(func(t *testing.T, score float64) {
		if math.IsNaN(score) {
			return
		}
		text := strconv.FormatFloat(score, 'f', -1, 64)
		if math.IsInf(score, 0) {
			text = strings.ToLower(text)
		}
		want := "0"
		if 0 <= score && score <= 1e16 {
			want = strconv.FormatFloat(score, 'f', 0, 64)
		}
		require.Equal(t, []string{want}, lua.both(t, text), text)
	})
}

func FuzzSpecStamp(f *testing.F) {
	for _, s := range []string{"1k\x01k1700000000000", "1700000000000", "170000000000", "spec+170000000000", "spec-170000000000", "spec0x1234567890a", "spec1000000000e99",
		"spec 170000000000", "spec1700000000.00", "", "spec١٧٠٠"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		spec, at, err := splitSpec(stored)
		if err != nil {
			return
		}
		back := append(spec[:len(spec):len(spec)], strconv.FormatInt(1e13+at.UnixMilli(), 10)[1:]...)
		require.Equal(t, stored, string(back))
	})
}

func FuzzDecision(f *testing.F) {
	for _, s := range []string{"!a b\n{\"n\":1}", "!\n", "!", "!a", `{"n":1}`, "", "!  a\t\n\n", "!a\n!b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		chosen, result := decision(stored)
		for _, id := range chosen {
			require.False(t, strings.ContainsAny(id, " \n"))
		}
		if !strings.HasPrefix(stored, "!") {
			require.Empty(t, chosen)
			require.Equal(t, stored, string(result))
			return
		}
		again, back := decision(string(decided(chosen, result)))
		require.Equal(t, chosen, again)
		require.Equal(t, string(result), string(back))
	})
}

func FuzzRun(f *testing.F) {
	for _, s := range []string{"1700000000000|1700000000000000|peer-1|fail|error|it | broke\nthere", "1|2|p|lost|silent|the peer was silent for too long", "||||||", "a|b|c|d|e|f", "1|2|3|4|5",
		"-1|-1||||", "9223372036854775807|-9223372036854775808||||", "+1|+2||||"} {
		f.Add(s)
	}
	readable := regexp.MustCompile(`^-?[0-9]{1,18}\|-?[0-9]{1,18}\|[^|]*\|[^|]*\|[^|]*\|`)
	f.Fuzz(func(t *testing.T, stored string) {
		run := parseRun(stored)
		if readable.MatchString(stored) {
			require.NotEqual(t, stored, run.Error, "what can be read is")
		}
		if run.Epoch == 0 && run.Error == stored {
			return
		}
		text := strings.Join([]string{strconv.FormatInt(run.EndedAt.UnixMilli(), 10), strconv.FormatInt(run.Epoch, 10), run.Peer, string(run.Outcome), run.Reason, run.Error}, "|")
		require.Equal(t, run, parseRun(text))
		history := (&meta{state: "running", epoch: run.Epoch}).history([]any{stored, text, nil})
		require.Len(t, history, 3)
	})
}

func FuzzPresence(f *testing.F) {
	for _, s := range []string{`{"host":"h","pid":7,"version":"v1","started":1700000000000,"kinds":["a","b"],"weights":{"a":4},"tokens":64,"reserve":{"1":16},"running":{"2":3},"jobs":3,` +
		`"stuck":["id"],"closing":true,"drained":true,"silent":20000,"load":{"share":0.5,"pressure":0.1},"available":48,"hot":true,"built":1690000000000}`,
		`{}`, `null`, `{"silent":9223372036854775807}`, `{"silent":-1}`, `{"load":{}}`, `{"kinds":[],"reserve":{}}`, `[]`, `{"reserve":{"x":1}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		r, err := parsePresence(stored)
		if err != nil {
			return
		}
		peer := r.peer()
		again := presenceOf(&peer)
		require.Equal(t, r, again)
		text, err := again.encode()
		require.NoError(t, err)
		back, err := parsePresence(text)
		require.NoError(t, err)
		next, err := back.encode()
		require.NoError(t, err)
		require.Equal(t, text, next)
		require.True(t, 0 <= peer.SilentAfter && peer.SilentAfter <= dianemo.MaxSpan)
	})
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"look 3 mail/send@v2", "look -1 ", "near 0  id-1 k:2:-1:0:new 1700000000000 id-2 k:2:-1:0:again 1", "beat 64 ", "fire +1 ", "", "  ", "near 0 k id lane x",
		"near 0 k id k:1:0:0:new 99999999999999999999", "look 00 k", "near 0 k a|b k:1:0:0:new 1"} {
		f.Add(s)
	}
	store := New(nil, Options{})
	store.partitions.Store(64)
	f.Fuzz(func(t *testing.T, text string) {
		m, ok := store.decode(text)
		if !ok {
			return
		}
		require.True(t, dianemo.Everywhere <= m.Partition && m.Partition < 64)
		back, ok := store.decode(encode(m))
		require.True(t, ok)
		require.Equal(t, m, back)
	})
}

func FuzzKeep(f *testing.F) {
	for _, s := range []string{"1|succeeded:86400000:10000 failed:-1:-1 missed:0:5 ", "1|", "1| ", "2|x", "", "1|succeeded:9223372036854775807:9", "1|succeeded:-9223372036854775808:-9223372036854775808",
		"1|a:b:c", "1|a:1", "1|succeeded:1:1 succeeded:2:2", "1|::"} {
		f.Add(s)
	}
	store := New(nil, Options{})
	f.Fuzz(func(t *testing.T, stored string) {
		keep, ok := decodeKeep(stored)
		if !ok {
			return
		}
		back, ok := decodeKeep(encodeKeep(keep))
		require.True(t, ok)
		require.Equal(t, keep, back)
		for _, state := range []dianemo.State{dianemo.Succeeded, dianemo.Failed} {
			r := keep.Of(state)
			require.GreaterOrEqual(t, keptMillis(r.For), int64(-1))
			require.GreaterOrEqual(t, store.share(r.Jobs), -1)
		}
	})
}

func FuzzEdge(f *testing.F) {
	for _, s := range []string{"parent|child", "job||workflow", "workflow#job", "", "|", "#", "||", "a|||b", "a#|b", "a|b#c", "a#b#c", "a|" + strings.Repeat("b", 129), "ä|b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, edge string) {
		parent, child, listed, ok := parseEdge(edge)
		if !ok {
			return
		}
		mark := "|"
		if listed {
			mark = "#"
		}
		require.Contains(t, []string{parent + mark + child, parent + "||" + child}, edge)
		require.False(t, listed && strings.Contains(edge, "|"))
		again, back, _, ok := parseEdge(parent + mark + child)
		require.True(t, ok)
		require.Equal(t, []string{parent, child}, []string{again, back})
	})
}

func FuzzCounter(f *testing.F) {
	for _, s := range []string{"succeeded:mail/send@v2:2", "running:k:2", "failed::2", "failed:k", "failed:k:2:3", "done:k:1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		if state, kind, ok := endedField(field); ok {
			require.True(t, state.Finished())
			require.NoError(t, dianemo.CheckName("kind", kind))
			require.True(t, strings.HasPrefix(field, string(state)+":"+kind+":"))
		}
	})
}

// A claim's answer has stored records and specs in it.
func FuzzClaimedJobs(f *testing.F) {
	spec := string(dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Args: []byte(`{}`)})) + "1700000000000"
	size := strconv.Itoa(len(spec))
	f.Add(int64(1), "a 1700000000000 "+size, spec)
	f.Add(int64(0), "a r"+strconv.Itoa(len(someMeta))+" "+size+" b 1 -", someMeta+spec)
	f.Add(int64(2), "a r3 - b r-1 5", "1|x")
	f.Add(int64(1), "a", "")
	f.Add(int64(1), "a  9223372036854775808", "x")
	lane := dianemo.Lane{Kind: "mail/send@v2", Priority: 2, Grace: 24 * time.Hour, Weight: 4}
	claim := dianemo.Claim{Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1}}}
	f.Fuzz(func(t *testing.T, place int64, words, texts string) {
		answer := dianemo.TurnReply{Now: time.UnixMilli(1_700_000_000_000)}
		if err := begunIn([]any{place, words, texts}, claim, &answer); err != nil {
			return
		}
		require.Equal(t, words == "", len(answer.Jobs) == 0)
		for _, job := range answer.Jobs {
			require.NotContains(t, job.ID, " ")
			if job.Corrupt == "" && job.Spec != nil {
				_, _ = dianemo.DecodeSpec(job.Spec)
			}
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add("k:2:-1:0:new k:2:-1:0:new+ k:2:60000:4:again", "1700000000000")
	f.Add("+ ++ x+", "nan")
	f.Add("", "1e400")
	f.Fuzz(func(t *testing.T, names, number string) {
		for _, one := range news(names) {
			require.NoError(t, dianemo.CheckName("kind", one.Kind))
		}
		for _, head := range headsOf([]any{names, number, int64(1), nil}) {
			require.Equal(t, names, laneName(head.Lane))
		}
		moved([]any{names, number, names, number})
		runRefs([]any{names, number, nil})
		_, err := parseMeta(names)
		var corrupt *corruptError
		require.True(t, err == nil || err == dianemo.ErrNewer || errors.As(err, &corrupt))
	})
}
