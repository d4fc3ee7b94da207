// Package measure is what `dianemo bench` does: it measures the library on a
// Redis, in a namespace of its own that it removes at the end. Run measures;
// Serve is the other end of a peer in a process of its own.
package measure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// The figures, in the order in which they are taken.
const (
	Enqueue  = "enqueue"
	Bulk     = "bulk"
	Drain    = "drain"
	PickUp   = "pickup"
	Schedule = "schedule"
	Idle     = "idle"
)

// Figures are all of them.
var Figures = []string{Enqueue, Bulk, Drain, PickUp, Schedule, Idle}

// Settings say what is measured. Their JSON is part of a report's.
type Settings struct {
	Redis    string   `json:"-"` // host:port or redis://…, which may hold a password; "": a server of its own, or the embedded one
	Embedded bool     `json:"-"` // the embedded one, whatever there is
	Figures  []string `json:"figures"`

	Jobs       int           `json:"jobs"` // 0: DefaultJobs, or EmbeddedJobs
	Payload    int           `json:"payload"`
	Tokens     int           `json:"tokens"`
	Weights    []int         `json:"weights"`
	Kinds      int           `json:"kinds"`
	Partitions int           `json:"partitions"`
	Peers      int           `json:"peers"` // processes; 0: one peer in this process
	Keep       Keep          `json:"keep"`
	Load       bool          `json:"load"`
	Takes      time.Duration `json:"takes_ns"`
	Callers    int           `json:"callers"`
	Batch      int           `json:"batch"`
	Samples    int           `json:"samples"`
	Rate       int           `json:"rate"`
	Waiting    int           `json:"waiting"`
	Idle       time.Duration `json:"idle_ns"`
	Rounds     int           `json:"rounds"`
	SlowLog    bool          `json:"slowlog"`
	LookAround time.Duration `json:"-"` // what peers are given before they count as idle; 0: a second
}

// How many jobs are drained unless settings say so. The embedded Redis is slow
// with long lanes.
const (
	DefaultJobs  = 100_000
	EmbeddedJobs = 10_000
)

// maxPeers is more than one host can start and still measure.
const maxPeers = 256

// Check returns what is wrong, in the words of the command line.
func (s Settings) Check() error {
	for _, f := range []struct {
		flag               string
		value, least, most int
	}{
		{"jobs", s.Jobs, 0, 1_000_000_000},
		{"payload", s.Payload, 2, 256 << 10},
		{"tokens", s.Tokens, 1, dianemo.MaxWeight},
		{"kinds", s.Kinds, 1, 10_000},
		{"partitions", s.Partitions, 1, 4096},
		{"peers", s.Peers, 0, maxPeers},
		{"callers", s.Callers, 1, 10_000},
		{"batch", s.Batch, 1, 100_000},
		{"samples", s.Samples, 1, 1_000_000},
		{"rate", s.Rate, 1, 100_000},
		{"waiting", s.Waiting, 0, 1_000_000_000},
		{"rounds", s.Rounds, 1, 1000},
	} {
		if f.value < f.least || f.value > f.most {
			return fmt.Errorf("--%s=%d: %d to %d are allowed", f.flag, f.value, f.least, f.most)
		}
	}
	if len(s.Weights) == 0 {
		return fmt.Errorf("--weights: name at least one")
	}
	room := s.Tokens - s.reserve()
	for _, w := range s.Weights {
		if w < 1 || w > room {
			return fmt.Errorf("--weights: %d: 1 to %d are allowed, or no peer could ever run the job", w, room)
		}
	}
	if s.Takes < 0 || s.Takes > time.Hour {
		return fmt.Errorf("--takes=%v: 0 to 1h are allowed", s.Takes)
	}
	if s.Idle < time.Second || s.Idle > time.Hour {
		return fmt.Errorf("--idle=%v: 1s to 1h are allowed", s.Idle)
	}
	if s.Redis != "" && s.Embedded {
		return fmt.Errorf("--redis and --embedded exclude each other")
	}
	for _, f := range s.Figures {
		if !slices.Contains(Figures, f) {
			return fmt.Errorf("--figures: %q is none: %s are", f, strings.Join(Figures, ", "))
		}
	}
	if len(s.Figures) == 0 {
		return fmt.Errorf("--figures: name at least one of %s", strings.Join(Figures, ", "))
	}
	return nil
}

// reserve are the tokens that less urgent jobs can't take, where urgent ones are
// measured among them.
func (s Settings) reserve() int {
	if s.Waiting > 0 && slices.Contains(s.Figures, PickUp) {
		return s.Tokens / 4
	}
	return 0
}

// wants reports whether a figure is to be taken.
func (s Settings) wants(figures ...string) bool {
	return slices.ContainsFunc(figures, func(f string) bool { return slices.Contains(s.Figures, f) })
}

// Keep is how many jobs that succeeded are kept of each kind: a number, "none",
// "all" or "default".
type Keep int

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Keep) UnmarshalText(text []byte) error {
	switch word := string(text); word {
	case "default":
		*k = 0
	case "none":
		*k = dianemo.None
	case "all":
		*k = dianemo.Unlimited
	default:
		var n int
		if _, err := fmt.Sscanf(word+"\n", "%d\n", &n); err != nil || n < 1 || n > 1_000_000_000 {
			return fmt.Errorf("%q: a number from 1 to a billion, none, all or default are allowed", word)
		}
		*k = Keep(n)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (k Keep) MarshalText() ([]byte, error) {
	switch k {
	case 0:
		return []byte("default"), nil
	case dianemo.None:
		return []byte("none"), nil
	case dianemo.Unlimited:
		return []byte("all"), nil
	}
	return fmt.Append(nil, int(k)), nil
}

// policy is that of the i-th kind.
func (s *spec) policy(i int) dianemo.Policy {
	p := dianemo.Policy{Weight: s.Weights[i%len(s.Weights)]}
	if s.Keep != 0 {
		p.Keep = dianemo.Keep{dianemo.Succeeded: {Jobs: int(s.Keep)}}
	}
	return p
}

// kinds are those of the jobs.
func (s *spec) kinds() []dianemo.Kind[string] {
	all := make([]dianemo.Kind[string], s.Kinds)
	for i := range all {
		all[i] = dianemo.NewKind[string](fmt.Sprintf("bench.%d", i), s.policy(i))
	}
	return all
}
