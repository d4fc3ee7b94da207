package dianemo

import (
	"hash/fnv"
	"time"
)

// What becomes of a schedule's occurrences is decided here, from what the store
// knows of it and the store's clock; fire.lua then looks whether that still holds.

const (
	// onTime is how late an occurrence may be fired without being a missed one. A
	// change of the leader takes less.
	onTime = time.Minute
	// maxRecorded is how many missed occurrences of those found at once have a record.
	maxRecorded = 20
	// maxWalk bounds the instants that one decision looks at; there is another.
	maxWalk = 10_000
	// firingJobs bounds the jobs of one decision, MaxFireBytes their size.
	firingJobs = 100
)

// An occurrence is one time at which a schedule fires: its instant, and when its
// job is due.
type occurrence struct{ at, due time.Time }

// next is the first instant after that one, from Start to End; zero if there is none.
func (d *definition) next(after time.Time) (time.Time, error) {
	if before := d.start.Add(-time.Millisecond); !d.start.IsZero() && after.Before(before) {
		after = before
	}
	at, err := nextOf(d.rule, after)
	if err != nil || !d.end.IsZero() && at.After(d.end) {
		return time.Time{}, err
	}
	return at, nil
}

func (d *definition) occurrence(name string, at time.Time) occurrence {
	o := occurrence{at, at}
	if d.Jitter > 0 {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(OccurrenceID(name, at))) // a hash's Write never fails
		o.due = at.Add(time.Duration(sum.Sum64()%uint64(d.Jitter+1)) * time.Millisecond)
	}
	return o
}

// record is the job of an occurrence, or its workflow's own.
func (d *definition) record(id string, o occurrence) Record {
	spec := *d.spec
	spec.RunAt, spec.At = o.due, o.at
	if IsWorkflow(spec.Kind) {
		spec.Teller = newTeller()
	}
	return Record{ID: id, Lane: spec.Lane(), RunAt: o.due, Weight: spec.Weight, Reruns: spec.Reruns, Blocked: IsWorkflow(spec.Kind), Teller: spec.Teller, Spec: EncodeSpec(&spec)}
}

// from is the instant from which the rule counts, and whether the last
// occurrence must end first.
func (d *definition) from(s *StoredSchedule) (from time.Time, waits bool) {
	from = s.Cursor
	if !d.finishes() || s.Last == "" {
		return from, false
	}
	end := s.LastEnded
	switch {
	case s.LastState == "": // it is gone; if when it ended was seen, the cursor has it
		end = s.Seen
	case !s.LastState.Finished():
		return from, true
	}
	if end.After(from) {
		return end, false
	}
	return from, false
}

// decide says what is to become of the occurrences that are due. What it leaves
// is for the next decision, at Firing.Next.
func (d *definition) decide(s *StoredSchedule, now time.Time) (Firing, error) {
	return d.decideBy(s, now, now, d.runs)
}

// flush is decide where the cursor is about to pass over all instants up to now: those
// that only jitter holds are made too.
func (d *definition) flush(s *StoredSchedule, now time.Time) (Firing, error) {
	return d.decideBy(s, now, now.Add(time.Duration(d.Jitter)*time.Millisecond), d.runs)
}

// miss is decide where nothing is to run any more.
func (d *definition) miss(s *StoredSchedule, now time.Time) (Firing, error) {
	return d.decideBy(s, now, now, func(_ *StoredSchedule, due []occurrence, _ time.Time) []bool { return make([]bool, len(due)) })
}

func (d *definition) decideBy(s *StoredSchedule, now, by time.Time, judge func(*StoredSchedule, []occurrence, time.Time) []bool) (Firing, error) {
	from, waits := d.from(s)
	f := Firing{Name: s.Name, Version: s.Version, Cursor: s.Cursor, To: from, Hold: from, Overlap: d.Overlap, Again: lookAgain(now.Sub(s.Cursor))}
	if waits {
		f.To, f.Hold, f.Pending = s.Cursor, s.Cursor, true
		return f, nil
	}
	due, next, err := d.due(s.Name, from, now, by)
	if err != nil {
		return f, err
	}
	f.Next = next
	if len(due) == maxWalk && !s.waiting(now) {
		due = due[:maxWalk-maxMissedRun] // the rest is judged with what comes after
		f.To, f.Hold, f.Next = due[len(due)-1].at, due[len(due)-1].at, now
		f.Unrecorded = Unrecorded{int64(len(due)), due[0].at, f.To}
		return f, nil
	}
	if len(due) > 0 {
		f.Again = lookAgain(now.Sub(due[0].due))
	}
	runs := judge(s, due, now)
	d.fill(&f, due, runs, now)
	if !d.finishes() || len(due) == 0 {
		return f, nil
	}
	if runs[0] {
		f.Pending = true // the next one depends on its end
		return f, nil
	}
	// It begins anew, as if it had ended now.
	f.To = now.Truncate(time.Millisecond)
	f.Hold = f.To
	again, err := d.follower(s.Name, d.occurrence(s.Name, f.To))
	f.Next = again.due
	return f, err
}

// due lists the occurrences after from that are due by that time and whose instants
// are not later than now, at most maxWalk, and when the next one will be. None is due
// before the one before it.
func (d *definition) due(name string, from, now, by time.Time) (due []occurrence, next time.Time, err error) {
	last := d.occurrence(name, from)
	for len(due) < maxWalk {
		o, err := d.follower(name, last)
		if err != nil || o.at.IsZero() {
			return due, time.Time{}, err
		}
		if o.due.After(by) || o.at.After(now) {
			return due, o.due, nil
		}
		due = append(due, o)
		if d.finishes() {
			break
		}
		last = o
	}
	return due, time.Time{}, nil
}

// follower is the occurrence after that one, and not due before it; the zero one if
// there is none.
func (d *definition) follower(name string, last occurrence) (occurrence, error) {
	at, err := d.next(last.at)
	if err != nil || at.IsZero() {
		return occurrence{}, err
	}
	o := d.occurrence(name, at)
	if o.due.Before(last.due) {
		o.due = last.due
	}
	return o, nil
}

// waiting reports whether the schedule was seen to wait so lately that somebody was up
// all the time.
func (s *StoredSchedule) waiting(now time.Time) bool {
	return !s.Seen.IsZero() && now.Sub(s.Seen) <= onTime
}

// lookAgain is how soon a schedule that has waited for so long is looked at again, if
// nobody says before that what it waits for has ended.
func lookAgain(waited time.Duration) time.Duration {
	return min(max(waited/8, 5*time.Second), onTime/2)
}

// runs says which of these are to be run; the others are missed.
func (d *definition) runs(s *StoredSchedule, due []occurrence, now time.Time) []bool {
	runs := make([]bool, len(due))
	left := 0
	if d.Missed == MissedAll {
		left = d.Max
	}
	waiting := s.waiting(now)
	for i := len(due) - 1; i >= 0; i-- {
		late := now.Sub(due[i].due)
		if d.spec.Grace >= 0 && late > d.spec.Grace {
			continue
		}
		switch {
		case late <= onTime || waiting:
			runs[i] = true
		case d.Missed == MissedLatest && i == len(due)-1:
			runs[i] = true
		case left > 0:
			runs[i] = true
			left--
		}
	}
	return runs
}

// fill puts into the firing what is due, as much as one may carry.
func (d *definition) fill(f *Firing, due []occurrence, runs []bool, now time.Time) {
	unrecorded := -maxRecorded
	for _, run := range runs {
		if !run {
			unrecorded++
		}
	}
	bytes, held := 0, false
	for i, o := range due {
		switch {
		case held && d.Overlap == OverlapWait:
			f.Pending = true
			return
		case !runs[i] && unrecorded > 0:
			unrecorded--
			f.Unrecorded.add(o.at)
		case len(f.Occurrences) == firingJobs || bytes > 0 && bytes+len(d.Job) > MaxFireBytes:
			f.Next = now
			return
		default:
			bytes += len(d.Job)
			f.Occurrences = append(f.Occurrences, Occurrence{At: o.at, Missed: !runs[i], Record: d.record(OccurrenceID(f.Name, o.at), o)})
		}
		f.To = o.at
		if held = held || runs[i]; !held {
			f.Hold = o.at
		}
	}
}

// goesOn is the cursor of a schedule that goes on now: what was due by now has passed,
// and what only jitter holds has not.
func (d *definition) goesOn(s *StoredSchedule, now time.Time) (time.Time, error) {
	if d.Jitter == 0 || d.finishes() {
		return now, nil
	}
	cursor := now.Add(-time.Duration(d.Jitter) * time.Millisecond)
	if s.Cursor.After(cursor) {
		cursor = s.Cursor
	}
	for {
		at, err := d.next(cursor)
		if err != nil || at.IsZero() || d.occurrence(s.Name, at).due.After(now) {
			return cursor, err
		}
		cursor = at
	}
}

// Unrecorded are missed occurrences that have no record: those of the last time that
// there were any.
type Unrecorded struct {
	Count       int64
	First, Last time.Time
}

func (u *Unrecorded) add(at time.Time) {
	if u.Count == 0 {
		u.First = at
	}
	u.Count, u.Last = u.Count+1, at
}
