package dianemo

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Rule says when a schedule is due. The library's own come from [Cron],
// [Interval], [IntervalFrom], [AfterFinish] and [At]; any other type with this
// method will do.
//
// Next returns the first instant after its argument, to the millisecond and
// within the years 1970 to 9999, or the zero time if there is none. It must
// depend on nothing but its argument, so that all processes agree, and is called
// from several goroutines.
//
// The library's own rules can be stored, so that every process can compute them:
// see [RuleText]. Any other type is known only to the program that declares it: see
// [Peer.Schedule].
type Rule interface {
	Next(after time.Time) time.Time
}

// Limits of rules.
const (
	MaxPreview  = 1000 // instants of one Preview
	MaxInstants = 1000 // instants of one At
	// minInterval is what cron can say too; more often than that is no schedule,
	// but a stream.
	minInterval = time.Second
	lastInstant = 253402300799999 // the end of the year 9999 in ms since 1970
)

// Interval is due every d, counted from 1970-01-01 00:00 UTC, so that all
// processes agree: Interval(time.Hour) at each full hour. It knows no zones. d is
// 1 second to 100 years, in whole milliseconds; otherwise the error is a
// [FieldError].
func Interval(d time.Duration) (Rule, error) {
	return newInterval("Interval(d)", d, 0)
}

// IntervalFrom is due at start and every d from there. Start, cut to the
// millisecond, is within the years 1970 to 9999, and d is as for [Interval];
// otherwise the error is a [FieldError].
func IntervalFrom(start time.Time, d time.Duration) (Rule, error) {
	if err := checkInstant("IntervalFrom(start)", start); err != nil {
		return nil, err
	}
	return newInterval("IntervalFrom(d)", d, start.UnixMilli())
}

// AfterFinish is due d after the last occurrence's job has ended, however it has;
// before the first, d after the schedule was made or after its Start. There is no
// next one while the job has not ended. [Preview] takes jobs to last no time. d is
// as for [Interval]; otherwise the error is a [FieldError].
func AfterFinish(d time.Duration) (Rule, error) {
	if err := checkInterval("AfterFinish(d)", d); err != nil {
		return nil, err
	}
	return &finishRule{d}, nil
}

// At is due at these instants, 1 to MaxInstants, cut to the millisecond, in any
// order; equal ones count once. An empty or too long list, and an instant outside
// the years 1970 to 9999, is a [FieldError].
func At(instants ...time.Time) (Rule, error) {
	if len(instants) < 1 || len(instants) > MaxInstants {
		return nil, &FieldError{"At(instants)", fmt.Sprintf("%d instants", len(instants)), fmt.Sprintf("1 to %d", MaxInstants)}
	}
	r := make(listRule, len(instants))
	for i, t := range instants {
		if err := checkInstant(fmt.Sprintf("At(instants[%d])", i), t); err != nil {
			return nil, err
		}
		r[i] = t.UnixMilli()
	}
	slices.Sort(r)
	return slices.Compact(r), nil
}

// Preview returns the rule's next n instants after from, at most MaxPreview. They
// are fewer where the rule ends, or where a user's own rule panics or returns an
// instant that is not a later one.
func Preview(rule Rule, from time.Time, n int) []time.Time {
	n = min(n, MaxPreview)
	var instants []time.Time
	for len(instants) < n {
		next, err := nextOf(rule, from)
		if err != nil || next.IsZero() {
			break
		}
		instants = append(instants, next)
		from = next
	}
	return instants
}

// nextOf asks a rule that may be a user's: it is cut to the millisecond, and a
// panic, an instant that is not a later one or one that cannot be stored is a
// [FieldError].
func nextOf(rule Rule, after time.Time) (next time.Time, err error) {
	defer func() {
		if p := recover(); p != nil {
			next, err = time.Time{}, &FieldError{fmt.Sprintf("Next of rule %T", rule), fmt.Sprintf("a panic: %v", p), "a time"}
		}
	}()
	if rule == nil {
		return time.Time{}, &FieldError{"rule", nil, "a Rule"}
	}
	next = rule.Next(after)
	if next.IsZero() {
		return time.Time{}, nil
	}
	if err := checkInstant(fmt.Sprintf("Next of rule %T", rule), next); err != nil {
		return time.Time{}, err
	}
	next = next.Add(-time.Duration(next.Nanosecond() % int(time.Millisecond)))
	if !next.After(after) {
		return time.Time{}, &FieldError{fmt.Sprintf("Next of rule %T", rule), next, "a millisecond after " + after.String()}
	}
	return next, nil
}

// RuleText is the form in which a rule is stored, and which [ParseRule] reads.
// Rules with the same text are the same. A user's own type has none: only the
// program that declares it can compute it, and the error is a [FieldError].
func RuleText(rule Rule) (string, error) {
	if r, ok := rule.(interface{ text() string }); ok && !isNil(rule) {
		return r.text(), nil
	}
	return "", &FieldError{"rule", fmt.Sprintf("%T", rule), "a rule made by Cron, Interval, IntervalFrom, AfterFinish or At, to be stored"}
}

// ParseRule reads what [RuleText] wrote:
//
//	cron Europe/Berlin 30 2 * * *
//	interval 1m30s
//	interval 1m30s from 2026-01-01T00:00:00Z
//	finish 1m30s
//	at 2026-01-01T00:00:00Z 2026-02-01T00:00:00.5Z
//
// Anything else is a [FieldError].
func ParseRule(text string) (Rule, error) {
	form, rest, _ := strings.Cut(text, " ")
	refused := &FieldError{"rule", text, "a text that RuleText returned"}
	switch form {
	case "cron":
		if zone, line, ok := strings.Cut(rest, " "); ok {
			return Cron(line, zone)
		}
	case "interval":
		every, from, anchored := strings.Cut(rest, " from ")
		d, err := time.ParseDuration(every)
		if err != nil {
			return nil, refused
		}
		if !anchored {
			return Interval(d)
		}
		start, err := time.Parse(time.RFC3339Nano, from)
		if err != nil {
			return nil, refused
		}
		return IntervalFrom(start, d)
	case "finish":
		d, err := time.ParseDuration(rest)
		if err != nil {
			return nil, refused
		}
		return AfterFinish(d)
	case "at":
		var instants []time.Time
		for s := range strings.SplitSeq(rest, " ") {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil || len(instants) > MaxInstants {
				return nil, refused
			}
			instants = append(instants, t)
		}
		return At(instants...)
	}
	return nil, refused
}

// An intervalRule counts in milliseconds since 1970: a time.Duration cannot hold
// the distance between any two instants.
type intervalRule struct{ every, start int64 }

func newInterval(field string, d time.Duration, start int64) (Rule, error) {
	if err := checkInterval(field, d); err != nil {
		return nil, err
	}
	return &intervalRule{d.Milliseconds(), start}, nil
}

func (r *intervalRule) Next(after time.Time) time.Time {
	ms := sinceEpoch(after)
	if ms < r.start {
		return instant(r.start)
	}
	return instant(ms - (ms-r.start)%r.every + r.every)
}

func (r *intervalRule) text() string {
	every := (time.Duration(r.every) * time.Millisecond).String()
	if r.start == 0 {
		return "interval " + every
	}
	return "interval " + every + " from " + instantText(r.start)
}

func (r *intervalRule) String() string { return r.text() }

type finishRule struct{ after time.Duration }

func (r *finishRule) Next(finish time.Time) time.Time {
	return instant(sinceEpoch(finish) + r.after.Milliseconds())
}

func (r *finishRule) text() string   { return "finish " + r.after.String() }
func (r *finishRule) String() string { return r.text() }

// A listRule is sorted and has no instant twice.
type listRule []int64

func (r listRule) Next(after time.Time) time.Time {
	i, _ := slices.BinarySearch(r, sinceEpoch(after)+1)
	if i == len(r) {
		return time.Time{}
	}
	return instant(r[i])
}

func (r listRule) text() string {
	var b strings.Builder
	b.WriteString("at")
	for _, ms := range r {
		b.WriteByte(' ')
		b.WriteString(instantText(ms))
	}
	return b.String()
}

func (r listRule) String() string { return r.text() }

// A knownRule is what readers see of a rule that only its program can compute: the
// next instants. It has no text, for it is not the rule: stored as one, it would end.
type knownRule []int64

func (r knownRule) Next(after time.Time) time.Time { return listRule(r).Next(after) }
func (r knownRule) String() string                 { return "known " + listRule(r).text() }

// sinceEpoch is t in milliseconds since 1970, rounded down. What is before 1970
// counts as the millisecond before it, what is after 9999 as its last one: no sum
// with a MaxSpan overflows.
func sinceEpoch(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return -1
	case s > lastInstant/1000:
		return lastInstant
	}
	return t.UnixMilli()
}

// instant is the inverse of sinceEpoch; after 9999 there is none.
func instant(ms int64) time.Time {
	if ms > lastInstant {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func instantText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

func checkInstant(field string, t time.Time) error {
	if s := t.Unix(); s < 0 || s > lastInstant/1000 {
		return &FieldError{field, t, "years 1970 to 9999"}
	}
	return nil
}

func checkInterval(field string, d time.Duration) error {
	if d < minInterval || d > MaxSpan || d%time.Millisecond != 0 {
		return &FieldError{field, d, fmt.Sprintf("%v to 100 years, in whole milliseconds", minInterval)}
	}
	return nil
}
