package history

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// A story is a history and its end, told in lines:
//
//	5 p1 claim a 5          at 5 ms the process p1 claimed the job with the mark a, under the epoch of 5 ms
//	job a retries=1         it was asked for at 0 and accepted at 1 ms
//	run a 5..9 p1 retry     p1 ran it from 5 to 9 ms, and the store accepted that
//	quiet a 5..9 p1 retry   the same, but p1 was killed before it heard of it
//	die a 5 p1              p1 began to run it at 5 ms; nobody saw the end, and the run was lost
//	= a succeeded           its final state; epochs, peers and results are those of the runs before
//	final charged=p1:3      the rest of the final state
//
// Words with a = say more of what stands before them.
type story struct {
	t      *testing.T
	events []Event
	final  Final
	runs   map[string][]Run
	wishes map[string]*Wish
	call   int64
}

// unixAtZero is what Unix time is at 0 ms, in ms.
const unixAtZero = 1_800_000_000_000

func ms(n int64) Moment { return Moment(n * 1e6) }

func epochAt(n int64) int64 { return (unixAtZero + n) * 1000 }

func tell(t *testing.T, text string) *story {
	s := &story{t: t, runs: map[string][]Run{}, wishes: map[string]*Wish{}}
	for _, name := range []string{"p1", "p2", "p3"} {
		if !strings.Contains(text, name+" hello") {
			s.line("-10 " + name + " hello")
		}
	}
	for line := range strings.Lines(text) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) != "" {
			s.line(strings.TrimSpace(line))
		}
	}
	slices.SortStableFunc(s.events, func(a, b Event) int { return int(a.At - b.At) })
	last := ms(0)
	for _, e := range s.events {
		last = max(last, e.At)
	}
	if s.final.Calm == 0 {
		s.final.Calm = last
	}
	for _, m := range []*Moment{&s.final.Led, &s.final.Drained} {
		if *m == 0 {
			*m = s.final.Calm + 1
		}
		if *m < 0 {
			*m = 0
		}
	}
	return s
}

func (s *story) line(line string) {
	words, more := []string{}, map[string]string{}
	for _, w := range strings.Fields(line) {
		if name, value, ok := strings.Cut(w, "="); ok && name != "" {
			more[name] = value
		} else {
			words = append(words, w)
		}
	}
	switch words[0] {
	case "job":
		s.line("0 c invoke" + line[3:])
		s.line("1 c ok " + words[1])
	case "run", "quiet":
		from, to, _ := strings.Cut(words[2], "..")
		mark, peer, outcome := words[1], words[3], words[4]
		extra := extras(more)
		s.line(fmt.Sprintf("%s %s claim %s %s %s", from, peer, mark, from, extra))
		called := from
		if more["called"] != "" {
			called = more["called"]
		}
		s.line(fmt.Sprintf("%s %s start %s %s %s", called, peer, mark, from, extra))
		s.line(fmt.Sprintf("%s %s end %s %s %s", to, peer, mark, from, extra))
		if words[0] == "run" {
			s.line(fmt.Sprintf("%s %s settle %s %s %s %s", to, peer, mark, from, outcome, extra))
		}
		s.runs[mark] = append(s.runs[mark], Run{epochAt(s.number(from)), peer, dianemo.Outcome(outcome)})
	case "die":
		extra := extras(more)
		s.line(fmt.Sprintf("%s %s claim %s %s %s", words[2], words[3], words[1], words[2], extra))
		s.line(fmt.Sprintf("%s %s start %s %s %s", words[2], words[3], words[1], words[2], extra))
		s.runs[words[1]] = append(s.runs[words[1]], Run{epochAt(s.number(words[2])), words[3], dianemo.Lost})
	case "=":
		s.job(words, more)
	case "final":
		s.rest(more)
	default:
		s.event(words, more)
	}
}

func extras(more map[string]string) string {
	text := ""
	for name, value := range more {
		text += " " + name + "=" + value
	}
	return text
}

func (s *story) number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	require.NoError(s.t, err)
	return n
}

func (s *story) duration(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	require.NoError(s.t, err)
	return d
}

func (s *story) int(text string, otherwise int) int {
	if text == "" {
		return otherwise
	}
	return int(s.number(text))
}

func (s *story) event(words []string, more map[string]string) {
	e := Event{At: ms(s.number(words[0])), Process: words[1], What: What(words[2])}
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	about := func() {
		e.Mark, e.Job, e.Kind = word(3), "id-"+word(3), "kind"
		if id := more["id"]; id != "" {
			e.Job = id
		}
		if name, at, ok := strings.Cut(e.Mark, "@"); ok { // an occurrence
			e.Mark, e.Schedule, e.Instant, e.Job = name, name, unixAtZero+s.number(at), word(3)
		}
	}
	switch e.What {
	case Begin:
		e.Hello = &Hello{Tokens: s.int(more["tokens"], 10), Partitions: s.int(more["partitions"], 1), BeatEvery: 100 * time.Millisecond,
			SilentAfter: 600 * time.Millisecond, Lease: 500 * time.Millisecond, Reserve: map[int]int{1: s.int(more["reserve"], 0)}}
	case Invoke:
		s.call++
		e.Mark, e.Kind, e.Op, e.Call, e.Wish = word(3), "kind", Enqueue, int64(s.int(more["call"], int(s.call))), s.wish(more)
		s.wishes[e.Mark], e.Weight = e.Wish, s.int(more["weight"], 1)
		s.name(&e, more)
	case OK, Refused, Unknown:
		e.Mark, e.Kind, e.Op, e.Err = word(3), "kind", Enqueue, strings.ReplaceAll(more["err"], "_", " ")
		s.name(&e, more)
		if e.What == OK && e.Op == Enqueue {
			e.Job = "id-" + e.Mark
		}
		if id := more["id"]; id != "" {
			e.Job = id
		}
	case Claim, Start, End, Settle:
		about()
		e.Epoch, e.Priority = epochAt(s.number(word(4))), s.int(more["priority"], 2)
		e.Attempt, e.Weight = s.int(more["attempt"], 1), s.int(more["weight"], 1)
		if e.What == Claim || e.What == Settle {
			e.Mark, e.Schedule, e.Instant = "", "", 0
		}
		if e.What == Settle {
			e.Reason = more["reason"]
			e.Attempt, e.Outcome, e.Stale = 0, dianemo.Outcome(word(5)), word(6) == "stale"
			e.State = map[dianemo.Outcome]dianemo.State{dianemo.Succeed: dianemo.Succeeded, dianemo.FailRun: dianemo.Failed,
				dianemo.CancelRun: dianemo.Cancelled}[e.Outcome]
			if e.State == "" {
				e.State = dianemo.Scheduled
			}
			if more["state"] != "" {
				e.State = dianemo.State(more["state"])
			}
		}
	case Reap:
		about()
		e.Mark, e.Silent, e.State = "", word(4), dianemo.State(word(5))
	case Miss, Fire, Cancel:
		about()
		if e.State = dianemo.State(word(4)); e.What != Fire {
			e.Mark = ""
		}
	case Release:
		about()
		e.Mark, e.State, e.Parent = "", dianemo.State(word(4)), more["parent"]
	case Lead:
		e.Leading, e.Term = word(3) == "on", s.number(word(4))
	case Beat:
		e.Began, e.Partition = ms(s.number(word(3))), s.int(more["partition"], 0)
	case Repair:
		e.Reason, e.Job = word(3), more["job"]
	case Fault:
		e.Fault, e.On, e.Victim = word(3), word(4) == "on", word(5)
	case Leave:
	default:
		s.t.Fatalf("what is %q?", words)
	}
	s.events = append(s.events, e)
}

// name completes a call's event for other ops than an enqueue.
func (s *story) name(e *Event, more map[string]string) {
	switch op := Op(more["op"]); {
	case op == CancelJob:
		e.Op, e.Job, e.Mark, e.Wish = op, "id-"+e.Mark, "", nil
	case op == PutSchedule || s.wishes[e.Mark] != nil && s.wishes[e.Mark].Every > 0:
		e.Op, e.Schedule = PutSchedule, e.Mark
	case op != "":
		e.Op = op
	}
}

func (s *story) wish(more map[string]string) *Wish {
	_, forgotten := more["forgotten"]
	w := &Wish{Retries: s.int(more["retries"], 0), Reruns: s.int(more["reruns"], 0), RetryAfter: s.duration(more["retryAfter"]),
		Fails: s.int(more["fails"], 0), Delay: s.duration(more["delay"]), Grace: s.duration(more["grace"]), Unique: more["unique"], Workflow: more["workflow"],
		Every: s.duration(more["every"]), Forgotten: forgotten}
	for p := range strings.SplitSeq(more["parents"], ",") {
		if mark, states, ok := strings.Cut(p, ":"); ok {
			parent := Parent{Mark: mark}
			for state := range strings.SplitSeq(states, "|") {
				parent.States = append(parent.States, dianemo.State(state))
			}
			w.Parents = append(w.Parents, parent)
		}
	}
	return w
}

func (s *story) job(words []string, more map[string]string) {
	mark := words[1]
	j := Job{ID: "id-" + mark, Mark: mark, Kind: "kind", State: dianemo.State(words[2]), Reason: more["reason"], History: s.runs[mark]}
	if name, at, ok := strings.Cut(mark, "@"); ok {
		j.ID, j.Mark, j.Schedule, j.Instant = mark, name, name, unixAtZero+s.number(at)
	}
	if more["id"] != "" {
		j.ID = more["id"]
	}
	if more["workflow"] != "" {
		j.ID, j.Mark, j.Workflow = mark, "", true
	}
	j.Runs = s.int(more["runs"], len(j.History))
	if n := len(j.History); n > 0 {
		j.Epoch, j.Peer = j.History[n-1].Epoch, j.History[n-1].Peer
		if j.History[n-1].Outcome == dianemo.Lost {
			j.Epoch++
		}
	}
	if more["epoch"] != "" {
		j.Epoch = epochAt(s.number(more["epoch"]))
	}
	if j.State == dianemo.Succeeded && !j.Workflow {
		j.ResultEpoch, j.ResultPeer = j.Epoch, j.Peer
	}
	if more["result"] != "" {
		j.ResultEpoch = epochAt(s.number(more["result"]))
	}
	if _, lacks := more["unrecorded"]; lacks {
		j.History = nil
	}
	s.final.Jobs = append(s.final.Jobs, j)
}

func (s *story) rest(more map[string]string) {
	at := func(name string, m *Moment) {
		switch more[name] {
		case "":
		case "never":
			*m = -1
		default:
			*m = ms(s.number(more[name]))
		}
	}
	at("calm", &s.final.Calm)
	at("led", &s.final.Led)
	at("drained", &s.final.Drained)
	if more["probe"] != "" {
		s.final.Probes = append(s.final.Probes, more["probe"])
	}
	if peer, n, ok := strings.Cut(more["charged"], ":"); ok {
		s.final.Charged = map[string]int{peer: int(s.number(n))}
	}
	if more["audit"] != "" {
		s.final.Audit = append(s.final.Audit, more["audit"])
	}
	if more["foreign"] != "" {
		s.final.Foreign = append(s.final.Foreign, more["foreign"])
	}
}

// A row is a story and what is wrong with it: of each violation a part of its text, beginning with its
// invariant. Nothing else may be found.
type row struct {
	name  string
	story string
	wrong []string
}

func checkRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, r.story)
			var found []string
			for _, v := range Check(s.events, s.final) {
				found = append(found, v.String())
			}
			require.Len(t, found, len(r.wrong), "%s", strings.Join(found, "\n"))
			for i, part := range r.wrong {
				require.Contains(t, found[i], part)
			}
		})
	}
}
