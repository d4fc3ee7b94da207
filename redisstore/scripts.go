package redisstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

//go:embed *.lua
var sources embed.FS

// scripts are the embedded scripts: one for each edge, and those that move no
// job.
type scripts struct {
	enqueue, claim, settle, beat, reap, miss, lead   *redis.Script
	cancel, requeue, reschedule                      *redis.Script
	present, survey, stand, wake, pause, drain, list *redis.Script
	declare, trim, repair, sweep, recount, aside     *redis.Script
	slots, fire, schedule, put, due                  *redis.Script
	needs, link, heirs, passed, release, overdue     *redis.Script
	expunge, ends, mend, kin                         *redis.Script

	names map[string]string // by SHA-1
	// For scripts that a full store refuses: what answers a call that was here before, and otherwise
	// sees to it that it is refused for good.
	remember map[*redis.Script]*redis.Script
}

// scriptsOf are shared by all stores of a process, those for plain servers and the others.
var scriptsOf = map[bool]func() scripts{
	false: sync.OnceValue(func() scripts { return loadScripts(false) }),
	true:  sync.OnceValue(func() scripts { return loadScripts(true) }),
}

// loadScripts puts the common part in front of each. At maxmemory only enqueue,
// fire and put are refused: all others are flagged allow-oom, since they let work
// finish. plain leaves the flags out, for servers that don't know them.
func loadScripts(plain bool) scripts {
	names := map[string]string{}
	assemble := func(head, name, flags string, parts ...string) *redis.Script {
		text := head + read("common.lua")
		for _, part := range append(parts, name) {
			text += read(part + ".lua")
		}
		if !plain {
			text = strings.TrimSpace("#!lua "+flags) + "\n" + text
		}
		script := redis.NewScript(text)
		names[script.Hash()] = name
		return script
	}
	const finish = "flags=allow-oom"
	load := func(name, flags string, parts ...string) *redis.Script { return assemble("", name, flags, parts...) }
	remember := map[*redis.Script]*redis.Script{}
	refusable := func(name string, parts ...string) *redis.Script {
		script := assemble("local full = false\n", name, "", parts...)
		remember[script] = assemble("local full = true\n", name, finish, parts...)
		return script
	}
	return scripts{
		names: names, remember: remember,

		enqueue: refusable("enqueue"),
		claim:   load("claim", finish),
		settle:  load("settle", finish, "kept"),
		beat:    load("beat", finish),
		reap:    load("reap", finish),
		miss:    load("miss", finish),
		lead:    load("lead", finish),
		present: load("present", finish),
		cancel:  load("cancel", finish),
		requeue: load("requeue", finish),
		survey:  load("survey", finish),
		stand:   load("stand", finish),
		wake:    load("wake", finish),
		pause:   load("pause", finish),
		drain:   load("drain", finish),
		list:    load("list", "flags=no-writes"),
		declare: load("declare", finish),
		trim:    load("trim", finish, "kept"),
		repair:  load("repair", finish),
		sweep:   load("sweep", finish),
		recount: load("recount", finish),
		aside:   load("aside", finish),
		slots:   load("slots", finish),
		fire:    refusable("fire", "cursor"),
		due:     load("due", "flags=no-writes", "cursor"),

		needs:   load("needs", ""),
		link:    load("link", finish),
		heirs:   load("heirs", "flags=no-writes"),
		passed:  load("passed", finish),
		release: load("release", finish),
		overdue: load("overdue", finish),
		expunge: load("expunge", finish, "kept"),
		ends:    load("ends", "flags=no-writes"),
		mend:    load("mend", finish),
		kin:     load("kin", finish),

		schedule: load("schedule", finish, "cursor"),
		put:      load("schedule", "", "cursor"),

		reschedule: load("reschedule", finish),
	}
}

// ScriptName is the name of the script that has this SHA-1, as Redis's SLOWLOG and
// MONITOR show it in EVALSHA; "" if it is none of this store's. It is that of the
// edge, where the script is one.
func (s *Store) ScriptName(sha string) string { return s.scripts.names[sha] }

func read(name string) string {
	text, err := sources.ReadFile(name)
	if err != nil {
		panic(err) // embedded at build time
	}
	return string(text)
}

// A command is one script with its keys and arguments.
type command struct {
	script *redis.Script
	keys   []string
	args   []any
}

// eval sends the commands in one round trip. A script that the server doesn't
// know is sent again as text; all are safe to be sent twice.
func (s *Store) eval(ctx context.Context, commands ...command) ([][]any, error) {
	cmds := make([]*redis.Cmd, len(commands))
	if len(commands) == 1 {
		c := commands[0]
		cmds[0] = s.rdb.EvalSha(ctx, c.script.Hash(), c.keys, c.args...)
	} else {
		pipe := s.rdb.Pipeline()
		for i, c := range commands {
			cmds[i] = pipe.EvalSha(ctx, c.script.Hash(), c.keys, c.args...)
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
	}
	replies := make([][]any, len(commands))
	for i, cmd := range cmds {
		reply, err := cmd.Slice()
		if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
			c := commands[i]
			reply, err = c.script.Eval(ctx, s.rdb, c.keys, c.args...).Slice()
		}
		if redis.IsOOMError(err) {
			reply, err = s.remembered(ctx, commands[i], err)
		}
		if err != nil {
			return nil, s.broken(ctx, err, commands[i].keys...)
		}
		if len(reply) == 0 {
			return nil, errors.New("redisstore: a script answered nothing")
		}
		replies[i] = reply
	}
	return replies, nil
}

// remembered is the answer to a call that Redis refuses since it is full, and that it had carried
// out before: its reply was lost, and the client library, or the caller, has sent it again. If it was
// not here before, the error is why it is refused, and it stays so if an earlier sending still comes.
func (s *Store) remembered(ctx context.Context, c command, refused error) ([]any, error) {
	script := s.scripts.remember[c.script]
	if script == nil {
		return nil, refused
	}
	reply, err := script.Run(ctx, s.rdb, c.keys, c.args...).Slice()
	if err != nil {
		return nil, err
	}
	if len(reply) > 0 && reply[0] == "full" {
		return nil, refused // which says more
	}
	return reply, nil
}

// verdict turns a script's one-word refusals into errors.
func verdict(reply []any) error {
	switch word, _ := reply[0].(string); word {
	case "ok", "kinds":
		return nil
	case "superseded":
		return dianemo.ErrSuperseded
	case "deposed":
		return dianemo.ErrDeposed
	case "full":
		return dianemo.ErrStoreFull
	default:
		return fmt.Errorf("redisstore: unexpected answer %.40q", word)
	}
}

// translate names those of Redis's errors that callers branch on.
func translate(err error) error {
	if redis.IsOOMError(err) || redis.HasErrorPrefix(err, "OOM") {
		return fmt.Errorf("%w: %v", dianemo.ErrStoreFull, err)
	}
	return fmt.Errorf("redisstore: %w", err)
}

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

// news reads the names of lanes that have work sooner than before; a + behind
// one says that it is not due yet.
func news(v any) []dianemo.News {
	var all []dianemo.News
	for _, word := range strings.Fields(text(v)) {
		name, later := strings.CutSuffix(word, "+")
		lane, ok := parseLane(name)
		one := dianemo.News{Kind: lane.Kind, Priority: lane.Priority, Weight: lane.Lightest(), Later: later}
		if ok && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// headsOf reads lanes with their first due times; those of newer programs are
// left out.
func headsOf(words []any) []dianemo.LaneHead {
	var heads []dianemo.LaneHead
	for i := 0; i+1 < len(words); i += 2 {
		lane, ok := parseLane(text(words[i]))
		due, err := strconv.ParseFloat(text(words[i+1]), 64)
		if ok && err == nil {
			heads = append(heads, dianemo.LaneHead{Lane: lane, Due: time.UnixMilli(int64(due))})
		}
	}
	return heads
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
