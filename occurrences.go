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
	// firingJobs bounds the jobs of one decision.
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

// record is the job of an occurrence.
func (d *definition) record(id string, o occurrence) Record {
	spec := *d.spec
	spec.RunAt, spec.At = o.due, o.at
	return Record{ID: id, Lane: spec.Lane(), RunAt: o.due, Weight: spec.Weight, Reruns: spec.Reruns, Spec: EncodeSpec(&spec)}
}

// from is the instant from which the rule counts, and whether the last
// occurrence must end first.
func (d *definition) from(s *StoredSchedule) (from time.Time, waits bool) {
	from = s.Cursor
	if !d.finishes() {
		return from, false
	}
	later := func(t time.Time) {
		if t.After(from) {
			from = t
		}
	}
	later(d.start)
	if s.Last == "" {
		return from, false
	}
	switch {
	case s.LastState == "": // it is gone, and when it ended is not known
		later(s.Seen)
	case !s.LastState.Finished():
		return from, true
	default:
		later(s.LastEnded)
	}
	return from, false
}

// decide says what is to become of the occurrences that are due. What it leaves
// is for the next decision, at Firing.Next.
func (d *definition) decide(s *StoredSchedule, now time.Time) (Firing, error) {
	f := Firing{Name: s.Name, Version: s.Version, Cursor: s.Cursor, To: s.Cursor, Hold: s.Cursor, Overlap: d.Overlap}
	from, waits := d.from(s)
	if waits {
		f.Pending = true
		return f, nil
	}
	due, next, err := d.due(s.Name, from, now)
	if err != nil {
		return f, err
	}
	f.Next = next
	if len(due) == maxWalk {
		due = due[:maxWalk-maxMissedRun] // the rest is judged with what comes after
		f.To, f.Hold, f.Next = due[len(due)-1].at, due[len(due)-1].at, now
		f.Unrecorded = Unrecorded{int64(len(due)), due[0].at, f.To}
		return f, nil
	}
	runs := d.runs(s, due, now)
	d.fill(&f, due, runs, now)
	if d.finishes() && len(due) > 0 {
		f.Pending = true
	}
	return f, nil
}

// due lists the occurrences after from that are due by now, at most maxWalk, and
// when the next one will be.
func (d *definition) due(name string, from, now time.Time) (due []occurrence, next time.Time, err error) {
	for len(due) < maxWalk {
		at, err := d.next(from)
		if err != nil || at.IsZero() {
			return due, time.Time{}, err
		}
		o := d.occurrence(name, at)
		if o.due.After(now) {
			return due, o.due, nil
		}
		due = append(due, o)
		if d.finishes() {
			break // the next one depends on its end
		}
		from = at
	}
	return due, time.Time{}, nil
}

// runs says which of these are to be run; the others are missed.
func (d *definition) runs(s *StoredSchedule, due []occurrence, now time.Time) []bool {
	runs := make([]bool, len(due))
	left := 0
	if d.Missed == MissedAll {
		left = d.Max
	}
	for i := len(due) - 1; i >= 0; i-- {
		o := due[i]
		late := now.Sub(o.due)
		if d.spec.Grace >= 0 && late > d.spec.Grace {
			continue
		}
		// While it was seen to wait for another, somebody was up.
		switch {
		case late <= onTime || !o.due.After(s.Seen):
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
		if !runs[i] && unrecorded > 0 {
			unrecorded--
			f.Unrecorded.add(o.at)
			f.To = o.at
			if !held {
				f.Hold = o.at
			}
			continue
		}
		if held && d.Overlap == OverlapWait {
			f.Pending = true
			return
		}
		if len(f.Occurrences) == firingJobs || bytes > 0 && bytes+len(d.Job) > MaxCallBytes/2 {
			f.Next = now
			return
		}
		bytes += len(d.Job)
		f.Occurrences = append(f.Occurrences, Occurrence{At: o.at, Missed: !runs[i], Record: d.record(OccurrenceID(f.Name, o.at), o)})
		f.To = o.at
		held = held || runs[i]
		if !held {
			f.Hold = o.at
		}
	}
}

// Unrecorded are missed occurrences that have no record.
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
