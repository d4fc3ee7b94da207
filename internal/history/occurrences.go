package history

import (
	"time"
)

// occurrences: each instant of a schedule's rule, from when it was made until the faults were over, has one
// job, and no other instant has any; and what has been decided is not decided again, even if its job has
// been let go of. All that were due while nobody led are made afterwards, at most 1000 at a time.
//
// When the schedule was made is known to lie between the call and its answer, and what the store's clock was
// then, within bounds: instants near these are not judged, nor those of the last moments, which somebody
// has yet to make.
func occurrences(a *account, say sayer) {
	for _, s := range a.schedules {
		made := map[int64]*job{}
		for _, j := range s.jobs {
			if !j.seen() {
				continue
			}
			if other := made[j.instant]; other != nil {
				say(j, "is of %s, and so is job %s", instant(j.instant), other.id)
			}
			made[j.instant] = j
			again(j, say)
			inTime(a, s, j, say)
		}
		if s.wish != nil && len(made) > 0 && len(s.oks) == 0 && s.unknown == 0 {
			say(nil, "the schedule %s was refused, and has %d jobs", s.name, len(made))
		}
		all(a, s, made, say)
	}
}

// again: an occurrence is fired once, and comes to one end.
func again(j *job, say sayer) {
	if len(j.fires) > 1 {
		say(j, "was fired %s, by %s and %s", times(len(j.fires)), j.fires[0].Process, j.fires[1].Process)
	}
	ended := 0
	for _, e := range j.settles {
		if !e.Stale && e.State.Finished() {
			ended++
		}
	}
	if ended > 1 {
		say(j, "came to its end %s", times(ended))
	}
}

// inTime: it stands at an instant of the rule, after the schedule was made, and is not started before it.
func inTime(a *account, s *schedule, j *job, say sayer) {
	if s.wish == nil || s.wish.Every <= 0 {
		return
	}
	if j.instant%s.wish.Every.Milliseconds() != 0 {
		say(j, "is of %s, which is no instant of its rule, every %v", instant(j.instant), s.wish.Every)
	}
	if !a.clock.known {
		return
	}
	if since, _ := a.clock.unix(s.invokes[0].At); j.instant < since {
		say(j, "is of %s, and its schedule was made after that", instant(j.instant))
	}
	if from, _ := a.clock.instant(j.instant); len(j.starts) > 0 && j.starts[0].At < from {
		say(j, "was started by %s %v before %s, of which it is", j.starts[0].Process, from.Sub(j.starts[0].At), instant(j.instant))
	}
}

// all looks for instants that have no job. Of those that were missed, for which somebody's grace was over or
// that were too many, only the latest have a record, so then nothing is said.
func all(a *account, s *schedule, made map[int64]*job, say sayer) {
	const mostMissed = 1000
	if s.wish == nil || s.wish.Every < time.Millisecond || s.wish.Grace > 0 || len(s.oks) == 0 || !a.clock.known || a.final.Led == 0 {
		return
	}
	_, from := a.clock.unix(s.oks[0].At)
	until, _ := a.clock.unix(min(a.final.Calm, a.last.Add(-a.leadWithin())))
	every := s.wish.Every.Milliseconds()
	if (until-from)/every > mostMissed {
		return
	}
	for at := (from/every + 1) * every; at <= until; at += every {
		j := made[at]
		switch {
		case j == nil:
			say(nil, "the schedule %s has no job of %s", s.name, instant(at))
		case j.final == nil && !(s.wish.Forgotten && (len(j.starts) > 0 || j.end() != "")):
			say(j, "is of %s, and is gone", instant(at))
		}
	}
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format("15:04:05.000") }
