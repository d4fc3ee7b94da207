package dianemo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Schedule makes a job, or a workflow, at each instant of its rule: an occurrence. It lives in
// the store, so any process can make, change and remove it, and the leader of the
// fleet fires it. Each occurrence exists exactly once, whatever dies when: its id is
// [OccurrenceID], and what has been decided is never decided again.
type Schedule struct {
	// Name is 1 to MaxScheduleName letters, digits and . _ - / +.
	Name string
	Rule Rule
	// Job is what an occurrence runs: see [Kind.New] and [Kind.NewWith]. Its Options
	// may have neither ID, RunAt, Delay, Parents nor Unique. Priority and Grace are stamped now,
	// by the kind's Policy as this process has it; the occurrence is due, and its grace
	// begins, at its instant. A kind that no peer handles is allowed: its jobs wait, and
	// [ScheduleInfo].Handlers is 0.
	Job Request
	// Workflow is what an occurrence runs in place of Job: the graph is submitted anew
	// each time, as a workflow whose id is OccurrenceID. It is kept as it is now, whatever
	// is added to it later, and the specs of its jobs may have MaxPayload bytes together.
	// Its ID must be empty, and its jobs' Options may have neither RunAt nor Parents.
	// Those of its jobs that have no parents are due, and their grace begins, when the
	// occurrence is due; the shortest of their graces is the occurrence's. The jobs have the
	// schedule and the instant, too. An occurrence that is not run is recorded as a workflow
	// that has no jobs; it can't be resumed.
	Workflow *Workflow
	// Start and End bound the instants, both included; zero: no bound. There is no
	// occurrence from before the schedule was made: see [Client.Backfill].
	Start, End time.Time
	// Jitter delays each occurrence by a span from 0 to this, always the same for the
	// same occurrence, so that schedules with one rule do not start as one; at most a
	// day. Occurrences keep their order.
	Jitter time.Duration
	// Missed says what is done with occurrences that could not be fired in time;
	// default MissedLatest.
	Missed MissedPolicy
	// MissedMax is how many occurrences MissedAll runs, the latest ones, 1 to 1000;
	// default 100. It must be 0 with any other policy.
	MissedMax int
	// Overlap says what is done with an occurrence while the one before it has not
	// ended; default OverlapAllow.
	Overlap Overlap
}

// A MissedPolicy decides about occurrences that were not fired within a minute of
// their instant, because no peer was up or Redis was away. One that is not run is
// recorded as a job that is Missed, with reason late, where it can be seen and
// requeued; of many that are found at once the latest 20 are, and the others are
// counted in [ScheduleInfo].Unrecorded. One whose grace is over is never run.
type MissedPolicy string

const (
	// MissedLatest runs the latest occurrence, if no later one is due.
	MissedLatest MissedPolicy = "latest"
	MissedSkip   MissedPolicy = "skip" // runs none
	MissedAll    MissedPolicy = "all"  // runs the latest Schedule.MissedMax, at the same time; with OverlapWait one after the other; with OverlapSkip only the first of them
)

// An Overlap decides about an occurrence that is due while the one that was made
// before it waits or runs. One that was missed, or made by [Client.Backfill], does
// not count.
type Overlap string

const (
	OverlapAllow Overlap = "allow" // it is made; both may run at a time
	// OverlapSkip records it as a job that is Skipped, with reason overlap.
	OverlapSkip Overlap = "skip"
	// OverlapWait makes it when the other has ended. It is due as of its instant, so
	// its grace limits how long it waits; several wait in their order.
	OverlapWait Overlap = "wait"
)

const (
	// MaxScheduleName is the most bytes of a schedule's name.
	MaxScheduleName = 80
	maxMissedRun    = 1000
	maxJitter       = 24 * time.Hour
)

// OccurrenceID is the id of the job that a schedule makes for an instant of its
// rule: name@20261231T235959Z, in UTC, with milliseconds if it has any.
func OccurrenceID(schedule string, instant time.Time) string {
	form := "20060102T150405Z"
	if instant.Nanosecond() >= int(time.Millisecond) {
		form = "20060102T150405.000Z"
	}
	return schedule + "@" + instant.UTC().Format(form)
}

// definition checks a schedule and returns the form in which it is stored.
func (s *Schedule) definition() (*definition, error) {
	if strings.Contains(s.Name, "@") || checkName("", s.Name, MaxScheduleName) != nil {
		return nil, &FieldError{"Schedule.Name", s.Name, fmt.Sprintf("1 to %d letters, digits and . _ - / +", MaxScheduleName)}
	}
	if isNil(s.Rule) {
		return nil, &FieldError{"Schedule.Rule", nil, "a Rule, for example from Cron"}
	}
	d := &definition{Form: definitionForm, Jitter: s.Jitter.Milliseconds(), Missed: inherit(s.Missed, MissedLatest), Max: s.MissedMax,
		Overlap: inherit(s.Overlap, OverlapAllow), rule: s.Rule}
	if err := firstError(d.setBody(s), d.setBounds(s.Start, s.End)); err != nil {
		return nil, err
	}
	var err error
	if d.Rule, err = RuleText(s.Rule); err != nil {
		d.Rule = ownRule + fmt.Sprintf("%T", s.Rule)
	}
	switch {
	case s.Jitter < 0 || s.Jitter > maxJitter:
		return nil, &FieldError{"Schedule.Jitter", s.Jitter, "0 to 24h"}
	case d.Missed != MissedLatest && d.Missed != MissedSkip && d.Missed != MissedAll:
		return nil, &FieldError{"Schedule.Missed", string(s.Missed), "MissedLatest, MissedSkip or MissedAll"}
	case d.Missed == MissedAll && (s.MissedMax < 0 || s.MissedMax > maxMissedRun):
		return nil, &FieldError{"Schedule.MissedMax", s.MissedMax, fmt.Sprintf("1 to %d, or 0 for 100", maxMissedRun)}
	case d.Missed != MissedAll && s.MissedMax != 0:
		return nil, &FieldError{"Schedule.MissedMax", s.MissedMax, "0 unless Missed is MissedAll"}
	case d.Overlap != OverlapAllow && d.Overlap != OverlapSkip && d.Overlap != OverlapWait:
		return nil, &FieldError{"Schedule.Overlap", string(s.Overlap), "OverlapAllow, OverlapSkip or OverlapWait"}
	}
	if d.Missed == MissedAll {
		d.Max = inherit(s.MissedMax, 100)
	}
	first, err := d.next(time.UnixMilli(0))
	if err != nil {
		return nil, err
	}
	if first.IsZero() {
		return nil, &FieldError{"Schedule.Rule", d.Rule, "a rule with an instant from Start to End"}
	}
	d.spec.Schedule, d.spec.Follow = s.Name, d.follows()
	d.Job = EncodeSpec(d.spec)
	return d, nil
}

// ownRule begins the text of a rule that only its program can compute.
const ownRule = "own "

const definitionForm = 1

// A definition is a schedule as it is stored, as JSON.
type definition struct {
	Form    int          `json:"v"`
	Rule    string       `json:"rule"`
	Job     []byte       `json:"job"` // a Spec, of a workflow with its plan
	Start   int64        `json:"start,omitempty"`
	End     int64        `json:"end,omitempty"`
	Jitter  int64        `json:"jitter,omitempty"`
	Missed  MissedPolicy `json:"missed"`
	Max     int          `json:"max,omitempty"`
	Overlap Overlap      `json:"overlap"`
	// Known are the next instants of a rule that only its program can compute.
	Known []int64 `json:"known,omitempty"`
	// Declared is the sum of what a program has declared last, and Built when that
	// program was built. Start and all that follow are in ms since 1970.
	Declared string `json:"declared,omitempty"`
	Built    int64  `json:"built,omitempty"`

	rule       Rule
	spec       *Spec
	start, end time.Time
}

func (d *definition) setBody(s *Schedule) (err error) {
	if s.Workflow == nil {
		return d.setJob(&s.Job)
	}
	if s.Job.kind != "" {
		return &FieldError{"Schedule.Workflow", s.Workflow.name, "nil where Job is set"}
	}
	d.spec, err = s.Workflow.plan(s.Name)
	return err
}

func (d *definition) setJob(q *Request) error {
	o := q.options
	switch {
	case q.kind == "":
		return &FieldError{"Schedule.Job", nil, "a Request, made by New or NewWith of a Kind, or else a Workflow"}
	case o.ID != "":
		return &FieldError{"Schedule.Job: Options.ID", o.ID, "none: it is OccurrenceID"}
	case !o.RunAt.IsZero():
		return &FieldError{"Schedule.Job: Options.RunAt", o.RunAt, "none: the rule says it"}
	case o.Delay != 0:
		return &FieldError{"Schedule.Job: Options.Delay", o.Delay, "none: the rule says it"}
	case len(o.Parents) > 0:
		return &FieldError{"Schedule.Job: Options.Parents", o.Parents[0].ID, "none: each occurrence is a job of its own"}
	case o.Unique != (Unique{}):
		return &FieldError{"Schedule.Job: Options.Unique", o.Unique.Key, "none: see Schedule.Overlap"}
	}
	record, err := q.record()
	if err != nil {
		return err
	}
	d.spec, err = DecodeSpec(record.Spec)
	return err
}

func (d *definition) setBounds(start, end time.Time) error {
	for _, bound := range []struct {
		field string
		at    time.Time
		to    *int64
	}{{"Schedule.Start", start, &d.Start}, {"Schedule.End", end, &d.End}} {
		if bound.at.IsZero() {
			continue
		}
		if err := checkInstant(bound.field, bound.at); err != nil {
			return err
		}
		*bound.to = bound.at.UnixMilli()
	}
	if !end.IsZero() && d.End == 0 {
		return &FieldError{"Schedule.End", end, "a time after 1970-01-01T00:00:00Z"} // 0 is stored for no bound
	}
	if instant(d.Start).Before(start) {
		d.Start++ // to the millisecond, and not before it
	}
	if !start.IsZero() && !end.IsZero() && end.Before(start) {
		return &FieldError{"Schedule.End", end, "a time not before Start, " + start.String()}
	}
	d.bounds()
	return nil
}

func (d *definition) bounds() {
	if d.Start != 0 {
		d.start = instant(d.Start)
	}
	if d.End != 0 {
		d.end = instant(d.End)
	}
}

// finishes reports whether the rule counts from the end of the last occurrence.
func (d *definition) finishes() bool {
	_, ok := d.rule.(*finishRule)
	return ok
}

// follows reports whether the end of an occurrence makes another one due.
func (d *definition) follows() bool { return d.Overlap == OverlapWait || d.finishes() }

// decodeDefinition reads what encode has written. What it returns is fit to be
// fired.
func decodeDefinition(b []byte) (*definition, error) {
	d := &definition{}
	reader := json.NewDecoder(bytes.NewReader(b))
	if err := reader.Decode(d); err != nil {
		var form struct {
			V int `json:"v"`
		}
		if json.Unmarshal(b, &form) == nil && form.V > definitionForm {
			return nil, ErrNewer // whatever its other fields have become
		}
		return nil, fmt.Errorf("its definition can't be read: %w", err)
	}
	if d.Form > definitionForm {
		return nil, ErrNewer
	}
	if d.Form < 1 {
		return nil, fmt.Errorf("its definition is of no version: %d", d.Form)
	}
	var err error
	if d.spec, err = DecodeSpec(d.Job); err != nil {
		if errors.Is(err, errSpecNewer) {
			return nil, ErrNewer
		}
		return nil, fmt.Errorf("its job can't be read: %w", err)
	}
	if IsWorkflow(d.spec.Kind) {
		if _, err := d.spec.workflow(); errors.Is(err, errSpecNewer) {
			return nil, ErrNewer
		} else if err != nil {
			return nil, fmt.Errorf("its workflow can't be read: %w", err)
		}
	}
	switch {
	case strings.HasPrefix(d.Rule, ownRule):
		d.rule = knownRule(d.Known)
	default:
		if d.rule, err = ParseRule(d.Rule); err != nil {
			return nil, fmt.Errorf("its rule can't be read: %w", err)
		}
	}
	least, most := 0, 0
	if d.Missed == MissedAll {
		least, most = 1, maxMissedRun
	}
	switch {
	case d.Missed != MissedLatest && d.Missed != MissedSkip && d.Missed != MissedAll:
		return nil, fmt.Errorf("its definition has a policy for missed occurrences that there is not: %q", d.Missed)
	case d.Overlap != OverlapAllow && d.Overlap != OverlapSkip && d.Overlap != OverlapWait:
		return nil, fmt.Errorf("its definition has a policy for overlaps that there is not: %q", d.Overlap)
	case !storable(d.Start), !storable(d.End), d.Built < 0, d.Jitter < 0, d.Jitter > maxJitter.Milliseconds(), d.Max < least, d.Max > most,
		!slices.IsSorted(d.Known), slices.ContainsFunc(d.Known, func(ms int64) bool { return !storable(ms) }):
		return nil, errors.New("a number in its definition is out of bounds")
	}
	d.bounds()
	return d, nil
}

// storable reports whether it is an instant, in ms, that a schedule can have.
func storable(ms int64) bool { return 0 <= ms && ms <= lastInstant }

func (d *definition) encode() ([]byte, error) { return json.Marshal(d) }

// text tells definitions apart, but not by who declared them when.
func (d *definition) text() string {
	bare := *d
	bare.Known, bare.Declared, bare.Built = nil, "", 0
	b, err := bare.encode()
	if err != nil {
		return "" // it has no value that could not be encoded
	}
	return string(b)
}

// sameInstants reports whether both have the same occurrences.
func (d *definition) sameInstants(other *definition) bool {
	return d.Rule == other.Rule && d.Start == other.Start && d.End == other.End
}

// goesOnAs reports whether a schedule that is changed keeps its cursor: where the rule
// is the same, and it had not ended before.
func (d *definition) goesOnAs(other *definition, s *StoredSchedule) bool {
	if d.Rule != other.Rule || d.Start != other.Start {
		return false
	}
	if d.End == other.End || d.finishes() {
		return true
	}
	next, err := d.next(s.Cursor)
	return err == nil && !next.IsZero()
}

// schedule is the user's view of it.
func (d *definition) schedule(name string) Schedule {
	s := Schedule{Name: name, Rule: d.rule, Start: d.start, End: d.end, Jitter: time.Duration(d.Jitter) * time.Millisecond,
		Missed: d.Missed, MissedMax: d.Max, Overlap: d.Overlap}
	if IsWorkflow(d.spec.Kind) {
		s.Workflow, _ = d.spec.workflow() // it was read before
	} else {
		s.Job = d.spec.request()
	}
	return s
}

// kinds are those of the jobs that an occurrence runs, each once.
func (s *Schedule) kinds() []string {
	if s.Workflow == nil {
		return []string{s.Job.kind}
	}
	var kinds []string
	for _, j := range s.Workflow.jobs {
		kinds = append(kinds, j.request.kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
