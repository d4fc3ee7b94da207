package measure

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// LongCall is the longest that a script call may hold Redis.
const LongCall = 5 * time.Millisecond

// A Script is one of the library's, and how long it held Redis, as far as the
// slowlog knows.
type Script struct {
	Name    string  `json:"name"`
	Longest float64 `json:"longest_ms"`
	Logged  int     `json:"logged"`   // calls that are in the slowlog
	TooLong int     `json:"too_long"` // of these, calls that took more than 5 ms
}

// Scripts is what the slowlog told.
type Scripts struct {
	Known   bool     `json:"known"`    // false: it could not be read
	AboveMs float64  `json:"above_ms"` // shorter calls are not in it
	Calls   []Script `json:"calls"`    // the longest first
}

// A slowLog gathers the namespace's script calls from Redis's slowlog. What others
// have there stays, and what they add is passed over.
type slowLog struct {
	rdb       *redis.Client
	namespace string
	name      func(sha string) string
	above     time.Duration // < 0: it can't be read
	own       bool
	last      int64 // the newest entry that was seen
	scripts   map[string]*Script
}

const (
	logAbove  = time.Millisecond
	logLength = 20_000
)

// openSlowLog changes how much is logged only where change says so: the caller
// puts it back.
func (b *backend) openSlowLog(ctx context.Context, change bool, name func(sha string) string) (*slowLog, error) {
	l := &slowLog{rdb: b.rdb, namespace: b.Namespace, own: b.Kind == Own, name: name, above: -1, scripts: map[string]*Script{}}
	if b.inner != nil {
		return l, nil
	}
	had, err := b.rdb.ConfigGet(ctx, "slowlog-*").Result()
	if err != nil {
		return l, nil // whoever may not read the settings does without
	}
	above, err := strconv.ParseInt(had["slowlog-log-slower-than"], 10, 64)
	if err != nil {
		return l, nil
	}
	if change || b.Kind == Own {
		for name, value := range map[string]int64{"slowlog-log-slower-than": logAbove.Microseconds(), "slowlog-max-len": logLength} {
			if err := b.rdb.ConfigSet(ctx, name, strconv.FormatInt(value, 10)).Err(); err != nil {
				return nil, err
			}
			b.undo[name] = had[name]
		}
		above = logAbove.Microseconds()
	}
	if newest, err := b.rdb.SlowLogGet(ctx, 1).Result(); err != nil {
		return l, nil
	} else if len(newest) > 0 {
		l.last = newest[0].ID
	} else {
		l.last = -1
	}
	if above >= 0 { // less switches it off
		l.above = time.Duration(above) * time.Microsecond
	}
	return l, nil
}

// read takes what is new in the slowlog.
func (l *slowLog) read(ctx context.Context) error {
	if l.above < 0 {
		return nil
	}
	entries, err := l.rdb.SlowLogGet(ctx, logLength).Result()
	if err != nil {
		return err
	}
	newest := l.last
	for _, e := range entries {
		newest = max(newest, e.ID)
		if e.ID <= l.last || len(e.Args) < 4 || !l.ours(e.Args[3]) {
			continue
		}
		name := "a first call, compiling included"
		if strings.EqualFold(e.Args[0], "evalsha") {
			name = cmp.Or(l.name(e.Args[1]), "another script")
		}
		s := l.scripts[name]
		if s == nil {
			s = &Script{Name: name}
			l.scripts[name] = s
		}
		s.Logged++
		s.Longest = max(s.Longest, Micros(e.Duration)/1000)
		if e.Duration > LongCall {
			s.TooLong++
		}
	}
	l.last = newest
	if l.own { // or what is logged would be counted as memory of jobs
		return l.rdb.Do(ctx, "slowlog", "reset").Err()
	}
	return nil
}

// ours reports whether a key is of the namespace.
func (l *slowLog) ours(key string) bool {
	rest, ok := strings.CutPrefix(key, "{"+l.namespace)
	return ok && (strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, "}"))
}

func (l *slowLog) report() Scripts {
	r := Scripts{Known: l.above >= 0, AboveMs: max(Micros(l.above)/1000, 0), Calls: []Script{}}
	for _, s := range l.scripts {
		r.Calls = append(r.Calls, *s)
	}
	slices.SortFunc(r.Calls, func(a, b Script) int {
		return cmp.Or(cmp.Compare(b.Longest, a.Longest), strings.Compare(a.Name, b.Name))
	})
	return r
}
