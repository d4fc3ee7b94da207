package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// What those do in a walk who make schedules and fire them.

// schedule names one of the partition's.
func (w *modelWalk) schedule(p *modelPart) string {
	return w.routes[p.number] + "@" + pick(w, []string{"s1", "s2", "s3"})
}

func (w *modelWalk) setOne() {
	p := w.part()
	name := w.schedule(p)
	s := p.schedules[name]
	wish := dianemo.ScheduleWish{Name: name, Version: dianemo.AnyVersion,
		What: pick(w, []dianemo.ScheduleChange{dianemo.PutIt, dianemo.PutIt, dianemo.PutIt, dianemo.PauseIt, dianemo.ResumeIt, dianemo.ResumeIt, dianemo.BreakIt, dianemo.RemoveIt})}
	if w.chance(50) {
		if wish.Version = 0; s != nil {
			wish.Version = s.version - pick(w, []int64{0, 0, 0, 1})
		}
	}
	if s != nil && w.chance(50) {
		wish.From = time.UnixMilli(s.at - pick(w, []int64{0, 0, 0, 1}))
	}
	switch wish.What {
	case dianemo.PutIt, dianemo.ResumeIt:
		if w.chance(60) {
			wish.Cursor = time.UnixMilli(w.model.ms())
		}
		if w.chance(80) {
			wish.Next = w.near(pick(w, []time.Duration{time.Second, time.Minute, -time.Second}))
		}
	case dianemo.BreakIt:
		wish.Reason = "it can't be"
	}
	if wish.What == dianemo.PutIt {
		wish.Definition = []byte(fmt.Sprintf("definition %d", w.rng.IntN(100)))
	}
	call := w.call("operator")
	w.do(modelCall{name: "set", text: fmt.Sprintf("%d %v %s %s version %d from %d next %d cursor %d", p.number, call, wish.What, name, wish.Version, wish.From.UnixMilli(), wish.Next.UnixMilli(), wish.Cursor.UnixMilli()),
		real:  func(ctx context.Context) (any, error) { return w.store.SetSchedule(ctx, p.number, call, wish) },
		model: func() (any, error) { return p.set(call, wish) }})
}

// fireSome fires some of the partition's schedules, whether or not they are due: the cursor tells.
func (w *modelWalk) fireSome() {
	p := w.part()
	fire := dianemo.Fire{}
	leader, chore := w.chore()
	if w.chance(70) {
		fire.Term = chore.Term
	}
	for _, n := range w.rng.Perm(3)[:1+w.rng.IntN(2)] {
		name := fmt.Sprintf("%s@s%d", w.routes[p.number], n+1)
		s := p.schedules[name]
		if s == nil {
			if w.chance(90) {
				continue
			}
			s = &modelSchedule{name: name, at: w.model.ms(), version: 1}
		}
		f := dianemo.Firing{Name: name, Version: s.version, Cursor: time.UnixMilli(s.at), Again: time.Duration(w.rng.IntN(5000)) * time.Millisecond,
			Overlap: pick(w, []dianemo.Overlap{dianemo.OverlapAllow, dianemo.OverlapSkip, dianemo.OverlapWait}), Extra: w.chance(10), Pending: w.chance(10)}
		if w.chance(10) {
			f.Cursor = time.UnixMilli(s.at - 1000)
		}
		if w.chance(5) {
			f.Version--
		}
		at := s.at
		for range w.rng.IntN(4) {
			at += 1000
			r := w.record(fmt.Sprintf("%s.%d", name, at))
			if w.chance(10) {
				w.flowOccurrence(&r)
			}
			r.RunAt = time.UnixMilli(at)
			if f.Hold.IsZero() && w.chance(50) {
				f.Hold = r.RunAt
			}
			f.Occurrences = append(f.Occurrences, dianemo.Occurrence{At: r.RunAt, Missed: w.chance(20), Record: r})
		}
		if f.Hold.IsZero() {
			f.Hold = f.Cursor
		}
		if w.chance(20) {
			f.Unrecorded = dianemo.Unrecorded{Count: 2, First: time.UnixMilli(at + 1000), Last: time.UnixMilli(at + 2000)}
			at += 2000
		}
		f.To = time.UnixMilli(at)
		if w.chance(85) {
			f.Next = w.near(pick(w, []time.Duration{time.Second, 10 * time.Second, -time.Second}))
		}
		fire.Firings = append(fire.Firings, f)
	}
	if len(fire.Firings) == 0 {
		return
	}
	call := w.call(leader)
	text := fmt.Sprintf("%d %v term %d", p.number, call, fire.Term)
	for _, f := range fire.Firings {
		text += fmt.Sprintf("\n\t%s version %d from %d to %d hold %d next %d pending %v again %v extra %v %+v %s:", f.Name, f.Version, f.Cursor.UnixMilli(), f.To.UnixMilli(), f.Hold.UnixMilli(),
			f.Next.UnixMilli(), f.Pending, f.Again, f.Extra, f.Unrecorded, f.Overlap)
		for _, o := range f.Occurrences {
			text += fmt.Sprintf(" %s in %s missed %v", o.ID, modelLane(o.Lane), o.Missed)
		}
	}
	w.do(modelCall{name: "fire", text: text,
		real:  func(ctx context.Context) (any, error) { return w.store.Fire(ctx, p.number, call, fire) },
		model: func() (any, error) { return p.fire(call, fire) }})
}

func (w *modelWalk) readSchedules() {
	p := w.part()
	var names []string
	offset := 0
	if w.chance(50) {
		names = []string{w.routes[p.number] + "@s1", w.routes[p.number] + "@s2", "nobody"}
	} else {
		offset = w.rng.IntN(2)
	}
	w.do(modelCall{name: "schedules", text: fmt.Sprint(p.number, names, offset), once: true,
		real:  func(ctx context.Context) (any, error) { return w.store.Schedules(ctx, p.number, names, offset) },
		model: func() (any, error) { return p.read(names, offset), nil }})
	w.do(modelCall{name: "schedule names", once: true,
		real: func(ctx context.Context) (any, error) { return w.store.ScheduleNames(ctx, "", 100) },
		model: func() (any, error) {
			return slices.DeleteFunc(w.model.scheduleNames(), func(name string) bool { return strings.TrimSpace(name) == "" }), nil
		}})
}
