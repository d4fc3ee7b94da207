package history

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// uniqueKeys: of a kind and key one job lives at a time. A job is certain to have lived from when it was
// known to be accepted, or was first started, until the end of the last of its runs whose outcome was
// accepted. Runs whose outcome was not prove nothing: a peer that was taken for dead may still run a job
// that has ended when the next one comes.
//
// And who is refused is refused for somebody: one that may have lived while the call lasted.
func uniqueKeys(a *account, say sayer) {
	holders := map[string][]*mark{}
	var keys []string
	for _, m := range a.marks {
		if m.wish == nil || m.wish.Unique == "" {
			continue
		}
		key := m.kind + ":" + m.wish.Unique
		if holders[key] == nil {
			keys = append(keys, key)
		}
		holders[key] = append(holders[key], m)
	}
	for _, key := range keys {
		overlapping(holders[key], say)
		for _, m := range holders[key] {
			for _, refused := range m.refused {
				if len(m.invokes) == 1 && strings.Contains(refused.Err, "holds the unique key") && !slices.ContainsFunc(holders[key], func(other *mark) bool {
					return other != m && other.mayLive(m.invokes[0].At, refused.At)
				}) {
					say(&job{mark: m.name}, "was refused for its unique key %q, which no job can have had then", m.wish.Unique)
				}
			}
		}
	}
}

func overlapping(marks []*mark, say sayer) {
	type life struct {
		job      *job
		from, to Moment
	}
	var lives []life
	for _, m := range marks {
		for _, j := range m.jobs {
			if from, to := j.lived(); to > from {
				lives = append(lives, life{j, from, to})
			}
		}
	}
	slices.SortStableFunc(lives, func(l, m life) int { return cmp.Compare(l.from, m.from) })
	for i := range lives {
		for _, before := range lives[:i] {
			if before.to > lives[i].from {
				say(lives[i].job, "lived at the same time as job %s with the same unique key, for %v", before.job.id,
					min(before.to, lives[i].to).Sub(lives[i].from).Round(time.Millisecond))
				break
			}
		}
	}
}

// lived is from when until when the job is certain to have lived; nothing is if to is not after from.
func (j *job) lived() (from, to Moment) {
	from = math.MaxInt64
	if j.of != nil {
		for _, ok := range j.of.oks {
			if ok.Job == j.id {
				from = min(from, ok.At)
			}
		}
	}
	for _, r := range j.runs {
		if r.accepted() && r.start != nil {
			from = min(from, r.start.At)
		}
		if r.accepted() && r.end != nil {
			to = max(to, r.end.At)
		}
	}
	return from, to
}

// mayLive reports whether a job of the mark may have lived between these moments.
func (m *mark) mayLive(from, to Moment) bool {
	if m.invokes[0].At > to || len(m.oks)+m.unknown == 0 {
		return false
	}
	if len(m.jobs) == 0 {
		return true
	}
	return slices.ContainsFunc(m.jobs, func(j *job) bool {
		return !slices.ContainsFunc(j.endings(), func(e ending) bool { return e.by.At < from })
	})
}
